"""A first description of a table or of arrays, guessed from the names of columns and from what is in them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignmamba.errors import DataError
from alignmamba.files import replacing
from alignmamba.formats.folds import SPLIT_NAMES
from alignmamba.formats.pickles.object_arrays import Ragged
from alignmamba.formats.plain_files import regular_file
from alignmamba.formats.tables.foreign_tables import (
    ROW_NUMBER,
    TableForm,
    as_number,
    first_rows,
    is_absent,
    is_table,
    read_columns,
)
from alignmamba.formats.tables.named_arrays import Arrays, Opened, is_hdf5

_ROWS = 200
_MOST_CLASSES = 32
_MOST_LISTED = 12
_MOST_ARRAYS = 1000

_IDS = (
    "id",
    "sample_id",
    "clip_id",
    "utterance_id",
    "uid",
    "name",
    "clip",
    "utterance",
    "sample",
    "file",
    "filename",
    "segment",
    "key",
)
_PAIRS = (("video_id", "clip_id"), ("dialogue_id", "utterance_id"), ("video", "clip"))
_LABELS = (
    "label",
    "labels",
    "target",
    "targets",
    "y",
    "class",
    "emotion",
    "emo",
    "sentiment",
    "score",
    "rating",
    "annotation",
)
_SPLITS = ("split", "splits", "set", "mode", "partition", "subset", "fold")
_TEXTS = ("text", "texts", "transcript", "transcription", "sentence", "utterance", "said")
_GROUPS = (
    "group",
    "groups",
    "speaker",
    "subject",
    "participant",
    "person",
    "video_id",
    "video",
    "dialogue_id",
    "dialogue",
    "conversation",
)
_TIMES = ("time", "timestamp", "frametime", "seconds", "t")

_MEDIA = (
    ".mp4",
    ".avi",
    ".mov",
    ".mkv",
    ".webm",
    ".wav",
    ".mp3",
    ".flac",
    ".ogg",
    ".m4a",
    ".jpg",
    ".jpeg",
    ".png",
    ".gif",
)
"""Endings of names of recordings and pictures."""
_SUFFIXES = (".npy", ".csv", ".tsv", ".parquet", ".npz", ".h5", ".hdf5")


def may_be_drafted(path: Path) -> bool:
    """Whether a name is one of a table or of arrays."""
    return is_table(path) or path.suffix.lower() in (".npy", ".npz") or is_hdf5(path)


def refuse_undescribed(path: Path) -> None:
    """Refuse a table, arrays or a recording that are given where a corpus is expected.

    Raises:
        DataError: With the way to a corpus.
    """
    if may_be_drafted(path) and path.suffix.lower() != ".txt" and path.is_file():  # most texts are no tables
        raise DataError(
            f"{path}: a table or arrays of your own are described by a TOML file (docs/arrays.md):"
            f" `alignmamba init {path}` writes one"
        )
    if path.suffix.lower() in _MEDIA and path.is_file():
        raise DataError(
            f"{path}: sound and pictures are not read; make features of them first, and describe those"
            " (docs/arrays.md)"
        )


def write_draft(path: Path, out: Path | None = None) -> Path:
    """Look at a table or at arrays and write a description of them.

    Args:
        path: The table or the arrays.
        out: The file to write; by default `corpus.toml` beside the other.

    Returns:
        The file that was written.

    Raises:
        DataError: If the one cannot be read, or the other is there already or lies where it cannot refer to
            the first.
    """
    if not may_be_drafted(path):
        raise DataError(
            f"{path}: expected a table (.csv, .tsv, .txt, .parquet) or arrays (.npy, .npz, .h5), found"
            " another ending"
        )
    regular_file(path)
    out = path.parent / "corpus.toml" if out is None else out
    if out.exists() or out.is_symlink():
        raise DataError(f"{out}: exists already and is not replaced; --out names another file")
    if out.suffix.lower() != ".toml":
        raise DataError(f"{out}: expected a name that ends in .toml")
    try:
        name = path.resolve().relative_to(out.parent.resolve()).as_posix()
    except ValueError:
        raise DataError(
            f"{out}: expected a place in the folder of {path} or above it, for no path may leave the"
            " description's folder"
        ) from None
    content = (_of_table if is_table(path) else _of_arrays)(path, name)
    try:
        encoded = content.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: its name or one in it is not UTF-8, which TOML does not hold") from error
    try:
        with replacing(out) as file:
            file.write(encoded)
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from error
    return out


@dataclass(kw_only=True)
class _Draft:
    """The parts of a description, each a list of lines."""

    name: str
    file: str
    task: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    modalities: list[str] = field(default_factory=list)

    def text(self) -> str:
        head = [
            (
                f"# A first description of {json.dumps(self.file)}: check each line. docs/arrays.md has all"
                " keys."
            ),
            f"name = {_quoted(self.name)}",
            '# source = "where the data is from"',
        ]
        parts = [head, ["[task]", *self.task], ["[samples]", *self.samples]]
        parts += [["[splits]", *self.splits]] if self.splits else []
        return "\n\n".join("\n".join(part) for part in [*parts, self.modalities]) + "\n"


def _quoted(text: str) -> str:
    """A text as TOML has it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _several(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, names))}]"


