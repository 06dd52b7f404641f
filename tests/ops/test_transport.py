"""Matching and transport against the relaxed problem written out in loops, and against an exact solver."""

import math
from importlib import import_module
from typing import Any

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops import match_tokens, resample, transport, transport_plan
from drawn import draw, prefix_mask
from instruments import KeptBytes, LargestTensor
from tolerances import BFLOAT16, EXACT, FLOAT16, FLOAT64, GRADCHECK, PLAN_FLOAT32, TRANSPORT_COST

# By its full name: in the package the name stands for the function.
transport_module = import_module("alignmamba.ops.transport")


def whole(batch: int, time: int) -> Tensor:
    return torch.ones(batch, time, dtype=torch.bool)


def cosine(a: list[float], b: list[float]) -> float:
    norms = math.sqrt(sum(v * v for v in a)) * math.sqrt(sum(v * v for v in b))
    return sum(v * w for v, w in zip(a, b, strict=True)) / norms if norms else 0.0


def match_by_loop(
    source: Tensor,
    anchor: Tensor,
    source_mask: Tensor,
    anchor_mask: Tensor,
    *,
    window: int | None = None,
    time_weight: float = 0.0,
    source_times: Tensor | None = None,
    anchor_times: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Eq. 3-5 by definition, one pair at a time."""
    index = torch.full(source_mask.shape, -1)
    similarity = torch.zeros(source_mask.shape, dtype=torch.float64)
    for sample in range(len(source)):
        num_source, num_anchor = int(source_mask[sample].sum()), int(anchor_mask[sample].sum())
        for i in range(num_source):
            start = (i + 0.5) / num_source if source_times is None else float(source_times[sample, i])
            ends = [
                (j + 0.5) / num_anchor if anchor_times is None else float(anchor_times[sample, j])
                for j in range(num_anchor)
            ]
            distances = [abs(start - end) for end in ends]
            nearest = distances.index(min(distances)) if distances else 0
            cost = {
                j: 1
                - cosine(source[sample, i].tolist(), anchor[sample, j].tolist())
                + time_weight * (start - ends[j]) ** 2
                for j in range(num_anchor)
                if window is None or abs(j - nearest) <= window
            }
            if cost:
                lowest = min(cost.values())
                chosen = min(j for j, value in cost.items() if value < lowest + 1e-10)
                index[sample, i] = chosen
                similarity[sample, i] = cosine(source[sample, i].tolist(), anchor[sample, chosen].tolist())
    return index, similarity


def ragged(
    seed: int, *, time_source: int = 11, time_anchor: int = 9, channel: int = 4
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four samples: full, short, one token on a side, none on a side."""
    lengths_source, lengths_anchor = [time_source, 5, 1, 3], [time_anchor, 7, 4, 0]
    return (
        draw(4, time_source, channel, seed=seed),
        draw(4, time_anchor, channel, seed=seed + 1000),
        prefix_mask(lengths_source, time_source),
        prefix_mask(lengths_anchor, time_anchor),
    )


@pytest.mark.parametrize("entries", [1, 2**21], ids=["tiles of 16", "one tile"])
@pytest.mark.parametrize("time_weight", [0.0, 3.0])
@pytest.mark.parametrize("window", [None, 0, 2, 100])
@pytest.mark.parametrize("timed", [False, True], ids=["relative times", "given times"])
def test_matching_equals_the_definition(
    entries: int, time_weight: float, window: int | None, timed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "_TILE_ENTRIES", entries)
    for seed in range(3):
        tensors = ragged(seed, time_source=37, time_anchor=41)
        options: dict[str, Any] = {"window": window, "time_weight": time_weight}
        if timed:
            options["source_times"] = draw(4, 37, seed=seed).abs().cumsum(1)
            options["anchor_times"] = draw(4, 41, seed=seed + 7).abs().cumsum(1)
        index, similarity = match_tokens(*tensors, **options)
        expected_index, expected_similarity = match_by_loop(*tensors, **options)
        assert torch.equal(index, expected_index)
        assert_close(similarity, expected_similarity, **FLOAT64)


@given(
    lengths=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=3),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    window=st.none() | st.integers(0, 4),
    time_weight=st.sampled_from([0.0, 0.7]),
    seed=st.integers(0, 99),
)
def test_matching_equals_the_definition_on_few_coarse_values(
    lengths: list[tuple[int, int]],
    padding: tuple[int, int],
    window: int | None,
    time_weight: float,
    seed: int,
) -> None:
    """Tokens of small integers: many zero vectors, duplicates and ties."""
    num_source, num_anchor = (max(pair[side] for pair in lengths) + padding[side] for side in (0, 1))
    source = draw(len(lengths), num_source, 2, seed=seed).round()
    anchor = draw(len(lengths), num_anchor, 2, seed=seed + 1).round()
    masks = (
        prefix_mask([pair[0] for pair in lengths], num_source),
        prefix_mask([pair[1] for pair in lengths], num_anchor),
    )
    index, similarity = match_tokens(source, anchor, *masks, window=window, time_weight=time_weight)
    expected_index, expected_similarity = match_by_loop(
        source, anchor, *masks, window=window, time_weight=time_weight
    )
    assert torch.equal(index, expected_index)
    assert_close(similarity, expected_similarity, **FLOAT64)


