"""Random tokens, times and masks for the tests of operators, the same under each seed."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rising(*shape: int, seed: int = 0) -> Tensor:
    """Numbers from 0 to 1 in float64 that do not decrease along the second dimension."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).sort(1)[0]


def prefix_mask(lengths: list[int], time: int) -> Tensor:
    """(sample, time) bool, so many valid tokens first."""
    return torch.arange(time) < torch.tensor(lengths).unsqueeze(1)


def spoiled(x: Tensor, mask: Tensor, more: int) -> tuple[Tensor, Tensor]:
    """Tokens, (sample, time, channel), with so much more padding, and their mask; NaN where they are not
    valid, infinity in what is added.
    """
    filled = x.masked_fill(~mask.unsqueeze(2), math.nan)
    return F.pad(filled, (0, 0, 0, more), value=math.inf), F.pad(mask, (0, more))
