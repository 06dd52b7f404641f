"""Gradient reversal: the same values, the gradient turned."""

import torch

from alignmamba.nn.gradients import reversed_gradient


def test_values_stay_and_the_gradient_turns() -> None:
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 2, dtype=torch.float64)
    turned = reversed_gradient(x, 0.3)
    assert torch.equal(turned, x)
    (gradient,) = torch.autograd.grad((turned * weights).sum(), [x])
    assert torch.equal(gradient, -0.3 * weights)
