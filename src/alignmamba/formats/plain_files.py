"""Plain files of others: text, `.npy` and `.npz`, opened without trust.

A path may be asked to stay in a folder, links included. Sizes that a file declares are checked against its
own before anything is made of them, and nothing is ever unpickled.
"""

import contextlib
import io
import math
import os
import stat
import tempfile
import warnings
import weakref
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from alignmamba.errors import DataError

UNPACKED_PER_BYTE = 100
"""A member of an `.npz` file may declare this many bytes for each byte of the file, and 16 MiB."""

_HEADER_BYTES = 10_000
_PIECE_BYTES = 1 << 20
_MAGIC = b"\x93NUMPY"


class LazyRows(Sequence[Any]):
    """A list whose entries are made when they are asked for."""

    def __init__(self, size: int, get: Callable[[int], Any]) -> None:
        self._size, self._get = size, get

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, row: Any) -> Any:
        return self._get(row)


def hinted(source: Path) -> tuple[str, Path]:
    """Kind and place of a source: `NAME=PATH` names it, unless there is a file of that very name; else the
    name is empty.
    """
    name, equals, path = str(source).partition("=")
    return (name, Path(path)) if equals and name.isidentifier() and not source.exists() else ("", source)


def one_line(error: BaseException) -> str:
    """Message of an exception, short and in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def regular_file(path: Path, *, inside: Path | None = None) -> Path:
    """The path, if it is a file of its own and, links followed, lies in a folder; else a refusal."""
    try:
        found = path.resolve(strict=True)
        mode = found.stat().st_mode
        home = None if inside is None else inside.resolve(strict=True)
    except FileNotFoundError:
        raise DataError(f"{path}: expected a file, found nothing") from None
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{str(path)!a}: cannot be read: {one_line(error)}") from error
    if home is not None and not found.is_relative_to(home):
        raise DataError(f"{path}: expected a path within the folder {inside}")
    if not stat.S_ISREG(mode):
        raise DataError(
            f"{path}: expected a file, found {'a folder' if stat.S_ISDIR(mode) else 'something else'}"
        )
    return path


def read_text(path: Path, *, largest: int, inside: Path | None = None) -> str:
    """A text file of at most `largest` bytes of UTF-8; anything else is refused."""
    regular_file(path, inside=inside)
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
        if len(content) <= largest:
            return content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected text in UTF-8, found byte {content[error.start]:#04x} at {error.start}"
        ) from error
    raise DataError(f"{path}: expected at most {largest} bytes of text, found more")


def open_npy(path: Path, *, inside: Path | None = None) -> np.ndarray:
    """The array of an `.npy` file, memory-mapped: numbers, or text of fixed length.

    Raises:
        DataError: If it is no such file, holds Python objects, or has not the size that it declares.
    """
    regular_file(path, inside=inside)
    try:
        with path.open("rb") as file:
            return _mapped(file, os.fstat(file.fileno()).st_size, str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from error


def npz_keys(path: Path, *, inside: Path | None = None) -> tuple[str, ...]:
    """Names of the arrays of an `.npz` file."""
    regular_file(path, inside=inside)
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))
    except _ZIP_ERRORS as error:
        raise DataError(f"{path}: not a readable .npz file: {one_line(error)}") from error


def open_npz(path: Path, key: str, *, inside: Path | None = None) -> np.ndarray:
    """One array of an `.npz` file. It is unpacked, and its checksum compared, into a temporary file that is
    memory-mapped.

    Raises:
        DataError: If there is no such array, or `open_npy` refuses it.
    """
    place = f"{path}: array {key!r}"
    with contextlib.ExitStack() as opened:
        unpacked = opened.enter_context(tempfile.TemporaryFile())
        size = _unpack(path, key, unpacked, inside)
        array = _mapped(unpacked, size, place)
        weakref.finalize(array, opened.pop_all().close)
        return array


class ObjectsError(DataError):
    """An array of Python objects, which `objects` reads as data where they may be used."""


def copy_objects(path: Path, key: str, target: IO[bytes], *, inside: Path | None = None) -> tuple[int, ...]:
    """Copy the pickle of an array of Python objects, of which nothing is run, to `target`; returns the shape
    of the array. It is the one of that key in an `.npz` file, or that of an `.npy` file where the key is
    empty.
    """
    place = f"{path}: array {key!r}" if key else str(path)
    regular_file(path, inside=inside)
    try:
        opened = tempfile.TemporaryFile() if key else path.open("rb")  # noqa: SIM115
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {one_line(error)}") from error
    with opened as source:
        if key:
            _unpack(path, key, source, inside)
        shape, fortran, dtype = _header(source, place)
        if dtype.kind != "O":
            found = str(dtype)[:80] if dtype.hasobject else "numbers or text"
            raise DataError(f"{place}: expected Python objects, found {found}")
        if fortran and len(shape) > 1:
            raise DataError(f"{place}: expected objects in row-major order, found column-major order")
        _copy(source, target, place)
    return shape


def _unpack(path: Path, key: str, target: IO[bytes], inside: Path | None) -> int:
    """Copy a member of an `.npz` file, comparing its checksum; returns its size."""
    keys = npz_keys(path, inside=inside)
    if key not in keys:
        raise DataError(f"{path}: expected an array {key!r}, found {list(keys)[:20]}")
    place = f"{path}: array {key!r}"
    try:
        with zipfile.ZipFile(path) as archive:
            member, size = archive.getinfo(f"{key}.npy"), path.stat().st_size
            if member.file_size > UNPACKED_PER_BYTE * size + (16 << 20):
                raise DataError(
                    f"{place}: declares {member.file_size} bytes, more than a file of {size} bytes may hold"
                )
            with archive.open(member) as packed:
                _copy(packed, target, place)
        target.seek(0)
        return member.file_size
    except DataError:
        raise
    except _ZIP_ERRORS as error:
        raise DataError(f"{place}: cannot be unpacked, the file is damaged: {one_line(error)}") from error


def _copy(source: IO[bytes], target: IO[bytes], place: str) -> None:
    """Copy what is left of a file into a temporary one; that the disk is full is no fault of the source."""
    while piece := source.read(_PIECE_BYTES):
        try:
            target.write(piece)
            target.flush()
        except OSError as error:
            # Or closing it would try once more to write what is left.
            getattr(target, "raw", target).close()
            raise DataError(
                f"{place}: cannot be unpacked into {tempfile.gettempdir()}: {error.strerror or error}; TMPDIR"
                " names another folder"
            ) from error


def counting(told: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    """Counter that adds up the bytes reported to it, and reports how many of `total` they are."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        if told is not None:
            told(done, total)

    return add


