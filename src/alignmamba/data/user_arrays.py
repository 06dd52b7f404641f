"""Arrays as a user has them, checked: what concerns all samples at once, each sample when it is asked for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from alignmamba.contracts import ROLES, ModalitySpec, Role, Task
from alignmamba.data.classes import Classes
from alignmamba.data.inspection import (
    NOTHING_PRESENT,
    place,
    repeated_id,
    target_problem,
    times_problem,
    values_problem,
)
from alignmamba.data.validity import NotAnArrayError, by_position, is_null, plain_array, plain_scalar
from alignmamba.errors import ConfigError, DataError, first_fault, shown

LABEL_BITS = 256
"""A whole number among the labels besides the target may have as many."""
_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True, kw_only=True)
class SplitArrays:
    """One split as a user has it: parallel lists, one entry per sample."""

    features: Mapping[str, Sequence[np.ndarray | None]]
    """Per modality, an array of shape (time, width) of each sample, or integer token ids of shape (time,).
    ``None`` or an array of length 0 where the sample lacks the modality."""
    targets: Sequence[float | int | str] | None = None
    """A number for regression; a class name, or a class index where no name is a number that stands
    elsewhere, for classification; ``None`` if the whole split has none. Entries may be tensors or arrays of
    one number."""
    ids: Sequence[str] | None = None
    """Identity of each sample, distinct over all splits; by default ``train-000001`` and so on."""
    times: Mapping[str, Sequence[np.ndarray | None]] = field(default_factory=dict)
    """Per modality, seconds from the start of the sample, shape (time,); ``None`` where unknown."""
    tokens: Mapping[str, Sequence[Sequence[str] | None]] = field(default_factory=dict)
    """Per modality, a word for each position, for display; ``None`` where unknown."""
    texts: Sequence[str | None] | None = None
    """Spoken text of each sample, as one text, for people and for export; ``None`` or NaN where unknown."""
    groups: Sequence[str | None] | None = None
    """Group of each sample, such as a conversation or a video; ``None`` or NaN where unknown."""
    labels: Mapping[str, Sequence[float | int | str | None]] = field(default_factory=dict)
    """Labels besides the targets, by name, for analysis and export; ``None`` or NaN where unknown. Nothing is
    trained on them.
    """


def is_integer(given: Any) -> bool:
    return isinstance(given, (int, np.integer)) and not isinstance(given, bool)


def check_mapping(label: str, given: Any) -> None:
    if not isinstance(given, Mapping):
        raise DataError(f"{label}: expected a mapping, found {type(given).__name__}")


def _task(given: Any) -> Task:
    if isinstance(given, Task):
        return given
    if not isinstance(given, Mapping):
        raise DataError(f"task: expected a Task or a mapping with its fields, found {type(given).__name__}")
    try:
        return Task.model_validate(dict(given))
    except ValidationError as error:
        raise DataError(first_fault(error, "task")) from error


def split_arrays(role: str, split: SplitArrays | Mapping[str, Any]) -> SplitArrays:
    """The split with its lists checked to be parallel.

    Raises:
        DataError: If they are not, or one of them is no list, or names no modality.
    """
    if role not in ROLES:
        raise DataError(f"splits: expected names of {list(ROLES)}, found {role!r}")
    if not isinstance(split, SplitArrays):
        check_mapping(f"split {role!r}", split)
        known = [entry.name for entry in fields(SplitArrays)]
        unknown = [key for key in split if key not in known]
        if unknown or "features" not in split:
            raise DataError(
                f"split {role!r}: expected 'features' and perhaps others of {known}, found {list(split)}"
            )
        split = SplitArrays(**split)
    for kind in ("features", "times", "tokens", "labels"):
        check_mapping(f"split {role!r}: {kind}", getattr(split, kind))
    if not split.features:
        raise DataError(f"split {role!r}: features: expected at least one modality, found none")
    split = _by_position(split)
    parallel: dict[str, Any] = {f"features[{name!r}]": values for name, values in split.features.items()}
    for kind, given in (("times", split.times), ("tokens", split.tokens)):
        for name, values in given.items():
            if name not in split.features:
                raise DataError(f"split {role!r}: {kind}: no modality {name!r}, only {list(split.features)}")
            parallel[f"{kind}[{name!r}]"] = values
    parallel |= {f"labels[{name!r}]": values for name, values in split.labels.items()}
    optional = {"targets": split.targets, "ids": split.ids, "texts": split.texts, "groups": split.groups}
    parallel |= {kind: values for kind, values in optional.items() if values is not None}
    first = next(iter(parallel))
    for label, values in parallel.items():
        if isinstance(values, str) or not (hasattr(values, "__len__") and hasattr(values, "__getitem__")):
            raise DataError(
                f"split {role!r}: {label}: expected a list with one entry per sample, found"
                f" {type(values).__name__}"
            )
        if len(values) != len(parallel[first]):
            raise DataError(
                f"split {role!r}: {first} has {len(parallel[first])} entries, but {label} has {len(values)}"
            )
    if len(parallel[first]) == 0:
        raise DataError(f"split {role!r}: found no samples; drop the split")
    return split


def _by_position(split: SplitArrays) -> SplitArrays:
    """The same with every list as one whose entries are asked for by their place."""

    def each(given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: by_position(values) for name, values in given.items()}

    return SplitArrays(
        features=each(split.features),
        targets=by_position(split.targets),
        ids=by_position(split.ids),
        times=each(split.times),
        tokens=each(split.tokens),
        texts=by_position(split.texts),
        groups=by_position(split.groups),
        labels=each(split.labels),
    )


def _all_ids(arrays: Mapping[Role, SplitArrays]) -> dict[Role, list[str]]:
    home: dict[str, Role] = {}
    result: dict[Role, list[str]] = {}
    for role, split in arrays.items():
        size = len(next(iter(split.features.values())))
        given = (
            [f"{role}-{number:06d}" for number in range(1, size + 1)]
            if split.ids is None
            else list(split.ids)
        )
        for row, identity in enumerate(given):
            check_id(role, row, identity)
            if identity in home:
                raise DataError(repeated_id(identity, home[identity], role))
            home[identity] = role
        result[role] = [str(identity) for identity in given]
    return result


def check_id(role: Role, row: int, identity: Any) -> None:
    """Refuse what cannot be an id.

    Raises:
        DataError: Naming split and row.
    """
    if not isinstance(identity, str) or not identity or not _is_unicode(identity):
        raise DataError(
            f"split {role!r}: ids: expected text that is not empty, found {identity!r} in row {row}"
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class AbsentModalityError(DataError):
    """Modalities that no sample of any split has."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"modality {names[0]!r}: found it in no sample of any split, so its width is unknown; drop it"
        )
        self.names = tuple(names)


