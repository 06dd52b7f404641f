"""Networks in whose embedding the vectors of all modalities stand side by side."""

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Unimodal, WeighsModalities
from alignmamba.models.encoded import Encoded, FusionConfig, ReadsTokens
from alignmamba.models.heads import Head
from alignmamba.ops.backends import exporting


class SideBySideConfig(FusionConfig):
    """Fields of a network that pools each modality to a vector of its own."""

    SILENT: ClassVar[Mapping[str, Any]] = {
        **FusionConfig.SILENT,
        "unimodal_weight": 0.0,
        "modality_weights": "equal",
    }

    unimodal_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of the unimodal losses: the mean over a sample's modalities of the task loss of what the head
    says of the vector of each. With one modality, or one vector of the whole sequence, there are none."""
    modality_weights: Literal["equal", "validation"] = "equal"
    """Weights of the vectors of modalities in the prediction: those that training has led to, or these times
    factors that are chosen on the valid split after training, also where `fit.rates` leaves the head alone.
    With one vector there are none."""

    @property
    def has_vectors(self) -> bool:
        """True where several modalities have a vector each."""
        return len(self.anchors) > 1

    @property
    def learns_alone(self) -> bool:
        """True where there are unimodal losses."""
        return self.unimodal_weight > 0 and self.has_vectors


SideT = TypeVar("SideT", bound=SideBySideConfig)


class SideBySide(ReadsTokens[SideT], WeighsModalities, ABC):
    """A network whose linear head reads one vector of each modality."""

    head: nn.Module

    @property
    def vectors(self) -> tuple[str, ...]:
        """Modalities in the order of the vectors that are fused."""
        return self.config.anchors

    @property
    def weighed(self) -> Mapping[str, str]:
        chosen = self.config.modality_weights == "validation" and self.config.has_vectors
        return self._names_of_vectors if chosen else {}

    @property
    def _names_of_vectors(self) -> Mapping[str, str]:
        """Names of the vectors, in the order of the embedding and of `_parts`, and the modality of each."""
        return {name: name for name in self.vectors}

    def weighed_prediction(self, embedding: Tensor, present: Tensor, weights: Tensor) -> Tensor:
        vectors = embedding.unflatten(1, (len(weights), -1)) * weights[:, None]
        said = self._said(vectors.flatten(1).to(self._parts()[0]), present)
        return said if self.target_scaling is None else self.target_scaling(said)

    @torch.no_grad()
    def weigh(self, weights: Tensor) -> None:
        for weight, part in zip(weights.tolist(), self._parts(), strict=True):
            part.mul_(weight)

    def _said(self, embedding: Tensor, present: Tensor) -> Tensor:
        """Prediction of a head for vectors, of which each sample has those that are present."""
        del present
        said: Tensor = self.head(embedding)
        return said

    def _parts(self) -> tuple[Tensor, ...]:
        """Weights of the head for each vector."""
        assert isinstance(self.head, Head)
        return self.head.weight.chunk(len(self.vectors), 1)

    @property
    def _speaks_alone(self) -> bool:
        """True where there are unimodal losses; an exported program has none, as it predicts."""
        return self.config.learns_alone and not exporting()

    def _unimodal(self, embedding: Tensor, encoded: Encoded) -> Unimodal | None:
        """Unimodal predictions of a head that fuses: its score of all is the mean of its scores of each.

        Wang, Tran and Feiszli, "What Makes Training Multi-modal Classification Networks Hard?", CVPR 2020,
        add losses of unimodal heads to that of the fusion (eq. 3); these heads are parts of the one that
        fuses.

        Args:
            embedding: (batch, modality * channel).
            encoded: Tokens of each modality, for what a sample has.

        Returns:
            ``None`` where there are no such losses.
        """
        if not self._speaks_alone:
            return None
        assert isinstance(self.head, Head)
        votes = self.head.of_each(embedding, len(self.vectors))
        return of_votes(self.vectors, votes, encoded, weight=self.config.unimodal_weight)


def of_votes(names: Sequence[str], votes: Tensor, encoded: Encoded, *, weight: float) -> Unimodal:
    """Unimodal predictions, (batch, modality) or (batch, modality, class), by modality."""
    return Unimodal(
        predictions=dict(zip(names, votes.unbind(1), strict=True)),
        present={name: encoded[name].mask.any(1) for name in names},
        weight=weight,
    )


def mean_vote(votes: Tensor, present: Tensor) -> Tensor:
    """Mean of the votes, (batch, modality, ...), of the modalities that are present."""
    counted = present.view(*present.shape, *(1,) * (votes.ndim - 2))
    return torch.where(counted, votes, 0).sum(1) / counted.sum(1)
