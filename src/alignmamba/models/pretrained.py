"""Saving and loading in the Hugging Face layout: configuration, weights and a model card."""

import json
import math
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final, Generic, Self, TypeVar

import torch
import yaml
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from alignmamba.capacity import refuse_beyond_memory
from alignmamba.checksums import FIELD, checksum, stamped, unstamped
from alignmamba.contracts import Config, ModalitySpec, Task
from alignmamba.errors import CheckpointError, ConfigError, listed, shown
from alignmamba.files import open_regular, parse_json, read_json, replace_file

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

_WEIGHTS_SUM: Final = "weights_sha256"
"""Field of the configuration file: the checksum of the weights' file."""
_HEADER_BYTES: Final = 16 << 20
_COPIES: Final = 3
"""Copies of the weights while a model is opened: the file, its tensors, and the model."""
_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of weights by safetensors' names for them; a file that holds others is not one of ours."""

_PROVENANCE: Final = "provenance"
"""Field of the configuration file: what the model was trained on, and how well it did."""
_CLASSES_SHOWN: Final = 50

ConfigT = TypeVar("ConfigT", bound=Config)


class Provenance(Config):
    """Provenance of a model for its card: its data and its scores."""

    data: str
    """Name of the corpus."""
    checksum: str = ""
    """SHA-256 that identifies the corpus's content."""
    scores: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    """Split to metric to score; ``None`` where a metric is not defined."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of training, as plain values."""


