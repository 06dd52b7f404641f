"""How far the MMD with landmarks lies from the exact one: relative error of the value and of the gradient,
and time against exact.

Usage: ``python benchmarks/landmarks.py [--tokens 1500] [--repeats 3]``
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from alignmamba.ops import mmd

LANDMARKS = (64, 128, 256, 512)
CHANNELS = (64, 256)


def alike(tokens: int, channels: int) -> tuple[Tensor, Tensor]:
    """Two draws from one distribution: the hardest case, since the true value is nearly zero."""
    return torch.randn(1, tokens, channels), torch.randn(1, tokens, channels)


def apart(tokens: int, channels: int) -> tuple[Tensor, Tensor]:
    """Two distributions that differ in mean and scale."""
    x, y = alike(tokens, channels)
    return x, 1.1 * y + 0.2


def smooth(tokens: int, channels: int) -> tuple[Tensor, Tensor]:
    """Two slow walks in eight dimensions under noise, as encoded signals are."""

    def walk() -> Tensor:
        return (torch.randn(tokens, 8).cumsum(0) / 30).tanh() @ torch.randn(8, channels) + 0.3 * torch.randn(
            tokens, channels
        )

    return walk()[None], walk()[None]


SOURCES = {"alike": alike, "apart": apart, "smooth": smooth}


def value_and_gradient(x: Tensor, y: Tensor, landmarks: int | None) -> tuple[float, Tensor]:
    """MMD^2 with the median bandwidth, and its gradient with respect to all tokens."""
    sides = [side.clone().requires_grad_() for side in (x, y)]
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    value = mmd(*sides, mask, mask, bandwidth="median", landmarks=landmarks).sum()
    return value.item(), torch.cat([gradient.flatten() for gradient in torch.autograd.grad(value, sides)])


def cpu_seconds(call: Callable[[], object]) -> float:
    """Process CPU time of one call."""
    started = time.process_time()
    call()
    return time.process_time() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Error and time of the MMD with landmarks.")
    parser.add_argument("--tokens", type=int, default=1500, help="tokens of either side")
    parser.add_argument("--repeats", type=int, default=3, help="times each is measured; the median counts")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("tokens    channels  landmarks   exact value   error: value   gradient   time / exact")
    for name, source in SOURCES.items():
        for channels in CHANNELS:
            torch.manual_seed(0)
            x, y = source(given.tokens, channels)
            exact, exact_gradient = value_and_gradient(x, y, None)
            for landmarks in LANDMARKS:
                value, gradient = value_and_gradient(x, y, landmarks)
                seconds: dict[int | None, list[float]] = {landmarks: [], None: []}
                for _ in range(given.repeats):
                    for choice, found in seconds.items():
                        found.append(cpu_seconds(partial(value_and_gradient, x, y, choice)))
                ratio = statistics.median(seconds[landmarks]) / statistics.median(seconds[None])
                off = float((gradient - exact_gradient).norm() / exact_gradient.norm())
                error = abs(value / exact - 1)
                print(
                    f"{name:8s}  {channels:8d}  {landmarks:9d}   {exact:11.2e}   {error:11.1%}   {off:8.1%}  "
                    f" {ratio:10.2f}"
                )
