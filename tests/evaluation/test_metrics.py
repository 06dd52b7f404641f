import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from alignmamba.contracts import Predictions, Target, Task
from alignmamba.errors import ConfigError, DataError
from alignmamba.evaluation.metrics import (
    HIGHER_IS_BETTER,
    METRICS,
    confusion_matrix,
    metric_names,
    row_metric,
    sample_scores,
    score,
)

SENTIMENT = Task(kind="regression", label_range=(-3.0, 3.0))
SIMS = ("acc2_sims", "f1_sims", "acc3_sims", "acc5_sims")
THREE = Task(kind="classification", classes=("a", "b", "c"))


def predictions(predicted: object, targets: object) -> Predictions:
    values = np.asarray(predicted, dtype=np.float64)
    return Predictions(
        ids=tuple(f"s{row}" for row in range(len(values))),
        prediction=values,
        targets=None if targets is None else np.asarray(targets),
    )


def classified(predicted: list[int], targets: list[int], *, classes: int = 3) -> Predictions:
    """Predictions that put 0.8 on a class."""
    probabilities = np.full((len(predicted), classes), 0.2 / (classes - 1))
    probabilities[np.arange(len(predicted)), predicted] = 0.8
    return predictions(probabilities, np.asarray(targets, dtype=np.int64))


# --- regression ---------------------------------------------------------------------------------------------


def test_hand_worked_sentiment_table() -> None:
    """Six samples, worked on paper.

    truth      -3.0  -0.5   0.0   0.4   1.5   2.5
    predicted  -2.4   0.2   0.1  -0.3   2.0   9.0
    error       0.6   0.7   0.1   0.7   0.5   6.5     sum 9.1
    round 7    -3/-2  0/0   0/0   0/0   2/2   2/3     (half to even: -0.5 -> 0, 1.5 -> 2, 2.5 -> 2; 9 is
    clipped to 3) round 5    -2/-2  0/0   0/0   0/0   2/2   2/2
    >= 0        n/n   n/y   y/y   y/n   y/y   y/y     truth 2 n, 4 y; tp_y 3, fp_y 1, fn_y 1
    >  0        n/n   n/y    .    y/n   y/y   y/y     truth 2 n, 3 y; tp_y 2, fp_y 1, fn_y 1
    """
    found = score(SENTIMENT, predictions([-2.4, 0.2, 0.1, -0.3, 2.0, 9.0], [-3.0, -0.5, 0.0, 0.4, 1.5, 2.5]))
    signs = ["acc2_has0", "f1_has0", "acc2_non0", "f1_non0"]
    assert list(found) == ["mae", "corr", "ccc", "rmse", "r2", *signs, "acc5", "acc7"]
    assert found["mae"] == pytest.approx(9.1 / 6)
    assert found["acc7"] == pytest.approx(4 / 6)
    assert found["acc5"] == pytest.approx(6 / 6)
    assert found["acc2_has0"] == pytest.approx(4 / 6)
    assert found["f1_has0"] == pytest.approx((2 * (2 * 1 / 4) + 4 * (2 * 3 / 8)) / 6)
    assert found["acc2_non0"] == pytest.approx(3 / 5)
    assert found["f1_non0"] == pytest.approx((2 * (2 * 1 / 4) + 3 * (2 * 2 / 6)) / 5)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (7.0, 3), (-7.0, -3)],
)
def test_halves_round_to_even_after_clipping(value: float, rounded: int) -> None:
    for target in range(-3, 4):
        assert score(SENTIMENT, predictions([value], [target]))["acc7"] == float(target == rounded)
        assert score(SENTIMENT, predictions([target], [value]))["acc7"] == float(target == rounded)


def test_zero_is_non_negative_with_zeros_and_not_positive_without() -> None:
    """Predictions of exactly 0 count as non-negative in Has0 and as not positive in Non0."""
    found = score(SENTIMENT, predictions([0.0, 0.0, 0.0, -1.0], [1.0, 0.0, -1.0, 0.0]))
    assert found["acc2_has0"] == 2 / 4  # right on the first and the second
    assert found["acc2_non0"] == 1 / 2  # of the two non-zero targets, right on the negative one


def test_f1_weighs_by_truth_not_by_prediction() -> None:
    """Positive: tp 2, fp 1, fn 2, so F1 is 4/7 either way round; negative: tp 0, so 0. 4 of 5 are truly
    positive, 3 are predicted so.
    """
    truth, predicted = [1.0, 1.0, 1.0, -1.0, 2.0], [1.0, 1.0, -1.0, 1.0, -2.0]
    straight = score(SENTIMENT, predictions(predicted, truth))["f1_non0"]
    swapped = score(SENTIMENT, predictions(truth, predicted))["f1_non0"]
    assert straight == pytest.approx(4 / 7 * 4 / 5)
    assert swapped == pytest.approx(4 / 7 * 3 / 5)


