"""A corpus as an MMSA pickle: read back it is the same corpus, and MMSA itself trains on it."""

import importlib.util
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import SCORE

from alignmamba.contracts import Corpus, Task
from alignmamba.data.archive import write_corpus
from alignmamba.errors import DataError
from alignmamba.formats.conversion import convert
from alignmamba.formats.exporting.mmsa_export import export_mmsa
from alignmamba.formats.pickles import mmsa_pickle as mmsa

MMSA_PYTHON = "ALIGNMAMBA_MMSA_PYTHON"
"""A variable that names a Python that can import MMSA 2.2.1; where it is not set, this one is tried."""

FRAMED = {"text": ("[CLS]", "oh", "nö", "[SEP]")}


def corpus_of(
    path: Path, *, kind: str = "features", missing: bool = True, sizes: dict[str, int] | None = None
) -> Corpus:
    """Clips of all lengths; some end in silence, and in some a modality is missing."""
    random = np.random.default_rng(0)
    splits: dict[str, Any] = {}
    for role, size in (sizes or {"train": 7, "valid": 3, "test": 4}).items():
        features: dict[str, list[Any]] = {"vision": [], "text": [], "audio": [], "other": []}
        tokens: list[Any] = []
        for row in range(size):
            time = [int(each) for each in random.integers(2, 7, 3)]
            vision, audio = random.normal(size=(time[1], 2)), random.normal(size=(time[2], 3))
            vision[-1] = audio[0] = 0
            text: Any = random.normal(size=(4, 5)) if kind == "features" else random.integers(0, 50, 4)
            if kind == "features" and row % 3 == 0:
                text[-1] = 0
            tokens.append([FRAMED["text"], ("a", "b", "c", "d"), None][row % 3])
            if missing and row == 1:
                vision = None  # type: ignore[assignment]
            if missing and row == 2:
                text = None
            for name, values in (
                ("vision", vision),
                ("text", text),
                ("audio", audio),
                ("other", np.ones((1, 1))),
            ):
                features[name].append(values)
        splits[role] = {
            "features": features,
            "ids": [f"{role}ü$_${row}" for row in range(size)],
            "targets": np.linspace(-3, 3, size).tolist(),
            "tokens": {
                "text": [None if features["text"][row] is None else tokens[row] for row in range(size)]
            },
        }
    return write_corpus(path, splits, task=SCORE)


def assert_same(found: Corpus, expected: Corpus, names: dict[str, str]) -> None:
    assert list(found.splits) == list(expected.splits)
    assert found.task == expected.task
    specs = {spec.name: spec for spec in expected.modalities}
    for spec in found.modalities:
        before = specs[names[spec.name]]
        assert (spec.kind, spec.width) == (before.kind, before.width)
    for role, split in expected.splits.items():
        again = found.split(role)
        assert list(again.ids) == list(split.ids)
        for one, other in zip(again, split, strict=True):
            assert one.target == other.target
            assert one.features.keys() == {name for name in names if names[name] in other.features}
            for name, values in one.features.items():
                np.testing.assert_array_equal(values, other.features[names[name]])
            assert one.tokens.get("text") == other.tokens.get(names["text"])
            assert (one.text, one.labels) == (other.text, other.labels)


@pytest.mark.parametrize("kind", ["features", "tokens"])
def test_read_back_it_is_the_same(tmp_path: Path, kind: str) -> None:
    corpus = corpus_of(tmp_path / "corpus", kind=kind)
    done = export_mmsa(corpus, tmp_path / "folder" / "out.pkl")
    assert done.samples == {"train": 7, "valid": 3, "test": 4}
    assert done.notes[0] == "modalities dropped: other"
    again = convert("auto", [tmp_path / "folder" / "out.pkl"], tmp_path / "again")
    assert_same(again.corpus, corpus, {"text": "text", "audio": "audio", "vision": "vision"})
    assert {kind for kind, *_ in again.faults} == {"zero length", "content shorter than declared"}
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["out.pkl"]


