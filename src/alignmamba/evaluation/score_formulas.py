"""Formulas of scores that are no mean over samples, in float64; `metrics.METRICS` says who has them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignmamba.evaluation.calibration import reliability

Values = NDArray[Any]


def correlation(truth: Values, predicted: Values) -> float:
    """Pearson correlation; NaN where either side is constant."""
    x, y = _deviations(truth), _deviations(predicted)
    lengths = np.linalg.norm(x) * np.linalg.norm(y)
    # rounding can pass 1 by a hair
    return float(np.clip((x @ y) / lengths, -1.0, 1.0)) if lengths > 0.0 else math.nan


def _deviations(values: Values) -> Values:
    """Deviations from the mean, scaled to at most 1 so that no square over- or underflows."""
    if np.ptp(values) == 0.0:
        return np.zeros_like(values)  # the mean of equal numbers may be off by a rounding
    scaled = values / np.abs(values).max()
    deviations = scaled - scaled.mean()
    return np.asarray(deviations / (np.abs(deviations).max() or 1.0))


def concordance(truth: Values, predicted: Values) -> float:
    r"""Concordance correlation coefficient (CCC), 1 where all predictions are right.

    .. math:: \rho_c = \frac{2 s_{xy}}{s_x^2 + s_y^2 + (\bar x - \bar y)^2}

    Moments divide by the number of samples. NaN where all targets are equal: any error would make it
    0 there.

    Source:
        Lin, A Concordance Correlation Coefficient to Evaluate Reproducibility, Biometrics 1989, eq. 5.
    """
    x, y = _scaled(truth, predicted)
    apart = float(x.mean() - y.mean())
    # the mean of equal numbers may be off by a rounding
    x, y = (values - values.mean() if np.ptp(values) else np.zeros_like(values) for values in (x, y))
    spread = float(x @ x + y @ y) / len(x) + apart**2
    return float(2.0 * (x @ y) / len(x)) / spread if x.any() else math.nan


def root_mean_square_error(truth: Values, predicted: Values) -> float:
    """Root of the mean squared error, in units of the label."""
    largest = float(np.abs(predicted - truth).max()) or 1.0
    return largest * float(np.sqrt(np.square((predicted - truth) / largest).mean()))


def determination(truth: Values, predicted: Values) -> float:
    """Share of the variance of the targets that is explained (R2); NaN where they are constant."""
    x, y = _scaled(truth, predicted)
    total = float(np.square(x - x.mean()).sum()) if np.ptp(truth) else 0.0
    return 1.0 - float(np.square(y - x).sum()) / total if total > 0.0 else math.nan


def _scaled(truth: Values, predicted: Values) -> tuple[Values, Values]:
    """Both sides divided by their largest number, so that no square over- or underflows."""
    largest = max(float(np.abs(truth).max()), float(np.abs(predicted).max())) or 1.0
    return truth / largest, predicted / largest


def levels(values: Values, edges: tuple[float, ...]) -> NDArray[np.int64]:
    """Level of each value among edges that rise, each edge in the level below it.

    They are compared in single precision, in which MMSA keeps labels: 0.1 in a file is 0.1 here.
    """
    return np.digitize(values.astype(np.float32), np.array(edges, dtype=np.float32), right=True)


def calibration_error(truth: Values, probable: Values) -> float:
    """Expected calibration error of the most probable class, see `calibration.reliability`."""
    return reliability(probable.max(axis=1).clip(0.0, 1.0), probable.argmax(axis=1) == truth).error


def one_against_others(truth: Values, probable: Values) -> tuple[Values, Values]:
    """Classes as labels: truth and probability of each, (samples, classes); of two classes the second
    alone.
    """
    first = 1 if probable.shape[1] == 2 else 0
    classes = np.arange(first, probable.shape[1])
    return (truth[:, None] == classes).astype(np.float64), probable[:, first:]


def area_under_roc(there: Values, probable: Values) -> float:
    """Probability that a positive is rated above a negative, ties counted half (Mann and Whitney)."""
    order = np.argsort(probable, kind="stable")
    _, place, count = np.unique(probable[order], return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks = np.empty(len(probable))
    ranks[order] = ((last - count + 1 + last) / 2)[place]
    positive, negative = int(there.sum()), int((~there).sum())
    above = ranks[there].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def average_precision(there: Values, probable: Values) -> float:
    """Precision at each threshold, weighted by what recall it adds."""
    order = np.argsort(-probable, kind="stable")
    hits = np.cumsum(there[order])
    ends = np.flatnonzero(np.append(np.diff(probable[order]) != 0, True))
    recall = hits[ends] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * hits[ends] / (ends + 1)).sum())


def f1_weighted(truth: Values, predicted: Values) -> float:
    """F1 averaged over classes, each weighted by how often it is *true*."""
    if not truth.size:
        return math.nan
    f1, support, _ = _f1_by_class(truth, predicted)
    return float((f1 * support).sum() / support.sum())


def f1_macro(truth: Values, predicted: Values) -> float:
    """F1 averaged over classes that are true or predicted; one that is never true counts with 0."""
    f1, support, called = _f1_by_class(truth, predicted)
    return float(f1[(support + called) > 0].mean())


def recall_unweighted(truth: Values, predicted: Values) -> float:
    """Recall averaged over the classes that have samples."""
    counts = confusion(truth.astype(np.int64), predicted.astype(np.int64))
    support = counts.sum(axis=1)
    return float((np.diag(counts)[support > 0] / support[support > 0]).mean())


def _f1_by_class(truth: Values, predicted: Values) -> tuple[Values, NDArray[np.int64], NDArray[np.int64]]:
    """F1 = 2TP / (2TP + FP + FN) of each class, 0 for one that never occurs; how often true; predicted."""
    counts = confusion(truth.astype(np.int64), predicted.astype(np.int64))
    support, called = counts.sum(axis=1), counts.sum(axis=0)
    return 2.0 * np.diag(counts) / np.maximum(support + called, 1), support, called


def confusion(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], *, num_classes: int | None = None
) -> NDArray[np.int64]:
    """Counts by true (rows) and predicted class; as many classes as occur where their number is not given."""
    size = num_classes or int(max(truth.max(), predicted.max())) + 1
    return np.bincount(truth * size + predicted, minlength=size**2).reshape(size, size).astype(np.int64)


def weighted_accuracy(there: Values, called: Values) -> float:
    """Mean of the shares of positives and of negatives that are called rightly: the weighted accuracy of
    CMU-MOSEI's emotions (Zadeh et al., ACL 2018, after Tong et al. 2017).
    """
    return float((called[there].mean() + (1 - called[~there]).mean()) / 2)


def kappa(truth: Values, predicted: Values) -> float:
    """Agreement of ordered classes beyond chance, with quadratic weights (Cohen, 1968)."""
    counts = confusion(truth.astype(np.int64), predicted.astype(np.int64)).astype(np.float64)
    place = np.arange(len(counts))
    distance = (place[:, None] - place[None, :]) ** 2
    chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    expected = float((distance * chance).sum())
    return 1.0 - float((distance * counts).sum()) / expected if expected > 0.0 else math.nan


def over_folds(
    formula: Callable[[Values, Values], float], truth: Values, said: Values, parts: Values
) -> float:
    """Mean over folds of a formula, weighted by their samples; folds that leave it undefined do not count.

    Args:
        formula: Of targets and predictions.
        truth: (rows, ...), targets.
        said: (rows, ...), predictions.
        parts: (rows,) number of the fold of each.
    """
    folds = [parts == part for part in np.unique(parts)]
    values = [(formula(truth[here], said[here]), int(here.sum())) for here in folds]
    known = [(value, count) for value, count in values if math.isfinite(value)]
    samples = sum(count for _, count in known)
    return sum(value * count for value, count in known) / samples if samples else math.nan
