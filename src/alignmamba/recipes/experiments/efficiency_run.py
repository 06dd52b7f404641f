"""Measuring the efficiency experiment, and its files where a report finds them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from alignmamba.evaluation.tables import ResultTable
from alignmamba.files import replace_file
from alignmamba.recipes.assembly import environment
from alignmamba.recipes.bench.bench_files import why_no_plots
from alignmamba.recipes.bench.measurement import BenchConfig, Say
from alignmamba.recipes.experiments.efficiency import (
    Efficiency,
    EfficiencyOptions,
    figure_parts,
    paper_figures,
)
from alignmamba.recipes.experiments.grid_directory import PLAN, ExperimentDirectory
from alignmamba.recipes.run_directory import make_directory, to_json

IDENTITY: Final[Mapping[str, Any]] = {
    "experiment": Efficiency.name,
    "corpus": {"name": "random sequences", "checksum": ""},
}
"""Facts that distinguish its directory from that of another experiment."""


def plan_efficiency(
    asked: EfficiencyOptions, settings: Mapping[str, Any], *, out: Path
) -> dict[str, BenchConfig]:
    """Settings of each part that `run_efficiency` measures, in the order of the work; nothing is measured or
    written. Refuses a place with something else.
    """
    ExperimentDirectory(out).refuse_other(IDENTITY)
    return figure_parts(Efficiency().config(asked, settings))


def run_efficiency(
    asked: EfficiencyOptions,
    settings: Mapping[str, Any],
    *,
    out: Path,
    command: Sequence[str],
    say: Say,
) -> list[ResultTable]:
    """Measure Figures 3 and 4 and the operations of section 4.3.3, and write tables and figures to the
    directory, each time again.
    """
    plan_efficiency(asked, settings, out=out)
    make_directory(out)
    if why_no_plots():
        say(f"no plots will be drawn: {why_no_plots()}")
    experiment = Efficiency()
    figures = paper_figures(experiment.config(asked, settings), say)
    (out / "figures").mkdir(exist_ok=True)
    for name, content in experiment.files(figures).items():
        replace_file(out / "figures" / name, content)
    tables = experiment.tables(figures)
    for table in tables:
        table.write(out / "tables")
    replace_file(out / PLAN, to_json(_facts(command)).encode())
    return tables


def _facts(command: Sequence[str]) -> dict[str, Any]:
    """Record in ``experiment.json``: no runs, no task that anything was trained on."""
    return {
        **IDENTITY,
        "command": list(command),
        "environment": environment(),
        "data": "",
        "task": {"kind": "regression", "classes": [], "label_range": None},
        "metrics": [],
        "seeds": [],
        "cells": [],
    }
