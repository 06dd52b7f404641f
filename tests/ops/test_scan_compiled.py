"""The compiled recurrence against the definition in float64."""

import math
import multiprocessing

import numpy as np
import pytest
import torch
from torch import Tensor

from alignmamba.errors import BackendError
from alignmamba.ops import selective_scan, selective_scan_backends
from alignmamba.ops.cpu.scan import exp
from tolerances import FLOAT32


def arguments(batch: int, time: int, channel: int, state: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "u": normal(batch, time, channel),
        "delta": normal(batch, time, channel),
        "A": -torch.rand(channel, state, generator=generator) * state,
        "B": normal(batch, time, state),
        "C": normal(batch, time, state),
        "D": normal(channel),
        "z": normal(batch, time, channel),
        "delta_bias": normal(channel),
        "initial_state": normal(batch, channel, state),
    }


def value_and_gradients(given: dict[str, Tensor], dtype: torch.dtype, backend: str) -> list[Tensor]:
    leaves = {name: tensor.to(dtype).requires_grad_() for name, tensor in given.items()}
    y, final = selective_scan(**leaves, return_final_state=True, backend=backend)  # type: ignore[arg-type, call-overload]
    weight = torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)
    loss = (y * weight).sum() + (final * final.detach().sign()).sum()
    return [y.detach(), final.detach(), *torch.autograd.grad(loss, list(leaves.values()))]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 31, 5, 3), (1, 32, 16, 16), (3, 33, 17, 16), (2, 65, 33, 8), (2, 200, 48, 16)])
def test_value_and_every_gradient(shape: tuple[int, int, int, int]) -> None:
    given = arguments(*shape)
    compiled, exact = value_and_gradients(given, torch.float32, "numba"), value_and_gradients(given, torch.float64, "torch")
    for found, expected in zip(compiled, exact, strict=True):
        scale = expected.abs().max().clamp(min=1)
        torch.testing.assert_close(found.double() / scale, expected / scale, **FLOAT32)


def test_auto_takes_it_for_float32_on_the_cpu() -> None:
    given = arguments(2, 40, 6, 4)
    found, expected = (value_and_gradients(given, torch.float32, backend) for backend in ("auto", "numba"))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_threads_share_rows_without_changing_a_bit() -> None:
    given = arguments(5, 50, 20, 4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = value_and_gradients(given, torch.float32, "numba")
        torch.set_num_threads(3)
        together = value_and_gradients(given, torch.float32, "numba")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone[0], together[0])
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_layouts_that_are_not_contiguous() -> None:
    given = arguments(4, 20, 6, 4)
    strided = {name: tensor.transpose(0, -1).contiguous().transpose(0, -1) for name, tensor in given.items()}
    for a, b in zip(*(value_and_gradients(g, torch.float32, "numba") for g in (given, strided)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("empty", [(0, 5), (2, 0)])
def test_nothing_in_nothing_out(empty: tuple[int, int]) -> None:
    given = arguments(*empty, 3, 2)
    found = value_and_gradients(given, torch.float32, "numba")
    assert found[0].shape == (*empty, 3)
    assert torch.equal(found[1], given["initial_state"])


def test_arguments_are_left_alone() -> None:
    given = arguments(2, 40, 6, 4)
    before = {name: tensor.clone() for name, tensor in given.items()}
    value_and_gradients(given, torch.float32, "numba")
    assert all(torch.equal(given[name], before[name]) for name in given)


def test_backward_twice_gives_the_same() -> None:
    given = {name: tensor.requires_grad_() for name, tensor in arguments(2, 40, 6, 4).items()}
    y = selective_scan(**given)  # type: ignore[arg-type, call-overload]
    first, second = (torch.autograd.grad(y.sum(), given["u"], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_nan_stays_nan() -> None:
    given = arguments(1, 4, 2, 2)
    given["delta"][0, 1, 0] = math.nan
    y = selective_scan(**given)  # type: ignore[arg-type, call-overload]
    assert y[0, 1:, 0].isnan().all()
    assert y[0, :, 1].isfinite().all()


def test_exponential_keeps_its_bound() -> None:
    xs = np.linspace(-87, 87, 20_011).astype(np.float32)
    found = np.array([exp(x) for x in xs], dtype=np.float64)
    assert np.abs(found / np.exp(xs.astype(np.float64)) - 1).max() < 2e-7
    assert exp(np.float32(-1e9)) < 2e-38
    assert math.isnan(exp(np.float32(math.nan)))


def _in_child(queue: "multiprocessing.Queue[float]") -> None:
    queue.put(float(selective_scan(**arguments(2, 40, 6, 4)).sum()))  # type: ignore[arg-type, call-overload]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_can_use_it() -> None:
    here = float(selective_scan(**arguments(2, 40, 6, 4)).sum())  # type: ignore[arg-type, call-overload]
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[float] = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == here
    child.join(60)
    assert child.exitcode == 0


def test_it_refuses_what_it_cannot_serve() -> None:
    given = {name: tensor.double() for name, tensor in arguments(1, 2, 3, 4).items()}
    with pytest.raises(BackendError, match="'numba' cannot serve this call: it computes in float32, the tensors are float64"):
        selective_scan(**given, backend="numba")  # type: ignore[arg-type, call-overload]


def test_backends_give_their_reasons() -> None:
    assert selective_scan_backends() == {"numba": "ready", "torch": "ready"}
    assert "float64" in selective_scan_backends(dtype=torch.float64)["numba"]
    assert "cuda" in selective_scan_backends("cuda")["numba"]
