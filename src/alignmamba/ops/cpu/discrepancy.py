"""Sums of Gaussian kernels between tokens and their gradients, tile by tile.

Distances come from matrix products of PyTorch; a kernel compiled by numba turns a tile of products into
kernel entries in place; two more products add the tile's part to the gradient. Nothing of the size of time x
time is held, and no tile is computed twice.
"""

import math

import numpy as np
import torch
from torch import Tensor

from alignmamba.ops.cpu.compilation import array, kernel
from alignmamba.ops.cpu.elementary import LOG2E, ONE, ZERO, exp2

_TILE_ENTRIES = 2**18
"""Kernel entries held at once: 1 MB in single precision."""
_BLOCK_ROWS = 256


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
    """``wxx sum k(x, x') + wyy sum k(y, y') + wxy sum k(x, y)`` over all ordered pairs of valid tokens, ``k =
    exp(-scale |a - b|^2)``.

    Args:
        x: (batch, n, channel), float32 or float64, near the origin, zero where not valid.
        y: (batch, m, channel), likewise.
        x_mask: (batch, n) bool.
        y_mask: (batch, m) bool.
        scale: (batch,) float64, 1 / (2 sigma^2).
        weights: (3, batch) float64: wxx, wyy, wxy.
        need_gradient: Whether the gradients are wanted.

    Returns:
        The sum (batch,) in float64, and its gradients with respect to x and y, of their dtype.
    """
    total = x.new_zeros(len(x), dtype=torch.float64)
    grad_x, grad_y = (torch.zeros_like(side) if need_gradient else None for side in (x, y))
    memory = x.new_empty(max(_TILE_ENTRIES, 1))
    for weight, first, second, first_mask, second_mask, first_grad, second_grad, symmetric in (
        (weights[0], x, x, x_mask, x_mask, grad_x, grad_x, True),
        (weights[1], y, y, y_mask, y_mask, grad_y, grad_y, True),
        (weights[2], x, y, x_mask, y_mask, grad_x, grad_y, False),
    ):
        masks = (array(first_mask), array(second_mask))
        squares = (array(first.square().sum(2)), array(second.square().sum(2)))
        rates = array(scale * LOG2E)
        for samples, rows, columns in _tiles(len(x), first.shape[1], second.shape[1], symmetric=symmetric):
            a, b = first[samples, rows], second[samples, columns]
            shape = (len(a), a.shape[1], b.shape[1])
            tile = torch.bmm(a, b.transpose(1, 2), out=memory[: math.prod(shape)].view(shape))
            row_sums, column_sums = tile.new_empty(shape[:2]), tile.new_zeros(shape[0], shape[2])
            at = (samples.start, rows.start, columns.start)
            _kernel_entries(
                tile.numpy(), *at, *squares, *masks, rates, symmetric, row_sums.numpy(), column_sums.numpy()
            )
            # A self term's tile off the diagonal stands for its mirror image as well.
            twice = 2.0 if symmetric and rows != columns else 1.0
            total[samples] += twice * weight[samples] * row_sums.sum(1, dtype=torch.float64)
            if first_grad is not None and second_grad is not None:
                slope = (-2 * scale * weight)[samples].to(x.dtype)[:, None, None] * (2 if symmetric else 1)
                _add_gradient(first_grad[samples, rows], a, b, tile, row_sums, slope)
                if twice == 2.0 or not symmetric:
                    _add_gradient(
                        second_grad[samples, columns], b, a, tile.transpose(1, 2), column_sums, slope
                    )
    return total, grad_x, grad_y


def lower_median(values: Tensor, mask: Tensor) -> Tensor:
    """Lower median of the entries above the diagonal whose row and column are valid; infinite without one.

    Args:
        values: (batch, token, token) float64.
        mask: (batch, token) bool.

    Returns:
        (batch,) float64.
    """
    median = values.new_empty(len(values))
    _lower_median(array(values), array(mask), median.numpy())
    return median


def _add_gradient(
    grad: Tensor, own: Tensor, other: Tensor, entries: Tensor, sums: Tensor, slope: Tensor
) -> None:
    """Add ``slope (sums own - entries other)``, the gradient with respect to the tokens `own`."""
    grad.add_(slope * (sums.unsqueeze(2) * own - torch.bmm(entries, other)))


def _tiles(batch: int, n: int, m: int, *, symmetric: bool) -> list[tuple[slice, slice, slice]]:
    """Samples and tokens of every tile; of a symmetric sum only the tiles on and above the diagonal."""
    if n * m <= _TILE_ENTRIES:
        some_samples = max(1, _TILE_ENTRIES // max(1, n * m))
        return [
            (slice(s, min(batch, s + some_samples)), slice(0, n), slice(0, m))
            for s in range(0, batch, some_samples)
        ]
    across = _BLOCK_ROWS if symmetric else _TILE_ENTRIES // _BLOCK_ROWS
    return [
        (slice(sample, sample + 1), slice(i, min(n, i + _BLOCK_ROWS)), slice(j, min(m, j + across)))
        for sample in range(batch)
        for i in range(0, n, _BLOCK_ROWS)
        for j in range(i if symmetric else 0, m, across)
    ]


@kernel
def _kernel_entries(
    tile, sample, row, column, first_squares, second_squares, first_mask, second_mask,
    rates, symmetric, row_sums, column_sums,
):  # fmt: skip
    """Turn inner products into kernel entries, zero where not valid; sum them by rows and columns."""
    for b in range(tile.shape[0]):
        rate = row_sums.dtype.type(rates[sample + b])
        others = second_squares[sample + b, column : column + tile.shape[2]]
        valid = second_mask[sample + b, column : column + tile.shape[2]]
        sums = column_sums[b]
        for r in range(tile.shape[1]):
            entries, total = tile[b, r], ZERO * rate
            if first_mask[sample + b, row + r]:
                own = first_squares[sample + b, row + r]
                for c in range(entries.size):
                    distance = own + others[c] - entries[c] - entries[c]
                    distance = ZERO * rate if distance < ZERO else distance
                    entry = exp2(-distance * rate) if valid[c] else ZERO * rate
                    entries[c] = entry
                    total += entry
                itself = row + r - column
                # what rounding leaves of this distance would be the largest error of all
                if symmetric and 0 <= itself < entries.size:
                    total += ONE - entries[itself]
                    entries[itself] = ONE
                for c in range(entries.size):
                    sums[c] += entries[c]
            else:
                entries[:] = ZERO
            row_sums[b, r] = total


@kernel
def _lower_median(values, mask, median):
    tokens = mask.shape[1]
    chosen = np.zeros(tokens * (tokens - 1) // 2)
    for b in range(values.shape[0]):
        count = 0
        for i in range(tokens):
            for j in range(i + 1, tokens):
                if mask[b, i] and mask[b, j]:
                    chosen[count] = values[b, i, j]
                    count += 1
        median[b] = np.partition(chosen[:count], (count - 1) // 2)[(count - 1) // 2] if count else np.inf
