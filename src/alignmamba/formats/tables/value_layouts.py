"""The values of one modality that a description names: files of single samples, one array for all, or a
table.
"""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.pickles.object_arrays import Ragged
from alignmamba.formats.plain_files import regular_file
from alignmamba.formats.sequences.hdf5_process import HDF5Array
from alignmamba.formats.tables.array_description import (
    Description,
    ModalityPart,
    any_of,
    filled,
    placeholders,
    plain_path,
)
from alignmamba.formats.tables.foreign_tables import LongTable, SampleTables, Table, column_names
from alignmamba.formats.tables.named_arrays import Arrays, Opened
from alignmamba.formats.tables.sample_list import SampleList, table_path


@dataclass(frozen=True, kw_only=True)
class Values:
    """Source of the values of a modality by the row of the sample."""

    features: Callable[[int], np.ndarray | None]
    times: Callable[[int], np.ndarray | None] | None = None
    key: Callable[[int], str] | None = None
    """Key by which the values of a sample are looked up: samples of one key have the same ones. ``None``
    where they lie in the order of the samples.
    """
    notes: tuple[str, ...] = ()
    """Note on values that are of no sample."""


def opened(arrays: Arrays, name: str, description: Description, samples: SampleList) -> Values:
    """Open what a modality is described to be.

    Raises:
        DataError: If it is not as described.
    """
    where, modality = f"{samples.path}: modalities.{name}", description.modalities[name]
    if modality.pattern:
        return _from_files(_Files(arrays, where, modality, samples), modality, description.files)
    if modality.values:
        return _from_array(arrays, where, modality, samples.ids)
    return _from_table(where, modality, description.samples.id, samples)


def _shaped(array: np.ndarray | None, modality: ModalityPart, place: str) -> np.ndarray | None:
    """One sample as the archive takes it; ``None`` for one that lacks the modality."""
    if array is None:
        return None
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


# One file for each sample


class _Files:
    """The files of a pattern; each is one of a sample, or an array of one archive is.

    Raises:
        DataError: If the pattern names columns that the samples lack, or no file of any sample.
    """

    def __init__(self, arrays: Arrays, where: str, modality: ModalityPart, samples: SampleList) -> None:
        self._arrays, self._where, self._samples = arrays, where, samples
        self.folder, self._pattern = arrays.folder, modality.pattern
        self.named = self.filled(self._pattern)
        archive, _, key = self._pattern.partition("#")
        one_archive = bool(placeholders(key)) and not placeholders(archive)
        self._keys = dict.fromkeys(arrays.keys(self._pattern)) if one_archive else None
        if not any(self._is_named(name) and os.path.lexists(self._path(name)) for name in self.named):
            raise DataError(
                f"{where}.{'files' if modality.files else 'table'}: {self._pattern!r} names no file of"
                f" {len(self.named)} samples, the first is {samples.ids[0]!r}"
            )

    def filled(self, pattern: str) -> list[str]:
        """The pattern as it is for each sample."""
        for name in placeholders(pattern):
            if name not in self._samples.cells:
                raise DataError(
                    f"{self._where}: {pattern!r}: no column {name!r} of the samples, only"
                    f" {list(self._samples.cells)[:20]}"
                )
        return [filled(pattern, self._samples.cells, row) for row in range(len(self._samples.ids))]

    def _path(self, name: str) -> Path:
        return self.folder / name.partition("#")[0]

    def _is_named(self, name: str) -> bool:
        return self._keys is None or name.partition("#")[2] in self._keys

    def is_there(self, name: str, row: int) -> bool:
        """Return whether a sample has this file.

        Raises:
            DataError: If the name leads to anything but a file of the folder.
        """
        path = self._path(name)
        try:
            regular_file(path, inside=self.folder)
        except DataError as error:
            # A link to nowhere is no missing modality, and neither is a folder.
            if os.path.lexists(path) or "\0" in name or ".." in path.parts:
                raise DataError(f"{self._where}: sample {self._samples.ids[row]!r}: {error}") from error
            return False
        return self._is_named(name)

    def array(self, name: str, row: int) -> np.ndarray | None:
        """The array in the file of a sample; ``None`` for one without it."""
        if not self.is_there(name, row):
            return None
        array = self._arrays.open(name)
        if isinstance(array, Ragged) or array.dtype.kind not in "fiu":
            found = "Python objects" if isinstance(array, Ragged) else str(array.dtype)[:40]
            raise DataError(f"{self.folder / name}: expected numbers, found {found}")
        return array[0 : len(array)] if array.ndim else np.asarray(array)

    def notes(self, besides: Collection[str]) -> tuple[str, ...]:
        """A note on files, or arrays of the archive, that are of no sample; some files are for something
        else.
        """
        pattern = self._pattern.partition("#")[0]
        if self._keys is not None:
            own = {name.partition("#")[2] for name in self.named}
            others, called = [key for key in self._keys if key not in own], f"arrays of {pattern}"
        else:
            others, called = self._others(pattern, besides), f"files {pattern}"
        return _of_no_sample(len(others), called, others[0] if others else "")

    def _others(self, pattern: str, besides: Collection[str]) -> list[str]:
        own = {plain_path(name.partition("#")[0]) for name in [*self.named, *besides]}
        try:
            paths = [path for path in self.folder.glob(any_of(pattern)) if path.is_file()]
            return sorted({plain_path(str(path.relative_to(self.folder))) for path in paths} - own)
        # a pattern that is absolute, or no path at all, names no file of the folder
        except (OSError, ValueError, NotImplementedError):
            return []


