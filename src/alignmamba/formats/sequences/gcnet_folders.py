"""Feature folders as GCNet and MERBench keep them: one `.npy` per utterance in a folder per modality, and a
table of labels; `docs/formats.md` shows the layout and the columns.

The tables that they publish are pickles (`.pkl`, and `.npz` of Python objects), which are read as data.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.contracts import ROLES, Role, Task
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.folds import FoldOptions, folds_beside, left_out, roles_by_folds, split_roles
from alignmamba.formats.foreign import Faults, Foreign, UnknownLabelError, refuse_shared_features
from alignmamba.formats.pickles.pickled_labels import npz_table, pickled_table
from alignmamba.formats.plain_files import LazyRows, hinted, npz_keys, one_line, open_npy, open_npz
from alignmamba.formats.sequences.modality_names import as_modality, told_by
from alignmamba.formats.tables.foreign_tables import (
    as_number,
    column_names,
    further_labels,
    is_absent,
    is_missing,
    is_table,
    note_open_end,
    read_columns,
)

FORMAT = "gcnet"
SUMMARY = "GCNet and MERBench folders: one .npy per utterance in a folder per modality, and a table of labels"
Options = FoldOptions

FRAMES = 100_000
"""A folder of frames may have as many files."""

_ID = ("id", "name", "utterance", "utterance_id")
_LABEL = ("label", "emo", "emotion", "val", "sentiment")
_SPLIT = ("split", "set", "mode", "fold")
_CONVERSATION = ("conversation", "dialogue", "dialogue_id", "video", "video_id")
_FACTS = (*_ID, *_SPLIT, *_CONVERSATION)
_MOST_CLASSES = 32
_PICKLES = (".pkl", ".pickle")
# Pieces of the names of MERBench's features, asked for in this order.
_HINTS = (
    ("audio", "hubert|data2vec-audio"),
    ("text", "text|bert|gpt|llama|glm|xlnet|sentence|glove|baichuan|bloom|electra"),
    ("audio", "audio|wav2vec|wavlm|whisper|vggish|opensmile|is09|is10|is13|egemaps|mfcc|acoustic"),
    ("vision", "vision|visual|video|face|clip|manet|resnet|senet|emonet|msceleb|dino|vit"),
)


def recognises(path: Path) -> bool:
    """Return whether this is a folder with a table of labels and at least one folder of `.npy` files."""
    try:
        if not path.is_dir():
            return False
        return bool(_tables(path)) and any(True for _ in _feature_folders(path))
    except (OSError, ValueError):
        return False


def files(path: Path) -> Sequence[Path]:
    """The table of a folder, the folds beside it, and the features of every utterance of the table, links
    followed.
    """
    table, folders = _parts([path])
    ids = _column(_columns(table, Faults(), ()), _ID) or []
    found = [table, *folds_beside(table.parent)]
    places = (_place(folder, str(identity)) for folder in folders.values() for identity in ids)
    for place in filter(None, places):
        found += sorted(place.glob("*.npy")) if place.is_dir() else [place]
    return found


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """Open the folders of one corpus: the folder, or `NAME=FOLDER` for each modality and `labels=FILE`."""
    path, folders = _parts(sources)
    faults = Faults()
    table = _Table.of(path, _columns(path, faults, options.label), options.label)
    task, targets = _task(path, table.labels)
    roles, notes = _roles(path, table, options, labelled=targets is not None)
    if targets is None:
        notes.insert(
            0,
            f"unlabelled: {path.name} has nothing in a column {' or '.join(_LABEL)}; the option label"
            " names another",
        )
    order = table.by_conversation()
    rows_of = {role: [row for row in order if roles[row] == role] for role in ROLES}
    if not any(rows_of.values()):
        raise DataError(f"{path}: found no utterance in any split")
    homes = {role: [table.ids[row] for row in sorted(rows)] for role, rows in rows_of.items()}
    refuse_shared_features(homes, str(path))
    notes += _notes_on_folders(folders, table.ids, path)
    if conversations := {each for each in table.conversations if each}:
        notes.append(
            f"{len(conversations)} conversations: an id is conversation/utterance, and the utterances of a"
            " conversation follow each other."
        )

    def arrays(rows: Sequence[int]) -> SplitArrays:
        def features(folder: Path) -> LazyRows:
            return LazyRows(len(rows), lambda at: _read(folder, table.ids[rows[at]]))

        return SplitArrays(
            features={name: features(folder) for name, folder in folders.items()},
            targets=None if targets is None else [targets[row] for row in rows],
            ids=[table.name(row) for row in rows],
            groups=[table.conversations[row] or None for row in rows],
            labels={name: [cells[row] for row in rows] for name, cells in table.further.items()},
        )

    return Foreign(
        format=FORMAT,
        name=path.parent.name or "gcnet",
        task=task,
        splits={role: arrays(rows) for role, rows in rows_of.items() if rows},
        units={name: f"features {folder.name}" for name, folder in folders.items()},
        vocabulary_sizes={},
        source=f"{path.name} with " + ", ".join(folder.name for folder in folders.values()),
        faults=faults,
        notes=tuple(notes),
    )


def _notes_on_folders(folders: Mapping[str, Path], ids: Sequence[str], table: Path) -> Iterator[str]:
    """Note on features that are of no utterance; a folder without those of any is refused."""
    known = set(ids)
    within = {part.as_posix() for identity in ids for part in Path(identity).parents}
    for name, folder in folders.items():
        if not any(_place(folder, identity) is not None for identity in ids):
            raise DataError(
                f"{folder}: found no features of the {len(ids)} utterances of {table}, the"
                f" first is {ids[0]!r}"
            )
        entries = {path.name for path in folder.iterdir() if path.suffix == ".npy" or path.is_dir()}
        if others := sorted(e for e in entries - known - within if e.removesuffix(".npy") not in known):
            yield (
                f"{len(others)} entries of {folder.name} ({name}) are of no utterance and were dropped,"
                f" {others[0]!r} first."
            )


# Folders


def _parts(sources: Sequence[Path]) -> tuple[Path, dict[str, Path]]:
    """The table and the folder of each modality."""
    table: Path | None = None
    named: dict[str, Path] = {}
    given = ", ".join(map(str, sources))
    for source in sources:
        name, path = hinted(source)
        if name == "labels":
            table = path
        elif name in named:
            raise DataError(f"{source}: found {name} twice, first as {named[name]}")
        elif name:
            named[name] = path
        elif source.is_dir():
            found = _tables(source)
            if len(found) > 1 or (not found and table is None and len(sources) == 1):
                raise DataError(
                    f"{source}: expected one table of labels, found {[path.name for path in found][:5]}; give"
                    " labels=FILE"
                )
            table = table or (found[0] if found else None)
            for folder in _feature_folders(source):
                modality = told_by(folder.name, _HINTS) or as_modality(folder.name)
                if modality in named:
                    raise DataError(
                        f"{folder}: is {modality}, as {named[modality]} is; give one of them as"
                        f" {modality}=FOLDER"
                    )
                named[modality] = folder
        elif is_table(source) or source.suffix.lower() in (".npz", *_PICKLES):
            table = source
        else:
            raise DataError(f"{source}: expected a folder, or NAME=FOLDER, found {_found(source)}")
    if table is None:
        raise DataError(f"{given}: expected a table of labels, found none; give labels=FILE")
    if not named:
        raise DataError(f"{given}: expected folders of .npy files, found none")
    for name, folder in named.items():
        if not folder.is_dir():
            raise DataError(f"{name}={folder}: expected a folder, found {_found(folder)}")
    return table, named


def _found(path: Path) -> str:
    return "a file" if path.exists() else "nothing"


def _tables(folder: Path) -> list[Path]:
    """The tables of labels in a folder: those that are called so, or all."""
    kinds = (".csv", ".tsv", ".parquet", ".npz", *_PICKLES)
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds and path.is_file())
    return [path for path in found if path.name.lower().startswith("label")] or found


def _feature_folders(folder: Path) -> Iterator[Path]:
    """Folders that hold `.npy` files, or folders of them."""
    inner = folder / "features"
    for path in sorted((inner if inner.is_dir() else folder).iterdir()):
        if path.is_dir() and any(True for form in ("*.npy", "*/*.npy") for _ in path.glob(form)):
            yield path


def _place(folder: Path, identity: str) -> Path | None:
    """Path of the features of an utterance; `None` where it has none."""
    if "\0" in identity or ".." in Path(identity).parts or Path(identity).is_absolute():
        raise DataError(f"{folder}: utterance {identity!r}: expected a name that stays in the folder")
    try:
        places = (folder / f"{identity}.npy", folder / identity)
        return next((path for path in places if path.exists() or path.is_symlink()), None)
    except OSError as error:
        raise DataError(f"{folder}: utterance {identity[:80]!r}: {one_line(error)}") from error


def _read(folder: Path, identity: str) -> np.ndarray | None:
    """The frames of an utterance, (time, width)."""
    path = _place(folder, identity)
    if path is None:
        return None
    if not path.is_dir():
        return _frames(path, folder)
    names = sorted(name for name in path.iterdir() if name.suffix == ".npy")[: FRAMES + 1]
    if len(names) > FRAMES:
        raise DataError(f"{path}: expected at most {FRAMES} frames, found more")
    frames = [_frames(name, folder) for name in names]
    for name, frame in zip(names, frames, strict=True):
        if frame.shape[1] != frames[0].shape[1]:
            raise DataError(
                f"{name}: expected width {frames[0].shape[1]} as in {names[0].name}, found {frame.shape[1]}"
            )
    return np.concatenate(frames) if frames else np.empty((0, 1))


def _frames(path: Path, folder: Path) -> np.ndarray:
    array = open_npy(path, inside=folder)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: expected numbers, found {str(array.dtype)[:40]}")
    if array.ndim > 2 and sum(length != 1 for length in array.shape) <= 2:
        array = array.squeeze() if array.size != 1 else array.reshape(1)
    if array.ndim == 0 or array.ndim > 2:
        raise DataError(f"{path}: expected shape (width,) or (time, width), found {array.shape}")
    if array.size == 0:
        return np.empty((0, 1))
    return np.array(
        array if array.ndim == 2 else array[None, :],
        dtype=array.dtype if array.dtype.kind == "f" else np.float64,
    )


# The table


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The columns that are looked at, with an entry for each utterance."""

    ids: Sequence[str]
    labels: Sequence[Any]
    splits: Sequence[Any]
    conversations: Sequence[str]
    further: Mapping[str, Sequence[float | str | None]]
    """Columns of labels that are not the one that is predicted."""

    @classmethod
    def of(cls, path: Path, columns: Mapping[str, list[Any]], asked: Sequence[str]) -> "_Table":
        ids = _column(columns, _ID) or []
        empty = [None] * len(ids)
        labels = columns[asked[0]] if asked else (_column(columns, _LABEL) or empty)
        splits = _column(columns, _SPLIT) or empty
        conversations = _column(columns, _CONVERSATION) or empty
        found = [len(ids), len(labels), len(splits), len(conversations)]
        if not ids or len(set(found)) > 1:
            raise DataError(
                f"{path}: expected columns of one length above 0, found {found} for id, label, split and"
                " conversation"
            )
        for row, identity in enumerate(ids, start=1):
            if identity is None or identity == "":
                raise DataError(f"{path}: row {row}: expected the id of an utterance, found nothing")
        others = {name: cells for name, cells in columns.items() if cells is not labels}
        return cls(
            ids=[str(identity) for identity in ids],
            labels=labels,
            splits=splits,
            conversations=["" if is_missing(cell) else str(cell) for cell in conversations],
            further={
                name: further_labels(each)
                for name, each in others.items()
                if name in asked or name.lower() in _LABEL
            },
        )

    def name(self, row: int) -> str:
        """The id with that of the conversation."""
        return "/".join(filter(None, [self.conversations[row], self.ids[row]]))

    def by_conversation(self) -> list[int]:
        """Rows with each conversation together, in the order of its first utterance."""
        first: dict[str, int] = {}
        places = [first.setdefault(each or f"\0{row}", row) for row, each in enumerate(self.conversations)]
        return sorted(range(len(places)), key=places.__getitem__)


