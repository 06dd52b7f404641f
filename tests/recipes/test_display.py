"""The bar and the lines of training."""

import io
import math
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from alignmamba.errors import ConfigError
from alignmamba.recipes.display import EpochBar, EpochLines, NotebookLine, progress_display, shown_progress
from alignmamba.training.progress import Progress, together

RECORD = {
    "epoch": 1.0,
    "train/loss/total": 0.5,
    "valid/loss/total": 0.7,
    "valid/mae": 0.25,
    "valid/corr": 0.75,
    "seconds": 2.0,
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def play(display: EpochLines) -> None:
    display.started(epochs=2, batches=4, epoch=1, batch=0)
    for epoch in (1, 2):
        for batch in (2, 4):
            display.stepped(epoch=epoch, batch=batch, step=1, loss=0.125, learning_rate=1e-3)
        display.epoch_finished({**RECORD, "epoch": float(epoch)}, best=epoch == 1)


def test_one_line_per_epoch_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as display:
        play(display)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "epoch 1/2  train loss 0.5000  valid mae 0.2500, corr 0.7500  2.0 s  best",
        "epoch 2/2  train loss 0.5000  valid mae 0.2500, corr 0.7500  2.0 s",
    ]


def test_a_score_that_is_not_defined_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as display:
        display.started(epochs=1, batches=1, epoch=1, batch=0)
        display.epoch_finished({**RECORD, "epoch": 1.0, "valid/corr": math.nan}, best=True)
    assert "valid mae 0.2500, corr -  2.0 s" in capsys.readouterr().err


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_display() as display:
        assert isinstance(display, EpochBar)
        play(display)
        display.stepped(epoch=2, batch=3, step=1, loss=0.0625, learning_rate=1e-3)
    said = terminal.getvalue()
    assert "epoch 2/2  train loss" in said
    assert "3/4" in said
    assert "0.0625" in said
    assert said.endswith("\x1b[2K") or "\x1b[?25h" in said  # the bar is wiped and the cursor is back


def test_auto_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in ("auto", None):
        with shown_progress(asked) as told:  # type: ignore[arg-type]
            assert told is None
    lines = EpochLines()
    with shown_progress(lines) as told:
        assert told is lines
    for wrong in ("bar", True):
        with (
            pytest.raises(ConfigError, match=r"progress: found .*, expected 'auto', None, or an object"),
            shown_progress(wrong),
        ):  # type: ignore[arg-type]
            pass
    assert capsys.readouterr() == ("", "")


def test_auto_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with shown_progress("auto") as told:
        assert isinstance(told, EpochBar)


def test_auto_is_a_line_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = type("ZMQInteractiveShell", (), {})
    notebook: Any = SimpleNamespace(get_ipython=shell)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    with shown_progress("auto") as told:
        assert isinstance(told, NotebookLine)
        play(told)
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(
        "\repoch 1/2  batch 2/4  loss 0.1250  0 s left at most\repoch 1/2  train loss 0.5000  valid mae"
        " 0.2500"
    )
    assert out.endswith("epoch 2/2  train loss 0.5000  valid mae 0.2500, corr 0.7500  2.0 s\n")


def test_several_listeners_hear_the_same() -> None:
    heard: list[tuple[str, int]] = []

    class Mine(Progress):
        def __init__(self, name: str) -> None:
            self.name = name

        def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:  # noqa: ARG002
            heard.append((self.name, int(record["epoch"])))

    assert together(None) is None
    alone = Mine("a")
    assert together(None, alone) is alone
    both: Any = together(Mine("a"), None, Mine("b"))
    play(both)
    assert heard == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_the_time_left_is_that_of_the_whole_training_from_the_first_step_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Resumed after 1 of 4 batches of the first of 2 epochs; a step of 93 s leaves 6 batches, 558 s."""
    now = [1000.0]
    display = EpochLines(clock=lambda: now[0])
    display.started(epochs=2, batches=4, epoch=1, batch=1)
    for batch in (2, 3):
        now[0] += 93.0
        display.stepped(epoch=1, batch=batch, step=1, loss=0.5, learning_rate=1e-3)
    said = capsys.readouterr().err.splitlines()
    assert said == ["resuming in epoch 1 of 2 after 1 of 4 batches", "first step 93.0 s; 9 min left at most"]


def test_the_bar_shows_the_time_left_of_the_whole_training(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    now = [0.0]
    display = EpochBar(clock=lambda: now[0])
    display.started(epochs=30, batches=2, epoch=1, batch=0)
    now[0] = 93.0
    display.stepped(epoch=1, batch=1, step=1, loss=0.5, learning_rate=1e-3)
    display.close()
    assert "left at most: 91 min" in terminal.getvalue()
