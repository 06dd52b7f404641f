"""What differs by more than chance: intervals over seeds and over samples, paired tests, the best of a
column.

A result has two sources of chance, the samples of the test split and the seeds of training. `interval` and
`paired_bootstrap` look at both, by one decomposition of the variance; `over_seeds` knows the seeds alone. All
of it is float64, and the same input and seed give the same numbers.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignmamba.contracts import Predictions, Task
from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.metrics import row_metric, sample_scores
from alignmamba.extras import require

Statistic = Callable[[NDArray[np.int64]], float]
"""A number computed of the samples at the given rows; a row may come more than once."""
Mark = Literal["best", "level", ""]
"""``best``: the best mean of its column; ``level``: not significantly worse than the best."""

# Resamples are drawn and looked at in pieces of about this many row indices.
_PIECE = 2_000_000
# Two means that differ by less than rounding are one.
_SAME = 1e-12

FEWEST_SEEDS: Final = 3
"""Seeds from which on an interval counts what they vary by: of two it would say next to nothing."""
UNBOUNDED: Final = (-math.inf, math.inf)
"""Range of a number that may be anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds and what it may be trusted for."""

    mean: float
    deviation: float | None
    """Standard deviation of the values (n - 1 in the denominator); None for a single one."""
    low: float | None
    """Lower end of the confidence interval of the mean; None where too little is known for one."""
    high: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMetric:
    """A metric that is no mean over samples, of one method's runs on the same samples."""

    runs: tuple[Statistic, ...]
    """One per seed."""
    samples: int
    """How many rows there are."""


Scores: TypeAlias = ArrayLike | RowMetric
"""What one method scored: (seeds, samples), or (samples,) for one seed, of per-sample scores; or a metric of
rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What separates two methods, the first minus the second."""

    difference: float
    low: float
    high: float
    p_value: float
    """Two-sided, of no difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The place of a method in its column."""

    mark: Mark
    to_best: Difference | None
    """The method minus the best; None for the best itself, and for a method whose metric is not defined."""
    adjusted_p_value: float | None
    """After Holm's correction over the column; None where ``to_best`` is."""
    told_from: float | None = None
    """Difference to the best from which it would be told apart at the first and strictest step of Holm's
    correction, about."""


# Intervals


def over_seeds(
    values: ArrayLike, *, bounds: tuple[float, float] = UNBOUNDED, confidence: float = 0.95
) -> Estimate:
    """Mean of one value per seed, with Student's interval over the seeds: mean ± t(n - 1) s / √n.

    Args:
        values: (n,). Where one of them is NaN, so is the mean, and nothing else is known.
        bounds: Least and largest possible value; the interval is made on the scale of `interval` and stays
            between them.
        confidence: How often the interval shall cover the mean over all possible seeds.

    Returns:
        Of fewer than `FEWEST_SEEDS` values, the mean and deviation without an interval.

    Raises:
        ConfigError: If `confidence` is not between 0 and 1.
        DataError: If there is no value.

    Source:
        Student, The probable error of a mean, Biometrika 6 (1908).
    """
    _refuse_outside("confidence", confidence)
    numbers = np.asarray(values, dtype=np.float64).ravel()
    if not numbers.size:
        raise DataError("values: expected one per seed, found none")
    n, mean = numbers.size, float(numbers.mean())
    if n == 1 or not math.isfinite(mean):
        return Estimate(mean=mean, deviation=None, low=None, high=None, n=n)
    deviation = float(numbers.std(ddof=1))
    if n < FEWEST_SEEDS:
        return Estimate(mean=mean, deviation=deviation, low=None, high=None, n=n)
    low, high = _ends(mean, deviation / math.sqrt(n), n - 1.0, bounds, confidence)
    return Estimate(mean=mean, deviation=deviation, low=low, high=high, n=n)


