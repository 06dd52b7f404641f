"""Tensors of a batch, made of arrays as a user has them and checked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignmamba.errors import DataError, ShapeError


def tensor_of(given: Any, what: str, *, floating: Any = np.float64) -> Tensor:
    """Real numbers as a tensor: a tensor as it is, floats of anything else of the type `floating`."""
    if isinstance(given, Tensor):
        found, allowed = given, given.dtype != torch.bool and not given.is_complex()
    else:
        if np.ma.is_masked(given):
            raise DataError(f"{what}: found masked values, expected numbers")
        try:
            array = np.asarray(given)
        except (ValueError, TypeError, RuntimeError) as error:
            raise DataError(
                f"{what}: expected an array, found {type(given).__name__} that cannot become one"
            ) from error
        allowed = array.dtype.kind in "fiu"
        if not allowed:
            raise DataError(
                f"{what}: expected real numbers, found"
                f" {'text' if array.dtype.kind in 'US' else f'dtype {array.dtype}'}"
            )
        found = torch.from_numpy(np.array(array, dtype=floating if array.dtype.kind == "f" else np.int64))
    if not allowed:
        raise DataError(f"{what}: expected real numbers, found dtype {found.dtype}")
    return found


def mask_of(name: str, padded: Tensor, lengths: Any) -> Tensor:
    """(batch, time) bool from the number of valid tokens of each sample."""
    size, time = padded.shape[:2]
    if lengths is None:
        return torch.ones(size, time, dtype=torch.bool, device=padded.device)
    counts = tensor_of(lengths, f"lengths of {name!r}")
    if counts.shape != (size,) or counts.is_floating_point():
        raise ShapeError(
            f"lengths: modality {name!r}: expected {size} integers, found {counts.dtype} of shape"
            f" {tuple(counts.shape)}"
        )
    outside = ((counts < 0) | (counts > time)).nonzero()
    if len(outside):
        row = int(outside[0])
        raise ShapeError(
            f"lengths: modality {name!r}: found {int(counts[row])} for sample {row}, expected 0 to {time}"
        )
    return torch.arange(time, device=padded.device) < counts.to(padded.device)[:, None]


def padded_rows(name: str, arrays: Sequence[Any] | np.ndarray) -> tuple[Tensor, Tensor, bool]:
    """Arrays of a list below one another, the mask of their tokens, and whether they are token ids."""
    rows = {
        row: tensor_of(array, f"modality {name!r}, sample {row}", floating=np.float32)
        for row, array in enumerate(arrays)
        if array is not None and not (isinstance(array, Sequence | np.ndarray | Tensor) and len(array) == 0)
    }
    if not rows:
        raise DataError(f"modality {name!r}: found it in no sample; drop it")
    first_row, first = next(iter(rows.items()))
    tokens = first.ndim == 1 and not first.is_floating_point()
    for row, array in rows.items():
        if array.ndim == 1 and array.is_floating_point():
            raise ShapeError(
                f"modality {name!r}, sample {row}: expected (time, width), found {tuple(array.shape)}; width"
                f" 1 is ({len(array)}, 1)"
            )
        if (
            array.ndim not in (1, 2)
            or (array.ndim == 1) != tokens
            or (not tokens and array.shape[1] != first.shape[1])
        ):
            wanted = (
                "(time,) integers" if tokens else f"(time, {first.shape[1] if first.ndim == 2 else 'width'})"
            )
            raise ShapeError(
                f"modality {name!r}, sample {row}: expected {wanted} as in sample {first_row}, found"
                f" {tuple(array.shape)}"
            )
    lengths = torch.tensor(
        [len(rows[row]) if row in rows else 0 for row in range(len(arrays))], device=first.device
    )
    mask = torch.arange(int(lengths.max()), device=first.device) < lengths[:, None]
    filled = [rows[row] if row in rows else first[:0] for row in range(len(arrays))]
    padded = torch.nn.utils.rnn.pad_sequence(
        [each.unsqueeze(-1) if tokens else each for each in filled], batch_first=True
    )
    return padded, mask, tokens


def padded_times(name: str, times: Any, mask: Tensor) -> Tensor:
    """(batch, time) seconds from one list per sample, NaN where a sample has none."""
    seconds = torch.full(mask.shape, torch.nan, dtype=torch.float64, device=mask.device)
    if isinstance(times, str) or not isinstance(times, Sequence) or len(times) != len(mask):
        raise ShapeError(
            f"times: modality {name!r}: expected a list with one entry for each of {len(mask)} samples"
        )
    for row, given in enumerate(times):
        length = int(mask[row].sum())
        if given is None:
            continue
        found = tensor_of(given, f"times of {name!r}, sample {row}")
        if found.shape != (length,):
            raise ShapeError(
                f"times: modality {name!r}, sample {row}: expected shape ({length},), found"
                f" {tuple(found.shape)}"
            )
        seconds[row, :length] = found
    return seconds


def targets_of(given: Any) -> Tensor:
    """(batch,) int64 of integers, float64 of other numbers; (batch, classes) float64 of several labels."""
    if isinstance(given, Sequence) and any(isinstance(each, str) for each in given):
        raise DataError("targets: found text, expected numbers; a classification takes class indices")
    plain = (
        [each.item() if isinstance(each, Tensor) and each.ndim == 0 else each for each in given]
        if isinstance(given, list)
        else given
    )
    targets = tensor_of(plain, "targets")
    if targets.ndim == 0:
        raise DataError(f"targets: expected a list of numbers, found {type(given).__name__}")
    if targets.ndim == 2:
        wrong = targets[(targets != 0) & (targets != 1) & ~targets.isnan()]
        if len(wrong):
            raise DataError(f"targets: found {wrong[0].item()}, expected 1, 0 or NaN for each class")
        return targets if targets.is_floating_point() else targets.double()
    if targets.is_floating_point() and not bool(targets.isfinite().all()):
        raise DataError(f"targets: found {targets[~targets.isfinite()][0].item()}, expected finite numbers")
    return targets if targets.is_floating_point() else targets.long()