def _chosen(names: Sequence[str], wanted: Sequence[str], without: Sequence[str] = ()) -> str:
    """The column whose name is the first of those wanted; empty where there is none."""
    lower = {name.lower(): name for name in reversed(names) if name not in without}
    return next((lower[name] for name in wanted if name in lower), "")


def _modality_name(text: str) -> str:
    plain = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "_" for letter in text
    )
    return (plain if plain[:1].isalpha() else f"m{plain}")[:64]


# What a task and the splits are


def _task(cells: Sequence[Any] | None) -> list[str]:
    """Classification where labels are words or a few whole numbers, else regression."""
    if cells is None:
        return [
            'kind = "regression"  # no column of labels was found',
            '# kind = "classification"',
            '# classes = ["no", "yes"]',
        ]
    known = [cell for cell in cells if not is_absent(cell)]
    numbers = [float(cell) if isinstance(cell, bool) else as_number(cell) for cell in known]
    words = any(number is None or number != number for number in numbers)
    called = sorted({str(cell) for cell in known})
    if words and len(called) >= 2:
        return ['kind = "classification"', f"classes = {_several(called)}"]
    distinct = {number for number in numbers if number is not None}
    if 2 <= len(distinct) <= _MOST_CLASSES and all(
        number.is_integer() and number >= 0 for number in distinct
    ):
        classes = [str(int(number)) for number in sorted(distinct)]
        return [
            'kind = "classification"  # if the numbers are scores: "regression", without classes',
            f"classes = {_several(classes)}  # what the labels are called in the file",
        ]
    return ['kind = "regression"', "# range = [-3, 3]  # smallest and largest label"]


def _splits(cells: Sequence[Any] | None) -> list[str]:
    """What is to be said where nothing, or other names than the usual ones, tell the splits."""
    if cells is None:
        return [
            'train = "*"  # all samples; `train --split-valid 0.15` takes a part of them',
            '# test = "test.txt"  # one id a line',
        ]
    names = sorted({str(cell) for cell in cells if not is_absent(cell)})
    if any(SPLIT_NAMES.get(name.strip().lower()) for name in names):
        return []
    return [f"train = {_several(names[:100])}  # what the split is called in the file", '# test = ["..."]']


# Tables


def _of_table(path: Path, name: str) -> str:
    form, keys = _form(path)
    head = first_rows(path, _ROWS, form=form)
    columns = list(head)
    if not columns or not any(head.values()):
        raise DataError(f"{path}: expected a table with rows of numbers or text, found none")
    draft = _Draft(name=path.stem, file=name, samples=[f"table = {_quoted(name)}", *keys])
    headless = form.header is not True
    ids = [] if headless else _table_ids(path, head, form)
    label = columns[0] if headless and _is_class(head[columns[0]]) else _chosen(columns, _LABELS, ids)
    split = _chosen(columns, _SPLITS, [*ids, label])
    text = next(
        (each for each in columns if each.lower() in _TEXTS and each not in ids and _has_words(head[each])),
        "",
    )
    group = _chosen(columns, _GROUPS, [label, split, text, *([] if len(ids) > 1 else ids)])
    draft.samples.append(f"id = {_several(ids) if len(ids) > 1 else _quoted(ids[0] if ids else ROW_NUMBER)}")
    if not ids:
        draft.samples[-1] += "  # the number of the row, for no column of ids was found"
    for key, column in {"label": label, "split": split, "text": text, "group": group}.items():
        draft.samples.append(f"{key} = {_quoted(column)}" if column else f'# {key} = "column"')
    read = read_columns(path, [each for each in dict.fromkeys((label, split)) if each], form=form)
    draft.task, draft.splits = _task(read.get(label)), _splits(read.get(split))
    used = {*ids, label, split, text, group}
    numeric = [each for each in columns if each not in used and each and _is_numeric(head[each])]
    draft.modalities = _beside(path, name, ids, head) or _in_table(
        name, keys, ids, numeric, [each for each in columns if each not in numeric]
    )
    return draft.text()


