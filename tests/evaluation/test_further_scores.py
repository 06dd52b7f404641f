"""Scores of further targets, by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from alignmamba.contracts import FurtherPredictions, Predictions, Target, Task
from alignmamba.evaluation.metrics import METRICS, all_metric_names, metric_names, metric_of, score

PARTS = Target(name="parts", kind="multilabel", labels=("a", "b"), classes=("a", "b"))
GRADE = Target(name="grade", kind="ordinal", labels=("g",), classes=("0", "1", "2"))
SCORE = Target(name="own", kind="regression", labels=("own",), label_range=(-3.0, 3.0))
NAN = math.nan


def scored(target: Target, prediction: object, targets: object) -> dict[str, float]:
    said = FurtherPredictions(prediction=np.asarray(prediction, float), targets=np.asarray(targets))
    count = len(said.targets)
    main = Predictions(
        ids=tuple(map(str, range(count))),
        prediction=np.zeros(count),
        targets=np.zeros(count),
        further={target.name: said},
    )
    task = Task(kind="regression", further=(target,))
    found = score(task, main)
    assert set(found) == set(all_metric_names(task))
    return {
        name.partition(".")[2]: value for name, value in found.items() if name.startswith(target.name + ".")
    }


def test_a_multilabel_by_hand() -> None:
    """Label a: truth 1 1 0 0 ?, called 1 0 0 1 1. Label b: truth 1 0 0 1 1, called 1 1 0 1 1."""
    truth = [[1, 1], [1, 0], [0, 0], [0, 1], [NAN, 1]]
    probable = [[0.9, 0.6], [0.4, 0.5], [0.1, 0.2], [0.7, 0.8], [0.9, 0.9]]
    found = scored(PARTS, probable, truth)
    assert found["accuracy_labels"] == pytest.approx(np.mean([1, 0, 1, 0.5, 1]))
    # a: half of both sides; b: all positives, half of the negatives
    assert found["accuracy_weighted"] == pytest.approx((0.5 + 0.75) / 2)
    # pairs of a: .9 above both, .4 above one of two; of b: all of six
    assert found["auroc"] == pytest.approx((3 / 4 + 1) / 2)


def test_ordered_classes_by_hand() -> None:
    found = scored(GRADE, np.eye(3)[[0, 1, 2, 0, 1]], [0, 1, 1, 2, -1])
    assert found["accuracy"] == 0.5
    assert found["mae_classes"] == 0.75
    assert set(found) == set(metric_names(GRADE))


def test_samples_without_target_or_modality_do_not_count() -> None:
    found = scored(SCORE, [1.0, 2.0, NAN, 0.5], [1.5, NAN, 1.0, 0.5])
    assert found["mae"] == 0.25
    assert all(math.isnan(value) for value in scored(SCORE, [1.0], [NAN]).values())
    assert all(math.isnan(value) for value in scored(GRADE, [[0.2, 0.3, 0.5]], [-1]).values())


def test_a_label_of_one_value_alone_leaves_the_mean() -> None:
    found = scored(PARTS, [[0.9, 0.6], [0.4, 0.5]], [[1, 1], [0, 1]])
    assert found["auroc"] == 1.0
    assert math.isnan(scored(PARTS, [[0.9, 0.6]], [[1, 1]])["auroc"])


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_multilabel_metrics_agree_with_scikit_learn(seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, size=(20, 2)).astype(float)
    truth[0], truth[1] = 0, 1
    probable = random.random((20, 2))
    if ties:
        probable = probable.round(1)
    found = scored(PARTS, probable, truth)
    called = probable >= 0.5
    columns = range(2)
    assert found["auroc"] == pytest.approx(oracle.roc_auc_score(truth, probable, average="macro"))
    assert found["average_precision"] == pytest.approx(
        oracle.average_precision_score(truth, probable, average="macro")
    )
    assert found["accuracy_weighted"] == pytest.approx(
        np.mean([oracle.balanced_accuracy_score(truth[:, c], called[:, c]) for c in columns])
    )
    assert found["f1_labels"] == pytest.approx(
        np.mean([oracle.f1_score(truth[:, c], called[:, c], average="weighted") for c in columns])
    )
    assert found["accuracy_labels"] == pytest.approx(1 - oracle.hamming_loss(truth, called))


@given(st.integers(0, 2**32 - 1))
def test_kappa_agrees_with_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, said = random.integers(0, 3, size=(2, 25))
    truth[:3] = [0, 1, 2]
    found = scored(GRADE, np.eye(3)[said], truth)
    assert found["kappa"] == pytest.approx(oracle.cohen_kappa_score(truth, said, weights="quadratic"))


def test_a_name_leads_to_its_metric() -> None:
    assert metric_of("grade.mae_classes") is METRICS["mae_classes"]
    assert metric_of("mae") is METRICS["mae"]
