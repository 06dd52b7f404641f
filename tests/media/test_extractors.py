"""Extractors that need no weights: values by hand, times of the container, the same in blocks."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from alignmamba.errors import ConfigError
from alignmamba.media.clip import MediaClip
from alignmamba.media.extractors import AUDIO, VIDEO
from alignmamba.media.log_mel import BINS, FLOOR, LogMel, LogMelOptions, log_mel, mel_filters
from alignmamba.media.pixels import Pixels, PixelsOptions
from alignmamba.media.tracks import Absent, Track
from made_clips import FPS, TONE_HERTZ, tone, write_clip


def read(path: Path, tool: LogMel | Pixels, **segment: float) -> Track:
    found = tool.extract(MediaClip(path=path, **segment))
    assert isinstance(found, Track)
    assert found.values.shape == (len(found.times), tool.width)
    assert found.values.dtype == np.float32
    assert np.isfinite(found.values).all()
    assert (np.diff(found.times) >= 0).all()
    return found


def test_filters_are_triangles_of_the_mel_scale() -> None:
    filters = mel_filters(3)
    # 2840.023 mel at 8000 Hz, so edges at 0, 710.006, 1420.012, 2130.017 and 2840.023 mel
    edges = [700 * (10 ** (mel / 2595) - 1) for mel in (0, 710.00574, 1420.0115, 2130.0172, 2840.023)]
    assert edges[1] == pytest.approx(614.33, abs=0.01)
    assert edges[2] == pytest.approx(1767.8, abs=0.1)
    for band in range(3):
        low, middle, high = edges[band : band + 3]
        for row in (0, 10, 19, 20, 40, 56, 57, 100, 200, BINS // 2):
            hertz = row * 31.25
            expected = max(0.0, min((hertz - low) / (middle - low), (high - hertz) / (high - middle)))
            assert filters[row, band].item() == pytest.approx(expected, abs=1e-4)
    assert (mel_filters(80).sum(0) > 0).all()


def test_energy_of_a_tone_is_that_of_its_formula() -> None:
    """A sine of amplitude a, seen by a Hann window of N samples, has an energy of (a N / 4)^2 in its bin."""
    hertz = 64 * 31.25
    samples = torch.from_numpy(np.sin(2 * np.pi * hertz * np.arange(400) / 16_000).astype(np.float32))
    found = log_mel(samples, bands=80, hop=160)
    assert found.shape == (1, 80)
    band = int(mel_filters(80)[64].argmax())
    assert int(found[0].argmax()) == band
    own = (400 / 4) ** 2 * mel_filters(80)[64, band].item()
    assert own < math.exp(found[0, band]) < 2.2 * own


def test_silence_is_the_floor() -> None:
    assert log_mel(torch.zeros(800), bands=4, hop=160).unique().tolist() == pytest.approx([math.log(FLOOR)])


def test_a_frame_hears_the_25_ms_from_its_time_on() -> None:
    samples = torch.zeros(1600)
    samples[660] = 1.0
    loud = (log_mel(samples, bands=8, hop=160) > math.log(FLOOR)).any(dim=1)
    assert loud.nonzero().flatten().tolist() == [2, 3, 4]  # the last of 640 to 1040


def test_blocks_give_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.wav", 1.5, rate=16_000)
    tool = LogMel(options=LogMelOptions())
    whole = read(path, tool)
    assert whole.times == pytest.approx(np.arange(148) * 0.01)
    monkeypatch.setattr("alignmamba.media.log_mel._BLOCK_SECONDS", 0.0371)
    parts = read(path, tool)
    assert parts.times == pytest.approx(whole.times)
    assert parts.values == pytest.approx(whole.values, abs=1e-4)


def test_log_mel_of_a_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 1.0, offsets=(0.0, 0.5))
    tool = LogMel(options=LogMelOptions(bands=40, hop_seconds=0.02))
    assert (tool.width, tool.unit) == (40, "log-mel energy, 40 bands at 50 Hz")
    found = read(path, tool)
    assert found.times[0] == pytest.approx(0.5, abs=0.03)
    assert np.diff(found.times) == pytest.approx(0.02)
    loudest = mel_filters(40)[:, int(found.values[20].argmax())]
    assert loudest[round(TONE_HERTZ / 31.25)] > 0.5
    assert tool.extract(MediaClip(path=write_clip(tmp_path / "b.mp4", 0.3, audio=None))) == Absent(
        "no sound in the file"
    )


def test_sound_shorter_than_a_frame_is_one_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", sound=tone(0.01, 16_000)[None], rate=16_000)
    found = read(path, LogMel(options=LogMelOptions()))
    assert found.times.tolist() == [0.0]


def test_pixels_are_means_of_cells() -> None:
    tool = Pixels(options=PixelsOptions(cells=2, colour=True))
    image = np.zeros((4, 6, 3), np.uint8)
    image[:2, :3] = (255, 51, 0)
    assert tool._cells(image) == pytest.approx([1.0, 0.2, 0.0] + [0.0] * 9)
    grey = Pixels(options=PixelsOptions(cells=2))
    assert grey._cells(image) == pytest.approx([0.299 + 0.2 * 0.587, 0.0, 0.0, 0.0])
    assert grey._cells(image[:1, :1]) == pytest.approx([0.299 + 0.2 * 0.587] * 4)


def test_pixels_of_a_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 2.0, offsets=(0.4, 0.0))
    tool = Pixels(options=PixelsOptions(cells=4, motion=True))
    found = read(path, tool)
    assert tool.width == 32
    assert found.times == pytest.approx(0.4 + np.arange(10) / 5, abs=0.051)
    assert found.values[:, 12:16] == pytest.approx(128 / 255, abs=0.03)  # the grey row below
    assert found.values[0, 16:] == pytest.approx(0.0)
    assert found.values[1:, 16:] == pytest.approx(np.diff(found.values[:, :16], axis=0), abs=1e-6)
    assert np.abs(found.values[1:, 16:20]).max() > 0.01  # the square moves
    every = Pixels(options=PixelsOptions(fps=FPS, cells=4, colour=True))
    assert len(read(path, every).times) == 20
    assert every.unit == "red, green and blue from 0 to 1, 4 x 4 cells at 10 Hz"


@pytest.mark.parametrize(
    ("kind", "name"), [("audio", name) for name in AUDIO] + [("video", name) for name in VIDEO]
)
def test_every_offer_states_what_it_needs(kind: str, name: str) -> None:
    offer = (AUDIO if kind == "audio" else VIDEO)[name]
    assert offer.summary
    assert all(field.description for field in offer.options.model_fields.values())
    if not offer.weights:
        try:
            tool = offer.make(None, offer.options())
        except ConfigError as error:
            pytest.skip(str(error))
        assert tool.name == name
        assert tool.weights == {}
        assert tool.width > 0
        assert tool.licence
        assert tool.unit
        assert tool.version
