"""Transport by an entropic plan: how far the tokens of one sequence are from those of another."""

import torch
import torch.nn.functional as F
from torch import Tensor

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops.backends import without_autocast
from alignmamba.ops.sequence import check_mask


def transport_distance(
    x: Tensor,
    y: Tensor,
    x_mask: Tensor,
    y_mask: Tensor,
    *,
    regularisation: float = 0.05,
    iterations: int = 30,
) -> Tensor:
    r"""Cost of moving the valid tokens of one sequence onto those of the other, sample by sample, by an
    entropic plan.

    The cost of a pair is ``1 - cos(x_i, y_j)``; all valid tokens of a side weigh the same. The plan, found by
    Sinkhorn's iterations over logarithms, is a constant to the gradient. Memory is O(x time * y time).

    Args:
        x: (batch, x time, channel), floating.
        y: (batch, y time, channel), of the same dtype.
        x_mask: (batch, x time) bool.
        y_mask: (batch, y time) bool.
        regularisation: Weight of the entropy; the smaller, the nearer to the exact distance, and the more
            iterations are needed.
        iterations: Of Sinkhorn.

    Returns:
        (batch,), at least float32; zero for a sample where a side has no valid token.

    Raises:
        ShapeError: If shapes do not fit.
        ConfigError: If `regularisation` is not positive and finite, or there is no iteration.

    Source:
        Cuturi, NIPS 2013, arXiv:1306.0895, algorithm 1, over logarithms.
    """
    check_mask("x_mask", x_mask, x)
    check_mask("y_mask", y_mask, y)
    if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise ShapeError(f"x has shape {tuple(x.shape)}, y {tuple(y.shape)}: batch and channel must agree")
    if not 0 < regularisation < float("inf"):
        raise ConfigError(f"regularisation: expected a positive number, found {regularisation}")
    if iterations < 1:
        raise ConfigError(f"iterations: expected at least 1, found {iterations}")
    if x.shape[1] == 0 or y.shape[1] == 0:
        return x.new_zeros(len(x), dtype=torch.promote_types(x.dtype, torch.float32))
    with without_autocast(x.device):
        working = torch.promote_types(x.dtype, torch.float32)
        one, other = (
            F.normalize(side.to(working).masked_fill(~mask.unsqueeze(-1), 0), dim=2)
            for side, mask in ((x, x_mask), (y, y_mask))
        )
        cost = 1 - one @ other.transpose(1, 2)
        plan = _sinkhorn(-cost.detach() / regularisation, x_mask, y_mask, iterations)
        distance: Tensor = (plan * cost).sum((1, 2))
        return distance


@torch.no_grad()
def _sinkhorn(logs: Tensor, x_mask: Tensor, y_mask: Tensor, iterations: int) -> Tensor:
    """The entropic plan, (batch, x time, y time), of kernels given by their logarithms."""
    # What is not valid has the logarithm of no mass; where a side is empty nothing is moved.
    least = -1e30
    rows, columns = (
        torch.where(mask, -mask.sum(1, keepdim=True).clamp(min=1).to(logs.dtype).log(), least)
        for mask in (x_mask, y_mask)
    )
    of_rows, of_columns = torch.zeros_like(rows), torch.zeros_like(columns)
    valid = x_mask.unsqueeze(2) & y_mask.unsqueeze(1)
    logs = logs.masked_fill(~valid, least)
    for _ in range(iterations):
        of_rows = rows - (logs + of_columns.unsqueeze(1)).logsumexp(2).masked_fill(~x_mask, 0)
        of_columns = columns - (logs + of_rows.unsqueeze(2)).logsumexp(1).masked_fill(~y_mask, 0)
    plan = (logs + of_rows.unsqueeze(2) + of_columns.unsqueeze(1)).masked_fill(~valid, -torch.inf).exp()
    return plan.masked_fill(~valid, 0)
