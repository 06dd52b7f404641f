"""``alignmamba report``."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def test_a_run(cli: Cli, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    said = cli("report", run, "--out", out, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out) == {
        "report": str(out),
        "bytes": out.stat().st_size,
        "cells": {"finished": 1, "failed": 0, "damaged": 0, "begun": 0, "pending": 0},
    }
    page = out.read_text(encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{metrics['metrics']['test']['accuracy']:.3f}" in page
    assert "The run is finished." in page
    assert f"Epoch {metrics['best_epoch']} of 3 was kept" in page
    assert (
        page.count("Known of the corpus: best reachable accuracy 1.000, best single modality accuracy 0.500.")
        == 1
    )
    score = f"{metrics['metrics']['test']['accuracy']:.3f}"
    assert re.search(
        rf"The run is finished\. On test, accuracy {score} \(95 % interval 0\.\d{{3}} to [01]\.\d{{3}}\)\.",
        page,
    )
    assert all(
        f'<section id="{name}"' in page for name in ("results", "confusion", "training", "samples", "made")
    )
    assert not (run / "report.html").exists()


def test_an_unfinished_run(cli: Cli, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "metrics.json").unlink()
    said = cli("report", copy)
    assert said.code == 0, said.err
    assert said.out.strip().endswith("1 begun")
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "The run is not finished: 3 epochs so far." in page
    assert '<section id="results"' not in page


def test_something_else(cli: Cli, tmp_path: Path) -> None:
    said = cli("report", tmp_path)
    assert said.code == 2
    assert said.err.startswith(f"error: {tmp_path}: expected the directory of an experiment or a run")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("lacking", "arguments", "message"),
    [
        ("jinja2", (), "report: jinja2 is not installed, try: pip install 'alignmamba[experiments]'"),
        ("matplotlib", (), "report: matplotlib is not installed"),
        ("", ("--out", "nowhere/page.html"), "out nowhere/page.html: there is no directory nowhere"),
        ("", ("--out", "notes.txt"), "out notes.txt: found the ending '.txt', expected .html"),
        ("", ("--out", "new.txt"), "out new.txt: found the ending '.txt', expected .html"),
        ("", ("--out", "page"), "out page: found the ending '', expected .html"),
        ("", ("--out", "grid"), "out grid: a directory is there, expected a file"),
        ("", ("--data", "corpus"), "data: goes with a single run, whose corpus it is"),
        ("", ("notes.txt",), "notes.txt: expected the directory of an experiment or a run, found a file"),
        ("", ("gone",), "gone: no such directory"),
    ],
)
def test_a_page_that_cannot_be_made_is_refused_before_tables_are_written(
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacking: str,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid" / "jobs").mkdir(parents=True)
    (tmp_path / "grid" / "experiment.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(
        "alignmamba.recipes.experiments.grid_run.refresh_tables",
        lambda path: pytest.fail(f"tables of {path} were written"),
    )
    if lacking:
        monkeypatch.setitem(sys.modules, lacking, None)
    said = cli("report", "grid", *arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "experiment.json",
        "grid",
        "jobs",
        "notes.txt",
    ]


@pytest.mark.parametrize(
    ("file", "field", "value", "said"),
    [
        ("run.json", "digest", "/dev/zero", "digest: found '/dev/zero', expected hexadecimal digits"),
    ],
)
def test_a_value_of_a_run_that_cannot_be_is_named(
    cli: Cli, run: Path, tmp_path: Path, file: str, field: str, value: Any, said: str
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("SHA256SUMS"))
    values = json.loads((copy / file).read_text())
    values.pop("sha256", None)
    (copy / file).write_text(json.dumps({**values, field: value}))
    code, out, err = cli("report", copy)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {copy / file}: {said}")
    assert err.count("\n") == 1
