"""Files of runs and experiments as records and tables; a damaged one is refused by its name."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from alignmamba.checksums import read_listed, unstamped
from alignmamba.contracts import FurtherPredictions, Predictions, Role, Target, Task
from alignmamba.errors import CheckpointError, first_fault, shown
from alignmamba.files import parse_json
from alignmamba.recipes.run_directory import ENVIRONMENT, METRICS, TABLE_BYTES
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
    """Values as written: names of classes or numbers; ``None`` where unknown."""
    predictions: tuple[str, ...]
    classes: tuple[str, ...]
    """Empty for a regression."""
    withheld: Mapping[str, tuple[bool, ...]]
    """Mask of the samples without a modality, by modality; empty where nothing was withheld."""
    probabilities: NDArray[np.float64] | None = None
    """(samples, classes) of a classification, where they were asked for."""

    def as_predictions(self, task: Task) -> Predictions:
        """The same for `alignmamba.evaluation`; needs targets, and of a classification probabilities."""
        targets = self.targets or ()
        if task.kind == "regression":
            values = np.array([float(value) for value in self.predictions])
            truth = np.array([float(value) for value in targets])
            return Predictions(ids=self.ids, prediction=values, targets=truth)
        number = {name: place for place, name in enumerate(task.classes)}
        assert self.probabilities is not None
        classes = np.array([number[value] for value in targets], dtype=np.int64)
        return Predictions(ids=self.ids, prediction=self.probabilities, targets=classes)


def read_predictions(path: Path, split: str, *, probabilities: bool) -> Samples:
    """A table of predictions."""
    table = read_csv(path, "id", "prediction")
    classes = classes_of(table)
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


def scored_predictions(path: Path, task: Task) -> Predictions:
    """A table of predictions with the targets and classes of a task; a `CheckpointError` if it is another."""
    samples = read_predictions(path, "", probabilities=True)
    if samples.targets is None or samples.classes != task.classes:
        found = f"{'no ' * (samples.targets is None)}targets and {', '.join(samples.classes) or 'no classes'}"
        raise CheckpointError(
            f"{path}: expected a table of predictions with targets and"
            f" {', '.join(task.classes) or 'no classes'}, found {found[:200]}"
        )
    said = samples.as_predictions(task)
    if not task.further:
        return said
    table = read_csv(path)
    further = {target.name: _further(path, table, target) for target in task.further}
    return replace(said, further={name: found for name, found in further.items() if found is not None})


def _further(path: Path, table: Mapping[str, Sequence[str]], target: Target) -> FurtherPredictions | None:
    """Columns of a further target, as `run_directory.prediction_table` writes them; ``None`` without any."""

    def numbers(*columns: str) -> NDArray[np.float64]:
        rows = [[_number(path, text) if text else math.nan for text in table[name]] for name in columns]
        return np.array(rows, dtype=np.float64).T

    name = f"{target.name}."
    wanted = [f"p({each})" for each in target.classes] or ["prediction"]
    truth = [f"target({each})" for each in target.classes] if target.kind == "multilabel" else ["target"]
    if any(name + each not in table for each in (*wanted, *truth)):
        return None
    prediction = numbers(*(name + each for each in wanted))
    if target.kind == "regression":
        return FurtherPredictions(prediction=prediction[:, 0], targets=numbers(f"{name}target")[:, 0])
    if target.kind == "multilabel":
        return FurtherPredictions(prediction=prediction, targets=numbers(*(name + each for each in truth)))
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
        raise CheckpointError(f"{path}: expected a column {lacking[0]!r}, found {', '.join(header)[:200]}")
    return {name: tuple(row[place] for row in rows) for place, name in enumerate(header)}


def read_text(path: Path) -> str:
    """A file of a run as text."""
    try:
        return read_listed(path.parent, path.name, limit_bytes=TABLE_BYTES).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path}: expected text in UTF-8, found byte {error.object[error.start]:#04x} at {error.start}"
        ) from error
