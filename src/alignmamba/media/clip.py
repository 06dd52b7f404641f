"""A clip: a part of a media file with what is known of it, opened for reading."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alignmamba.errors import DataError

_LONGEST_SECONDS: Final = 1e6
"""No file is longer than eleven days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaClip:
    """A media file or a segment of one. Nothing is decoded before it is asked for.

    Raises:
        DataError: If the segment is no span of time.
    """

    path: Path
    """File of the clip; transcripts are looked for beside it."""
    start: float = 0.0
    """Seconds from the start of the file at which the clip begins."""
    end: float | None = None
    """Seconds at which it ends; the end of the file where ``None``."""
    text: str | None = None
    """Spoken words, where a table of labels states them."""

    def __post_init__(self) -> None:
        """Refuse a segment that is no span of time."""
        end = math.inf if self.end is None else self.end
        if not (0 <= self.start < end and self.start <= _LONGEST_SECONDS) or math.isnan(end):
            until = "the end" if self.end is None else f"{end:g} s"
            raise DataError(
                f"{self.path}: a segment from {self.start:g} s to {until},"
                f" expected a start of 0 to {_LONGEST_SECONDS:g} s before its end"
            )
