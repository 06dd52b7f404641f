"""Peak memory and time of each way to bring two long sequences together, by their length.

Each operator and length has fresh processes: one reads the peak of its resident memory above the start of one
call, with gradients where the operator has any, and the time of the processor; the other lets the profiler
add up the tensors that are alive at once. The last column is the exponent of resident memory between the two
longest lengths: 1 is linear, 2 would be a matrix of all pairs.

Usage: ``python benchmarks/long_alignment.py [--lengths 1600 3200 ...] [--channels 32] [--operators NAMES]``
"""

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from alignmamba import ops
from alignmamba.evaluation.computing_cost import alive_bytes, peak_bytes

LENGTHS = (1600, 3200, 6400, 12800)
CHANNELS = 32
BALANCED_ITERATIONS = 3
WINDOW = 64

MeasuredT = TypeVar("MeasuredT")
Sides = tuple[Tensor, Tensor, Tensor, Tensor]


def learnt(value: Callable[[Sides], Tensor]) -> Callable[[Sides], object]:
    """A loss or a stream with its gradient in both sides."""

    def run(sides: Sides) -> object:
        for side in sides[:2]:
            side.requires_grad_()
        return torch.autograd.grad(value(sides).sum(), sides[:2], allow_unused=True)

    return run


def backwards(x: Tensor) -> Tensor:
    """(batch, time), an anchor token for each of as many source tokens: the last for the first."""
    return torch.arange(x.shape[1]).flip(0).expand(len(x), -1)


OPERATORS: dict[str, Callable[[Sides], object]] = {
    "match_tokens": lambda sides: ops.match_tokens(*sides),
    "match_tokens, window": lambda sides: ops.match_tokens(*sides, window=WINDOW),
    "match_in_order": lambda sides: ops.match_in_order(*sides),
    "transport": learnt(
        lambda sides: ops.transport(sides[0], backwards(sides[0]), sides[2], len(sides[1][0]))
    ),
    "resample": learnt(lambda sides: ops.resample(sides[0], sides[2], sides[3])),
    "mmd": learnt(lambda sides: ops.mmd(*sides, bandwidth="median")),
    "mmd, 64 landmarks": learnt(lambda sides: ops.mmd(*sides, bandwidth="median", landmarks=64)),
    "time_contrast": learnt(lambda sides: ops.time_contrast(*sides)),
    "order_contrast": learnt(lambda sides: ops.order_contrast(*sides, sides[1][0, 0].detach())),
    "soft_transport, source": learnt(lambda sides: ops.soft_transport(*sides).values),
    "soft_transport, by time": learnt(lambda sides: ops.soft_transport(*sides, time_weight=1000.0).values),
    "soft_transport, both": learnt(
        lambda sides: ops.soft_transport(*sides, marginal="both", iterations=BALANCED_ITERATIONS).values
    ),
    "soft_transport, window": learnt(lambda sides: ops.soft_transport(*sides, window=WINDOW).values),
    "transport_distance": learnt(
        lambda sides: ops.transport_distance(*sides, iterations=BALANCED_ITERATIONS)
    ),
}


def drawn(length: int, channels: int) -> Sides:
    """Two sequences of this length, without padding."""
    generator = torch.Generator().manual_seed(0)
    source, anchor = (torch.randn(1, length, channels, generator=generator) for _ in range(2))
    mask = torch.ones(1, length, dtype=torch.bool)
    return source, anchor, mask, mask


def resident(name: str, length: int, channels: int) -> tuple[float, float]:
    """Growth of resident memory in one call, in megabytes, and its seconds."""
    call = ready(name, length, channels)
    started = time.process_time()
    peak = peak_bytes(call)
    return peak / 2**20, time.process_time() - started


def alive(name: str, length: int, channels: int) -> float:
    """Megabytes of all tensors that one call holds at once, above its arguments."""
    return alive_bytes(ready(name, length, channels)) / 2**20


def ready(name: str, length: int, channels: int) -> Callable[[], object]:
    """A call of one operator in this process, whose kernels are compiled."""
    torch.set_num_threads(1)
    OPERATORS[name](drawn(64, channels))
    sides = drawn(length, channels)
    return lambda: OPERATORS[name](sides)


def in_a_process(measure: Callable[[str, int, int], MeasuredT], *arguments: Any) -> MeasuredT:
    """A measurement by a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and time of operators on long sequences.")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="tokens of either side")
    parser.add_argument("--channels", type=int, default=CHANNELS, help="width of a token")
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    given = parser.parse_args()
    print("| operator | " + " | ".join(f"{length:,}" for length in given.lengths) + " | exponent of memory |")
    print("|---|" + "---|" * (len(given.lengths) + 1))
    for name in given.operators:
        found = [in_a_process(resident, name, length, given.channels) for length in given.lengths]
        tensors = [in_a_process(alive, name, length, given.channels) for length in given.lengths]
        cells = [
            f"{megabytes:.0f} / {live:.0f} MB, {seconds:.1f} s"
            for (megabytes, seconds), live in zip(found, tensors, strict=True)
        ]
        exponent = "–"
        if len(found) > 1 and found[-2][0] > 1:
            growth = math.log(found[-1][0] / found[-2][0])
            exponent = f"{growth / math.log(given.lengths[-1] / given.lengths[-2]):.1f}"
        print(f"| {name} | " + " | ".join(cells) + f" | {exponent} |", flush=True)


if __name__ == "__main__":
    main()
