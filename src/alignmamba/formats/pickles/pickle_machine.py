"""Pickles read as data: a machine of its own for protocols 0 to 5, which makes values and can do nothing
else.

A pickle is a program. Python's unpickler runs it, and even with a list of allowed globals it takes memory
before it can be stopped: a few bytes ask for a list of memo entries, an array of any shape or a tuple whose
hash never ends. Here the program drives a machine that knows containers, numbers, text, bytes and numpy
arrays. Nothing is ever imported or called by a name that stands in the file, and no global outside `_GLOBALS`
gets as far as the stack.

Long runs of bytes stay in the file (`alignmamba.formats.pickles.stored_values`), so opening a file of many
gigabytes takes little time and memory, and samples are read one by one. What does go into memory is charged
to an account: `MEMORY_MULTIPLE` times the size of the file and `MEMORY_BASE` bytes at most, and never more
than `MEMORY_MOST`. Every operation costs something, so the account also bounds the time.

Every change of the format up to protocol 5 is documented in PEP 307, PEP 3154 and PEP 574; the opcodes in
Python's `pickletools`.
"""

import contextlib
import io
import math
import re
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.errors import DataError
from alignmamba.formats.pickles.stored_values import (
    Encoding,
    PickleFile,
    StoredArray,
    StoredBytes,
    decode_string,
)

MEMORY_BASE = 64 << 20
MEMORY_MULTIPLE = 32
MEMORY_MOST = 2 << 30

# Longer runs stay in the file.
_BYTES_IN_MEMORY = 512
_TEXT_IN_MEMORY = 4096
_LONGEST_LINE = 512
_LONGEST_INTEGER = 9
_MOST_AXES = 32

# Bytes that things take, from above, measured on 64-bit Python 3.11; every operation is charged for its place
# on the stack.
_OPERATION = 40
_TEXT = 56
_LIST = 88
_TABLE = 240
_ENTRY = 104
_ARRAY = 400

# A flag that numpy sets on its type of text.
_NEEDS_INIT = 8

# Of the head of a file; runs of bytes whose length is told are passed over.
_GLIMPSE_SPENT = 32 << 20
_GLIMPSE_SCANNED = 32 << 20
# The version, or an empty container of protocol 0 or 1, or a global that is remembered, as each is.
_BEGINNING = re.compile(rb"\x80[\x02-\x05]|[(\]})]|c[\w.]+\n[\w.]+\n(p\d+\n|q)")


class ByteText(str):
    """A string of Python 2, which is bytes of unknown encoding, read as latin-1."""

    __slots__ = ()


def read_pickle(path: Path) -> Any:
    """The value that a pickle holds.

    Args:
        path: The file.

    Returns:
        Lists, tuples, dicts, sets, numbers, text, bytes, `StoredArray` for arrays, `StoredBytes` for long
        runs of bytes or text, `ByteText` for strings of Python 2. A container may hold itself.

    Raises:
        DataError: If the file cannot be read, is damaged, asks for anything but values (the global or the
            operation is named), or its values outside arrays take more memory than the account allows.
    """
    file = PickleFile(path)
    machine = _Machine(
        file, most=min(MEMORY_BASE + MEMORY_MULTIPLE * file.size, MEMORY_MOST), scanned=file.size
    )
    machine.run()
    return machine.result()


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """What the head of a pickle says of its layout, where it holds a dict of splits."""

    fields: frozenset[str]
    """Names of the fields of those splits that are dicts, as far as they were met."""
    lists: bool
    """Whether a split is a list."""
    whole: bool
    """Whether all of the pickle was looked at."""


