"""Networks in which every modality reads every other through the Transformers of the published MulT."""

from collections.abc import Mapping
from typing import Final, Self, TypeVar

import torch
from pydantic import model_validator
from torch import Tensor, nn

from alignmamba.models.encoded import Encoded, Fusion, FusionConfig
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.crossmodal_transformer import CrossmodalConfig, Narrowing, Reader
from alignmamba.nn.encoders import EncoderConfig
from alignmamba.nn.language import AnyEncoderConfig
from alignmamba.ops import last_valid

_LEAST_OWN: Final = 3
"""Layers of self-attention at least, where nobody says how many."""

Stream = tuple[Tensor, Tensor]
"""Tokens (batch, time, d_model) and their mask (batch, time) bool."""


class CrossmodalFusionConfig(FusionConfig, CrossmodalConfig):
    """Fields of such a network; those of its parts stand at the top level."""

    least_modalities = 2
    encoder: AnyEncoderConfig = EncoderConfig(kind="none", dropout=0.0)

    @model_validator(mode="after")
    def _for_its_modalities(self) -> Self:
        names = [modality.name for modality in self.modalities]
        unknown = [name for name in self.kernel_sizes if name not in names]
        if unknown:
            raise ValueError(f"kernel_sizes: found {unknown[0]!r}, expected some of {names}")
        return self


ConfigT = TypeVar("ConfigT", bound=CrossmodalFusionConfig)


class CrossmodalFusion(Fusion[ConfigT]):
    """A convolution per modality, a Transformer per ordered pair, and self-attention over what a target
    received.

    A missing source is not attended to; a missing target asks with its learned token.
    """

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config, config.d_model)
        names, width, kernels = config.anchors, config.d_model, config.kernel_sizes
        self.convolutions = ModulesByName(
            {
                name: Narrowing(self._encoder(name).width, width, kernels.get(name, config.kernel_size))
                for name in names
            }
        )
        self.anchor_dropout = nn.Dropout(config.anchor_dropout)
        self.crossed = ModulesByName(
            {
                target: ModulesByName(
                    {source: Reader(config, width, config.depth) for source in names if source != target}
                )
                for target in names
            }
        )
        self.read_width = (len(names) - 1) * width
        own_depth = config.own_depth or max(config.depth, _LEAST_OWN)
        self.own = ModulesByName({name: Reader(config, self.read_width, own_depth) for name in names})

    def _streams(self, encoded: Encoded) -> dict[str, Stream]:
        """Every modality after its convolution, in anchor order."""
        first = next(iter(encoded))
        return {
            name: self.convolutions[name](
                self.anchor_dropout(tokens.x) if name == first else tokens.x, tokens.mask
            )
            for name, tokens in self._with_absent(encoded).items()
        }

    def _exchanged(self, streams: Mapping[str, Stream], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The last token of each target after it has read the others, (batch, (modalities - 1) * d_model).

        Args:
            streams: In anchor order.
            present: (batch, 1) bool by modality.
        """
        last = {}
        for target, (x, mask) in streams.items():
            received = [
                self.crossed[target][source](x, mask, other, other_mask & present[source])  # type: ignore[index]
                for source, (other, other_mask) in streams.items()
                if source != target
            ]
            last[target] = last_valid(self.own[target](torch.cat(received, 2), mask), mask)
        return last
