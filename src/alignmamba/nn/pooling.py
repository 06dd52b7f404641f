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
    count: int
    """Tokens so far."""


def pool_step(pooling: Pooling, state: PooledState | None, token: Tensor) -> PooledState:
    """Pool one more token, (batch, channel)."""
    if state is None:
        return PooledState(token, 1)
    count = state.count + 1
    if pooling == "mean":
        return PooledState(state.value + (token - state.value) / count, count)
    return PooledState(torch.maximum(state.value, token) if pooling == "max" else token, count)
