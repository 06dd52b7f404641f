"""Table 1: methods at every missing rate."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from alignmamba.contracts import Corpus
from alignmamba.data.missing_protocols import MissingConfig
from alignmamba.evaluation.metrics import HIGHER_IS_BETTER, metric_names
from alignmamba.evaluation.tables import ResultTable
from alignmamba.models.pretrained import validated
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.experiments.cells import Analysis, Cell, cell
from alignmamba.recipes.experiments.experiment import Experiment, ExperimentConfig, of_model
from alignmamba.recipes.experiments.grid import (
    TOLD,
    Grid,
    combined,
    metric_column,
    noise,
    read_facts,
    table_of,
    weights_note,
    whose_settings,
)
from alignmamba.recipes.finished_run import LoadedRun, missing_tables, score_missing
from alignmamba.recipes.run_directory import METRICS, to_json, write_table


class Missing(Experiment):
    """Methods by missing rates, the mean over the rates, and what is lost from the first to the last."""

    name: ClassVar[str] = "missing"
    compares_methods: ClassVar[bool] = True

    def cells(self, asked: ExperimentConfig, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Table 1: every model at every missing rate, trained at that rate or once on all of them."""
        for name in asked.models:
            config = of_model(base, name, own_settings=asked.own_settings)
            for rate in rates_of(asked, corpus):
                column = f"{100 * rate:g} %"
                missing = _withheld(asked, rate)
                if asked.mixed:
                    trained = _withheld(asked, rates_of(asked, corpus))
                    analysis = Analysis(kind="missing", missing=missing)
                    yield cell(
                        name,
                        config.model_copy(update={"missing": trained}),
                        corpus,
                        column=column,
                        analyses=[analysis],
                        predictions=f"analysis/{analysis.name}/predictions_missing.csv",
                    )
                else:
                    yield cell(
                        name,
                        config.model_copy(update={"missing": missing}),
                        corpus,
                        column=column,
                    )

    def analyse(self, run: LoadedRun, analysis: Analysis, out: Path) -> None:
        """Write scores on test with modalities withheld."""
        write_missing(run, out, missing=analysis.missing)

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Methods by missing rates, the mean over the rates, and what is lost from the first to the last."""
        for metric in (each for each in TOLD if each in metric_names(grid.task)):
            better = HIGHER_IS_BETTER[metric]
            rates = {name: metric_column(grid, metric, name) for name in grid.columns}
            columns = dict(rates)
            if len(rates) > 1:
                every = list(rates.values())
                columns["average"] = combined(every, [1 / len(every)] * len(every), higher_is_better=better)
                # A method that is poor throughout loses little, so that the smallest drop is no merit by
                # itself.
                columns["drop"] = combined(
                    [every[0], every[-1]],
                    [1, -1] if better else [-1, 1],
                    higher_is_better=False,
                    marked=False,
                )
            first = next(iter(rates))
            yield table_of(
                grid,
                f"missing-{metric}",
                f"{metric} on {grid.corpus} with modalities missing, test, protocol"
                f" {grid.plan['settings']['protocol']}",
                columns,
                row_label="method",
                caption=(
                    f"Columns are nominal missing rates; drop is what is lost from {first} to"
                    f" {list(rates)[-1]}."
                ),
                notes=[
                    *noise(grid, rates[first], metric, first),
                    *_effective(grid),
                    *whose_settings(grid),
                    *weights_note(grid, first),
                ],
            )


def rates_of(experiment: ExperimentConfig, corpus: Corpus) -> tuple[float, ...]:
    """The missing rates that differ: from 1 - 1/M on, GCNet's rule keeps one of M modalities, and a higher
    rate changes nothing.
    """
    if experiment.protocol != "gcnet":
        return experiment.rates
    most = 1 - 1 / len(corpus.modalities)
    beyond = [rate for rate in experiment.rates if rate >= most - 1e-9]
    return tuple(rate for rate in experiment.rates if rate < most - 1e-9 or rate == min(beyond))


def _withheld(experiment: ExperimentConfig, rate: float | tuple[float, ...]) -> MissingConfig:
    return validated(MissingConfig, {"protocol": experiment.protocol, "rate": rate})


def write_missing(run: LoadedRun, out: Path, *, missing: MissingConfig) -> None:
    """Scores of a finished run on test with modalities withheld, as ``metrics.json``, with the predictions
    and what was withheld.
    """
    scores = score_missing(run, missing)
    for name, table in missing_tables(scores, run.corpus.task).items():
        write_table(out / f"{name}.csv", table)
    facts = {**missing.model_dump(mode="json"), "effective_rate": scores.effective_rate, "seed": scores.seed}
    (out / METRICS).write_text(to_json({"metrics": scores.metrics, "missing": facts}), encoding="utf-8")


def _effective(grid: Grid) -> list[str]:
    """One sentence: the share that was really withheld on test at each nominal rate, mean over what is
    finished.
    """
    found: dict[str, list[float]] = {}
    for entry in grid.plan["cells"]:
        if entry["key"] not in grid.finished:
            continue
        run = grid.directory.run_path(entry["key"])
        place = (run / entry["predictions"]).parent
        rate = read_facts(place / METRICS, _Scored).missing.effective_rate
        found.setdefault(entry["column"], []).append(rate if isinstance(rate, float) else rate.test)
    told = ", ".join(f"{100 * float(np.mean(rates)):.1f} % at {name}" for name, rates in found.items())
    left_out = [f"{100 * rate:g} %" for rate in grid.plan.get("rates_left_out", ())]
    trained = (
        "trained once on all rates mixed"
        if grid.plan["settings"]["mixed"]
        else "trained and selected at each rate"
    )
    notes = [f"Really withheld on test: {told}. Models are {trained}."] if told else []
    if left_out:
        notes.append(f"{', '.join(left_out)} would withhold no more: one modality of each sample is kept.")
    return notes


@dataclass(frozen=True, kw_only=True)
class _OfTest:
    test: float


@dataclass(frozen=True, kw_only=True)
class _Withheld:
    effective_rate: float | _OfTest


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """Of the ``metrics.json`` beside scores with modalities withheld."""

    missing: _Withheld
