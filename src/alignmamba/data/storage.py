"""The archive on disk, whose layout is in `docs/data.md`: what `corpus.json` says, what a shard holds, and
splits that read it lazily.

A shard lacks a modality that no sample of it has. Features are float32, token ids int32 of
width 1, times float64 seconds (not a number throughout a sample whose times are unknown), targets float64 of
numbers and of several labels, int64 of classes; not a number or -1 where a sample has none.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from alignmamba.contracts import Config, ModalitySpec, Role, Sample, Task
from alignmamba.errors import DataError, first_fault
from alignmamba.files import JSON_BYTES, open_regular, parse_json, put_in_place, read_json, restore

MANIFEST = "corpus.json"
FORMAT = "alignmamba-corpus"
VERSION = 1

MOST_MODALITIES = 1000
"""A corpus may have as many."""
MOST_ENTRIES = 200_000_000
"""Samples times modalities of a corpus: each has a length in memory."""
_HEADER_BYTES = 4 << 20
"""The header of a shard of `MOST_MODALITIES` is far smaller."""
_LINE_BYTES = 2
"""Any line has a byte and an end."""

# A scan of a shard holds this many bytes of it at a time, or one sample if that is larger.
_BLOCK_BYTES = 64 << 20
_FILE_NAME = r"^(train|valid|test)-[0-9]{5,9}\.(safetensors|jsonl)$"


class FileEntry(Config):
    """One file of the archive."""

    path: Annotated[str, Field(pattern=_FILE_NAME)]
    """File name inside the corpus directory."""
    bytes: Annotated[int, Field(ge=0)]
    """Its size."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of its content."""


class ShardEntry(Config):
    """Consecutive samples of a split."""

    samples: Annotated[int, Field(ge=1)]
    """Number of samples."""
    values: FileEntry
    """Their arrays."""
    strings: FileEntry
    """Their ids and what else is text."""


class SplitEntry(Config):
    """One split."""

    role: Role
    """``train``, ``valid`` or ``test``."""
    shards: Annotated[tuple[ShardEntry, ...], Field(min_length=1)]
    """Its shards, in order."""


class Manifest(Config):
    """The content of `corpus.json`."""

    format: Literal["alignmamba-corpus"] = "alignmamba-corpus"
    """Says what this directory is."""
    version: Literal[1] = 1
    """Version of the layout."""
    name: Annotated[str, Field(min_length=1)]
    """Name of the corpus."""
    source: str = ""
    """Source of the data."""
    licence: str = ""
    """Licence of the data."""
    task: Task
    """Task to predict."""
    modalities: Annotated[tuple[ModalitySpec, ...], Field(min_length=1, max_length=MOST_MODALITIES)]
    """Modalities of a sample, in order."""
    splits: Annotated[tuple[SplitEntry, ...], Field(min_length=1)]
    """The splits, in order."""
    references: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=dict)
    """Known scores to print beside a result."""
    recipe: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda recipe: not recipe)
    """Record of how media files were read; left out where there were none."""
    checksum: str = ""
    """SHA-256 over task, modalities and splits, so over the sums of all files; set by `sealed`.
    Left out are the mark of a sentiment and names of labels, which change no sample."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        named: dict[str, list[str]] = {
            "modalities": [spec.name for spec in self.modalities],
            "splits": [split.role for split in self.splits],
        }
        for field, names in named.items():
            repeated, count = Counter(names).most_common(1)[0]
            if count > 1:
                raise ValueError(f"{field}: {repeated!r} appears {count} times, expected once")
        samples = sum(shard.samples for split in self.splits for shard in split.shards)
        if samples * len(self.modalities) > MOST_ENTRIES:
            raise ValueError(
                f"splits: {samples} samples of {len(self.modalities)} modalities, expected at most"
                f" {MOST_ENTRIES} together"
            )
        texts = {"name": self.name, "source": self.source, "licence": self.licence}
        texts |= {f"units of {spec.name}": spec.units for spec in self.modalities}
        texts |= {f"class {number}": name for number, name in enumerate(self.task.classes)}
        texts |= {f"reference {number}": name for number, name in enumerate(self.references)}
        for field, text in texts.items():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError(f"{field}: expected text in Unicode, found {text[:80]!a}") from None
        return self

    def content_checksum(self) -> str:
        """Expected value of `checksum`."""
        content = self.model_dump(mode="json", include={"task", "modalities", "splits"})
        del content["task"]["sentiment"]
        content["task"].pop("labels", None)
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def sealed(self) -> Self:
        """The same manifest with its checksum set."""
        return self.model_copy(update={"checksum": self.content_checksum()})


def check_path(path: Path) -> None:
    """Refuse what cannot be a path: a name is too long or has a null character, links lead in a circle, or a
    directory above may not be searched.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{str(path)!r}: cannot be used as a path: {reason}") from error


