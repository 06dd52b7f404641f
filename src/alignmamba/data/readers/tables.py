"""Tables of others, CSV or Parquet: single columns of a table of samples, and the rows of one id at a time of a long one.

CSV is UTF-8 with a line of column names, before which empty lines may stand; cells are separated by commas, semicolons or tabs,
whichever that line has most of. Lines end in LF, CR LF or CR. Cells in quotes may hold line breaks in a table of samples, but not in a
long one, whose rows are found by their lines.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.data.readers.foreign import Faults
from alignmamba.data.readers.plain import one_line, regular_file
from alignmamba.errors import DataError
from alignmamba.extras import require

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


def is_table(path: Path) -> bool:
    """Whether the name is one of a table."""
    return path.suffix.lower() in (".csv", ".tsv", ".parquet")


def note_open_end(path: Path, faults: Faults) -> None:
    """Count a CSV file whose last line has no end: it may have been cut off there, in a number or between two samples."""
    if path.suffix.lower() == ".parquet":
        return
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - 1))
        if file.read() not in (b"\n", b"\r"):
            faults.add("last line without an end", where=path.name, done="kept; the file may have been cut off")


def column_names(path: Path, *, inside: Path | None = None) -> list[str]:
    """Names of the columns of a table.

    Raises:
        DataError: If it is no table.
    """
    return _Parquet(path, inside).columns if path.suffix.lower() == ".parquet" else next(_csv_rows(path, inside))


def read_columns(path: Path, names: Sequence[str], *, inside: Path | None = None) -> dict[str, list[Any]]:
    """Some columns of a table of samples: text from CSV, text and numbers from Parquet; ``None`` where a cell is empty.

    CSV is read line by line, Parquet by column and row group: nothing is kept but the cells of these columns.

    Raises:
        DataError: If it is no table, too large for one, or lacks a column.
    """
    if path.suffix.lower() == ".parquet":
        table = _Parquet(path, inside)
        _require(path, names, table.columns)
        return {name: [cell for group in range(table.groups) for cell in _as_list(table.cells(group, name))] for name in names}
    rows = _csv_rows(path, inside)
    columns = next(rows)
    _require(path, names, columns)
    found: list[tuple[int, list[Any], dict[str, str]]] = [(columns.index(name), [], {}) for name in names]
    for row in rows:
        for place, cells, known in found:
            cell = row[place].strip()
            # Labels and splits repeat: one text for all cells that say the same.
            cells.append((known.setdefault(cell, cell) if len(known) < _SHARED_CELLS else known.get(cell, cell)) or None)
    return {name: cells for name, (_, cells, _) in zip(names, found, strict=True)}


def _as_list(cells: Any) -> list[Any]:
    return cells.tolist() if isinstance(cells, np.ndarray) else list(cells)


def _require(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    for name in names:
        if name not in columns:
            raise DataError(f"{path}: expected a column {name!r}, found {list(columns)[:20]}")


def _csv_rows(path: Path, inside: Path | None) -> Iterator[list[str]]:
    """The names of the columns, then the cells of each row."""
    regular_file(path, inside=inside)
    if path.stat().st_size > TABLE_BYTES:
        raise DataError(f"{path}: expected at most {TABLE_BYTES} bytes of text, found more")
    delimiter = _delimiter(_head(path)[2])
    taken: list[str] = []
    reader = csv.reader(_noted_texts(path, taken), delimiter=delimiter, strict=True)
    names: list[str] = []
    try:
        for row in reader:
            line = reader.line_num - len(taken) + 1
            if len(taken) > 1:
                _refuse_swallowed(path, line, taken, len(names or row), delimiter)
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
    """Refuse a row of several lines of which one alone, or the first and the last, would be rows: a quote took them for one cell."""
    row_alone = [width in (line.count(delimiter) + 1, _cells_alone(line, delimiter)) for line in lines]
    if width > 1 and (any(row_alone[1:-1]) or (row_alone[0] and row_alone[-1])):
        other = first + next(at for at in range(1, len(lines)) if row_alone[at])
        raise DataError(
            f"{path}, line {first}: a quote that is not closed? Its cell goes on to line {first + len(lines) - 1}, but line {other} has "
            f"{width} cells as a row has; close it, or write the line breaks of the cell as spaces"
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
        return f"a cell of more than {limit} characters, which no column of a CSV table may have (or a quote that is not closed)"
    return said


def is_absent(cell: Any) -> bool:
    """Whether a cell holds nothing: empty or not a number; a word such as "none" may be the name of a class."""
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in ("", "nan")) or (isinstance(cell, float) and math.isnan(cell))


def is_missing(cell: Any) -> bool:
    """Whether a cell among numbers stands for no value."""
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in _MISSING) or (isinstance(cell, float) and math.isnan(cell))


def as_number(cell: Any) -> float | None:
    """A cell as a number; not a number where it is empty, ``None`` where it is something else."""
    if is_missing(cell):
        return math.nan
    try:
        return None if isinstance(cell, bool) else float(cell)
    except (ValueError, TypeError, OverflowError):
        return None


@dataclass(kw_only=True)
class LongTable:
    """A table with one row per position of a sequence; the rows of one id lie together and are read when they are asked for.

    Raises:
        DataError: If it is no table, lacks a column, or the rows of an id do not lie together.
    """

    path: Path
    inside: Path
    id: str
    time: str = ""
    """Column of the seconds; empty where there is none."""
    values: Sequence[str] = ()
    """Columns of the features; all others than `id` and `time` where none are named."""
    runs: dict[str, tuple[int, int, int]] = field(init=False, default_factory=dict)
    """Where the rows of an id lie: bytes of a CSV file or row numbers of a Parquet file, first and last but one; and how many."""

    def __post_init__(self) -> None:
        self._parquet = _Parquet(self.path, self.inside) if self.path.suffix.lower() == ".parquet" else None
        if self._parquet is None:
            regular_file(self.path, inside=self.inside)
            self._first_line, self._first_byte, head = _head(self.path)
            self._delimiter = _delimiter(head)
            self._names = _column_names(self.path, self._cells(self._first_line - 1, head.encode()))
        else:
            self._names = self._parquet.columns
        used = [self.id, *([self.time] if self.time else []), *self.values]
        for name in used:
            if name not in self._names:
                raise DataError(f"{self.path}: expected a column {name!r}, found {list(self._names)[:20]}")
        self.values = self.values or [name for name in self._names if name not in used]
        if not self.values:
            raise DataError(f"{self.path}: expected columns of features beside {used}, found none")
        for start, stop, identity in self._identities():
            self._enter(identity, start, stop)

    def _enter(self, identity: str, start: int, stop: int) -> None:
        first, last, count = self.runs.get(identity, (start, start, 0))
        if last != start:
            raise DataError(f"{self.path}: the rows of {self.id} {identity!r} do not lie together; sort the table by {self.id}")
        self.runs[identity] = (first, stop, count + 1)

    def _identities(self) -> Iterator[tuple[int, int, str]]:
        if self._parquet is not None:
            row = 0
            for group in range(self._parquet.groups):
                for cell in self._parquet.cells(group, self.id):
                    yield row, row + 1, _identity(cell, f"{self.path}, row {row + 1}", self.id)
                    row += 1
            return
        at, end = self._names.index(self.id), self._first_byte
        for number, (_, stop, line) in enumerate(_lines(self.path, end), start=self._first_line):
            if line.strip():
                # Empty lines before a row are taken with it, or rows of one id would not lie together.
                yield end, stop, _identity(self._row(number, line)[at], f"{self.path}, line {number}", self.id)
                end = stop

    def rows(self, identity: str) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Features, (time, width), and seconds of an id; not a number where a cell is empty. ``None`` for an id without rows."""
        if identity not in self.runs:
            return None
        start, stop, count = self.runs[identity]
        wanted = [*self.values, *([self.time] if self.time else [])]
        numbers = np.empty((count, len(wanted)))
        if self._parquet is not None:
            for at, name in enumerate(wanted):
                self._numbers(numbers[:, at], self._parquet.slice(name, start, stop), identity, name)
        else:
            places = [self._names.index(name) for name in wanted]
            lines = (line for _, _, line in _lines(self.path, start, stop) if line.strip())
            for row, line in enumerate(lines):
                cells = self._cells(0, line)
                for at, (name, place) in enumerate(zip(wanted, places, strict=True)):
                    numbers[row, at] = self._number(cells[place], identity, name, row)
        return (numbers[:, :-1], numbers[:, -1]) if self.time else (numbers, None)

    def _numbers(self, target: np.ndarray, cells: Sequence[Any] | np.ndarray, identity: str, name: str) -> None:
        if isinstance(cells, np.ndarray):
            target[:] = cells
            return
        for row, cell in enumerate(cells):
            target[row] = self._number(cell, identity, name, row)

    def _number(self, cell: Any, identity: str, name: str, row: int) -> float:
        number = as_number(cell)
        if number is None:
            raise DataError(
                f"{self.path}: column {name!r}, {self.id} {identity!r}, its row {row + 1}: expected a number, found {str(cell)[:40]!r}"
            )
        return number

    def _row(self, number: int, line: bytes) -> list[str]:
        cells = self._cells(number, line)
        if len(cells) != len(self._names):
            raise DataError(f"{self.path}, line {number}: expected {len(self._names)} cells, found {len(cells)}")
        return cells

    def _cells(self, number: int, line: bytes) -> list[str]:
        text = _decoded(self.path, number, line)
        if '"' not in text:
            return [cell.strip() for cell in text.strip("\r\n").split(self._delimiter)]
        try:
            return [cell.strip() for cell in next(csv.reader([text], delimiter=self._delimiter, strict=True))]
        except csv.Error as error:
            if "unexpected end" in str(error):
                reason = "a quote that is not closed in its line; cells with line breaks are read in tables of samples only"
            else:
                reason = _said(error)
            raise DataError(f"{self.path}, line {number}: {reason}") from error


