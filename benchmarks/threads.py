"""How long OpenMP's threads may spin before they sleep, and what that does to kernels that use threads of
their own.

PyTorch's OpenMP threads spin after each of its operations, waiting for the next. A kernel that comes in
between shares the cores with them. Each setting is tried in fresh processes, in turn; time on the clock,
medians.

Usage: ``python benchmarks/threads.py [--threads 2] [--rounds 3]``
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def measure(threads: int) -> dict[str, float]:
    """Milliseconds of each computation in this process."""
    import torch

    from alignmamba.nn.mamba import MambaConfig, MambaStack

    torch.set_num_threads(threads)
    wide, narrow = (
        MambaStack(MambaConfig(d_model=d_model, depth=depth, dropout=0.0))
        for d_model, depth in ((256, 4), (64, 2))
    )
    long, batch = torch.randn(1, 6400, 256), torch.randn(32, 75, 64)

    def infer() -> None:
        with torch.no_grad():
            wide(long, torch.ones(1, 6400, dtype=torch.bool))

    def train() -> None:
        narrow.zero_grad()
        narrow(batch, torch.ones(32, 75, dtype=torch.bool)).square().mean().backward()

    return {
        "inference, 6400 tokens, width 256": milliseconds(infer, 5),
        "training step, 32 x 75 tokens, width 64": milliseconds(train, 30),
    }


def milliseconds(call: Callable[[], None], repeats: int) -> float:
    """Median time on the clock, after one call to warm up."""
    call()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return 1e3 * statistics.median(found)


def in_child(threads: int, setting: dict[str, str]) -> dict[str, float]:
    """`measure` in a fresh process, which reads the setting when OpenMP starts."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    }
    command = [sys.executable, __file__, "--threads", str(threads), "--measure"]
    output = subprocess.run(command, env=clean | setting, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(output)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="OpenMP's spinning threads and the kernels' own.")
    parser.add_argument("--threads", type=int, default=2, help="threads that PyTorch may use")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each setting; the median counts")
    parser.add_argument("--measure", action="store_true", help="measure in this process and print JSON")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.threads)))
        raise SystemExit
    rounds = [
        {name: in_child(given.threads, setting) for name, setting in SETTINGS.items()}
        for _ in range(given.rounds)
    ]
    first = next(iter(SETTINGS))
    for what in rounds[0][first]:
        print(f"{what} (ratio to the first)")
        medians = {name: statistics.median(each[name][what] for each in rounds) for name in SETTINGS}
        for name, value in medians.items():
            print(f"  {name:24s} {value / medians[first]:5.2f}")
