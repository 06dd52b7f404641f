"""Heads: ordered classes."""

import torch
from torch.nn import functional

from alignmamba.contracts import Task
from alignmamba.models.heads import Head, Ordered


def head(classes: int) -> Head:
    torch.manual_seed(0)
    task = Task(kind="ordinal", classes=tuple(map(str, range(classes))))
    made = Head(3, task, dropout=0.0).double()
    with torch.no_grad():
        order(made).gaps.copy_(torch.linspace(-1, 1, classes - 2))
    return made


def order(made: Head) -> Ordered:
    assert made.order is not None
    return made.order


def test_probabilities_are_those_of_the_proportional_odds_model() -> None:
    made, x = head(4), torch.randn(5, 3, dtype=torch.float64)
    ordered = order(made)
    thresholds = ordered.lowest + torch.cat([torch.zeros(1), functional.softplus(ordered.gaps).cumsum(0)])
    below = torch.sigmoid(thresholds - x @ made.weight.T)
    expected = torch.diff(below, dim=1, prepend=torch.zeros(5, 1), append=torch.ones(5, 1))
    found = made(x)
    torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(found.softmax(1), expected)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(5, dtype=torch.float64))


def test_two_classes_are_a_logistic_regression() -> None:
    made, x = head(2), torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(
        made(x)[:, 0].exp(), torch.sigmoid(order(made).lowest - x @ made.weight.T)[:, 0]
    )


def test_a_higher_score_moves_every_threshold() -> None:
    made = head(5)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
    x = torch.zeros(7, 3, dtype=torch.float64)
    x[:, 0] = torch.linspace(-4, 4, 7)
    below = made(x).exp().cumsum(1)[:, :-1]
    assert bool((below.diff(dim=0) < 0).all())


def test_far_scores_keep_finite_losses_and_gradients() -> None:
    made = head(4).float()
    with torch.no_grad():
        made.weight.fill_(100.0)
    x = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]], requires_grad=True)
    for wanted in range(4):
        loss = functional.cross_entropy(made(x), torch.full((2,), wanted))
        assert bool(loss.isfinite())
        (gradient,) = torch.autograd.grad(loss, x)
        assert bool(gradient.isfinite().all())


def test_gradients_are_those_of_differences() -> None:
    made = head(4)
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(made, (x,))
