"""The paper's experiments as grids of runs. A new one is a function that lays out its cells and a line in `GRIDS`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from alignmamba.contracts import Config, Corpus
from alignmamba.data.missing import MissingConfig
from alignmamba.errors import ConfigError, nearest
from alignmamba.methods import FAMILIES, METHODS, SETS
from alignmamba.models.network import merged
from alignmamba.models.pretrained import validated
from alignmamba.recipes.assembly import restricted
from alignmamba.recipes.configuration import RunConfig, model_config
from alignmamba.recipes.experiments.cells import Analysis, Cell, cell
from alignmamba.recipes.preparation import of_modalities

ExperimentName = Literal["comparison", "missing", "ablation", "distance", "plans", "efficiency"]


class ExperimentConfig(Config):
    """What an experiment varies; everything else comes from the settings of a run."""

    name: ExperimentName
    """Which experiment."""
    models: tuple[str, ...] = ()
    """Methods that ``comparison`` and ``missing`` compare, sets of them among these (`methods.SETS`); empty means the families."""
    own_settings: bool = False
    """Train each method with the settings it was published with, in place of the ones that all share."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 5
    """Runs of each cell, with the seeds 0, 1, and so on."""
    protocol: Literal["gcnet", "imder-sample", "imder-batch", "tokens"] = "gcnet"
    """How ``missing`` withholds modalities."""
    rates: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1)] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    """Missing rates of ``missing``."""
    mixed: bool = False
    """In ``missing``, train once on all rates mixed and score at each, instead of training at each."""
    samples: tuple[str, ...] = ()
    """Test samples that ``plans`` shows; empty means those predicted best and worst."""


