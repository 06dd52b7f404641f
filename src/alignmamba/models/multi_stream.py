"""Multi-stream fusion: a backbone per modality, joined in every layer, by attention, or at the end."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from alignmamba.contracts import Output, TokenVectors
from alignmamba.models.encoded import Encoded, Head, presence
from alignmamba.models.heads import UnimodalHeads
from alignmamba.models.side_by_side import SideBySide, SideBySideConfig, SideT, mean_vote, of_votes
from alignmamba.nn.alignment import Tokens
from alignmamba.nn.attention import AttentionConfig, CrossModalStack
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.mamba import MambaConfig, MambaStack
from alignmamba.ops import resample


class _MultiStream(SideBySide[SideT], ABC):
    """A stream for each modality, with outputs of its own."""

    @abstractmethod
    def _streams(self, encoded: Encoded) -> dict[str, Tokens]:
        """The streams after all layers, with an absent token where a modality is missing."""

    def _tokens_read(self, encoded: Encoded) -> tuple[Mapping[str, TokenVectors], Mapping[str, Tensor]]:
        return self._own(self._streams(encoded), encoded, self.config.anchors), {}

    def _own(self, streams: Encoded, encoded: Encoded, names: Collection[str]) -> dict[str, TokenVectors]:
        """The tokens of streams that are encoded ones, without an absent token."""
        masks = {name: encoded[name].mask for name in names}
        return {
            name: TokenVectors(x=streams[name].x[:, : mask.shape[1]], mask=mask)
            for name, mask in masks.items()
        }


class MultiStreamMambaConfig(SideBySideConfig, MambaConfig):
    """Everything that defines a multi-stream Mamba; the fields of the backbones stand at the top level."""

    no_tokens = ""


class MultiStreamMamba(_MultiStream[MultiStreamMambaConfig]):
    """One Mamba stack per modality; after each layer the streams exchange what they know through gates.

    Kept from the sources: a stream of its own for every modality, and at every depth an exchange in which a
    stream's own tokens gate what comes from the others, as hidden states do in Fusion-Mamba. Simplified:
    where the sources take equal lengths for granted, the others are resampled to a stream's length by
    relative time; in place of the exchange of channels (Pan-Mamba's channel swap, Fusion-Mamba's and
    MambaDFuse's shallow exchange) and of scans whose maps come from the other stream, the mean of the other
    streams is projected, gated and added. Streams missing from a sample receive and do not send.

    The pooled streams, one after the other in anchor order, are the embedding, (batch, modalities * d_model).

    Source:
        Fusion-Mamba, Dong et al., arXiv:2404.09146; Pan-Mamba, He et al., arXiv:2402.12192; MambaDFuse, Li et
        al., arXiv:2404.08406.
    """

    config_class = MultiStreamMambaConfig
    summary = "One Mamba stack per modality, with a gated exchange between them after each layer"
    tags = ("mamba",)

    def __init__(self, config: MultiStreamMambaConfig) -> None:
        super().__init__(config, config.d_model)
        self.stacks = ModulesByName({name: MambaStack(config) for name in config.anchors})
        # One modality alone has nobody to exchange with.
        exchanges = config.depth if len(config.anchors) > 1 else 0
        self.exchanges = nn.ModuleList(
            Exchange(config.anchors, config.d_model, config.dropout) for _ in range(exchanges)
        )
        self.head = Head(len(config.anchors) * config.d_model, config.task, config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        streams = self._streams(encoded)
        embedding = torch.cat([self._pooled(s.x, s.mask) for s in streams.values()], 1)
        tokens = self._own(streams, encoded, self.config.task.labelled_tokens)
        alone = self._unimodal(embedding, encoded)
        return Output(prediction=self.head(embedding), unimodal=alone, embedding=embedding, tokens=tokens)

    def _streams(self, encoded: Encoded) -> dict[str, Tokens]:
        present = {name: tokens.mask.any(1) for name, tokens in encoded.items()}
        streams = self._with_absent(encoded)
        for number in range(self.config.depth):
            for name, tokens in streams.items():
                streams[name] = replace(tokens, x=self._stack(name).layers[number](tokens.x, tokens.mask))
            if self.exchanges:
                streams = self.exchanges[number](streams, present)
        return {name: replace(s, x=self._stack(name).norm(s.x)) for name, s in streams.items()}

    def _stack(self, name: str) -> MambaStack:
        stack = self.stacks[name]
        assert isinstance(stack, MambaStack)
        return stack


class Exchange(nn.Module):
    """Adds to each stream the mean of the other present ones, projected and gated; residual, pre-norm."""

    def __init__(self, names: tuple[str, ...], d_model: int, dropout: float) -> None:
        super().__init__()
        self.norms = ModulesByName({name: nn.RMSNorm(d_model, eps=1e-5) for name in names})
        self.gates = ModulesByName({name: nn.Linear(d_model, d_model) for name in names})
        self.projections = ModulesByName({name: nn.Linear(d_model, d_model, bias=False) for name in names})
        self.dropout = nn.Dropout(dropout)

    def forward(self, streams: Mapping[str, Tokens], present: Mapping[str, Tensor]) -> dict[str, Tokens]:
        """Exchange once.

        Args:
            streams: Each modality's tokens, at least one valid token in every sample.
            present: For each modality, (batch,) bool: the samples in which it sends.

        Returns:
            The streams, each at its own length.
        """
        normed = {name: self.norms[name](tokens.x) for name, tokens in streams.items()}
        sent = {name: tokens.mask & present[name].unsqueeze(1) for name, tokens in streams.items()}
        exchanged = {}
        for name, tokens in streams.items():
            others = [other for other in streams if other != name]
            senders = torch.stack([present[other] for other in others]).sum(0).clamp(min=1)
            # What is not sent arrives as zero.
            arrived = torch.stack(
                [resample(normed[other], sent[other], tokens.mask) for other in others]
            ).sum(0)
            received = self.projections[name](arrived / senders[:, None, None].to(arrived.dtype))
            exchanged[name] = replace(
                tokens, x=tokens.x + self.dropout(self.gates[name](normed[name]).sigmoid() * received)
            )
        return exchanged


class CrossmodalTransformerConfig(SideBySideConfig, AttentionConfig):
    """Everything that defines a MulT; the fields of the backbone stand at the top level."""

    method = "crossmodal-transformer"
    least_modalities = 2
    no_tokens = ""


class CrossmodalTransformer(_MultiStream[CrossmodalTransformerConfig]):
    """Every modality attends to every other one, and then to itself, by crossmodal Transformers.

    Kept from the source: one crossmodal Transformer for each ordered pair of modalities, self-attention over
    what a modality received, one vector of each modality concatenated (see `nn.attention.CrossModalStack`).
    Simplified: a modality's vector is pooled as in the other models here, not its last token; one linear head
    without the residual block before it; the encoders in place of the one-dimensional convolutions are those
    of all models here.

    The pooled streams, one after the other in anchor order, are the embedding, (batch, modalities *
    (modalities - 1) * d_model).

    Source:
        Tsai et al., arXiv:1906.00295.
    """

    config_class = CrossmodalTransformerConfig
    summary = "Crossmodal Transformers between all modalities (MulT, simplified)"
    tags = ("transformer",)

    def __init__(self, config: CrossmodalTransformerConfig) -> None:
        super().__init__(config, config.d_model)
        count = len(config.anchors)
        self.backbone = CrossModalStack(config, count)
        self.head = Head(count * (count - 1) * config.d_model, config.task, config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        streams = self._streams(encoded)
        embedding = torch.cat([self._pooled(s.x, s.mask) for s in streams.values()], 1)
        tokens = self._own(streams, encoded, self.config.task.labelled_tokens)
        alone = self._unimodal(embedding, encoded)
        return Output(prediction=self.head(embedding), unimodal=alone, embedding=embedding, tokens=tokens)

    @property
    def read_width(self) -> int:
        return (len(self.config.anchors) - 1) * self.config.d_model

    def _streams(self, encoded: Encoded) -> dict[str, Tokens]:
        streams = self._with_absent(encoded)
        read = self.backbone([s.x for s in streams.values()], [s.mask for s in streams.values()])
        return {name: replace(s, x=x) for (name, s), x in zip(streams.items(), read, strict=True)}


class LateFusionConfig(SideBySideConfig, MambaConfig):
    """Everything that defines a late fusion; the fields of the backbones stand at the top level.

    A missing modality has no vote, so `absent` decides nothing here.
    """

    method = "late-fusion"
    no_tokens = "takes the mean of what modalities say, and a token is of one alone"


class LateFusion(_MultiStream[LateFusionConfig]):
    """One Mamba stack and one head per modality; the prediction is the mean over the modalities that the
    sample has.

    The plain rival that never lets modalities meet. Values are averaged in regression, scores before the
    softmax in classification. A missing modality's stream is its absent token, which no prediction sees and
    which therefore stays zero.

    The pooled streams, one after the other in anchor order, are the embedding, (batch, modalities * d_model).

    Source:
        Decision-level fusion as in Baltrušaitis et al., arXiv:1705.09406, section 6.1.
    """

    config_class = LateFusionConfig
    summary = "One Mamba stack and one head per modality, the mean of whose predictions is taken"
    tags = ("mamba",)

    def __init__(self, config: LateFusionConfig) -> None:
        super().__init__(config, config.d_model)
        self.absent_tokens.requires_grad_(False)
        self.stacks = ModulesByName({name: MambaStack(config) for name in config.anchors})
        self.heads = UnimodalHeads(config.anchors, config.d_model, config.task, config.dropout)

    @property
    def embedding_width(self) -> int:
        return len(self.stacks) * self.config.d_model

    def _read(self, encoded: Encoded) -> Output:
        pooled = [self._pooled(s.x, s.mask) for s in self._streams(encoded).values()]
        embedding = torch.cat(pooled, 1)
        votes = self.heads.votes(embedding)
        return Output(
            prediction=mean_vote(votes, presence(encoded)),
            unimodal=of_votes(self.vectors, votes, encoded, weight=self.config.unimodal_weight)
            if self._speaks_alone
            else None,
            embedding=embedding,
        )

    def _said(self, embedding: Tensor, present: Tensor) -> Tensor:
        return mean_vote(self.heads.votes(embedding), present)

    def _parts(self) -> tuple[Tensor, ...]:
        return self.heads.weights

    def _streams(self, encoded: Encoded) -> dict[str, Tokens]:
        streams = self._with_absent(encoded)
        return {name: replace(s, x=self.stacks[name](s.x, s.mask)) for name, s in streams.items()}
