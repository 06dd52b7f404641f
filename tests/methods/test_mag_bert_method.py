"""MAG-BERT: a shift that is bounded, absent where nothing is beside a token, and MMSA's gate."""

from collections.abc import Callable

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network
from mmsa_parity import arguments, check_heads, copy_weights, mmsa_class

from alignmamba.errors import ConfigError
from alignmamba.methods.mag_bert import ADAPTATION_GATE, MAGBERT, AdaptationGate

TASK = TASKS["regression"]


def gate(shift: float = 1.0) -> AdaptationGate:
    torch.manual_seed(0)
    return AdaptationGate(6, {"audio": 3, "video": 4}, shift=shift, dropout=0.0).eval()


def inputs(size: float = 1.0) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    sides = {"audio": size * torch.randn(2, 5, 3), "video": size * torch.randn(2, 5, 4)}
    return torch.randn(2, 5, 6), sides, dict.fromkeys(sides, torch.ones(2, 5, dtype=torch.bool))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_no_step_is_longer_than_its_bound(size: float) -> None:
    made = gate(0.3)
    tokens, sides, present = inputs(size)
    step = made.step(tokens, sides, present)
    assert bool((step.norm(dim=2) <= 0.3 * tokens.norm(dim=2) * (1 + 1e-5)).all())
    assert step.any()


def test_without_a_shift_tokens_are_normalised_alone() -> None:
    made = gate(0.0)
    tokens, sides, present = inputs()
    assert torch.equal(made(tokens, sides, present), made.norm(tokens))


def test_an_absent_modality_shifts_nothing_and_gradients_are_finite() -> None:
    made = gate()
    tokens, sides, present = inputs()
    tokens.requires_grad_()
    absent = {name: torch.zeros_like(mask) for name, mask in present.items()}
    assert torch.equal(made(tokens, sides, absent), made.norm(tokens))
    made(tokens, sides, absent).square().sum().backward()
    assert tokens.grad is not None
    assert bool(tokens.grad.isfinite().all())
    assert all(weight.grad is None or bool(weight.grad.isfinite().all()) for weight in made.parameters())
    one = {"audio": present["audio"], "video": absent["video"]}
    alone = made(tokens, sides, one)
    assert torch.equal(made(tokens, sides | {"video": sides["video"] + 1}, one), alone)
    assert not torch.equal(made(tokens, sides, present), alone)


@torch.no_grad()
def test_the_gate_stands_before_the_first_layer_and_leaves_the_first_token_alone() -> None:
    built = network(ADAPTATION_GATE, TASK).eval()
    assert isinstance(built, MAGBERT)
    seen: dict[str, torch.Tensor] = {}
    built.gate.register_forward_hook(lambda _, given, found: seen.update(tokens=given[0], found=found))
    built.reader.layers[0].register_forward_hook(lambda _, given, __: seen.update(read=given[0]))
    built(batch_of(TASK))
    assert torch.equal(seen["read"], seen["found"])
    torch.testing.assert_close(seen["found"][:, 0], built.gate.norm(seen["tokens"][:, 0]))
    assert not torch.allclose(seen["found"][0, 1], built.gate.norm(seen["tokens"][0, 1]), atol=1e-4)


def test_one_modality_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"modalities: MAG-BERT needs at least 2, found \['text'\]"):
        network(ADAPTATION_GATE, TASK, modalities=SPECS[:1])


def test_its_gate_is_that_of_mmsa(record_property: Callable[[str, object], None]) -> None:
    theirs_class = mmsa_class("singleTask", "BERT_MAG", "MAG")
    given = arguments(feature_dims=[768, 5, 20], beta_shift=1.0, dropout_prob=0.3)
    theirs = theirs_class(arguments(hidden_size=768), given)
    ours = AdaptationGate(768, {"audio": 5, "video": 20}, shift=1.0, dropout=0.3)
    names = {"norm.": "LayerNorm."}
    names |= {f"gates.{name}.": f"W_h{name[0]}." for name in ("audio", "video")}
    names |= {f"steps.{name}.": f"W_{name[0]}." for name in ("audio", "video")}
    pair = copy_weights(ours, theirs, names)
    torch.manual_seed(0)
    tokens, audio, video = torch.randn(3, 6, 768), torch.randn(3, 6, 5), torch.randn(3, 6, 20)
    tokens[:, :3] *= 1e-2  # so short that their steps are bounded
    present = dict.fromkeys(("audio", "video"), torch.ones(3, 6, dtype=torch.bool))
    heads = {
        "tokens": (ours(tokens, {"audio": audio, "video": video}, present), theirs(tokens, video, audio))
    }
    check_heads(pair, heads, record_property, parameters=1_222_656)