def _form(path: Path) -> tuple[TableForm, list[str]]:
    """How a table is laid out, and the lines that say it."""
    if path.suffix.lower() == ".parquet":
        return TableForm(), []
    cells = list(first_rows(path, 1, form=TableForm(header=False)))
    first = [column[0] for column in first_rows(path, 1, form=TableForm(header=False)).values()]
    if all(as_number(cell) is not None and not is_absent(cell) for cell in first):
        return TableForm(header=False), [
            "header = false  # the columns are called 1, 2 and so on; or give their names in a list"
        ]
    spaced = TableForm(separator=" ")
    if len(cells) > 1 and len(first_rows(path, 1)) == 1:
        return spaced, ['separator = " "']
    return TableForm(), []


def _table_ids(path: Path, head: Mapping[str, Sequence[Any]], form: TableForm) -> list[str]:
    """The columns that together tell the rows apart."""
    lower = {name.lower(): name for name in head}
    candidates = [[lower[one], lower[other]] for one, other in _PAIRS if one in lower and other in lower]
    candidates += [[lower[name]] for name in _IDS if name in lower]
    for names in candidates:
        cells = read_columns(path, names, form=form)
        rows = list(zip(*(cells[name] for name in names), strict=True))
        if all(cell is not None for row in rows for cell in row) and len(set(rows)) == len(rows):
            return names
    return []


def _is_class(cells: Sequence[Any]) -> bool:
    numbers = [as_number(cell) for cell in cells]
    return (
        all(number is not None and number.is_integer() and number >= 0 for number in numbers)
        and len(set(numbers)) <= _MOST_CLASSES
    )


def _is_numeric(cells: Sequence[Any]) -> bool:
    return any(not is_absent(cell) for cell in cells) and all(as_number(cell) is not None for cell in cells)


def _has_words(cells: Sequence[Any]) -> bool:
    return any(isinstance(cell, str) and as_number(cell) is None for cell in cells)


def _in_table(
    name: str, keys: Sequence[str], ids: Sequence[str], numeric: Sequence[str], others: Sequence[str]
) -> list[str]:
    """The columns of numbers of the table itself: one vector for each sample."""
    if not numeric:
        raise DataError(
            f"{name}: no column of numbers is left for features, and no folder beside it has files named by"
            " its ids; docs/arrays.md says how features are described"
        )
    chosen = (
        f"columns = {_several(numeric)}"
        if len(numeric) <= _MOST_LISTED
        else f"exclude = {_several(others)}  # all others"
    )
    return [
        "[modalities.features]  # one vector for each row",
        f"table = {_quoted(name)}",
        *keys,
        f"id = {_several(ids) if len(ids) > 1 else _quoted(ids[0] if ids else ROW_NUMBER)}",
        chosen,
    ]


def _beside(path: Path, name: str, ids: Sequence[str], head: Mapping[str, Sequence[Any]]) -> list[str]:
    """Files named by the ids in folders beside the table: a modality for each folder and ending."""
    if not ids:
        return []
    lines: list[str] = []
    prefix = "" if "/" not in name else name.rpartition("/")[0] + "/"
    stems = [f"{{{each}}}" if len(ids) > 1 else "{id}" for each in ids]
    rows = list(zip(*(head[each] for each in ids), strict=True))
    for folder in sorted(
        each for each in path.parent.iterdir() if each.is_dir() and not each.name.startswith(".")
    ):
        for separator in dict.fromkeys(("/", "_")) if len(ids) > 1 else ("/",):
            for suffix in _SUFFIXES:
                found = next(
                    (row for row in rows if _is_there(folder / (separator.join(map(str, row)) + suffix))),
                    None,
                )
                if found is None:
                    continue
                pattern = f"{prefix}{folder.name}/{separator.join(stems)}{suffix}"
                taken = sum(f"[modalities.{_modality_name(folder.name)}" in line for line in lines)
                called = _modality_name(folder.name) + (f"_{taken + 1}" if taken else "")
                lines += [*([""] if lines else []), f"[modalities.{called}]", f"files = {_quoted(pattern)}"]
                if suffix in (".csv", ".tsv", ".parquet"):
                    lines += _of_clip(folder / (separator.join(map(str, found)) + suffix))
                if suffix == ".npz":
                    key = next(iter(Arrays(folder).keys(separator.join(map(str, found)) + suffix)), "")
                    lines[-1] = f"files = {_quoted(f'{pattern}#{key}')}"
    return lines


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # an id that is no name of a file
        return False


