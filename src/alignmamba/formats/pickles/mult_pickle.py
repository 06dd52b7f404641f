"""MulT pickles: ``mosi_data.pkl``, ``mosei_senti_data.pkl`` and their ``noalign`` versions.

A dict of ``train``, ``valid`` and ``test``, each a dict of ``text`` (GloVe, width 300), ``audio``,
``vision``, all (clips, time, width), ``labels`` (clips, 1, 1) and ``id`` (clips, 3): video, start and end.
Padding is at the front, as zeros.

Source:
    Tsai et al., ACL 2019, https://github.com/yaohungt/Multimodal-Transformer
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignmamba.data.user_arrays import SplitArrays
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
from alignmamba.formats.pickles.pickled_splits import (
    MODALITIES,
    ParallelFields,
    SplitTable,
    dropped,
    read_single,
)
from alignmamba.formats.pickles.pickled_values import as_list, numbers, plain_text, score_task
from alignmamba.formats.pickles.stored_arrays import StoredArray

FORMAT = "mult"
SUMMARY = "MulT pickle (MOSI, MOSEI), aligned or unaligned, padded at the front"
Options = PaddedOptions

_LABEL = "labels"
_FIELDS = (*MODALITIES, _LABEL, "id")


def recognises(path: Path) -> bool:
    """Return whether the head of a file is a pickle whose splits have no fields but MulT's: its labels, or in
    all of the file none.
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
    path, given = read_single(sources, FORMAT)
    content = ParallelFields(
        path, given, label=options.label, default=_LABEL, labels=(_LABEL,), known=_FIELDS
    )
    names = [name for name in MODALITIES if name in content.names]
    content.refuse_no_modality(names)
    scores = {
        role: numbers(part.fields[_LABEL], part.count, f"{part.where}: {_LABEL}")
        for role, part in content.labelled.items()
    }
    clips = {
        role: {name: Clips(part.fields[name], f"{part.where}: {name}") for name in names}
        for role, part in content.splits.items()
    }
    side = side_of_padding(
        next(iter(clips.values())).values(), usual="front" if options.padding == "auto" else options.padding
    )
    aligned = (
        "text" in names
        and len(names) > 1
        and all(
            is_aligned([each.steps for each in clips[role].values()], part.count)
            for role, part in content.splits.items()
        )
    )
    faults = Faults()
    splits = {}
    for role, part in content.splits.items():
        ids = _ids(part, faults)
        splits[role] = SplitArrays(
            features=zero_rows(clips[role], side, faults, aligned=aligned),
            targets=scores[role].tolist() if role in scores else None,
            ids=ids,
            groups=None if ids is None else [video_of(identity) for identity in ids],
        )
    others = [*sorted(content.names - set(_FIELDS)), *content.others]
    notes = [*content.empty, *content.unlabelled(), padding_note(side, aligned=aligned), *dropped(others)]
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=score_task(list(scores.values())),
        splits=splits,
        units={},
        vocabulary_sizes={},
        source=f"MulT pickle {path.name}",
        faults=faults,
        notes=tuple(notes),
    )


def _ids(part: SplitTable, faults: Faults) -> list[str] | None:
    """The ids as texts; what consists of parts, as ``video$_$start$_$end``."""
    if "id" not in part.fields:
        return None
    given = part.fields["id"]
    entries: list[Any] = as_list(given)
    if isinstance(given, StoredArray) and len(given.shape) > 1:
        size = len(entries) // part.count
        entries = [entries[row * size : (row + 1) * size] for row in range(part.count)]
    return [
        JOINT.join(
            plain_text(each, f"{part.where}: id: row {row}", "id", faults)
            for each in (as_list(entry) if isinstance(entry, StoredArray | list | tuple) else [entry])
        )
        for row, entry in enumerate(entries)
    ]
