"""The selective scan by Triton kernels, which `alignmamba.ops.gpu.scan_kernels` holds.

With few rows in the batch, time is cut into chunks: each is scanned from a zero state, a short kernel carries
the states across chunks (the decay of a chunk is ``exp(A sum dt)``), and each is scanned again from the right
one. Sums over the batch, over time or over channels are written as parts and added by torch, so every result
is the same on each run.
"""

from typing import Literal

import torch
import triton
from torch import Tensor

from alignmamba.ops.gpu.elementary import LOG2E
from alignmamba.ops.gpu.launch import channels_adjacent, on_its_device
from alignmamba.ops.gpu.scan_kernels import (
    carry_kernel,
    forward_kernel,
    gradient_of_state_kernel,
    gradients_kernel,
)

Algorithm = Literal["auto", "sequential", "chunked"]

# Tokens between two states that are kept for the backward pass: with 16 states these take as much memory as
# `u` in float32.
_TILE = 16
# States of one channel that one thread holds; more are shared among as many groups of threads, eight at most.
_STATES_PER_THREAD = 16
# Tokens of a chunk, shortest and longest: below, the carry costs more than it saves; above, parallelism is
# lost for nothing.
_SHORTEST_CHUNK, _LONGEST_CHUNK = 32, 256
# Groups of threads that one multiprocessor holds at a time: three for each scheduler, at some 160 registers a
# thread.
_GROUPS_PER_MULTIPROCESSOR = 12


