"""All pairs of tokens of two sequences, tile by tile: memory is linear in both lengths."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from alignmamba.ops.backends import exporting, without_autocast
from alignmamba.ops.sequence import unit_tokens
from alignmamba.ops.transport import nearest_in_time

LEAST = -1e30
"""Logarithm of nothing: finite, so that a sample without any pair has a gradient of zero."""

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Tile:
    """Pairs of some tokens of one side, along the tile, with all that may be their partners, across it."""

    logs: Tensor
    """(batch, rows, columns), logarithms of weights. A step may overwrite them."""
    spare: Tensor
    """(batch, rows, columns), a place that holds nothing."""
    across: slice
    """Tokens of the other side."""
    beside: tuple[Tensor, ...]
    """(batch, time across, ...) tensors that the step asks for."""


class TileStep(ABC):
    """One pass over all pairs: its results for each tile, and their gradient.

    Both are written in place. Large tensors that are made again for each tile, with small ones between them
    that live longer, are never given the same place by glibc, and add up to a matrix of all pairs.
    """

    @abstractmethod
    def value(self, tile: Tile) -> tuple[Tensor, ...]:
        """Results (batch, time along the tile, ...)."""

    @abstractmethod
    def slope(
        self, tile: Tile, results: tuple[Tensor, ...], slopes: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        """Put the gradient of the logarithms in their place; return those of the tensors beside them."""


@dataclass(frozen=True, slots=True)
class LogSumExp(TileStep):
    """Logarithms of sums of ``exp(logs + potential)`` over one dimension of (batch, x time, y time)."""

    dim: int

    def value(self, tile: Tile) -> tuple[Tensor, ...]:
        """(batch, time along the tile) for a potential (batch, time across)."""
        largest, total = exponentials(tile.logs.add_(tile.beside[0].unsqueeze(3 - self.dim)), self.dim)
        return (total.log_().add_(largest).squeeze(self.dim),)

    def slope(
        self, tile: Tile, results: tuple[Tensor, ...], slopes: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        """A softmax, times the slope of its sum."""
        scores = tile.logs.add_(tile.beside[0].unsqueeze(3 - self.dim))
        scores.sub_(results[0].unsqueeze(self.dim)).exp_().mul_(slopes[0].unsqueeze(self.dim))
        return (scores.sum(3 - self.dim),)


def exponentials(scores: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Put exponentials in the place of scores, over that of the largest along `dim`; return the largest, and
    sums of what is there.
    """
    largest = scores.amax(dim, keepdim=True)
    return largest, scores.sub_(largest).exp_().sum(dim, keepdim=True)


