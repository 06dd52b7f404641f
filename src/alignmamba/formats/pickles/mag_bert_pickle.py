"""MAG-BERT pickles: words with the visual and acoustic features of each.

A dict of ``train``, ``dev`` (or ``valid``) and ``test``, each a list of ``((words, visual, acoustic), label,
segment)``: a list of words, arrays (words, width), a number or an array of one, a text. Nothing is padded.
There are no features of the text: words become ids. A clip without a label has ``None`` in its place, or is
``((words, visual, acoustic), segment)``.

Source:
    Rahman et al., ACL 2020, https://github.com/WasifurRahman/BERT_multimodal_transformer
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.contracts import Role
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.folds import SPLIT_NAMES
from alignmamba.formats.foreign import Faults, Foreign, ReadOptions
from alignmamba.formats.pickles.padded_clips import Clips
from alignmamba.formats.pickles.pickle_glimpse import glimpse
from alignmamba.formats.pickles.pickle_globals import kind
from alignmamba.formats.pickles.pickled_splits import dropped, read_single, split_tables
from alignmamba.formats.pickles.pickled_values import as_list, is_sequence, numbers, plain_text, score_task
from alignmamba.formats.plain_files import LazyRows

FORMAT = "mag-bert"
SUMMARY = "MAG-BERT pickle (MOSI, MOSEI): words, visual, acoustic"
Options = ReadOptions


def recognises(path: Path) -> bool:
    """Return whether the head of a file is a pickle whose splits are lists."""
    seen = glimpse(path, SPLIT_NAMES)
    return seen is not None and seen.lists


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """Open a MAG-BERT pickle, which has one label, without a name.

    Raises:
        DataError: If the file is damaged, asks for anything to be run, or is of another layout.
    """
    del options  # it has none of its own
    path, given = read_single(sources, FORMAT)
    tables, empty, others = split_tables(path, given, is_split=_is_split)
    faults = Faults()
    parts = {role: _Part(path, role, entries, faults) for role, entries in tables.items()}
    scores = {
        role: numbers(part.labels, len(part.labels), f"{part.where}: label")
        for role, part in parts.items()
        if any(label is not None for label in part.labels)
    }
    # Of the first split, which is the train split where there is one.
    first = dict.fromkeys(word for clip in next(iter(parts.values())).words for word in clip)
    numbered = {word: number for number, word in enumerate(first, start=1)}
    # Two files of one list number alike.
    fingerprint = hashlib.sha256(json.dumps(list(numbered)).encode()).hexdigest()[:16]
    notes = [
        *empty,
        f"text: {len(numbered)} words of {next(iter(parts))} numbered from 1 by first use, 0 for any"
        " other; the words are kept",
    ]
    if "train" not in parts:
        notes.append(
            "text: words are numbered anew in each file, and a run that was trained on another file refuses"
            " them; put new clips into the test split of the file with its train split"
        )
    if unlabelled := [role for role in parts if role not in scores]:
        notes.append(f"unlabelled: {', '.join(unlabelled)}")
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=score_task(list(scores.values())),
        splits={
            role: part.arrays(numbered, scores[role].tolist() if role in scores else None)
            for role, part in parts.items()
        },
        units={"text": f"numbers of words, list {fingerprint}"},
        vocabulary_sizes={"text": len(numbered) + 1},
        source=f"MAG-BERT pickle {path.name}",
        faults=faults,
        notes=(*notes, *dropped(others)),
    )


class _Part:
    """One split, taken apart: parallel lists, with an entry for each clip."""

    def __init__(self, path: Path, role: Role, entries: Any, faults: Faults) -> None:
        self.where = f"{path}: split {role!r}"
        if not isinstance(entries, list):
            raise DataError(f"{self.where}: expected a list of clips, found {kind(entries)}")
        clips = []
        for row, entry in enumerate(entries):
            place = f"{self.where}: row {row}"
            features, label, segment = _clip(entry, place)
            words, visual, acoustic = _three(features, place)
            if not is_sequence(words):
                raise DataError(f"{place}: expected a list of words, found {kind(words)}")
            texts = [plain_text(word, place, "words", faults) for word in as_list(words)]
            clips.append((texts, visual, acoustic, label, plain_text(segment, place, "segment", faults)))
        self.words, self.visual, self.acoustic, self.labels, self.segments = map(
            list, zip(*clips, strict=True)
        )

    def arrays(self, numbered: Mapping[str, int], targets: Sequence[float] | None) -> SplitArrays:
        """The split as the archive takes it."""

        def ids(row: int) -> np.ndarray:
            return np.array([numbered.get(word, 0) for word in self.words[row]], np.int64)

        features = {"text": LazyRows(len(self.words), ids)}
        for name, arrays in (("audio", self.acoustic), ("vision", self.visual)):
            clips = Clips(arrays, f"{self.where}: {name}")
            features[name] = LazyRows(len(clips), clips.whole)
        return SplitArrays(
            features=features,
            targets=targets,
            ids=self.segments,
            tokens={"text": self.words},
            texts=[" ".join(words) or None for words in self.words],
        )


def _is_split(value: Any) -> bool:
    """Return whether a value looks like a list of clips."""
    first = value[0] if isinstance(value, list) and value else None
    features = first[0] if isinstance(first, list | tuple) and len(first) in (2, 3) else None
    return isinstance(features, list | tuple) and len(features) == 3


def _clip(value: Any, place: str) -> Sequence[Any]:
    """Features, label and segment of a clip."""
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], list | tuple):
        return value[0], None, value[1]
    return _three(value, place)


def _three(value: Any, place: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        found = f"{len(value)} parts" if isinstance(value, list | tuple) else kind(value)
        raise DataError(f"{place}: expected ((words, visual, acoustic), label, segment), found {found}")
    return value
