"""What every fusion model shares: its modalities, their encoders, what stands for a missing one, and the head."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import (
    Batch,
    Config,
    ModalitySpec,
    Name,
    Output,
    ScalesTargets,
    Sequences,
    Standardisation,
    TargetScale,
    Task,
)
from alignmamba.errors import ConfigError, DataError, ShapeError
from alignmamba.models.pretrained import Pretrained, validated
from alignmamba.nn.alignment import Tokens, since_first
from alignmamba.nn.encoders import Encoder, EncoderConfig, Standardise, group_mean
from alignmamba.nn.pooling import Pooling

# The order of the paper's modalities as anchors: text where it is present, then audio, then video.
_CONVENTIONAL_ORDER = ("text", "audio", "video")


class FusionConfig(Config):
    """What every fusion model is defined by, beside the fields of its backbone."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    """Names that `preset` knows, and the fields that each sets."""

    modalities: Annotated[tuple[ModalitySpec, ...], Field(min_length=1)]
    """The modalities the model takes, in the order that breaks ties."""
    task: Task
    """What is predicted."""
    anchor_order: tuple[Name, ...] = ()
    """Modalities in the order of preference as anchor: a sample is aligned to the first one it has. Those not named follow;
    empty means text, audio, video, then the order of `modalities`. In one sequence streams stand in the reverse order."""
    encoder: EncoderConfig = EncoderConfig()
    """How a modality is encoded where `encoders` does not say."""
    encoders: Mapping[Name, EncoderConfig] = Field(default_factory=dict)
    """How each named modality is encoded."""
    absent: Literal["learned", "zeros"] = "learned"
    """What stands in the stream of a missing modality: one learned token per modality, or zeros."""
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a present modality of a sample is hidden in a training step; at least one is kept."""
    pooling: Pooling = "max"
    """How a sequence becomes one vector: the mean, maximum or last of its valid tokens."""

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
            name: One of `PRESETS`: ``default`` for every model; for AlignMamba also ``paper``, the paper's equations to the
                letter (docs/decisions.md).
            modalities: What the corpus offers.
            task: What is predicted.
            **overrides: Fields that differ from the preset; nested ones as mappings.

        Raises:
            ConfigError: If there is no such preset, or a field is unknown or out of range.
        """
        if name not in cls.PRESETS:
            raise ConfigError(f"preset: expected one of {sorted(cls.PRESETS)}, found {name!r}")
        return validated(cls, merged(cls.PRESETS[name], overrides) | {"modalities": modalities, "task": task})


def merged(values: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """`layer` laid over `values`, mapping by mapping; neither changes."""
    result = dict(values)
    for key, value in layer.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if nested else value
    return result


class Head(nn.Linear):
    """Dropout and one linear map from a pooled vector to the prediction, for regression in deviations from the targets' mean."""

    def __init__(self, width: int, task: Task, dropout: float) -> None:
        super().__init__(width, task.num_outputs)
        self.dropout = nn.Dropout(dropout)
        self.kind = task.kind

    def forward(self, embedding: Tensor) -> Tensor:
        """(batch, width) to (batch,) for regression, (batch, class) scores for classification."""
        prediction = super().forward(self.dropout(embedding))
        return prediction.squeeze(-1) if self.kind == "regression" else prediction


