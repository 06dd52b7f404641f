"""Maximum mean discrepancy against its formula in numpy, one pair of tokens at a time."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops import discrepancy, mmd
from drawn import draw, prefix_mask
from instruments import KeptBytes, LargestTensor
from tolerances import EXACT, FLOAT32, FLOAT64, GRADCHECK, NOT_NEGATIVE, STANDARD_ERRORS


def whole(batch: int, time: int) -> Tensor:
    return torch.ones(batch, time, dtype=torch.bool)


def median_distance(tokens: np.ndarray[Any, Any]) -> float:
    """Lower median over pairs, 1 where there is no pair or the median is zero."""
    distances = sorted(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(tokens, 2))
    middle = distances[(len(distances) - 1) // 2] if distances else 0.0
    return middle or 1.0


def mmd_by_formula(
    x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, *, bandwidth: float | str, unbiased: bool = False
) -> Tensor:
    """Eq. 8-9 by definition, pair by pair, on the valid tokens of each sample."""
    results = []
    for sample in range(len(x)):
        a, b = x[sample, x_mask[sample]].numpy(), y[sample, y_mask[sample]].numpy()
        sigma = median_distance(np.concatenate([a, b])) if isinstance(bandwidth, str) else bandwidth

        def mean_kernel(left: Any, right: Any, *, without_diagonal: bool, sigma: float = sigma) -> float:
            pairs = [
                (i, j)
                for i in range(len(left))
                for j in range(len(right))
                if not (without_diagonal and i == j)
            ]
            return sum(
                math.exp(-float(((left[i] - right[j]) ** 2).sum()) / (2 * sigma**2)) for i, j in pairs
            ) / len(pairs)

        if min(len(a), len(b)) < (2 if unbiased else 1):
            results.append(0.0)
            continue
        within = mean_kernel(a, a, without_diagonal=unbiased) + mean_kernel(b, b, without_diagonal=unbiased)
        results.append(within - 2 * mean_kernel(a, b, without_diagonal=False))
    return torch.tensor(results, dtype=torch.float64)


def ragged(
    seed: int = 0, *, x_time: int = 9, y_time: int = 7, channel: int = 3
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Six samples: full, short, two tokens, one token on a side, none on either side."""
    x_mask, y_mask = (
        prefix_mask([x_time, 4, 2, 1, 0, 3], x_time),
        prefix_mask([y_time, 5, 2, 6, 3, 0], y_time),
    )
    return (
        draw(6, x_time, channel, seed=seed),
        draw(6, y_time, channel, seed=seed + 100) + 0.5,
        x_mask,
        y_mask,
    )


@pytest.mark.parametrize("entries", [1, 2**21], ids=["tiles of 16", "one tile"])
@pytest.mark.parametrize("unbiased", [False, True], ids=["biased", "unbiased"])
@pytest.mark.parametrize("bandwidth", [0.3, 1.0, 5.0, "median"])
def test_value_equals_the_formula(
    bandwidth: Any, unbiased: bool, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discrepancy, "_TILE_ENTRIES", entries)
    tensors = ragged(x_time=35, y_time=21)
    expected = mmd_by_formula(*tensors, bandwidth=bandwidth, unbiased=unbiased)
    assert_close(mmd(*tensors, bandwidth=bandwidth, unbiased=unbiased), expected, **FLOAT64)
    single = tensors[0].float(), tensors[1].float(), *tensors[2:]
    result = mmd(*single, bandwidth=bandwidth, unbiased=unbiased)
    assert result.dtype == torch.float32
    assert_close(result.double(), expected, **FLOAT32)


@given(
    lengths=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=0, max_size=3),
    channel=st.integers(1, 4),
    bandwidth=st.sampled_from([0.5, 2.0, "median"]),
    unbiased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_value_equals_the_formula_on_coarse_values(
    lengths: list[tuple[int, int]], channel: int, bandwidth: Any, unbiased: bool, seed: int
) -> None:
    """Tokens of small integers: many duplicates, medians of zero."""
    x_time, y_time = (max([0, *(pair[side] for pair in lengths)]) for side in (0, 1))
    x, y = (
        draw(len(lengths), x_time, channel, seed=seed).round(),
        draw(len(lengths), y_time, channel, seed=seed + 1).round(),
    )
    counts = torch.tensor(lengths).reshape(-1, 2)
    masks = torch.arange(x_time) < counts[:, :1], torch.arange(y_time) < counts[:, 1:]
    expected = mmd_by_formula(x, y, *masks, bandwidth=bandwidth, unbiased=unbiased)
    assert_close(mmd(x, y, *masks, bandwidth=bandwidth, unbiased=unbiased), expected, **FLOAT64)


