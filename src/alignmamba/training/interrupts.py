"""Ctrl-C, SIGTERM and a hangup: training ends between two steps, in good order."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Final

# Windows has no hangup
_ENDING: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in dir(signal)
)


class Interrupts:
    """Turns the first Ctrl-C, SIGTERM or hangup into a request that the loop answers between two steps; the
    second one ends the process.

    A signal that the process was started to ignore, as under nohup, stays ignored. Processes that it starts
    inherit that, but nothing that is handled: `with_processes`, they obey Ctrl-C all the same.
    """

    def __init__(self, *, with_processes: bool = False) -> None:
        self.signal_number, self._with_processes = 0, with_processes
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        return self.signal_number != 0

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():  # Python delivers signals nowhere else
            for number in _ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
                elif self._with_processes and number == signal.SIGINT:
                    self._previous[number] = signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader's worker, forked with this handler in place
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return  # Ctrl-C reaches the workers too; the training process ends them when it has saved
        if self.requested:
            raise KeyboardInterrupt
        self.signal_number = number


def interrupt_on_term() -> None:
    """Let SIGTERM interrupt this process as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or a hangup ended training in good order.

    Attributes:
        checkpoint: Where to resume; ``None`` if training ran without a run directory.
        epoch: Epoch under way, from 1.
        signal_number: What arrived.
    """

    def __init__(self, checkpoint: Path | None, *, epoch: int, signal_number: int) -> None:
        where = (
            "nothing was saved, as training has no run directory"
            if checkpoint is None
            else f"saved {checkpoint}"
        )
        super().__init__(f"interrupted in epoch {epoch}: {where}")
        self.checkpoint = checkpoint
        self.epoch = epoch
        self.signal_number = signal_number
