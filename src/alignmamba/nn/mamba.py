"""The Mamba block, and a pre-norm residual stack of it (Gu & Dao, arXiv 2312.00752, section 3.4)."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from alignmamba.contracts import Config
from alignmamba.errors import ConfigError
from alignmamba.ops import causal_conv, reverse_valid, selective_scan

# Tokens that go through all layers together where no gradient is wanted, and the fewest of one sample.
_PIECE_TOKENS = 2048
_SHORTEST_PIECE = 64


class MambaConfig(Config):
    """Shape of a stack of Mamba blocks."""

    d_model: Annotated[int, Field(ge=1, le=8192)] = 64
    """Channels of a token."""
    depth: Annotated[int, Field(ge=1, le=256)] = 2
    """Number of blocks."""
    d_state: Annotated[int, Field(ge=1, le=256)] = 16
    """State size of each inner channel."""
    expand: Annotated[int, Field(ge=1, le=8)] = 2
    """Inner channels as a multiple of ``d_model``."""
    d_conv: Annotated[int, Field(ge=1, le=16)] = 4
    """Width of the causal depthwise convolution, in tokens."""
    bidirectional: bool = False
    """A second scan in each block, from the last token to the first."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout on the output of each block."""


@dataclass(frozen=True, slots=True)
class BlockState:
    """State of a block after the tokens before: constant in size."""

    inputs: Tensor
    """(batch, d_conv - 1, inner channel), the last inputs of the convolution."""
    state: Tensor
    """(batch, inner channel, d_state)."""


