"""Files written whole or not at all, leftovers of killed processes, and files of strangers."""

import csv
import errno
import glob
import io
import json
import os
import re
import secrets
import shutil
import signal
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from alignmamba.errors import INTERRUPTED, OUR_FAULT, USER_INPUT, AlignMambaError, DataError

JSON_BYTES = 16 << 20
"""A JSON file of a stranger may have this size, unless its reader says otherwise."""

_JSON_DEPTH = 64
"""Lists and objects of a JSON text may lie this deep in one another."""

_JSON_DIGITS = 100
"""An integer of a JSON text may have this many."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

PARTIAL = ".partial"
"""Ending of the name of a file that is being written."""
REPLACED = ".replaced"
"""Ending of the name of a directory that is being replaced."""

_POLL_SECONDS = 0.1
_NAME_BYTES = 6
"""Random bytes in such a name."""


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV whose lines end in LF, with line breaks of any kind in quotes, so that every reader finds
    the rows again.

    Cells are written as they are, those that a spreadsheet would take for a formula among them: an id must
    come back as it was.

    Args:
        rows: The rows, their cells as `csv.writer` takes them.
    """
    text, line = io.StringIO(newline=""), io.StringIO(newline="")
    # Python before 3.13 quotes a carriage return only where it is part of what ends a line.
    writer = csv.writer(line, lineterminator="\r\n")
    for row in rows:
        writer.writerow(row)
        text.write(line.getvalue().removesuffix("\r\n") + "\n")
        line.seek(0)
        line.truncate()
    return text.getvalue()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that is put in place at once: whoever looks, at any moment, finds the old content or the
    new one.

    What a killed process left of an earlier attempt is removed.

    Args:
        path: The file; its directory exists.

    Yields:
        Where the new content goes. It gets its name when the block ends, and is gone if the block raises.

    Raises:
        OSError: If it cannot be written; the old file is then untouched.
    """
    settle_leftovers(path, lambda leftover: leftover.unlink() if leftover.suffix == PARTIAL else None)
    with beside(path, Path.touch) as temporary:
        try:
            with temporary.open("wb") as file:
                yield file
            synchronise(temporary)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _renamed(error, path) from error
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def replace_file(path: Path, content: bytes) -> None:
    """Put a file in place at once.

    Args:
        path: The file; its directory exists.
        content: What it shall hold.

    Raises:
        OSError: If it cannot be written; the old file is then untouched.
    """
    with replacing(path) as file:
        file.write(content)


@contextmanager
def beside(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """A new file or directory under a temporary name beside `path`, locked while it is in use."""
    with ExitStack() as stack:
        while True:
            temporary = name_beside(path, PARTIAL)
            try:
                make(temporary)
            except OSError as error:
                raise _renamed(error, path) from error
            with suppress(FileNotFoundError):
                stack.enter_context(held(temporary))
                if temporary.exists():
                    break
            # Another process took it for a leftover before it was locked.
        yield temporary


def name_beside(path: Path, ending: str) -> Path:
    """A hidden name beside `path` that nothing has, and that `settle_leftovers` finds."""
    return path.with_name(f".{path.name}.{secrets.token_hex(_NAME_BYTES)}{ending}")


def synchronise(path: Path) -> None:
    """Wait until a file or directory is on disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a directory
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Directories that are there whole or not at all


@contextmanager
def temporary_directory(path: Path) -> Iterator[Path]:
    """A new directory beside `path`, whose parents are made; gone afterwards if it still has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path, Path.mkdir) as directory:
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory that takes its name when the block ends; nothing is left if the block raises.

    Args:
        path: Where nothing lies, or an empty directory.
    """
    restore(path)
    with temporary_directory(path) as directory:
        yield directory
        directory.rename(path)  # takes the place of an empty directory, and of nothing else


