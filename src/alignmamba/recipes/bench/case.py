"""Case of a measurement: its size, its inputs, and a peer that makes inputs first and computes later. In
training a computation is a forward pass and the gradients of weights and inputs, without a step.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from alignmamba import ops
from alignmamba.contracts import Config
from alignmamba.evaluation.computing_cost import Call

NUM_MODALITIES = 3


class Shape(Config):
    """The size of what is measured, apart from its length."""

    batch: Annotated[int, Field(ge=1)] = 1
    """Samples that are computed together."""
    d_model: Annotated[int, Field(ge=1, le=8192)] = 256
    """Channels of a token; a scan has twice as many, as in a Mamba block."""
    depth: Annotated[int, Field(ge=1, le=256)] = 4
    """Layers of a backbone."""
    heads: Annotated[int, Field(ge=1, le=256)] = 8
    """Heads of an attention layer."""
    d_state: Annotated[int, Field(ge=1, le=256)] = 16
    """State size of a scan."""
    window: Annotated[int, Field(ge=0)] = 64
    """Half width of the windowed matching, in tokens."""
    landmarks: Annotated[int, Field(ge=2)] = 256
    """Tokens that the approximate MMD compares with."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the computation."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of inputs and weights."""
    training: bool = False
    """True if gradients are computed as well."""


class Case(Shape):
    """One point of a measurement."""

    length: Annotated[int, Field(ge=1)]
    """Tokens: of the sequence, of either side of a matching or an MMD, or per modality of a whole model."""

    @property
    def inner(self) -> int:
        """Channels of the scan in a Mamba block."""
        return 2 * self.d_model

    @property
    def rank(self) -> int:
        """Rank of the step size in a Mamba block."""
        return math.ceil(self.d_model / 16)

    @property
    def tokens(self) -> float:
        """Tokens of all samples."""
        return float(self.batch * self.length)

    @property
    def passes(self) -> int:
        """Forward passes that one computation is worth: a backward pass is counted as two."""
        return 3 if self.training else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A computation whose inputs exist."""

    call: Call
    num_parameters: int = 0


def nothing(_: Case) -> str:
    return ""


def linear_memory(case: Case) -> float:
    """Bytes of some 24 numbers per token and channel, in every layer where gradients are wanted."""
    return 4.0 * 24 * case.tokens * case.d_model * (case.depth if case.training else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to compute a subject."""

    what: str
    """Summary of the computation, in a line."""
    build: Callable[[Case], Built]
    """Makes inputs and weights."""
    flops: Callable[[Case], float]
    """Floating-point operations by formula; norms, activations, convolutions of width 4 and residuals are
    left out."""
    memory: Callable[[Case], float] = linear_memory
    """About how many bytes it will hold: to skip what would not fit, not to be reported."""
    why_not: Callable[[Case], str] = nothing
    """Reason why it cannot be measured here, empty if it can."""
    same: bool = False
    """True if its result must be that of the subject's first peer."""
    by_name_only: bool = False
    """True if it is left out unless it is asked for."""


# Inputs


class Draw:
    """Random inputs, the same for every peer of a case."""

    def __init__(self, case: Case) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self.dtype = cast(torch.dtype, getattr(torch, case.dtype))
        self.device, self.training = case.device, case.training

    def normal(self, *shape: int, shift: float = 0.0) -> Tensor:
        """Standard normal plus `shift`."""
        return self._placed(torch.randn(shape, generator=self._generator) + shift)

    def decay(self, channels: int, states: int) -> Tensor:
        """-1, -2, ... in every channel, as Mamba starts."""
        return self._placed(-torch.arange(1.0, states + 1).repeat(channels, 1), torch.float32)

    def mask(self, batch: int, length: int) -> Tensor:
        """Everything is valid."""
        return torch.ones(batch, length, dtype=torch.bool, device=self.device)

    def module(self, module: nn.Module) -> nn.Module:
        """Weights in place; dropout is off in training too, so that all do the same."""
        return module.to(self.device, self.dtype).eval()

    def _placed(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return tensor.to(self.device, dtype or self.dtype).requires_grad_(self.training)


def computation(
    forward: Callable[[], Tensor | Sequence[Tensor]], leaves: Sequence[Tensor], *shapes: tuple[int, ...]
) -> Call:
    """`forward`, to one tensor or several, without gradients; or with those of all leaves, from ones of the
    shapes of the results.
    """
    if not any(leaf.requires_grad for leaf in leaves):

        def infer() -> object:
            with torch.no_grad():
                return forward()

        return infer
    some = leaves[0]
    arriving = [torch.ones(shape, dtype=some.dtype, device=some.device) for shape in shapes]

    def differentiate() -> object:
        for leaf in leaves:
            leaf.grad = None
        found = forward()
        outputs = (found,) if isinstance(found, Tensor) else tuple(found)
        upstream = [gradient.to(output.dtype) for gradient, output in zip(arriving, outputs, strict=True)]
        torch.autograd.backward(outputs, upstream)
        return [leaf.grad for leaf in leaves]

    return differentiate


def module_on(
    draw: Draw,
    module: nn.Module,
    inputs: Sequence[Tensor],
    forward: Callable[[], Any],
    *shapes: tuple[int, ...],
) -> Built:
    """A module's forward pass, with gradients of weights and inputs in training."""
    parameters = list(module.parameters())
    leaves = [*inputs, *parameters] if draw.training else list(inputs)
    return Built(
        call=computation(forward, leaves, *shapes), num_parameters=sum(each.numel() for each in parameters)
    )


# Whether a peer is there


def needs(module: str) -> Callable[[Case], str]:
    """Reason why a package is not there."""

    def why_not(_: Case) -> str:
        return "" if find_spec(module) else f"{module} is not installed"

    return why_not


def needs_mamba_ssm(case: Case) -> str:
    return needs("mamba_ssm")(case) or ("" if case.device == "cuda" else "mamba_ssm computes on a GPU only")


def needs_backend(operator: str, name: str) -> Callable[[Case], str]:
    """Reason why an operator has not that backend for such tensors."""

    def why_not(case: Case) -> str:
        state = ops.operator_backends(case.device, getattr(torch, case.dtype))[operator][name]
        return "" if state == "ready" else state

    return why_not


def why_not_huggingface(case: Case) -> str:
    missing = needs("transformers")(case)
    if not missing:
        from transformers.utils import logging

        logging.set_verbosity_error()  # it says at every start that compiled kernels are not installed
    return missing
