"""One computational sequence: an HDF5 file of entries, each with features and intervals of time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.sequences.hdf5_process import Entry, HDF5Process, Structure


@dataclass(frozen=True, kw_only=True)
class ComputationalSequence:
    """One file: a modality, the labels or the words."""

    name: str
    path: Path
    process: HDF5Process
    structure: Structure
    lengths: Mapping[str, int]
    """Number of frames of each entry."""
    by_video: Mapping[str, tuple[str, ...]]
    """Its entries, ``video[2]`` before ``video[10]``."""
    width: int
    numbered: bool
    """True if any entry is called ``video[k]``."""

    @classmethod
    def of(cls, name: str, path: Path, process: HDF5Process, structure: Structure) -> "ComputationalSequence":
        """The sequence of an open file, once its entries are known to go together.

        Raises:
            DataError: If an entry has another layout or width than it should have, or none has features.
        """
        kind, is_words = ("words", True) if name == "words" else ("numbers", False)
        lengths: dict[str, int] = {}
        widths: dict[int, str] = {}
        by_video: dict[str, list[str]] = {}
        for key in sorted(structure.entries, key=_in_order):
            entry = structure.entries[key]
            lengths[key], width = _frames(path, key, entry)
            if lengths[key]:
                widths.setdefault(width, key)
            if (entry.dtype.kind == "S") != is_words:
                raise DataError(f"{path}: entry {key!r}: features: expected {kind}, found {entry.dtype}")
            by_video.setdefault(video_of_entry(key), []).append(key)
        if len(widths) > 1:
            (one, first), (other, second) = list(widths.items())[:2]
            raise DataError(f"{path}: entry {second!r}: expected width {one} as in {first!r}, found {other}")
        if not widths or 0 in widths:
            raise DataError(f"{path}: expected features, found none in any of {len(lengths)} entries")
        if is_words and 1 not in widths:
            raise DataError(f"{path}: expected one word a frame, found {next(iter(widths))}")
        return cls(
            name=name,
            path=path,
            process=process,
            structure=structure,
            lengths=lengths,
            by_video={video: tuple(keys) for video, keys in by_video.items()},
            width=next(iter(widths)),
            numbered=any("[" in key for key in lengths),
        )

    def features(self, entry: str, start: int, stop: int) -> np.ndarray:
        """Frames of an entry, (stop - start, width)."""
        declared = self.structure.entries[entry]
        if declared.intervals == (2,):  # its one frame has no axis of time
            start, stop = 0, declared.features[0]
        return self.process.read(self.path, entry, "features", start, stop).reshape(-1, self.width)

    def intervals(self, entry: str) -> np.ndarray:
        """Start and end of every frame of an entry in seconds, (frames, 2)."""
        length = self.lengths[entry]
        rows = 2 if self.structure.entries[entry].intervals == (2,) else length
        with np.errstate(over="ignore", invalid="ignore"):
            read = self.process.read(self.path, entry, "intervals", 0, rows)
            return read.reshape(length, 2).astype(np.float64)


def video_of_entry(entry: str) -> str:
    """The video of an entry, which may be a segment of it, ``video[k]``."""
    return entry.partition("[")[0]


def _in_order(entry: str) -> tuple[str, int, str]:
    """Sorts ``video[2]`` before ``video[10]``."""
    video, _, number = entry.partition("[")
    return video, int(number[:-1]) if number[:-1].isdecimal() and len(number) < 12 else -1, entry


def _frames(path: Path, name: str, entry: Entry) -> tuple[int, int]:
    """Number of frames and width of an entry; one frame may come as `features` (width,) and `intervals`
    (2,).
    """
    if entry.intervals == (2,) and len(entry.features) == 1:
        return 1, entry.features[0]
    if len(entry.intervals) != 2 or entry.intervals[1] != 2 or entry.features[0] != entry.intervals[0]:
        raise DataError(
            f"{path}: entry {name!r}: expected features (n, width) and intervals (n, 2), found"
            f" {entry.features} and {entry.intervals}"
        )
    return entry.features[0], entry.features[1] if len(entry.features) == 2 else 1
