"""MMSA pickles: MOSI, MOSEI, SIMS and SIMSv2 as their authors publish them, and what MMSA-FET makes.

A dict of ``train``, ``valid`` and ``test``, each a dict of parallel fields: ``text`` (clips, time, width), ``text_bert``
(clips, 3, time: ids, attention mask, token types), ``audio``, ``vision``, in unaligned files ``audio_lengths`` and
``vision_lengths``, ``raw_text``, ``id`` and labels. Padding is at the end; padded positions of ``text`` are not zero, the attention
mask says what is content.

Source:
    MMSA 2.2.1, README and `data_loader.py`, https://github.com/thuiar/MMSA; MMSA-FET, https://github.com/thuiar/MMSA-FET
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alignmamba.contracts import ROLES, Role, Task
from alignmamba.data.archive import SplitArrays
from alignmamba.data.readers.foreign import Faults, Foreign, ReadOptions
from alignmamba.data.readers.padded import Clips, Content, Lazily, LazyClips, PaddedModality
from alignmamba.data.readers.repairs import SENTIMENTS, labelled_rows, score_task, scores, with_distinct_ids, within_range
from alignmamba.data.readers.splits import MODALITIES, SplitTable, assemble, check_dims, shared_fields, single_source, split_tables
from alignmamba.data.readers.stored import StoredArray
from alignmamba.data.readers.unpickling import glimpse, read_pickle
from alignmamba.errors import DataError

FORMAT = "mmsa"
SUMMARY = "MMSA pickle (MOSI, MOSEI, SIMS, MMSA-FET), aligned or unaligned"

_SCORES = ("regression_labels", "regression_labels_T", "regression_labels_A", "regression_labels_V")
_CLASSES = ("annotations", "classification_labels")
_OWN_FIELDS = ("raw_text", "text_bert", "audio_lengths", "vision_lengths", *_SCORES, *_CLASSES)
_FIELDS = ("id", *MODALITIES, *_OWN_FIELDS)
_FIRST, _LAST = "[CLS]", "[SEP]"


def recognises(path: Path) -> bool:
    """Whether the head of a file is a pickle whose first split has a field that only MMSA has."""
    seen = glimpse(path)
    return seen is not None and seen[0] in ROLES and seen[1] is not None and not seen[1].isdisjoint(_OWN_FIELDS)


def read(sources: Sequence[Path], options: ReadOptions) -> Foreign:
    """Open an MMSA pickle.

    Args:
        sources: One file.
        options: With ``text="ids"`` the ids of ``text_bert`` are taken for the text; also where a file has no ``text``. `label` is
            ``regression_labels`` (default) or one with ``_T``, ``_A`` or ``_V``, or, for classes, ``annotations`` or
            ``classification_labels``.

    Raises:
        DataError: If the file is damaged, asks for anything to be run, or is of another layout.
    """
    path = single_source(sources, FORMAT)
    tables, strangers = split_tables(path, read_pickle(path), dict(zip(ROLES, ROLES, strict=True)))
    label = options.label or "regression_labels"
    faults = Faults()
    parts = {
        role: SplitTable(path, role, table, label=label, labels=(*_SCORES, *_CLASSES), known=_FIELDS) for role, table in tables.items()
    }
    shared = shared_fields(path, parts, _FIELDS)
    modalities = _modalities(path, shared, options)
    task, targets = _labels(parts, label, options, faults)
    splits = {role: _built(part, modalities, targets[role], options, faults) for role, part in parts.items()}
    notes = [f"label: {label}"]
    if modalities["text"] == "text_bert":
        notes.append("text: ids of text_bert, without padding")
    if "raw_text" in shared:
        notes.append("raw_text: kept as display tokens of the clips whose words are as many as their text positions, else left out")
    unused = sorted(shared - {*modalities.values(), "id", "raw_text", "text_bert", "audio_lengths", "vision_lengths", label})
    if left_out := [*unused, *strangers]:
        notes.append(f"left out: {', '.join(left_out)}")
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=task,
        splits=with_distinct_ids(splits, faults),
        units={},
        vocabulary_sizes={},
        source=f"MMSA pickle {path.name}",
        faults=faults,
        notes=tuple(notes),
    )


def _modalities(path: Path, fields: set[str], options: ReadOptions) -> dict[str, str]:
    """The field that each modality is read from."""
    found = {name: name for name in MODALITIES if name in fields}
    if options.text == "ids" and "text_bert" not in fields:
        raise DataError(f"{path}: text ids are asked for, but the file has no 'text_bert', only {sorted(fields)}")
    if "text_bert" in fields and (options.text == "ids" or "text" not in fields):
        found = {"text": "text_bert", **{name: field for name, field in found.items() if name != "text"}}
    if not found:
        raise DataError(f"{path}: expected at least one of the fields {', '.join(MODALITIES)}, found {sorted(fields)}")
    check_dims(options, [name for name, field in found.items() if field != "text_bert"], path)
    return found


def _labels(
    parts: Mapping[Role, SplitTable], label: str, options: ReadOptions, faults: Faults
) -> tuple[Task, dict[Role, Mapping[int, float | str]]]:
    """The task, and per split the label of each row that has one."""
    if label in _CLASSES:
        names = {role: part.texts(label, faults) for role, part in parts.items()}
        distinct = sorted({name for given in names.values() for name in given})
        classes = SENTIMENTS if set(distinct) <= set(SENTIMENTS) else tuple(distinct)
        if len(classes) < 2:
            raise DataError(f"{next(iter(parts.values())).where}: {label}: expected at least two classes, found {distinct}")
        return Task(kind="classification", classes=classes), {role: dict(enumerate(given)) for role, given in names.items()}
    values = {role: scores(part.fields[label], part.count, f"{part.where}: {label}") for role, part in parts.items()}
    task = score_task(list(values.values()))
    targets: dict[Role, Mapping[int, float | str]] = {}
    for role, part in parts.items():
        rows = labelled_rows(values[role], role, label, faults)
        targets[role] = dict(zip(rows, within_range(values[role], rows, task, f"{part.where}: {label}", options, faults), strict=True))
    return task, targets


def _built(
    part: SplitTable, fields: Mapping[str, str], labelled: Mapping[int, float | str], options: ReadOptions, faults: Faults
) -> SplitArrays:
    """The split as the archive takes it, its ids as they are; clips without any content are left out."""
    windows = _mask_windows(part)
    sources = _sources(part, fields, windows, options, faults)
    ids = part.texts("id", faults) if "id" in part.fields else [f"{part.role}-{row + 1:06d}" for row in range(part.count)]
    rows, split = assemble(part.where, part.role, sources, labelled, ids, faults)
    text = split.features.get("text")
    if "raw_text" not in part.fields or not isinstance(text, LazyClips):
        return split
    spoken = part.texts("raw_text", faults)
    return replace(split, tokens={"text": _words([spoken[row].split() for row in rows], text, framed=windows is not None)})


def _sources(
    part: SplitTable, fields: Mapping[str, str], windows: np.ndarray | None, options: ReadOptions, faults: Faults
) -> dict[str, Content]:
    """What holds the content of each modality."""
    sources: dict[str, Content] = {}
    leader: PaddedModality | None = None
    for name, field in fields.items():
        where = f"{part.where}: {field}"
        if field == "text_bert":
            assert windows is not None
            sources[name] = _Ids(part.fields[field], windows, where)
            continue
        clips = Clips(part.fields[field], where)
        declared = _declared(part, f"{name}_lengths") if f"{name}_lengths" in part.fields else None
        known = windows if name == "text" and windows is not None and _fits(windows, clips, part.fields["text_bert"]) else None
        modality = PaddedModality(
            name, clips, where, options, faults, windows=known, declared=declared, leader=leader if declared is None else None
        )
        if known is not None:
            leader = modality
        sources[name] = modality
    return sources


def _fits(windows: np.ndarray, clips: Clips, text_bert: StoredArray) -> bool:
    """Whether the attention mask is about the positions of the text features."""
    return all(clips.steps(row) == text_bert.shape[2] for row in range(len(windows)))


def _declared(part: SplitTable, field: str) -> list[int]:
    values = scores(part.fields[field], part.count, f"{part.where}: {field}")
    wrong = np.flatnonzero(~((values >= 0) & (values == np.floor(values)) & (values < 1 << 48)))
    if len(wrong):
        raise DataError(f"{part.where}: {field}: row {wrong[0]}: expected a whole number from 0, found {values[wrong[0]]:g}")
    lengths: list[int] = values.astype(np.int64).tolist()
    return lengths


def _mask_windows(part: SplitTable) -> np.ndarray | None:
    """First position and end of each clip's text by the attention mask, (clips, 2)."""
    value = part.fields.get("text_bert")
    if value is None:
        return None
    where = f"{part.where}: text_bert"
    if not isinstance(value, StoredArray) or len(value.shape) != 3 or value.shape[1] != 3 or value.dtype.kind not in "fiu":
        found = f"{value.dtype} of shape {value.shape}" if isinstance(value, StoredArray) else type(value).__name__
        raise DataError(f"{where}: expected numbers of shape (clips, 3, time), found {found}")
    windows = np.zeros((part.count, 2), np.int64)
    for row in range(part.count):
        mask = value.part(row, 1, 2)[0]
        content = np.flatnonzero(mask)
        if len(content) == 0:
            continue
        windows[row] = content[0], content[-1] + 1
        if (mask[content] != 1).any() or len(content) != content[-1] + 1 - content[0]:
            raise DataError(f"{where}: row {row}: expected an attention mask of ones and then zeros")
    return windows


