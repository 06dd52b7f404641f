"""Clips that a foreign file holds padded to one length: where the content of each begins and ends, and lazy access to it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import numpy as np

from alignmamba.data.readers.foreign import Faults
from alignmamba.data.readers.stored import StoredArray
from alignmamba.errors import DataError

Side = Literal["front", "back"]


class Clips:
    """Arrays of shape (time, width), one per clip: one array (clips, time, width) or a list of arrays (time, width).

    Args:
        value: What the file holds.
        where: The place, for messages.

    Raises:
        DataError: If it is anything else, or the arrays differ in width or hold no numbers.
    """

    def __init__(self, value: Any, where: str) -> None:
        if isinstance(value, StoredArray) and value.dtype.kind == "O" and len(value.shape) == 1:
            value = value.items()
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


class LazyClips(Sequence[Any]):
    """One thing of every clip, made when it is asked for.

    Args:
        count: Number of clips.
        make: Makes the thing of a row.
    """

    def __init__(self, count: int, make: Callable[[int], Any]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> Any: ...
    @overload
    def __getitem__(self, row: slice) -> list[Any]: ...
    def __getitem__(self, row: int | slice) -> Any:
        rows = range(self._count)[row]
        return self._make(rows) if isinstance(rows, int) else [self._make(each) for each in rows]


class PaddedModality:
    """One modality of one split, and which positions of each clip are content.

    Args:
        name: Of the modality.
        clips: Its arrays.
        faults: Where declared lengths that do not fit are counted.
        side: On which side clips are padded with zeros, where nothing else says what is content.
        windows: First position and end of each clip's content, (clips, 2), where it is known.
        declared: Number of positions of each clip as the file says it.
        leader: A modality that this one is aligned to, if it has as many positions: its content is taken where this one is zero
            outside it, so that silence at the end of a clip stays aligned.
    """

    def __init__(
        self,
        name: str,
        clips: Clips,
        faults: Faults,
        *,
        side: Side = "back",
        windows: np.ndarray | None = None,
        declared: Sequence[int] | None = None,
        leader: "PaddedModality | None" = None,
    ) -> None:
        self._name = name
        self._clips = clips
        self._faults = faults
        self._side = side
        self._windows = windows
        self._declared = declared
        self._leader = leader
        self._recent: tuple[int, tuple[int, int]] = (-1, (0, 0))

    def contents(self) -> LazyClips:
        """The content of every clip, (time, width) as it lies in the file."""
        return LazyClips(len(self._clips), self._content)

    def _content(self, row: int) -> np.ndarray:
        if self._windows is not None:
            start, stop = map(int, self._windows[row])
            return self._clips.part(row, start, stop)
        values = self._clips.whole(row)
        start, stop = self._window(row, values) if self._declared is None else self._declared_window(self._declared[row], values)
        return values[start:stop]

    def window(self, row: int) -> tuple[int, int]:
        """First position and end of a clip's content."""
        if self._windows is not None:
            return int(self._windows[row, 0]), int(self._windows[row, 1])
        return self._recent[1] if self._recent[0] == row else self._window(row, self._clips.whole(row))

    def _window(self, row: int, values: np.ndarray) -> tuple[int, int]:
        places = np.flatnonzero(filled(values))
        first, end = (int(places[0]), int(places[-1]) + 1) if len(places) else (len(values), 0)
        found = (first, len(values)) if self._side == "front" else (0, end)
        if self._leader is not None and self._leader._clips.steps(row) == len(values):
            start, stop = self._leader.window(row)
            if start < stop and start <= first and end <= stop:
                found = start, stop
        self._recent = row, found
        return found

    def _declared_window(self, declared: int, values: np.ndarray) -> tuple[int, int]:
        steps = len(values)
        if declared > steps:
            self._faults.add("declared length too long", where=self._name, done="set to the length of the array")
            return 0, steps
        with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
            if not values[declared:].any():
                return 0, declared
        content = filled(values)
        if declared and not content[: steps - declared].any():
            self._faults.add("declared length too short", where=self._name, done="padding at the front, content taken from the end")
            return steps - declared, steps
        self._faults.add("declared length too short", where=self._name, done="positions past it left out")
        return 0, declared
