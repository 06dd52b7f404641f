"""Sums of the Gaussian kernel over all pairs of tokens, with their gradient, as a Triton kernel (arXiv
2412.00833, eq. 8-9).

A program holds a tile of tokens and lets all others pass by, as attention kernels do (Dao et al., arXiv
2205.14135): distances come from one matrix product, the gradient from another with the kernel values as its
left factor, and no matrix of all pairs exists. With ``r_i = sum_j w_ij k_ij``, where w_ij is twice the weight
of the pair's own side or the weight between the sides, the value is half of the sum of all r_i, and the
gradient of token i is ``2 scale (sum_j w_ij k_ij x_j - r_i x_i)``.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from alignmamba.errors import BackendError
from alignmamba.ops.gpu.elementary import LOG2E
from alignmamba.ops.gpu.launch import channels_adjacent, on_its_device

MOST_CHANNELS = 1024
"""Above this the gradient's recomputed distances cost more than the kernel saves."""

# Tokens of a tile, tokens that pass by at a time, its groups of threads, channels of one step of the
# distance, and channels of the gradient that a program forms.
_TOKENS, _OTHERS, _WARPS, _CHANNELS, _GRADIENT_CHANNELS = 64, 32, 8, 32, 128


@triton.jit
def _tokens(x, x_time, t, channel, valid, channels):
    mask = valid[:, None] & (channel < channels)[None, :]
    return tl.load(x + t[:, None].to(tl.int64) * x_time + channel[None, :], mask=mask, other=0.0)


@triton.jit
def _add_side(
    row_sum, product, own, own_time, own_square, own_valid, i,
    other, other_time, other_mask, other_square, other_length, weight, exponent, channels, first_channel,
    SELF: tl.constexpr, GRADIENT: tl.constexpr, PRECISION: tl.constexpr,
    TOKENS: tl.constexpr, OTHERS: tl.constexpr, CHANNELS: tl.constexpr, GRADIENT_CHANNELS: tl.constexpr,
):  # fmt: skip
    """Let the tokens of one side pass by."""
    channel = tl.arange(0, CHANNELS)
    out_channel = first_channel + tl.arange(0, GRADIENT_CHANNELS)
    for begin in range(0, other_length, OTHERS):
        j = begin + tl.arange(0, OTHERS)
        valid = tl.load(other_mask + j, mask=j < other_length, other=0) != 0
        square = tl.load(other_square + j, mask=valid, other=0.0)
        product_of_tokens = tl.zeros((TOKENS, OTHERS), tl.float32)
        for block in range(0, channels, CHANNELS):
            left = _tokens(own, own_time, i, block + channel, own_valid, channels)
            right = _tokens(other, other_time, j, block + channel, valid, channels)
            product_of_tokens = tl.dot(left, tl.trans(right), product_of_tokens, input_precision=PRECISION)
        distance = tl.maximum(own_square[:, None] + square[None, :] - 2.0 * product_of_tokens, 0.0)
        if SELF:
            # What rounding leaves of a token's distance from itself would be the largest error of all.
            distance = tl.where(i[:, None] == j[None, :], 0.0, distance)
        kernel = tl.where(own_valid[:, None] & valid[None, :], tl.exp2(distance * exponent) * weight, 0.0)
        row_sum += tl.sum(kernel, axis=1)
        if GRADIENT:
            right = _tokens(other, other_time, j, out_channel, valid, channels)
            product = tl.dot(kernel, right, product, input_precision=PRECISION)
    return row_sum, product


