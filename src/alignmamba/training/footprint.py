"""Memory that training keeps for every weight."""

from torch import nn

from alignmamba.capacity import refuse_beyond_memory
from alignmamba.errors import ConfigError

_GRADIENT, _MOMENTS, _AVERAGE = 1, 2, 2
"""Numbers for each trained weight beside itself: its gradient, AdamW's two moments, and its moving average
with the weight that this displaces in validation."""


def refuse_untrainable(
    model: nn.Module,
    what: str,
    cure: str,
    *,
    precision: str,
    device: str,
    processes: int = 1,
    keeps_best: bool,
    averages: bool = False,
) -> None:
    """Refuse to train a model whose weights, gradient and moments do not fit into memory, before any of them
    is made.

    Activations come on top: they depend on the samples.

    Args:
        model: On the meta device where it does not exist yet; what exists is not counted again.
        what: Its name, the beginning of the message.
        cure: What to change, the end of the message.
        precision: As in `FitConfig`: mixed precision keeps weights in single precision.
        device: Where it is to be trained.
        processes: How many share that memory, each with all of this.
        keeps_best: Whether the weights of the best epoch are kept in memory as well.
        averages: Whether a moving average of the weights is kept.

    Raises:
        ConfigError: With what is needed and what is available.
    """
    size = 8 if precision == "64-true" else 4
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights = [*model.parameters(), *model.buffers()]
    absent = sum(weight.numel() for weight in weights if weight.device.type != device)
    copies = sum(weight.numel() for weight in model.state_dict().values()) if keeps_best else 0
    several = processes > 1
    # DDP gathers gradients in buckets of its own.
    numbers = absent + trained * (_GRADIENT + _MOMENTS + several + _AVERAGE * averages) + copies
    kept = [
        "weights" * bool(absent),
        "gradient",
        "AdamW's two moments",
        "buckets of DDP" * several,
        "moving average" * averages,
        "best weights" * keeps_best,
    ]
    parts = ", ".join(part for part in kept if part)
    shared = f" by {processes} processes" if several else ""
    refuse_beyond_memory(
        numbers * size * processes,
        f"{what}: training {trained:,} weights in {8 * size} bits{shared} ({parts})",
        cure,
        device=device,
        error=ConfigError,
    )
