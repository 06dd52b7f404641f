"""Global alignment: maximum mean discrepancy between the tokens of two sequences (Li et al., arXiv 2412.00833, section 3.3)."""

from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops.sequence import check_mask

Bandwidth = float | Literal["median"]

# Float64 kernel entries of one tile over the whole batch, 16 MB; tiles are recomputed in the backward pass, so memory stays linear.
_TILE_ENTRIES = 2**21

# The median heuristic looks at no more than this many tokens of either side, evenly spaced.
_MEDIAN_TOKENS = 256


def mmd(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, *, bandwidth: Bandwidth, unbiased: bool = False) -> Tensor:
    r"""Squared maximum mean discrepancy between the valid tokens of two sequences, sample by sample.

    With ``k(a, b) = exp(-|a - b|^2 / (2 sigma^2))``::

        MMD^2(X, Y) = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

    Exact, O(time^2 channel) in time and linear in memory, in the backward pass too. Computed in float64: the three means nearly
    cancel, and squared distances overflow or cancel in float32 where features are large or lie far from each other.

    Args:
        x: (batch, x time, channel), floating.
        y: (batch, y time, channel), of the same dtype.
        x_mask: (batch, x time) bool.
        y_mask: (batch, y time) bool.
        bandwidth: sigma, or ``"median"``: the median distance between distinct valid tokens of the sample's X and Y together,
            without gradient (from at most 256 evenly spaced tokens of each side; 1 where it is zero).
        unbiased: Leave the diagonal out of the two self terms (U-statistic). The paper's estimate is biased (V-statistic).

    Returns:
        (batch,), float32 or float64. Zero for a sample where a side has no valid token (with `unbiased`: fewer than two).

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit.
        ConfigError: If `bandwidth` is not positive.

    Source:
        Li et al., arXiv:2412.00833, eq. 8-9; Gretton et al., JMLR 2012, eq. 3 (unbiased) and 5 (biased).
    """
    check_mask("x_mask", x_mask, x)
    check_mask("y_mask", y_mask, y)
    if (x.shape[0], x.shape[2], x.dtype, x.device) != (y.shape[0], y.shape[2], y.dtype, y.device) or not x.is_floating_point():
        found = f"x is {x.dtype} of shape {tuple(x.shape)} on {x.device}, y {y.dtype} of shape {tuple(y.shape)} on {y.device}"
        raise ShapeError(f"{found}: batch, channel, device and dtype must agree, and the dtype be floating")
    if isinstance(bandwidth, str) and bandwidth != "median":
        raise ConfigError(f"bandwidth: expected a positive number or 'median', found {bandwidth!r}")
    if not isinstance(bandwidth, str) and not 0 < bandwidth < float("inf"):
        raise ConfigError(f"bandwidth: expected a positive number or 'median', found {bandwidth}")
    with torch.autocast(x.device.type, enabled=False):
        result_dtype = torch.promote_types(x.dtype, torch.float32)
        n, m = (mask.sum(1).double() for mask in (x_mask, y_mask))
        # Zero in place of what is not valid: garbage there, infinities included, must not reach a product.
        x, y = (side.double().masked_fill(~mask.unsqueeze(-1), 0) for side, mask in ((x, x_mask), (y, y_mask)))
        # Distances are the same about any centre, and |x|^2 + |y|^2 - 2xy cancels least about the mean of the valid tokens.
        centre = ((x.detach().sum(1) + y.detach().sum(1)) / (n + m).clamp(min=1).unsqueeze(1)).unsqueeze(1)
        x, y = ((side - centre).masked_fill(~mask.unsqueeze(-1), 0) for side, mask in ((x, x_mask), (y, y_mask)))
        sigma = _median_distance(x, y, x_mask, y_mask) if bandwidth == "median" else x.new_full((len(x),), bandwidth)
        scale = 0.5 / sigma.square()
        within_x, within_y = _kernel_sum(x, x, x_mask, x_mask, scale), _kernel_sum(y, y, y_mask, y_mask, scale)
        between = _kernel_sum(x, y, x_mask, y_mask, scale)
        if unbiased:
            defined = (n > 1) & (m > 1)
            # The diagonal of a self term is one for every valid token.
            self_x, self_y = (within_x - n) / (n * (n - 1)).clamp(min=1), (within_y - m) / (m * (m - 1)).clamp(min=1)
        else:
            defined = (n > 0) & (m > 0)
            self_x, self_y = within_x / n.square().clamp(min=1), within_y / m.square().clamp(min=1)
        return (self_x + self_y - 2 * between / (n * m).clamp(min=1)).masked_fill(~defined, 0).to(result_dtype)


