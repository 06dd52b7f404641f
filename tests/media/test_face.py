"""Faces by MediaPipe.

`ALIGNMAMBA_MEDIA_WEIGHTS` names a folder with ``face_landmarker.task`` and, for the last tests, ``face.mp4``:
a clip that shows one face all the time.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alignmamba.checksums import checksum
from alignmamba.errors import ConfigError
from alignmamba.extras import lacking
from alignmamba.media.clip import MediaClip
from alignmamba.media.face import BLENDSHAPES, Face, FaceOptions, head_pose
from alignmamba.media.tracks import Absent, Track
from made_clips import write_clip

needs_package = pytest.mark.skipif(bool(lacking("face")), reason=lacking("face"))


def weights(name: str) -> Path:
    folder = os.environ.get("ALIGNMAMBA_MEDIA_WEIGHTS")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip(f"ALIGNMAMBA_MEDIA_WEIGHTS names no folder with {name}")
    return Path(folder) / name


def test_the_pose_of_a_head_is_its_axis_and_place() -> None:
    matrix = np.eye(4)
    assert head_pose(matrix) == pytest.approx([0.0] * 6)
    matrix[:3, :3] = [[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]]
    matrix[:3, 3] = (1.0, -2.0, -30.0)
    assert head_pose(matrix) == pytest.approx([0.4, 0.0, 0.0, 1.0, -2.0, -30.0])
    matrix[:3, :3] = 1.1 * np.array([[np.cos(-1), 0, np.sin(-1)], [0, 1, 0], [-np.sin(-1), 0, np.cos(-1)]])
    assert head_pose(matrix)[:3] == pytest.approx([0.0, -1.0, 0.0])


@needs_package
def test_a_file_that_holds_no_landmarker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a file, found nothing"):
        Face(file=tmp_path / "none.task", options=FaceOptions())
    (tmp_path / "junk.task").write_bytes(b"junk" * 100)
    with pytest.raises(ConfigError, match=r"face:.*junk\.task: expected the task file of a face landmarker"):
        Face(file=tmp_path / "junk.task", options=FaceOptions())


class EverySecond:
    """Stands in for a landmarker: a face in every second picture."""

    def __init__(self) -> None:
        self.stamps: list[int] = []

    def detect_for_video(self, _: Any, stamp: int) -> SimpleNamespace:
        self.stamps.append(stamp)
        if len(self.stamps) % 2:
            return SimpleNamespace(face_blendshapes=[], facial_transformation_matrixes=[])
        shapes = [SimpleNamespace(score=len(self.stamps) / 100)] * BLENDSHAPES
        return SimpleNamespace(face_blendshapes=[shapes], facial_transformation_matrixes=[np.eye(4)])


@needs_package
def test_pictures_without_a_face_are_dropped_with_their_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    @contextmanager
    def landmarker(_: Face) -> Iterator[EverySecond]:
        made.append(EverySecond())
        yield made[-1]

    monkeypatch.setattr(Face, "_landmarker", landmarker)
    (tmp_path / "weights.task").write_bytes(b"weights")
    tool = Face(file=tmp_path / "weights.task", options=FaceOptions(fps=1000.0))
    assert tool.weights == {"weights.task": checksum(b"weights")}
    clip = MediaClip(path=write_clip(tmp_path / "a.gif", times=[0.0, 0.1, 0.2, 0.3, 0.4]))
    found, again = tool.extract(clip), tool.extract(clip)
    assert isinstance(found, Track)
    assert isinstance(again, Track)
    assert made[1].stamps == [0, 100, 200, 300, 400]
    assert found.times == pytest.approx([0.1, 0.3])
    assert found.values[:, 0] == pytest.approx([0.02, 0.04])
    assert found.notes == ("3 of 5 pictures have no face",)
    assert np.array_equal(found.values, again.values)  # of a landmarker of its own


@needs_package
def test_a_clip_without_a_face_is_absent(tmp_path: Path) -> None:
    tool = Face(file=weights("face_landmarker.task"), options=FaceOptions())
    assert tool.extract(MediaClip(path=write_clip(tmp_path / "a.mp4", 1.0))) == Absent(
        "no face in any of 10 pictures"
    )
    assert tool.extract(MediaClip(path=write_clip(tmp_path / "a.wav", 1.0))) == Absent(
        "no pictures in the file"
    )


@needs_package
def test_a_face_is_found_with_its_times(capfd: pytest.CaptureFixture[str]) -> None:
    tool = Face(file=weights("face_landmarker.task"), options=FaceOptions(fps=5.0))
    clip = MediaClip(path=weights("face.mp4"))
    found, again = tool.extract(clip), tool.extract(clip)
    assert isinstance(found, Track)
    assert isinstance(again, Track)
    assert np.array_equal(found.values, again.values)
    assert found.values.shape == (len(found.times), BLENDSHAPES + 6)
    assert ((found.values[:, :BLENDSHAPES] >= 0) & (found.values[:, :BLENDSHAPES] <= 1)).all()
    assert (found.values[:, -1] < 0).all()  # before the camera
    assert np.abs(np.diff(found.times) - 0.2).max() < 0.05
    assert capfd.readouterr() == ("", "")
