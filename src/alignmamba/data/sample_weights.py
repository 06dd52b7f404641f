"""Weights of samples in the loss, from a label of the corpus."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alignmamba.contracts import Sample, Split
from alignmamba.errors import DataError, shown


def sample_weights(samples: Sequence[Sample], label: str) -> Tensor:
    """Weight of each sample, (samples,) float64; a `DataError` if a sample has none."""
    return torch.tensor([_weight(sample, label) for sample in samples], dtype=torch.float64)


def check_sample_weights(split: Split, label: str) -> None:
    """Refuse, by a `DataError`, a split of which a sample has no weight, or all have the weight 0."""
    if not sum(_weight(sample, label) for sample in split):
        raise DataError(
            f"loader.weights: label {label!r}: found 0 for all samples of {split.role}, expected one above 0"
        )


def _weight(sample: Sample, label: str) -> float:
    weight = sample.labels.get(label)
    if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise DataError(
            f"loader.weights: sample {sample.id!r}, label {label!r}: found"
            f" {'none' if weight is None else shown(weight)}, expected a number from 0 on"
        )
    return weight
