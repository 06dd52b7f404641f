"""Builders for Mamba blocks and backbones, and their rivals."""

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn

from alignmamba.evaluation.computing_cost import attention_flops, matmul_flops
from alignmamba.nn.attention import AttentionConfig, AttentionLayer, CrossModalStack, TransformerStack
from alignmamba.nn.mamba import MambaBlock, MambaConfig, MambaStack
from alignmamba.recipes.bench.case import NUM_MODALITIES, Built, Case, Draw, linear_memory, module_on
from alignmamba.recipes.bench.operators import selective_scan_flops, states_memory, tree_memory

# Blocks and backbones


def sequence(case: Case) -> tuple[Draw, Tensor, Tensor, tuple[int, int, int]]:
    draw = Draw(case)
    shape = (case.batch, case.length, case.d_model)
    return draw, draw.normal(*shape), draw.mask(case.batch, case.length), shape


def plain(make: Callable[[Case], nn.Module]) -> Callable[[Case], Built]:
    """A module that takes tokens alone."""

    def build(case: Case) -> Built:
        draw, x, _, shape = sequence(case)
        module = draw.module(make(case))
        return module_on(draw, module, [x], lambda: module(x), shape)

    return build


def masked(make: Callable[[Case], nn.Module]) -> Callable[[Case], Built]:
    """A module that takes tokens and their mask."""

    def build(case: Case) -> Built:
        draw, x, mask, shape = sequence(case)
        module = draw.module(make(case))
        return module_on(draw, module, [x], lambda: module(x, mask), shape)

    return build


def mamba_config(case: Case) -> MambaConfig:
    return MambaConfig(d_model=case.d_model, depth=case.depth, d_state=case.d_state, dropout=0.0)


def mamba_block(case: Case) -> nn.Module:
    return MambaBlock(mamba_config(case))


def mamba_stack(case: Case) -> nn.Module:
    return MambaStack(mamba_config(case))


class Products(nn.Module):
    """Matrix products of Mamba blocks alone, each on an input that lies as the product wants it."""

    def __init__(self, case: Case, depth: int) -> None:
        super().__init__()
        widths = [
            (case.d_model, 2 * case.inner),
            (case.inner, case.rank + 2 * case.d_state),
            (case.rank, case.inner),
            (case.inner, case.d_model),
        ]
        self.linears = nn.ModuleList(nn.Linear(*width, bias=False) for _ in range(depth) for width in widths)


def products(depth: Callable[[Case], int]) -> Callable[[Case], Built]:
    def build(case: Case) -> Built:
        draw = Draw(case)
        module = draw.module(Products(case, depth(case)))
        linears = [linear for linear in cast(Products, module).linears if isinstance(linear, nn.Linear)]
        inputs = {
            width: draw.normal(case.batch, case.length, width)
            for width in dict.fromkeys(each.in_features for each in linears)
        }

        def forward() -> Tensor | list[Tensor]:
            if case.training:
                return [linear(inputs[linear.in_features]) for linear in linears]
            for linear in linears:
                last: Tensor = linear(inputs[linear.in_features])
            return last

        shapes = [(case.batch, case.length, each.out_features) for each in linears]
        return module_on(draw, module, list(inputs.values()), forward, *shapes)

    return build


def single(_: Case) -> int:
    return 1


def every_layer(case: Case) -> int:
    return case.depth


def attention_config(case: Case, attention: str) -> AttentionConfig:
    return AttentionConfig.model_validate(
        {
            "d_model": case.d_model,
            "depth": case.depth,
            "heads": case.heads,
            "attention": attention,
            "dropout": 0.0,
        }
    )


def transformer(attention: str) -> Callable[[Case], nn.Module]:
    return lambda case: TransformerStack(attention_config(case, attention))


def transformer_layer(case: Case) -> nn.Module:
    return AttentionLayer(attention_config(case, "fused"))


def mambapy_block(case: Case) -> nn.Module:
    from mambapy.mamba import MambaBlock as Block
    from mambapy.mamba import MambaConfig as BlockConfig

    return cast(nn.Module, Block(BlockConfig(d_model=case.d_model, n_layers=1, d_state=case.d_state)))


def mambapy_stack(case: Case) -> nn.Module:
    from mambapy.mamba import Mamba
    from mambapy.mamba import MambaConfig as StackConfig

    return cast(
        nn.Module, Mamba(StackConfig(d_model=case.d_model, n_layers=case.depth, d_state=case.d_state))
    )


