"""The native format: write a corpus from arrays, load it again memory-mapped.

The layout is described in `alignmamba.data.storage`. Nothing in it is pickled, every file has a checksum, and
a corpus appears under its name complete or not at all.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignmamba.contracts import Corpus, ModalitySpec, Role, Split, Task
from alignmamba.data.inspection import examine
from alignmamba.data.storage import (
    MANIFEST,
    ArchiveSplit,
    FileEntry,
    Manifest,
    Shard,
    ShardEntry,
    SplitEntry,
    prepare_destination,
    publish,
    read_manifest,
)
from alignmamba.data.user_arrays import CheckedSample, CheckedSplits, SplitArrays, check_mapping, is_integer
from alignmamba.errors import ConfigError, DataError
from alignmamba.files import JSON_BYTES, synchronise, temporary_directory

_TYPES = {"<i8": "I64", "<f8": "F64", "<f4": "F32", "<i4": "I32"}
"""Types of stored arrays to their names in safetensors, in the order in which they lie there."""

_WRITE_BYTES = 1 << 20
"""Size of a piece that is written at once."""

_WRITERS = 2
"""Shards that are written at once: of two, one waits for the disk while the other is hashed."""


def write_corpus(
    path: str | Path,
    splits: Mapping[Role, SplitArrays | Mapping[str, Any]],
    *,
    task: Task | Mapping[str, Any],
    name: str | None = None,
    units: Mapping[str, str] = {},
    vocabulary_sizes: Mapping[str, int] = {},
    source: str | Callable[[], str] = "",
    licence: str = "",
    samples_per_shard: int = 4096,
    shard_bytes: int = 512 << 20,
    references: Mapping[str, float] = {},
    recipe: Mapping[str, Any] = {},
    nonfinite: Literal["error", "keep"] = "error",
    empty: Literal["error", "skip"] = "error",
    overwrite: bool = False,
) -> Corpus:
    """Write arrays as a corpus directory.

    The arrays may be lazy sequences: each sample is asked for once, and one shard is in memory at a time.

    Args:
        path: The directory to make; its parents are made too.
        splits: ``train``, ``valid`` and ``test``, or some of them: `SplitArrays` or a mapping with the same
            keys.
        task: What is predicted: a `Task` or a mapping with its fields.
        name: Name of the corpus; by default that of the directory.
        units: What one feature vector measures, by modality, for people.
        vocabulary_sizes: Number of distinct token ids, by modality of token ids; by default one more than the
            largest id found.
        source: Where the data comes from; a function is asked once every sample was read.
        licence: On what terms it may be used.
        samples_per_shard: Samples in one file at most.
        shard_bytes: A file is closed when its values reach this size, however few samples it has: it is held
            in memory until it is written, while the next ones are read; up to three are.
        references: Known scores to print beside a result.
        recipe: Record of how media files were read, to be repeated for others.
        nonfinite: ``"error"`` refuses NaN and infinity; ``"keep"`` stores them, and `load_corpus` then needs
            the way to repair them.
        empty: What to do about a sample without any modality: refuse it, or leave it out.
        overwrite: Replace the corpus that is there, once the new one is complete.

    Returns:
        The corpus, as `load_corpus` gives it.

    Raises:
        DataError: If anything is malformed or inconsistent; the message names split, sample, modality and
            position.
    """
    target = _place(path)
    prepare_destination(target, overwrite=overwrite)
    for field_name, size in (("samples_per_shard", samples_per_shard), ("shard_bytes", shard_bytes)):
        if not is_integer(size) or size < 1:
            raise DataError(f"{field_name}: expected at least 1, found {size!r}")
    check_mapping("units", units)
    check_mapping("references", references)
    check_mapping("recipe", recipe)
    checked = CheckedSplits(
        splits, task=task, vocabulary_sizes=vocabulary_sizes, nonfinite=nonfinite, empty=empty
    )
    checked.refuse_unknown("units", units)

    try:
        with temporary_directory(target) as directory:
            entries = _write_shards(directory, checked, samples_per_shard, shard_bytes)
            try:
                manifest = Manifest(
                    name=target.name if name is None else name,
                    source=source() if callable(source) else source,
                    licence=licence,
                    task=checked.task,
                    modalities=checked.specs(units),
                    splits=entries,
                    references=dict(references),
                    recipe=dict(recipe),
                ).sealed()
            except ConfigError as error:
                raise DataError(str(error)) from None
            content = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
            _write_file(directory / MANIFEST, [content.encode() + b"\n"])
            publish(directory, target, overwrite=overwrite)
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
    return load_corpus(target, verify=False)


def _place(path: object) -> Path:
    if not isinstance(path, str | PathLike):
        raise DataError(f"path: expected the place of a corpus directory, found {type(path).__name__}")
    return Path(path)


def load_corpus(
    path: str | Path,
    *,
    nonfinite: Literal["error", "zero", "mean"] = "error",
    means: Mapping[str, np.ndarray] | None = None,
    verify: bool = True,
) -> Corpus:
    """Open a corpus directory; values stay on disk until a sample is asked for.

    Args:
        path: Directory of the corpus.
        nonfinite: What to do about NaN and infinity in features: refuse the corpus, or on reading put 0 or
            the mean of the channel's finite values in the train split in their place.
        means: For ``"mean"``, take the means from here and not from this corpus: per modality, shape
            (width,), for example those that a model was trained with. Features of a modality that it does not
            name are left as they are.
        verify: Read every file once, to compare its SHA-256 and to check every value. Without it only sizes,
            structure, ids and targets are checked, and values that are not finite may pass.

    Raises:
        DataError: If anything is wrong with the corpus. The message is the first fault; `inspect_corpus`
            lists all.
    """
    if nonfinite not in ("error", "zero", "mean"):
        raise DataError(f"nonfinite: expected 'error', 'zero' or 'mean', found {nonfinite!r}")
    directory = _place(path)
    manifest = read_manifest(directory)
    shards, problems = examine(directory, manifest, verify=verify, require_finite=nonfinite == "error")
    if problems:
        others = f" (and {len(problems) - 1} more problems, see `alignmamba inspect {directory}`)"
        raise DataError(problems[0] + others * (len(problems) > 1))
    repair: dict[str, np.ndarray] | None = None
    if nonfinite == "zero":
        repair = {spec.name: np.zeros(spec.width, dtype=np.float32) for spec in manifest.modalities}
    elif nonfinite == "mean":
        features = [spec for spec in manifest.modalities if spec.kind == "features"]
        if means is not None:
            features = [spec for spec in features if spec.name in means]
            repair = {spec.name: _given_means(means[spec.name], spec) for spec in features}
        elif "train" in shards:
            repair = {spec.name: _channel_means(shards["train"], spec) for spec in features}
        else:
            raise DataError(
                f"{directory}: nonfinite 'mean' needs a train split to take the means from, found"
                f" {sorted(shards)}"
            )
    splits: dict[Role, Split] = {
        role: ArchiveSplit.over(role, parts, manifest.modalities, repair=repair)
        for role, parts in shards.items()
    }
    return Corpus(
        name=manifest.name,
        task=manifest.task,
        modalities=manifest.modalities,
        splits=splits,
        checksum=manifest.checksum,
        references=manifest.references,
        recipe=manifest.recipe,
    ).at(str(directory))


def _channel_means(shards: Sequence[Shard], spec: ModalitySpec) -> np.ndarray:
    """Mean of the finite values of each channel; 0 where a channel has none."""
    total = np.zeros(spec.width)
    count = np.zeros(spec.width, dtype=np.int64)
    for shard in shards:
        for _, values in shard.blocks(f"{spec.name}.values"):
            finite = np.isfinite(values)
            total += np.where(finite, values, 0).sum(axis=0, dtype=np.float64)
            count += finite.sum(axis=0)
    return np.asarray(total / np.maximum(count, 1), dtype=np.float32)


def _given_means(given: np.ndarray, spec: ModalitySpec) -> np.ndarray:
    means = np.asarray(given, dtype=np.float32)
    if means.shape != (spec.width,) or not np.isfinite(means).all():
        raise DataError(
            f"means: modality {spec.name!r}: expected {spec.width} finite numbers, found shape {means.shape}:"
            f" {given!r:.80}"
        )
    return means


def _write_shards(
    directory: Path, checked: CheckedSplits, samples_per_shard: int, shard_bytes: int
) -> tuple[SplitEntry, ...]:
    """Write all splits; shards are written while others are read, and up to `_WRITERS` + 1 are in memory."""
    shards: dict[Role, list[Future[ShardEntry]]] = {role: [] for role in checked.roles}
    with ThreadPoolExecutor(max_workers=_WRITERS) as writer:
        begun: list[Future[ShardEntry]] = []
        for role, written in shards.items():
            for samples in _shards(checked.samples(role), samples_per_shard, shard_bytes):
                if len(begun) >= _WRITERS:
                    begun[-_WRITERS].result()
                path = directory / f"{role}-{len(written):05d}"
                labelled = checked.is_labelled(role)
                begun.append(writer.submit(_write_shard, path, samples, checked, labelled=labelled))
                written.append(begun[-1])
        return tuple(
            SplitEntry(role=role, shards=tuple(each.result() for each in written))
            for role, written in shards.items()
        )


def _shards(samples: Iterable[CheckedSample], most: int, most_bytes: int) -> Iterator[list[CheckedSample]]:
    """The same samples in order, those of one shard at a time."""
    pending: list[CheckedSample] = []
    size = 0
    for sample in samples:
        pending.append(sample)
        size += sum(values.nbytes for values in sample.values.values() if values is not None)
        if len(pending) == most or size >= most_bytes:
            yield pending
            pending, size = [], 0
    if pending:
        yield pending


def _write_shard(
    path: Path, samples: Sequence[CheckedSample], checked: CheckedSplits, *, labelled: bool
) -> ShardEntry:
    tensors: dict[str, list[np.ndarray]] = {}
    for name in checked.names:
        parts = [sample.values[name] for sample in samples]
        lengths = [0 if values is None else len(values) for values in parts]
        if not any(lengths):
            continue
        tensors[f"{name}.values"] = [values for values in parts if values is not None]
        tensors[f"{name}.offsets"] = [np.cumsum([0, *lengths], dtype=np.int64)]
        if any(name in sample.times for sample in samples):
            tensors[f"{name}.times"] = [
                sample.times.get(name, np.full(length, np.nan))
                for sample, length in zip(samples, lengths, strict=True)
            ]
    if labelled:
        unknown = checked.task.unknown
        targets = [unknown if sample.target is None else sample.target for sample in samples]
        kind: type = np.int64 if checked.task.has_one_class else np.float64
        tensors["targets"] = [np.array(targets, dtype=kind)]
    values = _write_file(path.with_suffix(".safetensors"), _safetensors(tensors))
    strings = _write_file(path.with_suffix(".jsonl"), map(_line, samples))
    return ShardEntry(samples=len(samples), values=FileEntry(**values), strings=FileEntry(**strings))


def _safetensors(tensors: Mapping[str, Sequence[np.ndarray]]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, of which each array is given in parts along its first axis.

    They are those that `safetensors.numpy.save_file` writes of the joined arrays, which it would hold twice
    more.

    Source:
        https://github.com/huggingface/safetensors, README, "Format"; wider types come first, so that all of
        them are aligned.
    """
    header, end = {}, 0
    ordered = sorted(tensors, key=lambda name: (list(_TYPES).index(tensors[name][0].dtype.str), name))
    for name in ordered:
        parts = tensors[name]
        start, end = end, end + sum(part.nbytes for part in parts)
        shape = [sum(len(part) for part in parts), *parts[0].shape[1:]]
        header[name] = {"dtype": _TYPES[parts[0].dtype.str], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in ordered:
        for part in tensors[name]:
            yield np.ascontiguousarray(part).data.cast("B")


def _line(sample: CheckedSample) -> bytes:
    kept = ("id", "group", "text", "tokens", "labels", "token_labels")
    record = {key: getattr(sample, key) for key in kept}
    known = {key: value for key, value in record.items() if value is not None and value != {}}
    line = json.dumps(known, ensure_ascii=False).encode() + b"\n"
    if len(line) > JSON_BYTES:
        raise DataError(
            f"sample {sample.id!r}: expected at most {JSON_BYTES} bytes of text, tokens and labels, found"
            f" {len(line)}"
        )
    return line


def _write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write a file until it is on disk; returns the fields of its `FileEntry`."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb", buffering=_WRITE_BYTES) as file:
        for piece in pieces:
            digest.update(piece)
            size += file.write(piece)
    synchronise(path)
    return {"path": path.name, "bytes": size, "sha256": digest.hexdigest()}
