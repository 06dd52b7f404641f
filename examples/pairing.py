"""Deal pairs of pieces of two streams that were recorded together, for the corpora that ask whether both are
of one time.

Of each recording there are four pairs: two pieces of one stream and two of the other, crossed, at the same
times. So whatever is known of one piece, or of each of them alone, stands in as many pairs that are together
as apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alignmamba import Task

TASK = Task(kind="classification", classes=("apart", "together"))


@dataclass(frozen=True)
class Piece:
    """A part of a recording, in frames."""

    place: int
    """Where it begins in the recording."""
    time: int
    """When it begins by the clock."""
    length: int

    def of(self, tokens: np.ndarray, ticks: int = 1) -> np.ndarray:
        """(length, channel) out of a whole recording that has so many tokens a frame."""
        return tokens[ticks * self.place : ticks * (self.place + self.length)]


@dataclass(frozen=True)
class Pair:
    """A piece of each of two streams."""

    one: Piece
    other: Piece

    @property
    def target(self) -> str:
        """``together`` if both are from one time where the clock says so, else ``apart``."""
        together = self.one.place - self.one.time == self.other.place - self.other.time
        return TASK.classes[together]


@dataclass(frozen=True, kw_only=True)
class Dealer:
    """Draws the pairs of a recording, which is longer than `longest` and `least` together. All numbers are
    frames.
    """

    shortest: int
    longest: int
    """Length of a piece."""
    common: int
    """Time that two pieces share, at least."""
    least: int
    most: int
    """Distance of the two streams of a pair that is apart."""

    def same_stretch(self, frames: int, random: np.random.Generator) -> Iterator[Pair]:
        """Pairs of a recording that cover the same time: two pieces of each stream, crossed."""
        length = int(random.integers(self.shortest, self.longest + 1))
        places = self._two_places(frames - length, random)
        for one in places:
            for other in places:
                yield Pair(Piece(one, 0, length), Piece(other, 0, length))

    def own_pieces(self, frames: int, random: np.random.Generator) -> Iterator[Pair]:
        """Pairs of a recording whose sides begin and end apart: two pieces of each stream, crossed, the other
        always as late.
        """
        while True:
            first, second = (int(each) for each in random.integers(self.shortest, self.longest + 1, size=2))
            places = self._two_places(frames - first, random)
            late = int(random.integers(self.common - second, first - self.common + 1))
            inside = all(0 <= at + late <= frames - second for at in places)
            if inside and min(first, late + second) - max(0, late) >= self.common:
                break
        for one in places:
            for other in places:
                yield Pair(Piece(one, max(0, -late), first), Piece(other + late, max(0, late), second))

    def _two_places(self, last: int, random: np.random.Generator) -> tuple[int, int]:
        """Beginnings of two pieces, in random order, that are far enough apart and not too far."""
        while True:
            one, other = (int(each) for each in random.integers(0, last + 1, size=2))
            if self.least <= abs(one - other) <= self.most:
                return one, other