def cells_of(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> list[Cell]:
    """All cells of an experiment on a corpus, in the order in which they are run: seed by seed, so that a stopped grid is balanced.

    Args:
        experiment: What is varied.
        base: Settings of every run. Options that a model does not have are left out for it.
        corpus: With the modalities that are asked for; a cell may take some of them.

    Raises:
        ConfigError: If a model is unknown, an option does not fit, or the settings say what the grid is to say.
    """
    if base.seed:
        raise ConfigError(f"seed: found {base.seed}, but the grid gives every run its own; take --seeds")
    if experiment.name == "missing" and base.missing.protocol != "none":
        raise ConfigError("missing: the grid gives every run its own; take --protocol and --rates")
    for name in experiment.models:
        if name not in METHODS and name not in SETS:
            known = (*METHODS, *SETS)
            raise ConfigError(f"models: found {name!r}, expected some of {', '.join(known)}{nearest(name, known)}")
    lay_out = GRIDS[experiment.name]
    experiment = experiment.model_copy(update={"models": _models(experiment, base, corpus)})
    return [each for seed in range(experiment.seeds) for each in lay_out(experiment, base.model_copy(update={"seed": seed}), corpus)]


def _comparison(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
    """Table 2: every model with all modalities, then each modality alone."""
    for name in experiment.models:
        yield cell(name, of_model(base, name, own_settings=experiment.own_settings), corpus)
    if len(corpus.modalities) > 1:
        for modality in corpus.modalities:
            yield from _with_modalities(f"{modality.name} alone", base, corpus, (modality.name,))


def _missing(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
    """Table 1: every model at every missing rate, trained at that rate or once on all of them."""
    for name in experiment.models:
        for rate in rates_of(experiment, corpus):
            column = f"{100 * rate:g} %"
            missing = _withheld(experiment, rate)
            if experiment.mixed:
                trained = _withheld(experiment, rates_of(experiment, corpus))
                analysis = Analysis(kind="missing", missing=missing)
                config = of_model(base, name, own_settings=experiment.own_settings).model_copy(update={"missing": trained})
                yield cell(
                    name,
                    config,
                    corpus,
                    column=column,
                    analyses=[analysis],
                    predictions=f"analysis/{analysis.name}/predictions_missing.csv",
                )
            else:
                yield cell(
                    name,
                    of_model(base, name, own_settings=experiment.own_settings).model_copy(update={"missing": missing}),
                    corpus,
                    column=column,
                )


def _models(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> tuple[str, ...]:
    """The methods that were asked for, without those of a set that have no answer to the corpus."""
    asked = dict.fromkeys(name for given in experiment.models or ("families",) for name in SETS.get(given, (given,)))
    without = not_compared(experiment, base, corpus)
    if experiment.name in ("comparison", "missing") and without and asked.keys() <= without.keys():
        name, why = next(iter(without.items()))
        raise ConfigError(f"models: none of {', '.join(experiment.models)} can be trained here; {name}: {why}")
    return tuple(name for name in asked if name not in without)


def not_compared(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> dict[str, str]:
    """Methods of the sets that were asked for which cannot be trained, each with the reason.

    The corpus may not suit them, and outside the families the settings that all share may not.
    One that was asked for by its name is not among them: its refusal is the user's answer.
    """
    if experiment.name not in ("comparison", "missing"):
        return {}
    named = {name for name in experiment.models if name in METHODS}
    reasons: dict[str, str] = {}
    for given in experiment.models or ("families",):
        for name in SETS.get(given, ()):
            if name in named:
                continue
            try:
                model_config(RunConfig(model=name), corpus)
                if name not in FAMILIES:  # of a family, what the user has set is refused by the name of its row
                    model_config(of_model(base, name, own_settings=experiment.own_settings), corpus)
            except ConfigError as error:
                reasons[name] = str(error)
    return reasons


def rates_of(experiment: ExperimentConfig, corpus: Corpus) -> tuple[float, ...]:
    """The missing rates that differ: from 1 - 1/M on, GCNet's rule keeps one of M modalities, and a higher rate changes nothing."""
    if experiment.protocol != "gcnet":
        return experiment.rates
    most = 1 - 1 / len(corpus.modalities)
    beyond = [rate for rate in experiment.rates if rate >= most - 1e-9]
    return tuple(rate for rate in experiment.rates if rate < most - 1e-9 or rate == min(beyond))


def _withheld(experiment: ExperimentConfig, rate: float | tuple[float, ...]) -> MissingConfig:
    return validated(MissingConfig, {"protocol": experiment.protocol, "rate": rate})


def _ablation(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
    """Table 3: the model, its own ablations, and the model without each modality; the anchor falls back by itself."""
    del experiment
    yield cell("full", base, corpus)
    for row, changes in METHODS[base.model].network.ablations.items():
        yield cell(row, _changed(base, changes), corpus)
    names = [modality.name for modality in corpus.modalities]
    if len(names) > 1:
        for left_out in names:
            yield from _with_modalities(f"w/o {left_out}", base, corpus, tuple(name for name in names if name != left_out))


def _distance(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
    """Table 4: the model and those of its ablations that change its alignment."""
    del experiment
    analyses = [Analysis(kind="distance")]
    yield cell("full", base, corpus, analyses=analyses)
    for row, changes in METHODS[base.model].network.ablations.items():
        if "model" not in changes:
            yield cell(row, _changed(base, changes), corpus, analyses=analyses)


def _plans(experiment: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
    """Figure 5: the model's transport plans."""
    yield cell("full", base, corpus, analyses=[Analysis(kind="plans", samples=experiment.samples)])


GRIDS: Final[Mapping[str, Callable[[ExperimentConfig, RunConfig, Corpus], Iterator[Cell]]]] = {
    "comparison": _comparison,
    "missing": _missing,
    "ablation": _ablation,
    "distance": _distance,
    "plans": _plans,
}
"""Experiment to its cells for one seed, which the configuration holds; ``efficiency`` has no runs and is measured by `recipes.bench`."""


def of_model(base: RunConfig, name: str, *, own_settings: bool = False) -> RunConfig:
    """The same run with another model; of the options, the preset's among them, it has those that it knows.

    Args:
        base: The run.
        name: Of the model.
        own_settings: Take the settings that it was published with where they differ.
    """
    method = METHODS[name]
    run = base if name == base.model else _other(base, name)
    laid = merged(method.settings if own_settings else {}, method.required)
    return RunConfig(**merged(run.model_dump(), laid)) if laid else run


def _other(base: RunConfig, name: str) -> RunConfig:
    known = METHODS[name].network.config_class.model_fields
    given = merged(METHODS[base.model].network.config_class.PRESETS[base.preset], base.options)
    options = {key: value for key, value in given.items() if key in known}
    return base.model_copy(update={"model": name, "preset": "default", "options": options})


def _changed(base: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A run with an ablation's model and options laid over its own."""
    other = of_model(base, changes.get("model", base.model))
    return other.model_copy(update={"options": merged(other.options, changes.get("options", {}))})


def _with_modalities(row: str, base: RunConfig, corpus: Corpus, names: tuple[str, ...]) -> Iterator[Cell]:
    """A cell that takes some modalities alone, none where no sample of a split has them; what the options say of others is left out."""
    if all(any(split.lengths[name].any() for name in names) for split in corpus.splits.values()):
        yield cell(row, of_modalities(base, names), restricted(corpus, names))
