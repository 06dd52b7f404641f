"""Objective of a network: its loss terms, which optimisers minimise which of them, and in what stages.

Optimisers and stages are data. Accumulation, mixed precision, several processes, exact resumption and
interruption belong to the one loop in `training.loop`, and hold for every objective without a line of its
own.

Losses stay per sample up to here, so that the mean over a global batch is the same however the batch was
divided over micro batches and processes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Batch, Output, ScalesTargets, Target, TargetScale, Task, Unimodal
from alignmamba.errors import ConfigError, ShapeError
from alignmamba.training.batches import BatchSource
from alignmamba.training.concordance import Moments, Pairs
from alignmamba.training.pairs import mean_present

RegressionLoss = Literal["l1", "mse", "huber", "ccc"]

TASK = "task"
"""Loss term that compares prediction and target."""
FURTHER = f"{TASK}."
"""Beginning of the loss terms of further targets; the rest is the name of the target."""
UNIMODAL = "unimodal"
"""Loss term of what the head says of the vector of each modality."""
BRANCHES = "branches"
"""Loss term of what branches say that see one modality each."""
TOTAL = "total"
"""Sum of all loss terms; no term may take this name."""


@dataclass(frozen=True, kw_only=True)
class Minimise:
    """One optimiser: the loss terms it minimises, and how fast it changes which weights."""

    terms: tuple[str, ...] = ()
    """Names of loss terms; empty means all. With ``task`` go those of further targets, not ``unimodal`` and
    ``branches``."""
    rates: Mapping[str, float] = field(default_factory=lambda: {"": 1.0})
    """Prefix of parameter names of the objective to a factor on the learning rate. The longest prefix that
    fits decides; 0 leaves a weight as it is. The network's own names begin with ``model.``."""

    def wants(self, term: str) -> bool:
        """Answer to whether a loss term is minimised."""
        return not self.terms or term in self.terms or (TASK in self.terms and term.startswith(FURTHER))

    def rate(self, name: str) -> float | None:
        """Factor on the learning rate of a parameter; ``None`` where no prefix fits."""
        return factor_of(name, self.rates)


