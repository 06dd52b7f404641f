"""Convolution over time that padding cannot enter."""

from torch import Tensor, nn


class TimeConvolution(nn.Conv1d):
    """Centred convolution that sees zeros in place of padding, as it does past the ends.

    Args:
        width: Channels of a token.
        out: Channels of the result.
        kernel_size: Tokens, an odd number.
        by_channel: Whether each channel has a filter of its own and sees no other.
    """

    def __init__(self, width: int, out: int, kernel_size: int, *, by_channel: bool = False) -> None:
        super().__init__(width, out, kernel_size, padding=kernel_size // 2, groups=width if by_channel else 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """(batch, time, width) and its mask (batch, time) to (batch, time, out)."""
        return super().forward(x.masked_fill(~mask.unsqueeze(-1), 0).transpose(1, 2)).transpose(1, 2)
