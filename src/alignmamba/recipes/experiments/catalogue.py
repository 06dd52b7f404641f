"""All experiments, and the cells of one that was asked for."""

import json
from typing import Any, Final

from pydantic.fields import FieldInfo

from alignmamba.contracts import Config, Corpus
from alignmamba.errors import ConfigError, shown
from alignmamba.methods import FAMILIES, METHODS, SETS
from alignmamba.recipes.configuration import RunConfig, model_config
from alignmamba.recipes.experiments.ablation import Ablation
from alignmamba.recipes.experiments.cells import Analysis, Cell
from alignmamba.recipes.experiments.comparison import Comparison
from alignmamba.recipes.experiments.distance import Distance
from alignmamba.recipes.experiments.efficiency import Efficiency
from alignmamba.recipes.experiments.experiment_kind import (
    Experiment,
    GridExperiment,
    GridOptions,
    MethodsOptions,
    of_model,
)
from alignmamba.recipes.experiments.missing import Missing
from alignmamba.recipes.experiments.plans import Plans
from alignmamba.recipes.experiments.sizes import Sizes

EXPERIMENTS: Final[dict[str, Experiment[Any]]] = {
    experiment.name: experiment
    for experiment in (Comparison(), Sizes(), Missing(), Ablation(), Distance(), Plans(), Efficiency())
}
"""Every experiment by its name, the only list of them."""


def grids() -> dict[str, GridExperiment[Any, Any]]:
    """Those that are a grid of runs, by name."""
    return {name: each for name, each in EXPERIMENTS.items() if isinstance(each, GridExperiment)}


def grid_of(options: GridOptions) -> GridExperiment[Any, Any]:
    """The experiment whose options these are."""
    return next(each for each in grids().values() if each.options is type(options))


def any_option() -> dict[str, FieldInfo]:
    """Every option of any experiment by name; a `TypeError` where two disagree or one has no default."""
    found: dict[str, FieldInfo] = {}
    for config in (each.options for each in EXPERIMENTS.values()):
        for name, info in config.model_fields.items():
            known = found.setdefault(name, info)
            if info.is_required() or (known.annotation, known.default) != (info.annotation, info.default):
                raise TypeError(f"{config.__name__}.{name}: expected a default, and the same as elsewhere")
    return found


def takers(option: str) -> tuple[str, ...]:
    """Names of the experiments that take an option, none where every grid does."""
    if option in GridOptions.model_fields:
        return ()
    return tuple(name for name, each in EXPERIMENTS.items() if option in each.options.model_fields)


def analysis_from(values: object) -> Analysis:
    """An analysis as the file of a cell holds it, without fields that version 0.1 wrote for other
    experiments; refused by a `ValueError` otherwise.
    """
    kinds: dict[str, type[Analysis]] = {name: each.analysis for name, each in grids().items()}
    if not isinstance(values, dict) or values.get("kind") not in kinds:
        raise ValueError(f"expected an analysis of one kind of {', '.join(kinds)}, found {shown(values)}")
    analysis = kinds[values["kind"]]
    own = {name: value for name, value in values.items() if name in analysis.model_fields}
    return analysis.model_validate_json(json.dumps(own), strict=True)


def cells_of(options: GridOptions, base: RunConfig, corpus: Corpus) -> list[Cell]:
    """All cells of an experiment, seed by seed so that a stopped grid is balanced. Options of `base` that a
    model lacks are dropped for it; a `ConfigError` if one does not fit, or says what the grid is to say.
    """
    if base.seed:
        raise ConfigError(f"seed: found {base.seed}, but the grid gives every run its own; take --seeds")
    if base.folds.number and not options.folds:
        raise ConfigError(f"folds.number: found {base.folds.number}, but the grid deals folds; take --folds")
    experiment = grid_of(options)
    experiment.check(options, corpus)
    if isinstance(options, MethodsOptions):
        options = options.model_copy(update={"models": compared_methods(options, base, corpus)})
    return list(experiment.seeded_cells(options, base, corpus))


def compared_methods(options: MethodsOptions, base: RunConfig, corpus: Corpus) -> tuple[str, ...]:
    """The methods that were asked for, without those of a set that have no answer to the corpus."""
    asked = dict.fromkeys(name for given in _asked(options) for name in SETS.get(given, (given,)))
    without = not_compared(options, base, corpus)
    if without and asked.keys() <= without.keys():
        name, why = next(iter(without.items()))
        raise ConfigError(
            "models: expected one that can be trained here, found only"
            f" {', '.join(options.models)};"
            f" {name}: {why}"
        )
    return tuple(name for name in asked if name not in without)


def _asked(options: MethodsOptions) -> tuple[str, ...]:
    return options.models or ("families",)


def not_compared(options: Config, base: RunConfig, corpus: Corpus) -> dict[str, str]:
    """Methods of sets that were asked for which the corpus, or outside the families the shared settings, do
    not suit, each with the reason. One that was asked for by its name is refused instead.
    """
    if not isinstance(options, MethodsOptions):
        return {}
    named = {name for name in options.models if name in METHODS}
    reasons: dict[str, str] = {}
    for name in (each for given in _asked(options) for each in SETS.get(given, ()) if each not in named):
        try:
            model_config(RunConfig(model=name), corpus)
            # of a family, what the user has set is refused by the name of its row
            if name not in FAMILIES:
                model_config(of_model(base, name, own_settings=options.own_settings), corpus)
        except ConfigError as error:
            reasons[name] = str(error)
    return reasons
