"""What lies in the directory of an experiment, or of a single run, as plain values; a damaged file is refused
by its name.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from alignmamba.checksums import read_listed, unstamped
from alignmamba.contracts import Predictions, Role, Task
from alignmamba.errors import CheckpointError, DataError, first_fault
from alignmamba.evaluation.metrics import RANGES, metric_names
from alignmamba.evaluation.statistics import interval, scores_of
from alignmamba.files import parse_json
from alignmamba.models.pretrained import CONFIG_FILE
from alignmamba.recipes.run_directory import (
    CONFIG,
    ENVIRONMENT,
    IDENTITY,
    METRICS,
    MODEL,
    TABLE_BYTES,
    RunDirectory,
)
from alignmamba.training.logs import LOG

if TYPE_CHECKING:
    from alignmamba.recipes.report.studying import Study

EXPERIMENT: Final = "experiment.json"
RUN: Final = "run"
"""Name of the experiment that a single run is read as."""

RUNS: Final = "runs"
"""Name of the experiment that several runs are read as."""
RESAMPLES: Final = 1000
"""Of the samples of a split, for the intervals of single runs."""

State = Literal["done", "failed", "unfinished", "pending"]
Number = float | None
"""``None`` where a number is not defined."""
Value = str | int | float | None
"""A target or a prediction: the name of a class, or a number."""

MOST_PREDICTIONS: Final = 150_000
"""Predictions that a page holds; beyond, those of later columns are left out."""
MOST_PLAN_TOKENS: Final = 60_000
"""Matched tokens of transport plans that a page holds; beyond, samples are left out."""


# As they stand in experiment.json


@dataclass(frozen=True, kw_only=True)
class CorpusIdentity:
    """Which corpus it was."""

    name: str
    checksum: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training run of an experiment."""

    key: str
    row: str
    column: str
    seed: int
    digest: str
    predictions: str = ""
    """File of the run that holds what this cell is scored by; empty: its last split."""
    analyses: tuple[str, ...] = ()
    """Folders of the run's ``analysis``."""

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{16}", self.key):
            raise ValueError(f"key: found {self.key!r}, expected 16 hexadecimal digits")
        for place in (self.predictions, *self.analyses):
            if place.startswith("/") or ".." in place:
                raise ValueError(f"cell {self.key}: found {place!r}, expected a path within the run")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What an experiment consists of."""

    experiment: str
    command: tuple[str, ...]
    environment: dict[str, Any]
    corpus: CorpusIdentity
    data: str
    task: Task | None
    """``None`` for a single run, which does not record it."""
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]


# As they stand in tables/<name>.json


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One place of a table: a metric over seeds."""

    values: tuple[Number, ...]
    mean: Number
    deviation: Number = None
    low: Number = None
    """Lower end of the 95 % interval of the mean."""
    high: Number = None
    mark: Literal["best", "level", ""] = ""


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """Methods against metrics or conditions."""

    name: str
    title: str
    caption: str
    row_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    digits: int
    entries: tuple[tuple[Entry | None, ...], ...]
    notes: tuple[str, ...]
    files: tuple[str, ...] = ()
    """The same table in other forms, relative to the directory."""

    def __post_init__(self) -> None:
        if len(self.entries) != len(self.rows):
            raise ValueError(f"entries: found {len(self.entries)} rows, expected {len(self.rows)}")
        for name, row in zip(self.rows, self.entries, strict=True):
            if len(row) != len(self.columns):
                raise ValueError(f"entries of {name!r}: found {len(row)}, expected {len(self.columns)}")


