"""MulT as published: crossmodal Transformers between all modalities, self-attention per target, and a residual head."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Name, Output
from alignmamba.methods.method import Method
from alignmamba.models.encoded import Fusion, FusionConfig
from alignmamba.models.network import Head
from alignmamba.nn.alignment import Tokens
from alignmamba.nn.attention import sinusoidal_positions
from alignmamba.nn.encoders import EncoderConfig
from alignmamba.ops import last_valid

_LEAST_OWN: Final = 3
"""Layers of self-attention at least."""


class MulTConfig(FusionConfig):
    """Everything that defines a MulT."""

    encoder: EncoderConfig = EncoderConfig(kind="none", dropout=0.0)
    d_model: Annotated[int, Field(ge=1, le=8192)] = 40
    """Width of a token after the convolutions."""
    depth: Annotated[int, Field(ge=1, le=256)] = 4
    """Layers of each crossmodal Transformer, and of self-attention where that is more than 3."""
    heads: Annotated[int, Field(ge=1, le=256)] = 8
    """Attention heads; they share the channels evenly."""
    kernel_size: Annotated[int, Field(ge=1, le=255)] = 3
    """Width of the convolution of a modality, in tokens: a sequence becomes shorter by this less one, and keeps one token."""
    kernel_sizes: Mapping[Name, Annotated[int, Field(ge=1, le=255)]] = Field(default_factory=dict)
    """The same for named modalities."""
    causal: bool = True
    """Let token i of a target read tokens of a source up to i plus the difference of their lengths, instead of all."""
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

    @model_validator(mode="before")
    @classmethod
    def _of_this_version(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and {"expand", "attention"} & set(values):
            raise ValueError("this was the simplified MulT, now called crossmodal-transformer")
        return values

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        names = [modality.name for modality in self.modalities]
        if len(names) < 2:
            raise ValueError(f"modalities: mult needs at least 2 that attend to each other, found {names}")
        if self.d_model % self.heads:
            raise ValueError(f"heads: found {self.heads}, expected a divisor of d_model, which is {self.d_model}")
        unknown = [name for name in self.kernel_sizes if name not in names]
        if unknown:
            raise ValueError(f"kernel_sizes: no modality is called {unknown[0]!r}; there are {names}")
        return self


class MulT(Fusion[MulTConfig]):
    """Multimodal Transformer.

    Kept from the source: convolutions without padding or bias, a crossmodal Transformer for every ordered pair whose keys
    and values are the source's input at every layer under the norm of the target, self-attention over what a target
    received, the last token of each target, a residual block and a linear head.

    Not repeated of the public code: a last token and keys that are padding; a convolution that is skipped where a
    modality happens to be as wide as the model. A missing source is not attended to; a missing target asks with its
    learned token.

    The last tokens, in anchor order, are the embedding, (batch, modalities * (modalities - 1) * d_model).

    Source:
        Tsai et al., ACL 2019, arXiv:1906.00295.
    """

    config_class: ClassVar[type[MulTConfig]] = MulTConfig
    least_modalities: ClassVar[int] = 2
    summary: ClassVar[str] = "Crossmodal Transformers for all pairs of modalities, as published"
    tags: ClassVar[tuple[str, ...]] = ("transformer",)

    def __init__(self, config: MulTConfig) -> None:
        super().__init__(config, config.d_model)
        names = config.anchors
        self.convolutions = nn.ModuleDict({name: self._convolution(name) for name in names})
        self.anchor_dropout = nn.Dropout(config.anchor_dropout)
        self.crossed = nn.ModuleDict(
            {
                target: nn.ModuleDict({source: _Transformer(config, 1, config.depth) for source in names if source != target})
                for target in names
            }
        )
        own = max(config.depth, _LEAST_OWN)
        self.own = nn.ModuleDict({name: _Transformer(config, len(names) - 1, own) for name in names})
        width = len(names) * (len(names) - 1) * config.d_model
        self.residual = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(config.output_dropout), nn.Linear(width, width))
        self.head = Head(width, config.task, 0.0)

    def _convolution(self, name: str) -> nn.Conv1d:
        size = self.config.kernel_sizes.get(name, self.config.kernel_size)
        return nn.Conv1d(self._encoder(name).width, self.config.d_model, size, bias=False)

    def _read(self, encoded: Mapping[str, Tokens]) -> Output:
        first = next(iter(encoded))
        present = {name: tokens.mask.any(1, keepdim=True) for name, tokens in encoded.items()}
        streams = {}
        for name, tokens in self._with_absent(encoded).items():
            x = self.anchor_dropout(tokens.x) if name == first else tokens.x
            streams[name] = self._convolved(name, x, tokens.mask)
        last = []
        for target, (x, mask) in streams.items():
            received = [
                self.crossed[target][source](x, mask, other, other_mask & present[source])  # type: ignore[index]
                for source, (other, other_mask) in streams.items()
                if source != target
            ]
            last.append(last_valid(self.own[target](torch.cat(received, 2), mask), mask))
        embedding = torch.cat(last, 1)
        extras = dict(zip(streams, last, strict=True))
        return Output(prediction=self.head(embedding + self.residual(embedding)), embedding=embedding, extras=extras)

    def _convolved(self, name: str, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and mask after the convolution; a sequence shorter than the kernel stands before zeros and becomes one token."""
        convolution = self.convolutions[name]
        assert isinstance(convolution, nn.Conv1d)
        size = convolution.kernel_size[0]
        short = max(0, size - x.shape[1])
        x = nn.functional.pad(x.masked_fill(~mask.unsqueeze(2), 0), (0, 0, 0, short))
        convolved: Tensor = convolution(x.transpose(1, 2)).transpose(1, 2)
        left = (mask.sum(1, keepdim=True) - size + 1).clamp(min=1)
        return convolved, torch.arange(convolved.shape[1], device=x.device) < left


