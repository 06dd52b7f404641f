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
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

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


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Declaration of one entry of a file."""

    features: tuple[int, ...]
    """Shape of the features, (time, width), (time,) or (width,)."""
    dtype: np.dtype
    """Type of the features: real numbers, or bytes of fixed length."""
    intervals: tuple[int, ...]
    """Shape of the intervals, (time, 2) or (2,)."""
    intervals_dtype: np.dtype


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Content of a file."""

    root: str
    metadata: Mapping[str, Any]
    entries: Mapping[str, Entry]


class HDF5Array:
    """A data set of numbers of any HDF5 file, of which parts are read when they are asked for.

    Args:
        process: What reads it.
        path: The file.
        name: The data set.
        shape: Of the data set.
        dtype: Of its numbers.
    """

    def __init__(
        self, process: "HDF5Process", path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._process, self._path, self._name = process, path, name
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: slice | tuple[int, slice]) -> np.ndarray:
        """``array[start:stop]`` or ``array[row, start:stop]``."""
        row, part = (None, at) if isinstance(at, slice) else at
        start, stop, _ = part.indices(self.shape[0 if row is None else 1])
        return self._process.slice(
            self._path, self._name, row, start, stop, self.shape[1 if row is None else 2 :], self.dtype
        )


class HDF5Process:
    """A process that opens HDF5 files and hands out rows of their arrays.

    Raises:
        ConfigError: If h5py is not installed.
    """

    def __init__(self) -> None:
        require("HDF5", "formats", "h5py")
        self._structures: dict[Path, Structure] = {}
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
        self._alarm = _Alarm(self._process)
        self.close = weakref.finalize(self, _end, self._process, self._alarm)

    def open(self, path: Path) -> Structure:
        """Open a file and check its structure.

        Raises:
            DataError: If anything is wrong with it.
        """
        size = regular_file(path).stat().st_size
        told = json.loads(self._ask(path, {"do": "open"}, reads=size, largest=100 * size + (1 << 20)))
        entries = {
            name: Entry(
                features=tuple(features),
                dtype=np.dtype(dtype).newbyteorder("<"),
                intervals=tuple(intervals),
                intervals_dtype=np.dtype(of_intervals).newbyteorder("<"),
            )
            for name, features, dtype, intervals, of_intervals in told["entries"]
        }
        self._structures[path] = Structure(root=told["root"], metadata=told["metadata"], entries=entries)
        return self._structures[path]

    def read(
        self, path: Path, entry: str, field: Literal["features", "intervals"], start: int, stop: int
    ) -> np.ndarray:
        """Rows `start` to `stop` of an array of an open file.

        Raises:
            DataError: If they cannot be read.
        """
        declared = self._structures[path].entries[entry]
        shape = declared.features if field == "features" else declared.intervals
        dtype = declared.dtype if field == "features" else declared.intervals_dtype
        request = {"do": "read", "entry": entry, "field": field, "start": start, "stop": stop}
        return self._rows(path, f"entry {entry!r}: {field}", request, (stop - start, *shape[1:]), dtype)

    def names(self, path: Path) -> list[str]:
        """Names of the data sets of any file.

        Raises:
            DataError: If it cannot be read.
        """
        found: list[str] = json.loads(self._ask_plain(path, {"do": "names"}))
        return found

    def array(self, path: Path, name: str) -> HDF5Array | list[str]:
        """A data set of any file, or the texts of one.

        Args:
            path: The file.
            name: The data set, with those of its groups and `/` between them; empty for the only one.

        Raises:
            DataError: If there is none, it holds something else, or more than the file can hold.
        """
        told = json.loads(self._ask_plain(path, {"do": "shape", "name": name}))
        shape = tuple(told["shape"])
        if told["dtype"] == "text":
            request = {"do": "slice", "name": name, "start": 0, "stop": shape[0], "row": None}
            texts: list[str] = json.loads(self._ask_plain(path, request))
            return texts
        return HDF5Array(self, path, name, shape, np.dtype(told["dtype"]).newbyteorder("<"))

    def slice(
        self,
        path: Path,
        name: str,
        row: int | None,
        start: int,
        stop: int,
        rest: tuple[int, ...],
        dtype: np.dtype,
    ) -> np.ndarray:
        """Rows `start` to `stop` of a data set, or of its row `row`, each of shape `rest`.

        Raises:
            DataError: If they cannot be read.
        """
        request = {"do": "slice", "name": name, "start": start, "stop": stop, "row": row}
        return self._rows(path, f"data set {name!r}", request, (stop - start, *rest), dtype)

    def _rows(
        self, path: Path, where: str, request: dict[str, Any], shape: tuple[int, ...], dtype: np.dtype
    ) -> np.ndarray:
        size = math.prod(shape) * dtype.itemsize
        if size > SLICE_BYTES:
            raise DataError(f"{path}: {where}: a sample of {size} bytes, expected at most {SLICE_BYTES}")
        if size == 0:
            return np.empty(shape, dtype=dtype)
        content = self._ask(path, request, reads=size, largest=size)
        if len(content) != size:
            raise DataError(
                f"{path}: {where}: expected {size} bytes, found {len(content)}; the file is damaged"
            )
        return np.frombuffer(content, dtype=dtype).reshape(shape)

    def _ask_plain(self, path: Path, request: dict[str, Any]) -> bytes:
        size = regular_file(path).stat().st_size
        return self._ask(path, request, reads=size, largest=600 * size + (16 << 20))

    def _ask(self, path: Path, request: dict[str, Any], *, reads: int, largest: int) -> bytes:
        """The answer to a request that may have to read so many bytes."""
        seconds = SECONDS + reads / (1 << 20)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        self._alarm.deadline = time.monotonic() + seconds
        try:
            stdin.write(json.dumps({**request, "path": str(path)}).encode() + b"\n")
            stdin.flush()
            told, content = _answer(stdout, largest)
        except (OSError, EOFError, ValueError, LookupError, TypeError, RecursionError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1)  # for the code that a crash left
            self.close()
            reason = (
                f"took longer than {seconds:.0f} s"
                if self._alarm.rang
                else f"ended with code {self._process.returncode}"
            )
            raise DataError(f"{path}: the file is damaged: the process that reads it {reason}") from error
        finally:
            self._alarm.deadline = math.inf
        if "error" in told:
            raise DataError(f"{path}: {told['error']}")
        return content


def _answer(stdout: IO[bytes], largest: int) -> tuple[dict[str, Any], bytes]:
    """Answer of the child, with its bytes; raises an error where the child can no longer be
    trusted.
    """
    head = stdout.readline(_HEAD_BYTES)
    told: dict[str, Any] = json.loads(head)
    if "error" in told:
        return told, b""
    if not 0 <= told["bytes"] <= largest:
        raise ValueError("more bytes than were asked for")
    content = stdout.read(told["bytes"])
    if len(content) != told["bytes"]:
        raise EOFError
    return told, content


class _Alarm:
    """Ends a process that is late. One thread looks at the clock: to start one for each answer would take
    longer than the answer.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.deadline = math.inf
        self.rang = False
        self.over = threading.Event()
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        while not self.over.wait(0.1):
            if time.monotonic() > self.deadline:
                self.rang = True
                process.kill()
                return


def _end(process: "subprocess.Popen[bytes]", alarm: _Alarm) -> None:
    """End the child, which only reads."""
    alarm.over.set()
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()
