"""One trial: draw settings, train as often as the plan says, report how it stands, and keep no weights."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna

from alignmamba.errors import ConfigError, TrainingError
from alignmamba.evaluation.metrics import score
from alignmamba.files import refused_by_machine
from alignmamba.methods.search_space import Choice, Names, Range, Real
from alignmamba.recipes.assembly import launched, loaders
from alignmamba.recipes.configuration import resolve, with_settings
from alignmamba.recipes.experiments.experiment_kind import of_model
from alignmamba.recipes.preparation import Prepared
from alignmamba.recipes.training_run import fitted
from alignmamba.recipes.tuning.studies import INTERRUPTED, REFUSED, SECONDS
from alignmamba.recipes.tuning.tuning_plan import TuningPlan
from alignmamba.training.inference import predict
from alignmamba.training.progress import Progress
from alignmamba.training.selection import column

PARTS: Final = 10
"""Parts of a training after each of which a trial may be pruned: trials of different lengths are compared at
the same share of theirs."""


def run_trial(plan: TuningPlan, name: str, trial: optuna.Trial) -> float:
    """Mean score of a trial's trainings. Raises `optuna.TrialPruned` for a trial that is behind, and for
    settings that cannot be trained, with the reason among its attributes.
    """
    settings = {key: drawn(trial, key, values) for key, values in plan.spaces[name].items()}
    began = time.perf_counter()
    scores: list[float] = []
    try:
        for repeat in plan.repeats:
            scores.append(_trained(plan, name, repeat, settings, trial, scores))
    except KeyboardInterrupt:
        trial.set_user_attr(INTERRUPTED, True)
        raise
    except optuna.TrialPruned:
        raise
    except Exception as error:
        machine = refused_by_machine(error)
        if not isinstance(error, TrainingError | ConfigError) and not machine.startswith("out of memory"):
            raise
        trial.set_user_attr(REFUSED, machine or str(error))
        raise optuna.TrialPruned from error
    finally:
        trial.set_user_attr(SECONDS, round(time.perf_counter() - began, 3))
    return sum(scores) / len(scores)


def drawn(trial: optuna.Trial, key: str, values: Range) -> float | str:
    """Value of a setting that the sampler draws."""
    if isinstance(values, Choice | Names):
        return trial.suggest_categorical(key, values.values)
    if isinstance(values, Real):
        return trial.suggest_float(key, values.low, values.high, log=values.log)
    return trial.suggest_int(key, values.low, values.high, step=values.step)


def _trained(
    plan: TuningPlan,
    name: str,
    repeat: Prepared,
    settings: Mapping[str, Any],
    trial: optuna.Trial,
    before: Sequence[float],
) -> float:
    """Score on valid of the model that one training gives."""
    corpus = repeat.corpus
    config = resolve(with_settings(of_model(repeat.config, name), settings), corpus)
    fabric = launched(config.engine, config.fit.precision)
    watch = Pruning(trial, plan.record.metric, before)
    sources = loaders(config, corpus)
    model, _ = fitted(config, corpus, sources, fabric, progress=watch)
    # what training chooses after its last epoch is a part of the model
    said = predict(
        model, sources["valid"], task=corpus.task, fabric=fabric, regression_loss=config.fit.regression_loss
    )
    return score(corpus.task, said)[plan.record.metric]


class Pruning(Progress):
    """Reports the score so far after each part of a training, and ends a trial that is behind."""

    def __init__(self, trial: optuna.Trial, metric: str, before: Sequence[float]) -> None:
        self._trial, self._metric, self._before = trial, metric, before
        self._epochs, self._stage, self._part, self._best = 1, 0.0, 0, float("nan")

    def started(self, *, epochs: int, batches: int, epoch: int, batch: int) -> None:
        """Note how many epochs there are."""
        del batches, epoch, batch
        self._epochs = epochs

    def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
        """Do nothing: scores come with epochs."""

    def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:
        """Report the mean over finished trainings and the best epoch of this one."""
        if record.get("stage", 0.0) != self._stage:  # its own best epoch counts, whatever came before
            self._stage, self._best = record["stage"], float("nan")
        if best:
            self._best = record[column(self._metric)]
        part = int(PARTS * record["epoch"] / self._epochs)
        if part > self._part and self._best == self._best:
            self._part = part
            values = [*self._before, self._best]
            self._trial.report(sum(values) / len(values), PARTS * len(self._before) + part)
            if self._trial.should_prune():
                raise optuna.TrialPruned
