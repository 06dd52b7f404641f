"""Tables of others, CSV or Parquet: single columns of a table of samples, and the rows of one id at a time of
a long one.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.foreign import Faults
from alignmamba.formats.tables.parquet_tables import ParquetTable
from alignmamba.formats.tables.text_tables import TABLE_BYTES, FeatureColumns, TableForm, TextTable

ROW_NUMBER = "#"
"""Placeholder for a column of ids: the number of the row, from 1."""

Table = tuple[np.ndarray, np.ndarray | None]
"""Features, (time, width), and seconds, (time,), where a column has them."""

_PLAIN = TableForm()
_MISSING = frozenset({"na", "n/a", "none", "null"})


def is_table(path: Path) -> bool:
    """Return whether the name is one of a table."""
    return path.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet")


def is_parquet(path: Path) -> bool:
    """Return whether the name is one of a Parquet file."""
    return path.suffix.lower() == ".parquet"


def _opened(path: Path, inside: Path | None, form: TableForm) -> TextTable | ParquetTable:
    return (ParquetTable if is_parquet(path) else TextTable)(path, inside, form)


def note_open_end(path: Path, faults: Faults) -> None:
    """Count a CSV file whose last line has no end: it may have been cut off there, in a number or between two
    samples.
    """
    if is_parquet(path):
        return
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - 1))
        if file.read() not in (b"\n", b"\r"):
            faults.add(
                "last line without an end", where=path.name, done="kept; the file may have been cut off"
            )


def column_names(path: Path, *, inside: Path | None = None, form: TableForm = _PLAIN) -> list[str]:
    """Names of the columns of a table; raises a `DataError` if it is none, as all functions here do."""
    return _opened(path, inside, form).names


def first_rows(path: Path, count: int, *, form: TableForm = _PLAIN) -> dict[str, list[Any]]:
    """The first rows of a table, by column; a Parquet column of other things than numbers and text is
    dropped.
    """
    table = _opened(path, None, form)
    if isinstance(table, TextTable):
        return table.columns(table.names, count)[0]
    columns: dict[str, list[Any]] = {}
    for name in table.names:
        with suppress(DataError):
            columns |= table.columns([name], count)[0]
    return {name: cells for name, cells in columns.items() if cells}


def read_columns(
    path: Path, names: Sequence[str], *, inside: Path | None = None, form: TableForm = _PLAIN
) -> dict[str, list[Any]]:
    """Some columns of a table of samples: text from CSV, text and numbers from Parquet; ``None`` where a cell
    is empty.

    CSV is read line by line, Parquet by column and row group: nothing is kept but the cells of these columns.

    Args:
        path: The table.
        names: The columns; `ROW_NUMBER` gives the numbers of the rows as text.
        inside: A folder that the path may not leave.
        form: How it is laid out.
    """
    table = _opened(path, inside, form)
    wanted = [name for name in names if name != ROW_NUMBER]
    _require(path, wanted, table.names)
    cells, count = table.columns(wanted)
    return cells | ({ROW_NUMBER: [str(row) for row in range(1, count + 1)]} if ROW_NUMBER in names else {})


def _require(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    known = set(columns)
    for name in names:
        if name not in known:
            raise DataError(f"{path}: expected a column {name!r}, found {list(columns)[:20]}")


def is_absent(cell: Any) -> bool:
    """Return whether a cell holds nothing: empty or not a number; a word such as "none" may be the name of a
    class.
    """
    if isinstance(cell, str):
        return cell.strip().lower() in ("", "nan")
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def is_missing(cell: Any) -> bool:
    """Return whether a cell among numbers stands for no value."""
    return is_absent(cell) or (isinstance(cell, str) and cell.strip().lower() in _MISSING)


def as_number(cell: Any) -> float | None:
    """A cell as a number; not a number where it is empty, ``None`` where it is something else."""
    try:
        return None if isinstance(cell, bool) else float(cell)
    except (ValueError, TypeError, OverflowError):
        return math.nan if is_missing(cell) else None


def label_number(cell: Any) -> float | None:
    """A label as a number, as `as_number` gives it; true and false are 1 and 0."""
    return float(cell) if isinstance(cell, bool) else as_number(cell)


def further_labels(cells: Sequence[Any]) -> list[float | str | None]:
    """A column of labels beside the one that is predicted: numbers where all of it are, else text; ``None``
    where there is none.
    """
    numbers = list(map(label_number, cells))
    if None in numbers:
        return [None if is_absent(cell) else str(cell) for cell in cells]
    return [number if number is not None and math.isfinite(number) else None for number in numbers]


def joined_identity(cells: Sequence[Any], names: Sequence[str], row: str) -> str:
    """The id that cells of these columns are, joined by `/`; `row` is where they stand, for messages."""
    for cell, name in zip(cells, names, strict=True):
        if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
            raise DataError(f"{row}: column {name!r} is empty, expected an id")
    return "/".join(map(str, cells))


def _stripped(cell: Any) -> Any:
    """A cell without white space around it; a whole number as text would spell it."""
    if isinstance(cell, str):
        return cell.strip()
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


class LongTable:
    """A table with one row per position of a sequence; the rows of one id lie together and are read when they
    are asked for.

    Args:
        path: The table.
        inside: A folder that the path may not leave.
        id: Columns of the ids, of which several are joined by `/`; `ROW_NUMBER` takes the number of the row,
            and with none all rows are of one sample, of the id ``""``.
        form: How the table is laid out, and which columns are features.

    Raises:
        DataError: If it is no table, lacks a column, or the rows of an id do not lie together.
    """

    def __init__(
        self, *, path: Path, inside: Path, id: Sequence[str], form: FeatureColumns | None = None
    ) -> None:
        self._path, self._called = path, "/".join(id)
        form = FeatureColumns() if form is None else form
        self._table = _opened(path, inside, form)
        self._id = [name for name in id if name != ROW_NUMBER]
        self._time = [form.time] if form.time else []
        self._labels = list(form.labels)
        self.values = self._chosen(form)
        self.runs: dict[str, tuple[int, int, int, int]] = {}
        """Place of the rows of an id: where the first begins, where the last ends and the number of the
        first, as the table gives them; and how many there are.
        """
        for identity, keys in groupby(self._identities(), key=itemgetter(0)):
            if identity in self.runs:
                raise DataError(
                    f"{path}: the rows of {self._called} {identity!r} do not lie together; sort the table by"
                    f" {self._called}"
                )
            _, start, stop, number = next(keys)
            count = 1
            for count, (_, _, stop, _) in enumerate(keys, start=2):  # noqa: B007
                pass
            self.runs[identity] = (start, stop, number, count)

    def _chosen(self, form: FeatureColumns) -> list[str]:
        """The columns of features."""
        names = self._table.names
        _require(self._path, [*self._id, *self._time, *self._labels], names)
        known = set(names)

        def matching(given: Sequence[str]) -> Iterator[str]:
            for name in given:
                found = [each for each in names if fnmatchcase(each, name)] if "*" in name else []
                if name in known or not found:
                    _require(self._path, found := [name], names)
                yield from found

        excluded = {*matching(form.exclude), *self._labels}
        without = {*self._id, *self._time, *excluded}
        if form.columns:
            chosen = [name for name in dict.fromkeys(matching(form.columns)) if name not in excluded]
        else:
            chosen = [name for name in names if name not in without]
        if chosen:
            return chosen
        raise DataError(f"{self._path}: expected columns of features beside {sorted(without)}, found none")

    def _identities(self) -> Iterator[tuple[str, int, int, int]]:
        """Id and place of each row."""
        place = f"{self._path}, {'row' if is_parquet(self._path) else 'line'}"
        for row, (start, stop, number, cells) in enumerate(self._table.keys(self._id), start=1):
            if self._id:
                yield joined_identity(cells, self._id, f"{place} {number}"), start, stop, number
            else:
                yield str(row) if self._called else "", start, stop, number

    def rows(self, identity: str) -> Table | None:
        """Features, (time, width), and seconds of an id; not a number where a cell is empty. ``None`` for an
        id without rows.
        """
        if identity not in self.runs:
            return None
        *place, count = self.runs[identity]
        wanted = [*self.values, *self._time]
        numbers = np.empty((count, len(wanted)))
        first = 0
        for columns in self._table.blocks(wanted, *place):
            if not isinstance(columns, np.ndarray):
                columns = [
                    cells if isinstance(cells, np.ndarray) else self._numbers(cells, identity, name, first)
                    for name, cells in zip(wanted, columns, strict=True)
                ]
            stop = first + len(columns[0])
            numbers[first:stop] = np.transpose(columns)
            first = stop
        return (numbers[:, :-1], numbers[:, -1]) if self._time else (numbers, None)

    def labels(self, identity: str) -> dict[str, list[float | str | None]]:
        """Labels of each row of an id by column, as `further_labels` has them; empty for one without rows."""
        if identity not in self.runs:
            return {}
        *place, _ = self.runs[identity]
        found: dict[str, list[Any]] = {name: [] for name in self._labels}
        for columns in self._table.blocks(self._labels, *place):
            for name, cells in zip(self._labels, columns, strict=True):
                found[name] += cells.tolist() if isinstance(cells, np.ndarray) else cells
        return {name: further_labels(list(map(_stripped, cells))) for name, cells in found.items()}

    def _numbers(self, cells: Sequence[Any], identity: str, name: str, first: int) -> list[float | None]:
        numbers = [as_number(cell) for cell in cells]
        if None in numbers:
            at = numbers.index(None)
            row, found = first + at + 1, str(cells[at]).strip()[:40]
            whose = f"{self._called} {identity!r}, its row {row}" if self._id else f"row {identity or row}"
            raise DataError(f"{self._path}: column {name!r}, {whose}: expected a number, found {found!r}")
        return numbers


class SampleTables:
    """Tables of one sample each, which all have the same columns of features and lie in one folder."""

    def __init__(self, *, inside: Path, form: FeatureColumns) -> None:
        self._inside, self._form = inside, form
        self._first: tuple[Path, Sequence[str]] | None = None

    def labels(self, path: Path) -> dict[str, list[float | str | None]]:
        """Labels of each row by column."""
        return LongTable(path=path, inside=self._inside, id=(), form=self._form).labels("")

    def read(self, path: Path) -> Table:
        """Features, (time, width), in the order of columns of the table that was read first, and seconds."""
        if path.stat().st_size > TABLE_BYTES:
            raise DataError(f"{path}: expected at most {TABLE_BYTES} bytes, found more")
        table = LongTable(path=path, inside=self._inside, id=(), form=self._form)
        self._first = self._first or (path, table.values)
        first, names = self._first
        if set(table.values) != set(names):
            other = min(set(table.values) ^ set(names))
            expected, none = ("a column", "") if other in names else ("no column", " none")
            raise DataError(f"{path}: expected {expected} {other!r} as {first.name} has{none}")
        table.values = list(names)
        found = table.rows("")
        return (np.empty((0, len(names))), np.empty(0)) if found is None else found
