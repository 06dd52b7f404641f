"""Checksums that lie with what they vouch for: in a list beside the files of a folder, or within a JSON
object.

Both vouch for themselves too, so that no single damaged bit passes, wherever it is.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from alignmamba.errors import CheckpointError
from alignmamba.files import read_bounded, replace_file

LIST: Final = "SHA256SUMS"
"""The list of a folder, in the form that ``sha256sum --check`` reads."""
FIELD: Final = "sha256"
"""Field in which a JSON object holds the checksum of its other fields."""

_LIST_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
_WEIGHTS = (".ckpt", ".safetensors")
_MOST_BYTES, _MOST_TEXT_BYTES = 1 << 38, 1 << 30
"""No file of weights, and no other file, that is listed was ever larger: reading one, perhaps of holes alone,
might take days."""
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_OWN = re.compile(r"# sha256 of the lines above: ([0-9a-f]{64})")


def file_checksum(path: Path, told: Callable[[int], None] | None = None, *, without_last: int = 0) -> str:
    """SHA-256 of a file, read in pieces.

    Args:
        path: The file.
        told: Called after each piece how many bytes it had.
        without_last: Bytes at the end that do not count.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - without_last
        while piece := file.read(min(left, _PIECE_BYTES) if without_last else _PIECE_BYTES):
            digest.update(piece)
            left -= len(piece)
            if told is not None:
                told(len(piece))
    return digest.hexdigest()


def checksum(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


# A list beside the files


def lines_checksum(lines: Iterable[str]) -> str:
    """SHA-256 of lines, such as the ids of a split."""
    return checksum("\n".join(lines).encode())


def write_list(folder: Path, names: Iterable[str], *, ahead: Mapping[str, str] | None = None) -> None:
    """Write down the checksums of files of a folder, replacing the list that is there.

    Args:
        folder: Where the list goes.
        names: Files as they lie there, relative to the folder.
        ahead: Checksums of files that are still to be written.

    Raises:
        OSError: If a file cannot be read or the list not be written.
    """
    sums = {**{name: file_checksum(folder / name) for name in names}, **(ahead or {})}
    lines = "".join(f"{value}  {name}\n" for name, value in sorted(sums.items()))
    replace_file(folder / LIST, f"{lines}# sha256 of the lines above: {checksum(lines.encode())}\n".encode())


def read_list(folder: Path) -> dict[str, str]:
    """Checksums by name as a folder lists them; empty where it has no list.

    Raises:
        CheckpointError: If the list is damaged.
    """
    path = folder / LIST
    if not path.exists():
        return {}
    text = read_bounded(path, limit_bytes=_LIST_BYTES, error=CheckpointError).decode(
        "utf-8", errors="replace"
    )
    *lines, last = text.splitlines(keepends=True) or [""]
    own, rows = _OWN.fullmatch(last.rstrip("\n")), [_LINE.fullmatch(line.rstrip("\n")) for line in lines]
    if own is None or own[1] != checksum("".join(lines).encode()) or not all(rows):
        raise CheckpointError(f"{path}: the list of checksums is damaged")
    return {row[2]: row[1] for row in rows if row is not None}


def read_listed(folder: Path, name: str, *, limit_bytes: int) -> bytes:
    """The content of a file, compared with the list of its folder where that names it.

    Args:
        folder: Where the file lies, and its list.
        name: The file, relative to the folder.
        limit_bytes: The largest size that is read.

    Raises:
        CheckpointError: If it cannot be read, or has another checksum than the list says.
    """
    content = read_bounded(folder / name, limit_bytes=limit_bytes, error=CheckpointError)
    expected = read_list(folder).get(name)
    if expected is not None and checksum(content) != expected:
        raise _damaged(folder / name)
    return content


def check_listed(folder: Path, names: Iterable[str]) -> None:
    """Compare files with the list of their folder, where that names them.

    Raises:
        CheckpointError: If one has another checksum than the list says, or cannot be read.
    """
    listed = read_list(folder)
    for name in names:
        try:
            if name not in listed or not (folder / name).is_file():
                continue
            most = _MOST_BYTES if name.endswith(_WEIGHTS) else _MOST_TEXT_BYTES
            if (folder / name).stat().st_size > most or file_checksum(folder / name) != listed[name]:
                raise _damaged(folder / name)
        except OSError as error:
            raise CheckpointError(f"{folder / name}: cannot be read: {error.strerror}") from error


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: damaged or changed: found another checksum than in {LIST}; if you changed the"
        " file, delete that list"
    )


# Within a JSON object


def stamped(values: Mapping[str, Any]) -> dict[str, Any]:
    """The object with the checksum of its fields as one more."""
    return {**values, FIELD: checksum(_canonical(values))}


def unstamped(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The object without its checksum; one that never had any is returned as it is.

    Args:
        values: As it was read.
        where: What the object is, for the message.

    Raises:
        CheckpointError: If its fields have another checksum.
    """
    rest = {name: value for name, value in values.items() if name != FIELD}
    if FIELD in values and values[FIELD] != checksum(_canonical(rest)):
        raise CheckpointError(
            f"{where}: damaged or edited: found another checksum than the one in"
            f" {FIELD!r}; if you edited the file, remove that field"
        )
    return rest


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
