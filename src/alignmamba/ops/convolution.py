"""The causal depthwise convolution of the Mamba block, with its activation."""

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alignmamba.errors import ShapeError
from alignmamba.ops.backends import Backend, chosen, exporting, refuse_transforms


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, *, backend: Backend = "auto") -> Tensor:
    r"""Convolve each channel with the tokens up to its own, and apply SiLU.

    ``y_t = silu(bias + sum_k weight_k x_{t - (width - 1) + k})``, with zeros before the first token. Computed
    in float32 for half-precision inputs.

    Args:
        x: (batch, time, channel), floating.
        weight: (width, channel); the last row weighs the token itself.
        bias: (channel).
        backend: ``"auto"`` takes the fastest backend that can serve these tensors; a backend asked for by
            name is used or refused.

    Returns:
        (batch, time, channel), of the dtype of `x`.

    Raises:
        ShapeError: If a tensor's shape, dtype or device does not fit `x`; the message names it.
        BackendError: If the named backend does not exist or cannot serve these tensors.

    Source:
        Gu & Dao, arXiv:2312.00752, section 3.4 and figure 3.
    """
    if x.ndim != 3 or not x.is_floating_point():
        raise ShapeError(
            f"x: expected floating (batch, time, channel), found {x.dtype} of shape {tuple(x.shape)}"
        )
    if weight.ndim != 2 or len(weight) == 0:
        raise ShapeError(
            f"weight: expected (width, channel) with at least one row, found shape {tuple(weight.shape)}"
        )
    for name, tensor, shape in (("weight", weight, (len(weight), x.shape[2])), ("bias", bias, (x.shape[2],))):
        if tuple(tensor.shape) != shape or not tensor.is_floating_point() or tensor.device != x.device:
            expected = f"floating {shape} on {x.device} beside x of shape {tuple(x.shape)}"
            raise ShapeError(
                f"{name}: expected {expected}, found {tensor.dtype} of shape {tuple(tensor.shape)} on"
                f" {tensor.device}"
            )
    if exporting() and backend == "auto":
        return _reference(x, weight, bias)
    if chosen("causal_conv", backend, x.device, x.dtype) == "torch":
        return _reference(x, weight, bias)
    y: Tensor = _fused(x, weight, bias)
    return y


def _reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The definition: a sum of shifted copies."""
    working = torch.promote_types(x.dtype, torch.float32)
    width, time = len(weight), x.shape[1]
    padded = F.pad(x.to(working), (0, 0, width - 1, 0))
    convolved = bias.to(working) + sum(padded[:, k : k + time] * weight[k].to(working) for k in range(width))
    return F.silu(convolved).to(x.dtype)


def _kernels(device: torch.device) -> ModuleType:
    """The module of the kernels for a device."""
    if device.type == "cpu":
        from alignmamba.ops.cpu import convolution as cpu

        return cpu
    from alignmamba.ops.gpu import convolution as gpu

    return gpu


def _readable(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in a precision that the kernel of their device reads: on the CPU single or double."""
    if tensors[0].device.type != "cpu":
        return tensors
    working = torch.promote_types(tensors[0].dtype, torch.float32)
    return tuple(tensor.to(working) for tensor in tensors)


@torch.library.custom_op("alignmamba::causal_conv", mutates_args=())
def _fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y: Tensor = _kernels(x.device).conv_forward(*_readable(x, weight, bias))
    return y.to(x.dtype)


@torch.library.custom_op("alignmamba::causal_conv_backward", mutates_args=())
def _fused_backward(x: Tensor, weight: Tensor, bias: Tensor, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grads = _kernels(x.device).conv_backward(*_readable(x, weight, bias, grad_y))
    grad_x, grad_weight, grad_bias = (
        grad.to(tensor.dtype) for grad, tensor in zip(grads, (x, weight, bias), strict=True)
    )
    return grad_x, grad_weight, grad_bias


@_fused.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ARG001
    return x.new_empty(x.shape)


@_fused_backward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG001
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    grads: tuple[Tensor, Tensor, Tensor] = _fused_backward(*ctx.saved_tensors, grad_y)
    return grads


_fused.register_autograd(_differentiate, setup_context=_keep)
refuse_transforms("causal_conv", _fused, backward=_fused_backward)
