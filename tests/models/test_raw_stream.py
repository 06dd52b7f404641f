"""Raw tokens that arrive one after the other: the prediction of the whole sample, in bounded memory."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import pytest
import torch
from torch import Tensor

from alignmamba.contracts import Batch, ModalitySpec, Output, Standardisation, Target, TargetScale, Task
from alignmamba.errors import ConfigError, DataError, ShapeError
from alignmamba.models.alignmamba import AlignMamba, AlignMambaConfig
from alignmamba.models.raw_stream import MOST_WAITING, RawStream
from tolerances import MODEL

SPECS = (
    ModalitySpec(name="text", dim=11, kind="tokens"),
    ModalitySpec(name="audio", dim=4),
    ModalitySpec(name="video", dim=6),
)
TASK = Task(kind="classification", classes=("a", "b", "c"))
LOCAL = {"marginal": "anchor", "time_unit": "seconds", "window": 2}
Tokens = dict[str, tuple[Tensor, Tensor]]


def model(*, task: Task = TASK, **options: Any) -> AlignMamba:
    torch.manual_seed(0)
    settings = {
        "d_model": 8,
        "depth": 1,
        "d_state": 4,
        "unimodal_branches": False,
        "encoder": {"kind": "linear", "centring": "none"},
        "encoders": {"text": {"kind": "embedding"}},
        **options,
        "local": {**LOCAL, **options.get("local", {})},
    }
    built = AlignMamba(AlignMambaConfig.preset("default", modalities=SPECS, task=task, **settings)).eval()
    scale = {spec.name: (torch.full((spec.dim,), 0.3), torch.full((spec.dim,), 2.0)) for spec in SPECS[1:]}
    built.standardise(Standardisation(features=scale))
    return built


def sample(names: Sequence[str] = ("text", "audio", "video"), *, seed: int = 0, clock: float = 5.0) -> Tokens:
    """Tokens at rates of their own, with times that jump."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, count in (("text", 9), ("audio", 40), ("video", 17)):
        spec = next(spec for spec in SPECS if spec.name == name)
        features = (
            torch.randint(0, spec.dim, (count,), generator=generator)
            if spec.kind == "tokens"
            else torch.randn(count, spec.dim, generator=generator)
        )
        steps = torch.rand(count, generator=generator, dtype=torch.float64)
        made[name] = (features, clock + steps.cumsum(0) * (10 / count))
    return {name: made[name] for name in names}


def task_with(tokens: str) -> Task:
    """Targets of the sample, of audio alone and of the tokens of a modality, of every kind."""
    further = (
        Target(name="grade", kind="ordinal", labels=("grade",), classes=("0", "1", "2")),
        Target(name="tone", kind="regression", labels=("tone",), modality="audio"),
        Target(name="moods", kind="multilabel", labels=("x", "y"), classes=("x", "y"), modality="audio"),
        Target(name="word", kind="classification", labels=("word",), classes=("a", "b"), tokens=tokens),
        Target(name="level", kind="regression", labels=("level",), tokens=tokens),
    )
    return TASK.model_copy(update={"further": further})


def batch_of(given: Tokens) -> Batch:
    return Batch.of(
        {name: [features] for name, (features, _) in given.items()},
        times={name: [times] for name, (_, times) in given.items()},
    )


def said(built: AlignMamba, given: Tokens) -> Output:
    with torch.no_grad():
        return built(batch_of(given))  # type: ignore[no-any-return]


def whole(built: AlignMamba, given: Tokens) -> Tensor:
    return said(built, given).prediction


