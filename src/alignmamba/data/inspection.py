"""What is in a corpus, and what is wrong with it."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignmamba.checksums import file_checksum
from alignmamba.contracts import ModalitySpec, Role, Task
from alignmamba.data.storage import MANIFEST, Manifest, Shard, read_manifest
from alignmamba.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ModalitySummary:
    """One modality of one split. Lengths are in tokens, over the samples that have the modality."""

    name: str
    kind: str
    dim: int
    units: str
    shortest: int
    median: float
    longest: int
    missing: float
    """Share of the samples that lack the modality."""
    timed: bool
    """Whether its tokens have times."""


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """One split."""

    role: Role
    samples: int
    modalities: tuple[ModalitySummary, ...]
    targets: Mapping[str, float]
    """Classification: number of samples by class. Regression: minimum, mean, maximum and standard deviation. Empty where unknown."""
    groups: int
    """Groups that its samples are known to belong to, such as conversations or videos."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `inspect_corpus` found."""

    path: str
    name: str
    source: str
    licence: str
    task: Task
    bytes: int
    """Size of all shards."""
    checksum: str
    splits: tuple[SplitSummary, ...]
    """Splits of which at least one shard could be read; only such shards are counted."""
    shared_groups: tuple[str, ...]
    """Groups of which more than one split has samples: what a model learns of them in one, it may use in another."""
    problems: tuple[str, ...]
    """One line per fault: the place, what was found and what was expected. Empty for a sound corpus."""


def inspect_corpus(path: str | Path) -> Inspection:
    """Describe a corpus and list everything that is wrong with it.

    Args:
        path: Directory of the corpus.

    Raises:
        DataError: If the directory is no corpus at all or its `corpus.json` cannot be used.
    """
    directory = Path(path)
    manifest = read_manifest(directory)
    shards, problems = examine(directory, manifest, verify=True, require_finite=True)
    return Inspection(
        path=str(directory),
        name=manifest.name,
        source=manifest.source,
        licence=manifest.licence,
        task=manifest.task,
        bytes=sum(shard.values.bytes + shard.strings.bytes for split in manifest.splits for shard in split.shards),
        checksum=manifest.checksum,
        splits=tuple(_summary(role, parts, manifest) for role, parts in shards.items() if parts),
        shared_groups=shared_groups(_groups(parts) for parts in shards.values()),
        problems=tuple(problems),
    )


def examine(
    directory: Path, manifest: Manifest, *, verify: bool, require_finite: bool
) -> tuple[dict[Role, tuple[Shard, ...]], tuple[str, ...]]:
    """Open every shard of a corpus and check it.

    Args:
        directory: The corpus.
        manifest: Its manifest.
        verify: Read every file once, for its checksum and its values; without it sizes, structure, ids and targets are checked.
        require_finite: Whether a feature that is not finite is a fault.

    Returns:
        The shards that could be opened by split, and all faults found, one line each.
    """
    problems: list[str] = []
    shards: dict[Role, tuple[Shard, ...]] = {}
    for split in manifest.splits:
        opened: list[Shard] = []
        for entry in split.shards:
            if verify:
                for file in (entry.values, entry.strings):
                    path = directory / file.path
                    # A file that is missing or has another size is reported when it is opened.
                    if path.is_file() and path.stat().st_size == file.bytes and file_checksum(path) != file.sha256:
                        problems.append(f"{path}: SHA-256 differs from the one in {MANIFEST}; the file was damaged or changed")
            try:
                opened.append(Shard(directory, entry, manifest))
            except DataError as error:
                problems.append(str(error))
        shards[split.role] = tuple(opened)
    problems += _repeated_ids(shards)
    for role, parts in shards.items():
        known = [shard.targets is not None for shard in parts]
        if any(known) and not all(known):
            problems.append(f"split {role!r}: only some shards have targets, expected all or none")
        for shard in parts:
            problems += _content_problems(role, shard, manifest, verify=verify, require_finite=require_finite)
    return shards, tuple(problems)


def _repeated_ids(shards: Mapping[Role, Iterable[Shard]]) -> Iterator[str]:
    home: dict[str, Role] = {}
    for role, parts in shards.items():
        for shard in parts:
            for identity in shard.ids:
                if identity in home:
                    yield repeated_id(identity, home[identity], role)
                home[identity] = role


def _content_problems(role: Role, shard: Shard, manifest: Manifest, *, verify: bool, require_finite: bool) -> Iterator[str]:
    present = np.sum([np.diff(shard.offsets[spec.name]) for spec in manifest.modalities], axis=0)
    for row in np.flatnonzero(present == 0).tolist():
        yield f"{place(role, shard.ids[row])}: {NOTHING_PRESENT}"
    if shard.targets is not None:
        for row, target in enumerate(shard.targets.tolist()):
            if problem := target_problem(target, manifest.task):
                yield f"{place(role, shard.ids[row])}: {problem}"
    if not verify:
        return
    for spec in manifest.modalities:
        name, offsets = spec.name, shard.offsets[spec.name]
        for rows, values in shard.blocks(f"{name}.values"):
            if require_finite or spec.kind == "tokens":
                for row, part in _suspects(rows, values, offsets, sound=values_problem(values, spec) is None):
                    if problem := values_problem(part, spec):
                        yield f"{place(role, shard.ids[row], name)}: {problem}"
        if name in shard.timed:
            for rows, values in shard.blocks(f"{name}.times"):
                for row, part in _suspects(rows, values, offsets, sound=False):
                    if not np.isnan(part).all() and (problem := times_problem(part)):
                        yield f"{place(role, shard.ids[row], name)}: {problem}"