# What zipfile and the decompressors, and numpy's parser of a header, raise on damaged bytes.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    KeyError,
    OverflowError,
)
_HEADER_ERRORS = (
    ValueError,
    TypeError,
    SyntaxError,
    TokenError,
    LookupError,
    RuntimeError,
    MemoryError,
    AttributeError,
)


def _mapped(file: IO[bytes], size: int, place: str) -> np.ndarray:
    """The array at the start of an open file of that size; read-only."""
    shape, fortran, dtype = _header(file, place)
    if dtype.hasobject:
        raise (ObjectsError if dtype.kind == "O" else DataError)(
            f"{place}: found Python objects, which are never read; save numbers or text, and unequal"
            " sequences as one array with offsets or one file per sample"
        )
    if dtype.kind not in "fiubSU" or (dtype.kind in "fiu" and dtype.itemsize > 8) or dtype.shape:
        raise DataError(f"{place}: expected numbers or text, found {str(dtype)[:80]}")
    start = file.tell()
    declared = math.prod(shape) * dtype.itemsize
    if declared != size - start:
        raise DataError(
            f"{place}: shape {_short(shape)} of {dtype} takes {declared} bytes, found {size - start}"
        )
    if declared == 0:
        return np.empty(shape, dtype=dtype)
    try:
        return np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{place}: cannot be mapped: {one_line(error)}") from error


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(str(shape)) < 80 else f"{str(shape)[:76]}...)"


def _header(file: IO[bytes], place: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, column-major or not, and dtype, by numpy's own parser from bytes of bounded number."""
    magic = file.read(8)
    if magic[:6] != _MAGIC:
        raise DataError(f"{place}: not a .npy file")
    if len(magic) != 8 or magic[6] not in (1, 2, 3):
        raise DataError(f"{place}: .npy version {magic[6:].hex()} is not known")
    length = file.read(2 if magic[6] == 1 else 4)
    declared = int.from_bytes(length, "little")
    header = file.read(min(declared, _HEADER_BYTES + 1))
    if len(header) != declared:
        raise DataError(f"{place}: its header of {declared} bytes is cut off or too long")
    parse = np.lib.format.read_array_header_1_0 if magic[6] == 1 else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers of Python 2 are fine
            shape, fortran, dtype = parse(io.BytesIO(length + header), max_header_size=_HEADER_BYTES)
    except _HEADER_ERRORS as error:
        raise DataError(
            f"{place}: its header cannot be read, the file is damaged: {one_line(error)}"
        ) from error
    if any(isinstance(length, bool) or length < 0 for length in shape) or len(shape) > 4:
        raise DataError(f"{place}: shape {_short(shape)}, expected at most 4 lengths of 0 or more")
    return shape, fortran, dtype
