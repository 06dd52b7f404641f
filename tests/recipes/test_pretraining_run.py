"""A run that learns without labels, and runs that start from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignmamba import SplitArrays, Task, evaluate, open_run, predict, train, write_corpus
from alignmamba.errors import AlignMambaError, CheckpointError, ConfigError, DataError
from alignmamba.methods import from_pretrained
from alignmamba.recipes.configuration import read_config
from alignmamba.recipes.training_run import plan
from alignmamba.training.checkpoints import LAST
from tolerances import FLOAT32

CLASSES = ("slow", "quick")
WIDTHS = {"audio": 3, "video": 2}


def clips(role: str, count: int, *, labelled: bool) -> SplitArrays:
    """Waves of two speeds, seen by both modalities; every fourth clip has no video."""
    random = np.random.default_rng(len(role))
    speed = np.arange(count) % 2
    start = random.uniform(0, 6, count)
    features: dict[str, list[Any]] = {}
    for name, width in WIDTHS.items():
        shift = np.arange(width)
        features[name] = [
            np.sin(start[row] + (0.4 + 0.8 * speed[row]) * np.arange(12)[:, None] + shift).astype(np.float32)
            for row in range(count)
        ]
    features["video"] = [None if row % 4 == 3 else each for row, each in enumerate(features["video"])]
    return SplitArrays(
        features=features,
        targets=speed.tolist() if labelled else None,
        ids=[f"{role}-{row}" for row in range(count)],
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("corpora")
    task = Task(kind="classification", classes=CLASSES)
    sizes = {"train": 32, "valid": 12, "test": 8}
    for name in ("labelled", "unlabelled", "train alone", "labelled train alone"):
        roles = ("train",) if name.endswith("alone") else tuple(sizes)
        splits = {role: clips(role, sizes[role], labelled=name.startswith("labelled")) for role in roles}
        write_corpus(root / name, splits, task=task)
    return {path.name: path for path in root.iterdir()}


def config(place: Path, **overrides: Any) -> Any:
    small = {"options.d_model": 8, "options.depth": 1, "options.encoder.dropout": 0.0, "options.dropout": 0.0}
    return read_config(overrides={"data": str(place), **small, "fit.epochs": 2, **overrides})


def pretraining(place: Path, **overrides: Any) -> Any:
    return config(place, **{"objective": "pretrain", "pretrain.span": 2, "loader.batch_size": 8, **overrides})


@pytest.fixture(scope="module")
def first(places: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = pretraining(places["unlabelled"], **{"fit.epochs": 6, "fit.patience": 0})
    return train(settings, out=tmp_path_factory.mktemp("first") / "run", progress=None).directory


def records(run: Path) -> list[dict[str, float]]:
    names, *rows = [line.split(",") for line in (run / "log.csv").read_text().splitlines()]
    return [dict(zip(names, map(float, row), strict=True)) for row in rows]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return from_pretrained(run).state_dict()


def test_a_corpus_without_labels_is_learned_from(first: Path) -> None:
    epochs = records(first)
    for name in ("reconstruction.audio", "reconstruction.video"):
        assert epochs[-1][f"valid/loss/{name}"] < 0.9 * epochs[0][f"valid/loss/{name}"]
    found = json.loads((first / "metrics.json").read_text())
    best = min(record["valid/loss/total"] for record in epochs)
    assert found["metrics"] == {"valid": found["metrics"]["valid"]}
    assert found["metrics"]["valid"]["total"] == pytest.approx(best)
    assert found["selected_by"] == "loss"
    assert not list(first.glob("predictions*"))


def test_labels_change_nothing(places: dict[str, Path], tmp_path: Path) -> None:
    runs = [
        train(pretraining(places[name]), out=tmp_path / name, progress=None).directory
        for name in ("labelled", "unlabelled")
    ]
    one, other = map(weights, runs)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_run_starts_from_all_but_heads_and_branches(
    places: dict[str, Path], first: Path, tmp_path: Path
) -> None:
    rates = {"": 0.0, "head": 1.0, "branches.heads": 1.0, "branches.stacks": 1.0}
    start = config(places["labelled"], **{"start.run": str(first), "fit.rates": rates})
    ready = plan(start, out=tmp_path / "run")
    left = ready.prepared["start"]["left"]
    assert {name.split(".")[0] for name in left} == {"head", "branches"}
    assert not any(name.startswith("branches.encoders.") for name in left)
    assert any("begin at random: head.weight (new), head.bias (new)" in note for note in ready.notes)
    after, before = weights(train(start, out=tmp_path / "run", progress=None).directory), weights(first)
    for name, value in before.items():
        if name.startswith(("encoders.", "backbone.", "absent_tokens.")):
            assert torch.equal(value, after[name]), name
        if name.startswith("encoders."):
            assert torch.equal(value, after[f"branches.{name}"]), name


def test_it_resumes_and_accumulates(places: dict[str, Path], tmp_path: Path) -> None:
    settings = {"fit.epochs": 3, "pretrain.matching": 0.0, "fit.checkpoint_every_steps": 1}
    whole = train(pretraining(places["unlabelled"], **settings), out=tmp_path / "whole", progress=None)

    class Stop:
        """Interrupts in the second epoch."""

        def started(self, **_: Any) -> None: ...

        def epoch_finished(self, *_: Any, **__: Any) -> None: ...

        def stepped(self, *, step: int, **_: Any) -> None:
            if step == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            pretraining(places["unlabelled"], **settings),
            out=tmp_path / "cut",
            progress=None,
            callbacks=[Stop()],
        )
    assert (tmp_path / "cut" / LAST).exists()
    again = train(resume=tmp_path / "cut", progress=None)
    assert again.metrics == whole.metrics
    for name, value in weights(again.directory).items():
        assert torch.equal(value, weights(whole.directory)[name]), name
    halves = {**settings, "loader.batch_size": 4, "fit.accumulate": 2, "loader.bucket_by_length": False}
    eights = {**settings, "loader.bucket_by_length": False}
    losses = [
        train(pretraining(places["unlabelled"], **each), out=tmp_path / name, progress=None).metrics["valid"]
        for name, each in (("halves", halves), ("eights", eights))
    ]
    for name, value in losses[0].items():
        torch.testing.assert_close(value, losses[1][name], **FLOAT32)


def test_a_valid_split_is_taken_of_samples_without_labels(places: dict[str, Path], tmp_path: Path) -> None:
    alone = places["train alone"]
    with pytest.raises(DataError, match=r"has no split 'valid'"):
        plan(pretraining(alone), out=tmp_path / "run")
    ready = plan(pretraining(alone, split_valid=0.25), out=tmp_path / "run")
    assert {role: len(split) for role, split in ready.corpus.splits.items()} == {"train": 24, "valid": 8}
    for_both = [
        plan(make(places["labelled train alone"], split_valid=0.25)).corpus.split("valid").ids
        for make in (config, pretraining)
    ]
    assert for_both[0] == for_both[1], "a run that starts from it validates on the same samples"
    with pytest.raises(DataError, match=r"is unlabelled"):
        plan(config(alone, split_valid=0.25), out=tmp_path / "run")


def test_a_pretrained_run_predicts_nothing(places: dict[str, Path], first: Path, tmp_path: Path) -> None:
    uses = (
        lambda: evaluate(first),
        lambda: predict(first, places["unlabelled"], tmp_path / "out.csv"),
        lambda: open_run(first),
    )
    for use in uses:
        with pytest.raises(CheckpointError, match=r"pretrained run, which predicts nothing; train from it"):
            use()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pretrain.share": 1.0}, r"pretrain.share: .*less than 1"),
        ({"pretrain.span": 0}, r"pretrain.span: .*greater than or equal to 1"),
        ({"pretrain.hiding": 1}, r"pretrain.hiding: unknown key"),
        ({"pretrain.reconstruction": 0.0, "pretrain.matching": 0.0}, r"pretrain: found weights 0"),
        ({"objective": "task"}, r"pretrain: found settings of it with objective 'task'"),
        (
            {"fit.select": "accuracy"},
            r"fit.select: found 'accuracy' with objective 'pretrain', expected loss",
        ),
        ({"fit.class_weights": "balanced"}, r"fit.class_weights: found with objective 'pretrain'"),
        ({"subset.size": 8}, r"subset.size: found with objective 'pretrain', which learns from no label"),
        ({"fit.compile": True}, r"fit.compile: found true with objective 'pretrain'"),
        ({"model": "tfn"}, r"model tfn cannot be pretrained: it has no output for each token"),
        (
            {"modalities": ["audio"], "pretrain.reconstruction": 0.0},
            r"pretrain.reconstruction: found 0 with one modality",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    places: dict[str, Path], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    if "model" in settings:
        settings = {**settings, "options.d_model": 8}
    given = {"data": str(places["unlabelled"]), "objective": "pretrain", "pretrain.span": 2}
    with pytest.raises(AlignMambaError, match=message):
        plan(read_config(overrides={**given, **settings}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_digests_of_other_runs_know_nothing_of_it(places: dict[str, Path]) -> None:
    corpus = plan(config(places["labelled"])).corpus
    plain, learned = config(places["labelled"]), pretraining(places["labelled"])
    assert learned.digest(corpus) != plain.digest(corpus)
    longer = pretraining(places["labelled"], **{"pretrain.span": 3})
    assert longer.digest(corpus) != learned.digest(corpus)
    with pytest.raises(ConfigError):
        config(places["labelled"], **{"pretrain.span": 3})
