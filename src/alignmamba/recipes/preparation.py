"""Preparation of a corpus for training: its valid split, its modalities, notes on them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from alignmamba.contracts import ROLES, Corpus, Role
from alignmamba.data.cross_validation import Fold, fold_of, joined
from alignmamba.data.further_targets import FurtherConfig, left_of, with_further
from alignmamba.data.labelled_splits import absent_classes_note, samples_by_class
from alignmamba.data.leading_target import several_labels
from alignmamba.data.standardise import finite_means
from alignmamba.data.training_subset import Subset, SubsetConfig, subset_of
from alignmamba.data.validation import TrainSamples, ValidShare
from alignmamba.data.views import unlabelled
from alignmamba.errors import CheckpointError, ConfigError, DataError
from alignmamba.methods import REFERENCES
from alignmamba.recipes.assembly import check_unchanged, corpus_in, located, restricted
from alignmamba.recipes.configuration import SYNTHETIC, RunConfig
from alignmamba.recipes.run_directory import RunDirectory

SPLIT_VALID = "split_valid"
"""Key of ``run.json`` with the facts of a valid split that was drawn."""
FOLD = "fold"
"""Key of ``run.json`` with the facts of splits that were dealt."""
SUBSET = "subset"
"""Key of ``run.json`` with the facts of a part of train."""
_CALLED = {SPLIT_VALID: "valid split", FOLD: "splits", SUBSET: "subset"}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A corpus that a run can be trained on, and the settings that make it again."""

    config: RunConfig
    """Corpus with the modalities that are left, where some cannot be learned."""
    corpus: Corpus
    notes: tuple[str, ...] = ()
    """Notes on what training does differently than expected, in sentences."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Record in ``run.json`` of it."""


def prepared(config: RunConfig, *, seeds: Iterable[int] = ()) -> Prepared:
    """Load a corpus, perhaps a foreign file, and make it fit for training under this and other `seeds`.
    Raises a `ConfigError` or a `DataError` for a split or a modality that cannot be had.
    """
    place = located(config.data, config.nonfinite, labels=config.leading.labels)
    config = config.model_copy(update={"data": place})
    if config.folds.number and config.split_valid is not None:
        raise ConfigError("split_valid: a fold has a valid split of its own; drop split_valid or folds")
    if _is_divided(config):
        whole, made = _with_own_splits(config, config.data, seeds=seeds)
    else:
        whole = corpus_in(config.data, config.nonfinite, leading=config.leading)
        _refuse_without_valid(whole)
        made = _Divided(corpus=whole, steps={})
    corpus, notes = made.corpus, list(made.notes)
    if len(config.leading.labels) > 1:
        notes.append(several_labels(corpus.task))
    identity: dict[str, Any] = {key: step.facts for key, step in made.steps.items()}
    absent = untrained_modalities(whole)
    asked = [name for name in absent if name in config.modalities]
    if asked:
        rest = [name for name in _names(whole) if name not in absent]
        raise ConfigError(
            f"modalities: no training sample of corpus {whole.name!r} has {asked[0]!r}, expected some"
            f" of {', '.join(rest)}"
        )
    restricted(whole, config.modalities)  # refuses names that are not there
    if absent and not config.modalities:
        config = of_modalities(config, tuple(name for name in _names(whole) if name not in absent))
        identity["untrained_modalities"] = list(absent)
        notes.append(_left_out(absent, whole, restricted(whole, config.modalities)))
    for role in ("valid", "test"):
        unseen = [
            name
            for name in config.modalities or _names(whole)
            if role in corpus.splits and not _has(corpus, role, name)
        ]
        if unseen:
            notes.append(f"no sample of {role} has {' or '.join(unseen)}, so {role} does not measure it")
    if "test" not in corpus.splits and config.objective == "task":
        notes.append(
            f"corpus {corpus.name!r} has no split 'test': scores are of 'valid', on which the best epoch is"
            " chosen"
        )
    # a subset has a note of its own
    if config.objective == "task" and corpus.task.classes and SUBSET not in made.steps:
        counts = samples_by_class(corpus.task, (sample.target for sample in corpus.split("train")))
        notes += filter(None, [absent_classes_note(corpus.task, counts)])
    return Prepared(config=config, corpus=_asked(corpus, config), notes=tuple(notes), identity=identity)


