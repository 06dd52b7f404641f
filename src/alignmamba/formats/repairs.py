"""Repairs that all formats share, made and counted while samples are read."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from alignmamba.contracts import Role
from alignmamba.data.inspection import place, repeats, target_problem
from alignmamba.data.user_arrays import SplitArrays, ids_of
from alignmamba.errors import DataError
from alignmamba.formats.foreign import Faults, Foreign, NeedsOptionError, ReadOptions
from alignmamba.formats.plain_files import LazyRows

Progress = Callable[[Role, int, int], None]
"""Called with the split, the samples of it that were read, and how many it has."""

_DONE = {"zero": "set to 0", "mean": "set to the channel's mean over train", "keep": "kept as it is"}


@dataclass(frozen=True, kw_only=True)
class Repairs:
    """Repairs of the samples of a file, counted in its faults."""

    foreign: Foreign
    options: ReadOptions
    progress: Progress | None
    any_label: bool
    """True if a label outside the task's range is counted and left as it is, where it would be refused."""

    def split(self, role: Role, split: SplitArrays, ids: Sequence[str]) -> SplitArrays:
        """A split, of samples with these distinct ids, whose samples are repaired when they are asked for."""
        rows: Sequence[int] = range(len(ids))
        targets = None
        if split.targets is not None:
            rows, targets = self._labelled(role, ids, split)

        @lru_cache(maxsize=1)  # every modality of a sample is asked for after the other
        def load(at: int) -> dict[str, Any]:
            row = rows[at]
            try:
                found = {
                    name: self._values(given[row], role, ids[row], name)
                    for name, given in split.features.items()
                }
            except OSError as error:  # here, or else the archive takes it for a failure to write
                raise unreadable(error, place(role, ids[row])) from error
            if all(values is None for values in found.values()):
                self.foreign.faults.add("sample without anything", where=role, done="dropped")
            if self.progress is not None:
                self.progress(role, at + 1, len(rows))
            return found

        def entry(name: str, at: int) -> Any:
            return load(at)[name]

        return replace(
            split.changed(lambda given: LazyRows(len(rows), lambda at: given[rows[at]])),
            features={name: LazyRows(len(rows), partial(entry, name)) for name in split.features},
            targets=targets,
            ids=[ids[row] for row in rows],
        )

    def _values(self, given: Any, role: Role, identity: str, name: str) -> Any:
        """Values of one modality of one sample, repaired; ``None`` where it is missing. What else may be
        wrong is the archive's to refuse.
        """
        if given is None:
            return None
        array = np.asarray(given)
        if array.ndim and len(array) == 0:
            self.foreign.faults.add("zero length", where=name, done="taken as missing")
            return None
        where = place(role, identity, name)
        if name in self.options.dims and (array.ndim != 2 or array.shape[1] != self.options.dims[name]):
            found = f"width {array.shape[1]}" if array.ndim == 2 else f"shape {array.shape}"
            raise DataError(f"{where}: expected width {self.options.dims[name]} by dims, found {found}")
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
        if self.options.nonfinite == "error":
            position, channel = np.argwhere(~finite)[0]
            raise DataError(
                f"{where}: found {array[position, channel]} at position {position}, channel {channel}"
                f" ({wrong} of {array.size} values are not finite numbers that float32 holds); nonfinite zero"
                " or mean repairs them"
            )
        overflows = int(np.count_nonzero(too_large))
        done, faults = _DONE[self.options.nonfinite], self.foreign.faults
        faults.add("not finite", where=name, done=done, count=wrong - overflows)
        faults.add("does not fit float32", where=name, done=done, count=overflows)
        return np.where(finite, stored, np.float32(0)) if self.options.nonfinite == "zero" else stored

    def _labelled(
        self, role: Role, ids: Sequence[str], split: SplitArrays
    ) -> tuple[Sequence[int], list[Any] | None]:
        """The rows to keep, and their labels: all that have this label or another one."""
        given, faults = split.targets or (), self.foreign.faults
        labels = [label if _is_known(label) else None for label in (given[row] for row in range(len(given)))]
        lacking = [row for row, label in enumerate(labels) if label is None]
        if len(lacking) == len(labels):
            faults.add("not a number label", where=role, done="split kept without labels", count=len(labels))
            return range(len(ids)), None
        bare = {row for row in lacking if not any(_is_known(cells[row]) for cells in split.labels.values())}
        faults.add("not a number label", where=role, done="clip dropped", count=len(bare))
        kept = len(lacking) - len(bare)
        faults.add("not a number label", where=role, done="clip kept for its other labels", count=kept)
        rows = [row for row in range(len(labels)) if row not in bare]
        return rows, [self._in_range(role, ids[row], labels[row]) for row in rows]

    def _in_range(self, role: Role, identity: str, label: Any) -> Any:
        """The label, or its range's nearer end; it may be refused instead, or counted and left as it is."""
        task, faults = self.foreign.task, self.foreign.faults
        problem = target_problem(float(label), task) if task.label_range and _is_number(label) else None
        if problem is None or task.label_range is None:
            return label
        low, high = task.label_range
        if self.options.clip_labels:
            faults.add("label out of range", where=role, done="moved to the nearer end")
            return min(max(float(label), low), high)
        if not self.any_label:
            raise NeedsOptionError(
                f"{place(role, identity)}: {problem}; clip_labels=True (--clip-labels) moves it to the nearer"
                " end",
                option="--clip-labels",
            )
        faults.add("label out of range", where=role, done="refused by convert, unless with --clip-labels")
        return label


def unreadable(error: OSError, where: str) -> DataError:
    """Message for a file that cannot be read."""
    return DataError(f"{error.filename or where}: cannot be read: {error.strerror or error}")


def _is_number(label: Any) -> bool:
    return isinstance(label, float | int | np.floating | np.integer) and not isinstance(label, bool)


def _is_known(label: Any) -> bool:
    """Return whether a label is anything but none, a number that no float holds, or NaN."""
    if label is None:
        return False
    try:
        return not _is_number(label) or math.isfinite(label)
    except OverflowError:
        return False


def distinct_ids(splits: Mapping[Role, SplitArrays], faults: Faults) -> dict[Role, list[str]]:
    """Ids of every split, those of the file where it has any; one that was there before gets a number."""
    given = {role: ids_of(role, split) for role, split in splits.items()}
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


def shared_ids(splits: Mapping[Role, SplitArrays]) -> list[str]:
    """Note on ids that several splits have: one sample may be in each of them."""
    shared: dict[tuple[Role, Role], dict[str, None]] = {}
    for identity, first, role in repeats({role: split.ids or () for role, split in splits.items()}):
        if first != role:
            shared.setdefault((first, role), {})[identity] = None
    return [
        f"possible leak: {len(ids)} ids are in {first} and in {role}, {next(iter(ids))!a} first; the later"
        " ones were renamed, but if they are the same samples, a model is scored on what it was trained on"
        for (first, role), ids in shared.items()
    ]