def put_in_place(directory: Path, target: Path) -> None:
    """Give a complete directory its name; one that has the name keeps it until then.

    The name is free only for the moment between two renames; a failed second one is undone, here or by the
    next process that calls `restore`.
    """
    synchronise(directory)
    if target.exists():
        replaced = directory.with_suffix(REPLACED)
        with held(target):
            target.rename(replaced)
            try:
                directory.rename(target)
            except BaseException:
                replaced.rename(target)
                raise
            shutil.rmtree(replaced)
    else:
        directory.rename(target)
    synchronise(target.parent)


def restore(path: Path) -> None:
    """Deal with what killed processes left beside a directory, see `settle`."""
    settle_leftovers(path, lambda leftover: settle(path, leftover))


def settle(path: Path, leftover: Path) -> None:
    """Put back what was moved aside to be replaced, if nothing took its place; remove what was unfinished."""
    if leftover.suffix == REPLACED and not path.exists():
        leftover.rename(path)
    elif leftover.suffix in (PARTIAL, REPLACED):
        shutil.rmtree(leftover)


def _renamed(error: OSError, path: Path) -> OSError:
    """The same error about the file that people know by its own name."""
    return error if error.errno is None else OSError(error.errno, error.strerror, str(path))


def settle_leftovers(path: Path, settle: Callable[[Path], object]) -> None:
    """Deal with what killed processes left beside `path` under temporary names; what a living process holds
    is kept.

    Args:
        path: What they were writing.
        settle: Called with each of them, locked meanwhile. One that it cannot deal with stays.
    """
    for found in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 2 * _NAME_BYTES}.*"):
        with suppress(OSError), held(found) as alone:
            if alone:
                settle(found)


