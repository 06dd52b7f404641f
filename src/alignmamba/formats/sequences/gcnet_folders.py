"""Feature folders as GCNet and MERBench keep them: one `.npy` per utterance in a folder per modality, and a
table of labels.

    corpus/
      labels.csv                   one row per utterance
      features/<feature name>/     or directly under corpus/
        <utterance>.npy            (width,) for one vector (the `-UTT` features), (time, width) for frames
        (`-FRA`) <utterance>/<frame>.npy    or a folder of frames (faces), in the order of their names

**Sources** are the folder, or each part by name: `labels=labels.csv text=features/deberta-FRA
audio=features/hubert-UTT`. In a folder the table is the one `.csv`, `.tsv`, `.parquet`, `.npz` or `.pkl`
whose name begins with "label", or else its only table; a folder of features is named by what its own name
says (text, audio, vision, or the models that MERBench takes features from), else by its name.

**The table** has the columns `id` (or `name`, `utterance`), `label` (or `emo`, `emotion`, `val`, `sentiment`;
the option `label` names another), and, optionally, `split` (or `set`, `mode`, `fold`; `folds.SPLIT_NAMES` are
understood) and `conversation` (or `dialogue`, `video`, `video_id`). An `.npz` of labels has arrays of these
names. Without a split the option `folds` shows it, by utterances or conversations. Labels in words are
classes in alphabetical order; whole numbers from 0 to at most 31 are numbered classes; other numbers are a
regression. A table without labels is of new utterances, all in test if nothing says their splits.

**Conversations** are the groups of the samples. They are kept in the ids as well, `conversation/utterance`,
and in the order: the utterances of one follow each other. Columns of labels that are not the one that is
predicted are kept as further labels.

The tables that GCNet and MERBench publish are pickles (`.pkl`, and `.npz` of Python objects); `label_tables`
reads them as data.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.contracts import ROLES, Role, Task
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError
from alignmamba.formats.folds import FoldOptions, folds_beside, left_out, roles_by_folds, split_roles
from alignmamba.formats.foreign import Faults, Foreign, refuse_shared_features
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

    Raises:
        DataError: If there is no table, or it is none.
    """
    table, folders = _parts([path])
    ids = _column(_columns(table, Faults(), ""), _ID) or []
    found = [table, *folds_beside(table.parent)]
    for folder in folders.values():
        for identity in ids:
            place = _place(folder, str(identity))
            if place is not None:
                found += sorted(place.glob("*.npy")) if place.is_dir() else [place]
    return found


def read(sources: Sequence[Path], options: Options) -> Foreign:
    """Open the folders of one corpus.

    Args:
        sources: The folder, or `NAME=FOLDER` for each modality and `labels=FILE`.
        options: ``label`` is the column of the labels; ``folds`` shows the splits where the table has none.

    Raises:
        DataError: If there is no table, it does not fit the folders, or a file is none.
    """
    table_path, folders = _parts(sources)
    faults = Faults()
    columns = _columns(table_path, faults, options.label)
    utterances = _utterances(table_path, columns, options)
    task, targets = _task(table_path, [utterance.label for utterance in utterances])
    further = _further_labels(columns, options.label)
    roles, notes = _roles(table_path, utterances, options, labelled=targets is not None)
    if targets is None:
        notes.insert(
            0,
            f"unlabelled: {table_path.name} has nothing in a column {' or '.join(_LABEL)}; the option label"
            " names another",
        )
    order = _by_conversation(utterances)
    rows_of = {role: [row for row in order if roles[row] == role] for role in ROLES}
    if not any(rows_of.values()):
        raise DataError(f"{table_path}: found no utterance in any split")
    homes = {role: [utterances[row].id for row in sorted(rows)] for role, rows in rows_of.items()}
    refuse_shared_features(homes, str(table_path))
    notes += _notes_on_folders(folders, utterances, table_path)
    conversations = {each.conversation for each in utterances if each.conversation}
    if conversations:
        notes.append(
            f"{len(conversations)} conversations: an id is conversation/utterance, and the utterances of a"
            " conversation follow each other."
        )

    def arrays(rows: Sequence[int]) -> SplitArrays:
        ids = [utterances[row].id for row in rows]
        return SplitArrays(
            features={name: _features(folder, ids) for name, folder in folders.items()},
            targets=None if targets is None else [targets[row] for row in rows],
            ids=[utterances[row].name for row in rows],
            groups=[utterances[row].conversation or None for row in rows],
            labels={name: [cells[row] for row in rows] for name, cells in further.items()},
        )

    return Foreign(
        format=FORMAT,
        name=table_path.parent.name or "gcnet",
        task=task,
        splits={role: arrays(rows) for role, rows in rows_of.items() if rows},
        units={name: f"features {folder.name}" for name, folder in folders.items()},
        vocabulary_sizes={},
        source=f"{table_path.name} with " + ", ".join(folder.name for folder in folders.values()),
        faults=faults,
        notes=tuple(notes),
    )


