"""The scale of each feature channel and of the targets, learnt from the train split alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from alignmamba.contracts import ModalitySpec, Split, Standardisation, TargetScale, Task
from alignmamba.data.further_targets import regression_values
from alignmamba.errors import DataError

# A channel whose standard deviation is below this share of its mean is constant up to the rounding of
# float32.
_CONSTANT = float(np.finfo(np.float32).eps)


def fit_standardisation(train: Split, modalities: Sequence[ModalitySpec], task: Task) -> Standardisation:
    """Mean and standard deviation of every channel over all tokens of the train split, and of the targets of
    a regression task.

    One pass, one sample at a time, in float64: means and squared deviations of samples are merged, so that
    nothing cancels where the mean is large.

    Args:
        train: The train split; any other is refused, so that nothing of valid or test leaks into a model.
        modalities: Those to describe; token ids have no scale and are dropped from the result.
        task: What the targets are; class indices have no scale.

    Returns:
        Mean and (population) standard deviation. A constant channel has standard deviation 1, as have
        constant targets; what the whole split lacks has mean 0 and standard deviation 1.

    Raises:
        DataError: If the split is not the train split, or a value is not finite.

    Source:
        Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
        1979, eq. 2.1.
    """
    if train.role != "train":
        raise DataError(f"standardisation is fitted on the train split, found split {train.role!r}")
    targets: list[float] = []
    moments = {spec.name: _Moments(spec.dim) for spec in modalities if spec.kind == "features"}
    for sample in train:
        if task.kind == "regression" and isinstance(sample.target, int | float):
            targets.append(sample.target)
        for name, running in moments.items():
            if name not in sample.features:
                continue
            values = np.asarray(sample.features[name], dtype=np.float64)
            if values.ndim != 2 or values.shape[1] != len(running.mean):
                raise DataError(
                    f"sample {sample.id!r}, modality {name!r}: expected shape (time, {len(running.mean)}),"
                    f" found {values.shape}"
                )
            if not np.isfinite(values).all():
                raise DataError(
                    f"sample {sample.id!r}, modality {name!r}: expected finite numbers, found"
                    f" {values[~np.isfinite(values)][0]}"
                )
            running.add(values)
    features = {
        name: (_tensor(running.mean), _tensor(running.deviation())) for name, running in moments.items()
    }
    return Standardisation(
        features=features, targets=TargetScale.of(targets), further=further_scales(train, task)
    )


def further_scales(train: Split, task: Task) -> dict[str, TargetScale]:
    """Scale of every further target that is a regression, over what of train has it, samples or tokens."""
    return {name: TargetScale.of(values) for name, values in regression_values(train, task).items()}


def finite_means(train: Split, modalities: Sequence[ModalitySpec]) -> dict[str, np.ndarray]:
    """Mean of the finite values of every channel of the train split, to stand in for values that are not
    finite.

    Returns:
        Per modality of features, float32 of shape (width,); 0 where a channel has no finite value.
    """
    total = {spec.name: np.zeros(spec.width) for spec in modalities if spec.kind == "features"}
    count = {name: np.zeros(len(sums), dtype=np.int64) for name, sums in total.items()}
    for sample in train:
        for name in total.keys() & sample.features.keys():
            values = np.asarray(sample.features[name], dtype=np.float64)
            finite = np.isfinite(values)
            total[name] += np.where(finite, values, 0).sum(axis=0)
            count[name] += finite.sum(axis=0)
    return {name: (sums / np.maximum(count[name], 1)).astype(np.float32) for name, sums in total.items()}


class _Moments:
    """Count, mean and sum of squared deviations of each channel."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = np.zeros(width)
        self.squares = np.zeros(width)

    def add(self, values: np.ndarray) -> None:
        """Merge another (time, width) array in."""
        if len(values) == 0:
            return
        mean = values.mean(axis=0)
        shift = mean - self.mean
        total = self.count + len(values)
        self.squares += ((values - mean) ** 2).sum(axis=0) + shift**2 * (self.count * len(values) / total)
        self.mean += shift * (len(values) / total)
        self.count = total

    def deviation(self) -> np.ndarray:
        """Standard deviation of each channel, 1 where it is constant or nothing was seen."""
        if self.count == 0:
            return np.ones_like(self.mean)
        deviation = np.sqrt(self.squares / self.count)
        # below the least normal number of single precision, in which values are divided, it would be zero
        least = np.maximum(_CONSTANT * np.abs(self.mean), np.finfo(np.float32).tiny)
        return np.where(deviation <= least, 1.0, deviation)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
