"""Sound read by a model of the wav2vec 2.0 family from a local folder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from alignmamba.errors import ConfigError
from alignmamba.extras import require, versions
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import blocks
from alignmamba.media.frozen_encoder import FrozenEncoder, open_encoder
from alignmamba.media.model_folder import LICENCE
from alignmamba.media.sound_windows import sound_windows
from alignmamba.media.tracks import Absent, Track

FAMILIES: Final = dict.fromkeys(
    ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio"), "AutoModel"
)
"""Types of models that are read: those that hear samples and say how far apart their frames are."""
_MIDDLE_SECONDS, _AROUND_SECONDS = 20.0, 2.0
"""Window of long sound; attention takes memory with its square."""


@dataclass(frozen=True, kw_only=True)
class SpeechModel:
    """Extractor of the last hidden states of a model of speech."""

    folder: Path
    name: str = "hf"
    licence: str = LICENCE
    kind: Literal["features"] = "features"
    _opened: FrozenEncoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Open the model.

        Raises:
            ConfigError: If the folder holds no such model, or a package is not installed.
        """
        require(self.name, "media", "av")
        opened = open_encoder(self.name, self.folder, FAMILIES, "AutoFeatureExtractor")
        rate = opened.prepare.sampling_rate
        if not 1_000 <= rate <= 768_000:
            raise ConfigError(f"{self.folder}: sampling_rate: found {rate}, expected 1000 to 768000")
        object.__setattr__(self, "_opened", opened)

    @property
    def version(self) -> str:
        """Versions of the packages that decide the values."""
        return versions("av", "torch", "transformers")

    @property
    def weights(self) -> Mapping[str, str]:
        """SHA-256 of the files of the folder."""
        return self._opened.weights

    @property
    def width(self) -> int:
        """Width of a hidden state."""
        return int(self._opened.model.config.hidden_size)

    @property
    def rate(self) -> int:
        """Samples a second that the model hears."""
        return int(self._opened.prepare.sampling_rate)

    @property
    def stride(self) -> int:
        """Samples from one hidden state to the next."""
        return math.prod(self._opened.model.config.conv_stride)

    @property
    def shortest(self) -> int:
        """Samples that one hidden state hears at least: those of its convolutions."""
        shape, heard = self._opened.model.config, 1
        for kernel, stride in reversed(list(zip(shape.conv_kernel, shape.conv_stride, strict=True))):
            heard = (heard - 1) * stride + kernel
        return heard

    @property
    def unit(self) -> str:
        """Meaning of one vector."""
        return f"hidden state of {self._opened.kind}, {self.rate / self.stride:g} Hz"

    def extract(self, clip: MediaClip) -> Track | Absent:
        """A vector for each hidden state, with the time at which the sound of its convolutions begins.

        Raises:
            DataError: If the file cannot be read; the message names it.
        """
        middle, around = (
            max(1, round(seconds * self.rate / self.stride)) * self.stride
            for seconds in (_MIDDLE_SECONDS, _AROUND_SECONDS)
        )
        found = blocks(clip, self.rate, _MIDDLE_SECONDS)
        values, times = [], []
        nothing = True
        for window in sound_windows(found, middle, around):
            nothing = False
            if len(window.samples) >= self.shortest:
                rows = self._read(window.samples)
                places = np.arange(len(rows)) * self.stride
                kept = window.kept(places)
                values.append(rows[kept])
                times.append(window.start + places[kept] / self.rate)
        if nothing:
            return found.absent
        if not sum(map(len, values)):
            least = 1000 * self.shortest / self.rate
            return Absent(f"its sound is shorter than the {least:g} ms that the model hears at once")
        return Track(values=np.concatenate(values), times=np.concatenate(times), notes=found.notes)

    def _read(self, samples: np.ndarray) -> np.ndarray:
        """(time,) to (hidden state, width)."""
        given = self._opened.prepare(samples, sampling_rate=self.rate, return_tensors="pt")
        with torch.inference_mode():
            states = self._opened.model(given["input_values"].float()).last_hidden_state[0]
        return np.asarray(states.numpy(), np.float32)
