"""``alignmamba bench``: every subject, files, and what is refused."""

import csv
import io
import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from alignmamba.recipes.bench import case
from alignmamba.recipes.bench.subjects import SUBJECTS

Cli = Callable[..., tuple[int, str, str]]

SMALL = ("--d-model", 8, "--heads", 2, "--depth", 1, "--d-state", 2, "--window", 2, "--repeats", 2)
QUICK = ("--measure", "time", "flops")
# One rival of each subject that needs nothing to be installed.
RIVALS = {
    "scan": "loop",
    "match": "dense",
    "mmd": "dense",
    "block": "products",
    "backbone": "mult-fused",
    "model": "transformer-materialised",
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("subject", list(SUBJECTS))
def test_every_subject_as_json(cli: Cli, subject: str, training: bool) -> None:
    options = ["--training"] if training else []
    code, out, err = cli(
        "bench", subject, "--lengths", 9, "--against", RIVALS[subject], *SMALL, *QUICK, *options, "--json"
    )
    assert code == 0, err
    (line,) = out.splitlines()
    report = json.loads(line)
    assert (report["subject"], report["baseline"]) == (subject, "alignmamba")
    assert report["settings"]["training"] is training
    assert report["environment"]["versions"]["torch"]
    ours, rival = report["rows"]
    assert [row["peer"] for row in (ours, rival)] == ["alignmamba", RIVALS[subject]]
    for row in (ours, rival):
        assert (row["state"], row["length"]) == ("measured", 9)
        assert 0 < row["seconds"]["least"] <= row["seconds"]["median"] <= row["seconds"]["most"]
        assert row["seconds"]["count"] == row["wall_seconds"]["count"] == 2
        assert row["flops"] > 0
        assert row["peak_bytes"] is None
    assert ours["time_ratio"] == 1.0
    assert "first call" in err


def test_tables_on_the_terminal(cli: Cli) -> None:
    code, out, err = cli(
        "bench", "model", "--lengths", 5, 9, "--against", "transformer-fused", "match", *SMALL, *QUICK
    )
    assert code == 0, err
    for said in (
        "model, 5 tokens per modality",
        "model, 9 tokens per modality",
        "growth: exponent of the length",
        "least–most",
    ):
        assert said in out
    assert "transformer-fused: single-stream Transformer over the tokens of all three modalities" in out
    assert "match: stage: exact matching" in out
    assert "process CPU time of all threads, 1 thread" in out
    assert "peak MB" not in out


def test_what_is_not_installed_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case, "find_spec", lambda name: None if name == "mamba_ssm" else find_spec(name))
    code, out, _ = cli("bench", "scan", "--lengths", 4, *SMALL, "--measure", "flops")
    assert code == 0
    assert "mamba-ssm: unavailable: mamba_ssm is not installed" in out
    code, out, err = cli("bench", "scan", "--lengths", 4, "--against", "mamba-ssm")
    assert (code, out) == (2, "")
    assert err == "error: against: mamba-ssm cannot be measured here: mamba_ssm is not installed\n"


def test_what_is_too_large_is_skipped_and_named(cli: Cli) -> None:
    limits = ("--memory-limit-gb", 0.001, "--tflop-limit", 0.001)
    code, out, _ = cli(
        "bench",
        "match",
        "--lengths",
        400,
        "--against",
        "dense",
        "product",
        "windowed",
        *SMALL,
        *QUICK,
        *limits,
    )
    assert code == 0
    assert "dense at 400 tokens: skipped: would need 0.00128 GB, the limit is 0.001 GB" in out


def test_growth(cli: Cli) -> None:
    code, out, _ = cli("bench", "match", "--growth", "--lengths", 8, 16, 32, *SMALL, *QUICK, "--json")
    assert code == 0
    report = json.loads(out)
    assert [slope["peer"] for slope in report["slopes"]] == ["alignmamba", "windowed"]
    assert all(slope["lengths"] == [8, 16, 32] for slope in report["slopes"])
    assert all(isinstance(slope["time"], float) for slope in report["slopes"])