class _Ids:
    """The ids of ``text_bert``."""

    def __init__(self, value: StoredArray, windows: np.ndarray, where: str) -> None:
        self._value = value
        self._windows = windows
        self._where = where

    def has(self, row: int) -> bool:
        """Whether a clip has any text."""
        return bool(self._windows[row, 0] < self._windows[row, 1])

    def content(self, row: int) -> np.ndarray:
        """The ids of a clip, (time,) int64."""
        start, stop = self._windows[row]
        found = self._value.part(row, 0, 1)[0, start:stop]
        if len(found) and not ((found >= 0) & (found < 1 << 31) & (found == np.floor(found))).all():
            raise DataError(f"{self._where}: row {row}: expected whole numbers from 0 as ids")
        return found.astype(np.int64)

    def repaired(self, _: int, values: np.ndarray) -> np.ndarray:
        """Ids need no repair."""
        return values


def _words(words: Sequence[Sequence[str]], text: LazyClips, *, framed: bool) -> Lazily[Sequence[str] | None]:
    """The words of each clip, where there is one for each position of its text.

    The first and the last position of BERT's text (`framed`) are no words.
    """

    def of(place: int) -> Sequence[str] | None:
        length = text.length(place)
        if not words[place]:
            return None
        if len(words[place]) == length:
            return words[place]
        return [_FIRST, *words[place], _LAST] if framed and len(words[place]) + 2 == length else None

    return Lazily(len(words), of)
