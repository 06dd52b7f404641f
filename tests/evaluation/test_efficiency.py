"""The tools that measure cost, on computations whose cost is known."""

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alignmamba.errors import ConfigError
from alignmamba.evaluation import computing_cost
from alignmamba.evaluation.computing_cost import (
    ChildError,
    attention_flops,
    counted_flops,
    in_fresh_process,
    log_slope,
    matmul_flops,
    memory_problem,
    peak_bytes,
    scan_flops,
    spread,
    time_in_turn,
)

MEGABYTE = 2**20


def test_spread_of_a_hand_worked_list() -> None:
    found = spread([3.0, 1.0, 10.0, 2.0])
    assert (found.median, found.least, found.most, found.count) == (2.5, 1.0, 10.0, 4)


# Time


def test_everything_is_measured_in_turn() -> None:
    order: list[str] = []
    calls: dict[str, Callable[[], object]] = {
        name: (lambda name=name: order.append(name)) for name in ("a", "b", "c")
    }
    found = time_in_turn(calls, repeats=3, warm_ups=2)
    assert order == ["a", "b", "c"] * 5
    assert {name: timing.busy.count for name, timing in found.items()} == {"a": 3, "b": 3, "c": 3}


def test_what_is_slow_is_measured_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(
        computing_cost, "time", SimpleNamespace(perf_counter=lambda: now[0], process_time=time.process_time)
    )

    def slow() -> None:
        now[0] += computing_cost.SLOW_SECONDS + 1

    found = time_in_turn({"slow": slow, "quick": lambda: None}, repeats=6, warm_ups=0)
    assert (found["slow"].wall.count, found["quick"].wall.count) == (computing_cost.SLOW_REPEATS, 6)


def test_waiting_is_time_on_the_clock_and_not_of_the_processor() -> None:
    found = time_in_turn({"sleep": lambda: time.sleep(0.05)}, repeats=1, warm_ups=0)["sleep"]
    assert found.wall.median >= 0.05
    assert found.busy.median < found.wall.median


def test_no_round_is_refused() -> None:
    with pytest.raises(ConfigError, match="repeats: expected at least 1, found 0"):
        time_in_turn({}, repeats=0)


# Memory


def known_allocations(argument: Mapping[str, Any]) -> list[int]:
    """Peaks of NumPy and of PyTorch, with memory that was freed just before, and of a computation that holds
    nothing.
    """
    size = argument["megabytes"] * MEGABYTE

    def numpy() -> None:
        np.ones(size, dtype=np.uint8)

    def torch_twice() -> None:
        first = torch.ones(size // 4)
        second = first + 1
        del first, second

    numpy()
    torch_twice()
    return [peak_bytes(numpy), peak_bytes(torch_twice), peak_bytes(lambda: None)]


def fails(argument: Mapping[str, Any]) -> None:
    raise ValueError(f"because of {argument['reason']}")


def is_killed(_: Mapping[str, Any]) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(bool(memory_problem()), reason=memory_problem() or "it can be measured")
def test_the_peak_is_what_was_allocated() -> None:
    numpy, torch_twice, nothing = in_fresh_process("test_efficiency:known_allocations", {"megabytes": 64})
    assert numpy == pytest.approx(64 * MEGABYTE, abs=2 * MEGABYTE)
    assert torch_twice == pytest.approx(128 * MEGABYTE, abs=2 * MEGABYTE)
    assert nothing < MEGABYTE


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(ChildError, match=r"^ValueError: because of rain$"):
        in_fresh_process("test_efficiency:fails", {"reason": "rain"})
    with pytest.raises(ChildError, match="signal 9, probably for lack of memory"):
        in_fresh_process("test_efficiency:is_killed", {})


def test_a_platform_without_a_way_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing_cost, "_CLEAR", computing_cost.Path("/nowhere/clear_refs"))
    assert "Linux only" in memory_problem()
    with pytest.raises(ConfigError, match="Linux only"):
        peak_bytes(lambda: None)


# Operations


def test_counted_operations_of_matrix_products_and_attention() -> None:
    linear = torch.nn.Linear(5, 7, bias=False)
    x = torch.randn(2, 3, 5, requires_grad=True)
    with torch.no_grad():
        assert counted_flops(lambda: linear(x)) == matmul_flops(6, 5, 7) == 2 * 6 * 5 * 7
    # Backwards, a product for the gradient of each factor.
    assert counted_flops(lambda: linear(x).sum().backward()) == 3 * matmul_flops(6, 5, 7)
    q, k, v = torch.randn(1, 2, 6, 4), torch.randn(1, 2, 9, 4), torch.randn(1, 2, 9, 4)
    with torch.no_grad():
        fused = counted_flops(lambda: F.scaled_dot_product_attention(q, k, v))
        materialised = counted_flops(lambda: (q @ k.transpose(-2, -1)).softmax(-1) @ v)
    assert fused == materialised == attention_flops(6, 9, 8) == 4 * 6 * 9 * 8
    q.requires_grad_()
    training = counted_flops(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    assert training == 3.5 * attention_flops(6, 9, 8)


def test_operations_of_a_scan_counted_by_hand() -> None:
    """One token, one channel, two states: each operation of the recurrence by name."""
    per_state = len(("dt*A", "exp", "decay*h", "drive*B", "add", "C*h", "add to y"))
    per_channel = len(
        ("exp", "1+", "log", "dt*u", "D*u", "add to y", "neg z", "exp", "1+", "divide", "times y")
    )
    assert scan_flops(1, 1, 2) == 2 * per_state + per_channel
    assert scan_flops(10, 3, 2) == 30 * scan_flops(1, 1, 2)


# Growth


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_slope_of_a_power_law(power: float) -> None:
    lengths = [10, 30, 100, 1000]
    assert log_slope(lengths, [3.7 * length**power for length in lengths]) == pytest.approx(power, abs=1e-9)


def test_slope_of_a_sum_lies_between_its_parts() -> None:
    lengths = [100, 1000, 10_000]
    assert 1 < log_slope(lengths, [1e4 * length + length**2 for length in lengths]) < 2


@pytest.mark.parametrize(
    ("lengths", "values"), [([5], [1.0]), ([5, 5], [1.0, 2.0]), ([5, 6], [0.0, 1.0]), ([5, 6], [1.0])]
)
def test_a_slope_that_is_not_determined(lengths: list[float], values: list[float]) -> None:
    with pytest.raises(ConfigError, match="at two lengths or more"):
        log_slope(lengths, values)
