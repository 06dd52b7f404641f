"""Fusion-Mamba: streams swap channels, then meet in a hidden state space that all of them gate."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Output
from alignmamba.methods.method import Method
from alignmamba.models.encoded import Encoded, Fusion, FusionConfig, Head
from alignmamba.nn.alignment import Tokens
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.channel_swap import swap_channels
from alignmamba.nn.mamba import MambaConfig, SelectiveScan
from alignmamba.nn.masked_convolution import TimeConvolution
from alignmamba.ops import resample, reverse_valid


class FusionMambaConfig(FusionConfig, MambaConfig):
    """Everything that defines a Fusion-Mamba; the fields of its blocks stand at the top level.

    A missing modality is read by nobody, so `absent` decides nothing here.
    """

    method = "fusion-mamba"
    least_modalities = 2
    depth: Annotated[int, Field(ge=1, le=256)] = 2
    """Dual state space fusion blocks; 8 in the source."""
    d_conv: Annotated[int, Field(ge=1, le=15)] = 3
    """Width of the centred depthwise convolution, in tokens; odd."""
    bidirectional: bool = True
    """A second scan in each block, from the last token to the first; an image has four."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.d_conv % 2 == 0:
            raise ValueError(f"d_conv: expected an odd number, found {self.d_conv}")
        return self


class FusionMamba(Fusion[FusionMambaConfig]):
    """State space channel swapping, then blocks of dual state space fusion; the sum of all streams is read.

    Kept from the source: the second and fourth quarter of the channels are exchanged before a state space
    block of each stream; in a fusion block each stream has an in-projection, a convolution and an
    out-projection of its own, and all share one selective scan; what a stream receives is the sum of all
    hidden states, gated by itself. The result is added to the encoded streams, and these are summed.

    Chosen here: with more than two streams, channels go round in a circle, and hidden states of all are
    summed. Other lengths are resampled to the receiver's by relative time; pooled streams are summed. A
    missing modality sends nothing; sums grow by the share that is missing, so that their scale stays. Images
    become sequences in time: two directions in place of four, one-dimensional convolutions.

    Not repeated from the released code: it overwrites the first stream's hidden state before the second
    stream reads it. The embedding is (batch, d_model).

    Source:
        Dong, Zhu, Lin, Luo, Shen, Guo and Zhang, IEEE Transactions on Multimedia 2025, arXiv:2404.09146, and
        the code that its authors released.
    """

    config_class = FusionMambaConfig
    summary = "Streams that swap channels, then fuse the gated states of one shared selective scan"
    tags = ("mamba",)
    swapped: Tensor

    def __init__(self, config: FusionMambaConfig) -> None:
        super().__init__(config, config.d_model)
        self.absent_tokens.requires_grad_(False)
        names, width = config.anchors, config.d_model
        self.register_buffer("swapped", torch.arange(width) * 4 // width % 2 == 1, persistent=False)
        self.shallow = ModulesByName({name: HiddenFusion(config, (name,)) for name in names})
        self.deep = nn.ModuleList(HiddenFusion(config, names) for _ in range(config.depth))
        self.norms = ModulesByName({name: nn.LayerNorm(width) for name in names})
        self.head = Head(width, config.task, config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        present = {name: tokens.mask.any(1) for name, tokens in encoded.items()}
        local = self._with_absent(encoded)
        streams: dict[str, Tokens] = {}
        for name, x in swap_channels(local, present, self.swapped).items():
            streams |= self.shallow[name]({name: replace(local[name], x=x)}, present)
        for block in self.deep:
            streams = block(streams, present)
        pooled = {
            name: self._pooled(self.norms[name](tokens.x + local[name].x), tokens.mask)
            for name, tokens in streams.items()
        }
        embedding = _sum_of_present(pooled, present)
        return Output(prediction=self.head(embedding), embedding=embedding)


class HiddenFusion(nn.Module):
    """One block of dual state space fusion; of a single stream, a plain state space block. Pre-norm,
    residual.

    Args:
        config: Shape of the block.
        names: The streams.
    """

    def __init__(self, config: MambaConfig, names: tuple[str, ...]) -> None:
        super().__init__()
        width, inner = config.d_model, config.expand * config.d_model
        self.norms = ModulesByName({name: nn.LayerNorm(width) for name in names})
        self.in_projections = ModulesByName({name: nn.Linear(width, 2 * inner, bias=False) for name in names})
        self.convolutions = ModulesByName(
            {name: TimeConvolution(inner, inner, config.d_conv, by_channel=True) for name in names}
        )
        self.scan = SelectiveScan(config)
        self.backward_scan = SelectiveScan(config) if config.bidirectional else None
        self.hidden_norms = ModulesByName({name: nn.LayerNorm(inner) for name in names})
        self.out_projections = ModulesByName({name: nn.Linear(inner, width, bias=False) for name in names})
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, streams: Mapping[str, Tokens], present: Mapping[str, Tensor]) -> dict[str, Tokens]:
        """Fuse once.

        Args:
            streams: Each modality's tokens, at least one valid in every sample.
            present: For each modality, (batch,) bool: the samples in which it sends.

        Returns:
            The streams, each at its own length.
        """
        hidden, gates = {}, {}
        for name, tokens in streams.items():
            drive, gates[name] = self.in_projections[name](self.norms[name](tokens.x)).chunk(2, dim=-1)
            drive = F.silu(self.convolutions[name](drive, tokens.mask))
            y = self.scan(drive)
            if self.backward_scan is not None:
                y = y + reverse_valid(self.backward_scan(reverse_valid(drive, tokens.mask)), tokens.mask)
            hidden[name] = self.hidden_norms[name](y)
        fused = {}
        for name, tokens in streams.items():
            arrived = {
                other: y if other == name else resample(y, streams[other].mask, tokens.mask)
                for other, y in hidden.items()
            }
            out = self.out_projections[name](_sum_of_present(arrived, present) * F.silu(gates[name]))
            fused[name] = replace(tokens, x=tokens.x + self.dropout(out))
        return fused


def _sum_of_present(parts: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
    """The sum over the modalities of a sample, times all over present ones; zero where there are none."""
    rows = torch.stack([present[name] for name in parts], 1)
    shape = (-1, *(1,) * (next(iter(parts.values())).ndim - 1))
    total = torch.stack([x.masked_fill(~present[name].view(shape), 0) for name, x in parts.items()]).sum(0)
    share: Tensor = len(parts) / rows.sum(1).clamp(min=1).to(total.dtype)
    return total * share.view(shape)


DUAL_STATE_SPACE = Method(
    network=FusionMamba,
    source="Dong et al., IEEE Transactions on Multimedia 2025, arXiv 2404.09146",
    needs="two modalities or more",
    differs=(
        "Sequences in time for images, resampled to one length by relative time: two directions"
        " of the scan in"
        " place of four. One level of features in place of three; two fusion blocks in place of 8. The"
        " released code's asymmetry is not repeated."
    ),
)
"""Fusion-Mamba as a method."""
