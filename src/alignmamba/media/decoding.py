"""Sound and pictures of a clip as arrays with times, in memory that does not grow with its length.

All times are the container's own, in seconds from the start of the clip; the start of a file is the earliest
start of its sound and pictures.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np

from alignmamba.capacity import refuse_beyond_memory
from alignmamba.errors import DataError
from alignmamba.files import open_regular
from alignmamba.media.clip import MediaClip
from alignmamba.media.container import Kind, OpenMedia, opened, unreadable
from alignmamba.media.stream_frames import (
    SHORT_SECONDS,
    StreamLog,
    packets_of,
    readable_stream,
    timed_frames,
)
from alignmamba.media.tracks import Absent

_JITTER_SECONDS: Final = 0.05
"""Sound whose time stamp is off by less than this continues what came before: containers round."""
_SILENCE_SECONDS: Final = 3600.0
"""Pauses are filled with this much silence in all."""
_LOUDEST: Final = 100.0
"""Samples are cut off here; full scale is 1."""
_BLOCK_SECONDS: Final = 30.0

MEDIA_ENDINGS: Final = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".asf", ".ts", ".mts"),
        *(".m2ts", ".mpg", ".mpeg", ".vob", ".ogv", ".mxf", ".gif"),
        *(".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aif", ".aiff", ".amr"),
    )
)
"""Endings, in small letters, by which the clips of a folder are found. A clip that is named itself may have
any: the content decides."""
_SAME_SECONDS: Final = 1e-6
"""Times closer than this are one."""

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Waveform:
    """Sound as samples, one channel."""

    samples: np.ndarray
    """(time,) float32, all finite; full scale is 1."""
    rate: int
    """Samples a second."""
    start: float
    """Seconds from the start of the clip to the first sample."""
    notes: tuple[str, ...] = ()
    """Half a sentence each on what is imperfect."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture."""

    time: float
    """Seconds from the start of the clip."""
    image: np.ndarray
    """(height, width, 3) uint8: red, green, blue; upright."""


class Decoded(Iterator[ItemT], Generic[ItemT]):
    """Items of a clip in the order of their times. The file is open until the last one is taken."""

    def __init__(self, items: Iterator[ItemT], log: StreamLog) -> None:
        self._items, self._log = items, log

    def __next__(self) -> ItemT:
        return next(self._items)

    @property
    def notes(self) -> tuple[str, ...]:
        """Half a sentence each on what is imperfect, complete when the last item is taken."""
        return tuple(self._log.notes)

    @property
    def absent(self) -> Absent:
        """Reason for finding no item at all, known when the end was reached without any."""
        return Absent(self._log.lacking)


def waveform(clip: MediaClip, rate: int = 16_000) -> Waveform | Absent:
    """All sound of a clip, its channels averaged.

    Args:
        clip: Where to find it.
        rate: Samples a second.

    Returns:
        The samples, with silence where the container leaves a gap; or the reason for having none.

    Raises:
        DataError: If the file cannot be read, or nothing of it be decoded, or the sound does not fit into
            memory; the message names the file.
    """
    found = blocks(clip, rate, _BLOCK_SECONDS)
    pieces: list[Waveform] = []
    for block in found:
        pieces.append(block)
        refuse_beyond_memory(
            block.samples.nbytes * (len(pieces) + 1),
            f"{clip.path}: its sound",
            "cut it into segments",
            error=DataError,
        )
    if not pieces:
        return found.absent
    samples = np.concatenate([piece.samples for piece in pieces])
    return Waveform(samples, rate, pieces[0].start, found.notes)


def blocks(clip: MediaClip, rate: int, seconds: float) -> Decoded[Waveform]:
    """Sound of a clip as `waveform` gives it, in contiguous blocks.

    Args:
        clip: Where to find it.
        rate: Samples a second.
        seconds: Length of a block; the last one may be shorter.

    Raises:
        DataError: While it is read, as `waveform`.
    """
    log = StreamLog("audio")
    return Decoded(_blocks(clip, rate, max(1, round(seconds * rate)), log), log)


def frames(clip: MediaClip, fps: float | None = None) -> Decoded[Frame]:
    """Pictures of a clip.

    Args:
        clip: Where to find them.
        fps: Pictures a second that are wanted: of each tick from the start of the clip the nearest picture,
            with its own time and never twice. All of them where ``None``.

    Raises:
        DataError: While they are read, if the file cannot be read, or nothing of it be decoded; the message
            names the file.
    """
    log = StreamLog("video")
    return Decoded(_frames(clip, fps, log), log)


# Pictures


