"""The head of a pickle, from which its layout is recognised: a bounded part of any file."""

import contextlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from alignmamba.errors import DataError
from alignmamba.formats.pickles.pickle_file import LONGEST_LINE, PickleFile
from alignmamba.formats.pickles.pickle_globals import RefusedGlobalError
from alignmamba.formats.pickles.pickle_machine import Machine

# Runs of bytes whose length is told are passed over.
_GLIMPSE_SPENT = 32 << 20
_GLIMPSE_SCANNED = 32 << 20
# The version, or an empty container of protocol 0 or 1, or a global that is remembered, as each is.
_BEGINNING = re.compile(rb"\x80[\x02-\x05]|[(\]})]|c[\w.]+\n[\w.]+\n(p\d+\n|q)")


class Glimpse(NamedTuple):
    """Layout of a pickle as its head shows it, where it holds a dict of splits."""

    fields: frozenset[str]
    """Names of the fields of those splits that are dicts, as far as they were met."""
    lists: bool
    """True if a split is a list."""
    whole: bool
    """True if all of the pickle was looked at."""


def glimpse(path: Path, splits: Collection[str]) -> Glimpse | None:
    """Layout of a pickle of splits that may be called so, in letters of any case; ``None`` for a file that
    does not begin as one. Never raises.
    """
    machine, _ = _head(path)
    if machine is None or not machine.stack or type(machine.stack[0]) is not dict:
        return None
    stack, marks = machine.stack, machine.marks

    def next_mark(place: int) -> int:
        return next((mark for mark in marks if mark > place), len(stack))

    # Python writes a dict and fills it later, so its last keys and values lie above it on the stack until
    # then, those of a large dict behind a mark, and the fields of the last split likewise above the split.
    stop = next_mark(1) if 1 in marks else 3
    last = min(stop, len(stack)) - 1
    found = [*stack[0].items(), *zip(stack[1:stop:2], stack[2:stop:2], strict=False)]
    values = [value for key, value in found if isinstance(key, str) and key.lower() in splits]
    tables = [value for value in values if isinstance(value, dict)]
    fields = [field for table in tables for field in table]
    if any(table is stack[last] for table in tables) and (last + 1 in marks or 1 not in marks):
        fields += stack[last + 1 : next_mark(last + 1) : 2]
    lists = any(isinstance(value, list) for value in values)
    names = frozenset(str(field) for field in fields if isinstance(field, str))
    return Glimpse(names, lists, machine.has_ended) if lists or tables else None


def refused_global(path: Path) -> str:
    """The global for which a pickle is refused, if its head names one; else an empty text. Never raises."""
    _, refused = _head(path)
    return refused if refused and _begins_as_pickle(path) else ""


def _head(path: Path) -> tuple[Machine | None, str]:
    """A machine that has read as much as may be looked at, and the global that stopped it."""
    machine = None
    try:
        machine = Machine(PickleFile(path, most=_GLIMPSE_SPENT, scanned=_GLIMPSE_SCANNED))
        machine.run()
    except RefusedGlobalError as error:
        return machine, error.name
    except DataError:  # what was met until then is looked at
        pass
    return machine, ""


def _begins_as_pickle(path: Path) -> bool:
    """Return whether a file is no text, though it begins with a letter that is an operation."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return _BEGINNING.match(file.read(2 * LONGEST_LINE)) is not None
    return False
