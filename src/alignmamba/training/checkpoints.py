"""Checkpoints: written whole or not at all, sealed with a checksum, read without running anything that is in
them.

A checkpoint is the zip archive that torch writes. Its comment, which zip readers pass over, is the SHA-256 of
all bytes before it; a directory of shards holds a list of checksums instead. A single wrong bit, anywhere, is
refused.
"""

import hashlib
import os
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import TorchCheckpointIO
from lightning_fabric.strategies.strategy import Strategy

from alignmamba import checksums
from alignmamba.errors import CheckpointError
from alignmamba.files import put_in_place, replacing, synchronise

LAST: Final = "last.ckpt"
"""Everything that training needs to resume."""
BEST: Final = "best.ckpt"
"""The weights that scored best on the validation split."""

FORMAT_VERSION: Final = 2
"""Version of the format; a checkpoint is sealed from version 2."""
_UNSEALED: Final = 1

_LABEL = b"sha256:"
_COMMENT_BYTES = len(_LABEL) + 64
_EMPTY = b"\0\0"
_LENGTH = struct.pack("<H", _COMMENT_BYTES)
"""Length of the comment as torch writes it, the last two bytes of the archive, and as it is with the checksum
there."""


def save(fabric: Fabric, path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; whoever looks at `path`, at any moment, finds the old file or the new one.

    Every process has to call this. Rank 0 writes; strategies that shard a model write from every rank.

    Args:
        fabric: The engine that the modules and optimisers in `state` were set up with.
        path: Where the file goes; its directory exists.
        state: Modules, optimisers, tensors and plain values by name.

    Raises:
        OSError: If it cannot be written; the old file is then untouched.
    """
    content = {**state, "format_version": FORMAT_VERSION}
    if _by_torch(fabric.strategy):
        with _writing(fabric.strategy):
            fabric.save(path, content)
        return
    temporary = path.with_name(f".{path.name}.partial")  # the same for every rank
    if fabric.is_global_zero:
        _remove(temporary)
    fabric.barrier()
    fabric.save(temporary, content)
    fabric.barrier()
    if fabric.is_global_zero:
        _seal(temporary)
        _replace(temporary, path)
    fabric.barrier()


def load(fabric: Fabric, path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint into the modules and optimisers of `state`.

    Args:
        fabric: The engine that they were set up with.
        path: A file that `save` wrote.
        state: Modules and optimisers by the names they were saved under.

    Returns:
        What else the checkpoint holds.

    Raises:
        CheckpointError: If the file is absent, damaged, not a checkpoint of this format, or does not fit the
            objects of `state`.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    if not path.is_dir() and not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint, found a pipe, a socket or a device")
    try:
        sealed = _check_seal(path)
        rest: dict[str, Any] = fabric.load(path, dict(state), weights_only=True)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # what a damaged file makes torch raise has no narrower root
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: not a complete checkpoint of this model: {reason[:200]}") from error
    version = rest.pop("format_version", None)
    if version not in (_UNSEALED, FORMAT_VERSION):
        raise CheckpointError(f"{path}: format version {version}, expected {FORMAT_VERSION}")
    if version == FORMAT_VERSION and not sealed:
        raise CheckpointError(f"{path}: damaged: found no checksum")
    return rest


# Writing


class _Beside(TorchCheckpointIO):
    """Writes the sealed file beside its place, not by way of the temporary folder, which may be small."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002 # Lightning's signature
        with replacing(Path(path)) as file:
            sealing = _Sealing(file)
            torch.save(checkpoint, cast(Any, sealing))  # as a file, it needs no more than to be written to
            sealing.finish()


def _by_torch(strategy: Strategy) -> bool:
    """Return whether rank 0 writes one file in torch's way; other strategies and plugins have their own."""
    try:
        return type(strategy.checkpoint_io) is TorchCheckpointIO
    except NotImplementedError:  # how Fabric's sharded strategies answer
        return False


@contextmanager
def _writing(strategy: Strategy) -> Iterator[None]:
    before = strategy.checkpoint_io
    strategy.checkpoint_io = _Beside()
    try:
        yield
    finally:
        strategy.checkpoint_io = before


def _replace(temporary: Path, path: Path) -> None:
    """Move a finished file or directory of shards over `path`, on disk before it is visible."""
    for file in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
        synchronise(file)
    if path.is_dir():
        put_in_place(temporary, path)
    else:
        temporary.replace(path)
        synchronise(path.parent)


def _remove(path: Path) -> None:
    """Remove what a killed process left."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# The seal


class _Sealing:
    """Passes a zip archive to a file, in which its checksum becomes its comment; no copy is held."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self._last = file, hashlib.sha256(), b""

    def write(self, piece: Any) -> int:
        """Take the next bytes; the last ones, which say that there is no comment, are held back."""
        view = memoryview(piece).cast("B")
        if len(view) < len(_EMPTY):
            view = memoryview(self._last + bytes(view))
        else:
            self._pass(self._last)
        self._pass(view[: -len(_EMPTY)])
        self._last = bytes(view[-len(_EMPTY) :])
        return memoryview(piece).nbytes

    def flush(self) -> None:
        """Leave that to the file."""

    def finish(self) -> None:
        """Write the comment."""
        self._pass(_LENGTH)
        self._file.write(_LABEL + self._digest.hexdigest().encode())

    def _pass(self, piece: bytes | memoryview) -> None:
        self._digest.update(piece)
        self._file.write(piece)


def _seal(path: Path) -> None:
    """Seal what a strategy wrote in its own way: shards by a list, a zip archive by its comment."""
    if path.is_dir():
        checksums.write_list(
            path, [str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()]
        )
    elif zipfile.is_zipfile(path):
        with path.open("r+b") as archive:
            archive.seek(-len(_EMPTY), os.SEEK_END)
            archive.write(_LENGTH)
        with path.open("ab") as archive:
            archive.write(_LABEL + checksums.file_checksum(path).encode())


def _check_seal(path: Path) -> bool:
    """Compare a checkpoint with its checksum; of one without, from before there were any, the archive's own
    weaker sums.

    Returns:
        Whether it has one.
    """
    if path.is_dir():
        listed = checksums.read_list(path)
        absent = [name for name in listed if not (path / name).is_file()]
        if absent:
            raise CheckpointError(f"{path / absent[0]}: missing, but {checksums.LIST} lists it")
        checksums.check_listed(path, listed)
        return bool(listed)
    if not zipfile.is_zipfile(path):  # torch would try older formats, and warn about what it finds
        raise CheckpointError(
            f"{path}: expected a zip archive as torch writes it, found something else or a file cut short"
        )
    with path.open("rb") as file:
        file.seek(-min(_COMMENT_BYTES, path.stat().st_size), os.SEEK_END)
        comment = file.read()
    if comment.startswith(_LABEL):
        if checksums.file_checksum(path, without_last=_COMMENT_BYTES) != comment[len(_LABEL) :].decode(
            "ascii", "replace"
        ):
            raise CheckpointError(f"{path}: damaged: its content has another checksum than at writing")
        return True
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise CheckpointError(f"{path}: damaged, {damaged!r} in it has another checksum than at writing")
    return False
