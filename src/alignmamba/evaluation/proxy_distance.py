"""Distance of the aligned tokens of two modalities: the proxy A-distance."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignmamba.errors import ConfigError, DataError
from alignmamba.extras import require

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyDistance:
    """Proxy A-distance: how well a linear classifier separates two sets of vectors."""

    distance: float
    """2 (1 - 2 error): 2 where they are distinguished without fault, about 0 where nothing does."""
    error: float
    """Share of held-out vectors that are taken for those of the other set."""
    standard_error: float
    """Standard deviation over the folds by √folds; a guide, for folds share training samples."""


def proxy_a_distance(
    first: ArrayLike, second: ArrayLike, *, seed: int, folds: int = 5, strength: float = 1.0
) -> ProxyDistance:
    """Proxy A-distance of two modalities, by the held-out error of a classifier that distinguishes them.

    The classifier is a logistic regression with a squared penalty, the intercept left free, trained on all
    folds but one. Both vectors of a sample are in the same fold, and the training folds scale the channels.
    The distance is not clipped: clipping at 0 would make a mean over seeds look like a distance.

    Args:
        first: (samples, channel), one vector per sample.
        second: Of the other modality, of the same samples in the same order.
        seed: Decides which samples go into which fold.
        folds: Number of them.
        strength: Of the penalty, in units of one sample's loss; distances of another one do not compare.

    Raises:
        ConfigError: If there are fewer than two folds or more than samples, the strength is not positive, or
            scipy is missing.
        DataError: If shapes differ or are not (samples, channel), or a value is not finite.

    Source:
        Ben-David et al., NIPS 2006; in this form: Ganin et al., JMLR 17 (2016), section 5.1.5.
    """
    a, b = _checked("first", first), _checked("second", second)
    if a.shape != b.shape:
        raise DataError(f"second: expected the shape of first, {a.shape}, found {b.shape}")
    if not 2 <= folds <= len(a):
        raise ConfigError(f"folds: expected a number from 2 to that of the samples, {len(a)}, found {folds}")
    if not strength > 0.0:
        raise ConfigError(f"strength: expected a number above 0, found {strength}")
    parts = np.array_split(np.random.default_rng(seed).permutation(len(a)), folds)
    wrong = [_wrong(a, b, held_out, strength) for held_out in parts]
    error = sum(wrong) / (2 * len(a))
    fold_errors = [count / (2 * len(held_out)) for count, held_out in zip(wrong, parts, strict=True)]
    # The distance falls by 4 where the error rises by 1.
    return ProxyDistance(
        distance=2 * (1 - 2 * error),
        error=error,
        standard_error=4 * float(np.std(fold_errors, ddof=1)) / math.sqrt(folds),
    )


def _checked(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.shape[1]:
        raise DataError(f"{name}: expected (samples, channel), found shape {array.shape}")
    if not np.isfinite(array).all():
        raise DataError(f"{name}: {(~np.isfinite(array)).sum()} of {array.size} values are not finite")
    return array


def _wrong(first: Array, second: Array, held_out: NDArray[np.int64], strength: float) -> int:
    """Number of held-out vectors that are classified as the other modality's."""
    kept = np.setdiff1d(np.arange(len(first)), held_out)
    known = np.concatenate([first[kept], second[kept]])
    centre, deviation = known.mean(axis=0), known.std(axis=0)
    # A channel that is constant but for rounding tells nothing.
    scale = np.where(deviation > 1e-12 * np.abs(known).max(axis=0), deviation, np.inf)
    labels = np.repeat([-1.0, 1.0], len(kept))
    weights, intercept = _fit_logistic((known - centre) / scale, labels, strength)
    calls = [((rows[held_out] - centre) / scale) @ weights + intercept > 0.0 for rows in (first, second)]
    return int(calls[0].sum() + (~calls[1]).sum())


def _fit_logistic(vectors: Array, labels: Array, strength: float) -> tuple[Array, float]:
    """Minimise Σ log(1 + exp(-label (vector·weights + intercept))) + strength/2 |weights|²."""
    require("proxy A-distance", "experiments", "scipy")
    from scipy import optimize, special

    def loss(parameters: Array) -> tuple[float, Array]:
        weights, margins = parameters[:-1], labels * (vectors @ parameters[:-1] + parameters[-1])
        pull = -labels * special.expit(-margins)
        value = np.logaddexp(0.0, -margins).sum() + 0.5 * strength * (weights @ weights)
        # Divided by the vectors, so that the tolerances mean the same for any number of them.
        slope = np.append(vectors.T @ pull + strength * weights, pull.sum())
        return float(value) / len(vectors), slope / len(vectors)

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-12, "gtol": 1e-7}
    start = np.zeros(vectors.shape[1] + 1)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return found.x[:-1], float(found.x[-1])
