"""Networks on our encoders: one per modality, a token for what is missing, then a fusion of tokens."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Batch, ModalitySpec, Name, Output, Sequences, TokenVectors
from alignmamba.errors import ConfigError
from alignmamba.models.heads import Head
from alignmamba.models.network import Network, NetworkConfig, is_pretrained, merged
from alignmamba.nn.alignment import Tokens, picked, since_first
from alignmamba.nn.by_name import ModulesByName, WeightsByName
from alignmamba.nn.encoders import EmbeddingEncoder, Encoder, EncoderConfig, encoder_of, group_mean
from alignmamba.nn.language import (
    AnyEncoderConfig,
    LanguageConfig,
    LanguageEncoder,
    LanguageReader,
    LanguageSteps,
)
from alignmamba.nn.pooling import POOLINGS, Pooling

__all__ = ["ConfigT", "Encoded", "Fusion", "FusionConfig", "Head", "Hidden", "PlainFusionConfig"]
__all__ += ["ReadsTokens", "TokensRead", "presence"]

Encoded = Mapping[str, Tokens]
"""Each modality's tokens, in anchor order; none is valid in the samples that lack the modality."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Tokens of one modality that a network does not see."""

    where: Tensor
    """(batch, time) bool, in tokens of the batch; of tokens that the encoder joins all or none."""
    stand_in: Tensor
    """(channel,) in place of their standardised features; of token ids (width of the encoder,), in place of
    what the table says of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensRead:
    """Tokens as the encoders and as the backbone of a network make them."""

    encoded: Encoded
    """Tokens of each modality before any other modality had a part in them."""
    read: Mapping[str, TokenVectors]
    """Outputs of the backbone for the same tokens; not valid where it has none."""
    losses: Mapping[str, Tensor]
    """The network's own loss terms, as of `Output`."""


def presence(encoded: Encoded) -> Tensor:
    """Modalities that each sample has, (batch, modality) bool."""
    return torch.stack([tokens.mask.any(1) for tokens in encoded.values()], 1)


class FusionConfig(NetworkConfig):
    """Fields that define every network on our encoders, beside those of its backbone."""

    SILENT: ClassVar[Mapping[str, Any]] = {"timeless": []}

    encoder: AnyEncoderConfig = EncoderConfig()
    """Encoder of a modality that `encoders` does not name."""
    encoders: Mapping[Name, AnyEncoderConfig] = Field(default_factory=dict)
    """Encoder of each named modality."""
    absent: Literal["learned", "zeros"] = "learned"
    """Content of the stream of a missing modality: one learned token per modality, or zeros. Where nothing is
    aligned (`local.method` ``none``), a missing modality has no place in the stream."""
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a present modality of a sample is hidden in a training step; at least one is kept."""
    pooling: Pooling = "max"
    """Pooling of a sequence to one vector: the mean, maximum or last of its valid tokens."""
    timeless: tuple[Name, ...] = ()
    """Modalities whose times are not looked at, as if the corpus had none."""

    @model_validator(mode="after")
    def _of_known_modalities(self) -> Self:
        names = [modality.name for modality in self.modalities]
        for field, given in (("encoders", self.encoders), ("timeless", self.timeless)):
            unknown = [name for name in given if name not in names]
            if unknown:
                raise ValueError(f"{field}: found {unknown[0]!r}, expected some of {names}")
        return self

    def encoder_of(self, name: str) -> AnyEncoderConfig:
        """Encoder of a modality."""
        return self.encoders.get(name, self.encoder)

    @classmethod
    def laid(cls, preset: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that a preset sets, and over them what is given.

        What it sets of an encoder holds for every encoder with weights of our own.
        """
        given = super().laid(preset, overrides)
        shared = cls.PRESETS[preset].get("encoder")
        if shared is None:
            return given
        if is_pretrained(overrides.get("encoder")):
            given["encoder"] = overrides["encoder"]
        if isinstance(given.get("encoders"), Mapping):
            given["encoders"] = {
                name: merged(shared, each) if isinstance(each, Mapping) and not is_pretrained(each) else each
                for name, each in given["encoders"].items()
            }
        return given

    def pinned(self) -> Self:
        made = {
            name: each.pinned(f"encoders.{name}")
            for name, each in self.encoders.items()
            if isinstance(each, LanguageConfig)
        }
        if isinstance(self.encoder, LanguageConfig):
            shared = self.encoder.pinned("encoder")
            return self.model_copy(update={"encoder": shared, "encoders": {**self.encoders, **made}})
        return self.model_copy(update={"encoders": {**self.encoders, **made}}) if made else self


class PlainFusionConfig(FusionConfig):
    """Fields of a network with input layers of its own: features come as they are by default."""

    encoder: AnyEncoderConfig = EncoderConfig(kind="none")


ConfigT = TypeVar("ConfigT", bound=FusionConfig)


