from typing import Any

import numpy as np
import pytest
import torch
from corpora import SOUND, WORDS, memory_split

from alignmamba.contracts import ModalitySpec, Sample, TargetScale, Task
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.standardise import fit_standardisation
from alignmamba.errors import DataError

CLASSES = Task(kind="classification", classes=("no", "yes"))
NUMBERS = Task(kind="regression")
FEW_ROUNDINGS: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-7}


def split_of(*arrays: np.ndarray, role: str = "train") -> MemorySplit:
    spec = ModalitySpec(name="sound", dim=arrays[0].shape[1])
    samples = tuple(Sample(id=f"s{row}", features={"sound": array}) for row, array in enumerate(arrays))
    return MemorySplit(role=role, samples=samples, modalities=(spec,))  # type: ignore[arg-type]


def test_mean_and_deviation_are_those_of_all_tokens_together() -> None:
    split = memory_split([(5, 2), (0, 3), (1, 0), (30, 1)])
    tokens = np.concatenate(
        [sample.features["sound"] for sample in split if "sound" in sample.features]
    ).astype(np.float64)
    fitted = fit_standardisation(split, (SOUND, WORDS), CLASSES).features
    assert list(fitted) == ["sound"]
    mean, deviation = fitted["sound"]
    assert mean.dtype == deviation.dtype == torch.float32
    assert mean.shape == deviation.shape == (3,)
    np.testing.assert_allclose(mean.numpy(), tokens.mean(axis=0), **FEW_ROUNDINGS)
    np.testing.assert_allclose(deviation.numpy(), tokens.std(axis=0), **FEW_ROUNDINGS)


def test_nothing_cancels_where_the_mean_is_large() -> None:
    random = np.random.default_rng(0)
    arrays = [1e4 + random.integers(-8, 9, size=(length, 2)) / 8 for length in (3, 50, 7)]
    arrays = [array.astype(np.float32) for array in arrays]
    _, deviation = fit_standardisation(
        split_of(*arrays), [SOUND.model_copy(update={"dim": 2})], CLASSES
    ).features["sound"]
    np.testing.assert_allclose(
        deviation.numpy(), np.concatenate(arrays).astype(np.float64).std(axis=0), **FEW_ROUNDINGS
    )


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e7])
def test_a_constant_channel_has_deviation_one(constant: float) -> None:
    varying = np.arange(6, dtype=np.float32)
    arrays = [
        np.stack([np.full(6, constant, dtype=np.float32), varying], axis=1),
        np.array([[constant, 9.0]], dtype=np.float32),
    ]
    mean, deviation = fit_standardisation(
        split_of(*arrays), [SOUND.model_copy(update={"dim": 2})], CLASSES
    ).features["sound"]
    assert mean[0] == np.float32(constant)
    assert deviation[0] == 1.0
    assert deviation[1] > 1.5


def test_a_small_scale_is_not_taken_for_a_constant() -> None:
    array = np.array([[-1e-12], [1e-12]], dtype=np.float32)
    _, deviation = fit_standardisation(
        split_of(array), [SOUND.model_copy(update={"dim": 1})], CLASSES
    ).features["sound"]
    assert deviation[0] == np.float32(1e-12)


def test_a_deviation_that_single_precision_does_not_hold_is_one() -> None:
    array = np.array([[0.0], [0.0], [1e-45]], dtype=np.float32)
    _, deviation = fit_standardisation(
        split_of(array), [SOUND.model_copy(update={"dim": 1})], CLASSES
    ).features["sound"]
    assert deviation[0] == 1.0


@pytest.mark.parametrize("role", ["valid", "test"])
def test_another_split_is_refused(role: str) -> None:
    with pytest.raises(DataError, match=f"fitted on the train split, found split '{role}'"):
        fit_standardisation(split_of(np.zeros((2, 3)), role=role), [SOUND], CLASSES)


def test_values_that_are_not_finite_are_named() -> None:
    with pytest.raises(DataError, match="sample 's1', modality 'sound': expected finite numbers, found nan"):
        fit_standardisation(split_of(np.zeros((1, 3)), np.array([[0, np.nan, 0]])), [SOUND], CLASSES)


def test_a_modality_that_the_split_lacks_is_left_as_it_is() -> None:
    mean, deviation = fit_standardisation(memory_split([(0, 2)]), [SOUND], CLASSES).features["sound"]
    assert mean.tolist() == [0.0, 0.0, 0.0]
    assert deviation.tolist() == [1.0, 1.0, 1.0]


def test_another_width_is_named() -> None:
    with pytest.raises(
        DataError, match=r"'s0', modality 'sound': expected shape \(time, 3\), found \(2, 5\)"
    ):
        fit_standardisation(split_of(np.zeros((2, 5))), [SOUND], CLASSES)


def labelled(*targets: float | int | None) -> MemorySplit:
    samples = tuple(
        Sample(id=f"s{row}", features={"sound": np.zeros((2, 3))}, target=target)
        for row, target in enumerate(targets)
    )
    return MemorySplit(role="train", samples=samples, modalities=(SOUND,))


def test_targets_of_a_regression_have_a_scale() -> None:
    assert fit_standardisation(labelled(1.0, 2.0, 6.0), [SOUND], NUMBERS).targets == TargetScale(
        mean=3.0, deviation=pytest.approx(14**0.5 / 3**0.5)
    )


def test_classes_have_none() -> None:
    assert fit_standardisation(labelled(0, 1, 1), [SOUND], CLASSES).targets == TargetScale(
        mean=0.0, deviation=1.0
    )


def test_without_targets_there_is_none() -> None:
    assert fit_standardisation(labelled(None, None), [SOUND], NUMBERS).targets == TargetScale(
        mean=0.0, deviation=1.0
    )
