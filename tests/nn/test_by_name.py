"""Containers by names of users."""

import pytest
import torch
from torch import nn

from alignmamba.nn.by_name import ModulesByName, WeightsByName

NAMES = ("text", "type", "values", "keys", "items", "train", "training", "to", "forward", "T_destination")


def test_modules_have_any_names() -> None:
    made = {name: nn.Linear(width, 1) for width, name in enumerate(NAMES, 1)}
    found = ModulesByName(made)
    assert list(found) == list(found.keys()) == list(NAMES)
    assert dict(found.items()) == made
    assert all(found[name] is made[name] and name in found for name in NAMES)
    assert "pop" not in found
    assert "text.weight" in found.state_dict(), "other names are called as ever"
    again = ModulesByName({name: nn.Linear(width, 1) for width, name in enumerate(NAMES, 1)})
    again.load_state_dict(found.train(False).state_dict())
    assert all(torch.equal(again[name].weight, made[name].weight) for name in NAMES)
    assert len(list(found.parameters())) == 2 * len(NAMES)
    assert found.pop("type") is made["type"]
    assert "type" not in found


@pytest.mark.parametrize("name", NAMES)
def test_weights_have_any_names(name: str) -> None:
    weight = nn.Parameter(torch.ones(2))
    found = WeightsByName({"text": nn.Parameter(torch.zeros(1)), name: weight})
    assert found[name] is weight
    assert dict(found.items())[name] is weight
    assert "pop" not in found
    assert found.state_dict().keys() >= ({"text"} if name != "text" else set())
