import math
import multiprocessing
import multiprocessing.process
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from corpora import CLASSES, SCORE, SOUND, WORDS, arrays, memory_split
from hypothesis import given
from hypothesis import strategies as st

from alignmamba.contracts import Batch, ModalitySpec, Sample, Task
from alignmamba.data.archive import write_corpus
from alignmamba.data.loader import Loader, LoaderConfig, batch_size_for, collate, lost_workers_told
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.missing_protocols import MissingConfig
from alignmamba.errors import ConfigError, DataError, TrainingError

BOTH = (SOUND, WORDS)

sample_lengths = st.tuples(st.integers(0, 7), st.integers(0, 5)).filter(lambda pair: sum(pair) > 0)


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def loader(
    split: MemorySplit,
    *,
    shuffle: bool = True,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    **options: Any,
) -> Loader:
    return Loader(
        split,
        BOTH,
        config=LoaderConfig(**options),
        task=CLASSES,
        shuffle=shuffle,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )


def ids(batches: Any) -> list[tuple[str, ...]]:
    return [batch.ids for batch in batches]


def many(count: int = 100) -> MemorySplit:
    random = np.random.default_rng(5)
    return memory_split(
        [(int(sound), int(words)) for sound, words in random.integers(1, 40, size=(count, 2))]
    )


