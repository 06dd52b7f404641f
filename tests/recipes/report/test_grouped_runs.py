"""Reports of runs whose samples come in groups."""

import math
from pathlib import Path

import numpy as np
import pytest

from alignmamba import train
from alignmamba.contracts import Role
from alignmamba.evaluation.seed_variance import Grouped, Scores
from alignmamba.evaluation.statistics import interval
from alignmamba.recipes.configuration import check_config
from alignmamba.recipes.fold_runs import train_folds
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.report.run_comparison import gather_runs
from small_run import rows_of, write_small_corpus

SIZES: dict[Role, int] = {"train": 24, "valid": 24, "test": 36}


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (0, []),
        (4, ["Test samples come in 4 groups, such as speakers or videos: too few to draw whole ones."]),
        (12, ["Test samples come in 12 groups, such as speakers or videos: intervals and tests draw whole"]),
        (36, []),
    ],
)
def test_intervals_of_a_run_draw_whole_groups_where_there_are_many(
    groups: int, said: list[str], tmp_path: Path
) -> None:
    made = write_small_corpus(tmp_path / "made", groups=groups, sizes=SIZES, kind="regression")
    runs = [tmp_path / "one", tmp_path / "two"]
    for run in runs:
        train(check_config({"model": "pooled-linear", "data": made.location}), out=run)

    alone, together = gather(runs[0]).tables[0], gather_runs(runs).tables[0]
    for table in (alone, together):
        notes = [note for note in table.notes if note.startswith("Test samples come")]
        assert [note[: len(begins)] for note, begins in zip(notes, said, strict=True)] == said

    rows = rows_of(runs[0] / "predictions_test.csv")
    errors = np.array([abs(float(row["target"]) - float(row["prediction"])) for row in rows])
    named = [row.get("group", "") for row in rows]
    assert len(set(named)) == max(1, groups)
    drawn: Scores = errors
    if groups == 12:
        drawn = Grouped(scores=errors, groups=np.unique(named, return_inverse=True)[1])
    expected = interval(drawn, bounds=(0, math.inf))
    for table, row in ((alone, "test"), (together, "one")):
        entry = table.entries[table.rows.index(row)][table.columns.index("mae")]
        assert entry is not None
        assert (entry.low, entry.high) == pytest.approx((expected.low, expected.high))


def test_folds_together_keep_the_groups_of_each(tmp_path: Path) -> None:
    made = write_small_corpus(tmp_path / "made", groups=4, sizes={"train": 24}, kind="regression")
    config = check_config({"model": "pooled-linear", "data": made.location})
    train_folds(config, folds=4, out=tmp_path / "folds")
    rows = rows_of(tmp_path / "folds" / "predictions_test.csv")
    assert {row["id"]: row["group"] for row in rows} == {each.id: each.group for each in made.split("train")}
