"""Notes on what a run takes, and advice before a long training begins."""

from typing import Final

import numpy as np

from alignmamba.contracts import Corpus
from alignmamba.models.alignmamba import AlignMambaConfig
from alignmamba.recipes.configuration import RunConfig, model_config

TOKENS_PER_CHANNEL: Final = 75
"""Exact alignment costs as much as all the rest of a step at about this many tokens for each channel of the
model: it grows as T² d, the rest as T d². Measured by `benchmarks/alignment_share.py`."""
LINEAR: Final = "options.local.window=256 options.alignment.landmarks=256"
_BY_TIME: Final = {
    "seconds": "modalities begin apart, so tokens are matched by seconds",
    "spans": "modalities were read from media files, so tokens are matched by the time that they last",
}
"""Unit of time to why a run takes it."""


def alignment_note(config: RunConfig, corpus: Corpus) -> str:
    """One sentence where exact alignment is the larger part of a step of AlignMamba, with the settings that
    make it linear; else empty. Its share is T / (T + 75 d) for d channels and a mean length of T tokens of
    the second longest modality: the shorter of a pair bounds the work.
    """
    model = model_config(config, corpus)
    if not isinstance(model, AlignMambaConfig) or len(corpus.modalities) < 2:
        return ""
    matched = model.local.method in ("match", "soft") and model.local.window is None
    compared = model.alignment.weight > 0 and model.alignment.landmarks is None
    means = sorted(float(np.mean(corpus.split("train").lengths[spec.name])) for spec in corpus.modalities)
    tokens, half = means[-2], TOKENS_PER_CHANNEL * model.d_model
    if not (matched and compared) or tokens <= half:
        return ""
    return (
        f"exact alignment grows with the square of the length: about {tokens / (tokens + half):.0%} of a step"
        f" at {tokens:,.0f} tokens; --set {LINEAR} makes it linear, about {1 + tokens / half:.1f} times as"
        " fast"
    )


def clock_note(asked: RunConfig, taken: RunConfig) -> tuple[str, ...]:
    """One sentence where a run that was asked for takes times of its own accord."""
    units = [config.options.get("local", {}).get("time_unit") for config in (asked, taken)]
    if units[0] is not None or units[1] not in _BY_TIME:
        return ()
    return (f"{_BY_TIME[units[1]]} (options.local.time_unit={units[1]})",)
