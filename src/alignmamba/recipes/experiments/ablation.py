"""Table 3: the model without its parts, and without each modality."""

from collections.abc import Iterator
from typing import ClassVar

from alignmamba.contracts import Corpus
from alignmamba.evaluation.tables import ResultTable
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.experiments.cells import Analysis, Cell
from alignmamba.recipes.experiments.columns import (
    differences,
    headline,
    metric_column,
    metrics_table,
    of_each_target,
    of_groups,
    on_differences,
)
from alignmamba.recipes.experiments.experiment_kind import (
    GridExperiment,
    GridOptions,
    variants,
    with_modalities,
)
from alignmamba.recipes.experiments.grid import Grid


class AblationOptions(GridOptions):
    """Options of the ablation."""


class Ablation(GridExperiment[AblationOptions, Analysis]):
    """Variants by metrics, then what each part is worth."""

    name: ClassVar[str] = "ablation"
    title: ClassVar[str] = "Ablation"
    summary: ClassVar[str] = "the model without each of its parts"
    options = AblationOptions
    analysis = Analysis

    def cells(self, asked: AblationOptions, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Table 3: the model, its ablations, and the model without each modality."""
        del asked
        yield from variants(base, corpus)
        names = [modality.name for modality in corpus.modalities]
        if len(names) > 1:
            for left_out in names:
                others = tuple(name for name in names if name != left_out)
                yield from with_modalities(f"w/o {left_out}", base, corpus, others)

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Variants by metrics, then what each part is worth: the variant minus the full model."""
        yield from of_each_target(grid, self._scores)

    def _scores(self, grid: Grid) -> Iterator[ResultTable]:
        yield metrics_table(grid, f"Ablation of variants on {grid.corpus}, test", row_label="variant")
        metric = headline(grid.task)
        column = metric_column(grid, metric)
        full, *rows = grid.rows
        yield ResultTable(
            name="ablation-difference",
            title=(
                f"What each part is worth on {grid.corpus}: {metric} of the variant minus that of the full"
                " model, test"
            ),
            row_label="variant",
            rows=tuple(rows),
            columns=(f"{metric}, difference", "p value (Holm)"),
            entries=tuple(differences(column, full, rows)),
            notes=(*on_differences([column], metric), *of_groups(grid)),
        )
