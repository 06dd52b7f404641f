"""The parts of the published MulT: convolutions without padding, Transformers that read another sequence, and
a residual block.

`nn.attention` holds the same idea in today's form, at equal widths and with fused attention.
"""

from collections.abc import Mapping
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Config, Name
from alignmamba.nn.attention import sinusoidal_positions
from alignmamba.ops.backends import exporting


class CrossmodalConfig(Config):
    """Shape of the parts."""

    d_model: Annotated[int, Field(ge=1, le=8192)] = 40
    """Width of a token after the convolutions."""
    depth: Annotated[int, Field(ge=1, le=256)] = 4
    """Layers of each crossmodal Transformer."""
    own_depth: Annotated[int, Field(ge=1, le=256)] | None = None
    """Layers of self-attention over what a target received; none: ``depth``, and 3 at least, as published."""
    heads: Annotated[int, Field(ge=1, le=256)] = 8
    """Attention heads; they share the channels evenly."""
    kernel_size: Annotated[int, Field(ge=1, le=255)] = 3
    """Width of the convolution of a modality, in tokens: a sequence becomes shorter by this less one, and
    keeps one token."""
    kernel_sizes: Mapping[Name, Annotated[int, Field(ge=1, le=255)]] = Field(default_factory=dict)
    """The same for named modalities."""
    causal: bool = True
    """Let token i of a target read tokens of a source up to i plus the difference of their lengths, instead
    of all."""
    positions: bool = True
    """Add sinusoidal positions."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout on attention weights."""
    embed_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout on the tokens that enter a Transformer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout on the output of each part of a layer, and within its feed-forward part."""
    anchor_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout on the features of the first anchor."""
    output_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout within the residual block before the head."""

    @model_validator(mode="after")
    def _shared_evenly(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(
                f"heads: found {self.heads}, expected a divisor of d_model, which is {self.d_model}"
            )
        return self


class Narrowing(nn.Conv1d):
    """A convolution without padding or bias over the valid tokens."""

    def __init__(self, width: int, out: int, size: int) -> None:
        super().__init__(width, out, size, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # needs to know what is valid
        """Make (batch, time, width) with its mask tokens (batch, time - size + 1, out) and their mask.

        A sequence shorter than the kernel stands before zeros and becomes one token.
        """
        size = self.kernel_size[0]
        # a program may not ask which is larger
        short = size - 1 if exporting() else max(0, size - x.shape[1])
        x = nn.functional.pad(x.masked_fill(~mask.unsqueeze(2), 0), (0, 0, 0, short))
        convolved: Tensor = super().forward(x.transpose(1, 2)).transpose(1, 2)
        left = (mask.sum(1, keepdim=True) - size + 1).clamp(min=1)
        return convolved, torch.arange(convolved.shape[1], device=x.device) < left


class Reader(nn.Module):
    """Pre-norm layers in which a target reads a source, or itself where there is none.

    Keys and values are the source's input at every layer, under the norm of the target.

    Args:
        config: Heads, dropouts and order.
        width: Of a token.
        depth: Layers.

    Source:
        Tsai et al., arXiv:1906.00295, section 3.2 and the public code.
    """

    def __init__(self, config: CrossmodalConfig, width: int, depth: int) -> None:
        super().__init__()
        self.scale, self.positions = width**0.5, config.positions
        self.causal, self.heads = config.causal, config.heads
        self.layers = nn.ModuleList(_Layer(config, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.embed_dropout)

    def forward(
        self, x: Tensor, mask: Tensor, source: Tensor | None = None, source_mask: Tensor | None = None
    ) -> Tensor:
        """(batch, time, width) reads (batch, source time, width) where `source_mask` is true."""
        seen = mask if source_mask is None else source_mask
        allowed = seen.unsqueeze(1).expand(-1, x.shape[1], -1)
        if self.causal:
            ahead = (mask.sum(1) - seen.sum(1)).abs()[:, None, None]
            rows, columns = (torch.arange(length, device=x.device) for length in allowed.shape[1:])
            allowed = allowed & (columns <= rows.unsqueeze(1) + ahead)
        # A softmax over nothing is undefined: such a token reads all here, and nothing in the end.
        some = allowed.any(2, keepdim=True)
        refused = (~(allowed | ~some)).repeat_interleave(self.heads, 0)
        x = self._placed(x)
        source = None if source is None else self._placed(source)
        for layer in self.layers:
            x = layer(x, source, refused, some)
        normed: Tensor = self.norm(x)
        return normed

    def _placed(self, x: Tensor) -> Tensor:
        placed: Tensor = self.dropout(self.scale * x + (sinusoidal_positions(x) if self.positions else 0))
        return placed


class _Layer(nn.Module):
    """Attention, then a feed-forward part of four times the width; source and target share a norm."""

    def __init__(self, config: CrossmodalConfig, width: int) -> None:
        super().__init__()
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(
            width, config.heads, config.attention_dropout, batch_first=True
        )
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)
        for linear in (self.attention.out_proj, self.widen, self.narrow):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, source: Tensor | None, refused: Tensor, some: Tensor) -> Tensor:
        """(batch, time, width) to the same; `refused` is (batch * heads, time, source time)."""
        query = self.norm(x)
        key = query if source is None else self.norm(source)
        attended = self.attention(query, key, key, attn_mask=refused, need_weights=False)[0].masked_fill(
            ~some, 0
        )
        x = x + self.dropout(attended)
        fed = self.narrow(self.dropout(self.widen(self.feed_norm(x)).relu()))
        out: Tensor = x + self.dropout(fed)
        return out


class Residual(nn.Sequential):
    """Two linear maps of one width with ReLU and dropout between them, added to what they read."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width) to the same."""
        out: Tensor = x + super().forward(x)  # type: ignore[no-untyped-call]
        return out
