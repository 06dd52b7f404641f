"""MulT pickles: ``mosi_data.pkl``, ``mosei_senti_data.pkl`` and their ``noalign`` versions.

A dict of ``train``, ``valid`` and ``test``, each a dict of ``text`` (GloVe, width 300), ``audio``,
``vision``, all (clips, time, width), ``labels`` (clips, 1, 1) and ``id`` (clips, 3): video, start and end.
Padding is at the front, as zeros.

Source:
    Tsai et al., ACL 2019, https://github.com/yaohungt/Multimodal-Transformer
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alignmamba.contracts import Task
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.exporting.mmsa_layout import JOINT, video_of
from alignmamba.formats.folds import SPLIT_NAMES
from alignmamba.formats.foreign import Faults, Foreign
from alignmamba.formats.pickles.padded_clips import (
    Clips,
    PaddedOptions,
    is_aligned,
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
from alignmamba.formats.pickles.pickled_values import as_list, numbers, plain_text, score_task
from alignmamba.formats.pickles.stored_arrays import StoredArray
from alignmamba.formats.plain_files import LazyRows

FORMAT = "mult"
SUMMARY = "MulT pickle (MOSI, MOSEI), aligned or unaligned, padded at the front"
Options = PaddedOptions

_LABEL = "labels"
_FIELDS = (*MODALITIES, _LABEL, "id")


def recognises(path: Path) -> bool:
    """Whether the head of a file is a pickle whose splits have no fields but MulT's: its labels, or in all of
    the file none.
    """
    seen = glimpse(path, SPLIT_NAMES)
    if seen is None or not seen.fields <= set(_FIELDS):
        return False
    return _LABEL in seen.fields or (seen.whole and not seen.fields.isdisjoint(MODALITIES))


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """Open a MulT pickle.

    Args:
        sources: One file.
        options: How to read it. The only label is ``labels``.

    Raises:
        DataError: If the file is damaged, asks for anything to be run, or is of another layout.
    """
    path = single_source(sources, FORMAT)
    content = split_tables(path, read_pickle(path), is_split=partial(has_fields, known=_FIELDS))
    label = options.label or _LABEL
    parts = {
        role: SplitTable(path, role, table, label=label, labels=(_LABEL,), known=_FIELDS)
        for role, table in content.tables.items()
    }
    shared = shared_fields(path, parts, _FIELDS)
    names = [name for name in MODALITIES if name in shared]
    if not names:
        raise DataError(
            f"{path}: expected at least one of the fields {', '.join(MODALITIES)}, found {sorted(shared)}"
        )
    faults = Faults()
    scores = {
        role: numbers(part.fields[label], part.count, f"{part.where}: {label}")
        for role, part in parts.items()
        if part.labels
    }
    clips = {
        role: {name: Clips(part.fields[name], f"{part.where}: {name}") for name in names}
        for role, part in parts.items()
    }
    side = side_of_padding(
        next(iter(clips.values())).values(), usual="front" if options.padding == "auto" else options.padding
    )
    aligned = (
        "text" in names
        and len(names) > 1
        and all(
            is_aligned([each.steps for each in clips[role].values()], part.count)
            for role, part in parts.items()
        )
    )
    unlabelled = unlabelled_notes(path, parts, label, asked=bool(options.label))
    notes = [*content.notes, *unlabelled, padding_note(side, aligned=aligned)]
    if left_out := [*sorted(shared - set(_FIELDS)), *content.others]:
        notes.append(f"dropped: {', '.join(left_out)}")
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=score_task(list(scores.values())) if scores else Task(kind="regression"),
        splits={
            role: _split(
                part,
                zero_rows(clips[role], side, faults, aligned=aligned),
                scores[role].tolist() if role in scores else None,
                faults,
            )
            for role, part in parts.items()
        },
        units={},
        vocabulary_sizes={},
        source=f"MulT pickle {path.name}",
        faults=faults,
        notes=tuple(notes),
    )


def _split(
    part: SplitTable, features: Mapping[str, LazyRows], targets: Sequence[float] | None, faults: Faults
) -> SplitArrays:
    ids = _ids(part, faults)
    groups = None if ids is None else [video_of(identity) for identity in ids]
    return SplitArrays(features=features, targets=targets, ids=ids, groups=groups)


def _ids(part: SplitTable, faults: Faults) -> list[str] | None:
    """The ids as texts; what consists of parts, as ``video$_$start$_$end``."""
    if "id" not in part.fields:
        return None
    given = part.fields["id"]
    entries: list[Any] = as_list(given)
    if isinstance(given, StoredArray) and len(given.shape) > 1:
        size = len(entries) // part.count
        entries = [entries[row * size : (row + 1) * size] for row in range(part.count)]

    def text(entry: Any, where: str) -> str:
        parts = (
            entry.items()
            if isinstance(entry, StoredArray)
            else entry
            if isinstance(entry, list | tuple)
            else [entry]
        )
        return JOINT.join(plain_text(part, where, "id", faults) for part in parts)

    return [text(entry, f"{part.where}: id: row {row}") for row, entry in enumerate(entries)]
