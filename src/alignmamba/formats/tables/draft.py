"""A first description of a table or of arrays, guessed from the names of columns and from what is in them."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

from alignmamba.errors import DataError, listed
from alignmamba.files import replace_file
from alignmamba.formats.folds import SPLIT_NAMES
from alignmamba.formats.pickles.object_arrays import Ragged
from alignmamba.formats.plain_files import regular_file
from alignmamba.formats.tables.array_description import is_file
from alignmamba.formats.tables.foreign_tables import (
    ROW_NUMBER,
    as_number,
    first_rows,
    is_absent,
    is_parquet,
    is_table,
    label_number,
    read_columns,
)
from alignmamba.formats.tables.named_arrays import Arrays, Opened, is_hdf5
from alignmamba.formats.tables.text_tables import TableForm

_ROWS = 200
_MOST_CLASSES = 32
_MOST_LISTED = 12
_MOST_ARRAYS = 1000

_NAMES = {
    "id": "id ids sample_id clip_id utterance_id uid name clip utterance sample file filename segment key",
    "label": "label labels target targets y class emotion emo sentiment score rating annotation",
    "split": "split splits set mode partition subset fold",
    "text": "text texts transcript transcription sentence utterance said",
    "group": (
        "group groups speaker subject participant person video_id video dialogue_id dialogue conversation"
    ),
    "time": "time timestamp frametime seconds t",
}
"""Names of columns and arrays in lower case, the likeliest first."""
_KINDS = ("label", "split", "text", "group")
_PAIRS = (("video_id", "clip_id"), ("dialogue_id", "utterance_id"), ("video", "clip"))
_MEDIA = ".mp4 .avi .mov .mkv .webm .wav .mp3 .flac .ogg .m4a .jpg .jpeg .png .gif"
"""Endings of names of recordings and pictures."""
_SUFFIXES = (".npy", ".csv", ".tsv", ".parquet", ".npz", ".h5", ".hdf5")


def may_be_drafted(path: Path) -> bool:
    """Return whether a name is one of a table or of arrays."""
    return is_table(path) or path.suffix.lower() in (".npy", ".npz") or is_hdf5(path)


def refuse_undescribed(path: Path) -> None:
    """Refuse a table, arrays or a recording that are given where a corpus is expected, with the way to
    one.
    """
    if may_be_drafted(path) and path.suffix.lower() != ".txt" and path.is_file():  # most texts are no tables
        raise DataError(
            f"{path}: a table or arrays of your own are described by a TOML file (docs/arrays.md):"
            f" `alignmamba init {path}` writes one"
        )
    if path.suffix.lower() in _MEDIA.split() and path.is_file():
        raise DataError(
            f"{path}: sound and pictures are no features yet; `alignmamba extract` reads them into a corpus"
            " (docs/media.md)"
        )


def write_draft(path: Path, out: Path | None = None) -> Path:
    """Look at a table or at arrays and write a description of them.

    Args:
        path: The table or the arrays.
        out: The file to write; by default `corpus.toml` beside the other.

    Returns:
        The file that was written.

    Raises:
        DataError: If one cannot be read, or the other exists or lies where it cannot refer to it.
    """
    if not may_be_drafted(path):
        raise DataError(
            f"{path}: expected a table (.csv, .tsv, .txt, .parquet) or arrays (.npy, .npz, .h5), found"
            " another ending"
        )
    regular_file(path)
    out = path.parent / "corpus.toml" if out is None else out
    if out.exists() or out.is_symlink():
        raise DataError(f"{out}: exists already; --out names another file")
    if out.suffix.lower() != ".toml":
        raise DataError(f"{out}: expected a name that ends in .toml")
    try:
        name = path.resolve().relative_to(out.parent.resolve()).as_posix()
    except ValueError:
        raise DataError(f"{out}: expected a place in the folder of {path} or above it") from None
    content = (_of_table if is_table(path) else _of_arrays)(path, name)
    try:
        replace_file(out, content.encode())
    except UnicodeEncodeError as error:
        raise DataError(f"{path}: its name or one in it is not UTF-8, which TOML cannot hold") from error
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from error
    return out


def _composed(path: Path, name: str, parts: Mapping[str, Sequence[str]], modalities: Sequence[str]) -> str:
    """The whole description; `name` is the path as it stands in it."""
    head = [
        f"# A first description of {json.dumps(name)}: check each line. docs/arrays.md has all keys.",
        f"name = {_quoted(path.stem)}",
        '# source = "where the data is from"',
    ]
    titled = [[f"[{title}]", *lines] for title, lines in parts.items() if lines]
    return "\n\n".join("\n".join(lines) for lines in [head, *titled, modalities]) + "\n"


def _quoted(text: str) -> str:
    """A text as TOML has it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _several(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, names))}]"


def _line(key: str, value: str, example: str) -> str:
    """A key with its value, or as a comment with an example where there is none."""
    return f"{key} = {_quoted(value)}" if value else f'# {key} = "{example}"'


