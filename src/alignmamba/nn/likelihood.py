"""A lower bound of mutual information: the likelihood of one vector given another."""

from typing import Literal

import torch
from torch import Tensor, nn

LikelihoodKind = Literal["gaussian", "released"]


class Likelihood(nn.Module):
    """The Barber-Agakov bound: how well one vector is predicted from another, with a mean and a log-variance
    per channel.

    Args:
        given: Width of the vector that is known.
        width: Of the one that is predicted.
        kind: Whose likelihood: that of a normal distribution whose log-variance stays within -1 and 1, or
            that of the code of MMIM.

    Source:
        Barber and Agakov, NIPS 2003, as Han et al., EMNLP 2021, arXiv:2109.00412 use it.
    """

    def __init__(self, given: int, width: int, kind: LikelihoodKind) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(given, width), nn.ReLU(), nn.Linear(width, width))
        self.log_variance = nn.Sequential(nn.Linear(given, width), nn.ReLU(), nn.Linear(width, width))
        self.project = nn.Linear(width, max(1, width // 4)).requires_grad_(False)
        self.kind = kind

    def forward(self, given: Tensor, x: Tensor) -> Tensor:
        """(batch, given) and (batch, width) to log-likelihoods (batch,), but for a constant."""
        log_variance = self.log_variance(given)
        if self.kind == "gaussian":
            log_variance = log_variance.tanh()
        error = (x - self.mean(given)).square() * torch.exp(-log_variance)
        terms: Tensor = error + log_variance if self.kind == "gaussian" else error
        return -0.5 * terms.sum(1)

    def squashed(self, x: Tensor) -> Tensor:
        """(batch, width) to the few numbers whose entropy is taken, (batch, width / 4)."""
        small: Tensor = self.project(x).tanh()
        return small
