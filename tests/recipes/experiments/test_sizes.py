"""Training sizes: which runs there are, the same samples for all rows, tables, plots, and what is refused."""

import csv
import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import Corpus, Task
from alignmamba.data.archive import write_corpus
from alignmamba.errors import ConfigError
from alignmamba.evaluation.tables import ResultTable
from alignmamba.recipes.configuration import RunConfig, check_config
from alignmamba.recipes.experiments.catalogue import cells_of
from alignmamba.recipes.experiments.cell_process import DONE, run_cell
from alignmamba.recipes.experiments.grid_run import (
    ExperimentPlan,
    GridEngine,
    plan_experiment,
    run_experiment,
    sum_up,
)
from alignmamba.recipes.experiments.sizes import SizesOptions
from alignmamba.recipes.finished_run import evaluate, load_run
from alignmamba.recipes.training_run import train
from small_run import CONFIG, SIZES, write_small_corpus

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_small_corpus(tmp_path_factory.mktemp("data") / "small")


def base(corpus: Corpus, **changes: Any) -> RunConfig:
    return check_config({**CONFIG, "data": corpus.location, "fit": {"epochs": 1}, **changes})


def one(corpus: Corpus) -> RunConfig:
    """Single modalities are read by a network that trains quickly."""
    return base(corpus, model="late-fusion", options={"d_model": 8, "depth": 1})


class Ignored:
    def started(self, **_: Any) -> None: ...
    def finished(self, *_: Any, **__: Any) -> None: ...


def done(plan: ExperimentPlan) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alignmamba.recipes.experiments.grid_run.run_here", lambda *_, **__: None)
        run_experiment(plan, GridEngine(), command=["made", "here"], progress=Ignored())
    assert [run_cell(plan.directory, job.key) for job in plan.jobs] == [DONE] * len(plan.jobs)
    sum_up(plan.directory)
    return plan.directory


