"""Entropic transport against plans in matrices, closed forms, and what may not change it."""

import math
from importlib import import_module
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops import SoftTransport, match_tokens, soft_transport, transport, transport_distance
from drawn import draw, prefix_mask, rising, spoiled
from instruments import KeptBytes, LargestTensor
from tolerances import EXACT, FLOAT32, FLOAT64, GRADCHECK

# By its full name: in the package the name stands for the function.
module = import_module("alignmamba.ops.entropic_transport")

MARGINALS = ("source", "anchor", "both")
COSTS: dict[str, dict[str, Any]] = {
    "content": {},
    "time": {"time_weight": 3.0},
    "window": {"window": 1},
    "window and time": {"window": 2, "time_weight": 0.5},
}
PARTS = ("values", "mass", "distance", "source_potential", "anchor_potential")


def given(**sides: Any) -> dict[str, Any]:
    """Four samples: one whole, one shorter on either side, and one that lacks either side."""
    return {
        "source": draw(4, 9, 4),
        "anchor": draw(4, 6, 4, seed=1),
        "source_mask": prefix_mask([9, 5, 0, 4], 9),
        "anchor_mask": prefix_mask([6, 4, 5, 0], 6),
        "source_times": rising(4, 9, seed=2),
        "anchor_times": rising(4, 6, seed=3),
        **sides,
    }


def in_matrices(
    row: int,
    *,
    marginal: str = "source",
    regularisation: float = 0.05,
    iterations: int = 20,
    window: int | None = None,
    time_weight: float = 0.0,
    **sides: Tensor,
) -> tuple[dict[str, Tensor], Tensor]:
    """The definition for one sample, over its valid tokens: parts of the result and the plan."""
    x, y, t, u = (
        sides[f"{name}{part}"][row][sides[f"{name}_mask"][row]]
        for part, name in product(("", "_times"), ("source", "anchor"))
    )
    cost = 1 - F.normalize(x, dim=1) @ F.normalize(y, dim=1).T + time_weight * (t[:, None] - u).square()
    logs = -cost / regularisation
    if window is not None:
        nearest = (t[:, None] - u).abs().argmin(1, keepdim=True)
        logs = logs.masked_fill((torch.arange(len(y)) - nearest).abs() > window, -torch.inf)
    f, g = x.new_zeros(len(x)), x.new_zeros(len(y))
    lost = (logs == -torch.inf).all(0)  # tokens of the anchor that no window holds
    for _ in range(iterations if marginal == "both" else 1):
        if marginal != "anchor":
            f = -math.log(len(x)) - (logs + g).logsumexp(1)
        if marginal != "source":
            g = (-math.log(len(y)) - (logs + f[:, None]).masked_fill(lost, 0).logsumexp(0)).masked_fill(
                lost, -torch.inf
            )
    plan = (logs + f[:, None] + g).exp()
    mass = plan.sum(0)
    return {
        "values": (plan.T @ x) / mass.where(~lost, 1)[:, None],
        "mass": mass,
        "distance": (plan * cost).sum(),
        "source_potential": regularisation * f,
        "anchor_potential": (regularisation * g).masked_fill(lost, -torch.inf),
    }, plan


def assert_equals_matrices(found: SoftTransport, expected: dict[str, Tensor], row: int) -> None:
    for name in PARTS:
        part, wanted = getattr(found, name)[row], expected[name]
        assert_close(part[: len(wanted)] if wanted.ndim else part, wanted, **FLOAT64, msg=name)


@pytest.mark.parametrize("entries", [1, 40, 2**21])
@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("marginal", MARGINALS)
def test_equals_its_definition(
    monkeypatch: pytest.MonkeyPatch, marginal: Any, cost: dict[str, Any], entries: int
) -> None:
    monkeypatch.setattr(module, "_TILE_ENTRIES", entries)
    arguments, options = given(), {"marginal": marginal, "regularisation": 0.3, "iterations": 3, **cost}
    sides = [arguments[name].requires_grad_() for name in ("source", "anchor")]
    found = soft_transport(**arguments, **options)
    weights = {name: draw(*getattr(found, name).shape, seed=7) for name in PARTS}
    ours, theirs = torch.zeros(()).double(), torch.zeros(()).double()
    for row in (0, 1):
        expected, plan = in_matrices(row, **options, **arguments)
        assert_equals_matrices(found, expected, row)
        largest = plan.argmax(0).masked_fill(plan.sum(0) == 0, -1)
        assert found.index[row, : len(largest)].tolist() == largest.tolist()
        for name, wanted in expected.items():
            weight = weights[name][row, : len(wanted)] if wanted.ndim else weights[name][row]
            part = getattr(found, name)[row]
            part = part[: len(wanted)] if wanted.ndim else part
            moved = wanted.isfinite()
            ours = ours + (part * weight)[moved].sum()
            theirs = theirs + (wanted * weight)[moved].sum()
    assert_close(torch.autograd.grad(ours, sides), torch.autograd.grad(theirs, sides), **FLOAT64)


