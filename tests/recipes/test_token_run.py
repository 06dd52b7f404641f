"""A run with a target of tokens, from labels of a corpus to tables."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba import SplitArrays, Task, evaluate, predict, train, write_corpus
from alignmamba.cli.main import main
from alignmamba.data.missing_protocols import MissingConfig
from alignmamba.errors import ConfigError
from alignmamba.evaluation.tables import ResultTable
from alignmamba.recipes.configuration import RunConfig, read_config
from alignmamba.recipes.finished_run import load_run
from alignmamba.recipes.opened import open_run
from alignmamba.recipes.program_export import export_program
from alignmamba.recipes.run_interface import interface_of
from alignmamba.recipes.service.prediction_app import answers_of
from alignmamba.recipes.training_run import plan
from small_run import rows_of

TARGETS = {"word": {}, "level": {}}


def arrays(count: int, role: str) -> SplitArrays:
    """Video whose tokens are loud or quiet, with a word for each, and audio twice as fast."""
    random = np.random.default_rng(len(role))
    loud = [random.integers(0, 2, size=random.integers(3, 7)) for _ in range(count)]
    video = [(random.normal(size=(len(each), 3)) * 0.2 + each[:, None]).astype(np.float32) for each in loud]
    audio = [(random.normal(size=(2 * len(each), 2)) + each.repeat(2)[:, None]) for each in loud]
    words: list[Any] = [["loud" if token else "quiet" for token in each] for each in loud]
    for row in range(0, count, 3):
        words[row][0] = None
    heard: list[Any] = [[word for each in line for word in (each, None)] for line in words]
    words[1] = heard[1] = None
    return SplitArrays(
        features={"video": video, "audio": [each.astype(np.float32) for each in audio]},
        targets=[float(each.mean()) for each in loud],
        ids=[f"{role}-{row}" for row in range(count)],
        times={"video": [np.arange(len(each)) / 25 for each in loud]},
        token_labels={
            "video": {"word": words, "level": [2.0 * each - 1 for each in loud]},
            "audio": {"word": heard},
        },
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("labels") / "corpus"
    splits: dict[Any, SplitArrays] = {
        role: arrays(count, role) for role, count in (("train", 48), ("valid", 12), ("test", 12))
    }
    write_corpus(place, splits, task=Task(kind="regression"))
    return place


def config(corpus: Path, **overrides: Any) -> RunConfig:
    small = {"options.d_model": 16, "options.depth": 1, "options.encoders": {"audio": {"stride": 2}}}
    fit = {"fit.epochs": 6, "fit.task_weight": 0.0}
    return read_config(overrides={"data": str(corpus), "targets": TARGETS, **small, **fit, **overrides})


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(corpus), out=tmp_path_factory.mktemp("run") / "run", progress=None).directory


def test_tokens_are_learned_though_the_task_has_no_weight(run: Path) -> None:
    found = json.loads((run / "metrics.json").read_text())
    assert found["selected_by"] == "loss"
    assert found["metrics"]["test"]["word.accuracy"] > 0.8
    assert found["metrics"]["test"]["level.corr"] > 0.8
    losses = rows_of(run / "log.csv")
    assert {float(epoch["valid/loss/task"]) for epoch in losses} == {0.0}


def test_each_token_has_a_row_with_its_time(run: Path) -> None:
    rows = rows_of(run / "predictions_test-video.csv")
    assert [row["token"] for row in rows[:4]] == ["0", "1", "2", "3"]
    assert [float(row["time"]) for row in rows[:3]] == [0.0, 0.04, 0.08]
    assert rows[0]["word.target"] == ""  # of every third sample, the first token is not known
    assert {row["word.target"] for row in rows if row["id"] == "test-1"} == {""}
    assert {row["word.prediction"] for row in rows} == {"loud", "quiet"}
    for row in rows:
        assert float(row["word.p(loud)"]) + float(row["word.p(quiet)"]) == pytest.approx(1, abs=1e-5)
    assert "word.target" not in rows_of(run / "predictions_test.csv")[0]
    by_sample: dict[str, list[bool]] = {}
    for row in rows:
        if row["word.target"]:
            hits = by_sample.setdefault(row["id"], [])
            hits.append(row["word.target"] == row["word.prediction"])
    scores = json.loads((run / "metrics.json").read_text())["metrics"]["test"]
    assert scores["word.accuracy"] == pytest.approx(np.mean([np.mean(hits) for hits in by_sample.values()]))


def test_the_run_scores_and_predicts_as_in_training(run: Path, corpus: Path, tmp_path: Path) -> None:
    report = evaluate(run, out=tmp_path / "scored")
    stored = json.loads((run / "metrics.json").read_text())["metrics"]["test"]
    assert report["metrics"] == pytest.approx(stored)
    made = predict(run, corpus, tmp_path / "said.csv", split="test")
    assert made["tokens"] == {"video": str(tmp_path / "said-video.csv")}
    expected = rows_of(run / "predictions_test-video.csv")
    for place in (tmp_path / "said-video.csv", tmp_path / "scored" / "predictions-video.csv"):
        found = rows_of(place)
        assert len(found) == len(expected)
        for now, then in zip(found, expected, strict=True):
            assert (now["id"], now["time"], now["word.prediction"]) == (
                then["id"],
                then["time"],
                then["word.prediction"],
            )
            assert float(now["level.prediction"]) == pytest.approx(float(then["level.prediction"]), abs=1e-4)


def test_tokens_of_a_modality_that_is_withheld_have_no_score(run: Path) -> None:
    quiet = evaluate(run, drop=["audio"])["metrics_dropped"]
    assert 0 <= quiet["word.accuracy"] <= 1
    unseen = evaluate(run, drop=["video"])["metrics_dropped"]
    assert math.isnan(unseen["word.accuracy"])
    lost = evaluate(run, missing=MissingConfig(protocol="tokens", rate=0.5))["metrics_missing"]
    assert 0 <= lost["word.accuracy"] <= 1


def test_tokens_are_predicted_in_python(run: Path) -> None:
    opened = open_run(run)
    table = opened.predict_tokens(split="test")
    assert list(table.columns[:4]) == ["id", "split", "token", "time"]
    assert len(table) == len(rows_of(run / "predictions_test-video.csv"))
    assert len(opened.predict(split="test")) == 12
    sound = [np.ones((4, 2), np.float32), np.zeros((2, 2), np.float32)]
    lips = [np.ones((2, 3), np.float32), None]
    own = opened.predict_tokens({"video": lips, "audio": sound}, ids=["a", "b"])
    assert own["id"].tolist() == ["a", "a"]  # the second has no video, so nothing to predict
    assert "split" not in own
    assert own["time"].isna().all()
    with pytest.raises(ConfigError, match="modality: found 'audio', expected 'video'"):
        opened.predict_tokens(modality="audio")


def test_a_server_answers_with_a_list(run: Path) -> None:
    opened = open_run(run)
    loaded = load_run(opened)
    said = loaded.predictions(loaded.corpus.split("test"))
    answers = answers_of(said, opened.model.config.task)
    rows = rows_of(run / "predictions_test-video.csv")
    words = [token["prediction"] for answer in answers for token in answer["further"]["word"]]
    assert words == [row["word.prediction"] for row in rows]
    assert len(answers[1]["further"]["level"]) == sum(row["id"] == "test-1" for row in rows)
    assert interface_of(opened)["targets"][1]["tokens"] == "video"


# What the exporter says of its own deprecated calls, as far as it is not silenced.
@pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:onnx.*")
def test_a_program_of_the_run_says_the_same_of_each_token(run: Path, corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs alignmamba[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="needs alignmamba[onnx]")
    out = tmp_path / "run.onnx"
    made = export_program(run, out, form="onnx")
    assert made["outputs"] == ["prediction", "word", "word_mask", "level", "level_mask"]
    assert made["targets"][1]["tokens"] == "video"
    assert made["difference"] < 1e-4
    session = runtime.InferenceSession(out)
    assert [place.shape for place in session.get_outputs()][1:3] == [
        ["samples", "video_tokens", 2],
        ["samples", "video_tokens"],
    ]
    opened = open_run(run)
    rows = opened.predict_tokens(data=corpus, split="test").set_index("id")
    words = [f"word.p({name})" for name in made["targets"][1]["classes"]]
    split = arrays(12, "test")
    for group in (["test-0"], ["test-3", "test-1", "test-7"]):
        fed = {}
        for name in ("video", "audio"):
            own = [split.features[name][int(each.removeprefix("test-"))] for each in group]
            fed[name] = np.zeros((len(own), max(map(len, own)) + 2, own[0].shape[1]), np.float32)
            for row, each in enumerate(own):
                fed[name][row, : len(each)] = each
            lengths = np.array([len(each) for each in own])[:, None]
            fed[f"{name}_mask"] = np.arange(fed[name].shape[1]) < lengths
        _, word, mask, level, _ = session.run(None, fed)
        assert np.array_equal(mask, fed["video_mask"])
        assert np.array_equal(np.isnan(level), ~mask)
        for row, each in enumerate(group):
            table = rows.loc[each]
            np.testing.assert_allclose(word[row][mask[row]], table[words].to_numpy(), atol=1e-4)
            np.testing.assert_allclose(level[row][mask[row]], table["level.prediction"].to_numpy(), atol=1e-4)


def test_the_command_names_both_tables(
    run: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "said.csv"
    assert main(["predict", str(run), "--data", str(corpus), "--split", "valid", "--out", str(out)]) == 0
    assert f"those of the tokens of video in {tmp_path / 'said-video.csv'}" in capsys.readouterr().out


@pytest.mark.usefixtures("in_process")
def test_a_comparison_puts_tokens_of_one_modality_beside_those_of_another(
    corpus: Path, tmp_path: Path
) -> None:
    small = ["options.d_model=8", "options.depth=1", "fit.epochs=1", "fit.task_weight=0"]
    targets = "targets={word: {}, level: {}}"
    out = tmp_path / "comparison"
    command = ["experiment", "comparison", "--data", str(corpus), "--models", "alignmamba", "--seeds", "1"]
    assert main([*command, "--without-references", "--set", *small, targets, "--out", str(out)]) == 0
    table = ResultTable.from_json((out / "tables" / "comparison-word.json").read_text())
    assert table.rows == ("alignmamba", "video alone", "audio alone")
    for row, file in (("audio alone", "audio"), ("video alone", "video")):
        entry = table.entries[table.rows.index(row)][table.columns.index("accuracy")]
        assert entry is not None
        scores = [
            json.loads((path.parent / "metrics.json").read_text())["metrics"]["test"]["word.accuracy"]
            for path in out.glob(f"cells/*/predictions_test-{file}.csv")
            if f"modalities:\n- {file}\n" in (path.parent / "config.yaml").read_text()
        ]
        assert sorted(entry.values) == pytest.approx(sorted(scores))
    assert any("over the 11 samples, not over their" in note for note in table.notes)
    assert not any("one standard error" in note for note in table.notes)
    level = ResultTable.from_json((out / "tables" / "comparison-level.json").read_text())
    assert all(entry is None for entry in level.entries[level.rows.index("audio alone")])


def test_only_settings_that_ask_for_tokens_have_another_digest(corpus: Path, tmp_path: Path) -> None:
    def digest(**overrides: Any) -> str:
        return plan(config(corpus, **overrides), out=tmp_path / "run").digest

    assert digest(targets={}) != digest()
    assert digest(**{"fit.task_weight": 1.0}) != digest()
    assert "tokens" not in config(corpus).model_dump(mode="json")["targets"]["word"]
    assert "tokens" in config(corpus, targets={"word": {"tokens": "audio"}}).to_yaml()


def test_folds_are_scored_together(corpus: Path, tmp_path: Path) -> None:
    small = ["options.d_model=8", "options.depth=1", "fit.epochs=1", "targets={word: {}}"]
    command = ["train", "--data", str(corpus), "--folds", "3", "--out", str(tmp_path / "folds")]
    assert main([*command, "--set", *small]) == 0
    together = rows_of(tmp_path / "folds" / "predictions_test-video.csv")
    parts = [
        row
        for fold in range(3)
        for row in rows_of(tmp_path / "folds" / f"fold-{fold}" / "predictions_test-video.csv")
    ]
    assert [(row["id"], row["token"]) for row in together] == [(row["id"], row["token"]) for row in parts]
    assert len({row["id"] for row in together}) == 72
