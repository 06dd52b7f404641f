"""Subjects of `alignmamba bench`: for each subject, this library and whom it is compared with."""

from collections.abc import Mapping
from functools import partial

from alignmamba import ops
from alignmamba.recipes.bench import backbones, fusion, operators
from alignmamba.recipes.bench.case import (
    Peer,
    linear_memory,
    needs,
    needs_backend,
    needs_mamba_ssm,
    why_not_huggingface,
)

# Subject -> peers; the first is this library, and the others are compared with it.
SUBJECTS: dict[str, dict[str, Peer]] = {
    "scan": {
        "alignmamba": Peer(
            what="selective_scan, backend auto",
            build=operators.scan(ops.selective_scan),
            flops=operators.selective_scan_flops,
        ),
        "torch": Peer(
            what="selective_scan, backend torch: the reference, in chunks",
            build=operators.scan(partial(ops.selective_scan, backend="torch")),
            flops=operators.selective_scan_flops,
            same=True,
        ),
        "numba": Peer(
            what="selective_scan, backend numba",
            build=operators.scan(partial(ops.selective_scan, backend="numba")),
            flops=operators.selective_scan_flops,
            why_not=needs_backend("selective_scan", "numba"),
            same=True,
            by_name_only=True,
        ),
        "triton": Peer(
            what="selective_scan, backend triton",
            build=operators.scan(partial(ops.selective_scan, backend="triton")),
            flops=operators.selective_scan_flops,
            why_not=needs_backend("selective_scan", "triton"),
            same=True,
            by_name_only=True,
        ),
        "loop": Peer(
            what="one token after the other in PyTorch",
            build=operators.scan(operators.loop),
            flops=operators.selective_scan_flops,
            memory=operators.loop_memory,
            same=True,
        ),
        "mambapy": Peer(
            what=(
                "mambapy's parallel scan with its discretisation, skip and gate; holds the states of all"
                " tokens"
            ),
            build=operators.scan(operators.mambapy_scan),
            flops=operators.selective_scan_flops,
            memory=operators.tree_memory,
            why_not=needs("mambapy"),
            same=True,
        ),
        "huggingface": Peer(
            what=(
                "transformers' scan without compiled kernels: a loop over tokens after discretising all of"
                " them"
            ),
            build=operators.scan(operators.huggingface_scan),
            flops=operators.selective_scan_flops,
            memory=operators.states_memory,
            why_not=operators.why_not_huggingface_scan,
            same=True,
        ),
        "mamba-ssm": Peer(
            what="mamba-ssm's CUDA kernel, transposes to its layout included",
            build=operators.scan(operators.mamba_ssm_scan),
            flops=operators.selective_scan_flops,
            why_not=needs_mamba_ssm,
            same=True,
        ),
    },
    "match": {
        "alignmamba": Peer(
            what="match_tokens, exact: never a matrix of all pairs",
            build=operators.match(),
            flops=operators.pairs_flops,
        ),
        "windowed": Peer(
            what="match_tokens within --window tokens of the place in time",
            build=operators.match(window=operators.window_of),
            flops=operators.window_flops,
        ),
        "torch": Peer(
            what="match_tokens, backend torch: the reference",
            build=operators.match(backend="torch"),
            flops=operators.pairs_flops,
            same=True,
        ),
        "numba": Peer(
            what="match_tokens, backend numba",
            build=operators.match(backend="numba"),
            flops=operators.pairs_flops,
            why_not=needs_backend("match_tokens", "numba"),
            same=True,
            by_name_only=True,
        ),
        "triton": Peer(
            what="match_tokens, backend triton",
            build=operators.match(backend="triton"),
            flops=operators.pairs_flops,
            why_not=needs_backend("match_tokens", "triton"),
            same=True,
            by_name_only=True,
        ),
        "dense": Peer(
            what="normalise, one matrix product, maximum: the matrix in memory",
            build=operators.dense_match,
            flops=operators.pairs_flops,
            memory=operators.pairs_memory,
            same=True,
        ),
        "product": Peer(
            what="one matrix product of that shape into memory that is there already, and nothing else",
            build=operators.one_product,
            flops=operators.pairs_flops,
            memory=operators.pairs_memory,
        ),
        "earth-mover": Peer(
            what="POT's exact transport, both marginals kept: another problem",
            build=operators.earth_mover,
            flops=operators.pairs_flops,
            why_not=operators.why_not_earth_mover,
            by_name_only=True,
        ),
    },
    "mmd": {
        "alignmamba": Peer(
            what="mmd, exact", build=operators.mmd(operators.exact_mmd), flops=operators.mmd_flops
        ),
        "landmarks": Peer(
            what="mmd by --landmarks tokens (Nystrom): an approximation",
            build=operators.mmd(operators.landmark_mmd),
            flops=operators.landmark_flops,
        ),
        "torch": Peer(
            what="mmd, backend torch: the reference",
            build=operators.mmd(partial(operators.exact_mmd, backend="torch")),
            flops=operators.mmd_flops,
            same=True,
        ),
        "numba": Peer(
            what="mmd, backend numba",
            build=operators.mmd(partial(operators.exact_mmd, backend="numba")),
            flops=operators.mmd_flops,
            why_not=needs_backend("mmd", "numba"),
            same=True,
            by_name_only=True,
        ),
        "triton": Peer(
            what="mmd, backend triton",
            build=operators.mmd(partial(operators.exact_mmd, backend="triton")),
            flops=operators.mmd_flops,
            why_not=needs_backend("mmd", "triton"),
            same=True,
            by_name_only=True,
        ),
        "dense": Peer(
            what="three kernel matrices in memory",
            build=operators.mmd(operators.dense_mmd),
            flops=operators.mmd_flops,
            memory=operators.dense_mmd_memory,
            same=True,
        ),
    },
    "block": {
        "alignmamba": Peer(
            what="MambaBlock", build=backbones.plain(backbones.mamba_block), flops=backbones.block_flops
        ),
        "products": Peer(
            what="the block's own matrix products and nothing else",
            build=backbones.products(backbones.single),
            flops=backbones.products_flops,
        ),
        "transformer-fused": Peer(
            what="one pre-norm Transformer layer, fused attention",
            build=backbones.masked(backbones.transformer_layer),
            flops=lambda case: backbones.transformer_flops(case) / case.depth,
        ),
        "mambapy": Peer(
            what="mambapy's MambaBlock",
            build=backbones.plain(backbones.mambapy_block),
            flops=backbones.block_flops,
            memory=operators.tree_memory,
            why_not=needs("mambapy"),
        ),
        "huggingface": Peer(
            what="transformers' MambaMixer",
            build=backbones.plain(backbones.huggingface_block),
            flops=backbones.block_flops,
            memory=operators.states_memory,
            why_not=why_not_huggingface,
        ),
        "mamba-ssm": Peer(
            what="mamba-ssm's Mamba block",
            build=backbones.plain(backbones.mamba_ssm_block),
            flops=backbones.block_flops,
            why_not=needs_mamba_ssm,
        ),
    },
    "backbone": {
        "alignmamba": Peer(
            what="MambaStack", build=backbones.masked(backbones.mamba_stack), flops=backbones.mamba_flops
        ),
        "products": Peer(
            what="the stack's own matrix products and nothing else",
            build=backbones.products(backbones.every_layer),
            flops=backbones.depth_times(backbones.products_flops),
        ),
        "transformer-fused": Peer(
            what="single-stream Transformer, fused attention",
            build=backbones.masked(backbones.transformer("fused")),
            flops=backbones.transformer_flops,
        ),
        "transformer-materialised": Peer(
            what="single-stream Transformer, matrix of weights in memory",
            build=backbones.masked(backbones.transformer("materialised")),
            flops=backbones.transformer_flops,
            memory=backbones.single_stream_memory,
        ),
        "mult-fused": Peer(
            what="MulT, the tokens in three streams of a third each, fused attention",
            build=backbones.mult("fused", backbones.thirds),
            flops=lambda case: backbones.crossmodal_flops(case, backbones.thirds(case)),
        ),
        "mult-materialised": Peer(
            what="MulT, the tokens in three streams of a third each, matrices of weights in memory",
            build=backbones.mult("materialised", backbones.thirds),
            flops=lambda case: backbones.crossmodal_flops(case, backbones.thirds(case)),
            memory=backbones.multi_stream_memory,
        ),
        "mambapy": Peer(
            what="mambapy's Mamba",
            build=backbones.plain(backbones.mambapy_stack),
            flops=backbones.mamba_flops,
            memory=backbones.tree_stack_memory,
            why_not=needs("mambapy"),
        ),
        "huggingface": Peer(
            what="transformers' MambaMixer in a pre-norm residual stack",
            build=backbones.plain(backbones.stack_of(backbones.huggingface_block)),
            flops=backbones.mamba_flops,
            memory=backbones.states_stack_memory,
            why_not=why_not_huggingface,
        ),
        "mamba-ssm": Peer(
            what="mamba-ssm's block in a pre-norm residual stack",
            build=backbones.plain(backbones.stack_of(backbones.mamba_ssm_block)),
            flops=backbones.mamba_flops,
            why_not=needs_mamba_ssm,
        ),
    },
    "model": {
        "alignmamba": Peer(
            what=(
                "whole fusion: exact alignment of two modalities by content, interleaving, Mamba; in training"
                " the MMD"
            ),
            build=fusion.whole(backbones.mamba_stack),
            flops=fusion.whole_flops(windowed=False),
            memory=fusion.of_fused(linear_memory),
        ),
        "default": Peer(
            what=(
                "the same with the default preset's time prior in the cost: exact too, but few pairs can win"
                " (GFLOP: an upper bound)"
            ),
            build=fusion.whole(backbones.mamba_stack, matching="default"),
            flops=fusion.whole_flops(windowed=False),
            memory=fusion.of_fused(linear_memory),
        ),
        "windowed": Peer(
            what="the same with the matching within --window; in training the MMD by --landmarks",
            build=fusion.whole(backbones.mamba_stack, matching="windowed"),
            flops=fusion.whole_flops(windowed=True),
            memory=fusion.of_fused(linear_memory),
        ),
        "transformer-fused": Peer(
            what="single-stream Transformer over the tokens of all three modalities, fused attention",
            build=fusion.on_fused(backbones.masked(backbones.transformer("fused"))),
            flops=fusion.of_fused(backbones.transformer_flops),
            memory=fusion.of_fused(linear_memory),
        ),
        "transformer-materialised": Peer(
            what=(
                "single-stream Transformer over the tokens of all three modalities, matrix of weights in"
                " memory"
            ),
            build=fusion.on_fused(backbones.masked(backbones.transformer("materialised"))),
            flops=fusion.of_fused(backbones.transformer_flops),
            memory=fusion.of_fused(backbones.single_stream_memory),
        ),
        "mult-fused": Peer(
            what="multi-stream Transformer (MulT), fused attention",
            build=backbones.mult("fused", fusion.three),
            flops=lambda case: backbones.crossmodal_flops(case, fusion.three(case)),
            memory=fusion.of_fused(linear_memory),
        ),
        "mult-materialised": Peer(
            what="multi-stream Transformer (MulT), matrices of weights in memory",
            build=backbones.mult("materialised", fusion.three),
            flops=lambda case: backbones.crossmodal_flops(case, fusion.three(case)),
            memory=fusion.of_fused(backbones.multi_stream_memory),
        ),
        "mambapy": Peer(
            what="the same exact alignment before mambapy's Mamba",
            build=fusion.whole(backbones.without_mask(backbones.mambapy_stack)),
            flops=fusion.whole_flops(windowed=False),
            memory=fusion.of_fused(backbones.tree_stack_memory),
            why_not=needs("mambapy"),
        ),
        "huggingface": Peer(
            what="the same exact alignment before transformers' MambaMixer",
            build=fusion.whole(backbones.without_mask(backbones.stack_of(backbones.huggingface_block))),
            flops=fusion.whole_flops(windowed=False),
            memory=fusion.of_fused(backbones.states_stack_memory),
            why_not=why_not_huggingface,
        ),
        "mamba-ssm": Peer(
            what="the same exact alignment before mamba-ssm's blocks",
            build=fusion.whole(backbones.without_mask(backbones.stack_of(backbones.mamba_ssm_block))),
            flops=fusion.whole_flops(windowed=False),
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
        "backbone": Peer(
            what="stage: Mamba over the interleaved tokens",
            build=fusion.on_fused(backbones.masked(backbones.mamba_stack)),
            flops=fusion.of_fused(backbones.mamba_flops),
            memory=fusion.of_fused(linear_memory),
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
