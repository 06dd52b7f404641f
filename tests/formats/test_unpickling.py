"""Pickles as Python 2 and 3 write them, read value by value; damaged ones are refused or read as Python
itself reads them.
"""

import pickle
import random
import re
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import layouts_pickled
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignmamba.errors import DataError
from alignmamba.formats.folds import SPLIT_NAMES
from alignmamba.formats.pickles import pickle_glimpse
from alignmamba.formats.pickles.pickle_file import ByteText, StoredBytes
from alignmamba.formats.pickles.pickle_glimpse import Glimpse, glimpse, refused_global
from alignmamba.formats.pickles.pickle_machine import read_pickle
from alignmamba.formats.pickles.stored_arrays import StoredArray

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

LONG_TEXT = "ünïcode \\ \n\r\t'\" \x00\x1a ✓ 🐍 " * 300
LONG_BYTES = bytes(range(256)) * 1000


def loaded(value: Any) -> Any:
    """The value with everything that was left in the file read from it."""
    if isinstance(value, StoredArray):
        if value.dtype.kind == "O":
            made = np.empty(len(value.items()), object)
            made[:] = [loaded(item) for item in value.items()]
            return made.reshape(value.shape)
        return value.read()
    if isinstance(value, StoredBytes):
        if value.is_text:
            return value.text()
        # What is encoded does not say how long it is; only one of these tests' values is so long.
        raw = bytearray(value.length if value.encoding == "bytes" else len(LONG_BYTES))
        value.read_into(0, memoryview(raw), last=True)
        return bytes(raw)
    if isinstance(value, dict):
        return {loaded(key): loaded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(loaded(each) for each in value)
    return value


def assert_same(found: Any, expected: Any) -> None:
    """Equal values of equal types, arrays included."""
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert (found.shape, found.dtype.newbyteorder("=")) == (
            expected.shape,
            expected.dtype.newbyteorder("="),
        )
        if expected.dtype.kind == "O":
            for one, other in zip(found.ravel(), expected.ravel(), strict=True):
                assert_same(one, other)
        else:
            np.testing.assert_array_equal(found, expected)
        return
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
        return
    if isinstance(expected, list | tuple):
        assert isinstance(found, type(expected))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
        return
    if isinstance(expected, np.generic):
        expected = expected.item()
    if isinstance(expected, bytearray):
        expected = bytes(expected)
    assert type(found) is type(expected) or isinstance(found, ByteText)
    assert found == expected or (found != found and expected != expected)


def read(path: Path, content: bytes) -> Any:
    # some file systems wait for the disk when a file is written over, and this is done thousands of times
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return loaded(read_pickle(path))


VALUES: dict[str, Any] = {
    "numbers": [
        0,
        1,
        255,
        256,
        65535,
        65536,
        -1,
        2**31 - 1,
        -(2**31),
        2**63 - 1,
        -(2**63),
        1.5,
        -0.0,
        float("inf"),
        float("nan"),
        1e-300,
    ],
    "constants": (None, True, False),
    "text": ["", "a", LONG_TEXT, "x" * 255, "x" * 256, "'", '"', "\\x41", "\ud800"],
    "bytes": [b"", b"a", LONG_BYTES, b"\\", bytearray(b""), bytearray(b"\xff\x00")],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((),)],
    "tables": {
        "a": {},
        1: [],
        2.5: {"b": ({"c": None},)},
        b"x": OrderedDict([("one", 1), ("two", [2])]),
        None: 0,
    },
    "sets": [set(), {1, "a"}, frozenset(), frozenset([2.5, b"b"])],
    "scalars": [
        np.float32(0.1),
        np.int64(-5),
        np.bool_(True),
        np.str_("ü"),
        np.str_(""),
        np.bytes_(b""),
        np.bytes_(b"b"),
        np.float64(2.5),
        np.uint8(3),
    ],
}

