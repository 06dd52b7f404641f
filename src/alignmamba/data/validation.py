"""A valid split where a corpus has none: a share of train, drawn from the seed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alignmamba.checksums import lines_checksum
from alignmamba.contracts import Corpus, Role, Split
from alignmamba.data.labelled_splits import samples_by_class, strata
from alignmamba.data.randomness import generator
from alignmamba.data.views import SplitPart
from alignmamba.errors import ConfigError, listed


@dataclass(frozen=True, kw_only=True)
class TrainSamples:
    """Facts that decide which training samples become validation samples, for any number of seeds."""

    corpus: Corpus
    classes: NDArray[np.int64]
    """(samples,) stratum of each, see `strata`; all 0 for a regression."""
    groups: NDArray[np.int64]
    """(samples,) number of the group of each; a sample without one is a group of its own."""
    grouped: bool
    """A sample has a group."""

    @classmethod
    def of(cls, corpus: Corpus) -> "TrainSamples":
        """Read the train split of a corpus that has no valid split. Samples without a target are a class.

        Raises:
            ConfigError: If it has one.
            DataError: If it has no train split.
        """
        if "valid" in corpus.splits:
            raise ConfigError(
                f"split_valid: corpus {corpus.name!r} has a split 'valid' already, of"
                f" {len(corpus.splits['valid'])} samples; drop split_valid"
            )
        targets = []
        groups: dict[str, int] = {}
        numbers: list[int] = []
        for row, sample in enumerate(corpus.split("train")):
            targets.append(sample.target)
            # Numbers of groups begin behind those of the samples, each of which may be a group of its own.
            numbers.append(row if sample.group is None else -1 - groups.setdefault(sample.group, len(groups)))
        classes = strata(corpus.task, targets)
        return cls(
            corpus=corpus,
            classes=np.zeros(len(targets), dtype=np.int64) if classes is None else classes,
            groups=np.unique(np.array(numbers, dtype=np.int64), return_inverse=True)[1].reshape(-1),
            grouped=bool(groups),
        )

    def split(self, share: float, *, seed: int) -> "ValidShare":
        """Take a share of the training samples for validation.

        Whole groups are taken, so that none has samples on both sides. Classes keep their shares: to a sample
        where samples have no groups, as nearly as whole groups allow where they have.

        Args:
            share: Part of the samples, above 0 and below 1.
            seed: Seed of the run.

        Raises:
            ConfigError: If a side would be empty, or train would be left without a class or a modality.
        """
        random = generator(seed, "split valid")
        taken = (self._whole_groups if self.grouped else self._by_class)(share, random)
        found = f"split_valid: found {share:g}, which"
        if not taken.any():
            size = np.bincount(self.groups)
            raise ConfigError(
                f"{found} makes no whole group: train has {len(taken)} samples in {len(size)} groups of"
                f" {size.min()} to {size.max()}"
                if self.grouped
                else (
                    f"{found} makes no sample of the {len(taken)} of train, expected at least"
                    f" {1 / max(len(taken), 1):.2g}"
                )
            )
        if taken.all():
            raise ConfigError(f"{found} takes all {len(taken)} samples of train")
        left = self.corpus.split("train")
        names = self.corpus.task.classes if self.corpus.task.has_one_class else ()
        for index, name in enumerate(names):
            members = self.classes == index
            if members.any() and taken[members].all():
                raise ConfigError(
                    f"{found} leaves no sample of class {name!r} in train, which has"
                    f" {np.count_nonzero(members)}"
                )
        for spec in self.corpus.modalities:
            present = left.lengths[spec.name] > 0
            if present.any() and not present[~taken].any():
                raise ConfigError(
                    f"{found} leaves no sample with {spec.name!r} in train, which has"
                    f" {np.count_nonzero(present)}"
                )
        by: Literal["group", "class", "sample"] = (
            "group" if self.grouped else "class" if self.corpus.task.classes else "sample"
        )
        return ValidShare.of(self.corpus, taken, by=by)

    def _by_class(self, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
        """The share of every class, rounded to that of all samples: largest remainders first."""
        counts = np.bincount(self.classes)
        wanted = share * counts
        taken = np.floor(wanted).astype(np.int64)
        short = round(share * len(self.classes)) - int(taken.sum())
        # Equal remainders in random order.
        order = np.lexsort((random.random(len(counts)), -(wanted - taken)))
        taken[order[:short]] += 1
        shuffled = random.permutation(len(self.classes))
        ordered = shuffled[np.argsort(self.classes[shuffled], kind="stable")]
        rank = np.arange(len(ordered)) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = np.zeros(len(ordered), dtype=bool)
        chosen[ordered[rank < np.repeat(taken, counts)]] = True
        return chosen

    def _whole_groups(self, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
        """Groups in random order, each taken if it has the classes and the whole nearer to their share.

        Where rounding of many small classes leaves too few samples, those groups follow that disturb the
        classes least.
        """
        members: list[Counter[int]] = [Counter() for _ in range(int(self.groups.max()) + 1)]
        for group, label in zip(self.groups.tolist(), self.classes.tolist(), strict=True):
            members[group][label] += 1
        left = Counter(self.classes.tolist())
        wanted = {label: share * count for label, count in left.items()}
        whole = share * len(self.classes)
        taken = np.zeros(len(members), dtype=bool)

        def change(group: int) -> float:
            """Change of the squared distance from the shares of the classes."""
            return sum(count * (count - 2 * wanted[label]) for label, count in members[group].items())

        def take(group: int) -> None:
            nonlocal whole
            size = members[group].total()
            # The whole comes nearer to its share, and train keeps a sample of each class.
            if size < 2 * whole and all(left[label] > count for label, count in members[group].items()):
                taken[group] = True
                whole -= size
                for label, count in members[group].items():
                    wanted[label] -= count
                    left[label] -= count

        for group in random.permutation(len(members)).tolist():
            if change(group) < 0:
                take(group)
        rest = [group for group in random.permutation(len(members)).tolist() if not taken[group]]
        for group in sorted(rest, key=change):
            take(group)
        return np.asarray(taken[self.groups])


@dataclass(frozen=True, kw_only=True)
class ValidShare:
    """A corpus whose valid split is a share of its train split."""

    corpus: Corpus
    by: Literal["group", "class", "sample"]
    """Unit of the share: whole groups, the share of each class, or samples of a regression."""

    @classmethod
    def of(
        cls, corpus: Corpus, taken: NDArray[np.bool_], *, by: Literal["group", "class", "sample"]
    ) -> "ValidShare":
        """Split train: `taken` is (samples,) bool."""
        train = corpus.split("train")
        parts: dict[Role, Split] = {
            "train": SplitPart(role="train", split=train, rows=np.flatnonzero(~taken)),
            "valid": SplitPart(role="valid", split=train, rows=np.flatnonzero(taken)),
        }
        others = {role: split for role, split in corpus.splits.items() if role not in parts}
        return cls(corpus=replace(corpus, splits={**parts, **others}), by=by)

    @property
    def notes(self) -> tuple[str, ...]:
        """Note on the share and the classes that it lacks, in sentences."""
        train, valid = self.corpus.split("train"), self.corpus.split("valid")
        how = {"group": ", whole groups", "class": ", each class in its share", "sample": ""}[self.by]
        said = (
            f"'valid' is {len(valid)} of the {len(train) + len(valid)} samples of train{how}, drawn from the"
            " seed"
        )
        task = self.corpus.task
        left, taken = (
            samples_by_class(task, (sample.target for sample in split)) for split in (train, valid)
        )
        drawn = zip(task.classes, left, taken, strict=True)
        lacking = listed(repr(name) for name, there, here in drawn if there and not here)
        if not lacking:
            return (said,)
        return (
            said,
            f"no sample of 'valid' is of class {lacking}, too rare for it; a larger share may hold some",
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        """Sizes and a checksum of the ids in valid, as a run records them."""
        valid = self.corpus.split("valid").ids
        return {
            "by": self.by,
            "train": len(self.corpus.split("train")),
            "valid": len(valid),
            "valid_ids": lines_checksum(valid),
        }
