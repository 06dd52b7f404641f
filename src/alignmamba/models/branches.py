"""Branches beside a fusion: a small network for each modality, which no other modality reaches."""

from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from alignmamba.contracts import Task
from alignmamba.models.heads import UnimodalHeads
from alignmamba.nn.alignment import Tokens
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.encoders import Encoder
from alignmamba.nn.mamba import MambaConfig, MambaStack
from alignmamba.nn.pooling import POOLINGS, Pooling

JOINED: Final = 2
"""Tokens of the fusion that become one of a branch."""


class UnimodalBranches(nn.Module):
    """An encoder, one Mamba block and a head for each modality.

    Source:
        Du et al., "On Uni-Modal Feature Learning in Supervised Multi-Modal Learning", ICML 2023, arXiv
        2305.01233: an ensemble of networks that each see one modality.

    Args:
        names: Modalities, in the order of their vectors.
        encoders: Encoder of each modality whose branch does not share that of the fusion; it may join tokens.
        backbone: Shape of the fusion's backbone; a branch has a single block.
        pooling: Pooling of the tokens of a modality.
        task: Task to predict.
    """

    def __init__(
        self,
        names: Iterable[str],
        encoders: Mapping[str, Encoder],
        *,
        backbone: MambaConfig,
        pooling: Pooling,
        task: Task,
    ) -> None:
        super().__init__()
        self.names, self.pooling = tuple(names), pooling
        fields = {name: getattr(backbone, name) for name in MambaConfig.model_fields}
        shape = MambaConfig(**fields | {"depth": 1})
        self.width = len(self.names) * shape.d_model
        self.encoders = ModulesByName(encoders)
        self.stacks = ModulesByName({name: MambaStack(shape) for name in self.names})
        self.heads = UnimodalHeads(self.names, shape.d_model, task, shape.dropout)

    def forward(self, inputs: Mapping[str, Tokens], encoded: Mapping[str, Tokens]) -> Tensor:
        """Read each modality alone.

        Args:
            inputs: Standardised features or token ids of each modality.
            encoded: What the encoders of the fusion made of them.

        Returns:
            (batch, width), the vectors of the modalities side by side, zero where one is missing.
        """
        vectors = []
        for name in self.names:
            x, mask = encoded[name].x, encoded[name].mask
            if name in self.encoders:
                x, mask = self.encoders[name](inputs[name].x, inputs[name].mask)
            if mask.shape[1] > 0:
                x = self.stacks[name](x, mask)
            vectors.append(POOLINGS[self.pooling](x, mask))
        return torch.cat(vectors, 1)
