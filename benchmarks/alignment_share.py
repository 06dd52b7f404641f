"""Share of a training step that exact alignment takes in a long sequence, and the length at which it is half.

Processor time of one sample with two modalities of the same length, exact and with ``local.window=256`` and
``alignment.landmarks=256``. With the exact part growing as T^2 and the rest as T, half is at T (rest /
exact).

Usage: ``python benchmarks/alignment_share.py [--tokens 4000] [--widths 64 128] [--rounds 3]``
"""

import argparse
import statistics
import time
from typing import Any

import torch

from alignmamba import AlignMamba, AlignMambaConfig, Batch, Sequences, Task
from alignmamba.contracts import ModalitySpec

NAMES = ("text", "audio")
LINEAR: dict[str, Any] = {"local": {"window": 256}, "alignment": {"landmarks": 256}}


def seconds(width: int, tokens: int, options: dict[str, Any]) -> float:
    """Processor time of a forward and backward pass, after a short one to warm up."""
    modalities = tuple(ModalitySpec(name=name, dim=16) for name in NAMES)
    model = AlignMamba(
        AlignMambaConfig(modalities=modalities, task=Task(kind="regression"), d_model=width, **options)
    )
    for length in (300, tokens):
        features = {
            name: Sequences(features=torch.randn(1, length, 16), mask=torch.ones(1, length, dtype=torch.bool))
            for name in NAMES
        }
        batch = Batch(modalities=features, ids=("one",), targets=torch.zeros(1))
        started = time.process_time()
        output = model(batch)
        (output.prediction.sum() + sum(value.sum() for value in output.losses.values())).backward()
        used = time.process_time() - started
    return used


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Share of exact alignment in a training step.")
    parser.add_argument("--tokens", type=int, default=4000, help="length of each modality")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128], help="d_model of the model")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; the median counts")
    given = parser.parse_args()
    for width in given.widths:
        rounds = [
            (seconds(width, given.tokens, {}), seconds(width, given.tokens, LINEAR))
            for _ in range(given.rounds)
        ]
        exact, linear = (statistics.median(each) for each in zip(*rounds, strict=True))
        half = given.tokens * linear / (exact - linear)
        print(
            f"width {width}: exact {exact:.2f} s, linear {linear:.2f} s; half at {half:.0f} tokens,"
            f" {half / width:.0f} per channel",
            flush=True,
        )
