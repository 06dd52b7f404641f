"""Times of known words in the sound that holds them: forced alignment by pocketsphinx, in English.

A decoder that may only say these words finds a path through any sound that is long enough. What it found is
therefore compared with the sounds that a second decoder hears, which knows no words.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any, Final, get_args

import numpy as np

from alignmamba.extras import require
from alignmamba.media.spoken_words import Years, sounds_of, spoken

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
_LOOP_SETTINGS: Final = {
    "lm": None,
    "dict": None,
    "lw": 2.0,
    "beam": 1e-20,
    "pbeam": 1e-20,
    "loglevel": "FATAL",
}
"""Settings under which sounds follow one another freely, as pocketsphinx documents them for phonemes."""
_PHONES = "en-us/en-us-phone.lm.bin"
"""Model of the order of sounds, part of pocketsphinx."""
_SLACK_FRAMES = 5
"""Frames by which a sound may be heard outside its word."""
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
Reading = tuple[tuple[str, ...], ...]
"""Words with which each shown word is spelled."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Times of words found in sound."""

    times: tuple[tuple[float, float], ...]
    """Start and end of each word in seconds from the first sample, in order."""
    unknown: int
    """Number of words that the English dictionary lacks."""
    sounds: int
    """Number of sounds that make up the words."""
    heard: int
    """Number of those that are heard where their word lies."""


class SpeechAligner:
    """Finds the times of words in sound; an aligner serves many clips, each as if it were the first.

    Raises:
        ConfigError: If pocketsphinx is not installed.
    """

    def __init__(self) -> None:
        require("alignment of words", "media", "pocketsphinx", "num2words")
        from pocketsphinx import Config, Decoder, get_model_path

        self._decoder: Any = Decoder(Config(**_SETTINGS))
        self._loop: Any = Decoder(Config(allphone=get_model_path(_PHONES), **_LOOP_SETTINGS))
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
        if len(samples) == 0 or float(np.abs(samples).max()) < _SILENT:
            return None
        readings = [
            tuple(spoken(word, self._knows, years=years) for word in words) for years in get_args(Years)
        ]
        paths = [(reading, self._path(samples, reading)) for reading in dict.fromkeys(readings)]
        if all(path is None for _, path in paths):
            return None
        loop = self._sounds(samples)
        fits = [self._judged(reading, path, loop) for reading, path in paths if path is not None]
        return max(fits, key=lambda fit: fit.heard / fit.sounds)

    def _path(self, samples: np.ndarray, reading: Reading) -> "_Path | None":
        """The path through all words of a reading, if there is one."""
        said = [each for group in reading for each in group]
        if not said:
            return None
        for word in {*said} - self._added:
            if not self._knows(word):
                self._decoder.add_word(word, sounds_of(word), True)
                self._added.add(word)
        for tail in _TAIL_SECONDS:
            segments = self._segments(samples, said, tail)
            times = complete_path(segments, said, len(samples) / RATE)
            if times is not None:
                return _Path(segments, times)
        return None

    def _judged(self, reading: Reading, path: "_Path", loop: Segments) -> Fit:
        """The times of shown words, and how much of them is heard there."""
        sounds = heard = 0
        for word, first, last in path.segments:
            if not _FILLER.fullmatch(word):
                wanted = (self._decoder.lookup_word(word) or "").split()
                near = [
                    sound
                    for sound, begins, ends in loop
                    if first - _SLACK_FRAMES <= (begins + ends) / 2 <= last + _SLACK_FRAMES
                ]
                blocks = SequenceMatcher(None, wanted, near, autojunk=False).get_matching_blocks()
                sounds += len(wanted)
                heard += sum(block.size for block in blocks)
        return Fit(
            times=tuple(_spans(reading, path.times)),
            unknown=sum(bool(self._added.intersection(group)) for group in reading),
            sounds=sounds,
            heard=heard,
        )

    def _knows(self, word: str) -> bool:
        return word not in self._added and self._decoder.lookup_word(word) is not None

    def _segments(self, samples: np.ndarray, said: Sequence[str], tail: float) -> Segments:
        """The path of the decoder through the words; nothing where it has none."""
        try:
            self._decoder.set_align_text(" ".join(said))
            return _decoded(self._decoder, samples, tail)
        except RuntimeError:  # of a path that cannot be made or does not end
            return []

    def _sounds(self, samples: np.ndarray) -> Segments:
        """All sounds of speech in samples, whatever the words are."""
        try:
            return [*_decoded(self._loop, samples, _TAIL_SECONDS[0])]
        except RuntimeError:  # of sound in which it hears nothing
            return []


@dataclass(frozen=True, slots=True)
class _Path:
    """A path of the decoder through all words."""

    segments: Segments
    times: tuple[tuple[float, float], ...]
    """Start and end of each spoken word, in seconds."""


def _decoded(decoder: Any, samples: np.ndarray, tail: float) -> Segments:
    """Words or sounds that a decoder finds between two silences; `RuntimeError` where it finds no path."""
    padded = np.pad(samples.astype(np.float64), (_HEAD_FRAMES * RATE // _FRAMES, round(tail * RATE)))
    noise = np.random.default_rng(0).integers(-_DITHER, _DITHER, len(padded), endpoint=True)
    sound = np.clip(padded * 32767 + noise, -32768, 32767).astype("<i2")
    decoder.start_utt()
    decoder.process_raw(sound.tobytes(), full_utt=True)
    decoder.end_utt()
    return [(each.word, each.start_frame, each.end_frame) for each in decoder.seg() or ()]


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


def _spans(reading: Reading, path: Sequence[tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """Times of shown words: those of the words that they are spelled with, from the first to the last."""
    place, span = 0, path[0]
    for group in reading:
        if group:
            span = path[place][0], path[place + len(group) - 1][1]
            place += len(group)
        yield span
