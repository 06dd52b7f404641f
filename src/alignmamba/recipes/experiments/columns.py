"""Tables of finished cells: means over seeds with intervals, the best of a column marked by a paired test."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignmamba.contracts import Target, Task
from alignmamba.errors import DataError
from alignmamba.evaluation.metrics import (
    HIGHER_IS_BETTER,
    METRICS,
    RANGES,
    column_names,
    known_part,
    metric_names,
    sample_scores,
    score,
    undefined_by_reason,
)
from alignmamba.evaluation.seed_variance import Grouped, RowMetric, Scores, is_binary, scores_of
from alignmamba.evaluation.statistics import (
    UNBOUNDED,
    Standing,
    compare_to,
    compare_to_best,
    fold_inflation,
    interval,
    over_seeds,
)
from alignmamba.evaluation.statistics_notes import (
    differences_note,
    groups_note,
    interval_note,
    marks_note,
    power_note,
    reach_note,
    tokens_note,
)
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.methods import METHODS, REFERENCES
from alignmamba.recipes.experiments.grid import Grid

TABLED: Final = sorted(
    (name for name in METRICS if METRICS[name].table), key=lambda name: METRICS[name].table
)
"""Metrics with a table over missing rates; the first that a task has leads its comparisons."""
RESAMPLES: Final = 500

Values = Mapping[str, Mapping[int, float]]
"""Method to seed to value."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number per method and seed, with what a paired test needs to know of it."""

    values: Values
    compared: frozenset[str]
    """The methods that were scored on the same samples."""
    scores: Callable[[str, Sequence[int]], Scores]
    """Scores of a method under some seeds."""
    higher_is_better: bool
    bounds: tuple[float, float]
    """Least and largest possible value."""
    marked: bool = True
    """True if it makes sense to say which method is best."""
    fixed: frozenset[str] = frozenset(REFERENCES)
    """Methods that no seed changes."""
    inflation: float = 1.0
    """Factor on the variance by the samples, see `fold_inflation`."""

    @cached_property
    def grouped(self) -> bool:
        """True where whole groups of samples are drawn."""
        name = next((name for name, values in self.values.items() if values), None)
        return name is not None and isinstance(self.scores(name, sorted(self.values[name])), Grouped)

    @cached_property
    def exact(self) -> bool:
        """True where runs of one seed, right or wrong sample by sample, have an exact test."""
        if self.inflation != 1 or self.grouped or len(self.seeds) != 1:
            return False
        scores = self.scores(self.methods[0], self.seeds)
        return not isinstance(scores, RowMetric | Grouped) and is_binary(np.asarray(scores))

    @property
    def scored(self) -> Iterator[float]:
        """Values of all methods and seeds."""
        return (value for by_seed in self.values.values() for value in by_seed.values())

    @property
    def methods(self) -> list[str]:
        """Those that can be compared."""
        return [name for name, values in self.values.items() if values and name in self.compared]

    @property
    def seeds(self) -> list[int]:
        """Those under which every one of these is finished: what can be compared in pairs."""
        sets = [set(self.values[name]) for name in self.methods]
        return sorted(set.intersection(*sets)) if sets else []

    @cached_property
    def standings(self) -> Mapping[str, Standing]:
        """The marks of the methods, on common seeds; empty where there is nothing to compare."""
        if not self.marked or len(self.methods) < 2 or not self.seeds:
            return {}
        try:
            scores = {name: self.scores(name, self.seeds) for name in self.methods}
            return compare_to_best(
                scores,
                higher_is_better=self.higher_is_better,
                fixed=self.fixed,
                resamples=RESAMPLES,
                inflation=self.inflation,
            )
        # a test split on which the metric can be told, but not how it varies: of one sample, for example
        except DataError:
            return {}

    def entries(self, rows: Sequence[str]) -> list[Entry | None]:
        """The column from the top; None where nothing is finished."""
        return [self._entry(name) if self.values[name] else None for name in rows]

    def _entry(self, name: str) -> Entry:
        seeds = sorted(self.values[name])
        values = [self.values[name][seed] for seed in seeds]
        try:
            estimate = interval(
                self.scores(name, seeds),
                bounds=self.bounds,
                resamples=RESAMPLES,
                inflation=self.inflation,
            )
        except DataError:  # as for the standings
            estimate = replace(over_seeds(values, bounds=self.bounds), low=None, high=None)
        entry = Entry.of_seeds(
            values,
            mark=self.standings[name].mark if name in self.standings else "",
            bounds=self.bounds,
            estimate=estimate,
        )
        return entry.model_copy(update={"seeds": tuple(seeds)})

    def same_numbers_as(self, other: "Column") -> bool:
        """Return whether all values agree, as accuracy and recall do where classes are of one size."""
        return self._numbers == other._numbers

    @property
    def _numbers(self) -> tuple[bool, bool, list[tuple[str, int, float]]]:
        values = [
            (name, seed, round(value, 9))
            for name, by_seed in self.values.items()
            for seed, value in sorted(by_seed.items())
        ]
        return self.higher_is_better, self.marked, values


