"""Metrics of the field, worked by hand and against scikit-learn and torchmetrics."""

import math
import re
import warnings
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from alignmamba.contracts import FurtherPredictions, Predictions, Target, Task
from alignmamba.evaluation.metrics import (
    METRICS,
    all_metric_names,
    column_names,
    label_names,
    metric_names,
    metric_of,
    score,
    undefined,
    undefined_notes,
)

NUMBER = Task(kind="regression")
SIMS = Task(kind="regression", label_range=(-1.0, 1.0), sentiment=True)
TWO = Task(kind="classification", classes=("no", "yes"))
THREE = Task(kind="classification", classes=("a", "b", "c"))
EMOTIONS = Target(name="all", kind="multilabel", labels=("sad", "glad"), classes=("sad", "glad"))
NAN = math.nan


@pytest.fixture(scope="module")
def torchmetrics() -> ModuleType:
    return pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")


def scored(task: Task, predicted: object, truth: object) -> dict[str, float]:
    values = np.asarray(predicted, dtype=np.float64)
    ids = tuple(f"s{row}" for row in range(len(values)))
    return score(task, Predictions(ids=ids, prediction=values, targets=np.asarray(truth)))


def of_emotions(probable: object, truth: object) -> dict[str, float]:
    said = FurtherPredictions(prediction=np.asarray(probable, float), targets=np.asarray(truth, float))
    count = len(said.targets)
    task = Task(kind="regression", further=(EMOTIONS,))
    whole = Predictions(
        ids=tuple(map(str, range(count))),
        prediction=np.zeros(count),
        targets=np.zeros(count),
        further={"all": said},
    )
    found = score(task, whole)
    assert tuple(found) == all_metric_names(task)
    return {name.removeprefix("all."): value for name, value in found.items() if name.startswith("all.")}


# --- regression ---------------------------------------------------------------------------------------------


def test_a_regression_by_hand() -> None:
    """Truth 1 2 3 6, predicted 2 2 4 4: means 3 and 3, variances 3.5 and 1, covariance 1.5, squares of errors
    1 0 1 4.
    """
    found = scored(NUMBER, [2, 2, 4, 4], [1, 2, 3, 6])
    assert found["ccc"] == pytest.approx(2 * 1.5 / (3.5 + 1))
    assert found["rmse"] == pytest.approx(math.sqrt(6 / 4))
    assert found["r2"] == pytest.approx(1 - 6 / 14)


def test_an_offset_lowers_the_concordance_alone() -> None:
    """Predictions that are all 2 too high: the covariance is the variance, 2/3, and 2 squared is added."""
    found = scored(NUMBER, [3, 4, 5], [1, 2, 3])
    assert found["corr"] == pytest.approx(1)
    assert found["ccc"] == pytest.approx(2 * 2 / 3 / (2 * 2 / 3 + 4))


