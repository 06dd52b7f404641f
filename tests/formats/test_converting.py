"""Steps of conversion that are alike in every format, shown on a made-up one."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic.fields import FieldInfo

import stub_reader
from alignmamba.cli.convert import Convert
from alignmamba.cli.inspect import Inspect
from alignmamba.contracts import Corpus
from alignmamba.data.archive import load_corpus
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats import FORMATS
from alignmamba.formats import conversion as converting
from alignmamba.formats.conversion import convert
from alignmamba.formats.foreign import Faults, LabelOptions, ReadOptions
from alignmamba.formats.foreign_inspection import inspect_foreign
from alignmamba.formats.known_formats import detect
from alignmamba.formats.pickles import mmsa_pickle as mmsa
from alignmamba.formats.repairs import distinct_ids
from alignmamba.formats.sequences import csd


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "stub", stub_reader)
    monkeypatch.setattr(stub_reader, "asked", [])


@pytest.fixture
def content() -> dict[str, Any]:
    return stub_reader.content()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return stub_reader.write(tmp_path / "given.json", stub_reader.content())


def assert_holds(corpus: Corpus, content: dict[str, Any]) -> None:
    for role, given in content["splits"].items():
        for row, sample in enumerate(corpus.splits[role]):
            assert sample.id == given["ids"][row]
            assert sample.target == given["targets"][row]
            assert sample.features["audio"].tolist() == given["features"]["audio"][row]
            assert sample.features["text"][:, 0].tolist() == given["features"]["text"][row]
            assert sample.times["audio"].tolist() == given["times"]["audio"][row]
            assert list(sample.tokens["text"]) == given["tokens"]["text"][row]


def test_a_sound_file_is_kept_to_the_letter(tmp_path: Path, content: dict[str, Any]) -> None:
    path = stub_reader.write(tmp_path / "given.json", content)
    told: list[tuple[str, int, int]] = []
    done = convert("stub", [path], tmp_path / "corpus", progress=lambda *each: told.append(each))
    assert_holds(load_corpus(tmp_path / "corpus"), content)
    assert_holds(done.corpus, content)
    assert (done.format, done.corpus.name, done.faults, done.notes) == (
        "stub",
        "given",
        (),
        ("All of it was kept.",),
    )
    assert done.seconds > 0
    assert told == [(role, row, 6) for role in ("train", "valid", "test") for row in range(1, 7)]
    asked = [
        (role, name, row)
        for role in ("train", "valid", "test")
        for row in range(6)
        for name in ("audio", "text")
    ]
    assert stub_reader.asked == asked, "each sample is asked for once, in order"
    assert json.loads((tmp_path / "corpus" / "corpus.json").read_text())["source"] == "made up"


def broken(content: dict[str, Any]) -> dict[str, Any]:
    """Two values that are not finite, one of which is in valid, and one too large for float32, in channels
    that else hold 1 or 3.
    """
    for split in content["splits"].values():
        split["features"]["audio"] = [[[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]] for _ in split["ids"]]
        split["times"] = {}
    content["splits"]["train"]["features"]["audio"][1][0][1] = float("-inf")
    content["splits"]["train"]["features"]["audio"][2][1][2] = 1e300
    content["splits"]["valid"]["features"]["audio"][0][0][0] = float("nan")
    return content


@pytest.mark.parametrize(
    ("nonfinite", "done", "found"),
    [
        ("zero", "set to 0", (0.0, 0.0, 0.0)),
        ("mean", "set to the channel's mean over train", (23 / 11, 21 / 11, 2.0)),
        ("keep", "kept as it is", (-np.inf, np.inf, np.nan)),
    ],
)
def test_what_is_not_finite_is_repaired_and_counted(
    tmp_path: Path, content: dict[str, Any], nonfinite: Any, done: str, found: Any
) -> None:
    path = stub_reader.write(tmp_path / "given.json", broken(content))
    conversion = convert("stub", [path], tmp_path / "corpus", ReadOptions(nonfinite=nonfinite))
    train, valid = conversion.corpus.split("train"), conversion.corpus.split("valid")
    values = [
        train[1].features["audio"][0, 1],
        train[2].features["audio"][1, 2],
        valid[0].features["audio"][0, 0],
    ]
    assert np.array_equal(values, np.array(found, dtype=np.float32), equal_nan=True)
    assert train[1].features["audio"].tolist()[1] == [3, 3, 3]
    assert conversion.faults == (("not finite", "audio", done, 2), ("does not fit float32", "audio", done, 1))
    source = json.loads((tmp_path / "corpus" / "corpus.json").read_text())["source"]
    assert (
        source
        == f"made up (repaired: not finite in audio, {done}: 2; does not fit float32 in audio, {done}: 1)"
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == ["corpus", "given.json"]
    assert train[1].features["text"].tolist() == [
        [each] for each in content["splits"]["train"]["features"]["text"][1]
    ]
    assert train[1].tokens["text"] == tuple(content["splits"]["train"]["tokens"]["text"][1])
    assert (train[3].id, train[3].target) == ("train$_$3", content["splits"]["train"]["targets"][3])


def test_a_mean_needs_a_train_split(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["splits"]["train"]
    with pytest.raises(
        DataError, match=r"given.json: nonfinite mean needs a train split .* found \['valid', 'test'\]"
    ):
        convert(
            "stub",
            [stub_reader.write(tmp_path / "given.json", content)],
            tmp_path / "corpus",
            ReadOptions(nonfinite="mean"),
        )


def test_what_is_not_finite_can_be_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    path = stub_reader.write(tmp_path / "given.json", broken(content))
    expected = (
        r"given.json: split 'train', sample 'train\$_\$1', modality 'audio': found -inf at position 0,"
        r" channel 1 \(1 of 6 values"
    )
    with pytest.raises(DataError, match=expected):
        convert("stub", [path], tmp_path / "corpus", ReadOptions(nonfinite="error"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_length_of_zero_is_a_missing_modality_and_nothing_at_all_is_no_sample(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    train = content["splits"]["train"]
    del train["times"], train["tokens"]
    train["features"]["audio"][1] = []
    train["features"]["audio"][2] = None
    train["features"]["audio"][5], train["features"]["text"][5] = [], None
    done = convert("stub", [stub_reader.write(tmp_path / "given.json", content)], tmp_path / "corpus")
    split = done.corpus.split("train")
    assert split.ids == tuple(train["ids"][:5])
    assert split.lengths["audio"].tolist() == [len(train["features"]["audio"][row] or []) for row in range(5)]
    assert [sample.target for sample in split] == train["targets"][:5]
    assert done.faults == (
        ("zero length", "audio", "taken as missing", 2),
        ("sample without anything", "train", "dropped", 1),
    )


@pytest.mark.parametrize("nonfinite", ["zero", "mean"])
def test_a_modality_that_no_sample_has_is_left_out_and_told(
    tmp_path: Path, content: dict[str, Any], nonfinite: Any
) -> None:
    options = ReadOptions(nonfinite=nonfinite)
    for split in content["splits"].values():
        split["features"]["smell"] = [[], *[None] * 5]
        split["features"]["touch"] = [None] * 6
        split["times"]["touch"] = [None] * 6
    path = stub_reader.write(tmp_path / "given.json", content)
    done = convert("stub", [path], tmp_path / "corpus", options)
    assert_holds(done.corpus, content)
    assert [spec.name for spec in done.corpus.modalities] == ["audio", "text"]
    told = tuple(
        f"No sample of any split has {name}, so the modality was dropped." for name in ("smell", "touch")
    )
    assert (done.notes, done.faults) == (("All of it was kept.", *told), ())
    seen = inspect_foreign(path, options, format="stub")
    assert (seen.notes, seen.faults) == (done.notes, ())
    for split in content["splits"].values():
        split["features"], split["times"], split["tokens"] = {"smell": [[]] * 6}, {}, {}
    with pytest.raises(DataError, match=r"given\.json: split 'train': found no modality in any sample"):
        convert("stub", [stub_reader.write(path, content)], tmp_path / "none")


def test_a_split_of_nothing_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    content["splits"]["valid"] = {
        "features": {"audio": [[], []], "text": [None, None]},
        "targets": [1.0, 2.0],
    }
    with pytest.raises(DataError, match="split 'valid': found no modality in any sample"):
        convert("stub", [stub_reader.write(tmp_path / "given.json", content)], tmp_path / "corpus")


def test_ids_that_come_twice_are_told_apart(tmp_path: Path, content: dict[str, Any]) -> None:
    content["splits"]["train"]["ids"] = ["a", "b", "a", "a", "a#2", "c"]
    content["splits"]["test"]["ids"][0] = "c"
    done = convert("stub", [stub_reader.write(tmp_path / "given.json", content)], tmp_path / "corpus")
    assert done.corpus.split("train").ids == ("a", "b", "a#3", "a#4", "a#2", "c")
    assert done.corpus.split("test").ids[0] == "c#2"
    assert [(kind, where, count) for kind, where, _, count in done.faults] == [
        ("duplicate id", "train", 2),
        ("duplicate id", "test", 1),
    ]
    assert [note for note in done.notes if "leak" in note] == [
        "possible leak: 1 ids are in train and in test, 'c' first; the later ones were renamed, but if they"
        " are the same samples, a model is scored on what it was trained on"
    ]


def test_thousands_of_one_id_are_told_apart_without_trying_every_number() -> None:
    """Ids that would take minutes if every number were tried for every one."""
    size = 20_000
    splits = {"train": SplitArrays(features={"audio": [None] * size}, ids=["a"] * size)}
    ids = distinct_ids(splits, Faults())["train"]
    assert ids == ["a", *(f"a#{number}" for number in range(2, size + 1))]


def test_samples_without_ids_are_called_by_their_row(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["splits"]["train"]["ids"]
    content["splits"]["train"]["targets"][0] = None
    done = convert("stub", [stub_reader.write(tmp_path / "given.json", content)], tmp_path / "corpus")
    assert done.corpus.split("train").ids == tuple(f"train-00000{row}" for row in range(2, 7))


def test_samples_without_a_label_are_left_out_and_a_split_without_any_is_kept(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    train, test = content["splits"]["train"], content["splits"]["test"]
    train["targets"][0], train["targets"][3], train["targets"][4] = float("nan"), None, 10**400
    test["targets"] = [None] * 6
    done = convert("stub", [stub_reader.write(tmp_path / "given.json", content)], tmp_path / "corpus")
    split = done.corpus.split("train")
    kept = [1, 2, 5]
    assert split.ids == tuple(train["ids"][row] for row in kept)
    assert [sample.target for sample in split] == [train["targets"][row] for row in kept]
    assert [sample.features["audio"].tolist() for sample in split] == [
        train["features"]["audio"][row] for row in kept
    ]
    assert [sample.times["audio"].tolist() for sample in split] == [
        train["times"]["audio"][row] for row in kept
    ]
    assert [sample.tokens["text"] for sample in split] == [
        tuple(train["tokens"]["text"][row]) for row in kept
    ]
    assert [sample.target for sample in done.corpus.split("test")] == [None] * 6
    assert done.faults == (
        ("not a number label", "train", "clip dropped", 3),
        ("not a number label", "test", "split kept without labels", 6),
    )


def test_a_label_out_of_range_is_refused_unless_it_may_be_moved(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    content["splits"]["train"]["targets"][2:4] = [3.5, -4]
    path = stub_reader.write(tmp_path / "given.json", content)
    with pytest.raises(
        DataError,
        match=(
            r"given.json: split 'train', sample 'train\$_\$2': target 3.5, expected .* -3.0 to 3.0;"
            r" clip_labels"
        ),
    ):
        convert("stub", [path], tmp_path / "corpus")
    done = convert("stub", [path], tmp_path / "corpus", ReadOptions(clip_labels=True))
    assert [done.corpus.split("train")[row].target for row in (2, 3)] == [3.0, -3.0]
    assert done.faults == (("label out of range", "train", "moved to the nearer end", 2),)


@pytest.mark.parametrize(
    ("dims", "said"),
    [
        ({"audio": 5}, r"sample 'train\$_\$0', modality 'audio': expected width 5 by dims, found width 3"),
        ({"text": 5}, r"modality 'text': expected width 5 by dims, found shape \(\d,\)"),
        ({"sound": 5}, r"dims: no modality 'sound', only \['audio', 'text'\]"),
    ],
)
def test_widths_are_those_that_were_expected(
    tmp_path: Path, content: dict[str, Any], dims: dict[str, int], said: str
) -> None:
    path = stub_reader.write(tmp_path / "given.json", content)
    with pytest.raises(DataError, match=said):
        convert("stub", [path], tmp_path / "corpus", ReadOptions(dims=dims))
    convert("stub", [path], tmp_path / "corpus", ReadOptions(dims={"audio": 3}))


def test_an_existing_corpus_is_replaced_only_on_request(tmp_path: Path, content: dict[str, Any]) -> None:
    path = stub_reader.write(tmp_path / "given.json", content)
    convert("stub", [path], tmp_path / "corpus")
    content["splits"]["train"]["targets"][0] = 0.5
    stub_reader.write(path, content)
    stub_reader.asked.clear()
    with pytest.raises(DataError, match="corpus: exists already"):
        convert("stub", [path], tmp_path / "corpus")
    assert not stub_reader.asked, "this is said before anything is read"
    assert convert("stub", [path], tmp_path / "corpus", overwrite=True).corpus.split("train")[0].target == 0.5


def test_the_format_is_recognised(
    tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stub_reader.write(tmp_path / "given.json", content)
    assert detect([path]) == "stub"
    assert convert("auto", [path], tmp_path / "corpus").format == "stub"
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(DataError, match=r"thesis.txt: not recognised as any of the formats .*stub"):
        detect([tmp_path / "thesis.txt"])
    with pytest.raises(DataError, match="not recognised"):
        detect([path, tmp_path / "thesis.txt"])
    with pytest.raises(DataError, match="absent: expected a file or folder, found nothing"):
        detect([tmp_path / "absent"])
    with pytest.raises(DataError, match="corpus: is a corpus already"):
        detect([tmp_path / "corpus"])
    monkeypatch.setitem(FORMATS, "twin", stub_reader)
    with pytest.raises(DataError, match="looks like stub and like twin, so the format must be given by name"):
        detect([path])


def test_what_is_asked_for_wrongly_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    path = stub_reader.write(tmp_path / "given.json", content)
    for format, sources, said in (
        ("stubb", [path], "format: expected auto or one of .*stub, found 'stubb'"),
        ("stub", [], "sources: expected at least one file, found none"),
        ("stub", [tmp_path / "absent"], "absent: cannot be read: No such file"),
        ("stub", [tmp_path / ("x" * 300)], "cannot be used as a path"),
    ):
        with pytest.raises(DataError, match=said):
            convert(format, sources, tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == [path]


def test_shards_are_small(tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "SHARD_BYTES", 1)
    path = stub_reader.write(tmp_path / "given.json", content)
    convert("stub", [path], tmp_path / "corpus")
    assert len(list((tmp_path / "corpus").glob("train-*.safetensors"))) == 6
    assert_holds(load_corpus(tmp_path / "corpus"), content)


KILLED = """
import os, signal, sys
from pathlib import Path
import stub_reader
from alignmamba.formats import FORMATS
from alignmamba.formats import conversion as converting
FORMATS["stub"] = stub_reader
converting.SHARD_BYTES = 1
for at in range(1, 5):
    if os.fork() == 0:
        def killing(role, done, total):
            if (role, done) == ("valid", at):
                os.kill(os.getpid(), signal.SIGKILL)
        converting.convert("stub", [Path(sys.argv[1])], Path(sys.argv[2]), progress=killing)
    status = os.wait()[1]
    print(status, [each.name for each in Path(sys.argv[2]).parent.iterdir() if each.suffix == ".partial"])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_conversion_leaves_nothing_that_lasts(tmp_path: Path, content: dict[str, Any]) -> None:
    path = stub_reader.write(tmp_path / "given.json", content)
    paths = os.pathsep.join(each for each in sys.path if each)
    command = [sys.executable, "-c", KILLED, str(path), str(tmp_path / "corpus")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == [signal.SIGKILL] * 4
    assert all(line.count(".partial") == 1 for line in lines), (
        "each conversion removes what the one before left"
    )
    (leftover,) = (each for each in tmp_path.iterdir() if each != path)
    assert leftover.name.startswith(".corpus.")
    assert any(leftover.iterdir())
    convert("stub", [path], tmp_path / "corpus")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["corpus", "given.json"]


def test_the_directory_of_a_living_writer_is_left_alone(tmp_path: Path, content: dict[str, Any]) -> None:
    path = stub_reader.write(tmp_path / "given.json", content)
    seen: list[int] = []

    def other(role: str, done: int, _: int) -> None:
        if (role, done) == ("train", 1):
            convert("stub", [path], tmp_path / "corpus")
            seen.append(len(list(tmp_path.glob(".corpus.*.partial"))))

    convert("stub", [path], tmp_path / "corpus", progress=other, overwrite=True)
    assert seen == [1]
    assert_holds(load_corpus(tmp_path / "corpus"), content)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            {"targets": [1.0]},
            r"given.json: split 'train': features\['audio'\] has 6 entries, but targets has 1",
        ),
        (
            {"ids": ["", *"bcdef"]},
            "given.json: split 'train': ids: expected text that is not empty, found '' in row 0",
        ),
        ({"features": {}}, "given.json: split 'train': features: expected at least one modality, found none"),
        ({"times": {"sound": [[]] * 6}}, "given.json: split 'train': times: no modality 'sound'"),
    ],
)
def test_columns_that_do_not_go_together(
    tmp_path: Path, content: dict[str, Any], broken: dict[str, Any], said: str
) -> None:
    content["splits"]["train"].update(broken)
    with pytest.raises(DataError, match=said):
        convert("stub", [stub_reader.write(tmp_path / "given.json", content)], tmp_path / "corpus")


