"""Labels of tokens: stored beside the features, read again, and made targets of."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba import SplitArrays, Task, load_corpus, write_corpus
from alignmamba.contracts import Corpus, ModalitySpec, Sample
from alignmamba.data.further_targets import (
    FurtherConfig,
    further_targets,
    left_of,
    with_further,
)
from alignmamba.data.inspection import inspect_corpus
from alignmamba.data.leading_target import LeadingConfig, led_by
from alignmamba.data.loader import collate
from alignmamba.data.missing_protocols import MissingConfig, only, withheld
from alignmamba.data.standardise import further_scales
from alignmamba.data.views import named
from alignmamba.errors import ConfigError, DataError

WORDS: list[Any] = [["on", None, "off"], None, np.array(["off", "off"])]
LEVELS: list[Any] = [np.array([1.0, math.nan, 3.0]), None, [5, np.float32(0.5)]]


def arrays(**others: Any) -> SplitArrays:
    """Three samples: of video three tokens, none, and two; of audio one each."""
    video = [np.ones((size, 2), np.float32) if size else None for size in (3, 0, 2)]
    given: dict[str, Any] = {
        "features": {"video": video, "audio": [np.ones((1, 1), np.float32)] * 3},
        "targets": [0.0, 1.0, 2.0],
        "times": {"video": [None if each is None else np.arange(len(each)) / 2 for each in video]},
        "token_labels": {
            "video": {"word": WORDS, "level": LEVELS},
            "audio": {"word": [["on"], ["off"], ["on"]], "noise": [[0.5], None, [0.25]]},
        },
    }
    return SplitArrays(**{**given, **others})


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    splits: dict[Any, SplitArrays] = {
        role: replace(arrays(), ids=[f"{role}-{row}" for row in range(3)]) for role in ("train", "valid")
    }
    return write_corpus(tmp_path / "corpus", splits, task=Task(kind="regression"))


def test_they_are_read_as_they_were_written(corpus: Corpus) -> None:
    first, second, third = load_corpus(corpus.location).split("train")
    assert first.token_labels == {
        "video": {"word": ("on", None, "off"), "level": (1.0, None, 3.0)},
        "audio": {"word": ("on",), "noise": (0.5,)},
    }
    assert second.token_labels == {"audio": {"word": ("off",)}}
    assert third.token_labels["video"] == {"word": ("off", "off"), "level": (5, 0.5)}
    assert inspect_corpus(Path(corpus.location)).problems == ()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            {"video": {"word": [["on"], None, None]}},
            r"'train-000001', modality 'video', label 'word': expected 3, one for each token, found 1",
        ),
        (
            {"video": {"word": [None, ["on"], None]}},
            r"'train-000002', modality 'video', label 'word': expected 0, .* found 1",
        ),
        ({"video": {"word": ["one", None, None]}}, "label 'word': expected a list of 3 labels, found 'one'"),
        ({"video": {"word": [["a", "b", math.inf], None, None]}}, "token 2: expected a finite number"),
        ({"video": {"word": [["a", "b", ["c"]], None, None]}}, "token 2: expected a finite number or text"),
        ({"touch": {"word": WORDS}}, "token_labels: no modality 'touch', only"),
        ({"video": WORDS}, r"token_labels\['video'\]: expected a mapping, found list"),
        ({"video": {"word": WORDS[:2]}}, r"token_labels\['video'\]\['word'\] has 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, message: str, tmp_path: Path) -> None:
    splits: dict[Any, SplitArrays] = {"train": arrays(token_labels=labels)}
    with pytest.raises(DataError, match=message):
        write_corpus(tmp_path / "corpus", splits, task=Task(kind="regression"))
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"touch": {"word": ["on"]}}, "token_labels: expected labels by name per modality, found 'touch'"),
        ({"video": {"word": ["on"]}}, "label 'word': 1 of them, expected one per position"),
        ({"video": {"word": ["on", [], "on"]}}, "expected a list of numbers, texts or nulls"),
        (["on"], "token_labels: expected dict, found list"),
    ],
)
def test_a_damaged_corpus_is_refused(corpus: Corpus, changed: Any, message: str) -> None:
    place = Path(corpus.location)
    (strings,) = place.glob("train-*.jsonl")
    lines = [json.loads(line) for line in strings.read_text().splitlines()]
    size = strings.stat().st_size
    lines[0]["token_labels"] = changed
    text = "".join(json.dumps(line) + "\n" for line in lines)
    strings.write_text(text[:-1] + " " * (size - len(text)) + "\n")
    with pytest.raises(DataError, match=message):
        load_corpus(place, verify=False)


def test_a_target_of_tokens_has_a_value_for_each(corpus: Corpus) -> None:
    asked = {"word": FurtherConfig(), "level": FurtherConfig(), "noise": FurtherConfig()}
    made = with_further(corpus, asked)
    found = {target.name: (target.kind, target.tokens, target.classes) for target in made.task.further}
    assert found == {
        "word": ("classification", "video", ("off", "on")),
        "level": ("regression", "video", ()),
        "noise": ("regression", "audio", ()),
    }
    values = further_targets(list(made.split("train")), made.task)
    assert values["word"].tolist() == [[1, -1, 0], [-1, -1, -1], [0, 0, -1]]
    nan = math.nan
    np.testing.assert_array_equal(values["level"], [[1, nan, 3], [nan, nan, nan], [5, 0.5, nan]])
    assert further_scales(made.split("train"), made.task)["level"].mean == 2.375
    batch = collate(list(made.split("train")), made.modalities, made.task)
    assert batch.further["word"].shape == batch.modalities["video"].mask.shape


def test_the_modality_may_be_named(corpus: Corpus) -> None:
    made = with_further(corpus, {"word": FurtherConfig(tokens="audio")})
    assert further_targets(list(made.split("train")), made.task)["word"].tolist() == [[1], [0], [1]]
    with pytest.raises(
        ConfigError, match=r"targets.word.tokens: found 'touch', expected one of video, audio"
    ):
        with_further(corpus, {"word": FurtherConfig(tokens="touch")})
    with pytest.raises(
        ConfigError, match=r"no token of 'audio' in train .* 'level', expected one of noise, word"
    ):
        with_further(corpus, {"level": FurtherConfig(tokens="audio")})
    with pytest.raises(ConfigError, match=r"has a label 'nope', expected one of level, noise, word"):
        with_further(corpus, {"nope": FurtherConfig()})


def test_a_label_of_tokens_does_not_lead(corpus: Corpus) -> None:
    said = (
        r"leading: 'noise' is a label of tokens of audio, expected one of samples; targets.noise predicts it"
    )
    with pytest.raises(ConfigError, match=said):
        led_by(corpus, LeadingConfig(labels=("noise",)))
    assert with_further(corpus, {"noise": FurtherConfig()}).task.further[0].tokens == "audio"
    with pytest.raises(ConfigError, match=r"leading: no training sample has a label 'nobody'"):
        led_by(corpus, LeadingConfig(labels=("nobody",)))


def test_a_label_that_is_none_of_the_target_names_its_token(corpus: Corpus) -> None:
    with pytest.raises(DataError, match=r"'train-0', token 2 of 'video', label 'word': found 'off'"):
        with_further(corpus, {"word": FurtherConfig(classes=("on", "other"))})


def test_labels_follow_their_modality(corpus: Corpus) -> None:
    renamed = named(corpus, rename={"video": "face"}, ignore=["audio"])
    assert list(renamed.split("train")[0].token_labels) == ["face"]
    left = only(corpus.split("train"), ("audio",), modalities=("video", "audio"))
    assert list(left[0].token_labels) == ["audio"]
    lost = withheld(
        corpus.split("train"), MissingConfig(protocol="tokens", rate=0.5), seed=0, modalities=("video",)
    )
    for sample in lost:
        for values in sample.token_labels.get("video", {}).values():
            assert len(values) == len(sample.features["video"])
    assert any(len(sample.features.get("video", ())) == 1 for sample in lost)
    assert set(left_of(renamed, {"word": FurtherConfig(), "noise": FurtherConfig()})) == {"word"}


def test_batches_of_several_lengths_are_joined() -> None:
    spec = ModalitySpec(name="video", dim=1)
    samples = [
        Sample(
            id=str(size),
            features={"video": np.ones((size, 1), np.float32)},
            target=0.0,
            token_labels={"video": {"word": ("a", "b")[:size] + ("a",) * (size - 2)}},
        )
        for size in (1, 3)
    ]
    target: Any = {"name": "word", "kind": "classification", "labels": ["word"], "classes": ["a", "b"]}
    task = Task(kind="regression", further=({**target, "tokens": "video"},))
    one, other = (collate([sample], (spec,), task) for sample in samples)
    joined = type(one).concatenate([one, other])
    assert joined.further["word"].tolist() == [[0, -1, -1], [0, 1, 0]]


def test_more_labels_than_a_line_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignmamba.data.archive.JSON_BYTES", 60)
    with pytest.raises(
        DataError, match="'train-000001': expected at most 60 bytes of text, tokens and labels"
    ):
        write_corpus(tmp_path / "corpus", {"train": arrays()}, task=Task(kind="regression"))
    assert not (tmp_path / "corpus").exists()
