"""Contrast by order against its definition in loops, closed forms, and what may not change it."""

import math
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops import match_in_order, order_contrast
from drawn import draw, prefix_mask, spoiled
from instruments import LargestTensor
from tolerances import EXACT, FLOAT32, FLOAT64, GRADCHECK

# By its full name: in the package the name stands for the function.
module = import_module("alignmamba.ops.order_contrast")


def given() -> dict[str, Any]:
    """Five samples: a longer source, one of them shorter, equal sides, a longer anchor, and no source. Words
    are of a vocabulary of four.
    """
    vocabulary = draw(4, 3, seed=1)
    return {
        "source": draw(5, 9, 3),
        "anchor": vocabulary[torch.tensor([[0, 1, 2, 3], [2, 0, 0, 0], [3, 1, 3, 0], [1, 2, 0, 3], [0] * 4])],
        "source_mask": prefix_mask([9, 6, 3, 2, 0], 9),
        "anchor_mask": prefix_mask([4, 2, 3, 4, 4], 4),
        "null": draw(3, seed=2),
    }


def by_loop(temperature: float, correction: float, *, flat: bool, **arguments: Tensor) -> Tensor:
    """The definition, one token at a time."""
    sides = [
        [F.normalize(arguments[name][row][arguments[f"{name}_mask"][row]], dim=1) for row in range(5)]
        for name in ("source", "anchor")
    ]
    null = F.normalize(arguments["null"], dim=0)
    losses = [arguments["source"].sum() * 0 for _ in range(5)]
    for exchanged in (False, True):
        pairs = {
            row: (y, x) if exchanged else (x, y)
            for row, (x, y) in enumerate(zip(*sides, strict=True))
            if len(x) and len(y) and (len(x) < len(y)) == exchanged
        }
        distinct: list[Tensor] = [null]
        for _, words in pairs.values():
            distinct += [word for word in words if not any(torch.equal(word, other) for other in distinct)]
        if not pairs:
            continue
        classes = torch.stack(distinct)
        scores = {row: frames @ classes.T / temperature for row, (frames, _) in pairs.items()}
        shares = (
            torch.cat([each.softmax(1) for each in scores.values()]).mean(0).clamp(min=0.03 / len(classes))
        )
        for row, (frames, words) in pairs.items():
            numbers = [0, *(next(k for k, y in enumerate(distinct) if torch.equal(y, w)) for w in words), 0]
            if flat:
                path = [at * len(numbers) // len(frames) for at in range(len(frames))]
            else:
                worth = (scores[row] - correction * shares.log())[:, numbers].detach()
                masks = prefix_mask([len(frames)], len(frames)), prefix_mask([len(numbers)], len(numbers))
                unit = torch.eye(len(numbers), dtype=worth.dtype).unsqueeze(0)
                path = match_in_order(worth.unsqueeze(0), unit, *masks, free_ends=True)[0].tolist()
            own = torch.tensor([numbers[state] for state in path])
            losses[row] = F.cross_entropy(scores[row], own)
    return torch.stack(losses)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("entries", [1, 100, 2**21])
def test_equals_its_definition(monkeypatch: pytest.MonkeyPatch, entries: int, flat: bool) -> None:
    monkeypatch.setattr(module, "_TILE_ENTRIES", entries)
    arguments = given()
    sides = [arguments[name].requires_grad_() for name in ("source", "anchor", "null")]
    found = order_contrast(**arguments, temperature=0.3, correction=0.7, flat=flat)
    expected = by_loop(0.3, 0.7, flat=flat, **arguments)
    assert_close(found, expected, **FLOAT64)
    assert bool((found[:4] > 0).all())
    rest = [torch.autograd.grad(each.sum(), sides) for each in (found, expected)]
    for side, (mine, theirs) in zip(("source", "anchor", "null"), zip(*rest, strict=True), strict=True):
        if side == "anchor":  # equal words are one: who of them bears the gradient is of no account
            mine, theirs = (each.flatten(0, 1).sum(0) for each in (mine, theirs))
        assert_close(mine, theirs, **FLOAT64)


def test_gradcheck() -> None:
    """The path is a constant to the gradient, so a flat one, which no small step changes."""
    arguments = given()
    source, null = arguments.pop("source").requires_grad_(), arguments.pop("null").requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, y: order_contrast(x, null=y, flat=True, temperature=0.5, **arguments),
        (source, null),
        **GRADCHECK,
    )


def test_closed_forms() -> None:
    """Classes that are all alike cost the logarithm of how many there are; right ones next to nothing."""
    masks = {"source_mask": prefix_mask([6], 6), "anchor_mask": prefix_mask([3], 3)}
    words = torch.eye(4)[None, 1:]
    blind = torch.zeros(1, 6, 4)
    assert_close(
        order_contrast(blind, words, null=torch.eye(4)[0], **masks), torch.tensor([math.log(4)]), **FLOAT32
    )
    spoken = torch.eye(4)[None, [0, 1, 2, 2, 3, 0]]
    right = order_contrast(spoken, words, null=torch.eye(4)[0], temperature=0.1, **masks)
    assert_close(right, torch.tensor([math.log1p(3 * math.exp(-10))]), **FLOAT32)
    twice = order_contrast(
        spoken.repeat(2, 1, 1),
        words.repeat(2, 1, 1),
        null=torch.eye(4)[0],
        temperature=0.1,
        **{name: mask.repeat(2, 1) for name, mask in masks.items()},
    )
    assert_close(twice, right.repeat(2), **FLOAT32)  # the same words again are no new classes


