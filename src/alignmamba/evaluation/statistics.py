"""Statistics of differences beyond chance: intervals, paired tests, the best of a column.

A result has two sources of chance, the samples of the test split and the seeds of training. `interval` and
`paired_bootstrap` look at both, by one decomposition of the variance; `over_seeds` knows the seeds alone.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.seed_variance import (
    Parts,
    Runs,
    Scores,
    at_least,
    error_of,
    is_binary,
    measured,
    refuse_undefined,
)
from alignmamba.extras import require

Mark = Literal["best", "level", ""]
"""``best``: the best mean of its column; ``level``: not significantly worse than the best."""

_SAME: Final = 1e-12
"""Two means that differ by less than rounding are one."""

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
class Difference:
    """Difference of two methods, the first minus the second."""

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
    """P value after Holm's correction over the column; None where ``to_best`` is."""
    told_from: float | None = None
    """Difference to the best that the strictest step of Holm's correction would distinguish, about."""


# Intervals


def over_seeds(
    values: ArrayLike, *, bounds: tuple[float, float] = UNBOUNDED, confidence: float = 0.95
) -> Estimate:
    """Mean of one value per seed, with Student's interval over the seeds: mean ± t(n - 1) s / √n.

    Args:
        values: (n,). Where one of them is NaN, so is the mean, and nothing else is known. Fewer than
            `FEWEST_SEEDS` have no interval.
        bounds: Least and largest possible value, between which the interval stays, as that of `interval`.
        confidence: Of the interval.

    Raises:
        ConfigError: If `confidence` is not between 0 and 1.
        DataError: If there is no value.

    Source:
        Student, The probable error of a mean, Biometrika 6 (1908).
    """
    refuse_outside("confidence", confidence)
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
    inflation: float = 1.0,
) -> Estimate:
    """Mean of a metric over seeds, with an interval over seeds and samples within the metric's range.

    The variance is that of `paired_bootstrap`, of one method; with fewer than `FEWEST_SEEDS` seeds, the part
    of the samples alone. The interval is Student's on a scale without ends, mapped back: the logit of the
    place within the range, log for a range with one end. Where all n samples are right, which the scale has
    no place for, it reaches from ``(α / 2)^(1 / n)`` of the range on.

    Args:
        scores: Per-sample scores, (seeds, samples) or (samples,), or a metric of rows.
        bounds: Least and largest possible value of the metric.
        confidence: Of the interval.
        seed: Of the resamples, for a metric of rows.
        resamples: Number of them.
        inflation: Factor on the variance by the samples, as `fold_inflation` gives it.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: If there are fewer than two samples, or the metric is not defined on them or on their
            resamples.

    Source:
        Bouthillier et al., MLSys (2021). Covariance and scale: Efron and Tibshirani, An introduction to the
        bootstrap (1993), chapter 6 and section 12.6. All right: Clopper and Pearson, Biometrika 26 (1934).
    """
    refuse_outside("confidence", confidence)
    found = measured({"scores": scores}, seed=seed, resamples=resamples)
    refuse_undefined(found)
    runs = found["scores"]
    seeds, parts = runs.observed.size, Parts.of(runs)
    between = parts if seeds >= FEWEST_SEEDS else None
    of_samples = inflation * parts.of_samples
    error, freedom = error_of(of_samples, between, seeds - 1.0, seeds, runs.samples)
    counted = max(1, int(runs.samples / inflation))
    low, high = _ends(runs.mean, error, freedom, bounds, confidence, samples=counted)
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


def fold_inflation(folds: int) -> float:
    r"""Factor on the variance by the samples where these are the test samples of all folds together.

    Models of different folds share training samples, so that their results are correlated. The corrected
    resampled t-test has the variance (1 / K + n_test / n_train) s² in place of s² / K: a factor of
    1 + K n_test / n_train. Here one fold of K tests, one validates and K - 2 train: 1 + K / (K - 2).

    Args:
        folds: K, 3 or more; 0 without cross-validation, where the factor is 1.

    Raises:
        ConfigError: If there are one or two.

    Source:
        Nadeau & Bengio, Inference for the generalization error, Machine Learning 52 (2003), equation 14; an
        approximation for K-fold cross-validation, whose variance has no unbiased estimator: Bengio &
        Grandvalet, JMLR 5 (2004).
    """
    return 1.0 if folds == 0 else 1 + folds / (at_least("folds", folds, 3) - 2)


# Paired tests


