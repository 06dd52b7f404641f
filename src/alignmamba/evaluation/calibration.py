"""Calibration of the probabilities of a classifier, and its scores on each class."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignmamba.errors import DataError

NUM_BINS: Final = 15
"""Bins of equal width over [0, 1], as many as Guo et al. take."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Samples whose confidence falls between two bounds."""

    low: float
    """Lower bound, itself left out, but for 0 in the first bin."""
    high: float
    """Upper bound, itself taken in."""
    samples: int
    confidence: float
    """Mean probability of the predicted class."""
    accuracy: float
    """Share of the samples that are right."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Confidence against accuracy."""

    bins: tuple[Bin, ...]
    """Those that hold a sample, the least confident first."""
    error: float
    """Expected calibration error (ECE)."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Scores of one class against all others."""

    precision: float | None
    """Share of the samples called so that are so; None where none is called so."""
    recall: float | None
    """Share of the samples that are so that are called so; None where none is so."""
    f1: float | None
    """2 TP / (2 TP + FP + FN); None where the class is neither true nor predicted."""
    support: int
    """Samples that are so."""


def reliability(confidence: ArrayLike, correct: ArrayLike, *, num_bins: int = NUM_BINS) -> Reliability:
    r"""Bin samples by confidence, and average the gap between confidence and accuracy.

    .. math:: \mathrm{ECE} = \sum_m \frac{|B_m|}{n} |\mathrm{acc}(B_m) - \mathrm{conf}(B_m)|

    Args:
        confidence: (samples,), probability of the predicted class, in [0, 1].
        correct: (samples,) bool, whether the predicted class is the true one.
        num_bins: Bins of equal width.

    Raises:
        DataError: If the lengths differ, there is no sample, or a confidence lies outside [0, 1].

    Source:
        Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017 (arXiv
        1706.04599), eq. 2 to 5.
    """
    sure = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.bool_)
    if sure.ndim != 1 or sure.shape != right.shape or not sure.size:
        raise DataError(
            f"confidence: expected one number per sample and {right.shape} of them, found shape {sure.shape}"
        )
    if not ((sure >= 0) & (sure <= 1 + 1e-6)).all():
        raise DataError("confidence: expected numbers from 0 to 1")
    place = np.clip(np.ceil(sure * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    bins = []
    for number in np.unique(place):
        inside = place == number
        bins.append(
            Bin(
                low=float(number / num_bins),
                high=float((number + 1) / num_bins),
                samples=int(inside.sum()),
                confidence=float(sure[inside].mean()),
                accuracy=float(right[inside].mean()),
            )
        )
    error = sum(each.samples * abs(each.accuracy - each.confidence) for each in bins) / sure.size
    return Reliability(bins=tuple(bins), error=float(error))


def class_scores(counts: NDArray[np.int64]) -> list[ClassScore]:
    """Score each class of (classes, classes) samples by true class (rows) and predicted class (columns)."""
    hits, support, called = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return [
        ClassScore(
            precision=share(hit, said), recall=share(hit, true), f1=share(2 * hit, said + true), support=true
        )
        for hit, true, said in zip(hits.tolist(), support.tolist(), called.tolist(), strict=True)
    ]
