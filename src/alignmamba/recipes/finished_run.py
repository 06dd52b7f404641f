"""Using a finished run: scores of a split, predictions for a corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from lightning_fabric import Fabric

from alignmamba.contracts import ROLES, Corpus, ModalitySpec, Predictions, Role, Split, Task
from alignmamba.data.labelled_splits import is_labelled
from alignmamba.data.leading_target import LeadingConfig, led_as
from alignmamba.data.missing_protocols import MissingConfig, WithheldSplit, only, patterns, withheld
from alignmamba.errors import CheckpointError, ConfigError, DataError
from alignmamba.evaluation.metrics import nonfinite_problem, score
from alignmamba.evaluation.thresholds import in_words
from alignmamba.formats.foreign import UnknownLabelError
from alignmamba.models.network import Network
from alignmamba.recipes.assembly import (
    Nonfinite,
    alone,
    check_unchanged,
    corpus_at,
    own_data,
    predictions_of,
    trained_model,
)
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.modalities import Matched, matched
from alignmamba.recipes.preparation import as_trained
from alignmamba.recipes.run_directory import (
    RunDirectory,
    Table,
    beside,
    check_table,
    corpus_identity,
    joined,
    make_directory,
    missing_table,
    prediction_table,
    prediction_tables,
    write_table,
)


@dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """A finished run with its model, for any corpus."""

    stored: RunDirectory
    config: RunConfig
    model: Network[Any]

    @classmethod
    def open(cls, run: str | Path) -> Self:
        """Open the configuration and the model of a finished run; a `CheckpointError` if there is none."""
        found = RunDirectory.open(Path(run))
        found.require_finished()
        config = found.config()
        if config.objective == "pretrain":
            raise CheckpointError(
                f"run {run}: found a pretrained run, which predicts nothing; train from it with: alignmamba"
                f" train --from {run}"
            )
        return cls(stored=found, config=config, model=trained_model(found, config))


@dataclass(frozen=True, kw_only=True)
class LoadedRun(OpenedRun):
    """A finished run with a corpus that it can score, for one evaluation or many."""

    corpus: Corpus
    modalities: tuple[ModalitySpec, ...]
    """Those of the corpus that the model knows."""
    matched: Matched
    """Match of the modalities of the corpus and of the model."""
    fabric: Fabric

    def predictions(self, split: Split, modalities: Sequence[ModalitySpec] | None = None) -> Predictions:
        """Predict a split, or what is left of one, from these of the modalities, by default all."""
        task: Task = self.model.config.task
        return predictions_of(
            self.model, split, modalities or self.modalities, task, self.config, self.fabric
        )


@dataclass(frozen=True, kw_only=True)
class MissingPart:
    """Predictions of a run for a split with something withheld."""

    pattern: tuple[str, ...] | None
    """The modalities that were kept in every sample; ``None`` where each sample had a draw of its own."""
    split: WithheldSplit
    """Parts of the samples that were left, in the order of the predictions."""
    predictions: Predictions
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class MissingScores:
    """Scores of a run under a protocol of missing modalities."""

    config: MissingConfig
    seed: int
    """Seed of what was withheld, that of the run."""
    parts: tuple[MissingPart, ...]
    """One, but for the protocol ``fixed``: one per pattern."""

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of each metric over the parts."""
        names, count = self.parts[0].metrics, len(self.parts)
        return {name: sum(part.metrics[name] for part in self.parts) / count for name in names}

    @property
    def effective_rate(self) -> float:
        """Share withheld of what was present, the mean over the parts."""
        return sum(part.split.effective_rate for part in self.parts) / len(self.parts)


def load_run(
    run: str | Path | OpenedRun,
    *,
    data: str | Path | Corpus | None = None,
    nonfinite: Nonfinite | None = None,
    rename: Mapping[str, str] = {},
    ignore: Sequence[str] = (),
    labelled: bool = False,
) -> LoadedRun:
    """A finished run, or its directory, and the corpus to score it on: its own, where that lies now, or
    another. Arguments are those of `evaluate`; an `AlignMambaError` if they cannot be used. A file without
    the labels of the run is refused if it has to be `labelled`, and else read without targets.
    """
    loaded = _loaded(run, data, nonfinite, rename, ignore, labelled=labelled)
    if any(map(is_labelled, loaded.corpus.splits.values())):
        _check_task(loaded.model, loaded.corpus)
    return loaded


