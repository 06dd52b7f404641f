"""MMSA pickles: MOSI, MOSEI, SIMS and SIMSv2 as their authors publish them, and what MMSA-FET makes.

A dict of ``train``, ``valid`` and ``test``, each a dict of parallel fields: ``text`` (clips, time, width),
``text_bert`` (clips, 3, time: ids, attention mask, token types), ``audio``, ``vision``, in unaligned files
``audio_lengths`` and ``vision_lengths``, ``raw_text``, ``id`` and labels. Padding is at the end; padded
positions of ``text`` are not zero, the attention mask says what is content.

Source:
    MMSA 2.2.1, README and `data_loader.py`, https://github.com/thuiar/MMSA; MMSA-FET,
    https://github.com/thuiar/MMSA-FET
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignmamba.contracts import Role, Task
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.exporting.mmsa_layout import (
    CLASSES,
    EXTRAS,
    SCORES,
    SENTIMENTS,
    MmsaExtras,
    display_words,
    video_of,
)
from alignmamba.formats.folds import SPLIT_NAMES
from alignmamba.formats.foreign import Faults, Foreign
from alignmamba.formats.pickles.padded_clips import (
    Clips,
    PaddedOptions,
    Side,
    declared_content,
    declared_padding,
    is_aligned,
    masked_content,
    padding_note,
    side_of_padding,
    zero_rows,
)
from alignmamba.formats.pickles.pickle_glimpse import glimpse
from alignmamba.formats.pickles.pickle_machine import read_pickle
from alignmamba.formats.pickles.pickled_splits import (
    MODALITIES,
    SplitTable,
    has_fields,
    shared_fields,
    single_source,
    split_tables,
    unlabelled_notes,
)
from alignmamba.formats.pickles.pickled_values import labels, numbers, score_task, several_per_clip
from alignmamba.formats.pickles.stored_arrays import StoredArray, unboxed
from alignmamba.formats.plain_files import LazyRows

FORMAT = "mmsa"
SUMMARY = "MMSA pickle (MOSI, MOSEI, SIMS, MMSA-FET), aligned or unaligned"

_LENGTHS = {name: f"{name}_lengths" for name in MODALITIES}
_LABELS = (*SCORES, *CLASSES)
_OWN_FIELDS = ("raw_text", "text_bert", *_LENGTHS.values(), *_LABELS)
_FIELDS = ("id", *MODALITIES, *_OWN_FIELDS)
_BLOCK_BYTES = 1 << 20
"""Of ``text_bert``, what is read at once."""


class Options(PaddedOptions):
    """How an MMSA pickle is to be read."""

    text: Literal["features", "ids"] = "features"
    """The text's features, or its token ids for an encoder."""


def recognises(path: Path) -> bool:
    """Whether the head of a file is a pickle of which a split has a field that only MMSA has."""
    seen = glimpse(path, SPLIT_NAMES)
    return seen is not None and not seen.fields.isdisjoint(_OWN_FIELDS)


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """Open an MMSA pickle.

    Args:
        sources: One file.
        options: With ``text="ids"`` the ids of ``text_bert`` are taken for the text; also where a file has no
            ``text``. `label` is ``regression_labels`` (default) or one with ``_T``, ``_A`` or ``_V``, or, for
            classes, ``annotations`` or ``classification_labels``.

    Raises:
        DataError: If the file is damaged, asks for anything to be run, or is of another layout.
    """
    if options.tokenizer is not None and options.text == "ids":
        raise DataError(
            "tokenizer (--tokenizer): found beside text ids (--text ids), expected one source of token ids"
        )
    path = single_source(sources, FORMAT)
    given = read_pickle(path)
    content = split_tables(path, given, is_split=partial(has_fields, known=_FIELDS), others=(EXTRAS,))
    extras = MmsaExtras.of(path, given.get(EXTRAS, {}))
    label = options.label or extras.label
    faults = Faults()
    parts = {
        role: SplitTable(path, role, table, label=label, labels=_LABELS, known=_FIELDS)
        for role, table in content.tables.items()
    }
    shared = shared_fields(path, parts, _FIELDS)
    fields = _modality_fields(path, shared, options)
    layout = _Layout(parts, fields, shared, stated=None if options.padding == "auto" else options.padding)
    task, targets = _labels(
        parts, label, faults, task=extras.task if EXTRAS in given and label == extras.label else None
    )
    beside, unfit = _labels_beside(parts, label)
    splits = {
        role: _split(part, layout, targets[role], beside, extras, faults) for role, part in parts.items()
    }
    kept = {*fields.values(), *layout.declared.values(), "id", "raw_text", *_LABELS}
    notes = [*content.notes, *([f"label: {label}"] if any(part.labels for part in parts.values()) else [])]
    notes += [*unlabelled_notes(path, parts, label, asked=bool(options.label)), layout.note()]
    if layout.has_ids:
        notes.append("text: ids of text_bert, without padding")
    elif layout.masked:
        kept.add("text_bert")
        notes.append("text_bert: its attention mask was used, its ids are dropped")
    if "raw_text" in shared and "text" in fields:
        notes.append(
            "raw_text: kept, and as display tokens where the words are as many as the positions of the text"
        )
    if others := dict.fromkeys(name for split in splits.values() for name in split.labels):
        notes.append(f"labels kept besides: {', '.join(others)}")
    notes += [f"{name}: dropped, expected one label per clip, found {found}" for name, found in unfit.items()]
    if left_out := [*sorted(shared - kept), *content.others]:
        notes.append(f"dropped: {', '.join(left_out)}")
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=task,
        splits=splits,
        units={name: unit for name, unit in extras.units.items() if name in fields},
        vocabulary_sizes={"text": extras.vocabulary_size}
        if layout.has_ids and extras.vocabulary_size
        else {},
        source=f"MMSA pickle {path.name}",
        faults=faults,
        notes=tuple(notes),
    )


