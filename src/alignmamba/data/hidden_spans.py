"""Spans of tokens that are hidden from a network that is pretrained."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alignmamba.data.randomness import generator


def hidden_spans(
    ids: Sequence[str],
    lengths: Sequence[int],
    *,
    modality: str,
    share: float,
    span: int,
    seed: int,
    epoch: int | None,
) -> NDArray[np.bool_]:
    """Draw which tokens of one modality are hidden in each sample.

    A sequence is cut into spans from a random place on, its ends may be shorter, and a share of the spans is
    hidden; a remainder decides by chance over one span more. A draw belongs to seed, epoch, sample and
    modality: it does not depend on batches, processes or an interruption.

    Args:
        ids: Identity of each sample.
        lengths: Tokens of each sample; 0 where the modality is missing.
        modality: Name of the modality.
        share: Part of the spans that is hidden, from 0 to 1.
        span: Tokens of a span.
        seed: Seed of the run.
        epoch: Epoch of training, from 0; ``None`` where every epoch has the same draw.

    Returns:
        (samples, longest) bool, true at hidden tokens; never beyond the length of a sample.
    """
    hidden = np.zeros((len(ids), max(lengths, default=0)), dtype=np.bool_)
    when = "always" if epoch is None else epoch
    for row, (identity, length) in enumerate(zip(ids, lengths, strict=True)):
        if length:
            random = generator(seed, "hidden", when, modality, identity)
            part = (np.arange(length) + random.integers(span)) // span
            part -= part[0]
            count = int(share * (part[-1] + 1) + random.random())
            hidden[row, :length] = (random.permutation(part[-1] + 1) < count)[part]
    return hidden
