"""Generators of random numbers that come back."""

import torch

from alignmamba.training.generators import forked, random_state, restore_random_state

CPU = torch.device("cpu")


def test_random_states_come_back() -> None:
    state = random_state(CPU)
    first = torch.rand(4)
    restore_random_state(state, CPU)
    assert torch.equal(torch.rand(4), first)


def test_what_is_drawn_in_a_fork_leaves_no_trace() -> None:
    state = random_state(CPU)
    first = torch.rand(4)
    restore_random_state(state, CPU)
    with forked(CPU):
        torch.rand(7)
    assert torch.equal(torch.rand(4), first)
