"""A corpus whose best reachable score is known by construction and which no single modality can solve.

Every sample lives on a relative timeline from 0 to 1. Its audio and its video hold *pulses* of value low or
high, its text holds one *cue*. The class is made of the value of the last audio pulse before the cue and the
value of the last video pulse before the cue: four classes, evidence displaced in time by a random lag.

Timeline. `SLOTS` pulse slots alternate with ``SLOTS - 1`` cue slots:

    pulse 0 | cue 0 | pulse 1 | cue 1 | ... | cue SLOTS - 2 | pulse SLOTS - 1

A pulse slot is an interval, a cue slot a moment, and neighbours are at least `LAG` = 1.5 / `TEXT_TOKENS`[0]
apart: one and a half of the widest text tokens, so that resampling audio and video to the rate of the text
keeps the order of pulse and cue and never puts two pulses of a modality on one text token. What is left of
the timeline is spread over the intervals at random (uniform spacings), so slots lie elsewhere in every
sample.

Pulses. Audio and video each have a pulse in the first and in the last pulse slot and in each other slot with
probability 1 - `OMISSION`, at a random moment of the slot; each pulse is low or high evenly. All of this is
drawn independently.

Cue. The text marks one cue slot, drawn evenly and independently of everything else.

Tokens. Text has 20 to 28 tokens, audio about 2.5 and video about 1.6 times as many, with a rate of its own in
every sample and jittered token times. Each token shows one of its modality's symbols: the cue (text 0), a low
or high pulse (audio and video 0 and 1), otherwise one of the remaining symbols at random. Its feature vector
is the symbol's unit vector plus noise drawn evenly from +-`NOISE` in every channel. The noise is below one
half, so the largest channel always is the symbol.

Labels. With probability `LABEL_NOISE` the label is replaced by one of the other classes, in every split.

Scores follow from this:

- All modalities: the symbols and their order are read without error, so the best rule is right unless the
  label was replaced: 1 - LABEL_NOISE.
- A rule that names the right class with probability q before the label noise scores
  q (1 - LABEL_NOISE) + (1 - q) LABEL_NOISE / 3, as noise spreads evenly over the three other classes.
- Text alone says nothing of the values: q = 1/4.
- Audio alone knows its pulses, but not the cue slot, which is even over SLOTS - 1 whatever the pulses are.
  The best guess of the audio value is the one that most cue slots would select; its expectation over all
  pulse patterns is a finite sum. The video value stays a coin toss. The same holds for video alone.
- Audio and video without text: the same sum over the patterns of both. Text and one of them: one value is
  known, the other a coin toss, q = 1/2.

The sums grant the rule the slot of each of its pulses, which it really has to guess from their times. So no
rule exceeds the scores for one or two modalities, and a good one comes close.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final

import numpy as np

from alignmamba.contracts import ROLES, Corpus, ModalitySpec, Role, Sample, Split, Task
from alignmamba.data.memory_splits import MemorySplit, content_checksum
from alignmamba.data.randomness import generator
from alignmamba.errors import DataError

SIZES: Mapping[Role, int] = {"train": 4000, "valid": 500, "test": 2000}

SLOTS = 6
OMISSION = 0.25
TEXT_TOKENS = (20, 28)
LAG = 1.5 / TEXT_TOKENS[0]
RATES = {"audio": (2.3, 2.7), "video": (1.5, 1.7)}
"""Smallest and largest number of tokens per text token."""
EVENTS = {"text": ("cue",), "audio": ("low", "high"), "video": ("low", "high")}
"""The symbols that matter come first; a feature vector has one channel per symbol."""
WIDTHS = {"text": 10, "audio": 8, "video": 6}
NOISE = 0.25
LABEL_NOISE = 0.05
TOKEN_SECONDS = (0.25, 0.4)
"""Shortest and longest duration of a text token."""

CLASSES = ("audio low, video low", "audio low, video high", "audio high, video low", "audio high, video high")
TASK = Task(kind="classification", classes=CLASSES)
MODALITIES = tuple(
    ModalitySpec(name=name, dim=dim, units="presence of each symbol, plus noise")
    for name, dim in WIDTHS.items()
)
_WORDS = {
    name: np.array([*EVENTS[name], *(f"other {n}" for n in range(dim - len(EVENTS[name])))])
    for name, dim in WIDTHS.items()
}

# Samples made at a time; bounds the memory for random numbers.
_CHUNK = 512


def synthetic_corpus(*, seed: int = 0, sizes: Mapping[Role, int] = SIZES) -> Corpus:
    """The synthetic corpus, in memory.

    A sample depends on the seed, its split and its place in the split alone, not on `sizes`.

    Args:
        seed: Another seed gives another corpus from the same distribution.
        sizes: Samples per split.

    Returns:
        A corpus whose `references` hold ``best_reachable_accuracy``, ``best_pair_accuracy`` (two modalities),
        ``best_single_modality_accuracy``, ``chance_accuracy`` (expectations) and, where there is a test
        split, ``test_labels_kept``: the share of its labels that the noise kept, so what the best rule scores
        on this very split.

    Raises:
        DataError: If a split's name is unknown or its size below one.
    """
    for role, size in sizes.items():
        if role not in ROLES:
            raise DataError(f"sizes: expected splits of {list(ROLES)}, found {role!r}")
        if size < 1:
            raise DataError(f"sizes: split {role!r} needs at least 1 sample, found {size}")
    splits: dict[Role, Split] = {}
    references = reference_accuracies()
    for role, size in sizes.items():
        samples: list[Sample] = []
        kept = 0
        for first in range(0, size, _CHUNK):
            some, unchanged = _samples(seed, role, range(first, min(first + _CHUNK, size)))
            samples += some
            kept += unchanged
        splits[role] = MemorySplit(role=role, samples=tuple(samples), modalities=MODALITIES)
        if role == "test":
            references["test_labels_kept"] = kept / size
    made = Corpus(
        name="synthetic",
        task=TASK,
        modalities=MODALITIES,
        splits=splits,
        checksum=content_checksum(splits),
        references=references,
    )
    return made.at("synthetic") if seed == 0 and sizes == SIZES else made


def reference_accuracies() -> dict[str, float]:
    """Expected accuracies of the best rules, by the module's argument."""
    return {
        "best_reachable_accuracy": _with_label_noise(1.0),
        "best_pair_accuracy": _with_label_noise(max(1 / 2, _best_guess(2))),
        "best_single_modality_accuracy": _with_label_noise(_best_guess(1) / 2),
        "chance_accuracy": _with_label_noise(1 / len(CLASSES)),
    }


