"""Figure 5: transport plans, and how close in true time matched tokens lie."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignmamba.contracts import Batch, Corpus
from alignmamba.data.standardise import fit_standardisation
from alignmamba.errors import ConfigError
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.methods import METHODS
from alignmamba.models.network import Network
from alignmamba.recipes.assembly import seed_everything, untrained_network
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.experiments.cells import Analysis, Cell, cell
from alignmamba.recipes.experiments.experiment import Experiment, ExperimentConfig, test_batches
from alignmamba.recipes.experiments.grid import Grid, read_facts
from alignmamba.recipes.finished_run import LoadedRun
from alignmamba.recipes.transport_plans import (
    CONTENT_ALONE,
    on_content_alone,
    shown_plans,
    token_count,
    token_times,
    token_words,
)

CLOSE_SECONDS: Final = (0.1, 0.2, 0.5)
"""A matched pair counts as close where the true times of its tokens differ by no more."""
SAMPLES_SHOWN: Final = 6


class Plans(Experiment):
    """Ways of matching by closeness in true time, one table per pair of modalities that know it."""

    name: ClassVar[str] = "plans"

    def cells(self, asked: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Figure 5: the model's transport plans."""
        yield cell("full", base, corpus, analyses=[Analysis(kind="plans", samples=asked.samples)])

    def analyse(self, run: LoadedRun, analysis: Analysis, out: Path) -> None:
        """Write the plans of telling samples, or of those that were asked for."""
        write_plans(run, out, samples=analysis.samples)

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Ways of matching by closeness in true time, one table per pair of modalities that know it."""
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        for row in grid.rows:
            for _, key in sorted(grid.keys(row, "").items()):
                told = read_facts(
                    grid.directory.run_path(key) / "analysis" / grid.analysis("plans") / "plans.json", _Plans
                )
                for pair, by_way in told.close.items():
                    for way, shares in by_way.items():
                        for measure, share in shares.items():
                            found.setdefault(pair, {}).setdefault(way, {}).setdefault(measure, []).append(
                                share
                            )
        for pair, ways in found.items():
            measures = tuple(dict.fromkeys(measure for shares in ways.values() for measure in shares))
            yield ResultTable(
                name=f"plans-{pair}",
                title=(
                    f"Share of matched {pair} pairs that belong together in true time on {grid.corpus}, test"
                ),
                row_label="matching",
                rows=tuple(ways),
                columns=measures,
                entries=tuple(
                    tuple(
                        Entry.of_seeds(shares[measure], bounds=(0.0, 1.0)) if measure in shares else None
                        for measure in measures
                    )
                    for shares in ways.values()
                ),
            )


def write_plans(run: LoadedRun, out: Path, *, samples: Sequence[str] = ()) -> None:
    """Transport plans of some test samples, and where true times are known, how close in time all matched
    pairs lie: ``plans.json``.

    Args:
        run: A finished run.
        out: Existing folder.
        samples: Ids of samples; by default the most telling ones: those predicted best and worst.

    Raises:
        ConfigError: If the model makes no plans, or a sample is not in the test split.
    """
    config, corpus, model = run.config, run.corpus, run.model
    test = corpus.split("test")
    unknown = [identity for identity in samples if identity not in test.ids]
    if unknown:
        raise ConfigError(f"samples: {unknown[0]!r} is not in the test split of corpus {corpus.name!r}")
    batches = list(test_batches(corpus))
    errors, plans = [], False
    with torch.no_grad():
        for batch in batches:
            output = model(batch, return_plans=True)
            if output.plans is None:
                break
            plans = plans or bool(output.plans)
            errors.append(_errors(corpus, batch, output.prediction))
        if not plans:
            raise ConfigError(
                f"run {run.directory.path}: model {config.model!r} makes no plans with these settings"
            )
        chosen = dict.fromkeys(samples, "asked for") or _telling(test.ids, np.concatenate(errors))
        rows = [test.ids.index(identity) for identity in chosen]
        shown = [
            {**each, "why": why}
            for each, why in zip(shown_plans(config, corpus, model, test, rows), chosen.values(), strict=True)
        ]
        close = _closeness(config, corpus, model, batches)
    (out / "plans.json").write_text(
        json.dumps({"samples": shown, "close": close}, ensure_ascii=False) + "\n", encoding="utf-8"
    )


# --- samples ------------------------------------------------------------------------------------------------


def _errors(corpus: Corpus, batch: Batch, prediction: Tensor) -> NDArray[np.float64]:
    """(batch,), how wrong each prediction is: absolute error, or one minus the probability of the true
    class.
    """
    assert batch.targets is not None
    if corpus.task.kind == "regression":
        return (prediction - batch.targets).abs().double().numpy()
    return 1 - prediction.double().softmax(1).gather(1, batch.targets.unsqueeze(1)).squeeze(1).numpy()


def _telling(ids: Sequence[str], errors: NDArray[np.float64]) -> dict[str, str]:
    """The samples that are predicted best and worst, each with the reason for which it is shown."""
    order = np.argsort(errors, kind="stable")
    half = min(SAMPLES_SHOWN // 2, len(order) // 2) or 1
    best = {ids[row]: "among the best predicted" for row in order[:half]}
    return best | {
        ids[row]: "among the worst predicted" for row in order[::-1][:half] if ids[row] not in best
    }


# --- how close matched pairs lie ----------------------------------------------------------------------------


def _closeness(
    config: RunConfig, corpus: Corpus, model: Network[Any], batches: Sequence[Batch]
) -> dict[str, dict[str, dict[str, float]]]:
    """Pair of modalities to way of matching to measure to share of matched pairs; empty where no pair knows
    its true times.

    Ways: the model's own cost and, where it has such a variant, content alone, each trained and untrained;
    tokens at proportional times; every pair evenly, which is chance. Measures: true times at most so many
    seconds apart, and where tokens have words, the same word, of the tokens that have one.
    """
    fresh = _untrained(config, corpus)
    ways = {"own cost, trained": model, "own cost, untrained": fresh}
    if CONTENT_ALONE in METHODS[config.model].network.ablations:
        alone = {
            "content alone, trained": on_content_alone(config, model),
            "content alone, untrained": on_content_alone(config, fresh),
        }
        ways |= {
            way: model if twin is None else twin
            for (way, twin), model in zip(alone.items(), (model, fresh), strict=True)
        }
    pairs: dict[str, dict[str, dict[str, float]]] = {}
    anchor = model.config.anchors[0]
    for name in model.config.anchors[1:]:
        counts: dict[str, _Shares] = {}
        for batch in batches:
            for row in _rows_with_times(batch, name, anchor):
                source, target = _Side.of(model, batch, name, row), _Side.of(model, batch, anchor, row)
                proportional = np.rint(np.linspace(0, len(target.times) - 1, len(source.times))).astype(
                    np.int64
                )
                counts.setdefault("proportional time", _Shares()).add(
                    source, target, np.arange(len(source.times)), proportional
                )
                every = np.indices((len(source.times), len(target.times))).reshape(2, -1)
                counts.setdefault("chance", _Shares()).add(source, target, every[0], every[1])
        if not counts:
            continue
        for way, variant in ways.items():
            shares = counts.setdefault(way, _Shares())
            for batch in batches:
                plan = (variant(batch, return_plans=True).plans or {}).get(name)
                if plan is None:
                    continue
                for row in _rows_with_times(batch, name, anchor):
                    source, target = _Side.of(model, batch, name, row), _Side.of(model, batch, anchor, row)
                    here, there = (source, target) if plan.marginal == "source" else (target, source)
                    index = plan.index[row, : len(here.times)].numpy()
                    matched = np.flatnonzero(index >= 0)
                    shares.add(here, there, matched, index[matched])
        pairs[f"{name}-{anchor}"] = {
            way: counts[way].means() for way in (*ways, "proportional time", "chance") if counts[way].pairs
        }
    return pairs


class _Side:
    """One modality of one sample, as far as closeness is concerned."""

    def __init__(self, times: NDArray[np.float64], words: list[str] | None) -> None:
        self.times = times
        self.words = None if words is None else np.array(words)

    @classmethod
    def of(cls, model: Network[Any], batch: Batch, name: str, row: int) -> "_Side":
        sequences = batch.modalities[name]
        times = token_times(model, sequences, name)
        assert times is not None
        return cls(
            times[row, : token_count(model, batch, name, row)].numpy(),
            token_words(model, sequences, name, row),
        )


class _Shares:
    """How many pairs were close, by each measure."""

    def __init__(self) -> None:
        self.pairs = 0
        self.close = dict.fromkeys(CLOSE_SECONDS, 0)
        self.worded = 0
        self.same_word = 0

    def add(self, here: _Side, there: _Side, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Count pairs of tokens `first` of one side and `second` of the other."""
        apart = np.abs(here.times[first] - there.times[second])
        self.pairs += len(apart)
        for seconds in CLOSE_SECONDS:
            self.close[seconds] += int((apart <= seconds + 1e-9).sum())
        if here.words is not None and there.words is not None:
            spoken = here.words[first] != ""
            self.worded += int(spoken.sum())
            self.same_word += int((spoken & (here.words[first] == there.words[second])).sum())

    def means(self) -> dict[str, float]:
        """Shares of all pairs counted."""
        shares = {f"within {seconds:g} s": count / self.pairs for seconds, count in self.close.items()}
        return shares | ({"same word": self.same_word / self.worded} if self.worded else {})


def _rows_with_times(batch: Batch, first: str, second: str) -> list[int]:
    """Samples that have both modalities and know the true times of both."""
    known = torch.ones(len(batch), dtype=torch.bool)
    for name in (first, second):
        sequences = batch.modalities[name]
        if sequences.times is None:
            return []
        known &= sequences.mask.any(1) & (sequences.times.isfinite() | ~sequences.mask).all(1)
    return [int(row) for row in known.nonzero().flatten()]


def _untrained(config: RunConfig, corpus: Corpus) -> Network[Any]:
    """The same model with its first weights; what the data alone decides, the standardisation, is kept."""
    seed_everything(config.seed)
    fresh = untrained_network(config, corpus)
    fresh.standardise(fit_standardisation(corpus.split("train"), corpus.modalities, corpus.task))
    return fresh.eval()


@dataclass(frozen=True, kw_only=True)
class _Plans:
    """Of ``plans.json``: pair, way of matching and measure to a share."""

    close: dict[str, dict[str, dict[str, float]]]
