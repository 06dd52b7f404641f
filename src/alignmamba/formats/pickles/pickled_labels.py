"""The tables of labels that GCNet and MERBench publish: pickles, read as data and turned into columns.

- GCNet (`CMUMOSI_features_raw_2way.pkl` and such): a tuple of dicts by conversation, `ids, labels, speakers,
  sentences`, then the conversations of train, perhaps valid, and test.
- MERBench (`label-6way.npz` and such): arrays `train_corpus`, `val_corpus`, `test_corpus` or `whole_corpus`,
  each one Python object, a dict of utterance to `{"emo": ..., "val": ...}`.

Nothing of a pickle is run; see the README of this folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignmamba.errors import DataError
from alignmamba.formats.foreign import Faults
from alignmamba.formats.pickles.object_arrays import read_objects
from alignmamba.formats.pickles.pickle_globals import kind
from alignmamba.formats.pickles.pickle_machine import read_pickle
from alignmamba.formats.pickles.pickled_values import as_list, is_sequence, plain_text
from alignmamba.formats.pickles.stored_arrays import StoredArray
from alignmamba.formats.plain_files import npz_keys

_CORPUS = "_corpus"


def pickled_table(path: Path, faults: Faults) -> dict[str, list[Any]]:
    """The columns id, label, split and conversation of a GCNet pickle; another one is refused."""
    content = read_pickle(path)
    parts = as_list(content) if is_sequence(content) else []
    if len(parts) not in (6, 7) or not isinstance(parts[0], dict) or not isinstance(parts[1], dict):
        raise DataError(
            f"{path}: expected a tuple of ids, labels, speakers and sentences by conversation and the"
            f" conversations of each split, found {kind(content)}"
        )
    split_of = _splits(path, parts[4:], faults)
    columns: dict[str, list[Any]] = {"id": [], "label": [], "split": [], "conversation": []}
    labels = {plain_text(key, f"{path}: labels", "labels", faults): value for key, value in parts[1].items()}
    for key, ids in parts[0].items():
        conversation = plain_text(key, f"{path}: ids", "ids", faults)
        where = f"{path}: conversation {conversation!r}"
        own: Any = labels.get(conversation, [None] * len(ids) if is_sequence(ids) else None)
        if not is_sequence(ids) or not is_sequence(own) or len(ids) != len(own):
            raise DataError(f"{where}: expected as many labels as utterances")
        for identity, label in zip(as_list(ids), as_list(own), strict=True):
            columns["id"].append(plain_text(identity, where, "ids", faults))
            columns["label"].append(_label(label, where))
        columns["split"] += [split_of.get(conversation)] * len(ids)
        columns["conversation"] += [conversation] * len(ids)
    return columns


def _splits(path: Path, given: Sequence[Any], faults: Faults) -> dict[str, str]:
    """The split of each conversation: of train, perhaps valid, and test."""
    split_of: dict[str, str] = {}
    for name, members in zip(("train", "valid", "test")[:: 2 if len(given) == 2 else 1], given, strict=True):
        where = f"{path}: {name}"
        if not (is_sequence(members) or isinstance(members, set | frozenset)):
            found = kind(members)
            raise DataError(f"{where}: expected the conversations of the split, found {found}")
        for each in as_list(members):
            conversation = plain_text(each, where, name, faults)
            if split_of.setdefault(conversation, name) != name:
                raise DataError(
                    f"{path}: conversation {conversation!r} is in {split_of[conversation]!r} and in {name!r}"
                )
    return split_of


def npz_table(path: Path, faults: Faults) -> dict[str, list[Any]] | None:
    """The columns id, split and those of the labels of a MERBench table; ``None`` for an `.npz` file without
    such arrays.
    """
    keys = [key for key in npz_keys(path) if key.endswith(_CORPUS)]
    if not keys:
        return None
    rows: list[tuple[str, str, Mapping[Any, Any]]] = []
    for key in keys:
        _, objects = read_objects(path, key)
        if len(objects) != 1:
            raise DataError(f"{path}: array {key!r}: expected one object, found {len(objects)}")
        corpus = objects[0]
        if not isinstance(corpus, dict) or not all(isinstance(value, dict) for value in corpus.values()):
            expected = f"{path}: array {key!r}: expected a dict of utterance to its labels"
            raise DataError(f"{expected}, found {kind(corpus)}")
        split = "" if key == f"whole{_CORPUS}" else key.removesuffix(_CORPUS)
        rows += [
            (plain_text(name, f"{path}: array {key!r}", "ids", faults), split, value)
            for name, value in corpus.items()
        ]
    names = sorted({str(name) for _, _, value in rows for name in value if isinstance(name, str)})
    columns: dict[str, list[Any]] = {"id": [row[0] for row in rows]}
    if any(split for _, split, _ in rows):
        columns["split"] = [split for _, split, _ in rows]
    for name in names:
        place = f"{path}: utterance"
        cells = [_label(value.get(name), f"{place} {identity!r}: {name}") for identity, _, value in rows]
        # MERBench gives every label to every corpus, a constant where it has none.
        if len(set(map(str, cells))) > 1 or len(names) == 1:
            columns[name] = cells
    return columns


def _label(value: Any, where: str) -> Any:
    if isinstance(value, StoredArray) and value.shape in ((), (1,)):
        value = value.items()[0]
    if value is None or isinstance(value, int | float | str):
        return value if not isinstance(value, str) else str(value)
    raise DataError(f"{where}: expected a number or text as label, found {kind(value)}")
