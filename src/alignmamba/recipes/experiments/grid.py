"""From finished cells to columns of a table: means over seeds with intervals, the best marked by a paired
test, what failed said below.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from alignmamba.checksums import read_listed
from alignmamba.contracts import Predictions, Task
from alignmamba.errors import CheckpointError, DataError, first_fault
from alignmamba.evaluation.metrics import HIGHER_IS_BETTER, RANGES, metric_names, sample_scores, score
from alignmamba.evaluation.statistics import (
    RowMetric,
    Scores,
    Standing,
    compare_to_best,
    interval,
    interval_note,
    marks_note,
    power_note,
    reach_note,
    scores_of,
)
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.files import parse_json
from alignmamba.methods import METHODS
from alignmamba.recipes.experiments.cells import Job
from alignmamba.recipes.experiments.grid_directory import ExperimentDirectory, State
from alignmamba.recipes.run_directory import ENVIRONMENT, METRICS, TABLE_BYTES
from alignmamba.training.logs import LOG

# What a table of missing rates is made of, one table each; the first that a task has is also what its
# ablations are told by.
TOLD: Final = ("accuracy", "f1_weighted", "acc2_non0", "f1_non0", "mae")
RESAMPLES: Final = 500


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is finished of an experiment."""

    directory: ExperimentDirectory
    plan: Mapping[str, Any]
    jobs: Mapping[str, Job]
    states: Mapping[str, State]
    """Key to what became of its job."""
    finished: frozenset[str]
    """Keys."""
    predictions_of: Mapping[tuple[str, str], Mapping[int, Predictions]]
    """Row and column to seed to predictions."""
    damaged: Mapping[str, str]
    """Key to what is wrong with a cell that is finished."""
    seconds: Mapping[str, float]
    """Key to what the epochs of a finished run took."""

    @classmethod
    def read(cls, directory: ExperimentDirectory, plan: Mapping[str, Any]) -> "Grid":
        """Look at the state of every job, and read what the finished ones predicted."""
        try:
            task = Task.model_validate(plan["task"])
            jobs = {entry["key"]: directory.job(entry["key"]) for entry in plan["cells"]}
        except (KeyError, TypeError, ValidationError) as error:
            raise CheckpointError(
                f"experiment {directory.path}: its plan is not one that this version wrote, it lacks {error}"
            ) from error
        states = {key: directory.state(job) for key, job in jobs.items()}
        done = {key for key, state in states.items() if state == "finished"}
        found: dict[tuple[str, str], dict[int, Predictions]] = {}
        damaged: dict[str, str] = {}
        seconds: dict[str, float] = {}
        for entry in plan["cells"]:
            key = entry["key"]
            if key not in done:
                continue
            try:
                run = directory.run_path(key)
                for name, form in ((METRICS, _Trained), (ENVIRONMENT, _Made)):
                    read_facts(run / name, form)
                seconds[key] = _training_seconds(run)
                said = read_predictions(run / entry["predictions"], task)
                found.setdefault((entry["row"], entry["column"]), {})[entry["seed"]] = said
            except (CheckpointError, KeyError, TypeError) as error:
                damaged[key] = f"{error}; to run it again, remove {directory.run_path(key)}"
        done -= damaged.keys()
        return cls(
            directory=directory,
            plan=plan,
            jobs=jobs,
            states=states,
            finished=frozenset(done),
            predictions_of=found,
            damaged=damaged,
            seconds=seconds,
        )

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.plan["experiment"])

    @cached_property
    def task(self) -> Task:
        """What is predicted."""
        return Task.model_validate(self.plan["task"])

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return str(self.plan["corpus"]["name"])

    def _distinct(self, field: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(entry[field]) for entry in self.plan["cells"]))

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows."""
        return self._distinct("row")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self._distinct("column")

    def keys(self, row: str, column: str) -> dict[int, str]:
        """Seed to key of the finished runs of one place."""
        return {
            entry["seed"]: entry["key"]
            for entry in self._entries(row, column)
            if entry["key"] in self.finished
        }

    def _entries(self, row: str, column: str) -> list[Mapping[str, Any]]:
        return [entry for entry in self.plan["cells"] if (entry["row"], entry["column"]) == (row, column)]

    def predictions(self, row: str, column: str) -> Mapping[int, Predictions]:
        """Seed to predictions of one place, as far as its runs are finished."""
        return self.predictions_of.get((row, column), {})

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The samples that methods are compared on: the most that any of them was scored on."""
        return max(
            (said.ids for runs in self.predictions_of.values() for said in runs.values()), key=len, default=()
        )

    def analysis(self, kind: str) -> str:
        """Name of the analysis of that kind that was asked for."""
        names = (str(name) for entry in self.plan["cells"] for name in entry["analyses"])
        return next(name for name in names if name == kind or name.startswith(f"{kind}-"))

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What is not there, and why."""
        said = []
        failed = {key: job for key, job in self.jobs.items() if self.states[key] == "failed"}
        said += [f"Failed: {job.label}: {self.directory.failure(key)}" for key, job in failed.items()]
        said += [f"Damaged: {self.jobs[key].label}: {why}" for key, why in self.damaged.items()]
        said += [f"Not compared: {name}: {why}." for name, why in self.plan.get("not_compared", {}).items()]
        left = len(self.jobs) - len(self.finished) - len(failed) - len(self.damaged)
        if left:
            said.append(f"{left} of {len(self.jobs)} runs are not finished.")
        if self.plan.get("missing", {}).get("protocol", "none") != "none":
            missing = self.plan["missing"]
            said.append(
                f"All runs are trained and scored with modalities withheld: protocol {missing['protocol']},"
                f" rate {missing['rate']}."
            )
        fewer = {
            row: len(said.ids)
            for (row, _), runs in self.predictions_of.items()
            for said in runs.values()
            if said.ids != self.ids
        }
        said += [
            f"{row} is scored on {count} of {len(self.ids)} samples, those that have anything of it, and is"
            " not compared."
            for row, count in fewer.items()
        ]
        versions = {
            read_facts(self.directory.run_path(key) / ENVIRONMENT, _Made).versions.get("alignmamba")
            for key in self.finished
        }
        if len(versions) > 1:
            said.append(
                "Runs were made by different versions of alignmamba:"
                f" {', '.join(sorted(map(str, versions)))}."
            )
        return tuple(" ".join(each.split()) for each in said)


# --- one column of a table ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Column:
    """One number per method and seed, with what a paired test needs to know of it."""

    values: Mapping[str, Mapping[int, float]]
    """Method to seed to value."""
    compared: frozenset[str]
    """The methods that were scored on the same samples."""
    scores: Callable[[str, Sequence[int]], Scores]
    """Of a method under some seeds."""
    higher_is_better: bool
    bounds: tuple[float, float]
    """Least and largest possible value."""
    marked: bool = True
    """Whether it makes sense to say which method is best."""

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
            return compare_to_best(scores, higher_is_better=self.higher_is_better, resamples=RESAMPLES)
        # a test split on which the metric can be told, but not how it varies: of one sample, for example
        except DataError:
            return {}

    def entries(self, rows: Sequence[str]) -> list[Entry | None]:
        """The column from the top; None where nothing is finished."""
        return [self._entry(name) if self.values[name] else None for name in rows]

    def _entry(self, name: str) -> Entry:
        seeds = sorted(self.values[name])
        mark = self.standings[name].mark if name in self.standings else ""
        values = [self.values[name][seed] for seed in seeds]
        try:
            estimate = interval(self.scores(name, seeds), bounds=self.bounds, resamples=RESAMPLES)
        except DataError:  # as for the standings
            estimate = None
        entry = Entry.of_seeds(values, mark=mark, bounds=self.bounds, estimate=estimate)
        return entry.model_copy(update={"seeds": tuple(seeds)})

    def same_numbers_as(self, other: "Column") -> bool:
        """Whether every method has the same values under every seed in both, as accuracy and recall have
        where classes are of one size.
        """

        def numbers(column: Column) -> list[tuple[str, int, float]]:
            return [
                (name, seed, round(value, 9))
                for name, by_seed in column.values.items()
                for seed, value in sorted(by_seed.items())
            ]

        return (self.higher_is_better, self.marked, numbers(self)) == (
            other.higher_is_better,
            other.marked,
            numbers(other),
        )


def metric_column(grid: Grid, metric: str, column: str = "") -> Column:
    """A metric of every row, at one column of the grid."""
    said = {row: grid.predictions(row, column) for row in grid.rows}
    return Column(
        values={
            row: {seed: score(grid.task, each)[metric] for seed, each in runs.items()}
            for row, runs in said.items()
        },
        compared=frozenset(
            row for row, runs in said.items() if all(each.ids == grid.ids for each in runs.values())
        ),
        scores=lambda row, seeds: scores_of(grid.task, [said[row][seed] for seed in seeds], metric),
        higher_is_better=HIGHER_IS_BETTER[metric],
        bounds=RANGES[metric],
    )


def combined(
    columns: Sequence[Column], weights: Sequence[float], *, higher_is_better: bool, marked: bool = True
) -> Column:
    """The weighted sum of columns, by seed, for example their mean or a difference; of methods that have all
    of them.
    """
    rows = list(columns[0].values)
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        seeds = set.intersection(*(set(column.values[row]) for column in columns))
        values[row] = {
            seed: sum(
                weight * column.values[row][seed] for weight, column in zip(weights, columns, strict=True)
            )
            for seed in sorted(seeds)
        }

    def scores(row: str, seeds: Sequence[int]) -> Scores:
        return _weighted([column.scores(row, seeds) for column in columns], weights)

    compared = frozenset.intersection(*(column.compared for column in columns))
    ends = [[weight * end for end in column.bounds] for column, weight in zip(columns, weights, strict=True)]
    bounds = (sum(map(min, ends)), sum(map(max, ends)))
    return Column(
        values=values,
        compared=compared,
        scores=scores,
        higher_is_better=higher_is_better,
        bounds=bounds,
        marked=marked,
    )


def _weighted(parts: Sequence[Scores], weights: Sequence[float]) -> Scores:
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


def table_of(
    grid: Grid, name: str, title: str, columns: Mapping[str, Column], *, row_label: str, **more: Any
) -> ResultTable:
    rows = grid.rows
    columns = _agreeing(columns)
    by_column = [column.entries(rows) for column in columns.values()]
    more["notes"] = [*_how_marked(columns), *more["notes"]]
    return ResultTable(
        name=name,
        title=title,
        row_label=row_label,
        rows=rows,
        columns=tuple(columns),
        entries=tuple(zip(*by_column, strict=True)),
        **more,
    )


def _agreeing(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns, those of the same numbers with the same scores behind them: their intervals and marks are
    then the same too.
    """
    agreeing: dict[str, Column] = {}
    for name, column in columns.items():
        same = next((each for each in agreeing.values() if column.same_numbers_as(each)), None)
        agreeing[name] = column if same is None else replace(column, scores=same.scores)
    return agreeing


