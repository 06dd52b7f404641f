"""Engines that read clips: processes of this machine, a SLURM array, or tasks on a Ray cluster.

All leave what they read in one store. A clip that ends its process, by a fault of a decoder, fails alone.
"""

import signal
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from multiprocessing import get_context
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from alignmamba.contracts import Config
from alignmamba.errors import ConfigError
from alignmamba.extras import require
from alignmamba.files import manner_of_end
from alignmamba.media.clip import MediaClip
from alignmamba.recipes.extraction.clip_work import ClipOrder, ClipOutcome, read_clip, read_clips

Work = Sequence[tuple[int, MediaClip]]
"""Clips with their places in the table."""

AHEAD: Final = 2
"""Clips that wait for each worker at most: a table of 100 000 is not sent at once."""
_SLURM_POLL_SECONDS: Final = 5.0


class ClipEngine(Config):
    """Place where clips are read."""

    kind: Literal["local", "slurm", "ray"] = "local"
    """Processes of this machine, a SLURM array, or a Ray cluster."""
    workers: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Clips that are read at the same time, each on one thread."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Time after which a clip fails, on this machine; no limit where ``None``."""
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
    from pebble import ProcessExpired, ProcessPool

    waiting = deque(work)
    running: dict[Future[ClipOutcome], tuple[int, MediaClip]] = {}
    # Processes begin anew: a copy of this one would share its threads and open files.
    pool: Any = ProcessPool(
        max_workers=min(engine.workers, len(work)), initializer=_prepared, context=get_context("spawn")
    )
    try:
        while waiting or running:
            while waiting and len(running) < AHEAD * engine.workers:
                row, clip = waiting.popleft()
                future = pool.schedule(read_clip, args=(order, row, clip), timeout=engine.seconds)
                running[future] = (row, clip)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                row, clip = running.pop(future)
                try:
                    yield future.result()
                except ProcessExpired as error:
                    yield ClipOutcome(row=row, failure=f"{clip.path}: {manner_of_end(error.exitcode)}")
                except TimeoutError:
                    yield ClipOutcome(
                        row=row, failure=f"{clip.path}: not read within {engine.seconds:g} s, the limit"
                    )
    finally:
        pool.stop()
        pool.join()


def _prepared() -> None:
    """Prepare a process of the pool: one thread, and no heed of Ctrl-C, which its parent deals with."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
    import torch

    torch.set_num_threads(1)
    return read_clips(order, work)


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
    waiting = deque(work)
    running: dict[Any, tuple[int, MediaClip]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < AHEAD * engine.workers:
                row, clip = waiting.popleft()
                running[task.remote(order, [(row, clip)])] = (row, clip)
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                row, clip = running.pop(reference)
                try:
                    yield from ray.get(reference)
                except RayTaskError as error:  # a fault of ours or of the store: that of any engine
                    raise error.as_instanceof_cause() from None
                except RayError as error:
                    said = " ".join(str(error).split())[:160]
                    yield ClipOutcome(row=row, failure=f"{clip.path}: {type(error).__name__}: {said}")
    finally:
        if began:
            ray.shutdown()
