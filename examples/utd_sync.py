"""Turn ``utd_mhad.npz`` (UTD-MHAD: 27 actions by 8 people) into a corpus that asks whether a body and a depth
picture belong together.

Usage: ``python examples/utd_sync.py utd_mhad.npz DESTINATION [--pieces]``

Modalities are those of ``utd_mhad.py``: ``skeleton`` (30 Hz, 120) and ``depth`` (30 Hz, 192), with times in
seconds on one clock. The target is ``together``, or ``apart`` where the body moves .2 to .6 s early or late.

Without ``--pieces`` both cover the same stretch of a recording, .67 to 1 s. With ``--pieces`` each covers a
stretch of its own, as recordings that were not begun together. They have .47 s or more in common, and only
the times say which.

Each recording gives four pairs of pieces, crossed as ``pairing.py`` says, and one of train gives three such
fours. People are split as in ``utd_mhad.py``. Source of the data: Chen, Jafari, Kehtarnavaz, ICIP 2015; free
for research.
"""

import argparse
from pathlib import Path

import numpy as np

from alignmamba import AlignMambaError, Corpus, SplitArrays, write_corpus
from pairing import TASK, Dealer
from utd_mhad import FRAMES_PER_SECOND, LICENCE, SOURCE, UNITS, body_motion, dealt, occupancy_change, ragged

DEALER = Dealer(shortest=20, longest=30, common=14, least=6, most=18)
FOURS = {"train": 3, "valid": 1, "test": 1}
"""Times that pieces are drawn of a recording."""


def convert(source: Path, destination: Path, *, pieces: bool = False, overwrite: bool = False) -> Corpus:
    """Read the archive and write the corpus."""
    with np.load(source, allow_pickle=False) as archive:
        bodies = [body_motion(joints) for joints in ragged(archive["skeleton"], archive["skeleton_len"])]
        depths = [
            occupancy_change(grid) for grid in ragged(archive["depth_occupancy12x16"], archive["depth_len"])
        ]
        action, subject, trial = archive["action"], archive["subject"], archive["trial"]
    deal = DEALER.own_pieces if pieces else DEALER.same_stretch

    def split(rows: np.ndarray, fours: int) -> SplitArrays:
        pairs = [
            (row, f"a{action[row]}_s{subject[row]}_t{trial[row]}-{4 * four + place}", pair)
            for row in rows
            for four in range(fours)
            for place, pair in enumerate(deal(len(bodies[row]), np.random.default_rng([1, row, four])))
        ]
        return SplitArrays(
            features={
                "skeleton": [pair.one.of(bodies[row]) for row, _, pair in pairs],
                "depth": [pair.other.of(depths[row]) for row, _, pair in pairs],
            },
            targets=[pair.target for _, _, pair in pairs],
            ids=[identity for _, identity, _ in pairs],
            groups=[f"subject {subject[row]}" for row, _, _ in pairs],
            times={
                name: [(piece.time + np.arange(piece.length)) / FRAMES_PER_SECOND[name] for piece in those]
                for name, those in {
                    "skeleton": [pair.one for _, _, pair in pairs],
                    "depth": [pair.other for _, _, pair in pairs],
                }.items()
            },
        )

    return write_corpus(
        destination,
        {role: split(rows, FOURS[role]) for role, rows in dealt(subject).items()},
        task=TASK,
        name=f"utd-sync{'-pieces' * pieces}",
        units={name: UNITS[name] for name in ("skeleton", "depth")},
        source=SOURCE,
        licence=LICENCE,
        overwrite=overwrite,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn utd_mhad.npz into a corpus of bodies and pictures.")
    parser.add_argument("source", type=Path, help="the archive utd_mhad.npz")
    parser.add_argument("destination", type=Path, help="directory of the corpus to make")
    parser.add_argument(
        "--pieces", action="store_true", help="let body and picture begin and end at times of their own"
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
