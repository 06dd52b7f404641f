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
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignmamba.contracts import Role, Task
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.exporting.mmsa_layout import (
    CLASSES,
    EXTRAS,
    LABELS,
    SENTIMENTS,
    MmsaExtras,
    display_words,
    video_of,
)
from alignmamba.formats.folds import SPLIT_NAMES
from alignmamba.formats.foreign import Faults, Foreign
from alignmamba.formats.pickles.declared_lengths import declared_content, declared_padding
from alignmamba.formats.pickles.padded_clips import (
    Clips,
    PaddedOptions,
    Side,
    is_aligned,
    masked_content,
    padding_note,
    side_of_padding,
    zero_rows,
)
from alignmamba.formats.pickles.pickle_glimpse import glimpse
from alignmamba.formats.pickles.pickled_splits import (
    MODALITIES,
    ParallelFields,
    SplitTable,
    dropped,
    read_single,
)
from alignmamba.formats.pickles.pickled_values import labels, numbers, score_task, several_per_clip
from alignmamba.formats.pickles.text_bert import TextBert
from alignmamba.formats.plain_files import LazyRows

FORMAT = "mmsa"
SUMMARY = "MMSA pickle (MOSI, MOSEI, SIMS, MMSA-FET), aligned or unaligned"

_LENGTHS = {name: f"{name}_lengths" for name in MODALITIES}
_OWN_FIELDS = ("raw_text", "text_bert", *_LENGTHS.values(), *LABELS)
_FIELDS = ("id", *MODALITIES, *_OWN_FIELDS)


class Options(PaddedOptions):
    """Options to read an MMSA pickle."""

    text: Literal["features", "ids"] = "features"
    """Text as features, or as token ids for an encoder."""


def recognises(path: Path) -> bool:
    """Return whether the head of a file is a pickle of which a split has a field that only MMSA has."""
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
    path, given = read_single(sources, FORMAT)
    has_extras = isinstance(given, dict) and EXTRAS in given
    extras = MmsaExtras.of(path, given[EXTRAS] if has_extras else {})
    content = ParallelFields(
        path,
        given,
        label=options.label,
        default=extras.label,
        labels=LABELS,
        known=_FIELDS,
        others=(EXTRAS,),
    )
    layout = _Layout(content, options)
    faults = Faults()
    is_known = has_extras and content.label == extras.label
    task, targets = _targets(content, faults, known=extras.task if is_known else None)
    beside, unfit = _labels_beside(content)
    splits = {
        role: _split(part, layout, targets.get(role), beside, extras, faults)
        for role, part in content.splits.items()
    }
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=task,
        splits=splits,
        units={name: unit for name, unit in extras.units.items() if name in layout.fields},
        vocabulary_sizes={"text": extras.vocabulary_size}
        if layout.has_ids and extras.vocabulary_size
        else {},
        source=f"MMSA pickle {path.name}",
        faults=faults,
        notes=(
            *content.empty,
            *([f"label: {content.label}"] if content.labelled else []),
            *content.unlabelled(),
            *layout.notes(),
            *_label_notes(splits, unfit),
            *dropped([*sorted(content.names - layout.kept), *content.others]),
        ),
    )


def _label_notes(splits: Mapping[Role, SplitArrays], unfit: Mapping[str, str]) -> list[str]:
    others = dict.fromkeys(name for split in splits.values() for name in split.labels)
    return [
        *([f"labels kept besides: {', '.join(others)}"] if others else []),
        *(f"{name}: dropped, expected one label per clip, found {found}" for name, found in unfit.items()),
    ]


def _modality_fields(content: ParallelFields, options: Options) -> dict[str, str]:
    """The field that each modality is read from."""
    found = {name: name for name in MODALITIES if name in content.names}
    if options.text == "ids" and "text_bert" not in content.names:
        raise DataError(
            f"{content.path}: expected the field 'text_bert' for text ids, found only {sorted(content.names)}"
        )
    if "text_bert" in content.names and (options.text == "ids" or "text" not in found):
        found = {"text": "text_bert"} | {name: name for name in found if name != "text"}
    content.refuse_no_modality(found)
    return found


def _targets(
    content: ParallelFields, faults: Faults, *, known: Task | None
) -> tuple[Task, Mapping[Role, Sequence[Any]]]:
    """The task, that which is known or else what the labels say, and the targets of each labelled split, NaN
    or ``None`` where there is none.
    """
    label = content.label
    if label in CLASSES:
        return _classes(content, faults, known=known)
    scores = {
        role: numbers(part.fields[label], part.count, f"{part.where}: {label}")
        for role, part in content.labelled.items()
    }
    task = known or score_task(list(scores.values()))
    return task, {role: values.tolist() for role, values in scores.items()}


