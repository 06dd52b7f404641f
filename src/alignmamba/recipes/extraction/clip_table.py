"""The clips of a corpus: a table of labels beside media files, or the files alone."""

import hashlib
import math
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from alignmamba.contracts import ROLES, Role, Sample, TargetKind, Task
from alignmamba.data.leading_target import LeadingConfig, several_labels
from alignmamba.errors import ConfigError, DataError, counted, shown
from alignmamba.formats.folds import split_roles
from alignmamba.formats.leading_labels import led_in_file
from alignmamba.formats.tables.array_description import is_file
from alignmamba.formats.tables.foreign_tables import (
    as_number,
    column_names,
    further_labels,
    is_absent,
    is_missing,
    label_number,
    read_columns,
)
from alignmamba.media.clip import MediaClip
from alignmamba.media.decoding import MEDIA_ENDINGS

TABLES: Final = ("labels.csv", "label.csv")
"""Names under which a table of labels is found in the folder of the clips."""
SHARES: Final[Mapping[Role, float]] = {"train": 0.7, "valid": 0.1, "test": 0.2}
"""Shares of samples where no column names their splits."""

_FOLDERS = ("", "Raw")
"""Folders of clips below the one that is given; MMSA-FET has the second."""
_OF_CLIP = frozenset(["file", "video_id", "clip_id", "text", "start", "end"])
_NO_LABELS = _OF_CLIP | {"id", "split", "mode", "group", ""}
"""Columns that are no labels."""
_GROUPS = ("group", "speaker", "video_id")
"""Columns of groups, of which the first is taken."""
_LABEL = "label"
"""Column of the label that leads, if none is named."""
_MEANT = _NO_LABELS.union(_GROUPS, (_LABEL,)) - {""}
"""Columns whose meaning follows from their names."""
_MOST_CLASSES_SAID = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRow:
    """One sample of a corpus to be."""

    id: str
    clip: MediaClip
    role: Role
    target: float | str | tuple[float, ...] | None = None
    group: str | None = None
    labels: Mapping[str, float | str | None] = field(default_factory=dict)

    @property
    def has_other_label(self) -> bool:
        """True if any label beside the target is known; that of its group is none."""
        known = (name for name, value in self.labels.items() if value is not None)
        return any(name.strip().lower() not in _GROUPS for name in known)


@dataclass(frozen=True, kw_only=True)
class ClipTable:
    """All clips in the order of their table, and the task that their labels make."""

    source: Path
    task: Task
    rows: tuple[ClipRow, ...]
    notes: tuple[str, ...] = ()
    """Sentences on what was assumed."""


def media_files(paths: Sequence[Path]) -> list[Path]:
    """Media files among these paths and, by their endings, in the folders among them, sorted by name.

    Raises:
        DataError: If there is none, or a path leads nowhere.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if _is_media(each))
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: expected a media file or a folder of them, found nothing")
    for path in found:
        _refuse_bytes(path)
    if not found:
        raise DataError(
            f"{', '.join(map(str, paths))}: expected media files ({', '.join(sorted(MEDIA_ENDINGS))}), found"
            " none"
        )
    distinct = {os.path.normpath(path.absolute()): path for path in reversed(found)}  # however it is spelled
    return list(reversed(distinct.values()))


def _refuse_bytes(path: Path) -> None:
    """Refuse a name that no table can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        said = os.fsencode(path).decode(errors="backslashreplace")
        raise DataError(f"{said}: found a name that is not UTF-8, expected one that is; rename it") from None


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in MEDIA_ENDINGS and not path.name.startswith(".") and path.is_file()


def files_alone(paths: Sequence[Path]) -> ClipTable:
    """Clips without labels, whole files, all in test."""
    files = media_files(paths)
    names = _names_of(files, paths)
    _refuse_repeated(names, "files")
    rows = [
        ClipRow(id=name, clip=MediaClip(path=path), role="test")
        for name, path in zip(names, files, strict=True)
    ]
    return ClipTable(source=paths[0], task=Task(kind="regression"), rows=tuple(rows))


def _names_of(files: Sequence[Path], given: Sequence[Path]) -> list[str]:
    """Names of files as ids: their paths below the folder that was given, or their names; as much of the path
    as it takes to keep them apart.
    """

    def below(path: Path) -> Path:
        folder = next((each for each in given if each.is_dir() and path.is_relative_to(each)), path.parent)
        return path.relative_to(folder)

    return _apart([[below(path).with_suffix(""), below(path), path] for path in files])


