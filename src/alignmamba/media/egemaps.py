"""Voice as eGeMAPS: loudness, pitch, formants and what else research on emotion measures, by openSMILE."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from alignmamba.extras import require, versions
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import blocks
from alignmamba.media.sound_windows import sound_windows
from alignmamba.media.tracks import Absent, Track

RATE: Final = 16_000
"""Samples a second at which sound is heard."""
_SHORTEST: Final = 960
"""Samples of the longest of its frames, 60 ms; openSMILE finds nothing in shorter sound."""
_MIDDLE, _AROUND = 300 * RATE, 5 * RATE
"""Samples of a window: longer sound is read in several, for openSMILE takes all of its input at once."""


@dataclass(frozen=True, kw_only=True)
class Egemaps:
    """Extractor of the 25 low-level descriptors of eGeMAPSv02.

    Source:
        Eyben et al., The Geneva Minimalistic Acoustic Parameter Set, IEEE Transactions on Affective
        Computing 7(2), 2016.
    """

    name: str = "egemaps"
    licence: str = "audEERING Research License (non-commercial)"
    kind: Literal["features"] = "features"
    width: int = 25
    unit: str = "eGeMAPSv02 low-level descriptors, 100 Hz"
    _smile: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse to begin without the packages."""
        require(self.name, "media", "av")
        require(self.name, "egemaps")
        import opensmile

        smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02,
            feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
        )
        object.__setattr__(self, "_smile", smile)

    @property
    def version(self) -> str:
        """Versions of the packages that decide the values."""
        return versions("av", "opensmile")

    @property
    def weights(self) -> Mapping[str, str]:
        """No weights."""
        return {}

    def extract(self, clip: MediaClip) -> Track | Absent:
        """A vector for each frame, with the time at which openSMILE has it begin.

        Raises:
            DataError: If the file cannot be read; the message names it.
        """
        found = blocks(clip, RATE, 30.0)
        values, times = [], []
        nothing = True
        for window in sound_windows(found, _MIDDLE, _AROUND):
            nothing = False
            if len(window.samples) >= _SHORTEST:
                table = self._smile.process_signal(window.samples, RATE)
                starts = table.index.get_level_values("start").total_seconds().to_numpy()
                rows = table.to_numpy(np.float32)
                kept = window.kept(np.round(starts * RATE)) & np.isfinite(rows).all(axis=1)
                values.append(rows[kept])
                times.append(window.start + starts[kept])
        if nothing:
            return found.absent
        if not sum(map(len, values)):
            return Absent("its sound is too short for eGeMAPS, which hears 60 ms at once")
        return Track(values=np.concatenate(values), times=np.concatenate(times), notes=found.notes)
