"""Samples that other programs send, and the line that each mistake gets."""

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from alignmamba.contracts import ModalitySpec
from alignmamba.errors import DataError
from alignmamba.recipes.service.sent_samples import SentSamples

SPECS = (
    ModalitySpec(name="words", dim=7, kind="tokens"),
    ModalitySpec(name="audio", dim=2),
    ModalitySpec(name="video", dim=3),
)


@pytest.fixture
def sent() -> SentSamples:
    return SentSamples(SPECS, {"audio": 4})


def body(*samples: Any) -> bytes:
    return json.dumps({"samples": list(samples)}).encode()


def test_json_becomes_samples(sent: SentSamples) -> None:
    first, second = sent.of_json(
        body(
            {
                "id": "a",
                "group": "g",
                "features": {"words": [1, 6], "audio": [[1, 2.5]], "video": None},
                "times": {"audio": [0.5], "words": None},
            },
            {"features": {"video": [[1, 2, 3]], "audio": []}},
        )
    )
    assert first.id == "a"
    assert first.features["words"].tolist() == [[1], [6]]
    assert first.features["audio"].dtype == np.float32
    assert first.features["audio"].tolist() == [[1.0, 2.5]]
    assert (set(first.features), set(second.features)) == ({"words", "audio"}, {"video"})
    assert {name: seconds.tolist() for name, seconds in first.times.items()} == {"audio": [0.5]}
    other = sent.of_json(body({"group": "g", "features": {"words": [1]}}))[0]
    assert first.group is not None
    assert other.group is not None
    assert first.group != other.group  # groups of two requests are two
    assert other.id not in (first.id, second.id)


def tensors(**changes: Any) -> bytes:
    whole: dict[str, Any] = {
        "audio": np.arange(6, dtype=np.float64).reshape(3, 2),
        "audio.lengths": np.array([1, 0, 2]),
        "audio.times": np.array([0.0, 1.0, 2.0]),
        "words": np.array([5, 6, 0], np.int32),
        "words.lengths": np.array([0, 3, 0], np.int32),
        **changes,
    }
    return save({name: value for name, value in whole.items() if value is not None})


def test_safetensors_become_samples(sent: SentSamples) -> None:
    samples = sent.of_safetensors(tensors())
    assert [set(sample.features) for sample in samples] == [{"audio"}, {"words"}, {"audio"}]
    assert samples[1].features["words"].tolist() == [[5], [6], [0]]
    assert samples[2].features["audio"].tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert samples[2].times["audio"].tolist() == [1.0, 2.0]
    assert len({sample.id for sample in samples}) == 3


