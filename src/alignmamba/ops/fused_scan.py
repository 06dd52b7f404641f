"""The fused kernels of the selective scan as operators of PyTorch, which compilation, export, AMP and
checkpointing understand.

Inference and training are two operators, because what is kept for the backward pass would stand in the way of
an export.
"""

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignmamba.ops.backends import refuse_transforms


class ScanArguments(NamedTuple):
    """The tensors of `alignmamba.ops.scan.selective_scan`, in its order."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None


_TENSORS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, Tensor?"
    " initial_state"
)
_COUNT = len(ScanArguments._fields)


def fused_scan(given: ScanArguments, softplus: bool) -> tuple[Tensor, Tensor]:
    """Output (batch, time, channel) and final state (batch, channel, state), from the device's kernel."""
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in given):
        y, state, _ = _training(*given, softplus)
    else:
        y, state = _inference(*given, softplus)
    return y, state


def working_precision(u: Tensor) -> torch.dtype:
    """The precision of the recurrence."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def _kernels(device: torch.device) -> ModuleType:
    """The module of the kernels for a device."""
    if device.type == "cpu":
        from alignmamba.ops.cpu import scan as cpu_scan

        return cpu_scan
    from alignmamba.ops.gpu import scan as gpu_scan

    return gpu_scan


def _readable(given: ScanArguments) -> ScanArguments:
    """The tensors in a precision that the kernel of their device reads."""
    dtype = working_precision(given.u)
    if given.u.device.type == "cpu":
        return ScanArguments(*(None if tensor is None else tensor.to(dtype) for tensor in given))  # type: ignore[arg-type]
    return given._replace(A=given.A.to(dtype))


def _forward(arguments: tuple[Any, ...], *, checkpoint: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    given, softplus = ScanArguments(*arguments[:_COUNT]), arguments[_COUNT]
    kernels = _kernels(given.u.device)
    y, state, checkpoints = kernels.scan_forward(*_readable(given), softplus=softplus, checkpoint=checkpoint)
    return y.to(given.u.dtype), state, checkpoints


@torch.library.custom_op(
    "alignmamba::selective_scan", mutates_args=(), schema=f"({_TENSORS}, bool softplus) -> (Tensor, Tensor)"
)
def _inference(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _forward(arguments, checkpoint=False)[:2]


@torch.library.custom_op(
    "alignmamba::selective_scan_training",
    mutates_args=(),
    schema=f"({_TENSORS}, bool softplus) -> (Tensor, Tensor, Tensor)",
)
def _training(*arguments: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    return _forward(arguments, checkpoint=True)


@torch.library.custom_op(
    "alignmamba::selective_scan_backward",
    mutates_args=(),
    schema=f"({_TENSORS}, bool softplus, Tensor checkpoints, Tensor grad_y, Tensor grad_state) -> Tensor[]",
)
def _backward(*arguments: Any) -> list[Tensor]:
    """Gradients of the tensors, each of its tensor's dtype; empty where there was none."""
    given, (softplus, checkpoints, grad_y, grad_state) = (
        ScanArguments(*arguments[:_COUNT]),
        arguments[_COUNT:],
    )
    inputs = _readable(given)
    kernels = _kernels(given.u.device)
    grads = kernels.scan_backward(
        *inputs[:-1], checkpoints, grad_y.to(inputs.u.dtype), grad_state, softplus=softplus
    )
    return [
        given.u.new_empty(0) if tensor is None else grad.to(tensor.dtype)
        for tensor, grad in zip(given, grads, strict=True)
    ]


@_inference.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    u, A = arguments[0], arguments[2]
    return u.new_empty(u.shape), u.new_empty(u.shape[0], *A.shape, dtype=working_precision(u))


@_training.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    u, A = arguments[0], arguments[2]
    state = u.new_empty(u.shape[0], *A.shape, dtype=working_precision(u))
    return (
        u.new_empty(u.shape),
        state,
        state.new_empty(_kernels(u.device).checkpoint_shape(*u.shape, A.shape[1])),
    )


@_backward.register_fake
def _(*arguments: Any) -> list[Tensor]:
    return [
        arguments[0].new_empty(0) if tensor is None else tensor.new_empty(tensor.shape)
        for tensor in arguments[:_COUNT]
    ]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:_COUNT], output[2])
    ctx.softplus = inputs[_COUNT]


def _differentiate(ctx: Any, grad_y: Tensor, grad_state: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *given, checkpoints = ctx.saved_tensors
    grads = _backward(*given, ctx.softplus, checkpoints, grad_y, grad_state)
    return *(None if tensor is None else grad for tensor, grad in zip(given, grads, strict=True)), None


_training.register_autograd(_differentiate, setup_context=_keep)
refuse_transforms("selective_scan", _inference, _training, backward=_backward)
