"""MTMD: slow copies follow as they should, teachers are not taught, and nothing is asked of a student that
agrees.
"""

import math

import pytest
import torch
from every_method import TASKS, network, prepared, sources

from alignmamba.contracts import Task
from alignmamba.methods.mtmd import MOMENTUM_DISTILLATION, MTMD, MomentumDistillation, divergence
from alignmamba.training.objective import Parcel
from tolerances import EXACT, FLOAT32

TASK = TASKS["regression"]


def made(**options: float) -> MTMD:
    model = network(MOMENTUM_DISTILLATION, TASK, **options)
    assert isinstance(model, MTMD)
    return model


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_slow_copies_follow_in_closed_form(momentum: float) -> None:
    model = made(momentum=momentum)
    first = {name: value.clone() for name, value in model.slow.state_dict().items()}
    for name, value in model.streams.state_dict().items():
        torch.testing.assert_close(first[name], value, **EXACT)
    with torch.no_grad():
        for value in model.streams.parameters():
            value += 1
    for _ in range(3):
        model.follow()
    for name, value in model.slow.state_dict().items():
        torch.testing.assert_close(value, first[name] + 1 - momentum**3, **FLOAT32)


def test_the_slow_copy_is_in_the_prediction_and_gets_no_gradient() -> None:
    objective = prepared(MOMENTUM_DISTILLATION, TASK).eval()
    assert isinstance(objective, MomentumDistillation)
    batch = next(iter(sources(MOMENTUM_DISTILLATION, TASK, missing=False)[0]))
    output = objective.model(batch)
    output.prediction.sum().backward()
    assert not any(
        value.requires_grad or value.grad is not None for value in objective.model.slow.parameters()
    )
    assert objective.model.shares.grad is not None
    assert objective.model.shares.grad.all()
    with torch.no_grad():
        for value in objective.model.slow.parameters():
            value.zero_()
    assert not torch.equal(objective.model(batch).prediction, output.prediction)


def test_only_students_learn_from_teachers() -> None:
    objective = prepared(MOMENTUM_DISTILLATION, TASK).train()
    assert isinstance(objective, MomentumDistillation)
    batch = next(iter(sources(MOMENTUM_DISTILLATION, TASK, missing=False)[0])).without("video")
    _, losses = objective(Parcel(batch))
    losses["distilled"].sum().backward()
    learned = {
        name for name, value in objective.named_parameters() if value.grad is not None and value.grad.any()
    }
    assert any(name.startswith("model.streams.audio.") for name in learned)
    for teacher in (
        "model.fusion.",
        "model.head.",
        "model.streams.text.",
        "fused_classes.",
        "subtasks.text.",
        "numbers.text.",
    ):
        assert not any(name.startswith(teacher) for name in learned), teacher
    assert not any("video" in name for name in learned), "a missing modality learns nothing"


def test_nothing_is_asked_of_a_student_that_agrees() -> None:
    torch.manual_seed(0)
    scores = torch.randn(4, 7)
    torch.testing.assert_close(divergence(scores, scores + 3, 2.0), torch.zeros(4), **FLOAT32)
    by_hand = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    taught = torch.tensor([[2 * math.log(3), 0.0]])
    torch.testing.assert_close(divergence(torch.zeros(1, 2), taught, 2.0), torch.tensor([by_hand]), **FLOAT32)


def test_a_number_becomes_the_class_of_its_nearest_whole_one_on_the_scale_of_sentiment() -> None:
    objective = prepared(MOMENTUM_DISTILLATION, TASK)
    assert isinstance(objective, MomentumDistillation)
    numbers = torch.tensor([-3, -2.6, -0.4, 0.4, 0.6, 3, 5], dtype=torch.float64)
    assert objective.binned(numbers).tolist() == [0, 0, 3, 3, 4, 6, 6]
    free = MomentumDistillation(
        network(MOMENTUM_DISTILLATION, Task(kind="regression")), Task(kind="regression")
    )  # type: ignore[arg-type]
    assert free.binned(numbers).tolist() == [0, 0, 3, 3, 4, 6, 6]  # of mean 0 and deviation 1