@pytest.mark.parametrize("distance", [0.0, 0.5, 3.0, 1e3])
@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_closed_form_of_two_single_tokens(distance: float, sigma: float) -> None:
    x = torch.tensor([[[1.0, 2.0]]], dtype=torch.float64)
    y = x + torch.tensor([0.6, 0.8], dtype=torch.float64) * distance
    expected = 2 - 2 * math.exp(-(distance**2) / (2 * sigma**2))
    assert_close(
        mmd(x, y, whole(1, 1), whole(1, 1), bandwidth=sigma),
        torch.tensor([expected], dtype=torch.float64),
        **FLOAT64,
    )


@pytest.mark.parametrize("bandwidth", [0.7, "median"])
def test_a_sequence_against_itself_gives_zero_and_swapping_changes_nothing(bandwidth: Any) -> None:
    x, y, x_mask, y_mask = ragged(1)
    assert_close(
        mmd(x, x, x_mask, x_mask, bandwidth=bandwidth), torch.zeros(6, dtype=torch.float64), **FLOAT64
    )
    swapped = mmd(y, x, y_mask, x_mask, bandwidth=bandwidth)
    assert_close(mmd(x, y, x_mask, y_mask, bandwidth=bandwidth), swapped, **FLOAT64)
    assert swapped[0] > 0.01


