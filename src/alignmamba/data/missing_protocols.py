"""Modalities withheld by the field's protocols, the same for every batch size, order and machine."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, compress
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from alignmamba.contracts import Config, Role, Sample, Split
from alignmamba.data.randomness import generator
from alignmamba.errors import DataError

Protocol = Literal["none", "gcnet", "imder-sample", "imder-batch", "fixed", "tokens"]

IMDER_GROUP = 32
"""Samples of a group of ``imder-batch``: the batch size of IMDer."""

# IMDer's shares at rates 0, 0.1 .. 0.7, in tenths: of what loses two of its three modalities, and of what
# loses one.
_TWO_MISSING = np.array([0, 1, 2, 3, 5, 7, 9, 10])
_ONE_MISSING = np.array([0, 1, 2, 3, 2, 1, 0, 0])


class MissingConfig(Config):
    """Protocols that withhold modalities from samples.

    A naturally missing modality is never given back, and a sample is never left with nothing. In all formulas
    the number of modalities M is that of the modalities which the sample really has.

    Source:
        ``gcnet``: Lian et al., "GCNet", TPAMI 2023, rule of ``random_mask`` in the authors' code, in closed
        form: one view kept for certain, each other one with chance (M (1 - rate) - 1) / (M - 1).
        ``imder-sample``, ``imder-batch``: Wang et al., "IMDer", NeurIPS 2023, shares of
        ``trains/singleTask/IMDER.py``. ``fixed``: Zhao et al., "MMIN", ACL 2021. ``tokens``: the task of
        Zhang et al., "LNLN", NeurIPS 2024, who put zeros (or an unknown word) in the place of lost tokens,
        draw every modality of equal shape alike, and keep the first and last word. Here a lost token is taken
        out of the sequence, so that a model is not shown where it was, and modalities are drawn
        independently.
    """

    protocol: Protocol = "none"
    """``none``; ``gcnet``: one modality kept for certain, each other one with a chance that makes `rate` the
    mean share withheld; ``imder-sample``: all but one modality, one, or none withheld, with IMDer's chances,
    from each sample on its own; ``imder-batch``: the same shares exactly, over groups of 32 consecutive
    samples that lose the same modalities; ``fixed``: every proper subset of the modalities, evenly;
    ``tokens``: single tokens of all modalities."""
    rate: float | tuple[float, ...] = Field(default=0.0, validate_default=True)
    """Share to withhold, from 0 to less than 1, as the protocol counts it; of several, each sample takes one
    evenly, in training again each epoch. ``gcnet``: above 1 - 1/M exactly one modality is kept, so that with
    three modalities 0.7 withholds 2/3. ``imder-sample``, ``imder-batch``: 0, 0.1 .. 0.7, a nominal rate, and
    one alone for ``imder-batch``. ``fixed`` has none."""

    @field_validator("rate", mode="before")
    @classmethod
    def _rate_fits(cls, value: Any, info: ValidationInfo) -> Any:
        rates = list(value) if isinstance(value, list | tuple) else [value]
        value = rates[0] if len(rates) == 1 else value
        numbers = all(isinstance(rate, int | float) and not isinstance(rate, bool) for rate in rates)
        if (
            not rates
            or not numbers
            or not all(0 <= rate < 1 for rate in rates)
            or len(set(rates)) < len(rates)
        ):
            raise ValueError(
                f"found {value!r}, expected a number from 0 to less than 1, or several different ones"
            )
        protocol = info.data.get("protocol")
        if protocol in ("none", "fixed") and rates != [0]:
            raise ValueError(f"found {value!r}, but protocol {protocol!r} has no rate, expected 0 or nothing")
        if protocol == "imder-batch" and len(rates) > 1:
            raise ValueError(
                f"found {value!r}, expected one rate, as protocol 'imder-batch' takes shares of the whole"
                " split"
            )
        if protocol in ("imder-sample", "imder-batch") and not all(
            _level(rate) <= 7 and math.isclose(_level(rate), 10 * rate) for rate in rates
        ):
            raise ValueError(
                f"found {value!r}, expected one of 0, 0.1, 0.2 .. 0.7, the rates of protocol {protocol!r}"
            )
        return value if len(rates) == 1 else tuple(rates)

    @model_validator(mode="after")
    def _rate_is_given(self) -> Self:
        if self.protocol not in ("none", "fixed") and "rate" not in self.model_fields_set:
            raise ValueError(f"protocol {self.protocol!r} needs a rate")
        return self

    @property
    def rates(self) -> tuple[float, ...]:
        """The rate, or the several ones."""
        return self.rate if isinstance(self.rate, tuple) else (self.rate,)


@dataclass(frozen=True, kw_only=True)
class WithheldSplit:
    """Split without what is withheld; meets `alignmamba.contracts.Split`.

    Only the modalities of `kept` are shown.
    """

    split: Split
    """The complete split."""
    kept: Mapping[str, np.ndarray]
    """Modality name to (samples,) bool: whether the sample has it and keeps it."""
    kept_tokens: Mapping[str, Sequence[np.ndarray]] | None = None
    """Positions of withheld single tokens, modality name to one (time,) bool array per sample."""
    rows: np.ndarray
    """(samples,) rows of the complete split that are shown."""
    lengths: Mapping[str, np.ndarray] = field(init=False)
    """Modality name to the number of tokens that are left of each sample, 0 where missing."""
    ids: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        lengths = {
            name: np.where(kept, self.split.lengths[name][self.rows], 0) for name, kept in self.kept.items()
        }
        if self.kept_tokens is not None:
            lengths = {
                name: np.array([mask.sum() for mask in masks], dtype=np.int64)
                for name, masks in self.kept_tokens.items()
            }
        every = self.split.ids
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "ids", tuple(every[row] for row in self.rows.tolist()))

    @property
    def role(self) -> Role:
        """The role of the complete split."""
        return self.split.role

    @property
    def effective_rate(self) -> float:
        """Share withheld of the (sample, modality) pairs that were present, or of the tokens."""
        present = {name: self.split.lengths[name][self.rows] for name in self.kept}
        if self.kept_tokens is not None:
            left, whole = self.lengths, present
        else:
            left, whole = dict(self.kept), {name: lengths > 0 for name, lengths in present.items()}
        total = sum(int(each.sum()) for each in whole.values())
        return (total - sum(int(each.sum()) for each in left.values())) / max(total, 1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Sample:
        sample = self.split[int(self.rows[row])]
        names = [name for name, kept in self.kept.items() if kept[row] and name in sample.features]
        if self.kept_tokens is None:
            return replace(
                sample,
                features={name: sample.features[name] for name in names},
                times={name: sample.times[name] for name in names if name in sample.times},
                tokens={name: sample.tokens[name] for name in names if name in sample.tokens},
                token_labels={
                    name: sample.token_labels[name] for name in names if name in sample.token_labels
                },
            )
        masks = {name: self.kept_tokens[name][row] for name in names}
        return replace(
            sample,
            features={name: sample.features[name][mask] for name, mask in masks.items()},
            times={name: sample.times[name][mask] for name, mask in masks.items() if name in sample.times},
            tokens={
                name: tuple(compress(sample.tokens[name], mask))
                for name, mask in masks.items()
                if name in sample.tokens
            },
            token_labels={
                name: {
                    label: tuple(compress(values, mask))
                    for label, values in sample.token_labels[name].items()
                }
                for name, mask in masks.items()
                if name in sample.token_labels
            },
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(len(self)))


def withheld(
    split: Split,
    config: MissingConfig,
    *,
    seed: int,
    epoch: int | None = None,
    modalities: Sequence[str] | None = None,
) -> WithheldSplit:
    """Split as a protocol leaves it.

    What a sample keeps is a function of the seed, its id, the protocol and the rate, in training also of the
    epoch; with ``imder-batch`` also of the order of the split. A sample's draws are the same at every rate:
    what ``gcnet`` and ``tokens`` keep at one rate holds all that they keep at a higher one.

    Args:
        split: The complete split.
        config: Protocol and rate.
        seed: Seed of the run.
        epoch: Epoch of training, from 0; ``None`` where the masks shall stay the same, as in validation and
            test.
        modalities: Those that count, in any order, the others are not shown; by default all of the split.

    Raises:
        DataError: If the split lacks a modality, or is too small for the protocol.
    """
    shown = tuple(split.lengths if modalities is None else modalities)
    unknown = [name for name in shown if name not in split.lengths]
    if unknown:
        raise DataError(f"split {split.role!r} has no modality {unknown[0]!r}, only {sorted(split.lengths)}")
    draws = _Draws(seed, "always" if epoch is None else epoch)
    # A fixed order, so that nothing depends on the one in which the modalities are given.
    names = sorted(shown)
    lengths = np.stack([split.lengths[name] for name in names], axis=1)
    rows = np.arange(len(split))
    if config.protocol == "tokens":
        masks = _tokens(split.ids, lengths, np.array(config.rates), draws)
        return WithheldSplit(
            split=split,
            kept={name: lengths[:, names.index(name)] > 0 for name in shown},
            kept_tokens={name: [row[names.index(name)] for row in masks] for name in shown},
            rows=rows,
        )
    kept = _modalities(split, lengths > 0, config, draws)
    return WithheldSplit(split=split, kept={name: kept[:, names.index(name)] for name in shown}, rows=rows)


def patterns(modalities: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Every non-empty proper subset of the modalities, the small ones first."""
    return tuple(subset for size in range(1, len(modalities)) for subset in combinations(modalities, size))


