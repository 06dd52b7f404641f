"""Reports while files are read: lines, and bars on a terminal."""

import io
import sys

import pytest

from alignmamba.recipes.display import LARGE_BYTES, SampleBar, samples_display


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with samples_display("read") as told:
        for done in (1, 2, 3):
            told.hashed(done * LARGE_BYTES, 3 * LARGE_BYTES)
            told.hashed(done, 3)
            told("train", done, 3)
        told.say("so it is")
    assert capsys.readouterr().err.splitlines() == [
        "checksum: 0.8 GB to read",
        "train: 3 samples read",
        "so it is",
    ]


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with samples_display("read") as told:
        assert isinstance(told, SampleBar)
        told.hashed(50, 100)
        told("train", 1, 4)
        told.say("so it is")
    for said in ("checksum: bytes", "50%", "train: samples", "25%", "so it is"):
        assert said in terminal.getvalue()
