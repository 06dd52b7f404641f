"""Branches beside the fusion: each reads one modality, learns by its own loss, and has its say."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import KINDS, LENGTHS, MODALITIES, TASK, batch, labelled, model

from alignmamba.contracts import Batch, Output, Standardisation, Target, TargetScale, Task
from alignmamba.models.alignmamba import AlignMamba
from alignmamba.training.objective import BRANCHES, Parcel, Supervised
from alignmamba.training.objective import TASK as OF_TASK
from tolerances import MODEL

NAMES = ("text", "audio", "video")


def with_branches(task: Task = TASK, **options: Any) -> AlignMamba:
    built = model("alignmamba", task=task, unimodal_branches=True, **options)
    assert isinstance(built, AlignMamba)
    return built


def votes(output: Output) -> dict[str, torch.Tensor]:
    assert output.branches is not None
    return dict(output.branches.alone.predictions)


def objective_of(built: AlignMamba, task: Task) -> Supervised:
    scale = TargetScale(mean=2.0, deviation=3.0)
    built.standardise(Standardisation(features={}, targets=scale))
    return Supervised(built, task, target_scale=scale)


def disturbed(whole: Batch, name: str) -> Batch:
    """The same with other content in one modality."""
    changed = whole.modalities[name]
    other = changed.features.flip(0) if name == "text" else -2 * changed.features
    return replace(whole, modalities={**whole.modalities, name: replace(changed, features=other)})


@pytest.mark.parametrize("task", KINDS.values(), ids=KINDS)
def test_the_prediction_is_the_mean_of_the_fusion_and_of_the_mean_branch_that_is_there(task: Task) -> None:
    built = with_branches(task)
    objective_of(built, task)
    out = built(batch())
    assert out.branches is not None
    for row in range(7):
        there = torch.stack([votes(out)[name][row] for name in NAMES if LENGTHS[name][row]])
        expected = (out.branches.fused[row] + there.mean(0)) / 2
        torch.testing.assert_close(out.prediction[row], expected, **MODEL)


@pytest.mark.parametrize("other", NAMES)
def test_a_branch_sees_its_own_modality_alone(other: str) -> None:
    built, whole = with_branches(), batch()
    before, after = votes(built(whole)), votes(built(disturbed(whole, other)))
    for name in NAMES:
        assert torch.equal(before[name], after[name]) == (name != other)


@pytest.mark.parametrize("task", KINDS.values(), ids=KINDS)
def test_in_training_the_fusion_and_each_branch_learn_by_losses_of_their_own(task: Task) -> None:
    built, whole = with_branches(task, dropout=0.0, encoder={"dropout": 0.0}), labelled(task)
    objective = objective_of(built, task).train()
    losses, out = objective(Parcel(whole))[1], built(whole)
    assert whole.targets is not None
    assert out.branches is not None
    torch.testing.assert_close(losses[OF_TASK], objective.task_loss(out.branches.fused, whole.targets))
    each = {name: objective.task_loss(said, whole.targets) for name, said in votes(out).items()}
    for row in range(7):
        there = torch.stack([each[name][row] for name in NAMES if LENGTHS[name][row]])
        torch.testing.assert_close(losses[BRANCHES][row], there.mean(), **MODEL)
    for loss, own in ((losses[OF_TASK], False), (losses[BRANCHES], True)):
        built.zero_grad()
        loss.sum().backward(retain_graph=True)
        for name, weight in built.named_parameters():
            if weight.grad is not None and bool(weight.grad.any()):
                assert name.startswith("branches.") == own, name


def test_outside_training_the_loss_of_the_task_is_that_of_the_prediction() -> None:
    built, whole = with_branches(), labelled(TASK)
    objective = Supervised(built, TASK).eval()
    assert whole.targets is not None
    expected = objective.task_loss(built(whole).prediction, whole.targets)
    torch.testing.assert_close(objective(Parcel(whole))[1][OF_TASK], expected)


def test_the_concordance_of_a_step_is_that_of_the_fusion() -> None:
    task = KINDS["regression"]
    built, whole = with_branches(task, dropout=0.0, encoder={"dropout": 0.0}), labelled(task)
    objective = Supervised(built, task, regression_loss="ccc").train()
    out = built(whole)
    assert out.branches is not None
    torch.testing.assert_close(objective.pairs_of(whole)[OF_TASK].predicted, out.branches.fused.double())


def test_further_targets_read_the_branches_and_do_not_change_them() -> None:
    mood = Target(name="mood", kind="classification", labels=("mood",), classes=("low", "high"))
    built, whole = with_branches(TASK.model_copy(update={"further": (mood,)})), batch()
    out = built(whole)
    out.further["mood"].square().sum().backward()
    assert built.branches is not None
    assert all(weight.grad is None for weight in built.branches.parameters())
    with torch.no_grad():
        for weight in built.branches.stacks.parameters():
            weight.mul_(1.5)
    assert not torch.allclose(built(whole).further["mood"], out.further["mood"])


def test_an_encoder_is_a_branch_s_own() -> None:
    built, whole = with_branches(), batch()
    before = built(whole)
    with torch.no_grad():
        for weight in built.encoders.parameters():
            weight.mul_(0.5)
    after = built(whole)
    assert not torch.allclose(before.prediction, after.prediction, atol=1e-4)
    for name in NAMES:
        assert torch.equal(votes(before)[name], votes(after)[name])


@pytest.mark.parametrize(
    "options", [{"modalities": MODALITIES[:1]}, {"pool_by": "sequence"}], ids=["one modality", "one vector"]
)
def test_without_several_vectors_there_are_none(options: dict[str, Any]) -> None:
    built = with_branches(**options)
    lengths = {"audio": [3, 2]} if "modalities" in options else LENGTHS
    whole = batch(lengths, modalities=options.get("modalities", MODALITIES[:3]))
    assert built.branches is None
    assert built(whole).branches is None


@pytest.mark.parametrize("preset", ["0.1", "paper"])
def test_earlier_presets_have_none(preset: str) -> None:
    made = AlignMamba.for_task({"audio": 3, "video": 4}, TASK, preset=preset)
    assert made.branches is None
