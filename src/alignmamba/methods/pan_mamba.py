"""Pan-Mamba: streams swap half of their channels, then one of them is refined by scans of the others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Output
from alignmamba.methods.method import Method
from alignmamba.models.encoded import Encoded, Fusion, FusionConfig, Head
from alignmamba.nn.alignment import Tokens, first_present
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.channel_swap import swap_channels
from alignmamba.nn.mamba import MambaBlock, MambaBranch, MambaConfig, MambaLayer
from alignmamba.nn.masked_convolution import TimeConvolution
from alignmamba.ops import resample


class PanMambaConfig(FusionConfig, MambaConfig):
    """Everything that defines a Pan-Mamba; the fields of its Mamba blocks stand at the top level.

    A missing modality is read by nobody, so `absent` decides nothing here.
    """

    method = "pan-mamba"
    least_modalities = 2
    depth: Annotated[int, Field(ge=1, le=256)] = 2
    """Blocks of each stream alone, before the exchanges; 8 in the source."""
    swaps: Annotated[int, Field(ge=1, le=64)] = 2
    """Channel swapping blocks, as many as in the source."""
    crossings: Annotated[int, Field(ge=1, le=64)] = 2
    """Cross-modal blocks of the main stream; 5 in the source."""
    bidirectional: Literal[False] = False
    """The source scans in one direction."""


class PanMamba(Fusion[PanMambaConfig]):
    """Mamba blocks of each stream alone, then channel swapping blocks, then cross-modal ones of a main
    stream.

    Kept from the source: a swapping block exchanges the first half of the channels before each stream's
    own Mamba; a convolution over all streams side by side follows; in a cross-modal block the main
    stream's scan and that of its guide, each with a gate, a convolution and maps of its own, are added
    before the out-projection, and a depthwise convolution follows. As in the released code, neither input
    nor output map comes from the other stream, though the paper can be read so. The guides stay as they
    were before the first such block.

    Chosen here: the main stream, the image to be sharpened in the source, is each sample's anchor, and
    all others are guides, of whose scans the mean is taken. With more than two streams, channels go round in
    a circle. Other lengths are resampled to the receiver's by relative time. A missing modality neither sends
    nor guides. Images become sequences in time, convolutions one-dimensional, norms those of the other Mambas
    here.

    Not repeated from the released code: it loses the residual sums before and after the cross-modal
    blocks, applies their norms twice, and feeds the second stream's convolution with the first stream's
    result. The embedding is the pooled main stream, (batch, d_model).

    Source:
        He, Cao, Yan, Li, Xie, Zhang and Zhou, arXiv:2402.12192, and the code that its authors released.
    """

    config_class = PanMambaConfig
    summary = "Mamba streams that swap channels, then one main stream refined by scans of the others"
    tags = ("mamba",)

    def __init__(self, config: PanMambaConfig) -> None:
        super().__init__(config, config.d_model)
        self.absent_tokens.requires_grad_(False)
        names, width = config.anchors, config.d_model
        self.alone = ModulesByName(
            {name: nn.ModuleList(MambaLayer(config) for _ in range(config.depth)) for name in names}
        )
        self.swapping = nn.ModuleList(SwappingLayer(config) for _ in range(config.swaps))
        self.mixing = ModulesByName({name: TimeConvolution(len(names) * width, width, 3) for name in names})
        self.crossing = nn.ModuleList(CrossingLayer(config, names[1:]) for _ in range(config.crossings))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = Head(width, config.task, config.dropout)

    def _read(self, encoded: Encoded) -> Output:
        present = {name: tokens.mask.any(1) for name, tokens in encoded.items()}
        streams = self._with_absent(encoded)
        for name, layers in self.alone.items():
            assert isinstance(layers, nn.ModuleList)
            for layer in layers:
                streams[name] = replace(streams[name], x=layer(streams[name].x, streams[name].mask))
        for layer in self.swapping:
            streams = layer(streams, present)
        mixed = {name: self._mixed(name, streams, present) for name in streams}
        sent = {
            name: replace(tokens, mask=tokens.mask & present[name].unsqueeze(1))
            for name, tokens in mixed.items()
        }
        main, is_main = first_present(sent)
        guides, guiding = {}, {}
        # The first one guides nobody: where it is present, it is the main stream.
        for name in self.config.anchors[1:]:
            guides[name] = resample(sent[name].x, sent[name].mask, main.mask)
            guiding[name] = present[name] & ~is_main[name]
        x = main.x
        for layer in self.crossing:
            x = layer(x, main.mask, guides, guiding)
        embedding = self._pooled(self.norm(x), main.mask)
        return Output(prediction=self.head(embedding), embedding=embedding)

    def _mixed(self, name: str, streams: Mapping[str, Tokens], present: Mapping[str, Tensor]) -> Tokens:
        """A stream, and what a convolution makes of it and all others, zeros for a missing one."""
        own = streams[name]
        others = [
            resample(tokens.x, tokens.mask & present[other].unsqueeze(1), own.mask)
            for other, tokens in streams.items()
            if other != name
        ]
        return replace(own, x=own.x + self.mixing[name](torch.cat([own.x, *others], 2), own.mask))


class SwappingLayer(nn.Module):
    """Norms, the exchange of the first half of the channels, a Mamba for each stream; residual."""

    swapped: Tensor

    def __init__(self, config: PanMambaConfig) -> None:
        super().__init__()
        width = config.d_model
        self.norms = ModulesByName({name: nn.RMSNorm(width, eps=1e-5) for name in config.anchors})
        self.blocks = ModulesByName({name: MambaBlock(config) for name in config.anchors})
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("swapped", torch.arange(width) < width // 2, persistent=False)

    def forward(self, streams: Mapping[str, Tokens], present: Mapping[str, Tensor]) -> dict[str, Tokens]:
        """Exchange once; `present` holds for each modality the samples in which it sends, (batch,) bool."""
        normed = {name: replace(tokens, x=self.norms[name](tokens.x)) for name, tokens in streams.items()}
        swapped = swap_channels(normed, present, self.swapped)
        return {
            name: replace(tokens, x=tokens.x + self.dropout(self.blocks[name](swapped[name])))
            for name, tokens in streams.items()
        }


class CrossingLayer(nn.Module):
    """The main stream's scan and the mean of its guides', out-projection, local convolution; residual.

    Args:
        config: Shape of the blocks.
        guides: Modalities that can be guides.
    """

    def __init__(self, config: MambaConfig, guides: tuple[str, ...]) -> None:
        super().__init__()
        width = config.d_model
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.main = MambaBranch(config)
        self.guide_norms = ModulesByName({name: nn.RMSNorm(width, eps=1e-5) for name in guides})
        self.guides = ModulesByName({name: MambaBranch(config) for name in guides})
        self.out_projection = nn.Linear(self.main.inner, width, bias=False)
        self.local = TimeConvolution(width, width, 3, by_channel=True)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Tensor, guides: Mapping[str, Tensor], guiding: Mapping[str, Tensor]
    ) -> Tensor:
        """(batch, time, d_model) to the same.

        Args:
            x: The main stream.
            mask: Its valid tokens, (batch, time).
            guides: The others at its length, (batch, time, d_model).
            guiding: For each of them, (batch,) bool: the samples in which it guides.
        """
        count = torch.stack([guiding[name] for name in guides]).sum(0).clamp(min=1)[:, None, None]
        read = torch.stack(
            [
                self.guides[name](self.guide_norms[name](guides[name])) * guiding[name][:, None, None]
                for name in guides
            ]
        ).sum(0)
        y = self.out_projection(self.main(self.norm(x)) + read / count)
        out: Tensor = x + self.dropout(y + self.local(y, mask))
        return out


CHANNEL_SWAPPING = Method(
    network=PanMamba,
    source="He et al., 2024, arXiv 2402.12192",
    needs="two modalities or more",
    differs=(
        "Sequences in time for images, resampled to one length by relative time. The anchor of a"
        " sample is the"
        " main stream, all others are its guides. Two blocks of each stream alone in place of 8, two"
        " cross-modal ones in place of 5."
    ),
)
"""Pan-Mamba as a method."""
