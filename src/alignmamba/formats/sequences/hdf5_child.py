"""The process that reads HDF5 files, so that a file on which the HDF5 library fails cannot take the program
with it.

It is run as a script by `alignmamba.formats.sequences.hdf5_process` and imports nothing of this package, so
that it starts at once. Requests come as lines of JSON on standard input, each with a `path`:

    {"do": "open"}                      what the computational sequence in the file holds
    {"do": "read", "entry": E, "field": F, "start": A, "stop": B}     rows of an array of one entry
    {"do": "names"}                     the names of all data sets
    {"do": "shape", "name": N}          shape and type of a data set
    {"do": "slice", "name": N, "start": A, "stop": B, "row": R}       rows of it, or, with R, of its row R

An answer is a line of JSON and the bytes that it announces: `{"bytes": N}`, or `{"error": "..."}` and no
bytes. The content of `open`, `names` and `shape` is JSON, as is that of `slice` for text; else the rows as
they lie in memory, little-endian.

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
METADATA_CHARACTERS = 500
OPEN_FILES = 16
"""Limit for files of data sets, of which there may be one for each sample, as many are open at a time."""
MOST_NAMES = 100_000

_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}


class RefusedError(Exception):
    """Fault of the file, in one line without its name."""


class OpenFile:
    """Requests to any HDF5 file.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.file = h5py.File(path, "r", locking=False)
        self.allowance = self.most = DECLARED_PER_BYTE * Path(path).stat().st_size + (1 << 20)

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

    def _checked(self, dataset: Any, where: str) -> Any:
        """The same, once it is known that its values lie in the file, and that the file can hold as many."""
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
        return dataset


