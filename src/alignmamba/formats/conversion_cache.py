"""Corpora made from foreign files, kept so that each file is converted once."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from alignmamba import __version__
from alignmamba.checksums import file_checksum
from alignmamba.contracts import Role
from alignmamba.data.archive import load_corpus
from alignmamba.errors import DataError
from alignmamba.files import exclusive
from alignmamba.formats import FORMATS
from alignmamba.formats.conversion import Conversion, convert
from alignmamba.formats.foreign import ReadOptions, faults_in_words
from alignmamba.formats.known_formats import detect, own_options
from alignmamba.formats.plain_files import counting

PLACE = "ALIGNMAMBA_CACHE"
"""Environment variable: directory for everything that can be made again; by default
``~/.cache/alignmamba``."""

_GENERATION = 4
"""Raised where a conversion by the same version of the package gives something else than before, so that
files are converted again.
"""


class Told(Protocol):
    """Observer of the making of a corpus: called with the samples of a split that were read, with the bytes
    that were read for checksums, and with lines about what is done.
    """

    def __call__(self, role: Role, done: int, total: int) -> None: ...

    def hashed(self, done: int, total: int) -> None: ...

    def say(self, line: str) -> None: ...


def cached_corpus(source: Path, options: ReadOptions, *, told: Told) -> Path:
    """Directory of the corpus made from a foreign file: converted now, or found from an earlier time. The
    first of several labels is its target, and the others stand beside it.

    It is found by the content of the file, the options and the version of this package, wherever the file
    lies; one that is damaged is made again. Among several processes that ask at once, one converts and the
    others wait.

    Raises:
        DataError: If it is not recognised, cannot be converted, or the cache cannot be written to.
    """
    format = detect([source])
    options = own_options(format, options)
    try:
        root = Path(os.environ.get(PLACE) or "~/.cache/alignmamba").expanduser() / "corpora"
        target = root / _key(format, source, options, told.hashed)
        if _damage(target) is not None:
            root.mkdir(parents=True, exist_ok=True)
            waiting = f"{source}: another process converts it, waiting"
            with exclusive(target.with_suffix(".lock"), lambda: told.say(waiting)):
                if (damage := _damage(target)) is not None:
                    if damage:
                        made = f"{source}: the corpus that was made of it is damaged and is made again"
                        told.say(f"{made}: {damage}")
                        _remove(target)
                    told.say(f"{source}: looks like {format}, converting it once into {target}")
                    how: dict[str, Any] = {"progress": told, "overwrite": True, "led": False}
                    done = convert(format, [source], target, options, **how)
                    for line in (_account(done), *done.notes):
                        told.say(f"{source}: {line}")
                    return target
    except (OSError, RuntimeError) as error:
        # Of a file that cannot be read, of a cache that cannot be written to, or of a user without a home.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        where = error.filename if isinstance(error, OSError) and error.filename else PLACE
        raise DataError(
            f"{source}: {where}: {reason}; {PLACE} names another directory for the converted corpus"
        ) from error
    told.say(f"{source}: converted before, using {target}")
    return target


def _damage(target: Path) -> str | None:
    """Problem of a corpus, empty where no corpus exists yet; ``None`` for one that is whole."""
    if not (target.exists() or target.is_symlink()):
        return ""
    try:
        load_corpus(target, nonfinite="zero")
    except DataError as error:
        return str(error)
    return None


def _remove(target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink()


def _key(
    format: str, source: Path, options: ReadOptions, hashed: Callable[[int, int], None] | None = None
) -> str:
    files = list(_files(format, source))
    add = counting(hashed, sum(path.stat().st_size for _, path in files))
    content = {
        "version": __version__,
        "generation": _GENERATION,
        "format": format,
        "options": {
            **options.model_dump(mode="json"),
            **{name: file_checksum(value) for name, value in options if _is_file(value)},
        },
        "files": [(str(name), file_checksum(path, add)) for name, path in files],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_file(value: object) -> bool:
    return isinstance(value, Path) and value.is_file()


def _files(format: str, source: Path) -> Iterator[tuple[str, Path]]:
    """All files that are read, with a name that does not depend on where the source lies."""
    named = getattr(FORMATS[format], "files", None)
    folder = source if source.is_dir() else source.parent
    everything = sorted(source.rglob("*")) if source.is_dir() else [source]
    for path in named(source) if named is not None else everything:
        if path.is_file():
            yield "" if path == source else os.path.relpath(path, folder), path


def _account(done: Conversion) -> str:
    """The outcome of a conversion in one line."""
    sizes = ", ".join(f"{role} {len(split)}" for role, split in done.corpus.splits.items())
    repairs = faults_in_words(done.faults)
    repaired = f"repaired: {repairs}" if repairs else "nothing had to be repaired"
    return f"converted in {done.seconds:.1f} s, samples: {sizes}; {repaired}"
