import json
import os
import pickle
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from corpora import CLASSES, SCORE, arrays, as_arrays
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file

from alignmamba.checksums import file_checksum
from alignmamba.contracts import Corpus, Split, Task
from alignmamba.data import archive, storage
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.inspection import inspect_corpus
from alignmamba.data.storage import Manifest, Shard
from alignmamba.data.synthetic import synthetic_corpus
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError


def assert_holds(split: Split, given: dict[str, Any], task: Task) -> None:
    """The split is exactly what was given, sample by sample and value by value."""
    names = list(given["features"])
    assert list(split.ids) == list(given["ids"])
    assert len(split) == len(given["ids"])
    for row, sample in enumerate(split):
        assert sample.id == given["ids"][row]
        for name in names:
            values = given["features"][name][row]
            length = 0 if values is None else len(values)
            assert split.lengths[name][row] == length
            if length == 0:
                assert name not in sample.features
                continue
            assert values is not None
            expected = values.reshape(-1, 1) if values.ndim == 1 else values.astype(np.float32)
            assert sample.features[name].dtype == (np.int64 if values.ndim == 1 else np.float32)
            assert np.array_equal(sample.features[name], expected, equal_nan=True)
            for kind, found in (("times", sample.times), ("tokens", sample.tokens)):
                listed = given.get(kind, {}).get(name)
                if listed is None or listed[row] is None:
                    assert name not in found
                else:
                    assert list(found[name]) == list(listed[row])
        for kind, noted in (("texts", sample.text), ("groups", sample.group)):
            assert noted == (given[kind][row] if given.get(kind) else None)
        labels = {name: listed[row] for name, listed in given.get("labels", {}).items()}
        assert dict(sample.labels) == {
            name: label for name, label in labels.items() if label is not None and label == label
        }
        if given.get("targets") is None:
            assert sample.target is None
        elif task.kind == "classification":
            target = given["targets"][row]
            assert type(sample.target) is int
            assert sample.target == (task.classes.index(target) if isinstance(target, str) else target)
        else:
            assert type(sample.target) is float
            assert sample.target == given["targets"][row]


def without(given: dict[str, Any], name: str, row: int, value: Any, kind: str = "features") -> dict[str, Any]:
    """The arrays with one entry replaced."""
    given[kind][name] = [value if at == row else entry for at, entry in enumerate(given[kind][name])]
    return given


@st.composite
def split_arrays(draw: st.DrawFn, role: str, task: Task) -> dict[str, Any]:
    count = draw(st.integers(1, 7))
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    features: dict[str, list[np.ndarray | None]] = {"sound": [], "words": [], "sight": []}
    times: list[np.ndarray | None] = []
    tokens: list[list[str] | None] = []
    for _ in range(count):
        sound, words, sight = draw(st.tuples(*[st.integers(0, 4)] * 3).filter(any))
        features["sound"].append(draw(hnp.arrays(np.float32, (sound, 2), elements=floats)) if sound else None)
        features["words"].append(draw(hnp.arrays(np.int64, (words,), elements=st.integers(0, 8))))
        features["sight"].append(draw(hnp.arrays(np.float64, (sight, 1), elements=floats)))
        timed = draw(st.booleans()) and sound
        times.append(
            np.sort(draw(hnp.arrays(np.float64, (sound,), elements=st.floats(0, 1e6)))) if timed else None
        )
        text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
        tokens.append(
            draw(st.lists(text, min_size=words, max_size=words)) if draw(st.booleans()) and words else None
        )
    # Every split needs to know each modality's width: the last sample has them all.
    features["sound"][-1], features["sight"][-1], times[-1] = (
        np.ones((1, 2), dtype=np.float32),
        np.ones((2, 1)),
        None,
    )
    features["words"][-1], tokens[-1] = np.array([8]), None
    unique = st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6),
        min_size=count,
        max_size=count,
        unique=True,
    )
    classification = st.integers(0, 1) | st.sampled_from(["sad", "glad"])
    target = classification if task.kind == "classification" else st.floats(-3, 3)
    words = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    label = st.none() | words | st.integers() | st.floats(allow_infinity=False)
    return {
        "texts": draw(st.none() | st.lists(st.none() | words, min_size=count, max_size=count)),
        "groups": draw(st.none() | st.lists(st.none() | words, min_size=count, max_size=count)),
        "labels": {"other": draw(st.lists(label, min_size=count, max_size=count))},
        "ids": [f"{role}{identity}" for identity in draw(unique)],
        "features": features,
        "targets": draw(st.none() | st.lists(target, min_size=count, max_size=count)),
        "times": {"sound": times},
        "tokens": {"words": tokens},
    }


@given(data=st.data(), task=st.sampled_from([CLASSES, SCORE]), samples_per_shard=st.integers(1, 4))
def test_what_is_loaded_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, task: Task, samples_per_shard: int
) -> None:
    splits = {role: data.draw(split_arrays(role, task)) for role in ("train", "test")}
    path = tmp_path_factory.mktemp("archive") / "corpus"
    written = write_corpus(path, splits, task=task, samples_per_shard=samples_per_shard)  # type: ignore[arg-type]
    loaded = load_corpus(path)
    assert loaded.checksum == written.checksum
    assert [(spec.name, spec.kind, spec.dim) for spec in loaded.modalities] == [
        ("sound", "features", 2),
        ("words", "tokens", 9),
        ("sight", "features", 1),
    ]
    for role, given_arrays in splits.items():
        assert loaded.split(role).role == role  # type: ignore[arg-type]
        assert_holds(loaded.split(role), given_arrays, task)
    shutil.rmtree(path)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_corpus(
        tmp_path / "corpus", {"train": arrays(), "test": arrays("test")}, task=CLASSES, samples_per_shard=3
    )


def test_a_corpus_of_strings_times_and_gaps_comes_back(corpus: Corpus) -> None:
    for role in ("train", "test"):
        assert_holds(corpus.split(role), arrays(role), CLASSES)