# --- making columns -----------------------------------------------------------------------------------------


def metric_column(
    grid: Grid, metric: str, column: str = "", *, fixed: Collection[str] = REFERENCES
) -> Column:
    """A metric of every row, at one column of the grid; no seed changes the `fixed` ones."""
    said = {row: grid.predictions(row, column) for row in grid.rows}
    return Column(
        values={
            row: {seed: score(grid.task, each)[metric] for seed, each in runs.items()}
            for row, runs in said.items()
        },
        compared=frozenset(
            row for row, runs in said.items() if all(each.ids == grid.ids for each in runs.values())
        ),
        scores=lambda row, seeds: scores_of(
            grid.task, [said[row][seed] for seed in seeds], metric, groups=grid.plan.test_groups
        ),
        higher_is_better=HIGHER_IS_BETTER[metric],
        bounds=RANGES[metric],
        fixed=frozenset(fixed),
        inflation=fold_inflation(grid.plan.folds),
    )


def combined(
    columns: Sequence[Column], weights: Sequence[float], *, higher_is_better: bool, marked: bool = True
) -> Column:
    """Weighted sum of columns by seed, such as a mean or a difference, of methods that have all."""

    def total(row: str, seed: int) -> float:
        return sum(weight * column.values[row][seed] for weight, column in zip(weights, columns, strict=True))

    values: dict[str, dict[int, float]] = {}
    for row in columns[0].values:
        seeds = set.intersection(*(set(column.values[row]) for column in columns))
        values[row] = {seed: total(row, seed) for seed in sorted(seeds)}
    ends = [[weight * end for end in column.bounds] for column, weight in zip(columns, weights, strict=True)]
    return Column(
        values=values,
        compared=frozenset.intersection(*(column.compared for column in columns)),
        scores=lambda row, seeds: _weighted([column.scores(row, seeds) for column in columns], weights),
        higher_is_better=higher_is_better,
        bounds=(sum(map(min, ends)), sum(map(max, ends))),
        marked=marked,
        inflation=columns[0].inflation,
    )


def _weighted(parts: Sequence[Scores], weights: Sequence[float]) -> Scores:
    if isinstance(parts[0], Grouped):
        alone = [part.scores for part in parts if isinstance(part, Grouped)]
        return replace(parts[0], scores=_of_rows(alone, weights))
    return _of_rows([part for part in parts if not isinstance(part, Grouped)], weights)


def _of_rows(parts: Sequence[ArrayLike | RowMetric], weights: Sequence[float]) -> ArrayLike | RowMetric:
    metrics = [part for part in parts if isinstance(part, RowMetric)]
    if metrics:
        runs = zip(*(part.runs for part in metrics), strict=True)

        def total(run: Sequence[Callable[[Any], float]]) -> Callable[[Any], float]:
            return lambda rows: float(
                sum(weight * statistic(rows) for weight, statistic in zip(weights, run, strict=True))
            )

        return RowMetric(runs=tuple(total(run) for run in runs), samples=metrics[0].samples)
    arrays = [np.atleast_2d(np.asarray(part, dtype=np.float64)) for part in parts]
    total_scores: NDArray[np.float64] = np.sum(
        [weight * array for weight, array in zip(weights, arrays, strict=True)], axis=0
    )
    return total_scores


