"""MISA: its losses vanish where they should, look at no absent modality, and network and losses are
MMSA's.
"""

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from every_method import SPECS, TASKS, batch_of, network
from mmsa_parity import arguments, bert_text, check_heads, copy_weights, mmsa_class, tiny_bert

from alignmamba.contracts import Batch, ModalitySpec
from alignmamba.errors import ConfigError
from alignmamba.methods.misa import INVARIANT_AND_SPECIFIC, MISA, Disentangled, MISAConfig
from alignmamba.training.objective import Parcel
from tolerances import FLOAT32, MODEL

TASK = TASKS["regression"]
BATCH_TERMS = ("difference", "similarity")


def objective(**options: object) -> Disentangled:
    made = network(INVARIANT_AND_SPECIFIC, TASK, **options)
    assert isinstance(made, MISA)
    return Disentangled(made, TASK).eval()


def test_the_order_of_a_batch_changes_no_loss() -> None:
    learner, batch = objective(), batch_of(TASK)
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    straight, turned = learner(Parcel(batch))[1], learner(Parcel(batch.select(order)))[1]
    assert set(straight) == {"task", "difference", "similarity", "reconstruction"}
    for name, values in straight.items():
        torch.testing.assert_close(turned[name], values[order], **MODEL)


def test_equal_modalities_have_no_dissimilarity_and_batches_of_one_no_batch_terms() -> None:
    learner, batch = objective(), batch_of(TASK)
    output = learner.model(batch)
    same = output.extras["shared"][:, :1].expand_as(output.extras["shared"])
    terms = learner.losses(
        batch,
        replace(
            output, extras={**output.extras, "shared": same, "present": torch.ones(8, 3, dtype=torch.bool)}
        ),
    )
    torch.testing.assert_close(terms["similarity"], torch.zeros(()), **FLOAT32)
    assert terms["difference"] > 0
    single = learner(Parcel(batch.select([0])))[1]
    assert all(float(single[name].detach()) == 0 for name in BATCH_TERMS)
    assert float(single["reconstruction"].detach()) > 0


def test_parts_of_a_missing_modality_are_in_no_loss_and_reach_no_other() -> None:
    learner, whole = objective(), batch_of(TASK)
    output = learner.model(whole)
    present = output.extras["present"]
    assert not present.all()
    other = {
        name: torch.where(
            present.unsqueeze(2), output.extras[name], torch.full_like(output.extras[name], 7.0)
        )
        for name in ("own", "shared", "projected", "rebuilt")
    }
    other["projected"] = torch.where(present.unsqueeze(2), other["projected"], 3.0)
    terms = learner.losses(whole, output)
    for name, value in learner.losses(whole, replace(output, extras={**output.extras, **other})).items():
        torch.testing.assert_close(value, terms[name], **FLOAT32)


def test_an_adversary_learns_to_name_modalities_and_is_hidden_from() -> None:
    learner, batch = objective(alike="adversary", reversal=0.5), batch_of(TASK)
    assert learner.discriminator is not None
    shared = learner.model(batch).extras["shared"].detach().requires_grad_()
    present = torch.ones(shared.shape[:2], dtype=torch.bool)
    straight, _ = torch.autograd.grad(
        learner._unlike(shared, present).sum(), [shared, learner.discriminator[0].weight]
    )
    said = learner.discriminator(shared)
    naming = torch.nn.functional.cross_entropy(
        said.flatten(0, 1), torch.arange(3).repeat(len(shared)), reduction="none"
    )
    (plain,) = torch.autograd.grad(naming.view(-1, 3).mean(1).sum(), [shared])
    torch.testing.assert_close(straight, -0.5 * plain, **FLOAT32)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="d_model: expected a multiple of heads"):
        MISA.for_regression({"text": 3, "audio": 2}, d_model=9)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")  # over there
