"""Pictures as they are, only smaller: the mean of each cell of a grid. It needs no weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from pydantic import Field

from alignmamba.contracts import Config
from alignmamba.extras import require, versions
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import frames
from alignmamba.media.tracks import Absent, Track

_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""Shares of red, green and blue in brightness (ITU-R BT.601)."""


class PixelsOptions(Config):
    """Options of ``pixels``."""

    fps: float = Field(default=5.0, gt=0, le=1000)
    """Pictures a second."""
    cells: int = Field(default=16, ge=1, le=128)
    """Rows and columns of the grid."""
    colour: bool = False
    """Red, green and blue in place of brightness."""
    motion: bool = False
    """Change since the picture before, beside the picture."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Extractor of small pictures."""

    options: PixelsOptions
    name: str = "pixels"
    licence: str = "Apache-2.0"
    kind: Literal["features"] = "features"

    def __post_init__(self) -> None:
        """Refuse to begin without a decoder."""
        require(self.name, "media", "av")

    @property
    def version(self) -> str:
        """Versions of the packages that decide the values."""
        return versions("av", "numpy")

    @property
    def weights(self) -> Mapping[str, str]:
        """No weights."""
        return {}

    @property
    def width(self) -> int:
        """Cells, times 3 with colours, times 2 with motion."""
        return self.options.cells**2 * (3 if self.options.colour else 1) * (2 if self.options.motion else 1)

    @property
    def unit(self) -> str:
        """Meaning of one vector."""
        values = "red, green and blue" if self.options.colour else "brightness"
        change = " and its change" if self.options.motion else ""
        return (
            f"{values} from 0 to 1{change}, {self.options.cells} x {self.options.cells} cells at"
            f" {self.options.fps:g} Hz"
        )

    def extract(self, clip: MediaClip) -> Track | Absent:
        """A vector for each picture, row by row from the left above.

        Raises:
            DataError: If the file cannot be read; the message names it.
        """
        found = frames(clip, self.options.fps)
        values, times = [], []
        for frame in found:
            values.append(self._cells(frame.image))
            times.append(frame.time)
        if not values:
            return found.absent
        rows = np.stack(values)
        if self.options.motion:
            rows = np.concatenate([rows, np.diff(rows, axis=0, prepend=rows[:1])], axis=1)
        return Track(values=rows, times=np.array(times), notes=found.notes)

    def _cells(self, image: np.ndarray) -> np.ndarray:
        """Means of (height, width, 3), as one vector."""
        sums, counts = image, np.ones(1)
        for axis in (0, 1):
            # Whole numbers are added in place: a copy of each picture as floats fragments the memory.
            edges = np.arange(self.options.cells + 1) * image.shape[axis] // self.options.cells
            sums = np.add.reduceat(sums, edges[:-1], axis=axis, dtype=np.int64)
            counts = np.multiply.outer(counts, np.maximum(1, np.diff(edges)))
        means = (sums / (255.0 * counts[0, :, :, None])).astype(np.float32)
        return (means if self.options.colour else means @ _LUMA).ravel()