@pytest.mark.parametrize("marginal", MARGINALS)
def test_gradcheck(marginal: Any) -> None:
    arguments = given()
    rest = {name: value for name, value in arguments.items() if name not in ("source", "anchor")}

    def run(source: Tensor, anchor: Tensor) -> tuple[Tensor, ...]:
        found = soft_transport(
            source, anchor, **rest, marginal=marginal, time_weight=1.0, regularisation=0.5, iterations=2
        )
        potentials = (found.source_potential, found.anchor_potential)
        return found.values, found.mass, found.distance, *(each[:2, :4] for each in potentials)

    sides = (arguments["source"].requires_grad_(), arguments["anchor"].requires_grad_())
    assert torch.autograd.gradcheck(run, sides, **GRADCHECK)


def test_marginals_that_are_kept() -> None:
    arguments = given()
    for marginal, rows, columns in (("source", True, False), ("anchor", False, True), ("both", True, True)):
        found = soft_transport(**arguments, marginal=marginal, iterations=1000, regularisation=0.2)
        cost = 1 - F.cosine_similarity(arguments["source"][:, :, None], arguments["anchor"][:, None], dim=3)
        logs = found.source_potential[:, :, None] + found.anchor_potential[:, None] - cost
        both = arguments["source_mask"][:, :, None] & arguments["anchor_mask"][:, None]
        plan = (logs / 0.2).exp().masked_fill(~both, 0)[:2]
        for dim, length, kept in ((2, (9, 5), rows), (1, (6, 4), columns)):
            wanted = both[:2].any(dim) / torch.tensor(length).double()[:, None]
            assert torch.allclose(plan.sum(dim), wanted, rtol=1e-8, atol=1e-12) == kept
        assert_close(plan.sum((1, 2)), torch.ones(2).double(), **FLOAT64)


def test_little_regularisation_is_the_hard_matching() -> None:
    arguments = given()
    found = soft_transport(**arguments, time_weight=2.0, regularisation=1e-4)
    index, _ = match_tokens(**arguments, time_weight=2.0)
    hard = transport(arguments["source"], index, arguments["source_mask"], 6, mass="mean")
    hit = hard.any(2)
    assert hit.any()
    assert not hit[:2].all()  # of the rest, a soft plan says something too
    assert_close(found.values[hit], hard[hit], **FLOAT32)
    paper = transport(arguments["source"], index, arguments["source_mask"], 6, mass="paper")
    assert_close(found.values * found.mass[..., None], paper, **FLOAT32)


def test_closed_forms() -> None:
    x, mask = draw(1, 5, 4), prefix_mask([5], 5)
    for marginal in MARGINALS:
        # equal sequences: every token goes to itself
        same = soft_transport(x, x, mask, mask, marginal=marginal, regularisation=1e-3, iterations=50)
        assert_close(same.values, x, **FLOAT64)
        assert same.index.tolist() == [[0, 1, 2, 3, 4]]
        # one token: it goes everywhere, or everything goes to it
        one = soft_transport(x[:, :1], x, mask[:, :1], mask, marginal=marginal)
        assert_close(one.values, x[:, :1].expand(1, 5, 4), **FLOAT64)
        all_to_one = soft_transport(x, x[:, :1], mask, mask[:, :1], marginal=marginal, regularisation=1e6)
        assert_close(all_to_one.values, x.mean(1, keepdim=True), rtol=1e-5, atol=1e-5)
        # equal costs: the product of the marginals
        flat = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0], [2.0, 1, 0]]]).double()
        other = torch.tensor([[[0.0, 0, 4.0], [0, 0, 1.0]]]).double()
        some = soft_transport(flat, other, mask[:, :3], mask[:, :2], marginal=marginal)
        assert_close(some.values, flat.mean(1, keepdim=True).expand(1, 2, 3), **FLOAT64)
        assert_close(some.mass, torch.full((1, 2), 0.5).double(), **FLOAT64)
        assert_close(some.distance, torch.ones(1).double(), **FLOAT64)


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("marginal", MARGINALS)
def test_padding_and_its_content_change_nothing(marginal: Any, cost: dict[str, Any]) -> None:
    arguments = given()
    plain = soft_transport(**arguments, marginal=marginal, **cost)
    for name, longer in (("source", 13), ("anchor", 11)):
        x, mask, times = (arguments[each] for each in (name, f"{name}_mask", f"{name}_times"))
        more = longer - x.shape[1]
        tokens, arguments[f"{name}_mask"] = spoiled(x, mask, more)
        arguments[name] = tokens.requires_grad_()
        arguments[f"{name}_times"] = F.pad(times.masked_fill(~mask, math.nan), (0, more), value=-1)
    found = soft_transport(**arguments, marginal=marginal, **cost)
    assert_close(found.values[:, :6], plain.values, **FLOAT64)
    assert_close(found.distance, plain.distance, **FLOAT64)
    assert not found.mass[:, 6:].any()
    assert (found.index[:, 6:] == -1).all()
    wanted = torch.autograd.grad(found.values.sum() + found.distance.sum(), arguments["anchor"])[0]
    assert wanted.isfinite().all()
    assert not wanted[:, 6:].any()


