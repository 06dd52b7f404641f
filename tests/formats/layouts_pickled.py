"""Writers of the field's pickles with small random content, and what of it is true: every value, without
padding.
"""

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from alignmamba.contracts import Corpus


@dataclass
class Truth:
    """One clip."""

    id: str
    target: float | None
    features: dict[str, np.ndarray]
    """Modality to (time, width), or (time,) for ids; an absent one is missing."""
    tokens: dict[str, tuple[str, ...]] = field(default_factory=dict)
    text: str | None = None
    group: str | None = None
    labels: dict[str, float | str] = field(default_factory=dict)


Truths = dict[str, list[Truth]]

SIZES = {"train": 5, "valid": 2, "test": 3}
SILENCE = ("content shorter than declared", "vision", "kept, zero rows at its end", sum(SIZES.values()))
"""Counts of an unaligned MMSA file, in which the vision of every clip ends in a frame of zeros."""


def assert_holds(corpus: Corpus, truths: Truths) -> None:
    """The corpus holds that and nothing else, value by value."""
    assert list(corpus.splits) == list(truths)
    for role, clips in truths.items():
        split = corpus.split(role)  # type: ignore[arg-type]
        assert list(split.ids) == [clip.id for clip in clips]
        for sample, clip in zip(split, clips, strict=True):
            assert sample.target == clip.target
            assert sorted(sample.features) == sorted(clip.features), sample.id
            for name, values in clip.features.items():
                expected = values[:, None] if values.ndim == 1 else values.astype(np.float32)
                np.testing.assert_array_equal(sample.features[name], expected, err_msg=f"{sample.id} {name}")
            assert sample.tokens == clip.tokens
            assert (sample.text, sample.group, sample.labels) == (clip.text, clip.group, clip.labels)


def padded(
    clips: Sequence[np.ndarray], length: int, width: int, *, front: bool = False, dtype: Any = np.float32
) -> np.ndarray:
    """(clips, length, width), zeros where there is nothing."""
    result = np.zeros((len(clips), length, width), dtype)
    for row, values in enumerate(clips):
        result[row, length - len(values) if front else 0 : length if front else len(values)] = values
    return result


def _values(random: np.random.Generator, time: int, width: int, dtype: Any = np.float32) -> np.ndarray:
    return random.normal(size=(time, width)).astype(dtype)


def mmsa(*, aligned: bool = False, dtype: Any = np.float32, seed: int = 0) -> tuple[dict[str, Any], Truths]:
    """An MMSA file and its truth. Padded positions of the text are not zero; silence ends some clips."""
    random = np.random.default_rng(seed)
    lengths = {"text": 7, "audio": 7 if aligned else 9, "vision": 7 if aligned else 11}
    widths = {"text": 4, "audio": 3, "vision": 2}
    content: dict[str, Any] = {}
    truths: Truths = {}
    number = 0
    for role, size in SIZES.items():
        clips: list[Truth] = []
        text_bert = np.zeros((size, 3, lengths["text"]))
        raw_text, labels = [], []
        for row in range(size):
            count = int(random.integers(3, lengths["text"] + 1))
            times = {
                name: count if aligned or name == "text" else int(random.integers(2, lengths[name] + 1))
                for name in lengths
            }
            features = {name: _values(random, times[name], widths[name], dtype) for name in lengths}
            features["vision"][-1] = 0.0
            text_bert[row, 0, :count] = [101, *random.integers(1000, 30000, count - 2), 102]
            text_bert[row, 1, :count] = 1
            words = [f"wörd{number}-{place}" for place in range(count - 2)]
            spoken = words if row % 2 else [*words, "more"]
            raw_text.append(" ".join(spoken))
            labels.append(float(np.float32(random.uniform(-3, 3))))
            tokens = {"text": ("[CLS]", *words, "[SEP]")} if row % 2 else {}
            sign = int(np.sign(labels[-1])) + 1
            clips.append(
                Truth(
                    id=f"video{number // 3}$_${number}",
                    target=labels[-1],
                    features=features,
                    tokens=tokens,
                    text=raw_text[-1],
                    group=f"video{number // 3}",
                    labels={
                        "annotations": ("Negative", "Neutral", "Positive")[sign],
                        "classification_labels": float(sign),
                    },
                )
            )
            number += 1
        truths[role] = clips
        split: dict[str, Any] = {"raw_text": raw_text}
        for name in ("audio", "vision", "text"):
            split[name] = padded(
                [clip.features[name] for clip in clips], lengths[name], widths[name], dtype=dtype
            )
        for row, clip in enumerate(clips):
            split["text"][row, len(clip.features["text"]) :] = 0.25
        split |= {"id": [clip.id for clip in clips], "text_bert": text_bert}
        for name in clips[0].labels:
            split[name] = [clip.labels[name] for clip in clips]
        split["classification_labels"] = np.array(split["classification_labels"])
        split["regression_labels"] = np.array(labels, np.float32)
        if not aligned:
            split["audio_lengths"] = [len(clip.features["audio"]) for clip in clips]
            split["vision_lengths"] = np.array([len(clip.features["vision"]) for clip in clips])
        content[role] = split
    return content, truths


