"""Tables of samples: cells as they stand, and no more in memory than the columns that are asked for."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from alignmamba.errors import DataError
from alignmamba.formats.tables import foreign_tables as tables
from alignmamba.formats.tables import text_tables
from alignmamba.formats.tables.foreign_tables import column_names, is_absent, is_missing, read_columns


def test_cells_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b'\xef\xbb\xbfid;said;label\n\na;"one;\n\ntwo ""x""";1\r\nb; ;2\n')
    assert column_names(path) == ["id", "said", "label"]
    assert read_columns(path, ["label", "said"]) == {"label": ["1", "2"], "said": ['one;\n\ntwo "x"', None]}
    path.write_bytes(b"id,label\ra,1\rb,2\r")
    assert read_columns(path, ["id"]) == {"id": ["a", "b"]}
    path.write_bytes(b"id,label\na,1\nb,2,3\n")
    with pytest.raises(DataError, match=r"table\.csv, line 3: expected 2 cells, found 3"):
        read_columns(path, ["id"])
    path.write_bytes(b"id,label\na,\xff\n")
    with pytest.raises(DataError, match=r"table\.csv, line 2: expected text in UTF-8, found byte 0xff"):
        read_columns(path, ["id"])
    with pytest.raises(DataError, match=r"expected a column 'none', found \['id', 'label'\]"):
        read_columns(path, ["none"])
    path.write_bytes(b"")
    with pytest.raises(DataError, match="expected a line of column names"):
        column_names(path)


def test_cells_of_parquet(tmp_path: Path) -> None:
    parquet.write_table(
        pa.table({"id": ["a", "b", None], "label": [1, 2, 3], "odd": [[1], [2], [3]]}),
        tmp_path / "table.parquet",
        row_group_size=2,
    )
    assert column_names(tmp_path / "table.parquet") == ["id", "label", "odd"]
    assert read_columns(tmp_path / "table.parquet", ["label", "id"]) == {
        "label": [1, 2, 3],
        "id": ["a", "b", None],
    }


def test_what_is_no_value() -> None:
    assert [
        is_absent(cell) for cell in (None, "", " ", "nan", float("nan"), "none", "NA", "null", "0", 0)
    ] == [True] * 5 + [False] * 5
    assert [is_missing(cell) for cell in (None, "none", "NA", "null", "0", 0)] == [True] * 4 + [False] * 2


