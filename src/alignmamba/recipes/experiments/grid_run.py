"""Running an experiment: lay out its grid, do what is not done yet, sum up what is there."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from alignmamba.contracts import Config, Corpus, Split
from alignmamba.errors import ConfigError
from alignmamba.evaluation.metrics import metric_names
from alignmamba.evaluation.seed_variance import groups_by_id
from alignmamba.evaluation.tables import ResultTable
from alignmamba.extras import require
from alignmamba.files import replace_file
from alignmamba.recipes.advice import clock_note
from alignmamba.recipes.assembly import check_pretrained, counted_weights, environment
from alignmamba.recipes.configuration import RunConfig, refuse_pretraining, with_clock
from alignmamba.recipes.experiments.catalogue import cells_of, grid_of, grids, not_compared
from alignmamba.recipes.experiments.cells import Cell, ExperimentRecord, Job, State, jobs_of
from alignmamba.recipes.experiments.engines import GridProgress, run_here, run_on_slurm, shard_of, threads_of
from alignmamba.recipes.experiments.experiment_kind import GridExperiment, GridOptions
from alignmamba.recipes.experiments.grid_directory import JOBS, PLAN, ExperimentDirectory
from alignmamba.recipes.experiments.grid_reader import read_grid
from alignmamba.recipes.finished_run import refuse_unlabelled
from alignmamba.recipes.fold_runs import of_folds
from alignmamba.recipes.preparation import prepared, seen_by, uncut
from alignmamba.recipes.run_directory import corpus_identity, make_directory
from alignmamba.recipes.training_run import refuse_missing_extras


class GridEngine(Config):
    """Engine of a grid."""

    kind: Literal["local", "slurm"] = "local"
    """``local``: processes of this machine; ``slurm``: a SLURM array, for which the directory lies in a
    folder that all nodes share."""
    jobs: Annotated[int, Field(ge=1)] = 1
    """Cells at work at once; how many threads each computes on does not depend on it."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Options of submitit's executor, for example ``{"timeout_min": 120, "slurm_partition": "gpu"}``."""
    shard: tuple[int, int] | None = None
    """``(i, n)``: do every n-th cell from the i-th on, counted from 1, and leave the others to other machines
    that share the folder."""

    @model_validator(mode="after")
    def _shard_is_one_of(self) -> Self:
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            raise ValueError(f"shard: found {self.shard[0]}/{self.shard[1]}, expected i/n with i from 1 to n")
        return self


@dataclass(frozen=True, kw_only=True)
class ExperimentPlan:
    """An experiment that is about to be run: everything is checked, nothing is written."""

    options: GridOptions
    """Options that vary; they also identify the experiment."""
    base: RunConfig
    corpus: Corpus
    cells: tuple[Cell, ...]
    jobs: tuple[Job, ...]
    directory: Path
    not_compared: Mapping[str, str] = field(default_factory=dict)
    """Methods of a set that was asked for which the corpus does not suit, each with the reason."""
    notes: tuple[str, ...] = ()
    """Notes on what training does differently than expected, in sentences."""

    @property
    def experiment(self) -> GridExperiment[Any, Any]:
        """Experiment of these options."""
        return grid_of(self.options)

    @property
    def threads(self) -> tuple[int, ...]:
        """Threads that a run computes on here: distinct numbers where models differ, see `threads_of`."""
        return tuple(sorted({threads_of(job) for job in self.jobs}))

    def states(self) -> Mapping[str, State]:
        """State of each job so far, by its key; files of finished ones are not read."""
        directory = ExperimentDirectory(self.directory)
        return {job.key: directory.state(job) for job in self.jobs}


@dataclass(frozen=True, kw_only=True)
class ExperimentResult:
    """State of an experiment."""

    directory: Path
    tables: tuple[ResultTable, ...]
    states: Mapping[State, int]
    """Number of runs in each state."""
    failures: Mapping[str, str]
    """Label of a run to the reason why it failed."""
    damaged: Mapping[str, str]
    """Label of a finished run to what is wrong with its files."""


def plan_experiment(options: GridOptions, base: RunConfig, *, out: str | Path) -> ExperimentPlan:
    """Check everything about an experiment that can be checked before it starts. Raises a `ConfigError` for
    options, memory or packages, a `DataError` for the corpus, a `CheckpointError` for another thing at `out`.
    """
    require("experiment", "experiments", "scipy")
    refuse_missing_extras(base)
    refuse_pretraining(base, "an experiment")
    asked = base
    if options.folds:
        base = of_folds(base, options.folds)[0]  # what holds for its corpus is taken to hold for all folds
    made = prepared(base, seeds=range(1, options.seeds))
    base, corpus = with_clock(made.config, made.corpus), made.corpus  # one unit for all rows
    refuse_unlabelled(corpus, ("train", "valid", "test"))
    directory = ExperimentDirectory(Path(out))
    directory.refuse_other({"experiment": grid_of(options).name, "corpus": corpus_identity(corpus)})
    if (directory.path / PLAN).is_file():
        options = grid_of(options).as_begun(options, directory.plan())
    cells = tuple(cells_of(options, base, corpus))
    left_out = not_compared(options, base, corpus)
    for sized in {
        (cell.config.model, repr(cell.config.options), cell.config.modalities): cell.config for cell in cells
    }.values():
        counted_weights(sized, seen_by(sized, corpus))  # refuses more than this machine holds
    check_pretrained(cells[0].config, seen_by(cells[0].config, corpus))
    return ExperimentPlan(
        options=options,
        base=base,
        corpus=corpus,
        cells=cells,
        jobs=tuple(jobs_of(cells)),
        directory=Path(out),
        not_compared=left_out,
        notes=(
            *made.notes,
            *clock_note(made.config, base),
            *grid_of(options).notes(options, asked, cells),
            *(f"{name} is not compared: {why}" for name, why in left_out.items()),
        ),
    )


