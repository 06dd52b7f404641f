"""Tables of clips: where files are found, what labels make a task, who is in which split."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from alignmamba.data.leading_target import LeadingConfig
from alignmamba.errors import ConfigError, DataError
from alignmamba.recipes.extraction.clip_table import (
    ClipTable,
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


def table_of(folder: Path, text: str, **leading: Any) -> ClipTable:
    table = folder / "labels.csv"
    table.write_text(text, encoding="utf-8")
    return labelled_clips(folder, table, LeadingConfig(**leading))


def test_files_are_named_by_their_place_below_the_folder(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "b.mp4", "a/x.WAV", "a/notes.txt", ".hidden.mp4")
    assert [row.id for row in files_alone([folder]).rows] == ["a/x", "b"]
    assert {row.role for row in files_alone([folder]).rows} == {"test"}


def test_a_folder_without_media_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected media files .* found none"):
        media_files([folder_with(tmp_path, "a.txt")])
    with pytest.raises(DataError, match="found nothing"):
        media_files([tmp_path / "nowhere"])


def test_files_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4", "a.wav", "b.mp4", "x/b.mp4", "c/b.mp4")
    assert [row.id for row in files_alone([folder]).rows] == ["a.mp4", "a.wav", "b", "c/b", "x/b"]
    twice = [folder / "a.mp4", folder / "x" / ".." / "a.mp4"]
    assert [row.clip.path for row in files_alone(twice).rows] == twice[:1]
    cut = "file,label,start,end\nx/b.mp4,1,0,1\nx/b.mp4,1,1,2\nc/b.mp4,1,0,1\nc/b.mp4,1,1,1234.5678\n"
    rows = table_of(folder, cut).rows
    assert [row.group for row in rows] == ["x/b", "x/b", "c/b", "c/b"]
    assert rows[-1].id == "c/b@1-1234.5678"
    apart = [folder / "x", folder / "c"]
    assert [row.id for row in files_alone(apart).rows] == [(each / "b.mp4").as_posix() for each in apart]
    found = table_of(folder, "file,label\na.mp4,1\na.wav,2\nb.mp4,3\n")
    assert [row.id for row in found.rows] == ["a.mp4", "a.wav", "b"]


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4")
    (folder / os.fsdecode(b"b\xff.mp4")).touch()
    with pytest.raises(DataError, match=r"b\\xff\.mp4: found a name that is not UTF-8"):
        files_alone([folder])


def test_files_may_be_missing_where_clips_may_fail(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4")
    table = folder / "labels.csv"
    table.write_text("file,label\na.mp4,1\nb.mp4,2\nc.mp4,3\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"'b\.mp4' .* nor those of 1 other row; expected at most 1 missing"):
        labelled_clips(folder, table, max_missing=1)
    found = labelled_clips(folder, table, max_missing=2)
    assert [row.clip.path for row in found.rows] == [folder / f"{name}.mp4" for name in "abc"]


def test_a_file_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.mp4").touch()
    with pytest.raises(DataError, match=r"row 1: file: '\.\./other\.mp4': expected a path within"):
        table_of(folder_with(tmp_path, "a.mp4"), "file,label\n../other.mp4,1\n")


def test_groups_in_several_splits_are_noted(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    rows = "file,label,split,speaker\na.mp4,1,train,ann\nb.mp4,2,test,ann\nc.mp4,3,valid,ben\n"
    (said, _) = table_of(folder, rows).notes
    dropped = "file,label,split,speaker\na.mp4,1,train,ann\nb.mp4,,test,ann\nc.mp4,3,test,ben\n"
    assert not any("several splits" in note for note in table_of(folder, dropped).notes)
    assert said.startswith("1 of 2 groups of labels.csv lie in several splits, 'ann' first (train, test):")


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
    assert found.notes[-1:] == ("label is a number.",)


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
    ranged = table_of(folder, numbers, label_range=(-3.0, 3.0))
    assert ranged.task.is_sentiment


@pytest.mark.parametrize(
    ("text", "choice", "said"),
    [
        ("name,label\na.mp4,1\n", {}, "expected a column file, or video_id and clip_id"),
        ("file,label\n", {}, "expected rows of clips"),
        ("file,label\nc.mp4,1\n", {}, "row 1: found no media file 'c.mp4'"),
        ("file,label\n../../etc/passwd,1\n", {}, "row 1: found no media file '../../etc/passwd'"),
        ("file,label\n,1\n", {}, "row 1: file: found an empty cell"),
        ("file,File,label\na.mp4,b.mp4,1\n", {}, "found 2 columns 'file', whatever their case, expected one"),
        ("file,label\n.,1\n", {}, "row 1: file: found '.', expected the name of a file"),
        ("file,label\n..,1\n", {}, "row 1: found no media file '..'"),
        ("file,label\n/no/where.mp4,1\n", {}, "row 1: found no media file '"),
        ("file,label,start,end\na.mp4,1,3,2\n", {}, "row 1: end: found 2.0, expected more than 3.0"),
        ("file,label,start\na.mp4,1,soon\n", {}, "row 1: start: found 'soon', expected seconds"),
        ("file,label,start\na.mp4,1,-1\n", {}, "row 1: start"),
        ("file,label\na.mp4,1\na.mp4,2\n", {}, "'a' appears 2 times, in rows 1, 2; expected each clip once"),
        (
            "file,label\na.mp4,4\n",
            {"label_range": (-3.0, 3.0)},
            "sample 'a', label 'label': found 4, expected -3 to 3",
        ),
        ("file,label\na.mp4,inf\n", {}, "sample 'a', label 'label': found inf, expected a number"),
        (
            "file,label\na.mp4,1\nb.mp4,sad\n",
            {"kind": "regression"},
            "sample 'b', label 'label': found 'sad', expected a number",
        ),
        ("file,label\na.mp4,sad\n", {}, "classes: a classification task needs at least 2, found 1"),
        (
            "file,label\na.mp4,sad\n",
            {"classes": ("glad", "bad")},
            "sample 'a', label 'label': found 'sad', expected one of",
        ),
        ("file,label\na.mp4,1\n", {"labels": ("mood",)}, "expected a column 'mood'"),
        ("file,x\na.mp4,1\n", {"labels": ("x", "mood")}, "expected a column 'mood', found ['file', 'x']"),
        ("file,x,y\na.mp4,1,\n", {"labels": ("x", "y")}, "label 'y': expected some of x"),
        (
            "file,x,y\na.mp4,1,0\nb.mp4,0,maybe\n",
            {"labels": ("x", "y"), "kind": "multilabel"},
            "sample 'b', label 'y': found 'maybe', expected a number",
        ),
        ("file,x\na.mp4,1\n", {"labels": ("x", "X")}, "labels: expected each name once"),
        (
            "file,x\na.mp4,low\nb.mp4,high\n",
            {"labels": ("x",), "kind": "ordinal"},
            "classes: found none, expected the words",
        ),
        ("file,x,start\na.mp4,-1,0\n", {"labels": ("x", "x y")}, "expected a column 'x y'"),
        (
            "file,label,split\na.mp4,1,holdout\n",
            {},
            "split: expected rows of train, valid, test, found 'holdout' alone",
        ),
        ("video_id,clip_id,label\nv,1,1\n", {}, "found no media file 'v/1'"),
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
    with pytest.raises(DataError, match=r"labels\.csv: classes: expected none for a regression"):
        table_of(folder, text, kind="regression", classes=("1", "2"))
    for kind in ("classification", "ordinal", "multilabel"):
        with pytest.raises(DataError, match=rf"labels\.csv: range: found it for a target of the kind {kind}"):
            table_of(folder, text, kind=kind, label_range=(0.0, 1.0))
    with pytest.raises(ConfigError, match="range: found it for a target of the kind ordinal"):
        table_of(folder, "file\na.mp4\nb.mp4\n", kind="ordinal", label_range=(0.0, 1.0))


def test_several_columns_from_0_on_are_one_target(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, *(f"{name}.mp4" for name in "abcd"))
    rows = "file,Happy,sad,label,split\na.mp4,1,0,glad,train\nb.mp4,2,,bad,train\nc.mp4,,,,train\n"
    found = table_of(folder, rows + "d.mp4,,,bad,train\n", labels=("happy", "sad"))
    assert (found.task.kind, found.task.classes, found.task.labels) == (
        *("multilabel", ("Happy", "sad"), ("Happy", "sad")),
    )
    first, second, last = found.rows
    assert first.target == (1.0, 0.0)
    assert str(second.target) == "(1.0, nan)"  # NaN is equal to nothing
    assert (last.id, last.target, dict(last.labels)) == ("d", None, {"label": "bad"})
    assert found.notes == (
        "1 rows of labels.csv have no label and were dropped, 'c' first.",
        "1 rows of labels.csv lack the label that leads and were kept for others, 'd' first.",
        "several labels: Happy, sad are one target.",
    )
    single = table_of(folder, "file,x\na.mp4,1\n", labels=("x",), kind="multilabel")
    assert single.task.classes == ("x",)
    assert single.notes[-1] == "x is there or not."


def test_of_other_columns_the_first_leads(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4", "b.mp4")
    rows = "file,label,label_T,mood,happy,sad\na.mp4,-1,1,glad,0,1\nb.mp4,2,,bad,1,1\n"
    found = table_of(folder, rows, labels=("label", "label_T", "mood"))
    assert [row.target for row in found.rows] == [-1.0, 2.0]
    further = [(each.name, each.kind, each.classes) for each in found.task.further]
    assert further == [("label_T", "regression", ()), ("mood", "classification", ("bad", "glad"))]
    assert dict(found.rows[0].labels) == {"label_T": 1.0, "mood": "glad", "happy": 0.0, "sad": 1.0}
    found = table_of(folder, rows, labels=("label", "happy", "sad"))
    assert [(each.name, each.labels) for each in found.task.further] == [("labels", ("happy", "sad"))]


def test_ordered_classes_are_numbers_in_order_or_words_as_they_are_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, *(f"{name}.mp4" for name in "abc"))
    numbers = table_of(
        folder, "file,label,mode\na.mp4,10,train\nb.mp4,2,train\nc.mp4,,train\n", kind="ordinal"
    )
    assert (numbers.task.kind, numbers.task.classes) == ("ordinal", ("2", "10"))
    assert [row.target for row in numbers.rows] == ["10", "2"]
    rows = "file,the grade,mode\na.mp4,none,train\nb.mp4,fair,train\nc.mp4,,train\n"
    classes = ("none", "fair", "good")
    words = table_of(folder, rows, labels=("the grade",), kind="ordinal", classes=classes)
    assert words.task.classes == classes
    assert [row.target for row in words.rows] == ["none", "fair"]


def test_a_clip_is_not_kept_for_its_speaker(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    rows = "file,label,split,speaker,note\na.mp4,1,train,x,\nb.mp4,,train,x,\nc.mp4,,train,y,odd\n"
    found = table_of(folder, rows)
    assert [(row.id, row.target) for row in found.rows] == [("a", 1.0), ("c", None)]


@pytest.mark.parametrize(
    ("leading", "kind", "classes"),
    [
        ({"kind": "multilabel", "labels": ("x", "y")}, "multilabel", ("x", "y")),
        ({"kind": "ordinal", "labels": ("x",), "classes": ("low", "high")}, "ordinal", ("low", "high")),
        ({"labels": ("x",), "classes": ("low", "high")}, "classification", ("low", "high")),
        ({"kind": "ordinal", "labels": ("x",)}, "regression", ()),
    ],
)
def test_clips_whose_labels_are_empty_are_to_be_predicted(
    tmp_path: Path, leading: dict[str, Any], kind: str, classes: tuple[str, ...]
) -> None:
    found = table_of(folder_with(tmp_path, "a.mp4"), "file,x,y\na.mp4,,\n", **leading)
    assert (found.task.kind, found.task.classes) == (kind, classes)
    assert [(row.role, row.target) for row in found.rows] == [("test", None)]


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


def test_labels_of_train_decide_what_several_are(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    rows = "file,split,happy,mood\na.mp4,train,1,0\nb.mp4,train,0,2\nc.mp4,test,1,"
    for last in ("-1", "2"):
        assert table_of(folder, f"{rows}{last}\n", labels=("happy", "mood")).task.kind == "multilabel"
    signed = rows.replace("0,2", "0,-2")
    assert table_of(folder, f"{signed}1\n", labels=("happy", "mood")).task.kind == "regression"