def _notes_on_folders(
    folders: Mapping[str, Path], utterances: Sequence["_Utterance"], table: Path
) -> Iterator[str]:
    """Note on features that are of no utterance.

    Raises:
        DataError: If a folder has those of none.
    """
    for name, folder in folders.items():
        if not any(_place(folder, utterance.id) is not None for utterance in utterances):
            raise DataError(
                f"{folder}: found no features of the {len(utterances)} utterances of {table}, the"
                f" first is {utterances[0].id!r}"
            )
        if others := _others(folder, {utterance.id for utterance in utterances}):
            yield (
                f"{len(others)} entries of {folder.name} ({name}) are of no utterance and were dropped,"
                f" {others[0]!r} first."
            )


# Folders


def _parts(sources: Sequence[Path]) -> tuple[Path, dict[str, Path]]:
    """The table and the folder of each modality."""
    table: Path | None = None
    named: dict[str, Path] = {}
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
            raise DataError(
                f"{source}: expected a folder, or NAME=FOLDER, found"
                f" {'a file' if source.exists() else 'nothing'}"
            )
    if table is None:
        raise DataError(
            f"{', '.join(map(str, sources))}: expected a table of labels, found none; give labels=FILE"
        )
    if not named:
        raise DataError(f"{', '.join(map(str, sources))}: expected folders of .npy files, found none")
    for name, folder in named.items():
        if not folder.is_dir():
            raise DataError(
                f"{name}={folder}: expected a folder, found {'a file' if folder.exists() else 'nothing'}"
            )
    return table, named


def _tables(folder: Path) -> list[Path]:
    """The tables of labels in a folder: those that are called so, or all."""
    kinds = (".csv", ".tsv", ".parquet", ".npz", *_PICKLES)
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds and path.is_file())
    called = [path for path in found if path.name.lower().startswith("label")]
    return called or found


def _feature_folders(folder: Path) -> Iterator[Path]:
    """Folders that hold `.npy` files, or folders of them."""
    inner = folder / "features"
    for path in sorted((inner if inner.is_dir() else folder).iterdir()):
        if path.is_dir() and (
            any(True for _ in path.glob("*.npy")) or any(True for _ in path.glob("*/*.npy"))
        ):
            yield path


def _place(folder: Path, identity: str) -> Path | None:
    """Path of the features of an utterance; `None` where it has none."""
    if "\0" in identity or ".." in Path(identity).parts or Path(identity).is_absolute():
        raise DataError(f"{folder}: utterance {identity!r}: expected a name that stays in the folder")
    for path in (folder / f"{identity}.npy", folder / identity):
        try:
            if path.exists() or path.is_symlink():
                return path
        except OSError as error:
            raise DataError(f"{folder}: utterance {identity[:80]!r}: {one_line(error)}") from error
    return None


def _others(folder: Path, ids: Collection[str]) -> list[str]:
    """Names of features in a folder that are of no utterance; utterances may lie in folders of its own."""
    within = {part.as_posix() for identity in ids for part in Path(identity).parents}
    found = (path.name for path in folder.iterdir() if path.suffix == ".npy" or path.is_dir())
    return sorted(
        name
        for name in found
        if name not in within and name not in ids and name.removesuffix(".npy") not in ids
    )


def _features(folder: Path, ids: Sequence[str]) -> LazyRows:
    return LazyRows(len(ids), lambda row: _read(folder, ids[row]))


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
class _Utterance:
    """One row."""

    id: str
    label: Any
    conversation: str
    split: Any

    @property
    def name(self) -> str:
        return f"{self.conversation}/{self.id}" if self.conversation else self.id


