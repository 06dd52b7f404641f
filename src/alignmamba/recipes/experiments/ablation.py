"""Table 3: the model without its parts, and without each modality."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import ClassVar

from alignmamba.contracts import Corpus
from alignmamba.errors import DataError
from alignmamba.evaluation.statistics import Standing, compare_to
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.methods import METHODS
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.experiments.cells import Cell, cell
from alignmamba.recipes.experiments.experiment import Experiment, ExperimentConfig, changed, with_modalities
from alignmamba.recipes.experiments.grid import (
    RESAMPLES,
    Grid,
    combined,
    headline,
    metric_column,
    metrics_table,
)


class Ablation(Experiment):
    """Variants by metrics, then what each part is worth."""

    name: ClassVar[str] = "ablation"

    def cells(self, asked: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Table 3: the model, its own ablations, and the model without each modality; the anchor falls back
        by itself.
        """
        del asked
        yield cell("full", base, corpus)
        for row, changes in METHODS[base.model].network.ablations.items():
            yield cell(row, changed(base, changes), corpus)
        names = [modality.name for modality in corpus.modalities]
        if len(names) > 1:
            for left_out in names:
                yield from with_modalities(
                    f"w/o {left_out}", base, corpus, tuple(name for name in names if name != left_out)
                )

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Variants by metrics, then what each part is worth: the variant minus the full model."""
        yield metrics_table(grid, f"Ablation of variants on {grid.corpus}, test", row_label="variant")
        metric = headline(grid.task)
        column = metric_column(grid, metric)
        full, *variants = grid.rows
        standings: Mapping[str, Standing] = {}
        if full in column.methods and column.seeds:
            with suppress(DataError):  # as for the marks of a column
                standings = compare_to(
                    full,
                    {row: column.scores(row, column.seeds) for row in column.methods},
                    resamples=RESAMPLES,
                )
        least, most = combined([column, column], [1.0, -1.0], higher_is_better=True).bounds
        entries: list[tuple[Entry | None, ...]] = []
        for row in variants:
            told = standings[row].to_best if row in standings else None
            if told is None:
                entries.append((None, None))
                continue
            values = [column.values[row][seed] - column.values[full][seed] for seed in column.seeds]
            ends = {"low": max(told.low, least), "high": min(told.high, most), "seeds": tuple(column.seeds)}
            p_value = Entry(values=(), mean=standings[row].adjusted_p_value)
            entries.append((Entry.of_seeds(values).model_copy(update=ends), p_value))
        yield ResultTable(
            name="ablation-difference",
            title=(
                f"What each part is worth on {grid.corpus}: {metric} of the variant minus that of the full"
                " model, test"
            ),
            row_label="variant",
            rows=tuple(variants),
            columns=(f"{metric}, difference", "p value (Holm)"),
            entries=tuple(entries),
            notes=(
                (
                    "Intervals and p values are those of a paired test over seeds and samples; what"
                    " differences vary by over seeds is pooled over all variants."
                ),
            ),
        )
