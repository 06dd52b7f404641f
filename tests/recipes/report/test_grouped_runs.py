"""Reports of runs whose samples come in groups."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from alignmamba import train, write_corpus
from alignmamba.contracts import Corpus, Role, Target, Task
from alignmamba.evaluation.seed_variance import Grouped, Scores
from alignmamba.evaluation.statistics import interval
from alignmamba.evaluation.tables import ResultTable
from alignmamba.recipes.configuration import check_config
from alignmamba.recipes.fold_runs import train_folds
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.report.run_comparison import gather_runs
from small_run import rows_of, write_small_corpus

SIZES: dict[Role, int] = {"train": 24, "valid": 24, "test": 36}
MANY = "Test samples come in 12 groups, such as speakers or videos: intervals and tests draw whole groups."
FEW = "Test samples come in 4 groups, such as speakers or videos: too few to draw whole ones."


def run_on(corpus: Corpus, out: Path) -> Path:
    """A quick run."""
    train(check_config({"model": "pooled-linear", "data": corpus.location}), out=out)
    return out


def notes_of(table: ResultTable) -> list[str]:
    """Notes on groups of test, each cut to its first sentence."""
    return [note[: len(MANY)] for note in table.notes if note.startswith("Test samples come")]


def ends(table: ResultTable, row: str) -> tuple[float | None, float | None]:
    """Interval of the error in a row."""
    entry = table.entries[table.rows.index(row)][table.columns.index("mae")]
    assert entry is not None
    return entry.low, entry.high


def drawn_ends(run: Path, *, whole: bool) -> tuple[float | None, float | None]:
    """The interval of the error on test, of whole groups or of single samples."""
    rows = rows_of(run / "predictions_test.csv")
    errors = np.array([abs(float(row["target"]) - float(row["prediction"])) for row in rows])
    scores: Scores = errors
    if whole:
        named = [row["group"] for row in rows]
        scores = Grouped(scores=errors, groups=np.unique(named, return_inverse=True)[1])
    found = interval(scores, bounds=(0, math.inf))
    return found.low, found.high


def forget_groups(run: Path) -> None:
    """Make the tables of a run those of an earlier version."""
    for path in run.glob("predictions_*.csv"):
        rows = rows_of(path)
        names = [name for name in rows[0] if name != "group"]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    (run / "SHA256SUMS").unlink(missing_ok=True)


@pytest.mark.parametrize(("groups", "said"), [(0, []), (4, [FEW]), (12, [MANY]), (36, [])])
def test_intervals_of_a_run_draw_whole_groups_where_there_are_many(
    groups: int, said: Sequence[str], tmp_path: Path
) -> None:
    made = write_small_corpus(tmp_path / "made", groups=groups, sizes=SIZES, kind="regression")
    runs = [run_on(made, tmp_path / name) for name in ("one", "two")]
    alone, together = gather(runs[0]).tables[0], gather_runs(runs).tables[0]
    assert [note[: len(begins)] for note, begins in zip(notes_of(alone), said, strict=True)] == said
    assert notes_of(together) == notes_of(alone)
    named = {row.get("group", "") for row in rows_of(runs[0] / "predictions_test.csv")}
    assert len(named) == max(1, groups)
    expected = pytest.approx(drawn_ends(runs[0], whole=groups == 12))
    assert ends(alone, "test") == expected
    assert ends(together, "one") == expected


@pytest.mark.parametrize("first", ["earlier", "later"])
def test_a_run_of_an_earlier_version_takes_the_groups_of_another(first: str, tmp_path: Path) -> None:
    made = write_small_corpus(tmp_path / "made", groups=12, sizes=SIZES, kind="regression")
    earlier, later = run_on(made, tmp_path / "earlier"), run_on(made, tmp_path / "later")
    forget_groups(earlier)
    assert ends(gather(earlier).tables[0], "test") == pytest.approx(drawn_ends(later, whole=False))
    order = [earlier, later] if first == "earlier" else [later, earlier]
    table = gather_runs(order).tables[0]
    assert notes_of(table) == [MANY]
    for row in ("earlier", "later"):
        assert ends(table, row) == pytest.approx(drawn_ends(later, whole=True))
    assert any(note.startswith("Level:") for note in table.notes)


def test_runs_whose_samples_are_grouped_otherwise_are_not_tested_against_each_other(tmp_path: Path) -> None:
    made = [
        write_small_corpus(tmp_path / f"of-{groups}", groups=groups, sizes=SIZES, kind="regression")
        for groups in (12, 18)
    ]
    runs = [run_on(corpus, tmp_path / name) for corpus, name in zip(made, ("one", "two"), strict=True)]
    table = gather_runs(runs).tables[0]
    assert notes_of(table) == [MANY, MANY.replace("12", "18")]
    assert not any(note.startswith("Level:") for note in table.notes)


def test_groups_count_among_samples_whose_target_is_known(tmp_path: Path) -> None:
    """Of twelve groups, four have the further label: the table of that one says that these are few."""
    random = np.random.default_rng(0)
    splits = {
        role: {
            "features": {"text": [random.normal(size=(4, 3)) for _ in range(size)]},
            "targets": random.normal(size=size).tolist(),
            "groups": [f"{role} {row % 12}" for row in range(size)],
            "labels": {"mood": [float(row) if row % 12 < 4 else None for row in range(size)]},
        }
        for role, size in SIZES.items()
    }
    task = Task(kind="regression", further=(Target(name="mood", kind="regression", labels=("mood",)),))
    run = tmp_path / "run"
    settings = {"options": {"d_model": 8, "depth": 1}, "fit": {"epochs": 1}, "model": "late-fusion"}
    made = write_corpus(tmp_path / "made", splits, task=task)
    train(check_config({**settings, "data": made.location}), out=run)
    first, mood = gather(run).tables[:2]
    assert notes_of(first) == [MANY]
    assert [note[: len(FEW)] for note in notes_of(mood)] == [FEW]


def test_folds_together_keep_the_groups_of_each(tmp_path: Path) -> None:
    """Groups come from the corpus, also of folds that an earlier version has trained."""
    made = write_small_corpus(tmp_path / "made", groups=4, sizes={"train": 24}, kind="regression")
    config = check_config({"model": "pooled-linear", "data": made.location})
    for _ in range(2):
        train_folds(config, folds=4, out=tmp_path / "folds")
        rows = rows_of(tmp_path / "folds" / "predictions_test.csv")
        assert {row["id"]: row["group"] for row in rows} == {
            each.id: each.group for each in made.split("train")
        }
        forget_groups(tmp_path / "folds" / "fold-1")
