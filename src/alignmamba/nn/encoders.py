"""Encoders: one modality's raw tokens to tokens of the model's width, one class for each kind."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Config, ModalitySpec
from alignmamba.errors import ConfigError
from alignmamba.nn.mamba import MambaConfig, MambaStack
from alignmamba.nn.masked_convolution import TimeConvolution


class EncoderConfig(Config):
    """Encoder of one modality with weights of our own.

    All these kinds share their fields, so that a setting keeps its value, and a run its digest, whichever of
    them reads it.
    """

    SILENT: ClassVar[Mapping[str, Any]] = {"centring": "none"}
    """Counterpart of `NetworkConfig.SILENT` for an encoder."""

    kind: Literal["auto", "linear", "conv", "mamba", "embedding", "none"] = "auto"
    """``linear``: per token; ``conv``: residual convolutions over time; ``mamba``: a Mamba stack;
    ``embedding``: a table for token ids; ``none``: features as they are, at their own width; ``auto``:
    ``embedding`` for token ids, ``conv`` for features."""
    depth: Annotated[int, Field(ge=1, le=64)] = 2
    """Convolutions of ``conv``, blocks of ``mamba``; unused otherwise."""
    kernel_size: Annotated[int, Field(ge=1, le=255)] = 5
    """Width of each convolution of ``conv``, in tokens; odd."""
    stride: Annotated[int, Field(ge=1, le=1024)] = 1
    """Tokens that become one: the mean of each group of this many is taken before anything else; 1 keeps them
    all."""
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Standard deviation of the noise added in training to each feature, in standard deviations of its
    channel; unused for token ids."""
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Range of factors in training: each channel of a sample is scaled by one drawn evenly from 1 - gain to 1
    + gain; unused for token ids."""
    centring: Literal["none", "learned", "full"] = "none"
    """Share of each channel's mean over the sample's own tokens that is subtracted: what stays the same all
    the time, such as a speaker's face. ``learned``: a share per channel, a half at first; ``full``: all of
    it. A sequence of one token keeps it. Unused for token ids."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout inside the encoder and on its tokens; for ``embedding``, on whole tokens; unused by
    ``none``."""


class Encoder(nn.Module, ABC):
    """One modality's features (batch, time, channel) to tokens (batch, time / stride, width).

    Args:
        width: Of a token: ``d_model``, or with kind ``none`` the width of the features.
        stride: Tokens of the modality that become one.
    """

    reads: ClassVar[Literal["features", "tokens"]] = "features"
    """Kind of the modalities that it encodes."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.width = width
        self.stride = stride

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode valid tokens; content of the others is not read.

        Args:
            features: (batch, time, channel), already zero where not valid; int64 with one channel for token
                ids.
            mask: (batch, time) bool, valid tokens first.

        Returns:
            Tokens (batch, ceil(time / stride), width), zero where not valid, and their mask.
        """

    @property
    def unstreamed(self) -> str:
        """Reason why it cannot encode tokens as they arrive; empty where it can."""
        return "its encoder reads later tokens too"

    def extend(self, features: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Encode further tokens as the whole sequence would be; only where nothing is `unstreamed`.

        Args:
            features: (batch, time, channel), all of them valid, as of `forward`.
            state: What the call before returned; ``None`` at the start.

        Returns:
            Tokens (batch, time, width), and the state, constant in size.
        """
        del state
        return self(features, features.new_ones(features.shape[:2], dtype=torch.bool))[0], None


