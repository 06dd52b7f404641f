"""Engines of a grid, processes of this machine or a SLURM array; both leave all in its directory."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing import Pipe
from typing import Any, Final, NamedTuple, Protocol

import torch

from alignmamba.errors import ConfigError
from alignmamba.extras import require
from alignmamba.files import manner_of_end
from alignmamba.recipes.experiments.cell_process import BUSY, run_cell
from alignmamba.recipes.experiments.cells import Job, State
from alignmamba.recipes.experiments.grid_directory import ExperimentDirectory
from alignmamba.training.interrupts import Interrupts

POLL_SECONDS: Final = 0.1
SLURM_POLL_SECONDS: Final = 5.0
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
WIDE: Final = 256
"""Channels from which a run takes several threads by default."""
MOST_THREADS: Final = 4
"""Threads of such a run, at most."""


class GridProgress(Protocol):
    """Observer of the progress of a grid."""

    def started(self, *, done: int, total: int) -> None:
        """Work begins; `done` of `total` cells are there already."""

    def finished(self, job: Job, state: State, *, reason: str, seconds: float) -> None:
        """A cell ended, with the reason if it failed."""


class _Running(NamedTuple):
    job: Job
    process: subprocess.Popen[bytes]
    began: float


def run_here(
    experiment: ExperimentDirectory, jobs: Sequence[Job], *, workers: int, progress: GridProgress
) -> None:
    """Work through jobs in processes of this machine, `workers` at a time. A cell that another grid holds is
    taken up after the others; one that ends badly is recorded. All processes read one pipe, and end when its
    near end closes. Raises a `KeyboardInterrupt` when they have saved and ended.
    """
    waiting = deque((job, False) for job in jobs)
    running: list[_Running] = []
    far_end, near_end = Pipe(duplex=False)
    # A signal sets a mark that is looked at between two steps: no process is ever started and not listed.
    with Interrupts(with_processes=True) as interrupts, far_end, near_end:
        try:
            while (waiting or running) and not interrupts.requested:
                while waiting and len(running) < workers:
                    running.append(_begun(experiment, *waiting.popleft(), stdin=far_end.fileno()))
                time.sleep(POLL_SECONDS)
                for each in [each for each in running if each.process.poll() is not None]:
                    running.remove(each)
                    if each.process.returncode == BUSY:
                        waiting.append((each.job, True))
                    else:
                        log = experiment.log_path(each.job.key)
                        how = f"{manner_of_end(each.process.returncode)}, see {log}"
                        _settle(experiment, each.job, progress, how=how, began=each.began)
        finally:
            for each in running:
                each.process.send_signal(signal.SIGINT)
            for each in running:
                each.process.wait()
    if interrupts.requested:
        raise KeyboardInterrupt


def _begun(experiment: ExperimentDirectory, job: Job, wait: bool, *, stdin: int) -> _Running:
    module = "alignmamba.recipes.experiments.cell_process"
    command = [sys.executable, "-m", module, str(experiment.path), job.key, "--watch"]
    with experiment.log_path(job.key).open("ab") as log:
        process = subprocess.Popen(
            [*command, *(["--wait"] if wait else [])],
            stdin=stdin,
            stdout=log,
            stderr=log,
            env={**os.environ, **thread_settings(threads_of(job))},
            start_new_session=True,  # Ctrl-C in a terminal reaches it through the grid alone, once
        )
    return _Running(job, process, time.monotonic())


def threads_of(job: Job) -> int:
    """Threads that a cell computes on: ``OMP_NUM_THREADS``; else one, and up to four from 256 channels on,
    which `benchmarks/cell_threads.py` measures. Cells at work do not count: the last bits of a result depend
    on threads.
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
    """Environment of a process of that many threads; what the user has set is kept."""
    settings = {name: os.environ.get(name) or str(threads) for name in THREAD_VARIABLES}
    return settings if _threads_given() is not None else {**settings, "OMP_NUM_THREADS": str(threads)}


def _settle(
    experiment: ExperimentDirectory, job: Job, progress: GridProgress, *, how: str, began: float
) -> None:
    """Report how a cell ended; `how` is recorded where its process could not say so itself."""
    if how and experiment.state(job) != "finished" and not experiment.failure(job.key):
        experiment.set_failure(job.key, how)
    progress.finished(
        job,
        experiment.state(job),
        reason=experiment.failure(job.key),
        seconds=time.monotonic() - began,
    )


def run_on_slurm(
    experiment: ExperimentDirectory,
    jobs: Sequence[Job],
    *,
    workers: int,
    progress: GridProgress,
    options: Mapping[str, Any],
    cluster: str = "slurm",
) -> None:
    """Submit jobs as a SLURM array of at most `workers` at a time, with options of submitit's executor, and
    wait; Ctrl-C leaves it in the queue. submitit's cluster ``local`` runs the same without SLURM. Raises a
    `ConfigError` without submitit or SLURM, or for an unknown option.
    """
    require("engine slurm", "experiments", "submitit")
    import submitit
    from submitit.helpers import as_completed

    began = time.monotonic()
    try:
        executor = submitit.AutoExecutor(folder=experiment.path / "logs" / "slurm", cluster=cluster)
        parallel = {"slurm_array_parallelism": workers} if cluster == "slurm" else {}
        executor.update_parameters(**{"name": "alignmamba", **parallel, **options})
        array = executor.map_array(partial(run_cell, experiment.path, wait=False), [job.key for job in jobs])
    except (RuntimeError, NameError, TypeError, ValueError, FileNotFoundError) as error:
        raise ConfigError(f"engine slurm: {' '.join(str(error).split())}") from error
    job_of = dict(zip(array, jobs, strict=True))
    for ended in as_completed(
        array, poll_frequency=SLURM_POLL_SECONDS if cluster == "slurm" else POLL_SECONDS
    ):
        # A cell that a job of an earlier call holds is left to it.
        busy = ended.exception() is None and ended.result() == BUSY
        how = "" if busy else f"SLURM job {ended.job_id} ended as {ended.state}, see {ended.paths.stderr}"
        _settle(experiment, job_of[ended], progress, how=how, began=began)


def shard_of(jobs: Sequence[Job], shard: tuple[int, int]) -> list[Job]:
    """Jobs of one of several machines that share the work: every n-th from the i-th, counted from 1."""
    index, count = shard
    return list(jobs[index - 1 :: count])