def _loaded(
    run: str | Path | OpenedRun,
    data: str | Path | Corpus | None,
    nonfinite: Nonfinite | None,
    rename: Mapping[str, str],
    ignore: Sequence[str],
    *,
    labelled: bool = False,
) -> LoadedRun:
    """Load a run as `load_run`, for a corpus that may have another task."""
    ready = run if isinstance(run, OpenedRun) else OpenedRun.open(run)
    found, config, model = ready.stored, ready.config, ready.model
    called = {new: old for old, new in rename.items()}
    means = {called.get(name, name): mean.numpy() for name, mean in model.training_means().items()}
    place, read = data or own_data(config), partial(corpus_at, means=means)
    try:
        corpus = read(place, nonfinite or config.nonfinite, labels=config.leading.labels)
    except UnknownLabelError:
        if labelled:
            raise
        corpus = read(place, nonfinite or config.nonfinite)
    if data is None:
        check_unchanged(found, corpus, config)
    trained_on = corpus.checksum == found.identity().get("corpus", {}).get("checksum")
    if config.leading != LeadingConfig():
        corpus = led_as(corpus, model.config.task)
    if trained_on:  # wherever it lies
        corpus = as_trained(found, config, corpus)
    matching = matched(model.config.modalities, corpus, rename=rename, ignore=ignore, trained_on=trained_on)
    return LoadedRun(
        stored=found,
        config=config,
        model=model,
        corpus=matching.corpus,
        modalities=matching.modalities,
        matched=matching,
        fabric=alone(config),
    )


def score_missing(run: LoadedRun, missing: MissingConfig, *, split: Role = "test") -> MissingScores:
    """Score a run on a split under a protocol of missing modalities. What is withheld depends on the run's
    seed, the protocol, the rate and the ids: runs of one seed are scored on the same masks. ``fixed`` scores
    the samples that have anything of a pattern under each.
    """
    whole = run.corpus.split(split)
    names = [spec.name for spec in run.modalities]
    left: dict[tuple[str, ...] | None, WithheldSplit] = {
        # also refuses what does not go with the split
        None: withheld(whole, missing, seed=run.config.seed, modalities=names)
    }
    if missing.protocol == "fixed":
        every = {pattern: only(whole, pattern, modalities=names) for pattern in patterns(names)}
        left = {pattern: view for pattern, view in every.items() if len(view)}
    parts = []
    for pattern, view in left.items():
        said = run.predictions(view)
        metrics = score(run.corpus.task, said)
        parts.append(MissingPart(pattern=pattern, split=view, predictions=said, metrics=metrics))
    return MissingScores(config=missing, seed=run.config.seed, parts=tuple(parts))


