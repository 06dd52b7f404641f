"""One computational sequence: an HDF5 file of entries, each with features and intervals of time."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.sequences.hdf5_process import HDF5Array, Structure


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Frames of one or several entries, in the order of their start."""

    starts: np.ndarray
    ends: np.ndarray
    reach: np.ndarray
    """Latest end up to each frame."""
    entries: tuple[str, ...]
    entry: np.ndarray
    """Number of the entry of each frame."""
    row: np.ndarray
    """Its row there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ComputationalSequence:
    """One file: a modality, the labels or the words."""

    name: str
    structure: Structure
    lengths: Mapping[str, int]
    """Number of frames of each entry."""
    by_video: Mapping[str, tuple[str, ...]]
    """Its entries, ``video[2]`` before ``video[10]``."""
    width: int
    numbered: bool
    """True if any entry is called ``video[k]``."""

    @classmethod
    def of(cls, name: str, structure: Structure) -> "ComputationalSequence":
        """The sequence of an open file, once its entries are known to go together.

        Raises:
            DataError: If an entry has another layout or width than it should have, or none has features.
        """
        path, kind = structure.path, "words" if name == "words" else "numbers"
        lengths: dict[str, int] = {}
        widths: dict[int, str] = {}
        by_video: dict[str, list[str]] = {}
        for key in sorted(structure.entries, key=_in_order):
            features, intervals = structure.entries[key]
            lengths[key], width = _frames(f"{path}: entry {key!r}", features, intervals)
            if lengths[key]:
                widths.setdefault(width, key)
            if (features.dtype.kind == "S") != (kind == "words"):
                raise DataError(f"{path}: entry {key!r}: features: expected {kind}, found {features.dtype}")
            by_video.setdefault(video_of_entry(key), []).append(key)
        if len(widths) > 1:
            (one, first), (other, second) = list(widths.items())[:2]
            raise DataError(f"{path}: entry {second!r}: expected width {one} as in {first!r}, found {other}")
        width = next(iter(widths), 0)
        if width == 0:
            raise DataError(f"{path}: expected features, found none in any of {len(lengths)} entries")
        if kind == "words" and width != 1:
            raise DataError(f"{path}: expected one word a frame, found {width}")
        return cls(
            name=name,
            structure=structure,
            lengths=lengths,
            by_video={video: tuple(keys) for video, keys in by_video.items()},
            width=width,
            numbered=any("[" in key for key in lengths),
        )

    @property
    def path(self) -> Path:
        """The file."""
        return self.structure.path

    def features(self, entry: str, start: int, stop: int) -> np.ndarray:
        """Frames of an entry, (stop - start, width)."""
        features, intervals = self.structure.entries[entry]
        if intervals.shape == (2,):  # its one frame has no axis of time
            start, stop = 0, len(features)
        return features[start:stop].reshape(-1, self.width)

    def intervals(self, entry: str) -> np.ndarray:
        """Start and end of every frame of an entry in seconds, (frames, 2)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.structure.entries[entry][1][:].reshape(-1, 2).astype(np.float64)

    def timeline(self, entries: tuple[str, ...]) -> tuple[Timeline, list[int]]:
        """The frames of entries, and how many of each were dropped, for their interval is not finite."""
        parts = [self.intervals(entry) for entry in entries]
        intervals = np.concatenate(parts)
        number = np.repeat(np.arange(len(entries)), [len(part) for part in parts])
        row = np.concatenate([np.arange(len(part)) for part in parts])
        finite = np.isfinite(intervals).all(axis=1)
        sound = np.flatnonzero(finite)
        order = sound[np.argsort(intervals[sound, 0], kind="stable")]
        timeline = Timeline(
            starts=intervals[order, 0],
            ends=intervals[order, 1],
            reach=np.maximum.accumulate(intervals[order, 1]),
            entries=entries,
            entry=number[order],
            row=row[order],
        )
        return timeline, np.bincount(number[~finite], minlength=len(entries)).tolist()

    def values(self, timeline: Timeline, index: np.ndarray) -> np.ndarray:
        """Frames of a timeline, (len(index), width); of each entry the rows between the first and the last
        are read.
        """
        if len(index) == 0:
            return np.empty((0, self.width))
        order = np.lexsort((timeline.row[index], timeline.entry[index]))
        entry, row = timeline.entry[index[order]], timeline.row[index[order]]
        bounds = [0, *(np.flatnonzero(np.diff(entry)) + 1).tolist(), len(entry)]
        parts = []
        for first, last in pairwise(bounds):
            start, stop = int(row[first]), int(row[last - 1]) + 1
            read = self.features(timeline.entries[entry[first]], start, stop)
            parts.append(read[row[first:last] - start])
        values = np.concatenate(parts)
        result = np.empty_like(values)
        result[order] = values
        return result


def video_of_entry(entry: str) -> str:
    """The video of an entry, which may be a segment of it, ``video[k]``."""
    return entry.partition("[")[0]


def _in_order(entry: str) -> tuple[str, int, str]:
    """Sorts ``video[2]`` before ``video[10]``."""
    video, _, number = entry.partition("[")
    return video, int(number[:-1]) if number[:-1].isdecimal() and len(number) < 12 else -1, entry


def _frames(place: str, features: HDF5Array, intervals: HDF5Array) -> tuple[int, int]:
    """Number of frames and width of an entry; one frame may come as `features` (width,) and `intervals`
    (2,).
    """
    if intervals.shape == (2,) and features.ndim == 1:
        return 1, len(features)
    if intervals.shape[1:] != (2,) or len(features) != len(intervals):
        raise DataError(
            f"{place}: expected features (n, width) and intervals (n, 2), found {features.shape} and"
            f" {intervals.shape}"
        )
    return len(features), features.shape[1] if features.ndim == 2 else 1
