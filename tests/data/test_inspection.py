from pathlib import Path

import numpy as np
import pytest
from corpora import CLASSES, SCORE, arrays

from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.inspection import inspect_corpus
from alignmamba.errors import DataError


def test_a_sound_corpus_is_described(tmp_path: Path) -> None:
    corpus = write_corpus(
        tmp_path / "corpus",
        {"train": arrays(), "test": arrays("test") | {"targets": None}},
        task=CLASSES,
        units={"sound": "dB"},
        source="ours",
        licence="CC0-1.0",
        samples_per_shard=3,
    )
    found = inspect_corpus(tmp_path / "corpus")
    assert found.problems == ()
    assert (found.name, found.source, found.licence, found.checksum) == ("corpus", "ours", "CC0-1.0", corpus.checksum)
    assert found.bytes == sum(path.stat().st_size for path in (tmp_path / "corpus").iterdir() if path.name != "corpus.json")
    train, test = found.splits
    assert (train.role, train.samples, test.role, test.samples) == ("train", 4, "test", 4)
    assert train.targets == {"sad": 2, "glad": 2}
    assert test.targets == {}
    sound, words = train.modalities
    assert (sound.name, sound.kind, sound.dim, sound.units, sound.timed) == ("sound", "features", 3, "dB", True)
    assert (sound.shortest, sound.median, sound.longest, sound.missing) == (2, 4.0, 5, 0.25)
    assert (words.kind, words.dim, words.shortest, words.median, words.longest) == ("tokens", 10, 1, 2.0, 3)
    assert (words.missing, words.timed) == (0.25, False)


def test_groups_are_counted_and_those_of_several_splits_named(tmp_path: Path) -> None:
    splits = {
        "train": arrays() | {"groups": ["x", "x", "y", None]},
        "valid": arrays("valid"),
        "test": arrays("test") | {"groups": ["z", "y", "x", None]},
    }
    write_corpus(tmp_path / "corpus", splits, task=CLASSES, samples_per_shard=1)
    found = inspect_corpus(tmp_path / "corpus")
    assert {split.role: split.groups for split in found.splits} == {"train": 2, "valid": 0, "test": 3}
    assert found.shared_groups == ("x", "y")


def test_regression_targets_are_summarised(tmp_path: Path) -> None:
    given = {"features": {"a": [np.ones((1, 1))] * 4}, "targets": [-3.0, 1.0, 1.0, 3.0]}
    write_corpus(tmp_path / "corpus", {"train": given}, task=SCORE)
    (split,) = inspect_corpus(tmp_path / "corpus").splits
    assert split.targets == {"minimum": -3.0, "mean": 0.5, "maximum": 3.0, "standard deviation": pytest.approx(np.sqrt(4.75))}


def test_every_problem_is_listed_and_load_names_the_first(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    given = arrays()
    given["features"]["sound"][0][1, 2] = np.inf
    given["features"]["sound"][3][0, 0] = np.nan
    write_corpus(path, {"train": given, "valid": arrays("valid"), "test": arrays("test")}, task=CLASSES, nonfinite="keep")
    (path / "valid-00000.jsonl").unlink()
    content = bytearray((path / "test-00000.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "test-00000.safetensors").write_bytes(content)
    found = inspect_corpus(path)
    expected = [
        "valid-00000.jsonl: missing, but corpus.json lists it",
        "test-00000.safetensors: SHA-256 differs",
        "split 'train', sample 'train-a', modality 'sound': found inf at position 1, channel 2",
        "split 'train', sample 'train-d', modality 'sound': found nan at position 0, channel 0",
    ]
    assert [part in problem for part, problem in zip(expected, found.problems, strict=False)] == [True] * 4
    assert all("\n" not in problem for problem in found.problems)
    assert [split.role for split in found.splits] == ["train", "test"]
    with pytest.raises(DataError) as raised:
        load_corpus(path)
    assert str(raised.value).startswith(found.problems[0])
    assert f"and {len(found.problems) - 1} more problems" in str(raised.value)


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a corpus, it has no corpus\.json"):
        inspect_corpus(tmp_path)
