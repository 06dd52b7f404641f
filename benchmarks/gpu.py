"""The Triton kernels on a GPU: parity first, then speed beside the hardware's floor and beside the usual
rivals.

Every kernel is first compared with a float64 reference on fresh random inputs, with NaN in all memory it is
to write. Over a red parity no speed is printed, and the exit code is 1. Without a GPU it is 2.

Usage: ``python benchmarks/gpu.py [--json FILE]``, or ``--interpret`` for parity alone, on the CPU, on small
shapes
"""

import argparse
import json
import os
import secrets
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

if find_spec("alignmamba") is None:  # a bare checkout on a machine that has PyTorch and Triton alone
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

# batch, time, channels; the state is 16.
SCANS = [(1, 6400, 512), (1, 12800, 512), (32, 150, 256), (8, 1024, 512)]
STATES = 16
# Tokens per modality and channels of matching and MMD, and the fused model: depth and heads as in the paper's
# backbones.
TOKENS, WIDTH, DEPTH, HEADS, MODALITIES = [6400, 12800], 256, 4, 8, 3
TARGETS = {"scan": 1.0, "fusion at 6400": 2.0, "fusion at 12800": 4.0}
"""How many times as fast as the rival it is to be."""

# |found - exact| / |exact|, both as Euclidean norms.
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}
MATCH_GAP = 1e-5
"""By how much the cosine of a chosen anchor token may lie below the best one."""

# Dense rates by datasheet, in operations a second: bfloat16 and TF32 products.
MATRIX_RATES = {"H100": (989e12, 494e12), "H200": (989e12, 494e12), "A100": (312e12, 156e12)}
QUEUEING_CYCLES = 4_000_000
"""About two milliseconds, in which the kernels of one call are queued."""
EXPONENTIALS_PER_CLOCK = 16
"""Of one multiprocessor, compute capability 8.0 and 9.0."""


@dataclass(frozen=True)
class Parity:
    """One comparison with a float64 reference."""

    name: str
    error: float
    limit: float

    @property
    def green(self) -> bool:
        """Whether the error is a number and small enough."""
        return self.error <= self.limit


@dataclass(frozen=True)
class Row:
    """One measured time; milliseconds, None where there is nothing to say. `launched` counts Python's share
    too.
    """

    name: str
    shape: str
    time: float
    launched: float | None = None
    floor: float | None = None
    rival: str = ""
    rival_time: float | None = None
    target: float | None = None


@dataclass(frozen=True)
class Ceilings:
    """What the device could do at best."""

    bytes_per_second: float
    exponentials_per_second: float
    bfloat16_rate: float | None
    tf32_rate: float | None

    def floor(
        self, size: float, exponentials: float = 0.0, operations: float = 0.0, *, single: bool = False
    ) -> float | None:
        """Milliseconds that bytes, exponentials or operations of the matrix units take at least; float32
        products are three of TF32.
        """
        rate = self.tf32_rate if single else self.bfloat16_rate
        if operations and rate is None:
            return None
        matrix = operations * (3 if single else 1) / rate if rate else 0.0
        return 1e3 * max(size / self.bytes_per_second, exponentials / self.exponentials_per_second, matrix)


