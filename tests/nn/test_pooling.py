"""Pooling token by token equals pooling the whole."""

import pytest
import torch

from alignmamba.nn.pooling import POOLINGS, PooledState, Pooling, pool_step
from tolerances import MODEL


@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_step_by_step_equals_whole(pooling: Pooling) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3)
    state = PooledState(torch.zeros(2, 3), torch.zeros(2))
    for time in range(5):
        state = pool_step(pooling, state, x[:, time])
        whole = POOLINGS[pooling](x[:, : time + 1], torch.ones(2, time + 1, dtype=torch.bool))
        torch.testing.assert_close(state.value, whole, **MODEL)
        assert state.count.tolist() == [time + 1] * 2
