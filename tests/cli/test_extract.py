"""``alignmamba extract``, and ``predict`` of media files."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import pytest

from alignmamba import load_corpus
from alignmamba.recipes.extraction.extraction import store_of
from made_clips import write_clip


class Cli(Protocol):
    def __call__(self, *arguments: object) -> tuple[int, str, str]: ...


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    rows = ["file,label,split,grade,happy,sad"]
    grades, moods = ["low", "high", "", "middle", "low", "high", "middle"], ["1,0", "0,", ",", "1,1"] * 2
    for number, split in enumerate(["train"] * 4 + ["valid"] * 2 + ["test"]):
        write_clip(folder / f"c{number}.mp4", 0.5)
        (folder / f"c{number}.txt").write_text("hello there")
        label = "glad" if number % 2 else "sad"
        rows.append(f"c{number}.mp4,{label},{split},{grades[number]},{moods[number]}")
    (folder / "labels.csv").write_text("\n".join([*rows, ""]))
    return folder


@pytest.fixture(scope="module")
def extracted(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from alignmamba.cli.main import main

    out = tmp_path_factory.mktemp("made") / "corpus"
    assert main(["extract", str(clips), "--out", str(out), "--words", "spread"]) == 0
    return out


@pytest.fixture(scope="module")
def trained(extracted: Path) -> Path:
    from alignmamba import FitConfig, RunConfig, train

    config = RunConfig(data=str(extracted), fit=FitConfig(epochs=1), options={"d_model": 16, "depth": 1})
    return train(config, out=extracted.parent / "run", progress=None).directory


def test_a_folder_of_clips_becomes_a_corpus(cli: Cli, clips: Path, tmp_path: Path) -> None:
    code, out, err = cli("extract", clips, "--out", tmp_path / "new", "--words", "spread", "--json")
    assert code == 0
    report: dict[str, Any] = json.loads(out)
    assert report["samples"] == {"train": 4, "valid": 2, "test": 1}
    assert report["task"]["classes"] == ["glad", "sad"]
    assert report["present"] == {"text": 7, "audio": 7, "video": 7}
    assert report["failed"] == 0
    assert "licence" in err  # of every reader, said before it reads
    code, out, _ = cli("inspect", tmp_path / "new")
    assert code == 0
    code, _, err = cli("extract", clips, "--out", tmp_path / "new", "--words", "spread")
    assert code == 2
    assert "--overwrite" in err


def test_a_part_of_the_clips_makes_no_corpus(cli: Cli, clips: Path, tmp_path: Path) -> None:
    code, out, _ = cli(
        "extract", clips, "--out", tmp_path / "new", "--words", "spread", "--shard", "2/7", "--video", "none"
    )
    assert code == 0
    assert "1 clip in" in out
    assert not (tmp_path / "new").exists()


def test_one_clip_is_shown_with_what_it_lacks(cli: Cli, clips: Path, tmp_path: Path) -> None:
    voice = write_clip(tmp_path / "voice.wav", 0.5)
    code, out, _ = cli("extract", voice, "--show", "--words", "subtitles")
    assert code == 0
    assert "missing" in out
    assert "audio" in out
    code, out, _ = cli("extract", clips / "c0.mp4", "--show", "--words", "spread", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["text"] == "hello there"
    assert {row["modality"] for row in report["modalities"]} == {"text", "audio", "video"}
    assert all(int(row["length"]) > 0 for row in report["modalities"])
    code, out, _ = cli("extract", clips / "c0.mp4", "--show", "--words", "none", "--json")
    assert code == 0
    assert {row["modality"] for row in json.loads(out)["modalities"]} == {"audio", "video"}


def test_what_no_clip_has_is_reported_with_the_reason(cli: Cli, tmp_path: Path) -> None:
    voice = write_clip(tmp_path / "voice.wav", 0.5)
    code, out, _ = cli("extract", voice, "--out", tmp_path / "new")
    assert code == 0
    assert "1 clip without text: no text is given" in out
    assert "0 of 1" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "out: expected --out DIR"),
        (["--out", "x", "--audio", "logmell"], "audio: found 'logmell', expected one of logmel"),
        (["--out", "x", "--audio", "logmel:file"], "found weights, but logmel has none"),
        (["--out", "x", "--text", "hf"], "text: hf: found no weights, expected hf:FOLDER"),
        (["--out", "x", "--text", "none", "--audio", "none", "--video", "none"], "at least one modality"),
        (["--out", "x", "--set", "audio.band=3"], "audio.band: expected one of"),
        (["--out", "x", "--set", "audio=3"], "error: audio: expected one of text.width"),
        (["--out", "x", "--words", "none", "--audio", "none", "--video", "none"], "at least one modality"),
        (["--out", "x", "--max-failed", "-1"], "max_failed: found -1, expected 0 or more"),
        (["--out", "x", "--name", " "], "name: found ' ', expected text"),
        (["--out", "x", "--cluster", "a=1"], "cluster: goes with --engine slurm or ray"),
        (["--out", "x", "--engine", "ray", "--limit", "3"], "limit: goes with --engine local"),
        (["--out", "x", "--fps", "-1"], "video: pixels: fps"),
        (["--out", "x", "--shard", "3/2"], "shard"),
        (["--out", "x", "--resume"], "resume: found no"),
        (["--out", "x", "--workers", "0"], "workers"),
        (["--out", "x", "--label", "mood"], "expected a column 'mood'"),
        (["--out", "x", "--label", "happy", "mood"], "labels.csv: expected a column 'mood', found ['file',"),
        (
            ["--out", "x", "--label", "grade", "--task", "ordinal"],
            "labels.csv: classes: found none, expected the",
        ),
        (["--out", "x", "--label", "happy", "label", "--task", "multilabel"], "'sad', expected a number"),
        (["--out", "x", "--classes", "a", "b"], "expected one of ['a', 'b']"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    cli: Cli, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("extract", clips, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_media_files_are_predicted_as_those_of_training(
    cli: Cli, clips: Path, extracted: Path, trained: Path, tmp_path: Path
) -> None:
    code, out, err = cli(
        "predict", trained, clips / "c5.mp4", clips / "c6.mp4", "--out", tmp_path / "clips.csv"
    )
    assert code == 0, err
    assert "2 predictions of media files" in out
    code, _, _ = cli("predict", trained, "--data", extracted, "--out", tmp_path / "corpus.csv")
    assert code == 0
    of_clips, of_corpus = (
        {row["id"]: row for row in csv.DictReader((tmp_path / name).read_text().splitlines())}
        for name in ("clips.csv", "corpus.csv")
    )
    assert set(of_clips) == {"c5", "c6"}
    for name, row in of_clips.items():
        assert float(row["p(sad)"]) == pytest.approx(float(of_corpus[name]["p(sad)"]), abs=1e-5)


LEADING: dict[str, tuple[list[str], set[str], set[str], str]] = {
    "ordinal": (
        ["--label", "grade", "--task", "ordinal", "--classes", "low", "middle", "high"],
        {"prediction", "p(low)", "p(middle)", "p(high)"},
        {"accuracy", "mae_classes", "kappa"},
        "note: 1 rows of labels.csv lack the label that leads and were kept for others, 'c2' first.",
    ),
    "multilabel": (
        ["--label", "happy", "sad"],
        {"prediction(happy)", "prediction(sad)", "p(happy)", "p(sad)"},
        {"accuracy_labels", "f1_labels", "accuracy(happy)"},
        "note: several labels: happy, sad are one target.",
    ),
}


@pytest.mark.parametrize("kind", LEADING)
def test_clips_of_ordered_classes_or_several_labels_lead_to_scores(
    cli: Cli, clips: Path, extracted: Path, tmp_path: Path, kind: str
) -> None:
    options, columns, scores, note = LEADING[kind]
    corpus, run, table = tmp_path / "corpus", tmp_path / "run", tmp_path / "said.csv"
    shutil.copytree(store_of(extracted), store_of(corpus))  # read once
    code, out, err = cli("extract", clips, "--out", corpus, "--words", "spread", *options, "--json")
    assert code == 0, err
    assert (report := json.loads(out))["task"]["kind"] == kind
    assert (report["cached"], report["samples"]) == (7, {"train": 4, "valid": 2, "test": 1})
    assert note in err
    target = load_corpus(corpus).split("train")[2]  # whose cells are empty
    assert (target.target, target.labels["label"]) == (None, "sad")
    small = ["options.d_model=16", "options.depth=1", "fit.epochs=1"]
    assert cli("train", "--data", corpus, "--set", *small, "--out", run)[0] == 0
    code, out, _ = cli("evaluate", run, "--split", "valid", "--json")
    assert code == 0
    assert scores <= set(json.loads(out)["metrics"])
    assert cli("predict", run, clips / "c5.mp4", "--out", table)[0] == 0
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert set(row) == {"id", "split", *columns}
    assert all(0 <= float(row[name]) <= 1 for name in columns if name.startswith("p("))


def test_a_clip_without_pictures_is_predicted_without_them(cli: Cli, trained: Path, tmp_path: Path) -> None:
    voice = write_clip(tmp_path / "voice.wav", 0.5)
    code, _, err = cli("predict", trained, voice, "--out", tmp_path / "p.csv")
    assert code == 0
    assert "video is not in" in err
    both = write_clip(tmp_path / "both.mp4", 0.5)
    (tmp_path / "both.txt").write_text("hello there", encoding="utf-8")
    code, _, err = cli("predict", trained, voice, both, "--out", tmp_path / "p.csv")
    assert code == 0
    assert "note: 1 clip without text: no text is given" in err
    assert "note: 1 clip without video: " in err


def test_another_version_of_a_reader_is_used_and_reported(
    cli: Cli, clips: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignmamba.media.log_mel import LogMel

    monkeypatch.setattr(LogMel, "version", "av 1.0")
    code, _, err = cli("predict", trained, clips / "c6.mp4", "--out", tmp_path / "p.csv")
    assert code == 0
    assert "note: audio: logmel is av 1.0 here and was av " in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected --data PATH, a corpus, or media files, found neither"),
        (["{clips}/c0.mp4", "--data", "{corpus}"], "data: does not go with media files"),
        (["{clips}/c0.mp4", "--split", "test"], "split: does not go with media files"),
        (["--data", "{corpus}", "--max-failed", "3"], "max-failed: goes with media files, found --data al"),
        (["--data", "{corpus}", "--models", "{clips}"], "models: goes with media files, found --data alon"),
        (["{clips}/c0.mp4", "--models", "{clips}"], "expected none, as no reader of the recipe has weights"),
        (["{clips}/c0.txt"], "c0.txt: cannot be read"),
        (["{clips}/nothing.mp4"], "nothing.mp4: expected a media file"),
    ],
)
def test_what_cannot_be_predicted_is_refused_in_one_line(
    cli: Cli,
    clips: Path,
    extracted: Path,
    trained: Path,
    tmp_path: Path,
    arguments: list[str],
    said: str,
) -> None:
    given = [each.format(clips=clips, corpus=extracted) for each in arguments]
    code, _, err = cli("predict", trained, *given, "--out", tmp_path / "p.csv")
    assert code == 2
    assert said in err
    assert "alignmamba-" not in err  # no folder that is gone
    assert not (tmp_path / "p.csv").exists()


def test_a_run_on_features_predicts_no_media(cli: Cli, clips: Path, run: Path, tmp_path: Path) -> None:
    code, _, err = cli("predict", run, clips / "c0.mp4", "--out", tmp_path / "p.csv")
    assert code == 2
    assert "was trained on a corpus that `alignmamba extract` did not make" in err


def test_doctor_lists_the_readers_with_licences_and_the_place_of_weights(cli: Cli) -> None:
    code, out, _ = cli("doctor", "--media", "--json")
    assert code == 0
    found = {(row["part"], row["name"]): row for row in json.loads(out)["readers"]}
    assert found["audio", "logmel"]["ready"] == "yes"
    assert "Research" in found["audio", "egemaps"]["licence"]
    assert "face_landmarker.task" in found["video", "face:FILE"]["weights"]
    assert all(row["weights"] for (_, name), row in found.items() if ":" in name)
    code, out, _ = cli("doctor", "--media")
    assert code == 0
    assert "video face:FILE: face_landmarker.task" in out


def test_a_folder_is_not_shown_and_a_corpus_without_labels_is_not_to_be_trained(
    cli: Cli, clips: Path, tmp_path: Path
) -> None:
    code, _, err = cli("extract", clips, "--show")
    assert code == 2
    assert f"show: expected one media file, found the folder {clips}" in err
    (tmp_path / "labels.csv").write_text("file,score\nc0.wav,1\n")
    write_clip(tmp_path / "c0.wav", 0.3)
    code, out, err = cli("extract", tmp_path, "--out", tmp_path / "new", "--words", "spread")
    assert code == 0
    assert "has no labels: all clips are in test. --label takes another column, such as 'score'." in err
    assert out.rstrip().endswith("(test 1)")
