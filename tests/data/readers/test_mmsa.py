"""MMSA pickles, read value by value and length by length, and what is done about their known faults."""

from pathlib import Path
from typing import Any, Literal

import layouts_pickled
import numpy as np
import pytest
from layouts_pickled import Truths, assert_holds, padded, write, write_old

from alignmamba.contracts import Corpus
from alignmamba.data.readers import mmsa
from alignmamba.data.readers.converting import Conversion, convert, detect
from alignmamba.data.readers.foreign import ReadOptions
from alignmamba.errors import DataError

PROTOCOLS = [0, 1, 2, 3, 4, 5]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mosi.pkl"


def converted(file: Path, content: Any, **options: Any) -> Conversion:
    return convert("mmsa", [write(file, content)], file.parent / "corpus", ReadOptions(**options), overwrite=True)


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
    assert done.faults == ()
    assert done.corpus.task.label_range == (-3.0, 3.0)
    assert [spec.name for spec in done.corpus.modalities] == ["text", "audio", "vision"]
    assert done.corpus.name == "mosi"
    assert "left out: annotations, classification_labels" in done.notes


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_files_of_python_2(file: Path, protocol: int) -> None:
    content, truths = layouts_pickled.mmsa()
    write_old(file, content, protocol)
    assert detect([file]) == "mmsa"
    done = convert("auto", [file], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.faults == ()


def test_ids_of_an_encoder(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, clips in truths.items():
        for row, clip in enumerate(clips):
            clip.features["text"] = content[role]["text_bert"][row, 0, : len(clip.features["text"])].astype(np.int64)
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
    split["raw_text"] = [" ".join(map(str, range(len(clip.features["text"])))) for clip in truths["test"]]
    for clip in truths["test"]:
        clip.tokens = {"text": tuple(map(str, range(len(clip.features["text"]))))}
    assert_holds(converted(file, content).corpus, truths)


def test_without_declared_lengths_zeros_end_audio_and_vision(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    for role, split in content.items():
        del split["audio_lengths"], split["vision_lengths"]
        for clip in truths[role]:
            clip.features["vision"] = clip.features["vision"][:-1]
    assert_holds(converted(file, content).corpus, truths)


def test_aligned_content_past_the_text_is_kept(file: Path) -> None:
    content, truths = layouts_pickled.mmsa(aligned=True)
    row = next(row for row, clip in enumerate(truths["train"]) if len(clip.features["text"]) < 6)
    content["train"]["audio"][row, 5] = 1.0
    truths["train"][row].features["audio"] = content["train"]["audio"][row, :6]
    assert_holds(converted(file, content).corpus, truths)


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
    assert [each.target for each in done.corpus.split("train")] == [float(np.float32(row / 10)) for row in range(5)]
    assert done.corpus.task.label_range == (-1.0, 1.0)
    left_out = "left out: annotations, classification_labels, regression_labels, regression_labels_A, config"
    assert done.notes[0] == "label: regression_labels_T"
    assert left_out in done.notes
    done = converted(file, content, label="annotations")
    assert done.corpus.task.classes == ("Negative", "Neutral", "Positive")
    names = ["Negative", "Neutral", "Positive"]
    assert [names[int(each.target)] for each in done.corpus.split("train")] == content["train"]["annotations"]
    done = converted(file, content, label="classification_labels")
    assert done.corpus.task.classes == tuple(
        sorted({str(each) for split in ("train", "valid", "test") for each in content[split]["classification_labels"].tolist()})
    )


# Faults of real files


def test_values_that_are_not_finite(file: Path) -> None:
    content, truths = layouts_pickled.mmsa(dtype=np.float64)
    train = content["train"]["audio"]
    train[0, 0, 0], train[0, 1, 1], train[1, 0, 2], train[2, 0, 0] = -np.inf, np.nan, np.inf, 1e300
    for row, position, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 2), (2, 0, 0)):
        truths["train"][row].features["audio"][position, channel] = 0
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert done.faults == (("not finite", "audio", "set to 0", 3), ("does not fit float32", "audio", "set to 0", 1))


def test_a_signalling_nan_warns_nobody(file: Path) -> None:
    """Which numpy would say of arithmetic with it, and warnings are errors here."""
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
    assert sorted(done.faults) == [("not finite", "audio", "set to 0", 1), ("not finite", "vision", "set to 0", 1)]
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
        ("declared length too long", "audio", "set to the length of the array", 1),
        ("declared length too short", "audio", "positions past it left out", 1),
        ("declared length too short", "vision", "padding at the front, content taken from the end", 1),
        ("declared length too short", "vision", "positions past it left out", 1),
        ("zero length", "vision", "taken as missing", 1),
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
    truths["train"] = truths["train"][2:]
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert {(kind, where): count for kind, where, _, count in done.faults} == {
        ("duplicate id", "train"): 1,
        ("duplicate id", "test"): 1,
        ("not a number label", "train"): 1,
        ("zero length", "text"): 2,
        ("zero length", "audio"): 1,
        ("zero length", "vision"): 1,
        ("sample without anything", "train"): 1,
    }


def test_labels_out_of_range(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    content["valid"]["regression_labels"][1] = 3.5
    with pytest.raises(DataError, match=r"mosi\.pkl: .*valid.*3\.5"):
        converted(file, content)
    done = converted(file, content, clip_labels=True)
    truths["valid"][1].target = 3.0
    assert_holds(done.corpus, truths)
    assert [(kind, count) for kind, _, _, count in done.faults] == [("label out of range", 1)]


def test_text_that_is_not_utf_8(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    content["train"]["id"][0] = b"caf\xe9"
    content["train"]["raw_text"][0] = "half \ud800"
    truths["train"][0].id = "café"
    done = converted(file, content)
    assert_holds(done.corpus, truths)
    assert sorted(done.faults) == [
        ("text that is not UTF-8", "id", "read as latin-1", 1),
        ("text that is not UTF-8", "raw_text", "half characters replaced by ?", 1),
    ]


def _without(name: str) -> Any:
    def change(content: dict[str, Any]) -> None:
        for split in content.values():
            del split[name]

    return change


def _set(role: str, name: str, value: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        content[role][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("regression_labels"), "no label 'regression_labels', only \\['annotations', 'classification_labels'\\]"),
        (_set("train", "audio", np.zeros((4, 2, 3))), "split 'train': audio: expected 5 entries, as many as in regression_labels, found 4"),
        (_set("train", "audio", "loud"), "audio: expected 5 entries.*found str"),
        (
            _set("train", "audio", np.zeros((5, 3))),
            r"audio: expected numbers of shape \(clips, time, width\), found float64 of shape \(5, 3\)",
        ),
        (_set("train", "audio", [np.zeros((2, 3))] * 4 + [np.zeros((2, 4))]), "audio: expected arrays of one width"),
        (_set("train", "audio", np.zeros((5, 0, 3))), "audio: expected arrays of one width with at least one position"),
        (_set("train", "audio", np.array(["a"] * 5)), "audio: expected numbers of shape"),
        (_set("test", "text_bert", np.zeros((3, 2, 7))), r"text_bert: expected numbers of shape \(clips, 3, time\)"),
        (_set("test", "text_bert", np.full((3, 3, 7), 2)), "text_bert: row 0: expected an attention mask of ones without holes"),
        (_set("test", "text_bert", np.tile([1, 0, 1], (3, 3, 1))), "text_bert: row 0: expected an attention mask of ones without holes"),
        (_set("test", "audio_lengths", [1, -1, 2]), "audio_lengths: row 1: expected a whole number from 0, found -1"),
        (_set("test", "audio_lengths", [1, 2.5, 2]), "audio_lengths: row 1: expected a whole number from 0, found 2.5"),
        (_set("test", "id", ["a", None, "b"]), "id: row 1: expected text, found NoneType"),
        (_set("test", "id", ["a", "", "b"]), "expected text that is not empty"),
        (
            _set("test", "regression_labels", np.zeros((3, 2))),
            r"regression_labels: expected 3 numbers, one per clip, found an array of shape",
        ),
        (_set("valid", "audio_lenghts", [1, 1]), "no such field as 'audio_lenghts'; is it 'audio_lengths', mistyped or damaged"),
        (lambda content: content["test"].pop("vision"), "field 'vision' is in one of the splits"),
        (lambda content: content.pop("train") and content.update(trian=1), "no such field as 'trian'; is it 'train'"),
        (lambda content: content.update(test=[1]), "split 'test': expected a dict of fields, found list"),
        (lambda content: content.clear(), "expected a dict of train, valid, test"),
        (_set("test", "regression_labels", []), "has no clips"),
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
    with pytest.raises(DataError, match="text ids are asked for, but the file has no 'text_bert'"):
        converted(file, content, text="ids")
    with pytest.raises(DataError, match="mmsa: expected one file, found 2"):
        mmsa.read([file, file], ReadOptions())


def test_one_split_is_enough(file: Path) -> None:
    content, truths = layouts_pickled.mmsa()
    only: Truths = {"valid": truths["valid"]}
    assert_holds(converted(file, {"valid": content["valid"]}).corpus, only)
