"""Arrays that a pickle holds, whose content stays in the file until it is asked for."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from alignmamba.formats.pickles.pickle_file import PickleFile, StoredBytes

Content = bytes | StoredBytes | list[Any]
"""The bytes of an array's elements, or the elements themselves where they are objects."""


@dataclass(slots=True, eq=False, repr=False)
class StoredArray:
    """An array whose shape and type are known and whose content is read when it is asked for."""

    _file: PickleFile
    shape: tuple[int, ...] = field(default=(0,), init=False)
    dtype: np.dtype[Any] = field(default=np.dtype(np.uint8), init=False)
    _data: Content | None = field(default=None, init=False)
    _stored_shape: tuple[int, ...] = field(default=(0,), init=False)
    _order: Literal["C", "F"] = field(default="C", init=False)
    _axes: tuple[int, ...] | None = field(default=None, init=False)
    """Permutation of the stored axes."""
    _whole: np.ndarray | None = field(default=None, init=False)
    _recent: tuple[int, np.ndarray] | None = field(default=None, init=False)

    def fill(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        data: Content,
        *,
        order: Literal["C", "F"] = "C",
        axes: tuple[int, ...] | None = None,
    ) -> None:
        """Say what the array holds, once: its shape as it lies in the file, and how its axes are permuted
        after that. A content that does not fit the shape is refused, so no shape alone takes memory.
        """
        if self._data is not None:
            raise self._file.error("damaged: an array is given its content twice")
        length = data.length if isinstance(data, StoredBytes) else len(data)
        found, size = f"{length} bytes", math.prod(shape)
        if dtype.kind == "O":
            fits = isinstance(data, list) and length == size
            found = f"{length} objects" if isinstance(data, list) else "bytes"
        elif isinstance(data, StoredBytes) and data.encoding != "bytes":
            fits, found = size * dtype.itemsize <= length, f"at most {found}"
        else:
            fits = not isinstance(data, list) and length == size * dtype.itemsize
        if not fits:
            raise self._file.error(
                f"damaged: an array of shape {shape} and type {dtype} has another content: {found}"
            )
        self.shape = shape if axes is None else tuple(shape[axis] for axis in axes)
        self.dtype = dtype
        self._data, self._stored_shape, self._order, self._axes = data, shape, order, axes

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __getitem__(self, row: int) -> np.ndarray:
        """Entry of the first axis at `row`, read again."""
        return self.part(row, 0, self.shape[1]) if len(self.shape) > 1 else self.read()[row]

    def part(self, row: int, start: int, stop: int) -> np.ndarray:
        """``array[row, start:stop]``, read again, without places that count from the end."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        start, stop, _ = slice(start, stop).indices(self.shape[1])
        if self._is_scattered:
            return self._from_whole(row)[start:stop]
        if isinstance(self._data, StoredBytes) and self._data.encoding != "bytes":
            # Encoded bytes are read forward only, and one row may be asked for in two steps.
            if self._recent is None or self._recent[0] != row:
                self._recent = row, self._rows(row * self.shape[1], self.shape[1])
            return self._recent[1][start:stop].copy()
        return self._rows(row * self.shape[1] + start, stop - start)

    def read(self) -> np.ndarray:
        """The whole array, read again."""
        flat = self._elements(0, math.prod(self.shape))
        found = flat.reshape(self._stored_shape, order=self._order)
        return found if self._axes is None else found.transpose(self._axes)

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

    @property
    def _is_scattered(self) -> bool:
        return self._order == "F" or self._axes is not None

    def _from_whole(self, row: int) -> np.ndarray:
        """A row of a scattered array, which is held until its last row is read."""
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
        buffer = np.empty(count * size, np.uint8)
        if count and isinstance(self._data, bytes):
            buffer[:] = np.frombuffer(self._data, np.uint8, count * size, first * size)
        elif count and isinstance(self._data, StoredBytes):
            self._data.read_into(first * size, buffer.data, last=first + count == math.prod(self.shape))
        return buffer.view(self.dtype)


def unboxed(value: Any) -> Any:
    """The entries of an array of objects with one axis, which may stand for a list; else the value itself."""
    is_boxed = isinstance(value, StoredArray) and value.dtype.kind == "O" and len(value.shape) == 1
    return value.items() if is_boxed else value
