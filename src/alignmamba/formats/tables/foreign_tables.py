"""Tables of others, CSV or Parquet: single columns of a table of samples, and the rows of one id at a time of
a long one.

CSV is UTF-8 with a line of column names, before which empty lines may stand; cells are separated by commas,
semicolons or tabs, whichever that line has most of. A `TableForm` says otherwise: that there is no such line,
what its columns are called, what separates cells. Lines end in LF, CR LF or CR. Cells in quotes may hold line
breaks in a table of samples, but not in a long one, whose rows are found by their lines.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.extras import require
from alignmamba.formats.foreign import Faults
from alignmamba.formats.plain_files import one_line, regular_file

TABLE_BYTES = 256 << 20
"""Largest CSV file that a table of samples may be."""
UNPACKED_PER_BYTE = 100
"""A Parquet file may declare this many bytes for each of its own, and 16 MiB."""

_LINE_BYTES = 16 << 20
_GROUP_BYTES = 256 << 20
_SHARED_CELLS = 4096
_BOM = b"\xef\xbb\xbf"
_NO_NAMES = "expected a line of column names, found none"
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null"})


ROW_NUMBER = "#"
"""In place of a column of ids: the number of the row, from 1."""
WHITE_SPACE = " "
"""The separator that stands for any number of spaces and tabs."""


@dataclass(frozen=True, kw_only=True)
class TableForm:
    """How a table of text is laid out."""

    header: bool | tuple[str, ...] = True
    """Whether the first line that is not empty has the names of the columns; else they are called ``1``,
    ``2`` and so on, or as these names say."""
    separator: str = ""
    """What stands between cells; empty for comma, semicolon or tab, whichever the first line has most of, or
    else, in a table without a line of names, white space."""


_PLAIN = TableForm()


def is_table(path: Path) -> bool:
    """Whether the name is one of a table."""
    return path.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet")


def note_open_end(path: Path, faults: Faults) -> None:
    """Count a CSV file whose last line has no end: it may have been cut off there, in a number or between two
    samples.
    """
    if path.suffix.lower() == ".parquet":
        return
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - 1))
        if file.read() not in (b"\n", b"\r"):
            faults.add(
                "last line without an end", where=path.name, done="kept; the file may have been cut off"
            )


def column_names(path: Path, *, inside: Path | None = None, form: TableForm = _PLAIN) -> list[str]:
    """Names of the columns of a table.

    Raises:
        DataError: If it is no table.
    """
    if path.suffix.lower() == ".parquet":
        return _Parquet(path, inside, form).columns
    regular_file(path, inside=inside)
    return _Head.of(path, form).names


def first_rows(path: Path, count: int, *, form: TableForm = _PLAIN) -> dict[str, list[Any]]:
    """The first rows of a table, by column.

    Args:
        path: The table.
        count: How many rows there may be.
        form: How it is laid out.

    Raises:
        DataError: If it is no table; a Parquet column of other things than numbers and text is dropped.
    """
    if path.suffix.lower() != ".parquet":
        rows = _csv_rows(path, None, form)
        names = next(rows)
        found = list(islice(rows, count))
        return {name: [row[at].strip() or None for row in found] for at, name in enumerate(names)}
    table = _Parquet(path, None, form)
    columns: dict[str, list[Any]] = {}
    for name in table.columns if table.groups else []:
        with suppress(DataError):
            columns[name] = _as_list(table.group(0, [name])[name])[:count]
    return columns


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

    Raises:
        DataError: If it is no table, too large for one, or lacks a column.
    """
    wanted = [name for name in names if name != ROW_NUMBER]
    cells, count = _columns(path, wanted, inside, form)
    return cells | ({ROW_NUMBER: [str(row) for row in range(1, count + 1)]} if ROW_NUMBER in names else {})


def _columns(
    path: Path, names: Sequence[str], inside: Path | None, form: TableForm
) -> tuple[dict[str, list[Any]], int]:
    """The columns, and the number of rows."""
    if path.suffix.lower() == ".parquet":
        table = _Parquet(path, inside, form)
        _require(path, names, table.columns)
        parts = [table.group(group, names) for group in range(table.groups)]
        return {name: [cell for part in parts for cell in _as_list(part[name])] for name in names}, table.rows
    rows = _csv_rows(path, inside, form)
    columns, count = next(rows), 0
    _require(path, names, columns)
    found: list[tuple[int, list[Any], dict[str, str]]] = [(columns.index(name), [], {}) for name in names]
    for count, row in enumerate(rows, start=1):  # noqa: B007
        for place, cells, known in found:
            cell = row[place].strip()
            # Labels and splits repeat: one text for all cells that say the same.
            cells.append(
                (known.setdefault(cell, cell) if len(known) < _SHARED_CELLS else known.get(cell, cell))
                or None
            )
    return {name: cells for name, (_, cells, _) in zip(names, found, strict=True)}, count


