"""A pickle that is a dict of splits: the checks that its formats share."""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.contracts import ROLES, Role, Task
from alignmamba.errors import DataError
from alignmamba.formats.folds import SPLIT_NAMES
from alignmamba.formats.foreign import Faults, UnknownLabelError
from alignmamba.formats.pickles.pickle_globals import kind
from alignmamba.formats.pickles.pickle_machine import read_pickle
from alignmamba.formats.pickles.pickled_values import (
    as_list,
    is_ascii,
    is_nothing,
    is_sequence,
    labels,
    numbers,
    plain_text,
    readable,
    score_task,
)
from alignmamba.formats.pickles.stored_arrays import StoredArray

MODALITIES = ("text", "audio", "vision")

# A name as near as this to one of the format's is a damaged or mistyped one, not another field. In
# `difflib`'s measure, in which two letters that changed places in a name of five cost 0.2.
_NEAR = 0.8


def read_single(sources: Sequence[Path], form: str) -> tuple[Path, Any]:
    """The one file that a format consists of, and what is in it; more files, or none, are refused."""
    if len(sources) != 1:
        named = ", ".join(map(str, sources[:3]))
        raise DataError(f"{form}: expected one file, found {len(sources)}: {named}")
    return sources[0], read_pickle(sources[0])


def split_tables(
    path: Path, content: Any, *, is_split: Callable[[Any], bool], others: Sequence[str] = ()
) -> tuple[dict[Role, Any], list[str], list[str]]:
    """Content of a pickle by split, which is called one of `SPLIT_NAMES`, whatever the case of its letters.

    Args:
        path: The file.
        content: What it holds.
        is_split: Whether a value looks like a split of the format, which may be one of those that lack.
        others: Further keys of the format.

    Returns:
        Content of each split that has clips, in the order of `ROLES`; notes on splits that have none and are
        dropped; the other keys.

    Raises:
        DataError: If it is no dict, has no split with any clips, one twice under two names, or lacks one and
            has one of another name.
    """
    expected = f"{path}: expected a dict of {', '.join(ROLES)}"
    if not isinstance(content, dict):
        raise DataError(f"{expected}, found {kind(content)}")
    names: dict[Role, str] = {}
    strangers: list[str] = []
    unnamed: list[str] = []
    for key, value in content.items():
        role = SPLIT_NAMES.get(key.lower()) if isinstance(key, str) else None
        if role in names:
            raise DataError(
                f"{path}: {names[role]!r} and {key!r} are both the {role} split, expected one of them"
            )
        if role is not None:
            names[role] = key
        elif key not in others:
            strangers.append(readable(key)[:40] if isinstance(key, str) else kind(key))
            unnamed += strangers[-1:] if is_split(value) else []
    if unnamed and len(names) < len(ROLES):
        raise DataError(
            f"{path}: {unnamed[0]!r} looks like a split, expected one of the names {', '.join(SPLIT_NAMES)}"
        )
    if not names:
        raise DataError(f"{expected}, found the keys {strangers[:5]}")
    _refuse_near_names(str(path), strangers, [key for key, role in SPLIT_NAMES.items() if role not in names])
    empty = [role for role in ROLES if role in names and _is_empty(content[names[role]])]
    if len(empty) == len(names):
        raise DataError(
            f"{path}: no split has any clips, only empty ones: {', '.join(names[role] for role in empty)}"
        )
    tables = {role: content[names[role]] for role in ROLES if role in names and role not in empty}
    return tables, [f"split {names[role]!r} has no clips: dropped" for role in empty], strangers


def dropped(names: Sequence[str]) -> list[str]:
    """Note on what is not read, if there is any."""
    return [f"dropped: {', '.join(names)}"] if names else []


def _has_fields(value: Any, known: Collection[str]) -> bool:
    """Return whether a value looks like a split of parallel fields: has several that are known, not
    modalities alone, as long as each other.
    """
    table = value if isinstance(value, dict) else {}
    sizes = {
        name: len(field)
        for name, field in table.items()
        if isinstance(name, str) and name in known and is_sequence(field)
    }
    lengths = set(sizes.values())
    return len(sizes) > 1 and len(lengths) == 1 and 0 not in lengths and not sizes.keys() <= set(MODALITIES)


def _is_empty(table: Any) -> bool:
    """Return whether a split is a list without clips, or a dict of fields without any."""
    if isinstance(table, dict):
        return all(len(value) == 0 for value in table.values() if is_sequence(value))
    return is_sequence(table) and len(table) == 0


def _refuse_near_names(where: str, names: Collection[str], absent: Sequence[str]) -> None:
    """Refuse a name that is nearly an absent one, which would be dropped without a word."""
    for name in (name[:40] for name in names):
        one_changed = [
            each
            for each in absent
            if len(each) == len(name) and sum(a != b for a, b in zip(each, name, strict=True)) == 1
        ]
        near = one_changed or difflib.get_close_matches(name, absent, n=1, cutoff=_NEAR)
        if near:
            raise DataError(
                f"{where}: found an unknown field {name!r}; perhaps {near[0]!r}, mistyped or damaged"
            )


@dataclass(frozen=True, kw_only=True)
class FieldNames:
    """Names that a format has for the parallel fields of its splits."""

    known: Sequence[str]
    labels: Sequence[str]
    """Those of `known` that may hold labels; a split without any of them is unlabelled."""
    beside: Sequence[str] = ()
    """Its keys beside the splits."""


