"""Settings of every test.

Property tests draw the same examples each time, with no deadline on a shared machine. Without a GPU, Triton
kernels run under Triton's interpreter, which must be chosen before triton is imported.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings

from small_run import CONFIG, write_small_corpus

if TYPE_CHECKING:
    from clip_runs import ClipRuns

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40, database=None)
settings.load_profile("fixed")

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small corpus, which no test changes."""
    path = tmp_path_factory.mktemp("data") / "small"
    write_small_corpus(path)
    return path


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A finished run on it, trained once for all tests; a test that changes a run takes a copy."""
    from alignmamba.recipes.configuration import check_config
    from alignmamba.recipes.training_run import train

    path = tmp_path_factory.mktemp("runs") / "finished"
    train(check_config({**CONFIG, "data": str(corpus)}), out=path, progress=None)
    return path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are done in this process, which spares the start of another."""
    from alignmamba.recipes.experiments.cell_process import run_cell

    def here(experiment: Any, jobs: Any, *, workers: int, progress: Any) -> None:
        del workers
        for job in jobs:
            run_cell(experiment.path, job.key)
            progress.finished(job, experiment.state(job), reason=experiment.failure(job.key), seconds=2.0)

    monkeypatch.setattr("alignmamba.recipes.experiments.grid_run.run_here", here)


@pytest.fixture(scope="session")
def clip_runs(tmp_path_factory: pytest.TempPathFactory) -> "ClipRuns":
    """Small clips and runs on them, which no test changes."""
    from clip_runs import make_clip_runs

    return make_clip_runs(tmp_path_factory.mktemp("clip_runs"))
