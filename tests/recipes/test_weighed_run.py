"""Runs whose modalities get weights on the valid split."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alignmamba import RunConfig, Task, open_run, train, write_corpus
from alignmamba.models.side_by_side import SideBySide
from alignmamba.recipes.finished_run import evaluate


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose sound says the class and whose lips say nothing; some samples lack one."""
    place = tmp_path_factory.mktemp("weighed") / "corpus"
    random = np.random.default_rng(0)

    def part(count: int) -> dict[str, Any]:
        classes = [row % 2 for row in range(count)]
        sound = [random.normal(size=(6, 3)) + 1.5 * each for each in classes]
        lips = [None if row % 5 == 4 else 3 * random.normal(size=(5, 4)) for row in range(count)]
        return {"features": {"sound": sound, "lips": lips}, "targets": classes}

    task = Task(kind="classification", classes=("no", "yes"))
    write_corpus(place, {"train": part(24), "valid": part(20), "test": part(20)}, task=task)
    return place


def trained(told: Path, out: Path, weights: str) -> Path:
    config = RunConfig(
        data=str(told),
        options={"d_model": 16, "depth": 1, "modality_weights": weights},
        fit={"epochs": 2},  # type: ignore[arg-type]
    )
    return train(config, out=out, progress=None).directory


@pytest.fixture(scope="module")
def runs(told: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same training with chosen weights and with equal ones."""
    place = tmp_path_factory.mktemp("runs")
    return {weights: trained(told, place / weights, weights) for weights in ("validation", "equal")}


def test_weights_are_all_that_differs_and_the_run_tells_them(runs: dict[str, Path]) -> None:
    weighed, equal = open_run(runs["validation"]), open_run(runs["equal"])
    stored = json.loads((runs["validation"] / "metrics.json").read_text())["modality_weights"]
    assert set(stored) == {"sound", "lips", "sound alone", "lips alone"}
    assert stored["lips alone"] < stored["sound alone"], stored
    assert "modality_weights" not in json.loads((runs["equal"] / "metrics.json").read_text())
    before = weighed.predict(split="test")
    assert not before["p(no)"].equals(equal.predict(split="test")["p(no)"])
    assert isinstance(weighed.model, SideBySide)
    weighed.model.weigh(1 / torch.tensor([stored[name] for name in weighed.model.weighed]))
    after = weighed.predict(split="test")
    np.testing.assert_allclose(after["p(no)"], equal.predict(split="test")["p(no)"], atol=1e-4)


def test_scores_are_those_of_the_weighed_model(runs: dict[str, Path]) -> None:
    stored = json.loads((runs["validation"] / "metrics.json").read_text())["metrics"]
    for role in ("valid", "test"):
        found = evaluate(runs["validation"], split=role)["metrics"]
        assert found == pytest.approx(stored[role], abs=1e-5)


def test_a_run_that_ends_twice_is_weighed_once(runs: dict[str, Path], tmp_path: Path) -> None:
    """Training was done, but the run was stopped before it was written."""
    again = shutil.copytree(runs["validation"], tmp_path / "again")
    before = load_file(again / "model" / "model.safetensors")
    shutil.rmtree(again / "model")
    (again / "metrics.json").unlink()
    result = train(resume=again, progress=None)
    stored = json.loads((runs["validation"] / "metrics.json").read_text())["modality_weights"]
    assert result.modality_weights == pytest.approx(stored, rel=1e-4)
    after = load_file(again / "model" / "model.safetensors")
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=1e-4, atol=1e-6)
