"""Tables of further targets in every experiment, from predictions that no run has made."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignmamba.contracts import FurtherPredictions, Predictions, Target, Task
from alignmamba.evaluation.metrics import score
from alignmamba.recipes.experiments.ablation import Ablation
from alignmamba.recipes.experiments.cells import CellRecord, ExperimentRecord
from alignmamba.recipes.experiments.columns import tabled
from alignmamba.recipes.experiments.comparison import Comparison
from alignmamba.recipes.experiments.experiment_kind import GridExperiment
from alignmamba.recipes.experiments.grid import Grid
from alignmamba.recipes.experiments.missing import Missing
from alignmamba.recipes.experiments.sizes import Sizes
from alignmamba.recipes.run_records import CorpusIdentity, RunFacts

MOOD = Target(name="mood", kind="classification", labels=("mood",), classes=("down", "up"))
PARTS = Target(name="parts", kind="multilabel", labels=("a", "b"), classes=("a", "b"))
TASK = Task(kind="regression", further=(MOOD, PARTS))
SAMPLES = 24


def said(row: str, seed: int) -> Predictions:
    """Predictions of a row; a reference has none of further targets."""
    random = np.random.default_rng([len(row), seed])
    truth = np.linspace(-1, 1, SAMPLES)
    up, labels = (truth > 0).astype(int), np.stack([truth > 0, np.arange(SAMPLES) % 2], axis=1).astype(float)
    sure = np.clip(up + random.normal(0, 0.4, SAMPLES), 0.05, 0.95)
    further = {
        "mood": FurtherPredictions(prediction=np.stack([1 - sure, sure], 1), targets=up),
        "parts": FurtherPredictions(prediction=random.random((SAMPLES, 2)), targets=labels),
    }
    return Predictions(
        ids=tuple(map(str, range(SAMPLES))),
        prediction=truth + random.normal(0, 0.3, SAMPLES),
        targets=truth,
        further={} if row == "best-constant" else further,
    )


def grid(name: str, columns: tuple[str, ...], rows: tuple[str, ...], **settings: object) -> Grid:
    places = [(row, column, seed) for row in rows for column in columns for seed in (0, 1)]
    cells = tuple(
        CellRecord(key=f"{number:016x}", row=row, column=column, seed=seed, digest="0" * 64)
        for number, (row, column, seed) in enumerate(places)
    )
    plan = ExperimentRecord(
        experiment=name,
        corpus=CorpusIdentity(name="made", checksum="0"),
        cells=cells,
        settings=dict(settings),
        train_samples=40,
    )
    return Grid(
        path=Path(),
        plan=plan,
        task=TASK,
        labels={cell.key: cell.row for cell in cells},
        states={},
        runs={},
        failures={},
        damaged={},
        predictions_of={
            (row, column): {seed: said(row, seed) for seed in (0, 1)} for row in rows for column in columns
        },
    )


def of_sizes(first: str, *metrics: str) -> set[str]:
    return {*(f"sizes-{metric}" for metric in metrics), f"sizes-{first}-difference", f"sizes-{first}-valid"}


@pytest.mark.parametrize(
    ("experiment", "columns", "of_task", "of_mood", "of_parts"),
    [
        (Ablation(), ("",), *[{"ablation", "ablation-difference"}] * 3),
        (
            Missing(),
            ("10 %", "30 %"),
            {"missing-mae"},
            {"missing-accuracy", "missing-f1_weighted"},
            {"missing-accuracy_weighted", "missing-f1_labels"},
        ),
        (
            Sizes(),
            ("20", "40"),
            of_sizes("mae", "mae"),
            of_sizes("accuracy", "accuracy", "f1_weighted"),
            of_sizes("accuracy_weighted", "accuracy_weighted", "f1_labels"),
        ),
    ],
    ids=["ablation", "missing", "sizes"],
)
def test_every_target_has_the_tables_of_the_task(
    experiment: GridExperiment,
    columns: tuple[str, ...],
    of_task: set[str],
    of_mood: set[str],
    of_parts: set[str],
) -> None:
    rows = ("full", "other", "best-constant")
    made = grid(experiment.name, columns, rows, protocol="gcnet", mixed=False, cut_valid=False)
    found = {table.name: table for table in experiment.tables(made)}
    assert found.keys() == {
        *of_task,
        *(f"{name}-mood" for name in of_mood),
        *(f"{name}-parts" for name in of_parts),
    }
    assert {name for name, table in found.items() if ", target " in table.title} == found.keys() - of_task
    # no reference predicts a further target
    first = next(table for name, table in found.items() if name.endswith("-mood"))
    entries = dict(zip(first.rows, first.entries, strict=True))
    assert set(entries["best-constant"]) == {None}
    assert None not in entries["other"]
    experiment.figures(list(found.values()))


def test_a_target_that_nothing_learns_has_no_table() -> None:
    made = grid("comparison", ("",), ("full", "other"))
    made = replace(made, plan=replace(made.plan, unlearned=True))
    names = [table.name for table in Comparison().tables(made)]
    assert "comparison-mood" in names
    assert "comparison" not in names


def test_a_score_that_is_not_there_has_its_reason() -> None:
    made = grid("ablation", ("",), ("full", "other"))
    runs = {
        place: {seed: replace(each, prediction=np.zeros(SAMPLES)) for seed, each in by_seed.items()}
        if place[0] == "other"
        else by_seed
        for place, by_seed in made.predictions_of.items()
    }
    table = next(iter(Ablation().tables(replace(made, predictions_of=runs))))
    assert "–: corr is not defined where all targets or all predictions are equal." in table.notes


@pytest.mark.parametrize(
    ("experiment", "columns", "names"),
    [
        (Missing(), ("10 %", "30 %"), ["missing-accuracy_weighted-parts"]),
        (
            Sizes(),
            ("20", "40"),
            ["sizes-accuracy_weighted-parts", "sizes-accuracy_weighted-difference-parts"],
        ),
        (Ablation(), ("",), ["ablation-difference-parts"]),
    ],
    ids=["missing", "sizes", "ablation"],
)
def test_a_metric_that_no_column_has_has_its_reason_once(
    experiment: GridExperiment, columns: tuple[str, ...], names: list[str]
) -> None:
    made = grid(experiment.name, columns, ("full", "other"), protocol="gcnet", mixed=False, cut_valid=False)

    def of_every_label(predictions: Predictions) -> Predictions:
        parts = predictions.further["parts"]
        return replace(predictions, further={"parts": replace(parts, targets=np.ones((SAMPLES, 2)))})

    runs = {
        place: {seed: of_every_label(each) for seed, each in by_seed.items()}
        for place, by_seed in made.predictions_of.items()
    }
    tables = {each.name: each for each in experiment.tables(replace(made, predictions_of=runs))}
    reason = (
        "–: accuracy_weighted is not defined where no class or label has samples both with and without it."
    )
    assert [tables[name].notes.count(reason) for name in names] == [1] * len(names)
    assert not any(note.startswith("–") for note in next(iter(tables.values())).notes)


def test_of_one_seed_the_notes_are_those_of_its_tests() -> None:
    made = grid("ablation", ("",), ("full", "other"))
    runs = {place: {0: by_seed[0]} for place, by_seed in made.predictions_of.items()}
    tables = {table.name: table for table in Ablation().tables(replace(made, predictions_of=runs))}
    assert tables["ablation-difference"].notes[0] == (
        "Intervals are those of a paired bootstrap over samples, on the one seed that ran. P values are of a"
        " paired bootstrap over samples, with Holm's correction."
    )
    assert "McNemar's exact test" in tables["ablation-difference-mood"].notes[0]
    assert "McNemar" not in tables["ablation"].notes[0], "a regression"


def test_an_entry_is_the_score_of_the_target() -> None:
    made = grid("missing", ("10 %",), ("full", "other"), protocol="gcnet", mixed=False)
    tables = {table.name: table for table in Missing().tables(made)}
    entry = tables["missing-accuracy-mood"].entries[1][0]
    assert entry is not None
    expected = [score(TASK, said("other", seed))["mood.accuracy"] for seed in (0, 1)]
    assert list(entry.values) == pytest.approx(expected)
    assert tabled(PARTS) == ["accuracy_weighted", "f1_labels"]


def test_a_comparison_has_the_scores_of_each_label() -> None:
    (table,) = (
        each
        for each in Comparison().tables(grid("comparison", ("",), ("full", "best-constant")))
        if each.name == "comparison-labels-parts"
    )
    assert table.columns[:3] == ("accuracy(a)", "accuracy_weighted(a)", "f1_weighted(a)")
    first, constant = table.entries
    assert first[0] is not None
    expected = [score(TASK, said("full", seed))["parts.accuracy(a)"] for seed in (0, 1)]
    assert list(first[0].values) == pytest.approx(expected)
    assert set(constant) == {None}


def test_scores_on_valid_are_those_of_the_target(tmp_path: Path) -> None:
    made = grid("sizes", ("20",), ("full", "best-constant"))
    facts = RunFacts(weights=1, seconds=1.0, version="1")
    made = replace(made, path=tmp_path, runs={cell.key: facts for cell in made.plan.cells})
    for number, cell in enumerate(made.plan.cells):
        scores = {"mae": 0.5} | ({} if cell.row == "best-constant" else {"mood.accuracy": number / 4})
        folder = made.run_path(cell.key)
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"metrics": {"valid": scores}}))
    of_mood = made.of_target(MOOD)
    assert of_mood.scores("full", "20", "valid", "accuracy") == {0: (0.0,), 1: (0.25,)}
    assert of_mood.scores("best-constant", "20", "valid", "accuracy") == {}
    assert made.scores("best-constant", "20", "valid", "mae") == {0: (0.5,), 1: (0.5,)}
