"""Turn ``grid_s1.npz`` (GRID: speaker s1 says 1000 sentences of six words) into a corpus that asks whether
voice and lips belong together.

Usage: ``python examples/grid_sync.py grid_s1.npz DESTINATION [--pieces]``

Modalities are those of ``grid.py``: ``audio`` (100 Hz, 40) and ``video`` (25 Hz, 360), with times in seconds
on one clock. The target is ``together``, or ``apart`` where the sound is .12 to .6 s early or late.

Without ``--pieces`` both cover the same stretch of a sentence, 1.2 to 1.8 s. With ``--pieces`` each covers a
stretch of its own, as recordings that were not begun together. They have .8 s or more in common, and only the
times say which.

Of each sentence there are four samples: two pieces of sound and two of lips, crossed, at the same times. So
whatever is known of one of them stands in as many that are together as apart.

The sentences are split as in ``grid.py``. Source of the data: Cooke, Barker, Cunningham, Shao, JASA 2006.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignmamba import AlignMambaError, Corpus, SplitArrays, Task, write_corpus
from grid import AUDIO_HZ, SOURCE, UNITS, VIDEO_HZ, dealt, lips

FRAMES = 74
"""Frames of video of a sentence that sound covers too."""
TICKS = round(AUDIO_HZ / VIDEO_HZ)
"""Vectors of audio to a frame of video."""
SHORTEST, LONGEST = 30, 45
"""Frames of a piece."""
COMMON = 20
"""Frames that two pieces have in common, at least."""
LEAST, MOST = 3, 15
"""Frames by which voice and lips of a sample are apart."""


@dataclass(frozen=True)
class Piece:
    """A part of a sentence, in frames."""

    place: int
    """Where it begins in the sentence."""
    time: int
    """When it begins by the clock."""
    length: int

    def of(self, tokens: np.ndarray, ticks: int = 1) -> np.ndarray:
        """(length, channel) out of a whole sentence that has so many tokens a frame."""
        return tokens[ticks * self.place : ticks * (self.place + self.length)]


@dataclass(frozen=True)
class Pair:
    """A piece of sound and one of lips."""

    sound: Piece
    lips: Piece

    @property
    def together(self) -> bool:
        """True if both are from one time where the clock says so."""
        return self.sound.place - self.sound.time == self.lips.place - self.lips.time


def convert(source: Path, destination: Path, *, pieces: bool = False, overwrite: bool = False) -> Corpus:
    """Read the archive and write the corpus."""
    with np.load(source, allow_pickle=False) as archive:
        ids, audio, video = archive["id"], archive["audio_logmel"], archive["video"]
    mouths = [lips(each) for each in video]

    def split(rows: np.ndarray) -> SplitArrays:
        pairs = [
            (row, pair)
            for row in rows
            for pair in (own_pieces if pieces else same_stretch)(np.random.default_rng([1, row]))
        ]
        return SplitArrays(
            features={
                "audio": [pair.sound.of(audio[row], TICKS).astype(np.float32) for row, pair in pairs],
                "video": [pair.lips.of(mouths[row]) for row, pair in pairs],
            },
            targets=["together" if pair.together else "apart" for _, pair in pairs],
            ids=[f"{ids[row]}-{place % 4}" for place, (row, _) in enumerate(pairs)],
            groups=[str(ids[row]) for row, _ in pairs],
            times={
                "audio": [
                    pair.sound.time / VIDEO_HZ + np.arange(TICKS * pair.sound.length) / AUDIO_HZ
                    for _, pair in pairs
                ],
                "video": [(pair.lips.time + np.arange(pair.lips.length)) / VIDEO_HZ for _, pair in pairs],
            },
        )

    return write_corpus(
        destination,
        {role: split(rows) for role, rows in dealt(len(ids)).items()},
        task=Task(kind="classification", classes=("apart", "together")),
        name=f"grid-s1-sync{'-pieces' * pieces}",
        units=UNITS,
        source=SOURCE,
        overwrite=overwrite,
    )


def same_stretch(random: np.random.Generator) -> Iterator[Pair]:
    """Pairs of a sentence that cover the same time: two pieces of each modality, crossed."""
    length = int(random.integers(SHORTEST, LONGEST + 1))
    places = two_places(random, length)
    for sound in places:
        for at in places:
            yield Pair(Piece(sound, 0, length), Piece(at, 0, length))


def own_pieces(random: np.random.Generator) -> Iterator[Pair]:
    """Pairs of a sentence whose sides begin and end apart: two pieces of each modality, crossed, the lips
    always as late.
    """
    while True:
        heard, watched = (int(each) for each in random.integers(SHORTEST, LONGEST + 1, size=2))
        places = two_places(random, heard)
        late = int(random.integers(COMMON - watched, heard - COMMON + 1))
        inside = all(0 <= at + late <= FRAMES - watched for at in places)
        if inside and min(heard, late + watched) - max(0, late) >= COMMON:
            break
    for sound in places:
        for at in places:
            yield Pair(Piece(sound, max(0, -late), heard), Piece(at + late, max(0, late), watched))


def two_places(random: np.random.Generator, length: int) -> tuple[int, int]:
    """Beginnings of two pieces of a sentence, in random order, that are far enough apart and not too far."""
    while True:
        one, other = (int(each) for each in random.integers(0, FRAMES - length + 1, size=2))
        if LEAST <= abs(one - other) <= MOST:
            return one, other


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn grid_s1.npz into a corpus of voices and lips.")
    parser.add_argument("source", type=Path, help="the archive grid_s1.npz")
    parser.add_argument("destination", type=Path, help="directory of the corpus to make")
    parser.add_argument(
        "--pieces", action="store_true", help="let voice and lips begin and end at times of their own"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the corpus that is there")
    given = parser.parse_args()
    try:
        corpus = convert(given.source, given.destination, pieces=given.pieces, overwrite=given.overwrite)
    except (AlignMambaError, OSError) as error:
        parser.error(str(error))
    print(
        f"wrote {given.destination}:"
        f" {', '.join(f'{role} {len(part)}' for role, part in corpus.splits.items())}"
    )
