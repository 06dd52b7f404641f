"""Targets of the samples of a split: whether there are any, how often each class is there, and strata that
draws of samples keep in their shares.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import Split, Task
from alignmamba.errors import listed


def is_labelled(split: Split) -> bool:
    """Return whether any sample of a split has a target; samples are read up to the first that has."""
    return any(sample.target is not None for sample in split)


def any_label_varies(split: Split) -> bool:
    """Return whether a sample has one of several labels that another lacks; samples are read until one is
    found.
    """
    met: set[tuple[int, bool]] = set()
    for sample in split:
        for place, there in enumerate(sample.target if isinstance(sample.target, tuple) else ()):
            if not math.isnan(there):
                met.add((place, there > 0))
                if (place, not there > 0) in met:
                    return True
    return False


def samples_by_class(task: Task, targets: Iterable[Any]) -> list[int]:
    """Number of samples of each class, or in which each of several labels is there; empty for numbers."""
    counts = [0] * len(task.classes)
    for target in targets:
        if task.kind == "multilabel":
            for place, there in enumerate(target or ()):
                counts[place] += there > 0
        elif target is not None and task.has_one_class:
            counts[int(target)] += 1
    return counts


def absent_classes(task: Task, counts: Sequence[int]) -> list[str]:
    """Classes without a sample, from `samples_by_class`."""
    return [name for name, count in zip(task.classes, counts, strict=True) if not count]


def absent_classes_note(task: Task, counts: Sequence[int]) -> str:
    """One sentence on the classes of which train has no sample, from `samples_by_class`; else empty."""
    absent = absent_classes(task, counts)
    them = "it" if len(absent) == 1 else "them"
    return (
        f"no sample of train is of class {listed(map(repr, absent))}: a model cannot learn {them}"
        if absent
        else ""
    )


def strata(task: Task, targets: Sequence[Any]) -> NDArray[np.int64] | None:
    """(samples,) number of the class of each sample, of several labels of the set of those that are there;
    samples without a target are a stratum of their own. ``None`` for numbers.
    """
    if task.kind == "regression":
        return None
    places: dict[Any, int]
    keys, places = list(targets), {place: place for place in range(len(task.classes))}
    if task.kind == "multilabel":
        keys = [None if target is None else tuple(each > 0 for each in target) for target in targets]
        places = {key: place for place, key in enumerate(sorted({*keys} - {None}))}
    return np.array([places.get(key, len(places)) for key in keys], dtype=np.int64)


def numbers(targets: Sequence[Any]) -> NDArray[np.float64]:
    """(samples,) targets of a regression, NaN for a sample without one."""
    return np.array([np.nan if target is None else target for target in targets], dtype=np.float64)
