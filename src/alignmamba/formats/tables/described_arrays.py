"""Arrays and tables, described by a TOML file, so that nobody needs to write Python.

A sample has an id and perhaps a label, a split, a text and a group, from a table with one row per sample or
from arrays; the values of a modality come from one file per sample, one array for all samples, or a table
with one row per position. `docs/arrays.md` has all keys; `description` checks them.

Paths are relative to the TOML file and may not leave its folder. Nothing that a file holds is run.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmamba.contracts import ROLES, Role, Task
from alignmamba.data.classes import Classes
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.folds import SPLIT_NAMES, UNDIVIDED, left_out, split_roles, unused
from alignmamba.formats.foreign import Faults, Foreign, LabelOptions, refuse_shared_features
from alignmamba.formats.plain_files import LazyRows, read_text
from alignmamba.formats.tables.array_description import (
    LARGEST_DESCRIPTION,
    Description,
    SamplesPart,
    described,
    filled,
    placeholders,
)
from alignmamba.formats.tables.foreign_tables import (
    ROW_NUMBER,
    as_number,
    further_labels,
    is_absent,
    is_missing,
    joined_identity,
    note_open_end,
    read_columns,
)
from alignmamba.formats.tables.foreign_toml import read_toml
from alignmamba.formats.tables.named_arrays import Arrays
from alignmamba.formats.tables.value_layouts import Samples, Values, opened, table_path

FORMAT = "arrays"
SUMMARY = "arrays and tables (.npy, .npz, HDF5, Parquet, CSV) that a TOML file describes"
Options = LabelOptions

EVERY_OTHER = "*"
"""In place of the ids of a split: every sample that no other split lists."""

_LARGEST_LIST = 64 << 20


def recognises(path: Path) -> bool:
    """Whether this is a TOML file with a table `samples` and tables of modalities."""
    try:
        if path.suffix.lower() != ".toml" or not path.is_file():
            return False
        given = read_toml(path, largest=LARGEST_DESCRIPTION)
    except (OSError, ValueError):
        return False
    return isinstance(given.get("samples"), dict) and isinstance(given.get("modalities"), dict)


def files(path: Path) -> Sequence[Path]:
    """The description and all files that it names, as far as they exist.

    Raises:
        DataError: If it is not a description, or the ids of the samples that it names cannot be read.
    """
    description, folder = described(path), path.parent
    found = {path, *_named(path, description)}
    patterns = _patterns(description)
    if patterns:
        samples = _SampleList.of(path, description, "", arrays=Arrays(folder))
        found.update(
            folder / filled(pattern, samples.cells, row).partition("#")[0]
            for row in range(len(samples.ids))
            for pattern in patterns
        )
    home = folder.resolve()
    return sorted(each for each in found if _is_file_inside(each, home))


def _named(path: Path, description: Description) -> set[Path]:
    """The files that a description names by themselves."""
    samples = description.samples
    named = [samples.table, samples.ids, samples.labels, samples.splits, samples.texts, samples.groups]
    named = [name for name in named if name != ROW_NUMBER]
    named += [
        given
        for given in description.splits.values()
        if isinstance(given, str) and not samples.split and not samples.splits
    ]
    for modality in description.modalities.values():
        named += [modality.values, modality.offsets, modality.lengths, modality.table, modality.times]
    return {
        path.parent / name.partition("#")[0]
        for name in named
        if name and name != EVERY_OTHER and not placeholders(name.partition("#")[0])
    }


def _patterns(description: Description) -> list[str]:
    """The patterns of the files of single samples."""
    modalities = description.modalities.values()
    found = [modality.pattern for modality in modalities] + [
        modality.times for modality in modalities if modality.pattern
    ]
    return [pattern for pattern in found if pattern]


def _is_file_inside(path: Path, home: Path) -> bool:
    try:
        return path.is_file() and path.resolve().is_relative_to(home)
    except (OSError, ValueError):  # an id that can be no name of a file
        return False


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """Open what one TOML file describes.

    Args:
        sources: The file.
        options: ``label`` takes another column of the table of samples than the description does.

    Raises:
        DataError: If the description is wrong, or a file is not what it says.
    """
    if len(sources) != 1:
        raise DataError(f"arrays: expected one TOML file, found {len(sources)} files")
    path = sources[0]
    description = described(path)
    arrays = Arrays(path.parent)
    samples = _SampleList.of(path, description, options.label, arrays=arrays)
    faults = Faults()
    task = description.task.task
    known = Samples(
        path=path,
        ids=samples.ids,
        id=description.samples.id,
        cells=samples.cells,
        named=frozenset(_named(path, description)),
    )
    values = {
        name: opened(arrays, name, modality, known) for name, modality in description.modalities.items()
    }
    rows_by_role, notes = _split_rows(path, description, samples)
    for name, found in values.items():
        if found.key is not None:
            notes += _shared(f"{path}: modalities.{name}", samples.ids, rows_by_role, found.key)
        notes += found.notes
    tables = [
        description.samples.table,
        *(modality.table for modality in description.modalities.values() if not modality.pattern),
    ]
    for table in filter(None, dict.fromkeys(tables)):
        note_open_end(path.parent / table, faults)
    return Foreign(
        format=FORMAT,
        name=description.name,
        task=task,
        splits={role: samples.split(rows, values, task) for role, rows in rows_by_role.items() if rows},
        units={name: modality.units for name, modality in description.modalities.items() if modality.units},
        vocabulary_sizes={
            name: modality.vocabulary_size
            for name, modality in description.modalities.items()
            if modality.vocabulary_size is not None
        },
        source=description.source or f"described by {path.name}",
        faults=faults,
        notes=tuple(notes),
    )


def _shared(
    where: str, ids: Sequence[str], rows: Mapping[Role, Sequence[int]], key: Callable[[int], str]
) -> list[str]:
    """Refuse ids that stand for several samples of the same features; what is to be said of features that
    several ids share.
    """
    refuse_shared_features({role: [ids[row] for row in own] for role, own in rows.items()}, where)
    homes: dict[str, Role] = {}
    shared: dict[str, tuple[Role, Role]] = {}
    for role, own in rows.items():
        for each in map(key, own):
            if homes.setdefault(each, role) != role:
                shared.setdefault(each, (homes[each], role))
    if not shared:
        return []
    first, (one, other) = next(iter(shared.items()))
    return [
        f"{where}: {len(shared)} files are of samples of several splits, {first!r} of {one} and {other}"
        " first: a leak?"
    ]


# Samples, labels and splits


@dataclass(frozen=True, kw_only=True)
class _SampleList:
    """What is known of all samples, in order."""

    path: Path
    ids: Sequence[str]
    labels: Sequence[Any] | None
    places: str
    """Where the labels are from, for messages."""
    splits: Sequence[Any] | None
    texts: Sequence[str | None] | None
    groups: Sequence[str | None] | None
    further: Mapping[str, Sequence[float | str | None]]
    cells: Mapping[str, Sequence[Any]]
    """The columns that patterns name, and the ids as ``id``."""

    @classmethod
    def of(cls, path: Path, description: Description, wanted: str, *, arrays: Arrays) -> "_SampleList":
        given, folder = description.samples, path.parent
        if wanted and not given.table:
            raise DataError(f"{path}: label {wanted!r} is to be a column of samples.table, but there is none")
        label = wanted or given.label
        patterned = {name for pattern in _patterns(description) for name in placeholders(pattern)} - {"id"}
        columns = _columns(
            path,
            given,
            *given.id,
            label,
            given.split,
            given.text,
            given.group,
            *given.further,
            patterned=patterned,
        )
        ids = _ids(path, description, columns, arrays)

        def known(column: str, array: str, what: str, kinds: str) -> Sequence[Any] | None:
            if column:
                return columns[column]
            return (
                arrays.listed(f"{path}: samples.{what}", array, kinds=kinds, size=len(ids)) if array else None
            )

        return cls(
            path=path,
            ids=ids,
            labels=known(label, given.labels, "labels", "USiufb"),
            places=f"{folder / given.table}: column {label!r}" if label else f"{path}: samples.labels",
            splits=known(given.split, given.splits, "splits", "USiu"),
            texts=_texts(known(given.text, given.texts, "texts", "US")),
            groups=_texts(known(given.group, given.groups, "groups", "USiu")),
            further={name: further_labels(columns[name]) for name in given.further},
            cells={"id": ids, **{name: columns[name] for name in patterned if name in columns}},
        )

    def split(self, rows: Sequence[int], values: Mapping[str, Values], task: Task) -> SplitArrays:
        """These samples as a split."""
        classes = Classes(task.classes)

        def of_rows(cells: Sequence[Any] | None) -> list[Any] | None:
            return None if cells is None else [cells[row] for row in rows]

        return SplitArrays(
            features={
                name: LazyRows(len(rows), _picked(found.features, rows)) for name, found in values.items()
            },
            targets=None if self.labels is None else [self._target(row, task, classes) for row in rows],
            ids=[self.ids[row] for row in rows],
            times={
                name: LazyRows(len(rows), _picked(found.times, rows))
                for name, found in values.items()
                if found.times is not None
            },
            texts=of_rows(self.texts),
            groups=of_rows(self.groups),
            labels={name: [cells[row] for row in rows] for name, cells in self.further.items()},
        )

    def _target(self, row: int, task: Task, classes: Classes) -> Any:
        """The label of a sample as the archive takes it; ``None`` where it has none."""
        assert self.labels is not None
        cell = self.labels[row]
        number = float(cell) if isinstance(cell, bool) else as_number(cell)
        if task.kind == "regression" and number is not None:
            return None if is_missing(cell) else number
        if task.kind == "classification":
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


def _columns(path: Path, given: SamplesPart, *names: str, patterned: Collection[str]) -> dict[str, list[Any]]:
    """Columns of the table of samples, of those that have a name, and those of patterns; none where there is
    no table.
    """
    if not given.table:
        return {}
    table = table_path(path.parent, f"{path}: samples.table", given.table)
    wanted = [*dict.fromkeys([*filter(None, names), *sorted(patterned)])]
    return read_columns(table, wanted, inside=path.parent, form=given)


def _ids(path: Path, description: Description, columns: Mapping[str, list[Any]], arrays: Arrays) -> list[str]:
    """Ids of all samples, in order."""
    given = description.samples
    if given.table:
        rows = zip(*(columns[name] for name in given.id), strict=True)
        ids = [
            joined_identity(cells, given.id, f"{path.parent / given.table}: row", row)
            for row, cells in enumerate(rows, start=1)
        ]
    elif given.ids == ROW_NUMBER:
        ids = [str(row) for row in range(1, _count(path, description, arrays) + 1)]
    else:
        ids = [str(cell) for cell in arrays.listed(f"{path}: samples.ids", given.ids, kinds="USiu")]
    if not ids:
        raise DataError(f"{path}: samples: expected at least one, found none")
    return ids


def _count(path: Path, description: Description, arrays: Arrays) -> int:
    """How many samples there are, as the first array says that has one entry for each."""
    given = description.samples
    parts = description.modalities.values()
    named = [given.labels, given.splits, given.texts, given.groups, *(part.lengths for part in parts)]
    named += [part.values for part in parts if not part.offsets and not part.lengths]
    name = next(filter(None, named), "")
    if not name:
        raise DataError(
            f"{path}: samples.ids: {ROW_NUMBER!r} needs an array with one entry for each sample, found none"
        )
    try:
        return len(arrays.open(name))
    except DataError as error:
        raise DataError(f"{path}: samples.ids: {error}") from error


def _texts(cells: Sequence[Any] | None) -> list[str | None] | None:
    """Cells as text; ``None`` where one is empty."""
    return None if cells is None else [None if is_absent(cell) else str(cell) for cell in cells]


def _picked(get: Callable[[int], Any], rows: Sequence[int]) -> Callable[[int], Any]:
    return lambda at: get(rows[at])


def _split_rows(
    path: Path, description: Description, samples: _SampleList
) -> tuple[dict[Role, list[int]], list[str]]:
    """Rows of each split, and what is to be said of the others."""
    notes: list[str] = []
    if samples.splits is not None:
        called: dict[str, Role] = {}
        for role, given in description.splits.items():
            for name in [given] if isinstance(given, str) else given:
                if called.setdefault(name, role) != role:
                    raise DataError(f"{path}: splits: {name!r} stands for {called[name]!r} and for {role!r}")
        found = {str(cell) for cell in samples.splits}
        others = [
            name
            for name in sorted(found - set(called))
            if SPLIT_NAMES.get(name.strip().lower()) not in description.splits
        ]
        called |= split_roles(others, f"{path}: splits")
        homes = [called.get(str(cell)) for cell in samples.splits]
    elif not description.splits and samples.labels is None:
        return {"test": [*range(len(samples.ids))]}, [UNDIVIDED]
    else:
        if not description.splits:
            raise DataError(
                f"{path}: expected samples.split or samples.splits, or [splits] with the ids of each split,"
                f" found none; train = {EVERY_OTHER!r} puts all samples there"
            )
        listed: dict[str, Role] = {}
        for role, given in description.splits.items():
            for identity in [] if given == EVERY_OTHER else _id_list(path, given):
                if listed.setdefault(identity, role) != role:
                    raise DataError(
                        f"{path}: splits: id {identity!r} is in {listed[identity]!r} and in {role!r}"
                    )
        rest = [role for role, given in description.splits.items() if given == EVERY_OTHER]
        if len(rest) > 1:
            raise DataError(
                f"{path}: splits: {rest[0]!r} and {rest[1]!r} are both {EVERY_OTHER!r}, all that no other"
                " split lists"
            )
        homes = [listed.get(identity, next(iter(rest), None)) for identity in samples.ids]
        notes = unused(listed, set(samples.ids), f"splits in {path}")
    rows = {role: [row for row, home in enumerate(homes) if home == role] for role in ROLES}
    left = [row for row, home in enumerate(homes) if home is None]
    if len(left) == len(homes):
        first = (
            sorted({str(cell) for cell in samples.splits})[:5]
            if samples.splits is not None
            else list(samples.ids[:3])
        )
        raise DataError(f"{path}: splits: no sample is in any split; the first values are {first}")
    names = (
        [str(samples.splits[row]) for row in left if samples.splits[row] is not None]
        if samples.splits is not None
        else []
    )
    return rows, [*left_out("samples", len(left), samples.ids[left[0]] if left else "", homes, names), *notes]


def _id_list(path: Path, given: str | list[str]) -> list[str]:
    if isinstance(given, list):
        return given
    content = read_text(path.parent / given, largest=_LARGEST_LIST, inside=path.parent)
    return [line.strip() for line in content.splitlines() if line.strip()]
