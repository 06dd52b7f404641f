"""Compile every Triton kernel that a call launches, for a GPU that need not be there: run as a script,
without the interpreter.

Launches are recorded in place of being made, so each kernel is compiled with the argument types, constants
and specialisations that the call really gives it. Prints one JSON object a line: the kernel, the target, and
what the assembler says of its resources.

Usage: ``python tests/ops/gpu_compilation.py cuda:90 scan``
"""

import inspect
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TARGETS = {
    "cuda:80": GPUTarget("cuda", 80, 32),
    "cuda:90": GPUTarget("cuda", 90, 32),
    "hip:gfx942": GPUTarget("hip", "gfx942", 64),
}
_TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}

Launch = tuple[JITFunction, tuple[Any, ...], dict[str, Any]]


def launches(call: Callable[[], object]) -> list[Launch]:
    """Launches that `call` would make."""
    found: list[Launch] = []

    def record(kernel: JITFunction, *args: Any, grid: object, warmup: bool, **kwargs: Any) -> None:  # noqa: ARG001
        found.append((kernel, args, kwargs))

    original = JITFunction.run
    JITFunction.run = record  # type: ignore[method-assign]
    try:
        call()
    finally:
        JITFunction.run = original  # type: ignore[method-assign]
    return found


def compiled(launch: Launch, target: GPUTarget) -> Any:
    """The kernel as the launcher would have it compiled: multiples of 16 and aligned pointers known, ones and
    absent tensors constant.
    """
    kernel, args, kwargs = launch
    options = {name: kwargs[name] for name in ("num_warps", "num_stages") if name in kwargs}
    given = (
        inspect.signature(kernel.fn)
        .bind(*args, **{k: v for k, v in kwargs.items() if k not in options})
        .arguments
    )
    signature, constants, attributes = {}, {}, {}
    for number, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if (
            parameter.is_constexpr
            or value is None
            or (isinstance(value, int) and value == 1 and not parameter.do_not_specialize)
        ):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[parameter.name] = _TYPES[value.dtype]
            if value.data_ptr() % 16 == 0:
                attributes[(number,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0 and not parameter.do_not_specialize:
                attributes[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=target, options=options)


def resources(kernel: Any, target: GPUTarget) -> dict[str, int]:
    """Registers and bytes spilled, by the assembler's own report."""
    if target.backend == "hip":
        text = kernel.asm["amdgcn"]
        counts = {
            name: int(re.findall(rf"\.{name}:\s+(\d+)", text)[0])
            for name in ("vgpr_count", "vgpr_spill_count")
        }
        return {
            "registers": counts["vgpr_count"],
            "spilled": counts["vgpr_spill_count"],
            "shared": kernel.metadata.shared,
        }
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        report = subprocess.run(
            [str(tool), "--dump-resource-usage", file.name], check=True, capture_output=True, text=True
        ).stdout
    counts = {name: int(re.findall(rf"{name}:(\d+)", report)[0]) for name in ("REG", "STACK", "LOCAL")}
    return {
        "registers": counts["REG"],
        "spilled": counts["STACK"] + counts["LOCAL"],
        "shared": kernel.metadata.shared,
    }


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(dtype)


def _scan_calls() -> Iterator[tuple[str, Callable[[], object]]]:
    from alignmamba.ops.gpu.scan import scan_backward, scan_forward

    # A size of one is a constant to the compiler, so kernels see another kind of argument there.
    cases = [
        (torch.float32, 16, True, "sequential", (2, 400, 512)),
        (torch.bfloat16, 16, True, "chunked", (2, 400, 512)),
        (torch.float16, 3, False, "chunked", (2, 400, 500)),
        (torch.float32, 256, True, "sequential", (2, 400, 48)),
        (torch.float32, 1, True, "sequential", (1, 1, 1)),
        (torch.float32, 1, False, "chunked", (1, 400, 1)),
    ]
    for dtype, state, full, algorithm, (batch, time, channel) in cases:
        u, z = (
            _random(batch, time, channel, dtype=dtype),
            _random(batch, time, 2 * channel, dtype=dtype)[..., channel:] if full else None,
        )
        B, C = _random(batch, time, 16 + 2 * state, dtype=dtype)[..., 16:].chunk(2, -1)
        A, one = -torch.rand(channel, state), torch.rand(channel) if full else None
        initial = _random(batch, channel, state) if full else None
        kept = torch.empty(batch, -(-time // 16), state, channel)

        def forward(
            u=u, A=A, B=B, C=C, one=one, z=z, initial=initial, full=full, algorithm=algorithm
        ) -> object:
            return scan_forward(
                u, u, A, B, C, one, z, one, initial, softplus=full, checkpoint=True, algorithm=algorithm
            )

        def backward(
            u=u, A=A, B=B, C=C, one=one, z=z, initial=initial, full=full, algorithm=algorithm, kept=kept
        ) -> object:
            return scan_backward(
                u, u, A, B, C, one, z, one, kept, u, initial, softplus=full, algorithm=algorithm
            )

        name = f"{str(dtype)[6:]} state {state} channel {channel} {algorithm}{' full' if full else ''}"
        yield f"forward {name}", forward
        yield f"backward {name}", backward


def _convolution_calls() -> Iterator[tuple[str, Callable[[], object]]]:
    from alignmamba.ops.gpu.convolution import conv_backward, conv_forward

    cases = [
        (torch.float32, 4, (2, 40, 512)),
        (torch.bfloat16, 4, (2, 40, 512)),
        (torch.float16, 16, (2, 40, 17)),
        (torch.float32, 1, (1, 1, 1)),
    ]
    for dtype, width, (batch, time, channel) in cases:
        x, grad = (
            _random(batch, time, 2 * channel, dtype=dtype)[..., :channel],
            _random(batch, time, channel, dtype=dtype),
        )
        weight, bias = torch.randn(width, channel), torch.randn(channel)
        name = f"{str(dtype)[6:]} width {width} channel {channel}"
        yield f"forward {name}", lambda x=x, weight=weight, bias=bias: conv_forward(x, weight, bias)
        yield (
            f"backward {name}",
            lambda x=x, weight=weight, bias=bias, grad=grad: conv_backward(x, weight, bias, grad),
        )


def _transport_calls() -> Iterator[tuple[str, Callable[[], object]]]:
    from alignmamba.ops.gpu.transport import match, segment_sum

    for dtype, channel, weight in [
        (torch.float32, 64, 0.0),
        (torch.float32, 256, 10.0),
        (torch.bfloat16, 64, 10.0),
        (torch.float16, 17, 0.0),
        (torch.bfloat16, 1000, 1.0),
    ]:
        x, times = _random(2, 300, channel, dtype=dtype), torch.rand(2, 300)
        first = torch.zeros(2, 300, dtype=torch.int32)
        name = f"{str(dtype)[6:]} channel {channel}{' timed' if weight else ''}"
        yield (
            f"match {name}",
            lambda x=x, first=first, times=times, weight=weight: match(
                x, x, first, first + 300, times, times, weight
            ),
        )
        yield f"segment_sum {name}", lambda x=x: segment_sum(x, torch.zeros(2, 300, dtype=torch.int64), 70)
    one, zero = _random(1, 1, 1), torch.zeros(1, 1, dtype=torch.int32)
    yield "match of one", lambda: match(one, one, zero, zero + 1, one[..., 0], one[..., 0], 1.0)
    yield "segment_sum of one", lambda: segment_sum(one, torch.zeros(1, 1, dtype=torch.int64), 1)


def _discrepancy_calls() -> Iterator[tuple[str, Callable[[], object]]]:
    from alignmamba.ops.gpu.discrepancy import weighted_kernel_sum

    for (batch, time, channel), gradient in [
        ((2, 100, 64), True),
        ((2, 100, 64), False),
        ((2, 100, 17), True),
        ((1, 1, 1), True),
    ]:
        x, mask = _random(batch, time, channel), torch.ones(batch, time, dtype=torch.bool)
        scale, weights = torch.ones(batch), torch.ones(3, batch)
        yield (
            f"channel {channel}{' gradient' if gradient else ''}",
            lambda x=x, mask=mask, scale=scale, weights=weights, gradient=gradient: weighted_kernel_sum(
                x, x, mask, mask, scale, weights, need_gradient=gradient
            ),
        )


CALLS = {
    "scan": _scan_calls,
    "convolution": _convolution_calls,
    "transport": _transport_calls,
    "discrepancy": _discrepancy_calls,
}


def main(target_name: str, operator: str) -> None:
    """Compile all kernels of one operator for one target and report on each."""
    target = TARGETS[target_name]
    # the kernels' tables ask it for the width of a wavefront
    torch.version.hip = "0" if target.backend == "hip" else None
    for case, call in CALLS[operator]():
        for launch in launches(call):
            kernel = compiled(launch, target)
            print(
                json.dumps({"case": case, "kernel": launch[0].__name__, **resources(kernel, target)}),
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
