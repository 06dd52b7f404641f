"""Fitting a model on whatever holds the samples: a corpus, a torch Dataset, or a DataLoader of batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, Dataset

from alignmamba.contracts import Batch, Corpus, ModalitySpec, Role, Sample, Split, Task, labelled
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.standardise import fit_standardisation
from alignmamba.data.user_arrays import CheckedSplits
from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.metrics import all_metric_names, metric_of
from alignmamba.evaluation.metrics import score as score_of
from alignmamba.models.network import Network
from alignmamba.recipes.display import Shown, shown_progress
from alignmamba.training import loop
from alignmamba.training.batches import BatchSource
from alignmamba.training.fit_config import FitConfig, FitResult, Score
from alignmamba.training.progress import Progress, together


def fit(
    model: nn.Module,
    train: Any,
    valid: Any = None,
    config: FitConfig | None = None,
    *,
    task: Task | None = None,
    score: Score | None = None,
    higher_is_better: Mapping[str, bool] | None = None,
    loader: LoaderConfig | None = None,
    standardise: bool = True,
    seed: int = 0,
    fabric: Fabric | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    progress: Shown = "auto",
    callbacks: Sequence[Progress] = (),
) -> FitResult:
    """Fit a model; afterwards it holds the weights of the epoch that scored best on the valid samples.

    Args:
        model: A model of ours, or any module that takes a `Batch` and returns an `Output`; trained in place.
        train: A corpus; a torch ``Dataset`` of (features by modality, target), read once into memory; a
            ``DataLoader`` of `Batch`, for example with ``collate_fn=Batch.collate``; or batches as
            `alignmamba.data.loader.Loader` gives them.
        valid: The same of other samples, on which the best epoch is chosen; of a corpus its own split by
            default.
        config: How to fit.
        task: What is predicted; by default what the model says.
        score: Metrics of a set of predictions by name; by default those of the task.
        higher_is_better: Of each metric whether more is better; goes with `score`.
        loader: How samples are put into batches, where they are not in batches yet.
        standardise: Give a model of ours the scale of the train features and targets; switch off to continue
            from trained weights.
        seed: Of the order of samples.
        fabric: Engine, already launched; by default one process on the best device of this machine.
        run_dir: Existing directory for checkpoints and logs.
        resume: Resume from the last checkpoint in `run_dir`; not with a ``DataLoader``, whose order is its
            own.
        progress: As of `train`.
        callbacks: More objects that receive steps and epochs.

    Raises:
        ConfigError: If something is missing or does not go together.
        DataError: If samples are not as expected.
        TrainingError: If a loss is not finite.
    """
    ours = model if isinstance(model, Network) else None
    task = task or (ours.config.task if ours is not None else None)
    if task is None:
        raise ConfigError("task: found no task in this model, expected a Task")
    if (score is None) != (higher_is_better is None):
        raise ConfigError("score: expected it together with higher_is_better, found one of them")
    if valid is None:
        if not isinstance(train, Corpus):
            raise ConfigError("valid: expected samples to choose the best epoch, found no sample")
        valid = train
    specs: tuple[ModalitySpec, ...] | None = None if ours is None else ours.config.modalities
    settings = loader or LoaderConfig()
    roles: tuple[tuple[Any, Role], ...] = ((train, "train"), (valid, "valid"))
    sources = [_source(given, role, task, specs, settings, seed) for given, role in roles]
    if resume and isinstance(sources[0], _Batches):
        raise ConfigError(
            "resume: found a DataLoader, whose order cannot be resumed; expected a Dataset or a corpus"
        )
    if ours is not None:
        if standardise:
            ours.standardise(fit_standardisation(_samples(sources[0], task), ours.config.modalities, task))
        ours.provenance = None
    with shown_progress(progress) as shown:
        return loop.fit(
            model,
            sources[0],
            sources[1],
            config or FitConfig(),
            task=task,
            score=score or (lambda predictions: score_of(task, predictions)),
            higher_is_better=higher_is_better
            or {name: metric_of(name).higher_is_better for name in all_metric_names(task)},
            fabric=fabric,
            run_dir=run_dir,
            resume=resume,
            progress=together(shown, *callbacks),
        )


def _source(
    given: Any,
    role: Role,
    task: Task,
    specs: tuple[ModalitySpec, ...] | None,
    config: LoaderConfig,
    seed: int,
) -> BatchSource:
    if isinstance(given, DataLoader):
        return _Batches(given, role, task)
    if isinstance(given, Corpus):
        _same_task(given.task, task)
        split: Split = given.split(role)
        specs = specs or given.modalities
        known = {spec.name for spec in given.modalities}
        specs = tuple(spec for spec in specs if spec.name in known)
    elif isinstance(given, Dataset):
        split = _split_of(given, role, task, specs)
        specs = tuple(spec for spec in specs or split.modalities if spec.name in split.lengths)
    elif isinstance(given, Iterable) and not isinstance(given, Mapping | str | list | tuple):
        return given  # type: ignore[return-value] # meets BatchSource, or says itself what it lacks
    else:
        raise DataError(
            f"{role}: expected a corpus, a torch Dataset or a DataLoader of Batch, found"
            f" {type(given).__name__}"
        )
    return Loader(split, specs, config=config, task=task, shuffle=role == "train", seed=seed)


def _same_task(found: Task, expected: Task) -> None:
    if (found.kind, found.classes) != (expected.kind, expected.classes):
        way = f"; make the model with classes={found.classes!r:.80}" if found.kind == expected.kind else ""
        raise DataError(
            f"task: the corpus has {found.kind} {found.classes!r:.80}, the model {expected.kind}"
            f" {expected.classes!r:.80}{way}"
        )


def _split_of(dataset: Any, role: Role, task: Task, specs: tuple[ModalitySpec, ...] | None) -> MemorySplit:
    """The samples of a torch Dataset, checked as those of a corpus are."""
    rows = [labelled(dataset[row]) for row in range(len(dataset))]
    names = list(dict.fromkeys(name for features, _ in rows for name in features))
    features = {name: [each.get(name) for each, _ in rows] for name in names}
    sizes = {spec.name: spec.dim for spec in specs or () if spec.kind == "tokens" and spec.name in names}
    checked = CheckedSplits(
        {role: {"features": features, "targets": [target for _, target in rows]}},
        task=task,
        vocabulary_sizes=sizes,
    )
    return checked.split(role)


def _samples(source: BatchSource, task: Task) -> Any:
    """The train samples of a source, for what is learnt from them before training."""
    if isinstance(source, Loader):
        return source.split
    return _Unpacked(source, task)


class _Unpacked:
    """The samples of batches, one by one: as much of a split as standardisation reads."""

    def __init__(self, source: BatchSource, task: Task) -> None:
        self.role, self._source, self._task = source.role, source, task

    def __iter__(self) -> Iterator[Sample]:
        for batch in self._source:
            for row, identity in enumerate(batch.ids):
                present = {name: s for name, s in batch.modalities.items() if bool(s.mask[row].any())}
                features = {
                    name: np.asarray(s.features[row, s.mask[row]].detach().cpu())
                    for name, s in present.items()
                }
                yield Sample(
                    id=identity,
                    features=features,
                    target=None if batch.targets is None else self._task.known(batch.targets[row].tolist()),
                )


class _Batches:
    """Batches of a DataLoader as training asks for them; samples whose ids come again get new ones."""

    def __init__(self, batches: Any, role: Role, task: Task) -> None:
        self._batches, self.role, self._task = batches, role, task
        self.ids: tuple[str, ...] = ()

    def set_epoch(self, epoch: int) -> None:
        """Leave the order to the DataLoader."""

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        seen: dict[str, None] = {}
        for batch in self._batches:
            if not isinstance(batch, Batch):
                raise DataError(
                    f"{self.role}: expected batches, found {type(batch).__name__}; give the DataLoader"
                    " collate_fn=Batch.collate"
                )
            if len(set(batch.ids) - seen.keys()) < len(batch):
                batch = replace(
                    batch, ids=tuple(f"{self.role}-{len(seen) + row:06d}" for row in range(1, len(batch) + 1))
                )
            seen |= dict.fromkeys(batch.ids)
            self.ids = tuple(seen)
            yield self._checked(batch)

    def iter_from(self, batch_index: int) -> Iterator[Batch]:
        """Leave out the first batches."""
        return islice(iter(self), batch_index, None)

    def _checked(self, batch: Batch) -> Batch:
        targets = batch.targets
        if targets is None or self._task.kind in ("regression", "multilabel"):
            return batch  # of several labels, `Batch.of` and the objective look at values and shape
        if targets.is_floating_point() or bool(((targets < 0) | (targets >= len(self._task.classes))).any()):
            raise DataError(
                f"{self.role}: expected class indices from 0 to {len(self._task.classes) - 1}, found"
                f" {targets.tolist()[:5]}"
            )
        return batch
