"""What the kernels must reach on a CPU: each line measured against its peers, found beside required.

Usage: ``python benchmarks/targets.py [--only NAME ...] [--repeats 5] [--threads 1 2] [--json FILE]``

The verdict is on one thread, process CPU time, float32, batch 1, width 256 and depth 4 where not said
otherwise; ratios are of medians in one run. With more threads, ratios of time on the clock stand beside.
Lines may be run one by one into the same file, which keeps those measured before; the table shows all of
them.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# As the command line does, before PyTorch is imported: threads that spin for long would take the cores from
# the kernels' own.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from alignmamba.files import replace_file
from alignmamba.recipes.bench.bench_tables import markdown, notes
from alignmamba.recipes.bench.measurement import BenchConfig, Report, Row, measure


@dataclass(frozen=True, kw_only=True)
class Check:
    """One number, and what it must be."""

    what: str
    found: float | None
    """None where it could not be measured."""
    limit: float
    at_least: bool
    unit: str = "x"

    @property
    def held(self) -> bool:
        """Whether it is what it must be."""
        return self.found is not None and (
            self.found >= self.limit if self.at_least else self.found <= self.limit
        )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a line came to on so many threads."""

    checks: Sequence[Check]
    remarks: Sequence[str]


Line = Callable[[int, int], Found]
"""Threads and rounds to what was found."""


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def report_of(
    threads: int,
    repeats: int,
    *,
    subject: str,
    against: Sequence[str],
    lengths: Sequence[int],
    **options: Any,
) -> Report:
    """Measure; memory on one thread only, where it does not hang on the threads anyway."""
    wanted = options.pop("measure", ("time", "memory") if threads == 1 else ("time",))
    common = {"subject": subject, "against": tuple(against), "lengths": tuple(lengths), "measure": wanted}
    return measure(BenchConfig.checked(**common, threads=threads, repeats=repeats, **options), say=say)


def seconds(row: Row, threads: int) -> float | None:
    """Median: processor time on one thread, time on the clock on several."""
    spread = row.seconds if threads == 1 else row.wall_seconds
    return None if spread is None else spread.median


def over(numerator: float | None, denominator: float | None) -> float | None:
    """A quotient, where both are known."""
    return None if numerator is None or not denominator else numerator / denominator


def rivals(
    least: Mapping[str, float],
    *,
    memory: float | None = None,
    shapes: Sequence[Mapping[str, Any]],
    **options: Any,
) -> Line:
    """How many times longer each rival takes than this library, and how many times more memory."""

    def line(threads: int, repeats: int) -> Found:
        checks, remarks = [], []
        for shape in shapes:
            wanted = {} if memory is not None else {"measure": ("time",)}
            report = report_of(threads, repeats, against=tuple(least), **wanted, **options, **shape)
            (length,) = report.config.lengths
            where = (
                f" ({report.config.batch}, {length}, {2 * report.config.d_model})" if len(shapes) > 1 else ""
            )
            mine = report.row("alignmamba", length)
            for peer, limit in least.items():
                rival = report.row(peer, length)
                ratio = over(seconds(rival, threads), seconds(mine, threads))
                checks.append(Check(what=f"{peer}{where}", found=ratio, limit=limit, at_least=True))
                if memory is not None and threads == 1:
                    held = over(rival.peak_bytes, mine.peak_bytes)
                    checks.append(
                        Check(what=f"{peer}{where}, memory", found=held, limit=memory, at_least=True)
                    )
            remarks += notes(report)
        return Found(checks=checks, remarks=remarks)

    return line


def fusion(threads: int, repeats: int) -> Found:
    """The single-stream Transformer over the whole fusion, exact and windowed, in one run."""
    report = report_of(
        threads,
        repeats,
        subject="model",
        against=("default", "windowed", "transformer-fused"),
        lengths=(6400,),
        measure=("time",),
    )
    rival = seconds(report.row("transformer-fused", 6400), threads)
    checks = [
        Check(
            what=what, found=over(rival, seconds(report.row(peer, 6400), threads)), limit=limit, at_least=True
        )
        for what, peer, limit in (
            ("exact", "alignmamba", 10.0),
            ("exact, time prior", "default", 10.0),
            ("windowed", "windowed", 14.0),
        )
    ]
    return Found(checks=checks, remarks=notes(report))


def products(threads: int, repeats: int) -> Found:
    """The backbone's time over that of its own matrix products."""
    report = report_of(
        threads, repeats, subject="backbone", against=("products",), lengths=(6400,), measure=("time",)
    )
    mine, bare = (seconds(report.row(peer, 6400), threads) for peer in ("alignmamba", "products"))
    return Found(
        checks=[Check(what="backbone / products", found=over(mine, bare), limit=1.8, at_least=False)],
        remarks=notes(report),
    )


def matching(threads: int, repeats: int) -> Found:
    """Exact matching over one matrix product of that shape into memory that is there already."""
    report = report_of(threads, repeats, subject="match", against=("product",), lengths=(12_800,))
    mine, bare = report.row("alignmamba", 12_800), report.row("product", 12_800)
    checks = [
        Check(
            what="time / product",
            found=over(seconds(mine, threads), seconds(bare, threads)),
            limit=1.3,
            at_least=False,
        )
    ]
    if threads == 1:
        checks.append(
            Check(what="peak", found=over(mine.peak_bytes, 1e6), limit=150, at_least=False, unit=" MB")
        )
    return Found(checks=checks, remarks=notes(report))


