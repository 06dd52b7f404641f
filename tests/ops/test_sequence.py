"""Interleaving and masked reductions against plain loops."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from alignmamba.errors import ShapeError
from alignmamba.ops import (
    deinterleave,
    interleave,
    last_valid,
    masked_max,
    masked_mean,
    relative_time,
    reverse_valid,
)
from alignmamba.ops.sequence import unit_tokens
from drawn import draw, prefix_mask
from tolerances import BFLOAT16, EXACT, FLOAT16, FLOAT32, FLOAT64, GRADCHECK

REDUCTIONS = {"masked_mean": masked_mean, "masked_max": masked_max, "last_valid": last_valid}


def scattered_mask(batch: int, time: int, seed: int) -> Tensor:
    return torch.rand(batch, time, generator=torch.Generator().manual_seed(seed)) < 0.4


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1.0, 1e30])
def test_directions_do_not_depend_on_length(scale: float) -> None:
    x, mask = draw(2, 5, 3).float(), prefix_mask([5, 3], 5)
    scaled = (scale * x).requires_grad_()
    found = unit_tokens(scaled, mask)
    assert_close(found, unit_tokens(x, mask), **FLOAT32)
    assert_close(found.norm(dim=2), mask.float(), **FLOAT32)
    weights = draw(2, 5, 3, seed=1).float()
    (slope,) = torch.autograd.grad((found * weights).sum(), scaled)
    (wanted,) = torch.autograd.grad((unit_tokens(x.requires_grad_(), mask) * weights).sum(), x)
    assert_close(slope * scale, wanted if scale > 1e-12 else torch.zeros_like(x), **FLOAT32)


def test_the_shortest_and_the_longest_tokens_have_finite_gradients() -> None:
    for dtype in (torch.float32, torch.float64):
        most, least = torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal
        x = torch.tensor([[[most, 0.0], [0.0, -most], [least / 4, least / 8], [0.0, 0.0]]], dtype=dtype)
        x.requires_grad_()
        found = unit_tokens(x, prefix_mask([4], 4))
        assert_close(found[0, :2], torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=dtype), **EXACT)
        (slope,) = torch.autograd.grad(found.square().sum(-1).sum() + found.sum(), x)
        assert slope.isfinite().all()


def reduced_by_loop(name: str, x: Tensor, mask: Tensor) -> Tensor:
    result = torch.zeros(x.shape[0], x.shape[2], dtype=x.dtype)
    for sample in range(x.shape[0]):
        for channel in range(x.shape[2]):
            valid = [float(x[sample, t, channel]) for t in range(x.shape[1]) if mask[sample, t]]
            if valid:
                result[sample, channel] = {
                    "masked_mean": sum(valid) / len(valid),
                    "masked_max": max(valid),
                    "last_valid": valid[-1],
                }[name]
    return result


@given(
    streams=st.integers(1, 4),
    batch=st.integers(0, 3),
    time=st.integers(0, 9),
    trailing=st.lists(st.integers(0, 3), max_size=2),
)
def test_deinterleave_undoes_interleave(streams: int, batch: int, time: int, trailing: list[int]) -> None:
    given_streams = [draw(batch, time, *trailing, seed=number) for number in range(streams)]
    tokens = interleave(given_streams)
    assert tokens.shape == (batch, time * streams, *trailing)
    returned = deinterleave(tokens, streams)
    assert len(returned) == streams
    for before, after in zip(given_streams, returned, strict=True):
        assert torch.equal(before, after)
    assert torch.equal(interleave(returned), tokens)


def test_interleave_orders_by_time_first_and_by_stream_second() -> None:
    video, audio, text = (torch.tensor([[10.0, 11.0]]) + shift for shift in (0, 10, 20))
    assert interleave([video, audio, text]).tolist() == [[10, 20, 30, 11, 21, 31]]
    streams = [draw(2, 5, 3, seed=number) for number in range(3)]
    tokens = interleave(streams)
    for number, stream in enumerate(streams):
        for t in range(5):
            assert torch.equal(tokens[:, 3 * t + number], stream[:, t])


def test_interleave_takes_masks_too() -> None:
    tokens = interleave([prefix_mask([2], 3), prefix_mask([1], 3)])
    assert tokens.tolist() == [[True, True, True, False, False, False]]


def test_gradients_of_interleaving() -> None:
    streams = [draw(2, 3, 2, seed=number).requires_grad_() for number in range(3)]
    assert torch.autograd.gradcheck(lambda *given: interleave(given), streams, **GRADCHECK)
    assert torch.autograd.gradcheck(
        lambda tokens: deinterleave(tokens, 3), (draw(2, 6, 2).requires_grad_(),), **GRADCHECK
    )


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ([], "at least one"),
        ([torch.zeros(3)], r"found shape \(3,\)"),
        (
            [torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), torch.zeros(2, 4, 1)],
            r"stream 2 .*\(2, 4, 1\).*stream 0 .*\(2, 3, 1\)",
        ),
        (
            [torch.zeros(2, 3, 1), torch.zeros(2, 3, 1).double()],
            "stream 1 is torch.float64.*stream 0 is torch.float32",
        ),
        (
            [torch.zeros(2, 3, 1), torch.zeros(2, 3, 1, device="meta")],
            "stream 1 .*on meta.*stream 0 .*on cpu",
        ),
    ],
)
def test_streams_that_do_not_fit_are_named(streams: list[Tensor], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        interleave(streams)


@pytest.mark.parametrize(
    ("shape", "num_streams"), [((2, 7, 1), 3), ((2, 6, 1), 0), ((2, 6, 1), -2), ((6,), 3)]
)
def test_tokens_that_do_not_hold_the_streams_are_refused(shape: tuple[int, ...], num_streams: int) -> None:
    with pytest.raises(ShapeError, match=f"do not hold {num_streams} streams"):
        deinterleave(torch.zeros(shape), num_streams)


@pytest.mark.parametrize("name", REDUCTIONS)
@given(batch=st.integers(0, 3), time=st.integers(0, 9), channel=st.integers(0, 3), seed=st.integers(0, 99))
def test_reductions_equal_loops_and_masked_content_counts_for_nothing(
    name: str, batch: int, time: int, channel: int, seed: int
) -> None:
    x, mask = draw(batch, time, channel, seed=seed), scattered_mask(batch, time, seed)
    expected = reduced_by_loop(name, x, mask)
    assert_close(REDUCTIONS[name](x, mask), expected, **FLOAT64)
    for garbage in (torch.nan, torch.inf, -torch.inf, 1e300):
        assert_close(REDUCTIONS[name](x.masked_fill(~mask.unsqueeze(-1), garbage), mask), expected, **FLOAT64)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradients_of_reductions(name: str) -> None:
    mask = torch.tensor(
        [[True, True, False, True], [False, False, False, False], [False, True, False, False]]
    )
    x = draw(3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda tokens: REDUCTIONS[name](tokens, mask), (x,), **GRADCHECK)
    # What is masked gets exactly zero, even where it is not a number, and so does a sample without any token.
    garbage = x.detach().masked_fill(~mask.unsqueeze(-1), torch.nan).requires_grad_()
    (gradient,) = torch.autograd.grad(REDUCTIONS[name](garbage, mask).square().sum(), garbage)
    assert torch.equal(gradient[~mask], torch.zeros_like(gradient[~mask]))
    assert gradient[mask].abs().sum() > 0


@pytest.mark.parametrize("name", REDUCTIONS)
def test_nothing_valid_gives_zero(name: str) -> None:
    assert (
        REDUCTIONS[name](torch.ones(2, 0, 3), torch.ones(2, 0, dtype=torch.bool)).tolist() == [[0.0] * 3] * 2
    )
    assert REDUCTIONS[name](
        torch.full((1, 4, 1), torch.nan), torch.zeros(1, 4, dtype=torch.bool)
    ).tolist() == [[0.0]]


def test_ties_of_the_maximum_share_the_gradient() -> None:
    x = torch.tensor([[[1.0], [3.0], [3.0], [9.0]]], requires_grad=True)
    masked_max(x, prefix_mask([3], 4)).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 0.5, 0.5, 0]


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, FLOAT16), (torch.bfloat16, BFLOAT16)],
    ids=["float16", "bfloat16"],
)
def test_mean_of_many_half_precision_tokens(dtype: torch.dtype, tolerance: dict[str, float]) -> None:
    # Their sum, 3e6, is beyond float16, and bfloat16 cannot count to 3001.
    x = torch.full((1, 3001, 1), 1000.0, dtype=dtype)
    mean = masked_mean(x, torch.ones(1, 3001, dtype=torch.bool))
    assert mean.dtype == dtype
    assert_close(mean.float() / 1000, torch.ones(1, 1), **tolerance)


@given(lengths=st.lists(st.integers(0, 8), min_size=1, max_size=4), padding=st.integers(0, 3))
def test_reversing_reverses_what_is_valid_and_twice_gives_it_back(lengths: list[int], padding: int) -> None:
    time = max(lengths) + padding
    x, mask = draw(len(lengths), time, 2), prefix_mask(lengths, time)
    turned = reverse_valid(x, mask)
    for sample, length in enumerate(lengths):
        assert torch.equal(turned[sample, :length], x[sample, :length].flip(0))
        assert torch.equal(turned[sample, length:], x[sample, length:])
    assert torch.equal(reverse_valid(turned, mask), x)


def test_gradient_of_reversing() -> None:
    mask = prefix_mask([3, 0, 5], 5)
    assert torch.autograd.gradcheck(
        lambda x: reverse_valid(x, mask), (draw(3, 5, 2).requires_grad_(),), **GRADCHECK
    )


def test_relative_time_is_the_middle_of_each_tokens_share() -> None:
    times = relative_time(prefix_mask([4, 2, 0], 4))
    assert times.dtype == torch.float32
    assert times[0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert times[1].tolist() == [0.25, 0.75, 1.25, 1.75]
    assert (times[2] > 0).all()
    assert relative_time(prefix_mask([3], 3), torch.float64).dtype == torch.float64
    # Padding does not move the valid tokens.
    assert_close(relative_time(prefix_mask([4], 9))[:, :4], times[:1], **EXACT)


@pytest.mark.parametrize(
    "operator", [*REDUCTIONS.values(), reverse_valid], ids=[*REDUCTIONS, "reverse_valid"]
)
@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), r"beside mask, found shape \(2, 3\)"),
        (torch.zeros(2, 3, 1), torch.ones(2, 3), r"^mask: expected bool .*found torch.float32"),
        (
            torch.zeros(2, 3, 1),
            torch.ones(2, 4, dtype=torch.bool),
            r"^mask: expected .*\(2, 3\).*found .*\(2, 4\)",
        ),
        (
            torch.zeros(2, 3, 1),
            torch.ones(2, 3, dtype=torch.bool, device="meta"),
            r"^mask: .* on cpu, found .* on meta",
        ),
    ],
    ids=["tokens", "dtype", "shape", "device"],
)
def test_a_mask_that_does_not_fit_is_named(operator: Any, x: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        operator(x, mask)


def test_whole_numbers_have_no_mean_and_a_hole_no_reverse() -> None:
    mask = torch.tensor([[True, False, True]])
    with pytest.raises(ShapeError, match=r"x: expected floating numbers, found torch\.int64"):
        masked_mean(torch.ones(1, 3, 1, dtype=torch.int64), mask)
    with pytest.raises(ShapeError, match="mask: expected valid tokens first"):
        reverse_valid(draw(1, 3, 1), mask)
