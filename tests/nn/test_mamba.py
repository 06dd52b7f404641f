"""The Mamba stack: masks, causality, streaming."""

import pytest
import torch

from alignmamba.errors import ConfigError
from alignmamba.nn import mamba
from alignmamba.nn.mamba import MambaBlock, MambaConfig, MambaStack
from alignmamba.ops import selective_scan
from instruments import LargestTensor
from tolerances import MODEL


def stack(**options: object) -> MambaStack:
    torch.manual_seed(0)
    return MambaStack(
        MambaConfig.model_validate({"d_model": 12, "d_state": 4, "dropout": 0.0, **options})
    ).eval()


def test_the_block_is_the_published_one_operation_by_operation() -> None:
    torch.manual_seed(0)
    block = MambaBlock(MambaConfig(d_model=12, d_state=4))
    with torch.no_grad():
        block.conv_bias.normal_()
        block.skip.normal_()
    x = torch.randn(2, 9, 12)
    u, z = block.in_projection(x).chunk(2, -1)
    convolution = torch.nn.Conv1d(24, 24, 4, groups=24, padding=3)
    convolution.weight.data = block.conv_weight.data.T.unsqueeze(1)
    convolution.bias.data = block.conv_bias.data  # type: ignore[union-attr]
    u = torch.nn.functional.silu(convolution(u.transpose(1, 2))[..., :9].transpose(1, 2))
    rank, B, C = block.x_projection(u).split([1, 4, 4], -1)
    y = selective_scan(
        u,
        rank @ block.delta_projection.weight.T,
        -block.log_decay.exp(),
        B,
        C,
        block.skip,
        z,
        block.delta_bias,
    )
    torch.testing.assert_close(block(x), block.out_projection(y), **MODEL)


def test_initial_step_sizes_lie_in_the_published_range() -> None:
    torch.manual_seed(0)
    steps = torch.nn.functional.softplus(MambaBlock(MambaConfig(d_model=64)).delta_bias)
    assert 1e-3 * 0.999 <= steps.min() < 2e-3
    assert 5e-2 < steps.max() <= 1e-1 * 1.001


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_never_reaches_a_valid_token(bidirectional: bool) -> None:
    model = stack(bidirectional=bidirectional)
    x = torch.randn(2, 7, 12)
    lengths = torch.tensor([7, 4])
    mask = torch.arange(7) < lengths[:, None]
    padded = torch.cat([x.masked_fill(~mask.unsqueeze(-1), 1e3), torch.full((2, 3, 12), -1e3)], 1)
    longer = torch.arange(10) < lengths[:, None]
    out, again = model(x, mask), model(padded, longer)[:, :7]
    torch.testing.assert_close(out[mask], again[mask], **MODEL)


def test_one_direction_is_causal_and_two_are_not() -> None:
    x = torch.randn(1, 6, 12)
    changed = x.clone()
    changed[:, 4] += 1
    mask = torch.ones(1, 6, dtype=torch.bool)
    for bidirectional in (False, True):
        model = stack(bidirectional=bidirectional)
        same = torch.isclose(model(x, mask), model(changed, mask), atol=1e-6).all(-1)[0, :4].all()
        assert bool(same) is not bidirectional


def test_step_by_step_equals_the_full_pass() -> None:
    model = stack(depth=3, d_conv=5)
    x = torch.randn(3, 11, 12)
    full = model(x, torch.ones(3, 11, dtype=torch.bool))
    states = model.initial_states(3)
    for time in range(11):
        y, states = model.extend(x[:, time : time + 1], states)
        torch.testing.assert_close(y[:, 0], full[:, time], **MODEL)


def test_one_token_wide_convolution_streams_too() -> None:
    model = stack(d_conv=1)
    x = torch.randn(2, 3, 12)
    states = model.initial_states(2)
    for time in range(3):
        y, states = model.extend(x[:, time : time + 1], states)
    torch.testing.assert_close(y[:, 0], model(x, torch.ones(2, 3, dtype=torch.bool))[:, 2], **MODEL)


def test_a_bidirectional_stack_refuses_to_stream() -> None:
    model = stack(bidirectional=True)
    with pytest.raises(ConfigError, match="bidirectional"):
        model.extend(torch.zeros(1, 1, 12), model.initial_states(1))


def test_decay_skip_and_step_bias_are_spared_weight_decay() -> None:
    spared = {
        name
        for name, parameter in MambaBlock(MambaConfig()).named_parameters()
        if getattr(parameter, "_no_weight_decay", False)
    }
    assert spared == {"log_decay", "skip", "delta_bias"}


@pytest.mark.parametrize(("piece", "width"), [(3, 4), (4, 1), (5, 6), (20, 4)])
def test_without_gradients_a_long_sequence_goes_through_in_pieces(
    piece: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mamba, "_PIECE_TOKENS", piece)
    monkeypatch.setattr(mamba, "_SHORTEST_PIECE", 1)
    model = stack(d_conv=width)
    x, mask = torch.randn(1, 41, 12), torch.ones(1, 41, dtype=torch.bool)
    pieces: list[int] = []
    extend = model.extend
    monkeypatch.setattr(
        model, "extend", lambda tokens, states: (pieces.append(tokens.shape[1]), extend(tokens, states))[1]
    )
    whole = model(x, mask)
    assert not pieces  # with gradients everything is kept anyway
    with torch.no_grad():
        torch.testing.assert_close(model(x, mask), whole, **MODEL)
    assert sum(pieces) == 41
    assert max(pieces) == piece
    frozen = model.requires_grad_(False)
    torch.testing.assert_close(frozen(x, mask), whole, **MODEL)
    assert len(pieces) == 2 * -(-41 // piece)


def test_a_backward_scan_needs_the_whole_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mamba, "_PIECE_TOKENS", 4)
    monkeypatch.setattr(mamba, "_SHORTEST_PIECE", 1)
    model = stack(bidirectional=True)
    x, mask = torch.randn(1, 41, 12), torch.ones(1, 41, dtype=torch.bool)
    whole = model(x, mask)
    with torch.no_grad():
        assert torch.equal(model(x, mask), whole)


def test_a_long_sequence_needs_no_memory_of_its_length() -> None:
    """Beyond input and output: without pieces, one layer holds six tensors of twice the width at once."""
    model = stack(d_model=16)
    x, mask = torch.randn(1, 40_000, 16), torch.ones(1, 40_000, dtype=torch.bool)
    with torch.no_grad(), LargestTensor() as largest:
        model(x, mask)
    assert largest.numel <= x.numel()


def test_pieces_are_for_evaluation_and_for_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training dropout is drawn for the whole sequence; hooks and wrappers want to see the calls of
    layers.
    """
    monkeypatch.setattr(mamba, "_PIECE_TOKENS", 4)
    monkeypatch.setattr(mamba, "_SHORTEST_PIECE", 1)
    model, x, mask = stack(), torch.randn(1, 41, 12), torch.ones(1, 41, dtype=torch.bool)
    with torch.no_grad():
        assert model._in_pieces(x)
        assert not model.train()._in_pieces(x)
        model.eval()
        calls: list[int] = []
        handle = model.layers[0].register_forward_hook(lambda *_: calls.append(1))
        model(x, mask)
        assert calls == [1]
        handle.remove()
        model.layers[0] = torch.compile(model.layers[0], backend="eager")  # type: ignore[assignment]
        assert not model._in_pieces(x)


def test_a_state_is_constant_in_memory() -> None:
    model = stack()
    _, states = model.extend(torch.randn(1, 500, 12), model.initial_states(1))
    assert states[0].inputs.untyped_storage().nbytes() == states[0].inputs.nbytes
