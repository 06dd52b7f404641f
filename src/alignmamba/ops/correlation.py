"""Canonical correlation between views of the same samples (Andrew et al., ICML 2013, section 3)."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops.sequence import check_floating


def total_correlation(x: Tensor, y: Tensor, *, ridge: float) -> Tensor:
    r"""Sum of the canonical correlations of two views: the trace norm of ``T = Sxx^(-1/2) Sxy Syy^(-1/2)``.

    ``S`` are covariances over the samples, those of a view with itself with `ridge` on the diagonal. Inverse
    roots come from Cholesky factors in place of symmetric ones: ``T`` then differs by rotations alone, which
    leave its singular values. Neither the factors nor a sum of singular values divides by gaps between
    eigenvalues, so gradients stay finite where correlations are equal. Computed in double precision whatever
    the views are.

    Args:
        x: (sample, x channel), floating.
        y: (sample, y channel), of the same dtype.
        ridge: Added to every variance; bounds what a view of low rank can gain. With 0, either view needs
            full rank.

    Returns:
        () of the dtype of the views, from 0 to the number of channels of the narrower view; NaN where a view
        is not finite.

    Raises:
        ShapeError: If the views are not floating matrices over the same samples, at least 2.
        ConfigError: If `ridge` is negative, or 0 with a view whose covariance is singular.
    """
    for name, view in (("x", x), ("y", y)):
        check_floating(name, view)
        if view.ndim != 2 or len(view) != len(x) or len(view) < 2:
            raise ShapeError(
                f"{name}: expected (sample, channel) with at least 2 samples, as many as x, found shape"
                f" {tuple(view.shape)}"
            )
    if not ridge >= 0:
        raise ConfigError(f"ridge: expected 0 or more, found {ridge}")
    a, b = (view.double() - view.double().mean(0) for view in (x, y))
    if not bool(a.isfinite().all() & b.isfinite().all()):
        return (x.sum() + y.sum()) * torch.nan
    share = 1 / (len(a) - 1)
    left, right = (_root(view.T @ view * share, ridge) for view in (a, b))
    half = torch.linalg.solve_triangular(left, a.T @ b * share, upper=False)
    whitened = torch.linalg.solve_triangular(right, half.T, upper=False)
    correlations: Tensor = torch.linalg.svdvals(whitened)
    return correlations.sum().to(x.dtype)


def _root(covariance: Tensor, ridge: float) -> Tensor:
    """Lower Cholesky factor of a covariance with a ridge."""
    diagonal = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    # What rounding takes from the smallest eigenvalue of a large covariance is put back.
    lost = (
        0.0
        if ridge == 0
        else torch.finfo(covariance.dtype).eps * len(covariance) * float(covariance.detach().trace())
    )
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(covariance + (ridge + lost) * diagonal)
    if bool(failed):
        raise ConfigError(f"ridge: {ridge:g} leaves the covariance of a view singular, expected more")
    return root


def paired_correlation(views: Sequence[Tensor], present: Tensor, *, ridge: float, least: int = 2) -> Tensor:
    """Sum of the total correlations of all pairs of views, each over the samples that have both.

    Args:
        views: (sample, its channel) each.
        present: (sample, view) bool.
        ridge: As in `total_correlation`.
        least: Samples below which a pair adds nothing; at least 2.

    Returns:
        (), zero with a gradient of zeros where no pair has samples enough.
    """
    if present.shape != (len(views[0]), len(views)) or present.dtype != torch.bool:
        expected = f"bool of shape {(len(views[0]), len(views))}"
        raise ShapeError(
            f"present: expected {expected}, found {present.dtype} of shape {tuple(present.shape)}"
        )
    total = sum((0 * view.sum() for view in views), start=views[0].new_zeros(()))
    for first, second in combinations(range(len(views)), 2):
        rows = (present[:, first] & present[:, second]).nonzero().flatten()
        if len(rows) >= max(2, least):
            total = total + total_correlation(views[first][rows], views[second][rows], ridge=ridge)
    return total
