"""``alignmamba experiment``: the paper's tables and figures on any corpus."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, make_dataclass
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from tyro.conf import Positional, UseAppendAction, arg

from alignmamba.cli.config_flags import flag
from alignmamba.cli.terminal_tables import blocks, rows_table
from alignmamba.cli.verb import SettingVerb, Verb, console, option_name, say, write
from alignmamba.errors import DONE, OUR_FAULT, USER_INPUT, ConfigError, counted, likely

if TYPE_CHECKING:
    from alignmamba.contracts import Config
    from alignmamba.evaluation.tables import ResultTable
    from alignmamba.recipes.bench.measurement import BenchConfig
    from alignmamba.recipes.experiments.cells import Job
    from alignmamba.recipes.experiments.efficiency import EfficiencyOptions
    from alignmamba.recipes.experiments.grid_run import ExperimentPlan, ExperimentResult, GridEngine

ConfigT = TypeVar("ConfigT", bound="Config")

_OF_ONE_METRIC: Final = ("missing-", "sizes-")
"""Beginnings of the names of tables that are of one metric, which follows."""


@dataclass(frozen=True, kw_only=True)
class Experiment(SettingVerb):
    """Repeat an experiment of the paper: a grid of runs, then tables with intervals and tests.

    Repeat the command to resume after an interruption: finished runs are kept, failed ones run again. Then
    write a page with `alignmamba report DIR`.
    """

    name: Annotated[Positional[str], arg(metavar="NAME")]
    """Name of the experiment."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Directory of the experiment; a directory that holds this experiment is resumed."""
    model: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: alignmamba)")] = None
    """Model to study, in an experiment that does not compare methods."""
    set: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="KEY=VALUE ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """Settings of every run by dotted key, for example fit.epochs=5; of a measurement, options of `bench`."""
    metrics: Annotated[tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="(default: all)")] = ()
    """Metrics in the tables on the terminal; files and --json have all of them."""
    jobs: Annotated[int, arg(metavar="J")] = 1
    """Runs at the same time, each on one to four threads; OMP_NUM_THREADS sets their number."""
    engine: Literal["local", "slurm"] = "local"
    """Processes of this machine, or a SLURM array."""
    slurm: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="KEY=VALUE ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """Options of submitit's executor, for example timeout_min=120 slurm_partition=gpu."""
    shard: Annotated[str | None, arg(metavar="i/n", help_behavior_hint="(default: all)")] = None
    """Take every n-th run from the i-th; other machines that share the folder take the others."""
    dry_run: bool = False
    """Print the runs and their states; train, measure and write nothing."""

    @classmethod
    def completed(cls) -> type[Verb]:
        """The verb with the names of all experiments and the options of each."""
        from alignmamba.recipes.experiments.catalogue import EXPERIMENTS, any_option, takers

        names: Any = Literal[tuple(EXPERIMENTS)]
        choice = Annotated[Positional[names], arg(metavar="NAME", help=f"{', '.join(EXPERIMENTS)}.")]
        summaries = "\n".join(f"`{name}`: {each.summary}." for name, each in EXPERIMENTS.items())
        first, _, rest = cleandoc(cls.__doc__ or "").partition("\n\n")
        namespace = {"__doc__": f"{first}\n\n{summaries}\n\n{rest}", "__module__": cls.__module__}
        own: list[Any] = [("name", choice)]
        own += [flag(name, info, takers(name)) for name, info in any_option().items()]
        return make_dataclass(cls.__name__, own, bases=(cls,), namespace=namespace, frozen=True, kw_only=True)

    @classmethod
    def setting(cls, word: str, given: Sequence[str]) -> str | None:
        """Key that `--set` takes for the experiment among the arguments."""
        from alignmamba.recipes.bench.measurement import BenchConfig
        from alignmamba.recipes.experiments.efficiency import FIXED, Efficiency

        if Efficiency.name in given:
            return likely(word, [key for key in BenchConfig.model_fields if key not in FIXED])
        key = super().setting(word, given)
        return None if key == "seed" else key  # the grid gives every run its own

    def run(self) -> int:
        """Run the experiment."""
        from alignmamba.recipes.experiments.catalogue import EXPERIMENTS, any_option, grids
        from alignmamba.recipes.experiments.efficiency import Efficiency

        # a wrong value is refused also where another experiment takes it
        options = {name: self._options(each.options) for name, each in EXPERIMENTS.items()}
        Efficiency().config(options[Efficiency.name], {})
        if self.name == Efficiency.name:
            self.refuse_options(
                "efficiency trains nothing, and draws its samples itself",
                allowed=("name", "out", "set", "dry_run", *any_option()),
            )
            self._note_options_of_others()
            return self._efficiency(options[self.name])
        from alignmamba.extras import lacking
        from alignmamba.recipes.experiments.grid_run import plan_experiment, run_experiment

        engine = self._engine()
        plan = plan_experiment(options[self.name], self.configuration(), out=self.out)
        for name, each in grids().items():
            each.check(options[name], plan.corpus)
        self._refuse_unknown_metrics(plan)
        self._note_options_of_others()
        for note in plan.notes:
            say(f"note: {note}")
        if self.dry_run:
            self._show_plan(plan)
            return 0
        if why := lacking("experiments", "jinja2", "matplotlib"):
            say(f"`alignmamba report` cannot write its page here: {why}")
        if engine.kind == "local":
            say(f"{_threads(plan)} a run; OMP_NUM_THREADS sets another number")
        shows = GridBar if sys.stderr.isatty() else GridLines
        with closing(shows(engine.jobs)) as progress:
            result = run_experiment(plan, engine, command=["alignmamba", *sys.argv[1:]], progress=progress)
        self._show_result(plan, result)
        if any(reason.startswith("internal: ") for reason in result.failures.values()):
            return OUR_FAULT
        return USER_INPUT if result.failures or result.damaged else DONE

    def _note_options_of_others(self) -> None:
        """Report options that this experiment ignores."""
        from alignmamba.recipes.experiments.catalogue import EXPERIMENTS, any_option, grids, takers

        own = EXPERIMENTS[self.name].options.model_fields
        for name, info in any_option().items():
            if name not in own and getattr(self, name) not in (info.default, ()):
                others = ", ".join(takers(name) or grids())
                say(f"note: {self.name} ignores --{option_name(name)}, an option of {others}")

    def _options(self, config: type[ConfigT]) -> ConfigT:
        """Given values as the options of one experiment."""
        return config(**{name: getattr(self, name) for name in config.model_fields})

    def _refuse_unknown_metrics(self, plan: "ExperimentPlan") -> None:
        from alignmamba.evaluation.metrics import column_names

        task = plan.corpus.task
        further = (name for target in task.further for name in column_names(target))
        known = list(dict.fromkeys([*column_names(task), *further]))
        if unknown := [name for name in self.metrics if name not in known]:
            raise ConfigError(f"metrics: found {unknown[0]!r}, expected some of {', '.join(known)}")

    def _engine(self) -> "GridEngine":
        from alignmamba.recipes.configuration import assigned
        from alignmamba.recipes.experiments.grid_run import GridEngine, shard_from

        return GridEngine(
            kind=self.engine,
            jobs=self.jobs,
            options=assigned([each for group in self.slurm for each in group], option="--slurm"),
            shard=None if self.shard is None else shard_from(self.shard),
        )

    def _efficiency(self, options: "EfficiencyOptions") -> int:
        from alignmamba.recipes.configuration import assigned
        from alignmamba.recipes.experiments.efficiency_run import plan_efficiency, run_efficiency

        settings = assigned(self.assignments)
        if self.dry_run:
            self._show_parts(plan_efficiency(options, settings, out=self.out))
            return 0
        command = ["alignmamba", *sys.argv[1:]]
        tables = run_efficiency(options, settings, out=self.out, command=command, say=say)
        if self.json:
            self.emit(
                {"experiment": str(self.out), "tables": [table.model_dump(mode="json") for table in tables]}
            )
        else:
            self._show_tables(tables)
        return 0

    def _show_parts(self, parts: "Mapping[str, BenchConfig]") -> None:
        if self.json:
            laid_out = {
                part: {"measure": each.measure, "lengths": each.lengths, "peers": each.against}
                for part, each in parts.items()
            }
            self.emit({"experiment": self.name, "out": str(self.out), "parts": laid_out})
            return

        rows = [
            (part, ", ".join(each.measure), ", ".join(map(str, each.lengths)), ", ".join(each.against))
            for part, each in parts.items()
        ]
        console().print(
            rows_table(
                f"{self.name}: what is measured", ("part", "measure", "tokens per modality", "models"), rows
            )
        )
        write("dry run: nothing was measured or written")

    def _show_plan(self, plan: "ExperimentPlan") -> None:
        states = plan.states()
        facts: dict[str, Any] = {
            "experiment": plan.experiment.name,
            "corpus": plan.corpus.name,
            "runs": len(plan.jobs),
            "threads": plan.threads,
            "states": dict(Counter(states.values())),
        }
        if self.json:
            runs = [{"key": job.key, "run": job.label, "state": states[job.key]} for job in plan.jobs]
            self.emit({**facts, "out": str(self.out), "cells": runs})
            return

        rows = [(job.key, job.label, states[job.key]) for job in plan.jobs]
        runs_there = counted(len(plan.jobs), "run")
        title = f"{plan.experiment.name} on {plan.corpus.name}: {runs_there}, {_threads(plan)} each"
        console().print(rows_table(title, ("key", "run", "state"), rows))
        write("dry run: nothing was trained or written")

    def _show_result(self, plan: "ExperimentPlan", result: "ExperimentResult") -> None:
        if self.json:
            self.emit(
                {
                    "experiment": str(result.directory),
                    "threads": plan.threads,
                    "states": result.states,
                    "failures": result.failures,
                    "damaged": result.damaged,
                    "tables": [table.model_dump(mode="json") for table in result.tables],
                }
            )
        else:
            self._show_tables(result.tables)
        said = ", ".join(f"{count} {state}" for state, count in result.states.items())
        for label, reason in result.failures.items():
            say(f"failed: {label}: {reason}")
        for label, reason in result.damaged.items():
            say(f"damaged: {label}: {reason}")
        where = f"tables in {result.directory / 'tables'}" if result.tables else "no table"
        if not result.tables and result.states.get("finished"):
            where += plan.experiment.without_tables
        say(f"{said}; {where}; write a page with: alignmamba report {result.directory}")

    def _show_tables(self, tables: Any) -> None:
        screen = console()
        metrics = [name for name in self.metrics if any(_shows(table, name) for table in tables)]
        absent = [name for name in self.metrics if name not in metrics]
        if absent and tables:
            rest = "" if metrics else "; all are printed"
            say(f"note: no table of {self.name} shows {' or '.join(absent)}{rest}")
        for table in tables:
            shows = any(_shows(table, name) for name in metrics)
            if metrics and not shows and table.name.startswith(_OF_ONE_METRIC):
                continue
            chosen = table.of_columns(metrics)
            parts = blocks(chosen.shown(), screen.width)
            intervals = len(parts) == 1
            if not intervals:
                parts = blocks(chosen.shown(intervals=False), screen.width)
            for place, (header, rows) in enumerate(parts, start=1):
                title = f"{table.title} ({place} of {len(parts)})" if len(parts) > 1 else table.title
                screen.print(rows_table(title, header, rows))
            for note in chosen.shown_notes(intervals=intervals):
                console().print(note, soft_wrap=True)
            console().print()


