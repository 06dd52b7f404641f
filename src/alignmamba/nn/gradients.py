"""Gradient reversal: what one network learns to distinguish, the one before it learns to hide."""

from typing import Any

import torch
from torch import Tensor


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * grads[0], None


def reversed_gradient(x: Tensor, weight: float = 1.0) -> Tensor:
    """The same values, whose gradient comes back times ``-weight`` (Ganin and Lempitsky, ICML 2015, arXiv
    1409.7495).

    Args:
        x: Of any shape.
        weight: Factor on the gradient, whose sign is turned.
    """
    reversed_: Tensor = _Reversal.apply(x, weight)  # type: ignore[no-untyped-call]
    return reversed_