def glimpse(path: Path, splits: Collection[str]) -> Glimpse | None:
    """Look at the head of a pickle.

    Args:
        path: The file.
        splits: What splits may be called, in lower case; in the file their letters may be of any.

    Returns:
        ``None`` for a file that does not begin as a pickle of a dict with any of them. Never raises.
    """
    machine = _head(path)
    stack = machine.stack if machine is not None else []
    if machine is None or not stack or type(stack[0]) is not dict:
        return None
    # Python writes a dict and fills it later, so its last keys and values lie above it on the stack until
    # then, those of a large dict behind a mark, and the fields of the last split likewise above the split.
    marks = machine.marks
    stop = next((mark for mark in marks if mark > 1), len(stack)) if 1 in marks else 3
    last = min(stop, len(stack)) - 1
    found = [*stack[0].items(), *zip(stack[1:stop:2], stack[2:stop:2], strict=False)]
    values = [value for key, value in found if isinstance(key, str) and key.lower() in splits]
    fields = [field for value in values if isinstance(value, dict) for field in value]
    if (
        isinstance(stack[last], dict)
        and any(value is stack[last] for value in values)
        and (last + 1 in marks or 1 not in marks)
    ):
        fields += stack[last + 1 : next((mark for mark in marks if mark > last + 1), len(stack)) : 2]
    lists = any(isinstance(value, list) for value in values)
    if not lists and not any(isinstance(value, dict) for value in values):
        return None
    return Glimpse(
        fields=frozenset(str(field) for field in fields if isinstance(field, str)),
        lists=lists,
        whole=machine.has_ended,
    )


def refused_global(path: Path) -> str:
    """The global for which a pickle is refused, if its head names one; else an empty text. Never raises."""
    machine = _head(path)
    return machine.refused if machine is not None and _begins_as_pickle(path) else ""


def _head(path: Path) -> "_Machine | None":
    """A machine that has read as much as may be looked at."""
    try:
        machine = _Machine(PickleFile(path), most=_GLIMPSE_SPENT, scanned=_GLIMPSE_SCANNED)
    except DataError:
        return None
    with contextlib.suppress(DataError):  # what was met until then is looked at
        machine.run()
    return machine


def _begins_as_pickle(path: Path) -> bool:
    """Whether a file is no text by its first bytes: many a text begins with a letter that is an operation."""
    try:
        with path.open("rb") as file:
            return _BEGINNING.match(file.read(2 * _LONGEST_LINE)) is not None
    except OSError:
        return False


class _Global:
    """A global that may stand in a pickle, and what calling it makes; ``None`` where it may only be passed
    on.
    """

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: "Callable[[_Machine, tuple[Any, ...]], Any] | None") -> None:
        self.name = name
        self.make = make


