"""Heads, the last step from a vector to the prediction of a target, and the way to units of the label."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Target, Task
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.exact_buffers import ExactBuffers


class Ordered(nn.Module):
    """Classes in order: a score against thresholds that rise, the proportional odds model.

    P(class <= k) = sigmoid(threshold_k - score). What it gives are logarithms of the probabilities, so that
    the cross entropy of its result is the likelihood of the model.

    Source: McCullagh, "Regression models for ordinal data", JRSS B 1980, eq. 2.3.

    Args:
        classes: Number of classes, 2 or more.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.lowest = nn.Parameter(torch.empty(()))
        self.gaps = nn.Parameter(torch.empty(classes - 2))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Put thresholds at distances of 1 around 0."""
        self.lowest.fill_(-len(self.gaps) / 2)
        # A softplus keeps the gaps positive.
        self.gaps.fill_(0.5413)

    def forward(self, score: Tensor) -> Tensor:
        """(batch, 1) to (batch, classes) logarithms of probabilities."""
        rises = functional.pad(functional.softplus(self.gaps).cumsum(0), (1, 0))
        above = self.lowest + rises - score  # (batch, classes - 1)
        first, last = functional.logsigmoid(above[:, :1]), functional.logsigmoid(-above[:, -1:])
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) where a < b
        lower, upper = above[:, :-1], above[:, 1:]
        between = functional.logsigmoid(upper) + functional.logsigmoid(-lower)
        return torch.cat([first, between + torch.log(-torch.expm1(lower - upper)), last], dim=1)


class Head(nn.Linear):
    """Dropout and a linear map to the prediction, for regression in deviations from the targets' mean.

    `Ordered` distinguishes ordered classes; its thresholds stand in for a bias.
    """

    def __init__(self, width: int, task: Task | Target, dropout: float) -> None:
        super().__init__(width, task.num_scores, bias=task.kind != "ordinal")
        self.dropout = nn.Dropout(dropout)
        self.kind = task.kind
        self.order = Ordered(len(task.classes)) if task.kind == "ordinal" else None

    def forward(self, embedding: Tensor) -> Tensor:
        """(batch, width) to (batch,) for regression, else (batch, class) scores: logits, of ordered classes
        logarithms of probabilities.
        """
        return self._finished(super().forward(self.dropout(embedding)))

    def of_each(self, embedding: Tensor, count: int) -> Tensor:
        """Predictions from each of the `count` vectors that stand side by side in (batch, width): (batch,
        count) for regression, else (batch, count, class). Without dropout the mean of their scores, in
        classes with an order before the thresholds, is the score of the embedding.
        """
        vectors = self.dropout(embedding).unflatten(1, (count, -1))
        scores = count * torch.einsum("bmd,cmd->bmc", vectors, self.weight.unflatten(1, (count, -1)))
        if self.bias is not None:
            scores = scores + self.bias
        said: Tensor = self._finished(scores.flatten(0, 1))
        return cast(Tensor, said.unflatten(0, (-1, count)))

    def _finished(self, scores: Tensor) -> Tensor:
        """(batch, scores) to the prediction."""
        if self.order is not None:
            return cast(Tensor, self.order(scores))
        return scores.squeeze(-1) if self.kind == "regression" else scores


class UnimodalHeads(ModulesByName):
    """A head for each modality, which reads the vector of that modality alone.

    Args:
        names: Modalities, in the order of their vectors.
        width: Channels of a vector.
        task: Task to predict.
        dropout: Of a vector.
    """

    def __init__(self, names: Sequence[str], width: int, task: Task, dropout: float) -> None:
        super().__init__({name: Head(width, task, dropout) for name in names})

    def votes(self, vectors: Tensor) -> Tensor:
        """Vectors side by side, (batch, modality * width), to predictions of each, (batch, modality, ...)."""
        each = zip(self.values(), vectors.chunk(len(self), 1), strict=True)
        return torch.stack([head(vector) for head, vector in each], 1)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Weights of each head."""
        return tuple(head.get_parameter("weight") for head in self.values())


class TargetScaling(ExactBuffers):
    """Map from deviations to units of the label, with the mean and deviation of the train targets: stored
    with the model, in float64.

    Labels such as 1e9 and 1e9 + 1 are one number in single precision, so neither the buffers nor the result
    ever are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("deviation", torch.ones((), dtype=torch.float64))
        self.known = False

    def forward(self, standardised: Tensor) -> Tensor:
        """(batch, ...) of any floating type to the same in float64."""
        return self.mean + self.deviation * standardised.double()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Weights without a scale come from version 0.1, whose heads spoke in units of the label."""
        if not any(prefix + name in state_dict for name in ("mean", "deviation")):
            state_dict[prefix + "mean"] = torch.zeros_like(self.mean)
            state_dict[prefix + "deviation"] = torch.ones_like(self.deviation)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.known = True


class Thresholds(ExactBuffers):
    """Probabilities from which classes of a target of several labels are called, stored with the model."""

    values: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.full((classes,), 0.5, dtype=torch.float64))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Weights of an earlier version have none: classes were called from one half on."""
        state_dict.setdefault(f"{prefix}values", torch.full_like(self.values, 0.5))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class FurtherHeads(nn.Module):
    """A head for each further target, on the embedding or on that of each token, for a regression in
    deviations from its mean.

    Args:
        width: Channels of the embedding.
        targets: Targets to predict.
        token_width: Channels of the embedding of a token.
    """

    def __init__(self, width: int, targets: Sequence[Target], token_width: int) -> None:
        super().__init__()
        widths = {target.name: width if target.tokens is None else token_width for target in targets}
        self.heads = ModulesByName(
            {target.name: Head(widths[target.name], target, dropout=0.0) for target in targets}
        )

    def of(self, target: Target, embedding: Tensor) -> Tensor:
        """(batch, width) to (batch,) deviations of a regression, else to (batch, classes) scores; of tokens
        (batch, time, width) to the same with time behind the batch.
        """
        prediction = cast(Tensor, self.heads[target.name](embedding.flatten(0, -2)))
        return prediction.unflatten(0, embedding.shape[:-1]) if embedding.ndim > 2 else prediction