def pieces(given: Tokens, *, seed: int) -> list[tuple[str, Tokens]]:
    """The tokens in pieces of one to four, modalities in any order."""
    generator = torch.Generator().manual_seed(seed)
    places, found = dict.fromkeys(given, 0), []
    while left := [name for name in given if places[name] < len(given[name][1])]:
        name = left[int(torch.randint(len(left), (), generator=generator))]
        count = int(torch.randint(1, 5, (), generator=generator))
        part = slice(places[name], places[name] + count)
        found.append((name, {name: (given[name][0][part], given[name][1][part])}))
        places[name] += count
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"local": {"window": 0}},
        {"local": {"window": 50, "time_weight": 0.0}},
        {"encoder": {"kind": "mamba", "centring": "none", "depth": 1}},
        {"pool_by": "sequence", "pooling": "mean"},
        {"anchor_order": ("audio", "text", "video"), "absent": "zeros"},
    ],
    ids=["default", "window 0", "window of all", "mamba", "pooled as one", "another anchor"],
)
@pytest.mark.parametrize(
    "names", [("text", "audio", "video"), ("audio", "video"), ("text", "video"), ("video",)], ids="+".join
)
def test_the_end_is_the_prediction_of_the_whole_sample(
    options: Mapping[str, Any], names: Sequence[str]
) -> None:
    built, given = model(**options), sample(names)
    expected = whole(built, given)
    for seed in (0, 1):
        stream = RawStream(built, names)
        for _, piece in pieces(given, seed=seed):
            stream.step(piece)
        torch.testing.assert_close(stream.end().prediction, expected, **MODEL)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder": {"kind": "mamba", "centring": "none", "depth": 1}},
        {"pool_by": "sequence", "pooling": "mean"},
        {"anchor_order": ("audio", "text", "video"), "pooling": "last"},
    ],
    ids=["default", "mamba", "pooled as one", "another anchor"],
)
@pytest.mark.parametrize(
    "names", [("text", "audio", "video"), ("audio", "video"), ("text", "video"), ("audio",)], ids="+".join
)
def test_the_outputs_together_have_all_that_the_whole_sample_has(
    options: Mapping[str, Any], names: Sequence[str]
) -> None:
    first = options.get("anchor_order", ("text",))[0]
    built, given = model(task=task_with(first), **options), sample(names)
    scales = {"tone": TargetScale(mean=3.0, deviation=2.0), "level": TargetScale(mean=-1.0, deviation=0.5)}
    built.standardise(Standardisation(features={}, further=scales))
    expected, stream = said(built, given), RawStream(built, names)
    outputs = [stream.step(piece) for _, piece in pieces(given, seed=2)] + [stream.end()]
    heard = [output for output in outputs if output is not None]
    for name in ("grade", "tone", "moods"):
        torch.testing.assert_close(heard[-1].further[name], expected.further[name], **MODEL)
    for name in ("word", "level"):
        found = torch.cat([output.further[name] for output in heard], 1)
        torch.testing.assert_close(found, expected.further[name], **MODEL)
        assert found.shape[1] == (len(given[first][1]) if first in given else 0)
    vectors = torch.cat([output.tokens[first].x for output in heard], 1)
    torch.testing.assert_close(vectors, expected.tokens[first].x, **MODEL)
    assert all(bool(output.tokens[first].mask.all()) for output in heard)
    if first in given:
        assert len([output for output in heard if output.tokens[first].x.shape[1]]) > 1  # not all at the end


def test_a_target_of_one_modality_waits_for_no_other() -> None:
    built, given = model(task=task_with("text")), sample()
    stream, (features, times) = RawStream(built), given["audio"]
    stream.step({name: given[name] for name in ("text", "video")})
    for count in (30, len(times)):
        start = 0 if count == 30 else 30
        output = stream.step({"audio": (features[start:count], times[start:count])})
        assert output is not None
        alone = said(built, {"audio": (features[:count], times[:count])})
        for name in ("tone", "moods"):
            torch.testing.assert_close(output.further[name], alone.further[name], **MODEL)


def test_each_output_is_of_the_anchor_tokens_that_can_be_known() -> None:
    """Predictions on the way are those of the fused tokens of the whole sample, as far as they go."""
    built, given = model(task=task_with("text")), sample()
    batch = batch_of(given)
    said, state = [], None
    with torch.no_grad():
        for token in built.fused_tokens(batch)[0].unbind(1):
            output, state = built.step(token, state)
            said.append(output.prediction)
            assert set(output.further) == {"grade"}
    expected = said[2::3]  # three fused tokens for each of the anchor
    stream, heard = RawStream(built), []
    for _, piece in pieces(given, seed=3):
        output = stream.step(piece)
        if output is not None:
            heard.append(output.prediction)
    heard.append(stream.end().prediction)
    places = [
        next(place for place, right in enumerate(expected) if torch.allclose(one, right, atol=1e-5))
        for one in heard
    ]
    assert places == sorted(places)
    assert places[-1] == len(expected) - 1
    assert places[0] < len(expected) - 2  # it did not wait for the end


def test_memory_does_not_grow_with_the_sample() -> None:
    built = model(task=task_with("audio"), anchor_order=("audio",))
    held, sizes = [], []
    stream = RawStream(built, ("audio", "video"))
    for second in range(40):
        times = second + torch.arange(5) / 5
        output = stream.step(
            {"audio": (torch.randn(5, 4), times), "video": (torch.randn(2, 6), times[[0, 3]])}
        )
        held.append(sum(stream.waiting.values()))
        file = BytesIO()
        torch.save((vars(stream) | {"_model": None}, output), file)
        sizes.append(file.tell())
    assert max(held[20:]) <= max(held[:20])
    assert max(held) < 20
    assert max(sizes[20:]) < 1.1 * max(sizes[:20])


