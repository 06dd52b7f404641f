"""Targets of tokens: every method predicts and learns them from its own tokens, or says why it does not."""

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
from alignmamba.models.exportable import TensorsIn, exported_program
from alignmamba.training.objective import Parcel
from tolerances import MODEL

WORD = Target(name="word", kind="classification", labels=("word",), classes=("a", "b"), tokens="video")
LEVEL = Target(name="level", kind="regression", labels=("level",), tokens="video", weight=0.5)
PARTS = Target(name="parts", kind="multilabel", labels=("x", "y"), classes=("x", "y"), tokens="video")
GRADE = Target(name="grade", kind="ordinal", labels=("grade",), classes=("0", "1", "2"), tokens="video")
ALL = (WORD, LEVEL, PARTS, GRADE)
ABLE = [name for name, method in METHODS.items() if not method.network.config_class.no_tokens]
STRIDED = {"encoders": {"video": {"stride": 3}}}


def task_of(name: str, further: tuple[Target, ...] = ALL) -> Task:
    kind = next(task for task in TASKS.values() if accepts(METHODS[name], task))
    return kind.model_copy(update={"further": further})


def batch_of(task: Task) -> Batch:
    """Twelve samples, some without video, without labels, or with labels of some tokens."""
    samples = []
    for row, sample in enumerate(split("train", 12, task)):
        size = len(sample.features.get("video", ()))
        some = [None if (row + place) % 4 == 0 else place % 2 for place in range(size)]
        labels: dict[str, Any] = {
            "word": tuple(None if place is None else "ab"[place] for place in some),
            "level": tuple(None if place is None else place + 0.5 * row for place in some),
            "grade": tuple(None if place is None else place + 1 for place in some),
            "x": tuple(some),
            "y": (1,) * size,
        }
        samples.append(replace(sample, token_labels={"video": labels} if size and row != 5 else {}))
    whole = MemorySplit(role="train", samples=tuple(samples), modalities=SPECS)
    loader = Loader(whole, SPECS, config=LoaderConfig(batch_size=12), task=task, shuffle=False, seed=0)
    return next(iter(loader))


def read(model: Any, batch: Batch) -> Any:
    with torch.no_grad():
        return model.eval()(batch)


@pytest.mark.parametrize("name", METHODS)
def test_it_predicts_and_learns_them_or_says_why_not(name: str) -> None:
    task, method = task_of(name), METHODS[name]
    if name not in ABLE:
        config = method.network.config_class
        with pytest.raises(ConfigError, match=f"targets.*found.*{config.one_target or config.no_tokens}"):
            network(method, task)
        return
    model, batch = network(method, task), batch_of(task)
    objective = method.objective(model, task).train()
    predicted, losses = objective(Parcel(batch))
    time = batch.modalities["video"].mask.shape[1]
    shapes = {key: tuple(value.shape) for key, value in predicted.further.items()}
    assert shapes == {
        "word": (12, time, 2),
        "level": (12, time),
        "parts": (12, time, 2),
        "grade": (12, time, 3),
    }
    sum(losses[f"task.{target.name}"].sum() for target in ALL).backward()
    trained = [key for key, weight in model.named_parameters() if weight.grad is not None]
    assert all(f"further_heads.heads.{target.name}" in " ".join(trained) for target in ALL)
    assert any(key.startswith("encoders.audio") for key in trained)


@pytest.mark.parametrize("options", [{}, STRIDED], ids=["each", "strided"])
@pytest.mark.parametrize("name", ABLE)
def test_padding_and_company_change_no_token(name: str, options: dict[str, Any]) -> None:
    task = task_of(name)
    model, batch = network(METHODS[name], task, **options), batch_of(task)
    together = read(model, batch)
    for row in range(len(batch)):
        alone = read(model, batch.select([row]))
        length = int(batch.modalities["video"].lengths[row])
        assert together.tokens["video"].mask[row].sum() == length
        for key, value in alone.further.items():
            torch.testing.assert_close(value[0, :length], together.further[key][row, :length], **MODEL)
    sound = {key: s for key, s in batch.modalities.items() if key != "text"}
    without = read(model, replace(batch, modalities=sound))
    hidden = read(model, batch.without("text"))
    here = batch.modalities["video"].mask & batch.modalities["audio"].mask.any(1, keepdim=True)
    torch.testing.assert_close(without.further["word"][here], hidden.further["word"][here], **MODEL)


