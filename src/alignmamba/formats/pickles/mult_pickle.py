"""MulT pickles: ``mosi_data.pkl``, ``mosei_senti_data.pkl`` and their ``noalign`` versions.

A dict of ``train``, ``valid`` and ``test``, each a dict of ``text`` (GloVe, width 300), ``audio``,
``vision``, all (clips, time, width), ``labels`` (clips, 1, 1) and ``id`` (clips, 3): video, start and end.
The labels of IEMOCAP are (clips, 4, 2), emotions of CMU-MOSEI (clips, 6).
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
from alignmamba.formats.foreign import Faults, Foreign, UnknownLabelError
from alignmamba.formats.pickles.label_columns import label_columns
from alignmamba.formats.pickles.padded_layout import PaddedLayout, PaddedOptions
from alignmamba.formats.pickles.pickle_glimpse import glimpse
from alignmamba.formats.pickles.pickled_splits import (
    MODALITIES,
    FieldNames,
    ParallelFields,
    SplitTable,
    dropped,
    read_single,
)
from alignmamba.formats.pickles.pickled_values import as_list, plain_text
from alignmamba.formats.pickles.stored_arrays import StoredArray

FORMAT = "mult"
SUMMARY = "MulT pickle (MOSI, MOSEI), aligned or unaligned, padded at the front"
Options = PaddedOptions

_LABEL = "labels"
_NAMES = FieldNames(known=(*MODALITIES, _LABEL, "id"), labels=(_LABEL,))


def recognises(path: Path) -> bool:
    """Return whether the head of a file is a pickle whose splits have no fields but MulT's: its labels, or in
    all of the file none.
    """
    seen = glimpse(path, SPLIT_NAMES)
    if seen is None or not seen.fields <= set(_NAMES.known):
        return False
    return _LABEL in seen.fields or (seen.whole and not seen.fields.isdisjoint(MODALITIES))


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """Open a MulT pickle, whose field of labels is ``labels``; of several labels one is the target.

    Raises:
        DataError: If the file is damaged, asks for anything to be run, or is of another layout.
    """
    path, given = read_single(sources, FORMAT)
    content = ParallelFields(path, given, _NAMES, label="", default=_LABEL)
    asked = "" if options.first_label == _LABEL else options.first_label
    several = label_columns(content, _LABEL, asked)
    if asked and several is None:
        raise UnknownLabelError(f"{path}: no label {asked!r}, expected one of {[_LABEL]}")
    fields = {name: name for name in MODALITIES if name in content.names}
    layout = PaddedLayout(content, fields, options.padding, usual="front")
    task, targets = content.scores() if several is None else (several.task, several.targets)
    faults = Faults()
    splits = {}
    for role, part in content.splits.items():
        ids = _ids(part, faults)
        splits[role] = SplitArrays(
            features=layout.features(part, faults),
            targets=targets.get(role),
            ids=ids,
            groups=None if ids is None else [video_of(identity) for identity in ids],
            labels={} if several is None else several.others.get(role, {}),
        )
    told = () if several is None or len(options.label) > 1 else (several.note,)
    others = dropped([*sorted(content.names - set(_NAMES.known)), *content.others])
    return Foreign(
        format=FORMAT,
        name=path.stem,
        task=task,
        splits=splits,
        source=f"MulT pickle {path.name}",
        faults=faults,
        notes=(*content.empty, *content.unlabelled(), *told, layout.zeros_note(), *others),
    )


def _ids(part: SplitTable, faults: Faults) -> list[str] | None:
    """The ids as texts; what consists of parts, as ``video$_$start$_$end``."""
    if "id" not in part.fields:
        return None
    given, where = part.given("id")
    entries: list[Any] = as_list(given)
    if isinstance(given, StoredArray) and len(given.shape) > 1:
        size = len(entries) // part.count
        entries = [entries[row * size : (row + 1) * size] for row in range(part.count)]
    return [
        JOINT.join(
            plain_text(each, f"{where}: row {row}", "id", faults)
            for each in (as_list(entry) if isinstance(entry, StoredArray | list | tuple) else [entry])
        )
        for row, entry in enumerate(entries)
    ]
