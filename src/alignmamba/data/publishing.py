"""Directories that appear under their name complete or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignmamba.data.storage import MANIFEST, check_path, is_archive_file, read_manifest
from alignmamba.errors import DataError
from alignmamba.files import PARTIAL, beside, held, settle_leftovers

_REPLACED = ".replaced"
"""How the name of what is being replaced ends."""


def prepare_destination(target: Path, *, overwrite: bool) -> None:
    """Refuse a place where a corpus cannot go; what killed processes left beside it is put in order first.

    Raises:
        DataError: If something is there that may not be replaced.
    """
    check_path(target)
    _recover(target)
    if not (target.exists() or target.is_symlink()):
        return
    if not overwrite:
        raise DataError(f"{target}: exists already; overwrite=True (--overwrite) replaces a corpus")
    if target.is_symlink() or not target.is_dir():
        raise DataError(f"{target}: expected a corpus directory to replace, found something else")
    # A corpus may be damaged, but whatever else lies there would go with it.
    names = sorted(path.name for path in target.iterdir())
    if stranger := next((name for name in names if not is_archive_file(name)), None):
        raise DataError(
            f"{target}: found {stranger!r}, which is not a file of a corpus, so the directory is kept"
        )
    if names == [MANIFEST]:
        read_manifest(target)


def _recover(target: Path) -> None:
    """Remove what killed processes had written for this target, and give back a corpus that they had moved
    aside to replace it.
    """

    def settle(leftover: Path) -> None:
        if leftover.suffix == _REPLACED and not target.exists():
            leftover.rename(target)
        elif leftover.suffix in (PARTIAL, _REPLACED):
            shutil.rmtree(leftover)

    settle_leftovers(target, settle)


@contextmanager
def temporary_directory(target: Path) -> Iterator[Path]:
    """A new directory beside the target, gone afterwards if it still has its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with beside(target, Path.mkdir) as directory:
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def publish(directory: Path, target: Path, *, overwrite: bool) -> None:
    """Give a complete corpus its name; one that is there before keeps it until then.

    Raises:
        DataError: If something has come to the target's place in the meantime that may not be replaced.
    """
    synchronise(directory)
    prepare_destination(target, overwrite=overwrite)
    if target.exists():
        # The name is free only for the moment between two renames; a failed second one is undone, here or by
        # the next process.
        replaced = directory.with_suffix(_REPLACED)
        with held(target):
            target.rename(replaced)
            try:
                directory.rename(target)
            except BaseException:
                replaced.rename(target)
                raise
            shutil.rmtree(replaced)
    else:
        directory.rename(target)
    synchronise(target.parent)


def synchronise(path: Path) -> None:
    """Wait until a file or directory is on disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a directory
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
