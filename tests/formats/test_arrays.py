"""Described arrays: every layout value by value, and every wrong description or file in one line."""

import os
import shutil
from pathlib import Path

import layouts_arrays as layout
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from alignmamba.contracts import Corpus, Task
from alignmamba.data.leading_target import LeadingConfig, led_by
from alignmamba.errors import DataError
from alignmamba.formats.conversion import convert
from alignmamba.formats.foreign_inspection import inspect_foreign
from alignmamba.formats.known_formats import detect
from alignmamba.formats.tables import described_arrays as arrays


def corpus(path: Path, **options: object) -> Corpus:
    return convert(
        "arrays", [path], path.parent / "out", arrays.Options.model_validate(options), overwrite=True
    ).corpus


def message(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        corpus(path, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert str(path.parent) in said
    assert not (path.parent / "out").exists()
    return said


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return layout.write_everything(tmp_path)


def check(found: Corpus, *, timed: bool = True) -> None:
    values, times = layout.truth(), layout.seconds()
    assert found.name == "made up"
    assert [(spec.name, spec.kind, spec.dim) for spec in found.modalities] == [
        ("text", "tokens", 50),
        ("audio", "features", 3),
    ]
    assert [identity for split in found.splits.values() for identity in split.ids] == list(layout.IDS)
    assert {role: len(split) for role, split in found.splits.items()} == {"train": 4, "valid": 2, "test": 1}
    for row, sample in enumerate(sample for split in found.splits.values() for sample in split):
        assert sample.target == layout.LABELS[row]
        np.testing.assert_array_equal(sample.features["text"][:, 0], values["text"][row])
        np.testing.assert_array_equal(sample.features["audio"], values["audio"][row])
        assert ("audio" in sample.times) == timed
        if timed:
            np.testing.assert_array_equal(sample.times["audio"], times[row])


@pytest.mark.parametrize("audio", layout.AUDIO)
@pytest.mark.parametrize("text", layout.TEXT)
def test_every_layout_is_read_exactly(written: Path, audio: str, text: str) -> None:
    check(corpus(layout.describe(written.parent, text=layout.TEXT[text], audio=layout.AUDIO[audio])))


def test_compressed_and_without_times(written: Path) -> None:
    layout.write_npz(written.parent, compressed=True)
    audio = 'values = "all.npz#audio"\noffsets = "all.npz#audio_offsets"\n'
    check(corpus(layout.describe(written.parent, audio=audio)), timed=False)


def test_ids_labels_and_splits_need_no_table(written: Path) -> None:
    (written.parent / "valid.txt").write_text("s4\n\ns5 \n")
    samples = (
        '[samples]\nids = "all.npz#id"\nlabels = "all.npz#label"\n'
        '[splits]\ntrain = ["s0", "s1", "s2", "s3"]\nvalid = "valid.txt"\ntest = ["s6"]\n'
    )
    check(corpus(layout.describe(written.parent, samples=samples)))


def test_ids_of_splits_that_no_sample_has_are_told(written: Path) -> None:
    samples = (
        '[samples]\ntable = "samples.csv"\nlabel = "label"\n[splits]\ntrain = ["s0", "s1", "s2", "s3", "s4",'
        ' "s5"]\n'
    )
    for test, notes in (
        ('["s6"]', ()),
        (
            '["s6", "nobody", "none"]',
            (f"2 ids of splits in {written} name nothing that is in the files, 'nobody' first.",),
        ),
    ):
        described = layout.describe(written.parent, samples=f"{samples}test = {test}\n")
        assert convert("arrays", [described], written.parent / "out", overwrite=True).notes == notes


def test_splits_from_an_array_and_one_vector_each(written: Path) -> None:
    vectors = np.arange(21.0).reshape(7, 3)
    np.savez(
        written.parent / "more.npz",
        vectors=vectors,
        split=np.array(layout.SPLITS).astype("S"),
        short=np.array(["train"]),
    )
    samples = '[samples]\nids = "all.npz#id"\nlabels = "all.npz#label"\nsplits = "more.npz#split"\n'
    found = corpus(layout.describe(written.parent, samples=samples, audio='values = "more.npz#vectors"\n'))
    assert {role: len(split) for role, split in found.splits.items()} == {"train": 4, "valid": 2, "test": 1}
    assert [sample.features["audio"].tolist() for split in found.splits.values() for sample in split] == [
        [row] for row in vectors.tolist()
    ]
    path = layout.describe(written.parent, samples=samples.replace("#split", "#short"))
    with pytest.raises(
        DataError, match=r"samples\.splits: more\.npz#short: expected 7, one per sample, found 1"
    ):
        corpus(path)


def test_padded_without_lengths_is_valid_throughout(written: Path) -> None:
    found = corpus(layout.describe(written.parent, audio='values = "all.npz#audio_padded"\n'))
    assert {len(sample.features["audio"]) for split in found.splits.values() for sample in split} == {6}


def test_a_sample_without_a_file_lacks_the_modality(written: Path) -> None:
    (written.parent / "audio" / "s2.npy").unlink()
    found = corpus(layout.describe(written.parent, audio='files = "audio/{id}.npy"\n'))
    assert found.split("train").lengths["audio"].tolist() == [5, 4, 0, 3]


def test_classes_by_name_and_by_number(written: Path) -> None:
    head = 'name = "made up"\n[task]\nkind = "classification"\nclasses = ["no", "yes"]\n'
    labels = ["no", "1", "yes", "", "0", "yes", "no"]
    rows = [
        f'{identity},"{label}",{role}'
        for identity, label, role in zip(layout.IDS, labels, layout.SPLITS, strict=True)
    ]
    (written.parent / "samples.csv").write_text("\ufeffid,label,split\n" + "\n".join(rows) + "\n")
    done = convert("arrays", [layout.describe(written.parent, head=head)], written.parent / "out")
    assert [sample.target for split in done.corpus.splits.values() for sample in split] == [0, 1, 1, 0, 1, 0]
    assert done.faults == (("not a number label", "train", "clip dropped", 1),)


def test_what_a_split_is_called(written: Path) -> None:
    table = (
        (written.parent / "samples.csv")
        .read_text()
        .replace("train", "one")
        .replace("valid", "two")
        .replace("test", "three")
    )
    (written.parent / "samples.csv").write_text(table)
    samples = layout.SAMPLES + '[splits]\ntrain = ["one", "uno"]\nvalid = "two"\n'
    done = convert("arrays", [layout.describe(written.parent, samples=samples)], written.parent / "out")
    assert {role: len(split) for role, split in done.corpus.splits.items()} == {"train": 4, "valid": 2}
    assert done.notes == (
        (
            "1 samples of the split 'three' are in no split and were dropped, 's6' first. There is no test"
            " split left."
        ),
    )


def test_another_column_is_the_label(written: Path) -> None:
    table = (written.parent / "samples.csv").read_text().splitlines()
    (written.parent / "samples.csv").write_text(
        "\n".join([table[0] + ",other", *(f"{line},{row}" for row, line in enumerate(table[1:]))])
    )
    head = layout.HEAD.replace("range = [-3, 3]\n", "")
    assert [
        sample.target
        for sample in corpus(layout.describe(written.parent, head=head), label="other").split("train")
    ] == [0, 1, 2, 3]
    with pytest.raises(
        DataError,
        match=r"samples\.csv: expected a column 'absent', found \['id', 'label', 'split', 'other'\]",
    ):
        corpus(written, label="absent")


def test_it_is_recognised_and_names_its_files(written: Path, tmp_path: Path) -> None:
    assert arrays.recognises(written)
    assert not arrays.recognises(tmp_path / "samples.csv")
    assert not arrays.recognises(tmp_path / "absent.toml")
    (tmp_path / "other.toml").write_text("[samples]\n")
    assert not arrays.recognises(tmp_path / "other.toml")
    (tmp_path / "broken.toml").write_bytes(b"\xff[[[")
    assert not arrays.recognises(tmp_path / "broken.toml")
    assert {path.name for path in arrays.files(written)} == {"corpus.toml", "samples.csv", "all.npz"}
    named = arrays.files(layout.describe(tmp_path, audio=layout.AUDIO["files"]))
    assert len(named) == 3 + 2 * len(layout.IDS)


MISTYPED = {
    "no TOML": (
        "[samples]",
        "[samples",
        (
            r"corpus\.toml: not valid TOML: Expected ']' at the end of a table declaration \(at line 5,"
            r" column 9\)$"
        ),
    ),
    "another key": ("[samples]", "[sample]", r"corpus\.toml: samples: expected, found nothing"),
    "too long": (
        "[samples]",
        "#" * 70_000 + "\n[samples]",
        r"corpus\.toml: expected at most 65536 bytes of text, found more$",
    ),
}


@pytest.mark.parametrize("case", MISTYPED)
def test_a_typo_is_told_without_the_format(written: Path, case: str) -> None:
    old, new, said = MISTYPED[case]
    written.write_text(written.read_text().replace(old, new))
    for read in (lambda: detect([written]), lambda: inspect_foreign(written)):
        with pytest.raises(DataError, match=said):
            read()


WRONG = {
    "no name": ({"head": '[task]\nkind = "regression"\n'}, "name: expected, found nothing"),
    "kind": (
        {"head": 'name = "a"\n[task]\nkind = "ranking"\n'},
        "task.kind: Input should be 'regression', 'classification', 'ordinal' or 'multilabel', found",
    ),
    "classes": (
        {"head": 'name = "a"\n[task]\nkind = "classification"\n'},
        "a classification task needs at least 2",
    ),
    "range": (
        {"head": 'name = "a"\n[task]\nkind = "regression"\nrange = [3, -3]\n'},
        "label_range: lower end 3.0 is not below",
    ),
    "range type": ({"head": 'name = "a"\n[task]\nkind = "regression"\nrange = "wide"\n'}, "task.range: "),
    "name type": (
        {"head": 'name = 3\n[task]\nkind = "regression"\n'},
        "name: Input should be a valid string, found 3",
    ),
    "not TOML": ({"head": "name = \n"}, "not valid TOML"),
    "unknown key": (
        {"samples": layout.SAMPLES + "spilt = 3\n"},
        "samples.spilt: unknown key, perhaps you meant 'samples.split'",
    ),
    "two sources": (
        {"samples": '[samples]\ntable = "samples.csv"\nids = "all.npz#id"\n'},
        "samples: expected one of table and ids",
    ),
    "no splits": (
        {"samples": '[samples]\ntable = "samples.csv"\nlabel = "label"\n'},
        "expected samples.split or samples.splits, or [splits]",
    ),
    "no column": (
        {"samples": layout.SAMPLES.replace('"split"', '"fold"')},
        "expected a column 'fold', found ['id', 'label', 'split']",
    ),
    "no table": (
        {"samples": layout.SAMPLES.replace("samples.csv", "absent.csv")},
        "absent.csv: expected a file, found nothing",
    ),
    "no such kind of table": (
        {"samples": layout.SAMPLES.replace("samples.csv", "samples.xls")},
        "expected a .csv, .tsv, .txt or .parquet file",
    ),
    "split twice": (
        {"samples": layout.SAMPLES + '[splits]\ntrain = "x"\nvalid = "x"\n'},
        "splits: 'x' stands for 'train' and for 'valid'",
    ),
    "unknown split": (
        {"samples": layout.SAMPLES + '[splits]\ndev = "x"\n'},
        "splits.dev: Input should be 'train', 'valid' or 'test'",
    ),
    "nothing in a split": (
        {"samples": layout.SAMPLES + '[splits]\ntrain = "a"\nvalid = "b"\ntest = "c"\n'},
        "no sample is in any split",
    ),
    "two layouts": (
        {"audio": 'values = "all.npz#audio"\nfiles = "{id}.npy"\n'},
        "audio: expected one of files, values and table, found files and values",
    ),
    "no layout": ({"audio": 'units = "m"\n'}, "audio: expected one of files, values and table, found none"),
    "no pattern": (
        {"audio": 'files = "audio.npy"\n'},
        "files: expected a pattern with {id}, found 'audio.npy'",
    ),
    "no file of any sample": ({"audio": 'files = "sound/{id}.npy"\n'}, "names no file of 7 samples"),
    "not of this layout": (
        {"audio": 'table = "audio.csv"\nlengths = "all.npz#audio_lengths"\n'},
        "lengths does not go with table",
    ),
    "no key": (
        {"audio": 'values = "all.npz#sound"\n'},
        "all.npz: expected an array 'sound', found ['id', 'label', 'text'",
    ),
    "ragged without lengths": (
        {"audio": 'values = "all.npz#audio"\n'},
        "are not one for each of 7 samples: they need offsets or lengths",
    ),
    "lengths of others": (
        {"audio": 'values = "all.npz#audio"\nlengths = "all.npz#text_lengths"\n'},
        (
            "audio.lengths: all.npz#text_lengths: its lengths add up to 17, expected 29, the positions of the"
            " values"
        ),
    ),
    "too many offsets": (
        {"audio": 'values = "all.npz#audio"\noffsets = "all.npz#label"\n'},
        "audio.offsets: all.npz#label: expected whole numbers of 0 or more, found 0.5 in row 0",
    ),
    "padded with offsets": (
        {"audio": 'values = "all.npz#audio_padded"\noffsets = "all.npz#audio_offsets"\n'},
        "padded values take lengths",
    ),
    "falling offsets": (
        {"audio": 'values = "all.npz#audio"\noffsets = "all.npz#falling"\n'},
        "audio.offsets: all.npz#falling: go from 0 to 29, expected numbers from 0 to 29 that never fall",
    ),
    "text as values": (
        {"audio": 'values = "all.npz#id"\nlengths = "all.npz#audio_lengths"\n'},
        "expected numbers, found <U2",
    ),
    "words as tokens": (
        {"text": 'kind = "tokens"\nvalues = "all.npz#audio_times"\noffsets = "all.npz#audio_offsets"\n'},
        "expected whole numbers as tokens",
    ),
    "times of others": (
        {"audio": layout.AUDIO["offsets"].replace("audio_times", "label")},
        "audio.times: expected shape (29,), found (7,)",
    ),
    "no column of the table": (
        {"audio": 'table = "audio.csv"\ncolumns = ["w"]\n'},
        "audio.csv: expected a column 'w', found ['id', 't', 'x', 'y', 'z']",
    ),
    "text in the table": (
        {"audio": 'table = "samples.csv"\ncolumns = ["split"]\n'},
        "column 'split', id 's0', its row 1: expected a number, found 'train'",
    ),
    "ids of others": (
        {"audio": 'table = "audio.parquet"\nid = "x"\n'},
        "audio.parquet' has no row of any sample",
    ),
    "modality": (
        {"audio": 'files = "audio/{id}.npy"\n[modalities."a b"]\nfiles = "{id}"\n'},
        "modalities.a b: String should match pattern",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_description_is_refused_in_one_line(written: Path, case: str) -> None:
    parts, expected = WRONG[case]
    assert expected in message(layout.describe(written.parent, **parts))


ESCAPES = ("../secret.npy", "absolute", "link.npy", "folder/secret.npy")


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("place", ["values", "files", "table", "samples", "splits"])
def test_nothing_outside_the_folder_is_read(tmp_path: Path, name: str, place: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    layout.write_everything(folder)
    np.save(tmp_path / "secret.npy", np.zeros((29, 3)))
    suffix = {"table": ".csv", "samples": ".csv", "splits": ".txt"}.get(place, ".npy")
    if suffix != ".npy":
        (tmp_path / f"secret{suffix}").write_text("id,label,split,x\ns0,1,train,1\n")
    (folder / f"link{suffix}").symlink_to(tmp_path / f"secret{suffix}")
    (folder / "folder").symlink_to(tmp_path)
    name = str(tmp_path / f"secret{suffix}") if name == "absolute" else name.replace(".npy", suffix)
    parts = {
        "values": {"audio": f'values = "{name}"\noffsets = "all.npz#audio_offsets"\n'},
        "files": {"audio": 'files = "{id}.npy"\n'},
        "table": {"audio": f'table = "{name}"\n'},
        "samples": {"samples": layout.SAMPLES.replace("samples.csv", name)},
        "splits": {
            "samples": layout.SAMPLES.replace('split = "split"\n', "") + f'[splits]\ntrain = "{name}"\n'
        },
    }[place]
    if place == "files":
        table = (folder / "samples.csv").read_text().replace("s0", name.removesuffix(".npy"))
        (folder / "samples.csv").write_text(table)
        np.save(folder / "s1.npy", np.zeros((2, 3)))
    path = layout.describe(folder, **parts)
    assert "expected a path within the folder" in message(path)


def test_what_is_no_file_is_refused(written: Path) -> None:
    os.mkfifo(written.parent / "pipe.npy")
    path = layout.describe(written.parent, audio='values = "pipe.npy"\n')
    assert "pipe.npy: expected a file, found something else" in message(path)
    path = layout.describe(written.parent, audio='values = "audio"\n')
    assert "audio: expected a file, found a folder" in message(path)
    (written.parent / "audio" / "s0.npy").unlink()
    (written.parent / "audio" / "s0.npy").symlink_to(written.parent / "nowhere")
    assert "s0.npy: expected a file, found nothing" in message(
        layout.describe(written.parent, audio=layout.AUDIO["files"])
    )


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


HOSTILE = {
    "huge": (header("(1000000000000, 3)") + bytes(99), "takes 12000000000000 bytes, found 99"),
    "longer": (header("(1, 3)") + bytes(99), "takes 12 bytes, found 99"),
    "overflowing": (header(f"({1 << 62}, {1 << 62})") + bytes(99), "bytes, found 99"),
    "negative": (header("(-1, -3)") + bytes(12), "expected at most 4 lengths of 0 or more"),
    "many axes": (header("(1,)".replace("1,", "1, " * 40)) + bytes(4), "expected at most 4 lengths"),
    "true": (header("(True, 3)") + bytes(12), "expected at most 4 lengths of 0 or more"),
    "objects": (header("(2, 3)", "'|O'") + b"cos\nsystem\n", "refused: the pickle asks for 'os.system'"),
    "structure": (header("(2, 3)", "[('a', '<f4'), ('b', '|O')]") + bytes(48), "found Python objects"),
    "times": (header("(2, 3)", "'<M8[s]'") + bytes(48), "expected numbers or text, found datetime64[s]"),
    "call": (header("__import__('os').getpid()") + bytes(12), "its header cannot be read"),
    "deep": (header("(" * 3000) + bytes(12), "its header cannot be read"),
    "long": (
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(99),
        "its header of 2147483647 bytes is cut off or too long",
    ),
    "version": (b"\x93NUMPY\x09\x00" + bytes(99), ".npy version 0900 is not known"),
    "no array": (b"PK\x03\x04" + bytes(99), "not a .npy file"),
    "nothing": (b"", "not a .npy file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_array_is_refused(written: Path, case: str) -> None:
    content, expected = HOSTILE[case]
    (written.parent / "hostile.npy").write_bytes(content)
    path = layout.describe(
        written.parent, audio='values = "hostile.npy"\noffsets = "all.npz#audio_offsets"\n'
    )
    assert expected in message(path)


def test_a_bomb_is_not_unpacked(written: Path) -> None:
    np.savez_compressed(written.parent / "bomb.npz", audio=np.zeros((10_000_000, 3), dtype=np.float32))
    path = layout.describe(
        written.parent, audio='values = "bomb.npz#audio"\noffsets = "all.npz#audio_offsets"\n'
    )
    assert "declares 120000128 bytes, more than a file of" in message(path)


def test_a_damaged_archive_is_noticed(written: Path) -> None:
    path = written.parent / "all.npz"
    content = bytearray(path.read_bytes())
    at = bytes(content).index(layout.truth()["audio"][0].tobytes())
    content[at + 2] ^= 16
    path.write_bytes(content)
    assert "array 'audio': cannot be unpacked, the file is damaged: Bad CRC-32" in message(written)


def test_rows_of_a_sample_lie_together(written: Path) -> None:
    table = (written.parent / "audio.csv").read_text()
    (written.parent / "audio.csv").write_text(table + "s0;9;1;1;1\n")
    path = layout.describe(written.parent, audio=layout.AUDIO["csv"])
    assert "the rows of id 's0' do not lie together; sort the table by id" in message(path)
    (written.parent / "audio.csv").write_text(table + "s9;9;1\n")
    assert "audio.csv, line 31: expected 5 cells, found 3" in message(path)
    (written.parent / "audio.csv").write_bytes(table.encode() + b"\xff;1;1;1;1\n")
    assert "audio.csv, line 31: expected text in UTF-8, found byte 0xff" in message(path)


def test_a_table_that_may_have_been_cut_off_is_told(written: Path) -> None:
    described = layout.describe(written.parent, audio=layout.AUDIO["csv"])
    assert convert("arrays", [described], written.parent / "whole").faults == ()
    table = written.parent / "audio.csv"
    table.write_bytes(table.read_bytes().removesuffix(b"\n"))
    done = convert("arrays", [described], written.parent / "out")
    assert done.faults == (
        ("last line without an end", "audio.csv", "kept; the file may have been cut off", 1),
    )


def test_tokens_of_a_table(written: Path) -> None:
    rows = [
        f"{identity},{token}"
        for identity, tokens in zip(layout.IDS, layout.truth()["text"], strict=True)
        for token in tokens
    ]
    (written.parent / "text.csv").write_text("id,token\n" + "\n".join(rows))
    check(
        corpus(
            layout.describe(
                written.parent, text='kind = "tokens"\nvocabulary_size = 50\ntable = "text.csv"\n'
            )
        )
    )


def test_an_empty_cell_is_a_missing_number(written: Path) -> None:
    table = (written.parent / "audio.csv").read_text().splitlines()
    cells = table[2].split(";")
    table[2] = ";".join([*cells[:3], "", cells[4]])
    (written.parent / "audio.csv").write_text("\n".join(table) + "\n")
    done = convert(
        "arrays", [layout.describe(written.parent, audio=layout.AUDIO["csv"])], written.parent / "out"
    )
    assert done.faults == (("not finite", "audio", "set to 0", 1),)
    assert done.corpus.split("train")[0].features["audio"][1, 1] == 0


@pytest.mark.parametrize("file", ["audio.parquet", "audio.csv", "audio/s1.npy"])
def test_files_cut_off_or_changed_give_one_line_or_a_corpus(written: Path, file: str) -> None:
    audio = {"audio.parquet": "parquet", "audio.csv": "csv", "audio/s1.npy": "files"}.get(file, "offsets")
    layout.describe(written.parent, audio=layout.AUDIO[audio])
    path = written.parent / file
    content = path.read_bytes()
    random = np.random.default_rng(0)
    changed = [content[: len(content) * tenth // 10] for tenth in range(10)]
    for _ in range(25):
        flipped = bytearray(content)
        flipped[random.integers(len(content))] ^= 1 << random.integers(8)
        changed.append(bytes(flipped))
    said = []
    for each in changed:
        path.write_bytes(each)
        try:
            convert("arrays", [written], written.parent / "out", overwrite=True)
        except DataError as error:
            said.append(str(error))
    assert len(said) >= 5
    assert not any("\n" in line for line in said)


@pytest.mark.parametrize("form", ["csv", "parquet", "float parquet", "npy", "text npy"])
def test_a_label_is_the_class_of_its_name_in_every_kind_of_file(written: Path, form: str) -> None:
    folder, labels = written.parent, [2, 1, 0, 2, 1, 0, 2]
    samples = layout.SAMPLES
    if form == "csv":
        rows = zip(layout.IDS, labels, layout.SPLITS, strict=True)
        (folder / "samples.csv").write_text(
            "id,label,split\n" + "\n".join(",".join(map(str, row)) for row in rows)
        )
    elif "parquet" in form:
        values = pa.array(labels, type=pa.float64() if "float" in form else pa.int32())
        parquet.write_table(
            pa.table({"id": list(layout.IDS), "label": values, "split": list(layout.SPLITS)}),
            folder / "samples.parquet",
        )
        samples = samples.replace(".csv", ".parquet")
    else:
        np.save(folder / "labels.npy", np.array(labels).astype("U" if "text" in form else np.int8))
        samples = samples.replace('label = "label"', 'labels = "labels.npy"')
    head = 'name = "made up"\n[task]\nkind = "classification"\nclasses = ["0", "2", "1"]\n'
    found = corpus(layout.describe(folder, head=head, samples=samples))
    named = [
        found.task.classes[int(sample.target or 0)] for split in found.splits.values() for sample in split
    ]
    assert named == [str(label) for label in labels]


@pytest.mark.parametrize(
    ("task", "expected"),
    [('kind = "regression"', [1.0, 0.0]), ('kind = "classification"\nclasses = ["no", "yes"]', [1, 0])],
)
def test_labels_that_are_true_or_false(written: Path, task: str, expected: list[float]) -> None:
    np.save(written.parent / "labels.npy", np.array([True, False] * 4)[:7])
    samples = layout.SAMPLES.replace('label = "label"', 'labels = "labels.npy"')
    found = corpus(
        layout.describe(written.parent, head=f'name = "made up"\n[task]\n{task}\n', samples=samples)
    )
    assert [sample.target for split in found.splits.values() for sample in split] == (expected * 4)[:7]


def test_a_word_for_nothing_is_no_empty_label_of_classes(written: Path) -> None:
    table = written.parent / "samples.csv"
    head = 'name = "made up"\n[task]\nkind = "classification"\nclasses = ["joy", "none"]\n'
    rows = ["joy", "none", "", "NaN", "joy", "none", "none"]
    table.write_text(
        "id,label,split\n"
        + "".join(f"{i},{label},{s}\n" for i, label, s in zip(layout.IDS, rows, layout.SPLITS, strict=True))
    )
    done = convert("arrays", [layout.describe(written.parent, head=head)], written.parent / "out")
    assert [int(sample.target or 0) for split in done.corpus.splits.values() for sample in split] == [
        0,
        1,
        0,
        1,
        1,
    ]
    assert ("not a number label", "train", "clip dropped", 2) in done.faults
    table.write_text(table.read_text().replace("none", "null"))
    with pytest.raises(
        DataError, match=r"sample 's1': expected one of \['joy', 'none'\] or its number, found 'null'"
    ):
        convert("arrays", [written], written.parent / "again")


def test_common_names_of_splits(written: Path) -> None:
    table = written.parent / "samples.csv"
    content = table.read_text()
    table.write_text(
        content.replace("train", "Training").replace("valid", "validation").replace("test", "testing")
    )
    assert {role: len(split) for role, split in corpus(written).splits.items()} == {
        "train": 4,
        "valid": 2,
        "test": 1,
    }
    shutil.rmtree(written.parent / "out")
    table.write_text(content.replace("s4,-3.0,valid", "s4,-3.0,val"))
    assert "splits: 'val' and 'valid' both name the valid split, expected one of them" in message(written)
    named = layout.describe(written.parent, samples=layout.SAMPLES + '[splits]\nvalid = ["val", "valid"]\n')
    assert {role: len(split) for role, split in corpus(named).splits.items()} == {
        "train": 4,
        "valid": 2,
        "test": 1,
    }


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ("samples" + ".a" * 40_000 + " = 1\n", "expected at most 65536 bytes of text"),
        ("samples" + ".a" * 3_000 + " = 1\n", "line 1: a key of more than 32 parts"),
        (
            "samples = " + "{a.b.c = " * 100 + "1" + "}" * 100 + "\n",
            "samples.a: unknown key",
        ),
        (
            "samples = {ids = 0x" + "f" * 5_000 + "}\n",
            "samples.ids: Input should be a valid string, found a number of more than 256 bits",
        ),
    ],
)
def test_descriptions_that_nest_or_do_not_end(written: Path, samples: str, expected: str) -> None:
    rest = 'name = "x"\n[modalities]\na = 1\n[task]\nkind = "regression"\n'
    written.write_text(samples + rest)
    assert expected in message(written)
    assert arrays.recognises(written) == expected.startswith("samples.")


@pytest.mark.parametrize("described", ["classification", "regression"])
def test_the_task_is_one_of_the_column_that_is_asked_for(written: Path, described: str) -> None:
    table = (written.parent / "samples.csv").read_text().splitlines()
    grades = [["poor", "fair", "good", ""][row % 4] for row in range(len(table) - 1)]
    added = [f"{line},{grades[row]},{row % 2 + 0.5}" for row, line in enumerate(table[1:])]
    (written.parent / "samples.csv").write_text("\n".join([table[0] + ",grade,warmth", *added]))
    own = {"classification": 'classes = ["no", "yes"]', "regression": "range = [-3, 3]"}[described]
    head = f'name = "made up"\n[task]\nkind = "{described}"\n{own}\n'
    path = layout.describe(written.parent, head=head)
    graded = corpus(path, label="grade")
    assert graded.task == Task(kind="classification", classes=("fair", "good", "poor"), labels=("grade",))
    assert [sample.target for sample in graded.split("train")] == [2, 0, 1]  # one has none
    ordered = led_by(graded, LeadingConfig(kind="ordinal", classes=("poor", "fair", "good")))
    assert [sample.target for sample in ordered.split("train")] == [0, 1, 2]
    warm = corpus(path, label="warmth")
    assert warm.task == Task(kind="regression", labels=("warmth",))
    assert [sample.target for sample in warm.split("train")] == [0.5, 1.5, 0.5, 1.5]


def test_one_word_alone_is_no_label(written: Path) -> None:
    table = (written.parent / "samples.csv").read_text().splitlines()
    (written.parent / "samples.csv").write_text(
        "\n".join([table[0] + ",word", *(f"{line},yes" for line in table[1:])])
    )
    with pytest.raises(DataError, match=r"column 'word': expected numbers or 2 to \d+ different words"):
        corpus(written, label="word")


@pytest.mark.parametrize("columns", ['columns = ["f", "happy"]', 'columns = ["*"]', ""])
def test_a_label_is_no_feature_of_the_same_table(columns: str, tmp_path: Path) -> None:
    rows = [f"{row},{row % 2},{row % 3},{row / 8}" for row in range(8)]
    (tmp_path / "clips.csv").write_text("\n".join(["id,label,happy,f", *rows]))
    path = tmp_path / "clips.toml"
    head = 'name = "clips"\n[task]\nkind = "regression"\n[samples]\ntable = "clips.csv"\nlabel = "label"\n'
    parts = '[splits]\ntrain = "*"\n[modalities.features]\ntable = "./clips.csv"\n'
    path.write_text(f"{head}{parts}{columns}\n")
    for labels in (["happy"], ["label", "happy"]):
        said = message(path, label=labels)
        assert "modalities.features: column " in said
        assert "is a label that is predicted, expected features without it, as by exclude = [" in said
    path.write_text(f'{head}{parts}exclude = ["happy", "label", "id"]\n')
    (sample, *_) = corpus(path, label="happy").split("train")
    assert sample.features["features"].shape == (1, 1)


def test_a_range_of_the_first_of_several_labels_is_kept_and_repaired(written: Path) -> None:
    table = (written.parent / "samples.csv").read_text().splitlines()
    rows = [line.replace("2.25", "3.5") for line in table[1:]]
    (written.parent / "samples.csv").write_text(
        "\n".join([table[0] + ",warmth", *(f"{line},{row - 2}" for row, line in enumerate(rows))])
    )
    several = ("label", "warmth")
    clipped = corpus(written, label=several, clip_labels=True)
    assert (clipped.task.label_range, clipped.task.is_sentiment) == ((-3.0, 3.0), True)
    assert [target.name for target in clipped.task.further] == ["warmth"]
    assert [sample.target for sample in clipped.split("train")] == [0.5, -1.0, 3.0, 3.0]
    shutil.rmtree(written.parent / "out")
    assert "3.5" in message(written, label=several)
    found = inspect_foreign(written, arrays.Options(label=several))
    assert "label out of range" in [fault[0] for fault in found.faults]
