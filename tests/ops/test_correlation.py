"""Canonical correlation: known values, invariances, equal correlations, views of low rank, and which samples
count.
"""

import pytest
import torch

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops.correlation import paired_correlation, total_correlation
from tolerances import FLOAT64, GRADCHECK, STANDARD_ERRORS


def views(samples: int, *widths: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(samples, width, generator=generator, dtype=torch.float64) for width in widths]


def test_a_linear_image_is_fully_correlated() -> None:
    x, a = views(50, 4, 4)
    torch.testing.assert_close(
        total_correlation(x, x @ a[:4] + 3, ridge=0), torch.tensor(4.0, dtype=torch.float64), **FLOAT64
    )


def test_independent_views_are_hardly_correlated() -> None:
    samples = 20_000
    x, y = views(samples, 3, 3)
    assert float(total_correlation(x, y, ridge=0)) < 3 * STANDARD_ERRORS / samples**0.5


def test_invertible_maps_change_nothing() -> None:
    x, y, a, b = views(30, 3, 5, 3, 5)
    expected = total_correlation(x, y, ridge=0)
    torch.testing.assert_close(total_correlation(x @ a[:3], y @ b[:5] - 1, ridge=0), expected, **FLOAT64)
    torch.testing.assert_close(total_correlation(y, x, ridge=0), expected, **FLOAT64)


def test_it_is_the_trace_norm_of_the_definition() -> None:
    x, y = views(12, 3, 4)
    a, b = x - x.mean(0), y - y.mean(0)

    def inverse_root(view: torch.Tensor) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(
            view.T @ view / 11 + 0.1 * torch.eye(view.shape[1], dtype=view.dtype)
        )
        return vectors @ torch.diag(values**-0.5) @ vectors.T

    t = inverse_root(a) @ (a.T @ b / 11) @ inverse_root(b)
    torch.testing.assert_close(
        total_correlation(x, y, ridge=0.1), torch.linalg.matrix_norm(t, "nuc"), **FLOAT64
    )


def test_gradients_are_right() -> None:
    x, y = (view.requires_grad_() for view in views(9, 3, 2))
    assert torch.autograd.gradcheck(lambda a, b: total_correlation(a, b, ridge=1e-2), (x, y), **GRADCHECK)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_gradients_are_finite_where_correlations_are_equal_and_views_have_low_rank(
    dtype: torch.dtype, size: float
) -> None:
    one = views(6, 1)[0].to(dtype)
    x = (size * one.expand(6, 10)).clone().requires_grad_()  # more channels than samples, all alike
    y = (size * torch.eye(6, 8, dtype=dtype)).requires_grad_()
    for a, b in ((x, y), (x, x), (y, y)):
        total = total_correlation(a, b, ridge=1e-3)
        found = torch.autograd.grad(total, [a, b], allow_unused=True)
        assert total.dtype == dtype
        assert total.isfinite()
        assert all(gradient is None or gradient.isfinite().all() for gradient in found)


def test_what_is_not_finite_is_not_a_number() -> None:
    x, y = views(6, 2, 2)
    x[0, 0] = torch.inf
    assert total_correlation(x, y, ridge=1e-3).isnan()


def test_mistakes_are_named() -> None:
    x, y = views(6, 2, 2)
    with pytest.raises(ShapeError, match=r"y: expected \(sample, channel\) with at least 2 samples"):
        total_correlation(x, y[:5], ridge=0.1)
    with pytest.raises(ShapeError, match="at least 2 samples"):
        total_correlation(x[:1], y[:1], ridge=0.1)
    with pytest.raises(ConfigError, match="ridge: 0 leaves the covariance of a view singular"):
        total_correlation(torch.zeros_like(x), y, ridge=0)
    with pytest.raises(ConfigError, match="ridge: expected 0 or more, found -1"):
        total_correlation(x, y, ridge=-1)
    with pytest.raises(ShapeError, match="present: expected bool"):
        paired_correlation([x, y], torch.ones(6, 3, dtype=torch.bool), ridge=0.1)


def test_a_pair_counts_the_samples_that_have_both_and_nothing_else() -> None:
    x, y, z = (view.requires_grad_() for view in views(9, 2, 3, 2))
    present = torch.ones(9, 3, dtype=torch.bool)
    present[6:, 0] = False
    present[4:, 2] = False
    every = paired_correlation([x, y, z], present, ridge=0.1)
    expected = total_correlation(x[:6], y[:6], ridge=0.1) + sum(
        total_correlation(a[:4], z[:4], ridge=0.1) for a in (x, y)
    )
    torch.testing.assert_close(every, expected, **FLOAT64)
    few = paired_correlation([x, y, z], present, ridge=0.1, least=5)
    torch.testing.assert_close(few, total_correlation(x[:6], y[:6], ridge=0.1), **FLOAT64)
    none = paired_correlation([x, y, z], present, ridge=0.1, least=10)
    none.backward()
    assert none == 0
    assert not any(view.grad.any() for view in (x, y, z))
