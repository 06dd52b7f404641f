"""MMSA pickles: MOSI, MOSEI, SIMS and SIMSv2 as their authors publish them, and what MMSA-FET makes.

A dict of ``train``, ``valid`` and ``test``, each a dict of parallel fields: ``text`` (clips, time, width), ``text_bert``
(clips, 3, time: ids, attention mask, token types), ``audio``, ``vision``, in unaligned files ``audio_lengths`` and
``vision_lengths``, ``raw_text``, ``id`` and labels. Padding is at the end; padded positions of ``text`` are not zero, the attention
mask says what is content.

Source:
    MMSA 2.2.1, README and `data_loader.py`, https://github.com/thuiar/MMSA; MMSA-FET, https://github.com/thuiar/MMSA-FET
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from alignmamba.contracts import ROLES, Role, Task
from alignmamba.data.checking import SplitArrays
from alignmamba.data.readers.foreign import Faults, Foreign, ReadOptions
from alignmamba.data.readers.padded import Clips, LazyClips, PaddedModality
from alignmamba.data.readers.splits import MODALITIES, SplitTable, shared_fields, single_source, split_tables
from alignmamba.data.readers.stored import StoredArray
from alignmamba.data.readers.unpickling import glimpse, read_pickle
from alignmamba.data.readers.values import numbers, score_task
from alignmamba.errors import DataError

FORMAT = "mmsa"
SUMMARY = "MMSA pickle (MOSI, MOSEI, SIMS, MMSA-FET), aligned or unaligned"
OPTIONS = frozenset({"text", "label"})

_SCORES = ("regression_labels", "regression_labels_T", "regression_labels_A", "regression_labels_V")
_CLASSES = ("annotations", "classification_labels")
_OWN_FIELDS = ("raw_text", "text_bert", "audio_lengths", "vision_lengths", *_SCORES, *_CLASSES)
_FIELDS = ("id", *MODALITIES, *_OWN_FIELDS)
_SENTIMENTS = ("Negative", "Neutral", "Positive")
_BLOCK_BYTES = 1 << 20
"""Of ``text_bert``, what is read at once."""
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
    fields = _modality_fields(path, shared, options)
    task, targets = _labels(parts, label, faults)
    notes = [f"label: {label}"]
    if fields.get("text") == "text_bert":
        notes.append("text: ids of text_bert, without padding")
    if "raw_text" in shared and "text" in fields:
        notes.append("raw_text: kept as display tokens of the clips whose words are as many as their text positions, else left out")
    kept = {*fields.values(), "id", "raw_text", "text_bert", "audio_lengths", "vision_lengths", label}
    if left_out := [*sorted(shared - kept), *strangers]:
        notes.append(f"left out: {', '.join(left_out)}")
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=task,
        splits={role: _split(part, fields, targets[role], faults) for role, part in parts.items()},
        units={},
        vocabulary_sizes={},
        source=f"MMSA pickle {path.name}",
        faults=faults,
        notes=tuple(notes),
    )


def _modality_fields(path: Path, fields: set[str], options: ReadOptions) -> dict[str, str]:
    """The field that each modality is read from."""
    found = {name: name for name in MODALITIES if name in fields}
    if options.text == "ids" and "text_bert" not in fields:
        raise DataError(f"{path}: text ids are asked for, but the file has no 'text_bert', only {sorted(fields)}")
    if "text_bert" in fields and (options.text == "ids" or "text" not in fields):
        found = {"text": "text_bert", **{name: field for name, field in found.items() if name != "text"}}
    if not found:
        raise DataError(f"{path}: expected at least one of the fields {', '.join(MODALITIES)}, found {sorted(fields)}")
    return found


def _labels(parts: Mapping[Role, SplitTable], label: str, faults: Faults) -> tuple[Task, dict[Role, Sequence[float | str]]]:
    """The task, and the labels of each split, NaN where there is none."""
    if label in _CLASSES:
        names = {role: part.texts(label, faults) for role, part in parts.items()}
        distinct = sorted({name for given in names.values() for name in given})
        classes = _SENTIMENTS if set(distinct) <= set(_SENTIMENTS) else tuple(distinct)
        if len(classes) < 2:
            raise DataError(f"{next(iter(parts.values())).where}: {label}: expected at least two classes, found {distinct}")
        return Task(kind="classification", classes=classes), dict(names)
    scores = {role: numbers(part.fields[label], part.count, f"{part.where}: {label}") for role, part in parts.items()}
    return score_task(list(scores.values())), {role: values.tolist() for role, values in scores.items()}


def _split(part: SplitTable, fields: Mapping[str, str], targets: Sequence[float | str], faults: Faults) -> SplitArrays:
    windows = _mask_windows(part)
    features: dict[str, LazyClips] = {}
    leader: PaddedModality | None = None
    text_windows: np.ndarray | None = None
    for name, field in fields.items():
        if field == "text_bert":
            features[name], text_windows = _ids(part, windows), windows
            continue
        clips = Clips(part.fields[field], f"{part.where}: {field}")
        declared = _declared(part, f"{name}_lengths") if f"{name}_lengths" in part.fields else None
        known = windows if name == "text" and windows is not None and _fits(clips, part.fields["text_bert"]) else None
        modality = PaddedModality(name, clips, faults, windows=known, declared=declared, leader=leader if declared is None else None)
        if known is not None:
            leader, text_windows = modality, known
        features[name] = modality.contents()
    tokens = {}
    if "raw_text" in part.fields and "text" in features:
        spoken = [text.split() for text in part.texts("raw_text", faults)]
        tokens["text"] = _words(spoken, features["text"], text_windows)
    ids = part.texts("id", faults) if "id" in part.fields else None
    return SplitArrays(features=features, targets=targets, ids=ids, tokens=tokens)


def _fits(clips: Clips, text_bert: StoredArray) -> bool:
    """Whether the attention mask is about the positions of the text features."""
    return all(clips.steps(row) == text_bert.shape[2] for row in range(len(clips)))


def _declared(part: SplitTable, field: str) -> list[int]:
    values = numbers(part.fields[field], part.count, f"{part.where}: {field}")
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
    step = max(1, _BLOCK_BYTES // max(1, math.prod(value.shape[1:]) * value.dtype.itemsize))
    for start in range(0, part.count, step):
        rows = value.rows(start, min(start + step, part.count))[:, 1]
        with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
            content, wrong = rows != 0, (rows != 0) & (rows != 1)
        first, count = content.argmax(axis=1), content.sum(axis=1)
        end = np.where(count, content.shape[1] - content[:, ::-1].argmax(axis=1), 0)
        faulty = np.flatnonzero(wrong.any(axis=1) | (end - first != count))
        if len(faulty):
            raise DataError(f"{where}: row {start + faulty[0]}: expected an attention mask of ones without holes")
        windows[start : start + len(rows)] = np.stack([first, end], axis=1)
    return windows


def _ids(part: SplitTable, windows: np.ndarray | None) -> LazyClips:
    """The ids of ``text_bert`` without padding, (time,) int64."""
    value: StoredArray = part.fields["text_bert"]
    assert windows is not None

    def of(row: int) -> np.ndarray:
        start, stop = windows[row]
        found = value.part(row, 0, 1)[0, start:stop]
        with np.errstate(invalid="ignore"):
            sound = (found >= 0) & (found < 1 << 31) & (found == np.floor(found))
        if not sound.all():
            raise DataError(f"{part.where}: text_bert: row {row}: expected whole numbers from 0 as ids")
        return found.astype(np.int64)

    return LazyClips(part.count, of)


def _words(spoken: Sequence[Sequence[str]], text: LazyClips, windows: np.ndarray | None) -> LazyClips:
    """The words of each clip, where there is one for each position of its text.

    The first and the last position of BERT's text are no words.
    """

    def of(row: int) -> Sequence[str] | None:
        words = spoken[row]
        length = len(text[row]) if windows is None else int(windows[row, 1] - windows[row, 0])
        if words and len(words) == length:
            return words
        return [_FIRST, *words, _LAST] if words and windows is not None and len(words) + 2 == length else None

    return LazyClips(len(spoken), of)
