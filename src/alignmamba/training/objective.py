"""The objective: a model's prediction and every loss term of a batch, per sample.

Losses stay per sample up to here, so that the mean over a global batch is the same however the batch was divided over
micro batches and processes.
"""

from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Batch, FusionModel, Sequences, Task
from alignmamba.errors import ConfigError, ShapeError

RegressionLoss = Literal["l1", "mse", "huber"]


class Parcel:
    """Carries a batch through the engine's wrappers unopened.

    Fabric and the distributed wrappers look into collections and dataclasses and rebuild them; a frozen one, like `Batch`,
    they refuse.
    """

    __slots__ = ("batch",)

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class Objective(nn.Module):
    """A fusion model together with the loss of its task.

    Args:
        model: Meets `FusionModel`.
        task: What the model predicts.
        regression_loss: Loss of a regression task.
        label_smoothing: Share of the target taken from the true class and spread over all, in training mode only.
    """

    def __init__(self, model: nn.Module, task: Task, *, regression_loss: RegressionLoss = "l1", label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.regression_loss = regression_loss
        self.label_smoothing = label_smoothing

    def forward(self, parcel: Parcel) -> tuple[Tensor, dict[str, Tensor]]:
        """Predict a batch.

        Args:
            parcel: Holds a batch on the model's device.

        Returns:
            The prediction, (batch,) or (batch, classes), and the loss terms by name, each (batch,): the model's own, and
            ``task`` where the batch has targets.

        Raises:
            ShapeError: If the model returns a tensor of another shape.
            ConfigError: If the model names a loss of its own ``task`` or ``total``.
        """
        batch = _cast(parcel.batch, next((p.dtype for p in self.model.parameters()), torch.float32))
        output = cast(FusionModel, self.model)(batch)
        expected = (len(batch),) if self.task.kind == "regression" else (len(batch), self.task.num_outputs)
        if tuple(output.prediction.shape) != expected:
            raise ShapeError(f"{self._name}: prediction has shape {tuple(output.prediction.shape)}, expected {expected}")
        losses: dict[str, Tensor] = {}
        if batch.targets is not None:
            losses["task"] = self._task_loss(output.prediction, batch.targets)
        for name, value in output.losses.items():
            if name in ("task", "total"):
                raise ConfigError(f"{self._name}: losses[{name!r}] is a name that training keeps for itself")
            if tuple(value.shape) != (len(batch),):
                raise ShapeError(
                    f"{self._name}: losses[{name!r}] has shape {tuple(value.shape)}, expected one value per sample {(len(batch),)}"
                )
            losses[name] = _at_least_float32(value)
        return output.prediction, losses

    @property
    def _name(self) -> str:
        return type(self.model).__name__

    def _task_loss(self, prediction: Tensor, targets: Tensor) -> Tensor:
        """(batch,) loss of the task, in float32 at least whatever the model computed in."""
        prediction = _at_least_float32(prediction)
        if self.task.kind == "classification":
            smoothing = self.label_smoothing if self.training else 0.0
            return functional.cross_entropy(prediction, targets, reduction="none", label_smoothing=smoothing)
        targets = targets.to(prediction.dtype)
        if self.regression_loss == "mse":
            return functional.mse_loss(prediction, targets, reduction="none")
        if self.regression_loss == "huber":
            return functional.huber_loss(prediction, targets, reduction="none")
        return functional.l1_loss(prediction, targets, reduction="none")


def _at_least_float32(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def _cast(batch: Batch, dtype: torch.dtype) -> Batch:
    """The batch with floating tensors in the model's own precision; token ids and class indices stay integers."""

    def to(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    def sequences(s: Sequences) -> Sequences:
        return replace(s, features=to(s.features), times=None if s.times is None else to(s.times))

    return replace(
        batch,
        modalities={name: sequences(s) for name, s in batch.modalities.items()},
        targets=None if batch.targets is None else to(batch.targets),
    )
