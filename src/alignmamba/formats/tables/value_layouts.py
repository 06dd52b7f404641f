"""The values of one modality that a description names: files of single samples, one array for all, or a
table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.pickles.object_arrays import Ragged
from alignmamba.formats.plain_files import regular_file
from alignmamba.formats.tables.array_description import (
    ModalityPart,
    any_of,
    filled,
    is_pattern_of_tables,
    placeholders,
    plain_path,
)
from alignmamba.formats.tables.foreign_tables import LongTable, SampleTables, column_names, is_table
from alignmamba.formats.tables.named_arrays import Arrays, Opened


@dataclass(frozen=True, kw_only=True)
class Values:
    """What gives the values of a modality by the row of the sample."""

    features: Callable[[int], np.ndarray | None]
    times: Callable[[int], np.ndarray | None] | None = None
    key: Callable[[int], str] | None = None
    """By what the values of a sample are looked up: samples of one key have the same ones. ``None`` where
    they lie in the order of the samples."""
    notes: tuple[str, ...] = ()
    """What is to be said of values that are of no sample."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What patterns and tables refer to."""

    path: Path
    """The description."""
    ids: Sequence[str]
    id: Sequence[str]
    """The columns of the ids."""
    cells: Mapping[str, Sequence[Any]]
    """Columns that patterns name, the ids as ``id`` among them."""
    named: frozenset[Path]
    """Files that the description names by themselves."""


def opened(arrays: Arrays, name: str, modality: ModalityPart, samples: Samples) -> Values:
    """Open what a modality is described to be.

    Raises:
        DataError: If it is not as described.
    """
    where = f"{samples.path}: modalities.{name}"
    if modality.pattern:
        return _from_files(arrays, where, modality, samples)
    if modality.values:
        return _from_array(arrays, where, modality, samples.ids)
    return _from_table(where, modality, samples)


def table_path(folder: Path, where: str, name: str) -> Path:
    """The path of a table.

    Raises:
        DataError: If the name is none of a table.
    """
    table = folder / name
    if not is_table(table):
        raise DataError(f"{where}: expected a .csv, .tsv, .txt or .parquet file, found {name!r}")
    return table


def _shaped(array: np.ndarray, modality: ModalityPart, place: str) -> np.ndarray:
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