@given(
    seed=st.integers(0, 99),
    bandwidth=st.sampled_from([0.1, 1.0, 10.0, "median"]),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_the_biased_estimate_is_not_negative_and_at_most_two(seed: int, bandwidth: Any, scale: float) -> None:
    x, y, x_mask, y_mask = ragged(seed)
    result = mmd(x * scale, y * scale, x_mask, y_mask, bandwidth=bandwidth)
    assert (result >= NOT_NEGATIVE).all()
    assert (result <= 2 + 1e-12).all()


def test_the_unbiased_estimate_is_zero_on_average_and_the_biased_one_is_not() -> None:
    samples = 4000
    x, y = draw(samples, 6, 2, seed=1), draw(samples, 9, 2, seed=2)
    masks = whole(samples, 6), whole(samples, 9)
    unbiased, biased = (mmd(x, y, *masks, bandwidth=1.0, unbiased=which) for which in (True, False))
    standard_error = float(unbiased.std()) / math.sqrt(samples)
    assert abs(float(unbiased.mean())) < STANDARD_ERRORS * standard_error
    # k = 1/3 on average for two normal tokens in the plane, so that the diagonals add 2/3 of (1/6 + 1/9).
    assert abs(float(biased.mean()) - 2 / 3 * (1 / 6 + 1 / 9)) < STANDARD_ERRORS * standard_error


def test_the_median_is_the_lower_middle_of_all_distances() -> None:
    # Distances 1, 3, 6, 2, 5, 3: sorted 1, 2, 3, 3, 5, 6, lower middle 3.
    x, y = torch.tensor([[[0.0], [1.0], [99.0]]]), torch.tensor([[[3.0], [6.0]]])
    masks = prefix_mask([2], 3), whole(1, 2)
    assert_close(mmd(x, y, *masks, bandwidth="median"), mmd(x, y, *masks, bandwidth=3.0), **EXACT)
    # One distance only, and none.
    one = mmd(x[:, :1], y[:, :1], whole(1, 1), whole(1, 1), bandwidth="median")
    assert_close(one, torch.tensor([2 - 2 * math.exp(-0.5)]), **FLOAT32)
    assert mmd(x[:, :1], y[:, :0], whole(1, 1), whole(1, 0), bandwidth="median").tolist() == [0]


def test_a_median_of_zero_counts_as_one_in_spite_of_rounding() -> None:
    for seed in range(20):
        # Five equal tokens and one far away: ten of the fifteen distances are zero.
        x = draw(1, 1, 65, seed=seed).expand(1, 4, 65)
        y = torch.cat([x[:, :1], 100 + draw(1, 1, 65, seed=seed + 100)], 1)
        masks = whole(1, 4), whole(1, 2)
        assert_close(mmd(x, y, *masks, bandwidth="median"), mmd(x, y, *masks, bandwidth=1.0), **EXACT)


@pytest.mark.parametrize("masked", ["last", "scattered"])
def test_the_median_of_long_sequences_looks_at_evenly_spaced_valid_tokens(masked: str) -> None:
    x, y = draw(2, 1000, 2, seed=1), draw(2, 300, 2, seed=2)
    x_mask = prefix_mask([1000, 700], 1000) if masked == "last" else draw(2, 1000, seed=3) > -0.5
    y_mask = prefix_mask([300, 100], 300)
    sigma = []
    for sample in range(2):
        sides = [x[sample, x_mask[sample]], y[sample, y_mask[sample]]]
        chosen = [side[torch.arange(256) * len(side) // 256] if len(side) > 256 else side for side in sides]
        sigma.append(median_distance(torch.cat(chosen).numpy()))
    garbage = x.masked_fill(~x_mask.unsqueeze(-1), 1e6), y.masked_fill(~y_mask.unsqueeze(-1), 1e6)
    result = mmd(*garbage, x_mask, y_mask, bandwidth="median")
    for sample in range(2):
        one = slice(sample, sample + 1)
        assert_close(
            result[one], mmd(x[one], y[one], x_mask[one], y_mask[one], bandwidth=sigma[sample]), **FLOAT64
        )


def gradients(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, **options: Any) -> tuple[Tensor, ...]:
    x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
    weights = torch.arange(1, len(x) + 1)
    return torch.autograd.grad((mmd(x, y, x_mask, y_mask, **options) * weights).sum(), (x, y))


@pytest.mark.parametrize("bandwidth", [0.8, "median"])
def test_tiles_give_what_one_tile_gives(bandwidth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = ragged(2, x_time=70, y_time=33)
    value, gradient = mmd(*tensors, bandwidth=bandwidth), gradients(*tensors, bandwidth=bandwidth)
    monkeypatch.setattr(discrepancy, "_TILE_ENTRIES", 1)
    assert_close(mmd(*tensors, bandwidth=bandwidth), value, **FLOAT64)
    assert_close(gradients(*tensors, bandwidth=bandwidth), gradient, **FLOAT64)


@pytest.mark.parametrize("entries", [1, 2**21], ids=["tiles of 16", "one tile"])
@pytest.mark.parametrize("unbiased", [False, True], ids=["biased", "unbiased"])
def test_gradcheck(unbiased: bool, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrepancy, "_TILE_ENTRIES", entries)
    x, y, x_mask, y_mask = (tensor[[0, 1, 4]] for tensor in ragged(3, x_time=18, y_time=7, channel=2))

    def value(x: Tensor, y: Tensor) -> Tensor:
        return mmd(x, y, x_mask, y_mask, bandwidth=0.9, unbiased=unbiased)

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), y.requires_grad_()), **GRADCHECK)


def test_the_median_takes_no_gradient() -> None:
    x, y, x_mask, y_mask = (tensor[:1] for tensor in ragged(4))
    tokens = torch.cat([x[0], y[0]]).numpy()
    expected = gradients(x, y, x_mask, y_mask, bandwidth=median_distance(tokens))
    assert_close(gradients(x, y, x_mask, y_mask, bandwidth="median"), expected, **FLOAT64)


@pytest.mark.parametrize("bandwidth", [0.8, "median"])
def test_what_is_not_valid_changes_nothing_and_gets_no_gradient(bandwidth: Any) -> None:
    x, y, x_mask, y_mask = ragged(5)
    value, gradient = (
        mmd(x, y, x_mask, y_mask, bandwidth=bandwidth),
        gradients(x, y, x_mask, y_mask, bandwidth=bandwidth),
    )
    for garbage in (torch.nan, torch.inf, -torch.inf, 1e300):
        dirty = x.masked_fill(~x_mask.unsqueeze(-1), garbage), y.masked_fill(~y_mask.unsqueeze(-1), garbage)
        assert_close(mmd(*dirty, x_mask, y_mask, bandwidth=bandwidth), value, **EXACT)
        dirty_gradient = gradients(*dirty, x_mask, y_mask, bandwidth=bandwidth)
        assert_close(dirty_gradient, gradient, **EXACT)
        assert not dirty_gradient[0][~x_mask].any()
        assert not dirty_gradient[1][~y_mask].any()


@pytest.mark.parametrize("bandwidth", [0.8, "median"])
def test_padding_changes_nothing(bandwidth: Any) -> None:
    x, y, x_mask, y_mask = ragged(6)
    padded = F.pad(x, (0, 0, 0, 300)), F.pad(y, (0, 0, 0, 5)), F.pad(x_mask, (0, 300)), F.pad(y_mask, (0, 5))
    assert_close(mmd(*padded, bandwidth=bandwidth), mmd(x, y, x_mask, y_mask, bandwidth=bandwidth), **FLOAT64)


@pytest.mark.parametrize(
    ("offset", "spread", "dtype"),
    [(1e4, 1.0, torch.float32), (1e7, 1.0, torch.float64), (1e4, 1e-4, torch.float64)],
)
@pytest.mark.parametrize("padding", [0, 500])
@pytest.mark.parametrize("relative_bandwidth", [1.0, "median"])
def test_far_from_the_origin_no_digits_are_lost(
    offset: float, spread: float, dtype: torch.dtype, padding: int, relative_bandwidth: Any
) -> None:
    x, y, x_mask, y_mask = ragged(7)
    # What the shift itself rounds away is gone for the formula too.
    x, y = (offset + spread * x).to(dtype), (offset + spread * y).to(dtype)
    bandwidth = relative_bandwidth if relative_bandwidth == "median" else spread * relative_bandwidth
    expected = mmd_by_formula(x.double(), y.double(), x_mask, y_mask, bandwidth=bandwidth)
    padded = (
        F.pad(x, (0, 0, 0, padding)),
        F.pad(y, (0, 0, 0, padding)),
        F.pad(x_mask, (0, padding)),
        F.pad(y_mask, (0, padding)),
    )
    tolerance = FLOAT32 if dtype == torch.float32 else FLOAT64
    assert_close(mmd(*padded, bandwidth=bandwidth).double(), expected, **tolerance)


@pytest.mark.parametrize("scale", [1e8, 1e20, 1e37])
@pytest.mark.parametrize("bandwidth", [1.0, "median"])
def test_huge_values_stay_finite_and_right(scale: float, bandwidth: Any) -> None:
    x, y, x_mask, y_mask = (tensor[:1] for tensor in ragged(8))
    x, y = (x * scale).float(), (y * scale).float()
    expected = mmd_by_formula(x.double(), y.double(), x_mask, y_mask, bandwidth=bandwidth)
    assert_close(mmd(x, y, x_mask, y_mask, bandwidth=bandwidth).double(), expected, **FLOAT32)
    for gradient in gradients(x, y, x_mask, y_mask, bandwidth=bandwidth):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("unbiased", [False, True], ids=["biased", "unbiased"])
@pytest.mark.parametrize("bandwidth", [1.0, "median"])
@pytest.mark.parametrize(("x_time", "y_time"), [(0, 0), (0, 3), (3, 0), (3, 4)])
def test_an_empty_side_gives_zero_with_a_zero_gradient(
    x_time: int, y_time: int, bandwidth: Any, unbiased: bool
) -> None:
    x, y = draw(2, x_time, 3), draw(2, y_time, 3, seed=1)
    for x_mask, y_mask in ((~whole(2, x_time), whole(2, y_time)), (whole(2, x_time), ~whole(2, y_time))):
        assert mmd(x, y, x_mask, y_mask, bandwidth=bandwidth, unbiased=unbiased).tolist() == [0, 0]
        for gradient in gradients(x, y, x_mask, y_mask, bandwidth=bandwidth, unbiased=unbiased):
            assert torch.equal(gradient, torch.zeros_like(gradient))


@given(seed=st.integers(0, 99), bandwidth=st.sampled_from([0.7, "median"]), unbiased=st.booleans())
def test_the_order_of_tokens_does_not_matter(seed: int, bandwidth: Any, unbiased: bool) -> None:
    x, y, x_mask, y_mask = ragged(seed)
    generator = torch.Generator().manual_seed(seed)
    x_order, y_order = torch.randperm(9, generator=generator), torch.randperm(7, generator=generator)
    shuffled = x[:, x_order], y[:, y_order], x_mask[:, x_order], y_mask[:, y_order]
    expected = mmd(x, y, x_mask, y_mask, bandwidth=bandwidth, unbiased=unbiased)
    assert_close(mmd(*shuffled, bandwidth=bandwidth, unbiased=unbiased), expected, **FLOAT64)


def test_samples_of_a_batch_do_not_mix() -> None:
    x, y, x_mask, y_mask = ragged(9)
    for bandwidth in (0.8, "median"):
        together = mmd(x, y, x_mask, y_mask, bandwidth=bandwidth)
        alone = torch.cat(
            [
                mmd(x[i : i + 1], y[i : i + 1], x_mask[i : i + 1], y_mask[i : i + 1], bandwidth=bandwidth)
                for i in range(6)
            ]
        )
        assert_close(together, alone, **FLOAT64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_do_not_lower_the_precision(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, x_mask, y_mask = ragged(10, x_time=35)
    x, y = x.to(dtype), y.to(dtype)
    expected = mmd_by_formula(x.double(), y.double(), x_mask, y_mask, bandwidth=0.8)
    for entries in (1, 2**21):
        monkeypatch.setattr(discrepancy, "_TILE_ENTRIES", entries)
        with torch.autocast("cpu", torch.bfloat16):
            result = mmd(x, y, x_mask, y_mask, bandwidth=0.8)
        assert result.dtype == torch.float32
        assert_close(result.double(), expected, **FLOAT32)


def test_memory_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    time, channel, entries = 800, 4, 2**16
    monkeypatch.setattr(discrepancy, "_TILE_ENTRIES", entries)
    x, y = draw(1, time, channel).requires_grad_(), draw(1, time, channel, seed=1).requires_grad_()
    kept = KeptBytes()
    # The median takes the pairs of 512 tokens whatever the length.
    with LargestTensor() as largest, torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
        mmd(x, y, whole(1, time), whole(1, time), bandwidth="median").sum().backward()
    assert largest.numel <= 512 * 512
    assert kept.total <= 8 * 20 * time * channel
    with LargestTensor() as largest:
        mmd(x, y, whole(1, time), whole(1, time), bandwidth=1.0).sum().backward()
    assert largest.numel <= entries


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.zeros(2, 4)}, ShapeError, "x_mask"),
        ({"x_mask": whole(2, 3)}, ShapeError, "^x_mask: "),
        ({"y_mask": torch.ones(2, 5)}, ShapeError, "^y_mask: "),
        ({"y": torch.zeros(2, 5, 2)}, ShapeError, r"x is .*\(2, 4, 3\).*y .*\(2, 5, 2\)"),
        ({"y": torch.zeros(1, 5, 3), "y_mask": whole(1, 5)}, ShapeError, r"y .*\(1, 5, 3\).*batch"),
        ({"y": torch.zeros(2, 5, 3)}, ShapeError, r"x is torch.float64.*y torch.float32.*dtype"),
        (
            {"y": torch.zeros(2, 5, 3, device="meta").double(), "y_mask": whole(2, 5).to("meta")},
            ShapeError,
            r"on meta.*device",
        ),
        (
            {"x": torch.zeros(2, 4, 3).long(), "y": torch.zeros(2, 5, 3).long()},
            ShapeError,
            r"torch.int64.*floating",
        ),
        ({"bandwidth": 0.0}, ConfigError, r"^bandwidth: .*found 0\.0"),
        ({"bandwidth": -1.0}, ConfigError, r"^bandwidth: .*found -1\.0"),
        ({"bandwidth": math.nan}, ConfigError, r"^bandwidth: .*found nan"),
        ({"bandwidth": math.inf}, ConfigError, r"^bandwidth: .*found inf"),
        ({"bandwidth": "mean"}, ConfigError, r"^bandwidth: .*found 'mean'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {
        "x": draw(2, 4, 3),
        "y": draw(2, 5, 3),
        "x_mask": whole(2, 4),
        "y_mask": whole(2, 5),
        "bandwidth": 1.0,
    }
    with pytest.raises(error, match=message):
        mmd(**{**arguments, **changes})
