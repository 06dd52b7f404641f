"""One cell of a grid in a process of its own: ``python -m ...cell_process DIR KEY``. It ends with its input
on ``--watch``. Exit codes: 0 done, 1 our fault, 2 the user's input, 75 another process holds the cell, 130
interrupted. Any failure is recorded in one line.
"""

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from alignmamba.checksums import write_list
from alignmamba.errors import (
    DONE,
    INTERRUPTED,
    OUR_FAULT,
    USER_INPUT,
    AlignMambaError,
    CheckpointError,
    printable,
)
from alignmamba.files import new_directory, verdict
from alignmamba.recipes.experiments.catalogue import grids
from alignmamba.recipes.experiments.cells import Analysis, Job
from alignmamba.recipes.experiments.grid_directory import BusyError, ExperimentDirectory
from alignmamba.recipes.finished_run import LoadedRun, load_run
from alignmamba.recipes.training_run import train
from alignmamba.training.interrupts import interrupt_on_term

BUSY = 75
GRACE_SECONDS: Final = 20.0
"""Time in which a cell whose grid is gone may save what it has."""


def run_cell(directory: str | Path, key: str, *, wait: bool = True) -> int:
    """Do what is left of a cell, waiting on request while another process holds it; how it went is the exit
    code and the record of failures.
    """
    experiment = ExperimentDirectory.open(Path(directory))
    try:
        with experiment.locked(key, wait=wait):
            return _held(experiment, key)
    except BusyError:
        return BUSY


def _held(experiment: ExperimentDirectory, key: str) -> int:
    """Work on a cell that this process holds, so that nobody else's record of it is written over."""
    try:
        job = experiment.job(key)
        if experiment.state(job) != "finished":
            experiment.set_failure(key, "")
            _work(experiment, job)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        code, said = verdict(error)
        if not isinstance(error, AlignMambaError):
            traceback.print_exc()
        experiment.set_failure(key, f"{said}, see {experiment.log_path(key)}" if code == OUR_FAULT else said)
        return code
    return DONE


def _work(experiment: ExperimentDirectory, job: Job) -> None:
    run = experiment.run_path(job.key)
    if run.exists():
        train(resume=run, data=job.config.data, progress=None)  # the corpus may have been moved since
    else:
        train(job.config, out=run, progress=None)
    for analysis in job.analyses:
        done = experiment.analysis_path(job.key, analysis)
        if not done.is_dir():
            _analyse(load_run(run, data=job.config.data), analysis, done)


def _analyse(run: LoadedRun, analysis: Analysis, out: Path) -> None:
    """Write an analysis beside its place and move it there when it is whole."""
    if not run.stored.path.is_dir():
        raise CheckpointError(f"run {run.stored.path}: expected the run to analyse, found no such directory")
    with new_directory(out) as unfinished:
        grids()[analysis.kind].analyse(run, analysis, unfinished)
        write_list(
            unfinished,
            [str(path.relative_to(unfinished)) for path in unfinished.rglob("*") if path.is_file()],
        )


def end_with_input(grace_seconds: float = GRACE_SECONDS) -> None:
    """Interrupt this process when its standard input closes, which the grid holds, and kill its group if it
    has not ended in time.
    """

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(grace_seconds)
        os.killpg(0, signal.SIGKILL)  # loaders' workers belong to the group that the grid has given it

    threading.Thread(target=watch, name="watch the grid", daemon=True).start()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one cell as the command line says."""
    parser = argparse.ArgumentParser(description="Run one cell of an experiment.")
    parser.add_argument("directory", type=Path, help="of the experiment")
    parser.add_argument("key", help="of the cell")
    parser.add_argument("--wait", action="store_true", help="wait while another process holds the cell")
    parser.add_argument(
        "--watch", action="store_true", help="end with standard input, and the process group too"
    )
    given = parser.parse_args(arguments)
    if given.watch:
        end_with_input()
    try:
        return run_cell(given.directory, given.key, wait=given.wait)
    except AlignMambaError as error:
        sys.stderr.write(f"error: {printable(str(error))}\n")
        return USER_INPUT


if __name__ == "__main__":
    interrupt_on_term()  # also where training has not yet put its own handler in place
    sys.exit(main())
