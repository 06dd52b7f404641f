"""Tables of clips: where files are found, what labels make a task, who is in which split."""

from collections import Counter
from pathlib import Path

import pytest

from alignmamba.errors import ConfigError, DataError
from alignmamba.recipes.extraction.clip_table import (
    ClipTable,
    LabelChoice,
    dealt_roles,
    files_alone,
    labelled_clips,
    labels_beside,
    media_files,
)


def folder_with(tmp_path: Path, *names: str) -> Path:
    folder = tmp_path / "clips"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def table_of(folder: Path, text: str, **choice: object) -> ClipTable:
    table = folder / "labels.csv"
    table.write_text(text, encoding="utf-8")
    return labelled_clips(folder, table, LabelChoice(**choice))  # type: ignore[arg-type]


def test_files_are_named_by_their_place_below_the_folder(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "b.mp4", "a/x.WAV", "a/notes.txt", ".hidden.mp4")
    assert [row.id for row in files_alone([folder]).rows] == ["a/x", "b"]
    assert {row.role for row in files_alone([folder]).rows} == {"test"}


def test_a_folder_without_media_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected media files .* found none"):
        media_files([folder_with(tmp_path, "a.txt")])
    with pytest.raises(DataError, match="found nothing"):
        media_files([tmp_path / "nowhere"])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4", "a.wav")
    with pytest.raises(DataError, match="'a' appears 2 times"):
        files_alone([folder])


