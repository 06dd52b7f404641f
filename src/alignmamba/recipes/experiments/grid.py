"""Finished part of an experiment for its tables: predictions, facts of runs, notes on the rest."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar

from alignmamba.contracts import Predictions, Role, Target, Task
from alignmamba.evaluation.metrics import part_of
from alignmamba.evaluation.statistics_notes import folds_note
from alignmamba.recipes.experiments.cells import ExperimentRecord, State
from alignmamba.recipes.run_directory import METRICS
from alignmamba.recipes.run_records import RunFacts, read_record

_Form = TypeVar("_Form")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Finished part of an experiment; `grid_reader.read_grid` makes it."""

    path: Path
    """Directory of the experiment."""
    plan: ExperimentRecord
    """Content of ``experiment.json``."""
    task: Task | Target
    labels: Mapping[str, str]
    """Key to what a run is called, for all runs."""
    states: Mapping[str, State]
    """Key to what became of a run, for all runs."""
    runs: Mapping[str, RunFacts]
    """Key to facts, for runs that are finished and whole."""
    failures: Mapping[str, str]
    """Key to the reason why a run failed."""
    damaged: Mapping[str, str]
    """Key to what is wrong with a run that is finished."""
    predictions_of: Mapping[tuple[str, str], Mapping[int, Predictions]]
    """Row and column to seed to predictions."""

    def of_target(self, target: Target) -> Self:
        """The same grid of a further target alone, over the samples that have it."""
        found: dict[tuple[str, str], dict[int, Predictions]] = {}
        for place, seeds in self.predictions_of.items():
            parts = {seed: part_of(target, said) for seed, said in seeds.items()}
            found[place] = {seed: part for seed, part in parts.items() if part is not None and part.ids}
        return replace(self, task=target, predictions_of=found)

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.plan.experiment

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return self.plan.corpus.name

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows."""
        return tuple(dict.fromkeys(cell.row for cell in self.plan.cells))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(dict.fromkeys(cell.column for cell in self.plan.cells))

    def run_path(self, key: str) -> Path:
        """Directory of the run of a cell."""
        return self.path / "cells" / key

    def keys(self, row: str, column: str) -> dict[int, tuple[str, ...]]:
        """Seed to keys of the finished runs of one place, one for each fold; seeds that lack one are left."""
        found: dict[int, tuple[str, ...]] = {}
        for cell in self.plan.cells:
            if (cell.row, cell.column) == (row, column) and cell.key in self.runs:
                found[cell.seed] = (*found.get(cell.seed, ()), cell.key)
        return {seed: keys for seed, keys in found.items() if len(keys) == max(1, self.plan.folds)}

    def scores(self, row: str, column: str, role: Role, metric: str) -> dict[int, tuple[float, ...]]:
        """Seed to scores of the finished runs of one place, one for each fold; NaN where not defined. Runs
        that have no such score, as references of a further target, are left out.
        """
        name = f"{self.task.name}.{metric}" if isinstance(self.task, Target) else metric
        found: dict[int, tuple[float, ...]] = {}
        for seed, keys in self.keys(row, column).items():
            runs = [read_record(self.run_path(key) / METRICS, _Scored).metrics[role] for key in keys]
            if all(name in scores for scores in runs):
                values = [scores[name] for scores in runs]
                found[seed] = tuple(math.nan if value is None else value for value in values)
        return found

    def predictions(self, row: str, column: str) -> Mapping[int, Predictions]:
        """Seed to predictions of one place, as far as its runs are finished."""
        return self.predictions_of.get((row, column), {})

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The samples that methods are compared on: the most that any of them was scored on."""
        return max(
            (said.ids for runs in self.predictions_of.values() for said in runs.values()), key=len, default=()
        )

    def analysed(self, kind: str, file: str, form: type[_Form]) -> Iterator[tuple[str, _Form]]:
        """Row and JSON file of each analysis of a kind, by row, seed and fold, see `read_record`."""
        asked = dict.fromkeys(name for cell in self.plan.cells for name in cell.analyses)
        for row in self.rows:
            for key in (key for _, keys in sorted(self.keys(row, "").items()) for key in keys):
                folder = next(name for name in asked if name == kind or name.startswith(f"{kind}-"))
                yield row, read_record(self.run_path(key) / "analysis" / folder / file, form)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Missing parts, with the reason of each."""
        said = (*self._notes_on_runs(), *self._notes_on_samples())
        return tuple(" ".join(each.split()) for each in said)

    def _notes_on_runs(self) -> Iterator[str]:
        for key, why in self.failures.items():
            yield f"Failed: {self.labels[key]}: {why}"
        for key, why in self.damaged.items():
            yield f"Damaged: {self.labels[key]}: {why}"
        for name, why in self.plan.not_compared.items():
            yield f"Not compared: {name}: {why}."
        left = len(self.labels) - len(self.runs) - len(self.failures) - len(self.damaged)
        if left:
            yield f"{left} of {len(self.labels)} runs are not finished."

    def _notes_on_samples(self) -> Iterator[str]:
        if self.plan.folds:
            yield folds_note(self.plan.folds)
        missing = self.plan.missing
        if missing.get("protocol", "none") != "none":
            yield (
                f"All runs are trained and scored with modalities withheld: protocol {missing['protocol']},"
                f" rate {missing['rate']}."
            )
        fewer = {
            row: len(said.ids)
            for (row, _), runs in self.predictions_of.items()
            for said in runs.values()
            if said.ids != self.ids
        }
        for row, count in fewer.items():
            yield (
                f"{row} is scored on {count} of {len(self.ids)} samples, those that have a modality it"
                " reads, and is not compared."
            )
        versions = {run.version for run in self.runs.values()}
        if len(versions) > 1:
            yield f"Runs were made by different versions of alignmamba: {', '.join(sorted(versions))}."


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """Part of ``metrics.json`` with scores."""

    metrics: dict[Role, dict[str, float | None]]
