"""The page of methods says what the methods say."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("methods_page")
    page = module.PAGE.read_text(encoding="utf-8")
    assert page == module.renewed(page), "run python benchmarks/methods_page.py"
