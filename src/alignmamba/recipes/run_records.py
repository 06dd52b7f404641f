"""Files of runs and experiments as records and tables; a damaged one is refused by its name."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from alignmamba.checksums import read_listed, unstamped
from alignmamba.contracts import NO_CLASS, FurtherPredictions, Predictions, Role, Target, Task
from alignmamba.errors import CheckpointError, first_fault, shown
from alignmamba.files import parse_json
from alignmamba.recipes.run_directory import ENVIRONMENT, GROUP, METRICS, TABLE_BYTES, beside
from alignmamba.training.logs import LOG


@dataclass(frozen=True, kw_only=True)
class CorpusIdentity:
    """Corpus of the run, see `run_directory.corpus_identity`."""

    name: str
    checksum: str


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """Content of ``run.json``."""

    digest: str
    corpus: CorpusIdentity
    seed: int

    def __post_init__(self) -> None:
        if len(self.digest) < 16 or not set(self.digest[:16]) <= set("0123456789abcdef"):
            raise ValueError(f"digest: found {self.digest[:60]!r}, expected hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class RunEnvironment:
    """Content of ``environment.json``."""

    versions: dict[str, str]
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Content of ``metrics.json``."""

    metrics: dict[Role, dict[str, float | None]]
    references: dict[str, float]
    selected_by: str
    best_epoch: int
    epochs: int
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """Content of ``model/config.json``."""

    task: Task


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Content of ``failed/<key>.json`` of an experiment."""

    error: str


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """Part of ``metrics.json`` that every version writes."""

    num_parameters: int


_Form = TypeVar("_Form")


def read_record(path: Path, form: type[_Form]) -> _Form:
    """A JSON file, compared with its checksum where there is one, as a dataclass of the fields that are
    needed.

    Raises:
        CheckpointError: If the file is missing or damaged, or a field is missing or of another type.
    """
    content = read_listed(path.parent, path.name, limit_bytes=TABLE_BYTES)
    found: Any = parse_json(content, str(path), error=CheckpointError)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {shown(found)}")
    try:
        return TypeAdapter(form).validate_python(unstamped(found, str(path)))
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_fault(error)}") from error


def check_analyses(run: Path, names: Sequence[str]) -> None:
    """Refuse, by a `CheckpointError`, a run with a JSON file of these analyses that is damaged."""
    for name in names:
        for path in sorted((run / "analysis" / name).glob("*.json")):
            read_record(path, dict)


# Tables of a run


def read_log(path: Path) -> dict[str, tuple[float | None, ...]]:
    """Column of a table of epochs to its values."""
    return {
        name: tuple(_number(path, each) if each else None for each in values)
        for name, values in read_csv(path).items()
    }


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Predictions of one run, sample by sample."""

    split: str
    ids: tuple[str, ...]
    targets: tuple[str, ...] | None
    """Values as written: names of classes or numbers, empty where a sample has none; of several labels the
    names of those that are there in one text; ``None`` where all are unknown."""
    predictions: tuple[str, ...]
    classes: tuple[str, ...]
    """Empty for a regression."""
    groups: tuple[str, ...]
    """Empty where a sample has none."""
    withheld: Mapping[str, tuple[bool, ...]]
    """Mask of the samples without a modality, by modality; empty where nothing was withheld."""
    probabilities: NDArray[np.float64] | None = None
    """(samples, classes) of classes, where they were asked for."""
    labels: tuple[NDArray[np.float64] | None, NDArray[np.bool_]] | None = None
    """Truth of several labels, (samples, classes), 1 where one is there, 0 where not, NaN where that is
    unknown; and those that are called."""

    @property
    def known(self) -> tuple[tuple[str, str], ...]:
        """Target and prediction of the samples that have a target."""
        return tuple(pair for pair in zip(self.targets or (), self.predictions, strict=False) if pair[0])

    def fit(self, task: Task) -> bool:
        """True where targets are known, of the classes of a task."""
        return self.targets is not None and self.classes == task.classes

    def as_predictions(self, task: Task) -> Predictions:
        """The same for `alignmamba.evaluation`; needs targets, and of classes probabilities."""
        targets = self.targets or ()
        if task.kind == "regression":
            values = np.array([float(value) for value in self.predictions])
            truth = np.array([float(value) if value else math.nan for value in targets])
            return Predictions(ids=self.ids, prediction=values, targets=truth)
        assert self.probabilities is not None
        if self.labels is not None:
            there, called = self.labels
            return Predictions(ids=self.ids, prediction=self.probabilities, targets=there, called=called)
        number = {"": -1} | {name: place for place, name in enumerate(task.classes)}
        classes = np.array([number[value] for value in targets], dtype=np.int64)
        return Predictions(ids=self.ids, prediction=self.probabilities, targets=classes)


