"""Measuring a subject: limits, peers that are missing, wrong or fail, ratios and growth."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from alignmamba.errors import ConfigError
from alignmamba.evaluation.computing_cost import Timing, spread
from alignmamba.recipes.bench import measurement
from alignmamba.recipes.bench.bench_tables import measured_table, notes, report_values, shown_table
from alignmamba.recipes.bench.case import Built, Case, Peer
from alignmamba.recipes.bench.measurement import BenchConfig, Row, growth, measure
from alignmamba.recipes.bench.subjects import SUBJECTS
from alignmamba.recipes.experiments.efficiency import (
    FIGURE_PEERS,
    PAPER,
    Efficiency,
    paper_figures,
    paper_ratio,
)


def config(**options: Any) -> BenchConfig:
    small = {
        "lengths": (16,),
        "d_model": 8,
        "heads": 2,
        "depth": 1,
        "d_state": 2,
        "window": 2,
        "repeats": 2,
        "measure": ("time", "flops"),
    }
    return BenchConfig.checked(**(small | options))


def peer(value: float = 1.0, **options: Any) -> Peer:
    def build(case: Case) -> Built:
        return Built(call=lambda: torch.full((case.length,), value))

    return Peer(what="made up", **({"build": build, "flops": lambda _: 5.0, "same": True} | options))


def fails(_: Case) -> Built:
    def call() -> object:
        raise RuntimeError("no such kernel\nfor these tensors")

    return Built(call=call)


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Peer]:
    known = {"alignmamba": peer(same=False)}
    monkeypatch.setitem(SUBJECTS, "scan", known)
    return known


def test_every_state_of_a_peer(peers: dict[str, Peer]) -> None:
    peers |= {
        "agrees": peer(1.0001),
        "wrong": peer(1.5),
        "missing": peer(why_not=lambda _: "it is not installed"),
        "failing": peer(build=fails),
        "large": peer(memory=lambda case: 1e9 * case.length),
        "long": peer(flops=lambda _: 3e12),
        "hidden": peer(by_name_only=True),
    }
    report = measure(config(subject="scan", memory_limit_gb=1.0, tflop_limit=2.0))
    assert {row.peer: row.state for row in report.rows} == {
        "alignmamba": "measured",
        "agrees": "measured",
        "wrong": "wrong",
        "missing": "unavailable",
        "failing": "failed",
        "large": "skipped",
        "long": "skipped",
    }
    assert all((row.seconds is not None) is (row.state == "measured") for row in report.rows)
    said = notes(report)
    assert "missing: unavailable: it is not installed" in said
    assert "large at 16 tokens: skipped: would need 16 GB, the limit is 1 GB" in said
    assert "long at 16 tokens: skipped: would take 3 TFLOP, the limit is 2 TFLOP" in said
    assert "failing at 16 tokens: failed: no such kernel for these tensors" in said
    assert any(
        line.startswith("wrong at 16 tokens: wrong: result 0 differs from ours by 5.0e-01") for line in said
    )


def test_a_failure_of_this_library_is_not_hidden(peers: dict[str, Peer]) -> None:
    peers["alignmamba"] = peer(build=fails)
    with pytest.raises(RuntimeError, match="no such kernel"):
        measure(config(subject="scan"))


def test_a_missing_peer_is_an_error_only_by_name(peers: dict[str, Peer]) -> None:
    peers["missing"] = peer(why_not=lambda _: "it is not installed")
    measure(config(subject="scan"))
    with pytest.raises(ConfigError, match="against: missing cannot be measured here: it is not installed"):
        measure(config(subject="scan", against=("missing",)))


def test_this_library_is_measured_first_whatever_is_asked_for(peers: dict[str, Peer]) -> None:
    peers |= {"one": peer(), "two": peer(), "hidden": peer(by_name_only=True)}
    report = measure(config(subject="scan", against=("hidden", "one")))
    assert [row.peer for row in report.rows] == ["alignmamba", "hidden", "one"]


def test_ratios_and_slopes_of_known_times(peers: dict[str, Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    peers["rival"] = peer()
    seconds = {("alignmamba", 10): 1.0, ("alignmamba", 100): 10.0, ("rival", 10): 3.0, ("rival", 100): 300.0}

    def timed(calls: dict[str, Any], **_: Any) -> dict[str, Timing]:
        found = {name: spread([seconds[name, len(call())]]) for name, call in calls.items()}
        return {name: Timing(busy=each, wall=each) for name, each in found.items()}

    def held(_: str, argument: dict[str, Any]) -> int:
        return int({"alignmamba": 50, "rival": 200}[argument["peer"]] * argument["case"]["length"])

    monkeypatch.setattr(measurement, "time_in_turn", timed)
    monkeypatch.setattr(measurement, "in_fresh_process", held)
    monkeypatch.setattr(measurement, "memory_problem", lambda _: "")
    report = measure(config(subject="scan", lengths=(10, 100), measure=("time", "memory")))
    row = report.row("rival", 100)
    assert (row.time_ratio, row.memory_ratio, row.peak_bytes) == (30.0, 4.0, 20_000)
    ours, rival = report.slopes
    assert (ours.time, ours.memory) == (pytest.approx(1.0), pytest.approx(1.0))
    assert rival.time == pytest.approx(2.0)
    assert shown_table(report, 100)["× time"] == ["1×", "30×"]
    assert measured_table(report)["seconds_median"] == [1.0, 3.0, 10.0, 300.0]


def test_threads_are_put_back(peers: dict[str, Peer]) -> None:
    seen: list[int] = []
    peers["counts"] = peer(
        build=lambda _: Built(call=lambda: seen.append(torch.get_num_threads())), same=False
    )
    before = torch.get_num_threads()
    measure(config(subject="scan", threads=before + 1))
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_growth_asks_for_this_librarys_own_computations() -> None:
    grown = growth(config(subject="model", lengths=()))
    assert grown.lengths == measurement.GROWTH_LENGTHS
    assert {"alignmamba", "windowed", "match", "backbone"} <= set(grown.against)
    assert not {"transformer-fused", "mult-fused", "mambapy"} & set(grown.against)
    assert growth(config(subject="model", lengths=(5,), against=("match",))) == config(
        subject="model", lengths=(5,), against=("match",)
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"subject": "scam"},
            (
                "subject: found 'scam', expected one of scan, match, mmd, block, backbone, model, perhaps you"
                " meant 'scan'"
            ),
        ),
        ({"against": ("mambapi",)}, "perhaps you meant 'mambapy'"),
        ({"lengths": (8, 8)}, "lengths: expected different ones, found 8, 8"),
        ({"lengths": (0,)}, "lengths.0: found 0"),
        ({"heads": 3}, "heads: found 3, expected a divisor of d_model, which is 8"),
        ({"repeats": 0}, "repeats: found 0"),
        ({"threads": 0}, "threads: found 0"),
        ({"tflop_limit": -1.0}, "tflop_limit: found -1.0"),
        ({"memory_limit_gb": 0.0}, "memory_limit_gb: found 0.0"),
        ({"measure": ()}, "measure: "),
        ({"width": 3}, "width: unknown key"),
    ],
)
def test_what_a_configuration_refuses(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**({"subject": "scan"} | options))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: found 'cuda', but PyTorch sees no GPU here"):
        measure(config(subject="scan", device="cuda"))


def test_memory_of_a_peer_in_its_own_process() -> None:
    """The matrix of all pairs is there, twice while it is computed; the tiled matching has none."""
    length = 1500
    report = measure(
        config(subject="match", lengths=(length,), against=("dense", "product"), measure=("memory",))
    )
    dense = report.row("dense", length)
    assert dense.seconds is None
    assert dense.flops_counted is None
    assert dense.peak_bytes == pytest.approx(4 * length**2, rel=0.3)
    product = report.row("product", length).peak_bytes  # its result is an input
    assert product is not None
    assert product < length**2


def test_figures_put_the_papers_numbers_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    def held(_: str, argument: dict[str, Any]) -> int:
        return {"alignmamba": 100, "transformer-materialised": 300}[argument["peer"]] * int(
            argument["case"]["length"]
        )

    monkeypatch.setattr(measurement, "in_fresh_process", held)
    monkeypatch.setattr(measurement, "memory_problem", lambda _: "")
    figures = paper_figures(config(subject="model", lengths=(8, 16), against=("transformer-materialised",)))
    assert (figures.told_length, figures.passes_length) == (16, 16)
    memory, passes, operations = Efficiency().tables(figures)
    assert memory.columns == ("MB at 8", "MB at 16", "× AlignMamba at 16", "paper: × AlignMamba")
    means = [[entry and entry.mean for entry in row] for row in memory.entries]
    assert means == [[0.0008, 0.0016, 1.0, 1.0], [0.0024, 0.0048, 3.0, pytest.approx(10.7 / 8.53)]]
    assert (
        "The paper's figures, s for 50 passes: AlignMamba 6.05, single-stream 36.13, multi-stream 48.61."
        in passes.notes
    )
    assert "The paper's figures, GFLOP at 1024 tokens: AlignMamba 46.7, single-stream 101.6," in " ".join(
        operations.notes
    )
    assert paper_ratio("flops", "mult-materialised") == pytest.approx(203.2 / 46.7)
    assert paper_ratio("flops", "mult-fused") is None
    assert FIGURE_PEERS.keys() <= SUBJECTS["model"].keys()
    assert all(values.keys() == {"AlignMamba", "single-stream", "multi-stream"} for values in PAPER.values())


def test_figures_refuse_what_the_paper_does_not_show() -> None:
    with pytest.raises(ConfigError, match="against: found 'mambapy', which the paper's figures lack"):
        paper_figures(config(subject="model", against=("mambapy",)))
    with pytest.raises(ConfigError, match="subject: found 'scan', expected 'model'"):
        paper_figures(config(subject="scan"))
    with pytest.raises(ConfigError, match="training: found true, expected false"):
        paper_figures(config(subject="model", training=True))


def test_values_are_plain(peers: dict[str, Peer]) -> None:
    import json

    peers["missing"] = peer(why_not=lambda _: "it is not installed")
    values = json.loads(json.dumps(report_values(measure(config(subject="scan")))))
    assert values["rows"][0]["seconds"].keys() == {"median", "least", "most", "count"}
    assert values["rows"][1]["seconds"] is None
    assert set(values["rows"][0]) == set(Row.__dataclass_fields__)


def test_a_slow_peer_is_named(peers: dict[str, Peer]) -> None:
    report = measure(config(subject="scan", repeats=5))
    slow = replace(report.rows[0], seconds=spread([11.0, 12.0, 13.0]))
    assert notes(replace(report, rows=(slow,))) == [
        "alignmamba at 16 tokens: slow, so 3 rounds in place of 5"
    ]
    assert peers


def test_times_are_shown_in_the_unit_of_their_median(peers: dict[str, Peer]) -> None:
    report = measure(config(subject="scan"))
    row = replace(
        report.rows[0],
        seconds=spread([0.0009, 0.002, 0.0301]),
        wall_seconds=spread([2.0]),
        num_parameters=1_752_320,
    )
    table = shown_table(replace(report, rows=(row,)), 16)
    assert (table["median"], table["least–most"], table["weights"]) == (["2 ms"], ["0.9–30.1 ms"], ["1.75M"])
    assert "wall" not in table
    two = replace(report, rows=(row,), config=report.config.model_copy(update={"threads": 2}))
    assert shown_table(two, 16)["wall"] == ["2 s"]
    assert peers


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
    ],
)
def test_memory_that_runs_out_is_no_fault_of_the_library(error: RuntimeError, expected: bool) -> None:
    assert measurement._out_of_memory(error) is expected
