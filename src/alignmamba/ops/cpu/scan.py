"""The recurrence of the selective scan in float32, compiled by numba.

Lanes run over channels, so nothing is summed across lanes in the forward pass, and the states of a tile of channels stay in
the first cache. The backward pass recomputes states from a checkpoint every `_CHUNK` tokens. Rows of the batch are shared
among as many threads as torch uses; the threads end with the call, so a process may fork at any time.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

_CHUNK = 32
_FORWARD_LANES = 32
_BACKWARD_LANES = 16

# exp(x) = 2^k exp(f) with k = round(x / ln 2) and |f| <= ln(2) / 2: adding and subtracting 1.5 * 2^23 rounds to an integer, ln 2
# is subtracted in two parts so that f keeps its last bits, and a polynomial of degree 7 gives exp(f) (Cephes, expf).
_LOG2E = np.float32(1.44269504088896341)
_ROUND = np.float32(12582912.0)
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)
_LOWEST = np.float32(-87.0)
_HIGHEST = np.float32(87.0)
_P7, _P6, _P5 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_P4, _P3, _P2 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
_BIAS = np.int32(127)
_MANTISSA = np.int32(23)

# Sums may not be reordered where rounding is done by a magic number; elsewhere they may, so that they vectorise.
_EXACT_ORDER = {"contract", "nsz", "arcp"}
_ANY_ORDER = {"contract", "nsz", "arcp", "reassoc"}


@intrinsic
def _as_float(_context: Any, _bits: Any) -> Any:
    """The float32 whose bits an int32 holds."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), codegen


@njit(fastmath=_EXACT_ORDER, cache=True)
def exp(x):
    """e^x in float32, relative error below 2e-7 for -87 <= x <= 87; held at the ends beyond, NaN stays NaN."""
    clamped = _LOWEST if x < _LOWEST else x
    clamped = _HIGHEST if clamped > _HIGHEST else clamped
    k = np.float32(np.float32(clamped * _LOG2E + _ROUND) - _ROUND)
    f = np.float32(np.float32(clamped - k * _LN2_HIGH) - k * _LN2_LOW)
    p = (((((_P7 * f + _P6) * f + _P5) * f + _P4) * f + _P3) * f + _P2) * f * f + f + _ONE
    return p * _as_float(np.int32((np.int32(k) + _BIAS) << _MANTISSA))  # type: ignore[call-arg]


