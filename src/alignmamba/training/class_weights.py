"""Weights of classes in the loss of training."""

import torch
from torch import Tensor

from alignmamba.contracts import Task
from alignmamba.errors import ConfigError
from alignmamba.training.batches import BatchSource, known_targets
from alignmamba.training.fit_config import FitConfig


def class_weights(config: FitConfig, task: Task, train: BatchSource) -> Tensor | None:
    """Weight of each class, (classes,) float64, of several labels of its presence and of its absence,
    (2, classes); ``None`` where all are 1.

    Balanced weights are samples / (classes * samples of the class), over the classes that train has, so that
    their mean over the samples of train is 1 (King and Zeng, 2001). Each of several labels is a task of two
    classes of its own.

    Raises:
        ConfigError: If the task has another number of classes, or all weights are 0.
    """
    given = config.class_weights
    if given is None:
        return None
    if given != "balanced":
        if len(given) != len(task.classes):
            raise ConfigError(
                f"fit.class_weights: found {len(given)}, expected one for each of {len(task.classes)} classes"
            )
        if not any(given):
            raise ConfigError("fit.class_weights: found 0 for all classes, expected one above 0")
        weights = torch.tensor(given, dtype=torch.float64)
        return weights.expand(2, -1) if task.kind == "multilabel" else weights
    targets = torch.tensor(list(known_targets(train, task).values()))
    if task.kind == "multilabel":
        return _balanced(torch.stack([(targets == 1).sum(0), (targets == 0).sum(0)]))
    return _balanced(torch.bincount(targets, minlength=len(task.classes)))


def _balanced(counts: Tensor) -> Tensor:
    """Weights of classes by how often each is there, (classes, ...), of which each column is a task."""
    counts = counts.double()
    there = counts > 0
    share = counts.sum(0) / (there.sum(0) * counts.clamp(min=1))
    return torch.where(there, share, torch.ones_like(counts))