# As they stand in cells/<key>/analysis/plans/plans.json


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """The modality that others are aligned to, in one sample."""

    modality: str
    tokens: tuple[str, ...] | None
    times: tuple[Number, ...] | None
    length: int

    def __post_init__(self) -> None:
        for name, found in (("tokens", self.tokens), ("times", self.times)):
            if found is not None and len(found) != self.length:
                raise ValueError(
                    f"{name} of {self.modality!r}: found {len(found)}, expected length {self.length}"
                )


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Which token went where."""

    index: tuple[int, ...]
    """The matched token on the other side, -1 where there is none."""
    similarity: tuple[Number, ...]


@dataclass(frozen=True, kw_only=True)
class Source(Anchor):
    """A modality that was aligned, and its matches."""

    marginal: Literal["source", "anchor"]
    """``source``: each of its tokens was sent to one of the anchor; ``anchor``: each token of the anchor took
    one of it."""
    index: tuple[int, ...]
    """As in `Matches`."""
    similarity: tuple[Number, ...]
    content: Matches | None = None
    """The matches if time had no part in the cost; ``None`` where they are not known or the same."""

    @property
    def ways(self) -> tuple["Matches | Source", ...]:
        """Every way of matching that is known."""
        return (self,) if self.content is None else (self, self.content)


@dataclass(frozen=True, kw_only=True)
class PlanSample:
    """The transport plans of one sample."""

    id: str
    target: Value
    prediction: Value
    why: str
    """Why this sample was chosen."""
    anchor: Anchor
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        for source in self.sources:
            size, other = (
                (source.length, self.anchor.length)
                if source.marginal == "source"
                else (self.anchor.length, source.length)
            )
            for way in source.ways:
                for name, found in (("index", way.index), ("similarity", way.similarity)):
                    if len(found) != size:
                        raise ValueError(
                            f"{name} of {source.modality!r} in {self.id!r}: found {len(found)}, expected"
                            f" {size}"
                        )
                if any(not -1 <= each < other for each in way.index):
                    raise ValueError(
                        f"index of {source.modality!r} in {self.id!r}: expected numbers from -1 to"
                        f" {other - 1}"
                    )

    @property
    def tokens_matched(self) -> int:
        """Entries of all plans."""
        return sum(len(way.index) for source in self.sources for way in source.ways)


@dataclass(frozen=True, kw_only=True)
class _Plans:
    samples: tuple[PlanSample, ...]


# As a run directory has them


@dataclass(frozen=True, kw_only=True)
class _Identity:
    digest: str
    corpus: CorpusIdentity
    seed: int

    def __post_init__(self) -> None:
        if not re.match("[0-9a-f]{16}", self.digest):
            raise ValueError(f"digest: found {self.digest[:60]!r}, expected hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class _Environment:
    versions: dict[str, str]
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Summary:
    metrics: dict[Role, dict[str, Number]]
    references: dict[str, float]
    selected_by: str
    best_epoch: int
    epochs: int
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class _Model:
    task: Task


@dataclass(frozen=True, kw_only=True)
class _Failure:
    error: str


# What was found


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Predictions of one run, sample by sample."""

    split: str
    ids: tuple[str, ...]
    targets: tuple[str, ...] | None
    """As written: names of classes or numbers; ``None`` where unknown."""
    predictions: tuple[str, ...]
    classes: tuple[str, ...]
    """Empty for a regression."""
    withheld: Mapping[str, tuple[bool, ...]]
    """Modality to whether each sample had to do without it; empty where nothing was withheld."""
    probabilities: NDArray[np.float64] | None = None
    """(samples, classes) of a classification, where they were asked for."""

    def as_predictions(self, task: Task) -> Predictions:
        """The same for `alignmamba.evaluation`; needs targets, and of a classification probabilities."""
        if task.kind == "regression":
            values = np.array([float(value) for value in self.predictions])
            return Predictions(
                ids=self.ids,
                prediction=values,
                targets=np.array([float(value) for value in self.targets or ()]),
            )
        number = {name: place for place, name in enumerate(task.classes)}
        assert self.probabilities is not None
        return Predictions(
            ids=self.ids,
            prediction=self.probabilities,
            targets=np.array([number[value] for value in self.targets or ()], dtype=np.int64),
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """One cell and what it has left on disk so far."""

    cell: Cell
    state: State
    error: str = ""
    """Why it failed."""
    settings: str = ""
    """Its complete configuration as YAML."""
    versions: Mapping[str, str] = field(default_factory=dict)
    log: Mapping[str, tuple[Number, ...]] = field(default_factory=dict)
    """Column of the log to its values, one per epoch."""
    best_epoch: int | None = None
    selected_by: str = ""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Samples by true class (rows) and predicted class."""
    classes: tuple[str, ...] = ()
    samples: Samples | None = None
    """Of the first finished seed of each row and column."""
    plans: tuple[PlanSample, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SettingsTable:
    """Settings in which runs differ."""

    runs: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """Name of a setting, and its value in each run; empty where the run has no such setting."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How two runs predict the same samples."""

    first: str
    second: str
    samples: int
    alike: float
    """Share of samples that both predict alike; of a regression, the correlation of the predictions (NaN if
    one is constant)."""
    apart: float | None
    """Mean distance of two predictions of a regression."""
    right: tuple[int, int, int, int] | None
    """Samples that both predict right, only the first, only the second, neither; ``None`` for a regression or
    without targets."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture that the experiment drew."""

    name: str
    kind: Literal["svg", "png"]
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Everything that a page tells."""

    directory: Path
    experiment: Experiment
    found: tuple[Found, ...]
    tables: tuple[ResultTable, ...]
    figures: tuple[Figure, ...]
    left_out: tuple[str, ...]
    """What would make the page too large, one sentence each."""
    differing: SettingsTable | None = None
    """Of several runs."""
    agreement: tuple[Agreement, ...] = ()
    """Of several runs that predicted the same samples."""
    study: "Study | None" = None
    """Of a single run whose corpus could be loaded."""
    not_studied: str = ""
    """Why there is none, in one sentence."""


def gather(directory: Path) -> Gathered:
    """Read an experiment, finished or not, or a single run.

    Args:
        directory: As ``alignmamba experiment`` or ``alignmamba train`` writes it.

    Raises:
        CheckpointError: If it is neither, or a file in it is damaged; the message names the file.
    """
    if (directory / EXPERIMENT).is_file():
        experiment = _read_json(directory / EXPERIMENT, Experiment)
        paths = {cell.key: directory / "cells" / cell.key for cell in experiment.cells}
    elif (directory / CONFIG).is_file() and (directory / IDENTITY).is_file():
        experiment = _run_as_experiment(directory)
        paths = {experiment.cells[0].key: directory}
    elif directory.exists():
        raise CheckpointError(
            f"{directory}: expected the directory of an experiment or a run, found neither {EXPERIMENT} nor"
            f" {IDENTITY}"
        )
    else:
        raise CheckpointError(f"{directory}: no such directory")

    told: set[tuple[str, str]] = set()  # rows and columns whose predictions are there
    room = {"predictions": MOST_PREDICTIONS, "tokens": MOST_PLAN_TOKENS}
    left_out = {"predictions": 0, "plans": 0}
    found = []
    for cell in experiment.cells:
        path = paths[cell.key]
        state, error = _state(directory / "failed" / f"{cell.key}.json", path, cell.analyses)
        if not (path / CONFIG).is_file():
            found.append(Found(cell=cell, state=state, error=error))
            continue
        samples = None
        if state == "done" and (cell.row, cell.column) not in told:
            told.add((cell.row, cell.column))
            samples = _samples(path, cell.predictions, probabilities=experiment.experiment == RUN)
            if samples is not None:
                room["predictions"] -= len(samples.ids)
                if room["predictions"] < 0 and len(told) > 1:
                    samples = None
                    left_out["predictions"] += 1
        plans = []
        for sample in _plans(path, cell.analyses):
            room["tokens"] -= sample.tokens_matched
            if room["tokens"] >= 0:
                plans.append(sample)
            else:
                left_out["plans"] += 1
        found.append(_found(cell, state, error, path, samples, tuple(plans)))
    return Gathered(
        directory=directory,
        experiment=experiment,
        found=tuple(found),
        tables=_run_tables(directory, experiment.task)
        if experiment.experiment == RUN
        else _tables(directory),
        figures=_figures(directory / "figures"),
        left_out=tuple(_left_out_words(what, count) for what, count in left_out.items() if count),
    )


def _left_out_words(what: str, count: int) -> str:
    named, files = {
        "predictions": ("The predictions of {} more cell{}", "cells/*/predictions_*.csv"),
        "plans": ("The transport plans of {} more sample{}", "cells/*/analysis/plans/plans.json"),
    }[what]
    return (
        f"{named.format(count, '' if count == 1 else 's')} are dropped to keep this page small; they lie in"
        f" {files}."
    )


def _state(failure: Path, path: Path, analyses: tuple[str, ...]) -> tuple[State, str]:
    if (path / METRICS).is_file() and all((path / "analysis" / name).is_dir() for name in analyses):
        return "done", ""
    if failure.is_file():
        return "failed", _read_json(failure, _Failure).error
    return ("unfinished" if path.is_dir() else "pending"), ""


def _found(
    cell: Cell, state: State, error: str, path: Path, samples: Samples | None, plans: tuple[PlanSample, ...]
) -> Found:
    summary = _read_json(path / METRICS, _Summary) if (path / METRICS).is_file() else None
    elsewhere = cell.predictions and (path / cell.predictions).is_file() and "/" in cell.predictions
    classes, confusion = _counted(path / cell.predictions) if elsewhere else _confusion(path)
    return Found(
        cell=cell,
        state=state,
        error=error,
        settings=_read_text(path / CONFIG),
        versions=_read_json(path / ENVIRONMENT, _Environment).versions,
        log=_log(path / LOG) if (path / LOG).is_file() else {},
        best_epoch=summary.best_epoch if summary else None,
        selected_by=summary.selected_by if summary else "",
        confusion=confusion,
        classes=classes,
        samples=samples,
        plans=plans,
    )


# A single run


def _run_as_experiment(directory: Path) -> Experiment:
    config = RunDirectory.open(directory).config()
    identity = _read_json(directory / IDENTITY, _Identity)
    environment = _read_json(directory / ENVIRONMENT, _Environment)
    return Experiment(
        experiment=RUN,
        command=_shown_command(environment.command),
        environment=_read_json(directory / ENVIRONMENT, dict[str, Any]),
        corpus=identity.corpus,
        data=config.data,
        task=_run_task(directory),
        metrics=(),
        seeds=(identity.seed,),
        cells=(
            Cell(
                key=identity.digest[:16],
                row=config.model,
                column="",
                seed=identity.seed,
                digest=identity.digest,
            ),
        ),
    )


def _run_task(directory: Path) -> Task | None:
    """What its model predicts; ``None`` as long as there is no model."""
    path = directory / MODEL / CONFIG_FILE
    return _read_json(path, _Model).task if path.is_file() else None


def _shown_command(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """As a person would type it, where the program was ours."""
    ours = [Path(each).name for each in arguments[:1]] in (["alignmamba"], ["__main__.py"])
    return ("alignmamba", *arguments[1:]) if ours else arguments


def _run_tables(directory: Path, task: Task | None) -> tuple[ResultTable, ...]:
    """The scores of a finished run: one row per split."""
    path = directory / METRICS
    if not path.is_file():
        return ()
    summary = _read_json(path, _Summary)
    scores = summary.metrics
    rows = tuple(sorted(scores))
    columns = tuple(dict.fromkeys(name for each in scores.values() for name in each))
    entries = []
    for role in rows:
        predictions = scored(directory, role, task)
        entries.append(tuple(_run_entry(scores[role], name, predictions, task) for name in columns))
    return (
        ResultTable(
            name="metrics",
            title="Scores",
            caption=(
                f"Epoch {summary.best_epoch} of {summary.epochs} was kept; {summary.num_parameters:,} trained"
                " weights."
            ),
            row_label="split",
            rows=rows,
            columns=columns,
            digits=3,
            entries=tuple(entries),
            notes=(
                *(
                    [OVER_SAMPLES]
                    if any(entry and entry.low is not None for row in entries for entry in row)
                    else []
                ),
                *([_known_words(summary.references)] if summary.references else []),
            ),
        ),
    )


def _known_words(references: Mapping[str, float]) -> str:
    known = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in references.items())
    return f"Known of the corpus: {known}."


OVER_SAMPLES: Final = (
    "Intervals are over the samples of the split and stay within the range of the metric: "
    "they speak of this trained model, not of another seed."
)


def scored(directory: Path, role: str, task: Task | None) -> Predictions | None:
    """The predictions of a split that can be scored."""
    if task is None or not (directory / f"predictions_{role}.csv").is_file():
        return None
    samples = _samples_of(directory / f"predictions_{role}.csv", role, probabilities=True)
    fits = samples.targets is not None and len(samples.ids) > 0 and samples.classes == task.classes
    return samples.as_predictions(task) if fits else None


def _run_entry(
    scores: Mapping[str, Number], name: str, predictions: Predictions | None, task: Task | None
) -> Entry | None:
    """A score with its interval over samples, which is left out where the metric is not defined."""
    if name not in scores:
        return None
    value, low, high = scores[name], None, None
    if predictions is not None and task is not None and value is not None and name in metric_names(task):
        try:
            found = interval(scores_of(task, [predictions], name), bounds=RANGES[name], resamples=RESAMPLES)
        except DataError:  # one sample, or not defined on the resamples
            return Entry(values=(value,), mean=value)
        low, high = found.low, found.high
    return Entry(values=(value,), mean=value, low=low, high=high)


# Files


def _tables(directory: Path) -> tuple[ResultTable, ...]:
    tables = []
    for path in sorted((directory / "tables").glob("*.json"), key=lambda path: path.stem):
        table = _read_json(path, ResultTable)
        others = (path.with_suffix(ending) for ending in (".csv", ".tex", ".md"))
        files = tuple(f"tables/{other.name}" for other in others if other.is_file())
        tables.append(ResultTable(**{**vars(table), "files": files}))
    return tuple(tables)


def _figures(directory: Path) -> tuple[Figure, ...]:
    """One per name: as SVG where there is one."""
    kinds: tuple[Literal["svg"], Literal["png"]] = ("svg", "png")
    paths = {path.stem: (path, kind) for kind in reversed(kinds) for path in directory.glob(f"*.{kind}")}
    return tuple(
        Figure(name=name, kind=kind, content=_read_bytes(path))
        for name, (path, kind) in sorted(paths.items())
    )


def _of_last_split(path: Path, name: str) -> tuple[Path, str] | None:
    """The file of the test split, or of valid where test is not labelled or not there."""
    for split in ("test", "valid"):
        if (path / f"{name}_{split}.csv").is_file():
            return path / f"{name}_{split}.csv", split
    return None


def _log(path: Path) -> dict[str, tuple[Number, ...]]:
    return {
        name: tuple(_number(path, each) if each else None for each in values)
        for name, values in _read_csv(path).items()
    }


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: found {text[:60]!r}, expected a number") from error


def _finite(path: Path, text: str) -> float:
    found = _number(path, text)
    if not math.isfinite(found):
        raise CheckpointError(f"{path}: found {text[:60]!r}, expected a finite number")
    return found


def _confusion(path: Path) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    at = _of_last_split(path, "confusion")
    if at is None:
        return (), ()
    table = list(_read_csv(at[0]).values())
    classes, counts = table[0], table[1:]
    if len(counts) != len(classes) or not all(value.isdecimal() for column in counts for value in column):
        raise CheckpointError(
            f"{at[0]}: expected counts in as many columns as rows, found {len(counts)} columns and"
            f" {len(classes)} rows"
        )
    return classes, tuple(zip(*(map(int, column) for column in counts), strict=True))


def _counted(path: Path) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Classes and confusion of a table of predictions; empty for a regression."""
    table = _read_csv(path, "prediction")
    classes = _classes(table)
    if not classes or "target" not in table:
        return (), ()
    pairs = Counter(zip(table["target"], table["prediction"], strict=True))
    return classes, tuple(tuple(pairs[true, said] for said in classes) for true in classes)


def _classes(table: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name[2:-1] for name in table if name.startswith("p(") and name.endswith(")"))


def _samples(path: Path, predictions: str, *, probabilities: bool) -> Samples | None:
    """What a cell is scored by; without `predictions`, its own last split."""
    elsewhere = path / predictions
    at = (
        (elsewhere, "test")
        if "/" in predictions and elsewhere.is_file()
        else _of_last_split(path, "predictions")
    )
    if at is None:
        return None
    samples = _samples_of(*at, probabilities=probabilities)
    masks = elsewhere.parent / "missing.csv" if at[0] == elsewhere else path / f"missing_{at[1]}.csv"
    if not masks.is_file():
        return samples
    present = _read_csv(masks, "id")
    if present.pop("id") != samples.ids:
        raise CheckpointError(f"{masks}: expected the ids of {at[0].name} in its order, found others")
    return replace(
        samples, withheld={name: tuple(value == "0" for value in values) for name, values in present.items()}
    )


def _samples_of(path: Path, split: str, *, probabilities: bool) -> Samples:
    """A table of predictions."""
    table = _read_csv(path, "id", "prediction")
    classes = _classes(table)
    known = set(classes)
    for value in (*table["prediction"], *table.get("target", ())):
        if not classes:
            _finite(path, value)
        elif value not in known:
            raise CheckpointError(
                f"{path}: found {value[:60]!r}, expected one of the classes {', '.join(classes)[:200]}"
            )
    shares = None
    if probabilities and classes:
        shares = np.array([[_finite(path, value) for value in table[f"p({name})"]] for name in classes]).T
    return Samples(
        split=split,
        ids=table["id"],
        targets=table.get("target"),
        predictions=table["prediction"],
        classes=classes,
        withheld={},
        probabilities=shares,
    )


def _plans(path: Path, analyses: tuple[str, ...]) -> tuple[PlanSample, ...]:
    files = (path / "analysis" / name / "plans.json" for name in analyses or ("plans",))
    return tuple(sample for file in files if file.is_file() for sample in _read_json(file, _Plans).samples)


_Form = TypeVar("_Form")


def _read_json(path: Path, form: type[_Form]) -> _Form:
    try:
        found = parse_json(_read_bytes(path), str(path), error=CheckpointError)
        return TypeAdapter(form).validate_python(
            unstamped(found, str(path)) if isinstance(found, dict) else found
        )
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_fault(error)}") from error


def _read_csv(path: Path, *needed: str) -> dict[str, tuple[str, ...]]:
    """Column to values."""
    try:
        header, *rows = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    except (csv.Error, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected CSV with a header, found none that can be read ({error})"
        ) from error
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise CheckpointError(f"{path}: row {number}: found {len(row)} fields, expected {len(header)}")
    lacking = [name for name in needed if name not in header]
    if lacking:
        raise CheckpointError(f"{path}: expected a column {lacking[0]!r}, found {', '.join(header)[:200]}")
    return {name: tuple(row[place] for row in rows) for place, name in enumerate(header)}


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path}: expected text in UTF-8, found byte {error.object[error.start]:#04x} at {error.start}"
        ) from error


def _read_bytes(path: Path) -> bytes:
    return read_listed(path.parent, path.name, limit_bytes=TABLE_BYTES)