ARRAYS: dict[str, np.ndarray] = {
    "float32": np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32),
    "float64 of some size": np.random.default_rng(1).normal(size=(7, 30, 50)),
    "big-endian": np.arange(6, dtype=">f4").reshape(2, 3),
    "float16": np.arange(6, dtype=np.float16),
    "integers": np.arange(-100, 100, dtype=np.int64).reshape(10, 20),
    "all bytes": np.arange(256, dtype=np.uint8).repeat(300),
    "characters across pieces": np.r_[1, np.full(100_000, 255)].astype(np.uint8),
    "truth": np.array([True, False]),
    "text": np.array(["a", "ünïcode", ""]),
    "bytes": np.array([b"a", b"bc\xff"]),
    "column-major": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    "turned": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    "every other": np.arange(24.0).reshape(6, 4)[::2],
    "no axes": np.array(3.5),
    "empty": np.zeros((0, 5, 3), np.float32),
    "objects": np.array(["a", None, 1.5, np.arange(3)], dtype=object),
    "read-only": np.arange(200.0),
}
ARRAYS["read-only"].flags.writeable = False


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values(tmp_path: Path, protocol: int) -> None:
    assert_same(read(tmp_path / "a.pkl", pickle.dumps(VALUES, protocol)), VALUES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(tmp_path: Path, protocol: int, name: str) -> None:
    expected = {"first": ARRAYS[name], "again": ARRAYS[name], "between": "text"}
    assert_same(read(tmp_path / "a.pkl", pickle.dumps(expected, protocol)), expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "name", ["float32", "float64 of some size", "big-endian", "integers", "column-major", "turned"]
)
def test_parts_of_arrays(tmp_path: Path, protocol: int, name: str) -> None:
    """In any order of rows, though bytes that are encoded are read forward."""
    expected = ARRAYS[name]
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([expected], protocol))
    stored = read_pickle(path)[0]
    assert len(stored) == len(expected)
    for row in [*range(len(expected)), 1, 0, 1, len(expected) - 1, 0]:
        np.testing.assert_array_equal(stored[row], expected[row])
        np.testing.assert_array_equal(stored.part(row, 1, 3), expected[row, 1:3])
    np.testing.assert_array_equal(stored.read(), expected)
    with pytest.raises(IndexError):
        stored.part(len(expected), 0, 1)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_pickles_of_python_2(tmp_path: Path, protocol: int) -> None:
    content = {
        "short": "ascii",
        "utf-8": "ünïcode ✓",
        "quotes": 'it\'s "so" \\ \n\t\r\x00\x7f',
        "long": b"\x00\xff'\n\\x" * 50_000,
        "array": ARRAYS["float64 of some size"],
        "bytes": ARRAYS["all bytes"],
        "ids": ARRAYS["bytes"],
        "nested": [("a", {"b": np.float32(2)})],
    }
    found = read(tmp_path / "a.pkl", layouts_pickled.old_pickle(content, protocol))
    assert found["short"] == "ascii"
    assert isinstance(found["utf-8"], ByteText)
    assert found["utf-8"].encode("latin-1").decode() == content["utf-8"]
    assert found["quotes"] == content["quotes"]
    for name in ("array", "bytes", "ids"):
        assert_same(found[name], content[name])
    assert found["nested"] == [("a", {"b": 2.0})]
    assert len(found["long"]) == 300_000


