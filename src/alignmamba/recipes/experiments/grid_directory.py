"""The directory of an experiment: its plan, its cells, and what became of each.

``experiment.json`` says what was asked for last, ``jobs/<key>.json`` what each cell is. A cell is a run
directory ``cells/<key>`` with its analyses beside the scores, under a lock that ends with its process.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from alignmamba.checksums import stamped
from alignmamba.errors import CheckpointError
from alignmamba.files import exclusive, replace_file
from alignmamba.recipes.configuration import check_config, recorded
from alignmamba.recipes.experiments.catalogue import analysis_from
from alignmamba.recipes.experiments.cells import Analysis, Cell, ExperimentRecord, Job, State, jobs_of
from alignmamba.recipes.run_directory import METRICS, plain, to_json
from alignmamba.recipes.run_records import Failure, read_record

PLAN: Final = "experiment.json"
JOBS: Final = "jobs"


@dataclass(frozen=True, kw_only=True)
class _JobRecord:
    """Content of ``jobs/<key>.json``, see `cells.Job`."""

    label: str
    config: dict[str, Any]
    analyses: tuple[dict[str, Any], ...]


class BusyError(Exception):
    """Another process is at work on the cell."""


@dataclass(frozen=True)
class ExperimentDirectory:
    """An experiment on disk."""

    path: Path

    @classmethod
    def create(cls, path: Path, *, facts: Mapping[str, Any], cells: Sequence[Cell]) -> "ExperimentDirectory":
        """Make the directory, or take the one of this experiment, whose cells are kept; a `CheckpointError`
        for any other.
        """
        found = cls(path)
        found.refuse_other(facts)
        try:
            for folder in ("cells", "failed", JOBS, "logs"):
                (path / folder).mkdir(parents=True, exist_ok=True)
            for job in jobs_of(cells):
                # settings of a key never change, and an analysis that somebody else has asked for is kept
                known = found.job(job.key).analyses if found._job_path(job.key).is_file() else ()
                both = replace(job, analyses=tuple(dict.fromkeys((*known, *job.analyses))))
                _write(found._job_path(job.key), both.values)
            _write(path / PLAN, {**facts, "cells": [asdict(each.record) for each in cells]})
        except OSError as error:
            raise CheckpointError(f"out {path}: cannot be written to: {error.strerror}") from error
        return found

    @classmethod
    def open(cls, path: Path) -> "ExperimentDirectory":
        """The experiment that lies there; a `CheckpointError` if there is none."""
        if not (path / PLAN).is_file():
            raise CheckpointError(
                f"experiment {path}: found no {PLAN}, expected the directory of an experiment"
            )
        return cls(path)

    def refuse_other(self, facts: Mapping[str, Any]) -> None:
        """Refuse, by a `CheckpointError`, a place of something else than the experiment that `facts`
        describes.
        """
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"out {self.path}: a file is there, choose another --out")
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not (self.path / PLAN).is_file():
            raise CheckpointError(
                f"out {self.path}: holds something that is not an experiment, choose another --out"
            )
        plan = asdict(self.plan())
        for name in ("experiment", "corpus"):
            if plan[name] != facts[name]:
                raise CheckpointError(
                    f"out {self.path}: holds an experiment whose {name} is {_named(plan[name])}, found"
                    f" {_named(facts[name])}; choose another --out"
                )

    def plan(self) -> ExperimentRecord:
        """Content of ``experiment.json``; a `CheckpointError` if it is damaged."""
        return read_record(self.path / PLAN, ExperimentRecord)

    def job(self, key: str) -> Job:
        """Definition of a cell; a `CheckpointError` for an unknown key or a damaged file."""
        path = self._job_path(key)
        if not path.exists():
            raise CheckpointError(f"experiment {self.path}: has no cell {key!r}")
        record = read_record(path, _JobRecord)
        try:
            return Job(
                key=key,
                label=record.label,
                config=recorded(check_config(record.config)),
                analyses=tuple(map(analysis_from, record.analyses)),
            )
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path}: not a cell of this version: {reason}") from error

    def _job_path(self, key: str) -> Path:
        return self.path / JOBS / f"{key}.json"

    def run_path(self, key: str) -> Path:
        """Directory of the run of a cell."""
        return self.path / "cells" / key

    def analysis_path(self, key: str, analysis: Analysis) -> Path:
        """Place of the outcome of an analysis: a folder that is there whole or not at all."""
        return self.run_path(key) / "analysis" / analysis.name

    def log_path(self, key: str) -> Path:
        """Log of the process of a cell."""
        return self.path / "logs" / f"{key}.txt"

    def state(self, job: Job) -> State:
        """State of a job so far."""
        return self.state_of(job.key, (analysis.name for analysis in job.analyses))

    def state_of(self, key: str, analyses: Iterable[str]) -> State:
        """State of a cell so far, which asks for analyses of these names."""
        run = self.run_path(key)
        if (run / METRICS).is_file() and all((run / "analysis" / name).is_dir() for name in analyses):
            return "finished"
        if self.failure_path(key).is_file():
            return "failed"
        return "begun" if run.is_dir() else "pending"

    def failure(self, key: str) -> str:
        """Reason why a cell failed, in one line; empty if it did not."""
        path = self.failure_path(key)
        try:
            return read_record(path, Failure).error if path.exists() else ""
        except CheckpointError:
            return f"{path} cannot be read"

    def set_failure(self, key: str, error: str) -> None:
        """Record why a cell failed; an empty reason takes the record away."""
        if error:
            replace_file(self.failure_path(key), to_json({"error": error}).encode())
        else:
            self.failure_path(key).unlink(missing_ok=True)

    def failure_path(self, key: str) -> Path:
        """File with the reason why a cell failed."""
        return self.path / "failed" / f"{key}.json"

    @contextmanager
    def locked(self, key: str, *, wait: bool) -> Iterator[None]:
        """Keep other processes, of any machine that shares the folder, from a cell, until this process ends,
        however it does; a `BusyError` if one holds it and `wait` is false.
        """

        def busy() -> None:
            if not wait:
                raise BusyError(key)

        with exclusive(self.path / "cells" / f"{key}.lock", busy):
            yield


def _write(path: Path, values: Mapping[str, Any]) -> None:
    replace_file(path, to_json(stamped(plain(values))).encode())


def _named(value: Any) -> str:
    if not isinstance(value, dict):
        return repr(value)
    return f"{value.get('name')!r} {str(value.get('checksum'))[:12]}"
