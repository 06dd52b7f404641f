"""Weights of modalities that are chosen on the valid split after training."""

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from scipy import optimize, special

from alignmamba.contracts import Batch, ModalitySpec, Output, Sample, Task, WeighsModalities
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.training import modality_weights
from alignmamba.training.fit_config import FitConfig
from alignmamba.training.loop import fit
from alignmamba.training.modality_weights import weigh_modalities
from alignmamba.training.objective import Supervised

SPECS = (ModalitySpec(name="sound", dim=3), ModalitySpec(name="lips", dim=3))
CLASSES = Task(kind="classification", classes=("a", "b", "c"))
NUMBER = Task(kind="regression")
FABRIC = Fabric(accelerator="cpu", devices=1)


class Sum(torch.nn.Module, WeighsModalities):
    """The sum of the first tokens of two modalities as scores, or of their first channels as a number."""

    def __init__(self, task: Task = CLASSES, *, chosen: bool = True) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.ones(2))
        self.number, self.chosen = task.kind == "regression", chosen

    @property
    def weighed(self) -> Mapping[str, str]:
        return {"sound": "sound", "lips": "lips"} if self.chosen else {}

    def weighed_prediction(
        self, embedding: torch.Tensor, present: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        factors = present * weights * self.weights
        scores = (embedding.view(-1, 2, 3) * factors[..., None]).sum(1)
        return scores[:, 0] if self.number else scores

    def weigh(self, weights: torch.Tensor) -> None:
        self.weights.data.mul_(weights)

    def forward(self, batch: Batch) -> Output:
        embedding = torch.cat([batch.modalities[spec.name].features[:, 0] for spec in SPECS], 1)
        present = torch.stack([batch.having(spec.name) for spec in SPECS], 1)
        return Output(
            prediction=self.weighed_prediction(embedding, present, torch.ones(2)), embedding=embedding
        )


def samples(count: int, *, task: Task = CLASSES, seed: int = 0) -> list[Sample]:
    """Sound that says the target to some degree, and lips that are sure of something else; some lack one,
    every fifth has no target.
    """
    random = np.random.default_rng(seed)
    found = []
    for row in range(count):
        target = int(random.integers(3))
        sound = random.normal(size=(1, 3)) + 0.8 * np.eye(3)[target]
        lips = 3 * random.normal(size=(1, 3))
        features = {"sound": sound.astype(np.float32), "lips": lips.astype(np.float32)}
        if row % 4 == 3:
            del features["lips" if row % 8 == 3 else "sound"]
        value: Any = target if task.kind == "classification" else float(sound[0, 0] + random.normal() / 2)
        found.append(Sample(id=f"s{row}", features=features, target=None if row % 5 == 4 else value))
    return found


def valid(given: list[Sample], *, task: Task = CLASSES, batch_size: int = 16) -> Loader:
    split = MemorySplit(role="valid", samples=tuple(given), modalities=SPECS)
    return Loader(split, SPECS, config=LoaderConfig(batch_size=batch_size), task=task, shuffle=False, seed=0)


def expected(given: list[Sample], *, by_class: tuple[float, ...] = (1.0, 1.0, 1.0)) -> NDArray[np.float64]:
    """The weights by the formula, from another optimiser, if losses have these weights of classes."""
    known = [sample for sample in given if sample.target is not None]
    scores = np.array(
        [[sample.features.get(spec.name, np.zeros((1, 3)))[0] for spec in SPECS] for sample in known]
    )
    targets = np.array([sample.target for sample in known])

    def cost(logarithms: NDArray[np.float64]) -> float:
        said = special.log_softmax(np.einsum("m,nmc->nc", np.exp(logarithms), scores), axis=1)
        losses = -said[np.arange(len(known)), targets] * np.array(by_class)[targets]
        return float(losses.sum() + (logarithms**2).sum() / 2)

    found: NDArray[np.float64] = np.exp(optimize.minimize(cost, np.zeros(2), method="Nelder-Mead").x)
    return found


def chosen(model: Sum, source: Loader, task: Task = CLASSES) -> Mapping[str, float]:
    return weigh_modalities(Supervised(model, task), source, FABRIC)


@pytest.mark.parametrize("count", [3, 40, 400])
def test_weights_are_those_of_the_formula(count: int) -> None:
    given, model = samples(count), Sum()
    found = chosen(model, valid(given))
    np.testing.assert_allclose(list(found.values()), expected(given), rtol=1e-2)
    torch.testing.assert_close(model.weights.data, torch.tensor([found["sound"], found["lips"]]))


def test_a_modality_that_misleads_loses_its_weight_and_one_sample_changes_little() -> None:
    many = chosen(Sum(), valid(samples(400)))
    assert many["lips"] < 0.1 < 0.5 < many["sound"]
    one = chosen(Sum(), valid(samples(1)))
    assert all(0.3 < weight < 3 for weight in one.values())


def test_batches_do_not_matter() -> None:
    given = samples(40)
    first, second = (chosen(Sum(), valid(given, batch_size=size)) for size in (3, 40))
    assert first == pytest.approx(second, rel=1e-4)


def test_rows_of_several_processes_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    given, sent = samples(40), []

    def gathered(rows: dict[str, Any]) -> list[dict[str, Any]]:
        """Shares of two processes, the last sample of which both have read."""
        sent.append(len(pickle.dumps(rows)) / len(rows))
        names = list(rows)
        return [{name: rows[name] for name in part} for part in (names[1::2], [*names[0::2], names[-1]])]

    monkeypatch.setattr(modality_weights, "gather", gathered)
    found = chosen(Sum(), valid(given, batch_size=40))
    np.testing.assert_allclose(list(found.values()), expected(given), rtol=1e-2)
    assert sent[0] < 3000, "bytes of a sample, without those of its batch"


def test_classes_have_the_weights_that_they_have_in_training() -> None:
    given, by_class = samples(60), (0.2, 1.0, 4.0)
    objective = Supervised(Sum(), CLASSES)
    objective.class_weights = torch.tensor(by_class)
    found = weigh_modalities(objective, valid(given), FABRIC)
    np.testing.assert_allclose(list(found.values()), expected(given, by_class=by_class), rtol=1e-2)
    assert not objective.training
    assert list(found.values()) != pytest.approx(expected(given).tolist(), rel=2e-2)


def test_what_learns_by_the_concordance_is_weighed_by_it() -> None:
    given = samples(200, task=NUMBER)
    known = [sample for sample in given if sample.target is not None]
    truth = np.array([sample.target for sample in known])
    parts = np.array(
        [[sample.features.get(spec.name, np.zeros((1, 3)))[0, 0] for spec in SPECS] for sample in known]
    )

    def cost(logarithms: NDArray[np.float64]) -> float:
        said = parts @ np.exp(logarithms)
        spread = said.var() + truth.var() + (said.mean() - truth.mean()) ** 2
        agreement = 2 * ((said - said.mean()) * (truth - truth.mean())).mean() / spread
        return float(len(truth) * (1 - agreement) + (logarithms**2).sum() / 2)

    objective = Supervised(Sum(NUMBER), NUMBER, regression_loss="ccc")
    found = weigh_modalities(objective, valid(given, task=NUMBER), FABRIC)
    best = np.exp(optimize.minimize(cost, np.zeros(2), method="Nelder-Mead").x)
    np.testing.assert_allclose(list(found.values()), best, rtol=2e-2)


def test_a_target_that_is_not_learned_gives_no_weights() -> None:
    objective = Supervised(Sum(), CLASSES)
    objective.task_weight = 0
    assert weigh_modalities(objective, valid(samples(40)), FABRIC) == {}


def test_a_number_is_weighed_by_the_loss_that_it_is_learned_by() -> None:
    given = samples(400, task=NUMBER)
    found = chosen(Sum(NUMBER), valid(given, task=NUMBER), NUMBER)
    assert found["lips"] < 0.2
    assert found["sound"] == pytest.approx(1.0, abs=0.2)


def test_gradients_of_the_model_stay_as_they_were() -> None:
    model = Sum()
    chosen(model, valid(samples(40)))
    assert model.weights.grad is None


def test_what_is_not_to_be_weighed_is_left_alone() -> None:
    model = Sum(chosen=False)
    assert chosen(model, valid(samples(40))) == {}
    assert model.weights.tolist() == [1, 1]


def test_fitting_ends_with_weights_and_reports_them() -> None:
    given, task = samples(40), CLASSES
    split = MemorySplit(role="train", samples=tuple(given), modalities=SPECS)
    train = Loader(split, SPECS, config=LoaderConfig(batch_size=8), task=task, shuffle=True, seed=0)
    result = fit(
        model := Sum(),
        train,
        valid(given),
        FitConfig(epochs=1, learning_rate=1e-12),
        task=task,
        score=lambda _: {"accuracy": 0.5},
        higher_is_better={"accuracy": True},
        fabric=FABRIC,
    )
    np.testing.assert_allclose(list(result.modality_weights.values()), expected(given), rtol=1e-2)
    np.testing.assert_allclose(model.weights.tolist(), expected(given), rtol=1e-2)
