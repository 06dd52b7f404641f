"""Files of every format without labels: read as they are, with targets absent, and predicted by a run of
either task.
"""

import copy
import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts_csd
import layouts_gcnet
import layouts_pickled
import numpy as np
import pytest
from layouts_pickled import write

from alignmamba.cli.main import main
from alignmamba.errors import DataError
from alignmamba.formats.conversion import Conversion, convert
from alignmamba.formats.known_formats import any_options, detect


def _mmsa() -> dict[str, Any]:
    content, _ = layouts_pickled.mmsa()
    return {
        role: {name: field for name, field in split.items() if "label" not in name and name != "annotations"}
        for role, split in content.items()
    }


def _bare_mmsa() -> dict[str, Any]:
    return {
        role: {name: split[name] for name in ("id", "text", "audio", "vision")}
        for role, split in _mmsa().items()
    }


def _mult() -> dict[str, Any]:
    content, _ = layouts_pickled.mult()
    return {
        role: {name: field for name, field in split.items() if name != "labels"}
        for role, split in content.items()
    }


def _mag_bert(*, shape: int) -> dict[str, Any]:
    content, _ = layouts_pickled.mag_bert()
    return {
        role: [
            (features, None, segment) if shape == 3 else (features, segment) for features, _, segment in clips
        ]
        for role, clips in content.items()
    }


PICKLES: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "mmsa": ("mmsa", _mmsa),
    "mmsa, no more than features and ids": ("mult", _bare_mmsa),
    "mult": ("mult", _mult),
    "mag-bert, labels of None": ("mag-bert", lambda: _mag_bert(shape=3)),
    "mag-bert, no place for labels": ("mag-bert", lambda: _mag_bert(shape=2)),
}
LABELLED = {"mmsa": layouts_pickled.mmsa, "mult": layouts_pickled.mult, "mag-bert": layouts_pickled.mag_bert}


def _same_features(found: Conversion, labelled: Conversion) -> None:
    assert found.corpus.splits.keys() == labelled.corpus.splits.keys()
    for role, split in labelled.corpus.splits.items():
        assert found.corpus.split(role).ids == split.ids
        for one, other in zip(found.corpus.split(role), split, strict=True):
            assert one.target is None
            assert one.features.keys() == other.features.keys()
            for name, values in other.features.items():
                np.testing.assert_array_equal(one.features[name], values)


@pytest.mark.parametrize("case", PICKLES)
def test_an_unlabelled_pickle_is_read_as_the_labelled_one(case: str, tmp_path: Path) -> None:
    form, make = PICKLES[case]
    assert detect([write(tmp_path / "new.pkl", make())]) == form
    found = convert("auto", [tmp_path / "new.pkl"], tmp_path / "new")
    assert found.corpus.task.kind == "regression"
    assert found.corpus.task.label_range is None
    if case in LABELLED:
        assert any(note.startswith("unlabelled: ") for note in found.notes)
        content, _ = LABELLED[case]()
        _same_features(found, convert(form, [write(tmp_path / "known.pkl", content)], tmp_path / "known"))


@pytest.mark.parametrize("case", ["mmsa", "mult"])
def test_one_split_may_be_unlabelled(case: str, tmp_path: Path) -> None:
    content, _ = LABELLED[case]()
    content["test"] = PICKLES[case][1]()["test"]
    done = convert("auto", [write(tmp_path / "new.pkl", content)], tmp_path / "new")
    assert "unlabelled: test" in done.notes
    assert {role: split[0].target is None for role, split in done.corpus.splits.items()} == {
        "train": False,
        "valid": False,
        "test": True,
    }


def test_a_label_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    write(tmp_path / "new.pkl", _mmsa())
    with pytest.raises(
        DataError, match=r"new\.pkl: expected label 'regression_labels_T', found no label in any split"
    ):
        convert("mmsa", [tmp_path / "new.pkl"], tmp_path / "new", any_options()(label="regression_labels_T"))
    content, _ = layouts_pickled.mmsa()
    mistyped = copy.deepcopy(content)
    for split in mistyped.values():
        split["regression_label"] = split.pop("regression_labels")
    write(tmp_path / "mistyped.pkl", mistyped)
    with pytest.raises(DataError, match="perhaps 'regression_labels', mistyped or damaged"):
        convert("mmsa", [tmp_path / "mistyped.pkl"], tmp_path / "new")


def test_a_table_without_labels_is_of_new_utterances(tmp_path: Path) -> None:
    folder = layouts_gcnet.write_folder(tmp_path)
    known = convert("gcnet", [folder], tmp_path / "known")
    table = folder / "label-3way.csv"
    rows = list(csv.DictReader(table.read_text().splitlines()))
    for fields, roles in ((("name", "split", "video"), set(known.corpus.splits)), (("name",), {"test"})):
        table.write_text(
            "\n".join([",".join(fields), *(",".join(row[field] for field in fields) for row in rows)]) + "\n"
        )
        done = convert("auto", [folder], tmp_path / "new", overwrite=True)
        assert set(done.corpus.splits) == roles
        assert any(note.startswith("unlabelled: label-3way.csv") for note in done.notes)
        if len(fields) > 1:
            _same_features(done, known)
        else:
            assert (
                "Nothing says which sample is in which split, and there are no labels: all are in test."
                in done.notes
            )
            assert sum(map(len, known.corpus.splits.values())) == len(done.corpus.split("test"))


def test_computational_sequences_without_labels_and_folds_are_all_in_test(tmp_path: Path) -> None:
    layouts_csd.write_corpus(tmp_path, without=("Opinion Segment Labels", "words"))
    (tmp_path / "folds.json").unlink(missing_ok=True)
    done = convert("csd", [tmp_path], tmp_path / "new")
    assert list(done.corpus.splits) == ["test"]
    assert done.corpus.split("test")[0].target is None


@pytest.mark.parametrize("label", ["regression_labels", "annotations"])
def test_a_run_predicts_new_clips_and_nothing_else_takes_them(
    label: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, _ = layouts_pickled.mmsa()
    convert("mmsa", [write(tmp_path / "known.pkl", content)], tmp_path / "known", any_options()(label=label))
    settings = ["fit.epochs=1", "options.d_model=8", "options.depth=1", "options.d_state=2"]
    assert (
        main(["train", "--data", str(tmp_path / "known"), "--out", str(tmp_path / "run"), "--set", *settings])
        == 0
    )
    new = write(tmp_path / "new.pkl", _mmsa())
    assert (
        main(["predict", str(tmp_path / "run"), "--data", str(new), "--out", str(tmp_path / "new.csv")]) == 0
    )
    assert (
        main(
            [
                "predict",
                str(tmp_path / "run"),
                "--data",
                str(tmp_path / "known"),
                "--out",
                str(tmp_path / "known.csv"),
            ]
        )
        == 0
    )
    tables = {
        name: list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines()))
        for name in ("new", "known")
    }
    assert [row["prediction"] for row in tables["new"]] == [row["prediction"] for row in tables["known"]]
    capsys.readouterr()
    for command in (["evaluate", str(tmp_path / "run"), "--data", str(new)], ["train", "--data", str(new)]):
        assert main(command) == 2
        assert (
            "is unlabelled, expected a target for every sample; predict and train --pretrain need no targets"
            in capsys.readouterr().err
        )
    assert main(["inspect", str(new)]) == 0
    assert "unlabelled: train, valid, test\n" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run")
