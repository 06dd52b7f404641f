"""Foreign files into the native archive: recognise, repair what may be repaired and count it, write all or
nothing.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from alignmamba.contracts import Corpus, Role, Split
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.inspection import place, target_problem
from alignmamba.data.publishing import prepare_destination, temporary_directory
from alignmamba.data.user_arrays import AbsentModalityError, SplitArrays, check_id, split_arrays
from alignmamba.errors import DataError
from alignmamba.formats.foreign import (
    Faults,
    Foreign,
    NeedsOptionError,
    ReadOptions,
)
from alignmamba.formats.known_formats import AUTO, check_source, detect, own_options, reader_of
from alignmamba.formats.plain_files import LazyRows
from alignmamba.formats.text_tokens import tokenised

SHARD_BYTES = 32 << 20
"""Values of one shard. Up to three are in memory: two are written while the next is read."""

Progress = Callable[[Role, int, int], None]
"""Told the split, the samples of it that were read, and how many it has."""

_DONE = {"zero": "set to 0", "mean": "set to the channel's mean over train", "keep": "kept as it is"}

Read = TypeVar("Read")

FaultRow = tuple[str, str, str, int]
"""Kind, where, what was done, how many."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A finished conversion."""

    format: str
    corpus: Corpus
    faults: tuple[FaultRow, ...]
    """What was wrong with the files, and what was done about it."""
    notes: tuple[str, ...]
    """What was kept and what was dropped, in sentences."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Foreign files with the repairs in place that all formats share."""

    foreign: Foreign
    splits: Mapping[Role, SplitArrays]
    """Samples as the archive takes them; faults are counted in ``foreign.faults`` as they are read."""


