"""Outcome of a search: trials, best settings and cost of each method, and the importance of each setting."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import optuna
from optuna.trial import TrialState

from alignmamba.evaluation.metrics import metric_of
from alignmamba.recipes.tuning.studies import SECONDS, WORKER, best_of, ended, studies_of
from alignmamba.recipes.tuning.tuning_directory import TuningDirectory

LEAST_TRIALS: Final = 5
"""Scored trials from which the importance of settings is estimated."""


@dataclass(frozen=True, kw_only=True)
class MethodOutcome:
    """Outcome of the search of one method so far."""

    method: str
    trials: int
    """Trials that are over."""
    pruned: int
    """Those of them that were ended early, or whose settings could not be trained."""
    running: int
    """Those that a worker is at work on."""
    score: float | None
    """Best score on the valid split; None before any trial has one."""
    settings: Mapping[str, Any]
    """Settings of that score, by dotted key."""
    seconds: float
    """Time that trials took, the pruned ones too."""
    importance: Mapping[str, float] | None = None
    """Setting to its share of the importance, on request; empty where too few trials have a score."""


def outcomes(directory: TuningDirectory, *, importance: bool = False) -> list[MethodOutcome]:
    """Outcome of each method, in the order in which they were asked for."""
    record = directory.record()
    directory.refuse_gone()
    studies = studies_of(directory, record, maximise=metric_of(record.metric).higher_is_better)
    return [
        _outcome(name, study, directory.is_dead, importance=importance) for name, study in studies.items()
    ]


def _outcome(
    name: str, study: optuna.Study, is_dead: Callable[[str | None], bool], *, importance: bool
) -> MethodOutcome:
    over, best = ended(study), best_of(study)
    begun = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return MethodOutcome(
        method=name,
        trials=len(over),
        pruned=sum(trial.state != TrialState.COMPLETE for trial in over),
        running=sum(not is_dead(trial.user_attrs.get(WORKER)) for trial in begun),
        score=None if best is None else best.value,
        settings={} if best is None else dict(best.params),
        seconds=round(sum(trial.user_attrs.get(SECONDS, 0.0) for trial in over), 3),
        importance=importances(study) if importance else None,
    )


def importances(study: optuna.Study) -> Mapping[str, float]:
    """Share of each setting in what scores vary by, by PED-ANOVA; empty where too few trials have a score."""
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < LEAST_TRIALS:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # marked as experimental
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
