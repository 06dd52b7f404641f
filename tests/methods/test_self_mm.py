"""Self-MM: labels stay where features agree, move as worked by hand, and the network is MMSA's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from every_method import SPECS, TASKS, learn, network, prepared, sources
from mmsa_parity import arguments, bert_text, check_heads, copy_weights, mmsa_class, tiny_bert

from alignmamba.contracts import Batch, ModalitySpec, Task
from alignmamba.errors import ConfigError, DataError
from alignmamba.methods.self_mm import SELF_MM, SelfMM, SelfMMConfig, SelfMMLabels
from alignmamba.training.objective import Parcel, Stage
from alignmamba.training.refinement import FUSED, of
from alignmamba.training.sample_memory import Seen
from tolerances import FLOAT32

TASK = TASKS["regression"]


def begun() -> SelfMMLabels:
    """An objective that knows the train split and stands in its second epoch."""
    objective = prepared(SELF_MM, TASK)
    assert isinstance(objective, SelfMMLabels)
    objective.prepare(sources(SELF_MM, TASK, missing=False)[0])
    objective.begin_epoch(Stage(), 1)
    return objective.train()


def seen(objective: SelfMMLabels, features: torch.Tensor) -> Seen:
    """Every sample with these features, whatever the modality."""
    names = (FUSED, *(of(name) for name in objective.heads))
    rows = torch.arange(len(objective.truth))
    return Seen(
        rows, dict.fromkeys(names, features), dict.fromkeys(names, torch.ones_like(rows, dtype=torch.bool))
    )


def with_width(objective: SelfMMLabels, width: int) -> SelfMMLabels:
    """The same with an empty memory of features of another width."""
    objective.remembered = dict.fromkeys((FUSED, *(of(name) for name in objective.heads)), width)
    objective.prepare(sources(SELF_MM, TASK, missing=False)[0])
    return objective


def test_labels_stay_where_all_features_agree() -> None:
    objective = with_width(begun(), 4)
    torch.manual_seed(0)
    samples = seen(objective, torch.randn(len(objective.truth), 4))
    objective.memory.write(samples)
    objective._refine(samples)
    torch.testing.assert_close(
        objective.labels, objective.truth.unsqueeze(1).expand_as(objective.labels), **FLOAT32
    )


def test_a_label_moves_as_worked_by_hand() -> None:
    objective = with_width(begun(), 2)
    # Positive samples at (4, 0), negative ones at (0, 0), in every feature: these are the centres.
    at = torch.where(objective.truth.unsqueeze(1) > 0, torch.tensor([4.0, 0.0]), torch.tensor([0.0, 0.0]))
    objective.memory.write(seen(objective, at))
    objective.truth[0] = objective.labels[0] = 0.5
    # The fused feature is 1 from the positive centre and 3 from the negative one, the text 2 and 2 (leaning 2
    # and 0), the audio 3 and 5.
    one = torch.ones(1, dtype=torch.bool)
    vectors = {
        FUSED: torch.tensor([[3.0, 0.0]]),
        of("text"): torch.tensor([[2.0, 0.0]]),
        of("audio"): torch.tensor([[4.0, 3.0]]),
    }
    # 0.5 from the positive centre, so far leaning that the new label is 3
    vectors[of("video")] = torch.tensor([[4.0, 0.5]])
    objective._refine(Seen(torch.tensor([0]), vectors, {**dict.fromkeys(vectors, one), of("text"): one}))
    text = 0.5 * (0.5 + 0 - 2)
    audio = 0.5 * 0.5 * (2 / 3) / 2 + 0.5 * (0.5 + 2 / 3 - 2)
    expected = [0.5 / 3 + 2 / 3 * new for new in (text, audio, 3.0)]
    torch.testing.assert_close(objective.labels[0], torch.tensor(expected), **FLOAT32)
    # A modality that the sample lacks keeps its label.
    before = objective.labels.clone()
    objective._refine(Seen(torch.tensor([0]), vectors, {**dict.fromkeys(vectors, one), of("text"): ~one}))
    assert torch.equal(objective.labels[0, 0], before[0, 0])
    assert not torch.equal(objective.labels[0, 1], before[0, 1])


def test_the_memory_holds_what_the_last_batches_said_and_centres_are_its_means() -> None:
    objective = begun()
    batch = next(iter(sources(SELF_MM, TASK, missing=False)[0]))
    objective.eval()
    objective.training = True  # no dropout, but a step of training
    output = objective.model(batch)
    objective(Parcel(batch))
    objective.after_step()
    rows = objective.memory.rows(batch.ids, torch.device("cpu"))
    torch.testing.assert_close(
        objective.memory.vectors(FUSED)[rows], output.extras[FUSED].detach(), **FLOAT32
    )
    assert int(objective.memory.known(FUSED).sum()) == len(batch)
    has_audio = batch.modalities["audio"].mask.any(1)
    assert torch.equal(objective.memory.known(of("audio"))[rows], has_audio)
    centres = objective.centres(FUSED, objective.truth)
    assert centres is not None
    positive = batch.targets > 0
    torch.testing.assert_close(centres[0], output.extras[FUSED].detach()[positive].mean(0), **FLOAT32)


def test_heads_of_modalities_learn_nothing_in_the_first_epoch() -> None:
    objective = begun()
    objective.begin_epoch(Stage(), 0)
    _, losses = objective(Parcel(next(iter(sources(SELF_MM, TASK, missing=False)[0]))))
    assert not losses["unimodal"].any()
    losses["unimodal"].sum().backward()
    assert not any(parameter.grad.any() for parameter in objective.heads.parameters())


def test_labels_move_from_the_second_epoch_on() -> None:
    objective = prepared(SELF_MM, TASK)
    assert isinstance(objective, SelfMMLabels)
    learn(objective, *sources(SELF_MM, TASK, missing=False))
    moved = (objective.labels - objective.truth.unsqueeze(1)).abs()
    assert (moved > 0).any(0).all()
    assert float(objective.labels.abs().max()) <= 3


def test_labels_without_two_signs_are_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=(
            "task: Self-MM needs a regression with labels on both sides of a neutral one, found 3 classes"
        ),
    ):
        network(SELF_MM, TASKS["classification"])
    with pytest.raises(
        ConfigError, match="neutral: Self-MM needs labels on both sides of it, found 0 in a range from 1 to 5"
    ):
        network(SELF_MM, Task(kind="regression", label_range=(1, 5)))
    task = Task(kind="regression")
    objective = SELF_MM.objective(network(SELF_MM, task, neutral=9.0), task)
    with pytest.raises(DataError, match=r"both sides of options.neutral \(9\), found them on one"):
        objective.prepare(sources(SELF_MM, task, missing=False)[0])


def test_labels_of_another_scale_are_refined_alike() -> None:
    task = Task(kind="regression", label_range=(0.0, 600.0))
    objective = SELF_MM.objective(network(SELF_MM, task, neutral=300.0), task)
    assert isinstance(objective, SelfMMLabels)
    train = sources(SELF_MM, TASK, missing=False)[0]

    class Scaled:
        role, ids = train.role, train.ids

        def set_epoch(self, epoch: int) -> None:
            train.set_epoch(epoch)

        def __iter__(self):
            for batch in train:
                yield Batch(modalities=batch.modalities, ids=batch.ids, targets=300 + 100 * batch.targets)

    objective.prepare(Scaled())  # type: ignore[arg-type]
    torch.testing.assert_close(objective.truth, begun().truth, **FLOAT32)


def test_it_is_the_network_of_mmsa(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    theirs_class = mmsa_class("multiTask", "SELF_MM")
    sizes = {
        f"{letter}_lstm_{what}": value
        for letter in "av"
        for what, value in (("hidden_size", 16), ("layers", 1), ("dropout", 0.0))
    }
    sizes |= {
        f"post_{name}_dim": width
        for name, width in (("fusion", 128), ("text", 16), ("audio", 16), ("video", 16))
    }
    sizes |= {f"post_{name}_dropout": 0.1 for name in ("fusion", "text", "audio", "video")}
    bert = tiny_bert(tmp_path)
    theirs = theirs_class(
        arguments(
            need_data_aligned=False,
            feature_dims=[768, 5, 20],
            text_out=768,
            audio_out=16,
            video_out=16,
            use_finetune=True,
            transformers="bert",
            pretrained=bert,
            **sizes,
        )
    )
    modalities = tuple(
        ModalitySpec(name=spec.name, dim=dim) for spec, dim in zip(SPECS, (768, 5, 20), strict=True)
    )
    config = SelfMMConfig(modalities=modalities, task=TASK, anchor="pool", d_model=16, hidden=16)
    ours = SelfMMLabels(SelfMM(config), TASK)
    names = {
        "model.fusion.": "post_fusion_",
        "heads.text.": "post_text_",
        "heads.audio.": "post_audio_",
        "heads.video.": "post_video_",
    }
    layers = {"first.": "layer_1.", "second.": "layer_2.", "head.": "layer_3."}
    mapped = {prefix + layer: other + its for prefix, other in names.items() for layer, its in layers.items()}
    for name in ("audio", "video"):
        mapped[f"model.streams.{name}.recurrent.cells."] = f"{name}_model.rnn."
        mapped[f"model.streams.{name}.project."] = f"{name}_model.linear_1."
    alone = ("model.absent_tokens.", "model.target_scaling.", "model.standardisers.")
    pair = copy_weights(ours, theirs, mapped, ours_alone=alone, theirs_alone=("text_model.",))
    torch.manual_seed(0)
    text = bert_text(3, 6)
    lengths = {"audio": torch.tensor([7, 3, 5]), "video": torch.tensor([2, 9, 4])}
    streams = {
        name: torch.randn(3, int(lengths[name].max()), dim) for name, dim in (("audio", 5), ("video", 20))
    }
    expected = theirs(text, (streams["audio"], lengths["audio"]), (streams["video"], lengths["video"]))
    said = theirs.text_model(text)[:, :1].detach()
    output = ours.model(Batch.of({"text": said, **streams}, lengths={"text": [1, 1, 1], **lengths}))
    heads = {
        "M": (output.prediction, expected["M"]),
        "Feature_f": (output.extras[FUSED], expected["Feature_f"]),
    }
    for name in ("text", "audio", "video"):
        feature, value = ours.heads[name](output.extras[of(name)])
        heads[name] = (value, expected[name[0].upper()])
        heads[f"Feature_{name}"] = (feature, expected[f"Feature_{name[0]}"])
    check_heads(pair, heads, record_property)
