"""Arrays as a user has them, checked: what concerns all samples at once, each sample when it is asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from alignmamba.contracts import ROLES, ModalitySpec, Role, Sample, Task
from alignmamba.data.classes import Classes
from alignmamba.data.inspection import (
    NOTHING_PRESENT,
    place,
    repeated_id,
    repeats,
    target_problem,
    times_problem,
    values_problem,
)
from alignmamba.data.memory_splits import MemorySplit
from alignmamba.data.validity import NotAnArrayError, by_position, is_null, plain_array, plain_scalar
from alignmamba.errors import ConfigError, DataError, first_fault, shown

LABEL_BITS = 256
"""A whole number among the labels besides the target may have as many."""
TokenLabels = dict[str, list[float | int | str | None]]
"""Labels of the tokens of one modality of a sample, by name."""
_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True, kw_only=True)
class SplitArrays:
    """One split as a user has it: parallel lists, one entry per sample."""

    features: Mapping[str, Sequence[np.ndarray | None]]
    """Per modality, an array of shape (time, width) of each sample, or integer token ids of shape (time,).
    ``None`` or an array of length 0 where the sample lacks the modality."""
    targets: Sequence[Any] | None = None
    """A number for regression; a class name, or a class index where no name is a number that stands
    elsewhere, for classification and ordinal; for a multilabel a number for each class, which is there where
    that is above 0 and unknown where it is ``None`` or NaN, or a list of the names of those that are there.
    ``None`` where a sample has none, or if the whole split has none. Entries may be tensors or arrays."""
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
    token_labels: Mapping[str, Mapping[str, Sequence[Sequence[float | int | str | None] | None]]] = field(
        default_factory=dict
    )
    """Per modality, labels of its tokens by name: of each sample a list or an array with one for each token,
    ``None`` or NaN where unknown; ``None`` for a sample without any."""

    def lists(self) -> Iterator[tuple[str, Any]]:
        """All lists that are given, with what messages call them."""
        for entry in fields(self):
            given = getattr(self, entry.name)
            if entry.name == "token_labels":
                for modality, labels in given.items():
                    yield from (
                        (f"token_labels[{modality!r}][{name!r}]", values) for name, values in labels.items()
                    )
            elif isinstance(given, Mapping):
                yield from ((f"{entry.name}[{name!r}]", values) for name, values in given.items())
            elif given is not None:
                yield entry.name, given

    def changed(self, change: Callable[[Any], Any]) -> "SplitArrays":
        """The same with each of its lists changed."""

        def each(given: Any) -> Any:
            if isinstance(given, Mapping):
                return {name: each(values) for name, values in given.items()}
            return None if given is None else change(given)

        return SplitArrays(**{entry.name: each(getattr(self, entry.name)) for entry in fields(self)})


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
    """The split with its lists checked to be parallel, and each asked for its entries by their place.

    Raises:
        DataError: If they are not, or one of them is no list, or names no modality.
    """
    if role not in ROLES:
        raise DataError(f"splits: expected names of {list(ROLES)}, found {role!r}")
    where = f"split {role!r}"
    if not isinstance(split, SplitArrays):
        check_mapping(where, split)
        known = [entry.name for entry in fields(SplitArrays)]
        if "features" not in split or not split.keys() <= set(known):
            raise DataError(
                f"{where}: expected 'features' and perhaps others of {known}, found {list(split)}"
            )
        split = SplitArrays(**split)
    for kind in ("features", "times", "tokens", "labels", "token_labels"):
        check_mapping(f"{where}: {kind}", getattr(split, kind))
    for name, labels in split.token_labels.items():
        check_mapping(f"{where}: token_labels[{name!r}]", labels)
    if not split.features:
        raise DataError(f"{where}: features: expected at least one modality, found none")
    for kind in ("times", "tokens", "token_labels"):
        given = getattr(split, kind)
        if unknown := [name for name in given if name not in split.features]:
            raise DataError(f"{where}: {kind}: no modality {unknown[0]!r}, only {list(split.features)}")
    split = split.changed(by_position)
    first, size = "", 0
    for label, values in split.lists():
        if isinstance(values, str) or not (hasattr(values, "__len__") and hasattr(values, "__getitem__")):
            found = type(values).__name__
            raise DataError(f"{where}: {label}: expected a list with one entry per sample, found {found}")
        first, size = (first, size) if first else (label, len(values))
        if len(values) != size:
            raise DataError(f"{where}: {first} has {size} entries, but {label} has {len(values)}")
    if size == 0:
        raise DataError(f"{where}: found no samples; drop the split")
    return split


def ids_of(role: Role, split: SplitArrays) -> list[str]:
    """The ids of the samples of a split; numbers where none are given.

    Raises:
        DataError: If one is no id.
    """
    if split.ids is None:
        size = len(next(iter(split.features.values())))
        return [f"{role}-{number:06d}" for number in range(1, size + 1)]
    for row, identity in enumerate(split.ids):
        if not isinstance(identity, str) or not identity or not _is_unicode(identity):
            raise DataError(
                f"split {role!r}: ids: expected text that is not empty, found {identity!r} in row {row}"
            )
    return [str(identity) for identity in split.ids]


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
        size = 1 if vocabulary_size is None else vocabulary_size
        if not (is_integer(size) and 1 <= size <= _INT32_MAX):
            raise DataError(
                f"vocabulary_sizes: modality {name!r}: expected 1 to {_INT32_MAX}, found {size!r}"
            )

    def spec(self, units: str) -> ModalitySpec:
        """The modality as the corpus describes it."""
        assert self.kind is not None
        dim = self.width
        if self.kind == "tokens":
            dim = self.largest_id + 1 if self.vocabulary_size is None else self.vocabulary_size
        return ModalitySpec(name=self.name, dim=dim, kind=self.kind, units=units)

    def stored(self, where: str, given: Any, *, keep_nonfinite: bool) -> np.ndarray | None:
        """The values of one sample as they are stored, (time, width); ``None`` where it lacks the
        modality.
        """
        if given is None:
            return None
        try:
            array, hidden = plain_array(given)
        except NotAnArrayError as error:
            raise DataError(f"{where}: expected an array of shape (time, width), {error}") from error
        of_tokens = array.ndim == 1
        if hidden is not None and (of_tokens or not keep_nonfinite):
            first = tuple(map(int, np.argwhere(hidden)[0]))
            raise DataError(
                f"{where}: the entry at {first if len(first) > 1 else first[0]} is masked or null"
                f" ({np.count_nonzero(hidden)} of {hidden.size} are), expected"
                f" {'token ids' if of_tokens else 'finite numbers'}"
            )
        if array.dtype.kind not in "fiu":
            found = f"dtype {array.dtype}"
            if array.dtype.kind in "US":
                found = "text; put words into texts or tokens, and numbers here"
            raise DataError(f"{where}: expected real numbers, found {found}")
        if array.ndim > 0 and len(array) == 0:
            return None
        if of_tokens and array.dtype.kind == "f":
            raise DataError(
                f"{where}: expected shape (time, width), or integers of shape (time,) for token ids, found"
                f" {array.dtype} of shape {array.shape}; a modality of width 1 has shape ({len(array)}, 1)"
            )
        if array.ndim not in (1, 2) or array.size == 0:
            raise DataError(
                f"{where}: expected shape (time, width), or (time,) for token ids, found {array.shape}"
            )
        if of_tokens:
            self._settle(where, "tokens", 1)
            return self._token_ids(where, array)
        self._settle(where, "features", array.shape[1])
        return self._features(where, array, keep_nonfinite=keep_nonfinite)

    def _settle(self, where: str, kind: Literal["features", "tokens"], width: int) -> None:
        described = {"tokens": "token ids of shape (time,)", "features": "features of shape (time, width)"}
        if self.kind is None and kind == "features" and self.vocabulary_size is not None:
            raise DataError(
                f"{where}: vocabulary_sizes says token ids, shape (time,), found {described[kind]}"
            )
        if self.kind is None:
            self.kind, self.width, self.settled_by = kind, width, where
        if kind != self.kind:
            raise DataError(
                f"{where}: expected {described[self.kind]} as in {self.settled_by}, found {described[kind]}"
            )
        if width != self.width:
            raise DataError(f"{where}: expected width {self.width} as in {self.settled_by}, found {width}")

    def _token_ids(self, where: str, array: np.ndarray) -> np.ndarray:
        column = array.reshape(-1, 1)
        limit = _INT32_MAX if self.vocabulary_size is None else self.vocabulary_size
        if problem := values_problem(column, ModalitySpec(name=self.name, dim=limit, kind="tokens")):
            raise DataError(f"{where}: {problem}")
        self.largest_id = max(self.largest_id, int(array.max()))
        return np.array(column, dtype=np.int32)

    def _features(self, where: str, array: np.ndarray, *, keep_nonfinite: bool) -> np.ndarray:
        if not keep_nonfinite:
            spec = ModalitySpec(name=self.name, dim=array.shape[1])
            if problem := values_problem(array, spec):
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


def _text(where: str, given: Any) -> str:
    if not isinstance(given, str) or not _is_unicode(given):
        raise DataError(f"{where}: expected text, found {given!r:.80}")
    return str(given)


def _known_text(where: str, given: Sequence[Any] | None, row: int) -> str | None:
    """A text, or ``None`` where there is none: pandas has a null or NaN in its place."""
    found = None if given is None else given[row]
    return None if is_null(found) or (isinstance(found, float) and np.isnan(found)) else _text(where, found)


def _stored_labels(where: str, given: Mapping[str, Any]) -> dict[str, float | int | str]:
    """Labels besides the target, as JSON can hold them, without those that are unknown."""
    known: dict[str, float | int | str] = {}
    for name, wrapped in given.items():
        _text(f"{where}: name of a label", name)
        if (label := _stored_label(f"{where}, label {name!r}", wrapped)) is not None:
            known[name] = label
    return known


def _stored_label(where: str, wrapped: Any) -> float | int | str | None:
    """One label, as JSON can hold it; ``None`` where it is unknown."""
    label = plain_scalar(wrapped)
    if isinstance(label, str):
        return _text(where, label)
    if is_integer(label):
        if int(label).bit_length() > LABEL_BITS:
            raise DataError(
                f"{where}: expected a number of at most {LABEL_BITS} bits, found {shown(int(label))}"
            )
        return int(label)
    if isinstance(label, float | np.floating) and not np.isinf(label):
        return None if np.isnan(label) else float(label)
    if label is not None:
        raise DataError(f"{where}: expected a finite number or text, found {label!r:.80}")
    return None


def _stored_token_labels(where: str, given: Mapping[str, Any], length: int) -> TokenLabels:
    """Labels of the tokens of one modality, of those names of which any is known."""
    known: TokenLabels = {}
    for name, labels in given.items():
        _text(f"{where}: name of a label", name)
        place = f"{where}, label {name!r}"
        if labels is None:
            continue
        if isinstance(labels, str) or not (hasattr(labels, "__len__") and hasattr(labels, "__iter__")):
            raise DataError(f"{place}: expected a list of {length} labels, found {shown(labels)}")
        if len(labels) != length:
            raise DataError(f"{place}: expected {length}, one for each token, found {len(labels)}")
        plain = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
        found = [_stored_label(f"{place}, token {at}", label) for at, label in enumerate(plain)]
        if any(label is not None for label in found):
            known[name] = found
    return known


def _stored_target(
    where: str, wrapped: Any, task: Task, classes: Classes
) -> float | int | tuple[float, ...] | None:
    """The target of a sample, ``None`` where it is null."""
    if is_null(wrapped):
        return None
    if task.kind == "multilabel":
        return task.known(_stored_classes(where, wrapped, classes))
    given = plain_scalar(wrapped)
    if given is None:
        return None
    said, is_class, value = f"target {shown(given)}", task.has_one_class, 0.0
    if is_class and isinstance(given, str):
        if (place_of := classes.place_of_name(given)) is None:
            raise DataError(f"{where}: {said}, expected one of {classes}")
        return place_of
    if is_class and not is_integer(given):
        raise DataError(f"{where}: {said}, expected a class index or one of {classes}")
    if is_class and not classes.numbers_are_places:
        raise DataError(
            f"{where}: {said} may be the index or the name of a class of {classes}; give names as"
            f" text, for example {classes.names[0]!r}, or sort the classes as 0, 1, 2"
        )
    if isinstance(given, (bool, np.bool_)) or not isinstance(given, (int, float, np.integer, np.floating)):
        raise DataError(f"{where}: {said}, expected a number")
    try:
        value = int(given) if is_class else float(given)
    except OverflowError as error:
        raise DataError(
            f"{where}: target of {int(given).bit_length()} bits, expected a number that float64 holds"
        ) from error
    if problem := target_problem(value, task):
        raise DataError(f"{where}: {problem}")
    return value


def _stored_classes(where: str, given: Any, classes: Classes) -> tuple[float, ...]:
    """1, 0 or NaN for each class of several, from a number for each or from names."""
    size = len(classes.names)
    expected = f"expected a number for each of {size} classes, or a list of names of {classes}"
    if isinstance(given, list | tuple | set | frozenset) and (
        not given or any(isinstance(each, str) for each in given)
    ):
        if wrong := [each for each in given if each not in classes.names]:
            raise DataError(f"{where}: target {shown(wrong[0])}, {expected}")
        return tuple(float(name in given) for name in classes.names)
    try:
        values, hidden = plain_array(given)
    except NotAnArrayError as error:
        raise DataError(f"{where}: target: {error}, {expected}") from error
    if values.shape != (size,) or values.dtype.kind not in "fiub":
        raise DataError(f"{where}: target {shown(given)}, {expected}")
    unknown = np.isnan(values.astype(np.float64))
    return tuple(np.where(unknown if hidden is None else unknown | hidden, np.nan, values > 0).tolist())


@dataclass(frozen=True, kw_only=True)
class CheckedSample:
    """One sample as it is stored."""

    id: str
    values: Mapping[str, np.ndarray | None]
    """Every modality's (time, width), float32 or int32; ``None`` where it is missing."""
    times: Mapping[str, np.ndarray]
    """Seconds of the modalities that have them, (time,)."""
    tokens: Mapping[str, list[str]]
    target: float | int | tuple[float, ...] | None
    text: str | None
    group: str | None
    labels: Mapping[str, float | int | str]
    token_labels: Mapping[str, TokenLabels]