def test_sides_without_tokens_move_nothing() -> None:
    arguments = given()
    arguments["source"].requires_grad_()
    for marginal in MARGINALS:
        found = soft_transport(**arguments, marginal=marginal)
        for name in ("values", "mass", "distance"):
            assert not getattr(found, name)[2:].any()
        assert (found.index[2:] == -1).all()
        (slope,) = torch.autograd.grad(found.distance.sum() + found.values.sum(), arguments["source"])
        assert not slope[2:].any()
        assert slope[:2].isfinite().all()
        for name in ("source", "anchor"):
            nothing = given()
            nothing |= {key: nothing[key][:, :0] for key in (name, f"{name}_mask", f"{name}_times")}
            empty = soft_transport(**nothing, marginal=marginal)
            assert not empty.values.any()
            assert empty.values.shape == (4, nothing["anchor"].shape[1], 4)
            assert empty.source_potential.shape == nothing["source_mask"].shape
            assert (empty.index == -1).all()


def test_the_order_of_the_source_is_of_no_account_without_times() -> None:
    arguments = {k: v for k, v in given().items() if "times" not in k}
    order = torch.tensor([3, 0, 4, 1, 2, 5, 6, 7, 8])  # of the first five tokens, which two samples have
    moved = {**arguments, "source": arguments["source"][:, order]}
    for marginal in MARGINALS:
        plain, other = (soft_transport(**each, marginal=marginal) for each in (arguments, moved))
        assert_close(other.values[:2], plain.values[:2], **FLOAT64)
        assert_close(other.distance[:2], plain.distance[:2], **FLOAT64)


def test_clocks_may_be_moved() -> None:
    """Both together always; one alone where both marginals are kept, since it adds to the cost a term of each
    side alone.
    """
    arguments, options = given(), {"time_weight": 3.0, "iterations": 300, "regularisation": 1.0}
    both = {f"{name}_times": arguments[f"{name}_times"] + 50 for name in ("source", "anchor")}
    for marginal in MARGINALS:
        plain = soft_transport(**arguments, marginal=marginal, **options)
        moved = soft_transport(**{**arguments, **both}, marginal=marginal, **options)
        assert_close(moved.values, plain.values, rtol=1e-8, atol=1e-8)
        one = {**arguments, "source_times": arguments["source_times"] + 0.5}
        shifted = soft_transport(**one, marginal=marginal, **options)
        alike = torch.allclose(shifted.values, plain.values, rtol=1e-6, atol=1e-6)
        assert alike == (marginal == "both")


