"""The selective scan of Mamba: a recurrence whose step size, input and output maps depend on the token."""

from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from alignmamba.errors import ShapeError
from alignmamba.ops.backends import Backend, chosen, exporting, without_autocast
from alignmamba.ops.fused_scan import ScanArguments, fused_scan, working_precision

# Bytes of states that one chunk aims at: small enough to stay in the cache of a laptop core, large enough to
# amortise the calls.
_CHUNK_BYTES = 4 * 2**20
_LONGEST_CHUNK = 64


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_final_state: Literal[False] = False,
    backend: Backend = "auto",
) -> Tensor: ...
@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_final_state: Literal[True],
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]: ...
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Run the state space recurrence of Mamba over time.

    With ``dt = softplus(delta + delta_bias)``, per channel and state::

        h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t
        y_t = C_t . h_t + D u_t,   then  y_t * silu(z_t)

    Memory grows with batch * time * channel, not with the state. Half precision runs in float32. What is not
    finite at one token reaches later ones and all gradients: zero masked content before the call.

    Args:
        u: Drive, (batch, time, channel), floating.
        delta: Step size before bias and softplus, (batch, time, channel).
        A: State matrix, (channel, state); negative entries decay.
        B: Input map, (batch, time, state).
        C: Output map, (batch, time, state).
        D: Skip weight, (channel).
        z: Gate, (batch, time, channel).
        delta_bias: Added to `delta`, (channel).
        delta_softplus: Whether softplus is applied to the biased step size.
        initial_state: State before the first token, (batch, channel, state); zero if not given.
        return_final_state: Whether the state after the last token is returned as well.
        backend: ``"auto"`` takes the fastest that can serve these tensors; one asked for by name is used or
            refused.

    Returns:
        Output (batch, time, channel) of the dtype of `u`; with `return_final_state` also the state (batch,
        channel, state), float32 or float64.

    Raises:
        ShapeError: If a tensor's shape, dtype or device does not fit `u`; the message names it.
        BackendError: If the named backend does not exist or cannot serve these tensors.

    Source:
        Gu & Dao, arXiv:2312.00752, section 3 and algorithm 2 (zero-order hold for A, Euler for B).
    """
    given = ScanArguments(u, delta, A, B, C, D, z, delta_bias, initial_state)
    _check(given)
    use = "exporting"
    if backend != "auto" or not exporting():
        refused = {} if initial_state is None else {"mamba_ssm": "it takes no initial state"}
        use = chosen("selective_scan", backend, u.device, u.dtype, refused)
    run = {"exporting": _exportable, "torch": _reference, "mamba_ssm": _mamba_ssm}.get(use, fused_scan)
    y, final_state = run(given, delta_softplus)
    return (y, final_state) if return_final_state else y


def selective_scan_step(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = True,
) -> tuple[Tensor, Tensor]:
    """Advance `selective_scan` by one token: arguments are its own, without the axis of time.

    Returns:
        Output (batch, channel) and the state after this token; `state`, the one before, is not modified.

    Raises:
        ShapeError: If a tensor's shape, dtype or device does not fit `u`.
    """
    y, state = selective_scan(
        u[:, None],
        delta[:, None],
        A,
        B[:, None],
        C[:, None],
        D,
        None if z is None else z[:, None],
        delta_bias,
        delta_softplus=delta_softplus,
        initial_state=state,
        return_final_state=True,
    )
    return y[:, 0], state


def _check(given: ScanArguments) -> None:
    u, A = given.u, given.A
    if u.ndim != 3 or not u.is_floating_point():
        raise ShapeError(
            f"u: expected floating (batch, time, channel), found {u.dtype} of shape {tuple(u.shape)}"
        )
    if A.ndim != 2:
        raise ShapeError(f"A: expected (channel, state), found shape {tuple(A.shape)}")
    batch, time, channel = u.shape
    state = A.shape[1]
    tokens, maps, vector = (batch, time, channel), (batch, time, state), (channel,)
    shapes = (tokens, tokens, (channel, state), maps, maps, vector, tokens, vector, (batch, channel, state))
    for name, tensor, shape in zip(given._fields, given, shapes, strict=True):
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ShapeError(
                f"{name}: expected shape {shape} beside u of shape {tuple(u.shape)}, found"
                f" {tuple(tensor.shape)}"
            )
        if not tensor.is_floating_point() or tensor.device != u.device:
            raise ShapeError(
                f"{name}: expected a real floating tensor on {u.device}, found {tensor.dtype} on"
                f" {tensor.device}"
            )


def _reference(given: ScanArguments, softplus: bool) -> tuple[Tensor, Tensor]:
    """The definition, in PyTorch."""
    u, delta, A, B, C, state = _discretised(given, softplus)
    with without_autocast(u.device):
        y, final_state = _Recurrence.apply(u, delta, A, B, C, state)  # type: ignore[no-untyped-call]
    return _skipped_and_gated(y.transpose(0, 1), given), final_state


def _discretised(
    given: ScanArguments, softplus: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Drive, step size, A, B, C and initial state in the precision of the recurrence."""
    dtype = working_precision(given.u)
    u, delta, A, B, C = (tensor.to(dtype) for tensor in given[:5])
    if given.delta_bias is not None:
        delta = delta + given.delta_bias.to(dtype)
    if softplus:
        delta = F.softplus(delta)
    state = (
        u.new_zeros(u.shape[0], *A.shape) if given.initial_state is None else given.initial_state.to(dtype)
    )
    return u, delta, A, B, C, state