def _columns(path: Path, faults: Faults, label: str) -> dict[str, list[Any]]:
    """The columns of a table of labels, those alone that are looked at where the table allows it; `label` is
    a further one.
    """
    if path.suffix.lower() not in (".npz", *_PICKLES):
        names = _checked_names(path, column_names(path), label)
        wanted = {*_ID, *_LABEL, *_SPLIT, *_CONVERSATION}
        note_open_end(path, faults)
        return read_columns(path, [name for name in names if name.lower() in wanted or name == label])
    columns = (
        pickled_table(path, faults)
        if path.suffix.lower() in _PICKLES
        else npz_table(path, faults) or _npz_columns(path)
    )
    _checked_names(path, list(columns), label)
    return columns


def _checked_names(path: Path, names: Sequence[str], label: str) -> Sequence[str]:
    """The names of the columns, among which there must be the ids, and the label that was asked for."""
    lower = {name.lower() for name in names}
    if not lower & set(_ID):
        raise DataError(f"{path}: expected a column {_ID[0]!r} of the utterances, found {list(names)[:20]}")
    if label and label not in names:
        raise DataError(f"{path}: label {label!r}: expected one of the columns {list(names)[:20]}")
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


def _utterances(path: Path, columns: Mapping[str, list[Any]], options: Options) -> list[_Utterance]:
    ids = _column(columns, _ID) or []
    empty = [None] * len(ids)
    labels = columns[options.label] if options.label else (_column(columns, _LABEL) or empty)
    splits = _column(columns, _SPLIT) or empty
    conversations = _column(columns, _CONVERSATION) or empty
    if not ids or not len(ids) == len(labels) == len(splits) == len(conversations):
        found = [len(ids), len(labels), len(splits), len(conversations)]
        raise DataError(
            f"{path}: expected columns of one length above 0, found {found} for id, label, split and"
            " conversation"
        )
    for row, identity in enumerate(ids, start=1):
        if identity is None or identity == "":
            raise DataError(f"{path}: row {row}: expected the id of an utterance, found nothing")
    return [
        _Utterance(
            id=str(identity),
            label=label,
            split=split,
            conversation="" if is_missing(conversation) else str(conversation),
        )
        for identity, label, split, conversation in zip(ids, labels, splits, conversations, strict=True)
    ]


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


def _further_labels(columns: Mapping[str, list[Any]], label: str) -> dict[str, list[float | str | None]]:
    """The columns of labels that are not the one that is predicted, as numbers where all of it are
    numbers.
    """
    chosen = columns[label] if label else _column(columns, _LABEL)
    return {
        name: further_labels(cells)
        for name, cells in columns.items()
        if cells is not chosen and name.lower() in _LABEL
    }


def _roles(
    path: Path, utterances: Sequence[_Utterance], options: Options, *, labelled: bool
) -> tuple[list[Role | None], list[str]]:
    """The split of each utterance, and notes about those without."""
    notes: list[str] = []
    if options.folds is None and any(utterance.split is not None for utterance in utterances):
        known = split_roles((str(utterance.split) for utterance in utterances), f"{path}: split")
        roles = [known.get(str(utterance.split)) for utterance in utterances]
        if all(role is None for role in roles):
            raise DataError(f"{path}: split: expected train, valid or test, found {utterances[0].split!r}")
    else:
        samples = [(utterance.id, utterance.conversation) for utterance in utterances]
        roles, notes, _ = roles_by_folds(samples, options.folds, path.parent, labelled=labelled)
    left = [utterance for utterance, role in zip(utterances, roles, strict=True) if role is None]
    names = [
        str(utterance.split) for utterance in left if options.folds is None and utterance.split is not None
    ]
    return roles, [*left_out("utterances", len(left), left[0].name if left else "", roles, names), *notes]


def _by_conversation(utterances: Sequence[_Utterance]) -> list[int]:
    """Rows with each conversation together, in the order of its first utterance."""
    first: dict[str, int] = {}
    for row, utterance in enumerate(utterances):
        first.setdefault(utterance.conversation or f"\0{row}", row)
    return sorted(
        range(len(utterances)), key=lambda row: (first[utterances[row].conversation or f"\0{row}"], row)
    )
