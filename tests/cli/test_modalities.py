"""A run beside a corpus whose modalities go by other names, are too many or too few."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.contracts import ModalitySpec
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.errors import AlignMambaError, DataError
from alignmamba.recipes.finished_run import evaluate, predict
from alignmamba.recipes.modalities import matched
from small_run import CLASSES

Cli = Callable[..., Any]


def renamed_copy(
    corpus: Path, path: Path, names: dict[str, str], *, more: dict[str, int] | None = None
) -> Path:
    """The test split with its modalities under other names (those of `names` alone), and further ones of the
    given widths.
    """
    samples = list(load_corpus(corpus).split("test"))
    features: dict[str, list[Any]] = {
        new: [sample.features.get(old) for sample in samples] for old, new in names.items()
    }
    for name, width in (more or {}).items():
        features[name] = [np.ones((2, width)) for _ in samples]
    arrays = {
        "features": features,
        "ids": [sample.id for sample in samples],
        "targets": [sample.target for sample in samples],
    }
    write_corpus(path, {"test": arrays}, task={"kind": "classification", "classes": CLASSES})
    return path


UNKNOWN: dict[str, tuple[dict[str, str], dict[str, int], str]] = {
    "renamed": (
        {"text": "text", "audio": "sound"},
        {},
        "found modalities text, sound, expected text, audio: use --rename sound=audio or --ignore sound",
    ),
    "all renamed": (
        {"text": "words", "audio": "sound"},
        {},
        "use --rename words=text, and --rename sound=audio",
    ),
    "one more": (
        {"text": "text", "audio": "audio"},
        {"depth": 2},
        "found modalities text, audio, depth, expected text, audio: use --ignore depth",
    ),
    "another width": ({"text": "text"}, {"sound": 3}, "use --ignore sound"),
    "two of a width": (
        {"text": "text", "audio": "sound"},
        {"depth": 2},
        "use --rename sound=audio or --ignore sound, and --ignore depth",
    ),
    "nothing that goes": (
        {},
        {"smell": 3},
        "found modalities smell, expected some of text, audio, the modalities of the run",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_modalities_are_refused_with_the_ways_out(
    cli: Cli, run: Path, corpus: Path, tmp_path: Path, case: str
) -> None:
    names, more, said = UNKNOWN[case]
    other = renamed_copy(corpus, tmp_path / "other", names, more=more)
    for arguments in (
        ("evaluate", run, "--data", other),
        ("predict", run, "--data", other, "--out", tmp_path / "p.csv"),
    ):
        code, out, err = cli(*arguments)
        assert (code, out) == (2, "")
        assert said in err, err
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "p.csv").exists()


def test_a_renamed_corpus_scores_as_the_original(cli: Cli, run: Path, corpus: Path, tmp_path: Path) -> None:
    other = renamed_copy(corpus, tmp_path / "other", {"audio": "text", "text": "words"}, more={"depth": 9})
    options = ("--data", other, "--rename", "text=audio", "words=text", "--ignore", "depth")
    report = json.loads(cli("evaluate", run, *options, "--json").out)
    assert report["metrics"] == json.loads(cli("evaluate", run, "--json").out)["metrics"]
    assert report["modalities"] == {
        "used": ["text", "audio"],
        "not_in_corpus": [],
        "in_no_sample": [],
        "renamed": {"text": "audio", "words": "text"},
        "ignored": ["depth"],
    }
    code, out, err = cli("evaluate", run, *options)
    assert code == 0
    assert "all modalities" in out
    assert err.splitlines() == [
        "note: text of corpus 'other' is read as audio",
        "note: words of corpus 'other' is read as text",
        "note: dropped from corpus 'other': depth",
    ]
    code, out, err = cli("predict", run, *options, "--out", tmp_path / "p.csv", "--json")
    assert (code, json.loads(out)["modalities"]) == (0, report["modalities"])
    with (tmp_path / "p.csv").open() as ours, (run / "predictions_test.csv").open() as known:
        assert [row["p(sad)"] for row in csv.DictReader(ours)] == [
            row["p(sad)"] for row in csv.DictReader(known)
        ]


def test_repairs_follow_the_new_name(run: Path, tmp_path: Path) -> None:
    """The training mean of audio stands in for a hole in what the corpus calls sound."""
    task = {"kind": "classification", "classes": CLASSES}
    features = {"text": [np.ones((2, 4))], "sound": [np.full((1, 2), np.nan)], "audio": [np.ones((1, 5))]}
    write_corpus(
        tmp_path / "holes", {"test": {"features": features, "targets": [0]}}, task=task, nonfinite="keep"
    )
    options = {"data": str(tmp_path / "holes"), "rename": {"sound": "audio"}, "ignore": ["audio"]}
    out = tmp_path / "p.csv"
    predict(run, out=out, nonfinite="mean", **options)  # type: ignore[arg-type]
    filled = out.read_text()
    predict(run, out=out, nonfinite="zero", **options)  # type: ignore[arg-type]
    assert filled != out.read_text()


def test_absent_modalities_are_named(cli: Cli, run: Path, corpus: Path, tmp_path: Path) -> None:
    other = renamed_copy(corpus, tmp_path / "other", {"text": "text"})
    code, out, err = cli("evaluate", run, "--data", other)
    assert (code, err) == (0, "note: audio is not in corpus 'other'; predictions do without it\n")
    assert "text (audio is not in this corpus)" in out
    assert "all modalities" not in out
    report = json.loads(cli("evaluate", run, "--data", other, "--json").out)
    assert (report["modalities"]["used"], report["modalities"]["not_in_corpus"]) == (["text"], ["audio"])
    assert report["metrics"] == evaluate(run, drop=["audio"])["metrics_dropped"]
    code, _, err = cli("predict", run, "--data", other, "--out", tmp_path / "p.csv")
    assert (code, err) == (0, "note: audio is not in corpus 'other'; predictions do without it\n")


def test_a_modality_that_no_sample_has_is_named_as_well(cli: Cli, run: Path, tmp_path: Path) -> None:
    task = {"kind": "classification", "classes": CLASSES}
    both = {"features": {"text": [np.ones((2, 4))], "audio": [np.ones((2, 2))]}, "targets": [0]}
    write_corpus(
        tmp_path / "other",
        {"train": both, "test": {**both, "features": {**both["features"], "audio": [None]}}},
        task=task,
    )
    code, out, err = cli("evaluate", run, "--data", tmp_path / "other")
    assert code == 0
    assert "text (no sample has audio)" in out
    without = "note: no predicted sample of corpus 'other' has audio; predictions do without it\n"
    assert err.startswith(without)
    assert without not in cli("evaluate", run, "--data", tmp_path / "other", "--split", "train").err


WRONG = [
    (["--rename", "sight=audio"], "rename: corpus 'other' has no modality 'sight', only text, sound"),
    (["--rename", "sound=video"], "rename sound=video: expected a modality of the run, some of text, audio"),
    (
        ["--rename", "sound=text"],
        "rename sound=text: 'text' is in the corpus already, corpus 'other' has text, sound",
    ),
    (["--rename", "sound=audio", "--rename", "text=audio"], "'audio' is the new name of 'text' too"),
    (
        ["--rename", "sound=audio", "sound=text"],
        "--rename: 'sound' has the names 'audio' and 'text', expected one",
    ),
    (["--rename", "sound"], "--rename 'sound': expected NAME=KNOWN, for example vision=video"),
    (["--rename", "=audio"], "--rename '=audio': expected NAME=KNOWN"),
    (["--ignore", "sight"], "ignore: corpus 'other' has no modality 'sight', only text, sound"),
    (
        ["--ignore", "sound", "--rename", "sound=audio"],
        "rename: modality 'sound' is ignored too; choose one of them",
    ),
    (
        ["--ignore", "sound", "text"],
        "corpus 'other': found none beside the ignored sound, text, expected some of text, audio",
    ),
    (
        ["--rename", "text=audio", "--ignore", "sound"],
        "modality 'audio': found features of width 4, expected features of width 2",
    ),
    (["--ignore", "text", "--rename", "sound=audio"], "3 samples have no audio, the first is"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_wrong_names_are_refused(
    cli: Cli, run: Path, corpus: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    other = renamed_copy(corpus, tmp_path / "other", {"text": "text", "audio": "sound"})
    for arguments in (
        ("evaluate", run, "--data", other),
        ("predict", run, "--data", other, "--out", tmp_path / "p.csv"),
    ):
        code, out, err = cli(*arguments, *options)
        assert (code, out) == (2, "")
        assert said in err, err
        assert len(err.splitlines()) == 1


def test_python_takes_the_same(run: Path, corpus: Path, tmp_path: Path) -> None:
    other = str(renamed_copy(corpus, tmp_path / "other", {"text": "text", "audio": "sound"}))
    with pytest.raises(AlignMambaError, match="--rename sound=audio or --ignore sound"):
        evaluate(run, data=other)
    assert evaluate(run, data=other, rename={"sound": "audio"})["metrics"] == evaluate(run)["metrics"]
    assert evaluate(run, data=other, ignore=["sound"])["modalities"]["not_in_corpus"] == ["audio"]


def test_token_ids_of_another_numbering_are_refused(tmp_path: Path) -> None:
    """The same number stands for another word there; without a stated numbering nothing can be compared."""
    given: Any = {"test": {"features": {"text": [np.array([0, 3])]}, "targets": [0]}}
    corpus = write_corpus(tmp_path / "corpus", given, task={"kind": "classification", "classes": CLASSES})

    def beside(mine: str, trained: str) -> None:
        offered, known = (
            ModalitySpec(name="text", kind="tokens", dim=4, units=units) for units in (mine, trained)
        )
        matched([known], replace(corpus, modalities=(offered,)), rename={}, ignore=(), trained_on=False)

    for mine, trained in (("list a", "list a"), ("", "list a"), ("list a", "")):
        beside(mine, trained)
    with pytest.raises(
        DataError,
        match=r"found token ids of a vocabulary of 4 \(list b\), expected .* \(list a\) as in training",
    ):
        beside("list b", "list a")
