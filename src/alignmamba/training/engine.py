"""Small services around the engine: precision, compilation, agreement between processes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from alignmamba.errors import ConfigError
from alignmamba.training.fit_config import FitConfig


def check_precision(fabric: Fabric, config: FitConfig) -> None:
    """Refuse an engine that computes otherwise than the configuration says."""
    found = fabric.strategy.precision.precision
    # Lightning's own choice
    if found == "bf16-mixed" and config.precision == "16-mixed" and fabric.device.type == "cpu":
        raise ConfigError("precision: 16-mixed needs a GPU; on a CPU take bf16-mixed or 32-true")
    if found != config.precision:
        raise ConfigError(
            f"precision: found {found!r} in the engine, expected {config.precision!r}, as in the"
            " configuration"
        )


@contextmanager
def compiled(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Compile the forward pass in place, which keeps the names of weights; undone afterwards."""
    if not wanted:
        yield
        return
    model.compile()
    try:
        yield
    finally:
        model._compiled_call_impl = None


def agree(fabric: Fabric, samples: int, stop: bool) -> tuple[int, bool]:
    """Samples of all processes together, and whether any of them was asked to stop."""
    if fabric.world_size == 1:
        return samples, stop
    totals = fabric.all_reduce(torch.tensor([samples, int(stop)], device=fabric.device), reduce_op="sum")
    assert isinstance(totals, Tensor)
    return int(totals[0]), bool(totals[1] > 0)
