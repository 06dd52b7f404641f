"""Further targets of a corpus: what follows from its labels, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
from corpora import SCORE, SOUND

from alignmamba.contracts import Corpus, Sample, Target, Task
from alignmamba.data.further_targets import (
    FurtherConfig,
    further_targets,
    value_of,
    with_further,
)
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.standardise import further_scales
from alignmamba.errors import ConfigError, DataError

LABELS: list[dict[str, Any]] = [
    {"mood": "up", "score": 1.5, "grade": 2, "a": 1, "b": 0.0},
    {"mood": "down", "score": -1, "grade": 10, "a": 0},
    {"grade": 2},
]


def sample(labels: dict[str, Any], number: int = 0) -> Sample:
    return Sample(id=f"s{number}", features={"sound": np.ones((2, 3), np.float32)}, target=0.0, labels=labels)


def corpus(**others: list[dict[str, Any]]) -> Corpus:
    roles: dict[Any, list[dict[str, Any]]] = {"train": LABELS, "valid": LABELS, **others}
    splits = {
        role: MemorySplit(
            role=role,
            samples=tuple(sample(labels, number) for number, labels in enumerate(rows)),
            modalities=(SOUND,),
        )
        for role, rows in roles.items()
    }
    return Corpus(name="small", task=SCORE, modalities=(SOUND,), splits=splits, checksum="0" * 64)


def asked(corpus: Corpus, **targets: dict[str, Any]) -> Task:
    return with_further(corpus, {name: FurtherConfig(**given) for name, given in targets.items()}).task


def test_kinds_and_classes_follow_from_the_labels_of_train() -> None:
    task = asked(corpus(), mood={}, score={}, grade={"kind": "ordinal"}, parts={"labels": ("a", "b")})
    assert task.kind == "regression"
    found = {target.name: (target.kind, target.classes) for target in task.further}
    assert found == {
        "mood": ("classification", ("down", "up")),
        "score": ("regression", ()),
        "grade": ("ordinal", ("2", "10")),
        "parts": ("multilabel", ("a", "b")),
    }


def test_values_and_what_is_not_known() -> None:
    task = asked(corpus(), mood={}, score={}, grade={"kind": "ordinal"}, parts={"labels": ("a", "b")})
    values = further_targets([sample(labels) for labels in LABELS], task)
    assert values["mood"].tolist() == [1, 0, -1]
    assert values["grade"].tolist() == [0, 1, 0]
    nan = math.nan
    np.testing.assert_array_equal(values["score"], [1.5, -1, nan])
    np.testing.assert_array_equal(values["parts"], [[1, 0], [0, nan], [nan, nan]])


def test_the_scale_is_that_of_the_known_values_of_train() -> None:
    made = with_further(corpus(), {"score": FurtherConfig(), "mood": FurtherConfig()})
    scales = further_scales(made.split("train"), made.task)
    assert set(scales) == {"score"}
    assert scales["score"].mean == 0.25
    assert scales["score"].deviation == 1.25


def test_targets_are_added_to_those_of_the_corpus() -> None:
    first = with_further(corpus(), {"mood": FurtherConfig()})
    assert [target.name for target in with_further(first, {"score": FurtherConfig()}).task.further] == [
        "mood",
        "score",
    ]
    assert with_further(first, {}) is first


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"nope": {}}, "targets.nope: no training sample .* label 'nope', expected one of a, b, grade, mood"),
        ({"mood": {"modality": "video"}}, "targets.mood.modality: found 'video', expected one of sound"),
        (
            {"mood": {"kind": "multilabel", "labels": ("a",), "classes": ("x", "y")}},
            "classes: found 2, expected 1",
        ),
        ({"score": {"kind": "ordinal", "classes": ("1",)}}, "targets.score: classes: an ordinal"),
        ({"mood": {"label_range": (0, 1)}}, "targets.mood.label_range: found it for .* kind classification"),
        ({"mood": {"kind": "ordinal"}}, "targets.mood.classes: found none, expected the words of the labels"),
    ],
)
def test_what_does_not_fit_is_refused(targets: dict[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(corpus(), **targets)


@pytest.mark.parametrize(
    ("target", "labels", "message"),
    [
        (
            {"kind": "regression", "label_range": (0, 1)},
            {"x": 2},
            "'s0', label 'x': found 2, expected 0 to 1",
        ),
        ({"kind": "regression"}, {"x": "up"}, "label 'x': found 'up', expected a number"),
        ({"kind": "classification", "classes": ("a", "b")}, {"x": "c"}, "found 'c', expected one of"),
        ({"kind": "ordinal", "classes": ("1", "2")}, {"x": 3}, "found 3, expected one of"),
    ],
)
def test_a_label_that_is_none_of_the_target_is_refused(
    target: dict[str, Any], labels: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        value_of(sample(labels), Target(name="x", labels=("x",), **target))


def test_a_label_of_any_split_is_looked_at_before_training() -> None:
    with pytest.raises(DataError, match="found 'sideways'"):
        asked(corpus(valid=[{"mood": "sideways"}]), mood={})
