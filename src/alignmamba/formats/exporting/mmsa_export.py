"""A corpus as a file that other people's programs read."""

import math
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alignmamba.contracts import Corpus, ModalitySpec, Role, Sample, Split
from alignmamba.data.storage import check_path
from alignmamba.errors import DataError, shown
from alignmamba.files import replacing
from alignmamba.formats.exporting.mmsa_layout import (
    CLASSES,
    EXTRAS,
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
        raise DataError(f"{target}: expected a file to replace, found something else")
    if target.exists() and not overwrite:
        raise DataError(f"{target}: exists already; overwrite=True (--overwrite) replaces a file")
    chosen = _chosen(corpus, modalities)
    longest = {
        field: max(1, *(int(split.lengths[spec.name].max(initial=0)) for split in corpus.splits.values()))
        for field, spec in chosen.items()
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        parts = {role: _Part.of(corpus, role, chosen["text"]) for role in corpus.splits}
        columns = {name for part in parts.values() for name in part.columns}
        with replacing(target) as file:
            pickle = _PickleWriter(file)
            pickle.start()
            for role, split in corpus.splits.items():
                pickle.text(role)
                _write_split(pickle, split, parts[role], columns, chosen, longest)
            pickle.text(EXTRAS)
            pickle.value(_extras(corpus, parts, chosen).model_dump(mode="json"))
            pickle.end()
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
    notes = []
    others = [spec.name for spec in corpus.modalities if spec not in chosen.values()]
    if others:
        notes.append(f"modalities dropped: {', '.join(others)}")
    notes += [f"{what} dropped" for what in sorted(set().union(*(part.left_out for part in parts.values())))]
    if chosen["text"].kind == "features":
        notes.append(
            "text_bert holds the attention mask alone, for models that read features (use_bert false)"
        )
    if any(SCORES[0] not in part.columns for part in parts.values()):
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


@dataclass(kw_only=True)
class _Part:
    """What a split has beside the arrays of its modalities."""

    texts: list[str] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """Labels by field of MMSA."""
    derived: list[str] = field(default_factory=list)
    tokens: dict[str, Sequence[str]] = field(default_factory=dict)
    """Display tokens, by id, that are not made of the text when it is read."""
    labels: tuple[str, ...] = ()
    """Names of the further labels in the order of the samples."""
    ungrouped: bool = False
    """Whether no sample has a group, though the ids of some name a video."""
    left_out: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, corpus: Corpus, role: Role, text: ModalitySpec) -> "_Part":
        """Read a split through."""
        part, targets, labelled, groups = cls(), [], [], []
        words: list[Sequence[str]] = []
        split = corpus.splits[role]
        for sample in split:
            if sample.target is None:
                raise DataError(
                    f"corpus {corpus.name!r}, split {role!r}, sample {sample.id!r}: has no target"
                )
            for name, label in sample.labels.items():
                if type(label) is int and not -(2**63) <= label < 2**63:
                    raise DataError(
                        f"corpus {corpus.name!r}, split {role!r}, sample {sample.id!r}: label {name!r}: "
                        f"expected a whole number that 64 bits hold, found {shown(label)}"
                    )
            targets.append(sample.target)
            labelled.append(sample.labels)
            groups.append(sample.group)
            words.append(sample.tokens.get(text.name, ()))
            part.texts.append(sample.text or "")
            part.left_out |= _without_place(sample, text.name)
        if not any(part.texts):
            part.derived.append("raw_text")
            part.texts = [spoken(tokens) for tokens in words]
        for identity, said, tokens, length in zip(
            split.ids, part.texts, words, split.lengths[text.name], strict=True
        ):
            if (display_words(said, int(length), framed=True) or []) != list(tokens):
                part.tokens[identity] = tokens
        videos = [video_of(identity) for identity in split.ids]
        part.ungrouped = all(group is None for group in groups) and any(videos)
        if groups != videos and not part.ungrouped:
            part.left_out.add("groups other than the video of an id")
        part._label(corpus, targets, labelled)
        return part

    def _label(
        self, corpus: Corpus, targets: Sequence[float | int], labelled: Sequence[Mapping[str, Any]]
    ) -> None:
        """Fill in the columns of labels."""
        classes = corpus.task.classes
        signs = [int(target) if classes else int(np.sign(target)) + 1 for target in targets]
        names = classes or SENTIMENTS
        made: dict[str, list[Any]] = dict(zip(CLASSES, ([names[sign] for sign in signs], signs), strict=True))
        field_of_targets = CLASSES[0] if classes else SCORES[0]
        if any(label == "" for labels in labelled for label in labels.values()):
            self.left_out.add("empty labels")
        names_in_order = _in_order(labelled)
        for name in names_in_order:
            if name not in (*SCORES, *CLASSES) or name == field_of_targets:
                self.left_out.add(f"label {name}")
            else:
                self.columns[name] = [labels.get(name) for labels in labelled]
        self.labels = tuple(name for name in names_in_order if name in self.columns)
        self.derived += [name for name in CLASSES if name not in self.columns and name != field_of_targets]
        self.columns |= {name: made[name] for name in CLASSES if name not in self.columns}
        if not classes:
            self.columns[SCORES[0]] = [float(target) for target in targets]


def _in_order(labelled: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of the labels in an order that is that of every sample, of which each may lack some; else as
    they are met.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for names in dict.fromkeys(tuple(labels) for labels in labelled):
        for place, name in enumerate(names):
            sorter.add(name, *names[max(0, place - 1) : place])
    try:
        return tuple(sorter.static_order())
    except CycleError:
        return tuple(dict.fromkeys(name for labels in labelled for name in labels))


def _without_place(sample: Sample, text: str) -> set[str]:
    """What of a sample is not written."""
    found = {f"display tokens of {name}" for name in sample.tokens if name != text}
    found |= {"times"} if sample.times else set()
    return found | ({"empty texts"} if sample.text == "" else set())


def _extras(corpus: Corpus, parts: Mapping[Role, _Part], chosen: Mapping[str, ModalitySpec]) -> MmsaExtras:
    text = chosen["text"]
    given = {
        "label_range": corpus.task.label_range,
        "sentiment": corpus.task.sentiment,
        "classes": corpus.task.classes,
        "units": {name: spec.units for name, spec in chosen.items() if spec.units},
        "vocabulary_size": text.dim if text.kind == "tokens" else None,
        "derived": {role: part.derived for role, part in parts.items() if part.derived},
        "tokens": {role: part.tokens for role, part in parts.items() if part.tokens},
        "labels": {
            role: part.labels
            for role, part in parts.items()
            if part.labels != tuple(n for n in (*SCORES, *CLASSES) if n in part.labels)
        },
        "ungrouped": tuple(role for role, part in parts.items() if part.ungrouped),
    }
    return MmsaExtras.model_validate(given)


def _write_split(
    pickle: "_PickleWriter",
    split: Split,
    part: _Part,
    columns: Collection[str],
    chosen: Mapping[str, ModalitySpec],
    longest: Mapping[str, int],
) -> None:
    def rows(place: str) -> Iterator[np.ndarray]:
        name = chosen[place].name
        for sample in split:
            padded = np.zeros((longest[place], chosen[place].width), np.float32)
            content = sample.features.get(name, padded[:0])
            padded[: len(content)] = content
            yield padded

    def text_bert() -> Iterator[np.ndarray]:
        name = chosen["text"].name
        for sample, length in zip(split, split.lengths[name], strict=True):
            padded = np.zeros((3, longest["text"]), np.int64)
            padded[1, :length] = 1
            if chosen["text"].kind == "tokens" and length:
                padded[0, :length] = sample.features[name][:, 0]
            yield padded

    size = len(split)
    pickle.begin_dict()
    pickle.text("raw_text")
    pickle.value(part.texts)
    pickle.text("id")
    pickle.value(split.ids)
    pickle.text("text_bert")
    pickle.array((size, 3, longest["text"]), "i8", text_bert())
    for place, spec in chosen.items():
        if spec.kind == "features":
            pickle.text(place)
            pickle.array((size, longest[place], spec.width), "f4", rows(place))
        if place != "text":
            pickle.text(f"{place}_lengths")
            pickle.array((size,), "i8", [np.asarray(split.lengths[spec.name], np.int64)])
    for name in (*CLASSES, *SCORES):
        if name in columns:  # of any split: all have the same fields
            pickle.text(name)
            _write_labels(pickle, part.columns.get(name, [None] * size))
    pickle.end_dict()


def _write_labels(pickle: "_PickleWriter", column: Sequence[Any]) -> None:
    """Write a column as MMSA has it: an array of numbers, with NaN where there is none, or a list of texts,
    empty where there is none.
    """
    if all(type(label) is int for label in column):
        pickle.array((len(column),), "i8", [np.array(column)])
    elif all(label is None or type(label) is float for label in column):
        pickle.array(
            (len(column),), "f8", [np.array([math.nan if label is None else label for label in column])]
        )
    else:
        pickle.value(["" if label is None else label for label in column])


class _PickleWriter:
    """Dicts, lists of text and arrays as a pickle of protocol 4, which Python 3.4 and later read; arrays are
    written row by row.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def start(self) -> None:
        """Begin the file, which holds a dict."""
        self._file.write(b"\x80\x04")
        self.begin_dict()

    def end(self) -> None:
        """End the dict and the file."""
        self.end_dict()
        self._file.write(b".")

    def begin_dict(self) -> None:
        """Begin a dict; its keys and values follow."""
        self._file.write(b"}(")

    def end_dict(self) -> None:
        """End a dict."""
        self._file.write(b"u")

    def text(self, text: str) -> None:
        """Write a text."""
        encoded = text.encode()
        self._file.write(b"X" + struct.pack("<I", len(encoded)) + encoded)

    def value(self, value: Any) -> None:
        """Write plain values: dicts whose keys are texts, lists and tuples as lists, texts, numbers and
        ``None``.
        """
        if isinstance(value, str):
            self.text(value)
        elif isinstance(value, int):
            self._file.write(b"\x8a\x08" + struct.pack("<q", value))
        elif isinstance(value, float):
            self._file.write(b"G" + struct.pack(">d", value))
        elif isinstance(value, Mapping):
            self.begin_dict()
            for key, each in value.items():
                self.text(key)
                self.value(each)
            self.end_dict()
        elif value is None:
            self._file.write(b"N")
        else:
            self._file.write(b"](")
            for each in value:
                self.value(each)
            self._file.write(b"e")

    def array(self, shape: Sequence[int], kind: str, rows: Iterable[np.ndarray]) -> None:
        """Write an array of numpy's type `kind`, as numpy itself does it; `rows` together hold its content in
        row-major order.
        """
        dtype: np.dtype[Any] = np.dtype(f"<{kind}")
        sizes = b"".join(b"\x8a\x08" + struct.pack("<q", size) for size in shape)
        self._file.write(
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01("
            + sizes
            + b"t"
        )
        self._file.write(b"cnumpy\ndtype\n")
        self.text(kind)
        self._file.write(b"\x89\x88\x87R(K\x03")
        self.text("<")
        self._file.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89\x8e")
        self._file.write(struct.pack("<Q", int(np.prod(shape, dtype=object)) * dtype.itemsize))
        for row in rows:
            self._file.write(np.ascontiguousarray(row, dtype).data)
        self._file.write(b"tb")
