"""MAG-BERT pickles, read value by value."""

from pathlib import Path
from typing import Any

import layouts_pickled
import numpy as np
import pytest
from layouts_pickled import assert_holds, write, write_old

from alignmamba.errors import DataError
from alignmamba.formats.conversion import convert
from alignmamba.formats.foreign import LabelOptions
from alignmamba.formats.known_formats import detect


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mosi.pkl"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_value(file: Path, protocol: int) -> None:
    content, truths = layouts_pickled.mag_bert()
    write(file, content, protocol)
    assert detect([file]) == "mag-bert"
    done = convert("auto", [file], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.faults == ()
    words = {word for words, *_ in (entry[0] for entry in content["train"]) for word in words}
    specs = {spec.name: (spec.kind, spec.dim) for spec in done.corpus.modalities}
    assert specs == {"text": ("tokens", len(words) + 1), "audio": ("features", 3), "vision": ("features", 4)}
    assert any(0 in clip.features["text"] for clip in truths["test"]), "else no unknown word was tried"


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_files_of_python_2(file: Path, protocol: int) -> None:
    content, truths = layouts_pickled.mag_bert()
    write_old(file, content, protocol)
    assert detect([file]) == "mag-bert"
    assert_holds(convert("auto", [file], file.parent / "corpus").corpus, truths)


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_other_names_of_the_valid_split(file: Path, name: str) -> None:
    content, truths = layouts_pickled.mag_bert()
    content = {"config": {}, name: content["dev"], "train": content["train"], "test": content["test"]}
    assert detect([write(file, content)]) == "mag-bert"
    assert_holds(convert("auto", [file], file.parent / "corpus").corpus, truths)
    write(file, {**content, "dev": content["test"]})
    with pytest.raises(DataError, match=f"'{name}' and 'dev' are both the valid split, expected one of them"):
        convert("mag-bert", [file], file.parent / "corpus", overwrite=True)


def test_a_split_without_clips_is_left_out(file: Path) -> None:
    content, truths = layouts_pickled.mag_bert()
    content["dev"] = []
    del truths["valid"]
    done = convert("auto", [write(file, content)], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.notes[0] == "split 'dev' has no clips: dropped"


def test_another_layout_is_named(file: Path) -> None:
    content, _ = layouts_pickled.mmsa()
    with pytest.raises(DataError, match=r"mosi\.pkl: split 'train': expected a list of clips, found dict$"):
        convert("mag-bert", [write(file, content)], file.parent / "corpus")


def test_faults_are_counted(file: Path) -> None:
    content, truths = layouts_pickled.mag_bert()
    (words, visual, acoustic), _, segment = content["train"][0]
    acoustic[0, 0] = np.nan
    content["train"][0] = ((words, visual[:0], acoustic), 2.5, segment)
    clip = truths["train"][0]
    clip.features["audio"] = np.nan_to_num(acoustic)
    clip.target = 2.5
    del clip.features["vision"]
    done = convert("mag-bert", [write(file, content)], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert sorted(done.faults) == [
        ("not finite", "audio", "set to 0", 1),
        ("zero length", "vision", "taken as missing", 1),
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (1, r"row 0: expected \(\(words, visual, acoustic\), label, segment\), found int"),
        (((1, 2), 3, 4), "row 0: expected .*, found 2 parts"),
        ((("word", np.zeros((1, 4)), np.zeros((1, 3))), 1.0, "a"), "expected a list of words, found str"),
        (((["word"], np.zeros(4), np.zeros((1, 3))), 1.0, "a"), "vision: expected a list of arrays"),
        (((["word"], np.zeros((1, 4)), np.zeros((1, 3))), 1.0, None), "expected text, found None"),
    ],
)
def test_what_is_refused(file: Path, entry: Any, said: str) -> None:
    content, _ = layouts_pickled.mag_bert()
    content["dev"][0] = entry
    with pytest.raises(DataError, match=rf"mosi\.pkl: split 'valid'.*{said}"):
        convert("mag-bert", [write(file, content)], file.parent / "corpus")
    with pytest.raises(DataError, match=r"label .--label.: the format mag-bert does not read it, only mmsa"):
        convert("mag-bert", [file], file.parent / "corpus", LabelOptions(label="labels"))


@pytest.mark.parametrize(
    "names", [("TRAIN", "Dev", "Test"), ("training", "val", "testing"), ("train", "development", "test")]
)
def test_splits_by_all_the_names_that_splits_have(file: Path, names: tuple[str, ...]) -> None:
    content, truths = layouts_pickled.mag_bert()
    write(file, dict(zip(names, content.values(), strict=True)))
    assert detect([file]) == "mag-bert"
    assert_holds(convert("auto", [file], file.parent / "corpus").corpus, truths)


def test_a_split_of_another_name_is_not_left_out_where_one_is_absent(file: Path) -> None:
    content, truths = layouts_pickled.mag_bert()
    write(file, {"held\ud800out" if name == "test" else name: part for name, part in content.items()})
    with pytest.raises(
        DataError,
        match=r"'held\?out' looks like a split, expected one of the names train, training, valid, val, ",
    ):
        convert("mag-bert", [file], file.parent / "corpus")
    facts = {"text": [0.5], "audio": [1.5], "ids": [[["a", "b"], 1, 2]], "many": [1, 2, 3]}
    write(file, {**content, "mean\ud800": facts, "names": ["a", "b"], "none": []})
    done = convert("mag-bert", [file], file.parent / "corpus")
    assert_holds(done.corpus, truths)
    assert done.notes[-1] == "dropped: mean?, names, none"


def test_words_of_a_file_without_train_are_said_to_be_numbered_anew(file: Path) -> None:
    content, _ = layouts_pickled.mag_bert()
    said = "words are numbered anew in each file, and a run that was trained on another file refuses them"
    assert not any(
        said in note for note in convert("auto", [write(file, content)], file.parent / "corpus").notes
    )
    alone = convert("auto", [write(file, {"test": content["test"]})], file.parent / "corpus", overwrite=True)
    assert any(said in note for note in alone.notes)


def test_the_units_tell_one_list_of_words_from_another(tmp_path: Path) -> None:
    content, _ = layouts_pickled.mag_bert()
    write(tmp_path / "a.pkl", content, 4)
    write(tmp_path / "same.pkl", {**content, "test": content["test"][:1]}, 4)
    write(tmp_path / "other.pkl", {**content, "train": content["train"][::-1]}, 4)
    units = {}
    for name in ("a", "same", "other"):
        corpus = convert("auto", [tmp_path / f"{name}.pkl"], tmp_path / name).corpus
        units[name] = next(spec.units for spec in corpus.modalities if spec.name == "text")
    assert units["a"].startswith("numbers of words, list ")
    assert units["a"] == units["same"] != units["other"]
