"""An experiment: its options, a grid of runs, what is computed of each, and the tables that sum them up."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import Field, field_validator

from alignmamba.contracts import Batch, Config, Corpus
from alignmamba.data.loader import collate
from alignmamba.errors import ConfigError, nearest
from alignmamba.evaluation.tables import ResultTable
from alignmamba.methods import METHODS, SETS
from alignmamba.models.network import Network, merged
from alignmamba.recipes.bench.bench_files import Files
from alignmamba.recipes.configuration import PRESET_OF_0_1, RunConfig, with_habits
from alignmamba.recipes.experiments.cells import Analysis, Cell, ExperimentRecord, cell
from alignmamba.recipes.experiments.grid import Grid
from alignmamba.recipes.finished_run import LoadedRun
from alignmamba.recipes.fold_runs import of_folds
from alignmamba.recipes.preparation import narrowed

BATCH_SIZE = 64


class GridOptions(Config):
    """Options of a grid of runs. Each experiment has a class of its own, which adds those that it varies."""

    seeds: Annotated[int, Field(ge=1, le=1000, title="N")] = 5
    """Runs of each cell, with seeds 0 to N-1."""
    folds: Annotated[int, Field(ge=0, le=1000, title="K")] = 0
    """Cross-validate: K runs of each cell and seed, each tested on another part of all samples."""


def check_method(name: str) -> None:
    """Refuse with a `ValueError` a name that is neither a method's nor a set's."""
    known = (*METHODS, *SETS)
    if name not in known:
        raise ValueError(f"found {name!r}, expected some of {', '.join(known)}{nearest(name, known)}")


class MethodsOptions(GridOptions):
    """Options of an experiment whose rows are methods."""

    models: Annotated[tuple[str, ...], Field(title="NAME ...")] = ()
    """Methods to compare, or `families` (the default), `table1`, `table2`, `all`."""
    own_settings: bool = False
    """Train each method with its published settings instead of settings that all share."""

    @field_validator("models")
    @classmethod
    def _known(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        for name in models:
            check_method(name)
        return models


OptionsT = TypeVar("OptionsT", bound=Config)
GridOptionsT = TypeVar("GridOptionsT", bound=GridOptions)
AnalysisT = TypeVar("AnalysisT", bound=Analysis)


class Experiment(ABC, Generic[OptionsT]):
    """One experiment of the paper: a class in its own file, and a line in `catalogue.EXPERIMENTS`."""

    name: ClassVar[str]
    """Name as people type it."""
    title: ClassVar[str]
    """Title of its page."""
    summary: ClassVar[str]
    """Summary for the help of the command line; a phrase without a full stop."""
    options: type[OptionsT]
    """Its own, of which the command line makes flags; every field has a default, and no two experiments share
    a class."""

    def rates(self, table: ResultTable) -> Mapping[int, float]:
        """Columns that a page draws rows over, by their place in a table: the rate, from 0 to 1, of each."""
        del table
        return {}


class GridExperiment(Experiment[GridOptionsT], Generic[GridOptionsT, AnalysisT]):
    """An experiment that is a grid of runs."""

    analysis: type[AnalysisT]
    """Analyses that its cells ask for besides scores."""

    without_tables: ClassVar[str] = ""
    """Clause on why finished runs may have no table."""

    def check(self, asked: GridOptionsT, corpus: Corpus) -> None:
        """Refuse, by a `ConfigError`, options that do not go with a corpus."""

    def as_begun(self, asked: GridOptionsT, begun: ExperimentRecord) -> GridOptionsT:
        """Options with which an experiment resumes that an earlier version may have begun: the same here."""
        del begun
        return asked

    @abstractmethod
    def cells(self, asked: GridOptionsT, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Cells for the seed that the configuration of every run holds; ``models`` of `asked` are methods, no
        sets.
        """

    def seeded_cells(self, asked: GridOptionsT, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Cells for all seeds; an experiment that reads files for them reads these here, once."""
        for run in drawn(asked, base):
            yield from self.cells(asked, run, corpus)

    def notes(self, asked: GridOptionsT, base: RunConfig, cells: Sequence[Cell]) -> Iterator[str]:
        """Sentences on where runs differ from what was asked for."""
        del asked, base, cells
        yield from ()

    def facts(self, asked: GridOptionsT, corpus: Corpus, cells: Sequence[Cell]) -> Mapping[str, Any]:
        """Record in ``experiment.json`` besides options and corpus."""
        del asked, corpus, cells
        return {}

    def analyse(self, run: LoadedRun, analysis: AnalysisT, out: Path) -> None:
        """Compute of a finished run what its cell asks for, into an empty folder."""
        raise NotImplementedError(f"experiment {self.name} computes nothing of a run besides its scores")

    @abstractmethod
    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Tables of what is finished."""

    def figures(self, tables: Sequence[ResultTable]) -> Files:
        """Plots of its tables, by the name of their file; none where matplotlib is not installed."""
        del tables
        return {}


def drawn(asked: GridOptions, base: RunConfig) -> Iterator[RunConfig]:
    """The run under every seed, and in it for every fold, so that a stopped grid is balanced."""
    for seed in range(asked.seeds):
        for run in of_folds(base, asked.folds) if asked.folds else [base]:
            yield run.model_copy(update={"seed": seed})


def of_model(base: RunConfig, name: str, *, own_settings: bool = False) -> RunConfig:
    """The same run with another model, and those of the options and the preset's that it knows; with its
    published settings on request.
    """
    method = METHODS[name]
    run = base if name == base.model else _other(base, name)
    laid = merged(method.settings if own_settings else {}, method.required)
    return RunConfig(**merged(run.model_dump(), laid)) if laid else run


def _other(base: RunConfig, name: str) -> RunConfig:
    known = METHODS[name].network.config_class.model_fields
    given = METHODS[base.model].network.config_class.laid(base.preset, base.options)
    options = {key: value for key, value in given.items() if key in known}
    if base.preset == PRESET_OF_0_1:
        base = with_habits(base, samples=0)
    return base.model_copy(update={"model": name, "preset": "default", "options": options})


def variants(
    base: RunConfig, corpus: Corpus, *, analyses: tuple[Analysis, ...] = (), same_model: bool = False
) -> Iterator[Cell]:
    """A cell for the model as it is, `full`, and one for each ablation that its network declares; of the same
    model alone on request.
    """
    yield cell("full", base, corpus, analyses=analyses)
    for row, changes in METHODS[base.model].network.ablations.items():
        if not (same_model and "model" in changes):
            other = of_model(base, changes.get("model", base.model))
            options = merged(other.options, changes.get("options", {}))
            yield cell(row, other.model_copy(update={"options": options}), corpus, analyses=analyses)


def refuse_unaligned(base: RunConfig) -> None:
    """Refuse, by a `ConfigError`, a model that aligns nothing, where its alignment is looked at."""
    if METHODS[base.model].network.aligned_streams is Network.aligned_streams:
        raise ConfigError(f"model: found {base.model!r}, which aligns nothing, expected one that does")


def refuse_one_modality(option: str, corpus: Corpus, *, expected: str = "two or more") -> None:
    """Refuse, by a `ConfigError` on an option, a corpus of which runs learn from one modality alone."""
    if len(corpus.modalities) < 2:
        raise ConfigError(
            f"{option}: corpus {corpus.name!r} has one modality to learn from,"
            f" {corpus.modalities[0].name!r}, expected {expected}"
        )


def with_modalities(
    row: str, base: RunConfig, corpus: Corpus, names: tuple[str, ...], *, column: str = ""
) -> Iterator[Cell]:
    """A cell that takes some modalities alone; no cell where no sample of a split has them, or where all
    targets are of tokens of others.
    """
    if all(any(split.lengths[name].any() for name in names) for split in corpus.splits.values()):
        run, left = narrowed(base, corpus, names)
        if run.fit.task_weight or run.targets or not base.targets:
            yield cell(row, run, left, column=column)


def test_batches(corpus: Corpus) -> Iterator[Batch]:
    """The test split, in its order."""
    test = corpus.split("test")
    for start in range(0, len(test), BATCH_SIZE):
        yield collate(
            [test[row] for row in range(start, min(start + BATCH_SIZE, len(test)))],
            corpus.modalities,
            corpus.task,
        )
