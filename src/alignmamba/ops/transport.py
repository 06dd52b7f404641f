"""Relaxed optimal transport of source tokens onto anchor tokens (Li et al., arXiv 2412.00833, 3.2)."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops.backends import Backend, chosen, exporting, refuse_transforms, why_not, without_autocast
from alignmamba.ops.sequence import check_floating, check_mask, check_valid_first, relative_time, unit

Mass = Literal["paper", "mean"]

# Costs are compared after rounding to multiples of this. They are computed in float64, whose own rounding is
# a million times smaller, so equal pairs compare equal but for the rare one that lies on the edge between two
# multiples.
_TIE = 2.0**-30

# Positions are counted in 64 bits, and some are added to a window.
_WIDEST_WINDOW = 2**31

# Float64 similarities of one tile over the whole batch: 16 MB, whatever the length and the number of the
# sequences.
_TILE_ENTRIES = 2**21


def match_tokens(
    source: Tensor,
    anchor: Tensor,
    source_mask: Tensor,
    anchor_mask: Tensor,
    *,
    window: int | None = None,
    time_weight: float = 0.0,
    source_times: Tensor | None = None,
    anchor_times: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Find the cheapest anchor token for every source token: the support of the relaxed transport plan.

    The cost is ``C(i, j) = 1 - cos(source_i, anchor_j) + time_weight * (t_i - t_j)^2``. No gradient flows
    through the result. Memory is linear in tokens; time is O(source * anchor), or O(source * window).

    Args:
        source: (batch, source time, channel), floating.
        anchor: (batch, anchor time, channel), floating, finite where valid.
        source_mask: (batch, source time) bool, valid tokens first.
        anchor_mask: (batch, anchor time) bool, valid tokens first; others are never matched.
        window: Match only anchor tokens at most this many positions from the one nearest in time; ``None`` is
            exact.
        time_weight: Weight of the squared time difference; 0 is the paper's cost.
        source_times: (batch, source time), for the prior and the window; position from 0 to 1 within the
            sequence if not given.
        anchor_times: (batch, anchor time), in the unit of `source_times`, not decreasing; given exactly when
            that is.
        backend: ``"auto"`` takes the fastest that can serve these tensors; one asked for by name is used or
            refused. ``"triton"`` may choose any of the anchor tokens whose costs are equal up to float32.

    Returns:
        index: (batch, source time) int64, the matched anchor token, the lowest on ties; -1 for none.
        similarity: (batch, source time), cosine of the pair; 0 for none, or with a zero vector.

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit; on the CPU also if a valid token follows one that
            is not, or `anchor_times` decrease.
        ConfigError: If `window` or `time_weight` is negative or not finite, or one of the times is missing.
        BackendError: If the named backend does not exist or cannot serve these tensors.

    Source:
        Li et al., arXiv:2412.00833, eq. 3-5; the time prior and the window are named deviations.
    """
    check_sides(source, anchor, source_mask, anchor_mask)
    check_cost(window, time_weight)
    source_times, anchor_times = checked_times(source_times, anchor_times, source_mask, anchor_mask)
    if source.shape[1] == 0 or anchor.shape[1] == 0:
        return source_mask.new_full(source_mask.shape, -1, dtype=torch.int64), source.new_zeros(
            source_mask.shape
        )
    use = "torch" if exporting() else chosen("match_tokens", backend, source.device, source.dtype)
    run: Callable[..., tuple[Tensor, Tensor]] = _match if use == "torch" else _fused_match
    with torch.no_grad(), without_autocast(source.device):
        when = (source_times.double(), anchor_times.double())
        index, similarity = run(
            source.detach(), anchor.detach(), anchor_mask, *when, float(time_weight), window
        )
        matched = source_mask & anchor_mask.any(1, keepdim=True)
        return index.masked_fill(~matched, -1), similarity.masked_fill(~matched, 0).to(source.dtype)


def check_cost(window: int | None, time_weight: float) -> None:
    """Raise `ConfigError` for a window or a weight that no cost can have."""
    if window is not None and (not isinstance(window, int) or not 0 <= window <= _WIDEST_WINDOW):
        raise ConfigError(f"window: expected a whole number from 0 to {_WIDEST_WINDOW}, found {window!r}")
    if not 0 <= time_weight < float("inf"):
        raise ConfigError(f"time_weight: expected at least 0 and finite, found {time_weight}")


