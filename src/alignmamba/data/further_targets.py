"""Further targets of a task, in a corpus and in a batch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self

import numpy as np
from pydantic import Field

from alignmamba.contracts import (
    Config,
    Corpus,
    DistinctNames,
    ModalitySpec,
    Name,
    Sample,
    Split,
    Target,
    TargetKind,
    Task,
)
from alignmamba.data.classes import Classes, name_of_number
from alignmamba.errors import ConfigError, DataError, shown

Labels = Mapping[str, float | int | str]
"""Labels of a sample by name."""
PRESENCE = ("no", "yes")
"""Classes of a label that says whether something is there; as words they are 0 and 1 of several labels."""
_MOST_INFERRED = 1000
"""Classes that a target may have whose classes nobody names."""


class LabelConfig(Config):
    """Options of a target that labels hold; what is left out follows from the labels of train."""

    kind: TargetKind | None = None
    """Kind of the target; by default a classification where labels are words, a regression where they are
    numbers, and a multilabel where `labels` names several."""
    labels: DistinctNames = ()
    """Labels of the corpus that hold it; by default the one of its own name."""
    classes: tuple[str, ...] = ()
    """Names of its classes, in order; by default those of train, of a multilabel the names of its labels."""
    label_range: tuple[float, float] | None = None
    """Smallest and largest admissible value of a regression."""
    sentiment: bool | None = None
    """Mark of a regression whose label is a sentiment, as of a task."""


class FurtherConfig(LabelConfig):
    """Options of a further target."""

    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Weight of its loss beside the loss of the task."""
    modality: Name | None = None
    """Modality that it belongs to, from which alone it is predicted."""
    tokens: Annotated[Name | None, Field(exclude_if=lambda tokens: tokens is None)] = None
    """Modality whose tokens it labels, each of them; by default, where no sample has such a label, the first
    whose tokens have it."""


def with_further(corpus: Corpus, asked: Mapping[str, FurtherConfig]) -> Corpus:
    """The corpus, whose task has these further targets beside those that it has.

    Raises:
        ConfigError: If train has no such label, or a target does not fit its labels; the message names it.
        DataError: If a label of any sample is not one of its target.
    """
    if not asked:
        return corpus
    train = TrainLabels.of(corpus.split("train"), corpus.modalities)
    modalities = [spec.name for spec in corpus.modalities]
    targets = [target for target in corpus.task.further if target.name not in asked]
    targets += [_asked_of(name, given, train, modalities) for name, given in asked.items()]
    task = Task.model_validate({**corpus.task.model_dump(), "further": [t.model_dump() for t in targets]})
    for split in corpus.splits.values():
        for sample in split:
            for target in targets:
                _checked(sample, target)
    return replace(corpus, task=task)


@dataclass(frozen=True)
class TrainLabels:
    """Labels of train: those of each sample, and by modality the different values of those of its tokens."""

    samples: Sequence[Labels]
    tokens: Mapping[str, Mapping[str, Mapping[float | int | str, None]]]

    @classmethod
    def of(cls, train: Iterable[Sample], modalities: Sequence[ModalitySpec]) -> Self:
        """The labels of samples, of tokens in the order of their modalities."""
        samples: list[Labels] = []
        tokens: dict[str, dict[str, dict[float | int | str, None]]] = {spec.name: {} for spec in modalities}
        for sample in train:
            samples.append(sample.labels)
            for name in tokens.keys() & sample.token_labels.keys():
                for label, values in sample.token_labels[name].items():
                    known = dict.fromkeys(value for value in values if value is not None)
                    tokens[name].setdefault(label, {}).update(known)
        return cls(samples, tokens)

    def place(self, label: str, tokens: str | None) -> str | None:
        """Modality whose tokens have a label; ``None`` where it is one of samples, or of nothing."""
        if tokens is not None or self.has(label, None):
            return tokens
        return next((name for name in self.tokens if self.has(label, name)), None)

    def has(self, label: str, place: str | None) -> bool:
        """Answer to whether any value of a label is known in a place, as `place` gives it."""
        if place is None:
            return any(label in own for own in self.samples)
        return label in self.tokens[place]

    def known(self, place: str | None) -> Sequence[Labels]:
        """Labels in that place; of tokens each different value once."""
        if place is None:
            return self.samples
        return [{label: value} for label, values in self.tokens[place].items() for value in values]

    def refuse_unknown(self, where: str, labels: Sequence[str], place: str | None) -> None:
        """Refuse labels that are not in a place; the message names those that there are."""
        who = "training sample" if place is None else f"token of {place!r} in train"
        every = [self.tokens[place]] if place else [*self.samples, *self.tokens.values()]
        for label in labels:
            if not self.has(label, place):
                raise _unknown(where, who, label, every)


