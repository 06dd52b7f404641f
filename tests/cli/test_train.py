"""``alignmamba train``: settings, refusals, the run directory, interruption and resumption."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from alignmamba.contracts import Role, Task
from alignmamba.data.archive import write_corpus
from alignmamba.methods import FAMILIES, METHODS
from alignmamba.recipes.assembly import environment
from alignmamba.recipes.display import EpochLines
from small_run import SETTINGS, SIZES, write_small_corpus

Cli = Callable[..., tuple[int, str, str]]


def everything(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["fit.epoch=3"], "fit.epoch: unknown key, perhaps you meant 'fit.epochs'"),
        (["epochs=3"], "epochs: unknown key, perhaps you meant 'fit.epochs'"),
        (["options.d_modle=3"], "options.d_modle: unknown key, perhaps you meant 'options.d_model'"),
        (
            ["options.encoder.knd=conv"],
            "options.encoder.knd: unknown key, perhaps you meant 'options.encoder.kind'",
        ),
        (["d_model=3"], "d_model: unknown key, perhaps you meant 'options.d_model'"),
        (["model.d_model=3"], "model.d_model: unknown key, perhaps you meant 'options.d_model'"),
        (["zzz=3"], "zzz: unknown key"),
        (["fit.epochs=ten"], "fit.epochs: found 'ten' (str), expected a valid integer"),
        (["fit.epochs=0"], "fit.epochs: found 0 (int), expected greater than or equal to 1"),
        (["fit.epochs=2.5"], "fit.epochs: found 2.5 (float), expected a valid integer"),
        (["fit.epochs='3'"], "fit.epochs: found '3' (str), expected a valid integer"),
        (["fit.compile=1"], "fit.compile: found 1 (int), expected a valid boolean"),
        (["options.depth=0"], "options.depth: found 0 (int), expected greater than or equal to 1"),
        (["options.bidirectional=3"], "options.bidirectional: found 3 (int), expected a valid boolean"),
        (["options.pooling=men"], "options.pooling: found 'men' (str), expected 'mean', 'max' or 'last'"),
        (["options.task=3"], "options.task: comes from the corpus, so it cannot be set"),
        (["options.anchor_order=[smell]"], "options.anchor_order: found 'smell', expected some of"),
        (["preset=papr"], "preset: expected one of ['0.1', 'default', 'paper'], found 'papr'"),
        (
            ["model=alignmambo"],
            (
                f"model: found 'alignmambo', expected one of {', '.join(METHODS)}, perhaps you meant"
                " 'alignmamba'"
            ),
        ),
        (["seed.x=1"], "seed: found {'x': 1} (dict), expected a valid integer"),
        (["fit=3"], "fit: found 3 (int), expected an object"),
        (["fit.epochs"], "--set 'fit.epochs': expected KEY=VALUE"),
        (["=3"], "--set '=3': expected KEY=VALUE"),
        (["fit..epochs=3"], "--set 'fit..epochs=3': expected KEY=VALUE"),
        (["fit.epochs=[3"], "--set fit.epochs: not YAML"),
        (
            ["engine.devices=0", "seed=-1"],
            "engine.devices: found 0 (int), expected greater than or equal to 1; seed: found -1 (int)",
        ),
        (["missing.protocl=gcnet"], "missing.protocl: unknown key, perhaps you meant 'missing.protocol'"),
        (["missing.protocol=gcnt"], "missing.protocol: found 'gcnt' (str), expected 'none', 'gcnet', "),
        (["missing.protocol=gcnet"], "missing: protocol 'gcnet' needs a rate"),
        (
            ["missing.rate=0.3"],
            "missing.rate: found 0.3, but protocol 'none' has no rate, expected 0 or nothing",
        ),
        (
            ["missing={protocol: gcnet, rate: some}"],
            "missing.rate: found 'some', expected a number from 0 to less than 1",
        ),
        (
            ["missing={protocol: gcnet, rate: [0.1, 1]}"],
            "missing.rate: found [0.1, 1], expected a number from 0 to less than 1",
        ),
        (
            ["fit.select=accuracies"],
            "fit.select: found 'accuracies', expected one of auto, loss, accuracy, f1_macro",
        ),
    ],
)
def test_wrong_settings(cli: Cli, corpus: Path, tmp_path: Path, settings: list[str], said: str) -> None:
    out = tmp_path / "run"
    code, printed, err = cli("train", "--data", corpus, "--out", out, "--set", *settings)
    assert (code, printed) == (2, "")
    assert err.startswith(f"error: {said}"), err
    assert len(err.splitlines()) == 1
    assert not out.exists()


def test_wrong_options(cli: Cli, corpus: Path) -> None:
    code, _, err = cli("train", "--data", corpus, "--seed", "-1", "--devices", "0")
    assert code == 2
    assert err == (
        "error: engine.devices: found 0 (int), expected greater than or equal to 1;"
        " seed: found -1 (int), expected greater than or equal to 0\n"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--missing-protocol", "gcnt"], "missing.protocol: found 'gcnt' (str), expected 'none'"),
        (["--missing-protocol", "gcnet"], "missing: protocol 'gcnet' needs a rate"),
        (["--missing-rate", "0.3"], "missing.rate: found 0.3, but protocol 'none' has no rate"),
        (
            ["--missing-protocol", "fixed", "--missing-rate", "0.3"],
            "missing.rate: found 0.3, but protocol 'fixed' has no rate",
        ),
        (
            ["--missing-protocol", "gcnet", "--missing-rate", "1"],
            "missing.rate: found 1.0, expected a number from 0 to less than 1",
        ),
        (
            ["--missing-protocol", "gcnet", "--missing-rate", "-0.1"],
            "missing.rate: found -0.1, expected a number",
        ),
        (
            ["--missing-protocol", "imder-sample", "--missing-rate", "0.25"],
            "missing.rate: found 0.25, expected one of 0, 0.1, 0.2 .. 0.7",
        ),
        (
            ["--missing-protocol", "imder-batch", "--missing-rate", "0.2"],
            "split 'valid': found 1 groups of 32 samples, expected at least 6 for protocol 'imder-batch'",
        ),
    ],
)
def test_wrong_protocols(
    cli: Cli, corpus: Path, run: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    code, printed, err = cli("train", "--data", corpus, "--out", tmp_path / "run", *options)
    assert (code, printed) == (2, "")
    assert err.startswith(f"error: {said}"), err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    code, printed, err = cli("evaluate", run, *options)
    assert (code, printed) == (2, "")
    assert err.startswith(f"error: {said.replace('valid', 'test')}"), err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fit: {epochs: 3", "not YAML: "),
        ("fit:\n  epochs: 3\n  epochs: 4\n", "not YAML: key 'epochs' appears twice in line 2"),
        (
            "fit: &fit\n  again: *fit\n",
            "not YAML: alias *fit, expected its value in line 2, column 10",
        ),
        ("- fit\n", "found ['fit'] (list), expected a mapping of keys to values"),
        ("!!python/object/apply:os.system [ls]\n", "not YAML: could not determine a constructor"),
    ],
)
def test_wrong_configuration_file(cli: Cli, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text, encoding="utf-8")
    code, _, err = cli("train", "--config", file)
    assert code == 2
    assert err.startswith(f"error: config {file}: {said}"), err


def test_wrong_places(cli: Cli, corpus: Path, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("x", encoding="utf-8")
    damaged = tmp_path / "damaged.yaml"
    damaged.write_bytes(b"\xff\xfe\x00")
    before = everything(run)
    cases = [
        (["--config", tmp_path / "none.yaml"], f"{tmp_path / 'none.yaml'}: expected a file, found nothing"),
        (["--config", tmp_path], f"{tmp_path}: expected a file, found a folder"),
        (["--config", damaged], f"config {damaged}: not a text file in UTF-8"),
        (["--data", tmp_path / "none"], "none: expected a corpus directory, found nothing"),
        (["--data", file], "file: expected a corpus directory or a file"),
        (["--data", foreign], "foreign: not a corpus"),
        (["--data", corpus, "--out", file], f"out {file}: a file is there; choose another directory"),
        (["--data", corpus, "--out", file / "run"], f"out {file / 'run'}: cannot be made: "),
        (
            ["--data", corpus, "--out", foreign],
            f"out {foreign}: holds something that is not a run; choose another directory",
        ),
        (
            ["--data", corpus, "--out", run],
            f"out {run}: holds a finished run; choose another directory, or ",
        ),
        (["--resume", tmp_path / "none"], f"run {tmp_path / 'none'}: no such directory"),
        (["--resume", file], f"run {file}: found a file, expected the directory of a run"),
        (["--resume", foreign], f"run {foreign}: not the directory of a run"),
        (
            ["--resume", run, "--seed", 3, "--dry-run"],
            "--resume takes the run's own settings: drop --seed, --dry-run",
        ),
    ]
    for arguments, said in cases:
        code, out, err = cli("train", *arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err, err
        assert len(err.splitlines()) == 1
    assert everything(run) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.yaml", "file", "foreign"]


def test_flags_win_over_settings_and_those_over_the_file(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "seed: 1\nfit: {epochs: 7, learning_rate: 1e-4, patience: 3}\nnonfinite: zero\n", encoding="utf-8"
    )
    arguments = ["--set", "seed=2", "fit.epochs=8", "--seed", "3", "--set", "fit.patience=4"]
    code, out, _ = cli("train", "--data", corpus, "--config", file, *arguments, "--dry-run", "--json")
    assert code == 0
    config = json.loads(out)["config"]
    assert (config["seed"], config["fit"]["epochs"], config["fit"]["patience"]) == (3, 8, 4)
    assert (config["fit"]["learning_rate"], config["nonfinite"]) == (1e-4, "zero")
    assert config["fit"]["weight_decay"] == 0.01


def test_a_dry_run_writes_nothing(
    cli: Cli, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("train", "--data", corpus, "--set", *SETTINGS, "--dry-run")
    assert (code, err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    shown = yaml.safe_load(out)  # the facts below the settings are comments
    assert shown["fit"]["epochs"] == 3
    assert shown["options"]["d_conv"] == 4
    assert "# batches per epoch: 5" in out
    assert "# samples: train 36, valid 12, test 14" in out
    code, out, _ = cli("train", "--data", corpus, "--set", *SETTINGS, "--dry-run", "--json")
    facts = json.loads(out)
    assert (facts["batches_per_epoch"], facts["samples"]) == (5, SIZES)
    assert facts["out"] == f"runs/small-alignmamba-{facts['digest'][:8]}-seed0"
    assert facts["parameters"] > 1000


def test_folds_are_trained_and_scored_together(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    asked = ("train", "--data", corpus, "--model", "best-constant", "--folds", "3", "--out", tmp_path / "run")
    dry = cli(*asked, "--dry-run")
    assert f"# out: {tmp_path / 'run'}" in dry.out
    assert not (tmp_path / "run").exists()
    said = json.loads(cli(*asked, "--json").out)
    assert said["samples"] == sum(SIZES.values())
    assert list(said["folds"]) == ["fold 0", "fold 1", "fold 2"]
    assert set(said["folds"]["fold 0"]) == set(said["metrics"]["test"])
    again = cli(*asked)
    assert "together" in again.out
    assert f"directory: {tmp_path / 'run'}" in again.out.replace("\n", "")
    for words, message in (
        (("--folds", "2"), "folds: found 2, expected 3 or more"),
        (("--folds", "3", "--split-valid", "0.2"), "split_valid: a fold has a valid split of its own"),
        (("--folds", "3", "--resume", tmp_path), "--resume takes the run's own settings: drop --folds"),
    ):
        refused = cli("train", "--data", corpus, *words)
        assert (refused.code, message in refused.err) == (2, True), refused.err


def test_training_that_fails_at_once_leaves_nothing(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, _, err = cli(
        "train",
        "--data",
        corpus,
        "--out",
        out,
        "--set",
        *SETTINGS,
        "fit.learning_rate=1e30",
        "fit.gradient_clip=0",
    )
    assert code == 2
    assert err.startswith("error: epoch 1, step "), err
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_holds_everything(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "run.json", "environment.json", "metrics.json", "log.csv"),
        *("predictions_valid.csv", "predictions_test.csv", "confusion_valid.csv", "confusion_test.csv"),
        *("model", "best.ckpt", "last.ckpt", "SHA256SUMS"),
    }
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["optimiser_steps"] == 15
    assert metrics["references"]["best_reachable_accuracy"] == 1.0
    assert set(metrics["metrics"]) == {"valid", "test"}
    versions = json.loads((run / "environment.json").read_text(encoding="utf-8"))["versions"]
    assert {"alignmamba", "python", "torch", "numpy"} <= versions.keys()
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert config["options"]["d_state"] == 4
    assert (run / "config.yaml").stat().st_mode & 0o077 == (run / "log.csv").stat().st_mode & 0o077


def test_training_prints_the_scores_and_the_references(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, printed, err = cli("train", "--data", corpus, "--out", out, "--set", *SETTINGS)
    assert code == 0
    test = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["metrics"]["test"]["accuracy"]
    assert f"{test:.4f}" in printed
    assert "best reachable accuracy" in printed
    assert f"{(test - 0.5) / 0.5:.1%}" in printed
    assert str(out) in printed
    assert [line.split("  ")[0] for line in err.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


def test_a_run_without_labels_prints_its_losses_and_is_a_start(
    cli: Cli, corpus: Path, tmp_path: Path
) -> None:
    settings = [each for each in SETTINGS if not each.startswith("fit.epochs")] + ["fit.epochs=1"]
    first = tmp_path / "first"
    code, printed, _ = cli("train", "--pretrain", "--data", corpus, "--out", first, "--set", *settings)
    losses = json.loads((first / "metrics.json").read_text(encoding="utf-8"))["metrics"]["valid"]
    assert code == 0
    assert f"{losses['total']:.4f}" in printed
    assert "reconstruction." in printed
    assert "best reachable" not in printed, "scores of the task are nothing to compare losses with"
    start = ("train", "--from", first, "--data", corpus, "--out", tmp_path / "second", "--set", *settings)
    code, _, err = cli(*start)
    assert code == 0
    assert f"weights start from run {first}" in err
    for verb in (("evaluate", first), ("predict", first, corpus, "--out", tmp_path / "table.csv")):
        code, _, err = cli(*verb)
        assert code == 2
        assert "found a pretrained run, which predicts nothing" in err
    code, _, err = cli("train", "--pretrain", "--data", corpus, "--folds", 3, "--out", tmp_path / "folds")
    assert code == 2
    assert "objective: found 'pretrain' in a cross-validation" in err
    assert not (tmp_path / "folds").exists()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "alignmamba"])
def test_every_other_model_trains_and_predicts(cli: Cli, corpus: Path, tmp_path: Path, name: str) -> None:
    settings = [setting for setting in SETTINGS if "d_state" not in setting or "mamba" in name]
    code, printed, _ = cli(
        "train", "--data", corpus, "--model", name, "--out", tmp_path / "run", "--json", "--set", *settings
    )
    assert code == 0
    said = json.loads(printed)
    code, printed, _ = cli("evaluate", tmp_path / "run", "--json")
    assert (code, json.loads(printed)["metrics"]) == (0, said["metrics"]["test"])
    assert (
        json.loads((tmp_path / "run" / "model" / "config.json").read_text())["model_type"]
        == FAMILIES[name].network.__name__
    )
    code, _, err = cli("train", "--data", corpus, "--model", name, "--preset", "paper")
    assert (code, err) == (2, "error: preset: expected one of ['default'], found 'paper'\n")


def test_a_model_of_several_modalities_says_so(cli: Cli, tmp_path: Path) -> None:
    splits: dict[Role, dict[str, Any]] = {
        role: {"features": {"text": [np.ones((2, 3))] * 4}, "targets": ["a", "b"] * 2}
        for role in ("train", "valid")
    }
    write_corpus(tmp_path / "one", splits, task=Task(kind="classification", classes=("a", "b")))
    code, _, err = cli(
        "train", "--data", tmp_path / "one", "--model", "crossmodal-transformer", "--out", tmp_path / "run"
    )
    assert (code, err) == (
        2,
        ("error: modalities: crossmodal-transformer needs at least 2, found ['text']\n"),
    )
    assert not (tmp_path / "run").exists()


def test_the_same_command_gives_the_same_run(cli: Cli, corpus: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    code, printed, _ = cli("train", "--data", corpus, "--out", out, "--set", *SETTINGS, "--json")
    assert code == 0
    (line,) = printed.splitlines()
    said, first = json.loads(line), json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert said["metrics"] == first["metrics"]
    assert said["distance_covered"] == {
        "accuracy": pytest.approx((said["metrics"]["test"]["accuracy"] - 0.5) / 0.5)
    }
    for name in ("predictions_test.csv", "config.yaml", "model/model.safetensors", "run.json"):
        assert (out / name).read_bytes() == (run / name).read_bytes()


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Press Ctrl-C at a step of training."""

    def at(when: int) -> None:
        def stepped(_: EpochLines, *, step: int, **__: object) -> None:
            if step == when:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(EpochLines, "stepped", stepped)

    return at


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    cli: Cli, corpus: Path, run: Path, tmp_path: Path, interrupt: Callable[[int], None]
) -> None:
    out = tmp_path / "cut"
    interrupt(8)
    code, printed, err = cli("train", "--data", corpus, "--out", out, "--set", *SETTINGS)
    assert (code, printed) == (130, "")
    assert err.splitlines()[-1] == f"interrupted; resume with: alignmamba train --resume {out}"
    assert not (out / "metrics.json").exists()

    code, _, err = cli("train", "--data", corpus, "--out", out)
    assert code == 2
    assert (
        f"holds an unfinished run; resume it with train(resume={str(out)!r}) (alignmamba train --resume"
        f" {out})" in err
    )
    for verb in (["evaluate", out], ["predict", out, "--data", corpus, "--out", tmp_path / "p.csv"]):
        code, _, err = cli(*verb)
        assert code == 2
        assert f"not finished; resume with: alignmamba train --resume {out}" in err

    code, printed, err = cli("train", "--resume", out, "--json")
    assert code == 0
    assert "resuming in epoch 2 of 3 after 3 of 5 batches" in err
    first = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert json.loads(printed)["metrics"] == first["metrics"]
    assert json.loads(printed)["optimiser_steps"] == first["optimiser_steps"]
    assert (out / "predictions_test.csv").read_bytes() == (run / "predictions_test.csv").read_bytes()

    before = everything(out)
    code, again, _ = cli("train", "--resume", out, "--json")  # as a batch system might, after all is done
    assert (code, again) == (0, printed)
    assert everything(out) == before


