"""Samples, sealed splits, a corpus of them, and what was predicted of a split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from alignmamba.contracts.tasks import ModalitySpec, Role, Task
from alignmamba.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One example, unpadded."""

    id: str
    features: Mapping[str, np.ndarray]
    """Modality name to (time, width); a missing modality is absent from the mapping."""
    target: float | int | tuple[float, ...] | None = None
    """A number, a place among the classes, or of a multilabel 1, 0 or NaN for each class; ``None`` where it
    is unknown."""
    times: Mapping[str, np.ndarray] = field(default_factory=dict)
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text: str | None = None
    """Spoken text, for people and for export."""
    group: str | None = None
    """Group of the sample, such as a conversation or a video."""
    labels: Mapping[str, float | int | str] = field(default_factory=dict)
    """Labels besides the target, by name, for analysis, for export, and for further targets of a task."""
    token_labels: Mapping[str, Mapping[str, tuple[float | int | str | None, ...]]] = field(
        default_factory=dict
    )
    """Modality name to labels of its tokens by name, one for each token; ``None`` where unknown."""


@runtime_checkable
class Split(Protocol):
    """One part of a corpus, of a fixed role: `fit` takes ``train`` and ``valid``, never ``test``."""

    @property
    def role(self) -> Role: ...
    @property
    def ids(self) -> tuple[str, ...]: ...
    @property
    def lengths(self) -> Mapping[str, np.ndarray]:
        """Modality name to the number of tokens of each sample, 0 where missing."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> Sample: ...
    def __iter__(self) -> Iterator[Sample]: ...


_SHOWN = 6
"""Modalities that a corpus names where it is printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A named set of splits with its task and modalities."""

    name: str
    task: Task
    modalities: tuple[ModalitySpec, ...]
    splits: Mapping[Role, Split]
    checksum: str
    """SHA-256 that identifies the content."""
    references: Mapping[str, float] = field(default_factory=dict)
    """Known scores to print beside a result, for example the best reachable accuracy of a synthetic
    corpus."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Record of how its media files were read, which `alignmamba.media.recipe` understands; empty for a
    corpus that was made of features."""
    location: str = field(default="", init=False, compare=False)
    """Place to load it from again: a directory, or ``synthetic``. Empty in memory, and of what was made of
    another corpus."""

    def at(self, location: str) -> Self:
        """The same corpus, which can be loaded again from there."""
        copy = replace(self)
        object.__setattr__(copy, "location", location)
        return copy

    def __repr__(self) -> str:
        modalities = ", ".join(f"{spec.name} ({spec.dim})" for spec in self.modalities[:_SHOWN])
        more = f" and {len(self.modalities) - _SHOWN} more" if len(self.modalities) > _SHOWN else ""
        classes = f" into {len(self.task.classes)} classes" if self.task.classes else ""
        splits = ", ".join(f"{role} {len(split)}" for role, split in self.splits.items())
        return f"Corpus({self.name!r:.80}: {self.task.kind}{classes}; {modalities}{more}; {splits})"

    def split(self, role: Role) -> Split:
        """The split of that role.

        Raises:
            DataError: If the corpus has none.
        """
        if role not in self.splits:
            raise DataError(f"corpus {self.name!r} has no split {role!r}, only {sorted(self.splits)}")
        return self.splits[role]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Predictions of a model for a split, in the order of the split's ids."""

    ids: tuple[str, ...]
    prediction: np.ndarray
    """(samples,) values for regression, else (samples, classes) probabilities."""
    targets: np.ndarray | None = None
    """(samples,) or, of a multilabel, (samples, classes), as `Batch.targets`; ``None`` where all are
    unknown."""
    called: np.ndarray | None = None
    """(samples, classes) bool of a multilabel, true for the classes that are called; ``None``: those from
    one half on."""
    lengths: np.ndarray | None = None
    """(samples,) rows of each sample, where these are its tokens, those of the first sample first; ``None``:
    one row each."""
    parts: np.ndarray | None = None
    """(samples,) number of the fold whose model predicted each, where those of several stand together;
    ``None``: one model."""
    further: Mapping[str, "FurtherPredictions"] = field(default_factory=dict)
    """Predictions of the further targets of the task, by name."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Mean of each loss term over the samples, ``task`` and ``total`` among them, where targets are known."""

    @property
    def row_ids(self) -> tuple[str, ...]:
        """Id of the sample of each row, which may be one of its tokens."""
        if self.lengths is None:
            return self.ids
        rows = zip(self.ids, self.lengths.tolist(), strict=True)
        return tuple(identity for identity, count in rows for _ in range(count))

    def __repr__(self) -> str:
        known = "no targets" if self.targets is None else "with targets"
        return f"Predictions({len(self.ids)} samples, prediction {self.prediction.shape}, {known})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherPredictions:
    """Predictions of one further target for a split, in the order of the split's ids.

    Rows are samples, or tokens where these have the target: those of the first sample in their order, then
    those of the second.
    """

    prediction: np.ndarray
    """(samples,) values for regression, else (samples, classes) probabilities; NaN in a sample without the
    modality that the target belongs to."""
    targets: np.ndarray
    """(samples,) or, of a multilabel, (samples, classes), as in `Batch.further`."""
    called: np.ndarray | None = None
    """Classes that are called, as in `Predictions`."""
    lengths: np.ndarray | None = None
    """(samples,) tokens of each sample; ``None`` for a target of samples."""
    times: np.ndarray | None = None
    """(tokens,) seconds, NaN where unknown; ``None`` for a target of samples."""
