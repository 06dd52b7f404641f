"""The attention backbones: both kinds of attention agree, padding changes nothing, MulT has MulT's
structure.
"""

from itertools import permutations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.nn.attention import (
    Attention,
    AttentionConfig,
    CrossModalStack,
    TransformerStack,
    sinusoidal_positions,
)
from tolerances import MODEL

WIDTH = 12


def config(attention: str = "fused", **options: object) -> AttentionConfig:
    return AttentionConfig.model_validate(
        {"d_model": WIDTH, "depth": 2, "heads": 3, "dropout": 0.0, "attention": attention, **options}
    )


def transformer(attention: str = "fused") -> TransformerStack:
    torch.manual_seed(0)
    return TransformerStack(config(attention)).eval()


def crossmodal(attention: str = "fused", num_streams: int = 3) -> CrossModalStack:
    torch.manual_seed(0)
    return CrossModalStack(config(attention), num_streams).eval()


def tokens(*lengths: int, longest: int) -> tuple[Tensor, Tensor]:
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), longest, WIDTH), mask


def streams(*, seed: int = 1) -> tuple[list[Tensor], list[Tensor]]:
    """Three modalities of two samples, of different lengths, with padding; the second sample lacks the
    third.
    """
    torch.manual_seed(seed)
    parts = [tokens(5, 3, longest=5), tokens(4, 6, longest=7), tokens(3, 0, longest=4)]
    return [x for x, _ in parts], [mask for _, mask in parts]


def test_attention_is_the_published_formula() -> None:
    torch.manual_seed(0)
    module = Attention(config())
    x, context = torch.randn(1, 3, WIDTH), torch.randn(1, 5, WIDTH)
    k, v = module.key_value(context).chunk(2, -1)
    heads = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        weights = torch.softmax(module.query(x)[0, :, part] @ k[0, :, part].T / 4**0.5, dim=-1)
        heads.append(weights @ v[0, :, part])
    expected = module.out_projection(torch.cat(heads, -1))
    torch.testing.assert_close(module(x, context, torch.ones(1, 5, dtype=torch.bool))[0], expected, **MODEL)


def test_fused_and_materialised_agree_in_value_and_gradient() -> None:
    found = []
    for attention in ("fused", "materialised"):
        torch.manual_seed(3)
        x, mask = tokens(7, 4, longest=7)
        x.requires_grad_()
        model = transformer(attention)
        out = model(x, mask)
        found.append((out[mask], *torch.autograd.grad(out[mask].square().sum(), [x, *model.parameters()])))
    for fused, materialised in zip(*found, strict=True):
        torch.testing.assert_close(fused, materialised, **MODEL)


def test_both_kinds_of_mult_agree() -> None:
    xs, masks = streams()
    for fused, materialised, mask in zip(
        crossmodal("fused")(xs, masks), crossmodal("materialised")(xs, masks), masks, strict=True
    ):
        torch.testing.assert_close(fused[mask], materialised[mask], **MODEL)


@pytest.mark.parametrize("attention", ["fused", "materialised"])
def test_padding_changes_no_output(attention: str) -> None:
    torch.manual_seed(2)
    model = transformer(attention)
    x, mask = tokens(6, 2, longest=6)
    longer = torch.cat([x.masked_fill(~mask.unsqueeze(-1), 1e3), torch.full((2, 3, WIDTH), -1e3)], 1)
    longer_mask = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], 1)
    torch.testing.assert_close(model(x, mask)[mask], model(longer, longer_mask)[:, :6][mask], **MODEL)
    alone = model(x[1:, :2], mask[1:, :2])
    torch.testing.assert_close(model(x, mask)[1, :2], alone[0], **MODEL)


@pytest.mark.parametrize("attention", ["fused", "materialised"])
def test_padding_and_neighbours_change_no_output_of_mult(attention: str) -> None:
    model = crossmodal(attention)
    xs, masks = streams()
    out = model(xs, masks)
    other = [
        torch.where(mask.unsqueeze(-1), x, torch.full_like(x, 1e3)) for x, mask in zip(xs, masks, strict=True)
    ]
    lengths = [max(1, int(mask[0].sum())) for mask in masks]
    alone = model(
        [x[:1, :length] for x, length in zip(xs, lengths, strict=True)],
        [mask[:1, :length] for mask, length in zip(masks, lengths, strict=True)],
    )
    for first, second, third, mask, length in zip(
        out, model(other, masks), alone, masks, lengths, strict=True
    ):
        torch.testing.assert_close(first[mask], second[mask], **MODEL)
        torch.testing.assert_close(first[:1, :length], third, **MODEL)


