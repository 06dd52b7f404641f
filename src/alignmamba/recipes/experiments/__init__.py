"""Grids of runs: the paper's tables and figures on any corpus, interrupted at will, with honest
uncertainty.
"""

from alignmamba.recipes.experiments.experiment import ExperimentConfig
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

__all__ = [
    "ExperimentConfig",
    "ExperimentPlan",
    "ExperimentResult",
    "GridEngine",
    "plan_experiment",
    "refresh_tables",
    "run_experiment",
    "shard_from",
    "sum_up",
]
