"""Builders for the operators: selective scan, matching, MMD, and their rivals."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from alignmamba import ops
from alignmamba.evaluation.computing_cost import matmul_flops, scan_flops
from alignmamba.recipes.bench.case import Built, Case, Draw, computation, needs, why_not_huggingface

# Scan


def scan(operator: Callable[..., Tensor]) -> Callable[[Case], Built]:
    """A selective scan as a Mamba block calls it: softplus of the biased step size, skip and gate too."""

    def build(case: Case) -> Built:
        draw = Draw(case)
        wide, narrow = (case.batch, case.length, case.inner), (case.batch, case.length, case.d_state)
        arguments = (
            draw.normal(*wide),
            draw.normal(*wide, shift=-3.0),
            draw.decay(case.inner, case.d_state),
            draw.normal(*narrow),
            draw.normal(*narrow),
            draw.normal(case.inner),
            draw.normal(*wide),
            draw.normal(case.inner),
        )
        return Built(call=computation(partial(operator, *arguments), arguments, wide))

    return build


def loop(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
) -> Tensor:
    """The recurrence as the paper writes it, token by token."""
    step = F.softplus(delta + delta_bias)
    state = A.new_zeros(len(u), *A.shape)
    outputs = []
    for time in range(u.shape[1]):
        state = (
            torch.exp(step[:, time, :, None] * A) * state
            + (step[:, time] * u[:, time]).unsqueeze(-1) * B[:, time, None]
        )
        outputs.append((state @ C[:, time, :, None].to(state.dtype)).squeeze(-1))
    return (torch.stack(outputs, 1) + D * u) * F.silu(z)


def mambapy_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
) -> Tensor:
    """The operations of mambapy's ``MambaBlock.selective_scan`` and of the lines around it."""
    from mambapy.pscan import pscan

    step = F.softplus(delta + delta_bias)
    drive = step.unsqueeze(-1) * B.unsqueeze(2) * u.unsqueeze(-1)
    states = pscan(torch.exp(step.unsqueeze(-1) * A), drive)
    y = (states @ C.unsqueeze(-1)).squeeze(3) + D * u
    return cast(Tensor, y * F.silu(z))


def huggingface_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
) -> Tensor:
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    first = (tensor.transpose(1, 2) for tensor in (u, delta))
    second = (tensor.transpose(1, 2) for tensor in (B, C))
    y = mamba_selective_scan(
        *first, A, *second, D=D, z=z.transpose(1, 2), delta_bias=delta_bias, delta_softplus=True
    )
    return cast(Tensor, y.transpose(1, 2))


def why_not_huggingface_scan(case: Case) -> str:
    missing = why_not_huggingface(case)
    if missing:
        return missing
    from transformers.models.mamba import modeling_mamba

    return (
        ""
        if hasattr(modeling_mamba, "mamba_selective_scan")
        else "this version of transformers has no scan apart from its block"
    )


def mamba_ssm_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
) -> Tensor:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, B, C, z = (tensor.transpose(1, 2).contiguous() for tensor in (u, delta, B, C, z))
    y = selective_scan_fn(u, delta, A, B, C, D.float(), z, delta_bias.float(), delta_softplus=True)
    return cast(Tensor, y.transpose(1, 2))


def selective_scan_flops(case: Case) -> float:
    return case.passes * scan_flops(case.tokens, case.inner, case.d_state)


def tree_memory(case: Case) -> float:
    """States of all tokens, up to the next power of two, in some six copies, twice that with gradients."""
    padded: int = 2 ** math.ceil(math.log2(max(2, case.length)))
    return 4.0 * case.batch * padded * case.inner * case.d_state * (12 if case.training else 6)


def loop_memory(case: Case) -> float:
    """Discretised tensors of all tokens; with gradients what each step keeps."""
    return 4.0 * case.tokens * case.inner * (case.d_state * 5 if case.training else 6)


def states_memory(case: Case) -> float:
    return 4.0 * case.tokens * case.inner * case.d_state * (8 if case.training else 4)


# Matching and MMD


