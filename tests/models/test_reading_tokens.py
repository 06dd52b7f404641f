"""Outputs of single tokens: where they stand, what they see, and what hidden tokens tell."""

from typing import Any

import pytest
import torch
from small_models import LENGTHS, THREE, batch, model

from alignmamba.contracts import Batch, Sequences
from alignmamba.methods import FAMILIES
from alignmamba.models.encoded import Hidden, ReadsTokens
from alignmamba.nn.alignment import LocalAlignmentConfig, Tokens, align, concatenate, picked, returned
from tolerances import MODEL

LOCAL: tuple[dict[str, Any], ...] = (
    *({"method": "match", "marginal": marginal} for marginal in ("source", "anchor")),
    *({"method": method} for method in ("soft", "proportional", "none")),
)
EVERY: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in (*FAMILIES, "alignmamba-2")]
EVERY += [("alignmamba", {"local": local}) for local in LOCAL]


def hidden_in(whole: Batch) -> dict[str, Hidden]:
    """Every second pair of tokens of each modality, behind a vector of its own."""
    torch.manual_seed(3)
    found = {}
    for spec in THREE:
        mask = whole.modalities[spec.name].mask
        where = (torch.arange(mask.shape[1]) // 2 % 2 == 1) & mask
        width = 16 if spec.kind == "tokens" else spec.dim
        found[spec.name] = Hidden(where, torch.randn(width))
    return found


def changed(whole: Batch, where: dict[str, torch.Tensor], *, by: int = 3) -> Batch:
    """The batch with other content at some tokens."""
    modalities = {}
    for name, s in whole.modalities.items():
        at = where[name].unsqueeze(-1)
        other = (s.features + by) % 11 if s.features.dtype == torch.int64 else s.features + by
        modalities[name] = Sequences(features=torch.where(at, other, s.features), mask=s.mask)
    return Batch(modalities=modalities, ids=whole.ids)


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_hidden_tokens_tell_nothing(name: str, options: dict[str, Any]) -> None:
    built, whole = model(name, **options), batch()
    assert isinstance(built, ReadsTokens)
    hidden = hidden_in(whole)
    before = built.read_tokens(whole, hidden)
    after = built.read_tokens(changed(whole, {name: h.where for name, h in hidden.items()}), hidden)
    for modality, tokens in before.read.items():
        assert torch.equal(tokens.x, after.read[modality].x)
        assert torch.equal(before.encoded[modality].x, after.encoded[modality].x)
    seen = {name: ~h.where & whole.modalities[name].mask for name, h in hidden.items()}
    others = built.read_tokens(changed(whole, seen), hidden)
    assert not torch.equal(before.read["text"].x, others.read["text"].x)


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_outputs_stand_at_the_tokens_of_their_modality(name: str, options: dict[str, Any]) -> None:
    built, whole = model(name, **options), batch()
    found = built.read_tokens(whole, {})
    for modality, lengths in LENGTHS.items():
        if modality not in found.read:
            continue
        mask, encoded = found.read[modality].mask, found.encoded[modality].mask
        assert encoded.sum(1).tolist() == lengths
        assert found.read[modality].x.shape == (*encoded.shape, built.read_width)
        # With marginal anchor some tokens are taken by none; otherwise each has an output.
        assert bool((encoded | ~mask).all())
        if options.get("local", {}).get("marginal") != "anchor" and options.get("local") != LOCAL[2]:
            assert torch.equal(mask, encoded)


def test_an_output_is_that_of_its_place_in_the_interleaved_sequence() -> None:
    built, whole = model("alignmamba"), batch()
    found, plans = built.read_tokens(whole, {}).read, built(whole, return_plans=True).plans
    x, mask = built.fused_tokens(whole)
    read = built.backbone(x, mask)
    order = list(reversed(built.config.anchors))
    for name, lengths in LENGTHS.items():
        # The first sample has every modality, and text is its anchor.
        for at in range(lengths[0] if name in order else 0):
            moved = at if name == "text" else int(plans[name].index[0, at])
            expected = read[0, moved * len(order) + order.index(name)]
            torch.testing.assert_close(found[name].x[0, at], expected, **MODEL)


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_neither_padding_nor_neighbours_change_an_output(name: str, options: dict[str, Any]) -> None:
    built, whole = model(name, **options), batch()
    together, hidden = built.read_tokens(whole, hidden_in(whole)), hidden_in(whole)
    for row in range(len(whole)):
        one = whole.select([row])
        own = {name: Hidden(h.where[[row]], h.stand_in) for name, h in hidden.items()}
        alone = built.read_tokens(one, own)
        for modality, tokens in alone.read.items():
            length = int(tokens.mask.sum())
            assert torch.equal(tokens.mask[0], together.read[modality].mask[row])
            torch.testing.assert_close(
                tokens.x[0][tokens.mask[0]],
                together.read[modality].x[row][tokens.mask[0]],
                **MODEL,
            )
            assert length == int(together.read[modality].mask[row].sum())


def test_what_encoders_begin_from_is_standardised_and_joined() -> None:
    built, whole = model("alignmamba", encoders={"audio": {"stride": 4}}), batch()
    with torch.no_grad():
        built.standardisers["audio"].mean.fill_(2.0)
        built.standardisers["audio"].deviation.fill_(4.0)
    seen = built.tokens_seen(whole)
    assert set(seen) == {"audio", "video"}
    audio = whole.modalities["audio"].features
    torch.testing.assert_close(seen["audio"].x[0, 0], (audio[0, :4].mean(0) - 2) / 4)
    # The ninth token of the first sample is the only one of its group.
    torch.testing.assert_close(seen["audio"].x[0, 2], (audio[0, 8] - 2) / 4)
    assert seen["audio"].mask.sum(1).tolist() == [3, 3, 0, 0, 1, 0, 1]


def tokens(values: list[list[float]], lengths: list[int]) -> Tokens:
    x = torch.tensor(values).unsqueeze(-1)
    mask = torch.arange(x.shape[1]) < torch.tensor(lengths)[:, None]
    return Tokens(x * mask.unsqueeze(-1), mask, torch.full(mask.shape, torch.nan, dtype=torch.float64))


def test_what_anchors_read_returns_to_the_tokens_that_were_moved() -> None:
    source = tokens([[1.0, 1.0, -1.0, -1.0]], [3])
    anchor = tokens([[-1.0, 1.0, 1.0]], [2])
    read = torch.tensor([[[10.0], [20.0], [99.0]]])
    content = {"time_weight": 0.0}
    config = LocalAlignmentConfig.model_validate(content)
    back = returned(read, source, anchor, align(source, anchor, config)[1])
    assert back.x[0, :3, 0].tolist() == [20.0, 20.0, 10.0]
    assert back.mask[0].tolist() == [True, True, True, False]
    # Either anchor token takes the first of the equal ones; the second token is taken by none.
    config = LocalAlignmentConfig.model_validate({**content, "marginal": "anchor"})
    back = returned(read, source, anchor, align(source, anchor, config)[1])
    assert back.mask[0].tolist() == [True, False, True, False]
    assert back.x[0, :3, 0].tolist() == [20.0, 0.0, 10.0]
    short = tokens([[-1.0, 1.0, 1.0]], [1])
    back = returned(read, source, short, align(source, short, config)[1])
    assert back.mask[0].tolist() == [False, False, True, False], "padding takes no token"
    one = tokens([[1.0]], [1])
    both = returned(read, one, anchor, align(one, anchor, config)[1])
    assert both.x.flatten().tolist() == [15.0]  # the mean of all that took it


def test_one_sequence_falls_apart_into_its_streams() -> None:
    streams = [tokens([[1.0, 2.0], [3.0, 0.0]], [2, 1]), tokens([[4.0, 0.0], [5.0, 6.0]], [1, 2])]
    x, mask, number = concatenate(streams)
    for place, stream in enumerate(streams):
        found, valid = picked(x, mask & (number == place), 2)
        assert torch.equal(found, stream.x)
        assert torch.equal(valid, stream.mask)
