"""Results of reading a clip: one modality of it as a sequence, its words, or the reason for neither."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True, slots=True)
class Absent:
    """A modality that a clip lacks, which is no fault: a silent film, a voice without a face."""

    reason: str
    """Half a sentence for people, for example ``no audio stream``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One modality of a clip."""

    values: np.ndarray
    """(time, width) float32, all finite; or (time,) int64 token ids. At least one token."""
    times: np.ndarray
    """(time,) float64: seconds from the start of the clip at which each token begins, never falling."""
    tokens: tuple[str, ...] = ()
    """A word for each token, for people; empty where tokens have none."""
    notes: tuple[str, ...] = ()
    """Half a sentence each on what is imperfect, for example ``312 of 500 frames have no face``."""


def track_fault(track: object, *, kind: Literal["features", "tokens"], width: int) -> str:
    """Half a sentence on where a result breaks the contract of `Track`; empty if it keeps it.

    Args:
        track: What a reader returned in place of an absence.
        kind: Kind of values that it declares.
        width: Width of a vector, or the size of the vocabulary.
    """
    if not isinstance(track, Track):
        return f"found {type(track).__name__}, expected a Track or an Absent"
    values, times = track.values, track.times
    shape, dtype = ("(time,)", "int64") if kind == "tokens" else (f"(time, {width})", "float32")
    if not isinstance(values, np.ndarray) or str(values.dtype) != dtype:
        found = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        return f"values: found {found}, expected an array of {dtype}"
    if not len(values) or values.shape[1:] != (() if kind == "tokens" else (width,)):
        return f"values: found the shape {values.shape}, expected {shape} with a token at least"
    if kind == "tokens" and not (values.min() >= 0 and values.max() < width):
        return f"values: found ids from {values.min()} to {values.max()}, expected 0 to {width - 1}"
    if not np.isfinite(values).all():
        return "values: found some that are not finite"
    if not isinstance(times, np.ndarray) or times.shape != values.shape[:1] or times.dtype.kind != "f":
        return f"times: expected {len(values)} numbers of floating point, one for each token"
    if not (np.isfinite(times).all() and (np.diff(times) >= 0).all()):
        return "times: found some that fall or are not finite"
    if track.tokens and len(track.tokens) != len(values):
        return f"tokens: found {len(track.tokens)}, expected {len(values)} or none"
    return ""


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word; times are seconds from the start of the clip."""

    text: str
    start: float
    end: float


Timing = Literal["aligned", "given", "spread"]
"""Origin of word times: found in the sound, stated by a file, or spread evenly for want of better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """All spoken words of a clip, in order; at least one."""

    words: tuple[Word, ...]
    timing: Timing
    """Origin of the least certain time."""
    notes: tuple[str, ...] = ()
    """Half a sentence each on what is imperfect, for example ``the alignment failed, words are spread``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipContent:
    """All that was read of a clip: each modality of the recipe is there or absent with its reason."""

    tracks: Mapping[str, Track]
    absent: Mapping[str, str]
    """Modality to the reason why the clip lacks it."""
    text: str | None = None
    """Words that were said, as one text; ``None`` where unknown."""
    notes: tuple[str, ...] = ()
    """Half a sentence each on what is imperfect about the file or its words."""
