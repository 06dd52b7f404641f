"""A media file of a stranger, opened so that nothing but that one file is ever read.

FFmpeg, by way of PyAV, reads what Python hands it. A playlist, or a file that names another file or a URL, is
refused.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from alignmamba.errors import AlignMambaError, DataError
from alignmamba.extras import require
from alignmamba.files import open_regular

Kind = Literal["audio", "video"]

FORMATS: Final = (
    # of video
    *("mov", "matroska", "avi", "flv", "asf", "asf_o", "mpegts", "mpeg", "mxf", "gxf", "nut", "nsv", "rm"),
    *("wtv", "dv", "ivf", "yuv4mpegpipe", "mpegvideo", "h261", "h263", "h264", "hevc", "vvc", "m4v", "av1"),
    *("obu", "vc1", "mjpeg", "gif", "apng", "dhav", "pva", "ty", "live_flv", "swf", "roq", "film_cpk"),
    # of sound
    *("wav", "w64", "aiff", "au", "caf", "flac", "ogg", "mp3", "aac", "loas", "ac3", "eac3", "ac4", "dts"),
    *("dtshd", "truehd", "mlp", "amr", "amrnb", "amrwb", "ape", "wv", "tta", "tak", "mpc", "mpc8", "dsf"),
    *("voc", "xwma", "sox", "ircam", "nistsphere", "gsm", "oma", "qcp", "iff", "shn", "osq", "bonk", "rso"),
)
"""Formats that are read, by FFmpeg's names: those that hold sound or pictures themselves. Playlists, lists of
files, descriptions of streams, sequences of images and devices are not among them."""

MOST_PIXELS: Final = 1 << 25
"""Pixels of a picture: 8K has a little fewer."""
MOST_STREAMS: Final = 64
MOST_CHANNELS: Final = 64
RATES: Final = (1_000, 768_000)
"""Samples a second."""
_MOST_BYTES: Final = 1 << 38
"""Larger files hold holes: reading one might take days."""
_MOST_SAMPLES: Final = 1 << 23
"""Samples of one decoded frame of sound."""
_PREROLLS_SECONDS: Final = (0.5, 8.0, 60.0)
"""Time before a segment at which reading begins, for decoders build on what came before; the first that
works."""


@dataclass(frozen=True, slots=True)
class OpenMedia:
    """An open file and the streams that are read of it."""

    path: Path
    container: Any
    sound: Any | None
    """Stream of sound: the one marked as default, else the first."""
    pictures: Any | None
    """Stream of moving pictures; the cover of an album is not one."""
    zero: float
    """Earliest start of the two, in seconds of the container: time zero of the file."""

    def stream(self, kind: Kind) -> Any | None:
        """The stream of a kind."""
        return self.sound if kind == "audio" else self.pictures

    def seconds(self, stream: Any, stamp: int) -> float:
        """A time stamp of a stream in seconds from the start of the file."""
        return float(stamp * stream.time_base) - self.zero


@contextmanager
def opened(path: Path, *, kind: Kind | None = None, at: float = 0.0) -> Iterator[OpenMedia]:
    """A media file, ready to be read.

    Args:
        path: The file; links are followed.
        kind: The stream that will be read; both where ``None``.
        at: Seconds from the start of the file from which that stream is needed. Reading begins before it.

    Raises:
        DataError: If it cannot be opened or read, within the block as well, or holds neither sound nor
            pictures; the message names it.
        ConfigError: If PyAV is not installed.
    """
    require(str(path), "media", "av")
    with ExitStack() as stack:
        source = _Source(stack.enter_context(open_regular(path)))
        stack.enter_context(_refusing(path, source))
        with _container(path, source, kind, probed=False) as media:
            huge = any(_too_large(stream) for stream in media.container.streams.video)
        media = stack.enter_context(_container(path, source, kind, probed=not huge))
        stream = None if kind is None else media.stream(kind)
        late = at > _PREROLLS_SECONDS[0] and stream is not None and not unreadable(stream)
        if late and not _reached(media, stream, at):
            media = stack.enter_context(_container(path, source, kind, probed=not huge))
        yield media


class _Source:
    """The file as PyAV reads it. It has no name, for names decide nothing; and it never raises: an exception
    within FFmpeg may surface anywhere.
    """

    name = ""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.fault: OSError | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as fault:
            self.fault = fault
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -errno.EINVAL

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def _refusing(path: Path, source: _Source) -> Iterator[None]:
    """Turn every failure of FFmpeg into one line about the file."""
    import av

    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise DataError(f"{path}: expected at most {_MOST_BYTES} bytes, found {size}")
        yield
    except AlignMambaError:
        raise
    except MemoryError as fault:
        raise DataError(f"{path}: cannot be read: needs more memory than there is") from fault
    # Those besides FFmpegError are PyAV's own, of values that it did not expect.
    except (av.FFmpegError, ValueError, LookupError, ArithmeticError, AssertionError, RuntimeError) as fault:
        if source.fault is not None:
            raise DataError(f"{path}: cannot be read: {source.fault.strerror}") from source.fault
        raise DataError(f"{path}: cannot be read: damaged, or not a file of sound or pictures") from fault


@contextmanager
def _container(path: Path, source: _Source, kind: Kind | None, *, probed: bool) -> Iterator[OpenMedia]:
    """A container. Where it is probed, FFmpeg decodes first frames, in some formats whatever their size."""
    import av

    source.seek(0)
    options = {
        "format_whitelist": ",".join(FORMATS),
        "protocol_whitelist": "none",
        "max_streams": str(4 * MOST_STREAMS),
        "max_pixels": str(MOST_PIXELS),
        "max_samples": str(_MOST_SAMPLES),
        "threads": "1",
        **({} if probed else {"codec_whitelist": "none"}),
    }
    with av.open(source, "r", options=options, metadata_errors="replace") as container:
        if len(container.streams) > MOST_STREAMS:
            raise DataError(
                f"{path}: expected at most {MOST_STREAMS} streams, found {len(container.streams)}"
            )
        sound, pictures = _chosen(container.streams.audio), _chosen(container.streams.video)
        if sound is None and pictures is None:
            raise DataError(f"{path}: expected sound or moving pictures, found a file without either")
        read = {None: (sound, pictures), "audio": (sound,), "video": (pictures,)}[kind]
        for stream in container.streams:
            if stream not in read:
                stream.discard = av.stream.Discard.all
            elif stream.codec_context is not None:
                # Clips are read side by side, one in each process.
                stream.codec_context.thread_count = 1
                stream.codec_context.options = {
                    "max_pixels": options["max_pixels"],
                    "max_samples": options["max_samples"],
                }
        starts = [
            float(stream.start_time * stream.time_base)
            for stream in (sound, pictures)
            if stream is not None and stream.start_time is not None
        ]
        yield OpenMedia(path, container, sound, pictures, min(starts, default=0.0))


def _chosen(streams: Any) -> Any | None:
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    moving = [stream for stream in streams if not stream.disposition & still]
    default = [stream for stream in moving if stream.disposition & Disposition.default]
    return next(iter(default or moving), None)


def unreadable(stream: Any) -> str:
    """Reason for not decoding a stream, before any memory is taken for it; empty if there is no reason.

    Args:
        stream: Of sound or pictures, as PyAV has it.
    """
    context = stream.codec_context
    if context is None:
        return "its codec is unknown"
    if stream.type == "video":
        if _too_large(stream):
            return f"pictures of {context.width} x {context.height}, expected at most {MOST_PIXELS} pixels"
        return ""
    if not RATES[0] <= context.sample_rate <= RATES[1]:
        return f"{context.sample_rate} samples a second, expected {RATES[0]} to {RATES[1]}"
    if context.channels > MOST_CHANNELS:
        return f"{context.channels} channels, expected at most {MOST_CHANNELS}"
    return ""


def _too_large(stream: Any) -> bool:
    context = stream.codec_context
    return context is not None and context.width * context.height > MOST_PIXELS


def _reached(media: OpenMedia, stream: Any, at: float) -> bool:
    """Move to before a time; False if no way leads there but from the start of the file.

    Some containers lead to a place where decoding cannot begin, or past the time: the first frame decides.
    """
    import av

    seconds = media.zero + at
    for back in _PREROLLS_SECONDS:
        stamp = int((seconds - back) / stream.time_base)
        try:
            media.container.seek(stamp, stream=stream)
            first = next(media.container.decode(stream))
            if not first.is_corrupt and first.time is not None and first.time <= seconds:
                media.container.seek(stamp, stream=stream)
                return True
        except (av.FFmpegError, StopIteration, ValueError, OverflowError):
            continue
    return False