def differences(
    column: Column, full: str, rows: Sequence[str]
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Each of some rows minus another one, with its adjusted p value; None where they cannot be compared."""
    standings: Mapping[str, Standing] = {}
    if full in column.methods and column.seeds:
        scores = {row: column.scores(row, column.seeds) for row in column.methods}
        with suppress(DataError):  # as for the marks of a column
            standings = compare_to(
                full, scores, fixed=column.fixed, resamples=RESAMPLES, inflation=column.inflation
            )
    least, most = combined([column, column], [1.0, -1.0], higher_is_better=True).bounds
    for row in rows:
        told = standings[row].to_best if row in standings else None
        if told is None:
            yield None, None
            continue
        values = [column.values[row][seed] - column.values[full][seed] for seed in column.seeds]
        low, high = max(told.low, least), min(told.high, most)
        known = math.isfinite(low) and math.isfinite(high)
        ends = {"low": low if known else None, "high": high if known else None, "seeds": tuple(column.seeds)}
        p_value = Entry(values=(), mean=standings[row].adjusted_p_value)
        yield Entry.of_seeds(values).model_copy(update=ends), p_value


# --- tables -------------------------------------------------------------------------------------------------


def headline(task: Task | Target) -> str:
    """The metric by which methods are distinguished first."""
    return next((metric for metric in TABLED if metric in metric_names(task)), metric_names(task)[0])


def tabled(task: Task | Target) -> list[str]:
    """Metrics of a task, or of a further target, that have a table of their own; one at least."""
    return [metric for metric in TABLED if metric in metric_names(task)] or [headline(task)]


def of_each_target(grid: Grid, tables: Callable[[Grid], Iterator[ResultTable]]) -> Iterator[ResultTable]:
    """Tables of the task, where it is learned, and the same of each further target, whose names end with its
    name.
    """
    if not grid.plan.unlearned:
        yield from tables(grid)
    for target in grid.task.further if isinstance(grid.task, Task) else ():
        for table in tables(grid.of_target(target)):
            named = {"name": f"{table.name}-{target.name}", "title": f"{table.title}, target {target.name}"}
            yield table.model_copy(update=named)


def metrics_table(grid: Grid, title: str, *, row_label: str) -> ResultTable:
    """Rows by metrics, all that are columns at once; named like the experiment."""
    columns = {metric: metric_column(grid, metric) for metric in column_names(grid.task)}
    notes = notes_on(grid, columns, headline(grid.task))
    return table_of(grid, grid.experiment, title, columns, row_label=row_label, notes=notes)


def table_of(
    grid: Grid,
    name: str,
    title: str,
    columns: Mapping[str, Column],
    *,
    row_label: str,
    notes: Sequence[str],
    caption: str = "",
) -> ResultTable:
    """The rows of a grid by columns, with the best of each column marked, and notes on the marks first."""
    columns = _agreeing(columns)
    by_column = [column.entries(grid.rows) for column in columns.values()]
    return ResultTable(
        name=name,
        title=title,
        caption=caption,
        row_label=row_label,
        rows=grid.rows,
        columns=tuple(columns),
        entries=tuple(zip(*by_column, strict=True)),
        notes=(*_notes_on_marks(columns), *notes),
    )


def plain_table(
    name: str,
    title: str,
    values: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    row_label: str,
    bounds: tuple[float, float] = UNBOUNDED,
    caption: str = "",
) -> ResultTable:
    """A table without comparison: row to column to one value per seed, empty where there is none."""
    columns = tuple(dict.fromkeys(column for by_column in values.values() for column in by_column))
    return ResultTable(
        name=name,
        title=title,
        caption=caption,
        row_label=row_label,
        rows=tuple(values),
        columns=columns,
        entries=tuple(
            tuple(
                Entry.of_seeds(by_column[column], bounds=bounds) if column in by_column else None
                for column in columns
            )
            for by_column in values.values()
        ),
    )


def _agreeing(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Columns; those of the same numbers share their scores, so that intervals and marks agree."""
    agreeing: dict[str, Column] = {}
    for name, column in columns.items():
        same = next((each for each in agreeing.values() if column.same_numbers_as(each)), None)
        agreeing[name] = column if same is None else replace(column, scores=same.scores)
    return agreeing


# --- notes --------------------------------------------------------------------------------------------------


def notes_on(
    grid: Grid, columns: Mapping[str, Column], metric: str, *, at: str = "", more: Sequence[str] = ()
) -> list[str]:
    """Notes for the reader of a table of methods, on the differences of a metric at one column of the grid,
    or, without one, of columns that are metrics; `more` stands between the noise and the settings.
    """
    column = columns[at or metric]
    return [
        *_noise(grid, column, metric, at),
        *more,
        *_whose_settings(grid),
        *_references(grid, column),
        *_weights(grid, at),
        *of_groups(grid),
        *dashes((metric if at else name, score) for name, each in columns.items() for score in each.scored),
    ]


def on_differences(columns: Sequence[Column], metric: str) -> Iterator[str]:
    """Notes on intervals and p values of `differences` of a metric, if any are compared, and on dashes."""
    if seeds := max(len(column.seeds) for column in columns):
        yield differences_note(seeds=seeds, exact=any(column.exact for column in columns))
    yield from dashes((metric, score) for column in columns for score in column.scored)


def of_groups(grid: Grid) -> Iterator[str]:
    """Note on the groups of the samples whose target is known, if any are shared."""
    first = next((run for runs in grid.predictions_of.values() for run in runs.values()), None)
    if first is not None:
        yield from groups_note(known_part(grid.task, first).ids, grid.plan.test_groups)


def _notes_on_marks(columns: Mapping[str, Column]) -> Iterator[str]:
    """Rule of the marks, and on which seeds, if not on all that are shown."""
    counts = sorted({len(column.seeds) for column in columns.values() if column.standings})
    # one seed is tested otherwise than several
    for count in [counts[0], *counts[-1:]] if counts and counts[0] == 1 < counts[-1] else counts[:1]:
        yield marks_note(seeds=count, exact=any(each.exact for each in columns.values()))
    fewer = {
        name: column.seeds
        for name, column in columns.items()
        if column.standings
        and any(set(column.values[method]) - set(column.seeds) for method in column.methods)
    }
    same = len({tuple(seeds) for seeds in fewer.values()}) == 1 and len(fewer) == len(columns)
    for name, seeds in ({"": next(iter(fewer.values()))} if same else fewer).items():
        yield (
            f"Marks{f' of {name}' if name else ''} compare the seeds {', '.join(map(str, seeds))} alone,"
            " which all methods have finished."
        )
    numbers = [len(values) for column in columns.values() for values in column.values.values() if values]
    if numbers:
        yield interval_note(fewest=min(numbers))


def _noise(grid: Grid, column: Column, metric: str, at: str) -> Iterator[str]:
    """Note on the noise of a difference here."""
    first = next((run for row in grid.rows for run in grid.predictions(row, at).values()), None)
    if first is None:
        return
    name = f"{metric}, {at}" if at else metric
    counted = sample_scores(grid.task, first, metric)
    samples = len(first.ids) if counted is None else len(counted)
    best = max(float(np.mean(list(values.values()))) for values in column.values.values() if values)
    if first.lengths is not None:
        yield tokens_note(samples, int(first.lengths.sum()))
    elif metric.startswith("acc") and 0 < best < 1 and not column.grouped and column.inflation == 1:
        yield power_note(name, samples, best)
    least, most = column.bounds
    if told := reach_note(
        name, column.standings, seeds=len(column.seeds), samples=samples, widest=most - least
    ):
        yield told


def dashes(scores: Iterable[tuple[str, float]]) -> Iterator[str]:
    """Reasons of the numbers that are not there, one sentence each, from each metric and value of a table."""
    sums: dict[str, float] = {}
    for metric, value in scores:
        sums[metric] = sums.get(metric, 0.0) + value
    for why, metrics in undefined_by_reason(sums).items():
        yield f"–: {' and '.join(metrics)} {'are' if len(metrics) > 1 else 'is'} not defined where {why}."


def _whose_settings(grid: Grid) -> Iterator[str]:
    """One sentence, where methods were published with settings of their own: whether they ran with these."""
    if any(row in METHODS and METHODS[row].settings for row in grid.rows):
        own = grid.plan.settings.get("own_settings", False)
        whose = "the settings it was published with, if any" if own else "the settings that all share"
        yield f"Each method ran with {whose}."


def _references(grid: Grid, column: Column) -> Iterator[str]:
    """One sentence, where methods are solved instead of trained: how they enter a test over seeds."""
    names = [row for row in grid.rows if row in column.fixed]
    if names:
        yield (
            f"No seed changes the solution of {' and '.join(names)}, which therefore has no part in the"
            " variance over seeds; only what a seed withholds or splits off may change it."
        )


def _weights(grid: Grid, column: str) -> Iterator[str]:
    """One sentence: how many trained weights each row has."""
    first = {row: next(iter(grid.keys(row, column).values()), None) for row in grid.rows}
    counts = [f"{row} {grid.runs[keys[0]].weights:,}" for row, keys in first.items() if keys is not None]
    if counts:
        yield f"Trained weights: {', '.join(counts)}."