values = st.one_of(st.sampled_from([x / 2 for x in range(-8, 9)]), st.floats(-4, 4, allow_subnormal=False))


@given(st.lists(st.tuples(values, values), min_size=1, max_size=40))
def test_regression_agrees_with_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    truth, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    found = score(SENTIMENT, predictions(predicted, truth))
    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(truth, predicted), abs=1e-12)
    non0 = truth != 0
    for suffix, t, p in (
        ("has0", truth >= 0, predicted >= 0),
        ("non0", truth[non0] > 0, predicted[non0] > 0),
    ):
        if t.size:
            assert found[f"acc2_{suffix}"] == pytest.approx(oracle.accuracy_score(t, p))
            assert found[f"f1_{suffix}"] == pytest.approx(
                oracle.f1_score(t, p, average="weighted", zero_division=0)
            )
        else:
            assert math.isnan(found[f"acc2_{suffix}"])
            assert math.isnan(found[f"f1_{suffix}"])
    for name, limit in (("acc5", 2), ("acc7", 3)):
        # Python rounds halves to even
        same = [round(min(max(p, -limit), limit)) == round(min(max(t, -limit), limit)) for t, p in pairs]
        assert found[name] == pytest.approx(np.mean(same))
    if truth.std() > 1e-6 and predicted.std() > 1e-6:
        assert found["corr"] == pytest.approx(np.corrcoef(predicted, truth)[0, 1], abs=1e-9)
        assert abs(found["corr"]) <= 1.0


@pytest.mark.parametrize("side", [0, 1])
def test_a_constant_has_no_correlation(side: int) -> None:
    columns = [[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]
    columns[side] = [0.1, 0.1, 0.1]  # whose mean is not 0.1 in floating point
    found = score(SENTIMENT, predictions(*columns))
    assert math.isnan(found["corr"])
    assert math.isfinite(found["mae"])


def test_the_correlation_of_tiny_and_huge_numbers_is_exact() -> None:
    found = score(Task(kind="regression"), predictions([1e-200, 2e-200, 3e-200], [3e200, 2e200, 1e200]))
    assert found["corr"] == pytest.approx(-1.0)


def test_only_zero_targets_leave_non0_undefined() -> None:
    found = score(SENTIMENT, predictions([1.0, -1.0], [0.0, 0.0]))
    assert math.isnan(found["acc2_non0"])
    assert math.isnan(found["f1_non0"])
    assert found["acc2_has0"] == 0.5


@pytest.mark.parametrize(
    ("label_range", "sentiment", "accuracies"),
    [
        (None, None, ()),
        ((0.0, 5.0), None, ()),
        ((-5.0, 0.0), False, ()),
        ((-40.0, 40.0), None, ()),
        ((-1.0, 1.0), None, ()),
        ((-3.0, 2.9), None, ()),
        ((-3.0, 3.0), None, ("acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc5", "acc7")),
        ((-3.0, 3.0), False, ()),
        ((-1.0, 1.0), True, ("acc2_has0", "f1_has0", "acc2_non0", "f1_non0", *SIMS)),
        ((-2.0, 2.5), True, ("acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc5")),
        ((-3.0, 2.9), True, ("acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc5")),
        ((-3.0, 3.0), True, ("acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc5", "acc7")),
    ],
)
def test_sign_and_integer_are_scored_of_a_sentiment_alone(
    label_range: tuple[float, float] | None, sentiment: bool | None, accuracies: tuple[str, ...]
) -> None:
    task = Task(kind="regression", label_range=label_range, sentiment=sentiment)
    assert metric_names(task) == ("mae", "corr", "ccc", "rmse", "r2", *accuracies)
    assert tuple(score(task, predictions([0.1, 0.2], [0.3, -0.4]))) == metric_names(task)
    assert task.is_sentiment == bool(accuracies)


@pytest.mark.parametrize(
    "task",
    [
        {"kind": "regression"},
        {"kind": "regression", "label_range": (0, 5)},
        {"kind": "classification", "classes": ("negative", "positive")},
    ],
)
def test_a_sentiment_needs_labels_of_both_signs(task: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="sentiment: needs a regression whose label_range has both signs"):
        Task(**task, sentiment=True)


# --- classification -----------------------------------------------------------------------------------------


def test_hand_worked_classification_table() -> None:
    r"""Seven samples, worked on paper.

    truth \ predicted   a  b  c
                    a   2  1  0     F1 a = 4/6, b = 2/5, c = 2/3
                    b   1  1  1     recall a = 2/3, b = 1/3, c = 1
                    c   0  0  1
    """
    given_ = classified([0, 0, 1, 0, 1, 2, 2], [0, 0, 0, 1, 1, 1, 2])
    assert confusion_matrix(THREE, given_).tolist() == [[2, 1, 0], [1, 1, 1], [0, 0, 1]]
    found = score(THREE, given_)
    assert tuple(found) == metric_names(THREE)
    assert {name: value for name, value in found.items() if METRICS[name].columns is None} == pytest.approx(
        {
            "accuracy": 4 / 7,
            "f1_macro": (4 / 6 + 2 / 5 + 2 / 3) / 3,
            "f1_weighted": (3 * 4 / 6 + 3 * 2 / 5 + 2 / 3) / 7,
            "recall_unweighted": (2 / 3 + 1 / 3 + 1) / 3,
        }
    )


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_classification_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    """Classes absent from the truth, from the predictions or from both occur here."""
    task = Task(kind="classification", classes=("a", "b", "c", "d"))
    truth, predicted = (list(side) for side in zip(*pairs, strict=True))
    found = score(task, classified(predicted, truth, classes=4))
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(truth, predicted))
    assert found["f1_macro"] == pytest.approx(
        oracle.f1_score(truth, predicted, average="macro", zero_division=0)
    )
    assert found["f1_weighted"] == pytest.approx(
        oracle.f1_score(truth, predicted, average="weighted", zero_division=0)
    )
    with warnings.catch_warnings():
        # it warns about classes that are predicted but never true
        warnings.simplefilter("ignore", UserWarning)
        assert found["recall_unweighted"] == pytest.approx(oracle.balanced_accuracy_score(truth, predicted))
    matrix = confusion_matrix(task, classified(predicted, truth, classes=4))
    np.testing.assert_array_equal(matrix, oracle.confusion_matrix(truth, predicted, labels=range(4)))