def convert(
    format: str,
    sources: Sequence[str | Path],
    destination: str | Path,
    options: ReadOptions | None = None,
    *,
    name: str | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Read foreign files and write what they hold as a corpus.

    Besides what the reader itself needs, up to three shards of 32 MiB are in memory at a time. The corpus
    appears under its name complete or not at all; what a killed conversion left is removed by the next one to
    the same destination.

    Args:
        format: Name of a format, or ``auto``.
        sources: The files or folders.
        destination: Directory of the corpus to make.
        options: How to read them.
        name: Name of the corpus; by default what the reader calls it.
        progress: Told after every sample.
        overwrite: Replace the corpus that is there, once the new one is complete.

    Raises:
        DataError: If a file is not what it should be, or the destination or the name cannot be used; nothing
            was written then.
    """
    started = time.perf_counter()
    options = options or ReadOptions()
    target = Path(destination)
    if target.name in ("", ".."):
        raise DataError(f"{target}: expected the name of a directory to make, found none that it could have")
    if name is not None and name != _in_unicode(name):
        raise DataError(f"name: expected text in Unicode, found {name!a}")
    prepare_destination(target, overwrite=overwrite)
    paths = [Path(source) for source in sources]
    foreign, corpus = without_absent(
        lambda absent: _written(
            open_foreign(format, paths, options, progress=progress, absent=absent),
            paths,
            target,
            options,
            name=name,
            overwrite=overwrite,
        )
    )
    return Conversion(
        format=foreign.format,
        corpus=corpus,
        faults=tuple(foreign.faults.rows()),
        notes=foreign.notes,
        seconds=time.perf_counter() - started,
    )


def without_absent(read: Callable[[Collection[str]], Read]) -> Read:
    """What reading gives, told the modalities that no sample has: that is known once all was read, which is
    done again without them.

    Args:
        read: Told the modalities to leave out.
    """
    try:
        return read(())
    except AbsentModalityError as error:
        return read(error.names)


def _written(
    opened: Opened,
    paths: Sequence[Path],
    target: Path,
    options: ReadOptions,
    *,
    name: str | None,
    overwrite: bool,
) -> tuple[Foreign, Corpus]:
    foreign = opened.foreign
    facts: dict[str, Any] = {
        "task": foreign.task,
        "name": name or foreign.name,
        "units": foreign.units,
        "source": lambda: _source(foreign),
        "shard_bytes": SHARD_BYTES,
    }
    sizes = foreign.vocabulary_sizes
    with naming(paths):
        if options.nonfinite == "mean":
            # The means are known once all of train was read, so the values are written twice.
            with temporary_directory(target) as directory:
                write_corpus(
                    directory / "kept",
                    opened.splits,
                    vocabulary_sizes=sizes,
                    nonfinite="keep",
                    empty="skip",
                    **facts,
                )
                kept = load_corpus(directory / "kept", nonfinite="mean", verify=False)
                splits = {
                    role: _arrays_of(split, kept, opened.splits[role].labels)
                    for role, split in kept.splits.items()
                }
                sizes = {spec.name: spec.dim for spec in kept.modalities if spec.kind == "tokens"}
                corpus = write_corpus(target, splits, vocabulary_sizes=sizes, overwrite=overwrite, **facts)
        else:
            # What is not finite was dealt with as it was read, so it is not looked for again.
            corpus = write_corpus(
                target,
                opened.splits,
                vocabulary_sizes=sizes,
                nonfinite="keep",
                empty="skip",
                overwrite=overwrite,
                **facts,
            )
    return foreign, corpus


def open_foreign(
    format: str,
    sources: Sequence[Path],
    options: ReadOptions,
    *,
    progress: Progress | None = None,
    any_label: bool = False,
    absent: Collection[str] = (),
) -> Opened:
    """Open files of a format, with the repairs that all formats share.

    - Features become float32. What is not finite, or too large for it, becomes 0, or is kept, or refused.
    - An array of length 0 is a missing modality.
    - A modality that no sample has is dropped, as `without_absent` finds.
    - A sample without a label, in a split where others have one, is dropped; a split without any is kept
      without labels.
    - A label outside the task's range is refused, or moved to its nearer end.
    - An id that was there before gets ``#2`` behind it; of one that was in another split, a note says that it
      may be a leak.

    Samples in which nothing is left are counted, and stay for `write_corpus` to skip.

    Args:
        format: Name of a format, or ``auto``.
        sources: The files or folders.
        options: How to read them.
        progress: Told after every sample.
        any_label: Whether a label outside the task's range is counted and left as it is, where it would be
            refused.
        absent: Modalities that no sample has, which are dropped with a note.

    Raises:
        DataError: If the format is unknown, does not read an option that is given, or a file is not of it.
    """
    if not sources:
        raise DataError("sources: expected at least one file, found none")
    if format == AUTO:
        format = detect(sources)
    reader = reader_of(format)
    options = own_options(format, options)
    for path in sources:
        check_source(path)
    with naming(sources):
        foreign = _told_in_unicode(reader.read(sources, options))
        if options.tokenizer is not None:
            foreign = tokenised(foreign, options.tokenizer)
        if options.nonfinite == "mean" and "train" not in foreign.splits:
            raise DataError(
                f"nonfinite mean needs a train split to take the means from, found {list(foreign.splits)}"
            )
        names = list(next(iter(foreign.splits.values())).features) if foreign.splits else []
        unknown = [name for name in options.dims if name not in names]
        if unknown:
            raise DataError(f"dims: no modality {unknown[0]!r}, only {names}")
        foreign = _leaving_out(foreign, absent)
        splits = {role: split_arrays(role, split) for role, split in foreign.splits.items()}
        ids = _distinct_ids(splits, foreign.faults)
        foreign = replace(foreign, notes=(*foreign.notes, *_shared_ids(splits)))
        splits = {
            role: _repaired(role, split, ids[role], foreign, options, progress, any_label)
            for role, split in splits.items()
        }
    return Opened(foreign=foreign, splits=splits)


@contextmanager
def naming(sources: Sequence[Path]) -> Iterator[None]:
    """See to it that an error about the content of files names them."""
    try:
        yield
    except AbsentModalityError:
        raise
    except DataError as error:
        if any(str(path) in str(error) for path in sources):
            raise
        message = f"{', '.join(map(str, sources))}: {error}"
        if isinstance(error, NeedsOptionError):
            raise NeedsOptionError(message, option=error.option) from error
        raise DataError(message) from error
    except OSError as error:
        raise _unreadable(error, ", ".join(map(str, sources))) from error


def _unreadable(error: OSError, where: str) -> DataError:
    return DataError(f"{error.filename or where}: cannot be read: {error.strerror or error}")


def _in_unicode(text: str) -> str:
    """Text of the name of a file, in which what is not UTF-8 is replaced."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _told_in_unicode(foreign: Foreign) -> Foreign:
    """The same, with nothing of a file's name in what is told of it that a manifest could not hold."""
    return replace(
        foreign,
        name=_in_unicode(foreign.name),
        source=_in_unicode(foreign.source),
        units={name: _in_unicode(unit) for name, unit in foreign.units.items()},
        notes=tuple(map(_in_unicode, foreign.notes)),
    )


def _leaving_out(foreign: Foreign, absent: Collection[str]) -> Foreign:
    """The same without modalities that no sample has."""

    def kept(given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if name not in absent}

    return replace(
        foreign,
        splits={
            role: replace(
                split, features=kept(split.features), times=kept(split.times), tokens=kept(split.tokens)
            )
            for role, split in foreign.splits.items()
        },
        units=kept(foreign.units),
        vocabulary_sizes=kept(foreign.vocabulary_sizes),
        notes=(
            *foreign.notes,
            *(f"No sample of any split has {name}, so the modality was dropped." for name in absent),
        ),
    )


def _source(foreign: Foreign) -> str:
    """Where the data comes from, and what was repaired on the way."""
    repairs = "; ".join(
        f"{kind} in {where}, {done}: {count}" for kind, where, done, count in foreign.faults.rows()
    )
    return f"{foreign.source or foreign.format}{f' (repaired: {repairs})' if repairs else ''}"


class _Latest:
    """What was made last, for several columns that need the same of a row."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make, self._row, self._made = make, -1, None

    def __call__(self, row: int) -> Any:
        if row != self._row:
            self._row, self._made = row, self._make(row)
        return self._made


def _repaired(
    role: Role,
    split: SplitArrays,
    ids: Sequence[str],
    foreign: Foreign,
    options: ReadOptions,
    progress: Progress | None,
    any_label: bool,
) -> SplitArrays:
    rows: Sequence[int] = range(len(ids))
    targets = None
    if split.targets is not None:
        rows, targets = _labelled(role, ids, split.targets, foreign, options, any_label)

    def load(at: int) -> dict[str, Any]:
        row = rows[at]
        try:
            found = {
                name: _values(given[row], role, ids[row], name, foreign.faults, options)
                for name, given in split.features.items()
            }
        except OSError as error:  # here, or else the archive takes it for a failure to write
            raise _unreadable(error, place(role, ids[row])) from error
        if all(values is None for values in found.values()):
            foreign.faults.add("sample without anything", where=role, done="dropped")
        if progress is not None:
            progress(role, at + 1, len(rows))
        return found

    def picked(given: Sequence[Any]) -> LazyRows:
        return LazyRows(len(rows), lambda at: given[rows[at]])

    latest = _Latest(load)
    return SplitArrays(
        features={name: LazyRows(len(rows), partial(_entry, latest, name)) for name in split.features},
        targets=targets,
        ids=[ids[row] for row in rows],
        times={name: picked(given) for name, given in split.times.items()},
        tokens={name: picked(given) for name, given in split.tokens.items()},
        texts=None if split.texts is None else picked(split.texts),
        groups=None if split.groups is None else picked(split.groups),
        labels={name: picked(given) for name, given in split.labels.items()},
    )


def _entry(latest: _Latest, name: str, at: int) -> Any:
    return latest(at)[name]


def _values(given: Any, role: Role, identity: str, name: str, faults: Faults, options: ReadOptions) -> Any:
    """Values of one modality of one sample, repaired; ``None`` where it is missing. What else may be wrong is
    the archive's to refuse.
    """
    if given is None:
        return None
    array = np.asarray(given)
    if array.ndim and len(array) == 0:
        faults.add("zero length", where=name, done="taken as missing")
        return None
    where = place(role, identity, name)
    if name in options.dims and (array.ndim != 2 or array.shape[1] != options.dims[name]):
        found = f"width {array.shape[1]}" if array.ndim == 2 else f"shape {array.shape}"
        raise DataError(f"{where}: expected width {options.dims[name]} by dims, found {found}")
    if array.dtype.kind != "f" or array.ndim != 2:
        return array
    stored = array
    if array.dtype != np.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            stored = np.asarray(array, dtype=np.float32)
    finite = np.isfinite(stored)
    if finite.all():
        return stored
    too_large = np.isfinite(array) & ~finite
    wrong = int(np.count_nonzero(~finite))
    if options.nonfinite == "error":
        position, channel = np.argwhere(~finite)[0]
        raise DataError(
            f"{where}: found {array[position, channel]} at position {position}, channel {channel} ({wrong} of"
            f" {array.size} values are not finite numbers that float32 holds); nonfinite zero or mean repairs"
            " them"
        )
    overflows = int(np.count_nonzero(too_large))
    faults.add("not finite", where=name, done=_DONE[options.nonfinite], count=wrong - overflows)
    faults.add("does not fit float32", where=name, done=_DONE[options.nonfinite], count=overflows)
    return np.where(finite, stored, np.float32(0)) if options.nonfinite == "zero" else stored


def _labelled(
    role: Role,
    ids: Sequence[str],
    given: Sequence[Any],
    foreign: Foreign,
    options: ReadOptions,
    any_label: bool,
) -> tuple[Sequence[int], list[Any] | None]:
    """The rows to keep, and their labels."""
    labels = [given[row] for row in range(len(given))]
    rows = [
        row
        for row, label in enumerate(labels)
        if label is not None and not (_is_number(label) and not _is_finite(label))
    ]
    if not rows:
        foreign.faults.add(
            "not a number label", where=role, done="split kept without labels", count=len(labels)
        )
        return range(len(ids)), None
    foreign.faults.add("not a number label", where=role, done="clip dropped", count=len(labels) - len(rows))
    limits = foreign.task.label_range
    if limits is not None:
        for row in rows:
            if (
                not _is_number(labels[row])
                or (problem := target_problem(float(labels[row]), foreign.task)) is None
            ):
                continue
            if not options.clip_labels and any_label:
                foreign.faults.add(
                    "label out of range", where=role, done="refused by convert, unless with --clip-labels"
                )
                continue
            if not options.clip_labels:
                raise NeedsOptionError(
                    f"{place(role, ids[row])}: {problem}; clip_labels=True (--clip-labels) moves it to the"
                    " nearer end",
                    option="--clip-labels",
                )
            labels[row] = min(max(float(labels[row]), limits[0]), limits[1])
            foreign.faults.add("label out of range", where=role, done="moved to the nearer end")
    return rows, [labels[row] for row in rows]


def _is_number(label: Any) -> bool:
    return isinstance(label, float | int | np.floating | np.integer) and not isinstance(label, bool)


def _is_finite(label: Any) -> bool:
    try:
        return math.isfinite(label)
    except OverflowError:  # an integer that no float holds
        return False


def _distinct_ids(splits: Mapping[Role, SplitArrays], faults: Faults) -> dict[Role, list[str]]:
    """Ids of every split, those of the file where it has any; one that was there before gets a number."""
    given: dict[Role, list[str]] = {}
    for role, split in splits.items():
        size = len(next(iter(split.features.values())))
        given[role] = (
            [f"{role}-{row:06d}" for row in range(1, size + 1)] if split.ids is None else list(split.ids)
        )
    for role, ids in given.items():
        for row, identity in enumerate(ids):
            check_id(role, row, identity)
    originals = {identity for ids in given.values() for identity in ids}
    taken: set[str] = set()
    numbers: dict[str, int] = {}  # the last that an id has got: there may be thousands of one
    for role, ids in given.items():
        for row, identity in enumerate(ids):
            distinct, number = identity, numbers.get(identity, 1)
            while distinct in taken or (number > 1 and distinct in originals):
                number += 1
                distinct = f"{identity}#{number}"
            if distinct != identity:
                faults.add("duplicate id", where=role, done="later one renamed to ID#2 and so on")
            taken.add(distinct)
            numbers[identity] = number
            ids[row] = distinct
    return given


def _shared_ids(splits: Mapping[Role, SplitArrays]) -> list[str]:
    """What is to be said of ids that several splits have: one sample may be in each of them."""
    home: dict[str, Role] = {}
    shared: dict[tuple[Role, Role], dict[str, None]] = {}
    for role, split in splits.items():
        for identity in split.ids or ():
            if (first := home.setdefault(identity, role)) != role:
                shared.setdefault((first, role), {})[identity] = None
    return [
        f"possible leak: {len(ids)} ids are in {first} and in {role}, {next(iter(ids))!a} first; the later"
        " ones were renamed, but if they are the same samples, a model is scored on what it was trained on"
        for (first, role), ids in shared.items()
    ]


def _arrays_of(split: Split, corpus: Corpus, labels: Collection[str]) -> SplitArrays:
    """A split of an archive, as it is written again, with the labels of those names."""
    size, latest = len(split), _Latest(split.__getitem__)
    kinds = {spec.name: spec.kind for spec in corpus.modalities}

    def features(name: str, row: int) -> Any:
        values = latest(row).features.get(name)
        return values if values is None or kinds[name] == "features" else values[:, 0]

    def target(row: int) -> Any:
        # By name: classes that are named by numbers take no index.
        found = latest(row).target
        return corpus.task.classes[int(found)] if corpus.task.classes else found

    def of_sample(field: str, name: str) -> LazyRows:
        return LazyRows(size, lambda row: getattr(latest(row), field).get(name))

    return SplitArrays(
        features={name: LazyRows(size, partial(features, name)) for name in kinds},
        targets=None if split[0].target is None else LazyRows(size, target),
        ids=split.ids,
        times={name: of_sample("times", name) for name in kinds},
        tokens={name: of_sample("tokens", name) for name in kinds},
        texts=LazyRows(size, lambda row: latest(row).text),
        groups=LazyRows(size, lambda row: latest(row).group),
        labels={name: of_sample("labels", name) for name in labels},
    )
