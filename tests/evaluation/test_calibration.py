"""Calibration and per-class scores against tables worked by hand."""

import numpy as np
import pytest

from alignmamba.errors import DataError
from alignmamba.evaluation.calibration import class_scores, reliability


def test_calibration_by_hand() -> None:
    """Two bins: .6 and .8 with one of two right, and .2 and .4 with none right: (2 |.5 - .7| + 2 |0 - .3|) /
    4 = .25.
    """
    found = reliability([0.6, 0.8, 0.2, 0.4], [True, False, False, False], num_bins=2)
    assert found.error == pytest.approx(0.25)
    assert [(each.low, each.high, each.samples) for each in found.bins] == [(0.0, 0.5, 2), (0.5, 1.0, 2)]
    assert [each.confidence for each in found.bins] == pytest.approx([0.3, 0.7])
    assert [each.accuracy for each in found.bins] == [0.0, 0.5]


def test_a_bound_belongs_to_the_bin_below() -> None:
    found = reliability([0.0, 0.5, 1.0], [False, True, True], num_bins=2)
    assert [each.samples for each in found.bins] == [2, 1]


def test_probabilities_that_hold_have_no_error() -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0, 1, 200_000)
    assert reliability(sure, random.random(200_000) < sure).error < 0.006
    assert reliability(sure, np.zeros(200_000, bool)).error == pytest.approx(sure.mean())


@pytest.mark.parametrize(
    ("confidence", "correct"), [([], []), ([0.5], [True, False]), ([1.2], [True]), ([float("nan")], [True])]
)
def test_what_cannot_be_binned_is_refused(confidence: list[float], correct: list[bool]) -> None:
    with pytest.raises(DataError, match="confidence"):
        reliability(confidence, correct)


def test_scores_of_each_class_by_hand() -> None:
    """Class 2 is true twice and never predicted, class 3 neither."""
    first, second, third, fourth = class_scores(
        np.array([[3, 1, 0, 0], [2, 4, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    )
    assert (first.precision, first.recall, first.f1, first.support) == (3 / 6, 3 / 4, 6 / 10, 4)
    assert (second.precision, second.recall, second.f1, second.support) == (4 / 6, 4 / 6, 8 / 12, 6)
    assert (third.precision, third.recall, third.f1, third.support) == (None, 0.0, 0.0, 2)
    assert (fourth.precision, fourth.recall, fourth.f1, fourth.support) == (None, None, None, 0)
