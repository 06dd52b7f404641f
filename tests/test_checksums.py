"""Checksums beside files and within JSON: any single wrong bit is found, in the content and in the checksum
itself.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from alignmamba.checksums import (
    LIST,
    check_listed,
    file_checksum,
    read_list,
    read_listed,
    stamped,
    unstamped,
    write_list,
)
from alignmamba.errors import CheckpointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.txt").write_bytes(b"first")
    (tmp_path / "inner" / "b.txt").write_bytes(b"second")
    write_list(tmp_path, ["a.txt", "inner/b.txt"], ahead={"later.txt": "0" * 64})
    return tmp_path


def flipped(content: bytes, bit: int) -> bytes:
    return bytes(byte ^ (1 << bit % 8) if at == bit // 8 else byte for at, byte in enumerate(content))


def test_what_is_listed_is_read(folder: Path) -> None:
    assert read_listed(folder, "a.txt", limit_bytes=10) == b"first"
    check_listed(folder, ["a.txt", "inner/b.txt", "later.txt", "unlisted"])
    assert list(read_list(folder)) == ["a.txt", "inner/b.txt", "later.txt"]


def test_a_file_of_holes_is_damaged_without_being_read(folder: Path) -> None:
    with (folder / "a.txt").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match=r"a\.txt: damaged"):
        check_listed(folder, ["a.txt"])


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_list_is_one_that_others_check(folder: Path) -> None:
    write_list(folder, ["a.txt", "inner/b.txt"])
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", LIST], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "a.txt: OK\ninner/b.txt: OK\n")


def test_every_flipped_bit_of_a_file_or_the_list_is_found(folder: Path) -> None:
    for name in ("a.txt", LIST):
        whole = (folder / name).read_bytes()
        for bit in range(0, 8 * len(whole), 1 if name == "a.txt" else 5):
            (folder / name).write_bytes(flipped(whole, bit))
            with pytest.raises(CheckpointError, match="damaged"):
                read_listed(folder, "a.txt", limit_bytes=10)
            with pytest.raises(CheckpointError, match="damaged"):
                check_listed(folder, ["a.txt"])
        (folder / name).write_bytes(whole)


def test_a_folder_without_a_list_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"old")
    assert read_listed(tmp_path, "a.txt", limit_bytes=10) == b"old"
    assert read_list(tmp_path) == {}


def test_a_stamp_vouches_for_every_field() -> None:
    values = {"b": [1, 2.5, None], "a": {"nested": "x"}}
    written = json.loads(json.dumps(stamped(values)))
    assert unstamped(written, "file") == values
    assert unstamped(values, "file") == values
    for change in ({"b": [1, 2.25, None]}, {"c": 0}, {"sha256": "0" * 64}, {"sha256": None}):
        with pytest.raises(CheckpointError, match="file: damaged or edited"):
            unstamped({**written, **change}, "file")


def test_the_last_bytes_may_be_left_out(tmp_path: Path) -> None:
    for content in (b"", b"12", b"12345"):
        (tmp_path / "file").write_bytes(content + b"tail")
        (tmp_path / "other").write_bytes(content)
        assert file_checksum(tmp_path / "file", without_last=4) == file_checksum(tmp_path / "other")
