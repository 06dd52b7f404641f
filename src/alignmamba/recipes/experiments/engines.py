"""Who does the work of a grid: processes of this machine, or a SLURM array. Both leave everything in the
experiment's directory.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import torch

from alignmamba.errors import ConfigError
from alignmamba.extras import require
from alignmamba.recipes.experiments.cell_process import BUSY, run_cell
from alignmamba.recipes.experiments.cells import Job
from alignmamba.recipes.experiments.grid_directory import ExperimentDirectory, State

POLL_SECONDS: Final = 0.1
SLURM_POLL_SECONDS: Final = 5.0
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
WIDE: Final = 256
"""Channels from which a run takes several threads by default."""
MOST_THREADS: Final = 4
"""Threads of such a run, at most."""


class GridProgress(Protocol):
    """Told how a grid goes."""

    def started(self, *, done: int, total: int) -> None:
        """Work begins; `done` of `total` cells are there already."""

    def finished(self, job: Job, state: State, *, reason: str, seconds: float) -> None:
        """A cell ended, with the reason if it failed."""


@dataclass(slots=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    since: float

    def close(self) -> None:
        """Close this end of the pipe, of which the process knows that we are there."""
        assert self.process.stdin is not None
        self.process.stdin.close()


def run_here(
    experiment: ExperimentDirectory, jobs: Sequence[Job], *, workers: int, progress: GridProgress
) -> None:
    """Work through jobs in processes of this machine, `workers` at a time, each with the threads of
    `threads_of`.

    None of them outlives this process: each watches a pipe whose other end this process holds, and ends when
    it closes.

    A cell that another process holds is taken up again once the others are done. A cell that ends badly is
    recorded and does not stop the rest.

    Raises:
        KeyboardInterrupt: On Ctrl-C, after the processes have saved and ended.
    """
    waiting = deque(jobs)
    held: deque[Job] = deque()
    running: list[_Running] = []
    try:
        while waiting or held or running:
            while len(running) < workers and (waiting or held):
                last_resort = not waiting
                job = held.popleft() if last_resort else waiting.popleft()
                running.append(_Running(job, _process(experiment, job, wait=last_resort), time.monotonic()))
            ended = [each for each in running if each.process.poll() is not None]
            for each in ended:
                running.remove(each)
                each.close()
                if each.process.returncode == BUSY:
                    held.append(each.job)
                else:
                    _settle(experiment, each, progress)
            if not ended:
                time.sleep(POLL_SECONDS)
    finally:
        for each in running:
            each.process.send_signal(signal.SIGINT)
        for each in running:
            each.process.wait()
            each.close()


def threads_of(job: Job) -> int:
    """Threads that a cell computes on: what ``OMP_NUM_THREADS`` says; else one, and up to four for a model of
    256 channels or more.

    How many cells are at work at once does not enter: the last bits of a result depend on the number of
    threads. `benchmarks/cell_threads.py` measures it.
    """
    if (given := _threads_given()) is not None:
        return given
    wide = int(job.config.options.get("d_model", 0)) >= WIDE
    return min(MOST_THREADS, torch.get_num_threads()) if wide else 1


def _threads_given() -> int | None:
    """The number in ``OMP_NUM_THREADS``; None where it is not set, or to what OpenMP would ignore."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(given) if given.isdecimal() and int(given) > 0 else None


def thread_settings(threads: int) -> dict[str, str]:
    """Environment of a process of that many threads; a variable that the user has set to something that
    counts is left alone.
    """
    settings = {name: os.environ.get(name) or str(threads) for name in THREAD_VARIABLES}
    return settings if _threads_given() is not None else {**settings, "OMP_NUM_THREADS": str(threads)}