AUDIO = {"audio": [[1, 2]]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"{", "body: not valid JSON: "),
        (b"\xff", "body: not valid JSON: "),
        (b'{"samples": [], "samples": []}', "body: not valid JSON: the key 'samples' appears twice"),
        (b"[" * 1000, "body: not valid JSON: "),
        (b"[]", "body: expected an object with samples alone, found list"),
        (b'{"sample": []}', r"body: expected an object with samples alone, found \['sample'\]"),
        (b'{"samples": {}}', "samples: expected a list of one sample or more, found an object"),
        (body(), "samples: expected a list of one sample or more, found an empty list"),
        (body(3), r"samples\[0\]: expected an object, found a number"),
        (
            body({"features": AUDIO}, {"feature": AUDIO}),
            r"samples\[1\]: found the field 'feature', expected id, features, times, group, perhaps you",
        ),
        (body({}), r"samples\[0\].features: expected an object by modality, found null"),
        (body({"features": {}}), r"samples\[0\].features: found no modality, expected at least one of words"),
        (body({"features": {"audio": []}}), r"samples\[0\].features: found no modality"),
        (
            body({"features": {"vidoe": [[1]]}}),
            r"samples\[0\].features: expected a modality of words, audio, video, found 'vidoe', p",
        ),
        (
            body({"features": {"audio": 3}}),
            r"samples\[0\].features.audio: expected \(tokens, 2\) numbers, found a",
        ),
        (
            body({"features": {"audio": [1, 2]}}),
            r"expected \(tokens, 2\) numbers, found int64 of shape \(2,\)",
        ),
        (body({"features": {"audio": [[1], [2]]}}), r"found int64 of shape \(2, 1\)"),
        (body({"features": {"audio": [[1, 2], [3]]}}), "found rows of unequal length"),
        (body({"features": {"audio": [["a", 2]]}}), "found something that is no number"),
        (body({"features": {"audio": [[None, 2]]}}), "found something that is no number"),
        (body({"features": {"audio": [[True, 2]]}}), "found something that is no number"),
        (body({"features": {"audio": [[10**30, 2]]}}), "found something that is no number"),
        (body({"features": {"audio": [[1, 2], [1, 1e300]]}}), r"audio\[1\]\[1\]: expected a finite number"),
        (body({"features": {"audio": [[float("nan"), 2]]}}), r"audio\[0\]\[0\]: expected a finite number"),
        (body({"features": {"audio": [[1, 2]] * 5}}), "audio: found 5 tokens, expected at most 4"),
        (body({"features": {"words": [[1]]}}), r"words: expected \(tokens,\) integers, found int64 of shape"),
        (body({"features": {"words": [1.5]}}), r"words: expected \(tokens,\) integers, found float64"),
        (body({"features": {"words": [1, 7]}}), r"words\[1\]: found 7, expected a token id from 0 to 6"),
        (
            body({"features": AUDIO, "times": [1]}),
            r"samples\[0\].times: expected an object by modality, found a list",
        ),
        (
            body({"features": AUDIO, "times": {"video": [1]}}),
            r"samples\[0\].times.video: expected its features",
        ),
        (
            body({"features": AUDIO, "times": {"audio": [1, 2]}}),
            r"times.audio: expected \(1,\) seconds, found int64",
        ),
        (
            body({"features": {"audio": [[1, 2]] * 2}, "times": {"audio": [2, 1]}}),
            r"times.audio: fall from 2.0 to 1.0 at position 1",
        ),
        (
            body({"features": AUDIO, "id": 3}),
            r"samples\[0\].id: expected text of 1 to 200 characters, found 3",
        ),
        (body({"features": AUDIO, "group": ""}), r"samples\[0\].group: expected text"),
        (
            body(*2 * [{"features": AUDIO, "id": "a"}]),
            r"samples\[1\].id: found 'a' twice, expected distinct ids",
        ),
    ],
)
def test_a_mistake_in_json_is_one_line_that_names_the_field(
    sent: SentSamples, given: bytes, said: str
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        sent.of_json(given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "body: not valid safetensors: "),
        (b"\x80\x04pickle", "body: not valid safetensors: "),
        (tensors()[:-1], "body: not valid safetensors: "),
        (save({}), "body: expected one number of samples, 1 or more, for all modalities, found {}"),
        (tensors(text=np.zeros(3)), "body: expected a modality of words, audio, video, found 'text'"),
        (tensors(audio=None), "audio: expected a tensor of this name, found none"),
        (tensors(**{"audio.lengths": None}), "audio.lengths: expected a tensor of this name, found none"),
        (
            tensors(**{"audio.lengths": np.array([1, 1])}),
            "audio: expected 2 tokens as audio.lengths says, found",
        ),
        (tensors(**{"audio.lengths": np.array([-1, 4, 0])}), r"audio.lengths: expected \(samples,\) counts"),
        (tensors(**{"audio.lengths": np.array([1.0, 2, 0])}), r"audio.lengths: expected \(samples,\) counts"),
        (
            tensors(**{"audio.lengths": np.array([2**62] * 4 + [3])}),
            "audio: expected at most 3 tokens a sample",
        ),
        (tensors(**{"audio.lengths": np.array([3])}), "body: expected one number of samples"),
        (
            tensors(**{"audio.times": np.array([0.0])}),
            r"audio.times: expected \(3,\) seconds, found shape \(1,\)",
        ),
        (
            tensors(**{"audio.times": np.array([0, 1, np.nan])}),
            "audio.times, sample 2: found nan at position 1",
        ),
        (
            tensors(**{"video.times": np.array([0.0])}),
            "video.times: expected video and video.lengths beside it",
        ),
        (tensors(audio=np.zeros((3, 5))), r"audio, sample 0: expected \(tokens, 2\) numbers, found float64"),
        (
            tensors(words=np.array([9, 1, 1])),
            r"words, sample 1\[0\]: found 9, expected a token id from 0 to 6",
        ),
        (
            tensors(words=np.array([1]), **{"words.lengths": np.array([1, 0, 0])}),
            "sample 1: found no modality, expected at least one",
        ),
    ],
)
def test_a_mistake_in_safetensors_is_one_line(sent: SentSamples, given: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        sent.of_safetensors(given)
    assert "\n" not in str(caught.value)
