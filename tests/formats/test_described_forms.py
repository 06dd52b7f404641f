"""Descriptions of files as people have them: a table for each clip, ids of several columns, objects, HDF5,
texts and groups.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from alignmamba.contracts import Corpus, Sample
from alignmamba.errors import DataError
from alignmamba.formats.conversion import Conversion, convert
from alignmamba.formats.foreign import ReadOptions
from alignmamba.formats.tables import described_arrays as arrays

IDS = tuple(f"clip{number}" for number in range(4))
HEAD = 'name = "made up"\n[task]\nkind = "classification"\nclasses = ["no", "yes"]\n'
SAMPLES = '[samples]\ntable = "samples.csv"\nlabel = "label"\nsplit = "split"\n'


def seconds(clip: int) -> np.ndarray:
    return np.arange(2 + clip) / 4


def frames(clip: int) -> np.ndarray:
    """(time, 2)"""
    return np.stack([clip + np.arange(2.0 + clip), -np.arange(2.0 + clip)], axis=1)


def described(folder: Path, modality: str, *, samples: str = SAMPLES, head: str = HEAD) -> Path:
    path = folder / "corpus.toml"
    path.write_text(f"{head}{samples}[modalities.face]\n{modality}\n")
    return path


def done(path: Path) -> Conversion:
    return convert("arrays", [path], path.parent / "out", overwrite=True)


def samples_of(corpus: Corpus) -> list[Sample]:
    return [sample for split in corpus.splits.values() for sample in split]


def message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        done(path)
    assert "\n" not in str(caught.value)
    assert str(path.parent) in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        f"{identity},{number % 2},{'train' if number < 2 else 'test'}" for number, identity in enumerate(IDS)
    ]
    (tmp_path / "samples.csv").write_text("id,label,split\n" + "\n".join(rows) + "\n")
    (tmp_path / "face").mkdir()
    return tmp_path


def write_text(
    folder: Path, head: str, line: Callable[[float, float, float], str], name: str = "face/{}.csv"
) -> None:
    for number, identity in enumerate(IDS):
        rows = [line(second, *frame) for second, frame in zip(seconds(number), frames(number), strict=True)]
        (folder / name.format(identity)).write_text(head + "".join(f"{row}\n" for row in rows))


FORMS: dict[str, tuple[str, Callable[[float, float, float], str], str]] = {
    "OpenFace": (
        "frame, timestamp, AU01_r, AU02_r\n",
        lambda t, x, y: f"1, {t:.3f}, {x}, {y}",
        'files = "face/{id}.csv"\ntime = "timestamp"\ncolumns = ["AU*_r"]',
    ),
    "openSMILE": (
        "name;frameTime;pcm_a;pcm_b\n",
        lambda t, x, y: f"'unknown';{t};{x};{y}",
        'files = "face/{id}.csv"\ntime = "frameTime"\nexclude = ["name"]',
    ),
    "a table": ("t\tx\ty\n", lambda t, x, y: f"{t}\t{x}\t{y}", 'table = "face/{id}.csv"\ntime = "t"'),
    "without names": (
        "",
        lambda t, x, y: f"{t},{x},{y}",
        'files = "face/{id}.csv"\nheader = false\ntime = "1"',
    ),
    "with names": (
        "",
        lambda t, x, y: f"  {t:.2e}   {x:.8e}  {y:.8e}",
        'files = "face/{id}.csv"\nheader = ["t", "x", "y"]\ntime = "t"\ncolumns = ["x", "y"]',
    ),
    "white space and names": (
        "t x y\n",
        lambda t, x, y: f"{t}  {x} {y}",
        'files = "face/{id}.csv"\nseparator = " "\ntime = "t"',
    ),
    "bars": (
        "t|x|y\n",
        lambda t, x, y: f"{t}|{x}|{y}",
        'files = "face/{id}.csv"\nseparator = "|"\ntime = "t"',
    ),
}


def check(found: Conversion, *, timed: bool = True) -> None:
    assert found.faults == ()
    for number, sample in enumerate(samples_of(found.corpus)):
        assert sample.id == IDS[number]
        np.testing.assert_allclose(sample.features["face"], frames(number), rtol=1e-6)
        if timed:
            np.testing.assert_allclose(sample.times["face"], seconds(number), atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_a_table_for_each_clip(folder: Path, form: str) -> None:
    head, line, modality = FORMS[form]
    write_text(folder, head, line)
    path = described(folder, modality)
    check(done(path))
    assert {file.name for file in arrays.files(path)} == {
        "corpus.toml",
        "samples.csv",
        *(f"{identity}.csv" for identity in IDS),
    }
    (folder / "face" / "clip1.csv").unlink()
    np.save(folder / "a.npy", np.ones((4, 1)))
    found = samples_of(done(described(folder, f'{modality}\n[modalities.also]\nvalues = "a.npy"')).corpus)
    assert [sample.features.get("face") is None for sample in found] == [False, True, False, False]


def test_parquet_for_each_clip(folder: Path) -> None:
    for number, identity in enumerate(IDS):
        columns = {"t": seconds(number), "x": frames(number)[:, 0], "y": frames(number)[:, 1]}
        parquet.write_table(pa.table(columns), folder / "face" / f"{identity}.parquet")
    check(done(described(folder, 'files = "face/{id}.parquet"\ntime = "t"')))
    assert "header and separator are for text" in message(
        described(folder, 'files = "face/{id}.parquet"\nheader = false')
    )


WRONG_TABLES: dict[str, tuple[str, str, str]] = {
    "text": ("t,x,y\n0,1,two\n", "", "clip1.csv: column 'y', row 1: expected a number, found 'two'"),
    "another column": ("t,x,z\n0,1,2\n", "", "clip1.csv: expected a column 'y' as clip0.csv has"),
    "one more": ("t,x,y,z\n0,1,2,3\n", "", "clip1.csv: expected no column 'z' as clip0.csv has none"),
    "a short row": ("t,x,y\n0,1,2\n0,1\n", "", "clip1.csv, line 3: expected 3 cells, found 2"),
    "no such column": (
        "t,x,y\n0,1,2\n",
        '\ncolumns = ["AU*"]',
        "expected a column 'AU*', found ['t', 'x', 'y']",
    ),
    "nothing": ("", "", "clip1.csv: expected a line of column names, found none"),
    "names of others": (
        "t,x,y\n",
        '\nheader = ["a"]',
        "line 1: expected 1 cells, one for each name of header, found 3",
    ),
    "times": ("t,x,y\n", '\ntimes = "face/{id}.npy"', "times does not go with a table for each sample"),
    "no placeholder": (
        "t,x,y\n",
        '\n[modalities.other]\nfiles = "face/{who}.csv"',
        "samples.csv: expected a column 'who', found ['id', 'label', 'split']",
    ),
}


@pytest.mark.parametrize("case", WRONG_TABLES)
def test_a_wrong_table_of_one_clip_is_refused(folder: Path, case: str) -> None:
    content, more, said = WRONG_TABLES[case]
    write_text(folder, "t,x,y\n", lambda t, x, y: f"{t},{x},{y}")
    (folder / "face" / "clip1.csv").write_text(content)
    assert said in message(described(folder, f'files = "face/{{id}}.csv"{more}'))


STATES = (("walk", "rest"), ("rest", "", "rest"), ("walk",) * 4, ("rest",) * 5)


def labels_of(corpus: Corpus) -> list[Any]:
    return [dict(sample.token_labels.get("face", {})) for sample in samples_of(corpus)]


def expected_labels(count: int) -> list[Any]:
    return [
        {
            "state": tuple(state or None for state in STATES[number][: len(frames(number))]),
            "level": tuple(range(len(frames(number)))),
        }
        for number in range(count)
    ]


@pytest.mark.parametrize("nonfinite", ["zero", "mean"])
def test_a_table_of_each_clip_may_label_its_rows(folder: Path, nonfinite: Any) -> None:
    modality = 'files = "face/{id}.csv"\ntime = "t"\nlabels = ["state", "level"]'
    for number, identity in enumerate(IDS):
        rows = [
            f"{second},{x},{STATES[number][at]} ,{y},{at}\n"
            for at, (second, (x, y)) in enumerate(zip(seconds(number), frames(number), strict=True))
        ]
        (folder / "face" / f"{identity}.csv").write_text("t,x,state,y,level\n" + "".join(rows))
    path = described(folder, modality)
    options = ReadOptions(nonfinite=nonfinite)
    found = convert("arrays", [path], folder / "out", options, overwrite=True)
    check(found)
    assert labels_of(found.corpus) == expected_labels(len(IDS))
    lacking = described(folder, 'files = "face/{id}.csv"\nlabels = ["mood"]')
    assert "expected a column 'mood'" in message(lacking)


@pytest.mark.parametrize("file", ["face.csv", "face.parquet"])
def test_a_long_table_may_label_its_rows(folder: Path, file: str) -> None:
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "t", "x", "y", "state", "level")}
    for number, identity in enumerate(IDS):
        for at, (second, (x, y)) in enumerate(zip(seconds(number), frames(number), strict=True)):
            cells = (identity, second, x, y, STATES[number][at] or None, at)
            for name, cell in zip(columns, cells, strict=True):
                columns[name].append(cell)
    if file.endswith("parquet"):
        parquet.write_table(pa.table(columns), folder / file, row_group_size=3)
    else:
        lines = [
            ",".join("" if cell is None else str(cell) for cell in row)
            for row in zip(*columns.values(), strict=True)
        ]
        (folder / file).write_text("\n".join([",".join(columns), *lines]) + "\n")
    found = done(described(folder, f'table = "{file}"\ntime = "t"\nlabels = ["state", "level"]'))
    check(found)
    assert labels_of(found.corpus) == expected_labels(len(IDS))


def test_labels_of_rows_need_a_table(folder: Path) -> None:
    np.save(folder / "all.npy", np.zeros((len(IDS), 2)))
    path = described(folder, 'values = "all.npy"\nlabels = ["state"]')
    assert "labels does not go with values" in message(path)


def test_columns_of_a_clip_may_stand_in_another_order_and_cells_may_be_empty(folder: Path) -> None:
    write_text(folder, "x,y\n", lambda _, x, y: f"{x},{y}")
    (folder / "face" / "clip1.csv").write_text("y,x\n" + "".join(f"{y},{x}\n" for x, y in frames(1)))
    check(done(described(folder, 'files = "face/{id}.csv"')), timed=False)
    (folder / "face" / "clip1.csv").write_text("y,x\n,1\nNA,2\n")
    (folder / "face" / "clip2.csv").write_text("y,x\n")
    np.save(folder / "a.npy", np.ones((4, 1)))
    found = done(described(folder, 'files = "face/{id}.csv"\n[modalities.also]\nvalues = "a.npy"'))
    assert found.faults == (
        ("not finite", "face", "set to 0", 2),
        ("zero length", "face", "taken as missing", 1),
    )


# Ids of several columns


def composite(
    folder: Path,
    *,
    cells: tuple[tuple[str, str], ...] = (("v1", "0001"), ("v1", "0002"), ("v2", "0001"), ("v2", "0002")),
) -> str:
    rows = [
        f"{video},{clip},{at % 2},{'train' if at < 2 else 'test'},said {at}"
        for at, (video, clip) in enumerate(cells)
    ]
    (folder / "samples.csv").write_text("video,clip,label,split,said\n" + "\n".join(rows) + "\n")
    for at, (video, clip) in enumerate(cells):
        (folder / "face" / video).mkdir(exist_ok=True, parents=True)
        np.save(folder / "face" / video / f"{clip}.npy", frames(at))
    return (
        '[samples]\ntable = "samples.csv"\nid = ["video", "clip"]\nlabel = "label"\nsplit = "split"\ngroup ='
        ' "video"\ntext = "said"\n'
    )


@pytest.mark.parametrize("pattern", ["face/{video}/{clip}.npy", "face/{id}.npy"])
def test_an_id_of_two_columns(folder: Path, pattern: str) -> None:
    samples = composite(folder)
    path = described(folder, f'files = "{pattern}"', samples=samples)
    found = samples_of(done(path).corpus)
    assert [sample.id for sample in found] == ["v1/0001", "v1/0002", "v2/0001", "v2/0002"]
    assert [(sample.group, sample.text) for sample in found] == [
        ("v1", "said 0"),
        ("v1", "said 1"),
        ("v2", "said 2"),
        ("v2", "said 3"),
    ]
    for number, sample in enumerate(found):
        np.testing.assert_array_equal(sample.features["face"], frames(number))
    assert len(arrays.files(path)) == 2 + 4


def test_an_id_of_two_columns_in_a_table_of_features(folder: Path) -> None:
    samples = composite(folder)
    rows = [
        f"{v},{c},{x},{y}"
        for at, (v, c) in enumerate([("v1", "0001"), ("v1", "0002"), ("v2", "0001")])
        for x, y in frames(at)
    ]
    (folder / "long.csv").write_text("video,clip,x,y\n" + "\n".join([*rows, "v9,0001,0,0"]) + "\n")
    found = done(
        described(folder, 'table = "long.csv"\n[modalities.also]\nfiles = "face/{id}.npy"', samples=samples)
    )
    for number, sample in enumerate(samples_of(found.corpus)[:3]):
        np.testing.assert_array_equal(sample.features["face"], frames(number))
    assert found.notes == ("1 ids of long.csv (1 rows) are of no sample and were dropped, 'v9/0001' first.",)


@pytest.mark.parametrize(
    ("cell", "leads"), [("../../secret", True), ("/etc/passwd", False), ("..", True), (".", False)]
)
def test_no_column_leads_out_of_the_folder(tmp_path: Path, cell: str, leads: bool) -> None:
    """A link that leads nowhere is refused; a name of no file in the folder is a missing modality."""
    inner = tmp_path / "inner"
    (inner / "face").mkdir(parents=True)
    samples = composite(inner)
    np.save(tmp_path / "secret.npy", frames(0))
    (tmp_path / "secret").mkdir()
    np.save(tmp_path / "secret" / "0001.npy", frames(0))
    table = (inner / "samples.csv").read_text().replace("v1,0001", f"{cell},0001")
    (inner / "samples.csv").write_text(table)
    path = described(inner, 'files = "face/{video}/{clip}.npy"', samples=samples)
    with (
        pytest.raises(DataError, match=r"expected a path within the folder|expected a file, found nothing")
        if leads
        else nullcontext()
    ):
        assert len(samples_of(done(path).corpus)) == 3
    assert not any((tmp_path / "secret.npy") == file or "secret" in file.parts for file in arrays.files(path))


def test_empty_cells_of_ids(folder: Path) -> None:
    samples = composite(folder, cells=(("v1", "1"), ("", "2")))
    assert "row 2: column 'video' is empty, expected an id" in message(
        described(folder, 'files = "face/{id}.npy"', samples=samples)
    )


def test_ids_of_parquet_with_an_empty_cell_are_no_floats(folder: Path) -> None:
    columns = {"id": [7, 8, 9], "label": [0, None, 1], "split": ["train", "train", "test"]}
    parquet.write_table(pa.table(columns), folder / "samples.parquet")
    np.save(folder / "a.npy", np.ones((3, 1)))
    path = described(folder, 'values = "a.npy"', samples=SAMPLES.replace(".csv", ".parquet"))
    assert [(sample.id, sample.target) for sample in samples_of(done(path).corpus)] == [("7", 0), ("9", 1)]
    parquet.write_table(pa.table({**columns, "id": [7, None, 9]}), folder / "samples.parquet")
    assert "row 2: column 'id' is empty, expected an id" in message(path)


# Leaks and rows of nobody


@pytest.mark.parametrize(
    "modality",
    ['files = "face/{id}.npy"', 'table = "long.csv"', 'files = "face/{id}.csv"', 'files = "all.npz#{id}"'],
)
def test_an_id_of_two_splits_is_a_leak(folder: Path, modality: str) -> None:
    for number, identity in enumerate(IDS):
        np.save(folder / "face" / f"{identity}.npy", frames(number))
    np.savez(folder / "all.npz", **{identity: frames(number) for number, identity in enumerate(IDS)})
    write_text(folder, "x,y\n", lambda _, x, y: f"{x},{y}")
    (folder / "long.csv").write_text("id,x\n" + "".join(f"{identity},1\n" for identity in IDS))
    path = described(folder, modality)
    assert done(path).notes == ()
    table = (folder / "samples.csv").read_text()
    (folder / "samples.csv").write_text(f"{table}clip0,1,test\n")
    assert (
        "id 'clip0' stands in train and again in test, a leak: all of them would have the same features"
        in message(path)
    )
    (folder / "samples.csv").write_text(f"{table}clip0,1,train\n")
    assert "id 'clip0' stands for several samples of train" in message(path)
    (folder / "samples.csv").write_text(f"{table}clip0,1,\n")
    assert len(samples_of(done(path).corpus)) == 4  # in no split


def test_an_id_of_two_rows_of_arrays_is_none(folder: Path) -> None:
    np.save(folder / "a.npy", np.arange(5.0)[:, None])
    with (folder / "samples.csv").open("a") as file:
        file.write("clip0,1,test\n")
    found = done(described(folder, 'values = "a.npy"'))
    assert found.faults == (("duplicate id", "test", "later one renamed to ID#2 and so on", 1),)
    assert [float(sample.features["face"][0, 0]) for sample in samples_of(found.corpus)] == [0, 1, 2, 3, 4]


def test_one_file_of_samples_of_two_splits_is_told(folder: Path) -> None:
    np.save(folder / "face" / "0.npy", frames(0))
    np.save(folder / "face" / "1.npy", frames(1))
    (note,) = done(described(folder, 'files = "face/{label}.npy"')).notes
    assert "2 files are of samples of several splits, 'face/0.npy' of train and test first: a leak?" in note


def test_what_belongs_to_no_sample_is_counted(folder: Path) -> None:
    for number, identity in enumerate((*IDS, "zzz")):
        np.save(folder / "face" / f"{identity}.npy", frames(number))
    np.savez(folder / "all.npz", **{identity: frames(0) for identity in (*IDS, "yyy", "zzz")})
    (folder / "long.csv").write_text(
        "id,x\n" + "".join(f"{identity},1\n" for identity in (*IDS, "zzz", "zzz"))
    )
    for modality, note in {
        'files = "face/{id}.npy"': (
            "1 files face/{id}.npy are of no sample and were dropped, 'face/zzz.npy' first."
        ),
        'files = "all.npz#{id}"': "2 arrays of all.npz are of no sample and were dropped, 'yyy' first.",
        'table = "long.csv"': "1 ids of long.csv (2 rows) are of no sample and were dropped, 'zzz' first.",
    }.items():
        assert done(described(folder, modality)).notes == (note,)
    (folder / "clip9.csv").write_text("x\n1\n")
    for identity in IDS:
        (folder / f"{identity}.csv").write_text("x\n1\n")
    (note,) = done(described(folder, 'files = "{id}.csv"')).notes
    assert note.startswith("2 files {id}.csv are of no sample")  # long.csv, but not the table of samples


# Objects, archives and HDF5


def objects(values: list[object]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize("kind", ["npz", "npy", "lists"])
def test_sequences_of_unequal_length_in_one_array(folder: Path, kind: str) -> None:
    values = objects([frames(number).tolist() if kind == "lists" else frames(number) for number in range(4)])
    times = objects([seconds(number) for number in range(4)])
    np.savez(
        folder / "all.npz",
        x=values,
        t=times,
        id=objects(list(IDS)),
        split=objects(["train"] * 2 + ["test"] * 2),
        y=objects([0, 1, 0, 1]),
    )
    np.save(folder / "x.npy", values, allow_pickle=True)
    samples = '[samples]\nids = "all.npz#id"\nlabels = "all.npz#y"\nsplits = "all.npz#split"\n'
    source = "x.npy" if kind == "npy" else "all.npz#x"
    check(done(described(folder, f'values = "{source}"\ntimes = "all.npz#t"', samples=samples)))
    assert "takes no offsets and no lengths" in message(
        described(folder, f'values = "{source}"\nlengths = "all.npz#y"', samples=samples)
    )


OBJECTS: dict[str, tuple[list[object], str]] = {
    "text": (
        [frames(0), "a", frames(1), frames(2)],
        "entry 1: expected an array of numbers, found str; save one array with offsets",
    ),
    "dates": ([frames(0).astype("M8[s]")] * 4, "refused"),
    "too few": ([frames(0)] * 3 + [[]], ""),
    "ragged rows": ([[[1.0], [1.0, 2.0]]] * 4, "entry 0: expected rows of one length, found others"),
    "other": ([{"a": 1}] * 4, "entry 0: expected an array of numbers, found dict"),
    "three": ([frames(0)] * 3, "values: expected 4, one per sample, found 3"),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_objects_that_are_no_sequences_are_refused(folder: Path, case: str) -> None:
    given, said = OBJECTS[case]
    np.savez(folder / "all.npz", x=objects(given))
    path = described(folder, 'values = "all.npz#x"\n')
    if said:
        assert said in message(path)
    else:
        assert len(samples_of(done(path).corpus)) == 3


def test_a_missing_entry_of_objects_is_a_missing_modality(folder: Path) -> None:
    np.savez(folder / "all.npz", x=objects([frames(0), None, frames(2), frames(3)]), a=np.ones((4, 1)))
    found = done(described(folder, 'values = "all.npz#x"\n[modalities.also]\nvalues = "all.npz#a"'))
    assert [sample.features.get("face") is None for sample in samples_of(found.corpus)] == [
        False,
        True,
        False,
        False,
    ]


def write_hdf5(folder: Path) -> None:
    with h5py.File(folder / "all.h5", "w") as file:
        file["id"], file["label"] = [*IDS], np.arange(4) % 2
        file["split"] = np.array(["train"] * 2 + ["test"] * 2, dtype="S5")
        file["in/x"] = np.concatenate([frames(number) for number in range(4)])
        file["in/t"] = np.concatenate([seconds(number) for number in range(4)])
        file["lengths"] = np.array([2, 3, 4, 5])
        file["wrong"] = np.array([2, 3, 4, 6])
        file["padded"] = np.stack(
            [np.pad(frames(number), ((0, 3 - number), (0, 0)), constant_values=9) for number in range(4)]
        )
        for number, identity in enumerate(IDS):
            file[f"one/{identity}"] = frames(number)
        file["soft"] = h5py.SoftLink("/in/x")
        file["outside"] = h5py.ExternalLink("other.h5", "x")
    for number, identity in enumerate(IDS):
        with h5py.File(folder / "face" / f"{identity}.h5", "w") as file:
            file["x"] = frames(number)


@pytest.mark.parametrize(
    "modality",
    [
        'values = "all.h5#in/x"\nlengths = "all.h5#lengths"\ntimes = "all.h5#in/t"',
        'values = "all.h5#padded"\nlengths = "all.h5#lengths"',
        'files = "face/{id}.h5"',
        'files = "face/{id}.h5#x"',
        'files = "all.h5#one/{id}"',
    ],
)
def test_hdf5(folder: Path, modality: str) -> None:
    write_hdf5(folder)
    samples = '[samples]\nids = "all.h5#id"\nlabels = "all.h5#label"\nsplits = "all.h5#split"\n'
    check(done(described(folder, modality, samples=samples)), timed="times" in modality)


WRONG_HDF5 = {
    'values = "all.h5#in/x"\nlengths = "all.h5#wrong"': (
        "lengths: all.h5#wrong: its lengths add up to 15, expected 14, the positions"
    ),
    'values = "all.h5#in/x"\nlengths = "all.h5#in/t"': (
        "lengths: all.h5#in/t: expected whole numbers of 0 or more, found 0.25 in row 1"
    ),
    'values = "all.h5#padded"\nlengths = "all.h5#wrong"': (
        "lengths: all.h5#wrong: found 6 in row 3, expected at most 5"
    ),
    'values = "all.h5#x"': "expected a data set 'x', found 12: ['id', 'in/t', 'in/x'",
    'values = "all.h5"': "expected one data set, or FILE#NAME, found 12",
    'values = "all.h5#soft"': "expected a data set 'soft'",
    'values = "all.h5#outside"': "expected a data set 'outside'",
    'values = "all.h5#id"': "values: all.h5#id: expected numbers, found <U5",
    'values = "bad.h5#x"': "bad.h5: cannot be read, the file is damaged",
}


@pytest.mark.parametrize("modality", WRONG_HDF5)
def test_what_is_wrong_with_hdf5_is_told(folder: Path, modality: str) -> None:
    write_hdf5(folder)
    (folder / "bad.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    assert WRONG_HDF5[modality] in message(described(folder, modality))


# Texts, groups and further labels; tables without ids and names


def test_texts_groups_and_further_labels(folder: Path) -> None:
    rows = ["a,0,train,ann,Well,0.5,x", "b,1,train,,,,y", "c,0,test,bob,Yes,2,"]
    (folder / "samples.csv").write_text("id,label,split,who,said,arousal,mood\n" + "\n".join(rows) + "\n")
    np.save(folder / "a.npy", np.ones((3, 1)))
    samples = f'{SAMPLES}group = "who"\ntext = "said"\nfurther = ["arousal", "mood"]\n'
    found = samples_of(done(described(folder, 'values = "a.npy"', samples=samples)).corpus)
    assert [(sample.group, sample.text, sample.labels) for sample in found] == [
        ("ann", "Well", {"arousal": 0.5, "mood": "x"}),
        (None, None, {"mood": "y"}),
        ("bob", "Yes", {"arousal": 2.0}),
    ]
    np.savez(
        folder / "all.npz",
        id=["a", "b", "c"],
        y=[0, 1, 0],
        s=["train", "train", "test"],
        g=[7, 7, 8],
        w=["Well", "", "Yes"],
    )
    keys = {"ids": "id", "labels": "y", "splits": "s", "groups": "g", "texts": "w"}
    samples = "[samples]\n" + "".join(f'{key} = "all.npz#{name}"\n' for key, name in keys.items())
    found = samples_of(done(described(folder, 'values = "a.npy"', samples=samples)).corpus)
    assert [(sample.group, sample.text) for sample in found] == [("7", "Well"), ("7", None), ("8", "Yes")]


def test_a_table_without_names_and_ids(folder: Path) -> None:
    """Table as hand key points are published: a class, then coordinates, nothing else."""
    (folder / "points.csv").write_text("".join(f"{at % 2},{at}.5,{-at}\n" for at in range(5)))
    samples = (
        '[samples]\ntable = "points.csv"\nheader = false\nid = "#"\nlabel = "1"\n[splits]\ntrain = "*"\ntest'
        ' = ["4", "5"]\n'
    )
    found = done(
        described(folder, 'table = "points.csv"\nheader = false\nid = "#"\nexclude = ["1"]', samples=samples)
    )
    assert {role: len(split) for role, split in found.corpus.splits.items()} == {"train": 3, "test": 2}
    assert [(s.id, s.target, s.features["face"].tolist()) for s in samples_of(found.corpus)] == [
        (str(at + 1), at % 2, [[at + 0.5, -at]]) for at in range(5)
    ]
    twice = samples.replace('test = ["4", "5"]', 'test = "*"')
    assert "'train' and 'test' are both '*'" in message(
        described(folder, 'table = "points.csv"\nheader = false\nid = "#"\nexclude = ["1"]', samples=twice)
    )


def test_many_columns_of_parquet_take_no_longer_than_their_number(folder: Path) -> None:
    """Each column was looked for among all, and the schema was made again for each: 4000 took 17 s, 20 000
    more than 120.
    """
    width = 3000
    columns = {"id": ["clip0", "clip3"], **{f"c{at}": np.arange(2.0) + at for at in range(width)}}
    parquet.write_table(pa.table(columns), folder / "wide.parquet")
    found = samples_of(done(described(folder, 'table = "wide.parquet"')).corpus)
    np.testing.assert_array_equal(found[0].features["face"], [np.arange(width)])


def test_a_pipe_is_no_table(folder: Path) -> None:
    os.mkfifo(folder / "face" / "clip0.csv")
    assert "clip0.csv: expected a file, found something else" in message(
        described(folder, 'files = "face/{id}.csv"')
    )


# What the documentation shows

PAGE = Path(__file__).parents[2] / "docs" / "arrays.md"
SHOWN = PAGE.read_text(encoding="utf-8").partition("## Files as they are published")[2].split("```toml\n")[1:]
PUBLISHED = [block.partition("```")[0] for block in SHOWN]


def test_the_files_of_the_page(folder: Path) -> None:
    openface, opensmile, savetxt, mediapipe, two_columns = PUBLISHED
    (folder / "voice").mkdir()
    (folder / "mfcc").mkdir()
    write_text(folder, *FORMS["OpenFace"][:2])
    write_text(folder, *FORMS["openSMILE"][:2], "voice/{}.csv")
    for number, identity in enumerate(IDS):
        np.savetxt(folder / "mfcc" / f"{identity}.txt", frames(number))
    path = folder / "corpus.toml"
    path.write_text(HEAD + SAMPLES + openface + opensmile + savetxt)
    for number, sample in enumerate(samples_of(done(path).corpus)):
        assert list(sample.features) == ["face", "voice", "mfcc"]
        assert list(sample.times) == ["face", "voice"]
        for values in sample.features.values():
            np.testing.assert_allclose(values, frames(number))
    (folder / "keypoint.csv").write_text("".join(f"{at % 2},{at}.5,{-at}\n" for at in range(4)))
    path.write_text(f'{HEAD}[splits]\ntrain = "*"\n{mediapipe}')
    assert [sample.features["hand"].tolist() for sample in samples_of(done(path).corpus)] == [
        [[at + 0.5, -at]] for at in range(4)
    ]
    rows = [f"v{at // 2},{at:04d},{at - 1.5},{'train' if at < 2 else 'test'},said" for at in range(4)]
    (folder / "label.csv").write_text("video_id,clip_id,label,mode,text\n" + "\n".join(rows) + "\n")
    for at in range(4):
        (folder / "audio" / f"v{at // 2}").mkdir(parents=True, exist_ok=True)
        np.save(folder / "audio" / f"v{at // 2}" / f"{at:04d}.npy", frames(at))
    path.write_text(f'name = "sims"\n[task]\nkind = "regression"\n{two_columns}')
    found = samples_of(done(path).corpus)
    assert [(sample.id, sample.target, sample.group) for sample in found] == [
        ("v0/0000", -1.5, "v0"), ("v0/0001", -0.5, "v0"), ("v1/0002", 0.5, "v1"), ("v1/0003", 1.5, "v1")
    ]  # fmt: skip


def test_samples_without_labels_and_splits_are_new_ones(folder: Path) -> None:
    """Table without labels, as in a file that is to be predicted."""
    (folder / "samples.csv").write_text("id\n" + "".join(f"{identity}\n" for identity in IDS))
    np.save(folder / "a.npy", np.ones((4, 1)))
    found = done(described(folder, 'values = "a.npy"', samples='[samples]\ntable = "samples.csv"\n'))
    assert {role: len(split) for role, split in found.corpus.splits.items()} == {"test": 4}
    assert found.notes == (
        "Nothing says which sample is in which split, and there are no labels: all are in test.",
    )
