"""Plain files: a full disk is no damage, and values of a text format are shown short."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from alignmamba.data.readers.plain import checksum, counting, open_npz, shown
from alignmamba.errors import DataError


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_from_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "all.npz", x=np.arange(10))
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "w+b"))
    with pytest.raises(DataError, match=r"array 'x': cannot be unpacked into .*: No space left on device; TMPDIR names another folder"):
        open_npz(tmp_path / "all.npz", "x")


def test_values_are_shown_short() -> None:
    deep: list[object] = []
    for _ in range(20_000):
        deep = [deep]
    assert [shown(value) for value in (deep, {"a": deep}, "a", 3, None, 1 << 50_000)] == [
        *("a list", "a table", "'a'", "3", "None", "a number of more than 256 bits"),
    ]
    assert len(shown("a" * 1000)) == 80


def test_a_checksum_tells_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    told: list[tuple[int, int]] = []
    add = counting(lambda done, total: told.append((done, total)), 6 << 20)
    assert checksum(tmp_path / "file", add) == checksum(tmp_path / "file", add)
    assert told == [(piece << 20, 6 << 20) for piece in range(1, 7)]
