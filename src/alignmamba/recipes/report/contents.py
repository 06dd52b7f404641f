"""Content of the directory of an experiment or a run; a damaged file is refused, or reported, by its name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from alignmamba.checksums import read_listed
from alignmamba.contracts import Predictions, Role, Task
from alignmamba.errors import CheckpointError, DataError, counted
from alignmamba.evaluation.metrics import RANGES, known_part, metric_names, part_named
from alignmamba.evaluation.seed_variance import groups_by_id, scores_of
from alignmamba.evaluation.statistics import interval
from alignmamba.evaluation.statistics_notes import groups_note
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
    way_to_folds,
)
from alignmamba.recipes.run_records import (
    RunEnvironment,
    RunIdentity,
    RunSummary,
    Samples,
    SavedModel,
    check_analyses,
    read_further,
    read_log,
    read_predictions,
    read_record,
    read_text,
)
from alignmamba.recipes.tuning.tuning_directory import RECORD as SEARCH
from alignmamba.training.logs import LOG

RESAMPLES: Final = 1000
"""Scores of the samples of a split, for the intervals of single runs."""
MOST_PREDICTIONS: Final = 150_000
"""Predictions that a page holds; beyond, those of later columns are left out."""
MOST_PLAN_TOKENS: Final = 60_000
"""Matched tokens of transport plans that a page holds; beyond, samples are left out."""
BY_SPLIT: Final = "split"
"""Label of the rows of a table of scores of a run."""
OVER_SAMPLES: Final = (
    "Intervals are over the samples of the split and stay within the range of the metric: "
    "they speak of this trained model, not of another seed."
)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Predictions of a run of a split whose targets are known."""

    task: Task
    role: Role
    predictions: Predictions
    groups: Mapping[str, str]
    """Id to group, as `groups_by_id` has it."""


