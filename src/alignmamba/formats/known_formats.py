"""Formats, detection of the format of files, and the options that each of them takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import create_model

from alignmamba.data.storage import MANIFEST, check_path
from alignmamba.errors import DataError
from alignmamba.formats import FORMATS
from alignmamba.formats.foreign import Reader, ReadOptions, UnknownLabelError
from alignmamba.formats.pickles.pickle_glimpse import refused_global
from alignmamba.formats.tables.array_description import described
from alignmamba.formats.tables.draft import refuse_undescribed

AUTO = "auto"
"""Instead of the name of a format: what the files look like."""


def reader_of(format: str) -> Reader[Any]:
    """The reader of a format, if there is such a one."""
    if format not in FORMATS:
        raise DataError(f"format: expected {AUTO} or one of {', '.join(FORMATS)}, found {format!r}")
    return FORMATS[format]


def takers(option: str) -> list[str]:
    """The formats that take an option."""
    return [name for name, reader in FORMATS.items() if option in reader.Options.model_fields]


def any_options() -> type[ReadOptions]:
    """The options of all readers in one class, for files whose format is not known yet."""
    fields = {
        name: (info.annotation, info)
        for reader in FORMATS.values()
        for name, info in reader.Options.model_fields.items()
    }
    return create_model("AnyOptions", __base__=ReadOptions, **fields)  # type: ignore[call-overload,no-any-return]


def own_options(format: str, options: ReadOptions) -> Any:
    """The options of a format's reader, from those of any other; one that it does not take is refused."""
    own = reader_of(format).Options
    defaults = type(options).model_fields
    given = {name: value for name, value in options if value != defaults[name].default}
    for name in given:
        if name not in own.model_fields:
            raise (UnknownLabelError if name == "label" else DataError)(
                f"{name} (--{name}): the format {format} does not read it, only {', '.join(takers(name))}"
            )
    return own(**given)


def recognised(sources: Sequence[Path]) -> list[str]:
    """All formats that the files look like."""
    return [name for name in FORMATS if all(reader_of(name).recognises(path) for path in sources)]


def check_source(path: Path) -> None:
    """Refuse what cannot be a source: a path that none can have, or a pipe or device, which a reader could
    wait for without end.
    """
    check_path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path}: expected a file or folder, found a pipe, a socket or a device")


def detect(sources: Sequence[Path]) -> str:
    """The format that the files look like.

    Raises:
        DataError: If they look like none or like several, or are not there.
    """
    for path in sources:
        check_source(path)
        if (path / MANIFEST).is_file():
            raise DataError(f"{path}: is a corpus already, it needs no conversion")
    found = recognised(sources)
    if len(found) == 1:
        return found[0]
    files = ", ".join(map(str, sources))
    if found:
        raise DataError(
            f"{files}: looks like {' and like '.join(found)}, so the format must be given by name: alignmamba"
            f" convert {found[0]} SRC DST"
        )
    absent = [path for path in sources if not path.exists()]
    if absent:
        raise DataError(f"{absent[0]}: expected a file or folder, found nothing")
    for path in sources:
        if path.suffix.lower() == ".toml":
            described(path)  # raises what is wrong with it
        refuse_undescribed(path)
    why = "if it is one of them, give the format by name"
    if refused := next(filter(None, map(refused_global, sources)), ""):
        why = f"it asks for {refused!a}, which is not read"
    raise DataError(f"{files}: not recognised as any of the formats {', '.join(FORMATS)}; {why}")