@triton.jit(do_not_specialize=["own_length", "other_length"])
def _kernel_sum_kernel(
    own, other, own_mask, other_mask, own_squares, other_squares, scale, own_weight, other_weight,
    row_sums, grad, own_length, other_length, channels, own_batch, own_time, other_batch, other_time,
    BETWEEN: tl.constexpr, GRADIENT: tl.constexpr, PRECISION: tl.constexpr,
    TOKENS: tl.constexpr, OTHERS: tl.constexpr, CHANNELS: tl.constexpr, GRADIENT_CHANNELS: tl.constexpr,
):  # fmt: skip
    """A tile of tokens of one side, against its own side and, with BETWEEN, the other."""
    blocks = tl.cdiv(channels, GRADIENT_CHANNELS) if GRADIENT else 1
    tiles = tl.cdiv(own_length, TOKENS)
    program = tl.program_id(0)
    first_channel = program % blocks * GRADIENT_CHANNELS
    row = (program // blocks // tiles).to(tl.int64)
    i = program // blocks % tiles * TOKENS + tl.arange(0, TOKENS)
    own += row * own_batch
    other += row * other_batch
    valid = tl.load(own_mask + row * own_length + i, mask=i < own_length, other=0) != 0
    square = tl.load(own_squares + row * own_length + i, mask=valid, other=0.0)
    rate = tl.load(scale + row)
    exponent = rate * -LOG2E
    row_sum = tl.zeros((TOKENS,), tl.float32)
    product = tl.zeros((TOKENS, GRADIENT_CHANNELS), tl.float32)
    row_sum, product = _add_side(
        row_sum, product, own, own_time, square, valid, i,
        own, own_time, own_mask + row * own_length, own_squares + row * own_length, own_length,
        tl.load(own_weight + row), exponent, channels, first_channel,
        True, GRADIENT, PRECISION, TOKENS, OTHERS, CHANNELS, GRADIENT_CHANNELS,
    )  # fmt: skip
    if BETWEEN:
        row_sum, product = _add_side(
            row_sum, product, own, own_time, square, valid, i,
            other, other_time, other_mask + row * other_length, other_squares + row * other_length,
            other_length, tl.load(other_weight + row), exponent, channels, first_channel, False, GRADIENT,
            PRECISION, TOKENS, OTHERS, CHANNELS, GRADIENT_CHANNELS,
        )  # fmt: skip
    if first_channel == 0:
        tl.store(row_sums + row * own_length + i, row_sum, mask=i < own_length)
    if GRADIENT:
        channel = first_channel + tl.arange(0, GRADIENT_CHANNELS)
        token = _tokens(own, own_time, i, channel, valid, channels)
        place = (row * own_length + i[:, None]) * channels + channel[None, :]
        mask = (i < own_length)[:, None] & (channel < channels)[None, :]
        tl.store(grad + place, 2.0 * rate * (product - row_sum[:, None] * token), mask=mask)


@on_its_device
def weighted_kernel_sum(
    x: Tensor,
    y: Tensor,
    x_mask: Tensor,
    y_mask: Tensor,
    scale: Tensor,
    weights: Tensor,
    *,
    need_gradient: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """`alignmamba.ops.cpu.discrepancy.weighted_kernel_sum` in float32, at most 1024 channels.

    Products are of float32 accuracy (three TF32 products on CUDA). Rows are summed in float32 and the rows'
    sums in float64, always in the same order. What stands at tokens that are not valid is not read.

    Raises:
        BackendError: If there are more channels.
    """
    batch, _, channels = x.shape
    if channels > MOST_CHANNELS:
        raise BackendError(
            f"weighted_kernel_sum: the Triton kernel serves at most {MOST_CHANNELS} channels, found"
            f" {channels}"
        )
    x, y = channels_adjacent(x), channels_adjacent(y)
    within_x, within_y, between = weights.float().unbind(0)
    squares = [side.square().sum(2) for side in (x, y)]
    masks = [mask.to(torch.uint8).contiguous() for mask in (x_mask, y_mask)]
    scale = scale.float().contiguous()

    def side(own: int, weight: Tensor, *, seen: bool) -> tuple[Tensor, Tensor | None]:
        tokens, other = (x, y) if own == 0 else (y, x)
        row_sums = torch.empty(batch, tokens.shape[1], device=x.device)
        grad = torch.empty(tokens.shape, device=x.device) if need_gradient else None
        if row_sums.numel() == 0:
            return row_sums, grad
        blocks = triton.cdiv(channels, _GRADIENT_CHANNELS) if need_gradient else 1
        _kernel_sum_kernel[(batch * triton.cdiv(tokens.shape[1], _TOKENS) * blocks,)](
            tokens, other, masks[own], masks[1 - own], squares[own], squares[1 - own], scale,
            (2 * weight).contiguous(), (between if need_gradient else 2 * between).contiguous(), row_sums,
            grad, tokens.shape[1], other.shape[1], channels, tokens.stride(0), tokens.stride(1),
            other.stride(0), other.stride(1), BETWEEN=seen and other.shape[1] > 0, GRADIENT=need_gradient,
            PRECISION="ieee" if torch.version.hip else "tf32x3", TOKENS=_TOKENS, OTHERS=_OTHERS,
            CHANNELS=_CHANNELS, GRADIENT_CHANNELS=_GRADIENT_CHANNELS, num_warps=_WARPS, num_stages=2,
        )  # fmt: skip
        return row_sums, grad

    # Without gradients the pairs between the sides need be seen from one side only, and then count twice.
    sums_x, grad_x = side(0, within_x, seen=True)
    sums_y, grad_y = side(1, within_y, seen=need_gradient)
    value = (sums_x.double().sum(1) + sums_y.double().sum(1)) / 2
    return value, grad_x, grad_y
