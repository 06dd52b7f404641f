"""Times of words against those of the voice that says them: espeak-ng reports where each word begins.

Sentences with known words, invented words and numbers are spoken by espeak-ng, written as sound files, and
read by the source of words ``align``. Printed are errors of word starts, the share of sentences whose words
were all found, and the sentences whose times are wrong without a mark; then the same in noise, and the marks
of transcripts that do not belong to the sound.

Usage: ``python benchmarks/word_times.py [--sentences 200] [--seed 0]``

It needs the library of espeak-ng, for example of Debian's package ``espeak-ng``, and ``alignmamba[media]``.
"""

import argparse
import ctypes
import random
import re
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator, Sequence
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.errors import USER_INPUT, AlignMambaError, ConfigError
from alignmamba.media.clip import MediaClip
from alignmamba.media.extractor import NoOptions, WordSource
from alignmamba.media.readers import WORDS
from alignmamba.media.tracks import Words
from alignmamba.media.transcripts import shown_words

NEAR_SECONDS = 0.05
"""An error that is a tenth of a usual word, and half of a token at ten a second."""
ASTRAY_SECONDS = 0.25
"""A start that is further away lies in another word."""
VOICES = ("en-us", "en-us+m3", "en-us+f2", "en", "en-us+m7")
NOISES_DB = (20, 10, 5, 0)

PLAIN = (
    "I thought the story was a little slow, but the ending made up for it.",
    "She did not want to leave the house before the rain had stopped.",
    "My brother and I went to see it on a cold evening last winter.",
    "There is nothing better than a good cup of coffee in the morning.",
    "They told us that the train would leave later than usual.",
    "The actors were great, and the music was even better than the first time.",
    "Honestly, I would not watch this movie again for any money in the world.",
    "He opened the window, looked at the garden and started to laugh.",
    "We have been waiting for this moment since we were children.",
    "If you like surprises, this is the perfect place for you and your family.",
    "The children were running across the field with their little dog.",
    "Nobody knows why the teacher decided to change her mind.",
    "It was a strange and beautiful day, and everyone seemed to enjoy it.",
    "The soup was cold, the bread was hard and the waiter was rude.",
)
"""Sentences of words that every dictionary has."""
INVENTED = (
    "I met {} at the station and gave her the {} from the {} shop.",
    "The planet of {} is ruled by the {} and their cruel king.",
    "Everyone in {} was talking about the new {} that they had found.",
    "My favourite character is {}, because he never trusts the {}.",
    "We drove from {} to {} in the middle of a snow storm.",
    "The {} was broken, so we had to call a man named {}.",
)
NUMBERED = (
    "In {year} there were {small} people in the room and {small} of them were asleep.",
    "The score was {small} to {small} after {large} minutes of play.",
    "About {small}% of the {large} houses were built before {year}.",
    "We paid {large} for the {ordinal} ticket and {small} for the others.",
    "My {ordinal} film was made in {year} and it runs for {small} minutes.",
    "They sold {large} books in {year} and only {small} in the next spring.",
)
ONSETS = (
    "b",
    "bl",
    "ch",
    "d",
    "f",
    "fr",
    "gl",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "z",
)
VOWELS = ("a", "e", "i", "o", "u", "ee", "oo", "ai")
CODAS = ("", "b", "ck", "d", "l", "m", "n", "nt", "p", "r", "sh", "t", "x")


# Sentences


