"""Long sound in windows that overlap, for extractors that hear what lies around, in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alignmamba.media.decoding import Waveform


@dataclass(frozen=True, slots=True)
class SoundWindow:
    """Samples of which the middle is asked for, and the rest is what lies around it."""

    samples: np.ndarray
    """(time,) float32."""
    start: float
    """Seconds from the start of the clip to the first sample."""
    first: int
    """Sample at which the middle begins."""
    last: int
    """Sample before which it ends."""

    def kept(self, places: np.ndarray) -> np.ndarray:
        """Mask of the frames that begin in the middle.

        Args:
            places: (frame,) the sample at which each begins.
        """
        return (places >= self.first) & (places < self.last)


def sound_windows(found: Iterator[Waveform], middle: int, around: int) -> Iterator[SoundWindow]:
    """Cut contiguous blocks of sound into windows whose middles follow one another without a gap.

    Args:
        found: Blocks of one rate.
        middle: Samples of a middle, at least as many as `around`.
        around: Samples before and after it; the first and the last window have fewer.
    """
    held, start, first, rate = np.zeros(0, np.float32), 0.0, 0, 1
    for block in found:
        rate = block.rate
        start = block.start - len(held) / rate
        held = np.concatenate([held, block.samples])
        while len(held) >= first + middle + around:
            yield SoundWindow(held[: first + middle + around], start, first, first + middle)
            cut = first + middle - around
            held, start, first = held[cut:], start + cut / rate, around
    if len(held) > first:
        yield SoundWindow(held, start, first, len(held))
