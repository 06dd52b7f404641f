"""Options and result of fitting a model."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from alignmamba.contracts import Config, Predictions
from alignmamba.extras import require
from alignmamba.training.logs import Tracker
from alignmamba.training.objective import RegressionLoss
from alignmamba.training.selection import VALIDATION_LOSS

_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FitConfig(Config):
    """Options of fitting a model."""

    SILENT: ClassVar[Mapping[str, Any]] = {
        "ema_decay": 0.0,
        "class_weights": None,
        "focal_gamma": 0.0,
        "thresholds": "half",
        "rates": None,
        "task_weight": 1.0,
        "ties": None,
    }
    """Counterpart of `NetworkConfig.SILENT` for training."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """Passes over the train split at most."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-3
    """Peak learning rate of AdamW, reached after the warm-up."""
    rates: dict[str, _Weight] | None = None
    """Factor on the learning rate by the beginning of a weight's name, such as ``{"encoders.text": 0.1}``.
    The longest that fits decides, and 0 leaves weights as they are."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    """Decoupled weight decay; biases, norms and other vectors are spared."""
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of all optimiser steps during which the learning rate rises linearly; it then falls along a
    cosine to 0."""
    gradient_clip: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Largest norm of the gradient over all parameters; 0 does not clip."""
    patience: Annotated[int, Field(ge=0)] = 10
    """Epochs on the valid split of which none is the best so far, by `select`, after which training stops; 0
    never stops early."""
    select: str = "auto"
    """Metric on the valid split that picks the best epoch; auto: accuracy of one class, auroc of several
    labels, mae of a regression, and the loss where `task_weight` is 0; loss: the total loss."""
    ties: Literal["loss", "first"] | None = None
    """Epoch of several with equal scores that counts: loss, the one with the lowest total loss on the valid
    split, or first. Empty takes loss, with preset 0.1 first."""
    task_weight: _Weight = 1.0
    """Weight of the loss of the target that the corpus is about; 0 learns from further targets alone."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share that stays, at each step, of an exponential moving average of the weights, which is validated and
    kept in their place; 0 keeps the weights themselves."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = "32-true"
    """Arithmetic: 32-true and 64-true are plain float32 and float64; the mixed ones compute in half precision
    where that is safe."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Classification: share of the target spread evenly over all classes."""
    class_weights: Literal["balanced"] | tuple[_Weight, ...] | None = None
    """Classes: weight of the loss of each in training, in their order; balanced weighs all alike, of several
    labels the presence and the absence of each, by how often they are in train, with a mean of 1 there."""
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Classes: exponent of the focal loss in training, which counts less what is already well classified
    (Lin et al., ICCV 2017, eq. 4); 0 is the cross entropy."""
    regression_loss: RegressionLoss = "l1"
    """Regression: absolute, squared, or Huber loss (squared below an error of 1, absolute above), errors in
    standard deviations of the train targets; ccc: 1 minus the concordance over the samples of a step."""
    thresholds: Literal["half", "validation"] = "half"
    """Several labels: probabilities from which they are called after training, one half, or for each label
    the one with the best weighted accuracy on the valid split."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches per optimiser step; the last step of an epoch takes what is left."""
    compile: bool = False
    """Compile the model with torch.compile: faster steps after about a minute."""
    checkpoint_every_steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps between checkpoints within an epoch; 0 saves at the end of each epoch only."""
    tensorboard: bool = False
    """Write TensorBoard events beside log.csv; the same as naming it under `loggers`."""
    loggers: tuple[Tracker, ...] = ()
    """Loggers of epochs besides log.csv: tensorboard, wandb, mlflow; each is an extra of the same name."""

    @property
    def chosen_by(self) -> str:
        """Metric of `select`, which is not one of a target that nothing is learned of."""
        return VALIDATION_LOSS if self.select == "auto" and self.task_weight == 0 else self.select


# Fields that a resumed run may change: they do not touch the course of training.
FREE_ON_RESUME = {"compile", "checkpoint_every_steps", "tensorboard", "loggers"}


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Result of training. The model itself holds the weights of the best epoch."""

    history: tuple[Mapping[str, float], ...]
    """One record per epoch, as `alignmamba.training.logs.Record` describes; epochs count from 1."""
    metric: str
    """Metric that chose the best epoch."""
    best_epoch: int
    """Best epoch, from 1."""
    best_score: float
    """Its score on the valid split, before weights of modalities are chosen there."""
    optimiser_steps: int
    """Steps that changed the weights; mixed precision may have skipped some others."""
    stopped: Literal["epochs", "patience"]
    """Reason why training ended."""
    modality_weights: Mapping[str, float] = field(default_factory=dict)
    """Factor on the vector of each modality that was chosen on the valid split afterwards; nothing where none
    are."""


def require_loggers(config: FitConfig) -> None:
    """Refuse to begin without the package of a logger that is asked for.

    Raises:
        ConfigError: With the command that installs it.
    """
    for name in loggers_of(config):
        require("fit.loggers" if name in config.loggers else f"fit.{name}", name)


def loggers_of(config: FitConfig) -> list[Tracker]:
    also: tuple[Tracker, ...] = ("tensorboard",) if config.tensorboard else ()
    return list(dict.fromkeys((*config.loggers, *also)))


Score = Callable[[Predictions], Mapping[str, float]]


def learning_rate_at(step: int, total_steps: int, config: FitConfig) -> float:
    """Learning rate of step `step`, from 0: linear warm-up to the peak, then a cosine to 0."""
    warmup = math.ceil(config.warmup_fraction * total_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (total_steps - warmup)))
