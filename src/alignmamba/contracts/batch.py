"""One batch: right-padded sequences by modality, with masks, targets and ids."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from alignmamba.contracts.batch_arrays import mask_of, padded_rows, padded_times, targets_of, tensor_of
from alignmamba.errors import DataError, ShapeError

_BATCH_OF = "Batch.of makes a batch of arrays or tensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """One modality of a batch, right-padded.

    A sample that lacks the modality has no valid position. Content of invalid positions is never read.
    """

    features: Tensor
    """(batch, time, channel); floating for features, int64 with one channel for token ids."""
    mask: Tensor
    """(batch, time) bool, true at valid tokens; valid tokens come first."""
    times: Tensor | None = None
    """(batch, time) float, float64 as a loader makes them: seconds on any clock, one for all modalities of a
    sample, so that its zero is of no account; NaN throughout a sample whose times are unknown."""
    tokens: tuple[tuple[str, ...], ...] | None = None
    """Display strings, one tuple per sample, for reports."""

    def __post_init__(self) -> None:
        for field_name in ("features", "mask"):
            given = getattr(self, field_name)
            if not isinstance(given, Tensor):
                raise ShapeError(
                    f"{field_name}: expected a tensor, found {type(given).__name__}; {_BATCH_OF}"
                )
        if self.features.ndim != 3:
            raise ShapeError(
                f"features: expected (batch, time, channel), found shape {tuple(self.features.shape)}"
            )
        if self.mask.shape != self.features.shape[:2] or self.mask.dtype != torch.bool:
            raise ShapeError(
                f"mask: expected bool of shape {tuple(self.features.shape[:2])}, found {self.mask.dtype} of"
                f" shape {tuple(self.mask.shape)}"
            )
        if not torch.compiler.is_compiling():
            _check_padding(self.mask)
        if self.times is not None and self.times.shape != self.mask.shape:
            raise ShapeError(
                f"times: expected shape {tuple(self.mask.shape)}, found {tuple(self.times.shape)}"
            )

    @property
    def lengths(self) -> Tensor:
        """(batch,) int64, number of valid tokens of each sample."""
        return self.mask.sum(dim=1)

    def with_tensors(self, **changes: Any) -> Self:
        """A copy with some fields replaced, whose mask is not checked: looking at it would wait for a GPU."""
        copy = object.__new__(type(self))
        for name in self.__slots__:
            object.__setattr__(copy, name, changes.get(name, getattr(self, name)))
        return copy

    def mapped(self, apply: Callable[[Tensor], Tensor]) -> Self:
        """The same with `apply`, which keeps the order of the positions, over every tensor."""
        times = None if self.times is None else apply(self.times)
        return self.with_tensors(features=apply(self.features), mask=apply(self.mask), times=times)

    def padded(self, length: int) -> Self:
        """The same sequences with invalid positions behind them, `length` in all; no shorter than before."""

        def pad(tensor: Tensor) -> Tensor:
            padding = tensor.new_zeros(tensor.shape[0], max(0, length - tensor.shape[1]), *tensor.shape[2:])
            return torch.cat([tensor, padding], dim=1)

        return self.mapped(pad)

    def hidden(self) -> Self:
        """The same with nothing valid."""
        return self.with_tensors(mask=torch.zeros_like(self.mask))


def _check_padding(mask: Tensor) -> None:
    wrong = mask[:, 1:] & ~mask[:, :-1]
    if wrong.shape[1] and bool(wrong.any()):
        row = int(wrong.any(1).nonzero()[0])
        raise ShapeError(
            "mask: expected valid tokens first (right padding), found a valid token after an invalid one in"
            f" sample {row}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples that a model sees together."""

    modalities: Mapping[str, Sequences]
    """Modality name to its sequences; all share the batch dimension."""
    ids: tuple[str, ...]
    """Identity of each sample, unique within a corpus; none in a program that is exported, where the number
    of samples is free."""
    targets: Tensor | None = None
    """(batch,) float of a regression, float64 as a loader makes them, NaN where a sample has none; (batch,)
    int64 of a classification or an ordinal, -1 where it has none; (batch, classes) float64 of a multilabel, 1
    where a class is there, 0 where it is not, NaN where that is unknown; ``None`` where all are unknown."""
    further: Mapping[str, Tensor] = field(default_factory=dict)
    """Further targets by name, of the same forms. Those of tokens have time behind the batch, as long as the
    modality."""
    weights: Tensor | None = None
    """(batch,) weight of each sample in the loss of training, 0 or more; ``None``: all count alike."""
    groups: tuple[str, ...] | None = None
    """Group of each sample, such as a conversation, whose samples stand in order; ``None`` where that is
    unknown."""
    withheld: Mapping[str, Sequences] = field(default_factory=dict)
    """Withheld parts by modality, in training only from the samples of this batch: a target to learn from,
    never an input. Valid positions are those of the samples that the modality was withheld from; see
    `complete`."""

    def __post_init__(self) -> None:
        if not isinstance(self.modalities, Mapping):
            raise ShapeError(
                "modalities: expected a mapping of names to Sequences, found"
                f" {type(self.modalities).__name__}; {_BATCH_OF}"
            )
        for name, sequences in (*self.modalities.items(), *self.withheld.items()):
            if not isinstance(sequences, Sequences):
                raise ShapeError(
                    f"modality {name!r}: expected Sequences, found {type(sequences).__name__}; {_BATCH_OF}"
                )
        if self.targets is not None and not isinstance(self.targets, Tensor):
            raise ShapeError(f"targets: expected a tensor, found {type(self.targets).__name__}; {_BATCH_OF}")
        sizes = {
            name: sequences.features.shape[0]
            for name, sequences in (*self.modalities.items(), *self.withheld.items())
        }
        is_free = torch.compiler.is_compiling() and not self.ids
        wrong = {name: size for name, size in sizes.items() if not is_free and size != len(self.ids)}
        if wrong:
            raise ShapeError(
                f"batch has {len(self.ids)} ids, but these modalities hold another number of samples: {wrong}"
            )
        size = len(self.ids)
        if self.targets is not None and (self.targets.ndim > 2 or self.targets.shape[:1] != (size,)):
            expected = f"({size},)" if self.targets.ndim < 2 else f"({size},), or ({size}, classes)"
            raise ShapeError(f"targets: expected shape {expected}, found {tuple(self.targets.shape)}")
        for name, values in self.further.items():
            if len(values) != len(self.ids):
                raise ShapeError(
                    f"further target {name!r}: expected {len(self.ids)} samples, found {len(values)}"
                )
        if self.weights is not None and self.weights.shape != (len(self.ids),):
            raise ShapeError(f"weights: expected shape ({len(self.ids)},), found {tuple(self.weights.shape)}")
        if self.groups is not None and len(self.groups) != len(self.ids):
            raise ShapeError(
                f"groups: expected one for each of {len(self.ids)} samples, found {len(self.groups)}"
            )

    @classmethod
    def of(
        cls,
        modalities: Mapping[str, Any],
        *,
        targets: Any = None,
        lengths: Mapping[str, Sequence[int] | Tensor] | None = None,
        times: Mapping[str, Any] | None = None,
        ids: Sequence[str] | None = None,
    ) -> Self:
        """A batch of plain arrays or tensors.

        Args:
            modalities: Name to a list with one array per sample, (time, width), or (time,) integers for token
                ids; ``None`` or length 0 where the sample lacks the modality. Or to one padded array of all
                samples, (batch, time, width), or (batch, time) integers for token ids. Tensors keep their
                device, their precision and their gradients; other numbers become float32, and float64 in
                targets and times.
            targets: (batch,) numbers for regression, class indices for classification; (batch, classes) for
                a multilabel, 1 where a class is there, 0 where it is not, NaN where that is unknown.
            lengths: For padded arrays, name to the number of valid tokens of each sample, which come first.
                An array without lengths counts as valid throughout.
            times: Name to seconds on a clock of all modalities, given as the modality is: a list of (time,),
                or (batch, time).
            ids: Identity of each sample; by default ``sample-000001`` and so on.

        Raises:
            DataError: If a value is not a finite number, or an id appears twice.
            ShapeError: If shapes, lengths or numbers of samples do not fit one another.
        """
        if not isinstance(modalities, Mapping) or not modalities:
            found = type(modalities).__name__ if not isinstance(modalities, Mapping) else "an empty one"
            raise DataError(f"modalities: expected a mapping of names to arrays, found {found}")
        for what, given in (("lengths", lengths), ("times", times)):
            if given is not None and not isinstance(given, Mapping):
                raise DataError(f"{what}: expected a mapping by modality, found {type(given).__name__}")
            unknown = [name for name in given or {} if name not in modalities]
            if unknown:
                raise DataError(f"{what}: no modality {unknown[0]!r}, only {list(modalities)}")
        made = {
            name: _sequences(name, given, (lengths or {}).get(name), (times or {}).get(name))
            for name, given in modalities.items()
        }
        size = next(iter(made.values())).mask.shape[0]
        named = tuple(f"sample-{number:06d}" for number in range(1, size + 1)) if ids is None else tuple(ids)
        wrong = [identity for identity in named if not isinstance(identity, str)]
        if wrong:
            raise DataError(f"ids: expected text, found {wrong[0]!r}")
        if len(set(named)) != len(named):
            raise DataError(
                f"ids: {next(each for each in named if named.count(each) > 1)!r} appears twice, expected"
                " distinct ones"
            )
        return cls(modalities=made, ids=named, targets=None if targets is None else targets_of(targets))

    @classmethod
    def collate(cls, rows: Sequence[tuple[Mapping[str, Any], Any] | Mapping[str, Any]]) -> Self:
        """A batch of samples as a torch ``Dataset`` gives them, for ``DataLoader(dataset,
        collate_fn=Batch.collate)``.

        Args:
            rows: Per sample ``(features, target)``, or the features alone: a mapping of names to arrays as
                `of` takes them. A modality that is ``None`` or not in the mapping is missing from the sample.

        Raises:
            DataError: If a row is of another form, or no row has a modality.
            ShapeError: As for `of`.
        """
        pairs = [labelled(row) for row in rows]
        names = list(dict.fromkeys(name for features, _ in pairs for name in features))
        known = [target is not None for _, target in pairs]
        if any(known) and not all(known):
            raise DataError(
                f"row {known.index(False)}: found no target, expected one, as other rows of its batch have"
            )
        present = {name: [features.get(name) for features, _ in pairs] for name in names}
        filled = {
            name: arrays
            for name, arrays in present.items()
            if any(array is not None and len(array) for array in arrays)
        }
        return cls.of(filled, targets=[target for _, target in pairs] if any(known) else None)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Number of samples, as the tensors have it: free in a program that is exported."""
        first = next(iter(self.modalities.values()), None)
        return len(self.ids) if first is None else first.mask.shape[0]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(s.features.shape)}" for name, s in self.modalities.items())
        return (
            f"Batch({len(self)} samples: {shapes or 'no modality'};"
            f" {'no targets' if self.targets is None else 'with targets'})"
        )

    def _changed(self, change: Callable[[Sequences], Sequences], **others: Any) -> Self:
        """The same batch with `change` over all sequences, and other values of these fields."""
        shown, withheld = (
            {name: change(s) for name, s in each.items()} for each in (self.modalities, self.withheld)
        )
        return replace(self, modalities=shown, withheld=withheld, **others)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The batch on another device."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        targets = None if self.targets is None else moved(self.targets)
        further = {name: moved(values) for name, values in self.further.items()}
        weights = None if self.weights is None else moved(self.weights)
        return self._changed(lambda s: s.mapped(moved), targets=targets, further=further, weights=weights)

    def in_precision(self, dtype: torch.dtype) -> Self:
        """The batch with features of that floating type; token ids, times and targets keep theirs."""

        def cast(s: Sequences) -> Sequences:
            return s.with_tensors(features=s.features.to(dtype)) if s.features.is_floating_point() else s

        return self._changed(cast)

    def select(self, rows: Sequence[int]) -> Self:
        """The samples at `rows`, in that order."""
        index = torch.as_tensor(rows, dtype=torch.int64)

        def picked(tensor: Tensor) -> Tensor:
            return tensor[index.to(tensor.device)]

        def rows_of(s: Sequences) -> Sequences:
            tokens = None if s.tokens is None else tuple(s.tokens[row] for row in rows)
            return s.mapped(picked).with_tensors(tokens=tokens)

        return self._changed(
            rows_of,
            ids=tuple(self.ids[row] for row in rows),
            targets=None if self.targets is None else picked(self.targets),
            further={name: picked(values) for name, values in self.further.items()},
            weights=None if self.weights is None else picked(self.weights),
            groups=None if self.groups is None else tuple(self.groups[row] for row in rows),
        )

    def having(self, name: str) -> Tensor:
        """(batch,) bool, true in the samples that have a modality, which the batch may lack."""
        if name in self.modalities:
            return self.modalities[name].mask.any(1)
        device = next((s.mask.device for s in self.modalities.values()), None)
        return torch.zeros(self.size, dtype=torch.bool, device=device)

    def without(self, *names: str) -> Self:
        """The batch with the named modalities missing from every sample.

        Raises:
            DataError: If the batch has no modality of that name.
        """
        unknown = [name for name in names if name not in self.modalities]
        if unknown:
            raise DataError(
                f"modality {unknown[0]!r} is not in this batch, which has {sorted(self.modalities)}"
            )
        hidden = {name: self.modalities[name].hidden() for name in names}
        return replace(self, modalities={**self.modalities, **hidden})

    def complete(self) -> Self:
        """The batch as it was before anything was withheld from it."""
        merged = {
            name: _either(s, self.withheld[name]) if name in self.withheld else s
            for name, s in self.modalities.items()
        }
        return replace(self, modalities=merged, withheld={})

    @classmethod
    def concatenate(cls, batches: Sequence["Batch"]) -> "Batch":
        """One batch from several with the same modalities, padded to the longest of each modality."""
        names = list(batches[0].modalities)
        for batch in batches[1:]:
            if set(batch.modalities) != set(names):
                raise ShapeError(
                    f"cannot concatenate batches with modalities {sorted(names)} and"
                    f" {sorted(batch.modalities)}"
                )
        modalities = {name: _concatenate([batch.modalities[name] for batch in batches]) for name in names}
        targets = [batch.targets for batch in batches if batch.targets is not None]
        if targets and len(targets) != len(batches):
            raise ShapeError("cannot concatenate batches with targets and batches without")
        further = set.intersection(*(set(batch.further) for batch in batches))
        weights = [batch.weights for batch in batches if batch.weights is not None]
        groups = [batch.groups for batch in batches if batch.groups is not None]
        names = [name for name in names if any(name in batch.withheld for batch in batches)]
        withheld = {
            name: _concatenate([b.withheld.get(name, b.modalities[name].hidden()) for b in batches])
            for name in names
        }
        return cls(
            modalities=modalities,
            ids=tuple(identity for batch in batches for identity in batch.ids),
            targets=torch.cat(targets) if targets else None,
            further={
                name: _concatenate_further([batch.further[name] for batch in batches])
                for name in sorted(further)
            },
            weights=torch.cat(weights) if len(weights) == len(batches) else None,
            groups=tuple(group for part in groups for group in part) if len(groups) == len(batches) else None,
            withheld=withheld,
        )


def labelled(row: Any) -> tuple[Mapping[str, Any], Any]:
    """Features and target of a sample as a torch ``Dataset`` gives it: ``(features, target)``, or the
    features alone.

    Raises:
        DataError: If it is of another form.
    """
    features, target = row if isinstance(row, tuple | list) and len(row) == 2 else (row, None)
    if not isinstance(features, Mapping):
        raise DataError(
            "sample: expected (features, target) with a mapping of modality names to arrays, found"
            f" {type(features).__name__}"
        )
    return features, target


def _sequences(name: str, given: Any, lengths: Any, times: Any) -> Sequences:
    """One modality of `Batch.of`."""
    if isinstance(given, Tensor | np.ndarray) and given.dtype != object:
        padded = tensor_of(given, f"modality {name!r}", floating=np.float32)
        tokens = padded.ndim == 2 and not padded.is_floating_point()
        if padded.ndim != 3 and not tokens:
            raise ShapeError(
                f"modality {name!r}: expected (batch, time, width), or (batch, time) integers for token ids,"
                f" found {tuple(padded.shape)}"
            )
        if tokens:
            padded = padded.unsqueeze(-1)
        mask = mask_of(name, padded, lengths)
        seconds = None if times is None else tensor_of(times, f"times of {name!r}").to(padded.device)
    else:
        if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
            raise DataError(
                f"modality {name!r}: expected a list of arrays or one padded array, found"
                f" {type(given).__name__}"
            )
        if lengths is not None:
            raise ShapeError(
                f"lengths: modality {name!r} is a list of arrays, which have their own lengths; expected"
                " a padded array"
            )
        padded, mask, tokens = padded_rows(name, given)
        seconds = None if times is None else padded_times(name, times, mask)
    if not tokens:
        padded = padded if padded.is_floating_point() else padded.float()
        wrong = (~padded.isfinite() & mask.unsqueeze(-1)).nonzero()
        if len(wrong):
            row, position, channel = wrong[0].tolist()
            found = padded[row, position, channel].item()
            raise DataError(
                f"modality {name!r}: found {found} in sample {row}, position {position}, channel {channel},"
                " expected numbers"
            )
    return Sequences(features=padded.long() if tokens else padded, mask=mask, times=seconds)


def _either(shown: Sequences, withheld: Sequences) -> Sequences:
    longest = max(shown.mask.shape[1], withheld.mask.shape[1])
    there, behind = shown.padded(longest), withheld.padded(longest)
    hidden = withheld.mask.any(1)[:, None]
    times = None
    if there.times is not None and behind.times is not None:
        times = torch.where(hidden, behind.times, there.times)
    features = torch.where(hidden[..., None], behind.features, there.features)
    mask = torch.where(hidden, behind.mask, there.mask)
    return there.with_tensors(features=features, mask=mask, times=times, tokens=None)


def _concatenate_further(parts: Sequence[Tensor]) -> Tensor:
    """Values below one another; where those of tokens are of several lengths, with unknown ones behind."""
    if parts[0].ndim == 1:
        return torch.cat(list(parts))
    longest = max(part.shape[1] for part in parts)
    padded = []
    for part in parts:
        unknown = torch.nan if part.is_floating_point() else -1
        more = part.new_full((len(part), longest - part.shape[1], *part.shape[2:]), unknown)
        padded.append(torch.cat([part, more], 1))
    return torch.cat(padded)


def _concatenate(parts: Sequence[Sequences]) -> Sequences:
    longest = max(part.mask.shape[1] for part in parts)
    parts = [part.padded(longest) for part in parts]
    unknown = [part.mask.new_full(part.mask.shape, torch.nan, dtype=torch.float64) for part in parts]
    times = [nans if part.times is None else part.times for part, nans in zip(parts, unknown, strict=True)]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return Sequences(
        features=torch.cat([part.features for part in parts]),
        mask=torch.cat([part.mask for part in parts]),
        times=torch.cat(times) if any(part.times is not None for part in parts) else None,
        tokens=tuple(row for part in tokens for row in part) if len(tokens) == len(parts) else None,
    )