def checkpoint_shape(batch: int, time: int, channels: int, states: int) -> tuple[int, int, int, int]:
    """Shape of the states that `scan_forward` keeps for `scan_backward`."""
    return batch, -(-time // _TILE), states, channels


@on_its_device
def scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    *,
    softplus: bool,
    checkpoint: bool,
    algorithm: Algorithm = "auto",
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`alignmamba.ops.scan.selective_scan` on float32, bfloat16 or float16; of 256 states at most.

    Algorithm ``"sequential"`` walks through time, ``"chunked"`` cuts it; ``"auto"`` cuts it where the rows
    and channels alone do not fill the device.

    Returns:
        Output (batch, time, channel) in the dtype of `u`; final state (batch, channel, state) float32; with
        `checkpoint` what `scan_backward` needs, of `checkpoint_shape`.
    """
    batch, time, channels = u.shape
    states = A.shape[1]
    y = u.new_empty(u.shape)
    kept_shape = checkpoint_shape(batch, time, channels, states)
    kept = torch.empty(kept_shape, device=u.device) if checkpoint else None
    start = None if initial_state is None else _inner(initial_state)
    if y.numel() == 0:
        return y, _untouched(initial_state, (batch, channels, states), u), kept
    u, delta, B, C = map(channels_adjacent, (u, delta, B, C))
    D, z, delta_bias = (None if each is None else channels_adjacent(each) for each in (D, z, delta_bias))
    length = _chunk_length(batch, time, channels, u.device, algorithm)
    chunks = -(-time // length)
    A2, lanes, padded = _rates(A), _lanes(), _padded(states)
    finish = torch.empty(batch, states, channels, device=u.device)
    edges = torch.empty(batch * chunks, states, channels, device=u.device) if chunks > 1 else finish
    step_sums = torch.empty(batch * chunks, channels, device=u.device) if chunks > 1 else None
    groups = triton.cdiv(channels, lanes)

    def walk(begin: Tensor | None, end: Tensor | None, *, output: bool) -> None:
        forward_kernel[(batch * chunks * groups,)](
            u, delta, A2, B, C, D, z, delta_bias, begin, y, end, kept, step_sums,
            time, channels, states, length, chunks,
            *_strides(u), *_strides(delta), *_strides(B), *_strides(C), *_strides(z), 0,
            HAS_D=D is not None, HAS_Z=z is not None, HAS_BIAS=delta_bias is not None,
            HAS_START=begin is not None, SOFTPLUS=softplus, OUTPUT=output, FINISH=end is not None,
            CHECKPOINT=checkpoint and output, TILE=_TILE, STATES=padded, LANES=lanes,
            num_warps=_warps(padded),
        )  # fmt: skip

    if chunks == 1:
        walk(start, finish, output=True)
    else:
        walk(None, edges, output=False)
        _carry(edges, A2, step_sums, start, finish, reverse=False)
        walk(edges, None, output=True)
    return y, finish.transpose(1, 2).contiguous(), kept


@on_its_device
def scan_backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    checkpoints: Tensor,
    grad_y: Tensor,
    grad_state: Tensor | None,
    *,
    softplus: bool,
    algorithm: Algorithm = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias, each in the dtype of what it belongs to and None
    where that is None, and of the initial state, (batch, channel, state) float32; the same bits on each run.
    """
    batch, time, channels = u.shape
    states = A.shape[1]
    device = u.device
    u, delta, B, C, grad_y = map(channels_adjacent, (u, delta, B, C, grad_y))
    D, z, delta_bias = (None if each is None else channels_adjacent(each) for each in (D, z, delta_bias))
    grad_u, grad_delta = u.new_empty(u.shape), delta.new_empty(delta.shape)
    grad_z = None if z is None else z.new_empty(z.shape)
    start = None if grad_state is None else _inner(grad_state)
    if u.numel() == 0:
        through = _untouched(grad_state, (batch, channels, states), u)
        zeros = [None if tensor is None else torch.zeros_like(tensor) for tensor in (A, B, C, D, delta_bias)]
        return grad_u, grad_delta, zeros[0], zeros[1], zeros[2], zeros[3], grad_z, zeros[4], through  # type: ignore[return-value]
    length = _chunk_length(batch, time, channels, device, algorithm)
    chunks, tiles = -(-time // length), -(-time // _TILE)
    A2, lanes, padded = _rates(A), _lanes(), _padded(states)
    groups = triton.cdiv(channels, lanes)
    chunked = chunks > 1

    def scratch(*shape: int) -> Tensor:
        return torch.empty(shape, device=device)

    arriving, through = scratch(batch * tiles, states, channels), scratch(batch, states, channels)
    edges = scratch(batch * chunks, states, channels) if chunked else through
    tile_sums, step_sums = (
        (scratch(batch * tiles, channels), scratch(batch * chunks, channels)) if chunked else (None, None)
    )
    gradient_of_state_kernel[(batch * chunks * groups,)](
        delta, A2, C, z, delta_bias, grad_y, None if chunked else start, arriving, edges, tile_sums,
        step_sums, time, channels, states, length, chunks, *_strides(delta), *_strides(C), *_strides(z),
        *_strides(grad_y), 0, HAS_Z=z is not None, HAS_BIAS=delta_bias is not None,
        HAS_START=not chunked and start is not None, SOFTPLUS=softplus, CHUNKED=chunked, TILE=_TILE,
        STATES=padded, LANES=lanes, num_warps=_warps(padded),
    )  # fmt: skip
    if chunked:
        _carry(edges, A2, step_sums, start, through, reverse=True)

    parts_B, parts_C = scratch(groups, batch, states, time), scratch(groups, batch, states, time)
    parts_D = None if D is None else scratch(batch * tiles, channels)
    parts_bias = None if delta_bias is None else scratch(batch * tiles, channels)
    gradients_kernel[(batch * tiles * groups,)](
        u, delta, A2, B, C, D, z, delta_bias, checkpoints, arriving, edges, tile_sums, grad_y,
        grad_u, grad_delta, grad_z, parts_B, parts_C, parts_D, parts_bias,
        batch, time, channels, states, length, chunks,
        *_strides(u), *_strides(delta), *_strides(B), *_strides(C), *_strides(z), *_strides(grad_y), 0,
        HAS_D=D is not None, HAS_Z=z is not None, HAS_BIAS=delta_bias is not None,
        SOFTPLUS=softplus, CHUNKED=chunked, MATRIX=not torch.version.hip, TILE=_TILE, LANES=lanes,
        num_warps=1, num_stages=1,
    )  # fmt: skip
    return (
        grad_u,
        grad_delta,
        arriving.sum(0).t().to(A.dtype).contiguous(),
        parts_B.sum(0).to(B.dtype).transpose(1, 2).contiguous(),
        parts_C.sum(0).to(C.dtype).transpose(1, 2).contiguous(),
        None if parts_D is None or D is None else parts_D.sum(0).to(D.dtype),
        grad_z,
        None if parts_bias is None or delta_bias is None else parts_bias.sum(0).to(delta_bias.dtype),
        through.transpose(1, 2).contiguous(),
    )


def _carry(
    edges: Tensor,
    A2: Tensor,
    step_sums: Tensor | None,
    start: Tensor | None,
    finish: Tensor,
    *,
    reverse: bool,
) -> None:
    batch, states, channels = finish.shape
    lanes = _lanes()
    carry_kernel[(batch * states * triton.cdiv(channels, lanes),)](
        edges, A2, step_sums, start, finish, channels, states, len(edges) // batch, 0,
        HAS_START=start is not None, REVERSE=reverse, ROWS=16, LANES=lanes, num_warps=1,
    )  # fmt: skip


def _chunk_length(batch: int, time: int, channels: int, device: torch.device, algorithm: Algorithm) -> int:
    """Tokens that one program walks through; all of them where there is work enough without cutting time."""
    processors = (
        torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    )
    wanted = _GROUPS_PER_MULTIPROCESSOR * processors
    walkers = batch * -(-channels // _lanes())
    # Cutting walks twice, so it must at least halve the time: the device less than a quarter full, and two
    # chunks or more.
    if algorithm == "sequential" or (
        algorithm == "auto" and (walkers * 4 > wanted or time <= 2 * _SHORTEST_CHUNK)
    ):
        return -(-time // _TILE) * _TILE
    length = -(-time * walkers // wanted)
    return min(max(-(-length // _TILE) * _TILE, _SHORTEST_CHUNK), _LONGEST_CHUNK)


def _rates(A: Tensor) -> Tensor:
    """(state, channel), with log2(e) folded in because the hardware's exponential is that of 2."""
    rates: Tensor = A.float().t() * LOG2E.value
    return rates.contiguous()


def _untouched(state: Tensor | None, shape: tuple[int, int, int], like: Tensor) -> Tensor:
    """A copy of a state after no token; zero where there is none."""
    return torch.zeros(shape, device=like.device) if state is None else state.float().clone()


def _inner(state: Tensor) -> Tensor:
    """(batch, channel, state) as the kernels hold it, (batch, state, channel)."""
    return state.float().transpose(1, 2).contiguous()


def _strides(tensor: Tensor | None) -> tuple[int, int]:
    return (0, 0) if tensor is None else (tensor.stride(0), tensor.stride(1))


def _lanes() -> int:
    """Channels of a program: the threads that step together, 32 on NVIDIA and 64 on AMD."""
    return 64 if torch.version.hip else 32


def _padded(states: int) -> int:
    return max(2, 1 << (states - 1).bit_length())


def _warps(padded: int) -> int:
    return min(max(1, padded // _STATES_PER_THREAD), 8)