def gather(directory: Path) -> Gathered:
    """Read an experiment or a single run, finished or not; a `CheckpointError` names a damaged file. A
    damaged run of an experiment is among those that are not done.
    """
    page = _Room()
    if (directory / PLAN).is_file():
        grid = ExperimentDirectory(directory)
        experiment = grid.plan()
        tables = _tables(directory, experiment.task)
        found = [page.take_cell(grid, cell) for cell in experiment.cells]
    elif (directory / CONFIG).is_file() and (directory / IDENTITY).is_file():
        experiment = _run_as_experiment(directory)
        state: State = "finished" if (directory / METRICS).is_file() else "begun"
        found = [page.take(experiment.cells[0], state, "", directory, probabilities=True)]
        tables = _run_tables(directory, experiment.task)
    elif (directory / SEARCH).is_file():
        raise CheckpointError(
            f"{directory}: holds a search, expected an experiment or a run; alignmamba tune show {directory}"
            " shows it"
        )
    elif directory.exists():
        raise CheckpointError(
            f"{directory}: expected the directory of an experiment or a run, found neither {PLAN} nor"
            f" {IDENTITY}{way_to_folds(directory)}"
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
        """Read a cell of an experiment; a damaged one is named, and the others are read."""
        state = grid.state_of(cell.key, cell.analyses)
        error = grid.failure(cell.key) if state == "failed" else ""
        try:
            if state == "finished":
                check_analyses(grid.run_path(cell.key), cell.analyses)
            return self.take(cell, state, error, grid.run_path(cell.key), probabilities=False)
        except CheckpointError as fault:
            return Found(
                cell=cell, state="damaged" if state == "finished" else state, error=error or str(fault)
            )

    def take(self, cell: CellRecord, state: State, error: str, run: Path, *, probabilities: bool) -> Found:
        """Read a run, as far as there is room for its samples and plans."""
        if not (run / CONFIG).is_file():
            return Found(cell=cell, state=state, error=error)
        summary = read_record(run / METRICS, RunSummary) if (run / METRICS).is_file() else None
        classes, confusion = read_confusion(run, cell.predictions)
        log = read_log(run / LOG) if (run / LOG).is_file() else {}
        settings, versions = read_text(run / CONFIG), read_record(run / ENVIRONMENT, RunEnvironment).versions
        plans = []
        for sample in read_plans(run, cell.analyses):
            self.tokens -= sample.tokens_matched
            if self.tokens >= 0:
                plans.append(sample)
            else:
                self.samples_without_plan += 1
        # last: the place of a run of which something cannot be read is free for the next seed
        samples = self._samples(cell, run, probabilities=probabilities) if state == "finished" else None
        return Found(
            cell=cell,
            state=state,
            error=error,
            settings=settings,
            versions=versions,
            log=log,
            best_epoch=summary.best_epoch if summary else None,
            selected_by=summary.selected_by if summary else "",
            confusion=confusion,
            classes=classes,
            samples=samples,
            plans=tuple(plans),
        )

    def _samples(self, cell: CellRecord, run: Path, *, probabilities: bool) -> Samples | None:
        """Samples of the first finished seed of each place; of the first place, however many they are. Those
        of other seeds are read too, as the tables rest on them.
        """
        samples = read_samples(run, cell.predictions, probabilities=probabilities)
        if (cell.row, cell.column) in self.places:
            return None
        self.places.add((cell.row, cell.column))
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
            (cells, "predictions", "more cell", "cells/*/predictions_*.csv"),
            (samples, "transport plans", "more sample", "cells/*/analysis/plans/plans.json"),
        )
        return tuple(
            f"The {what} of {counted(count, whose)} are dropped to keep this page small; they lie in {files}."
            for count, what, whose, files in said
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
    names = list(dict.fromkeys(name for scores in summary.metrics.values() for name in scores))
    kept = f"Epoch {summary.best_epoch} of {summary.epochs} was kept"
    known = [f"{name.replace('_', ' ')} {value:.3f}" for name, value in summary.references.items()]
    said = {role: scored(directory, role, task) for role in summary.metrics}
    targets = ["", *(target.name for target in task.further)] if task is not None else [""]
    tables = [_by_split(target, names, summary, said) for target in targets]
    tables[0] = tables[0].model_copy(
        update={
            "caption": f"{kept}; {summary.num_parameters:,} trained weights.",
            "notes": (*tables[0].notes, *([f"Known of the corpus: {', '.join(known)}."] if known else [])),
        }
    )
    return (*tables, *_by_label(names, summary))


def _by_split(
    target: str,
    names: Sequence[str],
    summary: RunSummary,
    said: Mapping[Role, Scored | None],
) -> ResultTable:
    """Scores of the task, or of a further target by its name: one row per split."""
    columns = tuple(name for name in names if "(" not in name and name.rpartition(".")[0] == target)
    rows = tuple(sorted(summary.metrics))
    entries = tuple(
        tuple(run_entry(known[name], name, said[role]) if name in known else None for name in columns)
        for role, known in sorted(summary.metrics.items())
    )
    spread = any(entry and entry.low is not None for row in entries for entry in row)
    return ResultTable(
        name=f"metrics-{target}" if target else "metrics",
        title=f"Scores of {target}" if target else "Scores",
        row_label=BY_SPLIT,
        rows=rows,
        columns=columns,
        entries=entries,
        notes=(OVER_SAMPLES, *of_groups([said[role] for role in rows], columns)) if spread else (),
    )


def _by_label(names: Sequence[str], summary: RunSummary) -> Iterator[ResultTable]:
    """Scores of each label of several, such as ``emotions.accuracy(sad)``: a table for each split."""
    places = {name: (name.partition("(")[0], name.partition("(")[2][:-1]) for name in names if "(" in name}
    for role, scores in sorted(summary.metrics.items()) if places else ():
        by_place = {place: scores.get(name) for name, place in places.items()}
        columns = tuple(dict.fromkeys(column for column, _ in by_place))
        rows = tuple(dict.fromkeys(label for _, label in by_place))
        values = [[by_place.get((column, label)) for column in columns] for label in rows]
        yield ResultTable(
            name=f"labels-{role}",
            title=f"Scores of each label on {role}",
            row_label="label",
            rows=rows,
            columns=columns,
            entries=tuple(tuple(Entry(values=(value,), mean=value) for value in row) for row in values),
        )


def of_groups(said: Iterable[Scored | None], columns: Sequence[str]) -> tuple[str, ...]:
    """Notes on what is drawn of splits whose samples share groups: those whose target, which the columns are
    of, is known.
    """
    notes: list[str] = []
    for each in filter(None, said):
        parts = (part_named(each.task, each.predictions, name) for name in columns)
        part = next(filter(None, parts), None)
        if part is not None:
            notes += groups_note(known_part(part[0], part[1]).ids, each.groups, each.role)
    return tuple(dict.fromkeys(notes))


def scored(directory: Path, role: Role, task: Task | None) -> Scored | None:
    """The predictions of a split that can be scored."""
    path = directory / f"predictions_{role}.csv"
    if task is None or not path.is_file():
        return None
    samples = read_predictions(path, role, probabilities=True)
    if not samples.ids or not samples.fit(task):
        return None
    return Scored(
        task=task,
        role=role,
        predictions=read_further(path, samples.as_predictions(task), task),
        groups=groups_by_id(samples.ids, samples.groups),
    )


def run_entry(value: float | None, name: str, said: Scored | None) -> Entry:
    """A score with its interval over samples, which is left out where the metric is not defined."""
    entry = Entry(values=(value,), mean=value)
    part = None if value is None or said is None else part_named(said.task, said.predictions, name)
    if said is None or part is None or part[2] not in metric_names(part[0]):
        return entry
    try:
        of, run, metric = part
        scores = scores_of(of, [run], metric, groups=said.groups)
        found = interval(scores, bounds=RANGES[metric], resamples=RESAMPLES)
    except DataError:  # one sample, or not defined on the resamples
        return entry
    return entry.model_copy(update={"low": found.low, "high": found.high})


# Files of an experiment


def _tables(directory: Path, task: Task | None) -> tuple[ResultTable, ...]:
    """Tables by name, those of the task first."""
    further = tuple(f"-{target.name}" for target in task.further) if task is not None else ()
    paths = sorted(
        (directory / "tables").glob("*.json"), key=lambda path: (path.stem.endswith(further), path.stem)
    )
    return tuple(read_record(path, ResultTable) for path in paths)


def _figures(directory: Path) -> tuple[Figure, ...]:
    """One per name: as SVG where there is one."""
    kinds: tuple[Literal["svg"], Literal["png"]] = ("svg", "png")
    paths = {path.stem: (path, kind) for kind in reversed(kinds) for path in directory.glob(f"*.{kind}")}
    return tuple(
        Figure(name=name, kind=kind, content=read_listed(path.parent, path.name, limit_bytes=TABLE_BYTES))
        for name, (path, kind) in sorted(paths.items())
    )