def _from_files(files: _Files, modality: ModalityPart, besides: Collection[str]) -> Values:
    named, times, notes = files.named, files.filled(modality.times), files.notes(besides)

    def place(row: int) -> str:
        return str(files.folder / named[row])

    def key(row: int) -> str:
        return plain_path(named[row])

    if modality.has_sample_tables:
        tables = SampleTables(inside=files.folder, form=modality)

        def read(row: int) -> Table | None:
            return tables.read(files.folder / named[row]) if files.is_there(named[row], row) else None

        return _of_tables(read, modality, place, key, notes)
    return Values(
        features=lambda row: _shaped(files.array(named[row], row), modality, place(row)),
        times=(lambda row: files.array(times[row], row)) if modality.times else None,
        key=key,
        notes=notes,
    )


def _of_tables(
    read: Callable[[int], Table | None],
    modality: ModalityPart,
    place: Callable[[int], str],
    key: Callable[[int], str],
    notes: tuple[str, ...],
) -> Values:
    """Values of samples of which each has a table, or rows of one."""
    latest = lru_cache(maxsize=1)(read)  # values and times of a sample are asked for one after the other

    def features(row: int) -> np.ndarray | None:
        table = latest(row)
        return None if table is None else _shaped(table[0], modality, place(row))

    def times(row: int) -> np.ndarray | None:
        table = latest(row)
        return None if table is None or not len(table[0]) else table[1]

    return Values(features=features, times=times if modality.time else None, key=key, notes=notes)


def _of_no_sample(count: int, what: str, first: str, *, rows: int = 0) -> tuple[str, ...]:
    counted = f" ({rows} rows)" if rows else ""
    return (f"{count} {what}{counted} are of no sample and were dropped, {first!r} first.",) if count else ()


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
        part = _ragged_parts(where, modality, len(ids), values, times)
    else:
        part = _dense_parts(arrays, where, modality, len(ids), values, times)

    def seconds(row: int) -> np.ndarray | None:
        found = part(times, row)
        return None if found is None else np.array(found, dtype=np.float64)

    return Values(
        features=lambda row: _shaped(part(values, row), modality, f"{where}.values: sample {ids[row]!r}"),
        times=None if times is None else seconds,
    )


def _dense_parts(
    arrays: Arrays,
    where: str,
    modality: ModalityPart,
    samples: int,
    values: np.ndarray | HDF5Array,
    times: Opened | None,
) -> Callable[[Any, int], np.ndarray | None]:
    """Cut of a sample from arrays of numbers, padded or one sample after the other."""
    axes = 2 if modality.kind == "tokens" else 3
    padded = values.ndim == axes
    if not padded and values.ndim != axes - 1:
        width = ", width" * (axes - 2)
        forms = f"(total time{width or ','}) or (samples, time{width})"
        raise DataError(f"{where}.values: expected shape {forms}, found {values.shape}")
    starts, stops = _bounds(arrays, where, modality, values.shape, samples, padded=padded)
    if isinstance(times, Ragged) or (times is not None and times.shape != values.shape[: 1 + padded]):
        found = "one array for each sample" if isinstance(times, Ragged) else times.shape
        raise DataError(f"{where}.times: expected shape {values.shape[: 1 + padded]}, found {found}")

    def part(array: Any, row: int) -> Any:
        within = slice(int(starts[row]), int(stops[row]))
        return array[row, within] if padded else array[within]

    return part


