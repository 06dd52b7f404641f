"""MulT as published: crossmodal Transformers for all pairs, self-attention, and a residual head."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import model_validator
from torch import Tensor

from alignmamba.contracts import Output
from alignmamba.methods.method import Method
from alignmamba.methods.search_space import Choice
from alignmamba.models.crossmodal import CrossmodalFusion, CrossmodalFusionConfig
from alignmamba.models.encoded import Encoded, Head
from alignmamba.nn.crossmodal_transformer import Residual


class MulTConfig(CrossmodalFusionConfig):
    """Everything that defines a MulT."""

    method = "mult"
    FORMER_OPTIONS: ClassVar[frozenset[str]] = frozenset({"expand", "attention"})
    """Options by which runs of an earlier version are known, in which the name meant another network."""
    FORMER_NAME: ClassVar[str] = "this was the simplified MulT, now called crossmodal-transformer"
    """Answer to such runs."""

    @model_validator(mode="before")
    @classmethod
    def _of_this_version(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and cls.FORMER_OPTIONS & set(values):
            raise ValueError(cls.FORMER_NAME)
        return values


class MulT(CrossmodalFusion[MulTConfig]):
    """Multimodal Transformer.

    Kept from the source: convolutions without padding or bias, a crossmodal Transformer for every ordered
    pair whose keys and values are the source's input at every layer under the norm of the target,
    self-attention over what a target received, the last token of each target, a residual block and a linear
    head.

    Not repeated of the public code: a last token and keys that are padding; a convolution that is skipped
    where a modality happens to be as wide as the model. A missing source is not attended to; a missing target
    asks with its learned token.

    The last tokens, in anchor order, are the embedding, (batch, modalities * (modalities - 1) * d_model).

    Source:
        Tsai et al., ACL 2019, arXiv:1906.00295.
    """

    config_class = MulTConfig
    summary = "Crossmodal Transformers for all pairs of modalities, as published"
    tags = ("transformer",)

    def __init__(self, config: MulTConfig) -> None:
        super().__init__(config)
        width = len(config.anchors) * self.read_width
        self.residual = Residual(width, config.output_dropout)
        self.head = Head(width, config.task, 0.0)

    def _read(self, encoded: Encoded) -> Output:
        present: dict[str, Tensor] = {
            name: tokens.mask.any(1, keepdim=True) for name, tokens in encoded.items()
        }
        last = self._exchanged(self._streams(encoded), present)
        embedding = torch.cat(list(last.values()), 1)
        return Output(prediction=self.head(self.residual(embedding)), embedding=embedding, extras=last)


MULTIMODAL_TRANSFORMER = Method(
    network=MulT,
    search={"options.kernel_size": Choice((1, 3, 5))},
    settings={
        "loader": {"batch_size": 128},
        "fit": {
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "warmup_fraction": 0.0,
            "gradient_clip": 0.8,
            "epochs": 100,
            "patience": 0,
        },
    },
    source="Tsai et al., ACL 2019, arXiv 1906.00295",
    needs="two modalities or more",
    differs=(
        "Feature mode. Padding is masked, and the last token is the last valid one. 8 heads in place of 10."
    ),
)
"""MulT as a method; rates are the authors' for MOSI."""
