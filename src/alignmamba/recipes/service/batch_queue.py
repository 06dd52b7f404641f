"""Requests that wait for a model, and how many of them it answers together."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import Generic, TypeVar

from alignmamba.errors import AlignMambaError

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


class QueueFullError(AlignMambaError):
    """More waits already than may."""


@dataclass(frozen=True, kw_only=True)
class _Job(Generic[ItemT, AnswerT]):
    items: Sequence[ItemT]
    future: "Future[list[AnswerT]]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class BatchQueue(Generic[ItemT, AnswerT]):
    """Items of many requests, which one thread answers, those together that have arrived together.

    Whoever comes while the model is at work waits, and is answered with all others who do. Where further
    requests are just arriving, the first waits a moment for them; a caller who is alone never does.

    Args:
        answer: Gives an answer for each item, in their order. It is asked again for each request alone where
            it fails, so that one at fault does no harm to the others.
        together: Items that are answered at once; a request with more goes alone.
        wait_seconds: Longest time that a request waits for others.
        most: Items that may wait.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[ItemT]], Sequence[AnswerT]],
        *,
        together: int,
        wait_seconds: float,
        most: int,
    ) -> None:
        self._answer = answer
        self._together, self._wait_seconds, self._most = together, wait_seconds, most
        self._jobs: deque[_Job[ItemT, AnswerT]] = deque()
        self._changed = Condition()
        self._arriving, self._waiting, self._closed = 0, 0, False

    @property
    def waiting(self) -> int:
        """Number of items that wait."""
        return self._waiting

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Count a request that is under way here, and may be worth waiting for."""
        self._arriving += 1  # in the thread of the web server alone
        try:
            yield
        finally:
            self._arriving -= 1
            with self._changed:
                self._changed.notify()

    def put(self, items: Sequence[ItemT]) -> "Future[list[AnswerT]]":
        """Let the items of a request wait, and get their answers; a `QueueFullError` if too many wait."""
        job: _Job[ItemT, AnswerT] = _Job(items=items)
        with self._changed:
            if self._closed or self._waiting + len(items) > self._most:
                raise QueueFullError(
                    f"{self._waiting} samples wait already, expected at most {self._most}; try again later"
                )
            self._jobs.append(job)
            self._waiting += len(items)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Take no more; `work` ends when all that waits is answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def work(self) -> None:
        """Answer, in this thread, until the queue is closed and empty."""
        while jobs := self._taken():
            self._settle([job for job in jobs if job.future.set_running_or_notify_cancel()])

    def _taken(self) -> list[_Job[ItemT, AnswerT]]:
        """The next requests to answer together; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return []
            end = self._jobs[0].arrived + self._wait_seconds
            while self._arriving and self._waiting < self._together and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            jobs, count = [self._jobs.popleft()], 0
            count = len(jobs[0].items)
            while self._jobs and count + len(self._jobs[0].items) <= self._together:
                jobs.append(self._jobs.popleft())
                count += len(jobs[-1].items)
            self._waiting -= count
            return jobs

    def _settle(self, jobs: Sequence[_Job[ItemT, AnswerT]]) -> None:
        if not jobs:
            return
        try:
            answers = list(self._answer([item for job in jobs for item in job.items]))
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:
                self._settle([job])
            return
        for job in jobs:
            own, answers = answers[: len(job.items)], answers[len(job.items) :]
            job.future.set_result(own)
