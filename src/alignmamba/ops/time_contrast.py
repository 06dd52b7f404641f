"""Contrast over time: tokens of two sequences that happen together attract, those of other times repel."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from alignmamba.errors import ConfigError
from alignmamba.ops.backends import without_autocast
from alignmamba.ops.pair_tiles import PairCosts
from alignmamba.ops.sequence import masked_mean
from alignmamba.ops.transport import check_sides, checked_times, nearest_in_time

Among = Literal["sample", "batch"]

# Pairs of one tile over the whole batch: 8 MB in float32, whatever the lengths.
_TILE_ENTRIES = 2**21


def time_contrast(
    source: Tensor,
    anchor: Tensor,
    source_mask: Tensor,
    anchor_mask: Tensor,
    *,
    reach: int = 1,
    temperature: float = 0.07,
    among: Among = "sample",
    source_times: Tensor | None = None,
    anchor_times: Tensor | None = None,
) -> Tensor:
    r"""Loss under which content alone finds the token of the other sequence that happens at the same time.

    With ``s(i, j) = cos(source_i, anchor_j) / temperature``, a source token's loss is the mean over its
    partners ``j`` of ``logsumexp_k s(i, k) - s(i, j)``. Its partners are the anchor token nearest in time and
    `reach` tokens on either side of it. The result is the mean over source tokens, plus the same with the
    sides exchanged. The sum over ``k`` is that of all anchor tokens of the sample, or of all samples of the
    batch. Memory is linear in the number of tokens; time is O(source * anchor * channel), among the batch as
    many times more as it has samples.

    Args:
        source: (batch, source time, channel), floating.
        anchor: (batch, anchor time, channel), of the same dtype.
        source_mask: (batch, source time) bool, valid tokens first.
        anchor_mask: (batch, anchor time) bool, valid tokens first.
        reach: Number of neighbours of the nearest token that count as partners too, on either side.
        temperature: Divisor of cosines; the smaller, the more the likest wrong token counts.
        among: Tokens that repel: those of the ``sample`` or of the ``batch``. With ``batch`` the loss of a
            sample depends on its company.
        source_times: (batch, source time), not decreasing; position from 0 to 1 if not given.
        anchor_times: (batch, anchor time), in the same unit; given exactly when that is.

    Returns:
        (batch,), at least float32; zero for a sample where a side has no valid token.

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit; on the CPU also if times decrease.
        ConfigError: If `reach` is negative, `temperature` is not positive and finite, `among` is another
            name, or one of the times is missing.

    Source:
        InfoNCE (van den Oord et al., 2018, arXiv:1807.03748, eq. 4) over times of one sample, with the mean
        over partners of Khosla et al., 2020, arXiv:2004.11362, eq. 2; not in Li et al., arXiv:2412.00833.
    """
    check_sides(source, anchor, source_mask, anchor_mask)
    if reach < 0:
        raise ConfigError(f"reach: expected at least 0, found {reach}")
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"temperature: expected a positive number, found {temperature}")
    if among not in get_args(Among):
        raise ConfigError(f"among: expected one of {list(get_args(Among))}, found {among!r}")
    times = checked_times(source_times, anchor_times, source_mask, anchor_mask, both_in_order=True)
    working = torch.promote_types(source.dtype, torch.float32)
    if 0 in (*source.shape[:2], anchor.shape[1]):
        return source.new_zeros(len(source), dtype=working)
    with without_autocast(source.device):
        # Cosines and costs differ in sign and by a constant, which a loss of differences does not see.
        given, masks = [source, anchor, source_mask, anchor_mask], (source_mask, anchor_mask)
        if among == "batch":  # is one long sample
            given = [each.flatten(0, 1).unsqueeze(0) for each in given]
        pairs = PairCosts(*given, tile_entries=_TILE_ENTRIES, regularisation=temperature)
        here, there = (
            _Side(x.view(*mask.shape, -1), mask, when.double())
            for x, mask, when in zip((pairs.x, pairs.y), masks, times, strict=True)
        )
        one_way, other_way = (
            _one_way(*sides, pairs.logsumexp(dim).view(sides[0].mask.shape), reach, temperature)
            for sides, dim in (((here, there), 2), ((there, here), 1))
        )
        return one_way + other_way


@dataclass(frozen=True, slots=True)
class _Side:
    """Unit tokens of one sequence, zero where not valid, their mask and their times."""

    x: Tensor
    mask: Tensor
    times: Tensor


def _one_way(here: _Side, there: _Side, partition: Tensor, reach: int, temperature: float) -> Tensor:
    """(batch,), mean over the tokens of `here` of their loss, given their sums over what repels them."""
    nearest = nearest_in_time(here.times, there.times, there.mask)
    last = (there.mask.sum(1, keepdim=True) - 1).clamp(min=0)
    low, high = (nearest - reach).clamp(min=0), (nearest + reach).minimum(last)
    # Sums of neighbours as differences of running sums, which lose digits in single precision.
    running = F.pad(there.x.double().cumsum(1), (0, 0, 1, 0))
    partners = (_rows(running, high + 1) - _rows(running, low)) / (high + 1 - low).unsqueeze(-1)
    near = ((here.x * partners.to(here.x.dtype)).sum(2) - 1) / temperature
    valid = here.mask & there.mask.any(1, keepdim=True)
    return masked_mean((partition - near).unsqueeze(2), valid).squeeze(1)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """(batch, rows, channel), the tokens of each index."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[2]))
