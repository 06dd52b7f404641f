"""Training sizes: methods by the number of samples that they learn from."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import numpy as np
from pydantic import Field

from alignmamba.contracts import Corpus
from alignmamba.data.training_subset import SubsetConfig, subset_of
from alignmamba.errors import ConfigError
from alignmamba.evaluation.metrics import RANGES
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.methods import REFERENCES
from alignmamba.recipes.bench.bench_files import COLOURS, MARKERS, Files, drawn, why_no_plots
from alignmamba.recipes.configuration import RunConfig, StartConfig
from alignmamba.recipes.experiments.cells import Cell, cell
from alignmamba.recipes.experiments.columns import (
    dashes,
    differences,
    headline,
    metric_column,
    notes_on,
    of_each_target,
    of_groups,
    on_differences,
    plain_table,
    table_of,
    tabled,
)
from alignmamba.recipes.experiments.comparison import BesideOptions, rows_beside
from alignmamba.recipes.experiments.experiment_kind import GridExperiment, refuse_one_modality
from alignmamba.recipes.experiments.experiment_kind import drawn as drawn_runs
from alignmamba.recipes.experiments.grid import Grid
from alignmamba.recipes.experiments.missing import Missing, MissingAnalysis, MissingOptions, Rate
from alignmamba.recipes.fold_runs import of_folds
from alignmamba.recipes.preparation import prepared
from alignmamba.recipes.starting_weights import pinned_start, planned_start

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OVER: Final = "samples of train"
PRETRAINED: Final = "pretrained"
"""End of the name of a row whose runs start from others."""
_P_VALUE: Final = ", p value (Holm)"


class SizesOptions(BesideOptions):
    """Options of the training sizes."""

    sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, title="N ...")] = (
        50,
        100,
        200,
        400,
    )
    """Samples of train to learn from. One that is not below the whole of train stands for all of it."""
    across_groups: bool = False
    """Draw samples of all groups in their shares; by default whole groups are drawn."""
    cut_valid: bool = False
    """Cut the valid split in the same proportion as train."""
    pretrained: Annotated[tuple[str, ...], Field(title="RUN ...")] = ()
    """Add a row of the model that starts from finished runs, which seeds take in turn."""
    pretrained_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Factor on the learning rate of the weights that this row takes; 0 leaves them as they are."""
    missing_rates: Annotated[tuple[Rate, ...], Field(title="R ...")] = ()
    """Score each model that was trained on everything also with modalities missing at these rates."""

    def sizes_for(self, whole: int) -> tuple[int, ...]:
        """Sizes of a train split of `whole` samples that differ, from the smallest."""
        return tuple(sorted({min(size, whole) for size in self.sizes}))

    def subset(self, size: int, largest: int, seed: int) -> SubsetConfig:
        """Part of train of that size; no part where the largest train split has no more."""
        if size == largest:
            return SubsetConfig()
        return SubsetConfig(size=size, seed=seed, across_groups=self.across_groups, cut_valid=self.cut_valid)


