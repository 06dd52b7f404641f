"""Training sizes of a model that starts from pretrained runs, and the page about it."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from alignmamba.contracts import Corpus
from alignmamba.errors import AlignMambaError
from alignmamba.evaluation.tables import ResultTable
from alignmamba.recipes.configuration import RunConfig, check_config
from alignmamba.recipes.experiments.catalogue import cells_of
from alignmamba.recipes.experiments.cell_process import DONE, run_cell
from alignmamba.recipes.experiments.grid_run import GridEngine, plan_experiment, run_experiment, sum_up
from alignmamba.recipes.experiments.sizes import SizesOptions
from alignmamba.recipes.training_run import train
from small_run import CONFIG, write_small_corpus

ROOT = Path(__file__).resolve().parents[3]


def base(corpus: Corpus, **changes: Any) -> RunConfig:
    small = {"model": "late-fusion", "options": {"d_model": 8, "depth": 1}, "fit": {"epochs": 1}}
    return check_config({**CONFIG, "data": corpus.location, **small, **changes})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_small_corpus(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        config = base(corpus, objective="pretrain", seed=seed, pretrain={"span": 2})
        train(config, out=root / f"run-{seed}", progress=None)
    return tuple(str(root / f"run-{seed}") for seed in (0, 1))


def asked(runs: tuple[str, ...], **changes: Any) -> SizesOptions:
    plain = {"models": ("best-constant", "late-fusion"), "seeds": 3, "sizes": (12,), "without_alone": True}
    return SizesOptions(**{**plain, "without_references": True, "pretrained": runs, **changes})


def test_a_row_starts_from_runs_in_turn(corpus: Corpus, runs: tuple[str, ...]) -> None:
    cells = cells_of(asked(runs), base(corpus), corpus)
    assert [cell.row for cell in cells[:3]] == ["best-constant", "late-fusion", "late-fusion, pretrained"]
    started = [Path(cell.config.start.run).name for cell in cells if cell.row.endswith("pretrained")]
    assert started == ["run-0", "run-1", "run-0"]
    assert all(cell.config.start.sha256 for cell in cells if cell.row.endswith("pretrained"))
    pairs = {(cell.config.seed, cell.config.subset.seed) for cell in cells}
    assert pairs == {(0, 0), (1, 1), (2, 2)}, "rows of a seed learn from the same samples"
    plain = cells_of(asked(()), base(corpus), corpus)
    assert {cell.key for cell in plain} < {cell.key for cell in cells}


def test_what_the_row_has_taken_learns_at_a_rate_of_its_own(corpus: Corpus, runs: tuple[str, ...]) -> None:
    slow = cells_of(asked(runs, pretrained_rate=0.25), base(corpus), corpus)
    rates = {cell.row: cell.config.fit.rates for cell in slow}
    assert rates["late-fusion"] is None
    found = rates["late-fusion, pretrained"]
    assert found is not None
    assert found.pop("") == 0.25
    # Of a pretrained run everything is taken but what predicts.
    assert found
    assert all(name.startswith(("head.", "heads.")) and rate == 1 for name, rate in found.items())
    same = [cell.key for cell in cells_of(asked(runs), base(corpus), corpus)]
    assert [cell.key == other for cell, other in zip(slow, same, strict=True)] == [True, True, False] * 3
    set_already = base(corpus, fit={"epochs": 1, "rates": {"": 0.5}})
    with pytest.raises(AlignMambaError, match=r"pretrained_rate: found beside fit\.rates, expected one of"):
        cells_of(asked(runs, pretrained_rate=0.25), set_already, corpus)


def test_runs_that_cannot_be_a_start_are_refused(
    corpus: Corpus, runs: tuple[str, ...], tmp_path: Path
) -> None:
    for given, config in (
        ((str(tmp_path),), base(corpus)),
        (runs, base(corpus, model="pooled-linear", options={})),
    ):
        with pytest.raises(AlignMambaError, match=r"not the directory of a run|no weight of run"):
            cells_of(asked(given), config, corpus)
    with pytest.raises(AlignMambaError, match=r"objective: found 'pretrain' in an experiment"):
        plan_experiment(asked(runs), base(corpus, objective="pretrain"), out=tmp_path / "grid")


def test_tables_and_the_page_tell_of_both(
    corpus: Corpus, runs: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = asked(runs, models=("late-fusion",), seeds=2)
    plan = plan_experiment(options, base(corpus), out=tmp_path / "grid")
    monkeypatch.setattr("alignmamba.recipes.experiments.grid_run.run_here", lambda *_, **__: None)

    class Ignored:
        def started(self, **_: Any) -> None: ...
        def finished(self, *_: Any, **__: Any) -> None: ...

    run_experiment(plan, GridEngine(), command=["made", "here"], progress=Ignored())
    assert [run_cell(plan.directory, job.key) for job in plan.jobs] == [DONE] * 4
    sum_up(plan.directory)
    found = ResultTable.from_json((tmp_path / "grid" / "tables" / "sizes-accuracy.json").read_text())
    assert found.rows == ("late-fusion", "late-fusion, pretrained")
    assert any("start from the weights of 2 runs, which seeds take in turn" in note for note in found.notes)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    page = importlib.import_module("pretraining_page")
    for folder in ("images", "results"):
        (tmp_path / folder).mkdir()
    section = page.section(tmp_path / "grid", tmp_path)
    assert section.startswith("## small\n\n```\n")
    assert section.count("| loss on valid |") == 2
    losses = json.loads((Path(runs[0]) / "metrics.json").read_text())["metrics"]["valid"]
    assert f"| total | {losses['total']:.3f} |" in section
    assert (tmp_path / "images" / "pretraining-small-losses.svg").is_file()
    assert (tmp_path / "results" / "pretraining-small-accuracy.csv").is_file()