class _Type:
    """The type of an array's elements; its byte order is told after it is made."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype


class _Machine:
    """The stack, the marks on it, and the memo."""

    def __init__(self, file: PickleFile, *, most: int, scanned: int) -> None:
        self.has_ended = False
        self.file = file
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._most = most
        self._spent = 0
        self._scanned = scanned
        self.refused = ""

    def run(self) -> None:
        """Read the pickle to its end."""
        read = self.file.stream.read
        operations = _OPERATIONS
        try:
            while True:
                code = read(1)
                if code == b".":
                    self.has_ended = True
                    return
                operation = operations.get(code)
                if operation is None:
                    raise self._unknown(code)
                self._spent += _OPERATION
                if self._spent > self._most:
                    self.charge(0)
                operation[0](self, operation[1])
        except IndexError as error:
            raise self.error("an operation finds no value to work on") from error
        except OSError as error:
            raise self.file.error(f"cannot be read: {error.strerror or error}") from error

    def result(self) -> Any:
        """The one value that is left at the end."""
        if len(self.stack) != 1 or self.marks:
            raise self.error(f"it ends with {len(self.stack)} values, expected one")
        left = self.file.size - self.file.stream.tell()
        if left:
            raise self.error(f"{left} bytes follow the end of the pickle")
        return self.stack[0]

    # Errors and the account

    def error(self, problem: str) -> DataError:
        """The error about a pickle that Python itself would not have written."""
        return self.file.error(f"damaged at byte {self.file.stream.tell()}: {problem}")

    def _unknown(self, code: bytes) -> DataError:
        if not code:
            return self._cut_off()
        return self.error(f"byte {code[0]:#04x} is no operation of a pickle")

    def _cut_off(self) -> DataError:
        return self.file.error(
            f"the file ends after {self.file.size} bytes in the middle of a value; it was cut off or damaged"
        )

    def charge(self, amount: int) -> None:
        """Take memory from the account."""
        self._spent += amount
        if self._spent > self._most:
            raise self.file.error(
                f"its values outside arrays take more than {self._most >> 20} MiB; long lists of numbers are"
                " read as arrays only"
            )

    # Bytes of the file

    def take(self, size: int) -> bytes:
        """The next bytes, few of them."""
        found = self.file.stream.read(size)
        if len(found) != size:
            raise self._cut_off()
        return found

    def unsigned(self, size: int) -> int:
        """The next number."""
        return int.from_bytes(self.take(size), "little")

    def line(self) -> bytes:
        """The rest of a short line."""
        found = self.file.stream.readline(_LONGEST_LINE)
        if not found.endswith(b"\n"):
            raise (
                self.error(f"a line of more than {_LONGEST_LINE} bytes")
                if len(found) == _LONGEST_LINE
                else self._cut_off()
            )
        return found[:-1]

    def _run(self, length: int, longest: int, encoding: Encoding, *, is_text: bool) -> bytes | StoredBytes:
        """The next bytes; in memory where they are few."""
        if length <= longest:
            self.charge(_TEXT + length)
            return self.take(length)
        offset = self.file.stream.tell()
        if length > self.file.size - offset:
            raise self._cut_off()
        self.file.stream.seek(offset + length)
        self.charge(_ARRAY)
        return StoredBytes(self.file, offset, length, encoding, is_text=is_text)

    def _long_line(self, encoding: Encoding) -> bytes | StoredBytes:
        """The rest of a line of any length; in memory where it is short."""
        offset = self.file.stream.tell()
        first = found = self.file.stream.readline(_TEXT_IN_MEMORY)
        length = len(found)
        while not found.endswith(b"\n"):
            self._scanned -= len(found)
            found = self.file.stream.readline(io.DEFAULT_BUFFER_SIZE << 3)
            length += len(found)
            if not found or self._scanned < 0:
                raise self._cut_off()
        self.charge(_ARRAY + min(length, _TEXT_IN_MEMORY))
        if length == len(first):
            return first[:-1]
        return StoredBytes(self.file, offset, length - 1, encoding, is_text=True)

    # Operations. Each takes the number of bytes of its operand, which those without one ignore.

    def protocol(self, size: int) -> None:
        version = self.unsigned(size)
        if version > 5:
            raise self.file.error(f"a pickle of protocol {version}, expected 0 to 5")

    def frame(self, size: int) -> None:
        if self.unsigned(size) > self.file.size - self.file.stream.tell():
            raise self._cut_off()

    def none(self, _: int) -> None:
        self.stack.append(None)

    def true(self, _: int) -> None:
        self.stack.append(True)

    def false(self, _: int) -> None:
        self.stack.append(False)

    def whole_number(self, size: int) -> None:
        self.stack.append(self.unsigned(size))

    def signed_number(self, size: int) -> None:
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def long_number(self, size: int) -> None:
        length = self.unsigned(size)
        if length > _LONGEST_INTEGER:
            raise self.file.error(f"a whole number of {length} bytes, expected at most {_LONGEST_INTEGER}")
        self.signed_number(length)

    def number_line(self, _: int) -> None:
        line = self.line()
        if line in (b"00", b"01"):
            self.stack.append(line == b"01")
        else:
            self._digits(line)

    def long_number_line(self, _: int) -> None:
        self._digits(self.line().removesuffix(b"L"))

    def _digits(self, line: bytes) -> None:
        if not re.fullmatch(rb"-?[0-9]{1,20}", line):
            raise self.error("a whole number that is none, or of more than 20 digits")
        self.stack.append(int(line))

    def float_line(self, _: int) -> None:
        try:
            self.stack.append(float(self.line()))
        except ValueError as error:
            raise self.error("a number that is none") from error

    def binary_float(self, size: int) -> None:
        self.stack.append(struct.unpack(">d", self.take(size))[0])

    def text(self, size: int) -> None:
        found = self._run(self.unsigned(size), _TEXT_IN_MEMORY, "utf-8", is_text=True)
        if isinstance(found, StoredBytes):
            self.stack.append(found)
            return
        try:
            self.stack.append(found.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError as error:
            raise self.error("text that is not UTF-8") from error

    def text_line(self, _: int) -> None:
        found = self._long_line("unicode escapes")
        if isinstance(found, StoredBytes):
            self.stack.append(found)
            return
        try:
            self.stack.append(found.decode("raw_unicode_escape"))
        except UnicodeDecodeError as error:
            raise self.error("text with a damaged escape") from error

    def byte_text(self, size: int) -> None:
        found = self._run(self.unsigned(size), _BYTES_IN_MEMORY, "bytes", is_text=True)
        self.stack.append(found if isinstance(found, StoredBytes) else ByteText(found.decode("latin-1")))

    def byte_text_line(self, _: int) -> None:
        found = self._long_line("string escapes")
        if isinstance(found, StoredBytes):
            # Of the two quotes the line has one more at its front and one at its end.
            ends = bytearray(2)
            for position, offset in enumerate((found.offset, found.offset + found.length - 1)):
                self.file.read_into(offset, memoryview(ends)[position : position + 1])
            self.file.stream.seek(found.offset + found.length + 1)
            inner: Any = StoredBytes(
                self.file, found.offset + 1, found.length - 2, "string escapes", is_text=True
            )
        else:
            ends = bytearray(found[:1] + found[1:][-1:])
            try:
                inner = ByteText(decode_string(found[1:-1], "string escapes").decode("latin-1"))
            except ValueError as error:
                raise self.error("a string with a damaged escape") from error
        if bytes(ends) not in (b"''", b'""'):
            raise self.error("a string without quotes")
        self.stack.append(inner)

    def raw_bytes(self, size: int) -> None:
        self.stack.append(self._run(self.unsigned(size), _BYTES_IN_MEMORY, "bytes", is_text=False))

    def empty_list(self, _: int) -> None:
        self.charge(_LIST)
        self.stack.append([])

    def empty_dict(self, _: int) -> None:
        self.charge(_TABLE)
        self.stack.append({})

    def empty_set(self, _: int) -> None:
        self.charge(_TABLE)
        self.stack.append(set())

    def mark(self, _: int) -> None:
        self.marks.append(len(self.stack))

    def _above_mark(self) -> list[Any]:
        start = self.marks.pop()
        if start > len(self.stack):
            raise self.error("values below a mark were taken")
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def list_above_mark(self, _: int) -> None:
        self.charge(_LIST)
        self.stack.append(self._above_mark())

    def tuple_above_mark(self, _: int) -> None:
        self.charge(_LIST)
        self.stack.append(tuple(self._above_mark()))

    def small_tuple(self, size: int) -> None:
        if size > len(self.stack):
            raise IndexError
        self.charge(_LIST)
        start = len(self.stack) - size
        self.stack[start:] = [tuple(self.stack[start:])]

    def dict_above_mark(self, _: int) -> None:
        found = self._above_mark()
        self.empty_dict(0)
        self._enter(self.stack[-1], found)

    def frozen_set(self, _: int) -> None:
        self.stack.append(frozenset(self.members(self._above_mark())))

    def append(self, _: int) -> None:
        value = self.stack.pop()
        self._last(list).append(value)

    def append_above_mark(self, _: int) -> None:
        values = self._above_mark()
        self._last(list).extend(values)

    def set_item(self, _: int) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._enter(self._last(dict), [key, value])

    def set_items_above_mark(self, _: int) -> None:
        found = self._above_mark()
        self._enter(self._last(dict), found)

    def add_above_mark(self, _: int) -> None:
        found = self.members(self._above_mark())
        self._last(set).update(found)

    def _last(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise self.error(f"an operation on a {kind.__name__} finds a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _enter(self, table: dict[Any, Any], pairs: list[Any]) -> None:
        if len(pairs) % 2:
            raise self.error("a dict has a key without a value")
        table.update(zip(self.members(pairs[::2]), pairs[1::2], strict=True))

    def members(self, found: list[Any]) -> list[Any]:
        """The values, if they may be keys of a dict or members of a set: hashing a tuple of tuples may never
        end.
        """
        for value in found:
            if not isinstance(value, str | bytes | int | float | None):
                raise self.file.error(
                    f"a {_kind(value)} as key of a dict or member of a set, expected text or numbers"
                )
        self.charge(_ENTRY * len(found) + _TABLE)
        return found

    def pop(self, _: int) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def pop_to_mark(self, _: int) -> None:
        self._above_mark()

    def duplicate(self, _: int) -> None:
        self.stack.append(self.stack[-1])

    def remember(self, size: int) -> None:
        self._remember(self.unsigned(size))

    def remember_next(self, _: int) -> None:
        self._remember(len(self._memo))

    def remember_line(self, _: int) -> None:
        self._remember(self._index_line())

    def _remember(self, index: int) -> None:
        # Every Python numbers them one by one, from 0 or (cPickle of Python 2) from 1.
        if index in self._memo or index > len(self._memo) + 1:
            raise self.error(f"it gives number {index} to a value after {len(self._memo)} others")
        self.charge(_ENTRY)
        self._memo[index] = self.stack[-1]

    def recall(self, size: int) -> None:
        self._recall(self.unsigned(size))

    def recall_line(self, _: int) -> None:
        self._recall(self._index_line())

    def _recall(self, index: int) -> None:
        if index not in self._memo:
            raise self.error(f"it recalls value {index}, which it never gave")
        self.stack.append(self._memo[index])

    def _index_line(self) -> int:
        line = self.line()
        if not re.fullmatch(rb"[0-9]{1,10}", line):
            raise self.error("an index that is none")
        return int(line)

    def named_by_lines(self, _: int) -> None:
        module = self.line()
        self._name(module.decode("utf-8", "replace"), self.line().decode("utf-8", "replace"))

    def named_by_stack(self, _: int) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise self.error("a global whose name is no text")
        self._name(str(module), str(name))

    def _name(self, module: str, name: str) -> None:
        found = _GLOBALS.get((module, name))
        if found is None:
            self.refused = f"{module}.{name}"[:120]
            raise self.file.error(
                f"refused: the pickle asks for {self.refused!a}; nothing of a pickle is run, "
                "only containers, numbers, text and numpy arrays are read"
            )
        self.stack.append(found)

    def call(self, _: int) -> None:
        given, called = self.stack.pop(), self.stack.pop()
        if type(called) is not _Global or called.make is None:
            raise self.file.error(
                "refused: the pickle calls"
                f" {called.name if type(called) is _Global else 'a ' + _kind(called)}"
            )
        if type(given) is not tuple:
            raise self.error(f"{called.name} is called with a {_kind(given)}")
        self.charge(_ARRAY)
        self.stack.append(called.make(self, given))

    def build(self, _: int) -> None:
        state = self.stack.pop()
        self.charge(_ARRAY)
        made = self.stack[-1]
        if type(made) is StoredArray:
            _fill_array(self, made, state)
        elif type(made) is _Type:
            _set_byte_order(self, made, state)
        else:
            raise self.file.error(f"refused: the pickle sets the state of a {_kind(made)}")

    def refuse_old_object(self, _: int) -> None:
        module = self.line()
        self._name(module.decode("utf-8", "replace"), self.line().decode("utf-8", "replace"))
        self.refuse_object(0)

    def refuse_object(self, _: int) -> None:
        names = [value.name for value in self.stack if type(value) is _Global]
        raise self.file.error(
            f"refused: the pickle makes an object{f' of {names[-1]}' if names else ''} by its class"
        )

    def refuse_reference(self, _: int) -> None:
        raise self.file.error("refused: the pickle refers to an object outside itself (persistent id)")

    def refuse_extension(self, size: int) -> None:
        raise self.file.error(
            f"refused: the pickle asks for number {self.unsigned(size)} of the registry of extensions"
        )

    def refuse_buffer(self, _: int) -> None:
        raise self.file.error(
            "refused: the pickle's arrays lie outside it (out-of-band buffers of protocol 5)"
        )


_OPERATIONS: Mapping[bytes, tuple[Callable[[_Machine, int], None], int]] = {
    b"\x80": (_Machine.protocol, 1),
    b"\x95": (_Machine.frame, 8),
    b"N": (_Machine.none, 0),
    b"\x88": (_Machine.true, 0),
    b"\x89": (_Machine.false, 0),
    b"I": (_Machine.number_line, 0),
    b"L": (_Machine.long_number_line, 0),
    b"F": (_Machine.float_line, 0),
    b"J": (_Machine.signed_number, 4),
    b"K": (_Machine.whole_number, 1),
    b"M": (_Machine.whole_number, 2),
    b"\x8a": (_Machine.long_number, 1),
    b"\x8b": (_Machine.long_number, 4),
    b"G": (_Machine.binary_float, 8),
    b"S": (_Machine.byte_text_line, 0),
    b"T": (_Machine.byte_text, 4),
    b"U": (_Machine.byte_text, 1),
    b"V": (_Machine.text_line, 0),
    b"X": (_Machine.text, 4),
    b"\x8c": (_Machine.text, 1),
    b"\x8d": (_Machine.text, 8),
    b"B": (_Machine.raw_bytes, 4),
    b"C": (_Machine.raw_bytes, 1),
    b"\x8e": (_Machine.raw_bytes, 8),
    b"\x96": (_Machine.raw_bytes, 8),
    b"]": (_Machine.empty_list, 0),
    b"}": (_Machine.empty_dict, 0),
    b")": (_Machine.small_tuple, 0),
    b"\x8f": (_Machine.empty_set, 0),
    b"(": (_Machine.mark, 0),
    b"l": (_Machine.list_above_mark, 0),
    b"t": (_Machine.tuple_above_mark, 0),
    b"d": (_Machine.dict_above_mark, 0),
    b"\x85": (_Machine.small_tuple, 1),
    b"\x86": (_Machine.small_tuple, 2),
    b"\x87": (_Machine.small_tuple, 3),
    b"\x91": (_Machine.frozen_set, 0),
    b"a": (_Machine.append, 0),
    b"e": (_Machine.append_above_mark, 0),
    b"s": (_Machine.set_item, 0),
    b"u": (_Machine.set_items_above_mark, 0),
    b"\x90": (_Machine.add_above_mark, 0),
    b"0": (_Machine.pop, 0),
    b"1": (_Machine.pop_to_mark, 0),
    b"2": (_Machine.duplicate, 0),
    b"p": (_Machine.remember_line, 0),
    b"q": (_Machine.remember, 1),
    b"r": (_Machine.remember, 4),
    b"\x94": (_Machine.remember_next, 0),
    b"g": (_Machine.recall_line, 0),
    b"h": (_Machine.recall, 1),
    b"j": (_Machine.recall, 4),
    b"c": (_Machine.named_by_lines, 0),
    b"\x93": (_Machine.named_by_stack, 0),
    b"R": (_Machine.call, 0),
    b"b": (_Machine.build, 0),
    b"i": (_Machine.refuse_old_object, 0),
    b"o": (_Machine.refuse_object, 0),
    b"\x81": (_Machine.refuse_object, 0),
    b"\x92": (_Machine.refuse_object, 0),
    b"P": (_Machine.refuse_reference, 0),
    b"Q": (_Machine.refuse_reference, 0),
    b"\x82": (_Machine.refuse_extension, 1),
    b"\x83": (_Machine.refuse_extension, 2),
    b"\x84": (_Machine.refuse_extension, 4),
    b"\x97": (_Machine.refuse_buffer, 0),
    b"\x98": (_Machine.refuse_buffer, 0),
}


def _kind(value: Any) -> str:
    """What a value is, for people; never the value itself, whose text may have no end."""
    if type(value) is _Global:
        return f"global {value.name}"
    return {
        "StoredArray": "numpy array",
        "StoredBytes": "run of bytes",
        "_Type": "numpy dtype",
        "NoneType": "None",
    }.get(type(value).__name__, type(value).__name__)


# What the globals make


def _make_array(machine: _Machine, given: tuple[Any, ...]) -> StoredArray:
    """``_reconstruct(ndarray, (0,), b"b")``: an array that gets its content later."""
    if len(given) != 3 or given[0] is not _NDARRAY or given[1] != (0,) or given[2] not in (b"b", "b"):
        raise machine.error("an array is not made as numpy makes one")
    return StoredArray(machine.file)


def _fill_array(machine: _Machine, array: StoredArray, state: Any) -> None:
    """The state of an array: version, shape, type, whether it is column-major, content."""
    if type(state) is not tuple or len(state) != 5:
        raise machine.error("the state of an array is not what numpy writes")
    version, shape, kind, column_major, content = state
    if type(version) is not int or version != 1 or type(column_major) not in (bool, int):
        raise machine.error("the state of an array is not what numpy writes")
    array.fill(
        _shape(machine, shape),
        _dtype(machine, kind),
        _content(machine, content),
        order="F" if column_major else "C",
    )


def _array_from_buffer(machine: _Machine, given: tuple[Any, ...]) -> StoredArray:
    """``_frombuffer(content, dtype, shape, order[, axis_order])`` of protocol 5."""
    if len(given) not in (4, 5) or given[3] not in ("C", "F", "K"):
        raise machine.error("an array is not made as numpy makes one")
    content, kind, shape, order = given[:4]
    shape = _shape(machine, shape)
    axes = given[4] if order == "K" and len(given) == 5 else None
    if order == "K" and (
        type(axes) is not tuple
        or any(type(axis) is not int for axis in axes)
        or sorted(axes) != list(range(len(shape)))
    ):
        raise machine.error("the order of an array's axes is none")
    array = StoredArray(machine.file)
    array.fill(
        shape,
        _dtype(machine, kind),
        _content(machine, content),
        order="F" if order == "F" else "C",
        axis_order=axes,
    )
    return array


def _content(machine: _Machine, content: Any) -> bytes | StoredBytes | list[Any]:
    if isinstance(content, ByteText):
        return content.encode("latin-1")
    if isinstance(content, bytes | list) or (
        isinstance(content, StoredBytes) and not (content.is_text and content.encoding in _UNICODE)
    ):
        return content
    raise machine.error(f"the content of an array is a {_kind(content)}")


def _shape(machine: _Machine, shape: Any) -> tuple[int, ...]:
    if (
        type(shape) is not tuple
        or len(shape) > _MOST_AXES
        or any(type(size) is not int or not 0 <= size < 1 << 48 for size in shape)
    ):
        raise machine.error("the shape of an array is none")
    if math.prod(shape) == 0 and max(shape, default=0) > 1 << 24:
        raise machine.error(f"an array of shape {shape} without any element")
    return shape


def _dtype(machine: _Machine, kind: Any) -> np.dtype[Any]:
    if type(kind) is not _Type:
        raise machine.error(f"the type of an array is a {_kind(kind)}")
    # numpy writes it of an empty text alone; of such elements an array could hold any number
    if kind.dtype.itemsize == 0:
        raise machine.file.error(
            f"refused: an array of type {kind.dtype.str!r}, whose elements take no bytes"
        )
    return kind.dtype


def _make_type(machine: _Machine, given: tuple[Any, ...]) -> _Type:
    """``dtype("f4", False, True)``."""
    name = given[0] if given else None
    if not isinstance(name, str) or not re.fullmatch(
        r"[<>=|]?(f[248]|[iu][1248]|b1|[SU][0-9]{1,9}|O[48]?)", name
    ):
        shown = ascii(name[:40]) if isinstance(name, str) else f"a {_kind(name)}"
        raise machine.file.error(
            f"refused: an array of type {shown}, expected real numbers, text, bytes or objects"
        )
    if len(given) > 3 or any(type(flag) not in (bool, int) or flag not in (0, 1) for flag in given[1:]):
        raise machine.error("the type of an array is not made as numpy makes one")
    # The number after O is the size of a pointer where the file was written.
    return _Type(np.dtype("O" if "O" in name else str(name)))


def _set_byte_order(machine: _Machine, made: _Type, state: Any) -> None:
    """The state of a type: version, byte order, three fields of structured types, size, alignment, flags."""
    if (
        type(state) is not tuple
        or len(state) != 8
        or type(state[0]) is not int
        or state[0] != 3
        or state[1] not in ("<", ">", "|", "=")
    ):
        raise machine.error("the state of a numpy dtype is not what numpy writes")
    if any(part is not None for part in state[2:5]):
        raise machine.file.error(
            "refused: an array of structured type, expected real numbers, text, bytes or objects"
        )
    if any(type(part) is not int for part in state[5:]) or state[5] not in (-1, made.dtype.itemsize):
        raise machine.error(
            f"the elements of a type of {made.dtype.itemsize} bytes take another number of bytes"
        )
    if made.dtype.kind != "O" and state[7] not in (0, _NEEDS_INIT if made.dtype.kind == "U" else 0):
        raise machine.error("the flags of a type are not what numpy writes")
    if made.dtype.kind not in "OSb":
        made.dtype = made.dtype.newbyteorder(">" if state[1] == ">" else "<")


def _make_scalar(machine: _Machine, given: tuple[Any, ...]) -> Any:
    """``scalar(dtype, content)``, as a Python number or text."""
    dtype = given[0].dtype if len(given) == 2 and type(given[0]) is _Type else np.dtype(object)
    content = _content(machine, given[1]) if len(given) == 2 else b""
    if dtype.kind == "O" or not isinstance(content, bytes) or len(content) != dtype.itemsize:
        raise machine.error("a numpy number is not made as numpy makes one")
    if dtype.itemsize == 0:
        return "" if dtype.kind == "U" else b""
    try:
        return np.frombuffer(content, dtype)[0].item()
    except ValueError as error:
        raise machine.error("a numpy text that is none") from error


def _make_encoded(machine: _Machine, given: tuple[Any, ...]) -> bytes | StoredBytes:
    """``encode("...", "latin1")``: how Python 3 writes bytes for protocols 0 to 2."""
    if len(given) != 2 or given[1] not in ("latin1", "latin-1"):
        raise machine.error("bytes are not written as Python writes them")
    text = given[0]
    if isinstance(text, StoredBytes) and text.is_text:
        return text.as_bytes()
    if not isinstance(text, str):
        raise machine.error(f"a {_kind(text)} is taken for bytes")
    machine.charge(_TEXT + len(text))
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise machine.error("characters that are no bytes are taken for bytes") from error


def _make_bytes(machine: _Machine, given: tuple[Any, ...]) -> bytes | StoredBytes:
    """``bytes()``, ``bytearray()``, ``bytearray(b"...")`` and ``bytearray("...", "latin-1")``."""
    if not given:
        return b""
    if len(given) == 1 and isinstance(given[0], bytes | StoredBytes):
        return given[0]
    return _make_encoded(machine, given)


def _listed(machine: _Machine, given: tuple[Any, ...]) -> list[Any]:
    """The one list that a container is made of, if it is not empty."""
    if not given:
        return []
    if len(given) != 1 or not isinstance(given[0], list | tuple):
        raise machine.error("a container is not made from a list")
    return list(given[0])


def _make_set(machine: _Machine, given: tuple[Any, ...]) -> set[Any]:
    return set(machine.members(_listed(machine, given)))


def _make_frozen_set(machine: _Machine, given: tuple[Any, ...]) -> frozenset[Any]:
    return frozenset(machine.members(_listed(machine, given)))


def _make_dict(machine: _Machine, given: tuple[Any, ...]) -> dict[Any, Any]:
    """``OrderedDict()`` and, of Python 2, ``OrderedDict([[key, value], ...])``."""
    pairs = _listed(machine, given)
    if any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs):
        raise machine.error("a dict is not made from pairs")
    keys = machine.members([pair[0] for pair in pairs])
    return dict(zip(keys, (pair[1] for pair in pairs), strict=True))


_NDARRAY = _Global("numpy.ndarray", None)
_UNICODE = ("utf-8", "unicode escapes")


def _allowed() -> dict[tuple[str, str], _Global]:
    """Every global that a pickle may name, in the modules in which Python 2, Python 3 and the versions of
    numpy have it.
    """
    makers: list[tuple[tuple[str, ...], str, Callable[[_Machine, tuple[Any, ...]], Any]]] = [
        (("numpy.core.multiarray", "numpy._core.multiarray"), "_reconstruct", _make_array),
        (("numpy.core.multiarray", "numpy._core.multiarray"), "scalar", _make_scalar),
        (("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer", _array_from_buffer),
        (("numpy",), "dtype", _make_type),
        (("_codecs",), "encode", _make_encoded),
        (("builtins", "__builtin__"), "bytes", _make_bytes),
        (("builtins", "__builtin__"), "bytearray", _make_bytes),
        (("builtins", "__builtin__"), "set", _make_set),
        (("builtins", "__builtin__"), "frozenset", _make_frozen_set),
        (("collections",), "OrderedDict", _make_dict),
    ]
    allowed = {
        (module, name): _Global(f"{module}.{name}", make)
        for modules, name, make in makers
        for module in modules
    }
    return {**allowed, ("numpy", "ndarray"): _NDARRAY, ("numpy.core.multiarray", "ndarray"): _NDARRAY}


_GLOBALS = _allowed()
