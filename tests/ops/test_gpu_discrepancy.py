"""Triton's kernel sums against dense float64; under Triton's interpreter where there is no GPU."""

import pytest
import torch
from torch import Tensor

from alignmamba.errors import BackendError
from alignmamba.ops import mmd
from instruments import unwritten_is_nan
from tolerances import FLOAT32

pytest.importorskip("triton", reason="triton is not installed")

from alignmamba.ops.gpu.discrepancy import weighted_kernel_sum

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def dense(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, scale: Tensor, weights: Tensor) -> Tensor:
    def total(a: Tensor, b: Tensor, a_mask: Tensor, b_mask: Tensor) -> Tensor:
        distance = (a.unsqueeze(2) - b.unsqueeze(1)).square().sum(3)
        kernel = torch.exp(-scale[:, None, None] * distance)
        return kernel.masked_fill(~(a_mask.unsqueeze(2) & b_mask.unsqueeze(1)), 0).sum((1, 2))

    sides = total(x, x, x_mask, x_mask), total(y, y, y_mask, y_mask), total(x, y, x_mask, y_mask)
    return sum(
        (weight * side for weight, side in zip(weights, sides, strict=True)), start=torch.zeros_like(scale)
    )


def arguments(batch: int, n: int, m: int, channel: int) -> tuple[Tensor, ...]:
    """Slices of wider tensors, with valid tokens in any place and NaN where they are not valid."""
    generator = torch.Generator().manual_seed(n + m)
    x, y = (
        torch.randn(batch, length, channel + 3, generator=generator)[..., 3:] / channel**0.5
        for length in (n, m)
    )
    x_mask, y_mask = (torch.rand(batch, length, generator=generator) < 0.8 for length in (n, m))
    x_mask[:, 0], y_mask[:, -1] = True, True
    x[~x_mask], y[~y_mask] = torch.nan, torch.nan
    weights = torch.tensor([[1.0], [0.5], [-2.0]]).expand(3, batch) / n
    given = (x, y, x_mask, y_mask, torch.rand(batch, generator=generator) + 0.5, weights)
    return tuple(tensor.to(DEVICE) for tensor in given)


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 63, 65, 17), (2, 33, 70, 40), (1, 20, 1, 300)])
def test_value_and_every_gradient(shape: tuple[int, int, int, int]) -> None:
    given = arguments(*shape)
    with unwritten_is_nan():
        found = weighted_kernel_sum(*given, need_gradient=True)
        again = weighted_kernel_sum(*given, need_gradient=True)
        alone, *nothing = weighted_kernel_sum(*given, need_gradient=False)
    assert all(
        torch.equal(a, b) for a, b in zip(found, again, strict=True) if a is not None and b is not None
    )
    assert nothing == [None, None]
    leaves = [side.nan_to_num().double().requires_grad_() for side in given[:2]]
    value = dense(*leaves, *given[2:4], *(tensor.double() for tensor in given[4:]))
    expected = [value.detach(), *torch.autograd.grad(value.sum(), leaves)]
    for tensor, exact in zip((*found, alone), (*expected, expected[0]), strict=True):
        assert tensor is not None
        torch.testing.assert_close(tensor.double(), exact, **FLOAT32)


def test_makes_the_squared_discrepancy() -> None:
    x, y, x_mask, y_mask, _, _ = arguments(2, 30, 40, 5)
    x, y = x.nan_to_num(), y.nan_to_num()
    n, m = x_mask.sum(1), y_mask.sum(1)
    weights = torch.stack([1 / n**2, 1 / m**2, -2 / (n * m)])
    value, _, _ = weighted_kernel_sum(
        x, y, x_mask, y_mask, torch.full((2,), 0.5, device=DEVICE), weights, need_gradient=False
    )
    torch.testing.assert_close(value.float(), mmd(x, y, x_mask, y_mask, bandwidth=1.0), **FLOAT32)


def test_equal_tokens_are_at_distance_zero() -> None:
    """A token's kernel with itself is one to the last bit, whatever rounding does to its distance; the others
    lie too far to count.
    """
    x = torch.randn(1, 20, 40, generator=torch.Generator().manual_seed(0)).to(DEVICE) * 30
    valid = torch.ones(1, 20, dtype=torch.bool, device=DEVICE)
    weights = torch.tensor([[1.0], [0.0], [0.0]], device=DEVICE)
    value, _, _ = weighted_kernel_sum(
        x, x, valid, valid, torch.ones(1, device=DEVICE), weights, need_gradient=False
    )
    assert value.item() == 20.0


def test_nothing_valid() -> None:
    x, y, x_mask, y_mask, scale, weights = arguments(2, 5, 7, 3)
    with unwritten_is_nan():
        value, grad_x, grad_y = weighted_kernel_sum(
            x, y, x_mask & False, y_mask & False, scale, weights, need_gradient=True
        )
    assert grad_x is not None
    assert grad_y is not None
    assert not value.any()
    assert not grad_x.any()
    assert not grad_y.any()


def test_empty_sides() -> None:
    x, y, x_mask, y_mask, scale, weights = arguments(1, 4, 6, 3)
    value, grad_x, grad_y = weighted_kernel_sum(
        x[:, :0], y, x_mask[:, :0], y_mask, scale, weights, need_gradient=True
    )
    expected = dense(
        x[:, :0].double(), y.nan_to_num().double(), x_mask[:, :0], y_mask, scale.double(), weights.double()
    )
    torch.testing.assert_close(value, expected, **FLOAT32)
    assert grad_x is not None
    assert grad_y is not None
    assert grad_x.shape == (1, 0, 3)
    assert grad_y.isfinite().all()


def test_refuses_what_it_cannot_serve() -> None:
    with pytest.raises(BackendError, match="at most 1024 channels, found 1025"):
        weighted_kernel_sum(*arguments(1, 2, 2, 1025), need_gradient=False)