def _as_list(cells: Any) -> list[Any]:
    return cells.tolist() if isinstance(cells, np.ndarray) else list(cells)


def _require(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    for name in names:
        if name not in columns:
            raise DataError(f"{path}: expected a column {name!r}, found {list(columns)[:20]}")


def _csv_rows(path: Path, inside: Path | None, form: TableForm) -> Iterator[list[str]]:
    """The names of the columns, then the cells of each row."""
    regular_file(path, inside=inside)
    if path.stat().st_size > TABLE_BYTES:
        raise DataError(f"{path}: expected at most {TABLE_BYTES} bytes of text, found more")
    head = _Head.of(path, form)
    if head.separator == WHITE_SPACE or form.header is not True:
        yield head.names
        yield from (
            head.cells(number, line)
            for number, (_, _, line) in enumerate(_lines(path, head.first_byte), start=head.first_line)
            if line.strip()
        )
        return
    taken: list[str] = []
    reader = csv.reader(_noted_texts(path, taken), delimiter=head.separator, strict=True)
    names: list[str] = []
    try:
        for row in reader:
            line = reader.line_num - len(taken) + 1
            if len(taken) > 1:
                _refuse_swallowed(path, line, taken, len(names or row), head.separator)
            if names and row and len(row) != len(names):
                raise DataError(f"{path}, line {line}: expected {len(names)} cells, found {len(row)}")
            if names and row:
                yield row
            elif not names and any(map(str.strip, row)):
                names = _column_names(path, row)
                yield names
            taken.clear()
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num - len(taken) + 1}: {_said(error)}") from error
    if not names:
        raise DataError(f"{path}: {_NO_NAMES}")


def _noted_texts(path: Path, taken: list[str]) -> Iterator[str]:
    """The lines as text; each is appended to `taken`, which the caller empties at the end of a row."""
    for number, (_, _, line) in enumerate(_lines(path, 0), start=1):
        taken.append(_decoded(path, number, line))
        yield taken[-1]


def _refuse_swallowed(path: Path, first: int, lines: Sequence[str], width: int, delimiter: str) -> None:
    """Refuse a row of several lines of which one alone, or the first and the last, would be rows: a quote
    took them for one cell.
    """
    row_alone = [width in (line.count(delimiter) + 1, _cells_alone(line, delimiter)) for line in lines]
    if width > 1 and (any(row_alone[1:-1]) or (row_alone[0] and row_alone[-1])):
        other = first + next(at for at in range(1, len(lines)) if row_alone[at])
        raise DataError(
            f"{path}, line {first}: a quote that is not closed? Its cell runs to line"
            f" {first + len(lines) - 1}, but line {other} has {width} cells as a row has; close it, or write"
            " the line breaks of the cell as spaces"
        )


def _cells_alone(line: str, delimiter: str) -> int:
    return len(next(csv.reader([line], delimiter=delimiter), []))


def _said(error: csv.Error) -> str:
    """What the parser of CSV says, in words of a table."""
    said = one_line(error)
    if "unexpected end" in said:
        return "a quote that is not closed"
    if "expected after" in said:
        return "text behind the quote that closes a cell; a quote within a cell in quotes is written twice"
    if "field limit" in said:
        limit = csv.field_size_limit()
        return (
            f"a cell of more than {limit} characters, which no column of a CSV table may have (or a quote"
            " that is not closed)"
        )
    return said


def is_absent(cell: Any) -> bool:
    """Whether a cell holds nothing: empty or not a number; a word such as "none" may be the name of a
    class.
    """
    return (
        cell is None
        or (isinstance(cell, str) and cell.strip().lower() in ("", "nan"))
        or (isinstance(cell, float) and math.isnan(cell))
    )


def is_missing(cell: Any) -> bool:
    """Whether a cell among numbers stands for no value."""
    return (
        cell is None
        or (isinstance(cell, str) and cell.strip().lower() in _MISSING)
        or (isinstance(cell, float) and math.isnan(cell))
    )