def _how_marked(columns: Mapping[str, Column]) -> list[str]:
    """How marks were decided, and on which seeds, if not on all that are shown."""
    counts = sorted({len(column.seeds) for column in columns.values() if column.standings})
    notes = [
        marks_note(seeds=count)
        for count in ([counts[0], *counts[-1:]] if counts and counts[0] == 1 < counts[-1] else counts[:1])
    ]
    fewer = {
        name: column.seeds
        for name, column in columns.items()
        if column.standings
        and any(set(column.values[method]) - set(column.seeds) for method in column.methods)
    }
    same = len({tuple(seeds) for seeds in fewer.values()}) == 1 and len(fewer) == len(columns)
    told = {"": next(iter(fewer.values()))} if same else fewer
    notes += [
        f"Marks{f' of {name}' if name else ''} compare the seeds {', '.join(map(str, seeds))} alone, which"
        " all methods have finished."
        for name, seeds in told.items()
    ]
    fewest = min(
        (len(values) for column in columns.values() for values in column.values.values() if values), default=0
    )
    return [*notes, interval_note(fewest=fewest)] if fewest else notes


def noise(grid: Grid, column: Column, metric: str, at: str = "") -> list[str]:
    """How much of a difference is noise here."""
    notes: list[str] = []
    best = max(
        (float(np.mean(list(values.values()))) for values in column.values.values() if values), default=0.0
    )
    first = next((run for row in grid.rows for run in grid.predictions(row, at).values()), None)
    if first is None:
        return notes
    counted = sample_scores(grid.task, first, metric)
    samples = len(first.ids) if counted is None else len(counted)
    if metric.startswith("acc") and 0 < best < 1:
        notes.append(power_note(metric, samples, best))
    told = reach_note(metric, column.standings, seeds=len(column.seeds), samples=samples)
    return [*notes, told] if told else notes


