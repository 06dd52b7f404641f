"""Cost of a computation: time in turn with its rivals, memory above its inputs, operations, and their growth.

A computation is a call without arguments whose inputs exist already.
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
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
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
        repeats: Rounds, one at least; a computation of more than `SLOW_SECONDS` takes part in `SLOW_REPEATS`.
        device: ``cpu`` or ``cuda``.
        warm_ups: Rounds before that are not timed.
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
    """The most bytes that a computation holds at a time, above what is held before it.

    On a CPU this is the resident set, to be measured `in_fresh_process`: elsewhere, memory that the allocator
    has kept hides the peak. On a GPU it is what PyTorch's allocator handed out.

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


def alive_bytes(call: Call) -> int:
    """The most bytes of tensors that a computation holds at a time on a CPU, above those that it is given: no
    gaps of the allocator are among them.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [each for each in profiler.profiler.kineto_results.events() if each.name() == "[memory]"]
    events.sort(key=lambda each: each.start_ns())
    return int(max(accumulate((each.nbytes() for each in events), initial=0)))


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
    """Call ``module:name``, from JSON values to a JSON value, in a new interpreter.

    Raises:
        ChildError: If it raised or was ended, for example because memory ran out.
    """
    module, name = function.split(":")
    code = (
        f"import json, sys; from {module} import {name}; print();"
        f" print(json.dumps({name}(json.loads(sys.stdin.read()))))"
    )
    # Large blocks go back to the system as soon as they are freed: the peak is that of what is in use.
    own = {"PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_MMAP_THRESHOLD_": str(2**16)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, input=json.dumps(argument), capture_output=True, text=True, env=os.environ | own, check=False
    )
    if done.returncode < 0:
        why = ", probably for lack of memory" if done.returncode == -9 else ""
        raise ChildError(f"ended by signal {-done.returncode}{why}")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ChildError(lines[-1] if lines else f"exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def counted_flops(call: Call) -> int:
    """Operations of the matrix products, convolutions and fused attention that PyTorch dispatches in a call.

    What runs outside of them, a scan for example, counts as nothing: add `scan_flops` and its like.
    """

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def attention_backward(_grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        # five products of the size of the two forward ones
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
    """Operations of a selective scan, forward. Per token, channel and state: dt A, exp, decay times state,
    drive times B, sum, output 2. Per token and channel: softplus 3, dt u 1, skip 2, gate 5.
    """
    return tokens * channels * (7 * states + 11)


def log_slope(lengths: Sequence[float], values: Sequence[float]) -> float:
    """Exponent of the power law that fits best: the slope of the least-squares line through the logarithms.

    Raises:
        ConfigError: If there are fewer than two different lengths, or something is not positive.
    """
    if len(lengths) != len(values) or len(set(lengths)) < 2 or min(*lengths, *values) <= 0:
        raise ConfigError(
            f"slope: expected positive values at two lengths or more, found {list(values)} at {list(lengths)}"
        )
    x, y = [math.log(value) for value in lengths], [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope
