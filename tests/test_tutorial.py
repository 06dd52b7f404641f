"""The tutorial notebook is run, cell by cell, and is a page of the documentation."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"


def test_every_cell_runs_and_fusion_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pyplot.switch_backend("Agg")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(
        not cell["outputs"] and cell["execution_count"] is None
        for cell in cells
        if cell["cell_type"] == "code"
    )
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    pyplot.close("all")
    assert names["result"].metrics["test"]["accuracy"] > 0.8
    alone = [names["run"].evaluate(drop=[name])["metrics_dropped"]["accuracy"] for name in ("audio", "video")]
    assert max(alone) < 0.75


def test_the_site_shows_every_cell_in_order() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    shown = runpy.run_path(str(NOTEBOOK.with_name("notebook.py")))["page"](text)
    cells = [("".join(cell["source"]).strip(), cell["cell_type"]) for cell in json.loads(text)["cells"]]
    assert re.findall(r"^```python\n(.*?)\n```$", shown, re.DOTALL | re.MULTILINE) == [
        each for each, kind in cells if kind == "code"
    ]
    assert shown.startswith("# A first model of two modalities\n\n")
    assert shown.count("(tutorial.ipynb)") == 1
    places = [shown.index(line) for each, _ in cells for line in each.splitlines()[:1]]
    assert places == sorted(places)
