"""Computational sequences as the CMU-MultimodalSDK writes them (computational_sequence/file_ops.py), of small
random data.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Entries = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Name of an entry to its features and its intervals."""

VIDEOS = ("alpha", "beta", "gamma", "delta")
WORDS_PER_SEGMENT = 4
SEGMENTS = 3


def write_csd(
    path: Path,
    root: str,
    entries: Entries,
    *,
    metadata: Mapping[str, Any] | None = None,
    compression: str | None = "gzip",
) -> Path:
    """One `.csd` file."""
    options: dict[str, Any] = {} if compression is None else {"compression": compression}
    if compression == "gzip":
        options["compression_opts"] = 9
    with h5py.File(path, "w") as file:
        data = file.create_group(root).create_group("data")
        for name, (features, intervals) in entries.items():
            entry = data.create_group(name)
            entry.create_dataset("features", data=features, **options)
            entry.create_dataset("intervals", data=intervals, **options)
        described = file[root].create_group("metadata")
        for key, value in {"root name": root, "md5": "", **(metadata or {})}.items():
            described.create_dataset(key, (1,), dtype=h5py.special_dtype(vlen=str))[0] = json.dumps(value)
    return path


def frames(start: float, count: int, seconds: float) -> np.ndarray:
    """Consecutive intervals of equal length, (count, 2)."""
    edges = start + seconds * np.arange(count + 1)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def corpus(seed: int = 0) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Four videos of three segments of 2 s, 1 s apart; four words of 0.5 s in each; audio at 10 Hz and vision
    at 4 Hz throughout.

    `delta` has no vision.
    """
    random = np.random.default_rng(seed)
    text, spoken, audio, vision, labels = {}, {}, {}, {}, {}
    for video in VIDEOS:
        starts = [1.0 + 3.0 * segment for segment in range(SEGMENTS)]
        words = np.concatenate([frames(start, WORDS_PER_SEGMENT, 0.5) for start in starts])
        text[video] = (random.normal(size=(len(words), 6)), words)
        spoken[video] = (
            np.array([[f"{video}{row}".encode()] for row in range(len(words))], dtype="S32"),
            words,
        )
        audio[video] = (random.normal(size=(100, 5)).astype(np.float32), frames(0.0, 100, 0.1))
        if video != "delta":
            vision[video] = (random.normal(size=(40, 3)), frames(0.0, 40, 0.25))
        labels[video] = (
            random.uniform(-3, 3, size=(SEGMENTS, 1)).astype(np.float32),
            np.array([[start, start + 2.0] for start in starts]),
        )
    return {
        "glove_vectors": text,
        "words": spoken,
        "COVAREP": audio,
        "FACET_4.1": vision,
        "Opinion Segment Labels": labels,
    }


def write_corpus(
    folder: Path, *, without: tuple[str, ...] = (), compression: str | None = "gzip"
) -> list[Path]:
    """The files of `corpus`, and `folds.json`: two videos in train, one in valid and one in test."""
    write_folds(folder)
    return [
        write_csd(folder / f"{root.replace(' ', '_')}.csd", root, entries, compression=compression)
        for root, entries in corpus().items()
        if root not in without
    ]


def write_folds(folder: Path, **folds: list[str]) -> Path:
    """A file of ids per split."""
    path = folder / "folds.json"
    path.write_text(json.dumps(folds or {"train": ["alpha", "beta"], "valid": ["gamma"], "test": ["delta"]}))
    return path