class SplitTable:
    """The fields of one split, checked to be parallel as far as that can be done without reading them.

    Raises:
        DataError: If it is no dict, has labels but not the one that is asked for, or fields of the format are
            not of one length.
    """

    def __init__(self, path: Path, role: Role, table: Any, names: FieldNames, label: str) -> None:
        self.role, self.where = role, f"{path}: split {role!r}"
        known = names.known
        if not isinstance(table, dict):
            raise DataError(f"{self.where}: expected a dict of fields, found {kind(table)}")
        self.fields: dict[str, Any] = {
            readable(key): value for key, value in table.items() if isinstance(key, str) and value is not None
        }
        strangers = [name for name in self.fields if name not in known]
        _refuse_near_names(self.where, strangers, [name for name in known if name not in table])
        if label not in names.labels:
            raise UnknownLabelError(f"{self.where}: no label {label!r}, expected one of {list(names.labels)}")
        self.labels = [name for name in self.fields if name in names.labels]
        """The fields of labels that are there."""
        if self.labels and label not in self.labels:
            raise UnknownLabelError(f"{self.where}: no label {label!r}, only {self.labels}")
        own = [name for name in known if name in self.fields]
        if not own:
            raise DataError(
                f"{self.where}: expected the fields {', '.join(known)}, or some of them, found"
                f" {strangers[:5]}"
            )
        first = label if self.labels else own[0]
        if not is_sequence(self.fields[first]):
            found = kind(self.fields[first])
            raise DataError(f"{self.where}: {first}: expected one entry per clip, found {found}")
        self.count = len(self.fields[first])
        if self.count == 0:
            raise DataError(f"{self.where}: has no clips")
        for name in own:
            value = self.fields[name]
            if not is_sequence(value) or len(value) != self.count:
                found = f"{len(value)} entries" if is_sequence(value) else kind(value)
                raise DataError(
                    f"{self.where}: {name}: expected {self.count} entries, as many as in {first}, found"
                    f" {found}"
                )

    def given(self, name: str) -> tuple[Any, str]:
        """A field as the file holds it, and its place for messages."""
        return self.fields[name], f"{self.where}: {name}"

    def numbers(self, name: str) -> np.ndarray:
        value, where = self.given(name)
        return numbers(value, self.count, where)

    def labels_of(self, name: str, faults: Faults) -> list[float | int | str | None]:
        return labels(*self.given(name), name, faults)

    def texts(self, name: str, faults: Faults, *, optional: bool = False) -> list[str]:
        """A field of one text per clip; where a clip may have none, an empty one for ``None`` and NaN."""
        value, where = self.given(name)
        if isinstance(value, StoredArray) and len(value.shape) != 1:
            raise DataError(f"{where}: expected one text per clip, found an array of shape {value.shape}")
        return [
            item
            if is_ascii(item)
            else ""
            if optional and is_nothing(item)
            else plain_text(item, f"{where}: row {row}", name, faults)
            for row, item in enumerate(as_list(value))
        ]


class ParallelFields:
    """A pickle whose splits are dicts of parallel fields.

    The labels are in the field that the user asks for, or else in the default one.

    Raises:
        DataError: If it is of another layout, the splits differ in their fields, or no split has the label
            that is asked for.
    """

    def __init__(self, path: Path, given: Any, names: FieldNames, *, label: str, default: str) -> None:
        tables, self.empty, self.others = split_tables(
            path, given, is_split=lambda value: _has_fields(value, names.known), others=names.beside
        )
        self.path = path
        self.label = label or default
        self.splits = {
            role: SplitTable(path, role, table, names, self.label) for role, table in tables.items()
        }
        self._refuse_different(names.known)
        self.names = {name for part in self.splits.values() for name in part.fields}
        """The fields that are there."""
        self.labelled = {role: part for role, part in self.splits.items() if part.labels}
        if label and not self.labelled:
            raise UnknownLabelError(f"{path}: expected label {label!r}, found no label in any split")

    def _refuse_different(self, known: Sequence[str]) -> None:
        """Refuse a field of the format that is missing from a split; a split may be unlabelled."""
        first, *_ = self.splits.values()
        for part in self.splits.values():
            free = set() if part.labels and first.labels else {*part.labels, *first.labels}
            if different := sorted((part.fields.keys() ^ first.fields.keys()) & set(known) - free):
                raise DataError(
                    f"{self.path}: field {different[0]!r} is in one of the splits {first.role!r} and"
                    f" {part.role!r} and not in the other"
                )

    def scores(self, *, known: Task | None = None) -> tuple[Task, Mapping[Role, Sequence[float]]]:
        """The task, that which is known or else what the scores say, and the scores of each labelled split,
        NaN where there is none.
        """
        found = {role: part.numbers(self.label) for role, part in self.labelled.items()}
        task = known or score_task(list(found.values()))
        return task, {role: values.tolist() for role, values in found.items()}

    def unlabelled(self) -> list[str]:
        """Note on splits without labels, if there are any."""
        if not self.labelled:
            return [f"unlabelled: no split has a field of labels such as {self.label}"]
        without = [role for role in self.splits if role not in self.labelled]
        return [f"unlabelled: {', '.join(without)}"] if without else []
