"""Moments of a whole optimiser step, known before its first micro batch is learned from."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from lightning_fabric import Fabric

from alignmamba.contracts import Batch
from alignmamba.training.batches import gather
from alignmamba.training.concordance import Moments, Pairs
from alignmamba.training.generators import random_state, restore_random_state
from alignmamba.training.objective import Objective


def looked_ahead(objective: Objective, group: Sequence[Batch], fabric: Fabric) -> Iterator[Batch]:
    """Yield the micro batches of a step, while the objective knows the moments of all of them.

    Predictions are computed without gradient first, with the random draws that each batch has again when it
    is yielded. A step of one batch of one process is left as it is.
    """
    divided = len(group) > 1 or fabric.world_size > 1
    if not divided or not objective.agrees_on:
        yield from group
        return
    states, parts = [], []
    for batch in group:
        states.append(random_state(fabric.device))
        parts.append(_pairs(objective, batch, fabric))
    objective.moments = _moments(parts)
    try:
        for batch, state in zip(group, states, strict=True):
            restore_random_state(state, fabric.device)
            yield batch
    finally:
        objective.moments = None


def _pairs(objective: Objective, batch: Batch, fabric: Fabric) -> Mapping[str, Pairs]:
    """Pairs of a batch, after which the network's buffers are what they were."""
    before = [(buffer, buffer.clone()) for buffer in objective.model.buffers()]
    with torch.no_grad(), fabric.autocast():
        found = objective.pairs_of(batch.to(fabric.device))
        for buffer, value in before:
            buffer.copy_(value)
    return {name: Pairs.together([pairs]) for name, pairs in found.items()}


def _moments(parts: Sequence[Mapping[str, Pairs]]) -> dict[str, Moments]:
    """Moments of each target over the batches of all processes."""
    every = [part for share in gather(list(parts)) for part in share]
    names = dict.fromkeys(name for part in every for name in part)
    return {
        name: Moments.of(Pairs.together([part[name] for part in every if name in part])) for name in names
    }
