"""ICCN: outer products that learn to correlate, a head that leaves them as they are, and who counts."""

from dataclasses import replace

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, learn, network, prepared, sources

from alignmamba.errors import ConfigError
from alignmamba.methods.iccn import INTERACTIONS, Interaction
from alignmamba.training.objective import Parcel, Stage

TASK = TASKS["regression"]


def test_the_product_with_an_anchor_of_zeros_says_nothing_of_the_other() -> None:
    torch.manual_seed(0)
    interaction = Interaction(6, 5, channels=2, out=3)
    other = torch.randn(4, 5)
    said = interaction(torch.zeros(4, 6), other)
    assert torch.equal(said, said[:1].expand(4, 3))
    one = torch.randn(4, 6)
    assert not torch.allclose(interaction(one, other)[0], interaction(one, other)[1])
    # What is read is the product: a factor may stand on either side.
    torch.testing.assert_close(interaction(2 * one, other), interaction(one, 2 * other))


def test_the_first_stage_learns_without_labels_to_correlate() -> None:
    objective = prepared(INTERACTIONS, TASK)
    objective.begin_epoch(Stage(name="correlation"), 0)
    batch = batch_of(TASK, count=32)
    unlabelled = replace(batch, targets=torch.full((32,), torch.nan))
    optimiser = torch.optim.Adam(objective.parameters(), lr=1e-2)
    course = []
    for _ in range(20):
        _, losses = objective(Parcel(unlabelled))
        assert set(losses) == {"correlation"}
        course.append(float(losses["correlation"][0].detach()))
        optimiser.zero_grad()
        losses["correlation"].mean().backward()
        optimiser.step()
    assert course[-1] < course[0] - 0.1
    assert min(course) >= -2  # one pair of two components


def test_stages_share_the_weights_out() -> None:
    objective = prepared(INTERACTIONS, TASK)
    learn(objective, *sources(INTERACTIONS, TASK, missing=False))
    first, second = objective.stages
    for name, _ in objective.named_parameters():
        of_head = name.startswith(("model.head.", "model.read_out."))
        assert first.optimisers[0].rate(name) == (0 if of_head else 1)
        assert second.optimisers[0].rate(name) == (1 if of_head else 0)


def test_both_at_once() -> None:
    objective = INTERACTIONS.objective(network(INTERACTIONS, TASK, joint=0.5), TASK)
    assert len(objective.stages) == 1
    objective.begin_epoch(objective.stages[0], 0)
    batch = batch_of(TASK)
    _, losses = objective(Parcel(batch))
    assert set(losses) == {"task", "correlation"}
    weighted = INTERACTIONS.objective(network(INTERACTIONS, TASK, joint=1.0), TASK)
    weighted.begin_epoch(weighted.stages[0], 0)
    torch.testing.assert_close(2 * losses["correlation"], weighted(Parcel(batch))[1]["correlation"])


def test_samples_without_the_anchor_or_a_side_do_not_count() -> None:
    objective = prepared(INTERACTIONS, TASK).eval()
    objective.begin_epoch(Stage(name="correlation"), 0)
    batch = batch_of(TASK, count=32)
    output = objective.model(batch)
    has = {name: s.mask.any(1) for name, s in batch.modalities.items()}
    whole = has["text"] & has["audio"] & has["video"]
    assert not whole.all()
    spoiled = dict(output.extras)
    for name in ("audio", "video"):
        spoiled[f"interaction.{name}"] = torch.where(whole.unsqueeze(1), spoiled[f"interaction.{name}"], 1e3)
    expected = objective.losses(batch, output)["correlation"]
    assert torch.equal(objective.losses(batch, replace(output, extras=spoiled))["correlation"], expected)


def test_too_few_modalities_or_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"modalities: ICCN needs at least 3, found \['text', 'audio'\]"):
        network(INTERACTIONS, TASK, modalities=SPECS[:2])
    objective = INTERACTIONS.objective(network(INTERACTIONS, TASK, components=8), TASK)
    with pytest.raises(
        ConfigError,
        match=(
            r"loader.batch_size: found at most .* text and another modality, expected more than"
            " options.components=8"
        ),
    ):
        objective.prepare(sources(INTERACTIONS, TASK, missing=False)[0])
