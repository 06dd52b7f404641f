"""Clips of samples, cut out of computational sequences by intervals; `csd` says which frames they take."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.foreign import Faults
from alignmamba.formats.plain_files import LazyRows
from alignmamba.formats.sequences.computational_sequence import ComputationalSequence, video_of_entry

SHORTEST_SECONDS = 1e-5
"""Intervals and overlaps that are not longer count as empty (the SDK's `epsilon`)."""
SEEN_PER_FRAME = 20
"""Segments, or words, may overlap so much that each frame is taken this often, on average; more is
refused."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A sample to be."""

    id: str
    video: str
    start: float
    end: float
    entry: str | None
    """Name of the entry that the sample is, where it is one."""
    target: float = math.nan
    """Label of each segment; NaN where there are no labels."""
    others: Mapping[str, float] = field(default_factory=dict)
    """The other columns of the labels."""


@dataclass(frozen=True, kw_only=True)
class _Timeline:
    """Frames of one sequence, in the order of their start."""

    starts: np.ndarray
    ends: np.ndarray
    reach: np.ndarray
    """Latest end up to each frame."""
    entries: tuple[str, ...]
    entry: np.ndarray
    """Number of the entry of each frame."""
    row: np.ndarray
    """Its row there."""


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """Frames of a timeline that make up a clip, in the order of their times."""

    timeline: _Timeline
    index: np.ndarray
    times: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """Data of one sample in one modality."""

    features: np.ndarray | None = None
    times: np.ndarray | None = None
    tokens: tuple[str, ...] | None = None


@dataclass
class Clips:
    """Cuts clips out of the sequences; the last video and the last clip of each sequence are kept."""

    sequences: Sequence[ComputationalSequence]
    anchor: ComputationalSequence
    words: ComputationalSequence | None
    align: bool
    """True if every other sequence gets one vector for each frame of the anchor."""
    keep_nonfinite: bool
    """True if a mean over frames takes in what is not finite; otherwise it is dropped from the mean, or the
    whole word would be lost.
    """
    faults: Faults
    _timelines: dict[str, tuple[tuple[str, ...], _Timeline]] = field(default_factory=dict)
    _clips: dict[str, tuple[str, _Clip]] = field(default_factory=dict)
    _examined: set[tuple[str, str]] = field(default_factory=set)
    _seen: int = 0
    _allowed: int = 0

    def __post_init__(self) -> None:
        # Frames are looked at once for the segments, and with `align` once for the words.
        passes = 2 if self.align else 1
        self._allowed = (
            passes * SEEN_PER_FRAME * sum(sum(sequence.lengths.values()) for sequence in self.sequences)
            + 1_000_000
        )

    def notes(self) -> list[str]:
        """Changes besides the repairs."""
        notes = []
        if self.align:
            notes.append(
                f"Every sequence was aligned to the frames of {self.anchor.name} by the mean over overlapping"
                " frames; where there are none, the vector is zero."
            )
        if self.words is not None:
            notes.append(
                f"Words of {self.words.path.name} are the display tokens of those frames of"
                f" {self.anchor.name} that have their interval."
            )
        return notes

    def unlabelled(self) -> list[Segment]:
        """The entries of the anchor as samples."""
        segments = []
        for key in self.anchor.lengths:
            timeline = self._timeline(self.anchor, (key,))  # of finite intervals, perhaps of none
            known = len(timeline.starts) > 0
            start = float(timeline.starts.min()) if known else 0.0
            end = float(timeline.ends.max()) if known else 0.0
            segments.append(Segment(id=key, video=video_of_entry(key), start=start, end=end, entry=key))
        return segments

    def split(self, segments: Sequence[Segment], *, targets: bool) -> SplitArrays:
        """The segments as a split that reads each clip when it is asked for."""
        words = {} if self.words is None else {self.anchor.name: self._rows(self.anchor, segments, "tokens")}
        return SplitArrays(
            features={each.name: self._rows(each, segments, "features") for each in self.sequences},
            targets=[segment.target for segment in segments] if targets else None,
            ids=[segment.id for segment in segments],
            groups=[segment.video for segment in segments],
            labels={name: [segment.others[name] for segment in segments] for name in segments[0].others},
            times={each.name: self._rows(each, segments, "times") for each in self.sequences},
            tokens=words,
        )

    def _rows(
        self,
        sequence: ComputationalSequence,
        segments: Sequence[Segment],
        what: Literal["features", "times", "tokens"],
    ) -> LazyRows:
        return LazyRows(len(segments), lambda row: getattr(self._clip(sequence, segments[row]), what))

    def _clip(self, sequence: ComputationalSequence, segment: Segment) -> _Clip:
        """Data of the sample in a modality."""
        kept = self._clips.get(sequence.name)
        if kept is None or kept[0] != segment.id:
            kept = (segment.id, self._cut(sequence, segment))
            self._clips[sequence.name] = kept
        return kept[1]

    def _cut(self, sequence: ComputationalSequence, segment: Segment) -> _Clip:
        chosen = self._chosen(sequence, segment)
        if chosen is None:
            return _Clip()
        if self.align and sequence is not self.anchor:
            return self._aligned(sequence, segment, chosen)
        return _Clip(
            features=self._values(sequence, chosen.timeline, chosen.index),
            times=chosen.times,
            tokens=self._tokens(segment, chosen) if sequence is self.anchor else None,
        )

    def _aligned(self, sequence: ComputationalSequence, segment: Segment, chosen: _Chosen) -> _Clip:
        words = self._chosen(self.anchor, segment)
        if words is None:
            return _Clip()
        moments = zip(words.timeline.starts[words.index], words.timeline.ends[words.index], strict=True)
        # Frames that overlap a word count, within the segment or not.
        overlapping = [self._overlapping(sequence, chosen.timeline, *moment) for moment in moments]
        if not any(map(len, overlapping)):
            return _Clip(features=np.empty((0, sequence.width)), times=np.empty(0))
        index = np.unique(np.concatenate(overlapping))
        values = self._values(sequence, chosen.timeline, index)
        features = np.zeros((len(overlapping), sequence.width))
        for row, frames in enumerate(overlapping):
            if len(frames):
                features[row] = self._mean(sequence.name, values[np.searchsorted(index, frames)])
        return _Clip(features=features, times=words.times)

    def _mean(self, name: str, frames: np.ndarray) -> np.ndarray:
        """The mean over frames, (width,)."""
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(frames)
            if finite.all() or self.keep_nonfinite:
                return np.asarray(frames.mean(axis=0, dtype=np.float64))
            self.faults.add(
                "not finite",
                where=name,
                done="dropped from the mean over a word",
                count=int(np.count_nonzero(~finite)),
            )
            total = np.where(finite, frames, 0).sum(axis=0, dtype=np.float64)
            return np.asarray(total / np.maximum(np.count_nonzero(finite, axis=0), 1))

    def _chosen(self, sequence: ComputationalSequence, segment: Segment) -> _Chosen | None:
        """The frames of a clip, perhaps none; nothing where the sequence does not have the video."""
        if segment.entry is not None and segment.entry in sequence.lengths:
            timeline = self._timeline(sequence, (segment.entry,))
            index = np.arange(len(timeline.starts))
            low, high = timeline.starts, timeline.ends
        elif (
            segment.entry is not None and "[" in segment.entry and sequence.numbered
        ) or segment.video not in sequence.by_video:
            return None
        else:
            timeline = self._timeline(sequence, sequence.by_video[segment.video])
            index = self._overlapping(sequence, timeline, segment.start, segment.end)
            low = np.maximum(timeline.starts[index], segment.start)
            high = np.minimum(timeline.ends[index], segment.end)
        with np.errstate(over="ignore"):
            times = (low + high) / 2 - segment.start
        order = np.argsort(times, kind="stable")
        return _Chosen(timeline=timeline, index=index[order], times=times[order])

    def _overlapping(
        self, sequence: ComputationalSequence, timeline: _Timeline, start: float, end: float
    ) -> np.ndarray:
        """Frames that overlap an interval. Those that are looked at are counted: hostile intervals could make
        them as many as frames times segments.
        """
        low = int(np.searchsorted(timeline.reach, start, side="right"))
        high = int(np.searchsorted(timeline.starts, end, side="left"))
        self._seen += max(high - low, 0)
        if self._seen > self._allowed:
            raise DataError(
                f"{sequence.path}: segments overlap too much: found each frame in more than {SEEN_PER_FRAME}"
                " of them"
            )
        ends, starts = timeline.ends[low:high], timeline.starts[low:high]
        overlap = np.minimum(ends, end) - np.maximum(starts, start)
        return low + np.flatnonzero(overlap > SHORTEST_SECONDS)

    def _timeline(self, sequence: ComputationalSequence, entries: tuple[str, ...]) -> _Timeline:
        kept = self._timelines.get(sequence.name)
        if kept is not None and kept[0] == entries:
            return kept[1]
        parts = [sequence.intervals(entry) for entry in entries]
        intervals = np.concatenate(parts)
        number = np.repeat(np.arange(len(entries)), [len(part) for part in parts])
        row = np.concatenate([np.arange(len(part)) for part in parts])
        sound = np.isfinite(intervals).all(axis=1)
        for at, entry in enumerate(entries):
            if (sequence.name, entry) not in self._examined:  # a timeline may be made several times
                self._examined.add((sequence.name, entry))
                lost = int(np.count_nonzero(~sound[number == at]))
                where = f"intervals of {sequence.name}"
                self.faults.add("not finite", where=where, done="frame dropped", count=lost)
        intervals, number, row = intervals[sound], number[sound], row[sound]
        order = np.argsort(intervals[:, 0], kind="stable")
        timeline = _Timeline(
            starts=intervals[order, 0],
            ends=intervals[order, 1],
            reach=np.maximum.accumulate(intervals[order, 1]),
            entries=entries,
            entry=number[order],
            row=row[order],
        )
        self._timelines[sequence.name] = (entries, timeline)
        return timeline

    def _values(self, sequence: ComputationalSequence, timeline: _Timeline, index: np.ndarray) -> np.ndarray:
        """Frames of a timeline, (len(index), width); of each entry the rows between the first and the last
        are read.
        """
        if len(index) == 0:
            return np.empty((0, sequence.width))
        order = np.lexsort((timeline.row[index], timeline.entry[index]))
        sorted_index = index[order]
        entry, row = timeline.entry[sorted_index], timeline.row[sorted_index]
        bounds = [0, *(np.flatnonzero(np.diff(entry)) + 1).tolist(), len(entry)]
        parts = []
        for first, last in pairwise(bounds):
            name = timeline.entries[entry[first]]
            start, stop = int(row[first]), int(row[last - 1]) + 1
            parts.append(sequence.features(name, start, stop)[row[first:last] - start])
        values = np.concatenate(parts)
        result = np.empty_like(values)
        result[order] = values
        return result

    def _tokens(self, segment: Segment, chosen: _Chosen) -> tuple[str, ...] | None:
        """The word of each frame of the text: the one that has the same interval, to a tenth of a
        millisecond.
        """
        said = None if self.words is None else self._chosen(self.words, segment)
        if self.words is None or said is None or len(said.index) == 0:
            return None
        written = self._values(self.words, said.timeline, said.index)[:, 0].tolist()
        known: dict[tuple[float, float], bytes] = {}
        for frame, word in zip(said.index, written, strict=True):
            known.setdefault(_moment(said.timeline, frame), word)
        found = [known.get(_moment(chosen.timeline, frame)) for frame in chosen.index]
        if all(word is None for word in found):
            return None
        return tuple("" if word is None else self._decoded(word) for word in found)

    def _decoded(self, word: bytes) -> str:
        try:
            return word.decode()
        except UnicodeDecodeError:
            self.faults.add("text that is not UTF-8", where="words", done="bytes replaced by U+FFFD")
            return word.decode(errors="replace")


def _moment(timeline: _Timeline, frame: int) -> tuple[float, float]:
    return round(float(timeline.starts[frame]), 4), round(float(timeline.ends[frame]), 4)
