"""AlignMamba-2: experts at zero make a plain Mamba, a token meets its own expert alone, and alignment is of
training alone.
"""

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.methods.alignmamba_2 import ALIGNED_IN_TRAINING, AlignedInTraining
from alignmamba.nn.mamba import MambaConfig, MambaStack
from alignmamba.nn.routed_mamba import Experts, RoutedMambaStack
from alignmamba.ops import transport_distance
from alignmamba.training.objective import Parcel
from tolerances import FLOAT32

TASK = TASKS["regression"]
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_experts_at_zero_make_a_plain_mamba_and_equal_ones_their_sum(bidirectional: bool) -> None:
    config = MambaConfig(d_model=8, depth=2, bidirectional=bidirectional, dropout=0.0)
    torch.manual_seed(0)
    plain, routed = MambaStack(config), RoutedMambaStack(config, 3)
    missing = routed.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all("experts" in name for name in missing)
    x = torch.randn(2, 5, 8)
    kinds = torch.eye(3)[torch.tensor([[0, 1, 2, 0, 1], [2, 2, 1, 0, 0]])]
    torch.testing.assert_close(routed(x, MASK, kinds), plain(x, MASK), **FLOAT32)
    # The same expert for all is as good as a larger shared map.
    expert = 0.1 * torch.randn(32, 8)
    for stack in (plain, routed):
        for name, module in stack.named_modules():
            if name.endswith("in_projection") and stack is plain:
                module.weight.data += expert
            elif isinstance(module, Experts) and name.endswith("in_experts"):
                module.weight.data[:] = expert
    torch.testing.assert_close(routed(x, MASK, kinds), plain(x, MASK), **FLOAT32)


def test_a_token_meets_the_expert_of_its_modality_alone() -> None:
    experts = Experts(4, 2, 3)
    torch.nn.init.normal_(experts.weight)
    x = torch.randn(1, 2, 4)
    out = experts(x, torch.eye(3)[torch.tensor([[2, 0]])])
    torch.testing.assert_close(out[0, 0], experts.weight[2] @ x[0, 0], **FLOAT32)
    torch.testing.assert_close(out[0, 1], experts.weight[0] @ x[0, 1], **FLOAT32)
    (gradient,) = torch.autograd.grad(out.sum(), [experts.weight])
    assert not gradient[1].any()


def test_alignment_is_of_training_alone_and_no_missing_modality_is_in_it() -> None:
    model = network(ALIGNED_IN_TRAINING, TASK, transport=1.0, discrepancy=1.0)
    other = network(ALIGNED_IN_TRAINING, TASK, transport=0.0, discrepancy=0.0)
    learner, batch = AlignedInTraining(model, TASK), batch_of(TASK)
    assert torch.equal(model.eval()(batch).prediction, other.eval()(batch).prediction)
    assert set(learner.eval()(Parcel(batch))[1]) == {"task"}
    terms = learner.train()(Parcel(batch))[1]
    assert set(terms) == {"task", "transport", "mmd"}
    assert (terms["transport"] > 0).all()
    alone = learner(Parcel(batch.without(SPECS[1].name).without(SPECS[2].name).select([0, 1])))[1]
    assert not alone["transport"].any()
    assert not alone["mmd"].any()


def test_the_distance_is_small_between_equal_sequences_symmetric_and_blind_to_padding() -> None:
    torch.manual_seed(1)
    x, y = torch.randn(2, 5, 6, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)
    whole = torch.ones(2, 4, dtype=torch.bool)
    assert (transport_distance(x, x, MASK, MASK, regularisation=0.01, iterations=300) < 1e-3).all()
    there = transport_distance(x, y, MASK, whole, iterations=500)
    back = transport_distance(y, x, whole, MASK, iterations=500)
    torch.testing.assert_close(there, back, rtol=1e-6, atol=1e-8)
    dirty = x.masked_fill(~MASK.unsqueeze(2), torch.nan)
    torch.testing.assert_close(transport_distance(dirty, y, MASK, whole, iterations=500), there)
    alone = transport_distance(x[1:, :3], y[1:], MASK[1:, :3], whole[1:], iterations=500)
    torch.testing.assert_close(alone, there[1:])
    assert not transport_distance(x, y, MASK & False, whole).any()


def test_distances_that_are_known() -> None:
    axes = torch.eye(3).unsqueeze(0)
    for x, y, expected in (([0, 1], [1, 0], 0.0), ([0, 1], [2, 2], 1.0), ([0], [0, 1], 0.5)):
        masks = (torch.ones(1, len(side), dtype=torch.bool) for side in (x, y))
        found = transport_distance(axes[:, x], axes[:, y], *masks, regularisation=0.02)
        torch.testing.assert_close(found, torch.tensor([expected]), **FLOAT32)


def test_what_does_not_fit_is_named() -> None:
    x, whole = torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ShapeError, match="channel must agree"):
        transport_distance(x, torch.zeros(1, 2, 4), whole, whole)
    with pytest.raises(ConfigError, match="regularisation"):
        transport_distance(x, x, whole, whole, regularisation=0.0)
    with pytest.raises(ConfigError, match="iterations"):
        transport_distance(x, x, whole, whole, iterations=0)
