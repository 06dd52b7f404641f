"""Times of known words in the sound that holds them: forced alignment by pocketsphinx, in English."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from alignmamba.extras import require
from alignmamba.media.spoken_words import sounds_of, spoken

RATE: Final = 16_000
"""Samples a second of the acoustic model."""
_FRAMES = 100
"""Frames a second of the decoder."""
_SETTINGS: Final = {
    "lm": None,
    "beam": 1e-80,
    "pbeam": 1e-80,
    "wbeam": 1e-80,
    "silprob": 0.1,
    "loglevel": "FATAL",
}
"""Beams between the default ones, which lose one path in twenty, and the widest, which lose most."""
_HEAD_FRAMES = 20
"""Silence before the sound."""
_TAIL_SECONDS = (0.5, 1.0)
"""Silence after the sound; a path that ends too early is looked for again with the longer tail."""
_DITHER = 30
"""Noise that is added, of 32768 at full scale: the path ends early in digital silence."""
_SILENT = 1e-4
"""Sound below this part of full scale has no words."""
_FILLER = re.compile(r"[<\[+].*|\(NULL\)")

Segments = Iterable[tuple[str, int, int]]
"""Words of a path, as the dictionary names them, each with its first and last frame."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Times of words found in sound."""

    times: tuple[tuple[float, float], ...]
    """Start and end of each word in seconds from the first sample, in order."""
    unknown: int
    """Number of words that the English dictionary lacks."""


class SpeechAligner:
    """Finds the times of words in sound; an aligner serves many clips, each as if it were the first.

    Raises:
        ConfigError: If pocketsphinx is not installed.
    """

    def __init__(self) -> None:
        require("alignment of words", "media", "pocketsphinx", "num2words")
        from pocketsphinx import Config, Decoder

        self._decoder: Any = Decoder(Config(**_SETTINGS))
        self._added: set[str] = set()

    def fit(self, samples: np.ndarray, words: Sequence[str]) -> Fit | None:
        """Times of words that follow one another in speech.

        Args:
            samples: (time,) float32 at `RATE`, full scale 1.
            words: As they are shown; numbers and signs are spelled out, see `spoken_words.spoken`.

        Returns:
            The times, or None where no complete path through all words was found. A word that cannot be said
            in English has the time of the one before it.
        """
        spelled = [spoken(word, self._knows) for word in words]
        said = [each for group in spelled for each in group]
        if not said or len(samples) == 0 or float(np.abs(samples).max()) < _SILENT:
            return None
        for word in {*said} - self._added:
            if not self._knows(word):
                self._decoder.add_word(word, sounds_of(word), True)
                self._added.add(word)
        unknown = sum(bool(self._added.intersection(group)) for group in spelled)
        for tail in _TAIL_SECONDS:
            path = complete_path(self._segments(samples, said, tail), said, len(samples) / RATE)
            if path is not None:
                return Fit(tuple(_spans(spelled, path)), unknown)
        return None

    def _knows(self, word: str) -> bool:
        return word not in self._added and self._decoder.lookup_word(word) is not None

    def _segments(self, samples: np.ndarray, said: Sequence[str], tail: float) -> Segments:
        """The path of the decoder through the words; nothing where it has none."""
        padded = np.pad(samples.astype(np.float64), (_HEAD_FRAMES * RATE // _FRAMES, round(tail * RATE)))
        noise = np.random.default_rng(0).integers(-_DITHER, _DITHER, len(padded), endpoint=True)
        sound = np.clip(padded * 32767 + noise, -32768, 32767).astype("<i2")
        try:
            self._decoder.set_align_text(" ".join(said))
            self._decoder.start_utt()
            self._decoder.process_raw(sound.tobytes(), full_utt=True)
            self._decoder.end_utt()
            return [(each.word, each.start_frame, each.end_frame) for each in self._decoder.seg() or ()]
        except RuntimeError:  # of a path that cannot be made or does not end
            return []


def complete_path(
    segments: Segments, said: Sequence[str], seconds: float
) -> tuple[tuple[float, float], ...] | None:
    """Times of all words on a path of the decoder, or None if one is missing: the decoder does not say so.

    Args:
        segments: The path, with silences and noises.
        said: Words in the order in which they are on a complete path.
        seconds: Length of the sound, without the silence before and after it.
    """
    words = [each for each in segments if not _FILLER.fullmatch(each[0])]
    if [re.sub(r"\(\d+\)$", "", word) for word, *_ in words] != list(said):
        return None
    frames = [frame for _, first, last in words for frame in (first, last)]
    if any(later < earlier for earlier, later in pairwise(frames)):
        return None
    times = [
        ((first - _HEAD_FRAMES) / _FRAMES, (last + 1 - _HEAD_FRAMES) / _FRAMES) for _, first, last in words
    ]
    if any(end <= 0 or start >= seconds for start, end in times):
        return None  # a word in the silence around the sound
    return tuple((max(start, 0.0), min(end, seconds)) for start, end in times)


def _spans(
    spelled: Sequence[Sequence[str]], path: Sequence[tuple[float, float]]
) -> Iterable[tuple[float, float]]:
    """Times of shown words: those of the words that they are spelled with, from the first to the last."""
    place, span = 0, path[0]
    for group in spelled:
        if group:
            span = path[place][0], path[place + len(group) - 1][1]
            place += len(group)
        yield span
