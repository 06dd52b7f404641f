"""Ridge or logistic regression on statistics of each modality over time, solved instead of trained."""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.capacity import refuse_beyond_memory
from alignmamba.contracts import Batch, Output
from alignmamba.errors import ConfigError
from alignmamba.methods.method import Method
from alignmamba.models.heads import Head
from alignmamba.models.network import Network, NetworkConfig
from alignmamba.nn.pooling import moments_and_ends, token_counts
from alignmamba.training.batches import BatchSource, gather, known_targets
from alignmamba.training.objective import Objective, Stage

PENALTIES: Final = tuple(10.0 ** (half / 2) for half in range(6, -11, -1))
"""Penalties per train sample that are tried, from 1000 to 0.00001 in steps of the square root of ten. The
strongest comes first, so that it is kept where several are as good.
"""
_CONSTANT: Final = torch.finfo(torch.float32).eps
_STATISTICS: Final = 4
_COPIES: Final = 6
"""Arrays of statistic by sample that are in memory at once while the singular values are found, at most."""


class PooledLinearConfig(NetworkConfig):
    """Everything that defines a linear model on pooled statistics."""

    method = "pooled-linear"
    one_target = "is solved for the target of the task"


class PooledLinear(Network[PooledLinearConfig]):
    """A linear map of what each modality's sequence is on the whole.

    Of features that is the mean, standard deviation, minimum and maximum of each channel over time, of token
    ids log(1 + count) of each, and of every modality whether the sample has it. All are standardised on
    train; what a sample lacks is 0, the mean of those that have it. The statistics, (batch, statistic), are
    the embedding.
    """

    config_class = PooledLinearConfig
    summary = "Ridge or logistic regression on statistics of each modality over time"
    tags = ("baseline",)

    centre: Tensor
    deviation: Tensor

    def __init__(self, config: PooledLinearConfig) -> None:
        super().__init__(config)
        self.widths = {m.name: m.dim * (1 if m.kind == "tokens" else _STATISTICS) for m in config.modalities}
        width = sum(self.widths.values()) + len(self.widths)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.head = Head(width, config.task, dropout=0.0)
        for weights in self.head.parameters():
            nn.init.zeros_(weights)

    def statistics(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(batch, statistic) as they are, and which of them each sample has, bool."""
        sequences, _ = self._sequences(batch)
        pooled, known = [], []
        for spec in self.config.modalities:
            given = sequences[spec.name]
            present = given.mask.any(1, keepdim=True)
            if spec.kind == "tokens":
                values = token_counts(given.features[..., 0], given.mask, spec.dim).to(self._weight.dtype)
            else:
                features = given.features.masked_fill(~given.mask.unsqueeze(-1), 0).to(self._weight.dtype)
                values = moments_and_ends(self.standardisers[spec.name](features, given.mask), given.mask)
            pooled += [values, present.to(values.dtype)]
            known += [present.expand(-1, self.widths[spec.name]), torch.ones_like(present)]
        return torch.cat(pooled, 1), torch.cat(known, 1)

    def _predict(self, batch: Batch) -> Output:
        values, known = self.statistics(batch)
        embedding = ((values - self.centre) / self.deviation).masked_fill(~known, 0)
        return Output(prediction=self.head(embedding), embedding=embedding)


class Solved(Objective):
    """The penalised least squares or log-likelihood of the train split, at one of `PENALTIES` in each epoch;
    the bias is not penalised. Seeds, losses and rates of a run have no part in it.
    """

    model: PooledLinear

    @property
    def stages(self) -> Sequence[Stage]:
        return (Stage(optimisers=(), epochs=len(PENALTIES), solved=True),)

    @torch.no_grad()
    def prepare(self, train: BatchSource) -> None:
        rows, targets = _statistics_by_id(self.model, train), known_targets(train, self.task)
        values, known = (torch.stack([rows[name][part] for name in targets]).double() for part in (0, 1))
        counts = known.sum(0).clamp(min=1)
        centre = (values * known).sum(0) / counts
        deviation = (((values - centre) * known).square().sum(0) / counts).sqrt()
        least = (_CONSTANT * centre.abs()).clamp(min=torch.finfo(torch.float32).tiny)
        deviation[deviation <= least] = 1.0
        self.model.centre.copy_(centre)
        self.model.deviation.copy_(deviation)
        self.targets = torch.tensor(list(targets.values()), dtype=torch.float64)
        inputs = (values - centre) / deviation * known
        # The solution lies in the span of the samples, where there are no more directions than samples.
        left, scales, self.directions = torch.linalg.svd(inputs, full_matrices=False)
        self.inputs = left * scales
        self.scales = scales

    def begin_epoch(self, stage: Stage, epoch: int) -> None:
        del stage
        solve = self._ridge if self.task.kind == "regression" else self._logistic
        weight, bias = solve(PENALTIES[epoch])
        with torch.no_grad():
            self.model.head.weight.copy_(weight.T @ self.directions)
            if self.model.head.order is None:
                self.model.head.bias.copy_(bias)

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        return self.supervised(batch, output)

    def _ridge(self, penalty: float) -> tuple[Tensor, Tensor]:
        """(direction, 1) and (1,) of the least mean squared error plus penalty times the squared weights."""
        scale = self.target_scale
        targets = (self.targets - scale.mean) / scale.deviation
        # the columns of the inputs are orthogonal and have mean 0
        weight = self.inputs.T @ targets / (self.scales.square() + penalty * len(targets))
        return weight.unsqueeze(1), targets.mean(0, keepdim=True)

    def _logistic(self, penalty: float) -> tuple[Tensor, Tensor]:
        """(direction, score) and (score,) of the least mean cross-entropy plus half the penalty times the
        squared weights, by L-BFGS from zero. Thresholds of ordered classes take the place of the bias, and
        are set in the head.
        """
        scores, order = self.task.num_scores, self.model.head.order
        weight = self.inputs.new_zeros(self.inputs.shape[1], scores, requires_grad=True)
        bias = self.inputs.new_zeros(scores, requires_grad=True)
        if order is not None:
            order.reset_parameters()
        search = torch.optim.LBFGS(
            [weight, *([bias] if order is None else order.parameters())],
            max_iter=500,
            tolerance_grad=1e-7,
            tolerance_change=1e-12,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            search.zero_grad()
            said = self.inputs @ weight + bias
            error = self._mean_error(said if order is None else order(said))
            total: Tensor = error + penalty / 2 * weight.square().sum()
            total.backward()
            return total

        with torch.enable_grad():
            search.step(closure)
        return weight.detach(), bias.detach()

    def _mean_error(self, said: Tensor) -> Tensor:
        """Mean cross-entropy of (samples, class) scores, of several labels over those that are known."""
        if self.task.kind != "multilabel":
            return functional.cross_entropy(said, self.targets.long())
        known = ~self.targets.isnan()
        return functional.binary_cross_entropy_with_logits(said[known], self.targets[known])


def _statistics_by_id(model: PooledLinear, train: BatchSource) -> dict[str, tuple[Tensor, Tensor]]:
    """Statistics, and which of them there are, of every train sample, whichever process holds it."""
    width, samples = len(model.centre), len(train.ids)
    refuse_beyond_memory(
        _COPIES * 8 * width * samples,
        f"pooled-linear: {width:,} statistics of {samples:,} samples",
        "take fewer modalities",
        error=ConfigError,
    )
    found: dict[str, tuple[Tensor, Tensor]] = {}
    train.set_epoch(0)
    for batch in train:
        given = batch.in_precision(model.centre.dtype).to(model.centre.device)
        values, known = (each.cpu() for each in model.statistics(given))
        found.update(zip(batch.ids, zip(values, known, strict=True), strict=True))
    return {name: row for share in gather(found) for name, row in share.items()}


POOLED_LINEAR = Method(
    network=PooledLinear,
    objective=Solved,
    source=(
        "Hoerl & Kennard, Technometrics 12 (1970); le Cessie & van Houwelingen, Applied Statistics 41 (1992)"
    ),
    differs="The penalty is chosen on the valid split.",
)
"""Linear models on pooled statistics as a method."""
