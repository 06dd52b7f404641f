"""Channel swapping: an exchange between two streams, a circle of those present among more."""

from dataclasses import replace

import torch
from torch import Tensor

from alignmamba.nn.alignment import Tokens
from alignmamba.nn.channel_swap import swap_channels
from alignmamba.nn.masked_convolution import TimeConvolution
from tolerances import EXACT, FLOAT32

SWAPPED = torch.tensor([True, True, False, False])


def stream(value: float, *lengths: int) -> Tokens:
    """Tokens of one value, one sample per length."""
    longest = max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    x = torch.full((*mask.shape, 4), value).masked_fill(~mask.unsqueeze(2), 0)
    return Tokens(x, mask, torch.full(mask.shape, torch.nan, dtype=torch.float64))


def all_present(names: str, count: int) -> dict[str, Tensor]:
    return dict.fromkeys(names, torch.ones(count, dtype=torch.bool))


def test_between_two_streams_it_is_an_exchange_and_twice_is_not_at_all() -> None:
    torch.manual_seed(0)
    given = {name: replace(stream(0.0, 5, 3), x=torch.randn(2, 5, 4)) for name in "ab"}
    present = all_present("ab", 2)
    valid = given["a"].mask.unsqueeze(2)
    once = swap_channels(given, present, SWAPPED)
    torch.testing.assert_close(once["a"][..., :2] * valid, given["b"].x[..., :2] * valid, **FLOAT32)
    torch.testing.assert_close(once["b"][..., :2] * valid, given["a"].x[..., :2] * valid, **FLOAT32)
    twice = swap_channels({name: replace(given[name], x=x) for name, x in once.items()}, present, SWAPPED)
    for name, x in twice.items():
        torch.testing.assert_close(x * valid, given[name].x * valid, **FLOAT32)
        torch.testing.assert_close(once[name][..., 2:], given[name].x[..., 2:], **EXACT)


def test_among_three_channels_go_round_past_a_missing_stream() -> None:
    given = {name: stream(value, 2, 4) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    present = all_present("abc", 2)
    assert {name: x[1, 0].tolist() for name, x in swap_channels(given, present, SWAPPED).items()} == {
        "a": [2, 2, 1, 1],
        "b": [3, 3, 2, 2],
        "c": [1, 1, 3, 3],
    }
    present["b"] = torch.tensor([True, False])
    after = swap_channels(given, present, SWAPPED)
    assert [after["a"][row, 0].tolist() for row in (0, 1)] == [[2, 2, 1, 1], [3, 3, 1, 1]]
    assert after["c"][1, 0].tolist() == [1, 1, 3, 3]
    alone = swap_channels(
        given,
        {**present, "b": torch.zeros(2, dtype=torch.bool), "c": torch.zeros(2, dtype=torch.bool)},
        SWAPPED,
    )
    torch.testing.assert_close(alone["a"], given["a"].x, **EXACT)


def test_other_lengths_are_brought_to_the_receivers_by_relative_time() -> None:
    ramp = torch.arange(6.0)[None, :, None].expand(1, 6, 4)
    given = {"a": stream(0.0, 3), "b": replace(stream(0.0, 6), x=ramp)}
    after = swap_channels(given, all_present("ab", 1), SWAPPED)
    assert after["a"][0, :, 0].tolist() == [0.5, 2.5, 4.5]
    assert after["b"][0, :, 3].tolist() == ramp[0, :, 3].tolist()


def test_no_padding_enters_the_convolution() -> None:
    torch.manual_seed(0)
    layer, x = TimeConvolution(4, 4, 3, by_channel=True), torch.randn(1, 5, 4)
    mask = torch.arange(5)[None] < 3
    dirty = x.masked_fill(~mask.unsqueeze(2), torch.nan)
    torch.testing.assert_close(layer(dirty, mask)[:, :3], layer(x[:, :3], mask[:, :3]), **FLOAT32)
    (gradient,) = torch.autograd.grad(layer(x, mask)[0, 1, 2], layer.weight)
    assert gradient[2].any()
    assert not gradient[[0, 1, 3]].any()
