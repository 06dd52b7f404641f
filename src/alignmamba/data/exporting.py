"""A corpus as a file that other people's programs read."""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alignmamba.contracts import Corpus, ModalitySpec, Role, Split
from alignmamba.data.storage import check_path
from alignmamba.errors import DataError
from alignmamba.files import replacing

_FIELDS = ("text", "audio", "vision")
_SENTIMENTS = ("Negative", "Neutral", "Positive")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A corpus that was written for another program."""

    samples: Mapping[Role, int]
    """Number of samples by split."""
    notes: tuple[str, ...]
    """Plain sentences about what the layout cannot hold."""


def export_mmsa(corpus: Corpus, path: str | Path, *, modalities: Mapping[str, str] = {}, overwrite: bool = False) -> Exported:
    """Write a corpus as an unaligned MMSA pickle, of which `convert` makes the same corpus again.

    Every split becomes a dict of ``text``, ``audio`` and ``vision``, zero-padded at the end to the longest clip of the corpus, with
    ``audio_lengths`` and ``vision_lengths``; ``text_bert``, whose attention mask says how long the text is and whose ids are those of
    a text of token ids, else 0; ``raw_text``, the display tokens of the text; ``id``; ``regression_labels``, and ``annotations`` and
    ``classification_labels`` by their sign. Samples are read and written one by one. The file is complete or not there.

    Args:
        corpus: A corpus of a regression task in which every sample has a target.
        path: The file to make.
        modalities: Which modality of the corpus stands for ``text``, ``audio`` or ``vision``; by default the one of that name.
        overwrite: Replace the file that is there.

    Raises:
        DataError: If the corpus lacks a modality or targets, or has another task, or the file cannot be written.

    Source:
        MMSA 2.2.1, `data_loader.py`, https://github.com/thuiar/MMSA
    """
    target = Path(path)
    check_path(target)
    if target.exists() and not (overwrite and target.is_file()):
        raise DataError(f"{target}: exists already; pass overwrite=True to replace a file")
    chosen = _chosen(corpus, modalities)
    if corpus.task.kind != "regression":
        raise DataError(f"corpus {corpus.name!r}: MMSA predicts a score, but the task is {corpus.task.kind}")
    longest = {
        field: max(1, *(int(split.lengths[spec.name].max(initial=0)) for split in corpus.splits.values())) for field, spec in chosen.items()
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as file:
            pickle = _PickleWriter(file)
            pickle.start()
            with_times = False
            for role, split in corpus.splits.items():
                pickle.text(role)
                with_times |= _write_split(pickle, f"corpus {corpus.name!r}, split {role!r}", split, chosen, longest)
            pickle.end()
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
    notes = []
    others = [spec.name for spec in corpus.modalities if spec not in chosen.values()]
    if others:
        notes.append(f"modalities left out: {', '.join(others)}")
    if with_times:
        notes.append("times left out")
    if chosen["text"].kind == "features":
        notes.append("text_bert holds the attention mask alone, for models that read features (use_bert false)")
    return Exported(samples={role: len(split) for role, split in corpus.splits.items()}, notes=tuple(notes))


def _chosen(corpus: Corpus, modalities: Mapping[str, str]) -> dict[str, ModalitySpec]:
    if unknown := [field for field in modalities if field not in _FIELDS]:
        raise DataError(f"modalities: expected {', '.join(_FIELDS)}, found {unknown[0]!r}")
    specs = {spec.name: spec for spec in corpus.modalities}
    chosen: dict[str, ModalitySpec] = {}
    for field in _FIELDS:
        name = modalities.get(field, field)
        if name not in specs:
            raise DataError(f"corpus {corpus.name!r}: no modality {name!r} to stand for {field!r}; say which of {list(specs)} does")
        if specs[name].kind == "tokens" and field != "text":
            raise DataError(f"corpus {corpus.name!r}: modality {name!r}: {field} has to be features, found token ids")
        chosen[field] = specs[name]
    return chosen


def _write_split(pickle: "_PickleWriter", where: str, split: Split, chosen: Mapping[str, ModalitySpec], longest: Mapping[str, int]) -> bool:
    """Write one split; whether it has times, which are left out."""
    targets: list[float] = []
    spoken: list[str] = []
    with_times = False
    for sample in split:
        if sample.target is None:
            raise DataError(f"{where}, sample {sample.id!r}: has no target")
        targets.append(float(sample.target))
        words = sample.tokens.get(chosen["text"].name, ())
        framed = len(words) > 1 and (words[0], words[-1]) == ("[CLS]", "[SEP]")
        spoken.append(" ".join(words[1:-1] if framed else words))
        with_times |= bool(sample.times)
    scores = np.array(targets)
    signs = np.sign(scores).astype(np.int64) + 1

    def rows(field: str) -> Iterator[np.ndarray]:
        name = chosen[field].name
        for sample in split:
            padded = np.zeros((longest[field], chosen[field].width), np.float32)
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

    size = len(targets)
    pickle.begin_dict()
    pickle.entry("raw_text", spoken)
    pickle.entry("id", list(split.ids))
    pickle.text("text_bert")
    pickle.array((size, 3, longest["text"]), "i8", text_bert())
    for field, spec in chosen.items():
        if spec.kind == "features":
            pickle.text(field)
            pickle.array((size, longest[field], spec.width), "f4", rows(field))
        if field != "text":
            pickle.text(f"{field}_lengths")
            pickle.array((size,), "i8", [np.asarray(split.lengths[spec.name], np.int64)])
    pickle.entry("annotations", [_SENTIMENTS[sign] for sign in signs])
    pickle.text("classification_labels")
    pickle.array((size,), "i8", [signs])
    pickle.text("regression_labels")
    pickle.array((size,), "f8", [scores])
    pickle.end_dict()
    return with_times


class _PickleWriter:
    """Dicts, lists of text and arrays as a pickle of protocol 4, which Python 3.4 and later read; arrays are written row by row."""

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

    def entry(self, key: str, texts: Sequence[str]) -> None:
        """Write a key and a list of texts."""
        self.text(key)
        self._file.write(b"](")
        for text in texts:
            self.text(text)
        self._file.write(b"e")

    def array(self, shape: Sequence[int], kind: str, rows: Iterable[np.ndarray]) -> None:
        """Write an array of numpy's type `kind`, as numpy itself does it; `rows` together hold its content in row-major order."""
        dtype: np.dtype[Any] = np.dtype(f"<{kind}")
        sizes = b"".join(b"\x8a\x08" + struct.pack("<q", size) for size in shape)
        self._file.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(" + sizes + b"t")
        self._file.write(b"cnumpy\ndtype\n")
        self.text(kind)
        self._file.write(b"\x89\x88\x87R(K\x03")
        self.text("<")
        self._file.write(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89\x8e")
        self._file.write(struct.pack("<Q", int(np.prod(shape, dtype=object)) * dtype.itemsize))
        for row in rows:
            self._file.write(np.ascontiguousarray(row, dtype).data)
        self._file.write(b"tb")
