"""Compilation, cache, tensors and threads of kernels."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit
from numba.core.caching import FunctionCache
from torch import Tensor

# A sum may be reordered and a product fused into it, so that loops vectorise. NaN and infinity keep their
# meaning.
ANY_ORDER = frozenset({"contract", "nsz", "arcp", "reassoc"})
# Where adding and subtracting a large number rounds to an integer, sums must stay as they are written.
AS_WRITTEN = frozenset({"contract", "nsz", "arcp"})
# A running maximum vectorises only where NaN may be ignored.
EXTREMES = frozenset({"nnan"})

Rows = tuple[np.ndarray, int, int]
"""Tokens of any layout whose channels lie side by side: memory, and its distances from sample to sample and
from token to token."""


def kernel(function: Callable[..., Any], *, extra: frozenset[str] = frozenset()) -> Callable[..., Any]:
    """Compile at the first call, without the interpreter's lock; the machine code is kept where possible."""
    compiled = njit(fastmath=set(ANY_ORDER | extra), nogil=True, error_model="numpy")(function)
    try:
        compiled._cache = _Cache(function)  # type: ignore[attr-defined]
    except RuntimeError:  # numba found no directory that it may write
        _say_not_kept("there is no directory that may be written")
    return compiled


# The kernels call one another across files, and numba looks at the file of the outermost one alone.
_SOURCES = sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


class _Cache(FunctionCache):
    """Machine code of these sources on disk; it is compiled again where that fails."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return *super()._index_key(sig, codegen), _SOURCES

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except OSError:  # writing will fail as well, and says so
            return None
        except Exception:  # damaged, and reading that may raise anything: begin afresh
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:  # a full disk, or a directory taken away since it was chosen
            _say_not_kept(error.strerror)


@cache
def _say_not_kept(reason: str | None) -> None:
    """Say it once in a process: compiling resets Python's own record of warnings."""
    warnings.warn(
        f"compiled kernels are not kept on disk, every process compiles them anew: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )


def rows(tensor: Tensor) -> Rows:
    """A (batch, time, channel) tensor for a kernel; copied only if its channels do not lie side by side."""
    if tensor.stride(2) != 1 and tensor.shape[2] > 1:
        tensor = tensor.contiguous()
    batch, time, channel = tensor.shape
    if tensor.numel() == 0:
        return np.zeros(0, _TYPES[tensor.dtype]), 0, 0
    extent = (batch - 1) * tensor.stride(0) + (time - 1) * tensor.stride(1) + channel
    return _seen(tensor.detach().as_strided((extent,), (1,))), tensor.stride(0), tensor.stride(1)


@kernel
def tokens_of(x, row, time, start, lanes):
    """Channels, in a kernel, `start` to `start + lanes` of one token of `Rows`."""
    memory, per_row, per_token = x
    at = row * per_row + time * per_token + start
    return memory[at : at + lanes]


@kernel
def entry_of(x, row, time, channel):
    """One number of `Rows`, in a kernel."""
    memory, per_row, per_token = x
    return memory[row * per_row + time * per_token + channel]


def array(tensor: Tensor) -> np.ndarray:
    """A contiguous array of a tensor, sharing its memory where that is contiguous."""
    return _seen(tensor.detach().contiguous())


def over_tasks(run: Callable[[int, int], object], tasks: int, threads: int) -> None:
    """Call ``run(first, last)`` over all tasks, on threads that end with the call: a process may fork."""
    threads = max(1, min(tasks, threads))
    edges = [tasks * part // threads for part in range(threads + 1)]
    if threads == 1:
        run(0, tasks)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(run, edges[part], edges[part + 1]) for part in range(1, threads)]
        run(edges[0], edges[1])
        for other in others:
            other.result()


def threads_for(work: int, least: int) -> int:
    """Number of threads: as many as torch uses, but none for less than `least` units of work."""
    return max(1, min(torch.get_num_threads(), work // least))


class _Memory:
    """A contiguous tensor as numpy asks for it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor  # alive as long as the array that looks at it
        self.__array_interface__ = {
            "data": (tensor.data_ptr(), False), "shape": tuple(tensor.shape), "typestr": _TYPES[tensor.dtype],
            "version": 3,
        }  # fmt: skip


_TYPES = {getattr(torch, name): np.dtype(name).str for name in ("float32", "float64", "int64", "bool")}


def _seen(tensor: Tensor) -> np.ndarray:
    """`Tensor.numpy` without its mark on the storage, by which FSDP could not resize it any more."""
    if tensor.numel() == 0:
        return np.empty(tuple(tensor.shape), _TYPES[tensor.dtype])
    return np.asarray(_Memory(tensor))
