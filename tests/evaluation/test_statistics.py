import math
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats as oracle

from alignmamba.contracts import Predictions, Task
from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.metrics import score
from alignmamba.evaluation.seed_variance import (
    Grouped,
    Parts,
    RowMetric,
    Scores,
    error_of,
    scores_of,
)
from alignmamba.evaluation.statistics import (
    UNBOUNDED,
    compare_to,
    compare_to_best,
    fold_inflation,
    holm,
    interval,
    mcnemar_exact,
    over_seeds,
    paired_bootstrap,
)
from alignmamba.evaluation.statistics_notes import (
    folds_note,
    interval_note,
    marks_note,
    power_note,
    reach_note,
)

Array = NDArray[np.float64]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean_of(values: Array) -> Callable[[NDArray[np.int64]], float]:
    return lambda rows: float(values[rows].mean())


def as_row_metric(scores: Array) -> RowMetric:
    """The same scores, of which nothing is known but their mean over rows."""
    return RowMetric(runs=tuple(mean_of(run) for run in scores), samples=scores.shape[1])


# --- over seeds ---------------------------------------------------------------------------------------------


def test_estimate_worked_on_paper() -> None:
    """2, 4, 9: mean 5, squares 9 + 1 + 16, variance 13; t(2) at 97.5 % is 4.302653 in any table."""
    found = over_seeds([2.0, 4.0, 9.0])
    reach = 4.302653 * math.sqrt(13.0) / math.sqrt(3.0)
    assert (found.mean, found.n) == (5.0, 3)
    assert found.deviation == pytest.approx(math.sqrt(13.0))
    assert (found.low, found.high) == (pytest.approx(5 - reach, rel=1e-6), pytest.approx(5 + reach, rel=1e-6))


def test_one_seed_has_no_interval() -> None:
    found = over_seeds([0.5])
    assert (found.mean, found.deviation, found.low, found.high, found.n) == (0.5, None, None, None, 1)


def test_an_undefined_value_leaves_the_estimate_undefined() -> None:
    found = over_seeds([0.5, math.nan])
    assert math.isnan(found.mean)
    assert (found.deviation, found.low, found.high) == (None, None, None)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_interval_over_seeds_covers(confidence: float) -> None:
    drawn = generator().normal(3.0, 2.0, size=(3000, 4))
    estimates = [over_seeds(values, confidence=confidence) for values in drawn]
    covered = np.mean([each.low < 3.0 < each.high for each in estimates])  # type: ignore[operator]
    assert covered == pytest.approx(confidence, abs=0.02)


def test_two_seeds_have_a_deviation_and_no_interval() -> None:
    found = over_seeds([0.4, 0.6])
    assert (found.mean, found.low, found.high, found.n) == (0.5, None, None, 2)
    assert found.deviation == pytest.approx(math.sqrt(0.02))


def test_an_interval_over_seeds_stays_within_the_range() -> None:
    """On the logit scale: at a mean of 1/2 its slope is 4, the reach of 0.4, 0.5 and 0.6 is 4 x 4.302653 x
    0.1 / √3 = 0.99366.
    """
    found = over_seeds([0.4, 0.5, 0.6], bounds=(0.0, 1.0))
    assert (found.low, found.high) == (
        pytest.approx(1 / (1 + math.exp(0.99366)), rel=1e-4),
        pytest.approx(1 / (1 + math.exp(-0.99366)), rel=1e-4),
    )
    wild = over_seeds([0.02, 0.5, 0.99], bounds=(0.0, 1.0))
    assert 0.0 <= wild.low < 0.05  # type: ignore[operator]
    assert 0.95 < wild.high <= 1.0  # type: ignore[operator]


# --- over seeds and samples ---------------------------------------------------------------------------------

SHARE, ERRORS, CORRELATION = (0.0, 1.0), (0.0, math.inf), (-1.0, 1.0)


def test_interval_worked_on_paper() -> None:
    """Three seeds of (1 1 0 0), (1 1 1 0) and (1 0 0 0): means 1/2, 3/4, 1/4, s² = 1/16.

    The variances of the means are 1/12, 1/16 and 1/16, the covariances 1/24, 1/24 and 1/48: V = 5/72, C =
    5/144, and the mean's own variance (3 V + 6 C) / 9 = 5/108. Of s², V - C = 5/144 is noise of samples; the
    rest, 1/36, over 3 seeds is 1/108. Together 6/108; freedom (1/18)² 2 / (1/48)² = 14.2 > 3, so 3. On the
    logit scale 4 √(1/18) t(3).
    """
    scores = np.array([[1.0, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]])
    found = interval(scores, bounds=SHARE)
    reach = oracle.t.ppf(0.975, 3) * 4 * math.sqrt(1 / 18)
    assert (found.mean, found.deviation, found.n) == (0.5, pytest.approx(0.25), 3)
    assert (found.low, found.high) == (
        pytest.approx(1 / (1 + math.exp(reach))),
        pytest.approx(1 / (1 + math.exp(-reach))),
    )


def test_of_two_seeds_the_samples_alone_count() -> None:
    """Seeds that differ by anything: (1 1 0 0) and (0 0 1 1) would have s² = 0, (1 1 1 1) and (0 0 0 0) an
    interval beyond all bounds.
    """
    apart = interval(np.array([[1.0] * 4 + [1.0, 0.0], [0.0] * 4 + [1.0, 0.0]]), bounds=SHARE)
    mean_of_both = interval(np.array([[0.5] * 4 + [1.0, 0.0]]), bounds=SHARE)
    assert (apart.low, apart.high) == (mean_of_both.low, mean_of_both.high)


