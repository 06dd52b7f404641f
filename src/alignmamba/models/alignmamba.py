"""AlignMamba: align every modality to an anchor, interleave, and read the sequence with one Mamba stack (Li et al., arXiv 2412.00833)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import Batch, ModalitySpec, Name, Output, Plan, Sequences, Task
from alignmamba.errors import ConfigError, DataError, ShapeError
from alignmamba.models.pretrained import Pretrained, validated
from alignmamba.nn.alignment import GlobalAlignmentConfig, LocalAlignmentConfig, Tokens, align, discrepancies, merge_by_time
from alignmamba.nn.encoders import Encoder, EncoderConfig, Standardise, group_mean
from alignmamba.nn.mamba import BlockState, MambaConfig, MambaStack
from alignmamba.nn.pooling import POOLINGS, PooledState, Pooling, pool_step
from alignmamba.ops import interleave
from alignmamba.ops.backends import exporting

# The order of the paper's modalities as anchors: text where it is present, then audio, then video.
_CONVENTIONAL_ORDER = ("text", "audio", "video")


class AlignMambaConfig(MambaConfig):
    """Everything that defines an AlignMamba model; the fields of the Mamba backbone stand at the top level."""

    modalities: Annotated[tuple[ModalitySpec, ...], Field(min_length=1)]
    """The modalities the model takes, in the order that breaks ties."""
    task: Task
    """What is predicted."""
    anchor_order: tuple[Name, ...] = ()
    """Modalities in the order of preference as anchor: a sample is aligned to the first one it has. Those not named follow;
    empty means text, audio, video, then the order of `modalities`. Streams are interleaved in the reverse order."""
    encoder: EncoderConfig = EncoderConfig()
    """How a modality is encoded where `encoders` does not say."""
    encoders: Mapping[Name, EncoderConfig] = Field(default_factory=dict)
    """How each named modality is encoded."""
    local: LocalAlignmentConfig = LocalAlignmentConfig()
    """Local alignment: tokens to anchor tokens."""
    alignment: GlobalAlignmentConfig = GlobalAlignmentConfig()
    """Global alignment: the MMD loss."""
    absent: Literal["learned", "zeros"] = "learned"
    """What stands in the stream of a missing modality: one learned token per modality, or zeros."""
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a present modality of a sample is hidden in a training step; at least one is kept."""
    pooling: Pooling = "max"
    """How the sequence becomes one vector: the mean, maximum or last of its valid tokens."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError(f"modalities: names must be distinct, found {names}")
        for field, given in (("anchor_order", self.anchor_order), ("encoders", tuple(self.encoders))):
            unknown = [name for name in given if name not in names]
            if unknown:
                raise ValueError(f"{field}: no modality is called {unknown[0]!r}; there are {names}")
        if len(set(self.anchor_order)) != len(self.anchor_order):
            raise ValueError(f"anchor_order: names must be distinct, found {list(self.anchor_order)}")
        return self

    @property
    def anchors(self) -> tuple[str, ...]:
        """All modalities in the order of preference as anchor."""
        names = [modality.name for modality in self.modalities]
        preferred = self.anchor_order or [name for name in _CONVENTIONAL_ORDER if name in names]
        return (*preferred, *(name for name in names if name not in preferred))

    @classmethod
    def preset(cls, name: str, *, modalities: tuple[ModalitySpec, ...], task: Task, **overrides: Any) -> Self:
        """A named configuration for these modalities and this task.

        Args:
            name: ``default``, chosen by measurement, or ``paper``, the paper's equations to the letter (docs/decisions.md).
            modalities: What the corpus offers.
            task: What is predicted.
            **overrides: Fields that differ from the preset; nested ones as mappings.

        Raises:
            ConfigError: If there is no such preset, or a field is unknown or out of range.
        """
        if name not in PRESETS:
            raise ConfigError(f"preset: expected one of {sorted(PRESETS)}, found {name!r}")
        return validated(cls, _merged(PRESETS[name], overrides) | {"modalities": modalities, "task": task})


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "bidirectional": False,
        "absent": "zeros",
        "pooling": "mean",
        "local": {"method": "match", "mass": "paper", "marginal": "source", "time_weight": 0.0, "window": None},
        "alignment": {"pairs": "anchor", "bandwidth": 1.0, "weight": 0.1},
    },
}


def _merged(preset: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`preset` with `overrides` laid over it, mapping by mapping."""
    merged = dict(preset)
    for key, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


