"""Memories of train samples: micro batches of one step are one, and what a sample lacks stays."""

import torch

from alignmamba.training.sample_memory import SampleMemory


def test_micro_batches_of_a_step_are_written_together() -> None:
    memory = SampleMemory(("a", "b", "c"), {"one": 2})
    for ids, value in ((("c", "a"), 1.0), (("b",), 2.0)):
        rows = memory.rows(ids, torch.device("cpu"))
        vectors = {
            "one": torch.full((len(ids), 2), value, requires_grad=True),
            "two": torch.zeros(len(ids), 5),
        }
        present = {
            "one": torch.tensor([True, False][: len(ids)]),
            "two": torch.ones(len(ids), dtype=torch.bool),
        }
        memory.note(rows, vectors, present)
    assert not memory.known("one").any()
    seen = memory.take()
    assert seen.rows.tolist() == [2, 0, 1]
    assert not seen.vectors["one"].requires_grad
    memory.write(seen)
    assert memory.known("one").tolist() == [False, True, True]
    assert memory.vectors("one").tolist() == [[0, 0], [2, 2], [1, 1]]
    assert set(memory.state_dict()) == {"vectors_one", "known_one"}
    memory.forget()
    assert not memory.known("one").any()
    assert not memory.vectors("one").any()