def only(split: Split, kept: Sequence[str], *, modalities: Sequence[str]) -> WithheldSplit:
    """A split with the same modalities withheld from every sample, without the samples of which nothing would
    be left.

    Args:
        split: The complete split.
        kept: Modalities to keep.
        modalities: Those that count; the others are not shown.
    """
    present = {name: (split.lengths[name] > 0) & (name in kept) for name in modalities}
    rows = np.flatnonzero(np.any(list(present.values()), axis=0))
    return WithheldSplit(split=split, kept={name: mask[rows] for name, mask in present.items()}, rows=rows)


@dataclass(frozen=True)
class _Draws:
    """Random numbers of one pass over a split."""

    seed: int
    epoch: int | str

    def of(self, *whom: str | int) -> np.random.Generator:
        return generator(self.seed, "missing", self.epoch, *whom)


def _modalities(split: Split, present: np.ndarray, config: MissingConfig, draws: _Draws) -> np.ndarray:
    """(samples, modalities) bool: present and not withheld."""
    if config.protocol == "none" or not len(split):
        return present
    if config.protocol == "imder-batch":
        return _imder_batch(present, _level(config.rates[0]), split.role, draws)
    count = present.shape[1]
    if config.protocol == "fixed" and count < 2:
        raise DataError(f"split {split.role!r}: protocol 'fixed' needs at least 2 modalities, found {count}")
    uniform = np.stack([draws.of(identity).random(2 + 2 * count) for identity in split.ids])
    rates = np.array(config.rates)[(uniform[:, 0] * len(config.rates)).astype(int)]
    share, order, extra = uniform[:, 1], uniform[:, 2 : 2 + count], uniform[:, 2 + count :]
    if config.protocol == "gcnet":
        return _gcnet(present, rates, order, extra)
    if config.protocol == "imder-sample":
        return _imder_sample(present, rates, share, order)
    return _fixed(present, share)


