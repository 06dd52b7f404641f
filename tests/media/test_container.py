"""Files that are broken, odd or hostile end in one line that names them, and lead nowhere else."""

import os
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignmamba.errors import DataError
from alignmamba.media.clip import MediaClip
from alignmamba.media.container import FORMATS
from alignmamba.media.decoding import Waveform, facts, frames, waveform
from alignmamba.media.tracks import Absent
from made_clips import tone, write_clip


def wav(
    *, rate: int = 16_000, channels: int = 1, samples: np.ndarray | None = None, size: int | None = None
) -> bytes:
    """A wav file of float32 with any header."""
    data = (tone(0.5, 16_000) if samples is None else samples).astype("<f4").tobytes()
    width = 4 * channels
    header = struct.pack("<HHIIHH", 3, channels, rate, rate * width & 0xFFFFFFFF, width & 0xFFFF, 32)
    return b"".join(
        (
            *(b"RIFF", struct.pack("<I", 0xFFFFFFFF), b"WAVEfmt ", struct.pack("<I", 16), header),
            *(b"data", struct.pack("<I", len(data) if size is None else size), data),
        )
    )


def clip(path: Path, content: bytes = b"") -> MediaClip:
    if content:
        path.write_bytes(content)
    return MediaClip(path=path)


def refused(clip: MediaClip) -> str:
    """The one line that all ways of reading give."""
    said = set()
    ways: tuple[Callable[[], object], ...] = (
        lambda: facts(clip),
        lambda: waveform(clip),
        lambda: list(frames(clip)),
    )
    for way in ways:
        with pytest.raises(DataError) as found:
            way()
        said.add(str(found.value))
    (line,) = said
    assert "\n" not in line
    assert str(clip.path) in line
    return line


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{there}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{there}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        '<Period><AdaptationSet><Representation id="1" bandwidth="1">'
        "<BaseURL>http://127.0.0.1:{port}/</BaseURL></Representation></AdaptationSet></Period></MPD>",
        '<?xml version="1.0"?><playlist><trackList><track><location>file://{there}</location></track>'
        "</trackList></playlist>",
        "[playlist]\nFile1={there}\nNumberOfEntries=1\n",
        "RTSPtextrtsp://127.0.0.1:{port}/a\n",
        "# Blah\n;FFMETADATA1\ntitle=a\n",
    ],
)
def test_a_list_of_other_files_leads_nowhere(tmp_path: Path, text: str) -> None:
    there = write_clip(tmp_path / "there.ts", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        for ending in (".mp4", ".m3u8", ".txt"):
            refused(clip(tmp_path / f"list{ending}", text.format(there=there, port=port).encode()))
        with pytest.raises(BlockingIOError):
            server.accept()


def test_only_formats_that_hold_media_are_read() -> None:
    import av

    assert not {"hls", "dash", "concat", "concatf", "image2", "sdp", "rtsp", "lavfi", "imf", "tty"} & {
        *FORMATS
    }
    assert set(FORMATS) <= {*av.formats_available}


def test_a_picture_file_is_not_a_clip(tmp_path: Path) -> None:
    refused(clip(tmp_path / "a.mp4", b"P6\n2 2\n255\n" + bytes(12)))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    assert "found nothing" in refused(clip(tmp_path / "missing.mp4"))
    assert "found a folder" in refused(clip(tmp_path))
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "found a pipe" in refused(clip(tmp_path / "pipe.mp4"))
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    assert "found a pipe, a socket or a device" in refused(clip(tmp_path / "zero.mp4"))


def test_a_file_without_streams_is_refused(tmp_path: Path) -> None:
    mvhd = struct.pack(">I4s", 108, b"mvhd") + bytes(12) + struct.pack(">II", 1000, 5000) + bytes(80)
    content = struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + struct.pack(">I4s", 116, b"moov") + mvhd
    refused(clip(tmp_path / "a.mp4", content + struct.pack(">I4s", 8, b"mdat")))


@pytest.mark.parametrize("content", [b"\0" * 5000, b"RIFF", bytes(range(256)) * 40])
def test_what_is_no_media_is_refused(tmp_path: Path, content: bytes) -> None:
    refused(clip(tmp_path / "a.mp4", content))


def test_an_empty_file_and_one_without_its_index_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    refused(clip(tmp_path / "empty.mp4"))
    whole = write_clip(tmp_path / "a.mp4", 1.0).read_bytes()
    assert "damaged" in refused(clip(tmp_path / "b.mp4", whole[: len(whole) // 2]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"YUV4MPEG2 W9000 H9000 F25:1 C420\nFRAME\n", "pictures of 9000 x 9000, expected at most"),
        (wav(rate=3), "3 samples a second, expected 1000 to 768000"),
        (wav(rate=4_000_000_000), "cannot be read"),
        (wav(channels=500), "500 channels, expected at most 64|cannot be read"),
    ],
)
def test_sizes_are_bounded_before_memory_is_taken(tmp_path: Path, content: bytes, said: str) -> None:
    each = clip(tmp_path / "a.dat", content)
    with pytest.raises(DataError, match=said):
        list(frames(each)) if content.startswith(b"YUV") else waveform(each)


def test_pictures_beyond_the_bound_are_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    large = clip(write_clip(tmp_path / "a.ts", 0.5))
    asked = []
    open_container = av.open

    def spy(*arguments: Any, **named: Any) -> Any:
        asked.append(named["options"].get("codec_whitelist"))
        return open_container(*arguments, **named)

    monkeypatch.setattr(av, "open", spy)
    assert isinstance(waveform(large), Waveform)
    assert asked == ["none", None]
    monkeypatch.setattr("alignmamba.media.container.MOST_PIXELS", 1000)
    found = frames(large)
    assert list(found) == []
    assert found.absent == Absent("pictures of 64 x 48, expected at most 1000 pixels")
    assert isinstance(waveform(large), Waveform)
    assert asked[2:] == ["none"] * 4


def test_a_declared_length_changes_nothing(tmp_path: Path) -> None:
    found = waveform(clip(tmp_path / "a.wav", wav(size=0x7FFFFFF0)))
    assert isinstance(found, Waveform)
    assert found.samples == pytest.approx(tone(0.5, 16_000), abs=1e-6)
    content = write_clip(tmp_path / "a.webm", 1.0).read_bytes().replace(b"00:00:01.0", b"10:00:01.0")
    long = clip(tmp_path / "b.webm", content)
    found = waveform(long)
    assert isinstance(found, Waveform)
    assert len(found.samples) == pytest.approx(16_000, abs=400)
    assert found.notes == ("the sound ends at 1.0 s of 36001.0 s declared",)
    pictures = frames(long)
    assert len(list(pictures)) == 10
    assert pictures.notes == ("the pictures end at 1.0 s of 36001.0 s declared",)


def test_samples_that_are_not_numbers_become_silence(tmp_path: Path) -> None:
    samples = tone(0.5, 16_000).copy()
    samples[[5, 6, 7]] = np.nan, np.inf, 3e38
    found = waveform(clip(tmp_path / "a.wav", wav(samples=samples)))
    assert isinstance(found, Waveform)
    assert np.isfinite(found.samples).all()
    assert list(found.samples[5:8]) == [0.0, 0.0, 100.0]
    assert found.notes == ("2 samples are not numbers and are replaced by silence",)


def with_damage(path: Path, every: int) -> MediaClip:
    """A clip of two seconds of which one packet in so many holds nonsense."""
    import av

    whole = write_clip(path.with_suffix(".wav"), 2.0)
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("mp3", rate=48_000, layout="mono")
        packets = [packet for frame in source.decode(audio=0) for packet in stream.encode(frame)]
        packets += stream.encode()
        for index, packet in enumerate(packets):
            sent = packet
            if index % every == every - 1:
                sent = av.Packet(b"nonsense" * 8)
                sent.stream, sent.time_base = stream, packet.time_base
                sent.pts, sent.dts, sent.duration = packet.pts, packet.dts, packet.duration
            target.mux(sent)
    return MediaClip(path=path)


def test_damaged_packets_are_skipped_and_counted(tmp_path: Path) -> None:
    found = waveform(with_damage(tmp_path / "a.mkv", 10))
    assert isinstance(found, Waveform)
    assert re.fullmatch(r"8 of \d\d packets of sound are damaged", found.notes[0])
    assert len(found.samples) / found.rate == pytest.approx(2.0, abs=0.05)
    with pytest.raises(DataError, match=r"b\.mkv: cannot be read: (\d+) of \1 packets of sound are damaged"):
        waveform(with_damage(tmp_path / "b.mkv", 1))


def test_a_stream_that_cannot_be_decoded_is_absent_beside_one_that_can(tmp_path: Path) -> None:
    content = write_clip(tmp_path / "a.mkv", 0.5).read_bytes()
    strange = clip(tmp_path / "b.mkv", content.replace(b"A_AAC", b"A_XYZ"))
    assert waveform(strange) == Absent("its codec is unknown")
    assert len(list(frames(strange))) == 5
    alone = clip(
        tmp_path / "c.mkv",
        write_clip(tmp_path / "d.mkv", 0.5, video=None).read_bytes().replace(b"A_AAC", b"A_XYZ"),
    )
    with pytest.raises(DataError, match=r"c\.mkv: cannot be read: its codec is unknown"):
        waveform(alone)


def test_time_stamps_that_jump_end_the_reading(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", 2.0, audio=None, times=[0.0, 0.1, 0.2, 5000.0, 5000.1])
    found = frames(MediaClip(path=path))
    assert [frame.time for frame in found] == pytest.approx([0.0, 0.1, 0.2])
    assert any("time stamps jump from 0." in note for note in found.notes)


def test_the_cover_of_an_album_is_not_a_moving_picture(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("mp3", rate=44_100, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width = cover.height = 16
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(tone(0.5, 44_100)[None], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    found = frames(MediaClip(path=path))
    assert list(found) == []
    assert found.absent == Absent("no pictures in the file")
    assert isinstance(waveform(MediaClip(path=path)), Waveform)