def sides(case: Case, *, shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two sets of tokens and their masks; the second is moved by `shift`."""
    draw = Draw(case)
    shape = (case.batch, case.length, case.d_model)
    mask = draw.mask(case.batch, case.length)
    return draw.normal(*shape), draw.normal(*shape, shift=shift), mask, mask


def match(**options: Any) -> Callable[[Case], Built]:
    """Similarity of `ops.match_tokens` by content; an option may be a function of the case."""

    def build(case: Case) -> Built:
        given = sides(case.model_copy(update={"training": False}))
        chosen = {name: option(case) if callable(option) else option for name, option in options.items()}
        return Built(call=lambda: ops.match_tokens(*given, **chosen)[1])

    return build


def window_of(case: Case) -> int:
    return case.window


def dense_match(case: Case) -> Built:
    source, anchor, _, _ = sides(case.model_copy(update={"training": False}))

    def match() -> Tensor:
        similarity, index = (F.normalize(source, dim=-1) @ F.normalize(anchor, dim=-1).transpose(1, 2)).max(2)
        del index
        return similarity

    return Built(call=match)


def one_product(case: Case) -> Built:
    source, anchor, _, _ = sides(case.model_copy(update={"training": False}))
    # written to, or it would not be resident yet
    out = source.new_empty(case.batch, case.length, case.length).fill_(0)
    return Built(call=lambda: torch.bmm(source, anchor.transpose(1, 2), out=out))


def earth_mover(case: Case) -> Built:
    import ot

    source, anchor, _, _ = sides(case.model_copy(update={"training": False}))
    costs = (
        (1 - F.normalize(source, dim=-1) @ F.normalize(anchor, dim=-1).transpose(1, 2)).double().cpu().numpy()
    )
    return Built(call=lambda: [ot.emd([], [], cost) for cost in costs])


EARTH_MOVER_TOKENS = 512


def why_not_earth_mover(case: Case) -> str:
    missing = needs("ot")(case)
    too_long = (
        f"its time is cubic: measured up to {EARTH_MOVER_TOKENS} tokens"
        if case.length > EARTH_MOVER_TOKENS
        else ""
    )
    return missing or too_long


def pairs_flops(case: Case) -> float:
    return matmul_flops(case.tokens, case.d_model, case.length)


def window_flops(case: Case) -> float:
    return matmul_flops(case.tokens, case.d_model, min(case.length, 2 * case.window + 1))


def pairs_memory(case: Case) -> float:
    """The matrix of all pairs, once normalised or scored, once as it came."""
    return 2 * 4.0 * case.tokens * case.length


def mmd(discrepancy: Callable[..., Tensor], *, always_training: bool = False) -> Callable[[Case], Built]:
    """MMD^2 of two sets, the second shifted, at a bandwidth where a kernel entry is about 1/e."""

    def build(case: Case) -> Built:
        if always_training:
            case = case.model_copy(update={"training": True})
        x, y, x_mask, y_mask = sides(case, shift=0.5)
        forward = partial(discrepancy, x, y, x_mask, y_mask, case)
        return Built(call=computation(forward, (x, y), (case.batch,)))

    return build


def bandwidth(case: Case) -> float:
    return math.sqrt(case.d_model)


def exact_mmd(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, case: Case, **options: Any) -> Tensor:
    return ops.mmd(x, y, x_mask, y_mask, bandwidth=bandwidth(case), **options)


def landmark_mmd(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor, case: Case) -> Tensor:
    return exact_mmd(x, y, x_mask, y_mask, case, landmarks=case.landmarks)


def dense_mmd(x: Tensor, y: Tensor, _x_mask: Tensor, _y_mask: Tensor, case: Case) -> Tensor:
    """Three kernel matrices in memory, gradients by autograd."""
    scale = 0.5 / bandwidth(case) ** 2

    def mean(a: Tensor, b: Tensor) -> Tensor:
        squares = a.square().sum(2).unsqueeze(2) + b.square().sum(2).unsqueeze(1)
        return torch.exp(-scale * torch.baddbmm(squares, a, b.transpose(1, 2), alpha=-2).clamp(min=0)).mean(
            (1, 2)
        )

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


def mmd_flops(case: Case) -> float:
    return case.passes * 3 * (pairs_flops(case) + 6 * case.tokens * case.length)


def landmark_flops(case: Case) -> float:
    return case.passes * 2 * matmul_flops(case.tokens, case.d_model + case.landmarks, case.landmarks)


def dense_mmd_memory(case: Case) -> float:
    return 4.0 * case.tokens * case.length * (9 if case.training else 3)
