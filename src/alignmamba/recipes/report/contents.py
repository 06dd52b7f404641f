"""Content of the directory of an experiment or a run; a damaged file is refused by its name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from alignmamba.checksums import read_listed
from alignmamba.contracts import Predictions, Task
from alignmamba.errors import CheckpointError, DataError
from alignmamba.evaluation.metrics import RANGES, metric_names
from alignmamba.evaluation.seed_variance import scores_of
from alignmamba.evaluation.statistics import interval
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.models.pretrained import CONFIG_FILE
from alignmamba.recipes.experiments.cells import CellRecord, ExperimentRecord, State
from alignmamba.recipes.experiments.grid_directory import PLAN, ExperimentDirectory
from alignmamba.recipes.report.findings import RUN, Figure, Found, Gathered
from alignmamba.recipes.report.run_results import read_confusion, read_plans, read_samples
from alignmamba.recipes.run_directory import (
    CONFIG,
    ENVIRONMENT,
    IDENTITY,
    METRICS,
    MODEL,
    TABLE_BYTES,
    RunDirectory,
)
from alignmamba.recipes.run_records import (
    Failure,
    RunEnvironment,
    RunIdentity,
    RunSummary,
    Samples,
    SavedModel,
    read_log,
    read_predictions,
    read_record,
    read_text,
)
from alignmamba.training.logs import LOG

RESAMPLES: Final = 1000
"""Scores of the samples of a split, for the intervals of single runs."""
MOST_PREDICTIONS: Final = 150_000
"""Predictions that a page holds; beyond, those of later columns are left out."""
MOST_PLAN_TOKENS: Final = 60_000
"""Matched tokens of transport plans that a page holds; beyond, samples are left out."""
OVER_SAMPLES: Final = (
    "Intervals are over the samples of the split and stay within the range of the metric: "
    "they speak of this trained model, not of another seed."
)


def gather(directory: Path) -> Gathered:
    """Read an experiment or a single run, finished or not; a `CheckpointError` names a damaged file."""
    page = _Room()
    if (directory / PLAN).is_file():
        grid = ExperimentDirectory(directory)
        experiment, tables = grid.plan(), _tables(directory)
        found = [page.take_cell(grid, cell) for cell in experiment.cells]
    elif (directory / CONFIG).is_file() and (directory / IDENTITY).is_file():
        experiment = _run_as_experiment(directory)
        state: State = "finished" if (directory / METRICS).is_file() else "begun"
        found = [page.take(experiment.cells[0], state, "", directory, probabilities=True)]
        tables = _run_tables(directory, experiment.task)
    elif directory.exists():
        raise CheckpointError(
            f"{directory}: expected the directory of an experiment or a run, found neither {PLAN} nor"
            f" {IDENTITY}"
        )
    else:
        raise CheckpointError(f"{directory}: no such directory")
    return Gathered(
        directory=directory,
        experiment=experiment,
        found=tuple(found),
        tables=tables,
        figures=_figures(directory / "figures"),
        left_out=page.left_out(),
    )


@dataclass
class _Room:
    """Room that a page still has."""

    predictions: int = field(default_factory=lambda: MOST_PREDICTIONS)
    tokens: int = field(default_factory=lambda: MOST_PLAN_TOKENS)
    places: set[tuple[str, str]] = field(default_factory=set)
    """Rows and columns that have finished."""
    cells_without_samples: int = 0
    samples_without_plan: int = 0

    def take_cell(self, grid: ExperimentDirectory, cell: CellRecord) -> Found:
        """Read a cell of an experiment."""
        state = grid.state_of(cell.key, cell.analyses)
        error = read_record(grid.failure_path(cell.key), Failure).error if state == "failed" else ""
        return self.take(cell, state, error, grid.run_path(cell.key), probabilities=False)

    def take(self, cell: CellRecord, state: State, error: str, run: Path, *, probabilities: bool) -> Found:
        """Read a run, as far as there is room for its samples and plans."""
        if not (run / CONFIG).is_file():
            return Found(cell=cell, state=state, error=error)
        samples = self._samples(cell, run, probabilities=probabilities) if state == "finished" else None
        plans = []
        for sample in read_plans(run, cell.analyses):
            self.tokens -= sample.tokens_matched
            if self.tokens >= 0:
                plans.append(sample)
            else:
                self.samples_without_plan += 1
        summary = read_record(run / METRICS, RunSummary) if (run / METRICS).is_file() else None
        classes, confusion = read_confusion(run, cell.predictions)
        return Found(
            cell=cell,
            state=state,
            error=error,
            settings=read_text(run / CONFIG),
            versions=read_record(run / ENVIRONMENT, RunEnvironment).versions,
            log=read_log(run / LOG) if (run / LOG).is_file() else {},
            best_epoch=summary.best_epoch if summary else None,
            selected_by=summary.selected_by if summary else "",
            confusion=confusion,
            classes=classes,
            samples=samples,
            plans=tuple(plans),
        )

    def _samples(self, cell: CellRecord, run: Path, *, probabilities: bool) -> Samples | None:
        """Samples of the first finished seed of each place; of the first place, however many they are."""
        if (cell.row, cell.column) in self.places:
            return None
        self.places.add((cell.row, cell.column))
        samples = read_samples(run, cell.predictions, probabilities=probabilities)
        if samples is not None:
            self.predictions -= len(samples.ids)
            if self.predictions < 0 and len(self.places) > 1:
                self.cells_without_samples += 1
                return None
        return samples

    def left_out(self) -> tuple[str, ...]:
        """Sentences on what there was no room for."""
        cells, samples = self.cells_without_samples, self.samples_without_plan
        said = (
            (cells, f"predictions of {cells} more cell", "cells/*/predictions_*.csv"),
            (samples, f"transport plans of {samples} more sample", "cells/*/analysis/plans/plans.json"),
        )
        return tuple(
            f"The {what}{'' if count == 1 else 's'} are dropped to keep this page small; they lie in {files}."
            for count, what, files in said
            if count
        )


# A single run


def _run_as_experiment(directory: Path) -> ExperimentRecord:
    config = RunDirectory.open(directory).config()
    identity = read_record(directory / IDENTITY, RunIdentity)
    command = read_record(directory / ENVIRONMENT, RunEnvironment).command
    environment: dict[str, Any] = read_record(directory / ENVIRONMENT, dict)
    # As a person would type it, where the program was ours.
    ours = [Path(each).name for each in command[:1]] in (["alignmamba"], ["__main__.py"])
    model = directory / MODEL / CONFIG_FILE
    cell = CellRecord(
        key=identity.digest[:16], row=config.model, column="", seed=identity.seed, digest=identity.digest
    )
    return ExperimentRecord(
        experiment=RUN,
        command=("alignmamba", *command[1:]) if ours else command,
        environment=environment,
        corpus=identity.corpus,
        data=config.data,
        task=read_record(model, SavedModel).task if model.is_file() else None,
        seeds=(identity.seed,),
        cells=(cell,),
    )


def _run_tables(directory: Path, task: Task | None) -> tuple[ResultTable, ...]:
    """The scores of a finished run: one row per split."""
    path = directory / METRICS
    if not path.is_file():
        return ()
    summary = read_record(path, RunSummary)
    rows = tuple(sorted(summary.metrics))
    columns = tuple(dict.fromkeys(name for scores in summary.metrics.values() for name in scores))
    entries = []
    for role in rows:
        predictions, scores = scored(directory, role, task), summary.metrics[role]
        entries.append(tuple(_run_entry(scores, name, predictions, task) for name in columns))
    notes = [OVER_SAMPLES] if any(entry and entry.low is not None for row in entries for entry in row) else []
    if summary.references:
        known = (f"{name.replace('_', ' ')} {value:.3f}" for name, value in summary.references.items())
        notes.append(f"Known of the corpus: {', '.join(known)}.")
    kept = f"Epoch {summary.best_epoch} of {summary.epochs} was kept"
    table = ResultTable(
        name="metrics",
        title="Scores",
        caption=f"{kept}; {summary.num_parameters:,} trained weights.",
        row_label="split",
        rows=rows,
        columns=columns,
        entries=tuple(entries),
        notes=tuple(notes),
    )
    return (table,)


def scored(directory: Path, role: str, task: Task | None) -> Predictions | None:
    """The predictions of a split that can be scored."""
    path = directory / f"predictions_{role}.csv"
    if task is None or not path.is_file():
        return None
    samples = read_predictions(path, role, probabilities=True)
    fits = samples.targets is not None and len(samples.ids) > 0 and samples.classes == task.classes
    return samples.as_predictions(task) if fits else None


def _run_entry(
    scores: Mapping[str, float | None], name: str, predictions: Predictions | None, task: Task | None
) -> Entry | None:
    """A score with its interval over samples, which is left out where the metric is not defined."""
    if name not in scores:
        return None
    value = scores[name]
    entry = Entry(values=(value,), mean=value)
    if predictions is None or task is None or value is None or name not in metric_names(task):
        return entry
    try:
        found = interval(scores_of(task, [predictions], name), bounds=RANGES[name], resamples=RESAMPLES)
    except DataError:  # one sample, or not defined on the resamples
        return entry
    return entry.model_copy(update={"low": found.low, "high": found.high})


# Files of an experiment


def _tables(directory: Path) -> tuple[ResultTable, ...]:
    paths = sorted((directory / "tables").glob("*.json"), key=lambda path: path.stem)
    return tuple(read_record(path, ResultTable) for path in paths)


def _figures(directory: Path) -> tuple[Figure, ...]:
    """One per name: as SVG where there is one."""
    kinds: tuple[Literal["svg"], Literal["png"]] = ("svg", "png")
    paths = {path.stem: (path, kind) for kind in reversed(kinds) for path in directory.glob(f"*.{kind}")}
    return tuple(
        Figure(name=name, kind=kind, content=read_listed(path.parent, path.name, limit_bytes=TABLE_BYTES))
        for name, (path, kind) in sorted(paths.items())
    )
