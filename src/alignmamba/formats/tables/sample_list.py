"""The samples that a description lists: their ids, and what is known of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmamba.contracts import MOST_CLASSES, Task
from alignmamba.data.classes import Classes
from alignmamba.data.further_targets import PRESENCE
from alignmamba.errors import DataError
from alignmamba.formats.foreign import UnknownLabelError
from alignmamba.formats.tables.array_description import Description, placeholders
from alignmamba.formats.tables.foreign_tables import (
    ROW_NUMBER,
    column_names,
    further_labels,
    is_absent,
    is_missing,
    is_table,
    joined_identity,
    label_number,
    read_columns,
)
from alignmamba.formats.tables.named_arrays import Arrays

_KINDS = {"label": "USiufb", "split": "USiu", "text": "US", "group": "USiu"}
"""Facts about samples from a column or an array, and the kinds of entries of such an array."""


@dataclass(frozen=True, kw_only=True)
class SampleList:
    """Facts about all samples, in order."""

    path: Path
    """The description."""
    ids: Sequence[str]
    labels: Sequence[Any] | None
    places: str
    """Source of the labels, for messages."""
    splits: Sequence[Any] | None
    texts: Sequence[str | None] | None
    groups: Sequence[str | None] | None
    answers: tuple[str, ...]
    """Columns of the table that hold what is predicted."""
    further: Mapping[str, Sequence[float | str | None]]
    cells: Mapping[str, Sequence[Any]]
    """The columns that patterns name, and the ids as ``id``."""

    @classmethod
    def of(
        cls, path: Path, description: Description, arrays: Arrays, labels: Sequence[str] = ()
    ) -> "SampleList":
        """The samples of a description; the first of `labels` is a column in place of the one that is
        described for the labels, the others are columns of further ones.
        """
        given = description.samples
        if labels and not given.table:
            raise UnknownLabelError(
                f"{path}: expected samples.table with a column {labels[0]!r} for the label, found no table"
            )
        names = {kind: getattr(given, kind) for kind in _KINDS} | ({"label": labels[0]} if labels else {})
        further = dict.fromkeys([*given.further, *labels[1:]])
        patterned = {name for pattern in description.patterns for name in placeholders(pattern)} - {"id"}
        wanted = filter(None, [*given.id, *names.values(), *further, *sorted(patterned)])
        columns: dict[str, list[Any]] = {}
        if given.table:
            table = table_path(path.parent, f"{path}: samples.table", given.table)
            known = column_names(table, inside=path.parent, form=given)
            for name in labels:
                if name not in known:
                    raise UnknownLabelError(f"{table}: expected a column {name!r}, found {known[:20]}")
            columns = read_columns(table, list(dict.fromkeys(wanted)), inside=path.parent, form=given)
        ids = _ids(path, description, columns, arrays)
        facts: dict[str, Any] = dict.fromkeys(_KINDS)
        for kind, kinds in _KINDS.items():
            if names[kind]:
                facts[kind] = columns[names[kind]]
            elif array := getattr(given, f"{kind}s"):
                where = f"{path}: samples.{kind}s"
                facts[kind] = arrays.listed(where, array, kinds=kinds, size=len(ids))
        column = f"{path.parent / given.table}: column {names['label']!r}"
        return cls(
            path=path,
            ids=ids,
            labels=facts["label"],
            places=column if names["label"] else f"{path}: samples.labels",
            splits=facts["split"],
            texts=_texts(facts["text"]),
            groups=_texts(facts["group"]),
            answers=tuple(filter(None, [names["label"], *labels[1:]])),
            further={name: further_labels(columns[name]) for name in further},
            cells={name: columns[name] for name in patterned if name in columns} | {"id": ids},
        )

    def own_task(self) -> Task:
        """The task that the labels alone say: words are classes, numbers a regression."""
        known = [cell for cell in self.labels or () if not is_absent(cell)]
        if None not in map(label_number, known):
            return Task(kind="regression")
        classes = tuple(sorted(set(map(str, known))))
        if len(self.answers) > 1 and set(classes) <= set(PRESENCE):  # of several, one may never be there
            return Task(kind="classification", classes=PRESENCE)
        if not 2 <= len(classes) <= MOST_CLASSES:
            raise DataError(
                f"{self.places}: expected numbers or 2 to {MOST_CLASSES} different words, found"
                f" {len(classes)}, {classes[0][:40]!r} first"
            )
        return Task(kind="classification", classes=classes)

    def target(self, row: int, task: Task, classes: Classes) -> Any:
        """The label of a sample as the archive takes it; ``None`` where it has none."""
        assert self.labels is not None
        cell = self.labels[row]
        number = label_number(cell)
        if task.kind == "regression" and number is not None:
            return None if is_missing(cell) else number
        if task.has_one_class:
            # A number may be the name of a class, as which it is the same whether a file has it as text,
            # integer or float.
            if classes.place_of_name(str(cell)) is not None:
                return str(cell)
            if is_absent(cell):
                return None
            if number is not None and (place := classes.place_of_number(number)) is not None:
                return classes.names[place]
        or_number = " or its number" if classes.numbers_are_places else ""
        expected = "a number" if task.kind == "regression" else f"one of {classes}{or_number}"
        raise DataError(
            f"{self.places}: sample {self.ids[row]!r}: expected {expected}, found {str(cell)[:40]!r}"
        )


def table_path(folder: Path, where: str, name: str) -> Path:
    """The path of a table; `where` names it, for messages."""
    table = folder / name
    if not is_table(table):
        raise DataError(f"{where}: expected a .csv, .tsv, .txt or .parquet file, found {name!r}")
    return table


def _ids(path: Path, description: Description, columns: Mapping[str, list[Any]], arrays: Arrays) -> list[str]:
    """Ids of all samples, in order."""
    given = description.samples
    if given.table:
        rows = enumerate(zip(*(columns[name] for name in given.id), strict=True), start=1)
        place = f"{path.parent / given.table}: row"
        ids = [joined_identity(cells, given.id, f"{place} {row}") for row, cells in rows]
    elif given.ids == ROW_NUMBER:
        ids = [str(row + 1) for row in range(_count(path, description, arrays))]
    else:
        ids = [str(cell) for cell in arrays.listed(f"{path}: samples.ids", given.ids, kinds="USiu")]
    if not ids:
        raise DataError(f"{path}: samples: expected at least one, found none")
    return ids


def _count(path: Path, description: Description, arrays: Arrays) -> int:
    """Number of samples, as the first array says that has one entry for each."""
    parts = description.modalities.values()
    named = [getattr(description.samples, f"{kind}s") for kind in _KINDS] + [part.lengths for part in parts]
    named += [part.values for part in parts if not part.offsets and not part.lengths]
    name = next(filter(None, named), "")
    if not name:
        raise DataError(
            f"{path}: samples.ids: {ROW_NUMBER!r} needs an array with one entry for each sample, found none"
        )
    return arrays.count(f"{path}: samples.ids", name)


def _texts(cells: Sequence[Any] | None) -> list[str | None] | None:
    """Cells as text; ``None`` where one is empty."""
    return None if cells is None else [None if is_absent(cell) else str(cell) for cell in cells]