@pytest.fixture(scope="module")
def finished(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = SizesOptions(
        models=("late-fusion", "references"), seeds=2, sizes=(12, 400), missing_rates=(0.4,), cut_valid=True
    )
    return done(plan_experiment(asked, one(corpus), out=tmp_path_factory.mktemp("grids") / "sizes"))


def tables(path: Path) -> dict[str, ResultTable]:
    return {
        file.stem: ResultTable.from_json(file.read_text())
        for file in sorted((path / "tables").glob("*.json"))
    }


def test_rows_of_the_comparison_at_each_size_and_the_whole_once(corpus: Corpus) -> None:
    asked = SizesOptions(models=("alignmamba",), seeds=2, sizes=(400, 10, 36, 20))
    cells = cells_of(asked, base(corpus), corpus)
    assert list(dict.fromkeys(cell.row for cell in cells)) == [
        *("alignmamba", "text alone", "audio alone", "best-constant", "pooled-linear")
    ]
    assert list(dict.fromkeys(cell.column for cell in cells)) == ["10", "20", "36"]
    assert len(cells) == 5 * 3 * 2
    plain = {cell.config.subset.size for cell in cells if cell.column == "36"}
    assert plain == {0}, "the whole of train is a run like any other"
    assert {cell.config.subset.seed for cell in cells if cell.column == "10"} == {0, 1}
    alone = cells_of(SizesOptions(models=("alignmamba",), seeds=1), base(corpus), corpus)
    assert {cell.column for cell in alone} == {"36"}, "all that were asked for are beyond this corpus"


def test_all_rows_of_a_seed_learn_from_the_same_samples(finished: Path) -> None:
    drawn: dict[tuple[str, int], set[str]] = {}
    for cell in json.loads((finished / "experiment.json").read_text())["cells"]:
        facts = json.loads((finished / "cells" / cell["key"] / "run.json").read_text())
        if cell["column"] == "12":
            assert facts["subset"]["train"]["samples"] == 12
            assert facts["subset"]["valid"]["samples"] == round(SIZES["valid"] * 12 / SIZES["train"])
            drawn.setdefault((cell["column"], cell["seed"]), set()).add(facts["subset"]["train"]["ids"])
        else:
            assert ("subset" in facts) is (cell["column"] != "36" and not cell["column"].startswith("36,"))
    assert all(len(found) == 1 for found in drawn.values())
    assert drawn["12", 0] != drawn["12", 1]


def test_tables_say_scores_differences_and_validation_and_plots_lie_beside(finished: Path) -> None:
    found = tables(finished)
    assert set(found) >= {
        *("sizes-accuracy", "sizes-accuracy-missing-40", "sizes-accuracy-difference", "sizes-accuracy-valid")
    }
    scores, missing = found["sizes-accuracy"], found["sizes-accuracy-missing-40"]
    rows = ("late-fusion", "text alone", "audio alone", "best-constant", "pooled-linear")
    assert scores.rows == rows
    assert scores.columns == missing.columns == ("12", "36")
    assert [entry is None for entry in missing.entries[1]] == [True, True], (
        "a modality alone cannot be missing"
    )
    best_constant = scores.entries[3]
    assert best_constant[1] is not None
    assert best_constant[1].values[0] == best_constant[1].values[1], "of the whole, no seed changes it"
    first, second = (scores.entries[number][0] for number in (0, 4))
    difference = found["sizes-accuracy-difference"]
    assert difference.rows == rows[1:]
    assert difference.columns == ("12", "12, p value (Holm)", "36", "36, p value (Holm)")
    told = difference.entries[3][0]
    assert first is not None and second is not None and told is not None  # noqa: PT018
    assert told.mean == pytest.approx(float(second.mean or 0) - float(first.mean or 0))
    valid = found["sizes-accuracy-valid"].entries[0][0]
    cell = next(
        each
        for each in json.loads((finished / "experiment.json").read_text())["cells"]
        if (each["row"], each["column"], each["seed"]) == ("late-fusion", "12", 0)
    )
    said = json.loads((finished / "cells" / cell["key"] / "metrics.json").read_text())["metrics"]["valid"]
    assert valid is not None
    assert valid.values[0] == pytest.approx(said["accuracy"])
    with (finished / "tables" / "sizes-accuracy.csv").open(newline="") as file:
        assert {row["column"] for row in csv.DictReader(file)} == {"12", "36"}
    for name in ("sizes-accuracy", "sizes-accuracy-valid", "sizes-accuracy-missing-40"):
        assert (finished / "figures" / f"{name}.svg").read_bytes().startswith(b"<?xml")
        assert (finished / "figures" / f"{name}.png").is_file()
        legend = (finished / "figures" / f"{name}.svg").read_text()
        assert ("<!-- text alone -->" in legend) is ("missing" not in name), "no line without scores"
        assert "<!-- late-fusion -->" in legend


def test_the_page_has_a_section_with_command_plots_and_tables(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    page = importlib.import_module("results_page")
    for folder in ("images", "results"):
        (tmp_path / folder).mkdir()
    section = page.section(finished, tmp_path, "training-size")
    assert section.startswith("## small\n\n```\nmade here\n```\n\n")
    assert section.count("### ") == len(tables(finished))
    links = re.findall(r"!\[[^]]*\]\(\.\./(images/[^)]*)\)", section)
    assert len(links) == len(list((finished / "figures").glob("*.svg")))
    assert all((tmp_path / link).is_file() for link in links)
    assert (tmp_path / "results" / "training-size-small-accuracy.csv").is_file()
    assert all(len(line) <= 110 for line in section.splitlines() if not line.startswith(("|", "!")))
    assert page.shown(["alignmamba", "--data", "/home/me/corpus", "--out", "runs/a b"]) == (
        "alignmamba --data FOLDER/corpus --out 'runs/a b'"
    )
    only = page.section(finished, tmp_path, "training-size", ["*-valid"])
    assert only.count("### ") == 1


def test_a_repeated_command_runs_nothing_again(corpus: Corpus, finished: Path) -> None:
    asked = SizesOptions(
        models=("late-fusion", "references"), seeds=2, sizes=(12, 400), missing_rates=(0.4,), cut_valid=True
    )
    plan = plan_experiment(asked, one(corpus), out=finished)
    assert set(plan.states().values()) == {"finished"}


def test_a_run_learns_from_a_part_resumes_on_it_and_is_evaluated_on_it(
    corpus: Corpus, tmp_path: Path
) -> None:
    class StopSoon:
        def started(self, **_: Any) -> None: ...
        def stepped(self, **_: Any) -> None: ...
        def epoch_finished(self, record: Any, *, best: bool) -> None:
            del best
            if record["epoch"] == 1:
                raise KeyboardInterrupt

    config = base(corpus, model="late-fusion", subset={"size": 9}, fit={"epochs": 2})
    with pytest.raises(KeyboardInterrupt):
        train(config, out=tmp_path / "run", progress=None, callbacks=(StopSoon(),))  # type: ignore[arg-type]
    train(resume=tmp_path / "run", progress=None)
    whole = train(config, out=tmp_path / "whole", progress=None)
    assert (tmp_path / "run" / "predictions_test.csv").read_bytes() == (
        whole.directory / "predictions_test.csv"
    ).read_bytes()
    assert evaluate(whole.directory, split="train")["samples"] == 9
    assert len(load_run(whole.directory).corpus.split("test")) == SIZES["test"]


def test_digests_are_those_of_before_without_a_subset(corpus: Corpus) -> None:
    plain = base(corpus)
    assert plain.digest(corpus) == base(corpus, subset={"size": 0, "seed": 3}).digest(corpus)
    other = [base(corpus, subset={"size": 9, **more}).digest(corpus) for more in ({}, {"seed": 1})]
    assert len({plain.digest(corpus), *other}) == 3


def test_folds_and_a_drawn_valid_split_are_cut_after_they_were_made(corpus: Corpus, tmp_path: Path) -> None:
    fold = train(
        base(corpus, model="best-constant", options={}, folds={"number": 3}, subset={"size": 7}),
        out=tmp_path / "fold",
        progress=None,
    )
    facts = json.loads((fold.directory / "run.json").read_text())
    assert facts["subset"]["train"] == {
        **facts["subset"]["train"],
        "samples": 7,
        "of": facts["fold"]["train"],
    }
    bare = write_small_corpus(tmp_path / "bare", sizes={"train": 40, "test": 10})
    drawn = train(
        base(bare, model="best-constant", options={}, split_valid=0.25, subset={"size": 20}),
        out=tmp_path / "drawn",
        progress=None,
    )
    facts = json.loads((drawn.directory / "run.json").read_text())
    assert (facts["split_valid"]["valid"], facts["subset"]["train"]["of"]) == (10, 30)


def test_sizes_are_cross_validated(corpus: Corpus, tmp_path: Path) -> None:
    asked = SizesOptions(models=("best-constant",), seeds=1, folds=3, sizes=(10,), without_references=True)
    alone = base(corpus, modalities=["text"], model="best-constant", options={})
    path = done(plan_experiment(asked, alone, out=tmp_path / "out"))
    entry = tables(path)["sizes-accuracy"].entries[0][0]
    assert entry is not None
    assert entry.mean is not None


def test_folds_of_uneven_groups_learn_from_as_many_samples_as_the_header_says(tmp_path: Path) -> None:
    rows = ["large"] * 30 + [f"small {row // 6}" for row in range(30)]
    features = {"text": [np.full((3, 2), row, np.float32) for row in range(60)]}
    made = write_corpus(
        tmp_path / "uneven",
        {"train": {"features": features, "targets": [float(row % 4) for row in range(60)], "groups": rows}},
        task=Task(kind="regression", label_range=(0, 4)),
    )
    asked = SizesOptions(
        models=("best-constant",),
        seeds=1,
        folds=3,
        sizes=(5, 50),
        without_references=True,
        without_alone=True,
    )
    plan = plan_experiment(asked, base(made, model="best-constant", options={}), out=tmp_path / "out")
    assert "sizes: 50 stands for the 12 samples that every fold has" in plan.notes
    path = done(plan)
    found: dict[str, set[int]] = {}
    for each in plan.cells:
        facts = json.loads((path / "cells" / each.key / "run.json").read_text())
        found.setdefault(each.column, set()).add(facts["subset"]["train"]["samples"])
    assert found == {"5": {5}, "12": {12}}
    assert tables(path)["sizes-mae"].caption == "Columns are samples of train of each fold."


def test_even_folds_learn_from_the_whole_of_train_as_runs_without_a_size(tmp_path: Path) -> None:
    made = write_small_corpus(tmp_path / "even", sizes={"train": 20, "valid": 20, "test": 20})
    asked = SizesOptions(models=("references",), seeds=2, folds=3, sizes=(5, 400), without_alone=True)
    plan = plan_experiment(asked, base(made, model="best-constant", options={}), out=tmp_path / "out")
    whole = [each.config.subset.size for each in plan.cells if each.column == "20"]
    assert set(whole) == {0}
    assert len(whole) == 2 * 2 * 3
    assert plan.experiment.facts(asked, plan.corpus, plan.cells) == {
        "train_samples": 20,
        "whole_in_folds": True,
    }


def test_what_does_not_go_with_sizes_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"subset\.size: found 5, but the grid gives every run its own"):
        plan_experiment(SizesOptions(), base(corpus, subset={"size": 5}), out=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"subset\.size: found 37, but train has 36 samples"):
        train(base(corpus, subset={"size": 37}), out=tmp_path / "out", progress=None)
    with pytest.raises(ConfigError, match=r"missing_rates: corpus 'small' has one modality"):
        plan_experiment(
            SizesOptions(missing_rates=(0.5,)), base(corpus, modalities=["text"]), out=tmp_path / "out"
        )
    bare = write_small_corpus(tmp_path / "bare", sizes={"train": 40, "test": 10})
    with pytest.raises(Exception, match="has no split 'valid'"):
        train(base(bare, subset={"size": 5, "cut_valid": True}), out=tmp_path / "out", progress=None)
