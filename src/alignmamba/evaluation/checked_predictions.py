"""Targets and predictions as metrics read them, checked."""

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import Predictions, Target, Task
from alignmamba.errors import DataError


def checked_labels(
    task: Task | Target, predictions: Predictions
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Truth, NaN where unknown, and probability of each label of each sample, checked."""
    if predictions.targets is None:
        raise DataError("targets: found no known target, expected one to score")
    if not predictions.ids:
        raise DataError("predictions: found no sample, expected one to score")
    shape = (len(predictions.row_ids), len(task.classes))
    truth = np.asarray(predictions.targets, dtype=np.float64)
    probable = np.asarray(predictions.prediction, dtype=np.float64)
    for what, found in (("targets", truth), ("predictions", probable)):
        if found.shape != shape:
            raise DataError(f"{what}: expected shape {shape}, found {found.shape}")
    _refuse_nonfinite("predictions", probable.sum(axis=1), predictions.row_ids)
    return truth, probable


def checked_values(predictions: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Targets and predictions of a regression, checked."""
    targets = _targets(predictions)
    predicted = np.asarray(predictions.prediction, dtype=np.float64)
    if predicted.shape != targets.shape:
        raise DataError(
            f"predictions: expected shape {targets.shape}, one value per sample, found {predicted.shape}"
        )
    truth = targets.astype(np.float64)
    _refuse_nonfinite("targets", truth, predictions.row_ids)
    _refuse_nonfinite("predictions", predicted, predictions.row_ids)
    return truth, predicted


def checked_classes(
    task: Task | Target, predictions: Predictions
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """True class of each sample and probabilities of all, checked."""
    targets = _targets(predictions)
    probabilities = np.asarray(predictions.prediction, dtype=np.float64)
    if probabilities.shape != (len(targets), len(task.classes)):
        raise DataError(
            f"predictions: expected shape {(len(targets), len(task.classes))}, found {probabilities.shape}"
        )
    _refuse_nonfinite("predictions", probabilities.sum(axis=1), predictions.row_ids)
    truth = targets.astype(np.int64)
    outside = np.flatnonzero((truth < 0) | (truth >= len(task.classes)) | (truth != targets))
    if outside.size:
        row = int(outside[0])
        raise DataError(
            f"targets: sample {predictions.row_ids[row]!r} has class {targets[row]}, expected an integer in"
            f" [0, {len(task.classes)})"
        )
    return truth, probabilities


def _targets(predictions: Predictions) -> NDArray[np.generic]:
    if predictions.targets is None:
        raise DataError("targets: found no known target, expected one to score")
    targets = np.asarray(predictions.targets)
    if targets.size == 0:
        raise DataError("predictions: found no sample, expected one to score")
    if targets.shape != (len(predictions.row_ids),):
        raise DataError(f"targets: expected shape {(len(predictions.row_ids),)}, found {targets.shape}")
    return targets


def _refuse_nonfinite(what: str, values: NDArray[np.float64], ids: tuple[str, ...]) -> None:
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise DataError(
            f"{what}: {wrong.size} of {values.size} not finite, the first is sample {ids[int(wrong[0])]!r}"
        )