def uncut(config: RunConfig, corpus: Corpus) -> Corpus:
    """The prepared corpus of a run as it is before a part of train is taken."""
    if not config.subset.size:
        return corpus
    return prepared(config.model_copy(update={"subset": SubsetConfig()})).corpus


def as_trained(run: RunDirectory, config: RunConfig, corpus: Corpus) -> Corpus:
    """The corpus of a run as it was trained on: with its own splits, which repeat, and its modalities."""
    if _is_divided(config):
        made = _divided(corpus, config)
        _check_steps(run, made)
        corpus = made.corpus
    return _asked(corpus, config)


def training_corpus(run: RunDirectory, config: RunConfig, data: str) -> Corpus:
    """The corpus that an unfinished run is resumed on, from where it lies now; a `CheckpointError` if it is
    another.
    """
    place = located(data, config.nonfinite, labels=config.leading.labels)
    if not _is_divided(config):
        corpus = corpus_in(place, config.nonfinite, leading=config.leading)
        check_unchanged(run, corpus, config)
    else:
        _, made = _with_own_splits(config, place, run=run)
        _check_steps(run, made)
        corpus = made.corpus
    return _asked(corpus, config)


def _asked(corpus: Corpus, config: RunConfig) -> Corpus:
    """The corpus with the modalities and the further targets of a run; without labels where it learns from
    none.
    """
    if config.objective == "pretrain":
        return unlabelled(restricted(corpus, config.modalities))
    return with_further(seen_by(config, corpus), config.targets)


def seen_by(config: RunConfig, corpus: Corpus) -> Corpus:
    """The corpus with the modalities of a run alone, and with those further targets of its task that the run
    can have: none that belong to other modalities or to their tokens, and none at all for references.
    """
    seen = restricted(corpus, config.modalities)
    names = {None, *_names(seen)}
    lone = config.model in REFERENCES
    further = tuple(each for each in seen.task.further if {each.modality, each.tokens} <= names and not lone)
    return replace(seen, task=seen.task.model_copy(update={"further": further}))


def narrowed(config: RunConfig, corpus: Corpus, names: tuple[str, ...]) -> tuple[RunConfig, Corpus]:
    """The same run and its corpus with these modalities alone.

    A target of tokens whose modality is not among them is one of the tokens of another that have such a
    label, and dropped where there is none.
    """
    run = of_modalities(config, names)
    left = seen_by(run, corpus)
    kept = {target.name for target in left.task.further}
    found = left_of(left, {name: given for name, given in run.targets.items() if name not in kept})
    targets = {name: given for name, given in run.targets.items() if name in kept or name in found}
    run = run.model_copy(update={"targets": config.targets})
    return with_targets(run, targets), with_further(left, found)


def with_targets(config: RunConfig, targets: Mapping[str, FurtherConfig]) -> RunConfig:
    """The same run with these further targets. A metric of another that selects the epoch becomes auto."""
    name = config.fit.select.partition(".")[0]
    lost = name in config.targets and name not in targets
    fit = config.fit.model_copy(update={"select": "auto"} if lost else {})
    return config.model_copy(update={"targets": dict(targets), "fit": fit})


def untrained_modalities(corpus: Corpus) -> tuple[str, ...]:
    """Modalities that no training sample has, of which a model can learn nothing."""
    corpus.split("train")  # refuses a corpus that has none
    return tuple(name for name in _names(corpus) if not _has(corpus, "train", name))


def of_modalities(config: RunConfig, names: tuple[str, ...]) -> RunConfig:
    """The same run with these modalities alone; what its options say about others is dropped, as are further
    targets that belong to others or to their tokens.
    """
    options = dict(config.options)
    if "encoders" in options:
        options["encoders"] = {name: value for name, value in options["encoders"].items() if name in names}
    if "anchor_order" in options:
        options["anchor_order"] = [name for name in options["anchor_order"] if name in names]
    left = (None, *names)
    targets = {
        name: given
        for name, given in config.targets.items()
        if given.modality in left and given.tokens in left
    }
    return config.model_copy(update={"modalities": names, "options": options, "targets": targets})


