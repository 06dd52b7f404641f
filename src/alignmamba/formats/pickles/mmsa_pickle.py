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
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alignmamba.contracts import Role, Task
from alignmamba.data.classes import name_of_number
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
from alignmamba.formats.pickles.padded_layout import LENGTHS, MASK, PaddedLayout, PaddedOptions
from alignmamba.formats.pickles.pickle_glimpse import glimpse
from alignmamba.formats.pickles.pickled_splits import (
    MODALITIES,
    FieldNames,
    ParallelFields,
    SplitTable,
    dropped,
    read_single,
)
from alignmamba.formats.pickles.pickled_values import several_per_clip
from alignmamba.formats.plain_files import LazyRows

FORMAT = "mmsa"
SUMMARY = "MMSA pickle (MOSI, MOSEI, SIMS, MMSA-FET), aligned or unaligned"

_OWN_FIELDS = ("raw_text", MASK, *LENGTHS.values(), *LABELS)
_NAMES = FieldNames(known=("id", *MODALITIES, *_OWN_FIELDS), labels=LABELS, beside=(EXTRAS,))


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
    content = ParallelFields(path, given, _NAMES, label=options.first_label, default=extras.label)
    layout = PaddedLayout(content, _fields(content, options), options.padding, usual="back")
    faults = Faults()
    known = extras.task if has_extras and content.label == extras.label else None
    is_class = content.label in CLASSES
    task, targets = _classes(content, faults, known=known) if is_class else content.scores(known=known)
    several = _several_per_clip(content)
    beside = [name for name, found in several.items() if not found]
    splits = {
        role: _split(part, layout, targets.get(role), beside, extras, faults)
        for role, part in content.splits.items()
    }
    others = dict.fromkeys(name for split in splits.values() for name in split.labels)
    kept = {*layout.kept, "id", "raw_text", *LABELS}
    size = extras.vocabulary_size
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=task if has_extras else task.model_copy(update={"labels": (content.label,)}),
        splits=splits,
        units={name: unit for name, unit in extras.units.items() if name in layout.fields},
        vocabulary_sizes={"text": size} if layout.has_ids and size else {},
        source=f"MMSA pickle {path.name}",
        faults=faults,
        notes=(
            *content.empty,
            *([f"label: {content.label}"] if content.labelled else []),
            *content.unlabelled(),
            layout.note(),
            *_text_notes(content, layout),
            *([f"labels kept besides: {', '.join(others)}"] if others else []),
            *(
                f"{name}: dropped, expected one label per clip, found {found}"
                for name, found in several.items()
                if found
            ),
            *dropped([*sorted(content.names - kept), *content.others]),
        ),
    )


def _fields(content: ParallelFields, options: Options) -> dict[str, str]:
    """The field that each modality is read from."""
    found = {name: name for name in MODALITIES if name in content.names}
    if options.text == "ids" and MASK not in content.names:
        raise DataError(
            f"{content.path}: expected the field {MASK!r} for text ids, found only {sorted(content.names)}"
        )
    if MASK in content.names and (options.text == "ids" or "text" not in found):
        return {**{"text": MASK}, **{name: name for name in found if name != "text"}}
    return found


def _text_notes(content: ParallelFields, layout: PaddedLayout) -> list[str]:
    """Notes on what is kept of the text."""
    notes = []
    if layout.has_ids:
        notes.append("text: ids of text_bert, without padding")
    elif layout.masked:
        notes.append("text_bert: its attention mask was used, its ids are dropped")
    if "raw_text" in content.names and "text" in layout.fields:
        notes.append(
            "raw_text: kept, and as display tokens where the words are as many as the positions of the text"
        )
    return notes


def _classes(
    content: ParallelFields, faults: Faults, *, known: Task | None
) -> tuple[Task, Mapping[Role, Sequence[str | None]]]:
    """The task, that which is known or else what the classes say, and those of each labelled split, ``None``
    where there is none.
    """
    label, names = content.label, {}
    for part in content.labelled.values():
        if found := several_per_clip(part.fields[label]):
            raise DataError(f"{part.where}: {label}: expected one label per clip, found {found}")
    for role, part in content.labelled.items():
        column = part.labels_of(label, faults)
        names[role] = [None if each is None else _class_name(each) for each in column]
    if known is not None or not names:
        return known or Task(kind="regression"), names
    distinct = {name for column in names.values() for name in column if name is not None}
    classes = SENTIMENTS if distinct <= set(SENTIMENTS) else _in_order(distinct)
    if len(classes) < 2:
        where = next(iter(content.labelled.values())).where
        raise DataError(f"{where}: {label}: expected at least two classes, found {list(classes)}")
    return Task(kind="classification", classes=classes), names


def _class_name(label: float | int | str) -> str:
    """Name of a class. A whole number is the same class however it was written: splits may differ in their
    types.
    """
    return label if isinstance(label, str) else name_of_number(label)


def _in_order(names: Collection[str]) -> tuple[str, ...]:
    """Names of classes as they are sorted: as numbers where all are."""
    try:
        values = {name: float(name) for name in names}
    except ValueError:
        values = {}
    if not all(map(math.isfinite, values.values())):  # "nan" is a word too
        values = {}
    return tuple(sorted(names, key=lambda name: (values.get(name, 0.0), name)))


def _several_per_clip(content: ParallelFields) -> dict[str, str]:
    """The fields of labels besides the targets, with what was found in those that have several for each
    clip, and an empty text for others.
    """
    tables = [part.fields for part in content.splits.values()]
    return {
        name: next(filter(None, (several_per_clip(fields.get(name)) for fields in tables)), "")
        for name in LABELS
        if name != content.label and any(name in fields for fields in tables)
    }


def _split(
    part: SplitTable,
    layout: PaddedLayout,
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
    known = extras.tokens.get(part.role, {})

    def words(row: int) -> Sequence[str] | None:
        """Display tokens of the text: those that the file has by id, else the words that were said."""
        if ids is not None and ids[row] in known:
            return known[ids[row]] or None
        assert said is not None
        start, stop = (
            layout.encoded[part.role].windows[row] if layout.masked else (0, len(features["text"][row]))
        )
        return display_words(said[row], stop - start, framed=layout.masked)

    has_words = said is not None and "text" in features
    grouped = ids is not None and part.role not in extras.ungrouped
    return SplitArrays(
        features=features,
        targets=targets,
        ids=ids,
        tokens={"text": LazyRows(part.count, words)} if has_words else {},
        texts=None if said is None or "raw_text" in derived else [text or None for text in said],
        groups=[video_of(identity) for identity in ids or ()] if grouped else None,
        labels={name: part.labels_of(name, faults) for name in kept},
    )