def test_files(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "new" / "bench"
    code, printed, err = cli(
        "bench", "match", "--lengths", 8, 16, "--against", "dense", *SMALL, *QUICK, "--out", out, "--json"
    )
    assert code == 0
    assert {path.name for path in out.iterdir()} == {
        "results.json",
        "table.md",
        "table.csv",
        "time.svg",
        "time.png",
    }
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == json.loads(printed)
    rows = list(csv.DictReader(io.StringIO((out / "table.csv").read_text(encoding="utf-8"))))
    assert [(row["length"], row["peer"]) for row in rows] == [
        ("8", "alignmamba"),
        ("8", "dense"),
        ("16", "alignmamba"),
        ("16", "dense"),
    ]
    assert (out / "time.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert (out / "time.png").read_bytes().startswith(b"\x89PNG")
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "| dense |" in table
    assert "## 16 tokens" in table
    assert f"wrote results.json, table.md, table.csv, time.svg, time.png in {out}" in err


def test_without_matplotlib_there_are_tables_and_a_reason(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = cli(
        "bench", "match", "--lengths", 8, "--against", "dense", *SMALL, *QUICK, "--out", tmp_path
    )
    assert code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "table.md", "table.csv"}
    first, *_ = err.splitlines()
    assert (
        first == "no plots will be drawn: matplotlib is not installed, try: pip install 'alignmamba[bench]'"
    )


def test_the_papers_figures(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    settings = ["d_model=8", "heads=2", "depth=1", "d_state=2", "window=2", "repeats=2"]
    settings += ["against=[transformer-materialised]"]
    code, out, err = cli("experiment", "efficiency", "--lengths", 12, "--out", tmp_path, "--set", *settings)
    assert code == 0, err
    for said in (
        "Peak memory (Figure 3)",
        "Time of inference (Figure 4)",
        "Operations (section 4.3.3)",
        "8.53",
        "36.1",
        "102",
        "cpu, 1 thread, float32, batch 1, width 8, depth 1",
    ):
        assert said in out, said
    plots = {f"{name}.{kind}" for name in ("figure3", "figure4", "flops") for kind in ("svg", "png")}
    files = {"results.json", "memory.csv", "passes.csv", "flops.csv"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == plots | files
    tables = {"efficiency-memory.md", "efficiency-passes.md", "efficiency-flops.md"}
    assert {path.name for path in (tmp_path / "tables").glob("*.md")} == tables
    values = json.loads((tmp_path / "figures" / "results.json").read_text(encoding="utf-8"))
    assert values["paper"]["passes"] == {"AlignMamba": 6.05, "single-stream": 36.13, "multi-stream": 48.61}
    assert [row["peak_bytes"] > 0 for row in values["memory_report"]["rows"]] == [True, True]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["training=true"],
            "error: training: found true, expected false as the paper's figures are of inference",
        ),
        (["measure=[time]"], "error: measure: expected no such setting, as the paper fixes"),
        (["subject=scan"], "error: subject: expected no such setting, as the paper fixes"),
        (["against=[mambapy]"], "error: against: found 'mambapy', which the paper's figures lack"),
        (["depht=1"], "error: depht: unknown key, perhaps you meant 'depth'"),
    ],
)
def test_what_the_papers_figures_refuse(cli: Cli, tmp_path: Path, settings: list[str], said: str) -> None:
    code, out, err = cli("experiment", "efficiency", "--out", tmp_path / "new", "--set", *settings)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_the_former_name_of_the_papers_figures_says_what_to_type(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("bench", "--out", tmp_path / "new", "figures", "--d-model", 64)
    assert (code, out) == (2, "")
    assert err == (
        "error: bench figures: type alignmamba experiment efficiency --out DIR, with options of bench as"
        " --set d_model=64; see alignmamba bench --help\n"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scan", "--lengths", 0], "error: lengths.0: found 0"),
        (["scan", "--lengths", 8, 8], "error: lengths: expected different ones, found 8, 8"),
        (["scan", "--against", "mambapi"], "perhaps you meant 'mambapy'"),
        (["scan", "--repeats", 0], "error: repeats: found 0"),
        (["scan", "--threads", 0], "error: threads: found 0"),
        (["block", "--heads", 7], "error: heads: found 7, expected a divisor of d_model, which is 256"),
        (["model", "--memory-limit-gb", -1], "error: memory_limit_gb: found -1.0"),
        (["match", "--lengths", 1000, "--against", "earth-mover"], "measured up to 512 tokens"),
    ],
)
def test_what_is_refused_in_one_line(cli: Cli, arguments: list[object], said: str) -> None:
    code, out, err = cli("bench", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_place_that_cannot_be_written_to_is_refused_before_measuring(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    code, out, err = cli("bench", "scan", "--out", tmp_path / "file")
    assert (code, out) == (2, "")
    assert err == f"error: out {tmp_path / 'file'}: cannot be made: File exists\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["scam"],
        ["scan", "--measure", "speed"],
        ["scan", "--device", "tpu"],
        ["scan", "--lengths", "long"],
        [],
    ],
)
def test_arguments_that_cannot_be_parsed(cli: Cli, arguments: list[str]) -> None:
    code, out, err = cli("bench", *arguments)
    assert (code, out) == (2, "")
    assert err
