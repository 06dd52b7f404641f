"""Regression labels of any zero and unit: the same easy data with labels moved and scaled, a small model of
each kind.

Usage: ``python benchmarks/target_scale.py [--models alignmamba late-fusion ...]``

The label is a linear function of both modalities. Printed: the error on test, and that of the mean of the
train labels.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba import FitConfig, RunConfig, Task, train, write_corpus
from alignmamba.methods import FAMILIES

# Lowest label, highest label, samples to train on.
LABELS = (
    (-1, 1, 200),
    (200, 800, 200),
    (1000, 3000, 200),
    (1e9 - 1, 1e9 + 1, 200),
    (-1, 1, 50),
    (0, 63, 50),
    (18, 80, 100),
)
FIT = FitConfig(epochs=12)
OPTIONS: dict[str, Any] = {"d_model": 16, "depth": 1}


def split(samples: int, seed: int, low: float, high: float) -> dict[str, Any]:
    """Two modalities that show the label of each sample at every token, under noise of their own."""
    random = np.random.default_rng(seed)
    place = random.uniform(-1, 1, samples)

    def shown(least: int, most: int, width: int) -> list[np.ndarray]:
        return [
            np.full((int(random.integers(least, most)), width), value) + 0.3 * random.normal(size=(1, width))
            for value in place
        ]

    return {
        "features": {"audio": shown(8, 16, 4), "video": shown(4, 8, 3)},
        "targets": ((low + high) / 2 + (high - low) / 2 * place).tolist(),
    }


def measure(folder: Path, model: str, low: float, high: float, samples: int) -> tuple[float, float, float]:
    """Mean absolute error on test, that of the mean of the train labels, and the correlation."""
    data = {
        "train": split(samples, 1, low, high),
        "valid": split(50, 2, low, high),
        "test": split(50, 3, low, high),
    }
    write_corpus(folder / "corpus", data, task=Task(kind="regression"))  # type: ignore[arg-type]
    config = RunConfig(data=str(folder / "corpus"), model=model, fit=FIT, options=OPTIONS)  # type: ignore[arg-type]
    scores = train(config, out=folder / "run").metrics["test"]
    targets = np.array(data["test"]["targets"])
    constant = float(np.abs(targets - np.mean(data["train"]["targets"])).mean())
    return scores["mae"] or 0.0, constant, scores["corr"] or 0.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Regression labels of any zero and unit.")
    parser.add_argument("--models", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    given = parser.parse_args()
    print(f"{'model':26}{'labels':>26}{'train':>7}{'MAE':>10}{'MAE of the mean':>17}{'corr':>7}")
    for name in given.models:
        for low, high, samples in LABELS:
            with tempfile.TemporaryDirectory() as folder:
                mae, constant, corr = measure(Path(folder), name, low, high, samples)
            labels = f"{low:.10g} to {high:.10g}"
            print(f"{name:26}{labels:>26}{samples:>7}{mae:>10.4g}{constant:>17.4g}{corr:>7.2f}", flush=True)
