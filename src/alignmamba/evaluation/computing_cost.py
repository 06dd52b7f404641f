"""Cost of a computation: time in turn with its rivals, memory above its inputs, operations, and how each
grows with length.

Nothing here knows a model. A computation is a call without arguments whose inputs exist already.
"""

import ctypes
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from alignmamba.errors import ConfigError

Call = Callable[[], object]

# A computation that takes longer than this is measured less often.
SLOW_SECONDS = 10.0
SLOW_REPEATS = 3

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class ChildError(RuntimeError):
    """A measurement in a process of its own did not come to its end; the message gives the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Repeated measurements of one quantity."""

    median: float
    least: float
    most: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Duration of a computation."""

    busy: Spread
    """Seconds of processor time of all threads of this process; on a GPU, seconds between two events in its
    queue."""
    wall: Spread
    """Seconds on the clock, until the device has finished."""


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most of some measurements."""
    return Spread(median=statistics.median(values), least=min(values), most=max(values), count=len(values))


def time_in_turn(
    calls: Mapping[str, Call], *, repeats: int, device: str = "cpu", warm_ups: int = 1
) -> dict[str, Timing]:
    """Time computations in turn, so that what disturbs the machine for a while disturbs them alike.

    Args:
        calls: Name to computation; each round runs them once in this order.
        repeats: Rounds; a computation that takes more than `SLOW_SECONDS` takes part in the first
            `SLOW_REPEATS` only.
        device: Where they compute: ``cpu`` or ``cuda``.
        warm_ups: Rounds before that are not timed.

    Returns:
        Name to timing.

    Raises:
        ConfigError: If `repeats` is less than one.
    """
    if repeats < 1:
        raise ConfigError(f"repeats: expected at least 1, found {repeats}")
    for _ in range(warm_ups):
        for call in calls.values():
            call()
    busy: dict[str, list[float]] = {name: [] for name in calls}
    wall: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats):
        gc.collect()
        for name, call in calls.items():
            if number >= SLOW_REPEATS and wall[name][0] > SLOW_SECONDS:
                continue
            seconds = _cuda_seconds(call) if device == "cuda" else _cpu_seconds(call)
            busy[name].append(seconds[0])
            wall[name].append(seconds[1])
    return {name: Timing(busy=spread(busy[name]), wall=spread(wall[name])) for name in calls}


def _cpu_seconds(call: Call) -> tuple[float, float]:
    wall, busy = time.perf_counter(), time.process_time()
    call()
    return time.process_time() - busy, time.perf_counter() - wall


def _cuda_seconds(call: Call) -> tuple[float, float]:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    wall = time.perf_counter()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3, time.perf_counter() - wall


def memory_problem(device: str = "cpu") -> str:
    """Reason why `peak_bytes` cannot measure here; empty if it can."""
    if device == "cuda" or os.access(_CLEAR, os.W_OK):
        return ""
    return f"the peak of the resident set is measured on Linux only, by way of {_CLEAR}"


def peak_bytes(call: Call, device: str = "cpu") -> int:
    """The most memory that a computation holds at a time, above what is held before it.

    On a CPU this is the resident set of the process, so that it counts what NumPy, numba and native code
    allocate as well. Call it in a process made by `in_fresh_process`: elsewhere, memory that was freed before
    and kept by the allocator hides the peak. On a GPU it is what PyTorch's allocator handed out.

    Raises:
        ConfigError: If this platform offers no way to measure it.
    """
    problem = memory_problem(device)
    if problem:
        raise ConfigError(problem)
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    _return_free_memory()
    _CLEAR.write_text("5", encoding="ascii")  # the peak starts again from what is resident now
    before = _resident("VmRSS")
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    """Bytes of one line of the process's status."""
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def _return_free_memory() -> None:
    """Give what the allocator of the C library keeps back to the system, where it is glibc's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def in_fresh_process(function: str, argument: Mapping[str, Any]) -> Any:
    """Call a function in a new interpreter in which nothing was computed yet.

    Args:
        function: ``module:name``; takes one mapping of JSON values and returns a JSON value.
        argument: What it is called with.

    Returns:
        What it returned.

    Raises:
        ChildError: If it raised or was ended, for example because memory ran out.
    """
    module, name = function.split(":")
    code = (
        f"import json, sys; from {module} import {name}; print();"
        f" print(json.dumps({name}(json.loads(sys.stdin.read()))))"
    )
    # Large blocks go back to the system as soon as they are freed, so that the peak is that of what is in
    # use.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MALLOC_MMAP_THRESHOLD_": str(2**16),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(argument),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode < 0:
        raise ChildError(
            f"ended by signal {-done.returncode}"
            + (", probably for lack of memory" if done.returncode == -9 else "")
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ChildError(lines[-1] if lines else f"exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def counted_flops(call: Call) -> int:
    """Floating-point operations of the matrix products, convolutions and fused attention that PyTorch
    dispatches in a call.

    A multiplication and an addition count as two. What runs outside of PyTorch's operators is seen as
    nothing, a scan for example, and so is elementwise work: add `scan_flops` and its like.
    """

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def attention_backward(_grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        # Five products of the size of the two forward ones: the weights again, and the gradient of each
        # factor.
        return int(2.5 * sdpa_flop_count(query, key, value))

    # The counter has formulas for the GPU's kernels only.
    ours: dict[Any, Any] = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=ours) as counter:
        call()
    return int(counter.get_total_flops())


def matmul_flops(rows: float, inner: float, columns: float) -> float:
    """Operations of a (rows, inner) by (inner, columns) product: two per term."""
    return 2.0 * rows * inner * columns


def attention_flops(queries: float, keys: float, channels: float) -> float:
    """Operations of the two matrix products of softmax(QK')V over all heads, without the softmax."""
    return 2 * matmul_flops(queries, channels, keys)


def scan_flops(tokens: float, channels: float, states: float) -> float:
    """Operations of a selective scan, forward, with an exponential or a logarithm counted as one operation.

    Per token, channel and state: dt A, exp, decay times state, drive times B, their sum, and a product and a
    sum for the output: 7. Per token and channel: softplus 3, dt u 1, skip 2, gate 5: 11.
    """
    return tokens * channels * (7 * states + 11)


def log_slope(lengths: Sequence[float], values: Sequence[float]) -> float:
    """Exponent p of the power law value = c * length^p that fits best: the slope of the least-squares line
    through the logarithms.

    Raises:
        ConfigError: If there are fewer than two different lengths, or something is not positive.
    """
    if len(lengths) != len(values) or len(set(lengths)) < 2 or min(*lengths, *values) <= 0:
        raise ConfigError(
            f"slope: expected positive values at two lengths or more, found {list(values)} at {list(lengths)}"
        )
    x, y = [math.log(value) for value in lengths], [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope
