"""The scan compiled for the CPU against the definition in float64."""

import math
import multiprocessing

import pytest
import torch
from torch import Tensor

from alignmamba.errors import BackendError
from alignmamba.ops import operator_backends, selective_scan
from alignmamba.ops.cpu import compilation
from alignmamba.ops.cpu import scan as cpu_scan
from tolerances import FLOAT32, FLOAT64


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


def fill_with_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill all that the kernel's wrapper allocates with NaN, so that an entry that nobody writes shows."""
    empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda self, *a, **k: empty(self, *a, **k).fill_(math.nan))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.float64, FLOAT64)], ids=["float32", "float64"]
)
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1),
        (2, 31, 5, 3),
        (1, 32, 16, 16),
        (3, 33, 17, 16),
        (2, 65, 33, 8),
        (2, 200, 48, 16),
        (1, 70, 130, 40),
        (1, 63, 65, 1),
    ],
)
def test_value_and_every_gradient(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    tolerance: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = arguments(*shape)
    exact = value_and_gradients(given, torch.float64, "torch")
    fill_with_nan(monkeypatch)
    for found, expected in zip(value_and_gradients(given, dtype, "numba"), exact, strict=True):
        scale = expected.abs().max().clamp(min=1)
        torch.testing.assert_close(found.double() / scale, expected / scale, **tolerance)


@pytest.mark.parametrize("absent", ["D", "z", "delta_bias", "initial_state"])
def test_each_optional_argument_may_be_absent(absent: str) -> None:
    given = {name: tensor for name, tensor in arguments(2, 40, 20, 4).items() if name != absent}
    exact = value_and_gradients(given, torch.float64, "torch")
    for found, expected in zip(value_and_gradients(given, torch.float64, "numba"), exact, strict=True):
        torch.testing.assert_close(found, expected, **FLOAT64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    given = {name: tensor.to(dtype) for name, tensor in arguments(2, 40, 20, 4).items()}
    found = value_and_gradients(given, dtype, "numba")
    exact = value_and_gradients(given, torch.float32, "numba")
    assert [tensor.dtype for tensor in found] == [dtype, torch.float32, *[dtype] * len(given)]
    assert torch.equal(found[0], exact[0].to(dtype))


def test_long_memory_keeps_its_precision() -> None:
    """Steps so small that nothing decays: a bias of the exponential would grow with every token."""
    given = arguments(1, 6000, 16, 4)
    given["delta"] = given["delta"] * 0.1 - 9
    given["A"] = given["A"] * 1e-2
    exact = value_and_gradients(given, torch.float64, "torch")
    for found, expected in zip(value_and_gradients(given, torch.float32, "numba"), exact, strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(found.double() / scale, expected / scale, **FLOAT32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_growth_that_overflows_gives_no_number(dtype: torch.dtype) -> None:
    """A state may grow by 2^127 in a token (float64: 2^1023): a positive A with a longer step gives NaN,
    never another step's result.
    """
    one = torch.ones(1, 1, 1, dtype=dtype)
    for A, delta in ((1.0, 1e4), (-1.0, -1e4)):
        y, state = selective_scan(
            one, delta * one, torch.full((1, 1), A, dtype=dtype), 0 * one, one, delta_softplus=False,
            initial_state=one, return_final_state=True, backend="numba",
        )  # fmt: skip
        assert math.isnan(state)
        assert math.isnan(y)
    y = selective_scan(
        one,
        50 * one,
        torch.full((1, 1), 1.0, dtype=dtype),
        one,
        one,
        delta_softplus=False,
        initial_state=one,
        backend="numba",
    )
    assert math.isclose(float(y), math.exp(50) + 50, rel_tol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_full_decay_leaves_nothing_of_the_largest_state(dtype: torch.dtype) -> None:
    one = torch.ones(1, 1, 1, dtype=dtype)
    y = selective_scan(
        one, 1e4 * one, torch.full((1, 1), -1.0, dtype=dtype), 0 * one, one, delta_softplus=False,
        initial_state=torch.finfo(dtype).max * one, backend="numba",
    )  # fmt: skip
    assert float(y) == 0.0


def test_auto_takes_it_for_float32_on_the_cpu() -> None:
    given = arguments(2, 40, 6, 4)
    found, expected = (value_and_gradients(given, torch.float32, backend) for backend in ("auto", "numba"))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("batch", [1, 5])
def test_threads_share_the_work_and_change_nothing_but_the_order_of_sums(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_scan, "_LEAST_WORK", 1)
    given = arguments(batch, 50, 300, 4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = value_and_gradients(given, torch.float32, "numba")
        torch.set_num_threads(3)
        together, again = (value_and_gradients(given, torch.float32, "numba") for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone[0], together[0])
    assert all(torch.equal(a, b) for a, b in zip(together, again, strict=True))
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(a, b, **FLOAT32)


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def fail(first: int, last: int) -> None:
        if first:
            raise ZeroDivisionError(last)

    with pytest.raises(ZeroDivisionError):
        compilation.over_tasks(fail, 4, 2)


def test_tasks_are_shared_out_once_each() -> None:
    done: list[int] = []
    compilation.over_tasks(lambda first, last: done.extend(range(first, last)), 7, 3)
    assert sorted(done) == list(range(7))


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
    given = {name: tensor.to("meta") for name, tensor in arguments(1, 2, 3, 4).items()}
    with pytest.raises(
        BackendError, match="'numba' cannot serve this call: it runs on the CPU, the tensors are on meta"
    ):
        selective_scan(**given, backend="numba")  # type: ignore[arg-type, call-overload]


def test_backends_give_their_reasons() -> None:
    found = operator_backends()["selective_scan"]
    assert found["numba"] == found["torch"] == "ready"
    assert "GPU" in found["triton"]
    assert "on cuda" in operator_backends("cuda")["mmd"]["numba"]
    assert operator_backends("cuda", torch.float64)["selective_scan"]["triton"] in (
        "it computes in float32, the tensors are float64",
        "triton is not installed",
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_threads_than_torch_may_use(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of many samples has many tasks; they share the threads there are."""
    asked = []
    run = compilation.over_tasks
    monkeypatch.setattr(
        cpu_scan,
        "over_tasks",
        lambda work, tasks, most: (asked.append((tasks, most)), run(work, tasks, most)),
    )
    monkeypatch.setattr(cpu_scan, "_LEAST_WORK", 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        value_and_gradients(arguments(9, 8, 20, 4), torch.float32, "numba")
    finally:
        torch.set_num_threads(before)
    assert asked == [(9, threads)] * 2


def test_a_nan_with_a_payload_is_a_nan() -> None:
    """Its low bits are not to be taken for an exponent."""
    payload = torch.tensor([-1], dtype=torch.int32).view(torch.float32)
    for name in ("delta", "A", "z"):
        given = arguments(1, 6, 2, 3)
        given[name].view(-1)[0] = payload[0]
        y = selective_scan(**given, backend="numba")  # type: ignore[arg-type, call-overload]
        assert torch.equal(y.isnan(), selective_scan(**given, backend="torch").isnan())  # type: ignore[arg-type, call-overload]
        assert y.isnan().any()


@pytest.mark.parametrize("gate", [-200.0, -1e32, torch.finfo(torch.float32).min])
def test_the_gate_of_a_huge_negative_number_is_shut(gate: float) -> None:
    given = arguments(1, 6, 2, 3)
    given["z"][:] = gate
    assert selective_scan(**given, backend="numba").abs().max() < 1e-25  # type: ignore[arg-type, call-overload]


def test_without_states_only_the_skip_is_left() -> None:
    given = arguments(1, 6, 2, 0)
    found, expected = (selective_scan(**given, backend=backend) for backend in ("numba", "torch"))  # type: ignore[arg-type, call-overload]
    torch.testing.assert_close(found, expected, **FLOAT32)
