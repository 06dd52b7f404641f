"""Matching on the CPU: a search in single precision, decided in double.

Similarities come tile by tile from the matrix product of PyTorch, a kernel compiled by numba looks at each
tile while it is in the cache, and the similarity matrix is never held. Single precision only narrows the
choice: every anchor token whose score lies within the rounding error of the best one is compared again in
double precision, so the result is that of the reference.
"""

import math
from functools import partial

import numpy as np
import torch
from numba import njit
from torch import Tensor

from alignmamba.ops.cpu.compilation import AS_WRITTEN, EXTREMES, array, kernel
from alignmamba.ops.cpu.elementary import ZERO

_TILE_ENTRIES = 2**18
"""Similarities held at once: 1 MB, which stays in the second cache."""
_BLOCK_ROWS = 256
_NARROW_BLOCK_ROWS = 64
"""Source tokens of a tile where each has less than `_NARROW` candidates: their windows then overlap well."""
_NARROW = 512
_RIVALS = 8
"""Anchor tokens within rounding of the best that are remembered for a source token; one with more is matched
by the reference."""


def match(
    source: Tensor,
    anchor: Tensor,
    first: Tensor,
    last: Tensor,
    source_times: Tensor,
    anchor_times: Tensor,
    time_weight: float,
    tie: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best anchor token of each source token among candidates `first` to `last`.

    Args:
        source: (batch, n, channel), float32 or float64.
        anchor: (batch, m, channel), of the same dtype.
        first: (batch, n) int64, the first candidate of each source token.
        last: (batch, n) int64, one past its last candidate; none where not above `first`.
        source_times: (batch, n) float64.
        anchor_times: (batch, m) float64.
        time_weight: Weight of the squared time difference.
        tie: Scores are compared as multiples of this.

    Returns:
        index (batch, n) int64, -1 without a candidate; the cosine of each pair, float64; and which source
        tokens have too many anchor tokens within rounding of the best, (batch, n) bool: their index is not to
        be used.
    """
    batch, n, channels = source.shape
    m = anchor.shape[1]
    units, lengths = zip(*(_normalised(tokens) for tokens in (source, anchor)), strict=True)
    best = np.full((batch, n), -np.inf, np.float32)
    rivals, scores = np.zeros((batch, n, _RIVALS), np.int64), np.zeros((batch, n, _RIVALS), np.float32)
    count = np.zeros((batch, n), np.int64)
    # Rounding of a product of `channels` terms, twice, and of the single-precision copies.
    margin = np.float32(2 * (channels + 8) * 2.0**-24)
    candidates = (
        array(first),
        array(last),
        array(source_times),
        array(anchor_times),
        float(time_weight),
        margin,
    )
    found = (best, rivals, scores, count)
    memory = torch.empty(_TILE_ENTRIES, dtype=torch.float32, device="cpu")
    for samples, rows, columns in _tiles(batch, n, m, first, last):
        x, y = units[0][samples, rows], units[1][samples, columns]
        shape = (len(x), x.shape[1], y.shape[1])
        tile = torch.bmm(x, y.transpose(1, 2), out=memory[: math.prod(shape)].view(shape))
        _search(tile.numpy(), samples.start, rows.start, columns.start, *candidates, *found)
    index, similarity, crowded = (
        np.full((batch, n), -1, np.int64),
        np.zeros((batch, n)),
        np.zeros((batch, n), np.bool_),
    )
    tokens = tuple(array(tensor) for tensor in (source, anchor, *lengths))
    _decide(*tokens, *candidates[2:5], tie, rivals, count, index, similarity, crowded)
    return torch.from_numpy(index), torch.from_numpy(similarity), torch.from_numpy(crowded)


def _normalised(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens of unit length in float32, zero where zero, and their lengths in float64."""
    unit = tokens.new_empty(tokens.shape, dtype=torch.float32)
    length = tokens.new_empty(tokens.shape[:2], dtype=torch.float64)
    _normalise(array(tokens), unit.numpy(), length.numpy())
    return unit, length


def _tiles(batch: int, n: int, m: int, first: Tensor, last: Tensor) -> list[tuple[slice, slice, slice]]:
    """Samples, source tokens and anchor tokens of every tile that holds a candidate."""
    if n * m <= _TILE_ENTRIES:
        some_samples = max(1, _TILE_ENTRIES // max(1, n * m))
        return [
            (slice(s, min(batch, s + some_samples)), slice(0, n), slice(0, m))
            for s in range(0, batch, some_samples)
        ]
    tiles = []
    some = last > first
    for sample in range(batch):
        width = int((last - first)[sample].max())
        block = _BLOCK_ROWS if width >= _NARROW else _NARROW_BLOCK_ROWS
        across = _TILE_ENTRIES // block
        for start in range(0, n, block):
            rows = slice(start, min(n, start + block))
            here = some[sample, rows]
            if not bool(here.any()):
                continue
            begin, end = int(first[sample, rows][here].min()), int(last[sample, rows][here].max())
            tiles += [
                (slice(sample, sample + 1), rows, slice(c, min(end, c + across)))
                for c in range(begin, end, across)
            ]
    return tiles


@kernel
def _normalise(tokens, unit, length):
    for b in range(tokens.shape[0]):
        for i in range(tokens.shape[1]):
            token, unit_token = tokens[b, i], unit[b, i]
            # Scaled by the largest entry, so that no square overflows or vanishes.
            largest = ZERO * token[0] if token.size else ZERO
            for c in range(token.size):
                largest = max(largest, abs(token[c]))
            total = 0.0
            if largest > ZERO:
                for c in range(token.size):
                    share = np.float64(token[c]) / np.float64(largest)
                    total += share * share
            norm = np.sqrt(total) * largest
            length[b, i] = norm
            inverse = 1.0 / norm if norm > 0.0 else 0.0
            for c in range(token.size):
                unit_token[c] = np.float64(token[c]) * inverse


@partial(kernel, extra=EXTREMES)
def _search(
    tile, sample, row, column, first, last, source_times, anchor_times, time_weight, margin,
    best, rivals, scores, count,
):  # fmt: skip
    """Take a tile of similarities into account: the best scores, and who comes within rounding of them."""
    for b in range(tile.shape[0]):
        for r in range(tile.shape[1]):
            s, i = sample + b, row + r
            begin = max(first[s, i] - column, 0)
            end = min(last[s, i] - column, tile.shape[2])
            if end <= begin:
                continue
            values = tile[b, r, begin:end]
            if time_weight > 0.0:
                times, now = anchor_times[s, column + begin : column + end], source_times[s, i]
                for c in range(values.size):
                    apart = times[c] - now
                    values[c] = values[c] - time_weight * apart * apart
            highest = values[0]
            for c in range(values.size):
                highest = max(highest, values[c])
            if highest > best[s, i]:
                best[s, i] = highest
            # The error of a time penalty grows with it.
            enough = best[s, i] - margin - np.float32(2.0**-21) * (np.float32(1) + abs(best[s, i]))
            if highest < enough or count[s, i] > _RIVALS:
                continue
            for c in range(values.size):
                if values[c] >= enough:
                    if count[s, i] == _RIVALS:
                        kept = 0
                        for k in range(_RIVALS):
                            if scores[s, i, k] >= enough:
                                scores[s, i, kept], rivals[s, i, kept] = scores[s, i, k], rivals[s, i, k]
                                kept += 1
                        count[s, i] = kept
                    if count[s, i] == _RIVALS:
                        count[s, i] = _RIVALS + 1
                        break
                    scores[s, i, count[s, i]], rivals[s, i, count[s, i]] = values[c], column + begin + c
                    count[s, i] += 1


@kernel
def _decide(
    source, anchor, source_length, anchor_length, source_times, anchor_times, time_weight, tie,
    rivals, count, index, similarity, crowded,
):  # fmt: skip
    """Compare the rivals of each source token in double precision; the lowest index wins a tie."""
    for s in range(source.shape[0]):
        for i in range(source.shape[1]):
            if count[s, i] > _RIVALS:
                crowded[s, i] = True
                continue
            highest = -np.inf
            for k in range(count[s, i]):
                j = rivals[s, i, k]
                x, y, cosine = source[s, i], anchor[s, j], 0.0
                if source_length[s, i] > 0.0 and anchor_length[s, j] > 0.0:
                    # Brought to unit length first: products of very short vectors would vanish.
                    own, other = 1.0 / source_length[s, i], 1.0 / anchor_length[s, j]
                    for c in range(x.size):
                        cosine += _scaled_product(x[c], own, y[c], other)
                apart = source_times[s, i] - anchor_times[s, j]
                score = np.rint((cosine - time_weight * apart * apart) / tie)
                if score > highest or (score == highest and j < index[s, i]):
                    highest = score
                    index[s, i] = j
                    similarity[s, i] = cosine


@njit(fastmath=set(AS_WRITTEN))
def _scaled_product(x, own, y, other):
    return (np.float64(x) * own) * (np.float64(y) * other)
