"""The selective scan in one pass over memory, compiled by numba for float32 and float64.

Softplus, discretisation, recurrence, skip and gate are fused. Vector lanes run over channels, so nothing is
summed across lanes in the forward pass. A chunk of tokens is finished for all channels before the next one
begins: memory is read in the order in which it lies, and what a tile of channels needs for one chunk stays in
the first cache. The backward pass recomputes states from the one kept at the start of each chunk.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignmamba.ops.cpu.compilation import array, entry_of, kernel, over_tasks, rows, threads_for, tokens_of
from alignmamba.ops.cpu.elementary import (
    LN2,
    LOG2E,
    NAN,
    ONE,
    ZERO,
    exp2,
    sigmoid,
    silu,
    silu_slope,
    softplus,
)

_CHUNK = 32
"""Tokens between two kept states; at least the number of states, so that these take no more memory than the
drive."""

# Channels of a tile: wide enough to hide the latency of the recurrence, narrow enough not to be idle. The
# forward pass needs little beside them and takes the widest where these fit exactly.
_WIDEST, _WIDE, _NARROW = 128, 64, 16

_LEAST_WORK = 2**18
"""State updates that repay a further thread: some tenths of a millisecond."""


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
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`alignmamba.ops.scan.selective_scan` on tensors of one dtype, float32 or float64; any layout, channels
    side by side at best.

    Returns:
        Output (batch, time, channel), final state (batch, channel, state), and with `checkpoint` what
        `scan_backward` needs.
    """
    batch, time, channels = u.shape
    states = A.shape[1]
    y = u.new_empty(batch, time, channels)
    state = _state_first(initial_state, (batch, states, channels), u)
    chunk = max(_CHUNK, states)
    kept = u.new_empty(
        checkpoint_shape(batch, time, channels, states) if checkpoint else (batch, 0, states, channels)
    )
    lanes = _WIDEST if channels % _WIDEST == 0 else _lanes(channels)
    threads = threads_for(u.numel() * states, _LEAST_WORK)
    per_row = _groups(batch, channels, lanes, threads)
    tokens = tuple(map(rows, (u, delta, B, C, u if z is None else z)))
    arguments = (*tokens, z is not None, softplus, chunk)
    weights = (_rates(A), _vector(D, u), _vector(delta_bias, u), *_limits(A))
    run = _forward(lanes)
    over_tasks(
        lambda first, last: run(
            first, last, per_row, time, *arguments, *weights, array(state), array(y), array(kept)
        ),
        batch * per_row,
        threads,
    )
    return y, state.transpose(1, 2).contiguous(), kept if checkpoint else None


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias (None where that was) and the initial state."""
    batch, time, channels = u.shape
    states = A.shape[1]
    chunk = max(_CHUNK, states)
    lanes = _lanes(channels)
    threads = threads_for(4 * u.numel() * states, _LEAST_WORK)
    per_row = _groups(batch, channels, lanes, threads)
    carried = _state_first(grad_state, (batch, states, channels), u)
    grad_u, grad_delta, grad_z = (u.new_empty(batch, time, channels) for _ in range(3))
    # What is summed over tokens and channels is summed within a task first, and over tasks in their order: no
    # race, one result.
    grad_A = u.new_zeros(batch, states, channels)
    grad_D, grad_bias = u.new_zeros(batch, channels), u.new_zeros(batch, channels)
    grad_B, grad_C = u.new_zeros(batch, per_row, time, states), u.new_zeros(batch, per_row, time, states)
    tokens = tuple(map(rows, (u, delta, B, C, u if z is None else z, grad_y)))
    inputs = (*tokens, z is not None, softplus, chunk)
    weights = (_rates(A), _vector(D, u), _vector(delta_bias, u), *_limits(A), array(checkpoints))
    results = tuple(
        array(tensor)
        for tensor in (carried, grad_u, grad_delta, grad_z, grad_A, grad_B, grad_C, grad_D, grad_bias)
    )
    run = _backward(lanes)
    over_tasks(
        lambda first, last: run(first, last, per_row, time, *inputs, *weights, *results),
        batch * per_row,
        threads,
    )
    return (
        grad_u,
        grad_delta,
        grad_A.sum(0).t().contiguous(),
        grad_B.sum(1),
        grad_C.sum(1),
        None if D is None else grad_D.sum(0),
        None if z is None else grad_z,
        None if delta_bias is None else grad_bias.sum(0),
        carried.transpose(1, 2).contiguous(),
    )


def checkpoint_shape(batch: int, time: int, channels: int, states: int) -> tuple[int, int, int, int]:
    """Shape of the states kept for the backward pass: one per chunk."""
    return batch, -(-time // max(_CHUNK, states)), states, channels


def _state_first(state: Tensor | None, shape: tuple[int, int, int], like: Tensor) -> Tensor:
    """A copy of (batch, channel, state) as (batch, state, channel), to be overwritten; zero for none."""
    if state is None:
        return like.new_zeros(shape)
    return like.new_empty(shape).copy_(state.transpose(1, 2))


def _rates(A: Tensor) -> np.ndarray:
    """(state, channel), for powers of 2; NaN without a payload, which would pass for an exponent."""
    rates = A.t() * LOG2E
    return array(torch.where(rates.isnan(), torch.nan, rates))


def _vector(weight: Tensor | None, u: Tensor) -> np.ndarray:
    return array(u.new_zeros(u.shape[2]) if weight is None else weight)


def _limits(A: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Shortest and longest step of each channel: beyond, a state grows by over 2^127 (float64: 2^1023)."""
    if A.shape[1] == 0:
        return array(A.new_full((len(A),), -torch.inf)), array(A.new_full((len(A),), torch.inf))
    most = 127 if A.dtype == torch.float32 else 1023
    limits = most / (A.detach() * LOG2E)
    longest = limits.masked_fill(limits <= 0, torch.inf).amin(1)
    shortest = limits.masked_fill(limits >= 0, -torch.inf).amax(1)
    return array(shortest), array(longest)