def test_an_option_that_the_format_does_not_read_is_refused(file: Path, tmp_path: Path) -> None:
    folds = tmp_path / "folds.json"
    folds.write_text("{}")
    for options, said in (
        (csd.Options(align=True), r"align \(--align\): the format stub does not read it, only csd$"),
        (
            csd.Options(folds=folds),
            r"folds \(--folds\): the format stub does not read it, only csd, gcnet$",
        ),
        (mmsa.Options(text="ids"), r"text \(--text\): the format stub does not read it, only mmsa$"),
    ):
        for format in ("stub", "auto"):
            with pytest.raises(DataError, match=said):
                convert(format, [file], tmp_path / "corpus", options)
    assert convert("stub", [file], tmp_path / "corpus", LabelOptions(label="labels", nonfinite="keep")).corpus


@pytest.mark.parametrize("destination", [".", "/", "..", "a/.."])
def test_a_destination_without_a_name_is_refused_at_once(
    file: Path, monkeypatch: pytest.MonkeyPatch, destination: str
) -> None:
    monkeypatch.chdir(file.parent)
    monkeypatch.setattr(stub_reader, "asked", [])
    with pytest.raises(DataError, match="expected the name of a directory to make"):
        convert("stub", [file], destination, overwrite=True)
    assert not stub_reader.asked