def read_predictions(path: Path, split: str, *, probabilities: bool) -> Samples:
    """A table of predictions."""
    table = read_csv(path, "id")
    classes = classes_of(table)
    if classes and f"prediction({classes[0]})" in table:
        return _read_labels(path, split, table, classes, probabilities=probabilities)
    if "prediction" not in table:
        raise _lacks(path, "prediction", table)
    known = set(classes)
    for value in (*table["prediction"], *filter(None, table.get("target", ()))):
        if not classes:
            _finite(path, value)
        elif value not in known:
            raise CheckpointError(
                f"{path}: found {value[:60]!r}, expected one of the classes {', '.join(classes)[:200]}"
            )
    targets = table.get("target", ())
    return Samples(
        split=split,
        ids=table["id"],
        targets=targets if any(targets) else None,
        predictions=table["prediction"],
        classes=classes,
        groups=_groups(table),
        withheld={},
        probabilities=_shares(path, table, classes) if probabilities and classes else None,
    )


def _read_labels(
    path: Path, split: str, table: Mapping[str, Sequence[str]], classes: Sequence[str], *, probabilities: bool
) -> Samples:
    """A table of predictions of several labels."""
    called = _numbers(path, table, [f"prediction({name})" for name in classes]) > 0
    columns = [f"target({name})" for name in classes]
    there = _numbers(path, table, columns) if all(name in table for name in columns) else None
    targets = None
    if there is not None and not np.isnan(there).all():
        known: list[bool] = np.any(~np.isnan(there), axis=1).tolist()
        said = _named(there, classes)
        targets = tuple(text if has else "" for text, has in zip(said, known, strict=True))
    return Samples(
        split=split,
        ids=tuple(table["id"]),
        targets=targets,
        predictions=_named(called, classes),
        classes=tuple(classes),
        groups=_groups(table),
        withheld={},
        probabilities=_shares(path, table, classes) if probabilities else None,
        labels=(None if targets is None else there, called),
    )


def _groups(table: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Group of each sample; runs of earlier versions name none."""
    return tuple(table.get(GROUP, [""] * len(table["id"])))


def _named(labels: NDArray[Any], classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the labels that are there in each sample, (samples, classes) above 0, in one text."""
    return tuple(
        ", ".join(name for name, there in zip(classes, row, strict=True) if there > 0) or NO_CLASS
        for row in labels.tolist()
    )


def _shares(path: Path, table: Mapping[str, Sequence[str]], classes: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[_finite(path, value) for value in table[f"p({name})"]] for name in classes]).T


def _numbers(path: Path, table: Mapping[str, Sequence[str]], columns: Sequence[str]) -> NDArray[np.float64]:
    """Numbers of some columns, (samples, columns), NaN where a cell is empty."""
    if lacking := [name for name in columns if name not in table]:
        raise _lacks(path, lacking[0], table)
    rows = [[_number(path, text) if text else math.nan for text in table[name]] for name in columns]
    return np.array(rows, dtype=np.float64).T


def scored_predictions(path: Path, task: Task) -> Predictions:
    """A table of predictions with the targets and classes of a task; a `CheckpointError` if it is another."""
    samples = read_predictions(path, "", probabilities=True)
    if not samples.fit(task):
        found = f"{'no ' * (samples.targets is None)}targets and {', '.join(samples.classes) or 'no classes'}"
        raise CheckpointError(
            f"{path}: expected a table of predictions with targets and"
            f" {', '.join(task.classes) or 'no classes'}, found {found[:200]}"
        )
    return read_further(path, samples.as_predictions(task), task)


def read_further(path: Path, said: Predictions, task: Task) -> Predictions:
    """Predictions of samples and, from the same table, those of the further targets of a task."""
    if not task.further:
        return said
    table = read_csv(path)
    further = {
        target.name: _further(path, table, target)
        if target.tokens is None
        else _of_tokens(path, said.ids, target)
        for target in task.further
    }
    return replace(said, further={name: found for name, found in further.items() if found is not None})


