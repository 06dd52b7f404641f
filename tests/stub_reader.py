"""A reader of a made-up format, JSON, for tests of what all formats share; it notes which samples it was
asked for.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.contracts import Role, Task
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.foreign import Faults, Foreign, LabelOptions

FORMAT = "stub"
SUMMARY = "JSON, for tests"
Options = LabelOptions

asked: list[tuple[str, str, int]] = []
"""Split, modality and row of every array that was asked for, in order."""


class Rows(Sequence[Any]):
    """Arrays that are made when they are asked for."""

    def __init__(self, path: Path, role: str, name: str, rows: list[Any]) -> None:
        self.path, self.role, self.name, self.rows = path, role, name, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: Any) -> Any:
        asked.append((self.role, self.name, row))
        given = self.rows[row]
        if given is None or given == []:
            return given
        try:
            integers = all(isinstance(value, int) for value in given)
            return np.array(given, dtype=np.int64 if integers else np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(
                f"{self.path}: split {self.role!r}, modality {self.name!r}, row {row}: expected numbers"
            ) from error


def recognises(path: Path) -> bool:
    """True if the file starts as `content` begins it."""
    try:
        with path.open("rb") as file:
            return file.read(8) == b'{"stub":'
    except OSError:
        return False


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """The content of the one file."""
    del options
    path = sources[0]
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict) or not isinstance(content.get("splits"), dict) or not content["splits"]:
        raise DataError(f"{path}: splits: expected a mapping")
    splits: dict[Role, SplitArrays] = {}
    for role, split in content["splits"].items():
        if not isinstance(split, dict) or not isinstance(split.get("features"), dict):
            raise DataError(f"{path}: split {role!r}: features: expected a mapping")
        for name, rows in {
            **split["features"],
            "targets": split.get("targets", []),
            "ids": split.get("ids", []),
        }.items():
            if not isinstance(rows, list):
                raise DataError(f"{path}: split {role!r}: {name}: expected a list")
        if not all(isinstance(identity, str) for identity in split.get("ids", [])):
            raise DataError(f"{path}: split {role!r}: ids: expected text")
        splits[role] = SplitArrays(
            features={name: Rows(path, role, name, rows) for name, rows in split["features"].items()},
            targets=split.get("targets"),
            ids=split.get("ids"),
            times={
                name: [None if each is None else np.array(each) for each in rows]
                for name, rows in split.get("times", {}).items()
            },
            tokens=split.get("tokens", {}),
        )
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=Task(kind="regression", label_range=(-3, 3)),
        splits=splits,
        units={},
        vocabulary_sizes={},
        source="made up",
        faults=Faults(),
        notes=("All of it was kept.",),
    )


def content(*, size: int = 6, seed: int = 0) -> dict[str, Any]:
    """Content of a file: train, valid and test with `audio` of width 3 and the token ids `text`, nothing
    wrong with it.
    """
    random = np.random.default_rng(seed)

    def split(role: str) -> dict[str, Any]:
        lengths = random.integers(1, 6, size)
        return {
            "features": {
                "audio": [random.normal(size=(length, 3)).astype(np.float32).tolist() for length in lengths],
                "text": [random.integers(0, 9, length + 1).tolist() for length in lengths],
            },
            "targets": random.uniform(-3, 3, size).tolist(),
            "ids": [f"{role}$_${row}" for row in range(size)],
            "times": {"audio": [np.arange(length).tolist() for length in lengths]},
            "tokens": {"text": [[f"w{at}" for at in range(length + 1)] for length in lengths]},
        }

    return {"stub": 1, "splits": {role: split(role) for role in ("train", "valid", "test")}}


def write(path: Path, given: dict[str, Any]) -> Path:
    """Write a file."""
    path.write_text(json.dumps(given, separators=(",", ":")))
    return path
