"""A run that is opened in Python: what it says of itself, of other data, and of single samples."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import use

from alignmamba import AlignMamba, AlignMambaError, load_corpus, open_run
from alignmamba.contracts import Corpus
from alignmamba.errors import CheckpointError, ConfigError, DataError
from alignmamba.recipes.finished_run import evaluate, predict
from alignmamba.recipes.opened import Run
from small_run import CLASSES

use("Agg")


@pytest.fixture(scope="module")
def loaded(corpus: Path) -> Corpus:
    return load_corpus(corpus)


@pytest.fixture(scope="module")
def run(run: Path) -> Run:
    return open_run(run)


@pytest.fixture(scope="module")
def place(corpus: Path) -> Path:
    return corpus


def test_a_run_says_what_it_is(run: Run, place: Path) -> None:
    assert repr(run) == f"Run(alignmamba, {run.directory})"
    assert isinstance(run.model, AlignMamba)
    assert run.config.data == str(place.resolve())
    assert run.metrics["test"]["accuracy"] == evaluate(run.directory)["metrics"]["accuracy"]
    assert run.history["epoch"].tolist() == [1, 2, 3]
    kept = run.stored.metrics()["best_epoch"]
    assert run.history["valid/accuracy"].max() == run.history.set_index("epoch")["valid/accuracy"][kept]
    assert run.metrics["valid"]["accuracy"] == evaluate(run.directory, split="valid")["metrics"]["accuracy"]


def test_predictions_are_those_of_the_file(run: Run, place: Path, loaded: Corpus, tmp_path: Path) -> None:
    predict(run.directory, place, tmp_path / "p.csv")
    written = [line.split(",") for line in (tmp_path / "p.csv").read_text().splitlines()]
    for data in (None, place, str(place), loaded):
        frame = run.predict(data)
        assert list(frame) == written[0]
        assert frame["id"].tolist() == [row[0] for row in written[1:]]
        assert frame["prediction"].tolist() == [row[3] for row in written[1:]]
    assert run.predict(split="test")["id"].tolist() == list(loaded.split("test").ids)


def test_arrays_are_predicted_as_the_samples_that_they_are(run: Run, loaded: Corpus) -> None:
    test = loaded.split("test")
    arrays = {name: [sample.features.get(name) for sample in test] for name in ("audio", "text")}
    frame = run.predict(arrays, ids=test.ids)
    expected = run.predict(split="test")
    assert list(frame) == ["id", "prediction", *(f"p({name})" for name in CLASSES)]
    assert frame["id"].tolist() == expected["id"].tolist()
    np.testing.assert_allclose(frame["p(glad)"], expected["p(glad)"], atol=1e-6)
    assert run.predict({"text": arrays["text"], "audio": [None] * 14})["id"].iloc[0] == "sample-000001"
    assert len(run.predict({"text": np.zeros((2, 3, 4))})) == 2


def test_embeddings_lead_to_the_predictions(run: Run, loaded: Corpus) -> None:
    ids, vectors = run.embed(split="test")
    assert ids == loaded.split("test").ids
    assert vectors.shape == (14, 4 * 16)  # of each modality one of the fusion and one of its branch
    model: Any = run.model
    present = torch.ones(14, 4, dtype=torch.bool)
    scores = model.weighed_prediction(torch.from_numpy(vectors), present, torch.ones(4)).detach()
    assert [CLASSES[index] for index in scores.argmax(1)] == run.predict(split="test")["prediction"].tolist()
    assert len(run.embed()[0]) == 36 + 12 + 14


def test_a_plan_can_be_seen(run: Run, loaded: Corpus) -> None:
    plan = run.plan("test-000002")
    assert repr(plan) == "SamplePlan('test-000002': audio onto text)"
    axes = plan.plot()
    assert axes.get_title() == "test-000002"
    assert axes.get_xlabel() == "text (tokens)"
    (dots,) = axes.collections
    index = plan.sources[0]["index"]
    pairs = [[match, place] for place, match in enumerate(index) if match >= 0]
    if plan.sources[0]["marginal"] == "anchor":
        pairs = [[match, place] for match, place in pairs][::1]
        pairs = [[place, match] for match, place in pairs]
    assert sorted(map(tuple, np.asarray(dots.get_offsets()).tolist())) == sorted(
        tuple(map(float, pair)) for pair in pairs
    )
    assert plan.plot(axes) is axes
    arrays = {name: [loaded.split("test")[1].features[name]] for name in ("text", "audio")}
    assert run.plan("mine", arrays, ids=["mine"]).sources[0]["index"] == index


def test_a_run_is_scored_as_by_the_recipe(run: Run, loaded: Corpus) -> None:
    assert run.evaluate(drop=["audio"]) == evaluate(run.directory, drop=["audio"])
    assert run.evaluate(loaded)["metrics"] == run.evaluate()["metrics"]


def test_what_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: dict[str, tuple[type[AlignMambaError], Any]] = {
        "no such directory": (CheckpointError, lambda: open_run(tmp_path / "none")),
        "found modalities text, vision, expected": (
            DataError,
            lambda: run.predict({"text": [np.zeros((2, 4))], "vision": [np.zeros((2, 2))]}),
        ),
        "expected features of width 4 as in training": (
            DataError,
            lambda: run.predict({"text": [np.zeros((2, 5))]}),
        ),
        "expected by modality a list with one array per sample, found nothing": (
            DataError,
            lambda: run.predict({"text": [None]}),
        ),
        "ids: expected them with arrays": (ConfigError, lambda: run.predict(ids=["a"])),
        "split: found 'tset'": (ConfigError, lambda: run.predict(split="tset")),  # type: ignore[arg-type]
        "has no such id": (ConfigError, lambda: run.plan("nobody")),
        "test-000001'.*makes no plan of it": (ConfigError, lambda: run.plan("test-000001")),
    }
    for said, (kind, refused) in cases.items():
        with pytest.raises(kind, match=said) as caught:
            refused()
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "pandas", None)  # type: ignore[arg-type]
    for use_pandas in (lambda: run.history, run.predict):
        with pytest.raises(
            ConfigError, match=r"pandas is not installed, try: pip install 'alignmamba\[notebook\]'"
        ):
            use_pandas()
