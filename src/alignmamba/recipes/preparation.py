"""Preparation of a corpus for training: its valid split, its modalities, notes on them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignmamba.contracts import ROLES, Corpus, Role
from alignmamba.data.cross_validation import Fold, fold_of, joined
from alignmamba.data.standardise import finite_means
from alignmamba.data.validation import TrainSamples, ValidShare
from alignmamba.errors import CheckpointError, ConfigError, DataError
from alignmamba.recipes.assembly import check_unchanged, corpus_in, located, restricted
from alignmamba.recipes.configuration import SYNTHETIC, RunConfig
from alignmamba.recipes.run_directory import RunDirectory

SPLIT_VALID = "split_valid"
"""Key of ``run.json`` with the facts of a valid split that was drawn."""
FOLD = "fold"
"""Key of ``run.json`` with the facts of splits that were dealt."""


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
    config = config.model_copy(update={"data": located(config.data, config.nonfinite)})
    if config.folds.number and config.split_valid is not None:
        raise ConfigError("split_valid: a fold has a valid split of its own; drop split_valid or folds")
    share: ValidShare | Fold | None
    if not _is_divided(config):
        whole = corpus = corpus_in(config.data, config.nonfinite)
        if "valid" not in corpus.splits and "train" in corpus.splits:
            there = ", ".join(repr(role) for role in ROLES if role in corpus.splits)
            raise DataError(
                f"corpus {corpus.name!r} has no split 'valid', only {there}; --split-valid 0.15"
                " (split_valid=0.15) takes it from train"
            )
        share, identity = None, dict[str, Any]()
    else:
        whole, share = _with_own_splits(config, config.data, seeds=seeds)
        corpus, identity = share.corpus, {_recorded_as(config): share.facts}
    notes = [] if share is None else list(share.notes)
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
    if "test" not in corpus.splits:
        notes.append(
            f"corpus {corpus.name!r} has no split 'test': scores are of 'valid', on which the best epoch is"
            " chosen"
        )
    return Prepared(
        config=config, corpus=restricted(corpus, config.modalities), notes=tuple(notes), identity=identity
    )


def as_trained(run: RunDirectory, config: RunConfig, corpus: Corpus) -> Corpus:
    """The corpus of a run as it was trained on: with its own splits, which repeat, and its modalities."""
    if _is_divided(config):
        _check_share(run, config, share := _divided(corpus, config))
        corpus = share.corpus
    return restricted(corpus, config.modalities)


def training_corpus(run: RunDirectory, config: RunConfig, data: str) -> Corpus:
    """The corpus that an unfinished run is resumed on, from where it lies now; a `CheckpointError` if it is
    another.
    """
    place = located(data, config.nonfinite)
    if not _is_divided(config):
        corpus = corpus_in(place, config.nonfinite)
        check_unchanged(run, corpus, config)
    else:
        _, share = _with_own_splits(config, place, run=run)
        _check_share(run, config, share)
        corpus = share.corpus
    return restricted(corpus, config.modalities)


def untrained_modalities(corpus: Corpus) -> tuple[str, ...]:
    """Modalities that no training sample has, of which a model can learn nothing."""
    corpus.split("train")  # refuses a corpus that has none
    return tuple(name for name in _names(corpus) if not _has(corpus, "train", name))


def of_modalities(config: RunConfig, names: tuple[str, ...]) -> RunConfig:
    """The same run with these modalities alone; what its options say about others is dropped."""
    options = dict(config.options)
    if "encoders" in options:
        options["encoders"] = {name: value for name, value in options["encoders"].items() if name in names}
    if "anchor_order" in options:
        options["anchor_order"] = [name for name in options["anchor_order"] if name in names]
    return config.model_copy(update={"modalities": names, "options": options})


def _names(corpus: Corpus) -> list[str]:
    return [spec.name for spec in corpus.modalities]


def _has(corpus: Corpus, role: Role, name: str) -> bool:
    return bool(corpus.splits[role].lengths[name].any())


def _is_divided(config: RunConfig) -> bool:
    """True where a run makes splits of its own."""
    return config.split_valid is not None or config.folds.number > 0


def _recorded_as(config: RunConfig) -> str:
    """Key of ``run.json`` with the facts of these splits."""
    return FOLD if config.folds.number else SPLIT_VALID


def _divided(corpus: Corpus, config: RunConfig) -> ValidShare | Fold:
    """The corpus with the splits of the run."""
    if config.folds.number:
        return fold_of(corpus, config.folds)
    assert config.split_valid is not None
    return TrainSamples.of(corpus).split(config.split_valid, seed=config.seed)


def _check_share(run: RunDirectory, config: RunConfig, share: ValidShare | Fold) -> None:
    """Refuse another draw than that of training, as another version might make it."""
    expected = run.identity().get(_recorded_as(config))
    if expected != share.facts:
        which = "splits" if config.folds.number else "valid split"
        raise CheckpointError(
            f"run {run.path}: its {which} cannot be repeated: found {dict(share.facts)}, expected {expected}"
        )


def _with_own_splits(
    config: RunConfig, place: str, *, seeds: Iterable[int] = (), run: RunDirectory | None = None
) -> tuple[Corpus, ValidShare | Fold]:
    """The corpus, all of it train where it is dealt into folds, and the same with the splits of the run;
    other seeds are only checked.
    """
    by_means = config.nonfinite == "mean" and place != SYNTHETIC
    # Means stand in for values that are not finite: they have to be those of the samples that are left to
    # train on.
    corpus = corpus_in(place, config.nonfinite, means={} if by_means else None)
    if run is not None:
        check_unchanged(run, corpus, config)
    if config.split_valid is not None:
        samples = TrainSamples.of(corpus)
        for seed in seeds:
            samples.split(config.split_valid, seed=seed)
    share = _divided(corpus, config)
    if by_means:
        corpus = corpus_in(place, "mean", means=finite_means(share.corpus.split("train"), corpus.modalities))
        share = _divided(corpus, config)
    return (joined(corpus) if config.folds.number else corpus), share


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