def growth(threads: int, repeats: int) -> Found:
    """Exponent of time of the windowed whole model."""
    # The limit leaves out the exact matching beyond 10k tokens, which is not asked for here.
    lengths = (3000, 10_000, 30_000, 100_000)
    report = report_of(
        threads,
        repeats,
        subject="model",
        against=("windowed",),
        lengths=lengths,
        measure=("time",),
        tflop_limit=1.2,
    )
    points = [(row.length, seconds(row, threads)) for row in report.rows if row.peer == "windowed"]
    slope = next((each.time for each in report.slopes if each.peer == "windowed"), None)
    complete = slope is not None and all(value is not None for _, value in points)
    said = ", ".join(f"{length}: {'-' if value is None else f'{value:.2f} s'}" for length, value in points)
    return Found(
        checks=[Check(what="slope", found=slope if complete else None, limit=1.05, at_least=False, unit="")],
        remarks=[said],
    )


def mmd_memory(threads: int, repeats: int) -> Found:
    """Peak memory of an exact MMD, forward and backward."""
    report = report_of(
        threads,
        repeats,
        subject="mmd",
        against=("alignmamba",),
        lengths=(6400,),
        training=True,
        measure=("memory",),
    )
    found = over(report.row("alignmamba", 6400).peak_bytes, 1e6)
    return Found(checks=[Check(what="peak", found=found, limit=100, at_least=False, unit=" MB")], remarks=[])


SCANS: Sequence[Mapping[str, Any]] = (
    {"batch": 32, "lengths": (150,), "d_model": 128},
    {"batch": 8, "lengths": (1024,), "d_model": 256},
)
LONG: Sequence[Mapping[str, Any]] = ({"lengths": (6400,)},)

# Name -> what is measured, and how.
LINES: dict[str, tuple[str, Line]] = {
    "scan-forward": (
        "scan forward against mambapy",
        rivals({"mambapy": 25.0}, memory=10.0, shapes=SCANS, subject="scan"),
    ),
    "scan-training": (
        "scan forward and backward against mambapy",
        rivals({"mambapy": 18.0}, memory=10.0, shapes=SCANS, subject="scan", training=True),
    ),
    "scan-reference": (
        "scan forward against the reference",
        rivals({"torch": 8.0}, shapes=SCANS, subject="scan"),
    ),
    "backbone-inference": (
        "Mamba backbone, 6400 tokens, inference",
        rivals(
            {"transformer-fused": 6.0, "mult-fused": 12.0, "transformer-materialised": 18.0},
            shapes=LONG,
            subject="backbone",
        ),
    ),
    "backbone-training": (
        "Mamba backbone, 6400 tokens, forward and backward",
        rivals(
            {"transformer-fused": 7.0, "mult-fused": 12.0}, shapes=LONG, subject="backbone", training=True
        ),
    ),
    "fusion": (
        "whole fusion, 3 x 6400 tokens, against the single-stream Transformer, fused attention",
        fusion,
    ),
    "products": ("Mamba backbone over its own matrix products, 6400 tokens", products),
    "matching": ("exact matching, 12800 x 12800", matching),
    "growth": ("time of the windowed whole model, 3k to 100k tokens per modality", growth),
    "mmd-memory": ("MMD forward and backward, 6400 tokens", mmd_memory),
}


def text(found: Found | None, *, limits: bool = False) -> str:
    """All checks of a line, with what was found or with what is required."""
    if found is None:
        return "-"

    def value(check: Check) -> str:
        if limits:
            return f"{'at least' if check.at_least else 'at most'} {check.limit:g}{check.unit}"
        return "not measured" if check.found is None else f"{check.found:.3g}{check.unit}"

    return "; ".join(f"{check.what} {value(check)}" for check in found.checks)


def table(lines: Mapping[str, Mapping[str, Found]]) -> str:
    """Every line measured so far."""
    columns: dict[str, list[str]] = {
        "line": [],
        "measure": [],
        "required": [],
        "found, 1 thread": [],
        "2 threads, wall": [],
        "verdict": [],
    }
    for name, (what, _) in LINES.items():
        if name not in lines:
            continue
        one = lines[name].get("1")
        values = (
            name,
            what,
            text(one or next(iter(lines[name].values())), limits=True),
            text(one),
            text(lines[name].get("2")),
            "-" if one is None else "holds" if all(check.held for check in one.checks) else "MISSED",
        )
        for column, entry in zip(columns.values(), values, strict=True):
            column.append(entry)
    return markdown(columns)


def read(path: Path) -> dict[str, dict[str, Found]]:
    """What a file holds of earlier lines."""
    stored = json.loads(path.read_text(encoding="utf-8"))["lines"]
    return {
        name: {threads: restored(found) for threads, found in each.items()} for name, each in stored.items()
    }


def restored(found: Mapping[str, Any]) -> Found:
    """A line's numbers from JSON."""
    return Found(checks=[Check(**check) for check in found["checks"]], remarks=found["remarks"])


def write(path: Path, lines: Mapping[str, Mapping[str, Found]]) -> None:
    """Everything as JSON."""
    values = {
        "lines": {
            name: {threads: asdict(found) for threads, found in each.items()} for name, each in lines.items()
        }
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, (json.dumps(values, indent=2) + "\n").encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="What the kernels must reach on a CPU, found beside required."
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(LINES), default=list(LINES), metavar="NAME", help=", ".join(LINES)
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed rounds; three of what takes more than 10 s"
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", choices=[1, 2], default=[1, 2], help="threads to measure on"
    )
    parser.add_argument(
        "--json", type=Path, help="file for all numbers; lines that it holds already are kept"
    )
    given = parser.parse_args()
    lines = read(given.json) if given.json and given.json.exists() else {}
    for name in given.only:
        for threads in given.threads:
            found = LINES[name][1](threads, given.repeats)
            lines.setdefault(name, {})[str(threads)] = found
            for remark in found.remarks:
                say(f"{name}: {remark}")
        if given.json:
            write(given.json, lines)
    print(table(lines), end="")
