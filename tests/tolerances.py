"""Distances allowed between two computations of the same thing: all tolerances of the tests of operators."""

# Keyword arguments of `torch.testing.assert_close`.
EXACT = {"rtol": 0.0, "atol": 0.0}
"""The same operations in the same order."""
FLOAT64 = {"rtol": 1e-9, "atol": 1e-11}
"""Other order of summation, double precision: some hundreds of roundings of 1e-16 and gradients of size
1e3."""
FLOAT32 = {"rtol": 2e-4, "atol": 2e-5}
"""Single precision against the float64 oracle: a recurrence over some hundred tokens."""
LONG_FLOAT32 = {"rtol": 2e-3, "atol": 2e-3}
"""Single precision over thousands of tokens that hardly decay; values and gradients are brought to size 1
before."""
FLOAT16 = {"rtol": 2e-3, "atol": 2e-3}
"""One rounding to 11 bits of the result."""
BFLOAT16 = {"rtol": 1.6e-2, "atol": 1.6e-2}
"""One rounding to 8 bits of the result."""
PLAN_FLOAT32 = {"rtol": 1e-6, "atol": 1e-7}
"""Against the transport plan, whose entries are float32."""
LANDMARKS_EVERYWHERE = {"rtol": 0.0, "atol": 1e-5}
"""MMD with every token a landmark: the ridge of 1e-6, times the few tokens that one of them resembles."""

# Keyword arguments of `torch.autograd.gradcheck` in float64.
GRADCHECK = {"eps": 1e-6, "atol": 1e-6, "rtol": 1e-4}

NOT_NEGATIVE = -1e-12
"""Least value of a float64 quantity that cannot be negative but for rounding."""
TRANSPORT_COST = 1e-9
"""By how much the relaxed optimum may exceed the exact one: rounding of the network simplex."""
STANDARD_ERRORS = 4.0
"""Standard errors that a mean over random draws may lie off; the draws are seeded, so this is no chance of
failure."""
BFLOAT16_MODEL = {"rtol": 0.0, "atol": 2e-2}
"""A whole model under autocast, predictions brought to size 1: some ten roundings to 8 bits one after
another."""
MODEL = {"rtol": 1e-4, "atol": 2e-5}
"""A whole model in single precision, its matrix products cut in another way by padding or by batch
neighbours."""
