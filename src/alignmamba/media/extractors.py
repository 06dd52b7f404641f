"""Readers of sound and of pictures by name. A newcomer is one file and one line here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from alignmamba.media.extractor import Extractor, Offer
from alignmamba.media.log_mel import LogMel, LogMelOptions
from alignmamba.media.pixels import Pixels, PixelsOptions


def _log_mel(weights: Path | None, options: LogMelOptions) -> Extractor:
    del weights  # it has none
    return LogMel(options=options)


def _pixels(weights: Path | None, options: PixelsOptions) -> Extractor:
    del weights  # it has none
    return Pixels(options=options)


AUDIO: Final[Mapping[str, Offer[Extractor]]] = {
    "logmel": Offer(
        make=_log_mel,
        summary="log-mel energies of sound, 80 bands at 100 Hz",
        options=LogMelOptions,
    ),
}
"""Extractors of sound by name."""

VIDEO: Final[Mapping[str, Offer[Extractor]]] = {
    "pixels": Offer(
        make=_pixels,
        summary="small grey or coloured pictures, 16 x 16 at 5 Hz",
        options=PixelsOptions,
    ),
}
"""Extractors of pictures by name."""
