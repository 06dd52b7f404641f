"""Choice of the implementation of a call: the best, or the one asked for by name, never in silence."""

import os
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, Literal

import torch

from alignmamba.errors import BackendError

Backend = Literal["auto", "torch", "numba", "triton", "mamba_ssm"]

# Looked up once: inside torch.compile nothing could be looked up.
INSTALLED = {name: find_spec(name) is not None for name in ("numba", "triton", "mamba_ssm")}

_INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")

# Operators that have kernels; the others are PyTorch alone. Each has the reference ``"torch"`` besides.
KERNELS = {
    "selective_scan": ("numba", "triton", "mamba_ssm"),
    "causal_conv": ("numba", "triton"),
    "match_tokens": ("numba", "triton"),
    "mmd": ("numba", "triton"),
}
# The kernel that ``auto`` takes on a device, where it can serve the call.
_AUTOMATIC = {"cpu": "numba", "cuda": "triton"}


def operator_backends(device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, dict[str, str]]:
    """Backends that can serve such tensors: for each operator that has kernels, each backend to ``"ready"``
    or the reason why not.
    """
    return {
        operator: {kernel: why_not(kernel, torch.device(device), dtype) or "ready" for kernel in kernels}
        | {"torch": "ready"}
        for operator, kernels in KERNELS.items()
    }


def why_not(kernel: str, device: torch.device, dtype: torch.dtype) -> str:
    """The reason why a kernel cannot serve such tensors, empty if it can."""
    if kernel == "numba" and device.type != "cpu":
        return f"it runs on the CPU, the tensors are on {device}"
    if kernel != "numba" and device.type != "cuda":
        return f"it runs on CUDA and ROCm GPUs, the tensors are on {device}"
    if not INSTALLED[kernel]:
        return f"{kernel} is not installed"
    if kernel == "numba" and _INTERPRETED:
        return "NUMBA_DISABLE_JIT is set"
    if kernel != "numba" and dtype == torch.float64:
        return "it computes in float32, the tensors are float64"
    return ""


def chosen(
    operator: str,
    backend: str,
    device: torch.device,
    dtype: torch.dtype,
    refused: Mapping[str, str] | None = None,
) -> str:
    """The implementation to use.

    ``auto`` warns where it takes the reference although a kernel for the device exists; Python shows each
    such warning once.

    Args:
        operator: Name of the operator, a key of `KERNELS`.
        backend: What the caller asked for.
        device: Where the tensors are.
        dtype: What they hold.
        refused: Kernels that cannot serve this call for a reason of the operator's own.

    Raises:
        BackendError: If the named backend does not exist or cannot serve the call.
    """
    if backend == "torch":
        return backend
    if backend == "auto" and device.type not in _AUTOMATIC:
        return "torch"
    kernel = _AUTOMATIC[device.type] if backend == "auto" else backend
    if kernel not in KERNELS[operator]:
        known = ", ".join(repr(name) for name in ("auto", "torch", *KERNELS[operator]))
        raise BackendError(f"{operator} has no backend {backend!r}; it has {known}")
    reason = (refused or {}).get(kernel, "") or why_not(kernel, device, dtype)
    if not reason and getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0 and kernel != "mamba_ssm":
        reason = "it has no forward-mode derivative"  # and PyTorch would take it for zero
    if not reason:
        return kernel
    if backend != "auto":
        raise BackendError(f"{operator}: backend {backend!r} cannot serve this call: {reason}")
    warnings.warn(
        f"{operator} runs as the reference in PyTorch, which is slow: {kernel}: {reason}",
        RuntimeWarning,
        stacklevel=3,
    )
    return "torch"


def exporting() -> bool:
    """Return whether `torch.export` runs.

    The flag behind `torch.compiler.is_exporting`, which in older releases also holds inside torch.compile,
    where the kernels are wanted (github.com/pytorch/pytorch/issues/176347).
    """
    return getattr(torch.compiler, "_is_exporting_flag", False)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, products keep the precision of what is multiplied, on devices without autocast too."""
    return (
        torch.autocast(device.type, enabled=False)
        if torch.amp.is_autocast_available(device.type)
        else nullcontext()
    )


def refuse_transforms(operator: str, *operators: Any, backward: Any = None) -> None:
    """Make operators refuse `torch.vmap`, and `backward` a second derivative, which would be wrong."""

    def refuse_vmap(*_: Any) -> Any:
        raise BackendError(
            f"{operator} cannot be mapped by torch.vmap: put the mapped dimension into the batch dimension"
        )

    def refuse_second_derivative(*_: Any) -> Any:
        raise BackendError(f"{operator}: expected first derivatives only; its kernels have no second ones")

    if backward is not None:
        backward.register_autograd(refuse_second_derivative)
        operators = (*operators, backward)
    for each in operators:
        each.register_vmap(refuse_vmap)
