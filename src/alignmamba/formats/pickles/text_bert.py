"""The field ``text_bert`` of MMSA's pickles: token ids, attention masks and token types."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.pickles.padded_clips import number_arrays

_BLOCK_BYTES = 1 << 20
"""Rows that are read at once."""


class TextBert:
    """Ids, attention masks and token types of the clips of a split.

    Args:
        value: An array (clips, 3, time), or a list of arrays (3, time).
        where: The place, for messages.

    Raises:
        DataError: If it is anything else, or a mask has holes or numbers other than 0 and 1.
    """

    def __init__(self, value: Any, where: str) -> None:
        self._where = where
        self._arrays = number_arrays(value, where, "3, time", height=3)
        self._together = len(self._arrays[0].shape) == 3
        self.windows = np.concatenate([self._window(first, rows) for first, rows in self._masks()])
        """First position and end of each clip's text by the attention mask, (clips, 2)."""

    def steps(self, row: int) -> int:
        """Positions of a clip, padding included."""
        return self._arrays[0 if self._together else row].shape[-1]

    def _window(self, first: int, rows: np.ndarray) -> np.ndarray:
        """First position and end of the ones of masks (clips, time) from row `first` on, (clips, 2)."""
        with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
            content, wrong = rows != 0, (rows != 0) & (rows != 1)
        start, count = content.argmax(axis=1), content.sum(axis=1)
        end = np.where(count, content.shape[1] - content[:, ::-1].argmax(axis=1), 0)
        faulty = np.flatnonzero(wrong.any(axis=1) | (end - start != count))
        if len(faulty):
            raise DataError(
                f"{self._where}: row {first + faulty[0]}: expected an attention mask of ones without holes"
            )
        return np.stack([start, end], axis=1)

    def _masks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The row of the first of some clips, and their masks, (clips, time)."""
        if not self._together:
            for row, array in enumerate(self._arrays):
                yield row, array.part(1, 0, array.shape[1])[None]
            return
        array = self._arrays[0]
        step = max(1, _BLOCK_BYTES // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize))
        for first in range(0, len(array), step):
            yield first, array.rows(first, min(first + step, len(array)))[:, 1]

    def ids(self, row: int, start: int, stop: int) -> np.ndarray:
        """The ids of some positions of a clip, (time,) int64."""
        found: np.ndarray
        if self._together:
            found = self._arrays[0].part(row, 0, 1)[0][start:stop]
        else:
            found = self._arrays[row].part(0, 0, self.steps(row))[start:stop]
        with np.errstate(invalid="ignore"):
            sound = (found >= 0) & (found < 1 << 31) & (found == np.floor(found))
        if not sound.all():
            raise DataError(f"{self._where}: row {row}: expected whole numbers from 0 as ids")
        return found.astype(np.int64)
