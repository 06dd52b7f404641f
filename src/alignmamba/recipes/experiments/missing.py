"""Table 1: methods at every missing rate."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from alignmamba.contracts import Corpus
from alignmamba.data.missing_protocols import MissingConfig
from alignmamba.errors import ConfigError
from alignmamba.evaluation.metrics import HIGHER_IS_BETTER
from alignmamba.evaluation.tables import ResultTable
from alignmamba.recipes.configuration import RunConfig
from alignmamba.recipes.experiments.cells import Analysis, Cell, cell
from alignmamba.recipes.experiments.columns import (
    combined,
    metric_column,
    notes_on,
    of_each_target,
    table_of,
    tabled,
)
from alignmamba.recipes.experiments.experiment_kind import (
    GridExperiment,
    MethodsOptions,
    of_model,
    refuse_one_modality,
)
from alignmamba.recipes.experiments.grid import Grid
from alignmamba.recipes.finished_run import LoadedRun, missing_tables, score_missing
from alignmamba.recipes.run_directory import METRICS, to_json, write_table
from alignmamba.recipes.run_records import read_record

Rate = Annotated[float, Field(ge=0, lt=1)]


class MissingOptions(MethodsOptions):
    """Options of the experiment on missing modalities."""

    protocol: Literal["gcnet", "imder-sample", "imder-batch", "tokens"] = "gcnet"
    """Protocol by which modalities are withheld."""
    rates: Annotated[tuple[Rate, ...], Field(min_length=1, title="R ...")] = (
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
    )
    """Missing rates to measure."""
    mixed: bool = False
    """Train each model once on all rates mixed, then score it at each rate."""

    def withheld(self, rate: float | tuple[float, ...]) -> MissingConfig:
        """Modalities withheld at a rate, or at several mixed; a `ConfigError` if the protocol has no such
        rate.
        """
        return MissingConfig(protocol=self.protocol, rate=rate)

    def rates_for(self, corpus: Corpus) -> tuple[float, ...]:
        """Missing rates that differ: from 1 - 1/M on, GCNet's rule keeps one of M modalities."""
        if self.protocol != "gcnet":
            return self.rates
        most = 1 - 1 / len(corpus.modalities)
        beyond = [rate for rate in self.rates if rate >= most - 1e-9]
        return tuple(rate for rate in self.rates if rate < most - 1e-9 or rate == min(beyond))


class MissingAnalysis(Analysis):
    """Scores on test with modalities withheld."""

    missing: MissingConfig
    """Protocol of what is withheld."""

    @property
    def name(self) -> str:
        """Name of its folder in the cell."""
        return f"{self.missing.protocol}-{self.missing.rate}"


