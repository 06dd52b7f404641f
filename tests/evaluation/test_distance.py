import math
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.proxy_distance import _fit_logistic, proxy_a_distance

Array = NDArray[np.float64]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def test_what_does_not_differ_has_no_distance_on_average() -> None:
    """Unclipped, so that the mean is 0 and not above it."""
    found = [proxy_a_distance(*normal(2, 100, 4, seed=seed), seed=seed).distance for seed in range(40)]
    assert abs(float(np.mean(found))) < 0.06
    assert min(found) < 0 < max(found)


def test_disjoint_sets_are_two_apart() -> None:
    first, second = normal(2, 60, 3)
    found = proxy_a_distance(first, second + 20, seed=0)
    assert (found.distance, found.error, found.standard_error) == (2.0, 0.0, 0.0)


def test_a_copy_is_at_no_distance_at_all() -> None:
    """Both vectors of a sample are held out together, so of two equal ones exactly one is called wrong."""
    first = normal(53, 4)
    found = proxy_a_distance(first, first, seed=0, folds=4)
    assert (found.distance, found.error, found.standard_error) == (0.0, 0.5, 0.0)


def test_vectors_of_a_sample_are_held_out_together() -> None:
    """Two vectors of a sample lie close in many channels and differ at random: a classifier that had seen one
    would misplace the other.
    """
    shared = normal(40, 200)
    found = [
        proxy_a_distance(
            shared + 0.1 * normal(40, 200, seed=s), shared + 0.1 * normal(40, 200, seed=s + 50), seed=s
        ).error
        for s in range(1, 9)
    ]
    assert 0.42 < float(np.mean(found)) < 0.58


def test_distance_between_two_normals() -> None:
    """A shift of 2 deviations in one channel: the least error is Φ(-1) = .1587, so the distance is 1.365."""
    first, second = normal(2, 4000, 2)
    second[:, 0] += 2.0
    found = [proxy_a_distance(first, second, seed=seed) for seed in range(10)]
    assert found[0].distance == pytest.approx(2 * (1 - math.erfc(1 / math.sqrt(2))), abs=0.06)
    assert found[0].distance == pytest.approx(2 * (1 - 2 * found[0].error))
    # Binomial: 4 √(e (1 - e) / vectors).
    expected = 4 * math.sqrt(0.1587 * 0.8413 / 8000)
    assert float(np.mean([each.standard_error for each in found])) == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("shift", [0.3, 10.0], ids=["overlapping", "separable"])
def test_classifier_is_that_of_scikit_learn(strength: float, shift: float) -> None:
    vectors, labels = normal(90, 5), np.repeat([-1.0, 1.0], [40, 50])
    vectors[labels > 0] += shift
    weights, intercept = _fit_logistic(vectors, labels, strength)
    expected = LogisticRegression(C=1 / strength, tol=1e-9, max_iter=5000).fit(vectors, labels)
    np.testing.assert_allclose(weights, expected.coef_[0], rtol=1e-3, atol=1e-4)
    assert intercept == pytest.approx(expected.intercept_[0], rel=1e-3, abs=1e-4)


def test_error_is_that_of_scikit_learn_with_samples_as_groups() -> None:
    first, second = normal(2, 300, 6)
    second = 3 * second + [1.5, 0, 0, 0, 0, 0]
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8))
    accuracy = cross_val_score(
        model,
        np.r_[first, second],
        np.repeat([0, 1], 300),
        groups=np.tile(np.arange(300), 2),
        cv=GroupKFold(5),
    )
    assert proxy_a_distance(first, second, seed=0).error == pytest.approx(1 - accuracy.mean(), abs=0.02)


def test_scale_shift_and_idle_channels_do_not_matter() -> None:
    first, second = normal(2, 80, 3)
    second[:, 0] += 1.0
    plain = proxy_a_distance(first, second, seed=0)
    scaled = [
        np.c_[each * [1e-3, 1.0, 1e4] + [5.0, -3.0, 0.0], np.full(80, 0.1), np.zeros(80)]
        for each in (first, second)
    ]
    assert proxy_a_distance(*scaled, seed=0) == plain
    assert proxy_a_distance(second, first, seed=0).error == pytest.approx(plain.error, abs=1e-9)


def test_folds_go_by_the_seed() -> None:
    first, second = normal(2, 80, 3)
    found = [proxy_a_distance(first, second + 0.5, seed=seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.ones((5, 2)), np.ones((5, 3)), r"second: expected the shape of first, \(5, 2\), found \(5, 3\)"),
        (np.ones(5), np.ones(5), r"first: expected \(samples, channel\), found shape \(5,\)"),
        (np.ones((5, 1)), np.full((5, 1), math.nan), "second: 5 of 5 values are not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(first: Array, second: Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        proxy_a_distance(first, second, seed=0)


def test_arguments_out_of_range_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = normal(2, 6, 2)
    with pytest.raises(
        ConfigError, match="folds: expected a number from 2 to that of the samples, 6, found 7"
    ):
        proxy_a_distance(first, second, seed=0, folds=7)
    with pytest.raises(ConfigError, match="strength"):
        proxy_a_distance(first, second, seed=0, strength=0.0)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ConfigError, match=r"pip install 'alignmamba\[experiments\]'"):
        proxy_a_distance(first, second, seed=0)