def test_a_class_that_is_never_true() -> None:
    found = score(THREE, classified([0, 2], [0, 0]))
    assert found["recall_unweighted"] == 0.5  # of class a alone
    assert found["f1_macro"] == pytest.approx((2 / 3 + 0) / 2)  # c counts, as it was predicted; b does not


# --- both ---------------------------------------------------------------------------------------------------


def test_every_metric_has_a_direction() -> None:
    ordinal = Target(name="grade", kind="ordinal", labels=("grade",), classes=("0", "1"))
    several = Target(name="parts", kind="multilabel", labels=("a",), classes=("a",))
    sims = Task(kind="regression", label_range=(-1.0, 1.0), sentiment=True)
    every = [metric_names(each) for each in (SENTIMENT, sims, THREE, ordinal, several)]
    assert set(HIGHER_IS_BETTER) == {name for names in every for name in names}
    lower = [name for name, higher in HIGHER_IS_BETTER.items() if not higher]
    assert lower == ["mae", "rmse", "mae_classes", "ece"]


@pytest.mark.parametrize("task", [SENTIMENT, THREE])
def test_scores_are_plain_floats(task: Task) -> None:
    given_ = predictions([0.1, 0.2], [0.3, 0.4]) if task is SENTIMENT else classified([0, 1], [0, 1])
    assert all(type(value) is float for value in score(task, given_).values())


