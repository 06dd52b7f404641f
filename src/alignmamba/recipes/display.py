"""Progress for people, of training and of reading files: bars on a terminal, lines elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, Literal

from alignmamba.errors import ConfigError, printable
from alignmamba.evaluation.metrics import METRICS
from alignmamba.training.progress import Progress

Shown = Progress | Literal["auto"] | None
"""Choices of progress: ``auto`` shows a bar on a terminal, a line in a notebook, and nothing elsewhere; None
shows nothing.
"""


@contextmanager
def shown_progress(progress: Shown) -> Iterator[Progress | None]:
    """Yield the observer of training, which leaves nothing of a step behind."""
    if progress != "auto":
        if isinstance(progress, str | bool):
            raise ConfigError(
                f"progress: found {progress!r}, expected 'auto', None, or an object that meets Progress"
            )
        yield progress
    elif sys.stderr.isatty():
        with progress_display() as display:
            yield display
    elif _in_notebook():
        line = NotebookLine()
        yield line
        line.close()
    else:
        yield None


def say_note(note: str) -> None:
    """Write a line that concerns the whole training to standard error."""
    print(f"note: {note}", file=sys.stderr, flush=True)


LONG_SECONDS = 300.0
"""A training that takes this long is reported after its first step, also where there is no bar."""


def progress_display() -> "closing[EpochLines]":
    """Show progress on standard error, in a file too; the bar is gone afterwards."""
    return closing(EpochBar() if sys.stderr.isatty() else EpochLines())


def _in_notebook() -> bool:
    """Return whether cells of a notebook show what is printed."""
    shell = sys.modules.get("IPython")
    # Jupyter, Colab
    return shell is not None and type(shell.get_ipython()).__name__ in ("ZMQInteractiveShell", "Shell")


class EpochLines:
    """Writes a line at the end of each epoch; meets `alignmamba.training.progress.Progress`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console

        width = None if sys.stderr.isatty() else 120  # words are not broken to fit a width that nobody sees
        self._console = Console(stderr=True, highlight=False, markup=False, width=width)
        self._epochs = self._batches = self._before = self._done = 0
        self._clock = clock
        self._began = 0.0

    def started(self, *, epochs: int, batches: int, epoch: int, batch: int) -> None:
        """Say from where training starts, if not from the beginning."""
        self._epochs, self._batches = epochs, batches
        self._before = (epoch - 1) * batches + batch
        self._began = self._clock()
        if (epoch, batch) != (1, 0):
            self._print(f"resuming in epoch {epoch} of {epochs} after {batch} of {batches} batches")

    def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
        """Say after the first step how long it will take, if that is long."""
        del step, loss, learning_rate  # a line shows none of them
        first = self._done == 0
        self._account(epoch, batch)
        left = self._seconds_left()
        if first and left >= LONG_SECONDS:
            self._print(f"first step {self._clock() - self._began:.1f} s; {duration(left)} left at most")

    def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:
        """Write the line."""
        values = {name.removeprefix("valid/"): record[name] for name in _headline(record)}
        scores = [f"{name} {'-' if math.isnan(value) else f'{value:.4f}'}" for name, value in values.items()]
        line = (
            f"epoch {int(record['epoch'])}/{self._epochs}  train loss {record['train/loss/total']:.4f}  valid"
            f" {', '.join(scores)}"
        )
        self._print(f"{line}  {record['seconds']:.1f} s{'  best' if best else ''}")

    def close(self) -> None:
        """Put nothing back."""

    def _account(self, epoch: int, batch: int) -> None:
        self._done = (epoch - 1) * self._batches + batch - self._before

    def _seconds_left(self) -> float:
        """Time of all epochs by the mean of what was done so far, validation included."""
        to_come = self._epochs * self._batches - self._before - self._done
        return (self._clock() - self._began) * to_come / max(1, self._done)

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


