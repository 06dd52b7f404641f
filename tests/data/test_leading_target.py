"""A corpus led by some of its labels."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import Corpus, Task
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.further_targets import FurtherConfig
from alignmamba.data.leading_target import LeadingConfig, leading, led_as, led_by, several_labels
from alignmamba.errors import ConfigError, DataError

SENTIMENT = Task(kind="regression", label_range=(-3.0, 3.0), labels=("sentiment",))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Two samples each; the second lacks a label."""
    labels: dict[str, list[Any]] = {
        "happy": [2.0, 0],
        "sad": [0, None],
        "arousal": [-1.0, 1.0],
        "mood": ["up", "down"],
    }
    splits = {
        role: {
            "features": {"sound": [np.ones((2, 1))] * 2},
            "targets": [-1.0, 2.0],
            "ids": [f"{role}-1", f"{role}-2"],
            "labels": labels,
        }
        for role in ("train", "test")
    }
    return write_corpus(tmp_path / "corpus", splits, task=SENTIMENT)  # type: ignore[arg-type]


def targets(corpus: Corpus) -> list[Any]:
    return [sample.target for sample in corpus.split("test")]


def test_names_of_labels_are_stored_and_change_no_checksum(corpus: Corpus, tmp_path: Path) -> None:
    assert load_corpus(corpus.location).task.labels == ("sentiment",)
    unnamed = SENTIMENT.model_copy(update={"labels": ()})
    splits = {
        role: {
            "features": {"sound": [sample.features["sound"] for sample in split]},
            "targets": [sample.target for sample in split],
            "ids": split.ids,
            "labels": {name: [sample.labels.get(name) for sample in split] for name in split[0].labels},
        }
        for role, split in corpus.splits.items()
    }
    again = write_corpus(tmp_path / "again", splits, task=unnamed)  # type: ignore[arg-type]
    assert again.checksum == corpus.checksum
    assert "labels" not in again.task.model_dump()


def test_several_labels_from_0_on_are_one_target(corpus: Corpus) -> None:
    led = led_by(corpus, LeadingConfig(labels=("happy", "sad")))
    assert (led.task.kind, led.task.classes, led.task.labels) == (
        "multilabel",
        ("happy", "sad"),
        ("happy", "sad"),
    )
    first, second = targets(led)
    assert first == (1.0, 0.0)
    assert second[0] == 0.0
    assert math.isnan(second[1])
    assert led.split("test")[1].labels["sentiment"] == 2.0
    assert led.checksum == corpus.checksum


def test_of_others_the_first_leads(corpus: Corpus) -> None:
    led = led_by(corpus, LeadingConfig(labels=("sentiment", "arousal", "mood")))
    assert led.task.kind == "regression"
    assert [(each.name, each.kind) for each in led.task.further] == [
        ("arousal", "regression"),
        ("mood", "classification"),
    ]
    assert targets(led) == [-1.0, 2.0]
    with_emotions = led_by(corpus, LeadingConfig(labels=("sentiment", "happy", "sad")))
    assert [(each.name, each.kind, each.labels) for each in with_emotions.task.further] == [
        ("labels", "multilabel", ("happy", "sad"))
    ]


def test_a_further_target_of_labels_that_lead_is_dropped(corpus: Corpus) -> None:
    with_sad = led_by(corpus, LeadingConfig(labels=("happy", "sad"), kind="regression"))
    assert [each.name for each in with_sad.task.further] == ["sad"]
    led = led_by(with_sad, LeadingConfig(labels=("happy", "sad")))
    assert (led.task.classes, led.task.further) == (("happy", "sad"), ())
    assert led_by(with_sad, LeadingConfig(labels=("mood",))).task.further == with_sad.task.further


def test_the_target_of_the_corpus_stays_what_it_is_beside_others(corpus: Corpus) -> None:
    led = led_by(corpus, LeadingConfig(labels=("sentiment", "arousal")))
    assert led.task.model_copy(update={"further": ()}) == corpus.task
    other = led_by(corpus, LeadingConfig(labels=("arousal", "sentiment")))
    assert other.task.label_range is None
    assert other.task.further[0].label_range == (-3.0, 3.0)


def test_classes_that_are_numbers_stay_classes_behind_another_label(tmp_path: Path) -> None:
    split = {
        "features": {"sound": [np.ones((2, 1))] * 2},
        "targets": [0, 1],
        "labels": {"arousal": [-1.0, 1.0]},
    }
    task = Task(kind="classification", classes=("0", "1"), labels=("sarcasm",))
    made = write_corpus(tmp_path / "corpus", {"train": split}, task=task)
    (target,) = led_by(made, LeadingConfig(labels=("arousal", "sarcasm"))).task.further
    assert (target.kind, target.classes) == ("classification", ("0", "1"))


