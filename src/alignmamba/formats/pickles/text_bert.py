"""The field ``text_bert`` of MMSA's pickles: token ids, attention masks and token types."""

from typing import Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.pickles.padded_clips import ClipArrays


class TextBert(ClipArrays):
    """Ids, attention masks and token types of the clips of a split, arrays of shape (3, time).

    Raises:
        DataError: If it is anything else, or a mask has holes or numbers other than 0 and 1.
    """

    def __init__(self, value: Any, where: str) -> None:
        super().__init__(value, where, "3, time", height=3)
        self._where = where
        self.windows = [self._window(row) for row in range(len(self))]
        """First position and end of each clip's text by the attention mask."""

    def steps(self, row: int) -> int:
        """Positions of a clip, padding included."""
        return self.shape(row)[1]

    def _window(self, row: int) -> tuple[int, int]:
        mask = self.part(row, 1, 2)[0]
        with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
            places, wrong = np.flatnonzero(mask != 0), (mask != 0) & (mask != 1)
        start, end = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        if wrong.any() or len(places) != end - start:
            raise DataError(f"{self._where}: row {row}: expected an attention mask of ones without holes")
        return start, end

    def ids(self, row: int, start: int, stop: int) -> np.ndarray:
        """The ids of some positions of a clip, (time,) int64."""
        found = self.part(row, 0, 1)[0, start:stop]
        with np.errstate(invalid="ignore"):
            sound = (found >= 0) & (found < 1 << 31) & (found == np.floor(found))
        if not sound.all():
            raise DataError(f"{self._where}: row {row}: expected whole numbers from 0 as ids")
        return found.astype(np.int64)
