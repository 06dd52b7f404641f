"""Tables of samples: cells as they stand, and no more in memory than the columns that are asked for."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from alignmamba.data.readers.tables import column_names, is_absent, is_missing, read_columns
from alignmamba.errors import DataError


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
        pa.table({"id": ["a", "b", None], "label": [1, 2, 3], "odd": [[1], [2], [3]]}), tmp_path / "table.parquet", row_group_size=2
    )
    assert column_names(tmp_path / "table.parquet") == ["id", "label", "odd"]
    assert read_columns(tmp_path / "table.parquet", ["label", "id"]) == {"label": [1, 2, 3], "id": ["a", "b", None]}


def test_what_is_no_value() -> None:
    assert [is_absent(cell) for cell in (None, "", " ", "nan", float("nan"), "none", "NA", "null", "0", 0)] == [True] * 5 + [False] * 5
    assert [is_missing(cell) for cell in (None, "none", "NA", "null", "0", 0)] == [True] * 4 + [False] * 2


_CHILD = """
import resource, sys
from pathlib import Path
from alignmamba.data.readers.tables import read_columns
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
path, small = map(Path, sys.argv[1:])
read_columns(small, ["id", "label", "split"])
before = peak()
columns = read_columns(path, ["id", "label", "split"])
print(len(columns["id"]), peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux tells it")
def test_other_columns_take_no_memory(tmp_path: Path) -> None:
    """20 MB of 203 columns, of which the three that are named have 20,000 cells each: all of them took 560 MB."""
    rows, width = 20_000, 200
    cells = ",".join(f"{at}.25" for at in range(width))
    for name, count in (("small.csv", 2), ("table.csv", rows)):
        with (tmp_path / name).open("w") as file:
            file.write("id,label,split," + ",".join(f"c{at}" for at in range(width)) + "\n")
            file.writelines(f"s{row},{row % 3},train,{cells}\n" for row in range(count))
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "table.csv"), str(tmp_path / "small.csv")]
    count, taken = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert count == rows
    assert taken < 64 << 20