class _Modality:
    """State of a modality so far: the first sample that has it settles kind and width, all others must
    agree.
    """

    def __init__(self, name: str, vocabulary_size: int | None) -> None:
        self.name = name
        self.vocabulary_size = vocabulary_size
        self.kind: Literal["features", "tokens"] | None = None
        self.width = 1
        self.largest_id = 0
        self.settled_by = ""
        if vocabulary_size is not None and not (
            is_integer(vocabulary_size) and 1 <= vocabulary_size <= _INT32_MAX
        ):
            raise DataError(
                f"vocabulary_sizes: modality {name!r}: expected 1 to {_INT32_MAX}, found {vocabulary_size!r}"
            )

    def spec(self, units: str) -> ModalitySpec:
        """The modality as the corpus describes it."""
        assert self.kind is not None
        dim = self.width
        if self.kind == "tokens":
            dim = self.largest_id + 1 if self.vocabulary_size is None else self.vocabulary_size
        return ModalitySpec(name=self.name, dim=dim, kind=self.kind, units=units)

    def stored(self, role: Role, identity: str, given: Any, *, keep_nonfinite: bool) -> np.ndarray | None:
        """The values of one sample as they are stored, (time, width); ``None`` where it lacks the
        modality.
        """
        if given is None:
            return None
        where = place(role, identity, self.name)
        try:
            array, hidden = plain_array(given)
        except NotAnArrayError as error:
            raise DataError(f"{where}: expected an array of shape (time, width), {error}") from error
        if hidden is not None and (array.ndim == 1 or not keep_nonfinite):
            first = tuple(map(int, np.argwhere(hidden)[0]))
            raise DataError(
                f"{where}: the entry at {first if len(first) > 1 else first[0]} is masked or null"
                f" ({np.count_nonzero(hidden)} of {hidden.size} are), expected"
                f" {'token ids' if array.ndim == 1 else 'finite numbers'}"
            )
        if array.dtype.kind not in "fiu":
            found = (
                "text; put words into texts or tokens, and numbers here"
                if array.dtype.kind in "US"
                else f"dtype {array.dtype}"
            )
            raise DataError(f"{where}: expected real numbers, found {found}")
        if array.ndim > 0 and len(array) == 0:
            return None
        if array.ndim == 1 and array.dtype.kind == "f":
            raise DataError(
                f"{where}: expected shape (time, width), or integers of shape (time,) for token ids, found"
                f" {array.dtype} of shape {array.shape}; a modality of width 1 has shape ({len(array)}, 1)"
            )
        if array.ndim not in (1, 2) or array.size == 0:
            raise DataError(
                f"{where}: expected shape (time, width), or (time,) for token ids, found {array.shape}"
            )
        self._settle(
            where, "tokens" if array.ndim == 1 else "features", array.shape[-1] if array.ndim == 2 else 1
        )
        return (
            self._token_ids(where, array)
            if array.ndim == 1
            else self._features(where, array, keep_nonfinite=keep_nonfinite)
        )

    def _settle(self, where: str, kind: Literal["features", "tokens"], width: int) -> None:
        described = {"tokens": "token ids of shape (time,)", "features": "features of shape (time, width)"}
        if self.kind is None:
            if kind == "features" and self.vocabulary_size is not None:
                raise DataError(
                    f"{where}: vocabulary_sizes says token ids, shape (time,), found {described[kind]}"
                )
            self.kind, self.width, self.settled_by = kind, width, where
        elif kind != self.kind:
            raise DataError(
                f"{where}: expected {described[self.kind]} as in {self.settled_by}, found {described[kind]}"
            )
        elif width != self.width:
            raise DataError(f"{where}: expected width {self.width} as in {self.settled_by}, found {width}")

    def _token_ids(self, where: str, array: np.ndarray) -> np.ndarray:
        column = array.reshape(-1, 1)
        limit = _INT32_MAX if self.vocabulary_size is None else self.vocabulary_size
        if problem := values_problem(column, ModalitySpec(name=self.name, dim=limit, kind="tokens")):
            raise DataError(f"{where}: {problem}")
        self.largest_id = max(self.largest_id, int(array.max()))
        return np.array(column, dtype=np.int32)

    def _features(self, where: str, array: np.ndarray, *, keep_nonfinite: bool) -> np.ndarray:
        if not keep_nonfinite and (
            problem := values_problem(array, ModalitySpec(name=self.name, dim=array.shape[1]))
        ):
            raise DataError(f"{where}: {problem}")
        if array.dtype == np.float32:
            return np.array(array)
        with np.errstate(over="ignore"):
            stored = np.array(array, dtype=np.float32)
        overflow = np.argwhere(np.isinf(stored) & np.isfinite(array))
        if len(overflow):
            position, channel = overflow[0]
            raise DataError(
                f"{where}: found {array[position, channel]} at position {position}, channel {channel},"
                " expected numbers that float32 holds"
            )
        return stored


