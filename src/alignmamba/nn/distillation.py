"""Distillation along a learned graph: who teaches whom among the modalities of a sample."""

from typing import Final, Literal

import torch
from torch import Tensor, nn

Prior = Literal["uniform", "anchor", "order"]
"""Expected teachers: all alike, the first modality, or each modality those after it."""

_COOLING: Final = 8.0
"""Edges are a softmax of scores divided by this."""
_FAVOUR: Final = 4.0
"""Score of an expected edge before the softmax of the prior."""


class Graph(nn.Module):
    """Graph of teachers and students in each sample: an edge for every ordered pair of modalities, from what
    they say and are.

    Args:
        modalities: How many there are.
        outputs: Numbers in a prediction.
        width: Of a vector.
        size: Of half a node.
        prior: What edges are expected to be.

    Source:
        Luo et al., ECCV 2018, as Li et al., CVPR 2023, arXiv:2303.13802 use it.
    """

    def __init__(self, modalities: int, outputs: int, width: int, size: int, prior: Prior) -> None:
        super().__init__()
        pairs = [
            (student, teacher)
            for student in range(modalities)
            for teacher in range(modalities)
            if student != teacher
        ]
        self.students, self.teachers = (list(side) for side in zip(*pairs, strict=True))
        expected = {"uniform": 0, "anchor": 1, "order": modalities}[prior]  # teachers, the first ones
        favour = [_FAVOUR * (teacher < min(student, expected)) for student, teacher in pairs]
        self.register_buffer("favour", torch.tensor(favour), persistent=False)
        self.said, self.vector = nn.Linear(outputs, size), nn.Linear(width, size)
        self.edge = nn.Linear(4 * size, 1)

    def forward(self, said: Tensor, vectors: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh every edge; no gradient reaches what is taught.

        Args:
            said: (batch, modality, outputs).
            vectors: (batch, modality, width).
            present: (batch, modality) bool.

        Returns:
            Edges and what they are expected to be, (batch, edge): of sum one over the edges between
            modalities that a sample has, zero elsewhere.
        """
        nodes = torch.cat([self.said(said.detach()), self.vector(vectors.detach())], 2)
        scores = self.edge(torch.cat([nodes[:, self.students], nodes[:, self.teachers]], 2)).squeeze(2)
        there = present[:, self.students] & present[:, self.teachers]
        return _shares(scores / _COOLING, there), _shares(self.get_buffer("favour").expand_as(scores), there)


def _shares(scores: Tensor, there: Tensor) -> Tensor:
    """Softmax over the edges that are there, (batch, edge)."""
    return scores.masked_fill(~there, torch.finfo(scores.dtype).min).softmax(1) * there


def distance_to_prior(edges: Tensor, expected: Tensor) -> Tensor:
    """Sum over edges of the squared mean, over two or more samples that have it, of an edge less what it is
    expected to be, ().
    """
    count = (expected > 0).sum(0)
    apart = (edges - expected).sum(0) / count.clamp(min=1)
    return (apart.square() * (count >= 2)).sum()
