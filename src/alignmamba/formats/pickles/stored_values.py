"""Values that a pickle holds but that stay in its file until they are asked for."""

import math
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignmamba.errors import DataError

Encoding = Literal["bytes", "utf-8", "string escapes", "unicode escapes"]
"""How bytes lie in a pickle: as they are; as characters 0 to 255 in UTF-8; as a quoted string of Python 2
(protocol 0); as a line of characters 0 to 255 with ``\\u`` escapes (protocol 0)."""

# Encoded bytes are decoded in pieces of this many.
_PIECE = 1 << 16
# What Python itself writes; anything else is damage. The possessive repeat ends before an escape that is cut
# by the end of a piece.
_TOKENS = {
    "string escapes": re.compile(rb"(?:[^\\]++|\\x[0-9a-fA-F]{2}|\\[\\'\"nrt])*+"),
    "unicode escapes": re.compile(rb"(?:[^\\]++|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8})*+"),
}
_LONGEST_ESCAPE = 10
_LONGEST_TEXT = 1 << 20


class PickleFile:
    """A file that is open as long as anything that was found in it is in use.

    Raises:
        DataError: If it is not a regular file that can be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = ""
        try:
            if not path.is_file():
                found = "something else" if path.exists() else "nothing"
            else:
                self.stream = path.open("rb")
                self.size = path.stat().st_size
        except (OSError, ValueError) as error:
            raise DataError(
                f"{str(path)!r}: cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error
        if found:
            raise DataError(f"{path}: expected a file, found {found}")

    def __del__(self) -> None:
        if hasattr(self, "stream"):
            self.stream.close()

    def error(self, problem: str) -> DataError:
        """The error that says this of the file."""
        return DataError(f"{self.path}: {problem}")

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes at `offset`."""
        try:
            self.stream.seek(offset)
            found = self.stream.readinto(view)
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror or error}") from error
        if found != len(view):
            raise self.error("became shorter while it was read")