class SelectiveScan(nn.Module):
    """The scan of a block alone: step size and maps depend on each token; no gate, no projection."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.inner = config.expand * config.d_model
        self.rank = math.ceil(config.d_model / 16)
        self.d_state = config.d_state
        self._make(config)
        self._initialise()

    def _make(self, config: MambaConfig) -> None:
        """Make the weights, in an order that no seed may notice a change of."""
        self.x_projection = nn.Linear(self.inner, self.rank + 2 * config.d_state, bias=False)
        self.delta_projection = nn.Linear(self.rank, self.inner, bias=False)
        self.delta_bias = nn.Parameter(torch.empty(self.inner))
        self.log_decay = nn.Parameter(torch.arange(1.0, config.d_state + 1).log().repeat(self.inner, 1))
        self.skip = nn.Parameter(torch.ones(self.inner))

    def _initialise(self) -> None:
        """Step sizes start log-uniform in [1e-3, 1e-1] (Mamba paper, appendix E.5 and section 3.6)."""
        nn.init.uniform_(self.delta_projection.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            step = torch.exp(torch.empty_like(self.delta_bias).uniform_(math.log(1e-3), math.log(1e-1)))
            self.delta_bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
        for parameter in (self.log_decay, self.skip, self.delta_bias):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, inner channel) to the same; causal."""
        return self._scan(x)[0]

    def _scan(
        self, drive: Tensor, gate: Tensor | None = None, initial_state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scan and gate, (batch, time, inner); and the state after the last token."""
        low_rank, B, C = self.x_projection(drive).split([self.rank, self.d_state, self.d_state], dim=-1)
        return selective_scan(
            drive,
            self.delta_projection(low_rank),
            -self.log_decay.float().exp(),
            B,
            C,
            self.skip,
            gate,
            self.delta_bias,
            initial_state=initial_state,
            return_final_state=True,
        )


class MambaBranch(SelectiveScan):
    """A block up to its out-projection, which a sum of branches shares."""

    def _make(self, config: MambaConfig) -> None:
        self.in_projection = nn.Linear(config.d_model, 2 * self.inner, bias=False)
        self.conv_weight = nn.Parameter(torch.empty(config.d_conv, self.inner))
        self.conv_bias = nn.Parameter(torch.zeros(self.inner))
        super()._make(config)

    def _initialise(self) -> None:
        nn.init.uniform_(self.conv_weight, -(len(self.conv_weight) ** -0.5), len(self.conv_weight) ** -0.5)
        super()._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, d_model) to (batch, time, inner channel); causal."""
        drive, gate = self.in_projection(x).chunk(2, dim=-1)
        return self._scan(causal_conv(drive, self.conv_weight, self.conv_bias), gate)[0]


class MambaBlock(MambaBranch):
    """Block of in-projection, causal depthwise convolution, selective scan, gate, out-projection."""

    def _make(self, config: MambaConfig) -> None:
        super()._make(config)
        self.out_projection = nn.Linear(self.inner, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, d_model) to the same; causal."""
        out: Tensor = self.out_projection(super().forward(x))
        return out

    def extend(self, x: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        """Further tokens, (batch, time, d_model), after those that `state` remembers."""
        drive, gate = self.in_projection(x).chunk(2, dim=-1)
        inputs = torch.cat([state.inputs.to(drive.dtype), drive], dim=1)
        before = state.inputs.shape[1]
        drive = causal_conv(inputs, self.conv_weight, self.conv_bias)[:, before:]
        y, scanned = self._scan(drive, gate, state.state)
        return self.out_projection(y), BlockState(inputs[:, inputs.shape[1] - before :].clone(), scanned)

    def initial_state(self, batch_size: int) -> BlockState:
        """State before the first token."""
        width, inner = self.conv_weight.shape
        return BlockState(
            self.conv_weight.new_zeros(batch_size, width - 1, inner),
            self.conv_weight.new_zeros(batch_size, inner, self.d_state),
        )


class MambaLayer(nn.Module):
    """Pre-norm residual block, scanning in one direction or in both."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.d_model, eps=1e-5)
        self.block = MambaBlock(config)
        self.backward_block = MambaBlock(config) if config.bidirectional else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, d_model), with valid tokens first."""
        normed = self.norm(x)
        y = self.block(normed)
        if self.backward_block is not None:
            y = y + reverse_valid(self.backward_block(reverse_valid(normed, mask)), mask)
        out: Tensor = x + self.dropout(y)
        return out


class MambaStack(nn.Module):
    """`depth` residual Mamba blocks and a final norm.

    Padding stands at the end, and the scan is causal, so it cannot reach a valid token; the backward scan of
    a bidirectional stack starts at each sample's own last valid token.
    """

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.bidirectional = config.bidirectional
        self.layers = nn.ModuleList(MambaLayer(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.d_model, eps=1e-5)
        # Residual branches start smaller in a deep stack, as in GPT-2 and Mamba.
        for name, parameter in self.named_parameters():
            if name.endswith("out_projection.weight"):
                nn.init.kaiming_uniform_(parameter, a=5**0.5)
                with torch.no_grad():
                    parameter.div_(config.depth**0.5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(batch, time, d_model), valid tokens first, and its mask (batch, time), to the same."""
        if self._in_pieces(x):
            return self._forward_in_pieces(x)
        for layer in self.layers:
            x = layer(x, mask)
        normed: Tensor = self.norm(x)
        return normed

    def extend(self, x: Tensor, states: tuple[BlockState, ...]) -> tuple[Tensor, tuple[BlockState, ...]]:
        """Further tokens, (batch, time, d_model), after those that `states` remember.

        Raises:
            ConfigError: If the stack is bidirectional: its backward scan starts at the last token.
        """
        after = []
        for layer, state in zip(self.layers, states, strict=True):
            assert isinstance(layer, MambaLayer)
            if layer.backward_block is not None:
                raise ConfigError("bidirectional: found true, expected false for step-by-step inference")
            y, state = layer.block.extend(layer.norm(x), state)
            x = x + layer.dropout(y)
            after.append(state)
        normed: Tensor = self.norm(x)
        return normed, tuple(after)

    def _in_pieces(self, x: Tensor) -> bool:
        """Return whether the sequence goes through all layers piece by piece: on a CPU in evaluation, where
        nothing is kept for a backward pass.

        Not where somebody has wrapped a layer or wants to see its calls: pieces do not call layers.
        """
        if (
            torch.compiler.is_compiling()
            or x.device.type != "cpu"
            or x.shape[1] < 2 * _piece_length(x)
            or self.bidirectional
            or self.training
        ):
            return False
        if any(type(layer) is not MambaLayer for layer in self.layers):
            return False
        if any(module._forward_hooks or module._forward_pre_hooks for module in self.layers.modules()):
            return False
        return not torch.is_grad_enabled() or not (
            x.requires_grad or any(weight.requires_grad for weight in self.parameters())
        )

    def _forward_in_pieces(self, x: Tensor) -> Tensor:
        """Read piece by piece, each of which fits into the cache; memory does not grow with the sequence."""
        out = torch.empty_like(x)
        states = self.initial_states(len(x))
        for start in range(0, x.shape[1], _piece_length(x)):
            piece = slice(start, start + _piece_length(x))
            out[:, piece], states = self.extend(x[:, piece], states)
        return out

    def initial_states(self, batch_size: int) -> tuple[BlockState, ...]:
        """States before the first token."""
        return tuple(
            layer.block.initial_state(batch_size) for layer in self.layers if isinstance(layer, MambaLayer)
        )


def _piece_length(x: Tensor) -> int:
    """Tokens of a piece: `_PIECE_TOKENS` over the whole batch."""
    return max(_SHORTEST_PIECE, _PIECE_TOKENS // max(1, len(x)))
