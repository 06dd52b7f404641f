"""How far the reading of a foreign file is, on standard error: bars on a terminal, lines everywhere else."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alignmamba.errors import printable

LARGE_BYTES = 256 << 20
"""Files of as many bytes take so long to read for their checksum that a line says it."""


@contextmanager
def samples_display(done: str) -> Iterator["SampleLines"]:
    """What to tell about the samples of each split, and the bytes of a file; `done` says in a word what
    became of them.
    """
    display = SampleBar(done) if sys.stderr.isatty() else SampleLines(done)
    try:
        yield display
    finally:
        display.close()


class SampleLines:
    """Writes a line at the end of each split, and at the start of a long checksum."""

    def __init__(self, done: str) -> None:
        self._done = done
        self._hashing = False

    def __call__(self, role: str, done: int, total: int) -> None:
        """Told the split, the samples that were read, and how many it has."""
        if done == total:
            print(f"{role}: {total} samples {self._done}", file=sys.stderr, flush=True)

    def hashed(self, done: int, total: int) -> None:
        """Told the bytes of the files that were read for their checksums."""
        if not self._hashing and done < total and total >= LARGE_BYTES:
            print(f"checksum: {total / 1e9:.1f} GB to read", file=sys.stderr, flush=True)
            self._hashing = True

    def say(self, line: str) -> None:
        """Write a line."""
        print(printable(line), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to put back."""


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
