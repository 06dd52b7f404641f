"""Terms of learning without labels, worked out by hand, and what they leave alone."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from alignmamba.contracts import Batch, ModalitySpec, Sequences, Task
from alignmamba.data.hidden_spans import hidden_spans
from alignmamba.methods import METHODS
from alignmamba.methods.hidden_tokens import PretrainConfig, Pretraining, why_not_pretrained
from alignmamba.models.encoded import ReadsTokens
from alignmamba.training.objective import Parcel
from tolerances import FLOAT32

MODALITIES = (
    ModalitySpec(name="audio", dim=4),
    ModalitySpec(name="text", dim=11, kind="tokens"),
    ModalitySpec(name="video", dim=6),
)
TASK = Task(kind="classification", classes=("a", "b", "c"))
LENGTHS = {"text": [5, 0, 3, 0, 7, 1], "audio": [9, 12, 0, 0, 2, 0], "video": [4, 6, 5, 8, 0, 0]}


def batch() -> Batch:
    """Samples of unequal lengths that lack modalities."""
    random = torch.Generator().manual_seed(1)
    sequences = {}
    for spec in MODALITIES:
        valid = torch.tensor(LENGTHS[spec.name])
        shape = (len(valid), int(valid.max()), spec.width)
        ids = torch.randint(0, spec.dim, shape, generator=random)
        features = ids if spec.kind == "tokens" else torch.randn(shape, generator=random)
        sequences[spec.name] = Sequences(features=features, mask=torch.arange(shape[1]) < valid[:, None])
    return Batch(modalities=sequences, ids=tuple(f"s{row}" for row in range(6)))


def draw(ids: Sequence[str], lengths: Sequence[int], name: str, epoch: int | None) -> NDArray[np.bool_]:
    return hidden_spans(ids, lengths, modality=name, share=0.5, span=2, seed=0, epoch=epoch)


def objective(
    *, name: str = "alignmamba", task: Task = TASK, settings: dict[str, Any] | None = None, **options: Any
) -> Pretraining:
    network: Any = METHODS[name].network
    torch.manual_seed(0)
    built = network(
        network.config_class.preset("default", modalities=MODALITIES, task=task, d_model=16, **options)
    )
    assert isinstance(built, ReadsTokens)
    return Pretraining(built, task, PretrainConfig.model_validate(settings or {}), draw).eval()


def losses(made: Pretraining, whole: Batch) -> dict[str, torch.Tensor]:
    return made(Parcel(whole))[1]


def test_every_modality_and_every_pair_has_a_term_where_a_sample_has_it() -> None:
    whole = batch()
    found = losses(objective(), whole)
    assert set(found) == {
        "mmd",
        *(f"reconstruction.{name}" for name in ("text", "audio", "video")),
        *(f"matching.{pair}" for pair in ("text-audio", "text-video", "audio-video")),
    }
    for name, value in found.items():
        assert value.shape == (len(whole),)
        for modality in name.partition(".")[2].split("-"):
            if modality:
                assert bool((value[~whole.having(modality)] == 0).all())


@pytest.mark.parametrize(
    ("settings", "kind"), [({"reconstruction": 0.0}, "matching"), ({"matching": 0.0}, "reconstruction")]
)
def test_a_weight_of_zero_switches_a_term_off(settings: dict[str, float], kind: str) -> None:
    made = objective(settings=settings, alignment={"weight": 0.0})
    found = losses(made, batch())
    assert {name.partition(".")[0] for name in found} == {kind}
    assert bool(made.stand_ins) == (kind == "reconstruction")


def test_reconstruction_by_hand() -> None:
    made, whole = objective(encoders={"audio": {"stride": 2}}), batch()
    found = losses(made, whole)
    with torch.no_grad():
        hidden = made._hidden(whole)
        for name in ("audio", "video"):
            made.reconstructors[name].weight.zero_()
            made.reconstructors[name].bias.fill_(0.5)
        found = losses(made, whole)
        seen = made.model.tokens_seen(whole)
        for name, stride in (("audio", 2), ("video", 1)):
            for row in range(len(whole)):
                places = hidden[name][row, ::stride].nonzero().flatten().tolist()
                present = sum(bool(whole.having(each)[row]) for each in ("text", "audio", "video"))
                expected = [float((seen[name].x[row, at] - 0.5).square().mean()) for at in places]
                mean = sum(expected) / len(expected) / present if places else 0.0
                assert float(found[f"reconstruction.{name}"][row]) == pytest.approx(mean, rel=1e-4)


def test_a_guess_among_ids_costs_one() -> None:
    for stride in (1, 2):
        made, whole = (
            objective(settings={"reconstruction": 2.0}, encoders={"text": {"stride": stride}}),
            batch(),
        )
        with torch.no_grad():
            made.reconstructors["text"].weight.zero_()
            made.reconstructors["text"].bias.zero_()
        found, hidden = losses(made, whole)["reconstruction.text"], made._hidden(whole)["text"]
        for row in range(len(whole)):
            present = sum(bool(whole.having(name)[row]) for name in ("text", "audio", "video"))
            assert float(found[row].detach()) == pytest.approx(
                2.0 * bool(hidden[row].any()) / present, rel=1e-5
            )


def test_the_right_ids_cost_nothing() -> None:
    made, whole = objective(), batch()
    ids = whole.modalities["text"].features
    with torch.no_grad():
        ids.fill_(4)
        table = made.model.encoders["text"].project.weight
        made.reconstructors["text"].weight.zero_()
        made.reconstructors["text"].bias.copy_(1000 * table[4] / table[4].norm())
        right = losses(made, whole)["reconstruction.text"]
        ids.fill_(5)
        wrong = losses(made, whole)["reconstruction.text"]
    some = made._hidden(whole)["text"].any(1)
    assert bool(some.any())
    assert bool((right < 1e-3).all())
    assert bool((wrong[some] > 1).all())


def test_matching_by_hand() -> None:
    made, whole = objective(settings={"reconstruction": 0.0, "temperature": 0.5}), batch()
    found = losses(made, whole)
    encoded = made.model.read_tokens(whole, {}).encoded
    both = [0, 4]  # samples that have text and audio
    with torch.no_grad():
        sides = []
        for name in ("text", "audio"):
            rows = [encoded[name].x[row][encoded[name].mask[row]].mean(0) for row in both]
            vectors = made.matchers[name](torch.stack(rows))
            sides.append(vectors / vectors.norm(dim=1, keepdim=True))
        alike = (sides[0] @ sides[1].T / 0.5).double()
    for place, row in enumerate(both):
        ways = [-each.log_softmax(1)[place, place] for each in (alike, alike.T)]
        expected = 0.3 / 3 * sum(ways) / 2 / math.log(2)
        torch.testing.assert_close(found["matching.text-audio"][row].double(), expected, **FLOAT32)


def test_a_sample_without_company_is_defined_and_has_a_gradient() -> None:
    made, one = objective(settings={"reconstruction": 0.0}, alignment={"weight": 0.0}), batch().select([0])
    found = losses(made, one)
    total = torch.stack([value.sum() for value in found.values()]).sum()
    assert float(total.detach()) == 0
    total.backward()
    for parameter in made.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


def test_reconstruction_does_not_depend_on_company_and_draws_follow_epochs() -> None:
    made, whole = objective(), batch()
    together = losses(made, whole)
    for row in range(len(whole)):
        alone = losses(made, whole.select([row]))
        for name in ("reconstruction.text", "reconstruction.audio", "reconstruction.video"):
            torch.testing.assert_close(alone[name][0], together[name][row], **FLOAT32)
    (stage,) = made.stages
    made.begin_epoch(stage, 3)
    assert torch.equal(made._hidden(whole)["audio"], made.eval()._hidden(whole)["audio"])
    made.train()
    third = made._hidden(whole)["audio"]
    made.begin_epoch(stage, 4)
    assert not torch.equal(made._hidden(whole)["audio"], third)


def test_predictions_are_nothing_and_labels_are_not_asked_for() -> None:
    regression = Task(kind="regression")
    for task in (TASK, regression):
        predicted, _ = objective(task=task)(Parcel(batch()))
        assert predicted.values.shape == ((6, 3) if task is TASK else (6,))
        assert not predicted.values.any()
    assert not Pretraining.needs_targets


def test_the_methods_that_the_page_names_can_be_pretrained() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "pretraining.md").read_text()
    (said,) = [part for part in page.split("\n\n") if "can be pretrained. Other methods" in part]
    told = set(re.findall(r"`([\w-]+)`", said))
    able = {
        name
        for name, method in METHODS.items()
        if not why_not_pretrained(method.network, cast(Any, objective().model.config))
    }
    assert told == able
