"""Multi-stream models: which stream knows of which."""

from dataclasses import replace

import pytest
import torch
from small_models import TASK, batch, model, rows_that_differ

from alignmamba.contracts import Batch, Task
from alignmamba.models.multi_stream import Exchange
from alignmamba.nn.alignment import Tokens
from tolerances import MODEL

ORDER = ("text", "audio", "video")


def with_other(given: Batch, modality: str) -> Batch:
    """The batch with other content of one modality, which is there as before."""
    s = given.modalities[modality]
    features = torch.randn(s.features.shape, generator=torch.Generator().manual_seed(9))
    return replace(given, modalities={**given.modalities, modality: replace(s, features=features)})


@pytest.mark.parametrize(
    ("name", "width"), [("multi-stream-mamba", 16), ("crossmodal-transformer", 32), ("late-fusion", 16)]
)
def test_what_a_stream_knows_of_another(name: str, width: int) -> None:
    built, whole = model(name), batch().select([0, 1, 2])  # the last one has no audio
    before, after = (
        dict(zip(ORDER, built(each).embedding.split(width, 1), strict=True))
        for each in (whole, with_other(whole, "audio"))
    )
    reached = {modality: rows_that_differ(before[modality], after[modality]) for modality in ORDER}
    assert reached == {
        "audio": [0, 1],
        **dict.fromkeys(("text", "video"), [] if name == "late-fusion" else [0, 1]),
    }


def test_a_missing_stream_receives_and_does_not_send() -> None:
    built, whole = model("multi-stream-mamba"), batch()
    before = built(whole).embedding.split(16, 1)
    with torch.no_grad():
        built.absent_tokens["audio"].normal_(generator=torch.Generator().manual_seed(5))
    after = built(whole).embedding.split(16, 1)
    reached = {
        modality: rows_that_differ(*pair) for modality, *pair in zip(ORDER, before, after, strict=True)
    }
    assert reached == {"text": [], "audio": [2, 3, 5], "video": []}
    other = built(with_other(whole, "video")).embedding.split(16, 1)
    assert rows_that_differ(after[1], other[1]) == [0, 1, 2, 3]  # of which the last two lack audio


def test_an_exchange_by_hand() -> None:
    """The mean of the present others, by relative time, at half strength where gates are shut to 1/2 and
    projections do nothing.
    """
    exchange = Exchange(ORDER, 2, 0.0)
    with torch.no_grad():
        for modality in ORDER:
            exchange.gates[modality].weight.zero_()
            exchange.gates[modality].bias.zero_()
            exchange.projections[modality].weight.copy_(torch.eye(2))

    def tokens(*x: list[float]) -> Tokens:
        # Every token has root mean square 1, so that the norm changes nothing.
        return Tokens(
            torch.tensor([list(x)] * 2), torch.ones(2, len(x), dtype=torch.bool), torch.zeros(2, len(x))
        )

    streams = {
        "text": tokens([1.0, 1.0], [1.0, -1.0]),
        "audio": tokens([-1.0, 1.0]),
        "video": tokens(*[[1.0, 1.0]] * 2, *[[-1.0, -1.0]] * 2),
    }
    present = {
        "text": torch.tensor([True, True]),
        "audio": torch.tensor([True, False]),
        "video": torch.tensor([True, True]),
    }
    after = {modality: stream.x for modality, stream in exchange(streams, present).items()}
    # Text receives the mean of audio, stretched, and of video, two tokens at a time; in the second sample
    # video alone.
    expected = {
        "text": [[[1.0, 1.5], [0.5, -1.0]], [[1.5, 1.5], [0.5, -1.5]]],
        "audio": [[[-0.75, 1.0]], [[-0.75, 1.0]]],
        "video": [
            [[1.0, 1.5], [1.0, 1.5], [-1.0, -1.0], [-1.0, -1.0]],
            [[1.5, 1.5], [1.5, 1.5], [-0.5, -1.5], [-0.5, -1.5]],
        ],
    }
    for modality, x in after.items():
        torch.testing.assert_close(
            x,
            torch.tensor(expected[modality]),
            **MODEL,
            msg=lambda text, modality=modality: f"{modality}: {text}",
        )


def test_the_gate_reads_the_streams_own_tokens() -> None:
    exchange = Exchange(ORDER, 4, 0.0)
    generator = torch.Generator().manual_seed(1)
    # of one length, so that tokens meet one to one
    x = {m: torch.randn(1, 3, 4, generator=generator) for m in ORDER}
    streams = {m: Tokens(x[m], torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3)) for m in ORDER}
    after = exchange(streams, dict.fromkeys(ORDER, torch.tensor([True])))
    normed = {m: x[m] / x[m].square().mean(-1, keepdim=True).sqrt() for m in ORDER}
    for m in ORDER:
        mean = torch.stack([normed[other] for other in ORDER if other != m]).mean(0)
        gate = (normed[m] @ exchange.gates[m].weight.T + exchange.gates[m].bias).sigmoid()
        torch.testing.assert_close(
            after[m].x, x[m] + gate * (mean @ exchange.projections[m].weight.T), **MODEL
        )


@pytest.mark.parametrize("task", [TASK, Task(kind="regression")])
def test_late_fusion_is_the_mean_of_its_modalities_alone(task: Task) -> None:
    built, whole = model("late-fusion", task=task), batch().select([0, 1])  # all three; no text
    full = built(whole).prediction
    audio, video = (built(whole.without(*(set(ORDER) - {kept}))).prediction for kept in ("audio", "video"))
    text = built(whole.select([0]).without("audio", "video")).prediction
    torch.testing.assert_close(full[0], (text[0] + audio[0] + video[0]) / 3, **MODEL)
    torch.testing.assert_close(full[1], (audio[1] + video[1]) / 2, **MODEL)


def test_mult_has_a_transformer_for_every_ordered_pair() -> None:
    built = model("crossmodal-transformer")
    assert built.backbone.pairs == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert built(batch()).embedding.shape == (7, 3 * 2 * 16)
