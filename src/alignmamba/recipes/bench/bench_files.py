"""Files of a benchmark: results as JSON, tables as Markdown and CSV, plots where matplotlib is installed."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alignmamba.extras import lacking
from alignmamba.files import replace_file
from alignmamba.recipes.bench.bench_tables import (
    clock,
    markdown,
    measured_table,
    notes,
    report_values,
    shown_table,
    slopes_table,
)
from alignmamba.recipes.bench.measurement import Report, Row
from alignmamba.recipes.run_directory import to_csv, to_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS = ("alignmamba", "windowed")
"""Peers that are drawn in front."""
MARKERS = "osv^DXPp<>*dhH8x"
COLOURS = (
    *("#1f5fbf", "#b5480b", "#0b7a5c", "#8a3fa0", "#856500", "#b3245f", "#1e7890", "#444444"),
    *("#7db3ff", "#ff9d5c", "#4fd1a5", "#d29bea", "#e0bd4f", "#ff8db8", "#6fd0e6", "#a9b1bb"),
)
"""One per peer; the last is that of the others beside ours."""

Files = dict[str, bytes]
"""Name to content."""


def why_no_plots() -> str:
    """The reason why no plot is drawn, empty if there is none."""
    return lacking("bench")


def write_report(report: Report, directory: Path) -> list[str]:
    """Write what was measured of a subject, replacing earlier files; returns their names."""
    lengths = dict.fromkeys(row.length for row in report.rows)
    peers = dict.fromkeys(f"- {row.peer}: {row.what}\n" for row in report.rows)
    parts = [f"# {report.config.subject}\n\n{settings_note(report)}\n"]
    parts += [f"## {length} tokens\n\n{markdown(shown_table(report, length))}" for length in lengths]
    if report.slopes:
        fitted = "Exponents of the power laws in length that fit best."
        parts.append(f"## Growth\n\n{fitted}\n\n{markdown(slopes_table(report))}")
    parts.append("".join(peers))
    if notes(report):
        parts.append("".join(f"- {line}\n" for line in notes(report)))
    files = {
        "results.json": to_json(report_values(report)).encode(),
        "table.md": "\n".join(parts).encode(),
        "table.csv": to_csv(measured_table(report)).encode(),
    }
    if not why_no_plots():
        if "time" in report.config.measure:
            seconds = by_peer(report, lambda row: row.seconds.median if row.seconds else None)
            files |= drawn("time", curves(seconds, f"seconds ({clock(report)})"))
        if "memory" in report.config.measure:
            files |= drawn("memory", curves(bytes_by_peer(report), "peak memory above the inputs, MB"))
    for name, content in files.items():
        replace_file(directory / name, content)
    return list(files)


def settings_note(report: Report) -> str:
    """One sentence: with which settings, and by which clock, a report was measured."""
    config = report.config
    mode = "one forward and backward pass" if config.training else "inference"
    return (
        f"{config.device}, {config.threads} thread{'s' if config.threads > 1 else ''}, {config.dtype}, batch"
        f" {config.batch}, width {config.d_model}, depth {config.depth}, {config.heads} heads, state"
        f" {config.d_state}, window {config.window}, {config.landmarks} landmarks; {mode}; time is"
        f" {clock(report)}; memory is the peak above weights and inputs."
    )


# Plots


def by_peer(report: Report, value: Callable[[Row], float | None]) -> dict[str, list[tuple[int, float]]]:
    """Peer to lengths and values, where they were measured."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in report.rows:
        if (measured := value(row)) is not None:
            found.setdefault(row.peer, []).append((row.length, measured))
    return found


def bytes_by_peer(report: Report) -> dict[str, list[tuple[int, float]]]:
    """Peer to lengths and peak memory in MB."""
    return by_peer(report, lambda row: row.peak_bytes / 1e6 if row.peak_bytes else None)


def _blank() -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    return figure, figure.subplots()


def curves(points: Mapping[str, list[tuple[int, float]]], unit: str) -> "Figure":
    """One line per peer over the length, both axes logarithmic; a bar per peer for one length."""
    if len({length for line in points.values() for length, _ in line}) == 1:
        return _one_length(points, unit)
    figure, axes = _blank()
    for number, (peer, line) in enumerate(points.items()):
        lengths, values = zip(*line, strict=True)
        ours = peer in OURS
        mark, colour = MARKERS[number % len(MARKERS)], COLOURS[number % len(COLOURS)]
        axes.plot(lengths, values, marker=mark, color=colour, linewidth=2.5 if ours else 1.2, label=peer)
    axes.set(xlabel="tokens", ylabel=unit)
    if points:
        axes.set(xscale="log", yscale="log")
        ticks = sorted({length for line in points.values() for length, _ in line})
        axes.set_xticks(ticks, [f"{length:,}" for length in ticks], rotation=30)
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        figure.set_size_inches(9, 4.5)
        figure.legend(fontsize="small", loc="outside right upper")
    axes.grid(visible=True, which="both", alpha=0.25)
    return figure


def _one_length(points: Mapping[str, list[tuple[int, float]]], unit: str) -> "Figure":
    """A bar per peer with its number, the smallest on top; the axis is logarithmic."""
    figure, axes = _blank()
    values = sorted(((line[0][1], peer) for peer, line in points.items()), reverse=True)
    figure.set_size_inches(7, 1.2 + 0.32 * len(values))
    bars = axes.barh(
        [peer for _, peer in values],
        [value for value, _ in values],
        color=[COLOURS[0] if peer in OURS else COLOURS[-1] for _, peer in values],
    )
    axes.bar_label(bars, [f"{value:.3g}" for value, _ in values], padding=3, fontsize="small")
    least, most = values[-1][0], values[0][0]
    axes.set(
        xscale="log",
        xlim=(least / 2, most * 2),
        xlabel=f"{unit}, at {next(iter(points.values()))[0][0]:,} tokens",
    )
    axes.grid(visible=True, axis="x", which="major", alpha=0.25)
    axes.set_axisbelow(True)
    return figure


def paired_bars(ratios: Mapping[str, Mapping[str, float | None]], unit: str) -> "Figure":
    """Two bars per peer, one for each of two kinds of ratios of the same peers; none where one is unknown."""
    figure, axes = _blank()
    for offset, (kind, by_peer) in zip((-0.2, 0.2), ratios.items(), strict=True):
        places = [place + offset for place in range(len(by_peer))]
        axes.barh(places, [ratio or 0 for ratio in by_peer.values()], height=0.4, label=kind)
    names = list(next(iter(ratios.values())))
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel=unit)
    axes.legend(fontsize="small")
    return figure


def drawn(name: str, figure: "Figure") -> Files:
    """A plot as SVG and PNG."""
    files = {}
    for kind in ("svg", "png"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
        files[f"{name}.{kind}"] = buffer.getvalue()
    return files
