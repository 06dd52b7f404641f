"""Exponential, softplus and sigmoid as short sequences of arithmetic, so that loops vectorise."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from alignmamba.ops.cpu.compilation import AS_WRITTEN

LOG2E = np.float64(1.4426950408889634)
LN2 = np.float64(0.6931471805599453)
ZERO, ONE, TWO, NAN = np.float32(0), np.float32(1), np.float32(2), np.float32(np.nan)

# 2^x = 2^k 2^f with k = round(x) and |f| <= 1/2. Adding 1.5 * 2^23 (float64: 1.5 * 2^52) rounds x to an
# integer and leaves k in the low bits; shifted into the place of the exponent, it multiplies by 2^k. 2^f is a
# polynomial with constant term 1, so that 2^0 is 1.
_ROUND32, _ROUND64 = np.float32(1.5 * 2**23), np.float64(1.5 * 2**52)
# Below, the result is zero: so little counts as nothing, and no product with a state is a denormal number,
# which processors are slow with.
_LOWEST32, _LOWEST64 = np.float32(-100), np.float64(-800)
_MANTISSA32, _MANTISSA64 = np.int32(23), np.int64(52)
# Least largest relative error on [-1/2, 1/2], degree 5: 9e-8, and 1.6e-7 with the rounding of the arithmetic.
_F5, _F4, _F3 = (
    np.float32(0.0013264727197388323),
    np.float32(0.009671512639651788),
    np.float32(0.05550733743251392),
)
_F2, _F1 = np.float32(0.24022242085375062), np.float32(0.6931469775991645)
# Taylor's coefficients ln(2)^n / n!, highest first, degree 13: 4e-18.
_TAYLOR = tuple(np.cumprod([LN2 / n for n in range(1, 14)])[::-1].tolist())
_T13, _T12, _T11, _T10, _T9, _T8, _T7, _T6, _T5, _T4, _T3, _T2, _T1 = _TAYLOR

# atanh(s) / s as a polynomial in s^2 on [0, 1/9], least largest relative error, degree 4: 4e-9.
_A4, _A3, _A2 = (
    np.float32(0.14089167521828944),
    np.float32(0.1398030136194012),
    np.float32(0.20012455142117977),
)
_A1, _A0 = np.float32(0.33333157340967057), np.float32(1)
_LOG2E32 = np.float32(LOG2E)
_SHUT32, _SHUT64 = np.float32(-69), np.float64(-554)


def _bitcast(source: Any, target: Any, llvm_target: ir.Type) -> Any:
    @intrinsic
    def cast(_context: Any, _value: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], llvm_target)

        return target(source), codegen

    return cast


_as_float32 = _bitcast(types.int32, types.float32, ir.FloatType())
_as_int32 = _bitcast(types.float32, types.int32, ir.IntType(32))
_as_float64 = _bitcast(types.int64, types.float64, ir.DoubleType())
_as_int64 = _bitcast(types.float64, types.int64, ir.IntType(64))


def exp2(x):
    """2^x for x up to 127 (float64: 1023); relative error below 2e-7 in float32 and 1e-15 in float64.

    Zero below -100 (float64: -800); NaN stays NaN. Above 127 (1023), the result means nothing.
    """
    raise NotImplementedError("only for kernels")


@njit(fastmath=set(AS_WRITTEN))
def _exp2_float32(x):
    vanishes = x < _LOWEST32
    x = _LOWEST32 if vanishes else x
    shifted = x + _ROUND32
    f = x - (shifted - _ROUND32)
    p = ((((_F5 * f + _F4) * f + _F3) * f + _F2) * f + _F1) * f + ONE
    power = _as_float32(np.int32(_as_int32(p) + np.int32(_as_int32(shifted) << _MANTISSA32)))
    return ZERO if vanishes else power


@njit(fastmath=set(AS_WRITTEN))
def _exp2_float64(x):
    vanishes = x < _LOWEST64
    x = _LOWEST64 if vanishes else x
    shifted = x + _ROUND64
    f = x - (shifted - _ROUND64)
    p = (((((_T13 * f + _T12) * f + _T11) * f + _T10) * f + _T9) * f + _T8) * f + _T7
    p = ((((((p * f + _T6) * f + _T5) * f + _T4) * f + _T3) * f + _T2) * f + _T1) * f + ONE
    power = _as_float64(_as_int64(p) + (_as_int64(shifted) << _MANTISSA64))
    return 0.0 if vanishes else power


@overload(exp2, inline="always")
def _exp2(x):
    if x == types.float32:
        return lambda x: _exp2_float32(x)
    return lambda x: _exp2_float64(x)


def sigmoid(x):
    """1 / (1 + e^-x); relative error below 1e-7 (4 + |x|) in float32, zero below -69 (float64: -554)."""
    raise NotImplementedError("only for kernels")


# Where the exponential is held, nothing is left: the gate of a huge negative number must close. What a NaN
# carries in its low bits would pass for an exponent, so a NaN is answered first.
@njit(fastmath=set(AS_WRITTEN))
def _sigmoid_float32(x):
    e = _exp2_float32(-abs(x) * _LOG2E32)
    result = (ONE if not x < ZERO else e if x > _SHUT32 else ZERO) / (ONE + e)
    return NAN if x != x else result


@njit(fastmath=set(AS_WRITTEN))
def _sigmoid_float64(x):
    e = _exp2_float64(-abs(x) * LOG2E)
    result = (ONE if not x < ZERO else e if x > _SHUT64 else ZERO) / (ONE + e)
    return NAN if x != x else result


@overload(sigmoid, inline="always")
def _sigmoid(x):
    if x == types.float32:
        return lambda x: _sigmoid_float32(x)
    return lambda x: _sigmoid_float64(x)


@njit(fastmath=set(AS_WRITTEN))
def silu(x):
    """Compute x sigmoid(x) in a kernel, which other factors may not be multiplied into before."""
    return x * sigmoid(x)


@njit(fastmath=set(AS_WRITTEN))
def silu_slope(x):
    """Derivative of `silu`, in a kernel."""
    open_ = sigmoid(x)
    return open_ * (ONE + x * (ONE - open_))


def softplus(x):
    """log(1 + e^x); relative error below 1e-7 (4 + |x|) in float32, small results too; zero below -69."""
    raise NotImplementedError("only for kernels")


@njit(fastmath=set(AS_WRITTEN))
def _softplus_float32(x):
    # log(1 + e) = 2 atanh(e / (2 + e)) keeps its relative precision where e is tiny.
    e = _exp2_float32(-abs(x) * _LOG2E32)
    s = e / (TWO + e)
    q = s * s
    log = TWO * s * ((((_A4 * q + _A3) * q + _A2) * q + _A1) * q + _A0)
    return NAN if x != x else log + (x if x > ZERO else ZERO)


@njit
def _softplus_float64(x):
    return np.log1p(np.exp(-abs(x))) + max(x, 0.0)


@overload(softplus, inline="always")
def _softplus(x):
    if x == types.float32:
        return lambda x: _softplus_float32(x)
    return lambda x: _softplus_float64(x)
