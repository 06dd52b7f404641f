"""Foreign files into the native archive: recognise, repair what may be repaired and count it, write all or
nothing.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from alignmamba.contracts import Corpus, Role, Split
from alignmamba.data.archive import load_corpus, write_corpus
from alignmamba.data.labelled_splits import is_labelled
from alignmamba.data.storage import prepare_destination
from alignmamba.data.user_arrays import AbsentModalityError, SplitArrays, split_arrays
from alignmamba.errors import DataError
from alignmamba.files import temporary_directory
from alignmamba.formats.foreign import (
    FaultRow,
    Foreign,
    LabelOptions,
    NeedsOptionError,
    ReadOptions,
    UnknownLabelError,
    faults_in_words,
)
from alignmamba.formats.known_formats import AUTO, check_source, detect, own_options, reader_of
from alignmamba.formats.leading_labels import led_by_labels, refuse_unknown_labels
from alignmamba.formats.plain_files import LazyRows
from alignmamba.formats.repairs import Progress, Repairs, distinct_ids, shared_ids, unreadable
from alignmamba.formats.text_tokens import tokenised

SHARD_BYTES = 32 << 20
"""Values of one shard. Up to three are in memory: two are written while the next is read."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A finished conversion."""

    format: str
    corpus: Corpus
    faults: tuple[FaultRow, ...]
    """Faults of the files, and their repairs."""
    notes: tuple[str, ...]
    """Notes on what was kept and dropped, in sentences."""
    seconds: float


