"""Cross-validation: the samples of all splits, dealt into parts that take turns as test and valid."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from alignmamba.checksums import lines_checksum
from alignmamba.contracts import Config, Corpus, Role, Split
from alignmamba.data.labelled_splits import numbers, samples_by_class, strata
from alignmamba.data.randomness import generator
from alignmamba.data.views import JoinedSplit, SplitPart
from alignmamba.errors import ConfigError, DataError, listed

FEWEST: int = 3
"""Parts below which one each for train, valid and test are not to be had."""


class FoldsConfig(Config):
    """Place of a run in a cross-validation."""

    number: Annotated[int, Field(ge=0, le=1000)] = 0
    """Parts that the samples of all splits are dealt into, 3 or more; 0 keeps the corpus's own splits."""
    test: Annotated[int, Field(ge=0)] = 0
    """Part that is the test split, from 0; the next one is the valid split, and train has the others."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the deal. The seed of the run has no part in it."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if 0 < self.number < FEWEST:
            raise ValueError(
                f"number: found {self.number}, expected {FEWEST} or more: one each for train, valid and test"
            )
        if self.test >= max(1, self.number):
            raise ValueError(f"test: found {self.test}, expected 0 to {max(1, self.number) - 1}")
        return self


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A corpus whose splits are those of one fold."""

    corpus: Corpus
    by: Literal["group", "class", "rank"]
    """Unit of the deal: whole groups, the samples of each class, or samples by the rank of their label."""
    config: FoldsConfig
    rare: tuple[str, ...] = ()
    """Classes with fewer samples than there are parts."""
    parts: tuple[int, ...] = ()
    """Samples of each part."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the deal, in sentences."""
        how = {"group": "by whole groups", "class": "by class", "rank": "by the rank of labels"}[self.by]
        sizes = ", ".join(f"{len(split)} {role}" for role, split in self.corpus.splits.items())
        said = (
            f"fold {self.config.test} of {self.config.number}: the samples of all splits are dealt {how},"
            f" {sizes}"
        )
        names = listed(map(repr, self.rare))
        rare = f"class {names} has fewer than {self.config.number} samples, so not every part has one"
        uneven = (
            f"parts have {min(self.parts)} to {max(self.parts)} samples, for groups stay whole: intervals and"
            " tests assume parts of one size, which holds roughly at best"
        )
        is_uneven = bool(self.parts) and max(self.parts) > 1.5 * min(self.parts)
        return (said, *((rare,) if self.rare else ()), *((uneven,) if is_uneven else ()))

    @property
    def facts(self) -> Mapping[str, Any]:
        """Sizes and a checksum of the ids in test, as a run records them."""
        test = self.corpus.split("test").ids
        return {
            "by": self.by,
            **{role: len(split) for role, split in self.corpus.splits.items()},
            "test_ids": lines_checksum(test),
        }


def joined(corpus: Corpus) -> Corpus:
    """The corpus with the samples of all splits, in order, as its train split.

    Raises:
        DataError: If an id is in two splits.
    """
    splits = tuple(corpus.splits.values())
    counts = Counter(identity for split in splits for identity in split.ids)
    repeated = next((identity for identity, count in counts.items() if count > 1), None)
    if repeated is not None:
        raise DataError(
            f"corpus {corpus.name!r}: sample {repeated!r} is in {counts[repeated]} splits, expected one"
            " where samples are dealt into folds"
        )
    return replace(corpus, splits={"train": JoinedSplit(role="train", splits=splits)})


def fold_of(corpus: Corpus, config: FoldsConfig) -> Fold:
    """Deal the samples of all splits, and give the parts their roles.

    Groups are dealt whole, the largest first, each to the part with the fewest samples. Without groups, the
    samples of each class, or those of neighbouring labels, go to the parts in turn.

    Args:
        corpus: Its samples are dealt, those without a target too.
        config: Number of parts, which of them is test, and the seed.

    Raises:
        ConfigError: If there are fewer groups, or samples, than parts.
        DataError: If an id is in two splits.
    """
    dealt = _Dealt.of(corpus, config.number, generator(config.seed, "folds"))
    roles: dict[Role, NDArray[np.bool_]] = {
        "valid": dealt.part_of == (config.test + 1) % config.number,
        "test": dealt.part_of == config.test,
    }
    roles = {"train": ~(roles["valid"] | roles["test"]), **roles}
    parts = np.bincount(dealt.part_of, minlength=config.number)
    return Fold(
        corpus=dealt.as_splits(roles),
        by=dealt.by,
        config=config,
        rare=dealt.rare,
        parts=tuple(map(int, parts)),
    )


