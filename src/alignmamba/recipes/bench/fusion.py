"""Builders for the whole fusion of three modalities, and its stages."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from alignmamba import ops
from alignmamba.nn.alignment import LocalAlignmentConfig, Tokens, align
from alignmamba.recipes.bench import backbones, operators
from alignmamba.recipes.bench.case import NUM_MODALITIES, Built, Case, Draw, computation, module_on


def fused_case(case: Case) -> Case:
    """The one sequence that holds all modalities."""
    return case.model_copy(update={"length": NUM_MODALITIES * case.length})


def three(case: Case) -> list[int]:
    return [case.length] * NUM_MODALITIES


def modalities(draw: Draw, case: Case) -> list[Tokens]:
    """The sources, then the anchor."""
    mask = draw.mask(case.batch, case.length)
    times = torch.full(mask.shape, torch.nan, dtype=torch.float64, device=mask.device)
    return [
        Tokens(draw.normal(case.batch, case.length, case.d_model), mask, times) for _ in range(NUM_MODALITIES)
    ]


Matching = Literal["content", "default", "windowed"]
"""``content``: the paper's cost, every pair compared; ``default``: with the default preset's time prior,
exact too; ``windowed``."""


def matching_of(kind: Matching, case: Case) -> LocalAlignmentConfig:
    if kind == "default":
        return LocalAlignmentConfig()
    return LocalAlignmentConfig(time_weight=0.0, window=case.window if kind == "windowed" else None)


def whole(stack: Callable[[Case], nn.Module], *, matching: Matching = "content") -> Callable[[Case], Built]:
    """Alignment, interleaving, backbone; in training the MMD too, by landmarks if `windowed`."""

    def build(case: Case) -> Built:
        draw = Draw(case)
        module = draw.module(stack(case))
        *sources, anchor = modalities(draw, case)
        local = matching_of(matching, case)
        mask = anchor.mask.repeat_interleave(NUM_MODALITIES, dim=1)
        discrepancy = operators.landmark_mmd if matching == "windowed" else operators.exact_mmd

        def forward() -> Tensor | list[Tensor]:
            aligned = [align(source, anchor, local)[0] for source in sources]
            out: Tensor = module(ops.interleave([*aligned, anchor.x]), mask)
            if not case.training:
                return out
            return [out, *(discrepancy(x, anchor.x, anchor.mask, anchor.mask, case) for x in aligned)]

        shape = (case.batch, NUM_MODALITIES * case.length, case.d_model)
        losses = [(case.batch,)] * len(sources) if case.training else []
        return module_on(draw, module, [*(source.x for source in sources), anchor.x], forward, shape, *losses)

    return build


def on_fused(build: Callable[[Case], Built]) -> Callable[[Case], Built]:
    """A backbone over the tokens of all modalities in one sequence."""
    return lambda case: build(fused_case(case))


def match_stage(matching: Matching) -> Callable[[Case], Built]:
    def build(case: Case) -> Built:
        draw = Draw(case.model_copy(update={"training": False}))
        *sources, anchor = modalities(draw, case)
        local = matching_of(matching, case)
        options: dict[str, Any] = {"window": local.window, "time_weight": local.time_weight}
        return Built(
            call=lambda: [
                ops.match_tokens(source.x, anchor.x, source.mask, anchor.mask, **options)
                for source in sources
            ]
        )

    return build


def transport_stage(case: Case) -> Built:
    draw = Draw(case)
    *sources, anchor = modalities(draw, case)
    index = torch.arange(case.length, device=case.device).flip(0).expand(case.batch, -1).contiguous()
    mass = LocalAlignmentConfig().mass

    def forward() -> list[Tensor]:
        return [
            ops.transport(source.x, index, source.mask, anchor.mask.shape[1], mass=mass) for source in sources
        ]

    leaves = [source.x for source in sources]
    return Built(call=computation(forward, leaves, *(tuple(leaf.shape) for leaf in leaves)))


def mmd_stage(discrepancy: Callable[..., Tensor]) -> Callable[[Case], Built]:
    def build(case: Case) -> Built:
        calls = [
            operators.mmd(discrepancy, always_training=True)(case).call for _ in range(NUM_MODALITIES - 1)
        ]
        return Built(call=lambda: [call() for call in calls])

    return build


def interleave_stage(case: Case) -> Built:
    draw = Draw(case)
    streams = [draw.normal(case.batch, case.length, case.d_model) for _ in range(NUM_MODALITIES)]
    shape = (case.batch, NUM_MODALITIES * case.length, case.d_model)
    return Built(call=computation(lambda: ops.interleave(streams), streams, shape))


def sources_times(flops: Callable[[Case], float]) -> Callable[[Case], float]:
    return lambda case: (NUM_MODALITIES - 1) * flops(case)


def in_training(flops: Callable[[Case], float]) -> Callable[[Case], float]:
    return lambda case: flops(case.model_copy(update={"training": True}))


def transport_flops(case: Case) -> float:
    return case.passes * (NUM_MODALITIES - 1) * case.tokens * case.d_model


def whole_flops(*, windowed: bool) -> Callable[[Case], float]:
    matched, compared = (
        (operators.window_flops, operators.landmark_flops)
        if windowed
        else (operators.pairs_flops, operators.mmd_flops)
    )

    def flops(case: Case) -> float:
        loss = (NUM_MODALITIES - 1) * compared(case) if case.training else 0.0
        return (
            (NUM_MODALITIES - 1) * matched(case)
            + transport_flops(case)
            + backbones.mamba_flops(fused_case(case))
            + loss
        )

    return flops


def of_fused(estimate: Callable[[Case], float]) -> Callable[[Case], float]:
    return lambda case: estimate(fused_case(case))
