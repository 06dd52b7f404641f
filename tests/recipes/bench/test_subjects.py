"""Subjects and peers: every one computes what it says, and the formulas of operations are those of the
counter.
"""

import pytest
import torch

from alignmamba.evaluation.computing_cost import counted_flops, scan_flops
from alignmamba.recipes.bench.backbones import thirds
from alignmamba.recipes.bench.case import Case, Peer
from alignmamba.recipes.bench.subjects import LENGTHS, OWN, SUBJECTS
from tolerances import EXACT

EVERY = [
    pytest.param(subject, name, id=f"{subject}-{name}")
    for subject, peers in SUBJECTS.items()
    for name in peers
]
# Peers made of matrix products alone, which the counter sees all of.
PRODUCTS = {
    "match": ("dense", "product"),
    "block": ("products", "transformer-fused"),
    "backbone": (
        "products",
        "transformer-fused",
        "transformer-materialised",
        "mult-fused",
        "mult-materialised",
    ),
    "model": ("transformer-fused", "transformer-materialised", "mult-fused", "mult-materialised"),
}
WITHOUT_WEIGHTS = {"match", "match-windowed", "transport", "mmd", "mmd-landmarks", "interleave"}
SLOW_TO_IMPORT = {"huggingface", "earth-mover"}


def case(**options: object) -> Case:
    return Case.model_validate(
        {"length": 20, "batch": 2, "d_model": 16, "depth": 2, "heads": 2, "d_state": 4, "window": 3} | options
    )


def flat(found: object) -> list[torch.Tensor]:
    if isinstance(found, list | tuple):
        return [tensor for each in found for tensor in flat(each)]
    assert isinstance(found, torch.Tensor)
    return [found.clone()]


def available(subject: str, name: str, point: Case) -> Peer:
    peer = SUBJECTS[subject][name]
    if name in SLOW_TO_IMPORT:
        pytest.skip(f"{name} takes seconds to import")
    reason = peer.why_not(point)
    if reason:
        pytest.skip(reason)
    return peer


def test_every_subject_starts_with_this_library() -> None:
    assert LENGTHS.keys() == OWN.keys() == SUBJECTS.keys()
    for subject, peers in SUBJECTS.items():
        assert next(iter(peers)) == "alignmamba"
        assert not peers["alignmamba"].why_not(case())
        assert set(OWN[subject]) <= peers.keys()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("subject", "name"), EVERY)
def test_every_peer_computes_the_same_twice(subject: str, name: str, training: bool) -> None:
    point = case(training=training)
    peer = available(subject, name, point)
    torch.manual_seed(0)
    built = peer.build(point)
    first, second = flat(built.call()), flat(built.call())
    assert first
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    assert peer.memory(point) > 0
    assert (peer.flops(point) > 0) is (name != "interleave")
    assert (built.num_parameters > 0) is (
        subject in ("block", "backbone") or (subject == "model" and name not in WITHOUT_WEIGHTS)
    )


@pytest.mark.parametrize(
    ("subject", "name"), [(subject, name) for subject, names in PRODUCTS.items() for name in names]
)
def test_formulas_agree_with_the_counter(subject: str, name: str) -> None:
    point = case()
    peer = SUBJECTS[subject][name]
    assert counted_flops(peer.build(point).call) == peer.flops(point)


@pytest.mark.parametrize(("subject", "blocks"), [("block", 1), ("backbone", 2)])
def test_the_counter_misses_no_more_than_the_scan_in_a_mamba_block(subject: str, blocks: int) -> None:
    point = case()
    peer = SUBJECTS[subject]["alignmamba"]
    missed = blocks * scan_flops(2 * 20, 32, 4)
    counted = counted_flops(peer.build(point).call)
    products = SUBJECTS[subject]["products"]
    assert products.flops(point) <= counted <= peer.flops(point) == products.flops(point) + missed
    assert peer.build(point).num_parameters > products.build(point).num_parameters


def test_streams_of_a_backbone_hold_all_its_tokens() -> None:
    assert thirds(case(length=20)) == [7, 7, 6]
    assert thirds(case(length=21)) == [7, 7, 7]


def test_the_whole_costs_what_its_stages_cost() -> None:
    for training in (False, True):
        point = case(training=training)
        peers = SUBJECTS["model"]
        stages = ["match", "transport", "interleave", "backbone", *(["mmd"] if training else [])]
        assert peers["alignmamba"].flops(point) == pytest.approx(
            sum(peers[name].flops(point) for name in stages)
        )


def test_whole_models_read_the_tokens_of_all_modalities() -> None:
    point = case()
    for name in ("alignmamba", "windowed", "transformer-fused"):
        out = SUBJECTS["model"][name].build(point).call()
        assert isinstance(out, torch.Tensor)
        assert out.shape == (2, 60, 16)
    streams = SUBJECTS["model"]["mult-fused"].build(point).call()
    assert isinstance(streams, tuple)
    assert [out.shape for out in streams] == [(2, 20, 32)] * 3


def test_in_training_every_weight_and_input_gets_a_gradient() -> None:
    built = SUBJECTS["model"]["alignmamba"].build(case(training=True))
    gradients = built.call()
    assert isinstance(gradients, list)
    assert all(isinstance(gradient, torch.Tensor) and gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.numel() for gradient in gradients) == built.num_parameters + 3 * 2 * 20 * 16
