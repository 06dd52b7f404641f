"""A grid of runs: every cell is one run, named by the digest of its settings."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from alignmamba.contracts import Config, Corpus, Task
from alignmamba.errors import ConfigError
from alignmamba.recipes.configuration import RunConfig, resolve
from alignmamba.recipes.run_records import CorpusIdentity

State = Literal["finished", "failed", "damaged", "begun", "pending"]
"""State of a run; one that is damaged has finished, and a file of it was changed since."""


class Analysis(Config):
    """Analysis of a trained model besides its scores; an experiment that varies it adds fields."""

    kind: str
    """Name of the experiment that computes it."""

    @property
    def name(self) -> str:
        """Name of its folder in the cell: another for other fields."""
        return self.kind


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """Entry of a cell in ``experiment.json``, see `Cell`."""

    key: str
    row: str
    column: str
    seed: int
    digest: str
    predictions: str = "predictions_test.csv"
    """File of the run that holds what this cell is scored by."""
    analyses: tuple[str, ...] = ()
    """Folders of the run's ``analysis``."""
    fold: int | None = None
    """Part that is the test split of the run; None without cross-validation."""

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{16}", self.key):
            raise ValueError(f"key: found {self.key!r}, expected 16 hexadecimal digits")
        for place in (self.predictions, *self.analyses):
            if place.startswith("/") or ".." in place:
                raise ValueError(f"cell {self.key}: found {place!r}, expected a path within the run")

    @property
    def draw(self) -> str:
        """Seed of the run, and its fold where there is one."""
        return f"seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")


@dataclass(frozen=True, kw_only=True)
class ExperimentRecord:
    """Content of ``experiment.json``; single experiments hold more, earlier versions less."""

    experiment: str
    corpus: CorpusIdentity
    cells: tuple[CellRecord, ...]
    task: Task | None = None
    metrics: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    test_samples: int = 0
    test_groups: dict[str, str] = field(default_factory=dict)
    """Id of each test sample to its group, such as a speaker or a video; empty where none are shared."""
    train_samples: int = 0
    unlearned: bool = False
    """Runs learn further targets alone, so that the target of the corpus is not scored."""
    whole_in_folds: bool = False
    """Runs learn from the whole train split of every fold, as these are of one size."""
    split_valid: float | None = None
    """Share of train that each seed draws as the valid split; None where the corpus has its own."""
    tuned: dict[str, Any] = field(default_factory=dict)
    rates_left_out: tuple[float, ...] = ()
    not_compared: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)
    data: str = ""

    @property
    def folds(self) -> int:
        """Parts of the cross-validation, which the experiment asked for; 0 without one."""
        return int(self.settings.get("folds", 0))

    @classmethod
    def of(cls, facts: Mapping[str, Any], cells: Sequence["Cell"]) -> Self:
        """Record that these facts and cells are written as."""
        values = {**facts, "cells": [each.record for each in cells]}
        return TypeAdapter(cls).validate_python(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run at its place in a table."""

    row: str
    """Method or variant."""
    column: str
    """Column of the table, for example the missing rate; empty where its columns are metrics."""
    config: RunConfig
    """Complete, seed included."""
    digest: str
    """Digest of the settings and the corpus, without the seed."""
    analyses: tuple[Analysis, ...] = ()
    """Analyses of the trained model."""
    predictions: str = "predictions_test.csv"
    """File of the run that holds what this place of the table is scored by."""

    @property
    def key(self) -> str:
        """Name of the run's directory: two cells with the same settings and seed share one run."""
        return hashlib.sha256(f"{self.digest}/{self.config.seed}".encode()).hexdigest()[:16]

    @property
    def record(self) -> CellRecord:
        """Cell as the record of an experiment holds it."""
        return CellRecord(
            key=self.key,
            row=self.row,
            column=self.column,
            seed=self.config.seed,
            digest=self.digest,
            predictions=self.predictions,
            analyses=tuple(analysis.name for analysis in self.analyses),
            fold=self.config.folds.test if self.config.folds.number else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Work for one or several cells of the same settings: one run, then its analyses."""

    key: str
    label: str
    """Label for people, for example ``mult, 30 %, seed 2``."""
    config: RunConfig
    analyses: tuple[Analysis, ...]

    @property
    def values(self) -> dict[str, Any]:
        """Content as a file."""
        return {
            "label": self.label,
            "config": self.config.model_dump(mode="json"),
            "analyses": [analysis.model_dump(mode="json") for analysis in self.analyses],
        }


def cell(
    row: str,
    config: RunConfig,
    corpus: Corpus,
    *,
    column: str = "",
    analyses: Sequence[Analysis] = (),
    predictions: str = "predictions_test.csv",
) -> Cell:
    """A cell with its complete configuration, checked against the corpus; a `ConfigError` names the row."""
    try:
        complete = resolve(config, corpus)
    except ConfigError as error:
        raise ConfigError(f"{row}: {error}") from error
    return Cell(
        row=row,
        column=column,
        config=complete,
        digest=complete.digest(corpus),
        analyses=tuple(analyses),
        predictions=predictions,
    )


def jobs_of(cells: Iterable[Cell]) -> list[Job]:
    """One job per run, in the order of first need, with the analyses of all cells that share it."""
    jobs: dict[str, Job] = {}
    for each in cells:
        known = jobs.get(each.key)
        analyses = dict.fromkeys((*(known.analyses if known else ()), *each.analyses))
        label = ", ".join(part for part in (each.row, each.column, each.record.draw) if part)
        jobs[each.key] = Job(
            key=each.key, label=known.label if known else label, config=each.config, analyses=tuple(analyses)
        )
    return list(jobs.values())
