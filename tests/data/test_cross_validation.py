"""The deal of samples into folds: every sample is tested once, groups stay whole, labels are spread."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from alignmamba.contracts import Corpus, ModalitySpec, Role, Sample, Split, Task
from alignmamba.data.cross_validation import Fold, FoldsConfig, fold_of, joined
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.errors import ConfigError, DataError

SPEC = ModalitySpec(name="text", dim=2)
CLASSES = Task(kind="classification", classes=("a", "b", "c"))
NUMBER = Task(kind="regression", label_range=None)


def corpus(task: Task, targets: list[float | None], groups: list[str | None] | None = None) -> Corpus:
    """A third of the samples in each split; sample n has n % 4 + 1 tokens."""
    samples = [
        Sample(
            id=f"s{row:03d}",
            features={"text": np.full((row % 4 + 1, 2), row, dtype=np.float32)},
            target=target,
            group=groups[row] if groups else None,
        )
        for row, target in enumerate(targets)
    ]
    cut = len(samples) // 3
    parts: dict[Role, list[Sample]] = {
        "train": samples[:cut],
        "valid": samples[cut : 2 * cut],
        "test": samples[2 * cut :],
    }
    splits: dict[Role, Split] = {
        role: MemorySplit(role=role, samples=tuple(part), modalities=(SPEC,)) for role, part in parts.items()
    }
    return Corpus(name="c", task=task, modalities=(SPEC,), splits=splits, checksum="0")


def folds(whole: Corpus, number: int, seed: int = 0) -> list[Fold]:
    return [fold_of(whole, FoldsConfig(number=number, test=test, seed=seed)) for test in range(number)]


def parts(whole: Corpus, number: int, seed: int = 0) -> list[tuple[str, ...]]:
    return [each.corpus.split("test").ids for each in folds(whole, number, seed)]


@pytest.mark.parametrize("number", [3, 4, 7])
def test_every_sample_is_tested_once_and_validated_once(number: int) -> None:
    whole = corpus(NUMBER, list(np.random.default_rng(0).normal(size=31)))
    made = folds(whole, number)
    for test, each in enumerate(made):
        ids = {role: set(split.ids) for role, split in each.corpus.splits.items()}
        assert set.union(*ids.values()) == set(joined(whole).split("train").ids)
        assert sum(map(len, ids.values())) == 31
        following = made[(test + 1) % number].corpus.split("test").ids
        assert each.corpus.split("valid").ids == following
    counts = Counter(identity for part in parts(whole, number) for identity in part)
    assert set(counts.values()) == {1}
    assert len(counts) == 31


def test_samples_keep_their_content_and_splits_their_roles() -> None:
    made = fold_of(corpus(NUMBER, [float(row) for row in range(30)]), FoldsConfig(number=3)).corpus
    for role, split in made.splits.items():
        assert split.role == role
        for row, sample in enumerate(split):
            number = int(sample.id[1:])
            assert sample.id == split.ids[row] == split[row].id
            assert sample.target == number
            assert len(sample.features["text"]) == split.lengths["text"][row] == number % 4 + 1
            assert (sample.features["text"] == number).all()
    with pytest.raises(IndexError):
        joined(made).split("train")[30]


def test_groups_stay_whole_and_parts_are_of_like_size() -> None:
    sizes = [9, 5, 4, 4, 3, 2, 1, 1, 1]
    groups: list[str | None] = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    groups += [None, None]  # each a group of its own
    whole = corpus(CLASSES, [row % 3 for row in range(len(groups))], groups)
    group_of = {sample.id: sample.group for sample in joined(whole).split("train")}
    found = parts(whole, 4)
    for number in range(len(sizes)):
        assert sum(any(group_of[each] == f"g{number}" for each in part) for part in found) == 1
    assert sorted(map(len, found)) == [7, 8, 8, 9]
    assert folds(whole, 4)[0].by == "group"
    assert len(folds(whole, 4)[0].notes) == 1
    few = corpus(CLASSES, [row % 3 for row in range(16)], ["a"] * 10 + ["b"] * 4 + ["c"] * 2)
    assert folds(few, 3)[0].notes[1].startswith("parts have 2 to 10 samples, for groups stay whole: ")
    with pytest.raises(ConfigError, match=r"^folds: found 11 groups, expected 12 or more, one for each part"):
        parts(whole, 12)


def test_classes_are_spread_to_a_sample() -> None:
    targets: list[float | None] = [0] * 23 + [1] * 11 + [2] * 2
    whole = corpus(CLASSES, targets)
    label = {sample.id: sample.target for sample in joined(whole).split("train")}
    found = [Counter(label[each] for each in part) for part in parts(whole, 5)]
    for index, count in enumerate((23, 11, 2)):
        assert {each[index] for each in found} <= {count // 5, -(-count // 5)}
    assert {sum(each.values()) for each in found} == {7, 8}
    notes = folds(whole, 5)[0].notes
    assert notes[1] == "class 'c' has fewer than 5 samples, so not every part has one"
    assert notes[0].startswith("fold 0 of 5: the samples of all splits are dealt by class, ")
    assert len(folds(corpus(CLASSES, [0, 1, 2] * 5), 5)[0].notes) == 1


def test_labels_of_a_regression_are_spread_by_rank() -> None:
    targets = list(np.random.default_rng(1).normal(size=40))
    whole = corpus(NUMBER, targets)
    rank = {f"s{row:03d}": place for place, row in enumerate(np.argsort(targets).tolist())}
    for part in parts(whole, 5):
        assert sorted(rank[each] // 5 for each in part) == list(range(8))


def test_the_deal_depends_on_its_seed_alone() -> None:
    whole = corpus(CLASSES, [row % 3 for row in range(30)])
    assert parts(whole, 3) == parts(whole, 3)
    assert parts(whole, 3, seed=1) != parts(whole, 3)
    facts = [each.facts for each in folds(whole, 3)]
    assert len({each["test_ids"] for each in facts}) == 3
    assert (facts[0]["by"], facts[0]["train"], facts[0]["test"]) == ("class", 10, 10)


def test_samples_without_a_target_are_dealt_evenly() -> None:
    targets = [float(row) if row % 2 else None for row in range(12)]
    whole = corpus(NUMBER, targets)
    for fold in range(3):
        made = fold_of(whole, FoldsConfig(number=3, test=fold)).corpus
        assert sum(sample.target is None for sample in made.split("test")) == 2


def test_what_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 2, expected 3 or more"):
        FoldsConfig(number=2)
    with pytest.raises(ConfigError, match="test: found 3, expected 0 to 2"):
        FoldsConfig(number=3, test=3)
    with pytest.raises(ConfigError, match="folds: found 4 samples, expected 5"):
        fold_of(corpus(NUMBER, [1.0, 2.0, 3.0, 4.0]), FoldsConfig(number=5))
    whole = corpus(NUMBER, [1.0, 2.0, 3.0])
    twice = replace(whole, splits={**whole.splits, "valid": whole.split("train")})
    with pytest.raises(DataError, match="sample 's000' is in 2 splits, expected one"):
        fold_of(twice, FoldsConfig(number=3))
