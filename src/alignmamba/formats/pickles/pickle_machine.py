"""A machine that reads pickles of protocols 0 to 5 as data; its README says what it knows, and why.

Every change of the format up to protocol 5 is documented in PEP 307, PEP 3154 and PEP 574; the opcodes in
Python's `pickletools`.
"""

import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alignmamba.formats.pickles.pickle_file import (
    OBJECT_BYTES,
    ByteText,
    PickleFile,
    StoredBytes,
    decode_string,
)
from alignmamba.formats.pickles.pickle_globals import (
    ENTRY_BYTES,
    TABLE_BYTES,
    Global,
    called,
    found_global,
    kind,
    members,
    set_state,
)

# Longer runs stay in the file.
_BYTES_IN_MEMORY = 512
_TEXT_IN_MEMORY = 4096
_LONGEST_INTEGER = 9

# Bytes of memory. Every operation is charged for its place on the stack.
_OPERATION_BYTES = 40
_LIST_BYTES = 88


def read_pickle(path: Path) -> Any:
    """The value that a pickle holds: lists, tuples, dicts, sets, numbers, text, bytes, `StoredArray` for
    arrays, `StoredBytes` for long runs of bytes or text, `ByteText` for strings of Python 2. A container may
    hold itself.

    Raises:
        DataError: If the file cannot be read, is damaged, asks for anything but values (the global or the
            operation is named), or its values outside arrays take more memory than the account allows.
    """
    machine = Machine(PickleFile(path))
    machine.run()
    return machine.result()