def _stored_times(where: str, given: Any, length: int) -> np.ndarray:
    try:
        found, hidden = plain_array(given)
    except NotAnArrayError as error:
        raise DataError(f"{where}: times: expected {length} numbers, {error}") from error
    if found.dtype.kind not in "fiu":
        raise DataError(f"{where}: times: expected {length} numbers of seconds, found dtype {found.dtype}")
    if found.shape != (length,):
        raise DataError(f"{where}: times: expected shape ({length},), one per position, found {found.shape}")
    if hidden is not None:
        raise DataError(
            f"{where}: times: the entry at {np.argmax(hidden)} is masked or null, expected seconds"
        )
    seconds = np.array(found, dtype=np.float64)
    if problem := times_problem(seconds):
        raise DataError(f"{where}: {problem}")
    return seconds


def _stored_tokens(where: str, given: Any, length: int) -> list[str]:
    if isinstance(given, str):
        raise DataError(f"{where}: tokens: expected a list of {length} words, found one string")
    if not isinstance(given, Iterable):
        raise DataError(f"{where}: tokens: expected a list of {length} words, found {given!r}")
    words = list(given)
    if len(words) != length:
        raise DataError(f"{where}: tokens: expected {length}, one per position, found {len(words)}")
    for position, word in enumerate(words):
        if not isinstance(word, str) or not _is_unicode(word):
            raise DataError(f"{where}: tokens: expected text, found {word!r} at position {position}")
    return [str(word) for word in words]