@contextmanager
def held(path: Path, *, wait_seconds: float = 0.0) -> Iterator[bool | None]:
    """Lock a file or directory as long as this process lives.

    Args:
        path: It exists.
        wait_seconds: How long to wait for another process to let go.

    Yields:
        False if another process holds it, ``None`` where there are no such locks.
    """
    if os.name == "nt":
        yield None
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        locked = _locked(descriptor)
        until = time.monotonic() + wait_seconds
        while locked is False and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            locked = _locked(descriptor)
        yield locked
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, busy: Callable[[], object]) -> Iterator[None]:
    """Hold a lock file, also of a shared folder, until this process ends, however it does.

    Args:
        path: The file, made where there is none.
        busy: Called where another process holds it; then that is waited for, unless this raises.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        busy()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _locked(descriptor: int) -> bool | None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


# Files of strangers


def open_regular(path: Path, *, error: type[AlignMambaError] = DataError) -> BinaryIO:
    """Open a file of a stranger for reading, without ever waiting for it: a pipe or a device has no end that
    could be reached.

    Args:
        path: The file; links are followed.
        error: What is raised.

    Raises:
        AlignMambaError: Of the kind given, if it is not a regular file that can be opened; the message names
            it.
    """
    try:
        # Looked at before it is opened, for opening a device may do something; and after, for it may be
        # another one by then.
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  that of a Path takes no opener
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode):
                return file
            file.close()
    except FileNotFoundError:
        raise error(f"{path}: expected a file, found nothing") from None
    except (OSError, ValueError) as fault:
        raise error(f"{str(path)!r}: cannot be read: {getattr(fault, 'strerror', None) or fault}") from fault
    raise error(
        f"{path}: expected a file, found"
        f" {'a folder' if stat.S_ISDIR(mode) else 'a pipe, a socket or a device'}"
    )


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_bounded(path: Path, *, limit_bytes: int, error: type[AlignMambaError] = DataError) -> bytes:
    """The content of a file of a stranger, if it is a regular file of bounded size.

    Args:
        path: The file; links are followed.
        limit_bytes: The largest size that is read; no more memory than that is taken.
        error: What is raised.

    Raises:
        AlignMambaError: Of the kind given, naming the file.
    """
    with open_regular(path, error=error) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = b"" if size > limit_bytes else file.read(limit_bytes + 1)
        except OSError as fault:
            raise error(f"{path}: cannot be read: {fault.strerror or fault}") from fault
    if max(size, len(content)) > limit_bytes:
        raise error(f"{path}: expected at most {limit_bytes} bytes, found {max(size, len(content))}")
    return content


def read_json(path: Path, *, limit_bytes: int = JSON_BYTES, error: type[AlignMambaError] = DataError) -> Any:
    """Content of a foreign JSON file, read within bounds of time and memory.

    Args:
        path: The file; links are followed.
        limit_bytes: The largest size that is read.
        error: What is raised.

    Raises:
        AlignMambaError: Of the kind given, naming the file, if it is no regular file, or too large, or
            refused by `parse_json`.
    """
    return parse_json(read_bounded(path, limit_bytes=limit_bytes, error=error), str(path), error=error)


def parse_json(content: bytes, where: str, *, error: type[AlignMambaError] = DataError) -> Any:
    """Content of a foreign JSON text.

    Refused are, beside what is no JSON: text that is not UTF-8, also by its escapes (lone surrogates), a key
    that an object has twice, and lists, objects or integers beyond what any file of ours has.

    Args:
        content: The text.
        where: What it stands in, for messages.
        error: What is raised.

    Raises:
        AlignMambaError: Of the kind given, in one line.
    """
    try:
        found = json.loads(content.decode("utf-8-sig"), parse_int=_integer, object_pairs_hook=_object)
        if content.count(b"[") + content.count(b"{") > _JSON_DEPTH:
            _check_depth(found)
        if _SURROGATE.search(content):
            json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        problem = "half a character (a lone surrogate), expected text in Unicode"
    except RecursionError:
        problem = _TOO_DEEP
    except ValueError as fault:
        problem = str(fault).splitlines()[0]
    else:
        return found
    raise error(f"{where}: not valid JSON: {problem}")


_TOO_DEEP = f"more than {_JSON_DEPTH} nested lists and objects"


def _integer(digits: str) -> int:
    if len(digits) > _JSON_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits, expected at most {_JSON_DIGITS}")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {repeated[:80]!r} appears twice in one object")
    return found


def _check_depth(found: Any) -> None:
    level = [found]
    for _ in range(_JSON_DEPTH):
        members = [value.values() if isinstance(value, dict) else value for value in level]
        level = [member for each in members for member in each if isinstance(member, dict | list)]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


# Faults of the machine

_REFUSALS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENXIO,
    errno.ENODEV,
    errno.EBUSY,
    errno.ESTALE,
    errno.EAGAIN,
}
"""No room, no right, a broken disk, too many files or processes."""

_OUT_OF_MEMORY = re.compile(
    "DefaultCPUAllocator|not enough memory|out of memory|Cannot allocate memory|[Uu]nable to allocate"
)


def manner_of_end(code: int) -> str:
    """Half a sentence on how a process ended that did not say so itself; `code` is its exit code."""
    if code >= 0:
        return f"internal: its process ended with code {code}"
    known = {each.value: f" ({each.name})" for each in signal.Signals}
    return f"its process was ended by signal {-code}{known.get(-code, '')}"


def verdict(error: BaseException) -> tuple[int, str]:
    """Exit code of a process that an error ends, and what it says in one line."""
    said = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, said or "interrupted"
    if isinstance(error, AlignMambaError):
        return USER_INPUT, said
    refused = refused_by_machine(error)
    return (USER_INPUT, refused) if refused else (OUR_FAULT, f"internal: {type(error).__name__}: {said}")


def refused_by_machine(error: BaseException) -> str:
    """One line on what the machine refuses: room on a disk, a right, memory, a thread; empty if the error has
    another cause.

    Args:
        error: What was caught.
    """
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and _OUT_OF_MEMORY.search(said)
    ):
        detail = f" ({said[:160]})" if said else ""
        return f"out of memory{detail}; lower loader.batch_size or options.d_model, or shorten the sequences"
    if isinstance(error, RuntimeError) and "can't start new thread" in said:
        return (
            "the system refuses another thread; lower the number of workers or raise the limit of processes"
        )
    if isinstance(error, OSError) and "No usable temporary directory" in said:
        return (
            "no temporary folder can be written to (full, read-only, or over a limit); TMPDIR names another"
        )
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        reason = error.strerror or os.strerror(error.errno)
        return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"
    return ""