class TargetScaling(nn.Module):
    """From deviations to units of the label, with the mean and deviation of the train targets: stored with the model, in float64.

    Labels such as 1e9 and 1e9 + 1 are one number in single precision, so neither the buffers nor the result ever are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("deviation", torch.ones((), dtype=torch.float64))
        self.known = False

    def forward(self, standardised: Tensor) -> Tensor:
        """(batch,) of any floating type to (batch,) float64."""
        return self.mean + self.deviation * standardised.double()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model, but keep the type: ``model.half()`` is about weights."""
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            changed = self.get_buffer(name)
            if changed.dtype != buffer.dtype:
                setattr(self, name, buffer.to(changed.device))
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Weights that know of no scale come from version 0.1, whose heads were trained in units of the label."""
        if not any(prefix + name in state_dict for name in ("mean", "deviation")):
            state_dict[prefix + "mean"] = torch.zeros_like(self.mean)
            state_dict[prefix + "deviation"] = torch.ones_like(self.deviation)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.known = True


ConfigT = TypeVar("ConfigT", bound=FusionConfig)


class Fusion(Pretrained[ConfigT], ScalesTargets, ABC):
    """A fusion model: standardised features, one encoder per modality, then whatever the model makes of the tokens.

    A model states its `config_class`, makes its backbone after this constructor and its `Head` last, and says how it reads the
    encoded tokens. Weights drawn here come first, so that under one seed all models of one width start from the same encoders.
    """

    least_modalities: ClassVar[int] = 1
    """With how few modalities the model can be made."""
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Variants that tell what a part of the model is worth: the name of a table row to the fields of a run that differ, ``model``
    and ``options``. Read by the protocol that trains them; the model itself makes no use of it."""

    def __init__(self, config: ConfigT, d_model: int) -> None:
        super().__init__()
        self.config = config
        self.standardisers = nn.ModuleDict({m.name: Standardise(m.dim) for m in config.modalities if m.kind == "features"})
        self.encoders = nn.ModuleDict({m.name: Encoder(m, config.encoders.get(m.name, config.encoder), d_model) for m in config.modalities})
        self.absent_tokens = nn.ParameterDict(
            {m.name: nn.Parameter(torch.zeros(d_model), requires_grad=config.absent == "learned") for m in config.modalities}
        )
        self.target_scaling = TargetScaling() if config.task.kind == "regression" else None

    @classmethod
    def for_regression(
        cls,
        modalities: Mapping[str, int | ModalitySpec],
        *,
        label_range: tuple[float, float] | None = None,
        preset: str = "default",
        **options: Any,
    ) -> Self:
        """An untrained model that predicts one real number.

        Args:
            modalities: Name to the width of one feature vector; for token ids to a `ModalitySpec` that says so.
            label_range: Smallest and largest admissible label, if there is one; it decides which metrics make sense.
            preset: Named configuration to start from.
            **options: Fields of the configuration that differ from it, nested ones as mappings.

        Raises:
            ConfigError: If a modality, the preset or an option is not as expected.
        """
        return cls._made(modalities, Task(kind="regression", label_range=label_range), preset, options)

    @classmethod
    def for_classification(
        cls, modalities: Mapping[str, int | ModalitySpec], *, classes: int | Sequence[str], preset: str = "default", **options: Any
    ) -> Self:
        """An untrained model that predicts one of several classes.

        Args:
            modalities: As for `for_regression`.
            classes: Names of the classes, or how many there are; these are then called ``0``, ``1`` and so on.
            preset: Named configuration to start from.
            **options: Fields of the configuration that differ from it, nested ones as mappings.

        Raises:
            ConfigError: If a modality, the classes, the preset or an option is not as expected.
        """
        if isinstance(classes, str):
            raise ConfigError(f"classes: found the text {classes!r:.60}, expected a list of names or their number")
        names = [str(number) for number in range(classes)] if isinstance(classes, int) else list(classes)
        return cls._made(modalities, Task(kind="classification", classes=tuple(names)), preset, options)

    @classmethod
    def _made(cls, modalities: Mapping[str, int | ModalitySpec], task: Task, preset: str, options: Mapping[str, Any]) -> Self:
        if not isinstance(modalities, Mapping):
            raise ConfigError(f"modalities: expected a mapping of names to widths, found {type(modalities).__name__}")
        specs = []
        for name, given in modalities.items():
            if isinstance(given, ModalitySpec) and given.name != name:
                raise ConfigError(f"modalities: {name!r} is described as {given.name!r}, expected the same name")
            try:
                specs.append(given if isinstance(given, ModalitySpec) else ModalitySpec(name=name, dim=given))
            except ConfigError as error:
                raise ConfigError(f"modalities: {name!r}: {error}") from None
        make: Any = cls  # a model's own constructor takes the configuration alone
        made: Self = make(cls.config_class.preset(preset, modalities=tuple(specs), task=task, **options))
        return made

    def forward(self, batch: Batch, *, return_plans: bool = False) -> Output:
        """Predict every sample of a batch of raw features.

        Args:
            batch: Modalities by name; one that is configured and not in the batch counts as missing.
            return_plans: Whether the matchings onto the anchor are returned as well, none by a model that makes none.

        Raises:
            DataError: If a modality is unknown, a sample has none at all, or a token id is not of the vocabulary.
            ShapeError: If a modality's width or type is not the configured one, or the batch is empty or no `Batch`.
        """
        if not isinstance(batch, Batch):
            found = f"{type(batch).__module__}.{type(batch).__name__}".removeprefix("builtins.")
            example = ", ".join(f"{name!r}: ..." for name in self.config.anchors[:2])
            raise ShapeError(f"batch: expected a Batch, found {found}; make one with Batch.of({{{example}}})")
        out = self._in_label_units(self._read(self._encoded(batch)))
        return replace(out, plans=(out.plans or {}) if return_plans else None)

    @abstractmethod
    def _read(self, encoded: Mapping[str, Tokens]) -> Output:
        """The output for each modality's tokens, in anchor order; none is valid in the samples that lack the modality.

        A regression is predicted in deviations from the mean of the targets, as a `Head` gives it.
        """

    def _in_label_units(self, output: Output) -> Output:
        """The output with a number as people know it in place of what the head says."""
        if self.target_scaling is None:
            return output
        return replace(output, prediction=self.target_scaling(output.prediction))

    @property
    def target_scale(self) -> TargetScale | None:
        """Mean and deviation of the targets that the model was trained on; ``None`` before it was given any."""
        scaling = self.target_scaling
        if scaling is None:
            return TargetScale()
        return TargetScale(mean=float(scaling.mean), deviation=float(scaling.deviation)) if scaling.known else None

    def scale_targets(self, scale: TargetScale) -> None:
        """Store mean and deviation of the targets of a regression task.

        Raises:
            ConfigError: If the task is a classification, whose targets have no scale.
        """
        if self.target_scaling is None:
            raise ConfigError(f"scale_targets: the targets of a classification have no scale, found {scale}")
        self.target_scaling.mean.fill_(scale.mean)
        self.target_scaling.deviation.fill_(scale.deviation)
        self.target_scaling.known = True

    def standardise(self, statistics: Standardisation) -> None:
        """Store the scale of each channel of the raw features and, for a regression, of the targets.

        Raises:
            ShapeError: If a modality takes no features, or the width is another.
        """
        if self.target_scaling is not None:
            self.scale_targets(statistics.targets)
        for name, (mean, deviation) in statistics.features.items():
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

    def _encoded(self, batch: Batch) -> dict[str, Tokens]:
        """Every configured modality's tokens, in anchor order; none valid in the samples that lack it."""
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
        times = _clocked(sequences)
        encoded = {}
        for number, name in enumerate(self.config.anchors):
            s = sequences[name]
            mask = s.mask & kept[:, number, None]
            features = s.features.masked_fill(~mask.unsqueeze(-1), 0)
            if name in self.standardisers:
                features = self.standardisers[name](features.to(self._weight.dtype), mask)
            x, short_mask = self.encoders[name](features, mask)
            encoded[name] = Tokens(x, short_mask, group_mean(times[name], s.mask, self._stride(name))[0])
        # Autocast leaves embedded ids in single precision and lowers features.
        dtype = reduce(torch.promote_types, (tokens.x.dtype for tokens in encoded.values()))
        return {name: replace(tokens, x=tokens.x.to(dtype)) for name, tokens in encoded.items()}

    def _with_absent(self, encoded: Mapping[str, Tokens]) -> dict[str, Tokens]:
        """The streams with one token, the absent one, in the samples that lack the modality: no stream is empty."""
        streams = {}
        for name, tokens in encoded.items():
            if tokens.mask.shape[1] == 0:
                tokens = tokens.fitted(1)
            first = torch.arange(tokens.mask.shape[1], device=tokens.mask.device) == 0
            missing = ~tokens.mask.any(1, keepdim=True) & first
            x = torch.where(missing.unsqueeze(-1), self.absent_tokens[name].to(tokens.x.dtype), tokens.x)
            streams[name] = Tokens(x, tokens.mask | missing, tokens.times)
        return streams

    @property
    def _weight(self) -> Tensor:
        """A weight, for the type and the device of the model."""
        token: Tensor = self.absent_tokens[self.config.modalities[0].name]
        return token

    def _stride(self, name: str) -> int:
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder.stride

    def _checked(self, modality: ModalitySpec, batch: Batch) -> Sequences:
        """The batch's sequences of one modality, empty where it has none."""
        floating = modality.kind == "features"
        if modality.name not in batch.modalities:
            dtype = self._weight.dtype if floating else torch.int64
            features = torch.zeros(len(batch), 0, modality.width, dtype=dtype, device=self._weight.device)
            return Sequences(features=features, mask=features.new_zeros(len(batch), 0, dtype=torch.bool))
        sequences = batch.modalities[modality.name]
        features = sequences.features
        if features.shape[2] != modality.width or features.is_floating_point() != floating:
            wanted = f"{modality.width} floating channels" if floating else "one channel of int64 token ids"
            raise ShapeError(f"modality {modality.name!r}: expected {wanted}, found {features.dtype} of shape {tuple(features.shape)}")
        if not floating and not torch.compiler.is_compiling():
            outside = sequences.mask & ((features[..., 0] < 0) | (features[..., 0] >= modality.dim))
            if bool(outside.any()):
                row, position = outside.nonzero()[0].tolist()
                raise DataError(
                    f"sample {batch.ids[row]!r}, modality {modality.name!r}: token id {int(features[row, position, 0])} at position "
                    f"{position}, expected 0 to {modality.dim - 1}"
                )
        return sequences

    def _kept(self, present: Tensor) -> Tensor:
        """(batch, modality) bool: what modality dropout leaves of what is present, at least one each."""
        if not self.training or not self.config.modality_dropout:
            return present
        chance = torch.rand(present.shape, device=present.device)
        drawn = present & (chance >= self.config.modality_dropout)
        survivor = chance.masked_fill(~present, -1).argmax(1, keepdim=True)
        return drawn.scatter(1, survivor, True)


def _clocked(sequences: Mapping[str, Sequences]) -> dict[str, Tensor]:
    """Each modality's times from the first token of the sample on, (batch, time) float64; NaN where a modality brings none."""
    times = {name: s.mask.new_full(s.mask.shape, torch.nan, dtype=torch.float64) for name, s in sequences.items()}
    timed = [name for name, s in sequences.items() if s.times is not None]
    if not timed:
        return times
    given = [s.times for s in sequences.values() if s.times is not None]
    return times | dict(zip(timed, since_first(given, [sequences[name].mask for name in timed]), strict=True))
