"""Scores of a set of predictions, by the field's own formulas.

Regression follows `__eval_mosei_regression` of MMSA (thuiar/MMSA a94e65d, MIT), the protocol of CMU-MOSI and CMU-MOSEI; nothing is
rounded here. Classification follows the usual definitions. All of it is numpy in float64.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import Predictions, Task
from alignmamba.errors import DataError

HIGHER_IS_BETTER: Final[dict[str, bool]] = {
    "mae": False,
    "corr": True,
    "acc2_has0": True,
    "f1_has0": True,
    "acc2_non0": True,
    "f1_non0": True,
    "acc5": True,
    "acc7": True,
    "accuracy": True,
    "f1_macro": True,
    "f1_weighted": True,
    "recall_unweighted": True,
}
"""Every metric that `score` can return, and whether more of it is better."""


def metric_names(task: Task) -> tuple[str, ...]:
    """The metrics that `score` returns for this task, in its order.

    Sentiment accuracies are left out where the label range does not span both signs (``acc2``) or does not reach
    plus and minus 2 (``acc5``) or 3 (``acc7``).
    """
    if task.kind == "classification":
        return ("accuracy", "f1_macro", "f1_weighted", "recall_unweighted")
    low, high = task.label_range or (0.0, 0.0)
    names = ["mae", "corr"]
    if low < 0.0 < high:
        names += ["acc2_has0", "f1_has0", "acc2_non0", "f1_non0"]
    if low <= -2.0 and high >= 2.0:
        names.append("acc5")
    if low <= -3.0 and high >= 3.0:
        names.append("acc7")
    return tuple(names)


def score(task: Task, predictions: Predictions) -> dict[str, float]:
    """Score predictions against their targets.

    Args:
        task: What was predicted; it decides which metrics are computed, see `metric_names`.
        predictions: Values and targets of a split, (samples,) or (samples, classes).

    Returns:
        Metric name to value. A metric that the data leaves undefined is NaN: ``corr`` where either side is constant,
        the ``non0`` pair where every target is zero.

    Raises:
        DataError: If there is no sample, no target, or a value that is not finite or not of the task's shape.
    """
    if task.kind == "classification":
        return _score_classification(*_classes(task, predictions))
    truth, predicted = _values(predictions)
    scores = _score_regression(truth, predicted)
    return {name: scores[name] for name in metric_names(task)}


def confusion_matrix(task: Task, predictions: Predictions) -> NDArray[np.int64]:
    """Count samples by true class (rows) and predicted class (columns), both in the order of ``task.classes``.

    Raises:
        DataError: If the task is not a classification, or as for `score`.
    """
    if task.kind != "classification":
        raise DataError(f"confusion matrix: expected a classification task, found {task.kind}")
    return _confusion(*_classes(task, predictions), num_classes=len(task.classes))


def _values(predictions: Predictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Targets and predictions of a regression, checked."""
    targets = _targets(predictions)
    predicted = np.asarray(predictions.prediction, dtype=np.float64)
    if predicted.shape != targets.shape:
        raise DataError(f"predictions: expected shape {targets.shape}, one value per sample, found {predicted.shape}")
    truth = targets.astype(np.float64)
    _refuse_nonfinite("targets", truth, predictions.ids)
    _refuse_nonfinite("predictions", predicted, predictions.ids)
    return truth, predicted