def _apart(ways: Sequence[Sequence[Path]]) -> list[str]:
    """The first name of each that no other has as well; the last where there is none."""
    taken = [Counter(names) for names in zip(*ways, strict=True)]
    return [
        next(
            (name for name, times in zip(names, taken, strict=True) if times[name] == 1), names[-1]
        ).as_posix()
        for names in ways
    ]


def labels_beside(folder: Path) -> Path | None:
    """The table of labels in a folder; ``None`` where there is none."""
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def labelled_clips(
    folder: Path,
    table: Path,
    leading: LeadingConfig = LeadingConfig(),  # noqa: B008 # immutable
    *,
    max_missing: int = 0,
) -> ClipTable:
    """Clips of a table with a row for each: ``file``, or ``video_id`` and ``clip_id`` as MMSA has them.

    Args:
        folder: Folder of the media files.
        table: CSV or Parquet.
        leading: Columns of labels that lead, by default ``label``, and what they make. All others are kept.
        max_missing: Rows whose file may be missing; such a clip fails when it is read.

    Raises:
        DataError: If a column is missing, or a cell is not what it should be; the message names the row or
            the sample.
    """
    names = column_names(table)
    columns = {name.strip().lower(): name for name in names}
    for name, times in Counter(name.strip().lower() for name in names).items():
        if times > 1 and name in _MEANT:
            raise DataError(f"{table}: found {times} columns {name!r}, whatever their case, expected one")
    cells = read_columns(table, names)
    count = len(next(iter(cells.values()), []))
    if not count:
        raise DataError(f"{table}: expected rows of clips, found none")

    def column(name: str) -> Sequence[Any]:
        return cells[columns[name]] if name in columns else [None] * count

    paths, base = _paths(folder, table, columns, cells, count)
    _refuse_missing(folder, table, paths, max_missing)
    starts, ends = (_seconds(table, column(name), name) for name in ("start", "end"))
    ids = _ids(table, column("id"), base, starts, ends)
    groups = _groups(columns, cells, paths, base)
    chosen = _chosen(table, names, leading.labels)
    kind = leading.kind or ("classification" if leading.classes and len(chosen) == 1 else None)
    labels = {name: further_labels(cells[name]) for name in names if name.strip().lower() not in _NO_LABELS}
    for name in chosen:
        labels[name] = _of_kind(cells[name], kind if name == chosen[0] else None)
    others = [name for name in labels if name not in chosen]
    unknown = all(each is None for name in chosen for each in labels[name])
    roles, split_notes = _roles(table, columns, cells, ids, groups, others if unknown else None)
    given = leading.model_copy(update={"labels": chosen, "kind": kind})
    task, targets = (_to_predict(given), None) if unknown else _led(table, ids, roles, labels, given)
    kept = {name: own for name, own in labels.items() if name not in task.labels}
    rows = []
    for row in range(count):
        text, start, end = column("text")[row], starts[row] or 0.0, ends[row]
        if end is not None and end <= start:
            raise DataError(f"{table}: row {row + 1}: end: found {end}, expected more than {start}")
        clip = MediaClip(path=paths[row], start=start, end=end, text=None if is_absent(text) else str(text))
        role = roles[row]
        if role is not None:
            rows.append(
                ClipRow(
                    id=ids[row],
                    clip=clip,
                    role=role,
                    target=None if targets is None else targets[row],
                    group=groups[row],
                    labels={name: own[row] for name, own in kept.items()},
                )
            )
    rows, label_notes = _labelled_where_others_are(rows, table)
    assumed = [] if targets is None else [f"{_assumed(task, chosen)}."]
    notes = (*split_notes, *label_notes, *_torn(table, rows), *assumed)
    return ClipTable(source=table, task=task, rows=tuple(rows), notes=notes)


def _assumed(task: Task, chosen: Sequence[str]) -> str:
    """Sentence without a full stop on what labels are taken for."""
    if len(chosen) > 1:
        return several_labels(task)
    if task.kind == "multilabel":
        return f"{chosen[0]} is there or not"
    if not task.has_one_class:
        return f"{chosen[0]} is a number"
    some = ", ".join(map(repr, task.classes[:_MOST_CLASSES_SAID]))
    more = ", ..." if len(task.classes) > _MOST_CLASSES_SAID else ""
    return f"{chosen[0]} is one of {len(task.classes)} classes: {some}{more}"


