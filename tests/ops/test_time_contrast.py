"""Contrast over time against its definition in loops, closed forms, and what may not change it."""

import math
from importlib import import_module
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops import time_contrast
from drawn import draw, prefix_mask, rising, spoiled
from instruments import KeptBytes, LargestTensor, Products
from tolerances import EXACT, FLOAT32, FLOAT64, GRADCHECK

# By its full name: in the package the name stands for the function.
module = import_module("alignmamba.ops.time_contrast")


def given() -> dict[str, Any]:
    """Three samples: one shorter on either side, and one without a source."""
    return {
        "source": draw(3, 9, 4),
        "anchor": draw(3, 6, 4, seed=1),
        "source_mask": prefix_mask([9, 5, 0], 9),
        "anchor_mask": prefix_mask([4, 6, 5], 6),
        "source_times": rising(3, 9, seed=2),
        "anchor_times": rising(3, 6, seed=3),
    }


def by_loop(reach: int, temperature: float, among: str = "sample", **arguments: Tensor) -> Tensor:
    """The definition, one token at a time."""
    losses = []
    every = {name: arguments[name][arguments[f"{name}_mask"]] for name in ("source", "anchor")}
    for row in range(len(arguments["source"])):
        sides = [
            (arguments[name][row][mask], arguments[f"{name}_times"][row][mask])
            for name in ("source", "anchor")
            for mask in (arguments[f"{name}_mask"][row],)
        ]
        total = sum(side[0].sum() * 0 for side in sides)
        if all(len(x) for x, _ in sides):
            for (x, when), (y, then), others in zip(
                sides, sides[::-1], (every["anchor"], every["source"]), strict=True
            ):
                similarity = F.normalize(x, dim=1) @ F.normalize(y, dim=1).T / temperature
                to_all = F.normalize(x, dim=1) @ F.normalize(others, dim=1).T / temperature
                repelling = similarity if among == "sample" else to_all
                for i in range(len(x)):
                    nearest = int((then - when[i]).abs().argmin())
                    partners = similarity[i, max(0, nearest - reach) : nearest + reach + 1]
                    total = total + (repelling[i].logsumexp(0) - partners.mean()) / len(x)
        losses.append(total)
    return torch.stack([torch.as_tensor(each) for each in losses])


@pytest.mark.parametrize("reach", [0, 1, 3])
@pytest.mark.parametrize("entries", [1, 40, 2**21])
@pytest.mark.parametrize("among", ["sample", "batch"])
def test_equals_its_definition(
    monkeypatch: pytest.MonkeyPatch, reach: int, entries: int, among: Literal["sample", "batch"]
) -> None:
    monkeypatch.setattr(module, "_TILE_ENTRIES", entries)
    arguments = given()
    sides = [arguments[name].requires_grad_() for name in ("source", "anchor")]
    found = time_contrast(**arguments, reach=reach, temperature=0.2, among=among)
    expected = by_loop(reach, 0.2, among, **arguments)
    assert_close(found, expected, **FLOAT64)
    assert_close(
        torch.autograd.grad(found.sum(), sides), torch.autograd.grad(expected.sum(), sides), **FLOAT64
    )


@pytest.mark.parametrize("among", ["sample", "batch"])
def test_gradcheck(among: Literal["sample", "batch"]) -> None:
    arguments = given()
    rest = {name: value for name, value in arguments.items() if name not in ("source", "anchor")}
    assert torch.autograd.gradcheck(
        lambda source, anchor: time_contrast(source, anchor, **rest, temperature=0.5, among=among),
        (arguments["source"].requires_grad_(), arguments["anchor"].requires_grad_()),
        **GRADCHECK,
    )


def test_closed_forms() -> None:
    """Tokens that are all alike cost the logarithm of how many there are; orthogonal ones next to nothing."""
    masks = {"source_mask": prefix_mask([5], 5), "anchor_mask": prefix_mask([5], 5)}
    alike = time_contrast(torch.ones(1, 5, 5), torch.ones(1, 5, 5), **masks)
    assert_close(alike, torch.tensor([2 * math.log(5)]), **FLOAT32)
    apart = torch.eye(5).unsqueeze(0)
    matched = time_contrast(apart, apart, **masks, reach=0, temperature=0.1)
    assert_close(matched, torch.tensor([2 * math.log1p(4 * math.exp(-10))]), **FLOAT32)
    swapped = time_contrast(apart, apart.flip(1), **masks, reach=0, temperature=0.1)
    assert swapped.item() > 10
    four = {name: mask.expand(4, 5) for name, mask in masks.items()}
    of_the_batch = time_contrast(torch.ones(4, 5, 5), torch.ones(4, 5, 5), **four, among="batch")
    assert_close(of_the_batch, torch.full((4,), 2 * math.log(20)), **FLOAT32)


@pytest.mark.parametrize("among", ["sample", "batch"])
def test_padding_and_its_content_change_nothing(among: Literal["sample", "batch"]) -> None:
    arguments = given() | {"among": among}
    plain = time_contrast(**arguments)
    for name, longer in (("source", 13), ("anchor", 11)):
        x, mask, times = (arguments[each] for each in (name, f"{name}_mask", f"{name}_times"))
        more = longer - x.shape[1]
        arguments[name], arguments[f"{name}_mask"] = spoiled(x, mask, more)
        arguments[f"{name}_times"] = F.pad(times.masked_fill(~mask, 0), (0, more), value=-1)
    assert_close(time_contrast(**arguments), plain, **FLOAT64)


