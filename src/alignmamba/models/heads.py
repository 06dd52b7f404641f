"""Heads: the last step from a vector to the prediction of a target."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Target, Task
from alignmamba.nn.by_name import ModulesByName


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
        scores = super().forward(self.dropout(embedding))
        if self.order is not None:
            return cast(Tensor, self.order(scores))
        return scores.squeeze(-1) if self.kind == "regression" else scores


class Thresholds(nn.Module):
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
