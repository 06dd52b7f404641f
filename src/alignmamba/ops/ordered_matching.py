"""Matching that keeps the order of both sequences: the best way through them, by Viterbi's algorithm."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from alignmamba.errors import ShapeError
from alignmamba.ops.backends import without_autocast
from alignmamba.ops.transport import check_sides


def match_in_order(
    source: Tensor,
    anchor: Tensor,
    source_mask: Tensor,
    anchor_mask: Tensor,
    *,
    bias: Tensor | None = None,
    free_ends: bool = False,
) -> Tensor:
    r"""Match every source token with an anchor token so that neither order is broken and none is passed over.

    Among all paths ``j(1) <= j(2) <= ...`` that begin at the first anchor token, move on by one or stay, and
    end at the last, take the one of the largest sum of ``source_i . anchor_j(i) + bias_j(i)``. Among equals
    it is the one that moves on earliest. No gradient flows through the result. Time is O(source *
    anchor * channel); memory is O(sqrt(source) * anchor) beside the tokens.

    Args:
        source: (batch, source time, channel), floating, finite where valid.
        anchor: (batch, anchor time, channel), likewise.
        source_mask: (batch, source time) bool, valid tokens first.
        anchor_mask: (batch, anchor time) bool, valid tokens first.
        bias: (batch, anchor time) added to what each match with an anchor token is worth; zero if not given.
        free_ends: Let the path begin at the second anchor token too, and end at the last but one: the ends
            may stand for silence, which a sample need not have.

    Returns:
        (batch, source time) int64, the matched anchor token; -1 at padding, and throughout a sample without
        such a path: one with fewer source tokens than anchor tokens to visit, or with none.

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit; on the CPU also if a valid token follows one that
            is not.

    Source:
        Viterbi, 1967, doi:10.1109/TIT.1967.1054010, over a left-to-right chain (Rabiner, 1989,
        doi:10.1109/5.18626, section IV); checkpoints after Griewank, 1992, doi:10.1080/10556789208805505.
    """
    check_sides(source, anchor, source_mask, anchor_mask)
    if bias is not None and (bias.shape != anchor_mask.shape or not bias.is_floating_point()):
        raise ShapeError(
            f"bias: expected floating of shape {tuple(anchor_mask.shape)}, found {bias.dtype} of shape"
            f" {tuple(bias.shape)}"
        )
    if source.shape[1] == 0 or anchor.shape[1] == 0:
        return source_mask.new_full(source_mask.shape, -1, dtype=torch.int64)
    with torch.no_grad(), without_autocast(source.device):
        return _Chain(source, anchor, source_mask, anchor_mask, bias, free_ends).best_path()


class _Chain:
    """Source tokens over anchor tokens as states of a chain."""

    def __init__(
        self,
        source: Tensor,
        anchor: Tensor,
        source_mask: Tensor,
        anchor_mask: Tensor,
        bias: Tensor | None,
        free_ends: bool,
    ) -> None:
        self.source, self.anchor = (
            x.double().masked_fill(~mask.unsqueeze(-1), 0)
            for x, mask in ((source, source_mask), (anchor, anchor_mask))
        )
        self.source_mask = source_mask
        self.bias = anchor_mask.new_zeros(anchor_mask.shape, dtype=torch.float64) if bias is None else bias
        self.bias = self.bias.double().masked_fill(~anchor_mask, 0).unsqueeze(1)
        self.last = (anchor_mask.sum(1) - 1).clamp(min=0)
        self.some = source_mask.any(1) & anchor_mask.any(1)
        self.free_ends = free_ends
        self.time = source.shape[1]
        self.block = math.isqrt(self.time - 1) + 1

    def best_path(self) -> Tensor:
        """(batch, source time) int64: block by block from the end, each computed again from its start."""
        starts = [self._first()]
        for at in range(0, self.time - self.block, self.block):
            starts.append(self._block(at, starts[-1])[0])
        final = self._block((len(starts) - 1) * self.block, starts[-1])[0]
        state, reached = self._ends(final)
        index = torch.empty_like(self.source_mask, dtype=torch.int64)
        while starts:
            at = (len(starts) - 1) * self.block
            moves = self._block(at, starts.pop())[1]
            for row in reversed(range(len(moves))):
                index[:, at + row] = state
                state = state - moves[row].gather(1, state.unsqueeze(1)).squeeze(1).long()
        return index.masked_fill(~(self.source_mask & reached.unsqueeze(1)), -1)

    def _first(self) -> Tensor:
        """(batch, anchor time) worth of paths before the first source token: nothing where they may begin."""
        begin = torch.full_like(self.bias[:, 0], -torch.inf)
        begin[:, : 2 if self.free_ends else 1] = 0
        return begin

    def _block(self, at: int, worth: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Worth of the best paths to each state after a block of source tokens, and for each of these whether
        the path moved on to the state there.
        """
        rows = slice(at, at + self.block)
        scores = self.source[:, rows] @ self.anchor.transpose(1, 2) + self.bias
        moves = []
        for row, (score, live) in enumerate(
            zip(scores.unbind(1), self.source_mask[:, rows].unbind(1), strict=True)
        ):
            live = live.unsqueeze(1)
            from_before = F.pad(worth[:, :-1], (1, 0), value=-torch.inf)
            moved = (from_before > worth) & live if at + row else torch.zeros_like(live).expand_as(worth)
            worth = torch.where(live, torch.where(moved, from_before, worth) + score, worth)
            moves.append(moved)
        return worth, moves

    def _ends(self, worth: Tensor) -> tuple[Tensor, Tensor]:
        """(batch,) state in which the best path ends, and whether there is such a path."""
        state = self.last
        value = worth.gather(1, state.unsqueeze(1)).squeeze(1)
        if self.free_ends:
            before = (state - 1).clamp(min=0)
            other = worth.gather(1, before.unsqueeze(1)).squeeze(1)
            state = torch.where(other > value, before, state)
            value = value.maximum(other)
        return state, (value > -torch.inf) & self.some