def factor_of(name: str, rates: Mapping[str, float]) -> float | None:
    """Factor of the longest prefix that fits a name; ``None`` where none does."""
    fitting = [prefix for prefix in rates if name.startswith(prefix)]
    return rates[max(fitting, key=len)] if fitting else None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of the training loop with new optimisers; the next stage starts from its best epoch."""

    name: str = "fit"
    optimisers: tuple[Minimise, ...] = (Minimise(),)
    alternate: Literal["batch", "epoch"] = "batch"
    """Several optimisers all step on every batch, or take whole epochs in turn."""
    epochs: int | None = None
    """Passes over the train split at most; ``None``: `FitConfig.epochs`."""
    select: str | None = None
    """Metric on the valid split that picks the best epoch; ``None``: `FitConfig.select`."""
    solved: bool = False
    """`Objective.begin_epoch` sets the weights, and no optimiser changes them. Each epoch is a candidate, of
    which the best is kept; all are tried, whatever the patience."""


class Parcel:
    """Carries a batch through the engine's wrappers unopened.

    Fabric and the distributed wrappers look into collections and dataclasses and rebuild them; a frozen one,
    like `Batch`, they refuse.
    """

    __slots__ = ("batch",)

    def __init__(self, batch: Batch) -> None:
        self.batch = batch


class Predicted:
    """Carries predictions out unopened: mixed precision lowers every tensor that it finds."""

    __slots__ = ("further", "values")

    def __init__(self, values: Tensor, further: Mapping[str, Tensor]) -> None:
        self.values = values
        self.further = further


class Objective(nn.Module, ABC):
    """A network and how it learns. A method that learns in its own way derives from this class and states
    what differs.

    Modules and buffers that an objective keeps for training alone (a teacher, refined labels, unimodal heads)
    are in every checkpoint and never in the saved model.

    Args:
        model: The network: takes a `Batch`, returns an `Output`. Its parameters are named ``model.*`` here.
        task: What it predicts.
        regression_loss: Task loss of a regression.
        target_scale: Its deviation is the unit in which a regression loss measures errors, so that the
            weights of other terms, the clipping of gradients and the learning rate mean the same whatever the
            labels are.
        label_smoothing: Share of the target taken from the true class and spread over all, in training mode
            only.
    """

    needs_targets: ClassVar[bool] = True
    """False where samples without targets have losses too."""

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
        self.regression_loss: RegressionLoss = regression_loss
        self.label_smoothing = label_smoothing
        self.target_scale = target_scale
        self.class_weights: Tensor | None = None
        self.focal_gamma = 0.0
        self.task_weight = 1.0
        self.moments: Mapping[str, Moments] | None = None
        """Moments of the step under way by loss term; ``None`` where a batch is the whole step."""

    @property
    def stages(self) -> Sequence[Stage]:
        """The stages of training, in order."""
        return (Stage(),)

    @abstractmethod
    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        """Loss terms by name, already weighted.

        Args:
            batch: With targets, on the network's device.
            output: Of the network for it.

        Returns:
            Per term (batch,), one value per sample; or (), one value of a term of the whole batch, which
            counts once per sample.
        """

    def prepare(self, train: BatchSource) -> None:
        """Look at the train split once before training begins or resumes: ids, targets, means.

        Whatever is kept of it must be a function of the split alone, whatever process looks. Draws of torch's
        global generator have no effect on training.
        """
        del train

    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        """Hear of each epoch of training before it begins or resumes; `epoch` counts from 0 in each stage. In
        one that is `solved`, set the weights of the epoch.
        """
        del stage, epoch

    def after_step(self) -> None:
        """Follow the weights after each step of training: a momentum teacher, refined labels."""

    def forward(self, parcel: Parcel) -> tuple[Predicted, dict[str, Tensor]]:
        """Predict a batch.

        Args:
            parcel: Holds a batch on the network's device.

        Returns:
            The prediction, (batch,) or (batch, classes), and the loss terms by name, each (batch,); none
            where targets are unknown.

        Raises:
            ShapeError: If the network returns no `Output`, or a prediction or term of another shape.
            ConfigError: If a term is called ``total``.
        """
        batch, output = self.output_of(self.shown(parcel.batch))
        expected = (len(batch),) if self.task.kind == "regression" else (len(batch), self.task.num_outputs)
        of_targets = expected if self.task.kind == "multilabel" else (len(batch),)
        if batch.targets is not None and tuple(batch.targets.shape) != of_targets:
            raise ShapeError(f"targets: expected shape {of_targets}, found {tuple(batch.targets.shape)}")
        if tuple(output.prediction.shape) != expected:
            raise ShapeError(
                f"{self._name}: prediction has shape {tuple(output.prediction.shape)}, expected {expected}"
            )
        predicted = Predicted(output.prediction, self._further_predictions(batch, output))
        if batch.targets is None:
            return predicted, {}
        losses: dict[str, Tensor] = {}
        for name, value in {**self.losses(batch, output), **self.further_losses(batch, output)}.items():
            if name == TOTAL:
                raise ConfigError(f"{self._name}: losses[{name!r}] is reserved for training")
            if value.ndim == 0:
                value = value.expand(len(batch))
            if tuple(value.shape) != (len(batch),):
                raise ShapeError(
                    f"{self._name}: losses[{name!r}] has shape {tuple(value.shape)}, expected one value per"
                    f" sample {(len(batch),)} or () for one of the whole batch"
                )
            losses[name] = _at_least_float32(value)
        if TASK in losses and self.task_weight != 1:
            losses[TASK] = self.task_weight * losses[TASK]
        if self.training and batch.weights is not None:
            losses = {name: value * batch.weights.to(value) for name, value in losses.items()}
        return predicted, losses

    def shown(self, batch: Batch) -> Batch:
        """The batch as the network sees it, in training perhaps with something withheld."""
        return batch

    def output_of(self, batch: Batch) -> tuple[Batch, Output]:
        """The batch in the network's precision, and what the network says of it."""
        dtype = next((p.dtype for p in self.model.parameters()), torch.float32)
        batch = batch.in_precision(dtype)
        output = self.model(batch)
        if not isinstance(output, Output):
            raise ShapeError(f"{self._name}: expected an Output, found {type(output).__name__}")
        return batch, output

    def _further_predictions(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        """The predictions of further targets, compared with what the task asks for."""
        for target in self.task.further:
            expected: tuple[int, ...] = (len(output.prediction),)
            if target.tokens is not None:
                there = batch.modalities.get(target.tokens)
                expected += (0 if there is None else there.mask.shape[1],)
            if target.kind != "regression":
                expected += (target.num_outputs,)
            found = tuple(output.further[target.name].shape) if target.name in output.further else None
            if found != expected:
                raise ShapeError(
                    f"{self._name}: target {target.name!r}: expected a prediction of shape {expected}, found"
                    f" {'none' if found is None else found}"
                )
        return output.further

    def further_losses(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """Losses of the further targets, weighted, 0 in a sample that lacks the target or its modality; of
        tokens the mean over those of a sample whose value is known.
        """
        losses = {}
        for target in self.task.further:
            if not _is_known(target, batch):
                continue
            said, (truth, known) = output.further[target.name], _truth(target, batch, output)
            scale, term = self._further_scale(target), FURTHER + target.name
            one = known.any(-1) if target.kind == "multilabel" else known
            if self._concords(target):
                error = self._concordance(term, _pairs(said, truth, known, batch, scale))
            else:
                if target.tokens is not None:
                    said, truth, known = (each.flatten(0, 1) for each in (said, truth, known))
                error = self._target_error(target, said, truth, known, scale)
            if target.tokens is not None:
                error = mean_present(error.view_as(one), one)
            losses[term] = target.weight * error
        return losses

    def _further_scale(self, target: Target) -> TargetScale:
        known = self.model.further_scales if isinstance(self.model, ScalesTargets) else {}
        return known.get(target.name, TargetScale())

    @property
    def agrees_on(self) -> bool:
        """True if it learns by the concordance of a regression."""
        kinds = (self.task.kind, *(target.kind for target in self.task.further))
        return self.regression_loss == "ccc" and "regression" in kinds

    def pairs_of(self, batch: Batch) -> dict[str, Pairs]:
        """Predictions and targets of each regression of a batch, by the loss term that they decide."""
        batch, output = self.output_of(self.shown(batch))
        found = {}
        if self.task.kind == "regression" and batch.targets is not None:
            found[TASK] = self._pairs_of_task(batch, output.learned)
        for target in self.task.further:
            if target.kind == "regression" and _is_known(target, batch):
                truth, known = _truth(target, batch, output)
                said, scale = output.further[target.name], self._further_scale(target)
                found[FURTHER + target.name] = _pairs(said, truth, known, batch, scale)
        return found

    def _pairs_of_task(self, batch: Batch, prediction: Tensor) -> Pairs:
        assert batch.targets is not None
        return _pairs(prediction, batch.targets, ~batch.targets.isnan(), batch, self.target_scale)

    def _concords(self, target: Task | Target) -> bool:
        """True if the concordance of a target is learned now."""
        return target.kind == "regression" and self.training and self.regression_loss == "ccc"

    def _concordance(self, term: str, pairs: Pairs) -> Tensor:
        """Loss of each pair by the moments of the step, 0 where the target is unknown."""
        moments = Moments.of(pairs) if self.moments is None else self.moments[term]
        return torch.where(pairs.weight > 0, moments.loss(pairs), 0).to(self._least_dtype)

    def leading_loss(self, batch: Batch, prediction: Tensor) -> Tensor:
        """Loss of the task's own prediction, (batch,): `task_loss`, or the concordance over the step."""
        assert batch.targets is not None
        if not self._concords(self.task):
            return self.task_loss(prediction, batch.targets)
        return self._concordance(TASK, self._pairs_of_task(batch, prediction))

    def task_loss(self, prediction: Tensor, targets: Tensor) -> Tensor:
        """Loss of the task for any prediction of it, such as that of one modality; that of the network itself
        has `leading_loss`.

        Args:
            prediction: (batch,) in units of the label, or (batch, classes) logits.
            targets: (batch,) values or class indices, or of a multilabel (batch, classes), as of a `Batch`.

        Returns:
            (batch,), 0 where the target is unknown, in float32 at least whatever the network computed in;
            errors of a regression are in deviations of the targets, those of a multilabel the mean over the
            classes that are known. In training mode those of classes are weighted by ``class_weights``,
            (classes,), and focused by ``focal_gamma``.
        """
        return self._target_error(
            self.task, prediction, targets, has_value(self.task, targets), self.target_scale
        )

    def _target_error(
        self, target: Task | Target, said: Tensor, values: Tensor, known: Tensor, scale: TargetScale
    ) -> Tensor:
        """Loss of predictions of a target, 0 where it is not known; only the target of the task has weights
        of classes.
        """
        truth = torch.where(known, values, torch.zeros_like(values))
        leads = target is self.task and self.training
        gamma, weights = (self.focal_gamma, self.class_weights) if leads else (0.0, None)
        if target.kind == "regression":
            error = self._regression_error(said, truth, scale)
        elif target.kind == "multilabel":
            each = _label_errors(said, truth, gamma)
            if weights is not None:
                there, absent = weights.to(each)
                each = each * torch.where(truth > 0, there, absent)
            error = (each * known).sum(1) / known.sum(1).clamp(min=1)
            known = known.any(1)
        else:
            smoothing = self.label_smoothing if self.training else 0.0
            error = functional.cross_entropy(
                _at_least_float32(said), truth, reduction="none", label_smoothing=smoothing
            )
            if gamma:
                likely = _at_least_float32(said).log_softmax(1).gather(1, truth[:, None])[:, 0].exp()
                error = error * (1 - likely).clamp(min=0) ** gamma
            if weights is not None:
                error = error * weights.to(error)[truth]
        return torch.where(known, error, error.new_zeros(()))

    def _regression_error(self, prediction: Tensor, targets: Tensor, scale: TargetScale) -> Tensor:
        """Error of (batch,) values in deviations of the targets."""
        # The difference is taken where it is exact: of labels around 1e9, single precision keeps nothing but
        # the 1e9.
        error = ((prediction.double() - targets.double()) / scale.deviation).to(self._least_dtype)
        if self.regression_loss == "mse":
            return error.square()
        if self.regression_loss == "ccc":
            # 1 minus the concordance is the mean of the squares over the spread, which tends to 2 deviations
            return 0.5 * error.square()
        if self.regression_loss == "huber":
            return functional.huber_loss(error, torch.zeros_like(error), reduction="none")
        return error.abs()

    def supervised(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The loss of the task under ``task``, of a fusion with branches in training that of the fusion;
        unimodal losses under ``unimodal`` and those of branches under ``branches`` where the network learns
        by them; and the terms that the network itself has.

        Raises:
            ConfigError: If the network calls a term of its own by one of these names.
        """
        assert batch.targets is not None
        said = output.learned if self.training else output.prediction
        terms = {TASK: self.leading_loss(batch, said)}
        if output.unimodal is not None:
            terms[UNIMODAL] = self._unimodal_loss(batch.targets, output.unimodal)
        if output.branches is not None:
            terms[BRANCHES] = self._unimodal_loss(batch.targets, output.branches.alone)
        for name in terms.keys() & output.losses.keys():
            raise ConfigError(f"{self._name}: losses[{name!r}] is reserved for training")
        return {**terms, **output.losses}

    def _unimodal_loss(self, targets: Tensor, alone: Unimodal) -> Tensor:
        """Weighted mean of the losses of each modality that a sample has, (batch,); by `task_loss`, so of a
        concordance half the squared error.
        """
        each = torch.stack([self.task_loss(said, targets) for said in alone.predictions.values()], 1)
        present = torch.stack([alone.present[name] for name in alone.predictions], 1)
        return self.task_weight * alone.weight * mean_present(each, present)

    @property
    def _least_dtype(self) -> torch.dtype:
        """Precision of losses: that of the weights, float32 at least."""
        found = (torch.promote_types(p.dtype, torch.float32) for p in self.model.parameters())
        return next(found, torch.float32)

    @property
    def _name(self) -> str:
        return type(self.model).__name__


class Supervised(Objective):
    """The loss of the task and the network's own terms, one optimiser, one stage."""

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return self.supervised(batch, output)


def _label_errors(said: Tensor, truth: Tensor, gamma: float) -> Tensor:
    """Binary cross entropy of (batch, classes) logits, with a gamma its focal form."""
    logits = _at_least_float32(said)
    truth = truth.to(logits.dtype)
    each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return each * (1 - (-each).exp()).clamp(min=0) ** gamma if gamma else each


def _at_least_float32(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def _is_known(target: Target, batch: Batch) -> bool:
    """True if a batch has values of a further target, and the modality of its tokens."""
    return target.name in batch.further and target.tokens in (None, *batch.modalities)


def has_value(target: Task | Target, values: Tensor) -> Tensor:
    """True at values of a target that are known."""
    return values >= 0 if target.has_one_class else ~values.isnan()


def _truth(target: Target, batch: Batch, output: Output) -> tuple[Tensor, Tensor]:
    """Values of a further target in a batch, and a mask of those that are known, of the samples that have its
    modality.
    """
    truth = batch.further[target.name]
    known = has_value(target, truth)
    if target.tokens is not None:
        read = output.tokens[target.tokens].mask
        known = known & (read if known.ndim == 2 else read[..., None])
    elif target.modality is not None:
        here = batch.having(target.modality)
        known = known & (here if known.ndim == 1 else here[:, None])
    return truth, known


def _pairs(said: Tensor, truth: Tensor, known: Tensor, batch: Batch, scale: TargetScale) -> Pairs:
    """Pairs of a batch, weightless where a target is not known; tokens share the weight of their sample."""
    said, truth = (torch.where(known, values, torch.zeros_like(values)) for values in (said, truth))
    weights = known.double()
    if known.ndim > 1:
        weights = weights / known.sum(1, keepdim=True).clamp(min=1)
    if batch.weights is not None:
        weights = weights * batch.weights.double().view(-1, *(1,) * (known.ndim - 1))
    return Pairs.of(said.flatten(), truth.flatten(), weights.flatten(), scale)
