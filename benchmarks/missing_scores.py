"""Scores of a finished run with modalities missing, for the measurements beside."""

from collections.abc import Sequence
from pathlib import Path

from alignmamba import evaluate
from alignmamba.contracts import Role
from alignmamba.data.missing_protocols import MissingConfig
from alignmamba.recipes.finished_run import OpenedRun


def missing_scores(run: Path | OpenedRun, split: Role, metric: str, rates: Sequence[float]) -> list[float]:
    """Score of a run on a split with modalities withheld by GCNet's protocol, at each rate."""
    found = []
    for rate in rates:
        missing = MissingConfig(protocol="gcnet", rate=rate)
        found.append(float(evaluate(run, split=split, missing=missing)["metrics_missing"][metric]))
    return found
