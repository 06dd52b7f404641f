"""Clips that a foreign file holds padded to one length: where the content of each begins and ends, and lazy access to it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar, overload

import numpy as np

from alignmamba.data.readers.foreign import Faults, ReadOptions
from alignmamba.data.readers.repairs import finite
from alignmamba.data.readers.stored import StoredArray
from alignmamba.errors import DataError

Side = Literal["front", "back"]

Item = TypeVar("Item")


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
        if len(widths) > 1 or 0 in widths or (self._padded and 0 in arrays[0].shape[1:]):
            raise DataError(f"{where}: expected one width of at least 1 and at least one position, found shape {arrays[0].shape}")
        self.width = widths.pop() if widths else 0

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

    def is_silent(self, row: int) -> bool:
        """Whether a clip is zero throughout. A look at its ends settles it for most clips."""
        last = self.steps(row) - 1
        return last < 0 or not (self.part(row, 0, 1).any() or self.part(row, last, last + 1).any() or self.whole(row).any())


class PaddedModality:
    """One modality of one split, and which positions of each clip are content.

    Args:
        name: Of the modality.
        clips: Its arrays.
        where: File, split and field, for messages.
        options: What is done about values that are not finite, and which width is expected.
        faults: Where it is counted.
        side: On which side clips are padded with zeros, where nothing else says what is content.
        windows: First position and end of each clip's content, (clips, 2), where it is known.
        declared: Number of positions of each clip as the file says it.
        leader: A modality that this one is aligned to, if it has as many positions: its content is taken where this one is zero
            outside it, so that silence at the end of a clip stays aligned.

    Raises:
        DataError: If the arrays have not the expected width.
    """

    def __init__(
        self,
        name: str,
        clips: Clips,
        where: str,
        options: ReadOptions,
        faults: Faults,
        *,
        side: Side = "back",
        windows: np.ndarray | None = None,
        declared: Sequence[int] | None = None,
        leader: "PaddedModality | None" = None,
    ) -> None:
        if options.dims.get(name, clips.width) != clips.width:
            raise DataError(f"{where}: expected width {options.dims[name]}, found {clips.width}")
        self.clips = clips
        self._name = name
        self._where = where
        self._nonfinite = options.nonfinite
        self._faults = faults
        self._side = side
        self._windows = windows
        self._declared = declared
        self._leader = leader
        self._recent: tuple[int, tuple[int, int]] = (-1, (0, 0))

    def has(self, row: int) -> bool:
        """Whether a clip has any content."""
        if self._windows is not None:
            return bool(self._windows[row, 0] < self._windows[row, 1])
        if self._declared is not None:
            return self._declared[row] > 0 and self.clips.steps(row) > 0
        return not self.clips.is_silent(row) or (self._follows(row) and self._leader is not None and self._leader.has(row))

    def content(self, row: int) -> np.ndarray:
        """The content of a clip, (time, width) as it lies in the file. Faults of its declared length are counted."""
        if self._windows is not None:
            start, stop = map(int, self._windows[row])
            return self.clips.part(row, start, stop)
        values = self.clips.whole(row)
        start, stop = self._declared_window(row, values) if self._declared is not None else self._window(row, values)
        return values[start:stop]

    def repaired(self, row: int, values: np.ndarray) -> np.ndarray:
        """Content as finite float32, repaired as the options say."""
        return finite(values, f"{self._where}: row {row}", self._name, self._nonfinite, self._faults)

    def window(self, row: int) -> tuple[int, int]:
        """First position and end of a clip's content."""
        if self._windows is not None:
            return int(self._windows[row, 0]), int(self._windows[row, 1])
        if self._recent[0] != row:
            self._window(row, self.clips.whole(row))
        return self._recent[1]

    def _follows(self, row: int) -> bool:
        return self._leader is not None and self._leader.clips.steps(row) == self.clips.steps(row)

    def _window(self, row: int, values: np.ndarray) -> tuple[int, int]:
        filled = np.flatnonzero(values.any(axis=1))
        first, end = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
        found = (first, end)
        if len(filled):
            found = (first, len(values)) if self._side == "front" else (0, end)
        if self._leader is not None and self._follows(row):
            start, stop = self._leader.window(row)
            if not len(filled) or (start <= first and end <= stop):
                found = start, stop
        self._recent = row, found
        return found

    def _declared_window(self, row: int, values: np.ndarray) -> tuple[int, int]:
        assert self._declared is not None
        declared, steps = self._declared[row], len(values)
        if declared > steps:
            self._faults.add("declared length too long", where=self._name, done="set to the length of the array")
            return 0, steps
        if not values[declared:].any():
            return 0, declared
        if declared and not values[: steps - declared].any():
            self._faults.add("declared length too short", where=self._name, done="padding at the front, content taken from the end")
            return steps - declared, steps
        self._faults.add("declared length too short", where=self._name, done="positions past it left out")
        return 0, declared


class Content(Protocol):
    """What the clips of one modality hold, by their row in the file."""

    def has(self, row: int) -> bool:
        """Whether a clip has any; settled without reading all of it where that is possible."""
        ...

    def content(self, row: int) -> np.ndarray:
        """The content of a clip as it lies in the file."""
        ...

    def repaired(self, row: int, values: np.ndarray) -> np.ndarray:
        """Content that is not empty, as the archive takes it."""
        ...


class Lazily(Sequence[Item]):
    """A sequence whose items are made when they are asked for.

    Args:
        count: Number of items.
        make: Makes the item at a place.
    """

    def __init__(self, count: int, make: Callable[[int], Item]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        if isinstance(place, slice):
            return [self._make(each) for each in range(*place.indices(self._count))]
        return self._make(range(self._count)[place])


class LazyClips(Lazily[np.ndarray | None]):
    """The clips of one modality as the archive takes them: read, repaired and counted when they are asked for.

    Args:
        name: Name of the modality.
        rows: Which clips, by their row in the file.
        source: Their content.
        faults: Where clips without content are counted.
    """

    def __init__(self, name: str, rows: Sequence[int], source: Content, faults: Faults) -> None:
        super().__init__(len(rows), self._read)
        self._name = name
        self._rows = rows
        self._source = source
        self._faults = faults
        self._lengths: dict[int, int] = {}

    def _read(self, place: int) -> np.ndarray | None:
        row = self._rows[place]
        values = self._source.content(row)
        self._lengths[place] = len(values)
        if len(values) == 0:
            self._faults.add("zero length", where=self._name, done="the clip lacks the modality")
            return None
        return self._source.repaired(row, values)

    def length(self, place: int) -> int:
        """Number of positions of a clip; it is read for that only if it was not read before."""
        return self._lengths[place] if place in self._lengths else len(self._source.content(self._rows[place]))