def _of_clip(path: Path) -> list[str]:
    """What is to be said of the table of one clip."""
    form, keys = _form(path)
    head = first_rows(path, _ROWS, form=form)
    time = _chosen(list(head), _TIMES)
    others = [each for each in head if each != time and not _is_numeric(head[each])]
    return [
        *keys,
        *([f"time = {_quoted(time)}"] if time else []),
        *([f"exclude = {_several(others)}"] if others else []),
    ]


# Arrays


def _of_arrays(path: Path, name: str) -> str:
    arrays = Arrays(path.parent)
    keys = [""] if path.suffix.lower() == ".npy" else arrays.keys(path.name)
    if not keys or len(keys) > _MOST_ARRAYS:
        raise DataError(f"{path}: expected 1 to {_MOST_ARRAYS} arrays, found {len(keys)}")
    opened = {key: arrays.open(f"{path.name}#{key}" if key else path.name) for key in keys}
    flat = [key for key, array in opened.items() if not isinstance(array, Ragged) and array.ndim == 1]
    leaf = {key: key.rpartition("/")[2] for key in keys}
    ids = _key(flat, leaf, ("ids", *_IDS))
    given = {
        "labels": _key(flat, leaf, _LABELS),
        "splits": _key(flat, leaf, _SPLITS),
        "texts": _key(flat, leaf, _TEXTS),
        "groups": _key(flat, leaf, _GROUPS),
    }
    size = len(
        opened[next(filter(None, [ids, *given.values()]), max(keys, key=lambda key: _axes(opened[key])))]
    )
    draft = _Draft(name=path.stem, file=name)

    def called(key: str) -> str:
        return _quoted(f"{name}#{key}" if key else name)

    def cells(key: str) -> list[Any] | None:
        return arrays.listed(str(path), f"{path.name}#{key}", kinds="USiufb") if key else None

    draft.samples.append(
        f"ids = {called(ids)}"
        if ids
        else f"ids = {_quoted(ROW_NUMBER)}  # numbers, for no array of ids was found"
    )
    draft.samples += [
        f"{kind} = {called(key)}" if key else f'# {kind} = "{path.name}#array"' for kind, key in given.items()
    ]
    draft.task, draft.splits = _task(cells(given["labels"])), _splits(cells(given["splits"]))
    for key, array in opened.items():
        if key in filter(None, (ids, *given.values())) or not (
            isinstance(array, Ragged) or array.dtype.kind in "fiu"
        ):
            continue
        lines = _array_lines(key, array, opened, size, called)
        if lines:
            draft.modalities += [
                *([""] if draft.modalities else []),
                f"[modalities.{_modality_name(leaf[key] or path.stem)}]",
                *lines,
            ]
    if not draft.modalities:
        raise DataError(
            f"{path}: expected an array of numbers with {size} entries, one for each sample, found none"
        )
    return draft.text()


def _axes(array: Opened) -> int:
    return 1 if isinstance(array, Ragged) else array.ndim


def _key(keys: Sequence[str], leaf: Mapping[str, str], wanted: Sequence[str]) -> str:
    return next((key for name in wanted for key in keys if leaf[key].lower() == name), "")


def _array_lines(key: str, array: Opened, opened: Mapping[str, Opened], size: int, called: Any) -> list[str]:
    """What describes an array of values; nothing where it is none."""
    lines = [f"values = {called(key)}"]
    if not isinstance(array, Ragged):
        if array.ndim not in (2, 3):
            return []
        lines[0] += f"  # {' x '.join(map(str, array.shape))}"
    for ending, kind in (
        ("offsets", "offsets"),
        ("lengths", "lengths"),
        ("length", "lengths"),
        ("times", "times"),
    ):
        other = f"{key}_{ending}"
        if other in opened and not (kind != "times" and isinstance(array, Ragged)):
            lines.append(f"{kind} = {called(other)}")
    whole = any(line.startswith(("offsets", "lengths")) for line in lines)
    return lines if len(array) == size or whole else []
