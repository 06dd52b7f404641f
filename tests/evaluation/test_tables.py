import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.statistics import Estimate
from alignmamba.evaluation.tables import Entry, ResultTable

TABLE = ResultTable(
    name="accuracy",
    title="Accuracy, 100 % of samples",
    caption="Text & audio.",
    row_label="method",
    rows=("align_mamba", "[x] a|b", "*one*"),
    columns=("f1_macro", "10 %"),
    digits=2,
    entries=(
        (
            Entry(values=(0.91, 0.93), mean=0.92, deviation=0.01414, low=0.793, high=1.047, mark="best"),
            Entry(values=(0.5,), mean=0.5),
        ),
        (Entry(values=(0.9, 0.8), mean=0.85, deviation=0.0707, low=-0.0001, high=0.9, mark="level"), None),
        (Entry(values=(None, 1.0), mean=None), Entry(values=(0.25,), mean=0.25)),
    ),
    notes=("One cell failed",),
)


def changed(**fields: Any) -> ResultTable:
    return ResultTable(**{**dict(TABLE), **fields})


def test_an_entry_of_seeds_worked_on_paper() -> None:
    """Mean 2, deviation 1; t(2) at 97.5 % is 4.302653, over √3."""
    entry = Entry.of_seeds([1.0, 2.0, 3.0], mark="best")
    assert (entry.values, entry.mean, entry.mark) == ((1.0, 2.0, 3.0), 2.0, "best")
    assert entry.deviation == pytest.approx(1.0)
    assert (entry.low, entry.high) == (
        pytest.approx(2 - 2.484138, rel=1e-5),
        pytest.approx(2 + 2.484138, rel=1e-5),
    )
    assert Entry.of_seeds([1.0, 3.0]) == Entry(values=(1.0, 3.0), mean=2.0, deviation=math.sqrt(2))
    told = Estimate(mean=2.0, deviation=1.0, low=1.5, high=2.5, n=2)
    assert Entry.of_seeds([1.0, 3.0], estimate=told) == Entry(
        values=(1.0, 3.0), mean=2.0, deviation=math.sqrt(2), low=1.5, high=2.5
    )
    assert Entry.of_seeds([0.5]) == Entry(values=(0.5,), mean=0.5)
    assert Entry.of_seeds([0.5, math.nan]) == Entry(values=(0.5, None), mean=None)


# --- JSON ---------------------------------------------------------------------------------------------------


def test_csv_names_the_seeds_where_they_are_known() -> None:
    table = ResultTable(
        name="seeds",
        title="Seeds",
        row_label="method",
        rows=("a", "b"),
        columns=("x",),
        entries=(
            (Entry(values=(1.0, 2.0), mean=1.5, seeds=(0, 2)),),
            (Entry(values=(3.0,), mean=3.0, seeds=(2,)),),
        ),
    )
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [(row["seed_0"], row["seed_2"]) for row in rows] == [("1.0", "2.0"), ("", "3.0")]


def test_json_has_the_agreed_fields() -> None:
    found = json.loads(TABLE.to_json())
    assert list(found) == [
        "name",
        "title",
        "caption",
        "row_label",
        "rows",
        "columns",
        "digits",
        "entries",
        "notes",
    ]
    assert found["entries"][0][1] == {
        "values": [0.5],
        "mean": 0.5,
        "seeds": [],
        "deviation": None,
        "low": None,
        "high": None,
        "mark": "",
    }
    assert found["entries"][1][1] is None
    assert found["entries"][2][0]["values"] == [None, 1.0]


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4),
    st.text().filter(str.isprintable),
)
def test_json_gives_the_table_back(values: list[float], text: str) -> None:
    entry = Entry(values=tuple(values), mean=values[0], low=values[-1], mark="level")
    table = changed(rows=(text,), columns=("a",), entries=((entry,),), title=text, notes=(text, text))
    assert ResultTable.from_json(table.to_json()) == table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digits": -1}, r"^table.digits: Input should be greater than or equal to 0, found -1$"),
        ({"digits": None}, "table.digits"),
        ({"rows": ["a", "a", "b"]}, r"^table: rows: expected distinct names, found \['a', 'a', 'b'\]$"),
        ({"rows": ["a"]}, r"^table: entries: expected one row per row name, 1, found 3$"),
        ({"columns": ["a", "b", "c"]}, r"entries: row 'align_mamba': expected one per column, 3, found 2$"),
        ({"name": "../x"}, "table.name"),
        ({"title": "two\nlines"}, "table.title"),
        ({"colour": "red"}, "table.colour"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        ResultTable.from_json(json.dumps({**json.loads(TABLE.to_json()), **change}))
    assert "\n" not in str(caught.value)


def test_damaged_json_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match=r"^table: Invalid JSON") as caught:
        ResultTable.from_json(TABLE.to_json()[:-10])
    assert "\n" not in str(caught.value)


def test_infinite_numbers_and_unknown_marks_are_refused() -> None:
    with pytest.raises(ConfigError, match="finite"):
        Entry(values=(math.inf,), mean=0.0)
    with pytest.raises(ConfigError, match="mark"):
        Entry(values=(1.0,), mean=1.0, mark="worst")  # type: ignore[arg-type]


# --- CSV ----------------------------------------------------------------------------------------------------


