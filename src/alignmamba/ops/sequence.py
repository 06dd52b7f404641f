"""Masked reductions over time, relative time, and the interleaving of aligned streams."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alignmamba.errors import ShapeError

# Length of a vector below which its direction has no gradient.
_SHORTEST = 1e-12


def interleave(streams: Sequence[Tensor]) -> Tensor:
    """Order aligned streams by time first and by stream second.

    Args:
        streams: Aligned sequences (batch, time, ...), all of one shape, dtype and device; the order given is
            the order within a time step.

    Returns:
        (batch, time * streams, ...): token ``t`` of stream ``s`` at position ``t * len(streams) + s``.

    Raises:
        ShapeError: If there is no stream, or two differ in shape, dtype or device; the message names both.

    Source:
        Li et al., arXiv:2412.00833, eq. 11.
    """
    if not streams:
        raise ShapeError("streams: expected at least one, found none")
    first = streams[0]
    if first.ndim < 2:
        raise ShapeError(f"streams: expected (batch, time, ...), found shape {tuple(first.shape)}")
    for number, stream in enumerate(streams):
        if (stream.shape, stream.dtype, stream.device) != (first.shape, first.dtype, first.device):
            raise ShapeError(
                f"stream {number} is {stream.dtype} of shape {tuple(stream.shape)} on {stream.device}, "
                f"stream 0 is {first.dtype} of shape {tuple(first.shape)} on {first.device}"
            )
    return torch.stack(list(streams), dim=2).flatten(1, 2)


def deinterleave(tokens: Tensor, num_streams: int) -> tuple[Tensor, ...]:
    """Undo `interleave`.

    Args:
        tokens: (batch, time * num_streams, ...).
        num_streams: How many streams were interleaved.

    Returns:
        The streams, (batch, time, ...) each.

    Raises:
        ShapeError: If the length is not a multiple of `num_streams`.
    """
    if num_streams < 1 or tokens.ndim < 2 or tokens.shape[1] % num_streams:
        raise ShapeError(
            f"tokens of shape {tuple(tokens.shape)} do not hold {num_streams} streams of equal length"
        )
    streams: tuple[Tensor, ...] = tokens.unflatten(1, (-1, num_streams)).unbind(2)
    return streams


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid tokens.

    Args:
        x: (batch, time, channel).
        mask: (batch, time) bool.

    Returns:
        (batch, channel); zero for a sample without a valid token.

    Raises:
        ShapeError: If `mask` does not fit `x`, or `x` is not floating.
    """
    check_mask("mask", mask, x)
    check_floating("x", x)
    # A float16 sum overflows at 65504, where the mean is far from it.
    working = torch.promote_types(x.dtype, torch.float32)
    total = x.masked_fill(~mask.unsqueeze(-1), 0).sum(1, dtype=working)
    return (total / mask.sum(1, keepdim=True).clamp(min=1)).to(x.dtype)


def masked_max(x: Tensor, mask: Tensor) -> Tensor:
    """Largest value of each channel over valid tokens; ties share the gradient.

    Args:
        x: (batch, time, channel).
        mask: (batch, time) bool.

    Returns:
        (batch, channel); zero for a sample without a valid token.

    Raises:
        ShapeError: If `mask` does not fit `x`.
    """
    check_mask("mask", mask, x)
    if x.shape[1] == 0:
        return x.new_zeros(x.shape[0], x.shape[2])
    largest = x.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)
    return largest.masked_fill(~mask.any(1, keepdim=True), 0)


def last_valid(x: Tensor, mask: Tensor) -> Tensor:
    """The token at the last valid position.

    Args:
        x: (batch, time, channel).
        mask: (batch, time) bool.

    Returns:
        (batch, channel); zero for a sample without a valid token.

    Raises:
        ShapeError: If `mask` does not fit `x`.
    """
    check_mask("mask", mask, x)
    if x.shape[1] == 0:
        return x.new_zeros(x.shape[0], x.shape[2])
    positions = torch.arange(x.shape[1], device=x.device)
    last = torch.where(mask, positions, -1).amax(1)
    picked = x[torch.arange(x.shape[0], device=x.device), last.clamp(min=0)]
    return picked.masked_fill((last < 0).unsqueeze(-1), 0)


