"""Tables from predictions: what is averaged, what is compared with what, and what damaged files are answered
with.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignmamba.contracts import Predictions, Task
from alignmamba.errors import CheckpointError
from alignmamba.evaluation.metrics import score
from alignmamba.evaluation.seed_variance import scores_of
from alignmamba.recipes.experiments.columns import Column, _agreeing, combined
from alignmamba.recipes.experiments.distance import _Distances
from alignmamba.recipes.experiments.missing import _Scored
from alignmamba.recipes.experiments.plans import _Plans
from alignmamba.recipes.run_directory import prediction_table, to_csv
from alignmamba.recipes.run_records import RunEnvironment, _Trained, read_record, scored_predictions

CLASSES = Task(kind="classification", classes=("a", "b", "c"))
SENTIMENT = Task(kind="regression", label_range=(-3, 3))


def classification(wrong: int, samples: int = 40, seed: int = 0) -> Predictions:
    """Predictions of which `wrong` are not the true class."""
    random = np.random.default_rng(seed)
    targets = np.arange(samples) % 3
    said = targets.copy()
    said[random.permutation(samples)[:wrong]] += 1
    probabilities = np.full((samples, 3), 0.1)
    probabilities[np.arange(samples), said % 3] = 0.8
    return Predictions(ids=tuple(map(str, range(samples))), prediction=probabilities, targets=targets)


def accuracy_column(runs: dict[str, dict[int, Predictions]]) -> Column:
    return Column(
        values={
            name: {seed: score(CLASSES, each)["accuracy"] for seed, each in by_seed.items()}
            for name, by_seed in runs.items()
        },
        scores=lambda name, seeds: scores_of(CLASSES, [runs[name][seed] for seed in seeds], "accuracy"),
        compared=frozenset(runs),
        higher_is_better=True,
        bounds=(0.0, 1.0),
    )


def test_only_common_seeds_are_compared() -> None:
    good = {seed: classification(2, seed=seed) for seed in range(3)}
    bad = {seed: classification(30, seed=seed) for seed in range(2)}
    column = accuracy_column({"good": good, "bad": bad, "unfinished": {}})
    assert column.seeds == [0, 1]
    first, second, third = column.entries(["good", "bad", "unfinished"])
    assert first is not None
    assert second is not None
    assert third is None
    assert (len(first.values), len(second.values)) == (3, 2)
    assert (first.mark, second.mark) == ("best", "")


def test_nothing_is_marked_without_a_rival_or_a_common_seed() -> None:
    alone = accuracy_column({"only": {0: classification(2)}, "unfinished": {}})
    assert [entry and entry.mark for entry in alone.entries(["only", "unfinished"])] == ["", None]
    apart = accuracy_column({"one": {0: classification(2)}, "other": {1: classification(20)}})
    assert [entry and entry.mark for entry in apart.entries(["one", "other"])] == ["", ""]


def test_a_sum_of_columns_is_one_of_values_and_of_scores() -> None:
    early = accuracy_column({"x": {0: classification(4), 1: classification(6)}})
    late = accuracy_column({"x": {0: classification(20), 2: classification(6)}})
    drop = combined([early, late], [1.0, -1.0], higher_is_better=False)
    assert drop.bounds == (-1.0, 1.0)
    assert drop.values["x"] == {0: pytest.approx(16 / 40)}
    assert np.mean(drop.scores("x", [0])) == pytest.approx(16 / 40)


def test_a_sum_of_columns_of_rows() -> None:
    runs = {"x": {0: classification(4)}}
    f1 = Column(
        values={"x": {0: score(CLASSES, runs["x"][0])["f1_weighted"]}},
        compared=frozenset(runs),
        scores=lambda name, seeds: scores_of(CLASSES, [runs[name][seed] for seed in seeds], "f1_weighted"),
        higher_is_better=True,
        bounds=(0.0, 1.0),
    )
    mean = combined([f1, f1], [0.5, 0.5], higher_is_better=True)
    metric = mean.scores("x", [0])
    assert metric.runs[0](np.arange(40)) == pytest.approx(f1.values["x"][0])


def test_one_seed_has_an_interval_over_samples() -> None:
    column = accuracy_column(
        {"one": {3: classification(10)}, "two": {seed: classification(10, seed=seed) for seed in (3, 4)}}
    )
    one, two = column.entries(["one", "two"])
    assert one is not None
    assert two is not None
    assert (one.seeds, one.deviation, two.seeds) == ((3,), None, (3, 4))
    assert one.low is not None
    assert one.high is not None
    # About two standard errors of a share of 3/4 among 40 to either side.
    assert 0.55 < one.low < 0.68
    assert 0.82 < one.high < 0.92


def test_two_seeds_have_an_interval_over_samples() -> None:
    """Never one beyond the range, which Student's of two values is, nor one of no width where both are
    alike.
    """
    runs = {
        "apart": {0: classification(10), 1: classification(38)},
        "alike": {0: classification(10), 1: classification(10)},
    }
    for entry in accuracy_column(runs).entries(list(runs)):
        assert entry is not None
        assert entry.low is not None
        assert entry.high is not None
        assert 0.0 < entry.low < entry.mean - 0.05  # type: ignore[operator]
        assert entry.mean + 0.05 < entry.high < 1.0  # type: ignore[operator]


def test_columns_of_the_same_numbers_have_the_same_intervals_and_marks() -> None:
    """With as many samples of each class, recall is the accuracy; one is tested in closed form and the other
    by resampling.
    """
    runs = {
        name: {0: classification(wrong, samples=60)}
        for name, wrong in (("a", 10), ("b", 18), ("c", 21), ("d", 26))
    }

    def column(metric: str) -> Column:
        return Column(
            values={
                name: {seed: score(CLASSES, each)[metric] for seed, each in by_seed.items()}
                for name, by_seed in runs.items()
            },
            scores=lambda name, seeds: scores_of(CLASSES, [runs[name][seed] for seed in seeds], metric),
            compared=frozenset(runs),
            higher_is_better=True,
            bounds=(0.0, 1.0),
        )

    found = _agreeing({metric: column(metric) for metric in ("accuracy", "f1_macro", "recall_unweighted")})
    accuracy, f1, recall = (each.entries(list(runs)) for each in found.values())
    assert [entry.model_dump(exclude={"values", "mean"}) for entry in recall if entry] == [
        entry.model_dump(exclude={"values", "mean"}) for entry in accuracy if entry
    ]
    assert f1 != accuracy


def test_what_was_scored_on_other_samples_is_not_compared() -> None:
    runs = {
        "whole": {0: classification(5)},
        "rival": {0: classification(6)},
        "part": {0: classification(0, samples=30)},
    }
    column = replace(accuracy_column(runs), compared=frozenset({"whole", "rival"}))
    assert [entry and entry.mark for entry in column.entries(list(runs))] == ["best", "level", ""]


def test_a_column_that_cannot_be_tested_has_no_marks() -> None:
    column = accuracy_column(
        {"one": {0: classification(0, samples=1)}, "other": {0: classification(1, samples=1)}}
    )
    assert [entry and (entry.mean, entry.mark) for entry in column.entries(["one", "other"])] == [
        (1.0, ""),
        (0.0, ""),
    ]


@pytest.mark.parametrize("task", [CLASSES, SENTIMENT])
def test_predictions_come_back_as_they_were_written(tmp_path: Path, task: Task) -> None:
    random = np.random.default_rng(0)
    written = (
        classification(7)
        if task is CLASSES
        else Predictions(
            ids=("a,b", 'c"', "ü"), prediction=random.normal(size=3), targets=np.array([0.1, -3.0, 1 / 3])
        )
    )
    path = tmp_path / "predictions_test.csv"
    path.write_text(to_csv(prediction_table(written, task)), encoding="utf-8")
    read = scored_predictions(path, task)
    assert read.ids == written.ids
    assert np.array_equal(read.prediction, written.prediction)
    assert np.array_equal(read.targets, written.targets)
    assert score(task, read) == score(task, written)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected CSV with a header"),
        ("id,target,prediction,p(a),p(b)\n1,a,a,1,0\n", "expected a table of predictions"),
        (
            "id,target,prediction,p(a),p(b),p(c)\n1,z,a,1,0,0\n",
            "found 'z', expected one of the classes a, b, c",
        ),
        ("id,prediction,p(a),p(b),p(c)\n1,a,1,0,0\n", ".*found no targets"),
        ("id,target,prediction,p(a),p(b),p(c)\n1,a,a,nan,0,0\n", "found 'nan', expected a finite number"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "predictions_test.csv"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=rf"predictions_test\.csv: {said}"):
        scored_predictions(path, CLASSES)
    with pytest.raises(CheckpointError, match=r"none\.csv: expected a file, found nothing"):
        scored_predictions(tmp_path / "none.csv", CLASSES)


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        (_Trained, "{", "not valid JSON"),
        (_Trained, "[]", "found a list"),
        (_Trained, '{"num_parameters": "x"}', "num_parameters: Input should be a valid integer"),
        (RunEnvironment, '{"versions": null}', "versions: Input should be a valid dictionary, found None"),
        (_Scored, '{"missing": {"effective_rate": {"valid": 0.1}}}', "missing.effective_rate"),
        (_Distances, '{"pairs": {"a-b": {"distance": null}}}', "pairs.a-b.distance: "),
        (_Plans, '{"samples": []}', "close: expected, found nothing"),
        (_Plans, '{"close": null}', "close: "),
        (_Plans, '{"close": {"a-b": {"own": [1.0]}}}', "close.a-b.own: "),
    ],
)
def test_a_value_that_no_table_can_hold_is_named(
    tmp_path: Path, form: type[object], text: str, said: str
) -> None:
    (tmp_path / "facts.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_record(tmp_path / "facts.json", form)
    assert str(caught.value).startswith(str(tmp_path / "facts.json"))
    assert said in str(caught.value)