def _process(experiment: ExperimentDirectory, job: Job, *, wait: bool) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "alignmamba.recipes.experiments.cell_process",
        str(experiment.path),
        job.key,
        "--watch",
    ]
    environment = {**os.environ, **thread_settings(threads_of(job))}
    with experiment.log_path(job.key).open("ab") as log:
        # A session of its own: Ctrl-C reaches it through this process alone, once. The pipe to its input
        # closes when this process ends.
        return subprocess.Popen(
            [*command, *(["--wait"] if wait else [])],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _settle(experiment: ExperimentDirectory, ended: _Running, progress: GridProgress) -> None:
    """Record how a cell ended whose process is gone, also where it could not do so itself."""
    state = experiment.state(ended.job)
    if state != "finished" and not experiment.failure(ended.job.key):
        experiment.set_failure(
            ended.job.key, f"{_manner(ended.process.returncode)}, see {experiment.log_path(ended.job.key)}"
        )
    state = experiment.state(ended.job)
    progress.finished(
        ended.job, state, reason=experiment.failure(ended.job.key), seconds=time.monotonic() - ended.since
    )


def _manner(code: int) -> str:
    if code >= 0:
        return f"internal: its process ended with code {code}"
    known = {each.value: f" ({each.name})" for each in signal.Signals}
    return f"its process was ended by signal {-code}{known.get(-code, '')}"


def run_on_slurm(
    experiment: ExperimentDirectory,
    jobs: Sequence[Job],
    *,
    workers: int,
    progress: GridProgress,
    options: Mapping[str, Any],
    cluster: str = "slurm",
) -> None:
    """Submit jobs as a SLURM array of at most `workers` at a time, and wait for them. Ctrl-C leaves the array
    in the queue.

    Args:
        experiment: In a folder that all nodes share.
        jobs: What to do.
        workers: Jobs that run at once.
        progress: Told whenever one ends.
        options: Of submitit's executor, for example ``{"timeout_min": 120, "slurm_partition": "gpu"}``.
        cluster: submitit's name of the scheduler; ``local`` runs the same without SLURM.

    Raises:
        ConfigError: If submitit is not installed, there is no SLURM here, or an option is unknown.
    """
    require("engine slurm", "experiments", "submitit")
    import submitit

    try:
        executor = submitit.AutoExecutor(folder=experiment.path / "logs" / "slurm", cluster=cluster)
        parallel = {"slurm_array_parallelism": workers} if cluster == "slurm" else {}
        executor.update_parameters(**{"name": "alignmamba", **parallel, **options})
        began = time.monotonic()
        submitted = dict(
            zip(
                (job.key for job in jobs),
                executor.map_array(
                    partial(run_cell, wait=False), [experiment.path] * len(jobs), [job.key for job in jobs]
                ),
                strict=True,
            )
        )
    except (RuntimeError, NameError, TypeError, ValueError, FileNotFoundError) as error:
        raise ConfigError(f"engine slurm: {' '.join(str(error).split())}") from error
    left = {job.key: job for job in jobs}
    while left:
        for key, job in list(left.items()):
            if submitted[key].done():
                del left[key]
                state = experiment.state(job)
                # A cell that a job of an earlier call holds is left to it.
                busy = submitted[key].exception() is None and submitted[key].result() == BUSY
                if state != "finished" and not busy and not experiment.failure(key):
                    experiment.set_failure(
                        key,
                        f"SLURM job {submitted[key].job_id} ended as {submitted[key].state}, see"
                        f" {submitted[key].paths.stderr}",
                    )
                progress.finished(
                    job,
                    experiment.state(job),
                    reason=experiment.failure(key),
                    seconds=time.monotonic() - began,
                )
        if left:
            time.sleep(SLURM_POLL_SECONDS if cluster == "slurm" else POLL_SECONDS)


def shard_of(jobs: Sequence[Job], shard: tuple[int, int]) -> list[Job]:
    """The jobs of one of several machines that share the work by hand: every n-th, from the i-th on, i
    counting from 1.
    """
    index, count = shard
    return list(jobs[index - 1 :: count])