def _made(modality: ModalitySpec, config: AnyEncoderConfig, d_model: int, *, in_steps: bool) -> Encoder:
    if isinstance(config, LanguageConfig):
        return LanguageSteps(modality, config) if in_steps else LanguageEncoder(modality, config, d_model)
    return encoder_of(modality, config, d_model)


def _refuse_other_width(name: str, width: int, d_model: int) -> None:
    """Refuse tokens that keep a width of their own where the network has no input layer."""
    if width != d_model:
        where = f"encoders.{name}.kind"
        raise ConfigError(
            f"{where}: 'none' leaves tokens of width {width}, expected d_model, {d_model}; set"
            f" options.{where}=linear"
        )


class Fusion(Network[ConfigT], ABC):
    """A fusion model: standardised features, one encoder per modality, then whatever the model makes of the
    tokens.

    A model states its `config_class`, makes its backbone after this constructor and its `Head` last, and says
    how it reads the encoded tokens. Weights drawn here come first, so that under one seed all models of one
    width start from the same encoders.
    """

    anchor_in_steps: ClassVar[bool] = False
    """A language model that encodes the first anchor stops at its embeddings, and the network asks it for
    what follows."""

    def __init__(self, config: ConfigT, d_model: int) -> None:
        super().__init__(config.pinned())
        config = self.config
        stepwise = config.anchors[0] if self.anchor_in_steps else None
        self.encoders = ModulesByName(
            {
                m.name: _made(m, config.encoder_of(m.name), d_model, in_steps=m.name == stepwise)
                for m in config.modalities
            }
        )
        if type(config).model_fields["encoder"].default.kind != "none":  # else it has an input layer
            for m in config.modalities:
                _refuse_other_width(m.name, self._encoder(m.name).width, d_model)
        self.absent_tokens = WeightsByName(
            {
                m.name: nn.Parameter(
                    torch.zeros(self._encoder(m.name).width), requires_grad=config.absent == "learned"
                )
                for m in config.modalities
            }
        )

    def _predict(self, batch: Batch) -> Output:
        return self._read(self._encoded(batch))

    @abstractmethod
    def _read(self, encoded: Encoded) -> Output:
        """The output for these tokens; a regression in deviations from the targets' mean, as of a `Head`."""

    def _pooled(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, channel) and its mask to (batch, channel), as the configuration pools."""
        return POOLINGS[self.config.pooling](x, mask)

    def _encoded(
        self, batch: Batch, hidden: Mapping[str, Hidden] = MappingProxyType({})
    ) -> dict[str, Tokens]:
        """Every configured modality's tokens, as `_read` takes them, made without those that are hidden."""
        return self._encoded_inputs(self._inputs(batch), hidden)

    def _inputs(self, batch: Batch) -> dict[str, Tokens]:
        """Standardised features or token ids of every configured modality, in anchor order; none is valid in
        the samples that lack it or from which modality dropout hides it.
        """
        sequences, present = self._sequences(batch)
        kept = self._kept(present)
        times = _clocked(sequences, self.config.timeless)
        inputs = {}
        for number, name in enumerate(self.config.anchors):
            s = sequences[name]
            mask = s.mask & kept[:, number, None]
            features = s.features.masked_fill(~mask.unsqueeze(-1), 0)
            if name in self.standardisers:
                features = self.standardisers[name](features.to(self._weight.dtype), mask)
            inputs[name] = Tokens(features, mask, times[name])
        return inputs

    def _encoded_inputs(
        self, inputs: Mapping[str, Tokens], hidden: Mapping[str, Hidden] = MappingProxyType({})
    ) -> dict[str, Tokens]:
        """Tokens that the encoders make of `_inputs`, without those that are hidden."""
        encoded = {}
        for name, given in inputs.items():
            x, mask = self._encoded_without(name, given.x, given.mask, hidden.get(name))
            times = group_mean(self._times_of(given), given.mask, self._encoder(name).stride)[0]
            encoded[name] = Tokens(x, mask, times)
        # Autocast leaves embedded ids in single precision and lowers features.
        dtype = reduce(torch.promote_types, (tokens.x.dtype for tokens in encoded.values()))
        return {name: replace(tokens, x=tokens.x.to(dtype)) for name, tokens in encoded.items()}

    def _times_of(self, given: Tokens) -> Tensor:
        """(batch, time) times by which tokens of one modality count, in seconds."""
        return given.times

    def _encoded_without(
        self, name: str, features: Tensor, mask: Tensor, hidden: Hidden | None
    ) -> tuple[Tensor, Tensor]:
        """Tokens of a modality and their mask; of hidden ones nothing but the stand-in is read."""
        encoder = self._encoder(name)
        if hidden is not None:
            where = (hidden.where & mask).unsqueeze(-1)
            if isinstance(encoder, EmbeddingEncoder):
                embedded = encoder.project(features.squeeze(-1))
                shown = torch.where(where, hidden.stand_in.to(embedded.dtype), embedded)
                return encoder.of_embedded(shown, mask)
            features = torch.where(where, hidden.stand_in.to(features.dtype), features)
        found: tuple[Tensor, Tensor] = encoder(features, mask)
        return found

    def _with_absent(self, encoded: Encoded) -> dict[str, Tokens]:
        """The streams with one token, the absent one, in samples that lack the modality: none is empty."""
        streams = {}
        for name, tokens in encoded.items():
            if tokens.mask.shape[1] == 0:
                tokens = tokens.fitted(1)
            first = torch.arange(tokens.mask.shape[1], device=tokens.mask.device) == 0
            missing = ~tokens.mask.any(1, keepdim=True) & first
            x = torch.where(missing.unsqueeze(-1), self.absent_tokens[name].to(tokens.x.dtype), tokens.x)
            streams[name] = Tokens(x, tokens.mask | missing, tokens.times)
        return streams

    def _placed(
        self, read: Tensor, mask: Tensor, stream: Tensor, encoded: Encoded, names: Collection[str]
    ) -> dict[str, TokenVectors]:
        """Vectors of the encoded tokens of modalities in one sequence of all.

        Args:
            read: (batch, time, channel), what was read of the sequence.
            mask: (batch, time) bool, its valid positions.
            stream: (batch, time) int64, the place of each position's modality in the reverse of the anchor
                order.
            encoded: Tokens of each modality.
            names: Modalities to find.
        """
        found = {}
        for name in names:
            place = len(self.config.anchors) - 1 - self.config.anchors.index(name)
            own = encoded[name].mask
            # a modality that is missing may have a position, of its absent token
            chosen = mask & (stream == place) & own.any(1, keepdim=True)
            x, there = picked(read, chosen, own.shape[1])
            found[name] = TokenVectors(x=x, mask=there)
        return found

    @property
    def _weight(self) -> Tensor:
        """A weight, for the type and the device of the model."""
        token: Tensor = self.absent_tokens[self.config.modalities[0].name]
        return token

    def _encoder(self, name: str) -> Encoder:
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder

    @property
    def strides(self) -> Mapping[str, int]:
        return {modality.name: self._encoder(modality.name).stride for modality in self.config.modalities}

    @property
    def longest(self) -> Mapping[str, int]:
        return {
            name: each.longest for name, each in self.encoders.items() if isinstance(each, LanguageReader)
        }

    def _kept(self, present: Tensor) -> Tensor:
        """(batch, modality) bool: what modality dropout leaves of what is present, at least one each."""
        if not self.training or not self.config.modality_dropout:
            return present
        chance = torch.rand(present.shape, device=present.device)
        drawn = present & (chance >= self.config.modality_dropout)
        survivor = chance.masked_fill(~present, -1).argmax(1, keepdim=True)
        return drawn.scatter(1, survivor, True)


