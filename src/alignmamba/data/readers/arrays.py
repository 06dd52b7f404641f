"""Arrays and tables, described by a TOML file, so that nobody needs to write Python.

A sample has an id and perhaps a label and a split, from a table with one row per sample or from arrays; the values of a modality come
from one file per sample, one array for all samples, or a table with one row per position. `docs/arrays.md` has all keys; `Description`
below checks them.

An array is a `.npy` file, or `FILE.npz#KEY`. Paths are relative to the TOML file and may not leave its folder. Nothing is unpickled.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alignmamba.contracts import ROLES, Name, Role, Task
from alignmamba.data.checking import SplitArrays
from alignmamba.data.classes import Classes
from alignmamba.data.readers.folds import SPLIT_NAMES, left_out, split_roles, unused
from alignmamba.data.readers.foreign import Faults, Foreign, ReadOptions
from alignmamba.data.readers.plain import LazyRows, one_line, open_npy, open_npz, read_text, regular_file
from alignmamba.data.readers.tables import LongTable, as_number, is_absent, is_missing, is_table, note_open_end, read_columns
from alignmamba.data.readers.toml import read_toml
from alignmamba.errors import DataError, first_fault

FORMAT = "arrays"
SUMMARY = "arrays and tables (.npy, .npz, Parquet, CSV) that a TOML file describes"
OPTIONS = frozenset({"label"})

_LARGEST_DESCRIPTION = 64 << 10
_LARGEST_LIST = 64 << 20


class _Part(BaseModel):
    """A table of the description: types as they stand in TOML, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _TaskPart(_Part):
    kind: Literal["regression", "classification"]
    classes: list[str] = []
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    sentiment: bool | None = None

    @property
    def task(self) -> Task:
        low_high = None if self.range is None else (self.range[0], self.range[1])
        return Task(kind=self.kind, classes=tuple(self.classes), label_range=low_high, sentiment=self.sentiment)

    @model_validator(mode="after")
    def _is_task(self) -> Self:
        try:
            self.task  # noqa: B018
        except ValidationError as error:
            raise ValueError(first_fault(error)) from error
        return self


class _Samples(_Part):
    table: str = ""
    ids: str = ""
    id: str = "id"
    label: str = ""
    labels: str = ""
    split: str = ""
    splits: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.table) == bool(self.ids):
            raise ValueError("expected one of table and ids")
        if self.ids and (self.label or self.split):
            raise ValueError("label and split are columns of a table, but there is none")
        for one, other in (("label", "labels"), ("split", "splits")):
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"expected one of {one} and {other}, found both")
        return self


class _Modality(_Part):
    kind: Literal["features", "tokens"] = "features"
    units: str = ""
    vocabulary_size: Annotated[int, Field(ge=1)] | None = None
    files: str = ""
    values: str = ""
    offsets: str = ""
    lengths: str = ""
    table: str = ""
    id: str = "id"
    time: str = ""
    columns: list[str] = []
    times: str = ""

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        given = [name for name in ("files", "values", "table") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"expected one of files, values and table, found {' and '.join(given) or 'none'}")
        own = {"files": ("times",), "values": ("offsets", "lengths", "times"), "table": ("id", "time", "columns")}
        for other in {"offsets", "lengths", "times", "id", "time", "columns"} & self.model_fields_set:
            if other not in own[given[0]]:
                raise ValueError(f"{other} does not go with {given[0]}, only {', '.join(own[given[0]])}")
        if self.files and "{id}" not in self.files:
            raise ValueError(f"files: expected a pattern with {{id}}, found {self.files!r}")
        if self.offsets and self.lengths:
            raise ValueError("expected one of offsets and lengths, found both")
        if self.kind == "features" and self.vocabulary_size is not None:
            raise ValueError("vocabulary_size is for tokens")
        return self


class Description(_Part):
    """What a TOML file says; `docs/arrays.md` has all keys."""

    name: Annotated[str, Field(min_length=1)]
    source: str = ""
    task: _TaskPart
    samples: _Samples
    splits: dict[Role, str | list[str]] = {}
    modalities: Annotated[dict[Name, _Modality], Field(min_length=1)]


def recognises(path: Path) -> bool:
    """Whether this is a TOML file with a table `samples` and tables of modalities."""
    try:
        if path.suffix.lower() != ".toml" or not path.is_file():
            return False
        given = read_toml(path, largest=_LARGEST_DESCRIPTION)
    except (OSError, ValueError):
        return False
    return isinstance(given.get("samples"), dict) and isinstance(given.get("modalities"), dict)


