"""MulT pickles: ``mosi_data.pkl``, ``mosei_senti_data.pkl`` and their ``noalign`` versions.

A dict of ``train``, ``valid`` and ``test``, each a dict of ``text`` (GloVe, width 300), ``audio``, ``vision``, all
(clips, time, width), ``labels`` (clips, 1, 1) and ``id`` (clips, 3): video, start and end. Padding is at the front, as zeros.

Source:
    Tsai et al., ACL 2019, https://github.com/yaohungt/Multimodal-Transformer
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignmamba.contracts import ROLES
from alignmamba.data.checking import SplitArrays
from alignmamba.data.readers.foreign import Faults, Foreign, ReadOptions
from alignmamba.data.readers.padded import Clips, PaddedModality, Side, filled
from alignmamba.data.readers.splits import MODALITIES, SplitTable, shared_fields, single_source, split_tables
from alignmamba.data.readers.stored import StoredArray
from alignmamba.data.readers.unpickling import glimpse, read_pickle
from alignmamba.data.readers.values import as_list, numbers, plain_text, score_task
from alignmamba.errors import DataError

FORMAT = "mult"
SUMMARY = "MulT pickle (MOSI, MOSEI), aligned or unaligned, padded at the front"
OPTIONS = frozenset({"label"})

_LABEL = "labels"
_FIELDS = (*MODALITIES, _LABEL, "id")
# Between the parts of an id, as MMSA writes it.
_JOINT = "$_$"
# Clips that are looked at to see on which side they are padded.
_LOOKED_AT = 64


def recognises(path: Path) -> bool:
    """Whether the head of a file is a pickle whose first split has fields of MulT and no others."""
    seen = glimpse(path)
    return seen is not None and seen[0] in ROLES and set() < set(seen[1] or ()) <= {*_FIELDS, *ROLES}


def read(sources: Sequence[Path], options: ReadOptions) -> Foreign:
    """Open a MulT pickle.

    Args:
        sources: One file.
        options: How to read it. The only label is ``labels``.

    Raises:
        DataError: If the file is damaged, asks for anything to be run, or is of another layout.
    """
    path = single_source(sources, FORMAT)
    tables, strangers = split_tables(path, read_pickle(path), dict(zip(ROLES, ROLES, strict=True)))
    label = options.label or _LABEL
    parts = {role: SplitTable(path, role, table, label=label, labels=(_LABEL,), known=_FIELDS) for role, table in tables.items()}
    shared = shared_fields(path, parts, _FIELDS)
    names = [name for name in MODALITIES if name in shared]
    if not names:
        raise DataError(f"{path}: expected at least one of the fields {', '.join(MODALITIES)}, found {sorted(shared)}")
    faults = Faults()
    scores = {role: numbers(part.fields[label], part.count, f"{part.where}: {label}") for role, part in parts.items()}
    side = _side(next(iter(parts.values())), names[0])
    notes = [f"zeros at the {side} taken for padding"]
    if left_out := [*sorted(shared - set(_FIELDS)), *strangers]:
        notes.append(f"left out: {', '.join(left_out)}")
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=score_task(list(scores.values())),
        splits={role: _split(part, names, side, scores[role].tolist(), faults) for role, part in parts.items()},
        units={},
        vocabulary_sizes={},
        source=f"MulT pickle {path.name}",
        faults=faults,
        notes=tuple(notes),
    )


def _side(part: SplitTable, name: str) -> Side:
    """Where a file is padded: at the front as the format has it, unless zeros are seen at the back alone."""
    clips = Clips(part.fields[name], f"{part.where}: {name}")
    front = back = False
    for row in range(min(len(clips), _LOOKED_AT)):
        content = filled(clips.whole(row))
        if content.any():
            front |= not content[0]
            back |= not content[-1]
    return "back" if back and not front else "front"


def _split(part: SplitTable, names: Sequence[str], side: Side, targets: Sequence[float], faults: Faults) -> SplitArrays:
    modalities: dict[str, PaddedModality] = {}
    for name in names:
        clips = Clips(part.fields[name], f"{part.where}: {name}")
        modalities[name] = PaddedModality(name, clips, faults, side=side, leader=modalities.get("text"))
    features = {name: modality.contents() for name, modality in modalities.items()}
    return SplitArrays(features=features, targets=targets, ids=_ids(part, faults))


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
        parts = entry.items() if isinstance(entry, StoredArray) else entry if isinstance(entry, list | tuple) else [entry]
        return _JOINT.join(plain_text(part, where, "id", faults) for part in parts)

    return [text(entry, f"{part.where}: id: row {row}") for row, entry in enumerate(entries)]