def _unknown(where: str, who: str, label: str, owners: Iterable[Iterable[str]]) -> ConfigError:
    """The error about a label that nobody has; the message names the labels that there are."""
    known = sorted({each for own in owners for each in own})
    expected = f"one of {', '.join(known)}" if known else "none, as the corpus has no further labels"
    return ConfigError(f"{where}: no {who} has a label {label!r}, expected {expected}")


def left_of(corpus: Corpus, asked: Mapping[str, FurtherConfig]) -> dict[str, FurtherConfig]:
    """Those of the targets whose labels train has, of a corpus with fewer modalities than there were."""
    if not asked:
        return {}
    train = TrainLabels.of(corpus.split("train"), corpus.modalities)
    names = [None, *(spec.name for spec in corpus.modalities)]
    left = {}
    for name, given in asked.items():
        if given.modality in names and given.tokens in names:
            label = (given.labels or (name,))[0]
            if train.has(label, train.place(label, given.tokens)):
                left[name] = given
    return left


def _asked_of(name: str, given: FurtherConfig, train: TrainLabels, modalities: Sequence[str]) -> Target:
    """The target of samples or of tokens that the labels of train say it is."""
    where, labels = f"targets.{name}", given.labels or (name,)
    if given.tokens is not None and given.tokens not in modalities:
        raise ConfigError(f"{where}.tokens: found {given.tokens!r}, expected one of {', '.join(modalities)}")
    place = train.place(labels[0], given.tokens)
    train.refuse_unknown(where, labels, place)
    given = given.model_copy(update={"tokens": place})
    return target_of(name, given, train.known(place), modalities, where=where)


