"""All experiments, and the cells of one that was asked for."""

from collections.abc import Mapping
from typing import Final

from alignmamba.contracts import Corpus
from alignmamba.errors import ConfigError, nearest
from alignmamba.methods import FAMILIES, METHODS, SETS
from alignmamba.recipes.configuration import RunConfig, model_config
from alignmamba.recipes.experiments.ablation import Ablation
from alignmamba.recipes.experiments.cells import Cell
from alignmamba.recipes.experiments.comparison import Comparison
from alignmamba.recipes.experiments.distance import Distance
from alignmamba.recipes.experiments.experiment import Experiment, ExperimentConfig, of_model
from alignmamba.recipes.experiments.missing import Missing
from alignmamba.recipes.experiments.plans import Plans

EXPERIMENTS: Final[Mapping[str, Experiment]] = {
    experiment.name: experiment for experiment in (Comparison(), Missing(), Ablation(), Distance(), Plans())
}
"""Every grid of runs by its name; ``efficiency`` has no runs and is measured by `recipes.bench`."""


def cells_of(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> list[Cell]:
    """All cells of an experiment on a corpus, in the order in which they are run: seed by seed, so that a
    stopped grid is balanced.

    Args:
        experiment: What is varied.
        base: Settings of every run. Options that a model does not have are left out for it.
        corpus: With the modalities that are asked for; a cell may take some of them.

    Raises:
        ConfigError: If a model is unknown, an option does not fit, or the settings say what the grid is to
            say.
    """
    if experiment.name not in EXPERIMENTS:
        raise ConfigError(f"experiment: found {experiment.name!r}, expected one of {', '.join(EXPERIMENTS)}")
    if base.seed:
        raise ConfigError(f"seed: found {base.seed}, but the grid gives every run its own; take --seeds")
    if experiment.name == "missing" and base.missing.protocol != "none":
        raise ConfigError("missing: the grid gives every run its own; take --protocol and --rates")
    for name in experiment.models:
        if name not in METHODS and name not in SETS:
            known = (*METHODS, *SETS)
            raise ConfigError(
                f"models: found {name!r}, expected some of {', '.join(known)}{nearest(name, known)}"
            )
    lay_out = EXPERIMENTS[experiment.name].cells
    experiment = experiment.model_copy(update={"models": _models(experiment, base, corpus)})
    return [
        each
        for seed in range(experiment.seeds)
        for each in lay_out(experiment, base.model_copy(update={"seed": seed}), corpus)
    ]


def _models(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> tuple[str, ...]:
    """The methods that were asked for, without those of a set that have no answer to the corpus."""
    asked = dict.fromkeys(
        name for given in experiment.models or ("families",) for name in SETS.get(given, (given,))
    )
    without = not_compared(experiment, base, corpus)
    if EXPERIMENTS[experiment.name].compares_methods and without and asked.keys() <= without.keys():
        name, why = next(iter(without.items()))
        raise ConfigError(
            f"models: none of {', '.join(experiment.models)} can be trained here; {name}: {why}"
        )
    return tuple(name for name in asked if name not in without)


def not_compared(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> dict[str, str]:
    """Methods of the sets that were asked for which cannot be trained, each with the reason.

    The corpus may not suit them, and outside the families the settings that all share may not.
    One that was asked for by its name is not among them: its refusal is the user's answer.
    """
    if not EXPERIMENTS[experiment.name].compares_methods:
        return {}
    named = {name for name in experiment.models if name in METHODS}
    reasons: dict[str, str] = {}
    for given in experiment.models or ("families",):
        for name in SETS.get(given, ()):
            if name in named:
                continue
            try:
                model_config(RunConfig(model=name), corpus)
                # of a family, what the user has set is refused by the name of its row
                if name not in FAMILIES:
                    model_config(of_model(base, name, own_settings=experiment.own_settings), corpus)
            except ConfigError as error:
                reasons[name] = str(error)
    return reasons
