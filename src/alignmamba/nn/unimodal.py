"""One vector per modality, as TFN makes it: the mean over time through a small perceptron."""

import torch
from torch import Tensor, nn

from alignmamba.ops import masked_mean


class PresentNorm(nn.BatchNorm1d):
    """Batch normalisation over the samples that have the modality.

    Samples without it neither count in the statistics nor are changed by them: they stay zero. A training
    batch with fewer than two samples to normalise has no statistics of its own and takes the running ones.
    Otherwise as the class above.
    """

    def forward(self, x: Tensor, present: Tensor) -> Tensor:  # type: ignore[override]  # needs to know who has it
        """(batch, channel) with (batch,) bool to (batch, channel)."""
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, variance = self.running_mean, self.running_var
        valid = present.unsqueeze(1)
        if self.training:
            count = present.sum()
            enough = count >= 2
            drawn = x.masked_fill(~valid, 0).sum(0) / count.clamp(min=1)
            spread = (x - drawn).square().masked_fill(~valid, 0).sum(0) / count.clamp(min=1)
            self._follow(drawn.detach(), spread.detach() * count / (count - 1).clamp(min=1), enough)
            mean, variance = torch.where(enough, drawn, mean), torch.where(enough, spread, variance)
        normed = (x - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias
        return normed.masked_fill(~valid, 0)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, enough: Tensor) -> None:
        """Move the running statistics; without a look at the values, which would wait for a GPU."""
        assert self.momentum is not None
        for running, drawn in ((self.running_mean, mean), (self.running_var, variance)):
            assert running is not None
            running.copy_(torch.where(enough, running.lerp(drawn.to(running.dtype), self.momentum), running))


class PooledPerceptron(nn.Module):
    """The mean over the valid tokens, batch normalisation, dropout, and three linear maps with ReLU.

    Kept from the source: all of it. Not repeated: the public code takes the mean over padding too.

    Source:
        Zadeh et al., arXiv:1707.07250, section 4.1 (the acoustic and visual sub-networks), as MMSA builds
        them.

    Args:
        width: Channels of a token.
        hidden: Width of the vector.
        dropout: Of what enters the first map.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = PresentNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.maps = nn.ModuleList(nn.Linear(wide, hidden) for wide in (width, hidden, hidden))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width) and its mask to (batch, hidden), zero for a sample without a valid token.

        Raises:
            ShapeError: If `mask` does not fit `x`.
        """
        present = mask.any(1)
        vector: Tensor = self.dropout(self.norm(masked_mean(x, mask), present))
        for linear in self.maps:
            vector = linear(vector).relu()
        return vector.masked_fill(~present.unsqueeze(1), 0)
