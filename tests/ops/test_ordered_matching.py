"""Matching in order against every path there is, closed forms, and what may not change it."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from alignmamba.errors import ShapeError
from alignmamba.ops import match_in_order
from drawn import draw, prefix_mask, spoiled
from instruments import LargestTensor
from tolerances import EXACT


def given(seed: int = 0) -> dict[str, Tensor]:
    """Six samples: full, shorter on either side, one anchor token, as many as sources, and none."""
    return {
        "source": draw(6, 7, 3, seed=seed),
        "anchor": draw(6, 4, 3, seed=seed + 1),
        "source_mask": prefix_mask([7, 5, 6, 3, 4, 0], 7),
        "anchor_mask": prefix_mask([4, 3, 4, 1, 4, 2], 4),
        "bias": draw(6, 4, seed=seed + 2),
    }


def best_of_all_paths(scores: Tensor, *, free_ends: bool) -> list[int] | None:
    """The path of the largest sum among all, from the (source, anchor) scores of one sample."""
    time, states = scores.shape
    begins, ends = ([0, 1], [states - 1, states - 2]) if free_ends else ([0], [states - 1])
    paths = [
        path
        for begin in begins
        if begin < states
        for steps in itertools.product((0, 1), repeat=max(0, time - 1))
        for path in [list(itertools.accumulate(steps, initial=begin))]
        if path[-1] in ends and path[-1] >= 0
    ]
    rows = torch.arange(time)
    return max(paths, key=lambda path: float(scores[rows, path].sum())) if paths and time else None


@pytest.mark.parametrize("free_ends", [False, True])
@pytest.mark.parametrize("seed", [0, 10, 20])
def test_equals_the_best_of_all_paths(seed: int, free_ends: bool) -> None:
    arguments = given(seed)
    found = match_in_order(**arguments, free_ends=free_ends)
    scores = arguments["source"] @ arguments["anchor"].transpose(1, 2) + arguments["bias"].unsqueeze(1)
    for row, (source, anchor) in enumerate(
        zip(arguments["source_mask"], arguments["anchor_mask"], strict=True)
    ):
        path = best_of_all_paths(scores[row][source][:, anchor], free_ends=free_ends)
        assert found[row][source].tolist() == (path or [-1] * int(source.sum()))
        assert bool((found[row][~source] == -1).all())


@pytest.mark.parametrize("time", [1, 2, 3, 8, 9, 10, 17])
def test_a_sequence_matched_with_itself_stands_still_nowhere(time: int) -> None:
    x = torch.eye(time).unsqueeze(0)
    mask = prefix_mask([time], time)
    assert match_in_order(x, x, mask, mask).tolist() == [list(range(time))]


def test_closed_forms() -> None:
    """Each token lasts as long as it is the likest; equal paths move on at once; too few tokens have none."""
    words = torch.eye(3).unsqueeze(0)
    spoken = words[:, [0, 0, 1, 1, 1, 2]]
    masks = prefix_mask([6], 6), prefix_mask([3], 3)
    assert match_in_order(spoken, words, *masks).tolist() == [[0, 0, 1, 1, 1, 2]]
    assert match_in_order(torch.zeros(1, 6, 3), words, *masks).tolist() == [[0, 1, 2, 2, 2, 2]]
    few = prefix_mask([2], 6)
    assert match_in_order(spoken, words, few, masks[1]).tolist() == [[-1] * 6]
    assert match_in_order(spoken, words, few, masks[1], free_ends=True)[0, :2].tolist() == [0, 1]


def test_free_ends_are_skipped_where_nothing_is_like_them() -> None:
    states = torch.eye(4).unsqueeze(0)
    masks = prefix_mask([4], 4), prefix_mask([4], 4)
    spoken = states[:, [1, 1, 2, 2]]
    assert match_in_order(spoken, states, *masks, free_ends=True).tolist() == [[1, 1, 2, 2]]
    assert match_in_order(spoken, states, *masks).tolist() == [[0, 1, 2, 3]]


def test_padding_and_its_content_change_nothing() -> None:
    arguments = given()
    plain = match_in_order(**arguments)
    for name, more in (("source", 5), ("anchor", 2)):
        x, mask = arguments[name], arguments[f"{name}_mask"]
        arguments[name], arguments[f"{name}_mask"] = spoiled(x, mask, more)
    arguments["bias"] = F.pad(arguments["bias"], (0, 2), value=math.nan)
    assert_close(match_in_order(**arguments), F.pad(plain, (0, 5), value=-1), **EXACT)


def test_neighbours_in_the_batch_and_what_all_paths_share_change_nothing() -> None:
    arguments = given()
    plain = match_in_order(**arguments)
    for row in range(6):
        alone = {name: value[row : row + 1] for name, value in arguments.items()}
        assert_close(match_in_order(**alone), plain[row : row + 1], **EXACT)
    shifted = arguments | {"bias": arguments["bias"] + 5}
    assert_close(match_in_order(**shifted), plain, **EXACT)


def test_backwards_it_is_the_same_path() -> None:
    """With distinct scores the best path of both sequences reversed is the path reversed."""
    source, anchor = draw(2, 9, 3), draw(2, 4, 3, seed=1)
    masks = prefix_mask([9, 9], 9), prefix_mask([4, 4], 4)
    plain = match_in_order(source, anchor, *masks)
    assert_close(match_in_order(source.flip(1), anchor.flip(1), *masks), 3 - plain.flip(1), **EXACT)


def test_a_side_without_tokens_has_no_path() -> None:
    arguments = given()
    for name in ("source", "anchor"):
        nothing = arguments | {key: arguments[key][:, :0] for key in (name, f"{name}_mask")}
        nothing["bias"] = arguments["bias"][:, : nothing["anchor"].shape[1]]
        assert_close(match_in_order(**nothing), torch.full(nothing["source_mask"].shape, -1), **EXACT)


def test_memory_stays_below_the_matrix_of_all_pairs() -> None:
    time = 400
    x, mask = draw(1, time, 2), prefix_mask([time], time)
    with LargestTensor() as largest:
        match_in_order(x, x.roll(3, 1), mask, mask)
    assert largest.numel <= (math.isqrt(time) + 1) * time


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": draw(6, 5)}, "bias: expected floating of shape .6, 4."),
        ({"bias": torch.zeros(6, 4, dtype=torch.int64)}, "bias: expected floating"),
        ({"anchor": draw(6, 4, 5)}, "batch and channel must agree"),
        ({"source_mask": torch.ones(6, 7)}, "source_mask: expected bool"),
        ({"source_mask": prefix_mask([3] * 6, 7).flip(1)}, "source_mask: expected valid tokens first"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        match_in_order(**given() | changes)
