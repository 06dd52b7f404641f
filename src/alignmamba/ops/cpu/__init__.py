"""Operators compiled for the CPU; imported when they are first needed.

numba reads its settings from the environment when it is imported, which is why it is imported here first.
"""

import warnings

from alignmamba.errors import BackendError

try:
    with warnings.catch_warnings():
        # It warns of what it cannot parse, with a traceback, and goes on without.
        warnings.filterwarnings("error", "Environment variable", RuntimeWarning)
        import numba  # noqa: F401
except (ValueError, RuntimeWarning) as error:  # of a number out of range it does not say which one it is
    raise BackendError(
        f"numba cannot start: {str(error).splitlines()[0]} (look at NUMBA_NUM_THREADS and other variables of"
        " that name)"
    ) from error
