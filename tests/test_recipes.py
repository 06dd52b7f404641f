"""Configurations and runs through the Python interface."""

import csv
import hashlib
import json
import math
import multiprocessing.process
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from alignmamba import capacity
from alignmamba.contracts import Corpus, Task
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.loader import LoaderConfig
from alignmamba.data.missing_protocols import MissingConfig, withheld
from alignmamba.data.synthetic import synthetic_corpus
from alignmamba.errors import AlignMambaError, CheckpointError, ConfigError, DataError, TrainingError
from alignmamba.files import settle, settle_leftovers
from alignmamba.methods import METHODS
from alignmamba.recipes.assembly import seed_everything, trained_model, untrained_network
from alignmamba.recipes.configuration import (
    EngineConfig,
    RunConfig,
    _parse_yaml,
    check_config,
    read_config,
    resolve,
)
from alignmamba.recipes.finished_run import distance_covered, evaluate, load_run, predict, score_missing
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.run_directory import RunDirectory, corpus_identity, to_json
from alignmamba.recipes.training_run import _lost_process, plan, train
from alignmamba.training.fit_config import FitConfig
from small_run import CONFIG, write_small_corpus


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "small"


@pytest.fixture(scope="module")
def corpus(place: Path) -> Corpus:
    return write_small_corpus(place)


def small(place: Path, **changes: Any) -> RunConfig:
    return check_config({"data": str(place), **CONFIG, **changes})


# Configurations


def test_defaults_are_those_of_the_parts() -> None:
    config = read_config()
    assert config == RunConfig()
    assert (config.fit, config.loader, config.engine) == (FitConfig(), LoaderConfig(), EngineConfig())
    assert (config.data, config.seed, config.nonfinite) == ("synthetic", 0, "error")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("1", 1),
        ("+1", 1),
        ("0", 0),
        ("010", "010"),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
        ("no", "no"),
        ("on", "on"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("[1, no]", [1, "no"]),
        ("{a: 1e2}", {"a": 100.0}),
    ],
)
def test_values_are_yaml_of_today(text: str, value: object) -> None:
    """PyYAML alone takes 1e-3 for text, 010 for 8, no for false and 12:30 for 750."""
    found = _parse_yaml(text, "here")
    assert found == value
    assert type(found) is type(value)


def test_layers_are_merged_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("options: {encoder: {kind: linear, depth: 3}}\nfit: {epochs: 5}\n", encoding="utf-8")
    config = read_config(
        file, assignments=["options.encoder.depth=4", "fit={patience: 2}"], overrides={"fit.patience": 1}
    )
    assert config.options == {"encoder": {"kind": "linear", "depth": 4}}
    assert (config.fit.epochs, config.fit.patience) == (5, 1)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n", encoding="utf-8")
    assert read_config(tmp_path / "empty.yaml") == RunConfig()


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check_config({"fit": {"epoch": 3, "patience": -1}, "seed": "x"})
    assert len(str(caught.value).split("; ")) == 3


def test_a_wrong_configuration_in_python_is_refused_too() -> None:
    with pytest.raises(
        ConfigError, match=r"options\.d_modle: unknown key, perhaps you meant 'options\.d_model'"
    ):
        RunConfig(options={"d_modle": 3})


def test_a_resolved_configuration_says_everything_and_stays_as_it_is(place: Path, corpus: Corpus) -> None:
    config = small(place)
    complete = resolve(config, corpus)
    assert complete.options["d_model"] == 16
    assert complete.options["d_conv"] == 4
    assert not {"modalities", "task"} & complete.options.keys()
    assert resolve(complete, corpus) == complete
    assert check_config(yaml.safe_load(complete.to_yaml())) == complete
    # What a later version makes of the preset no longer matters.
    assert resolve(complete.model_copy(update={"preset": "paper"}), corpus).options == complete.options


