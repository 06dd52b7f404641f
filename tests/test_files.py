"""Files that are written whole or not at all, and files of strangers, read within bounds."""

import csv
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alignmamba.errors import CheckpointError, DataError
from alignmamba.files import JSON_BYTES, csv_text, parse_json, read_json, replace_file, replacing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    replace_file(file, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        replace_file(file, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_what_a_killed_writer_left_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    file = tmp_path / "file"
    killed = "import os, sys\nfrom pathlib import Path\nfrom alignmamba.files import replacing\n"
    killed += (
        "with replacing(Path(sys.argv[1])) as file:\n    file.write(b'half')\n    file.flush()\n   "
        " os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(file)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"half"]
    with replacing(file) as first:
        first.write(b"first")
        replace_file(file, b"second")
        assert len(list(tmp_path.iterdir())) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"first"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_a_temporary_file_that_is_taken_away_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch, taken = Path.touch, []

    def robbed(path: Path) -> None:
        touch(path)
        if not taken:
            taken.append(path)
            path.unlink()

    monkeypatch.setattr(Path, "touch", robbed)
    replace_file(tmp_path / "file", b"content")
    assert taken
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"content"]


# Files of strangers


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize(
    "kind", ["pipe", "device", "link to a device", "folder", "nothing", "broken link", "circle of links"]
)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file.json"
    make = {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "link to a device": lambda: (
            (tmp_path / "other").symlink_to("/dev/zero"),
            path.symlink_to(tmp_path / "other"),
        ),
        "folder": path.mkdir,
        "nothing": lambda: None,
        "broken link": lambda: path.symlink_to(tmp_path / "gone"),
        "circle of links": lambda: path.symlink_to(path),
    }
    make[kind]()
    with pytest.raises(
        CheckpointError, match=r"file\.json'?: (expected a file, found|cannot be read)"
    ) as raised:
        read_json(path, error=CheckpointError)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_of_any_declared_size_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "sparse.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        DataError, match=rf"sparse\.json: expected at most {JSON_BYTES} bytes, found {1 << 40}"
    ):
        read_json(path)
    path.write_text("[1, 2]")
    assert read_json(path, limit_bytes=6) == [1, 2]
    with pytest.raises(DataError, match="at most 5 bytes, found 6"):
        read_json(path, limit_bytes=5)


JSON_REFUSED = {
    "nothing": (b"", "Expecting value"),
    "no JSON": (b"{'a': 1}", "property name"),
    "not UTF-8": (b'{"a": "\xff"}', "can't decode byte 0xff in position 7"),
    "half a character": (b'{"a": "\\ud800"}', "a lone surrogate"),
    "half a character in a key": (b'[[{"\\uDFFF": 1}]]', "a lone surrogate"),
    "a key twice": (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' appears twice in one object"),
    "a key twice, further in": (b'[{"a": {"b": 1, "b": 1}}]', "the key 'b' appears twice in one object"),
    "a key twice by its escapes": (b'{"a": 1, "\\u0061": 2}', "the key 'a' appears twice in one object"),
    "a long integer": (b"[" + b"9" * 5000 + b"]", "an integer of 5000 digits, expected at most 100"),
    "a long negative integer": (
        b'{"a": -' + b"9" * 101 + b"}",
        "an integer of 102 digits, expected at most 100",
    ),
    "lists in lists": (b"[" * 65 + b"]" * 65, "more than 64 nested lists and objects"),
    "objects in objects": (b'{"a":' * 65 + b"0" + b"}" * 65, "more than 64 nested lists and objects"),
    "a hundred thousand lists": (
        b"[" * 100_000 + b"]" * 100_000,
        "more than 64 nested lists and objects",
    ),
    "a hundred thousand lists without end": (b"[" * 100_000, "more than 64 nested lists and objects"),
}


@pytest.mark.parametrize("kind", JSON_REFUSED)
def test_json_of_strangers_is_read_within_bounds(kind: str) -> None:
    content, problem = JSON_REFUSED[kind]
    with pytest.raises(DataError) as raised:
        parse_json(content, "here")
    assert str(raised.value).startswith("here: not valid JSON: ")
    assert problem in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    str(raised.value).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbf[1]", [1]),
        (b'{"a": "\\ud83d\\ude00 \\u0007"}', {"a": "\U0001f600 \x07"}),
        ("[" * 64 + "]" * 64, None),
        ("[" + "[[]]," * 1000 + "0]", [[[]]] * 1000 + [0]),
        ("[1e308, -0.5, 123456789012345678901234567890]", [1e308, -0.5, 123456789012345678901234567890]),
    ],
)
def test_json_within_the_bounds_is_read_as_it_is(content: bytes | str, expected: object) -> None:
    found = parse_json(content.encode() if isinstance(content, str) else content, "here")
    assert expected is None or found == expected


@pytest.mark.parametrize("cell", ["a\rb", "a\nb", "a\r\nb", "a,b", 'a"b', "=1+1", "@x", "", "é"])
def test_rows_of_csv_come_back(cell: str) -> None:
    text = csv_text([["id", "value"], [cell, 1], ["next", 2.5]])
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [
        ["id", "value"],
        [cell, "1"],
        ["next", "2.5"],
    ]
    assert text.endswith("next,2.5\n")
    assert (cell in text) == ('"' not in cell)
