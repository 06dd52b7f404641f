"""An experiment: a grid of runs, what is computed of each, and the tables that sum them up."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from alignmamba.contracts import Batch, Config, Corpus
from alignmamba.data.loader import collate
from alignmamba.evaluation.tables import ResultTable
from alignmamba.methods import METHODS
from alignmamba.models.network import merged
from alignmamba.recipes.assembly import restricted
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.experiments.cells import Analysis, Cell, cell
from alignmamba.recipes.experiments.grid import Grid
from alignmamba.recipes.finished_run import LoadedRun
from alignmamba.recipes.preparation import of_modalities

BATCH_SIZE = 64


class ExperimentConfig(Config):
    """Settings that an experiment varies; everything else comes from the settings of a run."""

    name: str
    """Which experiment."""
    models: tuple[str, ...] = ()
    """Methods that ``comparison`` and ``missing`` compare, sets of them among these (`methods.SETS`); empty
    means the families."""
    own_settings: bool = False
    """Train each method with the settings it was published with, in place of the ones that all share."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 5
    """Runs of each cell, with the seeds 0, 1, and so on."""
    protocol: Literal["gcnet", "imder-sample", "imder-batch", "tokens"] = "gcnet"
    """How ``missing`` withholds modalities."""
    rates: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1)] = (
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
    )
    """Missing rates of ``missing``."""
    mixed: bool = False
    """In ``missing``, train once on all rates mixed and score at each, instead of training at each."""
    samples: tuple[str, ...] = ()
    """Test samples that ``plans`` shows; empty means those predicted best and worst."""


class Experiment(ABC):
    """One experiment of the paper. A new one is a class in a file of its own and a line in
    `catalogue.EXPERIMENTS`.
    """

    name: ClassVar[str]
    """As people type it."""
    compares_methods: ClassVar[bool] = False
    """Its rows are the methods that were asked for, not one model's variants."""

    @abstractmethod
    def cells(self, asked: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Cells for one seed, which the configuration holds.

        Args:
            asked: What is varied; its ``models`` are methods, no sets.
            base: Settings of every run.
            corpus: With the modalities that are asked for.
        """

    def analyse(self, run: LoadedRun, analysis: Analysis, out: Path) -> None:
        """Compute of a finished run what its cell asks for.

        Args:
            run: Model, settings and corpus.
            analysis: What is asked for.
            out: Existing, empty folder.
        """
        raise NotImplementedError(f"experiment {self.name} computes nothing of a run besides its scores")

    @abstractmethod
    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Tables of what is finished."""


def of_model(base: RunConfig, name: str, *, own_settings: bool = False) -> RunConfig:
    """The same run with another model; of the options, the preset's among them, it has those that it knows.

    Args:
        base: The run.
        name: Of the model.
        own_settings: Take the settings that it was published with where they differ.
    """
    method = METHODS[name]
    run = base if name == base.model else _other(base, name)
    laid = merged(method.settings if own_settings else {}, method.required)
    return RunConfig(**merged(run.model_dump(), laid)) if laid else run


def _other(base: RunConfig, name: str) -> RunConfig:
    known = METHODS[name].network.config_class.model_fields
    given = merged(METHODS[base.model].network.config_class.PRESETS[base.preset], base.options)
    options = {key: value for key, value in given.items() if key in known}
    return base.model_copy(update={"model": name, "preset": "default", "options": options})


def changed(base: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A run with an ablation's model and options laid over its own."""
    other = of_model(base, changes.get("model", base.model))
    return other.model_copy(update={"options": merged(other.options, changes.get("options", {}))})


def with_modalities(row: str, base: RunConfig, corpus: Corpus, names: tuple[str, ...]) -> Iterator[Cell]:
    """A cell that takes some modalities alone, none where no sample of a split has them; what the options say
    of others is left out.
    """
    if all(any(split.lengths[name].any() for name in names) for split in corpus.splits.values()):
        yield cell(row, of_modalities(base, names), restricted(corpus, names))


def test_batches(corpus: Corpus) -> Iterator[Batch]:
    """The test split, in its order."""
    test = corpus.split("test")
    for start in range(0, len(test), BATCH_SIZE):
        yield collate(
            [test[row] for row in range(start, min(start + BATCH_SIZE, len(test)))],
            corpus.modalities,
            corpus.task,
        )