def mult(*, aligned: bool = False, front: bool = True, seed: int = 0) -> tuple[dict[str, Any], Truths]:
    """A MulT file and its truth. In an aligned file the first frame of the vision of some clips is zero."""
    random = np.random.default_rng(seed)
    lengths = {"text": 6, "audio": 6 if aligned else 8, "vision": 6 if aligned else 9}
    widths = {"text": 5, "audio": 3, "vision": 2}
    content: dict[str, Any] = {}
    truths: Truths = {}
    number = 0
    for role, size in SIZES.items():
        clips: list[Truth] = []
        for row in range(size):
            count = int(random.integers(2, lengths["text"]))
            times = {name: count if aligned else int(random.integers(2, lengths[name])) for name in lengths}
            features = {name: _values(random, times[name], widths[name]) for name in lengths}
            if aligned and row % 2:
                features["vision"][0 if front else -1] = 0.0
            identity = f"v{number}$_${number / 4}$_${number / 2}"
            clips.append(
                Truth(
                    id=identity,
                    target=float(np.float32(random.uniform(-3, 3))),
                    features=features,
                    group=f"v{number}",
                )
            )
            number += 1
        truths[role] = clips
        split: dict[str, Any] = {
            name: padded([clip.features[name] for clip in clips], lengths[name], widths[name], front=front)
            for name in ("vision", "audio", "text")
        }
        split["labels"] = np.array([clip.target for clip in clips], np.float32).reshape(size, 1, 1)
        split["id"] = np.array([clip.id.encode().split(b"$_$") for clip in clips])
        content[role] = split
    return content, truths


def mag_bert(*, seed: int = 0) -> tuple[dict[str, Any], Truths]:
    """A MAG-BERT file and its truth."""
    random = np.random.default_rng(seed)
    content: dict[str, Any] = {}
    truths: Truths = {}
    numbered: dict[str, int] = {}
    number = 0
    for name, role in (("train", "train"), ("dev", "valid"), ("test", "test")):
        entries, clips = [], []
        for _ in range(SIZES[role]):
            words = [f"word{each}" for each in random.integers(0, 12, int(random.integers(1, 5)))]
            visual, acoustic = _values(random, len(words), 4), _values(random, len(words), 3)
            label = float(np.float32(random.uniform(-3, 3)))
            if role == "train":
                for word in words:
                    numbered.setdefault(word, len(numbered) + 1)
            ids = np.array([numbered.get(word, 0) for word in words])
            entries.append(((words, visual, acoustic), np.array([[label]], np.float32), f"clip[{number}]"))
            features = {"text": ids, "audio": acoustic, "vision": visual}
            tokens = {"text": tuple(words)}
            clips.append(
                Truth(
                    id=f"clip[{number}]", target=label, features=features, tokens=tokens, text=" ".join(words)
                )
            )
            number += 1
        content[name], truths[role] = entries, clips
    return content, truths


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    """A pickle as Python 3 writes it."""
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def write_old(path: Path, content: Any, protocol: int = 2) -> Path:
    """A pickle as Python 2 writes it."""
    path.write_bytes(old_pickle(content, protocol))
    return path


def old_pickle(content: Any, protocol: int) -> bytes:
    """The same with every text and every run of bytes as a string of Python 2."""
    file = io.BytesIO()
    _OldPickler(file, protocol).dump(content)
    # The module's name of numpy 1; only names of protocols 0 to 2 are lines.
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


class _OldPickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes strings with the opcodes that only Python 2 uses: STRING, BINSTRING and SHORT_BINSTRING."""

    def _save_string(self, value: bytes | str) -> None:
        raw = value.encode() if isinstance(value, str) else value
        if self.proto == 0:
            self.write(b"S" + repr(raw)[1:].encode() + b"\n")
        elif len(raw) < 256:
            self.write(b"U" + bytes([len(raw)]) + raw)
        else:
            self.write(b"T" + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, bytes: _save_string, str: _save_string}  # type: ignore[attr-defined]
