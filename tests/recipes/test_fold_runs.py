"""Cross-validation of a model: a run a fold, resumed, evaluated, and scored together."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import Corpus
from alignmamba.data.cross_validation import fold_of
from alignmamba.errors import CheckpointError, ConfigError
from alignmamba.recipes import fold_runs
from alignmamba.recipes.configuration import RunConfig, check_config
from alignmamba.recipes.finished_run import evaluate
from alignmamba.recipes.fold_runs import FOLDS, plan_folds, train_folds
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.training_run import plan, train
from small_run import CONFIG, SIZES, rows_of, write_small_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_small_corpus(tmp_path_factory.mktemp("data") / "small")


def config(corpus: Corpus, **changes: Any) -> RunConfig:
    return check_config(
        {**CONFIG, "model": "pooled-linear", "options": {}, "data": corpus.location, **changes}
    )


@pytest.fixture(scope="module")
def finished(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("folds") / "run"
    train_folds(config(corpus), folds=3, out=out, progress=None)
    return out


def test_predictions_of_all_folds_cover_every_sample_once(corpus: Corpus, finished: Path) -> None:
    rows = rows_of(finished / "predictions_test.csv")
    assert sorted(row["id"] for row in rows) == sorted(i for each in corpus.splits.values() for i in each.ids)
    record = json.loads((finished / FOLDS).read_text())
    right = np.mean([row["target"] == row["prediction"] for row in rows])
    assert record["metrics"]["test"]["accuracy"] == pytest.approx(right)
    assert (record["folds"], record["samples"]) == (3, sum(SIZES.values()))


def test_a_fold_is_evaluated_on_its_own_parts(finished: Path) -> None:
    for number in range(3):
        run = finished / f"fold-{number}"
        said = json.loads((run / "metrics.json").read_text())["metrics"]["test"]
        report = evaluate(run)
        assert report["metrics"] == pytest.approx(said)
        facts = json.loads((run / "run.json").read_text())["fold"]
        assert report["samples"] == facts["test"]


def test_the_command_resumes_and_refuses_other_settings(corpus: Corpus, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("fold-*/metrics.json")}
    train_folds(config(corpus), folds=3, out=finished, progress=None)
    assert {path: path.stat().st_mtime_ns for path in finished.glob("fold-*/metrics.json")} == before
    with pytest.raises(CheckpointError, match=r"fold-0: holds a run of other settings; choose another --out"):
        train_folds(config(corpus, seed=1), folds=3, out=finished, progress=None)


def test_the_directory_of_all_folds_leads_to_theirs(finished: Path) -> None:
    said = re.escape(f"take one, such as {finished / 'fold-0'}, or repeat train --folds to resume")
    for use in (evaluate, gather):
        with pytest.raises(CheckpointError, match=said):
            use(finished)
    with pytest.raises(CheckpointError, match=r"it has no config\.yaml and run\.json$"):
        evaluate(finished.parent)


def test_finished_folds_are_not_planned_again(
    corpus: Corpus, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[int] = []

    def counted(config: RunConfig, **options: Any) -> Any:
        planned.append(config.folds.test)
        return plan(config, **options)

    monkeypatch.setattr(fold_runs, "plan", counted)
    train_folds(config(corpus), folds=3, out=finished, progress=None)
    assert planned == [0]


def test_digests_are_those_of_before_without_folds_and_differ_between_folds(corpus: Corpus) -> None:
    plain = config(corpus)
    assert plain.digest(corpus) == config(corpus, folds={"number": 0}).digest(corpus)
    digests = {
        config(corpus, folds={"number": 3, "test": test, "seed": seed}).digest(corpus)
        for test in range(3)
        for seed in (0, 1)
    }
    assert len(digests | {plain.digest(corpus)}) == 7


def test_an_unfinished_fold_is_resumed_on_its_own_parts(corpus: Corpus, tmp_path: Path) -> None:
    class StopSoon:
        def started(self, **_: Any) -> None: ...
        def stepped(self, **_: Any) -> None: ...
        def epoch_finished(self, record: Any, *, best: bool) -> None:
            del best
            if record["epoch"] == 2:
                raise KeyboardInterrupt

    fold = config(corpus, folds={"number": 3, "test": 1})
    with pytest.raises(KeyboardInterrupt):
        train(fold, out=tmp_path / "fold-1", progress=None, callbacks=(StopSoon(),))  # type: ignore[arg-type]
    train_folds(config(corpus), folds=3, out=tmp_path, progress=None)
    whole = train(fold, out=tmp_path / "whole", progress=None)
    assert (tmp_path / "fold-1" / "predictions_test.csv").read_bytes() == (
        whole.directory / "predictions_test.csv"
    ).read_bytes()


def test_a_corpus_without_splits_but_train(tmp_path: Path) -> None:
    alone = write_small_corpus(tmp_path / "data", sizes={"train": 30})
    result = train_folds(config(alone), folds=3, out=tmp_path / "run", progress=None)
    assert result.samples == 30
    assert len(result.runs) == 3


def test_what_does_not_go_together_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    for changes, message in (
        ({"split_valid": 0.2}, "split_valid: a fold has a valid split of its own"),
        ({"engine": {"devices": 2, "accelerator": "cpu"}}, "folds: found 2 processes a run, expected one"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_folds(config(corpus, **changes), folds=3, out=tmp_path / "run", progress=None)
    with pytest.raises(ConfigError, match="folds: found 62 samples, expected 63 or more"):
        train_folds(config(corpus), folds=63, out=tmp_path / "run", progress=None)
    assert not (tmp_path / "run").exists()
    assert plan_folds(config(corpus), 3).directory.name.endswith("-folds3")


def test_all_seeds_share_the_deal(corpus: Corpus, tmp_path: Path) -> None:
    made = [plan(config(corpus, seed=seed, folds={"number": 3}), out=tmp_path / "run") for seed in (0, 1)]
    assert made[0].corpus.split("test").ids == made[1].corpus.split("test").ids
    assert made[0].corpus.split("test").ids == fold_of(corpus, made[0].config.folds).corpus.split("test").ids
