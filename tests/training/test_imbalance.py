"""Weights of classes and samples, and the focal loss."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from toy import CLASSIFICATION, REGRESSION, ToyModel

from alignmamba.contracts import Batch, ModalitySpec, Sample, Target, Task
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.sample_weights import check_sample_weights
from alignmamba.errors import ConfigError, DataError
from alignmamba.training.class_weights import class_weights
from alignmamba.training.fit_config import FitConfig
from alignmamba.training.loss_settings import check_loss_settings
from alignmamba.training.objective import Parcel, Supervised

SPECS = (ModalitySpec(name="text", dim=4), ModalitySpec(name="audio", dim=3))
TARGETS = [0, 0, 0, 0, 0, 1, 1, 2]
LABELS = Task(kind="multilabel", classes=("happy", "sad"))


def samples(**labels: list[Any]) -> tuple[Sample, ...]:
    random = np.random.default_rng(0)
    return tuple(
        Sample(
            id=f"s{row}",
            features={
                "text": random.normal(size=(3, 4)).astype(np.float32),
                "audio": random.normal(size=(2, 3)).astype(np.float32),
            },
            target=target,
            labels={name: values[row] for name, values in labels.items() if values[row] is not None},
        )
        for row, target in enumerate(TARGETS)
    )


def source(given: tuple[Sample, ...], *, batch_size: int = 8, **settings: Any) -> Loader:
    split = MemorySplit(role="train", samples=given, modalities=SPECS)
    config = LoaderConfig(batch_size=batch_size, bucket_by_length=False, **settings)
    return Loader(split, SPECS, config=config, task=CLASSIFICATION, shuffle=False, seed=0)


def batch() -> Batch:
    return next(iter(source(samples())))


def objective() -> Supervised:
    return Supervised(ToyModel(CLASSIFICATION, dropout=0.0), CLASSIFICATION)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    found = class_weights(FitConfig(class_weights="balanced"), CLASSIFICATION, source(samples()))
    assert found is not None
    expected = compute_class_weight("balanced", classes=np.arange(3), y=TARGETS)
    np.testing.assert_allclose(found.numpy(), expected)
    assert float(found[torch.tensor(TARGETS)].mean()) == pytest.approx(1.0)


def test_weights_hold_in_training_alone() -> None:
    weighted = objective()
    plain = weighted.train()(Parcel(batch()))[1]["task"]
    weighted.class_weights = torch.tensor([0.5, 2.0, 4.0])
    found = weighted.train()(Parcel(batch()))[1]["task"]
    torch.testing.assert_close(found, plain * weighted.class_weights[torch.tensor(TARGETS)])
    torch.testing.assert_close(weighted.eval()(Parcel(batch()))[1]["task"], plain)


def test_the_focal_loss_is_its_formula() -> None:
    focused = objective()
    logits = focused.model(batch()).prediction
    likely = logits.softmax(1)[torch.arange(8), torch.tensor(TARGETS)]
    focused.focal_gamma = 2.0
    found = focused.train()(Parcel(batch()))[1]["task"]
    torch.testing.assert_close(found, -((1 - likely) ** 2) * likely.log())
    torch.testing.assert_close(focused.eval()(Parcel(batch()))[1]["task"], -likely.log())


def test_every_term_of_a_sample_has_its_weight() -> None:
    weights = [0.0, 0.5, 1.0, 2.0, 0, 1, 1, 1]
    made = source(samples(trust=weights), weights="trust")
    found = next(iter(made))
    assert found.weights is not None
    weighed = objective().train()(Parcel(found))[1]
    plain = objective().train()(Parcel(replace(found, weights=None)))[1]
    for name, value in plain.items():
        torch.testing.assert_close(weighed[name], value * torch.tensor(weights))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_gradients_do_not_depend_on_how_a_batch_is_divided(size: int) -> None:
    given = samples(trust=[0.0, 0.5, 1.0, 2.0, 0, 1, 1, 3])

    def gradient(size: int) -> torch.Tensor:
        weighed = objective().double().train()
        weighed.class_weights, weighed.focal_gamma = torch.tensor([0.5, 2.0, 4.0]), 1.5
        for part in source(given, batch_size=size, weights="trust"):
            sum(value.sum() for value in weighed(Parcel(part))[1].values()).backward()
        return torch.cat([p.grad.flatten() for p in weighed.parameters() if p.grad is not None])

    torch.testing.assert_close(gradient(size), gradient(8))


@pytest.mark.parametrize("weight", [None, -1.0, "much"])
def test_a_weight_that_is_none_is_refused(weight: Any) -> None:
    made = source(samples(trust=[1.0, weight, *[1.0] * 6]), weights="trust")
    with pytest.raises(DataError, match=r"sample 's1', label 'trust': found .*, expected a number"):
        next(iter(made))


def test_weights_that_do_not_fit_the_task_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fit.class_weights: found 2, expected one for each of 3 classes"):
        class_weights(FitConfig(class_weights=(1.0, 2.0)), CLASSIFICATION, source(samples()))


@pytest.mark.parametrize(
    ("setting", "task"),
    [
        ({"class_weights": "balanced"}, REGRESSION),
        ({"focal_gamma": 2.0}, REGRESSION),
        ({"label_smoothing": 0.1}, REGRESSION),
        ({"label_smoothing": 0.1}, LABELS),
        ({"regression_loss": "ccc"}, CLASSIFICATION),
    ],
)
def test_a_setting_of_a_loss_that_nothing_learns_by_is_refused(setting: dict[str, Any], task: Task) -> None:
    name, value = next(iter(setting.items()))
    with pytest.raises(ConfigError, match=f"fit.{name}: found {value!r}, expected"):
        check_loss_settings(FitConfig(**setting), task)


def test_a_further_target_has_a_use_for_settings_of_its_losses() -> None:
    number = Target(name="valence", labels=("valence",), kind="regression")
    judged = Task(
        kind="regression",
        further=(Target(name="mood", labels=("mood",), kind="classification", classes=("a", "b")),),
    )
    check_loss_settings(FitConfig(label_smoothing=0.1, regression_loss="ccc"), judged)
    check_loss_settings(
        FitConfig(regression_loss="ccc"), CLASSIFICATION.model_copy(update={"further": (number,)})
    )


def test_a_concordance_of_one_sample_is_refused() -> None:
    agreed = FitConfig(regression_loss="ccc")
    with pytest.raises(ConfigError, match="found 'ccc' and steps of one sample, expected steps of several"):
        check_loss_settings(agreed, REGRESSION, step=1)
    check_loss_settings(agreed, REGRESSION, step=2)
    level = Target(name="level", labels=("level",), kind="regression", tokens="audio")
    check_loss_settings(agreed, CLASSIFICATION.model_copy(update={"further": (level,)}), step=1)


def test_weights_of_which_none_counts_are_refused() -> None:
    made = source(samples(trust=[0.0] * 8))
    with pytest.raises(
        DataError, match=r"label 'trust': found 0 for all samples of train, expected one above 0"
    ):
        check_sample_weights(made.split, "trust")
    check_sample_weights(source(samples(trust=[0.0] * 7 + [0.5])).split, "trust")