class _Transformer(nn.Module):
    """Pre-norm layers in which a target reads a source, or itself where there is none."""

    def __init__(self, config: MulTConfig, widths: int, depth: int) -> None:
        super().__init__()
        width = widths * config.d_model
        self.scale, self.positions, self.causal, self.heads = width**0.5, config.positions, config.causal, config.heads
        self.layers = nn.ModuleList(_Layer(config, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.embed_dropout)

    def forward(self, x: Tensor, mask: Tensor, source: Tensor | None = None, source_mask: Tensor | None = None) -> Tensor:
        """(batch, time, width) reads (batch, source time, width) where `source_mask`, (batch, source time), is true."""
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

    def __init__(self, config: MulTConfig, width: int) -> None:
        super().__init__()
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, config.heads, config.attention_dropout, batch_first=True)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)
        for linear in (self.attention.out_proj, self.widen, self.narrow):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, source: Tensor | None, refused: Tensor, some: Tensor) -> Tensor:
        """(batch, time, width) to the same; `refused` is (batch * heads, time, source time)."""
        query = self.norm(x)
        key = query if source is None else self.norm(source)
        attended = self.attention(query, key, key, attn_mask=refused, need_weights=False)[0].masked_fill(~some, 0)
        x = x + self.dropout(attended)
        fed = self.narrow(self.dropout(self.widen(self.feed_norm(x)).relu()))
        out: Tensor = x + self.dropout(fed)
        return out


MULTIMODAL_TRANSFORMER = Method(
    network=MulT,
    settings={"loader": {"batch_size": 128}, "fit": {"learning_rate": 1e-3, "weight_decay": 0.0, "gradient_clip": 0.8, "epochs": 100}},
    source="Tsai et al., ACL 2019, arXiv 1906.00295",
    needs="two modalities or more",
    differs="Feature mode. Padding is masked, and the last token is the last valid one. 8 heads in place of 10. The learning "
    "rate falls along a cosine, not at plateaus.",
)
"""MulT as a method; rates are the authors' for MOSI."""