def _kernel_sum(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, scale: Tensor) -> Tensor:
    """Sum of the kernel over all valid pairs, (batch,), by tiles that are recomputed in the backward pass."""
    side = max(16, int((_TILE_ENTRIES // max(1, len(x))) ** 0.5))
    if x.shape[1] <= side and y.shape[1] <= side:
        return _tile_sum(x, y, x_mask, y_mask, scale)
    total = x.new_zeros(len(x))
    for x_tile, x_tile_mask in zip(x.split(side, 1), x_mask.split(side, 1), strict=True):
        for y_tile, y_tile_mask in zip(y.split(side, 1), y_mask.split(side, 1), strict=True):
            arguments = (x_tile, y_tile, x_tile_mask, y_tile_mask, scale)
            total = total + checkpoint(_tile_sum, *arguments, use_reentrant=False, preserve_rng_state=False)
    return total


def _tile_sum(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, scale: Tensor) -> Tensor:
    kernel = torch.exp(-scale[:, None, None] * _squared_distance(x, y))
    return kernel.masked_fill(~(x_mask.unsqueeze(2) & y_mask.unsqueeze(1)), 0).sum((1, 2))


def _squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """(batch, x time, y time)."""
    squares = x.square().sum(2).unsqueeze(2) + y.square().sum(2).unsqueeze(1)
    return torch.baddbmm(squares, x, y.transpose(1, 2), alpha=-2).clamp(min=0)


def _median_distance(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor) -> Tensor:
    """(batch,): lower median of the distances between distinct valid tokens of both sides together."""
    with torch.no_grad():
        x, x_mask = _evenly_spaced(x, x_mask)
        y, y_mask = _evenly_spaced(y, y_mask)
        tokens, mask = torch.cat([x, y], 1), torch.cat([x_mask, y_mask], 1)
        first, second = torch.triu_indices(tokens.shape[1], tokens.shape[1], 1, device=x.device)
        distance = _squared_distance(tokens, tokens)[:, first, second].sqrt()
        pairs = (mask[:, first] & mask[:, second]).sum(1)
        if distance.shape[1] == 0:
            return x.new_ones(len(x))
        ordered = distance.masked_fill(~(mask[:, first] & mask[:, second]), torch.inf).sort(1).values
        median = ordered.gather(1, ((pairs - 1).clamp(min=0) // 2).unsqueeze(1)).squeeze(1)
        # Equal tokens lie apart by the square root of rounding, 1e-8 of their distance from the centre: that is zero too.
        rounding = 1e-6 * tokens.square().sum(2).amax(1).sqrt()
        return torch.where((pairs > 0) & (median > rounding), median, torch.ones_like(median))


def _evenly_spaced(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """At most `_MEDIAN_TOKENS` valid tokens of each sample, by the sample's own length."""
    if x.shape[1] <= _MEDIAN_TOKENS:
        return x, mask
    lengths = mask.sum(1, keepdim=True)
    position = torch.arange(_MEDIAN_TOKENS, device=x.device)
    spaced = torch.where(lengths > _MEDIAN_TOKENS, position * lengths // _MEDIAN_TOKENS, position)
    valid_first = mask.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
    index = valid_first.gather(1, spaced)
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2])), position < lengths
