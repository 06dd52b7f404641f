"""Batches: what they refuse, and what selecting, splitting and joining them keeps."""

from dataclasses import replace

import pytest
import torch

from alignmamba.contracts import Batch, Sequences, Task
from alignmamba.errors import DataError, ShapeError


def sequences(*lengths: int, time: int | None = None) -> Sequences:
    longest = max(lengths) if time is None else time
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return Sequences(features=torch.arange(float(mask.numel())).view(*mask.shape, 1), mask=mask)


def batch(*lengths: int) -> Batch:
    ids = tuple(f"s{row}" for row in range(len(lengths)))
    return Batch(modalities={"audio": sequences(*lengths)}, ids=ids, targets=torch.arange(float(len(lengths))))


@pytest.mark.parametrize("row", [[False, True, True], [True, False, True]])
def test_padding_stands_on_the_right(row: list[bool]) -> None:
    with pytest.raises(ShapeError, match="valid token after an invalid one in sample 1"):
        Sequences(features=torch.zeros(2, 3, 1), mask=torch.tensor([[True, True, False], row]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": torch.zeros(2, 3)}, "features: expected"),
        ({"mask": torch.ones(2, 3)}, "mask: expected bool"),
        ({"mask": torch.ones(2, 4, dtype=torch.bool)}, "mask: expected bool of shape"),
        ({"times": torch.zeros(2, 4)}, "times: expected shape"),
    ],
)
def test_sequences_that_do_not_fit(given: dict[str, torch.Tensor], message: str) -> None:
    whole = {"features": torch.zeros(2, 3, 1), "mask": torch.ones(2, 3, dtype=torch.bool)}
    with pytest.raises(ShapeError, match=message):
        Sequences(**{**whole, **given})


def test_a_batch_agrees_on_its_size() -> None:
    with pytest.raises(ShapeError, match="batch has 3 ids"):
        Batch(modalities={"audio": sequences(1, 2)}, ids=("a", "b", "c"))
    with pytest.raises(ShapeError, match="targets: expected shape"):
        Batch(modalities={}, ids=("a",), targets=torch.zeros(2))


def test_select_split_and_concatenate() -> None:
    whole = batch(3, 1, 2)
    assert whole.select([2, 0]).ids == ("s2", "s0")
    parts = whole.split(2)
    assert [len(part) for part in parts] == [2, 1]
    again = Batch.concatenate(parts)
    assert again.ids == whole.ids
    assert again.targets is not None
    assert again.targets.tolist() == [0.0, 1.0, 2.0]
    assert torch.equal(again.modalities["audio"].mask, whole.modalities["audio"].mask)
    assert torch.equal(again.modalities["audio"].features, whole.modalities["audio"].features)


def test_concatenate_pads_to_the_longest() -> None:
    joined = Batch.concatenate([batch(1), batch(4)])
    assert joined.modalities["audio"].lengths.tolist() == [1, 4]


def test_concatenate_keeps_the_times_that_are_known() -> None:
    timed = batch(2)
    known = replace(timed, modalities={"audio": replace(timed.modalities["audio"], times=torch.tensor([[0.0, 0.5]]))})
    times = Batch.concatenate([known, batch(2)]).modalities["audio"].times
    assert times is not None
    assert times[0].tolist() == [0.0, 0.5]
    assert bool(times[1].isnan().all())
    assert Batch.concatenate([timed, batch(2)]).modalities["audio"].times is None


def test_without_hides_a_modality_from_every_sample() -> None:
    assert batch(3, 1).without("audio").modalities["audio"].lengths.tolist() == [0, 0]
    with pytest.raises(DataError, match="modality 'video' is not in this batch"):
        batch(3).without("video")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "classification", "classes": ("a",)}, "at least 2"),
        ({"kind": "classification", "classes": ("a", "a")}, "distinct"),
        ({"kind": "regression", "classes": ("a", "b")}, "a regression task has none"),
        ({"kind": "regression", "label_range": (1.0, -1.0)}, "label_range"),
        ({"kind": "regression", "label_range": (0.0, float("inf"))}, "label_range: expected finite ends"),
        ({"kind": "regression", "label_range": (float("nan"), 1.0)}, "label_range: expected finite ends"),
    ],
)
def test_tasks_that_make_no_sense(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task.model_validate(given)
