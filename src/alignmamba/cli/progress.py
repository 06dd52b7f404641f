"""Progress of training on standard error: a bar on a terminal, one line per epoch everywhere."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from alignmamba.cli.verb import console


@contextmanager
def progress_display() -> Iterator["EpochLines"]:
    """What to hand to `train` as its progress; the bar is gone afterwards."""
    display = EpochBar() if sys.stderr.isatty() else EpochLines()
    try:
        yield display
    finally:
        display.close()


class EpochLines:
    """Writes a line at the end of each epoch; meets `alignmamba.training.fitting.Progress`."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._epochs = 0

    def started(self, *, epochs: int, batches: int, epoch: int, batch: int) -> None:
        """Say from where training starts, if not from the beginning."""
        self._epochs = epochs
        if (epoch, batch) != (1, 0):
            self._print(f"going on in epoch {epoch} of {epochs} after {batch} of {batches} batches")

    def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
        """Nothing: a file has no use for every step."""

    def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:
        """Write the line."""
        scores = [f"{name.removeprefix('valid/')} {record[name]:.4f}" for name in _headline(record)]
        line = f"epoch {int(record['epoch'])}/{self._epochs}  train loss {record['train/loss/total']:.4f}  valid {', '.join(scores)}"
        self._print(f"{line}  {record['seconds']:.1f} s{'  best' if best else ''}")

    def close(self) -> None:
        """Nothing to put back."""

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


class EpochBar(EpochLines):
    """A bar over the batches of the epoch under way, below the lines of those that are done."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__()
        columns: tuple[Any, ...] = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("batches, loss {task.fields[loss]}, left for this epoch:"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task: Any = None
        self._batches = 0

    def started(self, *, epochs: int, batches: int, epoch: int, batch: int) -> None:
        """Show the bar."""
        super().started(epochs=epochs, batches=batches, epoch=epoch, batch=batch)
        self._batches = batches
        self._task = self._bar.add_task("", total=batches, completed=batch, epoch=f"{epoch}/{epochs}", loss="-")
        self._bar.start()

    def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
        """Move the bar."""
        del step, learning_rate  # the bar shows neither
        if batch < self._bar.tasks[self._task].completed:
            self._bar.reset(self._task, total=self._batches)
        self._bar.update(self._task, completed=batch, epoch=f"{epoch}/{self._epochs}", loss=f"{loss:.4f}")

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def _headline(record: Mapping[str, float]) -> list[str]:
    """The metrics worth a line: accuracy, or the error and the correlation."""
    names = [f"valid/{name}" for name in ("accuracy", "mae", "corr") if f"valid/{name}" in record]
    return names or ["valid/loss/total"]
