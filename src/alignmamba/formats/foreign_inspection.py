"""Content of a foreign file, found by reading it as a conversion does, without writing anything."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alignmamba.checksums import file_checksum
from alignmamba.contracts import ModalitySpec, Task
from alignmamba.data.inspection import Seen, SplitSummary, Training, shared_groups, training
from alignmamba.data.user_arrays import CheckedSplits
from alignmamba.errors import DataError
from alignmamba.formats import FORMATS
from alignmamba.formats.conversion import with_opened
from alignmamba.formats.foreign import FaultRow, Foreign, ReadOptions
from alignmamba.formats.known_formats import AUTO, check_source, detect
from alignmamba.formats.plain_files import counting
from alignmamba.formats.published_files import KNOWN, KnownFile
from alignmamba.formats.repairs import Progress


@dataclass(frozen=True, kw_only=True)
class ForeignInspection:
    """Findings of `inspect_foreign`."""

    path: str
    format: str
    layout: str
    """The format in words."""
    bytes: int
    """Size of the file, or of all files in the folder."""
    sha256: str
    """Checksum of a file; empty for a folder."""
    known: KnownFile | None
    """The published file that this is."""
    name: str
    """Name of a corpus made from it."""
    source: str
    task: Task
    splits: tuple[SplitSummary, ...]
    shared_groups: tuple[str, ...]
    """Groups of which more than one split has samples."""
    faults: tuple[FaultRow, ...]
    """Faults that a conversion finds, and their repairs."""
    notes: tuple[str, ...]
    """Notes on what a conversion keeps and drops, in sentences."""
    training: Training
    """Problems that training on it would meet."""


def inspect_foreign(
    path: str | Path,
    options: ReadOptions | None = None,
    *,
    format: str = AUTO,
    hashed: Callable[[int, int], None] | None = None,
    progress: Progress | None = None,
) -> ForeignInspection:
    """Describe a file or folder, and count what is wrong with it, labels out of range among it.

    `hashed` is called with how many bytes of how many were read for the checksum.

    Raises:
        DataError: If it is not recognised, or `convert` would refuse it for anything but its labels.
    """
    path = Path(path)
    format = detect([path]) if format == AUTO else format
    check_source(path)
    size, sha256 = _size_and_checksum(path, hashed)
    foreign, (specs, counted) = with_opened(
        format, [path], options or ReadOptions(), _counts, progress=progress, any_label=True
    )
    splits = tuple(seen.summary(specs, foreign.task) for seen in counted)
    return ForeignInspection(
        path=str(path),
        format=format,
        layout=FORMATS[format].SUMMARY,
        bytes=size,
        sha256=sha256,
        known=KNOWN.get(sha256),
        name=foreign.name,
        source=foreign.source,
        task=foreign.task,
        splits=splits,
        shared_groups=shared_groups(seen.groups for seen in counted),
        faults=tuple(foreign.faults.rows()),
        notes=foreign.notes,
        training=training(foreign.task, splits),
    )


def _size_and_checksum(path: Path, hashed: Callable[[int, int], None] | None) -> tuple[int, str]:
    """Bytes of a file, or of all files in a folder; and the SHA-256 of a file, empty for anything else."""
    try:
        if not path.is_file():
            return sum(each.stat().st_size for each in path.rglob("*") if each.is_file()), ""
        size = path.stat().st_size
        return size, file_checksum(path, counting(hashed, size))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _counts(foreign: Foreign) -> tuple[tuple[ModalitySpec, ...], list[Seen]]:
    """Modalities of opened files, and what is kept of each split."""
    any_range = foreign.task.model_copy(update={"label_range": None})
    checked = CheckedSplits(
        foreign.splits, task=any_range, vocabulary_sizes=foreign.vocabulary_sizes, empty="skip"
    )
    counted = [Seen(role, checked.names) for role in checked.roles]
    for seen in counted:
        for sample in checked.samples(seen.role):
            seen.add(sample.values, sample.times, sample.target, sample.group)
    return checked.specs(foreign.units), counted