@pytest.mark.parametrize("name", ABLE)
def test_a_token_knows_its_own_place_and_the_other_modalities(name: str) -> None:
    task = task_of(name, (WORD,))
    model, batch = network(METHODS[name], task), batch_of(task)
    video, audio = batch.modalities["video"], batch.modalities["audio"]
    before = read(model, batch).further["word"]
    louder = audio.with_tensors(features=-30 * audio.features)
    changed = read(model, replace(batch, modalities={**batch.modalities, "audio": louder})).further["word"]
    here = video.mask & audio.mask.any(1, keepdim=True)
    assert float((changed - before)[here].abs().max()) > 1e-3
    row = int(video.lengths.argmax())
    features = video.features.clone()
    features[row] = features[row].flip(0)
    turned = replace(batch, modalities={**batch.modalities, "video": video.with_tensors(features=features)})
    assert not torch.allclose(read(model, turned).further["word"][row], before[row], atol=1e-3)


def test_raw_tokens_have_the_output_of_the_position_that_covers_them() -> None:
    task = task_of("alignmamba", (WORD,))
    model, batch = network(METHODS["alignmamba"], task, **STRIDED), batch_of(task)
    said = read(model, batch).further["word"]
    row = int(batch.modalities["video"].lengths.argmax())
    length = int(batch.modalities["video"].lengths[row])
    assert length > 4
    torch.testing.assert_close(said[row, 0], said[row, 2], rtol=0, atol=0)
    assert not torch.allclose(said[row, 2], said[row, 3])
    assert not bool(read(model, batch).tokens["video"].mask[row, length:].any())


def test_the_loss_is_the_mean_over_the_known_tokens_of_a_sample() -> None:
    task = task_of("alignmamba")
    model, batch = network(METHODS["alignmamba"], task), batch_of(task)
    objective = METHODS["alignmamba"].objective(model, task).eval()
    with torch.no_grad():
        predicted, losses = objective(Parcel(batch))
    truth, said = batch.further["word"], predicted.further["word"]
    level, guessed = batch.further["level"], predicted.further["level"]
    for row in range(len(batch)):
        known = truth[row] >= 0
        expected = said.new_zeros(())
        if bool(known.any()):
            expected = torch.nn.functional.cross_entropy(said[row, known], truth[row, known])
        torch.testing.assert_close(losses["task.word"][row], expected)
        heard = ~level[row].isnan()
        assert bool(heard.any()) == bool(known.any())
        error = (guessed[row, heard] - level[row, heard]).abs().mean() if bool(heard.any()) else 0.0
        assert float(losses["task.level"][row]) == pytest.approx(0.5 * float(error), rel=1e-5)
    assert bool((losses["task.word"] > 0).any())
    assert float(losses["task.word"][5]) == 0


def test_a_task_without_weight_leaves_the_tokens_alone_to_learn_from() -> None:
    task = task_of("alignmamba", (WORD,))
    model, batch = network(METHODS["alignmamba"], task, alignment={"weight": 0.0}), batch_of(task)
    objective = METHODS["alignmamba"].objective(model, task).train()
    objective.task_weight = 0.0
    _, losses = objective(Parcel(batch))
    assert bool((losses["task"] == 0).all())
    sum(value.sum() for value in losses.values()).backward()
    assert not bool(model.head.weight.grad.any())
    assert bool(model.further_heads.heads["word"].weight.grad.any())


@pytest.mark.parametrize("name", ABLE)
def test_a_token_that_dropout_hid_is_of_no_account(name: str) -> None:
    task = task_of(name, (WORD,))
    batch = batch_of(task)
    model = network(METHODS[name], task, modality_dropout=0.9).train()
    objective = METHODS[name].objective(model, task)
    hidden = [batch.modalities["video"].mask.any(1)]
    kept = model._kept

    def noted(present: torch.Tensor) -> torch.Tensor:
        left = kept(present)
        hidden.append(left[:, model.config.anchors.index("video")])
        return left

    model._kept = noted
    torch.manual_seed(0)
    _, losses = objective(Parcel(batch))
    there, seen = hidden
    labelled = (batch.further["word"] >= 0).any(1)
    assert bool((labelled & there & ~seen).any())
    assert bool((labelled & seen).any())
    assert torch.equal(losses["task.word"] > 0, labelled & seen)


def test_alignmamba_takes_the_modality_of_the_target_as_anchor() -> None:
    task = task_of("alignmamba", (WORD,))
    assert network(METHODS["alignmamba"], task).config.anchors == ("video", "text", "audio")
    with pytest.raises(ConfigError, match=r"targets.word: found tokens of 'video', expected of .* 'audio'"):
        network(METHODS["alignmamba"], task, anchor_order=("audio",))
    unmoved = {"local": {"method": "none"}, "anchor_order": ("audio",)}
    model, batch = network(METHODS["alignmamba"], task, **unmoved), batch_of(task)
    assert torch.equal(read(model, batch).tokens["video"].mask, batch.modalities["video"].mask)


