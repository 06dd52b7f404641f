"""Additions of model and corpus to a run, and several runs beside each other, on runs of a second."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from alignmamba.data.synthetic import synthetic_corpus
from alignmamba.errors import AlignMambaError, CheckpointError, ConfigError
from alignmamba.evaluation.metrics import score
from alignmamba.recipes.configuration import check_config
from alignmamba.recipes.finished_run import evaluate
from alignmamba.recipes.report import contents, model_study, run_comparison
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.report.findings import Tokens
from alignmamba.recipes.report.model_study import study
from alignmamba.recipes.report.page import write_page
from alignmamba.recipes.report.run_comparison import gather_runs
from alignmamba.recipes.run_records import Samples
from alignmamba.recipes.training_run import train
from small_run import CONFIG, write_small_corpus


@pytest.fixture(scope="module")
def rival(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "rival"
    options = {"d_model": 16, "depth": 1}
    train(
        check_config({**CONFIG, "data": str(corpus), "model": "late-fusion", "options": options, "seed": 1}),
        out=path,
    )
    return path


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (contents, run_comparison):
        monkeypatch.setattr(module, "RESAMPLES", 60)


def samples_of(run: Path) -> Samples:
    found = gather(run).found[0].samples
    assert found is not None
    return found


def test_each_modality_left_out_scores_as_evaluate_says(run: Path) -> None:
    known = study(run, samples_of(run))
    assert [each.modality for each in known.worth] == ["text", "audio"]
    without_audio = known.worth[1]
    told = evaluate(run, drop=["audio"])
    assert without_audio.without == pytest.approx(told["metrics_dropped"])
    assert without_audio.complete == pytest.approx(told["metrics"])
    # Every fifth sample has text alone: without it nothing is left, so both numbers are of the others.
    assert known.worth[0].samples == 14 - 3
    kept = [row for row in range(14) if row % 5]
    some = model_study._of(known.complete, np.isin(np.arange(14), kept))
    task = gather(run).experiment.task
    assert task is not None
    assert known.worth[0].complete == pytest.approx(score(task, some))
    assert any(note.startswith("3 samples have no modality but text") for note in known.notes)


def test_plans_reach_from_the_best_to_the_worst(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = study(run, samples_of(run)).plans
    assert len(everyone) == 11  # three have nothing to align
    monkeypatch.setattr(model_study, "MOST_PLANS", (5, 2))
    told = [each.why.removesuffix(" predicted of 14") for each in study(run, samples_of(run)).plans]
    expected = ["best", "4th best", "7th best", "11th best", "worst"]
    assert told == [each for each in expected if each in told]
    assert len(told) >= 3
    monkeypatch.setattr(model_study, "MOST_PLAN_TOKENS", 1)
    none = study(run, samples_of(run))
    assert none.plans == ()
    assert any("more than 1 matched tokens" in note for note in none.notes)


def test_tokens_are_told_with_and_without_plans(
    run: Path, rival: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, reason in (
        (run, "Plans of 11 of 14 samples"),
        (rival, "There are no plans: late-fusion aligns no tokens."),
    ):
        known = study(path, samples_of(path))
        assert known.without_plan.startswith(reason)
        assert known.without_plan == known.notes[-1]
        assert [set(each) for each in known.tokens] == [
            {"text"} if row % 5 == 0 else {"text", "audio"} for row in range(14)
        ]
        assert known.tokens[1]["audio"] == Tokens(length=8, seconds=None, words=None)
    split = synthetic_corpus(sizes={"train": 9}).splits["train"]
    names, counts = ["text", "video"], split.lengths["text"] + split.lengths["video"]
    tokens, notes = model_study._tokens(split, names, counts)
    assert notes == []
    for sample, found in zip(split, tokens, strict=True):
        for name in names:
            first, last = sample.times[name][[0, -1]]
            expected = Tokens(
                length=len(sample.features[name]), seconds=(first, last), words=sample.tokens[name]
            )
            assert found[name] == expected
    monkeypatch.setattr(model_study, "MOST_WORDS", int(counts.sum()) // 3)
    tokens, notes = model_study._tokens(split, names, counts)
    with_words = [row for row, each in enumerate(tokens) if each["text"].words]
    assert 1 <= len(with_words) <= 3
    assert notes == [f"Words of tokens are shown of {len(with_words)} of 9 samples to keep this page small."]


def test_a_large_split_is_bounded_and_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_study, "MOST_TOKENS", 60)
    monkeypatch.setattr(model_study, "MOST_CHARACTERS", 28)
    known = study(run, samples_of(run))
    assert 1 <= len(known.complete.ids) < 14
    assert known.complete.ids[0] == samples_of(run).ids[0]
    assert f"rests on {len(known.complete.ids)} of 14 samples, evenly spaced" in known.notes[0]


def test_a_corpus_that_is_not_the_run_s(run: Path, tmp_path: Path) -> None:
    write_small_corpus(tmp_path / "other", seed=5)
    with pytest.raises(ConfigError, match="the one that the run was trained on"):
        write_page(run, tmp_path / "page.html", data=str(tmp_path / "other"))
    with pytest.raises(AlignMambaError, match="nowhere"):
        write_page(run, tmp_path / "page.html", data=str(tmp_path / "nowhere"))
    assert not (tmp_path / "page.html").exists()


def test_without_its_corpus_a_run_is_shown_by_its_files(run: Path, corpus: Path, tmp_path: Path) -> None:
    copy, moved = tmp_path / "copy", tmp_path / "moved"
    shutil.copytree(run, copy)
    (copy / "SHA256SUMS").unlink()
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(corpus), str(tmp_path / "gone")))
    page = write_page(copy)
    assert page.note.startswith("Made from the files of the run alone, its corpus could not be used: ")
    assert "\n" not in page.note
    text = page.path.read_text(encoding="utf-8")
    assert 'id="quality"' in text
    assert 'id="worth"' not in text
    shutil.copytree(corpus, moved)
    page = write_page(copy, data=str(moved))
    assert page.note == ""
    assert 'id="worth"' in page.path.read_text(encoding="utf-8")
    assert 'id="worth"' not in write_page(run, tmp_path / "files.html", files_only=True).path.read_text(
        encoding="utf-8"
    )


def test_runs_beside_each_other(run: Path, rival: Path, tmp_path: Path) -> None:
    gathered = gather_runs([run, rival])
    assert [table.title for table in gathered.tables] == ["Scores on test", "Scores on valid"]
    table = gathered.tables[0]
    assert table.rows == ("finished", "rival")
    for name, path in (("finished", run), ("rival", rival)):
        entry = table.entries[table.rows.index(name)][table.columns.index("accuracy")]
        assert entry is not None
        assert entry.mean == json.loads((path / "metrics.json").read_text())["metrics"]["test"]["accuracy"]
        assert entry.low is not None
        assert entry.high is not None
        assert 0 <= entry.low <= entry.mean <= entry.high <= 1
    assert {entry.mark for row in table.entries for entry in row if entry} <= {"best", "level", ""}
    assert gathered.differing is not None
    settings = dict(gathered.differing.rows)
    assert settings["model"] == ("alignmamba", "late-fusion")
    assert settings["seed"] == ("0", "1")
    assert "fit.epochs" not in settings
    (pair,) = gathered.agreement
    ours, theirs = samples_of(run), samples_of(rival)
    assert pair.alike == sum(a == b for a, b in zip(ours.predictions, theirs.predictions, strict=True)) / 14
    assert pair.right is not None
    assert sum(pair.right) == 14
    assert ours.targets is not None
    right = [a == true for a, true in zip(ours.predictions, ours.targets, strict=True)]
    assert pair.right[0] + pair.right[1] == sum(right)
    page = write_page([run, rival], tmp_path / "both.html")
    text = page.path.read_text(encoding="utf-8")
    assert page.cells["finished"] == 2
    assert all(
        f'<section id="{name}"' in text
        for name in ("results", "forests", "differing", "agreement", "quality", "training", "samples")
    )


def test_what_cannot_be_compared(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        write_page([run, run], tmp_path / "page.html")
    with pytest.raises(CheckpointError, match="found neither"):
        write_page([run, tmp_path], tmp_path / "page.html")
    with pytest.raises(ConfigError, match="expected a file for the page"):
        write_page([run, run])
    with pytest.raises(ConfigError, match="goes with a single run"):
        write_page([run, shutil.copytree(run, tmp_path / "copy")], tmp_path / "page.html", data="x")
