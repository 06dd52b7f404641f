"""Feature folders: values, conversations, labels and splits, and what is refused."""

import io
import os
import pickle
import tempfile
import zipfile
from pathlib import Path

import layouts_gcnet as layout
import numpy as np
import pytest

from alignmamba.errors import DataError
from alignmamba.formats.conversion import Conversion, convert
from alignmamba.formats.sequences import gcnet_folders as gcnet


def converted(*sources: Path | str, **options: object) -> Conversion:
    first = Path(str(sources[0]).partition("=")[2] or sources[0])
    return convert(
        "gcnet", list(sources), first.parent / "out", gcnet.Options.model_validate(options), overwrite=True
    )


def message(*sources: Path | str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        converted(*sources, **options)
    said = str(caught.value)
    assert "\n" not in said
    return said


def retabled(folder: Path, change: dict[str, str]) -> Path:
    table = (folder / "label-3way.csv").read_text()
    for old, new in change.items():
        assert old in table
        table = table.replace(old, new)
    (folder / "label-3way.csv").write_text(table)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    return layout.write_folder(tmp_path / "corpus")


def test_every_value_is_read_exactly(folder: Path) -> None:
    done = converted(folder)
    corpus = done.corpus
    assert corpus.task.classes == layout.CLASSES
    assert [(spec.name, spec.dim) for spec in corpus.modalities] == [("text", 4), ("audio", 3), ("vision", 2)]
    assert corpus.modalities[1].units == "features hubert-large-FRA"
    first = layout.utterances()[0][1]
    seen = []
    for role, split in corpus.splits.items():
        for sample in split:
            conversation, _, identity = sample.id.partition("/")
            seen.append((conversation, identity, layout.CLASSES[int(sample.target or 0)]))
            assert {"val": "valid"}.get(layout.ROLES[conversation], layout.ROLES[conversation]) == role
            truth = {
                name: values
                for name, values in layout.features(identity).items()
                if identity != first or name != "audio"
            }
            assert sample.features.keys() == truth.keys()
            for name, values in truth.items():
                np.testing.assert_array_equal(sample.features[name], values.astype(np.float32))
    assert sorted(seen) == sorted(layout.utterances())
    # Rows of the table take turns between conversations; the samples do not.
    assert [each[0] for each in seen] == sorted(each[0] for each in seen)
    assert done.notes == (
        (
            "3 conversations: an id is conversation/utterance, and the utterances of a conversation follow"
            " each other."
        ),
    )


def test_utterances_of_a_conversation_keep_their_order_within_a_split(folder: Path) -> None:
    done = converted(retabled(folder, {",val,": ",train,", ",test,": ",train,"}))
    assert done.corpus.split("train").ids == (
        *("ses1/ses1_u0", "ses1/ses1_u1", "ses1/ses1_u2", "ses2/ses2_u0", "ses2/ses2_u1"),
        *("ses3/ses3_u0", "ses3/ses3_u1", "ses3/ses3_u2"),
    )


def test_parts_by_name_and_labels_from_npz(folder: Path, tmp_path: Path) -> None:
    rows = layout.utterances()
    np.savez(
        tmp_path / "table.npz",
        id=np.array([row[1] for row in rows]),
        label=np.arange(len(rows)) / 4,
        split=np.array([layout.ROLES[row[0]].encode() for row in rows]),
    )
    assert (
        gcnet.read(
            [tmp_path / "table.npz", Path(f"sound={folder / 'features' / 'hubert-large-FRA'}")],
            gcnet.Options(),
        ).task.kind
        == "regression"
    )
    found = gcnet.read(
        [Path(f"labels={tmp_path / 'table.npz'}"), Path(f"sound={folder / 'features' / 'hubert-large-FRA'}")],
        gcnet.Options(),
    )
    assert list(found.splits["train"].features) == ["sound"]
    assert found.splits["train"].targets is not None
    assert list(found.splits["train"].targets) == [
        number / 4 for number, row in enumerate(rows) if row[0] == "ses1"
    ]
    assert found.splits["train"].ids == [row[1] for row in rows if row[0] == "ses1"]


def test_labels_in_numbers(folder: Path) -> None:
    numbered = retabled(folder, {",happy,": ",0,", ",neutral,": ",,", ",sad,": ",2,"})
    done = converted(numbered)
    assert done.corpus.task.classes == ("0", "1", "2")
    assert {int(sample.target or 0) for split in done.corpus.splits.values() for sample in split} == {0, 2}
    assert sum(row[3] for row in done.faults if row[0] == "not a number label") == 3
    done = converted(retabled(folder, {",0,": ",-0.5,"}))
    assert done.corpus.task.kind == "regression"


def test_a_file_of_folds_that_is_given_overrules_column_and_neighbour(folder: Path) -> None:
    (folder / "folds.toml").write_text('train = ["ses1"]\ntest = ["ses2", "ses3"]\n')
    given = folder.parent / "given.json"
    given.write_text('{"train": ["ses2", "ses3"], "test": ["ses1"]}')
    for column in ("split", "remark"):
        retabled(folder, {"split": column})
        done = converted(folder, folds=given)
        assert {role: len(split) for role, split in done.corpus.splits.items()} == {"train": 5, "test": 3}


def test_splits_from_a_file_of_conversations_or_utterances(folder: Path) -> None:
    retabled(folder, {"split": "remark"})
    assert "nothing says which id is in which split: give folds" in message(folder)
    (folder / "folds.toml").write_text('train = ["ses1", "ses2_u0"]\ntest = ["ses3"]\n')
    done = converted(folder)
    assert {role: len(split) for role, split in done.corpus.splits.items()} == {"train": 4, "test": 3}
    assert "1 utterances are in no split and were dropped, 'ses2/ses2_u1' first." in done.notes
    assert not any("name nothing" in note for note in done.notes)
    (folder / "folds.toml").write_text('train = ["ses1", "ses2_u0"]\ntest = ["ses3", "nobody", "ses9"]\n')
    assert (
        f"2 ids of {folder / 'folds.toml'} name nothing that is in the files, 'nobody' first."
        in converted(folder).notes
    )


def test_shapes_of_a_file(folder: Path) -> None:
    path = folder / "features" / "hubert-large-FRA" / "ses1_u1.npy"
    values = np.arange(6.0).reshape(2, 3)
    for shaped in (values, values[None], values[:, None]):
        np.save(path, shaped)
        sample = next(
            sample for sample in converted(folder).corpus.split("train") if sample.id == "ses1/ses1_u1"
        )
        np.testing.assert_array_equal(sample.features["audio"], values)
    np.save(path, values.reshape(1, 2, 3).repeat(2, 0))
    assert "ses1_u1.npy: expected shape (width,) or (time, width), found (2, 2, 3)" in message(folder)
    np.save(path, np.array(["a"]))
    assert "ses1_u1.npy: expected numbers, found <U1" in message(folder)
    np.save(path, np.empty((0, 3)))
    assert ("zero length", "audio", "taken as missing", 1) in converted(folder).faults
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "ses1_u1.npy: found Python objects" in message(folder)
    np.save(folder / "features" / "manet-FRA" / "ses1_u0" / "001.npy", np.zeros(5))
    np.save(path, values)
    assert "001.npy: expected width 2 as in 000.npy, found 5" in message(folder)


def by_conversation(folder: Path, *, valid: bool) -> tuple[object, ...]:
    """The table as GCNet pickles it."""
    ids: dict[str, list[str]] = {}
    labels: dict[str, object] = {}
    for row, (conversation, identity, _) in enumerate(layout.utterances()):
        ids.setdefault(conversation, []).append(identity)
        labels[conversation] = [*labels.get(conversation, []), row / 4]  # type: ignore[misc]
    labels["ses2"] = np.array(labels["ses2"])
    (folder / "label-3way.csv").unlink()
    speakers = sentences = {conversation: [""] * len(each) for conversation, each in ids.items()}
    splits = ({"ses1"}, ["ses2"], ("ses3",)) if valid else ({"ses1", "ses2"}, {"ses3"})
    return (ids, labels, speakers, sentences, *splits)


@pytest.mark.parametrize("valid", [True, False])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_table_of_gcnet(folder: Path, valid: bool, protocol: int) -> None:
    (folder / "labels.pkl").write_bytes(pickle.dumps(by_conversation(folder, valid=valid), protocol=protocol))
    corpus = converted(folder).corpus
    assert list(corpus.splits) == (["train", "valid", "test"] if valid else ["train", "test"])
    labels = {
        f"{conversation}/{identity}": row / 4
        for row, (conversation, identity, _) in enumerate(layout.utterances())
    }
    assert {sample.id: sample.target for split in corpus.splits.values() for sample in split} == labels
    assert corpus.split("train").ids[:3] == ("ses1/ses1_u0", "ses1/ses1_u1", "ses1/ses1_u2")


@pytest.mark.parametrize("constant", ["emo", "val"])
def test_a_table_of_merbench(folder: Path, constant: str) -> None:
    (folder / "label-3way.csv").unlink()
    parts: dict[str, dict[str, dict[str, object]]] = {f"{role}_corpus": {} for role in layout.ROLES.values()}
    for row, (conversation, identity, label) in enumerate(layout.utterances()):
        given = {"emo": label, "val": row / 4} | {constant: 0}
        parts[f"{layout.ROLES[conversation]}_corpus"][identity] = given
    np.savez_compressed(
        folder / "label-6way.npz", **{key: np.array(value, dtype=object) for key, value in parts.items()}
    )  # type: ignore[arg-type]
    corpus = converted(folder).corpus
    assert corpus.task.kind == ("regression" if constant == "emo" else "classification")
    found = {sample.id: sample.target for split in corpus.splits.values() for sample in split}
    truth = layout.utterances()
    assert found == {
        row[1]: at / 4 if constant == "emo" else layout.CLASSES.index(row[2]) for at, row in enumerate(truth)
    }
    assert corpus.split("valid").ids == tuple(row[1] for row in truth if row[0] == "ses2")


def test_pickled_tables_run_nothing(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    hostile = f"cos\nsystem\n(S'touch {target}'\ntR.".encode()
    (folder / "label-3way.csv").rename(tmp_path / "kept.csv")
    (folder / "label.pkl").write_bytes(hostile)
    assert "label.pkl: refused: the pickle asks for 'os.system'" in message(folder)
    (folder / "label.pkl").write_bytes(pickle.dumps({"ids": []}))
    assert "label.pkl: expected a tuple of ids, labels, speakers and sentences by conversation" in message(
        folder
    )
    (folder / "label.pkl").unlink()
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(folder / "label.npz", "w") as archive:
        archive.writestr("train_corpus.npy", array.getvalue() + hostile)
    said = message(folder)
    assert "label.npz: array 'train_corpus': refused: the pickle asks for 'os.system'" in said
    assert tempfile.gettempdir() not in said.replace(str(folder), "")
    np.savez(folder / "label.npz", train_corpus=np.array(["a", "b"], dtype=object))
    assert "label.npz: array 'train_corpus': expected one object, found 2" in message(folder)
    np.savez(folder / "label.npz", train_corpus=np.zeros(3))
    assert "label.npz: array 'train_corpus': expected Python objects, found numbers or text" in message(
        folder
    )
    np.savez(folder / "label.npz", id=np.array(["a", "b"], dtype=object))
    assert "label.npz: array 'id': found Python objects, which are never read" in message(folder)
    assert not target.exists()


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    features = folder / "features"
    for name in ("absent", "video", "name", "split"):
        assert f"label {name!r}: expected one of the columns ['emo']" in message(folder, label=name)
    (features / "roberta-UTT").mkdir()
    np.save(features / "roberta-UTT" / "ses1_u0.npy", np.zeros(3))
    assert "roberta-UTT: is text, as" in message(folder)
    (features / "roberta-UTT" / "ses1_u0.npy").rename(features / "roberta-UTT" / "other.npy")
    (features / "roberta-UTT").rename(features / "pose")
    assert "pose: found no features of the 8 utterances" in message(folder)
    (features / "pose" / "other.npy").unlink()
    assert "expected a column 'id' of the utterances, found ['key'" in message(
        retabled(folder, {"name": "key"})
    )
    retabled(folder, {"key": "id"})
    assert "split: expected train, valid or test, found 'a'" in message(
        retabled(folder, {"emo": "label", ",train,": ",a,", ",val,": ",b,", ",test,": ",c,"})
    )


@pytest.mark.parametrize("name", ["../secret", "link", "absolute", "folder/secret"])
def test_nothing_outside_a_folder_is_read(folder: Path, tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "secret.npy", np.zeros((2, 4)))
    text = folder / "features" / "deberta-large-UTT"
    (text / "link.npy").symlink_to(tmp_path / "secret.npy")
    (text / "folder").symlink_to(tmp_path)
    name = str(tmp_path / "secret") if name == "absolute" else name
    said = message(retabled(folder, {"ses1_u0,": f"{name},"}))
    assert "expected a path within the folder" in said or "expected a name that stays in the folder" in said


def test_it_is_recognised(folder: Path, tmp_path: Path) -> None:
    assert gcnet.recognises(folder)
    assert not gcnet.recognises(folder / "features")
    assert not gcnet.recognises(folder / "label-3way.csv")
    assert not gcnet.recognises(tmp_path / "absent")
    (folder / "label-3way.csv").unlink()
    (folder / "transcription.csv").unlink()
    assert not gcnet.recognises(folder)


def test_a_pipe_does_not_hang(folder: Path) -> None:
    path = folder / "features" / "hubert-large-FRA" / "ses1_u1.npy"
    path.unlink()
    os.mkfifo(path)
    assert "ses1_u1.npy: expected a file, found something else" in message(folder)


def test_a_file_of_one_number(folder: Path) -> None:
    for path in (folder / "features" / "hubert-large-FRA").glob("*.npy"):
        np.save(path, np.ones((1, 1, 1)))
    assert {spec.name: spec.dim for spec in converted(folder).corpus.modalities}["audio"] == 1


def test_none_is_a_class_among_words(folder: Path) -> None:
    done = converted(retabled(folder, {",neutral,": ",none,", ",sad,": ",,"}))
    assert done.corpus.task.classes == ("happy", "none")
    assert sum(row[3] for row in done.faults if row[0] == "not a number label") == sum(
        row[2] == "sad" for row in layout.utterances()
    )
    # Among numbers it says that there is none.
    done = converted(retabled(folder, {",happy,": ",1,"}))
    assert done.corpus.task.classes == ("0", "1")
    assert {sample.target for sample in done.corpus.split("train")} == {1}


def test_common_names_of_splits(folder: Path) -> None:
    done = converted(
        retabled(folder, {",train,": ",training,", ",val,": ",Validation,", ",test,": ",testing,"})
    )
    assert [len(done.corpus.split(role)) for role in ("train", "valid", "test")] == [3, 2, 3]
    done = converted(retabled(folder, {",testing,": ",test1,"}))
    assert (
        "3 utterances of the split 'test1' are in no split and were dropped, 'ses3/ses3_u0' first. There is"
        " no test split left." in done.notes
    )
    assert "'training' and 'train' both name the train split" in message(
        retabled(folder, {"ses1_u1,": "ses1_u1,", ",test1,": ",train,"})
    )


def test_conversations_are_groups_and_other_labels_are_kept(folder: Path) -> None:
    table = folder / "label-3way.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    extra = ["val", *(("" if at == 1 else f"{at / 4}") for at in range(1, len(rows)))]
    table.write_text("".join(",".join([*row, other]) + "\n" for row, other in zip(rows, extra, strict=True)))
    samples = {sample.id: sample for split in converted(folder).corpus.splits.values() for sample in split}
    for at, row in enumerate(rows[1:], start=1):
        (sample,) = (
            sample
            for identity, sample in samples.items()
            if identity.endswith(f"/{row[rows[0].index('name')]}")
        )
        assert sample.group == sample.id.partition("/")[0]
        assert dict(sample.labels) == ({} if at == 1 else {"val": at / 4})


def test_an_utterance_in_two_splits_is_refused(folder: Path) -> None:
    """Its features are found by its id, so both splits would have the same."""
    with (folder / "label-3way.csv").open("a") as table:
        table.write("ses1_u0,calm,test,ses9\n")
    assert (
        "id 'ses1_u0' stands in train and again in test, a leak: all of them would have the same features"
        in message(folder)
    )


def test_one_name_of_two_utterances_is_refused(folder: Path) -> None:
    """Features are looked up by the utterance alone, whatever its conversation."""
    retabled(folder, {"ses1_u1": "ses1_u0"})
    assert (
        "label-3way.csv: id 'ses1_u0' stands for several samples of train: all of them would"
        " have the same features" in message(folder)
    )


def test_features_of_no_utterance_are_counted(folder: Path) -> None:
    audio = folder / "features" / "hubert-large-FRA"
    np.save(audio / "zzz.npy", np.ones((2, 3)))
    (folder / "features" / "manet-FRA" / "nobody").mkdir()
    notes = converted(folder).notes
    assert (
        "1 entries of hubert-large-FRA (audio) are of no utterance and were dropped, 'zzz.npy' first."
        in notes
    )
    assert "1 entries of manet-FRA (vision) are of no utterance and were dropped, 'nobody' first." in notes


def test_columns_that_are_asked_for_are_further_labels(folder: Path) -> None:
    table = folder / "label-3way.csv"
    head, *rows = table.read_text().splitlines()
    lines = [f"{head},mood,calm", *(f"{row},{at % 2},{at / 4}" for at, row in enumerate(rows))]
    table.write_text("\n".join(lines))
    plain = converted(folder).corpus.split("train")
    assert [dict(sample.labels) for sample in plain] == [{}] * len(plain)
    corpus = converted(folder, label=("mood", "calm")).corpus
    assert (corpus.task.kind, corpus.task.classes) == ("multilabel", ("mood", "calm"))
    assert {name for sample in corpus.split("train") for name in sample.labels} == {"emo"}
    led = converted(folder, label=("emo", "calm")).corpus
    assert (led.task.classes, [each.name for each in led.task.further]) == (layout.CLASSES, ["calm"])
    assert [sample.target for sample in led.split("train")] == [sample.target for sample in plain]
