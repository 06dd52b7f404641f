"""Accuracy on a real corpus: convert, train one run per seed, score test once per run, with each modality
withheld as well.

Usage: ``python benchmarks/accuracy.py utd-mhad|mosi|grid-colour|grid-digit --source FOLDER_OF_ARCHIVES --out
FOLDER [--seeds 0 1 2] [--preset 0.1]``

Settings are those of ``examples/NAME.yaml``. Finished runs are not trained again, interrupted ones go on.
The table goes to the screen and, with every seed's value, to ``FOLDER/NAME.json``.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from alignmamba import Corpus, evaluate, load_corpus, train
from alignmamba.recipes.configuration import read_config

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import grid  # noqa: E402
import mosi  # noqa: E402
import utd_mhad  # noqa: E402

# Name of the experiment -> archive, converter, settings.
EXPERIMENTS: dict[str, tuple[str, Callable[[Path, Path], Corpus], str]] = {
    "utd-mhad": ("utd_mhad.npz", utd_mhad.convert, "utd_mhad.yaml"),
    "mosi": ("mosi_text_audio.npz", mosi.convert, "mosi.yaml"),
    "grid-colour": ("grid_s1.npz", partial(grid.convert, target="colour"), "grid.yaml"),
    "grid-digit": ("grid_s1.npz", partial(grid.convert, target="digit"), "grid.yaml"),
}


def measure(
    name: str, source: Path, out: Path, seeds: list[int], preset: str
) -> dict[str, dict[str, list[float]]]:
    """Train and score; what was withheld (``nothing`` first) to metric to one value per seed."""
    archive, convert, settings = EXPERIMENTS[name]
    place = out / name
    if not place.exists():
        convert(source / archive, place)
    modalities = [modality.name for modality in load_corpus(place).modalities]
    found: dict[str, dict[str, list[float]]] = {}
    for seed in seeds:
        run = out / f"{name}-seed{seed}"
        if run.exists():
            train(resume=run)
        else:
            asked = {"data": str(place), "seed": seed, "preset": preset}
            train(read_config(EXAMPLES / settings, overrides=asked), out=run)
        scores = {"nothing": evaluate(run)["metrics"]}
        scores |= {modality: evaluate(run, drop=[modality])["metrics_dropped"] for modality in modalities}
        for withheld, metrics in scores.items():
            for metric, value in metrics.items():
                found.setdefault(withheld, {}).setdefault(metric, []).append(value)
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Mean and standard deviation over seeds as text."""
    metrics = list(found["nothing"])
    rows = [["withheld", *metrics]]
    for withheld, scores in found.items():
        spread = {
            metric: statistics.stdev(values) if len(values) > 1 else 0.0 for metric, values in scores.items()
        }
        rows.append(
            [
                withheld,
                *(f"{statistics.mean(scores[metric]):.3f} ± {spread[metric]:.3f}" for metric in metrics),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(metrics) + 1)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Accuracy on a real corpus, mean over seeds.")
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--source", type=Path, required=True, help="folder that holds the archive")
    parser.add_argument("--out", type=Path, required=True, help="folder for corpus, runs and figures")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="default", help="named options of the model to start from")
    given = parser.parse_args()
    results = measure(given.name, given.source, given.out, given.seeds, given.preset)
    (given.out / f"{given.name}.json").write_text(
        json.dumps({"seeds": given.seeds, "test": results}, indent=1) + "\n"
    )
    print(f"{given.name}, test, mean ± standard deviation over seeds {given.seeds}")
    print(table(results))