def test_what_describes_the_corpus_comes_back(tmp_path: Path) -> None:
    written = write_corpus(
        tmp_path / "moods",
        {"valid": SplitArrays(**arrays("valid"))},
        task=CLASSES,
        units={"sound": "log-mel energy at 100 Hz"},
        vocabulary_sizes={"words": 50},
        source="ours",
        licence="CC0-1.0",
        references={"chance": 0.5},
    )
    loaded = load_corpus(tmp_path / "moods")
    assert loaded.name == written.name == "moods"
    assert loaded.task == CLASSES
    assert loaded.references == {"chance": 0.5}
    assert [spec.units for spec in loaded.modalities] == ["log-mel energy at 100 Hz", ""]
    assert [spec.dim for spec in loaded.modalities] == [3, 50]
    assert json.loads((tmp_path / "moods" / "corpus.json").read_text())["licence"] == "CC0-1.0"


def test_rows_count_from_the_end_and_no_further(corpus: Corpus) -> None:
    split = corpus.split("train")
    assert split[-1].id == split[3].id == "train-d"
    for row in (4, -5):
        with pytest.raises(IndexError, match=f"'train' has 4 samples, asked for {row}"):
            split[row]


def test_default_ids_count_from_one(tmp_path: Path) -> None:
    given = arrays()
    del given["ids"]
    written = write_corpus(tmp_path / "corpus", {"train": given}, task=CLASSES)
    assert written.split("train").ids == ("train-000001", "train-000002", "train-000003", "train-000004")


def test_a_modality_that_the_first_shards_lack_is_kept(tmp_path: Path) -> None:
    given = {
        "features": {"a": [np.ones((2, 2)), np.ones((1, 2)), None], "b": [None, None, np.full((3, 4), 7.0)]}
    }
    split = write_corpus(tmp_path / "corpus", {"train": given}, task=SCORE, samples_per_shard=1).split(
        "train"
    )
    assert split.lengths["b"].tolist() == [0, 0, 3]
    assert split[2].features["b"].tolist() == np.full((3, 4), 7.0).tolist()
    assert "b" not in split[0].features


def test_padded_arrays_and_lazy_sequences_are_sequences(tmp_path: Path) -> None:
    asked: list[int] = []

    class Lazy:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, row: int) -> np.ndarray:
            asked.append(row)
            return np.full((1, 2), row)

    padded = np.arange(24.0).reshape(3, 4, 2)
    split = write_corpus(
        tmp_path / "corpus", {"train": {"features": {"a": padded, "b": Lazy()}}}, task=SCORE
    ).split("train")
    assert asked == [0, 1, 2]
    assert np.array_equal(split[1].features["a"], padded[1])
    assert split[2].features["b"].tolist() == [[2.0, 2.0]]


def test_a_large_shard_is_closed_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_BLOCK_BYTES", 8)
    given = arrays()
    write_corpus(tmp_path / "corpus", {"train": given}, task=CLASSES, shard_bytes=50)
    assert len(list((tmp_path / "corpus").glob("*.safetensors"))) > 1
    assert_holds(load_corpus(tmp_path / "corpus").split("train"), given, CLASSES)


def test_a_shard_is_what_safetensors_writes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", {"train": arrays()}, task=CLASSES)
    (shard,) = (tmp_path / "corpus").glob("*.safetensors")
    tensors = load_file(shard)
    assert {str(array.dtype) for array in tensors.values()} == {"int64", "float64", "float32", "int32"}
    save_file(tensors, tmp_path / "again")
    assert shard.read_bytes() == (tmp_path / "again").read_bytes()


def test_a_split_can_be_sent_to_another_process(corpus: Corpus) -> None:
    split = corpus.split("train")
    expected = [sample.features["words"].tolist() for sample in split if "words" in sample.features]
    copy = pickle.loads(pickle.dumps(split))
    assert [sample.features["words"].tolist() for sample in copy if "words" in sample.features] == expected


@pytest.mark.usefixtures("corpus")
def test_values_are_read_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, int, int]] = []
    read = Shard.slice

    def spy(self: Shard, key: str, start: int, stop: int) -> np.ndarray:
        asked.append((key, start, stop))
        return read(self, key, start, stop)

    monkeypatch.setattr(Shard, "slice", spy)
    split = load_corpus(tmp_path / "corpus", verify=False).split("train")
    assert asked == []
    _ = split[2]
    assert asked == [("sound.values", 5, 7), ("sound.times", 5, 7)]


def test_the_checksum_is_that_of_the_content(tmp_path: Path) -> None:
    def checksum(name: str, change: Callable[[dict[str, Any]], object] = dict.copy, **options: Any) -> str:
        given = arrays()
        change(given)
        return write_corpus(tmp_path / name, {"train": given}, task=CLASSES, **options).checksum

    first = checksum("a")
    assert checksum("b", licence="CC0-1.0") == first
    assert checksum("c", lambda given: given["targets"].__setitem__(0, "glad")) != first
    assert checksum("d", lambda given: given["features"]["words"].__setitem__(1, np.array([8]))) != first
    assert checksum("e", lambda given: given["ids"].__setitem__(1, "other")) != first


def test_the_mark_of_a_sentiment_changes_no_checksum_and_old_corpora_lack_it(tmp_path: Path) -> None:
    given = {**arrays(), "targets": [0.0, 1.0, -1.0, 0.5]}
    task = {"kind": "regression", "label_range": (-1, 1)}
    marked = write_corpus(tmp_path / "marked", {"train": given}, task={**task, "sentiment": True})
    plain = write_corpus(tmp_path / "plain", {"train": given}, task=task)
    assert load_corpus(tmp_path / "marked").task.is_sentiment
    assert not plain.task.is_sentiment
    assert marked.checksum == plain.checksum
    manifest = tmp_path / "plain" / "corpus.json"
    content = json.loads(manifest.read_text())
    del content["task"]["sentiment"]
    manifest.write_text(json.dumps(content))
    assert load_corpus(tmp_path / "plain").checksum == plain.checksum


