"""Engines that read clips: processes of this machine, a SLURM array, or tasks on a Ray cluster.

All leave what they read in one store. A clip that ends its process, by a fault of a decoder, fails alone.
"""

import signal
import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import ExitStack
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field

from alignmamba.contracts import Config
from alignmamba.errors import ConfigError, brief
from alignmamba.extras import require
from alignmamba.files import manner_of_end
from alignmamba.media.clip import MediaClip
from alignmamba.recipes.extraction.clip_work import ClipOrder, ClipOutcome, read_clip
from alignmamba.recipes.extraction.process_pool import process_pool

Work = Sequence[tuple[int, MediaClip]]
"""Clips with their places in the table."""

HandleT = TypeVar("HandleT")

AHEAD: Final = 2
"""Clips that wait for each worker at most: a table of 100 000 is not sent at once."""
_SLURM_POLL_SECONDS: Final = 5.0


class ClipEngine(Config):
    """Place where clips are read."""

    kind: Literal["local", "slurm", "ray"] = "local"
    """Processes of this machine, a SLURM array, or a Ray cluster."""
    workers: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Clips that are read at the same time, each on one thread."""
    limit: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which a clip fails, on this machine; none where ``None``."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Options of submitit's executor, or of ``ray.init``."""


def outcomes(order: ClipOrder, work: Work, engine: ClipEngine) -> Generator[ClipOutcome, None, None]:
    """Read clips, and give each outcome as soon as it is there, in any order.

    Raises:
        ConfigError: If an engine is not installed or cannot start, or a tool cannot be made there.
        OSError: If the store cannot be written.
    """
    if work:
        yield from {"local": _here, "slurm": _on_slurm, "ray": _on_ray}[engine.kind](order, work, engine)


def _here(order: ClipOrder, work: Work, engine: ClipEngine) -> Iterator[ClipOutcome]:
    require("extract", "media", "pebble")
    from pebble import ProcessExpired

    with ExitStack() as at_the_end:
        if threading.current_thread() is threading.main_thread():
            # SIGTERM interrupts as Ctrl-C does, so that the processes of the pool end before this one.
            at_the_end.callback(
                signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler)
            )
        pool = at_the_end.enter_context(process_pool(min(engine.workers, len(work)), _prepared))
        for future, row, clip in _as_they_end(
            work,
            engine,
            lambda row, clip: pool.schedule(read_clip, args=(order, row, clip), timeout=engine.limit),
            lambda running: wait(running, return_when=FIRST_COMPLETED).done,
        ):
            try:
                yield future.result()
            except ProcessExpired as error:
                yield ClipOutcome(row=row, failure=f"{clip.path}: {manner_of_end(error.exitcode)}")
            except TimeoutError:
                yield ClipOutcome(
                    row=row, failure=f"{clip.path}: not read within {engine.limit:g} s, the limit"
                )


def _as_they_end(
    work: Work,
    engine: ClipEngine,
    begin: Callable[[int, MediaClip], HandleT],
    first: Callable[[Sequence[HandleT]], Collection[HandleT]],
) -> Iterator[tuple[HandleT, int, MediaClip]]:
    """Begin the work on clips, of which few wait at any time, and give each when it has ended.

    Args:
        work: The clips.
        engine: Says how many workers there are.
        begin: Starts the work on one.
        first: Those of the started ones that ended; it waits for one.
    """
    waiting = deque(work)
    running: dict[HandleT, tuple[int, MediaClip]] = {}
    while waiting or running:
        while waiting and len(running) < AHEAD * engine.workers:
            row, clip = waiting.popleft()
            running[begin(row, clip)] = (row, clip)
        for handle in first(list(running)):
            yield (handle, *running.pop(handle))


def _prepared() -> None:
    """Prepare a process of the pool: one thread."""
    import torch

    torch.set_num_threads(1)


def _on_slurm(order: ClipOrder, work: Work, engine: ClipEngine) -> Iterator[ClipOutcome]:
    """Read parts of the clips in jobs of an array; submitit's cluster ``local`` does so without SLURM."""
    require("engine slurm", "experiments", "submitit")
    import submitit
    from submitit.helpers import as_completed

    options = dict(engine.options)
    cluster = options.pop("cluster", "slurm")
    parts = [work[first :: engine.workers] for first in range(min(engine.workers, len(work)))]
    try:
        executor = submitit.AutoExecutor(folder=order.store / "slurm", cluster=cluster)
        executor.update_parameters(**{"name": "alignmamba-extract", **options})
        jobs = executor.map_array(_one_threaded, [order] * len(parts), parts)
    except (RuntimeError, NameError, TypeError, ValueError, FileNotFoundError) as error:
        raise ConfigError(f"engine slurm: {' '.join(str(error).split())}") from error
    part_of = dict(zip(jobs, parts, strict=True))
    for ended in as_completed(jobs, poll_frequency=_SLURM_POLL_SECONDS if cluster == "slurm" else 0.1):
        if ended.exception() is None:
            yield from ended.result()
            continue
        how = f"SLURM job {ended.job_id} ended as {ended.state}, see {ended.paths.stderr}"
        yield from (ClipOutcome(row=row, failure=f"{clip.path}: {how}") for row, clip in part_of[ended])


def _one_threaded(order: ClipOrder, work: Work) -> list[ClipOutcome]:
    """Read several clips, one after the other."""
    import torch

    torch.set_num_threads(1)
    return [read_clip(order, row, clip) for row, clip in work]


def _on_ray(order: ClipOrder, work: Work, engine: ClipEngine) -> Iterator[ClipOutcome]:
    """Read each clip in a task of its own; the tools are made once in each process of Ray."""
    require("engine ray", "ray")
    import ray
    from ray.exceptions import RayError, RayTaskError

    began = not ray.is_initialized()
    if began:
        try:
            ray.init(**{"log_to_driver": False, "logging_level": "error", **engine.options})
        except (RuntimeError, TypeError, ValueError, ConnectionError) as error:
            raise ConfigError(f"engine ray: {' '.join(str(error).split())[:200]}") from error
    task: Any = ray.remote(num_cpus=1, max_retries=0)(_one_threaded)
    try:
        for reference, row, clip in _as_they_end(
            work,
            engine,
            lambda row, clip: task.remote(order, [(row, clip)]),
            lambda running: ray.wait(running, num_returns=1)[0],
        ):
            try:
                yield from ray.get(reference)
            except RayTaskError as error:  # a fault of ours or of the store: that of any engine
                raise error.as_instanceof_cause() from None
            except RayError as error:
                yield ClipOutcome(row=row, failure=f"{clip.path}: {type(error).__name__}: {brief(error)}")
    finally:
        if began:
            ray.shutdown()