def test_the_digest_knows_what_matters(place: Path, corpus: Corpus, tmp_path: Path) -> None:
    def digest(of: Corpus = corpus, **changes: Any) -> str:
        return resolve(small(place, **changes), of).digest(of)

    assert (
        digest()
        == digest(seed=5)
        == digest(engine={"devices": 2})
        == digest(options={**CONFIG["options"], "d_conv": 4})
    )
    moved = write_small_corpus(tmp_path / "elsewhere")
    assert digest() == digest(moved, data=str(tmp_path / "elsewhere"))
    other = write_small_corpus(tmp_path / "other", seed=1)
    different = [
        digest(nonfinite="zero"),
        digest(fit={"epochs": 4}),
        digest(options={"d_model": 16}),
        digest(preset="paper"),
        digest(missing={"protocol": "gcnet", "rate": 0.3}),
        digest(missing={"protocol": "gcnet", "rate": [0.1, 0.3]}),
        digest(other),
    ]
    assert len({digest(), *different}) == 1 + len(different)


def test_the_seed_decides_the_weights(place: Path, corpus: Corpus) -> None:
    def weights(seed: int, rank: int = 0) -> torch.Tensor:
        seed_everything(seed, rank=rank)
        model = untrained_network(small(place), corpus)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert not torch.equal(weights(1), weights(1, rank=1))


# Runs


def test_a_plan_reads_and_writes_nothing(place: Path, corpus: Corpus, tmp_path: Path) -> None:
    ready = plan(small(place), out=tmp_path / "run")
    assert ready.batches_per_epoch == math.ceil(len(corpus.split("train")) / 8)
    assert ready.num_parameters == sum(
        p.numel() for p in untrained_network(small(place), corpus).parameters() if p.requires_grad
    )
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_memory_does_not_hold_is_refused_before_it_begins(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: Corpus
) -> None:
    model = untrained_network(small(place), corpus)
    weights = sum(each.numel() for each in [*model.parameters(), *model.buffers()])
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    monkeypatch.setattr(capacity, "available_bytes", lambda _: 4 * (weights + 3 * trained))
    ready = plan(small(place), out=tmp_path / "run")
    monkeypatch.setattr(capacity, "available_bytes", lambda _: 4 * (weights + 3 * trained) - 1)
    said = (
        r"^model alignmamba: training [\d,]+ weights in 32 bits \(weights, .*GB are available; lower"
        r" options\.d_model \(16\) or options"
    )
    for begin in (plan, train):
        with pytest.raises(ConfigError, match=said):
            begin(small(place), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"by 2 processes .*buckets of DDP"):
        plan(small(place, engine={"devices": 2}), out=tmp_path / "run")
    run = RunDirectory.create(
        tmp_path / "run",
        config=ready.config,
        identity={"digest": ready.digest, "corpus": corpus_identity(corpus), "seed": 0},
        environment={},
    )
    with pytest.raises(ConfigError, match=said):
        train(resume=run.path)


def test_a_lost_process_is_named_without_places_in_foreign_source() -> None:
    said = (
        "[/pytorch/third_party/gloo/pair.cc:553] Connection closed by peer [127.0.0.1]:80. This is typically"
        " caused by a worker crash"
    )
    assert (
        _lost_process(RuntimeError(said), 2)
        == "another of 2 processes ended: Connection closed by peer [127.0.0.1]:80"
    )
    assert not _lost_process(RuntimeError(said), 1)
    assert not _lost_process(ValueError("no socket"), 2)


def test_a_regression_run(tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "data", kind="regression")
    result = train(small(tmp_path / "data"), out=tmp_path / "run")
    assert set(result.metrics) == {"valid", "test"}
    assert {"mae", "corr", "acc7"} <= result.metrics["test"].keys()
    assert result.distance_covered == {}
    assert evaluate(tmp_path / "run")["metrics"] == result.metrics["test"]
    header, first, *_ = (tmp_path / "run" / "predictions_test.csv").read_text(encoding="utf-8").splitlines()
    assert header == "id,target,prediction"
    assert float(first.split(",")[1]) in (-1, 0, 1)


