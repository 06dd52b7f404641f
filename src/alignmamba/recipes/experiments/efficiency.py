"""The paper's efficiency analysis as an experiment: measured by `recipes.bench`, laid down where a report
finds it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.files import replace_file
from alignmamba.recipes.assembly import environment
from alignmamba.recipes.bench.bench_files import check_directory, why_no_plots, write_figures
from alignmamba.recipes.bench.bench_tables import notes
from alignmamba.recipes.bench.figures import FLOPS_LENGTH, Figures, figure_parts, paper_figures, paper_ratio
from alignmamba.recipes.bench.measurement import BenchConfig, Row, Say
from alignmamba.recipes.experiments.grid_directory import PLAN, ExperimentDirectory
from alignmamba.recipes.run_directory import to_json


def plan_efficiency(out: Path, *, lengths: Sequence[int]) -> dict[str, BenchConfig]:
    """Check and lay out what `run_efficiency` measures; nothing is measured or written.

    Args:
        out: Directory of the experiment.
        lengths: Tokens per modality; empty means the paper's.

    Returns:
        Part to its settings, in the order of the work.

    Raises:
        CheckpointError: If something else lies at `out`.
        ConfigError: If it cannot be measured here.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        ExperimentDirectory(out).refuse_other(_facts([]))
    return figure_parts(_config(lengths))


def run_efficiency(
    out: Path, *, lengths: Sequence[int], command: Sequence[str], say: Say
) -> list[ResultTable]:
    """Measure Figures 3 and 4 and the operations of section 4.3.3, and write tables and figures.

    Args:
        out: Directory of the experiment; measured anew each time.
        lengths: Tokens per modality; empty means the paper's.
        command: What the user typed, for the record.
        say: Called with a line whenever a part begins.

    Raises:
        CheckpointError: If something else lies at `out`.
        ConfigError: If it cannot be measured here.
    """
    plan_efficiency(out, lengths=lengths)
    check_directory(out)
    if why_no_plots():
        say(f"no plots will be drawn: {why_no_plots()}")
    figures = paper_figures(_config(lengths), say)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    write_figures(figures, out / "figures")
    tables = list(figure_tables(figures))
    for table in tables:
        table.write(out / "tables")
    replace_file(out / PLAN, to_json(_facts(command)).encode())
    return tables


def _config(lengths: Sequence[int]) -> BenchConfig:
    return BenchConfig.checked(subject="model", lengths=tuple(lengths))


def _facts(command: Sequence[str]) -> dict[str, Any]:
    return {
        "experiment": "efficiency",
        "command": list(command),
        "environment": environment(),
        "corpus": {"name": "random sequences", "checksum": ""},
        "data": "",
        "task": {"kind": "regression", "classes": [], "label_range": None},
        "metrics": [],
        "seeds": [],
        "cells": [],
    }


def figure_tables(figures: Figures) -> list[ResultTable]:
    """One table per part: what was measured, what it is of AlignMamba's, and what the paper's figures are of
    each other.
    """
    lengths = list(dict.fromkeys(row.length for row in figures.memory.rows))
    memory = {
        f"MB at {length}": _by_peer(figures.memory.rows, length, lambda row: _over(row.peak_bytes, 1e6))
        for length in lengths
    }
    told = figures.told_length
    memory[f"× AlignMamba at {told}"] = _by_peer(figures.memory.rows, told, lambda row: row.memory_ratio)
    passes = {
        "seconds a pass": _by_peer(
            figures.passes.rows, None, lambda row: None if row.seconds is None else row.seconds.median
        ),
        "× AlignMamba": _by_peer(figures.passes.rows, None, lambda row: row.time_ratio),
    }
    ours = figures.flops.rows[0].flops
    flops = {
        "GFLOP": _by_peer(figures.flops.rows, None, lambda row: row.flops / 1e9),
        "× AlignMamba": _by_peer(figures.flops.rows, None, lambda row: row.flops / ours),
    }
    parts = (
        ("memory", "Peak memory (Figure 3)", memory, "MB above weights and inputs, by tokens per modality"),
        (
            "passes",
            "Time of inference (Figure 4)",
            passes,
            f"one pass over three modalities of {figures.passes_length} tokens each",
        ),
        ("flops", "Operations (section 4.3.3)", flops, f"by formula, at {FLOPS_LENGTH} tokens per modality"),
    )
    return [
        _table(
            part,
            title,
            {**columns, "paper: × AlignMamba": _paper(part, columns)},
            caption,
            notes(getattr(figures, part)),
        )
        for part, title, columns, caption in parts
    ]


Cells = dict[str, float | None]
"""Peer to number."""


def _by_peer(rows: Sequence[Row], length: int | None, value: Callable[[Row], float | None]) -> Cells:
    return {row.peer: value(row) for row in rows if length is None or row.length == length}


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _paper(part: str, columns: Mapping[str, Cells]) -> Cells:
    return {peer: paper_ratio(part, peer) for peer in next(iter(columns.values()))}


def _table(
    name: str, title: str, columns: Mapping[str, Cells], caption: str, said: Sequence[str]
) -> ResultTable:
    peers = tuple(next(iter(columns.values())))
    return ResultTable(
        name=f"efficiency-{name}",
        title=title,
        caption=caption,
        row_label="method",
        rows=peers,
        columns=tuple(columns),
        digits=2,
        entries=tuple(tuple(_entry(cells.get(peer)) for cells in columns.values()) for peer in peers),
        notes=(
            *said,
            "The paper states neither width nor depth and ran on a GPU: only ratios can be compared.",
        ),
    )


def _entry(value: float | None) -> Entry | None:
    return None if value is None else Entry(values=(value,), mean=value)
