"""Recipes: the one floor where data, model and training meet."""

from alignmamba.data.missing_protocols import MissingConfig
from alignmamba.recipes.assembly import environment
from alignmamba.recipes.configuration import EngineConfig, RunConfig, check_config, check_missing, read_config
from alignmamba.recipes.finished_run import (
    LoadedRun,
    MissingScores,
    evaluate,
    load_run,
    predict,
    score_missing,
)
from alignmamba.recipes.opened import Run, SamplePlan, open_run
from alignmamba.recipes.run_directory import RunDirectory
from alignmamba.recipes.training_run import ReadyRun, RunInterrupted, RunResult, plan, train

__all__ = [
    "EngineConfig",
    "LoadedRun",
    "MissingConfig",
    "MissingScores",
    "ReadyRun",
    "Run",
    "RunConfig",
    "RunDirectory",
    "RunInterrupted",
    "RunResult",
    "SamplePlan",
    "check_config",
    "check_missing",
    "environment",
    "evaluate",
    "load_run",
    "open_run",
    "plan",
    "predict",
    "read_config",
    "score_missing",
    "train",
]
