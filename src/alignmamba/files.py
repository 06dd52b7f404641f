"""Files that are written whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that is put in place at once: whoever looks, at any moment, finds the old content or the new one.

    Args:
        path: The file; its directory exists.

    Yields:
        Where the new content goes. It gets its name when the block ends, and is gone if the block raises.

    Raises:
        OSError: If it cannot be written; the old file is then untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
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
