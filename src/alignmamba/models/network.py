"""The contract of a network: what the rest of the house may ask of any of them, whoever wrote it."""

from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignmamba.contracts import (
    Batch,
    Branches,
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
from alignmamba.models.heads import FurtherHeads, TargetScaling, Thresholds
from alignmamba.models.pretrained import Pretrained
from alignmamba.models.token_targets import of_raw_tokens, refuse_tokens
from alignmamba.nn.alignment import Tokens
from alignmamba.nn.by_name import ModulesByName
from alignmamba.nn.encoders import Standardise
from alignmamba.ops.backends import exporting

_OWN = "task"
"""Name of thresholds of the target of the task itself."""
# The order of the paper's modalities as anchors: text where it is present, then audio, then video.
_CONVENTIONAL_ORDER = ("text", "audio", "video")


class NetworkConfig(Config):
    """Fields that define every network, beside its own."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    """Names that `preset` knows, and the fields that each sets."""
    SILENT: ClassVar[Mapping[str, Any]] = {}
    """Options that came with a later version, with values under which they change nothing: a run that has
    these has the digest of one that knows no such option."""
    method: ClassVar[str] = "a network"
    """Name in messages."""
    least_modalities: ClassVar[int] = 1
    """Fewest modalities that there must be."""
    one_target: ClassVar[str] = ""
    """Reason why it predicts no further targets; empty where it does."""
    one_class: ClassVar[str] = ""
    """Reason why it does not take a task of several labels; empty where it does."""
    no_tokens: ClassVar[str] = "makes one vector of a sample, not one of each token"
    """Reason why it predicts no targets of tokens; empty where it does."""

    modalities: Annotated[tuple[ModalitySpec, ...], Field(min_length=1)]
    """The modalities the network takes, in the order that breaks ties."""
    task: Task
    """Task to predict."""
    anchor_order: tuple[Name, ...] = ()
    """Modalities in the order of preference as anchor: a sample is aligned to the first one it has. Those not
    named follow; empty means those whose tokens have a target, then text, audio, video, then the order of
    `modalities`. In one sequence streams stand in the reverse order."""

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError(f"modalities: names must be distinct, found {names}")
        if len(names) < self.least_modalities:
            least = self.least_modalities
            raise ValueError(f"modalities: {self.method} needs at least {least}, found {names}")
        unknown = [name for name in self.anchor_order if name not in names]
        if unknown:
            raise ValueError(f"anchor_order: found {unknown[0]!r}, expected some of {names}")
        if len(set(self.anchor_order)) != len(self.anchor_order):
            raise ValueError(f"anchor_order: names must be distinct, found {list(self.anchor_order)}")
        if self.task.kind == "multilabel" and self.one_class:
            found = f"a multilabel of {len(self.task.classes)}"
            raise ValueError(f"task: found {found}, expected another kind: {self.method} {self.one_class}")
        if self.task.further and self.one_target:
            found = ", ".join(target.name for target in self.task.further)
            raise ValueError(f"targets: found {found}, expected none: {self.method} {self.one_target}")
        refuse_tokens(self.task, names, method=self.method, reason=self.no_tokens)
        return self

    @property
    def anchors(self) -> tuple[str, ...]:
        """All modalities in the order of preference as anchor."""
        names = [modality.name for modality in self.modalities]
        usual = (*self.task.labelled_tokens, *_CONVENTIONAL_ORDER)
        preferred = self.anchor_order or [name for name in dict.fromkeys(usual) if name in names]
        return (*preferred, *(name for name in names if name not in preferred))

    def pinned(self) -> Self:
        """The same with what files outside a corpus say of themselves, as their checksums; nothing here.

        Raises:
            ConfigError: If such a file is missing or is not as expected.
        """
        return self

    @classmethod
    def preset(cls, name: str, *, modalities: tuple[ModalitySpec, ...], task: Task, **overrides: Any) -> Self:
        """A named configuration for these modalities and this task.

        Args:
            name: One of `PRESETS`: ``default`` for every model; for AlignMamba also ``paper``, the paper's
                equations to the letter (docs/decisions.md).
            modalities: What the corpus offers.
            task: What is predicted.
            **overrides: Fields that differ from the preset; nested ones as mappings.

        Raises:
            ConfigError: If there is no such preset, or a field is unknown or out of range.
        """
        given = cls.laid(name, overrides)
        # Fields of a nested configuration that nobody sets keep the defaults that this class gives them, not
        # those of the nested one.
        nested = {
            field: info.default.model_dump()
            for field, info in cls.model_fields.items()
            if isinstance(info.default, Config)
        }
        kept = {
            field: values
            for field, values in nested.items()
            if field in given and not is_pretrained(given[field])
        }
        return cls(**merged(kept, given) | {"modalities": modalities, "task": task})

    @classmethod
    def laid(cls, preset: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that a preset sets, and over them what is given.

        Raises:
            ConfigError: If there is no such preset.
        """
        if preset not in cls.PRESETS:
            raise ConfigError(f"preset: expected one of {sorted(cls.PRESETS)}, found {preset!r}")
        return merged(cls.PRESETS[preset], overrides)


def merged(values: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """`layer` laid over `values`, mapping by mapping; neither changes."""
    result = dict(values)
    for key, value in layer.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if nested else value
    return result


def is_pretrained(given: Any) -> bool:
    """Mark of an encoder whose fields are its own, under which no defaults of another kind are laid."""
    return isinstance(given, Mapping) and given.get("kind") == "pretrained"


ConfigT = TypeVar("ConfigT", bound=NetworkConfig)


class _Completed(ABCMeta):
    """Gives a network the heads of further targets once its own constructor, which need not know of them, is
    done.
    """

    def __call__(cls, *args: Any, **values: Any) -> Any:
        network = super().__call__(*args, **values)
        network.add_further_heads()
        return network


class Network(Pretrained[ConfigT], ScalesTargets, ABC, metaclass=_Completed):
    """Predicts the targets of a sample from the raw features of any of its modalities.

    A network states `config_class`, whose instance its constructor takes alone, `summary` and `tags`, and
    says in `_predict` how it predicts. Everything else here holds for all of them: raw features in, scales
    stored with the weights, predictions in units of the label, further targets predicted from the embedding,
    saving and loading. Nothing asks a network for more than stands in this class.
    """

    config_class: ClassVar[Any]  # a subclass of NetworkConfig; `Any` lets each state its own
    unexported: ClassVar[str] = ""
    """Reason why no program can be exported of it; empty where one can."""
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Variants that show what a part of the network is worth: the name of a table row to the fields of a run
    that differ, ``model`` and ``options``. Read by the protocol that trains them; the network itself makes no
    use of it."""

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config = config
        self.standardisers = ModulesByName(
            {m.name: Standardise(m.dim) for m in config.modalities if m.kind == "features"}
        )
        self.target_scaling = TargetScaling() if config.task.kind == "regression" else None
        self.calling = ModulesByName()
        self.further_heads: FurtherHeads | None = None
        self.further_scaling = ModulesByName()

    def add_further_heads(self) -> None:
        """Make the heads of the task's further targets, last of all weights."""
        targets = self.config.task.further
        several = [(_OWN, self.config.task), *((target.name, target) for target in targets)]
        self.calling = ModulesByName(
            {name: Thresholds(len(each.classes)) for name, each in several if each.kind == "multilabel"}
        )
        if targets:
            self.further_heads = FurtherHeads(self.embedding_width, targets, self.token_width)
            self.further_scaling = ModulesByName(
                {target.name: TargetScaling() for target in targets if target.kind == "regression"}
            )

    @property
    def embedding_width(self) -> int:
        """Channels of `Output.embedding`, as many as the head reads unless a network says otherwise."""
        head = self.get_submodule("head")
        assert isinstance(head, nn.Linear)
        return head.in_features

    @property
    def token_width(self) -> int:
        """Channels of the vectors of `Output.tokens`, by default as many as the embedding has."""
        return self.embedding_width

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy whose weights keep what they say of themselves, such as a learning rate of their own."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(deepcopy(self.__dict__, memo))
        for own, other in zip(self.parameters(), made.parameters(), strict=True):
            vars(other).update(vars(own))
        return made

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
            modalities: Name to the width of one feature vector; for token ids to a `ModalitySpec` that says
                so.
            label_range: Smallest and largest admissible label, if there is one; it decides which metrics make
                sense.
            preset: Named configuration to start from.
            **options: Fields of the configuration that differ from it, nested ones as mappings.

        Raises:
            ConfigError: If a modality, the preset or an option is not as expected.
        """
        return cls._made(modalities, Task(kind="regression", label_range=label_range), preset, options)

    @classmethod
    def for_classification(
        cls,
        modalities: Mapping[str, int | ModalitySpec],
        *,
        classes: int | Sequence[str],
        preset: str = "default",
        **options: Any,
    ) -> Self:
        """An untrained model that predicts one of several classes.

        Args:
            modalities: As for `for_regression`.
            classes: Names of the classes, or how many there are; these are then called ``0``, ``1`` and so
                on.
            preset: Named configuration to start from.
            **options: Fields of the configuration that differ from it, nested ones as mappings.

        Raises:
            ConfigError: If a modality, the classes, the preset or an option is not as expected.
        """
        if isinstance(classes, str):
            raise ConfigError(
                f"classes: found the text {classes!r:.60}, expected a list of names or their number"
            )
        names = [str(number) for number in range(classes)] if isinstance(classes, int) else list(classes)
        return cls._made(modalities, Task(kind="classification", classes=tuple(names)), preset, options)

    @classmethod
    def for_task(
        cls,
        modalities: Mapping[str, int | ModalitySpec],
        task: Task,
        *,
        preset: str = "default",
        **options: Any,
    ) -> Self:
        """An untrained model for any task, for example ordered classes or several labels.

        Args:
            modalities: As for `for_regression`.
            task: What it predicts.
            preset: Named configuration to start from.
            **options: Fields of the configuration that differ from it, nested ones as mappings.

        Raises:
            ConfigError: If a modality, the preset or an option is not as expected.
        """
        return cls._made(modalities, task, preset, options)

    @classmethod
    def _made(
        cls, modalities: Mapping[str, int | ModalitySpec], task: Task, preset: str, options: Mapping[str, Any]
    ) -> Self:
        if not isinstance(modalities, Mapping):
            raise ConfigError(
                f"modalities: expected a mapping of names to widths, found {type(modalities).__name__}"
            )
        specs = []
        for name, given in modalities.items():
            if isinstance(given, ModalitySpec) and given.name != name:
                raise ConfigError(
                    f"modalities: {name!r} has a description of {given.name!r}, expected the same name"
                )
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
            return_plans: Return the matchings onto the anchor as well, none by a network that makes none.

        Raises:
            DataError: If a modality is unknown, a sample has none at all, or a token id is not of the
                vocabulary.
            ShapeError: If a modality's width or type is not the configured one, or the batch is empty or no
                `Batch`.
        """
        if not isinstance(batch, Batch):
            found = f"{type(batch).__module__}.{type(batch).__name__}".removeprefix("builtins.")
            example = ", ".join(f"{name!r}: ..." for name in self.config.anchors[:2])
            raise ShapeError(f"batch: expected a Batch, found {found}; make one with Batch.of({{{example}}})")
        out = self._in_label_units(self._predict(batch))
        tokens = {}
        for name in self.config.task.labelled_tokens:
            there = batch.modalities[name].mask if name in batch.modalities else None
            tokens[name] = of_raw_tokens(out.tokens[name], self.strides[name], there)
        seen = {
            name: out.embedding if name is None else self._alone(batch, name, out.embedding)
            for name in dict.fromkeys(target.modality for target in self.config.task.further)
        }
        further = self._further(seen, {name: each.x for name, each in tokens.items()})
        return replace(out, further=further, tokens=tokens, plans=(out.plans or {}) if return_plans else None)

    def _further(self, seen: Mapping[str | None, Tensor], tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Predictions of further targets whose vectors are given: the embedding of the sample under ``None``,
        those of modalities read alone, and those of tokens, (batch, time, channel).
        """
        found = {}
        for target in self.config.task.further:
            read = seen.get(target.modality) if target.tokens is None else tokens.get(target.tokens)
            if read is None:
                continue
            assert self.further_heads is not None
            prediction = self.further_heads.of(target, read)
            if target.kind == "regression":
                prediction = self.further_scaling[target.name](prediction)
            found[target.name] = prediction
        return found

    def _alone(self, batch: Batch, name: str, like: Tensor) -> Tensor:
        """Embedding of a single modality, with zeros in the samples that lack it."""
        alone = torch.zeros_like(like)
        if name not in batch.modalities:
            return alone
        others = [other for other in batch.modalities if other != name]
        if torch.compiler.is_compiling():  # a program may not look at data
            return self._predict(batch.without(*others)).embedding
        rows = batch.having(name).nonzero().flatten()
        if not len(rows):
            return alone
        part = batch.select(rows.tolist()) if len(rows) < len(batch) else batch
        found = self._predict(part.without(*others)).embedding
        return alone.index_put((rows,), found.to(alone.dtype))

    @abstractmethod
    def _predict(self, batch: Batch) -> Output:
        """The output for a batch; a regression in deviations from the targets' mean, as of a `Head`."""

    def _sequences(self, batch: Batch) -> tuple[dict[str, Sequences], Tensor]:
        """Every configured modality's sequences, and which of them each sample has, (batch, modality) bool in
        anchor order.
        """
        unknown = sorted(set(batch.modalities) - {modality.name for modality in self.config.modalities})
        if unknown:
            raise DataError(
                f"modality {unknown[0]!r} is unknown to this model, which takes {list(self.config.anchors)}"
            )
        if not exporting() and len(batch) == 0:
            raise ShapeError("batch: expected at least one sample, found none")
        sequences = {m.name: self._checked(m, batch) for m in self.config.modalities}
        present = torch.stack([sequences[name].mask.any(1) for name in self.config.anchors], 1)
        if self._looks_at(present) and not bool(present.any(1).all()):
            empty = [batch.ids[row] for row in (~present.any(1)).nonzero().flatten().tolist()]
            raise DataError(
                f"sample {empty[0]!r}: found no modality, expected at least one ({len(empty)} such"
                " samples in this batch)"
            )
        return sequences, present

    def _checked(self, modality: ModalitySpec, batch: Batch) -> Sequences:
        """The batch's sequences of one modality, empty where it has none."""
        floating = modality.kind == "features"
        if modality.name not in batch.modalities:
            dtype = self._weight.dtype if floating else torch.int64
            features = torch.zeros(batch.size, 0, modality.width, dtype=dtype, device=self._weight.device)
            return Sequences(features=features, mask=features.new_zeros(len(batch), 0, dtype=torch.bool))
        sequences = batch.modalities[modality.name]
        features = sequences.features
        if features.shape[2] != modality.width or features.is_floating_point() != floating:
            wanted = f"{modality.width} floating channels" if floating else "one channel of int64 token ids"
            raise ShapeError(
                f"modality {modality.name!r}: expected {wanted}, found {features.dtype} of shape"
                f" {tuple(features.shape)}"
            )
        if not floating and self._looks_at(features):
            outside = sequences.mask & ((features[..., 0] < 0) | (features[..., 0] >= modality.dim))
            if bool(outside.any()):
                row, position = outside.nonzero()[0].tolist()
                raise DataError(
                    f"sample {batch.ids[row]!r}, modality {modality.name!r}: token id"
                    f" {int(features[row, position, 0])} at position {position}, expected 0 to"
                    f" {modality.dim - 1}"
                )
        return sequences

    def _looks_at(self, values: Tensor) -> bool:
        """Answer to whether values are checked: not in training on a GPU, where looking would wait for it."""
        return not torch.compiler.is_compiling() and (values.device.type == "cpu" or not self.training)

    @property
    def _weight(self) -> Tensor:
        """A weight, for the type and the device of the model."""
        return next(self.parameters())

    @property
    def strides(self) -> Mapping[str, int]:
        """Tokens of the batch, by modality, that become one token of `aligned_streams` and plans."""
        return {modality.name: 1 for modality in self.config.modalities}

    @property
    def timed(self) -> Collection[str]:
        """Modalities whose times it reads; none here."""
        return ()

    @property
    def longest(self) -> Mapping[str, int]:
        """Most tokens of a sequence, by modality, where not all lengths will do; nothing here."""
        return {}

    def aligned_streams(self, batch: Batch) -> Mapping[str, Tokens] | None:
        """Every modality's tokens after they were aligned; ``None`` from a network that aligns none."""
        del batch
        return None

    def _in_label_units(self, output: Output) -> Output:
        """The output with a number as people know it in place of what the head says."""
        if self.target_scaling is None:
            return output
        scaling, alone, branches = self.target_scaling, output.unimodal, output.branches
        if alone is not None:
            alone = alone.scaled(scaling)
        if branches is not None:
            branches = Branches(fused=scaling(branches.fused), alone=branches.alone.scaled(scaling))
        return replace(output, prediction=scaling(output.prediction), unimodal=alone, branches=branches)

    @property
    def target_scale(self) -> TargetScale | None:
        """Mean and deviation of the targets of training; ``None`` before any were given."""
        scaling = self.target_scaling
        if scaling is None:
            return TargetScale()
        return (
            TargetScale(mean=float(scaling.mean), deviation=float(scaling.deviation))
            if scaling.known
            else None
        )

    @property
    def further_scales(self) -> dict[str, TargetScale]:
        """Mean and deviation of each further target that is a regression."""
        return {
            name: TargetScale(
                mean=float(module.get_buffer("mean")), deviation=float(module.get_buffer("deviation"))
            )
            for name, module in self.further_scaling.items()
        }

    @property
    def thresholds(self) -> dict[str, np.ndarray]:
        """Probabilities from which classes are called, of each target of several labels."""
        return {
            "" if name == _OWN else name: module.get_buffer("values").cpu().numpy().copy()
            for name, module in self.calling.items()
        }

    def call_from(self, thresholds: Mapping[str, np.ndarray]) -> None:
        """Store thresholds, as `thresholds` gives them."""
        for name, values in thresholds.items():
            self.calling[name or _OWN].get_buffer("values").copy_(torch.from_numpy(values))

    def scale_targets(self, scale: TargetScale) -> None:
        """Store mean and deviation of the targets of a regression task.

        Raises:
            ConfigError: If the task is a classification, whose targets have no scale.
        """
        if self.target_scaling is None:
            raise ConfigError(f"scale_targets: found {scale}, expected no scale for a classification")
        _set_scale(self.target_scaling, scale)

    def standardise(self, statistics: Standardisation) -> None:
        """Store the scale of each channel of the raw features and, for a regression, of the targets.

        Raises:
            ShapeError: If a modality takes no features, or the width is another.
        """
        if self.target_scaling is not None:
            self.scale_targets(statistics.targets)
        for name, scale in statistics.further.items():
            _set_scale(self.further_scaling[name], scale)
        for name, (mean, deviation) in statistics.features.items():
            if name not in self.standardisers:
                raise ShapeError(
                    f"statistics of {name!r}: the model standardises {sorted(self.standardisers)}"
                )
            module = self.standardisers[name]
            assert isinstance(module, Standardise)
            if mean.shape != module.mean.shape or deviation.shape != module.mean.shape:
                raise ShapeError(
                    f"statistics of {name!r}: expected width {len(module.mean)}, found {tuple(mean.shape)}"
                )
            module.mean.copy_(mean)
            module.deviation.copy_(deviation)

    def training_means(self) -> dict[str, Tensor]:
        """The means that `standardise` stored, (channel) each, by modality of features."""
        return {name: module.get_buffer("mean").detach().cpu() for name, module in self.standardisers.items()}


def _set_scale(scaling: nn.Module, scale: TargetScale) -> None:
    """Store mean and deviation of targets."""
    assert isinstance(scaling, TargetScaling)
    scaling.mean.fill_(scale.mean)
    scaling.deviation.fill_(scale.deviation)
    scaling.known = True
