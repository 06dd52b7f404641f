"""A corpus as the pickle that MMSA trains on."""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from alignmamba.contracts import Corpus, ModalitySpec, Role, Sample, Split, Task
from alignmamba.data.storage import check_path
from alignmamba.errors import DataError, shown
from alignmamba.files import replacing
from alignmamba.formats.exporting.mmsa_layout import (
    CLASSES,
    EXTRAS,
    LABELS,
    SCORES,
    SENTIMENTS,
    MmsaExtras,
    display_words,
    spoken,
    video_of,
)

_FIELDS = ("text", "audio", "vision")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A corpus that was written for another program."""

    samples: Mapping[Role, int]
    """Number of samples by split."""
    notes: tuple[str, ...]
    """Plain sentences about what the layout cannot hold."""


def export_mmsa(
    corpus: Corpus, path: str | Path, *, modalities: Mapping[str, str] = {}, overwrite: bool = False
) -> Exported:
    """Write a corpus as an unaligned MMSA pickle, of which `convert` makes the same corpus again.

    Every split becomes a dict of ``text``, ``audio`` and ``vision``, zero-padded at the end to the longest
    clip of the corpus, with ``audio_lengths`` and ``vision_lengths``; ``text_bert``, whose attention mask
    says how long the text is and whose ids are those of a text of token ids, else 0; ``raw_text``, the
    samples' texts, or else the display tokens of the text; ``id``; targets, as ``regression_labels`` or, of
    classes, as ``annotations``; and the samples' other labels, in place of which ``annotations`` and
    ``classification_labels`` are made of the target. What MMSA has no place for lies beside the splits
    (`MmsaExtras`). Samples are read and written one by one. The file is complete or not there.

    Args:
        corpus: A corpus in which every sample has a target.
        path: The file to make.
        modalities: Which modality of the corpus stands for ``text``, ``audio`` or ``vision``; by default the
            one of that name.
        overwrite: Replace the file that is there.

    Raises:
        DataError: If the corpus lacks a modality or targets, or the file cannot be written.

    Source:
        MMSA 2.2.1, `data_loader.py`, https://github.com/thuiar/MMSA
    """
    target = Path(path)
    check_path(target)
    if target.exists() and not target.is_file():
        raise DataError(f"{target}: expected a file to replace, found a directory")
    if target.exists() and not overwrite:
        raise DataError(f"{target}: exists already; overwrite=True (--overwrite) replaces a file")
    if corpus.task.kind in ("multilabel", "ordinal"):
        raise DataError(
            f"corpus {corpus.name!r}: task: found {corpus.task.kind}, expected a regression or a"
            " classification, as MMSA has one number or one class for each clip"
        )
    chosen = _chosen(corpus, modalities)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        facts = {role: _facts(corpus, role, chosen["text"]) for role in corpus.splits}
        with replacing(target) as file:
            file.write(b"\x80\x04")
            _write(file, _content(corpus, facts, chosen))
            file.write(b".")
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
    others = [spec.name for spec in corpus.modalities if spec not in chosen.values()]
    notes = [f"modalities dropped: {', '.join(others)}"] if others else []
    notes += [f"{what} dropped" for what in sorted(set().union(*(each.dropped for each in facts.values())))]
    if chosen["text"].kind == "features":
        notes.append(
            "text_bert holds the attention mask alone, for models that read features (use_bert false)"
        )
    if any(SCORES[0] not in each.columns for each in facts.values()):
        notes.append("MMSA needs regression_labels to train, and the corpus has no such labels")
    return Exported(samples={role: len(split) for role, split in corpus.splits.items()}, notes=tuple(notes))


def _chosen(corpus: Corpus, modalities: Mapping[str, str]) -> dict[str, ModalitySpec]:
    if unknown := [place for place in modalities if place not in _FIELDS]:
        raise DataError(f"modalities: expected {', '.join(_FIELDS)}, found {unknown[0]!r}")
    specs = {spec.name: spec for spec in corpus.modalities}
    chosen: dict[str, ModalitySpec] = {}
    for place in _FIELDS:
        name = modalities.get(place, place)
        if name not in specs:
            raise DataError(
                f"corpus {corpus.name!r}: no modality {name!r} to write as {place!r}; choose one of"
                f" {list(specs)}"
            )
        if specs[name].kind == "tokens" and place != "text":
            raise DataError(
                f"corpus {corpus.name!r}: modality {name!r}: expected features for {place}, found token ids"
            )
        chosen[place] = specs[name]
    return chosen


class _Facts(NamedTuple):
    """Texts of a split, its labels by field of MMSA, what has a place in `MmsaExtras` alone, and in none."""

    texts: Sequence[str]
    columns: Mapping[str, Sequence[Any]]
    extras: Mapping[str, Any]
    dropped: set[str]


def _facts(corpus: Corpus, role: Role, text: ModalitySpec) -> _Facts:
    """Read a split through."""
    split, dropped = corpus.splits[role], set()
    samples: list[tuple[Any, Mapping[str, Any], str | None, str, Sequence[str]]] = []
    for sample in split:
        where = f"corpus {corpus.name!r}, split {role!r}, sample {sample.id!r}"
        dropped |= _without_place(sample, text.name, where)
        words = sample.tokens.get(text.name, ())
        samples.append((sample.target, sample.labels, sample.group, sample.text or "", words))
    targets, labelled, groups, texts, tokens = zip(*samples, strict=True)
    if all(target is None for target in targets):
        first = split.ids[0]
        raise DataError(f"corpus {corpus.name!r}, split {role!r}, sample {first!r}: has no target")
    columns, derived, order = _columns(corpus.task, targets, labelled)
    dropped |= {f"label {name}" for labels in labelled for name in labels if name not in order}
    if not any(texts):
        derived = ["raw_text", *derived]
        texts = tuple(map(spoken, tokens))
    spelled = {
        identity: own
        for identity, own, said, length in zip(
            split.ids, tokens, texts, split.lengths[text.name], strict=True
        )
        if list(own) != (display_words(said, int(length), framed=True) or [])
    }
    videos = tuple(video_of(identity) for identity in split.ids)
    ungrouped = groups.count(None) == len(groups) and any(videos)
    if groups != videos and not ungrouped:
        dropped.add("groups other than the video of an id")
    is_usual = order == [name for name in LABELS if name in order]
    labels = [] if is_usual else order
    extras = {"derived": derived, "tokens": spelled, "labels": labels, "ungrouped": ungrouped}
    return _Facts(texts, columns, extras, dropped)


def _without_place(sample: Sample, text: str, where: str) -> set[str]:
    """Parts of a sample that are not written; one that cannot be written is refused."""
    for name, label in sample.labels.items():
        if type(label) is int and not -(2**63) <= label < 2**63:
            raise DataError(
                f"{where}: label {name!r}: expected a whole number that 64 bits hold, found {shown(label)}"
            )
    lacking = {
        "times": bool(sample.times),
        "labels of tokens": bool(sample.token_labels),
        "empty labels": "" in sample.labels.values(),
        "empty texts": sample.text == "",
        **{f"display tokens of {name}": True for name in sample.tokens if name != text},
    }
    return {what for what, is_there in lacking.items() if is_there}


def _columns(
    task: Task, targets: Sequence[float | int | None], labelled: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Sequence[Any]], list[str], list[str]]:
    """The labels by field, those fields that are made of the target, and the others in their order."""
    own = CLASSES[0] if task.classes else SCORES[0]
    order = [name for name in _in_order(labelled) if name in LABELS and name != own]
    columns: dict[str, Sequence[Any]] = {name: [labels.get(name) for labels in labelled] for name in order}
    derived = [name for name in CLASSES if name not in columns and name != own]
    places = [
        None if target is None else int(target) if task.classes else int(np.sign(target)) + 1
        for target in targets
    ]
    names = [None if place is None else (task.classes or SENTIMENTS)[place] for place in places]
    columns = {CLASSES[0]: names, CLASSES[1]: places, **columns}
    if not task.classes:
        columns[SCORES[0]] = [None if target is None else float(target) for target in targets]
    return columns, derived, order


def _in_order(labelled: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the labels in the order of MMSA if every sample has them so, else in that of the samples,
    those with most labels first.
    """
    fullest = sorted(labelled, key=len, reverse=True)
    names = list(dict.fromkeys(name for labels in fullest for name in labels))
    usual = sorted(names, key=lambda name: LABELS.index(name) if name in LABELS else len(LABELS))
    is_usual = all(list(labels) == [name for name in usual if name in labels] for labels in labelled)
    return usual if is_usual else names