def test_the_synthetic_corpus_can_be_written(tmp_path: Path) -> None:
    made = synthetic_corpus(sizes={"train": 5, "test": 3})
    names = [spec.name for spec in made.modalities]
    given = {role: as_arrays(split, names) for role, split in made.splits.items()}
    loaded = write_corpus(tmp_path / "corpus", given, task=made.task)
    for role, expected in given.items():
        assert_holds(loaded.split(role), expected, made.task)


# Refusals on writing: what is changed in the arrays of `train`, and what the message must say.
def _set(kind: str, name: str, row: int, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda given: without(given, name, row, value, kind)


def _nan(given: dict[str, Any]) -> None:
    given["features"]["sound"][3][2, 1] = np.nan


def _wide(given: dict[str, Any]) -> None:
    given["features"]["sound"][3] = np.zeros((4, 5))


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "nan": (
        _nan,
        (
            "split 'train', sample 'train-d', modality 'sound': found nan at position 2, channel 1 (1 of 12"
            " values are not finite), expected finite numbers"
        ),
    ),
    "infinity": (
        _set("features", "sound", 0, np.full((1, 3), -np.inf)),
        "sample 'train-a', modality 'sound': found -inf at position 0, channel 0",
    ),
    "too large for float32": (
        _set("features", "sound", 0, np.full((2, 3), 1e39)),
        "sample 'train-a', modality 'sound': found 1e+39 at position 0",
    ),
    "another width": (
        _wide,
        (
            "sample 'train-d', modality 'sound': expected width 3 as in split 'train', sample 'train-a',"
            " modality 'sound', found 5"
        ),
    ),
    "ids among features": (
        _set("features", "sound", 2, np.array([1, 2])),
        "'train-c', modality 'sound': expected features of shape (time, width) as in",
    ),
    "features among ids": (
        _set("features", "words", 3, np.ones((2, 1))),
        "'train-d', modality 'words': expected token ids of shape (time,) as in",
    ),
    "flat floats": (_set("features", "sound", 0, np.zeros(4)), "a modality of width 1 has shape (4, 1)"),
    "three axes": (
        _set("features", "sound", 0, np.zeros((4, 2, 3))),
        "'train-a', modality 'sound': expected shape (time, width)",
    ),
    "width zero": (
        _set("features", "sound", 0, np.zeros((4, 0))),
        "expected shape (time, width), or (time,) for token ids, found (4, 0)",
    ),
    "a scalar": (_set("features", "sound", 0, 3.0), "found ()"),
    "objects": (
        _set("features", "sound", 0, np.array([["a"]], dtype=object)),
        "'train-a', modality 'sound': expected real numbers, found dtype object",
    ),
    "strings": (
        _set("features", "words", 1, np.array(["a"])),
        "'train-b', modality 'words': expected real numbers, found text; put words into texts or tokens",
    ),
    "ragged": (
        _set("features", "sound", 0, [[1.0], [1.0, 2.0]]),
        "expected an array of shape (time, width), found a ragged list",
    ),
    "a tensor that requires grad": (
        _set("features", "sound", 0, torch.ones(2, 3, requires_grad=True)),
        (
            "'train-a', modality 'sound': expected an array of shape (time, width), "
            "found Tensor that cannot become one; give tensor.detach().float().cpu().numpy()"
        ),
    ),
    "a tensor of bfloat16": (
        _set("features", "sound", 0, torch.ones(2, 3, dtype=torch.bfloat16)),
        (
            "'train-a', modality 'sound': expected an array of shape (time, width), found Tensor that cannot"
            " become one"
        ),
    ),
    "times that require grad": (
        _set("times", "sound", 0, torch.zeros(5, requires_grad=True)),
        "'train-a', modality 'sound': times: expected 5 numbers, found Tensor",
    ),
    "tokens one number": (
        _set("tokens", "words", 0, 5),
        "'train-a', modality 'words': tokens: expected a list of 2 words, found 5",
    ),
    "list of features": (
        lambda given: given.update(features=[1]),
        "split 'train': features: expected a mapping, found list",
    ),
    "times none": (
        lambda given: given.update(times=None),
        "split 'train': times: expected a mapping, found NoneType",
    ),
    "tokens none": (
        lambda given: given.update(tokens=None),
        "split 'train': tokens: expected a mapping, found NoneType",
    ),
    "negative token": (
        _set("features", "words", 0, np.array([4, -1])),
        "'train-a', modality 'words': token id -1 at position 1, expected 0 to",
    ),
    "huge token": (_set("features", "words", 0, np.array([2**31])), "token id 2147483648 at position 0"),
    "nothing present": (
        lambda given: (without(given, "sound", 2, None), without(given, "sound", 2, None, "times")),
        "split 'train', sample 'train-c': no modality is present, expected at least one",
    ),
    "short list": (
        lambda given: given["features"]["words"].pop(),
        "split 'train': features['sound'] has 4 entries, but features['words'] has 3",
    ),
    "short targets": (
        lambda given: given["targets"].pop(),
        "split 'train': features['sound'] has 4 entries, but targets has 3",
    ),
    "short ids": (lambda given: given["ids"].pop(), "but ids has 3"),
    "short times": (lambda given: given["times"]["sound"].pop(), "but times['sound'] has 3"),
    "no list": (
        lambda given: given["features"].update(sound=iter([1])),
        "features['sound']: expected a list with one entry per sample, found list_iterator",
    ),
    "class name": (
        lambda given: given["targets"].__setitem__(2, "angry"),
        "sample 'train-c': target 'angry', expected one of ['sad', 'glad']",
    ),
    "class index": (
        lambda given: given["targets"].__setitem__(1, 2),
        "sample 'train-b': target 2, expected a class index from 0 to 1",
    ),
    "class number": (
        lambda given: given["targets"].__setitem__(1, 1.0),
        "sample 'train-b': target 1.0, expected a class index",
    ),
    "duplicate id": (
        lambda given: given["ids"].__setitem__(3, "train-a"),
        "split 'train': id 'train-a' appears more than once",
    ),
    "shared id": (
        lambda given: given["ids"].__setitem__(1, "test-b"),
        "id 'test-b' is in split 'train' and in split 'test'",
    ),
    "empty id": (
        lambda given: given["ids"].__setitem__(1, ""),
        "ids: expected text that is not empty, found '' in row 1",
    ),
    "number for an id": (lambda given: given["ids"].__setitem__(1, 7), "found 7 in row 1"),
    "half a character": (lambda given: given["ids"].__setitem__(1, "\ud800"), "in row 1"),
    "times too short": (
        _set("times", "sound", 0, np.zeros(4)),
        "'train-a', modality 'sound': times: expected shape (5,), one per position, found (4,)",
    ),
    "times fall": (_set("times", "sound", 0, [0, 1, 2, 1.5, 3]), "times: fall from 2.0 to 1.5 at position 3"),
    "times nan": (
        _set("times", "sound", 0, [0, 1, np.nan, 2, 3]),
        "times: found nan at position 2, expected finite seconds",
    ),
    "times words": (_set("times", "sound", 0, ["x"] * 5), "times: expected 5 numbers"),
    "times of nothing": (
        _set("times", "sound", 1, np.zeros(2)),
        "'train-b', modality 'sound': times: expected shape (0,)",
    ),
    "tokens too many": (
        _set("tokens", "words", 0, ["a", "b", "c"]),
        "'train-a', modality 'words': tokens: expected 2, one per position, found 3",
    ),
    "tokens one string": (
        _set("tokens", "words", 0, "ab"),
        "tokens: expected a list of 2 words, found one string",
    ),
    "tokens numbers": (_set("tokens", "words", 0, ["a", 2]), "tokens: expected text, found 2 at position 1"),
    "times of a stranger": (
        lambda given: given["times"].update(smell=[None] * 4),
        "times: no modality 'smell', only ['sound', 'words']",
    ),
    "other modalities": (
        lambda given: given["features"].pop("words") and given["tokens"].clear(),
        "features: expected the modalities ['sound'] of split 'train', found ['sound', 'words']",
    ),
    "bad name": (lambda given: given["features"].update({"a b": [None] * 4}), "features: "),
    "unknown key": (
        lambda given: given.update(label=[]),
        (
            "expected 'features' and perhaps others of ['features', 'targets', 'ids', 'times', 'tokens',"
            " 'texts', 'groups', 'labels', 'token_labels']"
        ),
    ),
    "no features": (lambda given: given.pop("features"), "split 'train': expected 'features'"),
    "text no text": (
        lambda given: given.update(texts=["a", 1, None, None]),
        "sample 'train-b': text: expected text, found 1",
    ),
    "groups too few": (
        lambda given: given.update(groups=["a"]),
        "split 'train': features['sound'] has 4 entries, but groups has 1",
    ),
    "group no text": (
        lambda given: given.update(groups=[("x",)] * 4),
        "sample 'train-a': group: expected text, found ('x',)",
    ),
    "labels one list": (
        lambda given: given.update(labels=[1]),
        "split 'train': labels: expected a mapping, found list",
    ),
    "labels too many": (lambda given: given.update(labels={"a": [1] * 5}), "but labels['a'] has 5"),
    "label infinite": (
        lambda given: given.update(labels={"a": [1.0, np.inf, 1, 1]}),
        "sample 'train-b', label 'a': expected a finite number or text, found inf",
    ),
    "label a truth": (
        lambda given: given.update(labels={"a": [True] * 4}),
        "label 'a': expected a finite number or text, found True",
    ),
    "label not Unicode": (
        lambda given: given.update(labels={"a": ["\ud800"] * 4}),
        "label 'a': expected text, found",
    ),
    "no modality": (
        lambda given: given.update(features={}, times={}, tokens={}),
        "features: expected at least one modality",
    ),
    "no samples": (
        lambda given: given.update(features={"sound": []}, targets=None, ids=None, times={}, tokens={}),
        "found no samples",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_arrays_are_refused_by_name_and_leave_nothing_behind(tmp_path: Path, case: str) -> None:
    change, message = REFUSED[case]
    given = arrays()
    change(given)
    with pytest.raises(DataError) as raised:
        write_corpus(tmp_path / "corpus", {"train": given, "test": arrays("test")}, task=CLASSES)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": {"smell": "ppm"}}, "units: no modality 'smell', only ['sound', 'words']"),
        (
            {"vocabulary_sizes": {"words": 9}},
            "sample 'train-b', modality 'words': token id 9 at position 0, expected 0 to 8",
        ),
        (
            {"vocabulary_sizes": {"words": 0}},
            "vocabulary_sizes: modality 'words': expected 1 to 2147483647, found 0",
        ),
        (
            {"vocabulary_sizes": {"sound": 9}},
            "sample 'train-a', modality 'sound': vocabulary_sizes says token ids",
        ),
        (
            {"vocabulary_sizes": {"words": "x"}},
            "vocabulary_sizes: modality 'words': expected 1 to 2147483647, found 'x'",
        ),
        (
            {"vocabulary_sizes": {"words": 9.5}},
            "vocabulary_sizes: modality 'words': expected 1 to 2147483647, found 9.5",
        ),
        ({"vocabulary_sizes": ["words"]}, "vocabulary_sizes: expected a mapping, found list"),
        ({"units": None}, "units: expected a mapping, found NoneType"),
        ({"references": [1]}, "references: expected a mapping, found list"),
        ({"samples_per_shard": 0}, "samples_per_shard: expected at least 1, found 0"),
        ({"samples_per_shard": "a"}, "samples_per_shard: expected at least 1, found 'a'"),
        ({"task": None}, "task: expected a Task or a mapping with its fields, found NoneType"),
        ({"task": {"kind": "guess"}}, "task.kind: "),
        ({"task": {"kind": "classification"}}, "task: classes: a classification task needs at least 2"),
        ({"nonfinite": "zero"}, "nonfinite: expected 'error' or 'keep', found 'zero'"),
        ({"name": ""}, "name: "),
        ({"references": {"best": float("nan")}}, "references.best: "),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as raised:
        write_corpus(tmp_path / "corpus", {"train": arrays()}, **({"task": CLASSES} | options))
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.nan, "sample 'train-b': target nan, expected a finite number"),
        (3.5, "sample 'train-b': target 3.5, expected a number from -3.0 to 3.0"),
        ("1", "sample 'train-b': target '1', expected a number"),
        (True, "sample 'train-b': target True, expected a number"),
    ],
)
def test_wrong_regression_targets_are_refused(tmp_path: Path, target: Any, message: str) -> None:
    given = arrays() | {"targets": [0.0, target, 1, np.float32(-3)]}
    with pytest.raises(DataError, match=message):
        write_corpus(tmp_path / "corpus", {"train": given}, task=SCORE)


