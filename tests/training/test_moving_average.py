"""The moving average of the weights: its course, its place in validation, and what it leaves alone."""

from pathlib import Path

import pytest
import torch
from test_fitting import QUICK, course, run
from torch import nn

from alignmamba.errors import CheckpointError, DataError
from alignmamba.training import checkpoints
from alignmamba.training.moving_average import AveragedWeights


def test_an_average_follows_its_weight_by_the_formula() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = AveragedWeights(module, 0.5)
    expected = 0.0
    for step in range(12):
        with torch.no_grad():
            module.weight += 1.0
        average.follow()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
    with average.in_place():
        assert module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert module.weight.item() == 12.0


def test_frozen_weights_are_left_alone_and_others_return_after_an_error() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    average = AveragedWeights(module, 0.9)
    before = module.weight.detach().clone()
    with torch.no_grad():
        module.weight += 1.0
    with pytest.raises(DataError, match="on purpose"):
        _validate_and_fail(average, module, before)
    assert torch.equal(module.weight, before + 1)
    assert set(average.state_dict()) == {"steps", "weight"}


def _validate_and_fail(average: AveragedWeights, module: nn.Linear, expected: torch.Tensor) -> None:
    with average.in_place():
        assert torch.equal(module.weight, expected)
        raise DataError("on purpose")


def test_a_state_of_other_weights_is_refused() -> None:
    state = AveragedWeights(nn.Linear(2, 2), 0.9).state_dict()
    with pytest.raises(CheckpointError, match="average: found that of other weights"):
        AveragedWeights(nn.Linear(2, 2, bias=False), 0.9).load_state_dict(state)


def test_training_takes_the_same_course_and_validation_another() -> None:
    plain, _ = run()
    averaged, model = run(QUICK.model_copy(update={"ema_decay": 0.9}))
    for one, other in zip(course(plain), course(averaged), strict=True):
        assert one["train/loss/total"] == other["train/loss/total"]
        assert one["valid/loss/total"] != other["valid/loss/total"]
    nothing, same = run(QUICK.model_copy(update={"ema_decay": 0.0}))
    assert course(nothing) == course(plain)
    assert not torch.equal(model.state_dict()["head.weight"], same.state_dict()["head.weight"])


def test_the_best_weights_are_the_averages_of_their_epoch(tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"ema_decay": 0.9, "epochs": 1})
    _, model = run(config, run_dir=tmp_path)
    last = torch.load(tmp_path / checkpoints.LAST, weights_only=True)
    assert int(last["average"]["steps"]) == 7
    for name, weight in model.named_parameters():
        assert torch.equal(weight, last["average"][f"model.{name}"]), name
        assert not torch.equal(weight, last["model"][f"model.{name}"]), name