def is_archive_file(name: str) -> bool:
    """Return whether a corpus directory may hold a file of that name."""
    return name == MANIFEST or re.match(_FILE_NAME, name) is not None


def prepare_destination(target: Path, *, overwrite: bool) -> None:
    """Refuse a place where something is that may not be replaced by a corpus; what killed processes left
    beside it is put in order first.
    """
    check_path(target)
    restore(target)
    if not (target.exists() or target.is_symlink()):
        return
    if not overwrite:
        raise DataError(f"{target}: exists already; overwrite=True (--overwrite) replaces a corpus")
    if target.is_symlink() or not target.is_dir():
        found = "a link" if target.is_symlink() else "a file"
        raise DataError(f"{target}: expected a corpus directory to replace, found {found}")
    # A corpus may be damaged, but whatever else lies there would go with it.
    names = sorted(path.name for path in target.iterdir())
    if stranger := next((name for name in names if not is_archive_file(name)), None):
        raise DataError(
            f"{target}: found {stranger!r}, which is not a file of a corpus, so the directory is kept"
        )
    if names == [MANIFEST]:
        read_manifest(target)


def publish(directory: Path, target: Path, *, overwrite: bool) -> None:
    """Give a complete corpus its name; one that is there before keeps it until then."""
    prepare_destination(target, overwrite=overwrite)
    put_in_place(directory, target)


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a corpus directory, unless it is damaged or of another version."""
    check_path(directory)
    path = directory / MANIFEST
    if not directory.is_dir():
        there = "a file" if directory.exists() else "nothing"
        raise DataError(f"{directory}: expected a corpus directory, found {there}")
    if not os.path.lexists(path):
        raise DataError(f"{directory}: not a corpus, it has no {MANIFEST}")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{path}: format: expected {FORMAT!r}, found {found!r}")
    if content.get("version") != VERSION:
        raise DataError(
            f"{path}: version: this release reads version {VERSION}, found {content.get('version')!r}"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {first_fault(error)}") from error
    if manifest.checksum != manifest.content_checksum():
        raise DataError(
            f"{path}: checksum: task, modalities or splits were changed or damaged after the corpus was"
            " written"
        )
    return manifest


class Shard:
    """One shard, with its index in memory and its values on disk until they are asked for.

    Opening it checks everything that the index says; the values themselves are `alignmamba.data.inspection`'s
    to check. It can be sent to another process, which opens the file again.

    Raises:
        DataError: If a file is missing, has another size, or its structure is not what the manifest says.
    """

    def __init__(self, directory: Path, entry: ShardEntry, manifest: Manifest) -> None:
        self.task = manifest.task
        self.path = directory / entry.values.path
        self.strings = directory / entry.strings.path
        self._file: Any = None
        self._process = 0
        for path, file in ((self.path, entry.values), (self.strings, entry.strings)):
            if not path.is_file():
                raise DataError(f"{path}: missing, but {MANIFEST} lists it")
            size = path.stat().st_size
            if size != file.bytes:
                raise DataError(
                    f"{path}: expected {file.bytes} bytes, found {size}; the file was cut short or replaced"
                )
        if entry.samples > entry.strings.bytes // _LINE_BYTES:
            raise DataError(
                f"{self.strings}: expected {entry.samples} lines, found {entry.strings.bytes} bytes, which"
                " hold fewer"
            )
        self.offsets: dict[str, np.ndarray] = {}
        self.timed: set[str] = set()
        self.targets: np.ndarray | None = None
        self._read_index(entry.samples, manifest)
        self._read_strings(entry.samples)

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def _tensors(self) -> Any:
        """The open file; each process has its own."""
        if self._file is None or self._process != os.getpid():
            broken = f"{self.path}: not a readable safetensors file"
            try:
                with open_regular(self.path) as file:
                    size = int.from_bytes(file.read(8), "little")
                    header = file.read(min(size, _HEADER_BYTES))
                # The sizes that it declares are compared where it is opened.
                if size > _HEADER_BYTES:
                    raise DataError(f"{broken}: a header of {size} bytes, expected at most {_HEADER_BYTES}")
                if not isinstance(parse_json(header, f"{self.path}: header"), dict):
                    raise DataError(f"{broken}: expected a header of arrays by name")
                self._file = safe_open(self.path, framework="np")
            except (SafetensorError, OSError) as error:
                raise DataError(f"{broken}: {error}") from error
            self._process = os.getpid()
        return self._file

    def _read_index(self, samples: int, manifest: Manifest) -> None:
        tensors = self._tensors()
        present = set(tensors.keys())

        def expect(key: str, dtype: str, shape: tuple[int | None, ...]) -> list[int]:
            if key not in present:
                raise DataError(f"{self.path}: expected an array {key!r}, found {sorted(present)}")
            found = tensors.get_slice(key)
            there = found.get_shape()
            fits = len(there) == len(shape) and all(
                size in (None, each) for size, each in zip(shape, there, strict=True)
            )
            if not fits or found.get_dtype() != dtype:
                sizes = ["any" if size is None else size for size in shape]
                raise DataError(
                    f"{self.path}: array {key!r}: expected {dtype} of shape {sizes}, found"
                    f" {found.get_dtype()} of shape {there}"
                )
            present.discard(key)
            return list(there)

        for spec in manifest.modalities:
            if not present & {f"{spec.name}.{kind}" for kind in ("values", "offsets", "times")}:
                self.offsets[spec.name] = np.broadcast_to(np.int64(0), samples + 1)
                continue
            kind = "F32" if spec.kind == "features" else "I32"
            total, _ = expect(f"{spec.name}.values", kind, (None, spec.width))
            expect(f"{spec.name}.offsets", "I64", (samples + 1,))
            offsets = tensors.get_tensor(f"{spec.name}.offsets")
            if offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
                raise DataError(
                    f"{self.path}: array '{spec.name}.offsets': expected numbers that never decrease, from 0"
                    f" to {total}"
                )
            self.offsets[spec.name] = offsets
            if f"{spec.name}.times" in present:
                expect(f"{spec.name}.times", "F64", (total,))
                self.timed.add(spec.name)
        if "targets" in present:
            task = manifest.task
            shape = (samples, len(task.classes)) if task.kind == "multilabel" else (samples,)
            expect("targets", "I64" if task.has_one_class else "F64", shape)
            self.targets = tensors.get_tensor("targets")
        if present:
            raise DataError(f"{self.path}: unexpected array {sorted(present)[0]!r}")

    def _read_strings(self, samples: int) -> None:
        """Keep the ids and groups, where each line starts, and whether any has more to say."""
        records, lines = [], [0]
        self._annotated = False
        with self.strings.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(JSON_BYTES + 1), b""), start=1):
                if len(line) > JSON_BYTES:
                    raise self._wrong(number, f"expected at most {JSON_BYTES} bytes, found more")
                record = self._record(line, number)
                records.append((record["id"], record.get("group")))
                self._annotated |= not record.keys() <= {"id", "group"}
                for name, by_label in record.get("token_labels", {}).items():
                    self._check_token_labels(number, name, by_label)
                for name, words in record.get("tokens", {}).items():
                    is_list = isinstance(words, list) and all(isinstance(word, str) for word in words)
                    if name not in self.offsets or not is_list:
                        found = f"expected a list of strings per modality, found {name!r}"
                        raise self._wrong(number, f"tokens: {found}")
                    positions = np.diff(self.offsets[name][number - 1 : number + 1])
                    if number <= samples and len(words) != positions[0]:
                        found = f"{len(words)} of them, expected one per position"
                        raise self._wrong(number, f"tokens of {name!r}: {found}")
                lines.append(lines[-1] + len(line))
        if len(records) != samples:
            raise DataError(f"{self.strings}: expected {samples} lines, found {len(records)}")
        self.ids: tuple[str, ...] = tuple(identity for identity, _ in records)
        self.groups: tuple[str | None, ...] = tuple(group for _, group in records)
        self._lines = np.array(lines, dtype=np.int64)

    def _check_token_labels(self, number: int, name: str, by_label: Any) -> None:
        """Compare the labels of the tokens of a modality with its positions."""
        if name not in self.offsets or not isinstance(by_label, dict):
            found = f"expected labels by name per modality, found {name!r}"
            raise self._wrong(number, f"token_labels: {found}")
        positions = np.diff(self.offsets[name][number - 1 : number + 1])
        for label, values in by_label.items():
            where = f"token_labels of {name!r}, label {label!r}"
            if not isinstance(values, list) or not all(
                value is None or isinstance(value, str | int | float) for value in values
            ):
                raise self._wrong(number, f"{where}: expected a list of numbers, texts or nulls")
            if len(positions) and len(values) != positions[0]:
                raise self._wrong(number, f"{where}: {len(values)} of them, expected one per position")

    def _wrong(self, number: int, problem: str) -> DataError:
        return DataError(f"{self.strings}, line {number}: {problem}")

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        record = parse_json(line, f"{self.strings}, line {number}")
        if not (isinstance(record, dict) and isinstance(record.get("id"), str)):
            raise self._wrong(number, "expected an object with a string 'id'")
        kinds = {"group": str, "text": str, "tokens": dict, "labels": dict, "token_labels": dict}
        for key, kind in kinds.items():
            if key in record and not isinstance(record[key], kind):
                found = type(record[key]).__name__
                raise self._wrong(number, f"{key}: expected {kind.__name__}, found {found}")
        for name, label in record.get("labels", {}).items():
            if not isinstance(label, str | int | float):
                found = type(label).__name__
                raise self._wrong(number, f"label {name!r}: expected a number or text, found {found}")
        return record

    def slice(self, key: str, start: int, stop: int) -> np.ndarray:
        """Positions `start` to `stop`, at least one, of an array."""
        values: np.ndarray = self._tensors().get_slice(key)[start:stop]
        return values

    def annotations(self, row: int) -> dict[str, Any]:
        """Fields ``tokens``, ``text``, ``group``, ``labels`` and ``token_labels``, as those of a `Sample`."""
        if not self._annotated:
            return {"group": self.groups[row]}
        with self.strings.open("rb") as file:
            file.seek(self._lines[row])
            record = self._record(file.readline(), row + 1)
        return {
            "tokens": {name: tuple(words) for name, words in record.get("tokens", {}).items()},
            "text": record.get("text"),
            "group": record.get("group"),
            "labels": record.get("labels", {}),
            "token_labels": {
                name: {label: tuple(values) for label, values in by_label.items()}
                for name, by_label in record.get("token_labels", {}).items()
            },
        }

    def blocks(self, key: str) -> Iterator[tuple[range, np.ndarray]]:
        """All positions of an array in pieces of bounded size, each with the rows of the samples that own
        them.

        Samples that own no position may be dropped.
        """
        offsets = self.offsets[key.rpartition(".")[0]]
        if offsets[-1] == 0:
            return
        tensors = self._tensors()
        width = int(np.prod(tensors.get_slice(key).get_shape()[1:], initial=1))
        positions = max(1, _BLOCK_BYTES // (8 * width))
        row = 0
        while row < len(self):
            end = int(np.searchsorted(offsets, offsets[row] + positions, side="right")) - 1
            end = min(max(end, row + 1), len(self))
            if offsets[end] > offsets[row]:
                yield range(row, end), self.slice(key, int(offsets[row]), int(offsets[end]))
            row = end


@dataclass(frozen=True, kw_only=True)
class ArchiveSplit:
    """A split that reads each sample from disk when it is asked for; meets `alignmamba.contracts.Split`."""

    role: Role
    ids: tuple[str, ...]
    lengths: Mapping[str, np.ndarray]
    modalities: tuple[ModalitySpec, ...]
    shards: tuple[Shard, ...]
    starts: np.ndarray
    """Row of the first sample of each shard, and the number of samples."""
    repair: Mapping[str, np.ndarray] | None
    """Per modality of features, what stands in for a value that is not finite, by channel. Others are left as
    they are."""

    @classmethod
    def over(
        cls,
        role: Role,
        shards: tuple[Shard, ...],
        modalities: tuple[ModalitySpec, ...],
        *,
        repair: Mapping[str, np.ndarray] | None = None,
    ) -> Self:
        """The split made of these shards."""
        return cls(
            role=role,
            ids=tuple(identity for shard in shards for identity in shard.ids),
            lengths={
                spec.name: np.concatenate([np.diff(shard.offsets[spec.name]) for shard in shards])
                for spec in modalities
            },
            modalities=modalities,
            shards=shards,
            starts=np.cumsum([0, *map(len, shards)]),
            repair=repair,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Sample:
        if not -len(self) <= row < len(self):
            raise IndexError(f"split {self.role!r} has {len(self)} samples, asked for {row}")
        row %= len(self)
        at = int(np.searchsorted(self.starts, row, side="right")) - 1
        shard, row = self.shards[at], row - int(self.starts[at])
        features, times = {}, {}
        for spec in self.modalities:
            start, stop = map(int, shard.offsets[spec.name][row : row + 2])
            if start == stop:
                continue
            values = shard.slice(f"{spec.name}.values", start, stop)
            if spec.kind == "tokens":
                values = values.astype(np.int64)
            elif self.repair is not None and spec.name in self.repair:
                values = np.where(np.isfinite(values), values, self.repair[spec.name])
            features[spec.name] = values
            if spec.name in shard.timed:
                seconds = shard.slice(f"{spec.name}.times", start, stop)
                if not np.isnan(seconds).all():
                    times[spec.name] = seconds
        target = None if shard.targets is None else shard.task.known(shard.targets[row].tolist())
        return Sample(
            id=shard.ids[row], features=features, target=target, times=times, **shard.annotations(row)
        )