def test_a_modality_of_which_nothing_comes_is_missing() -> None:
    built, given = model(), sample(("text", "audio"))
    stream = RawStream(built)
    stream.step(given)
    stream.close("video")
    torch.testing.assert_close(stream.end().prediction, whole(built, given), **MODEL)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bidirectional": True}, "bidirectional: found true, expected false"),
        ({"unimodal_branches": True}, "unimodal_branches: found true, expected false"),
        (
            {"encoder": {"kind": "conv", "centring": "none"}},
            "encoders.audio: its convolutions read later tokens",
        ),
        (
            {"encoder": {"kind": "linear", "centring": "full"}},
            "encoders.audio: its centring is 'full', the mean",
        ),
        (
            {"encoder": {"kind": "linear", "centring": "none", "stride": 2}},
            "encoders.audio: its stride is 2, expected 1",
        ),
        (
            {"encoders": {"text": {"kind": "embedding", "stride": 3}}},
            "encoders.text: its stride is 3, expected 1",
        ),
        ({"local": {"method": "proportional"}}, "local.method: found 'proportional', expected 'match'"),
        ({"local": {"marginal": "source"}}, "local.marginal: found 'source', expected 'anchor'"),
        ({"local": {"time_unit": "relative"}}, "local.time_unit: found 'relative', expected 'seconds'"),
        ({"local": {"time_unit": "spans"}}, "local.time_unit: found 'spans', expected 'seconds'"),
        ({"local": {"window": None}}, "local.window: found none, expected a number"),
        ({"timeless": ("video",)}, "timeless: found 'video', expected none"),
        (
            {"local": {"method": "none"}},
            "pool_by: found 'modality', expected 'sequence' where local.method is 'none'",
        ),
    ],
)
def test_what_cannot_stream_is_refused_with_the_reason(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^stream: {said}"):
        RawStream(model(**options))


def test_one_modality_needs_no_alignment() -> None:
    built = model(local={"method": "proportional"})
    with pytest.raises(ConfigError):
        RawStream(built)
    given = sample(("audio",))
    stream = RawStream(built, ("audio",))
    stream.step(given)
    torch.testing.assert_close(stream.end().prediction, whole(built, given), **MODEL)


def test_one_modality_that_is_not_aligned_stands_in_the_sequence_alone() -> None:
    built = model(task=task_with("video"), local={"method": "none"}, pool_by="sequence")
    given = sample(("video",))
    stream = RawStream(built, ("video",))
    first, last, expected = stream.step(given), stream.end(), said(built, given)
    assert first is not None
    torch.testing.assert_close(last.prediction, expected.prediction, **MODEL)
    torch.testing.assert_close(first.further["word"], expected.further["word"], **MODEL)
    assert last.further["word"].shape == (1, 0, 2)


def test_mistakes_are_refused() -> None:
    built = model()
    with pytest.raises(ConfigError, match=r"^stream: found a model in training mode"):
        RawStream(model().train())
    for names, found in ((("sound",), "'sound'"), ((), "none")):
        with pytest.raises(DataError, match=f"one or more of text, audio, video, found {found}"):
            RawStream(built, names)
    stream, two = RawStream(built, ("text", "audio")), torch.tensor([1.0, 2.0])
    with pytest.raises(DataError, match=r"modality 'text': found no token, expected at least one"):
        RawStream(built).end()
    with pytest.raises(DataError, match=r"modality 'video': expected one of this sample: text, audio"):
        stream.step({"video": (torch.zeros(2, 6), two)})
    for features in (
        torch.zeros(2, 5),
        torch.zeros(2, 4, dtype=torch.int64),
        torch.zeros(3, 4),
        torch.zeros(2),
    ):
        with pytest.raises(
            ShapeError, match=r"modality 'audio': expected features \(time, 4\) with \(time,\) sec"
        ):
            stream.step({"audio": (features, two)})
    with pytest.raises(DataError, match="'audio': expected finite numbers"):
        stream.step({"audio": (torch.full((2, 4), torch.nan), two)})
    with pytest.raises(DataError, match="'text': expected token ids from 0 to 10"):
        stream.step({"text": (torch.tensor([1, 11]), two)})
    for times in (two.flip(0), two * torch.nan):
        with pytest.raises(DataError, match="'audio': expected finite times that never fall"):
            stream.step({"audio": (torch.zeros(2, 4), times)})
    stream.step({"text": (torch.tensor([1, 2]), two)})
    with pytest.raises(DataError, match="'text': expected finite times that never fall"):
        stream.step({"text": (torch.tensor([1]), torch.tensor([1.5]))})
    stream.step({"audio": (torch.zeros(2, 4), two)})
    stream.close("text")
    with pytest.raises(DataError, match="'text': found tokens after its end"):
        stream.step({"text": (torch.tensor([1]), torch.tensor([3.0]))})


def test_what_waits_too_long_is_refused() -> None:
    stream, count = RawStream(model(), ("text", "audio")), MOST_WAITING + 1
    with pytest.raises(DataError, match=f"'audio': {count} tokens wait for those of another modality"):
        stream.step({"audio": (torch.zeros(count, 4), torch.arange(count))})