def _modality_fields(path: Path, fields: set[str], options: Options) -> dict[str, str]:
    """The field that each modality is read from."""
    found = {name: name for name in MODALITIES if name in fields}
    if options.text == "ids" and "text_bert" not in fields:
        raise DataError(
            f"{path}: text ids are asked for, but the file has no 'text_bert', only {sorted(fields)}"
        )
    if "text_bert" in fields and (options.text == "ids" or "text" not in fields):
        found = {"text": "text_bert", **{name: field for name, field in found.items() if name != "text"}}
    if not found:
        raise DataError(
            f"{path}: expected at least one of the fields {', '.join(MODALITIES)}, found {sorted(fields)}"
        )
    return found


def _labels(
    parts: Mapping[Role, SplitTable], label: str, faults: Faults, *, task: Task | None
) -> tuple[Task, dict[Role, Sequence[Any] | None]]:
    """The task, that which is given or else what the labels say, and the labels of each split, NaN or
    ``None`` where there is none.
    """
    labelled = {role: part for role, part in parts.items() if part.labels}
    known, targets = (
        _known_labels(labelled, label, faults, task=task)
        if labelled
        else (task or Task(kind="regression"), {})
    )
    return known, {role: targets.get(role) for role in parts}


def _known_labels(
    parts: Mapping[Role, SplitTable], label: str, faults: Faults, *, task: Task | None
) -> tuple[Task, dict[Role, Sequence[Any]]]:
    if label in CLASSES:
        for part in parts.values():
            if found := several_per_clip(part.fields[label]):
                raise DataError(f"{part.where}: {label}: expected one label per clip, found {found}")
        given = {
            role: labels(part.fields[label], f"{part.where}: {label}", label, faults)
            for role, part in parts.items()
        }
        names = {
            role: [None if each is None else _class_name(each) for each in column]
            for role, column in given.items()
        }
        distinct = {name for column in names.values() for name in column if name is not None}
        if task is None:
            classes = SENTIMENTS if distinct <= set(SENTIMENTS) else _in_order(distinct)
            if len(classes) < 2:
                raise DataError(
                    f"{next(iter(parts.values())).where}: {label}: expected at least two classes, found"
                    f" {list(classes)}"
                )
            task = Task(kind="classification", classes=classes)
        return task, dict(names)
    scores = {
        role: numbers(part.fields[label], part.count, f"{part.where}: {label}")
        for role, part in parts.items()
    }
    return task or score_task(list(scores.values())), {
        role: values.tolist() for role, values in scores.items()
    }


def _class_name(label: float | int | str) -> str:
    """What a class is called. A whole number is the same class however it was written: splits may differ in
    their types.
    """
    return str(int(label)) if not isinstance(label, str) and label == int(label) else str(label)


def _in_order(names: Collection[str]) -> tuple[str, ...]:
    """Names of classes as they are sorted: as numbers where all are."""
    try:
        values = {name: float(name) for name in names}
    except ValueError:
        values = {}
    if not all(map(math.isfinite, values.values())):  # "nan" is a word too
        values = {}
    return tuple(sorted(names, key=lambda name: (values.get(name, 0.0), name)))


def _labels_beside(parts: Mapping[Role, SplitTable], label: str) -> tuple[list[str], dict[str, str]]:
    """The fields of labels that are kept besides the targets, and those that no sample can have, with what
    was found in them.
    """
    names = [
        name for name in _LABELS if name != label and any(name in part.fields for part in parts.values())
    ]
    found = {
        name: next(filter(None, (several_per_clip(part.fields.get(name)) for part in parts.values())), "")
        for name in names
    }
    return [name for name in names if not found[name]], {name: what for name, what in found.items() if what}