def _chosen(names: Sequence[str], kind: str, without: Sequence[str] = ()) -> str:
    """The likeliest column of a kind by its name; empty where there is none."""
    lower = {name.lower(): name for name in reversed(names) if name not in without}
    return next((lower[name] for name in _NAMES[kind].split() if name in lower), "")


def _modality_name(text: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", text)
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
    called = sorted(set(map(str, known)))
    if len(called) >= 2 and any(number is None or number != number for number in map(label_number, known)):
        return ['kind = "classification"', f"classes = {_several(called)}"]
    if called and None in map(label_number, known):
        named = _several([called[0], f"not {called[0]}"])
        return ['kind = "classification"', f"classes = {named}  # one is in the file: name the others"]
    numbers = _class_numbers(known)
    if len(numbers) >= 2:
        return [
            'kind = "classification"  # if the numbers are scores: "regression", without classes',
            f"classes = {_several(list(map(str, numbers)))}  # what the labels are called in the file",
        ]
    return ['kind = "regression"', "# range = [-3, 3]  # smallest and largest label"]


def _class_numbers(cells: Sequence[Any]) -> list[int]:
    """The numbers of classes that cells are; none where they may be something else."""
    numbers = set(map(label_number, cells))
    whole = [int(number) for number in numbers if number is not None and number.is_integer() and number >= 0]
    return sorted(whole) if len(whole) == len(numbers) <= _MOST_CLASSES else []


def _splits(cells: Sequence[Any] | None) -> list[str]:
    """Note for the case that no names, or other names than the usual ones, give the splits."""
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
    columns, headless = list(head), form.header is not True
    if not any(head.values()):
        raise DataError(f"{path}: expected a table with rows of numbers or text, found none")
    ids = [] if headless else _table_ids(path, head, form)
    first_is_class = headless and _class_numbers(head[columns[0]])
    label = columns[0] if first_is_class else _chosen(columns, "label", ids)
    split = _chosen(columns, "split", [*ids, label])
    text = _chosen([each for each in columns if _has_words(head[each])], "text", ids)
    group = _chosen(columns, "group", [label, split, text, *(ids if len(ids) == 1 else [])])
    id_line = f"id = {_several(ids) if len(ids) > 1 else _quoted(ids[0] if ids else ROW_NUMBER)}"
    unnamed = "" if ids else "  # the number of the row, for no column of ids was found"
    found = dict(zip(_KINDS, (label, split, text, group), strict=True))
    read = read_columns(path, [each for each in dict.fromkeys((label, split)) if each], form=form)
    used = {*ids, *found.values()}
    numeric = [each for each in columns if each not in used and each and _is_numeric(head[each])]
    modalities = _beside(path, name, ids, head)
    if not modalities and not numeric:
        raise DataError(
            f"{name}: found no columns of numbers and no folder with files named by its ids;"
            " docs/arrays.md describes features"
        )
    others = [each for each in columns if each not in numeric]
    few = len(numeric) <= _MOST_LISTED
    table = [f"table = {_quoted(name)}", *keys]
    parts = {
        "task": _task(read.get(label)),
        "samples": [*table, id_line + unnamed, *(_line(*each, "column") for each in found.items())],
        "splits": _splits(read.get(split)),
    }
    chosen = f"columns = {_several(numeric)}" if few else f"exclude = {_several(others)}  # all others"
    chosen += ", of which none may be a label" if not few else "  # none of them may be a label"
    features = ["[modalities.features]  # one vector for each row", *table, id_line, chosen]
    return _composed(path, name, parts, modalities or features)


def _form(path: Path) -> tuple[TableForm, list[str]]:
    """Layout of a table, and the lines that describe it."""
    if is_parquet(path):
        return TableForm(), []
    first = [column[0] for column in first_rows(path, 1, form=TableForm(header=False)).values()]
    if all(as_number(cell) is not None and not is_absent(cell) for cell in first):
        said = "header = false  # the columns are called 1, 2 and so on; or give their names in a list"
        return TableForm(header=False), [said]
    if len(first) > 1 and len(first_rows(path, 1)) == 1:
        return TableForm(separator=" "), ['separator = " "']
    return TableForm(), []


def _table_ids(path: Path, head: Mapping[str, Sequence[Any]], form: TableForm) -> list[str]:
    """The columns that together distinguish the rows."""
    lower = {name.lower(): name for name in head}
    for wanted in (*_PAIRS, *((name,) for name in _NAMES["id"].split())):
        names = [lower[name] for name in wanted if name in lower]
        if len(names) == len(wanted):
            rows = list(zip(*read_columns(path, names, form=form).values(), strict=True))
            if not any(None in row for row in rows) and len(set(rows)) == len(rows):
                return names
    return []


def _is_numeric(cells: Sequence[Any]) -> bool:
    return any(not is_absent(cell) for cell in cells) and all(as_number(cell) is not None for cell in cells)


def _has_words(cells: Sequence[Any]) -> bool:
    return any(isinstance(cell, str) and as_number(cell) is None for cell in cells)


def _beside(path: Path, name: str, ids: Sequence[str], head: Mapping[str, Sequence[Any]]) -> list[str]:
    """Files named by the ids in folders beside the table: a modality for each folder and ending."""
    if not ids:
        return []
    lines: list[str] = []
    places = [f"{{{each}}}" for each in ids] if len(ids) > 1 else ["{id}"]
    rows = [[str(cell) for cell in row] for row in zip(*(head[each] for each in ids), strict=True)]
    folders = [each for each in path.parent.iterdir() if each.is_dir() and not each.name.startswith(".")]
    forms = product(sorted(folders), "/_" if len(ids) > 1 else "/", _SUFFIXES)
    taken: Counter[str] = Counter()
    for folder, separator, suffix in forms:
        files = (folder / f"{separator.join(row)}{suffix}" for row in rows)
        found = next(filter(is_file, files), None)
        if found is None:
            continue
        plain = _modality_name(folder.name)
        taken[plain] += 1
        called = f"{plain}_{taken[plain]}" if taken[plain] > 1 else plain
        pattern = (PurePosixPath(name).parent / folder.name / f"{separator.join(places)}{suffix}").as_posix()
        if suffix == ".npz":
            pattern += f"#{next(iter(Arrays(found.parent).keys(found.name)), '')}"
        lines += [*([""] if lines else []), f"[modalities.{called}]", f"files = {_quoted(pattern)}"]
        lines += _of_clip(found) if is_table(found) else []
    return lines


def _of_clip(path: Path) -> list[str]:
    """Note on the table of one clip."""
    form, keys = _form(path)
    head = first_rows(path, _ROWS, form=form)
    time = _chosen(list(head), "time")
    others = [each for each in head if each != time and not _is_numeric(head[each])]
    timed = [f"time = {_quoted(time)}"] if time else []
    return [*keys, *timed, *([f"exclude = {_several(others)}"] if others else [])]


# Arrays


def _of_arrays(path: Path, name: str) -> str:
    arrays = Arrays(path.parent)
    keys = [""] if path.suffix.lower() == ".npy" else arrays.keys(path.name)
    if not keys or len(keys) > _MOST_ARRAYS:
        raise DataError(f"{path}: expected 1 to {_MOST_ARRAYS} arrays, found {len(keys)}")
    opened = {key: arrays.open(f"{path.name}#{key}" if key else path.name) for key in keys}
    flat: dict[str, str] = {}  # arrays of one axis by the last part of their names
    for key, array in opened.items():
        if not isinstance(array, Ragged) and array.ndim == 1:
            flat.setdefault(key.rpartition("/")[2], key)
    ids, *known = [flat.get(_chosen(list(flat), kind), "") for kind in ("id", *_KINDS)]
    given = dict(zip(_KINDS, known, strict=True))
    used = list(filter(None, [ids, *known]))
    axes = {key: 1 if isinstance(array, Ragged) else array.ndim for key, array in opened.items()}
    size = len(opened[used[0] if used else max(keys, key=axes.__getitem__)])
    samples = [_line("ids", f"{name}#{ids}" if ids else ROW_NUMBER, "")]
    samples[0] += "" if ids else "  # numbers, for no array of ids was found"
    samples += [
        _line(f"{kind}s", f"{name}#{key}" if key else "", f"{path.name}#array") for kind, key in given.items()
    ]

    def cells(key: str) -> list[Any] | None:
        return arrays.listed(str(path), f"{path.name}#{key}", kinds="USiufb") if key else None

    modalities: list[str] = []
    for key in opened:
        lines = [] if key in used else _array_lines(key, opened, size, name)
        if lines:
            called = _modality_name(key.rpartition("/")[2] or path.stem)
            modalities += [*([""] if modalities else []), f"[modalities.{called}]", *lines]
    if not modalities:
        others = [
            f"{len(each)} of {key!r}"
            for key, each in opened.items()
            if key not in used and (isinstance(each, Ragged) or each.ndim) and len(each) != size
        ]
        raise DataError(
            f"{path}: expected an array of numbers with {size} entries, one for each sample, found"
            f" {listed(others) or 'none'}"
        )
    task, splits = _task(cells(given["label"])), _splits(cells(given["split"]))
    parts = {"task": task, "samples": samples, "splits": splits}
    return _composed(path, name, parts, modalities)


def _array_lines(key: str, opened: Mapping[str, Opened], size: int, name: str) -> list[str]:
    """Lines that describe an array of values; empty for another array."""
    array = opened[key]
    lines = [f"values = {_quoted(f'{name}#{key}' if key else name)}"]
    if not isinstance(array, Ragged):
        if array.ndim not in (2, 3) or array.dtype.kind not in "fiu":
            return []
        lines[0] += f"  # {' x '.join(map(str, array.shape))}"
    endings = {"offsets": "offsets", "lengths": "lengths", "length": "lengths", "times": "times"}
    for ending, kind in endings.items():
        if f"{key}_{ending}" in opened and (kind == "times" or not isinstance(array, Ragged)):
            lines.append(f"{kind} = {_quoted(f'{name}#{key}_{ending}')}")
    whole = any(line.startswith(("offsets", "lengths")) for line in lines)
    return lines if len(array) == size or whole else []
