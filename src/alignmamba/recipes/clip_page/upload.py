"""A media file that a browser sends, written to disk as it arrives, within a limit."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from alignmamba.errors import DataError
from alignmamba.recipes.local_server import in_time

FORM: Final = "multipart/form-data"
CLIP: Final = "clip"
"""Name of the field of the file, and of the file on disk."""
WORDS: Final = "words"
"""Name of the field of the words that are spoken, or of subtitles."""
MOST_WORDS: Final = 200_000
"""Bytes of the words."""
_MOST_NAME: Final = 120
_MORE: Final = 64 << 10
"""Bytes of a form beside its fields."""
_STALL_SECONDS: Final = 60.0


class UploadError(DataError):
    """A form that is not what the page sends; the message is a sentence for its reader."""

    def __init__(self, line: str, status: int = 400) -> None:
        super().__init__(line)
        self.status = status
        """Status of the response."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A media file on disk."""

    path: Path
    """The file; a file of words lies beside it where some were given."""
    name: str
    """Its name on the machine of the browser, for people."""


@dataclass(kw_only=True)
class _Form:
    """Fields of a form while they arrive."""

    file: BinaryIO
    most_bytes: int
    name: str = ""
    size: int = 0
    words: bytearray = field(default_factory=bytearray)
    header: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    into: str = ""
    done: bool = False

    def callbacks(self) -> Any:
        """Functions that the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self.header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self.header[1].extend(data[start:end]),
            "on_header_end": self._take_header,
            "on_part_data": self._take,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self.into = ""
        self.header = (bytearray(), bytearray())

    def _take_header(self) -> None:
        from python_multipart.multipart import parse_options_header

        name, value = (bytes(each) for each in self.header)
        self.header = (bytearray(), bytearray())
        if name.lower() != b"content-disposition":
            return
        options = parse_options_header(value.decode("utf-8", "replace").encode("latin-1", "replace"))[1]
        self.into = options.get(b"name", b"").decode("latin-1")
        if self.into == CLIP:
            if self.name:
                raise UploadError("Found several clips, expected one.")
            given = value.rpartition(b'filename="')[2].rpartition(b'"')[0].decode("utf-8", "replace")
            self.name = Path(given.replace("\\", "/")).name[-_MOST_NAME:] or CLIP

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self.into == CLIP:
            self.size += end - start
            if self.size > self.most_bytes:
                raise too_large(self.most_bytes)
            self.file.write(data[start:end])
        elif self.into == WORDS:
            if len(self.words) + end - start > MOST_WORDS:
                raise UploadError(f"The words have more than {MOST_WORDS:,} bytes.", 413)
            self.words += data[start:end]

    def _end(self) -> None:
        self.done = True


def too_large(most_bytes: int) -> UploadError:
    """Refusal of a file beyond the limit."""
    return UploadError(f"The clip is larger than {most_bytes / 1e6:g} MB, the limit of this demo.", 413)


async def received(
    headers: Mapping[str, str], chunks: AsyncIterator[bytes], folder: Path, *, most_bytes: int
) -> Upload:
    """Write the media file of a form into a folder, and its words beside it.

    Args:
        headers: Those of the request, by small letters.
        chunks: Its body.
        folder: Empty folder, whose owner removes it.
        most_bytes: Largest media file that is taken, whatever the headers declare.

    Raises:
        UploadError: If the body is not such a form, is too large, or stops arriving.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(headers.get("content-type", ""))
    declared = headers.get("content-length", "")
    most = most_bytes + MOST_WORDS + _MORE
    if kind.decode("latin-1") != FORM or b"boundary" not in options:
        raise UploadError("Expected the form of this page, found another request.")
    if declared.isdigit() and int(declared) > most:
        raise too_large(most_bytes)
    path = folder / CLIP
    with path.open("xb") as file:
        form = _Form(file=file, most_bytes=most_bytes)
        try:
            parser = MultipartParser(options[b"boundary"], form.callbacks())
            arrived = 0
            async for chunk in in_time(chunks, _STALL_SECONDS):
                arrived += len(chunk)
                if arrived > most:
                    raise too_large(most_bytes)
                parser.write(chunk)
        except TimeoutError as fault:
            raise UploadError("The clip stopped arriving.", 408) from fault
        except FormParserError as fault:
            raise UploadError("Expected the form of this page, found a damaged one.") from fault
    if not form.done:
        raise UploadError("The form broke off before its end.")
    if not form.size:
        raise UploadError("Choose a clip first.")
    words = form.words.decode("utf-8", "replace").strip()
    if words:
        path.with_suffix(_ending(words)).write_text(words + "\n", encoding="utf-8")
    return Upload(path=path, name=form.name)


def _ending(words: str) -> str:
    """Ending of the file of words: subtitles are known by what they hold."""
    if words.lstrip("\ufeff").startswith("WEBVTT"):
        return ".vtt"
    return ".srt" if "-->" in words else ".txt"
