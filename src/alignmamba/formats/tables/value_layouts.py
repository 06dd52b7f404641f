"""The values of one modality that a description names: files of single samples, one array for all, or a
table.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import accumulate
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
    SamplesPart,
    any_of,
    filled,
    placeholders,
    plain_path,
)
from alignmamba.formats.tables.foreign_tables import LongTable, SampleTables, Table, column_names
from alignmamba.formats.tables.named_arrays import Arrays, Opened
from alignmamba.formats.tables.sample_list import SampleList, table_path

Labels = Mapping[str, Sequence[float | str | None]]
"""Labels of the positions of a sample by name."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """Source of the values of a modality by the row of the sample."""

    features: Callable[[int], np.ndarray | None]
    times: Callable[[int], np.ndarray | None] | None = None
    labels: Mapping[str, Callable[[int], Sequence[Any] | None]] = field(default_factory=dict)
    """Labels of the positions by name, of tables that have such columns."""
    key: Callable[[int], str] | None = None
    """Key by which the values of a sample are looked up: samples of one key have the same ones. ``None``
    where they lie in the order of the samples.
    """
    notes: tuple[str, ...] = ()
    """Note on values that are of no sample."""


def opened(arrays: Arrays, name: str, description: Description, samples: SampleList) -> Values:
    """Open what a modality is described to be; raises a `DataError` if it is not."""
    where, modality = f"{samples.path}: modalities.{name}", description.modalities[name]
    if modality.pattern:
        return _Files(arrays, where, modality, samples).values(description.files)
    if modality.values:
        return _from_array(arrays, where, modality, samples.ids)
    return _from_table(where, modality, description.samples, samples)


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
    """The files of a pattern, at least one of which must exist; each is one of a sample, or an array of one
    archive is.
    """

    def __init__(self, arrays: Arrays, where: str, modality: ModalityPart, samples: SampleList) -> None:
        self._arrays, self._where, self._modality, self._samples = arrays, where, modality, samples
        self._folder, pattern = arrays.folder, modality.pattern
        self._named = self._filled(pattern)
        archive, _, key = pattern.partition("#")
        one_archive = bool(placeholders(key)) and not placeholders(archive)
        self._keys = dict.fromkeys(arrays.keys(pattern)) if one_archive else None
        if not any(self._is_named(name) and os.path.lexists(self._path(name)) for name in self._named):
            raise DataError(
                f"{where}.{'files' if modality.files else 'table'}: {pattern!r} names no file of"
                f" {len(self._named)} samples, the first is {samples.ids[0]!r}"
            )

    def _filled(self, pattern: str) -> list[str]:
        """The pattern as it is for each sample."""
        cells = self._samples.cells
        for name in placeholders(pattern):
            if name not in cells:
                found = f"no column {name!r} of the samples, only {list(cells)[:20]}"
                raise DataError(f"{self._where}: {pattern!r}: {found}")
        return [filled(pattern, cells, row) for row in range(len(self._samples.ids))]

    def _path(self, name: str) -> Path:
        return self._folder / name.partition("#")[0]

    def _is_named(self, name: str) -> bool:
        return self._keys is None or name.partition("#")[2] in self._keys

    def _is_there(self, name: str, row: int) -> bool:
        """Return whether a sample has this file; a name that leads to anything but a file of the folder is
        refused.
        """
        path = self._path(name)
        try:
            regular_file(path, inside=self._folder)
        except DataError as error:
            # A link to nowhere is no missing modality, and neither is a folder.
            if os.path.lexists(path) or "\0" in name or ".." in path.parts:
                raise DataError(f"{self._where}: sample {self._samples.ids[row]!r}: {error}") from error
            return False
        return self._is_named(name)

    def _array(self, name: str, row: int) -> np.ndarray | None:
        """The array in the file of a sample; ``None`` for one without it."""
        if not self._is_there(name, row):
            return None
        array = self._arrays.open(name)
        if isinstance(array, Ragged) or array.dtype.kind not in "fiu":
            found = "Python objects" if isinstance(array, Ragged) else str(array.dtype)[:40]
            raise DataError(f"{self._folder / name}: expected numbers, found {found}")
        return array[0 : len(array)] if array.ndim else np.asarray(array)

    def values(self, besides: Collection[str]) -> Values:
        """The values of all samples; files in `besides` are for something else."""
        modality, named, folder = self._modality, self._named, self._folder
        times, notes = self._filled(modality.times), self._notes(besides)

        def place(row: int) -> str:
            return str(folder / named[row])

        def key(row: int) -> str:
            return plain_path(named[row])

        if not modality.has_sample_tables:
            return Values(
                features=lambda row: _shaped(self._array(named[row], row), modality, place(row)),
                times=(lambda row: self._array(times[row], row)) if modality.times else None,
                key=key,
                notes=notes,
            )
        tables = SampleTables(inside=folder, form=modality)

        def read(row: int) -> Table | None:
            return tables.read(folder / named[row]) if self._is_there(named[row], row) else None

        def labels(row: int) -> Labels:
            return tables.labels(folder / named[row]) if self._is_there(named[row], row) else {}

        return _of_tables(read, labels, modality, place, key, notes)

    def _notes(self, besides: Collection[str]) -> tuple[str, ...]:
        """Note on files, or arrays of the archive, that are of no sample."""
        pattern = self._modality.pattern.partition("#")[0]
        if self._keys is not None:
            own = {name.partition("#")[2] for name in self._named}
            return _of_no_sample([key for key in self._keys if key not in own], f"arrays of {pattern}")
        own = {plain_path(name.partition("#")[0]) for name in [*self._named, *besides]}
        try:
            paths = [path for path in self._folder.glob(any_of(pattern)) if path.is_file()]
        # a pattern that is absolute, or no path at all, names no file of the folder
        except (OSError, ValueError, NotImplementedError):
            return ()
        found = {plain_path(str(path.relative_to(self._folder))) for path in paths}
        return _of_no_sample(sorted(found - own), f"files {pattern}")


def _of_tables(
    read: Callable[[int], Table | None],
    labels: Callable[[int], Labels],
    modality: ModalityPart,
    place: Callable[[int], str],
    key: Callable[[int], str],
    notes: tuple[str, ...],
) -> Values:
    """Values of samples of which each has a table, or rows of one."""
    latest = lru_cache(maxsize=1)(read)  # values and times of a sample are asked for one after the other
    latest_labels = lru_cache(maxsize=1)(labels)

    def features(row: int) -> np.ndarray | None:
        table = latest(row)
        return None if table is None else _shaped(table[0], modality, place(row))

    def times(row: int) -> np.ndarray | None:
        table = latest(row)
        return None if table is None or not len(table[0]) else table[1]

    def of_label(name: str, row: int) -> Sequence[Any] | None:
        return latest_labels(row).get(name)

    return Values(
        features=features,
        times=times if modality.time else None,
        labels={name: partial(of_label, name) for name in modality.labels},
        key=key,
        notes=notes,
    )


def _of_no_sample(others: Sequence[str], what: str, more: str = "") -> tuple[str, ...]:
    return tuple(
        f"{len(others)} {what}{more} are of no sample and were dropped, {first!r} first."
        for first in others[:1]
    )


# One array for all samples


def _from_array(arrays: Arrays, where: str, modality: ModalityPart, ids: Sequence[str]) -> Values:
    values = arrays.numbers(f"{where}.values", modality.values)
    times = arrays.numbers(f"{where}.times", modality.times) if modality.times else None
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
    width = "" if modality.kind == "tokens" else ", width"
    padded = values.ndim == (3 if width else 2)
    if not padded and values.ndim != (2 if width else 1):
        forms = f"(total time{width or ','}) or (samples, time{width})"
        raise DataError(f"{where}.values: expected shape {forms}, found {values.shape}")
    starts, stops = _bounds(arrays, where, modality, values.shape, samples, padded=padded)
    expected = values.shape[: 1 + padded]
    if times is not None:
        found = "one array for each sample" if isinstance(times, Ragged) else times.shape
        if found != expected:
            raise DataError(f"{where}.times: expected shape {expected}, found {found}")

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
    kind, total = "offsets" if modality.offsets else "lengths", shape[0]
    place = f"{where}.{kind}: {name}"
    numbers = arrays.listed(f"{where}.{kind}", name, kinds="iuf")
    for at, number in enumerate(numbers):
        if not (float(number).is_integer() and 0 <= number < 1 << 62):
            raise DataError(f"{place}: expected whole numbers of 0 or more, found {number} in row {at}")
    if len(numbers) != (size := samples + (kind == "offsets")):
        raise DataError(f"{place}: expected {size} numbers for {samples} samples, found {len(numbers)}")
    numbers = list(map(int, numbers))
    if padded:
        at = int(np.argmax(numbers))
        if numbers[at] > shape[1]:
            raise DataError(
                f"{place}: found {numbers[at]} in row {at}, expected at most {shape[1]}, the positions of the"
                " values"
            )
        return 0 * each, np.array(numbers)
    if kind == "lengths":
        if (found := sum(numbers)) != total:
            raise DataError(
                f"{place}: its lengths add up to {found}, expected {total}, the positions of the values"
            )
        numbers = [0, *accumulate(numbers)]
    elif numbers[0] != 0 or numbers[-1] != total or sorted(numbers) != numbers:
        raise DataError(
            f"{place}: go from {numbers[0]} to {numbers[-1]}, expected numbers from 0 to {total} that never"
            " fall"
        )
    return np.array(numbers[:-1]), np.array(numbers[1:])


# A table of all samples


def _from_table(where: str, modality: ModalityPart, given: SamplesPart, samples: SampleList) -> Values:
    folder, ids = samples.path.parent, samples.ids
    path = table_path(folder, f"{where}.table", modality.table)
    try:
        table = LongTable(path=path, inside=folder, id=_id_columns(path, modality, given.id), form=modality)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    shared = samples.answers if plain_path(modality.table) == plain_path(given.table) else ()
    if answer := next((name for name in table.values if name in shared), ""):
        raise DataError(
            f"{where}: column {answer!r} is a label that is predicted, expected features without it, as by"
            f" exclude = {json.dumps([answer], ensure_ascii=False)}"
        )
    known = set(ids)
    if known.isdisjoint(table.runs):
        first = next(iter(table.runs), None)
        raise DataError(
            f"{where}.table: {modality.table!r} has no row of any sample; its first id is {first!r}"
        )
    others = [identity for identity in table.runs if identity not in known]
    rows = sum(table.runs[identity][3] for identity in others)
    return _of_tables(
        lambda row: table.rows(ids[row]),
        lambda row: table.labels(ids[row]),
        modality,
        lambda row: f"{path}: {'/'.join(modality.id)} {ids[row]!r}",
        lambda row: ids[row],
        _of_no_sample(others, f"ids of {modality.table}", f" ({rows} rows)"),
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