def headline(task: Task) -> str:
    """The metric by which methods are told apart first."""
    return next((metric for metric in TOLD if metric in metric_names(task)), metric_names(task)[0])


def metrics_table(grid: Grid, title: str, *, row_label: str) -> ResultTable:
    """Rows by metrics, all at once; named like the experiment."""
    columns = {metric: metric_column(grid, metric) for metric in metric_names(grid.task)}
    first = headline(grid.task)
    notes = [*noise(grid, columns[first], first), *whose_settings(grid), *weights_note(grid, "")]
    return table_of(grid, grid.experiment, title, columns, row_label=row_label, notes=notes)


def whose_settings(grid: Grid) -> list[str]:
    """One sentence, where methods were published with settings of their own: whether they ran with these."""
    if not any(row in METHODS and METHODS[row].settings for row in grid.rows):
        return []
    own = grid.plan["settings"].get("own_settings", False)
    return [
        "Each method ran with"
        f" {'the settings it was published with' if own else 'the settings that all share'}."
    ]


def weights_note(grid: Grid, column: str) -> list[str]:
    """One sentence: how many trained weights each row has."""
    keys = {row: next(iter(grid.keys(row, column).values()), None) for row in grid.rows}
    runs = {row: grid.directory.run_path(key) for row, key in keys.items() if key is not None}
    counts = {row: trained_weights(run) for row, run in runs.items()}
    return (
        [f"Trained weights: {', '.join(f'{row} {count:,}' for row, count in counts.items())}."]
        if counts
        else []
    )


