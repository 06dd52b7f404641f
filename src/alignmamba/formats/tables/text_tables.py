"""Tables of text: UTF-8 with a line of column names, before which empty lines may stand.

Cells are separated by commas, semicolons or tabs, whichever that line has most of. A `TableForm` says
otherwise. Lines end in LF, CR LF or CR. Cells in quotes may hold line breaks in a table of samples, but not
in a long one, whose rows are found by their lines.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from alignmamba.errors import DataError
from alignmamba.formats.plain_files import one_line, regular_file

TABLE_BYTES = 256 << 20
"""Largest CSV file that a table of samples may be."""
WHITE_SPACE = " "
"""The separator that stands for any number of spaces and tabs."""

_LINE_BYTES = 16 << 20
_BLOCK_BYTES = 1 << 20
_BLOCK_ROWS = 1000
_SHARED_CELLS = 4096
_BOM = b"\xef\xbb\xbf"
_NO_NAMES = "expected a line of column names, found none"
_NOT_CLOSED = "a quote that is not closed"
_CSV_ERRORS = {
    "unexpected end": _NOT_CLOSED,
    "expected after": (
        "text behind the quote that closes a cell; a quote within a cell in quotes is written twice"
    ),
    "field limit": (
        f"a cell of more than {csv.field_size_limit()} characters, which no column of a CSV table may have"
        f" (or {_NOT_CLOSED})"
    ),
}


class TableForm(BaseModel):
    """Layout of a table of text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    header: bool | list[str] = True
    """True if the first line that is not empty has the names of the columns; else they are called ``1``,
    ``2`` and so on, or as these names say.
    """
    separator: Literal["", ",", ";", "\t", " ", "|"] = ""
    """Separator of cells; empty for comma, semicolon or tab, whichever the first line has most of, or else,
    in a table without a line of names, white space.
    """


class FeatureColumns(TableForm):
    """Choice of the columns of a table that are features."""

    time: str = ""
    """Column of the seconds; empty where there is none."""
    columns: list[str] = []
    """Columns of the features, in which ``*`` stands for any text; all others than ids and `time` where none
    are named."""
    exclude: list[str] = []
    """Columns that are not one of them, in which ``*`` stands for any text."""
    labels: list[str] = []
    """Columns of labels of each row, which are no features."""


