"""Measurements as tables for people and as plain values for programs."""

from dataclasses import asdict
from typing import Any

from alignmamba.evaluation.computing_cost import Spread
from alignmamba.recipes.assembly import environment
from alignmamba.recipes.bench.measurement import Report

Table = dict[str, list[Any]]
"""Column name to values, all of one length."""


def clock(report: Report) -> str:
    """Meaning of the seconds of a report."""
    return "time between CUDA events" if report.config.device == "cuda" else "process CPU time of all threads"


def report_values(report: Report) -> dict[str, Any]:
    """A report as JSON values: settings, machine, rows, slopes."""
    return {
        "subject": report.config.subject,
        "baseline": report.baseline,
        "clock": clock(report),
        "settings": report.config.model_dump(mode="json"),
        "memory_limit_bytes": report.memory_limit_bytes,
        "environment": environment(),
        "rows": [asdict(row) for row in report.rows],
        "slopes": [asdict(slope) for slope in report.slopes],
    }


def measured_table(report: Report) -> Table:
    """Every row with every quantity, in seconds, bytes and operations."""
    columns: dict[str, list[Any]] = {}
    for row in report.rows:
        values: dict[str, Any] = {"length": row.length, "peer": row.peer, "state": row.state}
        for name, spread in (("seconds", row.seconds), ("wall_seconds", row.wall_seconds)):
            for statistic in ("median", "least", "most"):
                values[f"{name}_{statistic}"] = getattr(spread, statistic, None)
        values |= {
            "repeats": getattr(row.seconds, "count", None),
            "time_ratio": row.time_ratio,
            "peak_bytes": row.peak_bytes,
            "memory_ratio": row.memory_ratio,
            "flops": row.flops,
            "flops_counted": row.flops_counted,
            "parameters": row.num_parameters,
            "what": row.what,
            "note": row.reason,
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    return columns


def shown_table(report: Report, length: int) -> Table:
    """The rows of one length in readable units, a dash for what is missing."""
    rows = [row for row in report.rows if row.length == length]
    table: Table = {"peer": [row.peer for row in rows]}
    if "time" in report.config.measure:
        table["median"] = [_duration(row.seconds) for row in rows]
        table["least–most"] = [_range(row.seconds) for row in rows]
        if report.config.device == "cuda" or report.config.threads > 1:
            table["wall"] = [_duration(row.wall_seconds) for row in rows]
        table["× time"] = [_ratio(row.time_ratio) for row in rows]
    if "memory" in report.config.measure:
        table["peak MB"] = [_scaled(row.peak_bytes, 1e6) for row in rows]
        table["× memory"] = [_ratio(row.memory_ratio) for row in rows]
    table["GFLOP"] = [_scaled(row.flops, 1e9) for row in rows]
    table["counted"] = [_scaled(row.flops_counted, 1e9) for row in rows]
    table["weights"] = [
        f"{_number(row.num_parameters / 1e6)}M" if row.num_parameters else "-" for row in rows
    ]
    return table


def slopes_table(report: Report) -> Table:
    """Exponents of growth."""
    return {
        "peer": [slope.peer for slope in report.slopes],
        "time": [_scaled(slope.time, 1) for slope in report.slopes],
        "memory": [_scaled(slope.memory, 1) for slope in report.slopes],
        "at tokens": [", ".join(map(str, slope.lengths)) for slope in report.slopes],
    }


def notes(report: Report) -> list[str]:
    """A line for all that was not measured, and why."""
    lines = dict.fromkeys(
        f"{row.peer}{'' if row.state == 'unavailable' else f' at {row.length} tokens'}: {row.state}:"
        f" {row.reason}"
        for row in report.rows
        if row.state != "measured"
    )
    lines |= dict.fromkeys(
        f"{row.peer} at {row.length} tokens: {row.reason}"
        for row in report.rows
        if row.state == "measured" and row.reason
    )
    repeats = report.config.repeats
    lines |= dict.fromkeys(
        f"{row.peer} at {row.length} tokens: slow, so {row.seconds.count} rounds in place of {repeats}"
        for row in report.rows
        if row.seconds and row.seconds.count < repeats
    )
    return list(lines)


def markdown(table: Table) -> str:
    """A table in Markdown."""
    header = f"| {' | '.join(table)} |\n|{'---|' * len(table)}\n"
    return header + "".join(f"| {' | '.join(map(str, row))} |\n" for row in zip(*table.values(), strict=True))


def _duration(spread: Spread | None) -> str:
    return "-" if spread is None else _in_unit(spread.median, spread.median)


def _range(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{_in_unit(spread.least, spread.median).partition(' ')[0]}–{_in_unit(spread.most, spread.median)}"


def _in_unit(value: float, like: float) -> str:
    """Seconds in the unit that suits `like`."""
    scale, unit = (1, "s") if like >= 1 else (1e3, "ms") if like >= 1e-3 else (1e6, "us")
    return f"{_number(scale * value)} {unit}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{_number(value)}×"


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else _number(value / unit)


def _number(value: float) -> str:
    """Three significant digits, never in exponents."""
    return (
        f"{value:.0f}"
        if abs(value) >= 100
        else f"{value:.3g}"
        if abs(value) >= 1e-4 or value == 0
        else f"{value:.6f}"
    )