class ReadsTokens(Fusion[ConfigT], ABC):
    """Fusion whose backbone has an output for every encoded token, so that it can be pretrained.

    Targets of tokens are predicted from the same outputs, unless a network says otherwise.
    """

    @property
    def read_width(self) -> int:
        """Channels of an output of the backbone: by default as many as an encoded token has."""
        return self._encoder(self.config.anchors[0]).width

    @property
    def token_width(self) -> int:
        return self.read_width

    @abstractmethod
    def _tokens_read(self, encoded: Encoded) -> tuple[Mapping[str, TokenVectors], Mapping[str, Tensor]]:
        """Output of the backbone for each encoded token, by modality, and the network's own loss terms."""

    def read_tokens(self, batch: Batch, hidden: Mapping[str, Hidden]) -> TokensRead:
        """Read a batch token by token, without those that are hidden.

        Raises:
            DataError: As of a prediction.
            ShapeError: As of a prediction.
        """
        encoded = self._encoded(batch, hidden)
        read, losses = self._tokens_read(encoded)
        return TokensRead(encoded=encoded, read=read, losses=losses)

    def tokens_seen(self, batch: Batch) -> dict[str, Tokens]:
        """Standardised features, (batch, time, channel), of modalities that have some: the mean of those that
        the encoder joins to one token.
        """
        sequences, _ = self._sequences(batch)
        seen = {}
        for name, standardise in self.standardisers.items():
            s = sequences[name]
            features = s.features.masked_fill(~s.mask.unsqueeze(-1), 0).to(self._weight.dtype)
            x, mask = group_mean(standardise(features, s.mask), s.mask, self._encoder(name).stride)
            seen[name] = Tokens(x, mask, torch.full_like(mask, torch.nan, dtype=torch.float64))
        return seen


def _clocked(sequences: Mapping[str, Sequences], timeless: Collection[str]) -> dict[str, Tensor]:
    """Each modality's times from the sample's first token on, (batch, time) float64; NaN for none."""
    times = {
        name: s.mask.new_full(s.mask.shape, torch.nan, dtype=torch.float64) for name, s in sequences.items()
    }
    given = {name: s.times for name, s in sequences.items() if s.times is not None and name not in timeless}
    if not given:
        return times
    masks = [sequences[name].mask for name in given]
    return times | dict(zip(given, since_first(list(given.values()), masks), strict=True))