def files(path: Path) -> Sequence[Path]:
    """The description and all files that it names, as far as they exist.

    Raises:
        DataError: If it is not a description, or the ids of the samples that it names cannot be read.
    """
    description, folder = described(path), path.parent
    samples = description.samples
    named = [samples.table, samples.ids, samples.labels, samples.splits]
    named += [given for given in description.splits.values() if isinstance(given, str) and not samples.split and not samples.splits]
    found = {path}
    patterns: list[str] = []
    for modality in description.modalities.values():
        named += [modality.values, modality.offsets, modality.lengths, modality.table]
        if modality.files:
            patterns += filter(None, (modality.files, modality.times))
        else:
            named.append(modality.times)
    found.update(folder / name.partition("#")[0] for name in named if name)
    if patterns:
        ids = _ids(path, samples, _columns(path, samples, samples.id))
        found.update(folder / pattern.replace("{id}", identity) for identity in ids for pattern in patterns)
    home = folder.resolve()
    return sorted(each for each in found if _is_file_inside(each, home))


def _is_file_inside(path: Path, home: Path) -> bool:
    try:
        return path.is_file() and path.resolve().is_relative_to(home)
    except (OSError, ValueError):  # an id that can be no name of a file
        return False


def read(sources: Sequence[Path], options: ReadOptions) -> Foreign:
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
    samples = _SampleList.of(path, description, options.label)
    faults = Faults()
    task = description.task.task
    values = {name: _opened(path, name, modality, samples.ids) for name, modality in description.modalities.items()}
    rows_by_role, notes = _split_rows(path, description, samples)
    for table in dict.fromkeys([description.samples.table, *(modality.table for modality in description.modalities.values())]):
        if table:
            note_open_end(path.parent / table, faults)
    return Foreign(
        format=FORMAT,
        name=description.name,
        task=task,
        splits={role: samples.split(rows, values, task) for role, rows in rows_by_role.items() if rows},
        units={name: modality.units for name, modality in description.modalities.items() if modality.units},
        vocabulary_sizes={
            name: modality.vocabulary_size for name, modality in description.modalities.items() if modality.vocabulary_size is not None
        },
        source=description.source or f"described by {path.name}",
        faults=faults,
        notes=tuple(notes),
    )


def described(path: Path) -> Description:
    """The description in a TOML file.

    Raises:
        DataError: If it is no TOML, or no description.
    """
    given = read_toml(path, largest=_LARGEST_DESCRIPTION)
    try:
        return Description.model_validate(given)
    except ValidationError as error:
        raise DataError(f"{path}: {first_fault(error)}") from error


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

    @classmethod
    def of(cls, path: Path, description: Description, wanted: str) -> "_SampleList":
        given, folder = description.samples, path.parent
        if wanted and not given.table:
            raise DataError(f"{path}: label {wanted!r} is to be a column of samples.table, but there is none")
        label = wanted or given.label
        columns = _columns(path, given, given.id, label, given.split)
        ids = _ids(path, given, columns)
        labels: Sequence[Any] | None = None
        if label:
            labels = columns[label]
        elif given.labels:
            labels = _listed(path, "samples.labels", given.labels, kinds="USiufb", size=len(ids))
        splits: Sequence[Any] | None = None
        if given.split:
            splits = columns[given.split]
        elif given.splits:
            splits = _listed(path, "samples.splits", given.splits, kinds="USiu", size=len(ids))
        return cls(
            path=path,
            ids=ids,
            labels=labels,
            places=f"{folder / given.table}: column {label!r}" if label else f"{path}: samples.labels",
            splits=splits,
        )

    def split(self, rows: Sequence[int], values: Mapping[str, "_Values"], task: Task) -> SplitArrays:
        """These samples as a split."""
        classes = Classes(task.classes)
        return SplitArrays(
            features={name: LazyRows(len(rows), _picked(found.features, rows)) for name, found in values.items()},
            targets=None if self.labels is None else [self._target(row, task, classes) for row in rows],
            ids=[self.ids[row] for row in rows],
            times={name: LazyRows(len(rows), _picked(found.times, rows)) for name, found in values.items() if found.times is not None},
        )

    def _target(self, row: int, task: Task, classes: Classes) -> Any:
        """The label of a sample as the archive takes it; ``None`` where it has none."""
        assert self.labels is not None
        cell = self.labels[row]
        number = float(cell) if isinstance(cell, bool) else as_number(cell)
        if task.kind == "regression" and number is not None:
            return None if is_missing(cell) else number
        if task.kind == "classification":
            # A number may be the name of a class, as which it is the same whether a file has it as text, integer or float.
            if classes.place_of_name(str(cell)) is not None:
                return str(cell)
            if is_absent(cell):
                return None
            if number is not None and (place := classes.place_of_number(number)) is not None:
                return classes.names[place]
        or_number = " or its number" if classes.numbers_are_places else ""
        expected = "a number" if task.kind == "regression" else f"one of {classes}{or_number}"
        raise DataError(f"{self.places}: sample {self.ids[row]!r}: expected {expected}, found {str(cell)[:40]!r}")


