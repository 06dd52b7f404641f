"""Content and problems of a corpus."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignmamba.checksums import file_checksum
from alignmamba.contracts import Corpus, ModalitySpec, Role, Task
from alignmamba.data.labelled_splits import absent_classes_note
from alignmamba.data.storage import MANIFEST, Manifest, Shard, read_manifest
from alignmamba.errors import DataError, shown


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
    """True if its tokens have times."""
    constant: int = 0
    """Channels of features that have one value in all tokens of train; in other splits they are not
    counted."""
    step: float = 0.0
    """Largest step between numbers of float32 at the values of such channels."""


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """One split."""

    role: Role
    samples: int
    modalities: tuple[ModalitySummary, ...]
    targets: Mapping[str, float]
    """Regression: minimum, mean, maximum and standard deviation. Any other: number of samples by class.
    Empty where unknown."""
    labelled: int
    """Samples that have a target."""
    groups: int
    """Groups that its samples are known to belong to, such as conversations or videos."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Findings of `inspect_corpus`."""

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
    """Groups of which more than one split has samples: what a model learns of them in one, it may use in
    another."""
    problems: tuple[str, ...]
    """One line per fault: the place, what was found and what was expected. Empty for a sound corpus."""
    training: "Training"
    """Problems that training on it would meet."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """Problems that training on a corpus would meet."""

    hindrance: str
    """Reason why training is impossible as it is, and the way out; empty where it is possible."""
    dropped: tuple[str, ...]
    """Modalities that no training sample has, which a model does without."""
    notes: tuple[str, ...]
    """Further notes, in sentences."""


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
    seen = [_seen(role, parts, manifest) for role, parts in shards.items() if parts]
    splits = tuple(each.summary(manifest.modalities, manifest.task) for each in seen)
    return Inspection(
        path=str(directory),
        name=manifest.name,
        source=manifest.source,
        licence=manifest.licence,
        task=manifest.task,
        bytes=sum(
            shard.values.bytes + shard.strings.bytes for split in manifest.splits for shard in split.shards
        ),
        checksum=manifest.checksum,
        splits=splits,
        shared_groups=shared_groups(each.groups for each in seen),
        problems=tuple(problems),
        training=training(manifest.task, splits),
    )


def inspect_loaded(corpus: Corpus, *, source: str) -> Inspection:
    """Describe a corpus in memory, of which nothing can be damaged."""
    names = [spec.name for spec in corpus.modalities]
    seen, size = [Seen(role, names) for role in corpus.splits], 0
    for each in seen:
        for sample in corpus.splits[each.role]:
            size += sum(values.nbytes for values in sample.features.values())
            each.add(sample.features, sample.times, sample.target, sample.group)
    splits = tuple(each.summary(corpus.modalities, corpus.task) for each in seen)
    return Inspection(
        path=corpus.name,
        name=corpus.name,
        source=source,
        licence="",
        task=corpus.task,
        bytes=size,
        checksum=corpus.checksum,
        splits=splits,
        shared_groups=shared_groups(each.groups for each in seen),
        problems=(),
        training=training(corpus.task, splits),
    )


def training(task: Task, splits: Sequence[SplitSummary]) -> Training:
    """Say what training would meet in these splits."""
    parts = {split.role: split for split in splits}
    names = ", ".join(repr(role) for role in parts)
    hindrance = ""
    if "train" not in parts:
        hindrance = f"there is no split 'train', only {names}"
    elif not parts["train"].targets:
        hindrance = "split 'train' has no targets; `train --pretrain` needs none"
    elif "valid" not in parts:
        hindrance = (
            f"there is no split 'valid', only {names}; `train --split-valid 0.15` takes that share of train"
            " for it"
        )
    elif not parts["valid"].targets:
        hindrance = "split 'valid' has no targets"
    if "train" not in parts:
        return Training(hindrance=hindrance, dropped=(), notes=())
    train = parts["train"]
    dropped = tuple(each.name for each in train.modalities if each.missing == 1)
    notes = [f"no training sample has {name}: training drops it from the model" for name in dropped]
    for role in ("valid", "test"):
        notes += [
            f"no sample of {role} has {each.name}: {role} does not measure it"
            for each in (parts[role].modalities if role in parts else ())
            if each.missing == 1 and each.name not in dropped
        ]
    if "test" not in parts:
        notes.append(
            "there is no split 'test': scores are of 'valid', on which the best epoch is chosen; an"
            " experiment needs one"
        )
    elif not parts["test"].targets:
        notes.append("split 'test' has no targets: it is predicted and not scored")
    notes += [
        f"{part.samples - part.labelled} of {part.samples} samples of {part.role} have no target: they have"
        " no part in its loss and scores"
        for part in parts.values()
        if 0 < part.labelled < part.samples
    ]
    notes += _target_notes(task, train)
    for each in filter(lambda each: each.constant, train.modalities):
        count, dim = each.constant, each.dim
        which = f"{count} of {dim} channels {'have' if count > 1 else 'has'}"
        if count == dim:
            which = f"all {dim} channels have" if dim > 1 else "its channel has"
        coarse = (
            f". It is stored as float32, with steps of {each.step:g} there: subtract an offset before you"
            " write it"
            if each.step >= 0.01
            else ""
        )
        notes.append(
            f"{each.name}: {which} one value in all of train, so nothing can be learned from it{coarse}"
        )
    return Training(hindrance=hindrance, dropped=dropped, notes=tuple(notes))


def _target_notes(task: Task, train: SplitSummary) -> Iterator[str]:
    """Note on odd targets of train, where they are known."""
    if not train.targets:
        return
    if task.kind == "regression":
        if train.targets["minimum"] == train.targets["maximum"]:
            yield f"every target of train is {train.targets['minimum']:g}: there is nothing to learn"
        return
    present = [name for name, count in train.targets.items() if count]
    if len(present) == 1 and task.has_one_class:
        yield f"every sample of train is of class {present[0]!r}: there is nothing to learn"
    elif note := absent_classes_note(task, [int(train.targets[name]) for name in task.classes]):
        yield note


def examine(
    directory: Path, manifest: Manifest, *, verify: bool, require_finite: bool
) -> tuple[dict[Role, tuple[Shard, ...]], tuple[str, ...]]:
    """Open every shard of a corpus and check it.

    Args:
        directory: The corpus.
        manifest: Its manifest.
        verify: Read every file once, for its checksum and its values.
        require_finite: Whether a feature that is not finite is a fault.

    Returns:
        The shards that could be opened by split, and all faults found, one line each.
    """
    problems: list[str] = []
    shards: dict[Role, tuple[Shard, ...]] = {}
    for split in manifest.splits:
        opened: list[Shard] = []
        for entry in split.shards:
            try:
                shard = Shard(directory, entry, manifest)
            except DataError as error:
                problems.append(str(error))
                continue
            # What cannot be opened is not read: it may be of any size.
            for file in (entry.values, entry.strings) if verify else ():
                if file_checksum(directory / file.path) != file.sha256:
                    problems.append(
                        f"{directory / file.path}: SHA-256 differs from the one in {MANIFEST}; the file was"
                        " damaged or changed"
                    )
            opened.append(shard)
        shards[split.role] = tuple(opened)
    if not problems:  # or else nothing bears out the width that is stated
        opened = [shard for parts in shards.values() for shard in parts]
        problems += [
            f"{directory / MANIFEST}: modality {spec.name!r}: no sample of any split has it"
            for spec in manifest.modalities
            if not any(shard.offsets[spec.name][-1] > 0 for shard in opened)
        ]
    ids = {role: (identity for shard in parts for identity in shard.ids) for role, parts in shards.items()}
    problems += [repeated_id(*repeated) for repeated in repeats(ids)]
    for role, parts in shards.items():
        known = [shard.targets is not None for shard in parts]
        if any(known) and not all(known):
            problems.append(f"split {role!r}: only some shards have targets, expected all or none")
        for shard in parts:
            problems += _content_problems(role, shard, manifest, verify=verify, require_finite=require_finite)
    return shards, tuple(problems)


def _content_problems(
    role: Role, shard: Shard, manifest: Manifest, *, verify: bool, require_finite: bool
) -> Iterator[str]:
    present = np.sum([np.diff(shard.offsets[spec.name]) for spec in manifest.modalities], axis=0)
    for row in np.flatnonzero(present == 0).tolist():
        yield f"{place(role, shard.ids[row])}: {NOTHING_PRESENT}"
    if shard.targets is not None:
        for row, stored in enumerate(shard.targets.tolist()):
            target = manifest.task.known(stored)
            if target is not None and (problem := target_problem(target, manifest.task)):
                yield f"{place(role, shard.ids[row])}: {problem}"
    if not verify:
        return
    for spec in manifest.modalities:
        name, offsets = spec.name, shard.offsets[spec.name]
        for rows, values in shard.blocks(f"{name}.values"):
            if require_finite or spec.kind == "tokens":
                for row, part in _suspects(rows, values, offsets, sound=values_problem(values, spec) is None):
                    if problem := values_problem(part, spec):
                        problem += "; train with --nonfinite mean or zero to repair them" * (
                            spec.kind == "features"
                        )
                        yield f"{place(role, shard.ids[row], name)}: {problem}"
        if name in shard.timed:
            for rows, values in shard.blocks(f"{name}.times"):
                for row, part in _suspects(rows, values, offsets, sound=False):
                    if not np.isnan(part).all() and (problem := times_problem(part)):
                        yield f"{place(role, shard.ids[row], name)}: {problem}"


def _suspects(
    rows: range, block: np.ndarray, offsets: np.ndarray, *, sound: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """The samples of a block one by one; none where the whole block is known to be sound."""
    for row in () if sound else rows:
        part = block[offsets[row] - offsets[rows.start] : offsets[row + 1] - offsets[rows.start]]
        if len(part):
            yield row, part


# What can be wrong with one sample, said alike whether it is found before writing or on reading.

NOTHING_PRESENT = "no modality is present, expected at least one"


def place(role: str, identity: str, modality: str | None = None) -> str:
    """Place of something, for the start of a message."""
    return f"split {role!r}, sample {identity!r}" + ("" if modality is None else f", modality {modality!r}")


def repeats(ids: Mapping[Role, Iterable[str]]) -> Iterator[tuple[str, Role, Role]]:
    """Each id that was there before, the split that had it first, and the one that has it again."""
    home: dict[str, Role] = {}
    for role, own in ids.items():
        for identity in own:
            if identity in home:
                yield identity, home[identity], role
            home.setdefault(identity, role)


def repeated_id(identity: str, first: str, second: str) -> str:
    """Problem of an id that two samples share."""
    if first == second:
        return f"split {first!r}: id {identity!r} appears more than once, expected distinct ids"
    return (
        f"id {identity!r} is in split {first!r} and in split {second!r}, expected splits that share no sample"
    )


def values_problem(values: np.ndarray, spec: ModalitySpec) -> str | None:
    """Problem of the values of a modality, if any; (time, width)."""
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
    """Problem of the times of a modality, if any; (time,)."""
    wrong = np.flatnonzero(~np.isfinite(seconds))
    if len(wrong):
        return f"times: found {seconds[wrong[0]]} at position {wrong[0]}, expected finite seconds"
    falls = np.flatnonzero(np.diff(seconds) < 0)
    if len(falls):
        at = falls[0]
        return (
            f"times: fall from {seconds[at]} to {seconds[at + 1]} at position {at + 1}, expected seconds that"
            " never decrease"
        )
    return None


def target_problem(target: float | Sequence[float], task: Task) -> str | None:
    """Problem of a known target, if any."""
    if isinstance(target, Sequence):
        wrong = [value for value in target if value not in (0, 1) and not math.isnan(value)]
        return f"target {wrong[0]}, expected 1, 0 or NaN for each class" if wrong else None
    if task.has_one_class:
        if not 0 <= target < len(task.classes):
            return f"target {shown(target)}, expected a class index from 0 to {len(task.classes) - 1}"
    elif not np.isfinite(target):
        return f"target {target}, expected a finite number"
    elif task.label_range is not None and not task.label_range[0] <= target <= task.label_range[1]:
        return f"target {target}, expected a number from {task.label_range[0]} to {task.label_range[1]}"
    return None


# What a split is made of


class Seen:
    """Facts about the samples of a split that were read.

    Args:
        role: The split.
        names: Its modalities.
    """

    def __init__(self, role: Role, names: Iterable[str]) -> None:
        self.role = role
        self.lengths: dict[str, Any] = {name: [] for name in names}
        """Tokens of every sample by modality, 0 where it is missing."""
        self.timed: set[str] = set()
        """Modalities of which some tokens have times."""
        self.targets: Any = []
        self.groups: set[str] = set()
        self._ends: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        """Smallest and largest value of every channel, by modality."""

    def add(
        self,
        values: Mapping[str, np.ndarray | None],
        times: Mapping[str, np.ndarray],
        target: float | int | tuple[float, ...] | None,
        group: str | None,
    ) -> None:
        """Take in another sample."""
        for name, lengths in self.lengths.items():
            given = values.get(name)
            lengths.append(0 if given is None else len(given))
            if given is not None:
                self.add_values(name, given)
        self.timed.update(times)
        self.targets.append(target)
        self.groups |= set() if group is None else {group}

    def add_values(self, name: str, values: np.ndarray) -> None:
        """Take in another (time, width) array; channels of train alone are looked at."""
        if self.role == "train" and len(values):
            low, high = values.min(axis=0), values.max(axis=0)
            before = self._ends.get(name, (low, high))
            self._ends[name] = np.minimum(before[0], low), np.maximum(before[1], high)

    def _modality(self, spec: ModalitySpec) -> ModalitySummary:
        counts = np.asarray(self.lengths[spec.name])
        present = counts[counts > 0]
        low, high = self._ends.get(spec.name, (np.empty(0), np.empty(0)))
        # a channel that has a value which is not a number is none
        constant = low[low == high] if spec.kind == "features" else np.empty(0)
        return ModalitySummary(
            name=spec.name,
            kind=spec.kind,
            dim=spec.dim,
            units=spec.units,
            shortest=int(present.min(initial=present.max(initial=0))),
            median=float(np.median(present)) if len(present) else 0.0,
            longest=int(present.max(initial=0)),
            missing=float(np.mean(counts == 0)),
            timed=spec.name in self.timed,
            constant=len(constant),
            step=float(np.spacing(np.abs(constant)).max(initial=0)),
        )

    def summary(self, modalities: Sequence[ModalitySpec], task: Task) -> SplitSummary:
        """Summary of all that was taken in."""
        found: dict[str, float] = {}
        targets = np.asarray([target for target in self.targets if target is not None])
        if len(targets) and task.has_one_class:
            inside = targets[(targets >= 0) & (targets < len(task.classes))].astype(np.int64)
            counts = np.bincount(inside, minlength=len(task.classes)).tolist()
            found = dict(zip(task.classes, counts, strict=True))
        elif len(targets) and task.kind == "multilabel":
            found = dict(zip(task.classes, (targets > 0).sum(axis=0).tolist(), strict=True))
        elif len(targets):
            with np.errstate(invalid="ignore"):  # infinite targets are among the problems
                found = {
                    "minimum": float(targets.min()),
                    "mean": float(targets.mean()),
                    "maximum": float(targets.max()),
                    "standard deviation": float(targets.std()),
                }
        return SplitSummary(
            role=self.role,
            samples=len(next(iter(self.lengths.values()))),
            modalities=tuple(map(self._modality, modalities)),
            targets=found,
            labelled=len(targets),
            groups=len(self.groups),
        )


def _seen(role: Role, shards: Sequence[Shard], manifest: Manifest) -> Seen:
    """Facts about the samples of shards, whose values are read for train alone."""
    seen = Seen(role, [spec.name for spec in manifest.modalities])
    for name in seen.lengths:
        seen.lengths[name] = np.concatenate([np.diff(shard.offsets[name]) for shard in shards])
        for shard in shards if role == "train" else ():
            for _, values in shard.blocks(f"{name}.values"):
                seen.add_values(name, values)
    seen.timed = {name for shard in shards for name in shard.timed}
    seen.groups = {group for shard in shards for group in shard.groups if group is not None}
    for shard in shards:
        stored = [] if shard.targets is None else shard.targets.tolist()
        seen.targets += map(manifest.task.known, stored)
    return seen


def shared_groups(splits: Iterable[Collection[str]]) -> tuple[str, ...]:
    """Groups that several splits have, sorted."""
    counts = Counter(group for groups in splits for group in set(groups))
    return tuple(sorted(group for group, count in counts.items() if count > 1))
