r"""Concordance of a whole optimiser step as a loss of single samples.

The loss is 1 minus the concordance correlation coefficient (Lin, Biometrics 1989, eq. 5) of all samples of a
step, a function of moments of predictions p and targets t. Its derivative by a prediction needs these moments
alone:

.. math:: L = 1 - 2 C / D, \quad D = s_p^2 + s_t^2 + (\bar p - \bar t)^2, \quad
    n \, \partial L / \partial p_i = 4 C (p_i - \bar t) / D^2 - 2 (t_i - \bar t) / D

So each sample gets L as its value and this derivative, and the mean over the step is exact however the step
is divided over micro batches and processes. Where it is divided, predictions are computed once more ahead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

from alignmamba.contracts import TargetScale

_LEAST_SPREAD: Final = 1e-12
"""Spread, in squared deviations, from which there is anything to agree on."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Predictions and targets of a regression, in deviations of the targets of train."""

    predicted: Tensor
    """(samples,) float64."""
    target: Tensor
    """(samples,) float64."""
    weight: Tensor
    """(samples,) float64, 0 where the target is not known."""

    @classmethod
    def of(cls, predicted: Tensor, target: Tensor, weight: Tensor, scale: TargetScale) -> Self:
        """Pairs from values in units of the label."""
        p, t = ((values.double() - scale.mean) / scale.deviation for values in (predicted, target))
        return cls(predicted=p, target=t, weight=weight.double())

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """All samples of several parts, without gradient, on the CPU."""
        columns = zip(*((part.predicted, part.target, part.weight) for part in parts), strict=True)
        p, t, w = (torch.cat([each.detach().cpu() for each in column]) for column in columns)
        return cls(predicted=p, target=t, weight=w)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Weighted moments over the samples of a step."""

    target: float
    """Mean of the targets."""
    covariance: float
    spread: float
    """Both variances and the squared distance of the means."""

    @classmethod
    def of(cls, pairs: Pairs) -> Self:
        """Moments of these samples."""
        with torch.no_grad():
            share = pairs.weight / pairs.weight.sum().clamp(min=_LEAST_SPREAD)
            p, t = (share @ pairs.predicted, share @ pairs.target)
            apart, from_p, from_t = p - t, pairs.predicted - p, pairs.target - t
            spread = share @ (from_p.square() + from_t.square()) + apart.square()
            covariance = share @ (from_p * from_t)
        return cls(target=float(t), covariance=float(covariance), spread=float(spread))

    def loss(self, pairs: Pairs) -> Tensor:
        """(samples,) loss of each of some samples of the step."""
        spread = max(self.spread, _LEAST_SPREAD)
        predicted = pairs.predicted.detach()
        slope = 4 * self.covariance / spread**2 * (predicted - self.target)
        slope = slope - 2 / spread * (pairs.target - self.target)
        return 1 - 2 * self.covariance / spread + slope * (pairs.predicted - predicted)
