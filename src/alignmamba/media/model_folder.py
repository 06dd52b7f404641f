"""Models and tokenizers of `transformers` from a local folder: nothing is fetched, and no code of it runs."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from alignmamba.checksums import file_checksum
from alignmamba.errors import ConfigError, brief
from alignmamba.extras import quiet_transformers

LICENCE: Final = "that of the weights; transformers is Apache-2.0"


def opened(what: str, folder: Path, load: Callable[..., Any], **options: Any) -> Any:
    """A part of a folder, by one of the loaders of `transformers`.

    Args:
        what: The setting that names the folder, for messages.
        folder: Where it lies.
        load: Such as ``AutoModel.from_pretrained``.
        options: Further arguments of the loader.

    Raises:
        ConfigError: If there is no such folder, or the loader refuses it.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise ConfigError(f"{what}:{folder}: expected the folder of a model, found {found}")
    try:
        with quiet_transformers():
            return load(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # of files, shapes and versions, which share no narrower root
        raise ConfigError(
            f"{what}:{folder}: expected what transformers opens, found {brief(error)}"
        ) from None


def opened_model(what: str, folder: Path, load: Callable[..., Any], *, unused: str) -> Any:
    """The model of a folder for reading alone, in float32, with all weights that its values depend on.

    Args:
        what: The setting that names the folder, for messages.
        folder: Where it lies.
        load: Such as ``AutoModel.from_pretrained``.
        unused: Pattern within the names of weights that may be missing.

    Raises:
        ConfigError: If it cannot be opened, or weights are missing.
    """
    with torch.random.fork_rng(devices=[]):  # weights that are missing would be drawn
        model, said = opened(
            what, folder, load, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    drawn = map(str, (*said["missing_keys"], *said["mismatched_keys"]))
    lacking = sorted(key for key in drawn if not re.search(unused, key))
    if lacking:
        raise ConfigError(f"{what}:{folder}: expected all weights, found no fitting {lacking[0]!r}")
    return model.eval().requires_grad_(False)


def checksums(what: str, folder: Path, names: Sequence[str]) -> Mapping[str, str]:
    """SHA-256 of the files of a folder that decide what its model does, by name.

    Args:
        what: The setting that names the folder, for messages.
        folder: Where they lie.
        names: All that count; the first of them must be there.

    Raises:
        ConfigError: If the first one is missing.
    """
    if not (folder / names[0]).is_file():
        raise ConfigError(f"{what}:{folder}: expected a folder with {names[0]}, found no such file")
    return {name: file_checksum(folder / name) for name in names if (folder / name).is_file()}
