"""What the parts of AlignMamba agree on: one batch, one output, one task, sealed splits.

Everything above this floor speaks in these types. A model sees a `Batch` and returns an `Output`; training
and evaluation know models only by that; data hands out `Split` objects whose role cannot be changed.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Protocol,
    Self,
    Union,
    get_args,
    get_origin,
    runtime_checkable,
)

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from torch import Tensor

from alignmamba.errors import ConfigError, DataError, ShapeError, explain

Role = Literal["train", "valid", "test"]
ROLES: tuple[Role, ...] = ("train", "valid", "test")

MOST_IDS = 1 << 31
"""A vocabulary, and so a feature vector, may be as large: token ids are stored in 32 bits."""
MOST_CLASSES = 100_000
"""A task may have as many."""

Name = Annotated[
    str,
    Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$", description="letters, digits, - and _, a letter first"),
]


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # it has no public name


class _OneLine(ModelMetaclass):
    """Turns what pydantic says of a constructor's arguments into a `ConfigError`.

    It stands around the call of the class alone: validation inside another model, of JSON and of pickles is
    pydantic's own.
    """

    if not TYPE_CHECKING:  # a type checker reads the fields

        def __call__(cls, *args: Any, **values: Any) -> Any:  # noqa: N805 # of a metaclass
            if args:
                first = next(iter(cls.model_fields))
                raise ConfigError(
                    f"{cls.__name__}: takes its fields by name, for example {cls.__name__}({first}=...)"
                )
            try:
                return super().__call__(**cls.completed(values))
            except ValidationError as error:
                raise ConfigError(explain(error, keys=cls.known_keys(values))) from None


class Config(BaseModel, metaclass=_OneLine):
    """Root of every configuration: immutable, keyword-only, unknown keys refused.

    Raises:
        ConfigError: If a key is unknown, a value is missing or out of range; one line names all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments of a constructor, with what follows from them; nothing here."""
        return values

    @classmethod
    def known_keys(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Every dotted key that may be meant by one that is unknown, beside these values."""
        del values  # only a configuration whose keys depend on its values looks at them
        return tuple(dotted_keys(cls.model_fields))


def dotted_keys(fields: Mapping[str, FieldInfo], prefix: str = "") -> Iterator[str]:
    """Every key of these fields and, after a dot, of the configurations among them."""
    for name, info in fields.items():
        yield f"{prefix}{name}"
        inner = [
            key for each in configurations(info) for key in dotted_keys(each.model_fields, f"{prefix}{name}.")
        ]
        yield from dict.fromkeys(inner)


def configurations(info: FieldInfo) -> tuple[type[BaseModel], ...]:
    """The configurations that a field may hold, one for each kind; none where it holds a plain value."""
    kind = info.annotation
    either = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    found = [get_args(each)[0] if get_origin(each) is Annotated else each for each in either]
    configs = tuple(each for each in found if isinstance(each, type) and issubclass(each, BaseModel))
    return configs if len(configs) == len(found) else ()


class ModalitySpec(Config):
    """One modality as a corpus stores it and a model expects it."""

    name: Name
    """Name of the modality, for example ``text``."""
    dim: Annotated[int, Field(ge=1, le=MOST_IDS)]
    """Width of one feature vector; for token ids, the size of the vocabulary."""
    kind: Literal["features", "tokens"] = "features"
    """``features``: float vectors; ``tokens``: integer ids in ``[0, dim)``."""
    units: str = ""
    """What one feature vector measures, for people, for example ``log-mel energy at 100 Hz``."""

    @property
    def width(self) -> int:
        """Channels of the stored array: ``dim`` for features, 1 for token ids."""
        return self.dim if self.kind == "features" else 1


