"""Normalisation over those that have a modality: torch's own numbers where all have it, no trace of the
others where not.
"""

import torch
from torch import nn

from alignmamba.nn.unimodal import PooledPerceptron, PresentNorm
from tolerances import EXACT, FLOAT64


def test_it_is_batch_normalisation_of_the_present_rows() -> None:
    torch.manual_seed(0)
    ours, torchs = PresentNorm(3).double(), nn.BatchNorm1d(3).double()
    with torch.no_grad():
        ours.weight.copy_(torch.tensor([1.0, 2, 3]))
        torchs.weight.copy_(ours.weight)
    present = torch.tensor([True, False, True, True, False])
    for training in (True, True, False):
        x = torch.randn(5, 3, dtype=torch.float64)
        ours.train(training)
        torchs.train(training)
        expected = torch.zeros_like(x)
        expected[present] = torchs(x[present])
        found = ours(x.masked_fill(~present.unsqueeze(1), 1e6), present)
        torch.testing.assert_close(found, expected, **FLOAT64)
        torch.testing.assert_close(ours.running_var, torchs.running_var, **FLOAT64)
        torch.testing.assert_close(ours.running_mean, torchs.running_mean, **FLOAT64)


def test_one_or_no_row_takes_the_running_statistics_and_leaves_them() -> None:
    norm = PresentNorm(3)
    norm(torch.randn(4, 3), torch.ones(4, dtype=torch.bool))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(4, 3, requires_grad=True)
    for rows in ([], [2]):
        present = torch.zeros(4, dtype=torch.bool)
        present[rows] = True
        found = norm.train()(x, present)
        torch.testing.assert_close(found, norm.eval()(x, present), **EXACT)
        assert all(torch.equal(norm.state_dict()[name], value) for name, value in before.items())
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    assert gradient.isfinite().all()


def test_a_missing_modality_is_zero_and_has_no_gradient() -> None:
    module = PooledPerceptron(3, 4, 0.0)
    x = torch.randn(3, 5, 3, requires_grad=True)
    mask = torch.arange(5) < torch.tensor([5, 0, 2]).unsqueeze(1)
    vector = module(x, mask)
    assert bool((vector[1] == 0).all())
    (gradient,) = torch.autograd.grad(vector.sum(), x)
    assert bool((gradient[~mask] == 0).all())