@pytest.mark.parametrize("attention", ["fused", "materialised"])
def test_a_modality_without_a_token_sends_nothing(attention: str) -> None:
    """Padding is never read, and nothing undefined comes of it."""
    model = crossmodal(attention)
    xs, masks = streams()
    changed = [xs[0], xs[1], torch.cat([xs[2][:1], torch.randn(1, 4, WIDTH)])]
    for out, again, mask in zip(model(xs, masks)[:2], model(changed, masks)[:2], masks[:2], strict=True):
        assert out[mask].isfinite().all()
        torch.testing.assert_close(out[mask], again[mask], **MODEL)
    grads = torch.autograd.grad(sum(out.sum() for out in model(xs, masks)), list(model.parameters()))
    assert all(grad.isfinite().all() for grad in grads)


def test_order_of_tokens_matters_through_positions_alone() -> None:
    model = transformer()
    x, mask = tokens(5, longest=5)
    assert not torch.allclose(model(x, mask).flip(1), model(x.flip(1), mask), atol=1e-3)
    place = sinusoidal_positions(x)
    moved = (x + place).flip(1) - place
    torch.testing.assert_close(model(x, mask).flip(1), model(moved, mask), **MODEL)


def test_every_ordered_pair_of_modalities_meets() -> None:
    model = crossmodal()
    assert model.pairs == list(permutations(range(3), 2))
    xs, masks = streams()
    assert [out.shape for out in model(xs, masks)] == [
        (2, 5, 2 * WIDTH),
        (2, 7, 2 * WIDTH),
        (2, 4, 2 * WIDTH),
    ]
    layer = 12 * WIDTH**2 + 13 * WIDTH  # projections 4 d^2 + 4 d, feed-forward 8 d^2 + 5 d, two norms 4 d
    wide = 12 * (2 * WIDTH) ** 2 + 13 * 2 * WIDTH
    crossed = 6 * (2 * (layer + 2 * WIDTH) + 2 * WIDTH)  # a norm of the context in each layer, one at the end
    own = 3 * (2 * wide + 2 * 2 * WIDTH)
    assert sum(parameter.numel() for parameter in model.parameters()) == crossed + own


def test_keys_and_values_are_the_other_modality_as_it_came_in() -> None:
    """Not what an earlier layer made of it."""
    model = crossmodal(num_streams=2)
    xs, masks = streams()
    changed = [xs[0], torch.randn_like(xs[1])]
    first, second = model(xs[:2], masks[:2]), model(changed, masks[:2])
    assert not torch.allclose(first[0], second[0], atol=1e-3)
    crossed = model.crossed[0]
    context = xs[1] + sinusoidal_positions(xs[1])
    x = xs[0] + sinusoidal_positions(xs[0])
    for layer in crossed.layers:
        x = layer(x, masks[1], context)
    torch.testing.assert_close(model.own[0](crossed.norm(x), masks[0]), first[0], **MODEL)


def test_what_is_refused() -> None:
    with pytest.raises(ValidationError, match="heads: found 5, expected a divisor of d_model, which is 12"):
        config(heads=5)
    with pytest.raises(ConfigError, match="at least 2 modalities"):
        crossmodal(num_streams=1)
    xs, masks = streams()
    with pytest.raises(ShapeError, match="expected 3 with as many masks, found 2 with 3"):
        crossmodal()(xs[:2], masks)
    with pytest.raises(ShapeError, match="mask 1: expected bool"):
        crossmodal()(xs, [masks[0], masks[2], masks[2]])
    with pytest.raises(ShapeError, match="mask: expected bool"):
        transformer()(xs[0], masks[1])


def test_an_odd_width_has_positions_too() -> None:
    place = sinusoidal_positions(torch.zeros(1, 4, 5))
    assert place.shape == (4, 5)
    torch.testing.assert_close(place[:, 0], torch.arange(4.0).sin())
    torch.testing.assert_close(place[0], torch.tensor([0.0, 0, 0, 1, 1]))
