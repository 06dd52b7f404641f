"""A worker of a search: it takes one trial after the other until every method has as many as were asked for.

Any number of workers share a directory or a database. A trial whose worker was killed is tried again.
"""

import secrets
from contextlib import ExitStack
from typing import Final, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from alignmamba.data.randomness import generator
from alignmamba.recipes.tuning.studies import (
    SECONDS,
    SURPLUS,
    WORKER,
    Studies,
    best_of,
    counted,
    ended,
    put_back_lost,
    studies_of,
)
from alignmamba.recipes.tuning.trial_run import run_trial
from alignmamba.recipes.tuning.tuning_directory import TuningDirectory
from alignmamba.recipes.tuning.tuning_plan import TuningPlan, defaults_of

RANDOM_TRIALS: Final = 10
"""Trials before the sampler learns from earlier ones, at most; at most half of all that are asked for."""


class TuningProgress(Protocol):
    """Observer of the progress of a search."""

    def started(self, *, done: int, total: int) -> None:
        """Work begins; `done` of `total` trials are there already."""

    def finished(
        self, method: str, trial: FrozenTrial, best: FrozenTrial | None, *, done: int, seconds: float
    ) -> None:
        """A trial of this worker ended, after which `best` is the method's best one and `done` are done."""


class SurplusError(Exception):
    """A trial began while another worker took the last one."""


def _done(studies: Studies, asked: int) -> int:
    """Trials of all methods that ended for good, of each as many as are asked for at most."""
    return sum(min(asked, len(ended(study))) for study in studies.values())


def work(plan: TuningPlan, *, progress: TuningProgress) -> int:
    """Take trials until every method of the plan has as many as were asked for, over all workers; returns how
    many others are still at work on. Raises a `KeyboardInterrupt` after putting back a trial under way.
    """
    directory, worker = TuningDirectory(plan.directory), secrets.token_hex(8)
    record = directory.join(plan.record)
    with directory.alive(worker):
        with directory.claiming():
            directory.drop_torn_line()
            opened = studies_of(directory, record, maximise=plan.higher_is_better)
            studies = {name: opened[name] for name in plan.spaces}
            for name, study in studies.items():
                if not study.get_trials(deepcopy=False):
                    study.enqueue_trial(defaults_of(name, plan))
        asked = plan.record.trials
        progress.started(done=_done(studies, asked), total=asked * len(studies))
        try:
            while _next_trial(plan, directory, worker, studies, progress):
                pass
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; repeat the command to resume") from None
    return sum(len(study.get_trials(states=(TrialState.RUNNING,))) for study in studies.values())


def _next_trial(
    plan: TuningPlan, directory: TuningDirectory, worker: str, studies: Studies, progress: TuningProgress
) -> bool:
    """Run one trial of the method that has fewest; returns false where no method lacks any."""
    with ExitStack() as claim:
        claim.enter_context(directory.claiming())
        for study in studies.values():
            put_back_lost(study, directory.is_dead)
        counts = {name: len(counted(study)) for name, study in studies.items()}
        name = min(counts, key=lambda each: counts[each])
        if counts[name] >= plan.record.trials:
            return False
        study = studies[name]

        def objective(trial: optuna.Trial) -> float:
            trial.set_user_attr(WORKER, worker)
            claim.close()
            earlier = [each for each in counted(study) if each.number < trial.number]
            if len(earlier) >= plan.record.trials:
                trial.set_user_attr(SURPLUS, True)
                raise SurplusError
            study.sampler = _sampler(plan, name, trial.number)
            return run_trial(plan, name, trial)

        study.optimize(objective, n_trials=1, catch=(SurplusError,))
    last = max(
        (each for each in study.get_trials(deepcopy=False) if each.user_attrs.get(WORKER) == worker),
        key=lambda each: each.number,
    )
    if last.user_attrs.get(SURPLUS, False):
        return True
    progress.finished(
        name,
        last,
        best_of(study),
        done=_done(studies, plan.record.trials),
        seconds=last.user_attrs.get(SECONDS, 0.0),
    )
    return True


def _sampler(plan: TuningPlan, name: str, number: int) -> optuna.samplers.BaseSampler:
    """Sampler of one trial: its draws depend on seed, method and number, not on the worker."""
    seed = int(generator(plan.record.seed, "tune", name, str(number)).integers(2**32))
    random = max(1, min(RANDOM_TRIALS, plan.record.trials // 2))
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=random)