def _names(corpus: Corpus) -> list[str]:
    return [spec.name for spec in corpus.modalities]


def _has(corpus: Corpus, role: Role, name: str) -> bool:
    return bool(corpus.splits[role].lengths[name].any())


def _is_divided(config: RunConfig) -> bool:
    """True where a run makes splits of its own."""
    return config.split_valid is not None or config.folds.number > 0 or config.subset.size > 0


@dataclass(frozen=True, kw_only=True)
class _Divided:
    """A corpus with the splits of a run, and the steps that made them."""

    corpus: Corpus
    steps: Mapping[str, ValidShare | Fold | Subset]
    """Key of ``run.json`` to what was done, in order."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of all steps."""
        return tuple(note for step in self.steps.values() for note in step.notes)


def _divided(corpus: Corpus, config: RunConfig) -> _Divided:
    """The corpus with the splits of the run: dealt or drawn first, then cut."""
    steps: dict[str, ValidShare | Fold | Subset] = {}
    if config.folds.number:
        steps[FOLD] = fold_of(corpus, config.folds)
    elif config.split_valid is not None:
        steps[SPLIT_VALID] = TrainSamples.of(corpus).split(config.split_valid, seed=config.seed)
    for step in steps.values():
        corpus = step.corpus
    if config.subset.size:
        _refuse_without_valid(corpus)
        steps[SUBSET] = subset_of(corpus, config.subset)
        corpus = steps[SUBSET].corpus
    return _Divided(corpus=corpus, steps=steps)


def _refuse_without_valid(corpus: Corpus) -> None:
    if "valid" not in corpus.splits and "train" in corpus.splits:
        there = ", ".join(repr(role) for role in ROLES if role in corpus.splits)
        raise DataError(
            f"corpus {corpus.name!r} has no split 'valid', only {there}; --split-valid 0.15"
            " (split_valid=0.15) takes it from train"
        )


def _check_steps(run: RunDirectory, made: _Divided) -> None:
    """Refuse other draws than those of training, as another version might make them."""
    for key, step in made.steps.items():
        expected = run.identity().get(key)
        if expected != step.facts:
            raise CheckpointError(
                f"run {run.path}: its {_CALLED[key]} cannot be repeated: found {dict(step.facts)}, expected"
                f" {expected}"
            )


def _with_own_splits(
    config: RunConfig, place: str, *, seeds: Iterable[int] = (), run: RunDirectory | None = None
) -> tuple[Corpus, _Divided]:
    """The corpus, all of it train where it is dealt into folds, and the same with the splits of the run;
    other seeds are only checked.
    """
    by_means = config.nonfinite == "mean" and place != SYNTHETIC
    # Means stand in for values that are not finite: they have to be those of the samples that are left to
    # train on.
    leading = config.leading
    corpus = corpus_in(place, config.nonfinite, leading=leading, means={} if by_means else None)
    if run is not None:
        check_unchanged(run, corpus, config)
    if config.split_valid is not None:
        samples = TrainSamples.of(corpus)
        for seed in seeds:
            samples.split(config.split_valid, seed=seed)
    made = _divided(corpus, config)
    if by_means:
        means = finite_means(made.corpus.split("train"), corpus.modalities)
        corpus = corpus_in(place, "mean", leading=leading, means=means)
        made = _divided(corpus, config)
    return (joined(corpus) if config.folds.number else corpus), made


def _left_out(absent: Collection[str], whole: Corpus, left: Corpus) -> str:
    """Note on modalities that no training sample has."""
    names = " and ".join(absent)
    counts = {
        role: len(whole.splits[role]) - len(left.splits[role]) for role in ROLES if role in whole.splits
    }
    lost = " and ".join(f"{count} of {role}" for role, count in counts.items() if count)
    samples = f"; samples without any other modality are dropped: {lost}" if lost else ""
    return (
        f"no training sample has {names}, so the model is trained without"
        f" {'it' if len(absent) == 1 else 'them'}{samples}"
    )
