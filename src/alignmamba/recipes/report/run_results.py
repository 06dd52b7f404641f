"""Logs, predictions, confusions and plans of a run; a damaged file is refused by its name."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alignmamba.checksums import read_listed
from alignmamba.errors import CheckpointError
from alignmamba.recipes.report.findings import Samples
from alignmamba.recipes.run_directory import TABLE_BYTES
from alignmamba.recipes.run_records import read_record
from alignmamba.recipes.transport_plans import PlanSample

Confusion = tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]
"""Classes, and samples by true class (rows) and predicted class; both empty where there is none."""


def read_log(path: Path) -> dict[str, tuple[float | None, ...]]:
    """Column of a table of epochs to its values."""
    return {
        name: tuple(_number(path, each) if each else None for each in values)
        for name, values in _read_csv(path).items()
    }


def read_confusion(run: Path, predictions: str) -> Confusion:
    """Confusion of what a cell is scored by: its own last split, or predictions of an analysis."""
    if "/" in predictions and (run / predictions).is_file():
        return _counted(run / predictions)
    at = _of_last_split(run, "confusion")
    if at is None:
        return (), ()
    classes, *counts = _read_csv(at[0]).values()
    if len(counts) != len(classes) or not all(value.isdecimal() for column in counts for value in column):
        raise CheckpointError(
            f"{at[0]}: expected counts in as many columns as rows, found {len(counts)} columns and"
            f" {len(classes)} rows"
        )
    return classes, tuple(zip(*(map(int, column) for column in counts), strict=True))


def _counted(path: Path) -> Confusion:
    """Classes and confusion of a table of predictions; empty for a regression."""
    table = _read_csv(path, "prediction")
    classes = _classes(table)
    if not classes or "target" not in table:
        return (), ()
    pairs = Counter(zip(table["target"], table["prediction"], strict=True))
    return classes, tuple(tuple(pairs[true, said] for said in classes) for true in classes)


def read_samples(run: Path, predictions: str, *, probabilities: bool) -> Samples | None:
    """Predictions that a cell is scored by, of its last split or an analysis; ``None`` without any."""
    elsewhere = run / predictions
    own = _of_last_split(run, "predictions")
    if "/" in predictions and elsewhere.is_file():
        path, split, masks = elsewhere, "test", elsewhere.parent / "missing.csv"
    elif own is not None:
        path, split = own
        masks = run / f"missing_{split}.csv"
    else:
        return None
    samples = read_predictions(path, split, probabilities=probabilities)
    if not masks.is_file():
        return samples
    present = _read_csv(masks, "id")
    if present.pop("id") != samples.ids:
        raise CheckpointError(f"{masks}: expected the ids of {path.name} in its order, found others")
    withheld = {name: tuple(value == "0" for value in values) for name, values in present.items()}
    return replace(samples, withheld=withheld)


def read_predictions(path: Path, split: str, *, probabilities: bool) -> Samples:
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


@dataclass(frozen=True, kw_only=True)
class _Plans:
    """Content of ``plans.json``."""

    samples: tuple[PlanSample, ...]


def read_plans(run: Path, analyses: Sequence[str]) -> tuple[PlanSample, ...]:
    """Transport plans that analyses of a run have left."""
    files = (run / "analysis" / name / "plans.json" for name in analyses or ("plans",))
    return tuple(sample for file in files if file.is_file() for sample in read_record(file, _Plans).samples)


def _of_last_split(run: Path, name: str) -> tuple[Path, str] | None:
    """The file of the test split, or of valid where test is not labelled or not there."""
    places = ((run / f"{name}_{split}.csv", split) for split in ("test", "valid"))
    return next((place for place in places if place[0].is_file()), None)


def _classes(table: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
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


def _read_csv(path: Path, *needed: str) -> dict[str, tuple[str, ...]]:
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