class _TextBert:
    """Ids, attention masks and token types: an array (clips, 3, time), or a list of arrays (3, time)."""

    def __init__(self, part: SplitTable) -> None:
        self._where = f"{part.where}: text_bert"
        value = unboxed(part.fields["text_bert"])
        self._arrays: list[StoredArray] = list(value) if isinstance(value, list | tuple) else [value]
        self._together = not isinstance(value, list | tuple)
        axes, expected = (
            (3, "numbers of shape (clips, 3, time)")
            if self._together
            else (2, "a list of arrays of shape (3, time)")
        )
        for array in self._arrays:
            if (
                not isinstance(array, StoredArray)
                or len(array.shape) != axes
                or array.shape[-2] != 3
                or array.dtype.kind not in "fiu"
            ):
                found = (
                    f"{array.dtype} of shape {array.shape}"
                    if isinstance(array, StoredArray)
                    else type(array).__name__
                )
                raise DataError(f"{self._where}: expected {expected}, found {found}")
        self.windows = self._windows()
        """First position and end of each clip's text by the attention mask, (clips, 2)."""

    def steps(self, row: int) -> int:
        """Positions of a clip, padding included."""
        return self._arrays[0 if self._together else row].shape[-1]

    def _windows(self) -> np.ndarray:
        windows = []
        for first, rows in self._masks():
            with np.errstate(invalid="ignore"):  # a damaged file may hold a NaN that signals
                content, wrong = rows != 0, (rows != 0) & (rows != 1)
            start, count = content.argmax(axis=1), content.sum(axis=1)
            end = np.where(count, content.shape[1] - content[:, ::-1].argmax(axis=1), 0)
            faulty = np.flatnonzero(wrong.any(axis=1) | (end - start != count))
            if len(faulty):
                raise DataError(
                    f"{self._where}: row {first + faulty[0]}: expected an attention mask of ones without"
                    " holes"
                )
            windows.append(np.stack([start, end], axis=1))
        return np.concatenate(windows)

    def _masks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Masks of some clips, (clips, time), and the row of the first."""
        if not self._together:
            for row, array in enumerate(self._arrays):
                yield row, array.part(1, 0, array.shape[1])[None]
            return
        array = self._arrays[0]
        step = max(1, _BLOCK_BYTES // max(1, math.prod(array.shape[1:]) * array.dtype.itemsize))
        for first in range(0, len(array), step):
            yield first, array.rows(first, min(first + step, len(array)))[:, 1]

    def ids(self, row: int, start: int, stop: int) -> np.ndarray:
        """The ids of some positions of a clip, (time,) int64."""
        found = (
            self._arrays[0].part(row, 0, 1)[0]
            if self._together
            else self._arrays[row].part(0, 0, self.steps(row))
        )[start:stop]
        with np.errstate(invalid="ignore"):
            sound = (found >= 0) & (found < 1 << 31) & (found == np.floor(found))
        if not sound.all():
            raise DataError(f"{self._where}: row {row}: expected whole numbers from 0 as ids")
        return found.astype(np.int64)


class _Layout:
    """Which modalities a file has, and what tells their content from padding.

    Args:
        parts: The splits.
        fields: The field that each modality is read from.
        shared: All fields.
        stated: The side of the padding by the user, for where it cannot be seen.
    """

    def __init__(
        self,
        parts: Mapping[Role, SplitTable],
        fields: Mapping[str, str],
        shared: set[str],
        *,
        stated: Side | None,
    ) -> None:
        self.names = list(fields)
        self.has_ids = fields.get("text") == "text_bert"
        self.clips = {
            role: {
                name: Clips(part.fields[field], f"{part.where}: {field}")
                for name, field in fields.items()
                if field != "text_bert"
            }
            for role, part in parts.items()
        }
        self.encoded = (
            {role: _TextBert(part) for role, part in parts.items()} if "text_bert" in shared else {}
        )
        first = next(iter(self.clips.values()))
        self.declared = {name: field for name, field in _LENGTHS.items() if name in first and field in shared}
        self.lengths = {
            role: {name: _declared(part, field) for name, field in self.declared.items()}
            for role, part in parts.items()
        }
        """What is declared, by split and modality."""
        self.paddings = {
            name: declared_padding(
                name, ((self.clips[role][name], self.lengths[role][name]) for role in parts), stated
            )
            for name in self.declared
        }
        """How each modality with declared lengths is padded."""

        def agree(role: Role, names: Sequence[str], *, encoded: bool) -> bool:
            steps = [self.clips[role][name].steps for name in names] + (
                [self.encoded[role].steps] if encoded else []
            )
            return is_aligned(steps, parts[role].count)

        several = "text" in fields and len(fields) > 1
        self.aligned = (
            several
            and not self.declared
            and all(agree(role, list(first), encoded=self.has_ids) for role in parts)
        )
        """Whether every modality has the positions of the text."""
        fitting = bool(self.encoded) and "text" in first and "text" not in self.declared
        self.masked = self.has_ids or (fitting and all(agree(role, ["text"], encoded=True) for role in parts))
        """Whether the positions of the text are those of the attention mask."""
        masked = list(first) if self.aligned and self.masked else ["text"] if self.masked else []
        self.by_zeros = [name for name in first if name not in self.declared and name not in masked]
        """Modalities of which nothing but zeros says what is padding."""
        self.side = side_of_padding([first[name] for name in self.by_zeros], usual=stated or "back")

    def note(self) -> str:
        """What tells content from padding, for people."""
        if self.aligned and self.masked:
            return "aligned: all modalities of a clip have the positions of its attention mask"
        if self.aligned:
            return padding_note(self.side, aligned=True)
        masked = ["text"] if self.masked else []
        rules = {"the attention mask": masked}
        for padding in dict.fromkeys(sorted(self.paddings.values(), key=lambda each: each.side)):
            rules[f"declared lengths, {padding.note()}"] = [
                name for name, each in self.paddings.items() if each == padding
            ]
        rules[f"zeros at the {self.side}"] = self.by_zeros
        return "content: " + "; ".join(
            f"{', '.join(names)} by {rule}" for rule, names in rules.items() if names
        )


def _split(
    part: SplitTable,
    layout: _Layout,
    targets: Sequence[Any] | None,
    beside: Sequence[str],
    extras: MmsaExtras,
    faults: Faults,
) -> SplitArrays:
    derived = extras.derived.get(part.role, ())
    windows = layout.encoded[part.role].windows if layout.masked else np.zeros((0, 2), np.int64)
    features = _features(part, layout, windows, faults)
    ids = part.texts("id", faults) if "id" in part.fields else None
    said = part.texts("raw_text", faults, optional=True) if "raw_text" in part.fields else None
    tokens = {}
    if said is not None and "text" in features:
        known = extras.tokens.get(part.role, {})

        def words(row: int) -> Sequence[str] | None:
            if ids is not None and ids[row] in known:
                return known[ids[row]] or None
            length = int(windows[row, 1] - windows[row, 0]) if layout.masked else len(features["text"][row])
            return display_words(said[row], length, framed=layout.masked)

        tokens["text"] = LazyRows(part.count, words)
    return SplitArrays(
        features=features,
        targets=targets,
        ids=ids,
        tokens=tokens,
        texts=None if said is None or "raw_text" in derived else [text or None for text in said],
        groups=None
        if ids is None or part.role in extras.ungrouped
        else [video_of(identity) for identity in ids],
        labels={
            name: labels(part.fields[name], f"{part.where}: {name}", name, faults)
            for name in sorted(beside, key=_position(extras.labels.get(part.role, ())))
            if name in part.fields and name not in derived
        },
    )


def _position(order: Sequence[str]) -> Callable[[str], int]:
    """The place of a name in an order, in which those that are not there come last."""
    return lambda name: order.index(name) if name in order else len(order)


def _features(part: SplitTable, layout: _Layout, windows: np.ndarray, faults: Faults) -> dict[str, LazyRows]:
    clips = layout.clips[part.role]
    zeros = zero_rows(
        {name: clips[name] for name in layout.by_zeros}, layout.side, faults, aligned=layout.aligned
    )

    def content(name: str) -> Callable[[int], np.ndarray]:
        if name == "text" and layout.has_ids:
            encoded = layout.encoded[part.role]
            return lambda row: encoded.ids(row, *windows[row])
        if name in layout.declared:
            lengths, padding = layout.lengths[part.role][name], layout.paddings[name]
            return lambda row: declared_content(name, clips[name], lengths[row], row, padding, faults)
        if name == "text":
            return lambda row: clips[name].part(row, *map(int, windows[row]))
        return lambda row: masked_content(name, clips[name], windows[row], row, faults)

    return {
        name: zeros[name] if name in zeros else LazyRows(part.count, content(name)) for name in layout.names
    }


def _declared(part: SplitTable, field: str) -> list[int]:
    values = numbers(part.fields[field], part.count, f"{part.where}: {field}")
    wrong = np.flatnonzero(~((values >= 0) & (values == np.floor(values)) & (values < 1 << 48)))
    if len(wrong):
        raise DataError(
            f"{part.where}: {field}: row {wrong[0]}: expected a whole number from 0, found"
            f" {values[wrong[0]]:g}"
        )
    lengths: list[int] = values.astype(np.int64).tolist()
    return lengths
