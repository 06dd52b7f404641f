"""Tables of scores on the terminal."""

import math

from alignmamba.cli.terminal_tables import labels_table, metrics_table

SCORES = {
    "mae": 0.5,
    "emotions.auroc": 0.75,
    "emotions.accuracy(sad)": 0.25,
    "emotions.auroc(sad)": math.nan,
    "accuracy(a (b))": 1.0,
}


def cells(table: object) -> list[list[str]]:
    return [list(column.cells) for column in table.columns]  # type: ignore[attr-defined]


def test_scores_of_labels_stand_in_a_table_of_their_own() -> None:
    assert cells(metrics_table("all", {"test": SCORES})) == [["mae", "emotions.auroc"], ["0.5000", "0.7500"]]
    found = labels_table("labels", SCORES)
    assert found is not None
    assert [column.header for column in found.columns] == ["label", "accuracy", "auroc"]
    assert cells(found) == [["emotions: sad", "a (b)"], ["0.2500", "1.0000"], ["-", "-"]]
    assert labels_table("labels", {"mae": 0.5}) is None
