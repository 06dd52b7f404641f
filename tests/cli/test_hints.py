"""A command line that cannot be meant is answered with the nearest one that can, in one line."""

import pytest

from alignmamba.cli.main import main


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["trian"], "trian: no such verb, perhaps you meant train; there are train, "),
        (["help"], "help: no such verb, perhaps you meant alignmamba --help"),
        ([], "expected a verb first; there are train, "),
        (["--verion"], "expected a verb first, found '--verion'; there are train, "),
        (
            ["predict", "runs/x"],
            ("predict: expected --out FILE.csv|.parquet; see alignmamba predict --help"),
        ),
        (["experiment", "--out", "x"], "experiment: expected NAME; "),
        (["experiment", "missing", "--seed", "3"], "no such option, perhaps you meant --seeds; see"),
        (["experiment", "missing", "--speakers", "scan"], "--speakers: experiment has no such option; see"),
        (["experiment", "missing", "--d-model", "8"], "perhaps you meant --set options.d_model=VALUE; see"),
        (["experiment", "efficiency", "--d-model", "8"], "perhaps you meant --set d_model=VALUE; see"),
        (["experiment", "efficiency", "--measure", "time"], "--measure: experiment has no such option; see"),
        (
            ["experiment", "missing", "--out", "x", "--rates", "2"],
            "error: rates.0: found 2.0 (float), expected less than 1\n",
        ),
        (["evaluate"], "evaluate: expected RUN; "),
        (
            ["evaluate", "runs/x", "corpus"],
            "evaluate takes no further word, found 'corpus'; perhaps you meant --data corpus; ",
        ),
        (["doctor", "x"], "doctor takes no further word, found 'x'; see alignmamba doctor --help"),
        (["train", "--", "--models"], "--models: train has no such option; see alignmamba train --help\n"),
        (["train", "-q"], "-q: train has no such option; "),
        (["train", "--dry-run=3"], "--dry-run: takes no value, found '3'; "),
        (["train", "--seed", "x"], "--seed: found 'x', expected a whole number; see alignmamba train --help"),
        (["train", "--split_valid=q"], "--split-valid: found 'q', expected a number; "),
        (["train", "--missing-rate", "0.5", "abc"], "--missing-rate: found '0.5', 'abc', expected numbers; "),
        (["evaluate", "runs/x", "--split"], "--split: expected a value, found none; "),
        (
            ["bench", "modl"],
            (
                "subject: found 'modl', expected one of scan, match, mmd, block, backbone, model, perhaps you"
                " meant model; "
            ),
        ),
        (
            ["train", "--epochs", "3"],
            "--epochs: train has no such option, perhaps you meant --set fit.epochs=VALUE; ",
        ),
        (
            ["train", "--lr=0.1"],
            "--lr: train has no such option, perhaps you meant --set fit.learning_rate=VALUE; ",
        ),
        (["train", "--batch-size", "8"], "perhaps you meant --set loader.batch_size=VALUE; "),
        (
            ["train", "--dta", "x"],
            "--dta: train has no such option, perhaps you meant --data; see alignmamba train --help",
        ),
        (
            ["evaluate", "runs/x", "--drp", "audio"],
            "--drp: evaluate has no such option, perhaps you meant --drop; ",
        ),
        (
            ["train", "reviews"],
            "train takes no further word, found 'reviews'; perhaps you meant --data reviews; ",
        ),
        (["train", "--set", "fit.lr=1"], "fit.lr: unknown key, perhaps you meant 'fit.learning_rate'"),
        (
            ["train", "--set", "targets.mood.weights=1"],
            "targets.mood.weights: unknown key, perhaps you meant 'targets.mood.weight'",
        ),
        (["train", "--set", "targets.mood.depth=1"], "targets.mood.depth: unknown key\n"),
        (["train", "--set", "lr=1"], "lr: unknown key, perhaps you meant 'fit.learning_rate'"),
        (["train", "--set", "fit.loss=l1"], "fit.loss: unknown key, perhaps you meant 'fit.regression_loss'"),
        (["train", "--set", "fit.wd=1"], "fit.wd: unknown key, perhaps you meant 'fit.weight_decay'"),
        (
            ["train", "--set", "fit.batch_size=1"],
            "fit.batch_size: unknown key, perhaps you meant 'loader.batch_size'",
        ),
        (
            ["train", "--model", "late-fusion", "--set", "options.local.window=5"],
            "options.local: model late-fusion has no such option; it belongs to alignmamba",
        ),
    ],
)
def test_the_nearest_is_named(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


def test_underscores_and_values_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    """An option may be written with underscores, and a value may look like anything."""
    assert main(["train", "--missing_rate", "2", "--set", "fit.epochs=1", "--dry-run"]) == 2
    assert "no such option" not in capsys.readouterr().err


def test_every_setting_is_listed_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    keys = [line.partition("=")[0] for line in lines[::2]]
    assert {"fit.learning_rate", "loader.batch_size", "options.local.window", "seed"} <= set(keys)
    assert len(set(keys)) == len(keys)
    assert all(meaning.startswith("    ") and meaning.strip() for meaning in lines[1::2])
    assert {"preset=default", "options.pool_by=modality", "options.encoder.kernel_size=11"} <= set(lines)
    assert main(["train", "--settings", "--preset", "paper"]) == 0
    assert "options.pool_by=sequence" in capsys.readouterr().out.splitlines()
    assert main(["train", "--settings", "--model", "mult"]) == 0
    assert {"options.encoder.kind=none", "model=mult"} <= set(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("key", ["fit.nesterov", "fit.optimizer", "fit.scheduler", "loader.shuffle"])
def test_a_shared_section_makes_no_hint(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A key that only shares its section with another is not answered with that."""
    assert main(["train", "--set", f"{key}=1"]) == 2
    assert capsys.readouterr().err == f"error: {key}: unknown key\n"
