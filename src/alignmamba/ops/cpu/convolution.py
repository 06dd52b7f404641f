"""The causal depthwise convolution with SiLU in one pass, compiled by numba for float32 and float64.

Nothing is padded, shifted or transposed: the tokens that the window covers are read where they lie.
"""

import numpy as np
from torch import Tensor

from alignmamba.ops.cpu.compilation import array, kernel, over_tasks, rows, threads_for, tokens_of
from alignmamba.ops.cpu.elementary import ZERO, silu, silu_slope

_LEAST_WORK = 2**20
"""Products that repay a further thread."""


def conv_forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`alignmamba.ops.convolution.causal_conv` on tensors of one dtype, float32 or float64."""
    y = x.new_empty(x.shape)
    threads, groups = _split(x, weight)
    arguments = (groups, x.shape[1], rows(x), array(weight), array(bias), array(y))
    over_tasks(lambda first, last: _forward(first, last, *arguments), len(x) * groups, threads)
    return y


def conv_backward(x: Tensor, weight: Tensor, bias: Tensor, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; the sum before the activation is computed again."""
    grad_x = x.new_empty(x.shape)
    # Summed within a sample first, and over samples in their order.
    grad_weight, grad_bias = x.new_zeros(len(x), *weight.shape), x.new_zeros(len(x), *bias.shape)
    threads, groups = _split(x, weight)
    given = (groups, x.shape[1], rows(x), array(weight), array(bias), rows(grad_y))
    results = (array(grad_x), array(grad_weight), array(grad_bias))
    over_tasks(lambda first, last: _backward(first, last, *given, *results), len(x) * groups, threads)
    return grad_x, grad_weight.sum(0), grad_bias.sum(0)


def _split(x: Tensor, weight: Tensor) -> tuple[int, int]:
    """Number of threads, and of groups the channels of one sample are split to give every thread a task."""
    threads = threads_for(x.numel() * len(weight), _LEAST_WORK)
    return threads, max(1, min(-(-threads // max(1, len(x))), x.shape[2] // 64))


@kernel
def _forward(first, last, groups, time, x, weight, bias, y):
    channels = weight.shape[1]
    for task in range(first, last):
        row, group = task // groups, task % groups
        start, stop = channels * group // groups, channels * (group + 1) // groups
        total = np.zeros(stop - start, weight.dtype)
        for t in range(time):
            _convolve(total, x, row, t, start, weight, bias)
            y_t = y[row, t, start:stop]
            for i in range(total.size):
                y_t[i] = silu(total[i])


@kernel
def _backward(first, last, groups, time, x, weight, bias, grad_y, grad_x, grad_weight, grad_bias):
    width, channels = weight.shape
    for task in range(first, last):
        row, group = task // groups, task % groups
        start, stop = channels * group // groups, channels * (group + 1) // groups
        lanes = stop - start
        total = np.zeros(lanes, weight.dtype)
        # Gradients of the sums at the last `width` tokens visited, token t in row t % width.
        grads = np.zeros((width, lanes), weight.dtype)
        for t in range(time - 1, -1, -1):
            _convolve(total, x, row, t, start, weight, bias)
            grad_y_t = tokens_of(grad_y, row, t, start, lanes)
            grad, grad_bias_tile = grads[t % width], grad_bias[row, start:stop]
            for i in range(lanes):
                grad[i] = grad_y_t[i] * silu_slope(total[i])
                grad_bias_tile[i] += grad[i]
            grad_x_t = grad_x[row, t, start:stop]
            for i in range(lanes):
                grad_x_t[i] = ZERO
            for k in range(width):
                ahead = t + width - 1 - k  # the token whose sum weighs this one by row k
                if ahead < time:
                    weight_k, grad_ahead = weight[k, start:stop], grads[ahead % width]
                    for i in range(lanes):
                        grad_x_t[i] += weight_k[i] * grad_ahead[i]
                behind = t - (width - 1) + k
                if behind >= 0:
                    x_k, grad_weight_k = (
                        tokens_of(x, row, behind, start, lanes),
                        grad_weight[row, k, start:stop],
                    )
                    for i in range(lanes):
                        grad_weight_k[i] += grad[i] * x_k[i]


@kernel
def _convolve(total, x, row, t, start, weight, bias):
    """The weighted sum at token `t`, for channels from `start`, into `total`."""
    width, lanes = weight.shape[0], total.size
    bias_tile = bias[start : start + lanes]
    for i in range(lanes):
        total[i] = bias_tile[i]
    for k in range(max(0, width - 1 - t), width):
        x_k, weight_k = tokens_of(x, row, t - (width - 1) + k, start, lanes), weight[k, start : start + lanes]
        for i in range(lanes):
            total[i] += weight_k[i] * x_k[i]
