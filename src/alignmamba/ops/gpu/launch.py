"""Common parts of every launch of a Triton kernel, whatever the operator."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def on_its_device(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Make the device of a function's first argument the current one: Triton launches there."""

    @wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        first = (*args, *kwargs.values())[0]
        assert isinstance(first, Tensor)
        with torch.cuda.device_of(first):
            return function(*args, **kwargs)

    return call


def channels_adjacent(tensor: Tensor) -> Tensor:
    """The tensor itself where its channels lie one apart, as the kernels read them, or else a copy."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()
