"""Attention backbones, the rivals of the Mamba stack: one Transformer over one sequence, and MulT's
crossmodal Transformers.

Both are plain and pre-norm. Attention is computed in one of two ways that give the same numbers: ``fused``
never holds the matrix of weights, ``materialised`` does, as implementations before fused kernels did.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Config
from alignmamba.errors import ConfigError, ShapeError
from alignmamba.ops.sequence import check_mask


class AttentionConfig(Config):
    """Shape of a stack of attention layers."""

    d_model: Annotated[int, Field(ge=1, le=8192)] = 64
    """Channels of a token."""
    depth: Annotated[int, Field(ge=1, le=256)] = 2
    """Number of layers."""
    heads: Annotated[int, Field(ge=1, le=256)] = 8
    """Attention heads; they share the channels evenly."""
    expand: Annotated[int, Field(ge=1, le=16)] = 4
    """Inner channels of the feed-forward part as a multiple of ``d_model``."""
    attention: Literal["fused", "materialised"] = "fused"
    """``fused``: `torch.nn.functional.scaled_dot_product_attention`, memory linear in time;
    ``materialised``: the matrix softmax(QK') in memory, quadratic in time."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout on the output of each part of a layer."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(
                f"heads: found {self.heads}, expected a divisor of d_model, which is {self.d_model}"
            )
        return self


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al., arXiv 1706.03762, section 3.2)."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.kind = config.attention
        self.query = nn.Linear(config.d_model, config.d_model)
        self.key_value = nn.Linear(config.d_model, 2 * config.d_model)
        self.out_projection = nn.Linear(config.d_model, config.d_model)

    def forward(self, x: Tensor, context: Tensor, context_mask: Tensor | None) -> Tensor:
        """(batch, time, d_model) attends to (batch, context time, d_model), of which (batch, context time)
        bool is valid; all if None.

        A sample without a valid context token receives the output bias alone.
        """
        q = self._by_head(self.query(x))
        k, v = (self._by_head(part) for part in self.key_value(context).chunk(2, dim=-1))
        some = None if context_mask is None else context_mask.any(1, keepdim=True)
        # A softmax over nothing would be undefined, so a sample without context sees all of it here and is
        # set to zero below.
        mask = None if context_mask is None or some is None else (context_mask | ~some)[:, None, None, :]
        attended: Tensor
        if self.kind == "fused":
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            attended = scores.softmax(-1) @ v
        attended = attended.transpose(1, 2).flatten(2)
        if some is not None:
            attended = attended.masked_fill(~some.unsqueeze(2), 0)
        out: Tensor = self.out_projection(attended)
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        """(batch, time, d_model) to (batch, head, time, channel)."""
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads


class AttentionLayer(nn.Module):
    """Pre-norm residual attention, then a pre-norm residual feed-forward part with GELU."""

    def __init__(self, config: AttentionConfig, *, crossed: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_model)
        self.context_norm = nn.LayerNorm(config.d_model) if crossed else None
        self.attention = Attention(config)
        self.feed_norm = nn.LayerNorm(config.d_model)
        self.feed = nn.Sequential(
            nn.Linear(config.d_model, config.expand * config.d_model),
            nn.GELU(),
            nn.Linear(config.expand * config.d_model, config.d_model),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, context: Tensor | None = None) -> Tensor:
        """(batch, time, d_model) to the same.

        Args:
            x: The tokens.
            mask: Valid tokens of what is attended to, `context` where it is given, else `x`; all if None.
            context: (batch, context time, d_model), for a layer made with ``crossed``.
        """
        normed = self.norm(x)
        if self.context_norm is not None and context is not None:
            attended = self.attention(normed, self.context_norm(context), mask)
        else:
            attended = self.attention(normed, normed, mask)
        x = x + self.dropout(attended)
        out: Tensor = x + self.dropout(self.feed(self.feed_norm(x)))
        return out