def _known(given: Any) -> Any:
    """A text, or ``None`` where there is none: pandas has a null or NaN in its place."""
    return None if is_null(given) or (isinstance(given, float) and np.isnan(given)) else given


def _text(where: str, given: Any) -> str:
    if not isinstance(given, str) or not _is_unicode(given):
        raise DataError(f"{where}: expected text, found {given!r:.80}")
    return str(given)


def _stored_labels(where: str, given: Mapping[str, Any]) -> dict[str, float | int | str]:
    """Labels besides the target, as JSON can hold them, without those that are unknown."""
    known: dict[str, float | int | str] = {}
    for name, wrapped in given.items():
        label = plain_scalar(wrapped)
        _text(f"{where}: name of a label", name)
        if isinstance(label, str):
            known[name] = _text(f"{where}, label {name!r}", label)
        elif is_integer(label):
            if int(label).bit_length() > LABEL_BITS:
                raise DataError(
                    f"{where}, label {name!r}: expected a number of at most {LABEL_BITS} bits, found"
                    f" {shown(int(label))}"
                )
            known[name] = int(label)
        elif isinstance(label, float | np.floating) and not np.isinf(label):
            if not np.isnan(label):
                known[name] = float(label)
        elif label is not None:
            raise DataError(f"{where}, label {name!r}: expected a finite number or text, found {label!r:.80}")
    return known


def _stored_target(where: str, wrapped: Any, task: Task, classes: Classes) -> float | int:
    given, value = plain_scalar(wrapped), 0.0
    said = "a masked or null target" if given is None and wrapped is not None else f"target {shown(given)}"
    if task.kind == "classification":
        if isinstance(given, str):
            if (place_of := classes.place_of_name(given)) is None:
                raise DataError(f"{where}: {said}, expected one of {classes}")
            return place_of
        if not is_integer(given):
            raise DataError(f"{where}: {said}, expected a class index or one of {classes}")
        if not classes.numbers_are_places:
            raise DataError(
                f"{where}: {said} may be the index or the name of a class of {classes}; give names as"
                f" text, for example {classes.names[0]!r}, or sort the classes as 0, 1, 2"
            )
        value = int(given)
    else:
        if isinstance(given, (bool, np.bool_)) or not isinstance(
            given, (int, float, np.integer, np.floating)
        ):
            raise DataError(f"{where}: {said}, expected a number")
        try:
            value = float(given)
        except OverflowError as error:
            raise DataError(
                f"{where}: target of {int(given).bit_length()} bits, expected a number that float64 holds"
            ) from error
    if problem := target_problem(value, task):
        raise DataError(f"{where}: {problem}")
    return value


@dataclass(frozen=True, kw_only=True)
class CheckedSample:
    """One sample as it is stored."""

    id: str
    values: Mapping[str, np.ndarray | None]
    """Every modality's (time, width), float32 or int32; ``None`` where it is missing."""
    times: Mapping[str, np.ndarray]
    """Seconds of the modalities that have them, (time,)."""
    tokens: Mapping[str, list[str]]
    target: float | int | None
    text: str | None
    group: str | None
    labels: Mapping[str, float | int | str]


