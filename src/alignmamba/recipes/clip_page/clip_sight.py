"""A clip as people see and hear it: its length, its loudness and some of its pictures."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from alignmamba.errors import DataError
from alignmamba.files import manner_of_end
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import blocks, facts, frames
from alignmamba.recipes.extraction.process_pool import process_pool

MOST_PICTURES: Final = 24
"""Pictures of a strip."""
MOST_BINS: Final = 1200
"""Values of loudness."""
_PICTURE_HEIGHT: Final = 96
_RATE: Final = 16_000
"""Samples a second at which loudness is measured."""
_BIN_SECONDS: Final = 0.02
_BLOCK_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class ClipSight:
    """Parts of a clip that a page draws."""

    seconds: float
    """Length of the clip."""
    container: str
    """Names that FFmpeg has for the format, with commas."""
    codecs: tuple[tuple[str, str], ...]
    """``audio`` or ``video`` of each stream, and its codec."""
    bin_seconds: float
    """Length of what one value of `loudness` covers."""
    loudness: tuple[float, ...]
    """Root mean square of the sound from the start of the clip, the loudest being 1; empty without sound."""
    pictures: tuple[tuple[float, bytes], ...]
    """Seconds and JPEG of evenly spaced pictures; empty without pictures."""


def seen_apart(path: Path, *, seconds: float | None = None) -> ClipSight:
    """Look at a clip in a process of its own, for a file of a stranger may end it.

    Args:
        path: The media file.
        seconds: Time that it may take; no limit where ``None``.

    Raises:
        DataError: If the file cannot be read, or not in time; the message names it.
    """
    from pebble import ProcessExpired

    try:
        with process_pool(1) as pool:
            sight: ClipSight = pool.schedule(clip_sight, args=(path,), timeout=seconds).result()
    except ProcessExpired as error:
        raise DataError(f"{path}: {manner_of_end(error.exitcode)}") from None
    except TimeoutError:
        raise DataError(f"{path}: not read within {seconds:g} s, the limit") from None
    return sight


def clip_sight(path: Path) -> ClipSight:
    """Look at a clip. A stream that cannot be decoded is left empty.

    Raises:
        DataError: If the file cannot be read; the message names it.
    """
    clip = MediaClip(path=path)
    about = facts(clip)
    bin_seconds = max(_BIN_SECONDS, about.found / MOST_BINS)
    return ClipSight(
        seconds=about.found,
        container=about.container,
        codecs=tuple((stream.kind, stream.codec) for stream in about.streams),
        bin_seconds=bin_seconds,
        loudness=_loudness(clip, bin_seconds),
        pictures=tuple(_pictures(clip, about.found)),
    )


def _loudness(clip: MediaClip, bin_seconds: float) -> tuple[float, ...]:
    energy, counts = np.zeros(0), np.zeros(0)
    try:
        for block in blocks(clip, _RATE, _BLOCK_SECONDS):
            times = block.start + np.arange(len(block.samples)) / _RATE
            places = (times / bin_seconds).astype(np.int64)
            size = max(len(energy), int(places[-1]) + 1)
            squares = np.square(block.samples, dtype=np.float64)
            energy = np.pad(energy, (0, size - len(energy))) + np.bincount(places, squares, size)
            counts = np.pad(counts, (0, size - len(counts))) + np.bincount(places, minlength=size)
    except DataError:
        return ()
    loudness = np.sqrt(energy / counts.clip(min=1))
    loudest = loudness.max(initial=0.0)
    return tuple((loudness / loudest if loudest > 0 else loudness).round(3).tolist())


def _pictures(clip: MediaClip, seconds: float) -> Iterator[tuple[float, bytes]]:
    from PIL import Image

    taken = 0
    try:
        for frame in frames(clip, MOST_PICTURES / max(seconds, _BIN_SECONDS)):
            image = Image.fromarray(frame.image)
            image.thumbnail((4 * _PICTURE_HEIGHT, _PICTURE_HEIGHT))
            content = io.BytesIO()
            image.save(content, "JPEG", quality=72)
            yield round(frame.time, 3), content.getvalue()
            taken += 1
            if taken > MOST_PICTURES:
                return
    except DataError:
        return