def _ragged_parts(
    where: str, modality: ModalityPart, samples: int, values: Ragged, times: Opened | None
) -> Callable[[Any, int], np.ndarray | None]:
    """Choice of a sample from arrays of objects, one for each sample."""
    if modality.offsets or modality.lengths:
        raise DataError(
            f"{where}.values: {modality.values} has one array for each sample, which takes no offsets and no"
            " lengths"
        )
    for kind, given in (("values", values), ("times", times)):
        if given is not None and len(given) != samples:
            raise DataError(f"{where}.{kind}: expected {samples}, one per sample, found {len(given)}")
    return lambda array, row: array[row] if isinstance(array, Ragged) else array[row : row + 1][0]


def _bounds(
    arrays: Arrays, where: str, modality: ModalityPart, shape: tuple[int, ...], samples: int, *, padded: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end of each sample: in its row where padded, else in the whole."""
    if padded and shape[0] != samples:
        raise DataError(f"{where}.values: expected {samples} samples, found {shape[0]}")
    each, name = np.arange(samples), modality.offsets or modality.lengths
    if not name and padded:
        return 0 * each, np.full(samples, shape[1])
    if not name and shape[0] == samples:
        return each, each + 1
    if not name:
        raise DataError(
            f"{where}: values of shape {shape} are not one for each of {samples} samples: they need offsets"
            " or lengths"
        )
    if padded and modality.offsets:
        raise DataError(f"{where}: padded values take lengths, found offsets")
    kind = "offsets" if modality.offsets else "lengths"
    place = f"{where}.{kind}: {name}"
    numbers = arrays.listed(f"{where}.{kind}", name, kinds="iuf")
    found = _whole_numbers(numbers, place, samples, samples + (kind == "offsets"))
    if padded and (found > shape[1]).any():
        at = int(found.argmax())
        raise DataError(
            f"{place}: found {found[at]} in row {at}, expected at most {shape[1]}, the positions of the"
            " values"
        )
    if padded:
        return 0 * each, found
    if kind == "lengths":
        total = sum(found.tolist())
        if total != shape[0]:
            raise DataError(
                f"{place}: its lengths add up to {total}, expected {shape[0]}, the positions of the values"
            )
        found = np.cumsum([0, *found.tolist()])
    elif found[0] != 0 or found[-1] != shape[0] or (np.diff(found) < 0).any():
        raise DataError(
            f"{place}: go from {found[0]} to {found[-1]}, expected numbers from 0 to {shape[0]} that never"
            " fall"
        )
    return found[:-1], found[1:]


def _whole_numbers(numbers: list[Any], place: str, samples: int, size: int) -> np.ndarray:
    for at, number in enumerate(numbers):
        if not (float(number).is_integer() and 0 <= number < 1 << 62):
            raise DataError(f"{place}: expected whole numbers of 0 or more, found {number} in row {at}")
    if len(numbers) != size:
        raise DataError(f"{place}: expected {size} numbers for {samples} samples, found {len(numbers)}")
    return np.array(numbers, dtype=np.int64)


# A table of all samples


def _from_table(where: str, modality: ModalityPart, own: Sequence[str], samples: SampleList) -> Values:
    folder, ids = samples.path.parent, samples.ids
    path = table_path(folder, f"{where}.table", modality.table)
    try:
        table = LongTable(path=path, inside=folder, id=_id_columns(path, modality, own), form=modality)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    known = set(ids)
    if known.isdisjoint(table.runs):
        raise DataError(
            f"{where}.table: {modality.table!r} has no row of any sample; its first id is"
            f" {next(iter(table.runs), None)!r}"
        )
    others = [identity for identity in table.runs if identity not in known]
    rows = sum(table.runs[identity][3] for identity in others)
    return _of_tables(
        lambda row: table.rows(ids[row]),
        modality,
        lambda row: f"{path}: {'/'.join(modality.id)} {ids[row]!r}",
        lambda row: ids[row],
        _of_no_sample(len(others), f"ids of {modality.table}", others[0] if others else "", rows=rows),
    )


def _id_columns(path: Path, modality: ModalityPart, own: Sequence[str]) -> Sequence[str]:
    """The columns of the ids: those that are named, else `id`, else those of the samples where the table has
    them.
    """
    if "id" not in modality.model_fields_set:
        names = column_names(path, inside=path.parent, form=modality)
        if "id" not in names and set(own) <= set(names):
            return own
    return modality.id
