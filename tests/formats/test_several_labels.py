"""Files with several labels, from file to table in one command."""

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import layouts_pickled
import numpy as np
import pytest

from alignmamba.cli.main import main


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
