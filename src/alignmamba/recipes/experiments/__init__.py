"""Grids of runs: the paper's tables and figures on any corpus, with honest uncertainty."""

from alignmamba.recipes.experiments.ablation import AblationOptions
from alignmamba.recipes.experiments.comparison import ComparisonOptions
from alignmamba.recipes.experiments.distance import DistanceOptions
from alignmamba.recipes.experiments.grid_run import (
    ExperimentPlan,
    ExperimentResult,
    GridEngine,
    plan_experiment,
    refresh_tables,
    run_experiment,
    shard_from,
    sum_up,
)
from alignmamba.recipes.experiments.missing import MissingOptions
from alignmamba.recipes.experiments.plans import PlansOptions

__all__ = [
    "AblationOptions",
    "ComparisonOptions",
    "DistanceOptions",
    "ExperimentPlan",
    "ExperimentResult",
    "GridEngine",
    "MissingOptions",
    "PlansOptions",
    "plan_experiment",
    "refresh_tables",
    "run_experiment",
    "shard_from",
    "sum_up",
]
