"""DCCA and DCCAE: views that learn to correlate, and a head that leaves them as they are."""

from dataclasses import replace

import pytest
import torch
from every_method import SPECS, TASKS, learn, network, prepared, sources, split

from alignmamba.contracts import Batch
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.errors import ConfigError
from alignmamba.methods.dcca import CORRELATED_AUTOENCODERS, CORRELATED_VIEWS, Correlated
from alignmamba.methods.method import Method
from alignmamba.training.objective import Parcel, Stage

TASK = TASKS["regression"]
BOTH = pytest.mark.parametrize("method", [CORRELATED_VIEWS, CORRELATED_AUTOENCODERS], ids=["dcca", "dccae"])


def batch() -> Batch:
    loader = Loader(
        split("train", 32, TASK), SPECS, config=LoaderConfig(batch_size=32), task=TASK, shuffle=False, seed=0
    )
    return next(iter(loader))


@BOTH
def test_the_first_stage_learns_without_labels_to_correlate(method: Method) -> None:
    objective = prepared(method, TASK)
    objective.begin_epoch(Stage(name="correlation"), 0)
    optimiser = torch.optim.Adam(
        [weight for name, weight in objective.named_parameters() if "head" not in name], lr=1e-2
    )
    whole = batch()
    assert whole.targets is not None
    unlabelled = replace(whole, targets=torch.full_like(whole.targets, torch.nan))
    course = []
    for _ in range(30):
        _, losses = objective(Parcel(unlabelled))
        course.append(float(losses["correlation"][0].detach()))
        total = sum(value.mean() for value in losses.values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert course[-1] < course[0] - 0.5
    assert min(course) >= -6.0  # three pairs of two components
    assert set(losses) == {"correlation"} | (
        {"reconstruction"} if method is CORRELATED_AUTOENCODERS else set()
    )


@BOTH
def test_the_second_stage_leaves_the_views_as_they_are(method: Method) -> None:
    objective = prepared(method, TASK)
    objective.begin_epoch(Stage(name="head"), 0)
    objective.train()
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    _, losses = objective(Parcel(batch()))
    assert set(losses) == {"task"}
    assert all(torch.equal(value, before[name]) for name, value in objective.model.state_dict().items())
    first, second = objective.stages
    assert first.optimisers[0].rate("model.head.weight") == 0
    assert second.optimisers[0].rate("model.views.text.0.weight") == 0


def test_the_head_stage_starts_from_the_best_views_and_moves_none() -> None:
    objective = prepared(CORRELATED_VIEWS, TASK)
    result = learn(objective, *sources(CORRELATED_VIEWS, TASK, missing=False))
    assert [record["stage"] for record in result.history] == [1, 1, 2, 2]
    again = prepared(CORRELATED_VIEWS, TASK)
    learn(again, *sources(CORRELATED_VIEWS, TASK, missing=False))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in objective.state_dict().items())


def test_samples_without_a_modality_are_no_part_of_its_correlations() -> None:
    objective = prepared(CORRELATED_VIEWS, TASK).eval()
    whole = batch()
    output = objective.model(whole)
    absent = ~output.extras["present"][:, 0]
    assert absent.any()
    spoiled = dict(output.extras)
    spoiled["view.text"] = torch.where(absent.unsqueeze(1), 1e3, spoiled["view.text"])
    expected = objective.losses(whole, output)["correlation"]
    assert torch.equal(objective.losses(whole, replace(output, extras=spoiled))["correlation"], expected)


def test_decoders_learn_from_what_is_there() -> None:
    objective = prepared(CORRELATED_AUTOENCODERS, TASK).eval()
    assert isinstance(objective, Correlated)
    assert not any(name.startswith("decoders") for name in objective.model.state_dict())
    whole = batch()
    output = objective.model(whole)
    spoiled = dict(output.extras)
    spoiled["view.text"] = torch.where(output.extras["present"][:, :1], spoiled["view.text"], 1e3)
    assert torch.equal(objective._errors(replace(output, extras=spoiled)), objective._errors(output))


def test_too_few_samples_or_modalities_are_refused() -> None:
    objective = CORRELATED_VIEWS.objective(network(CORRELATED_VIEWS, TASK, components=8), TASK)
    with pytest.raises(
        ConfigError,
        match=r"loader.batch_size: found at most [678] samples .*, expected more than options.components=8",
    ):
        objective.prepare(sources(CORRELATED_VIEWS, TASK, missing=False)[0])
    with pytest.raises(
        ConfigError, match=r"modalities: canonical correlation needs at least 2, found \['text'\]"
    ):
        network(CORRELATED_VIEWS, TASK, modalities=SPECS[:1])
    with pytest.raises(ConfigError, match="absent: expected 'zeros'"):
        network(CORRELATED_VIEWS, TASK, absent="learned")