@contextmanager
def unwritten_is_nan() -> Iterator[None]:
    """Fill with NaN what is allocated without a value, so that what a kernel leaves unwritten cannot pass."""
    originals = torch.empty, Tensor.new_empty

    def poisoned(allocate: Callable[..., Tensor]) -> Any:
        def allocated(*args: Any, **kwargs: Any) -> Tensor:
            tensor = allocate(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor.fill_(-7)

        return allocated

    torch.empty, Tensor.new_empty = (poisoned(original) for original in originals)  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.empty, Tensor.new_empty = originals  # type: ignore[method-assign]


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Euclidean norm of the difference over that of the exact value; infinite where anything is not
    finite.
    """
    if not found.isfinite().all():
        return float("inf")
    return float((found.double() - exact).norm() / exact.norm().clamp(min=1e-30))


# Inputs


def scan_inputs(
    batch: int, time: int, channels: int, states: int, dtype: torch.dtype, device: str
) -> dict[str, Tensor]:
    """What a Mamba block gives its scan: slices of wider tensors, steps of 1e-3 to 1e-1, decays of 1 to the
    number of states.
    """
    wide = torch.randn(batch, time, 2 * channels, device=device).to(dtype)
    maps = torch.randn(batch, time, 2 * states, device=device).to(dtype)
    return {
        "u": torch.randn(batch, time, channels, device=device).to(dtype),
        "delta": (0.5 * torch.randn(batch, time, channels, device=device)).to(dtype),
        "A": -torch.arange(1.0, states + 1, device=device).repeat(channels, 1),
        "B": maps[..., :states],
        "C": maps[..., states:],
        "D": torch.ones(channels, device=device),
        "z": wide[..., channels:],
        "delta_bias": torch.rand(channels, device=device) * 4.6 - 6.9,
    }


# Parity


def scan_parity(
    shape: tuple[int, int, int, int], dtype: torch.dtype, algorithm: Any, device: str
) -> Iterator[Parity]:
    """Value and every gradient of the scan."""
    from alignmamba.ops import selective_scan
    from alignmamba.ops.gpu.scan import scan_backward, scan_forward

    given = scan_inputs(*shape, dtype, device)
    batch, time, channels, states = shape
    initial = torch.randn(batch, channels, states, device=device)
    weight, state_weight = (
        torch.randn(batch, time, channels, device=device).to(dtype),
        torch.randn_like(initial),
    )
    leaves = [tensor.detach().double().requires_grad_() for tensor in (*given.values(), initial)]
    y, final = selective_scan(
        *leaves[:-1], initial_state=leaves[-1], return_final_state=True, backend="torch"
    )
    exact = [y, final, *torch.autograd.grad((y * weight).sum() + (final * state_weight).sum(), leaves)]
    with unwritten_is_nan():
        value, state, kept = scan_forward(
            *given.values(), initial, softplus=True, checkpoint=True, algorithm=algorithm
        )
        assert kept is not None
        gradients = scan_backward(
            *given.values(), kept, weight, state_weight, softplus=True, algorithm=algorithm
        )
    names = ["y", "state", *(f"gradient of {name}" for name in (*given, "initial_state"))]
    for name, found, expected in zip(names, (value, state, *gradients), exact, strict=True):
        assert found is not None
        yield Parity(
            f"scan {algorithm} {shape} {dtype}: {name}",
            relative_error(found, expected.detach()),
            LIMITS[found.dtype],
        )


def convolution_parity(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> Iterator[Parity]:
    """Value and every gradient of the convolution of width 4."""
    from alignmamba.ops.gpu.convolution import conv_backward, conv_forward

    batch, time, channels = shape
    x = torch.randn(batch, time, 2 * channels, device=device).to(dtype)[..., :channels]
    weight, bias = torch.randn(4, channels, device=device), torch.randn(channels, device=device)
    grad_y = torch.randn(shape, device=device).to(dtype)
    leaves = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    padded = F.pad(leaves[0], (0, 0, 3, 0))
    y = F.silu(sum((padded[:, k : k + time] * leaves[1][k] for k in range(4)), start=leaves[2]))
    exact = [y, *torch.autograd.grad(y, leaves, grad_y.double())]
    with unwritten_is_nan():
        found = [conv_forward(x, weight, bias), *conv_backward(x, weight, bias, grad_y)]
    for name, tensor, expected in zip(
        ("y", "gradient of x", "gradient of weight", "gradient of bias"), found, exact, strict=True
    ):
        yield Parity(
            f"convolution {shape} {dtype}: {name}",
            relative_error(tensor, expected.detach()),
            LIMITS[tensor.dtype],
        )


def transport_parity(n: int, m: int, channels: int, dtype: torch.dtype, device: str) -> Iterator[Parity]:
    """Matching with a time prior and ranges, and the sums it leads to."""
    from alignmamba.ops.gpu.transport import match, segment_sum

    source, anchor = (torch.randn(2, length, channels, device=device).to(dtype) for length in (n, m))
    times = tuple(torch.rand(2, length, device=device) for length in (n, m))
    first = torch.randint(0, m // 2, (2, n), device=device, dtype=torch.int32)
    last = first + m // 2
    score = F.normalize(source.double(), dim=-1) @ F.normalize(anchor.double(), dim=-1).transpose(1, 2)
    score = score - 2.0 * (times[0].double().unsqueeze(2) - times[1].double().unsqueeze(1)).square()
    column = torch.arange(m, device=device)
    score = score.masked_fill((column < first.unsqueeze(2)) | (column >= last.unsqueeze(2)), -torch.inf)
    with unwritten_is_nan():
        index = match(source, anchor, first, last, *times, 2.0)
        total = segment_sum(source, index, m)
    inside = bool(((index >= 0) & (index < m)).all())
    lost = (
        float((score.amax(2) - score.gather(2, index.clamp(0, m - 1).unsqueeze(2)).squeeze(2)).max())
        if inside
        else float("inf")
    )
    yield Parity(f"match ({n}, {m}, {channels}) {dtype}: score lost", lost, MATCH_GAP)
    slot = index.clamp(0, m - 1).unsqueeze(-1).expand(source.shape)
    exact = torch.zeros(2, m, channels, dtype=torch.float64, device=device).scatter_add(
        1, slot, source.double()
    )
    yield Parity(
        f"segment sum ({n}, {m}, {channels}) {dtype}", relative_error(total, exact), LIMITS[torch.float32]
    )


def discrepancy_parity(n: int, m: int, channels: int, device: str) -> Iterator[Parity]:
    """Kernel sums and their gradients."""
    from alignmamba.ops.gpu.discrepancy import weighted_kernel_sum

    x, y = (torch.randn(2, length, channels, device=device) / channels**0.5 for length in (n, m))
    masks = tuple(torch.rand(2, length, device=device) < 0.8 for length in (n, m))
    scale, weights = (
        torch.rand(2, device=device) + 0.5,
        torch.tensor([[1.0], [0.7], [-1.5]], device=device).expand(3, 2) / n,
    )
    leaves = [side.double().requires_grad_() for side in (x, y)]
    value = torch.zeros(2, dtype=torch.float64, device=device)
    for weight, (a, b) in zip(weights, ((0, 0), (1, 1), (0, 1)), strict=True):
        distance = (leaves[a].unsqueeze(2) - leaves[b].unsqueeze(1)).square().sum(3)
        kernel = torch.exp(-scale[:, None, None] * distance) * (masks[a].unsqueeze(2) & masks[b].unsqueeze(1))
        value = value + weight * kernel.sum((1, 2))
    exact = [value, *torch.autograd.grad(value.sum(), leaves)]
    with unwritten_is_nan():
        found = weighted_kernel_sum(x, y, *masks, scale, weights, need_gradient=True)
    for name, tensor, expected in zip(("value", "gradient of x", "gradient of y"), found, exact, strict=True):
        assert tensor is not None
        yield Parity(
            f"kernel sum ({n}, {m}, {channels}): {name}",
            relative_error(tensor, expected.detach()),
            LIMITS[torch.float32],
        )


def parities(device: str) -> Iterator[Parity]:
    """Every comparison; under the interpreter on small shapes."""
    small = device == "cpu"
    for dtype in (torch.float32, torch.bfloat16):
        for algorithm in ("sequential", "chunked"):
            for shape in (
                [(1, 40, 5, 3)]
                if small
                else [(2, 1, 17, 3), (3, 63, 96, 16), (1, 1025, 512, 16), (2, 130, 40, 64)]
            ):
                yield from scan_parity(shape, dtype, algorithm, device)
        for conv_shape in [(1, 20, 5)] if small else [(2, 1, 17), (3, 1025, 512)]:
            yield from convolution_parity(conv_shape, dtype, device)
        for sizes in [(20, 70, 17)] if small else [(65, 300, 17), (1000, 700, 256), (500, 1300, 64)]:
            yield from transport_parity(*sizes, dtype, device)
    for sizes in [(20, 70, 17)] if small else [(65, 300, 17), (500, 700, 256), (100, 80, 600)]:
        yield from discrepancy_parity(*sizes, device)


# Speed


def milliseconds(
    calls: list[Callable[[], object]], repeats: int = 50, *, with_launches: bool = False
) -> float:
    """Median time of a call between two events, the calls taken in turn so that their inputs do not stay in
    the cache.

    Without `with_launches` the device first waits while the call's kernels are queued, so that Python's share
    does not count.
    """
    for call in calls * 2:
        call()
    spans = []
    for number in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if not with_launches:
            torch.cuda._sleep(QUEUEING_CYCLES)
        start.record()
        calls[number % len(calls)]()
        stop.record()
        spans.append((start, stop))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in spans)


def ceilings() -> Ceilings:
    """Measured bandwidth, and arithmetic by datasheet."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    span = milliseconds([lambda: target.copy_(source)], 20)
    properties = torch.cuda.get_device_properties(0)
    # kHz where PyTorch tells, else the boost clock of an H100
    clock = 1e3 * getattr(properties, "clock_rate", 1_980_000)
    rates = next((rate for name, rate in MATRIX_RATES.items() if name in properties.name), (None, None))
    return Ceilings(
        2 * source.nbytes / span * 1e3,
        properties.multi_processor_count * EXPONENTIALS_PER_CLOCK * clock,
        *rates,
    )


def rival_scan(given: list[dict[str, Tensor]], *, backward: bool) -> float | None:
    """Time of mamba-ssm's scan in its own layout, (batch, channel, time) without gaps; None if it is not
    installed.
    """
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    calls = []
    for tensors in given:
        inner = {
            name: (tensor.transpose(1, 2) if tensor.ndim == 3 else tensor)
            .contiguous()
            .requires_grad_(backward)
            for name, tensor in tensors.items()
        }
        if not backward:
            calls.append(lambda inner=inner: selective_scan_fn(**inner, delta_softplus=True))
            continue
        y = selective_scan_fn(**inner, delta_softplus=True)
        weight = torch.randn_like(y)
        calls.append(
            lambda y=y, inner=inner, weight=weight: torch.autograd.grad(
                y, list(inner.values()), weight, retain_graph=True, allow_unused=True
            )
        )
    return milliseconds(calls)


def scan_rows(top: Ceilings) -> Iterator[Row]:
    """The scan forward and backward, both algorithms."""
    from alignmamba.ops.gpu.scan import scan_backward, scan_forward

    for batch, time, channels in SCANS:
        for dtype in (torch.float32, torch.bfloat16):
            sets = [scan_inputs(batch, time, channels, STATES, dtype, "cuda") for _ in range(4)]
            weights = [torch.randn(batch, time, channels, device="cuda").to(dtype) for _ in sets]
            tokens, maps = batch * time * channels, 2 * batch * time * STATES
            # of softplus and of the gate: one exponential and one reciprocal each
            exponentials = tokens * (STATES + 2 + 2)
            rivals = {backward: rival_scan(sets, backward=backward) for backward in (False, True)}
            for algorithm in ("sequential", "chunked", "auto"):
                kept = [
                    scan_forward(*s.values(), None, softplus=True, checkpoint=True, algorithm=algorithm)[2]
                    for s in sets
                ]  # type: ignore[arg-type]
                forward: list[Callable[[], object]] = [
                    lambda s=s, a=algorithm: scan_forward(
                        *s.values(), None, softplus=True, checkpoint=False, algorithm=a
                    )
                    for s in sets
                ]
                backward: list[Callable[[], object]] = [
                    lambda s=s, k=k, w=w, a=algorithm: scan_backward(
                        *s.values(), k, w, None, softplus=True, algorithm=a
                    )
                    for s, k, w in zip(sets, kept, weights, strict=True)
                ]
                for name, calls, tensors in (("forward", forward, 4), ("backward", backward, 7)):
                    size = (tensors * tokens + (maps if name == "forward" else 2 * maps)) * dtype.itemsize
                    rival = rivals[name == "backward"]
                    yield Row(
                        f"scan {name}, {algorithm}",
                        f"({batch}, {time}, {channels}) {str(dtype)[6:]}",
                        milliseconds(calls),
                        milliseconds(calls, with_launches=True),
                        top.floor(size, exponentials),
                        "mamba-ssm" if rival else "mamba-ssm not installed",
                        rival,
                        TARGETS["scan"],
                    )


def convolution_rows(top: Ceilings) -> Iterator[Row]:
    """The convolution against PyTorch's on the transposed tensor."""
    from alignmamba.ops.gpu.convolution import conv_backward, conv_forward

    for batch, time, channels in SCANS:
        for dtype in (torch.float32, torch.bfloat16):
            xs = [torch.randn(batch, time, channels, device="cuda").to(dtype) for _ in range(4)]
            weight, bias = torch.randn(4, channels, device="cuda"), torch.randn(channels, device="cuda")
            kernel, shift = weight.t().unsqueeze(1).to(dtype), bias.to(dtype)
            plain: list[Callable[[], object]] = [
                lambda x=x, time=time, kernel=kernel, shift=shift: F.silu(
                    F.conv1d(x.transpose(1, 2), kernel, shift, padding=3, groups=kernel.shape[0])[..., :time]
                ).transpose(1, 2)
                for x in xs
            ]
            fused: list[Callable[[], object]] = [
                lambda x=x, weight=weight, bias=bias: conv_forward(x, weight, bias) for x in xs
            ]
            back: list[Callable[[], object]] = [
                lambda x=x, weight=weight, bias=bias: conv_backward(x, weight, bias, x) for x in xs
            ]
            shape = f"({batch}, {time}, {channels}) {str(dtype)[6:]}"
            yield Row(
                "convolution forward",
                shape,
                milliseconds(fused),
                None,
                top.floor(2 * xs[0].nbytes),
                "conv1d + silu",
                milliseconds(plain),
            )
            yield Row("convolution backward", shape, milliseconds(back), None, top.floor(3 * xs[0].nbytes))


def alignment_rows(top: Ceilings) -> Iterator[Row]:
    """Matching against a materialised product, and the discrepancy against materialised kernels, one
    sample.
    """
    from alignmamba.ops.gpu.discrepancy import weighted_kernel_sum
    from alignmamba.ops.gpu.transport import match

    for tokens in TOKENS:
        nothing = torch.zeros(1, 0, device="cuda")
        first = torch.zeros(1, tokens, dtype=torch.int32, device="cuda")
        for dtype in (torch.float32, torch.bfloat16):
            sets = [
                [torch.randn(1, tokens, WIDTH, device="cuda").to(dtype) for _ in range(2)] for _ in range(3)
            ]
            fused: list[Callable[[], object]] = [
                lambda s=s, first=first, tokens=tokens, nothing=nothing: match(
                    *s, first, first + tokens, nothing, nothing, 0.0
                )
                for s in sets
            ]
            plain: list[Callable[[], object]] = [
                lambda s=s: (F.normalize(s[0], dim=-1) @ F.normalize(s[1], dim=-1).transpose(1, 2)).argmax(2)
                for s in sets
            ]
            floor = top.floor(
                2 * sets[0][0].nbytes, operations=2.0 * tokens**2 * WIDTH, single=dtype == torch.float32
            )
            shape = f"({tokens}, {tokens}, {WIDTH}) {str(dtype)[6:]}"
            yield Row(
                "match", shape, milliseconds(fused, 20), None, floor, "materialised", milliseconds(plain, 20)
            )

        sides = [
            [torch.randn(1, tokens, WIDTH, device="cuda") / WIDTH**0.5 for _ in range(2)] for _ in range(2)
        ]
        mask = torch.ones(1, tokens, dtype=torch.bool, device="cuda")
        scale, weights = (
            torch.ones(1, device="cuda"),
            torch.tensor([[1.0], [1.0], [-2.0]], device="cuda") / tokens**2,
        )
        summed: list[Callable[[], object]] = [
            lambda s=s, mask=mask, scale=scale, weights=weights: weighted_kernel_sum(
                *s, mask, mask, scale, weights, need_gradient=True
            )
            for s in sides
        ]
        dense: list[Callable[[], object]] = [lambda s=s: materialised_discrepancy(*s) for s in sides]
        # Each of (2 tokens)^2 ordered pairs takes one product for the distance and one for the gradient.
        floor = top.floor(
            4 * sides[0][0].nbytes, 4.0 * tokens**2, 2 * 2.0 * (2 * tokens) ** 2 * WIDTH, single=True
        )
        yield Row(
            "MMD and gradient",
            f"({tokens}, {tokens}, {WIDTH}) float32",
            milliseconds(summed, 10),
            None,
            floor,
            "materialised",
            milliseconds(dense, 10),
        )


def materialised_discrepancy(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The gradient of the squared discrepancy, with every kernel matrix in memory."""
    x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
    means = [torch.exp(-torch.cdist(a, b).square()).mean() for a, b in ((x, x), (y, y), (x, y))]
    return torch.autograd.grad(means[0] + means[1] - 2 * means[2], [x, y])


def fusion_rows() -> Iterator[Row]:
    """Matching, transport, interleaving and a Mamba stack against fused attention over all tokens, in
    bfloat16; one sample.
    """
    from alignmamba.nn.mamba import MambaConfig, MambaStack
    from alignmamba.ops import interleave, match_tokens, transport

    try:
        from alignmamba.nn.attention import AttentionConfig, TransformerStack
    except ImportError as error:
        print(f"fusion is not compared: {error}")
        return
    mamba = MambaStack(MambaConfig(d_model=WIDTH, depth=DEPTH, dropout=0.0)).cuda()
    attention = TransformerStack(
        AttentionConfig(d_model=WIDTH, depth=DEPTH, heads=HEADS, attention="fused", dropout=0.0)
    ).cuda()
    for tokens in TOKENS:
        streams = [torch.randn(1, tokens, WIDTH, device="cuda") for _ in range(MODALITIES)]
        mask = torch.ones(1, tokens, dtype=torch.bool, device="cuda")
        whole = torch.ones(1, MODALITIES * tokens, dtype=torch.bool, device="cuda")

        def by_mamba(streams: list[Tensor] = streams, mask: Tensor = mask, whole: Tensor = whole) -> Tensor:
            with torch.autocast("cuda", torch.bfloat16):
                moved = [
                    transport(x, match_tokens(x, streams[0], mask, mask)[0], mask, x.shape[1], mass="mean")
                    for x in streams[1:]
                ]
                out: Tensor = mamba(interleave([*moved, streams[0]]), whole)
            return out

        def by_attention(streams: list[Tensor] = streams, whole: Tensor = whole) -> Tensor:
            with torch.autocast("cuda", torch.bfloat16):
                out: Tensor = attention(torch.cat(streams, 1), whole)
            return out

        for name, training in (("inference", False), ("training step", True)):
            times = []
            for model, parameters in (
                (by_mamba, list(mamba.parameters())),
                (by_attention, list(attention.parameters())),
            ):

                def step(
                    model: Callable[[], Tensor] = model,
                    parameters: list[Tensor] = parameters,
                    training: bool = training,
                ) -> None:
                    with torch.set_grad_enabled(training):
                        y = model()
                    if training:
                        torch.autograd.grad(y.float().square().mean(), parameters, allow_unused=True)

                times.append(milliseconds([step], 15, with_launches=True))
            yield Row(
                f"fusion, {name}",
                f"{MODALITIES} x {tokens} tokens, d {WIDTH}, depth {DEPTH}, bfloat16",
                times[0],
                times[0],
                None,
                "fused attention",
                times[1],
                TARGETS[f"fusion at {tokens}"],
            )


def line(row: Row) -> str:
    """One row of the table as text."""
    floor = f"{row.floor:9.4f} {100 * row.floor / row.time:5.0f} %" if row.floor else f"{'':17s}"
    rival = (
        f"{row.rival_time / row.time:6.2f} x {row.rival} ({row.rival_time:.4f} ms)"
        if row.rival_time
        else row.rival
    )
    target = f", target {row.target:g} x" if row.target and row.rival_time else ""
    launched = f"{row.launched:9.4f}" if row.launched else f"{'':9s}"
    return f"{row.name:28s} {row.shape:48s} {row.time:9.4f} {launched} {floor}  {rival}{target}"


def main() -> int:
    """Check, then measure; the exit code."""
    parser = argparse.ArgumentParser(description="Parity and speed of the Triton kernels.")
    parser.add_argument("--json", type=Path, help="also write everything into this file")
    parser.add_argument(
        "--interpret",
        action="store_true",
        help="parity alone, under Triton's interpreter on the CPU; no speed is measured",
    )
    given = parser.parse_args()
    if given.interpret:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        print("no GPU that PyTorch can use was found; --interpret checks parity on the CPU", file=sys.stderr)
        return 2
    # The float64 references, and the materialised rivals in float32, are not to be rounded to TF32.
    torch.backends.cuda.matmul.allow_tf32 = False
    seed = secrets.randbits(31)
    torch.manual_seed(seed)
    device = "cpu" if given.interpret else "cuda"
    checked = list(parities(device))
    red = [parity for parity in checked if not parity.green]
    worst = max(checked, key=lambda parity: parity.error / parity.limit)
    print(
        f"parity, seed {seed}: {len(checked) - len(red)} of {len(checked)} green; nearest its limit:"
        f" {worst.name}, {worst.error:.1e}"
    )
    for parity in red:
        print(f"RED {parity.name}: error {parity.error:.1e}, limit {parity.limit:.0e}")
    rows: list[Row] = []
    if not red and device == "cuda":
        top = ceilings()
        reached = (
            f"{top.bytes_per_second / 1e12:.2f} TB/s copied, {top.exponentials_per_second / 1e12:.2f} T"
            " exponentials/s"
        )
        print(f"{torch.cuda.get_device_name()}: {reached}")
        print(f"{'':28s} {'':48s} {'ms':>9s} {'launched':>9s} {'floor':>9s}")
        for part in (scan_rows(top), convolution_rows(top), alignment_rows(top), fusion_rows()):
            for row in part:
                rows.append(row)
                print(line(row), flush=True)
    if given.json:
        report = {
            "seed": seed,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device == "cuda" else "interpreter",
        }
        report |= {"parity": [asdict(parity) for parity in checked], "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
