"""The benchmark of word times: what it counts, and what it says where the voice is missing."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def word_times(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    return importlib.import_module("word_times")


def test_without_espeak_it_ends_in_one_line(
    word_times: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(word_times, "find_library", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["word_times.py"])
    assert word_times.main() == 2
    assert capsys.readouterr().err.splitlines() == [
        "espeak-ng: found no library of it, expected it installed: apt install espeak-ng"
    ]


def test_a_row_counts_failures_and_errors_that_nobody_marked(word_times: Any) -> None:
    found = [
        word_times.Found((0.01, -0.04, 0.2), ""),
        word_times.Found((0.3, 0.3, 0.0), "times may be wrong"),
        word_times.Found((0.3, 0.3, 0.0), ""),
        word_times.Found((), "spread"),
        word_times.Found((), ""),
    ]
    assert word_times.row("these", found) == "| these | 9 | 200 ms | 44.4% | 3 of 5 | 1 | 1 | 1 |"


def test_voice_says_where_its_words_begin(word_times: Any) -> None:
    if word_times.find_library("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")
    said = word_times.Voice().say("numbers", "Call me in 2014, please.", "en-us", 150)
    starts = [start for start in said.starts if start is not None]
    assert len(said.starts) == 5
    assert starts == sorted(starts)
    assert len(starts) >= 4
    assert 0 <= starts[0] < starts[-1] < len(said.samples) / 22_050