# What the columns say


def _paths(
    folder: Path,
    table: Path,
    columns: Mapping[str, str],
    cells: Mapping[str, Sequence[Any]],
    count: int,
) -> tuple[list[Path], list[str]]:
    """File of each row, and its name as the start of an id."""
    if "file" in columns:
        names = [_text(table, "file", cells[columns["file"]][row], row) for row in range(count)]
        paths = [_inside(folder, table, name, row) for row, name in enumerate(names)]
        distinct = list(dict.fromkeys(names))
        short = _apart([[Path(name).with_suffix(""), Path(name)] for name in distinct])
        called = dict(zip(distinct, short, strict=True))
        return paths, [called[name] for name in names]
    if "video_id" not in columns or "clip_id" not in columns:
        raise DataError(
            f"{table}: expected a column file, or video_id and clip_id, found {list(columns.values())[:20]}"
        )
    videos, clips = (
        [_text(table, name, cell, row) for row, cell in enumerate(cells[columns[name]])]
        for name in ("video_id", "clip_id")
    )
    pairs = list(zip(videos, clips, strict=True))
    paths = [_of_pair(folder, table, video, clip, row) for row, (video, clip) in enumerate(pairs)]
    return paths, ["/".join(pair) for pair in pairs]


def _text(table: Path, name: str, cell: Any, row: int) -> str:
    if is_absent(cell):
        raise DataError(f"{table}: row {row + 1}: {name}: found an empty cell, expected a name")
    return _name_in(cell)


def _inside(folder: Path, table: Path, name: str, row: int) -> Path:
    """A file by its path below the folder, or below that of the table."""
    if not Path(name).name:
        raise DataError(f"{table}: row {row + 1}: file: found {name!r}, expected the name of a file")
    places = [base / name for base in dict.fromkeys((folder, table.parent))]
    found = next((place for place in places if is_file(place)), None)
    if found is None:
        return places[0]
    if not any(found.resolve().is_relative_to(base.resolve()) for base in (folder, table.parent)):
        raise DataError(f"{table}: row {row + 1}: file: {name!r}: expected a path within {folder}")
    return found


def _of_pair(folder: Path, table: Path, video: str, clip: str, row: int) -> Path:
    """The file of a video and a clip: ``video/clip.mp4``, also below ``Raw``, or ``video_clip.mp4``."""
    for part in (video, clip):
        if "/" in part or part in (".", ".."):
            raise DataError(f"{table}: row {row + 1}: found {part!r}, expected the name of a video or a clip")
    for base in _FOLDERS:
        for ending in sorted(MEDIA_ENDINGS):
            for name in (f"{video}/{clip}{ending}", f"{video}_{clip}{ending}"):
                if is_file(folder / base / name):
                    return folder / base / name
    return folder / video / clip


def _refuse_missing(folder: Path, table: Path, paths: Sequence[Path], most: int) -> None:
    """Refuse a table more of whose files are missing than may."""
    missing = [row for row, path in enumerate(paths) if not is_file(path)]
    if missing and len(missing) > most:
        name, others = os.path.relpath(paths[missing[0]], folder), len(missing) - 1
        also = f", nor those of {counted(others, 'other row')}" if others else ""
        allowed = f"; expected at most {most} missing (--max-failed)" if most or others else ""
        raise DataError(
            f"{table}: row {missing[0] + 1}: found no media file {name!r} in {folder}{also}{allowed}"
        )


def _seconds(table: Path, cells: Sequence[Any], name: str) -> list[float | None]:
    found: list[float | None] = []
    for row, cell in enumerate(cells, 1):
        number = math.nan if is_missing(cell) else as_number(cell)
        if number is None or math.isinf(number) or number < 0:
            raise DataError(f"{table}: row {row}: {name}: found {shown(cell)}, expected seconds from 0")
        found.append(None if math.isnan(number) else number)
    return found


