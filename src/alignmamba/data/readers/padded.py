"""Clips that a foreign file holds padded to one length: where the content of each begins and ends, and lazy access to it."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from alignmamba.data.readers.foreign import Faults
from alignmamba.data.readers.plain import LazyRows
from alignmamba.data.readers.stored import StoredArray, unboxed
from alignmamba.errors import DataError

Side = Literal["front", "back"]


# Clips of a modality, or of one in a split, that are looked at to see on which side they are padded.
_LOOKED_AT = 64
# As many that tell the side are enough where lengths are declared: most files are padded at the back, and need no looking at.
_ENOUGH = 16


class Clips:
    """Arrays of shape (time, width), one per clip: one array (clips, time, width) or a list of arrays (time, width).

    Args:
        value: What the file holds.
        where: The place, for messages.

    Raises:
        DataError: If it is anything else, or the arrays differ in width or hold no numbers.
    """

    def __init__(self, value: Any, where: str) -> None:
        value = unboxed(value)
        arrays = value if isinstance(value, list) else [value]
        axes = 2 if isinstance(value, list) else 3
        for array in arrays:
            if not isinstance(array, StoredArray) or len(array.shape) != axes or array.dtype.kind not in "fiu":
                found = f"{array.dtype} of shape {array.shape}" if isinstance(array, StoredArray) else type(array).__name__
                expected = "numbers of shape (clips, time, width)" if axes == 3 else "a list of arrays of shape (time, width)"
                raise DataError(f"{where}: expected {expected}, found {found}")
        self._arrays = arrays
        self._padded = axes == 3
        widths = {array.shape[-1] for array in arrays}
        if len(widths) != 1 or 0 in widths or (self._padded and 0 in arrays[0].shape[1:]):
            raise DataError(f"{where}: expected arrays of one width with at least one position, found widths {sorted(widths)}")

    def __len__(self) -> int:
        return len(self._arrays[0]) if self._padded else len(self._arrays)

    def steps(self, row: int) -> int:
        """Positions of a clip, padding included."""
        return int(self._arrays[0].shape[1] if self._padded else self._arrays[row].shape[0])

    def part(self, row: int, start: int, stop: int) -> np.ndarray:
        """Positions `start` to `stop` of a clip."""
        found: np.ndarray = self._arrays[0].part(row, start, stop) if self._padded else self._arrays[row].read()[start:stop]
        return found

    def whole(self, row: int) -> np.ndarray:
        """All positions of a clip."""
        return self.part(row, 0, self.steps(row))


def filled(values: np.ndarray) -> np.ndarray:
    """Which positions of (time, width) are not zero throughout, (time,) bool."""
    with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
        return np.asarray(values.any(axis=1))


def side_of_padding(parts: Iterable[Clips], *, usual: Side) -> Side:
    """Where clips are padded with zeros: on the side where more of them begin or end with zeros.

    Args:
        parts: Modalities of a split; of each the first clips are looked at.
        usual: What is taken where both sides have as many.
    """
    front = back = 0
    for clips in parts:
        for row in range(min(len(clips), _LOOKED_AT)):
            content = filled(clips.whole(row))
            if content.any():
                front += not content[0]
                back += not content[-1]
    return usual if front == back else "front" if front > back else "back"


def padding_note(side: Side, *, aligned: bool) -> str:
    """How the content of a file is told from padding, for people."""
    shared = "aligned: all modalities of a clip have the positions of the longest, " if aligned else ""
    return f"{shared}zeros at the {side} taken for padding"


def is_aligned(steps: Sequence[Callable[[int], int]], count: int) -> bool:
    """Whether each clip of a split has as many positions in every modality.

    Args:
        steps: Of each modality, what tells the positions of a clip, padding included.
        count: Number of clips.
    """
    return all(len({of(row) for of in steps}) == 1 for row in range(count))


def zero_rows(parts: Mapping[str, Clips], side: Side, faults: Faults, *, aligned: bool) -> dict[str, LazyRows]:
    """The content of every clip of some modalities, (time, width) as it lies in the file, without the zero rows at its padded side.

    Args:
        parts: The modalities of a split.
        side: On which side clips are padded.
        faults: Where clips are counted that have further zero rows, which are kept.
        aligned: Whether all have the window of the longest content in a clip, so that silence at the end of one stays aligned to the
            others.
    """
    groups = [_ZeroRows(group, side, faults) for group in ([parts] if aligned else [{name: clips} for name, clips in parts.items()])]
    return {name: LazyRows(len(clips), partial(group.content, name)) for group in groups for name, clips in group.parts.items()}


class _ZeroRows:
    """Modalities that share a window in each clip."""

    def __init__(self, parts: Mapping[str, Clips], side: Side, faults: Faults) -> None:
        self.parts = parts
        self._side = side
        self._faults = faults
        self._row = -1
        self._recent: Mapping[str, np.ndarray] = {}

    def content(self, name: str, row: int) -> np.ndarray:
        """The content of one of them in a clip."""
        if row != self._row:
            found = {each: clips.whole(row) for each, clips in self.parts.items()}
            windows = [window for each, values in found.items() if (window := self._own_window(each, values)) != (0, 0)] or [(0, 0)]
            start, stop = min(first for first, _ in windows), max(end for _, end in windows)
            self._row, self._recent = row, {each: values[start:stop] for each, values in found.items()}
        return self._recent[name]

    def _own_window(self, name: str, values: np.ndarray) -> tuple[int, int]:
        """First position and end of what is left of (time, width) without the zero rows at its padded side; (0, 0) if nothing is."""
        places = np.flatnonzero(filled(values))
        if not len(places):
            return 0, 0
        start, stop = (int(places[0]), len(values)) if self._side == "front" else (0, int(places[-1]) + 1)
        if len(places) < stop - start:
            self._faults.add("zero rows within content", where=name, done="kept")
        return start, stop


def masked_content(name: str, clips: Clips, window: np.ndarray, row: int, faults: Faults) -> np.ndarray:
    """What a modality that is aligned to a text with an attention mask has in a clip; what lies outside the mask is counted."""
    start, stop = map(int, window)
    values = clips.whole(row)
    with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
        if values[:start].any() or values[stop:].any():
            faults.add("content outside the attention mask", where=name, done="left out")
    return values[start:stop]


def declared_side(splits: Iterable[tuple[Clips, Sequence[int]]]) -> Side:
    """Where a modality with declared lengths is padded: on the side on which more of the clips that tell have nothing past their length.

    Args:
        splits: The clips of each split and their declared lengths. Of each split few clips are looked at, and none further once enough
            have told; a clip tells whose array is longer than declared, and has content past the length on one side alone.
    """
    front = back = 0
    for clips, lengths in splits:
        shorter = (row for row, declared in enumerate(lengths) if 0 < declared < clips.steps(row))
        for row in itertools.islice(shorter, _LOOKED_AT):
            content = filled(clips.whole(row))
            before, past = content[: len(content) - lengths[row]].any(), content[lengths[row] :].any()
            front += bool(past and not before)
            back += bool(before and not past)
            if front + back >= _ENOUGH:
                break
        if front + back >= _ENOUGH:
            break
    return "front" if front > back else "back"


_DECLARED = {
    "front": ("kept, zero rows at its beginning", "padding at the back, content taken from the beginning", "positions before it left out"),
    "back": ("kept, zero rows at its end", "padding at the front, content taken from the end", "positions past it left out"),
}
"""What is done by the side of the padding: with a clip shorter than declared, one that is padded on the other side, a longer one."""


def declared_content(name: str, clips: Clips, declared: int, row: int, side: Side, faults: Faults) -> np.ndarray:
    """What a modality has in a clip by the length that the file declares; what does not fit it is counted.

    Args:
        name: The modality.
        clips: What it has.
        declared: The length.
        row: The clip.
        side: Where the clips of the modality are padded.
        faults: Where it is counted.
    """
    values = clips.whole(row)
    spare = len(values) - declared
    if spare < 0:
        faults.add("declared length too long", where=name, done="set to the length of the array")
        return values
    content, outside = (values[spare:], values[:spare]) if side == "front" else (values[:declared], values[declared:])
    shorter, opposite, longer = _DECLARED[side]
    with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
        if not outside.any():
            if declared and not content[0 if side == "front" else -1].any():
                # Zeros may be silence, or a face that was not found, and positions stand for time.
                faults.add("content shorter than declared", where=name, done=shorter)
            return content
        other, outside = (values[:declared], values[declared:]) if side == "front" else (values[spare:], values[:spare])
        if declared and not outside.any():
            faults.add("declared length too short", where=name, done=opposite)
            return other
    faults.add("declared length too short", where=name, done=longer)
    return content