def test_a_side_without_tokens_costs_nothing() -> None:
    arguments = given()
    arguments["source"].requires_grad_()
    loss = time_contrast(**arguments)
    assert loss[2] == 0
    assert_close(torch.autograd.grad(loss[2], arguments["source"])[0], torch.zeros(3, 9, 4).double(), **EXACT)
    for name in ("source", "anchor"):
        nothing = given()
        nothing |= {key: nothing[key][:, :0] for key in (name, f"{name}_mask", f"{name}_times")}
        assert_close(time_contrast(**nothing), torch.zeros(3, dtype=torch.float64), **EXACT)


def test_the_sides_may_be_exchanged_and_the_clock_moved() -> None:
    arguments = given()
    plain = time_contrast(**arguments)
    other = {"source": "anchor", "anchor": "source"}
    exchanged = {
        f"{other[key.partition('_')[0]]}{key.removeprefix(key.partition('_')[0])}": value
        for key, value in arguments.items()
    }
    assert_close(time_contrast(**exchanged), plain, **FLOAT64)
    moved = arguments | {name: 3 * arguments[name] + 50 for name in ("source_times", "anchor_times")}
    assert_close(time_contrast(**moved), plain, **FLOAT64)


def test_without_times_positions_count() -> None:
    arguments = given()
    where = {"source_times": None, "anchor_times": None}
    relative = {
        f"{name}_times": (torch.arange(length, dtype=torch.float64) + 0.5)
        / arguments[f"{name}_mask"].sum(1, keepdim=True).clamp(min=1)
        for name, length in (("source", 9), ("anchor", 6))
    }
    assert_close(time_contrast(**arguments | where), time_contrast(**arguments | relative), **FLOAT64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    arguments = given()
    low = {name: arguments[name].to(dtype) for name in ("source", "anchor")}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = time_contrast(**arguments | low)
    assert found.dtype == torch.float32
    assert_close(found, time_contrast(**arguments | {n: x.float() for n, x in low.items()}), **EXACT)


def test_memory_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    entries, time, channel = 4096, 512, 4
    monkeypatch.setattr(module, "_TILE_ENTRIES", entries)
    source, anchor = (draw(1, time, channel, seed=seed).requires_grad_() for seed in (0, 1))
    mask, kept = prefix_mask([time], time), KeptBytes()
    with LargestTensor() as largest, torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
        loss = time_contrast(source, anchor, mask, mask).sum()
        waiting = kept.total  # the backward pass keeps what it computes again for one tile at a time
        loss.backward()
    assert largest.numel <= max(entries, (time + 1) * channel)
    assert waiting <= 8 * 13 * time * channel


def test_both_directions_share_their_similarities() -> None:
    """One product for the value and two for the gradient, where all pairs fit into a tile."""
    source, anchor = (draw(2, 9, 4, seed=seed).requires_grad_() for seed in (0, 1))
    mask = prefix_mask([9, 5], 9)
    with Products() as products:
        time_contrast(source, anchor, mask, mask).sum().backward()
    assert products.number == 3


@pytest.mark.parametrize("among", ["sample", "batch"])
def test_an_empty_batch_has_no_loss(among: Literal["sample", "batch"]) -> None:
    arguments = {name: each[:0] for name, each in given().items()}
    assert time_contrast(**arguments, among=among).shape == (0,)


def test_company_matters_among_the_batch_alone() -> None:
    arguments = given()
    two = {name: each[:2] for name, each in arguments.items()}
    assert_close(time_contrast(**two), time_contrast(**arguments)[:2], **FLOAT64)
    assert bool((time_contrast(**two, among="batch") < time_contrast(**arguments, among="batch")[:2]).all())


def test_a_token_of_zeros_has_no_direction_and_no_gradient() -> None:
    arguments = given()
    arguments["source"][0, 2] = 0
    arguments["source"].requires_grad_()
    (found,) = torch.autograd.grad(time_contrast(**arguments).sum(), arguments["source"])
    assert not found[0, 2].any()
    assert found[0, 3].any()


def test_descent_finds_the_right_time() -> None:
    """Content alone matches tokens in their true order after a few steps, from features that say it."""
    hidden = draw(4, 12, 6)
    first, second = hidden @ draw(6, 6, seed=1), hidden @ draw(6, 6, seed=2)
    torch.manual_seed(0)
    maps = [torch.nn.Linear(6, 6).double() for _ in range(2)]
    optimiser = torch.optim.Adam([p for each in maps for p in each.parameters()], lr=0.05)
    mask = prefix_mask([12] * 4, 12)

    def right() -> float:
        similarity = F.normalize(maps[0](first), dim=2) @ F.normalize(maps[1](second), dim=2).transpose(1, 2)
        return float((similarity.argmax(2) == torch.arange(12)).double().mean())

    before = right()
    for _ in range(60):
        optimiser.zero_grad()
        time_contrast(maps[0](first), maps[1](second), mask, mask, reach=0).mean().backward()
        optimiser.step()
    assert before < 0.4
    assert right() > 0.95


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"reach": -1}, ConfigError, "reach: expected at least 0, found -1"),
        ({"temperature": 0.0}, ConfigError, "temperature: expected a positive number, found 0.0"),
        ({"among": "clip"}, ConfigError, r"among: expected one of \['sample', 'batch'\], found 'clip'"),
        ({"temperature": math.inf}, ConfigError, "temperature: expected a positive number, found inf"),
        ({"source_times": None}, ConfigError, "source_times and anchor_times: give both or neither"),
        ({"source_times": rising(3, 9).flip(1)}, ShapeError, "source_times: expected times that do not decr"),
        ({"anchor": draw(3, 6, 5)}, ShapeError, "batch and channel must agree"),
        ({"source_mask": torch.ones(3, 9)}, ShapeError, "source_mask: expected bool"),
    ],
)
def test_refusals(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        time_contrast(**given() | changes)
