"""Co-attention: streams that read one another at every layer, as in LXMERT and ViLBERT."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from alignmamba.contracts import Output
from alignmamba.methods.method import Method
from alignmamba.models.encoded import Encoded, Fusion, FusionConfig, Head
from alignmamba.nn.attention import Attention, AttentionConfig, sinusoidal_positions
from alignmamba.nn.by_name import ModulesByName


class CoAttentionConfig(FusionConfig, AttentionConfig):
    """Everything that defines a co-attention network; the fields of the layers stand at the top level."""

    method = "co-attention"
    least_modalities = 2
    shared: bool = True
    """Use one attention module for both directions of a pair, as LXMERT does; otherwise one for each, as
    ViLBERT does."""


class CoAttention(Fusion[CoAttentionConfig]):
    """Layers of co-attention between all pairs of modalities.

    Kept from the sources: in a layer every stream first reads the others as they were before it, then itself,
    then passes its own feed-forward part; norms stand after each residual sum. Simplified: pre-training tasks
    and the layers of each stream alone before the first exchange are left to the encoders; a stream takes the
    mean of what it reads of the others that a sample has.

    The pooled streams, one after the other in anchor order, are the embedding, (batch, modalities * d_model).

    Source:
        Tan and Bansal, EMNLP 2019, arXiv:1908.07490; Lu et al., NeurIPS 2019, arXiv:1908.02265.
    """

    config_class = CoAttentionConfig
    summary = "Streams that read one another at every layer (LXMERT, ViLBERT)"
    tags = ("transformer",)

    def __init__(self, config: CoAttentionConfig) -> None:
        super().__init__(config, config.d_model)
        self.layers = nn.ModuleList(CoAttentionLayer(config, config.anchors) for _ in range(config.depth))
        self.head = Head(len(config.anchors) * config.d_model, config.task, config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        present = {name: tokens.mask.any(1) for name, tokens in encoded.items()}
        streams = self._with_absent(encoded)
        masks = {name: tokens.mask for name, tokens in streams.items()}
        x = {name: tokens.x + sinusoidal_positions(tokens.x) for name, tokens in streams.items()}
        for layer in self.layers:
            x = layer(x, masks, present)
        embedding = torch.cat([self._pooled(x[name], masks[name]) for name in x], 1)
        return Output(prediction=self.head(embedding), embedding=embedding)


class CoAttentionLayer(nn.Module):
    """Read the others, read oneself, feed forward; post-norm."""

    def __init__(self, config: CoAttentionConfig, names: tuple[str, ...]) -> None:
        super().__init__()
        width, wide = config.d_model, config.expand * config.d_model
        self.sources = {name: [other for other in names if other != name] for name in names}
        # With sharing, the pair's module stands under its first name.
        self.owner = {
            (target, source): min((target, source), (source, target), key=lambda pair: names.index(pair[0]))
            if config.shared
            else (target, source)
            for target, sources in self.sources.items()
            for source in sources
        }
        targets = dict.fromkeys(target for target, _ in self.owner.values())
        self.cross = ModulesByName(
            {
                target: ModulesByName(
                    {
                        source: Attention(config)
                        for one, source in dict.fromkeys(self.owner.values())
                        if one == target
                    }
                )
                for target in targets
            }
        )
        self.own = ModulesByName({name: Attention(config) for name in names})
        self.feed = ModulesByName(
            {name: nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width)) for name in names}
        )
        self.norms = ModulesByName(
            {name: nn.ModuleList(nn.LayerNorm(width) for _ in range(3)) for name in names}
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Mapping[str, Tensor], masks: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Streams (batch, time, d_model) to the same.

        Args:
            x: Each modality's tokens.
            masks: Their valid tokens, (batch, time), at least one in every sample.
            present: For each modality, (batch,) bool: the samples in which the others read it.
        """
        after = {}
        for name, old in x.items():
            sources = self.sources[name]
            senders = torch.stack([present[source] for source in sources]).sum(0).clamp(min=1)[:, None, None]
            read = torch.stack(
                [
                    self._between(name, source)(old, x[source], masks[source])
                    * present[source][:, None, None]
                    for source in sources
                ]
            ).sum(0)
            norms = self.norms[name]
            assert isinstance(norms, nn.ModuleList)
            first, second, third = norms
            y = first(old + self.dropout(read / senders))
            y = second(y + self.dropout(self.own[name](y, y, masks[name])))
            after[name] = third(y + self.dropout(self.feed[name](y)))
        return after

    def _between(self, target: str, source: str) -> Attention:
        owner, other = self.owner[target, source]
        others = self.cross[owner]
        assert isinstance(others, ModulesByName)
        module = others[other]
        assert isinstance(module, Attention)
        return module


CO_ATTENTION = Method(
    network=CoAttention,
    source=(
        "LXMERT: Tan and Bansal, EMNLP 2019, arXiv 1908.07490; ViLBERT: Lu et al., NeurIPS 2019, arXiv"
        " 1908.02265"
    ),
    needs="two modalities or more",
    differs=(
        "Without pre-training. Encoders of all models here in place of layers of one stream alone. More than"
        " two streams: the mean over the others."
    ),
)
"""Co-attention as a method."""