def _level(rate: float) -> int:
    return round(10 * rate)


def _ranks(present: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The place of each present modality in its sample's random order, from 0; missing ones come last."""
    return np.where(present, order, np.inf).argsort(axis=1).argsort(axis=1)


def _gcnet(present: np.ndarray, rates: np.ndarray, order: np.ndarray, extra: np.ndarray) -> np.ndarray:
    count = present.sum(axis=1)
    chance = np.clip((count * (1 - rates) - 1) / np.maximum(count - 1, 1), 0, 1)
    kept: np.ndarray = present & ((_ranks(present, order) == 0) | (extra < chance[:, None]))
    return kept


def _imder_sample(present: np.ndarray, rates: np.ndarray, share: np.ndarray, order: np.ndarray) -> np.ndarray:
    level = np.rint(10 * rates).astype(int)
    two, one = _TWO_MISSING[level], _ONE_MISSING[level]
    count = present.sum(axis=1)
    lost = np.where(
        10 * share < two, count - 1, np.where(10 * share < two + one, np.minimum(1, count - 1), 0)
    )
    kept: np.ndarray = present & (_ranks(present, order) < (count - lost)[:, None])
    return kept


def _fixed(present: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The binary digits of a number from 1 to 2^M - 2, the M modalities of the sample being its digits."""
    count = present.sum(axis=1)
    pattern = 1 + (share * np.maximum(2**count - 2, 1)).astype(np.int64)
    digit = np.maximum(present.cumsum(axis=1) - 1, 0)
    kept: np.ndarray = present & ((pattern[:, None] >> digit) % 2 == 1)
    return kept


def _imder_batch(present: np.ndarray, level: int, role: Role, draws: _Draws) -> np.ndarray:
    groups = math.ceil(len(present) / IMDER_GROUP)
    tenth = round(groups / 10)  # half to even, as numpy's
    if level and not tenth:
        raise DataError(
            f"split {role!r}: found {groups} groups of {IMDER_GROUP} samples, expected at least 6 for"
            " protocol 'imder-batch'; protocol 'imder-sample' takes any number"
        )
    two, one = int(_TWO_MISSING[level]) * tenth, int(_ONE_MISSING[level]) * tenth
    order = (
        np.arange(len(present)) if draws.epoch == "always" else draws.of("order").permutation(len(present))
    )
    kept = present.copy()
    for group in range(min(two + one, groups)):
        rows = order[group * IMDER_GROUP : (group + 1) * IMDER_GROUP]
        priority = draws.of("group", role, group).permutation(present.shape[1])
        kept[np.ix_(rows, priority[1:] if group < two else priority[-1:])] = False
        bare = rows[~kept[rows].any(axis=1)]
        first = priority[present[bare][:, priority].argmax(axis=1)]
        kept[bare, first] = present[bare, first]
    return kept


def _tokens(
    ids: Sequence[str], lengths: np.ndarray, rates: np.ndarray, draws: _Draws
) -> list[list[np.ndarray]]:
    """Mask of every sample and modality, (time,) bool."""
    masks = []
    for identity, counts in zip(ids, lengths.tolist(), strict=True):
        uniform = draws.of(identity).random(1 + sum(counts))
        rate = rates[int(uniform[0] * len(rates))]
        row, start = [], 1
        for count in counts:
            part = uniform[start : start + count]
            start += count
            mask = part >= rate
            if count and not mask.any():
                mask[part.argmax()] = True
            row.append(mask)
        masks.append(row)
    return masks