def _content(
    corpus: Corpus, facts: Mapping[Role, _Facts], chosen: Mapping[str, ModalitySpec]
) -> dict[str, Any]:
    """The whole file."""
    longest = {
        place: max(1, *(int(split.lengths[spec.name].max(initial=0)) for split in corpus.splits.values()))
        for place, spec in chosen.items()
    }
    # All splits have the same fields.
    labels = [name for name in (*CLASSES, *SCORES) if any(name in each.columns for each in facts.values())]
    content: dict[str, Any] = {}
    for role, split in corpus.splits.items():
        content[role] = {"raw_text": facts[role].texts, "id": split.ids, **_arrays(split, chosen, longest)}
        for name in labels:
            content[role][name] = _column(facts[role].columns.get(name, [None] * len(split)))
    text, task = chosen["text"], corpus.task
    by_role = {
        name: {role: each.extras[name] for role, each in facts.items() if each.extras[name]}
        for name in ("derived", "tokens", "labels", "ungrouped")
    }
    extras = MmsaExtras(
        label_range=task.label_range,
        sentiment=task.sentiment,
        classes=task.classes,
        units={place: spec.units for place, spec in chosen.items() if spec.units},
        vocabulary_size=text.dim if text.kind == "tokens" else None,
        **{**by_role, "ungrouped": tuple(by_role["ungrouped"])},
    )
    return {**content, EXTRAS: extras.model_dump(mode="json")}


