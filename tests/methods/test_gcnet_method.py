"""GCNet: graphs reach as far as their window, conversations are apart, and only what was withheld is
reconstructed.
"""

from dataclasses import replace

import pytest
import torch
from every_method import TASKS, batch_of, network, prepared, sources

from alignmamba.methods.gcnet import GRAPH_COMPLETION, WindowGraph
from alignmamba.training.objective import Parcel
from tolerances import FLOAT32

TASK = TASKS["regression"]


@pytest.mark.parametrize("relations", ["time", "speaker"])
@pytest.mark.parametrize("window", [0, 1, 2])
def test_a_graph_reaches_twice_its_window(relations, window: int) -> None:
    torch.manual_seed(0)
    graph = WindowGraph(4, 3, window, relations)
    x = torch.randn(1, 9, 4, requires_grad=True)
    graph(x, torch.ones(1, 9, dtype=torch.bool))[0, 4].sum().backward()
    reached = x.grad[0].abs().sum(1) > 0
    assert reached.tolist() == [abs(place - 4) <= 2 * window for place in range(9)]


def test_past_and_future_are_relations_of_their_own_in_time_alone() -> None:
    torch.manual_seed(0)
    x, mask = torch.randn(1, 5, 4), torch.ones(1, 5, dtype=torch.bool)
    for relations, alike in (("time", False), ("speaker", True)):
        graph = WindowGraph(4, 3, 1, relations)
        assert torch.allclose(graph(x.flip(1), mask).flip(1), graph(x, mask), atol=1e-6) == alike


def test_utterances_that_are_padding_are_joined_to_none() -> None:
    torch.manual_seed(0)
    graph = WindowGraph(4, 3, 2, "time")
    x = torch.randn(1, 5, 4)
    mask = torch.tensor([[True, True, True, False, False]])
    torch.testing.assert_close(graph(x, mask)[:, :3], graph(x[:, :3], mask[:, :3]), **FLOAT32)


@torch.no_grad()
def test_conversations_are_read_apart_and_in_any_order() -> None:
    model = network(GRAPH_COMPLETION, TASK).eval()
    batch = batch_of(TASK)
    expected = model(batch).prediction
    rows = [4, 0, 5, 1, 6, 2, 7, 3]  # two conversations, one within the other
    torch.testing.assert_close(model(batch.select(rows)).prediction, expected[rows], **FLOAT32)
    assert not torch.allclose(model(batch.select([0, 1])).prediction, expected[:2])


@torch.no_grad()
def test_without_groups_each_sample_is_a_conversation() -> None:
    model = network(GRAPH_COMPLETION, TASK).eval()
    batch = replace(batch_of(TASK), groups=None)
    alone = torch.cat([model(each).prediction for each in (batch.select([row]) for row in range(len(batch)))])
    torch.testing.assert_close(model(batch).prediction, alone, **FLOAT32)


def test_only_what_was_withheld_is_reconstructed() -> None:
    objective = prepared(GRAPH_COMPLETION, TASK).train()
    batch = next(iter(sources(GRAPH_COMPLETION, TASK, missing=True)[0]))
    for part in objective.modules():
        part.training = not isinstance(part, (torch.nn.Dropout, torch.nn.LSTM))
    first = objective(Parcel(batch))[1]["reconstruction"]
    hidden = torch.stack([s.mask.any(1) for s in batch.withheld.values()], 1).any(1)
    assert hidden.any()
    assert not hidden.all()
    assert (first[hidden] > 0).all()
    assert not first[~hidden].any()
    other = {name: s.with_tensors(features=s.features + 1) for name, s in batch.withheld.items()}
    second = objective(Parcel(replace(batch, withheld=other)))[1]
    assert not torch.equal(first, second["reconstruction"])
    assert torch.equal(objective(Parcel(batch))[1]["task"], second["task"])


def test_a_run_that_withholds_nothing_has_something_withheld_in_training_alone() -> None:
    objective = prepared(GRAPH_COMPLETION, TASK).train()
    assert objective(Parcel(batch_of(TASK)))[1]["reconstruction"].any()
    assert set(objective.eval()(Parcel(batch_of(TASK)))[1]) == {"task"}
