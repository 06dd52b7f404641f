"""Withholding at random from a batch, for methods that learn from it in runs that withhold nothing."""

from dataclasses import replace

import torch

from alignmamba.contracts import Batch


def withhold(batch: Batch, chance: float) -> Batch:
    """The batch with modalities withheld at random, drawn from torch's global generator; at least one of each
    sample is kept.

    Args:
        batch: Of a training step. One from which something was withheld already is returned as it is.
        chance: That a modality which a sample has is withheld.
    """
    if batch.withheld:
        return batch
    present = torch.stack([s.mask.any(1) for s in batch.modalities.values()], 1)
    drawn = torch.rand(present.shape, device=present.device)
    kept = present & (drawn >= chance)
    kept = kept.scatter(1, drawn.masked_fill(~present, -1).argmax(1, keepdim=True), True) & present
    modalities, withheld = {}, {}
    for number, (name, s) in enumerate(batch.modalities.items()):
        modalities[name] = s.with_tensors(mask=s.mask & kept[:, number, None])
        withheld[name] = s.with_tensors(mask=s.mask & ~kept[:, number, None])
    return replace(batch, modalities=modalities, withheld=withheld)
