"""A valid split that is drawn from train."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignmamba.contracts import Corpus, ModalitySpec, Sample, Task
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.validation import TrainSamples
from alignmamba.errors import ConfigError

SOUND = ModalitySpec(name="sound", dim=1)
SIGHT = ModalitySpec(name="sight", dim=1)


def corpus(
    targets: list[Any],
    groups: list[str | None] | None = None,
    *,
    num_classes: int = 0,
    valid: bool = False,
    sight: int = 0,
) -> Corpus:
    """Sound in every sample, sight in the first few."""
    value = np.zeros((1, 1), dtype=np.float32)
    samples = tuple(
        Sample(
            id=f"s{row}",
            features={"sound": value, **({"sight": value} if row < sight else {})},
            target=target,
            group=None if groups is None else groups[row],
        )
        for row, target in enumerate(targets)
    )
    task = (
        Task(kind="classification", classes=tuple(map(str, range(num_classes))))
        if num_classes
        else Task(kind="regression")
    )
    split = MemorySplit(role="train", samples=samples, modalities=(SOUND, SIGHT))
    others = (
        {"valid": MemorySplit(role="valid", samples=samples[:1], modalities=(SOUND, SIGHT))} if valid else {}
    )
    return Corpus(
        name="c", task=task, modalities=(SOUND, SIGHT), splits={"train": split, **others}, checksum=""
    )  # type: ignore[dict-item]


def drawn(given: Corpus, share: float, seed: int = 0) -> tuple[list[str], list[str]]:
    """Ids of train and of valid."""
    share_of = TrainSamples.of(given).split(share, seed=seed).corpus
    assert share_of.split("valid").role == "valid"
    assert share_of.split("train").role == "train"
    return list(share_of.split("train").ids), list(share_of.split("valid").ids)


@given(st.lists(st.integers(0, 4), min_size=8, max_size=60), st.floats(0.1, 0.5), st.integers(0, 9))
def test_classes_keep_their_shares_to_a_sample(labels: list[int], share: float, seed: int) -> None:
    labels += list(range(5)) * 2
    whole = corpus(labels, num_classes=5)
    train, valid = drawn(whole, share, seed)
    assert sorted(train + valid) == sorted(whole.split("train").ids)
    assert train == sorted(train, key=lambda each: int(each[1:]))
    assert len(valid) == round(share * len(labels))
    for label in range(5):
        taken = sum(labels[int(each[1:])] == label for each in valid)
        assert abs(taken - share * labels.count(label)) < 1


def test_the_seed_alone_decides() -> None:
    whole = corpus([float(row) for row in range(40)])
    assert drawn(whole, 0.25, 1) == drawn(whole, 0.25, 1)
    assert drawn(whole, 0.25, 1) != drawn(whole, 0.25, 2)
    assert [len(drawn(whole, share)[1]) for share in (0.1, 0.25, 0.5)] == [4, 10, 20]
    # Pinned: a run is taken up again, and evaluated on its valid split, by drawing it anew.
    assert drawn(corpus([0.0] * 10), 0.3, 0)[1] == PINNED


PINNED = ["s1", "s2", "s9"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=30, max_size=80), st.integers(0, 9))
def test_no_group_stands_on_both_sides(rows: list[tuple[int, int]], seed: int) -> None:
    rows += [(10 + row, row % 3) for row in range(12)]
    groups: list[str | None] = [f"video {group}" for group, _ in rows]
    groups[-3:] = [None] * 3
    whole = corpus([label for _, label in rows], groups, num_classes=3)
    train, valid = drawn(whole, 0.2, seed)
    sides = [{groups[int(each[1:])] for each in side} - {None} for side in (train, valid)]
    assert not sides[0] & sides[1]
    assert sorted(train + valid) == sorted(whole.split("train").ids)
    assert abs(len(valid) - 0.2 * len(rows)) <= max(groups.count(group) for group in groups) / 2


def test_groups_of_one_class_are_taken_from_every_class() -> None:
    groups: list[str | None] = [f"g{row // 2}" for row in range(80)]
    labels = [(row // 2) % 4 for row in range(80)]
    for seed in range(5):
        _, valid = drawn(corpus(labels, groups, num_classes=4), 0.2, seed)
        assert sorted(labels[int(each[1:])] for each in valid) == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4


def test_many_small_classes_in_groups_still_give_the_share() -> None:
    groups: list[str | None] = [f"g{row}" for row in range(60)]
    labels = [row % 20 for row in range(60)]  # of each class .45 samples are wanted, which rounds to none
    _, valid = drawn(corpus(labels, groups, num_classes=20), 0.15)
    assert len(valid) == 9


REFUSED: dict[str, tuple[Corpus, float, str]] = {
    "valid is there": (
        corpus([0.0] * 9, valid=True),
        0.2,
        "split_valid: corpus 'c' has a split 'valid' already, of 1 samples; drop",
    ),
    "none": (
        corpus([0.0] * 9),
        0.05,
        "split_valid: found 0.05, which makes no sample of the 9 of train, expected at least 0.11",
    ),
    "all": (corpus([0.0] * 9), 0.95, "split_valid: found 0.95, which takes all 9 samples of train"),
    "a class": (
        corpus([0] * 18 + [1] * 2, num_classes=2),
        0.9,
        "leaves no sample of class '1' in train, which has 2",
    ),
    "a modality": (corpus([0.0] * 4, sight=1), 0.75, "leaves no sample with 'sight' in train, which has 1"),
    "one group": (
        corpus([0.0] * 9, ["a"] * 9),
        0.2,
        "makes no whole group: train has 9 samples in 1 groups of 9 to 9",
    ),
    "large groups": (
        corpus([0.0] * 9, ["a"] * 4 + ["b"] * 5),
        0.1,
        "makes no whole group: train has 9 samples in 2 groups of 4 to 5",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_shares_that_leave_a_side_without_something(case: str) -> None:
    whole, share, said = REFUSED[case]
    with pytest.raises(ConfigError, match=said):
        TrainSamples.of(whole).split(share, seed=0)


def test_samples_without_targets_keep_their_share() -> None:
    share = TrainSamples.of(corpus([0, 1, None, None] * 8, num_classes=2)).split(0.25, seed=3)
    targets = [sample.target for sample in share.corpus.split("valid")]
    assert [targets.count(each) for each in (0, 1, None)] == [2, 2, 4]


def test_sets_of_labels_keep_their_share() -> None:
    whole = corpus([(1.0, 0.0), (0.0, 0.0), (1.0, 1.0), (0.0, 0.0)] * 8, num_classes=2)
    whole = replace(whole, task=Task(kind="multilabel", classes=("a", "b")))
    share = TrainSamples.of(whole).split(0.25, seed=3)
    targets = [sample.target for sample in share.corpus.split("valid")]
    assert [targets.count(each) for each in ((1.0, 0.0), (0.0, 0.0), (1.0, 1.0))] == [2, 4, 2]


def test_a_class_in_one_group_stays_in_train() -> None:
    groups: list[str | None] = ["rare", "rare", *(f"g{row}" for row in range(18))]
    for seed in range(5):
        train, _ = drawn(corpus([1, 1, *[0] * 18], groups, num_classes=2), 0.5, seed)
        assert {"s0", "s1"} <= set(train)
