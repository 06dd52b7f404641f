"""Parts of a page: the runs that were found, their tables, and what model and corpus add."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from alignmamba.contracts import Predictions
from alignmamba.evaluation.tables import ResultTable
from alignmamba.recipes.experiments.cells import CellRecord, ExperimentRecord, State
from alignmamba.recipes.run_records import Samples
from alignmamba.recipes.transport_plans import PlanSample

RUN: Final = "run"
"""Name of the experiment that a single run is read as."""
RUNS: Final = "runs"
"""Name of the experiment that several runs are read as."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One cell and what it has left on disk so far."""

    cell: CellRecord
    state: State
    error: str = ""
    """Reason of its failure."""
    settings: str = ""
    """Its complete configuration as YAML."""
    versions: Mapping[str, str] = field(default_factory=dict)
    log: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Column of the log to its values, one per epoch."""
    best_epoch: int | None = None
    selected_by: str = ""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Samples by true class (rows) and predicted class."""
    classes: tuple[str, ...] = ()
    samples: Samples | None = None
    """Studies of the first finished seed of each row and column."""
    plans: tuple[PlanSample, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SettingsTable:
    """Settings in which runs differ."""

    runs: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """Name of a setting, and its value in each run; empty where the run has no such setting."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of two runs on the same samples."""

    first: str
    second: str
    samples: int
    alike: float
    """Share of samples that both predict alike; of a regression, the correlation of the predictions (NaN if
    one is constant)."""
    apart: float | None
    """Mean distance of two predictions of a regression."""
    right: tuple[int, int, int, int] | None
    """Samples that both predict right, only the first, only the second, neither; ``None`` for a regression or
    without targets."""


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Scores without one modality, beside those of the same samples with everything."""

    modality: str
    samples: int
    """Samples that have another modality."""
    complete: Mapping[str, float]
    without: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Data of a sample in one modality, as the corpus has it."""

    length: int
    seconds: tuple[float, float] | None
    """Times of the first and of the last token, where they are known."""
    words: tuple[str, ...] | None
    """One per token, where the corpus has them and the page has room."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Additions of model and corpus to the files of a run; everything is in the order of the samples."""

    texts: tuple[str | None, ...]
    groups: tuple[str | None, ...]
    tokens: tuple[Mapping[str, Tokens], ...]
    """Data of each sample, by modality; those that it lacks are not in it."""
    modalities: tuple[str, ...]
    complete: Predictions
    """Scores of the samples that were predicted again, with all of their modalities."""
    without: Mapping[str, Predictions]
    """Modality to the predictions without it, of those samples that have another one."""
    worth: tuple[Worth, ...]
    """Empty where no target is known, or there is one modality only."""
    plans: tuple[PlanSample, ...]
    without_plan: str
    """Reason why a sample has none here, in a sentence."""
    notes: tuple[str, ...]
    """Bounds of the work, in sentences."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture that the experiment drew."""

    name: str
    kind: Literal["svg", "png"]
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Everything that a page shows."""

    directory: Path
    experiment: ExperimentRecord
    found: tuple[Found, ...]
    tables: tuple[ResultTable, ...]
    figures: tuple[Figure, ...]
    left_out: tuple[str, ...]
    """Parts that would make the page too large, one sentence each."""
    differing: SettingsTable | None = None
    """Comparison of several runs."""
    agreement: tuple[Agreement, ...] = ()
    """Agreement of several runs that predicted the same samples."""
    study: Study | None = None
    """Study of a single run whose corpus could be loaded."""
    not_studied: str = ""
    """Reason why no study exists, in one sentence."""

    @property
    def kind(self) -> str:
        """`RUN`, `RUNS` or the name of an experiment."""
        return self.experiment.experiment
