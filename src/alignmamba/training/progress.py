"""Observers of the progress of training."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Progress(Protocol):
    """Observer of the progress of training, in the process of rank 0 only. A class that derives from it
    need only
    say what it listens to.
    """

    def started(self, *, epochs: int, batches: int, epoch: int, batch: int) -> None:
        """Training begins, or resumes after `batch` batches of `epoch` (from 1); each epoch has `batches`."""

    def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
        """An optimiser step was done, the `batch`-th batch of the epoch being its last."""

    def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:
        """An epoch was validated; `best` if none before it scored as well."""


def together(*listeners: Progress | None) -> Progress | None:
    """One that calls several, in their order; None where there is none."""
    there = [listener for listener in listeners if listener is not None]
    return _Together(there) if len(there) > 1 else next(iter(there), None)


class _Together:
    def __init__(self, listeners: Sequence[Progress]) -> None:
        self._listeners = listeners

    def started(self, *, epochs: int, batches: int, epoch: int, batch: int) -> None:
        for listener in self._listeners:
            listener.started(epochs=epochs, batches=batches, epoch=epoch, batch=batch)

    def stepped(self, *, epoch: int, batch: int, step: int, loss: float, learning_rate: float) -> None:
        for listener in self._listeners:
            listener.stepped(epoch=epoch, batch=batch, step=step, loss=loss, learning_rate=learning_rate)

    def epoch_finished(self, record: Mapping[str, float], *, best: bool) -> None:
        for listener in self._listeners:
            listener.epoch_finished(record, best=best)