class WithoutMask(nn.Module):
    """A causal stack of others, which has no use for a mask of padding at the end."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, _mask: Tensor) -> Tensor:
        return cast(Tensor, self.inner(x))


class Residual(nn.Module):
    """Pre-norm residual stack of blocks, as `MambaStack` is."""

    def __init__(self, case: Case, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norms = nn.ModuleList(nn.RMSNorm(case.d_model, eps=1e-5) for _ in range(len(blocks) + 1))

    def forward(self, x: Tensor) -> Tensor:
        for block, norm in zip(self.blocks, list(self.norms)[:-1], strict=True):
            x = x + block(norm(x))
        return cast(Tensor, self.norms[-1](x))


def huggingface_block(case: Case) -> nn.Module:
    from transformers import MambaConfig as BlockConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = BlockConfig(hidden_size=case.d_model, state_size=case.d_state, num_hidden_layers=1, vocab_size=1)
    return cast(nn.Module, MambaMixer(config, layer_idx=0))


def mamba_ssm_block(case: Case) -> nn.Module:
    from mamba_ssm import Mamba

    return cast(nn.Module, Mamba(d_model=case.d_model, d_state=case.d_state))


def stack_of(block: Callable[[Case], nn.Module]) -> Callable[[Case], nn.Module]:
    return lambda case: Residual(case, [block(case) for _ in range(case.depth)])


def without_mask(make: Callable[[Case], nn.Module]) -> Callable[[Case], nn.Module]:
    return lambda case: WithoutMask(make(case))


def products_flops(case: Case) -> float:
    """Operations of one layer."""
    widths = (
        case.d_model * 2 * case.inner
        + case.inner * (case.rank + 2 * case.d_state)
        + case.rank * case.inner
        + case.inner * case.d_model
    )
    return case.passes * matmul_flops(case.tokens, 1, widths)


def block_flops(case: Case) -> float:
    return products_flops(case) + selective_scan_flops(case)


def layer_flops(tokens: float, keys: float, width: float) -> float:
    """One attention layer: projections 4 d^2, feed-forward 8 d^2, attention to `keys` tokens each."""
    return matmul_flops(tokens, width, 12 * width) + attention_flops(tokens, keys, width)


def transformer_flops(case: Case) -> float:
    return case.passes * case.depth * layer_flops(case.tokens, case.length, case.d_model)


def thirds(case: Case) -> list[int]:
    """A sequence cut into as many streams as there are modalities, as even as can be."""
    return [
        case.length // NUM_MODALITIES + (number < case.length % NUM_MODALITIES)
        for number in range(NUM_MODALITIES)
    ]


def crossmodal_flops(case: Case, lengths: Sequence[int]) -> float:
    """MulT, per ordered pair: 10 d^2 at the target, 2 d^2 (keys and values) at the source."""
    d, total = case.d_model, 0.0
    for number, target in enumerate(lengths):
        for other, source in enumerate(lengths):
            if other != number:
                total += (
                    matmul_flops(target, d, 10 * d)
                    + matmul_flops(source, d, 2 * d)
                    + attention_flops(target, source, d)
                )
        total += layer_flops(target, target, (len(lengths) - 1) * d)
    return case.passes * case.depth * case.batch * total


def attention_memory(case: Case, pairs: float) -> float:
    """Scores and their softmax of one layer at a time; with gradients the softmax of every layer."""
    return linear_memory(case) + 4.0 * case.batch * case.heads * pairs * (
        case.depth + 2 if case.training else 2
    )


def single_stream_memory(case: Case) -> float:
    return attention_memory(case, float(case.length) ** 2)


def multi_stream_memory(case: Case) -> float:
    """Bytes of a matrix of a third of the length per ordered pair and target, where gradients keep them."""
    third = attention_memory(case, (case.length / NUM_MODALITIES) ** 2)
    return third * (NUM_MODALITIES**2 if case.training else 1)


def mult(attention: str, lengths: Callable[[Case], list[int]]) -> Callable[[Case], Built]:
    """MulT over one stream per modality."""

    def build(case: Case) -> Built:
        draw = Draw(case)
        module = draw.module(CrossModalStack(attention_config(case, attention), NUM_MODALITIES))
        streams = [draw.normal(case.batch, length, case.d_model) for length in lengths(case)]
        masks = [draw.mask(case.batch, length) for length in lengths(case)]
        shapes = [(case.batch, length, (NUM_MODALITIES - 1) * case.d_model) for length in lengths(case)]
        return module_on(draw, module, streams, lambda: module(streams, masks), *shapes)

    return build


def mamba_flops(case: Case) -> float:
    return case.depth * block_flops(case)


def tree_stack_memory(case: Case) -> float:
    """Bytes of states; without gradients one layer at a time holds them."""
    return tree_memory(case) * (case.depth if case.training else 1)


def states_stack_memory(case: Case) -> float:
    return states_memory(case) * (case.depth if case.training else 1)


def depth_times(flops: Callable[[Case], float]) -> Callable[[Case], float]:
    return lambda case: case.depth * flops(case)
