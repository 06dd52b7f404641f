"""Subjects of `alignmamba bench`: for each subject, this library and whom it is compared with."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from alignmamba import ops
from alignmamba.recipes.bench import backbones, fusion, operators
from alignmamba.recipes.bench.case import (
    Built,
    Case,
    Peer,
    linear_memory,
    needs,
    needs_backend,
    needs_mamba_ssm,
    nothing,
    why_not_huggingface,
)


def _backends(
    operator: str, peer: Callable[..., Peer], of: Callable[[str], Any], reference: str = "the reference"
) -> dict[str, Peer]:
    """One operator of this library by each of its backends; `of` makes it of the name of one."""
    return {
        name: peer(
            f"{operator}, backend {name}{f': {reference}' if name == 'torch' else ''}",
            of(name),
            why_not=nothing if name == "torch" else needs_backend(operator, name),
            same=True,
            by_name_only=name != "torch",
        )
        for name in ("torch", "numba", "triton")
    }


def _scan(what: str, scan: Callable[..., Tensor], **rest: Any) -> Peer:
    return Peer(what=what, build=operators.scan(scan), flops=operators.selective_scan_flops, **rest)


def _match(what: str, build: Callable[[Case], Built], **rest: Any) -> Peer:
    return Peer(what=what, build=build, **{"flops": operators.pairs_flops, **rest})


def _mmd(what: str, discrepancy: Callable[..., Tensor], **rest: Any) -> Peer:
    return Peer(what=what, build=operators.mmd(discrepancy), **{"flops": operators.mmd_flops, **rest})


def _block(what: str, build: Callable[[Case], Built], **rest: Any) -> Peer:
    return Peer(what=what, build=build, **{"flops": backbones.block_flops, **rest})


def _backbone(what: str, build: Callable[[Case], Built], **rest: Any) -> Peer:
    return Peer(what=what, build=build, **{"flops": backbones.mamba_flops, **rest})


def _mult(attention: str, lengths: Callable[[Case], list[int]], what: str, **rest: Any) -> Peer:
    flops = partial(_crossmodal_flops, lengths)
    return Peer(what=what, build=backbones.mult(attention, lengths), flops=flops, **rest)


def _crossmodal_flops(lengths: Callable[[Case], list[int]], case: Case) -> float:
    return backbones.crossmodal_flops(case, lengths(case))


def _whole(what: str, stack: Callable[..., Any], matching: fusion.Matching = "content", **rest: Any) -> Peer:
    """The whole fusion before that backbone."""
    flops = fusion.whole_flops(windowed=matching == "windowed")
    return Peer(what=what, build=fusion.whole(stack, matching=matching), flops=flops, **rest)


def _fused(what: str, stack: Callable[..., Any], flops: Callable[[Case], float], **rest: Any) -> Peer:
    """A backbone over the tokens of all modalities in one sequence."""
    build = fusion.on_fused(backbones.masked(stack))
    return Peer(what=what, build=build, flops=fusion.of_fused(flops), **rest)


_LINEAR = fusion.of_fused(linear_memory)
_NEEDS_MAMBAPY = needs("mambapy")
_HUGGINGFACE_STACK = backbones.stack_of(backbones.huggingface_block)
_MAMBA_SSM_STACK = backbones.stack_of(backbones.mamba_ssm_block)

# Subject -> peers; the first is this library, and the others are compared with it.
SUBJECTS: dict[str, dict[str, Peer]] = {
    "scan": {
        "alignmamba": _scan("selective_scan, backend auto", ops.selective_scan),
        **_backends(
            "selective_scan",
            _scan,
            lambda name: partial(ops.selective_scan, backend=name),
            reference="the reference, in chunks",
        ),
        "loop": _scan(
            "one token after the other in PyTorch", operators.loop, memory=operators.loop_memory, same=True
        ),
        "mambapy": _scan(
            "mambapy's parallel scan with its discretisation, skip and gate; holds the states of all tokens",
            operators.mambapy_scan,
            memory=operators.tree_memory,
            why_not=_NEEDS_MAMBAPY,
            same=True,
        ),
        "huggingface": _scan(
            "transformers' scan without compiled kernels: a loop over tokens after discretising all of them",
            operators.huggingface_scan,
            memory=operators.states_memory,
            why_not=operators.why_not_huggingface_scan,
            same=True,
        ),
        "mamba-ssm": _scan(
            "mamba-ssm's CUDA kernel, transposes to its layout included",
            operators.mamba_ssm_scan,
            why_not=needs_mamba_ssm,
            same=True,
        ),
    },
    "match": {
        "alignmamba": _match("match_tokens, exact: never a matrix of all pairs", operators.match()),
        "windowed": _match(
            "match_tokens within --window tokens of the place in time",
            operators.match(window=operators.window_of),
            flops=operators.window_flops,
        ),
        **_backends("match_tokens", _match, lambda name: operators.match(backend=name)),
        "dense": _match(
            "normalise, one matrix product, maximum: the matrix in memory",
            operators.dense_match,
            memory=operators.pairs_memory,
            same=True,
        ),
        "product": _match(
            "one matrix product of that shape into memory that is there already, and nothing else",
            operators.one_product,
            memory=operators.pairs_memory,
        ),
        "earth-mover": _match(
            "POT's exact transport, both marginals kept: another problem",
            operators.earth_mover,
            why_not=operators.why_not_earth_mover,
            by_name_only=True,
        ),
    },
    "mmd": {
        "alignmamba": _mmd("mmd, exact", operators.exact_mmd),
        "landmarks": _mmd(
            "mmd by --landmarks tokens (Nystrom): an approximation",
            operators.landmark_mmd,
            flops=operators.landmark_flops,
        ),
        **_backends("mmd", _mmd, lambda name: partial(operators.exact_mmd, backend=name)),
        "dense": _mmd(
            "three kernel matrices in memory",
            operators.dense_mmd,
            memory=operators.dense_mmd_memory,
            same=True,
        ),
    },
    "block": {
        "alignmamba": _block("MambaBlock", backbones.plain(backbones.mamba_block)),
        "products": _block(
            "the block's own matrix products and nothing else",
            backbones.products(backbones.single),
            flops=backbones.products_flops,
        ),
        "transformer-fused": _block(
            "one pre-norm Transformer layer, fused attention",
            backbones.masked(backbones.transformer_layer),
            flops=lambda case: backbones.transformer_flops(case) / case.depth,
        ),
        "mambapy": _block(
            "mambapy's MambaBlock",
            backbones.plain(backbones.mambapy_block),
            memory=operators.tree_memory,
            why_not=_NEEDS_MAMBAPY,
        ),
        "huggingface": _block(
            "transformers' MambaMixer",
            backbones.plain(backbones.huggingface_block),
            memory=operators.states_memory,
            why_not=why_not_huggingface,
        ),
        "mamba-ssm": _block(
            "mamba-ssm's Mamba block", backbones.plain(backbones.mamba_ssm_block), why_not=needs_mamba_ssm
        ),
    },
    "backbone": {
        "alignmamba": _backbone("MambaStack", backbones.masked(backbones.mamba_stack)),
        "products": _backbone(
            "the stack's own matrix products and nothing else",
            backbones.products(backbones.every_layer),
            flops=backbones.depth_times(backbones.products_flops),
        ),
        "transformer-fused": _backbone(
            "single-stream Transformer, fused attention",
            backbones.masked(backbones.transformer("fused")),
            flops=backbones.transformer_flops,
        ),
        "transformer-materialised": _backbone(
            "single-stream Transformer, matrix of weights in memory",
            backbones.masked(backbones.transformer("materialised")),
            flops=backbones.transformer_flops,
            memory=backbones.single_stream_memory,
        ),
        "mult-fused": _mult(
            "fused", backbones.thirds, "MulT, the tokens in three streams of a third each, fused attention"
        ),
        "mult-materialised": _mult(
            "materialised",
            backbones.thirds,
            "MulT, the tokens in three streams of a third each, matrices of weights in memory",
            memory=backbones.multi_stream_memory,
        ),
        "mambapy": _backbone(
            "mambapy's Mamba",
            backbones.plain(backbones.mambapy_stack),
            memory=backbones.tree_stack_memory,
            why_not=_NEEDS_MAMBAPY,
        ),
        "huggingface": _backbone(
            "transformers' MambaMixer in a pre-norm residual stack",
            backbones.plain(_HUGGINGFACE_STACK),
            memory=backbones.states_stack_memory,
            why_not=why_not_huggingface,
        ),
        "mamba-ssm": _backbone(
            "mamba-ssm's block in a pre-norm residual stack",
            backbones.plain(_MAMBA_SSM_STACK),
            why_not=needs_mamba_ssm,
        ),
    },
    "model": {
        "alignmamba": _whole(
            "whole fusion: exact alignment of two modalities by content, interleaving, Mamba; in training"
            " the MMD",
            backbones.mamba_stack,
            memory=_LINEAR,
        ),
        "default": _whole(
            "the same with the default preset's time prior in the cost: exact too, but few pairs can win"
            " (GFLOP: an upper bound)",
            backbones.mamba_stack,
            "default",
            memory=_LINEAR,
        ),
        "windowed": _whole(
            "the same with the matching within --window; in training the MMD by --landmarks",
            backbones.mamba_stack,
            "windowed",
            memory=_LINEAR,
        ),
        "transformer-fused": _fused(
            "single-stream Transformer over the tokens of all three modalities, fused attention",
            backbones.transformer("fused"),
            backbones.transformer_flops,
            memory=_LINEAR,
        ),
        "transformer-materialised": _fused(
            "single-stream Transformer over the tokens of all three modalities, matrix of weights in memory",
            backbones.transformer("materialised"),
            backbones.transformer_flops,
            memory=fusion.of_fused(backbones.single_stream_memory),
        ),
        "mult-fused": _mult(
            "fused", fusion.three, "multi-stream Transformer (MulT), fused attention", memory=_LINEAR
        ),
        "mult-materialised": _mult(
            "materialised",
            fusion.three,
            "multi-stream Transformer (MulT), matrices of weights in memory",
            memory=fusion.of_fused(backbones.multi_stream_memory),
        ),
        "mambapy": _whole(
            "the same exact alignment before mambapy's Mamba",
            backbones.without_mask(backbones.mambapy_stack),
            memory=fusion.of_fused(backbones.tree_stack_memory),
            why_not=_NEEDS_MAMBAPY,
        ),
        "huggingface": _whole(
            "the same exact alignment before transformers' MambaMixer",
            backbones.without_mask(_HUGGINGFACE_STACK),
            memory=fusion.of_fused(backbones.states_stack_memory),
            why_not=why_not_huggingface,
        ),
        "mamba-ssm": _whole(
            "the same exact alignment before mamba-ssm's blocks",
            backbones.without_mask(_MAMBA_SSM_STACK),
            why_not=needs_mamba_ssm,
        ),
        "match": Peer(
            what="stage: exact matching of both modalities",
            build=fusion.match_stage("content"),
            flops=fusion.sources_times(operators.pairs_flops),
        ),
        "match-windowed": Peer(
            what="stage: matching of both modalities within --window",
            build=fusion.match_stage("windowed"),
            flops=fusion.sources_times(operators.window_flops),
        ),
        "transport": Peer(
            what="stage: transport of both modalities",
            build=fusion.transport_stage,
            flops=fusion.transport_flops,
        ),
        "mmd": Peer(
            what="stage: exact MMD of both pairs, forward and backward: training only",
            build=fusion.mmd_stage(operators.exact_mmd),
            flops=fusion.in_training(fusion.sources_times(operators.mmd_flops)),
        ),
        "mmd-landmarks": Peer(
            what="stage: MMD of both pairs by --landmarks, forward and backward: training only",
            build=fusion.mmd_stage(operators.landmark_mmd),
            flops=fusion.in_training(fusion.sources_times(operators.landmark_flops)),
        ),
        "interleave": Peer(what="stage: interleaving", build=fusion.interleave_stage, flops=lambda _: 0.0),
        "backbone": _fused(
            "stage: Mamba over the interleaved tokens",
            backbones.mamba_stack,
            backbones.mamba_flops,
            memory=_LINEAR,
        ),
    },
}

# Peers of the subject `model` that are this library's own: what growth with length is told of.
OWN: Mapping[str, tuple[str, ...]] = {
    "scan": ("alignmamba",),
    "match": ("alignmamba", "windowed"),
    "mmd": ("alignmamba", "landmarks"),
    "block": ("alignmamba",),
    "backbone": ("alignmamba",),
    "model": (
        "alignmamba",
        "windowed",
        "match",
        "match-windowed",
        "transport",
        "mmd",
        "mmd-landmarks",
        "interleave",
        "backbone",
    ),
}

# Tokens at which a subject is measured where none are given.
LENGTHS: Mapping[str, tuple[int, ...]] = {
    "scan": (1024,),
    "match": (1600, 6400),
    "mmd": (800, 3200),
    "block": (1600, 6400),
    "backbone": (768, 3072),
    "model": (800, 1600),
}
