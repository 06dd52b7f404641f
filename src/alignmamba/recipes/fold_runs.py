"""Cross-validation of one model: a run for each fold, and the scores of what they predict together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from alignmamba.contracts import Corpus, FurtherPredictions, Predictions
from alignmamba.data.cross_validation import FEWEST, FoldsConfig
from alignmamba.errors import CheckpointError, ConfigError
from alignmamba.evaluation.metrics import score
from alignmamba.files import replace_file
from alignmamba.recipes.configuration import RunConfig, refuse_pretraining
from alignmamba.recipes.display import Shown
from alignmamba.recipes.preparation import uncut
from alignmamba.recipes.run_directory import (
    RunDirectory,
    beside,
    fold_path,
    plain,
    prediction_tables,
    to_json,
    write_table,
)
from alignmamba.recipes.run_records import scored_predictions
from alignmamba.recipes.training_run import ReadyRun, RunResult, plan, train

FOLDS: Final = "folds.json"
"""File with the scores of all folds together."""


@dataclass(frozen=True, kw_only=True)
class FoldsResult:
    """A finished cross-validation."""

    directory: Path
    runs: tuple[RunResult, ...]
    """One per fold."""
    metrics: Mapping[str, float]
    """Scores of the test predictions of all folds together, which cover every sample once."""
    samples: int
    """Number of samples that are scored."""

    @property
    def first_process(self) -> bool:
        """False in all but one of several processes; here there is one."""
        return True


def of_folds(config: RunConfig, number: int) -> list[RunConfig]:
    """The same run with each part of a cross-validation as its test split; a `ConfigError` for too few."""
    if number < FEWEST:
        raise ConfigError(
            f"folds: found {number}, expected {FEWEST} or more: one each for train, valid and test"
        )
    refuse_pretraining(config, "a cross-validation")
    processes = config.engine.devices * config.engine.num_nodes
    if processes > 1:
        raise ConfigError(
            f"folds: found {processes} processes a run, expected one; start folds by --set folds"
        )
    return [
        config.model_copy(update={"folds": FoldsConfig(number=number, test=test, seed=config.folds.seed)})
        for test in range(number)
    ]


def plan_folds(config: RunConfig, number: int, *, out: str | Path | None = None) -> ReadyRun:
    """The first run of a cross-validation, checked, with the directory of all of them.

    Raises:
        AlignMambaError: If the configuration or the corpus cannot be used as asked.
    """
    first = plan(of_folds(config, number)[0], out=None, overwrite=True)
    named = first.directory.with_name(f"{first.directory.name}-folds{number}")
    return ReadyRun(**{**vars(first), "directory": named if out is None else Path(out)})


def train_folds(
    config: RunConfig | None = None,
    *,
    folds: int,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Shown = "auto",
) -> FoldsResult:
    """Train a run for each fold, in ``fold-0`` and so on of one directory, and score them together.

    Folds share training samples: `alignmamba.evaluation.statistics.fold_inflation` says what intervals over
    the samples of all of them have to allow for.

    Args:
        config: What to train on what; `RunConfig.folds` gives the seed of the deal alone.
        folds: Number of parts, and of runs.
        out: Directory of the runs; by default ``runs/<corpus>-<model>-<digest>-seed<N>-folds<K>``. Finished
            runs that are there are kept and unfinished ones resumed, if their settings are these.
        overwrite: Replace the runs that are there.
        progress: As for `train`.

    Raises:
        AlignMambaError: If the configuration, the corpus or the directory cannot be used as asked.
        RunInterrupted: On Ctrl-C, SIGTERM or a hangup, after saving.

    Source:
        Bengio & Grandvalet, No unbiased estimator of the variance of k-fold cross-validation, JMLR 5 (2004).
    """
    config = config or RunConfig()
    ready = plan_folds(config, folds, out=out)
    runs = []
    for number, each in enumerate(of_folds(config, folds)):
        place = fold_path(ready.directory, number)
        if place.exists() and not overwrite:
            _check_same(place, ready.config.model_copy(update={"folds": each.folds}), ready.corpus)
            runs.append(train(resume=place, data=each.data, progress=progress))
        else:
            runs.append(train(each, out=place, overwrite=overwrite, progress=progress))
    task = ready.corpus.task
    said = together([scored_predictions(run.directory / "predictions_test.csv", task) for run in runs])
    splits = uncut(ready.config, ready.corpus).splits.values()
    group_of = {sample.id: sample.group for split in splits for sample in split}
    groups = [group_of[identity] for identity in said.ids]
    result = FoldsResult(
        directory=ready.directory, runs=tuple(runs), metrics=score(task, said), samples=len(said.ids)
    )
    for name, table in prediction_tables(said, task, groups=groups).items():
        write_table(beside(ready.directory / "predictions_test.csv", name), table)
    record = {"folds": folds, "samples": result.samples, "metrics": {"test": result.metrics}}
    replace_file(ready.directory / FOLDS, to_json(plain(record)).encode())
    return result


def together(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of all folds as one, in the order of the folds."""
    targets = [part.targets for part in parts if part.targets is not None]
    common = set.intersection(*(set(part.further) for part in parts))
    return Predictions(
        ids=tuple(identity for part in parts for identity in part.ids),
        prediction=np.concatenate([part.prediction for part in parts]),
        targets=np.concatenate(targets) if len(targets) == len(parts) else None,
        called=_called(parts),
        parts=np.repeat(np.arange(len(parts)), [len(part.ids) for part in parts]),
        further={
            name: _joined([part.further[name] for part in parts])
            for name in parts[0].further
            if name in common
        },
    )


def _called(parts: Sequence[Predictions | FurtherPredictions]) -> np.ndarray | None:
    found = [part.called for part in parts if part.called is not None]
    return np.concatenate(found) if len(found) == len(parts) else None


def _joined(parts: Sequence[FurtherPredictions]) -> FurtherPredictions:
    """Predictions of one further target of all folds."""
    lengths = [part.lengths for part in parts if part.lengths is not None]
    times = [part.times for part in parts if part.times is not None]
    return FurtherPredictions(
        prediction=np.concatenate([part.prediction for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        called=_called(parts),
        lengths=np.concatenate(lengths) if lengths else None,
        times=np.concatenate(times) if times else None,
    )


def _check_same(place: Path, config: RunConfig, corpus: Corpus) -> None:
    """Refuse a run of other settings in the place of a fold; of the corpus, the checksum counts."""
    found = RunDirectory.open(place).identity()
    if (found.get("digest"), found.get("seed")) != (config.digest(corpus), config.seed):
        raise CheckpointError(
            f"out {place}: holds a run of other settings; choose another --out, or --overwrite"
        )