def run_experiment(
    plan: ExperimentPlan, engine: GridEngine, *, command: Sequence[str], progress: GridProgress
) -> ExperimentResult:
    """Do what is not done yet, and write the tables of what is there. A finished cell is never run again, an
    unfinished one is resumed, one that failed is tried again. `command` is recorded. Raises a
    `KeyboardInterrupt` when what runs here has saved; a SLURM array stays in its queue.
    """
    if engine.kind == "slurm":
        require("engine slurm", "experiments", "submitit")
    facts = _facts(plan, command)
    directory = ExperimentDirectory.create(plan.directory, facts=facts, cells=plan.cells)
    mine = list(plan.jobs) if engine.shard is None else shard_of(plan.jobs, engine.shard)
    left = [job for job in mine if directory.state(job) != "finished"]
    progress.started(done=len(mine) - len(left), total=len(mine))
    if left and engine.kind == "slurm":
        run_on_slurm(directory, left, workers=engine.jobs, progress=progress, options=engine.options)
    elif left:
        run_here(directory, left, workers=engine.jobs, progress=progress)
    # by the plan of this call, whatever another one has asked for in the meantime
    return _summed_up(directory, ExperimentRecord.of(facts, plan.cells))


def sum_up(path: str | Path) -> ExperimentResult:
    """Write the tables of an experiment, finished or not, and report how far it is."""
    directory = ExperimentDirectory.open(Path(path))
    return _summed_up(directory, directory.plan())


def refresh_tables(path: Path) -> None:
    """Write the tables of what is finished of a grid of runs that lies there; a grid that was killed has
    none.
    """
    if (path / PLAN).is_file() and (path / JOBS).is_dir():
        sum_up(path)


def _summed_up(directory: ExperimentDirectory, plan: ExperimentRecord) -> ExperimentResult:
    """Write the tables of the cells that are finished; one with a damaged file is named in the notes."""
    require("tables", "experiments", "scipy")
    grid = read_grid(directory, plan)
    experiment = grids().get(grid.experiment)
    found = () if experiment is None else experiment.tables(grid)
    tables = tuple(table.model_copy(update={"notes": (*table.notes, *grid.notes)}) for table in found)
    for table in tables:
        table.write(directory.path / "tables")
    for name, content in ({} if experiment is None else experiment.figures(tables)).items():
        make_directory(directory.path / "figures")
        replace_file(directory.path / "figures" / name, content)
    return ExperimentResult(
        directory=directory.path,
        tables=tables,
        states=dict(Counter(grid.states.values())),
        failures={grid.labels[key]: why for key, why in grid.failures.items()},
        damaged={grid.labels[key]: why for key, why in grid.damaged.items()},
    )


def _learns_others(plan: ExperimentPlan) -> bool:
    return plan.base.fit.task_weight == 0 and bool(plan.corpus.task.further)


def _facts(plan: ExperimentPlan, command: Sequence[str]) -> dict[str, Any]:
    tested = [(sample.id, sample.group) for split in _tested(plan) for sample in split]
    groups = groups_by_id(*zip(*tested, strict=True))
    return {
        "experiment": plan.experiment.name,
        "settings": plan.options.model_dump(mode="json"),
        "command": list(command),
        "environment": environment(),
        "threads": plan.threads,
        "corpus": corpus_identity(plan.corpus),
        "data": plan.base.data,
        "task": plan.corpus.task.model_dump(mode="json"),
        "modalities": [spec.name for spec in plan.corpus.modalities],
        "test_samples": len(tested),
        **({"test_groups": groups} if groups else {}),
        "metrics": list(metric_names(plan.corpus.task)),
        "seeds": list(range(plan.options.seeds)),
        "missing": plan.base.missing.model_dump(mode="json"),
        **({"unlearned": True} if _learns_others(plan) else {}),
        **({} if plan.base.split_valid is None else {"split_valid": plan.base.split_valid}),
        **({"not_compared": dict(plan.not_compared)} if plan.not_compared else {}),
        **plan.experiment.facts(plan.options, plan.corpus, plan.cells),
    }


def _tested(plan: ExperimentPlan) -> Sequence[Split]:
    """Splits whose samples runs are tested on: with folds all of them, whole."""
    if not plan.options.folds:
        return (plan.corpus.split("test"),)
    return tuple(uncut(plan.base, plan.corpus).splits.values())


def shard_from(text: str) -> tuple[int, int]:
    """``i/n`` as two numbers; a `ConfigError` for anything else."""
    first, slash, second = text.partition("/")
    if not slash or not first.isdecimal() or not second.isdecimal():
        raise ConfigError(f"shard: found {text!r}, expected i/n, for example 1/4")
    return int(first), int(second)