class Machine:
    """The stack, the marks on it, and the memo."""

    def __init__(self, file: PickleFile) -> None:
        self.file = file
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.has_ended = False
        self._memo: dict[int, Any] = {}

    def run(self) -> None:
        """Read the pickle to its end."""
        file, read = self.file, self.file.stream.read
        try:
            while (code := read(1)) != b".":
                if not code:
                    raise file.cut_off()
                if code not in _OPERATIONS:
                    raise file.damaged(f"byte {code[0]:#04x} is no operation of a pickle")
                file.left -= _OPERATION_BYTES
                if file.left < 0:
                    file.charge(0)
                operation, operand = _OPERATIONS[code]
                operation(self, operand)
            self.has_ended = True
        except IndexError as error:
            raise file.damaged("found an operation without a value") from error
        except OSError as error:
            raise file.error(f"cannot be read: {error.strerror or error}") from error

    def result(self) -> Any:
        """The one value that is left at the end."""
        if len(self.stack) != 1 or self.marks:
            raise self.file.damaged(f"it ends with {len(self.stack)} values, expected one")
        left = self.file.size - self.file.stream.tell()
        if left:
            raise self.file.damaged(f"{left} bytes follow the end of the pickle")
        return self.stack[0]

    # Operations. Each takes the operand that `_OPERATIONS` has for its code: most often how many bytes the
    # length or the number takes that follows in the file.

    def protocol(self, size: int) -> None:
        version = self.file.unsigned(size)
        if version > 5:
            raise self.file.error(f"a pickle of protocol {version}, expected 0 to 5")

    def frame(self, size: int) -> None:
        if self.file.unsigned(size) > self.file.size - self.file.stream.tell():
            raise self.file.cut_off()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def packed_number(self, form: str) -> None:
        self.stack.append(struct.unpack(form, self.file.take(struct.calcsize(form)))[0])

    def long_number(self, size: int) -> None:
        length = self.file.unsigned(size)
        if length > _LONGEST_INTEGER:
            problem = f"found a whole number of {length} bytes, expected at most {_LONGEST_INTEGER}"
            raise self.file.error(problem)
        self.stack.append(int.from_bytes(self.file.take(length), "little", signed=True))

    def number_line(self, _: None) -> None:
        line = self.file.line()
        self.stack.append(line == b"01" if line in (b"00", b"01") else self._digits(line))

    def long_number_line(self, _: None) -> None:
        self.stack.append(self._digits(self.file.line().removesuffix(b"L")))

    def _digits(self, line: bytes) -> int:
        if not re.fullmatch(rb"-?[0-9]{1,20}", line):
            raise self.file.damaged("expected a whole number of at most 20 digits, found something else")
        return int(line)

    def float_line(self, _: None) -> None:
        try:
            self.stack.append(float(self.file.line()))
        except ValueError as error:
            raise self.file.damaged("expected a number, found something else") from error

    def _push_text(self, found: bytes | StoredBytes, codec: str, problem: str) -> None:
        errors = "surrogatepass" if codec == "utf-8" else "strict"
        try:
            self.stack.append(found.decode(codec, errors) if isinstance(found, bytes) else found)
        except UnicodeDecodeError as error:
            raise self.file.damaged(problem) from error

    def text(self, size: int) -> None:
        found = self.file.run(self.file.unsigned(size), _TEXT_IN_MEMORY, "utf-8", is_text=True)
        self._push_text(found, "utf-8", "found text that is not UTF-8")

    def text_line(self, _: None) -> None:
        found = self.file.long_line("unicode escapes")
        self._push_text(found, "raw_unicode_escape", "found text with a damaged escape")

    def byte_text(self, size: int) -> None:
        found = self.file.run(self.file.unsigned(size), _BYTES_IN_MEMORY, "bytes", is_text=True)
        self.stack.append(ByteText(found, "latin-1") if isinstance(found, bytes) else found)

    def byte_text_line(self, _: None) -> None:
        found = self.file.long_line("string escapes")
        inner: Any
        if isinstance(found, StoredBytes):
            ends, inner = found.quoted()
        else:
            ends = found[:1] + found[1:][-1:]
            try:
                inner = ByteText(decode_string(found[1:-1], "string escapes").decode("latin-1"))
            except ValueError as error:
                raise self.file.damaged("found a string with a damaged escape") from error
        if ends not in (b"''", b'""'):
            raise self.file.damaged("found a string without quotes")
        self.stack.append(inner)

    def raw_bytes(self, size: int) -> None:
        self.stack.append(self.file.run(self.file.unsigned(size), _BYTES_IN_MEMORY, "bytes", is_text=False))

    def empty(self, made: type) -> None:
        self.file.charge(_LIST_BYTES if made is list else TABLE_BYTES)
        self.stack.append(made())

    def mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def _taken(self, count: int | None = None) -> list[Any]:
        """The last values, off the stack: so many, or all above the mark."""
        if count is not None and count > len(self.stack):
            raise IndexError
        start = self.marks.pop() if count is None else len(self.stack) - count
        if start > len(self.stack):
            raise self.file.damaged("found an operation on values below a mark")
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def new_list(self, _: None) -> None:
        self.file.charge(_LIST_BYTES)
        self.stack.append(self._taken())

    def new_tuple(self, count: int | None) -> None:
        self.file.charge(_LIST_BYTES)
        self.stack.append(tuple(self._taken(count)))

    def new_dict(self, _: None) -> None:
        found = self._taken()
        self.empty(dict)
        self._enter(found)

    def new_frozen_set(self, _: None) -> None:
        self.stack.append(frozenset(members(self.file, self._taken())))

    def append(self, count: int | None) -> None:
        values = self._taken(count)
        self._last(list).extend(values)

    def set_items(self, count: int | None) -> None:
        self._enter(self._taken(count))

    def add(self, _: None) -> None:
        found = members(self.file, self._taken())
        self._last(set).update(found)

    def _last(self, expected: type) -> Any:
        if type(self.stack[-1]) is not expected:
            raise self.file.damaged(f"an operation on a {expected.__name__} finds a {kind(self.stack[-1])}")
        return self.stack[-1]

    def _enter(self, pairs: list[Any]) -> None:
        table = self._last(dict)
        if len(pairs) % 2:
            raise self.file.damaged("found a dict with a key that has no value")
        table.update(zip(members(self.file, pairs[::2]), pairs[1::2], strict=True))

    def pop(self, _: None) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def pop_to_mark(self, _: None) -> None:
        self._taken()

    def duplicate(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def _index(self, size: int) -> int:
        """The number of a value in the memo: of `size` bytes, or on a line for 0."""
        if size:
            return self.file.unsigned(size)
        line = self.file.line()
        if not re.fullmatch(rb"[0-9]{1,10}", line):
            raise self.file.damaged("expected an index, found something else")
        return int(line)

    def remember(self, size: int | None) -> None:
        index = len(self._memo) if size is None else self._index(size)
        # Every Python numbers them one by one, from 0 or (cPickle of Python 2) from 1.
        if index in self._memo or index > len(self._memo) + 1:
            raise self.file.damaged(f"it gives number {index} to a value after {len(self._memo)} others")
        self.file.charge(ENTRY_BYTES)
        self._memo[index] = self.stack[-1]

    def recall(self, size: int) -> None:
        index = self._index(size)
        if index not in self._memo:
            raise self.file.damaged(f"found a recall of value {index}, which was never stored")
        self.stack.append(self._memo[index])

    def named_by_lines(self, _: None) -> None:
        module, name = (self.file.line().decode("utf-8", "replace") for _ in range(2))
        self.stack.append(found_global(self.file, module, name))

    def named_by_stack(self, _: None) -> None:
        module, name = self._taken(2)
        if not isinstance(name, str) or not isinstance(module, str):
            raise self.file.damaged("expected text as the name of a global, found something else")
        self.stack.append(found_global(self.file, str(module), str(name)))

    def call(self, _: None) -> None:
        self.stack.append(called(self.file, *self._taken(2)))

    def build(self, _: None) -> None:
        state = self.stack.pop()
        self.file.charge(OBJECT_BYTES)
        set_state(self.file, self.stack[-1], state)

    def refuse(self, reason: str) -> None:
        raise self.file.error(f"refused: {reason}")

    def refuse_object(self, _: None) -> None:
        names = [value.name for value in self.stack if type(value) is Global]
        self.refuse(f"the pickle makes an object{f' of {names[-1]}' if names else ''} by its class")

    def refuse_old_object(self, _: None) -> None:
        self.named_by_lines(None)
        self.refuse_object(None)

    def refuse_extension(self, size: int) -> None:
        self.refuse(f"the pickle asks for number {self.file.unsigned(size)} of the registry of extensions")


_OUTSIDE = "the pickle refers to an object outside itself (persistent id)"
_BUFFERS = "the pickle's arrays lie outside it (out-of-band buffers of protocol 5)"

# By operation: its codes, each with its operand.
_CODES: Mapping[Callable[[Machine, Any], None], Mapping[bytes, Any]] = {
    Machine.protocol: {b"\x80": 1},
    Machine.frame: {b"\x95": 8},
    Machine.push: {b"N": None, b"\x88": True, b"\x89": False},
    Machine.number_line: {b"I": None},
    Machine.long_number_line: {b"L": None},
    Machine.float_line: {b"F": None},
    Machine.packed_number: {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"},
    Machine.long_number: {b"\x8a": 1, b"\x8b": 4},
    Machine.byte_text_line: {b"S": None},
    Machine.byte_text: {b"T": 4, b"U": 1},
    Machine.text_line: {b"V": None},
    Machine.text: {b"X": 4, b"\x8c": 1, b"\x8d": 8},
    Machine.raw_bytes: {b"B": 4, b"C": 1, b"\x8e": 8, b"\x96": 8},
    Machine.empty: {b"]": list, b"}": dict, b"\x8f": set},
    Machine.mark: {b"(": None},
    Machine.new_list: {b"l": None},
    Machine.new_tuple: {b"t": None, b")": 0, b"\x85": 1, b"\x86": 2, b"\x87": 3},
    Machine.new_dict: {b"d": None},
    Machine.new_frozen_set: {b"\x91": None},
    Machine.append: {b"a": 1, b"e": None},
    Machine.set_items: {b"s": 2, b"u": None},
    Machine.add: {b"\x90": None},
    Machine.pop: {b"0": None},
    Machine.pop_to_mark: {b"1": None},
    Machine.duplicate: {b"2": None},
    Machine.remember: {b"p": 0, b"q": 1, b"r": 4, b"\x94": None},
    Machine.recall: {b"g": 0, b"h": 1, b"j": 4},
    Machine.named_by_lines: {b"c": None},
    Machine.named_by_stack: {b"\x93": None},
    Machine.call: {b"R": None},
    Machine.build: {b"b": None},
    Machine.refuse_old_object: {b"i": None},
    Machine.refuse_object: {b"o": None, b"\x81": None, b"\x92": None},
    Machine.refuse_extension: {b"\x82": 1, b"\x83": 2, b"\x84": 4},
    Machine.refuse: {b"P": _OUTSIDE, b"Q": _OUTSIDE, b"\x97": _BUFFERS, b"\x98": _BUFFERS},
}
_OPERATIONS = {
    code: (operation, operand) for operation, codes in _CODES.items() for code, operand in codes.items()
}
