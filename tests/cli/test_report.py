"""``alignmamba report``."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Cli = Callable[..., Any]


def test_a_run(cli: Cli, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    said = cli("report", run, "--out", out, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out) == {
        "report": str(out),
        "bytes": out.stat().st_size,
        "cells": {"done": 1, "failed": 0, "unfinished": 0, "pending": 0},
    }
    page = out.read_text(encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{metrics['metrics']['test']['accuracy']:.3f}" in page
    assert "The run is finished." in page
    assert f"Epoch {metrics['best_epoch']} of 3 was kept" in page
    assert "Known of the corpus: best single modality accuracy 0.5." in page
    assert all(f'<section id="{name}"' in page for name in ("results", "confusion", "training", "samples", "made"))
    assert not (run / "report.html").exists()


def test_an_unfinished_run(cli: Cli, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "metrics.json").unlink()
    said = cli("report", copy)
    assert said.code == 0, said.err
    assert said.out.strip().endswith("1 unfinished")
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "The run is not finished: 3 epochs so far." in page
    assert '<section id="results"' not in page


def test_something_else(cli: Cli, tmp_path: Path) -> None:
    said = cli("report", tmp_path)
    assert said.code == 2
    assert said.err.startswith(f"error: {tmp_path}: expected the directory of an experiment or a run")
    assert said.err.count("\n") == 1