def convert(
    format: str,
    sources: Sequence[str | Path],
    destination: str | Path,
    options: ReadOptions | None = None,
    *,
    name: str | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    led: bool = True,
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
        progress: Called after every sample.
        overwrite: Replace the corpus that is there, once the new one is complete.
        led: Let several labels of the options lead the corpus; else the others stand beside the first.

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

    written = partial(_written, target=target, nonfinite=options.nonfinite, name=name, overwrite=overwrite)
    paths = [Path(source) for source in sources]
    foreign, corpus = with_opened(format, paths, options, written, progress=progress, led=led)
    return Conversion(
        format=foreign.format,
        corpus=corpus,
        faults=tuple(foreign.faults.rows()),
        notes=foreign.notes,
        seconds=time.perf_counter() - started,
    )


def with_opened(
    format: str,
    paths: Sequence[Path],
    options: ReadOptions,
    use: Callable[[Foreign], Result],
    *,
    progress: Progress | None = None,
    any_label: bool = False,
    led: bool = True,
) -> tuple[Foreign, Result]:
    """Files, opened as by `open_foreign`, and the result of reading through them. That no sample has a
    modality is known once all was read, which is done again without it.
    """

    def used(absent: Collection[str]) -> tuple[Foreign, Result]:
        how: dict[str, Any] = {"progress": progress, "any_label": any_label, "absent": absent, "led": led}
        foreign = open_foreign(format, paths, options, **how)
        with _naming(paths):
            return foreign, use(foreign)

    try:
        return used(())
    except AbsentModalityError as error:
        return used(error.names)


def _written(foreign: Foreign, target: Path, nonfinite: str, *, name: str | None, overwrite: bool) -> Corpus:
    """The corpus of opened files, written to its place."""

    def write(place: Path, splits: Mapping[Role, SplitArrays], **how: Any) -> Corpus:
        facts: dict[str, Any] = {
            "task": foreign.task,
            "name": name or foreign.name,
            "units": foreign.units,
            "source": lambda: _source(foreign),
            "shard_bytes": SHARD_BYTES,
        }
        return write_corpus(place, splits, **facts, **how)

    # What is not finite was repaired as it was read, or is kept: it is not looked for again.
    as_read: dict[str, Any] = {"nonfinite": "keep", "empty": "skip"}
    as_read["vocabulary_sizes"] = foreign.vocabulary_sizes
    if nonfinite != "mean":
        return write(target, foreign.splits, overwrite=overwrite, **as_read)
    # The means are known once all of train was read, so the values are written twice.
    with temporary_directory(target) as directory:
        write(directory / "kept", foreign.splits, **as_read)
        kept = load_corpus(directory / "kept", nonfinite="mean", verify=False)
        splits = {role: _arrays_of(split, kept, foreign.splits[role]) for role, split in kept.splits.items()}
        sizes = {spec.name: spec.dim for spec in kept.modalities if spec.kind == "tokens"}
        return write(target, splits, vocabulary_sizes=sizes, overwrite=overwrite)


def _source(foreign: Foreign) -> str:
    """Source of the data, and what was repaired on the way."""
    repairs = faults_in_words(foreign.faults.rows())
    return f"{foreign.source or foreign.format}{f' (repaired: {repairs})' if repairs else ''}"


def open_foreign(
    format: str,
    sources: Sequence[Path],
    options: ReadOptions,
    *,
    progress: Progress | None = None,
    any_label: bool = False,
    absent: Collection[str] = (),
    led: bool = True,
) -> Foreign:
    """Open files of a format, or of that which they look like for ``auto``, with the repairs that all formats
    share (docs/formats.md lists them). Faults are counted as samples are read.

    Samples in which nothing is left are counted, and stay for `write_corpus` to skip. With `any_label` a
    label outside the task's range is counted and left as it is, where it would be refused. Modalities that
    are absent from every sample are dropped with a note. Several labels lead unless `led` is false: then the
    others stand beside the first.

    Raises:
        DataError: If the format is unknown, does not read an option that is given, or a file is not of it.
    """
    if not sources:
        raise DataError("sources: expected at least one file, found none")
    format = detect(sources) if format == AUTO else format
    reader = reader_of(format)
    options = own_options(format, options)
    for path in sources:
        check_source(path)
    with _naming(sources):
        foreign = _reported_in_unicode(reader.read(sources, options))
        if isinstance(options, LabelOptions) and options.label:
            foreign = _of_labels(foreign, options.label, led=led)
        if options.tokenizer is not None:
            foreign = tokenised(foreign, options.tokenizer)
        _check_fit(options, foreign)
        foreign = foreign.without(absent)
        splits = {role: split_arrays(role, split) for role, split in foreign.splits.items()}
        ids = distinct_ids(splits, foreign.faults)
        notes = [f"No sample of any split has {name}, so the modality was dropped." for name in absent]
        foreign = replace(foreign, notes=(*foreign.notes, *notes, *shared_ids(splits)))
        repairs = Repairs(foreign=foreign, options=options, progress=progress, any_label=any_label)
        splits = {role: repairs.split(role, split, ids[role]) for role, split in splits.items()}
    return replace(foreign, splits=splits)


def _of_labels(foreign: Foreign, names: Sequence[str], *, led: bool) -> Foreign:
    """The content of files that were read with the first of these labels as their target, led by them all."""
    refuse_unknown_labels(foreign, names)
    if len(names) > 1 and led:
        return led_by_labels(foreign, names)
    if foreign.task.labels:
        return foreign
    return replace(foreign, task=foreign.task.model_copy(update={"labels": tuple(names[:1])}))


def _check_fit(options: ReadOptions, foreign: Foreign) -> None:
    """Refuse options that name a split or a modality that is not there."""
    if options.nonfinite == "mean" and "train" not in foreign.splits:
        raise DataError(
            f"nonfinite mean needs a train split to take the means from, found {list(foreign.splits)}"
        )
    names = list(next(iter(foreign.splits.values())).features) if foreign.splits else []
    for name in options.dims:
        if name not in names:
            raise DataError(f"dims: no modality {name!r}, only {names}")


@contextmanager
def _naming(sources: Sequence[Path]) -> Iterator[None]:
    """See to it that an error about the content of files names them."""
    names = ", ".join(map(str, sources))
    try:
        yield
    except AbsentModalityError:
        raise
    except DataError as error:
        if any(str(path) in str(error) for path in sources):
            raise
        if isinstance(error, NeedsOptionError):
            raise NeedsOptionError(f"{names}: {error}", option=error.option) from error
        kind = UnknownLabelError if isinstance(error, UnknownLabelError) else DataError
        raise kind(f"{names}: {error}") from error
    except OSError as error:
        raise unreadable(error, names) from error


def _in_unicode(text: str) -> str:
    """Text of the name of a file, in which what is not UTF-8 is replaced."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _reported_in_unicode(foreign: Foreign) -> Foreign:
    """The same, with nothing of a file's name in what is reported of it that a manifest could not hold."""
    return replace(
        foreign,
        name=_in_unicode(foreign.name),
        source=_in_unicode(foreign.source),
        units={name: _in_unicode(unit) for name, unit in foreign.units.items()},
        notes=tuple(map(_in_unicode, foreign.notes)),
    )


def _arrays_of(split: Split, corpus: Corpus, given: SplitArrays) -> SplitArrays:
    """A split of an archive, as it is written again, with the labels of the names that were given."""
    latest: Callable[[int], Any] = lru_cache(maxsize=1)(split.__getitem__)
    kinds = {spec.name: spec.kind for spec in corpus.modalities}

    def features(name: str, row: int) -> Any:
        values = latest(row).features.get(name)
        return values if values is None or kinds[name] == "features" else values[:, 0]

    def target(row: int) -> Any:
        # By name: classes that are named by numbers take no index.
        found = latest(row).target
        return corpus.task.words(found) if corpus.task.has_one_class and found is not None else found

    def rows(get: Callable[[int], Any]) -> LazyRows:
        return LazyRows(len(split), get)

    def by_name(field: str, names: Collection[str]) -> dict[str, LazyRows]:
        def entry(name: str, row: int) -> Any:
            return getattr(latest(row), field).get(name)

        return {name: rows(partial(entry, name)) for name in names}

    def of_tokens(name: str, label: str, row: int) -> Any:
        return latest(row).token_labels.get(name, {}).get(label)

    return SplitArrays(
        features={name: rows(partial(features, name)) for name in kinds},
        targets=rows(target) if is_labelled(split) else None,
        ids=split.ids,
        times=by_name("times", kinds),
        tokens=by_name("tokens", kinds),
        texts=rows(lambda row: latest(row).text),
        groups=rows(lambda row: latest(row).group),
        labels=by_name("labels", given.labels),
        token_labels={
            name: {label: rows(partial(of_tokens, name, label)) for label in labels}
            for name, labels in given.token_labels.items()
        },
    )
