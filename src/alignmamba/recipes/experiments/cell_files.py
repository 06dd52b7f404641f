"""Facts, times and predictions of a finished cell, each refused by name where damaged."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from alignmamba.checksums import read_listed
from alignmamba.contracts import Predictions, Task
from alignmamba.errors import CheckpointError
from alignmamba.recipes.run_directory import ENVIRONMENT, METRICS, TABLE_BYTES
from alignmamba.recipes.run_records import read_record
from alignmamba.training.logs import LOG


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """Content of a cell's ``metrics.json``."""

    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class _Made:
    """Content of its ``environment.json``."""

    versions: dict[str, Any]


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
        """Read the directory of the run.

        Raises:
            CheckpointError: If a file is missing or damaged.
        """
        return cls(
            weights=read_record(run / METRICS, _Trained).num_parameters,
            version=str(read_record(run / ENVIRONMENT, _Made).versions.get("alignmamba")),
            seconds=_training_seconds(run),
        )


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
