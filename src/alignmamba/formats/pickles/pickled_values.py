"""Texts, numbers and labels of a pickle, whatever they were written as."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from alignmamba.contracts import Task
from alignmamba.errors import DataError
from alignmamba.formats.foreign import Faults
from alignmamba.formats.pickles.pickle_file import ByteText, StoredBytes
from alignmamba.formats.pickles.pickle_globals import kind
from alignmamba.formats.pickles.stored_arrays import StoredArray

# Scores of which at least this share lies in [-1, 1] are taken for scores of that range: of those of MOSI and
# MOSEI about half does.
_SHARE_OF_NARROW_SCORES = 0.99
# A number may stand in this many lists of one.
_MOST_AXES = 4


def is_sequence(value: Any) -> bool:
    """Return whether a value is a list, a tuple or an array with at least one axis."""
    return isinstance(value, list | tuple) or (isinstance(value, StoredArray) and value.shape != ())


def as_list(value: Sequence[Any] | StoredArray) -> list[Any]:
    """The elements of such a value; of an array with several axes in row-major order."""
    return value.items() if isinstance(value, StoredArray) else list(value)


def is_ascii(value: Any) -> bool:
    """Return whether a value is a text that is as it should be, which most are: there may be many."""
    return type(value) is str and value.isascii()


def is_nothing(value: Any) -> bool:
    """Return whether a value says that there is none: ``None`` or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def several_per_clip(value: Any) -> str:
    """Description of a field with several entries for each clip, for messages; else an empty text."""
    if isinstance(value, StoredArray):
        several = len(value.shape) > 1 and math.prod(value.shape[1:]) != 1
        return f"an array of shape {value.shape}" if several else ""
    each: Any = value if isinstance(value, list | tuple) else [1]
    sizes = {len(entry) if is_sequence(entry) else 1 for entry in each}
    return "" if 1 in sizes else f"{' or '.join(map(str, sorted(sizes)))} per clip"


def readable(text: str) -> str:
    """A text that UTF-8 holds: half characters, which a pickle may hold, become ``?``."""
    return text.encode("utf-8", "replace").decode("utf-8")


def plain_text(value: Any, where: str, field: str, faults: Faults) -> str:
    """A text, from text, bytes, or a number other than NaN; anything else is refused. Text that is not UTF-8
    is counted as a fault of the field.
    """
    if isinstance(value, StoredBytes):
        value = value.text()
    if isinstance(value, ByteText):
        value = value.encode("latin-1")
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            faults.add("text that is not UTF-8", where=field, done="read as latin-1")
            return value.decode("latin-1")
    if isinstance(value, str):
        if (found := readable(value)) != value:
            faults.add("text that is not UTF-8", where=field, done="half characters replaced by ?")
        return found
    if isinstance(value, int | float) and not is_nothing(value):
        return str(value)
    found = "NaN" if isinstance(value, float) else kind(value)
    raise DataError(f"{where}: expected text, found {found}")


def numbers(value: Any, count: int, where: str) -> np.ndarray:
    """One number for each of so many clips, (clips,) float64; NaN where ``None`` or NaN stands. They are in
    an array of as many elements, of any shape, or in a list of numbers, or of arrays or lists of one number.
    """
    if not is_sequence(value):
        raise DataError(f"{where}: expected {count} numbers, found {kind(value)}")
    expected = f"{where}: expected {count} numbers, one per clip"
    if isinstance(value, StoredArray) and (value.shape[0] != count or math.prod(value.shape) != count):
        raise DataError(f"{expected}, found an array of shape {value.shape}")
    items = as_list(value)
    if len(items) != count:
        raise DataError(f"{expected}, found {len(items)}")
    found = np.empty(count)
    for row, item in enumerate(map(_alone, items)):
        if item is not None and not isinstance(item, int | float):
            shown = repr(item[:40]) if isinstance(item, str | bytes) else kind(item)
            raise DataError(f"{where}: row {row}: expected a number, found {shown}")
        found[row] = math.nan if item is None else float(item)
    return found


def labels(value: Any, where: str, field: str, faults: Faults) -> list[float | int | str | None]:
    """A number or a text per clip of a list or array; ``None`` where there is none, or an empty text, or a
    number that is not finite. The others are as for `plain_text`.
    """
    found: list[float | int | str | None] = []
    for row, item in enumerate(as_list(value)):
        label = item if isinstance(item, str | int | float) else _alone(item)
        if label is not None and not isinstance(label, int | float):
            text = label if is_ascii(label) else plain_text(label, f"{where}: row {row}", field, faults)
            label = text or None
        found.append(None if isinstance(label, float) and not math.isfinite(label) else label)
    return found


def _alone(item: Any) -> Any:
    """Content of arrays or lists of one value."""
    for _ in range(_MOST_AXES):
        if isinstance(item, StoredArray) and math.prod(item.shape) == 1:
            item = item.items()[0]
        elif isinstance(item, list | tuple) and len(item) == 1:
            item = item[0]
        else:
            break
    return item


def score_task(values: Sequence[np.ndarray]) -> Task:
    """Sentiment in [-1, 1] where practically all scores lie there (SIMS), else in [-3, 3] (MOSI, MOSEI); of
    no scores at all nothing is known.
    """
    if not values:
        return Task(kind="regression")
    known = np.concatenate(values)
    known = known[np.isfinite(known)]
    if len(known) and float((np.abs(known) <= 1).mean()) >= _SHARE_OF_NARROW_SCORES:
        return Task(kind="regression", label_range=(-1.0, 1.0), sentiment=True)
    return Task(kind="regression", label_range=(-3.0, 3.0))
