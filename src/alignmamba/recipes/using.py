"""Using a finished run: scores of a split, predictions for a corpus."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from alignmamba.contracts import ROLES, Corpus, ModalitySpec, Role, Split, Task
from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.metrics import score
from alignmamba.recipes.assembly import Nonfinite, alone, check_unchanged, corpus_at, predictions_of, trained_model
from alignmamba.recipes.directory import RunDirectory, corpus_identity, joined, prediction_table, table_writer_problem, write_table


def evaluate(
    run: str | Path,
    *,
    data: str | None = None,
    split: Role = "test",
    drop: Sequence[str] = (),
    nonfinite: Nonfinite | None = None,
) -> dict[str, Any]:
    """Score a finished run on a split, all modalities at hand and then with some of them withheld.

    Args:
        run: Directory of the run.
        data: Another corpus, or where the run's own lies now; by default where it lay in training.
        split: Split to score.
        drop: Modalities to withhold.
        nonfinite: What to do with features that are not finite; by default as in training. ``mean`` is the mean of the
            run's train split.

    Returns:
        ``metrics`` with all modalities; with `drop` also ``metrics_dropped`` and ``change``, their difference; and what they belong to.

    Raises:
        AlignMambaError: If the run, the corpus, the split or a modality cannot be used as asked.
    """
    found = RunDirectory.open(Path(run))
    found.require_finished()
    config = found.config()
    _check_role(split)
    model = trained_model(found, config)
    corpus = corpus_at(data or config.data, nonfinite or config.nonfinite, model=model)
    if data is None:
        check_unchanged(found, corpus, config)
    modalities = _shared_modalities(model, corpus)
    kept = _without(modalities, drop)
    _check_task(model, corpus)
    rows = corpus.split(split)
    _check_nothing_is_empty(rows, kept)
    fabric = alone(config)
    full = score(corpus.task, predictions_of(model, rows, modalities, corpus.task, config, fabric))
    report: dict[str, Any] = {
        "run": str(found.path),
        "corpus": corpus_identity(corpus),
        "split": split,
        "samples": len(rows),
        "metrics": full,
        "references": dict(corpus.references),
        "distance_covered": distance_covered(full, corpus.references),
    }
    if drop:
        dropped = score(corpus.task, predictions_of(model, rows, kept, corpus.task, config, fabric))
        report |= {
            "dropped": list(dict.fromkeys(drop)),
            "metrics_dropped": dropped,
            "change": {name: dropped[name] - value for name, value in full.items()},
        }
    return report


def predict(
    run: str | Path,
    data: str,
    out: str | Path,
    *,
    split: Role | None = None,
    nonfinite: Nonfinite | None = None,
) -> dict[str, Any]:
    """Predict every sample of a corpus, labelled or not, with a finished run, and write a table.

    Args:
        run: Directory of the run.
        data: Directory of the corpus, or ``synthetic``.
        out: File that ends in ``.csv`` or ``.parquet``; an existing one is replaced.
        split: Only that split; by default all.
        nonfinite: What to do with features that are not finite; by default as in training. ``mean`` is the mean of the
            run's train split.

    Returns:
        ``out``, ``rows`` and the ``splits`` in it.

    Raises:
        AlignMambaError: If the run, the corpus or the file cannot be used as asked.
    """
    path = Path(out)
    problem = table_writer_problem(path)
    if problem:  # said now, not after an hour of predicting
        raise ConfigError(problem)
    found = RunDirectory.open(Path(run))
    found.require_finished()
    config = found.config()
    if split is not None:
        _check_role(split)
    model = trained_model(found, config)
    corpus = corpus_at(data, nonfinite or config.nonfinite, model=model)
    modalities = _shared_modalities(model, corpus)
    splits = {role: corpus.splits[role] for role in ROLES if role in corpus.splits} if split is None else {split: corpus.split(split)}
    if any(is_labelled(rows) for rows in splits.values()):
        _check_task(model, corpus)
    task = _task(model)
    fabric = alone(config)
    tables = [
        (role, prediction_table(predictions_of(model, rows, modalities, task, config, fabric), task)) for role, rows in splits.items()
    ]
    table = joined(tables)
    write_table(path, table)
    return {"out": str(path), "rows": len(table["id"]), "splits": list(splits)}


def distance_covered(scores: Mapping[str, float | None], references: Mapping[str, float]) -> dict[str, float]:
    """Share of the way from ``best_single_modality_<metric>`` to ``best_reachable_<metric>`` that each score went.

    Args:
        scores: Metric to score.
        references: Known scores of the corpus; metrics for which it lacks either are left out.
    """
    covered = {}
    for metric, value in scores.items():
        single, best = references.get(f"best_single_modality_{metric}"), references.get(f"best_reachable_{metric}")
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
            f"split {split.role!r}: {len(empty)} samples have no {names}, the first is {empty[0]!r}; nothing would be left of them"
        )


def _check_role(split: str) -> None:
    if split not in ROLES:
        raise ConfigError(f"split: found {split!r}, expected one of {', '.join(ROLES)}")


def is_labelled(split: Split) -> bool:
    """Whether the samples of a split have targets."""
    return len(split) > 0 and split[0].target is not None


def _task(model: Any) -> Task:
    return cast(Task, model.config.task)


def _check_task(model: Any, corpus: Corpus) -> None:
    expected = _task(model)
    for field in ("kind", "classes"):
        have, want = getattr(corpus.task, field), getattr(expected, field)
        if have != want:
            raise DataError(f"corpus {corpus.name!r}: task {field} is {have!r}, the run was trained for {want!r}")


def _shared_modalities(model: Any, corpus: Corpus) -> tuple[ModalitySpec, ...]:
    """The model's modalities that the corpus offers, refused where they are not the same thing."""
    offered = {spec.name: spec for spec in corpus.modalities}
    shared = tuple(spec for spec in model.config.modalities if spec.name in offered)
    if not shared:
        names = [spec.name for spec in model.config.modalities]
        raise DataError(
            f"corpus {corpus.name!r}: found modalities {sorted(offered)}, expected some of {names}, which the run was trained on"
        )
    for spec in shared:
        other = offered[spec.name]
        # Without being told, a corpus takes its largest token id for its vocabulary, so that may be smaller than in training.
        fits = other.dim <= spec.dim if spec.kind == "tokens" else other.dim == spec.dim
        if other.kind != spec.kind or not fits:
            raise DataError(
                f"corpus {corpus.name!r}, modality {spec.name!r}: found {_described(other)}, expected {_described(spec)} as in training"
            )
    return shared


def _described(spec: ModalitySpec) -> str:
    return f"token ids of a vocabulary of {spec.dim}" if spec.kind == "tokens" else f"features of width {spec.dim}"


def _without(modalities: Sequence[ModalitySpec], drop: Sequence[str]) -> tuple[ModalitySpec, ...]:
    names = [spec.name for spec in modalities]
    unknown = [name for name in drop if name not in names]
    if unknown:
        raise ConfigError(f"drop: no modality {unknown[0]!r}, expected some of {', '.join(names)}")
    kept = tuple(spec for spec in modalities if spec.name not in drop)
    if not kept:
        raise ConfigError(f"drop: leaves no modality; keep at least one of {', '.join(names)}")
    return kept
