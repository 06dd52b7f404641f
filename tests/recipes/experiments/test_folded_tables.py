"""Tables of every experiment under cross-validation: each test sample once, and tests that know of folds."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from alignmamba.contracts import Corpus, Role
from alignmamba.errors import ConfigError
from alignmamba.recipes.configuration import check_config
from alignmamba.recipes.experiments.ablation import AblationOptions
from alignmamba.recipes.experiments.cell_process import DONE, run_cell
from alignmamba.recipes.experiments.comparison import ComparisonOptions
from alignmamba.recipes.experiments.distance import DistanceOptions
from alignmamba.recipes.experiments.experiment_kind import GridOptions
from alignmamba.recipes.experiments.grid_run import GridEngine, plan_experiment, run_experiment, sum_up
from alignmamba.recipes.experiments.missing import MissingOptions
from alignmamba.recipes.experiments.plans import Plans, PlansAnalysis, PlansOptions
from alignmamba.recipes.finished_run import load_run
from alignmamba.recipes.fold_runs import of_folds
from alignmamba.recipes.training_run import train
from small_run import SIZES, write_small_corpus

TINY: dict[str, Any] = {"fit": {"epochs": 1}, "options": {"d_model": 8, "depth": 1}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_small_corpus(tmp_path_factory.mktemp("data") / "small")


class Ignored:
    def started(self, **_: Any) -> None: ...
    def finished(self, *_: Any, **__: Any) -> None: ...


@pytest.mark.parametrize(
    ("groups", "kind", "said"),
    [
        (0, "classification", ""),
        (
            4,
            "classification",
            "Test samples come in 4 groups, such as speakers or videos: too few to",
        ),
        (
            12,
            "regression",
            "Test samples come in 12 groups, such as speakers or videos: intervals",
        ),
        (
            12,
            "classification",
            "Test samples come in 12 groups, such as speakers or videos: intervals",
        ),
        (36, "regression", ""),
    ],
)
@pytest.mark.usefixtures("in_process")
def test_tables_know_of_groups(groups: int, kind: str, said: str, tmp_path: Path) -> None:
    sizes: dict[Role, int] = {"train": 24, "valid": 24, "test": 36}
    made = write_small_corpus(tmp_path / "made", groups=groups, sizes=sizes, kind=kind)
    asked = ComparisonOptions(models=("references",), seeds=1, without_alone=True)
    plan = plan_experiment(asked, check_config({"data": made.location}), out=tmp_path / "grid")
    run_experiment(plan, GridEngine(), command=["made", "here"], progress=Ignored())
    table = sum_up(plan.directory).tables[0]
    notes = [note for note in table.notes if note.startswith("Test samples come")]
    assert [note[: len(said)] for note in notes] == [said] * bool(said)
    assert any("McNemar" in note for note in table.notes) == (groups != 12)
    assert all(entry.low is not None for row in table.entries for entry in row if entry and entry.mean)


def test_a_corpus_that_an_experiment_can_say_nothing_of_is_refused(tmp_path: Path) -> None:
    made = write_small_corpus(tmp_path / "made", sizes={"train": 20, "valid": 20, "test": 5})
    one = check_config({**TINY, "data": made.location, "modalities": ["text"]})
    asked = MissingOptions(models=("late-fusion",), seeds=1)
    with pytest.raises(
        ConfigError, match=r"protocol: corpus 'small' has one modality to .* expected two or more, or tokens"
    ):
        plan_experiment(asked, one, out=tmp_path / "grid")
    assert plan_experiment(asked.model_copy(update={"protocol": "tokens"}), one, out=tmp_path / "grid").cells
    both = check_config({**TINY, "data": made.location})
    with pytest.raises(ConfigError, match="distance: test has 4 samples with both 'text' and 'audio', expe"):
        plan_experiment(DistanceOptions(seeds=1), both, out=tmp_path / "grid")


@pytest.mark.usefixtures("in_process")
def test_a_draw_of_valid_for_each_seed_is_named_among_what_scores_vary_by(tmp_path: Path) -> None:
    made = write_small_corpus(tmp_path / "made", sizes={"train": 40, "test": 20})
    asked = ComparisonOptions(models=("references",), seeds=2, without_alone=True)
    base = check_config({"data": made.location, "split_valid": 0.25})
    plan = plan_experiment(asked, base, out=tmp_path / "grid")
    run_experiment(plan, GridEngine(), command=["made", "here"], progress=Ignored())
    notes = " ".join(sum_up(plan.directory).tables[-1].notes)
    assert "Each seed draws its own valid split from train: seed of training includes what that" in notes
    assert "--folds shows" not in notes


@pytest.mark.usefixtures("in_process")
def test_folds_that_cut_a_subset_know_the_groups_of_all_samples(tmp_path: Path) -> None:
    made = write_small_corpus(tmp_path / "made", groups=5, sizes={"train": 20, "valid": 20, "test": 20})
    asked = ComparisonOptions(models=("references",), seeds=1, folds=3, without_alone=True)
    base = check_config({"data": made.location, "subset": {"size": 9}})
    plan = plan_experiment(asked, base, out=tmp_path / "grid")
    run_experiment(plan, GridEngine(), command=["made", "here"], progress=Ignored())
    result = sum_up(plan.directory)
    assert any("come in 15 groups" in note for note in result.tables[0].notes)
    assert json.loads((plan.directory / "experiment.json").read_text())["test_samples"] == 60


@pytest.mark.parametrize(
    ("asked", "model", "row"),
    [
        (MissingOptions(models=("late-fusion",), rates=(0.2, 0.4), mixed=True), "late-fusion", "late-fusion"),
        (AblationOptions(), "late-fusion", ""),
        (DistanceOptions(), "alignmamba", "full"),
        (PlansOptions(), "alignmamba", "full"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, GridOptions) else "",
)
def test_tables_of_folds_are_whole(
    asked: GridOptions, model: str, row: str, corpus: Corpus, tmp_path: Path
) -> None:
    asked = asked.model_copy(update={"seeds": 1, "folds": 3})
    base = check_config({**TINY, "model": model, "data": corpus.location})
    plan = plan_experiment(asked, base, out=tmp_path / "grid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alignmamba.recipes.experiments.grid_run.run_here", lambda *_, **__: None)
        run_experiment(plan, GridEngine(), command=["made", "here"], progress=Ignored())
    keys = {cell.key for cell in plan.cells if row in ("", cell.row)}
    chosen = [job for job in plan.jobs if job.key in keys]
    assert len(chosen) == len(keys)
    assert len(chosen) % 3 == 0
    assert [run_cell(plan.directory, job.key) for job in chosen] == [DONE] * len(chosen)
    tables = sum_up(plan.directory).tables
    assert tables or isinstance(asked, PlansOptions), "this corpus has no times to measure plans by"
    for table in tables:
        assert any(entry is not None for entries in table.entries for entry in entries)
        assert any(note.startswith("Each seed is 3 runs") for note in table.notes)
        assert not any("McNemar" in note for note in table.notes)
        counts = re.findall(r"with (?:\d+ seeds? and )?(\d+) test samples", " ".join(table.notes))
        assert set(map(int, counts)) <= {sum(SIZES.values())}, "every sample of the corpus is tested once"


def test_each_fold_shows_the_samples_that_it_is_tested_on(corpus: Corpus, tmp_path: Path) -> None:
    wanted = tuple(identity for split in corpus.splits.values() for identity in split.ids)
    asked = PlansOptions(seeds=1, folds=3, samples=wanted)
    Plans().check(asked, corpus)
    with pytest.raises(ConfigError, match="samples: 'nobody' is not in any split of corpus"):
        Plans().check(asked.model_copy(update={"samples": (*wanted, "nobody")}), corpus)
    config = of_folds(check_config({**TINY, "data": corpus.location}), asked.folds)[1]
    run = load_run(train(config, out=tmp_path / "run", progress=None).directory)
    out = tmp_path / "analysis"
    out.mkdir()
    Plans().analyse(run, PlansAnalysis(kind="plans", samples=wanted), out)
    shown = json.loads((out / "plans.json").read_text())["samples"]
    own = run.corpus.split("test").ids
    assert len(own) < len(wanted)
    assert {each["id"] for each in shown} == set(own)
    Plans().analyse(run, PlansAnalysis(kind="plans", samples=(next(iter(set(wanted) - set(own))),)), out)
    assert json.loads((out / "plans.json").read_text())["samples"] == []