def target_of(
    name: str, given: FurtherConfig, train: Sequence[Labels], modalities: Sequence[str], *, where: str
) -> Target:
    """The target as the labels of train know it; a `ConfigError` that begins with `where` if it is none."""
    labels = given.labels or (name,)
    found = {label: [own[label] for own in train if label in own] for label in labels}
    for label, values in found.items():
        if not values:
            raise _unknown(where, "training sample", label, train)
    if given.modality is not None and given.modality not in modalities:
        raise ConfigError(
            f"{where}.modality: found {given.modality!r}, expected one of {', '.join(modalities)}"
        )
    worded = any(isinstance(value, str) for values in found.values() for value in values)
    kind = given.kind or (
        "multilabel" if len(labels) > 1 else "classification" if worded or given.classes else "regression"
    )
    if given.label_range is not None and kind != "regression":
        raise ConfigError(
            f"{where}.label_range: found it for a target of the kind {kind}, expected a regression"
        )
    classes = given.classes
    if kind == "multilabel":
        classes = classes or labels
        if len(classes) != len(labels):
            raise ConfigError(
                f"{where}.classes: found {len(classes)}, expected {len(labels)}, one for each label"
            )
    elif kind != "regression" and not classes:
        classes = _classes(where, found[labels[0]])
        if kind == "ordinal" and worded:
            raise ConfigError(f"{where}.classes: found none, expected the words of the labels in their order")
    try:
        return Target(
            **{**given.model_dump(), "name": name, "kind": kind, "labels": labels, "classes": classes}
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _classes(where: str, values: Sequence[float | int | str]) -> tuple[str, ...]:
    """Names of the classes that train has: numbers in their order, then words in theirs."""
    distinct = set(values)
    if len(distinct) > _MOST_INFERRED:
        raise ConfigError(
            f"{where}: found {len(distinct)} different labels in train, expected at most"
            f" {_MOST_INFERRED}, or {where}.classes"
        )
    numbers = sorted(value for value in distinct if not isinstance(value, str))
    if numbers and not (math.isfinite(numbers[0]) and math.isfinite(numbers[-1])):
        raise ConfigError(f"{where}: found an infinite label, expected finite numbers or words")
    words = sorted(value for value in distinct if isinstance(value, str))
    return (*map(name_of_number, numbers), *words)


Value = float | int | tuple[float, ...]
"""Value of a target in a sample or a token, as an entry of `Batch.further`."""


def value_of(sample: Sample, target: Target) -> Value:
    """Value of a target in a sample.

    Raises:
        DataError: If the label is none that the target may have; the message names sample and label.
    """
    given = [sample.labels.get(label) for label in target.labels]
    return _value(f"sample {sample.id!r}", given, target, Classes(target.classes))


def _checked(sample: Sample, target: Target) -> list[Value]:
    """Values of a target in a sample: one, or those of its tokens; raises as `value_of`."""
    if target.tokens is None:
        return [value_of(sample, target)]
    return _values_of_tokens(sample, target, target.tokens)


def _values_of_tokens(sample: Sample, target: Target, modality: str) -> list[Value]:
    """Values of a target in the tokens of a sample; none where it lacks the modality, or all labels."""
    where, classes = f"sample {sample.id!r}", Classes(target.classes)
    own = sample.token_labels.get(modality, {})
    there = next((own[label] for label in target.labels if label in own), ())
    size = len(sample.features.get(modality, ()))
    if there and len(there) != size:
        raise DataError(f"{where}, labels of the tokens of {modality!r}: expected {size}, found {len(there)}")
    unknown = (None,) * len(there)
    rows = zip(*(own.get(label, unknown) for label in target.labels), strict=True)
    seen: dict[tuple[float | int | str | None, ...], Value] = {}
    values = []
    for at, row in enumerate(rows):  # tokens side by side often have the same label
        if row not in seen:
            seen[row] = _value(f"{where}, token {at} of {modality!r}", row, target, classes)
        values.append(seen[row])
    return values


def _value(where: str, given: Sequence[float | int | str | None], target: Target, classes: Classes) -> Value:
    """Value of a target, of the labels that hold it."""
    if target.kind == "multilabel":
        return tuple(
            math.nan if value is None else float(_amount(f"{where}, label {label!r}", value) > 0)
            for label, value in zip(target.labels, given, strict=True)
        )
    (label,), (value,) = target.labels, given
    where = f"{where}, label {label!r}"
    if target.kind == "regression":
        number = math.nan if value is None else _number(where, value)
        low, high = target.label_range or (-math.inf, math.inf)
        if number < low or number > high:
            raise DataError(f"{where}: found {number:g}, expected {low:g} to {high:g}")
        return number
    if value is None:
        return -1
    place = classes.place_of(value)
    if place is None:
        raise DataError(f"{where}: found {shown(value)}, expected one of {classes}")
    return place


def _amount(where: str, value: float | int | str) -> float:
    """Amount of what one of several labels says is there."""
    return float(PRESENCE.index(str(value))) if value in PRESENCE else _number(where, value)


def _number(where: str, value: float | int | str) -> float:
    if isinstance(value, str) or math.isinf(value):
        raise DataError(f"{where}: found {shown(value)}, expected a number")
    return float(value)


def further_targets(samples: Sequence[Sample], task: Task) -> dict[str, np.ndarray]:
    """Values of every further target of a task, as `Batch.further` has them in tensors."""
    return {target.name: _values(samples, target) for target in task.further}


def _values(samples: Sequence[Sample], target: Target) -> np.ndarray:
    """Values of one target; those of tokens padded to the length that the modality has in a batch."""
    dtype = np.int64 if target.has_one_class else np.float64
    if target.tokens is None:
        return np.array([value_of(sample, target) for sample in samples], dtype=dtype)
    longest = max([1, *(len(sample.features.get(target.tokens, ())) for sample in samples)])
    shape = (len(samples), longest, *((len(target.classes),) if target.kind == "multilabel" else ()))
    values = np.full(shape, -1 if target.has_one_class else math.nan, dtype=dtype)
    for row, sample in enumerate(samples):
        own = _values_of_tokens(sample, target, target.tokens)
        if own:
            values[row, : len(own)] = own
    return values


def regression_values(train: Split, task: Task) -> dict[str, list[float]]:
    """Known values of every further target that is a regression, of samples or of tokens."""
    values: dict[str, list[float]] = {
        target.name: [] for target in task.further if target.kind == "regression"
    }
    for sample in train if values else ():
        for target in task.further:
            if target.name in values:
                found = (value for value in _checked(sample, target) if isinstance(value, float))
                values[target.name] += [value for value in found if not math.isnan(value)]
    return values
