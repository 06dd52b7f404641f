"""Models and tokenizers of `transformers` from a local folder: nothing is fetched, and no code of it runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignmamba.checksums import file_checksum
from alignmamba.errors import ConfigError


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
        with _quiet():
            return load(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # of files, shapes and versions, which share no narrower root
        raise ConfigError(
            f"{what}:{folder}: expected what transformers opens, found {reason(error)}"
        ) from None


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


def reason(error: Exception) -> str:
    """Cause of an error of another library, in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep `transformers` from printing bars and tables."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