class TextTable:
    """A table of text, read line by line; `inside` is a folder that the path may not leave.

    Raises:
        DataError: If its first line is not one of a table.
    """

    def __init__(self, path: Path, inside: Path | None, form: TableForm) -> None:
        self._path, self._named = path, form.header is True
        lines = _lines(regular_file(path, inside=inside), 0, 1)
        first = next((line for line in lines if line[3].strip(b" \t\r\n,;")), None)
        if first is None:
            raise DataError(f"{path}: {_NO_NAMES if self._named else 'expected rows, found none'}")
        number, start, stop, line = first
        text = self._decoded(number, line)
        self._separator: str = form.separator or max(",;\t", key=text.count)
        if not (form.separator or self._named or self._separator in text) and len(text.split()) > 1:
            self._separator = WHITE_SPACE
        cells = self._split(number, text)
        names = form.header if isinstance(form.header, list) else [str(at + 1) for at in range(len(cells))]
        if len(names) != len(cells):
            raise DataError(
                f"{path}, line {number}: expected {len(names)} cells, one for each name of header, found"
                f" {len(cells)}"
            )
        self.names = checked_names(path, cells if self._named else names)
        self._places = {name: place for place, name in enumerate(self.names)}
        self._line, self._start = (number + 1, stop) if self._named else (number, start)

    def columns(self, names: Sequence[str], size: int | None = None) -> tuple[dict[str, list[Any]], int]:
        """Cells of these columns, of which an empty one is ``None``, in at most `size` rows; and the number
        of rows.
        """
        found: list[tuple[int, list[Any], dict[str, str]]] = [(self._places[name], [], {}) for name in names]
        total = 0
        for total, row in enumerate(islice(self._rows(), size), start=1):  # noqa: B007
            for place, cells, known in found:
                cell = row[place].strip()
                # Labels and splits repeat: one text for all cells that say the same.
                if len(known) < _SHARED_CELLS:
                    known.setdefault(cell, cell)
                cells.append(known.get(cell, cell) or None)
        return {name: cells for name, (_, cells, _) in zip(names, found, strict=True)}, total

    def keys(self, names: Sequence[str]) -> Iterator[tuple[int, int, int, Sequence[Any]]]:
        """First byte of each row, the byte behind its last, the number of its line, and the cells of these
        columns.
        """
        places = [self._places[name] for name in names]
        for number, start, stop, line in self._filled(self._start, self._line):
            cells = self._cells(number, line) if places else []
            yield start, stop, number, [cells[place].strip() for place in places]

    def blocks(self, names: Sequence[str], start: int, stop: int, number: int) -> Iterator[Any]:
        """These columns in the rows between two bytes, as `keys` gives them, of which the first is in the
        line of this number; some rows at a time.

        Yields:
            An array, (columns, rows), where all cells are numbers, else the cells of each column.
        """
        places = [self._places[name] for name in names]
        rows = (self._cells(at, line) for at, _, _, line in self._filled(start, number, stop))
        while block := [*islice(rows, _BLOCK_ROWS)]:
            try:
                yield np.array([[float(row[place]) for place in places] for row in block]).T
            except ValueError:
                yield [[row[place] for row in block] for place in places]

    def _rows(self) -> Iterator[list[str]]:
        """Cells of each row of a table of samples."""
        if self._path.stat().st_size > TABLE_BYTES:
            raise DataError(f"{self._path}: expected at most {TABLE_BYTES} bytes of text, found more")
        if self._separator != WHITE_SPACE and self._named:
            return self._quoted_rows()
        return (self._cells(number, line) for number, _, _, line in self._filled(self._start, self._line))

    def _quoted_rows(self) -> Iterator[list[str]]:
        """Cells of each row, of which those in quotes may hold line breaks."""
        taken: list[str] = []  # the lines of the row that is being read

        def texts() -> Iterator[str]:
            for number, _, _, line in _lines(self._path, self._start, self._line):
                taken.append(self._decoded(number, line))
                yield taken[-1]

        reader = csv.reader(texts(), delimiter=self._separator, strict=True)
        try:
            for row in reader:
                number = self._line + reader.line_num - len(taken)
                if len(taken) > 1:
                    self._refuse_swallowed(number, taken)
                if row:
                    self._check_width(number, row)
                    yield row
                taken.clear()
        except csv.Error as error:
            number = self._line + reader.line_num - len(taken)
            raise DataError(f"{self._path}, line {number}: {_said(error)}") from error

    def _refuse_swallowed(self, first: int, lines: Sequence[str]) -> None:
        """Refuse a row of several lines of which one alone, or the first and the last, would be rows: a quote
        took them for one cell.
        """
        width, separator = len(self.names), self._separator

        def is_row(line: str) -> bool:
            cells = next(csv.reader([line], delimiter=separator), [])
            return width in (line.count(separator) + 1, len(cells))

        alone = list(map(is_row, lines))
        if width > 1 and (any(alone[1:-1]) or (alone[0] and alone[-1])):
            raise DataError(
                f"{self._path}, line {first}: perhaps a quote is not closed. Its cell ends in line"
                f" {first + len(lines) - 1}, but line {first + alone.index(True, 1)} has the {width} cells of"
                " a row. Close it, or write its line breaks as spaces"
            )

    def _filled(self, start: int, number: int, stop: int | None = None) -> Iterator["_Line"]:
        return (line for line in _lines(self._path, start, number, stop) if line[3].strip())

    def _cells(self, number: int, line: bytes) -> list[str]:
        """The cells of a line, with the white space around them."""
        cells = self._split(number, self._decoded(number, line))
        self._check_width(number, cells)
        return cells

    def _check_width(self, number: int, cells: Sequence[str]) -> None:
        if (found := len(cells)) != len(self.names):
            raise DataError(f"{self._path}, line {number}: expected {len(self.names)} cells, found {found}")

    def _split(self, number: int, text: str) -> list[str]:
        if self._separator == WHITE_SPACE:
            return text.split()
        if '"' not in text:
            return text.split(self._separator)
        try:
            return next(csv.reader([text], delimiter=self._separator, strict=True))
        except csv.Error as error:
            said = _said(error)
            if said == _NOT_CLOSED:
                said += " in its line; cells with line breaks are read in tables of samples only"
            raise DataError(f"{self._path}, line {number}: {said}") from error

    def _decoded(self, number: int, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            found = f"expected text in UTF-8, found byte {line[error.start]:#04x}"
            raise DataError(f"{self._path}, line {number}: {found}") from error


def checked_names(path: Path, cells: Sequence[str]) -> list[str]:
    """Names of columns.

    Raises:
        DataError: If there is none, or one appears twice.
    """
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise DataError(f"{path}: {_NO_NAMES}")
    name, times = max(Counter(names).items(), key=lambda item: item[1] > 1)
    if times > 1:
        raise DataError(f"{path}: column {name!r} appears {times} times, expected once")
    return names


_Line = tuple[int, int, int, bytes]
"""Number of a line, where it starts, where the next one starts, and its bytes."""


def _lines(path: Path, start: int, number: int, stop: int | None = None) -> Iterator[_Line]:
    """Lines from a byte on, the first of which has this number; they end in LF, CR LF or CR alone."""
    try:
        with path.open("rb") as file:
            if start == 0 and file.read(len(_BOM)) == _BOM:
                start = len(_BOM)
            at, rest = file.seek(start), b""
            while True:
                block = file.read(_BLOCK_BYTES if stop is None else min(_BLOCK_BYTES, stop - at))
                at += len(block)
                lines = (rest + block).splitlines(keepends=True)
                rest = lines.pop() if block else b""  # it may continue in the next block
                for line in lines:
                    yield number, start, start + len(line), line
                    start += len(line)
                    number += 1
                if not block:
                    return
                if len(rest) >= _LINE_BYTES:
                    raise DataError(f"{path}: a line of more than {_LINE_BYTES} bytes")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _said(error: csv.Error) -> str:
    """Message of the CSV parser, in words of a table."""
    said = one_line(error)
    return next((words for part, words in _CSV_ERRORS.items() if part in said), said)
