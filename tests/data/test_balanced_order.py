"""Epochs in which classes, labels or bins of numbers come equally often."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from corpora import CLASSES, SCORE, SOUND, WORDS, memory_split
from hypothesis import given
from hypothesis import strategies as st

from alignmamba.contracts import Task
from alignmamba.data.balanced_order import balanced_rows, strata
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.errors import ConfigError, DataError

LENGTHS = [(3, 2), (1, 1), (5, 1), (2, 2), (4, 4), (1, 2), (6, 3), (2, 1), (3, 3)]


def split_of(targets: list[Any], labels: list[Any] | None = None) -> MemorySplit:
    made = memory_split(LENGTHS[: len(targets)])
    return replace(
        made,
        samples=tuple(
            replace(sample, target=target, labels={} if not labels or label is None else {"who": label})
            for sample, target, label in zip(made, targets, labels or targets, strict=True)
        ),
    )


def loader(split: MemorySplit, *, task: Task = CLASSES, shuffle: bool = True, **given: Any) -> Loader:
    place = {name: given.pop(name) for name in ("rank", "world_size", "seed") if name in given}
    config = LoaderConfig(**{"batch_size": 4, "balance": "target", **given})
    return Loader(split, (SOUND, WORDS), config=config, task=task, shuffle=shuffle, **{"seed": 0, **place})


def drawn(source: Loader, epoch: int = 0) -> list[tuple[str, ...]]:
    source.set_epoch(epoch)
    return [batch.ids for batch in source]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 100))
def test_all_strata_come_equally_often_and_every_sample_does(values: list[int], seed: int) -> None:
    numbers = np.unique(values, return_inverse=True)[1]
    rows = balanced_rows(numbers, np.random.default_rng(seed))
    most = max(Counter(values).values())
    assert Counter(numbers[rows].tolist()) == dict.fromkeys(numbers.tolist(), most)
    times = Counter(rows.tolist())
    assert times.keys() == set(range(len(values)))
    for number in set(numbers.tolist()):  # within a stratum none comes twice as often as another would
        own = [times[row] for row in np.flatnonzero(numbers == number).tolist()]
        assert max(own) - min(own) <= 1


def test_those_that_come_once_more_are_drawn_anew() -> None:
    numbers = np.array([0, 0, 0, 1, 1])
    found = [Counter(balanced_rows(numbers, np.random.default_rng(seed)).tolist()) for seed in range(12)]
    assert {row for times in found for row, count in times.items() if count == 2} == {3, 4}


def test_an_epoch_is_balanced_and_its_batches_differ_by_one() -> None:
    source = loader(split_of([0, 0, 0, 0, 0, 1, 1, 1, 0]))
    classes = {sample.id: sample.target for sample in source.split}
    found = drawn(source)
    assert Counter(classes[name] for batch in found for name in batch) == {0: 6, 1: 6}
    assert [len(batch) for batch in found] == [4, 4, 4] == list(source.batch_sizes)
    assert drawn(source, 1) != found
    assert drawn(source, 0) == found
    assert drawn(loader(source.split, seed=1)) != found


def test_the_tail_of_an_epoch_and_all_processes_make_up_the_whole() -> None:
    split = split_of([0, 0, 0, 0, 0, 1, 1, 2, 0])
    source = loader(split)
    source.set_epoch(3)
    whole = [batch.ids for batch in source]
    assert [batch.ids for batch in source.iter_from(2)] == whole[2:]
    shares = [drawn(loader(split, rank=rank, world_size=3), 3) for rank in range(3)]
    for rank, share in enumerate(shares):
        assert share == [batch[rank::3] for batch in whole]


def test_valid_and_the_order_of_a_split_are_left_alone() -> None:
    split = split_of([0, 0, 0, 0, 0, 1, 1, 1, 0])
    assert [name for batch in drawn(loader(split, shuffle=False)) for name in batch] == list(split.ids)
    plain = loader(split, balance="")
    assert sorted(name for batch in drawn(plain) for name in batch) == sorted(split.ids)


def test_words_and_few_numbers_are_values_and_many_numbers_are_binned() -> None:
    worded = split_of([0] * 4, ["anna", "ben", "anna", "carla"])
    assert strata(worded, "who", CLASSES).tolist() == [0, 1, 0, 2]
    few = split_of([0] * 4, [2, 0.5, 2.0, 7])
    assert strata(few, "who", CLASSES).tolist() == [1, 0, 1, 2]
    numbers = [0.0, 0.05, 0.15, 0.2, 0.31, 0.42, 0.53, 0.64, 1.0]
    made = memory_split([(2, 1)] * 12)
    values = [*numbers, 0.01, 0.02, 0.03]
    many = replace(made, samples=tuple(replace(s, target=v) for s, v in zip(made, values, strict=True)))
    # bins of a tenth; those without a number are none
    assert strata(many, "target", SCORE).tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0]


@pytest.mark.parametrize(
    ("labels", "balance", "error", "message"),
    [
        (["a", None, "b"], "who", DataError, "found no label 'who', expected one to balance by"),
        (["a", 1, "b"], "who", DataError, "label 'who': found words and numbers, expected one of both"),
        (
            ["a", "a", "b"],
            "when",
            ConfigError,
            r"loader.balance: found 'when', expected 'target' or a label of the corpus, one of who",
        ),
    ],
)
def test_what_cannot_be_balanced_is_refused(
    labels: list[Any], balance: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loader(split_of([0, 1, 0], labels), balance=balance)


def test_whole_groups_and_endless_epochs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"loader.balance: found keep_groups beside it"):
        loader(split_of([0, 1, 0]), keep_groups=True)
    numbers = np.concatenate([np.zeros(500, dtype=np.int64), np.arange(1, 300)])
    with pytest.raises(ConfigError, match="expected at most 100 times 799"):
        balanced_rows(numbers, np.random.default_rng(0))
