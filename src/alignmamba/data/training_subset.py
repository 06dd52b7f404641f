"""A part of the train split: nested subsets of any size, in the shares of classes, labels or groups."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from alignmamba.checksums import lines_checksum
from alignmamba.contracts import Config, Corpus, Role, Split
from alignmamba.data.labelled_splits import absent_classes, numbers, samples_by_class, strata
from alignmamba.data.randomness import generator
from alignmamba.data.views import SplitPart
from alignmamba.errors import ConfigError, listed

STRATA: Final = 10
"""Parts of equal size that labels of a regression are cut into by their rank."""


class SubsetConfig(Config):
    """Part of the train split that a run learns from."""

    size: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Samples of train that a run learns from, drawn of the whole; 0 keeps all. Smaller subsets of one seed
    are parts of larger ones."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the draw. The seed of the run has no part in it."""
    across_groups: bool = False
    """Draw from all groups in their shares; by default whole groups are taken, the last of them in part."""
    cut_valid: bool = False
    """Cut the valid split in the same proportion, in the same way."""

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        if not self.size and (self.across_groups or self.cut_valid):
            raise ValueError("size: found 0 with other settings of a subset, expected 1 or more")
        return self


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A corpus whose train split, and on request the valid split, is a part of its own."""

    corpus: Corpus
    by: Literal["group", "class", "rank"]
    """Unit of the draw: whole groups, or samples in the shares of classes, or of labels by their rank."""
    of: Mapping[Role, int]
    """Samples of each split before the cut."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the draw, in sentences."""
        how = {
            "group": "by whole groups, the last in part",
            "class": "in the share of each class",
            "rank": "evenly over the ranks of labels",
        }[self.by]
        cut = " and ".join(
            f"{len(self.corpus.split(role))} of {count} samples of {role}" for role, count in self.of.items()
        )
        said = f"subset: {cut} are used, drawn {how}"
        counts = samples_by_class(self.corpus.task, (sample.target for sample in self.corpus.split("train")))
        lacking = listed(map(repr, absent_classes(self.corpus.task, counts)))
        return (said, f"no sample of the subset of train is of class {lacking}") if lacking else (said,)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Sizes and checksums of the ids, as a run records them."""
        return {
            "by": self.by,
            **{
                role: {"samples": len(split), "of": count, "ids": lines_checksum(split.ids)}
                for role, count in self.of.items()
                for split in (self.corpus.split(role),)
            },
        }


def subset_of(corpus: Corpus, config: SubsetConfig) -> Subset:
    """Take a part of the train split of a corpus, and of its valid split on request.

    Samples are put into an order that depends on the seed and not on the size, and the first are taken.
    With classes, any beginning of the order has one of each class and then holds all in their shares; labels
    of a regression count as `STRATA` classes by their rank. Where samples have groups, groups follow each
    other in random order, or with `SubsetConfig.across_groups` each class holds them in their shares.

    Raises:
        ConfigError: If train has fewer samples, or the subset lacks a modality that train has.
        DataError: If there is no train split.
    """
    roles: tuple[Role, ...] = ("train", "valid") if config.cut_valid else ("train",)
    whole = {role: corpus.split(role) for role in roles}
    train = whole["train"]
    if config.size > len(train):
        raise ConfigError(f"subset.size: found {config.size}, but train has {len(train)} samples")
    share = config.size / len(train)
    grouped = False
    parts: dict[Role, Split] = {}
    for role, split in whole.items():
        order, with_groups = _order(corpus, role, config)
        count = config.size if role == "train" else max(1, round(share * len(split)))
        parts[role] = SplitPart(role=role, split=split, rows=np.sort(order[:count]))
        grouped = grouped or with_groups
    for spec in corpus.modalities:
        if train.lengths[spec.name].any() and not parts["train"].lengths[spec.name].any():
            raise ConfigError(
                f"subset.size: found {config.size}, which leaves no sample with {spec.name!r} in train, which"
                f" has {np.count_nonzero(train.lengths[spec.name])} of {len(train)}"
            )
    by_group = grouped and not config.across_groups
    return Subset(
        corpus=replace(corpus, splits={**corpus.splits, **parts}),
        by="group" if by_group else "class" if corpus.task.classes else "rank",
        of={role: len(split) for role, split in whole.items()},
    )


def _order(corpus: Corpus, role: Role, config: SubsetConfig) -> tuple[NDArray[np.int64], bool]:
    """(samples,) rows of a split in the order in which they are taken, and whether samples have groups."""
    targets: list[Any] = []
    numbered: list[int] = []
    names: dict[str, int] = {}
    for row, sample in enumerate(corpus.split(role)):
        targets.append(sample.target)
        # numbers of groups begin behind those of the samples, each of which may be a group of its own
        numbered.append(row if sample.group is None else -1 - names.setdefault(sample.group, len(names)))
    groups = np.unique(np.array(numbered, dtype=np.int64), return_inverse=True)[1].reshape(-1)
    random = generator(config.seed, "subset", role)
    order = random.permutation(len(targets))
    classes = strata(corpus.task, targets)
    classes = _by_rank(numbers(targets), order) if classes is None else classes
    if names and config.across_groups:
        order = _in_shares(groups, order)
    order = _in_shares(classes, order)
    if names and not config.across_groups:
        places = random.permutation(int(groups.max(initial=-1)) + 1)
        order = order[np.argsort(places[groups[order]], kind="stable")]
    return order, bool(names)


def _by_rank(targets: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """(samples,) number of the part of each label by its rank; equal labels are ranked in this order."""
    ranked = order[np.argsort(targets[order], kind="stable")]
    strata = np.empty(len(targets), dtype=np.int64)
    strata[ranked] = np.arange(len(targets)) * min(STRATA, len(targets)) // max(1, len(targets))
    return strata


def _in_shares(labels: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows in an order any beginning of which holds each label in its share; rows of one label, and those
    at equal places, keep the order that is given.
    """
    found = labels[order]
    counts = np.bincount(found)
    by_label = np.argsort(found, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[by_label] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[np.argsort(rank / counts[found], kind="stable")]
