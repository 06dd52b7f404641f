"""Matching by cosine and the transport of tokens as Triton kernels (Li et al., arXiv 2412.00833, eq. 3-6).

`match` is a matrix product whose epilogue keeps, for each row, the best column so far, as attention kernels
keep a running maximum (Dao et al., arXiv 2205.14135): the matrix of costs never reaches memory. `segment_sum`
scatters without atomics: tokens are sorted by where they go, and each destination adds its own in order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from alignmamba.ops.gpu.launch import channels_adjacent, on_its_device

# Rows, columns and channels of a tile, and its groups of threads, by bytes of an element. Rows of up to twice
# so many channels stay on the chip while the columns pass by; longer ones are read again, from the cache, for
# each tile of columns.
_TILES = {4: (128, 64, 32, 8), 2: (128, 128, 64, 8)}
# Programs wanted for each multiprocessor: with fewer rows than that, the columns of a row are shared among
# several.
_PROGRAMS_PER_MULTIPROCESSOR = 2
_NONE = tl.constexpr(2147483647)


@triton.jit(do_not_specialize=["time"])
def _inverse_norm_kernel(x, inverse, time, channels, x_batch, x_time, CHANNELS: tl.constexpr):
    """1 / |x_t|, and 0 for a zero token, whose cosine is 0 to everything."""
    program = tl.program_id(0)
    row, t = (program // time).to(tl.int64), (program % time).to(tl.int64)
    channel = tl.arange(0, CHANNELS)
    x += row * x_batch + t * x_time
    total = tl.zeros((CHANNELS,), tl.float32)
    for first in range(0, channels, CHANNELS):
        value = tl.load(x + first + channel, mask=first + channel < channels, other=0.0).to(tl.float32)
        total += value * value
    square = tl.sum(total, axis=0)
    tl.store(inverse + row * time + t, tl.where(square > 0, 1.0 / tl.sqrt(tl.maximum(square, 1e-45)), 0.0))


@triton.jit
def _tile(x, x_time, t, channel, time, channels):
    mask = (t < time)[:, None] & (channel < channels)[None, :]
    return tl.load(x + t[:, None].to(tl.int64) * x_time + channel[None, :], mask=mask, other=0.0)


@triton.jit(do_not_specialize=["batch", "rows", "columns"])
def _match_kernel(
    source, anchor, source_inverse, anchor_inverse, first, last, source_times, anchor_times,
    best_score, best_index, batch, rows, columns, channels, time_weight,
    source_batch, source_time, anchor_batch, anchor_time,
    SPLITS: tl.constexpr, TIMED: tl.constexpr, RESIDENT: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Best column of a tile of rows within one share of the columns that any of these rows may take."""
    split = tl.program_id(0) % SPLITS
    tiles = tl.cdiv(rows, ROWS)
    part = tl.program_id(0) // SPLITS
    row = (part // tiles).to(tl.int64)
    i = part % tiles * ROWS + tl.arange(0, ROWS)
    present = i < rows
    source += row * source_batch
    anchor += row * anchor_batch
    from_column = tl.load(first + row * rows + i, mask=present, other=0)
    to_column = tl.load(last + row * rows + i, mask=present, other=0)
    # A row with nothing to choose from must not widen the share of the others.
    low = tl.min(tl.where(to_column > from_column, from_column, _NONE), axis=0)
    high = tl.max(tl.where(to_column > from_column, to_column, 0), axis=0)
    share = tl.cdiv(tl.cdiv(tl.maximum(high - low, 0), COLUMNS), SPLITS) * COLUMNS
    # `low` is the largest integer where no row may choose, and nothing may be added to that.
    start = tl.minimum(low, columns) + split * share
    stop = tl.minimum(start + share, high)

    channel = tl.arange(0, CHANNELS)
    inverse = tl.load(source_inverse + row * rows + i, mask=present, other=0.0)
    if TIMED:
        at = tl.load(source_times + row * rows + i, mask=present, other=0.0)
    if RESIDENT:
        own = _tile(source, source_time, i, channel, rows, channels)
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    chosen = tl.full((ROWS,), -1, tl.int32)
    for begin in range(start, stop, COLUMNS):
        j = begin + tl.arange(0, COLUMNS)
        if RESIDENT:
            other = _tile(anchor, anchor_time, j, channel, columns, channels)
            score = tl.dot(own, tl.trans(other), input_precision=PRECISION)
        else:
            score = tl.zeros((ROWS, COLUMNS), tl.float32)
            for block in range(0, channels, CHANNELS):
                piece = _tile(source, source_time, i, block + channel, rows, channels)
                other = _tile(anchor, anchor_time, j, block + channel, columns, channels)
                score = tl.dot(piece, tl.trans(other), score, input_precision=PRECISION)
        present_column = j < columns
        score *= (
            inverse[:, None]
            * tl.load(anchor_inverse + row * columns + j, mask=present_column, other=0.0)[None, :]
        )
        if TIMED:
            apart = (
                at[:, None]
                - tl.load(anchor_times + row * columns + j, mask=present_column, other=0.0)[None, :]
            )
            score -= time_weight * apart * apart
        allowed = (
            (j[None, :] >= from_column[:, None]) & (j[None, :] < to_column[:, None]) & present_column[None, :]
        )
        score = tl.where(allowed, score, float("-inf"))
        top = tl.max(score, axis=1)
        place = tl.min(tl.where(score == top[:, None], j[None, :], _NONE), axis=1)
        better = top > best  # strictly, so that the lowest column wins a tie
        best = tl.where(better, top, best)
        chosen = tl.where(better, place, chosen)
    out = (split * batch + row) * rows + i
    tl.store(best_score + out, best, mask=present)
    tl.store(best_index + out, chosen, mask=present)


@triton.jit(do_not_specialize=["time", "num_anchor"])
def _segment_sum_kernel(
    tokens, order, starts, total, time, num_anchor, channels, tokens_batch, tokens_time,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sum of the tokens of one anchor token, ROWS at a time in the order of the sequence."""
    groups = tl.cdiv(channels, CHANNELS)
    program = tl.program_id(0)
    part = (program // groups).to(tl.int64)
    row, anchor = part // num_anchor, part % num_anchor
    channel = (program % groups) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    first = tl.load(starts + row * (num_anchor + 1) + anchor)
    last = tl.load(starts + row * (num_anchor + 1) + anchor + 1)
    tokens += row * tokens_batch
    received = tl.zeros((CHANNELS,), tl.float32)
    for begin in range(first, last, ROWS):
        place = begin + tl.arange(0, ROWS)
        token = tl.load(order + row * time + place, mask=place < last, other=0)
        mask = (place < last)[:, None] & inside[None, :]
        value = tl.load(tokens + token[:, None] * tokens_time + channel[None, :], mask=mask, other=0.0)
        received += tl.sum(value.to(tl.float32), axis=0)
    tl.store(total + part * channels + channel, received, mask=inside)


@on_its_device
def match(
    source: Tensor,
    anchor: Tensor,
    first: Tensor,
    last: Tensor,
    source_times: Tensor,
    anchor_times: Tensor,
    time_weight: float,
) -> Tensor:
    """Index of the best anchor token for each source token, (batch, source time) int64; tokens are float32,
    bfloat16 or float16, arguments those of `alignmamba.ops.cpu.transport.match`.

    Scores are float32. Products of float32 tokens are made of three TF32 products each on CUDA ("tf32x3"),
    whose error is that of float32 (2e-7 of the cosine, where one TF32 product has 5e-4 and would change
    matches), at about 2.5 times the speed of float32 without tensor cores; ROCm multiplies float32 matrices
    natively. Squares of tokens must neither overflow nor vanish in float32: lengths between 1e-15 and 1e15
    are safe. Of equal scores the lowest index wins, up to the rounding of a product, which may depend on the
    column; -1 where there was nothing to choose from.
    """
    batch, rows, channels = source.shape
    columns = anchor.shape[1]
    if batch * rows == 0 or columns == 0:
        return torch.full((batch, rows), -1, dtype=torch.int64, device=source.device)
    if source.dtype == torch.bfloat16 and not isinstance(_match_kernel, JITFunction):
        # The interpreter would multiply the bits of bfloat16 as integers; as float32 the values are the same.
        source, anchor = source.float(), anchor.float()
    source, anchor = channels_adjacent(source), channels_adjacent(anchor)
    if time_weight:
        # Differences alone count, and float32 keeps more of them about an origin within the sequence.
        origin = anchor_times[:, :1].double()
        source_times, anchor_times = (
            (times.double() - origin).float() for times in (source_times, anchor_times)
        )
    tile_rows, tile_columns, tile_channels, warps = _TILES[source.element_size()]
    resident = channels <= 2 * tile_channels
    if resident:
        tile_channels = max(16, triton.next_power_of_2(channels))
    tiles = triton.cdiv(rows, tile_rows)
    splits = _splits(batch * tiles, triton.cdiv(columns, tile_columns), source.device)
    best = torch.empty(splits, batch, rows, device=source.device)
    index = torch.empty(splits, batch, rows, dtype=torch.int32, device=source.device)
    _match_kernel[(batch * tiles * splits,)](
        source, anchor, _inverse_norms(source), _inverse_norms(anchor),
        first.to(torch.int32).contiguous(), last.to(torch.int32).contiguous(), source_times, anchor_times,
        best, index, batch, rows, columns, channels, float(time_weight), source.stride(0), source.stride(1),
        anchor.stride(0), anchor.stride(1), SPLITS=splits, TIMED=time_weight != 0, RESIDENT=resident,
        PRECISION="ieee" if torch.version.hip else "tf32x3", ROWS=tile_rows, COLUMNS=tile_columns,
        CHANNELS=tile_channels, num_warps=warps, num_stages=2,
    )  # fmt: skip
    if splits == 1:
        return index[0].long()
    # Shares are in the order of columns: the first of the best has the lowest index.
    return index.gather(0, best.argmax(0, keepdim=True))[0].long()


@on_its_device
def segment_sum(tokens: Tensor, index: Tensor, num_anchor: int) -> Tensor:
    """(batch, num_anchor, channel) float32: sums of the tokens, (batch, time, channel), that `index`, (batch,
    time) int64, sends to each anchor token; in the order of the sequence, the same bits on each run. -1 sends
    nothing.
    """
    batch, time, channels = tokens.shape
    total = torch.empty(batch, num_anchor, channels, device=tokens.device)
    if total.numel() == 0 or time == 0:
        return total.zero_()
    tokens = channels_adjacent(tokens)
    ordered, order = index.sort(dim=1, stable=True)
    anchors = torch.arange(num_anchor + 1, device=tokens.device).expand(batch, -1).contiguous()
    starts = torch.searchsorted(ordered, anchors)
    _segment_sum_kernel[(batch * num_anchor * triton.cdiv(channels, 128),)](
        tokens, order, starts, total, time, num_anchor, channels, tokens.stride(0), tokens.stride(1),
        ROWS=8, CHANNELS=128, num_warps=1,
    )  # fmt: skip
    return total


def _inverse_norms(x: Tensor) -> Tensor:
    batch, time, channels = x.shape
    inverse = torch.empty(batch, time, device=x.device)
    _inverse_norm_kernel[(batch * time,)](
        x, inverse, time, channels, x.stride(0), x.stride(1), CHANNELS=256, num_warps=1
    )
    return inverse


def _splits(programs: int, column_tiles: int, device: torch.device) -> int:
    """Programs that share the columns of a tile of rows: a power of two, so that few kernels are compiled."""
    processors = (
        torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    )
    splits = 1
    while splits * programs < _PROGRAMS_PER_MULTIPROCESSOR * processors and splits * 4 <= column_tiles:
        splits *= 2
    return splits
