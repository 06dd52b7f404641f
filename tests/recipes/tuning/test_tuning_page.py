"""The page of tuning says what the spaces say."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("tuning_page")
    page = module.PAGE.read_text(encoding="utf-8")
    assert page == module.renewed(page), "run python benchmarks/tuning_page.py"