def sentences(count: int, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Kinds and sentences, in turn."""
    makers: dict[str, Callable[[], str]] = {
        "known words": lambda: chance.choice(PLAIN),
        "invented words": lambda: re.sub(r"\{\}", lambda _: invented(chance), chance.choice(INVENTED)),
        "numbers": lambda: re.sub(
            r"\{(\w+)\}", lambda slot: number(slot[1], chance), chance.choice(NUMBERED)
        ),
    }
    for place in range(count):
        kind = list(makers)[place % len(makers)]
        yield kind, f"{makers[kind]()} {chance.choice(PLAIN)}" if place % 4 == 0 else makers[kind]()


def invented(chance: random.Random) -> str:
    """A word that no dictionary has, of two or three syllables."""
    syllables = chance.randint(2, 3)
    return "".join(chance.choice(ONSETS) + chance.choice(VOWELS) for _ in range(syllables)) + chance.choice(
        CODAS
    )


def number(kind: str, chance: random.Random) -> str:
    """Digits as people write them."""
    value = {"year": (1900, 2029), "small": (2, 99), "large": (101, 4999), "ordinal": (4, 19)}[kind]
    drawn = chance.randint(*value)
    return {"ordinal": f"{drawn}th", "large": f"{drawn:,}"}.get(kind, str(drawn))


# The voice


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Utterance:
    """A spoken sentence."""

    kind: str
    text: str
    samples: np.ndarray
    """(time,) float32, full scale 1."""
    starts: tuple[float | None, ...]
    """Second at which each shown word begins; None where the voice reports no start of its own."""


class Voice:
    """espeak-ng, by its library.

    Raises:
        ConfigError: If the library or its voices are not installed.
    """

    _SYNCHRONOUS, _BY_CHARACTER, _UTF8, _RATE = 2, 1, 1, 1
    _END_OF_LIST, _WORD = 0, 1

    def __init__(self) -> None:
        name = find_library("espeak-ng")
        if name is None:
            raise ConfigError(
                "espeak-ng: found no library of it, expected it installed: apt install espeak-ng"
            )
        self._library = ctypes.CDLL(name)
        self.rate = self._library.espeak_Initialize(self._SYNCHRONOUS, 500, None, 0)
        if self.rate <= 0:
            raise ConfigError(
                "espeak-ng: found no data of voices, expected them installed beside its library"
            )
        self._sound: list[np.ndarray] = []
        self._words: list[tuple[int, int]] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
        )
        self._heard = kind(self._keep)  # kept: the library calls it
        self._library.espeak_SetSynthCallback(self._heard)

    def _keep(self, sound: Any, count: int, events: Any) -> int:
        if sound and count:
            self._sound.append(np.ctypeslib.as_array(sound, (count,)).copy())
        place = 0
        while events[place].type != self._END_OF_LIST:
            if events[place].type == self._WORD:
                self._words.append((events[place].text_position - 1, events[place].sample))
            place += 1
        return 0

    def say(self, kind: str, text: str, name: str, words_a_minute: int) -> Utterance:
        """Speak a sentence."""
        self._sound.clear()
        self._words.clear()
        if self._library.espeak_SetVoiceByName(name.encode()):
            raise ConfigError(f"espeak-ng: found no voice {name}, expected those of its data")
        self._library.espeak_SetParameter(self._RATE, words_a_minute, 0)
        content = text.encode() + b"\0"
        self._library.espeak_Synth(content, len(content), 0, self._BY_CHARACTER, 0, self._UTF8, None, None)
        samples = np.concatenate(self._sound).astype(np.float32) / 32768
        starts = []
        for word in re.finditer(r"\S+", text):
            own = [sample for place, sample in self._words if word.start() <= place < word.end()]
            starts.append(min(own) / self.rate if own else None)
        assert [word[0] for word in re.finditer(r"\S+", text)] == list(shown_words(text))
        return Utterance(kind, text, samples, tuple(starts))


def spoken(voice: Voice, count: int, seed: int) -> list[Utterance]:
    """Utterances by several voices at several speeds."""
    chance = random.Random(seed)
    return [
        voice.say(kind, text, VOICES[place % len(VOICES)], chance.randint(130, 190))
        for place, (kind, text) in enumerate(sentences(count, chance))
    ]


# Times that are found


@dataclass(frozen=True)
class Found:
    """An utterance as it was read."""

    errors: tuple[float, ...]
    """Seconds by which a start is found too late, for each word with a known one; none where times failed."""
    note: str
    """Marks of the reader; empty where it is sure of the times."""

    @property
    def is_complete(self) -> bool:
        """True if all words were found in the sound."""
        return bool(self.errors)

    @property
    def is_astray(self) -> bool:
        """True if words were found and one in ten lies elsewhere."""
        return self.is_complete and float(np.mean(np.abs(self.errors) > ASTRAY_SECONDS)) > 0.1


class Reader:
    """The source of words ``align``, which reads sound files.

    Args:
        folder: Place of the files.
        rate: Samples a second.
    """

    def __init__(self, folder: Path, rate: int) -> None:
        self._source: WordSource = WORDS["align"].make(None, NoOptions())
        self._path, self._rate = folder / "utterance.wav", rate

    def read(self, samples: np.ndarray, text: str, starts: Sequence[float | None] = ()) -> Found:
        """Times of the words of a text in sound; `starts` are the true ones, where they are known."""
        with wave.open(str(self._path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self._rate)
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        words = self._source.words(MediaClip(path=self._path, text=text))
        assert isinstance(words, Words)
        if words.timing == "spread":
            return Found((), "; ".join(words.notes))
        pairs = zip(words.words, starts or [0.0] * len(words.words), strict=False)
        errors = tuple(word.start - start for word, start in pairs if start is not None)
        return Found(errors, "; ".join(words.notes))


def noisy(samples: np.ndarray, decibels: float, noise: np.ndarray) -> np.ndarray:
    """Sound with noise at a ratio of their powers."""
    noise = np.resize(noise, len(samples))
    gain = np.sqrt(np.mean(samples**2) / np.mean(noise**2) / 10 ** (decibels / 10))
    mixed = samples + gain * noise
    return mixed / max(1.0, float(np.abs(mixed).max()))


def row(name: str, found: Sequence[Found]) -> str:
    """A row of the table of errors."""
    errors = np.abs([error for each in found for error in each.errors])
    whole = [each for each in found if each.is_complete]
    silent = sum(each.is_astray and not each.note for each in found)
    unmarked = sum(not each.is_complete and not each.note for each in found)
    shares = f"{1000 * np.median(errors):.0f} ms | {np.mean(errors < NEAR_SECONDS):.1%}" if whole else "|"
    doubted = sum(bool(each.note) for each in whole)
    return (
        f"| {name} | {sum(len(each.errors) for each in found)} | {shares} | {len(whole)} of {len(found)}"
        f" | {doubted} | {unmarked} | {silent} |"
    )


def true_times(reader: Reader, utterances: Sequence[Utterance]) -> None:
    """Print errors of word starts: by kind of sentence, then in noise."""
    print(
        "| sentences | words | median error | within 50 ms | complete | doubted"
        " | failed without a mark | astray without a mark |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    clean = [reader.read(each.samples, each.text, each.starts) for each in utterances]
    for kind in dict.fromkeys(each.kind for each in utterances):
        print(row(kind, [own for own, each in zip(clean, utterances, strict=True) if each.kind == kind]))
    print(row("all", clean), flush=True)
    generator = np.random.default_rng(0)
    hiss = generator.normal(size=1 << 20)
    size = max(len(each.samples) for each in utterances)
    babble = sum(
        np.roll(np.resize(each.samples, size), 997 * place) for place, each in enumerate(utterances[:8])
    )
    for name, noise in (("hiss", hiss), ("eight voices", np.asarray(babble))):
        for decibels in NOISES_DB:
            found = [
                reader.read(noisy(each.samples, decibels, noise), each.text, each.starts)
                for each in utterances
            ]
            print(row(f"all, {name} at {decibels} dB", found), flush=True)


def false_texts(reader: Reader, utterances: Sequence[Utterance]) -> None:
    """Print how many clips are marked whose transcript does not belong to the sound."""
    print("\n| sound and text | spread and marked | aligned and doubted | unmarked |\n|---|---|---|---|")
    chance = random.Random(1)
    hiss = np.random.default_rng(1).normal(size=1 << 20)
    tone = np.sin(2 * np.pi * 220 * np.arange(1 << 20) / 22_050)

    def other(each: Utterance) -> str:
        """A sentence that shares no half with this one."""
        return next(
            text
            for text in (chance.choice(utterances).text for _ in range(1000))
            if not {*text.split(". ")} & {*each.text.split(". ")}
        )

    def shuffled(each: Utterance) -> str:
        words = each.text.split()
        chance.shuffle(words)
        return " ".join(words)

    cases: dict[str, Callable[[Utterance], tuple[np.ndarray, str]]] = {
        "another sentence": lambda each: (each.samples, other(each)),
        "the words in another order": lambda each: (each.samples, shuffled(each)),
        "a sentence too many": lambda each: (each.samples, f"{each.text} {other(each)}"),
        "silence": lambda each: (np.zeros_like(each.samples), each.text),
        "hiss": lambda each: (0.1 * hiss[: len(each.samples)], each.text),
        "a tone": lambda each: (0.1 * tone[: len(each.samples)], each.text),
    }
    for name, case in cases.items():
        found = [reader.read(*case(each)) for each in utterances]
        spread = sum(not each.is_complete and bool(each.note) for each in found)
        doubted = sum(each.is_complete and bool(each.note) for each in found)
        print(f"| {name} | {spread} | {doubted} | {len(found) - spread - doubted} |", flush=True)


def main() -> int:
    """Measure, or say in one line what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        voice = Voice()
        utterances = spoken(voice, given.sentences, given.seed)
        with tempfile.TemporaryDirectory() as folder:
            reader = Reader(Path(folder), voice.rate)
            true_times(reader, utterances)
            false_texts(reader, utterances)
    except AlignMambaError as error:
        print(error, file=sys.stderr)
        return USER_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