def _lanes(channels: int) -> int:
    return _WIDE if channels > 2 * _NARROW else _NARROW


def _groups(batch: int, channels: int, lanes: int, threads: int) -> int:
    """Groups of tiles of a sample's channels: as few as give every thread a task."""
    return max(1, min(-(-threads // max(1, batch)), -(-channels // lanes)))


# Rows of the kernels' scratch, for each token of a chunk and for each state; the first few are the forward
# pass's as well. What one loop reads and writes lies at constant distances in few arrays: numba has no
# `restrict`, and checks at run time whether separate arrays overlap.
_STEP, _DRIVE, _OUT, _SLOPE, _GRAD_STEP, _GRAD_DRIVE, _GRAD_OUT, _DECAY, _STATE = range(9)
_RATE, _CARRIED, _GRAD_RATE = range(3)


@cache
def _forward(L: int) -> Callable[..., Any]:
    """The forward kernel for tiles of `L` channels."""

    @kernel
    def forward(
        first, last, per_row, time,
        u, delta, B, C, z, gated, positive, chunk,
        A, D, bias, shortest, longest,
        state, y, kept,
    ):  # fmt: skip
        channels, states = D.shape[0], A.shape[0]
        tiles = (channels + L - 1) // L
        dtype = D.dtype
        token = np.zeros((chunk, 3, L), dtype)
        for task in range(first, last):
            row, group = task // per_row, task % per_row
            begin, end = tiles * group // per_row, tiles * (group + 1) // per_row
            state_of = np.zeros((end - begin, states, 2, L), dtype)
            for tile in range(begin, end):
                s = tile * L
                for n in range(states):
                    for i in range(min(L, channels - s)):
                        state_of[tile - begin, n, _CARRIED, i] = state[row, n, s + i]
                        state_of[tile - begin, n, _RATE, i] = A[n, s + i]
            for c in range(0, time, chunk):
                length = min(chunk, time - c)
                for tile in range(begin, end):
                    s = tile * L
                    lanes = min(L, channels - s)
                    own = state_of[tile - begin]
                    D_tile, bias_tile = D[s : s + lanes], bias[s : s + lanes]
                    shortest_tile, longest_tile = shortest[s : s + lanes], longest[s : s + lanes]
                    if kept.shape[1] > 0:
                        for n in range(states):
                            for i in range(lanes):
                                kept[row, c // chunk, n, s + i] = own[n, _CARRIED, i]
                    for k in range(length):
                        u_k, delta_k = (
                            tokens_of(u, row, c + k, s, lanes),
                            tokens_of(delta, row, c + k, s, lanes),
                        )
                        if positive:
                            for i in range(lanes):
                                token[k, _STEP, i] = softplus(delta_k[i] + bias_tile[i])
                        else:
                            for i in range(lanes):
                                token[k, _STEP, i] = delta_k[i] + bias_tile[i]
                        for i in range(lanes):
                            token[k, _STEP, i] = (
                                NAN if token[k, _STEP, i] > longest_tile[i] else token[k, _STEP, i]
                            )
                            token[k, _STEP, i] = (
                                NAN if token[k, _STEP, i] < shortest_tile[i] else token[k, _STEP, i]
                            )
                            token[k, _STEP, i] = (
                                NAN if token[k, _STEP, i] != token[k, _STEP, i] else token[k, _STEP, i]
                            )
                            token[k, _DRIVE, i] = token[k, _STEP, i] * u_k[i]
                            token[k, _OUT, i] = D_tile[i] * u_k[i]
                    for n in range(states):
                        for k in range(length):
                            b, m = entry_of(B, row, c + k, n), entry_of(C, row, c + k, n)
                            for i in range(L):
                                own[n, _CARRIED, i] = (
                                    exp2(token[k, _STEP, i] * own[n, _RATE, i]) * own[n, _CARRIED, i]
                                    + token[k, _DRIVE, i] * b
                                )
                                token[k, _OUT, i] += own[n, _CARRIED, i] * m
                    for k in range(length):
                        y_k = y[row, c + k, s : s + lanes]
                        if gated:
                            z_k = tokens_of(z, row, c + k, s, lanes)
                            for i in range(lanes):
                                y_k[i] = token[k, _OUT, i] * silu(z_k[i])
                        else:
                            for i in range(lanes):
                                y_k[i] = token[k, _OUT, i]
            for tile in range(begin, end):
                s = tile * L
                for n in range(states):
                    for i in range(min(L, channels - s)):
                        state[row, n, s + i] = state_of[tile - begin, n, _CARRIED, i]

    return forward


@cache
def _backward(L: int) -> Callable[..., Any]:
    """The backward kernel for tiles of `L` channels."""

    @kernel
    def backward(
        first, last, per_row, time,
        u, delta, B, C, z, grad_y, gated, positive, chunk,
        A, D, bias, shortest, longest, kept,
        carried, grad_u, grad_delta, grad_z, grad_A, grad_B, grad_C, grad_D, grad_bias,
    ):  # fmt: skip
        channels, states = D.shape[0], A.shape[0]
        tiles = (channels + L - 1) // L
        dtype = D.dtype
        ln2 = dtype.type(LN2)
        token, state = np.zeros((chunk + 1, 9, L), dtype), np.zeros((3, L), dtype)
        for task in range(first, last):
            row, group = task // per_row, task % per_row
            begin, end = tiles * group // per_row, tiles * (group + 1) // per_row
            for c in range((time - 1) // chunk * chunk, -1, -chunk):
                length = min(chunk, time - c)
                for tile in range(begin, end):
                    s = tile * L
                    lanes = min(L, channels - s)
                    # what the tile before left in the idle lanes would enter the sums over channels
                    if lanes < L:
                        token[:] = ZERO
                        state[:] = ZERO
                    D_tile, bias_tile = D[s : s + lanes], bias[s : s + lanes]
                    shortest_tile, longest_tile = shortest[s : s + lanes], longest[s : s + lanes]
                    for k in range(length):
                        u_k, delta_k = (
                            tokens_of(u, row, c + k, s, lanes),
                            tokens_of(delta, row, c + k, s, lanes),
                        )
                        grad_y_k = tokens_of(grad_y, row, c + k, s, lanes)
                        for i in range(lanes):
                            token[k, _STEP, i] = delta_k[i] + bias_tile[i]
                            token[k, _SLOPE, i] = ONE
                        if positive:
                            for i in range(lanes):
                                token[k, _SLOPE, i] = sigmoid(token[k, _STEP, i])
                                token[k, _STEP, i] = softplus(token[k, _STEP, i])
                        for i in range(lanes):
                            token[k, _STEP, i] = (
                                NAN if token[k, _STEP, i] > longest_tile[i] else token[k, _STEP, i]
                            )
                            token[k, _STEP, i] = (
                                NAN if token[k, _STEP, i] < shortest_tile[i] else token[k, _STEP, i]
                            )
                            token[k, _STEP, i] = (
                                NAN if token[k, _STEP, i] != token[k, _STEP, i] else token[k, _STEP, i]
                            )
                            token[k, _DRIVE, i] = token[k, _STEP, i] * u_k[i]
                            token[k, _OUT, i] = D_tile[i] * u_k[i]
                            token[k, _GRAD_STEP, i] = ZERO
                            token[k, _GRAD_DRIVE, i] = ZERO
                        if gated:
                            z_k = tokens_of(z, row, c + k, s, lanes)
                            for i in range(lanes):
                                token[k, _GRAD_OUT, i] = grad_y_k[i] * silu(z_k[i])
                        else:
                            for i in range(lanes):
                                token[k, _GRAD_OUT, i] = grad_y_k[i]
                    for n in range(states):
                        for i in range(lanes):
                            state[_RATE, i] = A[n, s + i]
                            token[0, _STATE, i] = kept[row, c // chunk, n, s + i]
                            state[_CARRIED, i] = carried[row, n, s + i]
                            state[_GRAD_RATE, i] = ZERO
                        for k in range(length):
                            b, m = entry_of(B, row, c + k, n), entry_of(C, row, c + k, n)
                            for i in range(L):
                                token[k, _DECAY, i] = exp2(token[k, _STEP, i] * state[_RATE, i])
                                token[k + 1, _STATE, i] = (
                                    token[k, _DECAY, i] * token[k, _STATE, i] + token[k, _DRIVE, i] * b
                                )
                                token[k, _OUT, i] += token[k + 1, _STATE, i] * m
                        for k in range(length - 1, -1, -1):
                            b, m = entry_of(B, row, c + k, n), entry_of(C, row, c + k, n)
                            to_b, to_m = ZERO, ZERO
                            for i in range(L):
                                grad_h = state[_CARRIED, i] + token[k, _GRAD_OUT, i] * m
                                to_m += token[k, _GRAD_OUT, i] * token[k + 1, _STATE, i]
                                to_b += grad_h * token[k, _DRIVE, i]
                                token[k, _GRAD_DRIVE, i] += grad_h * b
                                state[_CARRIED, i] = grad_h * token[k, _DECAY, i]
                                grad_exponent = state[_CARRIED, i] * token[k, _STATE, i]
                                token[k, _GRAD_STEP, i] += grad_exponent * state[_RATE, i]
                                state[_GRAD_RATE, i] += grad_exponent * token[k, _STEP, i]
                            grad_B[row, group, c + k, n] += to_b
                            grad_C[row, group, c + k, n] += to_m
                        for i in range(lanes):
                            carried[row, n, s + i] = state[_CARRIED, i]
                            grad_A[row, n, s + i] += state[_GRAD_RATE, i]
                    grad_D_tile, grad_bias_tile = grad_D[row, s : s + lanes], grad_bias[row, s : s + lanes]
                    for k in range(length):
                        u_k, grad_y_k = (
                            tokens_of(u, row, c + k, s, lanes),
                            tokens_of(grad_y, row, c + k, s, lanes),
                        )
                        grad_u_k, grad_delta_k = (
                            grad_u[row, c + k, s : s + lanes],
                            grad_delta[row, c + k, s : s + lanes],
                        )
                        for i in range(lanes):
                            # `a` carries a factor log2(e), which the derivative of 2^x takes out again.
                            to_step = (
                                token[k, _GRAD_STEP, i] * ln2 + token[k, _GRAD_DRIVE, i] * u_k[i]
                            ) * token[k, _SLOPE, i]
                            grad_u_k[i] = (
                                token[k, _GRAD_DRIVE, i] * token[k, _STEP, i]
                                + token[k, _GRAD_OUT, i] * D_tile[i]
                            )
                            grad_delta_k[i] = to_step
                            grad_bias_tile[i] += to_step
                            grad_D_tile[i] += token[k, _GRAD_OUT, i] * u_k[i]
                        if gated:
                            z_k, grad_z_k = (
                                tokens_of(z, row, c + k, s, lanes),
                                grad_z[row, c + k, s : s + lanes],
                            )
                            for i in range(lanes):
                                grad_z_k[i] = grad_y_k[i] * token[k, _OUT, i] * silu_slope(z_k[i])

    return backward