def _classes(
    content: ParallelFields, faults: Faults, *, known: Task | None
) -> tuple[Task, Mapping[Role, Sequence[str | None]]]:
    label, names = content.label, {}
    for part in content.labelled.values():
        if found := several_per_clip(part.fields[label]):
            raise DataError(f"{part.where}: {label}: expected one label per clip, found {found}")
    for role, part in content.labelled.items():
        column = labels(part.fields[label], f"{part.where}: {label}", label, faults)
        names[role] = [None if each is None else _class_name(each) for each in column]
    distinct = {name for column in names.values() for name in column if name is not None}
    if known is not None or not names:
        return known or Task(kind="regression"), names
    classes = SENTIMENTS if distinct <= set(SENTIMENTS) else _in_order(distinct)
    if len(classes) < 2:
        where = next(iter(content.labelled.values())).where
        raise DataError(f"{where}: {label}: expected at least two classes, found {list(classes)}")
    return Task(kind="classification", classes=classes), names


def _class_name(label: float | int | str) -> str:
    """Name of a class. A whole number is the same class however it was written: splits may differ in their
    types.
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


def _labels_beside(content: ParallelFields) -> tuple[list[str], dict[str, str]]:
    """The fields of labels that are kept besides the targets, and those that no sample can have, with what
    was found in them.
    """
    tables = [part.fields for part in content.splits.values()]
    found = {
        name: next(filter(None, (several_per_clip(fields.get(name)) for fields in tables)), "")
        for name in LABELS
        if name != content.label and any(name in fields for fields in tables)
    }
    return [name for name in found if not found[name]], {name: what for name, what in found.items() if what}


class _Layout:
    """Modalities of a file, and the rule that separates their content from padding.

    Args:
        content: The file.
        options: How it is to be read.
    """

    def __init__(self, content: ParallelFields, options: Options) -> None:
        stated: Side | None = None if options.padding == "auto" else options.padding
        parts = content.splits
        self._said = "raw_text" in content.names
        self.fields = _modality_fields(content, options)
        """The field that each modality is read from."""
        self.has_ids = self.fields.get("text") == "text_bert"
        self.clips = {
            role: {
                name: Clips(part.fields[field], f"{part.where}: {field}")
                for name, field in self.fields.items()
                if field != "text_bert"
            }
            for role, part in parts.items()
        }
        has_mask = "text_bert" in content.names
        self.encoded = {
            role: TextBert(part.fields["text_bert"], f"{part.where}: text_bert")
            for role, part in parts.items()
            if has_mask
        }
        first = next(iter(self.clips.values()))
        declared = {name: _LENGTHS[name] for name in first if _LENGTHS[name] in content.names}
        self.lengths = {
            name: {role: _declared(part, field) for role, part in parts.items()}
            for name, field in declared.items()
        }
        """Declared lengths, by modality and split."""
        self.paddings = {
            name: declared_padding(name, ((self.clips[role][name], own[role]) for role in parts), stated)
            for name, own in self.lengths.items()
        }
        """Padding of each modality with declared lengths."""
        self.aligned = (
            "text" in self.fields
            and len(self.fields) > 1
            and not declared
            and self._agree(parts, first, encoded=self.has_ids)
        )
        """True if every modality has the positions of the text."""
        fitting = has_mask and "text" in first and "text" not in declared
        self.masked = self.has_ids or (fitting and self._agree(parts, ["text"], encoded=True))
        """True if the positions of the text are those of the attention mask."""
        masked = first if self.aligned and self.masked else ["text"] if self.masked else []
        self.by_zeros = [name for name in first if name not in declared and name not in masked]
        """Modalities of which nothing but zeros says what is padding."""
        self.side = side_of_padding([first[name] for name in self.by_zeros], usual=stated or "back")
        self.kept = {*self.fields.values(), *declared.values(), "id", "raw_text", *LABELS}
        """The fields of the file that are read."""
        if self.masked:
            self.kept.add("text_bert")

    def _agree(self, parts: Mapping[Role, SplitTable], names: Collection[str], *, encoded: bool) -> bool:
        """Return whether these modalities have as many positions in every clip, and the attention mask if
        asked.
        """
        return all(
            is_aligned(
                [
                    *(self.clips[role][name].steps for name in names),
                    *([self.encoded[role].steps] if encoded else []),
                ],
                part.count,
            )
            for role, part in parts.items()
        )

    def notes(self) -> list[str]:
        """Rule that separates content from padding, and what is kept of the text, for people."""
        notes = [self._padding_note()]
        if self.has_ids:
            notes.append("text: ids of text_bert, without padding")
        elif self.masked:
            notes.append("text_bert: its attention mask was used, its ids are dropped")
        if self._said and "text" in self.fields:
            notes.append(
                "raw_text: kept, and as display tokens where the words are as many as the positions of the"
                " text"
            )
        return notes

    def _padding_note(self) -> str:
        if self.aligned and self.masked:
            return "aligned: all modalities of a clip have the positions of its attention mask"
        if self.aligned:
            return padding_note(self.side, aligned=True)
        rules = {"the attention mask": ["text"] if self.masked else []}
        for padding in dict.fromkeys(sorted(self.paddings.values(), key=lambda each: each.side)):
            rules[f"declared lengths, {padding.note()}"] = [
                name for name, each in self.paddings.items() if each == padding
            ]
        rules[f"zeros at the {self.side}"] = self.by_zeros
        return "content: " + "; ".join(
            f"{', '.join(names)} by {rule}" for rule, names in rules.items() if names
        )

    def windows(self, part: SplitTable) -> np.ndarray:
        """First position and end of the text of each clip, (clips, 2); none where no mask says so."""
        return self.encoded[part.role].windows if self.masked else np.zeros((0, 2), np.int64)

    def features(self, part: SplitTable, faults: Faults) -> dict[str, LazyRows]:
        """The content of a split's modalities, by name."""
        role, windows, clips = part.role, self.windows(part), self.clips[part.role]
        zeros = zero_rows(
            {name: clips[name] for name in self.by_zeros}, self.side, faults, aligned=self.aligned
        )

        def content(name: str) -> Callable[[int], np.ndarray]:
            if name == "text" and self.has_ids:
                return lambda row: self.encoded[role].ids(row, *windows[row])
            own = clips[name]
            if name in self.lengths:
                lengths, padding = self.lengths[name][role], self.paddings[name]
                return lambda row: declared_content(name, own, lengths[row], row, padding, faults)
            if name == "text":
                return lambda row: own.part(row, *map(int, windows[row]))
            return lambda row: masked_content(name, own, windows[row], row, faults)

        return {
            name: zeros[name] if name in zeros else LazyRows(part.count, content(name))
            for name in self.fields
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


def _split(
    part: SplitTable,
    layout: _Layout,
    targets: Sequence[Any] | None,
    beside: Sequence[str],
    extras: MmsaExtras,
    faults: Faults,
) -> SplitArrays:
    features = layout.features(part, faults)
    ids = part.texts("id", faults) if "id" in part.fields else None
    said = part.texts("raw_text", faults, optional=True) if "raw_text" in part.fields else None
    derived, order = extras.derived.get(part.role, ()), extras.labels.get(part.role, ())
    kept = [name for name in beside if name in part.fields and name not in derived]
    kept.sort(key=lambda name: order.index(name) if name in order else len(order))
    grouped = ids is not None and part.role not in extras.ungrouped
    return SplitArrays(
        features=features,
        targets=targets,
        ids=ids,
        tokens=_tokens(part, layout, features["text"], ids, said, extras)
        if said is not None and "text" in features
        else {},
        texts=None if said is None or "raw_text" in derived else [text or None for text in said],
        groups=[video_of(identity) for identity in ids or ()] if grouped else None,
        labels={name: labels(part.fields[name], f"{part.where}: {name}", name, faults) for name in kept},
    )


def _tokens(
    part: SplitTable,
    layout: _Layout,
    text: LazyRows,
    ids: Sequence[str] | None,
    said: Sequence[str],
    extras: MmsaExtras,
) -> dict[str, LazyRows]:
    """Display tokens of the text: those that the file has by id, else the words that were said."""
    known, windows = extras.tokens.get(part.role, {}), layout.windows(part)

    def words(row: int) -> Sequence[str] | None:
        if ids is not None and ids[row] in known:
            return known[ids[row]] or None
        length = int(windows[row, 1] - windows[row, 0]) if layout.masked else len(text[row])
        return display_words(said[row], length, framed=layout.masked)

    return {"text": LazyRows(part.count, words)}
