"""The contract of a network can be broken, and is then refused."""

from typing import Any, ClassVar

import pytest
import torch

from alignmamba.contracts import Batch, ModalitySpec, Output, Task
from alignmamba.errors import ShapeError
from alignmamba.methods import FAMILIES
from alignmamba.models.heads import Head
from alignmamba.models.network import Network, NetworkConfig
from alignmamba.training.objective import Parcel, Supervised

SPECS = (ModalitySpec(name="audio", dim=3),)
TASK = Task(kind="regression")


class Mean(Network[NetworkConfig]):
    """The smallest network: a head on the mean of one modality."""

    config_class: ClassVar[type[NetworkConfig]] = NetworkConfig
    summary: ClassVar[str] = "Mean"
    tags: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.head = Head(3, config.task, dropout=0.0)

    def _predict(self, batch: Batch) -> Output:
        s = batch.modalities["audio"]
        mean = s.features.masked_fill(~s.mask.unsqueeze(-1), 0).sum(1) / s.lengths[:, None]
        return Output(prediction=self.head(mean), embedding=mean)


def batch() -> Batch:
    return Batch.of({"audio": [torch.randn(4, 3), torch.randn(2, 3)]}, targets=[1.0, 2.0])


def test_a_network_needs_no_more_than_a_way_to_predict() -> None:
    network = Mean(NetworkConfig.preset("default", modalities=SPECS, task=TASK))
    assert network(batch()).prediction.shape == (2,)
    assert network(batch(), return_plans=True).plans == {}
    assert network.strides == {"audio": 1}
    assert network.aligned_streams(batch()) is None
    assert type(Mean.for_regression({"audio": 3})) is Mean


def test_one_that_does_not_say_how_it_predicts_cannot_be_made() -> None:
    class Silent(Network[NetworkConfig]):
        config_class: ClassVar[type[NetworkConfig]] = NetworkConfig

    made: Any = Silent
    with pytest.raises(TypeError, match="_predict"):
        made(NetworkConfig(modalities=SPECS, task=TASK))


def test_what_merely_looks_like_one_is_none() -> None:
    assert not isinstance(print, Network)
    assert not isinstance(torch.nn.Linear(2, 2), Network)
    assert all(issubclass(family.network, Network) for family in FAMILIES.values())


def test_one_that_returns_something_else_is_refused_in_training() -> None:
    class Wrong(Mean):
        def forward(self, batch: Batch, *, return_plans: bool = False) -> Any:
            return super().forward(batch, return_plans=return_plans).prediction

    network = Wrong(NetworkConfig(modalities=SPECS, task=TASK))
    with pytest.raises(ShapeError, match=r"^Wrong: expected an Output, found Tensor$"):
        Supervised(network, TASK)(Parcel(batch()))
