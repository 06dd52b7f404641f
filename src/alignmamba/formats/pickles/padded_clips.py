"""Clips that a foreign file holds padded to one length: where the content of each begins and ends, and lazy
access to it.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.foreign import Faults, LabelOptions, NeedsOptionError
from alignmamba.formats.pickles.stored_arrays import StoredArray, unboxed
from alignmamba.formats.plain_files import LazyRows

Side = Literal["front", "back"]


class PaddedOptions(LabelOptions):
    """How a file of padded clips is to be read."""

    padding: Literal["auto", "front", "back"] = "auto"
    """The side on which clips are padded, where their zeros do not show it."""


# Clips of a modality, or of one in a split, that are looked at to see on which side they are padded.
_LOOKED_AT = 64
# As many that tell the side are enough where lengths are declared: most files are padded at the back, and
# need no looking at.
_ENOUGH = 16
# Padding that is not zero is seen by its values if clips agree more than they do by chance once in a thousand
# times, and its rows are this many times farther from content than content is.
_CHANCE = 1e-3
_CLEARLY = 4.0
# As many clips must be padded with one and the same row to see by that alone that it is padding.
_FEWEST_CONSTANT = 3
# Values farther from 0 are looked at as if they were there.
_FAR = 1e100


class Clips:
    """Arrays of shape (time, width), one per clip: one array (clips, time, width) or a list of arrays (time,
    width).

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
            if (
                not isinstance(array, StoredArray)
                or len(array.shape) != axes
                or array.dtype.kind not in "fiu"
            ):
                found = (
                    f"{array.dtype} of shape {array.shape}"
                    if isinstance(array, StoredArray)
                    else type(array).__name__
                )
                expected = (
                    "numbers of shape (clips, time, width)"
                    if axes == 3
                    else "a list of arrays of shape (time, width)"
                )
                raise DataError(f"{where}: expected {expected}, found {found}")
        self._arrays = arrays
        self._padded = axes == 3
        widths = {array.shape[-1] for array in arrays}
        if len(widths) != 1 or 0 in widths or (self._padded and 0 in arrays[0].shape[1:]):
            raise DataError(
                f"{where}: expected arrays of one width with at least one position, found widths"
                f" {sorted(widths)}"
            )

    def __len__(self) -> int:
        return len(self._arrays[0]) if self._padded else len(self._arrays)

    def steps(self, row: int) -> int:
        """Positions of a clip, padding included."""
        return int(self._arrays[0].shape[1] if self._padded else self._arrays[row].shape[0])

    def part(self, row: int, start: int, stop: int) -> np.ndarray:
        """Positions `start` to `stop` of a clip."""
        found: np.ndarray = (
            self._arrays[0].part(row, start, stop) if self._padded else self._arrays[row].read()[start:stop]
        )
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


def zero_rows(
    parts: Mapping[str, Clips], side: Side, faults: Faults, *, aligned: bool
) -> dict[str, LazyRows]:
    """The content of every clip of some modalities, (time, width) as it lies in the file, without the zero
    rows at its padded side.

    Args:
        parts: The modalities of a split.
        side: On which side clips are padded.
        faults: Where clips are counted that have further zero rows, which are kept.
        aligned: Whether all have the window of the longest content in a clip, so that silence at the end of
            one stays aligned to the others.
    """
    groups = [
        _ZeroRows(group, side, faults)
        for group in ([parts] if aligned else [{name: clips} for name, clips in parts.items()])
    ]
    return {
        name: LazyRows(len(clips), partial(group.content, name))
        for group in groups
        for name, clips in group.parts.items()
    }


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
            windows = [
                window
                for each, values in found.items()
                if (window := self._own_window(each, values)) != (0, 0)
            ] or [(0, 0)]
            start, stop = min(first for first, _ in windows), max(end for _, end in windows)
            self._row, self._recent = row, {each: values[start:stop] for each, values in found.items()}
        return self._recent[name]

    def _own_window(self, name: str, values: np.ndarray) -> tuple[int, int]:
        """First position and end of what is left of (time, width) without the zero rows at its padded side;
        (0, 0) if nothing is.
        """
        places = np.flatnonzero(filled(values))
        if not len(places):
            return 0, 0
        start, stop = (int(places[0]), len(values)) if self._side == "front" else (0, int(places[-1]) + 1)
        if len(places) < stop - start:
            self._faults.add("zero rows within content", where=name, done="kept")
        return start, stop