def test_a_matching_worked_by_hand() -> None:
    source = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]])
    anchor = torch.tensor([[[0.0, 1.0], [3.0, 3.0], [5.0, 0.0]]])
    index, similarity = match_tokens(source, anchor, whole(1, 3), whole(1, 3))
    assert index.tolist() == [[2, 0, 0]]
    assert similarity.tolist() == [[1.0, 1.0, 0.0]]
    # Relative times 1/6, 1/2, 5/6: a strong prior leaves each token where it stands.
    assert match_tokens(source, anchor, whole(1, 3), whole(1, 3), time_weight=100)[0].tolist() == [[0, 1, 2]]
    # In between: from the first token the last anchor costs 0 + 4/9 w, the middle one 1 - sqrt(1/2) + 1/9 w;
    # equal at w = 0.879.
    assert match_tokens(source, anchor, whole(1, 3), whole(1, 3), time_weight=0.87)[0][0, 0] == 2
    assert match_tokens(source, anchor, whole(1, 3), whole(1, 3), time_weight=0.89)[0][0, 0] == 1


def test_of_tokens_of_one_time_the_first_is_nearest() -> None:
    times = torch.tensor([[0.0, 0.0, 0.0, 5.0, 5.0, 9.0]]).double()
    asked = torch.tensor([[-0.1, 0.0, 0.1, 2.5, 2.6, 7.0, 100.0]]).double()
    found = transport_module.nearest_in_time(asked, times, prefix_mask([5], 6))
    assert found.tolist() == [[0, 0, 0, 0, 3, 3, 3]]
    unknown = torch.tensor([[0.0, 1.0, math.nan, math.nan]]).double()
    assert int(transport_module.nearest_in_time(asked, unknown, prefix_mask([4], 4)).max()) < 4
    none = transport_module.nearest_in_time(asked, times, prefix_mask([0], 6))
    assert none.tolist() == [[0] * 7]


