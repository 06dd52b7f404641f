"""The compiled scan against the chunked reference: ratio of process CPU times on one thread, measured in turn, after a check of parity.

Usage: ``python benchmarks/scan.py [--repeats 5]``
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from alignmamba.ops import selective_scan
from alignmamba.ops.scan import Backend

# batch, time, channels, states
SHAPES = [(32, 75, 128, 16), (32, 135, 128, 16), (1, 6400, 512, 16)]
LARGEST_ERROR = 1e-3
"""Of values and gradients relative to the largest of each; more is an error, and no time is printed."""


def arguments(batch: int, time_steps: int, channels: int, states: int) -> list[Tensor]:
    """Random arguments u, delta, A, B, C that need gradients."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    decay = -torch.rand(channels, states, generator=generator) * states
    tokens = [normal(batch, time_steps, channels), normal(batch, time_steps, channels) - 3]
    maps = [normal(batch, time_steps, states), normal(batch, time_steps, states)]
    return [tensor.requires_grad_() for tensor in (*tokens, decay, *maps)]


def cpu_seconds(call: Callable[[], object]) -> float:
    """Process CPU time of one call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def infer(given: list[Tensor], backend: Backend) -> None:
    """One pass without gradients."""
    with torch.no_grad():
        selective_scan(*given, backend=backend)


def differentiate(given: list[Tensor], backend: Backend) -> None:
    """One pass forward and back."""
    torch.autograd.grad(selective_scan(*given, backend=backend).sum(), given)


def largest_difference(given: list[Tensor]) -> float:
    """Between the backends' values and gradients, each relative to its largest entry."""
    found = []
    for backend in ("numba", "torch"):
        y = selective_scan(*given, backend=backend)
        found.append([y.detach(), *torch.autograd.grad(y.square().sum(), given)])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The compiled scan against the chunked reference.")
    parser.add_argument("--repeats", type=int, default=5, help="times each is measured; the median counts")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("batch x time x channels x states    inference    training   (reference / compiled)")
    for shape in SHAPES:
        given = arguments(*shape)
        error = largest_difference(given)
        if error > LARGEST_ERROR:
            raise SystemExit(f"{shape}: the backends differ by {error:.1e}, expected at most {LARGEST_ERROR:.0e}; no time is given")
        seconds: dict[tuple[str, str], list[float]] = {}
        for _ in range(repeats):
            for backend in ("torch", "numba"):
                for kind, call in (("inference", infer), ("training", differentiate)):
                    seconds.setdefault((backend, kind), []).append(cpu_seconds(partial(call, given, backend)))
        medians = {key: statistics.median(values) for key, values in seconds.items()}
        ratios = [medians["torch", kind] / medians["numba", kind] for kind in ("inference", "training")]
        print(f"{' x '.join(map(str, shape)):34s}  {ratios[0]:8.1f} x  {ratios[1]:8.1f} x")
