"""The file of a pickle: its bytes, the memory that its values may take, and long runs that stay in it."""

import io
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from alignmamba.errors import DataError

Encoding = Literal["bytes", "utf-8", "string escapes", "unicode escapes"]
"""Encodings of bytes in a pickle: as they are; as characters 0 to 255 in UTF-8; as a quoted string of Python
2 (protocol 0); as a line of characters 0 to 255 with ``\\u`` escapes (protocol 0).
"""

MEMORY_BASE = 64 << 20
MEMORY_MULTIPLE = 32
MEMORY_MOST = 2 << 30

# Bytes that values take, from above, measured on 64-bit Python 3.11.
TEXT_BYTES = 56
OBJECT_BYTES = 400

LONGEST_LINE = 512
_TEXT_IN_MEMORY = 4096
# Encoded bytes are decoded in pieces of this many.
_PIECE = 1 << 16
_CODECS = {"utf-8": "utf-8", "string escapes": "unicode_escape", "unicode escapes": "raw_unicode_escape"}
# What Python itself writes; anything else is damage. The possessive repeat ends before an escape that is cut
# by the end of a piece.
_TOKENS = {
    "string escapes": re.compile(rb"(?:[^\\]++|\\x[0-9a-fA-F]{2}|\\[\\'\"nrt])*+"),
    "unicode escapes": re.compile(rb"(?:[^\\]++|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8})*+"),
}
_LONGEST_ESCAPE = 10
_LONGEST_TEXT = 1 << 20


class ByteText(str):
    """A string of Python 2, which is bytes of unknown encoding, read as latin-1."""

    __slots__ = ()


