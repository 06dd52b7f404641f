"""Worth of each choice of the presets on UTD-MHAD, measured on validation subjects alone.

Usage: ``python benchmarks/choices.py --source FOLDER_OF_ARCHIVES --out FOLDER [--subjects 5 7] [--only NAME
...] [--missing-rates 0.4] [--shard 1/2]``

Each variant differs from its preset in the options shown. It is trained once per validation subject,
on the other odd subjects; its figure is the accuracy over all validation samples together (108 a subject: at
.90 with two subjects, one standard error is 2 points). Training takes half the epochs of those settings. With
missing rates, modalities are also withheld from the validation samples of the same runs. The test split is
not looked at. Finished runs are not trained again; shards share a folder.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba import RunConfig, load_corpus, train
from alignmamba.recipes.configuration import read_config
from alignmamba.recipes.run_directory import RunDirectory
from missing_scores import missing_scores

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import utd_mhad  # noqa: E402

EPOCHS = 18

# Name -> preset and options that differ from those of examples/utd_mhad.yaml.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "0.1": ("0.1", {}),
    "0.1, match: as in the paper (eq. 5, 6)": ("0.1", {"local.time_weight": 0.0, "local.mass": "paper"}),
    "0.1, match: content alone, mean": ("0.1", {"local.time_weight": 0.0}),
    "0.1, match: anchor marginal": ("0.1", {"local.marginal": "anchor"}),
    "0.1, proportional": ("0.1", {"local.method": "proportional"}),
    "0.1, lambda 0": ("0.1", {"alignment.weight": 0.0}),
    "0.1, mean pooling": ("0.1", {"pooling": "mean"}),
    "default": ("default", {}),
    "without unimodal losses": ("default", {"unimodal_weight": 0.0}),
    "unimodal losses of weight 1": ("default", {"unimodal_weight": 1.0}),
    "pooled as one": ("default", {"pool_by": "sequence"}),
    "not centred": ("default", {"encoder.centring": "none", "encoders.inertial.centring": "none"}),
    "convolutions of width 5": ("default", {"encoder.kernel_size": 5, "encoders.inertial.kernel_size": 5}),
    "modality dropout 0.2": ("default", {"modality_dropout": 0.2}),
    "modality dropout 0.2 instead": ("default", {"modality_dropout": 0.2, "unimodal_weight": 0.0}),
    "proportional": ("default", {"local.method": "proportional"}),
    "contrast over time": ("default", {"contrast.weight": 0.3}),
}


def place_of(out: Path, name: str, subject: int) -> Path:
    """Directory of one variant's run."""
    return out / f"{''.join(letter if letter.isalnum() else '-' for letter in name)}-valid{subject}"


def configuration(name: str, data: Path) -> RunConfig:
    """Settings of one variant on one corpus."""
    preset, options = VARIANTS[name]
    # weights that are chosen on valid would be judged by it
    changed = {"options.modality_weights": "equal", "options.unimodal_branches": False}
    changed |= {f"options.{key}": value for key, value in options.items()}
    return read_config(
        EXAMPLES / "utd_mhad.yaml",
        overrides={"data": str(data), "preset": preset, "fit.epochs": EPOCHS, **changed},
    )


def accuracies(run: Path, rates: list[float]) -> list[float]:
    """Accuracies of a finished run on its validation split, complete and with modalities missing."""
    complete = float(RunDirectory.open(run).metrics()["metrics"]["valid"]["accuracy"])
    return [complete, *missing_scores(run, "valid", "accuracy", rates)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Worth of each choice of the presets on validation.")
    parser.add_argument("--source", type=Path, required=True, help="folder that holds utd_mhad.npz")
    parser.add_argument("--out", type=Path, required=True, help="folder for corpora, runs and choices.json")
    parser.add_argument(
        "--subjects", type=int, nargs="+", default=[5, 7], help="odd subjects to validate on, one run each"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=VARIANTS,
        default=list(VARIANTS),
        metavar="NAME",
        help="variants to train",
    )
    parser.add_argument(
        "--missing-rates", type=float, nargs="+", default=[], help="rates to withhold modalities at too"
    )
    parser.add_argument("--shard", default="1/1", help="part i of n of the runs, as i/n")
    given = parser.parse_args()
    part, parts = (int(number) for number in given.shard.split("/"))
    wanted = [(name, subject) for name in given.only for subject in given.subjects]
    for name, subject in wanted[part - 1 :: parts]:
        place = given.out / f"utd-valid{subject}"
        if not place.exists():
            utd_mhad.convert(given.source / "utd_mhad.npz", place, valid_subject=subject)
        run = place_of(given.out, name, subject)
        if run.exists():
            train(resume=run)
        else:
            train(configuration(name, place), out=run)
    found: dict[str, list[float]] = {}
    sizes = {
        subject: len(load_corpus(given.out / f"utd-valid{subject}").split("valid"))
        for subject in given.subjects
    }
    for name in VARIANTS:
        runs = {subject: place_of(given.out, name, subject) for subject in given.subjects}
        if all((run / "metrics.json").exists() for run in runs.values()):
            every = [accuracies(run, given.missing_rates) for run in runs.values()]
            found[name] = np.average(every, axis=0, weights=[sizes[subject] for subject in runs]).tolist()
            print(f"{name:36s}", *(f"{value:.3f}" for value in found[name]))
    (given.out / "choices.json").write_text(json.dumps(found, indent=1) + "\n")
