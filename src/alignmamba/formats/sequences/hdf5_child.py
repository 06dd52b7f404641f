"""The process that reads HDF5 files, so that a file on which the HDF5 library fails cannot take the program
with it.

It is run as a script by `alignmamba.formats.sequences.hdf5_process` and imports nothing of this package, so
that it starts at once. Requests come as lines of JSON on standard input, each with a `path`:

    {"do": "sequence"}                  what the computational sequence in the file holds
    {"do": "names"}                     the names of all data sets
    {"do": "declared", "name": N}       shape and type of a data set
    {"do": "rows", "name": N, "start": A, "stop": B, "row": R}       rows of it, or, with R, of its row R

An answer is a line of JSON and the bytes that it announces: `{"bytes": N}`, or `{"error": "..."}` and no
bytes. The content is JSON; of `rows` of numbers it is the rows as they lie in memory, little-endian.

What is refused before anything of it is read: links other than hard ones, virtual datasets, datasets stored
in other files, filters beyond those that HDF5 and h5py have, text of variable length, and arrays whose
declared size the file cannot hold.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

# A filter that is not built in would be loaded from a folder of the machine: this turns that off.
os.environ["HDF5_PLUGIN_PRELOAD"] = "::"

import h5py
import numpy as np

DECLARED_PER_BYTE = 100
"""All arrays of a file together may declare at most this many bytes for each byte of the file, and 1 MiB."""
DEFLATE_RATIO = 1100
"""No array declares more for each byte that is stored of it: deflate reaches 1032, and a chunk may reach over
the end."""
CHUNK_BYTES = 64 << 20
WORD_BYTES = 256
METADATA_CHARACTERS = 50_000
_METADATA = ("dataset name", "dataset version", "computational sequence description", "dimension names")
OPEN_FILES = 64
"""Limit for files that are open at a time: there may be one for each sample."""
MOST_NAMES = 100_000

_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}


class RefusedError(Exception):
    """Fault of the file, in one line without its name."""


class OpenFile:
    """Answers to the requests to one file.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.file = h5py.File(path, "r", locking=False)
        self.allowance = self.most = DECLARED_PER_BYTE * Path(path).stat().st_size + (1 << 20)
        self.entries: set[str] = set()
        """Arrays of a computational sequence that were checked; there are too many to keep them open."""
        self.found: dict[str, Any] = {}
        """Other data sets that were checked."""

    def sequence(self) -> dict[str, Any]:
        """Root name, metadata, and shape and type of features and intervals of every entry, after all of it
        was checked.
        """
        roots = [name for name in self.file if _is_text(name) and self._links_to(self.file, name, h5py.Group)]
        roots = [name for name in roots if "data" in self.file[name]]
        if len(roots) != 1:
            raise RefusedError(
                f"expected one group that holds a group 'data', found {len(roots)} among"
                f" {list(self.file)[:5]}"
            )
        (root,) = roots
        data = self._child(self.file[root], "data", h5py.Group, root)
        entries = {}
        self.allowance = self.most
        for name in data:
            if not _is_text(name):
                raise RefusedError(f"{root}/data: the name of entry {name!a} is not UTF-8")
            entry = self._child(data, name, h5py.Group, f"{root}/data")
            where = f"{root}/data/{name}"
            entries[name] = [self._array(entry, field, where) for field in ("features", "intervals")]
        return {"root": root, "metadata": self._metadata(self.file[root]), "entries": entries}

    def _array(self, entry: Any, field: str, where: str) -> tuple[list[int], str]:
        """Shape and type of an array of numbers, or words of fixed length, whose size the file can hold."""
        dataset = self._child(entry, field, h5py.Dataset, where)
        where, dtype = f"{where}/{field}", dataset.dtype
        if len(dataset.shape or ()) not in (1, 2):
            raise RefusedError(f"{where}: expected shape (time, width), found {dataset.shape}")
        is_word = field == "features" and dtype.kind == "S" and dtype.itemsize <= WORD_BYTES
        if not (is_word or (dtype.kind in "fiu" and dtype.itemsize <= 8)):
            raise RefusedError(f"{where}: expected numbers, found {_type_name(dtype)}")
        self._check(dataset, where)
        self.entries.add(where)
        return list(dataset.shape), dtype.str

    def _metadata(self, group: Any) -> dict[str, Any]:
        """Those of the texts of `metadata` that can be read; they only describe the data."""
        found: dict[str, Any] = {}
        if "metadata" not in group or not self._links_to(group, "metadata", h5py.Group):
            return found
        for name in _METADATA:
            if name in group["metadata"] and self._links_to(group["metadata"], name, h5py.Dataset):
                try:
                    value = group["metadata"][name]
                    if value.shape == (1,) and not value.is_virtual and not value.external:
                        found[name] = json.loads(value.asstr()[0][:METADATA_CHARACTERS])
                except (OSError, ValueError, TypeError, RecursionError, KeyError, RuntimeError):
                    continue
        return found

    def names(self) -> list[str]:
        """The paths of all data sets to which hard links lead."""
        found: list[str] = []

        def visit(name: str) -> bool | None:
            if _is_text(name) and self.file.get(name, getclass=True) is h5py.Dataset:
                found.append(name)
            return True if len(found) > MOST_NAMES else None

        if self.file.visit(visit):
            raise RefusedError(f"expected at most {MOST_NAMES} data sets, found more")
        return found

    def declared(self, name: str) -> tuple[list[int], str]:
        """Shape and type of a data set, after it was checked; without a name of the only one."""
        dataset = self._dataset(name)
        return list(dataset.shape), "text" if dataset.dtype.hasobject else dataset.dtype.str

    def rows(self, name: str, start: int, stop: int, row: int | None) -> bytes | list[str]:
        """Rows of a data set, or of one of its rows: little-endian bytes, or texts."""
        dataset = self.file[name] if name in self.entries else self._dataset(name)
        if dataset.dtype.hasobject:
            texts = [str(text) for text in dataset.asstr()[start:stop]]
            if sum(map(len, texts)) > self.most:
                raise RefusedError(f"{name}: its texts have more characters than the file can hold")
            return texts
        values = dataset[start:stop] if row is None else dataset[row, start:stop]
        return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()

    def _dataset(self, name: str) -> Any:
        if name in self.found:
            return self.found[name]
        names = self.names()
        if name not in names and (name or len(names) != 1):
            expected = f"a data set {name!a}" if name else "one data set, or FILE#NAME"
            raise RefusedError(f"expected {expected}, found {len(names)}: {names[:20]}")
        place: Any = self.file
        *groups, last = (name or names[0]).split("/")
        for each in groups:
            place = self._child(place, each, h5py.Group, place.name)
        dataset = self._child(place, last, h5py.Dataset, place.name)
        dtype, shape = dataset.dtype, dataset.shape
        most = 3 if h5py.check_string_dtype(dtype) is None else 1
        if most == 3 and (dtype.kind not in "fiub" or dtype.itemsize > 8):
            raise RefusedError(f"{name}: expected numbers or text, found {_type_name(dtype)}")
        if not 1 <= len(shape or ()) <= most:
            raise RefusedError(f"{name}: expected 1 to {most} axes, found shape {shape}")
        self._check(dataset, name)
        self.found[name] = dataset
        return dataset

    # Checks of links and sizes

    @staticmethod
    def _links_to(group: Any, name: str, kind: type) -> bool:
        return (
            isinstance(group.get(name, getlink=True), h5py.HardLink)
            and group.get(name, getclass=True) is kind
        )

    def _child(self, group: Any, name: str, kind: type, where: str) -> Any:
        if name not in group:
            raise RefusedError(f"{where}: expected {name!r}, found {list(group)[:5]}")
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise RefusedError(
                f"{where}/{name}: a {type(link).__name__}, which may lead out of the file, is not followed"
            )
        if group.get(name, getclass=True) is not kind:
            raise RefusedError(f"{where}/{name}: expected a {kind.__name__.lower()}, found another object")
        return group[name]

    def _check(self, dataset: Any, where: str) -> None:
        """Refuse a data set whose values lie in another file, or are more than the file can hold."""
        properties = dataset.id.get_create_plist()
        if dataset.is_virtual or properties.get_external_count():
            raise RefusedError(f"{where}: its values lie in another file, which is not opened")
        dtype = dataset.dtype
        for number in range(properties.get_nfilters()):
            code = properties.get_filter(number)[0]
            if code not in _FILTERS:
                raise RefusedError(
                    f"{where}: compressed by filter {code}, expected one of {list(_FILTERS.values())}"
                )
        if dataset.chunks is not None and math.prod(dataset.chunks) * dtype.itemsize > CHUNK_BYTES:
            raise RefusedError(
                f"{where}: chunks of shape {dataset.chunks} are larger than {CHUNK_BYTES} bytes"
            )
        declared, stored = math.prod(dataset.shape) * dtype.itemsize, dataset.id.get_storage_size()
        self.allowance -= declared
        if declared > DEFLATE_RATIO * stored or self.allowance < 0:
            raise RefusedError(
                f"{where}: shape {dataset.shape} of {dtype} declares {declared} bytes, more than the file can"
                " hold"
            )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _type_name(dtype: np.dtype) -> str:
    return "text of variable length or references" if dtype.hasobject else str(dtype)


def _limit_memory(room: int) -> None:
    """Allow this process `room` more bytes of address space than it has, where the system can limit that."""
    try:
        import resource

        with Path("/proc/self/statm").open() as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + room, now + room))
    except (ImportError, OSError, ValueError):
        pass


def answer(line: bytes, opened: dict[str, OpenFile]) -> tuple[dict[str, Any], bytes]:
    """The head and the content of the answer to a request; files that were opened before are in `opened`."""
    try:
        request = json.loads(line)
        path, do = request.pop("path"), request.pop("do")
        if path not in opened:
            if len(opened) >= OPEN_FILES:
                opened.pop(next(iter(opened))).file.close()
            opened[path] = OpenFile(path)
        content = getattr(opened[path], do)(**request)
    except RefusedError as error:
        return {"error": str(error)}, b""
    except Exception as error:  # whatever the library raises on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        return {"error": f"cannot be read, the file is damaged: {reason}"}, b""
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return {"bytes": len(content)}, content


def serve(room: int) -> None:
    """Answer requests until there are no more."""
    _limit_memory(room)
    opened: dict[str, OpenFile] = {}
    for line in sys.stdin.buffer:
        head, content = answer(line, opened)
        sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + content)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
