import math
import sys
from collections.abc import Callable
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
from alignmamba.evaluation.statistics import (
    RowMetric,
    Scores,
    bootstrap_interval,
    compare_to_best,
    holm,
    marks_note,
    mcnemar_exact,
    over_seeds,
    paired_bootstrap,
    power_note,
    scores_of,
)

Array = NDArray[np.float64]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean_of(values: Array) -> Callable[[NDArray[np.int64]], float]:
    return lambda rows: float(values[rows].mean())


def as_row_metric(scores: Array) -> RowMetric:
    """The same scores, of which nothing is known but their mean over rows."""
    return RowMetric(runs=tuple(mean_of(run) for run in scores), samples=scores.shape[1])


# --- over seeds ------------------------------------------------------------------------------------------------------


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


# --- over samples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_bootstrap_interval_is_that_of_scipy(method: str) -> None:
    """On skewed data, where the two kinds differ by more than the tolerance."""
    values = generator().exponential(size=40) ** 2
    found = bootstrap_interval(mean_of(values), 40, seed=1, resamples=20_000, method=method)  # type: ignore[arg-type]
    expected = oracle.bootstrap((values,), np.mean, n_resamples=20_000, method=method, rng=generator(2)).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), rel=0.03)
    other = bootstrap_interval(mean_of(values), 40, seed=1, resamples=20_000, method="percentile" if method == "bca" else "bca")
    assert abs(other[1] - found[1]) > 0.06 * found[1]


def test_bootstrap_interval_of_an_accuracy_is_that_of_scipy() -> None:
    """Many resamples of an accuracy equal the one observed; half of them count as below it."""
    values = np.r_[np.ones(17), np.zeros(3)]
    found = bootstrap_interval(mean_of(values), 20, seed=1, confidence=0.8, resamples=20_000)
    expected = oracle.bootstrap((values,), np.mean, confidence_level=0.8, n_resamples=20_000, rng=generator(2)).confidence_interval
    assert found == pytest.approx((expected.low, expected.high))


def test_bootstrap_interval_covers() -> None:
    draw, truth, hits = generator(3), 0.6, 0
    for number in range(250):
        x = draw.normal(size=60)
        y = truth * x + 0.8 * draw.normal(size=60)
        low, high = bootstrap_interval(lambda rows, x=x, y=y: float(np.corrcoef(x[rows], y[rows])[0, 1]), 60, seed=number, resamples=300)
        hits += low < truth < high
    assert 0.90 < hits / 250 < 0.98


