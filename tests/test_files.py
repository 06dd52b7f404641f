"""Files that are written whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alignmamba.files import replace_file, replacing


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
    killed += "with replacing(Path(sys.argv[1])) as file:\n    file.write(b'half')\n    file.flush()\n    os.kill(os.getpid(), 9)\n"
    done = subprocess.run([sys.executable, "-c", killed, str(file)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"half"]
    with replacing(file) as first:
        first.write(b"first")
        replace_file(file, b"second")
        assert len(list(tmp_path.iterdir())) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"first"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_a_temporary_file_that_is_taken_away_before_it_is_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
