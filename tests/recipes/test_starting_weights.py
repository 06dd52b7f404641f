"""A finished run as the start of another."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignmamba import AlignMamba, SplitArrays, Task, train, write_corpus
from alignmamba.errors import CheckpointError, ConfigError
from alignmamba.recipes.configuration import read_config
from alignmamba.recipes.training_run import plan

CLASSES = {"three": ("low", "middle", "high"), "two": ("no", "yes")}


def arrays(count: int, role: str, classes: int, widths: dict[str, int]) -> SplitArrays:
    random = np.random.default_rng(len(role))
    return SplitArrays(
        features={
            name: [random.normal(size=(3, width)).astype(np.float32) for _ in range(count)]
            for name, width in widths.items()
        },
        targets=[row % classes for row in range(count)],
        ids=[f"{role}-{row}" for row in range(count)],
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, made = tmp_path_factory.mktemp("corpora"), {}
    for name, classes in CLASSES.items():
        widths = {"text": 4, "audio": 3} if name == "three" else {"text": 4, "audio": 5}
        made[name] = root / name
        write_corpus(
            made[name],
            {
                role: arrays(count, role, len(classes), widths)
                for role, count in (("train", 24), ("valid", 9))
            },
            task=Task(kind="classification", classes=classes),
        )
    return made


def config(place: Path, **overrides: Any) -> Any:
    small = {"options.d_model": 8, "options.depth": 1, "fit.epochs": 1}
    return read_config(overrides={"data": str(place), **small, **overrides})


@pytest.fixture(scope="module")
def first(places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(
        config(places["three"]), out=tmp_path_factory.mktemp("first") / "run", progress=None
    ).directory


def weights(run: Path) -> dict[str, torch.Tensor]:
    return AlignMamba.from_pretrained(run / "model").state_dict()


def test_what_fits_is_taken_and_the_rest_is_named(
    places: dict[str, Path], first: Path, tmp_path: Path
) -> None:
    ready = plan(config(places["two"], **{"start.run": str(first)}), out=tmp_path / "run")
    said = " | ".join(ready.notes)
    assert f"weights start from run {first}" in said
    assert "head.weight (found (3, " in said
    assert "encoders.audio." in said
    facts = ready.prepared["start"]
    assert set(facts["left"]) >= {"head.weight", "head.bias"}
    assert not any(name.startswith("encoders.text.") for name in facts["left"])


def test_frozen_weights_stay_as_they_were(places: dict[str, Path], first: Path, tmp_path: Path) -> None:
    frozen = {"start.run": str(first), "fit.rates": {"": 0.0, "head": 1.0, "encoders.audio": 0.5}}
    run = train(config(places["two"], **frozen), out=tmp_path / "run", progress=None).directory
    before, after = weights(first), weights(run)
    assert any(name.startswith("backbone") for name in before)
    for name, value in after.items():
        if name.startswith(("backbone", "encoders.text")):
            assert torch.equal(value, before[name]), name
    stored = json.loads((run / "run.json").read_text())
    assert stored["start"]["taken"] > 0
    fresh = plan(config(places["two"]), out=tmp_path / "other")
    assert fresh.digest != stored["digest"]


def test_the_digest_follows_the_weights_and_not_their_place(
    places: dict[str, Path], first: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.symlink_to(first)
    digests = {
        plan(config(places["two"], **{"start.run": str(place)}), out=tmp_path / "run").digest
        for place in (first, moved)
    }
    assert len(digests) == 1


def test_a_resumed_run_keeps_what_it_learned(places: dict[str, Path], first: Path, tmp_path: Path) -> None:
    settings = {"start.run": str(first), "fit.epochs": 2}
    run = train(config(places["two"], **settings), out=tmp_path / "run", progress=None)
    again = train(resume=run.directory, progress=None)
    assert again.metrics == run.metrics


def test_what_cannot_be_a_start_is_refused(places: dict[str, Path], first: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no such directory"):
        plan(config(places["two"], **{"start.run": str(tmp_path / "nowhere")}), out=tmp_path / "run")
    wrong = {"start.run": str(first), "start.sha256": "0" * 64}
    with pytest.raises(CheckpointError, match=r"start.run: weights of run .* have SHA-256 .*, expected 0000"):
        plan(config(places["two"], **wrong), out=tmp_path / "run")
    other = read_config(
        overrides={"data": str(places["two"]), "model": "best-constant", "start.run": str(first)}
    )
    with pytest.raises(ConfigError, match=r"start.run: no weight of run .* fits a best-constant"):
        plan(other, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"encoder.text": 0.1}, r"fit.rates: no weight has a name that begins with 'encoder.text', expected"),
        ({"": 0.0}, r"fit.rates: leave no weight to train in stage 'fit'"),
    ],
)
def test_rates_that_fit_nothing_are_refused(
    places: dict[str, Path], tmp_path: Path, rates: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(config(places["two"], **{"fit.rates": rates}), out=tmp_path / "run", progress=None)
