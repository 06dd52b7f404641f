"""FDMER: what its discriminator at chance says, whose gradient turns, and where its losses vanish."""

import math
from dataclasses import replace

import torch
from every_method import TASKS, batch_of, network
from torch import nn

from alignmamba.methods.fdmer import ADVERSARIAL_PARTS, FDMER, AdversarialParts
from alignmamba.training.objective import Parcel
from alignmamba.training.pairs import named
from tolerances import FLOAT32, MODEL

TASK = TASKS["regression"]


def objective(**options: object) -> AdversarialParts:
    made = network(ADVERSARIAL_PARTS, TASK, **options)
    assert isinstance(made, FDMER)
    return AdversarialParts(made, TASK).eval()


def test_a_discriminator_at_chance_costs_two_logarithms() -> None:
    learner = objective(adversary=1.0)
    last = learner.discriminator[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    terms = learner(Parcel(batch_of(TASK)))[1]
    torch.testing.assert_close(terms["adversary"], torch.full((8,), 2 * math.log(3)), **FLOAT32)


def test_the_gradient_turns_in_common_parts_alone() -> None:
    learner, batch = objective(adversary=1.0, reversal=0.4), batch_of(TASK)
    output = learner.model(batch)
    parts = {name: output.extras[name].detach().requires_grad_() for name in ("common", "private")}
    loss = learner.losses(batch, replace(output, extras={**output.extras, **parts}))["adversary"].sum()
    gradients = torch.autograd.grad(loss, list(parts.values()))
    for (name, part), gradient, factor in zip(parts.items(), gradients, (-0.4, 1.0), strict=True):
        said = named(learner.discriminator(part), output.extras["present"])
        (plain,) = torch.autograd.grad(said.sum(), [part])
        assert plain.abs().max() > 0, name
        torch.testing.assert_close(gradient, factor * plain, **FLOAT32)


def test_losses_vanish_where_they_should() -> None:
    learner, batch = objective(), batch_of(TASK)
    output = learner.model(batch)
    same = output.extras["common"][:, :1].expand_as(output.extras["common"])
    terms = learner.losses(batch, replace(output, extras={**output.extras, "common": same}))
    assert not terms["consistency"].any()
    assert learner.losses(batch, output)["consistency"].any()
    still = replace(output, extras={**output.extras, "private": torch.ones_like(same)})
    assert learner.losses(batch, still)["disparity"] == 0
    assert not learner(Parcel(batch.select([0])))[1]["disparity"].any()


def test_order_changes_no_loss_and_a_missing_modality_is_in_none_and_weighs_nothing() -> None:
    learner, batch = objective(), batch_of(TASK)
    output = learner.model(batch)
    present, order = output.extras["present"], [5, 2, 7, 0, 1, 6, 3, 4]
    assert not present.all()
    assert not output.extras["weights"][~present.repeat(1, 2)].any()
    torch.testing.assert_close(output.extras["weights"].sum(1), torch.ones(8), **FLOAT32)
    other = {
        name: torch.where(present.unsqueeze(2), output.extras[name], 7.0) for name in ("common", "private")
    }
    terms, turned = learner.losses(batch, output), learner(Parcel(batch.select(order)))[1]
    for name, value in learner.losses(batch, replace(output, extras={**output.extras, **other})).items():
        torch.testing.assert_close(value, terms[name], **FLOAT32)
        if name != "task":
            torch.testing.assert_close(turned[name], terms[name].expand(8)[order], **MODEL)
