"""Files with several labels, from file to table in one command."""

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import layouts_pickled
import numpy as np
import pytest
from damaging import seed

from alignmamba import load_corpus
from alignmamba.cli.main import main
from alignmamba.data.leading_target import LeadingConfig, led_by
from alignmamba.formats import FORMATS
from alignmamba.formats.conversion import convert
from alignmamba.formats.foreign import LabelOptions, UnknownLabelError
from alignmamba.formats.known_formats import any_options


def sims() -> dict[str, Any]:
    """An MMSA file with a label of each modality, of which some clips of the vision have none."""
    content, _ = layouts_pickled.mmsa()
    random = np.random.default_rng(1)
    for part in content.values():
        for letter in "TAV":
            part[f"regression_labels_{letter}"] = random.uniform(-1, 1, len(part["id"])).astype(np.float32)
        part["regression_labels"] = np.clip(part["regression_labels"], -1, 1)
        part["regression_labels_V"][0] = np.nan
    return content


def iemocap() -> dict[str, Any]:
    content, _ = layouts_pickled.mult()
    random = np.random.default_rng(1)
    for part in content.values():
        part["labels"] = np.eye(2)[random.integers(0, 2, size=(len(part["labels"]), 4))]
    return content


def mosei() -> dict[str, Any]:
    content, _ = layouts_pickled.mult()
    random = np.random.default_rng(1)
    for part in content.values():
        part["labels"] = random.integers(0, 4, size=(len(part["labels"]), 7)).astype(np.float32)
    return content


