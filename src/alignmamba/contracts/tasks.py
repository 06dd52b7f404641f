"""Task to predict, and its modalities."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from alignmamba.contracts.configs import Config

Role = Literal["train", "valid", "test"]

ROLES: tuple[Role, ...] = ("train", "valid", "test")

MOST_IDS = 1 << 31
"""A vocabulary, and so a feature vector, may be as large: token ids are stored in 32 bits."""

MOST_CLASSES = 100_000
"""A task may have as many."""

NO_CLASS = "none"
"""Word for a sample in which no class is there."""

NAME_PATTERN = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
Name = Annotated[
    str,
    Field(pattern=NAME_PATTERN, description="letters, digits, - and _, a letter first"),
]


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = [name for at, name in enumerate(names) if name in names[:at]]
    if twice:
        raise ValueError(f"expected each name once, found {twice[0]!r} again")
    return names


DistinctNames = Annotated[tuple[str, ...], AfterValidator(_distinct)]


class ModalitySpec(Config):
    """One modality as a corpus stores it and a model expects it."""

    name: Name
    """Name of the modality, for example ``text``."""
    dim: Annotated[int, Field(ge=1, le=MOST_IDS)]
    """Width of one feature vector; for token ids, the size of the vocabulary."""
    kind: Literal["features", "tokens"] = "features"
    """``features``: float vectors; ``tokens``: integer ids in ``[0, dim)``."""
    units: str = ""
    """Meaning of one feature vector, for people, for example ``log-mel energy at 100 Hz``."""

    @property
    def width(self) -> int:
        """Channels of the stored array: ``dim`` for features, 1 for token ids."""
        return self.dim if self.kind == "features" else 1


TargetKind = Literal["regression", "classification", "ordinal", "multilabel"]


class _Target(Config):
    """Fields that describe the values of a target, and what must hold for them."""

    kind: TargetKind
    """``regression``: one real number; ``classification``: one of ``classes``; ``ordinal``: one of
    ``classes``, which stand in order; ``multilabel``: any of ``classes``."""
    classes: Annotated[tuple[str, ...], Field(max_length=MOST_CLASSES)] = ()
    """Class names; a target is an index into them, of a multilabel one number for each: 1 where it is there,
    0 where it is not. Empty for regression."""
    label_range: tuple[float, float] | None = None
    """Smallest and largest admissible label of a regression task; ``None`` where any number is."""
    sentiment: bool | None = None
    """Mark of a regression whose label is a sentiment: 0 is neutral, and sign and nearest integer are scored
    as well. ``None``: it is one where the range is exactly [-3, 3]."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        kind = self.kind
        if kind in ("classification", "ordinal") and len(self.classes) < 2:
            raise ValueError(f"classes: {_A[kind]} task needs at least 2, found {len(self.classes)}")
        if kind == "multilabel" and not self.classes:
            raise ValueError("classes: a multilabel task needs at least 1, found 0")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: names must be distinct")
        if kind == "regression" and self.classes:
            raise ValueError("classes: expected none for a regression task")
        if self.label_range is not None and not all(map(math.isfinite, self.label_range)):
            raise ValueError(
                f"label_range: expected finite ends, found {self.label_range}; drop the range to allow"
                " any number"
            )
        if self.label_range is not None and not self.label_range[0] < self.label_range[1]:
            raise ValueError(
                f"label_range: lower end {self.label_range[0]} is not below upper end {self.label_range[1]}"
            )
        if self.sentiment and (
            kind != "regression"
            or self.label_range is None
            or not self.label_range[0] < 0 < self.label_range[1]
        ):
            raise ValueError(
                "sentiment: needs a regression whose label_range has both signs, for example [-3, 3]"
            )
        return self

    @property
    def has_one_class(self) -> bool:
        """True if its values are indices into ``classes``, -1 where unknown; of others NaN is unknown."""
        return self.kind in ("classification", "ordinal")

    @property
    def unknown(self) -> float | int | tuple[float, ...]:
        """Value in arrays of a sample that lacks the target."""
        if self.kind == "multilabel":
            return (math.nan,) * len(self.classes)
        return -1 if self.has_one_class else math.nan

    def known(self, value: float | int | Sequence[float]) -> float | int | tuple[float, ...] | None:
        """Value of a sample as `Sample.target` has it, from its value in an array; ``None`` for unknown."""
        if isinstance(value, Sequence):
            return None if all(map(math.isnan, value)) else tuple(value)
        return None if (value == -1 and self.has_one_class) or math.isnan(value) else value

    def words(self, value: float | Sequence[float]) -> float | str:
        """Value for people: a number, the name of a class, or the names of those that are there."""
        if self.kind == "multilabel":
            assert isinstance(value, Sequence)
            there = [name for name, each in zip(self.classes, value, strict=True) if each > 0]
            return ", ".join(there) or NO_CLASS
        assert not isinstance(value, Sequence)
        return self.classes[int(value)] if self.has_one_class else float(value)

    @property
    def is_sentiment(self) -> bool:
        """Answer to whether signs and sentiment classes are scored and named; only then is there a "wrong
        sign" or an ``acc2``.
        """
        return self.label_range == (-3.0, 3.0) if self.sentiment is None else self.sentiment

    @property
    def num_scores(self) -> int:
        """Numbers that a prediction is made of: 1 for regression and for ordered classes, which thresholds
        divide, the number of classes otherwise.
        """
        return 1 if self.kind == "ordinal" else self.num_outputs

    @property
    def num_outputs(self) -> int:
        """Width of the prediction: 1 for regression, the number of classes otherwise."""
        return len(self.classes) or 1


_A = {"classification": "a classification", "ordinal": "an ordinal"}


class Target(_Target):
    """One more target of a sample, beside the one that a `Task` is about; a sample may lack it."""

    name: Name
    """Name in scores and tables."""
    labels: Annotated[tuple[str, ...], Field(min_length=1)]
    """Labels of a sample that hold it: one, or of a multilabel one for each class, which is there where the
    label is above 0."""
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Weight of its loss beside the loss of the task."""
    modality: Name | None = None
    """Modality that it belongs to, from which alone it is predicted; ``None``: the whole sample."""
    tokens: Annotated[Name | None, Field(exclude_if=lambda tokens: tokens is None)] = None
    """Modality each of whose tokens has a value of its own; ``None``: the sample has one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        expected = len(self.classes) if self.kind == "multilabel" else 1
        if len(self.labels) != expected:
            raise ValueError(f"labels: expected {expected}, found {len(self.labels)}")
        if self.tokens is not None and self.modality is not None:
            raise ValueError(
                f"modality: found {self.modality!r} beside tokens {self.tokens!r}, expected none: tokens are"
                " predicted from all modalities"
            )
        return self


class Task(_Target):
    """Target of a sample, and perhaps further ones; a sample may lack any of them."""

    labels: Annotated[tuple[str, ...], Field(exclude_if=lambda labels: not labels)] = ()
    """Names of the labels that it was made of; empty where they are unknown."""
    further: Annotated[tuple[Target, ...], Field(exclude_if=lambda further: not further)] = ()
    """Targets that are predicted besides."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [target.name for target in self.further]
        if len(set(names)) != len(names):
            raise ValueError("further: names must be distinct")
        return self

    @property
    def labelled_tokens(self) -> tuple[str, ...]:
        """Modalities whose tokens have a target, in the order of the targets."""
        return tuple(dict.fromkeys(each.tokens for each in self.further if each.tokens is not None))
