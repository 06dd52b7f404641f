"""The globals that a pickle may name, and the values that are made where it calls them.

Nothing is imported or called by a name that stands in the file: a name is looked up in `GLOBALS`, and what
is found makes an array, a type of elements, a number, text, bytes or a container.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.pickles.pickle_file import OBJECT_BYTES, TEXT_BYTES, ByteText, PickleFile, StoredBytes
from alignmamba.formats.pickles.stored_arrays import Content, StoredArray

TABLE_BYTES = 240
ENTRY_BYTES = 104
_MOST_AXES = 32
# A flag that numpy sets on its type of text.
_NEEDS_INIT = 8

Given = tuple[Any, ...]
"""Arguments of a call of a global."""


@dataclass(slots=True, eq=False, frozen=True)
class Global:
    """A global that may stand in a pickle, and what calling it makes, if it may be called."""

    name: str
    make: Callable[[PickleFile, Given], Any] | None


@dataclass(slots=True, eq=False)
class _Type:
    """The type of an array's elements; its byte order is reported after it is made."""

    dtype: np.dtype[Any]


_KINDS = {
    "StoredArray": "numpy array",
    "StoredBytes": "run of bytes",
    "_Type": "numpy dtype",
    "NoneType": "None",
}


class RefusedGlobalError(DataError):
    """A pickle asks for a global that is not among those that are read."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


def kind(value: Any) -> str:
    """Kind of a value, for people; never the value itself, whose text may have no end."""
    if type(value) is Global:
        return f"global {value.name}"
    return _KINDS.get(type(value).__name__, type(value).__name__)


def members(file: PickleFile, found: list[Any]) -> list[Any]:
    """The values, if they may be keys of a dict or members of a set: hashing a tuple of tuples may never
    end.
    """
    for value in found:
        if not isinstance(value, str | bytes | int | float | None):
            raise file.error(f"a {kind(value)} as key of a dict or member of a set, expected text or numbers")
    file.charge(ENTRY_BYTES * len(found) + TABLE_BYTES)
    return found


def called(file: PickleFile, value: Any, given: Any) -> Any:
    """The value that calling a global makes, if it is one that may be called."""
    if type(value) is not Global or value.make is None:
        named = value.name if type(value) is Global else f"a {kind(value)}"
        raise file.error(f"refused: the pickle calls {named}")
    if type(given) is not tuple:
        raise file.damaged(f"{value.name} is called with a {kind(given)}")
    file.charge(OBJECT_BYTES)
    return value.make(file, given)


def found_global(file: PickleFile, module: str, name: str) -> Global:
    """The global of that name, if it is one that a pickle may name."""
    found = GLOBALS.get((module, name))
    if found is None:
        refused = f"{module}.{name}"[:120]
        raise RefusedGlobalError(
            f"{file.path}: refused: the pickle asks for {refused!a}; nothing of a pickle is run, only"
            " containers, numbers, text and numpy arrays are read",
            name=refused,
        )
    return found


def set_state(file: PickleFile, made: Any, state: Any) -> None:
    """Give an array its content, or a type its byte order."""
    if type(made) is StoredArray:
        _fill_array(file, made, state)
    elif type(made) is _Type:
        _set_byte_order(file, made, state)
    else:
        raise file.error(f"refused: the pickle sets the state of a {kind(made)}")


def _make_array(file: PickleFile, given: Given) -> StoredArray:
    """``_reconstruct(ndarray, (0,), b"b")``: an array that gets its content later."""
    if len(given) != 3 or given[0] is not _NDARRAY or given[1] != (0,) or given[2] not in (b"b", "b"):
        raise file.damaged("found an array that numpy did not write")
    return StoredArray(file)


def _is_state(state: Any, length: int, version: int) -> bool:
    return type(state) is tuple and len(state) == length and type(state[0]) is int and state[0] == version


def _fill_array(file: PickleFile, array: StoredArray, state: Any) -> None:
    """The state of an array: version, shape, type, whether it is column-major, content."""
    if not _is_state(state, 5, 1) or type(state[3]) not in (bool, int):
        raise file.damaged("found an array state that numpy did not write")
    _, shape, dtype, column_major, content = state
    order: Literal["C", "F"] = "F" if column_major else "C"
    array.fill(_shape(file, shape), _dtype(file, dtype), _content(file, content), order=order)


def _array_from_buffer(file: PickleFile, given: Given) -> StoredArray:
    """``_frombuffer(content, dtype, shape, order[, axes])`` of protocol 5."""
    if len(given) not in (4, 5) or given[3] not in ("C", "F", "K"):
        raise file.damaged("found an array that numpy did not write")
    content, dtype, shape, order = given[:4]
    shape = _shape(file, shape)
    axes = given[4] if order == "K" and len(given) == 5 else None
    if order == "K" and (
        type(axes) is not tuple
        or any(type(axis) is not int for axis in axes)
        or sorted(axes) != list(range(len(shape)))
    ):
        raise file.damaged("expected an order of an array's axes, found something else")
    array = StoredArray(file)
    stored: Literal["C", "F"] = "F" if order == "F" else "C"
    array.fill(shape, _dtype(file, dtype), _content(file, content), order=stored, axes=axes)
    return array


def _content(file: PickleFile, content: Any) -> Content:
    if isinstance(content, ByteText):
        return content.encode("latin-1")
    is_unicode = (
        isinstance(content, StoredBytes)
        and content.is_text
        and content.encoding in ("utf-8", "unicode escapes")
    )
    if isinstance(content, bytes | list | StoredBytes) and not is_unicode:
        return content
    raise file.damaged(f"the content of an array is a {kind(content)}")


def _shape(file: PickleFile, shape: Any) -> tuple[int, ...]:
    if (
        type(shape) is not tuple
        or len(shape) > _MOST_AXES
        or any(type(size) is not int or not 0 <= size < 1 << 48 for size in shape)
    ):
        raise file.damaged("expected the shape of an array, found something else")
    if math.prod(shape) == 0 and max(shape, default=0) > 1 << 24:
        raise file.damaged(f"an array of shape {shape} without any element")
    return shape


def _dtype(file: PickleFile, given: Any) -> np.dtype[Any]:
    if type(given) is not _Type:
        raise file.damaged(f"the type of an array is a {kind(given)}")
    # numpy writes it of an empty text alone; of such elements an array could hold any number
    if given.dtype.itemsize == 0:
        raise file.error(f"refused: an array of type {given.dtype.str!r}, whose elements take no bytes")
    return given.dtype


def _make_type(file: PickleFile, given: Given) -> _Type:
    """``dtype("f4", False, True)``."""
    name = given[0] if given else None
    known = r"[<>=|]?(f[248]|[iu][1248]|b1|[SU][0-9]{1,9}|O[48]?)"
    if not isinstance(name, str) or not re.fullmatch(known, name):
        shown = ascii(name[:40]) if isinstance(name, str) else f"a {kind(name)}"
        raise file.error(f"refused: an array of type {shown}, expected real numbers, text, bytes or objects")
    if len(given) > 3 or any(type(flag) not in (bool, int) or flag not in (0, 1) for flag in given[1:]):
        raise file.damaged("found an array type that numpy did not write")
    # The number after O is the size of a pointer where the file was written.
    return _Type(np.dtype("O" if "O" in name else str(name)))


def _set_byte_order(file: PickleFile, made: _Type, state: Any) -> None:
    """The state of a type: version, byte order, three fields of structured types, size, alignment, flags."""
    if not _is_state(state, 8, 3) or state[1] not in ("<", ">", "|", "="):
        raise file.damaged("found a dtype state that numpy did not write")
    if any(part is not None for part in state[2:5]):
        raise file.error(
            "refused: an array of structured type, expected real numbers, text, bytes or objects"
        )
    dtype = made.dtype
    if any(type(part) is not int for part in state[5:]) or state[5] not in (-1, dtype.itemsize):
        raise file.damaged(f"the elements of a type of {dtype.itemsize} bytes take another number of bytes")
    if dtype.kind != "O" and state[7] not in (0, _NEEDS_INIT if dtype.kind == "U" else 0):
        raise file.damaged("found type flags that numpy did not write")
    if dtype.kind not in "OSb":
        made.dtype = dtype.newbyteorder(">" if state[1] == ">" else "<")


def _make_scalar(file: PickleFile, given: Given) -> Any:
    """``scalar(dtype, content)``, as a Python number or text."""
    dtype = given[0].dtype if len(given) == 2 and type(given[0]) is _Type else np.dtype(object)
    content = _content(file, given[1]) if len(given) == 2 else b""
    if dtype.kind == "O" or not isinstance(content, bytes) or len(content) != dtype.itemsize:
        raise file.damaged("found a number that numpy did not write")
    if dtype.itemsize == 0:
        return "" if dtype.kind == "U" else b""
    try:
        return np.frombuffer(content, dtype)[0].item()
    except ValueError as error:
        raise file.damaged("expected a numpy text, found something else") from error


def _make_encoded(file: PickleFile, given: Given) -> bytes | StoredBytes:
    """``encode("...", "latin1")``: how Python 3 writes bytes for protocols 0 to 2."""
    if len(given) != 2 or given[1] not in ("latin1", "latin-1"):
        raise file.damaged("found bytes that Python did not write")
    text = given[0]
    if isinstance(text, StoredBytes) and text.is_text:
        return text.as_bytes()
    if not isinstance(text, str):
        raise file.damaged(f"a {kind(text)} is taken for bytes")
    file.charge(TEXT_BYTES + len(text))
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise file.damaged("expected bytes, found other characters") from error


def _make_bytes(file: PickleFile, given: Given) -> bytes | StoredBytes:
    """``bytes()``, ``bytearray()``, ``bytearray(b"...")`` and ``bytearray("...", "latin-1")``."""
    if not given:
        return b""
    if len(given) == 1 and isinstance(given[0], bytes | StoredBytes):
        return given[0]
    return _make_encoded(file, given)


def _listed(file: PickleFile, given: Given) -> list[Any]:
    """The one list that a container is made of, if it is not empty."""
    if not given:
        return []
    if len(given) != 1 or not isinstance(given[0], list | tuple):
        raise file.damaged("expected a container made from a list, found something else")
    return list(given[0])


def _make_set(file: PickleFile, given: Given) -> set[Any]:
    return set(members(file, _listed(file, given)))


def _make_dict(file: PickleFile, given: Given) -> dict[Any, Any]:
    """``OrderedDict()`` and, of Python 2, ``OrderedDict([[key, value], ...])``."""
    pairs = _listed(file, given)
    if any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs):
        raise file.damaged("expected a dict made from pairs, found something else")
    keys = members(file, [pair[0] for pair in pairs])
    return dict(zip(keys, (pair[1] for pair in pairs), strict=True))


_NDARRAY = Global("numpy.ndarray", None)
_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTINS = ("builtins", "__builtin__")
_MAKERS: list[tuple[tuple[str, ...], str, Callable[[PickleFile, Given], Any]]] = [
    (_ARRAYS, "_reconstruct", _make_array),
    (_ARRAYS, "scalar", _make_scalar),
    (_NUMERIC, "_frombuffer", _array_from_buffer),
    (("numpy",), "dtype", _make_type),
    (("_codecs",), "encode", _make_encoded),
    (_BUILTINS, "bytes", _make_bytes),
    (_BUILTINS, "bytearray", _make_bytes),
    (_BUILTINS, "set", _make_set),
    (_BUILTINS, "frozenset", lambda file, given: frozenset(_make_set(file, given))),
    (("collections",), "OrderedDict", _make_dict),
]
GLOBALS: dict[tuple[str, str], Global] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy.core.multiarray", "ndarray"): _NDARRAY,
    **{
        (module, name): Global(f"{module}.{name}", make)
        for modules, name, make in _MAKERS
        for module in modules
    },
}
"""Every global that a pickle may name, in the modules in which Python 2, Python 3 and the versions of numpy
have it."""
