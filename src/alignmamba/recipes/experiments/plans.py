"""Figure 5: transport plans, and how close in true time matched tokens lie."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field

from alignmamba.contracts import Batch, Corpus, Plan, Predictions
from alignmamba.data.standardise import fit_standardisation
from alignmamba.errors import ConfigError
from alignmamba.evaluation.sample_errors import sample_errors
from alignmamba.evaluation.tables import ResultTable
from alignmamba.methods import METHODS
from alignmamba.models.alignmamba import AlignMambaConfig
from alignmamba.models.network import Network, merged
from alignmamba.nn.alignment import Tokens
from alignmamba.ops import match_in_order
from alignmamba.recipes.assembly import seed_everything, untrained_network
from alignmamba.recipes.configuration import RunConfig, model_config
from alignmamba.recipes.experiments.cells import Analysis, Cell, cell
from alignmamba.recipes.experiments.columns import metrics_table, plain_table
from alignmamba.recipes.experiments.experiment_kind import (
    GridExperiment,
    GridOptions,
    refuse_one_modality,
    refuse_unaligned,
    test_batches,
)
from alignmamba.recipes.experiments.grid import Grid
from alignmamba.recipes.finished_run import LoadedRun
from alignmamba.recipes.transport_plans import (
    CONTENT_ALONE,
    UNALIGNED,
    as_ablation,
    on_content_alone,
    shown_plans,
    token_count,
    token_times,
    token_words,
)
from alignmamba.training.inference import probable

FILE: Final = "plans.json"
CLOSE_SECONDS: Final = (0.1, 0.2, 0.5)
"""A matched pair counts as close where the true times of its tokens differ by no more."""
SAMPLES_SHOWN: Final = 6
TRAINED: Final = ", trained"
"""End of the name of a way that depends on training."""

Shares = dict[str, float]
"""Measure to share of matched pairs."""


class PlansOptions(GridOptions):
    """Options of the transport plans."""

    samples: Annotated[tuple[str, ...], Field(title="ID ...")] = ()
    """Test samples to show, by default those predicted best and worst; with folds, of any split."""


class PlansAnalysis(Analysis):
    """Transport plans of some samples, and how close in time all matched pairs lie."""

    samples: tuple[str, ...] = ()
    """Samples whose plans are kept; empty means the most showing ones."""

    @property
    def name(self) -> str:
        """Name of its folder in the cell: another for other samples."""
        digest = hashlib.sha256("\n".join(self.samples).encode()).hexdigest()
        return f"{self.kind}-{digest[:8]}" if self.samples else self.kind


class Plans(GridExperiment[PlansOptions, PlansAnalysis]):
    """Ways of matching by closeness in true time, one table per pair of modalities that know it."""

    name: ClassVar[str] = "plans"
    title: ClassVar[str] = "Transport plans"
    summary: ClassVar[str] = "transport plans, and how far apart in true time matched tokens are"
    without_tables: ClassVar[str] = ", as no two modalities of test have times"
    options = PlansOptions
    analysis = PlansAnalysis

    def check(self, asked: PlansOptions, corpus: Corpus) -> None:
        """Refuse samples that no run is tested on."""
        _refuse_untested(asked.samples, corpus, folds=asked.folds)

    def cells(self, asked: PlansOptions, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Figure 5: the model's transport plans, and those of the same without the contrast if it has one."""
        refuse_unaligned(base)
        refuse_one_modality(self.name, corpus)
        config = model_config(base, corpus)
        if isinstance(config, AlignMambaConfig) and config.local.method not in ("match", "soft"):
            found = config.local.method
            raise ConfigError(
                f"options.local.method: found {found!r}, expected 'match' or 'soft', which make plans"
            )
        analyses = [PlansAnalysis(kind=self.name, samples=asked.samples)]
        yield cell("full", base, corpus, analyses=analyses)
        if isinstance(config, AlignMambaConfig) and config.contrast.weight:
            options = merged(base.options, {"contrast": {"weight": 0.0}})
            without = base.model_copy(update={"options": options})
            yield cell("w/o contrast", without, corpus, analyses=analyses)

    def analyse(self, run: LoadedRun, analysis: PlansAnalysis, out: Path) -> None:
        """Write transport plans of samples, and how close in time all matched pairs lie, as ``plans.json``; a
        `ConfigError` if the model makes no plans, or a sample is not in the test split.
        """
        config, corpus, model = run.config, run.corpus, run.model
        _refuse_untested(analysis.samples, corpus, folds=config.folds.number)
        test, batches = corpus.split("test"), list(test_batches(corpus))
        with torch.no_grad():
            errors = _errors_of_plans(run, batches)
            chosen = dict.fromkeys(analysis.samples, "asked for") or _telling(test.ids, errors)
            # Of folds, each shows those of the samples that it is tested on.
            places = {identity: row for row, identity in enumerate(test.ids)}
            why = {places[identity]: reason for identity, reason in chosen.items() if identity in places}
            shown = [asdict(plan) for plan in shown_plans(config, corpus, model, test, why)]
            close = _closeness(config, corpus, model, batches)
        found = json.dumps({"samples": shown, "close": close}, ensure_ascii=False)
        (out / FILE).write_text(f"{found}\n", encoding="utf-8")

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Ways of matching by closeness in true time, one table per pair of modalities that know it; before
        them the scores, where there are several variants.
        """
        if len(grid.rows) > 1 and not grid.plan.unlearned:
            yield metrics_table(grid, f"Scores beside the plans on {grid.corpus}, test", row_label="variant")
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        for row, told in grid.analysed(self.name, FILE, _Plans):
            for pair, by_way in told.close.items():
                ways = found.setdefault(pair, {})
                for way, shares in by_way.items():
                    if row != grid.rows[0]:
                        if not way.endswith(TRAINED):  # the rest is the same for all variants
                            continue
                        way = f"{way} {row}"
                    for measure, share in shares.items():
                        ways.setdefault(way, {}).setdefault(measure, []).append(share)
        for pair, ways in found.items():
            yield plain_table(
                f"plans-{pair}",
                f"Share of matched {pair} pairs that belong together in true time on {grid.corpus}, test",
                ways,
                row_label="matching",
                bounds=(0.0, 1.0),
            )


# --- samples ------------------------------------------------------------------------------------------------


def _refuse_untested(samples: Sequence[str], corpus: Corpus, *, folds: int) -> None:
    """Refuse samples that neither the test split has nor, with folds, any other: each is tested in one."""
    splits = corpus.splits.values() if folds else (corpus.split("test"),)
    known = {identity for split in splits for identity in split.ids}
    unknown = [identity for identity in samples if identity not in known]
    if unknown:
        where = "any split" if folds else "the test split"
        raise ConfigError(f"samples: {unknown[0]!r} is not in {where} of corpus {corpus.name!r}")


def _errors_of_plans(run: LoadedRun, batches: Sequence[Batch]) -> NDArray[np.float64]:
    """(samples,) errors of predictions of a model that makes plans; a `ConfigError` if it makes none."""
    errors, plans = [], False
    for batch in batches:
        output = run.model(batch, return_plans=True)
        plans = plans or bool(output.plans)
        said = probable(output.prediction, run.corpus.task.kind)
        assert batch.targets is not None
        found = Predictions(ids=batch.ids, prediction=said, targets=batch.targets.numpy())
        errors.append(sample_errors(run.corpus.task, found))
    if not plans:
        raise ConfigError(
            f"run {run.stored.path}: model {run.config.model!r} makes no plans with these settings"
        )
    return np.concatenate(errors)


def _telling(ids: Sequence[str], errors: NDArray[np.float64]) -> dict[str, str]:
    """The samples that are predicted best and worst, each with the reason for which it is shown."""
    order = np.argsort(errors, kind="stable")
    half = min(SAMPLES_SHOWN // 2, len(order) // 2) or 1
    best = {ids[row]: "among the best predicted" for row in order[:half]}
    return best | {
        ids[row]: "among the worst predicted" for row in order[::-1][:half] if ids[row] not in best
    }


# --- how close matched pairs lie ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One modality of one sample, as far as closeness is concerned."""

    times: NDArray[np.float64]
    """(tokens,), in seconds."""
    words: NDArray[np.str_] | None
    """(tokens,), empty where a token has none."""

    @classmethod
    def of(cls, model: Network[Any], batch: Batch, name: str, row: int) -> "Side":
        """Times of a modality that knows its true times."""
        sequences = batch.modalities[name]
        times, words = token_times(model, sequences, name), token_words(model, sequences, name, row)
        assert times is not None
        length = token_count(model, batch, name, row)
        return cls(times[row, :length].numpy(), None if words is None else np.array(words))


