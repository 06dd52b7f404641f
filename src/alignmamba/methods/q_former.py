"""Q-Former: learned queries that read the other modalities and meet the anchor, as in BLIP-2."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Output
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import Choice
from alignmamba.models.encoded import Encoded, Fusion, FusionConfig, Head
from alignmamba.nn.alignment import Tokens
from alignmamba.nn.attention import Attention, AttentionConfig, sinusoidal_positions
from alignmamba.nn.by_name import ModulesByName, WeightsByName
from alignmamba.ops import masked_mean


class QFormerConfig(FusionConfig, AttentionConfig):
    """Everything that defines a Q-Former; the fields of its blocks stand at the top level."""

    method = "q-former"
    least_modalities = 2
    queries: Annotated[int, Field(ge=1, le=1024)] = 8
    """Learned queries of each modality beside the anchor; BLIP-2 has 32."""
    crossing: Annotated[int, Field(ge=1, le=256)] = 2
    """The first of every so many blocks has cross-attention, as in the source; 1: all have."""


class QFormer(Fusion[QFormerConfig]):
    """Learned queries draw a fixed number of vectors out of any length, and meet the anchor's tokens.

    Kept from the source: queries and text pass one self-attention; queries alone cross-attend, in the
    first of every two blocks; queries and text have feed-forward parts of their own; norms stand after
    each residual sum; queries start near zero. The mean of the last queries is read out, as in image-text
    matching, where the logits of queries are averaged.

    Chosen here: the anchor, the first of `anchors`, takes the place of text. Every other modality has
    queries and cross-attention of its own; all queries share one self-attention. The pooled anchor stands
    beside the mean query. A missing modality's queries are masked; only in samples with nothing beside
    the anchor do they read the absent tokens. A missing anchor is one absent token, which no query sees.

    Left out: the losses of pre-training (contrast, matching, captions) and the language model behind. The
    embedding is (batch, 2 * d_model).

    Source:
        Li, Li, Savarese and Hoi, ICML 2023, arXiv:2301.12597, section 3.
    """

    config_class = QFormerConfig
    summary = "Learned queries that read the other modalities beside the anchor's tokens (BLIP-2)"
    tags = ("transformer",)

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__(config, config.d_model)
        _, *sides = config.anchors
        self.queries = WeightsByName(
            {name: nn.Parameter(0.02 * torch.randn(config.queries, config.d_model)) for name in sides}
        )
        self.side_norms = ModulesByName({name: nn.LayerNorm(config.d_model) for name in sides})
        self.norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            QFormerBlock(config, tuple(sides) if number % config.crossing == 0 else ())
            for number in range(config.depth)
        )
        self.head = Head(2 * config.d_model, config.task, config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        present = {name: tokens.mask.any(1) for name, tokens in encoded.items()}
        placed = {
            name: Tokens(tokens.x + sinusoidal_positions(tokens.x), tokens.mask, tokens.times)
            for name, tokens in self._with_absent(encoded).items()
        }
        anchor, *sides = placed
        text = placed.pop(anchor)
        context = {
            name: Tokens(self.side_norms[name](side.x), side.mask, side.times)
            for name, side in placed.items()
        }
        # Queries of a modality that a sample lacks are masked, unless all would be.
        none = ~torch.stack([present[name] for name in sides]).any(0)
        heard = torch.stack([present[name] | none for name in sides], 1).repeat_interleave(
            self.config.queries, 1
        )
        seen = text.mask & present[anchor].unsqueeze(1)
        count = text.x.shape[0]
        queries = torch.cat([self.queries[name].to(text.x.dtype).expand(count, -1, -1) for name in sides], 1)
        queries, words = (self.dropout(self.norm(part)) for part in (queries, text.x))
        for block in self.blocks:
            queries, words = block(queries, words, heard, seen, context)
        embedding = torch.cat([masked_mean(queries, heard), self._pooled(words, text.mask)], 1)
        return Output(prediction=self.head(embedding), embedding=embedding)


class QFormerBlock(nn.Module):
    """Self-attention of queries and anchor, cross-attention of queries, a feed-forward part for each;
    post-norm.

    Args:
        config: Shape of the block.
        sides: Modalities that queries read in this block, in the order of their queries; may be empty.
    """

    def __init__(self, config: QFormerConfig, sides: tuple[str, ...]) -> None:
        super().__init__()
        width, wide = config.d_model, config.expand * config.d_model
        self.own = Attention(config)
        self.own_norm = nn.LayerNorm(width)
        self.cross = ModulesByName({name: Attention(config) for name in sides})
        self.cross_norm = nn.LayerNorm(width) if sides else None
        self.feed = ModulesByName(
            {
                name: nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width))
                for name in ("queries", "anchor")
            }
        )
        self.feed_norms = ModulesByName({name: nn.LayerNorm(width) for name in self.feed})
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, queries: Tensor, words: Tensor, heard: Tensor, seen: Tensor, context: Mapping[str, Tokens]
    ) -> tuple[Tensor, Tensor]:
        """Queries and anchor tokens, (batch, query, d_model) and (batch, time, d_model), to the same.

        Args:
            queries: Those of all other modalities, one modality after the other.
            words: The anchor's tokens.
            heard: Queries that are attended to, (batch, query) bool.
            seen: Anchor tokens that are attended to, (batch, time) bool.
            context: Tokens that the queries of each other modality read, at least one valid in every sample.
        """
        joined = torch.cat([queries, words], 1)
        joined = self.own_norm(joined + self.dropout(self.own(joined, joined, torch.cat([heard, seen], 1))))
        queries, words = joined.split([queries.shape[1], words.shape[1]], 1)
        if self.cross_norm is not None:
            parts = queries.chunk(len(self.cross), 1)
            read = [
                attention(part, context[name].x, context[name].mask)
                for part, (name, attention) in zip(parts, self.cross.items(), strict=True)
            ]
            queries = self.cross_norm(queries + self.dropout(torch.cat(read, 1)))
        queries, words = (
            self.feed_norms[name](x + self.dropout(self.feed[name](x)))
            for name, x in (("queries", queries), ("anchor", words))
        )
        return queries, words


QUERYING_TRANSFORMER = Method(
    network=QFormer,
    search={"options.queries": Choice((4, 8, 16, 32))},
    source="BLIP-2: Li et al., ICML 2023, arXiv 2301.12597",
    needs="two modalities or more",
    differs=(
        "Feature mode, trained end to end on the task: no pre-training losses, no language model. Each"
        " modality beside the anchor has queries and cross-attention of its own; 8 queries in place of 32."
    ),
)
"""Q-Former as a method."""