def test_what_is_not_finite_is_repaired_with_the_means_of_training(
    place: Path, corpus: Corpus, tmp_path: Path
) -> None:
    run = train(
        small(place, nonfinite="mean", fit={"epochs": 1, "warmup_fraction": 0.0}), out=tmp_path / "run"
    ).directory
    tokens = np.concatenate([sample.features["text"] for sample in corpus.split("train")])
    means = tokens.mean(axis=0, dtype=np.float64).astype(np.float32)
    whole = np.array([[1, 2, 3, 4], means], dtype=np.float32)
    holed = whole.copy()
    holed[1] = np.nan

    def probabilities(name: str, text: np.ndarray, train_too: bool) -> np.ndarray:
        splits: dict[Any, Any] = {"test": {"features": {"text": [text]}, "targets": [0], "ids": ["the one"]}}
        if train_too:  # whose means are others
            splits["train"] = {"features": {"text": [np.full((2, 4), 50.0)]}, "targets": [0]}
        write_corpus(tmp_path / name, splits, task=corpus.task, nonfinite="keep")
        predict(run, str(tmp_path / name), tmp_path / f"{name}.csv", split="test")
        with (tmp_path / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        return np.array([float(value) for column, value in row.items() if column.startswith("p(")])

    expected = probabilities("whole", whole, False)
    assert expected.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(probabilities("alone", holed, False), expected, atol=1e-5)
    np.testing.assert_allclose(probabilities("with-train", holed, True), expected, atol=1e-5)
    scores = [
        evaluate(run, data=str(tmp_path / name))["metrics"] for name in ("whole", "alone", "with-train")
    ]
    assert scores[0] == scores[1] == scores[2]


def test_the_same_run_from_python_and_with_another_seed(place: Path, corpus: Corpus, tmp_path: Path) -> None:
    del corpus
    results = [
        train(small(place, seed=seed), out=tmp_path / name) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    models = [(result.directory / "model" / "model.safetensors").read_bytes() for result in results]
    assert models[0] == models[1] != models[2]
    assert results[0].metrics == results[1].metrics
    assert results[0].digest == results[2].digest
    assert results[0].optimiser_steps == 3 * 5


def test_a_run_starts_its_workers_once_for_each_split(
    place: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    start = multiprocessing.process.BaseProcess.start

    def counting(process: Any) -> None:
        start(process)
        begun.append(process.pid)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", counting)
    results = []
    for workers in (0, 1):
        results.append(
            train(small(place, loader={"batch_size": 8, "num_workers": workers}), out=tmp_path / str(workers))
        )
        assert len(begun) == len(corpus.splits) * workers
    assert results[0].metrics == results[1].metrics
    tables = [(tmp_path / str(workers) / "predictions_test.csv").read_bytes() for workers in (0, 1)]
    assert tables[0] == tables[1]


def test_the_default_directory_tells_runs_apart(
    place: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del corpus
    monkeypatch.chdir(tmp_path)
    first = train(small(place, fit={"epochs": 1}))
    assert first.directory == Path("runs") / f"small-alignmamba-{first.digest[:8]}-seed0"
    assert train(small(place, fit={"epochs": 1}, seed=1)).directory.name.endswith("-seed1")
    # A cell that is run again trains again, under the next number.
    assert plan(small(place, fit={"epochs": 1})).directory == Path(f"{first.directory}-2")
    Path(f"{first.directory}-2").touch()
    assert plan(small(place, fit={"epochs": 1})).directory == Path(f"{first.directory}-3")
    assert plan(small(place, fit={"epochs": 1}), overwrite=True).directory == first.directory
    (first.directory / "metrics.json").unlink()
    with pytest.raises(
        CheckpointError, match=rf"holds an unfinished run; resume it with train\(resume='{first.directory}'\)"
    ):
        plan(small(place, fit={"epochs": 1}))


def test_a_run_is_replaced_when_it_is_asked_for(place: Path, corpus: Corpus, tmp_path: Path) -> None:
    del corpus
    out = tmp_path / "run"
    config = small(place, fit={"epochs": 1})
    first = train(config, out=out, overwrite=True)  # nothing is there yet
    with pytest.raises(
        CheckpointError,
        match=r"holds a finished run; choose another directory, or replace it with overwrite=True",
    ):
        train(config, out=out)
    (out / "report.html").touch()
    assert train(small(place, fit={"epochs": 1}, seed=1), out=out, overwrite=True).config.seed == 1
    assert not (out / "report.html").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    # A run that fails before its first checkpoint leaves the old one in place.
    for wrong, error in (
        (small(place, fit={"learning_rate": 1e30}), TrainingError),
        (small(place, fit={"select": "mae"}), ConfigError),
    ):
        with pytest.raises(error):
            train(wrong, out=out, overwrite=True)
        assert load_run(out).config.seed == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert first.digest == json.loads((out / "run.json").read_text())["digest"]


def test_nothing_but_a_run_is_replaced(place: Path, corpus: Corpus, tmp_path: Path) -> None:
    del corpus
    run = train(small(place, fit={"epochs": 1}), out=tmp_path / "run").directory
    (run / "thesis.tex").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(run)
    for out, said in (
        (run, "found 'thesis.tex', which is not a file of a run"),
        (tmp_path / "file", "a file is there"),
        (tmp_path / "link", "a link is there"),
        (tmp_path, "holds something that is not a run"),
    ):
        with pytest.raises(CheckpointError, match=said):
            train(small(place), out=out, overwrite=True)
    with pytest.raises(ConfigError, match="resume: found a configuration or a directory"):
        train(resume=run, overwrite=True)
    assert (run / "metrics.json").exists()


def test_a_run_that_was_set_aside_by_a_killed_process_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "run"
    aside = tmp_path / f".run.{'0' * 12}.replaced"
    for directory in (aside, out):
        directory.mkdir()
        (directory / "config.yaml").touch()
    settle_leftovers(out, partial(settle, out))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    out.rename(aside)
    settle_leftovers(out, partial(settle, out))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_result_is_printed_short(place: Path, corpus: Corpus, tmp_path: Path) -> None:
    del corpus
    result = train(small(place, fit={"epochs": 1}), out=tmp_path / "run")
    assert repr(result).startswith("RunResult(alignmamba on 'small': valid accuracy 0.")
    assert repr(result).endswith(f"epoch 1 of 1; {tmp_path / 'run'})")
    assert "<tr><td>accuracy</td><td>0." in result._repr_html_()
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "Trained on `small`." in card
    assert str(place) not in card
    assert (
        f"| `accuracy` | {result.metrics['valid']['accuracy']:.4f} |"
        f" {result.metrics['test']['accuracy']:.4f} |" in card
    )


def test_loggers_do_not_change_the_digest(place: Path, corpus: Corpus) -> None:
    assert small(place).digest(corpus) == small(
        place, fit={**CONFIG["fit"], "loggers": ["tensorboard"]}
    ).digest(corpus)


def test_a_corpus_without_test_split(tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "data", sizes={"train": 16, "valid": 8})
    result = train(small(tmp_path / "data", fit={"epochs": 1}), out=tmp_path / "run")
    assert set(result.metrics) == {"valid"}
    assert not (tmp_path / "run" / "predictions_test.csv").exists()


@pytest.mark.parametrize(
    ("sizes", "labelled", "said"),
    [
        ({"train": 16, "test": 8}, True, "no split 'valid'"),
        ({"valid": 16, "test": 8}, True, "no split 'train'"),
        ({"train": 16, "valid": 8}, False, "is unlabelled"),
    ],
)
def test_what_cannot_be_trained_on(tmp_path: Path, sizes: Any, labelled: bool, said: str) -> None:
    write_small_corpus(tmp_path / "data", sizes=sizes, labelled=labelled)
    with pytest.raises(AlignMambaError, match=said):
        train(small(tmp_path / "data"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_does_not_go_together(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resume: found a configuration or a directory"):
        train(small(place), resume=tmp_path)
    with pytest.raises(ConfigError, match="found without resume"):
        train(small(place), data="synthetic")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(place: Path, corpus: Corpus, tmp_path: Path) -> None:
    del corpus
    with pytest.raises(ConfigError, match=r"engine\.devices: found 1, but PyTorch sees 0 GPUs here"):
        train(small(place, engine={"accelerator": "cuda"}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Missing modalities


GCNET = {"protocol": "gcnet", "rate": 0.4}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def thinned(place: Path, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under GCNet's protocol."""
    del corpus
    return train(small(place, missing=GCNET, seed=2), out=tmp_path_factory.mktemp("runs") / "gcnet").directory


def test_a_run_that_withholds_nothing_has_the_digest_of_earlier_versions(
    place: Path, corpus: Corpus, tmp_path: Path
) -> None:
    config = resolve(small(place, preset="0.1"), corpus)
    settings = {**config.model_dump(mode="json"), "corpus": corpus.checksum, "preset": "default"}
    later = ("missing", "modalities", "leading", "targets", "start", "split_valid", "folds", "subset")
    for key in ("seed", "data", "engine", "objective", "pretrain", *later):
        del settings[key]
    del settings["fit"]["loggers"]
    for name in LoaderConfig.SILENT:
        del settings["loader"][name]
    for name in FitConfig.SILENT:
        del settings["fit"][name]
    # options of later versions, which change nothing
    options = settings["options"]
    for name in METHODS[config.model].network.config_class.SILENT:
        del options[name]
    for encoder in (options["encoder"], *options["encoders"].values()):
        del encoder["centring"]
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    assert config.digest(corpus) == hashlib.sha256(text.encode()).hexdigest()
    run = train(small(place, fit={"epochs": 1}, preset="0.1"), out=tmp_path / "run").directory
    written = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert written.pop("missing") == {"protocol": "none", "rate": 0.0}
    (run / "config.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    (run / "SHA256SUMS").unlink()  # earlier versions wrote none
    assert (
        evaluate(run)["metrics"]
        == json.loads((run / "metrics.json").read_text(encoding="utf-8"))["metrics"]["test"]
    )
    assert not list(run.glob("missing_*"))


def test_a_run_says_what_it_withheld(corpus: Corpus, thinned: Path) -> None:
    written = json.loads((thinned / "metrics.json").read_text(encoding="utf-8"))
    assert {name: written["missing"][name] for name in ("protocol", "rate")} == GCNET
    for role in ("valid", "test"):
        view = withheld(corpus.split(role), MissingConfig.model_validate(GCNET), seed=2)
        rows = table(thinned / f"missing_{role}.csv")
        assert list(rows[0]) == ["id", *(spec.name for spec in corpus.modalities)]
        assert [row.pop("id") for row in rows] == list(view.ids)
        assert rows == [
            {name: str(int(view.kept[name][row])) for name in view.kept} for row in range(len(view))
        ]
        assert written["missing"]["effective_rate"][role] == view.effective_rate > 0
        naturally = [
            row["audio"]
            for row, length in zip(rows, corpus.split(role).lengths["audio"], strict=True)
            if length == 0
        ]
        assert set(naturally) == {"0"}


def test_training_sees_what_is_left_and_the_scale_of_all(
    place: Path, corpus: Corpus, thinned: Path, tmp_path: Path
) -> None:
    del corpus
    whole = train(small(place, seed=2), out=tmp_path / "whole").directory
    models = [
        trained_model(run, run.config()) for run in (RunDirectory.open(whole), RunDirectory.open(thinned))
    ]
    for name, mean in models[0].training_means().items():
        assert torch.equal(mean, models[1].training_means()[name])
    first, second = (torch.cat([parameter.flatten() for parameter in model.parameters()]) for model in models)
    assert not torch.equal(first, second)
    losses = [(run / "log.csv").read_text(encoding="utf-8").splitlines()[1] for run in (whole, thinned)]
    assert losses[0].split(",")[2:] != losses[1].split(",")[2:]


def test_evaluation_repeats_the_protocol_of_training(thinned: Path, tmp_path: Path) -> None:
    missing = MissingConfig.model_validate(GCNET)
    report = evaluate(thinned, missing=missing, out=tmp_path / "tables")
    trained = json.loads((thinned / "metrics.json").read_text(encoding="utf-8"))
    assert report["metrics_missing"] == trained["metrics"]["test"]
    assert report["metrics"] == evaluate(thinned)["metrics"] != report["metrics_missing"]
    for name, value in report["metrics"].items():
        assert report["change"][name] == pytest.approx(report["metrics_missing"][name] - value)
    assert report["missing"] == {
        **GCNET,
        "effective_rate": trained["missing"]["effective_rate"]["test"],
        "seed": 2,
    }
    for ours, theirs in (("predictions_missing", "predictions_test"), ("missing", "missing_test")):
        assert (tmp_path / "tables" / f"{ours}.csv").read_bytes() == (thinned / f"{theirs}.csv").read_bytes()
    assert [row["id"] for row in table(tmp_path / "tables" / "predictions.csv")] == [
        row["id"] for row in table(thinned / "predictions_test.csv")
    ]
    assert (tmp_path / "tables" / "predictions.csv").read_bytes() != (
        thinned / "predictions_test.csv"
    ).read_bytes()


def test_many_protocols_are_scored_on_one_loaded_run(corpus: Corpus, thinned: Path) -> None:
    loaded = load_run(thinned)
    for missing in (MissingConfig(protocol="gcnet", rate=0.0), MissingConfig(protocol="tokens", rate=0.5)):
        (part,) = score_missing(loaded, missing, split="valid").parts
        assert part.predictions.ids == corpus.split("valid").ids
        assert part.metrics == evaluate(thinned, split="valid", missing=missing)["metrics_missing"]
        assert part.pattern is None
    whole = score_missing(loaded, MissingConfig(protocol="gcnet", rate=0.0))
    assert whole.metrics == evaluate(thinned)["metrics"]
    assert whole.effective_rate == 0


def test_fixed_scores_every_pattern(corpus: Corpus, thinned: Path, tmp_path: Path) -> None:
    scores = score_missing(load_run(thinned), MissingConfig(protocol="fixed"))
    assert [part.pattern for part in scores.parts] == [(spec.name,) for spec in corpus.modalities]
    audible = corpus.split("test").lengths["audio"] > 0
    report = evaluate(thinned, missing=MissingConfig(protocol="fixed"), out=tmp_path)
    assert report["missing"]["rate"] == 0.0
    rows = {row["kept"][0]: row for row in report["missing"]["patterns"]}
    assert {name: row["samples"] for name, row in rows.items()} == {
        "text": len(audible),
        "audio": audible.sum(),
    }
    assert rows["audio"]["effective_rate"] == 0.5
    assert rows["text"]["effective_rate"] == pytest.approx(audible.sum() / (len(audible) + audible.sum()))
    assert rows["text"]["metrics"] == evaluate(thinned, drop=["audio"])["metrics_dropped"]
    for name, value in report["metrics_missing"].items():
        assert value == pytest.approx((rows["text"]["metrics"][name] + rows["audio"]["metrics"][name]) / 2)
    masks = table(tmp_path / "missing.csv")
    assert [(row["pattern"], row["id"]) for row in masks] == [
        (row["pattern"], row["id"]) for row in table(tmp_path / "predictions_missing.csv")
    ]
    assert all(
        (row["text"], row["audio"]) == (("1", "0") if row["pattern"] == "text" else ("0", "1"))
        for row in masks
    )


def test_lost_tokens_are_written_down(place: Path, corpus: Corpus, tmp_path: Path) -> None:
    run = train(
        small(place, missing={"protocol": "tokens", "rate": 0.5}, fit={"epochs": 1}), out=tmp_path / "run"
    )
    rows = table(tmp_path / "run" / "missing_test.csv")
    for name, lengths in corpus.split("test").lengths.items():
        assert [len(row[name]) for row in rows] == lengths.tolist()
        assert all("1" in row[name] for row, length in zip(rows, lengths, strict=True) if length)
    digits = "".join(row[spec.name] for row in rows for spec in corpus.modalities)
    assert run.missing is not None
    assert run.missing["effective_rate"]["test"] == pytest.approx(digits.count("0") / len(digits))


def test_what_cannot_be_withheld_is_refused_before_training(
    place: Path, thinned: Path, tmp_path: Path
) -> None:
    missing = {"protocol": "imder-batch", "rate": 0.5}
    write_small_corpus(tmp_path / "uneven", sizes={"train": 170, "valid": 170, "test": 5})
    for data, role in ((place, "valid"), (tmp_path / "uneven", "test")):
        with pytest.raises(
            DataError, match=f"split '{role}': found .* groups of .* for protocol 'imder-batch'"
        ):
            train(small(data, missing=missing), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match=r"split 'test': found .* for protocol 'imder-batch'"):
        evaluate(thinned, missing=MissingConfig.model_validate(missing))
    with pytest.raises(ConfigError, match="drop: found missing too; choose one of them"):
        evaluate(thinned, drop=["audio"], missing=MissingConfig(protocol="fixed"))
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"out .*file: cannot be made"):
        evaluate(thinned, out=tmp_path / "file")


# Small parts


@pytest.mark.parametrize(
    ("score", "references", "covered"),
    [
        (0.9, {"best_single_modality_accuracy": 0.5, "best_reachable_accuracy": 1.0}, {"accuracy": 0.8}),
        (0.4, {"best_single_modality_accuracy": 0.5, "best_reachable_accuracy": 1.0}, {"accuracy": -0.2}),
        (0.9, {"best_reachable_accuracy": 1.0}, {}),
        (0.9, {"best_single_modality_accuracy": 1.0, "best_reachable_accuracy": 1.0}, {}),
        (None, {"best_single_modality_accuracy": 0.5, "best_reachable_accuracy": 1.0}, {}),
    ],
)
def test_distance_covered(
    score: float | None, references: dict[str, float], covered: dict[str, float]
) -> None:
    assert distance_covered({"accuracy": score, "f1_macro": 0.3}, references) == pytest.approx(covered)


def test_json_has_no_numbers_that_json_does_not_have() -> None:
    assert json.loads(to_json({"corr": math.nan, "all": [math.inf, 1.5, (2,)]})) == {
        "corr": None,
        "all": [None, 1.5, [2]],
    }


def test_a_split_without_targets_is_refused_before_training(tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "corpus", labelled=False)
    with pytest.raises(DataError, match="split 'train' is unlabelled"):
        plan(check_config({**CONFIG, "data": str(tmp_path / "corpus")}))


def test_a_smaller_vocabulary_can_be_predicted_and_a_larger_one_cannot(tmp_path: Path) -> None:
    def corpus(name: str, largest: int) -> str:
        ids = [np.array([1, largest, row % 3]) for row in range(9)]
        splits: dict[Any, Any] = {
            role: {"features": {"text": ids}, "targets": [row % 2 for row in range(9)]}
            for role in ("train", "valid")
        }
        write_corpus(tmp_path / name, splits, task=Task(kind="classification", classes=("a", "b")))
        return str(tmp_path / name)

    train(check_config({**CONFIG, "data": corpus("known", 20)}), out=tmp_path / "run")
    assert predict(tmp_path / "run", corpus("smaller", 9), tmp_path / "out.csv")["rows"] == 18
    with pytest.raises(
        DataError,
        match=(
            "found token ids of a vocabulary of 22, expected token ids of a vocabulary of 21 as in training"
        ),
    ):
        predict(tmp_path / "run", corpus("larger", 21), tmp_path / "out.csv")


def test_the_confusion_matrix_counts_the_predictions(place: Path, corpus: Corpus, tmp_path: Path) -> None:
    train(small(place), out=tmp_path / "run")
    with (tmp_path / "run" / "confusion_test.csv").open(encoding="utf-8", newline="") as file:
        rows = {row.pop("true class"): row for row in csv.DictReader(file)}
    with (tmp_path / "run" / "predictions_test.csv").open(encoding="utf-8", newline="") as file:
        said = [(row["target"], row["prediction"]) for row in csv.DictReader(file)]
    for truth in corpus.task.classes:
        for guess in corpus.task.classes:
            assert int(rows[truth][f"predicted {guess}"]) == said.count((truth, guess))
    assert sum(int(count) for row in rows.values() for count in row.values()) == len(corpus.split("test"))


READ_BY = {
    "config.yaml": evaluate,
    "run.json": evaluate,
    "metrics.json": lambda run: train(resume=run),
    "model/config.json": evaluate,
    "model/model.safetensors": lambda run: predict(run, "synthetic", run.parent / "out.csv"),
    "SHA256SUMS": evaluate,
    "predictions_test.csv": gather,
    "log.csv": gather,
    "environment.json": gather,
}


@pytest.mark.parametrize("name", READ_BY)
def test_one_flipped_bit_of_a_finished_run_is_refused(thinned: Path, tmp_path: Path, name: str) -> None:
    run = shutil.copytree(thinned, tmp_path / "run")
    whole = (run / name).read_bytes()
    for bit in (1, 4 * len(whole), 8 * len(whole) - 10):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (run / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"{name.rpartition('/')[2]}: .*damaged"):
            READ_BY[name](run)
    (run / name).write_bytes(whole)
    evaluate(run)


def test_a_run_of_an_earlier_version_without_checksums_is_used(thinned: Path, tmp_path: Path) -> None:
    run = shutil.copytree(thinned, tmp_path / "run")
    (run / "SHA256SUMS").unlink()
    described = json.loads((run / "model" / "config.json").read_text())
    kept = {key: value for key, value in described.items() if not key.endswith("sha256")}
    assert len(kept) == len(described) - 2
    (run / "model" / "config.json").write_text(json.dumps(kept))
    assert evaluate(run) | {"run": ""} == evaluate(thinned) | {"run": ""}


def test_what_a_killed_run_left_beside_its_place_is_removed(place: Path, tmp_path: Path) -> None:
    left = tmp_path / f".run.{'0' * 12}.partial"
    left.mkdir()
    (left / "config.yaml").write_text("")
    others = [tmp_path / ".run.mine", tmp_path / f".other.{'0' * 12}.partial"]
    for other in others:
        other.mkdir()
    train(small(place, fit={"epochs": 1}), out=tmp_path / "run")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "run"])


def test_an_identity_of_wrong_types_is_refused_by_its_field(thinned: Path, tmp_path: Path) -> None:
    run = shutil.copytree(thinned, tmp_path / "run")
    (run / "SHA256SUMS").unlink()
    (run / "run.json").write_text('{"corpus": 7, "digest": "", "seed": 0}')
    for use in (
        evaluate,
        lambda run: predict(run, "synthetic", run.parent / "out.csv"),
        lambda run: train(resume=run),
    ):
        with pytest.raises(CheckpointError, match=r"run\.json: corpus: expected a mapping, found 7"):
            use(run)


@pytest.mark.parametrize("given", [{"data": "synthetic"}, "synthetic", 5])
def test_what_is_no_configuration_is_refused(given: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"config: expected a RunConfig, found {type(given).__name__}"):
        train(given, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_takes_a_path_or_a_corpus(place: Path, corpus: Corpus) -> None:
    for data in (str(place), place, corpus, load_corpus(place)):
        config = RunConfig(data=data)  # type: ignore[arg-type]
        assert config.data == str(place)
        assert config.digest(corpus) == RunConfig(data=str(place)).digest(corpus)
    assert RunConfig(data=synthetic_corpus()).data == "synthetic"  # type: ignore[arg-type]
    for strange in (synthetic_corpus(sizes={"train": 3}), replace(corpus, name="other")):
        with pytest.raises(
            ConfigError,
            match=r"data: corpus '\w+' is only in memory, expected one from write_corpus or load_corpus",
        ):
            RunConfig(data=strange)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^data: found 3 \(int\), expected a valid string$"):
        RunConfig(data=3)  # type: ignore[arg-type]
