"""Weights of classes in the loss of training."""

import torch
from torch import Tensor

from alignmamba.contracts import Task
from alignmamba.errors import ConfigError
from alignmamba.training.batches import BatchSource, targets_by_id
from alignmamba.training.fit_config import FitConfig


def class_weights(config: FitConfig, task: Task, train: BatchSource) -> Tensor | None:
    """Weight of each class, (classes,) float64; ``None`` where all are 1.

    Balanced weights are samples / (classes * samples of the class), over the classes that train has, so that
    their mean over the samples of train is 1 (King and Zeng, 2001).

    Raises:
        ConfigError: If the task has no classes, or another number of them.
    """
    given = config.class_weights
    if task.kind != "classification":
        for name, value in (("class_weights", given), ("focal_gamma", config.focal_gamma)):
            if value:
                raise ConfigError(f"fit.{name}: found {value}, expected none for a regression")
        return None
    if given is None:
        return None
    if given != "balanced":
        if len(given) != len(task.classes):
            raise ConfigError(
                f"fit.class_weights: found {len(given)}, expected one for each of {len(task.classes)} classes"
            )
        return torch.tensor(given, dtype=torch.float64)
    targets = torch.tensor(list(targets_by_id(train).values()), dtype=torch.int64)
    counts = torch.bincount(targets, minlength=len(task.classes)).double()
    there = counts > 0
    return torch.where(there, len(targets) / (there.sum() * counts.clamp(min=1)), torch.ones_like(counts))