def test_an_unknown_split_and_no_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"splits: expected names of .*, found 'dev'"):
        write_corpus(tmp_path / "corpus", {"dev": arrays()}, task=CLASSES)  # type: ignore[dict-item]
    with pytest.raises(DataError, match="splits: expected at least one"):
        write_corpus(tmp_path / "corpus", {}, task=CLASSES)
    with pytest.raises(DataError, match="splits: expected a mapping, found list"):
        write_corpus(tmp_path / "corpus", [arrays()], task=CLASSES)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="split 'train': expected a mapping, found NoneType"):
        write_corpus(tmp_path / "corpus", {"train": None}, task=CLASSES)  # type: ignore[dict-item]


def test_a_task_may_be_a_mapping(tmp_path: Path) -> None:
    corpus = write_corpus(
        tmp_path / "corpus", {"train": arrays()}, task={"kind": "classification", "classes": ["sad", "glad"]}
    )
    assert corpus.task == CLASSES


def test_a_modality_that_nobody_has_is_refused(tmp_path: Path) -> None:
    given = {"features": {"sound": [np.ones((1, 2))], "smell": [None]}}
    with pytest.raises(DataError, match="modality 'smell': found it in no sample of any split"):
        write_corpus(tmp_path / "corpus", {"train": given}, task=SCORE)


