"""Split of each sample: the names that splits have, and files that list their ids."""

from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from alignmamba.contracts import ROLES, Role
from alignmamba.errors import DataError, shown
from alignmamba.files import read_json
from alignmamba.formats.foreign import LabelOptions, NeedsOptionError
from alignmamba.formats.tables.foreign_toml import read_toml


class FoldOptions(LabelOptions):
    """Options for files that may not name their splits."""

    folds: Annotated[Path | None, Field(title="FILE")] = None
    """JSON or TOML file with the ids of train, valid and test."""


SPLIT_NAMES: Mapping[str, Role] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "development": "valid",
    "test": "test",
    "testing": "test",
}
"""Names of splits in other programs, in lower case."""

NO_TEST = " There is no test split left."
"""Note on dropped samples, if there are any."""

_LARGEST = 64 << 20
_LARGEST_TOML = 4 << 20
_EXPECTED = 'a JSON or TOML file of the ids of each split, {"train": [...], "valid": [...], "test": [...]}'


def split_roles(names: Iterable[str], where: str) -> dict[str, Role]:
    """The role of each of these names of splits that is a known one, whatever the case of its letters. Two
    for one role are refused.
    """
    roles: dict[str, Role] = {}
    for name in dict.fromkeys(names):
        plain = name.strip().lower()
        if (role := SPLIT_NAMES.get(plain)) is None:
            continue
        for other in roles:
            if roles[other] == role and other.strip().lower() != plain:
                raise DataError(
                    f"{where}: {other!r} and {name!r} both name the {role} split, expected one of them"
                )
        roles[name] = role
    return roles


def left_out(
    samples: str, count: int, first: str, roles: Iterable[Role | None], names: Iterable[str] = ()
) -> list[str]:
    """Note on so many samples, called so in the plural, that are in no split, with the id of the first, and
    with the names of their own splits where they are known. It says if the roles of others lack test.
    """
    if not count:
        return []
    called = sorted({name[:40] for name in names})
    own = f" of the split{'s' * (len(called) > 1)} {', '.join(map(repr, called[:8]))}" if called else ""
    none = "" if "test" in set(roles) else NO_TEST
    return [f"{count} {samples}{own} are in no split and were dropped, {first!r} first.{none}"]


def unused(names: Iterable[str], known: Container[str], where: str) -> list[str]:
    """Note on ids that `where` puts into splits, but that no sample has."""
    unknown = [name for name in names if name not in known]
    if not unknown:
        return []
    return [f"{len(unknown)} ids of {where} name nothing that is in the files, {unknown[0]!r} first."]


def folds_beside(folder: Path) -> list[Path]:
    """The files of folds that lie in a folder."""
    return [path for path in (folder / "folds.json", folder / "folds.toml") if path.is_file()]


def folds_path(given: Path | None, folder: Path) -> Path:
    """The file that is given, or else the one in the folder.

    Raises:
        NeedsOptionError: If there is neither.
    """
    found = folds_beside(folder) if given is None else [given]
    if not found:
        raise NeedsOptionError(
            f"{folder}: nothing says which id is in which split: give folds (--folds FILE), {_EXPECTED}, or"
            " put it there as folds.json",
            option="--folds FILE",
        )
    return found[0]


UNDIVIDED = "Nothing says which sample is in which split, and there are no labels: all are in test."
"""Note on new files, to be predicted."""


def roles_by_folds(
    samples: Sequence[tuple[str, str]], given: Path | None, folder: Path, *, labelled: bool
) -> tuple[list[Role | None], list[str], Path]:
    """The splits of samples, of which each has an id and a group, by the file of folds that is given or lies
    in a folder; a fold names an id or a group. Files without labels may have none: they are new ones, to be
    predicted, and all in test.

    Returns:
        The split of each sample, sentences on what was found, and what they are about: the file of folds, or
        the folder.
    """
    if not labelled and given is None and not folds_beside(folder):
        return ["test" for _ in samples], [UNDIVIDED], folder
    path = folds_path(given, folder)
    folds = read_folds(path)
    roles = [folds.get(identity, folds.get(group)) for identity, group in samples]
    return roles, unused(folds, {name for pair in samples for name in pair}, str(path)), path


def read_folds(path: Path) -> dict[str, Role]:
    """Split of each id in a file of folds; one that names an id in two splits is refused."""
    is_json = path.suffix.lower() == ".json"
    given = read_json(path, limit_bytes=_LARGEST) if is_json else read_toml(path, largest=_LARGEST_TOML)
    roles = split_roles(given, str(path)) if isinstance(given, dict) else {}
    if not isinstance(given, dict) or not given or len(roles) != len(given):
        found = sorted(name[:40] for name in given)[:5] if isinstance(given, dict) else type(given).__name__
        raise DataError(f"{path}: expected {_EXPECTED}, found {found}")
    home: dict[str, Role] = {}
    for name, role in sorted(roles.items(), key=lambda item: ROLES.index(item[1])):
        ids = given[name]
        if not isinstance(ids, list):
            raise DataError(f"{path}: {name}: expected a list of ids, found {shown(ids)}")
        if wrong := [identity for identity in ids if not isinstance(identity, str)]:
            raise DataError(f"{path}: {name}: expected ids as text, found {shown(wrong[0])}")
        for identity in ids:
            if home.setdefault(identity, role) != role:
                raise DataError(
                    f"{path}: id {identity!r} is in {home[identity]!r} and in {role!r}, expected splits that"
                    " share none"
                )
    return home
