"""Encoders of sound or of pictures from a local folder, opened for reading alone, in float32."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alignmamba.capacity import refuse_beyond_memory
from alignmamba.errors import ConfigError, shown
from alignmamba.extras import require
from alignmamba.files import read_json
from alignmamba.media.model_folder import checksums, opened, opened_model

_SHAPE, _PREPARATION = "config.json", "preprocessor_config.json"
_UNUSED: Final = r"masked_spec_embed|pooler\."
"""Names of weights that only training needs, or only a last step that is not read."""
_COPIES: Final = 2
"""Copies of the weights while a model is opened."""


@dataclass(frozen=True, kw_only=True)
class FrozenEncoder:
    """A model that is ready to be used, and what makes its input."""

    model: Any
    prepare: Any
    """Feature extractor or image processor of the folder."""
    kind: str
    """Type of the model, as its ``config.json`` names it."""
    weights: Mapping[str, str]
    """SHA-256 of each file that decides the values."""


def open_encoder(what: str, folder: Path, families: Mapping[str, str], preparing: str) -> FrozenEncoder:
    """Open a model and what makes its input.

    Args:
        what: The setting that names the folder, for messages.
        folder: Where the files lie.
        families: Type of model to the class of `transformers` that reads it.
        preparing: Class of `transformers` that makes its input.

    Raises:
        ConfigError: If the folder holds no such model, or `transformers` is not installed.
    """
    where = f"{what}:{folder}"
    require(where, "text")
    import transformers

    files = sorted(path.name for path in folder.glob("*.safetensors"))
    weights = checksums(what, folder, (_SHAPE, *files, _PREPARATION))
    shape = read_json(folder / _SHAPE, error=ConfigError)
    kind = shape.get("model_type") if isinstance(shape, dict) else None
    if not isinstance(kind, str) or kind not in families:
        raise ConfigError(
            f"{folder / _SHAPE}: model_type: found {shown(kind)}, expected one of {', '.join(families)}"
        )
    if not files:
        raise ConfigError(f"{where}: expected weights as *.safetensors, found no such file")
    needed = _COPIES * sum((folder / name).stat().st_size for name in files)
    refuse_beyond_memory(needed, where, "take a smaller model", error=ConfigError)
    prepare = opened(what, folder, getattr(transformers, preparing).from_pretrained)
    load = getattr(transformers, families[kind]).from_pretrained
    model = opened_model(what, folder, load, unused=_UNUSED)
    return FrozenEncoder(model=model, prepare=prepare, kind=kind, weights=weights)
