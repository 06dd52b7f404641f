"""A family of corpora that ask one question: which token of the other modality belongs to this one?

Every dial makes one way of pairing tokens fail, and the best score of each way is an exact number at every
setting. `alignmamba synthetic` writes such a corpus; docs/synthetic.md shows how to read a result.

Events. The timeline of a sample is cut into `Dials.slots` equal slots, `PAIRS` and one for each distractor.
Text has one token in a slot, and that token is an event. Audio has 2 or 3 tokens (`Dials.rate`) in a slot;
one of them, drawn evenly, is an event and the others are silent. An event shows a *key* and a *value*, low or
high. No two events of a modality have the same key. The event of a text token and its *partner* in audio have
the same key, each in its modality's own code; the keys of all other events occur once. One text event that
has a partner carries a *cue*, drawn evenly. Values are independent and even.

Label. Four classes: the value of the cued text event, and the value of its partner.

Features. A key is `KEY_BITS` channels of +-1, which audio writes in the opposite order; a value is a channel
of +-1; the cue is a channel of 1, else 0. Silence is 0 throughout. Every channel has noise drawn evenly from
+-`NOISE`, so that all is read without error.

Dials. Partners lie in the same slot until a dial moves them:

- `lag`: the partner of slot i happens at slot i + lag, by one whole number per sample.
- `warp`: audio's tokens come faster in one half of a sample than in the other. What happens at t, from 0 to
  1, stands at W(t) of audio's tokens: W is linear on either half and W(1/2) = 1/2 + s, with s one of `STEPS`
  times `warp`. Of two events that fall into one slot, the first is kept.
- `disagree`: with this chance audio's clock counts tokens instead of time. Its times are then wrong by up to
  `warp` of the sample's length, and by nothing at both ends. Otherwise partners have equal times but for the
  lag, and silent tokens lie between them.
- `distractors`: slots in which each modality shows an event without partner. Where lag or warp leave more
  events without partner, there are more.

Scores. All rules below read the cue and the text's value, so that only the audio's value is in doubt. Which
slot the partner is in depends on the sample's lag and s alone, which are drawn from finitely many; a cue
stands evenly on all slots that have a partner under them. So P(i, j), the chance of a cue in slot i with its
partner in slot j, is a finite sum, and with it:

- ``best_reachable_accuracy``, by keys: 1.
- ``best_by_position_accuracy``, the best rule that reads values and places, but no keys and no clock. It
  names the likelier value given those of all audio slots: the sum over i of E max(sum of P(i, j) over the j
  that show low, the same over high), over all patterns of values. A model that reads no times and scores more
  has matched keys.
- ``proportional_accuracy``, the rule that takes the audio event of the cue's own slot: right where that is
  the partner and half the time elsewhere, 1/2 + P(i = j) / 2.
- ``clock_accuracy``, the rule that takes the audio event whose stated time is nearest the middle of the cue's
  slot, among those in it. With clocks that agree it is the partner exactly if there is no lag, and with
  clocks that do not, exactly if it is in the same slot.
- ``best_unpaired_accuracy``, the best rule that reads the cue and the bag of all audio values: the value that
  more of them show, 1/2 + E |2c - n| / 2n for c of n slots that show high.
- ``best_single_modality_accuracy``: text knows its own value, 1/2. Audio alone knows less: half of the score
  without pairing.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Final, Self

import numpy as np
from pydantic import Field, model_validator

from alignmamba.contracts import ROLES, Config, Corpus, ModalitySpec, Role, Sample, Split, Task
from alignmamba.data.archive import write_corpus
from alignmamba.data.memory_splits import MemorySplit, content_checksum
from alignmamba.data.randomness import generator
from alignmamba.data.user_arrays import SplitArrays
from alignmamba.errors import DataError

PAIRS: Final = 8
"""Events with a partner, where lag and warp leave as many."""
KEY_BITS: Final = 8
NOISE: Final = 0.25
STEPS: Final = (-1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
"""Shares of the warp that a sample may have."""
TOKEN_SECONDS: Final = (0.25, 0.4)
"""Shortest and longest duration of a slot."""
SIZES: Mapping[Role, int] = {"train": 2000, "valid": 500, "test": 2000}
MOST_SAMPLES: Final = 100_000
"""Samples of a split at most: all are in memory."""

CLASSES = ("text low, audio low", "text low, audio high", "text high, audio low", "text high, audio high")
TASK = Task(kind="classification", classes=CLASSES)
MODALITIES = (
    ModalitySpec(name="text", dim=KEY_BITS + 2, units="bits of a key, a value and a cue, plus noise"),
    ModalitySpec(name="audio", dim=KEY_BITS + 1, units="bits of a key and a value, plus noise"),
)
_FEWEST_PAIRS: Final = 2


class Dials(Config):
    """Dials of the family; at their defaults proportional time pairs every token rightly."""

    lag: Annotated[
        tuple[Annotated[int, Field(ge=0, le=64)], Annotated[int, Field(ge=0, le=64)]], Field(title="LOW HIGH")
    ] = (
        0,
        0,
    )
    """Text tokens by which audio's partner comes later: one whole number per sample, from LOW to HIGH."""
    rate: Annotated[
        tuple[Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]], Field(title="LOW HIGH")
    ] = (2, 3)
    """Audio tokens per text token: one whole number per sample, from LOW to HIGH."""
    distractors: Annotated[int, Field(ge=0, le=16, title="N")] = 4
    """Events in each modality without partner in the other."""
    warp: Annotated[float, Field(ge=0, le=0.45, title="SHARE")] = 0.0
    """Share of the sample's length, up to 0.45, by which audio's tokens run ahead or behind, at most."""
    disagree: Annotated[float, Field(ge=0, le=1, title="SHARE")] = 0.0
    """Share of samples whose audio times do not know of the warp."""

    @model_validator(mode="after")
    def _solvable(self) -> Self:
        for name in ("lag", "rate"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: found {low} {high}, expected the lower number first")
        if self.disagree and not self.warp:
            raise ValueError("disagree: found it without warp, by which clocks disagree")
        fewest = min(len(_heard(self.slots, *each)[0]) for each in self.courses())
        if fewest < _FEWEST_PAIRS:
            raise ValueError(
                f"lag, warp: leave {fewest} of {self.slots} events with a partner in some samples, expected"
                f" at least {_FEWEST_PAIRS}"
            )
        return self

    @property
    def slots(self) -> int:
        """Events of each modality in a sample."""
        return PAIRS + self.distractors

    def courses(self) -> Iterator[tuple[float, int]]:
        """Warp and lag of a sample, each combination as likely as any other."""
        warps = [step * self.warp for step in STEPS] if self.warp else [0.0]
        return product(warps, range(self.lag[0], self.lag[1] + 1))


def synthetic_family(dials: Dials, *, seed: int = 0, sizes: Mapping[Role, int] = SIZES) -> Corpus:
    """A corpus of the family, in memory.

    A sample depends on the dials, the seed, its split and its place in the split alone, not on `sizes`. The
    tokens of partners have one word, that of their key, and all other tokens have none; labels beside the
    target hold each sample's lag and warp, and whether its clocks agree.

    Args:
        dials: Setting of the family.
        seed: Another seed gives another corpus from the same distribution.
        sizes: Samples per split.

    Returns:
        A corpus whose `references` hold `family_scores`.

    Raises:
        DataError: If a split's name is unknown or its size not from 1 to `MOST_SAMPLES`.
    """
    for role, size in sizes.items():
        if role not in ROLES:
            raise DataError(f"sizes: expected splits of {list(ROLES)}, found {role!r}")
        if not 1 <= size <= MOST_SAMPLES:
            raise DataError(f"samples: expected 1 to {MOST_SAMPLES} in split {role!r}, found {size}")
    courses = [(warp, lag, *_heard(dials.slots, warp, lag)) for warp, lag in dials.courses()]
    splits = {
        role: MemorySplit(
            role=role,
            samples=tuple(
                _sample(dials, courses, seed, f"{role}-{number + 1:06d}") for number in range(size)
            ),
            modalities=MODALITIES,
        )
        for role, size in sizes.items()
    }
    return Corpus(
        name="synthetic-family",
        task=TASK,
        modalities=MODALITIES,
        splits=splits,
        checksum=content_checksum(splits),
        references=family_scores(dials),
    )


def write_synthetic_family(
    path: Path,
    dials: Dials,
    *,
    seed: int = 0,
    sizes: Mapping[Role, int] = SIZES,
    source: str = "",
    overwrite: bool = False,
) -> Corpus:
    """Write a corpus of the family as a directory; arguments as of `synthetic_family` and `write_corpus`.

    Raises:
        DataError: As these two do.
    """
    made = synthetic_family(dials, seed=seed, sizes=sizes)
    return write_corpus(
        path,
        {role: _arrays(split) for role, split in made.splits.items()},
        task=TASK,
        units={spec.name: spec.units for spec in MODALITIES},
        source=source,
        references=made.references,
        overwrite=overwrite,
    )


def _arrays(split: Split) -> SplitArrays:
    samples = list(split)
    names = [spec.name for spec in MODALITIES]
    return SplitArrays(
        features={name: [sample.features[name] for sample in samples] for name in names},
        targets=[sample.target for sample in samples if sample.target is not None],
        ids=split.ids,
        times={name: [sample.times[name] for sample in samples] for name in names},
        tokens={name: [sample.tokens[name] for sample in samples] for name in names},
        labels={name: [sample.labels[name] for sample in samples] for name in samples[0].labels},
    )


# --- exact scores -------------------------------------------------------------------------------------------


def family_scores(dials: Dials) -> dict[str, float]:
    """Expected accuracies of the best rule and of simpler ones, by the module's argument."""
    chances = _partner_chances(dials)
    same_slot = float(np.trace(chances))
    no_lag = sum(lag == 0 for _, lag in dials.courses()) / len(list(dials.courses()))
    by_clock = (1 - dials.disagree) * no_lag + dials.disagree * same_slot
    unpaired = (1 + _expected_distance(np.full(dials.slots, 1 / dials.slots))) / 2
    by_position = sum((row.sum() + _expected_distance(row[row > 0])) / 2 for row in chances)
    return {
        "best_reachable_accuracy": 1.0,
        "best_by_position_accuracy": float(by_position),
        "proportional_accuracy": (1 + same_slot) / 2,
        "clock_accuracy": (1 + by_clock) / 2,
        "best_unpaired_accuracy": unpaired,
        "best_single_modality_accuracy": 0.5,
        "chance_accuracy": 1 / len(CLASSES),
    }


def _partner_chances(dials: Dials) -> np.ndarray:
    """(slots, slots), the chance of a cue in a text slot with its partner in an audio slot."""
    chances = np.zeros((dials.slots, dials.slots))
    courses = list(dials.courses())
    for course in courses:
        text, audio = _heard(dials.slots, *course)
        chances[text, audio] += 1 / (len(text) * len(courses))
    return chances


def _expected_distance(weights: np.ndarray) -> float:
    """E |sum of +-w| over all patterns of signs: how far apart the weights of low and high lie."""
    one, other = (_signed_sums(half) for half in np.array_split(weights, 2))
    # the sum of |a + b| over all a of one half, for each b of the other: a above -b add, those below subtract
    one = np.sort(one)
    below = np.searchsorted(one, -other)
    sums = one.sum() - 2 * np.append(0, one.cumsum())[below] + (len(one) - 2 * below) * other
    return float(sums.mean() / len(one))


def _signed_sums(weights: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for weight in weights:
        sums = np.concatenate([sums - weight, sums + weight])
    return sums


def _heard(slots: int, warp: float, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Text slots that have a partner, and the audio slots in which it is, both ascending."""
    text = np.arange(slots - lag if lag < slots else 0)
    when = (text + lag + 0.5) / slots
    place = np.where(when <= 0.5, when * (1 + 2 * warp), 0.5 + warp + (when - 0.5) * (1 - 2 * warp))
    # a place on the edge of two slots is in the second, whatever rounding did
    audio, first = np.unique(np.floor(place * slots + 1e-9).astype(np.int64), return_index=True)
    return text[first], audio


# --- samples ------------------------------------------------------------------------------------------------

_Course = tuple[float, int, np.ndarray, np.ndarray]
"""Warp, lag, text slots that have a partner, and the audio slots in which it is."""


def _sample(dials: Dials, courses: list[_Course], seed: int, identity: str) -> Sample:
    random = generator(seed, "synthetic-family", identity).random
    slots = dials.slots
    warp, lag, heard, heard_at = courses[math.floor(random() * len(courses))]
    rate = dials.rate[0] + math.floor(random() * (dials.rate[1] - dials.rate[0] + 1))
    seconds = slots * (TOKEN_SECONDS[0] + random() * (TOKEN_SECONDS[1] - TOKEN_SECONDS[0]))
    agree = bool(random() >= dials.disagree)
    chosen = np.argsort(random(slots)[: len(heard)])[:PAIRS]
    text_pairs, audio_pairs = heard[chosen], heard_at[chosen]
    cue = text_pairs[0]
    keys = np.argsort(random(2**KEY_BITS))
    text_keys, audio_keys = keys[:slots], keys[slots : 2 * slots].copy()
    audio_keys[audio_pairs] = text_keys[text_pairs]
    text_values, audio_values = random((2, slots)) < 0.5

    sounding = np.arange(slots) * rate + np.floor(random(slots) * rate).astype(np.int64)
    text = np.zeros((slots, KEY_BITS + 2))
    text[:, :KEY_BITS], text[:, KEY_BITS], text[cue, KEY_BITS + 1] = _code(text_keys), _sign(text_values), 1
    audio = np.zeros((slots * rate, KEY_BITS + 1))
    audio[sounding, :KEY_BITS], audio[sounding, KEY_BITS] = _code(audio_keys)[:, ::-1], _sign(audio_values)
    features = {"text": text, "audio": audio}

    # the true time of a slot's share from 0 to 1, which audio knows at partners and at both ends
    middles = np.arange(slots * rate) + 0.5
    order = np.argsort(audio_pairs)
    known = np.array([0, *(sounding[audio_pairs[order]] + 0.5), slots * rate])
    truth = np.array([0, *((text_pairs[order] + lag + 0.5) / slots), 1])
    stated = np.interp(middles, known, truth) if agree else middles / (slots * rate)
    words = {"text": np.full(slots, "", dtype="<U8"), "audio": np.full(slots * rate, "", dtype="<U8")}
    words["text"][text_pairs] = words["audio"][sounding[audio_pairs]] = [
        f"key {key}" for key in text_keys[text_pairs]
    ]
    return Sample(
        id=identity,
        features={
            name: (clean + NOISE * (2 * random(clean.shape) - 1)).astype(np.float32)
            for name, clean in features.items()
        },
        target=int(2 * text_values[cue] + audio_values[audio_pairs[0]]),
        times={"text": (np.arange(slots) + 0.5) / slots * seconds, "audio": stated * seconds},
        tokens={name: tuple(each.tolist()) for name, each in words.items()},
        labels={"lag": lag, "warp": warp, "clocks": "agree" if agree else "disagree"},
    )


def _code(keys: np.ndarray) -> np.ndarray:
    """(keys, bits) of +-1."""
    return _sign(keys[:, None] >> np.arange(KEY_BITS) & 1)


def _sign(bits: np.ndarray) -> np.ndarray:
    return np.where(bits, 1.0, -1.0)
