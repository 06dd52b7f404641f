"""Clocks of a corpus: whether its modalities begin together."""

from collections.abc import Sequence

import numpy as np
import pytest

from alignmamba.contracts import Corpus, ModalitySpec, Sample, Task
from alignmamba.data.clocks import LOOKED_AT, Clocks, clocks_of
from alignmamba.data.memory_splits import MemorySplit

SPECS = (ModalitySpec(name="text", dim=1), ModalitySpec(name="audio", dim=1))


def corpus(begins: Sequence[tuple[float | None, float | None]], *, lasts: float = 1.0) -> Corpus:
    """Samples of eleven tokens of each modality, which begin at these seconds; ``None`` has no times."""
    samples = tuple(
        Sample(
            id=f"{row:03d}",
            features={spec.name: np.zeros((11, 1), np.float32) for spec in SPECS},
            target=row % 2,
            times={
                spec.name: begin + np.linspace(0, lasts, 11)
                for spec, begin in zip(SPECS, pair, strict=True)
                if begin is not None
            },
        )
        for row, pair in enumerate(begins)
    )
    train = MemorySplit(role="train", samples=samples, modalities=SPECS)
    task = Task(kind="classification", classes=("a", "b"))
    return Corpus(name="c", task=task, modalities=SPECS, splits={"train": train}, checksum="0")


def test_beginnings_count_by_the_time_of_the_whole_sample() -> None:
    assert clocks_of(corpus([(0, 0), (5, 5)])) == Clocks(samples=2, apart=0)
    assert clocks_of(corpus([(0, 0.5), (0.5, 0)])) == Clocks(samples=2, apart=2)
    assert clocks_of(corpus([(0, 0.5)], lasts=10.0)).apart == 0, "a twentieth of the sample"
    assert clocks_of(corpus([(1e9, 1e9 + 2)], lasts=10.0)).apart == 1, "the zero of the clock does not count"


def test_clocks_that_share_no_time_are_not_one() -> None:
    assert clocks_of(corpus([(0, 3.0), (0, 1e9), (0, 1.0)])) == Clocks(samples=3, apart=1)


def test_samples_without_two_clocks_do_not_count() -> None:
    assert clocks_of(corpus([(None, 0.5), (None, None), (0, 0.5), (0, 0)])) == Clocks(samples=2, apart=1)
    assert clocks_of(corpus([(0, 0.5)]), timeless=("text",)) == Clocks(samples=0, apart=0)
    assert clocks_of(corpus([])) == Clocks(samples=0, apart=0)


@pytest.mark.parametrize(("apart", "said"), [(0, False), (1, False), (2, True), (8, True)])
def test_a_quarter_of_samples_says_that_modalities_begin_apart(apart: int, *, said: bool) -> None:
    assert Clocks(samples=8, apart=apart).begin_apart is said
    assert not Clocks(samples=0, apart=0).begin_apart


def test_a_large_corpus_is_judged_by_some_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = corpus([(0, 0.5 * (row >= 500)) for row in range(1000)])
    read: list[int] = []
    plain = MemorySplit.__getitem__

    def noted(split: MemorySplit, row: int) -> Sample:
        read.append(row)
        return plain(split, row)

    monkeypatch.setattr(MemorySplit, "__getitem__", noted)
    assert clocks_of(whole) == Clocks(samples=LOOKED_AT, apart=LOOKED_AT // 2)
    assert len(read) == len(set(read)) == LOOKED_AT