class PickleFile:
    """A file that is open as long as anything that was found in it is in use.

    Its values may take `most` bytes of memory outside arrays, and never more than a multiple of its size; so
    many may be searched for the end of a long line, by default all.

    Raises:
        DataError: If it is not a regular file that can be opened.
    """

    def __init__(self, path: Path, *, most: int = MEMORY_MOST, scanned: int | None = None) -> None:
        self.path, found = path, ""
        try:
            if path.is_file():
                self.stream = path.open("rb")
                self.size = path.stat().st_size
            else:
                found = "something else" if path.exists() else "nothing"
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or error
            raise DataError(f"{str(path)!r}: cannot be read: {said}") from error
        if found:
            raise DataError(f"{path}: expected a file, found {found}")
        self._most = self.left = min(MEMORY_BASE + MEMORY_MULTIPLE * self.size, most)
        """Bytes of memory that are still to be had."""
        self._scanned = self.size if scanned is None else scanned

    def __del__(self) -> None:
        if hasattr(self, "stream"):
            self.stream.close()

    def error(self, problem: str) -> DataError:
        return DataError(f"{self.path}: {problem}")

    def damaged(self, problem: str) -> DataError:
        """The error about a pickle that Python itself would not have written."""
        return self.error(f"damaged at byte {self.stream.tell()}: {problem}")

    def cut_off(self) -> DataError:
        """The error about a value that the file does not hold to its end."""
        return self.error(
            f"the file ends after {self.size} bytes in the middle of a value; it was cut off or damaged"
        )

    def charge(self, amount: int) -> None:
        """Take memory from the account; an empty one is refused."""
        self.left -= amount
        if self.left < 0:
            raise self.error(
                f"found values outside arrays of more than {self._most >> 20} MiB; long lists of numbers are"
                " read as arrays only"
            )

    def take(self, size: int) -> bytes:
        found = self.stream.read(size)
        if len(found) != size:
            raise self.cut_off()
        return found

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def line(self) -> bytes:
        """The rest of a short line."""
        found = self.stream.readline(LONGEST_LINE)
        if found.endswith(b"\n"):
            return found[:-1]
        if len(found) == LONGEST_LINE:
            raise self.damaged(f"a line of more than {LONGEST_LINE} bytes")
        raise self.cut_off()

    def run(self, length: int, longest: int, encoding: Encoding, *, is_text: bool) -> "bytes | StoredBytes":
        """The next bytes; in memory if they are no more than `longest`."""
        if length <= longest:
            self.charge(TEXT_BYTES + length)
            return self.take(length)
        offset = self.stream.tell()
        if length > self.size - offset:
            raise self.cut_off()
        self.stream.seek(offset + length)
        self.charge(OBJECT_BYTES)
        return StoredBytes(self, offset, length, encoding, is_text)

    def long_line(self, encoding: Encoding) -> "bytes | StoredBytes":
        """The rest of a line of any length; in memory where it is short."""
        offset = self.stream.tell()
        first = found = self.stream.readline(_TEXT_IN_MEMORY)
        length = len(found)
        while not found.endswith(b"\n"):
            self._scanned -= len(found)
            found = self.stream.readline(io.DEFAULT_BUFFER_SIZE << 3)
            length += len(found)
            if not found or self._scanned < 0:
                raise self.cut_off()
        self.charge(OBJECT_BYTES + min(length, _TEXT_IN_MEMORY))
        if length == len(first):
            return first[:-1]
        return StoredBytes(self, offset, length - 1, encoding, is_text=True)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`."""
        try:
            self.stream.seek(offset)
            found = self.stream.readinto(view)
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror or error}") from error
        if found != len(view):
            raise self.error("became shorter while it was read")


@dataclass(slots=True, eq=False, repr=False)
class StoredBytes:
    """A run of bytes, or of text, that was left in the file."""

    _file: PickleFile
    offset: int
    length: int
    """Bytes in the file; what they decode to is at most as long."""
    encoding: Encoding
    is_text: bool
    _next: int = field(default=0, init=False)
    """The first of the encoded bytes that is not decoded."""
    _decoded: int = field(default=0, init=False)
    _pending: bytes = field(default=b"", init=False)
    """Decoded bytes that nobody took yet; they end at `_decoded`."""

    def as_bytes(self) -> "StoredBytes":
        """The same run, with the characters of a text taken for bytes."""
        return replace(self, is_text=False)

    def quoted(self) -> tuple[bytes, "StoredBytes"]:
        """The first and the last byte, and the run between them; the file is left where it is."""
        place = self._file.stream.tell()
        ends = self._raw(0, 1) + self._raw(self.length - 1, self.length)
        self._file.stream.seek(place)
        return ends, replace(self, offset=self.offset + 1, length=self.length - 2)

    def text(self) -> str:
        """The text, if it is not of absurd length."""
        if not self.is_text or self.length > _LONGEST_TEXT:
            raise self._file.error(
                f"expected a text of at most {_LONGEST_TEXT} bytes, found {self.length} bytes at byte"
                f" {self.offset}"
            )
        raw = self._raw(0, self.length)
        if self.encoding == "unicode escapes":
            return raw.decode("raw_unicode_escape", "replace")
        if self.encoding == "string escapes":
            try:
                raw = decode_string(raw, self.encoding)
            except ValueError as error:
                problem = f"damaged: the text at byte {self.offset} cannot be decoded"
                raise self._file.error(problem) from error
        return raw.decode("utf-8", "replace")

    def read_into(self, start: int, view: memoryview, *, last: bool) -> None:
        """Fill `view` with the decoded bytes from `start` on; `last` says that nothing may follow them.

        Bytes that are encoded are decoded from the front, so reading forward is quick and reading backward
        starts again.

        Raises:
            DataError: If there are fewer bytes than that, or more where none may follow, or they are no
                encoded bytes at all.
        """
        if self.encoding == "bytes":
            self._file.read_into(self.offset + start, view)
            return
        if start < self._decoded - len(self._pending):
            self._next, self._decoded, self._pending = 0, 0, b""
        filled = 0
        while filled < len(view):
            skip = start + filled - (self._decoded - len(self._pending))
            if skip >= len(self._pending):
                if not self._decode_piece():
                    raise self._misfit("fewer")
                continue
            part = self._pending[skip : skip + len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._pending = self._pending[skip + len(part) :]
        if last and (self._pending or self._decode_piece()):
            raise self._misfit("more")

    def _misfit(self, more: str) -> DataError:
        return self._file.error(f"the array at byte {self.offset} has {more} bytes than its shape asks for")

    def _raw(self, start: int, stop: int) -> bytes:
        buffer = bytearray(stop - start)
        if buffer:
            self._file.read_into(self.offset + start, memoryview(buffer))
        return bytes(buffer)

    def _decode_piece(self) -> bool:
        """Decode the next piece that yields anything; false at the end."""
        if self._next == self.length:
            return False
        stop = min(self._next + _PIECE, self.length)
        piece = self._raw(self._next, stop)
        whole = _whole_characters(piece, self.encoding)
        cut, place = len(piece) - whole, self.offset + self._next
        damaged = f"damaged: the {self.encoding}"
        if whole == 0 or (cut and (stop == self.length or cut > _LONGEST_ESCAPE)):
            raise self._file.error(f"{damaged} at byte {place + whole} cannot be decoded")
        try:
            self._pending = _decoded(piece[:whole], self.encoding)
        except ValueError as error:
            raise self._file.error(f"{damaged} near byte {place} cannot be decoded to bytes") from error
        self._next += whole
        self._decoded += len(self._pending)
        return True


def _whole_characters(piece: bytes, encoding: Encoding) -> int:
    """Length of the longest beginning that cuts no character or escape."""
    if encoding == "utf-8":
        # All characters that stand for a byte take one or two bytes.
        return len(piece) - (piece[-1] >= 0xC0)
    match = _TOKENS[encoding].match(piece)
    return match.end() if match else 0


def _decoded(piece: bytes, encoding: Encoding) -> bytes:
    return piece.decode(_CODECS[encoding]).encode("latin-1")


def decode_string(piece: bytes, encoding: Encoding) -> bytes:
    """All of a short run of encoded bytes, decoded; ValueError for an escape that Python does not write, or a
    character that stands for no byte.
    """
    if piece and _whole_characters(piece, encoding) != len(piece):
        raise ValueError("an escape is damaged")
    return _decoded(piece, encoding)
