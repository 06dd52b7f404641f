"""The Triton scan against the definition in float64; under Triton's interpreter where there is no GPU."""

from typing import Any

import pytest
import torch
from torch import Tensor

from alignmamba.ops import selective_scan
from instruments import unwritten_is_nan
from tolerances import BFLOAT16, FLOAT16, FLOAT32

pytest.importorskip("triton", reason="triton is not installed")

from alignmamba.ops.gpu.scan import scan_backward, scan_forward

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")


def arguments(
    batch: int, time: int, channel: int, state: int, *, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Any]:
    """Arguments in the order of `NAMES`, their token tensors slices of wider ones."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    wide, maps = (
        normal(batch, time, 2 * channel).to(DEVICE, dtype),
        normal(batch, time, 2 * state + 3).to(DEVICE, dtype),
    )
    u, z = wide.chunk(2, -1)
    return {
        "u": u,
        "delta": normal(batch, time, channel).to(DEVICE, dtype),
        "A": (-torch.rand(channel, state, generator=generator) * state).to(DEVICE),
        "B": maps[..., 3 : state + 3],
        "C": maps[..., state + 3 :],
        "D": normal(channel).to(DEVICE),
        "z": z,
        "delta_bias": normal(channel).to(DEVICE),
        "initial_state": normal(batch, channel, state).to(DEVICE),
    }


def kernel(
    given: dict[str, Any], weights: tuple[Tensor, Tensor | None], *, softplus: bool, algorithm: Any
) -> list[Tensor | None]:
    """Output, final state and every gradient of (output * weight + state * weight).sum() by the kernels."""
    with unwritten_is_nan():
        y, final, kept = scan_forward(
            *given.values(), softplus=softplus, checkpoint=True, algorithm=algorithm
        )
        assert kept is not None
        tensors = list(given.values())[:-1]
        gradients = scan_backward(*tensors, kept, *weights, softplus=softplus, algorithm=algorithm)
    return [y, final, *gradients]


def oracle(
    given: dict[str, Any], weights: tuple[Tensor, Tensor | None], *, softplus: bool
) -> list[Tensor | None]:
    leaves = {
        name: None if tensor is None else tensor.detach().double().requires_grad_()
        for name, tensor in given.items()
    }
    y, final = selective_scan(**leaves, delta_softplus=softplus, return_final_state=True, backend="torch")
    loss = (y * weights[0].double()).sum()
    if weights[1] is not None:
        loss = loss + (final * weights[1].double()).sum()
    present = [leaf for leaf in leaves.values() if leaf is not None]
    found = iter(torch.autograd.grad(loss, present, allow_unused=True))
    return [y.detach(), final.detach(), *(None if leaf is None else next(found) for leaf in leaves.values())]


def compare(found: list[Tensor | None], expected: list[Tensor | None], tolerance: dict[str, float]) -> None:
    for name, tensor, exact in zip(("y", "final", *NAMES), found, expected, strict=True):
        if exact is None:
            assert tensor is None or name == "initial_state", name
            continue
        assert tensor is not None, name
        scale = exact.abs().max().clamp(min=1) if exact.numel() else 1.0
        torch.testing.assert_close(
            tensor.double() / scale, exact / scale, **tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("algorithm", ["sequential", "chunked"])
@pytest.mark.parametrize("shape", [(2, 1, 2, 1), (1, 63, 17, 3), (2, 65, 33, 2), (1, 80, 4, 17)])
def test_value_and_every_gradient(shape: tuple[int, int, int, int], algorithm: str) -> None:
    given = arguments(*shape)
    weights = (
        torch.randn(given["u"].shape, device=DEVICE),
        torch.randn(given["initial_state"].shape, device=DEVICE),
    )
    found = kernel(given, weights, softplus=True, algorithm=algorithm)
    compare(found, oracle(given, weights, softplus=True), FLOAT32)


@pytest.mark.parametrize("algorithm", ["sequential", "chunked"])
def test_what_may_be_absent(algorithm: str) -> None:
    given = arguments(2, 40, 3, 2) | {"D": None, "z": None, "delta_bias": None, "initial_state": None}
    given["delta"] = given["delta"].sigmoid()
    weights = torch.randn(2, 40, 3, device=DEVICE), None
    compare(
        kernel(given, weights, softplus=False, algorithm=algorithm),
        oracle(given, weights, softplus=False),
        FLOAT32,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, BFLOAT16), (torch.float16, FLOAT16)])
def test_half_precision_rounds_results_only(dtype: torch.dtype, tolerance: dict[str, float]) -> None:
    given = arguments(1, 40, 5, 2, dtype=dtype)
    weights = torch.randn(1, 40, 5, device=DEVICE).to(dtype), torch.randn(1, 5, 2, device=DEVICE)
    found = kernel(given, weights, softplus=True, algorithm="chunked")
    assert [tensor.dtype for tensor in found if tensor is not None] == [
        *(
            dtype,
            torch.float32,
            dtype,
            dtype,
            torch.float32,
            dtype,
            dtype,
            torch.float32,
            dtype,
            torch.float32,
            torch.float32,
        )
    ]
    compare(found, oracle(given, weights, softplus=True), tolerance)


@pytest.mark.parametrize("algorithm", ["sequential", "chunked"])
def test_the_same_bits_twice_and_arguments_left_alone(algorithm: str) -> None:
    given = arguments(2, 40, 3, 2)
    before = {name: tensor.clone() for name, tensor in given.items()}
    weights = torch.randn(2, 40, 3, device=DEVICE), torch.randn(2, 3, 2, device=DEVICE)
    first, second = (kernel(given, weights, softplus=True, algorithm=algorithm) for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None
    )
    assert all(torch.equal(given[name], before[name]) for name in NAMES)


def test_small_steps_and_hardly_any_decay() -> None:
    """Steps of 1e-4, where softplus by subtraction would lose every digit, and states that remember the whole
    sequence.
    """
    given = arguments(1, 130, 3, 2)
    given["delta"], given["delta_bias"] = given["delta"] - 8, None
    given["A"] = given["A"] * 1e-2
    weights = torch.randn(1, 130, 3, device=DEVICE), torch.randn(1, 3, 2, device=DEVICE)
    found, expected = (
        kernel(given, weights, softplus=True, algorithm="chunked"),
        oracle(given, weights, softplus=True),
    )
    compare(found, expected, FLOAT32)
    torch.testing.assert_close(found[3].double(), expected[3], rtol=1e-3, atol=1e-6)  # type: ignore[union-attr]


def test_without_gradients_nothing_is_kept() -> None:
    given = arguments(1, 40, 3, 2)
    alone = scan_forward(*given.values(), softplus=True, checkpoint=False)
    trained = scan_forward(*given.values(), softplus=True, checkpoint=True)
    assert alone[2] is None
    assert torch.equal(alone[0], trained[0])


@pytest.mark.parametrize("empty", [(0, 5, 3), (2, 0, 3)])
def test_nothing_in_nothing_out(empty: tuple[int, int, int]) -> None:
    given = arguments(*empty, 2)
    weights = torch.randn(empty, device=DEVICE), torch.randn(empty[0], 3, 2, device=DEVICE)
    found = kernel(given, weights, softplus=True, algorithm="auto")
    assert torch.equal(found[1], given["initial_state"])  # type: ignore[arg-type]
    assert torch.equal(found[-1], weights[1])  # type: ignore[arg-type]
    assert all(not gradient.any() for gradient in found[2:-1] if gradient is not None)


def test_any_strides() -> None:
    """Tensors whose channels do not lie one apart give what their copies give, and every result is
    contiguous.
    """
    given = arguments(2, 20, 3, 2)
    strided = {name: tensor.transpose(0, -1).contiguous().transpose(0, -1) for name, tensor in given.items()}
    weights = torch.randn(3, 20, 2, device=DEVICE).transpose(0, 2), torch.randn(2, 3, 2, device=DEVICE)
    found, expected = (kernel(g, weights, softplus=True, algorithm="sequential") for g in (strided, given))
    for a, b in zip(found, expected, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)
        assert a.is_contiguous()