def _classes(task: Task, predictions: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """True and most probable class of each sample, checked."""
    targets = _targets(predictions)
    probabilities = np.asarray(predictions.prediction, dtype=np.float64)
    if probabilities.shape != (len(targets), len(task.classes)):
        raise DataError(f"predictions: expected shape {(len(targets), len(task.classes))}, found {probabilities.shape}")
    _refuse_nonfinite("predictions", probabilities.sum(axis=1), predictions.ids)
    truth = targets.astype(np.int64)
    outside = np.flatnonzero((truth < 0) | (truth >= len(task.classes)) | (truth != targets))
    if outside.size:
        row = int(outside[0])
        raise DataError(
            f"targets: sample {predictions.ids[row]!r} has class {targets[row]}, expected an integer in [0, {len(task.classes)})"
        )
    return truth, probabilities.argmax(axis=1).astype(np.int64)


def _targets(predictions: Predictions) -> NDArray[np.generic]:
    if predictions.targets is None:
        raise DataError("targets: none known, so nothing can be scored")
    targets = np.asarray(predictions.targets)
    if targets.size == 0:
        raise DataError("predictions: no sample to score")
    if targets.shape != (len(predictions.ids),):
        raise DataError(f"targets: expected shape {(len(predictions.ids),)}, found {targets.shape}")
    return targets


def _refuse_nonfinite(what: str, values: NDArray[np.float64], ids: tuple[str, ...]) -> None:
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise DataError(f"{what}: {wrong.size} of {values.size} not finite, the first is sample {ids[int(wrong[0])]!r}")


def _score_regression(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> dict[str, float]:
    non0 = truth != 0.0
    return {
        "mae": float(np.abs(predicted - truth).mean()),
        "corr": _correlation(truth, predicted),
        "acc2_has0": _accuracy(truth >= 0.0, predicted >= 0.0),
        "f1_has0": _f1_weighted(truth >= 0.0, predicted >= 0.0, num_classes=2),
        "acc2_non0": _accuracy(truth[non0] > 0.0, predicted[non0] > 0.0),
        "f1_non0": _f1_weighted(truth[non0] > 0.0, predicted[non0] > 0.0, num_classes=2),
        "acc5": _rounded_accuracy(truth, predicted, limit=2),
        "acc7": _rounded_accuracy(truth, predicted, limit=3),
    }


def _score_classification(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, float]:
    num_classes = int(max(truth.max(), predicted.max())) + 1
    counts = _confusion(truth, predicted, num_classes=num_classes)
    f1, support = _f1_by_class(counts)
    occurring = (support + counts.sum(axis=0)) > 0
    true_classes = support > 0
    return {
        "accuracy": _accuracy(truth, predicted),
        # A class that was predicted but never true counts with F1 0; one that is neither does not count.
        "f1_macro": float(f1[occurring].mean()),
        "f1_weighted": float((f1 * support).sum() / support.sum()),
        # Recall has no meaning for a class without samples.
        "recall_unweighted": float((np.diag(counts)[true_classes] / support[true_classes]).mean()),
    }


def _accuracy(truth: NDArray[np.generic], predicted: NDArray[np.generic]) -> float:
    return float((truth == predicted).mean()) if truth.size else math.nan


def _rounded_accuracy(truth: NDArray[np.float64], predicted: NDArray[np.float64], *, limit: int) -> float:
    """Share of samples that fall on the true integer after clipping; np.round takes halves to the even neighbour, as MMSA does."""
    return _accuracy(np.round(np.clip(truth, -limit, limit)), np.round(np.clip(predicted, -limit, limit)))


def _correlation(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Pearson correlation; NaN where either side is constant."""
    x, y = _deviations(truth), _deviations(predicted)
    lengths = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.clip((x @ y) / lengths, -1.0, 1.0)) if lengths > 0.0 else math.nan  # rounding can pass 1 by a hair


def _deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deviations from the mean, up to scale: the largest is 1, so that no square over- or underflows; all 0 for a constant."""
    if np.ptp(values) == 0.0:
        return np.zeros_like(values)  # the mean of equal numbers may be off by a rounding
    scaled = values / np.abs(values).max()
    deviations = scaled - scaled.mean()
    return np.asarray(deviations / (np.abs(deviations).max() or 1.0))


def _f1_weighted(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], *, num_classes: int) -> float:
    """F1 averaged over classes, each weighted by how often it is *true*."""
    if not truth.size:
        return math.nan
    f1, support = _f1_by_class(_confusion(truth.astype(np.int64), predicted.astype(np.int64), num_classes=num_classes))
    return float((f1 * support).sum() / support.sum())


def _f1_by_class(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """F1 = 2TP / (2TP + FP + FN) and true support of each class; 0 for a class that never occurs."""
    support = counts.sum(axis=1)
    denominator = support + counts.sum(axis=0)
    return 2.0 * np.diag(counts) / np.maximum(denominator, 1), support


def _confusion(truth: NDArray[np.int64], predicted: NDArray[np.int64], *, num_classes: int) -> NDArray[np.int64]:
    return np.bincount(truth * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)