@njit(fastmath=_ANY_ORDER, nogil=True, cache=True)
def _forward(first, last, u, delta, A, B, C, state, y, checkpoints):
    """Rows `first` to `last`. A is (state, channel), state and each checkpoint (batch, state, channel); state ends as the final one."""
    time, channels, states = u.shape[1], u.shape[2], A.shape[0]
    h = np.zeros((states, _FORWARD_LANES), np.float32)
    a = np.zeros((states, _FORWARD_LANES), np.float32)
    step = np.zeros(_FORWARD_LANES, np.float32)
    drive = np.zeros(_FORWARD_LANES, np.float32)
    out = np.zeros(_FORWARD_LANES, np.float32)
    for row in range(first, last):
        for start in range(0, channels, _FORWARD_LANES):
            lanes = min(_FORWARD_LANES, channels - start)
            for n in range(states):
                for i in range(lanes):
                    h[n, i] = state[row, n, start + i]
                    a[n, i] = A[n, start + i]
            for t in range(time):
                if t % _CHUNK == 0:
                    for n in range(states):
                        for i in range(lanes):
                            checkpoints[t // _CHUNK, row, n, start + i] = h[n, i]
                for i in range(lanes):
                    step[i] = delta[row, t, start + i]
                    drive[i] = delta[row, t, start + i] * u[row, t, start + i]
                for i in range(_FORWARD_LANES):
                    out[i] = _ZERO
                for n in range(states):
                    b, c = B[row, t, n], C[row, t, n]
                    for i in range(_FORWARD_LANES):
                        h[n, i] = exp(step[i] * a[n, i]) * h[n, i] + drive[i] * b
                        out[i] += h[n, i] * c
                for i in range(lanes):
                    y[row, t, start + i] = out[i]
            for n in range(states):
                for i in range(lanes):
                    state[row, n, start + i] = h[n, i]


# Rows of the backward pass's scratch. Vectors that one loop reads and writes lie in one array at constant distances: numba has no
# `restrict`, and more than a few arrays would cost the loop its vector form.
_STEP, _DRIVE, _GRAD_Y, _GRAD_DRIVE, _GRAD_STEP = range(5)
_CARRIED, _DECAY_RATE, _GRAD_RATE, _STATE = range(4)
_BEFORE, _FACTOR = range(2)


@njit(fastmath=_ANY_ORDER, nogil=True, cache=True)
def _backward(first, last, u, delta, A, B, C, checkpoints, grad_y, grad_state, grad_u, grad_delta, grad_A, grad_B, grad_C):
    """Rows `first` to `last`. grad_state enters as the final state's and leaves as the initial one's; grad_A is (batch, state, channel)."""
    time, channels, states = u.shape[1], u.shape[2], A.shape[0]
    saved = np.zeros((_CHUNK, states, 2, _BACKWARD_LANES), np.float32)
    own = np.zeros((states, 4, _BACKWARD_LANES), np.float32)
    lane = np.zeros((5, _BACKWARD_LANES), np.float32)
    for row in range(first, last):
        for start in range(0, channels, _BACKWARD_LANES):
            lanes = min(_BACKWARD_LANES, channels - start)
            own[:] = _ZERO
            lane[:] = _ZERO
            for n in range(states):
                for i in range(lanes):
                    own[n, _CARRIED, i] = grad_state[row, n, start + i]
                    own[n, _DECAY_RATE, i] = A[n, start + i]
            for chunk in range(checkpoints.shape[0] - 1, -1, -1):
                begin = chunk * _CHUNK
                length = min(_CHUNK, time - begin)
                for n in range(states):
                    for i in range(lanes):
                        own[n, _STATE, i] = checkpoints[chunk, row, n, start + i]
                for k in range(length):
                    for i in range(lanes):
                        lane[_STEP, i] = delta[row, begin + k, start + i]
                        lane[_DRIVE, i] = delta[row, begin + k, start + i] * u[row, begin + k, start + i]
                    for n in range(states):
                        b = B[row, begin + k, n]
                        for i in range(_BACKWARD_LANES):
                            factor = exp(lane[_STEP, i] * own[n, _DECAY_RATE, i])
                            saved[k, n, _BEFORE, i] = own[n, _STATE, i]
                            saved[k, n, _FACTOR, i] = factor
                            own[n, _STATE, i] = factor * own[n, _STATE, i] + lane[_DRIVE, i] * b
                for k in range(length - 1, -1, -1):
                    t = begin + k
                    for i in range(lanes):
                        lane[_STEP, i] = delta[row, t, start + i]
                        lane[_DRIVE, i] = delta[row, t, start + i] * u[row, t, start + i]
                        lane[_GRAD_Y, i] = grad_y[row, t, start + i]
                    for i in range(_BACKWARD_LANES):
                        lane[_GRAD_DRIVE, i] = _ZERO
                        lane[_GRAD_STEP, i] = _ZERO
                    for n in range(states):
                        b, c = B[row, t, n], C[row, t, n]
                        grad_b, grad_c = _ZERO, _ZERO
                        for i in range(_BACKWARD_LANES):
                            grad_h = own[n, _CARRIED, i] + lane[_GRAD_Y, i] * c
                            decayed = saved[k, n, _FACTOR, i] * saved[k, n, _BEFORE, i]
                            grad_c += lane[_GRAD_Y, i] * (decayed + lane[_DRIVE, i] * b)
                            grad_b += grad_h * lane[_DRIVE, i]
                            grad_exponent = grad_h * decayed
                            lane[_GRAD_DRIVE, i] += grad_h * b
                            lane[_GRAD_STEP, i] += grad_exponent * own[n, _DECAY_RATE, i]
                            own[n, _GRAD_RATE, i] += grad_exponent * lane[_STEP, i]
                            own[n, _CARRIED, i] = grad_h * saved[k, n, _FACTOR, i]
                        grad_B[row, t, n] += grad_b
                        grad_C[row, t, n] += grad_c
                    for i in range(lanes):
                        grad_u[row, t, start + i] = lane[_GRAD_DRIVE, i] * lane[_STEP, i]
                        grad_delta[row, t, start + i] = lane[_GRAD_DRIVE, i] * u[row, t, start + i] + lane[_GRAD_STEP, i]
            for n in range(states):
                for i in range(lanes):
                    grad_state[row, n, start + i] = own[n, _CARRIED, i]
                    grad_A[row, n, start + i] = own[n, _GRAD_RATE, i]


def scan_forward(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output (batch, time, channel), final state (batch, channel, state) and checkpoints for `scan_backward`; all float32 on the CPU.

    The arguments are those of the recurrence in `alignmamba.ops.scan`: steps already positive, maps and state as there.
    """
    batch, time, channels = u.shape
    inner = state.transpose(1, 2).contiguous().clone()
    y = u.new_empty(u.shape)
    checkpoints = u.new_empty(-(-time // _CHUNK), batch, A.shape[1], channels)
    arrays = [_array(tensor) for tensor in (u, delta, A.t(), B, C, inner, y, checkpoints)]
    _over_rows(_forward, batch, arrays)
    # A copy, because autograd lets nobody change a view in place that was made here.
    return y, inner.transpose(1, 2).clone(), checkpoints


def scan_backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, checkpoints: Tensor, grad_y: Tensor, grad_state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, A, B, C and the initial state."""
    inner = grad_state.transpose(1, 2).contiguous().clone()
    grad_u, grad_delta = u.new_empty(u.shape), u.new_empty(u.shape)
    grad_A = A.new_empty(len(u), *A.t().shape)
    grad_B, grad_C = B.new_zeros(B.shape), C.new_zeros(C.shape)
    tensors = (u, delta, A.t(), B, C, checkpoints, grad_y, inner, grad_u, grad_delta, grad_A, grad_B, grad_C)
    _over_rows(_backward, len(u), [_array(tensor) for tensor in tensors])
    return grad_u, grad_delta, grad_A.sum(0).t(), grad_B, grad_C, inner.transpose(1, 2)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().contiguous().numpy()
    return array


def _over_rows(kernel: Callable[..., None], rows: int, arrays: list[np.ndarray]) -> None:
    """Run a kernel over all rows of the batch, on as many threads as torch uses."""
    threads = max(1, min(rows, torch.get_num_threads()))
    if threads == 1:
        kernel(0, rows, *arrays)
        return
    edges = [rows * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(kernel, first, last, *arrays) for first, last in pairwise(edges)]:
            done.result()
