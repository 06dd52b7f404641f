"""Clocks of a corpus: the share of samples whose modalities begin apart."""

from collections.abc import Sequence

import numpy as np
import pytest

from alignmamba.contracts import Corpus, ModalitySpec, Sample, Task
from alignmamba.data.clocks import LOOKED_AT, share_apart
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


def test_modalities_begin_apart_by_a_share_of_the_whole_sample() -> None:
    assert share_apart(corpus([(0, 0), (5, 5)])) == 0
    assert share_apart(corpus([(0, 0.5), (0.5, 0)])) == 1
    assert share_apart(corpus([(0, 0.5), (7, 7), (7, 7), (0, 0.05)])) == 0.25
    assert share_apart(corpus([(0, 0.5)], lasts=10.0)) == 0, "a twentieth of the sample"
    assert share_apart(corpus([(1e9, 1e9 + 2)], lasts=10.0)) == 1, "the zero of the clock is of no account"


def test_samples_without_two_clocks_begin_together() -> None:
    assert share_apart(corpus([(None, 3.0), (None, None), (0, 3.0), (0, 3.0)])) == 0.5
    assert share_apart(corpus([(0, 3.0)]), timeless=("text",)) == 0
    assert share_apart(corpus([])) == 0


def test_a_large_corpus_is_judged_by_some_of_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = corpus([(0, 1.0 * (row >= 500)) for row in range(1000)])
    read: list[int] = []
    plain = MemorySplit.__getitem__

    def noted(split: MemorySplit, row: int) -> Sample:
        read.append(row)
        return plain(split, row)

    monkeypatch.setattr(MemorySplit, "__getitem__", noted)
    assert share_apart(whole) == 0.5
    assert len(read) == len(set(read)) == LOOKED_AT