def check_sides(source: Tensor, anchor: Tensor, source_mask: Tensor, anchor_mask: Tensor) -> None:
    """Raise `ShapeError` unless both sides are floating (batch, time, channel) on one device, valid tokens
    first.
    """
    check_mask("source_mask", source_mask, source)
    check_mask("anchor_mask", anchor_mask, anchor)
    check_valid_first("source_mask", source_mask)
    check_valid_first("anchor_mask", anchor_mask)
    if source.shape[0] != anchor.shape[0] or source.shape[2] != anchor.shape[2]:
        raise ShapeError(
            f"source has shape {tuple(source.shape)}, anchor {tuple(anchor.shape)}: batch and channel must"
            " agree"
        )
    if not (source.is_floating_point() and anchor.is_floating_point()) or source.device != anchor.device:
        found = f"{source.dtype} on {source.device} and {anchor.dtype} on {anchor.device}"
        raise ShapeError(f"source, anchor: expected floating on one device, found {found}")


def checked_times(
    source_times: Tensor | None,
    anchor_times: Tensor | None,
    source_mask: Tensor,
    anchor_mask: Tensor,
    *,
    both_in_order: bool = False,
) -> tuple[Tensor, Tensor]:
    """The times that were given, or the position from 0 to 1 within each sequence.

    Those of the anchor may not decrease, and with `both_in_order` those of the source neither.
    """
    if (source_times is None) != (anchor_times is None):
        raise ConfigError("source_times and anchor_times: give both or neither")
    if source_times is None or anchor_times is None:
        source_times, anchor_times = (
            relative_time(mask, torch.float64) for mask in (source_mask, anchor_mask)
        )
    for name, times, mask in (
        ("source_times", source_times, source_mask),
        ("anchor_times", anchor_times, anchor_mask),
    ):
        if times.shape != mask.shape or times.device != mask.device:
            expected = f"shape {tuple(mask.shape)} on {mask.device}"
            raise ShapeError(f"{name}: expected {expected}, found {tuple(times.shape)} on {times.device}")
        if times.is_complex():
            raise ShapeError(f"{name}: expected real numbers, found {times.dtype}")
    _check_order("anchor_times", anchor_times, anchor_mask)
    if both_in_order:
        _check_order("source_times", source_times, source_mask)
    return source_times, anchor_times


def transport(
    source: Tensor, index: Tensor, source_mask: Tensor, num_anchor: int, *, mass: Mass = "paper"
) -> Tensor:
    r"""Carry source tokens to the anchor tokens they were matched to.

    Args:
        source: (batch, source time, channel).
        index: (batch, source time) int64 as `match_tokens` gives it; -1 sends nothing.
        source_mask: (batch, source time) bool.
        num_anchor: Length of the anchor sequence.
        mass: ``"paper"`` weighs every valid source token by 1 / (their number), eq. 6 to the letter;
            ``"mean"`` takes the mean of the tokens that arrive (barycentric projection), a named deviation.

    Returns:
        (batch, num_anchor, channel); exactly zero where nothing arrived. Differentiable in `source`.

    Raises:
        ShapeError: If shapes do not fit, `source` is not floating or, on the CPU, an index is not below
            `num_anchor`.

    Sums run in the order of the source tokens, on a GPU too where triton is installed; otherwise a GPU adds
    in an order of its own.

    Source:
        Li et al., arXiv:2412.00833, eq. 6.
    """
    check_mask("source_mask", source_mask, source)
    check_floating("source", source)
    sent = _sent(index, source_mask, num_anchor)
    # One slot past the end takes what is not sent, and what no check has refused in a compiled program.
    slot = index.masked_fill(~sent, num_anchor).clamp(max=num_anchor)
    # At least float32: a half-precision sum of many tokens stops growing, or overflows.
    tokens = source.to(torch.promote_types(source.dtype, torch.float32))
    if not why_not("triton", source.device, tokens.dtype) and not exporting():
        received: Tensor = _segment_sum(tokens, index.masked_fill(~sent, -1), num_anchor)
    else:
        rows = torch.arange(source.shape[0], device=source.device).unsqueeze(1) * (num_anchor + 1) + slot
        received = tokens.new_zeros(source.shape[0] * (num_anchor + 1), source.shape[2]).index_add_(
            0, rows.flatten(), tokens.flatten(0, 1)
        )
        received = received.view(source.shape[0], num_anchor + 1, source.shape[2])[:, :num_anchor]
    return (received / _divisor(slot, source_mask, num_anchor, mass)).to(source.dtype)


