"""Arrays and tables, described by a TOML file, so that nobody needs to write Python.

A sample has an id and perhaps a label, a split, a text and a group, from a table with one row per sample or
from arrays; the values of a modality come from one file per sample, one array for all samples, or a table
with one row per position. `docs/arrays.md` has all keys; `array_description` checks them.

Paths are relative to the TOML file and may not leave its folder. Nothing that a file holds is run.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignmamba.contracts import ROLES, Role, Task
from alignmamba.data.classes import Classes
from alignmamba.data.inspection import repeats
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.folds import SPLIT_NAMES, UNDIVIDED, left_out, split_roles, unused
from alignmamba.formats.foreign import Faults, Foreign, LabelOptions, refuse_shared_features
from alignmamba.formats.leading_labels import led_by_labels
from alignmamba.formats.plain_files import LazyRows, read_text
from alignmamba.formats.tables.array_description import (
    EVERY_OTHER,
    LARGEST_DESCRIPTION,
    Description,
    described,
    filled,
    is_file,
)
from alignmamba.formats.tables.foreign_tables import note_open_end
from alignmamba.formats.tables.foreign_toml import read_toml
from alignmamba.formats.tables.named_arrays import Arrays
from alignmamba.formats.tables.sample_list import SampleList
from alignmamba.formats.tables.value_layouts import Values, opened

FORMAT = "arrays"
SUMMARY = "arrays and tables (.npy, .npz, HDF5, Parquet, CSV) that a TOML file describes"
Options = LabelOptions

_LARGEST_LIST = 64 << 20


def recognises(path: Path) -> bool:
    """Return whether this is a TOML file with a table `samples` and tables of modalities."""
    try:
        if path.suffix.lower() != ".toml" or not path.is_file():
            return False
        given = read_toml(path, largest=LARGEST_DESCRIPTION)
    except (OSError, ValueError):
        return False
    return isinstance(given.get("samples"), dict) and isinstance(given.get("modalities"), dict)


def files(path: Path) -> Sequence[Path]:
    """The description and all files that it names, as far as they exist; raises a `DataError` if it is none,
    or the ids of its samples cannot be read.
    """
    description, folder = described(path), path.parent
    found = {path, *(folder / name for name in description.files)}
    if description.patterns:
        samples = SampleList.of(path, description, Arrays(folder))
        found.update(
            folder / filled(pattern, samples.cells, row).partition("#")[0]
            for row in range(len(samples.ids))
            for pattern in description.patterns
        )
    home = folder.resolve()
    return sorted(each for each in found if is_file(each) and each.resolve().is_relative_to(home))


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """Open what one TOML file describes; raises a `DataError` if it is wrong, or a file is not what it
    says.
    """
    if len(sources) != 1:
        raise DataError(f"arrays: expected one TOML file, found {len(sources)} files")
    path = sources[0]
    description, arrays, faults = described(path), Arrays(path.parent), Faults()
    task, modalities = description.task.task, description.modalities
    several = task.kind == "multilabel" and not options.label
    labels = task.classes if several else options.label
    samples = SampleList.of(path, description, arrays, labels)
    if labels and labels[0] != description.samples.label:  # the description is about another
        task = samples.own_task()
    values = {name: opened(arrays, name, description, samples) for name in modalities}
    rows_by_role, notes = _split_rows(path, description, samples)
    for name, found in values.items():
        if found.key is not None:
            notes += _shared(f"{path}: modalities.{name}", samples.ids, rows_by_role, found.key)
        notes += found.notes
    tables = [part.table for part in modalities.values() if not part.pattern]
    for table in filter(None, dict.fromkeys([description.samples.table, *tables])):
        note_open_end(path.parent / table, faults)
    foreign = Foreign(
        format=FORMAT,
        name=description.name,
        task=task,
        splits={role: _split(samples, rows, values, task) for role, rows in rows_by_role.items() if rows},
        units={name: part.units for name, part in modalities.items() if part.units},
        vocabulary_sizes={
            name: part.vocabulary_size
            for name, part in modalities.items()
            if part.vocabulary_size is not None
        },
        source=description.source or f"described by {path.name}",
        faults=faults,
        notes=tuple(notes),
    )
    return led_by_labels(foreign, labels, kind="multilabel") if several else foreign


def _split(samples: SampleList, rows: Sequence[int], values: Mapping[str, Values], task: Task) -> SplitArrays:
    """Some of the samples as a split."""
    classes = Classes(task.classes)

    def of_rows(cells: Sequence[Any] | None) -> list[Any] | None:
        return None if cells is None else [cells[row] for row in rows]

    def lazy(get: Callable[[int], Any]) -> LazyRows:
        return LazyRows(len(rows), lambda at: get(rows[at]))

    return SplitArrays(
        features={name: lazy(found.features) for name, found in values.items()},
        targets=None if samples.labels is None else [samples.target(row, task, classes) for row in rows],
        ids=[samples.ids[row] for row in rows],
        times={name: lazy(found.times) for name, found in values.items() if found.times is not None},
        texts=of_rows(samples.texts),
        groups=of_rows(samples.groups),
        labels={name: [cells[row] for row in rows] for name, cells in samples.further.items()},
        token_labels={
            name: {label: lazy(get) for label, get in found.labels.items()}
            for name, found in values.items()
            if found.labels
        },
    )


def _shared(
    where: str, ids: Sequence[str], rows: Mapping[Role, Sequence[int]], key: Callable[[int], str]
) -> list[str]:
    """Refuse ids that stand for several samples of the same features; returns notes about features that
    several ids share.
    """
    refuse_shared_features({role: [ids[row] for row in own] for role, own in rows.items()}, where)
    found = repeats({role: map(key, own) for role, own in rows.items()})
    shared = [(name, one, other) for name, one, other in found if one != other]
    count = len({name for name, _, _ in shared})
    return [
        f"{where}: {count} files are of samples of several splits, {name!r} of {one} and {other}"
        " first: a leak?"
        for name, one, other in shared[:1]
    ]


def _split_rows(
    path: Path, description: Description, samples: SampleList
) -> tuple[dict[Role, list[int]], list[str]]:
    """Rows of each split, and notes about the others."""
    if samples.splits is None and not description.splits and samples.labels is None:
        return {"test": [*range(len(samples.ids))]}, [UNDIVIDED]
    notes: list[str] = []
    if samples.splits is not None:
        homes = _homes_by_name(path, description, samples.splits)
    else:
        homes, notes = _homes_by_id(path, description, samples.ids)
    left = [row for row, home in enumerate(homes) if home is None]
    names = [samples.splits[row] for row in left] if samples.splits is not None else []
    if len(left) == len(homes):
        first = sorted(set(map(str, names)))[:5] if samples.splits is not None else list(samples.ids[:3])
        raise DataError(f"{path}: splits: no sample is in any split; the first values are {first}")
    called = [str(name) for name in names if name is not None]
    dropped = left_out("samples", len(left), samples.ids[left[0]] if left else "", homes, called)
    return {role: [row for row, home in enumerate(homes) if home == role] for role in ROLES}, dropped + notes


def _homes_by_name(path: Path, description: Description, splits: Sequence[Any]) -> list[Role | None]:
    """The split of each sample by what the samples call it."""
    given = {role: [own] if isinstance(own, str) else own for role, own in description.splits.items()}
    called = _inverted(given, lambda name, a, b: f"{path}: splits: {name!r} stands for {a!r} and for {b!r}")
    others = sorted({str(cell) for cell in splits} - set(called))
    usual = [name for name in others if SPLIT_NAMES.get(name.strip().lower()) not in given]
    called |= split_roles(usual, f"{path}: splits")
    return [called.get(str(cell)) for cell in splits]


def _homes_by_id(
    path: Path, description: Description, ids: Sequence[str]
) -> tuple[list[Role | None], list[str]]:
    """The split of each sample by the lists of ids, and notes about ids that no sample has."""
    if not description.splits:
        raise DataError(
            f"{path}: expected samples.split or samples.splits, or [splits] with the ids of each split, found"
            f" none; train = {EVERY_OTHER!r} puts all samples there"
        )
    given = {role: _id_list(path, own) for role, own in description.splits.items() if own != EVERY_OTHER}
    listed = _inverted(given, lambda name, a, b: f"{path}: splits: id {name!r} is in {a!r} and in {b!r}")
    rest = [role for role in description.splits if role not in given]
    if len(rest) > 1:
        raise DataError(
            f"{path}: splits: {rest[0]!r} and {rest[1]!r} are both {EVERY_OTHER!r}, all that no other split"
            " lists"
        )
    homes = [listed.get(identity, rest[0] if rest else None) for identity in ids]
    return homes, unused(listed, set(ids), f"splits in {path}")


def _inverted(
    given: Mapping[Role, Sequence[str]], problem: Callable[[str, Role, Role], str]
) -> dict[str, Role]:
    """The split of each name, which must be one; `problem` is the message for one of several."""
    for name, one, other in repeats(given):
        if one != other:
            raise DataError(problem(name, one, other))
    return {name: role for role, names in given.items() for name in names}


def _id_list(path: Path, given: str | list[str]) -> list[str]:
    if isinstance(given, list):
        return given
    content = read_text(path.parent / given, largest=_LARGEST_LIST, inside=path.parent)
    return [line.strip() for line in content.splitlines() if line.strip()]
