"""Unimodal losses: what the vector of each modality says alone, and what is learned by it."""

from typing import Any

import pytest
import torch
from small_models import KINDS, LENGTHS, MODALITIES, TASK, batch, labelled, model

from alignmamba.contracts import Standardisation, TargetScale, Task, WeighsModalities
from alignmamba.models.encoded import Head
from alignmamba.training.objective import UNIMODAL, Parcel, Supervised
from tolerances import MODEL

NETWORKS = ("alignmamba", "multi-stream-mamba", "crossmodal-transformer", "late-fusion")


@pytest.mark.parametrize("task", KINDS.values(), ids=KINDS)
def test_a_head_says_of_all_the_mean_of_what_it_says_of_each(task: Task) -> None:
    torch.manual_seed(0)
    made = Head(6, task, dropout=0.0)
    embedding = torch.randn(5, 6)
    each = made.of_each(embedding, 3)
    if task.kind == "ordinal":  # the mean is that of the scores, which thresholds divide
        assert made.order is not None
        parts = zip(embedding.split(2, 1), made.weight.split(2, 1), strict=True)
        expected = torch.stack([made.order(3 * part @ weight.T) for part, weight in parts], 1)
        torch.testing.assert_close(each, expected, **MODEL)
    else:
        torch.testing.assert_close(each.mean(1), made(embedding), **MODEL)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("task", KINDS.values(), ids=KINDS)
def test_the_loss_is_the_weighted_mean_over_the_modalities_that_a_sample_has(name: str, task: Task) -> None:
    built, whole = model(name, task=task, unimodal_weight=0.4), labelled(task)
    built.standardise(Standardisation(features={}, targets=TargetScale(mean=2.0, deviation=3.0)))
    objective = Supervised(built, task, target_scale=TargetScale(mean=2.0, deviation=3.0)).eval()
    found = objective(Parcel(whole))[1][UNIMODAL]
    alone = built(whole).unimodal
    assert alone is not None
    assert whole.targets is not None
    each = {name: objective.task_loss(said, whole.targets) for name, said in alone.predictions.items()}
    for row in range(7):
        there = torch.stack([each[name][row] for name in each if LENGTHS[name][row]])
        torch.testing.assert_close(found[row], 0.4 * there.mean(), **MODEL)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_number_is_said_in_units_of_the_label(name: str) -> None:
    built = model(name, task=KINDS["regression"], unimodal_weight=0.4)
    said = built(batch()).unimodal
    built.standardise(Standardisation(features={}, targets=TargetScale(mean=5.0, deviation=3.0)))
    again = built(batch()).unimodal
    assert said is not None
    assert again is not None
    for modality, before in said.predictions.items():
        torch.testing.assert_close(again.predictions[modality], 5 + 3 * before.double(), **MODEL)


def test_of_a_single_modality_late_fusion_says_what_it_says_alone() -> None:
    out = model("late-fusion", unimodal_weight=0.4)(batch())
    assert out.unimodal is not None
    for row, modality in ((3, "video"), (5, "text"), (6, "audio")):
        own = out.unimodal.predictions[modality][row]
        torch.testing.assert_close(out.prediction[row], own, **MODEL)


def test_the_vector_of_each_modality_is_judged_by_its_own_part_of_the_head() -> None:
    """The embedding holds what is pooled of each modality's own positions, the first anchor's last."""
    built, whole = model("alignmamba", unimodal_weight=1.0), batch()
    out = built(whole)
    assert out.unimodal is not None
    parts = zip(out.embedding[:, :48].split(16, 1), built.head.weight.split(16, 1), strict=True)
    for (vector, weight), modality in zip(parts, ("video", "audio", "text"), strict=True):
        expected = 3 * vector @ weight.T + built.head.bias
        torch.testing.assert_close(out.unimodal.predictions[modality], expected, **MODEL)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_weight_or_company_there_is_none(name: str) -> None:
    assert model(name, unimodal_weight=0.0)(batch()).unimodal is None
    if name != "crossmodal-transformer":
        one: dict[str, Any] = {"modalities": MODALITIES[:1], "unimodal_weight": 0.5}
        whole = batch({"audio": [3, 2]}, modalities=MODALITIES[:1])
        assert model(name, **one)(whole).unimodal is None


def test_a_sequence_pooled_as_one_has_no_unimodal_losses() -> None:
    assert model("alignmamba")(batch()).unimodal is not None
    assert model("alignmamba", pool_by="sequence")(batch()).unimodal is None


def test_the_weight_of_the_task_is_that_of_unimodal_losses_too() -> None:
    objective = Supervised(model("alignmamba", unimodal_weight=0.4), TASK).eval()
    whole = objective(Parcel(labelled(TASK)))[1][UNIMODAL]
    objective.task_weight = 0.5
    torch.testing.assert_close(objective(Parcel(labelled(TASK)))[1][UNIMODAL], 0.5 * whole)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("task", KINDS.values(), ids=KINDS)
def test_weights_of_modalities_are_those_of_their_vectors_in_the_head(name: str, task: Task) -> None:
    built, whole = model(name, task=task, modality_weights="validation"), batch()
    built.standardise(Standardisation(features={}, targets=TargetScale(mean=2.0, deviation=3.0)))
    assert isinstance(built, WeighsModalities)
    before, vectors = built(whole), built.weighed
    assert [*vectors.values()].count("text") == len(vectors) / 3
    assert set(vectors.values()) == {"text", "audio", "video"}
    present = torch.stack([whole.having(name) for name in vectors.values()], 1)
    equal, weights = torch.ones(len(vectors)), torch.tensor([0.5, 2.0, 0.0, 1.5, 0.0, 3.0])[: len(vectors)]
    alike = built.weighed_prediction(before.embedding, present, equal)
    torch.testing.assert_close(alike, before.prediction, **MODEL)
    weighed = built.weighed_prediction(before.embedding, present, weights)
    changed = before.embedding.unflatten(1, (len(vectors), -1)) * weights[:, None]
    expected = built.weighed_prediction(changed.flatten(1), present, equal)
    torch.testing.assert_close(weighed, expected, **MODEL)
    built.weigh(weights)
    torch.testing.assert_close(built(whole).prediction, weighed, **MODEL)
    torch.testing.assert_close(built(whole).embedding, before.embedding, **MODEL)


@pytest.mark.parametrize("name", NETWORKS)
def test_vectors_are_weighed_in_the_precision_of_the_head(name: str) -> None:
    built, whole = model(name, modality_weights="validation").to(torch.bfloat16), batch()
    assert isinstance(built, WeighsModalities)
    embedding = built(whole.in_precision(torch.bfloat16)).embedding.float()
    count = len(built.weighed)
    said = built.weighed_prediction(embedding, torch.ones(7, count, dtype=torch.bool), torch.ones(count))
    assert said.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "options", [{}, {"modality_weights": "validation", "pool_by": "sequence"}], ids=["equal", "one vector"]
)
def test_a_network_without_vectors_to_weigh_says_so(options: dict[str, Any]) -> None:
    built = model("alignmamba", **{"modality_weights": "equal", **options})
    assert isinstance(built, WeighsModalities)
    assert built.weighed == {}