def mcnemar_exact(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Two-sided p-value that two classifiers are right equally often: a binomial test with probability 1/2 on
    the samples that only one of them gets right, of one run each.

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
    if not (is_binary(a) and is_binary(b)):
        raise DataError("correct: expected 0 and 1 only")
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    return min(1.0, 2.0 * float(_special().bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_bootstrap(
    a: Scores, b: Scores, *, seed: int = 0, confidence: float = 0.95, resamples: int = 1000
) -> Difference:
    """Difference of two methods on the same samples and as many seeds, by a test over both.

    Let δ be the difference of one seed, S the number of seeds. A bootstrap over samples, all seeds of both
    methods on the same resample, gives the covariance of the δ: V is its mean diagonal, C the mean beside the
    diagonal. With the variance s² of the δ over seeds, the variance of the mean difference is

        (V + (S - 1) C) / S + max(0, s² - (V - C)) / S,  C at least 0,

    the chance of the test split, and what the level of whole runs varies by beyond that: several readers on
    the same cases, with seeds as readers. Student's t follows, with Satterthwaite's degrees of freedom where
    the second term is not zero and samples - 1 where it is. One seed speaks of two trained models alone.

    Args:
        a: Per-sample scores, (seeds, samples) or (samples,), or a metric of rows.
        b: As `a`, of the same seeds and samples.
        seed: Of the resamples, for a metric of rows.
        confidence: Of the interval of the difference.
        resamples: Number of them; those on which the metric is NaN do not count.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: If shapes or kinds differ, there are fewer than two samples, or a score is not finite.

    Source:
        Obuchowski and Rockette, Communications in Statistics: Simulation and Computation 24 (1995); degrees
        of freedom: Hillis, Statistics in Medicine 26 (2007).
    """
    refuse_outside("confidence", confidence)
    found = measured({"a": a, "b": b}, seed=seed, resamples=resamples)
    refuse_undefined(found)
    return _difference(found["a"], found["b"], confidence)[0]


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """P-values of one family, adjusted: the smallest of m times m, the next times m - 1, and so on, each at
    least the one before and at most 1.

    Source:
        Holm, Scandinavian Journal of Statistics 6 (1979).
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
    fixed: Collection[str] = (),
    level: float = 0.05,
    seed: int = 0,
    resamples: int = 1000,
    inflation: float = 1.0,
) -> dict[str, Standing]:
    """Differences of the methods of a column from one of them, which is chosen beforehand.

    Each is compared by `paired_bootstrap`, with the variance over seeds pooled over all pairs of the column;
    with one seed, runs that are right or wrong sample by sample by `mcnemar_exact`. `holm` adjusts p-values.

    Args:
        reference: A key of `methods`.
        methods: Name to scores, all of the same seeds and samples, on which the metric is defined.
        fixed: Methods that the seed does not change, which have no part in the variance over seeds.
        level: Of the test.
        seed: Of the resamples, for metrics of rows; all methods share them.
        resamples: Number of them.
        inflation: Factor on the variance by the samples, as `fold_inflation` gives it; with another than 1,
            no test is exact.

    Returns:
        Name to standing, unmarked, with ``to_best`` being the difference to the reference.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: As for `paired_bootstrap`; the message names the method.
    """
    refuse_outside("level", level)
    found = measured(methods, seed=seed, resamples=resamples)
    refuse_undefined(found)
    return _compared(reference, found, fixed, level, inflation)


def compare_to_best(
    methods: Mapping[str, Scores],
    *,
    higher_is_better: bool,
    fixed: Collection[str] = (),
    level: float = 0.05,
    seed: int = 0,
    resamples: int = 1000,
    inflation: float = 1.0,
) -> dict[str, Standing]:
    """Best method of a column, and those that are not significantly worse.

    The best mean is compared to every other as by `compare_to`; a method is level with it unless its adjusted
    p-value is below `level`. One as good as any goes unmarked with a probability of about `level` at most.

    Args:
        methods: Name to scores, all of the same seeds and samples; one that is NaN goes unmarked.
        higher_is_better: False for errors.
        fixed: Methods that the seed does not change, which have no part in the variance over seeds.
        level: Of the test.
        seed: Of the resamples, for metrics of rows; all methods share them.
        resamples: Number of them.
        inflation: As for `compare_to`.

    Returns:
        Name to standing, in the order given. Of equal means all are best.

    Raises:
        ConfigError: If an argument is out of range.
        DataError: As for `paired_bootstrap`; the message names the method.

    Source:
        On choosing the best by the data: Hsu, Annals of Statistics 12 (1984).
    """
    refuse_outside("level", level)
    found = measured(methods, seed=seed, resamples=resamples)
    standings = {name: Standing(mark="", to_best=None, adjusted_p_value=None) for name in methods}
    defined = {name: runs for name, runs in found.items() if runs.defined}
    if not defined:
        return standings
    best = (max if higher_is_better else min)(defined, key=lambda name: defined[name].mean)
    standings |= _compared(best, defined, fixed, level, inflation)
    standings[best] = Standing(mark="best", to_best=None, adjusted_p_value=None)
    for name, standing in standings.items():
        if standing.to_best is not None and standing.adjusted_p_value is not None:
            equal = abs(standing.to_best.difference) <= _SAME
            mark: Mark = "best" if equal else "level" if standing.adjusted_p_value >= level else ""
            standings[name] = replace(standing, mark=mark)
    return standings


def _compared(
    reference: str, methods: Mapping[str, Runs], fixed: Collection[str], level: float, inflation: float
) -> dict[str, Standing]:
    pooled = Parts.pooled(methods, fixed)
    counted = max(2, sum(name not in fixed for name in methods))
    alone = {name for name in methods if {name, reference} <= set(fixed)}  # what others vary by is not theirs
    found = {
        name: _difference(
            runs,
            methods[reference],
            1 - level,
            pooled=None if name in alone else pooled,
            methods=2 if name in alone else counted,
            exact=inflation == 1.0,
            inflation=inflation,
        )
        for name, runs in methods.items()
        if name != reference
    }
    adjusted = iter(holm([difference.p_value for difference, *_ in found.values()]).tolist())
    strictest = level / max(1, len(found))
    standings = {name: Standing(mark="", to_best=None, adjusted_p_value=None) for name in methods}
    for name, (difference, error, freedom) in found.items():
        told_from = _t_quantile(1 - strictest / 2, freedom) * error
        a, b = methods[name].binary, methods[reference].binary
        if a is not None and b is not None and inflation == 1.0:
            told_from = _told_exactly(int((a != b).sum()), a.size, strictest)
        standings[name] = Standing(
            mark="", to_best=difference, adjusted_p_value=next(adjusted), told_from=told_from
        )
    return standings


# How they work


def _difference(
    a: Runs,
    b: Runs,
    confidence: float,
    *,
    pooled: Parts | None = None,
    methods: int = 2,
    exact: bool = False,
    inflation: float = 1.0,
) -> tuple[Difference, float, float]:
    """Result, standard error and degrees of freedom of `paired_bootstrap`; `pooled` is of a whole column of
    `methods`, `exact` takes `mcnemar_exact` for one binary run each.
    """
    apart, seeds = a - b, a.observed.size
    parts = Parts.of(apart)
    vary = pooled or (parts if seeds > 1 else None)
    of_samples = inflation * parts.of_samples
    error, freedom = error_of(of_samples, vary, (methods - 1.0) * (seeds - 1.0), seeds, a.samples)
    difference = apart.mean
    reach = _t_quantile(0.5 + confidence / 2, freedom) * error
    certain = error <= _SAME * max(1.0, abs(difference))
    # every sample differs by as much: as likely as a coin that falls on one side each time
    chance = min(1.0, 2.0 ** (1 - int(a.samples / inflation)))
    if exact and a.binary is not None and b.binary is not None:
        p_value = mcnemar_exact(a.binary, b.binary)
    elif certain:
        p_value = 1.0 if abs(difference) <= _SAME else chance
    else:
        p_value = 2.0 * float(_special().stdtr(freedom, -abs(difference) / error))
    if certain and chance >= 1 - confidence:  # so few say nothing of how large a difference is
        error, reach = math.inf, math.inf
    low, high = difference - reach, difference + reach
    return Difference(difference=difference, low=low, high=high, p_value=p_value), error, freedom


def _told_exactly(apart: int, samples: int, level: float) -> float:
    """Least difference that `mcnemar_exact` distinguishes, where so many samples are right in one run alone;
    where these are too few for any, with as many as are needed; infinite where there are no more samples.
    """
    for fewer in range(apart // 2, -1, -1):
        if 2.0 * float(_special().bdtr(fewer, apart, 0.5)) < level:
            return (apart - 2 * fewer) / samples
    needed = math.floor(1 - math.log2(level)) + 1
    return needed / samples if needed <= samples else math.inf


def _special() -> Any:
    require("statistics", "experiments", "scipy")
    from scipy import special

    return special


def _t_quantile(probability: float, freedom: float) -> float:
    return float(_special().stdtrit(freedom, probability))


def refuse_outside(name: str, value: float) -> None:
    """Refuse, by a `ConfigError`, a value that is not between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise ConfigError(f"{name}: expected a number between 0 and 1, found {value}")
