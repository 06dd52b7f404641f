"""Matching compiled for the CPU: exactly the reference's index, whatever single precision made of the
similarities.
"""

import math
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from alignmamba.errors import ConfigError
from alignmamba.ops import match_tokens
from alignmamba.ops.cpu import transport as cpu_transport
from drawn import prefix_mask
from tolerances import FLOAT64

# By its full name: in the package the name stands for the function.
transport = import_module("alignmamba.ops.transport")


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ragged(
    n: int, m: int, channel: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Five samples: full, short, one valid token on a side or both, none."""
    lengths = [n, max(1, n // 2), 1, 1, n], [m, max(1, m // 3), m, 1, 0]
    return [
        draw(5, n, channel, seed=seed, dtype=dtype),
        draw(5, m, channel, seed=seed + 1, dtype=dtype),
        *(prefix_mask(lengths, time) for lengths, time in zip(lengths, (n, m), strict=True)),
    ]


def assert_the_reference(*tensors: Tensor, **options: Any) -> Tensor:
    """The index of both, after comparing it bit by bit, and the similarity to the last digits."""
    index, similarity = match_tokens(*tensors, **options, backend="numba")  # type: ignore[misc]
    expected, expected_similarity = match_tokens(*tensors, **options, backend="torch")  # type: ignore[misc]
    assert torch.equal(index, expected), f"{int((index != expected).sum())} of {index.numel()} differ"
    if similarity.dtype == torch.float64:
        assert_close(similarity, expected_similarity, **FLOAT64)
    else:
        assert_close(similarity, expected_similarity)
    return index


@pytest.fixture(params=[None, 64], ids=["one tile", "many tiles"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles as they are, under which a small batch is one, or so small that it takes many with edges in odd
    places.
    """
    if request.param is not None:
        monkeypatch.setattr(cpu_transport, "_TILE_ENTRIES", request.param)
        monkeypatch.setattr(cpu_transport, "_BLOCK_ROWS", 8)
        monkeypatch.setattr(cpu_transport, "_NARROW_BLOCK_ROWS", 4)
        monkeypatch.setattr(cpu_transport, "_NARROW", 6)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("time_weight", [0.0, 1e-3, 10.0, 1000.0])
@pytest.mark.parametrize("window", [None, 0, 1, 5])
@pytest.mark.parametrize(("n", "m", "channel"), [(1, 1, 1), (63, 65, 17), (65, 7, 130), (33, 130, 3)])
def test_it_chooses_what_the_reference_chooses(
    n: int, m: int, channel: int, window: int | None, time_weight: float
) -> None:
    assert_the_reference(*ragged(n, m, channel), window=window, time_weight=time_weight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    assert_the_reference(*ragged(40, 50, 8, dtype=dtype), time_weight=3.0)
    source, anchor, *masks = ragged(40, 50, 8, dtype=dtype)
    assert_the_reference(source.float(), anchor, *masks)


def test_a_difference_that_single_precision_cannot_see_decides() -> None:
    """Anchor tokens a hundred times closer together than single precision resolves, in float64."""
    direction = draw(1, 1, 16, dtype=torch.float64)
    source = direction.expand(1, 4, 16)
    anchor = direction + 1e-4 * draw(1, 6, 16, seed=1, dtype=torch.float64)
    anchor[0, 4] = direction + 0.5e-4 * draw(1, 6, 16, seed=1, dtype=torch.float64)[0, 0]
    index = assert_the_reference(source, anchor, *(torch.ones(1, time, dtype=torch.bool) for time in (4, 6)))
    assert index.unique().numel() == 1
    cosines = torch.nn.functional.cosine_similarity(direction, anchor, dim=-1)
    assert int(index[0, 0]) == int(cosines.argmax())
    assert len(cosines.float().unique()) < 6


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("copies", [2, 8, 9, 30])
def test_the_lowest_of_equal_anchor_tokens_wins_however_many_there_are(
    copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rivals than are remembered are settled by the reference."""
    settled = []
    settle = transport._settle
    monkeypatch.setattr(
        transport, "_settle", lambda *given: settled.append(int(given[2].sum())) or settle(*given)
    )
    source, few, *_ = ragged(20, 4, 6, seed=3)
    anchor = few.repeat(1, copies, 1)
    masks = torch.ones(5, 20, dtype=torch.bool), torch.ones(5, 4 * copies, dtype=torch.bool)
    index = assert_the_reference(source, anchor, *masks)
    assert int(index.max()) < 4
    assert settled == ([100] if copies > cpu_transport._RIVALS else [])


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize(
    "options",
    [{"window": 5}, {"time_weight": 1e-3}, {"time_weight": 10.0}, {"window": 12, "time_weight": 1e-3}],
)
def test_ties_under_a_window_and_with_a_prior(options: dict[str, Any]) -> None:
    source, few, *_ = ragged(20, 2, 6, seed=3)
    masks = prefix_mask([20, 11, 1, 20, 20], 20), prefix_mask([60, 60, 60, 31, 0], 60)
    assert_the_reference(source.round(), few.repeat(1, 30, 1).round(), *masks, **options)


@given(
    st.lists(
        st.lists(st.sampled_from([-1.0, 0.0, 0.0, 1.0]), min_size=2, max_size=2), min_size=1, max_size=12
    ),
    st.lists(
        st.lists(st.sampled_from([-1.0, 0.0, 0.0, 2.0]), min_size=2, max_size=2), min_size=1, max_size=25
    ),
    st.sampled_from([None, 0, 1, 5]),
    st.sampled_from([0.0, 1e-3, 10.0]),
)
def test_coarse_values_with_many_ties_and_zeros(
    x: list[list[float]], y: list[list[float]], window: int | None, weight: float
) -> None:
    source, anchor = torch.tensor([x]), torch.tensor([y])
    masks = (torch.ones(side.shape[:2], dtype=torch.bool) for side in (source, anchor))
    assert_the_reference(source, anchor, *masks, window=window, time_weight=weight)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("size", [1e-30, 1e-4, 1e30])
@pytest.mark.parametrize("other", [1e-30, 1.0, 1e30])
def test_lengths_of_tokens_do_not_matter(size: float, other: float) -> None:
    source, anchor, *masks = ragged(30, 40, 9)
    source[0, 3], anchor[0, 5], anchor[1] = 0.0, 0.0, 0.0  # zero tokens, and a sample of nothing else
    expected = assert_the_reference(source, anchor, *masks)
    source, anchor = (tokens.double() for tokens in (source, anchor))
    assert torch.equal(
        assert_the_reference((source * size).float(), (anchor * other).float(), *masks), expected
    )


def test_subnormal_tokens() -> None:
    source, anchor, *masks = ragged(30, 40, 9)
    assert_the_reference((source.double() * 1e-42).float(), anchor, *masks)


IRREGULAR = {
    "irregular": lambda n, m: (draw(5, n, seed=5).sort(1).values, draw(5, m, seed=6).sort(1).values),
    "far apart": lambda n, m: (draw(5, n, seed=5) + 300, draw(5, m, seed=6).sort(1).values),
    "one moment": lambda n, m: (draw(5, n, seed=5), torch.full((5, m), 0.25)),
    "bursts": lambda n, m: (draw(5, n, seed=5).round(), (draw(5, m, seed=6) * 2).round().sort(1).values / 2),
    "unordered source": lambda n, m: (draw(5, n, seed=7) * 50, (draw(5, m, seed=6) * 50).sort(1).values),
}


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("time_weight", [1e-3, 10.0, 1000.0])
@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize("times", IRREGULAR)
def test_times_of_their_own(times: str, window: int | None, time_weight: float) -> None:
    """A penalty large, and its rounding with it, where both ranges are far apart."""
    source_times, anchor_times = IRREGULAR[times](40, 50)
    options = {
        "window": window,
        "time_weight": time_weight,
        "source_times": source_times,
        "anchor_times": anchor_times,
    }
    assert_the_reference(*ragged(40, 50, 7), **options)


@given(
    st.lists(st.floats(-30, 30), min_size=1, max_size=6),
    st.lists(st.floats(-30, 30), min_size=2, max_size=12),
    st.floats(1e-4, 1e3),
    st.integers(0, 2**16),
)
def test_no_anchor_token_is_left_out_that_could_win(
    source: list[float], anchor: list[float], weight: float, seed: int
) -> None:
    """The bound on time must let everything through that the reference could choose: tokens opposite to and
    along the source's.
    """
    x = torch.ones(1, len(source), 1)
    y = torch.randint(0, 2, (1, len(anchor), 1), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
    times = {"source_times": torch.tensor([source]), "anchor_times": torch.tensor([sorted(anchor)])}
    masks = (torch.ones(side.shape[:2], dtype=torch.bool) for side in (x, y))
    assert_the_reference(x, y, *masks, time_weight=weight, **times)


@pytest.mark.parametrize("weight", [1e-3, 1.0, 1000.0])
@pytest.mark.parametrize("apart", [0.0, 0.3, 2.0])
def test_the_bound_on_time_is_neither_too_tight_nor_idle(weight: float, apart: float) -> None:
    """The worst case worked by hand: the nearest token has cosine -1, one at the very reach of the bound has
    1 and still draws.
    """
    reach = math.sqrt(2 / weight + apart**2)
    x = torch.ones(1, 1, 1)
    for distance, expected in ((reach * (1 - 1e-6), 1), (reach * (1 + 1e-6), 0)):
        y = torch.tensor([[[-1.0], [1.0]]])
        times = {
            "source_times": torch.zeros(1, 1),
            "anchor_times": torch.tensor([[apart, distance]], dtype=torch.float64),
        }
        index = assert_the_reference(
            x,
            y,
            torch.ones(1, 1, dtype=torch.bool),
            torch.ones(1, 2, dtype=torch.bool),
            time_weight=weight,
            **times,
        )
        assert int(index) == expected
    first, last = transport._candidates(
        torch.zeros(1, 1).double(),
        torch.tensor([[apart, reach * 1.01]]).double(),
        torch.ones(1, 2, dtype=torch.bool),
        weight,
        None,
    )
    assert (int(first), int(last)) == (0, 1)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("layout", ["slice of channels", "time first", "every other token"])
def test_layouts_that_are_not_contiguous(layout: str) -> None:
    source, anchor, *masks = ragged(30, 40, 6)
    for tokens in (source, anchor):
        views = {
            "slice of channels": torch.cat([tokens + 1, tokens], 2)[..., 6:],
            "time first": tokens.transpose(0, 1).contiguous().transpose(0, 1),
            "every other token": torch.stack([tokens, tokens + 1], 2).flatten(1, 2)[:, ::2],
        }
        assert torch.equal(views[layout], tokens)
        tokens.set_(views[layout])  # type: ignore[call-overload]
        assert not tokens.is_contiguous()
    times = {"source_times": draw(30, 5, seed=8).t(), "anchor_times": draw(40, 5, seed=9).sort(0).values.t()}
    assert_the_reference(source, anchor, *masks, time_weight=0.5, **times)


def test_nothing_is_left_unwritten_and_arguments_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ragged(30, 40, 6)
    before = [tensor.clone() for tensor in given]
    expected = match_tokens(*given, time_weight=5.0, backend="numba")  # type: ignore[misc]
    new_empty, empty = Tensor.new_empty, torch.empty
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *a, **k: new_empty(self, *a, **k).fill_(math.nan))
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(math.nan))
    found = match_tokens(*given, time_weight=5.0, backend="numba")  # type: ignore[misc]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(given, before, strict=True))


def test_threads_change_nothing() -> None:
    given = ragged(65, 63, 33)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(match_tokens(*given, time_weight=5.0, backend="numba"))  # type: ignore[misc]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_to_match(n: int, m: int) -> None:
    masks = torch.ones(2, n, dtype=torch.bool), torch.ones(2, m, dtype=torch.bool)
    index, similarity = match_tokens(draw(2, n, 3), draw(2, m, 3), *masks, backend="numba")
    assert index.tolist() == [[-1] * n] * 2
    assert not similarity.any()


@pytest.mark.usefixtures("tiles")
def test_tokens_of_no_channel_and_batches_of_no_sample() -> None:
    masks = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)
    assert_the_reference(torch.zeros(2, 5, 0), torch.zeros(2, 4, 0), *masks)
    assert_the_reference(torch.zeros(0, 5, 3), torch.zeros(0, 4, 3), masks[0][:0], masks[1][:0])


@pytest.mark.parametrize("size", [1e-160, 1e140])
def test_the_length_of_a_vector_does_not_matter(size: float) -> None:
    x, y = (
        torch.randn(2, n, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        for n in (40, 50)
    )
    masks = (torch.ones(2, 40, dtype=torch.bool), torch.ones(2, 50, dtype=torch.bool))
    expected, found = (
        match_tokens(x, y, *masks, backend="torch"),
        match_tokens(x * size, y * size, *masks, backend="numba"),
    )
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("window", [2**31 + 1, 2**63, -1, 1.5, math.nan])
def test_a_window_is_a_whole_number_within_bounds(window: Any) -> None:
    x, mask = torch.randn(1, 4, 3), torch.ones(1, 4, dtype=torch.bool)
    with pytest.raises(ConfigError, match=r"^window: expected a whole number from 0 to 2147483648, found "):
        match_tokens(x, x, mask, mask, window=window)


def test_the_widest_window_is_exact() -> None:
    x, y = torch.randn(2, 40, 8), torch.randn(2, 50, 8)
    masks = (torch.ones(2, 40, dtype=torch.bool), torch.ones(2, 50, dtype=torch.bool))
    assert torch.equal(match_tokens(x, y, *masks, window=2**31)[0], match_tokens(x, y, *masks)[0])


def test_another_default_type_changes_nothing() -> None:
    x, mask = torch.randn(2, 40, 8), torch.ones(2, 40, dtype=torch.bool)
    expected = match_tokens(x, x.flip(1), mask, mask)
    try:
        torch.set_default_dtype(torch.float64)
        found = match_tokens(x, x.flip(1), mask, mask)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
