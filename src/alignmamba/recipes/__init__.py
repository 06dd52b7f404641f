"""Recipes: the one floor where data, model and training meet."""

from alignmamba.recipes.assembly import environment
from alignmamba.recipes.configuration import EngineConfig, RunConfig, check_config, read_config
from alignmamba.recipes.directory import RunDirectory
from alignmamba.recipes.running import Plan, RunInterrupted, RunResult, plan, train
from alignmamba.recipes.using import evaluate, predict

__all__ = [
    "EngineConfig",
    "Plan",
    "RunConfig",
    "RunDirectory",
    "RunInterrupted",
    "RunResult",
    "check_config",
    "environment",
    "evaluate",
    "plan",
    "predict",
    "read_config",
    "train",
]