class EmbeddingEncoder(Encoder):
    """A table for token ids; in training whole tokens are dropped."""

    reads = "tokens"

    def __init__(self, modality: ModalitySpec, config: EncoderConfig, d_model: int) -> None:
        super().__init__(d_model, config.stride)
        self.token_dropout = config.dropout
        self.project = nn.Embedding(modality.dim, d_model)
        self.norm = nn.RMSNorm(d_model, eps=1e-5)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.of_embedded(self.project(features.squeeze(-1)), mask)

    def of_embedded(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode tokens that were looked up already, (batch, time, width); else as `forward`."""
        if self.training and self.token_dropout:
            x = x * (torch.rand(x.shape[:2], device=x.device) >= self.token_dropout).unsqueeze(-1)
        x, mask = group_mean(x, mask, self.stride)
        encoded: Tensor = self.norm(x)
        return encoded.masked_fill(~mask.unsqueeze(-1), 0), mask

    @property
    def unstreamed(self) -> str:
        return "" if self.stride == 1 else f"its stride is {self.stride}, expected 1"


class FeatureEncoder(Encoder):
    """Features as they are, at their own width, disturbed in training where that is asked for."""

    def __init__(self, modality: ModalitySpec, config: EncoderConfig, d_model: int) -> None:
        del d_model
        super().__init__(modality.dim, config.stride)
        self.noise, self.gain, self.centring = config.noise, config.gain, config.centring
        if config.centring == "learned":
            self.centred_share = nn.Parameter(torch.zeros(modality.dim))  # through a sigmoid

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = group_mean(self._prepared(features, mask), mask, self.stride)
        return x.masked_fill(~mask.unsqueeze(-1), 0), mask

    @property
    def unstreamed(self) -> str:
        if self.centring != "none":
            return f"its centring is {self.centring!r}, the mean of the whole sample, expected 'none'"
        return "" if self.stride == 1 else f"its stride is {self.stride}, expected 1"

    def _prepared(self, features: Tensor, mask: Tensor) -> Tensor:
        """Standardised features, centred, and in training as another take of the same sample might have
        them.
        """
        if self.centring != "none":
            count = mask.sum(1, keepdim=True).clamp(min=1).unsqueeze(2)
            # The mean of a single token is the token: the fewer there are, the less is taken away.
            working = torch.promote_types(features.dtype, torch.float32)
            mean = (features.sum(1, keepdim=True, dtype=working) / count * (1 - 1 / count)).to(features.dtype)
            features = features - (
                mean * self.centred_share.sigmoid() if self.centring == "learned" else mean
            )
        if self.training and self.gain:
            features = features * (1 + self.gain * (2 * torch.rand_like(features[:, :1]) - 1))
        if self.training and self.noise:
            features = features + self.noise * torch.randn_like(features)
        return features


class LinearEncoder(FeatureEncoder):
    """Features by one linear map per token."""

    def __init__(self, modality: ModalitySpec, config: EncoderConfig, d_model: int) -> None:
        super().__init__(modality, config, d_model)
        self.width = d_model
        self.project = nn.Linear(modality.dim, d_model)
        self._add_mixing(config)  # before the norm: the order of weights decides how their sums round
        self.norm = nn.RMSNorm(d_model, eps=1e-5)
        self.dropout = nn.Dropout(config.dropout)

    def _add_mixing(self, config: EncoderConfig) -> None:
        """Add the modules of `_mixed`; none here."""

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, mask = group_mean(self.project(self._prepared(features, mask)), mask, self.stride)
        encoded: Tensor = self.dropout(self.norm(self._mixed(x, mask)))
        return encoded.masked_fill(~mask.unsqueeze(-1), 0), mask

    def _mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, width): what tokens say to one another; nothing here."""
        del mask
        return x


class ConvEncoder(LinearEncoder):
    """Features by residual convolutions over time, behind a linear map."""

    def __init__(self, modality: ModalitySpec, config: EncoderConfig, d_model: int) -> None:
        if config.kernel_size % 2 == 0:
            raise ConfigError(
                f"encoders.{modality.name}.kernel_size: expected an odd number, found {config.kernel_size}"
            )
        super().__init__(modality, config, d_model)

    def _add_mixing(self, config: EncoderConfig) -> None:
        self.convolutions = nn.ModuleList(
            MaskedConvolution(self.width, config.kernel_size, config.dropout) for _ in range(config.depth)
        )

    @property
    def unstreamed(self) -> str:
        return "its convolutions read later tokens too, expected kind 'linear' or 'mamba'"

    def _mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = convolution(x, mask)
        return x


class MambaEncoder(LinearEncoder):
    """Features by a Mamba stack, behind a linear map."""

    def _add_mixing(self, config: EncoderConfig) -> None:
        self.mamba = MambaStack(MambaConfig(d_model=self.width, depth=config.depth, dropout=config.dropout))

    def _mixed(self, x: Tensor, mask: Tensor) -> Tensor:
        mixed: Tensor = self.mamba(x, mask)
        return mixed

    def extend(self, features: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        mask = features.new_ones(features.shape[:2], dtype=torch.bool)
        x = self.project(self._prepared(features, mask))
        mixed, state = self.mamba.extend(x, state or self.mamba.initial_states(len(x)))
        return self.dropout(self.norm(mixed)), state


ENCODERS: Final[dict[str, type[EmbeddingEncoder | FeatureEncoder]]] = {
    "linear": LinearEncoder,
    "conv": ConvEncoder,
    "mamba": MambaEncoder,
    "embedding": EmbeddingEncoder,
    "none": FeatureEncoder,
}
"""Kind to class; `EncoderConfig.kind` names the same kinds."""


def encoder_of(modality: ModalitySpec, config: EncoderConfig, d_model: int) -> Encoder:
    """The encoder of that kind, untrained.

    Args:
        modality: What it reads.
        config: Its kind and settings.
        d_model: Width of its tokens; with kind ``none`` they keep their own.

    Raises:
        ConfigError: If the kind does not read such a modality, or a setting does not go with the kind.
    """
    kind: str = config.kind
    if kind == "auto":
        kind = "embedding" if modality.kind == "tokens" else "conv"
    if ENCODERS[kind].reads != modality.kind:
        where, fitting = (
            f"encoders.{modality.name}.kind",
            "embedding" if modality.kind == "tokens" else "auto",
        )
        raise ConfigError(
            f"{where}: {kind!r} does not fit a modality of kind {modality.kind!r}; set"
            f" options.{where}={fitting}"
        )
    return ENCODERS[kind](modality, config, d_model)


class MaskedConvolution(nn.Module):
    """Pre-norm residual convolution over time that sees zeros in place of padding and past the ends."""

    def __init__(self, d_model: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(d_model, eps=1e-5)
        self.convolution = TimeConvolution(d_model, d_model, kernel_size)
        self.mix = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, d_model) to the same."""
        if x.shape[1] == 0:
            return x
        out: Tensor = x + self.dropout(self.mix(F.gelu(self.convolution(self.norm(x), mask))))
        return out


def group_mean(x: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean of the valid tokens of each group of `size` consecutive ones, and whether a group has any.

    Args:
        x: (batch, time, ...).
        mask: (batch, time) bool, valid tokens first.
        size: Tokens per group.

    Returns:
        (batch, ceil(time / size), ...) and (batch, ceil(time / size)) bool.
    """
    if size == 1:
        return x, mask
    count = (x.shape[1] + size - 1) // size
    short = count * size - x.shape[1]
    weight = F.pad(mask, (0, short)).unflatten(1, (count, size))
    groups = F.pad(x, (0, 0) * (x.ndim - 2) + (0, short)).unflatten(1, (count, size))
    valid = weight.view(*weight.shape, *(1,) * (x.ndim - 2))
    total = groups.masked_fill(~valid, 0).sum(2)
    return total / valid.sum(2).clamp(min=1), weight.any(2)


class Standardise(nn.Module):
    """Subtract the training mean and divide by the deviation, which are stored with the model."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, channel) to the same, zero where not valid."""
        return ((features - self.mean) / self.deviation).masked_fill(~mask.unsqueeze(-1), 0)