def _columns(path: Path, given: _Samples, *names: str) -> dict[str, list[Any]]:
    """Columns of the table of samples, of those that have a name; none where there is no table."""
    if not given.table:
        return {}
    return read_columns(_table(path, "samples.table", given.table), [*dict.fromkeys(filter(None, names))], inside=path.parent)


def _ids(path: Path, given: _Samples, columns: Mapping[str, list[Any]]) -> list[str]:
    """Ids of all samples, in order."""
    if given.table:
        cells = columns[given.id]
        for row, cell in enumerate(cells, start=1):
            if cell is None:
                raise DataError(f"{path.parent / given.table}: row {row}: column {given.id!r} is empty, expected an id")
    else:
        cells = _listed(path, "samples.ids", given.ids, kinds="USiu")
    if not cells:
        raise DataError(f"{path}: samples: expected at least one, found none")
    return [str(cell) for cell in cells]


def _picked(get: Callable[[int], Any], rows: Sequence[int]) -> Callable[[int], Any]:
    return lambda at: get(rows[at])


def _table(path: Path, where: str, name: str) -> Path:
    table = path.parent / name
    if not is_table(table):
        raise DataError(f"{path}: {where}: expected a .csv, .tsv or .parquet file, found {name!r}")
    return table


def _split_rows(path: Path, description: Description, samples: _SampleList) -> tuple[dict[Role, list[int]], list[str]]:
    """Rows of each split, and what is to be said of the others."""
    notes: list[str] = []
    if samples.splits is not None:
        called: dict[str, Role] = {}
        for role, given in description.splits.items():
            for name in [given] if isinstance(given, str) else given:
                if called.setdefault(name, role) != role:
                    raise DataError(f"{path}: splits: {name!r} stands for {called[name]!r} and for {role!r}")
        found = {str(cell) for cell in samples.splits}
        others = [name for name in sorted(found - set(called)) if SPLIT_NAMES.get(name.strip().lower()) not in description.splits]
        called |= split_roles(others, f"{path}: splits")
        homes = [called.get(str(cell)) for cell in samples.splits]
    else:
        if not description.splits:
            raise DataError(f"{path}: expected samples.split or samples.splits, or [splits] with the ids of each split, found none")
        listed: dict[str, Role] = {}
        for role, given in description.splits.items():
            for identity in _id_list(path, given):
                if listed.setdefault(identity, role) != role:
                    raise DataError(f"{path}: splits: id {identity!r} is in {listed[identity]!r} and in {role!r}")
        homes = [listed.get(identity) for identity in samples.ids]
        notes = unused(listed, set(samples.ids), f"splits in {path}")
    rows = {role: [row for row, home in enumerate(homes) if home == role] for role in ROLES}
    left = [row for row, home in enumerate(homes) if home is None]
    if len(left) == len(homes):
        first = sorted({str(cell) for cell in samples.splits})[:5] if samples.splits is not None else list(samples.ids[:3])
        raise DataError(f"{path}: splits: no sample is in any split; the first values are {first}")
    names = [str(samples.splits[row]) for row in left if samples.splits[row] is not None] if samples.splits is not None else []
    return rows, [*left_out("samples", len(left), samples.ids[left[0]] if left else "", homes, names), *notes]


def _id_list(path: Path, given: str | list[str]) -> list[str]:
    if isinstance(given, list):
        return given
    content = read_text(path.parent / given, largest=_LARGEST_LIST, inside=path.parent)
    return [line.strip() for line in content.splitlines() if line.strip()]


# Arrays


