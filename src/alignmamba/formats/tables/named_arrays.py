"""Arrays by the names that a description gives them: `FILE.npy`, `FILE.npz#KEY`, `FILE.h5#DATASET`."""

from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.pickles.object_arrays import WAY_OUT, Ragged, read_objects
from alignmamba.formats.pickles.pickled_values import is_nothing
from alignmamba.formats.plain_files import ObjectsError, npz_keys, one_line, open_npy, open_npz, regular_file
from alignmamba.formats.sequences.hdf5_process import HDF5Array, HDF5Process

_HDF5 = (".h5", ".hdf5", ".hdf")
_MOST_LISTED = 256 << 20

Opened = np.ndarray | HDF5Array | Ragged
"""An array of numbers or text, one of which parts are read when they are asked for, or sequences of unequal
length."""


def is_hdf5(path: Path) -> bool:
    """Return whether the name is one of an HDF5 file of data sets."""
    return path.suffix.lower() in _HDF5


class Arrays:
    """Opens the arrays of one folder, which none may leave; all methods raise a `DataError` where they
    cannot. A process reads HDF5; it is started when it is first needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: HDF5Process | None = None

    def open(self, name: str) -> Opened:
        """An array of numbers or text."""
        file, _, key = name.partition("#")
        path = self.folder / file
        if is_hdf5(path):
            found = self._hdf5(path).array(path, key)
            return np.array(found, dtype=str) if isinstance(found, list) else found
        try:
            return open_npz(path, key, inside=self.folder) if key else open_npy(path, inside=self.folder)
        except ObjectsError:
            return self._of_objects(path, key)

    def keys(self, name: str) -> list[str]:
        """Names of the arrays in a file that may have several."""
        path = self.folder / name.partition("#")[0]
        return self._hdf5(path).names(path) if is_hdf5(path) else list(npz_keys(path, inside=self.folder))

    def _hdf5(self, path: Path) -> HDF5Process:
        regular_file(path, inside=self.folder)
        self._process = self._process or HDF5Process()
        return self._process

    def _of_objects(self, path: Path, key: str) -> Opened:
        place = f"{path}: array {key!r}" if key else str(path)
        shape, items = read_objects(path, key, inside=self.folder)
        if items and all(isinstance(item, int | float | str) or is_nothing(item) for item in items):
            if any(isinstance(item, str) for item in items):
                if any(is_nothing(item) for item in items):
                    raise DataError(f"{place}: expected text, found nothing among it")
                return np.array([str(item) for item in items]).reshape(shape)
            try:
                return np.array([np.nan if item is None else item for item in items]).reshape(shape)
            except (ValueError, OverflowError) as error:
                raise DataError(f"{place}: expected numbers, found others: {one_line(error)}") from error
        if len(shape) != 1:
            raise DataError(f"{place}: objects of shape {shape}, expected one for each sample; {WAY_OUT}")
        return Ragged(place, items)

    def numbers(self, where: str, name: str) -> Opened:
        """An array of numbers, or sequences of them; `where` is what names it, for messages."""
        array = self._named(where, name)
        if not isinstance(array, Ragged) and array.dtype.kind not in "fiu":
            raise DataError(f"{where}: {name}: expected numbers, found {str(array.dtype)[:40]}")
        return array

    def listed(self, where: str, name: str, *, kinds: str, size: int | None = None) -> list[Any]:
        """A small one-dimensional array as a list.

        Args:
            where: What names it, for messages.
            name: The array.
            kinds: The kinds of its entries, as numpy has them.
            size: How many entries it must have, where that is known.
        """
        array, expected = self._named(where, name), "text" if kinds[0] == "U" else "numbers"
        where = f"{where}: {name}"
        if isinstance(array, Ragged):
            raise DataError(f"{where}: expected {expected}, found Python objects of other kinds")
        if array.dtype.kind not in kinds:
            raise DataError(f"{where}: expected {expected}, found {str(array.dtype)[:40]}")
        if array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)):
            raise DataError(f"{where}: expected one dimension, found shape {array.shape}")
        if size is not None and len(array) != size:
            raise DataError(f"{where}: expected {size}, one per sample, found {len(array)}")
        if len(array) * array.dtype.itemsize > _MOST_LISTED:
            raise DataError(f"{where}: expected at most {_MOST_LISTED} bytes, found more")
        try:
            cells = array[0 : len(array)].reshape(-1).tolist()
            return [cell.decode() if isinstance(cell, bytes) else cell for cell in cells]
        except (UnicodeDecodeError, ValueError) as error:
            raise DataError(f"{where}: expected text in UTF-8: {one_line(error)}") from error

    def count(self, where: str, name: str) -> int:
        """Number of entries of an array."""
        return len(self._named(where, name))

    def _named(self, where: str, name: str) -> Opened:
        try:
            return self.open(name)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
