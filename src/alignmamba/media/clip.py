"""A clip: a part of a media file with what is known of it, opened for reading."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaClip:
    """A media file or a segment of one. Nothing is decoded before it is asked for."""

    path: Path
    """File of the clip; transcripts are looked for beside it."""
    start: float = 0.0
    """Seconds from the start of the file at which the clip begins."""
    end: float | None = None
    """Seconds at which it ends; the end of the file where ``None``."""
    text: str | None = None
    """Spoken words, where a table of labels states them."""
