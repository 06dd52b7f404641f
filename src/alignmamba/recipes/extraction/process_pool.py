"""Processes of their own for files of strangers, which may end them."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any


@contextmanager
def process_pool(workers: int, prepare: Callable[[], None] | None = None) -> Iterator[Any]:
    """A pool of pebble's, whose processes begin from nothing and leave Ctrl-C to this one.

    A copy of this process would share its threads and open files. An interrupt of this thread while a process
    begins would leave that without anything to do, and it would say so: another thread starts them.

    Args:
        workers: Number of processes.
        prepare: Called in each of them first, if given.
    """
    from pebble import ProcessPool

    context = get_context("spawn")
    pool: Any = ProcessPool(workers, initializer=_begun, initargs=(prepare,), context=context)
    try:
        with ThreadPoolExecutor(max_workers=1, initializer=_unheeding) as starting:
            starting.submit(lambda: pool.active).result()
        yield pool
    finally:
        pool.stop()
        pool.join()


def _begun(prepare: Callable[[], None] | None) -> None:
    """Leave Ctrl-C to the parent, also where this process began without it blocked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if prepare is not None:
        prepare()


def _unheeding() -> None:
    """Block Ctrl-C in this thread, and so in the processes that it starts."""
    if "pthread_sigmask" in dir(signal):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
