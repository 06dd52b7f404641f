"""Token ids read by a language model of the BERT family, whose weights come from a local folder."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import torch
from pydantic import Discriminator, Field, Tag
from torch import Tensor, nn

from alignmamba.checksums import file_checksum
from alignmamba.contracts import Config, ModalitySpec
from alignmamba.errors import CheckpointError, ConfigError, DataError, brief, shown
from alignmamba.extras import quiet_transformers, require
from alignmamba.files import read_json
from alignmamba.nn.encoders import Encoder, EncoderConfig

_SHAPE_FILE, _WEIGHTS_FILE = "config.json", "model.safetensors"
_FAMILY: Final = {"bert": True, "roberta": True, "xlm-roberta": True, "distilbert": False}
"""Types of models that are read, and if each has a pooling layer to leave out."""
_AFTER_PADDING: Final = ("roberta", "xlm-roberta")
"""Types that count places from the padding id on."""
_NO_PART: Final = (
    "architectures",
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "auto_map",
)
_SUM: Final = "weights_sha256"
PLACES: Final = "ALIGNMAMBA_MODELS"
"""Variable of the environment: where to look for the folder of recorded weights that was moved, separated as
``PATH`` is."""


class LanguageConfig(Config):
    """Encoder of one modality of token ids by a language model from a folder."""

    kind: Literal["pretrained"] = "pretrained"
    """A model of the BERT family, made by `transformers`."""
    path: str
    """Folder with ``config.json`` and ``model.safetensors``; nothing is fetched from a network."""
    frozen: bool = True
    """Leave its weights as they are, without dropout; they stay in the folder, and a saved model names their
    checksum."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-5
    """Peak rate of its weights where they are fine-tuned; it rises and falls as ``fit.learning_rate``
    does."""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    """Checksum of the weights' file; empty until the folder was read."""
    architecture: dict[str, Any] = Field(default_factory=dict)
    """Content of the folder's ``config.json``; empty until the folder was read."""

    def pinned(self, field: str) -> Self:
        """The same with what the folder says of the weights.

        Args:
            field: Name of the setting, for messages.

        Raises:
            ConfigError: If the folder holds no such model, or `transformers` is not installed.
        """
        require(f"{field}.kind: pretrained", "text")
        if self.sha256 and self.architecture:
            return self
        folder = Path(self.path).resolve()
        for name in (_SHAPE_FILE, _WEIGHTS_FILE):
            if not (folder / name).is_file():
                found = _kind_of(folder)
                raise ConfigError(f"{field}.path: {self.path}: found {found}, expected a folder with {name}")
        shape = read_json(folder / _SHAPE_FILE, error=ConfigError)
        kind = shape.get("model_type") if isinstance(shape, dict) else None
        if not isinstance(shape, dict) or kind not in _FAMILY:
            raise ConfigError(
                f"{field}.path: {folder / _SHAPE_FILE}: model_type: found {shown(kind)}, expected one of"
                f" {', '.join(_FAMILY)}"
            )
        if kind in _AFTER_PADDING and not isinstance(shape.get("pad_token_id", 1), int):
            raise ConfigError(
                f"{field}.path: {folder / _SHAPE_FILE}: pad_token_id: found {shown(shape['pad_token_id'])},"
                " expected a number"
            )
        return self.model_copy(
            update={
                "path": str(folder),
                "sha256": file_checksum(folder / _WEIGHTS_FILE),
                "architecture": {name: value for name, value in shape.items() if name not in _NO_PART},
            }
        )


def _kind_of(folder: Path) -> str:
    if folder.is_dir():
        return "a folder without it"
    return "a file" if folder.exists() else "no such folder"


def _branch(given: Any) -> str:
    """The configuration that a kind of encoder has: a language model's, or the one that all others share."""
    kind = given.get("kind") if isinstance(given, Mapping) else getattr(given, "kind", None)
    return "[pretrained]" if kind == "pretrained" else "[ours]"


AnyEncoderConfig = Annotated[
    Annotated[EncoderConfig, Tag("[ours]")] | Annotated[LanguageConfig, Tag("[pretrained]")],
    Discriminator(_branch),
]
"""Encoder of one modality, distinguished by ``kind``."""


