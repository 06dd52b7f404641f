"""Computational sequences of the CMU-MultimodalSDK: `.csd` files (HDF5), one per modality and one of labels.

Layout of a file (mmsdk/mmdatasdk/computational_sequence/file_ops.py):

    /<root name>/data/<video or video[k]>/features    (frames, width)
                                         /intervals   (frames, 2) seconds from the start of the video
    /<root name>/metadata/<key>                       JSON

`docs/formats.md` says which file is what, and which frames a sample takes. Values, intervals and words are
read sample by sample: memory does not grow with the files, only with the longest video.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.contracts import ROLES, Role, Task
from alignmamba.errors import DataError
from alignmamba.formats.folds import FoldOptions, folds_beside, left_out, roles_by_folds
from alignmamba.formats.foreign import Faults, Foreign
from alignmamba.formats.label_names import EMOTIONS, column_of
from alignmamba.formats.plain_files import hinted
from alignmamba.formats.sequences.computational_sequence import ComputationalSequence, video_of_entry
from alignmamba.formats.sequences.csd_clips import SHORTEST_SECONDS, Clips, Segment
from alignmamba.formats.sequences.hdf5_process import HDF5Process, Structure
from alignmamba.formats.sequences.modality_names import as_modality, told_by

FORMAT = "csd"
SUMMARY = "CMU-MultimodalSDK computational sequences (.csd): one HDF5 file per modality and one of labels"

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Root names of the SDK's standard files, in pieces; asked for in this order.
_HINTS = (
    ("labels", "label"),
    ("text", "glove|bert|text|vector|language"),
    ("audio", "covarep|coavarep|opensmile|audio|acoustic"),
    ("vision", "facet|openface|visual|vision|face"),
)
_DESCRIPTION = "computational sequence description"
# Columns of CMU-MOSEI's "All Labels".
_SENTIMENT_AND_EMOTIONS = ("sentiment", *EMOTIONS)
_MOST_LABELS = 64
_SENTIMENT_RANGE = (-3.0, 3.0)


class Options(FoldOptions):
    """Options to read computational sequences."""

    align: bool = False
    """Average the frames of every modality over each frame of the text."""


def recognises(path: Path) -> bool:
    """Return whether this is an HDF5 file, or a folder with `.csd` files in it."""
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
    own, folder = (sorted(path.glob("*.csd")), path) if path.is_dir() else ([path], path.parent)
    return [*own, *folds_beside(folder)]


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """Open the files of one corpus: one for each modality, and one of labels."""
    process = HDF5Process()
    opened = [(hint, process.open(path)) for hint, path in _files(sources)]
    parts = {
        name: ComputationalSequence.of(name, structure)
        for (_, structure), name in zip(opened, _roles(opened), strict=True)
    }
    labels, words = parts.pop("labels", None), parts.pop("words", None)
    first = opened[0][1].path
    if not parts:
        raise DataError(
            f"{first}: expected a sequence besides labels and words, found none; give the folder with"
            " all files of the corpus"
        )
    sequences, faults = list(parts.values()), Faults()
    anchor = parts.get("text", sequences[0])
    clips = Clips(
        sequences,
        anchor=anchor,
        words=words,
        align=options.align,
        keep_nonfinite=options.nonfinite in ("error", "keep"),
        faults=faults,
    )
    if labels is not None:
        segments, task, notes = _labelled(labels, options.first_label, faults)
    else:
        segments, task = clips.unlabelled(), Task(kind="regression")
        notes = ["unlabelled: there is no file of labels"]
    by_role, fold_notes = _by_role(
        segments, options.folds, anchor.path, first.parent, labelled=labels is not None
    )
    metadata = anchor.structure.metadata
    units = {each.name: _text(each.structure.metadata.get(_DESCRIPTION)) for each in sequences}
    return Foreign(
        format=FORMAT,
        name=_text(metadata.get("dataset name")) or (anchor.path.parent.name or "csd"),
        task=task,
        splits={role: clips.split(rows, targets=labels is not None) for role, rows in by_role.items()},
        units={name: unit for name, unit in units.items() if unit},
        vocabulary_sizes={},
        source="CMU-MultimodalSDK: " + ", ".join(structure.path.name for _, structure in opened),
        faults=faults,
        notes=(*clips.notes(), *notes, *fold_notes),
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


def _roles(opened: Sequence[tuple[str, Structure]]) -> list[str]:
    """The modality of each file, or ``labels`` or ``words``."""
    names = [
        hint or ("words" if _is_words(structure) else told_by(structure.root, _HINTS))
        for hint, structure in opened
    ]
    if names[0] == "" and "text" not in names:
        names[0] = "text"
    for row, (_, structure) in enumerate(opened):
        if names[row] == "":
            single = all(features.shape[1:] in ((), (1,)) for features, _ in structure.entries.values())
            names[row] = "labels" if single and "labels" not in names else as_modality(structure.root)
        if names[row] in names[:row]:
            first, path = opened[names.index(names[row])][1].path, structure.path
            raise DataError(
                f"{path}: is taken for {names[row]!r}, as {first} is; name one of them, for example"
                f" OTHER={path.name}"
            )
    return names


def _is_words(structure: Structure) -> bool:
    arrays = structure.entries.values()
    return bool(arrays) and all(features.dtype.kind == "S" for features, _ in arrays)


# Segments, their labels and their splits


def _labelled(
    labels: ComputationalSequence, wanted: str, faults: Faults
) -> tuple[list[Segment], Task, list[str]]:
    """The segments that have labels, what the label is, and notes about it."""
    names = _label_names(labels)
    column = column_of(wanted, names, str(labels.path))
    name, width = names[column], labels.width
    others = {other: at for at, other in enumerate(names) if at != column} if width <= _MOST_LABELS else {}
    told = f"{labels.structure.root} {name}".lower()
    known_range = _SENTIMENT_RANGE if column == 0 and ("sentiment" in told or "opinion" in told) else None
    _check_segments(labels)
    segments: list[Segment] = []
    for key, length in labels.lengths.items():
        values, intervals = labels.features(key, 0, length), labels.intervals(key)
        for row, (start, end) in enumerate(intervals.tolist()):
            place = "intervals of the labels"
            if not (math.isfinite(start) and math.isfinite(end)):
                faults.add("not finite", where=place, done="segment dropped")
            elif end - start <= SHORTEST_SECONDS:
                faults.add("zero length", where=place, done="segment dropped")
            else:
                known = np.where(np.isfinite(values[row]), values[row], math.nan)
                segment = Segment(
                    id=key if labels.numbered else f"{key}[{row}]",
                    video=video_of_entry(key),
                    start=start,
                    end=end,
                    entry=key if labels.numbered else None,
                    target=float(values[row, column]),
                    others={other: float(known[at]) for other, at in others.items()},
                )
                segments.append(segment)
    kept = (
        f"; {len(others)} others are kept as further labels" if others else f", which has {width - 1} others"
    )
    notes = [f"The label is column {column} ({name}) of {labels.path.name}{kept if width > 1 else ''}."]
    return segments, Task(kind="regression", label_range=known_range, labels=(name,)), notes


def _check_segments(labels: ComputationalSequence) -> None:
    """Refuse labels that declare more than they can hold, or of which only some are of single segments."""
    path, rows = labels.path, sum(labels.lengths.values())
    size = path.stat().st_size
    if rows > size:
        raise DataError(f"{path}: declares {rows} segments, more than its {size} bytes can hold")
    for key in labels.lengths if labels.numbered else ():
        if "[" not in key:
            raise DataError(f"{path}: entry {key!r}: expected a name like video[0], as of the other entries")
    for key, length in labels.lengths.items():
        if labels.numbered and length != 1:
            raise DataError(f"{path}: entry {key!r}: expected one label, found {length}")


def _label_names(labels: ComputationalSequence) -> list[str]:
    """The names of the columns of the labels, distinguished where the file does not do it."""
    given: Any = labels.structure.metadata.get("dimension names")
    is_list = isinstance(given, list) and all(isinstance(name, str) for name in given)
    if is_list and len(given) == labels.width:
        names = [_text(name) for name in given]
    elif labels.width == len(_SENTIMENT_AND_EMOTIONS):
        names = list(_SENTIMENT_AND_EMOTIONS)
    else:
        names = [f"label {number}" for number in range(labels.width)]
    times = Counter(names)
    return [name if name and times[name] == 1 else f"{name or 'label'} {at}" for at, name in enumerate(names)]


def _by_role(
    segments: Sequence[Segment], given: Path | None, anchor: Path, folder: Path, *, labelled: bool
) -> tuple[dict[Role, list[Segment]], list[str]]:
    """The segments of each split that has any, and what is to be said about the others."""
    names = [(segment.id, segment.video) for segment in segments]
    homes, notes, where = roles_by_folds(names, given, folder, labelled=labelled)
    rows: dict[Role | None, list[Segment]] = {role: [] for role in (*ROLES, None)}
    for segment, home in zip(segments, homes, strict=True):
        rows[home].append(segment)
    result = {role: rows[role] for role in ROLES if rows[role]}
    if not result:
        raise DataError(
            f"{where}: found no sample: no segment of {anchor.name} and the other files is in a split"
        )
    left = [segment.video for segment in rows[None]]
    count = len(set(left))
    return result, [*left_out(f"segments of {count} videos", len(left), "".join(left[:1]), homes), *notes]