def _suspects(rows: range, block: np.ndarray, offsets: np.ndarray, *, sound: bool) -> Iterator[tuple[int, np.ndarray]]:
    """The samples of a block one by one; none where the whole block is known to be sound."""
    for row in () if sound else rows:
        part = block[offsets[row] - offsets[rows.start] : offsets[row + 1] - offsets[rows.start]]
        if len(part):
            yield row, part


# What can be wrong with one sample, said alike whether it is found before writing or on reading.

NOTHING_PRESENT = "no modality is present, expected at least one"


def place(role: str, identity: str, modality: str | None = None) -> str:
    """Where something is, for the start of a message."""
    return f"split {role!r}, sample {identity!r}" + ("" if modality is None else f", modality {modality!r}")


def repeated_id(identity: str, first: str, second: str) -> str:
    """What to say of an id that two samples share."""
    if first == second:
        return f"split {first!r}: id {identity!r} appears more than once, expected distinct ids"
    return f"id {identity!r} is in split {first!r} and in split {second!r}, expected splits that share no sample"


def values_problem(values: np.ndarray, spec: ModalitySpec) -> str | None:
    """What is wrong with the values of a modality, if anything; (time, width)."""
    if spec.kind == "tokens":
        outside = np.flatnonzero((values[:, 0] < 0) | (values[:, 0] >= spec.dim))
        if len(outside) == 0:
            return None
        return f"token id {values[outside[0], 0]} at position {outside[0]}, expected 0 to {spec.dim - 1}"
    finite = np.isfinite(values)
    if finite.all():
        return None
    position, channel = np.argwhere(~finite)[0]
    return (
        f"found {values[position, channel]} at position {position}, channel {channel} "
        f"({np.count_nonzero(~finite)} of {values.size} values are not finite), expected finite numbers"
    )


def times_problem(seconds: np.ndarray) -> str | None:
    """What is wrong with the times of a modality, if anything; (time,)."""
    wrong = np.flatnonzero(~np.isfinite(seconds))
    if len(wrong):
        return f"times: found {seconds[wrong[0]]} at position {wrong[0]}, expected finite seconds"
    falls = np.flatnonzero(np.diff(seconds) < 0)
    if len(falls):
        at = falls[0]
        return f"times: fall from {seconds[at]} to {seconds[at + 1]} at position {at + 1}, expected seconds that never decrease"
    return None


def target_problem(target: float, task: Task) -> str | None:
    """What is wrong with a target, if anything."""
    if task.kind == "classification":
        if not 0 <= target < len(task.classes):
            return f"target {target}, expected a class index from 0 to {len(task.classes) - 1}"
    elif not np.isfinite(target):
        return f"target {target}, expected a finite number"
    elif task.label_range is not None and not task.label_range[0] <= target <= task.label_range[1]:
        return f"target {target}, expected a number from {task.label_range[0]} to {task.label_range[1]}"
    return None


def _groups(shards: Iterable[Shard]) -> set[str]:
    return {group for shard in shards for group in shard.groups if group is not None}


def shared_groups(splits: Iterable[Collection[str]]) -> tuple[str, ...]:
    """Groups that several splits have, sorted."""
    counts = Counter(group for groups in splits for group in set(groups))
    return tuple(sorted(group for group, count in counts.items() if count > 1))


def _summary(role: Role, shards: tuple[Shard, ...], manifest: Manifest) -> SplitSummary:
    known = [shard.targets for shard in shards if shard.targets is not None]
    return summarise(
        role,
        manifest.modalities,
        manifest.task,
        lengths={spec.name: np.concatenate([np.diff(shard.offsets[spec.name]) for shard in shards]) for spec in manifest.modalities},
        timed={spec.name for spec in manifest.modalities if any(spec.name in shard.timed for shard in shards)},
        targets=np.concatenate(known) if known else None,
        groups=len(_groups(shards)),
    )


def summarise(
    role: Role,
    modalities: Sequence[ModalitySpec],
    task: Task,
    *,
    lengths: Mapping[str, np.ndarray],
    timed: Collection[str],
    targets: np.ndarray | None,
    groups: int,
) -> SplitSummary:
    """What there is to say of a split.

    Args:
        role: Its role.
        modalities: Its modalities.
        task: What is predicted.
        lengths: By modality, the tokens of every sample, 0 where it is missing.
        timed: Modalities of which some tokens have times.
        targets: (samples,), where they are known.
        groups: How many groups its samples are known to belong to.
    """
    summaries = []
    for spec in modalities:
        counts = lengths[spec.name]
        present = counts[counts > 0]
        summaries.append(
            ModalitySummary(
                name=spec.name,
                kind=spec.kind,
                dim=spec.dim,
                units=spec.units,
                shortest=int(present.min(initial=present.max(initial=0))),
                median=float(np.median(present)) if len(present) else 0.0,
                longest=int(present.max(initial=0)),
                missing=float(np.mean(counts == 0)),
                timed=spec.name in timed,
            )
        )
    found: dict[str, float] = {}
    if targets is not None and task.kind == "classification":
        found = {name: int(np.count_nonzero(targets == index)) for index, name in enumerate(task.classes)}
    elif targets is not None:
        with np.errstate(invalid="ignore"):  # infinite targets are among the problems
            found = {
                "minimum": float(targets.min()),
                "mean": float(targets.mean()),
                "maximum": float(targets.max()),
                "standard deviation": float(targets.std()),
            }
    return SplitSummary(role=role, samples=len(next(iter(lengths.values()))), modalities=tuple(summaries), targets=found, groups=groups)
