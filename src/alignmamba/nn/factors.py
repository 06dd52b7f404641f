"""A vector of each modality, split into what it shares with the others and what is its own."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alignmamba.nn.by_name import ModulesByName


@dataclass(frozen=True, slots=True)
class Parts:
    """Vectors of all modalities and their parts, each (batch, modality, width)."""

    projected: Tensor
    """The modalities' vectors at one width."""
    own: Tensor
    """Part that a modality alone has."""
    shared: Tensor
    """Part in common with the others, by one map for all."""


class Factors(nn.Module):
    """One projection and one private map per modality, and one map that all share; as in MISA and FDMER.

    Args:
        widths: Width of each modality's vector, in order.
        width: Of every part.
    """

    def __init__(self, widths: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.project = ModulesByName(
            {
                name: nn.Sequential(nn.Linear(given, width), nn.ReLU(), nn.LayerNorm(width))
                for name, given in widths.items()
            }
        )
        self.own = ModulesByName({name: nn.Linear(width, width) for name in widths})
        self.shared = nn.Linear(width, width)

    def forward(self, vectors: Mapping[str, Tensor]) -> Parts:
        """(batch, its width) of every modality."""
        projected = {name: project(vectors[name]) for name, project in self.project.items()}
        own = torch.stack([torch.sigmoid(own(projected[name])) for name, own in self.own.items()], 1)
        joined = torch.stack(list(projected.values()), 1)
        return Parts(joined, own, torch.sigmoid(self.shared(joined)))
