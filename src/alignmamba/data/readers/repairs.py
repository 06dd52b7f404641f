"""Known faults of the field's files: what is done about each, and that it is counted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from alignmamba.contracts import Role, Task
from alignmamba.data.archive import SplitArrays
from alignmamba.data.readers.foreign import Faults, ReadOptions
from alignmamba.data.readers.stored import StoredArray, StoredBytes, as_list, is_sequence
from alignmamba.data.readers.unpickling import ByteText
from alignmamba.errors import DataError

# A corpus of scores of which at least this share lies in [-1, 1] is taken for one of that range: in MOSI and MOSEI about half does.
_SHARE_OF_NARROW_SCORES = 0.99

SENTIMENTS = ("Negative", "Neutral", "Positive")


def finite(
    values: np.ndarray, where: str, modality: str, nonfinite: Literal["zero", "mean", "error", "keep"], faults: Faults
) -> np.ndarray:
    """Features as float32, with 0 in the place of what is not finite.

    Args:
        values: (time, width) real numbers.
        where: File, split, field and row, for messages.
        modality: Name of the modality, for the count.
        nonfinite: With ``"zero"``, 0 stands in. With ``"mean"`` and ``"keep"`` values are left as they are, for the conversion.
        faults: Where it is counted.

    Raises:
        DataError: With ``"error"``, if anything would have to be replaced.
    """
    if nonfinite in ("mean", "keep"):
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        stored = values.astype(np.float32)
    good = np.isfinite(stored)
    if good.all():
        return stored
    infinite = ~np.isfinite(values)
    if nonfinite == "error":
        position, channel = np.argwhere(~good)[0]
        raise DataError(
            f"{where}: found {values[position, channel]} at position {position}, channel {channel}, expected numbers that float32 holds; "
            "nonfinite 'zero' or 'mean' replaces it"
        )
    faults.add("not finite", where=modality, done="set to 0", count=int(infinite.sum()))
    faults.add("does not fit float32", where=modality, done="set to 0", count=int((~good & ~infinite).sum()))
    return np.where(good, stored, np.float32(0))


def plain_text(value: Any, where: str, field: str, faults: Faults) -> str:
    """A text of a pickle, whatever it was written as.

    Raises:
        DataError: If it is neither text nor a number.
    """
    if isinstance(value, StoredBytes):
        return value.text()
    if isinstance(value, ByteText):
        value = value.encode("latin-1")
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            faults.add("text that is not UTF-8", where=field, done="read as latin-1")
            return value.decode("latin-1")
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            faults.add("text that is not UTF-8", where=field, done="characters without meaning replaced by ?")
            return value.encode("utf-8", "replace").decode("utf-8")
        return value
    if isinstance(value, int | float):
        return str(value)
    raise DataError(f"{where}: expected text, found {type(value).__name__}")


def with_distinct_ids(splits: Mapping[Role, SplitArrays], faults: Faults) -> dict[Role, SplitArrays]:
    """The splits with repeated ids renamed to ``ID#2`` and so on, over all splits."""
    seen: set[str] = set()
    times: dict[str, int] = {}
    result: dict[Role, SplitArrays] = {}
    for role, split in splits.items():
        ids = []
        for identity in split.ids or ():
            name = identity
            while name in seen:
                times[identity] = times.get(identity, 1) + 1
                name = f"{identity}#{times[identity]}"
            if name != identity:
                faults.add("duplicate id", where=role, done="later ones renamed to ID#2 and so on")
            seen.add(name)
            ids.append(name)
        result[role] = replace(split, ids=ids)
    return result


def scores(value: Any, count: int, where: str) -> np.ndarray:
    """One number per clip, (clips,) float64; NaN where what stands there is none.

    Args:
        value: An array of as many elements, of any shape, or a list of numbers or of arrays of one element.
        count: Number of clips.
        where: File, split and field, for messages.

    Raises:
        DataError: If it is no such thing, or of another length.
    """
    if not is_sequence(value):
        raise DataError(f"{where}: expected {count} numbers, found {type(value).__name__}")
    if isinstance(value, StoredArray) and (value.shape[0] != count or math.prod(value.shape) != count):
        raise DataError(f"{where}: expected {count} numbers, found an array of shape {value.shape}")
    items = as_list(value)
    if len(items) != count:
        raise DataError(f"{where}: expected {count} numbers, one per clip, found {len(items)}")
    return np.array([_number(item) for item in items], dtype=np.float64)


def _number(item: Any) -> float:
    if isinstance(item, StoredArray) and math.prod(item.shape) == 1:
        item = item.items()[0]
    if not isinstance(item, int | float | str):
        return math.nan
    try:
        number = float(item)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def labelled_rows(values: np.ndarray, role: Role, field: str, faults: Faults) -> list[int]:
    """Rows of the clips that have a label; the others are left out and counted."""
    rows: list[int] = np.flatnonzero(~np.isnan(values)).tolist()
    faults.add("not a number label", where=f"{role} {field}", done="clip left out", count=len(values) - len(rows))
    return rows


def score_task(values: Sequence[np.ndarray]) -> Task:
    """Regression in [-1, 1] where practically all labels lie there (SIMS), else in [-3, 3] (MOSI, MOSEI)."""
    known = np.concatenate([*values, np.zeros(0)])
    known = known[~np.isnan(known)]
    narrow = len(known) > 0 and float((np.abs(known) <= 1).mean()) >= _SHARE_OF_NARROW_SCORES
    return Task(kind="regression", label_range=(-1.0, 1.0) if narrow else (-3.0, 3.0))


def within_range(values: np.ndarray, rows: Sequence[int], task: Task, where: str, options: ReadOptions, faults: Faults) -> list[float]:
    """The labels of these rows, inside the task's range.

    Raises:
        DataError: If one is outside and `options.clip_labels` is not set; the first is named.
    """
    assert task.label_range is not None
    low, high = task.label_range
    picked = values[list(rows)]
    outside = np.flatnonzero((picked < low) | (picked > high))
    if len(outside) and not options.clip_labels:
        raise DataError(
            f"{where}: row {rows[outside[0]]} holds {picked[outside[0]]:g}, expected {low:g} to {high:g} "
            f"({len(outside)} such labels); clip_labels moves them to the nearer end"
        )
    faults.add("label out of range", where=where.rpartition(": ")[2], done=f"moved to {low:g} or {high:g}", count=len(outside))
    clipped: list[float] = np.clip(picked, low, high).tolist()
    return clipped