def _of_tokens(path: Path, ids: Sequence[str], target: Target) -> FurtherPredictions | None:
    """Columns of a target of tokens in a table beside that of samples, of those with these ids. A run without
    the modality may have it of the tokens of another; ``None`` without any.
    """
    own = beside(path, target.tokens or "")
    places = [own] if own.is_file() else sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))
    for place in places:
        table = read_csv(place, "id", "token", "time")
        found = _further(place, table, target)
        if found is not None:
            return _with_lengths(place, table, ids, found)
    return None


def _with_lengths(
    path: Path, table: Mapping[str, Sequence[str]], ids: Sequence[str], found: FurtherPredictions
) -> FurtherPredictions:
    """The same with the number of tokens of each sample, and their times."""
    counts = Counter(table["id"])
    lengths = np.array([counts[identity] for identity in ids], dtype=np.int64)
    if table["id"] != tuple(np.repeat(np.array(ids, dtype=object), lengths)):
        raise CheckpointError(f"{path}: expected the tokens of each sample together, samples in their order")
    times = [_number(path, text) if text else math.nan for text in table["time"]]
    return replace(found, lengths=lengths, times=np.array(times))


def _further(path: Path, table: Mapping[str, Sequence[str]], target: Target) -> FurtherPredictions | None:
    """Columns of a further target, as `run_directory.prediction_table` writes them; ``None`` without any."""
    name = f"{target.name}."
    several = target.kind == "multilabel"
    wanted = [f"{name}p({each})" for each in target.classes] or [f"{name}prediction"]
    truth = [f"{name}target({each})" for each in target.classes] if several else [f"{name}target"]
    if any(each not in table for each in (*wanted, *truth)):
        return None
    prediction = _numbers(path, table, wanted)
    if target.kind == "regression":
        return FurtherPredictions(prediction=prediction[:, 0], targets=_numbers(path, table, truth)[:, 0])
    if several:
        calls = [f"{name}prediction({each})" for each in target.classes]
        called = _numbers(path, table, calls) > 0 if all(each in table for each in calls) else None
        return FurtherPredictions(prediction=prediction, targets=_numbers(path, table, truth), called=called)
    places = {each: place for place, each in enumerate(target.classes)}
    unknown = [text for text in table[f"{name}target"] if text and text not in places]
    if unknown:
        raise CheckpointError(
            f"{path}: {name}target: found {unknown[0][:60]!r}, expected one of"
            f" {', '.join(target.classes)[:200]}"
        )
    targets = np.array([places.get(text, -1) for text in table[f"{name}target"]], dtype=np.int64)
    return FurtherPredictions(prediction=prediction, targets=targets)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Facts of a finished run in tables besides its scores."""

    weights: int
    """Number of weights that training changes."""
    seconds: float
    """Time of its epochs."""
    version: str
    """Version of the package that trained it."""

    @classmethod
    def read(cls, run: Path) -> Self:
        """Read the directory of the run; a `CheckpointError` if a file is missing or damaged."""
        seconds = read_log(run / LOG).get("seconds", (None,))
        if None in seconds:
            raise CheckpointError(f"{run / LOG}: expected seconds of every epoch")
        return cls(
            weights=read_record(run / METRICS, _Trained).num_parameters,
            version=str(read_record(run / ENVIRONMENT, RunEnvironment).versions.get("alignmamba")),
            seconds=sum(filter(None, seconds)),
        )


def classes_of(table: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name[2:-1] for name in table if name.startswith("p(") and name.endswith(")"))


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


def read_csv(path: Path, *needed: str) -> dict[str, tuple[str, ...]]:
    """Column to values."""
    try:
        header, *rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    except (csv.Error, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected CSV with a header, found none that can be read ({error})"
        ) from error
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise CheckpointError(f"{path}: row {number}: found {len(row)} fields, expected {len(header)}")
    lacking = [name for name in needed if name not in header]
    if lacking:
        raise _lacks(path, lacking[0], header)
    return {name: tuple(row[place] for row in rows) for place, name in enumerate(header)}


def _lacks(path: Path, column: str, found: Iterable[str]) -> CheckpointError:
    return CheckpointError(f"{path}: expected a column {column!r}, found {', '.join(found)[:200]}")


def read_text(path: Path) -> str:
    """A file of a run as text."""
    try:
        return read_listed(path.parent, path.name, limit_bytes=TABLE_BYTES).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path}: expected text in UTF-8, found byte {error.object[error.start]:#04x} at {error.start}"
        ) from error
