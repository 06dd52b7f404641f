"""Streams that exchange a part of their channels, as Pan-Mamba and Fusion-Mamba do between two images."""

from collections.abc import Mapping

import torch
from torch import Tensor

from alignmamba.nn.alignment import Tokens
from alignmamba.ops import resample


def swap_channels(
    streams: Mapping[str, Tokens], present: Mapping[str, Tensor], swapped: Tensor
) -> dict[str, Tensor]:
    """Give each stream some channels of the next one, in a circle of the streams that a sample has.

    Between two streams of equal length this is an exchange, and twice is not at all. What comes from a stream
    of another length is resampled to the own one by relative time.

    Args:
        streams: Each modality's tokens, all of one width, at least one valid in every sample.
        present: For each modality, (batch,) bool: the samples in which it sends; it receives in all.
        swapped: (width,) bool, the channels that move.

    Returns:
        Each stream's tokens, (batch, its time, width); as they were in samples where nobody else sends.

    Source:
        He et al., arXiv:2402.12192; Dong et al., arXiv:2404.09146. More than two streams and other lengths
        are our extension.
    """
    names = list(streams)
    after = {}
    for number, name in enumerate(names):
        own = streams[name]
        x = own.x
        waiting = torch.ones_like(present[name])
        for other in (*names[number + 1 :], *names[:number]):
            arrived = resample(streams[other].x, streams[other].mask, own.mask)
            rows = waiting & present[other]
            x = torch.where(rows[:, None, None] & swapped, arrived, x)
            waiting = waiting & ~rows
        after[name] = x
    return after