class Pretrained(nn.Module, Generic[ConfigT]):
    """Gives a model ``save_pretrained`` and ``from_pretrained``; it keeps its `config`."""

    config_class: ClassVar[Any]
    config: ConfigT
    summary: ClassVar[str]
    """Summary of the model, half a sentence for its card."""
    tags: ClassVar[tuple[str, ...]] = ()
    """Tags of the card, besides ``multimodal``."""
    provenance: Provenance | None = None
    """Source of the weights, if known; saved with them."""

    def save_pretrained(self, directory: str | Path) -> None:
        """Write configuration, weights and a model card into a folder, each file whole or not at all.

        Args:
            directory: Made where it does not exist; files of the same names are replaced.

        Raises:
            CheckpointError: If a file stands in the folder's place.
        """
        directory = Path(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"{directory}: expected a folder or a place for one ({error.strerror})"
            ) from None
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        content = save(weights, metadata={"format": "pt"})
        described = {
            "model_type": type(self).__name__,
            **self.config.model_dump(mode="json"),
            _WEIGHTS_SUM: checksum(content),
        }
        if self.provenance is not None:
            described[_PROVENANCE] = self.provenance.model_dump(mode="json")
        replace_file(directory / WEIGHTS_FILE, content)
        replace_file(directory / CONFIG_FILE, (json.dumps(stamped(described), indent=2) + "\n").encode())
        replace_file(
            directory / CARD_FILE, self._card(sum(tensor.numel() for tensor in weights.values())).encode()
        )

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Upload a model",
    ) -> str:
        """Upload configuration, weights and model card to a repository on the Hugging Face Hub, which is made
        where there is none.

        Args:
            repository: Its name, as ``user/name``.
            private: Whether only its owner sees it; by default as the account is set up.
            token: Access token; by default the one of ``hf auth login``.
            message: Of the commit.

        Returns:
            Address of the commit.

        Raises:
            CheckpointError: If the Hub refuses it or cannot be reached.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            try:
                api.create_repo(repository, private=private, exist_ok=True)
                commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
            # of HTTP, of the Hub and of its own checks, which share no narrower root
            except Exception as error:
                raise CheckpointError(
                    f"{repository}: cannot be uploaded to the Hub ({_first_line(error)})"
                ) from None
        return str(commit.commit_url)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, local_files_only: bool = False
    ) -> Self:
        """Load a model that `save_pretrained` wrote, in evaluation mode.

        Args:
            source: A local folder, or the name of a repository on the Hugging Face Hub.
            revision: Branch, tag or commit of a Hub repository.
            local_files_only: Whether to look for a Hub repository in the local cache alone.

        Raises:
            CheckpointError: If a file is missing or damaged, was made by another model, or does not fit into
                memory; the message names it.
        """
        folder = fetched(source, revision=revision, local_files_only=local_files_only)
        description = cls._description(folder / CONFIG_FILE)
        config = cls._configuration(description, folder / CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        with open_regular(path, error=CheckpointError) as file:
            dtype = cls._check_fit(config, _declared(file, path), path)
            size = os.fstat(file.fileno()).st_size
            cure = "make the model smaller or use a machine with more memory"
            refuse_beyond_memory(
                _COPIES * size, f"{path}: opening {size:,} bytes of weights", cure, error=CheckpointError
            )
            try:
                content = file.read()
            except OSError as error:
                raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        # Last, for what does not fit says more than a checksum.
        expected = unstamped(description, str(folder / CONFIG_FILE)).get(_WEIGHTS_SUM)
        if expected is not None and checksum(content) != expected:
            raise CheckpointError(
                f"{path}: damaged, or from another save: found another checksum than in {CONFIG_FILE}"
            )
        try:
            weights = load(content)
        except SafetensorError as error:
            raise _no_weights(path, str(error)) from None
        model = cls(config).to(dtype)
        model.load_state_dict(weights)
        model.provenance = _provenance(description, folder / CONFIG_FILE)
        model.eval()
        return model

    @classmethod
    def _check_fit(cls, config: Any, declared: Mapping[str, Tensor], path: Path) -> torch.dtype:
        """Compare what a file declares with what a configuration asks for, before memory is taken for either.

        Returns:
            The floating type of the weights.

        Raises:
            CheckpointError: Naming the first weight that does not fit.
        """
        if len(config.modalities) > len(declared):
            raise CheckpointError(
                f"{path}: found {len(declared)} weights, too few for {len(config.modalities)} modalities"
            )
        with torch.device("meta"):
            model = cls(config)
        expected = model.state_dict()
        wrong = sorted(
            name
            for name, tensor in declared.items()
            if name not in expected or tensor.shape != expected[name].shape
        )
        wrong = wrong or sorted(model.load_state_dict(declared, strict=False).missing_keys)
        if wrong:
            has, needs = (
                f"shape {tuple(each[wrong[0]].shape)}" if wrong[0] in each else ""
                for each in (declared, expected)
            )
            wants = f"its configuration makes it {needs}" if needs else "its configuration has none"
            told = f"has {has}, {wants}" if has else f"is missing, it needs {needs}"
            raise CheckpointError(f"{path}: weight {wrong[0]!r} {told}")
        learnt = {name for name, _ in model.named_parameters()}
        dtypes = {declared[name].dtype: name for name in sorted(learnt & declared.keys(), reverse=True)}
        if len(dtypes) > 1:
            (one, first), (other, second) = list(dtypes.items())[:2]
            raise CheckpointError(
                f"{path}: weights have one type, found {_shown(one)} for {first!r} and {_shown(other)} for"
                f" {second!r}"
            )
        for name, tensor in declared.items():
            if tensor.is_floating_point() != expected[name].is_floating_point():
                raise CheckpointError(
                    f"{path}: weight {name!r} is of type {_shown(tensor.dtype)}, expected one like"
                    f" {_shown(expected[name].dtype)}"
                )
        return next(iter(dtypes))

    @classmethod
    def _description(cls, path: Path) -> dict[str, Any]:
        """Content of the configuration file, if it is one of this class."""
        description = read_json(path, error=CheckpointError)
        made_by = description.get("model_type") if isinstance(description, dict) else None
        if not isinstance(description, dict) or made_by != cls.__name__:
            raise CheckpointError(f"{path}: expected model_type {cls.__name__!r}, found {shown(made_by)}")
        return description

    @classmethod
    def _configuration(cls, description: Mapping[str, Any], path: Path) -> Any:
        others = {"model_type", FIELD, _WEIGHTS_SUM, _PROVENANCE}
        try:
            return cls.config_class(**{key: value for key, value in description.items() if key not in others})
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}") from None

    def _card(self, num_parameters: int) -> str:
        config: Any = self.config
        modalities: tuple[ModalitySpec, ...] = config.modalities
        task: Task = config.task
        rows = "\n".join(
            f"| {m.name} | {m.kind} | {m.dim} | {quoted(m.units) if m.units else 'not stated'} |"
            for m in modalities
        )
        arrays = ", ".join(f'"{m.name}": [{_EXAMPLES[m.kind].format(width=m.dim)}]' for m in modalities)
        use = _USES[task.kind]
        return f"""---
library_name: alignmamba
tags: [{", ".join(("multimodal", *self.tags))}]
---

# {type(self).__name__}, {num_parameters:,} parameters

{self.summary}, made with AlignMamba.

**Input.** Raw features: standardisation is stored with the weights. Any modality may be missing from any
sample.

| modality | kind | width or vocabulary | units |
|---|---|---|---|
{rows}

**Output.** {task.kind.capitalize()}: {_outputs(task)}.

{_trained_on(self.provenance)}## Use

```python
import torch
from alignmamba import Batch
from {type(self).__module__} import {type(self).__name__}

model = {type(self).__name__}.from_pretrained("path/to/this/folder")
batch = Batch.of({{{arrays}}})
with torch.no_grad():
    prediction = model(batch).prediction
{use}
```