class PairLogs:
    """Products ``x_i . y_j`` of all pairs of tokens, the logarithms of their weights.

    Args:
        x: (batch, x time, channel), floating.
        y: (batch, y time, channel), of the same type.
        tile_entries: Most pairs of a tile, over the whole batch.
    """

    scale = 1.0
    """Derivative of a logarithm by the product of its tokens."""

    def __init__(self, x: Tensor, y: Tensor, *, tile_entries: int) -> None:
        self.x, self.y = x, y
        self.tile_entries = tile_entries
        self._rooms: tuple[Tensor, ...] | None = None
        self._place_types: tuple[torch.dtype | None, ...] = (None, None)
        """Types of places for logarithms and for anything; ``None`` is that of the tokens."""

    def logsumexp(self, dim: int, potential: Tensor | None = None) -> Tensor:
        """Logarithms of sums of ``exp(logs + potential)``: over y with `dim` 2, (batch, x time), with a
        potential of y; over x with `dim` 1, (batch, y time), with one of x.
        """
        if potential is None:
            potential = self.x.new_zeros(self.x.shape[0], (self.x, self.y)[dim - 1].shape[1])
        return self.tile_by_tile(LogSumExp(dim), dim, potential)[0]

    def tile_by_tile(self, step: TileStep, dim: int, *beside: Tensor) -> tuple[Tensor, ...]:
        """Results of a step for tiles that together hold all pairs, each with all that are allowed along
        `dim`, joined along the other; and again in the backward pass. The tensors beside them run along
        `dim`. Slopes of results for a token without any pair have to be zero.
        """
        tiled: Callable[..., tuple[Tensor, ...]] = _Tiled.apply
        return tiled(self, step, dim, self.x, self.y, *beside)

    def tiles(self, dim: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of tiles that hold all pairs, each with all that are allowed along `dim`."""
        lengths = self.x.shape[1], self.y.shape[1]
        step = max(1, self.tile_entries // (len(self.x) * lengths[dim - 1]))
        for start in range(0, lengths[2 - dim], step):
            along = slice(start, start + step)
            across = self._reach(along, dim)
            yield (along, across) if dim == 2 else (across, along)

    def tile(self, place: tuple[slice, slice], dim: int, beside: Sequence[Tensor]) -> Tile:
        """The tile of these rows and columns; it overwrites the one before."""
        across = place[dim - 1]
        return Tile(
            logs=self._logs(*place),
            spare=self._places(*place)[1],
            across=across,
            beside=tuple(each[:, across] for each in beside),
        )

    def _logs(self, rows: slice, columns: slice) -> Tensor:
        """(batch, rows, columns), written in place."""
        out = self._places(rows, columns)[0]
        return torch.bmm(self.x[:, rows], self.y[:, columns].transpose(1, 2), out=out)

    def _places(self, rows: slice, columns: slice) -> tuple[Tensor, ...]:
        """Places of one tile, of the types of `_place_types`."""
        if self._rooms is None:
            most = max(self.tile_entries, len(self.x) * max(self.x.shape[1], self.y.shape[1]))
            self._rooms = tuple(self.x.new_empty(most, dtype=dtype) for dtype in self._place_types)
        shape = len(self.x), self.x[:, rows].shape[1], self.y[:, columns].shape[1]
        return tuple(room[: math.prod(shape)].view(shape) for room in self._rooms)

    def _reach(self, along: slice, dim: int) -> slice:  # noqa: ARG002
        """The tokens along `dim` that hold all partners of some tokens of the other side; at least one."""
        return slice(0, (self.x, self.y)[dim - 1].shape[1])


class PairCosts(PairLogs):
    r"""Costs ``C(i, j) = 1 - cos(x_i, y_j) + time_weight * (t_i - t_j)^2`` of all pairs of valid tokens.

    Pairs that fit into one tile are computed once and kept. Of more, each tile is computed when it is used,
    and once more in the backward pass. With a weight of time all is float64: of costs of tokens that lie far
    apart, float32 would keep few digits that content decides.

    Args:
        x: (batch, x time, channel), floating.
        y: (batch, y time, channel), floating.
        x_mask: (batch, x time) bool.
        y_mask: (batch, y time) bool.
        tile_entries: Most pairs of a tile, over the whole batch.
        regularisation: Divisor of costs in logarithms, which are negative costs.
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
        by_time = bool(time_weight) and times is not None
        least = torch.float64 if by_time else torch.float32
        working = torch.promote_types(torch.promote_types(x.dtype, y.dtype), least)
        x, y = (unit_tokens(side.to(working), mask) for side, mask in ((x, x_mask), (y, y_mask)))
        super().__init__(x, y, tile_entries=tile_entries)
        self.masks = x_mask, y_mask
        self.regularisation, self.time_weight, self.scale = regularisation, time_weight, 1 / regularisation
        # What is not valid may have any time, even none.
        self.times = times and tuple(
            when.double().masked_fill(~mask, 0) for when, mask in zip(times, self.masks, strict=True)
        )
        self.window = None
        if times is not None and window is not None and window < y.shape[1] - 1:
            nearest = nearest_in_time(times[0].double(), times[1].double(), y_mask)
            self.window = nearest - window, nearest + window
        self._place_types += (torch.bool, torch.bool)  # of `forbidden`
        self.again = passes > 2
        # A program that is exported may not loop as often as a length says.
        self.whole = exporting() or x.shape[0] * x.shape[1] * y.shape[1] <= tile_entries
        self.kept = self._computed(slice(None), slice(None)) if self.whole else None
        """(batch, x time, y time), costs of all pairs, whatever where a token is not valid; ``None`` where
        they do not fit into a tile."""

    def logsumexp(self, dim: int, potential: Tensor | None = None) -> Tensor:
        """Logarithms of sums as those of `PairLogs`, over the pairs that are allowed."""
        if self.kept is None:
            return super().logsumexp(dim, potential)

        def of_kept() -> Tensor:
            logs = self.logs()
            if potential is not None:
                logs = logs + potential.unsqueeze(3 - dim)
            total: Tensor = logs.logsumexp(dim)
            return total

        return self.of_kept(of_kept)

    def of_kept(self, function: Callable[[], ValueT]) -> ValueT:
        """Value of a function of pairs that are kept; with many passes, again in the backward pass."""
        if not self.again or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return function()
        found: ValueT = checkpoint(function, use_reentrant=False, preserve_rng_state=False)
        return found

    def logs(self) -> Tensor:
        """(batch, x time, y time), negative costs over the regularisation; `LEAST` where not allowed."""
        assert self.kept is not None
        return (-self.kept / self.regularisation).masked_fill(self.forbidden(), LEAST)

    def forbidden(self, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """(batch, rows, columns) bool: pairs with a token that is not valid, or outside of the window."""
        places = (None, None) if self.whole else self._places(rows, columns)[2:4]
        own, other = ~self.masks[0][:, rows].unsqueeze(2), ~self.masks[1][:, columns].unsqueeze(1)
        found = torch.logical_or(own, other, out=places[0])
        if self.window is None:
            return found
        column = torch.arange(self.y.shape[1], device=found.device)[columns]
        first, last = (edge[:, rows].unsqueeze(2) for edge in self.window)
        found.logical_or_(torch.lt(column, first, out=places[1]))
        return found.logical_or_(torch.gt(column, last, out=places[1]))

    def _logs(self, rows: slice, columns: slice) -> Tensor:
        """(batch, rows, columns), written in place; `LEAST` where not allowed."""
        logs = self._computed(rows, columns).div_(-self.regularisation)
        return logs.masked_fill_(self.forbidden(rows, columns), LEAST)

    def _computed(self, rows: slice, columns: slice) -> Tensor:
        """(batch, rows, columns) costs, with gradient where they are kept."""
        costs, spare = (None, None) if self.whole else self._places(rows, columns)[:2]
        found = torch.bmm(self.x[:, rows], self.y[:, columns].transpose(1, 2), out=costs).neg_().add_(1)
        if self.time_weight and self.times:
            own, other = self.times[0][:, rows].unsqueeze(2), self.times[1][:, columns].unsqueeze(1)
            found.add_(torch.sub(own, other, out=spare).square_().mul_(self.time_weight))
        return found

    def _reach(self, along: slice, dim: int) -> slice:
        """The tokens along `dim` that hold all partners of some tokens of the other side; at least one."""
        if self.window is None:
            return super()._reach(along, dim)
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


class _Tiled(torch.autograd.Function):
    """A step for every tile, and each tile once more in the backward pass."""

    @staticmethod
    def forward(ctx: Any, pairs: PairLogs, step: TileStep, dim: int, *tensors: Tensor) -> Any:
        beside = tensors[2:]
        found = [step.value(pairs.tile(place, dim, beside)) for place in pairs.tiles(dim)]
        results = tuple(torch.cat(each, 1) for each in zip(*found, strict=True))
        ctx.pairs, ctx.step, ctx.dim, ctx.number = pairs, step, dim, len(beside)
        ctx.save_for_backward(*beside, *results)
        ctx.mark_non_differentiable(*(each for each in results if not each.is_floating_point()))
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        pairs, dim, saved = ctx.pairs, ctx.dim, ctx.saved_tensors
        beside, results = saved[: ctx.number], saved[ctx.number :]
        by_x, by_y, *by_beside = (torch.zeros_like(each) for each in (pairs.x, pairs.y, *beside))
        with without_autocast(pairs.x.device):
            for place in pairs.tiles(dim):
                tile, along = pairs.tile(place, dim, beside), place[2 - dim]
                theirs = (tuple(each[:, along] for each in group) for group in (results, slopes))
                found = ctx.step.slope(tile, *theirs)
                for total, part in zip(by_beside, found, strict=True):
                    if part is not None:
                        total[:, tile.across] += part
                rows, columns = place
                by_x[:, rows].baddbmm_(tile.logs, pairs.y[:, columns], alpha=pairs.scale)
                by_y[:, columns].baddbmm_(tile.logs.transpose(1, 2), pairs.x[:, rows], alpha=pairs.scale)
        return None, None, None, by_x, by_y, *by_beside