class Sequence(OpenFile):
    """A computational sequence in an open file.

    Args:
        path: The file.

    Raises:
        RefusedError: If it is not one.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        roots = [name for name in self.file if _is_text(name) and self._links_to(self.file, name, h5py.Group)]
        roots = [name for name in roots if "data" in self.file[name]]
        if len(roots) != 1:
            raise RefusedError(
                f"expected one group that holds a group 'data', found {len(roots)} among"
                f" {list(self.file)[:5]}"
            )
        self.root = roots[0]
        group = self.file[self.root]
        self.data = self._child(group, "data", h5py.Group, self.root)

    def description(self) -> dict[str, Any]:
        """Root name, metadata and the shapes of every entry, after all of it was checked."""
        entries = []
        for name in self.data:
            if not _is_text(name):
                raise RefusedError(f"{self.root}/data: the name of entry {name!a} is not UTF-8")
            where = f"{self.root}/data/{name}"
            entry = self._child(self.data, name, h5py.Group, f"{self.root}/data")
            features = self._array(entry, "features", where, words=True)
            intervals = self._array(entry, "intervals", where)
            entries.append(
                [name, list(features.shape), features.dtype.str, list(intervals.shape), intervals.dtype.str]
            )
        return {"root": self.root, "metadata": self._metadata(), "entries": entries}

    def rows(self, entry: str, field: str, start: int, stop: int) -> bytes:
        """Rows of an array as little-endian bytes."""
        dataset = self.data[entry][field]
        return _little_endian(dataset[start:stop])

    def _array(self, entry: Any, name: str, where: str, *, words: bool = False) -> Any:
        """A dataset of numbers, or of words of fixed length, whose size the file can hold."""
        dataset = self._child(entry, name, h5py.Dataset, where)
        where = f"{where}/{name}"
        if len(dataset.shape or ()) not in (1, 2):
            raise RefusedError(f"{where}: expected shape (time, width), found {dataset.shape}")
        dtype = dataset.dtype
        if not (
            (dtype.kind in "fiu" and dtype.itemsize <= 8)
            or (words and dtype.kind == "S" and dtype.itemsize <= WORD_BYTES)
        ):
            raise RefusedError(f"{where}: expected numbers, found {_type_name(dtype)}")
        return self._checked(dataset, where)

    def _metadata(self) -> dict[str, Any]:
        """Those of the texts of `metadata` that can be read; they only describe the data."""
        found: dict[str, Any] = {}
        group = self.file[self.root]
        if "metadata" not in group or not self._links_to(group, "metadata", h5py.Group):
            return found
        for name in (
            "dataset name",
            "dataset version",
            "computational sequence description",
            "dimension names",
        ):
            if name in group["metadata"] and self._links_to(group["metadata"], name, h5py.Dataset):
                try:
                    value = group["metadata"][name]
                    if value.shape == (1,) and not value.is_virtual and not value.external:
                        text = value.asstr()[0]
                        found[name] = json.loads(text[: 100 * METADATA_CHARACTERS])
                except (OSError, ValueError, TypeError, RecursionError, KeyError, RuntimeError):
                    continue
        return found


class DataSets(OpenFile):
    """A file of data sets, in groups or not.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.found: dict[str, Any] = {}

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

    def shape(self, name: str) -> dict[str, Any]:
        """Shape and type of a data set, after it was checked; without a name of the only one."""
        dataset = self._named(name)
        return {
            "shape": list(dataset.shape),
            "dtype": "text" if dataset.dtype.hasobject else dataset.dtype.str,
        }

    def slice(self, name: str, start: int, stop: int, row: int | None) -> bytes:
        """Rows of a data set, or of one of its rows: little-endian bytes, or a list in JSON for text."""
        dataset = self._named(name)
        if dataset.dtype.hasobject:
            texts = [str(text) for text in dataset.asstr()[start:stop]]
            if sum(map(len, texts)) > self.most:
                raise RefusedError(f"{name}: its texts have more characters than the file can hold")
            return json.dumps(texts).encode()
        return _little_endian(dataset[start:stop] if row is None else dataset[row, start:stop])

    def _named(self, name: str) -> Any:
        if name not in self.found:
            names = self.names()
            if name not in names and (name or len(names) != 1):
                expected = f"a data set {name!a}" if name else "one data set, or FILE#NAME"
                raise RefusedError(f"expected {expected}, found {len(names)}: {names[:20]}")
            place: Any = self.file
            *groups, last = (name or names[0]).split("/")
            for each in groups:
                place = self._child(place, each, h5py.Group, place.name)
            dataset = self._child(place, last, h5py.Dataset, place.name)
            dtype = dataset.dtype
            text = h5py.check_string_dtype(dtype) is not None
            if not text and (dtype.kind not in "fiub" or dtype.itemsize > 8):
                raise RefusedError(f"{name}: expected numbers or text, found {_type_name(dtype)}")
            if not 1 <= len(dataset.shape or ()) <= (1 if text else 3):
                raise RefusedError(
                    f"{name}: expected 1 to {1 if text else 3} axes, found shape {dataset.shape}"
                )
            self.found[name] = self._checked(dataset, name)
        return self.found[name]


def _little_endian(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()


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


def answer(
    line: bytes, opened: dict[str, Sequence], plain: dict[str, DataSets]
) -> tuple[dict[str, Any], bytes]:
    """The head and the content of the answer to a request; files that were opened for earlier ones are in
    `opened` and `plain`.
    """
    try:
        request = json.loads(line)
        path, do = request["path"], request["do"]
        if do == "open":
            opened[path] = Sequence(path)
            content = json.dumps(opened[path].description()).encode()
        elif do == "read":
            content = opened[path].rows(request["entry"], request["field"], request["start"], request["stop"])
        else:
            if path not in plain:
                if len(plain) >= OPEN_FILES:
                    plain.pop(next(iter(plain))).file.close()
                plain[path] = DataSets(path)
            sets = plain[path]
            if do == "slice":
                content = sets.slice(request["name"], request["start"], request["stop"], request["row"])
            else:
                content = json.dumps(sets.names() if do == "names" else sets.shape(request["name"])).encode()
    except RefusedError as error:
        return {"error": str(error)}, b""
    except Exception as error:  # whatever the library raises on a damaged file
        return {
            "error": (
                f"cannot be read, the file is damaged: {' '.join(str(error).split()) or type(error).__name__}"
            )
        }, b""
    return {"bytes": len(content)}, content


def serve(room: int) -> None:
    """Answer requests until there are no more."""
    _limit_memory(room)
    opened: dict[str, Sequence] = {}
    plain: dict[str, DataSets] = {}
    for line in sys.stdin.buffer:
        head, content = answer(line, opened, plain)
        sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + content)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