@torch.library.custom_op("alignmamba::segment_sum", mutates_args=())
def _segment_sum(tokens: Tensor, index: Tensor, num_anchor: int) -> Tensor:
    """Sums of tokens sent to each anchor token, (batch, num_anchor, channel) float32; -1 sends nothing."""
    from alignmamba.ops.gpu.transport import segment_sum

    summed: Tensor = segment_sum(tokens, index, num_anchor)
    return summed


@_segment_sum.register_fake
def _(tokens: Tensor, index: Tensor, num_anchor: int) -> Tensor:  # noqa: ARG001
    return tokens.new_empty(tokens.shape[0], num_anchor, tokens.shape[2], dtype=torch.float32)


def _keep_index(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(inputs[1])


def _gather_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    (index,) = ctx.saved_tensors
    gathered = grad.gather(1, index.clamp(min=0).unsqueeze(-1).expand(-1, -1, grad.shape[2]))
    return gathered.masked_fill((index < 0).unsqueeze(-1), 0), None, None


_segment_sum.register_autograd(_gather_gradient, setup_context=_keep_index)
refuse_transforms("transport", _segment_sum)


def transport_plan(index: Tensor, source_mask: Tensor, num_anchor: int, *, mass: Mass = "paper") -> Tensor:
    """The dense plan M of a matching, quadratic in memory, for inspection only.

    Args:
        index: (batch, source time) int64 as `match_tokens` gives it.
        source_mask: (batch, source time) bool.
        num_anchor: Length of the anchor sequence.
        mass: As in `transport`.

    Returns:
        (batch, source time, num_anchor) float32 with ``transport(x, ...) == plan.transpose(1, 2) @ x``.

    Raises:
        ShapeError: If shapes do not fit or an index is not below `num_anchor`.

    Source:
        Li et al., arXiv:2412.00833, eq. 5.
    """
    if source_mask.ndim != 2 or source_mask.dtype != torch.bool:
        raise ShapeError(
            f"source_mask: expected (batch, time) bool, found {source_mask.dtype} of shape"
            f" {tuple(source_mask.shape)}"
        )
    sent = _sent(index, source_mask, num_anchor)
    slot = index.masked_fill(~sent, num_anchor)
    plan = F.one_hot(slot, num_anchor + 1)[..., :num_anchor].float()
    return plan / _divisor(slot, source_mask, num_anchor, mass).transpose(1, 2)


def _sent(index: Tensor, source_mask: Tensor, num_anchor: int) -> Tensor:
    """Source tokens that are sent anywhere, after checking that the index fits."""
    if index.shape != source_mask.shape or index.dtype != torch.int64:
        raise ShapeError(
            f"index: expected int64 of shape {tuple(source_mask.shape)}, found {index.dtype} of shape"
            f" {tuple(index.shape)}"
        )
    # Elsewhere than on the CPU, looking at a value would wait for all that was asked of the device before.
    looked_at = index.device.type == "cpu" and not torch.compiler.is_compiling()
    if looked_at and index.numel() and int(index.max()) >= num_anchor:
        raise ShapeError(f"index: expected values below num_anchor {num_anchor}, found {int(index.max())}")
    return source_mask & (index >= 0)


def _divisor(slot: Tensor, source_mask: Tensor, num_anchor: int, mass: Mass) -> Tensor:
    """(batch, anchor time or 1, 1): what the sum of the tokens that arrive is divided by."""
    if mass == "paper":
        return source_mask.sum(1).clamp(min=1)[:, None, None]
    if mass == "mean":
        counts = torch.zeros(slot.shape[0], num_anchor + 1, dtype=torch.int64, device=slot.device)
        return counts.scatter_add(1, slot, torch.ones_like(slot))[:, :num_anchor].clamp(min=1).unsqueeze(-1)
    raise ConfigError(f"mass: expected 'paper' or 'mean', found {mass!r}")


def _check_order(name: str, times: Tensor, mask: Tensor) -> None:
    """Refuse times that fall, which leave the token nearest in time undefined; on the CPU alone."""
    if times.device.type != "cpu" or torch.compiler.is_compiling():
        return
    falls = ((times[:, 1:] < times[:, :-1]) & mask[:, 1:]).any(1)
    if bool(falls.any()):
        raise ShapeError(
            f"{name}: expected times that do not decrease, found one that does in sample"
            f" {int(falls.nonzero()[0])}"
        )


def _ranked(score: Tensor) -> Tensor:
    """Scores rounded to the width of a tie, so that equal pairs compare equal."""
    return (score / _TIE).round()


def _match(
    source: Tensor,
    anchor: Tensor,
    anchor_mask: Tensor,
    source_times: Tensor,
    anchor_times: Tensor,
    time_weight: float,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    """The definition: index and similarity for every source token, valid or not."""
    x, y = (unit(tokens.detach().double()) for tokens in (source, anchor))
    if exporting():  # a program may neither loop as often as a length says nor choose by it
        allowed = anchor_mask.unsqueeze(1)
        if window is not None:
            position = torch.arange(anchor.shape[1], device=anchor.device)
            nearest = nearest_in_time(source_times, anchor_times, anchor_mask).unsqueeze(2)
            allowed = allowed & ((position - nearest).abs() <= window)
        return _best_of_tile(x, y, allowed, source_times, anchor_times, time_weight)[1:]
    arguments = (x, y, anchor_mask, source_times, anchor_times, time_weight)
    # A window over the whole anchor is the exact matching, which needs no list of candidates.
    if window is None or window >= anchor.shape[1] - 1:
        return _match_all(*arguments)
    return _match_window(*arguments, window=window)


def _match_all(
    source: Tensor,
    anchor: Tensor,
    anchor_mask: Tensor,
    source_times: Tensor,
    anchor_times: Tensor,
    time_weight: float,
) -> tuple[Tensor, Tensor]:
    """Running argmax over tiles of the similarity matrix."""
    side = max(16, int((_TILE_ENTRIES // max(1, len(source))) ** 0.5))
    indices, similarities = [], []
    for x, t in zip(source.split(side, 1), source_times.split(side, 1), strict=True):
        best = x.new_full(x.shape[:2], -torch.inf)
        index = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
        similarity = x.new_zeros(x.shape[:2])
        for start in range(0, anchor.shape[1], side):
            tile = slice(start, start + side)
            value, position, cosine = _best_of_tile(
                x, anchor[:, tile], anchor_mask[:, tile].unsqueeze(1), t, anchor_times[:, tile], time_weight
            )
            better = value > best  # strictly, so that the lowest index wins a tie
            best = torch.where(better, value, best)
            index = torch.where(better, position + start, index)
            similarity = torch.where(better, cosine, similarity)
        indices.append(index)
        similarities.append(similarity)
    return torch.cat(indices, 1), torch.cat(similarities, 1)


def _best_of_tile(
    source: Tensor,
    anchor: Tensor,
    allowed: Tensor,
    source_times: Tensor,
    anchor_times: Tensor,
    time_weight: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Ranked score, index and cosine of the best pair of each source token, from the matrix of all of them.

    `allowed` is (batch, source time or 1, anchor time) bool.
    """
    cosine = source @ anchor.transpose(1, 2)
    score = cosine
    if time_weight:
        score = cosine - time_weight * (source_times.unsqueeze(2) - anchor_times.unsqueeze(1)).square()
    value, position = _ranked(score).masked_fill(~allowed, -torch.inf).max(2)
    return value, position, cosine.gather(2, position.unsqueeze(2)).squeeze(2)


def _match_window(
    source: Tensor,
    anchor: Tensor,
    anchor_mask: Tensor,
    source_times: Tensor,
    anchor_times: Tensor,
    time_weight: float,
    *,
    window: int,
) -> tuple[Tensor, Tensor]:
    """Argmax over the anchor tokens around the one nearest in time, a tile of source tokens at once."""
    lengths = anchor_mask.sum(1)[:, None, None]
    nearest = nearest_in_time(source_times, anchor_times, anchor_mask)
    offsets = torch.arange(-window, window + 1, device=source.device)
    rows = torch.arange(len(source), device=source.device)[:, None, None]
    tile = max(1, _TILE_ENTRIES // max(1, len(source) * len(offsets) * source.shape[2]))
    indices, similarities = [], []
    for x, t, middle in zip(
        source.split(tile, 1), source_times.split(tile, 1), nearest.split(tile, 1), strict=True
    ):
        candidates = middle.unsqueeze(2) + offsets
        inside = (candidates >= 0) & (candidates < lengths)
        candidates = candidates.clamp(0, anchor.shape[1] - 1)
        cosine = torch.einsum("bsc,bswc->bsw", x, anchor[rows, candidates])
        score = cosine
        if time_weight:
            score = cosine - time_weight * (t.unsqueeze(2) - anchor_times[rows, candidates]).square()
        position = _ranked(score).masked_fill(~inside, -torch.inf).argmax(2, keepdim=True)
        indices.append(candidates.gather(2, position).squeeze(2))
        similarities.append(cosine.gather(2, position).squeeze(2))
    return torch.cat(indices, 1), torch.cat(similarities, 1)


def nearest_in_time(source_times: Tensor, anchor_times: Tensor, anchor_mask: Tensor) -> Tensor:
    """(batch, source time): the valid anchor token nearest in time; on a tie that of the earlier time, and of
    tokens of one time the first.
    """
    # Middles between neighbours in time: the number of middles before t is the nearest token.
    order = anchor_times.masked_fill(~anchor_mask, torch.inf)
    # the last one is infinite: no length of 1 less to export
    middles = (order + F.pad(order, (0, 1), value=torch.inf)[:, 1:]) / 2
    nearest = torch.searchsorted(middles.contiguous(), source_times.contiguous())
    nearest = nearest.minimum((anchor_mask.sum(1, keepdim=True) - 1).clamp(min=0))
    if not order.shape[1]:
        return nearest
    return torch.searchsorted(order, order.gather(1, nearest)).minimum(nearest)  # a time that is NaN is none


@torch.library.custom_op("alignmamba::match_tokens", mutates_args=())
def _fused_match(
    source: Tensor,
    anchor: Tensor,
    anchor_mask: Tensor,
    source_times: Tensor,
    anchor_times: Tensor,
    time_weight: float,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    """`_match` by the kernels of the tensors' device."""
    working = torch.promote_types(source.dtype, anchor.dtype)
    first, last = _candidates(source_times, anchor_times, anchor_mask, time_weight, window)
    if source.device.type == "cpu":
        from alignmamba.ops.cpu import transport as cpu

        x, y = (tokens.to(torch.promote_types(working, torch.float32)) for tokens in (source, anchor))
        index, similarity, crowded = cpu.match(
            x, y, first, last, source_times, anchor_times, time_weight, _TIE
        )
        if bool(crowded.any()):
            _settle(
                index,
                similarity,
                crowded,
                (x, y, anchor_mask, source_times, anchor_times, time_weight, window),
            )
    else:
        from alignmamba.ops.gpu import transport as gpu

        index = gpu.match(
            source.to(working), anchor.to(working), first, last, source_times, anchor_times, time_weight
        )
        partner = anchor.gather(1, index.clamp(min=0).unsqueeze(-1).expand(-1, -1, anchor.shape[2]))
        similarity = F.cosine_similarity(source.double(), partner.double(), dim=-1, eps=1e-150)
    return index.clamp(min=0), similarity


@_fused_match.register_fake
def _(source: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return source.new_empty(source.shape[:2], dtype=torch.int64), source.new_empty(
        source.shape[:2], dtype=torch.float64
    )


refuse_transforms("match_tokens", _fused_match)


def _candidates(
    source_times: Tensor, anchor_times: Tensor, anchor_mask: Tensor, time_weight: float, window: int | None
) -> tuple[Tensor, Tensor]:
    """The first anchor token that each source token may be matched to, and one past the last, (batch, source
    time) int64.

    A cosine lies between -1 and 1. The anchor token nearest in time, `apart` away, therefore scores at least
    -1 - weight apart^2, and one further away than the square root of 2 / weight + apart^2 scores less.
    """
    lengths = anchor_mask.sum(1, keepdim=True)
    first, last = torch.zeros_like(source_times, dtype=torch.int64), lengths.expand_as(source_times)
    if window is None and not time_weight:
        return first, last
    nearest = nearest_in_time(source_times, anchor_times, anchor_mask)
    if window is not None:
        first, last = (nearest - window).clamp(min=0), (nearest + window + 1).minimum(lengths)
    if time_weight:
        apart = source_times - anchor_times.gather(1, nearest)
        reach = ((2 + 4 * _TIE) / time_weight + apart.square()).sqrt() * (1 + 1e-9)
        order = anchor_times.masked_fill(~anchor_mask, torch.inf).contiguous()
        first = first.maximum(torch.searchsorted(order, (source_times - reach).contiguous()))
        last = last.minimum(torch.searchsorted(order, (source_times + reach).contiguous(), right=True))
    return first, last


def _settle(index: Tensor, similarity: Tensor, crowded: Tensor, arguments: tuple[Any, ...]) -> None:
    """Match by the reference the source tokens that have too many rivals for a kernel, in place."""
    source, anchor, anchor_mask, source_times, anchor_times, time_weight, window = arguments
    for sample in crowded.any(1).nonzero().flatten().tolist():
        rows, one = crowded[sample].nonzero().flatten(), slice(sample, sample + 1)
        given = (
            source[one, rows],
            anchor[one],
            anchor_mask[one],
            source_times[one, rows],
            anchor_times[one],
            time_weight,
            window,
        )
        found = _match(*given)
        index[sample, rows], similarity[sample, rows] = found[0][0], found[1][0]


def resample(source: Tensor, source_mask: Tensor, anchor_mask: Tensor) -> Tensor:
    """Resample a sequence to the anchor's length by relative time alone: each anchor token takes the mean of
    its share of the source.

    The plain rival of matching: anchor token ``j`` of ``n`` averages the valid source tokens ``floor(j m /
    n)`` up to ``ceil((j + 1) m / n)`` of ``m`` (adaptive average pooling on each sample's own lengths).

    Args:
        source: (batch, source time, channel).
        source_mask: (batch, source time) bool, valid tokens first.
        anchor_mask: (batch, anchor time) bool, valid tokens first.

    Returns:
        (batch, anchor time, channel); zero at anchor tokens that are not valid and in samples without a valid
        source token.

    Raises:
        ShapeError: If shapes do not fit, `source` is not floating or, on the CPU, a valid token follows one
            that is not.
    """
    check_mask("source_mask", source_mask, source)
    check_floating("source", source)
    check_valid_first("source_mask", source_mask)
    if anchor_mask.ndim != 2 or anchor_mask.shape[0] != source.shape[0] or anchor_mask.dtype != torch.bool:
        found = f"{anchor_mask.dtype} of shape {tuple(anchor_mask.shape)}"
        raise ShapeError(f"anchor_mask: expected bool ({source.shape[0]}, time), found {found}")
    m, n = source_mask.sum(1, keepdim=True), anchor_mask.sum(1, keepdim=True).clamp(min=1)
    position = torch.arange(anchor_mask.shape[1], device=source.device).expand(anchor_mask.shape)
    # Double precision: a running sum over a long sequence would lose the small differences that are wanted
    # here.
    running = F.pad(source.double().masked_fill(~source_mask.unsqueeze(-1), 0).cumsum(1), (0, 0, 1, 0))
    first = (position * m // n).minimum(m)
    last = (-((position + 1) * m // -n)).minimum(m)
    channels = source.shape[2]
    total = running.gather(1, last.unsqueeze(-1).expand(-1, -1, channels)) - running.gather(
        1, first.unsqueeze(-1).expand(-1, -1, channels)
    )
    mean = total / (last - first).clamp(min=1).unsqueeze(-1)
    return mean.masked_fill(~anchor_mask.unsqueeze(-1), 0).to(source.dtype)
