"""The recipes of CONTRIBUTING.md for a metric and an encoder, followed in a copy of the package."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def recipe(heading: str) -> str:
    """The example below a heading."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[0]


def insert(path: Path, before: str, text: str) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count(before) == 1
    path.write_text(source.replace(before, f"{text}{before}"), encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package with both examples in place, in no other file than the recipes name."""
    package = tmp_path / "source" / "alignmamba"
    shutil.copytree(ROOT / "src" / "alignmamba", package, ignore=shutil.ignore_patterns("__pycache__"))
    metrics, encoders = package / "evaluation" / "metrics.py", package / "nn" / "encoders.py"
    insert(metrics, '    "f1_macro": Metric(', recipe("Add a metric"))
    insert(encoders, "ENCODERS: Final", f"{recipe('Add an encoder')}\n\n")
    insert(encoders, '    "linear": LinearEncoder,\n', '    "mean": MeanEncoder,\n')
    insert(encoders, '"linear", "conv", "mamba", "embedding", "none"]', '"mean", ')
    return package


def test_a_metric_and_an_encoder_are_one_row_and_one_class(package: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [
        *("fit.epochs=1", "fit.select=error_rate", "options.d_model=16", "options.depth=1"),
        "options.encoders={audio: {kind: mean}}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "alignmamba", "train", "--out", str(run), "--set", *settings],
        env={"PYTHONPATH": str(package.parent), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert list(written["metrics"]["test"])[:3] == ["accuracy", "error_rate", "f1_macro"]
    assert written["selected_by"] == "error_rate"