_CHILD = """
import resource, sys
from pathlib import Path
from alignmamba.formats.tables import foreign_tables as tables
from alignmamba.formats.tables.foreign_tables import read_columns
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
path, small = map(Path, sys.argv[1:])
read_columns(small, ["id", "label", "split"])
before = peak()
columns = read_columns(path, ["id", "label", "split"])
print(len(columns["id"]), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux tells it")
def test_other_columns_take_no_memory(tmp_path: Path) -> None:
    """20 MB of 203 columns, of which the three that are named have 20,000 cells each: all of them took 560
    MB.
    """
    rows, width = 20_000, 200
    cells = ",".join(f"{at}.25" for at in range(width))
    for name, count in (("small.csv", 2), ("table.csv", rows)):
        with (tmp_path / name).open("w") as file:
            file.write("id,label,split," + ",".join(f"c{at}" for at in range(width)) + "\n")
            file.writelines(f"s{row},{row % 3},train,{cells}\n" for row in range(count))
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "table.csv"), str(tmp_path / "small.csv")]
    count, taken = map(
        int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    )
    assert count == rows
    assert taken < 64 << 20


ROWS = ["id,label,split,t", *(f"s{row},{row % 2},train,said {row}" for row in range(12))]


def quoted(*changes: tuple[int, str, str]) -> str:
    """A table of 12 samples with changes in some of its lines, the line of the names being 0."""
    rows = list(ROWS)
    for row, old, new in changes:
        rows[row] = rows[row].replace(old, new)
    return "\n".join(rows) + "\n"


SWALLOWING = {
    "to the end": (quoted((5, "said", '"said')), r"line 6: a quote that is not closed$"),
    "to text": (
        quoted((5, "said", '"said'), (8, "said", '"said')),
        r"line 6: text behind the quote that closes a cell",
    ),
    "to another": (
        quoted((5, "said", '"said'), (8, "7\n", '7"\n'), (8, "said 7", 'said 7"')),
        r"line 6: perhaps a quote .* line 9, but line 7 has the 4",
    ),
    "to the next": (
        quoted((5, "said", '"said'), (6, "said 5", 'said 5"')),
        r"line 6: perhaps a quote .* ends in line 7, but line 7 has the 4",
    ),
    "empty": (
        quoted((5, "said 4", '"'), (6, "said 5", '"')),
        r"line 6: perhaps a quote .* ends in line 7, but line 7 has the 4",
    ),
    "in the middle": (
        'id,t,label\na,"one,0\nb,two",1\nc,three,1\n',
        r"line 2: perhaps a quote .* ends in line 3, but line 3 has the 3",
    ),
    "too long": (
        "id,t\na," + "x" * 140_000 + "\n",
        r"line 2: a cell of more than 131072 characters, which no column",
    ),
}


@pytest.mark.parametrize("case", SWALLOWING)
def test_a_quote_swallows_no_rows(tmp_path: Path, case: str) -> None:
    content, said = SWALLOWING[case]
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        read_columns(path, ["id"])


def test_line_breaks_in_quotes_are_text(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('id,t,label\na,"Well, yes.\nOr no",0\n"b","one\ntwo, or\n\nthree",1\n')
    assert read_columns(path, ["id", "t"]) == {
        "id": ["a", "b"],
        "t": ["Well, yes.\nOr no", "one\ntwo, or\n\nthree"],
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way(tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the names decides on the delimiter, however many commas the others have; empty lines are
    none.
    """
    monkeypatch.setattr(text_tables, "_BLOCK_BYTES", 50)
    rows = ["", ";;", "id;t", "a;1,2,3,4", "a;1,5", "", "a;2", "b;3", "", "c;4"]
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xef\xbb\xbf" + end.join(rows).encode())
    assert read_columns(path, ["id", "t"]) == {"id": [*"aaabc"], "t": ["1,2,3,4", "1,5", "2", "3", "4"]}
    path.write_bytes(b"\xef\xbb\xbf" + end.join(rows).replace(",", "").encode())
    long = tables.LongTable(path=path, inside=tmp_path, id=["id"])
    found = {
        name: numbers[0].ravel().tolist() for name in long.runs if (numbers := long.rows(name)) is not None
    }
    assert found == {"a": [1234, 15, 2], "b": [3], "c": [4]}
    path.write_bytes(end.join([*rows[2:], "d"]).encode())
    for read in (
        lambda: read_columns(path, ["id"]),
        lambda: tables.LongTable(path=path, inside=tmp_path, id=["id"]),
    ):
        with pytest.raises(DataError, match=r"line 9: expected 2 cells, found 1"):
            read()


def test_a_long_table_has_no_line_breaks_in_cells(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('id,t\na,"1\n2"\n')
    with pytest.raises(
        DataError,
        match=(
            r"line 2: a quote that is not closed in its line; cells with line breaks are read in tables of"
            r" samples"
        ),
    ):
        tables.LongTable(path=path, inside=tmp_path, id=["id"])


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_whole_however_they_are_read(
    tmp_path: Path, end: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_tables, "_BLOCK_BYTES", block)
    monkeypatch.setattr(text_tables, "_BLOCK_ROWS", 2)
    path = tmp_path / "table.csv"
    path.write_bytes(end.join(["id,x", "a,1", "", "a,2", "a,3", "b,4", "c,five"]).encode())
    assert read_columns(path, ["x"]) == {"x": ["1", "2", "3", "4", "five"]}
    long = tables.LongTable(path=path, inside=tmp_path, id=["id"])
    assert [rows[0].tolist() for name in "ab" if (rows := long.rows(name))] == [[[1], [2], [3]], [[4]]]
    with pytest.raises(DataError, match=r"column 'x', id 'c', its row 1: expected a number, found 'five'"):
        long.rows("c")


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_tables, "_BLOCK_BYTES", 16)
    monkeypatch.setattr(text_tables, "_LINE_BYTES", 64)
    path = tmp_path / "table.csv"
    path.write_text("id,x\na," + "1" * 100 + "\n")
    with pytest.raises(DataError, match=r"table\.csv: a line of more than 64 bytes"):
        read_columns(path, ["id"])


def test_a_row_of_another_width_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(";;\nx\ty\n1\t2\n\n3\n")
    numbered = tables.LongTable(path=path, inside=tmp_path, id=["#"])
    for read in (lambda: numbered.rows("2"), lambda: read_columns(path, ["x"])):
        with pytest.raises(DataError, match=r"line 5: expected 2 cells, found 1"):
            read()


def test_first_rows_cross_row_groups_and_leave_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    content = {"x": [1, 2, 3], "odd": [[1], [2], [3]], "said": ["a", None, "a"]}
    parquet.write_table(pa.table(content), path, row_group_size=1)
    assert tables.first_rows(path, 2) == {"x": [1, 2], "said": ["a", None]}
