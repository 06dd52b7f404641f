"""Local and global alignment over the operators (Li et al., arXiv 2412.00833, sections 3.2 and 3.3)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Config, Plan
from alignmamba.ops import (
    match_tokens,
    mmd,
    order_contrast,
    relative_time,
    resample,
    soft_transport,
    time_contrast,
    transport,
    transport_distance,
)
from alignmamba.ops.backends import exporting
from alignmamba.ops.entropic_transport import LEAST_REGULARISATION, KeptMarginal

TimeUnit = Literal["relative", "seconds", "spans"]


class LocalAlignmentConfig(Config):
    """Options of the alignment of each modality with the anchor's tokens."""

    method: Literal["match", "soft", "proportional", "none"] = "match"
    """``match``: relaxed optimal transport; ``soft``: the same with the plan's entropy in the cost, which has
    a gradient; ``proportional``: the mean of each anchor token's share of time, content unseen; ``none``:
    lengths stay as they are and tokens are merged in the order of their relative times."""
    mass: Literal["paper", "mean"] = "mean"
    """Value of an anchor token, made from the tokens matched to it: ``paper`` is their sum over the number of
    source tokens (eq. 6), ``mean`` their mean. Used with marginal ``source`` or method ``soft``."""
    marginal: KeptMarginal = "source"
    """``source``: every source token is sent to its nearest anchor token (eq. 4-5), some anchor tokens
    receive nothing; ``anchor``: every anchor token takes its nearest source token; ``both``, of method
    ``soft``: every token sends or takes as much as any other."""
    time_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1000.0
    """Weight of the squared time difference in the cost; 0 is the paper's cost. With relative times, 1000
    lets content decide among anchor tokens up to some 3 % of the sequence apart, with seconds 0.03 s."""
    time_unit: TimeUnit = "relative"
    """``relative``: time runs from 0 to 1 within each sequence; ``seconds``: the times of the corpus, in
    each sample where both modalities have them; ``spans``: the same, where the times are beginnings and
    the middle of the time that a token lasts counts, as suits words. A run of the default preset takes
    ``seconds`` where modalities of its corpus begin apart. It takes ``spans`` where they were read from
    media files."""
    window: Annotated[int, Field(ge=0)] | None = None
    """Match only anchor tokens at most this many positions from the one nearest in time; empty is exact, and
    quadratic in time."""

    @model_validator(mode="after")
    def _balanced_if_soft(self) -> Self:
        if self.method == "match" and self.marginal == "both":
            raise ValueError("marginal: found 'both' with method 'match', expected method 'soft' beside it")
        return self


class SoftPlanConfig(Config):
    """The plan of local method ``soft``."""

    regularisation: Annotated[float, Field(ge=LEAST_REGULARISATION, allow_inf_nan=False)] = 0.05
    """Weight of the plan's entropy; towards 0 the plan becomes that of method ``match``. In time the plan is
    about ``sqrt(regularisation / local.time_weight)`` wide: 0.7 % of a sequence, or 7 ms, by default. Where
    anchor tokens lie further apart, content hardly has a gradient; a weight such as 10 gives it one."""
    iterations: Annotated[int, Field(ge=1)] = 20
    """Iterations of Sinkhorn, used with marginal ``both``."""


