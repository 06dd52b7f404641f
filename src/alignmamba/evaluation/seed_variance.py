"""Variance of a score over seeds and samples, by one decomposition."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignmamba.contracts import Predictions, Target, Task
from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.metrics import counted_ids, known_part, row_metric, sample_scores

Statistic = Callable[[NDArray[np.int64]], float]
"""A number computed of the samples at the given rows; a row may come more than once."""

FEWEST_GROUPS: Final = 10
"""Groups of test samples from which on whole ones are drawn: of fewer, what they vary by is hardly known."""
_PIECE: Final = 2_000_000
"""Resamples are drawn and looked at in pieces of about this many row indices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMetric:
    """A metric that is no mean over samples, of one method's runs on the same samples."""

    runs: tuple[Statistic, ...]
    """One per seed."""
    samples: int
    """Number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """Scores of samples that are not independent, of which whole groups are drawn."""

    scores: ArrayLike | RowMetric
    groups: NDArray[np.int64]
    """(samples,) number of the group of each, from 0 without gaps."""

    def __post_init__(self) -> None:
        found = self.scores.samples if isinstance(self.scores, RowMetric) else np.shape(self.scores)[-1]
        if found != len(self.groups):
            raise DataError(f"groups: expected one for each of {found} samples, found {len(self.groups)}")


Scores: TypeAlias = ArrayLike | RowMetric | Grouped
"""Scores of one method: (seeds, samples), or (samples,) for one seed, of per-sample scores; or a metric of
rows; or either of samples in groups.
"""


def scores_of(
    task: Task | Target, runs: Sequence[Predictions], metric: str, *, groups: Mapping[str, str] | None = None
) -> Scores:
    """Scores of a method's runs, one per seed and of the same samples: (seeds, samples) where the metric is a
    mean over samples, a `RowMetric` otherwise; `Grouped` where `groups` names the group of an id and these
    samples are of `FEWEST_GROUPS` or more.

    Raises:
        ConfigError: If the task has no such metric.
        DataError: If there is no run, runs are not of the same samples, or as for `metrics.score`.
    """
    if not runs:
        raise DataError("runs: expected predictions of one seed or more, found none")
    if any(run.ids != runs[0].ids for run in runs):
        raise DataError("runs: expected predictions of the same samples in the same order for every seed")
    runs = [known_part(task, run) for run in runs]
    scores = [each for each in (sample_scores(task, run, metric) for run in runs) if each is not None]
    found: NDArray[np.float64] | RowMetric = (
        np.stack(scores)
        if scores
        else RowMetric(runs=tuple(row_metric(task, run, metric) for run in runs), samples=len(runs[0].ids))
    )
    if not groups:
        return found
    names = [groups.get(identity, identity) for identity in counted_ids(task, runs[0], metric)]
    if len(set(names)) < FEWEST_GROUPS:
        return found
    return Grouped(scores=found, groups=np.unique(names, return_inverse=True)[1].reshape(-1))


def groups_by_id(ids: Sequence[str], groups: Sequence[str | None]) -> dict[str, str]:
    """Id of each sample to its group, by which the name of a lone one is no other's; empty where none is
    shared.
    """
    named = {identity: group or f"\0{identity}" for identity, group in zip(ids, groups, strict=True)}
    return named if len(set(named.values())) < len(named) else {}


@dataclass(frozen=True, slots=True)
class Runs:
    """A method's metric under each seed, and how it varies with the samples.

    The covariance over samples between seeds s and t is the sum of spread[s] * spread[t] over the second
    axis, times `scale` and over its length; subtracting the spread of two methods gives that of their
    difference.
    """

    observed: NDArray[np.float64]  # (seeds,)
    spread: NDArray[np.float64]  # (seeds, samples, groups or resamples)
    scale: float
    samples: int  # groups where whole ones are drawn
    binary: NDArray[np.float64] | None  # (samples,) of one run that is right or wrong sample by sample

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(self.observed.mean())

    @property
    def defined(self) -> bool:
        """True where the metric is a number under every seed."""
        return bool(np.isfinite(self.observed).all())

    def __sub__(self, other: "Runs") -> "Runs":
        """The difference under each seed, of the same samples."""
        return Runs(
            self.observed - other.observed, self.spread - other.spread, self.scale, self.samples, None
        )


def measured(methods: Mapping[str, Scores], *, seed: int, resamples: int) -> dict[str, Runs]:
    """Measurements of methods that can be paired, metrics of rows on as many `resamples`.

    Raises:
        ConfigError: If there are fewer than two samples or resamples.
        DataError: If scores are malformed, or not of the same seeds and samples.
    """
    found = {name: _measure(name, scores, seed=seed, resamples=resamples) for name, scores in methods.items()}
    for name, runs in found.items():
        first = next(iter(found))
        of = found[first]
        if runs.spread.shape != of.spread.shape or runs.scale != of.scale:
            raise DataError(
                f"{name}: expected scores of the same seeds and samples as {first}, {of.observed.size}"
                f" seeds of {of.samples} samples, found {runs.observed.size} of {runs.samples}"
            )
    return found


def refuse_undefined(found: Mapping[str, Runs]) -> None:
    """Refuse, by a `DataError`, methods whose metric is NaN."""
    for name, runs in found.items():
        if not runs.defined:
            raise DataError(f"{name}: the metric is not defined (NaN) on these samples")


def _measure(name: str, scores: Scores, *, seed: int, resamples: int) -> Runs:
    groups = scores.groups if isinstance(scores, Grouped) else None
    found = scores.scores if isinstance(scores, Grouped) else scores
    if isinstance(found, RowMetric):
        return _resampled(name, found, groups, seed=seed, resamples=resamples)
    values = np.atleast_2d(np.asarray(found, dtype=np.float64))
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] == 1:
        raise DataError(
            f"{name}: expected (seeds, samples) with two samples or more, found shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise DataError(f"{name}: expected finite numbers; drop samples that do not count")
    seeds, samples = values.shape
    if samples == 0:
        return Runs(np.full(seeds, np.nan), values, 1.0, samples, None)
    if groups is not None:
        return _in_groups(values, groups)
    binary = values[0] if seeds == 1 and is_binary(values) else None
    return Runs(values.mean(axis=1), values, 1.0 / (samples - 1), samples, binary)


def _in_groups(values: NDArray[np.float64], groups: NDArray[np.int64]) -> Runs:
    """Means over samples, (seeds, samples), whose variance is that of the influence of whole groups."""
    number = _number_of(groups)
    away = values - values.mean(axis=1, keepdims=True)
    influence = np.stack([np.bincount(groups, weights=run, minlength=number) for run in away])
    spread = influence * (number / values.shape[1])
    return Runs(values.mean(axis=1), spread, 1.0 / (number - 1), number, None)


def _resampled(
    name: str, metric: RowMetric, groups: NDArray[np.int64] | None, *, seed: int, resamples: int
) -> Runs:
    """A metric of rows on the samples and on resamples of them, or of their groups."""
    samples = at_least("samples", metric.samples, 2)
    units = samples if groups is None else _number_of(groups)
    if not metric.runs:
        raise DataError(f"{name}: expected one run or more, found none")
    observed = np.array([run(np.arange(samples)) for run in metric.runs], dtype=np.float64)
    drawn = np.full((observed.size, at_least("resamples", resamples, 2)), np.nan)
    if np.isfinite(observed).all():
        members = None if groups is None else _members(groups, units)
        for place, units_drawn in enumerate(_resampled_rows(units, resamples, seed)):
            rows = units_drawn if members is None else np.concatenate([members[each] for each in units_drawn])
            drawn[:, place] = [run(rows) for run in metric.runs]
    return Runs(observed, drawn, 1.0, units, None)


def _number_of(groups: NDArray[np.int64]) -> int:
    number = int(groups.max()) + 1
    if number < 2:
        raise DataError("groups: expected samples of two or more, found one")
    return number


def _members(groups: NDArray[np.int64], number: int) -> list[NDArray[np.int64]]:
    """Rows of each group."""
    sizes = np.bincount(groups, minlength=number)
    return np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])


def _resampled_rows(units: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows or groups drawn as `scipy.stats.bootstrap` draws rows; the same for every statistic of one
    seed.
    """
    generator = np.random.default_rng(seed)
    piece = max(1, _PIECE // units)
    for start in range(0, resamples, piece):
        yield from generator.integers(0, units, size=(min(piece, resamples - start), units))


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of the variance of a mean over seeds."""

    of_samples: float
    """Variance of the mean over the seeds by the samples. Seeds share no less than nothing: errors that
    cancel by chance do not make a mean certain."""
    within: float
    """Variance of seeds from single samples that fall out differently: own variance less that which seeds
    share.
    """
    between: float
    """Their true variance: variance over the seeds."""

    @classmethod
    def of(cls, runs: Runs) -> "Parts":
        """Take apart what runs, or their difference, vary by; a `DataError` below two defined resamples."""
        seeds = runs.observed.size
        spread = runs.spread[:, np.isfinite(runs.spread).all(axis=0)]
        if spread.shape[1] < 2:
            raise DataError("scores: a metric is not defined (NaN) on the resamples")
        spread = spread - spread.mean(axis=1, keepdims=True)
        covariance = spread @ spread.T * (runs.scale / spread.shape[1])
        own = float(np.trace(covariance)) / seeds
        if seeds == 1:
            return cls(own, 0.0, 0.0)
        shared = max(0.0, (float(covariance.sum()) - own * seeds) / (seeds * (seeds - 1)))
        of_samples = (own + (seeds - 1) * shared) / seeds
        return cls(of_samples, own - shared, float(runs.observed.var(ddof=1)))

    @classmethod
    def pooled(cls, methods: Mapping[str, Runs], fixed: Collection[str] = ()) -> "Parts | None":
        """Variance of the difference of two methods over seeds, the mean over all pairs of a column; without
        pairs of which `fixed` methods, which no seed changes, have a larger part than in others.
        """
        if len(methods) < 2 or next(iter(methods.values())).observed.size == 1:
            return None
        changed = {pair: sum(name not in fixed for name in pair) for pair in combinations(methods, 2)}
        most = max(changed.values())
        pairs = [cls.of(methods[a] - methods[b]) for (a, b), count in changed.items() if count == most]
        within, between = ([each.within for each in pairs], [each.between for each in pairs])
        return cls(0.0, float(np.mean(within)), float(np.mean(between)))


def error_of(
    of_samples: float, seeds_vary: Parts | None, freedom: float, seeds: int, samples: int
) -> tuple[float, float]:
    """Standard error and degrees of freedom of a mean over seeds, of the variance by the samples and, where
    it counts, that of seeds with its degrees of freedom, which both together have at least.
    """
    if seeds_vary is not None and seeds_vary.between > 0.0:
        of_seeds = max(0.0, seeds_vary.between - seeds_vary.within) / seeds
        if of_seeds > 0.0:
            total = of_samples + of_seeds
            of_both = total**2 * freedom / (seeds_vary.between / seeds) ** 2
            return math.sqrt(total), min(samples - 1.0, max(freedom, of_both))
    return math.sqrt(of_samples), samples - 1.0


def is_binary(values: NDArray[np.float64]) -> bool:
    """True where all values are 0 or 1."""
    return bool(((values == 0.0) | (values == 1.0)).all())


def at_least(name: str, value: int, least: int) -> int:
    """Value, unless it is less: a `ConfigError`."""
    if value < least:
        raise ConfigError(f"{name}: expected {least} or more, found {value}")
    return value
