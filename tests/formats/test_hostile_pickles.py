"""Pickles that were made to do harm: nothing of them is run, none takes long, and none takes more memory than
it may.

Every one is read in a process of its own kind: its address space and its processor time are limited, and what
would have happened had anything been run is a file that must not be there.
"""

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.formats.pickles.pickle_file import MEMORY_BASE, MEMORY_MULTIPLE

SENTINEL = "was-run"


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _called(module: str, name: str, *arguments: bytes) -> bytes:
    return _named(module, name) + b"(" + b"".join(arguments) + b"tR"


def _pickle(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


TOUCH = f"__import__('pathlib').Path({SENTINEL!r}).touch()"
SHELL = f"touch {SENTINEL}"


class _Runs:
    """Object that Python's unpickler turns into a call."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self._call = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
_FLOATS = (
    b"cnumpy\ndtype\n("
    + _text("f4")
    + b"\x89\x88tR(K\x03"
    + _text("<")
    + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)
_OBJECTS = b"cnumpy\ndtype\n(" + _text("O8") + b"\x89\x88tR"
_HUGE = b"\x8a\x06" + (1 << 44).to_bytes(6, "little")


def _array(shape: bytes, dtype: bytes, content: bytes) -> bytes:
    return _ARRAY + b"(K\x01(" + shape + b"t" + dtype + b"\x89" + content + b"tb"


def _laughs(opcode: bytes, depth: int) -> bytes:
    """Every value holds the one before twice."""
    return b")q\x00" + b"".join(
        b"0h" + bytes([each]) + b"h" + bytes([each]) + opcode + b"q" + bytes([each + 1])
        for each in range(depth)
    )


# Name -> the file, and a part of the message.
RUNS: dict[str, tuple[bytes, str]] = {
    "os.system": (pickle.dumps(_Runs(os.system, SHELL)), "refused: the pickle asks for"),
    "os.system, protocol 0": (b"cos\nsystem\n(S'" + SHELL.encode() + b"'\ntR.", "asks for 'os.system'"),
    "subprocess": (
        pickle.dumps(_Runs(subprocess.check_call, ["touch", SENTINEL])),
        "asks for 'subprocess.check_call'",
    ),
    "eval": (pickle.dumps(_Runs(eval, TOUCH), 2), "asks for '__builtin__.eval'"),
    "exec by stack": (
        _pickle(_text("builtins") + _text("exec") + b"\x93" + _text(TOUCH) + b"\x85R"),
        "asks for 'builtins.exec'",
    ),
    "eval through functools": (
        _pickle(_called("functools", "partial", _named("builtins", "eval"), _text(TOUCH))),
        "'functools.partial'",
    ),
    "getattr": (
        _pickle(_called("builtins", "getattr", _named("numpy", "ndarray"), _text("tofile"))),
        "asks for 'builtins.getattr'",
    ),
    "dotted name": (
        _pickle(_text("numpy") + _text("ndarray.tofile") + b"\x93"),
        "asks for 'numpy.ndarray.tofile'",
    ),
    "copyreg": (
        _pickle(_called("copyreg", "_reconstructor", _named("builtins", "object"))),
        "asks for 'copyreg._reconstructor'",
    ),
    "numpy.load": (_pickle(_called("numpy", "load", _text("a.npy"), b"N\x88")), "asks for 'numpy.load'"),
    "numpy f2py": (
        _pickle(_called("numpy.testing._private.utils", "runstring", _text(TOUCH), b"}")),
        "runstring",
    ),
    "nested in an object array": (
        pickle.dumps(np.array([[_Runs(os.system, SHELL)]], dtype=object)),
        "refused: the pickle asks for",
    ),
    "nested in a call": (
        _pickle(_called("numpy", "dtype", _called("os", "system", _text(SHELL)))),
        "asks for 'os.system'",
    ),
    "calls an array's class": (
        _pickle(_named("numpy", "ndarray") + b"(\x8a\x05\xff\xff\xff\xff\x00tR"),
        "calls numpy.ndarray",
    ),
    "calls a text": (_pickle(_text("eval") + b")R"), "calls a str"),
    "object by its class": (
        _pickle(_named("numpy", "ndarray") + b")\x81"),
        "makes an object of numpy.ndarray",
    ),
    "object with keywords": (_pickle(_named("numpy", "dtype") + b")}\x92"), "makes an object of numpy.dtype"),
    "object of protocol 0": (b"(S'" + SHELL.encode() + b"'\nios\nsystem\n.", "asks for 'os.system'"),
    "object from a mark": (b"(" + _named("numpy", "dtype") + b"o.", "makes an object of numpy.dtype"),
    "state of a dict": (_pickle(b"}}" + _text("__class__") + b"Nsb"), "sets the state of a dict"),
    "state of a global": (
        _pickle(_named("numpy", "ndarray") + b"}b"),
        "sets the state of a global numpy.ndarray",
    ),
    "state with attributes": (
        _pickle(_ARRAY + b"N}" + _text("dtype") + b"Ns\x86b"),
        "array state that numpy did not write",
    ),
    "persistent id": (_pickle(_text("a") + b"Q"), "persistent id"),
    "persistent id, protocol 0": (b"Pa\n.", "persistent id"),
    "extension": (_pickle(b"\x82\x01"), "number 1 of the registry of extensions"),
    "extension of four bytes": (_pickle(b"\x84\x01\x00\x00\x01"), "of the registry of extensions"),
    "buffer outside": (b"\x80\x05\x97.", "out-of-band"),
    "protocol 6": (b"\x80\x06N.", "a pickle of protocol 6"),
    "scalar of objects": (
        _pickle(_called("numpy.core.multiarray", "scalar", _OBJECTS, b"]")),
        "number that numpy did not write",
    ),
    "structured type": (
        _pickle(
            b"cnumpy\ndtype\n("
            + _text("f4")
            + b"\x89\x88tR(K\x03"
            + _text("|")
            + b"N"
            + _text("a")
            + b"\x85}K\x04K\x01K\x00tb"
        ),
        "an array of structured type",
    ),
    "void type": (_pickle(_called("numpy", "dtype", _text("V1000000000"))), "an array of type 'V1000000000'"),
    "type by its name": (
        _pickle(_called("numpy", "dtype", _text("os.system"))),
        "an array of type 'os.system'",
    ),
    "objects from bytes": (
        _pickle(_array(b"K\x01", _OBJECTS, b"C\x08AAAAAAAA")),
        "has another content: bytes",
    ),
    "content twice": (
        _pickle(_array(b"K\x01", _FLOATS, b"C\x04AAAA") + b"(K\x01(K\x01t" + _FLOATS + b"\x89C\x04AAAAtb"),
        "content twice",
    ),
}

LARGE: dict[str, tuple[bytes, str]] = {
    "shape": (_pickle(_array(_HUGE + _HUGE, _FLOATS, b"C\x04AAAA")), "has another content"),
    "shape without elements": (_pickle(_array(_HUGE + b"K\x00", _FLOATS, b"C\x00")), "without any element"),
    "texts of no characters": (
        _pickle(_array(_HUGE, _FLOATS.replace(_text("f4"), _text("U0")), b"C\x00")),
        "an array of type '<U0', whose elements take no bytes",
    ),
    "many axes": (_pickle(_array(b"K\x01" * 200, _FLOATS, b"C\x04AAAA")), "expected the shape of an array"),
    "shape of the first step": (
        _pickle(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + _HUGE + b"tC\x01btR"),
        "that numpy did not write",
    ),
    "element": (_pickle(_called("numpy", "dtype", _text("S9999999999"))), "an array of type"),
    "text of 8 bytes' length": (_pickle(b"\x8d" + struct.pack("<Q", 1 << 40) + b"a"), "cut off"),
    "bytes of 8 bytes' length": (_pickle(b"\x8e" + struct.pack("<Q", (1 << 64) - 1) + b"a"), "cut off"),
    "bytearray": (_pickle(b"\x96" + struct.pack("<Q", 1 << 62) + b"a"), "cut off"),
    "string of 4 bytes' length": (_pickle(b"T\xff\xff\xff\x7f"), "cut off"),
    "negative length": (_pickle(b"T\xff\xff\xff\xff"), "cut off"),
    "whole number": (_pickle(b"\x8b\xff\xff\xff\x7f"), "a whole number of 2147483647 bytes"),
    "digits": (b"L" + b"9" * 100_000 + b"L\n.", "a line of more than"),
    "frame": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.", "cut off"),
    "memo index": (_pickle(b"Nr\xff\xff\xff\x7f"), "gives number 2147483647"),
    "memo recall": (_pickle(b"j\xff\xff\xff\x7f"), "recall of value 2147483647"),
    "lists": (_pickle(b"(" + b"]" * 750_000 + b"l"), "outside arrays of more than"),
    "dicts": (_pickle(b"(" + b"}" * 320_000 + b"l"), "outside arrays of more than"),
    "sets": (_pickle(b"(" + b"\x8f" * 320_000 + b"l"), "outside arrays of more than"),
    "marks": (_pickle(b"(" * 300_000), "it ends with 0 values"),
    "tuples in tuples": (_pickle(b")" + b"\x85" * 750_000), "outside arrays of more than"),
    "arrays": (
        _pickle(_ARRAY[:-1].replace(b"\n(c", b"\nq\x00(c") + b"q\x010(" + b"h\x00h\x01R" * 200_000 + b"l"),
        "outside arrays of more than",
    ),
    "sets from one list": (
        _pickle(
            b"]("
            + b"K\x01" * 100_000
            + b"eq\x00"
            + _named("builtins", "set")
            + b"q\x010"
            + b"h\x01h\x00\x85R0" * 20_000
        ),
        "outside arrays of more than",
    ),
    "bytes from one text": (
        _pickle(
            _text("a" * 4000)
            + b"q\x00"
            + _named("_codecs", "encode")
            + b"q\x01"
            + b"(h\x01h\x00"
            + _text("latin1")
            + b"\x86R" * 1
        ),
        "it ends with",
    ),
    "laughter": (_pickle(_laughs(b"\x86", 200) + b"0}h\xc8Ns"), "a tuple as key of a dict"),
    "laughter in a set": (
        _pickle(b"\x8f(" + _laughs(b"\x86", 200) + b"\x90"),
        "a tuple as key of a dict or member of a set",
    ),
}

HARMLESS: dict[str, bytes] = {
    "laughter that nobody hears": _pickle(_laughs(b"\x86", 200) + b"q\xca" + b"0h\xc8"),
    "list in itself": _pickle(b"]q\x00h\x00a"),
    "dict in itself": _pickle(b"}q\x00" + _text("a") + b"h\x00s"),
    "deep lists": _pickle(b"]" * 100_000 + b"a" * 99_999),
}

READER = """
import json, resource, sys, time
from pathlib import Path
import numpy
from alignmamba.formats.folds import SPLIT_NAMES
from alignmamba.formats.pickles.pickle_glimpse import glimpse
from alignmamba.formats.pickles.pickle_machine import read_pickle
from alignmamba.errors import DataError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

before = peak()
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
for path in sys.argv[1:]:
    started, said = time.process_time(), ""
    glimpse(Path(path), SPLIT_NAMES)
    try:
        read_pickle(Path(path))
    except DataError as error:
        said = str(error)
    print(json.dumps([Path(path).name, said, peak() - before, time.process_time() - started]), flush=True)
"""


def outcomes(folder: Path, files: dict[str, bytes]) -> dict[str, tuple[str, int, float]]:
    """Message, peak memory above that of an idle process in bytes, and seconds of every file, the small ones
    first.
    """
    ordered = sorted(files, key=lambda name: len(files[name]))
    paths = [folder / f"{number}.pkl" for number in range(len(ordered))]
    for name, path in zip(ordered, paths, strict=True):
        path.write_bytes(files[name])
    done = subprocess.run(
        [sys.executable, "-c", READER, *map(str, paths)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        name: (said, taken, seconds) for name, (_, said, taken, seconds) in zip(ordered, found, strict=True)
    }


def test_nothing_is_run(tmp_path: Path) -> None:
    found = outcomes(tmp_path, {name: content for name, (content, _) in RUNS.items()})
    for name, (said, taken, seconds) in found.items():
        assert RUNS[name][1] in said, name
        assert len(said.splitlines()) == 1, name
        assert ".pkl: " in said, name
        assert taken < 16 << 20, name
        assert seconds < 1, name
    assert not (tmp_path / SENTINEL).exists()


def test_what_would_have_been_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentinel is made by Python's own unpickler, so its absence above means something."""
    monkeypatch.chdir(tmp_path)
    for name in ("os.system", "os.system, protocol 0", "eval", "exec by stack", "nested in an object array"):
        pickle.loads(RUNS[name][0])
        assert (tmp_path / SENTINEL).exists(), name
        (tmp_path / SENTINEL).unlink()


def test_memory_and_time_are_bounded(tmp_path: Path) -> None:
    files = {name: content for name, (content, _) in LARGE.items()}
    found = outcomes(tmp_path, files)
    for name, (said, taken, seconds) in found.items():
        assert LARGE[name][1] in said, name
        assert len(said.splitlines()) == 1, name
        assert taken < MEMORY_BASE + MEMORY_MULTIPLE * len(files[name]), name
        assert seconds < 20, name


def test_what_is_odd_but_harmless(tmp_path: Path) -> None:
    found = outcomes(tmp_path, HARMLESS)
    for name, (said, _, seconds) in found.items():
        assert said == "", name
        assert seconds < 5, name