A list holds one array per sample, (time, width) or (time,) token ids; `None` stands for a modality that a
sample lacks. The model is not reliable on data of another kind than it was trained on.
"""


_USES: Final = {
    "regression": "value = prediction[0].item()",
    "classification": "probabilities = prediction.softmax(1)",
    "ordinal": "probabilities = prediction.softmax(1)",
    "multilabel": "probabilities = prediction.sigmoid()",
}
_EXAMPLES: Final = {"features": "torch.zeros(10, {width})", "tokens": "[0, 0, 0]"}


def quoted(text: str) -> str:
    """Text of a stranger as one line of Markdown, tables included, that nothing in it can break."""
    plain = re.sub(
        r"[^\S ]|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda found: repr(found[0])[1:-1], text
    )
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    pad = " " if plain.startswith("`") or plain.endswith("`") or not plain.strip() else ""
    return f"{fence}{pad}{plain}{pad}{fence}".replace("|", "\\|")


def _outputs(task: Task) -> str:
    if task.kind == "regression":
        return "one real number" + (
            "" if task.label_range is None else f" from {task.label_range[0]:g} to {task.label_range[1]:g}"
        )
    shown = listed(map(quoted, task.classes), _CLASSES_SHOWN)
    what = {"multilabel": "any of", "ordinal": "one, in order, of"}.get(task.kind, "one of")
    return f"{what} {len(task.classes)} classes: {shown}"


def _trained_on(provenance: Provenance | None) -> str:
    if provenance is None:
        return ""
    lines = [f"## Training\n\nTrained on {quoted(provenance.data)}."]
    if provenance.settings.get("objective") == "pretrain":
        lines = [
            f"## Training\n\nPretrained on {quoted(provenance.data)} without labels. Its predictions mean"
            " nothing: it is a start for `alignmamba train --from`."
        ]
    metrics = list(dict.fromkeys(name for scores in provenance.scores.values() for name in scores))
    if metrics:
        columns = list(provenance.scores)
        lines += ["", f"| metric | {' | '.join(map(quoted, columns))} |", f"|---|{'---|' * len(columns)}"]
        for name in metrics:
            values = [provenance.scores[column].get(name) for column in columns]
            shown = " | ".join("not defined" if value is None else f"{value:.4f}" for value in values)
            lines.append(f"| {quoted(name)} | {shown} |")
    if provenance.settings:
        text = yaml.safe_dump(provenance.settings, sort_keys=False, allow_unicode=False)
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        lines += ["", f"{fence}yaml\n{text}{fence}"]
    return "\n".join(lines) + "\n\n"


def _provenance(description: Mapping[str, Any], path: Path) -> Provenance | None:
    if description.get(_PROVENANCE) is None:
        return None
    try:
        return Provenance(**description[_PROVENANCE])
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: {_PROVENANCE}: {error}") from None


def fetched(source: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """A local folder as it is, or the local copy of a repository on the Hugging Face Hub.

    Args:
        source: The folder, or the name of the repository.
        revision: Branch, tag or commit of a Hub repository.
        local_files_only: Whether to look for a Hub repository in the local cache alone.

    Raises:
        CheckpointError: If it is neither.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        files = [CONFIG_FILE, WEIGHTS_FILE]
        return Path(
            snapshot_download(
                str(source), revision=revision, local_files_only=local_files_only, allow_patterns=files
            )
        )
    except Exception as error:
        raise CheckpointError(
            f"{source}: expected a local folder or a readable Hub repository ({_first_line(error)})"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


# A file of weights


def _declared(file: BinaryIO, path: Path) -> dict[str, Tensor]:
    """The weights of a safetensors file by name: shapes and types without content.

    Raises:
        CheckpointError: If it is none, its header is damaged, or declares another size than the file has.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(size - 8, _HEADER_BYTES):
        raise _no_weights(path, f"a header of {length} bytes")
    header = parse_json(file.read(length), f"{path}: header", error=CheckpointError)
    file.seek(0)
    if not isinstance(header, dict):
        raise _no_weights(path, "a header that is not a JSON object")
    header.pop("__metadata__", None)
    declared = {}
    for name, entry in header.items():
        shape, kind = (entry.get("shape"), entry.get("dtype")) if isinstance(entry, dict) else (None, None)
        if not isinstance(shape, list) or not all(
            isinstance(each, int) and 0 <= each <= size for each in shape
        ):
            raise _no_weights(path, f"no shape for {name[:80]!r}")
        if not isinstance(kind, str) or kind not in _DTYPES:
            raise CheckpointError(
                f"{path}: weight {name[:80]!r} is of type {shown(kind)}, expected one of {', '.join(_DTYPES)}"
            )
        declared[name] = torch.empty(shape, dtype=_DTYPES[kind], device="meta")
    if sum(math.prod(each.shape) * each.element_size() for each in declared.values()) != size - 8 - length:
        raise _no_weights(path, f"{size} bytes, expected as many as its header declares")
    return declared


def _no_weights(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: expected weights in safetensors form, found none that can be read ({found})"
    )


def _shown(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
