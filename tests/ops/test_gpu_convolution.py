"""The Triton convolution against plain shifted sums in float64; under Triton's interpreter where there is no
GPU.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from instruments import unwritten_is_nan
from tolerances import BFLOAT16, FLOAT16, FLOAT32

pytest.importorskip("triton", reason="triton is not installed")

from alignmamba.ops.gpu.convolution import conv_backward, conv_forward

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def oracle(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    width, time = len(weight), x.shape[1]
    padded = F.pad(x, (0, 0, width - 1, 0))
    return F.silu(sum((padded[:, k : k + time] * weight[k] for k in range(width)), start=bias))


def arguments(
    batch: int, time: int, channel: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """A slice of a wider tensor as x, then weight, bias and the gradient of the output."""
    generator = torch.Generator().manual_seed(time)
    wide = torch.randn(batch, time, channel + 3, generator=generator).to(DEVICE, dtype)
    weight, bias = torch.randn(width, channel, generator=generator), torch.randn(channel, generator=generator)
    return (
        wide[..., 3:],
        weight.to(DEVICE),
        bias.to(DEVICE),
        torch.randn(batch, time, channel, generator=generator).to(DEVICE, dtype),
    )


@pytest.mark.parametrize(
    ("shape", "dtype", "tolerance"),
    [
        ((2, 1, 3, 4), torch.float32, FLOAT32),
        ((1, 63, 17, 4), torch.float32, FLOAT32),
        ((2, 33, 130, 2), torch.float32, FLOAT32),
        ((1, 20, 5, 16), torch.float32, FLOAT32),
        ((1, 65, 5, 1), torch.float32, FLOAT32),
        ((1, 30, 5, 4), torch.bfloat16, BFLOAT16),
        ((1, 30, 5, 4), torch.float16, FLOAT16),
    ],
)
def test_value_and_every_gradient(
    shape: tuple[int, int, int, int], dtype: torch.dtype, tolerance: dict[str, float]
) -> None:
    x, weight, bias, grad_y = arguments(*shape, dtype=dtype)
    with unwritten_is_nan():
        found = [conv_forward(x, weight, bias), *conv_backward(x, weight, bias, grad_y)]
        again = [conv_forward(x, weight, bias), *conv_backward(x, weight, bias, grad_y)]
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert [tensor.dtype for tensor in found] == [dtype, dtype, torch.float32, torch.float32]
    leaves = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    y = oracle(*leaves)
    expected = [y.detach(), *torch.autograd.grad(y, leaves, grad_y.double())]
    for tensor, exact in zip(found, expected, strict=True):
        scale = exact.abs().max().clamp(min=1)
        torch.testing.assert_close(tensor.double() / scale, exact / scale, **tolerance)


def test_an_expanded_gradient() -> None:
    """Gradient as the backward pass of a sum gives it: every stride is zero."""
    x, weight, bias, _ = arguments(2, 5, 3, 4)
    expanded = torch.ones((), device=DEVICE).expand(2, 5, 3)
    for a, b in zip(
        *(conv_backward(x, weight, bias, grad) for grad in (expanded, expanded.contiguous())), strict=True
    ):
        assert torch.equal(a, b)


def test_nothing_in_nothing_out() -> None:
    x, weight, bias, grad_y = arguments(2, 0, 3, 4)
    assert conv_forward(x, weight, bias).shape == (2, 0, 3)
    assert all(not gradient.any() for gradient in conv_backward(x, weight, bias, grad_y))
