"""Files that say which ids are in which split."""

import json
import tomllib
from pathlib import Path

from alignmamba.contracts import ROLES, Role
from alignmamba.data.readers.plain import one_line, read_text
from alignmamba.errors import DataError

_LARGEST = 64 << 20
_EXPECTED = 'a JSON or TOML file of the ids of each split, {"train": [...], "valid": [...], "test": [...]}'


def folds_path(given: Path | None, folder: Path) -> Path:
    """The file that is given, or else `folds.json` or `folds.toml` in the folder.

    Raises:
        DataError: If there is neither.
    """
    beside = [path for path in (folder / "folds.json", folder / "folds.toml") if path.is_file()]
    if given is None and not beside:
        raise DataError(f"{folder}: nothing says which id is in which split: give folds, {_EXPECTED}, or put it there as folds.json")
    return given or beside[0]


def read_folds(path: Path) -> dict[str, Role]:
    """Split of each id.

    Raises:
        DataError: If it is no such file, or names an id in two splits.
    """
    content = read_text(path, largest=_LARGEST)
    try:
        given = json.loads(content) if path.suffix.lower() == ".json" else tomllib.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected {_EXPECTED}, found {one_line(error)}") from error
    if not isinstance(given, dict) or not given or not set(given) <= set(ROLES):
        raise DataError(
            f"{path}: expected {_EXPECTED}, found {sorted(map(str, given))[:5] if isinstance(given, dict) else type(given).__name__}"
        )
    home: dict[str, Role] = {}
    for role in ROLES:
        ids = given.get(role, [])
        if not isinstance(ids, list) or not all(isinstance(identity, str) for identity in ids):
            raise DataError(f"{path}: {role}: expected a list of ids, found {str(ids)[:80]}")
        for identity in ids:
            if home.setdefault(identity, role) != role:
                raise DataError(f"{path}: id {identity!r} is in {home[identity]!r} and in {role!r}, expected splits that share none")
    return home