def as_number(cell: Any) -> float | None:
    """A cell as a number; not a number where it is empty, ``None`` where it is something else."""
    if is_missing(cell):
        return math.nan
    try:
        return None if isinstance(cell, bool) else float(cell)
    except (ValueError, TypeError, OverflowError):
        return None


def further_labels(cells: Sequence[Any]) -> list[float | str | None]:
    """A column of labels beside the one that is predicted: numbers where all of it are, else text; ``None``
    where there is none.
    """
    numbers = [float(cell) if isinstance(cell, bool) else as_number(cell) for cell in cells]
    if any(number is None for number in numbers):
        return [None if is_absent(cell) else str(cell) for cell in cells]
    return [number if number is not None and math.isfinite(number) else None for number in numbers]


@dataclass(kw_only=True)
class LongTable:
    """A table with one row per position of a sequence; the rows of one id lie together and are read when they
    are asked for.

    Raises:
        DataError: If it is no table, lacks a column, or the rows of an id do not lie together.
    """

    path: Path
    inside: Path
    id: Sequence[str]
    """Columns of the ids, of which several are joined by `/`; `ROW_NUMBER` takes the number of the row, and
    with none all rows are of one sample, of the id ``""``."""
    time: str = ""
    """Column of the seconds; empty where there is none."""
    values: Sequence[str] = ()
    """Columns of the features, in which ``*`` stands for any text; all others than `id` and `time` where none
    are named."""
    exclude: Sequence[str] = ()
    """Columns that are none of them, in which ``*`` stands for any text."""
    form: TableForm = _PLAIN
    runs: dict[str, tuple[int, int, int]] = field(init=False, default_factory=dict)
    """Where the rows of an id lie: bytes of a CSV file or row numbers of a Parquet file, first and last but
    one; and how many."""

    def __post_init__(self) -> None:
        self._parquet = (
            _Parquet(self.path, self.inside, self.form) if self.path.suffix.lower() == ".parquet" else None
        )
        if self._parquet is None:
            regular_file(self.path, inside=self.inside)
            self._head = _Head.of(self.path, self.form)
            self._names = self._head.names
        else:
            self._names = self._parquet.columns
        self._id = [name for name in self.id if name != ROW_NUMBER]
        used = [*self._id, *([self.time] if self.time else [])]
        _require(self.path, used, self._names)
        self.values = self._chosen(used)
        self._places = {name: place for place, name in enumerate(self._names)}
        for start, stop, identity in self._identities():
            self._enter(identity, start, stop)

    def _chosen(self, used: Sequence[str]) -> list[str]:
        """The columns of features."""
        known = set(self._names)

        def matching(given: Sequence[str]) -> Iterator[str]:
            for name in given:
                found = (
                    [name]
                    if name in known
                    else [each for each in self._names if "*" in name and fnmatchcase(each, name)]
                )
                if not found:
                    _require(self.path, [name], self._names)
                yield from found

        without = {*used, *matching(self.exclude)}
        chosen = (
            [name for name in dict.fromkeys(matching(self.values)) if name not in matching(self.exclude)]
            if self.values
            else []
        )
        chosen = chosen if self.values else [name for name in self._names if name not in without]
        if not chosen:
            raise DataError(f"{self.path}: expected columns of features beside {sorted(without)}, found none")
        return chosen

    def _enter(self, identity: str, start: int, stop: int) -> None:
        first, last, count = self.runs.get(identity, (start, start, 0))
        if last != start:
            called = "/".join(self.id)
            raise DataError(
                f"{self.path}: the rows of {called} {identity!r} do not lie together; sort the table by"
                f" {called}"
            )
        self.runs[identity] = (first, stop, count + 1)

    def _identities(self) -> Iterator[tuple[int, int, str]]:
        if self._parquet is not None:
            if not self._id:
                yield from ((row, row + 1, self._numbered(row + 1)) for row in range(self._parquet.rows))
                return
            row = 0
            for group in range(self._parquet.groups):
                columns = self._parquet.group(group, self._id)
                for cells in zip(*(_as_list(columns[name]) for name in self._id), strict=True):
                    yield row, row + 1, joined_identity(cells, f"{self.path}, row {row + 1}", self._id)
                    row += 1
            return
        places, end = [self._places[name] for name in self._id], self._head.first_byte
        count = 0
        for number, (_, stop, line) in enumerate(_lines(self.path, end), start=self._head.first_line):
            if line.strip():
                count += 1
                identity = self._numbered(count)
                if places:
                    row_cells = self._head.cells(number, line)
                    identity = joined_identity(
                        [row_cells[place] for place in places], f"{self.path}, line {number}", self._id
                    )
                # Empty lines before a row are taken with it, or rows of one id would not lie together.
                yield end, stop, identity
                end = stop

    def _numbered(self, row: int) -> str:
        return str(row) if self.id else ""

    def rows(self, identity: str) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Features, (time, width), and seconds of an id; not a number where a cell is empty. ``None`` for an
        id without rows.
        """
        if identity not in self.runs:
            return None
        start, stop, count = self.runs[identity]
        wanted = [*self.values, *([self.time] if self.time else [])]
        numbers = np.empty((count, len(wanted)))
        if self._parquet is not None:
            columns = self._parquet.slices(wanted, start, stop)
            for at, name in enumerate(wanted):
                self._numbers(numbers[:, at], columns[name], identity, name)
        else:
            places = [self._places[name] for name in wanted]
            lines = (
                (number, line)
                for number, (_, _, line) in enumerate(_lines(self.path, start, stop))
                if line.strip()
            )
            for row, (number, line) in enumerate(lines):
                # The number of a line is known where the table is read from its first row on.
                cells = self._head.cells(
                    self._head.first_line + number if start == self._head.first_byte else 0, line
                )
                try:
                    numbers[row] = [float(cells[place]) for place in places]
                except ValueError:
                    for at, (name, place) in enumerate(zip(wanted, places, strict=True)):
                        numbers[row, at] = self._number(cells[place], identity, name, row)
        return (numbers[:, :-1], numbers[:, -1]) if self.time else (numbers, None)

    def _numbers(
        self, target: np.ndarray, cells: Sequence[Any] | np.ndarray, identity: str, name: str
    ) -> None:
        if isinstance(cells, np.ndarray):
            target[:] = cells
            return
        for row, cell in enumerate(cells):
            target[row] = self._number(cell, identity, name, row)

    def _number(self, cell: Any, identity: str, name: str, row: int) -> float:
        number = as_number(cell)
        if number is None:
            whose = (
                f"{'/'.join(self.id)} {identity!r}, its row {row + 1}"
                if self._id
                else f"row {identity or row + 1}"
            )
            raise DataError(
                f"{self.path}: column {name!r}, {whose}: expected a number, found {str(cell)[:40]!r}"
            )
        return number


class SampleTables:
    """Tables of one sample each, which all have the same columns of features.

    Args:
        inside: The folder that they may not leave.
        time: As for `LongTable`.
        values: As for `LongTable`.
        exclude: As for `LongTable`.
        form: As for `LongTable`.
    """

    def __init__(
        self, *, inside: Path, time: str, values: Sequence[str], exclude: Sequence[str], form: TableForm
    ) -> None:
        self._inside, self._time, self._values, self._exclude, self._form = (
            inside,
            time,
            values,
            exclude,
            form,
        )
        self._first: tuple[Path, Sequence[str]] | None = None

    def read(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        """Features, (time, width), in the order of columns of the table that was read first, and seconds.

        Raises:
            DataError: If it is no table of numbers, or has other columns.
        """
        if path.stat().st_size > TABLE_BYTES:
            raise DataError(f"{path}: expected at most {TABLE_BYTES} bytes, found more")
        table = LongTable(
            path=path,
            inside=self._inside,
            id=(),
            time=self._time,
            values=self._values,
            exclude=self._exclude,
            form=self._form,
        )
        if self._first is None:
            self._first = path, table.values
        first, names = self._first
        if set(table.values) != set(names):
            other = sorted(set(table.values) ^ set(names))[0]
            expected = "a column" if other in names else "no column"
            raise DataError(
                f"{path}: expected {expected} {other!r} as {first.name}"
                f" has{'' if other in names else ' none'}"
            )
        table.values = names
        found = table.rows("")
        return (np.empty((0, len(names))), np.empty(0) if self._time else None) if found is None else found


def joined_identity(cells: Sequence[Any], place: str, names: Sequence[str]) -> str:
    """The id that one or several cells are, joined by `/`.

    Args:
        cells: The cells of one row.
        place: Where they stand, for messages.
        names: Their columns.

    Raises:
        DataError: If one is empty.
    """
    for cell, name in zip(cells, names, strict=True):
        if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
            raise DataError(f"{place}: column {name!r} is empty, expected an id")
    return "/".join(map(str, cells))


def _lines(path: Path, start: int, stop: int | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Lines, which end in LF, CR LF or CR alone: where each starts, where the next one starts, and its
    bytes.
    """
    try:
        with path.open("rb") as file:
            if start == 0 and file.read(len(_BOM)) == _BOM:
                start = len(_BOM)
            file.seek(start)
            while stop is None or start < stop:
                read = file.readline(_LINE_BYTES if stop is None else min(_LINE_BYTES, stop - start))
                if not read:
                    return
                lines = (
                    read.splitlines(keepends=True)
                    if read.count(b"\r") > read.endswith((b"\r", b"\r\n"))
                    else [read]
                )
                if len(read) == _LINE_BYTES:
                    # The last one may go on, and is read again from its start.
                    if len(lines) == 1:
                        raise DataError(f"{path}: a line of more than {_LINE_BYTES} bytes")
                    file.seek(start + len(read) - len(lines.pop()))
                for line in lines:
                    yield start, start + len(line), line
                    start += len(line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True, kw_only=True)
