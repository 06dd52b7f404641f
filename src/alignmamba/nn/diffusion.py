"""Diffusion of vectors: the score of noisy ones, and the way back from noise."""

import math
from typing import Final

import torch
from torch import Tensor, nn

EARLIEST: Final = 1e-3
"""Time at which diffusion ends: at 0 there is no noise to divide by."""


class Score(nn.Module):
    """The gradient of the log density of noisy vectors of one modality, given a vector of the others.

    Args:
        width: Of a vector.
        hidden: Width of its layers.
        sigma: Of the diffusion, dx = sigma^t dw.

    Source:
        Song et al., ICLR 2021, arXiv:2011.13456, as Wang, Li and Cui, NeurIPS 2023 use it.
    """

    frequencies: Tensor

    def __init__(self, width: int, hidden: int, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        self.register_buffer("frequencies", 30 * torch.randn(hidden // 2))
        self.of_time = nn.Linear(2 * (hidden // 2), hidden)
        self.first = nn.Linear(2 * width, hidden)
        self.layers = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, width))

    def deviation(self, time: Tensor) -> Tensor:
        """Standard deviation of the noise that was added up to a time from 0 to 1."""
        return (torch.expm1(2 * math.log(self.sigma) * time) / (2 * math.log(self.sigma))).sqrt()

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """(batch, width) at times (batch,), given (batch, width), to scores (batch, width)."""
        angle = 2 * math.pi * time.unsqueeze(1) * self.frequencies
        embedded = self.of_time(torch.cat([angle.sin(), angle.cos()], 1))
        said: Tensor = self.layers(self.first(torch.cat([x, condition], 1)) + embedded)
        return said / self.deviation(time).unsqueeze(1)

    @torch.no_grad()
    def recover(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Vectors by Euler-Maruyama steps back from noise.

        Args:
            condition: (batch, width).
            noise: (batch, steps + 1, width) standard normal: the start, then what each step adds.

        Returns:
            (batch, width): the mean of the last step, without its noise.
        """
        steps = noise.shape[1] - 1
        times = torch.linspace(1, EARLIEST, steps + 1, device=noise.device, dtype=noise.dtype)
        x = mean = noise[:, 0] * self.deviation(times[0])
        for number in range(steps):
            rate, length = self.sigma ** times[number], times[number] - times[number + 1]
            mean = x + rate.square() * length * self(x, times[number].expand(len(x)), condition)
            x = mean + rate * length.sqrt() * noise[:, number + 1]
        return mean
