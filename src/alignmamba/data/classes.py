"""Class of a label: one rule for arrays in Python, for tables and for every other file."""

import math
from collections.abc import Sequence

import numpy as np

_EVERY_WHOLE = 2**53
"""Whole numbers below it are all floats, and stand in names as they are."""


class Classes:
    """The names of the classes of a task, and what a label of a sample means.

    A text is the name of a class. A whole number is a place among the classes, counted from 0, as long as no
    name says otherwise: ``("no", "yes")``, ``("0", "1", "2")`` and ``("none", "1", "2")`` are of that kind.
    Other names that are numbers, such as ``("1", "2", "3")`` or ``("0", "2", "1")``: a number could mean a
    place or a name.

    Args:
        names: The names, in order; distinct.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._places = {name: place for place, name in enumerate(self.names)}
        values = {
            place: value for place, name in enumerate(self.names) if (value := _value(name)) is not None
        }
        self.numbers_are_places = all(value == place for place, value in values.items())
        """True if a whole number can only be a place: each name that is a number stands at its place."""
        self._by_value: dict[float, int | None] = {}
        for place, value in values.items():
            self._by_value[value] = None if value in self._by_value else place

    def place_of(self, label: float | int | str) -> int | None:
        """The place of the class that a label of a file means; ``None`` where it means none."""
        return self.place_of_name(label) if isinstance(label, str) else self.place_of_number(label)

    def place_of_name(self, name: str) -> int | None:
        """The place of the class of that name; ``None`` where there is none."""
        return self._places.get(name)

    def place_of_number(self, number: float) -> int | None:
        """The place of the class that a number of a file means; ``None`` where it means none.

        Where names are numbers that stand at other places, a number is a name: labels in a file are what its
        author calls them.
        """
        if self.numbers_are_places:
            return int(number) if float(number).is_integer() and 0 <= number < len(self.names) else None
        found = self._places.get(str(int(number))) if float(number).is_integer() else None
        found = self._by_value.get(float(number)) if found is None else found
        return self._by_value.get(_written(number)) if found is None else found

    def __str__(self) -> str:
        """The first names, for messages."""
        shown = [name[:40] for name in self.names[:20]]
        return f"{shown}{f' and {len(self.names) - 20} more' if len(self.names) > 20 else ''}"


def name_of_number(number: float) -> str:
    """Name of the class that a number of a file is: its shortest form, as float32 where it is one."""
    if float(number).is_integer() and abs(number) < _EVERY_WHOLE:
        return str(int(number))
    return str(_written(number))


def _written(number: float) -> float:
    """Number of the fewest digits that is the same as float32; itself where float32 does not hold it."""
    with np.errstate(over="ignore"):
        single = np.float32(number)
    return float(str(single)) if float(single) == number else float(number)


def _value(name: str) -> float | None:
    """The number that a name is; ``None`` for a word."""
    try:
        value = float(name)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