class Sizes(GridExperiment[SizesOptions, MissingAnalysis]):
    """Methods by samples of train: scores, differences from the first method, scores on valid."""

    name: ClassVar[str] = "sizes"
    title: ClassVar[str] = "Training sizes"
    summary: ClassVar[str] = "the rows of `comparison` by the number of training samples"
    options = SizesOptions
    analysis = MissingAnalysis

    def check(self, asked: SizesOptions, corpus: Corpus) -> None:
        """Refuse missing rates where nothing can be withheld."""
        if asked.missing_rates:
            refuse_one_modality("missing_rates", corpus)
        if asked.pretrained_rate != 1 and not asked.pretrained:
            raise ConfigError(
                f"pretrained_rate: found {asked.pretrained_rate:g}, but no row starts from a run; take"
                " --pretrained"
            )

    def cells(self, asked: SizesOptions, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Every row at every size. All rows of a seed learn from the same samples."""
        return self._cells(asked, base, corpus, [len(corpus.split("train"))])

    def seeded_cells(self, asked: SizesOptions, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Cells for all seeds, at the sizes that the train split of every fold has."""
        folds = of_folds(base, asked.folds) if asked.folds else []
        sizes = [len(prepared(run).corpus.split("train")) for run in folds] or [len(corpus.split("train"))]
        for run in drawn_runs(asked, base):
            yield from self._cells(asked, run, corpus, sizes)

    def notes(self, asked: SizesOptions, base: RunConfig, cells: Sequence[Cell]) -> Iterator[str]:
        """Sizes that train does not have."""
        del base
        most = max(int(_size_and_rate(each.column)[0]) for each in cells)
        beyond = sorted(size for size in asked.sizes if size > most)
        if beyond:
            each = "every fold has" if asked.folds else "train has"
            stand = "stand" if len(beyond) > 1 else "stands"
            yield f"sizes: {' and '.join(map(str, beyond))} {stand} for the {most} samples that {each}"

    def _cells(
        self, asked: SizesOptions, base: RunConfig, corpus: Corpus, train_sizes: Sequence[int]
    ) -> Iterator[Cell]:
        if base.subset.size:
            raise ConfigError(
                f"subset.size: found {base.subset.size}, but the grid gives every run its own; take --sizes"
            )
        if base.fit.rates and asked.pretrained_rate != 1:
            raise ConfigError("pretrained_rate: found beside fit.rates, expected one of the two")
        sizes, largest = asked.sizes_for(min(train_sizes)), max(train_sizes)
        smallest = asked.subset(sizes[0], largest, base.seed)
        if smallest.size:
            subset_of(corpus, smallest)  # what the smallest can do without, larger ones can
        for size in sizes:
            run = base.model_copy(update={"subset": asked.subset(size, largest, base.seed)})
            rows = list(rows_beside(asked, run, corpus, column=str(size)))
            if asked.pretrained:
                at = next((place for place, each in enumerate(rows) if each.row == base.model), 0)
                rows.insert(at + 1, _started(asked, run, corpus, column=str(size)))
            yield from rows
            for rate in _rates(asked, corpus):
                analysis = MissingAnalysis(kind=Missing.name, missing=MissingOptions().withheld(rate))
                for each in (row for row in rows if row.config.modalities == base.modalities):
                    yield replace(
                        each,
                        column=f"{size}, {100 * rate:g} %",
                        analyses=(analysis,),
                        predictions=f"analysis/{analysis.name}/predictions_missing.csv",
                    )

    def facts(self, asked: SizesOptions, corpus: Corpus, cells: Sequence[Cell]) -> Mapping[str, Any]:
        """Record how many samples the whole of train has; with folds, also if runs learn from it."""
        whole = {"train_samples": len(corpus.split("train"))}
        learned = any(not each.config.subset.size for each in cells)
        return {**whole, "whole_in_folds": True} if asked.folds and learned else whole

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Methods by sizes for each metric with a table of its own, complete and at each missing rate; of the
        first metric also differences from the first method, and scores on valid.
        """
        yield from of_each_target(grid, self._of_target)

    def _of_target(self, grid: Grid) -> Iterator[ResultTable]:
        leading = headline(grid.task)
        rates = tuple(dict.fromkeys(rate for _, rate in map(_size_and_rate, grid.columns)))
        for metric in tabled(grid.task):
            for rate in rates:
                yield _scores(grid, metric, rate)
        if len(grid.rows) > 1:
            yield _differences(grid, leading)
        yield _valid(grid, leading)

    def figures(self, tables: Sequence[ResultTable]) -> Files:
        """Scores over the size, a plot for each table of scores."""
        files: Files = {}
        if why_no_plots():
            return files
        for table in tables:
            if not any(column.endswith(_P_VALUE) for column in table.columns):
                files |= drawn(table.name, _curves(table))
        return files


def _started(asked: SizesOptions, base: RunConfig, corpus: Corpus, *, column: str) -> Cell:
    """The model, from the weights of the run whose turn it is."""
    start = StartConfig(run=asked.pretrained[base.seed % len(asked.pretrained)])
    run = pinned_start(base.model_copy(update={"start": start}))
    weights = planned_start(run, corpus)  # refuses a run of which nothing fits
    if asked.pretrained_rate != 1:
        fit = run.fit.model_copy(update={"rates": weights.rates(asked.pretrained_rate)})
        run = run.model_copy(update={"fit": fit})
    return cell(f"{base.model}, {PRETRAINED}", run, corpus, column=column)


def _rates(asked: SizesOptions, corpus: Corpus) -> tuple[float, ...]:
    """Missing rates that differ."""
    if not asked.missing_rates:
        return ()
    return MissingOptions(rates=asked.missing_rates).rates_for(corpus)


def _size_and_rate(column: str) -> tuple[str, str]:
    """Size and missing rate of a column of the grid; an empty rate where nothing is missing."""
    size, _, rate = column.partition(", ")
    return size, rate


def _columns_at(grid: Grid, rate: str) -> dict[str, str]:
    """Size to the column of the grid at that rate."""
    found = {column: _size_and_rate(column) for column in grid.columns}
    return {size: column for column, (size, at) in found.items() if at == rate}


def _fixed(grid: Grid, size: str) -> tuple[str, ...]:
    """Methods that no seed changes: of a part of train every seed draws another one."""
    if grid.plan.folds and not grid.plan.whole_in_folds:
        return ()
    return tuple(REFERENCES) if int(size) == grid.plan.train_samples else ()


def _scores(grid: Grid, metric: str, rate: str) -> ResultTable:
    """Methods by sizes on test, with what is missing at a rate."""
    places = _columns_at(grid, rate)
    columns = {
        size: metric_column(grid, metric, column, fixed=_fixed(grid, size)) for size, column in places.items()
    }
    how = f" with {rate} of modalities missing" if rate else ""
    first = next(iter(columns))
    return table_of(
        grid,
        f"sizes-{metric}" + (f"-missing-{rate.split()[0].replace('.', '_')}" if rate else ""),
        f"{metric} on {grid.corpus} by training samples, test{how}",
        columns,
        row_label="method",
        caption=f"Columns are {_OVER}, of {grid.plan.train_samples}."
        if not grid.plan.folds
        else f"Columns are {_OVER} of each fold.",
        notes=[*notes_on(grid, columns, metric, at=first), *_notes(grid, len(columns[first].seeds))],
    )


def _notes(grid: Grid, seeds: int) -> Iterator[str]:
    """Notes on the draw, where so many seeds are compared."""
    draws = "Each seed draws other samples" if seeds > 1 else "The seed draws samples"
    counted = (
        "So intervals and tests over seeds are over the draw of training samples too."
        if seeds > 1
        else "Intervals and tests take no account of what another draw would give."
    )
    yield (
        f"{draws} of train, the same for all methods, and a smaller size is a part of a larger one. {counted}"
    )
    if grid.plan.settings["cut_valid"]:
        yield "The valid split is cut in the same proportion."
    if runs := grid.plan.settings.get("pretrained"):
        whose = "one run" if len(runs) == 1 else f"{len(runs)} runs, which seeds take in turn"
        rate = grid.plan.settings.get("pretrained_rate", 1.0)
        how = "" if rate == 1 else f", which learn at {rate:g} of the learning rate"
        yield (
            f"Rows that end in {PRETRAINED!r} start from the weights of {whose}{how}. Intervals and tests"
            " take no account of how else those might have come out."
        )


def _differences(grid: Grid, metric: str) -> ResultTable:
    """Each row minus the first at every size."""
    full, *rows = grid.rows
    columns = {
        size: metric_column(grid, metric, place, fixed=_fixed(grid, size))
        for size, place in _columns_at(grid, "").items()
    }
    parts = [list(differences(column, full, rows)) for column in columns.values()]
    seeds = max(len(column.seeds) for column in columns.values())
    return ResultTable(
        name=f"sizes-{metric}-difference",
        title=f"{metric} on {grid.corpus} by training samples: each row minus {full}, test",
        row_label="method",
        rows=tuple(rows),
        columns=tuple(name for size in columns for name in (size, f"{size}{_P_VALUE}")),
        entries=tuple(
            tuple(entry for part in parts for entry in part[number]) for number in range(len(rows))
        ),
        notes=(
            *on_differences(list(columns.values()), metric),
            *_notes(grid, seeds),
            *of_groups(grid),
        ),
    )


def _valid(grid: Grid, metric: str) -> ResultTable:
    """Methods by sizes on valid."""
    values: dict[str, dict[str, list[float]]] = {row: {} for row in grid.rows}
    for row in grid.rows:
        for size, place in _columns_at(grid, "").items():
            for _, scores in sorted(grid.scores(row, place, "valid", metric).items()):
                values[row].setdefault(size, []).append(float(np.mean(scores)))
    table = plain_table(
        f"sizes-{metric}-valid",
        f"{metric} on {grid.corpus} by training samples, valid",
        values,
        row_label="method",
        bounds=RANGES[metric],
        caption="Scores of the epoch that was chosen by them, which are too good.",
    )
    seeds = max((len(each) for by_size in values.values() for each in by_size.values()), default=0)
    shown = ((metric, each) for by_size in values.values() for scores in by_size.values() for each in scores)
    return table.model_copy(update={"notes": (*table.notes, *_notes(grid, seeds), *dashes(shown))})


def _curves(table: ResultTable) -> "Figure":
    """A line per row over the size, which is logarithmic, with intervals as bands; single modalities are
    dotted, references dashed, the first row is the thickest. A row without scores has no line.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    sizes = [int(size) for size in table.columns]
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.subplots()
        for number, (row, entries) in enumerate(zip(table.rows, table.entries, strict=True)):
            if not any(entries):
                continue
            colour = COLOURS[number % len(COLOURS)]
            known = [each or Entry(values=(), mean=None) for each in entries]
            axes.plot(
                sizes,
                _with_gaps([each.mean for each in known]),
                marker=MARKERS[number % len(MARKERS)],
                color=colour,
                linestyle="--" if row in REFERENCES else ":" if row.endswith(" alone") else "-",
                linewidth=1.2 if number else 2.5,
                label=row,
            )
            low, high = (_with_gaps([getattr(each, end) for each in known]) for end in ("low", "high"))
            axes.fill_between(sizes, low, high, color=colour, alpha=0.1, linewidth=0)
        axes.set(xscale="log", xlabel=_OVER, title=table.title)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axes.grid(visible=True, alpha=0.25)
        if any(map(any, table.entries)):
            figure.legend(fontsize="small", loc="outside right upper")
    return figure


def _with_gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
