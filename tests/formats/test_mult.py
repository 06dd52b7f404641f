"""MulT pickles, read value by value and length by length."""

from pathlib import Path

import layouts_pickled
import numpy as np
import pytest
from layouts_pickled import assert_holds, write, write_old

from alignmamba.errors import DataError
from alignmamba.formats.conversion import convert
from alignmamba.formats.known_formats import detect
from alignmamba.formats.pickles.padded_layout import PaddedOptions


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mosi_data.pkl"


@pytest.mark.parametrize("front", [True, False])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_value(file: Path, protocol: int, aligned: bool, front: bool) -> None:
    content, truths = layouts_pickled.mult(aligned=aligned, front=front)
    write(file, content, protocol)
    assert detect([file]) == "mult"
    done = convert("auto", [file], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.faults == ()
    side = f"zeros at the {'front' if front else 'back'} taken for padding"
    assert done.notes == (
        f"aligned: all modalities of a clip have the positions of the longest, {side}" if aligned else side,
    )


@pytest.mark.parametrize("front", [True, False])
def test_a_word_without_a_vector_stays_aligned(file: Path, front: bool) -> None:
    """Its zeros are at the side of the padding; so are those of a face that was not found."""
    content, truths = layouts_pickled.mult(aligned=True, front=front)
    for role, split in content.items():
        for row, clip in enumerate(truths[role]):
            name = ("text", "audio", "vision")[row % 3]
            clip.features["vision"][0 if front else -1] = 1
            clip.features[name][0 if front else -1] = 0
            length, steps = len(clip.features["text"]), split["text"].shape[1]
            for each, values in clip.features.items():
                split[each][row, slice(steps - length, None) if front else slice(length)] = values
    done = convert("mult", [write(file, content)], file.parent / "corpus")
    assert_holds(done.corpus, truths)


def test_zero_rows_within_clips_are_kept_and_counted(file: Path) -> None:
    content, truths = layouts_pickled.mult()
    for row in (0, 2):
        last = len(truths["train"][row].features["audio"]) - 1
        truths["train"][row].features["audio"][last] = 0
        content["train"]["audio"][row, -1] = 0
    done = convert("mult", [write(file, content)], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.faults == (("zero rows within content", "audio", "kept", 2),)


def test_the_side_of_the_padding_is_that_of_most_clips(file: Path) -> None:
    content, truths = layouts_pickled.mult(front=False)
    content["train"]["audio"][0, 0] = truths["train"][0].features["audio"][0] = 0
    assert_holds(convert("mult", [write(file, content)], file.parent / "corpus").corpus, truths)


@pytest.mark.parametrize("name", ["dev", "validation"])
def test_other_names_of_the_valid_split(file: Path, name: str) -> None:
    content, truths = layouts_pickled.mult()
    content = {
        "config": {"about": "anything"},
        "train": content["train"],
        name: content["valid"],
        "test": content["test"],
    }
    assert detect([write(file, content)]) == "mult"
    done = convert("auto", [file], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.notes[-1] == "dropped: config"


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_files_of_python_2(file: Path, protocol: int) -> None:
    content, truths = layouts_pickled.mult()
    write_old(file, content, protocol)
    assert detect([file]) == "mult"
    assert_holds(convert("auto", [file], file.parent / "corpus").corpus, truths)


@pytest.mark.parametrize("form", ["text", "lists", "objects", "joined"])
def test_forms_of_ids(file: Path, form: str) -> None:
    content, truths = layouts_pickled.mult()
    for role, split in content.items():
        parts = [clip.id.split("$_$") for clip in truths[role]]
        joined = [clip.id for clip in truths[role]]
        split["id"] = {
            "text": np.array(parts),
            "lists": parts,
            "objects": np.array(parts, dtype=object),
            "joined": joined,
        }[form]
    assert_holds(convert("mult", [write(file, content)], file.parent / "corpus").corpus, truths)


def test_faults_are_counted(file: Path) -> None:
    content, truths = layouts_pickled.mult()
    content["train"]["audio"][0, -1, 0] = -np.inf
    truths["train"][0].features["audio"][-1, 0] = 0
    content["train"]["vision"][1] = 0
    del truths["train"][1].features["vision"]
    done = convert("mult", [write(file, content)], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert sorted(done.faults) == [
        ("not finite", "audio", "set to 0", 1),
        ("zero length", "vision", "taken as missing", 1),
    ]


def test_refusals(file: Path) -> None:
    content, _ = layouts_pickled.mult()
    content["train"]["labels"] = np.zeros((5, 4, 2))
    with pytest.raises(DataError, match=r"mosi_data\.pkl: labels: expected as many labels for each clip"):
        convert("mult", [write(file, content)], file.parent / "corpus")
    content["train"]["labels"] = np.zeros((5, 4, 3))
    with pytest.raises(
        DataError,
        match=r"mosi_data\.pkl: split 'train': labels: expected 5 numbers, one per clip, found an array",
    ):
        convert("mult", [write(file, content)], file.parent / "corpus")
    content, _ = layouts_pickled.mult()
    for split in content.values():
        for name in ("text", "audio", "vision"):
            del split[name]
    with pytest.raises(DataError, match="expected at least one of the fields text, audio, vision"):
        convert("mult", [write(file, content)], file.parent / "corpus")


def test_iemocap_has_four_emotions_of_which_one_is_the_target(file: Path) -> None:
    content, _ = layouts_pickled.mult()
    random = np.random.default_rng(0)
    there = {role: random.integers(0, 2, size=(len(part["labels"]), 4)) for role, part in content.items()}
    for role, part in content.items():
        part["labels"] = np.eye(2, dtype=np.int64)[there[role]]
    done = convert("mult", [write(file, content)], file.parent / "corpus")
    assert "several labels: neutral is the target, happy, sad, angry stand beside it" in done.notes
    assert done.corpus.task.classes == ("no", "yes")
    for role, split in done.corpus.splits.items():
        assert [sample.target for sample in split] == there[role][:, 0].tolist()
        assert [sample.labels["angry"] for sample in split] == there[role][:, 3].tolist()
    angry = convert("mult", [file], file.parent / "angry", options=PaddedOptions(label="angry")).corpus
    assert [sample.target for sample in angry.split("train")] == there["train"][:, 3].tolist()
    with pytest.raises(DataError, match=r"labels: label 'bored': expected one of \['neutral', 'happy'"):
        convert("mult", [file], file.parent / "bored", options=PaddedOptions(label="bored"))


@pytest.mark.parametrize("shape", [(-1, 6), (-1, 1, 6), (-1, 6, 1)])
def test_mosei_has_six_emotions(file: Path, shape: tuple[int, ...]) -> None:
    content, _ = layouts_pickled.mult()
    random = np.random.default_rng(0)
    values = {role: random.integers(0, 4, size=(len(part["labels"]), 6)) for role, part in content.items()}
    for role, part in content.items():
        part["labels"] = values[role].reshape(shape).astype(np.float32)
    corpus = convert("mult", [write(file, content)], file.parent / "corpus").corpus
    assert (corpus.task.kind, corpus.task.is_sentiment) == ("regression", False)
    assert [sample.target for sample in corpus.split("train")] == values["train"][:, 0].tolist()
    assert [sample.labels["fear"] for sample in corpus.split("train")] == values["train"][:, 5].tolist()
    values["valid"] = values["valid"].astype(float)
    content["valid"]["labels"] = np.where(np.arange(6) == 2, np.nan, values["valid"])
    with pytest.raises(DataError, match=r"split 'valid': labels: row 0: expected finite labels"):
        convert("mult", [write(file, content)], file.parent / "broken")


@pytest.mark.parametrize(
    "names", [("TRAIN", "Dev", "Test"), ("training", "val", "testing"), ("train", "development", "test")]
)
def test_splits_by_all_the_names_that_splits_have(file: Path, names: tuple[str, ...]) -> None:
    content, truths = layouts_pickled.mult()
    write(file, dict(zip(names, content.values(), strict=True)))
    assert detect([file]) == "mult"
    assert_holds(convert("auto", [file], file.parent / "corpus").corpus, truths)


def test_a_split_of_another_name_is_not_left_out_where_one_is_absent(file: Path) -> None:
    content, truths = layouts_pickled.mult()
    write(file, {"held\ud800out" if name == "test" else name: part for name, part in content.items()})
    with pytest.raises(
        DataError,
        match=r"'held\?out' looks like a split, expected one of the names train, training, valid, val, ",
    ):
        convert("mult", [file], file.parent / "corpus")
    facts = {"text": [0.5], "audio": [1.5], "ids": [[["a", "b"], 1, 2]], "many": [1, 2, 3]}
    write(file, {**content, "mean\ud800": facts, "names": ["a", "b"], "none": []})
    done = convert("mult", [file], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.notes[-1] == "dropped: mean?, names, none"
