"""The pages of methods say what the methods say."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["methods_page", "targets_page", "export_page"])
def test_the_page_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module(name)
    page = module.PAGE.read_text(encoding="utf-8")
    assert page == module.renewed(page), f"run python benchmarks/{name}.py"