def masked_content(name: str, clips: Clips, window: np.ndarray, row: int, faults: Faults) -> np.ndarray:
    """What a modality that is aligned to a text with an attention mask has in a clip; what lies outside the
    mask is counted.
    """
    start, stop = map(int, window)
    values = clips.whole(row)
    with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
        if values[:start].any() or values[stop:].any():
            faults.add("content outside the attention mask", where=name, done="dropped")
    return values[start:stop]


@dataclass(frozen=True, kw_only=True)
class Padding:
    """How a modality with declared lengths is padded."""

    side: Side
    zeros: bool
    """Whether with zeros. Else what lies beyond a declared length may be anything, and says nothing about the
    length."""
    stated: bool = False
    """Whether the user says so, for it cannot be seen."""

    def note(self) -> str:
        """How it is known, for people."""
        if self.zeros:
            return f"padded at the {self.side}"
        how = "as stated" if self.stated else "seen by its values; --padding states another side"
        return f"padded at the {self.side} with what is not zero ({how})"


def declared_padding(
    name: str, splits: Iterable[tuple[Clips, Sequence[int]]], stated: Side | None
) -> Padding:
    """How a modality with declared lengths is padded, by all that its clips show.

    A clip whose array is longer than declared tells the side if it has nothing past its length on one side
    alone, or else if it has zeros at one end alone. If most have neither, the padding is not zero. Then the
    rows decide that would be content at one side and padding at the other: those are content that are like
    the rows that are content at either side, in mean, in spread and in how one row follows from the last.

    Args:
        name: The modality, for messages.
        splits: The clips of each split and their declared lengths. Of each split few clips are looked at.
        stated: The side that the user states, which is taken where zeros do not tell.

    Raises:
        NeedsOptionError: If there is padding that is not zero, and nothing tells on which side.
    """
    votes: Counter[str] = Counter()
    unclear: list[tuple[np.ndarray, int]] = []
    for clips, lengths in splits:
        shorter = (row for row, declared in enumerate(lengths) if 0 < declared < clips.steps(row))
        for row in itertools.islice(shorter, _LOOKED_AT):
            values = clips.whole(row)
            content = filled(values)
            before, past = content[: len(content) - lengths[row]].any(), content[lengths[row] :].any()
            if before and past:
                unclear.append((values, lengths[row]))
                votes["begins with zeros"] += bool(content[-1] and not content[0])
                votes["ends with zeros"] += bool(content[0] and not content[-1])
            else:
                votes["front"] += bool(past)
                votes["back"] += bool(before)
            if votes["front"] + votes["back"] >= _ENOUGH + len(unclear):
                break
    seen: Side = "front" if votes["front"] > votes["back"] else "back"
    if votes[seen] >= len(unclear):
        return Padding(side=seen, zeros=True)
    front, back = votes["begins with zeros"], votes["ends with zeros"]
    if max(front, back) > len(unclear) / 2:
        return Padding(side="front" if front > back else "back", zeros=True)
    if stated is not None:
        return Padding(side=stated, zeros=False, stated=True)
    found = _side_by_values(unclear)
    if found is None:
        raise NeedsOptionError(
            f"{name}: arrays are longer than their declared lengths, with values other than zero on both"
            " sides of any content, so the side of the padding cannot be seen; padding front or back"
            " (--padding front|back) states it",
            option="--padding front|back",
        )
    return Padding(side=found, zeros=False)