@pytest.mark.parametrize(
    "options", [{"pool_by": "sequence"}, {"pool_by": "modality"}, {"local": {"method": "none"}}]
)
def test_what_a_token_is_predicted_from(options: dict[str, Any]) -> None:
    """With `pool_by: modality`, the outputs of all modalities at its time stand side by side."""
    task = task_of("alignmamba", (WORD,))
    model, batch = network(METHODS["alignmamba"], task, **options), batch_of(task)
    heard: list[torch.Tensor] = []
    model.backbone.register_forward_hook(lambda _, __, read: heard.append(read))
    tokens = read(model, batch).tokens["video"]
    row = int(batch.modalities["video"].lengths.argmax())
    length = int(batch.modalities["video"].lengths[row])
    assert bool(tokens.mask[row, :length].all())
    if options.get("pool_by") == "modality":
        steps = heard[0][row].unflatten(0, (-1, 3)).flatten(1)
        torch.testing.assert_close(tokens.x[row, :length], steps[:length], rtol=0, atol=0)
    elif options.get("pool_by") == "sequence":  # audio and text come first, the anchor last
        torch.testing.assert_close(tokens.x[row, :length], heard[0][row, 2 : 3 * length : 3], rtol=0, atol=0)
    else:
        alone = read(model, batch.select([row])).tokens["video"]
        torch.testing.assert_close(alone.x[0, :length], tokens.x[row, :length], **MODEL)


@pytest.mark.parametrize("name", ABLE)
def test_a_program_says_of_each_token_what_the_network_says(name: str) -> None:
    """Of one sample, three and seven, some of which lack a modality, at lengths that no stride divides."""
    task = task_of(name)
    model, whole = network(METHODS[name], task, **STRIDED).eval(), batch_of(task)
    wrapped = TensorsIn(model)
    assert wrapped.outputs[1:5] == ("word", "word_mask", "level", "level_mask")
    torch.compiler.reset()  # tracing scans counts towards one limit with what other tests compiled
    program = exported_program(wrapped).module()
    for rows in ([0], [3, 4, 5], [*range(7)]):
        batch = whole.select(rows)
        tensors = [t for s in (batch.modalities[spec.name] for spec in SPECS) for t in (s.features, s.mask)]
        expected, mask = read(model, batch), batch.modalities["video"].mask
        with torch.no_grad():
            found = dict(zip(wrapped.outputs, program(*tensors), strict=True))
        torch.testing.assert_close(found["prediction"], expected.prediction, **MODEL)
        for target in ALL:
            assert torch.equal(found[f"{target.name}_mask"], mask)
            assert found[target.name].shape == expected.further[target.name].shape
            torch.testing.assert_close(found[target.name][mask], expected.further[target.name][mask], **MODEL)


@pytest.mark.parametrize("name", ["word_mask", "prediction"])
def test_outputs_of_one_name_are_refused(name: str) -> None:
    other = Target(name=name, kind="regression", labels=("other",))
    model = network(METHODS["alignmamba"], task_of("alignmamba", (WORD, other)))
    with pytest.raises(ConfigError, match=f"^export: target '{name}' has the name of another output; rename"):
        TensorsIn(model)


def test_a_target_of_tokens_is_of_no_modality_alone() -> None:
    with pytest.raises(ConfigError, match="modality: found 'audio' beside tokens 'video'"):
        Target(name="word", kind="regression", labels=("word",), tokens="video", modality="audio")


def test_concordance_is_that_of_tokens_which_share_the_weight_of_their_sample() -> None:
    task = task_of("alignmamba", (LEVEL,))
    model, batch = network(METHODS["alignmamba"], task), batch_of(task)
    objective = METHODS["alignmamba"].objective(model, task).train()
    objective.regression_loss = "ccc"
    torch.manual_seed(0)
    with torch.no_grad():
        predicted, losses = objective(Parcel(batch))
    said, truth = predicted.further["level"], batch.further["level"]
    known = ~truth.isnan()
    share = known / known.sum(1, keepdim=True).clamp(min=1) / known.any(1).sum()
    p, t = said[known].double(), truth[known]
    w = share[known].double()
    means = (w @ p, w @ t)
    covariance = w @ ((p - means[0]) * (t - means[1]))
    spread = w @ ((p - means[0]) ** 2 + (t - means[1]) ** 2) + (means[0] - means[1]) ** 2
    found = losses["task.level"].sum() / known.any(1).sum() / LEVEL.weight
    assert float(found) == pytest.approx(float(1 - 2 * covariance / spread), rel=1e-5)
