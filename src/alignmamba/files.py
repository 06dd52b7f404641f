"""Files that are written whole or not at all, and what killed processes left of theirs."""

import glob
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"
"""How the name of what is being written ends."""

_NAME_BYTES = 6
"""Random bytes in such a name."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that is put in place at once: whoever looks, at any moment, finds the old content or the new one.

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
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
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
    """A new file or directory under a temporary name beside `path`, locked so that other processes know it is in use."""
    with ExitStack() as stack:
        while True:
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(_NAME_BYTES)}{PARTIAL}")
            make(temporary)
            with suppress(FileNotFoundError):
                stack.enter_context(held(temporary))
                if temporary.exists():
                    break
            # Another process took it for a leftover before it was locked.
        yield temporary


def settle_leftovers(path: Path, settle: Callable[[Path], object]) -> None:
    """Deal with what killed processes left beside `path` under temporary names; what a living process holds is left alone.

    Args:
        path: What they were writing.
        settle: Told each of them, locked meanwhile. One that it cannot deal with stays.
    """
    for found in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 2 * _NAME_BYTES}.*"):
        with suppress(OSError), held(found) as alone:
            if alone:
                settle(found)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Lock a file or directory as long as this process lives; false if another one holds it, or where there are no such locks."""
    if os.name == "nt":
        yield False
        return
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
