"""Elementary functions of float32 tensors inside Triton kernels, by the hardware's exponential of 2."""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def softplus(x):
    """log(1 + exp(x)) to float32 precision: max(x, 0) + 2 artanh(e / (2 + e)) with e = exp(-|x|)."""
    e = tl.exp2(tl.abs(x) * -LOG2E)
    s = e / (2.0 + e)  # at most 1/3, so that the series ends at s^13
    q = s * s
    series = 1.0 + q * (
        1.0 / 3 + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11 + q * (1.0 / 13)))))
    )
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp2(x * -LOG2E))
