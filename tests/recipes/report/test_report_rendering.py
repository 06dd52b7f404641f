"""The page as text: its structure, its size, and that nothing in it can break out of its place."""

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented_experiments import (
    HOSTILE,
    LONG,
    METHODS,
    QUOTES,
    STRINGS,
    studied_run,
    write_experiment,
    write_json,
)

from alignmamba.errors import ConfigError
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.report.page import render, write_page
from alignmamba.recipes.report.sentences import rounded
from alignmamba.recipes.report.viewer_data import decimals_of

VOID = {"meta", "link", "input", "img", "br"}


class Document(HTMLParser):
    """A page taken apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "script":
            self.scripts.append("")
        if tag in ("td", "th", "dt", "dd"):
            self.text += " "
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif "style" not in self._open:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.scripts[0])
        return content

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("hostile")
    rows = ("alignmamba", HOSTILE, LONG, QUOTES)
    return render(
        gather(
            write_experiment(
                path, hostile=True, rows=rows, plan_lengths=(12, 6), failed=[3], pending=[6], unfinished=[5]
            )
        )
    )


def test_structure(hostile: str) -> None:
    document = Document(hostile)
    ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in document.elements:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(ids)
        assert not [name for name in attributes if name.startswith("on")]
    targets = [attributes["href"] for attributes in document.named("a")]
    assert targets[0] == "#main"
    assert {target[1:] for target in targets} <= set(ids)
    levels = [int(name[1]) for name, _ in document.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for landmark in ("header", "nav", "main", "footer"):
        assert len(document.named(landmark)) == 1
    assert document.named("html")[0]["lang"] == "en"
    assert all(attributes["scope"] in ("row", "col") for attributes in document.named("th"))
    # two are filled in by the script
    assert len(document.named("caption")) == len(document.named("table")) - 2
    assert all(attributes["alt"] for attributes in document.named("img"))
    images = [attributes for _, attributes in document.elements if attributes.get("role") == "img"]
    assert len(images) == len(document.named("svg")) > 0
    assert all(attributes["aria-label"] for attributes in images)


def test_nothing_comes_from_elsewhere(hostile: str) -> None:
    document = Document(hostile)
    policy = next(
        each["content"]
        for each in document.named("meta")
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert (
        policy == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )
    for _, attributes in document.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:")), attributes
    assert "@import" not in hostile
    assert not re.search(r"url\((?!#)", hostile)


def test_hostile_strings_are_shown_as_they_are(hostile: str) -> None:
    document = Document(hostile)
    assert [attributes.get("type") for attributes in document.named("script")] == ["application/json", None]
    assert len(document.named("img")) == 1  # the figure
    for string in STRINGS:
        assert " ".join(string.split()) in document.words
    assert "{{ 7*7 }}" in document.text
    assert HOSTILE not in hostile
    tokens = document.data["plans"][0]["samples"][0]["anchor"]["tokens"]
    assert tokens[:5] == list(STRINGS)
    assert document.data["samples"]["sets"][0]["ids"][1] == f"{STRINGS[1]}-1"


def test_hostile_strings_of_a_corpus_are_shown_as_they_are(tmp_path: Path) -> None:
    """Transcripts, groups, names of modalities and classes, and notes go through the same two doors."""
    page = render(studied_run(tmp_path))
    document = Document(page)
    assert [attributes.get("type") for attributes in document.named("script")] == ["application/json", None]
    assert not document.named("img")
    assert HOSTILE not in page
    assert f"without {HOSTILE}" in document.words
    for string in STRINGS:
        assert " ".join(string.split()) in document.words  # the notes
    data = document.data["samples"]
    assert data["study"]["texts"][1] == f"{STRINGS[1]} said 1"
    assert data["study"]["groups"][4] == f"{STRINGS[4]} said 4"
    # it has nothing but that modality
    assert data["study"]["effects"]["0"] == [data["study"]["effects"]["0"][0]]
    assert data["study"]["effects"]["1"][1][0] == f"without {HOSTILE}"
    assert data["classes"] == [f"{each} {number}" for number, each in enumerate(STRINGS[:4])]
    shares = data["cells"][0]["probabilities"][0]
    assert sorted(shares[::2]) == [0, 1, 2, 3]
    assert sum(shares[1::2]) == pytest.approx(1000, abs=2)
    assert shares[1::2] == sorted(shares[1::2], reverse=True)


def test_what_a_modality_is_worth(tmp_path: Path) -> None:
    words = Document(render(studied_run(tmp_path, kind="regression"))).words
    assert "all modalities 11 0.500" in words
    assert f"without {HOSTILE} 11 0.250 −0.250" in words
    assert "Predictions against truth" in words


def test_numbers_are_rounded_by_their_spread(tmp_path: Path) -> None:
    data = Document(render(studied_run(tmp_path, kind="regression"))).data["samples"]
    assert data["decimals"] == 3
    assert all(round(value, 3) == value for value in data["cells"][0]["prediction"])
    samples = (
        gather(write_experiment(tmp_path / "large", kind="regression", rows=["a"], seeds=1)).found[0].samples
    )
    assert samples is not None
    large = replace(
        samples, targets=tuple(f"{200 + 60 * place}" for place in range(12)), predictions=("512.123456",) * 12
    )
    assert decimals_of([large]) == 1
    assert decimals_of([replace(large, targets=("1",) * 12, predictions=("1",) * 12)]) == 3


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (0.94, 3, "0.940"),
        (0.0, 3, "0.000"),
        (-0.5, 3, "−0.500"),
        (0.0004321, 3, "0.00043"),
        (-3.2e-14, 3, "−3.2e−14"),
        (145.1234, 3, "145.123"),
        (1234.5678, 3, "1,234.57"),
        (123456789.25, 3, "123,456,789"),
        (float("nan"), 3, "–"),
        (None, 3, "–"),
    ],
)
def test_numbers_have_as_many_digits_as_a_person_reads(value: float | None, digits: int, shown: str) -> None:
    assert rounded(value, digits) == shown


def test_of_very_many_classes_the_most_confused_are_shown(tmp_path: Path) -> None:
    classes = [f"class {number}" for number in range(300)]
    write_experiment(tmp_path, rows=["a"], classes=classes, samples=700, epochs=0, seeds=2)
    counts = np.diag(np.arange(300))
    pairs = [(7 * each, 299 - 11 * each) for each in range(20)]
    for place, pair in enumerate(pairs):
        counts[pair] = 100 - place
    counts[150, 151] = 1
    whole = gather(tmp_path)
    found = tuple(replace(each, confusion=tuple(map(tuple, counts.tolist()))) for each in whole.found)
    page = render(replace(whole, found=found))
    (row,) = Document(page).data["confusions"]
    kept = sorted({place for pair in pairs[:10] for place in pair})
    for cell in row["cells"]:
        assert cell["classes"] == [*(classes[place] for place in kept), "280 other classes"]
        assert (cell["others"], cell["wrong"]) == (280, sum(100 - place for place in range(20)) + 1)
        shown = np.array(cell["counts"])
        assert (shown[:-1, :-1] == counts[np.ix_(kept, kept)]).all()
        assert shown.sum() == counts.sum()
        assert (
            shown[-1, :-1].tolist()
            == (counts[:, kept].sum(axis=0) - counts[np.ix_(kept, kept)].sum(axis=0)).tolist()
        )
        assert (
            shown[:-1, -1].tolist()
            == (counts[kept].sum(axis=1) - counts[np.ix_(kept, kept)].sum(axis=1)).tolist()
        )
    assert "class 19 and 280 more" in Document(page).words
    assert len(page) < 400_000


def test_of_very_many_classes_the_worst_scores_are_shown(tmp_path: Path) -> None:
    classes = [f"class {number}" for number in range(1000)]
    write_experiment(tmp_path, rows=["alignmamba"], classes=classes, seeds=1, samples=40, epochs=0)
    run = tmp_path / "cells" / "0000000000000000"
    write_json(
        run / "model" / "config.json",
        {"model_type": "AlignMamba", "task": {"kind": "classification", "classes": classes}},
    )
    document = Document(render(gather(run)))
    support = len({row for row, line in enumerate(gather(run).found[0].confusion) if sum(line)})
    assert f"The 20 lowest F1 of {support} classes that have samples; 1,000 classes in all." in document.words
    # Of the 1000 names only those that occur or are among the most probable of some sample are on the page.
    data = document.data["samples"]
    assert data["num_classes"] == 1000
    cell = data["cells"][0]
    places = (
        {place for row in cell["probabilities"] for place in row[::2]}
        | set(cell["prediction"])
        | set(data["sets"][0]["targets"])
    )
    assert places == set(range(len(data["classes"])))
    assert len(data["classes"]) <= 40 * 14 < 1000


def test_scores_of_each_class(tmp_path: Path) -> None:
    gathered = studied_run(tmp_path)
    counts = ((2, 1, 0, 0), (0, 3, 0, 0), (0, 2, 0, 0), (0, 0, 0, 0))
    found = replace(gathered.found[0], confusion=counts, classes=("a", "b", "c", "d"))
    words = Document(render(replace(gathered, found=(found,)))).words
    assert "a 1.000 0.667 0.800 3 b 0.500 1.000 0.667 3 c – 0.000 0.000 2 d – – – 0" in words
    assert "ECE = Σ |Bm| / n" in words


def test_intervals_become_forests(tmp_path: Path) -> None:
    document = Document(render(gather(write_experiment(tmp_path, epochs=0))))
    drawn = [
        attributes["data-title"]
        for attributes in document.named("div")
        if attributes.get("class") == "forest"
    ]
    assert drawn == ["Accuracy, complete modalities: accuracy", "Accuracy, complete modalities: f1 macro"]
    assert [attributes.get("id") for attributes in document.named("select")][:1] == ["forest-choice"]


def test_words_about_what_is_done(hostile: str) -> None:
    words = Document(hostile).words
    assert "4 methods on the corpus" in words
    assert (
        "classification into 4 classes; 2 seeds, 8 training runs. Of these, 5 done, 1 failed, 1 begun, 1"
        " pending." in words
    )
    assert "The experiment is not finished, and its numbers can change." in words
    assert f"{HOSTILE} 1 failed loss is not finite {HOSTILE}" in words
    assert f"{LONG} 1 begun, not finished –" in words
    assert f"{QUOTES} 0 pending –" in words


def test_a_finished_comparison(tmp_path: Path) -> None:
    write_experiment(tmp_path, epochs=0)
    path = tmp_path / "tables" / "accuracy.json"
    table = json.loads(path.read_text())
    table["entries"][0][0] = {
        "values": [0.9, 0.92],
        "mean": 0.91,
        "deviation": 0.0141,
        "low": 0.783,
        "high": 1.037,
        "mark": "best",
    }
    table["entries"][1][0] = {
        "values": [-0.5],
        "mean": -0.5,
        "deviation": None,
        "low": None,
        "high": None,
        "mark": "level",
    }
    write_json(path, table)
    words = Document(render(gather(tmp_path))).words
    assert "All of them are done." in words
    assert (
        "In “Accuracy, complete modalities”, column accuracy, the best is alignmamba with 0.910 ± 0.014; not"
        " significantly worse: mult." in words
    )
    assert "★ best: 0.910 ± 0.014 0.783 to 1.037" in words
    assert "≈ level with the best: −0.500 1 of 2 seeds" in words
    assert "misa 0.8" in words
    assert "–no value" in words
    assert "tables/accuracy.csv" in words
    assert "accuracy.tex" not in words
    assert "Runs that are not done" not in words
    assert "epoch that was kept" not in words  # nothing was logged
    assert "alignmamba experiment comparison --data 'a corpus' --seeds 2" in words


def test_what_tables_share_is_said_once_below_them(tmp_path: Path) -> None:
    write_experiment(tmp_path, epochs=0)
    table = json.loads((tmp_path / "tables" / "accuracy.json").read_text())
    write_json(tmp_path / "tables" / "second.json", {**table, "title": "Once more"})
    write_json(
        tmp_path / "tables" / "third.json", {**table, "title": "Otherwise", "notes": ["Another test."]}
    )
    words = Document(render(gather(tmp_path))).words
    assert words.count("Level: paired test, Holm over the column.") == 1
    assert (
        words.index("Once more")
        < words.index("Level: paired test")
        < words.index("Otherwise")
        < words.index("Another test.")
    )
    assert words.count("Bold with ★: best of the column.") == 2


def test_the_best_row_comes_first_in_the_confusion(tmp_path: Path) -> None:
    write_experiment(tmp_path, epochs=0)
    path = tmp_path / "tables" / "accuracy.json"
    table = json.loads(path.read_text())
    for place, mark in enumerate(("", "best", "")):
        table["entries"][place][0]["mark"] = mark
    write_json(path, table)
    confusions = Document(render(gather(tmp_path))).data["confusions"]
    assert [each["label"] for each in confusions] == ["mult", "alignmamba", "misa"]
    assert [cell["seed"] for cell in confusions[0]["cells"]] == [0, 1]


def test_missing_modalities(tmp_path: Path) -> None:
    page = render(
        gather(
            write_experiment(
                tmp_path, experiment="missing", kind="regression", columns=["10 %", "50 %"], seeds=1, epochs=0
            )
        )
    )
    document = Document(page)
    assert "Missing rates" in document.words
    assert "regression from −3 to 3" in document.words
    cells = document.data["samples"]["cells"]
    assert cells[1]["label"] == "alignmamba, 50 %, seed 0, test"
    assert cells[0]["withheld"]["modalities"] == ["text", "audio"]
    assert set(cells[0]["withheld"]["masks"]) == {0, 2}  # audio is the second
    assert document.data["confusions"] == []
    assert "confusion" not in [attributes.get("id") for attributes in document.named("section")]


def test_an_experiment_that_has_only_begun(tmp_path: Path) -> None:
    write_experiment(tmp_path, pending=range(6))
    for path in (tmp_path / "tables").iterdir():
        path.unlink()
    document = Document(render(gather(tmp_path)))
    assert [attributes["id"] for attributes in document.named("section")] == ["figures", "made"]
    assert "3 rows on the corpus invented" in document.words
    assert "mult 0, 1 pending" in document.words


def test_cells_of_several_versions_are_told(tmp_path: Path) -> None:
    write_experiment(tmp_path, epochs=0)
    write_json(tmp_path / "cells" / f"{1:016x}" / "environment.json", {"versions": {"torch": "2.6.0"}})
    assert "torch 2.13.0 (5 runs), 2.6.0 (1 run)" in Document(render(gather(tmp_path))).words


def test_a_usual_experiment_is_small(tmp_path: Path) -> None:
    write_experiment(tmp_path, rows=METHODS, seeds=5, samples=700, epochs=50, plan_lengths=(400, 50))
    page = write_page(tmp_path)
    assert page.path == tmp_path / "report.html"
    assert page.size == page.path.stat().st_size < 3_000_000
    assert page.cells == {"finished": 30, "failed": 0, "damaged": 0, "begun": 0, "pending": 0}
    data = Document(page.path.read_text(encoding="utf-8")).data["samples"]
    assert [len(cell["prediction"]) for cell in data["cells"]] == [700] * 6
    assert len(data["sets"]) == 1  # ids and targets once for all


def test_twice_the_same(tmp_path: Path) -> None:
    write_experiment(tmp_path, plan_lengths=(9, 4), rows=["a"])
    first = write_page(tmp_path).path.read_bytes()
    assert write_page(tmp_path).path.read_bytes() == first


def test_where_a_page_may_go(tmp_path: Path) -> None:
    write_experiment(tmp_path / "experiment", epochs=0)
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt: found the ending '\.txt', expected \.html"):
        write_page(tmp_path / "experiment", notes)
    assert notes.read_text() == "mine"
    page = tmp_path / "page.html"
    page.write_text("old")
    assert write_page(tmp_path / "experiment", page).path.read_text().startswith("<!doctype html>")
    with pytest.raises(ConfigError, match="there is no directory"):
        write_page(tmp_path / "experiment", tmp_path / "nowhere" / "page.html")
    with pytest.raises(ConfigError, match="a directory is there"):
        write_page(tmp_path / "experiment", tmp_path)


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_told_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ConfigError, match=rf"{package} is not installed, try: pip install 'alignmamba\[experiments\]'"
    ):
        write_page(write_experiment(tmp_path))
