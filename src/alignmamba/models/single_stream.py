"""Single-stream fusion: the tokens of all modalities in one sequence, read by one backbone."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from alignmamba.contracts import Batch, Output, TokenVectors
from alignmamba.models.encoded import ConfigT, Encoded, FusionConfig, Head, ReadsTokens
from alignmamba.nn.alignment import concatenate
from alignmamba.nn.attention import AttentionConfig, TransformerStack
from alignmamba.nn.by_name import WeightsByName
from alignmamba.nn.mamba import MambaConfig, MambaStack


class _SingleStream(ReadsTokens[ConfigT]):
    """One modality after the other, each token marked by the learned vector of its modality."""

    backbone: nn.Module
    head: Head

    def __init__(self, config: ConfigT, d_model: int) -> None:
        super().__init__(config, d_model)
        # Small beside the encoded tokens, whose channels have size 1.
        self.modality_embeddings = WeightsByName(
            {m.name: nn.Parameter(0.02 * torch.randn(d_model)) for m in config.modalities}
        )

    def fused_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sequence of the backbone, (batch, sum of times, d_model), valid tokens first, and its mask."""
        tokens, mask, _ = self._fused(self._encoded(batch))
        return tokens, mask

    def _read(self, encoded: Encoded) -> Output:
        tokens, mask, stream = self._fused(encoded)
        read = self.backbone(tokens, mask)
        embedding = self._pooled(read, mask)
        return Output(
            prediction=self.head(embedding),
            embedding=embedding,
            tokens=self._placed(read, mask, stream, encoded, self.config.task.labelled_tokens),
        )

    def _tokens_read(self, encoded: Encoded) -> tuple[Mapping[str, TokenVectors], Mapping[str, Tensor]]:
        tokens, mask, stream = self._fused(encoded)
        return self._placed(self.backbone(tokens, mask), mask, stream, encoded, self.config.anchors), {}

    def _fused(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor]:
        """The sequence of the backbone, each token marked by the vector of its modality; its mask, and the
        number of each token's modality.
        """
        streams = self._with_absent(encoded)
        return concatenate(
            [
                replace(s, x=s.x + self.modality_embeddings[name].to(s.x.dtype))
                for name, s in reversed(streams.items())
            ]
        )


class SingleStreamMambaConfig(FusionConfig, MambaConfig):
    """Everything that defines a single-stream Mamba; the fields of the backbone stand at the top level."""

    no_tokens = ""


class SingleStreamMamba(_SingleStream[SingleStreamMambaConfig]):
    """One Mamba stack over the tokens of all modalities, one modality after the other.

    Kept from the sources: modalities are mapped to one width, concatenated and read by one Mamba; language
    comes last, so that its tokens have read all others. Simplified: no pretrained language model, no image
    encoder, and no multimodal connector with a two-dimensional scan (VL-Mamba), since tokens here come in
    order; a learned vector distinguishes the modalities. With one modality it is the plain sequence model of
    that modality.

    Modalities follow one another in the reverse of the anchor order: video, audio, text.

    Source:
        VL-Mamba, Qiao et al., arXiv:2403.13600; Cobra, Zhao et al., arXiv:2403.14520.
    """

    config_class = SingleStreamMambaConfig
    summary = "One Mamba stack over the tokens of all modalities, one modality after the other"
    tags = ("mamba",)

    def __init__(self, config: SingleStreamMambaConfig) -> None:
        super().__init__(config, config.d_model)
        self.backbone = MambaStack(config)
        self.head = Head(config.d_model, config.task, config.dropout)


class SingleStreamTransformerConfig(FusionConfig, AttentionConfig):
    """Everything that defines a single-stream Transformer; the backbone's fields stand at the top."""

    no_tokens = ""


class SingleStreamTransformer(_SingleStream[SingleStreamTransformerConfig]):
    """One Transformer over the tokens of all modalities, one modality after the other.

    Kept from the sources: all tokens in one sequence, marked by a vector of their modality (the segment or
    modal-type embedding of VisualBERT and ViLT), every token attending to every valid one. Simplified:
    nothing is pretrained, there is no class token, and positions are sinusoidal and run through the whole
    sequence; the vector is pooled from all tokens.

    Modalities follow one another in the reverse of the anchor order, as in `SingleStreamMamba`.

    Source:
        VisualBERT, Li et al., arXiv:1908.03557; ViLT, Kim et al., arXiv:2102.03334; LLaVA, Liu et al.,
        arXiv:2304.08485.
    """

    config_class = SingleStreamTransformerConfig
    summary = "One Transformer over the tokens of all modalities, one modality after the other"
    tags = ("transformer",)

    def __init__(self, config: SingleStreamTransformerConfig) -> None:
        super().__init__(config, config.d_model)
        self.backbone = TransformerStack(config)
        self.head = Head(config.d_model, config.task, config.dropout)