class _Head:
    """What the first line of a table of text says, and where its rows begin."""

    path: Path
    names: list[str]
    separator: str
    first_line: int
    first_byte: int

    @classmethod
    def of(cls, path: Path, form: TableForm) -> "_Head":
        lines = enumerate(_lines(path, 0), start=1)
        first = next(((number, *line) for number, line in lines if line[2].strip(b" \t\r\n,;")), None)
        if first is None:
            raise DataError(f"{path}: {_NO_NAMES if form.header is True else 'expected rows, found none'}")
        number, start, stop, line = first
        text = _decoded(path, number, line)
        separator = form.separator or _separator(text, spaces=form.header is not True)
        cells = _split(path, number, text, separator)
        if form.header is True:
            return cls(
                path=path,
                names=_column_names(path, cells),
                separator=separator,
                first_line=number + 1,
                first_byte=stop,
            )
        names = list(form.header) if form.header else [str(place) for place in range(1, len(cells) + 1)]
        if len(names) != len(cells):
            raise DataError(
                f"{path}, line {number}: expected {len(names)} cells, one for each name of header, found"
                f" {len(cells)}"
            )
        return cls(
            path=path,
            names=_column_names(path, names),
            separator=separator,
            first_line=number,
            first_byte=start,
        )

    def cells(self, number: int, line: bytes) -> list[str]:
        """The cells of a line, as many as there are columns."""
        cells = _split(self.path, number, _decoded(self.path, number, line), self.separator)
        if len(cells) != len(self.names):
            place = f"{self.path}, line {number}" if number else f"{self.path}: a row"
            raise DataError(f"{place}: expected {len(self.names)} cells, found {len(cells)}")
        return cells


