"""Result of a model for a batch, and the scales that it is given."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from torch import Tensor

from alignmamba.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A matching between a modality and the anchor (Li et al., arXiv 2412.00833, eq. 5)."""

    index: Tensor
    """(batch, time) int64; -1 where nothing was matched. With marginal ``source``, the anchor token of each
    source token; with marginal ``anchor``, the source token of each anchor token."""
    similarity: Tensor
    """(batch, time) cosine similarity of the matched pair, 0 where nothing was matched."""
    marginal: Literal["source", "anchor"] = "source"
    """Side whose tokens were all matched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenVectors:
    """One vector for each token of a modality."""

    x: Tensor
    """(batch, time, channel)."""
    mask: Tensor
    """(batch, time) bool, true at the tokens that were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unimodal:
    """Predictions of the task from a vector of each modality, by which a network learns in addition."""

    predictions: Mapping[str, Tensor]
    """Each like `Output.prediction`, by modality."""
    present: Mapping[str, Tensor]
    """(batch,) bool by modality, the samples that have it; of others nothing is learned."""
    weight: float
    """Weight of the mean of their losses, in units of the weight of the task."""

    def scaled(self, scale: Callable[[Tensor], Tensor]) -> Self:
        """The same with what a function makes of the predictions."""
        return replace(self, predictions={name: scale(said) for name, said in self.predictions.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """Predictions of the parts whose mean a prediction is, each of which learns by a loss of its own."""

    fused: Tensor
    """Prediction of the fusion, like `Output.prediction`."""
    alone: Unimodal
    """Prediction of the branch of each modality, which no other modality reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Result of a fusion model for a batch."""

    prediction: Tensor
    """(batch,) value in units of the label for regression, (batch, classes) logits for classification."""
    further: Mapping[str, Tensor] = field(default_factory=dict)
    """Predictions of further targets by name: (batch,) in units of the label for regression, (batch, classes)
    logits otherwise, with time behind the batch for a target of tokens. Those of a modality are of no account
    in a sample without it, and those of tokens where `tokens` has none."""
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    """The model's own loss terms by name, each (batch,), already weighted; the trainer adds ``task`` and
    averages over samples."""
    unimodal: Unimodal | None = None
    """Predictions from the vector of each modality, which may have been made in sight of others, where the
    network learns by them."""
    branches: Branches | None = None
    """Parts of the prediction, where there are branches that see one modality each."""
    embedding: Tensor
    """(batch, channel) pooled representation: of the fusion, and behind it of branches."""
    tokens: Mapping[str, TokenVectors] = field(default_factory=dict)
    """Representation of each token, by modality, of those whose tokens have a target."""
    plans: Mapping[str, Plan] | None = None
    """Source modality to its matching onto the anchor, where asked for."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the objective of this network reads beside the prediction, by name: unimodal predictions,
    shared and private parts."""

    @property
    def learned(self) -> Tensor:
        """Prediction by whose loss the task is learned: that of the fusion, where branches have their own."""
        return self.prediction if self.branches is None else self.branches.fused


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetScale:
    """Centre and spread of the targets of a regression task, in units of the label."""

    mean: float = 0.0
    deviation: float = 1.0
    """Population standard deviation; 1 where all targets are equal."""

    @classmethod
    def of(cls, targets: Sequence[float]) -> Self:
        """The scale of these targets, computed in float64 from differences to the first; 0 and 1 where there
        is none.

        Raises:
            DataError: If a target is not finite, or they spread further than float64 can hold.
        """
        if len(targets) == 0:
            return cls()
        values = np.asarray(targets, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            shifted = values - values[0]
        widest = float(np.abs(shifted).max())
        if not math.isfinite(widest):
            raise DataError(
                f"targets: expected finite numbers of one scale, found {values.min()} to {values.max()}"
            )
        # Squares of what was divided by the widest difference neither overflow nor vanish.
        deviation = widest * float((shifted / widest).std()) if widest else 0.0
        return cls(mean=float(values[0] + shifted.mean()), deviation=deviation or 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardisation:
    """Offsets and divisors of a model's inputs and targets: learnt from the train split alone."""

    features: Mapping[str, tuple[Tensor, Tensor]]
    """Modality of features to mean and standard deviation of each channel, float32 of shape (width,)."""
    targets: TargetScale = TargetScale()
    """Scale of the targets of a regression task; 0 and 1 for a classification."""
    further: Mapping[str, TargetScale] = field(default_factory=dict)
    """Scale of each further target that is a regression, by its name."""


class ScalesTargets(ABC):
    """A model whose regression head gives deviations from the mean of the targets; its `Output` is in units
    of the label.

    A model of your own says so by inheriting from this class: fitting then gives it the scale of the train
    targets.
    """

    @property
    @abstractmethod
    def target_scale(self) -> TargetScale | None:
        """The scale that was set or loaded; ``None`` as long as there is none."""

    @abstractmethod
    def scale_targets(self, scale: TargetScale) -> None:
        """Set the scale; from now on a head's output z is predicted as ``mean + deviation * z``."""

    @property
    def further_scales(self) -> Mapping[str, TargetScale]:
        """Scales of further targets that are regressions, by name; none unless a model has such targets."""
        return {}

    @property
    def thresholds(self) -> Mapping[str, np.ndarray]:
        """Probabilities from which classes are called, (classes,), of targets of several labels by name, of
        the task's own by ""; those that are not named are called from one half on.
        """
        return {}


class WeighsModalities(ABC):
    """A model whose embedding holds vectors of modalities, side by side, and whose prediction can be given a
    weight of each of them after training.

    A model of your own says so by inheriting from this class.
    """

    @property
    @abstractmethod
    def weighed(self) -> Mapping[str, str]:
        """Names of the vectors in their order, and the modality of each; none where no weights are to be
        chosen.
        """

    @abstractmethod
    def weighed_prediction(self, embedding: Tensor, present: Tensor, weights: Tensor) -> Tensor:
        """Prediction, as of an `Output`, if the vectors had these weights.

        Args:
            embedding: (batch, channel), of an `Output` in evaluation mode.
            present: (batch, vector) bool: whether each sample has the modality.
            weights: (vector,) in the order of `weighed`; 1 is the prediction of the `Output` itself.
        """

    @abstractmethod
    def weigh(self, weights: Tensor) -> None:
        """Predict with these weights, (vector,), from now on: they become a part of the model's own."""


class FollowsTraining(ABC):
    """A model that changes with the progress of training, beside what it learns: a prior that fades away.

    A model of your own says so by inheriting from this class.
    """

    @abstractmethod
    def follow_training(self, progress: float) -> None:
        """Prepare for an epoch, before it begins or resumes.

        What changes is in the model's state, which is saved and restored with its weights.

        Args:
            progress: 0 in the first epoch of a stage, 1 in its last.
        """
