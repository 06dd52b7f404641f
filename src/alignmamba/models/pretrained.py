"""Saving and loading of models in the Hugging Face layout: ``config.json``, ``model.safetensors`` and a model card."""

import json
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from alignmamba.contracts import Config, ModalitySpec, Task
from alignmamba.errors import CheckpointError, ConfigError, first_fault
from alignmamba.files import replace_file

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

ConfigT = TypeVar("ConfigT", bound=Config)


class Pretrained(nn.Module, Generic[ConfigT]):
    """Gives a model ``save_pretrained`` and ``from_pretrained``; it states its class variables and keeps its `config`."""

    config_class: ClassVar[Any]
    config: ConfigT
    summary: ClassVar[str]
    """What the model is, in half a sentence for its card."""
    tags: ClassVar[tuple[str, ...]]
    """What the card is found by, beside ``multimodal``."""

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
            raise CheckpointError(f"{directory}: expected a folder or a place for one ({error.strerror})") from None
        description = {"model_type": type(self).__name__, **self.config.model_dump(mode="json")}
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        replace_file(directory / WEIGHTS_FILE, save(weights, metadata={"format": "pt"}))
        replace_file(directory / CONFIG_FILE, (json.dumps(description, indent=2) + "\n").encode())
        replace_file(directory / CARD_FILE, self._card(sum(tensor.numel() for tensor in weights.values())).encode())

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Self:
        """Load a model that `save_pretrained` wrote, in evaluation mode.

        Args:
            source: A local folder, or the name of a repository on the Hugging Face Hub.
            revision: Branch, tag or commit of a Hub repository.
            local_files_only: Whether to look for a Hub repository in the local cache alone.

        Raises:
            CheckpointError: If a file is missing or damaged, or was made by another model; the message names it.
        """
        folder = Path(source) if Path(source).is_dir() else _download(str(source), revision, local_files_only)
        model = cls(cls._read_config(folder / CONFIG_FILE))
        path = folder / WEIGHTS_FILE
        try:
            weights = load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: expected weights in safetensors form, found none that can be read ({error})") from None
        expected = model.state_dict()
        for name in sorted(expected.keys() | weights.keys()):
            there, wanted = weights.get(name), expected.get(name)
            if there is None or wanted is None or there.shape != wanted.shape:
                shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (there, wanted)]
                raise CheckpointError(f"{path}: weight {name!r} has shape {shapes[0]}, its configuration makes it {shapes[1]}")
        model.to(next(tensor.dtype for tensor in weights.values() if tensor.is_floating_point()))
        model.load_state_dict(weights)
        model.eval()
        return model

    @classmethod
    def _read_config(cls, path: Path) -> Any:
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{path}: expected a model's configuration in JSON, found none that can be read ({error})") from None
        made_by = description.pop("model_type", None) if isinstance(description, dict) else None
        if made_by != cls.__name__:
            raise CheckpointError(f"{path}: expected model_type {cls.__name__!r}, found {made_by!r}")
        try:
            return validated(cls.config_class, description)
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}") from None

    def _card(self, num_parameters: int) -> str:
        config: Any = self.config
        modalities: tuple[ModalitySpec, ...] = config.modalities
        task: Task = config.task
        outputs = "one real number" if task.kind == "regression" else f"one of {len(task.classes)} classes: {', '.join(task.classes)}"
        rows = "\n".join(f"| {m.name} | {m.kind} | {m.dim} | {m.units or 'not stated'} |" for m in modalities)
        return f"""---
library_name: alignmamba
tags: [{", ".join(("multimodal", *self.tags))}]
---

# {type(self).__name__}, {num_parameters:,} parameters

{self.summary}, made with AlignMamba.

**Input.** Raw features: standardisation is stored with the weights. Any modality may be missing from any sample.

| modality | kind | width or vocabulary | units |
|---|---|---|---|
{rows}

**Output.** {task.kind.capitalize()}: {outputs}.

```python
from {type(self).__module__} import {type(self).__name__}

model = {type(self).__name__}.from_pretrained("path/to/this/folder")
```

Trained on the data its author names; it says nothing reliable about data of another kind.
"""


def validated(config_class: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Build a configuration from plain values.

    Raises:
        ConfigError: In one line, naming the first wrong field, what was found and what was expected.
    """
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        raise ConfigError(first_fault(error)) from None


def _download(repository: str, revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        files = [CONFIG_FILE, WEIGHTS_FILE]
        return Path(snapshot_download(repository, revision=revision, local_files_only=local_files_only, allow_patterns=files))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{repository}: neither a local folder nor a Hub repository that can be read ({reason})") from None
