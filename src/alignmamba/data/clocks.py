"""Clocks of a corpus: the times at which its modalities begin."""

from collections.abc import Collection
from typing import Final

import numpy as np

from alignmamba.contracts import Corpus

LOOKED_AT: Final = 64
"""Samples of train, evenly spaced, that stand for all."""
_APART: Final = 0.1
"""Share of the time of a sample by which its modalities begin apart, at least."""
BEGIN_APART: Final = 0.25
"""Share of samples that begin apart from which positions do not say what is at one time."""


def share_apart(corpus: Corpus, *, timeless: Collection[str] = ()) -> float:
    """Share of train's samples in which two modalities begin apart: by a tenth of the time that the sample
    takes, from its first token to its last, or more.

    Args:
        corpus: Up to `LOOKED_AT` samples of its train split are read.
        timeless: Modalities whose times do not count.

    Returns:
        0 to 1, of the samples that are looked at. One in which fewer than two modalities have times begins
        together.
    """
    train = corpus.split("train")
    rows = np.unique(np.linspace(0, len(train) - 1, num=min(LOOKED_AT, len(train))).astype(np.int64))
    names = [spec.name for spec in corpus.modalities if spec.name not in timeless]
    apart = 0
    for row in rows:
        times = train[int(row)].times
        known = [times[name] for name in names if name in times and len(times[name])]
        if len(known) > 1:
            begins = [float(seconds[0]) for seconds in known]
            lasts = max(float(seconds[-1]) for seconds in known) - min(begins)
            apart += max(begins) - min(begins) > _APART * lasts
    return apart / len(rows) if len(rows) else 0.0
