"""Leading target of a task, chosen among the labels of samples."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignmamba.contracts import NAME_PATTERN, Corpus, DistinctNames, Role, Sample, Split, Target, Task
from alignmamba.data.further_targets import (
    PRESENCE,
    FurtherConfig,
    LabelConfig,
    Labels,
    TrainLabels,
    target_of,
    value_of,
)
from alignmamba.data.views import ChangedSplit
from alignmamba.errors import ConfigError

REST = "labels"
"""Name of the further target that several labels of presence beside a leading one are."""
_PRESENCES = (PRESENCE, ("0", "1"))
_FORM = {"kind", "classes", "label_range", "sentiment"}
"""Fields of a task that say what values its target has."""
_UNNAMED = ("target",)
"""Name of a target in a corpus that does not name it."""


class LeadingConfig(LabelConfig):
    """Options of the leading target."""

    labels: DistinctNames = ()
    """Labels of the corpus that hold it, in place of its own target. Several that say what is there, in train
    by numbers from 0 on or by no and yes, are a multilabel; of others the first leads, and the rest are
    further targets."""

    @property
    def is_plain(self) -> bool:
        """True if labels and kind alone are given."""
        return self.model_copy(update={"labels": (), "kind": None}) == LeadingConfig()


@dataclass(frozen=True, kw_only=True)
class Led:
    """A task led by chosen labels, and the values that it gives samples."""

    task: Task
    target: Target
    """The leading target as a target of labels."""

    def value(self, sample: Sample) -> float | int | tuple[float, ...] | None:
        """Target of a sample whose labels hold it; raises as `value_of`."""
        return self.task.known(value_of(sample, self.target))


def led_by(corpus: Corpus, given: LeadingConfig) -> Corpus:
    """The corpus, whose task is led by these labels, or whose target is of another kind.

    The target that it had becomes a label, by its name where the corpus knows that.

    Raises:
        ConfigError: If no sample of train has such a label, or the options do not fit its labels.
        DataError: If a label of any sample is not one of the target.
    """
    task, names = corpus.task, corpus.task.labels or _UNNAMED
    labels = given.labels or names
    if labels == names and given.kind in (None, task.kind) and given.is_plain:
        return corpus
    if labels == names and not given.classes and task.has_one_class and given.kind != "multilabel":
        given = given.model_copy(update={"classes": task.classes})
    given = given.model_copy(update={"labels": labels})
    train = TrainLabels.of(
        (with_own_target(sample, task) for sample in corpus.split("train")), corpus.modalities
    )
    for label in labels:
        if (place := train.place(label, None)) is not None:
            raise ConfigError(
                f"leading: {label!r} is a label of tokens of {place}, expected one of samples;"
                f" targets.{label} predicts it"
            )
    modalities = [spec.name for spec in corpus.modalities]
    made = _led(corpus, leading(given, train.samples, modalities, former=task))
    for split in made.splits.values():
        for _ in split:  # a label that is none of the target is refused now
            pass
    return made


def led_as(corpus: Corpus, task: Task) -> Corpus:
    """The corpus, led by the labels that a task was made of, for a model of that task. Samples without them
    are unlabelled.
    """
    fields = ("kind", "classes", "labels", "further")
    if not task.labels or all(getattr(corpus.task, field) == getattr(task, field) for field in fields):
        return corpus
    shared = Task.model_fields.keys() & Target.model_fields.keys()
    target = Target(name=REST, **{field: getattr(task, field) for field in shared})
    return _led(corpus, Led(task=task, target=target))


def _led(corpus: Corpus, led: Led) -> Corpus:
    splits: dict[Role, Split] = {
        role: LedSplit(split=split, former=corpus.task, led=led) for role, split in corpus.splits.items()
    }
    return replace(corpus, task=led.task, splits=splits)


def several_labels(task: Task) -> str:
    """Note on what several labels were made into."""
    if task.kind == "multilabel":
        return f"several labels: {', '.join(task.classes)} are one target"
    others = ", ".join(
        each.name if each.labels == (each.name,) else f"{each.name} ({', '.join(each.labels)})"
        for each in task.further
    )
    return f"several labels: {task.labels[0]} leads, further targets are {others}"


def leading(
    given: LeadingConfig,
    known: Sequence[Labels],
    modalities: Sequence[str],
    *,
    roles: Sequence[Role | None] | None = None,
    former: Task | None = None,
) -> Led:
    """The task that labels lead, by what samples have of them.

    Args:
        given: The labels, one or more, and options of the target.
        known: Labels of each sample, whose words are classes.
        modalities: Those that a target may belong to.
        roles: Splits of the samples. Train alone decides whether several labels are one target, but for one
            that it lacks; by default all samples are of train.
        former: The task that there is: its further targets of other labels are kept, and its kind, classes
            and range where its label still leads.

    Raises:
        ConfigError: If no sample has such a label, or the options do not fit the labels.
    """
    (first, *rest), plural = given.labels, len(given.labels) > 1
    of_presence = {name: _is_presence(name, known, roles) for name in given.labels if plural}
    several = given.kind == "multilabel" or (given.kind is None and plural and all(of_presence.values()))
    own = {**given.model_dump(), "labels": given.labels if several else (first,)}
    if former is not None and not several and _leads_as_before(first, given, former):
        own |= former.model_dump(include=_FORM)
    target = target_of(REST, FurtherConfig(**own), known, modalities, where="leading")
    added: list[tuple[str, tuple[str, ...]]] = []
    if rest and not several:
        together = len(rest) > 1 and all(of_presence[name] for name in rest)
        added = [(REST, tuple(rest))] if together else [(_target_name(name, rest), (name,)) for name in rest]
    others = [
        each
        for each in (former.further if former is not None else ())
        if each.name not in dict(added) and (each.tokens or not set(each.labels) <= set(given.labels))
    ]
    others += [
        target_of(name, _as_before(labels, former), known, modalities, where=f"leading.labels: {name}")
        for name, labels in added
    ]
    shared = Task.model_fields.keys() & Target.model_fields.keys()
    fields = {field: getattr(target, field) for field in shared}
    return Led(task=Task(**fields, further=tuple(others)), target=target)


def _leads_as_before(first: str, given: LeadingConfig, former: Task) -> bool:
    """True where the first label is all that led before, and the options ask for nothing else."""
    same = (former.labels or _UNNAMED) == (first,) and given.kind in (None, former.kind)
    return same and given.is_plain


def _as_before(labels: tuple[str, ...], former: Task | None) -> FurtherConfig:
    """Options of the further target of labels: those of the target that there was, where it was of these."""
    if former is None or labels != (former.labels or _UNNAMED) or former.kind == "multilabel":
        return FurtherConfig(labels=labels)
    return FurtherConfig(labels=labels, **former.model_dump(include=_FORM))


def _target_name(label: str, rest: Sequence[str]) -> str:
    """Name of the further target of a label: its own, or for one that cannot name a target its place among
    them all.
    """
    if re.fullmatch(NAME_PATTERN, label):
        return label
    name = f"label-{rest.index(label) + 2}"
    while name in rest:  # the label of another
        name += "-"
    return name


def _is_presence(name: str, known: Sequence[Labels], roles: Sequence[Role | None] | None) -> bool:
    """True for a label that may say how much something is there: numbers from 0 on, or no and yes, in train,
    or anywhere where train lacks it.
    """
    everywhere = [labels[name] for labels in known if name in labels]
    train = [
        labels[name]
        for labels, role in zip(known, roles or ["train"] * len(known), strict=True)
        if role == "train" and name in labels
    ]
    return all(value in PRESENCE if isinstance(value, str) else value >= 0 for value in train or everywhere)


def with_own_target(sample: Sample, task: Task) -> Sample:
    """A sample whose target is among its labels, by its name; classes of presence are 0 and 1."""
    names, value = task.labels or _UNNAMED, sample.target
    if value is None:
        return sample
    own: dict[str, Any] = {names[0]: value}
    if isinstance(value, tuple):
        own = {name: each for name, each in zip(names, value, strict=False) if not math.isnan(each)}
    elif task.has_one_class and task.classes not in _PRESENCES:
        own = {names[0]: task.words(value)}
    return replace(sample, labels={**sample.labels, **own})


@dataclass(frozen=True, kw_only=True)
class LedSplit(ChangedSplit):
    """A split whose samples have another target."""

    former: Task
    """Task of that split."""
    led: Led

    def __getitem__(self, row: int) -> Sample:
        sample = with_own_target(self.split[row], self.former)
        return replace(sample, target=self.led.value(sample))
