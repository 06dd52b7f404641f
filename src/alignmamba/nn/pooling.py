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
