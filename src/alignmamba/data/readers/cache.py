"""Corpora made from foreign files, kept so that each file is converted once."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alignmamba import __version__
from alignmamba.data.readers import FORMATS
from alignmamba.data.readers.converting import Conversion, Progress, convert, detect
from alignmamba.data.readers.foreign import ReadOptions
from alignmamba.data.storage import MANIFEST, file_checksum
from alignmamba.errors import DataError

PLACE = "ALIGNMAMBA_CACHE"
"""Environment variable: directory for everything that can be made again; by default ``~/.cache/alignmamba``."""


def cached_corpus(source: Path, options: ReadOptions, *, say: Callable[[str], None], progress: Progress | None = None) -> Path:
    """Directory of the corpus made from a foreign file: converted now, or found from an earlier time.

    It is found by the content of the file, the options and the version of this package, wherever the file lies. Of several
    processes that ask at once, one converts and the others wait.

    Args:
        source: A file or folder of a format that is recognised.
        options: How to read it.
        say: Told in one line what is done.
        progress: Told about the conversion's samples.

    Raises:
        DataError: If it is not recognised, cannot be converted, or the cache cannot be written to.
    """
    format = detect([source])
    try:
        root = Path(os.environ.get(PLACE) or Path.home() / ".cache" / "alignmamba") / "corpora"
        target = root / _key(format, source, options)
        if not (target / MANIFEST).is_file():
            root.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_suffix(".lock"), source, say):
                if not (target / MANIFEST).is_file():
                    say(f"{source}: looks like {format}, converting it once into {target}")
                    say(f"{source}: {_account(convert(format, [source], target, options, progress=progress, overwrite=True))}")
                    return target
    except (OSError, RuntimeError) as error:
        # Of a file that cannot be read, of a cache that cannot be written to, or of a user without a home.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        where = error.filename if isinstance(error, OSError) and error.filename else PLACE
        raise DataError(f"{source}: {where}: {reason}; {PLACE} names another directory for the converted corpus") from error
    say(f"{source}: converted before, using {target}")
    return target


@contextmanager
def _locked(path: Path, source: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock that the operating system gives back when this process ends, however it ends."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{source}: another process converts it, waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _key(format: str, source: Path, options: ReadOptions) -> str:
    content = {
        "version": __version__,
        "format": format,
        "options": options.model_dump(mode="json", exclude={"folds"}),
        "folds": None if options.folds is None else file_checksum(options.folds),
        "files": [(str(name), file_checksum(path)) for name, path in _files(format, source)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _files(format: str, source: Path) -> Iterator[tuple[str, Path]]:
    """All files that are read, with a name that does not depend on where the source lies."""
    named = getattr(FORMATS[format](), "files", None)
    if source.is_dir():
        yield from ((path.relative_to(source).as_posix(), path) for path in sorted(source.rglob("*")) if path.is_file())
    elif named is None:
        yield "", source
    else:
        yield from (("", path) if path == source else (os.path.relpath(path, source.parent), path) for path in named(source))


def _account(done: Conversion) -> str:
    """The outcome of a conversion in one line."""
    sizes = ", ".join(f"{role} {len(split)}" for role, split in done.corpus.splits.items())
    repairs = "; ".join(f"{kind} in {where}, {what}: {count}" for kind, where, what, count in done.faults)
    return f"converted in {done.seconds:.1f} s, samples: {sizes}; {f'repaired: {repairs}' if repairs else 'nothing had to be repaired'}"