def _frames(clip: MediaClip, fps: float | None, log: StreamLog) -> Iterator[Frame]:
    from av.video.reformatter import VideoReformatter

    reformatter, nothing = VideoReformatter(), True
    with opened(clip.path, kind="video", at=clip.start) as media:
        stream = readable_stream(media, log)
        if stream is not None:
            for time, frame in _thinned(_shown(media, stream, clip, log), fps):
                image = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                yield Frame(time, np.ascontiguousarray(np.rot90(image, quarter_turns(frame))))
                nothing = False
        log.finish(clip, media, nothing=nothing)


def _shown(media: OpenMedia, stream: Any, clip: MediaClip, log: StreamLog) -> Iterator[tuple[float, Any]]:
    """Pictures that begin within a clip, with seconds from its start that never fall."""
    newest = 0.0
    for seconds, frame in timed_frames(media, stream, log):
        if clip.end is not None and seconds > clip.end - _SAME_SECONDS:
            return
        time = seconds - clip.start
        if time > newest - _SAME_SECONDS:
            newest = max(newest, time)
            yield newest, frame


def _thinned(shown: Iterator[tuple[float, Any]], fps: float | None) -> Iterator[tuple[float, Any]]:
    """The picture nearest to each tick, once; one is held back until its successor is known."""
    if fps is None:
        yield from shown
        return
    held, tick = None, 0
    for time, frame in shown:
        if held is not None:
            middle = (held[0] + time) / 2
            if tick <= middle * fps:
                yield held
                tick = math.floor(middle * fps) + 1
        held = time, frame
    if held is not None and tick <= held[0] * fps + _SAME_SECONDS:
        yield held


def quarter_turns(frame: Any) -> int:
    """Quarter turns, counter-clockwise, after which a stored picture is upright."""
    return int(round(frame.rotation / 90) % 4)


# Sound


def _blocks(clip: MediaClip, rate: int, length: int, log: StreamLog) -> Iterator[Waveform]:
    grid = _Grid(clip, rate)
    held: list[np.ndarray] = []
    given = ready = 0
    with opened(clip.path, kind="audio", at=clip.start) as media:
        stream = readable_stream(media, log)
        if stream is not None:
            for piece in _placed(media, stream, clip, grid, log):
                held.append(piece)
                ready += len(piece)
                while ready >= length:
                    samples = np.concatenate(held)
                    yield Waveform(samples[:length], rate, (grid.first + given) / rate)
                    held, ready, given = [samples[length:]], ready - length, given + length
            if ready:
                yield Waveform(np.concatenate(held), rate, (grid.first + given) / rate)
        log.finish(clip, media, nothing=not given + ready)


def _placed(
    media: OpenMedia, stream: Any, clip: MediaClip, grid: "_Grid", log: StreamLog
) -> Iterator[np.ndarray]:
    """Samples of a clip, contiguous, in pieces."""
    for seconds, frame in timed_frames(media, stream, log):
        if clip.end is not None and seconds >= clip.end:
            break
        mono = _mono(frame)
        wrong = ~np.isfinite(mono)
        log.not_numbers += int(wrong.sum())
        mono[wrong] = 0.0
        yield from grid.put(mono.clip(-_LOUDEST, _LOUDEST), frame.sample_rate, seconds - clip.start)
    yield from grid.flush()


def _mono(frame: Any) -> np.ndarray:
    """Mean of the channels of a frame, float32 with full scale 1."""
    values, channels = frame.to_ndarray(), frame.layout.nb_channels
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    if values.dtype.kind == "f":
        return np.asarray(values.mean(axis=0, dtype=np.float64), np.float32)
    full = 1 << (8 * values.dtype.itemsize - 1)
    middle = full if values.dtype.kind == "u" else 0
    return np.asarray((values.mean(axis=0, dtype=np.float64) - middle) / full, np.float32)


