from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import CLASSES, SCORE, arrays

from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.inspection import inspect_corpus, inspect_loaded
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
    assert (found.name, found.source, found.licence, found.checksum) == (
        "corpus",
        "ours",
        "CC0-1.0",
        corpus.checksum,
    )
    assert found.bytes == sum(
        path.stat().st_size for path in (tmp_path / "corpus").iterdir() if path.name != "corpus.json"
    )
    train, test = found.splits
    assert (train.role, train.samples, test.role, test.samples) == ("train", 4, "test", 4)
    assert train.targets == {"sad": 2, "glad": 2}
    assert test.targets == {}
    sound, words = train.modalities
    assert (sound.name, sound.kind, sound.dim, sound.units, sound.timed) == (
        "sound",
        "features",
        3,
        "dB",
        True,
    )
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
    assert split.targets == {
        "minimum": -3.0,
        "mean": 0.5,
        "maximum": 3.0,
        "standard deviation": pytest.approx(np.sqrt(4.75)),
    }


def test_every_problem_is_listed_and_load_names_the_first(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    given = arrays()
    given["features"]["sound"][0][1, 2] = np.inf
    given["features"]["sound"][3][0, 0] = np.nan
    write_corpus(
        path,
        {"train": given, "valid": arrays("valid"), "test": arrays("test")},
        task=CLASSES,
        nonfinite="keep",
    )
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


# What training would meet


def _written(path: Path, splits: dict[str, dict[str, Any]], **task: Any) -> Path:
    write_corpus(path, splits, task=task or {"kind": "classification", "classes": ("a", "b", "c")})  # type: ignore[arg-type]
    return path


def _arrays(targets: Any, **features: Any) -> dict[str, Any]:
    return {
        "features": features or {"sound": [np.full((2, 2), row) for row in range(len(targets))]},
        "targets": targets,
    }


ROWS = [np.eye(2), np.ones((1, 2))]
MEETS: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any], str, list[str]]] = {
    "complete": ({role: _arrays([0, 1, 2]) for role in ("train", "valid", "test")}, {}, "", []),
    "no valid": (
        {role: _arrays([0, 1, 2]) for role in ("train", "test")},
        {},
        (
            "there is no split 'valid', only 'train', 'test'; `train --split-valid 0.15` takes that share of"
            " train for it"
        ),
        [],
    ),
    "no train": ({"test": _arrays([0, 1])}, {}, "there is no split 'train', only 'test'", []),
    "no targets": (
        {
            "train": {"features": {"sound": ROWS}},
            "valid": _arrays([0, 1, 2]),
            "test": {"features": {"sound": ROWS}},
        },
        {},
        "split 'train' has no targets; `train --pretrain` needs none",
        ["split 'test' has no targets: it is predicted and not scored"],
    ),
    "no targets of valid": (
        {"train": _arrays([0, 1, 2]), "valid": {"features": {"sound": ROWS}}, "test": _arrays([0, 1, 2])},
        {},
        "split 'valid' has no targets",
        [],
    ),
    "no test": (
        {role: _arrays([0, 1, 2]) for role in ("train", "valid")},
        {},
        "",
        [
            "there is no split 'test': scores are of 'valid', on which the best epoch is chosen; an"
            " experiment needs one"
        ],
    ),
    "modalities": (
        {
            "train": _arrays([0, 1, 2], sound=[*ROWS, None], sight=[*ROWS, ROWS[0]], words=[None] * 3),
            "valid": _arrays([0, 1], sound=ROWS, sight=[None, None], words=ROWS),
            "test": _arrays([0, 1], sound=ROWS, sight=ROWS, words=[None, None]),
        },
        {},
        "",
        [
            "no training sample has words: training drops it from the model",
            "no sample of valid has sight: valid does not measure it",
        ],
    ),
    "one class": (
        {role: _arrays([1, 1, 1]) for role in ("train", "valid", "test")},
        {},
        "",
        ["every sample of train is of class 'b': there is nothing to learn"],
    ),
    "a class without samples": (
        {role: _arrays([0, 1, 1]) for role in ("train", "valid", "test")},
        {},
        "",
        ["no sample of train is of class 'c': a model cannot learn it"],
    ),
    "one target": (
        {role: _arrays([2.5, 2.5]) for role in ("train", "valid", "test")},
        {"kind": "regression"},
        "",
        ["every target of train is 2.5: there is nothing to learn"],
    ),
    "offset that single precision cannot resolve": (
        {
            role: _arrays([0, 1, 2], clock=[np.array([[1e8 + row]]) for row in range(3)])
            for role in ("train", "valid", "test")
        },
        {},
        "",
        [
            "clock: its channel has one value in all of train, so nothing can be learned from it. It is"
            " stored as float32, with steps of 8 there: subtract an offset before you write it"
        ],
    ),
    "constant channels": (
        {
            "train": _arrays(
                [0, 1, 2],
                sound=[np.array([[row, 7.0, 0.0]]) for row in range(3)],
                still=[np.ones((2, 1))] * 3,
            ),
            **{
                role: _arrays([0, 1, 2], sound=[np.zeros((1, 3))] * 3, still=[np.ones((2, 1))] * 3)
                for role in ("valid", "test")
            },
        },
        {},
        "",
        [
            "sound: 2 of 3 channels have one value in all of train, so nothing can be learned from it",
            "still: its channel has one value in all of train, so nothing can be learned from it",
        ],
    ),
}


@pytest.mark.parametrize("case", MEETS)
def test_what_training_would_meet(tmp_path: Path, case: str) -> None:
    splits, task, hindrance, notes = MEETS[case]
    found = inspect_corpus(_written(tmp_path / "corpus", splits, **task))
    assert found.problems == ()
    assert (found.training.hindrance, list(found.training.notes)) == (hindrance, notes)
    assert found.training.dropped == (("words",) if case == "modalities" else ())
    again = inspect_loaded(load_corpus(tmp_path / "corpus"), source="")
    assert (again.training, again.splits) == (found.training, found.splits)