def test_equal_seeds_are_not_certain() -> None:
    """Two seeds that say the same of 70 samples: about two standard errors of a share of .729 to either side,
    not none.
    """
    run = np.r_[np.ones(51), np.zeros(19)]
    for seeds in (1, 2, 5):
        found = interval(np.tile(run, (seeds, 1)), bounds=SHARE)
        assert found.low == pytest.approx(0.729 - 0.115, abs=0.01)
        assert found.high == pytest.approx(0.729 + 0.092, abs=0.01)


def test_all_right_is_not_certain() -> None:
    """Clopper and Pearson: 0.025 ** (1 / 20) = 0.8316."""
    found = interval(np.ones((3, 20)), bounds=SHARE)
    assert (found.low, found.high) == (pytest.approx(0.8316, abs=1e-4), 1.0)
    found = interval(np.zeros(20), bounds=SHARE)
    assert (found.low, found.high) == (0.0, pytest.approx(1 - 0.8316, abs=1e-4))


def test_errors_have_an_interval_above_zero() -> None:
    """On the log scale: √(low x high) is the mean."""
    errors = generator(20).exponential(size=(4, 12)) ** 3
    found = interval(errors, bounds=ERRORS)
    assert 0.0 < found.low < found.mean < found.high  # type: ignore[operator]
    assert math.sqrt(found.low * found.high) == pytest.approx(found.mean)  # type: ignore[operator]
    assert interval(np.zeros((3, 9)), bounds=ERRORS).high == 0.0


def test_of_a_correlation_it_is_fishers() -> None:
    """The scale is twice z, and the interval is even around z of the mean."""
    draw = generator(21)
    x = draw.normal(size=80)
    y = 0.9 * x + 0.4 * draw.normal(size=80)
    found = interval(
        RowMetric(runs=(lambda rows: float(np.corrcoef(x[rows], y[rows])[0, 1]),), samples=80),
        bounds=CORRELATION,
    )
    low, middle, high = map(math.atanh, (found.low, found.mean, found.high))  # type: ignore[arg-type]
    assert middle - low == pytest.approx(high - middle)
    assert middle - low == pytest.approx(1.96 / math.sqrt(77), rel=0.25)


@given(
    scores=st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=7, max_size=7), min_size=1, max_size=5),
    confidence=st.sampled_from([0.8, 0.95, 0.999]),
)
def test_no_interval_leaves_the_range(scores: list[list[float]], confidence: float) -> None:
    for bounds in (SHARE, CORRELATION, ERRORS):
        found = interval(np.array(scores), bounds=bounds, confidence=confidence)
        assert bounds[0] <= found.low <= found.mean + 1e-12  # type: ignore[operator]
        assert found.mean - 1e-12 <= found.high <= bounds[1]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("seeds", "samples", "of_seeds", "of_samples"),
    [
        (1, 70, 0.0, 1.0),
        (2, 70, 0.0, 1.0),
        (3, 70, 0.3, 1.0),
        (3, 400, 0.5, 1.5),
        (5, 70, 0.0, 1.5),
        (5, 400, 0.3, 1.0),
        (10, 200, 0.5, 1.0),
    ],
)
def test_intervals_cover_as_often_as_they_say(
    seeds: int, samples: int, of_seeds: float, of_samples: float
) -> None:
    """An accuracy about .77: a level of each seed, a difficulty of each sample. Seeds alone, or samples
    alone, cover 40 to 85 % in some.
    """
    draw, runs, hits = generator(22), 400, 0
    nodes = draw.normal(size=200_000)
    truth = _share(nodes, of_seeds, of_samples)
    for _ in range(runs):
        logits = 1.5 + of_seeds * draw.normal(size=(seeds, 1)) + of_samples * draw.normal(size=(1, samples))
        right = (draw.random((seeds, samples)) < 1 / (1 + np.exp(-logits))).astype(np.float64)
        found = interval(right, bounds=SHARE)
        hits += found.low <= truth <= found.high  # type: ignore[operator]
    assert 0.90 <= hits / runs <= 0.99


def _share(nodes: Array, of_seeds: float, of_samples: float) -> float:
    """Accuracy over all seeds and samples of the setting above."""
    return float((1 / (1 + np.exp(-(1.5 + math.hypot(of_seeds, of_samples) * nodes)))).mean())


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(DataError, match="not defined"):
        interval(RowMetric(runs=(lambda _: math.nan,), samples=3))
    with pytest.raises(DataError, match="two samples or more"):
        interval(np.ones((2, 1)))
    with pytest.raises(ConfigError, match="confidence"):
        interval(np.ones(3), confidence=95.0)


# --- McNemar and Holm ---------------------------------------------------------------------------------------


def test_mcnemar_worked_on_paper() -> None:
    """The first alone is right 6 times, the second alone once: 2 (C(7,0) + C(7,1)) / 2^7 = 16 / 128."""
    a = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0, 1], dtype=bool)
    b = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0, 1], dtype=bool)
    assert mcnemar_exact(a, b) == pytest.approx(0.125)
    assert mcnemar_exact(b, a) == pytest.approx(0.125)
    assert mcnemar_exact(a, a) == 1.0


