"""Table 2: methods beside each other, and every modality alone."""

from collections.abc import Iterator
from typing import ClassVar

from alignmamba.contracts import Corpus
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.methods import REFERENCES
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.experiments.cells import Analysis, Cell, ExperimentRecord, cell
from alignmamba.recipes.experiments.columns import metrics_table
from alignmamba.recipes.experiments.experiment_kind import (
    GridExperiment,
    MethodsOptions,
    of_model,
    with_modalities,
)
from alignmamba.recipes.experiments.grid import Grid


class ComparisonOptions(MethodsOptions):
    """Options of the comparison."""

    without_references: bool = False
    """Drop the rows of the best constant and of a linear model on pooled statistics."""


class Comparison(GridExperiment[ComparisonOptions, Analysis]):
    """Methods by metrics, then what each of them costs."""

    name: ClassVar[str] = "comparison"
    title: ClassVar[str] = "Comparison of methods"
    summary: ClassVar[str] = "every fusion model, every modality alone, and references"
    options = ComparisonOptions
    analysis = Analysis

    def cells(self, asked: ComparisonOptions, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Table 2: every model with all modalities, then each modality alone."""
        last = () if asked.without_references else REFERENCES
        for name in (each for each in asked.models if each not in last):
            yield cell(name, of_model(base, name, own_settings=asked.own_settings), corpus)
        if len(corpus.modalities) > 1:
            for modality in corpus.modalities:
                yield from with_modalities(f"{modality.name} alone", base, corpus, (modality.name,))
        for name in last:
            yield cell(name, of_model(base, name), corpus)

    def as_begun(self, asked: ComparisonOptions, begun: ExperimentRecord) -> ComparisonOptions:
        """Options without references, where an earlier version began without them."""
        known = "without_references" in begun.settings
        return asked if known else asked.model_copy(update={"without_references": True})

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Methods by metrics, then what each of them costs."""
        yield metrics_table(grid, f"Comparison of methods on {grid.corpus}, test", row_label="method")
        yield ResultTable(
            name="comparison-cost",
            title=f"What methods cost on {grid.corpus}",
            row_label="method",
            rows=grid.rows,
            columns=("trained weights", "training seconds"),
            entries=tuple(_cost(grid, row) for row in grid.rows),
            digits=0,
            notes=(
                "Seconds are those of the epochs with their validation, of the seed that took least."
                " Whatever else ran on the machine meanwhile is in them.",
            ),
        )


def _cost(grid: Grid, row: str) -> tuple[Entry | None, Entry | None]:
    """Trained weights of a method, and seconds of its training under the seed that took least."""
    runs = [grid.runs[key] for key in grid.keys(row, "").values()]
    if not runs:
        return None, None
    least = min(run.seconds for run in runs)
    return Entry(values=(), mean=runs[0].weights), Entry(values=(), mean=least)