def _skipped_and_gated(y: Tensor, given: ScanArguments) -> Tensor:
    if given.D is not None:
        y = y + given.D.to(y.dtype) * given.u.to(y.dtype)
    if given.z is not None:
        y = y * F.silu(given.z.to(y.dtype))
    return y.to(given.u.dtype)


def _exportable(given: ScanArguments, softplus: bool) -> tuple[Tensor, Tensor]:
    """The recurrence as PyTorch's higher-order scan, which exports with a dynamic length, to ONNX too."""
    from torch._higher_order_ops.scan import scan

    u, delta, A, B, C, state = _discretised(given, softplus)

    def step(state: Tensor, token: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        drive, delta, B, C = token
        state = torch.exp(delta.unsqueeze(-1) * A) * state + drive.unsqueeze(-1) * B.unsqueeze(1)
        return state, (state * C.unsqueeze(1)).sum(-1)

    tokens = tuple(tensor.transpose(0, 1) for tensor in (delta * u, delta, B, C))
    final_state, y = scan(step, state, tokens, dim=0)
    return _skipped_and_gated(y.transpose(0, 1), given), final_state


def _mamba_ssm(given: ScanArguments, softplus: bool) -> tuple[Tensor, Tensor]:
    """The CUDA kernel of mamba-ssm, which lays time out last and takes weights in float32."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, B, C, z = (
        None if tensor is None else tensor.transpose(1, 2).contiguous()
        for tensor in (given.u, given.delta, given.B, given.C, given.z)
    )
    A, D, bias = (
        None if tensor is None else tensor.float() for tensor in (given.A, given.D, given.delta_bias)
    )
    y, state = selective_scan_fn(
        u, delta, A, B, C, D, z, bias, delta_softplus=softplus, return_last_state=True
    )
    return y.transpose(1, 2), state


class _Recurrence(torch.autograd.Function):
    """h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t;  y_t = C_t . h_t, with states recomputed chunk by chunk
    in the backward pass.

    Inside and in the output, time comes first, so that each step reads and writes contiguous memory.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        u, delta, B, C = (tensor.transpose(0, 1).contiguous() for tensor in (u, delta, B, C))
        starts = range(0, u.shape[0], _chunk_length(state))
        checkpoints = state.new_empty(len(starts), *state.shape)
        y = torch.empty_like(u)
        for number, start in enumerate(starts):
            chunk = slice(start, start + starts.step)
            checkpoints[number] = state
            _, states = _chunk_states(u[chunk], delta[chunk], A, B[chunk], state)
            y[chunk] = (states @ C[chunk].unsqueeze(-1)).squeeze(-1)
            state = states[-1]
        ctx.save_for_backward(u, delta, A, B, C, checkpoints)
        return y, state.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_state: Tensor) -> tuple[Tensor, ...]:
        # A backward pass started under autocast would run the products below in half precision.
        with without_autocast(grad_y.device):
            return _gradients(ctx.saved_tensors, grad_y.contiguous(), grad_state)


def _gradients(saved: tuple[Tensor, ...], grad_y: Tensor, grad_state: Tensor) -> tuple[Tensor, ...]:
    u, delta, A, B, C, checkpoints = saved
    grad_u, grad_delta, grad_B, grad_C = (torch.empty_like(tensor) for tensor in (u, delta, B, C))
    grad_A = torch.zeros_like(A)
    starts = range(0, u.shape[0], _chunk_length(grad_state))
    for number, start in reversed(list(enumerate(starts))):
        chunk = slice(start, start + starts.step)
        decay, states = _chunk_states(u[chunk], delta[chunk], A, B[chunk], checkpoints[number])
        grad_C[chunk] = (grad_y[chunk].unsqueeze(-2) @ states).squeeze(-2)

        # Gradient at every state: what y_t asks of it, plus what the later states send back through their
        # decay.
        grad_states = grad_y[chunk].unsqueeze(-1) * C[chunk].unsqueeze(-2)
        grad_states[-1] += grad_state
        for step in range(len(grad_states) - 2, -1, -1):
            grad_states[step].addcmul_(decay[step + 1], grad_states[step + 1])
        grad_state = decay[0] * grad_states[0]

        through_input = (grad_states @ B[chunk].unsqueeze(-1)).squeeze(-1)
        grad_u[chunk] = through_input * delta[chunk]
        grad_B[chunk] = ((delta[chunk] * u[chunk]).unsqueeze(-2) @ grad_states).squeeze(-2)

        # d h_t / d (delta_t A) = decay_t h_{t-1}
        grad_states[0] *= checkpoints[number]
        grad_states[1:] *= states[:-1]
        grad_exponent = grad_states.mul_(decay)
        grad_delta[chunk] = through_input * u[chunk] + (grad_exponent * A).sum(-1)
        grad_A += (grad_exponent * delta[chunk].unsqueeze(-1)).sum((0, 1))
    grad_u, grad_delta, grad_B, grad_C = (x.transpose(0, 1) for x in (grad_u, grad_delta, grad_B, grad_C))
    return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_state


def _chunk_length(state: Tensor) -> int:
    """Tokens whose states, (batch, channel, state) each, are held at once.

    One state per chunk is kept for the backward pass: with at least as many tokens as a state is wide, these
    take no more than `u`.
    """
    bytes_per_token = max(1, state.numel() * state.element_size())
    return max(1, state.shape[-1], min(_LONGEST_CHUNK, _CHUNK_BYTES // bytes_per_token))


def _chunk_states(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states of one chunk, (time, batch, channel, state) each, from the state before it."""
    decay = torch.exp(delta.unsqueeze(-1) * A)
    states = (delta * u).unsqueeze(-1) * B.unsqueeze(-2)
    for step in range(len(states)):
        state = states[step].addcmul_(decay[step], state)
    return decay, states