@given(only_a=st.integers(0, 40), only_b=st.integers(0, 40), both=st.integers(0, 5))
def test_mcnemar_is_the_binomial_test(only_a: int, only_b: int, both: int) -> None:
    a = np.r_[np.ones(only_a), np.zeros(only_b), np.ones(both + 1)]
    b = np.r_[np.zeros(only_a), np.ones(only_b), np.ones(both + 1)]
    expected = oracle.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected)


def test_mcnemar_refuses_stacked_seeds_and_errors() -> None:
    with pytest.raises(DataError, match="one run each"):
        mcnemar_exact(np.ones((2, 5)), np.ones((2, 5)))
    with pytest.raises(DataError, match="0 and 1"):
        mcnemar_exact([0.5, 1.0], [0.0, 1.0])


def test_holm_worked_on_paper() -> None:
    """Sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, of which the last may not be below .06."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    assert holm([]).size == 0
    with pytest.raises(DataError, match="0 to 1"):
        holm([0.1, math.nan])


# --- the paired test ----------------------------------------------------------------------------------------


def runs_without_difference(
    draw: np.random.Generator, *, seeds: int, samples: int, of_seeds: float, of_samples: float
) -> Array:
    """(seeds, samples) differences of mean zero: a level per seed, one per sample, and noise of deviation
    1.
    """
    return (
        draw.normal(size=(seeds, 1)) * of_seeds / math.sqrt(samples)
        + draw.normal(size=(1, samples)) * of_samples
        + draw.normal(size=(seeds, samples))
    )


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "of_samples"),
    [(1, 0.0, 1.0), (3, 0.0, 1.0), (3, 1.0, 1.0), (5, 3.0, 1.0), (5, 1.0, 0.0), (2, 0.5, 1.0)],
)
def test_paired_bootstrap_errs_as_often_as_it_says(seeds: int, of_seeds: float, of_samples: float) -> None:
    """Either source of chance left out, or resampled percentiles, would err 10 to 40 % of the time in one of
    these.
    """
    draw, samples, count = generator(4), 100, 1500
    nothing, found = np.zeros((seeds, samples)), []
    for _ in range(count):
        a = runs_without_difference(
            draw, seeds=seeds, samples=samples, of_seeds=of_seeds, of_samples=of_samples
        )
        found.append(paired_bootstrap(a, nothing))
    p_values = np.array([each.p_value for each in found])
    covered = np.mean([each.low <= 0.0 <= each.high for each in found])
    assert 0.025 < (p_values < 0.05).mean() < 0.08
    assert covered == pytest.approx(1 - (p_values < 0.05).mean(), abs=1e-9)


def test_paired_bootstrap_finds_a_difference_that_is_there() -> None:
    draw = generator(5)
    noise = runs_without_difference(draw, seeds=3, samples=400, of_seeds=0.5, of_samples=1.0)
    found = paired_bootstrap(noise + 0.4, np.zeros_like(noise))
    assert found.p_value < 1e-4
    assert 0.1 < found.low < 0.4 < found.high


def test_with_one_seed_it_is_the_paired_t_test() -> None:
    a, b = generator(6).normal(size=(2, 30))
    found, expected = paired_bootstrap(a, b), oracle.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_with_no_chance_of_samples_it_is_the_t_test_over_seeds() -> None:
    levels = np.array([0.3, 0.1, 0.6, -0.1])
    found = paired_bootstrap(np.tile(levels[:, None], (1, 20)), np.zeros((4, 20)))
    assert found.p_value == pytest.approx(oracle.ttest_1samp(levels, 0.0).pvalue)


def test_two_seeds_of_three_samples_worked_on_paper() -> None:
    """Differences (0 3 6) and (0 6 12): means 3 and 6, s² = 4.5.

    Deviations (-3 0 3) and (-6 0 6): variances of the means 18/6 = 3 and 72/6 = 12, covariance 36/6 = 6. V =
    7.5, C = 6. First term (7.5 + 6) / 2 = 6.75, second (4.5 - 1.5) / 2 = 1.5; t = 4.5 / √8.25; freedom 8.25²
    / 2.25² > 2, so 2.
    """
    found = paired_bootstrap([[0.0, 3.0, 6.0], [0.0, 6.0, 12.0]], np.zeros((2, 3)))
    assert found.difference == pytest.approx(4.5)
    assert found.p_value == pytest.approx(2 * oracle.t.sf(4.5 / math.sqrt(8.25), 2))
    assert found.high - 4.5 == pytest.approx(oracle.t.ppf(0.975, 2) * math.sqrt(8.25))


def test_a_metric_of_rows_is_tested_as_the_closed_form_is() -> None:
    draw = generator(7)
    a, b = draw.normal(0.15, 1.0, size=(2, 3, 80)) + draw.normal(size=80)
    b = b - 0.2
    exact, drawn = (
        paired_bootstrap(a, b),
        paired_bootstrap(as_row_metric(a), as_row_metric(b), resamples=4000, seed=1),
    )
    assert drawn.difference == pytest.approx(exact.difference)
    assert drawn.high - drawn.low == pytest.approx(exact.high - exact.low, rel=0.05)
    assert drawn.p_value == pytest.approx(exact.p_value, rel=0.2)


@pytest.mark.parametrize("shape", [lambda scores: scores, as_row_metric], ids=["scores", "metric of rows"])
def test_the_order_of_the_two_turns_the_sign_alone(shape: Callable[[Array], Scores]) -> None:
    a, b = (shape(each) for each in generator(8).normal(size=(2, 2, 50)))
    one, other = paired_bootstrap(a, b, seed=3), paired_bootstrap(b, a, seed=3)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)
    assert paired_bootstrap(a, b, seed=3) == one


def test_equal_scores_do_not_differ() -> None:
    scores = generator(9).normal(size=(3, 20))
    assert paired_bootstrap(scores, scores).p_value == 1.0
    assert paired_bootstrap(np.ones(20), np.zeros(20)).p_value == pytest.approx(2.0**-19)


def test_resamples_are_those_of_scipy() -> None:
    """The same rows in the same order, so that any figure could be made again with it."""
    scores = generator().random(23)
    drawn: list[NDArray[np.int64]] = []

    def metric(rows: NDArray[np.int64]) -> float:
        drawn.append(rows)
        return float(scores[rows].mean())

    interval(RowMetric(runs=(metric,), samples=23), seed=5, resamples=40)
    found = oracle.bootstrap(
        (np.arange(23),),
        lambda rows, axis: scores[rows].mean(axis=axis),
        n_resamples=40,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(5),
    )
    ours = [scores[rows].mean() for rows in drawn[1:]]
    assert ours == pytest.approx(found.bootstrap_distribution, rel=1e-12)


def test_resamples_on_which_a_metric_is_undefined_are_left_out() -> None:
    values = generator(10).normal(10.0, 1.0, size=(1, 12))
    plain, nothing = as_row_metric(values), as_row_metric(np.zeros((1, 12)))
    sometimes = RowMetric(
        runs=(lambda rows: mean_of(values[0])(rows) if (rows == 0).any() else math.nan,), samples=12
    )
    found, expected = (paired_bootstrap(each, nothing) for each in (sometimes, plain))
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.3)
    assert found != expected
    with pytest.raises(DataError, match="b: the metric is not defined"):
        paired_bootstrap(plain, RowMetric(runs=(lambda _: math.nan,), samples=12))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            np.ones((2, 5)),
            np.ones((3, 5)),
            "b: expected scores of the same seeds and samples as a, 2 seeds of 5 samples, found 3 of 5",
        ),
        (np.ones((2, 5)), np.ones((2, 6)), "found 2 of 6"),
        (np.ones(5), as_row_metric(np.ones((1, 5))), "b: expected"),
        (np.ones((1, 1)), np.ones((1, 1)), r"a: .*two samples or more"),
        (np.ones((1, 1, 2)), np.ones((1, 1, 2)), "found shape"),
        (np.array([1.0, math.nan]), np.ones(2), "a: expected finite"),
        (RowMetric(runs=(), samples=3), np.ones(3), "a: expected one run or more"),
    ],
)
def test_what_cannot_be_paired_is_refused(a: Scores, b: Scores, message: str) -> None:
    with pytest.raises(DataError, match=message):
        paired_bootstrap(a, b)


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="confidence"):
        over_seeds([1.0, 2.0], confidence=95.0)
    with pytest.raises(ConfigError, match="resamples: expected 2 or more, found 1"):
        interval(as_row_metric(np.ones((1, 3))), resamples=1)
    with pytest.raises(ConfigError, match="level"):
        compare_to_best({"a": np.ones(3)}, higher_is_better=True, level=0.0)
    with pytest.raises(DataError, match="found none"):
        over_seeds([])


# --- the best of a column -----------------------------------------------------------------------------------


def correct(draw: np.random.Generator, accuracy: float, *, seeds: int = 3, samples: int = 300) -> Array:
    return (draw.random((seeds, samples)) < accuracy).astype(np.float64)


def marks(methods: dict[str, Scores], *, higher_is_better: bool = True) -> dict[str, str]:
    return {
        name: standing.mark
        for name, standing in compare_to_best(methods, higher_is_better=higher_is_better).items()
    }


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("shape", [lambda scores: scores, as_row_metric], ids=["scores", "metric of rows"])
def test_best_level_and_worse(seeds: int, shape: Callable[[Array], Scores]) -> None:
    draw = generator(11)
    best = correct(draw, 0.85, seeds=seeds)
    near = best.copy()
    near[:, :2] = 0.0
    methods = {"far": shape(correct(draw, 0.6, seeds=seeds)), "near": shape(near), "best": shape(best)}
    assert marks(methods) == {"far": "", "near": "level", "best": "best"}
    assert list(compare_to_best(methods, higher_is_better=True)) == ["far", "near", "best"]


def test_errors_are_best_where_they_are_least() -> None:
    draw = generator(12)
    methods: dict[str, Scores] = {"large": draw.random((2, 200)) + 0.5, "small": draw.random((2, 200))}
    assert marks(methods, higher_is_better=False) == {"large": "", "small": "best"}
    assert marks(methods) == {"large": "best", "small": ""}


def test_of_two_methods_the_p_value_is_that_of_the_paired_test() -> None:
    draw = generator(13)
    methods = {name: draw.normal(level, 1.0, size=(3, 100)) for name, level in (("a", 0.0), ("b", 0.5))}
    found = compare_to_best(methods, higher_is_better=True)
    assert found["a"].to_best == paired_bootstrap(methods["a"], methods["b"])
    assert found["a"].adjusted_p_value == paired_bootstrap(methods["a"], methods["b"]).p_value
    assert (found["b"].to_best, found["b"].adjusted_p_value, found["b"].told_from) == (None, None, None)


def test_p_values_are_adjusted_over_the_column() -> None:
    draw = generator(13)
    methods = {
        name: draw.normal(level, 1.0, size=(3, 100)) for name, level in (("a", 0.0), ("b", 0.5), ("c", 0.2))
    }
    found = compare_to_best(methods, higher_is_better=True)
    raw = [found[name].to_best.p_value for name in ("a", "c")]  # type: ignore[union-attr]
    assert [found[name].adjusted_p_value for name in ("a", "c")] == holm(raw).tolist()


def test_methods_that_no_seed_changes_have_no_part_in_what_seeds_vary_by() -> None:
    draw = generator(17)
    methods = {
        name: draw.normal(level, 1.0, size=(3, 100)) + draw.normal(0.0, 1.0, size=(3, 1))
        for name, level in (("a", 0.0), ("b", 0.5))
    }
    fixed = {name: np.tile(draw.normal(0.0, 1.0, size=100), (3, 1)) for name in ("c", "d")}
    alone = compare_to("a", methods)["b"]
    beside = compare_to("a", {**methods, **fixed}, fixed=("c", "d"))["b"]
    assert (beside.to_best, alone.adjusted_p_value) == (
        alone.to_best,
        beside.to_best and beside.to_best.p_value,
    )
    diluted = compare_to("a", {**methods, **fixed})["b"]
    assert diluted.to_best is not None
    assert beside.to_best is not None
    assert diluted.to_best.high - diluted.to_best.low < beside.to_best.high - beside.to_best.low
    # one method beside a fixed one: the variance of its own seeds, as in the test of the two alone
    pair = {"a": methods["a"], **fixed}
    found = compare_to("a", pair, fixed=("c", "d"))["c"].to_best
    by_itself = compare_to("a", {"a": methods["a"], "c": fixed["c"]})["c"].to_best
    assert found is not None
    assert by_itself is not None
    np.testing.assert_allclose(found.p_value, by_itself.p_value)


def test_what_seeds_vary_by_is_pooled_over_the_pairs_of_a_column() -> None:
    """Levels without chance of samples, (0 2), (4 4) and (9 7): pairs differ by (4 2), (9 5) and (5 3),
    variances 2, 8 and 2, mean 4.

    The standard error of each difference is √(4 / 2), with (3 - 1)(2 - 1) degrees of freedom; of the first
    pair alone it would be 1 with 1.
    """
    levels = {"a": (0.0, 2.0), "b": (4.0, 4.0), "c": (9.0, 7.0)}
    found = compare_to(
        "b", {name: np.tile(np.array(each)[:, None], (1, 20)) for name, each in levels.items()}
    )
    for name, difference in (("a", -3.0), ("c", 4.0)):
        told = found[name].to_best
        assert told is not None
        assert told.difference == pytest.approx(difference)
        assert told.p_value == pytest.approx(2 * oracle.t.sf(abs(difference) / math.sqrt(2.0), 2))
        assert found[name].told_from == pytest.approx(oracle.t.ppf(1 - 0.05 / 4, 2) * math.sqrt(2.0))
    assert found["b"].to_best is None
    with pytest.raises(DataError, match="b: the metric is not defined"):
        compare_to(
            "a",
            {"a": as_row_metric(np.ones((2, 9))), "b": RowMetric(runs=(lambda _: math.nan,) * 2, samples=9)},
        )


def test_a_wide_spread_does_not_make_a_bad_method_level() -> None:
    """Two seeds, .795 the best: .70 of no spread is worse, and so is .625 of wide spread, which by itself
    would be level.
    """
    order = generator(23).permutation((np.arange(300) + 0.5) / 300)
    shares = {"best": (0.80, 0.79), "narrow": (0.70, 0.70), "wide": (0.67, 0.58)}
    shares |= {f"near {number}": ((0.78, 0.79), (0.79, 0.78))[number % 2] for number in range(4)}
    methods = {
        name: np.stack([(order < share).astype(np.float64) for share in both])
        for name, both in shares.items()
    }
    assert paired_bootstrap(methods["wide"], methods["best"]).p_value > 0.05
    found = marks(methods)
    assert (found["narrow"], found["wide"]) == ("", "")
    assert {found[f"near {number}"] for number in range(4)} == {"level"}


def test_one_seed_of_right_and_wrong_is_tested_exactly() -> None:
    """Six samples that one alone gets right are just enough (2 / 64), five are not (2 / 32), whatever a
    t-test says.
    """
    best = np.ones(200)
    five, six = best.copy(), best.copy()
    five[:5], six[:6] = 0.0, 0.0
    assert paired_bootstrap(five, best).p_value < 0.05
    assert marks({"best": best, "five": five}) == {"best": "best", "five": "level"}
    found = compare_to_best({"best": best, "six": six}, higher_is_better=True)["six"]
    assert (found.mark, found.adjusted_p_value) == ("", pytest.approx(2 / 64))


def test_equal_means_are_all_best() -> None:
    draw = generator(14)
    scores = correct(draw, 0.8)
    turned = scores[:, ::-1].copy()
    assert marks({"a": scores, "b": turned, "c": scores - 1.0}) == {"a": "best", "b": "best", "c": ""}


def test_an_undefined_metric_goes_unmarked() -> None:
    scores = as_row_metric(generator(15).normal(size=(2, 20)))
    undefined = RowMetric(runs=(lambda _: math.nan, mean_of(np.ones(20))), samples=20)
    assert marks({"a": undefined, "b": scores}) == {"a": "", "b": "best"}
    assert marks({"a": undefined}) == {"a": ""}
    assert marks({"a": np.ones((2, 0))}) == {"a": ""}
    assert marks({}) == {}


def test_a_method_of_other_seeds_is_named() -> None:
    with pytest.raises(
        DataError, match="mult: expected scores of the same seeds and samples as alignmamba, 3 seeds"
    ):
        compare_to_best({"alignmamba": np.ones((3, 4)), "mult": np.ones((2, 4))}, higher_is_better=True)


def test_a_method_as_good_as_any_is_seldom_left_unmarked() -> None:
    """Six methods that do not differ: each loses its mark in no more than 5 % of columns, though the best is
    picked by its luck.
    """
    draw, columns, lost = generator(16), 400, 0
    for _ in range(columns):
        level = draw.normal(size=100)
        found = marks({str(name): level + draw.normal(size=(3, 100)) for name in range(6)})
        lost += sum(mark == "" for mark in found.values())
    assert lost / (6 * columns) < 0.05


# --- from predictions ---------------------------------------------------------------------------------------

SENTIMENT = Task(kind="regression", label_range=(-3.0, 3.0))
FOUR = Task(kind="classification", classes=("a", "b", "c", "d"))


def sentiment_runs(seeds: int = 2, samples: int = 40) -> list[Predictions]:
    draw = generator(17)
    truth = np.round(draw.uniform(-3, 3, samples))
    ids = tuple(map(str, range(samples)))
    return [
        Predictions(ids=ids, prediction=truth + draw.normal(size=samples), targets=truth)
        for _ in range(seeds)
    ]


def four_runs(seeds: int = 2, samples: int = 40) -> list[Predictions]:
    draw = generator(18)
    truth = draw.integers(0, 4, samples)
    ids = tuple(map(str, range(samples)))
    noise = draw.normal(size=(seeds, samples, 4))
    return [Predictions(ids=ids, prediction=np.eye(4)[truth] + each, targets=truth) for each in noise]


@pytest.mark.parametrize(
    ("task", "runs"),
    [(SENTIMENT, sentiment_runs()), (FOUR, four_runs())],
    ids=["regression", "classification"],
)
def test_scores_are_those_of_the_metrics(task: Task, runs: list[Predictions]) -> None:
    kinds = set()
    for metric in score(task, runs[0]):
        scores = scores_of(task, runs, metric)
        kinds.add(isinstance(scores, RowMetric))
        means = (
            [run(np.arange(40)) for run in scores.runs]
            if isinstance(scores, RowMetric)
            else np.asarray(scores).mean(axis=1)
        )
        assert list(means) == pytest.approx([score(task, run)[metric] for run in runs]), metric
    assert kinds == {True, False}


def test_runs_of_other_samples_are_refused() -> None:
    run = sentiment_runs(seeds=1)[0]
    turned = Predictions(ids=run.ids[::-1], prediction=run.prediction[::-1], targets=run.targets)
    with pytest.raises(DataError, match="same samples in the same order"):
        scores_of(SENTIMENT, [run, turned], "mae")
    with pytest.raises(DataError, match="found none"):
        scores_of(SENTIMENT, [], "mae")


# --- in words -----------------------------------------------------------------------------------------------


def test_power_of_the_test_split_of_mosi() -> None:
    """√(.869 x .131 / 656) = .01317; 1.96 √(.1 / 656) = .0242; 1.96 √2 x .01317 = .0365."""
    assert (
        power_note("MOSI", 656, 0.869)
        == "MOSI: with 656 test samples and an accuracy of 86.9 %, one standard error is 1.3 points; two"
        " single runs on the same samples need a difference of 2.4 points if they disagree on a tenth of the"
        " samples, and 3.7 if their errors are independent, to differ at the 5 % level."
    )


def test_power_where_errors_are_rare() -> None:
    note = power_note("GRID", 1000, 0.99)
    assert "0.9 points if their errors are independent, and 2.0 if they disagree on a tenth" in note


def test_notes_tell_the_test() -> None:
    assert "McNemar" in marks_note(seeds=1)
    assert "McNemar" not in marks_note(seeds=3)
    assert "1 %" in marks_note(seeds=3, level=0.01)


def test_notes_tell_what_the_test_can_tell() -> None:
    draw = generator(24)
    methods = {name: correct(draw, 0.8, seeds=3, samples=70) for name in ("a", "b")}
    standings = compare_to_best(methods, higher_is_better=True)
    (told,) = [each.told_from for each in standings.values() if each.told_from is not None]
    assert (
        reach_note("accuracy", standings, seeds=3, samples=70)
        == "accuracy: with 3 seeds and 70 test samples the test distinguishes a method"
        " from the best if they differ"
        f" by about {told:.3f} or more; what differs by less is level."
    )
    assert reach_note("accuracy", {}, seeds=0, samples=70) == ""
    assert "alone" not in interval_note(fewest=3)
    assert "over the test samples alone" in interval_note(fewest=2)


def test_without_scipy_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert find_spec("scipy") is None
    with pytest.raises(
        ConfigError,
        match=r"^statistics: scipy is not installed, try: pip install 'alignmamba\[experiments\]'$",
    ):
        over_seeds([1.0, 2.0, 4.0])


def test_few_samples_are_never_certain() -> None:
    """Three samples, one method always right, the other never: a coin falls so one time in four."""
    right = {"a": np.ones((3, 3)), "b": np.zeros((3, 3))}
    assert compare_to("a", right)["b"].adjusted_p_value == pytest.approx(0.25)
    assert compare_to_best(right, higher_is_better=True)["b"].mark == "level"
    one_run = compare_to("a", {"a": np.ones((1, 5)), "b": np.zeros((1, 5))})
    assert one_run["b"].told_from == math.inf, "McNemar's p is .06"
    two = paired_bootstrap(np.ones((1, 2)), np.zeros((1, 2)))
    assert (two.p_value, two.low, two.high) == (0.5, -math.inf, math.inf)
    of_folds = interval(np.ones((3, 3)), bounds=SHARE, inflation=4.0)
    assert of_folds.low == pytest.approx(0.025), "as of one sample"


def test_errors_that_cancel_make_no_mean_certain() -> None:
    """Of two seeds one is right where the other is wrong: every resample has a mean of a half."""
    first = np.repeat([1.0, 0.0], 6)
    found = interval(np.stack([first, 1 - first]), bounds=SHARE)
    assert found.mean == 0.5
    assert found.low is not None
    assert found.low == pytest.approx(interval(first[np.tile([0, 6], 12)], bounds=SHARE).low, abs=0.05)


def test_the_difference_of_methods_without_seeds_is_one_of_samples() -> None:
    """However much others vary over seeds, and however little these two over samples."""
    draw = generator(5)
    wild = {name: draw.normal(size=(2, 1)) * 50 + draw.normal(size=(2, 30)) for name in ("x", "y")}
    line = np.tile(draw.normal(size=30), (2, 1))
    methods = {**wild, "line": line, "constant": line - 3 + 0.1 * np.tile(draw.normal(size=30), (2, 1))}
    found = compare_to("line", methods, fixed=("line", "constant"))["constant"]
    assert found.to_best is not None
    assert found.to_best.p_value < 1e-20
    # where a seed does change them, as by what it withholds, their own part counts
    drawn = np.stack([line[0], line[1] + 1])
    given = compare_to("line", {**methods, "constant": drawn}, fixed=("line", "constant"))["constant"]
    assert given.to_best is not None
    assert given.to_best.p_value == pytest.approx(paired_bootstrap(drawn, line).p_value)
    assert found.to_best.p_value == pytest.approx(paired_bootstrap(methods["constant"][0], line[0]).p_value)


def test_seeds_have_at_least_their_own_degrees_of_freedom() -> None:
    """A pair that varies less than the others of its column is not less certain than seeds leave it."""
    assert error_of(1e-9, Parts(0.0, 1.0, 1.5), 4.0, 3, 40)[1] == 4.0
    assert error_of(2.0, Parts(0.0, 1.0, 1.5), 4.0, 3, 40)[1] > 4.0


@pytest.mark.parametrize(("more", "mark"), [(5, "level"), (6, "level"), (7, "")])
def test_one_seed_is_told_from_the_best_as_by_its_exact_test(more: int, mark: str) -> None:
    """Of 16 samples, seven that only the best has right are worth 2 / 2^7, below .05 / 2 of two methods."""
    best, worse = (np.array([1.0] * right + [0.0] * (16 - right)) for right in (15, 15 - more))
    found = compare_to_best({"best": best, "worse": worse, "same": best}, higher_is_better=True)["worse"]
    assert (found.mark, found.told_from) == (mark, pytest.approx(7 / 16))


def test_notes_promise_no_difference_beyond_the_range() -> None:
    standings = compare_to("a", {"a": np.array([[1.0, 0, 1]]), "b": np.array([[0.0, 1, 0]])})
    said = reach_note("accuracy", standings, seeds=1, samples=3, widest=1.0)
    assert said.endswith("distinguishes no method from the best, however far apart they are.")


# --- samples in groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [np.asarray, as_row_metric])
def test_a_sample_that_comes_twice_is_no_second_one(shape: Callable[[Array], Scores]) -> None:
    once = generator(3).normal(size=(3, 60))
    groups = np.repeat(np.arange(60), 2)
    other = once + generator(4).normal(0.3, 1, size=once.shape)

    def grouped(values: Array) -> Grouped:
        return Grouped(scores=shape(np.repeat(values, 2, axis=1)), groups=groups)  # type: ignore[arg-type]

    alone, in_pairs = interval(shape(once)), interval(grouped(once))
    assert (in_pairs.low, in_pairs.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    assert paired_bootstrap(grouped(once), grouped(other)).p_value == pytest.approx(
        paired_bootstrap(shape(once), shape(other)).p_value
    )


def test_two_groups_worked_on_paper() -> None:
    """Of 1, 1, 0 and 0, 0 the mean is .4: influences .8 and -.8 of groups of 3 and 2, variance 2 / 1 times
    their squares over 5², .0512.
    """
    found = interval(Grouped(scores=np.array([1.0, 1, 0, 0, 0]), groups=np.array([0, 0, 0, 1, 1])))
    reach = 12.706205 * math.sqrt(0.0512 * 2)
    assert found.high == pytest.approx(0.4 + reach, rel=1e-6)


@pytest.mark.parametrize("grouped", [True, False])
def test_intervals_and_tests_of_new_groups_hold_where_whole_groups_are_drawn(grouped: bool) -> None:
    """20 speakers of 20 samples, of whom each is harder or easier for each method."""
    draw, hits, wrong, runs = generator(8), 0, 0, 400
    groups = np.repeat(np.arange(20), 20)
    nodes = draw.normal(size=200_000)
    truth = float((1 / (1 + np.exp(-(0.8 + 0.8 * nodes)))).mean())
    for _ in range(runs):
        chance = 1 / (1 + np.exp(-(0.8 + 0.8 * draw.normal(size=(2, 20)))))
        right = (draw.random((2, 400)) < np.repeat(chance, 20, axis=1)).astype(np.float64)
        a, b = (Grouped(scores=each[None], groups=groups) if grouped else each[None] for each in right)
        found = interval(a, bounds=SHARE)
        hits += found.low <= truth <= found.high  # type: ignore[operator]
        wrong += paired_bootstrap(a, b).p_value < 0.05
    covered, erred = hits / runs, wrong / runs
    assert (0.90 <= covered <= 0.99 and erred <= 0.08) if grouped else (covered < 0.85 and erred > 0.12)


@pytest.mark.parametrize("metric", ["mae", "acc2_non0", "f1_non0", "corr"])
def test_groups_are_those_of_the_samples_that_have_a_score(metric: str) -> None:
    draw = generator(5)
    truth = np.round(draw.normal(size=60))
    run = Predictions(ids=tuple(map(str, range(60))), prediction=truth + draw.normal(size=60), targets=truth)
    task = Task(kind="regression", label_range=(-3.0, 3.0))
    groups = {identity: f"speaker {int(identity) % 12}" for identity in run.ids}
    found = scores_of(task, [run, run], metric, groups=groups)
    assert isinstance(found, Grouped)
    assert math.isfinite(interval(found, bounds=UNBOUNDED).high or math.nan)
    few = {identity: f"speaker {int(identity) % 9}" for identity in run.ids}
    assert not isinstance(scores_of(task, [run, run], metric, groups=few), Grouped)
    known = replace(run, targets=np.where(np.arange(60) % 12 < 9, truth, np.nan))
    assert not isinstance(scores_of(task, [known], metric, groups=groups), Grouped), "of nine speakers"


def test_one_seed_in_groups_has_no_exact_test() -> None:
    right = {"a": np.array([[1.0, 0] * 20]), "b": np.ones((1, 40))}
    pairs = {name: Grouped(scores=each, groups=np.arange(40) // 2) for name, each in right.items()}
    exact = compare_to("b", right)["a"].adjusted_p_value
    assert exact == pytest.approx(mcnemar_exact(right["a"][0], right["b"][0]))
    assert compare_to("b", pairs)["a"].adjusted_p_value == pytest.approx(2.0**-19), (
        "every group has one right of two, as a coin that falls on one side 20 times"
    )
    with pytest.raises(DataError, match="groups: expected one for each of 40 samples, found 20"):
        Grouped(scores=np.ones((1, 40)), groups=np.arange(20))
    with pytest.raises(DataError, match="groups: expected samples of two or more, found one"):
        interval(Grouped(scores=np.ones((1, 40)), groups=np.zeros(40, dtype=np.int64)))


# --- folds that share training samples ----------------------------------------------------------------------


def test_the_correction_of_folds_worked_on_paper() -> None:
    """Of 5 folds one tests and three train: (1/5 + 1/3) / (1/5) = 8/3; of 3 folds (1/3 + 1) / (1/3) = 4."""
    assert fold_inflation(0) == 1
    assert fold_inflation(5) == pytest.approx(8 / 3)
    assert fold_inflation(3) == pytest.approx(4)
    assert "2.67 times" in folds_note(5)
    with pytest.raises(ConfigError, match="folds: expected 3 or more, found 2"):
        fold_inflation(2)


def test_folds_widen_intervals_and_tests_by_the_part_of_the_samples() -> None:
    values = generator().normal(size=(1, 200))
    plain, folded = (interval(values, inflation=factor) for factor in (1.0, 4.0))
    assert folded.high is not None and folded.low is not None and plain.high is not None  # noqa: PT018
    assert folded.high - folded.mean == pytest.approx(2 * (plain.high - plain.mean))
    seeds = {"a": generator(1).normal(size=(3, 200)), "b": generator(2).normal(0.2, 1, size=(3, 200))}
    apart, wider = (compare_to("a", seeds, inflation=factor)["b"] for factor in (1.0, 4.0))
    assert apart.adjusted_p_value is not None and wider.adjusted_p_value is not None  # noqa: PT018
    assert wider.adjusted_p_value > apart.adjusted_p_value
    best = compare_to_best(seeds, higher_is_better=True, inflation=4.0)
    assert best["a"].adjusted_p_value == pytest.approx(wider.adjusted_p_value)


def test_no_test_of_folds_is_exact() -> None:
    right = {"a": np.repeat([[1.0, 0.0]], 50, axis=0).reshape(1, 100), "b": np.ones((1, 100))}
    exact = compare_to("b", right)["a"].adjusted_p_value
    assert exact == pytest.approx(mcnemar_exact(right["a"][0], right["b"][0]))
    corrected = compare_to("b", right, inflation=fold_inflation(3))["a"].adjusted_p_value
    assert corrected is not None
    assert corrected > float(exact or 0)
    assert "McNemar" not in marks_note(seeds=1, exact=False)
    allright = interval(np.ones((1, 100)), bounds=(0.0, 1.0), inflation=4.0)
    assert allright.low == pytest.approx(0.025 ** (1 / 25))
