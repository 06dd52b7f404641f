"""Faces as movements: how far each part of the face is moved, and how the head is held, by MediaPipe."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field

from alignmamba.checksums import checksum
from alignmamba.contracts import Config
from alignmamba.errors import ConfigError, brief
from alignmamba.extras import require, versions
from alignmamba.files import read_bounded
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import frames
from alignmamba.media.tracks import Absent, Track

BLENDSHAPES: Final = 52
"""Movements of parts of a face, each from 0 to 1, in the order of MediaPipe."""
_POSE: Final = 6
_WEIGHTS_BYTES: Final = 256 << 20
_STDERR: Final = 2


class FaceOptions(Config):
    """Options of ``face``."""

    fps: float = Field(default=12.5, gt=0, le=1000)
    """Pictures a second that are looked at."""


@dataclass(frozen=True, kw_only=True)
class Face:
    """Extractor of one vector for each picture with a face: 52 movements, then the pose of the head.

    The pose is a vector of rotation in radians, whose direction is the axis, and a place in centimetres, both
    as seen from the camera. Where there are several faces, the first that is found counts.
    """

    file: Path
    options: FaceOptions
    name: str = "face"
    licence: str = "Apache-2.0"
    kind: Literal["features"] = "features"
    width: int = BLENDSHAPES + _POSE
    weights: Mapping[str, str] = field(init=False)
    _content: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the weights and try them.

        Raises:
            ConfigError: If the file is no task of MediaPipe for landmarks of faces, or a package is missing.
        """
        where = f"{self.name}:{self.file}"
        require(where, "media", "av")
        require(where, "face")
        content = read_bounded(self.file, limit_bytes=_WEIGHTS_BYTES, error=ConfigError)
        object.__setattr__(self, "_content", content)
        object.__setattr__(self, "weights", {self.file.name: checksum(content)})
        try:
            with self._landmarker():
                pass
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{where}: expected the task file of a face landmarker, which MediaPipe opens, found"
                f" {brief(error)}"
            ) from error

    @property
    def version(self) -> str:
        """Versions of the packages that decide the values."""
        return versions("av", "mediapipe")

    @property
    def unit(self) -> str:
        """Meaning of one vector."""
        return f"52 blendshapes of a face, rotation and place of the head, at most {self.options.fps:g} Hz"

    def extract(self, clip: MediaClip) -> Track | Absent:
        """A vector for each picture with a face. Pictures without one have no vector.

        Raises:
            DataError: If the file cannot be read; the message names it.
        """
        import mediapipe

        found = frames(clip, self.options.fps)
        values, times, seen, stamp = [], [], 0, -1
        # One of its own for each clip: it follows a face from picture to picture.
        with self._landmarker() as landmarker:
            for frame in found:
                seen, stamp = seen + 1, max(stamp + 1, round(1000 * frame.time))
                picture = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame.image)
                said = landmarker.detect_for_video(picture, stamp)
                if said.face_blendshapes and said.facial_transformation_matrixes:
                    shapes = [float(each.score) for each in said.face_blendshapes[0]]
                    values.append([*shapes, *head_pose(said.facial_transformation_matrixes[0])])
                    times.append(frame.time)
        if not seen:
            return found.absent
        if not values:
            return Absent(f"no face in any of {seen} pictures")
        notes = found.notes
        if len(values) < seen:
            notes += (f"{seen - len(values)} of {seen} pictures have no face",)
        return Track(values=np.array(values, np.float32), times=np.array(times), notes=notes)

    @contextmanager
    def _landmarker(self) -> Iterator[Any]:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=self._content),
            running_mode=vision.RunningMode.VIDEO,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        # It is closed here: left to the end of the process, it would print an error.
        with _silent(), vision.FaceLandmarker.create_from_options(options) as landmarker:
            yield landmarker


def head_pose(matrix: np.ndarray) -> np.ndarray:
    """Rotation and place of a head.

    Args:
        matrix: (4, 4), from the face to the camera.

    Returns:
        (6,): axis times angle in radians, then the translation.
    """
    left, _, right = np.linalg.svd(np.asarray(matrix, np.float64)[:3, :3])
    rotation = left @ right
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))
    skew = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    # angle / (2 sin angle) goes to one half; a head is never seen from behind, where the axis is lost
    scale = 0.5 if angle < 1e-6 else angle / (2 * max(np.sin(angle), 1e-6))
    return np.concatenate([scale * skew, np.asarray(matrix, np.float64)[:3, 3]])


@contextmanager
def _silent() -> Iterator[None]:
    """Keep MediaPipe's libraries from writing to the terminal, which no setting of theirs does."""
    kept = os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(nowhere)