def _columns(path: Path, faults: Faults, asked: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of a table of labels, those alone that are looked at where the table allows it; labels that
    are `asked` for are further ones.
    """
    if path.suffix.lower() not in (".npz", *_PICKLES):
        names = _checked_names(path, column_names(path), asked)
        wanted = {*_LABEL, *_FACTS}
        note_open_end(path, faults)
        return read_columns(path, [name for name in names if name.lower() in wanted or name in asked])
    is_pickle = path.suffix.lower() in _PICKLES
    columns = pickled_table(path, faults) if is_pickle else npz_table(path, faults) or _npz_columns(path)
    _checked_names(path, list(columns), asked)
    return columns


def _checked_names(path: Path, names: Sequence[str], asked: Sequence[str]) -> Sequence[str]:
    """The names of the columns, among which there must be the ids, and the labels that are asked for."""
    lower = {name.lower() for name in names}
    if not lower & set(_ID):
        raise DataError(f"{path}: expected a column {_ID[0]!r} of the utterances, found {list(names)[:20]}")
    labels = [name for name in names if name.lower() not in _FACTS]
    for name in asked:
        if name not in labels:
            raise UnknownLabelError(f"{path}: label {name!r}: expected one of the columns {labels[:20]}")
    return names


def _npz_columns(path: Path) -> dict[str, list[Any]]:
    """The arrays of one dimension of an `.npz` file."""
    columns: dict[str, list[Any]] = {}
    for key in npz_keys(path):
        array = open_npz(path, key)
        if array.ndim == 1:
            try:
                columns[key] = [cell.decode() if isinstance(cell, bytes) else cell for cell in array.tolist()]
            except (UnicodeDecodeError, ValueError) as error:
                raise DataError(
                    f"{path}: array {key!r}: expected text in UTF-8: {one_line(error)}"
                ) from error
    return columns


def _column(columns: Mapping[str, list[Any]], names: Sequence[str]) -> list[Any] | None:
    known = {name.lower(): name for name in columns}
    return next((columns[known[name]] for name in names if name in known), None)


def _task(path: Path, labels: Sequence[Any]) -> tuple[Task, list[Any] | None]:
    """Task of the labels, and the label of each utterance as the archive takes it."""
    named = [label for label in labels if not is_absent(label)]
    if any(as_number(label) is None for label in named):
        # Among words, "none" is one of them.
        classes = tuple(sorted({str(label) for label in named}))
        if len(classes) < 2:
            raise DataError(f"{path}: expected labels of at least two classes, found {classes[0]!r} alone")
        return Task(kind="classification", classes=classes), [
            None if is_absent(label) else str(label) for label in labels
        ]
    known = [label for label in labels if not is_missing(label)]
    if not known:
        return Task(kind="regression"), None
    numbers = [as_number(label) for label in known]
    written = [str(label) for label in known]
    highest = max(number for number in numbers if number is not None)
    if all(text.isdecimal() for text in written) and 1 <= highest < _MOST_CLASSES:
        classes = tuple(str(number) for number in range(int(highest) + 1))
        return Task(kind="classification", classes=classes), [
            None if is_missing(label) else int(label) for label in labels
        ]
    return Task(kind="regression"), [as_number(label) for label in labels]


def _roles(
    path: Path, table: _Table, options: Options, *, labelled: bool
) -> tuple[list[Role | None], list[str]]:
    """The split of each utterance, and notes about those without."""
    notes: list[str] = []
    by_column = options.folds is None and any(split is not None for split in table.splits)
    if by_column:
        known = split_roles(map(str, table.splits), f"{path}: split")
        roles = [known.get(str(split)) for split in table.splits]
        if not any(roles):
            raise DataError(f"{path}: split: expected train, valid or test, found {table.splits[0]!r}")
    else:
        samples = [*zip(table.ids, table.conversations, strict=True)]
        roles, notes, _ = roles_by_folds(samples, options.folds, path.parent, labelled=labelled)
    left = [row for row, role in enumerate(roles) if role is None]
    names = [str(table.splits[row]) for row in left if by_column and table.splits[row] is not None]
    return roles, [
        *left_out("utterances", len(left), table.name(left[0]) if left else "", roles, names),
        *notes,
    ]
