"""Which implementation serves a call: the best that can, or the one asked for by name, and never another in silence."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, Literal

import torch

from alignmamba.errors import BackendError

Backend = Literal["auto", "torch", "numba", "triton", "mamba_ssm"]

# Looked up once: inside torch.compile nothing could be looked up.
INSTALLED = {name: find_spec(name) is not None for name in ("numba", "triton", "mamba_ssm")}

# The kernels that ``auto`` takes on a device, where they can serve the call.
_OWN_KERNELS = {"cpu": "numba", "cuda": "triton"}


def why_not_numba(device: torch.device) -> str:
    """The reason why a kernel compiled by numba cannot serve tensors on `device`, empty if it can."""
    if device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {device}"
    return "" if INSTALLED["numba"] else "numba is not installed"


def why_not_triton(device: torch.device, dtype: torch.dtype) -> str:
    """The reason why a Triton kernel cannot serve such tensors, empty if it can."""
    if device.type != "cuda":
        return f"it runs on CUDA and ROCm GPUs, the tensors are on {device}"
    if not INSTALLED["triton"]:
        return "triton is not installed: pip install 'alignmamba[gpu]'"
    return "it computes in float32, the tensors are float64" if dtype == torch.float64 else ""


def chosen(operator: str, backend: str, device: torch.device, reasons: Mapping[str, str]) -> str:
    """The implementation to use.

    ``auto`` warns where it takes the reference although a kernel for the device exists; Python shows each such warning once.

    Args:
        operator: Name of the operator, for messages.
        backend: What the caller asked for.
        device: Where the tensors are.
        reasons: The kernels there are, and why each cannot serve this call; empty where it can.

    Raises:
        BackendError: If the named backend does not exist or cannot serve the call.
    """
    if backend == "torch":
        return backend
    if backend == "auto":
        kernel = _OWN_KERNELS.get(device.type)
        if kernel is None:
            return "torch"
        if not reasons[kernel]:
            return kernel
        warnings.warn(
            f"{operator} runs as the reference in PyTorch, which is slow: {kernel}: {reasons[kernel]}", RuntimeWarning, stacklevel=3
        )
        return "torch"
    if backend not in reasons:
        known = ", ".join(repr(name) for name in ("auto", "torch", *reasons))
        raise BackendError(f"{operator} has no backend {backend!r}; it has {known}")
    if reasons[backend]:
        raise BackendError(f"{operator}: backend {backend!r} cannot serve this call: {reasons[backend]}")
    return backend


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, products keep the precision of what is multiplied; a device without autocast, as ``meta``, needs nothing for that."""
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()


def refuse_vmap(operator: str) -> Callable[..., Any]:
    """What `torch.vmap` calls in place of an operator that has its own batch dimension."""

    def refuse(*_: Any) -> Any:
        raise BackendError(f"{operator} cannot be mapped by torch.vmap: put the mapped dimension into the batch dimension")

    return refuse


def refuse_second_derivative(operator: str) -> Callable[..., Any]:
    """What differentiating a kernel's gradient calls: without it, a gradient of a gradient would fail obscurely or be wrong."""

    def refuse(*_: Any) -> Any:
        raise BackendError(f"{operator}: the gradient that its kernels give cannot be differentiated again")

    return refuse
