"""Exponential moving average of the weights, which changes less from step to step than they do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from alignmamba.errors import CheckpointError


class AveragedWeights:
    """Moving average of every weight that training changes.

    After step ``k``, from 0, an average moves by the share ``1 - min(decay, (1 + k) / (10 + k))`` towards its
    weight, so that the first steps do not hold it at what was drawn.

    Args:
        module: Whose weights are followed.
        decay: Share of an average that stays at each later step, from 0 to less than 1.

    Source:
        Polyak & Juditsky, SIAM J. Control Optim. 30 (1992), in the exponential form; the warm-up is that of
        TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self._decay = decay
        self.steps = 0
        self._averages = [weight.detach().clone() for weight in self._weights.values()]

    @torch.no_grad()
    def follow(self) -> None:
        """Move towards the weights after a step of training."""
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._averages, list(self._weights.values()), 1 - decay)
        self.steps += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the module; the weights return afterwards."""
        kept = [weight.detach().clone() for weight in self._weights.values()]
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Averages by the names of their weights, and the number of steps under ``steps``."""
        return {"steps": torch.tensor(self.steps), **dict(zip(self._weights, self._averages, strict=True))}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave; a `CheckpointError` if it is of another module."""
        if set(state) != {"steps", *self._weights}:
            raise CheckpointError("average: found that of other weights")
        self.steps = int(state["steps"])
        for name, average in zip(self._weights, self._averages, strict=True):
            average.copy_(state[name])

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(list(self._weights.values()), values)