class TransportLossConfig(Config):
    """The loss that draws encoded tokens to those that a plan moves them to; not in the paper."""

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of the transport distance beside the task's loss; 0 switches the loss off."""
    regularisation: Annotated[float, Field(ge=LEAST_REGULARISATION, allow_inf_nan=False)] = 0.05
    """Weight of the plan's entropy."""
    iterations: Annotated[int, Field(ge=1)] = 30
    """Iterations of Sinkhorn."""
    time_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of the squared time difference, in the unit of `local.time_unit`; 0 leaves content alone."""


class GlobalAlignmentConfig(Config):
    """The MMD loss between aligned modalities."""

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    """Lambda of eq. 12; 0 switches the loss off."""
    pairs: Literal["anchor", "all"] = "anchor"
    """``anchor``: each modality with the anchor (eq. 10); ``all``: every pair (the paper's prose)."""
    bandwidth: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["median"] = "median"
    """Sigma of the Gaussian kernel (eq. 9), or the median distance of each sample's tokens."""
    landmarks: Annotated[int, Field(ge=2, le=4096)] | None = None
    """Approximate the MMD by this many landmark tokens (Nystrom), linear in time; empty is exact, and
    quadratic in time."""


class ContrastConfig(Config):
    """The loss that teaches the encoders which tokens belong together; not in the paper."""

    SILENT: ClassVar[Mapping[str, Any]] = {"among": "sample"}
    """Counterpart of `NetworkConfig.SILENT` for the contrast."""

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight beside the task's loss; 0 switches the loss off."""
    reach: Annotated[int, Field(ge=0)] = 1
    """Number of neighbours of the token nearest in time that count as its partners too, on either side."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.07
    """Divisor of cosines; the smaller, the more the likest wrong token counts."""
    among: Literal["sample", "batch"] = "sample"
    """Tokens that repel where times say what belongs together: those of the ``sample``, at other times, or
    those of all samples of the ``batch``, as far as one process has it. By order alone they are always those
    of the batch."""
    untimed: Literal["relative", "order"] = "relative"
    """Partners in a sample where a side has no times. ``relative``: by position from 0 to 1; ``order``: by
    the best way through both in their order, which the model finds for itself while it learns. Every token
    of the longer sequence then learns which it is of all tokens of the shorter ones in the batch."""
    correction: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    """Share of a token's frequency that is taken away from its worth on such a way, so that none is found
    everywhere."""
    flat_steps: Annotated[int, Field(ge=0)] = 100
    """Batches of training at first in which such ways are not looked for: parts of equal length take their
    place. Those of about two epochs will do."""

    @property
    def by_order(self) -> bool:
        """Answer to whether partners are ever looked for by order alone."""
        return bool(self.weight) and self.untimed == "order"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Encoded tokens of one modality."""

    x: Tensor
    """(batch, time, channel), zero where not valid."""
    mask: Tensor
    """(batch, time) bool, valid tokens first."""
    times: Tensor
    """(batch, time) float64, seconds since the first token of the sample; NaN throughout a sample whose times
    are unknown."""

    def fitted(self, length: int) -> "Tokens":
        """The first `length` tokens, with padding where there are fewer."""
        more = length - self.mask.shape[1]
        return Tokens(
            F.pad(self.x, (0, 0, 0, more)), F.pad(self.mask, (0, more)), F.pad(self.times, (0, more))
        )

    def where(self, rows: Tensor, other: "Tokens") -> "Tokens":
        """These tokens in the samples where `rows`, (batch,) bool, and `other`, as long, in the rest."""
        return Tokens(
            torch.where(rows[:, None, None], self.x, other.x),
            # ONNX Runtime cannot choose between truth values
            (rows[:, None] & self.mask) | (~rows[:, None] & other.mask),
            torch.where(rows[:, None], self.times, other.times),
        )


# Digits after the decimal point that a time keeps, to the factor that brings them before it: powers of ten
# that float64 holds exactly.
_POWERS = [10.0**digits for digits in range(16)]


def since_first(times: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
    """Times on a clock of the sample's own, which starts with the first token of all its modalities.

    A clock that started long ago has lost digits: float64 counts seconds since 1970 in steps of 2e-7.
    Differences are rounded to the decimals that such steps leave, so that 0.02 s is one and the same number
    whatever the zero of the clock was.

    Args:
        times: For each modality, (batch, time) seconds of any floating type; NaN where unknown.
        masks: For each modality, (batch, time) bool, the valid tokens.

    Returns:
        For each modality, (batch, time) float64.
    """
    every = torch.cat([each.double() for each in times], 1)
    known = torch.cat(list(masks), 1) & every.isfinite()
    # How far apart two neighbouring numbers are, where the clock stands.
    steps = torch.cat([each.double().abs() * torch.finfo(each.dtype).eps for each in times], 1)
    step = steps.masked_fill(~known, 0).amax(1, keepdim=True)
    first = every.masked_fill(~known, torch.inf).amin(1, keepdim=True)
    first = first.masked_fill(first.isinf(), 0)
    digits = (2 * step).log10().neg().floor().clamp(0, len(_POWERS) - 1).long()
    power = torch.tensor(_POWERS, dtype=torch.float64, device=every.device)[digits]
    return [((each.double() - first) * power).round() / power for each in times]


def middles(begins: Tensor, mask: Tensor) -> Tensor:
    """Middles of the spans that tokens last. Each lasts until another begins, but not more than twice as long
    as the median of the sample, and the last one as long as that. Tokens that begin at once share a span.

    Args:
        begins: (batch, time) seconds that never fall; NaN throughout a sample for unknown ones.
        mask: (batch, time) bool, valid tokens first.

    Returns:
        (batch, time), of the same type. Tokens that all begin at once keep their time.
    """
    length = mask.shape[1]
    new = torch.cat([mask[:, :1], mask[:, 1:] & (begins[:, 1:] > begins[:, :-1])], 1)
    span = (new.cumsum(1) - 1).clamp(min=0)
    count = new.sum(1, keepdim=True)
    starts = torch.zeros_like(F.pad(begins, (0, 1)))  # one more, for what is padding
    starts = starts.scatter(1, span.masked_fill(~mask, length), begins)
    lasts = starts[:, 1:] - starts[:, :-1]
    ended = torch.arange(length, device=mask.device) < count - 1
    ordered = F.pad(lasts.masked_fill(~ended, torch.inf), (0, 1), value=torch.inf).sort(1).values
    median = ordered.gather(1, ((count - 2) // 2).clamp(min=0)).masked_fill(count < 2, 0)
    lasts = torch.where(ended, lasts.minimum(2 * median), median)
    return begins + lasts.gather(1, span) / 2


def first_present(streams: Mapping[str, Tokens]) -> tuple[Tokens, dict[str, Tensor]]:
    """Each sample's anchor, the tokens of the first modality that it has, in one tensor.

    Args:
        streams: Modalities in the order of preference; none is valid in the samples that lack the modality.

    Returns:
        The anchors' tokens, and for each modality the samples whose anchor it is, (batch,) bool.
    """
    names = list(streams)
    present = torch.stack([streams[name].mask.any(1) for name in names], 1)
    first = present.to(torch.int8).argmax(1)
    is_anchor = {name: (first == number) & present[:, number] for number, name in enumerate(names)}
    if torch.compiler.is_compiling():  # no shape may depend on which modalities are there
        length = reduce(torch.sym_max, (streams[name].mask.shape[1] for name in names))
    else:
        length = max(int((streams[name].mask & is_anchor[name].unsqueeze(1)).sum(1).max()) for name in names)
    anchor = streams[names[0]].fitted(length)
    for name in names[1:]:
        anchor = streams[name].fitted(length).where(is_anchor[name], anchor)
    return anchor, is_anchor


def align(
    source: Tokens,
    anchor: Tokens,
    config: LocalAlignmentConfig,
    *,
    soft: SoftPlanConfig = SoftPlanConfig(),  # noqa: B008 # immutable
    time_weight: float | None = None,
) -> tuple[Tensor, Plan | None]:
    """Resample a modality to the anchor's length.

    Args:
        source: Of the modality.
        anchor: Of the anchor.
        config: Method and cost.
        soft: Plan of method ``soft``.
        time_weight: Used in place of that of the configuration, where given.

    Returns:
        (batch, anchor time, channel), and the matching where there is one.
    """
    if config.method == "proportional":
        return resample(source.x, source.mask, anchor.mask), None
    weight = config.time_weight if time_weight is None else time_weight
    times = _times_in(config.time_unit, source, anchor)
    if config.method == "soft":
        return _softly(source, anchor, config, soft, weight, times)
    sides = (source, anchor)
    if config.marginal == "anchor":
        sides, times = (anchor, source), times[::-1]
    index, similarity = match_tokens(
        *(side.x for side in sides),
        *(side.mask for side in sides),
        window=config.window,
        time_weight=weight,
        source_times=times[0],
        anchor_times=times[1],
    )
    if config.marginal == "anchor":
        return _take(source.x, index), Plan(index=index, similarity=similarity, marginal="anchor")
    taken = transport(source.x, index, source.mask, anchor.mask.shape[1], mass=config.mass)
    return taken, Plan(index=index, similarity=similarity)


def returned(read: Tensor, source: Tokens, anchor: Tokens, plan: Plan | None) -> Tokens:
    """Move what was read at the anchor's positions back to the tokens that `align` sent there.

    Args:
        read: (batch, anchor time, channel).
        source: Tokens of the modality before they were moved.
        anchor: Tokens of the anchor.
        plan: Matching that `align` made; ``None`` of method ``proportional``.

    Returns:
        One vector for each token: that of the position that took it, or the mean of several. Not valid where
        no position took the token.
    """
    if plan is None:
        back = source.mask & anchor.mask.any(1, keepdim=True)
        return Tokens(resample(read, anchor.mask, source.mask), back, source.times)
    if plan.marginal == "source":
        return Tokens(_take(read, plan.index), source.mask & (plan.index >= 0), source.times)
    length = source.mask.shape[1]
    taken = source.mask.new_zeros(len(source.mask), length + 1)
    taken = taken.scatter(1, plan.index.masked_fill(plan.index < 0, length), True)[:, :length]
    x = transport(read, plan.index, anchor.mask, length, mass="mean")
    return Tokens(x, source.mask & taken, source.times)


def _softly(
    source: Tokens,
    anchor: Tokens,
    config: LocalAlignmentConfig,
    soft: SoftPlanConfig,
    time_weight: float,
    times: tuple[Tensor | None, Tensor | None],
) -> tuple[Tensor, Plan]:
    """Resample by an entropic plan. Of that, the source token with the largest share of each anchor token."""
    found = soft_transport(
        source.x,
        anchor.x,
        source.mask,
        anchor.mask,
        marginal=config.marginal,
        regularisation=soft.regularisation,
        iterations=soft.iterations,
        window=config.window,
        time_weight=time_weight,
        source_times=times[0],
        anchor_times=times[1],
    )
    moved = found.values
    if config.mass == "paper":
        moved = (moved * found.mass.unsqueeze(-1)).to(moved.dtype)
    with torch.no_grad():
        similarity = F.cosine_similarity(_take(source.x, found.index), anchor.x, dim=2)
    similarity = similarity.masked_fill(found.index < 0, 0)
    return moved, Plan(index=found.index, similarity=similarity, marginal="anchor")


def _times_in(unit: TimeUnit, source: Tokens, anchor: Tokens) -> tuple[Tensor | None, Tensor | None]:
    """Times of both sides as operators take them; none where positions count."""
    return (None, None) if unit == "relative" else _common_times(source, anchor)


def _timed(source: Tokens, anchor: Tokens) -> Tensor:
    """(batch, 1) bool, the samples in which both sides know their times."""
    known = [(side.times.isfinite() | ~side.mask).all(1) for side in (source, anchor)]
    return (known[0] & known[1]).unsqueeze(1)


def _common_times(source: Tokens, anchor: Tokens) -> tuple[Tensor, Tensor]:
    """Times of both sides on one scale: seconds where both know them, positions from 0 to 1 otherwise."""
    known = _timed(source, anchor)
    source_times, anchor_times = (
        torch.where(known & side.mask, side.times.double(), relative_time(side.mask, torch.float64))
        for side in (source, anchor)
    )
    return source_times, anchor_times


def _take(source: Tensor, index: Tensor) -> Tensor:
    """The source token of each index, zero where it is -1."""
    if source.shape[1] == 0:
        return source.new_zeros(*index.shape, source.shape[2])
    taken = source.gather(1, index.clamp(min=0).unsqueeze(-1).expand(-1, -1, source.shape[2]))
    return taken.masked_fill((index < 0).unsqueeze(-1), 0)


def _beside_anchor(
    streams: Mapping[str, Tokens], is_anchor: Mapping[str, Tensor]
) -> Iterator[tuple[Tokens, Tensor]]:
    """Each modality that is not the anchor of every sample, with its mask where it is not the anchor."""
    for name, stream in streams.items():
        other = stream.mask & ~is_anchor[name].unsqueeze(1)
        if torch.compiler.is_compiling() or (other.shape[1] and not bool(is_anchor[name].all())):
            yield stream, other


def discrepancies(
    streams: Mapping[str, Tokens],
    anchor: Tokens,
    is_anchor: Mapping[str, Tensor],
    config: GlobalAlignmentConfig,
) -> Tensor:
    """Sum of MMD^2 over the configured pairs of present modalities, (batch,).

    Args:
        streams: Each modality's aligned tokens; a modality missing from a sample has no valid token there.
        anchor: The tokens that stand for the anchor.
        is_anchor: For each modality, (batch,) bool: the samples whose anchor it is.
        config: Pairs and bandwidth.
    """

    def apart(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor) -> Tensor:
        return mmd(x, y, x_mask, y_mask, bandwidth=config.bandwidth, landmarks=config.landmarks)

    total = anchor.x.new_zeros(len(anchor.x))
    for stream, other in _beside_anchor(streams, is_anchor):
        total = total + apart(stream.x, anchor.x, other, anchor.mask)
    if config.pairs == "all":
        for first, second in combinations(streams, 2):
            # Pairs that hold the anchor are counted above.
            neither = ~(is_anchor[first] | is_anchor[second]).unsqueeze(1)
            a, b = streams[first], streams[second]
            total = total + apart(a.x, b.x, a.mask & neither, b.mask & neither)
    return total


class Contrast(nn.Module):
    """Contrast of each present modality with the anchor, and what it learns and remembers for that.

    Args:
        config: Of the loss; its weight is not applied here.
        d_model: Width of a token.
    """

    steps: Tensor
    null: nn.Parameter

    def __init__(self, config: ContrastConfig, d_model: int) -> None:
        super().__init__()
        self.config = config
        if config.by_order:
            self.null = nn.Parameter(torch.randn(d_model))
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(
        self, encoded: Mapping[str, Tokens], anchor: Tokens, is_anchor: Mapping[str, Tensor]
    ) -> Tensor:
        """Sum over pairs, (batch,). Arguments as for `discrepancies`, with tokens as they are before local
        alignment.
        """
        total = anchor.x.new_zeros(len(anchor.x))
        beside = list(_beside_anchor(encoded, is_anchor))
        if self.config.by_order and self.training and beside:
            self.steps += 1
        for tokens, mask in beside:
            if self.config.by_order:
                timed = _timed(tokens, anchor)
                total = total + self._ordered(tokens, anchor, mask & ~timed)
                mask = mask & timed
                if not bool(mask.any()):  # all similarities would be computed for nothing
                    continue
            times = _common_times(tokens, anchor)
            total = total + time_contrast(
                tokens.x,
                anchor.x,
                mask,
                anchor.mask,
                reach=self.config.reach,
                temperature=self.config.temperature,
                among=self.config.among,
                source_times=times[0],
                anchor_times=times[1],
            )
        return total

    def _ordered(self, tokens: Tokens, anchor: Tokens, mask: Tensor) -> Tensor:
        return order_contrast(
            tokens.x,
            anchor.x,
            mask,
            anchor.mask,
            self.null,
            temperature=self.config.temperature,
            correction=self.config.correction,
            flat=self.training and bool(self.steps <= self.config.flat_steps),
        )


def distances(
    encoded: Mapping[str, Tokens],
    anchor: Tokens,
    is_anchor: Mapping[str, Tensor],
    config: TransportLossConfig,
    time_unit: TimeUnit,
) -> Tensor:
    """Sum of the transport distances of each present modality from the anchor, (batch,).

    Arguments as for `discrepancies`, with tokens as they are before local alignment.
    """
    total = anchor.x.new_zeros(len(anchor.x))
    for tokens, other in _beside_anchor(encoded, is_anchor):
        times = _times_in(time_unit, tokens, anchor) if config.time_weight else (None, None)
        total = total + transport_distance(
            tokens.x,
            anchor.x,
            other,
            anchor.mask,
            regularisation=config.regularisation,
            iterations=config.iterations,
            time_weight=config.time_weight,
            x_times=times[0],
            y_times=times[1],
        )
    return total


def merge_by_time(streams: list[Tokens]) -> tuple[Tensor, Tensor, Tensor]:
    """One sequence of all valid tokens in the order of their relative times, ties in the order of the
    streams.

    Returns:
        (batch, sum of times, channel) with valid tokens first; its mask; and the number of each token's
        stream, (batch, sum of times) int64.
    """
    return _in_order(streams, torch.cat([relative_time(stream.mask, torch.float64) for stream in streams], 1))


def concatenate(streams: list[Tokens]) -> tuple[Tensor, Tensor, Tensor]:
    """One sequence of all valid tokens, one stream after the other.

    Returns:
        As `merge_by_time`.
    """
    place = torch.cat([torch.zeros_like(stream.mask, dtype=torch.float64) for stream in streams], 1)
    return _in_order(streams, place)


_BEHIND_ALL: Final = 1 << 40
"""Place behind every token of a sequence."""


def picked(x: Tensor, chosen: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The chosen tokens of a sequence in their order, without those between them.

    Args:
        x: (batch, time, channel).
        chosen: (batch, time) bool.
        length: Most that are chosen of a sample.

    Returns:
        (batch, length, channel), zero behind those of a sample, and its mask.
    """
    # No two places are equal, so that the sort need not be stable: ONNX has none that is.
    place = torch.arange(chosen.shape[1], device=x.device) + _BEHIND_ALL * ~chosen
    order = place.argsort(dim=1)[:, :length]
    taken = x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    taken = F.pad(taken, (0, 0, 0, length - order.shape[1]))
    mask = torch.arange(length, device=x.device) < chosen.sum(1, keepdim=True)
    return taken.masked_fill(~mask.unsqueeze(-1), 0), mask


def _in_order(streams: list[Tokens], place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The valid tokens of all streams by their `place`, (batch, sum of times), stable; then padding. Beside
    them their mask and the numbers of their streams.
    """
    x = torch.cat([stream.x for stream in streams], 1)
    mask = torch.cat([stream.mask for stream in streams], 1)
    number = torch.cat(
        [stream.mask.new_full(stream.mask.shape, n, dtype=torch.int64) for n, stream in enumerate(streams)], 1
    )
    place = place.masked_fill(~mask, torch.inf)
    if exporting():
        # ONNX has no stable sort. Steps of float64 below 1 break ties, and reach no place of another time.
        place = place + torch.arange(place.shape[1], device=place.device) * 2.0**-52
        order = place.argsort(dim=1)
    else:
        order = place.argsort(dim=1, stable=True)
    return x.gather(1, order.unsqueeze(-1).expand_as(x)), mask.gather(1, order), number.gather(1, order)
