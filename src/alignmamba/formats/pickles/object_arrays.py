"""Arrays of Python objects in `.npy` and `.npz` files, read as data: sequences of unequal length, or texts.
Nothing in them is run.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.pickles.pickle_globals import kind
from alignmamba.formats.pickles.pickle_machine import read_pickle
from alignmamba.formats.pickles.pickled_values import as_list
from alignmamba.formats.pickles.stored_arrays import StoredArray
from alignmamba.formats.plain_files import copy_objects

WAY_OUT = "save one array with offsets, or one file for each sample"


def read_objects(path: Path, key: str, *, inside: Path | None = None) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of an array that `copy_objects` finds, and its elements in row-major order, as `read_pickle`
    gives them: arrays among them are read when they are asked for.

    Raises:
        DataError: If there is no such array, or it asks for anything but values.
    """
    place = f"{path}: array {key!r}" if key else str(path)
    # The pickle is open as long as anything of it is in use.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pickled = Path(folder) / "objects.pkl"
        with pickled.open("wb") as target:
            shape = copy_objects(path, key, target, inside=inside)
        try:
            array = read_pickle(pickled)
            found = as_list(array) if isinstance(array, StoredArray | list) else [array]
        except DataError as error:
            raise DataError(f"{place}: {str(error).removeprefix(f'{pickled}: ')}") from error
    if len(found) != math.prod(shape):
        expected = f"{place}: expected {math.prod(shape)} objects by its shape"
        raise DataError(f"{expected}, found {len(found)}; the file is damaged")
    return shape, found


class Ragged(Sequence[np.ndarray | None]):
    """Sequences of unequal length, one for each sample, read when they are asked for: from arrays, lists of
    numbers or of lists of numbers, and ``None`` for a sample without one.
    """

    def __init__(self, place: str, items: Sequence[Any]) -> None:
        self._place, self._items = place, items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, row: Any) -> Any:
        """An array of numbers, or ``None``."""
        where = f"{self._place}: entry {row}"
        found = _numbers(self._items[row], where, 4)
        if found is not None and found.dtype.kind not in "fiu":
            raise DataError(f"{where}: expected numbers, found {str(found.dtype)[:40]}; {WAY_OUT}")
        return found


def _numbers(item: Any, where: str, axes: int) -> np.ndarray | None:
    """An object as an array; lists may stand in lists as deep as there may be axes."""
    if item is None:
        return None
    if isinstance(item, StoredArray) and item.dtype.kind != "O":
        try:
            return item.read()
        except DataError as error:
            raise DataError(f"{where}: {str(error).partition(': ')[2] or error}") from error
    if not isinstance(item, StoredArray | list | tuple) or axes == 0:
        raise DataError(f"{where}: expected an array of numbers, found {kind(item)}; {WAY_OUT}")
    parts = as_list(item)
    rows = [part if isinstance(part, int | float) else _numbers(part, where, axes - 1) for part in parts]
    if any(row is None for row in rows) or len({np.shape(row) for row in rows if row is not None}) > 1:
        raise DataError(f"{where}: expected rows of one length, found others; {WAY_OUT}")
    try:
        array = np.array(rows)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: expected numbers, found others; {WAY_OUT}") from error
    return array.reshape(*item.shape, *array.shape[1:]) if isinstance(item, StoredArray) else array