class NotebookLine(EpochLines):
    """Prints a line per epoch below the cell, and one of the step under way, overwritten by the next."""

    _SECONDS = 0.5

    def __init__(self) -> None:
        super().__init__()
        self._shown, self._width = 0.0, 0

    def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
        """Overwrite the line of the step before."""
        del step, learning_rate  # the line shows neither
        self._account(epoch, batch)
        if time.monotonic() - self._shown >= self._SECONDS:
            self._shown = time.monotonic()
            left = f"{duration(self._seconds_left())} left at most"
            line = f"epoch {epoch}/{self._epochs}  batch {batch}/{self._batches}  loss {loss:.4f}  {left}"
            print(f"\r{line:<{self._width}}", end="", flush=True)
            self._width = len(line)

    def close(self) -> None:
        """Wipe the line of a step."""
        print(f"\r{'':<{self._width}}\r" if self._width else "", end="", flush=True)

    def _print(self, line: str) -> None:
        print(f"{chr(13) if self._width else ''}{line:<{self._width}}", flush=True)
        self._width = 0


class EpochBar(EpochLines):
    """A bar over the batches of an epoch, with the time left, below the lines of those that are done."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        super().__init__(clock)
        columns: tuple[Any, ...] = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("batches, loss {task.fields[loss]}, left at most: {task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task: Any = None

    def started(self, *, epochs: int, batches: int, epoch: int, batch: int) -> None:
        """Show the bar."""
        super().started(epochs=epochs, batches=batches, epoch=epoch, batch=batch)
        self._task = self._bar.add_task(
            "", total=batches, completed=batch, epoch=f"{epoch}/{epochs}", loss="-", left="-"
        )
        self._bar.start()

    def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
        """Move the bar."""
        del step, learning_rate  # the bar shows neither
        if batch < self._bar.tasks[self._task].completed:
            self._bar.reset(self._task, total=self._batches)
        self._account(epoch, batch)
        left = duration(self._seconds_left())
        self._bar.update(
            self._task, completed=batch, epoch=f"{epoch}/{self._epochs}", loss=f"{loss:.4f}", left=left
        )

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def duration(seconds: float) -> str:
    """A time for people: in seconds, minutes or hours."""
    minutes = round(seconds / 60)
    return (
        f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    )


def _headline(record: Mapping[str, float]) -> list[str]:
    """The metrics worth a line: accuracy, or the error and the correlation; those of further targets where
    the task has no weight.
    """
    shown = [name for name, metric in METRICS.items() if metric.in_epochs]
    names = [f"valid/{name}" for name in shown if f"valid/{name}" in record]
    if record.get("valid/loss/task") == 0:  # nothing is learned of the task itself
        ends = tuple(f".{name}" for name in shown)
        names = [name for name in record if name.startswith("valid/") and name.endswith(ends)]
    return names or ["valid/loss/total"]


# The reading of files of others

LARGE_BYTES = 256 << 20
"""Files of as many bytes take so long to read for their checksum that a line says it."""


def samples_display(done: str) -> "closing[SampleLines]":
    """Callbacks for samples of each split and bytes of a file; `done` says what became of them."""
    return closing(SampleBar(done) if sys.stderr.isatty() else SampleLines(done))


class SampleLines:
    """Writes a line at the end of each split, and at the start of a long checksum."""

    def __init__(self, done: str) -> None:
        self._done = done
        self._hashing = False

    def __call__(self, role: str, done: int, total: int) -> None:
        """Called with the split, the samples that were read, and how many it has."""
        if done == total:
            print(f"{role}: {total} samples {self._done}", file=sys.stderr, flush=True)

    def hashed(self, done: int, total: int) -> None:
        """Called with the bytes of the files that were read for their checksums."""
        if not self._hashing and done < total and total >= LARGE_BYTES:
            print(f"checksum: {total / 1e9:.1f} GB to read", file=sys.stderr, flush=True)
            self._hashing = True

    def say(self, line: str) -> None:
        """Write a line."""
        print(printable(line), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Do nothing: no state was changed."""


class SampleBar(SampleLines):
    """A bar for each split, gone when all is done."""

    def __init__(self, done: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        super().__init__(done)
        self._bar = Progress(console=Console(stderr=True, highlight=False, markup=False), transient=True)
        self._tasks: dict[str, Any] = {}
        self._bar.start()

    def __call__(self, role: str, done: int, total: int) -> None:
        """Move the bar."""
        self._move(f"{role}: samples", done, total)

    def hashed(self, done: int, total: int) -> None:
        """Move the bar of the checksum."""
        self._move("checksum: bytes", done, total)

    def say(self, line: str) -> None:
        """Write a line above the bars."""
        self._bar.console.print(printable(line), soft_wrap=True)

    def _move(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done)

    def close(self) -> None:
        """Take the bars away."""
        self._bar.stop()
