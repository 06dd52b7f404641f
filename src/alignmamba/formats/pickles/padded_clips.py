"""Clips that a foreign file holds padded to one length: where the content of each begins and ends by zeros or
by an attention mask, and lazy access to it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.foreign import Faults
from alignmamba.formats.pickles.pickle_globals import kind
from alignmamba.formats.pickles.stored_arrays import StoredArray, unboxed
from alignmamba.formats.plain_files import LazyRows

Side = Literal["front", "back"]

LOOKED_AT = 64
"""Clips of a modality, or of one in a split, that are looked at to see on which side they are padded."""


class ClipArrays:
    """Arrays of numbers with two axes, one per clip, read when they are asked for: from one array of three
    axes, or a list of arrays of two. Anything else is refused, by what the two axes are.
    """

    def __init__(self, value: Any, where: str, axes: str, *, height: int | None = None) -> None:
        value = unboxed(value)
        self.together = not isinstance(value, list | tuple)
        """True if one array holds all clips."""
        self.arrays: list[StoredArray] = [value] if self.together else list(value)
        expected = (
            f"numbers of shape (clips, {axes})" if self.together else f"a list of arrays of shape ({axes})"
        )
        for array in self.arrays:
            if not (
                isinstance(array, StoredArray)
                and len(array.shape) == 2 + self.together
                and array.dtype.kind in "fiu"
                and height in (None, array.shape[-2])
            ):
                found = kind(array)
                if isinstance(array, StoredArray):
                    found = f"{array.dtype} of shape {array.shape}"
                raise DataError(f"{where}: expected {expected}, found {found}")

    def __len__(self) -> int:
        return len(self.arrays[0]) if self.together else len(self.arrays)

    def shape(self, row: int) -> tuple[int, ...]:
        """Lengths of the axes of a clip."""
        return self.arrays[0].shape[1:] if self.together else self.arrays[row].shape

    def part(self, row: int, start: int, stop: int) -> np.ndarray:
        """Entries `start` to `stop` of the first axis of a clip."""
        if self.together:
            return self.arrays[0].part(row, start, stop)
        found: np.ndarray = self.arrays[row].read()[start:stop]
        return found


class Clips(ClipArrays):
    """Arrays of shape (time, width), one per clip, with at least one position."""

    def __init__(self, value: Any, where: str) -> None:
        super().__init__(value, where, "time, width")
        widths = {array.shape[-1] for array in self.arrays}
        if len(widths) != 1 or 0 in widths or (self.together and 0 in self.shape(0)):
            raise DataError(
                f"{where}: expected arrays of one width with at least one position, found widths"
                f" {sorted(widths)}"
            )

    def steps(self, row: int) -> int:
        """Positions of a clip, padding included."""
        return self.shape(row)[0]

    def whole(self, row: int) -> np.ndarray:
        """All positions of a clip."""
        return self.part(row, 0, self.steps(row))


def filled(values: np.ndarray) -> np.ndarray:
    """Positions of (time, width) that are not zero throughout, (time,) bool."""
    with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
        return np.asarray(values.any(axis=1))


def side_of_padding(parts: Iterable[Clips], *, usual: Side) -> Side:
    """Side on which the first clips of some modalities are padded with zeros: that on which more of them
    begin or end with zeros, and the usual one where both sides have as many.
    """
    front = back = 0
    for clips in parts:
        for row in range(min(len(clips), LOOKED_AT)):
            content = filled(clips.whole(row))
            if content.any():
                front += not content[0]
                back += not content[-1]
    return usual if front == back else "front" if front > back else "back"


def zero_rows(parts: Mapping[str, Clips], side: Side, faults: Faults) -> dict[str, LazyRows]:
    """The content of every clip of some modalities, (time, width) as it lies in the file, without the zero
    rows at its padded side. Further zero rows are kept and counted.

    All have the window of the longest content in a clip, so that silence at the end of one stays aligned to
    the others.
    """

    @lru_cache(maxsize=1)
    def contents(row: int) -> dict[str, np.ndarray]:
        found = {name: clips.whole(row) for name, clips in parts.items()}
        windows = [_window(name, values, side, faults) for name, values in found.items()]
        some = [window for window in windows if window != (0, 0)] or [(0, 0)]
        start, stop = min(first for first, _ in some), max(end for _, end in some)
        return {name: values[start:stop] for name, values in found.items()}

    def content(name: str, row: int) -> np.ndarray:
        return contents(row)[name]

    return {name: LazyRows(len(clips), partial(content, name)) for name, clips in parts.items()}


def _window(name: str, values: np.ndarray, side: Side, faults: Faults) -> tuple[int, int]:
    """First position and end of (time, width) without the zero rows at its padded side, or twice 0."""
    places = np.flatnonzero(filled(values))
    if not len(places):
        return 0, 0
    start, stop = (int(places[0]), len(values)) if side == "front" else (0, int(places[-1]) + 1)
    if len(places) < stop - start:
        faults.add("zero rows within content", where=name, done="kept")
    return start, stop


def masked_content(name: str, clips: Clips, window: tuple[int, int], row: int, faults: Faults) -> np.ndarray:
    """Content of a modality that is aligned to a text with an attention mask in a clip; what lies outside the
    mask is counted.
    """
    start, stop = window
    values = clips.whole(row)
    if filled(values[:start]).any() or filled(values[stop:]).any():
        faults.add("content outside the attention mask", where=name, done="dropped")
    return values[start:stop]
