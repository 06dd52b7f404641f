"""Sources of the words of a clip and their times: what a file states, what the sound shows, or neither."""

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import facts, waveform
from alignmamba.media.forced_alignment import RATE, SpeechAligner
from alignmamba.media.tracks import Absent, Timing, Word, Words
from alignmamba.media.transcripts import Cue, Transcript, read_transcript, shown_words, transcript_path

_MOST_SECONDS: Final = 180.0
"""Sound that is aligned in one piece: the time that it takes grows with the square of its length."""
_LATIN: Final = 0.9
"""Part of the letters of an English text that are a to z, apart from accents."""
_UNKNOWN: Final = 0.4
"""Part of the words that the dictionary may lack before their times are doubted."""
_HEARD: Final = 0.35
"""Part of the sounds of aligned words that is heard where they lie, below which their times are doubted:
clean speech with its own words has more, and with the words of another less (benchmarks/word_times.py)."""
_RANK: Final[Mapping[Timing, int]] = {"given": 0, "aligned": 1, "spread": 2}


class WordTimer:
    """Gives the words of cues their times.

    Args:
        aligner: Finds them in the sound; without one they are spread.
        refusal: Half a sentence on why there is no aligner.
        keeps: Keep the times of words where a file states them.
    """

    def __init__(self, aligner: SpeechAligner | None, *, refusal: str = "", keeps: bool = True) -> None:
        self._aligner, self._refusal, self._keeps = aligner, refusal, keeps

    def words(self, clip: MediaClip, said: Transcript) -> Words | Absent:
        """Words of a clip with their times.

        Args:
            clip: Where to look for them; words outside it are dropped, by their middle.
            said: Words of its file, with times from the start of the file.
        """
        end = math.inf if clip.end is None else clip.end
        found = _Found()
        for cue in said.cues:
            if cue.end >= clip.start and cue.start < end:
                self._time(clip, cue, found)
        within = [word for word in found.words if clip.start <= (word.start + word.end) / 2 < end]
        if not within:
            return Absent("nobody speaks in it" if said.cues else "its transcript has no words")
        return Words(
            words=tuple(
                Word(word.text, max(word.start - clip.start, 0.0), min(word.end, end) - clip.start)
                for word in sorted(within, key=lambda word: (word.start, word.end))
            ),
            timing=found.timing,
            notes=(*said.notes, *found.notes),
        )

    def _time(self, clip: MediaClip, cue: Cue, found: "_Found") -> None:
        words = shown_words(cue.text)
        if self._keeps and cue.one_word:
            found.add([Word(words[0], cue.start, cue.end)], "given")
            return
        aligned = self._aligned(clip, cue, words, found)
        if isinstance(aligned, str):
            found.add(spread(words, cue.start, cue.end), "spread", aligned)
        else:
            found.add(aligned, "aligned")

    def _aligned(self, clip: MediaClip, cue: Cue, words: Sequence[str], found: "_Found") -> list[Word] | str:
        """Words with their times in the sound, or the reason why these are unknown."""
        if self._aligner is None:
            return self._refusal
        if not in_latin_letters(cue.text):
            return "their letters are not English"
        if cue.end - cue.start > _MOST_SECONDS:
            return f"{_MOST_SECONDS:.0f} s without a time are too long to align"
        sound = waveform(MediaClip(path=clip.path, start=cue.start, end=cue.end), RATE)
        if isinstance(sound, Absent):
            return sound.reason
        fit = self._aligner.fit(sound.samples, words)
        if fit is None:
            return "no complete alignment was found"
        found.unknown += fit.unknown
        found.sounds += fit.sounds
        found.heard += fit.heard
        first = cue.start + sound.start
        return [Word(word, first + a, first + b) for word, (a, b) in zip(words, fit.times, strict=True)]


