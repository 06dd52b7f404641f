"""Pooled linear models against scikit-learn: the same statistics, weights and probabilities."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from every_method import SPECS, TASKS, batch_of, learn, prepared, sources, split
from lightning_fabric import Fabric

from alignmamba import capacity
from alignmamba.contracts import ModalitySpec, Sample, Task
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.standardise import fit_standardisation
from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS
from alignmamba.methods.pooled_linear import PENALTIES
from alignmamba.nn.pooling import moments_and_ends, token_counts
from alignmamba.training.fit_config import FitConfig
from alignmamba.training.loop import fit
from alignmamba.training.objective import Objective, Stage

METHOD = METHODS["pooled-linear"]


def by_hand(samples: MemorySplit, train: MemorySplit) -> np.ndarray:
    """Standardised statistics, from raw features by NumPy; 0 for what a sample lacks."""
    rows = {which: [_statistics(sample) for sample in each] for which, each in enumerate((samples, train))}
    wanted, seen = (np.array(each) for each in rows.values())
    deviation = np.nanstd(seen, axis=0)
    return np.nan_to_num((wanted - np.nanmean(seen, axis=0)) / np.where(deviation == 0, 1, deviation))


def _statistics(sample: Sample) -> np.ndarray:
    parts: list[Any] = []
    for spec in SPECS:
        x = sample.features.get(spec.name)
        if x is None:
            parts += [np.full(4 * spec.dim, np.nan), [0.0]]
        else:
            x = np.asarray(x, dtype=np.float64)
            parts += [x.mean(0), x.std(0), x.min(0), x.max(0), [1.0]]
    return np.concatenate(parts)


def solved(task: Task, epoch: int) -> Objective:
    """The objective at one penalty, from train batches of eight."""
    objective = prepared(METHOD, task)
    train, _ = sources(METHOD, task, missing=False)
    scale = objective.model.target_scale
    objective.target_scale = scale if scale is not None else objective.target_scale
    objective.prepare(train)
    objective.begin_epoch(Stage(), epoch)
    return objective


@pytest.mark.parametrize("epoch", [0, 6, 12])
def test_a_regression_is_the_ridge_of_scikit_learn(epoch: int) -> None:
    ridge = pytest.importorskip("sklearn.linear_model").Ridge
    task = TASKS["regression"]
    train, unseen = split("train", 24, task), split("test", 8, task, seed=2)
    labels = np.array([sample.target for sample in train])
    found = ridge(alpha=PENALTIES[epoch] * len(labels)).fit(by_hand(train, train), labels)
    said = solved(task, epoch).model.eval()(batch_of(task)).prediction.detach().numpy()
    np.testing.assert_allclose(said, found.predict(by_hand(unseen, train)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("epoch", [0, 6, 12])
def test_a_classification_is_the_logistic_regression_of_scikit_learn(epoch: int) -> None:
    logistic = pytest.importorskip("sklearn.linear_model").LogisticRegression
    task = TASKS["classification"]
    train, unseen = split("train", 24, task), split("test", 8, task, seed=2)
    labels = np.array([sample.target for sample in train])
    found = logistic(C=1 / (PENALTIES[epoch] * len(labels)), tol=1e-8, max_iter=10_000)
    found.fit(by_hand(train, train), labels)
    said = solved(task, epoch).model.eval()(batch_of(task)).prediction.detach().softmax(1).numpy()
    np.testing.assert_allclose(said, found.predict_proba(by_hand(unseen, train)), atol=2e-4)


def test_the_penalty_with_the_best_score_on_valid_is_kept() -> None:
    task = TASKS["regression"]
    objective = prepared(METHOD, task)
    result = learn(objective, *sources(METHOD, task, missing=False))
    scores = [record["valid/mae"] for record in result.history]
    assert len(scores) == len(PENALTIES)
    assert result.best_epoch == 1 + int(np.argmin(scores))
    kept = {name: value.clone() for name, value in objective.model.state_dict().items()}
    objective.begin_epoch(Stage(), result.best_epoch - 1)
    for name, value in objective.model.state_dict().items():
        assert torch.equal(value, kept[name]), name


def test_all_penalties_are_tried_whatever_the_patience() -> None:
    task = TASKS["regression"]
    constant = {"mae": 1.0}
    result = fit(
        prepared(METHOD, task),
        *sources(METHOD, task, missing=False),
        FitConfig(patience=1, select="mae"),
        task=task,
        score=lambda _: constant,
        higher_is_better={"mae": False},
        fabric=Fabric(accelerator="cpu", devices=1),
    )
    losses = [record["valid/loss/total"] for record in result.history]
    best = 1 + int(np.argmin(losses))  # of equal scores
    assert (len(losses), result.best_epoch, result.stopped) == (len(PENALTIES), best, "epochs")


def test_neither_seed_nor_order_of_batches_changes_it() -> None:
    task = TASKS["classification"]
    found = []
    for seed, size in ((0, 8), (7, 5)):
        objective = prepared(METHOD, task)
        source = Loader(
            split("train", 24, task),
            SPECS,
            config=LoaderConfig(batch_size=size),
            task=task,
            shuffle=True,
            seed=seed,
        )
        torch.manual_seed(seed)
        objective.prepare(source)
        objective.begin_epoch(Stage(), 5)
        found.append(objective.model.state_dict()["head.weight"])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_tokens_are_counted() -> None:
    ids = torch.tensor([[1, 1, 3, 99], [0, 2, -7, -7]])
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    expected = torch.tensor([[0, 2, 0, 1], [1, 0, 1, 0]]).float().log1p()
    assert torch.equal(token_counts(ids, mask, 4), expected)


def test_a_corpus_of_words_is_learned_by_the_words_that_tell_its_classes() -> None:
    spec, task = (
        ModalitySpec(name="text", dim=6, kind="tokens"),
        Task(kind="classification", classes=("a", "b")),
    )
    samples = [
        Sample(id=f"train-{row}", features={"text": np.array([[row % 2], [4], [5]])}, target=row % 2)
        for row in range(12)
    ]
    train = MemorySplit(role="train", samples=tuple(samples), modalities=(spec,))
    made: Any = METHOD.network
    model = made(METHOD.network.config_class(modalities=(spec,), task=task))
    model.standardise(fit_standardisation(train, (spec,), task))
    objective = METHOD.objective(model, task)
    loader = Loader(train, (spec,), config=LoaderConfig(batch_size=4), task=task, shuffle=True, seed=0)
    objective.prepare(loader)
    objective.begin_epoch(Stage(), 8)
    weight = model.head.weight.detach()
    assert float(weight[0, 0]) > 0 > float(weight[0, 1])
    torch.testing.assert_close(weight[:, 2:], torch.zeros(2, 5))


def test_statistics_of_valid_tokens_alone() -> None:
    x = torch.tensor([[[1.0], [3.0], [50.0]], [[7.0], [7.0], [7.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert moments_and_ends(x, mask).tolist() == [[2.0, 1.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0]]
    assert moments_and_ends(x[:, :0], mask[:, :0]).tolist() == [[0.0] * 4] * 2


def test_statistics_beyond_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task = TASKS["regression"]
    objective = prepared(METHOD, task)
    train, _ = sources(METHOD, task, missing=False)
    monkeypatch.setattr(capacity, "available_bytes", lambda _="cpu": 1000)
    with pytest.raises(ConfigError, match="pooled-linear: 63 statistics of 24 samples needs"):
        objective.prepare(train)


def test_a_modality_that_train_always_has_says_nothing_by_being_there() -> None:
    task = TASKS["regression"]
    samples = tuple(
        replace(
            sample,
            features={
                spec.name: sample.features.get(spec.name, np.ones((2, spec.dim), "f4")) for spec in SPECS
            },
        )
        for sample in split("train", 24, task)
    )
    train = MemorySplit(role="train", samples=samples, modalities=SPECS)
    model = prepared(METHOD, task).model
    objective = METHOD.objective(model, task)
    objective.prepare(
        Loader(train, SPECS, config=LoaderConfig(batch_size=8), task=task, shuffle=False, seed=0)
    )
    objective.begin_epoch(Stage(), 6)
    flags = np.cumsum([4 * spec.dim + 1 for spec in SPECS]) - 1
    assert not model.get_parameter("head.weight")[:, flags].any()
