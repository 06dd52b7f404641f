"""Table of what a score varies by: the draw of data, the seed of training, and tuning."""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress

import numpy as np

from alignmamba.errors import DataError
from alignmamba.evaluation.seed_variance import Parts, measured
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.evaluation.variance_sources import crossed, nested
from alignmamba.recipes.experiments.columns import RESAMPLES, Column, headline, metric_column
from alignmamba.recipes.experiments.grid import Grid

DATA, SAMPLES, SEED, TUNING, BOTH = (
    "draw of data",
    "test samples",
    "seed of training",
    "tuning",
    "seed and tuning together",
)
"""Sources."""


def variance_tables(grid: Grid) -> Iterator[ResultTable]:
    """Standard deviation of one run's score by each source that the design separates, by row; no table below
    two seeds.
    """
    metric = headline(grid.task)
    column = metric_column(grid, metric)
    found = {row: _parts(grid, column, row, metric) for row in grid.rows}
    known = {source for of in found.values() for source in of}
    sources = [source for source in (DATA, SAMPLES, SEED, TUNING, BOTH) if source in known]
    if len(sources) < 2:
        return
    yield ResultTable(
        name=f"{grid.experiment}-variance",
        title=f"Standard deviation of {metric} of one run on {grid.corpus} by its sources, test",
        row_label="method",
        rows=grid.rows,
        columns=tuple(sources),
        entries=tuple(tuple(_entry(found[row].get(source)) for source in sources) for row in grid.rows),
        notes=tuple(_notes(grid, column)),
    )


def _entry(variance: float | None) -> Entry | None:
    """Standard deviation; 0 where an estimate is negative."""
    return None if variance is None else Entry(values=(), mean=math.sqrt(max(0.0, variance)))


def _searches(grid: Grid) -> int:
    return int(grid.plan.tuned.get("searches", 1))


def _parts(grid: Grid, column: Column, row: str, metric: str) -> Mapping[str, float]:
    """Variance of a row by each source; none where its scores do not show it."""
    if grid.plan.folds:
        by_seed = [scores for _, scores in sorted(grid.scores(row, "", "test", metric).items())]
        with suppress(DataError):  # too few seeds, or scores that are not defined
            found = crossed(np.array(by_seed).T)
            return {DATA: found.of_rows, SEED: found.of_columns + found.rest}
        return {}
    values, searches = column.values[row], _searches(grid)
    seeds = sorted(values)
    try:
        level = Parts.of(measured({row: column.scores(row, seeds)}, seed=0, resamples=RESAMPLES)[row])
    except DataError:  # nothing is finished, or the metric is not defined
        return {}
    samples = {SAMPLES: level.of_samples + level.within * (len(seeds) - 1) / len(seeds)}
    if len(seeds) < 2:
        return samples
    if searches == 1:
        return {**samples, SEED: level.between - level.within}
    with suppress(DataError):  # no search has two seeds
        by_search = [[values[seed] for seed in seeds if seed % searches == each] for each in range(searches)]
        split = nested([group for group in by_search if group])
        return {**samples, SEED: split.within - level.within, TUNING: split.between}
    return {**samples, BOTH: level.between - level.within}


def _notes(grid: Grid, column: Column) -> Iterator[str]:
    """Notes on the estimates, and on sources that the design does not separate."""
    folds, searches = grid.plan.folds, _searches(grid)
    if folds:
        yield (
            f"{DATA}: variance over the {folds} folds, of train and test samples together, beyond what seeds"
            f" explain. {SEED}: variance over seeds within a fold. By two-way analysis of variance; 0 where"
            " an estimate is negative."
        )
    else:
        drawn = "whole groups of test samples" if column.grouped else "the test samples"
        yield (
            f"{SAMPLES}: bootstrap over {drawn}, of one trained model. {SEED}: variance over seeds"
            " beyond what single samples explain; 0 where an estimate is negative."
        )
        if grid.plan.split_valid is None:
            yield "The draw of training samples is the same in all runs; --folds shows what it changes."
        else:
            yield f"Each seed draws its own valid split from train: {SEED} includes what that changes."
    if searches > 1:
        yield (
            f"{TUNING}: variance between {searches} searches beyond that of seeds within one, by one-way"
            " analysis of variance. It needs more seeds than searches."
        )
    else:
        yield "Settings of a method are the same in all runs, so tuning has no part in it."
