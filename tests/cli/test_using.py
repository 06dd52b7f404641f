"""``alignmamba evaluate``, ``predict`` and ``inspect``."""

import csv
import json
import pickle
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import Task
from alignmamba.data import synthetic
from alignmamba.data.archive import write_corpus
from small_run import CLASSES, SETTINGS, SIZES, write_small_corpus

Cli = Callable[..., tuple[int, str, str]]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluation_repeats_what_training_said(cli: Cli, run: Path, split: str) -> None:
    code, out, err = cli("evaluate", run, "--split", split, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (
        report["metrics"] == json.loads((run / "metrics.json").read_text(encoding="utf-8"))["metrics"][split]
    )
    assert report["samples"] == SIZES[split]
    assert report["references"]["best_reachable_accuracy"] == 1.0
    assert "dropped" not in report


def test_dropping_reports_the_drop(cli: Cli, run: Path) -> None:
    code, _, err = cli("evaluate", run, "--drop", "text")
    assert code == 2
    assert "split 'test': 3 samples have no audio, the first is 'test-000001'" in err
    code, out, _ = cli("evaluate", run, "--drop", "audio", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["dropped"] == ["audio"]
    assert (
        report["metrics"] == json.loads((run / "metrics.json").read_text(encoding="utf-8"))["metrics"]["test"]
    )
    assert report["metrics_dropped"] != report["metrics"]
    for name, value in report["metrics"].items():
        assert report["change"][name] == pytest.approx(report["metrics_dropped"][name] - value)
    code, out, _ = cli("evaluate", run, "--drop", "audio")
    assert code == 0
    assert "without audio" in out
    assert f"{report['change']['accuracy']:.4f}" in out


def test_a_protocol_reports_rates_and_the_change(cli: Cli, run: Path, tmp_path: Path) -> None:
    arguments = ("evaluate", run, "--missing-protocol", "gcnet", "--missing-rate", "0.5")
    code, out, err = cli(*arguments, "--json", "--out", tmp_path / "tables")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (
        report["metrics"] == json.loads((run / "metrics.json").read_text(encoding="utf-8"))["metrics"]["test"]
    )
    masks = rows(tmp_path / "tables" / "missing.csv")
    kept = sum(int(row["text"]) + int(row["audio"]) for row in masks)
    assert report["missing"] == {
        "protocol": "gcnet",
        "rate": 0.5,
        "effective_rate": pytest.approx(1 - kept / (2 * 14 - 3)),
        "seed": 0,
    }
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        "predictions.csv",
        "predictions_missing.csv",
        "missing.csv",
    }
    assert rows(tmp_path / "tables" / "predictions.csv") == rows(run / "predictions_test.csv")
    code, out, _ = cli(*arguments)
    assert code == 0
    assert (
        f"withheld by gcnet: nominal rate 0.5, effective rate {report['missing']['effective_rate']:.4f} on"
        " test" in out
    )
    for name, value in report["change"].items():
        line = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert line.split()[1:] == [
            f"{report[column][name]:.4f}" for column in ("metrics", "metrics_missing")
        ] + [f"{value:.4f}"]


def test_fixed_patterns_are_listed(cli: Cli, run: Path) -> None:
    code, out, _ = cli("evaluate", run, "--missing-protocol", "fixed", "--json")
    assert code == 0
    patterns = json.loads(out)["missing"]["patterns"]
    assert [(each["kept"], each["samples"]) for each in patterns] == [(["text"], 14), (["audio"], 11)]
    code, out, _ = cli("evaluate", run, "--missing-protocol", "fixed")
    assert code == 0
    for each in patterns:
        line = next(line for line in out.splitlines() if line.split()[:1] == each["kept"])
        numbers = [each["effective_rate"], *each["metrics"].values()]
        assert line.split()[1:] == [str(each["samples"]), *(f"{value:.4f}" for value in numbers)]
    assert "withheld by fixed: effective rate" in out


def test_a_metric_that_is_not_defined(cli: Cli, tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "data", kind="regression", sizes={"train": 16, "valid": 8})
    write_corpus(
        tmp_path / "one",
        {"test": {"features": {"text": [np.zeros((3, 4)), np.ones((2, 4))]}, "targets": [1.0, 1.0]}},
        task=Task(kind="regression", label_range=(-3, 3)),
    )
    settings = [*SETTINGS, "fit.epochs=1"]
    assert cli("train", "--data", tmp_path / "data", "--out", tmp_path / "run", "--set", *settings)[0] == 0
    code, out, err = cli("evaluate", tmp_path / "run", "--data", tmp_path / "one", "--json")
    assert (code, err) == (0, "note: audio is not in corpus 'one'; predictions do without it\n")
    assert json.loads(out)["metrics"]["corr"] is None
    code, out, _ = cli("evaluate", tmp_path / "run", "--data", tmp_path / "one")
    assert code == 0
    assert next(line for line in out.splitlines() if line.strip().startswith("corr")).split() == ["corr", "-"]


def test_what_evaluation_refuses(cli: Cli, run: Path, corpus: Path, tmp_path: Path) -> None:
    unlabelled, regression, wider = tmp_path / "unlabelled", tmp_path / "regression", tmp_path / "wider"
    write_small_corpus(unlabelled, labelled=False)
    write_small_corpus(regression, kind="regression")
    task = Task(kind="classification", classes=CLASSES)
    write_corpus(wider, {"test": {"features": {"text": [np.zeros((3, 5))]}, "targets": [0]}}, task=task)
    other = tmp_path / "other"
    write_corpus(other, {"test": {"features": {"smell": [np.zeros((3, 5))]}, "targets": [0]}}, task=task)
    cases = [
        ([tmp_path / "none"], f"run {tmp_path / 'none'}: no such directory"),
        ([corpus], f"run {corpus}: not the directory of a run"),
        ([run / "metrics.json"], "found a file, expected the directory of a run"),
        ([run, "--drop", "smell"], "drop: no modality 'smell', expected some of text, audio"),
        (
            [run, "--drop", "text", "--drop", "audio"],
            "drop: found every modality; keep at least one of text, audio",
        ),
        (
            [run, "--drop", "audio", "--missing-protocol", "fixed"],
            "drop: found missing too; choose one of them",
        ),
        ([run, "--out", run / "metrics.json"], f"out {run / 'metrics.json'}: cannot be made: File exists"),
        ([run, "--data", unlabelled], "split 'test' is unlabelled, expected a target for every sample"),
        ([run, "--data", regression], "task kind is 'regression', the run was trained for 'classification'"),
        (
            [run, "--data", wider],
            "modality 'text': found features of width 5, expected features of width 4 as in training",
        ),
        ([run, "--data", wider, "--split", "valid"], "width"),
        ([run, "--data", other], "corpus 'other': found modalities smell, expected some of text, audio"),
        ([run, "--data", tmp_path / "none"], "expected a corpus directory, found nothing"),
    ]
    for arguments, said in cases:
        code, out, err = cli("evaluate", *arguments)
        assert (code, out) == (2, ""), arguments
        assert said in err, err
        assert len(err.splitlines()) == 1


def test_a_split_that_the_corpus_lacks(cli: Cli, run: Path, tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "part", sizes={"test": 5})
    code, _, err = cli("evaluate", run, "--data", tmp_path / "part", "--split", "valid")
    assert code == 2
    assert "has no split 'valid', only ['test']" in err


def test_a_corpus_that_changed_must_be_named(cli: Cli, run: Path, corpus: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    corpus.rename(kept)
    try:
        write_small_corpus(corpus, seed=1)
        code, _, err = cli("evaluate", run)
        assert code == 2
        assert "the corpus changed after training" in err
        assert cli("evaluate", run, "--data", corpus)[0] == 0
    finally:  # other tests use both
        corpus.rename(tmp_path / "changed")
        kept.rename(corpus)


def test_a_damaged_run_is_named(cli: Cli, run: Path, tmp_path: Path) -> None:
    import shutil

    for name, content in (
        ("model/model.safetensors", "x"),
        ("metrics.json", "["),
        ("run.json", "3"),
        ("config.yaml", "fit: 3"),
    ):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(run, copy)
        (copy / name).write_text(content, encoding="utf-8")
        code, _, err = cli("train", "--resume", copy) if name == "metrics.json" else cli("evaluate", copy)
        assert code == 2, name
        assert name.rpartition("/")[2] in err, err
        assert len(err.splitlines()) == 1


def test_predictions_are_those_of_training(cli: Cli, run: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.csv"
    code, printed, err = cli("predict", run, "--data", corpus, "--out", out)
    assert (code, err) == (0, "")
    assert printed == f"{sum(SIZES.values())} predictions (train, valid, test) in {out}\n"
    table = rows(out)
    assert list(table[0]) == ["id", "split", "target", "prediction", "p(calm)", "p(glad)", "p(sad)"]
    for split in ("valid", "test"):
        part = [
            {name: value for name, value in row.items() if name != "split"}
            for row in table
            if row["split"] == split
        ]
        assert part == rows(run / f"predictions_{split}.csv")
    for row in table:
        chances = {name: float(row[f"p({name})"]) for name in CLASSES}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-6)
        assert row["prediction"] == max(chances, key=lambda name: chances[name])
    accuracy = np.mean([row["target"] == row["prediction"] for row in table if row["split"] == "test"])
    assert accuracy == pytest.approx(
        json.loads((run / "metrics.json").read_text(encoding="utf-8"))["metrics"]["test"]["accuracy"]
    )


def test_an_unlabelled_corpus_gets_the_same_predictions(cli: Cli, run: Path, tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "unlabelled", labelled=False)
    out = tmp_path / "p.csv"
    code, printed, _ = cli(
        "predict", run, "--data", tmp_path / "unlabelled", "--out", out, "--split", "test", "--json"
    )
    assert code == 0
    report = json.loads(printed)
    assert (report["out"], report["rows"], report["splits"]) == (str(out), SIZES["test"], ["test"])
    known = [
        {name: value for name, value in row.items() if name != "target"}
        for row in rows(run / "predictions_test.csv")
    ]
    assert [{name: value for name, value in row.items() if name != "split"} for row in rows(out)] == known


def test_a_corpus_without_one_of_the_modalities(cli: Cli, run: Path, tmp_path: Path) -> None:
    task = Task(kind="classification", classes=CLASSES)
    write_corpus(
        tmp_path / "text", {"test": {"features": {"text": [np.zeros((3, 4)), np.ones((2, 4))]}}}, task=task
    )
    assert cli("predict", run, "--data", tmp_path / "text", "--out", tmp_path / "p.csv")[0] == 0
    assert len(rows(tmp_path / "p.csv")) == 2


def test_parquet(cli: Cli, run: Path, corpus: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    code, _, _ = cli("predict", run, "--data", corpus, "--out", tmp_path / "p.parquet", "--split", "test")
    assert code == 0
    table = parquet.read_table(tmp_path / "p.parquet").to_pydict()
    expected = rows(run / "predictions_test.csv")
    assert table["id"] == [row["id"] for row in expected]
    assert table["p(sad)"] == [float(row["p(sad)"]) for row in expected]
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_what_prediction_refuses(
    cli: Cli, run: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d.csv").mkdir()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    cases = [
        (tmp_path / "p.txt", "found the ending '.txt', expected .csv or .parquet"),
        (tmp_path / "p", "found the ending '', expected .csv or .parquet"),
        (tmp_path / "none" / "p.csv", f"there is no directory {tmp_path / 'none'}"),
        (tmp_path / "d.csv", "a directory is there"),
        (
            tmp_path / "p.parquet",
            "pyarrow is not installed, try: pip install 'alignmamba[formats]'; or choose a .csv file",
        ),
    ]
    for out, said in cases:
        code, printed, err = cli("predict", run, "--data", corpus, "--out", out)
        assert (code, printed) == (2, "")
        assert said in err, err
        assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["d.csv"]


def test_features_that_are_not_finite(cli: Cli, run: Path, tmp_path: Path) -> None:
    task = Task(kind="classification", classes=CLASSES)
    text = [np.array([[0, 1, np.nan, 2]], dtype=np.float32), np.ones((2, 4))]
    write_corpus(tmp_path / "holes", {"test": {"features": {"text": text}}}, task=task, nonfinite="keep")
    arguments = ("predict", run, "--data", tmp_path / "holes", "--out", tmp_path / "p.csv")
    code, _, err = cli(*arguments)
    assert code == 2
    assert "test-000001" in err
    assert cli(*arguments, "--nonfinite", "zero")[0] == 0
    assert len(rows(tmp_path / "p.csv")) == 2


def test_inspect_shows_a_sound_corpus(cli: Cli, corpus: Path) -> None:
    code, out, err = cli("inspect", corpus)
    assert (code, err) == (0, "")
    for word in ("small", "train (36)", "text", "features 4", "8 / 8 / 8", "glad", "no problems"):
        assert word in out, word
    code, out, _ = cli("inspect", corpus, "--json")
    report = json.loads(out)
    assert (code, report["problems"], report["name"]) == (0, [], "small")
    assert [split["samples"] for split in report["splits"]] == list(SIZES.values())


def test_inspect_lists_every_problem(cli: Cli, tmp_path: Path) -> None:
    task = Task(kind="regression", label_range=(-1, 1))
    text = [np.array([[np.nan]]), np.array([[np.inf]]), np.zeros((2, 1))]
    write_corpus(
        tmp_path / "holes",
        {"test": {"features": {"text": text}, "targets": [0, 0, 0]}},
        task=task,
        nonfinite="keep",
    )
    code, out, _ = cli("inspect", tmp_path / "holes")
    assert code == 2
    problems = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2
    assert "test-000001" in problems[0]
    assert "train with --nonfinite mean or zero to repair them" in problems[0]
    assert "2 problems" in out
    code, out, _ = cli("inspect", tmp_path / "holes", "--json")
    assert code == 2
    assert [f"problem: {problem}" for problem in json.loads(out)["problems"]] == problems


def test_inspect_of_what_is_no_corpus(cli: Cli, run: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "none", run, run / "metrics.json"):
        code, out, err = cli("inspect", path)
        assert (code, out) == (2, "")
        assert str(path) in err
        assert len(err.splitlines()) == 1


def test_inspect_says_what_training_would_meet(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "part", sizes={"train": 12, "test": 5})
    code, out, err = cli("inspect", tmp_path / "part")
    assert (code, err) == (0, "")
    said = (
        "there is no split 'valid', only 'train', 'test'; `train --split-valid 0.15` takes that share of"
        " train for it"
    )
    assert out.splitlines()[-2:] == ["no problems", f"training is not possible as it is: {said}"]
    assert json.loads(cli("inspect", tmp_path / "part", "--json").out)["training"]["hindrance"] == said
    assert "training is not possible" not in cli("inspect", corpus).out
    # The same of a file of another format.
    audio = {role: [np.ones((2, 2)), np.zeros((1, 2)), np.eye(2)] for role in ("train", "test")}
    split = {
        role: {"text": np.ones((3, 2, 2)), "audio": np.stack([np.eye(2)] * 3), "vision": np.ones((3, 2, 1))}
        for role in audio
    }
    for part in split.values():
        part |= {
            "regression_labels": np.array([0.5, 1.0, -2.0]),
            "id": [f"{id(part)}$_${row}" for row in range(3)],
        }  # type: ignore[dict-item]
    (tmp_path / "file.pkl").write_bytes(pickle.dumps(split))
    code, out, _ = cli("inspect", tmp_path / "file.pkl")
    assert code == 0
    assert out.splitlines()[-1].startswith(
        "training is not possible as it is: there is no split 'valid', only 'train', 'test'; "
    )
    assert "note: vision: its channel has one value in all of train, so nothing can be learned" in out


def test_inspect_knows_the_corpus_that_is_built_in(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = synthetic.synthetic_corpus(sizes={"train": 20, "valid": 4, "test": 4})
    monkeypatch.setattr(synthetic, "synthetic_corpus", lambda: small)
    code, out, err = cli("inspect", "synthetic")
    assert (code, err) == (0, "")
    for word in (
        "synthetic",
        "made in memory from a seed",
        "train (",
        "presence of each symbol",
        "no problems",
    ):
        assert word in out, word
    assert json.loads(cli("inspect", "synthetic", "--json").out)["checksum"] == small.checksum
    code, out, err = cli("inspect", "synthetic", "--align")
    assert (code, out, err) == (
        2,
        "",
        "error: --align: expected a file of another format, found that synthetic is made in memory\n",
    )
    write_small_corpus(tmp_path / "synthetic")
    assert "features 4" in cli("inspect", "synthetic").out


def write_with_a_giant(path: Path, role: str) -> None:
    """The small corpus with one sample of that split so large, though finite, that no model has an answer to
    it.
    """
    random = np.random.default_rng(0)
    splits: dict[Any, Any] = {}
    for each, size in SIZES.items():
        features = {
            "text": [random.normal(size=(4, 4)) for _ in range(size)],
            "audio": [random.normal(size=(8, 2)) for _ in range(size)],
        }
        if each == role:
            # of all signs: some sum of them overflows
            features["text"][2] = 3.3e38 * np.array(list(product((-1, 1), repeat=4)))
        splits[each] = {"features": features, "targets": [CLASSES[row % 3] for row in range(size)]}
    write_corpus(path, splits, task=Task(kind="classification", classes=CLASSES))


def test_no_answer_is_no_class(cli: Cli, run: Path, tmp_path: Path) -> None:
    write_with_a_giant(tmp_path / "corpus", "test")
    table = tmp_path / "predictions.csv"
    table.write_text("mine")
    code, out, err = cli("predict", run, "--data", tmp_path / "corpus", "--out", table)
    assert (code, out) == (2, "")
    said = "split 'test': 1 of 14 predictions are not finite, the first is of sample 'test-000003'"
    assert err == f"error: {said}; the features may be too large for the model\n"
    assert table.read_text() == "mine"
    assert cli("predict", run, "--data", tmp_path / "corpus", "--split", "valid", "--out", table)[0] == 0


def test_a_test_split_without_answers_ends_no_run(cli: Cli, tmp_path: Path) -> None:
    write_with_a_giant(tmp_path / "corpus", "test")
    out = tmp_path / "run"
    code, printed, err = cli(
        "train", "--data", tmp_path / "corpus", "--out", out, "--set", *SETTINGS, "--json"
    )
    note = (
        "split 'test' has no scores: 1 of 14 predictions are not finite, the first is of sample 'test-000003'"
    )
    assert code == 0
    assert err.splitlines()[-1] == f"note: {note}"
    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert list(written["metrics"]) == ["valid"]
    assert written["notes"] == json.loads(printed)["notes"] == [note]
    assert (out / "model" / "model.safetensors").is_file()
    assert (out / "predictions_valid.csv").is_file()
    assert not (out / "predictions_test.csv").exists()
    assert cli("train", "--resume", out)[0] == 0
    assert cli("report", out, "--out", tmp_path / "report.html")[0] == 0
    assert cli("evaluate", out, "--split", "valid")[0] == 0
    code, _, err = cli("evaluate", out)
    assert (code, err.count("\n")) == (2, 1)
    assert "not finite" in err


@pytest.mark.parametrize("verb", ["evaluate", "resume"])
def test_a_corpus_that_was_moved_is_asked_for(cli: Cli, tmp_path: Path, verb: str) -> None:
    """The line names the option for the corpus's place where the run's own corpus is gone."""
    write_small_corpus(tmp_path / "here")
    assert cli("train", "--data", tmp_path / "here", "--out", tmp_path / "run", "--set", *SETTINGS)[0] == 0
    (tmp_path / "here").rename(tmp_path / "there")
    if verb == "resume":
        (tmp_path / "run" / "metrics.json").unlink()  # as of a run that is not finished
    given = ("train", "--resume", tmp_path / "run") if verb == "resume" else ("evaluate", tmp_path / "run")
    code, _, err = cli(*given)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{tmp_path / 'here'}: expected the corpus of the run, found nothing; --data" in err
    assert cli(*given, "--data", tmp_path / "there")[0] == 0


def test_a_recording_is_no_corpus(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"ftyp" * 9)
    for given in (("train", "--data"), ("inspect",)):
        code, _, err = cli(*given, tmp_path / "clip.mp4")
        assert (code, err.count("\n")) == (2, 1)
        assert "sound and pictures are no features yet; `alignmamba extract`" in err