class _Grid:
    """Places sound on the samples of one rate, counted from the start of a clip: silence fills gaps, and what
    overlaps with earlier sound is dropped.
    """

    def __init__(self, clip: MediaClip, rate: int) -> None:
        self.first = 0
        """Place of the first sample."""
        self._path, self._rate = clip.path, rate
        self._last = math.inf if clip.end is None else round((clip.end - clip.start) * rate)
        self._resampler: Any = None
        self._source_rate = 0
        self._next = 0.0  # seconds at which the source continues
        self._place = 0  # of the next sample of the resampler
        self._end: int | None = None  # after the last sample that was given
        self._silence = 0

    def put(self, mono: np.ndarray, rate: int, seconds: float) -> Iterator[np.ndarray]:
        """Sound of a rate that begins at a time from the start of the clip."""
        import av

        if rate != self._source_rate or abs(seconds - self._next) > _JITTER_SECONDS:
            yield from self.flush()
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=self._rate)
            self._source_rate, self._next, self._place = rate, seconds, round(seconds * self._rate)
        self._next += len(mono) / rate
        frame = av.AudioFrame.from_ndarray(mono[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        yield from self._given(frame)

    def flush(self) -> Iterator[np.ndarray]:
        """Samples that the resampler still holds."""
        if self._resampler is not None and self._source_rate != self._rate:
            yield from self._given(None)

    def _given(self, frame: Any) -> Iterator[np.ndarray]:
        for resampled in self._resampler.resample(frame):
            samples = resampled.to_ndarray()[0]
            at = self._place
            self._place += len(samples)
            start = 0 if self._end is None else self._end
            samples, at = samples[max(0, start - at) :], max(at, start)
            if at + len(samples) > self._last:
                samples = samples[: max(0, int(self._last) - at)]
            if len(samples):
                yield from self._gap(at)
                self._end = at + len(samples)
                yield samples

    def _gap(self, at: int) -> Iterator[np.ndarray]:
        """Silence from the last sample that was given."""
        if self._end is None:
            self.first = self._end = at
        self._silence += at - self._end
        if self._silence > _SILENCE_SECONDS * self._rate:
            raise DataError(
                f"{self._path}: expected sound with pauses of at most {_SILENCE_SECONDS:.0f} s in all, found"
                f" {self._silence / self._rate:.0f} s"
            )
        for begin in range(self._end, at, self._rate):
            yield np.zeros(min(self._rate, at - begin), np.float32)


# Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """One stream of sound or pictures, as the file declares it and as far as it goes."""

    kind: Kind
    codec: str
    rate: float
    """Samples or pictures a second; 0 where unknown."""
    size: tuple[int, int] | None = None
    """Width and height of the upright picture."""
    channels: int = 0
    rotation: int = 0
    """Degrees counter-clockwise by which stored pictures are turned."""
    start: float
    """Seconds from the start of the file to the first packet."""
    end: float
    """Seconds to the end of the last packet."""
    unreadable: str = ""
    """Reason for not decoding it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """A media file as its container describes it, compared with what is in it."""

    container: str
    declared: float | None
    """Seconds that the container declares."""
    found: float
    """Seconds to the end of the last packet."""
    streams: tuple[StreamFacts, ...]
    notes: tuple[str, ...]
    """Half a sentence each on what is imperfect."""


def facts(clip: MediaClip) -> ClipFacts:
    """Facts about the file of a clip. Every packet is read and next to nothing decoded, once for all segments
    of a file.

    Raises:
        DataError: If it cannot be read; the message names it.
    """
    with open_regular(clip.path) as file:
        state = os.fstat(file.fileno())
    return _facts_once(clip.path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _facts_once(path: Path, size: int, changed: int) -> ClipFacts:
    del size, changed  # of another state of the file
    log = StreamLog("video")
    with opened(path) as media:
        both: tuple[tuple[Kind, Any], ...] = (("video", media.pictures), ("audio", media.sound))
        read = {stream.index: _Span(kind, stream) for kind, stream in both if stream is not None}
        for packet in packets_of(media, [span.stream for span in read.values()], log):
            read[packet.stream_index].take(packet, media)
        declared = None if media.container.duration is None else media.container.duration / 1e6
        found = max(span.end for span in read.values())
        if declared is not None and found < declared - SHORT_SECONDS:
            log.notes.append(f"the file ends at {found:.1f} s of {declared:.1f} s declared")
        return ClipFacts(
            container=media.container.format.name,
            declared=declared,
            found=found,
            streams=tuple(span.facts() for span in read.values()),
            notes=tuple(log.notes),
        )


@dataclass(slots=True)
class _Span:
    """A stream while its packets are seen."""

    kind: Kind
    stream: Any
    start: float = math.inf
    end: float = 0.0
    rotation: int | None = None

    def take(self, packet: Any, media: OpenMedia) -> None:
        import av

        if packet.pts is not None:
            self.start = min(self.start, media.seconds(self.stream, packet.pts))
            self.end = max(self.end, media.seconds(self.stream, packet.pts + (packet.duration or 0)))
        if self.kind == "video" and self.rotation is None and not unreadable(self.stream):
            try:
                self.rotation = next((quarter_turns(frame) * 90 for frame in packet.decode()), None)
            except av.FFmpegError:
                return  # a later packet may be whole

    def facts(self) -> StreamFacts:
        context, rotation = self.stream.codec_context, self.rotation or 0
        rate, size, channels = 0.0, None, 0
        if context is not None and self.kind == "audio":
            rate, channels = float(context.sample_rate), int(context.channels)
        elif context is not None:
            rate, size = float(self.stream.average_rate or 0), (context.width, context.height)
        return StreamFacts(
            kind=self.kind,
            codec="" if context is None else context.codec.canonical_name,
            rate=rate,
            size=size[::-1] if size and rotation % 180 else size,
            channels=channels,
            rotation=rotation,
            start=0.0 if self.start == math.inf else self.start,
            end=self.end,
            unreadable=unreadable(self.stream),
        )
