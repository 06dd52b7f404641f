"""Arrays and numbers that carry a validity of their own: numpy's masks, nulls of pandas and Arrow, PyTorch's
masked tensors.

What lies under a mask is no number, so it is never taken for one. Among values it becomes NaN, which every
reader treats as not finite.
"""

import sys
from typing import Any

import numpy as np


class NotAnArrayError(ValueError):
    """Reason why a value cannot become an array, with the way out."""


def plain_array(given: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """A value as an array, and what of it is masked or null.

    Args:
        given: An array, a tensor, a table, or lists of them.

    Returns:
        The array, and a mask of its shape that is true where an entry is masked or null, at which a NaN
        stands in the array; ``None`` where nothing is. Integers with such an entry become float64.

    Raises:
        NotAnArrayError: If it cannot become an array.
    """
    if isinstance(given, np.ma.MaskedArray):
        return _with_nan(np.asarray(given.data), np.ma.getmaskarray(given))
    if type(given) is np.ndarray and given.dtype != object:
        return given, None
    if _is_tensor(given):
        return _of_tensor(given)
    if isinstance(given, list | tuple) and any(
        isinstance(part, np.ndarray | list | tuple) or _is_tensor(part) for part in given
    ):
        return _of_parts(given)
    try:
        # A single entry under a mask is numpy's constant, of which `asarray` warns.
        plain = (
            [None if part is np.ma.masked else part for part in given]
            if isinstance(given, list | tuple)
            else given
        )
        array = np.asarray(plain)
    except ValueError as error:
        raise NotAnArrayError(f"found a ragged {type(given).__name__}") from error
    except (TypeError, RuntimeError) as error:
        raise NotAnArrayError(f"found {type(given).__name__} that cannot become one") from error
    return _of_objects(array) if array.dtype == object else (array, None)


def plain_scalar(given: Any) -> Any:
    """A number or text without the array of one entry, the tensor or the null that it may be wrapped in.

    Returns:
        The value, ``None`` where it is masked or null, and what is no such thing as it is.
    """
    if _is_masked(given):
        data, mask = given.get_data(), given.get_mask()
        return data.item() if data.numel() == 1 and bool(mask.all()) else None if data.numel() == 1 else given
    if isinstance(given, np.ma.MaskedArray):
        return (
            None
            if given.size == 1 and np.ma.getmaskarray(given).all()
            else given.data.item()
            if given.size == 1
            else given
        )
    if _is_tensor(given):
        return given.item() if given.numel() == 1 else given
    if isinstance(given, np.ndarray):
        return given.item() if given.size == 1 else given
    if is_null(given):
        return None
    arrow = sys.modules.get("pyarrow")
    return given.as_py() if arrow is not None and isinstance(given, arrow.Scalar) else given


def is_null(value: Any) -> bool:
    """Return whether a value is the null of Python, numpy, pandas or Arrow. NaN is none."""
    pandas, arrow = sys.modules.get("pandas"), sys.modules.get("pyarrow")
    return (
        value is None
        or value is np.ma.masked
        or (pandas is not None and (value is pandas.NA or value is pandas.NaT))
        or (arrow is not None and isinstance(value, arrow.Scalar) and not value.is_valid)
    )


def by_position(values: Any) -> Any:
    """A list of entries by place: a series of pandas looks them up by its index."""
    pandas = sys.modules.get("pandas")
    return values.array if pandas is not None and isinstance(values, pandas.Series) else values


def _with_nan(array: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """A copy with NaN where it is hidden; the array itself where nothing is."""
    if not hidden.any():
        return array, None
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    return (
        np.where(hidden, np.array(np.nan, dtype=array.dtype), array) if array.dtype.kind == "f" else array
    ), hidden


def _is_tensor(given: Any) -> bool:
    """True for a tensor, which exists only where PyTorch is imported."""
    return "torch" in sys.modules and isinstance(given, sys.modules["torch"].Tensor)


def _is_masked(given: Any) -> bool:
    name = "torch.masked"
    return name in sys.modules and isinstance(given, sys.modules[name].MaskedTensor)


def _of_tensor(given: Any) -> tuple[np.ndarray, np.ndarray | None]:
    if _is_masked(given):
        values, _ = plain_array(given.get_data())
        valid, _ = plain_array(given.get_mask())
        return _with_nan(values, ~valid)
    if given.is_nested:
        raise NotAnArrayError("found a nested tensor; give one tensor for each sample")
    if given.layout != sys.modules["torch"].strided:
        raise NotAnArrayError("found a sparse tensor; give tensor.to_dense()")
    try:
        return np.asarray(given), None
    except (TypeError, RuntimeError) as error:
        # One that requires grad, on a GPU, or of bfloat16.
        raise NotAnArrayError(
            f"found {type(given).__name__} that cannot become one; give tensor.detach().float().cpu().numpy()"
        ) from error


def _of_parts(given: list[Any] | tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows, of which each may have a mask that joining them would lose."""
    parts = [plain_array(part) for part in given]
    if len({array.shape for array, _ in parts}) > 1:
        raise NotAnArrayError(f"found a ragged {type(given).__name__}")
    try:
        array = np.asarray([array for array, _ in parts])
    except ValueError as error:
        raise NotAnArrayError(f"found a ragged {type(given).__name__}") from error
    if all(hidden is None for _, hidden in parts):
        return array, None
    return array, np.stack(
        [np.zeros(part.shape, dtype=bool) if hidden is None else hidden for part, hidden in parts]
    )


def _of_objects(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Objects that are numbers and nulls, as pandas has them; anything else stays, to be refused."""
    entries = [
        plain_scalar(entry) if not isinstance(entry, np.ndarray) else entry
        for entry in array.ravel().tolist()
    ]
    if not all(
        entry is None or (isinstance(entry, int | float) and not isinstance(entry, bool)) for entry in entries
    ):
        return array, None
    hidden = np.array([entry is None for entry in entries], dtype=bool).reshape(array.shape)
    try:
        if not hidden.any() and all(isinstance(entry, int) for entry in entries):
            return np.array(entries, dtype=np.int64).reshape(array.shape), None
        numbers = np.array([np.nan if entry is None else float(entry) for entry in entries])
    except OverflowError:  # an integer that no float holds
        return array, None
    return numbers.reshape(array.shape), hidden if hidden.any() else None
