"""MulT pickles, read value by value and length by length."""

from pathlib import Path

import layouts_pickled
import numpy as np
import pytest
from layouts_pickled import assert_holds, write, write_old

from alignmamba.data.readers.converting import convert, detect
from alignmamba.errors import DataError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mosi_data.pkl"


@pytest.mark.parametrize("front", [True, False])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_value(file: Path, protocol: int, aligned: bool, front: bool) -> None:
    content, truths = layouts_pickled.mult(aligned=aligned, front=front)
    write(file, content, protocol)
    assert detect([file]) == "mult"
    done = convert("auto", [file], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.faults == ()
    assert done.notes == (f"zeros at the {'front' if front else 'back'} taken for padding",)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_files_of_python_2(file: Path, protocol: int) -> None:
    content, truths = layouts_pickled.mult()
    write_old(file, content, protocol)
    assert detect([file]) == "mult"
    assert_holds(convert("auto", [file], file.parent / "corpus").corpus, truths)


@pytest.mark.parametrize("form", ["text", "lists", "objects", "joined"])
def test_forms_of_ids(file: Path, form: str) -> None:
    content, truths = layouts_pickled.mult()
    for role, split in content.items():
        parts = [clip.id.split("$_$") for clip in truths[role]]
        joined = [clip.id for clip in truths[role]]
        split["id"] = {"text": np.array(parts), "lists": parts, "objects": np.array(parts, dtype=object), "joined": joined}[form]
    assert_holds(convert("mult", [write(file, content)], file.parent / "corpus").corpus, truths)


def test_faults_are_counted(file: Path) -> None:
    content, truths = layouts_pickled.mult()
    content["train"]["audio"][0, -1, 0] = -np.inf
    truths["train"][0].features["audio"][-1, 0] = 0
    content["train"]["vision"][1] = 0
    del truths["train"][1].features["vision"]
    done = convert("mult", [write(file, content)], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert sorted(done.faults) == [("not finite", "audio", "set to 0", 1), ("zero length", "vision", "taken as missing", 1)]


def test_refusals(file: Path) -> None:
    content, _ = layouts_pickled.mult()
    content["train"]["labels"] = np.zeros((5, 4, 2))
    with pytest.raises(DataError, match=r"mosi_data\.pkl: split 'train': labels: expected 5 numbers, one per clip, found an array"):
        convert("mult", [write(file, content)], file.parent / "corpus")
    content, _ = layouts_pickled.mult()
    for split in content.values():
        for name in ("text", "audio", "vision"):
            del split[name]
    with pytest.raises(DataError, match="expected at least one of the fields text, audio, vision"):
        convert("mult", [write(file, content)], file.parent / "corpus")
