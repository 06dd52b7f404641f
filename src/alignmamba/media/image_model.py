"""Pictures read by an image encoder of the CLIP, SigLIP, DINO or ViT family from a local folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from pydantic import Field

from alignmamba.contracts import Config
from alignmamba.extras import require, versions
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import frames
from alignmamba.media.frozen_encoder import FrozenEncoder, open_encoder
from alignmamba.media.model_folder import LICENCE
from alignmamba.media.tracks import Absent, Track

FAMILIES: Final[Mapping[str, str]] = {
    "clip": "CLIPVisionModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
    **dict.fromkeys(("dinov2", "dinov2_with_registers", "dinov3_vit", "vit", "deit"), "AutoModel"),
}
"""Type of model to the class that reads it."""
_BATCH: Final = 16


class ImageModelOptions(Config):
    """Options of ``hf`` for pictures."""

    fps: float = Field(default=5.0, gt=0, le=1000)
    """Pictures a second."""


@dataclass(frozen=True, kw_only=True)
class ImageModel:
    """Extractor of one vector for each picture: the projected embedding of CLIP, the pooled one of SigLIP, or
    the state of the first token of the others.
    """

    folder: Path
    options: ImageModelOptions
    name: str = "hf"
    licence: str = LICENCE
    kind: Literal["features"] = "features"
    width: int = field(init=False)
    _opened: FrozenEncoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Open the model.

        Raises:
            ConfigError: If the folder holds no such model, or a package is not installed.
        """
        require(self.name, "media", "av", "PIL")
        opened = open_encoder(self.name, self.folder, FAMILIES, "AutoImageProcessor")
        object.__setattr__(self, "_opened", opened)
        object.__setattr__(self, "width", self._read([np.zeros((32, 32, 3), np.uint8)]).shape[1])

    @property
    def version(self) -> str:
        """Versions of the packages that decide the values."""
        return versions("av", "torch", "transformers")

    @property
    def weights(self) -> Mapping[str, str]:
        """SHA-256 of the files of the folder."""
        return self._opened.weights

    @property
    def unit(self) -> str:
        """Meaning of one vector."""
        return f"image embedding of {self._opened.kind}, {self.options.fps:g} Hz"

    def extract(self, clip: MediaClip) -> Track | Absent:
        """A vector for each picture.

        Raises:
            DataError: If the file cannot be read; the message names it.
        """
        found = frames(clip, self.options.fps)
        values: list[np.ndarray] = []
        times: list[float] = []
        held: list[np.ndarray] = []
        for frame in found:
            times.append(frame.time)
            held.append(frame.image)
            if len(held) == _BATCH:
                values.append(self._read(held))
                held = []
        if held:
            values.append(self._read(held))
        if not values:
            return found.absent
        return Track(values=np.concatenate(values), times=np.array(times), notes=found.notes)

    def _read(self, images: list[np.ndarray]) -> np.ndarray:
        """(height, width, 3) each to (picture, width)."""
        given = self._opened.prepare(images, return_tensors="pt", input_data_format="channels_last")
        with torch.inference_mode():
            said = self._opened.model(pixel_values=given["pixel_values"])
        family = FAMILIES[self._opened.kind]
        if family == "CLIPVisionModelWithProjection":
            vectors = said.image_embeds
        else:
            vectors = said.pooler_output if family == "SiglipVisionModel" else said.last_hidden_state[:, 0]
        return np.asarray(vectors.numpy(), np.float32)