# Atomicity.


def test_an_existing_corpus_is_kept_unless_told_otherwise(tmp_path: Path, corpus: Corpus) -> None:
    path = tmp_path / "corpus"
    with pytest.raises(DataError, match="exists already"):
        write_corpus(path, {"train": arrays()}, task=CLASSES)
    assert load_corpus(path).checksum == corpus.checksum
    replaced = write_corpus(path, {"train": arrays()}, task=CLASSES, overwrite=True)
    assert list(load_corpus(path).splits) == ["train"]
    assert replaced.checksum != corpus.checksum
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_is_no_corpus_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("all of it")
    (tmp_path / "file").write_text("x")
    for name, said in (
        ("thesis", "found 'chapter', which is not a file of a corpus, so the directory is kept"),
        ("file", "file: expected a corpus directory to replace, found a file"),
    ):
        with pytest.raises(DataError, match=said):
            write_corpus(tmp_path / name, {"train": arrays()}, task=CLASSES, overwrite=True)
    assert (tmp_path / "thesis" / "chapter").read_text() == "all of it"


@pytest.mark.usefixtures("corpus")
def test_what_lies_in_a_corpus_beside_it_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    (path / "notes.txt").write_text("mine")
    with pytest.raises(
        DataError, match=r"found 'notes\.txt', which is not a file of a corpus, so the directory is kept"
    ):
        write_corpus(path, {"train": arrays()}, task=CLASSES, overwrite=True)
    (path / "notes.txt").unlink()
    (path / "train-00000.safetensors").write_bytes(b"damaged")
    (path / "corpus.json").write_text("damaged")
    write_corpus(path, {"train": arrays()}, task=CLASSES, overwrite=True)
    assert list(load_corpus(path).splits) == ["train"]


def test_another_programs_corpus_json_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "corpus.json").write_text("{}")
    with pytest.raises(DataError, match="format: expected 'alignmamba-corpus', found None"):
        write_corpus(tmp_path / "other", {"train": arrays()}, task=CLASSES, overwrite=True)
    assert (tmp_path / "other" / "corpus.json").read_text() == "{}"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_manifest_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "corpus.json")
    with pytest.raises(DataError, match=r"corpus\.json: expected a file, found a pipe"):
        load_corpus(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError("disk full")])
@pytest.mark.parametrize("existing", [True, False])
def test_a_write_that_breaks_off_leaves_no_half_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any, existing: bool
) -> None:
    path = tmp_path / "corpus"
    before = write_corpus(path, {"train": arrays()}, task=CLASSES).checksum if existing else None
    broken: list[str] = []

    write_file = archive._write_file

    def breaking(target: Path, pieces: Any) -> dict[str, Any]:
        written = write_file(target, pieces)
        # Shards are written side by side, so the second is told by its name and not by counting.
        if target.name.endswith("-00001.safetensors"):
            broken.append(target.name)
            raise error
        return written

    monkeypatch.setattr(archive, "_write_file", breaking)
    with pytest.raises((KeyboardInterrupt, MemoryError, DataError)):
        write_corpus(path, {"train": arrays("valid")}, task=CLASSES, samples_per_shard=1, overwrite=True)
    assert broken
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    if existing:
        assert load_corpus(path).checksum == before


