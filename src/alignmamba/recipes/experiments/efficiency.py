"""The paper's efficiency analysis again (Li et al., arXiv 2412.00833): Figures 3 and 4 and section 4.3.3. It
states neither width nor depth and ran on a GPU: only ratios compare. Lengths are tokens per modality, of
three.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from alignmamba.contracts import Config
from alignmamba.errors import ConfigError
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.recipes.bench.bench_files import (
    Files,
    bytes_by_peer,
    curves,
    drawn,
    paired_bars,
    settings_note,
    why_no_plots,
)
from alignmamba.recipes.bench.bench_tables import measured_table, notes, report_values
from alignmamba.recipes.bench.measurement import BenchConfig, Report, Row, Say, measure, silent
from alignmamba.recipes.experiments.experiment_kind import Experiment
from alignmamba.recipes.run_directory import to_csv, to_json

FIGURE_LENGTHS = (800, 1600, 3200, 6400, 12_800, 25_600)
FLOPS_LENGTH = 1024
PASSES = 50

FIGURE_PEERS: Mapping[str, str | None] = {
    "alignmamba": "AlignMamba",
    "windowed": None,
    "transformer-materialised": "single-stream",
    "transformer-fused": None,
    "mult-materialised": "multi-stream",
    "mult-fused": None,
}
"""Peer to the method of the paper that it stands for; the paper has neither a window nor fused attention."""

FIXED = ("subject", "lengths", "measure")
"""Settings of a measurement that the paper decides."""
PAPER_LENGTH = 6400
"""Tokens at which the paper shows memory."""
PAPER: Mapping[str, Mapping[str, float]] = {
    "memory": {"AlignMamba": 8.53, "single-stream": 10.7, "multi-stream": 20.3},
    "passes": {"AlignMamba": 6.05, "single-stream": 36.13, "multi-stream": 48.61},
    "flops": {"AlignMamba": 46.7, "single-stream": 101.6, "multi-stream": 203.2},
}
"""The paper's figures."""
PAPER_UNITS: Mapping[str, str] = {
    "memory": f"GB at {PAPER_LENGTH} tokens",
    "passes": f"s for {PASSES} passes",
    "flops": f"GFLOP at {FLOPS_LENGTH} tokens",
}


class EfficiencyOptions(Config):
    """Options of the efficiency analysis."""

    lengths: Annotated[tuple[int, ...], Field(title="N ...")] = ()
    """Tokens per modality to measure, by default the paper's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The three parts."""

    memory: Report
    passes: Report
    flops: Report

    @property
    def told_length(self) -> int:
        """Tokens at which memory is put beside the paper's: 6400, or the nearest that was measured."""
        return _nearest_to_paper(row.length for row in self.memory.rows)

    @property
    def passes_length(self) -> int:
        """Tokens at which passes were timed."""
        return self.passes.rows[0].length


class Efficiency(Experiment[EfficiencyOptions]):
    """Time, memory and operations of AlignMamba beside its rivals; no grid of runs, and no corpus."""

    name: ClassVar[str] = "efficiency"
    title: ClassVar[str] = "Efficiency"
    summary: ClassVar[str] = "time, memory and operations; needs no corpus"
    options = EfficiencyOptions

    def config(self, asked: EfficiencyOptions, settings: Mapping[str, Any]) -> BenchConfig:
        """Measurement with settings by the names of `BenchConfig`; a `ConfigError` for one that the paper
        fixes.
        """
        for name in FIXED:
            if name in settings:
                raise ConfigError(
                    f"{name}: expected no such setting, as the paper fixes what is measured; take --lengths"
                )
        return BenchConfig.checked(subject="model", lengths=asked.lengths, **settings)

    def tables(self, figures: Figures) -> list[ResultTable]:
        """One table per part: measurements, their ratios to AlignMamba's, and the paper's ratios."""
        told = figures.told_length
        memory = {
            f"MB at {length}": _by_peer(figures.memory, _megabytes, length)
            for length in dict.fromkeys(row.length for row in figures.memory.rows)
        }
        memory[f"× AlignMamba at {told}"] = _by_peer(figures.memory, lambda row: row.memory_ratio, told)
        passes = {
            "seconds a pass": _by_peer(figures.passes, _seconds),
            "× AlignMamba": _by_peer(figures.passes, lambda row: row.time_ratio),
        }
        flops = {
            "GFLOP": _by_peer(figures.flops, lambda row: row.flops / 1e9),
            "× AlignMamba": _operations_over_ours(figures.flops),
        }
        timed = f"one pass over three modalities of {figures.passes_length} tokens each"
        counted = f"by formula, at {FLOPS_LENGTH} tokens per modality"
        captions = {
            "memory": ("Peak memory (Figure 3)", "MB above weights and inputs, by tokens per modality"),
            "passes": ("Time of inference (Figure 4)", timed),
            "flops": ("Operations (section 4.3.3)", counted),
        }
        columns = {"memory": memory, "passes": passes, "flops": flops}
        return [
            _table(part, *captions[part], getattr(figures, part), of_part)
            for part, of_part in columns.items()
        ]

    def files(self, figures: Figures) -> Files:
        """All that was measured, and plots of it where matplotlib is installed."""
        reports: dict[str, Report] = {part: getattr(figures, part) for part in PAPER}
        values = {
            "paper": {part: dict(values) for part, values in PAPER.items()},
            "stands_for": dict(FIGURE_PEERS),
            "passes": PASSES,
            **{f"{part}_report": report_values(report) for part, report in reports.items()},
        }
        tables = {f"{part}.csv": to_csv(measured_table(report)) for part, report in reports.items()}
        files = {name: text.encode() for name, text in {"results.json": to_json(values), **tables}.items()}
        if why_no_plots():
            return files
        times = {
            "measured here": _by_peer(figures.passes, lambda row: row.time_ratio),
            "in the paper": _by_peer(figures.passes, lambda row: paper_ratio("passes", row.peer)),
        }
        operations = {
            "measured here": _operations_over_ours(figures.flops),
            "in the paper": _by_peer(figures.flops, lambda row: paper_ratio("flops", row.peer)),
        }
        return {
            **files,
            **drawn("figure3", curves(bytes_by_peer(figures.memory), "peak memory above the inputs, MB")),
            **drawn("figure4", paired_bars(times, "time over AlignMamba")),
            **drawn("flops", paired_bars(operations, "operations over AlignMamba")),
        }