@pytest.mark.parametrize(
    ("task", "given_", "message"),
    [
        (SENTIMENT, predictions([], []), "found no sample"),
        (THREE, predictions(np.zeros((0, 3)), []), "found no sample"),
        (SENTIMENT, predictions([1.0], None), "found no known target"),
        (
            SENTIMENT,
            predictions([1.0, np.nan], [1.0, 1.0]),
            "predictions: 1 of 2 not finite, the first is sample 's1'",
        ),
        (
            SENTIMENT,
            predictions([1.0, 1.0], [np.inf, 1.0]),
            "targets: 1 of 2 not finite, the first is sample 's0'",
        ),
        (SENTIMENT, predictions([[1.0, 2.0]], [1.0]), "one value per sample"),
        (SENTIMENT, predictions([1.0, 2.0], [1.0]), r"targets: expected shape \(2,\), found \(1,\)"),
        (THREE, predictions([[0.5, 0.5]], [1]), r"expected shape \(1, 3\), found \(1, 2\)"),
        (THREE, predictions([[0.5, np.nan, 0.5]], [1]), "not finite"),
        (THREE, classified([0, 1], [0, 3]), r"sample 's1' has class 3, expected an integer in \[0, 3\)"),
        (THREE, classified([0, 1], [-2, 0]), "sample 's0' has class -2"),
    ],
)
def test_wrong_input_is_refused(task: Task, given_: Predictions, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(task, given_)


def test_a_regression_has_no_confusion_matrix() -> None:
    with pytest.raises(DataError, match="expected a classification task, found regression"):
        confusion_matrix(SENTIMENT, predictions([1.0], [1.0]))


# --- metrics of samples and of rows -------------------------------------------------------------------------


def test_sample_scores_worked_on_paper() -> None:
    """Signs are right but for the third, whose target of 0 counts as positive, and is left out of the
    non-zero pair.
    """
    found = predictions([-2.5, 1.0, -0.2, 0.6], [-2.0, 3.0, 0.0, 0.4])
    scores = {name: sample_scores(SENTIMENT, found, name) for name in metric_names(SENTIMENT)}
    assert {name for name, each in scores.items() if each is None} == {
        *("corr", "ccc", "rmse", "r2", "f1_has0", "f1_non0")
    }
    expected = {
        "mae": [0.5, 2.0, 0.2, 0.2],
        "acc2_has0": [1, 1, 0, 1],
        "acc2_non0": [1, 1, 1],
        "acc5": [1, 0, 1, 0],
        "acc7": [1, 0, 1, 0],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, err_msg=name)
    np.testing.assert_array_equal(
        sample_scores(THREE, classified([0, 1, 1], [0, 2, 1]), "accuracy"), [1, 0, 1]
    )


@pytest.mark.parametrize(
    ("task", "found"),
    [
        (SENTIMENT, predictions([-2.5, 1.0, -0.2, 0.6, 0.1], [-2.0, 3.0, 0.0, 0.4, -1.0])),
        (THREE, classified([0, 1, 1, 2, 0], [0, 2, 1, 2, 1])),
    ],
    ids=["regression", "classification"],
)
def test_a_metric_of_rows_is_the_metric_of_those_samples(task: Task, found: Predictions) -> None:
    rows = np.array([1, 4, 4, 0, 1])
    assert found.targets is not None
    picked = Predictions(ids=tuple("abcde"), prediction=found.prediction[rows], targets=found.targets[rows])
    assert {name: row_metric(task, found, name)(rows) for name in metric_names(task)} == pytest.approx(
        score(task, picked)
    )


@pytest.mark.parametrize("ask", [sample_scores, row_metric])
def test_a_metric_that_the_task_does_not_have_is_refused(ask: Callable[..., object]) -> None:
    with pytest.raises(ConfigError, match=r"metric: this classification task has accuracy, .*, found 'mae'"):
        ask(THREE, classified([0], [0]), "mae")


# --- several folds together ---------------------------------------------------------------------------------


def in_folds(found: Predictions, *parts: int) -> Predictions:
    return replace(found, parts=np.array(parts))


def test_what_compares_samples_is_a_mean_over_folds_and_all_else_is_of_all_samples() -> None:
    """A constant of each fold, low where labels are high: it knows nothing, and errs against the others."""
    targets = [1.0, 2.0, 0.5, -1.0, -2.0, -0.5]
    together = predictions([-0.3] * 3 + [0.3] * 3, targets)
    assert score(SENTIMENT, together)["corr"] < -0.8
    scores = score(SENTIMENT, in_folds(together, 0, 0, 0, 1, 1, 1))
    assert math.isnan(scores["corr"])
    assert scores["ccc"] == 0.0
    assert scores["mae"] == score(SENTIMENT, together)["mae"]
    said = in_folds(predictions([1, 2, 3, 3, 2, 9, 4], [1, 2, 3, 1, 2, 3, 0]), 0, 0, 0, 1, 1, 1, 2)
    upper, lower = np.corrcoef([3, 2, 9], [1, 2, 3])[0, 1], 1.0
    assert score(SENTIMENT, said)["corr"] == pytest.approx((3 * lower + 3 * upper) / 6), (
        "a lone sample has none"
    )
    rows = np.array([0, 2, 1, 4, 5, 3, 3])
    again = np.corrcoef([2, 9, 3, 3], [2, 3, 1, 1])[0, 1]
    assert row_metric(SENTIMENT, said, "corr")(rows) == pytest.approx((3 * lower + 4 * again) / 7)


def test_areas_of_folds_do_not_pair_samples_of_two_models() -> None:
    """Each fold orders its samples rightly, on a scale of its own."""
    task = Task(kind="classification", classes=("no", "yes"))
    chance = np.array([0.1, 0.3, 0.7, 0.9])
    found = Predictions(
        ids=tuple("abcd"), prediction=np.stack([1 - chance, chance], 1), targets=np.array([0, 1, 0, 1])
    )
    assert score(task, found)["auroc"] == 0.75
    assert score(task, in_folds(found, 0, 0, 1, 1))["auroc"] == 1.0
    assert score(task, in_folds(found, 0, 0, 1, 1))["accuracy"] == 0.5
