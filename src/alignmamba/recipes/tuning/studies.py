"""Optuna's studies of a search: one for each method, trials that count, and those that are tried again."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from alignmamba.recipes.tuning.tuning_directory import TuningDirectory, TuningRecord, storage_faults

ATTEMPTS: Final = 3
"""Workers that one trial may end; then it counts as a trial without a score."""
UNJUDGED_TRIALS, UNJUDGED_PARTS = 4, 3
"""Trials that finish before any is pruned, and parts of a training before it may be."""
WORKER, ATTEMPT, RETRIED, SURPLUS = "worker", "attempt", "retry of", "surplus"
"""Attributes of a trial: who runs it, how often it was begun, in whose place, and a mark of one too many."""
SECONDS, REFUSED, INTERRUPTED = "seconds", "refused", "interrupted"
"""Attributes of a trial: its cost, why its settings cannot be trained, and that Ctrl-C ended it."""

Studies = Mapping[str, optuna.Study]
"""Method to its study."""


def studies_of(directory: TuningDirectory, record: TuningRecord, *, maximise: bool) -> Studies:
    """Studies of all methods of a search, made where there are none."""
    storage = directory.storage()
    pruner = optuna.pruners.MedianPruner(n_startup_trials=UNJUDGED_TRIALS, n_warmup_steps=UNJUDGED_PARTS)
    with storage_faults(record.storage or str(directory.path)):
        return {
            name: optuna.create_study(
                study_name=record.study(name),
                storage=storage,
                pruner=pruner,
                direction="maximize" if maximise else "minimize",
                load_if_exists=True,
            )
            for name in record.spaces
        }


def put_back_lost(study: optuna.Study, is_dead: Callable[[str | None], bool]) -> None:
    """End trials whose worker does not live, and queue every trial that was not finished again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # marked as experimental
        optuna.storages.fail_stale_trials(study)  # by their heartbeat, in a database
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if is_dead(trial.user_attrs.get(WORKER)):
            with suppress(ValueError):  # another worker was faster
                study.tell(trial.number, state=TrialState.FAIL)
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(RETRIED) for trial in trials}
    for trial in trials:
        if trial.state == TrialState.FAIL and trial.number not in again and not _given_up(trial):
            attempt = trial.user_attrs.get(ATTEMPT, 1) + (not trial.user_attrs.get(INTERRUPTED, False))
            study.enqueue_trial(trial.params, user_attrs={RETRIED: trial.number, ATTEMPT: attempt})


def _given_up(trial: FrozenTrial) -> bool:
    """True if a failed trial is not tried again."""
    attrs = trial.user_attrs
    tried = attrs.get(ATTEMPT, 1) >= ATTEMPTS and not attrs.get(INTERRUPTED, False)
    return bool(attrs.get(SURPLUS, False)) or tried


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count and are over: with a score, pruned, or given up."""
    return [trial for trial in counted(study) if trial.state != TrialState.RUNNING]


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count towards those that were asked for."""
    known = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state in known
        or (trial.state == TrialState.FAIL and _given_up(trial) and not trial.user_attrs.get(SURPLUS, False))
    ]


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The trial of the best score; None before any has one."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return study.best_trial if complete else None
