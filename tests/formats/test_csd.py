"""Computational sequences: values, times, alignment, labels and splits, and files that are damaged or
hostile.
"""

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import layouts_csd as layout
import numpy as np
import pytest

from alignmamba.contracts import Sample
from alignmamba.errors import DataError
from alignmamba.formats.conversion import Conversion, convert
from alignmamba.formats.foreign_inspection import inspect_foreign
from alignmamba.formats.sequences import csd, hdf5_child
from alignmamba.formats.sequences import hdf5_process as hdf5
from alignmamba.recipes.assembly import located

LABELS = "Opinion Segment Labels"


def converted(sources: list[Path], **options: Any) -> Conversion:
    return convert("csd", sources, sources[0].parent / "out", csd.Options(**options), overwrite=True)


def message(sources: list[Path], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        converted(sources, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert not (sources[0].parent / "out").exists()
    return said


def samples(done: Conversion) -> dict[str, Sample]:
    return {sample.id: sample for split in done.corpus.splits.values() for sample in split}


@pytest.fixture
def written(tmp_path: Path) -> list[Path]:
    return layout.write_corpus(tmp_path)


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_every_value_time_and_label_is_read_exactly(tmp_path: Path, compression: str | None) -> None:
    done = converted(layout.write_corpus(tmp_path, compression=compression))
    truth = layout.corpus()
    assert {role: split.ids for role, split in done.corpus.splits.items()} == {
        "train": tuple(f"{video}[{row}]" for video in ("alpha", "beta") for row in range(3)),
        "valid": tuple(f"gamma[{row}]" for row in range(3)),
        "test": tuple(f"delta[{row}]" for row in range(3)),
    }
    assert [(spec.name, spec.dim) for spec in done.corpus.modalities] == [
        ("text", 6),
        ("audio", 5),
        ("vision", 3),
    ]
    assert done.corpus.task.label_range == (-3, 3)
    for identity, sample in samples(done).items():
        video, segment = identity[:-3], int(identity[-2])
        assert sample.target == truth[LABELS][video][0][segment, 0]
        start = 1.0 + 3.0 * segment
        cuts = {
            "text": ("glove_vectors", 4 * segment, 4, 0.5),
            "audio": ("COVAREP", round(start * 10), 20, 0.1),
        }
        if video != "delta":
            cuts["vision"] = ("FACET_4.1", round(start * 4), 8, 0.25)
        assert sample.features.keys() == cuts.keys()
        for name, (root, first, count, step) in cuts.items():
            np.testing.assert_array_equal(
                sample.features[name], truth[root][video][0][first : first + count].astype(np.float32)
            )
            np.testing.assert_allclose(sample.times[name], step * (np.arange(count) + 0.5), atol=1e-9)
        assert sample.tokens == {"text": tuple(f"{video}{4 * segment + word}" for word in range(4))}
    assert done.faults == ()


def test_a_frame_at_the_edge_is_cut_to_the_segment(tmp_path: Path, written: list[Path]) -> None:
    entries = layout.corpus()[LABELS]
    entries["alpha"] = (entries["alpha"][0][:1], np.array([[1.25, 1.7]]))
    layout.write_csd(tmp_path / "Opinion_Segment_Labels.csd", LABELS, entries)
    done = converted(written)
    sample = samples(done)["alpha[0]"]
    # Words lie at 1.0-1.5 and 1.5-2.0, frames of vision at 1.25-1.5 and 1.5-1.75.
    assert sample.tokens["text"] == ("alpha0", "alpha1")
    np.testing.assert_allclose(sample.times["text"], [(1.25 + 1.5) / 2 - 1.25, (1.5 + 1.7) / 2 - 1.25])
    np.testing.assert_allclose(sample.times["vision"], [0.125, 0.35])
    assert len(sample.features["audio"]) == 5


def test_frames_may_nest_and_touch(tmp_path: Path, written: list[Path]) -> None:
    early = [[0.1, 0.2], [0.2, 0.3], [0.3, 0.4], [0.4, 0.5]]
    intervals = np.array([[0, 10], *early, [0.5, 1 + 5e-6], [0.9, 1.2], [2.9, 3.5], [3 - 5e-6, 3.2]])
    features = np.arange(18.0).reshape(9, 2)
    for order in (np.arange(9), np.array([5, 7, 2, 6, 0, 8, 3, 1, 4])):
        entries = dict.fromkeys(layout.VIDEOS, (features[order], intervals[order]))
        layout.write_csd(tmp_path / "FACET_4.1.csd", "FACET_4.1", entries)
        # The segment is 1.0-3.0: two frames overlap it by less than ten microseconds.
        sample = samples(converted(written))["alpha[0]"]
        np.testing.assert_array_equal(sample.features["vision"], features[[6, 0, 7]])
        np.testing.assert_allclose(sample.times["vision"], [0.1, 1.0, 1.95])


def sdk_align(words: np.ndarray, features: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Word by word as the SDK does it: frames that overlap by more than its epsilon, averaged; zeros where
    there are none.
    """
    rows = []
    for start, end in words:
        frames = [
            frame
            for frame, (low, high) in zip(features, intervals, strict=True)
            if low - end < 1e-5 and start - high < 1e-5 and abs(min(high, end) - max(low, start)) > 1e-5
        ]
        rows.append(np.mean(frames, axis=0) if frames else np.zeros(features.shape[1]))
    return np.array(rows)


def test_alignment_is_the_mean_over_overlapping_frames(tmp_path: Path, written: list[Path]) -> None:
    random = np.random.default_rng(3)
    edges = np.cumsum(random.uniform(0.03, 0.3, size=61))
    intervals = np.stack([edges[:-1], edges[1:]], axis=1)[np.r_[0:20, 32:60]]
    features = random.normal(size=(len(intervals), 3))
    shuffled = random.permutation(len(intervals))
    entries = layout.corpus()["FACET_4.1"] | {"alpha": (features[shuffled], intervals[shuffled])}
    layout.write_csd(tmp_path / "FACET_4.1.csd", "FACET_4.1", entries)
    found = samples(converted(written, align=True))
    words = layout.corpus()["glove_vectors"]["alpha"][1]
    aligned = np.concatenate([found[f"alpha[{row}]"].features["vision"] for row in range(3)])
    expected = sdk_align(words, features, intervals)
    assert (expected == 0).all(axis=1).any()
    np.testing.assert_allclose(aligned, expected, atol=1e-6)
    for sample in found.values():
        assert {len(values) for values in sample.features.values()} == {4}
        for times in sample.times.values():
            np.testing.assert_array_equal(times, sample.times["text"])
    assert found["delta[0]"].features.keys() == {"text", "audio"}


def test_alignment_leaves_out_what_is_not_finite(tmp_path: Path, written: list[Path]) -> None:
    entries = layout.corpus()["COVAREP"]
    audio = entries["alpha"][0]
    audio[11, 2] = -np.inf
    layout.write_csd(tmp_path / "COVAREP.csd", "COVAREP", entries)
    done = converted(written, align=True)
    np.testing.assert_allclose(
        samples(done)["alpha[0]"].features["audio"][0, 2], audio[[10, 12, 13, 14], 2].mean(), rtol=1e-6
    )
    assert done.faults == (("not finite", "audio", "dropped from the mean over a word", 1),)
    with pytest.raises(DataError, match="found -inf at position 0, channel 2"):
        convert("csd", written, tmp_path / "other", csd.Options(align=True, nonfinite="error"))


def aligned_files(folder: Path) -> list[Path]:
    """Layout of a data set that the SDK aligned to words, then to labels: every entry is a segment."""
    truth = layout.corpus()
    roots: dict[str, dict[str, Any]] = {root: {} for root in truth}
    for video in layout.VIDEOS:
        for row in range(11 if video == "alpha" else 2):
            at = slice(row % 3 * 4, row % 3 * 4 + 4)
            roots["glove_vectors"][f"{video}[{row}]"] = (
                truth["glove_vectors"][video][0][at] + row,
                truth["glove_vectors"][video][1][at],
            )
            if video != "beta" or row == 0:
                roots["COVAREP"][f"{video}[{row}]"] = (
                    truth["COVAREP"][video][0][at] + row,
                    truth["glove_vectors"][video][1][at],
                )
            interval = truth["glove_vectors"][video][1][at]
            roots[LABELS][f"{video}[{row}]"] = (
                np.array([[row / 4.0]]),
                np.array([[interval[0, 0], interval[-1, 1]]]),
            )
    layout.write_folds(folder)
    return [
        layout.write_csd(folder / f"{root}.csd", root, roots[root])
        for root in ("glove_vectors", "COVAREP", LABELS)
    ]


def test_files_that_are_aligned_already_are_taken_entry_by_entry(tmp_path: Path) -> None:
    done = converted(aligned_files(tmp_path))
    assert done.corpus.split("train").ids == (*(f"alpha[{row}]" for row in range(11)), "beta[0]", "beta[1]")
    found = samples(done)
    truth = layout.corpus()
    np.testing.assert_array_equal(
        found["alpha[10]"].features["text"], (truth["glove_vectors"]["alpha"][0][4:8] + 10).astype(np.float32)
    )
    np.testing.assert_array_equal(
        found["alpha[10]"].features["audio"], truth["COVAREP"]["alpha"][0][4:8] + np.float32(10)
    )
    np.testing.assert_allclose(found["alpha[10]"].times["text"], [0.25, 0.75, 1.25, 1.75])
    assert found["alpha[10]"].target == 2.5
    assert found["beta[1]"].features.keys() == {"text"}
    assert done.faults == ()


def test_a_single_frame_may_come_without_its_axis(tmp_path: Path) -> None:
    files = aligned_files(tmp_path)
    with h5py.File(files[2], "a") as file:
        data = file[LABELS]["data"]
        for name in data:
            value, interval = data[name]["features"][0], data[name]["intervals"][0]
            del data[name]["features"], data[name]["intervals"]
            data[name]["features"], data[name]["intervals"] = value, interval
    assert samples(converted(files))["alpha[10]"].target == 2.5


def test_without_labels_the_entries_of_the_text_are_the_samples(tmp_path: Path) -> None:
    done = converted(layout.write_corpus(tmp_path, without=(LABELS, "words")))
    assert done.corpus.split("train").ids == ("alpha", "beta")
    sample = done.corpus.split("train")[0]
    assert sample.target is None
    assert {name: len(values) for name, values in sample.features.items()} == {
        "text": 12,
        "audio": 100,
        "vision": 40,
    }
    np.testing.assert_allclose(sample.times["text"][:2], [0.25, 0.75])
    assert "unlabelled: there is no file of labels" in done.notes


@pytest.mark.parametrize(
    ("metadata", "label", "column", "known_range"),
    [
        ({}, "", 0, (-3.0, 3.0)),
        ({}, "happy", 1, None),
        ({}, "fear", 6, None),
        ({"dimension names": list("abcdefg")}, "c", 2, None),
    ],
)
def test_a_column_of_the_labels(
    tmp_path: Path,
    written: list[Path],
    metadata: dict[str, Any],
    label: str,
    column: int,
    known_range: tuple[float, float] | None,
) -> None:
    written[-1].unlink()
    values = np.random.default_rng(1).uniform(0, 3, size=(3, 7))
    entries = {video: (values, intervals) for video, (_, intervals) in layout.corpus()[LABELS].items()}
    written[-1] = layout.write_csd(tmp_path / "labels.csd", "All Labels", entries, metadata=metadata)
    found = converted(written, label=label)
    assert found.corpus.task.label_range == (known_range if not metadata else None)
    assert [sample.target for sample in found.corpus.split("valid")] == values[:, column].tolist()
    for sample, row in zip(found.corpus.split("valid"), values, strict=True):
        assert list(sample.labels.values()) == [value for at, value in enumerate(row) if at != column]
        assert ("happy" in sample.labels) == (not metadata and label != "happy")
        assert sample.group == "gamma"
    for unknown in ("angry", "6"):
        with pytest.raises(DataError, match=rf"label '{unknown}': expected one of \['[^0-9]*'\]$"):
            converted(written, label=unknown)


def test_labels_that_are_wrong_are_counted_or_refused(written: list[Path]) -> None:
    entries = layout.corpus()[LABELS]
    entries["alpha"][0][:, 0] = [np.nan, 3.5, 1]
    entries["beta"][1][0] = [4, 4]
    entries["beta"][1][1] = [np.nan, 4]
    layout.write_csd(written[-1], LABELS, entries)
    assert "'alpha[1]': target 3.5, expected a number from -3.0 to 3.0" in message(written)
    done = converted(written, clip_labels=True)
    assert done.corpus.split("train").ids == ("alpha[1]", "alpha[2]", "beta[2]")
    assert done.corpus.split("train")[0].target == 3
    assert {row[0]: row[3] for row in done.faults} == {
        "zero length": 1,
        "not finite": 1,
        "not a number label": 1,
        "label out of range": 1,
    }


def test_a_segment_with_nothing_in_it_is_left_out_and_counted(written: list[Path]) -> None:
    entries = layout.corpus()[LABELS]
    entries["alpha"][1][1] = [500, 501]
    layout.write_csd(written[-1], LABELS, entries)
    done = converted(written)
    assert "alpha[1]" not in done.corpus.split("train").ids
    assert ("sample without anything", "train", "dropped", 1) in done.faults
    assert ("zero length", "audio", "taken as missing", 1) in done.faults


def test_intervals_that_are_not_finite_lose_their_frame(tmp_path: Path, written: list[Path]) -> None:
    entries = layout.corpus()["COVAREP"]
    entries["alpha"][1][12, 1] = np.nan
    layout.write_csd(tmp_path / "COVAREP.csd", "COVAREP", entries)
    done = converted(written)
    assert done.faults == (("not finite", "intervals of audio", "frame dropped", 1),)
    kept = np.r_[10:12, 13:30]
    np.testing.assert_array_equal(samples(done)["alpha[0]"].features["audio"], entries["alpha"][0][kept])


def test_splits_of_the_folds(tmp_path: Path, written: list[Path]) -> None:
    (tmp_path / "folds.json").unlink()
    assert (
        f"{tmp_path}: nothing says which id is in which split: give folds (--folds FILE), a JSON or TOML file"
        in message(written)
    )
    folds = tmp_path / "other.toml"
    folds.write_text('train = ["alpha[2]", "beta"]\nvalid = ["gamma", "omega"]\n')
    done = converted(written, folds=folds)
    assert done.corpus.split("train").ids == ("alpha[2]", "beta[0]", "beta[1]", "beta[2]")
    assert (
        "5 segments of 2 videos are in no split and were dropped, 'alpha' first. There is no test split left."
        in done.notes
    )
    assert any("1 ids of" in note and "'omega' first" in note for note in done.notes)
    folds.write_text('train = ["alpha[0]", "alpha[1]", "alpha[2]", "beta"]\nvalid = ["alpha"]\n')
    assert not any("'alpha' first" in note for note in converted(written, folds=folds).notes), (
        "it is in the files"
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"train": ["alpha"], "valid": ["alpha"]}', "id 'alpha' is in 'train' and in 'valid'"),
        ('{"train": "alpha"}', "train: expected a list of ids, found 'alpha'"),
        ('{"train": [3]}', "train: expected ids as text, found 3"),
        ('{"tset": ["alpha"]}', "found ['tset']"),
        ('{"dev": ["alpha"], "val": ["beta"]}', "'dev' and 'val' both name the valid split"),
        ("[1]", "found list"),
        ("{", "folds.json: not valid JSON"),
        ('{"train": ["alpha"], "train": ["beta"]}', "the key 'train' appears twice"),
        ("[" * 100_000, "folds.json: not valid JSON"),
        ('{"train": ["omega"]}', "found no sample"),
        ("\udcff", "folds.json: not valid JSON"),
    ],
)
def test_wrong_folds_are_refused(tmp_path: Path, written: list[Path], content: str, expected: str) -> None:
    (tmp_path / "folds.json").write_bytes(content.encode(errors="surrogateescape"))
    assert expected in message(written)


def test_which_file_is_what(tmp_path: Path) -> None:
    truth = layout.corpus()
    one = layout.write_csd(tmp_path / "one.csd", "unheard of", truth["glove_vectors"])
    two = layout.write_csd(tmp_path / "two.csd", "4 joints", truth["FACET_4.1"])
    three = layout.write_csd(tmp_path / "three.csd", "scores", truth[LABELS])
    layout.write_folds(tmp_path)

    def names(*sources: Path | str) -> list[str]:
        return list(csd.read([Path(source) for source in sources], csd.Options()).splits["train"].features)

    assert names(one, two, three) == ["text", "s4_joints"]
    assert names(f"text={two}", one, three) == ["text", "unheard_of"]
    assert names(f"sound={two}", f"labels={three}", one) == ["sound", "unheard_of"]
    four = layout.write_csd(tmp_path / "four.csd", "OpenFace_2", truth["FACET_4.1"])
    five = layout.write_csd(tmp_path / "five.csd", "FACET_4.2", truth["FACET_4.1"])
    with pytest.raises(
        DataError,
        match=(
            r"five\.csd: is taken for 'vision', as .*four\.csd is; name one of them, for example"
            r" OTHER=five\.csd"
        ),
    ):
        names(one, four, five)
    with pytest.raises(DataError, match="expected a sequence besides labels and words"):
        names(f"labels={three}")
    assert csd.files(tmp_path / "one.csd") == [one, tmp_path / "folds.json"]


def test_a_folder_is_all_its_files_and_is_recognised(tmp_path: Path, written: list[Path]) -> None:
    assert len(converted([tmp_path]).corpus.splits) == 3
    assert csd.recognises(tmp_path)
    assert csd.recognises(written[0])
    assert csd.recognises(Path(f"text={written[0]}"))
    assert not csd.recognises(tmp_path / "folds.json")
    assert not csd.recognises(tmp_path / "absent")
    assert not csd.recognises(tmp_path / "out")
    assert len(csd.files(tmp_path)) == 6


def test_labels_alone_ask_for_the_folder(written: list[Path]) -> None:
    labels = next(path for path in written if "label" in path.name.lower())
    assert "found none; give the folder with all files of the corpus" in message([labels])


def test_entries_that_do_not_fit_are_refused(tmp_path: Path, written: list[Path]) -> None:
    def with_entry(features: np.ndarray, intervals: np.ndarray) -> list[Path]:
        entries = layout.corpus()["COVAREP"] | {"beta": (features, intervals)}
        layout.write_csd(tmp_path / "COVAREP.csd", "COVAREP", entries)
        return written

    assert "COVAREP.csd: entry 'beta': expected width 5 as in 'alpha', found 4" in message(
        with_entry(np.zeros((3, 4)), np.zeros((3, 2)))
    )
    assert (
        "entry 'beta': expected features (n, width) and intervals (n, 2), found (3, 5) and (2, 2)"
        in message(with_entry(np.zeros((3, 5)), np.zeros((2, 2))))
    )
    assert "found (3, 5) and (3, 3)" in message(with_entry(np.zeros((3, 5)), np.zeros((3, 3))))
    assert "expected numbers, found |S3" in message(
        with_entry(np.array([["abc"] * 5] * 3, dtype="S3"), np.zeros((3, 2)))
    )
    assert "beta/features: expected shape (time, width), found (3, 5, 1)" in message(
        with_entry(np.zeros((3, 5, 1)), np.zeros((3, 2)))
    )
    assert "dims" in message(with_entry(np.zeros((3, 5)), np.zeros((3, 2))), dims={"audio": 4})


# Hostile files


def make_external_link(entry: Any) -> None:
    secret = Path(entry.file.filename).with_name("secret.h5")
    with h5py.File(secret, "w") as other:
        other["features"] = np.zeros((4, 5))
    del entry["features"]
    entry["features"] = h5py.ExternalLink(str(secret), "/features")


def make_soft_link(entry: Any) -> None:
    del entry["features"]
    entry["features"] = h5py.SoftLink("/COVAREP/data/alpha/features")


def make_virtual(entry: Any) -> None:
    secret = Path(entry.file.filename).with_name("secret.h5")
    with h5py.File(secret, "w") as other:
        other["features"] = np.zeros((100, 5))
    virtual = h5py.VirtualLayout(shape=(100, 5), dtype="f8")
    virtual[:] = h5py.VirtualSource(secret, "features", shape=(100, 5))
    del entry["features"]
    entry.create_virtual_dataset("features", virtual)


def make_external_storage(entry: Any) -> None:
    secret = Path(entry.file.filename).with_name("secret.bin")
    secret.write_bytes(bytes(4000))
    del entry["features"]
    entry.create_dataset("features", shape=(100, 5), dtype="f8", external=[(secret, 0, 4000)])


def make_group(entry: Any) -> None:
    del entry["features"]
    entry.create_group("features")


def replaced(**options: Any) -> Callable[[Any], None]:
    def make(entry: Any) -> None:
        del entry["features"]
        entry.create_dataset("features", **options)

    return make


def make_many_names(entry: Any) -> None:
    """Each name takes the bytes of a link; the values are there once."""
    data = entry.parent
    entry.create_dataset(
        "much",
        data=np.random.default_rng(0).integers(0, 2, size=(20_000, 5)).astype("f8"),
        compression="gzip",
    )
    intervals = entry.create_dataset("many", data=np.zeros((20_000, 2)), compression="gzip")
    for number in range(400):
        group = data.create_group(f"copy{number}")
        group["features"], group["intervals"] = entry["much"], intervals


def make_loop(entry: Any) -> None:
    entry.parent["again"] = entry.parent


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "external link": (
        make_external_link,
        "data/beta/features: a ExternalLink, which may lead out of the file, is not followed",
    ),
    "soft link": (
        make_soft_link,
        "data/beta/features: a SoftLink, which may lead out of the file, is not followed",
    ),
    "virtual": (make_virtual, "data/beta/features: its values lie in another file, which is not opened"),
    "external storage": (
        make_external_storage,
        "data/beta/features: its values lie in another file, which is not opened",
    ),
    "group": (make_group, "data/beta/features: expected a dataset, found another object"),
    "missing": (
        lambda entry: entry.__delitem__("features"),
        "data/beta: expected 'features', found ['intervals']",
    ),
    "loop": (make_loop, "data/again: expected 'features', found ['again'"),
    "bomb": (
        replaced(data=np.zeros((4_000_000, 5)), compression="gzip", compression_opts=9),
        "more than the file can hold",
    ),
    "never written": (
        replaced(shape=(100, 5), dtype="f8"),
        "declares 4000 bytes, more than the file can hold",
    ),
    "never written, huge": (
        replaced(shape=(1 << 40, 5), dtype="f8"),
        "declares 43980465111040 bytes, more than the file can hold",
    ),
    "never written in chunks": (
        replaced(shape=(1 << 50, 5), dtype="f8", chunks=(1000, 5)),
        "more than the file can hold",
    ),
    "large chunks": (
        replaced(shape=(10, 5), maxshape=(None, 5), dtype="f8", chunks=(1 << 21, 5)),
        "are larger than 67108864 bytes",
    ),
    "many names": (make_many_names, "more than the file can hold"),
    "filter": (
        replaced(data=np.zeros((100, 5), dtype="i4"), chunks=(10, 5), scaleoffset=4),
        "compressed by filter 6, expected one of ['gzip'",
    ),
    "text of any length": (
        replaced(data=["a"] * 100, dtype=h5py.string_dtype()),
        "found text of variable length or references",
    ),
    "references": (
        replaced(shape=(100, 5), dtype=h5py.ref_dtype),
        "found text of variable length or references",
    ),
    "structure": (replaced(shape=(100, 5), dtype=[("a", "f4")]), "expected numbers, found [('a', '<f4')]"),
    "wide words": (replaced(data=np.array([["a"] * 5] * 100, dtype="S500")), "expected numbers, found |S500"),
    "no axes": (replaced(data=3.0), "expected shape (time, width), found ()"),
    "empty": (replaced(dtype="f8"), "expected shape (time, width), found None"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused(written: list[Path], case: str) -> None:
    make, expected = HOSTILE[case]
    with h5py.File(written[2], "a") as file:
        make(file["COVAREP"]["data"]["beta"])
    said = message(written)
    assert said.startswith(f"{written[2]}: ")
    assert expected in said


def test_links_above_the_entries_are_not_followed(written: list[Path]) -> None:
    with h5py.File(written[2], "a") as file:
        file.move("COVAREP/data/beta", "COVAREP/beta")
        file["COVAREP/data/beta"] = h5py.SoftLink("/COVAREP/beta")
    assert "data/beta: a SoftLink" in message(written)
    with h5py.File(written[2], "a") as file:
        file.move("COVAREP/data", "COVAREP/other")
        file["COVAREP/data"] = h5py.SoftLink("/COVAREP/other")
    assert "COVAREP/data: a SoftLink" in message(written)
    with h5py.File(written[2], "a") as file:
        file.move("COVAREP", "other")
        file["COVAREP"] = h5py.ExternalLink("elsewhere.h5", "/")
        del file["other"]
    assert "expected one group that holds a group 'data', found 0 among ['COVAREP']" in message(written)


def test_segments_may_not_multiply_the_frames(tmp_path: Path) -> None:
    count = 20_000
    steady = layout.frames(0, 5000, 0.01)
    entries = {"alpha": (np.random.default_rng(0).normal(size=(5000, 2)), steady)}
    labels = {
        "alpha": (
            np.random.default_rng(0).uniform(-1, 1, size=(count, 1)),
            np.tile([[0.0, 50.0]], (count, 1)),
        )
    }
    layout.write_folds(tmp_path, train=["alpha"])
    files = [
        layout.write_csd(tmp_path / "a.csd", "glove", entries),
        layout.write_csd(tmp_path / "b.csd", "labels", labels, compression=None),
    ]
    assert "segments overlap too much: found each frame in more than 20 of them" in message(files)


def test_metadata_describes_and_cannot_harm(tmp_path: Path, written: list[Path]) -> None:
    told = {"dataset name": "CMU-MOSI\nsecond", "computational sequence description": "x" * 10_000}
    layout.write_csd(written[0], "glove_vectors", layout.corpus()["glove_vectors"], metadata=told)
    corpus = converted(written).corpus
    assert corpus.name == "CMU-MOSI second"
    assert corpus.modalities[0].units == "x" * 200
    layout.write_csd(
        written[0], "glove_vectors", layout.corpus()["glove_vectors"], metadata={"dataset name": {"a": [1]}}
    )
    assert converted(written).corpus.name == tmp_path.name
    with h5py.File(written[0], "a") as file:
        file["glove_vectors/metadata/dataset name"][0] = "[" * 100_000
        file["glove_vectors/metadata/md5"][0] = "{"
        file.move("glove_vectors/metadata/md5", "glove_vectors/metadata/dataset version")
    assert converted(written).corpus.name == tmp_path.name


# The process that reads


def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    script = tmp_path / "child.py"
    script.write_text(code)
    monkeypatch.setattr(hdf5, "_CHILD", script)


def test_a_child_that_crashes_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: list[Path]
) -> None:
    child(
        monkeypatch,
        tmp_path,
        "import os, signal, sys\nsys.stdin.readline()\nos.kill(os.getpid(), signal.SIGSEGV)\n",
    )
    assert message(written).endswith(
        "glove_vectors.csd: the file is damaged: the process that reads it ended with code -11"
    )


def test_a_child_that_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: list[Path]
) -> None:
    child(monkeypatch, tmp_path, "import time\ntime.sleep(600)\n")
    monkeypatch.setattr(hdf5, "SECONDS", 0.3)
    assert "the process that reads it took longer than 0 s" in message(written)


@pytest.mark.parametrize(
    "said",
    ['{"bytes": 999999999999}', '{"bytes": -1}', '{"bytes": 10}', "{}", "[1]", "nonsense", "[" * 50_000],
)
def test_a_child_that_lies_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: list[Path], said: str
) -> None:
    child(
        monkeypatch,
        tmp_path,
        f"import sys\nsys.stdin.readline()\nprint('{said}' if len('{said}') < 99 else '[' * 50_000)\n",
    )
    assert "the file is damaged: the process that reads it" in message(written)


def test_the_child_may_take_only_so_much_memory() -> None:
    folder = str(Path(hdf5_child.__file__).parent)
    code = (
        f"import sys; sys.path.insert(0, {folder!r}); import hdf5_child as c; c._limit_memory(1 << 28);"
        " bytearray(1 << 30)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr


def test_no_process_is_left_behind(written: list[Path]) -> None:
    process = hdf5.HDF5Process()
    process.open(written[0])
    running = process._process
    assert running.poll() is None
    del process
    assert running.wait(timeout=120) == -9


def test_an_interrupt_ends_the_process(written: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer would be taken for that to the next request."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    process = hdf5.HDF5Process()
    monkeypatch.setattr(process._waiter, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.open(written[0])
    assert process._process.poll() == -9


def test_the_process_ends_with_what_was_read(written: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No circle of references keeps it until they are collected."""
    started: list[Any] = []
    monkeypatch.setattr(csd, "HDF5Process", lambda: started.append(hdf5.HDF5Process()) or started[-1])
    gc.disable()
    try:
        found = csd.read(written, csd.Options())
        assert len(found.splits["train"].features["audio"][0]) == 20
        child = started.pop()._process
        del found
        assert child.poll() == -9
    finally:
        gc.enable()


def test_a_sample_is_read_when_it_is_asked_for(written: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    rows = hdf5.HDF5Process.rows

    def noted(self: hdf5.HDF5Process, array: hdf5.HDF5Array, *at: Any) -> np.ndarray:
        asked.append((array.path.stem, array.name.rpartition("/")[2]))
        return rows(self, array, *at)

    monkeypatch.setattr(hdf5.HDF5Process, "rows", noted)
    found = csd.read(written, csd.Options()).splits["train"]
    assert {stem for stem, _ in asked} == {"Opinion_Segment_Labels"}
    asked.clear()
    assert found.features["audio"][1].shape == (20, 5)
    assert asked == [("COVAREP", "intervals"), ("COVAREP", "features")]
    assert found.times["audio"][1].shape == (20,)
    assert found.features["audio"][2].shape == (20, 5)
    assert asked == [("COVAREP", "intervals"), ("COVAREP", "features"), ("COVAREP", "features")]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.csd").write_text("no HDF5")
    assert "text.csd: cannot be read, the file is damaged" in message([tmp_path / "text.csd"])
    (tmp_path / "empty").mkdir()
    assert "empty: expected .csd files in the folder, found none" in message([tmp_path / "empty"])
    with h5py.File(tmp_path / "other.csd", "w") as file:
        file["values"] = np.zeros(3)
    assert "other.csd: expected one group that holds a group 'data', found 0 among ['values']" in message(
        [tmp_path / "other.csd"]
    )


@pytest.mark.usefixtures("written")
def test_folds_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are an option of inspecting as well; training, which has none, tells the command."""
    monkeypatch.setenv("ALIGNMAMBA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "elsewhere").mkdir()
    folds = (tmp_path / "folds.json").rename(tmp_path / "elsewhere" / "ours.json")
    with pytest.raises(DataError, match=r"give folds \(--folds FILE\)"):
        inspect_foreign(tmp_path)
    assert inspect_foreign(tmp_path, csd.Options(folds=folds)).splits
    with pytest.raises(
        DataError, match=r"`alignmamba convert auto .* CORPUS --folds FILE`, and then CORPUS as the data$"
    ):
        located(str(tmp_path), "error")
