"""Corpora of ordered classes and of several labels, from arrays to disk and back."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import Task
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.balanced_order import strata
from alignmamba.data.inspection import inspect_corpus
from alignmamba.errors import DataError

EMOTIONS = Task(kind="multilabel", classes=("happy", "sad"))
GRADES = Task(kind="ordinal", classes=("poor", "fair", "good"))


def arrays(targets: Any) -> dict[str, Any]:
    return {"features": {"sound": [np.full((2, 1), row) for row in range(len(targets))]}, "targets": targets}


def targets_of(path: Path) -> list[Any]:
    return [sample.target for sample in load_corpus(path).split("train")]


def test_several_labels_come_as_numbers_or_as_names(tmp_path: Path) -> None:
    given = [
        [1, 0],
        np.array([0.0, 2.5]),
        ["sad"],
        [],
        (1, None),
        [np.nan, np.nan],
        None,
        {"happy", "sad"},
        np.ma.array([1, 1], mask=[False, True]),
    ]
    write_corpus(tmp_path / "c", {"train": arrays(given)}, task=EMOTIONS)
    found = targets_of(tmp_path / "c")
    assert found[:4] == [(1.0, 0.0), (0.0, 1.0), (0.0, 1.0), (0.0, 0.0)]
    assert found[4][0] == 1.0
    assert math.isnan(found[4][1])
    assert found[5:8] == [None, None, (1.0, 1.0)]
    assert found[8][0] == 1.0
    assert math.isnan(found[8][1])


def test_what_is_no_set_of_labels_is_refused(tmp_path: Path) -> None:
    expected = r"expected a number for each of 2 classes, or a list of names of \['happy', 'sad'\]"
    for wrong, said in (
        ([1, 0, 1], "target a list"),
        ("happy", "target 'happy'"),
        (["angry"], "target 'angry'"),
        (1.0, "target 1.0"),
    ):
        with pytest.raises(DataError, match=f"sample 'train-000002': {said}, {expected}"):
            write_corpus(tmp_path / "c", {"train": arrays([[1, 0], wrong])}, task=EMOTIONS)
    assert list(tmp_path.iterdir()) == []


def test_ordered_classes_are_stored_as_classes_are(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", {"train": arrays(["good", 0, None, "fair"])}, task=GRADES)
    assert targets_of(tmp_path / "c") == [2, 0, None, 1]
    with pytest.raises(DataError, match="target 3, expected a class index from 0 to 2"):
        write_corpus(tmp_path / "d", {"train": arrays([3])}, task=GRADES)


def test_an_inspection_counts_what_is_there(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", {"train": arrays([[1, 0], [1, 1], None, [0, np.nan]])}, task=EMOTIONS)
    found = inspect_corpus(tmp_path / "c")
    assert found.problems == ()
    assert found.splits[0].targets == {"happy": 2, "sad": 1}
    assert found.splits[0].labelled == 3
    assert "1 of 4 samples of train have no target: they have no part in its loss and scores" in (
        found.training.notes
    )


def test_a_corpus_that_nobody_labelled_has_no_targets(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", {"train": arrays([None, None])}, task=EMOTIONS)
    assert [sample.target for sample in corpus.split("train")] == [None, None]
    hindrance = inspect_corpus(tmp_path / "c").training.hindrance
    assert hindrance == "split 'train' has no targets; `train --pretrain` needs none"


def test_an_epoch_is_balanced_by_sets_of_labels(tmp_path: Path) -> None:
    given = [[1, 0], [1, 0], [0, 1], [1, 1], [1, 0]]
    split = write_corpus(tmp_path / "c", {"train": arrays(given)}, task=EMOTIONS).split("train")
    assert strata(split, "target", EMOTIONS).tolist() == [1, 1, 0, 2, 1]
