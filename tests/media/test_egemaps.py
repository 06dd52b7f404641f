"""Voice by openSMILE, where it is installed."""

from pathlib import Path

import numpy as np
import pytest

from alignmamba.extras import lacking
from alignmamba.media.clip import MediaClip
from alignmamba.media.egemaps import Egemaps
from alignmamba.media.tracks import Absent, Track
from made_clips import tone, write_clip

pytestmark = pytest.mark.skipif(bool(lacking("egemaps")), reason=lacking("egemaps"))


def test_voice_has_25_measures_every_10_ms(tmp_path: Path) -> None:
    tool = Egemaps()
    assert "non-commercial" in tool.licence
    found = tool.extract(MediaClip(path=write_clip(tmp_path / "a.mp4", 1.0, offsets=(0.0, 0.5))))
    assert isinstance(found, Track)
    assert found.values.shape == (len(found.times), tool.width)
    assert found.values.dtype == np.float32
    assert np.isfinite(found.values).all()
    assert found.times[0] == pytest.approx(0.5, abs=0.03)
    assert np.diff(found.times) == pytest.approx(0.01)
    pitch = np.median(found.values[:, 10])
    assert pitch == pytest.approx(12 * np.log2(440 / 27.5), abs=0.5)  # semitones above 27.5 Hz


def test_long_sound_is_heard_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    loud = np.repeat(generator.uniform(0.1, 1.0, 60), 16_000 * 4 // 60)
    sound = tone(4.0, 16_000)[: len(loud)] * loud + 0.01 * generator.normal(size=len(loud))
    path = write_clip(tmp_path / "a.wav", sound=sound[None].astype(np.float32), rate=16_000)
    whole = Egemaps().extract(MediaClip(path=path))
    monkeypatch.setattr("alignmamba.media.egemaps._MIDDLE", 16_000)
    monkeypatch.setattr("alignmamba.media.egemaps._AROUND", 8_000)
    parts = Egemaps().extract(MediaClip(path=path))
    assert isinstance(whole, Track)
    assert isinstance(parts, Track)
    assert parts.times == pytest.approx(whole.times)
    same = np.isclose(parts.values, whole.values, rtol=1e-3, atol=1e-3)
    assert same.mean() > 0.98


def test_what_is_too_short_or_silent_is_absent(tmp_path: Path) -> None:
    short = write_clip(tmp_path / "a.wav", sound=tone(0.04, 16_000)[None], rate=16_000)
    assert Egemaps().extract(MediaClip(path=short)) == Absent(
        "its sound is too short for eGeMAPS, which hears 60 ms at once"
    )
    blind = write_clip(tmp_path / "b.mp4", 0.3, audio=None)
    assert Egemaps().extract(MediaClip(path=blind)) == Absent("no sound in the file")
