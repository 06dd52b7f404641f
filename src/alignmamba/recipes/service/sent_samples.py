"""Samples that another program sends, as JSON or as safetensors, checked field by field."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from alignmamba.contracts import ModalitySpec, Sample
from alignmamba.data.inspection import times_problem
from alignmamba.errors import DataError, shown, suggestion
from alignmamba.files import parse_json

JSON: Final = "application/json"
SAFETENSORS: Final = "application/vnd.safetensors"
_FIELDS: Final = ("id", "features", "times", "group")
_MOST_TEXT: Final = 200
"""Characters of an id or a group."""


class SentSamples:
    """Reader of samples for a model.

    Args:
        modalities: Those of the model.
        longest: Most tokens of a sequence, by modality, where the model bounds them.
    """

    def __init__(self, modalities: Sequence[ModalitySpec], longest: Mapping[str, int]) -> None:
        self._specs = {spec.name: spec for spec in modalities}
        self._longest = longest
        self._numbers = itertools.count(1)

    def of_json(self, body: bytes) -> list[Sample]:
        """Samples of ``{"samples": [{"features": {NAME: [[number, ...], ...]}}]}``.

        A sample may have an ``id``, a ``group``, and ``times``, seconds by modality. A modality that is
        ``null``, empty or left out is missing. Token ids are a list of integers.

        Raises:
            DataError: If something is not so; the message names the field.
        """
        found = parse_json(body, "body")
        if not isinstance(found, dict) or set(found) != {"samples"}:
            what = sorted(found) if isinstance(found, dict) else type(found).__name__
            raise DataError(f"body: expected an object with samples alone, found {what}")
        listed = found["samples"]
        if not isinstance(listed, list) or not listed:
            raise DataError(f"samples: expected a list of one sample or more, found {_kind(listed)}")
        number = next(self._numbers)
        return _distinct(
            [self._sample(f"samples[{row}]", each, number, row) for row, each in enumerate(listed)]
        )

    def of_safetensors(self, body: bytes) -> list[Sample]:
        """Samples of tensors: for each modality NAME, the tokens of all samples one after the other, (tokens,
        width), or (tokens,) token ids; NAME.lengths, the number of tokens of each sample, 0 where missing;
        and perhaps NAME.times, (tokens,) seconds.

        Raises:
            DataError: If something is not so; the message names the tensor.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(body)
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"body: not valid safetensors: {' '.join(str(error).split())[:160]}") from error
        columns: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = {}
        for name in tensors:
            self._known(name.removesuffix(".lengths").removesuffix(".times"), "body")
        for name in self._specs:
            if name in tensors or f"{name}.lengths" in tensors:
                columns[name] = list(self._cut(name, tensors))
            elif f"{name}.times" in tensors:
                raise DataError(f"{name}.times: expected {name} and {name}.lengths beside it, found neither")
        counts = {name: len(rows) for name, rows in columns.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            raise DataError(
                f"body: expected one number of samples, 1 or more, for all modalities, found {counts}"
            )
        number, made = next(self._numbers), []
        for row in range(next(iter(counts.values()))):
            features = {name: rows[row][0] for name, rows in columns.items() if len(rows[row][0])}
            times = {name: columns[name][row][1] for name in features}
            if not features:
                raise DataError(f"sample {row}: found no modality, expected at least one")
            known = {name: seconds for name, seconds in times.items() if seconds is not None}
            made.append(Sample(id=f"request-{number}-{row}", features=features, times=known))
        return made

    def _sample(self, where: str, given: Any, number: int, row: int) -> Sample:
        if not isinstance(given, dict):
            raise DataError(f"{where}: expected an object, found {_kind(given)}")
        unknown = next((key for key in given if key not in _FIELDS), None)
        if unknown is not None:
            raise DataError(
                f"{where}: found the field {unknown!r:.80}, expected {', '.join(_FIELDS)}"
                f"{suggestion(unknown, _FIELDS)}"
            )
        sent = self._by_modality(f"{where}.features", given.get("features"))
        timed = self._by_modality(f"{where}.times", given.get("times") or {})
        features = {
            name: self._array(f"{where}.features.{name}", name, value)
            for name, value in sent.items()
            if value is not None and value != []
        }
        if not features:
            raise DataError(
                f"{where}.features: found no modality, expected at least one of {', '.join(self._specs)}"
            )
        times = {}
        for name, seconds in timed.items():
            if seconds is None:
                continue
            if name not in features:
                raise DataError(f"{where}.times.{name}: expected its features beside it, found none")
            times[name] = _seconds(f"{where}.times.{name}", seconds, len(features[name]))
        identity, group = (_text(f"{where}.{field}", given.get(field)) for field in ("id", "group"))
        return Sample(
            id=identity if identity is not None else f"request-{number}-{row}",
            features=features,
            times=times,
            # Groups of two requests are never one.
            group=None if group is None else f"{number}/{group}",
        )

    def _by_modality(self, where: str, given: Any) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise DataError(f"{where}: expected an object by modality, found {_kind(given)}")
        for name in given:
            self._known(name, where)
        return given

    def _known(self, name: str, where: str) -> None:
        if name not in self._specs:
            names = list(self._specs)
            raise DataError(
                f"{where}: expected a modality of {', '.join(names)}, found {name!r:.80}"
                f"{suggestion(name, names)}"
            )

    def _cut(
        self, name: str, tensors: Mapping[str, np.ndarray]
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Features and times of each sample."""
        for needed in (name, f"{name}.lengths"):
            if needed not in tensors:
                raise DataError(f"{needed}: expected a tensor of this name, found none")
        lengths, whole, seconds = tensors[f"{name}.lengths"], tensors[name], tensors.get(f"{name}.times")
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths.astype(np.int64) < 0).any():
            raise DataError(
                f"{name}.lengths: expected (samples,) counts, found {lengths.dtype} {lengths.shape}"
            )
        if whole.ndim and len(lengths) and lengths.max() > len(whole):  # a sum of such might overflow
            raise DataError(f"{name}: expected at most {len(whole)} tokens a sample, found {lengths.max()}")
        ends = np.cumsum(lengths.astype(np.int64))
        total = int(ends[-1]) if len(ends) else 0
        if whole.ndim == 0 or len(whole) != total:
            raise DataError(
                f"{name}: expected {total} tokens as {name}.lengths says, found shape {whole.shape}"
            )
        if seconds is not None and seconds.shape != (total,):
            raise DataError(f"{name}.times: expected ({total},) seconds, found shape {seconds.shape}")
        for row, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist(), strict=True)):
            part = slice(end - length, end)
            if not length:
                yield np.zeros((0, 1), np.float32), None
                continue
            array = self._array(f"{name}, sample {row}", name, whole[part])
            where = f"{name}.times, sample {row}"
            yield array, None if seconds is None else _seconds(where, seconds[part], length)

    def _array(self, where: str, name: str, given: Any) -> np.ndarray:
        """(time, width) float32 of features, (time, 1) int64 of token ids."""
        spec = self._specs[name]
        wanted = "(tokens,) integers" if spec.kind == "tokens" else f"(tokens, {spec.width}) numbers"
        array = _numbers(where, given, wanted)
        if spec.kind == "tokens":
            if array.ndim != 1 or array.dtype.kind not in "iu":
                raise DataError(f"{where}: expected {wanted}, found {_form(array)}")
            outside = np.flatnonzero((array < 0) | (array >= spec.dim))
            if len(outside):
                place, last = outside[0], spec.dim - 1
                raise DataError(
                    f"{where}[{place}]: found {array[place]}, expected a token id from 0 to {last}"
                )
            array = array.astype(np.int64)[:, None]
        else:
            if array.ndim != 2 or array.shape[1] != spec.width:
                raise DataError(f"{where}: expected {wanted}, found {_form(array)}")
            with np.errstate(over="ignore", invalid="ignore"):
                array = array.astype(np.float32)
            wrong = np.argwhere(~np.isfinite(array))
            if len(wrong):
                token, channel = wrong[0].tolist()
                raise DataError(f"{where}[{token}][{channel}]: expected a finite number that float32 holds")
        most = self._longest.get(name)
        if most is not None and len(array) > most:
            raise DataError(f"{where}: found {len(array)} tokens, expected at most {most}")
        return array


def _distinct(samples: list[Sample]) -> list[Sample]:
    seen: set[str] = set()
    for row, sample in enumerate(samples):
        if sample.id in seen:
            raise DataError(f"samples[{row}].id: found {sample.id!r} twice, expected distinct ids")
        seen.add(sample.id)
    return samples


def _numbers(where: str, given: Any, wanted: str) -> np.ndarray:
    """Numbers as an array, of whatever shape they have."""
    if not isinstance(given, list | np.ndarray):
        raise DataError(f"{where}: expected {wanted}, found {_kind(given)}")
    try:
        array = np.asarray(given)
    except ValueError:
        raise DataError(f"{where}: expected {wanted}, found rows of unequal length") from None
    if array.dtype.kind not in "fiu" or _has_truth(given):
        raise DataError(f"{where}: expected {wanted}, found something that is no number")
    return array


def _has_truth(given: Any) -> bool:
    """True if true or false is among nested lists, which NumPy takes for 1 or 0 beside numbers."""
    kinds = set(map(type, given)) if isinstance(given, list) else ()
    return bool in kinds or (list in kinds and any(map(_has_truth, given)))


def _seconds(where: str, given: Any, length: int) -> np.ndarray:
    array = _numbers(where, given, f"({length},) seconds")
    if array.shape != (length,):
        raise DataError(f"{where}: expected ({length},) seconds, found {_form(array)}")
    seconds = array.astype(np.float64)
    if problem := times_problem(seconds):
        raise DataError(f"{where}: {problem.removeprefix('times: ')}")
    return seconds


def _text(where: str, given: Any) -> str | None:
    if given is None:
        return None
    if not isinstance(given, str) or not 0 < len(given) <= _MOST_TEXT:
        raise DataError(f"{where}: expected text of 1 to {_MOST_TEXT} characters, found {shown(given)}")
    return given


def _form(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _kind(value: Any) -> str:
    """Name of a kind of JSON."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return "an empty list" if not value else "a list"
    names = {bool: "true or false", dict: "an object", str: "text", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
