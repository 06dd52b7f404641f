"""Parts of the train split: nested, in the shares of classes, labels and groups, and the others untouched."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import Corpus, ModalitySpec, Role, Sample, Split, Task
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.training_subset import SubsetConfig, subset_of
from alignmamba.errors import ConfigError

SPECS = (ModalitySpec(name="text", dim=1), ModalitySpec(name="audio", dim=1))
CLASSES = Task(kind="classification", classes=("a", "b", "c"))
NUMBER = Task(kind="regression", label_range=None)


def corpus(
    task: Task, targets: list[Any], groups: list[str | None] | None = None, *, audio: range = range(1000)
) -> Corpus:
    """Train has these labels, valid the same, test none; samples in `audio` have audio."""

    def samples(role: str) -> tuple[Sample, ...]:
        return tuple(
            Sample(
                id=f"{role}-{row:03d}",
                features={"text": np.zeros((2, 1), np.float32)}
                | ({"audio": np.zeros((1, 1), np.float32)} if row in audio else {}),
                target=target if role != "test" else None,
                group=groups[row] if groups else None,
            )
            for row, target in enumerate(targets)
        )

    roles: tuple[Role, ...] = ("train", "valid", "test")
    splits: dict[Role, Split] = {
        role: MemorySplit(role=role, samples=samples(role), modalities=SPECS) for role in roles
    }
    return Corpus(name="c", task=task, modalities=SPECS, splits=splits, checksum="0")


def ids(whole: Corpus, size: int, role: Role = "train", **settings: Any) -> list[str]:
    made = subset_of(whole, SubsetConfig(size=size, **settings)).corpus
    return list(made.split(role).ids)


UNEVEN = [0] * 60 + [1] * 30 + [2] * 6


def test_smaller_subsets_are_parts_of_larger_ones_and_seeds_differ() -> None:
    for whole in (
        corpus(CLASSES, UNEVEN),
        corpus(NUMBER, [float(each) for each in np.random.default_rng(0).normal(size=96)]),
        corpus(CLASSES, UNEVEN, [f"g{row % 7}" for row in range(96)]),
    ):
        drawn = [set(ids(whole, size)) for size in (5, 20, 21, 60, 96)]
        assert [len(each) for each in drawn] == [5, 20, 21, 60, 96]
        assert all(small < large for small, large in pairwise(drawn))
        assert set(ids(whole, 20, seed=1)) != drawn[1]
        assert ids(whole, 20) == ids(whole, 20) == sorted(ids(whole, 20)), "in the order of the split"


def test_classes_keep_their_shares_and_all_are_there_as_soon_as_there_is_room() -> None:
    whole = corpus(CLASSES, UNEVEN)
    labels = {sample.id: sample.target for sample in whole.split("train")}
    for seed in range(5):
        assert set(Counter(labels[each] for each in ids(whole, 3, seed=seed)).values()) == {1}
        for size in (16, 32, 48, 80):
            counts = Counter(labels[each] for each in ids(whole, size, seed=seed))
            for label, total in enumerate((60, 30, 6)):
                assert abs(counts[label] - size * total / 96) <= 1.5


def test_labels_of_a_regression_are_spread_over_their_ranks() -> None:
    whole = corpus(NUMBER, [float(each) ** 3 for each in range(100)])
    for size in (10, 20, 50):
        drawn = [int(each.removeprefix("train-")) for each in ids(whole, size)]
        assert Counter(row // 10 for row in drawn) == dict.fromkeys(range(10), size // 10)
    assert len(ids(corpus(NUMBER, [1.0, 2.0, 2.0]), 2)) == 2, "fewer samples than parts"


def test_whole_groups_are_taken_or_all_in_their_shares() -> None:
    groups: list[str | None] = [f"g{row % 6}" for row in range(90)] + [None] * 6
    whole = corpus(CLASSES, UNEVEN, groups)
    of = {sample.id: sample.group or sample.id for sample in whole.split("train")}
    sizes = Counter(of.values())
    for seed in range(4):
        taken = Counter(of[each] for each in ids(whole, 40, seed=seed))
        assert sum(taken[name] < sizes[name] for name in taken) <= 1, "the last group alone is cut"
        across = Counter(of[each] for each in ids(whole, 48, seed=seed, across_groups=True))
        assert {f"g{number}" for number in range(6)} <= across.keys()
        assert max(across.values()) <= 10
    assert subset_of(whole, SubsetConfig(size=9)).by == "group"
    assert subset_of(whole, SubsetConfig(size=9, across_groups=True)).by == "class"


def test_valid_is_cut_on_request_and_test_never() -> None:
    whole = corpus(CLASSES, UNEVEN)
    kept = subset_of(whole, SubsetConfig(size=24))
    assert [len(split) for split in kept.corpus.splits.values()] == [24, 96, 96]
    cut = subset_of(whole, SubsetConfig(size=24, cut_valid=True))
    assert [len(split) for split in cut.corpus.splits.values()] == [24, 24, 96]
    assert set(ids(whole, 12, "valid", cut_valid=True)) < set(ids(whole, 24, "valid", cut_valid=True))
    assert len(ids(whole, 1, "valid", cut_valid=True)) == 1
    assert cut.notes == (
        "subset: 24 of 96 samples of train and 24 of 96 samples of valid are used, drawn in the share of each"
        " class",
    )
    assert kept.facts["train"]["of"] == 96
    assert set(kept.facts) == {"by", "train"}


def test_a_class_that_is_not_drawn_is_named() -> None:
    said = subset_of(corpus(CLASSES, UNEVEN), SubsetConfig(size=2)).notes[1]
    assert said.startswith("no sample of the subset of train is of class ")


def test_samples_without_a_class_keep_their_share() -> None:
    targets = [None if row % 2 else row % 4 // 2 for row in range(32)]
    drawn = subset_of(corpus(CLASSES, targets), SubsetConfig(size=16)).corpus.split("train")
    assert sum(sample.target is None for sample in drawn) == 8


def test_what_cannot_be_drawn_is_refused() -> None:
    whole = corpus(CLASSES, UNEVEN, audio=range(1))
    with pytest.raises(ConfigError, match=r"subset\.size: found 97, but train has 96 samples"):
        subset_of(whole, SubsetConfig(size=97))
    with pytest.raises(ConfigError, match="leaves no sample with 'audio' in train, which has 1 of 96"):
        subset_of(whole, SubsetConfig(size=3, seed=1))
    with pytest.raises(ConfigError, match="size: found 0 with other settings of a subset"):
        SubsetConfig(cut_valid=True)
