"""Turn ``utd_mhad.npz`` (UTD-MHAD: 27 actions by 8 people) into a corpus.

Usage: ``python examples/utd_mhad.py utd_mhad.npz DESTINATION [--groups]``

Odd subjects train, subject 7 of them is held out for validation, even subjects test. ``--groups`` makes the
recordings of a person a group, so that folds hold people whole. Three modalities of unequal length and rate:

- ``skeleton`` (30 Hz, 120): 20 joints relative to the hip and their velocities, in units of the person's
  torso length,
- ``inertial`` (50 Hz, 6): acceleration and rotation as measured,
- ``depth`` (30 Hz, 192): change of the share of occupied pixels in each cell of a 12 x 16 grid.

Positions are relative to the body and depth shows change alone, so that neither tells who moves or where they
stand.

Source of the data: Chen, Jafari, Kehtarnavaz, ICIP 2015; free for research.
"""

import argparse
from pathlib import Path

import numpy as np

from alignmamba import AlignMambaError, Corpus, SplitArrays, Task, write_corpus

SHOULDER_CENTRE, HIP_CENTRE = 1, 3
FRAMES_PER_SECOND = {"skeleton": 30.0, "inertial": 50.0, "depth": 30.0}
UNITS = {
    "skeleton": (
        "20 joints x 3 from the hip in torso lengths, then their change in torso lengths a second, at 30 Hz"
    ),
    "inertial": "acceleration in g (3), rotation in degrees a second (3), at 50 Hz",
    "depth": "change of occupied share a second in each of 12 x 16 cells, at 30 Hz",
}
SOURCE = "UTD-MHAD (Chen, Jafari, Kehtarnavaz, ICIP 2015)"
LICENCE = "free for research"
# fmt: off
ACTIONS = (
    "swipe left", "swipe right", "wave", "clap", "throw", "arms cross", "basketball shoot", "draw x",
    "draw circle clockwise", "draw circle counter-clockwise", "draw triangle", "bowling", "boxing",
    "baseball swing", "tennis swing", "arm curl", "tennis serve", "push", "knock", "catch",
    "pick up and throw", "jog", "walk", "sit to stand", "stand to sit", "lunge", "squat",
)
# fmt: on


def convert(
    source: Path,
    destination: Path,
    *,
    valid_subject: int = 7,
    groups: bool = False,
    overwrite: bool = False,
) -> Corpus:
    """Read the archive and write the corpus, with the samples of one odd subject for validation."""
    with np.load(source, allow_pickle=False) as archive:
        features = {
            "skeleton": [
                body_motion(joints) for joints in ragged(archive["skeleton"], archive["skeleton_len"])
            ],
            "inertial": ragged(archive["inertial"], archive["inertial_len"]),
            "depth": [
                occupancy_change(grid)
                for grid in ragged(archive["depth_occupancy12x16"], archive["depth_len"])
            ],
        }
        subject, action, trial = archive["subject"], archive["action"], archive["trial"]
    return write_corpus(
        destination,
        {
            role: split(rows, features, subject, action, trial, groups=groups)
            for role, rows in dealt(subject, valid_subject).items()
        },
        task=Task(kind="classification", classes=ACTIONS),
        name="utd-mhad",
        units=UNITS,
        source=SOURCE,
        licence=LICENCE,
        overwrite=overwrite,
    )


def dealt(subject: np.ndarray, valid_subject: int = 7) -> dict[str, np.ndarray]:
    """Rows of each split: odd subjects train but for the one that validates, even subjects test."""
    odd, valid = subject % 2 == 1, subject == valid_subject
    return {
        role: np.flatnonzero(chosen)
        for role, chosen in {"train": odd & ~valid, "valid": valid, "test": ~odd}.items()
    }


def split(
    rows: np.ndarray,
    features: dict[str, list[np.ndarray]],
    subject: np.ndarray,
    action: np.ndarray,
    trial: np.ndarray,
    *,
    groups: bool,
) -> SplitArrays:
    """The samples of one split."""
    return SplitArrays(
        features={name: [arrays[row] for row in rows] for name, arrays in features.items()},
        targets=[int(action[row]) - 1 for row in rows],
        ids=[f"a{action[row]}_s{subject[row]}_t{trial[row]}" for row in rows],
        times={
            name: [np.arange(len(arrays[row])) / FRAMES_PER_SECOND[name] for row in rows]
            for name, arrays in features.items()
        },
        groups=[f"subject {subject[row]}" for row in rows] if groups else None,
    )


def ragged(flat: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """One array per sample from all samples end to end."""
    return np.split(flat, np.cumsum(lengths)[:-1])


def body_motion(joints: np.ndarray) -> np.ndarray:
    """(time, 20, 3) metres to positions from the hip and velocities, (time, 120), in torso lengths."""
    torso = np.linalg.norm(joints[:, SHOULDER_CENTRE] - joints[:, HIP_CENTRE], axis=-1).mean()
    position = (joints - joints[:, HIP_CENTRE, None]) / torso
    velocity = np.gradient(joints / torso, axis=0) * FRAMES_PER_SECOND["skeleton"]
    return np.concatenate([position.reshape(len(joints), -1), velocity.reshape(len(joints), -1)], axis=1)


def occupancy_change(grid: np.ndarray) -> np.ndarray:
    """(time, 12, 16) occupied pixels out of 255 to its rate of change, (time, 192), in shares a second."""
    return np.gradient(grid.reshape(len(grid), -1) / 255.0, axis=0) * FRAMES_PER_SECOND["depth"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Turn utd_mhad.npz into an AlignMamba corpus.")
    parser.add_argument("source", type=Path, help="the archive utd_mhad.npz")
    parser.add_argument("destination", type=Path, help="directory of the corpus to make")
    parser.add_argument(
        "--groups",
        action="store_true",
        help="make the recordings of a person a group, which folds keep whole",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the corpus that is there")
    given = parser.parse_args()
    try:
        corpus = convert(given.source, given.destination, groups=given.groups, overwrite=given.overwrite)
    except (AlignMambaError, OSError) as error:
        parser.error(str(error))
    print(
        f"wrote {given.destination}:"
        f" {', '.join(f'{role} {len(part)}' for role, part in corpus.splits.items())}"
    )