def _shows(table: "ResultTable", metric: str) -> bool:
    """True where the table is of a metric, or has a column of it."""
    if table.name.startswith(_OF_ONE_METRIC):
        return table.name.split("-")[1] == metric
    return metric in table.columns


class GridLines:
    """Writes a line for each run that ends, with the time left; meets `engines.GridProgress`."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._total = self._done = 0
        self._seconds: list[float] = []

    def started(self, *, done: int, total: int) -> None:
        """Say what is there already."""
        self._total, self._done = total, done
        say(f"{counted(total, 'run')}, {done} of them finished before")

    def finished(self, job: "Job", state: str, *, reason: str, seconds: float) -> None:
        """Say how a run ended."""
        self._done += 1
        self._seconds.append(seconds)
        self._tell(
            f"{self._done}/{self._total} {job.label}: {state}{f': {reason}' if reason else ''}, {seconds:.0f}"
            f" s; {self.estimate()}"
        )

    def estimate(self) -> str:
        """The time left, by the mean of the runs so far."""
        left = (self._total - self._done) * sum(self._seconds) / len(self._seconds) / self._workers
        from alignmamba.recipes.display import duration

        return f"about {duration(left)} left" if self._total > self._done else "all done"

    def close(self) -> None:
        """Do nothing: no state was changed."""

    def _tell(self, line: str) -> None:
        say(line)


class GridBar(GridLines):
    """A bar over all runs, with the time left, below the lines of those that ended."""

    def __init__(self, workers: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        super().__init__(workers)
        self._screen = console(stderr=True)
        columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
        self._bar = Progress(*columns, console=self._screen, transient=True)
        self._task: Any = None

    def started(self, *, done: int, total: int) -> None:
        """Show the bar."""
        super().started(done=done, total=total)
        self._task = self._bar.add_task("", total=total, completed=done, left="")
        self._bar.start()

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()

    def _tell(self, line: str) -> None:
        self._screen.print(line, soft_wrap=True)
        self._bar.update(self._task, completed=self._done, left=self.estimate())


def _threads(plan: "ExperimentPlan") -> str:
    counts = " or ".join(map(str, plan.threads))
    return f"{counts} thread{'s' * (counts != '1')}"
