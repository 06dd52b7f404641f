"""MMSA pickles, read value by value and length by length, and what is done about their known faults."""

from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import layouts_pickled
import numpy as np
import pytest
from layouts_pickled import SILENCE, Truths, assert_holds, padded, write, write_old

from alignmamba.contracts import Corpus
from alignmamba.errors import DataError
from alignmamba.formats.conversion import Conversion, convert
from alignmamba.formats.known_formats import detect
from alignmamba.formats.pickles import mmsa_pickle as mmsa
from alignmamba.formats.pickles import pickle_glimpse

PROTOCOLS = [0, 1, 2, 3, 4, 5]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mosi.pkl"


def converted(file: Path, content: Any, **options: Any) -> Conversion:
    return convert(
        "mmsa", [write(file, content)], file.parent / "corpus", mmsa.Options(**options), overwrite=True
    )


def sample(corpus: Corpus, row: int, role: Literal["train", "valid", "test"] = "train") -> Any:
    return corpus.split(role)[row]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_value(file: Path, protocol: int, aligned: bool, dtype: Any) -> None:
    content, truths = layouts_pickled.mmsa(aligned=aligned, dtype=dtype)
    write(file, content, protocol)
    assert detect([file]) == "mmsa"
    done = convert("auto", [file], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.faults == (() if aligned else (SILENCE,))
    assert done.corpus.task.label_range == (-3.0, 3.0)
    assert [spec.name for spec in done.corpus.modalities] == ["text", "audio", "vision"]
    assert done.corpus.name == "mosi"
    assert done.notes == (
        "label: regression_labels",
        "aligned: all modalities of a clip have the positions of its attention mask"
        if aligned
        else "content: text by the attention mask; audio, vision by declared lengths, padded at the back",
        "text_bert: its attention mask was used, its ids are dropped",
        "raw_text: kept, and as display tokens where the words are as many as the positions of the text",
        "labels kept besides: annotations, classification_labels",
    )


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_files_of_python_2(file: Path, protocol: int) -> None:
    content, truths = layouts_pickled.mmsa()
    write_old(file, content, protocol)
    assert detect([file]) == "mmsa"
    done = convert("auto", [file], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.faults == (SILENCE,)


@pytest.mark.parametrize("many", ["ids", "values"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_comes_first_is_not_taken_for_another_format(file: Path, protocol: int, many: str) -> None:
    """Ids and audio are MulT's fields too."""
    first = {
        "ids": {"id": [str(each) for each in range(40_000)]},
        "values": {"audio": np.arange(1e6).reshape(1, 100, 10_000)},
    }
    write(file, {"train": {**first[many], "raw_text": ["a"], "regression_labels": [1.0]}}, protocol)
    assert detect([file]) == "mmsa"


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_where_the_head_does_not_decide_the_format_is_asked_for(
    file: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle_glimpse, "_GLIMPSE_SCANNED", 1 << 18)
    write(file, {"train": {"audio": np.arange(1e5).reshape(1, 100, 1000), "raw_text": ["a"]}}, protocol)
    if protocol:  # whose arrays have a length that can be passed over
        assert detect([file]) == "mmsa"
        return
    with pytest.raises(
        DataError,
        match=r"not recognised as any of the formats mmsa, .*; if it is one of them, give the format by name",
    ):
        detect([file])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_global_that_is_not_read_is_named(file: Path, protocol: int) -> None:
    content, _ = layouts_pickled.mmsa()
    write(file, defaultdict(dict, content), protocol)
    with pytest.raises(
        DataError, match=r"not recognised as .*; it asks for 'collections.defaultdict', which is not read"
    ):
        detect([file])


def test_ids_of_an_encoder(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    _as_ids(content, truths)
    done = converted(file, content, text="ids")
    assert_holds(done.corpus, truths)
    assert done.corpus.modalities[0].kind == "tokens"
    assert "text: ids of text_bert, without padding" in done.notes
    for split in content.values():
        del split["text"]
    assert_holds(converted(file, content).corpus, truths)


def test_without_an_attention_mask_zeros_end_the_text(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        del split["text_bert"]
        split["text"] = padded([clip.features["text"] for clip in truths[role]], 7, 4)
        for clip in truths[role]:
            clip.tokens = {}
    for clip in truths["test"]:
        clip.tokens = {"text": tuple(map(str, range(len(clip.features["text"]))))}
        clip.text = " ".join(clip.tokens["text"])
    split["raw_text"] = [clip.text for clip in truths["test"]]
    assert_holds(converted(file, content).corpus, truths)


def test_without_declared_lengths_zeros_end_audio_and_vision(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        del split["audio_lengths"], split["vision_lengths"]
        for clip in truths[role]:
            clip.features["vision"] = clip.features["vision"][:-1]
    assert_holds(converted(file, content).corpus, truths)


def test_aligned_content_past_the_text_is_counted(file: Path) -> None:
    content, truths = layouts_pickled.mmsa(aligned=True)
    row = next(row for row, clip in enumerate(truths["train"]) if len(clip.features["text"]) < 6)
    content["train"]["audio"][row, 5] = 1.0
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert done.faults == (("content outside the attention mask", "audio", "dropped", 1),)


def _as_ids(content: Any, truths: Truths) -> None:
    for role, clips in truths.items():
        for row, clip in enumerate(clips):
            clip.features["text"] = content[role]["text_bert"][row, 0, : len(clip.features["text"])].astype(
                np.int64
            )


@pytest.mark.parametrize("text", ["features", "ids"])
@pytest.mark.parametrize("front", [False, True])
def test_aligned_modalities_have_the_positions_of_the_mask(file: Path, text: str, front: bool) -> None:
    """Though audio and vision are zero in the last word, and one of them throughout."""
    content, truths = layouts_pickled.mmsa(aligned=True)
    for role, split in content.items():
        split["vision"][0] = 0
        truths[role][0].features["vision"][:] = 0
        for row, clip in enumerate(truths[role]):
            length = len(clip.features["text"])
            split["audio"][row, length - 1] = 0
            clip.features["audio"][-1] = 0
            if front:
                for name in ("text", "audio", "vision"):
                    split[name][row] = np.roll(split[name][row], 7 - length, axis=0)
                split["text_bert"][row] = np.roll(split["text_bert"][row], 7 - length, axis=-1)
    if text == "ids":
        for role, clips in truths.items():
            for row, clip in enumerate(clips):
                start = (7 - len(clip.features["text"])) * front
                ids = content[role]["text_bert"][row, 0, start : start + len(clip.features["text"])]
                clip.features["text"] = ids.astype(np.int64)
    done = converted(file, content, text=text)
    assert_holds(done.corpus, truths)
    assert "aligned: all modalities of a clip have the positions of its attention mask" in done.notes


@pytest.mark.parametrize("front", [False, True])
def test_aligned_modalities_without_a_mask_have_the_positions_of_the_longest(file: Path, front: bool) -> None:
    """Each modality in turn is the only one that is not zero in the outermost word."""
    content, truths = layouts_pickled.mmsa(aligned=True)
    for role, split in content.items():
        del split["text_bert"]
        for row, clip in enumerate(truths[role]):
            clip.features["vision"][-1] = 1
            for place, name in enumerate(("text", "audio", "vision")):
                if place != row % 3:
                    clip.features[name][0 if front else -1] = 0
            clip.tokens = {}
        for name, width in (("text", 4), ("audio", 3), ("vision", 2)):
            split[name] = padded([clip.features[name] for clip in truths[role]], 7, width, front=front)
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    side = "front" if front else "back"
    assert (
        f"aligned: all modalities of a clip have the positions of the longest, zeros at the {side} taken for"
        " padding" in done.notes
    )


def test_a_modality_of_as_many_positions_is_not_aligned_where_another_has_more(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        del split["audio_lengths"], split["vision_lengths"]
        for clip in truths[role]:
            clip.features["vision"] = clip.features["vision"][:-1]
            clip.features["audio"] = clip.features["audio"][: len(clip.features["text"]) - 1]
        split["audio"] = padded([clip.features["audio"] for clip in truths[role]], 7, 3)
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert "content: text by the attention mask; audio, vision by zeros at the back" in done.notes


def test_positions_that_are_declared_are_not_aligned(file: Path) -> None:
    content, truths = layouts_pickled.mmsa(aligned=True)
    for role, split in content.items():
        split["audio_lengths"] = [len(clip.features["audio"]) - 1 for clip in truths[role]]
        for row, clip in enumerate(truths[role]):
            clip.features["audio"] = clip.features["audio"][:-1]
            split["audio"][row, len(clip.features["audio"]) :] = 0
            clip.features["vision"] = clip.features["vision"][:-1]
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert (
        "content: text by the attention mask; audio by declared lengths, padded at the back; vision by zeros"
        " at the back" in done.notes
    )


def test_lengths_of_the_text_come_before_its_mask(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        del split["raw_text"]
        split["text_lengths"] = [len(clip.features["text"]) - 1 for clip in truths[role]]
        split["text"] = padded([clip.features["text"][:-1] for clip in truths[role]], 7, 4)
        for clip in truths[role]:
            clip.features["text"], clip.tokens, clip.text = clip.features["text"][:-1], {}, None
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert "content: text, audio, vision by declared lengths, padded at the back" in done.notes


def test_padding_at_the_front_is_found_without_lengths_and_mask(file: Path) -> None:
    """Layout as MMSA-FET writes it on request; a clip that ends in silence does not hide it."""
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        del split["audio_lengths"], split["vision_lengths"], split["text_bert"]
        for name, steps, width in (("text", 7, 4), ("audio", 9, 3), ("vision", 11, 2)):
            split[name] = padded([clip.features[name] for clip in truths[role]], steps, width, front=True)
        for clip in truths[role]:
            clip.tokens = {}
    truths["train"][0].features["audio"][-1] = content["train"]["audio"][0, -1] = 0
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert "content: text, audio, vision by zeros at the front" in done.notes


def test_clips_of_their_own_length(file: Path) -> None:
    """A list, or an array of objects, of one array per clip."""
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        split["audio"] = [clip.features["audio"] for clip in truths[role]]
        ragged = np.empty(len(truths[role]), object)
        ragged[:] = [clip.features["vision"] for clip in truths[role]]
        split["vision"] = ragged
    assert_holds(converted(file, content).corpus, truths)


@pytest.mark.parametrize("form", ["column-major", "turned"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_that_lie_otherwise(file: Path, protocol: int, form: str) -> None:
    content, truths = layouts_pickled.mmsa()
    for split in content.values():
        for name in ("text", "audio", "vision"):
            turned = np.ascontiguousarray(split[name].transpose(1, 0, 2)).transpose(1, 0, 2)
            split[name] = np.asfortranarray(split[name]) if form == "column-major" else turned
    write(file, content, protocol)
    assert_holds(convert("mmsa", [file], file.parent / "corpus").corpus, truths)


def test_labels_of_a_modality_and_classes(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        split["regression_labels_T"] = [np.float32(row / 10) for row in range(len(truths[role]))]
        split["regression_labels_A"] = np.zeros((len(truths[role]), 1))
    content["config"] = {"about": "anything"}
    done = converted(file, content, label="regression_labels_T")
    assert [each.target for each in done.corpus.split("train")] == [
        float(np.float32(row / 10)) for row in range(5)
    ]
    assert done.corpus.task.label_range == (-1.0, 1.0)
    assert done.corpus.task.is_sentiment  # as in SIMS
    assert done.notes[0] == "label: regression_labels_T"
    assert done.notes[-1] == "dropped: config"
    done = converted(file, content, label="annotations")
    assert done.corpus.task.classes == ("Negative", "Neutral", "Positive")
    names = ["Negative", "Neutral", "Positive"]
    assert [names[int(each.target)] for each in done.corpus.split("train")] == content["train"]["annotations"]
    done = converted(file, content, label="classification_labels")
    assert done.corpus.task.classes == ("0", "2")


@pytest.mark.parametrize("many", [False, True])
def test_classes_that_splits_write_in_different_types(file: Path, many: bool) -> None:
    content, _ = layouts_pickled.mmsa()
    given = {"train": [10, 2, 12, 1, 0], "valid": [11.0, 2.0], "test": ["3", "10", "0"]}
    for role, values in given.items():
        content[role]["classification_labels"] = values if many else np.array(values[:2] * 3)[: len(values)]
    if not many:
        content["test"]["classification_labels"] = np.array([2.0, 0.5, 10.0])
    corpus = converted(file, content, label="classification_labels").corpus
    assert corpus.task.classes == (
        ("0", "1", "2", "3", "10", "11", "12") if many else ("0.5", "2", "10", "11")
    )
    found = {
        role: [corpus.task.classes[int(each.target)] for each in split]
        for role, split in corpus.splits.items()
    }
    if many:
        assert found == {role: [str(int(value)) for value in values] for role, values in given.items()}


@pytest.mark.parametrize("form", ["array", "lists", "arrays"])
def test_labels_of_which_a_clip_has_several(file: Path, form: str) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        hot = np.eye(3)[split["classification_labels"].astype(int)]
        split["classification_labels"] = (
            {"array": hot, "lists": hot.tolist(), "arrays": list(hot)}[form] if role != "test" else [1, 2, 0]
        )
        for clip in truths[role]:
            del clip.labels["classification_labels"]
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    found = "an array of shape (5, 3)" if form == "array" else "3 per clip"
    assert done.notes[-1] == f"classification_labels: dropped, expected one label per clip, found {found}"
    with pytest.raises(
        DataError, match="split 'train': classification_labels: expected one label per clip, found"
    ) as caught:
        converted(file, content, label="classification_labels")
    assert found in str(caught.value)


@pytest.mark.parametrize("form", ["list", "array"])
def test_texts_that_are_not_there(file: Path, form: str) -> None:
    content, truths = layouts_pickled.mmsa()
    split = content["train"]
    split["raw_text"][0], split["raw_text"][1] = None, float("nan")
    if form == "array":
        split["raw_text"] = np.array(split["raw_text"], object)
        content["test"]["raw_text"] = np.full(3, np.nan)
        for clip in truths["test"]:
            clip.text, clip.tokens = None, {}
    for clip in truths["train"][:2]:
        clip.text, clip.tokens = None, {}
    assert_holds(converted(file, content).corpus, truths)


# Faults of real files


def test_values_that_are_not_finite(file: Path) -> None:
    content, truths = layouts_pickled.mmsa(dtype=np.float64)
    train = content["train"]["audio"]
    train[0, 0, 0], train[0, 1, 1], train[1, 0, 2], train[2, 0, 0] = -np.inf, np.nan, np.inf, 1e300
    for row, position, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 2), (2, 0, 0)):
        truths["train"][row].features["audio"][position, channel] = 0
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert sorted(done.faults) == [
        SILENCE,
        ("does not fit float32", "audio", "set to 0", 1),
        ("not finite", "audio", "set to 0", 3),
    ]


def test_a_signalling_nan_warns_nobody(file: Path) -> None:
    """Arithmetic with it would make numpy warn, and warnings are errors here."""
    content, truths = layouts_pickled.mmsa()
    content["train"]["audio"].view(np.uint32)[0, 0, 0] = 0x7FA00000
    truths["train"][0].features["audio"][0, 0] = 0
    for split in content.values():
        del split["vision_lengths"]
    for clips in truths.values():
        for clip in clips:
            clip.features["vision"] = clip.features["vision"][:-1]
    content["train"]["vision"].view(np.uint32)[0, 0, 0] = 0x7FA00000
    truths["train"][0].features["vision"][0, 0] = 0
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert sorted(done.faults) == [
        ("not finite", "audio", "set to 0", 1),
        ("not finite", "vision", "set to 0", 1),
    ]
    for split in content.values():
        split["text_bert"] = split["text_bert"].astype(np.float32)
    content["train"]["text_bert"].view(np.uint32)[0, 0, 0] = 0x7FA00000
    with pytest.raises(DataError, match="expected whole numbers from 0 as ids"):
        converted(file, content, text="ids")
    content["train"]["text_bert"].view(np.uint32)[0, 1, 0] = 0x7FA00000
    with pytest.raises(DataError, match="expected an attention mask of ones"):
        converted(file, content)


def test_declared_lengths_that_do_not_fit(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    split, clips = content["train"], truths["train"]
    split["audio"][0], split["audio_lengths"][0] = 1.0, 400
    clips[0].features["audio"] = split["audio"][0].copy()
    split["audio"][1], split["audio_lengths"][1] = 1.0, 4
    clips[1].features["audio"] = split["audio"][1, :4].copy()
    split["vision"][2], split["vision_lengths"][2] = 0.0, 3
    split["vision"][2, -3:] = 2.0
    clips[2].features["vision"] = split["vision"][2, -3:].copy()
    split["vision_lengths"][3] = 0
    del clips[3].features["vision"]
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert sorted(done.faults) == [
        (*SILENCE[:3], SILENCE[3] - 2),
        ("declared length too long", "audio", "set to the length of the array", 1),
        ("declared length too short", "audio", "positions past it dropped", 1),
        ("declared length too short", "vision", "padding at the front, content taken from the end", 1),
        ("declared length too short", "vision", "positions past it dropped", 1),
        ("zero length", "vision", "taken as missing", 1),
    ]


@pytest.mark.parametrize("seen", ["in train", "in test alone"])
def test_declared_lengths_of_clips_that_are_padded_at_the_front(file: Path, seen: str) -> None:
    """One clip ends in silence as long as its padding, another has nothing but silence; they are padded as
    the others are.
    """
    content, truths = layouts_pickled.mmsa()
    random = np.random.default_rng(1)
    for role, clips in truths.items():
        for clip in clips:
            clip.features["audio"] = random.normal(
                size=(5 if seen == "in train" or role == "test" else 9, 3)
            ).astype(np.float32)
        quiet = clips[0].features["audio"]
        quiet[1:] = 0
        if role == "train" and seen == "in train":
            clips[1].features["audio"][:] = 0
        content[role]["audio"] = padded([clip.features["audio"] for clip in clips], 9, 3, front=True)
        content[role]["audio_lengths"] = [len(clip.features["audio"]) for clip in clips]
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    silent = ("content shorter than declared", "audio", "kept, zero rows at its beginning", 1)
    assert sorted(done.faults) == ([silent, SILENCE] if seen == "in train" else [SILENCE])
    assert (
        "content: text by the attention mask; vision by declared lengths, padded at the back; "
        "audio by declared lengths, padded at the front" in done.notes
    )


def test_declared_lengths_that_do_not_fit_a_file_that_is_padded_at_the_front(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, clips in truths.items():
        for row, clip in enumerate(clips):
            clip.features["audio"] = np.full((4, 3), row + 1, np.float32)
        content[role]["audio"] = padded([clip.features["audio"] for clip in clips], 9, 3, front=True)
        content[role]["audio_lengths"] = [4] * len(clips)
    content["train"]["audio"][0] = np.roll(content["train"]["audio"][0], 4, axis=0)
    content["train"]["audio"][1, 3:] = 2
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert sorted(done.faults) == [
        SILENCE,
        ("declared length too short", "audio", "padding at the back, content taken from the beginning", 1),
        ("declared length too short", "audio", "positions before it dropped", 1),
    ]


def test_clips_without_content_or_label_and_repeated_ids(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    split = content["train"]
    split["regression_labels"][0] = np.nan
    split["text_bert"][1, 1] = 0
    split["audio_lengths"][1] = split["vision_lengths"][1] = 0
    split["audio"][1] = split["vision"][1] = 0
    split["text_bert"][2, 1] = 0
    del truths["train"][2].features["text"]
    truths["train"][2].tokens = {}
    split["id"][3] = split["id"][4]
    content["test"]["id"][0] = split["id"][4]
    truths["train"][3].id = split["id"][4]
    truths["train"][4].id = f"{split['id'][4]}#2"
    truths["test"][0].id = f"{split['id'][4]}#3"
    truths["test"][0].group = truths["train"][4].group
    truths["train"][0].target = None  # its class is known
    del truths["train"][1]
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert ("not a number label", "train", "clip kept for its other labels", 1) in done.faults
    assert {(kind, where): count for kind, where, _, count in done.faults} == {
        ("duplicate id", "train"): 1,
        ("duplicate id", "test"): 1,
        ("not a number label", "train"): 1,
        ("zero length", "text"): 2,
        ("zero length", "audio"): 1,
        ("zero length", "vision"): 1,
        ("sample without anything", "train"): 1,
        SILENCE[:2]: SILENCE[3] - 1,
    }


def test_clips_that_are_shorter_than_declared_are_kept_and_counted(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for row, end in ((0, 0), (1, 1), (2, len(truths["train"][2].features["audio"]))):
        truths["train"][row].features["audio"][end:] = 0
        content["train"]["audio"][row, end:] = 0
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert sorted(done.faults) == [
        ("content shorter than declared", "audio", "kept, zero rows at its end", 2),
        SILENCE,
    ]


@pytest.mark.parametrize("form", ["lists", "lists of lists", "column", "arrays", "None"])
def test_forms_of_labels(file: Path, form: str) -> None:
    content, truths = layouts_pickled.mmsa()
    for split in content.values():
        values = split["regression_labels"].tolist()
        split["regression_labels"] = {
            "lists": [[value] for value in values],
            "lists of lists": [[(value,)] for value in values],
            "column": np.array(values)[:, None],
            "arrays": [np.array([[value]]) for value in values],
            "None": values,
        }[form]
    if form == "None":
        content["train"]["regression_labels"][:2] = [None, float("nan")]
        for clip in truths["train"][:2]:
            clip.target = None
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert [count for kind, *_, count in done.faults if kind == "not a number label"] == [2] * (
        form == "None"
    )


def test_the_labels_of_every_modality_are_kept(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        split["regression_labels_T"] = np.arange(len(truths[role])) / 8
        split["regression_labels_A"] = [[None]] * len(truths[role])
        for row, clip in enumerate(truths[role]):
            clip.labels["regression_labels_T"] = row / 8
        split["annotations"][0] = ""
        del truths[role][0].labels["annotations"]
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    kept = "labels kept besides: regression_labels_T, regression_labels_A, annotations, classification_labels"
    assert done.notes[-1] == kept
    for split in content.values():
        split["regression_labels_T"] = [np.zeros(2), *split["regression_labels_T"][1:]]
    with pytest.raises(
        DataError, match="split 'train': regression_labels_T: row 0: expected text, found numpy array"
    ):
        converted(file, content)


def test_fields_whose_names_are_near_those_of_the_format(file: Path) -> None:
    """Fields of the format that are there too, so that none of these is taken for one."""
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        split |= {name: [0] * len(truths[role]) for name in ("classification_labels_T", "ids", "annotation")}
    content["text"] = "what it is"
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert done.notes[-1] == "dropped: annotation, classification_labels_T, ids, text"


@pytest.mark.parametrize(
    "empty", [{}, {"id": [], "audio": np.zeros((0, 9, 3)), "regression_labels": np.zeros(0)}]
)
def test_a_split_without_clips_is_left_out(file: Path, empty: Any) -> None:
    content, truths = layouts_pickled.mmsa()
    content["valid"], content["config"] = empty, {"about": "anything"}
    del truths["valid"]
    assert detect([write(file, content)]) == "mmsa"
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert done.notes[0] == "split 'valid' has no clips: dropped"


@pytest.mark.parametrize("name", ["dev", "validation"])
def test_other_names_of_the_valid_split(file: Path, name: str) -> None:
    content, truths = layouts_pickled.mmsa()
    content = {"train": content["train"], name: content["valid"], "test": content["test"]}
    assert_holds(converted(file, content).corpus, truths)


@pytest.mark.parametrize("text", ["features", "ids"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("form", ["list", "objects", "tuple"])
def test_text_bert_as_a_list(file: Path, form: str, protocol: int, text: Any) -> None:
    content, truths = layouts_pickled.mmsa()
    if text == "ids":
        _as_ids(content, truths)
    for split in content.values():
        arrays = list(split["text_bert"])
        ragged = np.empty(len(arrays), object)
        ragged[:] = arrays
        split["text_bert"] = {"list": arrays, "objects": ragged, "tuple": tuple(arrays)}[form]
    write(file, content, protocol)
    assert_holds(convert("mmsa", [file], file.parent / "corpus", mmsa.Options(text=text)).corpus, truths)
    content["train"]["text_bert"] = [*content["train"]["text_bert"][:4], np.zeros((2, 7))]
    with pytest.raises(
        DataError,
        match=r"text_bert: expected a list of arrays of shape \(3, time\), found float64 of shape \(2, 7\)",
    ):
        converted(file, content)


def test_a_mask_of_other_positions_than_the_text_is_not_used(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        split["text_bert"] = split["text_bert"][:, :, :6]
        split["text"] = padded([clip.features["text"] for clip in truths[role]], 7, 4)
        for clip in truths[role]:
            clip.tokens = {}
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert (
        "content: audio, vision by declared lengths, padded at the back; text by zeros at the back"
        in done.notes
    )
    assert done.notes[-1] == "dropped: text_bert"


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_empty_text_of_numpy(file: Path, protocol: int) -> None:
    content, truths = layouts_pickled.mmsa()
    content["train"]["raw_text"] = [np.str_(text) for text in content["train"]["raw_text"]]
    content["train"]["raw_text"][0] = np.str_("")
    truths["train"][0].text, truths["train"][0].tokens = None, {}
    write(file, content, protocol)
    assert_holds(convert("mmsa", [file], file.parent / "corpus").corpus, truths)


def test_labels_out_of_range(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    content["valid"]["regression_labels"][1] = 3.5
    with pytest.raises(DataError, match=r"mosi\.pkl: .*valid.*3\.5"):
        converted(file, content)
    done = converted(file, content, clip_labels=True)
    truths["valid"][1].target = 3.0
    assert_holds(done.corpus, truths)
    assert [(kind, count) for kind, _, _, count in done.faults] == [("label out of range", 1), SILENCE[::3]]


def test_text_that_is_not_utf_8(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    content["train"]["id"][0] = b"caf\xe9"
    content["train"]["raw_text"][0] = "half \ud800"
    truths["train"][0].id, truths["train"][0].group, truths["train"][0].text = "café", None, "half ?"
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert sorted(done.faults) == [
        SILENCE,
        ("text that is not UTF-8", "id", "read as latin-1", 1),
        ("text that is not UTF-8", "raw_text", "half characters replaced by ?", 1),
    ]


@pytest.mark.parametrize("protocol", [0, 4])
def test_half_characters_in_names_of_fields_and_in_long_texts(file: Path, protocol: int) -> None:
    content, truths = layouts_pickled.mmsa()
    for split in content.values():
        split["zz\ud800q"] = [0] * len(split["id"])
    content["train"]["raw_text"][0] = "\ud800" + 5000 * "a"
    truths["train"][0].tokens = {}
    write(file, content, protocol)
    done = convert("mmsa", [file], file.parent / "corpus")
    truths["train"][0].text = done.corpus.split("train")[0].text
    assert_holds(done.corpus, truths)
    assert str(truths["train"][0].text).replace("\ufffd", "?").lstrip("?") == 5000 * "a"
    assert done.notes[-1] == "dropped: zz?q"


def _without(name: str) -> Any:
    def change(content: dict[str, Any]) -> None:
        for split in content.values():
            del split[name]

    return change


def _set(role: str, name: str, value: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        content[role][name] = value

    return change


def _misspelt(content: dict[str, Any]) -> None:
    content["valid"]["audio_lenghts"] = content["valid"].pop("audio_lengths")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _without("regression_labels"),
            "no label 'regression_labels', only \\['annotations', 'classification_labels'\\]",
        ),
        (
            _set("train", "audio", np.zeros((4, 2, 3))),
            "split 'train': audio: expected 5 entries, as many as in regression_labels, found 4",
        ),
        (_set("train", "audio", "loud"), "audio: expected 5 entries.*found str"),
        (
            _set("train", "audio", np.zeros((5, 3))),
            r"audio: expected numbers of shape \(clips, time, width\), found float64 of shape \(5, 3\)",
        ),
        (
            _set("train", "audio", [np.zeros((2, 3))] * 4 + [np.zeros((2, 4))]),
            "audio: expected arrays of one width",
        ),
        (
            _set("train", "audio", np.zeros((5, 0, 3))),
            "audio: expected arrays of one width with at least one position",
        ),
        (_set("train", "audio", np.array(["a"] * 5)), "audio: expected numbers of shape"),
        (
            _set("test", "text_bert", np.zeros((3, 2, 7))),
            r"text_bert: expected numbers of shape \(clips, 3, time\)",
        ),
        (
            _set("test", "text_bert", np.full((3, 3, 7), 2)),
            "text_bert: row 0: expected an attention mask of ones without holes",
        ),
        (
            _set("test", "text_bert", np.tile([1, 0, 1], (3, 3, 1))),
            "text_bert: row 0: expected an attention mask of ones without holes",
        ),
        (
            _set("test", "audio_lengths", [1, -1, 2]),
            "audio_lengths: row 1: expected a whole number from 0, found -1",
        ),
        (
            _set("test", "audio_lengths", [1, 2.5, 2]),
            "audio_lengths: row 1: expected a whole number from 0, found 2.5",
        ),
        (_set("test", "id", ["a", None, "b"]), "id: row 1: expected text, found None"),
        (_set("test", "id", ["a", float("nan"), "b"]), "id: row 1: expected text, found NaN"),
        (_set("test", "id", np.full(3, np.nan)), "id: row 0: expected text, found NaN"),
        (_set("test", "id", ["a", "", "b"]), "expected text that is not empty"),
        (
            _set("test", "regression_labels", np.zeros((3, 2))),
            r"regression_labels: expected 3 numbers, one per clip, found an array of shape",
        ),
        (_misspelt, "found an unknown field 'audio_lenghts'; perhaps 'audio_lengths', mistyped or damaged"),
        (lambda content: content["test"].pop("vision"), "field 'vision' is in one of the splits"),
        (
            lambda content: content.pop("train") and content.update(trian=1),
            "found an unknown field 'trian'; perhaps 'train'",
        ),
        (lambda content: content.update(test=[1]), "split 'test': expected a dict of fields, found list"),
        (lambda content: content.clear(), "expected a dict of train, valid, test"),
        (_set("test", "regression_labels", []), "has no clips"),
        (
            _set("test", "regression_labels", [1.0, "0.5", 2.0]),
            "split 'test': regression_labels: row 1: expected a number, found '0.5'",
        ),
        (
            _set("test", "regression_labels", [[1.0], [0.5, 1.0], [2.0]]),
            "regression_labels: row 1: expected a number, found list",
        ),
        (
            _set("test", "regression_labels", np.array(["1", "2", "3"])),
            "regression_labels: row 0: expected a number, found '1'",
        ),
        (
            lambda content: content.update(dev=content["valid"]),
            "'valid' and 'dev' are both the valid split, expected one of them",
        ),
        (
            lambda content: [content.update({role: {"id": []}}) for role in list(content)],
            "no split has any clips, only empty ones: train",
        ),
    ],
)
def test_what_is_refused(file: Path, change: Any, said: str) -> None:
    content, _ = layouts_pickled.mmsa()
    change(content)
    with pytest.raises(DataError, match=said) as caught:
        converted(file, content)
    assert str(file) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(path.name for path in file.parent.iterdir()) == ["mosi.pkl"]


def test_refusals_by_options(file: Path) -> None:
    content, _ = layouts_pickled.mmsa()
    with pytest.raises(DataError, match="expected width 4 by dims, found width 3"):
        converted(file, content, dims={"audio": 4})
    with pytest.raises(DataError, match="no label 'text'"):
        converted(file, content, label="text")
    content["train"]["text_bert"][0, 0, 1] = 7.5
    with pytest.raises(DataError, match="text_bert: row 0: expected whole numbers from 0 as ids"):
        converted(file, content, text="ids")
    _without("text_bert")(content)
    with pytest.raises(DataError, match="expected the field 'text_bert' for text ids"):
        converted(file, content, text="ids")
    with pytest.raises(DataError, match="mmsa: expected one file, found 2"):
        mmsa.read([file, file], mmsa.Options())


def test_one_split_is_enough(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    only: Truths = {"valid": truths["valid"]}
    assert_holds(converted(file, {"valid": content["valid"]}).corpus, only)


@pytest.mark.parametrize(
    "names", [("TRAIN", "Dev", "Test"), ("training", "val", "testing"), ("train", "development", "test")]
)
def test_splits_by_all_the_names_that_splits_have(file: Path, names: tuple[str, ...]) -> None:
    content, truths = layouts_pickled.mmsa()
    write(file, dict(zip(names, content.values(), strict=True)))
    assert detect([file]) == "mmsa"
    assert_holds(convert("auto", [file], file.parent / "corpus").corpus, truths)


def test_a_split_of_another_name_is_not_left_out_where_one_is_absent(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    write(file, {"held\ud800out" if name == "test" else name: part for name, part in content.items()})
    with pytest.raises(
        DataError,
        match=r"'held\?out' looks like a split, expected one of the names train, training, valid, val, ",
    ):
        convert("mmsa", [file], file.parent / "corpus")
    facts = {"text": [0.5], "audio": [1.5], "ids": [[["a", "b"], 1, 2]], "many": [1, 2, 3]}
    write(
        file, {**content, "mean\ud800": facts, "names": ["a", "b"], "none": [], "train_mix": content["train"]}
    )
    done = convert("mmsa", [file], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.notes[-1] == "dropped: mean?, names, none, train_mix"
