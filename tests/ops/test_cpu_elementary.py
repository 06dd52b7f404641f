"""The kernels' elementary functions against NumPy's in double precision."""

import math
from typing import Any

import numpy as np
import pytest
from numba import njit

from alignmamba.ops.cpu.elementary import exp2, sigmoid, softplus


@njit
def _exp2(xs: Any) -> Any:
    return np.array([exp2(x) for x in xs])


@njit
def _softplus(xs: Any) -> Any:
    return np.array([softplus(x) for x in xs])


@njit
def _sigmoid(xs: Any) -> Any:
    return np.array([sigmoid(x) for x in xs])


def errors(found: Any, exact: Any) -> Any:
    """Relative errors."""
    return np.abs(found.astype(np.longdouble) / exact - 1)


@pytest.mark.parametrize(
    ("dtype", "bound", "lowest", "highest"), [(np.float32, 2e-7, -100, 127), (np.float64, 1e-15, -800, 1023)]
)
def test_exp2_keeps_its_bound(dtype: Any, bound: float, lowest: float, highest: float) -> None:
    xs = np.concatenate([np.linspace(lowest, highest, 40_011), np.linspace(-2, 2, 40_011)]).astype(dtype)
    assert errors(_exp2(xs), np.exp2(xs.astype(np.longdouble))).max() < bound
    integers = np.arange(-20, 20).astype(dtype)
    assert np.array_equal(_exp2(integers), 2.0**integers)


@pytest.mark.parametrize(("dtype", "lowest"), [(np.float32, -100), (np.float64, -800)])
def test_exp2_vanishes_below_and_passes_nan_on(dtype: Any, lowest: float) -> None:
    xs = np.array([-1e9, -np.inf, lowest, math.nan], dtype)
    found = _exp2(xs)
    assert np.array_equal(found[:3], np.array([0, 0, 2.0**lowest], dtype))
    assert math.isnan(found[3])


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-7), (np.float64, 1e-15)])
def test_softplus_keeps_its_relative_precision_where_it_is_small(dtype: Any, bound: float) -> None:
    xs = np.linspace(-60, 60, 40_011).astype(dtype)
    exact = np.log1p(np.exp(-np.abs(xs.astype(np.longdouble)))) + np.maximum(xs.astype(np.longdouble), 0)
    found = _softplus(xs)
    assert found.dtype == dtype
    assert (errors(found, exact) < bound * (4 + np.abs(xs))).all()
    assert math.isnan(_softplus(np.array([math.nan], dtype))[0])


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-7), (np.float64, 1e-15)])
def test_sigmoid(dtype: Any, bound: float) -> None:
    xs = np.linspace(-20, 60, 40_011).astype(dtype)
    assert (
        errors(_sigmoid(xs), 1 / (1 + np.exp(-xs.astype(np.longdouble)))) < bound * (4 + np.abs(xs))
    ).all()
    ends = _sigmoid(np.array([-1e4, 1e4], dtype))
    assert 0 <= ends[0] < 1e-29
    assert ends[1] == 1
