"""Central moment discrepancy and overlap of two batches of vectors, against their formulas and at their
zeros.
"""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from alignmamba.errors import ShapeError
from alignmamba.ops import central_moment_discrepancy, subspace_overlap
from tolerances import FLOAT32, FLOAT64, GRADCHECK

MEASURES = (central_moment_discrepancy, subspace_overlap)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_moments_as_in_the_formula() -> None:
    x, y = drawn(5, 3), drawn(7, 3, seed=1)
    a, b = x.numpy(), y.numpy()
    expected = np.linalg.norm(a.mean(0) - b.mean(0))
    for k in (2, 3, 4):
        expected += np.linalg.norm(((a - a.mean(0)) ** k).mean(0) - ((b - b.mean(0)) ** k).mean(0))
    assert_close(central_moment_discrepancy(x, y, moments=4), torch.tensor(expected), **FLOAT64)


def test_moments_do_not_see_the_order_of_rows_and_vanish_with_a_finite_gradient() -> None:
    x = drawn(6, 3).requires_grad_()
    turned = x[[3, 1, 0, 5, 4, 2]]
    assert_close(central_moment_discrepancy(x, turned), torch.zeros((), dtype=torch.float64), **FLOAT64)
    same = central_moment_discrepancy(x, x)
    assert same == 0
    (gradient,) = torch.autograd.grad(same, [x])
    assert gradient.isfinite().all()


def test_overlap_is_zero_where_no_channels_correlate() -> None:
    x, y = torch.zeros(4, 2), torch.zeros(4, 2)
    x[:2] = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    y[2:] = torch.tensor([[3.0, 1.0], [-3.0, -1.0]])
    assert subspace_overlap(x, y) == 0
    assert subspace_overlap(x, x) > 0.1


def test_measures_are_single_precision_at_least_under_autocast() -> None:
    x, y = drawn(16, 3).float(), drawn(16, 3, seed=1).float()
    for measure in MEASURES:
        with torch.autocast("cpu", torch.bfloat16):
            mixed = measure(x, y)
        assert mixed.dtype == torch.float32
        assert_close(mixed, measure(x, y), **FLOAT32)


def test_gradients() -> None:
    x, y = drawn(4, 2).requires_grad_(), drawn(4, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(central_moment_discrepancy, (x, y), **GRADCHECK)


@pytest.mark.parametrize("measure", MEASURES)
def test_shapes_that_do_not_fit_are_named(measure: object) -> None:
    assert callable(measure)
    for x, y in ((drawn(3), drawn(3)), (drawn(0, 2), drawn(0, 2))):
        with pytest.raises(ShapeError, match="expected"):
            measure(x, y)
    with pytest.raises(ShapeError, match="one width"):
        central_moment_discrepancy(drawn(3, 2), drawn(3, 4))
    with pytest.raises(ShapeError, match="as many samples"):
        subspace_overlap(drawn(3, 2), drawn(4, 2))
