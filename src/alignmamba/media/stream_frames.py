"""Frames of one stream in the order of a file, with their times, and a record of what was imperfect."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from alignmamba.errors import DataError
from alignmamba.media.clip import MediaClip
from alignmamba.media.container import RATES, Kind, OpenMedia, unreadable

_JUMP_SECONDS: Final = 600.0
"""A longer pause within a stream is a damaged time stamp."""
SHORT_SECONDS: Final = 0.5
"""A stream that ends this much before its declared end is reported."""
_RATE: Final = 25.0
"""Pictures a second where a container has neither times nor a rate."""


@dataclass(slots=True)
class StreamLog:
    """Record of what happens while a stream is read."""

    kind: Kind
    declared: float | None = None
    end: float = 0.0
    whole: int = 0
    damaged: int = 0
    untimed: int = 0
    late: int = 0
    not_numbers: int = 0
    notes: list[str] = field(default_factory=list)
    lacking: str = ""
    """Reason for finding nothing."""

    @property
    def name(self) -> str:
        return "sound" if self.kind == "audio" else "pictures"

    def finish(self, clip: MediaClip, media: OpenMedia, *, nothing: bool) -> None:
        """Add what is known at the end of the stream.

        Raises:
            DataError: If more of it is damaged than whole, or it is all that the file has, and not readable.
        """
        packets = f"{self.damaged} of {self.whole + self.damaged} packets of {self.name} are damaged"
        if nothing:
            other = media.pictures if self.kind == "audio" else media.sound
            decoded = self.whole > self.damaged
            until = "the end" if clip.end is None else f"{clip.end:.1f} s"
            if decoded:
                self.lacking = f"no {self.name} between {clip.start:.1f} s and {until}"
            self.lacking = self.lacking or (packets if self.damaged else f"its {self.name} cannot be decoded")
            if other is None and not decoded:
                raise DataError(f"{clip.path}: cannot be read: {self.lacking}")
        elif self.damaged > self.whole:
            raise DataError(f"{clip.path}: cannot be read: {packets}")
        elif self.damaged:
            self.notes.append(packets)
        for count, what in (
            (self.untimed, f"frames of {self.name} have no time of their own"),
            (self.late, f"frames of {self.name} have earlier times than those before them"),
            (self.not_numbers, "samples are not numbers and are replaced by silence"),
        ):
            if count:
                self.notes.append(f"{count} {what}")
        if self.declared is not None and not nothing:
            wanted = self.declared if clip.end is None else min(clip.end, self.declared)
            if self.end < wanted - SHORT_SECONDS:
                ends = "ends" if self.kind == "audio" else "end"
                self.notes.append(
                    f"the {self.name} {ends} at {self.end:.1f} s of {self.declared:.1f} s declared"
                )


def packets_of(media: OpenMedia, streams: list[Any], log: StreamLog) -> Iterator[Any]:
    """Packets as far as the container can be read; damage beyond which it cannot is noted."""
    import av

    packets = media.container.demux(streams)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as fault:
            log.notes.append(f"the file is damaged after {log.end:.1f} s ({fault.strerror})")
            return
        if packet is None:
            return
        yield packet


def _decoded(media: OpenMedia, stream: Any, log: StreamLog) -> Iterator[Any]:
    """Frames of a stream from where the container stands; packets that are damaged are skipped."""
    import av

    for packet in packets_of(media, [stream], log):
        try:
            found = packet.decode()
        except av.EOFError:
            return
        except (av.FFmpegError, ValueError):
            log.damaged += 1
            continue
        log.whole += packet.size > 0
        for frame in found:
            if frame.is_corrupt or (stream.type == "audio" and not RATES[0] <= frame.sample_rate <= RATES[1]):
                log.damaged += 1
            else:
                yield frame


def readable_stream(media: OpenMedia, log: StreamLog) -> Any | None:
    """The stream of the kind that is read; None, with the reason noted, where it cannot be."""
    stream = media.stream(log.kind)
    log.lacking = f"no {log.name} in the file" if stream is None else unreadable(stream)
    if log.lacking:
        return None
    log.declared = _declared(media, stream)
    return stream


def _declared(media: OpenMedia, stream: Any) -> float | None:
    """End of a stream as its container declares it, in seconds from the start of the file."""
    tag = re.fullmatch(r"(\d{1,6}):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - media.zero
    if stream.duration is not None:
        return media.seconds(stream, (stream.start_time or 0) + stream.duration)
    return None if media.container.duration is None else media.container.duration / 1e6


def timed_frames(media: OpenMedia, stream: Any, log: StreamLog) -> Iterator[tuple[float, Any]]:
    """Frames with their times in seconds from the start of the file.

    A frame without a time follows the one before. Reading stops at a jump that no clip has.
    """
    following, newest = 0.0, -math.inf
    for frame in _decoded(media, stream, log):
        if frame.time is None:
            log.untimed += 1
        time = following if frame.time is None else frame.time - media.zero
        if newest > -math.inf and time - following > _JUMP_SECONDS:
            log.notes.append(f"time stamps jump from {following:.1f} s to {time:.1f} s, where reading stops")
            return
        log.late += time < newest
        newest, following = max(newest, time), time + _lasting(frame, stream)
        log.end = max(log.end, following)
        yield time, frame


def _lasting(frame: Any, stream: Any) -> float:
    """Seconds that a frame lasts."""
    if stream.type == "audio":
        return float(frame.samples / frame.sample_rate)
    if frame.duration:
        return float(frame.duration * frame.time_base)
    return 1.0 / float(stream.average_rate or _RATE)