def test_a_label_that_train_lacks_is_judged_by_the_others() -> None:
    known = [{"a": 1.0}, {"a": 0.0}, {"a": 1.0, "b": -2.0}]
    led = leading(LeadingConfig(labels=("a", "b")), known, (), roles=("train", "train", "test"))
    assert led.task.kind == "regression"
    assert [each.name for each in led.task.further] == ["b"]


def test_names_of_further_targets_differ() -> None:
    known = [{"a": -1.0, "label-3": -1.0, "x y": -1.0}]
    led = leading(LeadingConfig(labels=("a", "label-3", "x y")), known, ())
    assert [(each.name, each.labels) for each in led.task.further] == [
        ("label-3", ("label-3",)),
        ("label-3-", ("x y",)),
    ]


def test_options_that_labels_cannot_meet_are_named(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match=r"^leading\.classes: found 1, expected 2, one for each label"):
        led_by(corpus, LeadingConfig(labels=("happy", "sad"), classes=("glad",)))
    with pytest.raises(ConfigError, match=r"^leading: found an infinite label, expected finite numbers"):
        leading(LeadingConfig(labels=("a",), kind="ordinal"), [{"a": 0.0}, {"a": math.inf}], ())


def test_one_label_is_what_it_holds_or_what_is_asked_for(corpus: Corpus) -> None:
    assert targets(led_by(corpus, LeadingConfig(labels=("mood",)))) == [1, 0]
    assert targets(led_by(corpus, LeadingConfig(labels=("arousal",)))) == [-1.0, 1.0]
    graded = led_by(corpus, LeadingConfig(kind="ordinal"))
    assert (graded.task.kind, graded.task.classes) == ("ordinal", ("-1", "2"))
    assert targets(graded) == [0, 1]
    named = led_by(corpus, LeadingConfig(labels=("mood",), kind="ordinal", classes=("up", "down")))
    assert targets(named) == [0, 1]


def test_numbers_of_32_bits_are_ordered_classes(tmp_path: Path) -> None:
    values = (np.arange(-5, 6) / 5).astype(np.float32)
    split = {"features": {"sound": [np.ones((2, 1))] * 11}, "targets": values}
    made = write_corpus(tmp_path / "corpus", {"train": split}, task=Task(kind="regression"))
    led = led_by(made, LeadingConfig(kind="ordinal"))
    assert led.task.classes == ("-1", "-0.8", "-0.6", "-0.4", "-0.2", "0", "0.2", "0.4", "0.6", "0.8", "1")
    assert [sample.target for sample in led.split("train")] == [*range(11)]


def test_labels_of_any_name_lead_and_follow(tmp_path: Path) -> None:
    numbers: list[Any] = [-1.0, 1.0]
    labels = dict.fromkeys(("tgt.x", "мнение", "1", "a" * 65), numbers)
    split = {"features": {"sound": [np.ones((2, 1))] * 2}, "targets": numbers, "labels": labels}
    made = write_corpus(tmp_path / "corpus", {"train": split}, task=Task(kind="regression"))
    for name in labels:
        assert led_by(made, LeadingConfig(labels=(name,))).task.labels == (name,)
        assert led_by(made, LeadingConfig(labels=(name,), kind="multilabel")).task.classes == (name,)
    task = led_by(made, LeadingConfig(labels=("tgt.x", "target", *list(labels)[1:]))).task
    assert [(each.name, each.labels) for each in task.further] == [
        ("target", ("target",)),
        ("label-3", ("мнение",)),
        ("label-4", ("1",)),
        ("label-5", ("a" * 65,)),
    ]
    assert several_labels(task).startswith(
        "several labels: tgt.x leads, further targets are target, label-3 (мнение), label-4 (1), "
    )


def test_a_label_is_named_once() -> None:
    for config in (LeadingConfig, FurtherConfig):
        with pytest.raises(ConfigError, match="labels: expected each name once, found 'happy' again"):
            config(labels=("happy", "sad", "happy"))


def test_nothing_asked_is_nothing_done(corpus: Corpus) -> None:
    assert led_by(corpus, LeadingConfig()) is corpus
    assert led_by(corpus, LeadingConfig(labels=("sentiment",))) is corpus


def test_labels_that_are_not_there_or_do_not_fit_are_refused(corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="leading: no training sample has a label 'anger', expected one of"):
        led_by(corpus, LeadingConfig(labels=("anger",)))
    with pytest.raises(DataError, match="label 'mood': found 'up', expected a number"):
        led_by(corpus, LeadingConfig(labels=("mood", "happy"), kind="multilabel"))


def test_another_corpus_is_led_as_a_model_was(corpus: Corpus) -> None:
    led = led_by(corpus, LeadingConfig(labels=("mood",)))
    assert targets(led_as(corpus, led.task)) == targets(led)
    assert led_as(led, led.task) is led
    strange = led.task.model_copy(update={"labels": ("nothing",)})
    assert targets(led_as(corpus, strange)) == [None, None]
