"""Heads for the further targets of a task, which any network carries beside its own."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from alignmamba.contracts import Target


class OrdinalHead(nn.Module):
    """Classes in order: one score against thresholds that rise, the proportional odds model.

    P(class <= k) = sigmoid(threshold_k - score). What it gives are logarithms of the probabilities, so that
    the cross entropy of its result is the likelihood of the model.

    Source: McCullagh, "Regression models for ordinal data", JRSS B 1980, eq. 2.3.

    Args:
        width: Channels of the embedding.
        classes: Number of classes, 2 or more.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        self.lowest = nn.Parameter(torch.tensor(-(classes - 2) / 2))
        # A softplus keeps the gaps positive; they begin at 1.
        self.gaps = nn.Parameter(torch.full((classes - 2,), 0.5413))

    def forward(self, embedding: Tensor) -> Tensor:
        """(batch, width) to (batch, classes) logarithms of probabilities."""
        rises = functional.pad(functional.softplus(self.gaps).cumsum(0), (1, 0))
        above = self.lowest + rises - self.score(embedding)  # (batch, classes - 1)
        first, last = functional.logsigmoid(above[:, :1]), functional.logsigmoid(-above[:, -1:])
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) where a < b
        lower, upper = above[:, :-1], above[:, 1:]
        between = functional.logsigmoid(upper) + functional.logsigmoid(-lower)
        return torch.cat([first, between + torch.log(-torch.expm1(lower - upper)), last], dim=1)


class FurtherHeads(nn.Module):
    """One linear map from the embedding for each target, for a regression in deviations from its mean.

    Args:
        width: Channels of the embedding.
        targets: Targets to predict.
    """

    def __init__(self, width: int, targets: Sequence[Target]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                target.name: OrdinalHead(width, len(target.classes))
                if target.kind == "ordinal"
                else nn.Linear(width, target.num_outputs)
                for target in targets
            }
        )

    def of(self, target: Target, embedding: Tensor) -> Tensor:
        """(batch, width) to (batch,) deviations of a regression, else to (batch, classes) logits."""
        prediction = cast(Tensor, self.heads[target.name](embedding))
        return prediction.squeeze(-1) if target.kind == "regression" else prediction
