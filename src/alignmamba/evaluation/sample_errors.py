"""Error of the prediction of each sample, to put samples in order."""

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import Predictions, Task


def sample_errors(task: Task, predictions: Predictions) -> NDArray[np.float64]:
    """(samples,) absolute errors of numbers, of classes one minus the probability of the true one, of several
    labels the mean distance of a probability from the truth; NaN where the target is unknown.
    """
    values = np.asarray(predictions.prediction, dtype=np.float64)
    targets = np.asarray(predictions.targets)
    if task.kind == "regression":
        return np.asarray(np.abs(values - targets))
    if task.kind == "multilabel":
        known = ~np.isnan(targets)
        count = known.sum(axis=1)
        apart = np.where(known, np.abs(values - targets), 0.0).sum(axis=1)
        return np.where(count > 0, apart / np.maximum(count, 1), np.nan)
    true = targets.astype(np.int64)
    found = np.take_along_axis(values, np.maximum(true, 0)[:, None], axis=1)[:, 0]
    return np.where(true >= 0, 1 - found, np.nan)