def _identity(cell: Any, place: str, name: str) -> str:
    if cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell)):
        raise DataError(f"{place}: column {name!r} is empty, expected an id")
    return str(cell)


def _lines(path: Path, start: int, stop: int | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Lines, which end in LF, CR LF or CR alone: where each starts, where the next one starts, and its bytes."""
    try:
        with path.open("rb") as file:
            if start == 0 and file.read(len(_BOM)) == _BOM:
                start = len(_BOM)
            file.seek(start)
            while stop is None or start < stop:
                read = file.readline(_LINE_BYTES if stop is None else min(_LINE_BYTES, stop - start))
                if not read:
                    return
                lines = read.splitlines(keepends=True) if read.count(b"\r") > read.endswith((b"\r", b"\r\n")) else [read]
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


def _head(path: Path) -> tuple[int, int, str]:
    """The line of column names, the first that is not empty: number of the line behind it, where that starts, and its text."""
    for number, (_, stop, line) in enumerate(_lines(path, 0), start=1):
        if line.strip(b" \t\r\n,;"):
            return number + 1, stop, _decoded(path, number, line)
    raise DataError(f"{path}: {_NO_NAMES}")


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: expected text in UTF-8, found byte {line[error.start]:#04x}") from error


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _column_names(path: Path, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise DataError(f"{path}: {_NO_NAMES}")
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: column {name!r} appears {names.count(name)} times, expected once")
    return names


class _Parquet:
    """A Parquet file, read one column of one row group at a time; the last row group of each column is kept."""

    def __init__(self, path: Path, inside: Path | None) -> None:
        regular_file(path, inside=inside)
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
        declared = [metadata.row_group(group).total_byte_size + 8 * size * len(self.columns) for group, size in enumerate(sizes)]
        allowed = UNPACKED_PER_BYTE * path.stat().st_size + (16 << 20)
        if min([0, *sizes, *declared]) < 0 or sum(declared) > allowed or max(declared, default=0) > _GROUP_BYTES:
            raise DataError(
                f"{path}: declares {sum(sizes)} rows of {len(self.columns)} columns, more than its {path.stat().st_size} bytes may hold"
            )

    def cells(self, group: int, name: str) -> Any:
        """A column of a row group: an array of numbers, or a list of text."""
        kept = self._kept.get(name)
        if kept is None or kept[0] != group:
            kept = (group, self._guarded(lambda: self._read(group, name)))
            self._kept[name] = kept
        return kept[1]

    def slice(self, name: str, start: int, stop: int) -> Sequence[Any] | np.ndarray:
        """Rows of a column."""
        parts = []
        for group in range(self.groups):
            first = self._starts[group]
            if first < stop and start < self._starts[group + 1]:
                parts.append(self.cells(group, name)[max(start - first, 0) : stop - first])
        return parts[0] if len(parts) == 1 else [cell for part in parts for cell in part]

    def _open(self) -> Any:
        from pyarrow import parquet

        plain = parquet.ParquetFile(self._path)
        text = [name for name in plain.schema_arrow.names if str(plain.schema_arrow.field(name).type) in ("string", "large_string")]
        # Text stays a dictionary and indices: written out, a few bytes could become any number of copies.
        return parquet.ParquetFile(self._path, read_dictionary=text, page_checksum_verification=True, pre_buffer=False)

    def _read(self, group: int, name: str) -> Any:
        import pyarrow

        parts: list[Any] = []
        for chunk in self._file.read_row_group(group, columns=[name], use_threads=False).column(0).chunks:
            if pyarrow.types.is_dictionary(chunk.type):
                words = chunk.dictionary.to_pylist()
                parts.append([None if index is None else words[index] for index in chunk.indices.to_pylist()])
            elif pyarrow.types.is_integer(chunk.type) or pyarrow.types.is_floating(chunk.type):
                parts.append(chunk.to_numpy(zero_copy_only=False))
            elif pyarrow.types.is_boolean(chunk.type):
                parts.append(chunk.to_pylist())
            else:
                raise DataError(f"{self._path}: column {name!r}: expected numbers or text, found {str(chunk.type)[:80]}")
        cells: Any = np.concatenate(parts) if parts and isinstance(parts[0], np.ndarray) else [cell for part in parts for cell in part]
        if len(cells) != self._starts[group + 1] - self._starts[group]:
            raise DataError(f"{self._path}: column {name!r}: {len(cells)} cells in row group {group}, its rows are another number")
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