@dataclass(frozen=True, kw_only=True)
class _Values:
    """What gives the values of a modality by the row of the sample."""

    features: Callable[[int], np.ndarray | None]
    times: Callable[[int], np.ndarray | None] | None = None


def _array(path: Path, where: str, name: str, *, kinds: str = "fiu") -> np.ndarray:
    """An array that the description names: `FILE.npy` or `FILE.npz#KEY`."""
    file, _, key = name.partition("#")
    try:
        array = open_npz(path.parent / file, key, inside=path.parent) if key else open_npy(path.parent / file, inside=path.parent)
    except DataError as error:
        raise DataError(f"{path}: {where}: {error}") from error
    if array.dtype.kind not in kinds:
        raise DataError(f"{path}: {where}: {name}: expected {'text' if kinds[0] == 'U' else 'numbers'}, found {str(array.dtype)[:40]}")
    return array


def _listed(path: Path, where: str, name: str, *, kinds: str, size: int | None = None) -> list[Any]:
    """A small one-dimensional array as a list, of `size` entries where that is known."""
    array = _array(path, where, name, kinds=kinds)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{path}: {where}: {name}: expected one dimension, found shape {array.shape}")
    if size is not None and len(array) != size:
        raise DataError(f"{path}: {where}: {name}: expected {size}, one per sample, found {len(array)}")
    try:
        return [cell.decode() if isinstance(cell, bytes) else cell for cell in array.tolist()]
    except (UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: {where}: {name}: expected text in UTF-8: {one_line(error)}") from error


def _opened(path: Path, name: str, modality: _Modality, ids: Sequence[str]) -> _Values:
    where = f"modalities.{name}"
    if modality.files:
        return _from_files(path, where, modality, ids)
    if modality.values:
        return _from_array(path, where, modality, ids)
    return _from_table(path, where, modality, ids)


def _shaped(array: np.ndarray, modality: _Modality, place: str) -> np.ndarray:
    """One sample as the archive takes it."""
    if modality.kind == "tokens":
        with np.errstate(invalid="ignore"):
            if array.dtype.kind == "f" and not ((np.abs(array) < 1 << 31) & (array % 1 == 0)).all():
                raise DataError(f"{place}: expected whole numbers as tokens, found others")
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise DataError(f"{place}: expected tokens of shape (time,), found {array.shape}")
        return np.array(array, dtype=np.int64)
    if array.ndim == 1:
        array = array[None, :] if len(array) else np.empty((0, 1))
    if array.ndim != 2:
        raise DataError(f"{place}: expected shape (time, width), found {array.shape}")
    return np.array(array, dtype=np.float64 if array.dtype.kind != "f" else array.dtype)


def _from_files(path: Path, where: str, modality: _Modality, ids: Sequence[str]) -> _Values:
    folder = path.parent

    def found(pattern: str, row: int) -> np.ndarray | None:
        file = folder / pattern.replace("{id}", ids[row])
        try:
            regular_file(file, inside=folder)
        except DataError as error:
            # A link to nowhere is no missing modality, and neither is a folder.
            if file.exists() or file.is_symlink() or "\0" in ids[row] or ".." in file.parts:
                raise DataError(f"{path}: {where}: {error}") from error
            return None
        array = open_npy(file, inside=folder)
        if array.dtype.kind not in "fiu":
            raise DataError(f"{file}: expected numbers, found {str(array.dtype)[:40]}")
        return array

    def features(row: int) -> np.ndarray | None:
        array = found(modality.files, row)
        return None if array is None else _shaped(array, modality, str(folder / modality.files.replace("{id}", ids[row])))

    def times(row: int) -> np.ndarray | None:
        return found(modality.times, row)

    if not any(_exists(folder / modality.files.replace("{id}", identity)) for identity in ids):
        raise DataError(f"{path}: {where}.files: {modality.files!r} names a file of none of {len(ids)} samples, the first is {ids[0]!r}")
    return _Values(features=features, times=times if modality.times else None)


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):
        return False


