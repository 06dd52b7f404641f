r"""Sources of what a score varies by, as far as the design of an experiment separates them.

Bouthillier et al. (Accounting for variance in machine learning benchmarks, MLSys 2021, arXiv:2103.03098)
count the draw of data, the seed of training (first weights, order, dropout) and tuning. A source can be
distinguished from another one only where it was varied while the other was held.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from alignmamba.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossed:
    """Variances of two sources that were varied against each other, see `crossed`."""

    of_rows: float
    of_columns: float
    rest: float
    """Remainder that neither explains alone: their interaction, and chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """Variances of a source and of another one within it, see `nested`."""

    between: float
    within: float


def crossed(scores: ArrayLike) -> Crossed:
    r"""Variances of scores y[r, c] = μ + a[r] + b[c] + e[r, c] with random effects, without replication.

    With R rows, C columns and the mean squares of the analysis of variance,

        MS_rows = C Σ_r (ȳ[r, ·] - ȳ)² / (R - 1)
        MS_columns = R Σ_c (ȳ[·, c] - ȳ)² / (C - 1)
        MS_rest = Σ_rc (y[r, c] - ȳ[r, ·] - ȳ[·, c] + ȳ)² / ((R - 1) (C - 1))

    the estimates are (MS_rows - MS_rest) / C, (MS_columns - MS_rest) / R and MS_rest. They are unbiased, and
    may be negative where the truth is near 0.

    Args:
        scores: (rows, columns), 2 or more of each.

    Raises:
        DataError: If the shape is another, or a score is not finite.

    Source:
        Searle, Casella & McCulloch, Variance components (1992), section 4.3.
    """
    y = np.asarray(scores, dtype=np.float64)
    if y.ndim != 2 or min(y.shape) < 2 or not np.isfinite(y).all():
        raise DataError(f"scores: expected finite (rows, columns), 2 or more of each, found shape {y.shape}")
    rows, columns = y.shape
    by_row, by_column, mean = y.mean(1, keepdims=True), y.mean(0, keepdims=True), y.mean()
    of_rows = columns * float(((by_row - mean) ** 2).sum()) / (rows - 1)
    of_columns = rows * float(((by_column - mean) ** 2).sum()) / (columns - 1)
    rest = float(((y - by_row - by_column + mean) ** 2).sum()) / ((rows - 1) * (columns - 1))
    return Crossed(of_rows=(of_rows - rest) / columns, of_columns=(of_columns - rest) / rows, rest=rest)


def nested(scores: Sequence[ArrayLike]) -> Nested:
    r"""Variances of scores y[g, i] = μ + a[g] + e[g, i] with random effects, groups of any sizes n_g.

    With G groups, N scores, the mean squares MS_between = Σ_g n_g (ȳ[g] - ȳ)² / (G - 1) and MS_within =
    Σ_gi (y[g, i] - ȳ[g])² / (N - G), the estimates are (MS_between - MS_within) / n_0 with n_0 =
    (N - Σ_g n_g² / N) / (G - 1), and MS_within. They are unbiased; the first may be negative.

    Args:
        scores: (n_g,) of each group; 2 groups or more, one of which has 2 scores or more.

    Raises:
        DataError: If there are fewer, or a score is not finite.

    Source:
        Searle, Casella & McCulloch, Variance components (1992), section 3.6.
    """
    groups = [np.asarray(group, dtype=np.float64).ravel() for group in scores]
    sizes = np.array([group.size for group in groups], dtype=np.float64)
    total = float(sizes.sum())
    if len(groups) < 2 or sizes.min() < 1 or total <= len(groups):
        raise DataError(
            "scores: expected 2 groups or more, one of which has 2 scores, found"
            f" {', '.join(str(group.size) for group in groups) or 'none'}"
        )
    every = np.concatenate(groups)
    if not np.isfinite(every).all():
        raise DataError("scores: expected finite numbers")
    means = np.array([group.mean() for group in groups])
    between = float((sizes * (means - every.mean()) ** 2).sum()) / (len(groups) - 1)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (total - len(groups))
    typical = (total - float((sizes**2).sum()) / total) / (len(groups) - 1)
    return Nested(between=(between - within) / typical, within=within)
