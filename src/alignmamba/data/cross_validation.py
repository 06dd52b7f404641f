"""Cross-validation: the samples of all splits, dealt into parts that take turns as test and valid."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from alignmamba.contracts import Config, Corpus, Role
from alignmamba.data.randomness import generator
from alignmamba.data.views import JoinedSplit, SplitPart
from alignmamba.errors import ConfigError, DataError

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

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the deal, in sentences."""
        how = {"group": "by whole groups", "class": "by class", "rank": "by the rank of labels"}[self.by]
        sizes = ", ".join(f"{len(split)} {role}" for role, split in self.corpus.splits.items())
        said = (
            f"fold {self.config.test} of {self.config.number}: the samples of all splits are dealt {how},"
            f" {sizes}"
        )
        shown = ", ".join(map(repr, self.rare[:5])) + (
            f" and {len(self.rare) - 5} more" * (len(self.rare) > 5)
        )
        rare = f"class {shown} has fewer than {self.config.number} samples, so not every part has one"
        return (said, rare) if self.rare else (said,)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Sizes and a checksum of the ids in test, as a run records them."""
        test = self.corpus.split("test").ids
        return {
            "by": self.by,
            **{role: len(split) for role, split in self.corpus.splits.items()},
            "test_ids": hashlib.sha256("\n".join(test).encode()).hexdigest(),
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
        corpus: With targets for all samples.
        config: Number of parts, which of them is test, and the seed.

    Raises:
        ConfigError: If there are fewer groups, or samples, than parts.
        DataError: If a sample has no target, or an id is in two splits.
    """
    whole = joined(corpus).split("train")
    targets: list[float] = []
    names: list[str | None] = []
    for sample in whole:
        if sample.target is None:
            raise DataError(
                f"corpus {corpus.name!r}: sample {sample.id!r}: no target, expected one for every sample"
            )
        targets.append(sample.target)
        names.append(sample.group)
    random = generator(config.seed, "folds")
    grouped = any(name is not None for name in names)
    units = len({name for name in names if name is not None}) + names.count(None)
    if units < config.number:
        what = "groups" if grouped else "samples"
        raise ConfigError(f"folds: found {units} {what}, expected {config.number} or more, one for each part")
    classes = corpus.task.classes
    deal = (
        _by_group(names, config.number, random)
        if grouped
        else _in_turn(targets, config.number, random, even=bool(classes))
    )
    roles: dict[Role, NDArray[np.bool_]] = {
        "valid": deal == (config.test + 1) % config.number,
        "test": deal == config.test,
    }
    roles = {"train": ~(roles["valid"] | roles["test"]), **roles}
    sizes = Counter(int(target) for target in targets)
    return Fold(
        corpus=replace(
            corpus,
            splits={
                role: SplitPart(role=role, split=whole, rows=np.flatnonzero(chosen))
                for role, chosen in roles.items()
            },
        ),
        by="group" if grouped else "class" if classes else "rank",
        config=config,
        rare=tuple(name for index, name in enumerate(classes) if 0 < sizes[index] < config.number),
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
    targets: list[float], number: int, random: np.random.Generator, *, even: bool
) -> NDArray[np.int64]:
    """(samples,) part of each: samples in the order of their labels, equal ones shuffled, go to the parts in
    turn. The turns are of one order where they have to be even for every class, otherwise each is of its own.
    """
    shuffled = random.permutation(len(targets))
    order = shuffled[np.argsort(np.array(targets)[shuffled], kind="stable")]
    count = -(-len(targets) // number)
    turns = np.concatenate([random.permutation(number) for _ in range(1 if even else count)])
    turns = np.tile(turns, count if even else 1)
    deal = np.empty(len(targets), dtype=np.int64)
    deal[order] = turns[: len(targets)]
    return deal