class CheckedSplits:
    """Arrays that can be stored: what concerns all samples is checked at once, each sample when it is asked
    for.

    Args:
        splits: As for `write_corpus`.
        task: As for `write_corpus`.
        vocabulary_sizes: As for `write_corpus`.
        nonfinite: As for `write_corpus`.
        empty: As for `write_corpus`.

    Raises:
        DataError: If something is malformed or inconsistent.
    """

    def __init__(
        self,
        splits: Mapping[Role, SplitArrays | Mapping[str, Any]],
        *,
        task: Task | Mapping[str, Any],
        vocabulary_sizes: Mapping[str, int] = {},
        nonfinite: Literal["error", "keep"] = "error",
        empty: Literal["error", "skip"] = "error",
    ) -> None:
        if nonfinite not in ("error", "keep"):
            raise DataError(f"nonfinite: expected 'error' or 'keep', found {nonfinite!r}")
        if empty not in ("error", "skip"):
            raise DataError(f"empty: expected 'error' or 'skip', found {empty!r}")
        self.task = _task(task)
        self._classes = Classes(self.task.classes)
        check_mapping("splits", splits)
        check_mapping("vocabulary_sizes", vocabulary_sizes)
        self._arrays = {role: split_arrays(role, split) for role, split in splits.items()}
        if not self._arrays:
            raise DataError("splits: expected at least one, found none")
        first = next(iter(self._arrays))
        names = list(self._arrays[first].features)
        for role, split in self._arrays.items():
            if set(split.features) != set(names):
                raise DataError(
                    f"split {role!r}: features: expected the modalities {names} of split {first!r}, found"
                    f" {list(split.features)}; give a list of None for a modality that a whole split lacks"
                )
        for modality in names:
            try:
                ModalitySpec(name=modality, dim=1)
            except ConfigError as error:
                raise DataError(
                    f"features: {modality!r} cannot name a modality: expected a letter, then letters, digits,"
                    " - and _"
                ) from error
        self._modalities = [_Modality(modality, vocabulary_sizes.get(modality)) for modality in names]
        self.refuse_unknown("vocabulary_sizes", vocabulary_sizes)
        self._ids = _all_ids(self._arrays)
        self._keep_nonfinite, self._skip_empty = nonfinite == "keep", empty == "skip"

    @property
    def roles(self) -> list[Role]:
        """The splits, in order."""
        return list(self._arrays)

    @property
    def names(self) -> list[str]:
        """The modalities, in order."""
        return [modality.name for modality in self._modalities]

    def refuse_unknown(self, field_name: str, given: Mapping[str, Any]) -> None:
        """Refuse a mapping by modality that names one that is not there."""
        unknown = [modality for modality in given if modality not in self.names]
        if unknown:
            raise DataError(f"{field_name}: no modality {unknown[0]!r}, only {self.names}")

    def specs(self, units: Mapping[str, str]) -> tuple[ModalitySpec, ...]:
        """The modalities as a corpus describes them, once all samples were seen.

        Raises:
            AbsentModalityError: If there are some that no sample has.
        """
        absent = [modality.name for modality in self._modalities if modality.kind is None]
        if absent:
            raise AbsentModalityError(absent)
        return tuple(modality.spec(units.get(modality.name, "")) for modality in self._modalities)

    def samples(self, role: Role) -> Iterator[CheckedSample]:
        """The samples of a split in order; each of its arrays is asked for once."""
        split, found = self._arrays[role], False
        for row, identity in enumerate(self._ids[role]):
            values: dict[str, np.ndarray | None] = {}
            times: dict[str, np.ndarray] = {}
            tokens: dict[str, list[str]] = {}
            for modality in self._modalities:
                name, where = modality.name, place(role, identity, modality.name)
                stored = modality.stored(
                    role, identity, split.features[name][row], keep_nonfinite=self._keep_nonfinite
                )
                values[name], length = stored, 0 if stored is None else len(stored)
                if name in split.times and (seconds := split.times[name][row]) is not None:
                    times[name] = _stored_times(where, seconds, length)
                if (
                    name in split.tokens
                    and (spoken := split.tokens[name][row]) is not None
                    and (words := _stored_tokens(where, spoken, length))
                ):
                    tokens[name] = words
            if all(stored is None for stored in values.values()):
                if self._skip_empty:
                    continue
                raise DataError(f"{place(role, identity)}: {NOTHING_PRESENT}")
            found = True
            where = place(role, identity)
            target = (
                None
                if split.targets is None
                else _stored_target(where, split.targets[row], self.task, self._classes)
            )
            text = None if split.texts is None else _known(split.texts[row])
            group = None if split.groups is None else _known(split.groups[row])
            yield CheckedSample(
                id=identity,
                values=values,
                times=times,
                tokens=tokens,
                target=target,
                text=None if text is None else _text(f"{where}: text", text),
                group=None if group is None else _text(f"{where}: group", group),
                labels=_stored_labels(where, {name: given[row] for name, given in split.labels.items()}),
            )
        if not found:
            raise DataError(
                f"split {role!r}: found no modality in any sample, expected at least one; drop the split"
            )