@dataclass(slots=True)
class _Found:
    """Words while their times are found, in seconds from the start of the file."""

    words: list[Word] = field(default_factory=list)
    timing: Timing = "given"
    reasons: dict[str, int] = field(default_factory=dict)
    """Reason for spreading words to the number of words."""
    unknown: int = 0
    """Aligned words that the dictionary lacks."""
    sounds: int = 0
    """Sounds of the aligned words."""
    heard: int = 0
    """Those that are heard where their word lies."""

    def add(self, words: Sequence[Word], timing: Timing, reason: str = "") -> None:
        self.words.extend(words)
        self.timing = max(self.timing, timing, key=_RANK.__getitem__)
        if reason:
            self.reasons[reason] = self.reasons.get(reason, 0) + len(words)

    @property
    def notes(self) -> list[str]:
        total = len(self.words)
        notes = [f"{count} of {total} words are spread evenly: {why}" for why, count in self.reasons.items()]
        if self.unknown > max(_UNKNOWN * total, 3):
            notes.append(f"{self.unknown} of {total} words are in no English dictionary, times may be wrong")
        if self.heard < _HEARD * self.sounds:
            part = f"{self.heard / self.sounds:.0%} of the sounds of the aligned words are heard near them"
            notes.append(f"{part}, other words may be spoken, times may be wrong")
        return notes


def spread(words: Sequence[str], start: float, end: float) -> list[Word]:
    """Words one after the other, each with an equal part of the time."""
    step = (end - start) / max(len(words), 1)
    return [Word(word, start + i * step, start + (i + 1) * step) for i, word in enumerate(words)]


def in_latin_letters(text: str) -> bool:
    """True if nearly all letters are those of English, apart from accents."""
    letters = [each for each in unicodedata.normalize("NFKD", text) if each.isalpha()]
    return sum(map(str.isascii, letters)) >= _LATIN * len(letters)


def stated_words(clip: MediaClip) -> Transcript | Absent:
    """Words that are stated of a clip, in cues with times from the start of its file.

    The words of the clip itself come first, unless a file beside it has times of words. Text without times
    is one cue, as long as the clip or the file.
    """
    path = transcript_path(clip.path)
    beside = read_transcript(path) if path else None
    if beside is not None and any(cue.one_word for cue in beside.cues):
        return beside
    if clip.text is not None:
        return _whole(clip.text, clip, ())
    if beside is None:
        return Absent(f"no text is given, and no transcript lies beside {clip.path.name}")
    if beside.cues:
        return beside
    return _whole(beside.text, MediaClip(path=clip.path), beside.notes)


def _whole(text: str, clip: MediaClip, notes: tuple[str, ...]) -> Transcript:
    if not shown_words(text):
        return Transcript(text="", notes=notes)
    found = facts(clip).found
    end = found if clip.end is None else min(clip.end, found)
    cue = Cue(text=text, start=clip.start, end=max(end, clip.start))
    return Transcript(text=text, cues=(cue,), notes=notes)


def timed_words(clip: MediaClip) -> Transcript | Absent:
    """Words of a file beside a clip that states times."""
    path = transcript_path(clip.path)
    found = read_transcript(path) if path else None
    if found is None or (found.text and not found.cues):
        return Absent(f"no subtitles lie beside {clip.path.name}")
    return found


class StatedWords:
    """Source of words that people wrote down.

    Args:
        name: Its name.
        timer: Gives them their times.
        find: Looks for them.
        version: Version of what decides the times.
    """

    weights: Mapping[str, str] = {}
    licence = "Apache-2.0"

    def __init__(
        self,
        name: str,
        timer: WordTimer,
        *,
        find: Callable[[MediaClip], Transcript | Absent] = stated_words,
        version: str = "1",
    ) -> None:
        self.name, self.version = name, version
        self._timer, self._find = timer, find

    def words(self, clip: MediaClip) -> Words | Absent:
        """All spoken words.

        Raises:
            DataError: If the file or its transcript cannot be read; the message names it.
        """
        said = self._find(clip)
        return said if isinstance(said, Absent) else self._timer.words(clip, said)