@pytest.mark.parametrize("text", ["features", "ids"])
def test_convert_export_convert_gives_the_same_archive(tmp_path: Path, text: Any) -> None:
    corpus = corpus_of(tmp_path / "corpus")
    export_mmsa(corpus, tmp_path / "a.pkl")
    options = mmsa.Options(text=text)
    if text == "ids":  # the file has none but the padding's
        content = pickle.loads((tmp_path / "a.pkl").read_bytes())
        for split in (content[role] for role in corpus.splits):
            split["text_bert"][:, 0] = np.arange(4) * split["text_bert"][:, 1]
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    once = convert("mmsa", [tmp_path / "a.pkl"], tmp_path / "once", options).corpus
    export_mmsa(once, tmp_path / "b.pkl")
    twice = convert("mmsa", [tmp_path / "b.pkl"], tmp_path / "twice").corpus
    assert twice.checksum == once.checksum


def test_python_reads_what_the_layout_says(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus")
    export_mmsa(
        corpus, tmp_path / "out.pkl", modalities={"text": "text", "audio": "vision", "vision": "audio"}
    )
    content = pickle.loads((tmp_path / "out.pkl").read_bytes())
    assert list(content) == ["train", "valid", "test", "alignmamba"]
    assert content["alignmamba"] == {
        "label_range": [-3.0, 3.0],
        "sentiment": None,
        "classes": [],
        "units": {},
        "vocabulary_size": None,
        "derived": {role: ["raw_text", "annotations", "classification_labels"] for role in corpus.splits},
        "tokens": {},
        "labels": {},
        "ungrouped": list(corpus.splits),
    }
    train = content["train"]
    split = corpus.split("train")
    assert {
        name: (value.dtype.str, value.shape) for name, value in train.items() if isinstance(value, np.ndarray)
    } == {
        "text": ("<f4", (7, 4, 5)),
        "text_bert": ("<i8", (7, 3, 4)),
        "audio": (
            "<f4",
            (
                7,
                max(
                    split.lengths["vision"].max(),
                    *(corpus.split(role).lengths["vision"].max() for role in ("valid", "test")),
                ),
                2,
            ),
        ),
        "vision": (
            "<f4",
            (
                7,
                max(
                    split.lengths["audio"].max(),
                    *(corpus.split(role).lengths["audio"].max() for role in ("valid", "test")),
                ),
                3,
            ),
        ),
        "audio_lengths": ("<i8", (7,)),
        "vision_lengths": ("<i8", (7,)),
        "classification_labels": ("<i8", (7,)),
        "regression_labels": ("<f8", (7,)),
    }
    assert train["id"] == list(split.ids)
    assert train["raw_text"][:3] == ["oh nö", "a b c d", ""]
    assert train["annotations"] == ["Negative"] * 3 + ["Neutral"] + ["Positive"] * 3
    assert train["classification_labels"].tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert train["text_bert"][:, 1].sum(1).tolist() == split.lengths["text"].tolist()
    for row, sample in enumerate(split):
        length = train["audio_lengths"][row]
        assert length == split.lengths["vision"][row]
        np.testing.assert_array_equal(
            train["audio"][row, :length], sample.features.get("vision", np.zeros((0, 2)))
        )
        assert not train["audio"][row, length:].any()


def test_what_is_refused(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus")
    out = tmp_path / "out.pkl"
    for modalities, said in (
        (
            {"text": "words"},
            (
                "no modality 'words' to write as 'text'; choose one of \\['vision', 'text', 'audio',"
                " 'other'\\]"
            ),
        ),
        ({"video": "vision"}, "expected text, audio, vision, found 'video'"),
    ):
        with pytest.raises(DataError, match=said):
            export_mmsa(corpus, out, modalities=modalities)
    tokens = corpus_of(tmp_path / "tokens", kind="tokens")
    with pytest.raises(DataError, match="modality 'text': expected features for audio"):
        export_mmsa(tokens, out, modalities={"audio": "text"})
    features = {name: [np.ones((1, 1))] for name in ("text", "audio", "vision")}
    unlabelled = write_corpus(
        tmp_path / "unlabelled", {"train": {"features": features}}, task=Task(kind="regression")
    )
    with pytest.raises(DataError, match="'train-000001': has no target"):
        export_mmsa(unlabelled, out)
    assert not out.exists(), "nothing half-written"
    out.write_bytes(b"all of it")
    with pytest.raises(
        DataError, match=r"out\.pkl: exists already; overwrite=True \(--overwrite\) replaces a file"
    ):
        export_mmsa(corpus, out)
    with pytest.raises(DataError, match="has no target"):
        export_mmsa(unlabelled, out, overwrite=True)
    assert out.read_bytes() == b"all of it"
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(DataError, match=f"{path}: expected a file to replace"):
            export_mmsa(corpus, path, overwrite=True)
    export_mmsa(corpus, out, overwrite=True)
    assert out.stat().st_size > 1000
    assert not list(tmp_path.glob(".*"))


def labelled_mmsa(path: Path, targets: Sequence[float], **fields: Sequence[Any]) -> Path:
    """A file of MMSA with these labels."""
    random = np.random.default_rng(1)
    size = len(targets)
    split: dict[str, Any] = {name: random.normal(size=(size, 4, 3)) for name in ("text", "audio", "vision")}
    split |= {
        "id": [f"v{row // 2}$_${row}" for row in range(size)],
        "regression_labels": list(targets),
        **fields,
    }
    path.write_bytes(pickle.dumps({"train": split, "test": split}))
    return path


FACTS = {
    "raw_text": ["So  it   goes .", "nö", "", "a b c d"],
    "regression_labels_T": [0.5, None, -1.0, 2.0],
    "regression_labels_A": [None, None, None, None],
    "annotations": ["Weak", "Negative", "", "Weak"],
    "classification_labels": [1, 0, 2, 1],
}
TASKS = {
    "small scores of a wide range": Task(kind="regression", label_range=(-3.0, 3.0)),
    "sentiment": Task(kind="regression", label_range=(-1.0, 1.0), sentiment=True),
    "no sentiment": Task(kind="regression", label_range=(-3.0, 3.0), sentiment=False),
    "another range": Task(kind="regression", label_range=(0.0, 10.0)),
    "no range": Task(kind="regression"),
    "classes": Task(kind="classification", classes=("c", "a", "b", "never")),
}


@pytest.mark.parametrize("text", ["features", "tokens"])
@pytest.mark.parametrize("name", TASKS)
def test_the_task_survives(tmp_path: Path, name: str, text: str) -> None:
    """And all that MMSA's layout has no place for, but for times and groups."""
    task = TASKS[name]
    random = np.random.default_rng(0)
    words: Any = [random.normal(size=(3, 2)) if text == "features" else np.array([1, 2, 3]) for _ in range(6)]
    arrays = {
        "features": {
            "text": words,
            **{name: [random.normal(size=(2, 3))] * 6 for name in ("audio", "vision")},
        },
        "targets": [0, 1, 2, 0, 1, 2] if task.classes else [0.0, 0.25, 0.5, 1.0, 0.75, 0.125],
        "tokens": {
            "text": [("a b", "", "c"), ("x", "y", "z"), None, ("[CLS]", "oh", "[SEP]"), None, ("x", "y", "w")]
        },
        "texts": ["a b c", None, "one two three", "Oh!", None, "x y w"],
        "labels": {
            "regression_labels_T": [0.5, None, 1.0, 2.0, 3.0, -1.0],
            "classification_labels": [1, 2, None, 0, 0, 1],
        },
    }
    sizes = {"text": 30} if text == "tokens" else {}
    units = {"audio": "mel", "text": "GloVe"}
    corpus = write_corpus(
        tmp_path / "corpus", {"train": arrays}, task=task, units=units, vocabulary_sizes=sizes
    )
    done = export_mmsa(corpus, tmp_path / "a.pkl")
    assert ("MMSA needs regression_labels to train, and the corpus has no such labels" in done.notes) == bool(
        task.classes
    )
    again = convert("auto", [tmp_path / "a.pkl"], tmp_path / "again").corpus
    assert again.task == task
    assert again.modalities == corpus.modalities
    assert again.checksum == corpus.checksum
    export_mmsa(again, tmp_path / "b.pkl")
    assert (tmp_path / "b.pkl").read_bytes() == (tmp_path / "a.pkl").read_bytes()


@pytest.mark.parametrize("label", ["regression_labels", "annotations", "classification_labels"])
@pytest.mark.parametrize("targets", [[0.5, -0.25, 0.0, 1.0], [-3.0, 3.0, 0.5, 0.0]])
def test_a_file_of_mmsa_survives(tmp_path: Path, targets: list[float], label: str) -> None:
    """Transcripts and every label come back as they were, and so does the corpus."""
    path = labelled_mmsa(tmp_path / "a.pkl", targets, **FACTS)
    once = convert("mmsa", [path], tmp_path / "once", mmsa.Options(label=label)).corpus
    assert [sample.text for sample in once.split("train")][:2] == ["So  it   goes .", "nö"]
    export_mmsa(once, tmp_path / "b.pkl")
    content = pickle.loads((tmp_path / "b.pkl").read_bytes())["train"]
    kept = len(content["raw_text"])
    assert content["raw_text"] == [
        text for row, text in enumerate(FACTS["raw_text"]) if kept == 4 or row != 2
    ]
    if label == "regression_labels":
        assert content["annotations"] == FACTS["annotations"]
        assert content["classification_labels"].tolist() == FACTS["classification_labels"]
        np.testing.assert_array_equal(content["regression_labels_T"], [0.5, np.nan, -1, 2])
        assert content["regression_labels"].tolist() == targets
    twice = convert("auto", [tmp_path / "b.pkl"], tmp_path / "twice").corpus
    assert twice.task == once.task.model_copy(update={"labels": twice.task.labels})
    if label != "classification_labels":  # which are the annotations of the file that is written
        assert twice.checksum == once.checksum


def test_what_lies_beside_the_splits_is_checked(tmp_path: Path) -> None:
    export_mmsa(corpus_of(tmp_path / "corpus"), tmp_path / "a.pkl")
    content = pickle.loads((tmp_path / "a.pkl").read_bytes())
    for change, said in (
        ({"label_range": [3.0, -3.0]}, "alignmamba: label_range: lower end 3.0 is not below upper end -3.0"),
        ({"classes": ["a"]}, "alignmamba: classes: a classification task needs at least 2"),
        (
            {"label_range": ["a", 1.0]},
            r"alignmamba.label_range.0: Input should be a valid number, .*, found 'a'",
        ),
        ({"surprise": 1}, "alignmamba.surprise: unknown key"),
        (
            {"label_range": [-math.inf, math.inf]},
            r"alignmamba: label_range: expected finite ends, found \(-inf, inf\)",
        ),
        ({"units": {"audio": "\ud800"}}, "alignmamba.units: "),
        ({"classes": ["a", "\ud800"], "label_range": None}, "alignmamba.classes: "),
        (
            {"units": {"smell": "a"}},
            r"alignmamba.units.smell: Input should be 'text', 'audio' or 'vision', found 'smell'",
        ),
        ({"tokens": {"train": {"trainü$_$0": ["a"]}}}, "tokens: expected 4, one per position, found 1"),
        (None, "alignmamba: Input should be a valid dictionary or instance of MmsaExtras, found 1"),
    ):
        changed = {**content, "alignmamba": 1 if change is None else {**content["alignmamba"], **change}}
        (tmp_path / "b.pkl").write_bytes(pickle.dumps(changed))
        with pytest.raises(DataError, match=rf"b\.pkl: .*{said}") as caught:
            convert("mmsa", [tmp_path / "b.pkl"], tmp_path / "again")
        assert len(str(caught.value).splitlines()) == 1


def test_what_has_no_place_is_said(tmp_path: Path) -> None:
    features = {name: [np.ones((1, 1))] for name in ("text", "audio", "vision")}
    arrays = {
        "features": features,
        "targets": [0.0],
        "times": {"text": [np.zeros(1)]},
        "tokens": {"audio": [("a",)]},
        "groups": ["a"],
        "labels": {"valence": [1.0], "regression_labels": [1.0]},
    }
    done = export_mmsa(write_corpus(tmp_path / "corpus", {"train": arrays}, task=SCORE), tmp_path / "a.pkl")
    left_out = [
        "display tokens of audio",
        "groups other than the video of an id",
        "label regression_labels",
        "label valence",
        "times",
    ]
    assert list(done.notes[:-1]) == [f"{what} dropped" for what in left_out]


def facts_of(path: Path, size: int, **facts: Any) -> Corpus:
    """A corpus of clips of one position, with these facts about them."""
    features = {name: [np.ones((1, 1))] * size for name in ("text", "audio", "vision")}
    ids = {"ids": [f"v{row // 2}$_${row}" for row in range(size)]}
    return write_corpus(
        path, {"train": {"features": features, "targets": [0.5] * size, **ids, **facts}}, task=SCORE
    )


@pytest.mark.parametrize("label", [2**63, 1 << 70, -(2**63) - 1])
def test_whole_numbers_that_64_bits_do_not_hold_are_refused(tmp_path: Path, label: int) -> None:
    corpus = facts_of(tmp_path / "corpus", 2, labels={"classification_labels": [1, label]})
    said = (
        r"split 'train', sample 'v0\$_\$1': label 'classification_labels': expected a whole number that 64"
        r" bits hold"
    )
    with pytest.raises(DataError, match=said):
        export_mmsa(corpus, tmp_path / "a.pkl")
    corpus = facts_of(tmp_path / "fits", 2, labels={"classification_labels": [2**63 - 1, -(2**63)]})
    export_mmsa(corpus, tmp_path / "a.pkl")
    assert convert("mmsa", [tmp_path / "a.pkl"], tmp_path / "again").corpus.checksum == corpus.checksum


@pytest.mark.parametrize("groups", [None, ["v0", "v0", "v1", "v1"]])
def test_the_order_of_labels_and_the_absence_of_groups_survive(tmp_path: Path, groups: Any) -> None:
    """No sample has all of the labels, and the first one begins with the last of them."""
    labels = {
        "classification_labels": [None, 1, 2, None],
        "regression_labels_T": [None, 0.5, None, 0.25],
        "annotations": ["a", None, "b", "c"],
    }
    corpus = facts_of(tmp_path / "corpus", 4, labels=labels, groups=groups)
    done = export_mmsa(corpus, tmp_path / "a.pkl")
    assert not any("dropped" in note for note in done.notes)
    again = convert("mmsa", [tmp_path / "a.pkl"], tmp_path / "again").corpus
    assert again.checksum == corpus.checksum
    assert [list(sample.labels) for sample in again.split("train")] == [
        ["annotations"],
        ["classification_labels", "regression_labels_T"],
        ["classification_labels", "annotations"],
        ["regression_labels_T", "annotations"],
    ]


def test_labels_in_the_order_of_mmsa_come_back_though_no_clip_has_all(tmp_path: Path) -> None:
    """Labels as a file of MMSA gives them; the clips with most labels do not come first."""
    labels = {
        "regression_labels_T": [None, 0.5, None],
        "regression_labels_V": [1.5, None, 0.25],
        "annotations": ["a", None, "b"],
        "classification_labels": [None, 1, 2],
    }
    corpus = facts_of(tmp_path / "corpus", 3, labels=labels)
    export_mmsa(corpus, tmp_path / "a.pkl")
    assert pickle.loads((tmp_path / "a.pkl").read_bytes())["alignmamba"]["labels"] == {}
    assert convert("mmsa", [tmp_path / "a.pkl"], tmp_path / "again").corpus.checksum == corpus.checksum


def test_labels_of_one_split_alone_come_back(tmp_path: Path) -> None:
    arrays = {"features": {name: [np.ones((1, 1))] for name in ("text", "audio", "vision")}, "targets": [0.5]}
    splits = {
        "train": {**arrays, "labels": {"regression_labels_A": [1.5]}, "ids": ["a"]},
        "test": {**arrays, "ids": ["b"]},
    }
    corpus = write_corpus(tmp_path / "corpus", splits, task=SCORE)
    export_mmsa(corpus, tmp_path / "a.pkl")
    assert convert("auto", [tmp_path / "a.pkl"], tmp_path / "again").corpus.checksum == corpus.checksum


def test_empty_texts_and_groups_that_do_not_survive_are_told(tmp_path: Path) -> None:
    facts = {"texts": ["", "a"], "labels": {"annotations": ["", "a"]}, "groups": ["v0", None]}
    done = export_mmsa(facts_of(tmp_path / "corpus", 2, **facts), tmp_path / "a.pkl")
    left_out = ["empty labels", "empty texts", "groups other than the video of an id"]
    assert list(done.notes[:-1]) == [f"{what} dropped" for what in left_out]


def test_one_class_of_several_is_enough_to_come_back(tmp_path: Path) -> None:
    arrays = {
        "features": {name: [np.ones((1, 1))] * 2 for name in ("text", "audio", "vision")},
        "targets": [1, 1],
    }
    task = Task(kind="classification", classes=("sad", "glad"))
    corpus = write_corpus(tmp_path / "corpus", {"train": arrays}, task=task)
    export_mmsa(corpus, tmp_path / "a.pkl")
    again = convert("auto", [tmp_path / "a.pkl"], tmp_path / "again").corpus
    assert (again.task, again.checksum) == (task, corpus.checksum)


TRAIN = """
import json, sys
from pathlib import Path
import numpy as np
import torch

torch.cuda.set_device = lambda device: None  # called by MMSA on machines without a GPU too
import MMSA
from MMSA.data_loader import MMDataset

folder = Path(sys.argv[2])
config = MMSA.get_config_regression("lf_dnn", "mosi")
config.featurePath = sys.argv[1]
config.early_stop = 0  # ends after the first epoch
own = {"custom_feature": None, "feature_T": "", "feature_A": "", "feature_V": ""}
loaded = MMDataset({**config, **own, "need_normalized": False})
names = ("text", "audio", "vision")
arrays = {name: getattr(loaded, name) for name in names}
np.savez(folder / "loaded.npz", labels=loaded.labels["M"], ids=loaded.ids, **arrays)
MMSA.MMSA_run(
    "lf_dnn", "mosi", config=config, seeds=[1], gpu_ids=[], num_workers=0,
    model_save_dir=folder / "models", res_save_dir=folder / "results", log_dir=folder / "logs",
)
print(json.dumps((folder / "results" / "normal" / "mosi.csv").read_text()))
"""


def _python_with_mmsa() -> str | None:
    if given := os.environ.get(MMSA_PYTHON):
        return given
    return sys.executable if importlib.util.find_spec("MMSA") else None


@pytest.mark.skipif(
    _python_with_mmsa() is None,
    reason=f"MMSA is not installed; {MMSA_PYTHON} may name a Python that has it (pip install MMSA==2.2.1)",
)
def test_mmsa_itself_loads_it_and_trains_an_epoch(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", missing=False, sizes={"train": 24, "valid": 8, "test": 8})
    export_mmsa(corpus, tmp_path / "out.pkl")
    done = subprocess.run(
        [str(_python_with_mmsa()), "-c", TRAIN, str(tmp_path / "out.pkl"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env={**os.environ, "PYTHONPATH": "", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]).splitlines()[1].startswith("lf_dnn,")
    with np.load(tmp_path / "loaded.npz") as loaded:
        split = corpus.split("train")
        assert loaded["ids"].tolist() == list(split.ids)
        np.testing.assert_array_equal(loaded["labels"], np.float32([sample.target for sample in split]))
        for row, sample in enumerate(split):
            for name in ("text", "audio", "vision"):
                length = len(sample.features[name])
                np.testing.assert_array_equal(loaded[name][row, :length], sample.features[name])
                assert not loaded[name][row, length:].any()