def _side_by_values(clips: Sequence[tuple[np.ndarray, int]]) -> Side | None:
    """Where clips are padded with what is not zero: values (time, width) and declared lengths; ``None`` where
    it cannot be said.
    """
    ends = [_Ends.of(values, declared) for values, declared in clips]
    everything = np.concatenate([end.whole for end in ends])
    scale = everything.std(axis=0)
    kept = scale > 0
    if not kept.any():
        return None
    certain = [end.middle for end in ends if len(end.middle)]
    if not certain:
        return None
    shared = np.concatenate(certain)
    outer = {
        "front": np.concatenate([end.first for end in ends]),
        "back": np.concatenate([end.last for end in ends]),
    }
    same: list[Side] = [
        side
        for side in ("front", "back")
        if (outer[side] == outer[side][0]).all() and (shared != outer[side][0]).any()
    ]
    if len(same) == 1 and len(ends) >= _FEWEST_CONSTANT:
        return same[0]
    distances = []
    for end in ends:
        own = _looks(end.middle if len(end.middle) > 1 else shared, scale, kept)
        distances.append(
            [np.square(_looks(rows, scale, kept) - own).mean() for rows in (end.first, end.last)]
        )
    first, last = np.array(distances).T
    padded: Side = "front" if (first > last).sum() * 2 > len(first) else "back"
    padding, content = (first, last) if padded == "front" else (last, first)
    agree = int((padding > content).sum())
    chance = sum(math.comb(len(first), count) for count in range(agree, len(first) + 1)) / 2 ** len(first)
    clear = float(np.median(padding)) >= _CLEARLY * float(np.median(content))
    return padded if chance < _CHANCE and clear else None


@dataclass(frozen=True, kw_only=True)
class _Ends:
    """The rows of a clip by what they are if it is padded at the front, and if at the back."""

    whole: np.ndarray
    first: np.ndarray
    """Padding at the front, or else content."""
    middle: np.ndarray
    """Content either way; perhaps none."""
    last: np.ndarray
    """Content, or else padding at the back."""

    @classmethod
    def of(cls, values: np.ndarray, declared: int) -> "_Ends":
        with np.errstate(invalid="ignore", over="ignore"):  # a damaged file may hold a NaN that signals
            whole = np.nan_to_num(values.astype(np.float64), nan=0, posinf=0, neginf=0).clip(-_FAR, _FAR)
        spare = len(whole) - declared
        low, high = sorted((declared, spare))
        return cls(whole=whole, first=whole[:low], middle=whole[spare:declared], last=whole[high:])


def _looks(rows: np.ndarray, scale: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """What rows look like, by channel: mean, spread, and how much of it one row shares with the next."""
    scaled = rows[:, kept] / scale[kept]
    mean = scaled.mean(axis=0)
    centred = scaled - mean
    following = (centred[1:] * centred[:-1]).mean(axis=0) if len(rows) > 1 else np.zeros_like(mean)
    return np.stack([mean, centred.std(axis=0), following])


_DECLARED = {
    "front": (
        "kept, zero rows at its beginning",
        "padding at the back, content taken from the beginning",
        "positions before it dropped",
    ),
    "back": (
        "kept, zero rows at its end",
        "padding at the front, content taken from the end",
        "positions past it dropped",
    ),
}
"""What is done by the side of the padding: with a clip shorter than declared, one that is padded on the other
side, a longer one."""


def declared_content(
    name: str, clips: Clips, declared: int, row: int, padding: Padding, faults: Faults
) -> np.ndarray:
    """What a modality has in a clip by the length that the file declares; what does not fit it is counted.

    Args:
        name: The modality.
        clips: What it has.
        declared: The length.
        row: The clip.
        padding: How the clips of the modality are padded.
        faults: Where it is counted.
    """
    side = padding.side
    values = clips.whole(row)
    spare = len(values) - declared
    if spare < 0:
        faults.add("declared length too long", where=name, done="set to the length of the array")
        return values
    content, outside = (
        (values[spare:], values[:spare]) if side == "front" else (values[:declared], values[declared:])
    )
    if not padding.zeros:
        faults.add("padding that is not zero", where=name, done="dropped", count=int(filled(outside).any()))
        return content
    shorter, opposite, longer = _DECLARED[side]
    with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
        if not outside.any():
            if declared and not content[0 if side == "front" else -1].any():
                # Zeros may be silence, or a face that was not found, and positions stand for time.
                faults.add("content shorter than declared", where=name, done=shorter)
            return content
        other, outside = (
            (values[:declared], values[declared:]) if side == "front" else (values[spare:], values[:spare])
        )
        if declared and not outside.any():
            faults.add("declared length too short", where=name, done=opposite)
            return other
    faults.add("declared length too short", where=name, done=longer)
    return content