def evaluate(
    run: str | Path | OpenedRun,
    *,
    data: str | Path | Corpus | None = None,
    split: Role = "test",
    drop: Sequence[str] = (),
    missing: MissingConfig | None = None,
    nonfinite: Nonfinite | None = None,
    rename: Mapping[str, str] = {},
    ignore: Sequence[str] = (),
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Score a finished run on a split, all modalities at hand and then with some of them withheld.

    Args:
        run: Directory of the run.
        data: Another corpus, or where the run's own lies now; by default where it lay in training.
        split: Split to score.
        drop: Modalities to withhold from every sample.
        missing: Protocol by which to withhold from each sample something else; does not go with `drop`.
        nonfinite: What to do with features that are not finite; by default as in training. ``mean`` is the
            mean of the run's train split.
        rename: Name of a modality in the corpus to the one that it had in training, for example ``{"vision":
            "video"}``.
        ignore: Modalities of the corpus to drop. Any other that the run does not know is refused.
        out: Directory for ``predictions.csv``, and with `missing` for ``predictions_missing.csv`` and
            ``missing.csv``, what each sample kept; files of those names are replaced.

    Returns:
        ``metrics`` with all modalities, whatever was withheld in training; with `drop` also
        ``metrics_dropped`` and ``change``, their difference; with `missing` ``metrics_missing`` and
        ``change``, and under ``missing`` the protocol, the nominal ``rate``, the ``effective_rate``, the
        ``seed`` and for ``fixed`` one row of scores per pattern, whose mean ``metrics_missing`` is; and what
        they belong to. ``modalities`` says which were ``used``, and which of the run's are ``not_in_corpus``
        or ``in_no_sample``.

    Raises:
        AlignMambaError: If the run, the corpus, the split, a modality or the directory cannot be used as
            asked.
    """
    _check_role(split)
    if drop and missing is not None:
        raise ConfigError("drop: found missing too; choose one of them")
    loaded = load_run(run, data=data, nonfinite=nonfinite, rename=rename, ignore=ignore, labelled=True)
    corpus = loaded.corpus
    kept = _without(loaded.modalities, drop)
    rows = corpus.split(split)
    refuse_unlabelled(corpus, [split])
    _check_nothing_is_empty(rows, kept)
    if out is not None:  # refused now, not after an hour of predicting
        make_directory(Path(out))
    complete = loaded.predictions(rows)
    full = score(corpus.task, complete)
    several = bool(loaded.model.thresholds)
    report: dict[str, Any] = {
        "run": str(loaded.stored.path),
        "corpus": corpus_identity(corpus),
        "split": split,
        "samples": len(rows),
        "modalities": loaded.matched.facts([rows]),
        "metrics": full,
        **({"thresholds": in_words(loaded.model.thresholds, loaded.model.config.task)} if several else {}),
        "references": dict(corpus.references),
        "distance_covered": distance_covered(full, corpus.references),
    }
    groups = [sample.group for sample in rows]
    tables = {
        beside(Path("predictions"), name).name: table
        for name, table in prediction_tables(complete, corpus.task, groups=groups).items()
    }
    if drop:
        changed = score(corpus.task, loaded.predictions(rows, kept))
        report |= {"dropped": list(dict.fromkeys(drop)), "metrics_dropped": changed}
    if missing is not None:
        scores = score_missing(loaded, missing, split=split)
        changed = scores.metrics
        report |= {"missing": _missing_facts(scores), "metrics_missing": changed}
        tables |= missing_tables(scores, corpus.task)
    if drop or missing is not None:
        report["change"] = {name: changed[name] - value for name, value in full.items()}
    if out is not None:
        for name, table in tables.items():
            write_table(Path(out) / f"{name}.csv", table)
    return report


def missing_tables(scores: MissingScores, task: Task) -> dict[str, Table]:
    """``predictions_missing`` and ``missing``, the masks; a first column names the pattern of several."""
    said = [prediction_table(part.predictions, task) for part in scores.parts]
    masks = [missing_table(part.split) for part in scores.parts]
    tables = {"predictions_missing": said, "missing": masks}
    if scores.parts[0].pattern is None:
        return {name: first for name, (first,) in tables.items()}
    patterns = ["+".join(part.pattern or ()) for part in scores.parts]
    return {name: joined("pattern", list(zip(patterns, of, strict=True))) for name, of in tables.items()}


def _missing_facts(scores: MissingScores) -> dict[str, Any]:
    facts = {**scores.config.model_dump(), "effective_rate": scores.effective_rate, "seed": scores.seed}
    rows = [
        {
            "kept": list(part.pattern),
            "samples": len(part.split),
            "effective_rate": part.split.effective_rate,
            "metrics": part.metrics,
        }
        for part in scores.parts
        if part.pattern is not None
    ]
    return {**facts, "patterns": rows} if rows else facts


def predict(
    run: str | Path | OpenedRun,
    data: str | Path | Corpus,
    out: str | Path,
    *,
    split: Role | None = None,
    nonfinite: Nonfinite | None = None,
    rename: Mapping[str, str] = {},
    ignore: Sequence[str] = (),
) -> dict[str, Any]:
    """Predict every sample of a corpus, labelled or not, with a finished run, and write a table.

    Args:
        run: The run, or its directory.
        data: Directory of the corpus, ``synthetic``, a file of a format that `alignmamba convert` reads, or a
            corpus.
        out: File that ends in ``.csv`` or ``.parquet``; an existing one is replaced.
        split: Only that split; by default all.
        nonfinite: What to do with features that are not finite; by default as in training. ``mean`` is the
            mean of the run's train split.
        rename: Name of a modality in the corpus to the one that it had in training, for example ``{"vision":
            "video"}``.
        ignore: Modalities of the corpus to drop. Any other that the run does not know is refused.

    Returns:
        ``out``, ``tokens`` with the file of each modality whose tokens have a target, ``rows``, the
        ``splits`` in it, the ``corpus``, and ``modalities`` as of `evaluate`.
        In the corpus of training, samples that training dropped are dropped.

    Raises:
        AlignMambaError: If the run, the corpus or the file cannot be used as asked.
    """
    path = Path(out)
    check_table(path)  # now, not after an hour of predicting
    if split is not None:
        _check_role(split)
    loaded = _loaded(run, data, nonfinite, rename, ignore)
    tables, splits = predicted(loaded, split)
    for name, table in tables.items():
        write_table(beside(path, name), table)
    more = {name: str(beside(path, name)) for name in tables if name}
    return {
        "out": str(path),
        **({"tokens": more} if more else {}),
        "rows": len(tables[""]["id"]),
        "splits": list(splits),
        "corpus": corpus_identity(loaded.corpus),
        "modalities": loaded.matched.facts(splits.values()),
    }


def predicted(loaded: LoadedRun, split: Role | None) -> tuple[dict[str, Table], Mapping[Role, Split]]:
    """Tables of the predictions of a split, or of all one below another, by name as `prediction_tables` has
    them, and the splits in them.

    Raises:
        AlignMambaError: If a split is not there or cannot be predicted.
    """
    if split is not None:
        _check_role(split)
    corpus = loaded.corpus
    splits = (
        {role: corpus.splits[role] for role in ROLES if role in corpus.splits}
        if split is None
        else {split: corpus.split(split)}
    )
    if any(is_labelled(rows) for rows in splits.values()):
        _check_task(loaded.model, corpus)
    for rows in splits.values():
        _check_nothing_is_empty(rows, loaded.modalities)
    tables: dict[str, list[tuple[str, Table]]] = {}
    for role, rows in splits.items():
        predictions = loaded.predictions(rows)
        unanswered = nonfinite_problem(predictions)
        if unanswered is not None:
            raise DataError(f"split {role!r}: {unanswered}; the features may be too large for the model")
        for name, table in prediction_tables(predictions, loaded.model.config.task).items():
            tables.setdefault(name, []).append((role, table))
    found = {name: joined("split", parts) for name, parts in tables.items()}
    return {name: {"id": table.pop("id"), **table} for name, table in found.items()}, splits


def distance_covered(scores: Mapping[str, float | None], references: Mapping[str, float]) -> dict[str, float]:
    """Share of the way from ``best_single_modality_<metric>`` to ``best_reachable_<metric>`` that each score
    went, where both are known.
    """
    covered = {}
    for metric, value in scores.items():
        single, best = (references.get(f"best_{end}_{metric}") for end in ("single_modality", "reachable"))
        if value is not None and single is not None and best is not None and single != best:
            covered[metric] = (value - single) / (best - single)
    return covered


def _check_nothing_is_empty(split: Split, kept: Sequence[ModalitySpec]) -> None:
    """Refuse to withhold from a sample all that it has."""
    tokens = sum(np.asarray(split.lengths[spec.name]) for spec in kept)
    empty = [identity for identity, count in zip(split.ids, np.atleast_1d(tokens), strict=True) if count == 0]
    if empty:
        names = " and ".join(spec.name for spec in kept)
        raise DataError(
            f"split {split.role!r}: {len(empty)} sample{'s have' if len(empty) > 1 else ' has'} no {names},"
            f" the first is {empty[0]!r}, expected another modality in each"
        )


def _check_role(split: str) -> None:
    if split not in ROLES:
        raise ConfigError(f"split: found {split!r}, expected one of {', '.join(ROLES)}")


def refuse_unlabelled(corpus: Corpus, roles: Sequence[Role]) -> None:
    """Refuse, by a `DataError`, a corpus that lacks one of these splits, or the targets of one."""
    for role in roles:
        if not is_labelled(corpus.split(role)):
            raise DataError(
                f"corpus {corpus.name!r}: split {role!r} is unlabelled, expected a target for every"
                " sample; predict and train --pretrain need no targets"
            )


def _check_task(model: Network[Any], corpus: Corpus) -> None:
    for field in ("kind", "classes"):
        have, want = getattr(corpus.task, field), getattr(model.config.task, field)
        if have != want:
            raise DataError(
                f"corpus {corpus.name!r}: task {field} is {have!r}, the run was trained for {want!r}"
            )


def _without(modalities: Sequence[ModalitySpec], drop: Sequence[str]) -> tuple[ModalitySpec, ...]:
    names = [spec.name for spec in modalities]
    unknown = [name for name in drop if name not in names]
    if unknown:
        raise ConfigError(f"drop: no modality {unknown[0]!r}, expected some of {', '.join(names)}")
    kept = tuple(spec for spec in modalities if spec.name not in drop)
    if not kept:
        raise ConfigError(f"drop: found every modality; keep at least one of {', '.join(names)}")
    return kept
