"""Plain files: a full disk is no damage, and checksums tell how far they are."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from alignmamba.checksums import file_checksum
from alignmamba.errors import DataError
from alignmamba.formats.plain_files import counting, open_npz


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_from_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "all.npz", x=np.arange(10))
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "w+b"))
    with pytest.raises(
        DataError,
        match=r"array 'x': cannot be unpacked into .*: No space left on device; TMPDIR names another folder",
    ):
        open_npz(tmp_path / "all.npz", "x")


def test_a_checksum_tells_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    told: list[tuple[int, int]] = []
    add = counting(lambda done, total: told.append((done, total)), 6 << 20)
    assert file_checksum(tmp_path / "file", add) == file_checksum(tmp_path / "file", add)
    assert told == [(piece << 20, 6 << 20) for piece in range(1, 7)]
