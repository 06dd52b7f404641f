"""Parquet files, read by columns and row groups."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.extras import require
from alignmamba.formats.plain_files import one_line, regular_file
from alignmamba.formats.tables.text_tables import TableForm, checked_names

UNPACKED_PER_BYTE = 100
"""A Parquet file may declare this many bytes for each of its own, and 16 MiB."""

_GROUP_BYTES = 256 << 20
_DAMAGE = (OSError, ValueError, LookupError, TypeError, OverflowError, MemoryError, AttributeError)


class ParquetTable:
    """A Parquet file, whose row group that was read last is kept. It has no form but the default one, which
    is of tables of text; `inside` is a folder that the path may not leave.

    Raises:
        ConfigError: If pyarrow is not installed.
        DataError: If it is no Parquet file, or declares more than it may hold.
    """

    def __init__(self, path: Path, inside: Path | None, form: TableForm) -> None:
        regular_file(path, inside=inside)
        if form.header is not True or form.separator:
            raise DataError(
                f"{path}: a Parquet file has names of columns and no separators: header and separator are for"
                " text"
            )
        require(str(path), "formats", "pyarrow")
        self._path = path
        with self._guarded():
            self._file = self._opened()
        self._group = lru_cache(maxsize=1)(self._read)
        self.names = [str(name) for name in self._file.schema_arrow.names]
        checked_names(path, self.names)
        metadata, stored = self._file.metadata, path.stat().st_size
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        sizes = [group.num_rows for group in groups]
        declared = [group.total_byte_size + 8 * group.num_rows * len(self.names) for group in groups]
        many = sum(declared) > UNPACKED_PER_BYTE * stored + (16 << 20)
        if many or min([0, *sizes, *declared]) < 0 or max(declared, default=0) > _GROUP_BYTES:
            raise DataError(
                f"{path}: declares {sum(sizes)} rows of {len(self.names)} columns, more than its {stored}"
                " bytes may hold"
            )
        self._starts: list[int] = np.cumsum([0, *sizes], dtype=object).tolist()

    def columns(self, names: Sequence[str], size: int | None = None) -> tuple[dict[str, list[Any]], int]:
        """Cells of these columns, of which an empty one is ``None``, in at most `size` rows; and the number
        of rows.
        """
        found: dict[str, list[Any]] = {name: [] for name in names}
        count = self._starts[-1] if size is None else min(size, self._starts[-1])
        for columns in self.blocks(names, 0, count, 1):
            for name, cells in zip(names, columns, strict=True):
                found[name] += _as_list(cells)
        return found, count

    def keys(self, names: Sequence[str]) -> Iterator[tuple[int, int, int, Sequence[Any]]]:
        """Place of each row, the place of the next, its number from 1, and the cells of these columns."""
        parts = self.blocks(names, 0, self._starts[-1], 1)
        rows = (cells for columns in parts for cells in zip(*map(_as_list, columns), strict=True))
        for row, cells in enumerate(rows if names else repeat((), self._starts[-1])):
            yield row, row + 1, row + 1, cells

    def blocks(self, names: Sequence[str], start: int, stop: int, number: int) -> Iterator[Any]:
        """These columns of each row group that has rows between two, cut to these; `number` is of no use."""
        del number
        for group, (first, end) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
            if first < stop and start < end and names:
                # All columns at once: to look for a column takes as long as there are columns.
                columns = self._group(group, tuple(names))
                yield [cells[max(start - first, 0) : stop - first] for cells in columns]

    def _opened(self) -> Any:
        from pyarrow import parquet

        plain = parquet.ParquetFile(self._path)
        # The schema is made anew whenever it is asked for, which takes as long as there are columns.
        text = [each.name for each in plain.schema_arrow if str(each.type) in ("string", "large_string")]
        # Text stays a dictionary and indices: written out, a few bytes could become any number of copies.
        return parquet.ParquetFile(
            self._path, read_dictionary=text, page_checksum_verification=True, pre_buffer=False
        )

    def _read(self, group: int, names: tuple[str, ...]) -> list[Any]:
        """Columns of a row group: each an array of numbers, or a list of text, or of numbers of which some
        are null.
        """
        rows = self._starts[group + 1] - self._starts[group]
        found: list[Any] = []
        with self._guarded():
            table = self._file.read_row_group(group, columns=list(names), use_threads=False)
            columns = dict(zip(table.column_names, table.columns, strict=True))
            found = [self._cells(name, columns[name]) for name in names]
        for name, cells in zip(names, found, strict=True):
            if len(cells) != rows:
                raise DataError(
                    f"{self._path}: column {name!r}: {len(cells)} cells in row group {group}, its rows are"
                    " another number"
                )
        return found

    def _cells(self, name: str, column: Any) -> Any:
        from pyarrow import types

        kind = column.type
        if types.is_dictionary(kind):
            cells: list[str | None] = []
            for chunk in column.chunks:
                words = chunk.dictionary.to_pylist()
                cells += [None if index is None else words[index] for index in chunk.indices.to_pylist()]
            return cells
        if types.is_floating(kind) or (types.is_integer(kind) and not column.null_count):
            return column.to_numpy()
        if types.is_boolean(kind) or types.is_integer(kind):
            # Integers with a null among them would become floats, and 7 the id "7.0".
            return column.to_pylist()
        raise DataError(f"{self._path}: column {name!r}: expected numbers or text, found {str(kind)[:80]}")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Name the file in whatever pyarrow raises on damaged bytes."""
        import pyarrow

        try:
            yield
        except DataError:
            raise
        except (pyarrow.ArrowException, *_DAMAGE) as error:
            raise DataError(f"{self._path}: not a readable Parquet file: {one_line(error)}") from error


def _as_list(cells: Any) -> list[Any]:
    return list(cells.tolist() if isinstance(cells, np.ndarray) else cells)