def test_padding_and_its_content_change_nothing() -> None:
    arguments = given()
    plain = order_contrast(**arguments)
    for name, more in (("source", 4), ("anchor", 3)):
        x, mask = arguments[name], arguments[f"{name}_mask"]
        arguments[name], arguments[f"{name}_mask"] = spoiled(x, mask, more)
    assert_close(order_contrast(**arguments), plain, **FLOAT64)


@pytest.mark.parametrize("side", ["source", "anchor"])
def test_a_token_of_zeros_has_no_direction_and_no_gradient(side: str) -> None:
    arguments = given()
    arguments[side][0, 1] = 0
    arguments[side].requires_grad_()
    (found,) = torch.autograd.grad(order_contrast(**arguments).sum(), arguments[side])
    assert not found[0, 1].any()
    assert found.any()


def test_the_sides_and_the_samples_may_be_exchanged() -> None:
    arguments = given()
    arguments["source_mask"][2] = prefix_mask([5], 9)  # of equal sides, the first is cut into the second
    plain = order_contrast(**arguments)
    other = {"source": "anchor", "anchor": "source"}
    exchanged = {
        name.replace(side, other[side]): arguments[name] for side in other for name in (side, f"{side}_mask")
    }
    assert_close(order_contrast(**exchanged, null=arguments["null"]), plain, **FLOAT64)
    turned = {name: x if name == "null" else x.flip(0) for name, x in arguments.items()}
    assert_close(order_contrast(**turned), plain.flip(0), **FLOAT64)


def test_a_side_without_tokens_costs_nothing() -> None:
    arguments = given()
    arguments["source"].requires_grad_()
    loss = order_contrast(**arguments)
    assert loss[4] == 0
    for name in ("source", "anchor"):
        nothing = given()
        nothing |= {key: nothing[key][:, :0] for key in (name, f"{name}_mask")}
        assert_close(order_contrast(**nothing), torch.zeros(5, dtype=torch.float64), **EXACT)


def test_half_precision_is_computed_in_single() -> None:
    arguments = {n: x.bfloat16() if x.is_floating_point() else x for n, x in given().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = order_contrast(**arguments)
    assert found.dtype == torch.float32
    single = {n: x.float() if x.is_floating_point() else x for n, x in arguments.items()}
    assert_close(found, order_contrast(**single), **EXACT)


def test_memory_is_linear_in_both_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    entries, time = 4096, 300
    monkeypatch.setattr(module, "_TILE_ENTRIES", entries)
    source, anchor = (draw(1, time, 4, seed=seed).requires_grad_() for seed in (0, 1))
    mask = prefix_mask([time], time)
    with LargestTensor() as largest:
        order_contrast(source, anchor, mask, mask, draw(4, seed=2)).sum().backward()
    assert largest.numel <= max(entries, (math.isqrt(time) + 1) * (time + 2))


def test_descent_finds_the_words_from_their_order() -> None:
    """Sounds of words of unlike length, in noise: content alone tells them, though nobody said where."""
    random = torch.Generator().manual_seed(0)
    sounds, table = torch.randn(8, 12, generator=random), torch.nn.Embedding(8, 12)
    hear = torch.nn.Linear(12, 12)
    null = torch.nn.Parameter(torch.randn(12, generator=random))
    with torch.no_grad():
        table.weight.copy_(torch.randn(8, 12, generator=random))
    optimiser = torch.optim.Adam([*table.parameters(), *hear.parameters(), null], lr=0.02)
    truth, words = [], []
    for _ in range(40):
        said = torch.randperm(8, generator=random)[:4]
        lasts = torch.randint(2, 6, (4,), generator=random)
        frames = torch.cat([torch.full((int(n),), k) for k, n in enumerate(lasts)])
        truth.append(F.pad(frames, (0, 20 - len(frames)), value=-1))
        words.append(said)
    frame_word, said = torch.stack(truth), torch.stack(words)
    mask, full = frame_word >= 0, torch.ones(40, 4, dtype=torch.bool)
    audio = sounds[said.gather(1, frame_word.clamp(min=0))] + 0.3 * torch.randn(40, 20, 12, generator=random)

    def right() -> float:
        heard, meant = F.normalize(hear(audio), dim=2), F.normalize(table(said), dim=2)
        return float(((heard @ meant.transpose(1, 2)).argmax(2) == frame_word)[mask].double().mean())

    before = right()
    for step in range(60):
        optimiser.zero_grad()
        order_contrast(hear(audio), table(said), mask, full, null, flat=step < 20).mean().backward()
        optimiser.step()
    assert before < 0.5
    assert right() > 0.9


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"null": draw(4)}, ShapeError, "null: expected floating of shape .3,."),
        ({"temperature": 0.0}, ConfigError, "temperature: expected a positive number, found 0.0"),
        ({"correction": -1.0}, ConfigError, "correction: expected at least 0 and finite, found -1.0"),
        ({"correction": math.inf}, ConfigError, "correction: expected at least 0 and finite, found inf"),
        ({"anchor": draw(5, 4, 5)}, ShapeError, "batch and channel must agree"),
        ({"source_mask": torch.ones(5, 9)}, ShapeError, "source_mask: expected bool"),
    ],
)
def test_refusals(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        order_contrast(**given() | changes)