def rate_of(column: str) -> float | None:
    """The rate that a column such as ``10 %`` is about."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", column)
    return float(found[1]) / 100 if found else None


class Missing(GridExperiment[MissingOptions, MissingAnalysis]):
    """Methods by missing rates, the mean over the rates, and what is lost from the first to the last."""

    name: ClassVar[str] = "missing"
    title: ClassVar[str] = "Missing modalities"
    summary: ClassVar[str] = "every model at each missing rate"
    options = MissingOptions
    analysis = MissingAnalysis

    def cells(self, asked: MissingOptions, base: RunConfig, corpus: Corpus) -> Iterator[Cell]:
        """Table 1: every model at every missing rate, trained at that rate or once on all of them."""
        if base.missing.protocol != "none":
            raise ConfigError("missing: the grid gives every run its own; take --protocol and --rates")
        if asked.protocol != "tokens":
            refuse_one_modality("protocol", corpus, expected="two or more, or tokens")
        rates = asked.rates_for(corpus)
        for name in asked.models:
            config = of_model(base, name, own_settings=asked.own_settings)
            for rate in rates:
                missing, column = asked.withheld(rate), f"{100 * rate:g} %"
                if asked.mixed:
                    analysis = MissingAnalysis(kind=self.name, missing=missing)
                    yield cell(
                        name,
                        config.model_copy(update={"missing": asked.withheld(rates)}),
                        corpus,
                        column=column,
                        analyses=[analysis],
                        predictions=f"analysis/{analysis.name}/predictions_missing.csv",
                    )
                else:
                    yield cell(name, config.model_copy(update={"missing": missing}), corpus, column=column)

    def facts(self, asked: MissingOptions, corpus: Corpus, cells: Sequence[Cell]) -> Mapping[str, Any]:
        """Record the rates that change nothing."""
        del cells
        return {"rates_left_out": sorted(set(asked.rates) - set(asked.rates_for(corpus)))}

    def analyse(self, run: LoadedRun, analysis: MissingAnalysis, out: Path) -> None:
        """Write scores on test with modalities withheld, the predictions, and what was withheld."""
        missing = analysis.missing
        scores = score_missing(run, missing)
        for name, table in missing_tables(scores, run.corpus.task).items():
            write_table(out / f"{name}.csv", table)
        said = {**missing.model_dump(mode="json"), "effective_rate": scores.effective_rate}
        facts = {"metrics": scores.metrics, "missing": {**said, "seed": scores.seed}}
        (out / METRICS).write_text(to_json(facts), encoding="utf-8")

    def rates(self, table: ResultTable) -> Mapping[int, float]:
        """The missing rate of each column that is one."""
        rates = {place: rate_of(column) for place, column in enumerate(table.columns)}
        return {place: rate for place, rate in rates.items() if rate is not None}

    def tables(self, grid: Grid) -> Iterator[ResultTable]:
        """Methods by missing rates, the mean over the rates, and what is lost from the first to the last."""
        yield from of_each_target(grid, self._scores)

    def _scores(self, grid: Grid) -> Iterator[ResultTable]:
        for metric in tabled(grid.task):
            better = HIGHER_IS_BETTER[metric]
            columns = {name: metric_column(grid, metric, name) for name in grid.columns}
            first, last, rates = grid.columns[0], grid.columns[-1], list(columns.values())
            if len(rates) > 1:
                columns["average"] = combined(rates, [1 / len(rates)] * len(rates), higher_is_better=better)
                # A method that is poor throughout loses little, so that the smallest drop is no merit by
                # itself.
                weights = [1, -1] if better else [-1, 1]
                columns["drop"] = combined(
                    [rates[0], rates[-1]], weights, higher_is_better=False, marked=False
                )
            protocol = grid.plan.settings["protocol"]
            yield table_of(
                grid,
                f"missing-{metric}",
                f"{metric} on {grid.corpus} with modalities missing, test, protocol {protocol}",
                columns,
                row_label="method",
                caption=(f"Columns are nominal missing rates; drop is what is lost from {first} to {last}."),
                notes=notes_on(grid, columns, metric, at=first, more=_really_withheld(grid)),
            )


def _really_withheld(grid: Grid) -> list[str]:
    """The share that was withheld on test at each nominal rate, mean over what is finished."""
    found: dict[str, list[float]] = {}
    for each in grid.plan.cells:
        if each.key in grid.runs:
            folder = (grid.run_path(each.key) / each.predictions).parent
            rate = read_record(folder / METRICS, _Scored).missing.effective_rate
            found.setdefault(each.column, []).append(rate if isinstance(rate, float) else rate.test)
    told = ", ".join(f"{100 * float(np.mean(rates)):.1f} % at {name}" for name, rates in found.items())
    left_out = [f"{100 * rate:g} %" for rate in grid.plan.rates_left_out]
    mixed = grid.plan.settings["mixed"]
    trained = "trained once on all rates mixed" if mixed else "trained and selected at each rate"
    notes = [f"Really withheld on test: {told}. Models are {trained}."] if told else []
    if left_out:
        notes.append(f"{', '.join(left_out)} would withhold no more: one modality of each sample is kept.")
    return notes


@dataclass(frozen=True, kw_only=True)
class _OfTest:
    """A share of each split, of which the one of test counts."""

    test: float


@dataclass(frozen=True, kw_only=True)
class _Withheld:
    """Facts of what was withheld."""

    effective_rate: float | _OfTest


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """Part of ``metrics.json`` besides scores with modalities withheld."""

    missing: _Withheld