def test_csv_has_a_line_per_known_entry_and_every_value() -> None:
    rows = list(csv.DictReader(io.StringIO(TABLE.to_csv())))
    assert list(rows[0]) == [
        "method",
        "column",
        "mean",
        "deviation",
        "low",
        "high",
        "mark",
        "value_1",
        "value_2",
    ]
    assert [(row["method"], row["column"]) for row in rows] == [
        ("align_mamba", "f1_macro"),
        ("align_mamba", "10 %"),
        ("[x] a|b", "f1_macro"),
        ("*one*", "f1_macro"),
        ("*one*", "10 %"),
    ]
    assert list(rows[0].values())[2:] == ["0.92", "0.01414", "0.793", "1.047", "best", "0.91", "0.93"]
    assert list(rows[1].values())[2:] == ["0.5", "", "", "", "", "0.5", ""]
    assert list(rows[3].values())[2:] == ["", "", "", "", "", "", "1.0"]


# --- LaTeX --------------------------------------------------------------------------------------------------


def latex_cells(latex: str) -> list[list[str]]:
    """Cells of each row, the header first; checks that braces and environments close, and that nothing
    special is left as it is.
    """
    bare = re.sub(r"\\[a-zA-Z]+|\\[\\&%$#_{}]", "", latex)
    assert not set(bare) & set("%#_~^\\<>|≈±"), bare
    assert bare.count("$") % 2 == 0
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", latex):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", latex):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    body = latex[latex.index(r"\toprule") : latex.index(r"\bottomrule")]
    lines = [line.removesuffix(r"\\").strip() for line in body.splitlines() if line.endswith(r"\\")]
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", latex)
    assert columns
    cells = [re.split(r"(?<!\\)&", line) for line in lines]
    assert {len(row) for row in cells} == {len(columns[1])}
    # The \\ of the row before would take these for its own.
    assert not any(line.lstrip().startswith(("[", "*")) for line in body.splitlines())
    return [[cell.strip() for cell in row] for row in cells]


def test_latex_worked_by_hand() -> None:
    assert latex_cells(TABLE.to_latex()) == [
        ["method", r"f1\_macro", r"10 \%"],
        [r"align\_mamba", r"\textbf{0.92 $\pm$ 0.01} {\scriptsize {[}0.79, 1.05]}", "0.50"],
        [r"{[}x] a\textbar{}b", r"\underline{0.85 $\pm$ 0.07} {\scriptsize {[}0.00, 0.90]}", "--"],
        ["{*}one{*}", "--", "0.25"],
    ]
    assert r"\label{tab:accuracy}" in TABLE.to_latex()
    assert (
        r"\caption{Accuracy, 100 \% of samples. Text \& audio. One cell failed. "
        r"Shown: mean $\pm$ standard deviation over seeds; {[}95 \% interval]; bold: best; underlined: level"
        r" with the best.}"
    ) in TABLE.to_latex()


@given(st.text(alphabet="ab&%$#_{}\\~^<>|*[]±≈ ", max_size=12))
def test_latex_holds_whatever_the_names_are(text: str) -> None:
    table = changed(
        rows=(text,),
        columns=(text,),
        row_label=text,
        title=text,
        caption=text,
        notes=(text,),
        entries=((None,),),
    )
    assert len(latex_cells(table.to_latex())) == 2


# --- Markdown -----------------------------------------------------------------------------------------------


def test_markdown_worked_by_hand() -> None:
    assert (
        TABLE.to_markdown()
        == "## Accuracy, 100 % of samples\n\nText & audio.\n\n| method | f1_macro | 10 % |\n| --- | ---: |"
        " ---: |\n| align_mamba | **0.92 ± 0.01** [0.79, 1.05] | 0.50 |\n| [x] a\\|b | ≈ 0.85 ± 0.07"
        " [0.00, 0.90] | – |\n| \\*one\\* | – | 0.25 |\n\n- One cell failed\n- Shown: mean ± standard"
        " deviation over seeds; [95 % interval]; bold: best; ≈: level with the best.\n"
    )


def test_only_what_is_there_is_explained() -> None:
    plain = changed(
        columns=("a",), entries=((Entry(values=(0.5,), mean=0.5),), (None,), (None,)), notes=(), caption=""
    )
    assert plain.to_markdown().endswith("| \\*one\\* | – |\n")
    assert "Shown" not in plain.to_latex()


# --- files --------------------------------------------------------------------------------------------------


def test_a_terminal_has_the_legend_of_what_it_shows() -> None:
    assert TABLE.shown_notes() == [
        "Text & audio.",
        "One cell failed",
        "Shown: mean ± standard deviation over seeds; [95 % interval]; *: best; ≈: level with the best.",
    ]
    assert TABLE.shown_notes(intervals=False) == [
        "Text & audio.",
        "One cell failed",
        "There is no room for intervals here: accuracy.md has them.",
        "Shown: mean ± standard deviation over seeds; *: best; ≈: level with the best.",
    ]
    assert changed(entries=((None, None),) * 3).shown_notes() == ["Text & audio.", "One cell failed"]


def test_files_are_written_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "accuracy.csv").write_text("old")
    paths = TABLE.write(tmp_path / "tables")
    assert [path.name for path in paths] == ["accuracy.json", "accuracy.csv", "accuracy.tex", "accuracy.md"]
    assert sorted(paths) == sorted((tmp_path / "tables").iterdir())
    written = [path.read_bytes().decode() for path in paths]
    assert written == [TABLE.to_json(), TABLE.to_csv(), TABLE.to_latex(), TABLE.to_markdown()]
    assert ResultTable.from_json(paths[0].read_bytes()) == TABLE


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("in the way")
    with pytest.raises(DataError, match=rf"^tables {tmp_path}/tables: cannot be written: "):
        TABLE.write(tmp_path / "tables")