@dataclass(frozen=True, slots=True)
class StreamState:
    """What the model remembers of a sequence that arrives token by token: constant in size."""

    layers: tuple[BlockState, ...]
    pooled: PooledState

    def where(self, valid: Tensor, before: "StreamState") -> "StreamState":
        """This state in the samples where `valid`, (batch,) bool, and the state `before` in the others."""
        return StreamState(
            tuple(
                BlockState(
                    torch.where(valid[:, None, None], new.inputs, old.inputs), torch.where(valid[:, None, None], new.state, old.state)
                )
                for new, old in zip(self.layers, before.layers, strict=True)
            ),
            PooledState(
                torch.where(valid[:, None], self.pooled.value, before.pooled.value),
                torch.where(valid, self.pooled.count, before.pooled.count),
            ),
        )


class AlignMamba(Pretrained[AlignMambaConfig]):
    """Fusion of any number of modalities, any of which may be missing from any sample.

    A sample is aligned to its anchor, the first modality it has in the configured order. Every other modality is brought to
    the anchor's length (eq. 3-6), compared with the anchor by MMD (eq. 8-10), and interleaved with it (eq. 11). One Mamba
    stack reads the result; its pooled output gives the prediction.
    """

    config_class: ClassVar[type[AlignMambaConfig]] = AlignMambaConfig

    def __init__(self, config: AlignMambaConfig) -> None:
        super().__init__()
        self.config = config
        self.standardisers = nn.ModuleDict({m.name: Standardise(m.dim) for m in config.modalities if m.kind == "features"})
        self.encoders = nn.ModuleDict(
            {m.name: Encoder(m, config.encoders.get(m.name, config.encoder), config.d_model) for m in config.modalities}
        )
        self.absent_tokens = nn.ParameterDict(
            {m.name: nn.Parameter(torch.zeros(config.d_model), requires_grad=config.absent == "learned") for m in config.modalities}
        )
        self.backbone = MambaStack(config)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.d_model, config.task.num_outputs)

    def standardise(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Store mean and standard deviation of each channel of the raw features, (channel) each, by modality.

        Raises:
            ShapeError: If a modality takes no features, or the width is another.
        """
        for name, (mean, deviation) in statistics.items():
            if name not in self.standardisers:
                raise ShapeError(f"statistics of {name!r}: the model standardises {sorted(self.standardisers)}")
            module = self.standardisers[name]
            assert isinstance(module, Standardise)
            if mean.shape != module.mean.shape or deviation.shape != module.mean.shape:
                raise ShapeError(f"statistics of {name!r}: expected width {len(module.mean)}, found {tuple(mean.shape)}")
            module.mean.copy_(mean)
            module.deviation.copy_(deviation)

    def training_means(self) -> dict[str, Tensor]:
        """The means that `standardise` stored, (channel) each, by modality of features."""
        return {name: module.get_buffer("mean").detach().cpu() for name, module in self.standardisers.items()}

    def forward(self, batch: Batch, *, return_plans: bool = False) -> Output:
        """Predict every sample of a batch of raw features.

        Args:
            batch: Modalities by name; one that is configured and not in the batch counts as missing.
            return_plans: Whether the matchings onto the anchor are returned as well.

        Raises:
            DataError: If a modality is unknown or a sample has none at all.
            ShapeError: If a modality's width or type is not the configured one, or the batch is empty.
        """
        tokens, mask, losses, plans = self._fused(batch)
        embedding = POOLINGS[self.config.pooling](self.backbone(tokens, mask), mask)
        return Output(
            prediction=self._predict(embedding),
            losses=losses,
            embedding=embedding,
            plans=plans if return_plans else None,
        )

    def fused_tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sequence that the backbone reads, (batch, time, d_model), and its mask: input for `step`."""
        tokens, mask, _, _ = self._fused(batch)
        return tokens, mask

    def step(self, token: Tensor, state: StreamState | None = None, *, valid: Tensor | None = None) -> tuple[Output, StreamState]:
        """Read one more token of the fused sequence; memory does not grow with the number of tokens.

        Args:
            token: (batch, d_model), the next token of `fused_tokens`.
            state: What the call before returned; ``None`` at the start.
            valid: (batch,) bool, the samples that have a token at this step: the mask's column. The others stay as they are.
                All if not given.

        Returns:
            The output for the valid tokens so far, equal to the full pass over them, and the state.

        Raises:
            ConfigError: If the backbone is bidirectional.
            ShapeError: If the token's shape does not fit.
        """
        if token.ndim != 2 or token.shape[1] != self.config.d_model:
            raise ShapeError(f"token: expected (batch, {self.config.d_model}), found shape {tuple(token.shape)}")
        if valid is not None and (valid.shape != token.shape[:1] or valid.dtype != torch.bool):
            raise ShapeError(f"valid: expected bool of shape ({len(token)},), found {valid.dtype} of shape {tuple(valid.shape)}")
        if state is None:
            state = StreamState(self.backbone.initial_states(len(token)), PooledState(torch.zeros_like(token), token.new_zeros(len(token))))
        token, layers = self.backbone.step(token, state.layers)
        after = StreamState(layers, pool_step(self.config.pooling, state.pooled, token))
        if valid is not None:
            after = after.where(valid, state)
        return Output(prediction=self._predict(after.pooled.value), embedding=after.pooled.value), after

    def _predict(self, embedding: Tensor) -> Tensor:
        prediction: Tensor = self.head(self.dropout(embedding))
        return prediction.squeeze(-1) if self.config.task.kind == "regression" else prediction

    def _fused(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Plan]]:
        encoded = self._encoded(batch)
        anchor, is_anchor = self._anchor(encoded)
        order = list(reversed(self.config.anchors))
        streams = encoded
        plans: dict[str, Plan] = {}
        if self.config.local.method == "none":
            tokens, mask = merge_by_time([streams[name] for name in order])
        else:
            streams, plans = self._aligned(encoded, anchor, is_anchor)
            tokens = interleave([self._filled(name, streams[name], anchor.mask) for name in order])
            mask = anchor.mask.repeat_interleave(len(order), dim=1)
        losses = {}
        # An exported program predicts; the loss would bound the lengths that it takes.
        if self.config.alignment.weight and len(streams) > 1 and not exporting():
            losses["mmd"] = self.config.alignment.weight * discrepancies(streams, anchor, is_anchor, self.config.alignment)
        return tokens, mask, losses, plans

    def _encoded(self, batch: Batch) -> dict[str, Tokens]:
        """Every configured modality's tokens, in anchor order."""
        unknown = sorted(set(batch.modalities) - {modality.name for modality in self.config.modalities})
        if unknown:
            raise DataError(f"modality {unknown[0]!r} is unknown to this model, which takes {list(self.config.anchors)}")
        if len(batch) == 0:
            raise ShapeError("batch: expected at least one sample, found none")
        sequences = {m.name: self._checked(m, batch) for m in self.config.modalities}
        present = torch.stack([sequences[name].mask.any(1) for name in self.config.anchors], 1)
        if not torch.compiler.is_compiling() and not bool(present.any(1).all()):
            empty = [batch.ids[row] for row in (~present.any(1)).nonzero().flatten().tolist()]
            raise DataError(f"sample {empty[0]!r} has no modality at all ({len(empty)} such in this batch); expected at least one")
        kept = self._kept(present)
        encoded = {}
        for number, name in enumerate(self.config.anchors):
            s = sequences[name]
            mask = s.mask & kept[:, number, None]
            features = s.features.masked_fill(~mask.unsqueeze(-1), 0)
            if name in self.standardisers:
                features = self.standardisers[name](features.to(self.head.weight.dtype), mask)
            x, short_mask = self.encoders[name](features, mask)
            times = torch.full_like(s.mask, torch.nan, dtype=torch.float64) if s.times is None else s.times.double()
            encoded[name] = Tokens(x, short_mask, group_mean(times, s.mask, self._stride(name))[0])
        # Autocast leaves embedded ids in single precision and lowers features.
        dtype = reduce(torch.promote_types, (tokens.x.dtype for tokens in encoded.values()))
        return {name: replace(tokens, x=tokens.x.to(dtype)) for name, tokens in encoded.items()}

    def _stride(self, name: str) -> int:
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder.stride

    def _checked(self, modality: ModalitySpec, batch: Batch) -> Sequences:
        """The batch's sequences of one modality, empty where it has none."""
        floating = modality.kind == "features"
        if modality.name not in batch.modalities:
            dtype = self.head.weight.dtype if floating else torch.int64
            features = torch.zeros(len(batch), 0, modality.width, dtype=dtype, device=self.head.weight.device)
            return Sequences(features=features, mask=features.new_zeros(len(batch), 0, dtype=torch.bool))
        sequences = batch.modalities[modality.name]
        features = sequences.features
        if features.shape[2] != modality.width or features.is_floating_point() != floating:
            wanted = f"{modality.width} floating channels" if floating else "one channel of int64 token ids"
            raise ShapeError(f"modality {modality.name!r}: expected {wanted}, found {features.dtype} of shape {tuple(features.shape)}")
        return sequences

    def _kept(self, present: Tensor) -> Tensor:
        """(batch, modality) bool: what modality dropout leaves of what is present, at least one each."""
        if not self.training or not self.config.modality_dropout:
            return present
        chance = torch.rand(present.shape, device=present.device)
        drawn = present & (chance >= self.config.modality_dropout)
        survivor = chance.masked_fill(~present, -1).argmax(1, keepdim=True)
        return drawn.scatter(1, survivor, True)

    def _anchor(self, encoded: Mapping[str, Tokens]) -> tuple[Tokens, dict[str, Tensor]]:
        """Each sample's anchor tokens in one tensor, and for each modality the samples whose anchor it is, (batch,) bool."""
        names = list(encoded)
        present = torch.stack([encoded[name].mask.any(1) for name in names], 1)
        first = present.to(torch.int8).argmax(1)
        is_anchor = {name: (first == number) & present[:, number] for number, name in enumerate(names)}
        if torch.compiler.is_compiling():  # no shape may depend on which modalities are there
            length = reduce(torch.sym_max, (encoded[name].mask.shape[1] for name in names))
        else:
            length = max(int((encoded[name].mask & is_anchor[name].unsqueeze(1)).sum(1).max()) for name in names)
        anchor = encoded[names[0]].fitted(length)
        for name in names[1:]:
            anchor = encoded[name].fitted(length).where(is_anchor[name], anchor)
        return anchor, is_anchor

    def _aligned(
        self, encoded: Mapping[str, Tokens], anchor: Tokens, is_anchor: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tokens], dict[str, Plan]]:
        """Every modality at the anchor's length, its mask empty in the samples that lack it, and the matchings."""
        streams, plans = {}, {}
        for name, tokens in encoded.items():
            rows = is_anchor[name]
            x = anchor.x
            if torch.compiler.is_compiling() or not bool(rows.all()):
                moved, plan = align(tokens, anchor, self.config.local)
                x = torch.where(rows[:, None, None], anchor.x, moved)
                if plan is not None:
                    plans[name] = plan
            streams[name] = Tokens(x, anchor.mask & tokens.mask.any(1, keepdim=True), anchor.times)
        return streams, plans

    def _filled(self, name: str, stream: Tokens, anchor_mask: Tensor) -> Tensor:
        """A stream with the absent token in the samples that lack the modality, zero at padding."""
        x = torch.where(stream.mask.unsqueeze(-1), stream.x, self.absent_tokens[name].to(stream.x.dtype))
        return x.masked_fill(~anchor_mask.unsqueeze(-1), 0)
