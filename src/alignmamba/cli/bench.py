"""``alignmamba bench``: time, memory and operations of this library beside others."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from alignmamba.cli.terminal_tables import rows_table
from alignmamba.cli.verb import Verb, console, say

if TYPE_CHECKING:
    from alignmamba.recipes.bench.measurement import Report


@dataclass(frozen=True, kw_only=True)
class Bench(Verb):
    """Measure time, peak memory and operations of this library and its peers on this machine.

    Subjects: `scan`, `match` and `mmd` are operators. `block` is one Mamba block, and `backbone` is a stack
    over one sequence. `model` is the whole fusion of three modalities with alignment, and each of its stages.
    Tables show the median, the least and the most. Memory is the peak above weights and inputs. Ratios are to
    this library.
    """

    moved: ClassVar[Mapping[str, str]] = {
        "figures": (
            "type alignmamba experiment efficiency --out DIR, with options of bench as --set d_model=64"
        )
    }
    """Subjects of former versions, each with what to type in its place."""

    subject: Annotated[
        Positional[Literal["scan", "match", "mmd", "block", "backbone", "model"]],
        arg(metavar="SUBJECT"),
    ]
    """scan, match, mmd, block, backbone or model."""
    lengths: Annotated[
        tuple[int, ...], arg(metavar="N ...", help_behavior_hint="(default: the subject's own)")
    ] = ()
    """Tokens of the sequence, of each side of `match` and `mmd`, or of each modality of a model."""
    against: Annotated[
        tuple[str, ...], arg(metavar="PEER ...", help_behavior_hint="(default: all that are installed)")
    ] = ()
    """Peers to compare with; an unknown name prints the list of peers."""
    measure: Annotated[
        tuple[Literal["time", "memory", "flops"], ...],
        arg(metavar="{time,memory,flops} ...", help_behavior_hint="(default: all)"),
    ] = ("time", "memory", "flops")
    """Quantities to measure."""
    growth: bool = False
    """Measure this library alone from 1k to 100k tokens, and fit how time and memory grow."""
    training: bool = False
    """Measure a forward and backward pass instead of inference."""
    repeats: Annotated[int, arg(metavar="N")] = 5
    """Timed rounds; a peer that takes longer than 10 s runs three at most."""
    threads: Annotated[int, arg(metavar="N")] = 1
    """Threads on the CPU."""
    device: Annotated[Literal["cpu", "cuda"], arg(metavar="{cpu,cuda}")] = "cpu"
    """Device to compute on."""
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], arg(metavar="{float32,bfloat16,float16}")] = (
        "float32"
    )
    """Type of inputs and weights."""
    batch: Annotated[int, arg(metavar="N")] = 1
    """Samples computed together."""
    d_model: Annotated[int, arg(metavar="N")] = 256
    """Channels of a token; a scan has twice as many."""
    depth: Annotated[int, arg(metavar="N")] = 4
    """Layers of a backbone."""
    heads: Annotated[int, arg(metavar="N")] = 8
    """Heads of attention."""
    d_state: Annotated[int, arg(metavar="N")] = 16
    """State size of a scan."""
    window: Annotated[int, arg(metavar="N")] = 64
    """Half width of the windowed matching, in tokens."""
    landmarks: Annotated[int, arg(metavar="N")] = 256
    """Tokens of the approximate MMD."""
    memory_limit_gb: Annotated[
        float | None, arg(metavar="GB", help_behavior_hint="(default: half of what is available)")
    ] = None
    """Skip peers that would need more memory."""
    tflop_limit: Annotated[float, arg(metavar="TFLOP")] = 10.0
    """Skip peers that would take more operations."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="(default: none)")] = None
    """Directory for results.json, tables and plots; files of an earlier run are replaced."""

    def run(self) -> int:
        """Measure."""
        from alignmamba.recipes.bench.bench_files import why_no_plots, write_report
        from alignmamba.recipes.bench.bench_tables import report_values
        from alignmamba.recipes.bench.measurement import BenchConfig, growth, measure
        from alignmamba.recipes.run_directory import make_directory

        config = BenchConfig.checked(**{name: getattr(self, name) for name in BenchConfig.model_fields})
        if self.growth:
            config = growth(config)
        if self.out is not None:
            make_directory(self.out)
            if why_no_plots():
                say(f"no plots will be drawn: {why_no_plots()}")
        report = measure(config, say=say)
        files = write_report(report, self.out) if self.out is not None else []
        if self.json:
            self.emit(report_values(report))
        else:
            self._show_report(report)
        if files:
            say(f"wrote {', '.join(files)} in {self.out}")
        return 0

    def _show_report(self, report: "Report") -> None:
        from alignmamba.recipes.bench.bench_tables import clock, notes, shown_table, slopes_table

        unit = "tokens per modality" if self.subject == "model" else "tokens"
        for length in dict.fromkeys(row.length for row in report.rows):
            self._show_table(f"{self.subject}, {length} {unit}", shown_table(report, length))
        if report.slopes:
            self._show_table("growth: exponent of the length", slopes_table(report))
        lines = [
            f"{peer}: {what}"
            for peer, what in dict.fromkeys(
                (row.peer, row.what) for row in report.rows if row.state == "measured"
            )
        ]
        threads = f"{report.config.threads} thread{'s' if report.config.threads > 1 else ''}"
        lines.append(
            f"time: {clock(report)}, {threads}; memory: peak above weights and inputs; GFLOP: by formula, and"
            " counted by PyTorch"
        )
        screen = console()
        for line in (*lines, *notes(report)):
            screen.print(line, soft_wrap=True)

    @staticmethod
    def _show_table(title: str, table: dict[str, list[Any]]) -> None:
        console().print(rows_table(title, tuple(table), list(zip(*table.values(), strict=True))))
