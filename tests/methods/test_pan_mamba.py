"""Pan-Mamba: a plain Mamba without guides, symmetric branches, the anchor of each sample as main stream."""

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network
from torch import Tensor

from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS
from alignmamba.methods.pan_mamba import CrossingLayer, PanMamba
from alignmamba.nn.mamba import MambaBlock, MambaConfig
from tolerances import EXACT, FLOAT32, MODEL

METHOD = METHODS["pan-mamba"]
TASK = TASKS["regression"]
COUNT, TIME, WIDTH = 2, 5, 8
MASK = torch.ones(COUNT, TIME, dtype=torch.bool)
GUIDES = ("audio", "video")


def layer() -> CrossingLayer:
    torch.manual_seed(0)
    return CrossingLayer(MambaConfig(d_model=WIDTH, d_state=4), GUIDES).eval()


def tokens() -> Tensor:
    return torch.randn(COUNT, TIME, WIDTH)


@torch.no_grad()
def test_without_guides_a_crossing_is_a_plain_mamba_and_a_local_convolution() -> None:
    made, x = layer(), tokens()
    plain = MambaBlock(MambaConfig(d_model=WIDTH, d_state=4))
    plain.load_state_dict({**made.main.state_dict(), "out_projection.weight": made.out_projection.weight})
    y = plain(made.norm(x))
    nobody = dict.fromkeys(GUIDES, torch.zeros(COUNT, dtype=torch.bool))
    given = {name: tokens() for name in GUIDES}
    torch.testing.assert_close(made(x, MASK, given, nobody), x + y + made.local(y, MASK), **FLOAT32)


@torch.no_grad()
def test_main_stream_and_guide_may_be_exchanged_with_their_weights() -> None:
    made, x, guide = layer(), tokens(), tokens()
    guiding = {"audio": torch.ones(COUNT, dtype=torch.bool), "video": torch.zeros(COUNT, dtype=torch.bool)}
    before = made(x, MASK, {"audio": guide, "video": x}, guiding) - x
    for one, other in ((made.main, made.guides["audio"]), (made.norm, made.guide_norms["audio"])):
        kept = {name: value.clone() for name, value in one.state_dict().items()}
        one.load_state_dict(other.state_dict())
        other.load_state_dict(kept)
    after = made(guide, MASK, {"audio": x, "video": x}, guiding) - guide
    torch.testing.assert_close(after, before, **FLOAT32)


@torch.no_grad()
def test_of_several_guides_the_mean_of_those_present_is_taken() -> None:
    made, x = layer(), tokens()
    made.guides["video"].load_state_dict(made.guides["audio"].state_dict())
    made.guide_norms["video"].load_state_dict(made.guide_norms["audio"].state_dict())
    guide = tokens()
    yes, no = torch.ones(COUNT, dtype=torch.bool), torch.zeros(COUNT, dtype=torch.bool)
    both = made(x, MASK, {"audio": guide, "video": guide}, {"audio": yes, "video": yes})
    one = made(x, MASK, {"audio": guide, "video": tokens()}, {"audio": yes, "video": no})
    torch.testing.assert_close(both, one, **FLOAT32)
    assert not torch.allclose(
        one, made(x, MASK, {"audio": guide, "video": guide}, {"audio": no, "video": no}), atol=1e-3
    )


@torch.no_grad()
def test_a_missing_modality_is_read_by_nobody_and_the_next_one_becomes_the_main_stream() -> None:
    made = network(METHOD, TASK).eval()
    assert isinstance(made, PanMamba)
    batch = batch_of(TASK).select([0, 1, 2])
    whole = made(batch).prediction
    for name in ("text", "audio", "video"):
        lost = batch.without(name)
        expected = made(lost).prediction
        assert not torch.allclose(whole, expected, atol=1e-4)
        made.absent_tokens[name].fill_(3.0)
        torch.testing.assert_close(made(lost).prediction, expected, **EXACT)
    # Of one modality alone there is no exchange: its own blocks, and crossings without guides.
    alone = batch.without("text").without("video")
    tokens = made._encoded(alone)["audio"]
    x = tokens.x
    for each in made.alone["audio"]:  # type: ignore[union-attr]
        x = each(x, tokens.mask)
    for swapping in made.swapping:
        x = x + swapping.blocks["audio"](swapping.norms["audio"](x))  # type: ignore[operator, index]
    side = torch.zeros(*x.shape[:2], 2 * WIDTH)
    x = x + made.mixing["audio"](torch.cat([x, side], 2), tokens.mask)
    nobody = dict.fromkeys(GUIDES, torch.zeros(3, dtype=torch.bool))
    for crossing in made.crossing:
        x = crossing(x, tokens.mask, dict.fromkeys(GUIDES, torch.zeros_like(x)), nobody)
    pooled = made.norm(x).masked_fill(~tokens.mask.unsqueeze(2), -torch.inf).amax(1)
    torch.testing.assert_close(made(alone).embedding, pooled, **MODEL)


@torch.no_grad()
def test_every_other_modality_of_a_sample_guides_its_anchor() -> None:
    made = network(METHOD, TASK).eval()
    assert isinstance(made, PanMamba)
    seen: list[dict[str, list[bool]]] = []
    made.crossing[0].register_forward_pre_hook(
        lambda _, given: seen.append({name: rows.tolist() for name, rows in given[3].items()})
    )
    batch = batch_of(TASK).select([0, 1])
    for missing in ((), ("audio",), ("text",), ("text", "audio")):
        lost = batch
        for name in missing:
            lost = lost.without(name)
        made(lost)
    expected = ((True, True), (False, True), (False, True), (False, False))
    assert seen == [{"audio": [audio] * 2, "video": [video] * 2} for audio, video in expected]


def test_refuses_one_modality_and_two_directions() -> None:
    with pytest.raises(ConfigError, match="pan-mamba needs at least 2"):
        network(METHOD, TASK, modalities=SPECS[:1])
    with pytest.raises(ConfigError, match="bidirectional"):
        network(METHOD, TASK, bidirectional=True)
