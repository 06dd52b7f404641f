"""Table 4: how far apart aligned modalities are."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from alignmamba.contracts import Corpus
from alignmamba.errors import ConfigError
from alignmamba.evaluation.proxy_distance import proxy_a_distance
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.methods import METHODS
from alignmamba.ops import masked_mean
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.experiments.cells import Analysis, Cell, cell
from alignmamba.recipes.experiments.experiment import Experiment, ExperimentConfig, changed, test_batches
from alignmamba.recipes.experiments.grid import Grid, read_facts
from alignmamba.recipes.finished_run import LoadedRun
from alignmamba.recipes.run_directory import to_json


class Distance(Experiment):
    """Variants by pairs of modalities."""

    name: ClassVar[str] = "distance"

    def cells(self, asked: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Table 4: the model and those of its ablations that change its alignment."""
        del asked
        analyses = [Analysis(kind="distance")]
        yield cell("full", base, corpus, analyses=analyses)
        for row, changes in METHODS[base.model].network.ablations.items():
            if "model" not in changes:
                yield cell(row, changed(base, changes), corpus, analyses=analyses)

    def analyse(self, run: LoadedRun, analysis: Analysis, out: Path) -> None:
        """Write the distances of a run."""
        del analysis
        write_distance(run, out)

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Variants by pairs of modalities."""
        found: dict[str, dict[str, list[float]]] = {}
        for row in grid.rows:
            for _, key in sorted(grid.keys(row, "").items()):
                told = read_facts(
                    grid.directory.run_path(key) / "analysis" / "distance" / "distance.json", _Distances
                )
                for pair, each in told.pairs.items():
                    found.setdefault(pair, {}).setdefault(row, []).append(each.distance)
        yield ResultTable(
            name="distance",
            title=f"Proxy A-distance between aligned modalities on {grid.corpus}, test",
            caption=(
                "2 (1 - 2 e), e the held-out error of a linear classifier that tells the modalities apart: 2"
                " if it always can, 0 if not."
            ),
            row_label="variant",
            rows=grid.rows,
            columns=tuple(found),
            entries=tuple(
                tuple(
                    Entry.of_seeds(by_row[row], bounds=(-2.0, 2.0)) if by_row.get(row) else None
                    for by_row in found.values()
                )
                for row in grid.rows
            ),
        )


def write_distance(run: LoadedRun, out: Path) -> None:
    """Proxy A-distance between every pair of aligned modalities on the test split, as ``distance.json``.

    A sample's tokens of a modality count by their mean; samples that lack either modality of a pair are left
    out.

    Raises:
        ConfigError: If the model does not align.
    """
    config, corpus, model = run.config, run.corpus, run.model
    means: dict[str, list[NDArray[np.float64]]] = {}
    present: dict[str, list[NDArray[np.bool_]]] = {}
    with torch.no_grad():
        for batch in test_batches(corpus):
            aligned = model.aligned_streams(batch)
            if aligned is None:
                raise ConfigError(
                    f"run {run.directory.path}: model {config.model!r} aligns no streams whose distance could"
                    " be measured"
                )
            for name, tokens in aligned.items():
                means.setdefault(name, []).append(masked_mean(tokens.x, tokens.mask).double().numpy())
                present.setdefault(name, []).append(tokens.mask.any(1).numpy())
    vectors = {name: np.concatenate(parts) for name, parts in means.items()}
    there = {name: np.concatenate(parts) for name, parts in present.items()}
    pairs = {}
    for first, second in combinations(vectors, 2):
        both = there[first] & there[second]
        pairs[f"{first}-{second}"] = asdict(
            proxy_a_distance(vectors[first][both], vectors[second][both], seed=config.seed)
        )
    (out / "distance.json").write_text(to_json({"split": "test", "pairs": pairs}), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class _Apart:
    distance: float


@dataclass(frozen=True, kw_only=True)
class _Distances:
    """Of ``distance.json``."""

    pairs: dict[str, _Apart]
