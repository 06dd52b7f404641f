"""Worth of each part of the default preset, measured on train and valid alone.

Usage: ``python benchmarks/default_parts.py --data CORPUS --folds K --out DIR [--set KEY=VALUE ...]
[--only NAME ...]``

Each variant is the default but for what it is named for, and is trained K times: parts of train and valid
take turns as the valid split, dealt by whole groups where the corpus has any. Its score is the mean over the
parts, that of `alignmamba tune` for a trial. The test split is not read. Modalities weigh alike in all
variants, since weights that are chosen on valid would be judged by it. Variants that are done are not trained
again; the command may be started several times for more processes.
"""

import argparse
from pathlib import Path
from typing import Any, Final

from alignmamba.recipes.configuration import read_config
from alignmamba.recipes.tuning.tuning_directory import TuningDirectory
from alignmamba.recipes.tuning.tuning_plan import TuningOptions, plan_tuning
from alignmamba.recipes.tuning.tuning_results import outcomes
from alignmamba.recipes.tuning.tuning_worker import work

VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "without unimodal branches": {"options.unimodal_branches": False},
    "without unimodal losses": {"options.unimodal_weight": 0.0},
    "pooled as one": {"options.pool_by": "sequence"},
    "not centred": {"options.encoder.centring": "none"},
    "convolutions of width 5": {"options.encoder.kernel_size": 5},
    "batches of 32": {"loader.batch_size": 32},
    "by position in place of matching": {"options.local.method": "proportional"},
    "soft plans in place of matching": {"options.local.method": "soft", "options.local.time_weight": 10.0},
    "soft plans of the anchor": {
        "options.local.method": "soft",
        "options.local.marginal": "anchor",
        "options.local.time_weight": 10.0,
    },
    "first of equal epochs": {"fit.ties": "first"},
    "mean of weights, ema_decay 0.98": {"fit.ema_decay": 0.98},
    "all epochs, patience 0": {"fit.patience": 0},
}


class Silent:
    """An observer that shows nothing."""

    def started(self, *, done: int, total: int) -> None:
        """Ignore that work begins."""

    def finished(self, method: str, trial: Any, best: Any, *, done: int, seconds: float) -> None:
        """Ignore that a trial ended."""


def score(name: str, given: argparse.Namespace) -> str:
    """Mean score of a variant over the parts, or why there is none."""
    place = given.out / "".join(letter if letter.isalnum() else "-" for letter in name)
    changed = {"data": str(given.data), "options.modality_weights": "equal", **VARIANTS[name]}
    base = read_config(assignments=given.set, overrides=changed)
    asked = TuningOptions(trials=1, methods=("alignmamba",), folds=given.folds)
    if work(plan_tuning(asked, base, out=place), progress=Silent()):
        return "at work"
    found = outcomes(TuningDirectory(place))[0].score
    return "no score" if found is None else f"{found:.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Worth of each part of the default on train and valid.")
    parser.add_argument("--data", type=Path, required=True, help="corpus directory")
    parser.add_argument("--folds", type=int, required=True, help="parts of train and valid")
    parser.add_argument("--out", type=Path, required=True, help="folder for a search of each variant")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all variants")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    given = parser.parse_args()
    for name in given.only:
        print(f"| {name} | {score(name, given)} |", flush=True)