@dataclass
class Counts:
    """Number of close pairs, by measure."""

    pairs: int = 0
    close: dict[float, int] = field(default_factory=lambda: dict.fromkeys(CLOSE_SECONDS, 0))
    worded: int = 0
    same_word: int = 0

    def add(self, here: Side, there: Side, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Count pairs of tokens `first` of one side and `second` of the other."""
        apart = np.abs(here.times[first] - there.times[second])
        self.pairs += len(apart)
        for seconds in CLOSE_SECONDS:
            self.close[seconds] += int((apart <= seconds + 1e-9).sum())
        if here.words is not None and there.words is not None:
            spoken = here.words[first] != ""
            self.worded += int(spoken.sum())
            self.same_word += int((spoken & (here.words[first] == there.words[second])).sum())

    def shares(self) -> Shares:
        """Shares of all pairs counted."""
        shares = {f"within {seconds:g} s": count / self.pairs for seconds, count in self.close.items()}
        return shares | ({"same word": self.same_word / self.worded} if self.worded else {})


@dataclass(frozen=True)
class Sample:
    """The two sides of a pair of modalities in one sample that knows the true times of both."""

    row: int
    """Place in its batch."""
    source: Side
    anchor: Side


def _closeness(
    config: RunConfig, corpus: Corpus, model: Network[Any], batches: Sequence[Batch]
) -> dict[str, dict[str, Shares]]:
    """Pair of modalities to way of matching to shares of matched pairs close in time and, of tokens with
    words, of the same word; empty where no pair knows its true times.
    """
    anchor, *names = model.config.anchors
    states = {"trained": model, "untrained": _untrained(config, corpus)}
    variants, ordered = _variants(config, states), _ordered(config, states)
    found = {name: {way: Counts() for way in (*variants, *ordered, *_WITHOUT_A_MODEL)} for name in names}
    for batch in batches:
        samples = {name: list(_samples(model, batch, name, anchor)) for name in names}
        if not any(samples.values()):
            continue
        for way, variant in variants.items():
            plans = variant(batch, return_plans=True).plans or {}
            for name in names:
                if name in plans:
                    _add_matched(found[name][way], samples[name], plans[name])
        for way, unaligned in ordered.items():
            streams = unaligned.aligned_streams(batch) or {}
            for name in names:
                if {name, anchor} & set(unaligned.config.timeless):
                    add_in_order(found[name][way], samples[name], streams[name], streams[anchor])
        for way, matching in _WITHOUT_A_MODEL.items():
            for name in names:
                for each in samples[name]:
                    found[name][way].add(each.source, each.anchor, *matching(each))
    closeness = {
        f"{name}-{anchor}": {way: counts.shares() for way, counts in by_way.items() if counts.pairs}
        for name, by_way in found.items()
    }
    return {pair: by_way for pair, by_way in closeness.items() if by_way}


def _variants(config: RunConfig, states: Mapping[str, Network[Any]]) -> Mapping[str, Network[Any]]:
    """Each state of the model by its own cost and, where it can, by content alone."""
    ways = {f"own cost, {state}": each for state, each in states.items()}
    if CONTENT_ALONE in METHODS[config.model].network.ablations:
        for state, each in states.items():
            twin = on_content_alone(config, each)
            ways[f"{CONTENT_ALONE}, {state}"] = each if twin is None else twin
    return ways


def _ordered(config: RunConfig, states: Mapping[str, Network[Any]]) -> Mapping[str, Network[Any]]:
    """Each state of a model that looks away from times and can give its tokens as they are encoded."""
    if UNALIGNED not in METHODS[config.model].network.ablations:
        return {}
    ways = {}
    for state, each in states.items():
        if each.config.timeless:
            twin = as_ablation(config, each, UNALIGNED)
            ways[f"{CONTENT_ALONE} in order, {state}"] = each if twin is None else twin
    return ways


def _untrained(config: RunConfig, corpus: Corpus) -> Network[Any]:
    """The same model with its first weights; what the data alone decides, the standardisation, is kept."""
    seed_everything(config.seed)
    fresh = untrained_network(config, corpus)
    fresh.standardise(fit_standardisation(corpus.split("train"), corpus.modalities, corpus.task))
    return fresh.eval()


def _samples(model: Network[Any], batch: Batch, name: str, anchor: str) -> Iterator[Sample]:
    """Samples that have both modalities and know the true times of both."""
    known = torch.ones(len(batch), dtype=torch.bool)
    for sequences in (batch.modalities[name], batch.modalities[anchor]):
        if sequences.times is None:
            return
        known &= sequences.mask.any(1) & (sequences.times.isfinite() | ~sequences.mask).all(1)
    for row in known.nonzero().flatten().tolist():
        yield Sample(row, Side.of(model, batch, name, row), Side.of(model, batch, anchor, row))


def _add_matched(counts: Counts, samples: Sequence[Sample], plan: Plan) -> None:
    """Count what a model matched in samples of a batch."""
    for each in samples:
        sides = (each.source, each.anchor)
        here, there = sides if plan.marginal == "source" else sides[::-1]
        index = plan.index[each.row, : len(here.times)].numpy()
        matched = np.flatnonzero(index >= 0)
        counts.add(here, there, matched, index[matched])


def add_in_order(counts: Counts, samples: Sequence[Sample], source: Tokens, anchor: Tokens) -> None:
    """Count what the best way through both sequences in their order matches, by content alone."""
    for each in samples:
        row, pair = slice(each.row, each.row + 1), [(source, each.source), (anchor, each.anchor)]
        if len(each.source.times) < len(each.anchor.times):
            pair.reverse()
        (longer, here), (shorter, there) = pair
        index = match_in_order(
            F.normalize(longer.x[row], dim=2),
            F.normalize(shorter.x[row], dim=2),
            longer.mask[row],
            shorter.mask[row],
        )
        found = index[0, : len(here.times)].numpy()
        matched = np.flatnonzero(found >= 0)
        counts.add(here, there, matched, found[matched])


Matching = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Places of tokens of the source, and of the anchor's tokens that they are matched with."""


def _proportional(sample: Sample) -> Matching:
    """Each token of the source with the anchor's at the same share of the sequence."""
    first = np.arange(len(sample.source.times))
    return first, np.rint(np.linspace(0, len(sample.anchor.times) - 1, len(first))).astype(np.int64)


def _by_chance(sample: Sample) -> Matching:
    """Every token of the source with every one of the anchor."""
    first, second = np.indices((len(sample.source.times), len(sample.anchor.times))).reshape(2, -1)
    return first, second


_WITHOUT_A_MODEL: Final[Mapping[str, Callable[[Sample], Matching]]] = {
    "proportional time": _proportional,
    "chance": _by_chance,
}


@dataclass(frozen=True, kw_only=True)
class _Plans:
    """Content of ``plans.json``: pair, way of matching and measure to a share."""

    close: dict[str, dict[str, Shares]]
