"""Memory that passes over all pairs of two long sequences hold."""

from collections.abc import Callable
from importlib import import_module

import pytest
from torch import Tensor

from alignmamba.evaluation.computing_cost import alive_bytes
from alignmamba.ops import order_contrast, soft_transport, time_contrast, transport_distance
from drawn import draw, prefix_mask
from instruments import LargePlaces

ENTRIES = 2048
Sides = tuple[Tensor, Tensor, Tensor, Tensor]

OPERATORS: dict[str, Callable[[Sides], Tensor]] = {
    "time_contrast": lambda sides: time_contrast(*sides),
    "order_contrast": lambda sides: order_contrast(*sides, sides[0][0, 0].detach(), flat=True),
    "soft_transport": lambda sides: soft_transport(*sides).values,
    "soft_transport, both": lambda sides: soft_transport(*sides, marginal="both", iterations=2).values,
    "soft_transport, window": lambda sides: soft_transport(*sides, window=100).values,
    "soft_transport, times": lambda sides: soft_transport(*sides, time_weight=1.0).values,
    "transport_distance": lambda sides: transport_distance(*sides, iterations=2),
}


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("time_contrast", "order_contrast", "entropic_transport"):
        monkeypatch.setattr(import_module(f"alignmamba.ops.{name}"), "_TILE_ENTRIES", ENTRIES)


def learnt(operator: str, time: int) -> Callable[[], None]:
    """A call of an operator on two sequences, with gradients."""
    source, anchor = (draw(1, time, 4, seed=seed).requires_grad_() for seed in (0, 1))
    mask = prefix_mask([time], time)
    return lambda: OPERATORS[operator]((source, anchor, mask, mask)).sum().backward()


@pytest.mark.parametrize("operator", OPERATORS)
def test_places_of_tiles_are_taken_once(operator: str) -> None:
    """Resident memory grew with the square of the length where each tile had a place of its own."""
    with LargePlaces(ENTRIES * 3 // 4) as places:
        learnt(operator, 256)()
    assert places.number <= 5


@pytest.mark.parametrize("operator", OPERATORS)
def test_tensors_alive_grow_no_faster_than_the_lengths(operator: str) -> None:
    short, long = (alive_bytes(learnt(operator, time)) for time in (256, 512))
    assert long <= 2.1 * short
