"""Costs of all pairs of tokens of two sequences, tile by tile: memory is linear in both lengths."""

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alignmamba.ops.backends import exporting, without_autocast
from alignmamba.ops.sequence import unit_tokens
from alignmamba.ops.transport import nearest_in_time

LEAST = -1e30
"""Logarithm of nothing: finite, so that a sample without any pair has a gradient of zero."""


OfTile = Callable[..., tuple[Tensor, ...]]
"""Function of pairs, rows, columns and tensors beside them: results (batch, time along the tile, ...)."""


class PairCosts:
    r"""Costs ``C(i, j) = 1 - cos(x_i, y_j) + time_weight * (t_i - t_j)^2`` of all pairs of valid tokens.

    Pairs that fit into one tile are computed once and kept. Of more, each tile is computed when it is used,
    and once more in the backward pass.

    Args:
        x: (batch, x time, channel), floating.
        y: (batch, y time, channel), floating.
        x_mask: (batch, x time) bool.
        y_mask: (batch, y time) bool.
        tile_entries: Most pairs of a tile, over the whole batch.
        regularisation: Divisor of costs in `logs`.
        time_weight: Weight of the squared time difference.
        times: (batch, x time) and (batch, y time), where the weight or the window asks for them.
        window: Allow only pairs with at most this many positions between ``j`` and the token of y nearest in
            time to ``i``.
        passes: Number of times that all pairs are used; with more than 2, what a pass makes of pairs that are
            kept is computed again in the backward pass too.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        x_mask: Tensor,
        y_mask: Tensor,
        *,
        tile_entries: int,
        regularisation: float,
        time_weight: float = 0.0,
        times: tuple[Tensor, Tensor] | None = None,
        window: int | None = None,
        passes: int = 2,
    ) -> None:
        working = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        self.x, self.y = (unit_tokens(side.to(working), mask) for side, mask in ((x, x_mask), (y, y_mask)))
        self.masks = x_mask, y_mask
        self.regularisation, self.time_weight = regularisation, time_weight
        # What is not valid may have any time, even none.
        self.times = times and tuple(
            when.double().masked_fill(~mask, 0) for when, mask in zip(times, self.masks, strict=True)
        )
        self.window = None
        if times is not None and window is not None and window < y.shape[1] - 1:
            nearest = nearest_in_time(times[0].double(), times[1].double(), y_mask)
            self.window = nearest - window, nearest + window
        # A program that is exported may not loop as often as a length says.
        whole = exporting() or len(x) * x.shape[1] * y.shape[1] <= tile_entries
        self.kept = self._computed(slice(None), slice(None)) if whole else None
        self.again = not whole or passes > 2
        self.tile_entries = tile_entries

    def costs(self, rows: slice, columns: slice) -> Tensor:
        """(batch, rows, columns), the costs of a tile, with gradient; whatever where a token is not valid."""
        return self._computed(rows, columns) if self.kept is None else self.kept

    def _computed(self, rows: slice, columns: slice) -> Tensor:
        found = 1 - self.x[:, rows] @ self.y[:, columns].transpose(1, 2)
        if self.time_weight and self.times:
            apart = self.times[0][:, rows].unsqueeze(2) - self.times[1][:, columns].unsqueeze(1)
            found = found + self.time_weight * apart.to(found.dtype).square()
        return found

    def allowed(self, rows: slice, columns: slice) -> Tensor:
        """(batch, rows, columns) bool: pairs of valid tokens within the window."""
        found = self.masks[0][:, rows].unsqueeze(2) & self.masks[1][:, columns].unsqueeze(1)
        if self.window is None:
            return found
        column = torch.arange(self.y.shape[1], device=found.device)[columns]
        first, last = (edge[:, rows].unsqueeze(2) for edge in self.window)
        return found & (column >= first) & (column <= last)

    def logs(self, rows: slice, columns: slice) -> Tensor:
        """(batch, rows, columns), costs of a tile over the regularisation, negative; `LEAST` where not
        allowed.
        """
        return (-self.costs(rows, columns) / self.regularisation).masked_fill(
            ~self.allowed(rows, columns), LEAST
        )

    def logsumexp(self, dim: int, potential: Tensor | None = None) -> Tensor:
        """Logarithms of sums of ``exp(logs + potential)``: over y with `dim` 2, (batch, x time), with a
        potential of y; over x with `dim` 1, (batch, y time), with one of x.
        """

        def of_tile(pairs: PairCosts, rows: slice, columns: slice, *potentials: Tensor) -> tuple[Tensor]:
            logs = pairs.logs(rows, columns)
            for each in potentials:
                logs = logs + (each[:, columns].unsqueeze(1) if dim == 2 else each[:, rows].unsqueeze(2))
            return (logs.logsumexp(dim),)

        return self.tile_by_tile(of_tile, dim, *(() if potential is None else (potential,)))[0]

    def tile_by_tile(self, function: OfTile, dim: int, *beside: Tensor) -> tuple[Tensor, ...]:
        """Results of a function of these pairs, rows, columns and the tensors beside them, for tiles that
        together hold all pairs, each with all that are allowed along `dim`; joined along the other.
        """
        if self.again and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            recompute: Callable[..., tuple[Tensor, ...]] = _Recomputed.apply
            return recompute(self, function, dim, *self._tensors, *beside)
        parts = [function(self, *tile, *beside) for tile in self.tiles(dim)]
        return tuple(torch.cat(each, 1) for each in zip(*parts, strict=True))

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        """Tensors that costs are computed from."""
        return (self.x, self.y) if self.kept is None else (self.kept,)

    def of(self, *tensors: Tensor) -> "PairCosts":
        """These pairs with other tensors in place of those that costs are computed from."""
        found = copy(self)
        if self.kept is None:
            found.x, found.y = tensors
        else:
            (found.kept,) = tensors
        return found

    def tiles(self, dim: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of tiles that hold all pairs, each with all that are allowed along `dim`."""
        if self.kept is not None:
            yield slice(None), slice(None)
            return
        lengths = self.x.shape[1], self.y.shape[1]
        step = max(1, self.tile_entries // (len(self.x) * lengths[dim - 1]))
        for start in range(0, lengths[2 - dim], step):
            along = slice(start, start + step)
            across = self._reach(along, dim)
            yield (along, across) if dim == 2 else (across, along)

    def _reach(self, along: slice, dim: int) -> slice:
        """The tokens along `dim` that hold all partners of some tokens of the other side; at least one."""
        if self.window is None:
            return slice(0, (self.x, self.y)[dim - 1].shape[1])
        first, last = self.window
        if dim == 2:
            used = self.masks[0][:, along]
            edges = first[:, along][used], last[:, along][used]
        else:
            stop = min(along.stop, self.y.shape[1])
            used = (self.masks[0] & (first < stop) & (last >= along.start)).nonzero()[:, 1]
            edges = used, used
        if not edges[0].numel():
            return slice(0, 1)
        return slice(max(0, int(edges[0].min())), int(edges[1].max()) + 1)


class _Recomputed(torch.autograd.Function):
    """Results tile by tile, and each tile once more in the backward pass.

    One node of the graph for all tiles: what lives longer than a tile, between the large pieces that do not,
    would keep the allocator from using those again.
    """

    @staticmethod
    def forward(ctx: Any, pairs: PairCosts, function: OfTile, dim: int, *tensors: Tensor) -> Any:
        ctx.pairs, ctx.function, ctx.dim = pairs, function, dim
        ctx.save_for_backward(*tensors)
        parts = [function(pairs, *tile, *tensors[len(pairs._tensors) :]) for tile in pairs.tiles(dim)]
        ctx.sizes = [each[0].shape[1] for each in parts]
        found = tuple(torch.cat(each, 1) for each in zip(*parts, strict=True))
        ctx.mark_non_differentiable(*(each for each in found if not each.is_floating_point()))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        pairs, needed, own = ctx.pairs, ctx.needs_input_grad[3:], len(ctx.pairs._tensors)
        wanted = [number for number, need in enumerate(needed) if need]
        totals = [torch.zeros_like(ctx.saved_tensors[number]) for number in wanted]
        start = 0
        for tile, size in zip(pairs.tiles(ctx.dim), ctx.sizes, strict=True):
            leaves = [each.detach() for each in ctx.saved_tensors]
            learning = [leaves[number].requires_grad_() for number in wanted]
            with torch.enable_grad(), without_autocast(pairs.x.device):
                found = ctx.function(pairs.of(*leaves[:own]), *tile, *leaves[own:])
            moved = [each for each in found if each.requires_grad]
            given = [
                slope[:, start : start + size]
                for each, slope in zip(found, slopes, strict=True)
                if each.requires_grad
            ]
            gradients = torch.autograd.grad(moved, learning, given, allow_unused=True)
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:
                    total += gradient
            start += size
        rest = iter(totals)
        return None, None, None, *(next(rest) if need else None for need in needed)
