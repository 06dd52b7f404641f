"""Padded clips whose lengths a file declares: on which side they are padded, and what their content is."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from alignmamba.formats.foreign import Faults, NeedsOptionError
from alignmamba.formats.pickles.padded_clips import LOOKED_AT, Clips, Side, filled

# As many clips that tell the side are enough: most files are padded at the back, and need no looking at.
_ENOUGH = 16
# Padding that is not zero is seen by its values if clips agree more than they do by chance once in a thousand
# times, and its rows are this many times farther from content than content is.
_CHANCE = 1e-3
_CLEARLY = 4.0
# As many clips must be padded with one and the same row to see by that alone that it is padding.
_FEWEST_CONSTANT = 3
# Values farther from 0 are looked at as if they were there.
_FAR = 1e100


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Padding of a modality with declared lengths."""

    side: Side
    zeros: bool
    """True if with zeros. Else what lies beyond a declared length may be anything, and says nothing about the
    length.
    """
    stated: bool = False
    """True if the user says so, for it cannot be seen."""

    def note(self) -> str:
        """Evidence for it, for people."""
        if self.zeros:
            return f"padded at the {self.side}"
        how = "as stated" if self.stated else "seen by its values; --padding states another side"
        return f"padded at the {self.side} with what is not zero ({how})"


def declared_padding(
    name: str, splits: Iterable[tuple[Clips, Sequence[int]]], stated: Side | None
) -> Padding:
    """Padding of a modality with declared lengths, by all that few clips of each split show.

    A clip whose array is longer than declared shows the side if it has nothing past its length on one side
    alone, or else if it has zeros at one end alone. If most have neither, the padding is not zero. Then the
    side is taken that the user states, or else the rows decide that would be content at one side and padding
    at the other: those are content that are like the rows that are content at either side, in mean, in
    spread and in how one row follows from the last.

    Raises:
        NeedsOptionError: If there is padding that is not zero, and nothing shows on which side.
    """
    votes: Counter[Side] = Counter()
    ends: Counter[Side] = Counter()
    unclear: list[tuple[np.ndarray, int]] = []
    for clips, lengths in splits:
        shorter = (row for row, declared in enumerate(lengths) if 0 < declared < clips.steps(row))
        for row in itertools.islice(shorter, LOOKED_AT):
            values = clips.whole(row)
            content = filled(values)
            before, past = content[: len(content) - lengths[row]].any(), content[lengths[row] :].any()
            if before and past:
                unclear.append((values, lengths[row]))
                ends["front"] += bool(content[-1] and not content[0])
                ends["back"] += bool(content[0] and not content[-1])
            else:
                votes["front"] += bool(past)
                votes["back"] += bool(before)
            if votes.total() >= _ENOUGH + len(unclear):
                break
    for sides, needed in ((votes, len(unclear)), (ends, len(unclear) // 2 + 1)):
        seen: Side = "front" if sides["front"] > sides["back"] else "back"
        if sides[seen] >= needed:
            return Padding(side=seen, zeros=True)
    if stated is not None:
        return Padding(side=stated, zeros=False, stated=True)
    found = _side_by_values(unclear)
    if found is None:
        raise NeedsOptionError(
            f"{name}: expected padding on one side, found arrays longer than declared with values on"
            " both sides; state it by padding front or back (--padding front|back)",
            option="--padding front|back",
        )
    return Padding(side=found, zeros=False)


def _side_by_values(clips: Sequence[tuple[np.ndarray, int]]) -> Side | None:
    """Side on which clips are padded with other values than zero: values (time, width) and declared lengths;
    ``None`` where it cannot be said.
    """
    wholes, firsts, middles, lasts = zip(
        *(_ends(values, declared) for values, declared in clips), strict=True
    )
    scale, shared = np.concatenate(wholes).std(axis=0), np.concatenate(middles)
    if not (scale > 0).any() or not len(shared):
        return None
    outer: dict[Side, np.ndarray] = {"front": np.concatenate(firsts), "back": np.concatenate(lasts)}
    same = [side for side, rows in outer.items() if (rows == rows[0]).all() and (shared != rows[0]).any()]
    if len(same) == 1 and len(clips) >= _FEWEST_CONSTANT:
        return same[0]
    distances = []
    for outside, middle in zip(zip(firsts, lasts, strict=True), middles, strict=True):
        own = _looks(middle if len(middle) > 1 else shared, scale)
        distances.append([np.square(_looks(rows, scale) - own).mean() for rows in outside])
    first, last = np.array(distances).T
    padded: Side = "front" if (first > last).sum() * 2 > len(first) else "back"
    padding, content = (first, last) if padded == "front" else (last, first)
    agree = int((padding > content).sum())
    chance = sum(math.comb(len(first), count) for count in range(agree, len(first) + 1)) / 2 ** len(first)
    clear = float(np.median(padding)) >= _CLEARLY * float(np.median(content))
    return padded if chance < _CHANCE and clear else None


def _ends(values: np.ndarray, declared: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows of a clip: all, those that are padding at the front or else content, those that are content
    either way, perhaps none, and those that are content or else padding at the back.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # a damaged file may hold a NaN that signals
        whole = np.nan_to_num(values.astype(np.float64), nan=0, posinf=0, neginf=0).clip(-_FAR, _FAR)
    spare = len(whole) - declared
    low, high = sorted((declared, spare))
    return whole, whole[:low], whole[spare:declared], whole[high:]


def _looks(rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Statistics of rows, by channel: mean, spread, and how much of it one row shares with the next."""
    scaled = rows[:, scale > 0] / scale[scale > 0]
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
"""Repairs by the side of the padding: with a clip shorter than declared, one that is padded on the other
side, a longer one.
"""


def declared_content(
    name: str, clips: Clips, declared: int, row: int, padding: Padding, faults: Faults
) -> np.ndarray:
    """Content of a modality in a clip by its declared length; what does not fit it is counted."""
    forward = -1 if padding.side == "front" else 1
    shorter, opposite, longer = _DECLARED[padding.side]
    values = clips.whole(row)[::forward]  # so that padding comes last
    content, outside, spare = values[:declared], values[declared:], len(values) - declared
    with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
        if spare < 0:
            faults.add("declared length too long", where=name, done="set to the length of the array")
        elif not padding.zeros:
            count = int(filled(outside).any())
            faults.add("padding that is not zero", where=name, done="dropped", count=count)
        elif not outside.any():
            # Zeros may be silence, or a face that was not found, and positions stand for time.
            ends_in_zeros = declared > 0 and not content[-1].any()
            faults.add("content shorter than declared", where=name, done=shorter, count=int(ends_in_zeros))
        elif declared and not values[:spare].any():
            content = values[spare:]
            faults.add("declared length too short", where=name, done=opposite)
        else:
            faults.add("declared length too short", where=name, done=longer)
    return content[::forward]
