"""Items that wait for one thread, and which of them it answers together."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import pytest

from alignmamba.recipes.service.batch_queue import BatchQueue, QueueFullError


class Recorded:
    """Doubles numbers, and keeps what it was asked for together."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.calls.append(list(items))
        if 13 in items:
            raise ValueError("unlucky")
        return [2 * item for item in items]


def queue_of(answer: Callable[[Sequence[int]], Sequence[int]], **options: float) -> BatchQueue[int, int]:
    settings = {"together": 4, "wait_seconds": 60.0, "most": 8, **options}
    return BatchQueue(answer, **settings)  # type: ignore[arg-type]


def worked(queue: BatchQueue[int, int]) -> None:
    """Answer all that waits, in this thread."""
    queue.close()
    queue.work()


def test_what_waits_is_answered_together_up_to_a_number() -> None:
    recorded = Recorded()
    queue = queue_of(recorded)
    futures = [queue.put(items) for items in ([1], [2, 3], [4, 5], [6])]
    assert queue.waiting == 6
    worked(queue)
    assert [future.result() for future in futures] == [[2], [4, 6], [8, 10], [12]]
    assert recorded.calls == [[1, 2, 3], [4, 5, 6]]  # a request stays whole
    assert queue.waiting == 0


def test_a_request_with_more_goes_alone() -> None:
    recorded = Recorded()
    queue = queue_of(recorded)
    future = queue.put(range(6))
    queue.put([7])
    worked(queue)
    assert future.result() == [0, 2, 4, 6, 8, 10]
    assert recorded.calls == [[0, 1, 2, 3, 4, 5], [7]]


def test_one_at_fault_does_no_harm_to_the_others() -> None:
    queue = queue_of(Recorded())
    futures = [queue.put(items) for items in ([1], [13], [2])]
    worked(queue)
    assert (futures[0].result(), futures[2].result()) == ([2], [4])
    with pytest.raises(ValueError, match="unlucky"):
        futures[1].result()


def test_too_many_are_refused_and_room_comes_back() -> None:
    recorded, begun, go_on = Recorded(), threading.Event(), threading.Event()

    def answer(items: Sequence[int]) -> list[int]:
        begun.set()
        go_on.wait()
        return recorded(items)

    queue = queue_of(answer, together=1)
    thread = threading.Thread(target=queue.work)
    thread.start()
    first = queue.put([1])
    begun.wait()
    waiting = queue.put([2] * 8)
    with pytest.raises(
        QueueFullError, match=r"^8 samples wait already, expected at most 8; try again later$"
    ):
        queue.put([3])
    go_on.set()
    assert first.result() == [2]
    assert waiting.result() == [4] * 8
    assert queue.put([3]).result() == [6]
    queue.close()
    thread.join()
    with pytest.raises(QueueFullError):
        queue.put([4])


def test_who_has_gone_is_not_answered() -> None:
    recorded = Recorded()
    queue = queue_of(recorded)
    gone = queue.put([1])
    assert gone.cancel()
    kept = queue.put([2])
    worked(queue)
    assert kept.result() == [4]
    assert recorded.calls == [[2]]


def test_the_first_waits_for_those_who_are_arriving_and_for_nobody_else() -> None:
    """The longest wait here is a minute: who is alone would be seen to wait."""
    recorded = Recorded()
    queue = queue_of(recorded)
    thread = threading.Thread(target=queue.work)
    thread.start()
    assert queue.put([1]).result() == [2]
    futures: list[Future[list[int]]] = []
    with queue.arriving():
        futures.append(queue.put([2]))
        time.sleep(0.05)
        assert not futures[0].done()
        futures.append(queue.put([3]))
    assert [future.result() for future in futures] == [[4], [6]]
    with queue.arriving():  # enough are there
        assert queue.put([4, 5, 6, 7]).result() == [8, 10, 12, 14]
    queue.close()
    thread.join()
    assert recorded.calls == [[1], [2, 3], [4, 5, 6, 7]]


def test_nobody_waits_longer_than_allowed() -> None:
    queue = queue_of(Recorded(), wait_seconds=0.01)
    thread = threading.Thread(target=queue.work)
    thread.start()
    with queue.arriving():
        assert queue.put([1]).result() == [2]
    queue.close()
    thread.join()
