"""Scores of targets of tokens: a sample is the unit, whose score is the mean over its tokens."""

import math

import numpy as np
import pytest
from sklearn import metrics as oracle

from alignmamba.contracts import FurtherPredictions, Predictions, Target, Task
from alignmamba.evaluation.metrics import part_of, row_metric, sample_scores, score
from alignmamba.evaluation.seed_variance import RowMetric, scores_of
from alignmamba.evaluation.statistics import interval
from alignmamba.evaluation.statistics_notes import tokens_note

WORD = Target(name="word", kind="classification", labels=("w",), classes=("a", "b"), tokens="video")
LEVEL = Target(name="level", kind="regression", labels=("l",), label_range=(-3, 3), tokens="video")
# Four samples of 1, 0, 4 and 2 tokens; nothing is known of the last.
LENGTHS = np.array([1, 0, 4, 2])
TRUTH = np.array([0, 1, 1, 0, -1, -1, -1])
CALLED = np.array([1, 1, 1, 1, 0, 0, 1])


def said(target: Target, prediction: np.ndarray, truth: np.ndarray, lengths: np.ndarray) -> Predictions:
    count = len(lengths)
    further = FurtherPredictions(
        prediction=prediction, targets=truth, lengths=lengths, times=np.full(len(truth), math.nan)
    )
    return Predictions(
        ids=tuple("wxyz"[:count]),
        prediction=np.zeros(count),
        targets=np.zeros(count),
        further={target.name: further},
    )


def test_a_mean_is_that_of_samples_and_others_are_of_all_tokens() -> None:
    found = score(Task(kind="regression", further=(WORD,)), said(WORD, np.eye(2)[CALLED], TRUTH, LENGTHS))
    # none of one token, and two of the three that are known
    assert found["word.accuracy"] == pytest.approx((0 + 2 / 3) / 2)
    known = TRUTH >= 0
    assert found["word.f1_macro"] == pytest.approx(
        oracle.f1_score(TRUTH[known], CALLED[known], average="macro")
    )
    assert found["word.recall_unweighted"] == pytest.approx(0.5)


def test_the_unit_of_intervals_is_a_sample() -> None:
    part = part_of(WORD, said(WORD, np.eye(2)[CALLED], TRUTH, LENGTHS))
    assert part is not None
    assert part.ids == ("w", "y")
    assert part.lengths is not None
    assert part.lengths.tolist() == [1, 3]
    np.testing.assert_allclose(scores_of(WORD, [part], "accuracy"), [[0, 2 / 3]])
    whole = scores_of(WORD, [part], "f1_macro")
    assert isinstance(whole, RowMetric)
    assert whole.samples == 2
    # a sample that is drawn brings all of its tokens, drawn twice it brings them twice
    metric = row_metric(WORD, part, "f1_macro")
    assert metric(np.array([1])) == pytest.approx(oracle.f1_score([1, 1, 0], [1, 1, 1], average="macro"))
    assert metric(np.array([1, 0, 1])) == pytest.approx(
        oracle.f1_score([1, 1, 0, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1], average="macro")
    )


def test_copies_of_tokens_do_not_narrow_an_interval() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, size=40)
    called = np.where(random.random(40) < 0.7, truth, 1 - truth)

    def width(copies: int, metric: str) -> float:
        many = Predictions(
            ids=tuple(map(str, range(40))),
            prediction=np.eye(2)[called.repeat(copies)],
            targets=truth.repeat(copies),
            lengths=np.full(40, copies),
        )
        found = interval(scores_of(WORD, [many], metric), bounds=(0, 1), resamples=200)
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    for metric in ("accuracy", "f1_macro"):
        assert width(20, metric) == pytest.approx(width(1, metric))


def test_regressions_and_signs() -> None:
    truth = np.array([1.0, math.nan, -2.0, 0.0, 0.0, 1.0, 1.0])
    guessed = np.array([2.0, 9.0, -1.0, 0.5, 1.0, -1.0, 1.0])
    predictions = said(LEVEL, guessed, truth, np.array([2, 2, 1, 2]))
    found = score(Task(kind="regression", further=(LEVEL,)), predictions)
    assert found["level.mae"] == pytest.approx((1 + 0.75 + 1 + 1) / 4)
    # a sample whose tokens are all zero has no sign
    part = part_of(LEVEL, predictions)
    assert part is not None
    assert sample_scores(LEVEL, part, "acc2_non0") == pytest.approx([1, 1, 0.5])
    assert found["level.acc2_non0"] == pytest.approx(2.5 / 3)


def test_nothing_known_is_not_defined() -> None:
    nothing = said(WORD, np.eye(2)[CALLED], np.full(7, -1), LENGTHS)
    found = score(Task(kind="regression", further=(WORD,)), nothing)
    assert math.isnan(found["word.accuracy"])


def test_the_note_names_the_unit() -> None:
    assert "over the 12 samples, not over their 900 tokens" in tokens_note(12, 900)
