"""One thread or several for a run of a grid: time on the clock and of the processor of a training step, by
width of the model.

Each number of threads has fresh processes, in turn; medians. Three modalities of 50 tokens, batch 32, depth
2.

Usage: ``python benchmarks/cell_threads.py [--threads 1 2] [--widths 64 128 256 512] [--rounds 3]``
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def measure(width: int, steps: int = 10) -> tuple[float, float]:
    """Seconds on the clock and of the processor that a step takes in this process."""
    import torch

    from alignmamba import AlignMamba, AlignMambaConfig, Batch, Sequences, Task
    from alignmamba.contracts import ModalitySpec

    names = ("text", "audio", "video")
    modalities = tuple(ModalitySpec(name=name, dim=32) for name in names)
    task = Task(kind="regression")
    model = AlignMamba(AlignMambaConfig(modalities=modalities, task=task, d_model=width, depth=2))
    features = {
        name: Sequences(features=torch.randn(32, 50, 32), mask=torch.ones(32, 50, dtype=torch.bool))
        for name in names
    }
    batch = Batch(modalities=features, ids=tuple(map(str, range(32))), targets=torch.randn(32))
    found = []
    for _ in range(steps + 2):
        started, used = time.perf_counter(), time.process_time()
        model.zero_grad()
        output = model(batch)
        (output.prediction.square().mean() + sum(value.mean() for value in output.losses.values())).backward()
        found.append((time.perf_counter() - started, time.process_time() - used))
    clock, processor = zip(*found[2:], strict=True)
    return statistics.median(clock), statistics.median(processor)


def in_child(width: int, threads: int) -> list[float]:
    """`measure` in a fresh process of that many threads."""
    environment = {**os.environ, **dict.fromkeys(VARIABLES, str(threads))}
    command = [sys.executable, __file__, "--measure", str(width)]
    found: list[float] = json.loads(
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Threads of one run of a grid.")
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1, 2],
        help="threads to compare; the first is the reference",
    )
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[64, 128, 256, 512], help="d_model of the model"
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes of each; the median counts")
    parser.add_argument("--measure", type=int, help="measure this width in this process and print JSON")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        raise SystemExit
    for width in given.widths:
        rounds = [
            {threads: in_child(width, threads) for threads in given.threads} for _ in range(given.rounds)
        ]
        medians = {
            threads: [statistics.median(each[threads][kind] for each in rounds) for kind in (0, 1)]
            for threads in given.threads
        }
        clock, processor = medians[given.threads[0]]
        print(f"width {width}")
        for threads, (on_clock, used) in medians.items():
            print(
                f"  {threads} threads: {1e3 * on_clock:8.1f} ms ({on_clock / clock:4.2f}), processor"
                f" {used / processor:4.2f}",
                flush=True,
            )