def _with_label_noise(clean: float) -> float:
    return clean * (1 - LABEL_NOISE) + (1 - clean) * LABEL_NOISE / (len(CLASSES) - 1)


@cache
def _best_guess(modalities: int) -> float:
    """Share of right guesses of the values of that many modalities when the cue slot is unknown."""
    cue_slots = SLOTS - 1
    expectation = 0.0
    for held in product(_held_values().items(), repeat=modalities):
        selected = list(zip(*(values for values, _ in held), strict=True))
        most = max(selected.count(values) for values in selected)
        expectation += math.prod(probability for _, probability in held) * most / cue_slots
    return expectation


def _held_values() -> dict[tuple[int, ...], float]:
    """Values that the cue slots would select of a modality, and their chances; the first pulse is high."""
    probabilities: dict[tuple[int, ...], float] = {}
    # The first slot always has a pulse and the last one comes after every cue. Those between are empty, low
    # or high.
    for pattern in product((None, 0, 1), repeat=SLOTS - 2):
        held = [1]
        for pulse in pattern:
            held.append(held[-1] if pulse is None else pulse)
        empty = pattern.count(None)
        probability = OMISSION**empty * ((1 - OMISSION) / 2) ** (len(pattern) - empty)
        probabilities[tuple(held)] = probabilities.get(tuple(held), 0.0) + probability
    return probabilities


_MOST: Final = {
    "text": TEXT_TOKENS[1],
    **{name: round(TEXT_TOKENS[1] * high) for name, (_, high) in RATES.items()},
}
"""Most tokens of a sample, by modality."""
_LAYOUT: Final = 3 * SLOTS


class _Draws:
    """Uniform numbers of every sample, each from a generator of its own, handed out in order."""

    def __init__(self, seed: int, ids: Sequence[str]) -> None:
        per_token = sum(_MOST[name] * (2 + WIDTHS[name]) for name in WIDTHS)
        self.total = 4 + _LAYOUT - 1 + 2 * (1 + 3 * SLOTS) + per_token
        self.used = 0
        self._uniform = np.stack([generator(seed, "synthetic", each).random(self.total) for each in ids])

    def __call__(self, *shape: int) -> np.ndarray:
        """The next numbers of every sample, (samples, *shape)."""
        size = int(np.prod(shape))
        self.used += size
        return self._uniform[:, self.used - size : self.used].reshape(-1, *shape)


@dataclass(frozen=True, kw_only=True)
class _Stories:
    """Events of every sample, before it becomes tokens."""

    counts: Mapping[str, np.ndarray]
    """Modality to the number of tokens, (samples,)."""
    seconds: np.ndarray
    """Length, (samples,)."""
    events: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    """Modality to moment from 0 to 1, kind and presence of each event, (samples, events)."""
    labels: np.ndarray
    """Class, (samples,)."""
    replaced: np.ndarray
    """True if noise replaced it, (samples,)."""