def figure_parts(config: BenchConfig) -> dict[str, BenchConfig]:
    """Settings of each part of the paper's analysis, in inference: memory at every length, time of 50 passes
    at the one nearest to 6400, operations at 1024. Raises a `ConfigError` for another subject or peer, or
    gradients.
    """
    if config.subject != "model":
        raise ConfigError(f"subject: found {config.subject!r}, expected 'model' as in the paper's figures")
    if config.training:
        raise ConfigError("training: found true, expected false as the paper's figures are of inference")
    strangers = [name for name in config.against if name not in FIGURE_PEERS]
    if strangers:
        raise ConfigError(
            f"against: found {strangers[0]!r}, which the paper's figures lack, expected some of"
            f" {', '.join(FIGURE_PEERS)}"
        )
    lengths = config.lengths or FIGURE_LENGTHS
    common = config.model_copy(update={"against": config.against or tuple(FIGURE_PEERS)})
    return {
        "flops": common.model_copy(update={"lengths": (FLOPS_LENGTH,), "measure": ("flops",)}),
        "passes": common.model_copy(update={"lengths": (_nearest_to_paper(lengths),), "measure": ("time",)}),
        "memory": common.model_copy(update={"lengths": lengths, "measure": ("memory",)}),
    }


def paper_figures(config: BenchConfig, say: Say = silent) -> Figures:
    """Measure the parts of `figure_parts`."""
    return Figures(**{part: measure(each, say) for part, each in figure_parts(config).items()})


def paper_ratio(part: str, peer: str) -> float | None:
    """The paper's figure for what a peer stands for, over its figure for AlignMamba."""
    method = FIGURE_PEERS[peer]
    return None if method is None else PAPER[part][method] / PAPER[part]["AlignMamba"]


def _nearest_to_paper(lengths: Iterable[int]) -> int:
    return min(dict.fromkeys(lengths), key=lambda length: abs(length - PAPER_LENGTH))


ByPeer = dict[str, float | None]
"""Peer to number."""


def _by_peer(report: Report, value: Callable[[Row], float | None], length: int | None = None) -> ByPeer:
    return {row.peer: value(row) for row in report.rows if length in (None, row.length)}


def _megabytes(row: Row) -> float | None:
    return None if row.peak_bytes is None else row.peak_bytes / 1e6


def _seconds(row: Row) -> float | None:
    return None if row.seconds is None else row.seconds.median


def _operations_over_ours(report: Report) -> ByPeer:
    return _by_peer(report, lambda row: row.flops / report.rows[0].flops)


def _table(
    part: str, title: str, caption: str, report: Report, measured: Mapping[str, ByPeer]
) -> ResultTable:
    """A table with the paper's ratios beside what was measured, and the paper's figures below."""
    paper = ", ".join(f"{method} {value:g}" for method, value in PAPER[part].items())
    columns = {**measured, "paper: × AlignMamba": _by_peer(report, lambda row: paper_ratio(part, row.peer))}
    peers = tuple(columns["paper: × AlignMamba"])
    return ResultTable(
        name=f"efficiency-{part}",
        title=title,
        caption=caption,
        row_label="method",
        rows=peers,
        columns=tuple(columns),
        digits=2,
        entries=tuple(tuple(_entry(cells.get(peer)) for cells in columns.values()) for peer in peers),
        notes=(
            *notes(report),
            settings_note(report),
            f"The paper's figures, {PAPER_UNITS[part]}: {paper}.",
            "The paper states neither width nor depth and ran on a GPU: only ratios can be compared.",
        ),
    )


def _entry(value: float | None) -> Entry | None:
    return None if value is None else Entry(values=(value,), mean=value)
