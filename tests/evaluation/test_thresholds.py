"""Thresholds of labels, chosen on predictions."""

import math
from itertools import pairwise

import numpy as np
import pytest

from alignmamba.contracts import FurtherPredictions, Predictions, Target, Task
from alignmamba.evaluation.metrics import score
from alignmamba.evaluation.thresholds import chosen_thresholds, in_words

LABELS = Task(kind="multilabel", classes=("a", "b", "c"))


def predictions(truth: list[list[float]], probable: list[list[float]]) -> Predictions:
    ids = tuple(f"s{row}" for row in range(len(truth)))
    return Predictions(ids=ids, prediction=np.array(probable), targets=np.array(truth))


def test_a_threshold_lies_between_what_it_parts() -> None:
    truth = [[1, 1, 1], [0, 0, 1], [1, 0, 1], [math.nan, 1, math.nan]]
    probable = [[0.3, 0.9, 0.2], [0.1, 0.8, 0.3], [0.4, 0.7, 0.4], [0.0, 0.85, 0.5]]
    found = chosen_thresholds(LABELS, predictions(truth, probable))[""]
    # a: 0.1 from 0.3; b: 0.8 from 0.85; c: is always there, so nothing can be chosen
    assert found == pytest.approx([0.2, 0.825, 0.5])


def test_no_threshold_scores_higher_and_ties_are_next_to_one_half() -> None:
    random = np.random.default_rng(0)
    truth = (random.uniform(size=(40, 3)) < 0.3).astype(float)
    probable = np.round(random.uniform(size=(40, 3)) * 0.5 + truth * 0.2, 2)
    made = predictions(truth.tolist(), probable.tolist())
    found = chosen_thresholds(LABELS, made)[""]

    def weighted(thresholds: list[float]) -> list[float]:
        called = Predictions(
            ids=made.ids,
            prediction=made.prediction,
            targets=made.targets,
            called=probable >= np.array(thresholds),
        )
        scores = score(LABELS, called)
        return [scores[f"accuracy_weighted({name})"] for name in "abc"]

    best = weighted(found.tolist())
    for column in range(3):
        pairs = pairwise(np.unique(probable[:, column]))
        for threshold in (*(float(np.mean(pair)) for pair in pairs), 0.0, 0.5, 1.0):
            other = weighted([threshold] * 3)[column]
            assert other <= best[column] + 1e-9
            if other > best[column] - 1e-9:
                assert abs(found[column] - 0.5) <= abs(threshold - 0.5) + 1e-9


def test_calls_decide_accuracies_and_not_the_areas() -> None:
    truth, probable = [[1.0], [0.0], [1.0], [0.0]], [[0.2], [0.1], [0.3], [0.05]]
    task = Task(kind="multilabel", classes=("a",))
    made = predictions(truth, probable)
    half = score(task, made)
    called = Predictions(
        ids=made.ids, prediction=made.prediction, targets=made.targets, called=made.prediction >= 0.15
    )
    lower = score(task, called)
    assert (half["accuracy_weighted"], lower["accuracy_weighted"]) == (0.5, 1.0)
    assert (half["accuracy_labels"], lower["accuracy_labels"]) == (0.5, 1.0)
    assert half["f1_labels"] < lower["f1_labels"] == 1.0
    assert half["auroc"] == lower["auroc"] == 1.0
    assert half["average_precision"] == lower["average_precision"]


def test_further_targets_have_thresholds_of_their_own() -> None:
    mood = Target(name="mood", kind="multilabel", labels=("x", "y"), classes=("x", "y"))
    task = Task(kind="regression", further=(mood,))
    said = FurtherPredictions(
        prediction=np.array([[0.1, 0.9], [0.3, np.nan]]), targets=np.array([[0.0, 1.0], [1.0, 0.0]])
    )
    made = Predictions(ids=("a", "b"), prediction=np.zeros(2), targets=np.zeros(2), further={"mood": said})
    found = chosen_thresholds(task, made)
    assert list(found) == ["mood"]
    assert in_words(found, task) == pytest.approx({"mood.x": 0.2, "mood.y": 0.5})
