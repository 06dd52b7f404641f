"""The optimisers of a stage: which weights each changes, how fast, and in which steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import nn
from torch.optim import AdamW, Optimizer

from alignmamba.errors import ConfigError, TrainingError
from alignmamba.training.objective import Minimise, Objective, Stage, factor_of

_NETWORK: Final = "model."
"""Beginning of the names of the network's weights within an objective."""


def check_stages(objective: Objective, *, epochs: int) -> Sequence[Stage]:
    """The stages of an objective, of which each must say once of every trainable weight who changes it.

    Args:
        objective: The objective.
        epochs: Of a stage that names no number of its own.

    Raises:
        ConfigError: If a stage forgets a weight, gives it to two optimisers, names a prefix that no weight
            has, or has too few epochs for each of its optimisers to have one.
        TrainingError: If an optimiser has nothing to train.
    """
    names = [name for name, parameter in objective.named_parameters() if parameter.requires_grad]
    if not names:
        raise TrainingError("the model has no trainable parameter")
    stages = tuple(objective.stages)
    whose = type(objective).__name__
    if not stages:
        raise ConfigError(f"{whose}: stages: expected at least one, found none")
    for stage in stages:
        where = f"{whose}: stage {stage.name!r}"
        if stage.solved:
            if stage.optimisers or not stage.epochs:
                raise ConfigError(
                    f"{where}: is solved, expected epochs and no optimiser, found {stage.epochs} epochs and"
                    f" {len(stage.optimisers)} optimisers"
                )
            continue
        if not stage.optimisers:
            raise ConfigError(f"{where}: expected at least one optimiser, found none")
        turns = len(stage.optimisers) if stage.alternate == "epoch" else 1
        if (stage.epochs or epochs) < turns:
            raise ConfigError(
                f"fit.epochs: found {stage.epochs or epochs}, expected {turns} or more, as"
                f" {len(stage.optimisers)} optimisers take epochs in turn"
            )
        for prefix in (prefix for each in stage.optimisers for prefix in each.rates):
            if not any(name.startswith(prefix) for name, _ in objective.named_parameters()):
                raise ConfigError(f"{where}: no weight has a name that begins with {prefix!r}")
        for name in names:
            rates = [rate for each in stage.optimisers if (rate := each.rate(name)) is not None]
            if not rates:
                raise ConfigError(
                    f"{where}: found no optimiser for weight {name!r}; a rate of 0 keeps it as it is"
                )
            if sum(rate > 0 for rate in rates) > 1:
                raise ConfigError(
                    f"{where}: weight {name!r} belongs to {sum(rate > 0 for rate in rates)} optimisers,"
                    " expected one"
                )
        for each in stage.optimisers:
            if not any(each.rate(name) for name in names):
                raise TrainingError(
                    f"{where}: found no weight to train for the optimiser of"
                    f" {', '.join(each.terms) or 'all terms'}"
                )
    return stages


def check_rates(objective: Objective, rates: Mapping[str, float]) -> None:
    """Refuse factors on the learning rate that no weight has, or that leave nothing to train.

    Raises:
        ConfigError: With the first beginning that no name has.
    """
    names = [name for name, weight in objective.model.named_parameters() if weight.requires_grad]
    for prefix in rates:
        if not any(name.startswith(prefix) for name in names):
            parts = dict.fromkeys(name.partition(".")[0] for name in names)
            raise ConfigError(
                f"fit.rates: no weight has a name that begins with {prefix!r}, expected for example"
                f" {', '.join(parts)}"
            )
    every = [name for name, weight in objective.named_parameters() if weight.requires_grad]
    for stage in objective.stages if rates else ():
        for each in stage.optimisers:
            if not any((each.rate(name) or 0) * _own_factor(name, rates) for name in every):
                raise ConfigError(
                    f"fit.rates: leave no weight to train in stage {stage.name!r}, expected one above 0"
                )


def _own_factor(name: str, rates: Mapping[str, float]) -> float:
    """Factor that a run sets for a parameter of an objective; 1 where it sets none."""
    own = name.removeprefix(_NETWORK)
    factor = factor_of(own, rates) if own != name else None
    return 1.0 if factor is None else factor


def optimiser(
    module: nn.Module,
    minimise: Minimise,
    *,
    learning_rate: float,
    weight_decay: float,
    rates: Mapping[str, float] | None = None,
) -> AdamW:
    """AdamW over the weights of one optimiser, in groups by the factor on the learning rate.

    `rates` are further factors by the beginning of a weight's name within the network.

    A parameter that has a ``_learning_rate`` takes it as its peak; ``_rate_of`` names whose it is.
    Matrices decay; vectors (biases, norms) and parameters that say ``_no_weight_decay`` do not.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        factor = minimise.rate(name)
        own = getattr(parameter, "_learning_rate", None)
        factor = factor * own / learning_rate if factor and own else factor
        factor = factor * _own_factor(name, rates or {}) if factor else factor
        if factor and parameter.requires_grad:
            spared = parameter.ndim <= 1 or bool(getattr(parameter, "_no_weight_decay", False))
            groups.setdefault((factor, spared), []).append(parameter)
    described: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": 0.0 if spared else weight_decay, "factor": factor}
        for (factor, spared), parameters in sorted(groups.items(), key=lambda item: (-item[0][0], item[0][1]))
    ]
    return AdamW(described, lr=learning_rate)


def in_turn(
    stage: Stage, optimisers: Sequence[Optimizer], *, epoch: int, epochs: int, steps: int
) -> list["Turn"]:
    """Optimisers that step in an epoch.

    Args:
        stage: Theirs.
        optimisers: In its order.
        epoch: Of the stage, from 0.
        epochs: Of the stage.
        steps: Of an epoch.
    """
    every = list(zip(stage.optimisers, optimisers, strict=True))
    if stage.alternate == "batch":
        return [Turn(*each, before=epoch * steps, total=epochs * steps) for each in every]
    place = epoch % len(every)
    return [
        Turn(
            *every[place],
            before=epoch // len(every) * steps,
            total=math.ceil((epochs - place) / len(every)) * steps,
        )
    ]


class Turn:
    """One optimiser in an epoch: what it minimises, its steps before the epoch, and those in all."""

    __slots__ = ("before", "minimise", "optimiser", "total")

    def __init__(self, minimise: Minimise, optimiser: Optimizer, *, before: int, total: int) -> None:
        self.minimise, self.optimiser, self.before, self.total = minimise, optimiser, before, total
