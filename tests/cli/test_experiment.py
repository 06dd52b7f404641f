"""``alignmamba experiment``: what it says, and how it answers mistakes."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from test_main import raising
from torch import nn

from alignmamba.cli.experiment import GridLines
from alignmamba.cli.terminal_tables import blocks, rows_table
from alignmamba.evaluation.computing_cost import Spread
from alignmamba.evaluation.tables import Entry, ResultTable
from alignmamba.recipes.bench.measurement import BenchConfig, Report, Row
from alignmamba.recipes.display import duration
from alignmamba.recipes.experiments.cells import Job
from alignmamba.recipes.experiments.efficiency import Figures
from cli.conftest import Said
from small_run import SETTINGS, write_small_corpus

Cli = Callable[..., Said]


@pytest.mark.usefixtures("in_process")
def test_an_experiment_from_plan_to_tables(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    arguments = [
        "experiment",
        "missing",
        "--data",
        corpus,
        "--out",
        tmp_path / "grid",
        "--models",
        "alignmamba",
        "crossmodal-transformer",
    ]
    arguments += ["--rates", "0.1", "0.4", "--mixed", "--seeds", "1", "--set", *SETTINGS]
    dry = cli(*arguments, "--dry-run")
    assert dry.code == 0
    assert "alignmamba, 10 %, seed 0" in dry.out
    assert "pending" in dry.out
    assert not (tmp_path / "grid").exists()

    done = cli(*arguments)
    assert done.code == 0, done.err
    assert "accuracy on small with modalities missing" in " ".join(done.out.split())
    assert "40 %" in done.out
    assert "average" in done.out
    assert "2 runs, 0 of them finished before" in done.err
    assert "1/2 alignmamba, 10 %, seed 0: finished, 2 s; about 2 s left" in done.err
    assert "all done" in done.err

    again = cli(*arguments, "--json")
    assert again.code == 0
    told = json.loads(again.out)
    assert told["states"] == {"finished": 2}
    assert [table["name"] for table in told["tables"]] == ["missing-accuracy", "missing-f1_weighted"]
    dry = cli(*arguments, "--dry-run", "--json")
    assert json.loads(dry.out)["states"] == {"finished": 2}
    for metric, shown, note in (
        ("accuracy", 1, ""),
        ("f1_macro", 2, "no table of missing shows f1_macro; all"),
    ):
        some = cli(*arguments, "--metrics", metric)
        assert " ".join(some.out.split()).count("on small with modalities missing") == shown
        assert note in some.err


def _ablation(cli: Cli, corpus: Path, out: Path, *settings: str) -> Said:
    """One seed of every variant."""
    options = ("--data", corpus, "--out", out, "--seeds", "1", "--set", *settings)
    return cli("experiment", "ablation", *options)


@pytest.mark.usefixtures("in_process")
def test_a_failed_run_is_told_by_line_and_exit_code(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    # Nothing is trained where every step is warm-up without an end: the learning rate is refused when
    # training begins.
    settings = ["fit.learning_rate=1e30", "fit.gradient_clip=0", *SETTINGS]
    said = _ablation(cli, corpus, tmp_path / "grid", *settings)
    assert said.code == 2
    assert "failed: full, seed 0: " in said.err
    assert cli("report", tmp_path / "grid").code == 0


@pytest.mark.usefixtures("in_process")
def test_a_damaged_run_is_named_and_the_exit_code_is_2(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid"
    command = ("experiment", "comparison", "--data", corpus, "--models", "best-constant", "--out", out)
    command += ("--seeds", "1", "--without-alone", "--without-references")
    assert cli(*command).code == 0
    key = json.loads((out / "experiment.json").read_text())["cells"][0]["key"]
    (out / "cells" / key / "metrics.json").write_text("{")
    said = cli(*command)
    assert said.code == 2
    assert f"damaged: best-constant, seed 0: {out / 'cells' / key / 'metrics.json'}: " in said.err
    assert f"to run it again, remove {out / 'cells' / key}" in said.err
    told = json.loads(cli(*command, "--json").out)
    assert told["states"] == {"damaged": 1}
    assert list(told["damaged"]) == ["best-constant, seed 0"]
    assert told["failures"] == {}


@pytest.mark.usefixtures("in_process")
def test_a_fault_of_ours_in_a_run_has_the_exit_code_of_one(
    cli: Cli, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "alignmamba.recipes.experiments.cell_process._work",
        lambda *_: raising(ZeroDivisionError("by zero"))(None),
    )
    said = _ablation(cli, corpus, tmp_path / "grid", *SETTINGS)
    assert said.code == 1
    assert "failed: full, seed 0: internal: ZeroDivisionError: by zero, see " in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["comparison", "--models", "late-fusoin"], "models: found 'late-fusoin', expected some of"),
        (["comparison", "--seeds", "0"], "seeds: "),
        (["comparison", "--jobs", "0"], "jobs: "),
        (["comparison", "--shard", "5/3"], "shard: found 5/3, expected i/n with i from 1 to n"),
        (["comparison", "--shard", "x"], "shard: found 'x', expected i/n"),
        (["comparison", "--slurm", "timeout"], "--slurm 'timeout': expected KEY=VALUE"),
        (["comparison", "--model", "nothing"], "model: found 'nothing'"),
        (["comparison", "--set", "fit.epoch=3"], "fit.epoch: unknown key"),
        (["missing", "--rates", "1.5"], "rate"),
        (["missing", "--rates", "0.15", "--protocol", "imder-sample"], "0.15"),
        (["missing", "--protocol", "none"], "none"),
        (
            ["comparison", "--metrics", "acc2_non0"],
            "metrics: found 'acc2_non0', expected some of accuracy, f1_macro",
        ),
    ],
)
def test_mistakes_are_one_line(
    cli: Cli, corpus: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    ended = cli("experiment", *arguments, "--data", corpus, "--out", tmp_path / "grid")
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["comparison", "--rates", "1.5"], "rates.0: found 1.5"),
        (["comparison", "--lengths", "0"], "lengths.0: found 0"),
        (["distance", "--lengths", "8", "8"], "lengths: expected different ones"),
        (["distance", "--models", "late-fusoin"], "models: found 'late-fusoin', expected some of"),
        (["ablation", "--samples", "nobody"], "samples: 'nobody' is not in the test split"),
    ],
)
def test_a_wrong_value_is_refused_also_where_it_does_not_matter(
    cli: Cli, corpus: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    settings = ("--seeds", "1", "--set", *SETTINGS, "--dry-run")
    ended = cli("experiment", *arguments, "--data", corpus, "--out", tmp_path / "grid", *settings)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1


def test_options_of_other_experiments_change_nothing(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    common = ("--data", corpus, "--out", tmp_path / "grid", "--seeds", "1", "--dry-run", "--json")
    others = ("--rates", "0.2", "--mixed", "--protocol", "tokens", "--samples", "test-000001")
    alone = cli("experiment", "distance", *common, "--set", *SETTINGS)
    both = cli("experiment", "distance", *others, "--lengths", "100", *common, "--set", *SETTINGS)
    assert (alone.code, both.code) == (0, 0), both.err
    assert json.loads(both.out) == json.loads(alone.out)
    assert "note: distance ignores --rates, an option of missing" in both.err
    assert "note: distance ignores" not in alone.err


def test_what_another_experiment_needs_of_a_corpus_stops_none(cli: Cli, tmp_path: Path) -> None:
    made = write_small_corpus(tmp_path / "few", sizes={"train": 12, "valid": 6, "test": 3})
    given = ("--data", made.location, "--models", "best-constant", "--set", "modalities=[text]")
    code, _, err = cli("experiment", "comparison", *given, "--dry-run", "--out", tmp_path / "grid")
    assert (code, err.count("error")) == (0, 0)
    code, _, err = cli("experiment", "missing", *given, "--dry-run", "--out", tmp_path / "grid")
    assert code == 2
    assert "protocol: corpus 'small' has one modality" in err


@pytest.mark.usefixtures("in_process")
def test_plans_without_times_have_no_table_and_say_why(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid"
    said = cli("experiment", "plans", "--data", corpus, "--out", out, "--seeds", "1", "--set", *SETTINGS)
    assert said.code == 0, said.err
    assert "1 run, 0 of them finished before" in said.err
    assert "1 finished; no table, as no two modalities of test have times; " in said.err
    assert not (out / "tables").exists()


@pytest.mark.parametrize("name", ["plans", "distance"])
def test_one_modality_has_no_alignment_to_look_at(cli: Cli, corpus: Path, tmp_path: Path, name: str) -> None:
    given = ("--data", corpus, "--set", "modalities=[text]", "--out", tmp_path / "grid")
    code, _, err = cli("experiment", name, *given)
    assert code == 2
    assert f"{name}: corpus 'small' has one modality to learn from, 'text', expected two or more" in err
    assert not (tmp_path / "grid").exists()


def test_a_directory_that_is_something_else_is_left_alone(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    ended = cli("experiment", "plans", "--data", corpus, "--out", tmp_path, "--seeds", "1")
    assert (ended.code, ended.out) == (2, "")
    assert "holds something that is not an experiment" in ended.err
    ended = cli("experiment", "efficiency", "--out", tmp_path)
    assert ended.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_efficiency_lays_down_what_was_measured(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "alignmamba.recipes.experiments.efficiency_run.paper_figures",
        lambda _, say: (say("measured"), FIGURES)[1],
    )
    ended = cli("experiment", "efficiency", "--out", tmp_path / "grid", "--json")
    assert ended.code == 0, ended.err
    tables = {table["name"]: table for table in json.loads(ended.out)["tables"]}
    assert set(tables) == {"efficiency-memory", "efficiency-passes", "efficiency-flops"}
    memory = tables["efficiency-memory"]
    assert memory["columns"] == ["MB at 800", "× AlignMamba at 800", "paper: × AlignMamba"]
    assert [entry and entry["mean"] for entry in memory["entries"][1]] == [
        30.0,
        3.0,
        pytest.approx(10.7 / 8.53),
    ]
    assert [entry and entry["mean"] for entry in tables["efficiency-passes"]["entries"][1]][:2] == [4.0, 2.0]
    assert [entry and entry["mean"] for entry in tables["efficiency-flops"]["entries"][1]][:2] == [5.0, 5.0]
    assert list((tmp_path / "grid" / "figures").glob("figure3.*"))
    shown = cli("experiment", "efficiency", "--out", tmp_path / "grid")
    assert shown.code == 0
    assert tables["efficiency-flops"]["caption"] in shown.out
    assert cli("report", tmp_path / "grid").code == 0


def test_a_dry_run_of_efficiency_measures_and_writes_nothing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> None:
        raise AssertionError("something was measured")

    monkeypatch.setattr("alignmamba.recipes.experiments.efficiency.measure", measured)
    out = tmp_path / "grid"
    dry = cli("experiment", "efficiency", "--out", out, "--lengths", 100, 5000, "--dry-run")
    assert dry.code == 0, dry.err
    assert "100, 5000" in dry.out
    assert dry.out.endswith("dry run: nothing was measured or written\n")
    told = json.loads(
        cli("experiment", "efficiency", "--out", out, "--lengths", 100, 5000, "--dry-run", "--json").out
    )
    assert {part: each["lengths"] for part, each in told["parts"].items()} == {
        "flops": [1024],
        "passes": [5000],
        "memory": [100, 5000],
    }
    of_others = ("--rates", "0.5", "--models", "mult", "--seeds", "2")
    assert cli("experiment", "efficiency", "--out", out, *of_others, "--dry-run").code == 0
    of_runs = ("--data", "nowhere", "--jobs", "7", "--shard", "1/2")
    refused = cli("experiment", "efficiency", "--out", out, *of_runs, "--dry-run")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert (
        "efficiency trains nothing, and draws its samples itself: drop --data, --jobs, --shard" in refused.err
    )
    wrong = cli("experiment", "efficiency", "--out", out, "--rates", "1.5", "--dry-run")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert not list(tmp_path.iterdir())
    (tmp_path / "letter.txt").write_text("mine")
    assert cli("experiment", "efficiency", "--out", tmp_path, "--dry-run").code == 2


@pytest.mark.parametrize("name", ["comparison", "missing", "ablation", "distance", "plans"])
def test_a_dry_run_of_a_grid_runs_no_model_and_writes_nothing(
    cli: Cli, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def called(*_: object, **__: object) -> None:
        raise AssertionError("a model was run")

    monkeypatch.setattr(nn.Module, "__call__", called)
    monkeypatch.chdir(tmp_path)
    dry = cli(
        "experiment",
        name,
        "--data",
        corpus,
        "--out",
        tmp_path / "grid",
        "--seeds",
        1,
        "--set",
        *SETTINGS,
        "--dry-run",
    )
    assert dry.code == 0, dry.err
    assert dry.out.endswith("dry run: nothing was trained or written\n")
    dry = cli("train", "--data", corpus, "--set", *SETTINGS, "--dry-run")
    assert dry.code == 0, dry.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("scipy", "experiments", ("experiment", "comparison")),
        ("submitit", "experiments", ("experiment", "comparison", "--engine", "slurm")),
        ("tensorboard", "tensorboard", ("experiment", "comparison", "--set", "fit.tensorboard=true")),
        ("tensorboard", "tensorboard", ("train", "--set", "fit.tensorboard=true")),
    ],
)
def test_a_missing_package_is_told_before_any_work(
    cli: Cli,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    ended = cli(*arguments, "--data", corpus, "--out", tmp_path / "out")
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert ended.err.endswith(f": {package} is not installed, try: pip install 'alignmamba[{extra}]'\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_process")
def test_what_a_page_lacks_is_told_before_any_work(
    cli: Cli, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    settings = ["fit.learning_rate=1e30", "fit.gradient_clip=0", *SETTINGS]
    said = cli(
        "experiment",
        "plans",
        "--data",
        corpus,
        "--out",
        tmp_path / "grid",
        "--seeds",
        "1",
        "--set",
        *settings,
    )
    first, *_ = said.err.splitlines()
    assert (
        first == "`alignmamba report` cannot write its page here: jinja2 is not installed, try: pip install"
        " 'alignmamba[experiments]'"
    )


def report(*rows: Row) -> Report:
    return Report(config=BenchConfig.checked(subject="model"), memory_limit_bytes=1e9, rows=rows, slopes=())


def row(peer: str, times: int, length: int = 800) -> Row:
    seconds = Spread(median=2.0 * times, least=1.0, most=9.0, count=5)
    return Row(
        peer=peer,
        what=peer,
        length=length,
        state="measured",
        flops=1e9 * (1 if times == 1 else 5),
        seconds=seconds,
        peak_bytes=int(1e7) * (1 if times == 1 else 3),
        time_ratio=float(times),
        memory_ratio=1.0 if times == 1 else 3.0,
    )


BOTH = report(row("alignmamba", 1), row("transformer-materialised", 2))
FIGURES = Figures(
    memory=BOTH,
    passes=BOTH,
    flops=report(row("alignmamba", 1, 1024), row("transformer-materialised", 2, 1024)),
)


WIDE = ResultTable(
    name="comparison",
    title="Comparison",
    row_label="method",
    rows=("single-stream-transformer", "crossmodal-transformer"),
    columns=("mae", "corr", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc5", "acc7"),
    entries=(
        (Entry(values=(0.5, 0.6, 0.7), mean=0.6, deviation=0.1, low=0.41, high=0.77, mark="level"),) * 8,
    )
    * 2,
)


def test_cells_of_a_wide_table_are_not_broken() -> None:
    """At 120 columns, eight metrics of two methods."""
    assert len(blocks(WIDE.shown(), 120)) > 2
    parts = blocks(WIDE.shown(intervals=False), 120)
    assert [header[0] for header, _ in parts] == ["method"] * len(parts)
    assert [name for header, _ in parts for name in header[1:]] == list(WIDE.columns)
    for header, rows in parts:
        written = io.StringIO()
        Console(width=120, file=written).print(rows_table("part", header, rows))
        assert sum(line.count("0.600 ± 0.100 ≈") for line in written.getvalue().splitlines()) == 2 * (
            len(header) - 1
        )
    narrow = blocks(WIDE.of_columns(["acc7", "mae"]).shown(), 120)
    assert [header for header, _ in narrow] == [("method", "mae", "95 % interval", "acc7", "95 % interval")]
    assert narrow[0][1][1] == (
        "crossmodal-transformer",
        "0.600 ± 0.100 ≈",
        "[0.410, 0.770]",
        "0.600 ± 0.100 ≈",
        "[0.410, 0.770]",
    )


def test_the_time_left_is_estimated() -> None:
    lines = GridLines(workers=2)
    lines.started(done=1, total=7)
    job = Job(key="k", label="x, seed 0", config=None, analyses=())  # type: ignore[arg-type] # the lines look at the label alone
    lines.finished(job, "finished", reason="", seconds=60)
    assert lines.estimate() == "about 2 min left"
    lines.finished(job, "finished", reason="", seconds=180)
    assert lines.estimate() == "about 4 min left"
    assert [duration(seconds) for seconds in (5, 89, 90, 7300)] == ["5 s", "89 s", "2 min", "2.0 h"]
