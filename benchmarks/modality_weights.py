"""Worth of the weights of modalities that runs of an experiment chose on valid.

Usage: ``python benchmarks/modality_weights.py EXPERIMENT [--metric accuracy] [--missing-rates 0.4 0.7]``

Every finished run of the experiment that chose weights is scored on test as it is, and again with these
weights taken back, which is the same training without them. One line for each method and column of the
experiment: means over the seeds, with the weights and without, and the mean of each weight.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from alignmamba import open_run
from alignmamba.recipes.experiments.grid_directory import ExperimentDirectory
from alignmamba.recipes.opened import Run
from missing_scores import missing_scores


def scores(run: Run, metric: str, rates: list[float]) -> list[float]:
    """Scores of the run on test, complete and with modalities missing."""
    complete = float(run.evaluate(split="test")["metrics"][metric])
    return [complete, *missing_scores(run, "test", metric, rates)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Worth of the weights of modalities.")
    parser.add_argument("experiment", type=Path, help="directory of alignmamba experiment")
    parser.add_argument("--metric", default="accuracy", help="metric of test")
    parser.add_argument(
        "--missing-rates", type=float, nargs="+", default=[], help="rates to withhold modalities at too"
    )
    given = parser.parse_args()
    grid = ExperimentDirectory.open(given.experiment)
    found: dict[tuple[str, str], list[tuple[list[float], list[float], dict[str, float]]]] = defaultdict(list)
    seen = set()
    for cell in grid.plan().cells:
        if cell.key in seen or not (grid.run_path(cell.key) / "metrics.json").exists():
            continue
        seen.add(cell.key)
        run = open_run(grid.run_path(cell.key))
        if chosen := run.stored.metrics().get("modality_weights"):
            weighed = scores(run, given.metric, given.missing_rates)
            run.model.weigh(1 / torch.tensor([chosen[name] for name in run.model.weighed]))
            equal = scores(run, given.metric, given.missing_rates)
            found[cell.row, cell.column].append((weighed, equal, chosen))
    for (row, column), runs in found.items():
        weighed, equal = (np.mean([each[place] for each in runs], axis=0) for place in (0, 1))
        weights = {name: np.mean([each[2][name] for each in runs]) for name in runs[0][2]}
        print(
            f"{row:24s} {column:>8s} {len(runs)} seeds: with",
            *(f"{value:.3f}" for value in weighed),
            "without",
            *(f"{value:.3f}" for value in equal),
            "weights",
            *(f"{name} {value:.2f}" for name, value in weights.items()),
        )