def _samples(seed: int, role: Role, indices: range) -> tuple[list[Sample], int]:
    """Samples of a split, and how many of their labels the noise kept.

    Every sample draws its numbers at once from its own generator; the arithmetic then runs over all samples
    together.
    """
    ids = [f"{role}-{index + 1:06d}" for index in indices]
    draw = _Draws(seed, ids)
    stories = _stories(draw)
    counts = stories.counts
    features, times, symbols = {}, {}, {}
    for name in WIDTHS:
        features[name], times[name], symbols[name] = _tokens(draw, name, stories)
    assert draw.used == draw.total
    samples = [
        Sample(
            id=identity,
            features={name: features[name][row, : counts[name][row]] for name in WIDTHS},
            target=int(stories.labels[row]),
            times={name: times[name][row, : counts[name][row]] for name in WIDTHS},
            tokens={
                name: tuple(_WORDS[name][symbols[name][row, : counts[name][row]]].tolist()) for name in WIDTHS
            },
        )
        for row, identity in enumerate(ids)
    ]
    return samples, int((~stories.replaced).sum())


def _stories(draw: _Draws) -> _Stories:
    text_tokens = _integers(draw(), TEXT_TOKENS[0], TEXT_TOKENS[1])
    seconds = text_tokens * _between(draw(), *TOKEN_SECONDS)
    cue_slot = _integers(draw(), 0, SLOTS - 2)
    noise = draw()
    slot_start, slot_end, cues = _timeline(draw)
    rows = np.arange(len(text_tokens))
    moment = cues[rows, cue_slot][:, None]
    counts = {"text": text_tokens}
    events = {"text": (moment, np.zeros(moment.shape, dtype=np.int64), np.ones(moment.shape, dtype=bool))}
    values = {}
    for name, (low, high) in RATES.items():
        counts[name] = np.rint(text_tokens * _between(draw(), low, high)).astype(np.int64)
        when = slot_start + draw(SLOTS) * (slot_end - slot_start)
        present = draw(SLOTS) >= OMISSION
        present[:, [0, -1]] = True
        value = _integers(draw(SLOTS), 0, 1)
        events[name] = (when, value, present)
        # The last present slot at or before the cue's.
        eligible = present & (np.arange(SLOTS) <= cue_slot[:, None])
        last = SLOTS - 1 - np.argmax(eligible[:, ::-1], axis=1)
        values[name] = value[rows, last]
    # One number decides both: whether the label is replaced and, if so, by which of the three others.
    replaced = noise < LABEL_NOISE
    shift = np.where(replaced, 1 + np.minimum((noise / LABEL_NOISE * 3).astype(np.int64), 2), 0)
    labels = (2 * values["audio"] + values["video"] + shift) % len(CLASSES)
    return _Stories(counts=counts, seconds=seconds, events=events, labels=labels, replaced=replaced)


def _timeline(draw: _Draws) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start and end of every pulse slot, (samples, slots), and the cues between them, (samples, slots - 1).

    The edges stand in order: start and end of pulse slot 0, cue 0, start and end of pulse slot 1, cue 1, ...
    """
    spare = 1 - 2 * (SLOTS - 1) * LAG
    edges = np.sort(draw(_LAYOUT - 1), axis=1) * spare
    place = np.arange(_LAYOUT - 1)
    # A cue has one lag on each side: the k-th cue is edge 3k + 2.
    edges += LAG * ((place + 1) // 3 + place // 3)
    return edges[:, 0::3], edges[:, 1::3], edges[:, 2::3]


def _tokens(draw: _Draws, name: str, stories: _Stories) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, times in seconds and symbols of one modality, (samples, most tokens, ...)."""
    length, dim = _MOST[name], WIDTHS[name]
    count = stories.counts[name]
    # A token's moment lies in the middle three fifths of its share of the timeline, an event's exactly
    # where the event is.
    moments = (np.arange(length) + _between(draw(length), 0.2, 0.8)) / count[:, None]
    symbol = _integers(draw(length), len(EVENTS[name]), dim - 1)
    when, value, present = stories.events[name]
    sample, event = np.nonzero(present)
    token = np.floor(when * count[:, None]).astype(np.int64)[sample, event]
    moments[sample, token] = when[sample, event]
    symbol[sample, token] = value[sample, event]
    features = (np.eye(dim)[symbol] + _between(draw(length, dim), -NOISE, NOISE)).astype(np.float32)
    return features, moments * stories.seconds[:, None], symbol


def _between(uniform: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.asarray(low + uniform * (high - low))


def _integers(uniform: np.ndarray, low: int, high: int) -> np.ndarray:
    """Integers from `low` to `high`, both included."""
    return np.asarray(low + np.floor(uniform * (high - low + 1)), dtype=np.int64)
