"""Splits seen otherwise: modalities by other names, samples under another role; no copies."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alignmamba.contracts import Corpus, Role, Sample, Split
from alignmamba.errors import DataError


@dataclass(frozen=True, kw_only=True)
class NamedSplit:
    """A split whose modalities go by these names; meets `alignmamba.contracts.Split`."""

    split: Split
    names: Mapping[str, str]
    """Name in `split` to the name here; a modality that has none is not shown."""
    lengths: Mapping[str, np.ndarray] = field(init=False)
    """Modality name to the number of tokens of each sample, 0 where missing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", {new: self.split.lengths[old] for old, new in self.names.items()})

    @property
    def role(self) -> Role:
        """The role of the split."""
        return self.split.role

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the split."""
        return self.split.ids

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> Sample:
        sample = self.split[row]
        return replace(
            sample,
            features={new: sample.features[old] for old, new in self.names.items() if old in sample.features},
            times={new: sample.times[old] for old, new in self.names.items() if old in sample.times},
            tokens={new: sample.tokens[old] for old, new in self.names.items() if old in sample.tokens},
            token_labels={
                new: sample.token_labels[old] for old, new in self.names.items() if old in sample.token_labels
            },
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True, kw_only=True)
class SplitPart:
    """Some samples of a split under a role of their own; meets `alignmamba.contracts.Split`."""

    role: Role
    split: Split
    rows: np.ndarray
    """(samples,) rows of `split`, in the order in which they are shown."""
    ids: tuple[str, ...] = field(init=False)
    lengths: Mapping[str, np.ndarray] = field(init=False)
    """Modality name to the number of tokens of each sample, 0 where missing."""

    def __post_init__(self) -> None:
        every = self.split.ids
        object.__setattr__(self, "ids", tuple(every[row] for row in self.rows.tolist()))
        object.__setattr__(
            self, "lengths", {name: lengths[self.rows] for name, lengths in self.split.lengths.items()}
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Sample:
        return self.split[int(self.rows[row])]

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True, kw_only=True)
class JoinedSplit:
    """Several splits as one, in their order; meets `alignmamba.contracts.Split`."""

    role: Role
    splits: tuple[Split, ...]
    ids: tuple[str, ...] = field(init=False)
    lengths: Mapping[str, np.ndarray] = field(init=False)
    """Modality name to the number of tokens of each sample, 0 where missing."""

    def __post_init__(self) -> None:
        first = self.splits[0].lengths
        lengths = {name: np.concatenate([split.lengths[name] for split in self.splits]) for name in first}
        object.__setattr__(self, "ids", tuple(identity for split in self.splits for identity in split.ids))
        object.__setattr__(self, "lengths", lengths)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Sample:
        for split in self.splits:
            if row < len(split):
                return split[row]
            row -= len(split)
        raise IndexError(row)

    def __iter__(self) -> Iterator[Sample]:
        return (sample for split in self.splits for sample in split)


@dataclass(frozen=True, kw_only=True)
class ChangedSplit(ABC):
    """A split with something else in each of its samples; meets `alignmamba.contracts.Split`."""

    split: Split

    @property
    def role(self) -> Role:
        """The role of the split."""
        return self.split.role

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the split."""
        return self.split.ids

    @property
    def lengths(self) -> Mapping[str, np.ndarray]:
        """Modality name to the number of tokens of each sample, 0 where missing."""
        return self.split.lengths

    def __len__(self) -> int:
        return len(self.split)

    @abstractmethod
    def __getitem__(self, row: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(len(self)))


class UnlabelledSplit(ChangedSplit):
    """A split without targets and labels."""

    def __getitem__(self, row: int) -> Sample:
        return replace(self.split[row], target=None, labels={})


def unlabelled(corpus: Corpus) -> Corpus:
    """The corpus without its targets and labels, and so without known scores."""
    splits: dict[Role, Split] = {role: UnlabelledSplit(split=split) for role, split in corpus.splits.items()}
    return replace(corpus, splits=splits, references={})


def named(corpus: Corpus, *, rename: Mapping[str, str] = {}, ignore: Sequence[str] = ()) -> Corpus:
    """The corpus with some of its modalities under other names and some dropped.

    All names change at once, so that two modalities can change places.

    Args:
        corpus: The corpus.
        rename: Name of a modality to the one that it gets.
        ignore: Modalities to drop. Samples that have nothing else stay, without any.

    Raises:
        DataError: If the corpus lacks one of these modalities, one is named twice, or two would have the same
            name.
    """
    offered = [spec.name for spec in corpus.modalities]
    for option, given in (("rename", tuple(rename)), ("ignore", tuple(ignore))):
        unknown = [name for name in given if name not in offered]
        if unknown:
            raise DataError(
                f"{option}: corpus {corpus.name!r} has no modality {unknown[0]!r}, only {', '.join(offered)}"
            )
    both = [name for name in rename if name in ignore]
    if both:
        raise DataError(f"rename: modality {both[0]!r} is ignored too; choose one of them")
    names = {name: rename.get(name, name) for name in offered if name not in ignore}
    for old, new in rename.items():
        others = [name for name, shown in names.items() if shown == new and name != old]
        if others:
            reason = (
                "is in the corpus already" if others[0] == new else f"is the new name of {others[0]!r} too"
            )
            raise DataError(
                f"rename {old}={new}: {new!r} {reason}, corpus {corpus.name!r} has {', '.join(offered)}"
            )
    if all(old == new for old, new in names.items()) and len(names) == len(offered):
        return corpus
    return replace(
        corpus,
        modalities=tuple(
            spec.model_copy(update={"name": names[spec.name]})
            for spec in corpus.modalities
            if spec.name in names
        ),
        splits={role: NamedSplit(split=split, names=names) for role, split in corpus.splits.items()},
    )