class StoredBytes:
    """A run of bytes, or of text, that was left in the file."""

    __slots__ = (
        "_decoded",
        "_ended",
        "_file",
        "_next",
        "_pending",
        "encoding",
        "is_text",
        "length",
        "offset",
    )

    def __init__(
        self, file: PickleFile, offset: int, length: int, encoding: Encoding, *, is_text: bool
    ) -> None:
        self._file = file
        self.offset = offset
        self.length = length
        """Bytes in the file; what they decode to is at most as long."""
        self.encoding: Encoding = encoding
        self.is_text = is_text
        self._next = 0  # of the encoded bytes
        self._decoded = 0
        self._pending = b""  # decoded bytes that nobody took yet; they end at `_decoded`

    def as_bytes(self) -> "StoredBytes":
        """The same run, with the characters of a text taken for bytes."""
        return StoredBytes(self._file, self.offset, self.length, self.encoding, is_text=False)

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
        try:
            return (
                decode_string(raw, self.encoding).decode("utf-8", "replace")
                if self.encoding == "string escapes"
                else raw.decode("utf-8", "replace")
            )
        except ValueError as error:
            raise self._file.error(f"damaged: the text at byte {self.offset} cannot be decoded") from error

    def read_into(self, start: int, view: memoryview, *, last: bool) -> None:
        """Fill `view` with the decoded bytes from `start` on.

        Bytes that are encoded are decoded from the front, so reading forward is quick and reading backward
        starts again.

        Args:
            start: First byte wanted.
            view: Where they go.
            last: Whether nothing may follow them.

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
            first = self._decoded - len(self._pending)
            skip = start + filled - first
            if skip >= len(self._pending):
                if not self._decode_piece():
                    raise self._file.error(
                        f"the array at byte {self.offset} has fewer bytes than its shape asks for"
                    )
                continue
            part = self._pending[skip : skip + len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._pending = self._pending[skip + len(part) :]
        if last and (self._pending or self._decode_piece()):
            raise self._file.error(f"the array at byte {self.offset} has more bytes than its shape asks for")

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
        if whole == 0 or (
            whole < len(piece) and (stop == self.length or len(piece) - whole > _LONGEST_ESCAPE)
        ):
            raise self._file.error(
                f"damaged: the {self.encoding} at byte {self.offset + self._next + whole} cannot be decoded"
            )
        try:
            self._pending = _decoded(piece[:whole], self.encoding)
        except ValueError as error:
            raise self._file.error(
                f"damaged: the {self.encoding} near byte {self.offset + self._next} cannot be decoded to"
                " bytes"
            ) from error
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
    if encoding == "utf-8":
        return piece.decode("utf-8").encode("latin-1")
    if encoding == "unicode escapes":
        return piece.decode("raw_unicode_escape").encode("latin-1")
    return piece.decode("unicode_escape").encode("latin-1")


def decode_string(piece: bytes, encoding: Encoding) -> bytes:
    """All of a short run of encoded bytes, decoded.

    Raises:
        ValueError: If it holds an escape that Python does not write, or a character that stands for no byte.
    """
    if piece and _whole_characters(piece, encoding) != len(piece):
        raise ValueError("an escape is damaged")
    return _decoded(piece, encoding)


class StoredArray:
    """An array whose shape and type are known and whose content is read when it is asked for."""

    __slots__ = (
        "_axis_order",
        "_data",
        "_file",
        "_order",
        "_recent",
        "_whole",
        "dtype",
        "is_filled",
        "shape",
    )

    def __init__(self, file: PickleFile) -> None:
        self._file = file
        self.is_filled = False
        self.shape: tuple[int, ...] = (0,)
        self.dtype = np.dtype(np.uint8)
        self._data: bytes | StoredBytes | list[Any] = b""
        self._order: Literal["C", "F"] = "C"
        self._axis_order: tuple[int, ...] | None = None
        self._whole: np.ndarray | None = None
        self._recent: tuple[int, np.ndarray] | None = None

    def fill(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        data: bytes | StoredBytes | list[Any],
        *,
        order: Literal["C", "F"] = "C",
        axis_order: tuple[int, ...] | None = None,
    ) -> None:
        """Say what the array holds, once; a content that does not fit the shape is refused, so no shape alone
        takes memory.

        Args:
            shape: Of the array as it lies in the file.
            dtype: Of an element.
            data: The elements' bytes, or the elements themselves where `dtype` is object.
            order: Whether the last axis is contiguous (C) or the first (F).
            axis_order: How the axes are to be permuted after that.
        """
        if self.is_filled:
            raise self._file.error("damaged: an array is given its content twice")
        size = math.prod(shape)
        if dtype.kind == "O":
            fits, found = (
                isinstance(data, list) and len(data) == size,
                f"{len(data)} objects" if isinstance(data, list) else "bytes",
            )
        elif isinstance(data, StoredBytes) and data.encoding != "bytes":
            fits, found = size * dtype.itemsize <= data.length, f"at most {data.length} bytes"
        else:
            length = data.length if isinstance(data, StoredBytes) else len(data)
            fits, found = not isinstance(data, list) and length == size * dtype.itemsize, f"{length} bytes"
        if not fits:
            raise self._file.error(
                f"damaged: an array of shape {shape} and type {dtype} has another content: {found}"
            )
        self.is_filled = True
        self.shape = shape if axis_order is None else tuple(shape[axis] for axis in axis_order)
        self.dtype = dtype
        self._data, self._order, self._axis_order = data, order, axis_order

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __getitem__(self, row: int) -> np.ndarray:
        """What the first axis holds at `row`, read anew."""
        return self.part(row, 0, self.shape[1]) if len(self.shape) > 1 else self.read()[row]

    def part(self, row: int, start: int, stop: int) -> np.ndarray:
        """``array[row, start:stop]`` of an array with two axes or more, read anew; no place counts from the
        end.
        """
        if not 0 <= row < len(self):
            raise IndexError(row)
        start, stop, _ = slice(start, stop).indices(self.shape[1])
        if self._order == "F" or self._axis_order is not None:
            return self._from_whole(row)[start:stop]
        if isinstance(self._data, StoredBytes) and self._data.encoding != "bytes":
            # Encoded bytes are read forward only, and one row may be asked for in two steps.
            if self._recent is None or self._recent[0] != row:
                self._recent = row, self._rows(row * self.shape[1], self.shape[1])
            return self._recent[1][start:stop].copy()
        return self._rows(row * self.shape[1] + start, stop - start)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """``array[start:stop]``, read anew, of an array in which those rows are; no place counts from the
        end.
        """
        if self._order == "F" or self._axis_order is not None:
            return self.read()[start:stop]
        return self._rows(start * self.shape[1], (stop - start) * self.shape[1]).reshape(
            stop - start, *self.shape[1:]
        )

    def read(self) -> np.ndarray:
        """The whole array, read anew."""
        if isinstance(self._data, list):
            raise self._file.error(f"expected an array of numbers, found one of {len(self._data)} objects")
        flat = self._elements(0, math.prod(self.shape))
        if self._axis_order is None:
            return flat.reshape(self.shape, order=self._order)
        stored = [0] * len(self.shape)
        for position, axis in enumerate(self._axis_order):
            stored[axis] = self.shape[position]
        return flat.reshape(stored, order=self._order).transpose(self._axis_order)

    def items(self) -> list[Any]:
        """The elements in row-major order as Python values."""
        if isinstance(self._data, list):
            if self._order == "F" and len(self.shape) > 1:
                raise self._file.error("an array of objects in column-major order is not read")
            return self._data
        try:
            values: list[Any] = self.read().ravel().tolist()
        except ValueError as error:
            raise self._file.error(f"damaged: an array of type {self.dtype} holds what is no text") from error
        return values

    def _from_whole(self, row: int) -> np.ndarray:
        """Rows of an array that is not row-major lie scattered, so it is held until its last row is read."""
        if self._whole is None:
            self._whole = self.read()
        found: np.ndarray = self._whole[row].copy()
        if row == len(self) - 1:
            self._whole = None
        return found

    def _rows(self, first: int, count: int) -> np.ndarray:
        width = math.prod(self.shape[2:])
        return self._elements(first * width, count * width).reshape(count, *self.shape[2:])

    def _elements(self, first: int, count: int) -> np.ndarray:
        if isinstance(self._data, list):
            raise self._file.error(f"expected an array of numbers, found one of {len(self._data)} objects")
        size = self.dtype.itemsize
        if isinstance(self._data, bytes):
            return (
                np.frombuffer(self._data, self.dtype, count, first * size).copy()
                if count
                else np.empty(0, self.dtype)
            )
        buffer = np.empty(count * size, np.uint8)
        if count:
            self._data.read_into(first * size, buffer.data, last=first + count == math.prod(self.shape))
        return buffer.view(self.dtype)


def unboxed(value: Any) -> Any:
    """The entries of an array of objects with one axis, as which a list may have been written; another value
    as it is.
    """
    return (
        value.items()
        if isinstance(value, StoredArray) and value.dtype.kind == "O" and len(value.shape) == 1
        else value
    )
