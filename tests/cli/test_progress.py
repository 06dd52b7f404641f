"""The bar and the lines of training."""

import io
import sys

import pytest

from alignmamba.cli.progress import EpochBar, EpochLines, progress_display

RECORD = {"epoch": 1.0, "train/loss/total": 0.5, "valid/loss/total": 0.7, "valid/mae": 0.25, "valid/corr": 0.75, "seconds": 2.0}


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
