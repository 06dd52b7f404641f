"""Batches: what they refuse, and what selecting, splitting and joining them keeps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from alignmamba.contracts import (
    Batch,
    Corpus,
    ModalitySpec,
    Predictions,
    Sample,
    Sequences,
    TargetScale,
    Task,
)
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.errors import AlignMambaError, DataError, ShapeError


def sequences(*lengths: int, time: int | None = None) -> Sequences:
    longest = max(lengths) if time is None else time
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return Sequences(features=torch.arange(float(mask.numel())).view(*mask.shape, 1), mask=mask)


def batch(*lengths: int) -> Batch:
    ids = tuple(f"s{row}" for row in range(len(lengths)))
    return Batch(
        modalities={"audio": sequences(*lengths)}, ids=ids, targets=torch.arange(float(len(lengths)))
    )


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
    parts = [whole.select([0, 1]), whole.select([2])]
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
    known = replace(
        timed, modalities={"audio": replace(timed.modalities["audio"], times=torch.tensor([[0.0, 0.5]]))}
    )
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
        ({"kind": "regression", "classes": ("a", "b")}, "expected none for a regression task"),
        ({"kind": "regression", "label_range": (1.0, -1.0)}, "label_range"),
        ({"kind": "regression", "label_range": (0.0, float("inf"))}, "label_range: expected finite ends"),
        ({"kind": "regression", "label_range": (float("nan"), 1.0)}, "label_range: expected finite ends"),
    ],
)
def test_tasks_that_make_no_sense(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task.model_validate(given)


# Batch.of

SOUND = [torch.ones(3, 2), None, np.zeros((1, 2)), [[1, 2], [3, 4]]]


def test_a_batch_of_lists_is_padded_on_the_right() -> None:
    made = Batch.of({"audio": SOUND, "text": [np.array([4, 5]), [6], (), [7, 8, 9]]}, targets=[1, 0, 2, 1])
    audio, text = made.modalities["audio"], made.modalities["text"]
    assert audio.lengths.tolist() == [3, 0, 1, 2]
    assert audio.features.dtype == torch.float32
    assert audio.features[3].tolist() == [[1, 2], [3, 4], [0, 0]]
    assert (text.lengths.tolist(), text.features.dtype) == ([2, 1, 0, 3], torch.int64)
    assert text.features[..., 0].tolist() == [[4, 5, 0], [6, 0, 0], [0, 0, 0], [7, 8, 9]]
    assert made.ids == ("sample-000001", "sample-000002", "sample-000003", "sample-000004")
    assert made.targets is not None
    assert (made.targets.dtype, made.targets.tolist()) == (torch.int64, [1, 0, 2, 1])


def test_a_batch_of_padded_arrays_takes_lengths() -> None:
    padded = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    made = Batch.of(
        {"audio": padded, "text": np.ones((2, 5), dtype=np.int32)},
        lengths={"audio": [4, 1]},
        ids=["a", "b"],
        targets=[0.5, 1],
    )
    assert made.modalities["audio"].lengths.tolist() == [4, 1]
    assert made.modalities["audio"].features is padded
    assert made.modalities["text"].lengths.tolist() == [5, 5]
    assert made.ids == ("a", "b")
    assert made.targets is not None
    assert made.targets.dtype == torch.float64


def test_what_padding_holds_is_of_no_account() -> None:
    padded = torch.full((1, 3, 1), torch.nan)
    padded[0, 0] = 1
    assert Batch.of({"audio": padded}, lengths={"audio": [1]}).modalities["audio"].lengths.tolist() == [1]


def test_times_are_given_as_the_modality_is() -> None:
    listed = (
        Batch.of({"audio": SOUND}, times={"audio": [[0, 1, 2], None, None, np.array([0.5, 1.5])]})
        .modalities["audio"]
        .times
    )
    assert listed is not None
    assert listed[3, :2].tolist() == [0.5, 1.5]
    assert bool(listed[1:3].isnan().all())
    padded = (
        Batch.of({"audio": torch.ones(1, 2, 1)}, times={"audio": torch.tensor([[0.0, 2.0]])})
        .modalities["audio"]
        .times
    )
    assert padded is not None
    assert padded.tolist() == [[0.0, 2.0]]


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (torch.ones(2, 3, 4), {}, "modalities: expected a mapping of names to arrays, found Tensor"),
        ({}, {}, "modalities: expected a mapping of names to arrays, found an empty one"),
        ({"a": torch.ones(2, 3)}, {}, r"modality 'a': expected \(batch, time, width\), .* found \(2, 3\)"),
        ({"a": 3}, {}, "modality 'a': expected a list of arrays or one padded array, found int"),
        ({"a": "abc"}, {}, "modality 'a': expected a list of arrays or one padded array, found str"),
        ({"a": [[0.5, 1.5]]}, {},
         r"modality 'a', sample 0: expected \(time, width\), found \(2,\); width 1 is \(2, 1\)"),
        ({"a": [np.ones((2, 2)), np.ones((2, 3))]}, {},
         r"modality 'a', sample 1: expected \(time, 2\) as in sample 0, found \(2, 3\)"),
        ({"a": [[1, 2], np.ones((2, 3))]}, {},
         r"modality 'a', sample 1: expected \(time,\) integers as in sample 0"),
        ({"a": [None, None]}, {}, "modality 'a': found it in no sample; drop it"),
        ({"a": [["x", "y"]]}, {}, "modality 'a', sample 0: expected real numbers, found text"),
        ({"a": [np.array([[None, 1]])]}, {},
         "modality 'a', sample 0: expected real numbers, found dtype object"),
        ({"a": [np.ma.array([[1.0]], mask=[[True]])]}, {}, "modality 'a', sample 0: found masked values"),
        ({"a": [[[1.0], [2.0, 3.0]]]}, {}, "modality 'a', sample 0: expected an array, found list"),
        ({"a": torch.ones(1, 2, 1, dtype=torch.bool)}, {},
         "modality 'a': expected real numbers, found dtype torch.bool"),
        ({"a": [np.ones((2, 1)), np.array([[1.0], [np.nan]])]}, {},
         "modality 'a': found nan in sample 1, position 1, channel 0"),
        ({"a": torch.ones(2, 3, 4)}, {"lengths": {"a": [4, 1]}},
         "lengths: modality 'a': found 4 for sample 0, expected 0 to 3"),
        ({"a": torch.ones(2, 3, 4)}, {"lengths": {"a": [1]}}, "lengths: modality 'a': expected 2 integers"),
        ({"a": torch.ones(2, 3, 4)}, {"lengths": {"a": [1.5, 2]}},
         "lengths: modality 'a': expected 2 integers"),
        ({"a": torch.ones(2, 3, 4)}, {"lengths": [1, 2]},
         "lengths: expected a mapping by modality, found list"),
        ({"a": torch.ones(2, 3, 4)}, {"lengths": {"b": [1, 2]}}, r"lengths: no modality 'b', only \['a'\]"),
        ({"a": SOUND}, {"lengths": {"a": [1, 1, 1, 1]}},
         "lengths: modality 'a' is a list of arrays, which have their own lengths"),
        ({"a": SOUND}, {"times": {"a": [[1], None, None, None]}},
         r"times: modality 'a', sample 0: expected shape \(3,\), found \(1,\)"),
        ({"a": SOUND}, {"times": {"a": [None]}},
         "times: modality 'a': expected a list with one entry for each of 4 samples"),
        ({"a": torch.ones(2, 3, 4)}, {"ids": ["x", "x"]}, "ids: 'x' appears twice"),
        ({"a": torch.ones(2, 3, 4)}, {"ids": [1, 2]}, "ids: expected text, found 1"),
        ({"a": torch.ones(2, 3, 4)}, {"ids": ["x"]}, "batch has 1 ids"),
        ({"a": torch.ones(2, 3, 4)}, {"targets": ["x", "y"]}, "targets: found text, expected numbers"),
        ({"a": torch.ones(2, 3, 4)}, {"targets": [1.0, None]},
         "targets: expected real numbers, found dtype object"),
        ({"a": torch.ones(2, 3, 4)}, {"targets": [1.0, float("nan")]},
         "targets: found nan, expected finite numbers"),
        ({"a": torch.ones(2, 3, 4)}, {"targets": 1.0}, "targets: expected a list of numbers, found float"),
        ({"a": torch.ones(2, 3, 4)}, {"targets": [1.0]}, r"targets: expected shape \(2,\), found \(1,\)"),
        ({"a": torch.ones(2, 3, 4), "b": torch.ones(3, 3, 4)}, {},
         "batch has 2 ids, but these modalities hold another number"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_batch(given: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(AlignMambaError, match=said) as caught:
        Batch.of(given, **options)
    assert "\n" not in str(caught.value)


def test_tensors_in_the_place_of_sequences_are_pointed_to_batch_of() -> None:
    for make in (
        lambda: Batch(modalities={"audio": torch.ones(1, 2, 3)}, ids=("a",)),  # type: ignore[dict-item]
        lambda: Batch(modalities=[sequences(1)], ids=("a",)),  # type: ignore[arg-type]
        lambda: Batch(modalities={"audio": sequences(1)}, ids=("a",), targets=[1.0]),  # type: ignore[arg-type]
        lambda: Sequences(features=[[1.0]], mask=torch.ones(1, 1, dtype=torch.bool)),  # type: ignore[arg-type]
        lambda: Sequences(features=torch.ones(1, 1, 1), mask=[[True]]),  # type: ignore[arg-type]
    ):
        with pytest.raises(ShapeError, match=r"Batch\.of makes a batch of arrays or tensors"):
            make()


def test_rows_of_a_dataset_are_collated() -> None:
    made = Batch.collate([({"audio": np.ones((2, 1)), "text": None}, 1), ({"audio": np.ones((1, 1))}, 0)])
    assert list(made.modalities) == ["audio"]
    assert made.targets is not None
    assert made.targets.tolist() == [1, 0]
    assert Batch.collate([{"audio": np.ones((2, 1))}]).targets is None
    with pytest.raises(DataError, match="row 1: found no target"):
        Batch.collate([({"audio": np.ones((2, 1))}, 1), {"audio": np.ones((2, 1))}])
    with pytest.raises(DataError, match=r"sample: expected \(features, target\) with a mapping"):
        Batch.collate([(np.ones((2, 1)), 1)])  # type: ignore[list-item]


# What is printed


def test_whatever_is_printed_is_short() -> None:
    names = tuple(ModalitySpec(name=f"m{number}", dim=3) for number in range(500))
    split = MemorySplit(
        role="train",
        modalities=names[:1],
        samples=[Sample(id=f"a{n}", features={"m0": np.ones((1, 3))}) for n in range(999)],
    )
    task = Task(kind="classification", classes=tuple(map(str, range(1000))))
    corpus = Corpus(name="reviews", task=task, modalities=names, splits={"train": split}, checksum="0" * 64)
    shown = "m0 (3), m1 (3), m2 (3), m3 (3), m4 (3), m5 (3) and 494 more"
    assert repr(corpus) == f"Corpus('reviews': classification into 1000 classes; {shown}; train 999)"
    assert repr(split) == "MemorySplit(train, 999 samples)"
    assert repr(batch(3, 1)) == "Batch(2 samples: audio (2, 3, 1); with targets)"
    said = Predictions(ids=split.ids, prediction=np.zeros((999, 1000)), targets=None)
    assert repr(said) == "Predictions(999 samples, prediction (999, 1000), no targets)"


@pytest.mark.parametrize(
    ("targets", "mean", "deviation"),
    [
        ([], 0.0, 1.0),
        ([0.1] * 7, 0.1, 1.0),
        ([-1e300, 1e300], 0.0, 1e300),
        ([1e-200, 3e-200], 2e-200, 1e-200),
        ([1e9 - 1, 1e9 + 1], 1e9, 1.0),
        ([200, 800], 500.0, 300.0),
    ],
)
def test_the_scale_of_targets(targets: list[float], mean: float, deviation: float) -> None:
    scale = TargetScale.of(targets)
    assert scale.mean == pytest.approx(mean, rel=1e-15)
    assert scale.deviation == pytest.approx(deviation, rel=1e-15)


@pytest.mark.parametrize("targets", [[0.0, float("nan")], [float("inf")], [-1.7e308, 1.7e308]])
def test_targets_without_a_scale_are_refused(targets: list[float]) -> None:
    with pytest.raises(DataError, match="targets: expected finite numbers of one scale, found"):
        TargetScale.of(targets)


def test_masks_are_checked_where_a_batch_is_made_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("alignmamba.contracts.batch._check_padding", lambda mask: seen.append(len(mask)))
    batch = Batch.of(
        {"audio": [torch.randn(3, 4), torch.randn(2, 4)], "video": torch.randn(2, 5, 3)}, targets=[1.0, 2.0]
    )
    made = len(seen)
    assert made == 2
    batch.to("cpu").in_precision(torch.float64).without("video").select([1]).complete()
    assert len(seen) == made
