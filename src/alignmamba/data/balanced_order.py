"""Samples of an epoch in which all classes, values of a label or bins of numbers come equally often."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from alignmamba.contracts import Split, Task
from alignmamba.data.labelled_splits import strata as sets_of_labels
from alignmamba.errors import ConfigError, DataError

TARGET: Final = "target"
"""Name of what the task is about, beside the names of labels."""
BINS: Final = 10
"""Bins of equal width of more numbers than these."""
MOST_TIMES: Final = 100
"""Samples of an epoch over those of its split, at most."""


def strata(split: Split, by: str, task: Task) -> NDArray[np.int64]:
    """(samples,) number of the class, value or bin of each sample, from 0.

    Args:
        split: Samples, each of which has what is asked for.
        by: `TARGET`, or the name of a label.
        task: Says whether the target is a class.

    Raises:
        ConfigError: If no sample has such a label.
        DataError: If a sample lacks it, or has a word where another has a number.
    """
    values = [sample.target if by == TARGET else sample.labels.get(by) for sample in split]
    if by != TARGET and all(value is None for value in values):
        known = sorted({name for sample in split for name in sample.labels})
        raise ConfigError(
            f"loader.balance: found {by!r}, expected {TARGET!r} or a label of the corpus, one of"
            f" {', '.join(known) or 'none'}"
        )
    for sample, value in zip(split, values, strict=True):
        if value is None:
            what = "target" if by == TARGET else f"label {by!r}"
            raise DataError(f"sample {sample.id!r}: found no {what}, expected one to balance by")
    words = [isinstance(value, str) for value in values]
    if any(words) and not all(words):
        raise DataError(f"label {by!r}: found words and numbers, expected one of both to balance by")
    if by == TARGET and task.kind == "multilabel":
        sets = sets_of_labels(task, values)
        assert sets is not None
        return sets
    if any(words) or (by == TARGET and task.has_one_class):
        return np.unique(np.array(values), return_inverse=True)[1].reshape(-1).astype(np.int64)
    return _binned(np.array(values, dtype=np.float64))


def _binned(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of each distinct value, or of its bin of equal width among those that hold any."""
    places = np.unique(values, return_inverse=True)[1].reshape(-1)
    if places.max() >= BINS:
        low, high = values.min(), values.max()
        bins = np.minimum((values - low) / (high - low) * BINS, BINS - 1).astype(np.int64)
        places = np.unique(bins, return_inverse=True)[1].reshape(-1)
    return places.astype(np.int64)


def balanced_rows(numbers: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Rows of an epoch in random order: every sample, and those of rarer strata again until all strata have
    as many as the largest. Which are taken once more than others of their stratum is drawn.

    Raises:
        ConfigError: If an epoch would have more than `MOST_TIMES` the samples.
    """
    counts = np.bincount(numbers)
    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts)[:-1])
    most = int(counts.max())
    if most * len(members) > MOST_TIMES * len(numbers):
        raise ConfigError(
            f"loader.balance: found {len(members)} values of which one has {most} samples, so that an epoch"
            f" has {most * len(members)}, expected at most {MOST_TIMES} times {len(numbers)}"
        )
    rows = [
        np.concatenate([np.tile(own, most // len(own)), random.permutation(own)[: most % len(own)]])
        for own in members
    ]
    return random.permutation(np.concatenate(rows))