FILES = {
    "sims": (
        sims,
        "{regression_labels_T: {modality: text}, regression_labels_V: {modality: vision}}",
        {"regression_labels_T.mae", "regression_labels_V.corr"},
        "regression_labels_V.prediction",
    ),
    "iemocap": (
        iemocap,
        "{happy: {kind: classification}, sad: {kind: classification}}",
        {"accuracy", "happy.f1_weighted", "sad.accuracy"},
        "sad.p(1)",
    ),
    "mosei": (
        mosei,
        "{emotions: {labels: [happy, sad, anger, surprise, disgust, fear]}}",
        {"acc7", "emotions.accuracy_weighted", "emotions.auroc"},
        "emotions.p(fear)",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_one_command_leads_from_the_file_to_the_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, targets, scores, column = FILES[name]
    monkeypatch.setenv("ALIGNMAMBA_CACHE", str(tmp_path / "cache"))
    file = tmp_path / f"{name}.pkl"
    file.write_bytes(pickle.dumps(make()))
    small = ["options.d_model=8", "options.depth=1", "fit.epochs=1"]
    run = tmp_path / "run"
    command = ["train", "--data", str(file), "--set", *small, f"targets={targets}", "--out", str(run)]
    assert main(command) == 0
    found = json.loads((run / "metrics.json").read_text())["metrics"]["test"]
    assert scores <= set(found)
    with (run / "predictions_test.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert all(np.isfinite(float(row[column])) for row in rows)


DESCRIPTION = """
name = "table"
[task]
kind = "classification"
classes = ["no", "yes"]
[samples]
table = "table.csv"
label = "{column}"
split = "split"
[modalities.features]
table = "table.csv"
columns = ["f"]
"""


def roles() -> list[tuple[int, str]]:
    return list(enumerate(["train"] * 6 + ["valid"] * 2 + ["test"] * 2))


def trained(file: Path, run: Path, *labels: str) -> dict[str, float]:
    """Scores of test of a run by one command."""
    small = ["options.d_model=8", "options.depth=1", "fit.epochs=1"]
    command = ["train", "--data", str(file), "--label", *labels, "--set", *small, "--out", str(run)]
    assert main(command) == 0
    found: dict[str, float] = json.loads((run / "metrics.json").read_text())["metrics"]["test"]
    return found


LEADING = {
    "sims": (
        sims,
        ["regression_labels", "regression_labels_T", "regression_labels_A"],
        {"mae", "regression_labels_T.mae", "regression_labels_A.corr"},
        "regression_labels_T.prediction",
    ),
    "iemocap": (iemocap, ["happy", "sad", "neutral"], {"accuracy_weighted", "auroc"}, "p(neutral)"),
    "mosei": (mosei, ["happy", "sad", "anger", "fear"], {"accuracy_weighted", "f1_labels"}, "p(fear)"),
}


@pytest.mark.parametrize("name", LEADING)
def test_labels_lead_by_one_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, labels, scores, column = LEADING[name]
    monkeypatch.setenv("ALIGNMAMBA_CACHE", str(tmp_path / "cache"))
    file, run = tmp_path / f"{name}.pkl", tmp_path / "run"
    file.write_bytes(pickle.dumps(make()))
    stored = trained(file, run, *labels)
    assert scores <= set(stored)
    with (run / "predictions_test.csv").open() as table:
        assert all(np.isfinite(float(row[column])) for row in csv.DictReader(table))
    # The run reads the same labels of its own file, and of one that is given to it.
    for more in ([], ["--data", str(file)]):
        capsys.readouterr()
        assert main(["evaluate", str(run), *more, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["metrics"]
        assert {name: value for name, value in found.items() if value is not None} == pytest.approx(
            {name: value for name, value in stored.items() if value is not None}
        )


def test_a_corpus_is_led_by_its_labels_as_a_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNMAMBA_CACHE", str(tmp_path / "cache"))
    file, corpus, chosen = tmp_path / "mosei.pkl", tmp_path / "corpus", tmp_path / "chosen"
    file.write_bytes(pickle.dumps(mosei()))
    assert main(["convert", "auto", str(file), str(corpus), "--label", "sentiment"]) == 0
    assert main(["convert", "auto", str(file), str(chosen), "--label", "happy", "sad"]) == 0
    capsys.readouterr()
    of_corpus, of_file = (
        trained(data, tmp_path / name, "happy", "sad")
        for data, name in ((corpus, "of-corpus"), (file, "of-file"))
    )
    assert of_corpus == pytest.approx(of_file, nan_ok=True)
    # led by others, a run is another
    configs = {
        (tmp_path / name / "run.json").read_text().split('"digest"')[1][:40]
        for name in ("of-corpus", "of-file")
    }
    assert len(configs) == 2
    assert load_corpus(chosen).task.classes == ("happy", "sad")
    assert set(load_corpus(chosen).split("train")[0].labels) == {
        *("sentiment", "anger", "surprise", "disgust", "fear")
    }


@pytest.mark.parametrize("verb", ["convert", "train"])
def test_labels_of_train_decide_what_several_are(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNMAMBA_CACHE", str(tmp_path / "cache"))
    content = mosei()
    content["test"]["labels"][0, 1] = -0.5
    file = tmp_path / "mosei.pkl"
    file.write_bytes(pickle.dumps(content))
    if verb == "convert":
        assert main(["convert", "auto", str(file), str(tmp_path / "corpus"), "--label", "happy", "sad"]) == 0
        assert load_corpus(tmp_path / "corpus").task.further == ()
    else:
        found = trained(file, tmp_path / "run", "happy", "sad")
        assert "accuracy_weighted" in found
        assert not [name for name in found if name.startswith("sad.")]
    written, told = capsys.readouterr()
    assert "several labels: happy, sad are one target" in written + told


def test_a_kind_decides_over_the_numbers_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNMAMBA_CACHE", str(tmp_path / "cache"))
    content = mosei()
    file, run = tmp_path / "mosei.pkl", tmp_path / "run"
    file.write_bytes(pickle.dumps(content))
    small = ["options.d_model=8", "options.depth=1", "fit.epochs=1", "leading.kind=regression"]
    command = ["train", "--data", str(file), "--label", "happy", "sad", "--set", *small, "--out", str(run)]
    assert main(command) == 0
    with (run / "predictions_test.csv").open() as table:
        targets = [float(row["target"]) for row in csv.DictReader(table)]
    assert targets == content["test"]["labels"][:, 1].tolist()  # up to 3, not 0 and 1
    assert "several labels: happy leads, further targets are sad" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [["happy"], ["happy", "sad"]])
def test_a_file_without_the_labels_is_predicted_and_not_scored(
    labels: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNMAMBA_CACHE", str(tmp_path / "cache"))
    file, other, run, said = (tmp_path / name for name in ("mosei.pkl", "mosi.pkl", "run", "said.csv"))
    file.write_bytes(pickle.dumps(mosei()))
    other.write_bytes(pickle.dumps(layouts_pickled.mult()[0]))
    trained(file, run, *labels)
    assert main(["predict", str(run), "--data", str(other), "--out", str(said)]) == 0
    with said.open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == sum(len(part["id"]) for part in layouts_pickled.mult()[0].values())
    assert not [row for row in rows if any(value for name, value in row.items() if "target" in name)]
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(other)]) == 2
    assert f"{other}: no label 'happy', expected one of ['labels']" in capsys.readouterr().err


@pytest.mark.parametrize("form", FORMATS)
def test_every_reader_says_that_a_label_is_not_there(form: str, tmp_path: Path) -> None:
    sources = seed(form, tmp_path / "seed").sources
    for asked in (("absent",), ("absent", "missing")):
        with pytest.raises(UnknownLabelError, match="label"):
            convert(form, sources, tmp_path / "corpus", any_options()(label=asked))


def test_classes_no_and_yes_of_a_table_are_presence(tmp_path: Path) -> None:
    rows = [f"{row},{role},{row % 2},{('no', 'yes')[row % 2]},{row % 3},no,{row}" for row, role in roles()]
    (tmp_path / "table.csv").write_text("\n".join(["id,split,happy,calm,sad,angry,f", *rows]))
    description = tmp_path / "table.toml"
    for column, others in (("happy", ["sad"]), ("calm", ["sad", "happy"])):
        description.write_text(DESCRIPTION.format(column=column))
        made = convert("arrays", [description], tmp_path / column, LabelOptions(label=(column, *others)))
        corpus = made.corpus
        assert (corpus.task.kind, corpus.task.classes) == ("multilabel", (column, *others))
        assert led_by(corpus, LeadingConfig(labels=(column, *others))) is corpus
        plain = convert("arrays", [description], tmp_path / f"of-{column}", LabelOptions(label=(column,)))
        assert [sample.target for sample in plain.corpus.split("test")] == [0, 1]
    # nobody is angry
    made = convert("arrays", [description], tmp_path / "angry", LabelOptions(label=("angry", "sad")))
    assert made.corpus.task.classes == ("angry", "sad")
    assert [sample.target for sample in made.corpus.split("test")] == [(0.0, 1.0), (0.0, 0.0)]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["happy", "joy"], "label 'joy': expected some of"),
        (["joy"], "label 'joy': expected one of"),
        (["happy", "happy"], "leading.labels: expected each name once, found 'happy' again"),
        (["1"], "label '1': expected one of ['sentiment', "),
        (["happy", "2"], "label '2': expected some of happy, sentiment, "),
    ],
)
def test_labels_that_a_file_lacks_are_refused_in_one_line(
    labels: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ALIGNMAMBA_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "mosei.pkl"
    file.write_bytes(pickle.dumps(mosei()))
    assert main(["train", "--data", str(file), "--label", *labels, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert str(file) in error or labels[0] in labels[1:]
    assert not (tmp_path / "run").exists()
