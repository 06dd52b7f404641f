"""Further targets of a task, in a corpus and in a batch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from alignmamba.contracts import (
    Config,
    Corpus,
    Name,
    Sample,
    Split,
    Target,
    TargetKind,
    TargetScale,
    Task,
)
from alignmamba.data.classes import Classes
from alignmamba.errors import ConfigError, DataError, shown

Labels = Mapping[str, float | int | str]
"""Labels of a sample by name."""
_MOST_INFERRED = 1000
"""Classes that a target may have whose classes nobody names."""


class LabelConfig(Config):
    """Options of a target that labels hold; what is left out follows from the labels of train."""

    kind: TargetKind | None = None
    """Kind of the target; by default a classification where labels are words, a regression where they are
    numbers, and a multilabel where `labels` names several."""
    labels: tuple[str, ...] = ()
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


def with_further(corpus: Corpus, asked: Mapping[str, FurtherConfig]) -> Corpus:
    """The corpus, whose task has these further targets beside those that it has.

    Raises:
        ConfigError: If train has no such label, or a target does not fit its labels; the message names it.
        DataError: If a label of any sample is not one of its target.
    """
    if not asked:
        return corpus
    train = [sample.labels for sample in corpus.split("train")]
    modalities = [spec.name for spec in corpus.modalities]
    targets = [target for target in corpus.task.further if target.name not in asked]
    targets += [
        target_of(name, given, train, modalities, where=f"targets.{name}") for name, given in asked.items()
    ]
    task = Task.model_validate({**corpus.task.model_dump(), "further": [t.model_dump() for t in targets]})
    for split in corpus.splits.values():
        for sample in split:
            for target in targets:
                value_of(sample, target)
    return replace(corpus, task=task)


def target_of(
    name: str, given: FurtherConfig, train: Sequence[Labels], modalities: Sequence[str], *, where: str
) -> Target:
    """The target as the labels of train know it; a `ConfigError` that begins with `where` if it is none."""
    labels = given.labels or (name,)
    found = {label: [own[label] for own in train if label in own] for label in labels}
    for label, values in found.items():
        if not values:
            known = sorted({each for own in train for each in own})
            raise ConfigError(
                f"{where}: no training sample has a label {label!r}, expected one of"
                f" {', '.join(known) or 'none, as the corpus has no further labels'}"
            )
    if given.modality is not None and given.modality not in modalities:
        raise ConfigError(
            f"{where}.modality: found {given.modality!r}, expected one of {', '.join(modalities)}"
        )
    worded = any(isinstance(value, str) for values in found.values() for value in values)
    kind = given.kind or (
        "multilabel" if len(labels) > 1 else "classification" if worded or given.classes else "regression"
    )
    classes = given.classes
    if kind == "multilabel":
        classes = classes or labels
    elif kind != "regression" and not classes:
        classes = _classes(where, found[labels[0]])
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
    words = sorted(value for value in distinct if isinstance(value, str))
    return (*(f"{value:g}" for value in numbers), *words)


def value_of(sample: Sample, target: Target) -> float | int | tuple[float, ...]:
    """Value of a target in a sample, as a row of `Batch.further`.

    Raises:
        DataError: If the label is none that the target may have; the message names sample and label.
    """
    given = [sample.labels.get(label) for label in target.labels]
    if target.kind == "multilabel":
        return tuple(
            math.nan if value is None else float(_number(sample, label, value) > 0)
            for label, value in zip(target.labels, given, strict=True)
        )
    (label,), (value,) = target.labels, given
    if target.kind == "regression":
        number = math.nan if value is None else _number(sample, label, value)
        low, high = target.label_range or (-math.inf, math.inf)
        if number < low or number > high:
            raise DataError(
                f"sample {sample.id!r}, label {label!r}: found {number:g}, expected {low:g} to {high:g}"
            )
        return number
    if value is None:
        return -1
    classes = Classes(target.classes)
    place = classes.place_of_name(value) if isinstance(value, str) else classes.place_of_number(value)
    if place is None:
        raise DataError(
            f"sample {sample.id!r}, label {label!r}: found {shown(value)}, expected one of {classes}"
        )
    return place


def _number(sample: Sample, label: str, value: float | int | str) -> float:
    if isinstance(value, str):
        raise DataError(f"sample {sample.id!r}, label {label!r}: found {shown(value)}, expected a number")
    return float(value)


def further_targets(samples: Sequence[Sample], task: Task) -> dict[str, Tensor]:
    """Values of every further target of a task, as `Batch.further` has them."""
    return {
        target.name: torch.tensor(
            [value_of(sample, target) for sample in samples],
            dtype=torch.int64 if target.has_one_class else torch.float64,
        )
        for target in task.further
    }


def further_scales(train: Split, task: Task) -> dict[str, TargetScale]:
    """Scale of every further target that is a regression, over the samples of train that have it."""
    values: dict[str, list[float]] = {
        target.name: [] for target in task.further if target.kind == "regression"
    }
    for sample in train if values else ():
        for target in task.further:
            value = value_of(sample, target) if target.name in values else math.nan
            if isinstance(value, float) and not math.isnan(value):
                values[target.name].append(value)
    return {name: TargetScale.of(found) for name, found in values.items()}