@given(
    lengths=st.lists(sample_lengths, min_size=1, max_size=40),
    batch_size=st.integers(1, 12),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
    bucket_by_length=st.booleans(),
)
def test_every_sample_comes_exactly_once_an_epoch(
    lengths: list[tuple[int, int]], batch_size: int, epoch: int, shuffle: bool, bucket_by_length: bool
) -> None:
    split = memory_split(lengths)
    source = loader(split, shuffle=shuffle, batch_size=batch_size, bucket_by_length=bucket_by_length)
    source.set_epoch(epoch)
    batches = list(source)
    assert len(batches) == len(source) == -(-len(lengths) // batch_size)
    assert sorted(identity for batch in batches for identity in batch.ids) == sorted(split.ids)
    sizes = [len(batch) for batch in batches]
    assert sizes == list(source.batch_sizes)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


@given(
    lengths=st.lists(sample_lengths, min_size=8, max_size=40),
    world_size=st.integers(1, 4),
    batch_size=st.integers(8, 16),
)
def test_the_shares_of_all_processes_make_up_the_global_batch(
    lengths: list[tuple[int, int]], world_size: int, batch_size: int
) -> None:
    split = memory_split(lengths)
    whole = ids(loader(split, batch_size=batch_size))
    shares = [
        ids(loader(split, batch_size=batch_size, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {len(whole)}
    for at, batch in enumerate(whole):
        for rank, share in enumerate(shares):
            assert share[at] == batch[rank::world_size]
            assert share[at]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    split = many()
    source = loader(split, batch_size=8)
    first = ids(source)
    assert ids(source) == first
    source.set_epoch(1)
    second = ids(source)
    assert second != first
    source.set_epoch(0)
    assert ids(source) == first
    assert ids(loader(split, batch_size=8)) == first
    assert ids(loader(split, batch_size=8, seed=1)) != first
    # Another company, not the same batches in another order.
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_the_order_leaves_the_global_generators_alone() -> None:
    source = loader(many(), batch_size=8)
    before = torch.get_rng_state()
    legacy = np.random.get_state()[1].tolist()  # type: ignore[index]
    list(source)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == legacy  # type: ignore[index]


def test_without_shuffling_the_order_is_the_splits() -> None:
    split = many()
    source = loader(split, shuffle=False, batch_size=8)
    source.set_epoch(3)
    assert [identity for batch in source for identity in batch.ids] == list(split.ids)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("start", [0, 1, 7, 13])
def test_iter_from_gives_the_tail_of_a_full_pass(shuffle: bool, start: int) -> None:
    source = loader(many(), shuffle=shuffle, batch_size=8)
    source.set_epoch(2)
    assert len(source) == 13
    whole = list(source)
    tail = list(source.iter_from(start))
    assert ids(tail) == ids(whole)[start:]
    for one, other in zip(tail, whole[start:], strict=True):
        assert torch.equal(one.modalities["sound"].features, other.modalities["sound"].features)


@pytest.mark.parametrize("start", [-1, 14])
def test_iter_from_beyond_the_epoch_is_refused(start: int) -> None:
    with pytest.raises(DataError, match=f"batch_index: expected 0 to 13, found {start}"):
        loader(many(), batch_size=8).iter_from(start)


def test_bucketing_saves_padding_and_mixes_long_and_short_batches() -> None:
    # Modalities of one sample are long and short together, as recordings are.
    random = np.random.default_rng(5)
    split = memory_split([(2 * int(length), int(length)) for length in random.integers(1, 40, size=800)])

    def padding(source: Loader) -> float:
        masks = [sequences.mask for batch in source for sequences in batch.modalities.values()]
        return float(sum((~mask).sum() for mask in masks) / sum(mask.numel() for mask in masks))

    assert padding(loader(split, batch_size=8)) < 0.3 * padding(
        loader(split, batch_size=8, bucket_by_length=False)
    )
    longest = [
        int(batch.modalities["sound"].lengths.sum() + batch.modalities["words"].lengths.sum())
        for batch in loader(split, batch_size=8)
    ]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.3


@given(lengths=st.lists(sample_lengths, min_size=1, max_size=6), timed=st.booleans())
def test_a_batch_holds_the_samples_and_masks_the_rest(lengths: list[tuple[int, int]], timed: bool) -> None:
    split = memory_split(lengths, timed=timed)
    batch = collate(list(split), BOTH, CLASSES)
    assert batch.ids == split.ids
    assert batch.targets is not None
    assert batch.targets.dtype == torch.int64
    assert batch.targets.tolist() == [sample.target for sample in split]
    for spec, dtype in ((SOUND, torch.float32), (WORDS, torch.int64)):
        sequences = batch.modalities[spec.name]
        assert sequences.features.dtype == dtype
        assert sequences.features.shape == (len(split), max(1, *split.lengths[spec.name]), spec.width)
        assert sequences.lengths.tolist() == split.lengths[spec.name].tolist()
        present = any(split.lengths[spec.name])
        assert (sequences.times is not None) == (timed and present)
        for row, sample in enumerate(split):
            length = int(split.lengths[spec.name][row])
            assert sequences.mask[row, :length].all()
            assert not sequences.mask[row, length:].any()
            assert (sequences.features[row, length:] == 0).all()
            if length:
                assert np.array_equal(sequences.features[row, :length].numpy(), sample.features[spec.name])
                if sequences.times is not None:
                    assert sequences.times[row, :length].tolist() == sample.times[spec.name].tolist()
        if spec is WORDS and timed and present:
            assert sequences.tokens is not None
            assert [len(words) for words in sequences.tokens] == split.lengths["words"].tolist()


def test_a_missing_modality_has_no_valid_position() -> None:
    batch = collate(list(memory_split([(3, 0), (2, 0)])), BOTH, CLASSES)
    assert batch.modalities["words"].mask.shape == (2, 1)
    assert not batch.modalities["words"].mask.any()


def test_modalities_that_are_not_asked_for_are_left_out() -> None:
    source = Loader(many(4), [WORDS], config=LoaderConfig(), task=CLASSES, shuffle=False, seed=0)
    assert list(next(iter(source)).modalities) == ["words"]


def test_targets_are_float_for_regression_and_absent_where_unknown() -> None:
    samples = list(memory_split([(1, 1), (2, 1)]))
    batch = collate(samples, BOTH, SCORE)
    assert batch.targets is not None
    assert batch.targets.dtype == torch.float64
    assert collate(list(memory_split([(1, 1)], targets=False)), BOTH, SCORE).targets is None


def test_a_batch_may_have_targets_of_some_samples() -> None:
    known, unknown = memory_split([(1, 1)])[0], memory_split([(1, 1)], role="test", targets=False)[0]
    classes = collate([known, unknown], BOTH, CLASSES).targets
    assert classes is not None
    assert classes.tolist() == [0, -1]
    numbers = collate([known, unknown], BOTH, SCORE).targets
    assert numbers is not None
    assert numbers.isnan().tolist() == [False, True]
    several = Task(kind="multilabel", classes=("a", "b"))
    rows = collate([replace(known, target=(1.0, math.nan)), unknown], BOTH, several).targets
    assert rows is not None
    assert rows.isnan().tolist() == [[False, True], [True, True]]
    whole = MemorySplit(role="train", samples=(known, unknown), modalities=BOTH)
    source = Loader(whole, BOTH, config=LoaderConfig(batch_size=1), task=CLASSES, shuffle=False, seed=0)
    assert [batch.targets.tolist() for batch in source if batch.targets is not None] == [[0], [-1]]


def test_a_sample_of_another_width_is_named() -> None:
    sample = Sample(id="odd", features={"sound": np.zeros((2, 4), dtype=np.float32)})
    with pytest.raises(
        DataError, match=r"'odd', modality 'sound': expected shape \(time, 3\), found \(2, 4\)"
    ):
        collate([sample], BOTH, CLASSES)


def test_workers_give_the_same_batches(tmp_path: Any) -> None:
    corpus = write_corpus(tmp_path / "corpus", {"train": arrays()}, task=CLASSES, samples_per_shard=3)

    def batches(num_workers: int) -> list[Batch]:
        return list(
            Loader(
                corpus.split("train"),
                corpus.modalities,
                config=LoaderConfig(batch_size=2, num_workers=num_workers),
                task=corpus.task,
                shuffle=True,
                seed=4,
            )
        )

    alone, helped = batches(0), batches(2)
    assert ids(alone) == ids(helped)
    for one, other in zip(alone, helped, strict=True):
        for name in one.modalities:
            assert torch.equal(one.modalities[name].features, other.modalities[name].features)
            assert one.modalities[name].tokens == other.modalities[name].tokens


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process ids of the workers that are started, one after the other."""
    begun: list[int] = []
    start = multiprocessing.process.BaseProcess.start

    def counting(process: Any) -> None:
        start(process)
        begun.append(process.pid)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", counting)
    return begun


def test_workers_live_over_epochs_and_give_the_same_batches(started: list[int]) -> None:
    """With what is withheld drawn anew each epoch, and a pass that was left before its end."""
    missing = MissingConfig(protocol="gcnet", rate=0.3)

    def passes(num_workers: int) -> list[Batch]:
        config = LoaderConfig(batch_size=4, num_workers=num_workers)
        source = Loader(many(20), BOTH, config=config, task=CLASSES, shuffle=True, seed=1, missing=missing)
        found: list[Batch] = []
        for epoch in (0, 1, 1):
            source.set_epoch(epoch)
            next(iter(source))
            found += source.iter_from(1)
        return found

    alone, helped = passes(0), passes(2)
    assert len(started) == 2
    assert ids(alone) == ids(helped)
    for one, other in zip(alone, helped, strict=True):
        for name in one.modalities:
            assert torch.equal(one.modalities[name].features, other.modalities[name].features)
            assert torch.equal(one.modalities[name].mask, other.modalities[name].mask)


def test_workers_serve_one_pass_at_a_time() -> None:
    source = loader(many(12), batch_size=4, num_workers=1)
    first = iter(source)
    next(first)
    assert len(list(source)) == 3
    with pytest.raises(DataError, match="split 'train': found a second pass before the end of the first"):
        next(first)


def test_what_is_wrong_with_a_sample_is_told_by_a_worker_as_without() -> None:
    samples = list(many(4))
    odd = replace(samples[2], features={**samples[2].features, "sound": np.zeros((2, 4), dtype=np.float32)})
    split = MemorySplit(role="train", samples=(*samples[:2], odd, samples[3]), modalities=BOTH)
    said = set()
    for workers in (0, 1):
        with pytest.raises(DataError) as caught:
            list(loader(split, num_workers=workers))
        said.add(str(caught.value))
    assert len(said) == 1
    assert "Traceback" not in said.pop()


@pytest.mark.parametrize("killed_at", [0, 1, 5])
def test_a_worker_that_was_killed_is_one_line(killed_at: int) -> None:
    """Killed at a place of its own: one that is killed anywhere may hold a lock for which PyTorch then waits
    for ever.
    """
    held = many(12)

    class Deadly(MemorySplit):
        def __getitem__(self, index: int) -> Sample:
            if index == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return held[index]

    source = loader(
        Deadly(role="train", samples=tuple(held), modalities=BOTH), shuffle=False, batch_size=1, num_workers=1
    )
    with (
        pytest.raises(
            TrainingError,
            match=r"^a process that reads ahead ended, .*lower loader\.num_workers$",
        ),
        lost_workers_told(),
    ):
        list(source)


def test_a_connection_that_was_lost_is_a_worker_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    source = loader(many(12), batch_size=1, num_workers=1)
    batches = iter(source)
    next(batches)

    def lost(_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter.__next__", lost)
    with pytest.raises(
        TrainingError, match=r"^a process that reads ahead ended, and its connection with it: "
    ):
        next(batches)


def test_another_error_is_not_taken_for_a_lost_worker() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), lost_workers_told():
        raise RuntimeError("something else")


def test_workers_that_are_spawned(started: list[int]) -> None:
    """Spawned workers, as on Windows and macOS; forkserver, of Python 3.14 on Linux, hands them the same."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        source = loader(many(12), batch_size=4, num_workers=1)
        epochs = [ids(source), ids(source)]
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert epochs == [ids(loader(many(12), batch_size=4))] * 2
    assert len(started) == 1


def test_a_loader_that_cannot_serve_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank: expected 0 to 1, found 2"):
        loader(many(), rank=2, world_size=2)
    with pytest.raises(ConfigError, match="for the smallest batch, expected at least 5"):
        loader(many(), batch_size=4, world_size=5)
    with pytest.raises(DataError, match="split 'train' has no samples"):
        loader(memory_split([]))
    with pytest.raises(DataError, match="no modality 'smell'"):
        Loader(
            many(),
            [SOUND.model_copy(update={"name": "smell"})],
            config=LoaderConfig(),
            task=CLASSES,
            shuffle=True,
            seed=0,
        )


def test_a_loader_shows_its_split() -> None:
    split = memory_split([(1, 1), (2, 2)], role="valid")
    source = loader(split, shuffle=False)
    assert source.role == "valid"
    assert source.ids == split.ids


def test_a_split_in_memory_refuses_a_repeated_id() -> None:
    sample = memory_split([(1, 1)])[0]
    with pytest.raises(DataError, match="split 'test': id 'train-0' appears 2 times"):
        MemorySplit(role="test", samples=(sample, sample), modalities=BOTH)


def test_a_sample_keeps_its_times_beside_one_that_has_none() -> None:
    seconds = 1.7e9 + np.array([0.0, 0.02, 1.0])  # more digits than single precision has
    known = Sample(
        id="known", features={"sound": np.ones((3, 2), dtype=np.float32)}, times={"sound": seconds}
    )
    unknown = Sample(id="unknown", features={"sound": np.ones((4, 2), dtype=np.float32)})
    spec = ModalitySpec(name="sound", dim=2)
    times = collate([known, unknown], [spec], Task(kind="regression")).modalities["sound"].times
    assert times is not None
    assert times[0, :3].tolist() == seconds.tolist()
    assert bool(times[1].isnan().all())
    assert collate([unknown], [spec], Task(kind="regression")).modalities["sound"].times is None


def grouped(sizes: list[int]) -> MemorySplit:
    """Samples of groups of these sizes, taken in turn so that no group lies together."""
    count = sum(sizes)
    left = {f"g{number}": size for number, size in enumerate(sizes)}
    names: list[str] = []
    while len(names) < count:
        names += [name for name in left if left[name]]
        left = {name: max(0, size - 1) for name, size in left.items()}
    plain = memory_split([(3, 2)] * count)
    return MemorySplit(
        role="train",
        samples=tuple(replace(sample, group=name) for sample, name in zip(plain, names, strict=True)),
        modalities=(SOUND, WORDS),
    )


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    batch_size=st.integers(1, 9),
    shuffle=st.booleans(),
)
def test_a_group_stays_together_and_in_order(sizes: list[int], batch_size: int, shuffle: bool) -> None:
    split = grouped(sizes)
    batches = list(loader(split, shuffle=shuffle, batch_size=batch_size, keep_groups=True))
    order = {identity: row for row, identity in enumerate(split.ids)}
    assert sorted(identity for batch in batches for identity in batch.ids) == sorted(split.ids)
    for batch in batches:
        assert batch.groups is not None
        for name in set(batch.groups):
            rows = [
                order[identity]
                for identity, group in zip(batch.ids, batch.groups, strict=True)
                if group == name
            ]
            assert rows == sorted(rows)
            assert len(rows) == sizes[int(name[1:])]


def test_processes_share_a_batch_by_groups() -> None:
    split = grouped([2, 1, 2, 1, 2, 2, 1])
    whole = [set(batch.ids) for batch in loader(split, batch_size=4, keep_groups=True)]
    shares = [
        list(loader(split, batch_size=4, keep_groups=True, rank=rank, world_size=2)) for rank in range(2)
    ]
    assert [set(first.ids) | set(second.ids) for first, second in zip(*shares, strict=True)] == whole
    for first, second in zip(*shares, strict=True):
        assert not set(first.groups or ()) & set(second.groups or ())
    with pytest.raises(
        ConfigError, match="keep_groups: a batch of split 'train' has 1 groups, too few for 2 processes"
    ):
        loader(grouped([5]), batch_size=4, keep_groups=True, world_size=2)


def test_what_is_withheld_is_kept_for_training_alone() -> None:
    split = many(24)
    given_: dict[str, Any] = {"config": LoaderConfig(batch_size=8), "task": CLASSES, "seed": 0}
    source = Loader(
        split,
        BOTH,
        shuffle=True,
        missing=MissingConfig(protocol="gcnet", rate=0.4),
        keep_withheld=True,
        **given_,
    )
    whole = dict(zip(split.ids, split, strict=True))
    hidden = 0
    for batch in source:
        complete = batch.complete()
        for row, identity in enumerate(batch.ids):
            for name, array in whole[identity].features.items():
                s = complete.modalities[name]
                assert np.array_equal(s.features[row, s.mask[row]].numpy(), array)
                hidden += bool(batch.withheld[name].mask[row].any())
                assert bool(batch.withheld[name].mask[row].any()) != bool(
                    batch.modalities[name].mask[row].any()
                )
    assert hidden
    assert not next(
        iter(Loader(split, BOTH, shuffle=True, missing=MissingConfig(protocol="gcnet", rate=0.4), **given_))
    ).withheld
    with pytest.raises(ConfigError, match="keep_withheld: expected split 'train', found split 'test'"):
        Loader(memory_split([(2, 2)] * 4, role="test"), BOTH, shuffle=False, keep_withheld=True, **given_)


@pytest.mark.parametrize(
    ("samples", "size"),
    [(0, 4), (1, 4), (50, 4), (199, 4), (200, 8), (399, 8), (400, 16), (799, 16), (800, 32), (10**6, 32)],
)
def test_small_train_splits_have_small_batches(samples: int, size: int) -> None:
    assert batch_size_for(samples) == size


def test_a_loader_without_a_batch_size_takes_32() -> None:
    source = Loader(many(33), [WORDS], config=LoaderConfig(), task=CLASSES, shuffle=False, seed=0)
    assert source.batch_sizes == (17, 16)
