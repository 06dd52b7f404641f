"""Clips of samples, cut out of computational sequences by intervals (docs/formats.md)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np

from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.foreign import Faults
from alignmamba.formats.plain_files import LazyRows
from alignmamba.formats.sequences.computational_sequence import (
    ComputationalSequence,
    Timeline,
    video_of_entry,
)

SHORTEST_SECONDS = 1e-5
"""Intervals and overlaps that are not longer count as empty (the SDK's `epsilon`)."""
SEEN_PER_FRAME = 20
"""Segments, or words, may overlap so much that each frame is taken this often, on average; more is
refused."""


@dataclass(frozen=True, kw_only=True, eq=False)
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


_Chosen = tuple[Timeline, np.ndarray, np.ndarray]
"""Frames of a timeline that make up a clip, in the order of their times: where they are in it, and the
times."""


class Clips:
    """Cuts clips out of the sequences; the last video and the last clip of each sequence are kept.

    Args:
        sequences: All modalities.
        anchor: The text.
        words: Its display tokens.
        align: Whether every other sequence gets one vector for each frame of the anchor.
        keep_nonfinite: Whether a mean over frames takes in what is not finite; otherwise it is dropped from
            the mean, or the whole word would be lost.
        faults: Where faults are counted.
    """

    def __init__(
        self,
        sequences: Sequence[ComputationalSequence],
        *,
        anchor: ComputationalSequence,
        words: ComputationalSequence | None,
        align: bool,
        keep_nonfinite: bool,
        faults: Faults,
    ) -> None:
        self._sequences, self._anchor, self._words = sequences, anchor, words
        self._align, self._keep_nonfinite, self._faults = align, keep_nonfinite, faults
        self._read = lru_cache(maxsize=len(sequences) + 1)(ComputationalSequence.timeline)
        self._counted: set[tuple[str, str]] = set()
        # Frames are looked at once for the segments, and with `align` once for the words.
        passes = 2 if align else 1
        frames = sum(sum(sequence.lengths.values()) for sequence in sequences)
        self._left = passes * SEEN_PER_FRAME * frames + 1_000_000

    def notes(self) -> list[str]:
        """Changes besides the repairs."""
        notes = []
        if self._align:
            notes.append(
                f"Every sequence was aligned to the frames of {self._anchor.name} by the mean over"
                " overlapping frames; where there are none, the vector is zero."
            )
        if self._words is not None:
            notes.append(
                f"Words of {self._words.path.name} are the display tokens of those frames of"
                f" {self._anchor.name} that have their interval."
            )
        return notes

    def unlabelled(self) -> list[Segment]:
        """The entries of the anchor as samples."""
        segments = []
        for key in self._anchor.lengths:
            timeline = self._timeline(self._anchor, (key,))  # of finite intervals, perhaps of none
            known = len(timeline.starts) > 0
            start, end = map(float, (timeline.starts[0], timeline.reach[-1]) if known else (0, 0))
            segments.append(Segment(id=key, video=video_of_entry(key), start=start, end=end, entry=key))
        return segments

    def split(self, segments: Sequence[Segment], *, targets: bool) -> SplitArrays:
        """The segments as a split that reads each clip when it is asked for."""
        cuts = {each.name: lru_cache(maxsize=1)(partial(self._cut, each)) for each in self._sequences}

        def rows(name: str, what: str) -> LazyRows:
            return LazyRows(len(segments), lambda row: cuts[name](segments[row]).get(what))

        return SplitArrays(
            features={name: rows(name, "features") for name in cuts},
            targets=[segment.target for segment in segments] if targets else None,
            ids=[segment.id for segment in segments],
            groups=[segment.video for segment in segments],
            labels={name: [segment.others[name] for segment in segments] for name in segments[0].others},
            times={name: rows(name, "times") for name in cuts},
            tokens={} if self._words is None else {self._anchor.name: rows(self._anchor.name, "tokens")},
        )

    def _cut(self, sequence: ComputationalSequence, segment: Segment) -> dict[str, Any]:
        """Features, times and tokens of the sample in a modality; empty where it lacks it."""
        chosen = self._chosen(sequence, segment)
        if chosen is None:
            return {}
        timeline, index, times = chosen
        if not self._align or sequence is self._anchor:
            tokens = self._tokens(segment, timeline, index) if sequence is self._anchor else None
            return {"features": sequence.values(timeline, index), "times": times, "tokens": tokens}
        words = self._chosen(self._anchor, segment)
        if words is None:
            return {}
        spoken, at, times = words
        # Frames that overlap a word count, within the segment or not.
        moments = zip(spoken.starts[at], spoken.ends[at], strict=True)
        overlapping = [self._overlapping(sequence, timeline, *moment) for moment in moments]
        if not any(map(len, overlapping)):
            return {"features": np.empty((0, sequence.width)), "times": np.empty(0)}
        index = np.unique(np.concatenate(overlapping))
        values = sequence.values(timeline, index)
        features = np.zeros((len(overlapping), sequence.width))
        for row, frames in enumerate(overlapping):
            if len(frames):
                features[row] = self._mean(sequence.name, values[np.searchsorted(index, frames)])
        return {"features": features, "times": times}

    def _mean(self, name: str, frames: np.ndarray) -> np.ndarray:
        """The mean over frames, (width,)."""
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(frames)
            if finite.all() or self._keep_nonfinite:
                return np.asarray(frames.mean(axis=0, dtype=np.float64))
            lost = int(np.count_nonzero(~finite))
            self._faults.add("not finite", where=name, done="dropped from the mean over a word", count=lost)
            total = np.where(finite, frames, 0).sum(axis=0, dtype=np.float64)
            return np.asarray(total / np.maximum(np.count_nonzero(finite, axis=0), 1))

    def _chosen(self, sequence: ComputationalSequence, segment: Segment) -> _Chosen | None:
        """The frames of a clip, perhaps none; nothing where the sequence does not have the video."""
        entry = segment.entry
        if entry is not None and entry in sequence.lengths:
            timeline = self._timeline(sequence, (entry,))
            index = np.arange(len(timeline.starts))
            low, high = timeline.starts, timeline.ends
        elif (entry is not None and "[" in entry and sequence.numbered) or (
            segment.video not in sequence.by_video
        ):
            return None
        else:
            timeline = self._timeline(sequence, sequence.by_video[segment.video])
            index = self._overlapping(sequence, timeline, segment.start, segment.end)
            low = np.maximum(timeline.starts[index], segment.start)
            high = np.minimum(timeline.ends[index], segment.end)
        with np.errstate(over="ignore"):
            times = (low + high) / 2 - segment.start
        order = np.argsort(times, kind="stable")
        return timeline, index[order], times[order]

    def _overlapping(
        self, sequence: ComputationalSequence, timeline: Timeline, start: float, end: float
    ) -> np.ndarray:
        """Frames that overlap an interval. Those that are looked at are counted: hostile intervals could make
        them as many as frames times segments.
        """
        low = int(np.searchsorted(timeline.reach, start, side="right"))
        high = int(np.searchsorted(timeline.starts, end, side="left"))
        self._left -= max(high - low, 0)
        if self._left < 0:
            raise DataError(
                f"{sequence.path}: segments overlap too much: found each frame in more than {SEEN_PER_FRAME}"
                " of them"
            )
        overlap = np.minimum(timeline.ends[low:high], end) - np.maximum(timeline.starts[low:high], start)
        return low + np.flatnonzero(overlap > SHORTEST_SECONDS)

    def _timeline(self, sequence: ComputationalSequence, entries: tuple[str, ...]) -> Timeline:
        timeline, dropped = self._read(sequence, entries)
        for entry, lost in zip(entries, dropped, strict=True):
            if lost and (sequence.name, entry) not in self._counted:  # a timeline is asked for several times
                self._counted.add((sequence.name, entry))
                where = f"intervals of {sequence.name}"
                self._faults.add("not finite", where=where, done="frame dropped", count=lost)
        return timeline

    def _tokens(self, segment: Segment, timeline: Timeline, index: np.ndarray) -> tuple[str, ...] | None:
        """The word of each frame of the text: the one that has the same interval, to a tenth of a
        millisecond.
        """
        chosen = None if self._words is None else self._chosen(self._words, segment)
        if self._words is None or chosen is None or len(chosen[1]) == 0:
            return None
        said, at, _ = chosen
        known: dict[tuple[float, float], bytes] = {}
        for frame, word in zip(at, self._words.values(said, at)[:, 0].tolist(), strict=True):
            known.setdefault(_moment(said, frame), word)
        found = [known.get(_moment(timeline, frame)) for frame in index]
        if all(word is None for word in found):
            return None
        return tuple("" if word is None else self._decoded(word) for word in found)

    def _decoded(self, word: bytes) -> str:
        try:
            return word.decode()
        except UnicodeDecodeError:
            self._faults.add("text that is not UTF-8", where="words", done="bytes replaced by U+FFFD")
            return word.decode(errors="replace")


def _moment(timeline: Timeline, frame: int) -> tuple[float, float]:
    return round(float(timeline.starts[frame]), 4), round(float(timeline.ends[frame]), 4)