def test_it_is_the_network_of_mmsa(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    theirs = mmsa_class("singleTask", "MISA")(
        arguments(
            use_bert=True,
            feature_dims=[768, 5, 20],
            hidden_size=128,
            dropout=0.2,
            rnncell="lstm",
            use_finetune=True,
            transformers="bert",
            pretrained=tiny_bert(tmp_path),
            use_cmd_sim=True,
            reverse_grad_weight=0.8,
        )
    )
    # Over there parts stand in the order text, video, audio.
    modalities = tuple(
        ModalitySpec(name=spec.name, dim=dim) for spec, dim in zip(SPECS, (768, 5, 20), strict=True)
    )
    order = ("text", "video", "audio")
    ours = MISA(MISAConfig(modalities=modalities, task=TASK, anchor="pool", anchor_order=order))
    names = {
        "factors.shared.": "shared.shared_1.",
        "fusion.": "transformer_encoder.layers.0.",
        "joined.": "fusion.fusion_layer_1.",
    }
    names["head."] = "fusion.fusion_layer_3."
    for name in order:
        letter = name[0]
        names[f"factors.project.{name}.0."] = f"project_{letter}.project_{letter}."
        names[f"factors.project.{name}.2."] = f"project_{letter}.project_{letter}_layer_norm."
        names[f"factors.own.{name}."] = f"private_{letter}.private_{letter}_{3 if letter == 'a' else 1}."
        names[f"rebuild.{name}."] = f"recon_{letter}.recon_{letter}_1."
        names[f"streams.{name}.first.cells."] = f"{letter}rnn1."
        names[f"streams.{name}.norm."] = f"{letter}layer_norm."
        names[f"streams.{name}.second.cells."] = f"{letter}rnn2."
    # Neither reaches an output: a discriminator of no loss, and the norm of a text that BERT has read.
    alone = ("bertmodel.", "sp_discriminator.", "tlayer_norm.")
    pair = copy_weights(ours, theirs, names, theirs_alone=alone)
    torch.manual_seed(0)
    lengths = [6, 3, 5]  # over there all modalities are read at the length of the text
    text, audio, video = bert_text(3, 6, lengths=lengths), torch.randn(3, 6, 5), torch.randn(3, 6, 20)
    expected = theirs(text, audio, video)["M"]
    said = theirs.bertmodel(text).detach()
    batch = Batch.of(
        {"text": said, "audio": audio, "video": video},
        lengths=dict.fromkeys(order, lengths),
        targets=[0.0, 1.0, 2.0],
    )
    output = ours(batch)
    heads = {"M": (output.prediction, expected)}
    for key, prefix, suffix in (
        ("own", "private_", ""),
        ("shared", "shared_", ""),
        ("projected", "", "_orig"),
        ("rebuilt", "", "_recon"),
    ):
        for number, name in enumerate(order):
            heads[f"{key} {name}"] = (
                output.extras[key][:, number],
                getattr(theirs, f"utt_{prefix}{name[0]}{suffix}"),
            )
    check_heads(pair, heads, record_property, parameters=1_138_033 - (128 * 4 + 4) - 2 * 1536)
    # The losses, whose weights are one here.
    trainer = importlib.import_module("MMSA.trains.singleTask.MISA")
    learner = Disentangled(ours, TASK)
    terms = learner.losses(batch, output)
    part = {
        (kind, name): getattr(theirs, f"utt_{kind}_{name[0]}")
        for kind in ("private", "shared")
        for name in order
    }
    pairs = [("text", "video"), ("text", "audio"), ("audio", "video")]
    cmd, diff, mse = trainer.CMD(), trainer.DiffLoss(), trainer.MSE()
    alike = sum(cmd(part["shared", one], part["shared", other], 5) for one, other in pairs) / 3
    apart = sum(diff(part["private", one], part["private", other]) for one, other in pairs)
    apart = apart + sum(diff(part["private", name], part["shared", name]) for name in order)
    rebuilt = (
        sum(
            mse(getattr(theirs, f"utt_{name[0]}_recon"), getattr(theirs, f"utt_{name[0]}_orig"))
            for name in order
        )
        / 3
    )
    torch.testing.assert_close(terms["similarity"], alike, **FLOAT32)
    torch.testing.assert_close(terms["difference"], 0.3 * apart, **FLOAT32)
    torch.testing.assert_close(terms["reconstruction"].mean(), rebuilt, **FLOAT32)
