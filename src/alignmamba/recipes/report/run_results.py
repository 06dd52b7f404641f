"""Logs, predictions, confusions and plans of a run; a damaged file is refused by its name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignmamba.errors import CheckpointError
from alignmamba.recipes.run_records import Samples, classes_of, read_csv, read_predictions, read_record
from alignmamba.recipes.transport_plans import PlanSample

Confusion = tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]
"""Classes, and samples by true class (rows) and predicted class; both empty where there is none."""


def read_confusion(run: Path, predictions: str) -> Confusion:
    """Confusion of what a cell is scored by: its own last split, or predictions of an analysis."""
    if "/" in predictions and (run / predictions).is_file():
        return _counted(run / predictions)
    at = _of_last_split(run, "confusion")
    if at is None:
        return (), ()
    classes, *counts = read_csv(at[0]).values()
    if len(counts) != len(classes) or not all(value.isdecimal() for column in counts for value in column):
        raise CheckpointError(
            f"{at[0]}: expected counts in as many columns as rows, found {len(counts)} columns and"
            f" {len(classes)} rows"
        )
    return classes, tuple(zip(*(map(int, column) for column in counts), strict=True))


def _counted(path: Path) -> Confusion:
    """Classes and confusion of a table of predictions; empty for a regression."""
    table = read_csv(path)
    classes = classes_of(table)
    if not classes or not {"target", "prediction"} <= table.keys():
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
    present = read_csv(masks, "id")
    if present.pop("id") != samples.ids:
        raise CheckpointError(f"{masks}: expected the ids of {path.name} in its order, found others")
    withheld = {name: tuple(value == "0" for value in values) for name, values in present.items()}
    return replace(samples, withheld=withheld)


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
