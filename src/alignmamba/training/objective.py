"""The objective: a model's prediction and every loss term of a batch, per sample.

Losses stay per sample up to here, so that the mean over a global batch is the same however the batch was divided over
micro batches and processes.
"""

from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Batch, FusionModel, Sequences, TargetScale, Task
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


class Predicted:
    """Carries a prediction out through them unopened: mixed precision lowers every tensor that it finds to single precision."""

    __slots__ = ("values",)

    def __init__(self, values: Tensor) -> None:
        self.values = values


class Objective(nn.Module):
    """A fusion model together with the loss of its task.

    Args:
        model: Meets `FusionModel`.
        task: What the model predicts.
        regression_loss: Loss of a regression task.
        target_scale: Its deviation is the unit in which a regression loss measures errors, so that the weights of other terms,
            the clipping of gradients and the learning rate mean the same whatever the labels are.
        label_smoothing: Share of the target taken from the true class and spread over all, in training mode only.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        regression_loss: RegressionLoss = "l1",
        label_smoothing: float = 0.0,
        target_scale: TargetScale = TargetScale(),  # noqa: B008 # immutable
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.regression_loss = regression_loss
        self.label_smoothing = label_smoothing
        self.target_scale = target_scale

    def forward(self, parcel: Parcel) -> tuple[Predicted, dict[str, Tensor]]:
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
        dtype = next((p.dtype for p in self.model.parameters()), torch.float32)
        batch = _cast(parcel.batch, dtype)
        output = cast(FusionModel, self.model)(batch)
        expected = (len(batch),) if self.task.kind == "regression" else (len(batch), self.task.num_outputs)
        if tuple(output.prediction.shape) != expected:
            raise ShapeError(f"{self._name}: prediction has shape {tuple(output.prediction.shape)}, expected {expected}")
        losses: dict[str, Tensor] = {}
        if batch.targets is not None:
            losses["task"] = self._task_loss(output.prediction, batch.targets, torch.promote_types(dtype, torch.float32))
        for name, value in output.losses.items():
            if name in ("task", "total"):
                raise ConfigError(f"{self._name}: losses[{name!r}] is a name that training keeps for itself")
            if tuple(value.shape) != (len(batch),):
                raise ShapeError(
                    f"{self._name}: losses[{name!r}] has shape {tuple(value.shape)}, expected one value per sample {(len(batch),)}"
                )
            losses[name] = _at_least_float32(value)
        return Predicted(output.prediction), losses

    @property
    def _name(self) -> str:
        return type(self.model).__name__

    def _task_loss(self, prediction: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """(batch,) loss of the task, in float32 at least whatever the model computed in."""
        if self.task.kind == "classification":
            smoothing = self.label_smoothing if self.training else 0.0
            return functional.cross_entropy(_at_least_float32(prediction), targets, reduction="none", label_smoothing=smoothing)
        # The difference is taken where it is exact: of labels around 1e9, single precision keeps nothing but the 1e9.
        error = ((prediction.double() - targets.double()) / self.target_scale.deviation).to(dtype)
        if self.regression_loss == "mse":
            return error.square()
        if self.regression_loss == "huber":
            return functional.huber_loss(error, torch.zeros_like(error), reduction="none")
        return error.abs()


def _at_least_float32(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def _cast(batch: Batch, dtype: torch.dtype) -> Batch:
    """The batch with features in the model's own precision; token ids stay integers, and times and targets keep theirs."""

    def sequences(s: Sequences) -> Sequences:
        return replace(s, features=s.features.to(dtype)) if s.features.is_floating_point() else s

    return replace(batch, modalities={name: sequences(s) for name, s in batch.modalities.items()})
