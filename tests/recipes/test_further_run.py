"""A run with further targets, from labels of a corpus to tables."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba import SplitArrays, Task, evaluate, predict, train, write_corpus
from alignmamba.cli.main import main
from alignmamba.errors import ConfigError
from alignmamba.evaluation.tables import ResultTable
from alignmamba.recipes.configuration import read_config
from alignmamba.recipes.preparation import seen_by
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.report.run_comparison import gather_runs
from alignmamba.recipes.training_run import plan
from alignmamba.recipes.tuning.tuning_plan import TuningOptions, plan_tuning
from small_run import rows_of

TARGETS = {
    "label_T": {"modality": "text"},
    "mood": {"weight": 0.5},
    "emotions": {"labels": ["happy", "sad"]},
}


def arrays(count: int, role: str) -> SplitArrays:
    """Text that holds one number and audio that holds another; a third of the samples lacks a label."""
    random = np.random.default_rng(len(role))
    text, audio = random.normal(size=(2, count))
    return SplitArrays(
        features={
            "text": [(random.normal(size=(3, 4)) * 0.1 + value).astype(np.float32) for value in text],
            "audio": [(random.normal(size=(4, 2)) * 0.1 + value).astype(np.float32) for value in audio],
        },
        targets=np.clip(text + audio, -3, 3).tolist(),
        ids=[f"{role}-{row}" for row in range(count)],
        labels={
            "label_T": [None if row % 3 == 0 else float(value) for row, value in enumerate(text)],
            "mood": ["up" if value > 0 else "down" for value in text],
            "happy": (text > 0).astype(int).tolist(),
            "sad": (audio < 0).astype(float).tolist(),
        },
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("labels") / "corpus"
    write_corpus(
        place,
        {"train": arrays(48, "train"), "valid": arrays(16, "valid"), "test": arrays(20, "test")},
        task=Task(kind="regression", label_range=(-3.0, 3.0)),
    )
    return place


def config(corpus: Path, **overrides: Any) -> Any:
    small = {"options.d_model": 16, "options.depth": 1, "fit.epochs": 4}
    return read_config(overrides={"data": str(corpus), "targets": TARGETS, **small, **overrides})


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(corpus), out=tmp_path_factory.mktemp("run") / "run", progress=None).directory


def test_scores_of_all_targets_stand_side_by_side_and_were_learned(run: Path) -> None:
    scores = json.loads((run / "metrics.json").read_text())["metrics"]["test"]
    assert scores["label_T.corr"] > 0.8
    assert scores["mood.accuracy"] > 0.8
    assert scores["emotions.auroc"] > 0.8
    assert "mae" in scores


def test_predictions_have_columns_of_each_target(run: Path) -> None:
    rows = rows_of(run / "predictions_test.csv")
    assert rows[0]["label_T.target"] == ""
    assert rows[1]["label_T.target"] != ""
    assert {row["mood.prediction"] for row in rows} <= {"up", "down"}
    assert all(0 <= float(row["emotions.p(sad)"]) <= 1 for row in rows)


def test_the_run_scores_and_predicts_as_in_training(run: Path, corpus: Path, tmp_path: Path) -> None:
    report = evaluate(run)
    stored = json.loads((run / "metrics.json").read_text())["metrics"]["test"]
    assert report["metrics"] == pytest.approx(stored)
    predict(run, corpus, tmp_path / "said.csv", split="test")
    with (tmp_path / "said.csv").open() as said, (run / "predictions_test.csv").open() as stored_file:
        for now, then in zip(csv.DictReader(said), csv.DictReader(stored_file), strict=True):
            assert float(now["label_T.prediction"]) == pytest.approx(float(then["label_T.prediction"]))


def test_the_page_of_a_run_has_a_table_of_each_target_and_of_each_label(run: Path, tmp_path: Path) -> None:
    tables = {table.name: table for table in gather(run).tables}
    assert set(tables) == {
        *("metrics", "metrics-label_T", "metrics-mood", "metrics-emotions"),
        *("labels-test", "labels-valid"),
    }
    scores = json.loads((run / "metrics.json").read_text())["metrics"]["test"]
    mood = tables["metrics-mood"]
    entry = mood.entries[mood.rows.index("test")][mood.columns.index("mood.accuracy")]
    assert entry is not None
    assert entry.mean == scores["mood.accuracy"]
    assert entry.low is not None
    assert entry.low < scores["mood.accuracy"] <= entry.high
    labels = tables["labels-test"]
    assert labels.rows == ("happy", "sad")
    found = labels.entries[1][labels.columns.index("emotions.accuracy")]
    assert found is not None
    assert found.mean == scores["emotions.accuracy(sad)"]
    assert all("." not in name for name in tables["metrics"].columns)
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert "Scores of mood" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_two_runs_are_marked_by_scores_of_every_target(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    (test,) = (table for table in gather_runs([run, other]).tables if table.name == "test")
    assert {row[test.columns.index("mood.accuracy")].mark for row in test.entries} <= {"best", "level"}
    assert "emotions.accuracy(sad)" not in test.columns


def test_the_best_epoch_may_be_that_of_a_further_target(corpus: Path, tmp_path: Path) -> None:
    result = train(config(corpus, **{"fit.select": "mood.accuracy"}), out=tmp_path / "run", progress=None)
    assert json.loads((result.directory / "metrics.json").read_text())["selected_by"] == "mood.accuracy"
    with pytest.raises(ConfigError, match=r"fit.select: found 'mood.mae', expected one of .*mood.accuracy"):
        plan(config(corpus, **{"fit.select": "mood.mae"}), out=tmp_path / "other")


def test_a_modality_that_is_left_out_takes_its_targets_with_it(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"targets.label_T.modality: found 'text', expected one of audio"):
        plan(config(corpus, modalities=["audio"]), out=tmp_path / "run")


def test_a_search_may_choose_by_a_further_target(corpus: Path, tmp_path: Path) -> None:
    asked = TuningOptions(methods=("late-fusion",), trials=1, repeats=1)
    found = plan_tuning(asked, config(corpus, **{"fit.select": "label_T.mae"}), out=tmp_path / "search")
    assert found.record.metric == "label_T.mae"
    assert not found.higher_is_better
    with pytest.raises(ConfigError, match=r"no metric 'label_T.accuracy' for this task, only .*label_T.mae"):
        plan_tuning(asked, config(corpus, **{"fit.select": "label_T.accuracy"}), out=tmp_path / "other")


def test_a_corpus_is_seen_with_the_targets_that_a_run_can_have(corpus: Path, tmp_path: Path) -> None:
    ready = plan(config(corpus), out=tmp_path / "run")
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["label_T", "mood", "emotions"]),
        ({"modalities": ("audio",)}, ["mood", "emotions"]),
        ({"model": "best-constant"}, []),
    ]
    for changes, expected in cases:
        seen = seen_by(ready.config.model_copy(update=changes), ready.corpus)
        assert [target.name for target in seen.task.further] == expected


def test_a_run_without_further_targets_has_the_digest_that_it_had(corpus: Path, tmp_path: Path) -> None:
    plain = plan(config(corpus, targets={}), out=tmp_path / "plain")
    assert "targets" not in plain.corpus.task.model_dump()
    assert "further" not in plain.corpus.task.model_dump()
    assert plan(config(corpus), out=tmp_path / "more").digest != plain.digest


@pytest.mark.usefixtures("in_process")
def test_a_comparison_has_a_table_of_each_target(corpus: Path, tmp_path: Path) -> None:
    small = ["options.d_model=8", "options.depth=1", "fit.epochs=1"]
    targets = "targets={label_T: {modality: text}, mood: {}, emotions: {labels: [happy, sad]}}"
    command = ["experiment", "comparison", "--data", str(corpus), "--models", "alignmamba", "late-fusion"]
    out = tmp_path / "comparison"
    assert main([*command, "--seeds", "1", "--set", *small, targets, "--out", str(out)]) == 0
    for name, metric in (("label_T", "mae"), ("mood", "accuracy"), ("emotions", "auroc")):
        table = ResultTable.from_json((out / "tables" / f"comparison-{name}.json").read_text())
        place = table.columns.index(metric)
        entry = table.entries[table.rows.index("late-fusion")][place]
        assert entry is not None
        scores = [
            json.loads(path.read_text())["metrics"]["test"][f"{name}.{metric}"]
            for path in out.glob("cells/*/metrics.json")
            if "late-fusion" in (path.parent / "config.yaml").read_text()
        ]
        assert sorted(entry.values) == pytest.approx(sorted(scores))
        marks = [each.mark for row in table.entries if (each := row[place]) is not None]
        assert "best" in marks
    rows = ResultTable.from_json((out / "tables" / "comparison-label_T.json").read_text())
    # the audio alone has nothing of the text, and references learn no further targets
    assert all(entry is None for entry in rows.entries[rows.rows.index("audio alone")])