def _ids(
    table: Path,
    given: Sequence[Any],
    base: Sequence[str],
    starts: Sequence[float | None],
    ends: Sequence[float | None],
) -> list[str]:
    """Id of each row: its own, or that of its file with the segment."""

    def segment(row: int) -> str:
        start, end = starts[row], ends[row]
        if start is None and end is None:
            return ""
        return f"@{start or 0:.12g}-{'' if end is None else f'{end:.12g}'}"

    ids = [
        f"{name}{segment(row)}" if is_absent(given[row]) else str(given[row]).strip()
        for row, name in enumerate(base)
    ]
    _refuse_repeated(ids, str(table))
    return ids


def _refuse_repeated(ids: Sequence[str], where: str) -> None:
    name, times = Counter(ids).most_common(1)[0]
    if times > 1:
        rows = [str(row) for row, each in enumerate(ids, 1) if each == name]
        raise DataError(
            f"{where}: {name!r} appears {times} times, in rows {', '.join(rows[:5])}; expected each clip once"
        )


def _groups(
    columns: Mapping[str, str], cells: Mapping[str, Sequence[Any]], paths: Sequence[Path], base: Sequence[str]
) -> list[str | None]:
    """Group of each row: a column, or the file of which rows are segments."""
    name = next((name for name in _GROUPS if name in columns), None)
    if name is not None:
        found = cells[columns[name]]
        return [None if is_absent(cell) else str(cell).strip() for cell in found]
    several = {path for path, times in Counter(paths).items() if times > 1}
    return [file if path in several else None for path, file in zip(paths, base, strict=True)]


def _chosen(table: Path, names: Sequence[str], asked: Sequence[str]) -> tuple[str, ...]:
    """Columns of the labels that lead; none where nothing is asked for and the usual one is not there."""
    columns = {name.strip().lower(): name for name in names} | {name: name for name in names}
    for name in asked:
        if name not in columns and name.strip().lower() not in columns:
            raise DataError(f"{table}: expected a column {name!r}, found {list(names)[:20]}")
    found = (columns.get(name, columns.get(name.strip().lower())) for name in asked or (_LABEL,))
    return tuple(filter(None, found))


def _of_kind(cells: Sequence[Any], kind: TargetKind | None) -> list[float | str | None]:
    """Cells of a label that leads: numbers where they are, else text, which only classes may be."""
    numbers = list(map(label_number, cells))
    words = kind in ("classification", "ordinal") or (kind is None and None in numbers)
    missing = is_absent if words else is_missing
    return [
        None if missing(cell) else str(cell).strip() if number is None or math.isnan(number) else number
        for cell, number in zip(cells, numbers, strict=True)
    ]


def _led(
    table: Path,
    ids: Sequence[str],
    roles: Sequence[Role | None],
    labels: Mapping[str, Sequence[float | str | None]],
    given: LeadingConfig,
) -> tuple[Task, list[Any]]:
    """Task that labels lead, and the target of each row."""
    known = [
        {name: value for name, own in labels.items() if (value := own[row]) is not None}
        for row in range(len(ids))
    ]
    try:
        led = led_in_file(given, known, roles)
        samples = [Sample(id=name, features={}, labels=own) for name, own in zip(ids, known, strict=True)]
        targets = [led.value(sample) for sample in samples]
    except DataError as error:
        said = str(error).removeprefix("leading: ").removeprefix("leading.")
        # as the options are called
        raise DataError(f"{table}: {said.replace('label_range', 'range')}") from None
    if led.task.has_one_class:  # by name: classes that are named by numbers take no index
        return led.task, [None if each is None else led.task.words(each) for each in targets]
    return led.task, targets


def _to_predict(given: LeadingConfig) -> Task:
    """Task of clips without labels."""
    classes = given.classes or (given.labels if given.kind == "multilabel" else ())
    if given.label_range is not None and given.kind not in (None, "regression"):
        raise ConfigError(f"range: found it for a target of the kind {given.kind}, expected a regression")
    if given.kind in (None, "regression") or not classes:
        return Task(kind="regression", label_range=given.label_range)
    return Task(kind=given.kind, classes=classes)


def _name_in(cell: Any) -> str:
    """Name in a cell, which Parquet may hold as a number."""
    number = as_number(cell) if not isinstance(cell, str) else None
    return str(int(number)) if number is not None and number.is_integer() else str(cell).strip()


