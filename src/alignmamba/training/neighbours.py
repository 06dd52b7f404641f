"""Neighbours of train samples, by what is remembered of them and by labels; drawn each epoch."""

import hashlib
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

KINDS: Final = 3
"""Pools of a sample: same label and alike, another label and unlike, another label and alike."""
DRAWN: Final = 2
"""Neighbours from each pool."""
_BLOCK: Final = 1024
"""Samples that are compared with all others at a time."""


class Neighbours(nn.Module):
    """Two neighbours of each of three kinds for every train sample, as buffers: every checkpoint holds them.

    Source:
        Yang et al., "ConFEDE", ACL 2023. Not repeated: the public code keeps ranks in place of the samples
        that have them.

    Args:
        ids: Of the train split.
        pool: Samples of each kind from which neighbours are drawn, the most or least similar ones.
        seed: Of the draws, which also depend on the epoch and the id of the sample.
    """

    pools: Tensor
    """(samples, kind, pool): rows in the order of similarity, -1 where there are fewer."""
    rows: Tensor
    """(samples, 6): rows of the neighbours, two of each kind, -1 where there are fewer."""
    drawn: Tensor
    """Epoch for which they were drawn; -1 before the first."""

    def __init__(self, ids: Sequence[str], pool: int, seed: int) -> None:
        super().__init__()
        self.ids, self.seed = tuple(ids), seed
        self.register_buffer("pools", torch.full((len(ids), KINDS, pool), -1))
        self.register_buffer("rows", torch.full((len(ids), KINDS * DRAWN), -1))
        self.register_buffer("drawn", torch.tensor(-1))

    def retrieve(self, vectors: Tensor, known: Tensor, labels: Tensor) -> None:
        """Find the pools again, by cosine.

        Args:
            vectors: (samples, width).
            known: (samples,) bool: who may be a neighbour.
            labels: (samples,), compared for equality.
        """
        unit = functional.normalize(vectors, dim=1)
        every = torch.arange(len(unit), device=unit.device)
        self.pools.fill_(-1)
        for rows in every.split(_BLOCK):
            alike = unit[rows] @ unit.T
            same, others = labels[rows].unsqueeze(1) == labels, known & (rows.unsqueeze(1) != every)
            for kind, (scores, allowed) in enumerate(((alike, same), (-alike, ~same), (alike, ~same))):
                best = scores.masked_fill(~(allowed & others), -torch.inf).topk(
                    min(self.pools.shape[2], len(every))
                )
                self.pools[rows, kind, : best.indices.shape[1]] = best.indices.masked_fill(
                    best.values.isinf(), -1
                )

    def draw(self, epoch: int) -> None:
        """Draw the neighbours of an epoch from the pools, by the seed, the epoch and each sample's id."""
        shape = self.pools.shape[1:]
        chance = torch.stack(
            [torch.rand(shape, generator=_generator(self.seed, epoch, identity)) for identity in self.ids]
        )
        order = chance.to(self.pools.device).masked_fill(self.pools < 0, 2.0).argsort(2)[:, :, :DRAWN]
        self.rows.copy_(self.pools.gather(2, order).flatten(1))
        self.drawn.fill_(epoch)


def _generator(seed: int, epoch: int, identity: str) -> torch.Generator:
    """A generator that depends on these alone."""
    key = hashlib.sha256(f"{seed}/{epoch}/{identity}".encode()).digest()[:8]
    return torch.Generator().manual_seed(int.from_bytes(key, "little", signed=True))
