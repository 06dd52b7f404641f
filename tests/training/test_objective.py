import math
from typing import Any

import pytest
import torch
from torch import nn
from toy import CLASSIFICATION, REGRESSION, ToyModel, ToySource

from alignmamba.contracts import Batch, Output, TargetScale
from alignmamba.errors import ConfigError, ShapeError
from alignmamba.training.objective import Parcel, Supervised

BATCH = ToySource("train").batch([0, 1, 3])


class Fixed(nn.Module):
    """Returns what it was given."""

    def __init__(self, prediction: torch.Tensor, **losses: torch.Tensor) -> None:
        super().__init__()
        self.output = Output(prediction=prediction, losses=losses, embedding=torch.zeros(3, 1))

    def forward(self, batch: Batch) -> Output:
        del batch
        return self.output


def labelled(targets: list[float], dtype: torch.dtype = torch.float32) -> Parcel:
    return Parcel(
        Batch(modalities=BATCH.modalities, ids=BATCH.ids, targets=torch.tensor(targets, dtype=dtype))
    )


@pytest.mark.parametrize(
    ("loss", "expected"), [("l1", [0.5, 0.0, 3.0]), ("mse", [0.25, 0.0, 9.0]), ("huber", [0.125, 0.0, 2.5])]
)
def test_regression_losses_are_per_sample(loss: Any, expected: list[float]) -> None:
    prediction = torch.tensor([0.5, 1.0, -2.0])
    objective = Supervised(Fixed(prediction, extra=torch.ones(3)), REGRESSION, regression_loss=loss)
    found, losses = objective(labelled([0.0, 1.0, 1.0]))
    assert torch.equal(found.values, prediction)
    assert losses["task"].tolist() == expected
    assert losses["extra"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("loss", "expected"), [("l1", [0.5, 0.0, 3.0]), ("mse", [0.25, 0.0, 9.0]), ("huber", [0.125, 0.0, 2.5])]
)
@pytest.mark.parametrize("mean", [0.0, 1e9])
def test_regression_losses_are_in_deviations_of_the_targets(
    loss: Any, expected: list[float], mean: float
) -> None:
    prediction = mean + torch.tensor([2.0, 4.0, -8.0], dtype=torch.float64)
    targets = [mean, mean + 4.0, mean + 4.0]
    objective = Supervised(
        Fixed(prediction),
        REGRESSION,
        regression_loss=loss,
        target_scale=TargetScale(mean=mean, deviation=4.0),
    )
    losses = objective(labelled(targets, torch.float64))[1]
    assert losses["task"].tolist() == expected
    assert losses["task"].dtype == torch.float32


def test_cross_entropy_and_its_smoothing() -> None:
    """Logits ln 2, 0, 0 are probabilities 1/2, 1/4, 1/4; smoothing 0.3 puts 0.8 on the class and 0.1 on each
    other one.
    """
    logits = torch.tensor([[math.log(2.0), 0.0, 0.0]]).repeat(3, 1)
    objective = Supervised(Fixed(logits), CLASSIFICATION, label_smoothing=0.3)
    parcel = labelled([0, 1, 2], torch.int64)
    smooth = objective.train()(parcel)[1]["task"]
    plain = objective.eval()(parcel)[1]["task"]
    two, four = math.log(2.0), math.log(4.0)
    assert plain.tolist() == pytest.approx([two, four, four])
    assert smooth.tolist() == pytest.approx(
        [0.8 * two + 0.2 * four, 0.1 * two + 0.9 * four, 0.1 * two + 0.9 * four]
    )


def test_the_task_loss_is_float32_whatever_the_model_computed_in() -> None:
    prediction = torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16)
    _, losses = Supervised(Fixed(prediction, extra=torch.ones(3, dtype=torch.bfloat16)), REGRESSION)(
        labelled([1.001, 2.0, 3.0])
    )
    assert losses["task"].dtype == losses["extra"].dtype == torch.float32
    assert float(losses["task"][0]) == pytest.approx(0.001, rel=1e-3)  # bfloat16 would say 0


def test_without_targets_there_is_no_loss() -> None:
    _, losses = Supervised(ToyModel(), REGRESSION)(Parcel(ToySource("test", targets=False).batch([0, 1])))
    assert not losses


def test_a_term_of_the_whole_batch_counts_once_per_sample() -> None:
    _, losses = Supervised(Fixed(torch.zeros(3), mmd=torch.tensor(0.5)), REGRESSION)(
        labelled([0.0, 1.0, 2.0])
    )
    assert losses["mmd"].tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("model", "task", "error", "message"),
    [
        (
            Fixed(torch.zeros(3, 1)),
            REGRESSION,
            ShapeError,
            r"Fixed: prediction has shape \(3, 1\), expected \(3,\)",
        ),
        (Fixed(torch.zeros(3)), CLASSIFICATION, ShapeError, r"expected \(3, 3\)"),
        (
            Fixed(torch.zeros(3), mmd=torch.zeros(1)),
            REGRESSION,
            ShapeError,
            r"losses\['mmd'\] has shape \(1,\), expected one value per sample",
        ),
        (
            Fixed(torch.zeros(3), task=torch.zeros(3)),
            REGRESSION,
            ConfigError,
            r"losses\['task'\] is reserved for training",
        ),
    ],
)
def test_a_wrong_output_is_refused(model: nn.Module, task: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Supervised(model, task)(
            labelled([0.0, 1.0, 2.0], torch.float32 if task is REGRESSION else torch.int64)
        )
