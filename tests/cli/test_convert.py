"""Foreign files on the command line: convert, export, inspect, and as --data of the other verbs."""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stub_reader
from alignmamba.contracts import Task
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.storage import MANIFEST
from alignmamba.formats import FORMATS
from alignmamba.formats.conversion_cache import cached_corpus
from alignmamba.formats.known_formats import any_options
from alignmamba.formats.published_files import KNOWN, KnownFile
from alignmamba.recipes.display import SampleLines
from alignmamba.recipes.run_directory import RunDirectory
from conftest import Said
from small_run import SETTINGS

Cli = Callable[..., Said]
SCORE = Task(kind="regression", label_range=(-3.0, 3.0))


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(FORMATS, "stub", stub_reader)
    monkeypatch.setenv("ALIGNMAMBA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """With a value that is not finite and a clip of length 0."""
    content = stub_reader.content(size=12)
    content["splits"]["train"]["features"]["audio"][1][0][1] = float("nan")
    content["splits"]["train"]["features"]["text"][2] = []
    del content["splits"]["train"]["tokens"]
    return stub_reader.write(tmp_path / "given.json", content)


class Listening(SampleLines):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("converted")
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def converted(root: Path) -> list[Path]:
    return [path.parent for path in (root / "cache" / "corpora").glob(f"*/{MANIFEST}")]


# convert


@pytest.mark.parametrize("format", ["stub", "auto"])
def test_convert_says_what_was_kept_and_what_was_wrong(
    cli: Cli, file: Path, tmp_path: Path, format: str
) -> None:
    said = cli("convert", format, file, tmp_path / "corpus", "--name", "mine", "--dims", "audio=3")
    assert said.code == 0
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    for line in (
        "mine, read as stub: what was kept",
        "audio features 3 12 12 12",
        "text tokens 9 11 12 12",
        "samples 12 12 12",
        "not finite audio set to 0 1",
        "zero length text taken as missing 1",
        "All of it was kept.",
    ):
        assert line in lines
    assert said.err.splitlines() == [f"{role}: 12 samples converted" for role in ("train", "valid", "test")]
    corpus = load_corpus(tmp_path / "corpus")
    assert corpus.name == "mine"
    assert corpus.split("train")[1].features["audio"][0, 1] == 0


def test_convert_as_json(cli: Cli, file: Path, tmp_path: Path) -> None:
    said = cli("convert", "stub", file, tmp_path / "corpus", "--nonfinite", "mean", "--json")
    found = json.loads(said.out)
    assert found["samples"] == {"train": 12, "valid": 12, "test": 12}
    assert found["present"]["train"] == {"audio": 12, "text": 11}
    assert found["faults"] == [
        {"kind": "not finite", "where": "audio", "done": "set to the channel's mean over train", "count": 1},
        {"kind": "zero length", "where": "text", "done": "taken as missing", "count": 1},
    ]
    assert found["checksum"] == load_corpus(tmp_path / "corpus").checksum
    assert (found["format"], found["notes"], found["name"]) == ("stub", ["All of it was kept."], "given")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stub", "given.json"], "expected at least one file and the directory to write, found 1 path"),
        (["mmsaa", "given.json", "corpus"], "format: expected auto or one of"),
        (["stub", "none.json", "corpus"], "none.json: cannot be read: No such file"),
        (["auto", "none.json", "corpus"], "none.json: expected a file or folder, found nothing"),
        (["auto", "text.txt", "corpus"], "text.txt: not recognised as any of the formats"),
        (["stub", "text.txt", "corpus"], "text.txt: not valid JSON"),
        (
            ["stub", "given.json", "corpus", "--dims", "audio=x"],
            (
                "--dims: expected MODALITY=N with a width from 1, several with commas between them, found"
                " 'audio=x'"
            ),
        ),
        (
            ["stub", "given.json", "corpus", "--dims", "audio=0"],
            (
                "--dims: expected MODALITY=N with a width from 1, several with commas between them, found"
                " 'audio=0'"
            ),
        ),
        (
            ["stub", "given.json", "corpus", "--dims", "audio=4,text=2"],
            "modality 'audio': expected width 4 by dims, found width 3",
        ),
        (["stub", "given.json", "corpus", "--nonfinite", "error"], "found nan at position 0, channel 1"),
        (["stub", "given.json", "text.txt"], "text.txt: exists already"),
        (
            ["stub", "given.json", "text.txt", "--overwrite"],
            "text.txt: expected a corpus directory to replace",
        ),
        (["stub", "given.json", "text.txt/corpus"], "cannot be"),
    ],
)
def test_what_convert_refuses_is_one_line_and_leaves_nothing(
    cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(file.parent)
    Path("text.txt").write_text("all of it")
    found = cli("convert", *arguments)
    assert found.code == 2
    assert found.out == ""
    assert len(found.err.splitlines()) == 1
    assert found.err.startswith("error: ")
    assert said in found.err
    assert sorted(path.name for path in file.parent.iterdir()) == ["given.json", "text.txt"]


# export


def test_export_writes_what_convert_reads(cli: Cli, tmp_path: Path) -> None:
    given = [np.arange(each + 2.0)[:, None] for each in range(3)]
    features = {"words": given, "audio": given, "vision": given, "touch": given}
    corpus = write_corpus(
        tmp_path / "corpus", {"train": {"features": features, "targets": [0.5, -3.0, 2.0]}}, task=SCORE
    )
    out = tmp_path / "out.pkl"
    refused = cli("export", "mmsa", tmp_path / "corpus", out)
    assert (refused.code, refused.out) == (2, "")
    assert "no modality 'text' to write as 'text'" in refused.err
    said = cli("export", "mmsa", tmp_path / "corpus", out, "--text", "words")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"train 3 samples in {out}\nnote: modalities dropped: touch\n")
    assert cli("export", "mmsa", tmp_path / "corpus", out, "--text", "words").code == 2
    said = cli("export", "mmsa", tmp_path / "corpus", out, "--text", "words", "--overwrite", "--json")
    assert json.loads(said.out)["samples"] == {"train": 3}
    assert cli("convert", "mmsa", out, tmp_path / "again").code == 0
    again = load_corpus(tmp_path / "again").split("train")
    assert list(again.ids) == list(corpus.split("train").ids)
    for found, expected in zip(again, given, strict=True):
        assert found.features["text"].tolist() == expected.tolist()
    assert cli("export", "mulT", "a", "b").code == 2


# inspect


def test_inspect_reads_a_foreign_file(cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(file.parent.iterdir())
    said = cli("inspect", file)
    assert said.code == 0
    text = " ".join(said.out.split())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    for words in (
        "format stub (JSON, for tests)",
        "data set not a published file that is known",
        f"SHA-256 {sha256}",
        "train (12) audio features 3",
        "train (12) text tokens 9",
        "8.3% no",
        "not finite audio set to 0 1",
        "All of it was kept.",
    ):
        assert words in text
    assert list(file.parent.iterdir()) == before
    monkeypatch.setitem(
        KNOWN, sha256, KnownFile(dataset="Small", version="made up", faults=("one NaN", "an empty clip"))
    )
    text = " ".join(cli("inspect", file).out.split())
    assert "data set Small version made up known faults one NaN; an empty clip task" in text


def test_inspect_agrees_with_what_is_converted(cli: Cli, file: Path, tmp_path: Path) -> None:
    cli("convert", "stub", file, tmp_path / "corpus")
    foreign, corpus = (json.loads(cli("inspect", path, "--json").out) for path in (file, tmp_path / "corpus"))
    assert foreign["splits"] == corpus["splits"]
    assert foreign["task"] == corpus["task"]
    assert foreign["known"] is None
    assert foreign["bytes"] == file.stat().st_size
    assert foreign["faults"][0] == {"kind": "not finite", "where": "audio", "done": "set to 0", "count": 1}


def test_inspect_refuses_what_convert_refuses(cli: Cli, tmp_path: Path) -> None:
    content = stub_reader.content()
    content["splits"]["test"]["features"]["audio"][3] = [["x"]]
    path = stub_reader.write(tmp_path / "given.json", content)
    for arguments in (["inspect", path], ["convert", "stub", path, tmp_path / "corpus"]):
        said = cli(*arguments)
        assert said.code == 2
        assert len([line for line in said.err.splitlines() if "samples" not in line]) == 1
        assert "given.json: split 'test', modality 'audio', row 3: expected numbers" in said.err
    (tmp_path / "empty").write_text("")
    said = cli("inspect", tmp_path / "empty")
    assert (said.code, said.out) == (2, "")
    assert "empty: not recognised as any of the formats" in said.err


def test_the_published_files() -> None:
    assert len(KNOWN) == 5
    assert all(len(sha256) == 64 and int(sha256, 16) for sha256 in KNOWN)
    assert {known.dataset for known in KNOWN.values()} == {"CMU-MOSI", "CMU-MOSEI", "CH-SIMS"}


# --data


def test_training_converts_once_and_says_so(cli: Cli, file: Path, tmp_path: Path) -> None:
    first = cli("train", "--data", file, "--out", tmp_path / "a", "--set", *SETTINGS)
    assert first.code == 0
    (kept,) = converted(tmp_path)
    said = first.err.splitlines()
    assert said[0] == f"{file}: looks like stub, converting it once into {kept}"
    assert said[1:4] == [f"{role}: 12 samples converted" for role in ("train", "valid", "test")]
    assert said[4].startswith(f"{file}: converted in ")
    assert (
        "samples: train 12, valid 12, test 12; repaired: not finite in audio, set to 0: 1; zero length in"
        " text" in said[4]
    )
    assert said[5] == f"{file}: All of it was kept."
    copy = file.rename(tmp_path / "elsewhere.json")
    second = cli("train", "--data", copy, "--out", tmp_path / "b", "--set", *SETTINGS)
    assert second.err.splitlines()[0] == f"{copy}: converted before, using {kept}"
    assert converted(tmp_path) == [kept]
    runs = [RunDirectory.open(tmp_path / name) for name in ("a", "b")]
    assert [run.config().data for run in runs] == [str(kept)] * 2
    assert runs[0].identity()["digest"] == runs[1].identity()["digest"]
    copy.unlink()
    assert cli("evaluate", tmp_path / "a").code == 0
    assert "made up (repaired: not finite" in json.loads((kept / MANIFEST).read_text())["source"]


def test_a_file_serves_a_finished_run(cli: Cli, file: Path, tmp_path: Path) -> None:
    assert cli("train", "--data", file, "--out", tmp_path / "run", "--set", *SETTINGS).code == 0
    own = json.loads(cli("evaluate", tmp_path / "run", "--json").out)
    given = cli("evaluate", tmp_path / "run", "--data", file, "--json")
    assert "converted before" in given.err
    assert json.loads(given.out)["metrics"] == own["metrics"]
    said = cli("predict", tmp_path / "run", "--data", file, "--out", tmp_path / "table.csv")
    assert (said.code, said.out.split()[0]) == (0, "36")
    changed = stub_reader.write(tmp_path / "changed.json", stub_reader.content(size=5, seed=1))
    assert (
        "converting it once"
        in cli("predict", tmp_path / "run", "--data", changed, "--out", tmp_path / "table.csv").err
    )
    assert len(converted(tmp_path)) == 2


def test_an_experiment_takes_a_file(cli: Cli, file: Path, tmp_path: Path) -> None:
    arguments = ["experiment", "comparison", "--data", file, "--out", tmp_path / "grid", "--dry-run"]
    said = cli(*arguments)
    assert said.code == 0, said.err
    assert "converting it once" in said.err
    assert len(converted(tmp_path)) == 1


def test_the_means_of_the_run_repair_a_file(cli: Cli, file: Path, tmp_path: Path) -> None:
    """With --nonfinite the values that are not finite reach the corpus of the cache, and are repaired as of
    any corpus.
    """
    said = cli("train", "--data", file, "--nonfinite", "mean", "--out", tmp_path / "run", "--set", *SETTINGS)
    assert said.code == 0
    (kept,) = converted(tmp_path)
    assert "not finite in audio, kept as it is: 1" in said.err
    assert np.isnan(
        load_corpus(kept, nonfinite="zero", verify=False).split("train").shards[0].slice("audio.values", 0, 9)
    ).any()  # type: ignore[attr-defined]
    assert cli("evaluate", tmp_path / "run").code == 0


def test_data_that_is_nothing_known(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    said = cli("train", "--data", tmp_path / "thesis.txt")
    assert said.code == 2
    assert "thesis.txt: expected a corpus directory or a file of the formats" in said.err
    (tmp_path / "folder").mkdir()
    assert "folder: not a corpus, it has no corpus.json" in cli("train", "--data", tmp_path / "folder").err
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_made(cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNMAMBA_CACHE", str(file))
    said = cli("train", "--data", file)
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "ALIGNMAMBA_CACHE names another directory" in said.err


def test_options_and_content_decide_where_a_file_lies(file: Path, tmp_path: Path) -> None:
    def at(path: Path, **options: Any) -> Path:
        return cached_corpus(path, any_options()(**options), told=Listening())

    first = at(file)
    assert at(file) == first
    assert at(file, nonfinite="keep") != first
    file.write_text(file.read_text() + "\n")
    assert at(file) != first
    assert len(converted(tmp_path)) == 3


def _ask(file: str, results: Any) -> None:
    told = Listening()
    path = cached_corpus(Path(file), any_options()(), told=told)
    results.put((str(path), told.said, stub_reader.asked[:1]))


@pytest.mark.skipif(
    os.name == "nt", reason="needs fork, or the made-up format is not known in the other process"
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_of_several_processes_one_converts(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub_reader, "asked", [])
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_ask, args=(str(file), results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert len({path for path, _, _ in found}) == 1
    assert sum(bool(asked) for _, _, asked in found) == 1, "only one read the file"
    assert sum("converting it once" in said[0] for _, said, _ in found) == 1


# what the options are for


def out_of_range(path: Path) -> Path:
    content = stub_reader.content(size=12)
    content["splits"]["test"]["targets"][3] = 7.5
    return stub_reader.write(path, content)


def test_inspect_counts_labels_out_of_range(cli: Cli, tmp_path: Path) -> None:
    file = out_of_range(tmp_path / "given.json")
    found = json.loads(cli("inspect", file, "--json").out)
    assert found["faults"] == [
        {
            "kind": "label out of range",
            "where": "test",
            "done": "refused by convert, unless with --clip-labels",
            "count": 1,
        }
    ]
    assert found["splits"][2]["targets"]["maximum"] == 7.5
    said = cli("convert", "stub", file, tmp_path / "corpus")
    assert said.code == 2
    assert "clip_labels=True (--clip-labels) moves it to the nearer end" in said.err
    found = json.loads(cli("inspect", file, "--clip-labels", "--json").out)
    assert found["faults"][0]["done"] == "moved to the nearer end"
    assert cli("convert", "stub", file, tmp_path / "corpus", "--clip-labels").code == 0
    said = cli("convert", "stub", file, tmp_path / "corpus")
    assert "corpus: exists already; overwrite=True (--overwrite) replaces a corpus" in said.err


def test_training_tells_the_command_that_helps(cli: Cli, tmp_path: Path) -> None:
    file = out_of_range(tmp_path / "given.json")
    said = cli("train", "--data", file)
    assert said.code == 2
    assert (
        f"`alignmamba convert auto {file} CORPUS --clip-labels`, and then CORPUS as the data"
        in said.err.splitlines()[-1]
    )


def test_inspect_reads_as_convert_does(cli: Cli, file: Path, tmp_path: Path) -> None:
    said = cli("inspect", file, "--dims", "audio=4")
    assert "expected width 4 by dims, found width 3" in said.err
    assert cli("inspect", file, "--dims", "audio=3", "--format", "stub").code == 0
    assert "format: expected auto or one of" in cli("inspect", file, "--format", "mmsaa").err
    said = cli("inspect", file, "--align")
    assert (said.code, said.out) == (2, "")
    assert "align (--align): the format stub does not read it, only csd" in said.err
    cli("convert", "stub", file, tmp_path / "corpus")
    said = cli("inspect", tmp_path / "corpus", "--align", "--label", "x")
    assert said.code == 2
    assert "--label, --align: expected a file of another format" in said.err


def test_widths_before_the_paths(cli: Cli, file: Path, tmp_path: Path) -> None:
    assert (
        "expected width 4 by dims, found width 3"
        in cli("convert", "stub", "--dims", "audio=4", file, tmp_path / "corpus").err
    )
    assert (
        "dims: no modality 'touch'"
        in cli("convert", "stub", "--dims", "audio=3,touch=1", file, tmp_path / "corpus").err
    )
    for twice in (["--dims", "audio=4", "--dims", "audio=3"], ["--dims", "audio=4,audio=3"]):
        assert (
            "--dims: audio has the widths 4 and 3, expected one"
            in cli("convert", "stub", *twice, file, tmp_path / "corpus").err
        )
    assert (
        cli("convert", "stub", "--dims", "audio=3", "--dims", "audio=3", file, tmp_path / "corpus").code == 0
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_no_file(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        for arguments in (["inspect", path], ["train", "--data", path]):
            said = cli(*arguments)
            assert said.code == 2
            assert f"{path}: expected a file or folder, found a pipe, a socket or a device" in said.err