WRITTEN_BY_PYTHON_2 = {
    "pickle, protocol 0": (
        b"ccollections\nOrderedDict\np0\n((lp1\n(lp2\nS'a'\np3\na(lp4\nS\"it's\""
        b"\np5\naI1\naI1099511627776\naNaI01\naF1.5\naaa(lp6\nS'\\xc3\\xbc'\np7\n"
        b"a(I1\nI2\ntp8\naa(lp9\nS's'\np10\nac__builtin__\nset\np11\n((lp12\nI3\n"
        b"atp13\nRp14\naa(lp15\nS'u'\np16\naV\xfc\\u005c \\u000a\np17\naa(lp18\nS'o"
        b"'\np19\nag0\n((lp20\n(lp21\nS'b'\np22\naI2\naatp23\nRp24\naa(lp25\nS'l'"
        b"\np26\naL7L\naatp27\nRp28\n."
    ),
    "cPickle, protocol 0": (
        b"ccollections\nOrderedDict\np1\n((lp2\n(lp3\nS'a'\na(lp4\nS\"it's\"\np5"
        b"\naI1\naI1099511627776\naNaI01\naF1.5\naaa(lp6\nS'\\xc3\\xbc'\np7\na(I"
        b"1\nI2\ntp8\naa(lp9\nS's'\nac__builtin__\nset\np10\n((lp11\nI3\natRp12\n"
        b"aa(lp13\nS'u'\naV\xfc\\u005c \\u000a\np14\naa(lp15\nS'o'\nag1\n((lp16\n(l"
        b"p17\nS'b'\naI2\naatRp18\naa(lp19\nS'l'\naL7L\naatRp20\n."
    ),
    "cPickle, protocol 2": (
        b"\x80\x02ccollections\nOrderedDict\nq\x01]q\x02(]q\x03(U\x01a]q\x04(U\x04it'sq\x05K\x01I10995"
        b"11627776\nN\x88G?\xf8\x00\x00\x00\x00\x00\x00ee]q\x06(U\x02\xc3\xbcq\x07K\x01K\x02\x86q\x08e]q\t(U\x01sc__builtin__\n"
        b"set\nq\n]q\x0bK\x03a\x85Rq\x0ce]q\r(U\x01uX\x05\x00\x00\x00\xc3\xbc\\"
        b" \nq\x0ee]q\x0f(U\x01oh\x01]q\x10]q\x11(U\x01bK\x02ea"
        b"\x85Rq\x12e]q\x13(U\x01l\x8a\x01\x07ee\x85Rq\x14."
    ),
}
"""Pickle of Python 2.7.18: an OrderedDict of ASCII and UTF-8 strings, a set, unicode, a long and more."""


@pytest.mark.parametrize("writer", WRITTEN_BY_PYTHON_2)
def test_what_python_2_itself_wrote(tmp_path: Path, writer: str) -> None:
    found = read(tmp_path / "a.pkl", WRITTEN_BY_PYTHON_2[writer])
    assert {key.encode("latin-1").decode(): value for key, value in found.items()} == {
        "a": ["it's", 1, 2**40, None, True, 1.5],
        "ü": (1, 2),
        "s": {3},
        "u": "ü\\ \n",
        "o": {"b": 2},
        "l": 7,
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text() | st.integers(-(2**63), 2**63 - 1), inner)
            | st.tuples(inner, inner)
        ),
    ),
    st.sampled_from(PROTOCOLS),
)
def test_any_plain_value(tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    assert_same(read(path, pickle.dumps(value, protocol)), value)


def test_a_container_may_hold_itself(tmp_path: Path) -> None:
    inner: list[Any] = []
    inner.append({"again": inner})
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(inner))
    found = read_pickle(path)
    assert found[0]["again"] is found


def test_long_runs_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(
        pickle.dumps({"array": ARRAYS["float64 of some size"], "bytes": LONG_BYTES, "text": LONG_TEXT})
    )
    found = read_pickle(path)
    changed = path.read_bytes().replace(LONG_BYTES, bytes(len(LONG_BYTES)))
    with path.open("r+b") as file:
        file.write(changed)
    assert loaded(found["bytes"]) == bytes(len(LONG_BYTES))
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match=r"a\.pkl: became shorter while it was read"):
        found["array"].read()


# Damage. A flip inside a number or a text is another number or text, which nothing in a pickle could tell;
# whatever is accepted has to be what Python itself would have read.

