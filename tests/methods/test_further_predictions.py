"""Further targets: every method predicts them from its embedding and learns them, or says why it does not."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from every_method import SPECS, TASKS, accepts, network, split

from alignmamba.contracts import Batch, Target, Task
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS
from alignmamba.training.objective import Parcel

FURTHER = (
    Target(name="own", kind="regression", labels=("own",), modality="audio"),
    Target(name="mood", kind="classification", labels=("mood",), classes=("down", "up"), weight=0.5),
    Target(name="parts", kind="multilabel", labels=("a", "b"), classes=("a", "b")),
    Target(name="grade", kind="ordinal", labels=("grade",), classes=("0", "1", "2")),
)


def with_further(task: Task) -> Task:
    return task.model_copy(update={"further": FURTHER})


def source_of(task: Task) -> Loader:
    """One batch of twelve samples, of which some lack labels or the audio."""
    samples = []
    for row, sample in enumerate(split("train", 12, task)):
        labels: dict[str, Any] = {"own": row / 6 - 1, "mood": "up", "a": 1, "b": 0, "grade": row % 3}
        if row % 3 == 0:
            labels = {"mood": "down", "b": 1}
        samples.append(replace(sample, labels=labels))
    whole = MemorySplit(role="train", samples=tuple(samples), modalities=SPECS)
    return Loader(whole, SPECS, config=LoaderConfig(batch_size=12), task=task, shuffle=False, seed=0)


def batch_of(task: Task) -> Batch:
    return next(iter(source_of(task)))


def task_of(name: str) -> Task:
    return with_further(next(task for task in TASKS.values() if accepts(METHODS[name], task)))


@pytest.mark.parametrize("name", METHODS)
def test_it_predicts_and_learns_them_or_says_why_not(name: str) -> None:
    task = task_of(name)
    method = METHODS[name]
    if reason := method.network.config_class.one_target:
        with pytest.raises(ConfigError, match=rf"targets: found own, mood, parts, grade.*{reason}"):
            network(method, task)
        return
    model, batch = network(method, task), batch_of(task)
    objective = method.objective(model, task).train()
    objective.prepare(source_of(task))
    objective.begin_epoch(objective.stages[-1], 0)
    predicted, losses = objective(Parcel(batch))
    shapes = {key: tuple(value.shape) for key, value in predicted.further.items()}
    assert shapes == {"own": (12,), "mood": (12, 2), "parts": (12, 2), "grade": (12, 3)}
    terms = {key.partition(".")[2]: value for key, value in losses.items() if key.startswith("task.")}
    assert set(terms) == set(shapes)
    sum(value.sum() for value in terms.values()).backward()
    heads = dict(model.further_heads.named_parameters())
    assert heads
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in heads.values())
    assert any(
        weight.grad is not None and bool(weight.grad.any())
        for key, weight in model.named_parameters()
        if not key.startswith("further_heads")
    )
    # What learns them: an optimiser of every stage that trains their heads minimises their terms.
    trained = [
        each
        for stage in objective.stages
        for each in stage.optimisers
        if each.rate("model.further_heads.heads.mood.weight")
    ]
    assert trained
    assert all(each.wants("task.mood") for each in trained)


@pytest.mark.parametrize("name", ["alignmamba", "late-fusion", "mult", "dmd"])
def test_a_target_of_a_modality_is_predicted_from_it_alone(name: str) -> None:
    task = task_of(name)
    model, batch = network(METHODS[name], task).eval(), batch_of(task)
    with torch.no_grad():
        whole = model(batch)
        text = batch.modalities["text"]
        louder = replace(
            batch, modalities={**batch.modalities, "text": text.with_tensors(features=text.features * 5 + 1)}
        )
        changed = model(louder)
    here = batch.modalities["audio"].mask.any(1)
    torch.testing.assert_close(changed.further["own"][here], whole.further["own"][here])
    assert not torch.allclose(changed.further["mood"], whole.further["mood"])


def test_samples_without_a_target_or_its_modality_are_of_no_account() -> None:
    task = task_of("alignmamba")
    model, batch = network(METHODS["alignmamba"], task), batch_of(task)
    objective = METHODS["alignmamba"].objective(model, task).eval()
    _, losses = objective(Parcel(batch))
    lacking = batch.further["own"].isnan() | ~batch.modalities["audio"].mask.any(1)
    assert bool(lacking.any())
    assert not bool(lacking.all())
    assert bool((losses["task.own"][lacking] == 0).all())
    assert bool((losses["task.own"][~lacking] > 0).all())
    unknown = batch.further["grade"] < 0
    assert bool((losses["task.grade"][unknown] == 0).all())
    assert bool((losses["task.grade"][~unknown] > 0).all())
    # of two labels one is known: the mean is over that one
    row = int(batch.further["parts"][:, 0].isnan().nonzero()[0])
    said = model.eval()(batch).further["parts"][row, 1]
    expected = torch.nn.functional.softplus(-said)
    torch.testing.assert_close(losses["task.parts"][row], expected)
    crossed = torch.nn.functional.cross_entropy(
        model(batch).further["mood"], batch.further["mood"], reduction="none"
    )
    torch.testing.assert_close(losses["task.mood"], 0.5 * crossed)


def test_padding_and_company_change_no_further_prediction() -> None:
    task = task_of("alignmamba")
    model, batch = network(METHODS["alignmamba"], task).eval(), batch_of(task)
    with torch.no_grad():
        together = model(batch).further
        for row in range(len(batch)):
            alone = model(batch.select([row])).further
            if not bool(batch.modalities["audio"].mask[row].any()):
                alone = {name: value for name, value in alone.items() if name != "own"}
            for name, value in alone.items():
                torch.testing.assert_close(value[0], together[name][row], rtol=1e-4, atol=1e-5)


def test_a_task_without_further_targets_has_the_weights_that_it_had() -> None:
    model = network(METHODS["alignmamba"], TASKS["regression"])
    assert not any("further" in key for key in model.state_dict())
    bare = network(METHODS["alignmamba"], TASKS["regression"]).state_dict()
    with_heads = network(METHODS["alignmamba"], with_further(TASKS["regression"])).state_dict()
    for key, value in bare.items():
        torch.testing.assert_close(with_heads[key], value, rtol=0, atol=0)
