"""MMIN: cascades do what they say, the teacher stays, and nothing withheld is an input."""

from dataclasses import replace

import torch
from every_method import TASKS, batch_of, prepared, sources

from alignmamba.methods.mmin import IMAGINATION_NETWORK, MMIN, Cascade, Imagination
from alignmamba.training.objective import Parcel, Stage
from tolerances import FLOAT32

TASK = TASKS["regression"]


def begun() -> Imagination:
    objective = prepared(IMAGINATION_NETWORK, TASK)
    assert isinstance(objective, Imagination)
    objective.begin_epoch(Stage(name="imagine"), 0)
    return objective.train()


def test_blocks_of_zeros_leave_their_input_and_say_the_transition_of_zero() -> None:
    torch.manual_seed(0)
    cascade = Cascade(6, (4, 2), 3)
    for parameter in (*cascade.down.parameters(), *cascade.up.parameters()):
        torch.nn.init.zeros_(parameter)
    x = torch.randn(5, 6)
    said, latents, inputs = cascade(x)
    torch.testing.assert_close(said, cascade.transition(torch.zeros(5, 6)), **FLOAT32)
    assert torch.equal(inputs, x.unsqueeze(1).expand(5, 3, 6))
    assert latents.shape == (5, 6)


def test_a_block_reads_its_input_and_what_the_block_before_it_said() -> None:
    torch.manual_seed(0)
    cascade = Cascade(6, (4, 2), 2)
    x = torch.randn(5, 6)
    _, _, inputs = cascade(x)
    torch.testing.assert_close(inputs[:, 1], x + cascade.up[0](cascade.down[0](x)), **FLOAT32)


def test_the_teacher_is_what_the_first_stage_learned_and_gets_no_gradient() -> None:
    objective = prepared(IMAGINATION_NETWORK, TASK)
    assert isinstance(objective, Imagination)
    with torch.no_grad():
        objective.model.whole[1].weight.fill_(0.25)
    objective.begin_epoch(Stage(name="imagine"), 0)
    before = {name: value.clone() for name, value in objective.model.state_dict().items()}
    with torch.no_grad():
        objective.model.whole[1].weight.fill_(0.5)
    objective.begin_epoch(Stage(name="imagine"), 0)  # resumed
    assert all(torch.equal(value, before[name]) for name, value in objective.teacher.state_dict().items())
    objective.train()
    _, losses = objective(Parcel(next(iter(sources(IMAGINATION_NETWORK, TASK, missing=True)[0]))))
    sum(losses.values()).sum().backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    assert objective.model.ahead.transition[0].weight.grad.any()


def test_only_samples_from_which_something_was_withheld_are_imagined() -> None:
    objective = begun()
    batch = next(iter(sources(IMAGINATION_NETWORK, TASK, missing=True)[0]))
    _, losses = objective(Parcel(batch))
    hidden = torch.stack([s.mask.any(1) for s in batch.withheld.values()], 1).any(1)
    assert hidden.any()
    assert not hidden.all()
    assert (losses["imagination"][hidden] > 0).all()
    assert not losses["imagination"][~hidden].any()


def test_what_is_withheld_is_a_target_and_no_input() -> None:
    objective = begun().eval()
    batch = next(iter(sources(IMAGINATION_NETWORK, TASK, missing=True)[0]))
    changed = {name: s.with_tensors(features=s.features + 1) for name, s in batch.withheld.items()}
    other = replace(batch, withheld=changed)
    assert torch.equal(objective.model(batch).prediction, objective.model(other).prediction)
    for part in objective.modules():
        part.training = not isinstance(part, torch.nn.Dropout)
    first, second = (objective(Parcel(each))[1] for each in (batch, other))
    assert torch.equal(first["task"], second["task"])
    assert not torch.equal(first["imagination"], second["imagination"])


def test_a_run_that_withholds_nothing_has_something_withheld_in_training_alone() -> None:
    objective = begun()
    batch = batch_of(TASK)
    assert objective(Parcel(batch))[1]["imagination"].any()
    objective.eval()
    assert set(objective(Parcel(batch))[1]) == {"task"}


def test_a_missing_modality_has_no_vector() -> None:
    objective = begun().eval()
    network = objective.model
    assert isinstance(network, MMIN)
    output = network(batch_of(TASK).without("audio"))
    assert not output.extras["vectors"][:, network.config.anchors.index("audio")].any()