class CheckedSplits:
    """Arrays that can be stored: what concerns all samples is checked at once, each sample when it is asked
    for. The arguments are those of `write_corpus`.

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
        self._ids = {role: ids_of(role, split) for role, split in self._arrays.items()}
        for repeated in repeats(self._ids):
            raise DataError(repeated_id(*repeated))
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

    def is_labelled(self, role: Role) -> bool:
        """True if a split has a list of targets."""
        return self._arrays[role].targets is not None

    def split(self, role: Role) -> MemorySplit:
        """The samples of a split, in memory."""
        samples = [
            Sample(
                id=each.id,
                features={name: array for name, array in each.values.items() if array is not None},
                target=each.target,
            )
            for each in self.samples(role)
        ]
        return MemorySplit(role=role, samples=samples, modalities=self.specs({}))

    def samples(self, role: Role) -> Iterator[CheckedSample]:
        """The samples of a split in order; each of its arrays is asked for once."""
        split, found = self._arrays[role], False
        for row, identity in enumerate(self._ids[role]):
            where = place(role, identity)
            values: dict[str, np.ndarray | None] = {}
            times: dict[str, np.ndarray] = {}
            tokens: dict[str, list[str]] = {}
            token_labels: dict[str, TokenLabels] = {}
            for modality in self._modalities:
                name, whose = modality.name, place(role, identity, modality.name)
                values[name] = stored = modality.stored(
                    whose, split.features[name][row], keep_nonfinite=self._keep_nonfinite
                )
                length = 0 if stored is None else len(stored)
                if name in split.times and (seconds := split.times[name][row]) is not None:
                    times[name] = _stored_times(whose, seconds, length)
                spoken = split.tokens[name][row] if name in split.tokens else None
                if spoken is not None and (words := _stored_tokens(whose, spoken, length)):
                    tokens[name] = words
                own = {label: given[row] for label, given in split.token_labels.get(name, {}).items()}
                if found_labels := _stored_token_labels(whose, own, length):
                    token_labels[name] = found_labels
            if all(stored is None for stored in values.values()):
                if self._skip_empty:
                    continue
                raise DataError(f"{where}: {NOTHING_PRESENT}")
            found, target = True, None
            if split.targets is not None:
                target = _stored_target(where, split.targets[row], self.task, self._classes)
            yield CheckedSample(
                id=identity,
                values=values,
                times=times,
                tokens=tokens,
                target=target,
                text=_known_text(f"{where}: text", split.texts, row),
                group=_known_text(f"{where}: group", split.groups, row),
                labels=_stored_labels(where, {name: given[row] for name, given in split.labels.items()}),
                token_labels=token_labels,
            )
        if not found:
            raise DataError(
                f"split {role!r}: found no modality in any sample, expected at least one; drop the split"
            )