def _separator(text: str, *, spaces: bool) -> str:
    found = max(",;\t", key=text.count)
    return WHITE_SPACE if spaces and found not in text and len(text.split()) > 1 else found


def _split(path: Path, number: int, text: str, separator: str) -> list[str]:
    if separator == WHITE_SPACE:
        return text.split()
    if '"' not in text:
        return [cell.strip() for cell in text.strip("\r\n").split(separator)]
    try:
        return [cell.strip() for cell in next(csv.reader([text], delimiter=separator, strict=True))]
    except csv.Error as error:
        if "unexpected end" in str(error):
            reason = (
                "a quote that is not closed in its line; cells with line breaks are read in tables of samples"
                " only"
            )
        else:
            reason = _said(error)
        raise DataError(f"{path}, line {number}: {reason}") from error


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: expected text in UTF-8, found byte {line[error.start]:#04x}"
        ) from error


def _column_names(path: Path, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise DataError(f"{path}: {_NO_NAMES}")
    counts = Counter(names)
    for name in names:
        if counts[name] > 1:
            raise DataError(f"{path}: column {name!r} appears {counts[name]} times, expected once")
    return names


class _Parquet:
    """A Parquet file, read one column of one row group at a time; the last row group of each column is
    kept.
    """

    def __init__(self, path: Path, inside: Path | None, form: TableForm = _PLAIN) -> None:
        regular_file(path, inside=inside)
        if form != _PLAIN:
            raise DataError(
                f"{path}: a Parquet file has names of columns and no separators: header and separator are for"
                " text"
            )
        require(str(path), "formats", "pyarrow")
        self._path = path
        self._kept: dict[str, tuple[int, Any]] = {}
        self._file: Any = self._guarded(self._open)
        metadata = self._file.metadata
        self.groups: int = metadata.num_row_groups
        self.columns: list[str] = [str(name) for name in self._file.schema_arrow.names]
        _column_names(path, self.columns)
        sizes = [metadata.row_group(group).num_rows for group in range(self.groups)]
        self._starts: list[int] = np.cumsum([0, *sizes], dtype=object).tolist()
        self.rows: int = self._starts[-1]
        declared = [
            metadata.row_group(group).total_byte_size + 8 * size * len(self.columns)
            for group, size in enumerate(sizes)
        ]
        allowed = UNPACKED_PER_BYTE * path.stat().st_size + (16 << 20)
        if (
            min([0, *sizes, *declared]) < 0
            or sum(declared) > allowed
            or max(declared, default=0) > _GROUP_BYTES
        ):
            raise DataError(
                f"{path}: declares {sum(sizes)} rows of {len(self.columns)} columns, more than its"
                f" {path.stat().st_size} bytes may hold"
            )

    def group(self, group: int, names: Sequence[str]) -> dict[str, Any]:
        """Columns of a row group: each an array of numbers, or a list of text, or of numbers of which some
        are null.

        They are read at once: to look for a column takes as long as there are columns.
        """
        absent = [name for name in names if name not in self._kept or self._kept[name][0] != group]
        if absent:
            read = self._guarded(lambda: self._read(group, absent))
            self._kept |= {name: (group, cells) for name, cells in read.items()}
        return {name: self._kept[name][1] for name in names}

    def slices(self, names: Sequence[str], start: int, stop: int) -> dict[str, Sequence[Any] | np.ndarray]:
        """Rows of columns."""
        parts: dict[str, list[Any]] = {name: [] for name in names}
        for group in range(self.groups):
            first = self._starts[group]
            if first < stop and start < self._starts[group + 1]:
                for name, cells in self.group(group, names).items():
                    parts[name].append(cells[max(start - first, 0) : stop - first])
        return {
            name: part[0] if len(part) == 1 else [cell for each in part for cell in each]
            for name, part in parts.items()
        }

    def _open(self) -> Any:
        from pyarrow import parquet

        plain = parquet.ParquetFile(self._path)
        # The schema is made anew whenever it is asked for, which takes as long as there are columns.
        text = [each.name for each in plain.schema_arrow if str(each.type) in ("string", "large_string")]
        # Text stays a dictionary and indices: written out, a few bytes could become any number of copies.
        return parquet.ParquetFile(
            self._path, read_dictionary=text, page_checksum_verification=True, pre_buffer=False
        )

    def _read(self, group: int, names: Sequence[str]) -> dict[str, Any]:
        table = self._file.read_row_group(group, columns=list(names), use_threads=False)
        places = {name: place for place, name in enumerate(table.column_names)}
        return {name: self._cells(group, name, table.column(places[name]).chunks) for name in names}

    def _cells(self, group: int, name: str, chunks: Sequence[Any]) -> Any:
        import pyarrow

        parts: list[Any] = []
        for chunk in chunks:
            if pyarrow.types.is_dictionary(chunk.type):
                words = chunk.dictionary.to_pylist()
                parts.append([None if index is None else words[index] for index in chunk.indices.to_pylist()])
            elif pyarrow.types.is_floating(chunk.type) or (
                pyarrow.types.is_integer(chunk.type) and not chunk.null_count
            ):
                parts.append(chunk.to_numpy(zero_copy_only=False))
            elif pyarrow.types.is_boolean(chunk.type) or pyarrow.types.is_integer(chunk.type):
                # integers with a null among them would become floats, and 7 the id "7.0"
                parts.append(chunk.to_pylist())
            else:
                raise DataError(
                    f"{self._path}: column {name!r}: expected numbers or text, found {str(chunk.type)[:80]}"
                )
        whole = bool(parts) and all(isinstance(part, np.ndarray) for part in parts)
        cells: Any = np.concatenate(parts) if whole else [cell for part in parts for cell in _as_list(part)]
        if len(cells) != self._starts[group + 1] - self._starts[group]:
            raise DataError(
                f"{self._path}: column {name!r}: {len(cells)} cells in row group {group}, its rows are"
                " another number"
            )
        return cells

    def _guarded(self, call: Any) -> Any:
        import pyarrow

        try:
            return call()
        except (
            pyarrow.ArrowException,
            OSError,
            ValueError,
            KeyError,
            IndexError,
            TypeError,
            OverflowError,
            MemoryError,
            AttributeError,
        ) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self._path}: not a readable Parquet file: {one_line(error)}") from error