def test_bootstrap_interval_goes_by_its_seed() -> None:
    values = generator().normal(size=30)
    first, again, other = (bootstrap_interval(mean_of(values), 30, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_bootstrap_interval_without_errors_has_no_width() -> None:
    assert bootstrap_interval(mean_of(np.ones(20)), 20, seed=0) == (1.0, 1.0)


def test_bootstrap_leaves_out_what_is_undefined() -> None:
    """Three samples, and a statistic that needs the first: 8 of 27 resamples lack it."""

    def needs_first(rows: NDArray[np.int64]) -> float:
        return float(rows.mean()) if (rows == 0).any() else math.nan

    low, high = bootstrap_interval(needs_first, 3, seed=0)
    assert 0.0 <= low < high <= 4 / 3
    with pytest.raises(DataError, match="not defined"):
        bootstrap_interval(lambda _: math.nan, 3, seed=0)
    with pytest.raises(DataError, match="any of 2000 resamples"):
        bootstrap_interval(lambda rows: 1.0 if list(rows) == list(range(50)) else math.nan, 50, seed=0)


# --- McNemar and Holm ------------------------------------------------------------------------------------------------


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


# --- the paired test -------------------------------------------------------------------------------------------------


def runs_without_difference(draw: np.random.Generator, *, seeds: int, samples: int, of_seeds: float, of_samples: float) -> Array:
    """(seeds, samples) differences of mean zero: a level per seed, one per sample, and noise of deviation 1."""
    return (
        draw.normal(size=(seeds, 1)) * of_seeds / math.sqrt(samples)
        + draw.normal(size=(1, samples)) * of_samples
        + draw.normal(size=(seeds, samples))
    )


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "of_samples"), [(1, 0.0, 1.0), (3, 0.0, 1.0), (3, 1.0, 1.0), (5, 3.0, 1.0), (5, 1.0, 0.0), (2, 0.5, 1.0)]
)
def test_paired_bootstrap_errs_as_often_as_it_says(seeds: int, of_seeds: float, of_samples: float) -> None:
    """Either source of chance left out, or resampled percentiles, would err 10 to 40 % of the time in one of these."""
    draw, samples, count = generator(4), 100, 1500
    nothing, found = np.zeros((seeds, samples)), []
    for _ in range(count):
        a = runs_without_difference(draw, seeds=seeds, samples=samples, of_seeds=of_seeds, of_samples=of_samples)
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

    Deviations (-3 0 3) and (-6 0 6): variances of the means 18/6 = 3 and 72/6 = 12, covariance 36/6 = 6. V = 7.5, C = 6.
    First term (7.5 + 6) / 2 = 6.75, second (4.5 - 1.5) / 2 = 1.5; t = 4.5 / √8.25; freedom 8.25² / 2.25² > 2, so 2.
    """
    found = paired_bootstrap([[0.0, 3.0, 6.0], [0.0, 6.0, 12.0]], np.zeros((2, 3)))
    assert found.difference == pytest.approx(4.5)
    assert found.p_value == pytest.approx(2 * oracle.t.sf(4.5 / math.sqrt(8.25), 2))
    assert found.high - 4.5 == pytest.approx(oracle.t.ppf(0.975, 2) * math.sqrt(8.25))


def test_a_metric_of_rows_is_tested_as_the_closed_form_is() -> None:
    draw = generator(7)
    a, b = draw.normal(0.15, 1.0, size=(2, 3, 80)) + draw.normal(size=80)
    b = b - 0.2
    exact, drawn = paired_bootstrap(a, b), paired_bootstrap(as_row_metric(a), as_row_metric(b), resamples=4000, seed=1)
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
    assert paired_bootstrap(np.ones(20), np.zeros(20)).p_value == 0.0


def test_resamples_on_which_a_metric_is_undefined_are_left_out() -> None:
    values = generator(10).normal(10.0, 1.0, size=(1, 12))
    plain, nothing = as_row_metric(values), as_row_metric(np.zeros((1, 12)))
    sometimes = RowMetric(runs=(lambda rows: mean_of(values[0])(rows) if (rows == 0).any() else math.nan,), samples=12)
    found, expected = (paired_bootstrap(each, nothing) for each in (sometimes, plain))
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.3)
    assert found != expected
    with pytest.raises(DataError, match="b: the metric is not defined"):
        paired_bootstrap(plain, RowMetric(runs=(lambda _: math.nan,), samples=12))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((2, 5)), np.ones((3, 5)), "b: expected scores of the same seeds and samples as a, 2 seeds of 5 samples, found 3 of 5"),
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
        bootstrap_interval(mean_of(np.ones(3)), 3, seed=0, resamples=1)
    with pytest.raises(ConfigError, match="level"):
        compare_to_best({"a": np.ones(3)}, higher_is_better=True, level=0.0)
    with pytest.raises(DataError, match="found none"):
        over_seeds([])


# --- the best of a column --------------------------------------------------------------------------------------------


def correct(draw: np.random.Generator, accuracy: float, *, seeds: int = 3, samples: int = 300) -> Array:
    return (draw.random((seeds, samples)) < accuracy).astype(np.float64)


def marks(methods: dict[str, Scores], *, higher_is_better: bool = True) -> dict[str, str]:
    return {name: standing.mark for name, standing in compare_to_best(methods, higher_is_better=higher_is_better).items()}


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


def test_p_values_are_those_of_the_paired_test_adjusted_over_the_column() -> None:
    draw = generator(13)
    methods = {name: draw.normal(level, 1.0, size=(3, 100)) for name, level in (("a", 0.0), ("b", 0.5), ("c", 0.2))}
    found = compare_to_best(methods, higher_is_better=True)
    raw = [paired_bootstrap(methods[name], methods["b"]) for name in ("a", "c")]
    assert [found[name].to_best for name in ("a", "c")] == raw
    assert [found[name].adjusted_p_value for name in ("a", "c")] == holm([each.p_value for each in raw]).tolist()
    assert (found["b"].to_best, found["b"].adjusted_p_value) == (None, None)


def test_one_seed_of_right_and_wrong_is_tested_exactly() -> None:
    """Six samples that one alone gets right are just enough (2 / 64), five are not (2 / 32), whatever a t-test says."""
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
    with pytest.raises(DataError, match="mult: expected scores of the same seeds and samples as alignmamba, 3 seeds"):
        compare_to_best({"alignmamba": np.ones((3, 4)), "mult": np.ones((2, 4))}, higher_is_better=True)


def test_a_method_as_good_as_any_is_seldom_left_unmarked() -> None:
    """Six methods that do not differ: each loses its mark in no more than 5 % of columns, though the best is picked by its luck."""
    draw, columns, lost = generator(16), 400, 0
    for _ in range(columns):
        level = draw.normal(size=100)
        found = marks({str(name): level + draw.normal(size=(3, 100)) for name in range(6)})
        lost += sum(mark == "" for mark in found.values())
    assert lost / (6 * columns) < 0.05


# --- from predictions ------------------------------------------------------------------------------------------------

SENTIMENT = Task(kind="regression", label_range=(-3.0, 3.0))
FOUR = Task(kind="classification", classes=("a", "b", "c", "d"))


def sentiment_runs(seeds: int = 2, samples: int = 40) -> list[Predictions]:
    draw = generator(17)
    truth = np.round(draw.uniform(-3, 3, samples))
    ids = tuple(map(str, range(samples)))
    return [Predictions(ids=ids, prediction=truth + draw.normal(size=samples), targets=truth) for _ in range(seeds)]


def four_runs(seeds: int = 2, samples: int = 40) -> list[Predictions]:
    draw = generator(18)
    truth = draw.integers(0, 4, samples)
    ids = tuple(map(str, range(samples)))
    noise = draw.normal(size=(seeds, samples, 4))
    return [Predictions(ids=ids, prediction=np.eye(4)[truth] + each, targets=truth) for each in noise]


@pytest.mark.parametrize(("task", "runs"), [(SENTIMENT, sentiment_runs()), (FOUR, four_runs())], ids=["regression", "classification"])
def test_scores_are_those_of_the_metrics(task: Task, runs: list[Predictions]) -> None:
    kinds = set()
    for metric in score(task, runs[0]):
        scores = scores_of(task, runs, metric)
        kinds.add(isinstance(scores, RowMetric))
        means = [run(np.arange(40)) for run in scores.runs] if isinstance(scores, RowMetric) else np.asarray(scores).mean(axis=1)
        assert list(means) == pytest.approx([score(task, run)[metric] for run in runs]), metric
    assert kinds == {True, False}


def test_runs_of_other_samples_are_refused() -> None:
    run = sentiment_runs(seeds=1)[0]
    turned = Predictions(ids=run.ids[::-1], prediction=run.prediction[::-1], targets=run.targets)
    with pytest.raises(DataError, match="same samples in the same order"):
        scores_of(SENTIMENT, [run, turned], "mae")
    with pytest.raises(DataError, match="found none"):
        scores_of(SENTIMENT, [], "mae")


# --- in words --------------------------------------------------------------------------------------------------------


def test_power_of_the_test_split_of_mosi() -> None:
    """√(.869 x .131 / 656) = .01317; 1.96 √(.1 / 656) = .0242; 1.96 √2 x .01317 = .0365."""
    assert power_note("MOSI", 656, 0.869) == (
        "MOSI: with 656 test samples and an accuracy of 86.9 %, one standard error is 1.3 points; two single runs on the same samples "
        "must lie 2.4 points apart if they disagree on a tenth of the samples, and 3.7 if their errors are independent, to "
        "differ at the 5 % level."
    )


def test_power_where_errors_are_rare() -> None:
    note = power_note("GRID", 1000, 0.99)
    assert "0.9 points apart if their errors are independent, and 2.0 if they disagree on a tenth" in note


def test_notes_tell_the_test() -> None:
    assert "McNemar" in marks_note(seeds=1)
    assert "McNemar" not in marks_note(seeds=3)
    assert "1 %" in marks_note(seeds=3, level=0.01)


def test_without_scipy_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert find_spec("scipy") is None
    with pytest.raises(ConfigError, match=r"^statistics: scipy is not installed, try: pip install 'alignmamba\[experiments\]'$"):
        over_seeds([1.0, 2.0])