LAYOUTS = {"mmsa": layouts_pickled.mmsa, "mult": layouts_pickled.mult, "mag-bert": layouts_pickled.mag_bert}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", LAYOUTS)
def test_flipped_bits(tmp_path: Path, name: str, protocol: int) -> None:
    content = pickle.dumps(LAYOUTS[name]()[0], protocol)
    path = tmp_path / "a.pkl"
    drawn = random.Random(f"{name} {protocol}")
    refused = 0
    for _ in range(80):
        bit = drawn.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        said = ""
        try:
            found = read(path, bytes(flipped))
        except DataError as error:
            said = str(error)
        if said:
            assert said.startswith(f"{path}: ")
            assert len(said.splitlines()) == 1
            refused += 1
        else:
            assert_same(found, pickle.loads(bytes(flipped), encoding="latin1"))
    assert refused


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_off_anywhere(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"a": [np.arange(300.0), "text", 1.5, (None, b"bytes")], "b": 70_000}, protocol)
    path = tmp_path / "a.pkl"
    for length in [*range(0, len(content), len(content) // 60), *range(len(content) - 70, len(content))]:
        with pytest.raises(DataError, match=r"cut off|damaged"):
            read(path, content[:length])
    with pytest.raises(DataError, match="1 bytes follow the end of the pickle"):
        read(path, content + b"\n")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"cnumpy\ndtype\nNa.", "a list finds a global numpy.dtype"),
        (b"]NNs.", "a dict finds a list"),
        (b"Nb.", "found an operation without a value"),
    ],
)
def test_an_operation_on_another_kind_of_value_says_what_it_finds(
    tmp_path: Path, program: bytes, said: str
) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02" + program)
    with pytest.raises(DataError, match=rf"a\.pkl: damaged at byte \d+: an operation .*{said}$|{said}$"):
        read_pickle(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path, "something else"),
        (tmp_path / "absent", "nothing"),
        (Path("a\0b"), "nothing"),
    ):
        with pytest.raises(DataError, match=f"^{re.escape(str(path))}: expected a file, found {said}$"):
            read_pickle(path)
        assert glimpse(path, SPLIT_NAMES) is None
        assert refused_global(path) == ""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_glimpse_shows_splits_and_fields(
    tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_glimpse, "_GLIMPSE_SPENT", 700_000)
    path = tmp_path / "a.pkl"
    table = {"raw_text": ["a"] * 100, "audio": np.zeros((50, 60)), "id": [1]}
    clips = [(["a"], np.zeros((50, 60)))] * 100
    for content, fields, lists in (
        ({"train": table}, set(table), False),
        ({"train": table, "valid": table, "other": {"labels": 1}}, set(table), False),
        ({"config": {"labels": [1]}, "name": "a", "train": table}, set(table), False),
        ({"config": {}, "train": {}, "test": {"id": 1}}, {"id"}, False),
        ({"dev": clips, "train": 1}, set(), True),
        ({"config": 1, "dev": clips}, set(), True),
    ):
        path.write_bytes(pickle.dumps(content, protocol))
        assert glimpse(path, SPLIT_NAMES) == Glimpse(fields=frozenset(fields), lists=lists, whole=True)
        # Of a file that goes on, what was met until then.
        path.write_bytes(pickle.dumps({**content, "more": list(range(20_000))}, protocol))
        assert glimpse(path, SPLIT_NAMES) == Glimpse(fields=frozenset(fields), lists=lists, whole=False)
    for value in ([], {}, {"train": 1}, {1: {}}, "train", {"config": {"train": {}}}):
        path.write_bytes(pickle.dumps(value, protocol))
        assert glimpse(path, SPLIT_NAMES) is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_glimpse_names_what_is_refused(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    table = {"id": [1], "labels": np.zeros(3)}
    for value in (
        defaultdict(list),
        {"config": defaultdict(list), "train": table},
        defaultdict(list, train=table),
    ):
        path.write_bytes(pickle.dumps(value, protocol))
        assert refused_global(path) == "collections.defaultdict"
        assert glimpse(path, SPLIT_NAMES) is None
    path.write_bytes(pickle.dumps({"train": table}, protocol))
    assert refused_global(path) == ""


@pytest.mark.parametrize("text", ["clip,label\na,1\n", "count\nname\n", "iname\nb\nc\n", "(1)\nc\n"])
def test_a_text_asks_for_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert refused_global(path) == ""


def test_a_glimpse_of_a_large_file_is_short(tmp_path: Path) -> None:
    """Fields met before the account was empty are enough."""
    path = tmp_path / "a.pkl"
    ids = [str(each) for each in range(200_000)]
    path.write_bytes(pickle.dumps({"train": {"raw_text": ids, "audio": 1}}))
    assert glimpse(path, SPLIT_NAMES) == Glimpse(fields=frozenset({"raw_text"}), lists=False, whole=False)
    path.write_bytes(pickle.dumps({"train": ids}))
    assert glimpse(path, SPLIT_NAMES) == Glimpse(fields=frozenset(), lists=True, whole=False)
    path.write_bytes(pickle.dumps({"train": {"id": ids[:40_000], "labels": 1}}))
    assert glimpse(path, SPLIT_NAMES) == Glimpse(fields=frozenset({"id", "labels"}), lists=False, whole=True)