def _from_array(path: Path, where: str, modality: _Modality, ids: Sequence[str]) -> _Values:
    values = _array(path, f"{where}.values", modality.values)
    axes = 2 if modality.kind == "tokens" else 3
    padded = values.ndim == axes
    if not padded and values.ndim != axes - 1:
        forms = "(total time,) or (samples, time)" if axes == 2 else "(total time, width) or (samples, time, width)"
        raise DataError(f"{path}: {where}.values: expected shape {forms}, found {values.shape}")
    starts, stops = _bounds(path, where, modality, values, len(ids), padded=padded)
    times = _array(path, f"{where}.times", modality.times) if modality.times else None
    if times is not None and times.shape != values.shape[: 1 + padded]:
        raise DataError(f"{path}: {where}.times: expected shape {values.shape[: 1 + padded]}, found {times.shape}")

    def part(array: np.ndarray, row: int) -> np.ndarray:
        start, stop = int(starts[row]), int(stops[row])
        return array[row, start:stop] if padded else array[start:stop]

    def features(row: int) -> np.ndarray | None:
        return _shaped(part(values, row), modality, f"{path}: {where}.values: sample {ids[row]!r}")

    def seconds(row: int) -> np.ndarray | None:
        return None if times is None else np.array(part(times, row), dtype=np.float64)

    return _Values(features=features, times=None if times is None else seconds)


def _bounds(
    path: Path, where: str, modality: _Modality, values: np.ndarray, samples: int, *, padded: bool
) -> tuple[np.ndarray, np.ndarray]:
    """First position of each sample, and last but one: in its row where padded, else in the whole."""
    if padded and len(values) != samples:
        raise DataError(f"{path}: {where}.values: expected {samples} samples, found {len(values)}")
    given = modality.offsets or modality.lengths
    if not given:
        if not padded and len(values) == samples:
            return np.arange(samples), np.arange(1, samples + 1)
        if not padded:
            raise DataError(
                f"{path}: {where}: values of shape {values.shape} are not one for each of {samples} samples: they need offsets or lengths"
            )
        return np.zeros(samples, dtype=np.int64), np.full(samples, values.shape[1], dtype=np.int64)
    kind = "offsets" if modality.offsets else "lengths"
    if kind == "offsets" and padded:
        raise DataError(f"{path}: {where}: padded values take lengths, found offsets")
    numbers = _listed(path, f"{where}.{kind}", given, kinds="iuf")
    if not all(float(number).is_integer() and 0 <= number < 1 << 62 for number in numbers):
        raise DataError(f"{path}: {where}.{kind}: expected whole numbers of 0 or more")
    found = np.array([int(number) for number in numbers], dtype=np.int64)
    if len(found) != samples + (kind == "offsets"):
        raise DataError(
            f"{path}: {where}.{kind}: expected {samples + (kind == 'offsets')} numbers for {samples} samples, found {len(found)}"
        )
    if padded:
        if (found > values.shape[1]).any():
            raise DataError(f"{path}: {where}.lengths: found {found.max()}, but the values have {values.shape[1]} positions")
        return np.zeros(samples, dtype=np.int64), found
    offsets = [0]
    for length in found.tolist():
        offsets.append(offsets[-1] + length)
    bounds = found if kind == "offsets" else np.array(offsets, dtype=object)
    if bounds[0] != 0 or bounds[-1] != len(values) or (np.diff(bounds) < 0).any():
        said = f"end at {bounds[-1]}" if kind == "lengths" else f"go from {bounds[0]} to {bounds[-1]}"
        raise DataError(f"{path}: {where}.{kind}: {said}, expected numbers from 0 to {len(values)} that never fall")
    return bounds[:-1], bounds[1:]


def _from_table(path: Path, where: str, modality: _Modality, ids: Sequence[str]) -> _Values:
    try:
        table = LongTable(
            path=_table(path, f"{where}.table", modality.table),
            inside=path.parent,
            id=modality.id,
            time=modality.time,
            values=modality.columns,
        )
    except DataError as error:
        raise DataError(f"{path}: {where}: {error}") from error
    if not any(identity in table.runs for identity in ids):
        raise DataError(
            f"{path}: {where}.table: {modality.table!r} has rows of none of the samples; its first id is {next(iter(table.runs), None)!r}"
        )
    kept: list[tuple[int, Any]] = []

    def found(row: int) -> Any:
        if not kept or kept[0][0] != row:
            kept[:] = [(row, table.rows(ids[row]))]
        return kept[0][1]

    def features(row: int) -> np.ndarray | None:
        rows = found(row)
        return None if rows is None else _shaped(rows[0], modality, f"{path.parent / modality.table}: {modality.id} {ids[row]!r}")

    def times(row: int) -> np.ndarray | None:
        rows = found(row)
        return None if rows is None else rows[1]

    return _Values(features=features, times=times if modality.time else None)