@dataclass(frozen=True)
class _Array:
    """An array that is written row by row: `rows` together hold its content in row-major order."""

    shape: tuple[int, ...]
    kind: str
    rows: Iterable[np.ndarray]


def _arrays(
    split: Split, chosen: Mapping[str, ModalitySpec], longest: Mapping[str, int]
) -> dict[str, _Array]:
    """The modalities of a split, zero-padded, and their lengths."""
    size, text = len(split), chosen["text"]

    def padded(place: str, name: str, width: int) -> Iterator[np.ndarray]:
        for sample in split:
            row = np.zeros((longest[place], width), np.float32)
            content = sample.features.get(name, row[:0])
            row[: len(content)] = content
            yield row

    def text_bert() -> Iterator[np.ndarray]:
        for sample, length in zip(split, split.lengths[text.name], strict=True):
            row = np.zeros((3, longest["text"]), np.int64)
            row[1, :length] = 1
            if text.kind == "tokens" and length:
                row[0, :length] = sample.features[text.name][:, 0]
            yield row

    arrays = {"text_bert": _Array((size, 3, longest["text"]), "i8", text_bert())}
    for place, spec in chosen.items():
        if spec.kind == "features":
            rows = padded(place, spec.name, spec.width)
            arrays[place] = _Array((size, longest[place], spec.width), "f4", rows)
        if place != "text":
            arrays[f"{place}_lengths"] = _Array((size,), "i8", [split.lengths[spec.name]])
    return arrays


def _column(column: Sequence[Any]) -> _Array | list[Any]:
    """A column of labels as MMSA has it: an array of numbers, with NaN where there is none, or a list of
    texts, empty where there is none.
    """
    if all(type(label) is int for label in column):
        return _Array((len(column),), "i8", [np.array(column)])
    if all(label is None or type(label) is float for label in column):
        found = np.array([math.nan if label is None else label for label in column])
        return _Array((len(column),), "f8", [found])
    return ["" if label is None else label for label in column]


def _write(file: BinaryIO, value: Any) -> None:
    """Write a value in the opcodes of protocol 4, which Python 3.4 and later read: dicts whose keys are
    texts, lists and tuples as lists, texts, numbers, ``None`` and arrays.
    """
    if isinstance(value, str):
        encoded = value.encode()
        file.write(b"X" + struct.pack("<I", len(encoded)) + encoded)
    elif isinstance(value, int):
        file.write(b"\x8a\x08" + struct.pack("<q", value))
    elif isinstance(value, float):
        file.write(b"G" + struct.pack(">d", value))
    elif value is None:
        file.write(b"N")
    elif isinstance(value, _Array):
        _write_array(file, value)
    else:
        is_dict = isinstance(value, Mapping)
        file.write(b"}(" if is_dict else b"](")
        for each in (part for pair in value.items() for part in pair) if is_dict else value:
            _write(file, each)
        file.write(b"u" if is_dict else b"e")


def _write_array(file: BinaryIO, array: _Array) -> None:
    """Write an array as numpy itself does it."""
    dtype: np.dtype[Any] = np.dtype(f"<{array.kind}")
    file.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(")
    for size in array.shape:
        _write(file, size)
    file.write(b"tcnumpy\ndtype\n")
    _write(file, array.kind)
    file.write(b"\x89\x88\x87R(K\x03")
    _write(file, "<")
    file.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89\x8e")
    file.write(struct.pack("<Q", math.prod(array.shape) * dtype.itemsize))
    for row in array.rows:
        file.write(np.ascontiguousarray(row, dtype).data)
    file.write(b"tb")
