"""Sound and pictures of generated clips: the same in every container, at the container's own times."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from alignmamba.errors import DataError
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import Waveform, blocks, facts, frames, waveform
from alignmamba.media.tracks import Absent
from made_clips import FPS, HEIGHT, PICTURES, SOUND, TONE_HERTZ, WIDTH, tone, write_clip


def heard(path: Path, *, rate: int = 16_000, **segment: float) -> Waveform:
    found = waveform(MediaClip(path=path, **segment), rate)
    assert isinstance(found, Waveform)
    return found


def pitch(sound: Waveform) -> float:
    spectrum = np.abs(np.fft.rfft(sound.samples * np.hanning(len(sound.samples))))
    return float(spectrum.argmax() * sound.rate / len(sound.samples))


@pytest.mark.parametrize("ending", [end for end in {**PICTURES, **SOUND} if end != ".gif"])
def test_sound_is_the_same_in_every_container(tmp_path: Path, ending: str) -> None:
    found = heard(write_clip(tmp_path / f"a{ending}", 1.0))
    assert pitch(found) == pytest.approx(TONE_HERTZ, abs=1.5)
    assert len(found.samples) / found.rate == pytest.approx(1.0, abs=0.06)
    assert found.start < 0.03
    assert found.samples[2000:12000].std() == pytest.approx(0.3 / 2**0.5, abs=0.03)


@pytest.mark.parametrize("ending", list(PICTURES))
def test_pictures_are_the_same_in_every_container(tmp_path: Path, ending: str) -> None:
    path = write_clip(tmp_path / f"a{ending}", 1.0)
    found = list(frames(MediaClip(path=path)))
    assert len(found) == FPS
    assert np.diff([frame.time for frame in found])[1:] == pytest.approx(1 / FPS, abs=0.002)
    image = found[0].image
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    assert image[6, 6, 0] > 180 > image[6, 6, 1] + 60  # red
    assert np.ptp(image[30:, 30:].mean(axis=(0, 1))) < 12  # grey


def test_sound_of_its_own_rate_is_exact(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", 1.0, rate=16_000)
    assert heard(path).samples == pytest.approx(tone(1.0, 16_000), abs=2**-15)
    assert heard(path, start=0.25, end=0.5).samples == pytest.approx(tone(0.25, 16_000, 0.25), abs=2**-15)


def test_resampled_sound_keeps_its_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.flac", 1.0, rate=44_100)
    assert heard(path).samples[200:-200] == pytest.approx(tone(1.0, 16_000)[200:-200], abs=0.01)
    part = heard(path, start=0.7)
    assert part.samples[200:-200] == pytest.approx(tone(0.3, 16_000, 0.7)[200:-200], abs=0.02)


def test_channels_are_averaged(tmp_path: Path) -> None:
    sound = np.stack([tone(0.5, 16_000), np.zeros(8000, np.float32)])
    found = heard(write_clip(tmp_path / "a.wav", sound=sound, rate=16_000))
    assert found.samples == pytest.approx(sound[0] / 2, abs=2**-14)


def test_blocks_are_the_whole_in_pieces(tmp_path: Path) -> None:
    clip = MediaClip(path=write_clip(tmp_path / "a.mkv", 1.0, rate=44_100))
    pieces = list(blocks(clip, 16_000, 0.3))
    assert [len(piece.samples) for piece in pieces[:3]] == [4800] * 3
    assert [piece.start for piece in pieces[:3]] == pytest.approx([0.0, 0.3, 0.6])
    whole = waveform(clip)
    assert isinstance(whole, Waveform)
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), whole.samples)


def test_streams_begin_when_the_container_says(tmp_path: Path) -> None:
    late_pictures = MediaClip(path=write_clip(tmp_path / "a.mkv", 1.0, offsets=(0.7, 0.0)))
    assert next(frames(late_pictures)).time == pytest.approx(0.7)
    assert heard(late_pictures.path).start == 0.0
    late_sound = write_clip(tmp_path / "b.mp4", 1.0, offsets=(0.0, 0.5))
    assert heard(late_sound).start == pytest.approx(0.5, abs=0.03)
    assert heard(late_sound, start=0.2, end=1.0).start == pytest.approx(0.3, abs=0.03)


def test_uneven_pictures_keep_their_times(tmp_path: Path) -> None:
    times = [0.0, 0.12, 0.24, 0.9, 1.0, 1.75]
    clip = MediaClip(path=write_clip(tmp_path / "a.mp4", 2.0, times=times))
    assert [frame.time for frame in frames(clip)] == pytest.approx(times)
    assert [frame.time for frame in frames(clip, 2.0)] == pytest.approx([0.0, 0.24, 1.0, 1.75])
    assert [frame.time for frame in frames(clip, 1000.0)] == pytest.approx(times)


@pytest.mark.parametrize(("fps", "expected"), [(5.0, 10), (2.0, 4), (10.0, 20), (25.0, 20), (0.1, 1)])
def test_pictures_are_thinned_by_time(tmp_path: Path, fps: float, expected: int) -> None:
    clip = MediaClip(path=write_clip(tmp_path / "a.mp4", audio=None))
    found = [frame.time for frame in frames(clip, fps)]
    assert len(found) == expected
    ticks = np.arange(expected) / min(fps, 10.0)
    assert found == pytest.approx(ticks, abs=0.051)


@pytest.mark.parametrize(
    ("rotation", "corner"), [(-90, (6, -7)), (90, (-7, 6)), (180, (-7, -7)), (0, (6, 6))]
)
def test_pictures_are_upright(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    clip = MediaClip(path=write_clip(tmp_path / "a.mp4", 0.5, audio=None, rotation=rotation))
    image = next(frames(clip)).image
    assert image.shape[:2] == ((WIDTH, HEIGHT) if rotation % 180 else (HEIGHT, WIDTH))
    red, green, _ = image[corner].astype(int)
    assert red > green + 100
    (stream,) = facts(clip).streams
    assert (stream.size, stream.rotation) == (image.shape[1::-1], rotation % 360)


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".ts", ".avi"])
def test_a_segment_is_that_part_of_the_whole(tmp_path: Path, ending: str) -> None:
    path = write_clip(tmp_path / f"a{ending}", 4.0)
    whole = {round(frame.time, 3): frame.image for frame in frames(MediaClip(path=path))}
    part = list(frames(MediaClip(path=path, start=2.05, end=3.05)))
    assert len(part) == FPS
    for frame in part:
        assert np.array_equal(frame.image, whole[round(frame.time + 2.05, 3)])
    sound, all_sound = heard(path, start=2.05, end=3.05), heard(path)
    begin = round((2.05 - all_sound.start) * 16_000)
    assert len(sound.samples) == 16_000
    # a container of milliseconds is right to half of one
    off = [
        np.abs(sound.samples - all_sound.samples[begin + lag : begin + lag + 16_000]).max()
        for lag in range(-9, 10)
    ]
    assert min(off) < 0.04


def test_a_modality_that_is_not_there_is_absent(tmp_path: Path) -> None:
    silent = MediaClip(path=write_clip(tmp_path / "a.mp4", 0.5, audio=None))
    assert waveform(silent) == Absent("no sound in the file")
    blind = MediaClip(path=write_clip(tmp_path / "a.wav", 0.5))
    found = frames(blind)
    assert list(found) == []
    assert found.absent == Absent("no pictures in the file")
    after = MediaClip(path=blind.path, start=7.0, end=8.0)
    assert waveform(after) == Absent("no sound between 7.0 s and 8.0 s")


def test_a_file_that_ends_early_is_compared_with_what_it_declares(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.webm", 6.0)
    cut = tmp_path / "cut.webm"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    found = frames(MediaClip(path=cut))
    count = len(list(found))
    assert 5 < count < 55
    assert any("of 6.0 s declared" in note for note in found.notes)
    assert any("of 6.0 s declared" in note for note in heard(cut).notes)
    assert any("of 6.0 s declared" in note for note in facts(MediaClip(path=cut)).notes)
    assert not frames(MediaClip(path=whole)).notes
    assert not heard(whole).notes
    assert not heard(cut, end=0.5).notes


def test_a_gap_is_filled_with_silence(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        for start, pieces in ((0.0, 8), (2.0, 8)):
            for index in range(pieces):
                frame = av.AudioFrame.from_ndarray(
                    np.full((1, 1000), 8192, np.int16), format="s16", layout="mono"
                )
                frame.sample_rate, frame.pts = 16_000, round(start * 16_000) + 1000 * index
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = heard(path)
    assert len(found.samples) == pytest.approx(40_000, abs=1100)
    assert np.abs(found.samples[12_000:30_000]).max() == 0.0
    assert found.samples[33_000:39_000] == pytest.approx(0.25, abs=1e-4)


def test_facts_describe_both_streams(tmp_path: Path) -> None:
    found = facts(MediaClip(path=write_clip(tmp_path / "a.mp4", 2.0)))
    assert found.found == pytest.approx(2.0, abs=0.05)
    assert found.declared == pytest.approx(2.0, abs=0.05)
    video, audio = found.streams
    assert (video.kind, video.codec, video.rate, video.size) == ("video", "h264", 10.0, (WIDTH, HEIGHT))
    assert (audio.kind, audio.codec, audio.rate, audio.channels) == ("audio", "aac", 48_000.0, 1)
    assert found.notes == ()


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.flac", 60.0, rate=16_000)
    tracemalloc.start()
    total = sum(len(block.samples) for block in blocks(MediaClip(path=path), 16_000, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 60 * 16_000
    assert peak < 4 * 16_000 * 10


@pytest.mark.parametrize(
    ("start", "end"), [(-1.0, None), (2.0, 1.0), (1.0, 1.0), (0.0, float("nan")), (1e9, None)]
)
def test_a_segment_that_is_no_span_is_refused(start: float, end: float | None) -> None:
    with pytest.raises(DataError, match=r"^a\.mp4: a segment from .* expected a start of"):
        MediaClip(path=Path("a.mp4"), start=start, end=end)
