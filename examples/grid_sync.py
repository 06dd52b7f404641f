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
from pathlib import Path

import numpy as np

from alignmamba import AlignMambaError, Corpus, SplitArrays, write_corpus
from grid import AUDIO_HZ, SOURCE, TICKS, UNITS, VIDEO_HZ, dealt, lips
from pairing import TASK, Dealer

FRAMES = 74
"""Frames of video of a sentence that sound covers too."""
DEALER = Dealer(shortest=30, longest=45, common=20, least=3, most=15)


def convert(source: Path, destination: Path, *, pieces: bool = False, overwrite: bool = False) -> Corpus:
    """Read the archive and write the corpus."""
    with np.load(source, allow_pickle=False) as archive:
        ids, audio, video = archive["id"], archive["audio_logmel"], archive["video"]
    mouths = [lips(each) for each in video]
    deal = DEALER.own_pieces if pieces else DEALER.same_stretch

    def split(rows: np.ndarray) -> SplitArrays:
        pairs = [(row, pair) for row in rows for pair in deal(FRAMES, np.random.default_rng([1, row]))]
        return SplitArrays(
            features={
                "audio": [pair.one.of(audio[row], TICKS).astype(np.float32) for row, pair in pairs],
                "video": [pair.other.of(mouths[row]) for row, pair in pairs],
            },
            targets=[pair.target for _, pair in pairs],
            ids=[f"{ids[row]}-{place % 4}" for place, (row, _) in enumerate(pairs)],
            groups=[str(ids[row]) for row, _ in pairs],
            times={
                "audio": [
                    pair.one.time / VIDEO_HZ + np.arange(TICKS * pair.one.length) / AUDIO_HZ
                    for _, pair in pairs
                ],
                "video": [(pair.other.time + np.arange(pair.other.length)) / VIDEO_HZ for _, pair in pairs],
            },
        )

    return write_corpus(
        destination,
        {role: split(rows) for role, rows in dealt(len(ids)).items()},
        task=TASK,
        name=f"grid-s1-sync{'-pieces' * pieces}",
        units=UNITS,
        source=SOURCE,
        overwrite=overwrite,
    )


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