class Task(Config):
    """What is predicted for a sample."""

    kind: Literal["regression", "classification"]
    """``regression``: one real number; ``classification``: one of ``classes``."""
    classes: Annotated[tuple[str, ...], Field(max_length=MOST_CLASSES)] = ()
    """Class names; a target is an index into them. Empty for regression."""
    label_range: tuple[float, float] | None = None
    """Smallest and largest admissible label of a regression task; ``None`` where any number is."""
    sentiment: bool | None = None
    """Mark of a regression whose label is a sentiment: 0 is neutral, and sign and nearest integer are scored
    as well. ``None``: it is one where the range is exactly [-3, 3]."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "classification" and len(self.classes) < 2:
            raise ValueError(f"classes: a classification task needs at least 2, found {len(self.classes)}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: names must be distinct")
        if self.kind == "regression" and self.classes:
            raise ValueError("classes: a regression task has none")
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
            self.kind != "regression"
            or self.label_range is None
            or not self.label_range[0] < 0 < self.label_range[1]
        ):
            raise ValueError(
                "sentiment: needs a regression whose label_range has both signs, for example [-3, 3]"
            )
        return self

    @property
    def is_sentiment(self) -> bool:
        """Answer to whether signs and sentiment classes are scored and named; only then is there a "wrong
        sign" or an ``acc2``.
        """
        return self.label_range == (-3.0, 3.0) if self.sentiment is None else self.sentiment

    @property
    def num_outputs(self) -> int:
        """Width of the prediction head: 1 for regression, the number of classes otherwise."""
        return 1 if self.kind == "regression" else len(self.classes)


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
        """A copy with some fields replaced, whose mask is taken to be as sound as this one: looking at it
        would wait for a GPU.
        """
        copy = object.__new__(type(self))
        for name in self.__slots__:
            object.__setattr__(copy, name, changes.get(name, getattr(self, name)))
        return copy

    def padded(self, length: int) -> Self:
        """The same sequences with invalid positions behind them, `length` in all; no shorter than before."""

        def pad(tensor: Tensor) -> Tensor:
            padding = tensor.new_zeros(tensor.shape[0], max(0, length - tensor.shape[1]), *tensor.shape[2:])
            return torch.cat([tensor, padding], dim=1)

        times = None if self.times is None else pad(self.times)
        return self.with_tensors(features=pad(self.features), mask=pad(self.mask), times=times)


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
    """Identity of each sample, unique within a corpus."""
    targets: Tensor | None = None
    """(batch,) float for regression, float64 as a loader makes them; int64 class indices for classification;
    ``None`` where unknown."""
    groups: tuple[str, ...] | None = None
    """Group of each sample, such as a conversation, whose samples stand in order; ``None`` where that is
    unknown."""
    withheld: Mapping[str, Sequences] = field(default_factory=dict)
    """In training alone, by modality, what was withheld from the samples of this batch: a target to learn
    from, never an input. Valid positions are those of the samples that the modality was withheld from; see
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
        wrong = {name: size for name, size in sizes.items() if size != len(self.ids)}
        if wrong:
            raise ShapeError(
                f"batch has {len(self.ids)} ids, but these modalities hold another number of samples: {wrong}"
            )
        if self.targets is not None and self.targets.shape != (len(self.ids),):
            raise ShapeError(f"targets: expected shape ({len(self.ids)},), found {tuple(self.targets.shape)}")
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
            targets: (batch,) numbers for regression, class indices for classification.
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
        return cls(modalities=made, ids=named, targets=None if targets is None else _targets(targets))

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

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(s.features.shape)}" for name, s in self.modalities.items())
        return (
            f"Batch({len(self)} samples: {shapes or 'no modality'};"
            f" {'no targets' if self.targets is None else 'with targets'})"
        )

    def _map(self, apply: Callable[[Tensor], Tensor]) -> Self:
        """The same batch with `apply`, which keeps the order of the positions, over every tensor."""

        def mapped(s: Sequences) -> Sequences:
            times = None if s.times is None else apply(s.times)
            return s.with_tensors(features=apply(s.features), mask=apply(s.mask), times=times)

        return replace(
            self,
            modalities={name: mapped(s) for name, s in self.modalities.items()},
            targets=None if self.targets is None else apply(self.targets),
            withheld={name: mapped(s) for name, s in self.withheld.items()},
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def in_precision(self, dtype: torch.dtype) -> Self:
        """The batch with features of that floating type; token ids stay integers, and times and targets keep
        theirs.
        """

        def cast(s: Sequences) -> Sequences:
            return s.with_tensors(features=s.features.to(dtype)) if s.features.is_floating_point() else s

        modalities = {name: cast(s) for name, s in self.modalities.items()}
        return replace(
            self, modalities=modalities, withheld={name: cast(s) for name, s in self.withheld.items()}
        )

    def select(self, rows: Sequence[int]) -> Self:
        """The samples at `rows`, in that order."""
        index = torch.as_tensor(rows, dtype=torch.int64)

        def picked(tensor: Tensor) -> Tensor:
            return tensor[index.to(tensor.device)]

        def rows_of(s: Sequences) -> Sequences:
            times = None if s.times is None else picked(s.times)
            tokens = None if s.tokens is None else tuple(s.tokens[row] for row in rows)
            return s.with_tensors(
                features=picked(s.features), mask=picked(s.mask), times=times, tokens=tokens
            )

        return replace(
            self,
            modalities={name: rows_of(s) for name, s in self.modalities.items()},
            ids=tuple(self.ids[row] for row in rows),
            targets=None if self.targets is None else picked(self.targets),
            groups=None if self.groups is None else tuple(self.groups[row] for row in rows),
            withheld={name: rows_of(s) for name, s in self.withheld.items()},
        )

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
        hidden = {
            name: self.modalities[name].with_tensors(mask=torch.zeros_like(self.modalities[name].mask))
            for name in names
        }
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
        groups = [batch.groups for batch in batches if batch.groups is not None]
        names = [name for name in names if any(name in batch.withheld for batch in batches)]
        withheld = {name: _concatenate([_withheld_of(batch, name) for batch in batches]) for name in names}
        return cls(
            modalities=modalities,
            ids=tuple(identity for batch in batches for identity in batch.ids),
            targets=torch.cat(targets) if targets else None,
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
        padded = _tensor(given, f"modality {name!r}", floating=np.float32)
        tokens = padded.ndim == 2 and not padded.is_floating_point()
        if padded.ndim != 3 and not tokens:
            raise ShapeError(
                f"modality {name!r}: expected (batch, time, width), or (batch, time) integers for token ids,"
                f" found {tuple(padded.shape)}"
            )
        if tokens:
            padded = padded.unsqueeze(-1)
        mask = _mask(name, padded, lengths)
        seconds = None if times is None else _tensor(times, f"times of {name!r}").to(padded.device)
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
        padded, mask, tokens = _padded(name, given)
        seconds = None if times is None else _padded_times(name, times, mask)
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


def _tensor(given: Any, what: str, *, floating: Any = np.float64) -> Tensor:
    """Real numbers as a tensor: a tensor as it is, floats of anything else of the type `floating`."""
    if isinstance(given, Tensor):
        found, allowed = given, given.dtype != torch.bool and not given.is_complex()
    else:
        if np.ma.is_masked(given):
            raise DataError(f"{what}: found masked values, expected numbers")
        try:
            array = np.asarray(given)
        except (ValueError, TypeError, RuntimeError) as error:
            raise DataError(
                f"{what}: expected an array, found {type(given).__name__} that cannot become one"
            ) from error
        allowed = array.dtype.kind in "fiu"
        if not allowed:
            raise DataError(
                f"{what}: expected real numbers, found"
                f" {'text' if array.dtype.kind in 'US' else f'dtype {array.dtype}'}"
            )
        found = torch.from_numpy(np.array(array, dtype=floating if array.dtype.kind == "f" else np.int64))
    if not allowed:
        raise DataError(f"{what}: expected real numbers, found dtype {found.dtype}")
    return found


def _mask(name: str, padded: Tensor, lengths: Any) -> Tensor:
    """(batch, time) bool from the number of valid tokens of each sample."""
    size, time = padded.shape[:2]
    if lengths is None:
        return torch.ones(size, time, dtype=torch.bool, device=padded.device)
    counts = _tensor(lengths, f"lengths of {name!r}")
    if counts.shape != (size,) or counts.is_floating_point():
        raise ShapeError(
            f"lengths: modality {name!r}: expected {size} integers, found {counts.dtype} of shape"
            f" {tuple(counts.shape)}"
        )
    outside = ((counts < 0) | (counts > time)).nonzero()
    if len(outside):
        row = int(outside[0])
        raise ShapeError(
            f"lengths: modality {name!r}: found {int(counts[row])} for sample {row}, expected 0 to {time}"
        )
    return torch.arange(time, device=padded.device) < counts.to(padded.device)[:, None]


def _padded(name: str, arrays: Sequence[Any] | np.ndarray) -> tuple[Tensor, Tensor, bool]:
    """Arrays of a list below one another, the mask of their tokens, and whether they are token ids."""
    rows = {
        row: _tensor(array, f"modality {name!r}, sample {row}", floating=np.float32)
        for row, array in enumerate(arrays)
        if array is not None and not (isinstance(array, Sequence | np.ndarray | Tensor) and len(array) == 0)
    }
    if not rows:
        raise DataError(f"modality {name!r}: found it in no sample; drop it")
    first_row, first = next(iter(rows.items()))
    tokens = first.ndim == 1 and not first.is_floating_point()
    for row, array in rows.items():
        if array.ndim == 1 and array.is_floating_point():
            raise ShapeError(
                f"modality {name!r}, sample {row}: expected (time, width), found {tuple(array.shape)}; width"
                f" 1 is ({len(array)}, 1)"
            )
        if (
            array.ndim not in (1, 2)
            or (array.ndim == 1) != tokens
            or (not tokens and array.shape[1] != first.shape[1])
        ):
            wanted = (
                "(time,) integers" if tokens else f"(time, {first.shape[1] if first.ndim == 2 else 'width'})"
            )
            raise ShapeError(
                f"modality {name!r}, sample {row}: expected {wanted} as in sample {first_row}, found"
                f" {tuple(array.shape)}"
            )
    lengths = torch.tensor(
        [len(rows[row]) if row in rows else 0 for row in range(len(arrays))], device=first.device
    )
    mask = torch.arange(int(lengths.max()), device=first.device) < lengths[:, None]
    filled = [rows[row] if row in rows else first[:0] for row in range(len(arrays))]
    padded = torch.nn.utils.rnn.pad_sequence(
        [each.unsqueeze(-1) if tokens else each for each in filled], batch_first=True
    )
    return padded, mask, tokens


def _padded_times(name: str, times: Any, mask: Tensor) -> Tensor:
    """(batch, time) seconds from one list per sample, NaN where a sample has none."""
    seconds = torch.full(mask.shape, torch.nan, dtype=torch.float64, device=mask.device)
    if isinstance(times, str) or not isinstance(times, Sequence) or len(times) != len(mask):
        raise ShapeError(
            f"times: modality {name!r}: expected a list with one entry for each of {len(mask)} samples"
        )
    for row, given in enumerate(times):
        length = int(mask[row].sum())
        if given is None:
            continue
        found = _tensor(given, f"times of {name!r}, sample {row}")
        if found.shape != (length,):
            raise ShapeError(
                f"times: modality {name!r}, sample {row}: expected shape ({length},), found"
                f" {tuple(found.shape)}"
            )
        seconds[row, :length] = found
    return seconds


def _targets(given: Any) -> Tensor:
    """(batch,) int64 of integers, float64 of other numbers."""
    if isinstance(given, Sequence) and any(isinstance(each, str) for each in given):
        raise DataError("targets: found text, expected numbers; a classification takes class indices")
    plain = (
        [each.item() if isinstance(each, Tensor) and each.ndim == 0 else each for each in given]
        if isinstance(given, list)
        else given
    )
    targets = _tensor(plain, "targets")
    if targets.ndim == 0:
        raise DataError(f"targets: expected a list of numbers, found {type(given).__name__}")
    if targets.is_floating_point() and not bool(targets.isfinite().all()):
        raise DataError(f"targets: found {targets[~targets.isfinite()][0].item()}, expected finite numbers")
    return targets if targets.is_floating_point() else targets.long()


def _withheld_of(batch: Batch, name: str) -> Sequences:
    """Sequences withheld of a modality; none, where the batch has none of it."""
    if name in batch.withheld:
        return batch.withheld[name]
    there = batch.modalities[name]
    return there.with_tensors(mask=torch.zeros_like(there.mask))


def _either(shown: Sequences, withheld: Sequences) -> Sequences:
    """Of each sample the sequence that has valid positions."""
    longest = max(shown.mask.shape[1], withheld.mask.shape[1])
    there, behind = shown.padded(longest), withheld.padded(longest)
    hidden = withheld.mask.any(1)[:, None]
    times = (
        None
        if there.times is None or behind.times is None
        else torch.where(hidden, behind.times, there.times)
    )
    return there.with_tensors(
        features=torch.where(hidden[..., None], behind.features, there.features),
        mask=torch.where(hidden, behind.mask, there.mask),
        times=times,
        tokens=None,
    )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A matching between a modality and the anchor, for display and study (Li et al., arXiv 2412.00833, eq.
    5).
    """

    index: Tensor
    """(batch, time) int64; -1 where nothing was matched. With marginal ``source``, the anchor token of each
    source token; with marginal ``anchor``, the source token of each anchor token."""
    similarity: Tensor
    """(batch, time) cosine similarity of the matched pair, 0 where nothing was matched."""
    marginal: Literal["source", "anchor"] = "source"
    """Which side every token of was matched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a fusion model returns for a batch."""

    prediction: Tensor
    """(batch,) value in units of the label for regression, (batch, classes) logits for classification."""
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    """The model's own loss terms by name, each (batch,), already weighted; the trainer adds ``task`` and
    averages over samples."""
    embedding: Tensor
    """(batch, channel) pooled representation."""
    plans: Mapping[str, Plan] | None = None
    """Source modality to its matching onto the anchor, where asked for."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the objective of this network reads beside the prediction, by name: unimodal predictions,
    shared and private parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetScale:
    """Where the targets of a regression task lie and how far they spread, in units of the label."""

    mean: float = 0.0
    deviation: float = 1.0
    """Population standard deviation; 1 where all targets are equal."""

    @classmethod
    def of(cls, targets: Sequence[float]) -> Self:
        """The scale of these targets, computed in float64 from differences to the first; 0 and 1 where there
        is none.

        Raises:
            DataError: If a target is not finite, or they spread further than float64 can hold.
        """
        if len(targets) == 0:
            return cls()
        values = np.asarray(targets, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            shifted = values - values[0]
        widest = float(np.abs(shifted).max())
        if not math.isfinite(widest):
            raise DataError(
                f"targets: expected finite numbers of one scale, found {values.min()} to {values.max()}"
            )
        # Squares of what was divided by the widest difference neither overflow nor vanish.
        deviation = widest * float((shifted / widest).std()) if widest else 0.0
        return cls(mean=float(values[0] + shifted.mean()), deviation=deviation or 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardisation:
    """What a model subtracts from its inputs and targets, and divides them by: learnt from the train split
    alone.
    """

    features: Mapping[str, tuple[Tensor, Tensor]]
    """Modality of features to mean and standard deviation of each channel, float32 of shape (width,)."""
    targets: TargetScale = TargetScale()
    """Scale of the targets of a regression task; 0 and 1 for a classification."""


class ScalesTargets(ABC):
    """A model whose regression head gives deviations from the mean of the targets; its `Output` is in units
    of the label.

    A model of your own says so by inheriting from this class: fitting then gives it the scale of the train
    targets.
    """

    @property
    @abstractmethod
    def target_scale(self) -> TargetScale | None:
        """The scale that was set or loaded; ``None`` as long as there is none."""

    @abstractmethod
    def scale_targets(self, scale: TargetScale) -> None:
        """Set the scale; from now on a head's output z is predicted as ``mean + deviation * z``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One example, unpadded."""

    id: str
    features: Mapping[str, np.ndarray]
    """Modality name to (time, width); a missing modality is absent from the mapping."""
    target: float | int | None = None
    times: Mapping[str, np.ndarray] = field(default_factory=dict)
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text: str | None = None
    """What was said, for people and for export."""
    group: str | None = None
    """What the sample belongs to, such as a conversation or a video."""
    labels: Mapping[str, float | int | str] = field(default_factory=dict)
    """Labels besides the target, by name, for analysis and export; nothing is trained on them."""


@runtime_checkable
class Split(Protocol):
    """One part of a corpus. Its role is fixed where it is made: `fit` takes ``train`` and ``valid``, never
    ``test``.
    """

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
    location: str = field(default="", init=False, compare=False)
    """Where it can be loaded from again: a directory, or ``synthetic``. Empty in memory, and of what was made
    of another corpus."""

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
    """What a model said of a split, in the order of the split's ids."""

    ids: tuple[str, ...]
    prediction: np.ndarray
    """(samples,) values for regression, (samples, classes) probabilities for classification."""
    targets: np.ndarray | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    """Mean of each loss term over the samples, ``task`` and ``total`` among them, where targets are known."""

    def __repr__(self) -> str:
        known = "no targets" if self.targets is None else "with targets"
        return f"Predictions({len(self.ids)} samples, prediction {self.prediction.shape}, {known})"
