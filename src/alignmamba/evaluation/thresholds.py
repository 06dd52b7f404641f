"""Thresholds from which labels are called, chosen on predictions whose targets are known."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import Predictions, Task

HALF = 0.5
"""Threshold of a label for which none can be chosen."""


def chosen_thresholds(task: Task, predictions: Predictions) -> dict[str, NDArray[np.float64]]:
    """Thresholds of every target of several labels, (classes,), by its name; "" is the target of the task.

    That of a label has the highest weighted accuracy, the mean of the shares of positives and of negatives
    that are called rightly; of several such the nearest to one half.
    """
    found = {}
    if task.kind == "multilabel" and predictions.targets is not None:
        found[""] = _of_labels(np.asarray(predictions.targets), predictions.prediction)
    for target in task.further:
        said = predictions.further.get(target.name)
        if target.kind == "multilabel" and said is not None:
            found[target.name] = _of_labels(said.targets, said.prediction)
    return found


def _of_labels(truth: NDArray[np.float64], probable: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([_best(*each) for each in zip(truth.T, probable.T.astype(np.float64), strict=True)])


def _best(truth: NDArray[np.float64], probable: NDArray[np.float64]) -> float:
    """Best threshold of one label, from (samples,) values of which some may be unknown."""
    known = ~np.isnan(truth) & ~np.isnan(probable)
    there, values = truth[known] > 0, probable[known]
    if not 0 < there.sum() < len(there):
        return HALF
    distinct = np.unique(values)
    candidates = np.append((distinct[1:] + distinct[:-1]) / 2, HALF)
    positive, negative = np.sort(values[there]), np.sort(values[~there])
    called = 1 - np.searchsorted(positive, candidates, side="left") / len(positive)
    spared = np.searchsorted(negative, candidates, side="left") / len(negative)
    score = called + spared
    best = candidates[score >= score.max() - 1e-12]
    return float(best[np.abs(best - HALF).argmin()])


def in_words(thresholds: Mapping[str, NDArray[np.float64]], task: Task) -> dict[str, float]:
    """Thresholds by label, those of a further target after its name and a dot."""
    classes = {"": task.classes, **{target.name: target.classes for target in task.further}}
    return {
        f"{name}.{label}" if name else label: float(value)
        for name, values in thresholds.items()
        for label, value in zip(classes[name], values, strict=True)
    }
