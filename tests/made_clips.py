"""Media files that tests write themselves: a tone, and a red square that moves over grey."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

TONE_HERTZ = 440.0
WIDTH, HEIGHT = 64, 48
FPS = 10

PICTURES: dict[str, dict[str, Any]] = {
    ".mp4": {"video": "libx264", "audio": "aac"},
    ".mov": {"video": "libx264", "audio": "aac"},
    ".mkv": {"video": "libx264", "audio": "aac"},
    ".webm": {"video": "libvpx", "audio": "libopus"},
    ".avi": {"video": "mpeg4", "audio": "mp3"},
    ".ts": {"video": "mpeg2video", "audio": "mp2"},
    ".flv": {"video": "flv", "audio": "mp3"},
    ".gif": {"video": "gif"},
}
SOUND: dict[str, dict[str, Any]] = {
    ".wav": {"audio": "pcm_s16le"},
    ".flac": {"audio": "flac"},
    ".m4a": {"audio": "aac"},
    ".mp3": {"audio": "mp3"},
    ".ogg": {"audio": "libopus"},
    ".aac": {"audio": "aac"},
}
CODECS = {**PICTURES, **SOUND}
"""Endings of files to what is put into them."""


def tone(seconds: float, rate: int, start: float = 0.0) -> np.ndarray:
    """A tone of 0.3 of full scale, whose phase is that of its time."""
    times = start + np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * TONE_HERTZ * times)).astype(np.float32)


def picture(index: int) -> np.ndarray:
    """Grey, with a red square at the left above that is further right in each picture."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    left = (2 * index) % (WIDTH - 16)
    image[:16, left : left + 16] = (255, 0, 0)
    return image


def write_clip(
    path: Path,
    seconds: float = 2.0,
    *,
    video: str | None = "",
    audio: str | None = "",
    sound: np.ndarray | None = None,
    rate: int = 48_000,
    times: Sequence[float] | None = None,
    offsets: tuple[float, float] = (0.0, 0.0),
    rotation: int = 0,
) -> Path:
    """Write a clip.

    Args:
        path: Its ending decides container and codecs, see `CODECS`.
        seconds: Length of both streams.
        video: Codec of the pictures in place of the usual one; no pictures where ``None``.
        audio: The same of the sound.
        sound: (channels, time) in place of the tone.
        rate: Samples a second.
        times: Seconds of each picture; evenly spaced by default.
        offsets: Seconds at which pictures and sound begin.
        rotation: Degrees counter-clockwise by which a player shall turn the pictures.
    """
    import av

    usual = CODECS[path.suffix]
    video, audio = (
        None if wish is None else wish or usual.get(kind)
        for kind, wish in (("video", video), ("audio", audio))
    )
    with av.open(str(path), "w") as container:
        shown: Any = None if video is None else container.add_stream(video, rate=FPS)
        heard: Any = None
        if shown is not None:
            shown.width, shown.height = WIDTH, HEIGHT
            shown.pix_fmt = "rgb8" if video == "gif" else "yuv420p"
            shown.time_base = shown.codec_context.time_base = Fraction(1, 1000 if times else FPS)
            if rotation:
                shown.set_display_rotation(rotation)
        if audio is not None:
            sound = tone(seconds, rate)[None] if sound is None else sound
            heard = container.add_stream(audio, rate=rate, layout="mono" if len(sound) == 1 else "stereo")
            _put_sound(container, heard, sound, rate, offsets[1])
        if shown is not None:
            _put_pictures(
                container, shown, times or [i / FPS for i in range(round(seconds * FPS))], offsets[0]
            )
    return path


def _put_sound(container: Any, stream: Any, sound: np.ndarray, rate: int, offset: float) -> None:
    import av

    layout = "mono" if len(sound) == 1 else "stereo"
    for begin in range(0, sound.shape[1], 1024):
        samples = np.ascontiguousarray(sound[:, begin : begin + 1024], np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = begin + round(offset * rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _put_pictures(container: Any, stream: Any, times: Sequence[float], offset: float) -> None:
    import av

    for index, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
        frame.time_base = stream.codec_context.time_base
        frame.pts = round((time + offset) / frame.time_base)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
