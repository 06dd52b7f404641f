"""Directories that appear whole: what a process that was killed at the worst moment leaves, and what the next
one makes of it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alignmamba.data.storage import MANIFEST, prepare_destination, publish
from alignmamba.errors import DataError
from alignmamba.files import temporary_directory

KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from alignmamba.data.storage import MANIFEST, publish
from alignmamba.files import temporary_directory

moment, target = sys.argv[1], Path(sys.argv[2])
rename = Path.rename

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def renaming(self, to):
    if moment == "before the second rename" and self.suffix == ".partial":
        kill()
    return rename(self, to)

Path.rename = renaming
with temporary_directory(target) as directory:
    (directory / MANIFEST).write_text("new")
    (directory / "train-00000.jsonl").touch()
    if moment == "while the old one is removed":
        shutil.rmtree = kill
    publish(directory, target, overwrite=True)
"""

posix = pytest.mark.skipif(
    os.name == "nt", reason="Windows has no SIGKILL, and its directories cannot be locked"
)


def corpus(path: Path, content: str) -> Path:
    path.mkdir()
    (path / MANIFEST).write_text(content)
    (path / "train-00000.jsonl").touch()
    return path


def kill(moment: str, target: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, moment, str(target)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL


@posix
def test_a_corpus_that_was_moved_aside_comes_back(tmp_path: Path) -> None:
    target = corpus(tmp_path / "corpus", "old")
    kill("before the second rename", target)
    assert not target.exists()
    with pytest.raises(DataError, match="exists already"):
        prepare_destination(target, overwrite=False)
    assert (target / MANIFEST).read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@posix
def test_a_corpus_that_was_replaced_goes(tmp_path: Path) -> None:
    target = corpus(tmp_path / "corpus", "old")
    kill("while the old one is removed", target)
    assert len(list(tmp_path.iterdir())) == 2
    prepare_destination(target, overwrite=True)
    assert (target / MANIFEST).read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@posix
def test_what_belongs_to_another_corpus_or_to_a_living_process_stays(tmp_path: Path) -> None:
    others = {
        corpus(tmp_path / f".corpus.v2.{'0' * 12}{ending}", "other")
        for ending in (".partial", ".replaced", ".mine")
    }
    with temporary_directory(tmp_path / "corpus") as held:
        prepare_destination(tmp_path / "corpus", overwrite=False)
        assert set(tmp_path.iterdir()) == others | {held}
    assert set(tmp_path.iterdir()) == others


def test_what_has_come_to_the_place_in_the_meantime_is_kept(tmp_path: Path) -> None:
    with temporary_directory(tmp_path / "corpus") as directory:
        (directory / MANIFEST).write_text("late")
        corpus(tmp_path / "corpus", "early")
        with pytest.raises(DataError, match="exists already"):
            publish(directory, tmp_path / "corpus", overwrite=False)
    assert (tmp_path / "corpus" / MANIFEST).read_text() == "early"
    assert [each.name for each in tmp_path.iterdir()] == ["corpus"]