def test_rows_name_files_splits_texts_and_segments(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4", "b.mp4")
    found = table_of(
        folder,
        "File,label,Split,text,start,end,mood\na.mp4,1.5,train,hello there,0,2,glad\n"
        "a.mp4,-1,dev,,2,3.5,\nb.mp4,0,test,bye,,,sad\n",
    )
    first, second, third = found.rows
    assert (first.id, second.id, third.id) == ("a@0-2", "a@2-3.5", "b")
    assert (first.role, second.role, third.role) == ("train", "valid", "test")
    assert (first.clip.text, second.clip.text) == ("hello there", None)
    assert (second.clip.start, second.clip.end, third.clip.end) == (2.0, 3.5, None)
    assert (first.group, third.group) == ("a", None)  # segments of one file stay together
    assert first.target == 1.5
    assert found.task.kind == "regression"
    assert dict(first.labels) == {"mood": "glad"}
    assert found.notes == ()


@pytest.mark.parametrize("place", ["Raw/v1/0001.mp4", "v1/0001.webm", "v1_0001.wav"])
def test_the_layout_of_mmsa_works_as_it_is(tmp_path: Path, place: str) -> None:
    folder = folder_with(tmp_path, place)
    found = table_of(
        folder,
        "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
        "v1,0001,so good,0.8,1,0.4,,Positive,train\n",
    )
    (row,) = found.rows
    assert row.clip.path == folder / place
    assert (row.id, row.group, row.target, row.role) == ("v1/0001", "v1", 0.8, "train")
    assert dict(row.labels) == {"label_T": 1.0, "label_A": 0.4, "label_V": None, "annotation": "Positive"}


def test_words_are_classes_and_numbers_are_scores(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4", "b.mp4")
    words = table_of(folder, "file,label\na.mp4,sad\nb.mp4,glad\n")
    assert (words.task.kind, words.task.classes) == ("classification", ("glad", "sad"))
    numbers = "file,label\na.mp4,1\nb.mp4,0\n"
    assert table_of(folder, numbers).task.kind == "regression"
    told = table_of(folder, numbers, kind="classification")
    assert told.task.classes == ("0", "1")
    ordered = table_of(folder, numbers, classes=("1", "0"))
    assert ordered.task.classes == ("1", "0")
    ranged = table_of(folder, numbers, range=(-3.0, 3.0))
    assert ranged.task.is_sentiment


@pytest.mark.parametrize(
    ("text", "choice", "said"),
    [
        ("name,label\na.mp4,1\n", {}, "expected a column file, or video_id and clip_id"),
        ("file,label\n", {}, "expected rows of clips"),
        ("file,label\nc.mp4,1\n", {}, "row 1: file: 'c.mp4': found no such file"),
        ("file,label\n../../etc/passwd,1\n", {}, "row 1: file"),
        ("file,label\n,1\n", {}, "row 1: file: found an empty cell"),
        ("file,label,start,end\na.mp4,1,3,2\n", {}, "row 1: end: found 2.0, expected more than 3.0"),
        ("file,label,start\na.mp4,1,soon\n", {}, "row 1: start: found 'soon', expected seconds"),
        ("file,label,start\na.mp4,1,-1\n", {}, "row 1: start"),
        ("file,label\na.mp4,1\na.mp4,2\n", {}, "'a' appears 2 times"),
        (
            "file,label\na.mp4,4\n",
            {"range": (-3.0, 3.0)},
            "row 1: label: found '4', expected a number from -3",
        ),
        ("file,label\na.mp4,inf\n", {}, "row 1: label: found 'inf'"),
        ("file,label\na.mp4,sad\n", {"kind": "regression"}, "row 1: label: found 'sad', expected a number"),
        ("file,label\na.mp4,sad\n", {}, "found one class, 'sad'"),
        (
            "file,label\na.mp4,sad\n",
            {"classes": ("glad", "bad")},
            "row 1: label: found 'sad', expected one of",
        ),
        ("file,label\na.mp4,1\n", {"name": "mood"}, "expected a column 'mood'"),
        ("file,label,split\na.mp4,1,holdout\n", {}, "expected rows of the splits"),
        ("video_id,clip_id,label\nv,1,1\n", {}, "found no media file v/1"),
        ("video_id,clip_id,label\n..,a,1\n", {}, "found '..', expected the name of a video"),
    ],
)
def test_what_a_table_must_not_say(tmp_path: Path, text: str, choice: dict[str, object], said: str) -> None:
    folder = folder_with(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(DataError, match=r"labels\.csv") as caught:
        table_of(folder, text, **choice)
    assert said in str(caught.value)


def test_options_that_contradict_the_task_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4", "b.mp4")
    text = "file,label\na.mp4,1\nb.mp4,2\n"
    with pytest.raises(ConfigError, match="classes"):
        table_of(folder, text, kind="regression", classes=("1", "2"))
    with pytest.raises(ConfigError, match="range"):
        table_of(folder, text, kind="classification", range=(0.0, 1.0))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4")
    secret = tmp_path / "secret.mp4"
    secret.touch()
    (folder / "link.mp4").symlink_to(secret)
    with pytest.raises(DataError, match="expected a path within"):
        table_of(folder, "file,label\nlink.mp4,1\n")


def test_rows_without_a_label_or_a_split_are_dropped_and_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    found = table_of(
        folder,
        "file,label,split\na.mp4,1,train\nb.mp4,,train\nc.mp4,,test\nd.mp4,2,\n",
    )
    assert [row.id for row in found.rows] == ["a", "c"]  # a split without any label is one to predict
    assert any("1 rows" in note and "no label" in note and "'b'" in note for note in found.notes)
    assert any("1 rows" in note and "no split" in note and "'d'" in note for note in found.notes)


def test_groups_are_dealt_whole_and_in_about_their_shares(tmp_path: Path) -> None:
    names = [f"{speaker}_{clip}.mp4" for speaker in range(20) for clip in range(5)]
    folder = folder_with(tmp_path, *names)
    rows = "".join(f"{name},1,{name.split('_')[0]}\n" for name in names)
    found = table_of(folder, "file,label,speaker\n" + rows)
    homes = {(row.group, row.role) for row in found.rows}
    assert len(homes) == 20
    assert Counter(row.role for row in found.rows) == {"train": 70, "valid": 10, "test": 20}
    assert "whole groups were dealt into train 70, valid 10, test 20" in found.notes[0]
    assert all(row.labels["speaker"] == float(row.group or "nan") for row in found.rows)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10])
def test_every_split_gets_a_group_where_there_are_three(count: int) -> None:
    roles = dealt_roles([f"g{number}" for number in range(count)])
    assert len(set(roles)) == min(count, 3)
    assert "train" in roles


def test_a_table_without_labels_is_one_to_predict(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4")
    found = table_of(folder, "file,text\na.mp4,hello\n")
    assert found.rows[0].role == "test"
    assert found.rows[0].target is None


def test_the_table_is_found_beside_the_clips(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4")
    assert labels_beside(folder) is None
    (folder / "label.csv").touch()
    assert labels_beside(folder) == folder / "label.csv"