# --- files of a cell ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """Of a cell's ``metrics.json``."""

    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class _Made:
    """Of its ``environment.json``."""

    versions: dict[str, Any]


_Form = TypeVar("_Form")


def trained_weights(run: Path) -> int:
    """How many weights of a finished run training has changed."""
    return read_facts(run / METRICS, _Trained).num_parameters


def _training_seconds(run: Path) -> float:
    """Sum over the epochs of a finished run, in seconds.

    Raises:
        CheckpointError: If the table of epochs is missing or damaged.
    """
    text = read_listed(run, LOG, limit_bytes=TABLE_BYTES)
    try:
        return sum(float(epoch["seconds"]) for epoch in csv.DictReader(io.StringIO(text.decode("utf-8"))))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{run / LOG}: not a table of epochs: {error}") from error


def read_facts(path: Path, form: type[_Form]) -> _Form:
    """What tables need of a JSON file of a finished cell.

    Args:
        path: The file.
        form: A dataclass with the fields that are needed; others may be there.

    Raises:
        CheckpointError: If the file is missing or damaged, or a field is missing or of another type; the
            message names it.
    """
    found = parse_json(
        read_listed(path.parent, path.name, limit_bytes=TABLE_BYTES), str(path), error=CheckpointError
    )
    try:
        return TypeAdapter(form).validate_python(found)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_fault(error)}") from error


def read_predictions(path: Path, task: Task) -> Predictions:
    """A table of predictions with targets, as `recipes.run_directory.prediction_table` writes it.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    content = read_listed(path.parent, path.name, limit_bytes=TABLE_BYTES)
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        ids = tuple(row["id"] for row in rows)
        if task.kind == "regression":
            prediction = np.array([float(row["prediction"]) for row in rows])
            targets = np.array([float(row["target"]) for row in rows])
        else:
            prediction = np.array([[float(row[f"p({name})"]) for name in task.classes] for row in rows])
            targets = np.array([task.classes.index(row["target"]) for row in rows])
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise CheckpointError(
            f"{path}: expected a table of predictions, found none that can be read ({error})"
        ) from error
    return Predictions(ids=ids, prediction=prediction, targets=targets)
