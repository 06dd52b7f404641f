"""The tutorial notebook is run, cell by cell."""

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"


def test_every_cell_runs_and_fusion_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pyplot.switch_backend("Agg")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    pyplot.close("all")
    assert names["result"].metrics["test"]["accuracy"] > 0.8
    alone = [names["run"].evaluate(drop=[name])["metrics_dropped"]["accuracy"] for name in ("audio", "video")]
    assert max(alone) < 0.75
