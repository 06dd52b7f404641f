"""A small encoder of sentences in two steps, as BERT has them: placed tokens, then attention."""

import torch
from torch import Tensor, nn

from alignmamba.nn.attention import AttentionConfig, AttentionLayer, sinusoidal_positions
from alignmamba.ops import resample
from alignmamba.ops.sequence import check_mask


class SentenceEncoder(nn.Module):
    """A Transformer with a learned token in front, which gathers the sentence (BERT's ``[CLS]``).

    Kept from BERT (Devlin et al., arXiv 1810.04805): the token, a norm on the sum of token and place, a
    bidirectional Transformer. Changed: nothing is pretrained, places are sinusoidal, norms stand before each
    part of a layer.

    A method may step in between `embedded` and `hidden_states`, and another encoder that has both may stand
    in its place.

    Args:
        width: Channels of a token.
        config: Shape of the layers.
    """

    def __init__(self, width: int, config: AttentionConfig) -> None:
        super().__init__()
        self.project = nn.Linear(width, config.d_model)
        self.first = nn.Parameter(0.02 * torch.randn(config.d_model))
        self.embedding_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(AttentionLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.d_model)

    def embedded(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Project tokens, put the learned one before them, add their places.

        Args:
            x: (batch, time, width).
            mask: (batch, time) bool, valid tokens first.

        Returns:
            (batch, 1 + time, d_model) and its mask.

        Raises:
            ShapeError: If `mask` does not fit `x`.
        """
        check_mask("mask", mask, x)
        projected = self.project(x)
        tokens = torch.cat([self.first.to(projected.dtype).expand(x.shape[0], 1, -1), projected], 1)
        embedding: Tensor = self.dropout(self.embedding_norm(tokens + sinusoidal_positions(tokens)))
        return embedding, torch.cat([mask.new_ones(mask.shape[0], 1), mask], 1)

    def hidden_states(self, embedding: Tensor, mask: Tensor) -> Tensor:
        """(batch, 1 + time, d_model) and its mask to (batch, 1 + time, d_model)."""
        for layer in self.layers:
            embedding = layer(embedding, mask)
        said: Tensor = self.norm(embedding)
        return said


def beside(side: Tensor, side_mask: Tensor, mask: Tensor) -> Tensor:
    """A stream resampled to the tokens of a sentence by relative time, with nothing beside its first token.

    Args:
        side: (batch, side time, channel).
        side_mask: (batch, side time) bool, valid tokens first.
        mask: (batch, 1 + time) bool, that of an embedding of the sentence.

    Returns:
        (batch, 1 + time, channel); zero where the sentence has no token, and in samples without `side`.
    """
    brought = resample(side, side_mask, mask[:, 1:])
    return torch.cat([brought.new_zeros(brought.shape[0], 1, brought.shape[2]), brought], 1)