@pytest.mark.parametrize("tile_entries", [2**21, 64])
@pytest.mark.parametrize("marginal", ["source", "anchor", "both"])
def test_content_counts_among_tokens_that_lie_far_apart(
    monkeypatch: pytest.MonkeyPatch, marginal: Any, tile_entries: int
) -> None:
    """Costs of half a minute are millions; content decides by less than one."""
    monkeypatch.setattr(module, "_TILE_ENTRIES", tile_entries)
    sides = {"source": draw(1, 60, 8, seed=0).float(), "anchor": draw(1, 10, 8, seed=1).float()}
    masks = {"source_mask": prefix_mask([60], 60), "anchor_mask": prefix_mask([10], 10)}
    times = {
        "source_times": torch.arange(60.0)[None] / 2,
        "anchor_times": 20 + torch.arange(10.0)[None] * 1e-3,
    }
    options = {"marginal": marginal, "time_weight": 1000.0}
    single = soft_transport(**sides, **masks, **times, **options)
    double = soft_transport(**{n: x.double() for n, x in sides.items()}, **masks, **times, **options)
    assert single.mass.dtype == single.distance.dtype == single.source_potential.dtype == torch.float32
    for name in ("values", "mass", "distance"):
        assert_close(getattr(single, name), getattr(double, name).float(), **FLOAT32)
    if marginal != "anchor":
        assert_close(single.mass.sum(1), torch.ones(1), **FLOAT32)
    of_x = {"x_times": times["source_times"], "y_times": times["anchor_times"], "time_weight": 1000.0}
    arguments = (sides["source"], sides["anchor"], masks["source_mask"], masks["anchor_mask"])
    distance = transport_distance(*arguments, **of_x)
    exact = transport_distance(*(x.double() if x.is_floating_point() else x for x in arguments), **of_x)
    assert_close(distance, exact.float(), **FLOAT32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_side_without_tokens_keeps_the_type(dtype: torch.dtype) -> None:
    source, anchor = torch.zeros(2, 0, 3, dtype=dtype), torch.ones(2, 4, 3, dtype=dtype)
    found = soft_transport(source, anchor, prefix_mask([0, 0], 0), prefix_mask([4, 2], 4))
    assert found.values.dtype == dtype
    assert found.mass.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    arguments = given()
    low = {name: arguments[name].to(dtype) for name in ("source", "anchor")}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = soft_transport(**arguments | low, marginal="both")
    plain = soft_transport(**arguments | {n: x.float() for n, x in low.items()}, marginal="both")
    assert found.values.dtype == dtype
    assert_close(found.values, plain.values.to(dtype), **EXACT)
    assert_close(found.distance, plain.distance, **EXACT)


@pytest.mark.parametrize("marginal", ["source", "both"])
def test_memory_is_linear(monkeypatch: pytest.MonkeyPatch, marginal: Any) -> None:
    entries, time, channel = 4096, 512, 4
    monkeypatch.setattr(module, "_TILE_ENTRIES", entries)
    source, anchor = (draw(1, time, channel, seed=seed).requires_grad_() for seed in (0, 1))
    mask, kept = prefix_mask([time], time), KeptBytes()
    with LargestTensor() as largest, torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
        found = soft_transport(source, anchor, mask, mask, marginal=marginal, iterations=2)
        distance = transport_distance(source, anchor, mask, mask, iterations=2).sum()
        waiting = kept.total  # the backward pass keeps what it computes again for one tile at a time
        (found.values.sum() + found.distance.sum() + distance).backward()
    assert largest.numel <= entries
    assert waiting <= 8 * 60 * time * channel


def test_a_window_looks_at_few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TILE_ENTRIES", 4096)
    x, mask, looked_at = draw(1, 512, 4), prefix_mask([512], 512), []
    computed = module.PairCosts._computed

    def counted(self: Any, rows: slice, columns: slice) -> Tensor:
        found = computed(self, rows, columns)
        looked_at.append(found.numel())
        return found

    monkeypatch.setattr(module.PairCosts, "_computed", counted)
    soft_transport(x, x, mask, mask, window=4)
    assert sum(looked_at) <= 2 * 512 * (2 * 4 + 2 * 8)


# The distance


def distance_in_a_matrix(
    x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, regularisation: float, iterations: int
) -> Tensor:
    """The distance as versions before 0.4 computed it."""
    one, other = (
        F.normalize(side.masked_fill(~mask.unsqueeze(-1), 0), dim=2)
        for side, mask in ((x, x_mask), (y, y_mask))
    )
    cost = 1 - one @ other.transpose(1, 2)
    with torch.no_grad():
        rows, columns = (
            torch.where(mask, -mask.sum(1, keepdim=True).clamp(min=1).to(x.dtype).log(), -1e30)
            for mask in (x_mask, y_mask)
        )
        f, g = torch.zeros_like(rows), torch.zeros_like(columns)
        valid = x_mask.unsqueeze(2) & y_mask.unsqueeze(1)
        logs = (-cost / regularisation).masked_fill(~valid, -1e30)
        for _ in range(iterations):
            f = rows - (logs + g.unsqueeze(1)).logsumexp(2).masked_fill(~x_mask, 0)
            g = columns - (logs + f.unsqueeze(2)).logsumexp(1).masked_fill(~y_mask, 0)
        plan = (logs + f.unsqueeze(2) + g.unsqueeze(1)).masked_fill(~valid, -torch.inf).exp()
        plan = plan.masked_fill(~valid, 0)
    return (plan * cost).sum((1, 2))


@pytest.mark.parametrize("entries", [1, 40, 2**21])
def test_the_distance_is_that_of_the_plan_in_a_matrix(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """To the last bit where all pairs fit into a tile, so that earlier figures of AlignMamba-2 stay."""
    monkeypatch.setattr(module, "_TILE_ENTRIES", entries)
    arguments = given()
    sides = [arguments[name].float().requires_grad_() for name in ("source", "anchor")]
    masks = arguments["source_mask"], arguments["anchor_mask"]
    found = transport_distance(*sides, *masks, regularisation=0.05, iterations=30)
    expected = distance_in_a_matrix(*sides, *masks, 0.05, 30)
    allowed = EXACT if entries == 2**21 else {"rtol": 1e-6, "atol": 1e-7}
    assert_close(found, expected, **allowed)
    slopes = [torch.autograd.grad(each.sum(), sides) for each in (found, expected)]
    assert_close(*slopes, **(EXACT if entries == 2**21 else FLOAT32))


def test_the_slope_of_the_distance_is_that_of_the_regularised_optimum() -> None:
    """The plan held, by the envelope theorem: ``min <P, C> - regularisation * entropy``."""
    arguments = given()
    masks = {name: arguments[name] for name in ("source_mask", "anchor_mask")}
    anchor, options = arguments["anchor"], {"regularisation": 0.3, "iterations": 500}

    def optimum(source: Tensor) -> Tensor:
        found = soft_transport(source, anchor, **masks, marginal="both", **options)
        sums = (
            (each.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp(min=1))[:2]
            for each, mask in (
                (found.source_potential, arguments["source_mask"]),
                (found.anchor_potential, arguments["anchor_mask"]),
            )
        )
        return sum(sums).sum()

    source = arguments["source"].requires_grad_()
    distance = transport_distance(source, anchor, *masks.values(), **options)
    assert_close(*(torch.autograd.grad(each, source)[0] for each in (distance[:2].sum(), optimum(source))))


def test_the_distance_takes_time_into_account() -> None:
    arguments = given()
    names = {"source": "x", "anchor": "y", "source_mask": "x_mask", "anchor_mask": "y_mask"}
    sides = {names[name]: arguments[name] for name in names}
    times = {f"{names[name]}_times": arguments[f"{name}_times"] for name in ("source", "anchor")}
    whole = soft_transport(**arguments, marginal="both", time_weight=2.0, iterations=30)
    assert_close(
        transport_distance(**sides, **times, time_weight=2.0, iterations=30), whole.distance, **FLOAT64
    )
    relative = transport_distance(**sides, time_weight=2.0)
    assert not torch.allclose(relative[:2], transport_distance(**sides)[:2])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"regularisation": 0.0}, ConfigError, "regularisation: expected a number from 0.0001 on, found 0.0"),
        (
            {"regularisation": math.nan},
            ConfigError,
            "regularisation: expected a number from 0.0001 on, found nan",
        ),
        ({"iterations": 0}, ConfigError, "iterations: expected at least 1, found 0"),
        ({"marginal": "neither"}, ConfigError, "marginal: expected 'source', 'anchor' or 'both', found 'nei"),
        ({"window": -1}, ConfigError, "window: expected a whole number from 0 to"),
        ({"time_weight": -1.0}, ConfigError, "time_weight: expected at least 0 and finite, found -1.0"),
        ({"source_times": None}, ConfigError, "source_times and anchor_times: give both or neither"),
        ({"anchor_times": rising(4, 6).flip(1)}, ShapeError, "anchor_times: expected times that do not decr"),
        ({"anchor": draw(4, 6, 5)}, ShapeError, "batch and channel must agree"),
        ({"source_mask": torch.ones(4, 9)}, ShapeError, "source_mask: expected bool"),
    ],
)
def test_refusals(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        soft_transport(**given() | changes)


def test_refusals_of_the_distance() -> None:
    x, mask = draw(1, 3, 2), prefix_mask([3], 3)
    with pytest.raises(ConfigError, match="time_weight: expected at least 0"):
        transport_distance(x, x, mask, mask, time_weight=-1.0)
    with pytest.raises(ConfigError, match="give both or neither"):
        transport_distance(x, x, mask, mask, x_times=rising(1, 3))