def interval(
    scores: Scores,
    *,
    bounds: tuple[float, float] = UNBOUNDED,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> Estimate:
    """Mean of a metric over seeds, with an interval over seeds and samples that stays within the metric's
    range.

    The variance of the mean is that of `paired_bootstrap`, of one method in place of a difference. With fewer
    than `FEWEST_SEEDS` seeds it is the part of the samples alone, and the interval then speaks of these
    trained models, not of the method.

    The interval is Student's on a scale without ends, mapped back: the logit of the place within the range,
    log for a range with one end, the value itself for one without. Of a correlation, from -1 to 1, that is
    twice Fisher's z. At an end of a range the scale has no place for the value. If all n samples are right,
    the interval reaches from ``(α / 2)^(1 / n)`` of the range on, as for a share of n.

    Args:
        scores: Per-sample scores, (seeds, samples) or (samples,), or a metric of rows.
        bounds: Least and largest possible value of the metric.
        confidence: How often the interval shall cover the mean over all possible seeds and samples.
        seed: Of the resamples, for a metric of rows.
        resamples: How many, for a metric of rows.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: If there are fewer than two samples, or the metric is not defined on them or on their
            resamples.

    Source:
        Both sources of chance in one interval: Bouthillier et al., Accounting for variance in machine
        learning benchmarks, MLSys (2021). Covariance over samples by bootstrap: Efron and Tibshirani, An
        introduction to the bootstrap (1993), chapter 6. Intervals on another scale and mapped back: ibid.,
        section 12.6. All right: Clopper and Pearson, Biometrika 26 (1934).
    """
    _refuse_outside("confidence", confidence)
    runs = _measure("scores", scores, seed=seed, resamples=resamples)
    if not runs.defined:
        raise DataError("scores: the metric is not defined (NaN) on these samples")
    seeds = runs.observed.size
    parts = _parts(runs.observed, runs.spread, runs.scale)
    between = parts if seeds >= FEWEST_SEEDS else None
    error, freedom = _error(parts.of_samples, between, seeds - 1.0, seeds, runs.samples)
    low, high = _ends(runs.mean, error, freedom, bounds, confidence, samples=runs.samples)
    deviation = float(runs.observed.std(ddof=1)) if seeds > 1 else None
    return Estimate(mean=runs.mean, deviation=deviation, low=low, high=high, n=seeds)


def _ends(
    mean: float,
    error: float,
    freedom: float,
    bounds: tuple[float, float],
    confidence: float,
    *,
    samples: int = 0,
) -> tuple[float, float]:
    """Student's interval on the scale of `interval`, mapped back."""
    least, most = bounds
    quantile = _t_quantile(0.5 + confidence / 2, freedom)
    if math.isinf(least) and math.isinf(most):
        return mean - quantile * error, mean + quantile * error
    if math.isinf(most):
        if mean <= least:
            return mean, mean
        factor = math.exp(min(700.0, quantile * error / (mean - least)))
        return least + (mean - least) / factor, least + (mean - least) * factor
    width = most - least
    place = min(1.0, max(0.0, (mean - least) / width))
    if min(place, 1 - place) <= _SAME:
        reach = width * (1 - ((1 - confidence) / 2) ** (1 / samples)) if samples else 0.0
        return (least, least + reach) if place < 0.5 else (most - reach, most)
    logit = math.log(place / (1 - place))
    reach = quantile * error / (width * place * (1 - place))
    low, high = (1 / (1 + math.exp(-min(700.0, max(-700.0, logit + side)))) for side in (-reach, reach))
    return least + width * low, least + width * high


# Paired tests


def mcnemar_exact(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Two-sided p-value that two classifiers are right equally often, on the same samples.

    Of the samples that only one of the two gets right, each is as likely to be the one's as the other's: a
    binomial test with probability 1/2. It is a test of one run against one run. The same sample under several
    seeds is not several samples, so runs may not be stacked; `paired_bootstrap` takes several seeds.

    Args:
        correct_a: (samples,) bool or 0 and 1.
        correct_b: (samples,), of the same samples in the same order.

    Raises:
        DataError: If shapes differ or are not (samples,), or a value is neither 0 nor 1.

    Source:
        McNemar, Psychometrika 12 (1947); for classifiers, by its approximation: Dietterich, Neural
        Computation 10 (1998), section 3.1.
    """
    a, b = np.asarray(correct_a, dtype=np.float64), np.asarray(correct_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise DataError(
            f"correct: expected two arrays (samples,) of one run each, found shapes {a.shape} and {b.shape}"
        )
    if not (_binary(a) and _binary(b)):
        raise DataError("correct: expected 0 and 1 only")
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    return min(1.0, 2.0 * float(_special().bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_bootstrap(
    a: Scores, b: Scores, *, seed: int = 0, confidence: float = 0.95, resamples: int = 1000
) -> Difference:
    """Difference of two methods on the same samples, each trained with the same number of seeds, by a test
    over samples and seeds.

    Let δ be the difference of one seed, S the number of seeds. A bootstrap over samples, all seeds of both
    methods on the same resample, gives the covariance of the δ: V is its mean diagonal, C the mean beside the
    diagonal. The variance of the mean difference is

        (V + (S - 1) C) / S + max(0, s² - (V - C)) / S

    where s² is the variance of the δ over seeds. The first term is the chance of the test split, how single
    samples fall out under one seed and not another included; the second is what the level of whole runs
    varies by beyond that. Student's t follows, with Satterthwaite's degrees of freedom where the second term
    is not zero and samples - 1 where it is. This is the analysis of several readers on the same cases, seeds
    as readers, with the variance between readers not allowed below zero.

    Resampling seeds and samples in turn would count their interaction three times over, and the percentiles
    of three or five resampled seeds are too narrow where seeds matter. A t-test over seeds alone takes the
    test split for the whole world.

    With one seed the level of a run cannot be told from that of its method: the result then speaks of these
    two trained models.

    Args:
        a: Per-sample scores, (seeds, samples) or (samples,), for which the bootstrap has a closed form; or a
            metric of rows.
        b: As `a`, of the same seeds and samples.
        seed: Of the resamples, for a metric of rows.
        confidence: Of the interval of the difference.
        resamples: How many, for a metric of rows. Those on which the metric is NaN are left out.

    Returns:
        Of equal scores: difference 0, p-value 1.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: If shapes or kinds differ, there are fewer than two samples, or a score is not finite.

    Source:
        Obuchowski and Rockette, Communications in Statistics: Simulation and Computation 24 (1995); degrees
        of freedom: Hillis, Statistics in Medicine 26 (2007). Resampling both ways: Owen, The pigeonhole
        bootstrap, Annals of Applied Statistics 1 (2007).
    """
    _refuse_outside("confidence", confidence)
    measured = {
        name: _measure(name, scores, seed=seed, resamples=resamples) for name, scores in (("a", a), ("b", b))
    }
    _refuse_unlike(measured)
    for name, runs in measured.items():
        if not runs.defined:
            raise DataError(f"{name}: the metric is not defined (NaN) on these samples")
    return _difference(measured["a"], measured["b"], confidence)[0]


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values of one family, adjusted so that rejecting those below a level errs at all with at most that
    probability.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may be smaller than the one
    before, or above 1.

    Source:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6
        (1979).
    """
    p = np.asarray(p_values, dtype=np.float64).ravel()
    if not ((p >= 0.0) & (p <= 1.0)).all():
        raise DataError("p values: expected numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1.0)
    return adjusted


def compare_to(
    reference: str,
    methods: Mapping[str, Scores],
    *,
    level: float = 0.05,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Standing]:
    """What separates the methods of a column from one of them, which is chosen beforehand.

    Every other method is compared to it by `paired_bootstrap`, with what the difference varies by over seeds
    taken from all pairs of the column together: that of one pair under two or three seeds says little, and a
    method of wide spread would be level with anything. With one seed, runs that are right or wrong sample by
    sample are compared by `mcnemar_exact`. The p-values are adjusted by `holm`.

    Args:
        reference: A key of `methods`.
        methods: Name to scores, all of the same seeds and samples, on which the metric is defined.
        level: Of the test.
        seed: Of the resamples, for metrics of rows; every method of the column is computed on the same ones.
        resamples: How many, for metrics of rows.

    Returns:
        Name to standing, in the order given, with ``to_best`` being the difference to the reference; none is
        marked.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: As for `paired_bootstrap`; the message names the method.

    Source:
        Variance between readers pooled over the treatments: Obuchowski and Rockette (1995), as in
        `paired_bootstrap`.
    """
    _refuse_outside("level", level)
    measured = {
        name: _measure(name, scores, seed=seed, resamples=resamples) for name, scores in methods.items()
    }
    _refuse_unlike(measured)
    for name, runs in measured.items():
        if not runs.defined:
            raise DataError(f"{name}: the metric is not defined (NaN) on these samples")
    return _compared(reference, measured, level)


def compare_to_best(
    methods: Mapping[str, Scores],
    *,
    higher_is_better: bool,
    level: float = 0.05,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Standing]:
    """Which method of a column is best, and which are not significantly worse.

    The method of the best mean is compared to every other as by `compare_to`, and a method is level with it
    unless its adjusted p-value is below `level`. A method that is truly as good as any goes unmarked with a
    probability of no more than about `level`, although the best is chosen by looking at the data; that some
    one of several such methods goes unmarked is likelier.

    Args:
        methods: Name to scores, all of the same seeds and samples. A method goes unmarked if its metric is
            NaN for one of its seeds, or there is no sample.
        higher_is_better: False for errors.
        level: Of the test.
        seed: Of the resamples, for metrics of rows; every method of the column is computed on the same ones.
        resamples: How many, for metrics of rows.

    Returns:
        Name to standing, in the order given. Of equal means all are best.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: As for `paired_bootstrap`; the message names the method.

    Source:
        On choosing the best by the data: Hsu, Constrained simultaneous confidence intervals for multiple
        comparisons with the best, Annals of Statistics 12 (1984).
    """
    _refuse_outside("level", level)
    measured = {
        name: _measure(name, scores, seed=seed, resamples=resamples) for name, scores in methods.items()
    }
    _refuse_unlike(measured)
    standings = {name: Standing(mark="", to_best=None, adjusted_p_value=None) for name in methods}
    defined = {name: runs for name, runs in measured.items() if runs.defined}
    if not defined:
        return standings
    best = (max if higher_is_better else min)(defined, key=lambda name: defined[name].mean)
    standings |= _compared(best, defined, level)
    standings[best] = Standing(mark="best", to_best=None, adjusted_p_value=None)
    for name, standing in standings.items():
        if standing.to_best is not None and standing.adjusted_p_value is not None:
            equal = abs(standing.to_best.difference) <= _SAME
            mark: Mark = "best" if equal else "level" if standing.adjusted_p_value >= level else ""
            standings[name] = replace(standing, mark=mark)
    return standings


def _compared(reference: str, measured: Mapping[str, "_Runs"], level: float) -> dict[str, Standing]:
    pooled = _pooled(list(measured.values()))
    others = [name for name in measured if name != reference]
    found = [
        _difference(
            measured[name], measured[reference], 1 - level, pooled=pooled, methods=len(measured), exact=True
        )
        for name in others
    ]
    adjusted = holm([difference.p_value for difference, *_ in found]).tolist()
    strictest = level / max(1, len(others))
    standings = {reference: Standing(mark="", to_best=None, adjusted_p_value=None)}
    for name, (difference, error, freedom), p_value in zip(others, found, adjusted, strict=True):
        told_from = _t_quantile(1 - strictest / 2, freedom) * error
        standings[name] = Standing(mark="", to_best=difference, adjusted_p_value=p_value, told_from=told_from)
    return {name: standings[name] for name in measured}


def scores_of(task: Task, runs: Sequence[Predictions], metric: str) -> Scores:
    """What the tests need to know of a method's runs, one `Predictions` per seed, all of the same samples in
    the same order.

    Returns:
        (seeds, samples) per-sample scores where the metric is a mean of such, a `RowMetric` otherwise.

    Raises:
        ConfigError: If the task has no such metric.
        DataError: If there is no run, runs are not of the same samples, or as for `metrics.score`.
    """
    if not runs:
        raise DataError("runs: expected predictions of one seed or more, found none")
    if any(run.ids != runs[0].ids for run in runs):
        raise DataError("runs: expected predictions of the same samples in the same order for every seed")
    scores = [each for each in (sample_scores(task, run, metric) for run in runs) if each is not None]
    if scores:
        return np.stack(scores)
    return RowMetric(runs=tuple(row_metric(task, run, metric) for run in runs), samples=len(runs[0].ids))


# In words


def power_note(name: str, samples: int, accuracy: float) -> str:
    """One sentence: what a test split of this size can tell apart, in points of accuracy.

    The standard error is √(p (1 - p) / n). Two runs on the same samples that disagree on a share d of them
    differ significantly (5 %, two-sided) from 1.96 √(d / n) on, as McNemar's test does; d is 2 p (1 - p)
    where their errors are independent.

    Raises:
        ConfigError: If there is no sample or the accuracy is not between 0 and 1.
    """
    _at_least("samples", samples, 1)
    _refuse_outside("accuracy", accuracy)
    variance = accuracy * (1 - accuracy)
    error, close, apart = (100 * math.sqrt(each / samples) for each in (variance, 0.1, 2 * variance))
    least, most = sorted((1.96 * close, 1.96 * apart))
    about = ("if they disagree on a tenth of the samples", "if their errors are independent")
    small, large = about if close <= apart else about[::-1]
    return (
        f"{name}: with {samples} test samples and an accuracy of {100 * accuracy:.1f} %, one standard error"
        f" is {error:.1f} points; two single runs on the same samples need a difference of {least:.1f} points"
        f" {small}, and {most:.1f} {large}, to differ at the 5 % level."
    )


def marks_note(*, seeds: int, level: float = 0.05) -> str:
    """One sentence: how `compare_to_best` decided the marks of a table."""
    tests = (
        "a paired test over seeds and samples (Obuchowski and Rockette, covariance by bootstrap over samples)"
    )
    if seeds == 1:
        tests = (
            "McNemar's exact test for accuracies and a paired bootstrap over samples otherwise, on"
            " the one seed that ran"
        )
    return (
        f"A method is level with the best of its column unless it is worse at {100 * level:g} % by {tests},"
        " with Holm's correction."
    )


def reach_note(
    name: str, standings: Mapping[str, Standing], *, seeds: int, samples: int, digits: int = 3
) -> str:
    """One sentence: from which difference on the test of a column tells a method from the best; empty where
    nothing is compared.
    """
    told = sorted(each.told_from for each in standings.values() if each.told_from is not None)
    if not told:
        return ""
    least, most = (f"{value:.{digits}f}" for value in (told[0], told[-1]))
    span = least if least == most else f"{least} to {most}, depending on the method,"
    return (
        f"{name}: with {seeds} seed{'s' * (seeds > 1)} and {samples} test samples the test tells a method"
        f" from the best if they differ by about {span} or more; what differs by less is level."
    )


def interval_note(*, fewest: int) -> str:
    """One or two sentences: what the intervals of a table are over, where its methods have no fewer than
    `fewest` seeds.
    """
    scale = (
        "95 % interval of the mean, on the logit scale (log for errors), which keeps it within the metric's"
        " range"
    )
    if fewest >= FEWEST_SEEDS:
        return f"[low, high]: {scale}; over seeds and test samples."
    return (
        f"[low, high]: {scale}; over seeds and test samples from {FEWEST_SEEDS} seeds on. With"
        " fewer it is over the test samples alone: two seeds do not show how much training varies."
    )


# How they work


@dataclass(frozen=True, slots=True)
class _Runs:
    """A method's metric under each seed, and how it varies with the samples.

    The covariance over samples between seeds s and t is the sum of spread[s] * spread[t] over the second
    axis, times `scale` and over its length; subtracting the spread of two methods gives that of their
    difference.
    """

    observed: NDArray[np.float64]  # (seeds,)
    spread: NDArray[np.float64]  # (seeds, samples or resamples)
    scale: float
    samples: int
    binary: NDArray[np.float64] | None  # (samples,) of one run that is right or wrong sample by sample

    @property
    def mean(self) -> float:
        return float(self.observed.mean())

    @property
    def defined(self) -> bool:
        return bool(np.isfinite(self.observed).all())


def _measure(name: str, scores: Scores, *, seed: int, resamples: int) -> _Runs:
    if isinstance(scores, RowMetric):
        samples = _at_least("samples", scores.samples, 2)
        if not scores.runs:
            raise DataError(f"{name}: expected one run or more, found none")
        observed = np.array([run(np.arange(samples)) for run in scores.runs], dtype=np.float64)
        drawn = np.full((observed.size, _at_least("resamples", resamples, 2)), np.nan)
        if np.isfinite(observed).all():
            for place, rows in enumerate(_resampled_rows(samples, resamples, seed)):
                drawn[:, place] = [run(rows) for run in scores.runs]
        return _Runs(observed, drawn, 1.0, samples, None)
    values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] == 1:
        raise DataError(
            f"{name}: expected (seeds, samples) with two samples or more, found shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise DataError(f"{name}: expected finite numbers; drop samples that do not count")
    seeds, samples = values.shape
    if samples == 0:
        return _Runs(np.full(seeds, np.nan), values, 1.0, samples, None)
    binary = values[0] if seeds == 1 and _binary(values) else None
    return _Runs(values.mean(axis=1), values, 1.0 / (samples - 1), samples, binary)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Where the variance of a mean over seeds comes from."""

    of_samples: float
    """Variance of the mean over the seeds by the samples."""
    within: float
    """What seeds vary by because single samples fall out differently: own variance less that which seeds
    share."""
    between: float
    """What they really vary by: variance over the seeds."""


def _parts(observed: NDArray[np.float64], spread: NDArray[np.float64], scale: float) -> _Parts:
    """The variances of one value per seed, (seeds,), that varies with the samples by `spread`, see
    `_Runs`.
    """
    seeds = observed.size
    spread = spread[:, np.isfinite(spread).all(axis=0)]
    if spread.shape[1] < 2:
        raise DataError("scores: a metric is not defined (NaN) on the resamples")
    spread = spread - spread.mean(axis=1, keepdims=True)
    covariance = spread @ spread.T * (scale / spread.shape[1])
    of_samples = max(0.0, float(covariance.mean()))
    if seeds == 1:
        return _Parts(of_samples, 0.0, 0.0)
    own = float(np.trace(covariance)) / seeds
    shared = (float(covariance.sum()) - own * seeds) / (seeds * (seeds - 1))
    return _Parts(of_samples, own - shared, float(observed.var(ddof=1)))


def _error(
    of_samples: float, seeds_vary: _Parts | None, freedom: float, seeds: int, samples: int
) -> tuple[float, float]:
    """Standard error and degrees of freedom of a mean over seeds; `freedom` is that of the variance between
    them.
    """
    if seeds_vary is not None and seeds_vary.between > 0.0:
        of_seeds = max(0.0, seeds_vary.between - seeds_vary.within) / seeds
        if of_seeds > 0.0:
            total = of_samples + of_seeds
            return math.sqrt(total), min(
                samples - 1.0, total**2 * freedom / (seeds_vary.between / seeds) ** 2
            )
    return math.sqrt(of_samples), samples - 1.0


def _pooled(measured: Sequence[_Runs]) -> _Parts | None:
    """What the difference of two methods varies by over seeds, the mean over all pairs of the column."""
    if measured[0].observed.size == 1 or len(measured) < 2:
        return None
    pairs = [
        _parts(a.observed - b.observed, a.spread - b.spread, a.scale)
        for place, a in enumerate(measured)
        for b in measured[place + 1 :]
    ]
    within, between = (
        float(np.mean([getattr(each, name) for each in pairs])) for name in ("within", "between")
    )
    return _Parts(0.0, within, between)


def _difference(
    a: _Runs,
    b: _Runs,
    confidence: float,
    *,
    pooled: _Parts | None = None,
    methods: int = 2,
    exact: bool = False,
) -> tuple[Difference, float, float]:
    """`paired_bootstrap` on what was measured, its standard error and its degrees of freedom.

    With `pooled`, what seeds vary by is that of a whole column of `methods`; with `exact`, the p-value of one
    binary run each is that of `mcnemar_exact`.
    """
    seeds, samples = a.observed.size, a.samples
    parts = _parts(a.observed - b.observed, a.spread - b.spread, a.scale)
    error, freedom = _error(
        parts.of_samples,
        pooled or (parts if seeds > 1 else None),
        (methods - 1.0) * (seeds - 1.0),
        seeds,
        samples,
    )
    difference = float((a.observed - b.observed).mean())
    reach = _t_quantile(0.5 + confidence / 2, freedom) * error
    if exact and a.binary is not None and b.binary is not None:
        p_value = mcnemar_exact(a.binary, b.binary)
    elif error <= _SAME * max(1.0, abs(difference)):
        p_value = 1.0 if abs(difference) <= _SAME else 0.0
    else:
        p_value = 2.0 * float(_special().stdtr(freedom, -abs(difference) / error))
    return (
        Difference(difference=difference, low=difference - reach, high=difference + reach, p_value=p_value),
        error,
        freedom,
    )


def _resampled_rows(samples: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows drawn with replacement; the same for every statistic of one seed."""
    generator = np.random.default_rng(seed)
    piece = max(1, _PIECE // samples)
    for start in range(0, resamples, piece):
        yield from generator.integers(0, samples, size=(min(piece, resamples - start), samples))


def _special() -> Any:
    require("statistics", "experiments", "scipy")
    from scipy import special

    return special


def _t_quantile(probability: float, freedom: float) -> float:
    return float(_special().stdtrit(freedom, probability))


def _binary(values: NDArray[np.float64]) -> bool:
    return bool(((values == 0.0) | (values == 1.0)).all())


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ConfigError(f"{name}: expected {least} or more, found {value}")
    return value


def _refuse_outside(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ConfigError(f"{name}: expected a number between 0 and 1, found {value}")


def _refuse_unlike(measured: Mapping[str, _Runs]) -> None:
    """Only runs of the same seeds and samples, measured in the same way, can be paired."""
    names = list(measured)
    for name in names[1:]:
        runs, first = measured[name], measured[names[0]]
        if runs.spread.shape != first.spread.shape or runs.scale != first.scale:
            raise DataError(
                f"{name}: expected scores of the same seeds and samples as {names[0]}, {first.observed.size}"
                f" seeds of {first.samples} samples, found {runs.observed.size} of {runs.samples}"
            )