class _Latest:
    """What was read last, for the values and the times of the same sample."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make, self._row, self._made = make, -1, None

    def __call__(self, row: int) -> Any:
        if row != self._row:
            self._made, self._row = self._make(row), row
        return self._made


# One file for each sample


def _from_files(arrays: Arrays, where: str, modality: ModalityPart, samples: Samples) -> Values:
    folder, pattern = arrays.folder, modality.pattern
    _check_placeholders(where, pattern, samples)
    _check_placeholders(where, modality.times, samples)
    named = [filled(pattern, samples.cells, row) for row in range(len(samples.ids))]
    keys = {name.partition("#")[2] for name in named} if placeholders(pattern.partition("#")[2]) else set()
    whole = arrays.keys(pattern) if keys and not placeholders(pattern.partition("#")[0]) else None
    known = None if whole is None else set(whole)

    def there(name: str, row: int) -> bool:
        file, _, key = name.partition("#")
        path = folder / file
        try:
            regular_file(path, inside=folder)
        except DataError as error:
            # A link to nowhere is no missing modality, and neither is a folder.
            if _exists(path) or "\0" in name or ".." in path.parts:
                raise DataError(f"{where}: sample {samples.ids[row]!r}: {error}") from error
            return False
        return known is None or key in known

    def array_of(name: str, row: int) -> np.ndarray | None:
        if not there(name, row):
            return None
        array = arrays.open(name)
        if isinstance(array, Ragged) or array.dtype.kind not in "fiu":
            found = "Python objects" if isinstance(array, Ragged) else str(array.dtype)[:40]
            raise DataError(f"{folder / name}: expected numbers, found {found}")
        return array[0 : len(array)] if array.ndim else np.asarray(array)

    def times(row: int) -> np.ndarray | None:
        return array_of(filled(modality.times, samples.cells, row), row)

    if not any(
        _exists(folder / name.partition("#")[0]) and (known is None or name.partition("#")[2] in known)
        for name in named
    ):
        called = "files" if modality.files else "table"
        raise DataError(
            f"{where}.{called}: {pattern!r} names a file of none of {len(named)} samples, the first is"
            f" {samples.ids[0]!r}"
        )
    if whole is not None:
        others, what = [key for key in whole if key not in keys], f"arrays of {pattern.partition('#')[0]}"
    else:
        others, what = _others(folder, pattern.partition("#")[0], named, samples.named), f"files {pattern}"
    notes = _of_no_sample(len(others), what, others[0] if others else "")

    def key(row: int) -> str:
        return plain_path(named[row])

    if not is_pattern_of_tables(pattern):

        def features(row: int) -> np.ndarray | None:
            array = array_of(named[row], row)
            return None if array is None else _shaped(array, modality, str(folder / named[row]))

        return Values(features=features, times=times if modality.times else None, key=key, notes=notes)
    tables = SampleTables(inside=folder, form=modality)
    read = _Latest(lambda row: tables.read(folder / named[row]) if there(named[row], row) else None)

    def table_features(row: int) -> np.ndarray | None:
        found = read(row)
        return None if found is None else _shaped(found[0], modality, str(folder / named[row]))

    def table_times(row: int) -> np.ndarray | None:
        found = read(row)
        return None if found is None or not len(found[0]) else found[1]

    return Values(features=table_features, times=table_times if modality.time else None, key=key, notes=notes)


def _check_placeholders(where: str, pattern: str, samples: Samples) -> None:
    for name in placeholders(pattern):
        if name not in samples.cells:
            raise DataError(
                f"{where}: {pattern!r}: no column {name!r} of the samples, only {list(samples.cells)[:20]}"
            )


def _others(folder: Path, pattern: str, named: Sequence[str], known: frozenset[Path]) -> list[str]:
    """Files of the pattern that are of no sample."""
    own = {plain_path(name.partition("#")[0]) for name in named}
    try:
        found = [path for path in folder.glob(any_of(pattern)) if path not in known and path.is_file()]
        return sorted(
            name for path in found if (name := plain_path(str(path.relative_to(folder)))) not in own
        )
    # a pattern that is absolute, or no path at all, names no file of the folder
    except (OSError, ValueError, NotImplementedError):
        return []


def _of_no_sample(count: int, what: str, first: str, *, rows: int = 0) -> tuple[str, ...]:
    counted = f" ({rows} rows)" if rows else ""
    return (f"{count} {what}{counted} are of no sample and were dropped, {first!r} first.",) if count else ()


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):
        return False


# One array for all samples


def _numbers(arrays: Arrays, where: str, name: str) -> Opened:
    try:
        array = arrays.open(name)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    if not isinstance(array, Ragged) and array.dtype.kind not in "fiu":
        raise DataError(f"{where}: {name}: expected numbers, found {str(array.dtype)[:40]}")
    return array


def _from_array(arrays: Arrays, where: str, modality: ModalityPart, ids: Sequence[str]) -> Values:
    values = _numbers(arrays, f"{where}.values", modality.values)
    times = _numbers(arrays, f"{where}.times", modality.times) if modality.times else None
    if isinstance(values, Ragged):
        return _from_ragged(where, modality, ids, values, times)
    axes = 2 if modality.kind == "tokens" else 3
    padded = values.ndim == axes
    if not padded and values.ndim != axes - 1:
        forms = (
            "(total time,) or (samples, time)"
            if axes == 2
            else "(total time, width) or (samples, time, width)"
        )
        raise DataError(f"{where}.values: expected shape {forms}, found {values.shape}")
    starts, stops = _bounds(arrays, where, modality, values.shape, len(ids), padded=padded)
    if isinstance(times, Ragged) or (times is not None and times.shape != values.shape[: 1 + padded]):
        found = "one array for each sample" if isinstance(times, Ragged) else times.shape
        raise DataError(f"{where}.times: expected shape {values.shape[: 1 + padded]}, found {found}")

    def part(array: Any, row: int) -> np.ndarray:
        start, stop = int(starts[row]), int(stops[row])
        found: np.ndarray = array[row, start:stop] if padded else array[start:stop]
        return found

    def features(row: int) -> np.ndarray | None:
        return _shaped(part(values, row), modality, f"{where}.values: sample {ids[row]!r}")

    def seconds(row: int) -> np.ndarray | None:
        return None if times is None else np.array(part(times, row), dtype=np.float64)

    return Values(features=features, times=None if times is None else seconds)


def _from_ragged(
    where: str, modality: ModalityPart, ids: Sequence[str], values: Ragged, times: Opened | None
) -> Values:
    """An array of objects, one for each sample."""
    if modality.offsets or modality.lengths:
        raise DataError(
            f"{where}.values: {modality.values} has one array for each sample, which takes no offsets and no"
            " lengths"
        )
    for kind, given in (("values", values), ("times", times)):
        if given is not None and len(given) != len(ids):
            raise DataError(f"{where}.{kind}: expected {len(ids)}, one per sample, found {len(given)}")

    def features(row: int) -> np.ndarray | None:
        found = values[row]
        return None if found is None else _shaped(found, modality, f"{where}.values: sample {ids[row]!r}")

    def seconds(row: int) -> np.ndarray | None:
        found = (
            None if times is None else times[row] if isinstance(times, Ragged) else times[row : row + 1][0]
        )
        return None if found is None else np.array(found, dtype=np.float64)

    return Values(features=features, times=None if times is None else seconds)


def _bounds(
    arrays: Arrays, where: str, modality: ModalityPart, shape: tuple[int, ...], samples: int, *, padded: bool
) -> tuple[np.ndarray, np.ndarray]:
    """First position of each sample, and last but one: in its row where padded, else in the whole."""
    if padded and shape[0] != samples:
        raise DataError(f"{where}.values: expected {samples} samples, found {shape[0]}")
    name = modality.offsets or modality.lengths
    if not name:
        if not padded and shape[0] == samples:
            return np.arange(samples), np.arange(1, samples + 1)
        if not padded:
            raise DataError(
                f"{where}: values of shape {shape} are not one for each of {samples} samples: they need"
                " offsets or lengths"
            )
        return np.zeros(samples, dtype=np.int64), np.full(samples, shape[1], dtype=np.int64)
    kind = "offsets" if modality.offsets else "lengths"
    if kind == "offsets" and padded:
        raise DataError(f"{where}: padded values take lengths, found offsets")
    numbers = arrays.listed(f"{where}.{kind}", name, kinds="iuf")
    where = f"{where}.{kind}: {name}"
    for at, number in enumerate(numbers):
        if not (float(number).is_integer() and 0 <= number < 1 << 62):
            raise DataError(f"{where}: expected whole numbers of 0 or more, found {number} in row {at}")
    found = np.array([int(number) for number in numbers], dtype=np.int64)
    if len(found) != samples + (kind == "offsets"):
        raise DataError(
            f"{where}: expected {samples + (kind == 'offsets')} numbers for {samples} samples, found"
            f" {len(found)}"
        )
    if padded:
        if (found > shape[1]).any():
            at = int(found.argmax())
            raise DataError(
                f"{where}: found {found[at]} in row {at}, expected at most {shape[1]}, the positions of the"
                " values"
            )
        return np.zeros(samples, dtype=np.int64), found
    if kind == "lengths":
        total = sum(found.tolist())
        if total != shape[0]:
            raise DataError(
                f"{where}: its lengths add up to {total}, expected {shape[0]}, the positions of the values"
            )
        found = np.cumsum([0, *found.tolist()], dtype=np.int64)
    elif found[0] != 0 or found[-1] != shape[0] or (np.diff(found) < 0).any():
        raise DataError(
            f"{where}: go from {found[0]} to {found[-1]}, expected numbers from 0 to {shape[0]} that never"
            " fall"
        )
    return found[:-1], found[1:]


# A table of all samples


def _from_table(where: str, modality: ModalityPart, samples: Samples) -> Values:
    folder = samples.path.parent
    try:
        path = table_path(folder, f"{where}.table", modality.table)
        table = LongTable(
            path=path,
            inside=folder,
            id=_id_columns(path, modality, samples),
            form=modality,
        )
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error
    known = set(samples.ids)
    if known.isdisjoint(table.runs):
        raise DataError(
            f"{where}.table: {modality.table!r} has rows of none of the samples; its first id is"
            f" {next(iter(table.runs), None)!r}"
        )
    others = [identity for identity in table.runs if identity not in known]
    rows = sum(table.runs[identity][3] for identity in others)
    read = _Latest(lambda row: table.rows(samples.ids[row]))
    called = "/".join(modality.id)

    def features(row: int) -> np.ndarray | None:
        found = read(row)
        return (
            None if found is None else _shaped(found[0], modality, f"{path}: {called} {samples.ids[row]!r}")
        )

    def times(row: int) -> np.ndarray | None:
        found = read(row)
        return None if found is None else found[1]

    return Values(
        features=features,
        times=times if modality.time else None,
        key=lambda row: samples.ids[row],
        notes=_of_no_sample(len(others), f"ids of {modality.table}", others[0] if others else "", rows=rows),
    )


def _id_columns(path: Path, modality: ModalityPart, samples: Samples) -> Sequence[str]:
    """The columns of the ids: those that are named, else `id`, else those of the samples where the table has
    them.
    """
    if "id" not in modality.model_fields_set:
        names = column_names(path, inside=samples.path.parent, form=modality)
        if "id" not in names and set(samples.id) <= set(names):
            return samples.id
    return modality.id
