"""Table 4: how far apart aligned modalities are."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray

from alignmamba.contracts import Corpus
from alignmamba.errors import ConfigError
from alignmamba.evaluation.proxy_distance import proxy_a_distance
from alignmamba.evaluation.tables import ResultTable
from alignmamba.ops import masked_mean
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.experiments.cells import Analysis, Cell
from alignmamba.recipes.experiments.columns import plain_table
from alignmamba.recipes.experiments.experiment_kind import (
    GridExperiment,
    GridOptions,
    refuse_one_modality,
    refuse_unaligned,
    test_batches,
    variants,
)
from alignmamba.recipes.experiments.grid import Grid
from alignmamba.recipes.finished_run import LoadedRun
from alignmamba.recipes.run_directory import to_json

FILE: Final = "distance.json"
FOLDS: Final = 5
"""Parts of the test samples, one of which is held out from the classifier that distinguishes modalities."""


class DistanceOptions(GridOptions):
    """Options of the distance between modalities."""


class Distance(GridExperiment[DistanceOptions, Analysis]):
    """Variants by pairs of modalities."""

    name: ClassVar[str] = "distance"
    title: ClassVar[str] = "Distance between modalities"
    summary: ClassVar[str] = "the distance between aligned modalities"
    options = DistanceOptions
    analysis = Analysis

    def cells(self, asked: DistanceOptions, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Table 4: the model and those of its ablations that change its alignment."""
        del asked
        refuse_unaligned(base)
        refuse_one_modality(self.name, corpus)
        _refuse_few(corpus)
        yield from variants(base, corpus, analyses=(Analysis(kind=self.name),), same_model=True)

    def analyse(self, run: LoadedRun, analysis: Analysis, out: Path) -> None:
        """Write the proxy A-distance of every pair of aligned modalities on test, of the mean tokens of
        samples that have both; a `ConfigError` if the model does not align.
        """
        del analysis
        vectors, present = _means_of_tokens(run)
        pairs = {}
        for first, second in combinations(vectors, 2):
            both = present[first] & present[second]
            found = proxy_a_distance(
                vectors[first][both], vectors[second][both], seed=run.config.seed, folds=FOLDS
            )
            pairs[f"{first}-{second}"] = asdict(found)
        (out / FILE).write_text(to_json({"split": "test", "pairs": pairs}), encoding="utf-8")

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Variants by pairs of modalities."""
        found: dict[str, dict[str, list[float]]] = {row: {} for row in grid.rows}
        for row, told in grid.analysed(self.name, FILE, _Distances):
            for pair, each in told.pairs.items():
                found[row].setdefault(pair, []).append(each.distance)
        yield plain_table(
            "distance",
            f"Proxy A-distance between aligned modalities on {grid.corpus}, test",
            found,
            row_label="variant",
            bounds=(-2.0, 2.0),
            caption=(
                "2 (1 - 2 e), e the held-out error of a linear classifier that tells the modalities apart: 2"
                " if it always can, 0 if not. Of few test samples it says little."
            ),
        )


def _refuse_few(corpus: Corpus) -> None:
    """Refuse a test split with too few samples that have both of a pair."""
    lengths = corpus.split("test").lengths
    for first, second in combinations(lengths, 2):
        both = int(((lengths[first] > 0) & (lengths[second] > 0)).sum())
        if both < FOLDS:
            raise ConfigError(
                f"distance: test has {both} samples with both {first!r} and {second!r}, expected {FOLDS} or"
                " more"
            )


def _means_of_tokens(
    run: LoadedRun,
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.bool_]]]:
    """(samples, channel) means of each aligned modality on test, and (samples,) which have any."""
    means: dict[str, list[NDArray[np.float64]]] = {}
    present: dict[str, list[NDArray[np.bool_]]] = {}
    with torch.no_grad():
        for batch in test_batches(run.corpus):
            aligned = run.model.aligned_streams(batch)
            if aligned is None:
                raise ConfigError(
                    f"run {run.stored.path}: model {run.config.model!r} aligns no streams whose distance"
                    " could be measured"
                )
            for name, tokens in aligned.items():
                means.setdefault(name, []).append(masked_mean(tokens.x, tokens.mask).double().numpy())
                present.setdefault(name, []).append(tokens.mask.any(1).numpy())
    return (
        {name: np.concatenate(parts) for name, parts in means.items()},
        {name: np.concatenate(parts) for name, parts in present.items()},
    )


@dataclass(frozen=True, kw_only=True)
class _Apart:
    """Distance of a pair of modalities."""

    distance: float


@dataclass(frozen=True, kw_only=True)
class _Distances:
    """Content of ``distance.json``."""

    pairs: dict[str, _Apart]
