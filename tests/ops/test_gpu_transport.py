"""Triton's matching and transport against dense float64; under Triton's interpreter where there is no GPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alignmamba.ops import match_tokens
from instruments import unwritten_is_nan
from tolerances import FLOAT32

pytest.importorskip("triton", reason="triton is not installed")

from alignmamba.ops.gpu import transport
from alignmamba.ops.gpu.transport import match, segment_sum

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Two scores closer than this may change places in float32.
GAP = 1e-5


def tokens(batch: int, time: int, channel: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A slice of a wider tensor, its rows of very different lengths."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(batch, time, channel + 3, generator=generator) * torch.rand(
        batch, time, 1, generator=generator
    )
    return wide.to(DEVICE, dtype)[..., 3:]


def ranges(batch: int, rows: int, first: int, last: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.full((batch, rows), edge, dtype=torch.int32, device=DEVICE) for edge in (first, last))  # type: ignore[return-value]


def scores(
    source: Tensor, anchor: Tensor, source_times: Tensor, anchor_times: Tensor, time_weight: float
) -> Tensor:
    cosine = F.normalize(source.double(), dim=-1) @ F.normalize(anchor.double(), dim=-1).transpose(1, 2)
    return (
        cosine
        - time_weight * (source_times.double().unsqueeze(2) - anchor_times.double().unsqueeze(1)).square()
    )


def assert_best(index: Tensor, score: Tensor, first: Tensor, last: Tensor) -> None:
    """The chosen column is allowed, and no allowed one is better by more than rounding."""
    column = torch.arange(score.shape[2], device=score.device)
    score = score.masked_fill((column < first.unsqueeze(2)) | (column >= last.unsqueeze(2)), -torch.inf)
    some = (last > first) & (first < score.shape[2])
    assert torch.equal(index >= 0, some)
    chosen = score.gather(2, index.clamp(min=0).unsqueeze(2)).squeeze(2)
    assert (chosen >= score.amax(2) - GAP)[some].all()


@pytest.mark.parametrize("time_weight", [0.0, 3.0])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 1, 1, 1), torch.float32),
        ((1, 63, 65, 17), torch.float32),
        ((2, 150, 200, 70), torch.float32),
        ((1, 40, 300, 5), torch.float32),
        ((1, 33, 140, 130), torch.bfloat16),
        ((1, 20, 20, 17), torch.float16),
    ],
)
def test_the_best_column(shape: tuple[int, int, int, int], dtype: torch.dtype, time_weight: float) -> None:
    batch, rows, columns, channel = shape
    source, anchor = tokens(batch, rows, channel, dtype=dtype), tokens(batch, columns, channel, 1, dtype)
    times = torch.rand(batch, rows, device=DEVICE), torch.rand(batch, columns, device=DEVICE)
    first, last = ranges(batch, rows, 0, columns)
    with unwritten_is_nan():
        index = match(source, anchor, first, last, *times, time_weight)
        assert torch.equal(index, match(source, anchor, first, last, *times, time_weight))
    assert index.dtype == torch.int64
    assert_best(index, scores(source, anchor, *times, time_weight), first, last)


def test_agrees_with_the_operator() -> None:
    source, anchor = tokens(2, 50, 8), tokens(2, 70, 8, 1)
    mask, anchor_mask = (torch.ones(x.shape[:2], dtype=torch.bool, device=DEVICE) for x in (source, anchor))
    expected, _ = match_tokens(source, anchor, mask, anchor_mask)
    nothing = torch.zeros(2, 0, device=DEVICE)
    assert torch.equal(match(source, anchor, *ranges(2, 50, 0, 70), nothing, nothing, 0.0), expected)


@pytest.mark.parametrize("splits", [1, 2, 4])
def test_ranges_and_shares(splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_splits", lambda *_: splits)
    source, anchor = tokens(2, 140, 9), tokens(2, 260, 9, 1)
    times = torch.rand(2, 140, device=DEVICE), torch.rand(2, 260, device=DEVICE)
    first = torch.arange(140, dtype=torch.int32, device=DEVICE).expand(2, 140) - 5
    last = first + 30
    first = first.clamp(min=0).contiguous()
    # A row that may take nothing, a whole tile of such rows, one column only, and a range that ends past the
    # last column.
    last[0, 3], last[1, :128], last[0, 7], last[0, 139] = 0, 0, first[0, 7] + 1, 400
    with unwritten_is_nan():
        index = match(source, anchor, first, last, *times, 1.0)
    assert_best(index, scores(source, anchor, *times, 1.0), first, last)
    assert index[0, 7] == first[0, 7]


def test_the_lowest_index_wins_a_tie_and_zero_has_cosine_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of signs, sixteen a token: products and norms are exact in any order of adding, so that ties are ties on
    # every processor.
    source = tokens(1, 4, 16).contiguous().sign()
    anchor = -source[:, :1].repeat(1, 200, 1)
    anchor[:, [70, 90, 150]] = source[:, :1]
    source[0, 1], anchor[0, 190] = 0, 0
    nothing = torch.zeros(1, 0, device=DEVICE)
    for splits in (1, 2):
        monkeypatch.setattr(transport, "_splits", lambda *_, splits=splits: splits)
        index = match(source, anchor, *ranges(1, 4, 0, 200), nothing, nothing, 0.0)
        assert index[0, :2].tolist() == [70, 0]
        # Against its own opposite a token rather takes the zero token.
        assert match(source[:, :1], anchor, *ranges(1, 1, 180, 200), nothing, nothing, 0.0).item() == 190


def test_equal_anchor_tokens_are_as_good_as_one_another() -> None:
    """Their products may differ by rounding from column to column: any of them may win, and no other."""
    source = tokens(1, 4, 6).contiguous()
    anchor = -source[:, :1].repeat(1, 200, 1)
    anchor[:, [70, 90, 150]] = source[:, :1]
    nothing = torch.zeros(1, 0, device=DEVICE)
    assert match(source[:, :1], anchor, *ranges(1, 1, 0, 200), nothing, nothing, 0.0).item() in (70, 90, 150)


def test_padding_is_not_read() -> None:
    """Content outside the ranges, NaN included, changes nothing."""
    source, anchor = tokens(1, 10, 4), tokens(1, 40, 4, 1).contiguous()
    nothing = torch.zeros(1, 0, device=DEVICE)
    expected = match(source, anchor, *ranges(1, 10, 0, 30), nothing, nothing, 0.0)
    anchor[:, 30:] = torch.nan
    assert torch.equal(match(source, anchor, *ranges(1, 10, 0, 30), nothing, nothing, 0.0), expected)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 63, 17, 5), torch.float32), ((1, 1, 130, 3), torch.float32), ((2, 40, 4, 6), torch.bfloat16)],
)
def test_segment_sum(shape: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    batch, time, channel, num_anchor = shape
    x = tokens(batch, time, channel, dtype=dtype)
    index = torch.randint(-1, num_anchor, (batch, time), generator=torch.Generator().manual_seed(1)).to(
        DEVICE
    )
    index[index == 1] = 0  # an anchor token that receives nothing
    with unwritten_is_nan():
        total = segment_sum(x, index, num_anchor)
        assert torch.equal(total, segment_sum(x, index, num_anchor))
    slot = index.masked_fill(index < 0, num_anchor).unsqueeze(-1).expand(x.shape)
    expected = x.new_zeros(batch, num_anchor + 1, channel, dtype=torch.float64).scatter_add(
        1, slot, x.double()
    )[:, :num_anchor]
    torch.testing.assert_close(total.double(), expected, **FLOAT32)
    assert not total[:, 1].any()


def test_nothing_in_nothing_out() -> None:
    nothing = torch.zeros(2, 0, device=DEVICE)
    assert match(tokens(2, 0, 3), tokens(2, 4, 3), *ranges(2, 0, 0, 4), nothing, nothing, 0.0).shape == (2, 0)
    assert (match(tokens(2, 3, 3), tokens(2, 0, 3), *ranges(2, 3, 0, 0), nothing, nothing, 0.0) == -1).all()
    assert not segment_sum(tokens(2, 0, 3), torch.zeros(2, 0, dtype=torch.int64, device=DEVICE), 4).any()
