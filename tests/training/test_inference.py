from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from toy import CLASSIFICATION, REGRESSION, ScalingToyModel, ToyModel, ToySource

from alignmamba.contracts import Batch, TargetScale
from alignmamba.errors import DataError
from alignmamba.training.inference import predict


class Shuffled(ToySource):
    """The last sample comes first."""

    def _global_batches(self) -> list[list[int]]:
        return [batch[::-1] for batch in super()._global_batches()[::-1]]


def test_the_order_is_the_split_s() -> None:
    model = ToyModel()
    plain = predict(model, ToySource("test"), task=REGRESSION)
    shuffled = predict(model, Shuffled("test", batch_size=3), task=REGRESSION)
    assert plain.ids == shuffled.ids == tuple(f"test-{row}" for row in range(26))
    np.testing.assert_allclose(plain.prediction, shuffled.prediction, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(plain.targets, shuffled.targets)
    assert plain.losses == pytest.approx(shuffled.losses)
    assert plain.losses["total"] == pytest.approx(plain.losses["task"] + plain.losses["size"])
    assert plain.losses["task"] == pytest.approx(np.abs(plain.prediction - plain.targets).mean())


def test_repeated_samples_count_once() -> None:
    model = ToyModel()
    once = predict(model, ToySource("test", samples=6), task=REGRESSION)
    twice = predict(model, ToySource("test", samples=6, repeat=[0, 0, 5]), task=REGRESSION)
    assert twice.ids == once.ids
    np.testing.assert_allclose(twice.prediction, once.prediction, rtol=1e-5)
    assert twice.losses == pytest.approx(once.losses)


def test_classes_get_probabilities() -> None:
    found = predict(ToyModel(CLASSIFICATION), ToySource("test", task=CLASSIFICATION), task=CLASSIFICATION)
    assert found.prediction.shape == (26, 3)
    np.testing.assert_allclose(found.prediction.sum(axis=1), 1.0, rtol=1e-5)
    assert found.targets is not None
    assert found.targets.dtype.kind == "i"


def test_targets_are_not_needed() -> None:
    found = predict(ToyModel(), ToySource("test", targets=False), task=REGRESSION)
    assert found.targets is None
    assert found.losses == {}
    assert found.prediction.shape == (26,)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_comes_back(training: bool) -> None:
    model = ToyModel(dropout=0.9).train(training)
    first = predict(model, ToySource("test"), task=REGRESSION)
    second = predict(model, ToySource("test"), task=REGRESSION)
    np.testing.assert_array_equal(first.prediction, second.prediction)
    assert model.training is training
    assert model.dropout.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_engine_decides_the_precision() -> None:
    model = ToyModel()
    full = predict(model, ToySource("test"), task=REGRESSION, device="cpu")
    half = predict(
        model,
        ToySource("test"),
        task=REGRESSION,
        fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed"),
    )
    assert not np.array_equal(full.prediction, half.prediction)
    np.testing.assert_allclose(full.prediction, half.prediction, atol=0.05)
    assert half.prediction.dtype == np.float64


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["test-0", "test-1", "more"], r"each of 3 samples, found 2; missing: \['more'\]"),
        (["test-0"], r"not of the split: \['test-1'\]"),
    ],
)
def test_a_source_that_is_not_its_split_is_refused(ids: list[str], message: str) -> None:
    source: Any = ToySource("test", samples=2)
    source.ids = tuple(ids)
    source.batch = lambda rows: Batch(
        modalities=ToySource("test").batch(rows).modalities,
        ids=tuple(f"test-{row}" for row in rows),
        targets=torch.zeros(len(rows)),
    )
    with pytest.raises(DataError, match=message):
        predict(ToyModel(), source, task=REGRESSION)


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(DataError, match="no sample"):
        predict(ToyModel(), ToySource("test", samples=0), task=REGRESSION)


def test_the_loss_is_in_the_units_of_training() -> None:
    model = ScalingToyModel()
    model.scale_targets(TargetScale(mean=0.5, deviation=4.0))
    own = predict(model, ToySource("test"), task=REGRESSION)
    assert own.targets is not None
    error = np.abs(own.prediction - own.targets).mean()
    assert own.losses["task"] == pytest.approx(error / 4)
    assert predict(model, ToySource("test"), task=REGRESSION, target_scale=TargetScale(deviation=2.0)).losses[
        "task"
    ] == pytest.approx(error / 2)
