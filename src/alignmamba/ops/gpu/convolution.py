"""Causal depthwise convolution and SiLU as Triton kernels: the short mixing step before the scan (arXiv
2312.00752, section 3.4).

The work is bound by memory, so each pass reads its inputs once from there and writes its outputs once; a
token that several outputs need comes from the cache. The backward pass recomputes the activation's argument
where it needs it, as often as the kernel is wide: at width 4, Mamba's, that arithmetic still hides behind the
memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from alignmamba.ops.gpu.elementary import sigmoid
from alignmamba.ops.gpu.launch import channels_adjacent, on_its_device

# Tokens and channels of a tile, and its groups of threads: each thread has four neighbouring channels at a
# time.
_TOKENS, _CHANNELS, _WARPS = 16, 128, 4


@triton.jit
def _argument(x, x_time, weight, bias, t, channel, time, channels, WIDTH: tl.constexpr):
    """Sum of bias and weight[k] x[t - (WIDTH - 1) + k] over k, with zeros before the first token."""
    inside = channel < channels
    total = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)[None, :] + tl.zeros(
        (t.shape[0], 1), tl.float32
    )
    for k in tl.static_range(WIDTH):
        source = t + (k - (WIDTH - 1))
        mask = ((source >= 0) & (source < time))[:, None] & inside[None, :]
        token = tl.load(x + source[:, None].to(tl.int64) * x_time + channel[None, :], mask=mask, other=0.0)
        total += tl.load(weight + k * channels + channel, mask=inside, other=0.0).to(tl.float32)[
            None, :
        ] * token.to(tl.float32)
    return total


@triton.jit
def _place(time, channels, TOKENS: tl.constexpr, CHANNELS: tl.constexpr):
    """Row, tokens and channels of this program, and which tile of tokens it is over all rows."""
    groups = tl.cdiv(channels, CHANNELS)
    tiles = tl.cdiv(time, TOKENS)
    program = tl.program_id(0)
    part = (program // groups).to(tl.int64)
    t = (part % tiles).to(tl.int32) * TOKENS + tl.arange(0, TOKENS)
    return part // tiles, t, (program % groups) * CHANNELS + tl.arange(0, CHANNELS), part


@triton.jit(do_not_specialize=["time"])
def _forward_kernel(
    x, weight, bias, y, time, channels, x_batch, x_time,
    WIDTH: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    row, t, channel, _ = _place(time, channels, TOKENS, CHANNELS)
    total = _argument(x + row * x_batch, x_time, weight, bias, t, channel, time, channels, WIDTH)
    mask = (t < time)[:, None] & (channel < channels)[None, :]
    place = (row * time + t[:, None]) * channels + channel[None, :]
    tl.store(y + place, (total * sigmoid(total)).to(y.dtype.element_ty), mask=mask)


@triton.jit
def _asked(grad_y, grad_time, x, x_time, weight, bias, t, channel, time, channels, WIDTH: tl.constexpr):
    """Gradient of the argument of the activation at tokens `t`; zero past the end."""
    total = _argument(x, x_time, weight, bias, t, channel, time, channels, WIDTH)
    mask = (t < time)[:, None] & (channel < channels)[None, :]
    grad = tl.load(grad_y + t[:, None].to(tl.int64) * grad_time + channel[None, :], mask=mask, other=0.0).to(
        tl.float32
    )
    slope = sigmoid(total)
    return grad * slope * (1.0 + total * (1.0 - slope))


@triton.jit(do_not_specialize=["time"])
def _backward_kernel(
    x, weight, bias, grad_y, grad_x, grad_weight, grad_bias,
    time, channels, x_batch, x_time, grad_batch, grad_time,
    WIDTH: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """grad_x of a tile, and the tile's parts of grad_weight and grad_bias."""
    row, t, channel, part = _place(time, channels, TOKENS, CHANNELS)
    inside = channel < channels
    x += row * x_batch
    grad_y += row * grad_batch
    total = tl.zeros((TOKENS, CHANNELS), tl.float32)
    for ahead in range(0, WIDTH):
        asked = _asked(grad_y, grad_time, x, x_time, weight, bias, t + ahead, channel, time, channels, WIDTH)
        share = tl.load(weight + (WIDTH - 1 - ahead) * channels + channel, mask=inside, other=0.0).to(
            tl.float32
        )
        total += share[None, :] * asked
    mask = (t < time)[:, None] & inside[None, :]
    place = (row * time + t[:, None]) * channels + channel[None, :]
    tl.store(grad_x + place, total.to(grad_x.dtype.element_ty), mask=mask)

    asked = _asked(grad_y, grad_time, x, x_time, weight, bias, t, channel, time, channels, WIDTH)
    tl.store(grad_bias + part * channels + channel, tl.sum(asked, axis=0), mask=inside)
    for k in range(0, WIDTH):
        source = t + (k - (WIDTH - 1))
        seen = ((source >= 0) & (source < time))[:, None] & inside[None, :]
        token = tl.load(
            x + source[:, None].to(tl.int64) * x_time + channel[None, :], mask=seen, other=0.0
        ).to(tl.float32)
        tl.store(
            grad_weight + (part * WIDTH + k) * channels + channel, tl.sum(asked * token, axis=0), mask=inside
        )


@on_its_device
def conv_forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`alignmamba.ops.convolution.causal_conv` on float32, bfloat16 or float16, of width 1 to 16."""
    _, time, channels = x.shape
    y = x.new_empty(x.shape)
    x = channels_adjacent(x)
    if y.numel():
        _forward_kernel[(_programs(x),)](
            x, weight.contiguous(), bias.contiguous(), y, time, channels, x.stride(0), x.stride(1),
            WIDTH=len(weight), TOKENS=_TOKENS, CHANNELS=_CHANNELS, num_warps=_WARPS,
        )  # fmt: skip
    return y


@on_its_device
def conv_backward(x: Tensor, weight: Tensor, bias: Tensor, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, each in the dtype of what it belongs to; the same bits on each run."""
    batch, time, channels = x.shape
    grad_x = x.new_empty(x.shape)
    if grad_x.numel() == 0:
        return grad_x, torch.zeros_like(weight), torch.zeros_like(bias)
    x, grad_y = channels_adjacent(x), channels_adjacent(grad_y)
    parts = batch * triton.cdiv(time, _TOKENS)
    parts_weight = torch.empty(parts, *weight.shape, device=x.device)
    parts_bias = torch.empty(parts, channels, device=x.device)
    _backward_kernel[(_programs(x),)](
        x, weight.contiguous(), bias.contiguous(), grad_y, grad_x, parts_weight, parts_bias,
        time, channels, x.stride(0), x.stride(1), grad_y.stride(0), grad_y.stride(1),
        WIDTH=len(weight), TOKENS=_TOKENS, CHANNELS=_CHANNELS, num_warps=_WARPS,
    )  # fmt: skip
    return grad_x, parts_weight.sum(0).to(weight.dtype), parts_bias.sum(0).to(bias.dtype)


def _programs(x: Tensor) -> int:
    batch, time, channels = x.shape
    return int(batch * triton.cdiv(time, _TOKENS) * triton.cdiv(channels, _CHANNELS))
