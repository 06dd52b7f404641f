"""Numbers of other people's files as the archive takes them: float32 and finite, with a count of what was not."""

from typing import Literal

import numpy as np

from alignmamba.data.readers.foreign import Faults
from alignmamba.errors import DataError


def finite_float32(
    values: np.ndarray, *, place: str, where: str, nonfinite: Literal["zero", "mean", "error"], faults: Faults
) -> np.ndarray:
    """The values of one clip as finite float32.

    Args:
        values: Real numbers of shape (time, width).
        place: File and entry, for the message of an error.
        where: The modality, for the counts.
        nonfinite: What takes the place of NaN, infinity and of numbers too large for float32: 0, or the mean of the channel's other
            values in the clip (0 where it has none); or ``"error"``.
        faults: Where they are counted.

    Raises:
        DataError: If there are such values and they are to be refused.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        stored = np.array(values, dtype=np.float32)
    unfit = ~np.isfinite(stored)
    if not unfit.any():
        return stored
    if nonfinite == "error":
        position, channel = np.argwhere(unfit)[0]
        raise DataError(f"{place}: found {values[position, channel]} at position {position}, channel {channel}, expected finite float32")
    overflowed = int(np.count_nonzero(unfit & np.isfinite(values)))
    done = "set to 0" if nonfinite == "zero" else "set to the mean of the channel in the clip"
    stored[unfit] = 0
    if nonfinite == "mean":
        means = stored.sum(axis=0, dtype=np.float64) / np.maximum(np.count_nonzero(~unfit, axis=0), 1)
        stored = np.where(unfit, means.astype(np.float32), stored)
    faults.add("not finite", where=where, done=done, count=int(np.count_nonzero(unfit)) - overflowed)
    faults.add("does not fit float32", where=where, done=done, count=overflowed)
    return stored


def wrong_width(values_width: int, expected: int | None, *, place: str) -> None:
    """Refuse features of another width than the expected one.

    Raises:
        DataError: If the widths differ.
    """
    if expected is not None and values_width != expected:
        raise DataError(f"{place}: expected width {expected}, found {values_width}")
