"""Recurrent networks over masked sequences: what stands behind the last valid token is never read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from alignmamba.ops.backends import exporting
from alignmamba.ops.sequence import check_mask, reverse_valid

Cell = Literal["lstm", "gru"]


@dataclass(frozen=True, slots=True)
class States:
    """Output of a recurrent network for a batch of sequences."""

    tokens: Tensor
    """(batch, time, directions * hidden): states of the last layer; zero where not valid."""
    final: Tensor
    """(batch, directions * hidden): its states after the last valid token and, if bidirectional, after the
    first; zero for a sample without a valid token."""


class Recurrent(nn.Module):
    """An LSTM or GRU over the valid tokens of each sample.

    Args:
        width: Channels of a token.
        hidden: Width of the state of one direction.
        depth: Layers.
        dropout: Between layers.
        bidirectional: Read from both ends.
        cell: Kind of recurrence.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        depth: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        cell: Cell = "lstm",
    ) -> None:
        super().__init__()
        make = nn.LSTM if cell == "lstm" else nn.GRU
        between = dropout if depth > 1 else 0.0
        self.cells = make(
            width, hidden, depth, batch_first=True, dropout=between, bidirectional=bidirectional
        )
        self.width = hidden * (2 if bidirectional else 1)

    def forward(self, x: Tensor, mask: Tensor) -> States:
        """Read the valid tokens.

        Args:
            x: (batch, time, width).
            mask: (batch, time) bool, valid tokens first.

        Raises:
            ShapeError: If `mask` does not fit `x`.
        """
        check_mask("mask", mask, x)
        if x.shape[1] == 0:
            return States(x.new_zeros(x.shape[0], 0, self.width), x.new_zeros(x.shape[0], self.width))
        if exporting():
            return self._scanned(x, mask)
        valid = mask.unsqueeze(-1)
        # a packed sequence holds no empty sample, and wants lengths on the CPU
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(
            x.masked_fill(~valid, 0), lengths, batch_first=True, enforce_sorted=False
        )
        states, last = self.cells(packed)
        tokens, _ = pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        hidden = last[0] if isinstance(last, tuple) else last  # of an LSTM, with the contents of its cells
        final = torch.cat(list(hidden[-2 if self.cells.bidirectional else -1 :]), 1)
        return States(tokens.masked_fill(~valid, 0), final.masked_fill(~mask.any(1, keepdim=True), 0))

    def _scanned(self, x: Tensor, mask: Tensor) -> States:
        """Read as `forward` does, without dropout, in a way that exports with a free length."""
        weights = dict(self.cells.named_parameters())
        valid = mask.unsqueeze(-1)
        final: list[Tensor] = []
        for layer in range(self.cells.num_layers):
            x, read, final = x.masked_fill(~valid, 0), [], []
            for way in ("", "_reverse") if self.cells.bidirectional else ("",):
                own = {
                    name.removesuffix(f"_l{layer}{way}"): weight
                    for name, weight in weights.items()
                    if name.endswith(f"_l{layer}{way}")
                }
                tokens, last = _scan(reverse_valid(x, mask) if way else x, mask, own)
                read.append(reverse_valid(tokens, mask) if way else tokens)
                final.append(last)
            x = torch.cat(read, 2)
        return States(x.masked_fill(~valid, 0), torch.cat(final, 1))


def _scan(x: Tensor, mask: Tensor, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """States of one direction of a layer, (batch, time, hidden), and the last, by PyTorch's higher-order
    scan: the equations of `torch.nn.LSTM` and `torch.nn.GRU`.
    """
    from torch._higher_order_ops.scan import scan

    inner, bias = weights["weight_hh"], weights["bias_hh"]
    hidden = inner.shape[1]
    is_lstm = inner.shape[0] == 4 * hidden

    def step(before: tuple[Tensor, Tensor], token: tuple[Tensor, Tensor]) -> tuple[Any, Tensor]:
        state, cell = before
        given, valid = token
        own = F.linear(state, inner, bias)
        if is_lstm:
            i, f, g, o = (given + own).chunk(4, 1)
            after = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            said = o.sigmoid() * after.tanh()
        else:
            reset, update = (given + own)[:, : 2 * hidden].sigmoid().chunk(2, 1)
            said = (given[:, 2 * hidden :] + reset * own[:, 2 * hidden :]).tanh()
            said = after = said + update * (state - said)
        said, after = torch.where(valid, said, state), torch.where(valid, after, cell)
        return (said, after.clone()), said.clone()

    given = F.linear(x, weights["weight_ih"], weights["bias_ih"]).transpose(0, 1)
    zero = given.new_zeros(x.shape[0], hidden)
    (last, _), tokens = scan(step, (zero, zero.clone()), (given, mask.T.unsqueeze(2)), dim=0)
    return tokens.transpose(0, 1), last


class LastState(nn.Module):
    """A sequence as one vector: a linear map of the last state of an LSTM, as in TFN, Self-MM and MMIM.

    Args:
        width: Channels of a token.
        hidden: Width of the state of one direction.
        out: Width of the vector.
        depth: Layers.
        dropout: Of the last state, and between layers.
        bidirectional: Read from both ends.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        out: int,
        *,
        depth: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.recurrent = Recurrent(width, hidden, depth=depth, dropout=dropout, bidirectional=bidirectional)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(self.recurrent.width, out)
        self.width = out

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width) with a mask to (batch, out)."""
        vector: Tensor = self.project(self.dropout(self.recurrent(x, mask).final))
        return vector


class ReadTwice(nn.Module):
    """Two bidirectional layers with a norm between them, and the final states of both as one vector; as in
    MISA.

    Args:
        width: Channels of a token.
        hidden: Width of the state of one direction.
        cell: Kind of recurrence.
    """

    def __init__(self, width: int, hidden: int, *, cell: Cell = "lstm") -> None:
        super().__init__()
        self.first = Recurrent(width, hidden, bidirectional=True, cell=cell)
        self.norm = nn.LayerNorm(2 * hidden)
        self.second = Recurrent(2 * hidden, hidden, bidirectional=True, cell=cell)
        self.width = 4 * hidden

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width) with a mask to (batch, 4 * hidden): both layers forward, both backward."""
        first = self.first(x, mask)
        second = self.second(self.norm(first.tokens), mask)
        return torch.cat([states.final.unflatten(1, (2, -1)) for states in (first, second)], 2).flatten(1)
