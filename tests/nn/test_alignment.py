"""Alignment modules: which rule does what to which token."""

import pytest
import torch

from alignmamba.nn.alignment import (
    GlobalAlignmentConfig,
    LocalAlignmentConfig,
    SoftPlanConfig,
    Tokens,
    align,
    concatenate,
    discrepancies,
    merge_by_time,
    middles,
    picked,
    since_first,
)
from alignmamba.ops import mmd
from tolerances import MODEL


def tokens(
    rows: list[list[list[float]]], lengths: list[int], times: list[list[float]] | None = None
) -> Tokens:
    x = torch.tensor(rows)
    mask = torch.arange(x.shape[1]) < torch.tensor(lengths)[:, None]
    seconds = torch.full(mask.shape, torch.nan) if times is None else torch.tensor(times)
    return Tokens(x.masked_fill(~mask.unsqueeze(-1), 0), mask, seconds)


EAST, NORTH = [1.0, 0.0], [0.0, 1.0]
ANCHOR = tokens([[NORTH, EAST]], [2], [[0.0, 1.0]])
SOURCE = tokens([[EAST, [3.0, 0.0], NORTH, [7.0, 7.0]]], [3], [[0.0, 0.9, 1.0, 0.0]])


@pytest.mark.parametrize(
    ("options", "expected", "index"),
    [
        ({"mass": "paper", "time_weight": 0}, [[0.0, 1 / 3], [4 / 3, 0.0]], [[1, 1, 0, -1]]),
        ({"mass": "mean", "time_weight": 0}, [[0.0, 1.0], [2.0, 0.0]], [[1, 1, 0, -1]]),
        ({"marginal": "anchor", "time_weight": 0}, [[0.0, 1.0], [1.0, 0.0]], [[2, 0]]),
        # With a heavy prior, relative times 1/6, 1/2, 5/6 meet anchors at 1/4 and 3/4; the middle one is a
        # tie in time, content decides.
        ({"mass": "mean", "time_weight": 1e3}, [[1.0, 0.0], [1.5, 0.5]], [[0, 1, 1, -1]]),
        (
            {"mass": "mean", "time_weight": 1e3, "time_unit": "seconds"},
            [[1.0, 0.0], [1.5, 0.5]],
            [[0, 1, 1, -1]],
        ),
        ({"mass": "mean", "time_weight": 0, "window": 0}, [[2.0, 0.0], [0.0, 1.0]], [[0, 0, 1, -1]]),
    ],
)
def test_align_by_hand(
    options: dict[str, object], expected: list[list[float]], index: list[list[int]]
) -> None:
    x, plan = align(SOURCE, ANCHOR, LocalAlignmentConfig.model_validate(options))
    torch.testing.assert_close(x[0], torch.tensor(expected))
    assert plan is not None
    assert plan.index.tolist() == index
    assert plan.marginal == options.get("marginal", "source")


@pytest.mark.parametrize(
    ("begins", "length", "expected"),
    [
        ([0.0, 1.0, 3.0, 4.0], 4, [0.5, 2.0, 3.5, 4.5]),
        ([0.0, 1.0, 2.0, 9.0], 4, [0.5, 1.5, 3.0, 9.5]),  # before a pause, twice as long as the median
        ([2.0, 3.0, 0.0, 9.0], 2, [2.5, 3.5]),
        ([2.0, 3.0, torch.nan, torch.inf], 2, [2.5, 3.5]),  # what is padding decides nothing
        ([5.0, 9.0, 9.0, 9.0], 1, [5.0]),
        ([1.0, 1.0, 3.0, 3.0], 4, [2.0, 2.0, 4.0, 4.0]),  # parts of two words
        ([1.0, 1.0, 1.0, 1.0], 4, [1.0, 1.0, 1.0, 1.0]),
        ([torch.nan] * 4, 4, [torch.nan] * 4),
        ([1.0, 2.0, 3.0, 4.0], 0, []),
    ],
)
def test_middles_by_hand(begins: list[float], length: int, expected: list[float]) -> None:
    mask = torch.arange(4) < length
    other = torch.tensor([0.0, 0.3, 7.0, 7.0])
    found = middles(torch.stack([torch.tensor(begins), other]), torch.stack([mask, torch.ones(4).bool()]))
    torch.testing.assert_close(found[0, :length], torch.tensor(expected), equal_nan=True)
    assert middles(torch.zeros(2, 0), torch.zeros(2, 0).bool()).shape == (2, 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Each source token goes where it is like; twice as much goes east.
        ({}, [[0.0, 1.0], [2.0, 0.0]]),
        ({"mass": "paper"}, [[0.0, 1 / 3], [4 / 3, 0.0]]),
        ({"marginal": "anchor"}, [[0.0, 1.0], [2.0, 0.0]]),
        # An equal half goes to either: a quarter of the tokens to the east must go north.
        ({"marginal": "both"}, [[2 / 3, 2 / 3], [2.0, 0.0]]),
        ({"marginal": "both", "mass": "paper"}, [[1 / 3, 1 / 3], [1.0, 0.0]]),
    ],
)
def test_a_soft_plan_by_hand(options: dict[str, object], expected: list[list[float]]) -> None:
    config = LocalAlignmentConfig.model_validate({"method": "soft", "time_weight": 0, **options})
    x, plan = align(SOURCE, ANCHOR, config, soft=SoftPlanConfig(regularisation=0.02, iterations=500))
    torch.testing.assert_close(x[0], torch.tensor(expected))
    assert plan is not None
    assert plan.index.tolist() == [[2, 0]]
    assert plan.similarity.tolist() == [[1.0, 1.0]]
    assert plan.marginal == "anchor"


