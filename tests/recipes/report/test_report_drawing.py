"""Figures: what is in them, and that several of them can stand in one page."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from invented_experiments import METHODS, write_experiment

from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.recipes.experiments.cells import CellRecord
from alignmamba.recipes.experiments.missing import Missing, rate_of
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.report.drawings import (
    MOST_EPOCHS,
    Drawing,
    loss_drawing,
    metric_drawing,
    metric_limits,
    missing_rate_drawing,
)
from alignmamba.recipes.report.findings import Found


@pytest.mark.parametrize(
    ("column", "expected"), [("10 %", 0.1), ("0 %", 0.0), ("12.5%", 0.125), ("average", None), ("f1", None)]
)
def test_rates(column: str, expected: float | None) -> None:
    assert rate_of(column) == expected


def _drawn(drawing: Drawing | None) -> Drawing:
    assert drawing is not None
    return drawing


def _over_rates(table: ResultTable) -> Drawing | None:
    return missing_rate_drawing(table, Missing().rates(table), METHODS, "a")


@pytest.fixture
def table(tmp_path: Path) -> ResultTable:
    return gather(write_experiment(tmp_path, experiment="missing", columns=["0 %", "30 %", "70 %"])).tables[0]


def test_one_line_and_one_band_per_method(table: ResultTable) -> None:
    svg = _drawn(_over_rates(table)).svg
    for number in range(3):
        line = [
            path
            for path in re.findall(r"<path [^>]*>", svg)
            if f"fill: none; stroke: var(--series-{number})" in path
        ]
        assert len(line) == 1
        assert line[0].count("L") == 2  # from each of 3 rates to the next
        assert len(re.findall(rf"fill: var\(--series-{number}\); fill-opacity: 0.13", svg)) == 1
    assert "var(--series-3)" not in svg
    assert [text for text in re.findall(r">([^<]+)</text>", svg) if "%" in text] == ["0 %", "30 %", "70 %"]


def test_higher_is_higher(table: ResultTable) -> None:
    svg = _drawn(_over_rates(table)).svg
    path = next(
        path for path in re.findall(r"<path [^>]*>", svg) if "fill: none; stroke: var(--series-0)" in path
    )
    heights = [float(found) for found in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)]
    means = [entry.mean for entry in table.entries[0][:3] if entry]
    assert heights == sorted(heights)  # down the screen, as the means fall
    falls = [(heights[1] - heights[0]), (heights[2] - heights[1])]
    expected = [(means[0] or 0) - (means[1] or 0), (means[1] or 0) - (means[2] or 0)]
    assert falls[0] / falls[1] == pytest.approx(expected[0] / expected[1], rel=1e-3)


def test_gaps_and_undefined_numbers(table: ResultTable) -> None:
    holes = (
        None,
        Entry(values=(None,), mean=None, low=None, high=1.0),
        Entry(values=(0.5,), mean=0.5),
        None,
    )
    drawing = _drawn(_over_rates(table.model_copy(update={"entries": (holes, *table.entries[1:])})))
    assert "alignmamba from 0.500 to 0.500" in drawing.text
    assert "nan" not in drawing.svg
    assert _over_rates(table.model_copy(update={"columns": ("10 %", "a", "b", "c")})) is None


def test_figures_share_no_id_and_no_colour_of_their_own(tmp_path: Path) -> None:
    gathered = gather(write_experiment(tmp_path, epochs=6))
    limits = metric_limits(gathered.found, "accuracy")
    assert limits is not None
    one = _drawn(loss_drawing("alignmamba", gathered.found[:2], "one")).svg
    two = _drawn(metric_drawing("alignmamba", gathered.found[:2], "accuracy", limits, "two")).svg
    seen: set[str] = set()
    for svg in (one, two):
        ids = re.findall(r'\bid="([^"]+)"', svg)
        assert len(ids) == len(set(ids)) > 0
        assert not seen & set(ids)
        seen |= set(ids)
        used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
        assert {left or right for left, right in used} <= set(ids)
        assert not re.findall(r"#[0-9a-fA-F]{6}\b", svg)
        assert "<style" not in svg
        ElementTree.fromstring(svg)


def test_lines_of_training(tmp_path: Path) -> None:
    found = gather(write_experiment(tmp_path, epochs=6)).found
    drawing = _drawn(loss_drawing("alignmamba", found[:2], "a"))
    assert drawing.svg.count("fill: none; stroke-dasharray") == 2  # train, one per seed
    assert drawing.svg.count("fill: none; stroke: var(--series-0)") == 2
    assert "seed 0 train" in drawing.text
    limits = metric_limits(found, "accuracy")
    assert limits is not None
    assert loss_drawing("nothing", [], "a") is None
    assert metric_drawing("nothing", [], "accuracy", limits, "a") is None
    assert metric_limits(found, "unknown") is None


def test_labels_of_an_axis_keep_their_digits() -> None:
    cell = CellRecord(key="0" * 16, row="a", column="", seed=0, digest="")
    log = {"epoch": (1.0, 2.0), "valid/accuracy": (0.281, 0.289)}
    drawing = _drawn(
        metric_drawing("a", [Found(cell=cell, state="begun", log=log)], "accuracy", (0.28, 0.29), "a")
    )
    labels = re.findall(r">(0\.\d+)</text>", drawing.svg)
    assert len(labels) > 2
    assert len(set(labels)) == len(labels)
    assert any(len(label) > 4 for label in labels)


def test_a_long_training_is_thinned_and_keeps_its_end() -> None:
    epochs = tuple(map(float, range(1, 5001)))
    losses = tuple(1 / epoch for epoch in epochs)
    cell = CellRecord(key="0" * 16, row="a", column="", seed=0, digest="")
    drawing = _drawn(
        loss_drawing(
            "a",
            [Found(cell=cell, state="begun", log={"epoch": epochs, "valid/loss/total": losses})],
            "a",
        )
    )
    path = next(
        path
        for path in re.findall(r"<path [^>]*>", drawing.svg)
        if "fill: none; stroke: var(--series-0)" in path
    )
    assert path.count("L") <= MOST_EPOCHS
    assert "seed 0 valid 0.0002" in drawing.text


def test_a_value_that_no_axis_holds_is_not_drawn() -> None:
    cell = CellRecord(key="0" * 16, row="a", column="", seed=0, digest="")
    log = {"epoch": (1.0, 2.0, 3.0), "valid/loss/total": (0.5, 1e308, -1e308)}
    assert "valid 0.5" in _drawn(loss_drawing("a", [Found(cell=cell, state="begun", log=log)], "a")).text