def _roles(
    table: Path,
    columns: Mapping[str, str],
    cells: Mapping[str, Sequence[Any]],
    ids: Sequence[str],
    groups: Sequence[str | None],
    others: Sequence[str] | None,
) -> tuple[list[Role | None], list[str]]:
    """Split of each row, and notes on how it was found; `others` are the columns of labels of a table that
    lacks the label that leads.
    """
    name = next((name for name in ("split", "mode") if name in columns), None)
    if name is not None:
        said = ["" if is_absent(cell) else str(cell) for cell in cells[columns[name]]]
        known = split_roles(filter(None, said), f"{table}: {name}")
        roles = [known.get(each) for each in said]
        without = [row for row, role in enumerate(roles) if role is None]
        if len(without) == len(roles):
            others = ", ".join(map(repr, list(dict.fromkeys(said))[:5]))
            raise DataError(f"{table}: {name}: expected rows of {', '.join(ROLES)}, found {others} alone")
        notes = (
            [
                f"{len(without)} rows of {table.name} are in no split and were dropped,"
                f" {ids[without[0]]!r} first, whose {name} is {said[without[0]]!r}."
            ]
            if without
            else []
        )
        return roles, notes
    if others is not None:
        hint = f" --label takes another column, such as {others[0]!r}." if others else ""
        return ["test"] * len(ids), [f"{table.name} has no labels: all clips are in test.{hint}"]
    dealt = dealt_roles([group or identity for group, identity in zip(groups, ids, strict=True)])
    unit = "whole groups" if any(group is not None for group in groups) else "clips"
    counts = Counter(dealt)
    return list(dealt), [
        f"{table.name} has no column split: {unit} were dealt into"
        f" {', '.join(f'{role} {counts[role]}' for role in ROLES if counts[role])}."
    ]


def _torn(table: Path, rows: Sequence[ClipRow]) -> list[str]:
    """Note on groups that lie in several splits."""
    homes: dict[str, set[Role]] = {}
    for row in rows:
        if row.group is not None:
            homes.setdefault(row.group, set()).add(row.role)
    torn = [group for group, home in homes.items() if len(home) > 1]
    if not torn:
        return []
    several = ", ".join(role for role in ROLES if role in homes[torn[0]])
    return [
        f"{len(torn)} of {len(homes)} groups of {table.name} lie in several splits, {torn[0]!r} first"
        f" ({several}): scores may be too good."
    ]


def dealt_roles(groups: Sequence[str]) -> list[Role]:
    """Split of each sample by its group: groups in the order of their checksums, first into test until it has
    its share, then into valid, then into train. What is added later moves few of the others.
    """
    sizes = Counter(groups)
    waiting = deque(
        sorted(sizes, key=lambda group: hashlib.sha256(group.encode(errors="surrogatepass")).digest())
    )
    home: dict[str, Role] = {}
    # Each split takes a group at least, and leaves one for each that follows.
    reserves: dict[Role, int] = {"test": 2, "valid": 1}
    for role, reserve in reserves.items():
        wanted, taken = SHARES[role] * len(groups), 0
        while len(waiting) > reserve and (not taken or taken + sizes[waiting[0]] / 2 <= wanted):
            group = waiting.popleft()
            home[group] = role
            taken += sizes[group]
    home |= dict.fromkeys(waiting, "train")
    return [home[group] for group in groups]


def _labelled_where_others_are(rows: Sequence[ClipRow], table: Path) -> tuple[list[ClipRow], list[str]]:
    """Rows without those that lack every label in a split where others have the one that leads, and notes on
    what they lack.
    """
    labelled = {row.role for row in rows if row.target is not None}
    lacking = [row for row in rows if row.target is None and row.role in labelled]
    kept = [row for row in lacking if row.has_other_label]
    bare = [row for row in lacking if not row.has_other_label]
    notes = [
        f"{len(some)} rows of {table.name} {said}, {some[0].id!r} first."
        for some, said in (
            (bare, "have no label and were dropped"),
            (kept, "lack the label that leads and were kept for others"),
        )
        if some
    ]
    dropped = {row.id for row in bare}
    return [row for row in rows if row.id not in dropped], notes


def split_rows(rows: Sequence[ClipRow]) -> Iterator[tuple[Role, list[ClipRow]]]:
    """Rows of each split that has any, in the order of the table."""
    for role in ROLES:
        if own := [row for row in rows if row.role == role]:
            yield role, own
