"""The causal convolution compiled for the CPU against the definition in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from alignmamba.ops import causal_conv
from alignmamba.ops.cpu import convolution as cpu_convolution
from tolerances import FLOAT32, FLOAT64


def arguments(batch: int, time: int, channel: int, width: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"x": (batch, time, channel), "weight": (width, channel), "bias": (channel,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()
    }


def value_and_gradients(given: dict[str, Tensor], backend: str, *, expand: bool = False) -> list[Tensor]:
    """Output and the gradient of every argument; with `expand` the gradient that arrives is one number seen
    everywhere.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in given.items()}
    y = causal_conv(**leaves, backend=backend)  # type: ignore[arg-type]
    weight = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y).to(y.dtype)
    loss = y.sum() if expand else (y * weight).sum()
    return [y.detach(), *torch.autograd.grad(loss, list(leaves.values()))]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.float64, FLOAT64)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("width", [1, 2, 4, 5])
@pytest.mark.parametrize(
    ("batch", "time", "channel"),
    [(2, 0, 3), (0, 4, 3), (1, 1, 1), (2, 3, 17), (2, 63, 5), (3, 65, 17), (1, 64, 130), (2, 5, 0)],
)
def test_value_and_every_gradient(
    batch: int,
    time: int,
    channel: int,
    width: int,
    dtype: torch.dtype,
    tolerance: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sequences shorter than the window included; whatever the wrapper allocates holds NaN, so that an entry
    nobody writes shows.
    """
    given = arguments(batch, time, channel, width)
    exact = value_and_gradients(given, "torch")
    empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *a, **k: empty(self, *a, **k).fill_(math.nan))
    found = value_and_gradients({name: tensor.to(dtype) for name, tensor in given.items()}, "numba")
    for one, expected in zip(found, exact, strict=True):
        assert one.dtype == dtype
        assert_close(one.double(), expected, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    given = {name: tensor.to(dtype) for name, tensor in arguments(2, 40, 20, 4).items()}
    found = value_and_gradients(given, "numba")
    exact = value_and_gradients({name: tensor.float() for name, tensor in given.items()}, "numba")
    assert all(tensor.dtype == dtype for tensor in found)
    assert torch.equal(found[0], exact[0].to(dtype))


def test_tokens_in_half_and_weights_in_single_precision() -> None:
    given = arguments(2, 40, 20, 4)
    mixed = {
        name: tensor.to(torch.bfloat16 if name == "x" else torch.float32) for name, tensor in given.items()
    }
    found = value_and_gradients(mixed, "numba")
    exact = value_and_gradients({name: tensor.float() for name, tensor in mixed.items()}, "numba")
    assert [tensor.dtype for tensor in found] == [
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]
    assert torch.equal(found[0], exact[0].bfloat16())


@pytest.mark.parametrize(
    "layout", ["slice of channels", "every other channel", "time first", "every other token"]
)
def test_layouts_that_are_not_contiguous(layout: str) -> None:
    given = arguments(3, 20, 6, 4)
    x = given["x"]
    views = {
        "slice of channels": lambda: torch.cat([x, x + 1, x - 1], 2)[..., 6:12],
        "every other channel": lambda: torch.stack([x + 1, x], 3).flatten(2)[..., ::2],
        "time first": lambda: (x + 1).transpose(0, 1).contiguous().transpose(0, 1),
        "every other token": lambda: torch.stack([x + 1, x], 2).flatten(1, 2)[:, ::2],
    }
    view = views[layout]()
    assert not view.is_contiguous()
    found = value_and_gradients(given | {"x": view}, "numba", expand=True)
    exact = value_and_gradients(
        given | {"x": view.clone(memory_format=torch.contiguous_format)}, "torch", expand=True
    )
    for one, expected in zip(found, exact, strict=True):
        assert_close(one, expected, **FLOAT64)


@pytest.mark.parametrize("batch", [1, 5])
def test_threads_share_the_work_and_change_nothing(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels stay apart and samples are summed in their order, however the work is split."""
    monkeypatch.setattr(cpu_convolution, "_LEAST_WORK", 1)
    given = {name: tensor.float() for name, tensor in arguments(batch, 50, 300, 4).items()}
    before = torch.get_num_threads()
    split = []
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            split.append(cpu_convolution._split(given["x"], given["weight"])[0])
            results.append(value_and_gradients(given, "numba"))
    finally:
        torch.set_num_threads(before)
    assert split[1] >= 3
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_arguments_are_left_alone() -> None:
    given = arguments(2, 40, 6, 4)
    before = {name: tensor.clone() for name, tensor in given.items()}
    value_and_gradients(given, "numba")
    assert all(torch.equal(given[name], before[name]) for name in given)


def test_it_is_causal_and_zero_comes_before_the_first_token() -> None:
    given = {name: tensor.float() for name, tensor in arguments(1, 9, 3, 4).items()}
    y = causal_conv(**given, backend="numba")
    changed = causal_conv(
        **given | {"x": torch.cat([given["x"][:, :5], given["x"][:, 5:] + 1], 1)}, backend="numba"
    )
    assert torch.equal(y[:, :5], changed[:, :5])
    assert not torch.equal(y[:, 5], changed[:, 5])
    total = given["bias"] + given["weight"][-1] * given["x"][:, 0]
    assert_close(y[:, 0], total * torch.sigmoid(total), **FLOAT32)


def test_nan_reaches_the_window_and_no_further() -> None:
    given = {name: tensor.float() for name, tensor in arguments(2, 9, 3, 4).items()}
    given["x"][0, 2, 1] = math.nan
    missing = causal_conv(**given, backend="numba").isnan()
    assert missing.nonzero().tolist() == [[0, t, 1] for t in (2, 3, 4, 5)]


@pytest.mark.parametrize("size", [1e-30, 1e4])
def test_sums_far_from_zero_stay_finite(size: float) -> None:
    """SiLU and its slope at their ends."""
    given = {name: tensor.float() * size for name, tensor in arguments(1, 9, 17, 3).items()} | {
        "weight": torch.ones(3, 17)
    }
    exact = value_and_gradients({name: tensor.double() for name, tensor in given.items()}, "torch")
    for found, expected in zip(value_and_gradients(given, "numba"), exact, strict=True):
        scale = expected.abs().max()
        assert_close(found.double() / scale, expected / scale, **FLOAT32)
