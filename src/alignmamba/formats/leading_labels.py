"""Several labels of a foreign file as its target."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from alignmamba.contracts import Role, Sample, TargetKind, Task
from alignmamba.data.classes import Classes
from alignmamba.data.further_targets import Labels
from alignmamba.data.leading_target import LeadingConfig, Led, leading, several_labels, with_own_target
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.data.validity import plain_scalar
from alignmamba.errors import ConfigError, DataError, shown
from alignmamba.formats.foreign import Foreign, UnknownLabelError


def led_by_labels(foreign: Foreign, names: Sequence[str], *, kind: TargetKind | None = None) -> Foreign:
    """The content of a file that was read with the first of these labels as its target, led by all of them:
    as a multilabel, or by the first with the rest as further targets, see `LeadingConfig`.

    Args:
        foreign: The content.
        names: Labels, of which the first is its target.
        kind: Kind of the target; by default what the labels say.

    Raises:
        DataError: If it has no such label, or a label is not one of the target.
    """
    task = foreign.task if foreign.task.labels else foreign.task.model_copy(update={"labels": (names[0],)})
    rows = {role: _samples(role, split, task) for role, split in foreign.splits.items()}
    roles = [role for role, samples in rows.items() for _ in samples]
    known = [sample.labels for samples in rows.values() for sample in samples]
    modalities = list(dict.fromkeys(name for split in foreign.splits.values() for name in split.features))
    given = LeadingConfig(labels=tuple(names), kind=kind)
    led = led_in_file(given, known, roles, modalities=modalities, former=task)
    any_range = replace(led, target=led.target.model_copy(update={"label_range": None}))  # repairs check it
    splits = {role: _led(split, rows[role], any_range) for role, split in foreign.splits.items()}
    note = several_labels(led.task)
    return replace(foreign, task=led.task, splits=splits, notes=(*foreign.notes, note))


def refuse_unknown_labels(foreign: Foreign, names: Sequence[str]) -> None:
    """Refuse labels, of which the first is the target of a file, that no split of it has."""
    others = dict.fromkeys(name for split in foreign.splits.values() for name in split.labels)
    for name in names[1:]:
        if name not in others:
            raise UnknownLabelError(f"label {name!r}: expected some of {', '.join((names[0], *others))}")


def led_in_file(
    given: LeadingConfig,
    known: Sequence[Labels],
    roles: Sequence[Role | None],
    *,
    modalities: Sequence[str] = (),
    former: Task | None = None,
) -> Led:
    """The task that labels of a file lead, as `leading` makes it of those of all samples.

    Raises:
        DataError: If no sample has such a label, or the options do not fit the labels.
    """
    there = dict.fromkeys(name for labels in known for name in labels)
    for name in given.labels:
        if name not in there:
            raise DataError(f"label {name!r}: expected some of {', '.join(there) or 'none'}")
    try:
        return leading(given, known, modalities, roles=roles, former=former)
    except ConfigError as error:
        raise DataError(str(error)) from None


def _samples(role: Role, split: SplitArrays, task: Task) -> list[Sample]:
    """Labels and targets of a split, without features, as a corpus of the file has them."""
    size, classes = len(next(iter(split.features.values()))), Classes(task.classes)
    samples = []
    for row in range(size):
        given = {name: _plain(cells[row]) for name, cells in split.labels.items()}
        target = None if split.targets is None else _plain(split.targets[row])
        labels = {name: value for name, value in given.items() if value is not None}
        called = f"row {row + 1} of {role}"
        if target is not None and task.has_one_class:
            target = classes.place_of(named := target)
            if target is None:
                raise DataError(f"{called}: found {shown(named)}, expected one of {classes}")
        samples.append(with_own_target(Sample(id=called, features={}, target=target, labels=labels), task))
    return samples


def _plain(value: Any) -> Any:
    """A label; ``None`` for one that is not known."""
    found = plain_scalar(value)
    return None if isinstance(found, float) and not math.isfinite(found) else found


def _led(split: SplitArrays, samples: Sequence[Sample], led: Led) -> SplitArrays:
    used = led.task.labels
    targets: list[Any] | None = [led.value(sample) for sample in samples]
    if all(target is None for target in targets or ()):
        targets = None
    labels = {name: cells for name, cells in split.labels.items() if name not in used}
    return replace(split, targets=targets, labels=labels)
