"""Recurrent networks over masks equal torch's own on each sample alone."""

import pytest
import torch

from alignmamba.nn.recurrent import Cell, LastState, Recurrent
from tolerances import FLOAT32


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("depth", "bidirectional"), [(1, False), (1, True), (2, True)])
def test_each_sample_is_read_as_if_it_were_alone(cell: Cell, depth: int, bidirectional: bool) -> None:
    torch.manual_seed(0)
    model = Recurrent(3, 4, depth=depth, bidirectional=bidirectional, cell=cell)
    lengths = [5, 2, 0, 1]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    x = torch.randn(4, 6, 3).masked_fill(~mask.unsqueeze(-1), torch.nan)
    states = model(x, mask)
    assert states.tokens.shape == (4, 6, model.width)
    for row, length in enumerate(lengths):
        assert not states.tokens[row, length:].any()
        if length == 0:
            assert not states.final[row].any()
            continue
        alone, last = model.cells(x[row : row + 1, :length])
        hidden = last[0] if cell == "lstm" else last
        torch.testing.assert_close(states.tokens[row, :length], alone[0], **FLOAT32)
        expected = torch.cat([hidden[-2, 0], hidden[-1, 0]]) if bidirectional else hidden[-1, 0]
        torch.testing.assert_close(states.final[row], expected, **FLOAT32)
    states.final.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_is_exported_reads_the_same(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Recurrent(3, 4, depth=2, bidirectional=True, cell=cell).eval()
    mask = torch.arange(6) < torch.tensor([5, 2, 0, 1])[:, None]
    x = torch.randn(4, 6, 3)
    with torch.no_grad():
        expected = model(x, mask)
        monkeypatch.setattr("alignmamba.nn.recurrent.exporting", lambda: True)
        found = model(x, mask)
    torch.testing.assert_close(found.tokens, expected.tokens, **FLOAT32)
    torch.testing.assert_close(found.final, expected.final, **FLOAT32)


def test_nothing_to_read_is_a_zero_state() -> None:
    model = LastState(3, 4, 2)
    empty = model(torch.zeros(2, 0, 3), torch.zeros(2, 0, dtype=torch.bool))
    torch.testing.assert_close(empty, model.project.bias.expand(2, 2))