@pytest.mark.skipif(sys.platform != "linux", reason="needs names of files that are any bytes")
def test_names_that_are_not_unicode(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = file.rename(file.with_name("a\udcffb.json"))
    assert convert("stub", [odd], tmp_path / "corpus").corpus.name == "a\ufffdb"
    monkeypatch.setattr(stub_reader, "asked", [])
    with pytest.raises(DataError, match=r"name: expected text in Unicode, found 'c\\udcff'"):
        convert("stub", [odd], tmp_path / "other", name="c\udcff")
    assert not stub_reader.asked


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("format", ["auto", *FORMATS])
def test_a_pipe_is_no_source(tmp_path: Path, format: str) -> None:
    os.mkfifo(tmp_path / "pipe.pkl")
    with pytest.raises(
        DataError, match=r"pipe\.pkl: expected a file or folder, found a pipe, a socket or a device"
    ):
        convert(format, [tmp_path / "pipe.pkl"], tmp_path / "corpus")


def test_every_reader_says_what_it_reads() -> None:
    """Options of one name are one flag of the command line, and none is the flag of something else."""
    flags = {field.name for verb in (Convert, Inspect) for field in dataclasses.fields(verb)}
    declared: dict[str, FieldInfo] = {}
    for name, reader in FORMATS.items():
        for option, info in reader.Options.model_fields.items():
            assert info.description, f"no help text for {name}: {option}"
            assert option not in flags
            same = declared.setdefault(option, info)
            assert (info.annotation, info.default) == (same.annotation, same.default)
            assert (info.description, info.title) == (same.description, same.title)
