"""A comparison under the settings that a search has found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from alignmamba.errors import CheckpointError, ConfigError
from alignmamba.methods import METHODS
from alignmamba.recipes.configuration import RunConfig, check_config, dotted
from alignmamba.recipes.experiments.cells import Cell
from alignmamba.recipes.experiments.comparison import ComparisonOptions
from alignmamba.recipes.experiments.grid_run import plan_experiment
from alignmamba.recipes.tuning import tuning_worker
from alignmamba.recipes.tuning.best_settings import _refuse_other_data
from alignmamba.recipes.tuning.trial_run import drawn
from alignmamba.recipes.tuning.tuning_directory import TuningDirectory, TuningRecord
from alignmamba.recipes.tuning.tuning_plan import TuningOptions, plan_tuning
from alignmamba.recipes.tuning.tuning_results import outcomes
from alignmamba.recipes.tuning.tuning_worker import work
from small_run import write_small_corpus

HELD = {"fit": {"epochs": 1, "patience": 7}, "options": {"d_model": 8, "depth": 1}}
MODEL = "single-stream-transformer"


class Silent:
    """An observer that hears nothing."""

    def started(self, *, done: int, total: int) -> None:
        """Do nothing."""

    def finished(self, method: str, trial: Any, best: Any, *, done: int, seconds: float) -> None:
        """Do nothing."""


def _by_rate(plan: Any, name: str, trial: Any) -> float:
    settings = {key: drawn(trial, key, values) for key, values in plan.spaces[name].items()}
    return settings["fit.learning_rate"]


@pytest.fixture
def search(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.setattr(tuning_worker, "run_trial", _by_rate)

    def make(*methods: str, trials: int = 3, out: str = "tuning", **settings: Any) -> Path:
        base = check_config({**HELD, "data": str(corpus), **settings})
        asked = TuningOptions(methods=methods, trials=trials, repeats=2)
        work(plan_tuning(asked, base, out=tmp_path / out), progress=Silent())
        return tmp_path / out

    return make


def _cells(tuned: Path, out: Path, base: RunConfig, *methods: str, **options: Any) -> tuple[Cell, ...]:
    options = {"without_alone": True, **options}
    asked = ComparisonOptions(models=methods, tuned=(str(tuned),), seeds=2, **options)
    return plan_experiment(asked, base, out=out).cells


def test_each_method_has_its_own_best_settings_over_those_of_the_call(
    search: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    tuned = search(MODEL, "late-fusion")
    best = {each.method: each.settings for each in outcomes(TuningDirectory(tuned))}
    base = check_config({"data": str(corpus), "model": MODEL, "fit": {"learning_rate": 0.5, "patience": 3}})
    asked = ComparisonOptions(models=(MODEL, "late-fusion"), tuned=(str(tuned),), seeds=2)
    plan = plan_experiment(asked, base, out=tmp_path / "grid")
    assert [note for note in plan.notes if "gives way" in note] == [
        f"fit.learning_rate=0.5 gives way to what the search found or held, for {MODEL}, late-fusion",
        f"fit.patience=3 gives way to what the search found or held, for {MODEL}, late-fusion",
    ], "and nothing of what the call and the search share"
    cells = plan.cells
    rows = {row: [each for each in cells if each.row == row] for row in dict.fromkeys(c.row for c in cells)}
    assert list(rows) == [MODEL, "late-fusion", "text alone", "audio alone", "best-constant", "pooled-linear"]
    for name, settings in best.items():
        for number, each in enumerate(rows[name]):
            assert each.config.seed == number
            assert each.config.fit.learning_rate == settings["fit.learning_rate"] != 0.5
            assert each.config.options["dropout"] == settings["options.dropout"]
            assert (each.config.fit.epochs, each.config.fit.patience) == (1, 7), "what was held"
            assert each.config.options["d_model"] == 8
    assert best[MODEL] != best["late-fusion"]
    assert {each.config.fit.learning_rate for each in rows["text alone"]} == {
        best[MODEL]["fit.learning_rate"]
    }


def test_what_came_after_a_search_stays_as_it_was_then(
    search: Callable[..., Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setitem(METHODS, "late-fusion", replace(METHODS["late-fusion"], search={}))
        before = search("late-fusion", out="before")
    after = search("late-fusion", out="after")
    base = check_config({"data": str(corpus), "options": {"unimodal_weight": 0.7}})
    cells = {
        out: _cells(out, tmp_path / f"grid of {out.name}", base, "late-fusion")[0] for out in (before, after)
    }
    assert cells[before].config.options["unimodal_weight"] == 0
    (best,) = outcomes(TuningDirectory(after))
    assert cells[after].config.options["unimodal_weight"] == best.settings["options.unimodal_weight"]


def test_a_search_from_before_units_of_time_has_relative_ones(
    search: Callable[..., Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setitem(METHODS, "alignmamba", replace(METHODS["alignmamba"], search={}))
        tuned = search("alignmamba")
    base = check_config({"data": str(corpus), "options": {"local": {"time_unit": "seconds"}}})
    cell = _cells(tuned, tmp_path / "grid", base, "alignmamba")[0]
    assert cell.config.options["local"]["time_unit"] == "relative"


def test_unequal_tuning_is_refused(search: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    base, grid = RunConfig(data=str(corpus), model=MODEL), tmp_path / "grid"
    tuned = search(MODEL)
    with pytest.raises(ConfigError, match=f"late-fusion has no finished trial, expected some of {MODEL}"):
        _cells(tuned, grid, base, MODEL, "late-fusion")
    search("late-fusion", trials=2)
    with pytest.raises(ConfigError, match=f"different numbers of trials: {MODEL} 3, late-fusion 2"):
        _cells(tuned, grid, base, MODEL, "late-fusion")
    assert _cells(tuned, grid, base, MODEL), "methods that are not compared do not count"
    write_small_corpus(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="found settings for corpus 'small'"):
        _cells(tuned, grid, RunConfig(data=str(tmp_path / "other")), MODEL)
    with pytest.raises(ConfigError, match="found --own-settings beside it"):
        _cells(tuned, grid, base, MODEL, own_settings=True)
    with pytest.raises(CheckpointError, match=r"found no tuning\.json"):
        _cells(tmp_path / "nothing", grid, base, MODEL)
    assert not grid.exists()


def test_settings_that_decide_the_corpus_must_be_the_same(
    search: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    tuned = search(MODEL, nonfinite="zero")
    with pytest.raises(ConfigError, match="tuned with nonfinite=zero, found error; set it here too"):
        _cells(tuned, tmp_path / "grid", RunConfig(data=str(corpus)), MODEL)
    assert _cells(tuned, tmp_path / "grid", RunConfig(data=str(corpus), nonfinite="zero"), MODEL)
    smaller = check_config({"data": str(corpus), "nonfinite": "zero", "subset": {"size": 9}})
    with pytest.raises(ConfigError, match=r"tuned with subset\.size=0, found 9; set it here too"):
        _cells(tuned, tmp_path / "grid", smaller, MODEL)


def test_further_targets_may_leave_options_out(tmp_path: Path) -> None:
    asked = check_config({"data": "corpus", "targets": {"joy": {"modality": "text"}}})
    held = dict(dotted(asked.model_dump(mode="json", exclude_unset=True, exclude={"data"})))
    held["targets.joy.weight"] = 1.0  # as a search records of every target
    record = cast(TuningRecord, SimpleNamespace(held=held))
    _refuse_other_data(tmp_path, record, asked)
    other = check_config({"data": "corpus", "targets": {"joy": {"modality": "text", "weight": 0.5}}})
    with pytest.raises(ConfigError, match=r"tuned with targets\.joy\.weight=1\.0, found 0\.5"):
        _refuse_other_data(tmp_path, record, other)
    for found, now in ((held, {}), ({}, {"targets": {"joy": {}}})):
        with pytest.raises(ConfigError, match=r"tuned with targets\.joy\."):
            _refuse_other_data(
                tmp_path,
                cast(TuningRecord, SimpleNamespace(held=found)),
                check_config({"data": "corpus", **now}),
            )


def test_references_have_what_the_search_held_and_readers_must_be_tuned(
    search: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    tuned = search(MODEL, fit={"epochs": 1, "select": "f1_macro"})
    base = RunConfig(data=str(corpus))
    with pytest.raises(ConfigError, match="single modalities are read by alignmamba, which has no finished"):
        _cells(tuned, tmp_path / "grid", base, MODEL, without_alone=False)
    cells = _cells(tuned, tmp_path / "grid", base, MODEL)
    assert {each.row for each in cells} == {MODEL, "best-constant", "pooled-linear"}
    assert {each.config.fit.select for each in cells} == {"f1_macro"}


def test_seeds_take_the_settings_of_several_searches_in_turn(
    search: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    base = check_config({**HELD, "data": str(corpus)})
    paths = search(MODEL, "late-fusion"), search(MODEL, out="other", seed=1)
    asked = ComparisonOptions(models=(MODEL,), tuned=tuple(map(str, paths)), seeds=4, without_alone=True)
    plan = plan_experiment(asked, base, out=tmp_path / "grid")
    rates = [
        each.config.fit.learning_rate
        for each in sorted(plan.cells, key=lambda each: each.config.seed)
        if each.row == MODEL
    ]
    best = [outcomes(TuningDirectory(path))[0].settings["fit.learning_rate"] for path in paths]
    assert rates == [best[0], best[1], best[0], best[1]]
    assert best[0] != best[1]
    facts = plan.experiment.facts(asked, plan.corpus, plan.cells)["tuned"]
    assert (facts["searches"], facts["methods"][MODEL]["trials"]) == (2, 3)


def test_searches_that_do_not_go_together_are_refused(
    search: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    base = check_config({**HELD, "data": str(corpus)})
    first, again = search(MODEL), search(MODEL, out="again")
    fewer = search(MODEL, out="fewer", seed=2, trials=2)
    wider = search(MODEL, out="wider", seed=3, options={"d_model": 16, "depth": 1})
    open_width = search(MODEL, out="open", seed=4, options={"depth": 1})
    for tuned, seeds, said in (
        ((first, again), 2, "has the seed 0 of .*, so it is the same search"),
        ((first, fewer), 2, f"found 2 trials of {MODEL}, expected 3 as in"),
        ((first, wider), 2, r"found options\.d_model 16, expected 8 as in"),
        ((first, open_width), 2, r"found options\.d_model None, expected 8 as in"),
        ((first, fewer), 1, "tuned: found 2 searches for 1 seeds, expected as many seeds or more"),
    ):
        asked = ComparisonOptions(
            models=(MODEL,), tuned=tuple(map(str, tuned)), seeds=seeds, without_alone=True
        )
        with pytest.raises(ConfigError, match=said):
            plan_experiment(asked, base, out=tmp_path / "grid")
