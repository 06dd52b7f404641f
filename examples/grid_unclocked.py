"""Turn ``grid_s1.npz`` (GRID: speaker s1 says 1000 sentences of six words) into a corpus whose new recordings
have no clock: which word is spoken at each frame of the lips, where the sound began at another time?

Usage: ``python examples/grid_unclocked.py grid_s1.npz DESTINATION [--clock]``

Modalities and splits are those of ``grid.py``: ``video`` (25 Hz, 360) and ``audio`` (100 Hz, 40). Of the
sound of each sentence .8 s are missing, partly at its beginning and the rest at its end, drawn evenly.
Sentences of train have times in seconds on one clock, as recordings of a studio do. Those of valid and test
have none, but with ``--clock``, which shows what a clock would be worth.

Each frame of the video has the ``word`` spoken at it, or ``silence``.

Source of the data: Cooke, Barker, Cunningham, Shao, JASA 2006.
"""

import argparse
from pathlib import Path

import numpy as np

from alignmamba import AlignMambaError, Corpus, SplitArrays, Task, write_corpus
from grid import AUDIO_HZ, PLACE, SOURCE, TICKS, UNITS, VIDEO_HZ, WORDS, dealt, lips, words_at

MISSING_SECONDS = 0.8


def convert(source: Path, destination: Path, *, clock: bool = False, overwrite: bool = False) -> Corpus:
    """Read the archive and write the corpus, on request with a clock for all splits."""
    with np.load(source, allow_pickle=False) as archive:
        ids, audio, video = archive["id"], archive["audio_logmel"], archive["video"]
        spoken, spans = archive["words"], archive["word_times"]
    missing = round(MISSING_SECONDS * AUDIO_HZ)
    kept = audio.shape[1] - missing
    begins = [
        TICKS * int(np.random.default_rng([2, row]).integers(missing // TICKS + 1)) for row in range(len(ids))
    ]
    frames = np.arange(video.shape[1]) / VIDEO_HZ
    digits = WORDS["digit"]

    def split(rows: np.ndarray, *, timed: bool) -> SplitArrays:
        heard = [(begins[row] + np.arange(kept)) / AUDIO_HZ for row in rows]
        return SplitArrays(
            features={
                "video": [lips(video[row]) for row in rows],
                "audio": [audio[row][begins[row] : begins[row] + kept].astype(np.float32) for row in rows],
            },
            targets=[digits[ids[row][PLACE["digit"]]] for row in rows],
            ids=[str(ids[row]) for row in rows],
            times={"video": [frames] * len(rows), "audio": heard} if timed else {},
            token_labels={
                "video": {
                    "word": [
                        [word or "silence" for word in words_at(frames, spoken[row], spans[row])]
                        for row in rows
                    ]
                }
            },
        )

    return write_corpus(
        destination,
        {role: split(rows, timed=clock or role == "train") for role, rows in dealt(len(ids)).items()},
        task=Task(kind="classification", classes=tuple(digits.values())),
        name=f"grid-s1-{'late' if clock else 'unclocked'}",
        units=UNITS,
        source=SOURCE,
        overwrite=overwrite,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Turn grid_s1.npz into a corpus of recordings without a clock."
    )
    parser.add_argument("source", type=Path, help="the archive grid_s1.npz")
    parser.add_argument("destination", type=Path, help="directory of the corpus to make")
    parser.add_argument("--clock", action="store_true", help="give times to all sentences")
    parser.add_argument("--overwrite", action="store_true", help="replace the corpus that is there")
    given = parser.parse_args()
    try:
        corpus = convert(given.source, given.destination, clock=given.clock, overwrite=given.overwrite)
    except (AlignMambaError, OSError) as error:
        parser.error(str(error))
    print(
        f"wrote {given.destination}:"
        f" {', '.join(f'{role} {len(part)}' for role, part in corpus.splits.items())}"
    )