WITHHELD = ("--missing-protocol", "gcnet", "--missing-rate", "0.2", "0.4")


def test_a_run_resumed_under_another_environment_says_so(
    cli: Cli, corpus: Path, tmp_path: Path, interrupt: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, here = tmp_path / "run", environment()
    interrupt(8)
    assert cli("train", "--data", corpus, "--out", out, "--set", *SETTINGS)[0] == 130
    interrupt(10)
    assert cli("train", "--resume", out)[0] == 130
    assert not (out / "resumed.json").exists()  # nothing had changed
    elsewhere = {
        **here,
        "threads": 64,
        "versions": {**here["versions"], "torch": "9.9"},
        "command": ["other"],
    }
    monkeypatch.setattr("alignmamba.recipes.training_run.environment", lambda: elsewhere)
    interrupt(0)
    code, _, err = cli("train", "--resume", out)
    assert code == 0
    note = (
        f"resumed under threads 64 after {here['threads']}, torch '9.9' after {here['versions']['torch']!r}"
    )
    assert err.splitlines()[-1] == f"note: {note}"
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8"))["notes"] == [note]
    assert json.loads((out / "resumed.json").read_text(encoding="utf-8")) == [elsewhere]
    assert json.loads((out / "environment.json").read_text(encoding="utf-8"))["threads"] == here["threads"]


def test_an_interrupted_run_draws_the_same_missing_modalities(
    cli: Cli, corpus: Path, tmp_path: Path, interrupt: Callable[[int], None]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, printed, _ = cli("train", "--data", corpus, "--out", whole, "--set", *SETTINGS, *WITHHELD, "--json")
    assert code == 0
    said = json.loads(printed)["missing"]
    assert (said["protocol"], said["rate"]) == ("gcnet", [0.2, 0.4])
    assert said == json.loads((whole / "metrics.json").read_text(encoding="utf-8"))["missing"]
    interrupt(8)
    assert cli("train", "--data", corpus, "--out", cut, "--set", *SETTINGS, *WITHHELD)[0] == 130
    code, printed, err = cli("train", "--resume", cut)
    assert code == 0
    assert "resuming in epoch 2 of 3 after 3 of 5 batches" in err
    assert (
        f"withheld by gcnet: nominal rates 0.2, 0.4, effective rate {said['effective_rate']['valid']:.4f} on"
        " valid" in printed
    )
    names = [
        "model/model.safetensors",
        *(f"{kind}_{split}.csv" for kind in ("predictions", "missing") for split in ("valid", "test")),
    ]
    for name in names:
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    code, _, err = cli("train", "--resume", cut, *WITHHELD)
    assert code == 2
    assert err == "error: --resume takes the run's own settings: drop --missing-protocol, --missing-rate\n"


def test_a_changed_corpus_or_configuration_is_not_resumed(
    cli: Cli, tmp_path: Path, interrupt: Callable[[int], None]
) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "run"
    write_small_corpus(corpus)
    interrupt(2)
    assert cli("train", "--data", corpus, "--out", out, "--set", *SETTINGS)[0] == 130

    moved = tmp_path / "moved"
    corpus.rename(moved)
    write_small_corpus(corpus, seed=1)
    code, _, err = cli("train", "--resume", out)
    assert code == 2
    assert "the corpus changed after training" in err

    config = (out / "config.yaml").read_text(encoding="utf-8")
    (out / "config.yaml").write_text(
        config.replace("learning_rate: 0.003", "learning_rate: 0.01"), encoding="utf-8"
    )
    code, _, err = cli("train", "--resume", out, "--data", moved)
    assert code == 2
    assert "config.yaml: damaged or changed" in err
    (out / "SHA256SUMS").unlink()  # as in a run of an earlier version
    code, _, err = cli("train", "--resume", out, "--data", moved)
    assert code == 2
    assert "the configuration changed after the start of training" in err
    (out / "config.yaml").write_text(config, encoding="utf-8")
    assert cli("train", "--resume", out, "--data", moved)[0] == 0


def test_two_processes_speak_once(corpus: Path, tmp_path: Path) -> None:
    arguments = [
        "train",
        "--data",
        corpus,
        "--out",
        tmp_path / "run",
        "--set",
        *SETTINGS,
        "fit.epochs=1",
        "--accelerator",
        "cpu",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "alignmamba", *map(str, arguments), "--devices", "2", "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["optimiser_steps"] == 5
    assert done.stderr.count("epoch 1/1") == 1
    assert (
        len((tmp_path / "run" / "predictions_test.csv").read_text(encoding="utf-8").splitlines())
        == 1 + SIZES["test"]
    )