def relative_time(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Position of each token within its sequence, from 0 to 1: the middle of its share, (i + 1/2) / length.

    Args:
        mask: (batch, time) bool, valid tokens first.
        dtype: Floating type of the result.

    Returns:
        (batch, time); invalid positions hold values past 1 (in a sample without valid token: past 0).
    """
    positions = torch.arange(mask.shape[1], device=mask.device, dtype=dtype)
    return (positions + 0.5) / mask.sum(1, keepdim=True).clamp(min=1).to(dtype)


def unit_tokens(x: Tensor, mask: Tensor) -> Tensor:
    """Tokens at length 1, as `unit`; zero where not valid.

    Args:
        x: (batch, time, channel), floating.
        mask: (batch, time) bool.
    """
    return unit(x.masked_fill(~mask.unsqueeze(-1), 0))


def unit(x: Tensor) -> Tensor:
    """Vectors (..., channel) at length 1, however short or long they were; zero where zero. One that is
    shorter than 1e-12 has no gradient, which grows as the inverse of the length.
    """
    if x.shape[-1] == 0:
        return x
    largest = x.detach().abs().amax(-1, keepdim=True)
    short = largest < _SHORTEST
    # divided by a power of 2, which rounds nothing, no square overflows or vanishes
    exponent = largest.masked_fill(largest == 0, 1).log2().floor()
    scale = exponent.clamp(max=math.frexp(torch.finfo(x.dtype).max)[1] - 1).exp2()
    return F.normalize(torch.where(short, x.detach(), x) / scale, dim=-1)


def reverse_valid(x: Tensor, mask: Tensor) -> Tensor:
    """Reverse the valid tokens of each sample in time and leave the padding where it is.

    Args:
        x: (batch, time, channel).
        mask: (batch, time) bool, valid tokens first.

    Returns:
        (batch, time, channel). Applying it twice gives `x` back.

    Raises:
        ShapeError: If `mask` does not fit `x`, or a valid token follows one that is not.
    """
    check_mask("mask", mask, x)
    check_valid_first("mask", mask)
    positions = torch.arange(x.shape[1], device=x.device)
    source = torch.where(mask, mask.sum(1, keepdim=True) - 1 - positions, positions)
    return x.gather(1, source.unsqueeze(-1).expand_as(x))


def check_mask(name: str, mask: Tensor, x: Tensor) -> None:
    """Raise `ShapeError` unless `x` is (batch, time, channel) and `mask` (batch, time) bool beside it."""
    if x.ndim != 3:
        raise ShapeError(f"expected (batch, time, channel) beside {name}, found shape {tuple(x.shape)}")
    if mask.shape != x.shape[:2] or mask.dtype != torch.bool or mask.device != x.device:
        raise ShapeError(
            f"{name}: expected bool of shape {tuple(x.shape[:2])} on {x.device}, "
            f"found {mask.dtype} of shape {tuple(mask.shape)} on {mask.device}"
        )


def check_valid_first(name: str, mask: Tensor) -> None:
    """Raise `ShapeError` if a valid token follows one that is not valid; the message names the sample.

    On the CPU alone, and not in a compiled program: elsewhere a look at the values would wait for the device.
    """
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return
    late = (mask[:, 1:] & ~mask[:, :-1]).any(1)
    if bool(late.any()):
        raise ShapeError(
            f"{name}: expected valid tokens first, found one after padding in sample {int(late.nonzero()[0])}"
        )


def check_floating(name: str, x: Tensor) -> None:
    """Raise `ShapeError` for whole or complex numbers, whose mean would be cut to them."""
    if not x.is_floating_point():
        raise ShapeError(f"{name}: expected floating numbers, found {x.dtype}")
