"""Clocks of a corpus: whether its modalities begin together."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from alignmamba.contracts import Corpus

LOOKED_AT: Final = 64
"""Samples of train, evenly spaced, that stand for all."""
_APART: Final = 0.1
"""Share of the time that a sample takes; modalities whose beginnings lie further apart begin apart."""
_OFTEN: Final = 0.25
"""Share of samples from which a corpus counts as one whose modalities begin apart."""


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """Samples that were looked at, in which two modalities or more have times."""

    samples: int
    apart: int
    """Those in which modalities begin at different times and yet have some time in common. Clocks that have
    none in common are not one."""

    @property
    def begin_apart(self) -> bool:
        """True if positions do not say what is at one time, and times may."""
        return self.samples > 0 and self.apart >= _OFTEN * self.samples


def clocks_of(corpus: Corpus, *, timeless: Collection[str] = ()) -> Clocks:
    """Look at the times of up to `LOOKED_AT` samples of train, without those of `timeless` modalities."""
    train = corpus.split("train")
    names = [spec.name for spec in corpus.modalities if spec.name not in timeless]
    rows = np.unique(np.linspace(0, len(train) - 1, num=min(LOOKED_AT, len(train))).astype(np.int64))
    samples = apart = 0
    for row in rows:
        times = train[int(row)].times
        known = [times[name] for name in names if name in times and len(times[name])]
        if len(known) > 1:
            begins, ends = ([float(seconds[at]) for seconds in known] for at in (0, -1))
            late = max(begins) - min(begins)
            samples += 1
            apart += late > _APART * (max(ends) - min(begins)) and max(begins) <= min(ends)
    return Clocks(samples=samples, apart=apart)
