"""Sound as log-mel energies: how loud each band of a scale made after human hearing is, frame by frame."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from alignmamba.contracts import Config
from alignmamba.extras import require, versions
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import Waveform, blocks
from alignmamba.media.tracks import Absent, Track

RATE: Final = 16_000
"""Samples a second at which sound is heard."""
WINDOW: Final = 400
"""Samples of a frame: 25 ms."""
BINS: Final = 512
"""Points of the Fourier transform, to which a frame is filled up with zeros."""
FLOOR: Final = 1e-10
"""Energy that stands for silence before the logarithm."""

_BLOCK_SECONDS: Final = 30.0


class LogMelOptions(Config):
    """Options of ``logmel``."""

    bands: int = Field(default=80, ge=1, le=128)
    """Bands from 0 to 8000 Hz."""
    hop_seconds: float = Field(default=0.01, ge=0.005, le=0.1)
    """Time from one frame to the next."""


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """Extractor of natural logarithms of mel energies."""

    options: LogMelOptions
    name: str = "logmel"
    licence: str = "Apache-2.0"
    kind: Literal["features"] = "features"

    def __post_init__(self) -> None:
        """Refuse to begin without a decoder."""
        require(self.name, "media", "av")

    @property
    def version(self) -> str:
        """Versions of the packages that decide the values."""
        return versions("av", "torch")

    @property
    def weights(self) -> Mapping[str, str]:
        """No weights."""
        return {}

    @property
    def width(self) -> int:
        """Number of bands."""
        return self.options.bands

    @property
    def unit(self) -> str:
        """Meaning of one vector."""
        return f"log-mel energy, {self.width} bands at {1 / self.options.hop_seconds:g} Hz"

    def extract(self, clip: MediaClip) -> Track | Absent:
        """A vector for each frame, with the time at which its 25 ms begin.

        Raises:
            DataError: If the file cannot be read; the message names it.
        """
        found = blocks(clip, RATE, _BLOCK_SECONDS)
        hop = round(self.options.hop_seconds * RATE)
        pieces, start = [], None
        for begin, samples in _whole_frames(found, hop):
            start = begin if start is None else start
            pieces.append(log_mel(torch.from_numpy(samples), bands=self.width, hop=hop).numpy())
        if start is None:
            return found.absent
        values = np.concatenate(pieces)
        return Track(values=values, times=start + np.arange(len(values)) * (hop / RATE), notes=found.notes)


def log_mel(samples: Tensor, *, bands: int, hop: int) -> Tensor:
    """Natural logarithm of the energy in each band of each frame.

    Args:
        samples: (time,) float32 at `RATE`, at least `WINDOW` of them.
        bands: Number of bands.
        hop: Samples from one frame to the next.

    Returns:
        (frame, band): as many frames as lie within the samples as a whole.
    """
    spectrum = torch.stft(
        # stft puts a short window into the middle of its points: what a frame hears then begins here
        torch.nn.functional.pad(samples, ((BINS - WINDOW) // 2, (BINS - WINDOW) // 2)),
        BINS,
        hop,
        WINDOW,
        torch.hann_window(WINDOW),
        center=False,
        return_complex=True,
    )
    energies = spectrum.abs().square().T @ mel_filters(bands)
    return energies.clamp(min=FLOOR).log()


@cache
def mel_filters(bands: int) -> Tensor:
    """Triangles that are even on the mel scale from 0 Hz to half the rate and reach 1 in their middle.

    Args:
        bands: Number of triangles.

    Returns:
        (BINS // 2 + 1, bands): the weight of each frequency in each band.

    Source:
        Young et al., The HTK Book, section 5.4: mel = 2595 log10(1 + f / 700).
    """
    highest = 2595.0 * np.log10(1.0 + RATE / 2 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, highest, bands + 2) / 2595.0) - 1.0)
    frequencies = np.linspace(0.0, RATE / 2, BINS // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32))


def _whole_frames(found: Iterator[Waveform], hop: int) -> Iterator[tuple[float, np.ndarray]]:
    """Samples that begin with a frame and end with one, and the time of the first; no frame is cut by the end
    of a block. Sound that is shorter than a frame is filled up with silence.
    """
    held, at = np.zeros(0, np.float32), 0.0
    given = False
    for block in found:
        at = block.start - len(held) / RATE
        held = np.concatenate([held, block.samples])
        count = max(0, (len(held) - WINDOW) // hop + 1)
        if count:
            yield at, held[: (count - 1) * hop + WINDOW]
            held, given = held[count * hop :], True
    if len(held) and not given:
        yield at, np.pad(held, (0, WINDOW - len(held)))
