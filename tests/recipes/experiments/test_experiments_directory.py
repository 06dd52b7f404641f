"""The files of an experiment: what is damaged or strange is refused by its name."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignmamba.errors import CheckpointError
from alignmamba.recipes.configuration import check_config
from alignmamba.recipes.experiments.cell_process import _analyse
from alignmamba.recipes.experiments.cells import Analysis, Cell
from alignmamba.recipes.experiments.grid_directory import ExperimentDirectory
from alignmamba.recipes.report.contents import gather
from alignmamba.recipes.run_directory import RunDirectory
from small_run import CONFIG

FACTS = {
    "experiment": "comparison",
    "command": ["alignmamba"],
    "environment": {},
    "corpus": {"name": "small", "checksum": "0" * 64},
    "data": "small",
    "task": {"kind": "regression"},
    "metrics": ("mae", "corr"),
    "seeds": [0],
}


@pytest.fixture
def experiment(tmp_path: Path) -> ExperimentDirectory:
    cell = Cell(
        row="alignmamba", column="", config=check_config({**CONFIG, "data": "small"}), digest="1" * 64
    )
    return ExperimentDirectory.create(tmp_path / "grid", facts=FACTS, cells=[cell])


def test_what_is_written_is_read(experiment: ExperimentDirectory) -> None:
    (entry,) = experiment.plan().cells
    assert experiment.job(entry.key).config.model == "alignmamba"
    assert gather(experiment.path).experiment.metrics == ("mae", "corr")


def test_one_flipped_bit_of_the_plan_or_of_a_cell_is_refused(experiment: ExperimentDirectory) -> None:
    key = experiment.plan().cells[0].key
    for path, where, bit in (
        (experiment.path / "experiment.json", b'"mae"', 0x01),
        (experiment.path / "experiment.json", b'"alignmamba"', 0x04),
        (experiment.path / "jobs" / f"{key}.json", b'"epochs": 3', 0x02),
    ):
        whole = path.read_bytes()
        at = whole.index(where) + len(where) - 2 + (where[-1:] == b"3")
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=f"{path.name}: damaged"):
            experiment.plan() if path.name == "experiment.json" else experiment.job(key)
        if path.name == "experiment.json":
            with pytest.raises(CheckpointError, match=f"{path.name}: damaged"):
                gather(experiment.path)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"label": ' + "9" * 5000 + "}",
        "[]",
        "null",
        "{}",
        '{"config": [], "label": 1, "analyses": 3}',
    ],
)
def test_strange_json_is_one_line(experiment: ExperimentDirectory, text: str) -> None:
    key = experiment.plan().cells[0].key
    (experiment.path / "jobs" / f"{key}.json").write_text(text)
    (experiment.path / "experiment.json").write_text(text)
    (experiment.path / "failed" / f"{key}.json").write_text(text)
    for read in (lambda: experiment.job(key), experiment.plan, lambda: gather(experiment.path)):
        with pytest.raises(CheckpointError, match=r"\.json: ") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert experiment.failure(key).endswith("cannot be read")


def test_an_experiment_of_an_earlier_version_has_no_checksums(experiment: ExperimentDirectory) -> None:
    path = experiment.path / "experiment.json"
    values, plan = json.loads(path.read_text()), experiment.plan()
    assert len(values.pop("sha256")) == 64
    path.write_text(json.dumps(values))
    assert experiment.plan() == plan


def test_an_analysis_makes_no_directory_of_a_run_that_is_gone(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(stored=RunDirectory(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match="gone: expected the run to analyse, found no such directory"):
        _analyse(run, Analysis(kind="distance"), tmp_path / "gone" / "analysis" / "distance")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"cells": [1]},
        {"cells": {"a": 1}},
        {"seeds": "x"},
        {"task": 3},
        {"corpus": []},
        {"settings": []},
        {"metrics": None},
    ],
)
def test_a_plan_of_wrong_types_names_the_field(
    experiment: ExperimentDirectory, change: dict[str, object]
) -> None:
    path = experiment.path / "experiment.json"
    values = json.loads(path.read_text())
    del values["sha256"]
    path.write_text(json.dumps(values | change))
    with pytest.raises(CheckpointError, match=rf"experiment\.json: {next(iter(change))}"):
        experiment.plan()