def test_targets_that_are_equal_have_neither_determination_nor_concordance() -> None:
    found = scored(NUMBER, [1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    assert math.isnan(found["r2"])
    assert math.isnan(found["ccc"])
    assert scored(NUMBER, [0.1, 0.1, 0.1], [1.0, 2.0, 3.0])["ccc"] == 0
    assert scored(NUMBER, [0.3, 0.1, 0.2], [1.0, 2.0, 3.0])["r2"] < 0
    same = scored(NUMBER, [0.1, 0.1, 0.1], [0.1, 0.1, 0.1])
    assert math.isnan(same["ccc"])
    assert same["rmse"] == 0
    assert undefined(same).keys() == {"corr", "ccc", "r2"}
    assert undefined_notes("test", same) == [
        "split 'test' has no corr: all targets or all predictions are equal",
        "split 'test' has no ccc, r2: all targets are equal",
    ]


@pytest.mark.parametrize("size", [1e-180, 1e180, 1e9])
def test_numbers_of_any_size(size: float) -> None:
    truth, said = size * np.array([1.0, 2, 3, 6]), size * np.array([2.0, 2, 4, 4])
    found, plain = scored(NUMBER, said, truth), scored(NUMBER, [2, 2, 4, 4], [1, 2, 3, 6])
    assert found["ccc"] == pytest.approx(plain["ccc"])
    assert found["r2"] == pytest.approx(plain["r2"])
    assert found["rmse"] / size == pytest.approx(plain["rmse"])


@given(st.integers(0, 2**32 - 1))
def test_a_regression_agrees_with_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, said = random.normal(size=(2, 12))
    found = scored(NUMBER, said, truth)
    assert found["rmse"] == pytest.approx(oracle.root_mean_squared_error(truth, said))
    assert found["r2"] == pytest.approx(oracle.r2_score(truth, said))


def test_a_regression_agrees_with_torchmetrics(torchmetrics: ModuleType) -> None:
    """Its moments of a concordance divide by one sample less, which cancels where both means are equal."""
    random = np.random.default_rng(4)
    truth, said = random.normal(size=(2, 30))
    found, functional = scored(NUMBER, said, truth), torchmetrics.functional
    given_ = torch.tensor(said), torch.tensor(truth)
    assert found["rmse"] == pytest.approx(float(functional.mean_squared_error(*given_, squared=False)))
    assert found["r2"] == pytest.approx(float(functional.r2_score(*given_)))
    assert found["corr"] == pytest.approx(float(functional.pearson_corrcoef(*given_)))
    level = said - said.mean() + truth.mean()
    expected = float(functional.concordance_corrcoef(torch.tensor(level), torch.tensor(truth)))
    assert scored(NUMBER, level, truth)["ccc"] == pytest.approx(expected)


def test_sims_by_hand() -> None:
    """Levels of two, three and five, numbered from the lowest; an edge belongs to the level below it.

    truth      -1.0  -0.6   0.0   0.2   0.8   0.7
    predicted  -0.7  -0.1  -0.1   0.1   3.0   0.6
    two         0/0   0/0   0/0   1/1   1/1   1/1
    three       0/0   0/0   1/0   2/1   2/2   2/2
    five        0/0   1/1   2/1   3/2   4/4   3/3
    """
    found = scored(SIMS, [-0.7, -0.1, -0.1, 0.1, 3.0, 0.6], [-1.0, -0.6, 0.0, 0.2, 0.8, 0.7])
    assert found["acc2_sims"] == 1
    assert found["f1_sims"] == 1
    assert found["acc3_sims"] == pytest.approx(4 / 6)
    assert found["acc5_sims"] == pytest.approx(4 / 6)


def test_zero_is_negative_in_sims_and_its_f1_weighs_by_truth() -> None:
    """Truth three times 0, once 1; called 0 0 1 1. F1 of the lower level 4/5, of the upper 2/3."""
    found = scored(SIMS, [0.0, -0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 1.0])
    assert found["acc2_sims"] == 3 / 4
    assert found["f1_sims"] == pytest.approx((3 * 4 / 5 + 2 / 3) / 4)


def test_a_label_in_single_precision_stays_in_its_level() -> None:
    """0.1 in single precision lies above 0.1 in double; both are on the edge."""
    found = scored(SIMS, np.float32([0.7, 0.1, -0.1]), [0.7, 0.1, -0.1])
    assert found["acc5_sims"] == found["acc3_sims"] == 1
    assert scored(SIMS, [0.7, 0.69], [np.float32(0.7), np.float32(0.7)])["acc5_sims"] == 1


def mmsa_levels(values: np.ndarray, edges: list[float]) -> np.ndarray:
    """Levels as MMSA computes them, in the precision of the values."""
    clipped = np.clip(values, -1.0, 1.0)
    found = clipped.copy()
    for level, (low, high) in enumerate(pairwise(edges)):
        found[np.logical_and(clipped > low, clipped <= high)] = level
    return found.round()


@given(st.lists(st.tuples(st.integers(-12, 12), st.integers(-12, 12)), min_size=1, max_size=20))
def test_sims_agrees_with_mmsa(pairs: list[tuple[int, int]]) -> None:
    truth, said = (np.array(side, dtype=np.float32) / np.float32(10) for side in zip(*pairs, strict=True))
    found = scored(SIMS, said, truth)
    edges = {2: [0.0], 3: [-0.1, 0.1], 5: [-0.7, -0.1, 0.1, 0.7]}
    for number, inner in edges.items():
        true, called = (mmsa_levels(values, [-1.01, *inner, 1.01]) for values in (truth, said))
        assert found[f"acc{number}_sims"] == pytest.approx(np.mean(true == called))
        if number == 2:
            expected = oracle.f1_score(true, called, average="weighted", zero_division=0)
            assert found["f1_sims"] == pytest.approx(expected)


def test_sims_is_scored_in_its_own_range_alone() -> None:
    wide = Task(kind="regression", label_range=(-2.0, 2.0), sentiment=True)
    unmarked = Task(kind="regression", label_range=(-1.0, 1.0))
    assert not [name for task in (wide, unmarked) for name in metric_names(task) if name.endswith("_sims")]


# --- classification -----------------------------------------------------------------------------------------


def test_two_classes_by_hand() -> None:
    """Probability of yes .9 .6 .4 .3 .8, truth yes no yes no no.

    Pairs of yes above no: .9 above three, .4 above one, of six. By falling probability yes no no yes no:
    precision 1 where the recall is half, 2/4 where it is whole. Confidence .9 .6 .6 .7 .8, right 1 0 0 1 0.
    """
    probable = np.array([0.9, 0.6, 0.4, 0.3, 0.8])
    found = scored(TWO, np.stack([1 - probable, probable], axis=1), [1, 0, 1, 0, 0])
    assert found["auroc"] == pytest.approx(4 / 6)
    assert found["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.6 + 0.3 + 0.8) / 5)


def test_a_class_without_samples_leaves_the_mean() -> None:
    probable = [[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0]]
    found = scored(THREE, probable, [0, 1, 1])
    assert found["auroc"] == pytest.approx((0.5 + 1) / 2)  # a is above one of two, b above all


def test_one_class_alone_has_no_curve_but_a_calibration() -> None:
    found = scored(THREE, [[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]], [0, 0])
    assert math.isnan(found["auroc"])
    assert math.isnan(found["average_precision"])
    assert found["ece"] == pytest.approx(0.45)
    assert undefined(found) == dict.fromkeys(
        ("auroc", "average_precision"), "no class or label has samples both with and without it"
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 5]))
def test_classes_agree_with_scikit_learn(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    task = Task(kind="classification", classes=tuple("abcde"[:classes]))
    probable = random.dirichlet(np.ones(classes), size=25)
    truth = random.integers(0, classes, size=25)
    truth[:classes] = range(classes)
    found = scored(task, probable, truth)
    said = probable[:, 1] if classes == 2 else probable
    assert found["auroc"] == pytest.approx(oracle.roc_auc_score(truth, said, multi_class="ovr"))
    assert found["average_precision"] == pytest.approx(oracle.average_precision_score(truth, said))


@pytest.mark.parametrize("classes", [2, 4])
def test_classes_agree_with_torchmetrics(torchmetrics: ModuleType, classes: int) -> None:
    random = np.random.default_rng(classes)
    task = Task(kind="classification", classes=tuple("abcd"[:classes]))
    probable = random.dirichlet(np.ones(classes), size=40)
    truth = random.integers(0, classes, size=40)
    found, functional = scored(task, probable, truth), torchmetrics.functional.classification
    given_ = torch.tensor(probable), torch.tensor(truth)
    if classes == 2:
        positive = given_[0][:, 1], given_[1]
        assert found["auroc"] == pytest.approx(float(functional.binary_auroc(*positive)))
        expected = float(functional.binary_average_precision(*positive))
    else:
        assert found["auroc"] == pytest.approx(float(functional.multiclass_auroc(*given_, classes)))
        expected = float(functional.multiclass_average_precision(*given_, classes))
    assert found["average_precision"] == pytest.approx(expected)
    error = functional.multiclass_calibration_error(*given_, classes, n_bins=15, norm="l1")
    assert found["ece"] == pytest.approx(float(error), abs=1e-6)


def test_costly_metrics_are_no_columns_of_comparisons() -> None:
    assert column_names(THREE) == ("accuracy", "f1_macro", "f1_weighted", "recall_unweighted")
    assert column_names(NUMBER) == ("mae", "corr", "ccc")
    assert column_names(EMOTIONS) == metric_names(EMOTIONS)


# --- labels of a multilabel ---------------------------------------------------------------------------------


def test_each_label_by_hand() -> None:
    """Truth of sad 1 1 0 0 ?, called 1 0 0 0 1; of glad 1 throughout, called 1 0 1 1 1."""
    truth = [[1, 1], [1, 1], [0, 1], [0, 1], [NAN, 1]]
    probable = [[0.9, 0.6], [0.4, 0.2], [0.1, 0.7], [0.2, 0.8], [0.9, 0.9]]
    found = of_emotions(probable, truth)
    assert found["accuracy(sad)"] == 3 / 4
    assert found["f1_weighted(sad)"] == pytest.approx((2 * 2 / 3 + 2 * 4 / 5) / 4)
    assert found["accuracy_weighted(sad)"] == 3 / 4
    assert found["auroc(sad)"] == 1
    assert found["accuracy(glad)"] == 4 / 5
    assert found["f1_weighted(glad)"] == pytest.approx(8 / 9)
    assert math.isnan(found["auroc(glad)"])
    assert undefined(found).keys() == {
        "accuracy_weighted(glad)",
        "auroc(glad)",
        "average_precision(glad)",
    }


def test_a_label_that_no_sample_has() -> None:
    found = of_emotions([[0.9, 0.6], [0.4, 0.2]], [[1, NAN], [0, NAN]])
    assert undefined(found)["accuracy(glad)"] == "no sample has the target"
    assert found["accuracy(sad)"] == 1


@given(st.integers(0, 2**32 - 1))
def test_labels_agree_with_mult_and_scikit_learn(seed: int) -> None:
    """IEMOCAP's accuracy and F1 of each emotion, as `eval_iemocap` of MulT has them."""
    random = np.random.default_rng(seed)
    truth, probable = random.integers(0, 2, size=(15, 2)), random.random((15, 2))
    found = of_emotions(probable, truth)
    for column, name in enumerate(EMOTIONS.classes):
        there, called = truth[:, column], probable[:, column] >= 0.5
        assert found[f"accuracy({name})"] == pytest.approx(oracle.accuracy_score(there, called))
        expected = oracle.f1_score(there, called, average="weighted", zero_division=0)
        assert found[f"f1_weighted({name})"] == pytest.approx(expected)


def test_labels_agree_with_torchmetrics(torchmetrics: ModuleType) -> None:
    random = np.random.default_rng(1)
    truth, probable = random.integers(0, 2, size=(20, 2)), random.random((20, 2))
    found, functional = of_emotions(probable, truth), torchmetrics.functional.classification
    given_ = torch.tensor(probable), torch.tensor(truth)
    assert found["auroc"] == pytest.approx(float(functional.multilabel_auroc(*given_, 2)))
    expected = float(functional.multilabel_average_precision(*given_, 2))
    assert found["average_precision"] == pytest.approx(expected)
    each = functional.multilabel_accuracy(*given_, 2, average="none").tolist()
    assert [found[f"accuracy({name})"] for name in EMOTIONS.classes] == pytest.approx(each)


def test_names_of_labels() -> None:
    assert label_names(NUMBER) == label_names(THREE) == ()
    assert label_names(EMOTIONS)[0] == "accuracy(sad)"
    assert metric_of("all.accuracy(a.b)") is METRICS["accuracy"]
    assert {name.partition("(")[0] for name in label_names(EMOTIONS)} <= set(METRICS)


def test_no_warning_where_nothing_is_defined() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scored(NUMBER, [1.0], [1.0])
        scored(TWO, [[0.5, 0.5]], [0])
        of_emotions([[0.9, 0.6]], [[1, NAN]])


def test_every_score_is_defined_in_the_documentation() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "targets.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert set(METRICS) <= {name for row in rows for name in re.findall(r"`(\w+)`", row)}
