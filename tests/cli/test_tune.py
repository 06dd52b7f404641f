"""``alignmamba tune``: what it prints, and how it answers mistakes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Said

Cli = Callable[..., Said]
HELD = ("--set", "fit.epochs=1", "options.d_model=8", "options.depth=1", "loader.batch_size=16")


def test_a_search_from_plan_to_table(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuning"
    methods = ("--methods", "single-stream-transformer", "late-fusion")
    arguments = ["tune", "--data", corpus, "--out", out, *methods, "--trials", "2", "--repeats", "1", *HELD]
    dry = cli(*arguments, "--dry-run")
    assert dry.code == 0, dry.err
    assert "0.0001 to 0.01 (log)   all" in dry.out
    assert "held: fit.epochs=1" in dry.out
    assert "accuracy on the 12 validation samples, one training" in dry.out
    assert not out.exists()
    planned = json.loads(cli(*arguments, "--dry-run", "--json").out)
    assert planned["spaces"]["late-fusion"]["options.dropout"] == "0 to 0.5"

    done = cli(*arguments)
    assert done.code == 0, done.err
    assert "4 trials, 0 of them finished before" in done.err
    assert "1/4 single-stream-transformer, trial 0: accuracy 0." in done.err
    assert "; best 0." in done.err
    assert "2/2" in done.out

    shown = cli("tune", "show", out, "--importance")
    assert shown.code == 0, shown.err
    assert "fit.learning_rate=0.003" in shown.out
    assert "fewer than 5 trials with a score: single-stream-transformer, late-fusion" in shown.out
    told = json.loads(cli("tune", "show", out, "--importance", "--json").out)
    assert [(each["method"], each["trials"]) for each in told["methods"]] == [
        ("single-stream-transformer", 2),
        ("late-fusion", 2),
    ]
    assert told["methods"][0]["importance"] == {}

    gone = cli("tune", "show", tmp_path / "elsewhere")
    assert gone.code == 2
    assert "found no tuning.json" in gone.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "late-fuson", "--out", "OUT"), "perhaps you meant 'late-fusion'"),
        (("--methods", "pooled-linear", "--out", "OUT"), "which is solved on valid and has nothing to tune"),
        (("--trials", "0", "--out", "OUT"), "trials: found 0"),
        (("--repeats", "0", "--out", "OUT"), "repeats: found 0"),
        ((), "out: expected --out DIR"),
        (("--out", "CORPUS"), "holds something that is not a search"),
        (("--out", "OUT", "--set", "model=mult"), "model: found 'mult', but --methods names what is tuned"),
        (("--out", "OUT", "--set", "fit.select=loss"), "fit.select: found 'loss'"),
        (("--out", "OUT", "--storage", "nonsense"), "storage: found 'nonsense'"),
        (("--out", "OUT", "--importance"), "importance: expected only with"),
        (("--out", "OUT", "--model", "mult"), "--model: tune has no such option"),
        (("show", "OUT", "--trials", "7"), "show takes DIR and --importance alone: drop --data, --trials"),
        (("show",), "expected show DIR"),
        (("list", "OUT"), "found 'list "),
    ],
)
def test_mistakes_end_in_one_line(
    cli: Cli, corpus: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    places = {"OUT": str(tmp_path / "tuning"), "CORPUS": str(corpus)}
    found = cli("tune", *(places.get(each, each) for each in arguments), "--data", corpus)
    assert found.code == 2
    assert said in found.err
    assert found.err.count("\n") == 1
    assert not (tmp_path / "tuning").exists()


@pytest.mark.usefixtures("in_process")
def test_a_comparison_says_what_tuning_cost(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    model = "single-stream-transformer"
    tuned, grid = tmp_path / "tuning", tmp_path / "grid"
    asked = ("--methods", model, "--trials", "2", "--repeats", "1", *HELD)
    assert cli("tune", "--data", corpus, "--out", tuned, *asked).code == 0
    compared = ("--models", model, "--model", model, "--without-references", "--seeds", "1", "--tuned", tuned)
    done = cli("experiment", "comparison", "--data", corpus, "--out", grid, *compared)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "Tuning was equal: each method has the best settings of 2 trials by accuracy on valid" in said
    assert f"Seconds that the search took: {model} " in said
    record = json.loads((grid / "experiment.json").read_text())
    assert record["tuned"]["methods"][model]["trials"] == 2
    (tuned / "tuning.json").unlink()  # the report needs the experiment alone
    assert cli("report", grid).code == 0
