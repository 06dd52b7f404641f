"""CM-BERT: attention by likeness in every modality, which padding, neighbours and absent streams leave
alone.
"""

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network

from alignmamba.errors import ConfigError
from alignmamba.methods.cm_bert import CMBERT, MASKED_ATTENTION, MaskedMultimodalAttention
from tolerances import MODEL

TASK = TASKS["regression"]


def attention() -> MaskedMultimodalAttention:
    torch.manual_seed(0)
    return MaskedMultimodalAttention(6, {"audio": 3, "video": 4}, hidden=5, dropout=0.3).eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    return torch.randn(2, 4, 6), mask, {"audio": torch.randn(2, 4, 3), "video": torch.randn(2, 4, 4)}


@torch.no_grad()
def test_without_weights_each_token_receives_the_mean() -> None:
    made, (states, mask, sides) = attention(), inputs()
    for weight in (made.own_weight, *made.weights.values()):
        weight.zero_()
    mean = (states * mask.unsqueeze(2)).sum(1, keepdim=True) / mask.sum(1)[:, None, None]
    torch.testing.assert_close(made(states, mask, sides), mean + states, **MODEL)


@torch.no_grad()
def test_a_constant_changes_nothing() -> None:
    made, given = attention(), inputs()
    expected = made(*given)
    made.bias.fill_(2.5)
    torch.testing.assert_close(made(*given), expected, **MODEL)


@torch.no_grad()
def test_shares_sum_to_one_over_what_is_valid() -> None:
    made, (states, mask, sides) = attention(), inputs()
    shares = made.shares(states, mask, sides)
    torch.testing.assert_close(shares.sum(2), torch.ones(2, 4), **MODEL)
    assert not shares[1, :, 2:].any()


@torch.no_grad()
def test_neighbours_change_nothing() -> None:
    made, (states, mask, sides) = attention(), inputs()
    alone = made(states[1:, :2], mask[1:, :2], {name: side[1:, :2] for name, side in sides.items()})
    torch.testing.assert_close(made(states, mask, sides)[1:, :2], alone, **MODEL)
    large = torch.cat([100 * states[:1], states[1:]])
    torch.testing.assert_close(made(large, mask, sides)[1], made(states, mask, sides)[1], **MODEL)


@torch.no_grad()
def test_tokens_alike_in_a_stream_attend_to_each_other() -> None:
    made, (states, mask, sides) = attention(), inputs()
    alike = sides | {"audio": sides["audio"].clone()}
    alike["audio"][0, 2] = 3 * alike["audio"][0, 0]
    assert made.shares(states, mask, alike)[0, 0, 2] > made.shares(states, mask, sides)[0, 0, 2]
    # A stream of zeros, as one that is missing, adds the same to all.
    absent = sides | {"video": torch.zeros_like(sides["video"])}
    expected = made.shares(states, mask, absent)
    made.weights["video"].zero_()
    torch.testing.assert_close(made.shares(states, mask, sides), expected, **MODEL)


def test_every_stream_reaches_the_head() -> None:
    built = network(MASKED_ATTENTION, TASK)
    assert isinstance(built, CMBERT)
    built(batch_of(TASK)).prediction.sum().backward()
    learning = [
        name
        for name, weight in built.named_parameters()
        if weight.grad is not None and bool(weight.grad.any())
    ]
    assert {
        "head.weight",
        "multimodal.own_weight",
        "multimodal.weights.audio",
        "multimodal.weights.video",
    } <= set(learning)


def test_one_modality_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"modalities: CM-BERT needs at least 2, found \['text'\]"):
        network(MASKED_ATTENTION, TASK, modalities=SPECS[:1])
