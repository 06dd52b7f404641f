"""Computational sequences of the CMU-MultimodalSDK: `.csd` files (HDF5), one per modality and one of labels.

Layout of a file (mmsdk/mmdatasdk/computational_sequence/file_ops.py):

    /<root name>/data/<video or video[k]>/features    (frames, width)
                                         /intervals   (frames, 2) seconds from the start of the video
    /<root name>/metadata/<key>                       JSON

**Which file is what.** A source is a file, a folder of them, or `NAME=FILE`, which names its modality;
`labels=FILE` are the labels and `words=FILE` the words. Without a name the root name tells: one with "label"
in it holds the labels; "glove", "bert", "text", "vector" or "language" the text; "covarep", "coavarep",
"opensmile", "audio" or "acoustic" the audio; "facet", "openface", "visual", "vision" or "face" the vision. A
file of words (bytes, not numbers) gives the text its display tokens. Any other first file is the text, if no
other is; any other file takes its root name, and without labels so far one of width 1 is taken for them.

**Samples** are the segments of the label file: row k of `video` is the sample `video[k]`, and an entry that
is called `video[k]` there is one sample. Without labels they are the entries of the text, all in test if
nothing says their splits. From every other sequence a sample takes

- the entry of the very name of its own entry, whole, where there is one (files that the SDK has aligned
  already);
- else those frames of the entries of its video that overlap the segment by more than 10 microseconds, as in
  the SDK's `align`.

The time of a frame is the middle of its interval, cut to the segment, in seconds from the start of the
segment; frames are put in the order of these times. With `align`, every other sequence gets one vector for
each frame of the text: the plain mean over the frames that overlap it (the SDK's usual collapse function),
and zeros where there are none (the SDK's `impute`).

Values, intervals and words are read sample by sample: memory does not grow with the files, only with the
longest video.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignmamba.contracts import ROLES, Role, Task
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.folds import (
    NO_TEST,
    UNDIVIDED,
    FoldOptions,
    folds_beside,
    folds_path,
    read_folds,
    undivided,
    unused,
)
from alignmamba.formats.foreign import Faults, Foreign
from alignmamba.formats.plain_files import LazyRows, hinted
from alignmamba.formats.sequences.hdf5_process import Entry, HDF5Process, Structure

FORMAT = "csd"
SUMMARY = "CMU-MultimodalSDK computational sequences (.csd): one HDF5 file per modality and one of labels"

SHORTEST_SECONDS = 1e-5
"""Intervals and overlaps that are not longer count as empty (the SDK's `epsilon`)."""
SEEN_PER_FRAME = 20
"""Segments, or words, may overlap so much that each frame is taken this often, on average; more is
refused."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Root names of the SDK's standard files, in pieces; asked for in this order.
_HINTS = {
    "labels": ("label",),
    "text": ("glove", "bert", "text", "vector", "language"),
    "audio": ("covarep", "coavarep", "opensmile", "audio", "acoustic"),
    "vision": ("facet", "openface", "visual", "vision", "face"),
}
# Columns of CMU-MOSEI's "All Labels".
_SENTIMENT_AND_EMOTIONS = ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear")
_MOST_LABELS = 64
_SENTIMENT_RANGE = (-3.0, 3.0)


class Options(FoldOptions):
    """How computational sequences are to be read."""

    align: bool = False
    """One vector for each frame of the text, the mean over the frames that overlap it."""


def recognises(path: Path) -> bool:
    """Whether this is an HDF5 file, or a folder with `.csd` files in it; `NAME=FILE` is looked through."""
    try:
        _, path = hinted(path)
        if path.is_dir():
            return any(True for _ in path.glob("*.csd"))
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except (OSError, ValueError):
        return False


def files(path: Path) -> Sequence[Path]:
    """The file itself, or those of the folder, and the folds beside them."""
    _, path = hinted(path)
    return (
        [*sorted(path.glob("*.csd")), *folds_beside(path)]
        if path.is_dir()
        else [path, *folds_beside(path.parent)]
    )


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """Open the files of one corpus.

    Args:
        sources: One file per modality, and one of labels; see the module for how they are told apart.
        options: ``folds``, which may lie beside the first file as ``folds.json`` or ``folds.toml`` instead;
            ``label``, the name or number of the label's column.

    Raises:
        DataError: If a file is none, is damaged, or does not fit the others.
    """
    process = HDF5Process()
    opened = [(hint, path, process.open(path)) for hint, path in _files(sources)]
    roles = _roles(opened)
    folder = opened[0][1].parent
    is_undivided = undivided(options.folds, folder, labelled="labels" in roles)
    folds_file = folder if is_undivided else folds_path(options.folds, folder)
    folds = {} if is_undivided else read_folds(folds_file)
    faults = Faults()
    sequences = [
        _Sequence.of(name, path, structure)
        for (_, path, structure), name in zip(opened, roles, strict=True)
        if name not in ("labels", "words")
    ]
    named = {
        name: _Sequence.of(name, path, structure)
        for (_, path, structure), name in zip(opened, roles, strict=True)
        if name in ("labels", "words")
    }
    if not sequences:
        raise DataError(
            f"{opened[0][1]}: expected the sequence of at least one modality beside labels and words, found"
            " none; give the folder that all files of the corpus lie in"
        )
    anchor = next((sequence for sequence in sequences if sequence.name == "text"), sequences[0])
    clips = _Clips(process, sequences, anchor, named.get("words"), options, faults)
    if "labels" in named:
        segments, task, label_notes = _labelled(process, named["labels"], options.label, faults)
    else:
        segments, task, label_notes = (
            clips.unlabelled(),
            Task(kind="regression"),
            ["unlabelled: there is no file of labels"],
        )
    everything: dict[Role, list[_Segment]] = {"test": segments}
    by_role, fold_notes = (everything, [UNDIVIDED]) if is_undivided else _by_fold(segments, folds, folds_file)
    if not any(by_role.values()):
        raise DataError(
            f"{folds_file}: no sample is left: no segment of {anchor.path.name} and the other files is in a"
            " split"
        )
    metadata = anchor.structure.metadata
    return Foreign(
        format=FORMAT,
        name=_text(metadata.get("dataset name")) or (anchor.path.parent.name or "csd"),
        task=task,
        splits={role: clips.split(rows, targets="labels" in named) for role, rows in by_role.items() if rows},
        units={
            sequence.name: described
            for sequence in sequences
            if (described := _text(sequence.structure.metadata.get("computational sequence description")))
        },
        vocabulary_sizes={},
        source="CMU-MultimodalSDK: " + ", ".join(path.name for _, path, _ in opened),
        faults=faults,
        notes=(*clips.notes(), *label_notes, *fold_notes),
    )


def _text(given: Any) -> str:
    return " ".join(given.split())[:200] if isinstance(given, str) else ""


# Which file is what


def _files(sources: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    if not sources:
        raise DataError("csd: expected at least one file, found none")
    for source in sources:
        hint, path = hinted(Path(source))
        try:
            inside = sorted(path.glob("*.csd")) if path.is_dir() else [path]
        except (OSError, ValueError) as error:
            raise DataError(f"{str(path)!r}: cannot be read: {error}") from error
        if hint and len(inside) != 1:
            raise DataError(f"{path}: {hint}= names one file, found {len(inside)} in the folder")
        if not inside:
            raise DataError(f"{path}: expected .csd files in the folder, found none")
        for file in inside:
            yield hint, file


def _roles(opened: Sequence[tuple[str, Path, Structure]]) -> list[str]:
    """The modality of each file, or ``labels`` or ``words``."""
    names: list[str] = []
    for hint, _, structure in opened:
        root = structure.root.lower()
        known = next((name for name, pieces in _HINTS.items() if any(piece in root for piece in pieces)), "")
        names.append(hint or ("words" if _is_words(structure) else known))
    if "" in names and "text" not in names and names[0] == "":
        names[0] = "text"
    for row, (_, _, structure) in enumerate(opened):
        if names[row] == "":
            single = all(
                len(entry.features) == 1 or entry.features[-1] == 1 for entry in structure.entries.values()
            )
            names[row] = "labels" if single and "labels" not in names else _as_name(structure.root)
    for row, name in enumerate(names):
        if name in names[:row]:
            first = opened[names.index(name)][1]
            raise DataError(
                f"{opened[row][1]}: is taken for {name!r}, as {first} is; name one of them, for example"
                f" OTHER={opened[row][1].name}"
            )
    return names


def _as_name(root: str) -> str:
    """A root name as the name of a modality: a letter first, then letters, digits and `_`."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in root)
    return (plain if plain[:1].isalpha() else f"s{plain}")[:64]


def _is_words(structure: Structure) -> bool:
    return bool(structure.entries) and all(entry.dtype.kind == "S" for entry in structure.entries.values())


def _video(entry: str) -> str:
    return entry.partition("[")[0]


def _in_order(entry: str) -> tuple[str, int, str]:
    """Sorts `video[2]` before `video[10]`."""
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


@dataclass(frozen=True, kw_only=True)
class _Sequence:
    """One file: a modality, the labels or the words."""

    name: str
    path: Path
    structure: Structure
    lengths: Mapping[str, int]
    """Number of frames of each entry."""
    by_video: Mapping[str, tuple[str, ...]]
    width: int
    numbered: bool
    """Whether any entry is called `video[k]`."""

    @classmethod
    def of(cls, name: str, path: Path, structure: Structure) -> "_Sequence":
        lengths: dict[str, int] = {}
        widths: dict[int, str] = {}
        by_video: dict[str, list[str]] = {}
        for key in sorted(structure.entries, key=_in_order):
            entry = structure.entries[key]
            lengths[key], width = _frames(path, key, entry)
            if lengths[key]:
                widths.setdefault(width, key)
            if (entry.dtype.kind == "S") != (name == "words"):
                raise DataError(
                    f"{path}: entry {key!r}: features: expected {'words' if name == 'words' else 'numbers'},"
                    f" found {entry.dtype}"
                )
            by_video.setdefault(_video(key), []).append(key)
        if len(widths) > 1:
            (one, first), (other, second) = list(widths.items())[:2]
            raise DataError(f"{path}: entry {second!r}: expected width {one} as in {first!r}, found {other}")
        if not widths or 0 in widths:
            raise DataError(f"{path}: expected features, found none in any of {len(lengths)} entries")
        if name == "words" and 1 not in widths:
            raise DataError(f"{path}: expected one word a frame, found {next(iter(widths))}")
        return cls(
            name=name,
            path=path,
            structure=structure,
            lengths=lengths,
            by_video={video: tuple(keys) for video, keys in by_video.items()},
            width=next(iter(widths)),
            numbered=any("[" in key for key in lengths),
        )


# Segments, their labels and their splits


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """A sample to be."""

    id: str
    video: str
    start: float
    end: float
    entry: str | None
    """Name of the entry that the sample is, where it is one."""
    target: float = math.nan
    """Not a number where there are no labels."""
    others: Mapping[str, float] = field(default_factory=dict)
    """The other columns of the labels."""


def _labelled(
    process: HDF5Process, labels: _Sequence, wanted: str, faults: Faults
) -> tuple[list[_Segment], Task, list[str]]:
    path = labels.path
    names = _label_names(labels)
    column = _column(labels, names, wanted)
    name = names[column]
    others = (
        {other: at for at, other in enumerate(names) if at != column} if labels.width <= _MOST_LABELS else {}
    )
    told = f"{labels.structure.root} {name}".lower()
    known_range = _SENTIMENT_RANGE if column == 0 and ("sentiment" in told or "opinion" in told) else None
    rows = sum(labels.lengths.values())
    if rows > path.stat().st_size:
        raise DataError(
            f"{path}: declares {rows} segments, more than its {path.stat().st_size} bytes can hold"
        )
    if (
        labels.numbered
        and (plain := next((key for key in labels.lengths if "[" not in key), None)) is not None
    ):
        raise DataError(f"{path}: entry {plain!r}: expected a name like video[0], as of the other entries")
    segments: list[_Segment] = []
    for key, length in labels.lengths.items():
        if labels.numbered and length != 1:
            raise DataError(f"{path}: entry {key!r}: expected one label, found {length}")
        values, intervals = _whole(process, labels, key)
        for row in range(length):
            identity = key if labels.numbered else f"{key}[{row}]"
            start, end = intervals[row].tolist()
            value = float(values[row, column])
            if not (math.isfinite(start) and math.isfinite(end)):
                faults.add("not finite", where="intervals of the labels", done="segment dropped")
            elif end - start <= SHORTEST_SECONDS:
                faults.add("zero length", where="intervals of the labels", done="segment dropped")
            else:
                segment = _Segment(
                    id=identity,
                    video=_video(key),
                    start=start,
                    end=end,
                    entry=key if labels.numbered else None,
                    target=value,
                    others={other: _known(values[row, at]) for other, at in others.items()},
                )
                segments.append(segment)
    kept = (
        f"; {len(others)} others are kept as further labels"
        if others
        else f", which has {labels.width - 1} others"
    )
    notes = [
        f"The label is column {column} ({name}) of {path.name}" + (f"{kept}." if labels.width > 1 else ".")
    ]
    return segments, Task(kind="regression", label_range=known_range), notes


def _known(value: Any) -> float:
    return float(value) if math.isfinite(value) else math.nan


def _label_names(labels: _Sequence) -> list[str]:
    """The names of the columns of the labels, told apart where the file does not do it."""
    given = labels.structure.metadata.get("dimension names")
    if (
        isinstance(given, list)
        and len(given) == labels.width
        and all(isinstance(name, str) for name in given)
    ):
        names = [_text(name) for name in given]
    elif labels.width == len(_SENTIMENT_AND_EMOTIONS):
        names = list(_SENTIMENT_AND_EMOTIONS)
    else:
        names = [f"label {number}" for number in range(labels.width)]
    times = Counter(names)
    return [name if name and times[name] == 1 else f"{name or 'label'} {at}" for at, name in enumerate(names)]


def _column(labels: _Sequence, names: Sequence[str], wanted: str) -> int:
    if not wanted:
        return 0
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and len(wanted) < 9 and int(wanted) < labels.width:
        return int(wanted)
    raise DataError(
        f"{labels.path}: label {wanted!r}: expected one of {names} or a number below {labels.width}"
    )


def _by_fold(
    segments: Sequence[_Segment], folds: Mapping[str, Role], path: Path
) -> tuple[dict[Role, list[_Segment]], list[str]]:
    """The segments of each split, and what is to be said about the others. A fold names videos or single
    segments.
    """
    result: dict[Role, list[_Segment]] = {role: [] for role in ROLES}
    without: dict[str, int] = {}
    for segment in segments:
        named = segment.id if segment.id in folds else segment.video
        if named in folds:
            result[folds[named]].append(segment)
        else:
            without[segment.video] = without.get(segment.video, 0) + 1
    notes = []
    if without:
        notes.append(
            f"{sum(without.values())} segments of {len(without)} videos are in no split and were dropped,"
            f" {next(iter(without))!r} first." + ("" if result["test"] else NO_TEST)
        )
    return result, [
        *notes,
        *unused(folds, {name for segment in segments for name in (segment.id, segment.video)}, str(path)),
    ]


# Frames


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

    def overlapping(self, start: float, end: float) -> tuple[np.ndarray, int]:
        """Frames that overlap an interval, and how many were looked at."""
        low = int(np.searchsorted(self.reach, start, side="right"))
        high = int(np.searchsorted(self.starts, end, side="left"))
        overlap = np.minimum(self.ends[low:high], end) - np.maximum(self.starts[low:high], start)
        return low + np.flatnonzero(overlap > SHORTEST_SECONDS), max(high - low, 0)


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """Frames of a timeline that make up a clip, in the order of their times."""

    timeline: _Timeline
    index: np.ndarray
    times: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """What one sample has of one modality."""

    features: np.ndarray | None = None
    times: np.ndarray | None = None
    tokens: tuple[str, ...] | None = None


@dataclass
class _Clips:
    """Cuts clips out of the sequences; the last video and the last clip of each sequence are kept."""

    process: HDF5Process
    sequences: Sequence[_Sequence]
    anchor: _Sequence
    words: _Sequence | None
    options: Options
    faults: Faults
    _timelines: dict[str, tuple[tuple[str, ...], _Timeline]] = field(default_factory=dict)
    _clips: dict[str, tuple[str, _Clip]] = field(default_factory=dict)
    _examined: set[tuple[str, str]] = field(default_factory=set)
    _seen: int = 0
    _allowed: int = 0

    def __post_init__(self) -> None:
        # Frames are looked at once for the segments, and with `align` once for the words.
        passes = 2 if self.options.align else 1
        self._allowed = (
            passes * SEEN_PER_FRAME * sum(sum(sequence.lengths.values()) for sequence in self.sequences)
            + 1_000_000
        )

    def notes(self) -> list[str]:
        """What was done beside the repairs."""
        notes = []
        if self.options.align:
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

    def unlabelled(self) -> list[_Segment]:
        """The entries of the anchor as samples."""
        segments = []
        for key in self.anchor.lengths:
            timeline = self._timeline(self.anchor, (key,))
            start = float(timeline.starts.min(initial=math.inf))
            end = float(timeline.ends.max(initial=-math.inf))
            known = math.isfinite(start) and math.isfinite(end)
            segments.append(
                _Segment(
                    id=key,
                    video=_video(key),
                    start=start if known else 0.0,
                    end=end if known else 0.0,
                    entry=key,
                )
            )
        return segments

    def split(self, segments: Sequence[_Segment], *, targets: bool) -> SplitArrays:
        """The segments as a split that reads each clip when it is asked for."""
        return SplitArrays(
            features={
                sequence.name: self._rows(sequence, segments, "features") for sequence in self.sequences
            },
            targets=[segment.target for segment in segments] if targets else None,
            ids=[segment.id for segment in segments],
            groups=[segment.video for segment in segments],
            labels={name: [segment.others[name] for segment in segments] for name in segments[0].others},
            times={sequence.name: self._rows(sequence, segments, "times") for sequence in self.sequences},
            tokens={}
            if self.words is None
            else {self.anchor.name: self._rows(self.anchor, segments, "tokens")},
        )

    def _rows(
        self, sequence: _Sequence, segments: Sequence[_Segment], what: Literal["features", "times", "tokens"]
    ) -> LazyRows:
        return LazyRows(len(segments), lambda row: getattr(self.clip(sequence, segments[row]), what))

    def clip(self, sequence: _Sequence, segment: _Segment) -> _Clip:
        """What the sample has of a modality."""
        kept = self._clips.get(sequence.name)
        if kept is None or kept[0] != segment.id:
            kept = (segment.id, self._cut(sequence, segment))
            self._clips[sequence.name] = kept
        return kept[1]

    def _cut(self, sequence: _Sequence, segment: _Segment) -> _Clip:
        chosen = self._chosen(sequence, segment)
        if chosen is None:
            return _Clip()
        if self.options.align and sequence is not self.anchor:
            return self._aligned(sequence, segment, chosen)
        return _Clip(
            features=self._values(sequence, chosen.timeline, chosen.index),
            times=chosen.times,
            tokens=self._tokens(segment, chosen) if sequence is self.anchor else None,
        )

    def _aligned(self, sequence: _Sequence, segment: _Segment, chosen: _Chosen) -> _Clip:
        words = self._chosen(self.anchor, segment)
        if words is None:
            return _Clip()
        overlapping = self._overlaps(sequence, words, chosen)
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
        """Mean over frames. Where what is not finite is to be repaired, it is dropped from the mean, or the
        whole word would be lost.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(frames)
            if finite.all() or self.options.nonfinite in ("error", "keep"):
                return np.asarray(frames.mean(axis=0, dtype=np.float64))
            self.faults.add(
                "not finite",
                where=name,
                done="dropped from the mean over a word",
                count=int(np.count_nonzero(~finite)),
            )
            total = np.where(finite, frames, 0).sum(axis=0, dtype=np.float64)
            return np.asarray(total / np.maximum(np.count_nonzero(finite, axis=0), 1))

    def _overlaps(self, sequence: _Sequence, words: _Chosen, chosen: _Chosen) -> list[np.ndarray]:
        """For each frame of the text, the frames of another sequence that overlap it, within the segment or
        not.
        """
        found = []
        for frame in words.index:
            frames, seen = chosen.timeline.overlapping(
                float(words.timeline.starts[frame]), float(words.timeline.ends[frame])
            )
            self._look(sequence, seen)
            found.append(frames)
        return found

    def _chosen(self, sequence: _Sequence, segment: _Segment) -> _Chosen | None:
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
            index, seen = timeline.overlapping(segment.start, segment.end)
            self._look(sequence, seen)
            low = np.maximum(timeline.starts[index], segment.start)
            high = np.minimum(timeline.ends[index], segment.end)
        with np.errstate(over="ignore"):
            times = (low + high) / 2 - segment.start
        order = np.argsort(times, kind="stable")
        return _Chosen(timeline=timeline, index=index[order], times=times[order])

    def _look(self, sequence: _Sequence, seen: int) -> None:
        """Count frames that were looked at: hostile intervals could make them as many as frames times
        segments.
        """
        self._seen += seen
        if self._seen > self._allowed:
            raise DataError(
                f"{sequence.path}: segments overlap so much that each frame is in more than {SEEN_PER_FRAME}"
                " of them"
            )

    def _timeline(self, sequence: _Sequence, entries: tuple[str, ...]) -> _Timeline:
        kept = self._timelines.get(sequence.name)
        if kept is not None and kept[0] == entries:
            return kept[1]
        parts = [_intervals(self.process, sequence, entry) for entry in entries]
        intervals = np.concatenate(parts)
        number = np.repeat(np.arange(len(entries)), [len(part) for part in parts])
        row = np.concatenate([np.arange(len(part)) for part in parts])
        sound = np.isfinite(intervals).all(axis=1)
        for entry, part in zip(entries, parts, strict=True):
            self._examine(sequence, entry, part)
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

    def _examine(self, sequence: _Sequence, entry: str, intervals: np.ndarray) -> None:
        """Count what is wrong with an entry's intervals, once."""
        if (sequence.name, entry) in self._examined:
            return
        self._examined.add((sequence.name, entry))
        sound = np.isfinite(intervals).all(axis=1)
        self.faults.add(
            "not finite",
            where=f"intervals of {sequence.name}",
            done="frame dropped",
            count=int(np.count_nonzero(~sound)),
        )

    def _values(self, sequence: _Sequence, timeline: _Timeline, index: np.ndarray) -> np.ndarray:
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
            declared = sequence.structure.entries[name]
            if declared.intervals == (2,):
                start, stop = 0, declared.features[0]
            read = self.process.read(sequence.path, name, "features", start, stop).reshape(-1, sequence.width)
            parts.append(read[row[first:last] - int(row[first])])
        values = np.concatenate(parts)
        result = np.empty_like(values)
        result[order] = values
        return result

    def _tokens(self, segment: _Segment, chosen: _Chosen) -> tuple[str, ...] | None:
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


def _intervals(process: HDF5Process, sequence: _Sequence, entry: str) -> np.ndarray:
    length = sequence.lengths[entry]
    rows = 2 if sequence.structure.entries[entry].intervals == (2,) else length
    with np.errstate(over="ignore", invalid="ignore"):
        return process.read(sequence.path, entry, "intervals", 0, rows).reshape(length, 2).astype(np.float64)


def _whole(process: HDF5Process, sequence: _Sequence, entry: str) -> tuple[np.ndarray, np.ndarray]:
    declared = sequence.structure.entries[entry]
    rows = declared.features[0]
    values = process.read(sequence.path, entry, "features", 0, rows).reshape(
        sequence.lengths[entry], sequence.width
    )
    return values, _intervals(process, sequence, entry)