class TransformerStack(nn.Module):
    """Single-stream Transformer encoder: every token attends to every valid token of its sequence.

    Kept from the source: multi-head attention, feed-forward part of four times the width, sinusoidal
    positions. Changed, as is usual since: norms stand before each part and at the end, GELU in place of ReLU.

    Source:
        Vaswani et al., arXiv:1706.03762, section 3; Xiong et al., arXiv:2002.04745 (pre-norm).
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(AttentionLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, d_model) and its mask (batch, time) bool to (batch, time, d_model); what is not valid
        is never attended to.

        Raises:
            ShapeError: If `mask` does not fit `x`.
        """
        check_mask("mask", mask, x)
        x = x + sinusoidal_positions(x)
        padded = _where_padded(mask)
        for layer in self.layers:
            x = layer(x, padded)
        normed: Tensor = self.norm(x)
        return normed


class CrossModalStack(nn.Module):
    """Multi-stream Transformer (MulT): each modality attends to each other one, then the results of one
    modality to themselves.

    Kept from the source: a crossmodal Transformer for every ordered pair, whose keys and values are the other
    modality's input at every layer; their outputs concatenated for each target and read by a self-attention
    Transformer of that width; sinusoidal positions; pre-norm. Simplified: one depth and one number of heads
    for both kinds, positions added once, GELU in place of ReLU; convolutions before and the head after are
    left to the caller.

    Source:
        Tsai et al., arXiv:1906.00295, sections 3.2 and 3.3.
    """

    def __init__(self, config: AttentionConfig, num_streams: int) -> None:
        """Make a stack for `num_streams` modalities.

        Raises:
            ConfigError: If there are fewer than two.
        """
        super().__init__()
        if num_streams < 2:
            raise ConfigError(f"num_streams: expected at least 2 modalities, found {num_streams}")
        self.pairs = [
            (target, source)
            for target in range(num_streams)
            for source in range(num_streams)
            if source != target
        ]
        self.num_streams = num_streams
        self.crossed = nn.ModuleList(_Layers(config, crossed=True) for _ in self.pairs)
        wide = config.model_copy(update={"d_model": (num_streams - 1) * config.d_model})
        self.own = nn.ModuleList(_Layers(wide, crossed=False) for _ in range(num_streams))

    def forward(self, streams: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Each stream, (batch, its time, d_model) with a mask (batch, its time) bool, to (batch, its time,
        (streams - 1) * d_model).

        Raises:
            ShapeError: If the number of streams is not that of the stack, or a mask does not fit.
        """
        if len(streams) != self.num_streams or len(masks) != self.num_streams:
            raise ShapeError(
                f"streams: expected {self.num_streams} with as many masks, found {len(streams)} with"
                f" {len(masks)}"
            )
        for number, (x, mask) in enumerate(zip(streams, masks, strict=True)):
            check_mask(f"mask {number}", mask, x)
        placed = [x + sinusoidal_positions(x) for x in streams]
        padded = [_where_padded(mask) for mask in masks]
        received: list[list[Tensor]] = [[] for _ in streams]
        for (target, source), module in zip(self.pairs, self.crossed, strict=True):
            received[target].append(module(placed[target], padded[source], placed[source]))
        return tuple(
            module(torch.cat(parts, dim=-1), mask)
            for module, parts, mask in zip(self.own, received, padded, strict=True)
        )


class _Layers(nn.Module):
    """`depth` layers and a norm, in which one modality reads another (Tsai et al., eq. 4) or, positions being
    in it already, itself.
    """

    def __init__(self, config: AttentionConfig, *, crossed: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(AttentionLayer(config, crossed=crossed) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, mask: Tensor | None, context: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask, context)
        normed: Tensor = self.norm(x)
        return normed


def _where_padded(mask: Tensor) -> Tensor | None:
    """The mask, or None where nothing is padded: the fused kernel is fastest without one."""
    return None if not torch.compiler.is_compiling() and bool(mask.all()) else mask


def sinusoidal_positions(x: Tensor) -> Tensor:
    """(time, d_model) for tokens `x` of shape (batch, time, d_model): sines in the first channels, cosines in
    the others.

    Source:
        Vaswani et al., arXiv:1706.03762, section 3.5; wavelengths from 2 pi to 10000 * 2 pi.
    """
    time, width = x.shape[1:]
    half = (width + 1) // 2
    # log2(10000)
    rate = torch.exp2(torch.arange(half, device=x.device, dtype=torch.float32) * (-13.287712 / max(1, half)))
    angle = torch.arange(time, device=x.device, dtype=torch.float32).unsqueeze(1) * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width].to(x.dtype)
