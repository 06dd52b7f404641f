"""The comparison with MMSA's classes can fail: on a forgotten weight, on another order, on another
gradient.
"""

from collections.abc import Callable

import pytest
import torch
from mmsa_parity import Pair, check_heads, copy_weights
from torch import nn

X = torch.linspace(-1, 1, 12).reshape(4, 3)
SAME = {"": ""}


def two() -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(2))
    return first, second


def same() -> Pair:
    return copy_weights(*two(), SAME)


def test_equal_networks_agree_in_every_digit() -> None:
    found: dict[str, object] = {}
    pair = same()
    check_heads(pair, {"out": (pair.ours(X), pair.theirs(X))}, found.__setitem__, parameters=26)
    assert found == {
        "network": "Sequential",
        "oracle": "torch.nn.modules.container.Sequential",
        "parameters": 26,
        "outputs differ by": 0.0,
        "gradients differ by": 0.0,
    }


def test_what_has_no_counterpart_is_named() -> None:
    with pytest.raises(AssertionError, match=r"over there alone: \['2.weight', '2.bias'\]"):
        copy_weights(*two(), SAME, ours_alone=("2.",))
    with pytest.raises(AssertionError, match=r"2.weight: the map names no counterpart"):
        copy_weights(*two(), {"0.": "0."})
    with pytest.raises(AssertionError, match=r"2.weight: no '9.weight' over there"):
        copy_weights(*two(), {"0.": "0.", "2.": "9."})
    with pytest.raises(AssertionError, match=r"2.weight: \(2, 4\), over there \(4, 3\)"):
        copy_weights(*two(), {"0.": "2.", "2.": "0."}, ours_alone=("0.",))


def test_another_output_is_a_difference(record_property: Callable[[str, object], None]) -> None:
    pair = same()
    with pytest.raises(AssertionError, match="out: outputs differ by"):
        check_heads(pair, {"out": (pair.ours(X), pair.theirs(X).flip(0))}, record_property)
    with pytest.raises(AssertionError, match="out: outputs differ by"):
        check_heads(pair, {"out": (pair.ours(X), pair.theirs(X) * (1 + 1e-4))}, record_property)
    with pytest.raises(AssertionError, match="found 26 parameters, expected 25"):
        check_heads(pair, {"out": (pair.ours(X), pair.theirs(X))}, record_property, parameters=25)


def test_another_gradient_of_equal_outputs_is_a_difference(
    record_property: Callable[[str, object], None],
) -> None:
    pair = same()
    bias = pair.theirs.get_parameter("2.bias")
    with pytest.raises(AssertionError, match=r"2.bias: gradients differ by"):
        check_heads(pair, {"out": (pair.ours(X), pair.theirs(X) + bias - bias.detach())}, record_property)
