"""Plan of a search: methods, their spaces, and the trainings that a trial is the mean of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator

from alignmamba.contracts import Config, Corpus
from alignmamba.data.clocks import clocks_of
from alignmamba.data.cross_validation import validation_folds, validation_units
from alignmamba.data.training_subset import subset_of
from alignmamba.errors import ConfigError
from alignmamba.evaluation.metrics import all_metric_names, metric_of
from alignmamba.extras import require
from alignmamba.methods import METHODS, REFERENCES
from alignmamba.methods.search_space import SHARED_SPACE, Names, SearchSpace
from alignmamba.recipes.assembly import check_pretrained, counted_weights, environment
from alignmamba.recipes.configuration import RunConfig, dotted, refuse_pretraining, resolve
from alignmamba.recipes.experiments.catalogue import compared_methods, not_compared
from alignmamba.recipes.experiments.experiment_kind import MethodsOptions, check_method, of_model
from alignmamba.recipes.finished_run import refuse_unlabelled
from alignmamba.recipes.preparation import Prepared, prepared, uncut
from alignmamba.recipes.run_directory import corpus_identity
from alignmamba.recipes.training_run import refuse_missing_extras
from alignmamba.recipes.tuning.tuning_directory import TuningDirectory, TuningRecord, checked_storage
from alignmamba.training.selection import VALIDATION_LOSS, selection

LARGE_VALID: Final = 200
"""Samples of a valid split from which a trial trains once by default."""
SMALL_FOLDS: Final = 5
"""Folds of train and valid by default where the valid split is smaller; of fewer groups, as many as these."""
SMALL_REPEATS: Final = 3
"""Trainings of a trial by default where neither is possible: all samples are of one group."""


class TuningOptions(Config):
    """Options of a search."""

    methods: tuple[str, ...] = ()
    """Methods, or sets of them; empty means `families`."""
    trials: Annotated[int, Field(ge=1, le=100_000)]
    """Trials of each method, over all workers together."""
    repeats: Annotated[int, Field(ge=1, le=100)] | None = None
    """Trainings under different seeds whose mean is the score of a trial; None: 1, or folds where the valid
    split is small.
    """
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Parts of train and valid that take turns as the valid split of a training; the score of a trial is the
    mean. None: none, or `SMALL_FOLDS` where the valid split is small.
    """

    @field_validator("methods")
    @classmethod
    def _known(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for name in methods:
            check_method(name)
            if name in REFERENCES or name == "references":
                raise ValueError(f"found {name!r}, which is solved on valid and has nothing to tune")
        return methods

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.repeats is not None and self.folds is not None:
            raise ValueError("folds: found repeats beside it, expected one of both")
        return self


@dataclass(frozen=True, kw_only=True)
class TuningPlan:
    """A search that is about to begin or to continue: everything is checked, nothing is written."""

    directory: Path
    record: TuningRecord
    """Facts that workers in one directory share."""
    spaces: Mapping[str, SearchSpace]
    """Method to what is searched of it."""
    repeats: tuple[Prepared, ...]
    """Trainings of a trial: settings of the run, and its corpus without a test split."""
    valid_samples: int
    """Samples that the score of a trial is over: of the valid split, or of train and valid in folds."""
    notes: tuple[str, ...] = ()

    @property
    def higher_is_better(self) -> bool:
        """True if a larger score is the better one."""
        return metric_of(self.record.metric).higher_is_better


def plan_tuning(
    asked: TuningOptions, base: RunConfig, *, out: str | Path, storage: str = "", command: Sequence[str] = ()
) -> TuningPlan:
    """Check everything about a search that can be checked before it starts. What `base` sets is held fixed.
    Raises a `ConfigError` for options, settings or packages, a `DataError` for the corpus, a
    `CheckpointError` for another thing at `out`.
    """
    require("tune", "tune", "optuna")
    refuse_missing_extras(base)
    _refuse_base(base)
    directory = TuningDirectory(Path(out))
    repeats, folds = trainings_of(base, directory.as_begun(asked.repeats, asked.folds))
    corpus, base = repeats[0].corpus, repeats[0].config
    refuse_unlabelled(corpus, ("train", "valid"))
    known = {name: metric_of(name).higher_is_better for name in all_metric_names(corpus.task)}
    metric = selection(base.fit.chosen_by, corpus.task, known)
    compared = MethodsOptions(models=asked.methods)
    methods = [name for name in compared_methods(compared, base, corpus) if name not in REFERENCES]
    given = base.model_dump(mode="json", exclude_unset=True, exclude={"data", "engine"})
    held = dict(dotted(given))
    held |= {f"targets.{name}.weight": each.weight for name, each in base.targets.items()}
    spaces = {name: space_of(name, base, corpus, held) for name in methods}
    record = TuningRecord.of(
        corpus=corpus_identity(corpus),
        held=held,
        metric=metric,
        repeats=len(repeats),
        folds=folds,
        seed=base.seed,
        trials=asked.trials,
        spaces={name: {key: str(each) for key, each in space.items()} for name, space in spaces.items()},
        storage=checked_storage(storage),
        command=list(command),
        environment=environment(),
    )
    directory.refuse_other(record)
    dropped = not_compared(compared, base, corpus)
    return TuningPlan(
        directory=Path(out),
        record=record,
        spaces=spaces,
        repeats=repeats,
        valid_samples=sum(len(each.corpus.split("valid")) for each in repeats[: folds or 1]),
        notes=(
            *repeats[0].notes,
            *(f"{name} is not tuned: {why}" for name, why in dropped.items()),
        ),
    )


def trainings_of(base: RunConfig, asked: tuple[int | None, int | None]) -> tuple[tuple[Prepared, ...], int]:
    """Trainings whose mean is the score of a trial, each a run with a corpus that has no test split, and the
    number of folds among them, 0 without. `asked` are repeats and folds; by default a small valid split asks
    for folds. A subset is cut from the train split of each fold.
    """
    first = _without_test(prepared(base))
    repeats, folds = asked
    valid = first.corpus.splits.get("valid", ())
    small = repeats is None and not folds and 0 < len(valid) < LARGE_VALID
    whole = uncut(base, first.corpus)
    number = min(SMALL_FOLDS, validation_units(whole)) if small else folds or 0
    parts = validation_folds(whole, number, seed=base.seed) if number > 1 else ()
    if parts and min(len(part.split("train")) for part in parts) >= base.subset.size:
        cut = [subset_of(part, base.subset).corpus if base.subset.size else part for part in parts]
        return tuple(
            replace(first, corpus=corpus, config=_seeded(first.config, number))
            for number, corpus in enumerate(cut)
        ), len(cut)
    if folds:
        raise ConfigError(
            f"folds: found {folds}, which leave fewer samples to learn from than subset.size="
            f"{base.subset.size}; take --repeats"
        )
    if small:
        repeats = SMALL_REPEATS
    others = range(1, repeats or 1)
    if base.split_valid is None:
        again = (replace(first, config=_seeded(first.config, number)) for number in others)
    else:
        again = (_without_test(prepared(_seeded(base, number))) for number in others)
    return (first, *again), 0


def _seeded(config: RunConfig, number: int) -> RunConfig:
    """The run under another seed; the first one is as it was, without a seed that nobody has set."""
    return config if not number else config.model_copy(update={"seed": config.seed + number})


def _without_test(made: Prepared) -> Prepared:
    splits = dict(made.corpus.splits)
    splits.pop("test", None)
    return replace(made, corpus=replace(made.corpus, splits=splits))


def _refuse_base(base: RunConfig) -> None:
    refuse_pretraining(base, "a search")
    if base.model != RunConfig.model_fields["model"].default:
        raise ConfigError(f"model: found {base.model!r}, but --methods names what is tuned")
    if base.fit.select == VALIDATION_LOSS:
        raise ConfigError(
            "fit.select: found 'loss', expected a metric; losses under different weights cannot be compared"
        )
    if base.folds.number:
        raise ConfigError("folds: a search would train on samples of test, which folds are dealt from too")
    if base.engine.devices * base.engine.num_nodes > 1:
        raise ConfigError(
            f"engine: found {base.engine.devices * base.engine.num_nodes} processes, expected 1; start"
            " more workers instead"
        )


def space_of(name: str, base: RunConfig, corpus: Corpus, held: Mapping[str, object]) -> SearchSpace:
    """Settings that are searched of a method: the shared ones that it has and its own, without those that are
    held. A `ConfigError` names a method that cannot be trained on the corpus.
    """
    method = METHODS[name]
    try:
        config = resolve(of_model(base, name), corpus)
        counted_weights(config, corpus)  # refuses more than this machine holds
        check_pretrained(config, corpus)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    known = dict(dotted(config.model_dump(mode="json")))
    fixed = {*held, *(key for key, _ in dotted(method.required))}
    unit = "options.local.time_unit"
    timeless = config.options.get("timeless", ())
    if unit in method.search and not clocks_of(corpus, timeless=timeless).samples:
        fixed.add(unit)  # without two clocks both units are one
    # The first trial has the defaults, and a few lie outside, such as the small batches of a small corpus.
    shared = {key: values.including(known[key]) for key, values in SHARED_SPACE.items() if key in known}
    declared: SearchSpace = {**shared, **method.search}
    if corpus.recipe and unit in declared:
        declared = {**declared, unit: Names(("relative", "spans"))}
    space = {
        key: values
        for key, values in declared.items()
        if key in known and not any(key == each or key.startswith(f"{each}.") for each in fixed)
    }
    if not space:
        raise ConfigError(f"{name}: every setting of its search space is held; nothing is left to search")
    return space


def defaults_of(name: str, plan: TuningPlan) -> dict[str, float | str]:
    """Settings of the first trial: the method's defaults, or the nearest that its space has."""
    first = plan.repeats[0]
    known = dict(dotted(resolve(of_model(first.config, name), first.corpus).model_dump(mode="json")))
    return {key: values.nearest(known[key]) for key, values in plan.spaces[name].items()}
