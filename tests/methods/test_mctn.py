"""MCTN: the anchor alone is read, targets teach where they are there, and padding counts for nothing."""

from dataclasses import replace

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network, prepared

from alignmamba.contracts import Batch
from alignmamba.errors import ConfigError
from alignmamba.methods.mctn import CYCLIC_TRANSLATION, MCTN, Reader, Writer
from alignmamba.training.objective import Parcel
from tolerances import MODEL

TASK = TASKS["regression"]
TERMS = {"cycle", "translation.audio", "translation.video"}


def changed(batch: Batch, name: str) -> Batch:
    s = batch.modalities[name]
    return replace(batch, modalities={**batch.modalities, name: s.with_tensors(features=s.features * -2 + 1)})


def lacking(batch: Batch, name: str) -> torch.Tensor:
    return ~batch.modalities[name].mask.any(1)


def complete() -> Batch:
    """Samples that have every modality."""
    batch = batch_of(TASK)
    return batch.select(
        [row for row in range(len(batch)) if all(bool(s.mask[row].any()) for s in batch.modalities.values())]
    )


@pytest.mark.parametrize("kind", TASKS)
def test_nothing_but_the_anchor_changes_a_prediction(kind: str) -> None:
    built = network(CYCLIC_TRANSLATION, TASKS[kind]).eval()
    batch = batch_of(TASKS[kind])
    expected = built(batch).prediction
    for name in ("audio", "video"):
        assert torch.equal(built(changed(batch, name)).prediction, expected)
    anchored = batch.select((~lacking(batch, "text")).nonzero().flatten().tolist())
    assert torch.equal(
        built(anchored.without("audio").without("video")).prediction, built(anchored).prediction
    )
    assert not torch.equal(built(changed(batch, "text")).prediction, expected)


def test_without_its_anchor_a_sample_is_predicted_from_the_token_of_absence() -> None:
    built = network(CYCLIC_TRANSLATION, TASK).eval()
    left = complete().without("text")
    predicted = built(left).prediction
    assert predicted.isfinite().all()
    assert torch.equal(predicted, predicted[:1].expand(len(left)))
    with torch.no_grad():
        built.get_parameter("absent_tokens.text").add_(1)
    assert not torch.equal(built(left).prediction, predicted)


def test_weights_of_zero_leave_the_loss_of_the_task() -> None:
    built = network(CYCLIC_TRANSLATION, TASK, translation=0.0, cycle=0.0).train()
    _, losses = CYCLIC_TRANSLATION.objective(built, TASK)(Parcel(batch_of(TASK)))
    assert set(losses) == TERMS | {"task"}
    assert torch.equal(torch.stack(list(losses.values())).sum(0), losses["task"])


def test_targets_teach_in_training_alone() -> None:
    objective = prepared(CYCLIC_TRANSLATION, TASK).train()
    batch = complete()
    first, second = (objective(Parcel(each))[1] for each in (batch, changed(batch, "video")))
    for name in ("task", "cycle", "translation.audio"):
        assert torch.equal(first[name], second[name])
    assert (first["translation.video"] != second["translation.video"]).all()
    assert set(objective.eval()(Parcel(batch))[1]) == {"task"}


def test_a_sample_lacks_the_terms_of_what_it_lacks() -> None:
    built = network(CYCLIC_TRANSLATION, TASK).train()
    batch = batch_of(TASK, count=20)
    assert all(lacking(batch, spec.name).any() for spec in SPECS)
    losses = built(batch).losses
    gone = {name: lacking(batch, name) | lacking(batch, "text") for name in ("audio", "video")}
    for name, term in (("audio", "translation.audio"), ("video", "translation.video"), ("video", "cycle")):
        assert torch.equal(losses[term] == 0, gone[name]), term
    alone = built(
        batch.without("audio").without("video").select((~lacking(batch, "text")).nonzero().flatten().tolist())
    )
    assert not any(value.any() for value in alone.losses.values())
    # weights that nothing teaches have gradients all the same
    sum(value.sum() for value in alone.losses.values()).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in built.get_submodule("writers").parameters()
    )


def test_padding_and_neighbours_change_nothing() -> None:
    built = network(CYCLIC_TRANSLATION, TASK).train()
    batch = batch_of(TASK)
    longer = replace(
        batch, modalities={name: s.padded(s.mask.shape[1] + 3) for name, s in batch.modalities.items()}
    )
    expected = built(batch).losses
    torch.testing.assert_close(built(longer).prediction, built(batch).prediction, **MODEL)
    for name, value in built(longer).losses.items():
        torch.testing.assert_close(value, expected[name], **MODEL)
    for name, value in built(batch.select([5, 2])).losses.items():
        torch.testing.assert_close(value, expected[name][[5, 2]], **MODEL)


def test_one_encoder_and_decoder_translate_there_and_back() -> None:
    built = network(CYCLIC_TRANSLATION, TASK)
    assert isinstance(built, MCTN)
    assert list(built.readers) == list(built.writers) == ["video", "audio"]
    losses = built.train()(complete()).losses
    losses["cycle"].sum().backward()
    touched = {
        name.split(".")[0] + "." + name.split(".")[1]
        for name, p in built.named_parameters()
        if p.grad is not None and p.grad.any()
    }
    assert touched == {
        "enter.text",
        "enter.video",
        "leave.text",
        "leave.video",
        "readers.video",
        "writers.video",
    }
    built.zero_grad()
    built(complete()).losses["translation.audio"].sum().backward()
    # the second level reads the code of the first
    for name in ("readers.video", "readers.audio", "writers.audio"):
        assert any(p.grad is not None and p.grad.any() for p in built.get_submodule(name).parameters()), name


def test_the_order_of_targets_can_be_chosen() -> None:
    built = network(CYCLIC_TRANSLATION, TASK, targets=("audio", "video"))
    assert isinstance(built, MCTN)
    assert set(built.enter) == {"text", "audio"}
    for targets in (("audio",), ("audio", "text"), ("audio", "audio", "video")):
        with pytest.raises(ConfigError, match="targets: expected each of"):
            network(CYCLIC_TRANSLATION, TASK, targets=targets)
    with pytest.raises(ConfigError, match=r"MCTN needs at least 2, found \['text'\]"):
        network(CYCLIC_TRANSLATION, TASK, modalities=SPECS[:1])


def test_it_takes_two_modalities_of_any_name() -> None:
    built = network(CYCLIC_TRANSLATION, TASK, modalities=SPECS[1:]).train()
    batch = complete()
    output = built(replace(batch, modalities={spec.name: batch.modalities[spec.name] for spec in SPECS[1:]}))
    assert set(output.losses) == {"cycle", "translation.video"}
    assert all((value > 0).all() for value in output.losses.values())


def test_a_writer_reads_what_it_wrote_and_can_leave_the_unit_interval() -> None:
    torch.manual_seed(0)
    reader, writer = Reader(4, 6), Writer(6, 3, 0.0)
    mask = torch.ones(2, 5, dtype=torch.bool)
    code = reader(torch.randn(2, 5, 4), mask)
    written = writer(code, mask)
    assert written.shape == (2, 5, 3)
    torch.nn.init.zeros_(writer.write.weight)
    torch.nn.init.constant_(writer.write.bias, 7.0)
    assert torch.equal(writer(code, mask), torch.full((2, 5, 3), 7.0))
    torch.nn.init.normal_(writer.write.weight)
    listening = writer(code, mask)
    with torch.no_grad():
        writer.cell.weight_ih[:, 6:].zero_()
    assert not torch.allclose(writer(code, mask), listening)
