"""HDF5 files of others, read in a process of its own.

The HDF5 library is known to crash and to loop on damaged and on hostile files. Here that ends a child
process, and the reader says so in one line. What the child refuses before it reads is reported in
`hdf5_child`.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.extras import require
from alignmamba.formats.plain_files import regular_file

SECONDS = 60.0
"""The child is ended when an answer takes longer than this and a second for each MiB that it may have to
read."""
ROOM_BYTES = 1 << 30
"""Address space of the child beyond what it starts with and the largest slice that is asked of it, where the
system can limit it."""

SLICE_BYTES = 256 << 20
"""Bytes that one sample may take from one array."""

_CHILD = Path(__file__).with_name("hdf5_child.py")
_HEAD_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class HDF5Array:
    """A data set of numbers, or of bytes of fixed length, of which parts are read when they are asked for."""

    process: "HDF5Process"
    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: slice | tuple[int, slice]) -> np.ndarray:
        """``array[start:stop]`` or ``array[row, start:stop]``."""
        row, part = (None, at) if isinstance(at, slice) else at
        start, stop, _ = part.indices(self.shape[0 if row is None else 1])
        return self.process.rows(self, row, start, stop)


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Content of a file that holds a computational sequence."""

    path: Path
    root: str
    metadata: Mapping[str, Any]
    entries: Mapping[str, tuple[HDF5Array, HDF5Array]]
    """Features of each entry, (time, width), (time,) or (width,), and intervals, (time, 2) or (2,)."""


class HDF5Process:
    """A process that opens HDF5 files and hands out rows of their arrays. All of its methods raise a
    `DataError` about what is wrong with the file.

    Raises:
        ConfigError: If h5py is not installed.
    """

    def __init__(self) -> None:
        require("HDF5", "formats", "h5py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD), str(ROOM_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                "OMP_NUM_THREADS": "1",
            },
        )
        self._waiter = ThreadPoolExecutor(max_workers=1)
        self.close = weakref.finalize(self, _end, self._process, self._waiter)

    def open(self, path: Path) -> Structure:
        """Open the file of a computational sequence and check its structure."""
        found = self._json(path, {"do": "sequence"})
        entries = {
            name: (
                self._array(path, f"{found['root']}/data/{name}/features", *features),
                self._array(path, f"{found['root']}/data/{name}/intervals", *intervals),
            )
            for name, (features, intervals) in found["entries"].items()
        }
        return Structure(path=path, root=found["root"], metadata=found["metadata"], entries=entries)

    def names(self, path: Path) -> list[str]:
        """Names of the data sets of any file."""
        found: list[str] = self._json(path, {"do": "names"})
        return found

    def array(self, path: Path, name: str) -> HDF5Array | list[str]:
        """A data set of any file, or the texts of one.

        Args:
            path: The file.
            name: The data set, with those of its groups and `/` between them; empty for the only one.
        """
        shape, dtype = self._json(path, {"do": "declared", "name": name})
        if dtype == "text":
            request = {"do": "rows", "name": name, "start": 0, "stop": shape[0], "row": None}
            texts: list[str] = self._json(path, request)
            return texts
        return self._array(path, name, shape, dtype)

    def _array(self, path: Path, name: str, shape: list[int], dtype: str) -> HDF5Array:
        little_endian = np.dtype(dtype).newbyteorder("<")
        return HDF5Array(process=self, path=path, name=name, shape=tuple(shape), dtype=little_endian)

    def rows(self, array: HDF5Array, row: int | None, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` of a data set, or of its row `row`."""
        shape = (stop - start, *array.shape[1 if row is None else 2 :])
        size = math.prod(shape) * array.dtype.itemsize
        where = f"{array.path}: data set {array.name!r}"
        if size > SLICE_BYTES:
            raise DataError(f"{where}: a sample of {size} bytes, expected at most {SLICE_BYTES}")
        if size == 0:
            return np.empty(shape, dtype=array.dtype)
        request = {"do": "rows", "name": array.name, "start": start, "stop": stop, "row": row}
        content = self._ask(array.path, request, reads=size, largest=size)
        if len(content) != size:
            raise DataError(f"{where}: expected {size} bytes, found {len(content)}; the file is damaged")
        return np.frombuffer(content, dtype=array.dtype).reshape(shape)

    def _json(self, path: Path, request: dict[str, Any]) -> Any:
        size = regular_file(path).stat().st_size
        return json.loads(self._ask(path, request, reads=size, largest=600 * size + (16 << 20)))

    def _ask(self, path: Path, request: dict[str, Any], *, reads: int, largest: int) -> bytes:
        """The answer to a request that may have to read so many bytes."""
        seconds = SECONDS + reads / (1 << 20)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({**request, "path": str(path)}).encode() + b"\n")
            stdin.flush()
            found, content = self._waiter.submit(_answer, stdout, largest).result(timeout=seconds)
        except (OSError, EOFError, ValueError, LookupError, TypeError, RecursionError) as error:
            late = isinstance(error, TimeoutError)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0 if late else 1)  # for the code that a crash left
            self.close()
            code = self._process.returncode
            reason = f"took longer than {seconds:.0f} s" if late else f"ended with code {code}"
            raise DataError(f"{path}: the file is damaged: the process that reads it {reason}") from error
        except BaseException:  # an interrupt: an answer that comes later would be taken for the next one
            self.close()
            raise
        if "error" in found:
            raise DataError(f"{path}: {found['error']}")
        return content


def _answer(stdout: IO[bytes], largest: int) -> tuple[dict[str, Any], bytes]:
    """Answer of the child, with its bytes; raises an error where the child can no longer be trusted."""
    found: dict[str, Any] = json.loads(stdout.readline(_HEAD_BYTES))
    if "error" in found:
        return found, b""
    if not 0 <= found["bytes"] <= largest:
        raise ValueError("more bytes than were asked for")
    content = stdout.read(found["bytes"])
    if len(content) != found["bytes"]:
        raise EOFError
    return found, content


def _end(process: "subprocess.Popen[bytes]", waiter: ThreadPoolExecutor) -> None:
    """End the child, which only reads, and the thread that waits for it."""
    process.kill()
    process.wait()
    waiter.shutdown()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
