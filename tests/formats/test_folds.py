"""Names of splits, and files of ids."""

from pathlib import Path

import pytest

from alignmamba.errors import DataError
from alignmamba.formats.folds import folds_path, left_out, read_folds, split_roles


def test_names_of_splits() -> None:
    assert split_roles(["Training", " dev ", "testing", "unheard"], "x") == {
        "Training": "train",
        " dev ": "valid",
        "testing": "test",
    }
    assert split_roles(["train", "Train", "TRAIN"], "x") == dict.fromkeys(
        ("train", "Train", "TRAIN"), "train"
    )
    with pytest.raises(DataError, match="x: 'val' and 'dev' both name the valid split, expected one of them"):
        split_roles(["val", "train", "dev"], "x")


def test_what_is_said_of_samples_that_are_left_out() -> None:
    assert left_out("clips", 0, "", ["train"]) == []
    assert left_out("clips", 2, "a", ["train", "test"]) == [
        "2 clips are in no split and were dropped, 'a' first."
    ]
    (note,) = left_out("clips", 2, "a", ["train", None], ["test2", "test1"])
    assert (
        note
        == "2 clips of the splits 'test1', 'test2' are in no split and were dropped, 'a' first. There is no"
        " test split left."
    )


def test_a_file_with_other_names(tmp_path: Path) -> None:
    (tmp_path / "folds.toml").write_text('testing = ["c"]\ntraining = ["a"]\ndev = ["b"]\n')
    assert read_folds(folds_path(None, tmp_path)) == {"a": "train", "b": "valid", "c": "test"}
    (tmp_path / "folds.toml").write_text("train" + " = {a" * 100 + "=1" + "}" * 100)
    with pytest.raises(DataError, match="train: expected a list of ids, found a mapping"):
        read_folds(tmp_path / "folds.toml")
    (tmp_path / "folds.toml").write_text("train = [0x" + "f" * 10_000 + "]")
    with pytest.raises(DataError, match="train: expected ids as text, found a number of more than 256 bits"):
        read_folds(tmp_path / "folds.toml")