def test_a_replacement_that_fails_is_undone(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "corpus"
    rename = Path.rename

    def breaking(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", breaking)
    with pytest.raises(DataError, match="cannot be written: Input/output error"):
        write_corpus(path, {"train": arrays()}, task=CLASSES, overwrite=True)
    assert load_corpus(path).checksum == corpus.checksum
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("corpus")
def test_a_corpus_has_the_permissions_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE((tmp_path / "corpus").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind the administrator")
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="cannot be written"):
        write_corpus(tmp_path / "corpus", {"train": arrays()}, task=CLASSES)
    tmp_path.chmod(0o700)


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_corpus(tmp_path / "file" / "corpus", {"train": arrays()}, task=CLASSES)


# Values that are not finite.


@pytest.fixture
def holes(tmp_path: Path) -> Path:
    train = {
        "features": {
            "sound": [np.array([[1, np.nan], [3, np.nan]]), np.array([[8, -np.inf]])],
            "words": [np.array([1])] * 2,
        }
    }
    test = {"features": {"sound": [np.array([[np.nan, 5]])], "words": [np.array([0])]}}
    path = tmp_path / "holes"
    write_corpus(path, {"train": train, "test": test}, task=SCORE, nonfinite="keep")
    return path


def test_values_that_are_not_finite_are_refused_unless_told_how_to_repair_them(holes: Path) -> None:
    with pytest.raises(DataError) as raised:
        load_corpus(holes)
    message = str(raised.value)
    assert (
        "split 'train', sample 'train-000001', modality 'sound': found nan at position 0, channel 1 (2 of 4"
        " values" in message
    )
    assert "and 2 more problems" in message


def test_zero_puts_zeros_in_their_place(holes: Path) -> None:
    corpus = load_corpus(holes, nonfinite="zero")
    assert corpus.split("train")[0].features["sound"].tolist() == [[1, 0], [3, 0]]
    assert corpus.split("train")[1].features["sound"].tolist() == [[8, 0]]
    assert corpus.split("test")[0].features["sound"].tolist() == [[0, 5]]
    assert corpus.split("test")[0].features["sound"].dtype == np.float32
    assert corpus.split("test")[0].features["words"].tolist() == [[0]]


def test_mean_takes_the_finite_values_of_the_train_split(holes: Path) -> None:
    corpus = load_corpus(holes, nonfinite="mean")
    assert corpus.split("test")[0].features["sound"].tolist() == [[4, 5]]
    # Channel 1 has no finite value in train at all.
    assert corpus.split("train")[0].features["sound"].tolist() == [[1, 0], [3, 0]]


def test_mean_needs_a_train_split(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", {"test": arrays("test")}, task=CLASSES)
    with pytest.raises(DataError, match="needs a train split to take the means from"):
        load_corpus(tmp_path / "corpus", nonfinite="mean")


def test_means_from_elsewhere_replace_those_of_the_corpus(holes: Path, tmp_path: Path) -> None:
    means = {"sound": np.array([20.0, 30.0]), "smell": np.zeros(7)}
    corpus = load_corpus(holes, nonfinite="mean", means=means)
    assert corpus.split("test")[0].features["sound"].tolist() == [[20, 5]]
    assert corpus.split("train")[0].features["sound"].tolist() == [[1, 30], [3, 30]]
    write_corpus(
        tmp_path / "test",
        {"test": {"features": {"sound": [np.array([[np.nan, 5]])]}}},
        task=SCORE,
        nonfinite="keep",
    )
    assert load_corpus(tmp_path / "test", nonfinite="mean", means=means).split("test")[0].features[
        "sound"
    ].tolist() == [[20, 5]]
    unnamed = load_corpus(tmp_path / "test", nonfinite="mean", means={}).split("test")[0]
    assert np.isnan(unnamed.features["sound"][0, 0])


@pytest.mark.parametrize("means", [np.zeros(3), np.array([0, np.nan]), np.float32(1)])
def test_means_that_do_not_fit_are_refused(holes: Path, means: Any) -> None:
    with pytest.raises(DataError, match="means: modality 'sound': expected 2 finite numbers, found shape"):
        load_corpus(holes, nonfinite="mean", means={"sound": means})


def test_an_unknown_repair_is_refused(holes: Path) -> None:
    with pytest.raises(DataError, match="nonfinite: expected 'error', 'zero' or 'mean', found 'keep'"):
        load_corpus(holes, nonfinite="keep")  # type: ignore[arg-type]


# Damage on disk. Each case is given the corpus directory.


def _flip(name: str, at: int) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        content[at] ^= 0xFF
        (path / name).write_bytes(content)

    return apply


def _cut(name: str) -> Callable[[Path], None]:
    return lambda path: os.truncate(path / name, (path / name).stat().st_size - 1)


def _manifest(change: Callable[[dict[str, Any]], object], *, seal: bool = False) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = json.loads((path / "corpus.json").read_text())
        change(content)
        if seal:
            content = Manifest.model_validate(content).sealed().model_dump(mode="json")
        (path / "corpus.json").write_text(json.dumps(content))

    return apply


def _escape(target: str) -> Callable[[Path], None]:
    return _manifest(lambda content: content["splits"][0]["shards"][0]["values"].update(path=target))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped value": (_flip("train-00000.safetensors", -1), "train-00000.safetensors: SHA-256 differs"),
    "flipped header": (_flip("train-00000.safetensors", 20), "train-00000.safetensors: "),
    "flipped header size": (_flip("train-00000.safetensors", 6), "train-00000.safetensors: "),
    "flipped string": (_flip("test-00001.jsonl", 3), "test-00001.jsonl"),
    "cut shard": (_cut("train-00001.safetensors"), "train-00001.safetensors: expected"),
    "cut strings": (_cut("train-00000.jsonl"), "train-00000.jsonl: expected"),
    "missing shard": (
        lambda path: (path / "test-00000.safetensors").unlink(),
        "test-00000.safetensors: missing",
    ),
    "missing strings": (lambda path: (path / "test-00000.jsonl").unlink(), "test-00000.jsonl: missing"),
    "no manifest": (lambda path: (path / "corpus.json").unlink(), "not a corpus, it has no corpus.json"),
    "cut manifest": (_cut("corpus.json"), ""),
    "empty manifest": (lambda path: (path / "corpus.json").write_text(""), "corpus.json: not valid JSON"),
    "binary manifest": (
        lambda path: (path / "corpus.json").write_bytes(b"\xff\x00"),
        "corpus.json: not valid JSON",
    ),
    "nested manifest": (
        lambda path: (path / "corpus.json").write_text("[" * 100_000),
        "corpus.json: not valid JSON",
    ),
    "other JSON": (
        lambda path: (path / "corpus.json").write_text("[]"),
        "corpus.json: format: expected 'alignmamba-corpus', found 'list'",
    ),
    "other format": (
        _manifest(lambda content: content.update(format="zip")),
        "format: expected 'alignmamba-corpus', found 'zip'",
    ),
    "newer version": (
        _manifest(lambda content: content.update(version=2)),
        "version: this release reads version 1, found 2",
    ),
    "unknown key": (_manifest(lambda content: content.update(colour=1)), "corpus.json: colour: "),
    "no task": (_manifest(lambda content: content.pop("task")), "corpus.json: task: expected, found nothing"),
    "edited classes": (
        _manifest(lambda content: content["task"]["classes"].reverse()),
        "corpus.json: checksum: ",
    ),
    "twice a modality": (
        _manifest(lambda content: content["modalities"].append(content["modalities"][0])),
        "modalities: 'sound' appears 2 times",
    ),
    "twice a split": (
        _manifest(lambda content: content["splits"].append(content["splits"][0])),
        "splits: 'train' appears 2 times",
    ),
    "path upwards": (_escape("../train-00000.safetensors"), "corpus.json: splits.0.shards.0.values.path: "),
    "absolute path": (_escape("/etc/passwd"), "found '/etc/passwd'"),
    "path with a new line": (_escape("train-00000.safetensors\n"), "splits.0.shards.0.values.path"),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.usefixtures("corpus")
def test_a_damaged_corpus_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    apply, message = DAMAGE[case]
    if case == "cut manifest":
        os.truncate(tmp_path / "corpus" / "corpus.json", 200)
        message = "corpus.json: not valid JSON"
    else:
        apply(tmp_path / "corpus")
    with pytest.raises(DataError) as raised:
        load_corpus(tmp_path / "corpus")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_what_cannot_be_a_path_is_refused(tmp_path: Path, name: str) -> None:
    said = "cannot be used as a path: "
    with pytest.raises(DataError, match=said):
        load_corpus(tmp_path / name)
    with pytest.raises(DataError, match=said):
        inspect_corpus(tmp_path / name)
    with pytest.raises(DataError, match=said):
        write_corpus(tmp_path / name, {"train": arrays()}, task=CLASSES)
    with pytest.raises(DataError, match=said) as raised:
        write_corpus(tmp_path / name, {"train": arrays()}, task=CLASSES, overwrite=True)
    assert "\0" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=r"loop.*: cannot be used as a path"):
        load_corpus(tmp_path / "loop")


def test_nothing_and_a_file_are_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a corpus directory, found nothing"):
        load_corpus(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="expected a corpus directory"):
        load_corpus(tmp_path / "file")


def test_without_verification_only_the_values_go_unread(tmp_path: Path, corpus: Corpus) -> None:
    _flip("train-00000.safetensors", -1)(tmp_path / "corpus")
    assert load_corpus(tmp_path / "corpus", verify=False).checksum == corpus.checksum


# Corpora that another program wrote, with right checksums and wrong content.


def _rewrite(path: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Change the arrays of the first train shard and seal the corpus again."""
    shard = path / "train-00000.safetensors"
    tensors = load_file(shard)
    change(tensors)
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, shard)
    entry = {"path": shard.name, "bytes": shard.stat().st_size, "sha256": file_checksum(shard)}
    _manifest(lambda content: content["splits"][0]["shards"][0].update(values=entry), seal=True)(path)


FOREIGN: dict[str, tuple[Callable[[dict[str, np.ndarray]], object], str]] = {
    "offsets fall": (
        lambda tensors: tensors.update({"sound.offsets": np.array([0, 6, 5, 7])}),
        "array 'sound.offsets': expected numbers that never decrease, from 0 to 7",
    ),
    "offsets beyond": (
        lambda tensors: tensors.update({"sound.offsets": np.array([0, 5, 5, 8])}),
        "from 0 to 7",
    ),
    "offsets from one": (
        lambda tensors: tensors.update({"sound.offsets": np.array([1, 5, 5, 7])}),
        "from 0 to 7",
    ),
    "too few offsets": (
        lambda tensors: tensors.update({"sound.offsets": np.array([0, 7])}),
        "expected I64 of shape [4], found I64 of shape [2]",
    ),
    "wrong dtype": (
        lambda tensors: tensors.update({"sound.values": tensors["sound.values"].astype(np.float64)}),
        "array 'sound.values': expected F32 of shape ['any', 3], found F64 of shape [7, 3]",
    ),
    "wrong width": (
        lambda tensors: tensors.update({"sound.values": tensors["sound.values"][:, :2]}),
        "found F32 of shape [7, 2]",
    ),
    "no values": (lambda tensors: tensors.pop("sound.values"), "expected an array 'sound.values'"),
    "extra array": (lambda tensors: tensors.update(extra=np.zeros(1)), "unexpected array 'extra'"),
    "a class too many": (
        lambda tensors: tensors.update(targets=np.array([0, 1, 2])),
        "split 'train', sample 'train-c': target 2, expected a class index",
    ),
    "some targets": (lambda tensors: tensors.pop("targets"), "split 'train': only some shards have targets"),
    "a token too many": (
        lambda tensors: tensors["words.values"].__setitem__((2, 0), 10),
        "split 'train', sample 'train-b', modality 'words': token id 10 at position 0, expected 0 to 9",
    ),
    "nan": (
        lambda tensors: tensors["sound.values"].__setitem__((6, 2), np.nan),
        "split 'train', sample 'train-c', modality 'sound': found nan at position 1, channel 2 (1 of 6",
    ),
    "times fall": (
        lambda tensors: tensors["sound.times"].__setitem__(1, 9.0),
        "sample 'train-a', modality 'sound': times: fall from 9.0 to 0.5 at position 2",
    ),
    "nothing present": (
        lambda tensors: tensors.update({"sound.offsets": np.array([0, 5, 7, 7])}),
        "split 'train', sample 'train-c': no modality is present",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.usefixtures("corpus")
def test_wrong_content_is_named(tmp_path: Path, case: str) -> None:
    change, message = FOREIGN[case]
    _rewrite(tmp_path / "corpus", change)
    with pytest.raises(DataError) as raised:
        load_corpus(tmp_path / "corpus")
    assert message in str(raised.value)
    assert "SHA-256" not in str(raised.value)


STRINGS: dict[str, tuple[list[str], str]] = {
    "shared id": (
        ['{"id": "test-b"}', '{"id": "b"}', '{"id": "c"}'],
        "id 'test-b' is in split 'train' and in split 'test'",
    ),
    "duplicate id": (
        ['{"id": "a"}', '{"id": "b"}', '{"id": "a"}'],
        "split 'train': id 'a' appears more than once",
    ),
    "too few": (['{"id": "a"}', '{"id": "b"}'], "expected 3 lines, found 2"),
    "too many": ([f'{{"id": "{letter}"}}' for letter in "wxyz"], "expected 3 lines, found 4"),
    "no JSON": (['{"id": "a"}', "{", '{"id": "c"}'], "train-00000.jsonl, line 2: not valid JSON"),
    "no id": (
        ['{"id": "a"}', "{}", '{"id": "c"}'],
        "train-00000.jsonl, line 2: expected an object with a string 'id'",
    ),
    "tokens of a stranger": (
        ['{"id": "a", "tokens": {"smell": []}}', '{"id": "b"}', '{"id": "c"}'],
        "line 1: tokens: ",
    ),
    "a group that is a number": (
        ['{"id": "a", "group": 1}', '{"id": "b"}', '{"id": "c"}'],
        "line 1: group: expected str, found int",
    ),
    "a text that is a list": (
        ['{"id": "a"}', '{"id": "b", "text": []}', '{"id": "c"}'],
        "line 2: text: expected str, found list",
    ),
    "labels that are a list": (
        ['{"id": "a", "labels": []}', '{"id": "b"}', '{"id": "c"}'],
        "line 1: labels: expected dict, found list",
    ),
    "a label that is a list": (
        ['{"id": "a", "labels": {"x": []}}', '{"id": "b"}', '{"id": "c"}'],
        "line 1: label 'x': expected a number or text, found list",
    ),
    "too many tokens": (
        ['{"id": "a", "tokens": {"words": ["x"]}}', '{"id": "b"}', '{"id": "c"}'],
        "line 1: tokens of 'words': 1 of them",
    ),
}


@pytest.mark.parametrize("case", STRINGS)
@pytest.mark.usefixtures("corpus")
def test_wrong_strings_are_named(tmp_path: Path, case: str) -> None:
    lines, message = STRINGS[case]
    path = tmp_path / "corpus" / "train-00000.jsonl"
    path.write_text("\n".join(lines) + "\n")
    entry = {"path": path.name, "bytes": path.stat().st_size, "sha256": file_checksum(path)}
    _manifest(lambda content: content["splits"][0]["shards"][0].update(strings=entry), seal=True)(
        tmp_path / "corpus"
    )
    with pytest.raises(DataError) as raised:
        load_corpus(tmp_path / "corpus")
    assert message in str(raised.value)


@pytest.mark.usefixtures("corpus")
def test_nothing_on_disk_is_pickled(tmp_path: Path) -> None:
    assert {path.suffix for path in (tmp_path / "corpus").iterdir()} == {".json", ".jsonl", ".safetensors"}
    with pytest.raises(DataError, match="found dtype object"):
        write_corpus(
            tmp_path / "other", {"train": {"features": {"a": [np.array([[{}]], dtype=object)]}}}, task=SCORE
        )


def test_whoever_may_read_one_file_of_a_corpus_may_read_all(tmp_path: Path) -> None:
    splits = {"train": {"features": {"audio": [np.zeros((2, 3))]}, "targets": [0.0]}}
    write_corpus(tmp_path / "corpus", splits, task=Task(kind="regression"))
    assert len({stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "corpus").iterdir()}) == 1


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_memory_order_of_the_arrays_does_not_matter(tmp_path: Path, order: Literal["C", "F"]) -> None:
    features = [np.asarray(np.arange(12.0).reshape(4, 3) + 100 * sample, order=order) for sample in range(3)]
    times = [np.arange(8.0).reshape(4, 2, order=order)[:, 0] for _ in range(3)]
    splits = {
        "train": {"features": {"audio": features}, "targets": [0.0, 1.0, 2.0], "times": {"audio": times}}
    }
    written = write_corpus(tmp_path / "corpus", splits, task=Task(kind="regression")).split("train")
    for sample, expected, seconds in zip(written, features, times, strict=True):
        np.testing.assert_array_equal(sample.features["audio"], expected)
        np.testing.assert_array_equal(sample.times["audio"], seconds)


@pytest.mark.parametrize("path", [3, None, ["corpus"]])
def test_a_place_that_is_no_path_is_refused(path: Any) -> None:
    said = rf"^path: expected the place of a corpus directory, found {type(path).__name__}$"
    with pytest.raises(DataError, match=said):
        load_corpus(path)
    with pytest.raises(DataError, match=said):
        write_corpus(path, {}, task=Task(kind="regression"))