def test_a_weight_given_beside_the_configuration_takes_its_place() -> None:
    for method in ("match", "soft"):
        config = LocalAlignmentConfig(method=method, time_weight=7.0)
        for weight in (0.0, 500.0):
            expected, _ = align(SOURCE, ANCHOR, config.model_copy(update={"time_weight": weight}))
            found, _ = align(SOURCE, ANCHOR, config, time_weight=weight)
            assert torch.equal(found, expected)


def test_proportional_averages_each_share_of_time() -> None:
    x, plan = align(SOURCE, ANCHOR, LocalAlignmentConfig(method="proportional"))
    torch.testing.assert_close(x[0], torch.tensor([[2.0, 0.0], [1.5, 0.5]]))
    assert plan is None


def test_pairs_of_the_loss_are_counted_once() -> None:
    torch.manual_seed(0)
    mask = torch.ones(1, 4, dtype=torch.bool)
    streams = {
        name: Tokens(torch.randn(1, 4, 3), mask, torch.zeros(1, 4)) for name in ("text", "audio", "video")
    }
    is_anchor = {name: torch.tensor([name == "text"]) for name in streams}

    def pair(first: str, second: str) -> torch.Tensor:
        return mmd(streams[first].x, streams[second].x, mask, mask, bandwidth=1.0)

    by_formula = discrepancies(
        streams, streams["text"], is_anchor, GlobalAlignmentConfig(pairs="anchor", bandwidth=1.0)
    )
    torch.testing.assert_close(by_formula, pair("audio", "text") + pair("video", "text"), **MODEL)
    by_prose = discrepancies(
        streams, streams["text"], is_anchor, GlobalAlignmentConfig(pairs="all", bandwidth=1.0)
    )
    torch.testing.assert_close(by_prose, by_formula + pair("audio", "video"), **MODEL)


def test_merge_by_time_orders_all_valid_tokens() -> None:
    slow = tokens([[[1.0], [2.0]], [[1.0], [9.0]]], [2, 1])
    fast = tokens([[[10.0], [20.0], [30.0], [40.0]], [[9.0]] * 4], [4, 0])
    x, mask, stream = merge_by_time([fast, slow])
    # Relative times: slow 1/4, 3/4; fast 1/8, 3/8, 5/8, 7/8.
    assert x[0, :, 0].tolist() == [10.0, 1.0, 20.0, 30.0, 2.0, 40.0]
    assert x[1, 0, 0] == 1.0
    assert mask.sum(1).tolist() == [6, 1]
    assert mask[1].tolist() == [True] + [False] * 5
    assert stream[0].tolist() == [0, 1, 0, 0, 1, 0]
    assert stream[1, 0] == 1


def test_merge_by_time_breaks_ties_by_stream() -> None:
    x, _, _ = merge_by_time([tokens([[[2.0]]], [1]), tokens([[[1.0]]], [1])])
    assert x[0, :, 0].tolist() == [2.0, 1.0]


def test_concatenate_leaves_no_padding_between_streams() -> None:
    first = tokens([[[1.0], [2.0]], [[3.0], [9.0]]], [2, 1])
    second = tokens([[[10.0], [20.0]], [[30.0], [40.0]]], [1, 2])
    x, mask, stream = concatenate([second, first])
    assert mask.tolist() == [[True] * 3 + [False]] * 2
    assert stream[:, :3].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert x[:, :3, 0].tolist() == [[10.0, 1.0, 2.0], [30.0, 40.0, 3.0]]


def test_picked_tokens_keep_their_order() -> None:
    x = torch.arange(1.0, 9.0).view(2, 4, 1)
    chosen = torch.tensor([[True, False, True, True], [False, False, True, False]])
    taken, mask = picked(x, chosen, 5)
    assert taken[..., 0].tolist() == [[1.0, 3.0, 4.0, 0.0, 0.0], [7.0, 0.0, 0.0, 0.0, 0.0]]
    assert mask.sum(1).tolist() == [3, 1]
    nothing, empty = picked(x[:, :0], chosen[:, :0], 2)
    assert nothing.shape == (2, 2, 1)
    assert not bool(empty.any())


@pytest.mark.parametrize("zero", [0.0, -3.5, 1000.0, 512345.0, 1.7e9])
def test_a_clock_starts_with_the_first_token_of_any_modality(zero: float) -> None:
    early = torch.tensor([[0.5, 0.52, 0.56, 9.0], [7.0, 8.0, 0.0, 0.0]], dtype=torch.float64) + zero
    late = torch.tensor([[0.58, 0.6], [torch.nan, torch.nan]], dtype=torch.float64) + zero
    masks = [
        torch.tensor([[True, True, True, False], [True, True, False, False]]),
        torch.ones(2, 2, dtype=torch.bool),
    ]
    first, second = since_first([early, late], masks)
    assert first[0, :3].tolist() == [0.0, 0.02, 0.06]
    assert first[1, :2].tolist() == [0.0, 1.0]
    assert second[0].tolist() == [0.08, 0.1]
    assert bool(second[1].isnan().all())


def test_times_that_nobody_knows_stay_unknown() -> None:
    (found,) = since_first([torch.full((1, 2), torch.nan)], [torch.ones(1, 2, dtype=torch.bool)])
    assert bool(found.isnan().all())


def test_digits_that_a_clock_has_are_kept() -> None:
    times = torch.tensor([[0.0, 1e-9, 1 / 3, 2e-7]], dtype=torch.float64)
    (found,) = since_first([times], [torch.ones(1, 4, dtype=torch.bool)])
    torch.testing.assert_close(found, times, rtol=0, atol=1e-15)
