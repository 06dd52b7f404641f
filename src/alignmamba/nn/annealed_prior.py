"""A prior over time that fades away while training."""

from collections.abc import Callable
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor

from alignmamba.contracts import Config
from alignmamba.nn.exact_buffers import ExactBuffers


class AnnealConfig(Config):
    """The fall of the time weight over training; not in the paper."""

    to: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of `local.time_weight` that is left at the end; 1 keeps all of it, 0 leaves content alone. With
    `fit.compile`, every new share compiles method ``match`` again; after eight it runs uncompiled."""
    over: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the epochs after which the end is reached."""


class AnnealedPrior(ExactBuffers):
    """Share of a prior's weight that is left: 1 before training, then falling from epoch to epoch.

    The square root of the share falls linearly, so that the width of the prior grows as the inverse of the
    time that is left. The share is saved with the weights: the best epoch predicts as it was validated.
    """

    left: Tensor

    def __init__(self, config: AnnealConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("left", torch.ones((), dtype=torch.float64))
        self.share = 1.0

    def follow(self, progress: float) -> None:
        """Set the share for an epoch, by the progress of training from 0 to 1."""
        done = min(1.0, progress / self.config.over)
        self.left.fill_((1 - done * (1 - self.config.to**0.5)) ** 2)
        self._read()

    def _read(self) -> None:
        """Keep the share as a number, which no forward pass has to wait for."""
        if not self.left.is_meta:
            self.share = float(self.left)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._read()
        return self

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._read()