class LanguageReader(Encoder):
    """A modality of token ids and its language model; at the model's own width unless another is given.

    Raises:
        ConfigError: If the language model cannot be opened, or does not fit the modality.
    """

    def __init__(self, modality: ModalitySpec, config: LanguageConfig, width: int | None = None) -> None:
        field = f"encoders.{modality.name}"
        if modality.kind != "tokens":
            raise ConfigError(
                f"{field}.kind: 'pretrained' reads token ids, found a modality of kind {modality.kind!r}"
            )
        config = config.pinned(field)
        language = Language(config, field)
        if modality.dim > language.vocabulary:
            raise ConfigError(
                f"{field}.path: {config.path}: found a vocabulary of {language.vocabulary}, expected"
                f" {modality.dim} as the corpus has"
            )
        super().__init__(language.width if width is None else width, stride=1)
        self.language = language
        self.name = modality.name

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that can be read."""
        return self.language.longest


class LanguageEncoder(LanguageReader):
    """Last hidden states of a language model, one for each token id, mapped to the model's width.

    Devlin et al., "BERT", arXiv 1810.04805, by way of `transformers`. The mask of the modality is the
    attention mask. Dropout inside is that of the folder's ``config.json``; a frozen model has none.
    """

    def __init__(self, modality: ModalitySpec, config: LanguageConfig, d_model: int) -> None:
        super().__init__(modality, config, d_model)
        self.project = nn.Linear(self.language.width, d_model)
        self.norm = nn.RMSNorm(d_model, eps=1e-5)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        refuse_longer(self.name, mask.shape[1], self.longest)
        encoded: Tensor = self.norm(self.project(self.language(features.squeeze(-1), mask)))
        return encoded.masked_fill(~mask.unsqueeze(-1), 0), mask


class LanguageSteps(LanguageReader):
    """Embeddings of a language model, at its own width; a network changes them, then asks for the
    `hidden_states` that follow.

    The corpus holds what the model's tokenizer makes: its first token gathers the sentence.
    """

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        refuse_longer(self.name, mask.shape[1], self.longest)
        return self.language.embedded(features.squeeze(-1), mask).masked_fill(~mask.unsqueeze(-1), 0), mask

    def embedded(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and their mask as they are: the token that gathers the sentence is the first of them."""
        return x, mask

    def hidden_states(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width) and its mask to (batch, time, width)."""
        return self.language.hidden_states(embedding, mask)


def refuse_longer(name: str, found: int, longest: int) -> None:
    """Refuse sequences of a modality that its encoder cannot read.

    Raises:
        DataError: If there is one.
    """
    if found > longest:
        raise DataError(
            f"modality {name!r}: found a sequence of {found} tokens, its encoder reads at most {longest}"
        )


class Language(nn.Module):
    """A language model, frozen or fine-tuned; weights of a frozen one are in no state dict, their checksum
    is.

    Raises:
        ConfigError: If its weights are frozen and the folder lacks them, or holds others.
    """

    weights_sha256: Tensor

    def __init__(self, config: LanguageConfig, field: str) -> None:
        super().__init__()
        self.path, self.frozen = config.path, config.frozen
        self._prefix = ""
        self.missing = ""
        """Reason why the weights are not those of the folder, as long as no saved ones have taken their
        place."""
        self.model = self._made(config, field)
        if config.frozen:
            self.register_buffer(
                _SUM, torch.frombuffer(bytearray.fromhex(config.sha256), dtype=torch.uint8).to(self._device)
            )
            self.model.requires_grad_(False).eval()
        for parameter in self.model.parameters():
            parameter._learning_rate, parameter._rate_of = config.learning_rate, field
        self.register_load_state_dict_post_hook(_forget_frozen)  # type: ignore[no-untyped-call]

    @property
    def width(self) -> int:
        """Width of a hidden state."""
        return int(self.model.config.hidden_size)

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self.model.config.vocab_size)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        shape = self.model.config
        first = shape.pad_token_id + 1 if shape.model_type in _AFTER_PADDING else 0
        return int(shape.max_position_embeddings) - first

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, time) int64 and bool to (batch, time, width); what padding holds is not defined."""
        embedding = self.embedded(ids, mask)
        return self.hidden_states(embedding, mask)

    def embedded(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(batch, time) int64 and bool to (batch, time, width): what the first layer reads."""
        if self.missing:
            raise CheckpointError(self.missing)
        if ids.shape[1] == 0:
            empty: Tensor = self.model.embeddings.word_embeddings.weight.new_zeros(*ids.shape, self.width)
            return empty
        padding = self.model.config.pad_token_id or 0
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            embedding: Tensor = self.model.embeddings(input_ids=ids.masked_fill(~mask, padding))
        return embedding

    def hidden_states(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width) and bool to (batch, time, width): what the layers make of embeddings.

        Frozen layers let gradients through.
        """
        if embedding.shape[1] == 0:
            return embedding
        read = mask.clone()
        read[:, 0] = True  # attention to nothing is no number; what comes of it is masked by whoever asks
        in_place = self.model.embeddings.register_forward_hook(lambda *_: embedding)
        try:
            with torch.set_grad_enabled(
                torch.is_grad_enabled() and (not self.frozen or embedding.requires_grad)
            ):
                states: Tensor = self.model(
                    inputs_embeds=torch.zeros_like(embedding), attention_mask=read.long()
                ).last_hidden_state
        finally:
            in_place.remove()
        return states

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """All weights, or of frozen ones the checksum alone."""
        if not self.frozen:
            return super().state_dict(*args, **kwargs)
        destination, prefix = kwargs.get("destination"), kwargs.get("prefix", "")
        destination = {} if destination is None else destination
        destination[f"{prefix}{_SUM}"] = self.weights_sha256
        return destination

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        self._prefix = prefix
        saved = state_dict.get(f"{prefix}{_SUM}")
        if (
            self.frozen
            and saved is not None
            and "meta" not in (saved.device.type, self.weights_sha256.device.type)
        ):
            found, expected = (bytes(each.cpu().tolist()).hex()[:12] for each in (self.weights_sha256, saved))
            if found != expected:
                raise CheckpointError(
                    f"{self.path}: found weights of checksum {found}, expected {expected}, as saved"
                )
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.state_dict(prefix=prefix).keys() <= state_dict.keys():
            self.missing = ""

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def _made(self, config: LanguageConfig, field: str) -> Any:
        """The model with the folder's weights; on the meta device its shape alone."""
        from transformers import AutoConfig, AutoModel

        shape = dict(config.architecture)
        kind = shape.pop("model_type", None)
        if kind not in _FAMILY:
            raise ConfigError(
                f"{field}.architecture.model_type: found {shown(kind)}, expected one of {', '.join(_FAMILY)}"
            )
        options = {"add_pooling_layer": False} if _FAMILY[kind] else {}
        with torch.random.fork_rng(devices=[]), quiet_transformers():
            try:
                wanted = AutoConfig.for_model(kind, **shape)
            except Exception as error:  # of its many checks, which share no narrower root
                raise ConfigError(
                    f"{field}.path: {config.path}: expected a model of type {kind}, found {brief(error)}"
                ) from None
            if torch.empty(0).device.type != "meta":
                folder, self.missing = _found(config, field)
                if self.missing and config.frozen:
                    raise ConfigError(self.missing)
                if not self.missing:
                    return _opened(str(folder), field, wanted, options)
            try:
                return AutoModel.from_config(wanted, **options)
            except Exception as error:  # as above
                raise ConfigError(
                    f"{field}.path: {config.path}: expected a model of type {kind}, found {brief(error)}"
                ) from None


def _found(config: LanguageConfig, field: str) -> tuple[Path, str]:
    """Folder that holds the recorded weights, the recorded one first; and the fault where none does."""
    recorded = Path(config.path)
    path = recorded / _WEIGHTS_FILE
    found = file_checksum(path)[:12] if path.is_file() else ""
    if found == config.sha256[:12]:
        return recorded, ""
    for folder in _other_places():
        if (folder / _WEIGHTS_FILE).is_file() and file_checksum(folder / _WEIGHTS_FILE) == config.sha256:
            return folder, ""
    fault = f"found weights with the checksum {found}" if found else "found nothing"
    expected = f"expected {'' if found else 'weights with the checksum '}{config.sha256[:12]}"
    return recorded, f"{field}.path: {path}: {fault}, {expected}; {PLACES} may name folders to look in"


def _other_places() -> Iterator[Path]:
    """Folders of ``ALIGNMAMBA_MODELS`` and the folders in them."""
    for place in filter(None, os.environ.get(PLACES, "").split(os.pathsep)):
        yield Path(place)
        if Path(place).is_dir():
            yield from sorted(each for each in Path(place).iterdir() if each.is_dir())


def _opened(path: str, field: str, shape: Any, options: Mapping[str, Any]) -> Any:
    """The folder's weights in the recorded shape, whatever the folder says of its own by now."""
    from transformers import AutoModel

    where = f"{field}.path: {path}"
    fixed: dict[str, Any] = {
        "local_files_only": True,
        "use_safetensors": True,
        "trust_remote_code": False,
        "dtype": torch.float32,
    }
    try:
        model, said = AutoModel.from_pretrained(
            path, config=shape, output_loading_info=True, **fixed, **options
        )
    except Exception as error:  # of files, shapes and versions, which share no narrower root
        raise ConfigError(
            f"{where}: expected a model that transformers opens, found {brief(error)}"
        ) from None
    lacking = sorted([*said["missing_keys"], *map(str, said["mismatched_keys"])])
    if lacking:
        raise ConfigError(
            f"{where}: expected all weights of its {_SHAPE_FILE}, found no fitting {lacking[0]!r}"
        )
    surplus = sorted(key for key in map(str, said["unexpected_keys"]) if ".layer." in key)
    if surplus:
        raise ConfigError(
            f"{where}: expected the layers of its {_SHAPE_FILE} and no others, found {surplus[0]!r} too"
        )
    return model


def _forget_frozen(module: nn.Module, keys: Any) -> None:
    """Expect no frozen weight in a state dict."""
    assert isinstance(module, Language)
    if module.frozen:
        prefix = f"{module._prefix}model."
        keys.missing_keys[:] = [key for key in keys.missing_keys if not key.startswith(prefix)]
