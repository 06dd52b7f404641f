"""Transport by an entropic plan: soft alignment of two sequences, and how far one is from the other."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops.backends import without_autocast
from alignmamba.ops.pair_tiles import LEAST, PairCosts, Tile, TileStep, exponentials
from alignmamba.ops.sequence import check_mask
from alignmamba.ops.transport import check_cost, check_sides, checked_times

KeptMarginal = Literal["source", "anchor", "both"]

LEAST_REGULARISATION = 1e-4
"""The smallest that keeps digits of float32 for the shares of a plan: costs are divided by it."""

# Pairs of one tile over the whole batch: 8 MB in float32, whatever the lengths.
_TILE_ENTRIES = 2**21


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftTransport:
    """An entropic plan ``P(i, j) = exp((f_i + g_j - C(i, j)) / regularisation)``, as far as memory linear in
    both lengths can hold it, and what it carries.
    """

    values: Tensor
    """(batch, anchor time, channel), the mean of source tokens by the weights of a column of the plan; zero
    where nothing arrives."""
    mass: Tensor
    """(batch, anchor time), sums of the columns."""
    distance: Tensor
    """(batch,), the cost of the plan, ``sum P(i, j) C(i, j)``."""
    source_potential: Tensor
    """(batch, source time), f; zero at padding, negative infinity where nothing is sent."""
    anchor_potential: Tensor
    """(batch, anchor time), g; zero at padding, negative infinity where nothing arrives."""
    index: Tensor
    """(batch, anchor time) int64, the source token with the largest share of each column; -1 for none."""


def soft_transport(
    source: Tensor,
    anchor: Tensor,
    source_mask: Tensor,
    anchor_mask: Tensor,
    *,
    marginal: KeptMarginal = "source",
    regularisation: float = 0.05,
    iterations: int = 20,
    window: int | None = None,
    time_weight: float = 0.0,
    source_times: Tensor | None = None,
    anchor_times: Tensor | None = None,
) -> SoftTransport:
    r"""Align by an entropic plan, which has a gradient: the soft counterpart of `match_tokens` and
    `transport`.

    The plan minimises ``sum P C - regularisation * entropy(P)`` at the cost of `match_tokens`, under the
    marginals that are kept. All valid tokens of a side weigh the same. With ``"source"`` or ``"anchor"`` it
    is a softmax of costs over one side; with ``"both"``, what Sinkhorn's iterations over logarithms reach,
    the anchor's marginal last. Gradients are exact for the number of iterations: they go through all of them.

    Memory is linear in the number of tokens, times iterations where gradients are wanted. Time is O(source *
    anchor * channel * iterations), or with a window O((source + anchor) * window * channel * iterations).

    Args:
        source: (batch, source time, channel), floating.
        anchor: (batch, anchor time, channel), floating.
        source_mask: (batch, source time) bool, valid tokens first.
        anchor_mask: (batch, anchor time) bool, valid tokens first.
        marginal: Marginals that are kept: ``"source"``, as the paper's relaxed problem, ``"anchor"``, or
            ``"both"``, balanced transport.
        regularisation: Weight of the entropy, in units of the cost, 1e-4 or more; towards 0 the plan becomes
            the hard one. In time the plan is about ``sqrt(regularisation / time_weight)`` wide.
        iterations: Of Sinkhorn, used with ``"both"``.
        window: As in `match_tokens`: pairs further apart have no mass. Both marginals may then be impossible
            to keep; the anchor's is.
        time_weight: As in `match_tokens`.
        source_times: As in `match_tokens`.
        anchor_times: As in `match_tokens`.

    Returns:
        `SoftTransport`: values in the type of the source, the rest at least float32. Nothing is moved where a
        side has no valid token.

    Raises:
        ShapeError: If shapes, dtypes or devices do not fit; on the CPU also if a valid token follows one that
            is not, or `anchor_times` decrease.
        ConfigError: If an option is out of range, or one of the times is missing.

    Source:
        Cuturi, NIPS 2013, arXiv:1306.0895; over logarithms and with one marginal as in Peyre & Cuturi, 2019,
        arXiv:1803.00567, sections 4.4 and 10.2; the values are the barycentric projection of its section 9.3.
    """
    check_sides(source, anchor, source_mask, anchor_mask)
    check_cost(window, time_weight)
    _check_entropy(regularisation, iterations)
    if marginal not in get_args(KeptMarginal):
        raise ConfigError(f"marginal: expected 'source', 'anchor' or 'both', found {marginal!r}")
    times = checked_times(source_times, anchor_times, source_mask, anchor_mask)
    if source.shape[1] == 0 or anchor.shape[1] == 0:
        return _nothing(source, anchor)
    with without_autocast(source.device):
        pairs = PairCosts(
            source,
            anchor,
            source_mask,
            anchor_mask,
            tile_entries=_TILE_ENTRIES,
            regularisation=regularisation,
            time_weight=time_weight,
            times=times,
            window=window,
            passes=2 * iterations if marginal == "both" else 2,
        )
        return _carried(pairs, source, _source_potential(pairs, marginal, iterations), marginal)


def transport_distance(
    x: Tensor,
    y: Tensor,
    x_mask: Tensor,
    y_mask: Tensor,
    *,
    regularisation: float = 0.05,
    iterations: int = 30,
    time_weight: float = 0.0,
    x_times: Tensor | None = None,
    y_times: Tensor | None = None,
) -> Tensor:
    r"""Cost of moving the valid tokens of one sequence onto those of the other, sample by sample, by an
    entropic plan.

    The cost of a pair is that of `match_tokens`; all valid tokens of a side weigh the same. The plan, found
    by Sinkhorn's iterations over logarithms, is a constant to the gradient. Memory is linear in the number of
    tokens; time is O(x time * y time * channel * iterations).

    Args:
        x: (batch, x time, channel), floating.
        y: (batch, y time, channel), of the same dtype.
        x_mask: (batch, x time) bool; with times, valid tokens first.
        y_mask: (batch, y time) bool; with times, valid tokens first.
        regularisation: Weight of the entropy, 1e-4 or more; the smaller, the nearer to the exact distance,
            and the more iterations are needed.
        iterations: Of Sinkhorn.
        time_weight: Weight of the squared time difference.
        x_times: (batch, x time), used with a weight; position from 0 to 1 within the sequence if not given.
        y_times: (batch, y time), not decreasing; given exactly when `x_times` are.

    Returns:
        (batch,), at least float32; zero for a sample where a side has no valid token.

    Raises:
        ShapeError: If shapes do not fit.
        ConfigError: If `regularisation` is too small or not finite, there is no iteration, the weight is
            negative, or one of the times is missing.

    Source:
        Cuturi, NIPS 2013, arXiv:1306.0895, algorithm 1, over logarithms.
    """
    check_mask("x_mask", x_mask, x)
    check_mask("y_mask", y_mask, y)
    if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise ShapeError(f"x has shape {tuple(x.shape)}, y {tuple(y.shape)}: batch and channel must agree")
    _check_entropy(regularisation, iterations)
    check_cost(None, time_weight)
    times = None
    if time_weight or x_times is not None or y_times is not None:
        check_sides(x, y, x_mask, y_mask)
        times = checked_times(x_times, y_times, x_mask, y_mask)
    result = torch.promote_types(x.dtype, torch.float32)
    if x.shape[1] == 0 or y.shape[1] == 0:
        return x.new_zeros(len(x), dtype=result)
    with without_autocast(x.device):
        pairs = PairCosts(
            x,
            y,
            x_mask,
            y_mask,
            tile_entries=_TILE_ENTRIES,
            regularisation=regularisation,
            time_weight=time_weight,
            times=times,
        )
        with torch.no_grad():
            ours = _source_potential(pairs, "both", iterations)
        if pairs.kept is not None:
            with torch.no_grad():
                theirs = _kept(pairs.logsumexp(1, ours), y_mask)
                logs = pairs.logs() + ours.unsqueeze(2) + theirs.unsqueeze(1)
                plan = logs.masked_fill(pairs.forbidden(), -torch.inf).exp()
            return (plan * pairs.kept).sum((1, 2)).to(result)
        nothing = pairs.x[..., :0]
        total, _, cost, _ = pairs.tile_by_tile(_Carry(regularisation, held=True), 1, ours, nothing)
        received = y_mask & (total > LEAST / 2)
        mass = (total + _kept(total, y_mask)).exp().masked_fill(~received, 0)
        return (mass * cost.masked_fill(~received, 0)).sum(1).to(result)


def _check_entropy(regularisation: float, iterations: int) -> None:
    if not LEAST_REGULARISATION <= regularisation < float("inf"):
        raise ConfigError(
            f"regularisation: expected a number from {LEAST_REGULARISATION} on, found {regularisation}"
        )
    if iterations < 1:
        raise ConfigError(f"iterations: expected at least 1, found {iterations}")


def _nothing(source: Tensor, anchor: Tensor) -> SoftTransport:
    """The plan between sides of which one has no token, valid or not."""
    batch, n, m = source.shape[0], source.shape[1], anchor.shape[1]
    empty = source.new_zeros(0, dtype=torch.promote_types(source.dtype, torch.float32))
    return SoftTransport(
        values=source.new_zeros(batch, m, source.shape[2]),
        mass=empty.new_zeros(batch, m),
        distance=empty.new_zeros(batch),
        source_potential=empty.new_zeros(batch, n),
        anchor_potential=empty.new_zeros(batch, m),
        index=torch.full((batch, m), -1, dtype=torch.int64, device=source.device),
    )


def _source_potential(pairs: PairCosts, marginal: KeptMarginal, iterations: int) -> Tensor:
    """(batch, source time), over the regularisation; `LEAST` where there is no mass."""
    mask, other_mask = pairs.masks
    if marginal == "anchor":
        return pairs.x.new_zeros(mask.shape).masked_fill(~mask, LEAST)
    found = _kept(pairs.logsumexp(2), mask)
    for _ in range(iterations - 1 if marginal == "both" else 0):
        other = _kept(pairs.logsumexp(1, found), other_mask)
        found = _kept(pairs.logsumexp(2, other), mask)
    return found


def _kept(total: Tensor, mask: Tensor) -> Tensor:
    """The potential of one side under which its tokens have equal shares, from the logarithms of their sums
    without it.
    """
    share = -mask.sum(1, keepdim=True).clamp(min=1).to(total.dtype).log()
    # Where the other side is empty, or nothing lies within the window, nothing is moved.
    return torch.where(mask & (total > LEAST / 2), share - total, LEAST)


def _carried(pairs: PairCosts, source: Tensor, ours: Tensor, marginal: KeptMarginal) -> SoftTransport:
    """Carry tokens by the plan of a source potential, in one more pass over all pairs."""
    tokens = source.to(ours.dtype).masked_fill(~pairs.masks[0].unsqueeze(-1), 0)

    def of_kept() -> tuple[Tensor, ...]:
        logs = pairs.logs()
        scores = logs + ours.unsqueeze(2)
        total = scores.logsumexp(1)
        weights = (scores - total.unsqueeze(1)).exp()
        cost = -pairs.regularisation * (weights * logs).sum(1)
        return total, weights.transpose(1, 2) @ tokens, cost, scores.detach().argmax(1)

    if pairs.kept is None:
        total, values, cost, index = pairs.tile_by_tile(_Carry(pairs.regularisation), 1, ours, tokens)
    else:
        total, values, cost, index = pairs.of_kept(of_kept)
    source_mask, anchor_mask = pairs.masks
    received = anchor_mask & (total > LEAST / 2)
    theirs = torch.zeros_like(total) if marginal == "source" else _kept(total, anchor_mask)
    mass = (total + theirs).exp().masked_fill(~received, 0)
    result = torch.promote_types(source.dtype, torch.float32)
    return SoftTransport(
        values=values.masked_fill(~received.unsqueeze(-1), 0).to(source.dtype),
        mass=mass.to(result),
        distance=(mass * cost.masked_fill(~received, 0)).sum(1).to(result),
        source_potential=_in_costs(ours, pairs.regularisation, source_mask, ours > LEAST / 2).to(result),
        anchor_potential=_in_costs(theirs, pairs.regularisation, anchor_mask, received).to(result),
        index=index.masked_fill(~received, -1),
    )


@dataclass(frozen=True, slots=True)
class _Carry(TileStep):
    """Carries tokens by the columns of a plan: the logarithms of their sums, mean tokens, mean costs and
    largest shares, all (batch, anchor time, ...), from a source potential and tokens.
    """

    regularisation: float
    held: bool = False
    """The plan is a constant to the gradient of the costs, which is the only one."""

    def value(self, tile: Tile) -> tuple[Tensor, ...]:
        """Sums, means and places of one tile."""
        ours, tokens = tile.beside
        weights = torch.add(tile.logs, ours.unsqueeze(2), out=tile.spare)
        index = weights.argmax(1) + tile.across.start
        largest, total = exponentials(weights, 1)
        values = weights.div_(total).transpose(1, 2) @ tokens
        cost = -self.regularisation * tile.logs.mul_(weights).sum(1)
        return total.log_().add_(largest).squeeze(1), values, cost, index

    def slope(
        self, tile: Tile, results: tuple[Tensor, ...], slopes: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        """Through means of tokens and of costs under the softmax of ``logs + ours``."""
        logs, (ours, tokens) = tile.logs, tile.beside
        (total, values, cost, _), (by_total, by_values, by_cost, _) = results, slopes
        weights = torch.add(logs, ours.unsqueeze(2), out=tile.spare).sub_(total.unsqueeze(1)).exp_()
        by_mean_log = (-self.regularisation * by_cost).unsqueeze(1)
        if self.held:
            torch.mul(weights, by_mean_log, out=logs)
            return None, None
        by_tokens = weights @ by_values
        # the slope of a weight, less the mean of these, is that of its logarithm over the weight
        mean = (values * by_values).sum(2) + cost * by_cost
        logs.mul_(by_mean_log).baddbmm_(tokens, by_values.transpose(1, 2))
        logs.add_((by_total - mean).unsqueeze(1)).mul_(weights)
        by_ours = logs.sum(2)
        logs.add_(weights.mul_(by_mean_log))
        return by_ours, by_tokens


def _in_costs(potential: Tensor, regularisation: float, mask: Tensor, moved: Tensor) -> Tensor:
    """A potential in units of the cost: zero at padding, negative infinity where no mass is moved."""
    return (regularisation * potential).masked_fill(~moved, -torch.inf).masked_fill(~mask, 0)
