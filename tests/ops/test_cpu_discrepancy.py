"""The MMD compiled for the CPU against the definition in float64, and how far its approximation by landmarks
lies off.
"""

import math
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from alignmamba.errors import BackendError, ConfigError
from alignmamba.ops import mmd
from alignmamba.ops.backends import INSTALLED
from alignmamba.ops.cpu import discrepancy as cpu_discrepancy
from drawn import draw, prefix_mask
from instruments import LargestTensor
from tolerances import EXACT, FLOAT32, FLOAT64, LANDMARKS_EVERYWHERE, LONG_FLOAT32

# By its full name, as for the other operators, whose module's name stands for a function.
discrepancy = import_module("alignmamba.ops.discrepancy")

Given = tuple[Tensor, Tensor, Tensor, Tensor]


def ragged(n: int, m: int, channel: int) -> Given:
    """Five samples: full, short, one valid token on a side or both, none on a side."""
    masks = prefix_mask([n, max(1, n // 2), 1, 1, n], n), prefix_mask([m, max(1, m // 3), m, 1, 0], m)
    return draw(5, n, channel), draw(5, m, channel, seed=1) + 0.5, *masks


def whole(x: Tensor, y: Tensor) -> Given:
    return x, y, *(torch.ones(side.shape[:2], dtype=torch.bool) for side in (x, y))


def value_and_gradients(given: Given, dtype: torch.dtype, **options: Any) -> list[Tensor]:
    x, y = (side.to(dtype).detach().requires_grad_() for side in given[:2])
    value = mmd(x, y, *given[2:], **options)
    weight = torch.linspace(1, 2, len(value), dtype=value.dtype)
    return [value.detach(), *torch.autograd.grad((value * weight).sum(), (x, y))]


def assert_parity(given: Given, dtype: torch.dtype, tolerance: dict[str, float], **options: Any) -> None:
    """Gradients are compared at the size of the largest entry."""
    exact = value_and_gradients(given, torch.float64, **options, backend="torch")
    for found, expected in zip(
        value_and_gradients(given, dtype, **options, backend="numba"), exact, strict=True
    ):
        scale = expected.abs().max().clamp(min=1e-3) if expected.numel() else 1.0
        assert_close(found.double() / scale, expected / scale, **tolerance)


@pytest.fixture(params=[None, 64], ids=["one tile", "many tiles"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles as they are, under which a small batch is one, or so small that it takes many with edges in odd
    places.
    """
    if request.param is not None:
        monkeypatch.setattr(cpu_discrepancy, "_TILE_ENTRIES", request.param)
        monkeypatch.setattr(cpu_discrepancy, "_BLOCK_ROWS", 8)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.float64, FLOAT64)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("unbiased", [False, True], ids=["biased", "unbiased"])
@pytest.mark.parametrize("bandwidth", [1.5, "median"])
@pytest.mark.parametrize(("n", "m", "channel"), [(1, 1, 1), (2, 1, 3), (63, 65, 17), (7, 65, 130), (0, 4, 3)])
def test_value_and_every_gradient(
    n: int,
    m: int,
    channel: int,
    bandwidth: Any,
    unbiased: bool,
    dtype: torch.dtype,
    tolerance: dict[str, float],
) -> None:
    given = ragged(n, m, channel)
    if channel == 130 and bandwidth != "median":
        bandwidth = 10.0
    assert_parity(given, dtype, tolerance, bandwidth=bandwidth, unbiased=unbiased)


def holes(n: int, m: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x_mask, y_mask = (torch.rand(5, time, generator=generator) < 0.5 for time in (n, m))
    x_mask[1], y_mask[2] = False, False
    return x_mask, y_mask


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("unbiased", [False, True], ids=["biased", "unbiased"])
@pytest.mark.parametrize("bandwidth", [1.5, "median"])
def test_masks_with_holes_and_garbage_in_them(bandwidth: Any, unbiased: bool) -> None:
    x, y, *_ = ragged(40, 30, 6)
    x_mask, y_mask = holes(40, 30)
    x, y = (side.masked_fill(~mask.unsqueeze(2), math.nan) for side, mask in ((x, x_mask), (y, y_mask)))
    assert_parity((x, y, x_mask, y_mask), torch.float64, FLOAT64, bandwidth=bandwidth, unbiased=unbiased)
    assert_parity((x, y, x_mask, y_mask), torch.float32, FLOAT32, bandwidth=bandwidth, unbiased=unbiased)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    x, y, *masks = ragged(20, 30, 6)
    rounded = (x.to(dtype).float(), y.to(dtype).float(), *masks)
    found = value_and_gradients(rounded, dtype, bandwidth=1.5, backend="numba")
    exact = value_and_gradients(rounded, torch.float32, bandwidth=1.5, backend="numba")
    assert [tensor.dtype for tensor in found] == [torch.float32, dtype, dtype]
    assert torch.equal(found[0], exact[0])


@pytest.mark.parametrize("layout", ["slice of channels", "time first", "every other token"])
@pytest.mark.usefixtures("tiles")
def test_layouts_that_are_not_contiguous(layout: str) -> None:
    given = ragged(20, 30, 6)
    views = []
    for side in given[:2]:
        view = {
            "slice of channels": torch.cat([side + 1, side], 2)[..., 6:],
            "time first": side.transpose(0, 1).contiguous().transpose(0, 1),
            "every other token": torch.stack([side, side + 1], 2).flatten(1, 2)[:, ::2],
        }[layout]
        assert torch.equal(view, side)
        assert not view.is_contiguous()
        views.append(view)
    masks = (mask.t().contiguous().t() for mask in given[2:])
    found = value_and_gradients(
        (views[0], views[1], *masks), torch.float64, bandwidth="median", backend="numba"
    )
    for one, other in zip(
        found, value_and_gradients(given, torch.float64, bandwidth="median", backend="torch"), strict=True
    ):
        assert_close(one, other, **FLOAT64)


@pytest.mark.usefixtures("tiles")
def test_nothing_is_left_unwritten_and_arguments_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ragged(20, 30, 6)
    before = [tensor.clone() for tensor in given]
    expected = value_and_gradients(given, torch.float32, bandwidth="median", backend="numba")
    new_empty, empty = Tensor.new_empty, torch.empty
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *a, **k: new_empty(self, *a, **k).fill_(math.nan))
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(math.nan))
    found = value_and_gradients(given, torch.float32, bandwidth="median", backend="numba")
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(given, before, strict=True))


def test_threads_change_no_more_than_the_order_of_sums() -> None:
    given = ragged(65, 63, 33)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(value_and_gradients(given, torch.float32, bandwidth=4.0, backend="numba"))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert_close(one, other, **FLOAT32)


def test_a_batch_of_no_sample() -> None:
    found = value_and_gradients(
        tuple(tensor[:0] for tensor in ragged(4, 5, 3)), torch.float32, bandwidth=1.0, backend="numba"
    )  # type: ignore[arg-type]
    assert [tuple(tensor.shape) for tensor in found] == [(0,), (0, 4, 3), (0, 5, 3)]


# The step to double precision


@pytest.mark.parametrize(
    ("apart", "precision"), [(0.0, torch.float32), (100.0, torch.float64), (1e4, torch.float64)]
)
def test_where_single_precision_would_be_wrong_it_computes_in_double(
    apart: float, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clusters `apart` bandwidths from each other: |a|^2 + |b|^2 - 2ab cancels within either."""
    x, y, *masks = ragged(30, 40, 5)
    given = ((x + apart).float(), (y - apart).float(), *masks)
    used = []
    kernel_sum = cpu_discrepancy.weighted_kernel_sum
    monkeypatch.setattr(
        cpu_discrepancy, "weighted_kernel_sum", lambda *a, **k: used.append(a[0].dtype) or kernel_sum(*a, **k)
    )
    assert_parity(given, torch.float32, FLOAT32, bandwidth=1.0)  # type: ignore[arg-type]
    assert used == [precision]


def test_one_sample_far_out_is_enough_for_the_step_and_padding_is_not() -> None:
    x, y = draw(3, 4, 2), draw(3, 5, 2)
    scale = torch.full((3,), 0.5, dtype=torch.float64)
    serves = discrepancy._single_precision_serves
    assert serves(x, y, scale)
    x[1] += 1e3
    assert not serves(x, y, scale)
    assert serves(x[:, :0], y, scale)
    hidden = prefix_mask([4, 0, 4], 4)
    assert serves(x.masked_fill(~hidden.unsqueeze(2), 0), y, scale)


# The median


@pytest.mark.parametrize("tokens", [2, 3, 9, 40])
def test_the_compiled_median_is_the_one_found_by_sorting(
    tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (draw(5, tokens, 3), draw(5, tokens, 3, seed=1), *holes(tokens, tokens))
    masks = (given[0], given[2], given[1], given[3])
    compiled = discrepancy._median_distance(*masks)
    monkeypatch.setitem(INSTALLED, "numba", False)
    assert_close(discrepancy._median_distance(*masks), compiled, **EXACT)


# Landmarks


def walk(time: int, channel: int, seed: int) -> Tensor:
    """A random walk of size 1: neighbouring tokens resemble each other, as frames do."""
    steps = draw(4, time, channel, seed=seed).cumsum(1)
    return steps / steps.std((1, 2), keepdim=True)


def noise(time: int, channel: int, seed: int) -> Tensor:
    """Independent tokens, the worst case: none says anything of another."""
    return draw(4, time, channel, seed=seed)


# Largest relative error of the value, and of the gradient's direction and size together, over four samples of
# 200 + 200 tokens; docs/mathematics.md states them. A third more is allowed for another library of linear
# algebra.
ERRORS = [
    (walk, 16, 16, 8.4e-3, 7.7e-2),
    (walk, 16, 32, 1.1e-3, 1.8e-2),
    (walk, 16, 64, 1.4e-4, 4.6e-3),
    (walk, 64, 64, 1.8e-4, 1.4e-2),
    (noise, 16, 32, 0.13, 0.18),
    (noise, 16, 64, 4.7e-2, 6.9e-2),
    (noise, 16, 128, 5.1e-3, 2.1e-2),
    (noise, 64, 128, 2.4e-2, 7.3e-2),
]


@pytest.mark.parametrize(("kind", "channel", "landmarks", "of_value", "of_gradient"), ERRORS)
def test_the_error_of_landmarks(
    kind: Any, channel: int, landmarks: int, of_value: float, of_gradient: float
) -> None:
    given = whole(kind(200, channel, 1), kind(200, channel, 2) + 0.5)
    value, *gradients = value_and_gradients(given, torch.float64, bandwidth="median", landmarks=landmarks)
    exact, *exact_gradients = value_and_gradients(given, torch.float64, bandwidth="median")
    error = float(((value - exact) / exact).abs().max())
    gradient_error = max(
        float((g - e).norm() / e.norm()) for g, e in zip(gradients, exact_gradients, strict=True)
    )
    assert of_value / 2 < error < of_value * 4 / 3
    assert of_gradient / 2 < gradient_error < of_gradient * 4 / 3


@pytest.mark.parametrize("unbiased", [False, True], ids=["biased", "unbiased"])
@pytest.mark.parametrize("bandwidth", [1.0, "median"])
@pytest.mark.parametrize("masked", ["ragged", "holes"])
def test_landmarks_at_every_token_are_exact(masked: str, bandwidth: Any, unbiased: bool) -> None:
    """But for the ridge on the diagonal."""
    x, y, *masks = ragged(20, 24, 3)
    given = (x, y, *(masks if masked == "ragged" else holes(20, 24)))
    options = {"bandwidth": bandwidth, "unbiased": unbiased}
    found = value_and_gradients(given, torch.float64, **options, landmarks=48)  # type: ignore[arg-type]
    for one, other in zip(
        found, value_and_gradients(given, torch.float64, **options, backend="torch"), strict=True
    ):  # type: ignore[arg-type]
        assert_close(one, other, **LANDMARKS_EVERYWHERE)


def test_an_odd_landmark_is_one_of_the_first_side() -> None:
    given = whole(draw(1, 2, 4, seed=0), draw(1, 2, 4, seed=1))
    found, fewer, exact = (
        value_and_gradients(given, torch.float64, bandwidth=1.0, **options)[0]
        for options in ({"landmarks": 3}, {"landmarks": 2}, {"backend": "torch"})
    )
    assert_close(found, exact, **LANDMARKS_EVERYWHERE)
    assert (fewer - exact).abs() > 1e-3


def test_landmarks_that_are_equal_do_no_harm() -> None:
    x, y = torch.ones(1, 30, 3), torch.ones(1, 30, 3) * 2
    found = value_and_gradients(whole(x, y), torch.float32, bandwidth=1.0, landmarks=16)
    for one, other in zip(found, value_and_gradients(whole(x, y), torch.float32, bandwidth=1.0), strict=True):
        assert_close(one, other, **FLOAT32)


def test_chunks_of_tokens_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ragged(200, 170, 4)
    options = {"bandwidth": 1.5, "landmarks": 12}
    expected = value_and_gradients(given, torch.float64, **options)  # type: ignore[arg-type]
    monkeypatch.setattr(discrepancy, "_CHUNK_ENTRIES", 1)  # 64 tokens at once, the least
    for one, other in zip(value_and_gradients(given, torch.float64, **options), expected, strict=True):  # type: ignore[arg-type]
        assert_close(one, other, **FLOAT64)


@pytest.mark.parametrize("apart", [0.0, 1e-7, 1e-5, 1e-3])
def test_landmarks_keep_single_precision_where_tokens_are_nearly_equal(apart: float) -> None:
    """The inverse of the landmarks' kernel, nearly singular there, multiplies what rounding leaves of their
    products.
    """
    origin = draw(8, 32)
    x, y = (origin[torch.arange(n) % 8].expand(3, n, 32) + apart * draw(3, n, 32, seed=n) for n in (300, 150))
    given = whole(x.float(), y.float())
    (found, *_), (exact, *_) = (
        value_and_gradients(given, dtype, bandwidth="median", landmarks=32)
        for dtype in (torch.float32, torch.float64)
    )
    assert_close(found.double(), exact, **LANDMARKS_EVERYWHERE)


def test_memory_of_landmarks_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrepancy, "_CHUNK_ENTRIES", 2**10)
    largest = []
    for time in (1000, 2000):
        x, y, *masks = whole(draw(1, time, 4), draw(1, time, 4, seed=1))
        with LargestTensor() as found:
            mmd(x.requires_grad_(), y.requires_grad_(), *masks, bandwidth=1.0, landmarks=16).sum().backward()
        largest.append(found.numel)
    assert largest == [1000 * 4, 2000 * 4]  # the gradient itself


@pytest.mark.parametrize("unbiased", [False, True], ids=["biased", "unbiased"])
def test_a_missing_side_gives_zero_with_a_zero_gradient(unbiased: bool) -> None:
    x, y, *_ = ragged(20, 24, 3)
    masks = prefix_mask([0, 20, 0, 5, 1], 20), prefix_mask([24, 0, 0, 6, 1], 24)
    value, *gradients = value_and_gradients(
        (x, y, *masks), torch.float32, bandwidth="median", unbiased=unbiased, landmarks=6
    )
    assert value[:3].tolist() == [0, 0, 0]
    assert bool(value[3] != 0)
    for gradient in gradients:
        assert not gradient[:3].any()
        assert gradient.isfinite().all()
        assert gradient[3].any()
    if unbiased:
        assert float(value[4]) == 0


def test_a_side_without_any_time() -> None:
    value, *gradients = value_and_gradients(ragged(0, 5, 3), torch.float32, bandwidth="median", landmarks=6)
    assert not value.any()
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("landmarks", [1, 0, -3])
def test_too_few_landmarks(landmarks: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"^landmarks: expected a whole number, at least 2, found {landmarks}$"
    ):
        mmd(*ragged(4, 5, 3), bandwidth=1.0, landmarks=landmarks)


@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_landmarks_are_refused_by_a_kernel_asked_for_by_name(backend: Any) -> None:
    with pytest.raises(
        BackendError,
        match=f"^mmd: backend '{backend}' cannot serve this call: with landmarks it is computed by PyTorch$",
    ):
        mmd(*ragged(4, 5, 3), bandwidth=1.0, landmarks=4, backend=backend)


@pytest.mark.filterwarnings("error")
def test_landmarks_need_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch computes them in any case: without a kernel nothing steps down."""
    monkeypatch.setitem(INSTALLED, "numba", False)
    given = ragged(4, 5, 3)
    assert torch.equal(
        mmd(*given, bandwidth=1.0, landmarks=4), mmd(*given, bandwidth=1.0, landmarks=4, backend="torch")
    )


def test_an_unknown_backend_is_refused_with_landmarks_too() -> None:
    with pytest.raises(BackendError, match=r"^mmd has no backend 'cuda'"):
        mmd(*ragged(4, 5, 3), bandwidth=1.0, landmarks=4, backend="cuda")  # type: ignore[arg-type]


@pytest.mark.parametrize("landmarks", [None, 12])
def test_a_sample_that_holds_nan_leaves_its_neighbours_alone(landmarks: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 40, 8, generator=generator) * 1e3
    y = x + 0.1 * torch.randn(2, 40, 8, generator=generator)
    mask = torch.ones(2, 40, dtype=torch.bool)
    alone = mmd(x[:1], y[:1], mask[:1], mask[:1], bandwidth=0.3, landmarks=landmarks)
    x[1, 0, 0] = math.nan
    together = mmd(x, y, mask, mask, bandwidth=0.3, landmarks=landmarks)
    assert_close(together[:1], alone, **FLOAT32)
    assert together[1].isnan()


@pytest.mark.parametrize("size", [1e-20, 1e-30])
def test_tiny_features_are_compared_too(size: float) -> None:
    x, y, *masks = ragged(20, 24, 3)
    small = mmd(x.float() * size, y.float() * size, *masks, bandwidth="median")
    assert_close(small, mmd(x.float(), y.float(), *masks, bandwidth="median", backend="torch"), **FLOAT32)


def test_landmarks_keep_their_precision_where_features_are_large() -> None:
    """In single precision distances between tokens a thousand bandwidths from the centre would be lost."""
    generator = torch.Generator().manual_seed(0)
    x = 1e3 * torch.randn(1, 40, 8, generator=generator)
    y = x + 0.3 * torch.randn(1, 40, 8, generator=generator)
    masks = (torch.ones(1, 40, dtype=torch.bool),) * 2
    found = mmd(x, y, *masks, bandwidth=1.0, landmarks=80)
    assert_close(found, mmd(x, y, *masks, bandwidth=1.0), **LONG_FLOAT32)


@pytest.mark.parametrize("scale", [64.0, 65536.0])
def test_a_scaled_loss_of_half_precision_has_its_gradient(scale: float) -> None:
    """Loss scaling lifts gradients out of the range where half precision loses them: multiplied in before the
    rounding.
    """
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, 300, 8, generator=generator).half() + shift for shift in (0, 0.2))
    masks = (torch.ones(1, 300, dtype=torch.bool),) * 2
    gradients = []
    for backend in ("numba", "torch"):
        leaf = x.clone().requires_grad_()
        (mmd(leaf, y, *masks, bandwidth=3.0, backend=backend).sum() * scale).backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad.float() / scale)
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-3


@pytest.mark.parametrize("bandwidth", [1e200, 1e-200, None, math.nan])
def test_a_bandwidth_out_of_range_is_refused(bandwidth: Any) -> None:
    with pytest.raises(ConfigError, match=r"^bandwidth: expected "):
        mmd(*ragged(4, 5, 3), bandwidth=bandwidth)


def test_the_median_of_many_samples_is_taken_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ragged(20, 24, 3)
    expected = mmd(*given, bandwidth="median")
    monkeypatch.setattr(discrepancy, "_TILE_ENTRIES", 1)
    assert_close(mmd(*given, bandwidth="median"), expected, **FLOAT32)
