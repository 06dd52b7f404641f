"""Small corpora for the tests of this room."""

from typing import Any

import numpy as np

from alignmamba.contracts import ModalitySpec, Role, Sample, Split, Task
from alignmamba.data.memory_splits import MemorySplit

CLASSES = Task(kind="classification", classes=("sad", "glad"))
SCORE = Task(kind="regression", label_range=(-3.0, 3.0))

SOUND = ModalitySpec(name="sound", dim=3)
WORDS = ModalitySpec(name="words", dim=10, kind="tokens")


def arrays(role: str = "train") -> dict[str, Any]:
    """Four samples of two modalities; `sound` is missing from the second and `words` from the third."""
    random = np.random.default_rng(len(role))
    return {
        "ids": [f"{role}-{letter}" for letter in "abcd"],
        "targets": ["sad", 1, "glad", np.int64(0)],
        "features": {
            "sound": [
                random.normal(size=(5, 3)),
                None,
                random.normal(size=(2, 3)),
                random.normal(size=(4, 3)),
            ],
            "words": [np.array([1, 2]), np.array([9]), np.zeros(0, dtype=int), np.array([3, 3, 3])],
        },
        "times": {"sound": [np.linspace(0, 1, 5), None, None, np.array([0.0, 0.1, 0.1, 7.25])]},
        "tokens": {"words": [["oh", "no"], ["ünïcode ✓\n"], None, None]},
    }


def memory_split(
    lengths: list[tuple[int, int]],
    *,
    role: Role = "train",
    targets: bool = True,
    seed: int = 0,
    timed: bool = False,
) -> MemorySplit:
    """A split in memory with the given numbers of `sound` and `words` positions, 0 where missing."""
    random = np.random.default_rng(seed)
    samples = []
    for row, (sound, words) in enumerate(lengths):
        drawn: dict[str, np.ndarray] = {
            "sound": random.normal(size=(sound, 3)).astype(np.float32),
            "words": random.integers(0, 10, size=(words, 1)),
        }
        features = {name: values for name, values in drawn.items() if len(values)}
        samples.append(
            Sample(
                id=f"{role}-{row}",
                features=features,
                target=row % 2 if targets else None,
                times={name: np.arange(len(values), dtype=np.float64) for name, values in features.items()}
                if timed
                else {},
                tokens={"words": tuple(map(str, range(words)))} if timed and words else {},
            )
        )
    return MemorySplit(role=role, samples=tuple(samples), modalities=(SOUND, WORDS))


def as_arrays(split: Split, names: list[str]) -> dict[str, Any]:
    """A split as `write_corpus` takes it."""
    samples = list(split)
    return {
        "ids": [sample.id for sample in samples],
        "targets": [sample.target for sample in samples],
        "features": {name: [sample.features.get(name) for sample in samples] for name in names},
        "times": {name: [sample.times.get(name) for sample in samples] for name in names},
        "tokens": {name: [sample.tokens.get(name) for sample in samples] for name in names},
    }
