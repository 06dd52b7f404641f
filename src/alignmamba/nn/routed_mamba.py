"""Mamba over tokens of several modalities: projections are shared, plus one of the token's modality."""

import torch
from torch import Tensor, nn

from alignmamba.nn.mamba import MambaBlock, MambaConfig
from alignmamba.ops import causal_conv, reverse_valid


class Experts(nn.Module):
    """One linear map per modality, of which a token meets that of its own; all start at zero.

    Args:
        width: Channels of a token.
        out: Channels of the result.
        count: Modalities.
    """

    def __init__(self, width: int, out: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(count, out, width))

    def forward(self, x: Tensor, kinds: Tensor) -> Tensor:
        """(batch, time, width) and one-hot modalities, (batch, time, modality), to (batch, time, out)."""
        each = torch.stack(
            [(x * kinds[..., number, None]) @ weight.T for number, weight in enumerate(self.weight)]
        )
        return each.sum(0)


class RoutedBlock(MambaBlock):
    """A Mamba block whose in- and out-projection have an expert per modality beside the shared one."""

    def __init__(self, config: MambaConfig, count: int) -> None:
        super().__init__(config)
        inner = config.expand * config.d_model
        self.in_experts = Experts(config.d_model, 2 * inner, count)
        self.out_experts = Experts(inner, config.d_model, count)

    def routed(self, x: Tensor, kinds: Tensor) -> Tensor:
        """(batch, time, d_model) and modalities, (batch, time, modality), to the same; causal."""
        drive, gate = (self.in_projection(x) + self.in_experts(x, kinds)).chunk(2, dim=-1)
        y, _ = self._scan(causal_conv(drive, self.conv_weight, self.conv_bias), gate)
        out: Tensor = self.out_projection(y) + self.out_experts(y, kinds)
        return out


class RoutedLayer(nn.Module):
    """`alignmamba.nn.mamba.MambaLayer` of such blocks."""

    def __init__(self, config: MambaConfig, count: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.d_model, eps=1e-5)
        self.block = RoutedBlock(config, count)
        self.backward_block = RoutedBlock(config, count) if config.bidirectional else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, kinds: Tensor) -> Tensor:
        normed = self.norm(x)
        y = self.block.routed(normed, kinds)
        if self.backward_block is not None:
            turned = self.backward_block.routed(reverse_valid(normed, mask), reverse_valid(kinds, mask))
            y = y + reverse_valid(turned, mask)
        out: Tensor = x + self.dropout(y)
        return out


class RoutedMambaStack(nn.Module):
    """`depth` such layers and a final norm.

    Args:
        config: Shape of the stack.
        count: Modalities.
    """

    def __init__(self, config: MambaConfig, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(RoutedLayer(config, count) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.d_model, eps=1e-5)
        with torch.no_grad():
            for layer in self.layers:
                for module in layer.modules():
                    if isinstance(module, RoutedBlock):  # residual branches start smaller in a deep stack
                        module.out_projection.weight.div_(config.depth**0.5)

    def forward(self, x: Tensor, mask: Tensor, kinds: Tensor) -> Tensor:
        """(batch, time, d_model), valid tokens first, its mask and (batch, time, modality), to the same."""
        for layer in self.layers:
            x = layer(x, mask, kinds)
        normed: Tensor = self.norm(x)
        return normed
