"""Runs that are about several labels, or about ordered classes, from a corpus to tables."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba import SplitArrays, Task, evaluate, predict, train, write_corpus
from alignmamba.cli.main import main
from alignmamba.errors import ConfigError
from alignmamba.evaluation.tables import ResultTable
from alignmamba.models.network import Network
from alignmamba.recipes.configuration import read_config
from alignmamba.recipes.opened import open_run
from alignmamba.recipes.training_run import plan
from small_run import rows_of

EMOTIONS = Task(kind="multilabel", classes=("happy", "sad"))


def arrays(count: int, role: str, kind: str = "multilabel", *, flipped: bool = False) -> SplitArrays:
    """Text that decides on one label and audio that decides on another; a fifth of the samples has none."""
    random = np.random.default_rng(len(role))
    text, audio = random.normal(size=(2, count))
    pairs = enumerate(zip(text, audio, strict=True))
    there = [[float(t > 0), float(a > 1) if row % 3 else None] for row, (t, a) in pairs]
    if flipped:
        there = [[1 - (first or 0), second] for first, second in there]
    grades = np.digitize(text, (-0.5, 0.5)).tolist()
    targets = [
        None if row % 5 == 0 else (there if kind == "multilabel" else grades)[row] for row in range(count)
    ]
    return SplitArrays(
        features={
            "text": [(random.normal(size=(3, 4)) * 0.1 + value).astype(np.float32) for value in text],
            "audio": [(random.normal(size=(4, 2)) * 0.1 + value).astype(np.float32) for value in audio],
        },
        targets=targets,
        ids=[f"{role}-{row}" for row in range(count)],
        labels={
            "arousal": audio.tolist(),
            "calm": (audio < 0).astype(int).tolist(),
            "grade": [("bad", "fair", "good")[grade] for grade in grades],
        },
    )


def written(place: Path, kind: str = "multilabel", **changes: SplitArrays) -> Path:
    sizes = {"train": 48, "valid": 24, "test": 24}
    task = EMOTIONS if kind == "multilabel" else Task(kind="ordinal", classes=("bad", "fair", "good"))
    splits = {role: arrays(count, role, kind) for role, count in sizes.items()} | changes
    write_corpus(place, splits, task=task)  # type: ignore[arg-type]
    return place


def config(corpus: Path, **overrides: Any) -> Any:
    small = {"options.d_model": 8, "options.depth": 1, "fit.epochs": 3, "fit.learning_rate": 0.01}
    return read_config(overrides={"data": str(corpus), **small, **overrides})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("leading") / "corpus")


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = config(corpus, **{"fit.thresholds": "validation", "targets": {"arousal": {}}})
    return train(settings, out=tmp_path_factory.mktemp("run") / "run", progress=None).directory


def test_several_labels_are_learned_and_told(run: Path) -> None:
    found = json.loads((run / "metrics.json").read_text())
    assert found["selected_by"] == "auroc"
    assert found["metrics"]["test"]["auroc"] > 0.8
    assert set(found["thresholds"]) == {"happy", "sad"}
    rows = rows_of(run / "predictions_test.csv")
    assert rows[0]["target(happy)"] == rows[0]["target(sad)"] == rows[3]["target(sad)"] == ""
    for row in rows:
        for name, threshold in found["thresholds"].items():
            assert float(row[f"prediction({name})"]) == (float(row[f"p({name})"]) >= threshold)
    assert "any of 2 classes: `happy`, `sad`" in (run / "model" / "README.md").read_text()


def test_a_score_that_valid_cannot_have_is_refused_before_training(tmp_path: Path) -> None:
    valid = arrays(24, "valid")
    same = [None if target is None else [1.0, 0.0] for target in valid.targets or ()]
    corpus = written(tmp_path / "corpus", valid=replace(valid, targets=same))
    with pytest.raises(
        ConfigError, match=r"fit\.select: auroc needs a label that some samples of valid have"
    ):
        plan(config(corpus))
    assert plan(config(corpus, **{"fit.select": "loss"})).config.fit.select == "loss"


def test_a_run_from_before_a_setting_was_refused_opens(tmp_path: Path) -> None:
    before = config(tmp_path, **{"fit.class_weights": "balanced", "loader.balance": "target"})
    assert before.loader.balance == "target"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"fit.class_weights": "even"},
            r"^fit\.class_weights: found 'even' \(str\), expected 'balanced' or a",
        ),
        ({"fit.class_weights": "balanced", "loader.balance": "target"}, "expected one of the two"),
        ({"fit.class_weights": [0, 0, 0]}, r"^fit\.class_weights: found 0 for all classes"),
    ],
)
def test_weights_that_do_nothing_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    graded = written(tmp_path / "graded", "ordinal")
    with pytest.raises(ConfigError, match=said):
        train(config(graded, **settings), out=tmp_path / "run", progress=None)


def test_the_run_scores_and_predicts_by_its_own_thresholds(run: Path, corpus: Path, tmp_path: Path) -> None:
    stored = json.loads((run / "metrics.json").read_text())
    report = evaluate(run)
    assert report["metrics"] == pytest.approx(stored["metrics"]["test"], nan_ok=True)
    assert report["thresholds"] == pytest.approx(stored["thresholds"])
    predict(run, corpus, tmp_path / "said.csv", split="test")
    for now, then in zip(rows_of(tmp_path / "said.csv"), rows_of(run / "predictions_test.csv"), strict=True):
        assert now["prediction(happy)"] == then["prediction(happy)"]


def test_test_has_no_part_in_thresholds_and_validation_has(run: Path, tmp_path: Path) -> None:
    stored = json.loads((run / "metrics.json").read_text())["thresholds"]
    others = {"test": arrays(24, "test", flipped=True)}
    settings = {"fit.thresholds": "validation", "targets": {"arousal": {}}}
    moved = train(config(written(tmp_path / "test", **others), **settings), out=tmp_path / "a", progress=None)
    assert moved.thresholds == stored
    # and two labels that valid never has together are called otherwise
    valid = arrays(24, "valid")
    given = [None if each is None else [each[1] or 0, each[0]] for each in valid.targets or ()]
    others = {"valid": replace(valid, targets=given)}
    moved = train(
        config(written(tmp_path / "valid", **others), **settings), out=tmp_path / "b", progress=None
    )
    assert moved.thresholds != stored


def test_thresholds_need_several_labels(tmp_path: Path) -> None:
    graded = written(tmp_path / "corpus", "ordinal")
    with pytest.raises(ConfigError, match=r"fit\.thresholds: found 'validation', expected 'half'"):
        plan(config(graded, **{"fit.thresholds": "validation"}), out=tmp_path / "run")


def test_weights_without_thresholds_call_from_one_half_on(run: Path) -> None:
    network: Network[Any] = open_run(run).model
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("calling")}
    assert len(state) < len(network.state_dict())
    network.load_state_dict(state)
    assert network.thresholds[""].tolist() == [0.5, 0.5]


def test_a_report_shows_sets_of_labels(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "2 labels at once" in page
    assert "happy, sad" in page or "none" in page


def test_ordered_classes_lead_a_run(tmp_path: Path) -> None:
    graded = written(tmp_path / "corpus", "ordinal")
    result = train(config(graded, **{"fit.class_weights": "balanced"}), out=tmp_path / "run", progress=None)
    assert {"accuracy", "mae_classes", "kappa"} <= set(result.metrics["test"])
    assert (result.directory / "confusion_test.csv").exists()
    rows = rows_of(result.directory / "predictions_test.csv")
    assert {row["prediction"] for row in rows} <= {"bad", "fair", "good"}
    assert rows[0]["target"] == ""
    assert main(["report", str(result.directory)]) == 0


@pytest.mark.usefixtures("in_process")
def test_a_comparison_has_several_labels_in_front(corpus: Path, tmp_path: Path) -> None:
    small = ["options.d_model=8", "options.depth=1", "fit.epochs=1"]
    out = tmp_path / "comparison"
    command = ["experiment", "comparison", "--data", str(corpus), "--models", "late-fusion", "pooled-linear"]
    assert main([*command, "--without-alone", "--seeds", "1", "--set", *small, "--out", str(out)]) == 0
    table = ResultTable.from_json((out / "tables" / "comparison.json").read_text())
    assert "accuracy_weighted" in table.columns
    entry = table.entries[table.rows.index("late-fusion")][table.columns.index("auroc")]
    assert entry is not None
    scores = [
        json.loads(path.read_text())["metrics"]["test"]["auroc"]
        for path in out.glob("cells/*/metrics.json")
        if "late-fusion" in (path.parent / "config.yaml").read_text()
    ]
    assert sorted(entry.values) == pytest.approx(sorted(scores))
