"""Embeddings in which the vectors of all modalities stand side by side, and a loss of each of them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from alignmamba.contracts import Unimodal
from alignmamba.models.encoded import Encoded, FusionConfig
from alignmamba.models.heads import Head
from alignmamba.ops.backends import exporting


class SideBySideConfig(FusionConfig):
    """Fields of a network that pools each modality to a vector of its own."""

    SILENT: ClassVar[Mapping[str, Any]] = {**FusionConfig.SILENT, "unimodal_weight": 0.0}

    unimodal_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of the unimodal losses: the mean over a sample's modalities of the task loss of what the head
    says of the vector of each. With one modality, or one vector of the whole sequence, there are none."""

    @property
    def learns_alone(self) -> bool:
        """True where there are unimodal losses."""
        return self.unimodal_weight > 0 and len(self.anchors) > 1


def of_vectors(
    head: Head, embedding: Tensor, encoded: Encoded, order: Sequence[str], config: SideBySideConfig
) -> Unimodal | None:
    """Unimodal predictions of a head that fuses: its score of all is the mean of its scores of each.

    Wang, Tran and Feiszli, "What Makes Training Multi-modal Classification Networks Hard?", CVPR 2020, add
    losses of unimodal heads to that of the fusion (eq. 3); these heads are parts of the one that fuses.

    Args:
        head: Reads the embedding.
        embedding: (batch, modality * channel).
        encoded: Tokens of each modality, for what a sample has.
        order: Modalities in the order of their vectors.
        config: Has the weight.

    Returns:
        ``None`` where there are no such losses, and in an exported program, which predicts.
    """
    if not config.learns_alone or exporting():
        return None
    votes = dict(zip(order, head.of_each(embedding, len(order)).unbind(1), strict=True))
    return of_votes(votes, encoded, config)


def of_votes(votes: Mapping[str, Tensor], encoded: Encoded, config: SideBySideConfig) -> Unimodal | None:
    """Unimodal predictions of heads of their own, by modality, as `of_vectors` gives them."""
    if not config.learns_alone or exporting():
        return None
    present = {name: encoded[name].mask.any(1) for name in votes}
    return Unimodal(predictions=votes, present=present, weight=config.unimodal_weight)
