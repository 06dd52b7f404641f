"""Table 2: methods beside each other, and every modality alone."""

from collections.abc import Iterator
from typing import ClassVar

from alignmamba.contracts import Corpus
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.experiments.cells import Cell, cell
from alignmamba.recipes.experiments.experiment import Experiment, ExperimentConfig, of_model, with_modalities
from alignmamba.recipes.experiments.grid import Grid, metrics_table, trained_weights


class Comparison(Experiment):
    """Methods by metrics, then what each of them costs."""

    name: ClassVar[str] = "comparison"
    compares_methods: ClassVar[bool] = True

    def cells(self, asked: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Table 2: every model with all modalities, then each modality alone."""
        for name in asked.models:
            yield cell(name, of_model(base, name, own_settings=asked.own_settings), corpus)
        if len(corpus.modalities) > 1:
            for modality in corpus.modalities:
                yield from with_modalities(f"{modality.name} alone", base, corpus, (modality.name,))

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Methods by metrics, then what each of them costs."""
        yield metrics_table(grid, f"Comparison of methods on {grid.corpus}, test", row_label="method")
        rows: list[tuple[Entry | None, ...]] = []
        for row in grid.rows:
            keys = dict(sorted(grid.keys(row, "").items()))
            if not keys:
                rows.append((None, None))
                continue
            weights = trained_weights(grid.directory.run_path(next(iter(keys.values()))))
            spent = Entry.of_seeds([grid.seconds[key] for key in keys.values()]).model_copy(
                update={"seeds": tuple(keys)}
            )
            rows.append((Entry(values=(), mean=weights), spent))
        yield ResultTable(
            name="comparison-cost",
            title=f"What methods cost on {grid.corpus}",
            row_label="method",
            rows=grid.rows,
            columns=("trained weights", "training seconds"),
            entries=tuple(rows),
            digits=0,
            notes=(
                (
                    "Seconds are those of the epochs with their validation; what else ran on the machine"
                    " meanwhile is in them."
                ),
            ),
        )
