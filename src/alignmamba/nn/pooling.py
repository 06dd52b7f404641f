"""Pooling of a sequence to one vector, whole or token by token."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignmamba.ops import last_valid, masked_max, masked_mean

Pooling = Literal["mean", "max", "last"]

POOLINGS = {"mean": masked_mean, "max": masked_max, "last": last_valid}


@dataclass(frozen=True, slots=True)
class PooledState:
    """A pooling of the tokens so far."""

    value: Tensor
    """(batch, channel)."""
    count: Tensor
    """(batch,), tokens so far."""


def pool_step(pooling: Pooling, state: PooledState, token: Tensor) -> PooledState:
    """Pool one more token, (batch, channel)."""
    count = state.count + 1
    if pooling == "mean":
        return PooledState(state.value + (token - state.value) / count.unsqueeze(1), count)
    largest = torch.where(state.count.unsqueeze(1) == 0, token, torch.maximum(state.value, token))
    return PooledState(largest if pooling == "max" else token, count)


def moments_and_ends(x: Tensor, mask: Tensor) -> Tensor:
    """Mean, standard deviation, minimum and maximum over the valid tokens of each sample.

    Args:
        x: (batch, time, channel).
        mask: (batch, time) bool, valid tokens.

    Returns:
        (batch, 4 * channel), the means of all channels first; zeros for a sample without a valid token.
    """
    valid, some = mask.unsqueeze(-1), mask.any(1, keepdim=True)
    if x.shape[1] == 0:
        return x.new_zeros(x.shape[0], 4 * x.shape[2])
    mean = masked_mean(x, mask)
    deviation = masked_mean((x - mean.unsqueeze(1)).square(), mask).sqrt()
    least, greatest = (x.masked_fill(~valid, end) for end in (torch.inf, -torch.inf))
    return torch.cat([mean, deviation, least.amin(1), greatest.amax(1)], 1).masked_fill(~some, 0)


def token_counts(ids: Tensor, mask: Tensor, vocabulary: int) -> Tensor:
    """Count of each token id in a sample, as log(1 + count).

    Args:
        ids: (batch, time) int64, from 0 to vocabulary - 1 where valid.
        mask: (batch, time) bool, valid tokens.
        vocabulary: Number of ids.

    Returns:
        (batch, vocabulary) float32.
    """
    counts = torch.zeros(ids.shape[0], vocabulary, device=ids.device)
    return counts.scatter_add_(1, ids.masked_fill(~mask, 0), mask.float()).log1p()