def validation_folds(corpus: Corpus, number: int, *, seed: int) -> tuple[Corpus, ...]:
    """Deal the samples of train and valid as `fold_of` deals those of all splits.

    Args:
        corpus: Its test split is not read.
        number: Number of parts, 2 or more.
        seed: Seed of the deal.

    Returns:
        One corpus for each part, which is its valid split; train has the others, and there is no test split.

    Raises:
        ConfigError: If there are fewer groups, or samples, than parts.
        DataError: If an id is in both splits.
    """
    dealt = _Dealt.of(_without_test(corpus), number, generator(seed, "validation folds"))
    return tuple(
        dealt.as_splits({"train": dealt.part_of != part, "valid": dealt.part_of == part})
        for part in range(number)
    )


def validation_units(corpus: Corpus) -> int:
    """Number of groups in train and valid, or of samples where there are none: the most folds of them."""
    return _units([sample.group for sample in joined(_without_test(corpus)).split("train")])


def _without_test(corpus: Corpus) -> Corpus:
    splits: dict[Role, Split] = {role: split for role, split in corpus.splits.items() if role != "test"}
    return replace(corpus, splits=splits)


def _units(names: Sequence[str | None]) -> int:
    """Number of groups; a sample without one is one of its own."""
    return len(set(names) - {None}) + sum(name is None for name in names)


@dataclass(frozen=True, kw_only=True)
class _Dealt:
    """Samples of all splits, dealt into parts."""

    corpus: Corpus
    """Corpus with all samples in its train split."""
    part_of: NDArray[np.int64]
    """(samples,) part of each."""
    by: Literal["group", "class", "rank"]
    rare: tuple[str, ...]
    """Classes with fewer samples than there are parts."""

    @classmethod
    def of(cls, corpus: Corpus, number: int, random: np.random.Generator) -> Self:
        """Deal the samples of all splits; errors are those of `fold_of`."""
        whole = joined(corpus)
        targets: list[Any] = []
        names: list[str | None] = []
        for sample in whole.split("train"):
            targets.append(sample.target)
            names.append(sample.group)
        grouped, units = any(name is not None for name in names), _units(names)
        if units < number:
            what = "groups" if grouped else "samples"
            raise ConfigError(f"folds: found {units} {what}, expected {number} or more, one for each part")
        classes = strata(corpus.task, targets)
        deal = (
            _by_group(names, number, random)
            if grouped
            else _in_turn(numbers(targets), number, random, even=False)
            if classes is None
            else _in_turn(classes, number, random, even=True)
        )
        sizes = samples_by_class(corpus.task, targets)
        return cls(
            corpus=whole,
            part_of=deal,
            by="group" if grouped else "class" if corpus.task.classes else "rank",
            rare=tuple(
                name for name, size in zip(corpus.task.classes, sizes, strict=True) if 0 < size < number
            ),
        )

    def as_splits(self, roles: Mapping[Role, NDArray[np.bool_]]) -> Corpus:
        """The corpus with these samples, (samples,) bool, in each role."""
        whole = self.corpus.split("train")
        return replace(
            self.corpus,
            splits={
                role: SplitPart(role=role, split=whole, rows=np.flatnonzero(chosen))
                for role, chosen in roles.items()
            },
        )


def _by_group(names: list[str | None], number: int, random: np.random.Generator) -> NDArray[np.int64]:
    """(samples,) part of each; a sample without a group is one of its own."""
    keys = [(name, -1) if name is not None else ("", row) for row, name in enumerate(names)]
    sizes = Counter(keys)
    order = list(sizes)
    shuffled = [order[place] for place in random.permutation(len(order)).tolist()]
    filled, part_of = [0] * number, {}
    for key in sorted(shuffled, key=lambda each: -sizes[each]):
        part_of[key] = filled.index(min(filled))
        filled[part_of[key]] += sizes[key]
    return np.array([part_of[key] for key in keys], dtype=np.int64)


def _in_turn(
    targets: NDArray[Any], number: int, random: np.random.Generator, *, even: bool
) -> NDArray[np.int64]:
    """(samples,) part of each: samples in the order of their labels, equal ones shuffled, go to the parts in
    turn. The turns are of one order where they have to be even for every class, otherwise each is of its own.
    """
    shuffled = random.permutation(len(targets))
    order = shuffled[np.argsort(targets[shuffled], kind="stable")]
    count = -(-len(targets) // number)
    turns = np.concatenate([random.permutation(number) for _ in range(1 if even else count)])
    turns = np.tile(turns, count if even else 1)
    deal = np.empty(len(targets), dtype=np.int64)
    deal[order] = turns[: len(targets)]
    return deal
