"""A corpus and a model so small that a whole run takes a second."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.contracts import Corpus, Role, Task
from alignmamba.data.archive import write_corpus

CLASSES = ("calm", "glad", "sad")
SETTINGS = (
    "fit.epochs=3",
    "fit.warmup_fraction=0.0",
    "options.d_model=16",
    "options.depth=1",
    "options.d_state=4",
    "loader.batch_size=8",
)
"""For ``--set``."""
CONFIG: dict[str, Any] = {
    "fit": {"epochs": 3, "warmup_fraction": 0.0},
    "options": {"d_model": 16, "depth": 1, "d_state": 4},
    "loader": {"batch_size": 8},
}
"""The same as values."""
SIZES: dict[Role, int] = {"train": 36, "valid": 12, "test": 14}
REFERENCES = {"best_reachable_accuracy": 1.0, "best_single_modality_accuracy": 0.5}


def write_small_corpus(
    path: Path,
    *,
    labelled: bool = True,
    sizes: Mapping[Role, int] = SIZES,
    seed: int = 0,
    kind: str = "classification",
    groups: int = 0,
) -> Corpus:
    """Text and audio that both shift with the label; audio is missing from every fifth sample. Samples are
    in turn of so many `groups` a split, if any.
    """
    random = np.random.default_rng(seed)
    splits: dict[Role, dict[str, Any]] = {}
    for role, size in sizes.items():
        labels = random.integers(0, len(CLASSES), size)
        targets = (
            [CLASSES[label] for label in labels]
            if kind == "classification"
            else [float(label) - 1 for label in labels]
        )
        splits[role] = {
            "features": {
                "text": [random.normal(label, 1, (int(random.integers(3, 7)), 4)) for label in labels],
                "audio": [
                    None if row % 5 == 0 else random.normal(-label, 1, (8, 2))
                    for row, label in enumerate(labels)
                ],
            },
            "targets": targets if labelled else None,
            "groups": [f"{role} {row % groups}" for row in range(size)] if groups else None,
        }
    task = (
        Task(kind="classification", classes=CLASSES)
        if kind == "classification"
        else Task(kind="regression", label_range=(-3, 3))
    )
    return write_corpus(
        path, splits, task=task, name="small", references=REFERENCES if kind == "classification" else {}
    )


def write_timed_corpus(path: Path, *, late: float = 0.0, recipe: Mapping[str, Any] = {}) -> Path:
    """Text and audio that last a second, the audio so many seconds after the text."""
    size, seconds = 12, np.linspace(0, 1, 3)
    splits: dict[Role, dict[str, Any]] = {
        role: {
            "features": {
                "text": [np.zeros((3, 2))] * size,
                "audio": [np.full((3, 2), row / size) for row in range(size)],
            },
            "times": {"text": [seconds] * size, "audio": [late + seconds] * size},
            "targets": [row % len(CLASSES) for row in range(size)],
        }
        for role in SIZES
    }
    write_corpus(path, splits, task=Task(kind="classification", classes=CLASSES), recipe=recipe)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file of a run, by column."""
    with path.open() as file:
        return list(csv.DictReader(file))