@pytest.mark.parametrize("entries", [1, 2**21], ids=["tiles of 16", "one tile"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ties_go_to_the_lowest_index(
    entries: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "_TILE_ENTRIES", entries)
    tokens = draw(1, 6, 33, seed=3).to(dtype)
    for first, copies in ((0, (1, 2, 17)), (3, (15, 16, 40)), (15, (16, 32)), (16, (31, 48)), (20, (69,))):
        anchor = draw(1, 70, 33, seed=4).to(dtype)
        for position in (first, *copies):
            # The same direction at another length is the same cost.
            anchor[:, position] = tokens[:, 0] * (1 if position == first else 2.0 ** (position % 5))
        for window, weight in ((None, 0.0), (69, 0.0), (68, 0.0)):
            index, similarity = match_tokens(
                tokens[:, :1], anchor, whole(1, 1), whole(1, 70), window=window, time_weight=weight
            )
            assert index.tolist() == [[first]], window
            assert_close(
                similarity, torch.ones_like(similarity), **EXACT if dtype != torch.float64 else FLOAT64
            )


def test_ties_do_not_depend_on_the_lengths_of_the_vectors() -> None:
    # Scaled by thirds the copies differ in their last bits; the cost must not.
    anchor = draw(1, 50, 7, seed=5)
    for position in range(4, 50):
        anchor[:, position] = anchor[:, 4] * (position / 3)
    index, _ = match_tokens(anchor[:, 4:], anchor, whole(1, 46), whole(1, 50))
    assert index.tolist() == [[4] * 46]


def test_a_zero_vector_is_as_near_to_everything() -> None:
    source = torch.zeros(1, 2, 3)
    source[0, 1, 0] = 1
    anchor = torch.tensor([[[-1.0, 0, 0], [0, 0, 0], [0, 1, 0]]])
    index, similarity = match_tokens(source, anchor, whole(1, 2), whole(1, 3))
    assert index.tolist() == [[0, 1]]
    assert similarity.tolist() == [[0, 0]]


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_vectors_of_any_length_are_matched_by_their_direction(scale: float, backend: Any) -> None:
    source, anchor = draw(1, 9, 5), draw(1, 12, 5, seed=1)
    masks = whole(1, 9), whole(1, 12)
    expected = match_tokens(source, anchor, *masks, backend=backend)
    found = match_tokens(source * scale, anchor / scale, *masks, backend=backend)
    assert torch.equal(found[0], expected[0])
    assert_close(found[1], expected[1], **FLOAT64)


def test_holes_falling_times_and_other_numbers_are_refused() -> None:
    x, hole = draw(1, 3, 2), torch.tensor([[False, True, True]])
    good = whole(1, 3)
    times, falling = torch.arange(3.0)[None], torch.tensor([[0.0, 2.0, 1.0]])
    for masks in ((hole, good), (good, hole)):
        with pytest.raises(ShapeError, match="valid tokens first, found one after padding in sample 0"):
            match_tokens(x, x, *masks)
    with pytest.raises(ShapeError, match="anchor_times: expected times that do not decrease"):
        match_tokens(x, x, good, good, window=1, source_times=times, anchor_times=falling)
    # What stands at padding is not read.
    short = torch.tensor([[True, True, False]])
    match_tokens(
        x, x, good, short, window=1, source_times=falling, anchor_times=torch.tensor([[0.0, 2.0, 1.0]])
    )
    with pytest.raises(ShapeError, match=r"source_times: expected real numbers, found torch\.complex64"):
        match_tokens(x, x, good, good, source_times=times.to(torch.complex64), anchor_times=times)
    for wrong in (torch.ones(1, 3, 2, dtype=torch.int64), torch.ones(1, 3, 2, dtype=torch.complex64)):
        with pytest.raises(ShapeError, match="source: expected floating numbers"):
            transport(wrong, torch.zeros(1, 3, dtype=torch.int64), good, 3)
        with pytest.raises(ShapeError, match="source: expected floating numbers"):
            resample(wrong, good, good)
    with pytest.raises(ShapeError, match="source_mask: expected valid tokens first"):
        resample(x, hole, good)


@pytest.mark.parametrize("window", [None, 1])
def test_what_is_not_valid_changes_nothing(window: int | None) -> None:
    source, anchor, source_mask, anchor_mask = ragged(1)
    times = draw(4, 11).abs().cumsum(1), draw(4, 9).abs().cumsum(1)
    options: dict[str, Any] = {"window": window, "time_weight": 0.5}
    expected = match_tokens(
        source, anchor, source_mask, anchor_mask, source_times=times[0], anchor_times=times[1], **options
    )
    for garbage in (torch.nan, torch.inf, -torch.inf, 1e30, 0.0):
        dirty_source = source.masked_fill(~source_mask.unsqueeze(-1), garbage)
        dirty_anchor = anchor.masked_fill(~anchor_mask.unsqueeze(-1), garbage)
        dirty_times = times[0].masked_fill(~source_mask, garbage), times[1].masked_fill(~anchor_mask, garbage)
        actual = match_tokens(
            dirty_source,
            dirty_anchor,
            source_mask,
            anchor_mask,
            source_times=dirty_times[0],
            anchor_times=dirty_times[1],
            **options,
        )
        assert torch.equal(actual[0], expected[0])
        assert torch.equal(actual[1], expected[1])
        for mass in ("paper", "mean"):
            clean = transport(source, expected[0], source_mask, 9, mass=mass)
            assert torch.equal(transport(dirty_source, actual[0], source_mask, 9, mass=mass), clean)
        pulled = resample(source, source_mask, anchor_mask)
        assert torch.equal(resample(dirty_source, source_mask, anchor_mask), pulled)
        dirty_source.requires_grad_()
        (gradient,) = torch.autograd.grad(
            transport(dirty_source, actual[0], source_mask, 9).sum()
            + resample(dirty_source, source_mask, anchor_mask).sum(),
            dirty_source,
        )
        assert torch.equal(gradient[~source_mask], torch.zeros_like(gradient[~source_mask]))


@pytest.mark.parametrize("window", [None, 0, 2])
@pytest.mark.parametrize("time_weight", [0.0, 2.0])
def test_padding_either_side_changes_nothing(window: int | None, time_weight: float) -> None:
    source, anchor, source_mask, anchor_mask = ragged(2)
    index, similarity = match_tokens(
        source, anchor, source_mask, anchor_mask, window=window, time_weight=time_weight
    )
    for more_source, more_anchor in ((4, 0), (0, 5), (30, 40)):
        index_padded, similarity_padded = match_tokens(
            F.pad(source, (0, 0, 0, more_source), value=7.0),
            F.pad(anchor, (0, 0, 0, more_anchor), value=7.0),
            F.pad(source_mask, (0, more_source)),
            F.pad(anchor_mask, (0, more_anchor)),
            window=window,
            time_weight=time_weight,
        )
        assert torch.equal(index_padded[:, :11], index)
        assert (index_padded[:, 11:] == -1).all()
        assert_close(similarity_padded[:, :11], similarity, **FLOAT64)
        for mass in ("paper", "mean"):
            longer = F.pad(source, (0, 0, 0, more_source), value=7.0)
            padded = transport(
                longer, index_padded, F.pad(source_mask, (0, more_source)), 9 + more_anchor, mass=mass
            )
            assert_close(padded[:, :9], transport(source, index, source_mask, 9, mass=mass), **FLOAT64)
            assert not padded[:, 9:].any()


def test_samples_of_a_batch_do_not_mix() -> None:
    source, anchor, source_mask, anchor_mask = ragged(3)
    for window in (None, 1):
        index, _ = match_tokens(source, anchor, source_mask, anchor_mask, window=window)
        for sample in range(4):
            one = slice(sample, sample + 1)
            assert torch.equal(
                match_tokens(source[one], anchor[one], source_mask[one], anchor_mask[one], window=window)[0],
                index[one],
            )


@given(exponent=st.integers(-44, 37), seed=st.integers(0, 20))
def test_lengths_of_tokens_do_not_matter(exponent: int, seed: int) -> None:
    source, anchor, source_mask, anchor_mask = ragged(seed)
    index, similarity = match_tokens(source, anchor, source_mask, anchor_mask)
    lengths = draw(4, 9, 1, seed=seed).exp()
    index_scaled, similarity_scaled = match_tokens(
        source * 10.0**exponent, anchor * lengths, source_mask, anchor_mask
    )
    assert torch.equal(index_scaled, index)
    assert_close(similarity_scaled, similarity, **FLOAT64)


@pytest.mark.parametrize(("num_source", "num_anchor"), [(0, 0), (0, 3), (3, 0), (1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("window", [None, 0, 3])
def test_sequences_without_or_with_one_token(num_source: int, num_anchor: int, window: int | None) -> None:
    source, anchor = draw(2, num_source, 3), draw(2, num_anchor, 3, seed=1)
    masks = whole(2, num_source), whole(2, num_anchor)
    index, similarity = match_tokens(source, anchor, *masks, window=window, time_weight=1.0)
    expected_index, expected_similarity = match_by_loop(
        source, anchor, *masks, window=window, time_weight=1.0
    )
    assert torch.equal(index, expected_index)
    assert_close(similarity, expected_similarity, **FLOAT64)
    for mass in ("paper", "mean"):
        assert transport(source, index, masks[0], num_anchor, mass=mass).shape == (2, num_anchor, 3)
        assert transport_plan(index, masks[0], num_anchor, mass=mass).shape == (2, num_source, num_anchor)
    assert resample(source, *masks).shape == (2, num_anchor, 3)


def test_an_empty_batch() -> None:
    empty = torch.zeros(0, 3, 2)
    index, similarity = match_tokens(empty, empty, whole(0, 3), whole(0, 3), window=1)
    assert index.shape == similarity.shape == (0, 3)
    assert transport(empty, index, whole(0, 3), 3).shape == (0, 3, 2)


def test_no_gradient_through_the_match() -> None:
    source, anchor, source_mask, anchor_mask = ragged(4)
    source.requires_grad_()
    anchor.requires_grad_()
    index, similarity = match_tokens(source, anchor, source_mask, anchor_mask)
    assert not index.requires_grad
    assert not similarity.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_and_half_precision_do_not_lower_the_precision_of_the_match(dtype: torch.dtype) -> None:
    source, anchor, source_mask, anchor_mask = ragged(5, time_source=60, time_anchor=60, channel=3)
    half_source, half_anchor = source.to(dtype), anchor.to(dtype)
    expected = match_by_loop(half_source, half_anchor, source_mask, anchor_mask)[0]
    with torch.autocast("cpu", torch.bfloat16):
        index, similarity = match_tokens(half_source, half_anchor, source_mask, anchor_mask)
        windowed, _ = match_tokens(half_source, half_anchor, source_mask, anchor_mask, window=58)
    assert torch.equal(index, expected)
    assert torch.equal(windowed[:, 1], expected[:, 1])
    assert similarity.dtype == dtype


def exact_cost(source: Tensor, anchor: Tensor) -> tuple[np.ndarray[Any, Any], float]:
    """Cost matrix of one sample and the optimal cost under both marginals, uniform."""
    cost = 1 - (F.normalize(source, dim=-1) @ F.normalize(anchor, dim=-1).T).numpy()
    return cost, float(
        ot.emd2(np.full(len(source), 1 / len(source)), np.full(len(anchor), 1 / len(anchor)), cost)
    )


@pytest.mark.parametrize(("num_source", "num_anchor"), [(1, 1), (7, 5), (5, 7), (30, 20), (1, 6)])
def test_the_plan_solves_the_relaxed_problem(num_source: int, num_anchor: int) -> None:
    for seed in range(4):
        source, anchor = draw(1, num_source, 3, seed=seed), draw(1, num_anchor, 3, seed=seed + 50)
        index, similarity = match_tokens(source, anchor, whole(1, num_source), whole(1, num_anchor))
        plan = transport_plan(index, whole(1, num_source), num_anchor)[0].double().numpy()
        cost, both_marginals = exact_cost(source[0], anchor[0])
        achieved = float((plan * cost).sum())
        # Dropping a constraint cannot cost more, and no plan with these row sums beats each row's cheapest
        # entry.
        assert achieved <= both_marginals + TRANSPORT_COST + PLAN_FLOAT32["rtol"]
        assert achieved == pytest.approx(
            cost.min(1).mean(), rel=PLAN_FLOAT32["rtol"], abs=PLAN_FLOAT32["atol"]
        )
        assert achieved == pytest.approx(
            float(1 - similarity.mean()), rel=PLAN_FLOAT32["rtol"], abs=PLAN_FLOAT32["atol"]
        )
        if num_anchor == 1 or num_source == 1:
            continue
        assert achieved < both_marginals, "the example does not tell the two problems apart"


def test_the_relaxed_optimum_equals_the_exact_one_where_matching_is_a_permutation() -> None:
    anchor = draw(1, 8, 20, seed=1)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    source = anchor[:, order] + 0.01 * draw(1, 8, 20, seed=2)
    index, similarity = match_tokens(source, anchor, whole(1, 8), whole(1, 8))
    assert torch.equal(index[0], order)
    assert float(1 - similarity.mean()) == pytest.approx(
        exact_cost(source[0], anchor[0])[1], abs=TRANSPORT_COST
    )


@pytest.mark.parametrize("mass", ["paper", "mean"])
def test_transport_is_the_transposed_plan_times_the_tokens(mass: Any) -> None:
    source, anchor, source_mask, anchor_mask = ragged(6)
    index, _ = match_tokens(source, anchor, source_mask, anchor_mask)
    plan = transport_plan(index, source_mask, 9, mass=mass)
    assert plan.dtype == torch.float32
    assert_close(
        transport(source, index, source_mask, 9, mass=mass),
        plan.double().transpose(1, 2) @ source,
        **PLAN_FLOAT32,
    )


def test_rows_of_the_plan_send_equal_mass_and_all_of_it_arrives() -> None:
    source, anchor, source_mask, anchor_mask = ragged(7)
    index, _ = match_tokens(source, anchor, source_mask, anchor_mask)
    plan = transport_plan(index, source_mask, 9).double()
    lengths = source_mask.sum(1)
    matched = source_mask & anchor_mask.any(1, keepdim=True)
    assert_close(plan.sum(2), matched / lengths.unsqueeze(1).double(), **PLAN_FLOAT32)
    assert ((plan > 0).sum(2) == matched).all()
    assert_close(plan.sum((1, 2)), anchor_mask.any(1).double(), **PLAN_FLOAT32)
    assert not plan.transpose(1, 2)[~anchor_mask].any()
    # In tokens: the sum of what arrives is the mean of what was sent, and nothing without an anchor.
    arrived = transport(source, index, source_mask, 9).sum(1)
    for sample in range(4):
        mean = (
            source[sample, source_mask[sample]].mean(0)
            if anchor_mask[sample].any()
            else torch.zeros(4, dtype=torch.float64)
        )
        assert_close(arrived[sample], mean, **FLOAT64)
    # With mass "mean" every column that receives anything sums to one.
    columns = transport_plan(index, source_mask, 9, mass="mean").sum(1)
    assert_close(columns, (plan.sum(1) > 0).float(), **PLAN_FLOAT32)


def test_transport_worked_by_hand() -> None:
    source = torch.tensor([[[1.0], [2.0], [4.0], [8.0], [16.0]]])
    index = torch.tensor([[1, 0, 1, -1, 2]])
    mask = prefix_mask([4], 5)
    assert transport(source, index, mask, 3).flatten().tolist() == [0.5, 1.25, 0]
    assert transport(source, index, mask, 3, mass="mean").flatten().tolist() == [2, 2.5, 0]
    assert transport_plan(index, mask, 3)[0].tolist() == [
        [0, 0.25, 0],
        [0.25, 0, 0],
        [0, 0.25, 0],
        [0, 0, 0],
        [0, 0, 0],
    ]
    assert transport_plan(index, mask, 3, mass="mean")[0].tolist() == [
        [0, 0.5, 0],
        [1, 0, 0],
        [0, 0.5, 0],
        [0, 0, 0],
        [0, 0, 0],
    ]


@pytest.mark.parametrize("mass", ["paper", "mean"])
def test_gradcheck_of_transport(mass: Any) -> None:
    source, anchor, source_mask, anchor_mask = ragged(8, channel=2)
    index, _ = match_tokens(source, anchor, source_mask, anchor_mask)
    assert torch.autograd.gradcheck(
        lambda x: transport(x, index, source_mask, 9, mass=mass), (source.requires_grad_(),), **GRADCHECK
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, FLOAT16), (torch.bfloat16, BFLOAT16)],
    ids=["float16", "bfloat16"],
)
@pytest.mark.parametrize("mass", ["paper", "mean"])
def test_many_half_precision_tokens_at_one_place(
    dtype: torch.dtype, tolerance: dict[str, float], mass: Any
) -> None:
    # Their sum, 3e6, is beyond float16, and bfloat16 cannot count to 3001.
    source = torch.full((1, 3001, 2), 1000.0, dtype=dtype)
    moved = transport(source, torch.zeros(1, 3001, dtype=torch.int64), whole(1, 3001), 1, mass=mass)
    assert moved.dtype == dtype
    assert_close(moved.float() / 1000, torch.ones(1, 1, 2), **tolerance)


@given(num_source=st.integers(1, 40), num_anchor=st.integers(1, 40), seed=st.integers(0, 9))
def test_resampling_is_adaptive_average_pooling(num_source: int, num_anchor: int, seed: int) -> None:
    source = draw(2, num_source, 3, seed=seed)
    expected = F.adaptive_avg_pool1d(source.transpose(1, 2), num_anchor).transpose(1, 2)
    assert_close(resample(source, whole(2, num_source), whole(2, num_anchor)), expected, **FLOAT64)


@given(
    lengths=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4),
    padding=st.integers(0, 3),
)
def test_resampling_of_ragged_sequences_is_that_of_each_alone(
    lengths: list[tuple[int, int]], padding: int
) -> None:
    num_source, num_anchor = (max(pair[side] for pair in lengths) + padding for side in (0, 1))
    source = draw(len(lengths), num_source, 2)
    result = resample(
        source,
        prefix_mask([s for s, _ in lengths], num_source),
        prefix_mask([a for _, a in lengths], num_anchor),
    )
    assert result.shape == (len(lengths), num_anchor, 2)
    for sample, (length, anchors) in enumerate(lengths):
        expected = torch.zeros(num_anchor, 2, dtype=torch.float64)
        if length and anchors:
            expected[:anchors] = F.adaptive_avg_pool1d(source[sample, :length].T, anchors).T
        assert_close(result[sample], expected, **FLOAT64)


def test_gradcheck_of_resampling() -> None:
    source_mask, anchor_mask = prefix_mask([7, 3, 0], 7), prefix_mask([4, 5, 2], 5)
    assert torch.autograd.gradcheck(
        lambda x: resample(x, source_mask, anchor_mask), (draw(3, 7, 2).requires_grad_(),), **GRADCHECK
    )


def test_resampling_loses_no_digits_over_a_long_sequence() -> None:
    source = 1000 + draw(1, 20_000, 1).float()
    expected = F.adaptive_avg_pool1d(source.double().transpose(1, 2), 7000).transpose(1, 2).float()
    result = resample(source, whole(1, 20_000), whole(1, 7000))
    assert result.dtype == torch.float32
    assert_close(result, expected, **PLAN_FLOAT32)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("window", [None, 3, 100])
def test_memory_is_linear(window: int | None, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    time, channel, entries = 600, 4, 2**15
    monkeypatch.setattr(transport_module, "_TILE_ENTRIES", entries)
    source, anchor = (
        draw(batch, time, channel).requires_grad_(),
        draw(batch, time, channel, seed=1).requires_grad_(),
    )
    kept = KeptBytes()
    with LargestTensor() as largest, torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
        index, _ = match_tokens(
            source, anchor, whole(batch, time), whole(batch, time), window=window, time_weight=1.0
        )
        moved = transport(source, index, whole(batch, time), time, mass="mean")
        pulled = resample(source, whole(batch, time), whole(batch, time))
        (moved.sum() + pulled.sum()).backward()
    assert largest.numel <= max(entries, batch * (time + 1) * channel)
    assert kept.total <= 8 * 10 * batch * time * channel


def refused_match(**changes: Any) -> None:
    arguments: dict[str, Any] = {
        "source": draw(2, 4, 3),
        "anchor": draw(2, 5, 3),
        "source_mask": whole(2, 4),
        "anchor_mask": whole(2, 5),
    }
    match_tokens(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"source": torch.zeros(2, 4)}, ShapeError, "source_mask"),
        ({"source": torch.zeros(2, 4, 3, dtype=torch.int64)}, ShapeError, "source, anchor: .*torch.int64"),
        ({"anchor": torch.zeros(2, 5, 2)}, ShapeError, r"source .*\(2, 4, 3\).*anchor .*\(2, 5, 2\)"),
        ({"anchor": torch.zeros(1, 5, 3), "anchor_mask": whole(1, 5)}, ShapeError, r"anchor .*\(1, 5, 3\)"),
        (
            {"anchor": torch.zeros(2, 5, 3, device="meta"), "anchor_mask": whole(2, 5).to("meta")},
            ShapeError,
            "one device.* meta",
        ),
        ({"source_mask": whole(2, 3)}, ShapeError, "^source_mask: "),
        ({"anchor_mask": torch.ones(2, 5)}, ShapeError, "^anchor_mask: "),
        ({"window": -1}, ConfigError, "^window: .*-1"),
        ({"time_weight": -0.5}, ConfigError, "^time_weight: .*-0.5"),
        ({"time_weight": math.nan}, ConfigError, "^time_weight: .*nan"),
        ({"time_weight": math.inf}, ConfigError, "^time_weight: .*inf"),
        ({"source_times": torch.zeros(2, 4)}, ConfigError, "source_times and anchor_times"),
        ({"anchor_times": torch.zeros(2, 5)}, ConfigError, "source_times and anchor_times"),
        (
            {"source_times": torch.zeros(2, 3), "anchor_times": torch.zeros(2, 5)},
            ShapeError,
            "^source_times: ",
        ),
        (
            {"source_times": torch.zeros(2, 4), "anchor_times": torch.zeros(2, 5, 1)},
            ShapeError,
            "^anchor_times: ",
        ),
    ],
)
def test_arguments_of_the_match_that_do_not_fit_are_named(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        refused_match(**changes)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), r"^index: expected int64 of shape \(2, 4\)"),
        (torch.zeros(2, 4), "^index: expected int64 .*float32"),
        (torch.full((2, 4), 5), "^index: expected values below num_anchor 5, found 5"),
    ],
)
def test_an_index_that_does_not_fit_is_named(index: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        transport(draw(2, 4, 3), index, whole(2, 4), 5)
    with pytest.raises(ShapeError, match=message):
        transport_plan(index, whole(2, 4), 5)


def test_other_arguments_that_do_not_fit_are_named() -> None:
    index = torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"^mass: expected 'paper' or 'mean', found 'all'"):
        transport(draw(2, 4, 3), index, whole(2, 4), 5, mass="all")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"^source_mask: "):
        transport(draw(2, 4, 3), index, torch.ones(2, 4), 5)
    with pytest.raises(ShapeError, match=r"^source_mask: "):
        transport_plan(index, torch.ones(2, 4), 5)
    with pytest.raises(ShapeError, match=r"^source_mask: "):
        resample(draw(2, 4, 3), whole(2, 3), whole(2, 5))
    with pytest.raises(ShapeError, match=r"^anchor_mask: expected bool \(2, time\)"):
        resample(draw(2, 4, 3), whole(2, 4), whole(1, 5))
