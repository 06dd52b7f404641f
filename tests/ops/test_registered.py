"""The kernels as operators of PyTorch: what compilation, export, AMP, vmap and double differentiation make of
them.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from alignmamba.errors import BackendError
from alignmamba.ops import causal_conv, fused_scan, match_tokens, mmd, selective_scan
from alignmamba.ops.backends import INSTALLED
from drawn import prefix_mask
from tolerances import BFLOAT16, EXACT, FLOAT32, GRADCHECK

# By their full names: in the package some of them stand for functions.
convolution = import_module("alignmamba.ops.convolution")
discrepancy = import_module("alignmamba.ops.discrepancy")
transport = import_module("alignmamba.ops.transport")

OPERATORS = {
    "selective_scan": fused_scan._inference,
    "selective_scan_training": fused_scan._training,
    "selective_scan_backward": fused_scan._backward,
    "causal_conv": convolution._fused,
    "causal_conv_backward": convolution._fused_backward,
    "match_tokens": transport._fused_match,
    "mmd": discrepancy._fused,
    "mmd_backward": discrepancy._fused_backward,
    "landmark_sums": discrepancy._landmark_sums,
    "landmark_sums_backward": discrepancy._landmark_sums_backward,
    "lower_median": discrepancy._lower_median,
    "segment_sum": transport._segment_sum,
}
DIFFERENTIABLE = {"selective_scan_training", "causal_conv", "mmd", "landmark_sums", "segment_sum"}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def scan_tensors(
    dtype: torch.dtype, *, full: bool, batch: int = 2, time: int = 37, channel: int = 5, state: int = 3
) -> list[Any]:
    """The tensors of the scan in its order; without the optional ones if not `full`."""
    shapes = [(batch, time, channel)] * 2 + [(channel, state)] + [(batch, time, state)] * 2
    given: list[Any] = [normal(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]
    given[2] = -given[2].abs()
    optional = [(channel,), (batch, time, channel), (channel,), (batch, channel, state)]
    return given + [
        normal(*shape, seed=9 + seed, dtype=dtype) if full else None for seed, shape in enumerate(optional)
    ]


def arguments(name: str, dtype: torch.dtype, *, full: bool) -> tuple[Any, ...]:
    """Representative arguments of a registered operator; `full` gives the optional ones, its absence the
    other of two options.
    """
    if name.startswith("selective_scan"):
        tensors = scan_tensors(dtype, full=full)
        if name != "selective_scan_backward":
            return (*tensors, full)
        _, state, checkpoints = fused_scan._training(*tensors, full)
        return (
            *tensors,
            full,
            checkpoints,
            normal(2, 37, 5, seed=20, dtype=dtype),
            normal(*state.shape, seed=21, dtype=state.dtype),
        )
    if name.startswith("causal_conv"):
        given = (
            normal(2, 9, 5, dtype=dtype),
            normal(4, 5, seed=1, dtype=dtype),
            normal(5, seed=2, dtype=dtype),
        )
        return given if name == "causal_conv" else (*given, normal(2, 9, 5, seed=3, dtype=dtype))
    x, y = normal(2, 7, 4, dtype=dtype), normal(2, 9, 4, seed=1, dtype=dtype)
    x_mask, y_mask = prefix_mask([7, 3], 7), prefix_mask([9, 0], 9)
    if name == "lower_median":
        return (normal(2, 7, 7, dtype=torch.float64).abs(), x_mask)
    if name == "match_tokens":
        times = (normal(2, 7, dtype=torch.float64), normal(2, 9, dtype=torch.float64).sort(1).values)
        return (x, y, y_mask, *times, 3.0 if full else 0.0, 2 if full else None)
    if name == "mmd":
        return (x, y, x_mask, y_mask, 1.5 if full else None, full, full)
    if name.startswith("landmark_sums"):
        x, y = (side.to(torch.promote_types(dtype, torch.float32)) for side in (x, y))
        given = (x, x_mask, y, y_mask, normal(2, seed=4, dtype=torch.float64).abs())
        return given if name == "landmark_sums" else (*given, normal(2, 9, seed=5, dtype=torch.float64))
    if name == "mmd_backward":
        working = torch.promote_types(dtype, torch.float32)
        return (x.to(working), y.to(working), normal(2, seed=4, dtype=working), dtype)
    return (x.to(torch.float32), prefix_mask([7, 3], 7).long() * 2 - 1, 5)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum that only a GPU's kernel gives, in PyTorch, so that its operator can be tried anywhere."""

    def segment_sum(tokens: Tensor, index: Tensor, num_anchor: int) -> Tensor:
        sent = torch.nn.functional.one_hot(index + 1, num_anchor + 1)[..., 1:].to(tokens.dtype)
        return (sent.transpose(1, 2) @ tokens).contiguous()

    module = ModuleType("alignmamba.ops.gpu.transport")
    module.segment_sum = segment_sum  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "alignmamba.ops.gpu", ModuleType("alignmamba.ops.gpu"))
    monkeypatch.setitem(sys.modules, "alignmamba.ops.gpu.transport", module)


def test_every_registered_operator_is_tried_here() -> None:
    registered = {
        name
        for name in dir(torch.ops.alignmamba)
        if isinstance(getattr(torch.ops.alignmamba, name), torch._ops.OpOverloadPacket)
    }
    assert registered == set(OPERATORS)


@pytest.mark.parametrize("full", [True, False], ids=["with options", "without options"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=["float32", "float64", "bfloat16"]
)
@pytest.mark.parametrize("name", OPERATORS)
def test_it_keeps_the_contract_of_an_operator(
    name: str, dtype: torch.dtype, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schema, autograd registration, shapes without data, and compilation with dynamic shapes, gradients
    included.
    """
    stand_in(monkeypatch)
    given = arguments(name, dtype, full=full)
    if name in DIFFERENTIABLE and not (name == "mmd" and not full):  # without `need_gradient` there is none
        given = tuple(
            a.requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in given
        )
    torch.library.opcheck(OPERATORS[name], given)


@pytest.mark.parametrize("name", OPERATORS)
def test_shapes_without_data_are_those_with_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        given = arguments(name, dtype, full=True)
        found = OPERATORS[name](*given)
        with FakeTensorMode(allow_non_fake_inputs=False) as mode:
            fake = OPERATORS[name](*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in given))
        for real, shown in zip(
            *([out] if isinstance(out, Tensor) else out for out in (found, fake)), strict=True
        ):
            assert (real.shape, real.dtype, real.stride()) == (shown.shape, shown.dtype, shown.stride())


@pytest.mark.parametrize("name", OPERATORS)
def test_vmap_is_refused_with_the_way_out(name: str) -> None:
    given = arguments(name, torch.float32, full=True)
    dims = tuple(0 if isinstance(a, Tensor) else None for a in given)
    stacked = (torch.stack([a, a]) if isinstance(a, Tensor) else a for a in given)
    with pytest.raises(
        BackendError,
        match=r"cannot be mapped by torch\.vmap: put the mapped dimension into the batch dimension",
    ):
        torch.vmap(OPERATORS[name], in_dims=dims)(*stacked)


# The public operators, as functions of tensors alone

Function = Callable[..., Tensor | tuple[Tensor, ...]]


def scan_all(*tensors: Tensor) -> tuple[Tensor, ...]:
    *given, initial_state = tensors
    return selective_scan(*given, initial_state=initial_state, return_final_state=True)


def scan_required(*tensors: Tensor) -> Tensor:
    return selective_scan(*tensors, delta_softplus=False)


def sequences(time: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [normal(2, time, 4, dtype=dtype), normal(2, time + 2, 4, seed=1, dtype=dtype)]


def match_all(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    masks = (torch.ones(side.shape[:2], dtype=torch.bool) for side in (x, y))
    return match_tokens(x, y, *masks, time_weight=10.0, window=3)


def mmd_by(bandwidth: float | str, **options: Any) -> Function:
    def run(x: Tensor, y: Tensor) -> Tensor:
        masks = (torch.ones(side.shape[:2], dtype=torch.bool) for side in (x, y))
        return mmd(x, y, *masks, bandwidth=bandwidth, **options)  # type: ignore[arg-type]

    return run


FUNCTIONS: dict[str, tuple[Function, Callable[[int], list[Tensor]]]] = {
    "selective_scan": (scan_all, lambda time: scan_tensors(torch.float32, full=True, time=time)),
    "selective_scan, required": (
        scan_required,
        lambda time: scan_tensors(torch.float32, full=False, time=time)[:5],
    ),
    "causal_conv": (causal_conv, lambda time: [normal(2, time, 5), normal(4, 5, seed=1), normal(5, seed=2)]),
    "match_tokens": (match_all, sequences),
    "mmd": (mmd_by(1.0), sequences),
    "mmd, median, unbiased": (mmd_by("median", unbiased=True), sequences),
    "mmd, landmarks": (mmd_by("median", landmarks=4), sequences),
    "mmd, reference": (mmd_by("median", backend="torch"), sequences),
}


def value_and_gradients(function: Function, tensors: list[Tensor]) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    found = function(*leaves)
    outputs = [found] if isinstance(found, Tensor) else list(found)
    loss = sum(
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outputs if out.requires_grad
    )
    gradients = torch.autograd.grad(loss, leaves) if isinstance(loss, Tensor) else ()
    return [*(out.detach() for out in outputs), *gradients]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_whole_with_dynamic_shapes_it_equals_eager(name: str) -> None:
    function, draw = FUNCTIONS[name]
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for time in (8, 70):
        for found, expected in zip(
            value_and_gradients(compiled, draw(time)), value_and_gradients(function, draw(time)), strict=True
        ):
            torch.testing.assert_close(found, expected, **FLOAT32)


@pytest.mark.parametrize("name", ["selective_scan", "causal_conv", "mmd"])
def test_differentiating_twice_is_refused_and_not_wrong(name: str) -> None:
    function, draw = FUNCTIONS[name]
    leaves = [tensor.requires_grad_() for tensor in draw(8)]
    found = function(*leaves)
    value = found if isinstance(found, Tensor) else found[0]
    (first,) = torch.autograd.grad(value.sum(), leaves[0], create_graph=True)
    with pytest.raises(
        BackendError, match=rf"^{name}: expected first derivatives only; its kernels have no second ones$"
    ):
        torch.autograd.grad(first.square().sum(), leaves[0])


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("bandwidth", [0.8, 2.0])
def test_gradcheck_of_mmd(bandwidth: float, unbiased: bool) -> None:
    x, y = (tensor.requires_grad_() for tensor in sequences(5, torch.float64))
    masks = prefix_mask([5, 3], 5), prefix_mask([7, 4], 7)
    assert torch.autograd.gradcheck(
        lambda x, y: mmd(x, y, *masks, bandwidth=bandwidth, unbiased=unbiased, backend="numba"),
        (x, y),
        **GRADCHECK,
    )


@pytest.mark.parametrize("width", [1, 4])
def test_gradcheck_of_causal_conv(width: int) -> None:
    given = [
        normal(*shape, seed=seed, dtype=torch.float64).requires_grad_()
        for seed, shape in enumerate([(2, 6, 3), (width, 3), (3,)])
    ]
    assert torch.autograd.gradcheck(
        lambda *tensors: causal_conv(*tensors, backend="numba"), given, **GRADCHECK
    )


@pytest.mark.parametrize("full", [True, False])
def test_gradcheck_of_selective_scan(full: bool) -> None:
    given = [
        None if t is None else t.requires_grad_()
        for t in scan_tensors(torch.float64, full=full, time=35, channel=2, state=2)
    ]

    def run(*tensors: Any) -> tuple[Tensor, Tensor]:
        *first, state = tensors
        return selective_scan(*first, initial_state=state, return_final_state=True, backend="numba")

    assert torch.autograd.gradcheck(run, given, **GRADCHECK)


# Automatic mixed precision


@pytest.mark.parametrize("backward_too", [True, False], ids=["backward inside", "backward outside"])
@pytest.mark.parametrize("name", ["selective_scan", "causal_conv", "mmd"])
def test_autocast_changes_nothing_of_single_precision(name: str, backward_too: bool) -> None:
    """The recurrence and the cost stay in single precision: no operator lowers what it is given."""
    function, draw = FUNCTIONS[name]
    expected = value_and_gradients(function, draw(20))
    with torch.autocast("cpu", torch.bfloat16):
        if backward_too:
            found = value_and_gradients(function, draw(20))
        else:
            leaves = [tensor.clone().requires_grad_() for tensor in draw(20)]
            outputs = function(*leaves)
            outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    if not backward_too:
        loss = sum((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outputs)
        assert isinstance(loss, Tensor)
        found = [*(out.detach() for out in outputs), *torch.autograd.grad(loss, leaves)]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, **EXACT)


def test_mixed_precision_gives_every_gradient_its_tensors_dtype() -> None:
    """Types as autocast leaves them: tokens in bfloat16 from a linear layer, parameters in float32."""
    half, single = scan_tensors(torch.bfloat16, full=True), scan_tensors(torch.float32, full=True)
    is_weight = [False, False, True, False, False, True, False, True, True]
    mixed = [
        (s if weight else h).clone().requires_grad_()
        for h, s, weight in zip(half, single, is_weight, strict=True)
    ]
    exact = [tensor.detach().float().requires_grad_() for tensor in mixed]
    with torch.autocast("cpu", torch.bfloat16):
        y, state = scan_all(*mixed)
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    gradients = torch.autograd.grad(y.float().sum() + state.sum(), mixed)
    assert [gradient.dtype for gradient in gradients] == [tensor.dtype for tensor in mixed]
    y, state = scan_all(*exact)
    for found, expected in zip(gradients, torch.autograd.grad(y.sum() + state.sum(), exact), strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(found.float() / scale, expected / scale, **BFLOAT16)

    x, weight, bias = (
        normal(2, 9, 5, dtype=torch.bfloat16).requires_grad_(),
        normal(4, 5).requires_grad_(),
        normal(5).requires_grad_(),
    )
    y = causal_conv(x, weight, bias)
    assert y.dtype == torch.bfloat16
    assert [g.dtype for g in torch.autograd.grad(y.float().sum(), (x, weight, bias))] == [
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]

    x, y = (side.bfloat16().requires_grad_() for side in sequences(6))
    value = mmd_by(1.0)(x, y)
    assert isinstance(value, Tensor)
    assert value.dtype == torch.float32
    assert [g.dtype for g in torch.autograd.grad(value.sum(), (x, y))] == [torch.bfloat16, torch.bfloat16]
    assert match_all(x, y)[1].dtype == torch.bfloat16


# Choice of the backend


def call(name: str, backend: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.zeros(1, 3, 2, device=device, dtype=dtype)
    mask = torch.ones(1, 3, dtype=torch.bool, device=device)
    options: dict[str, Any] = {"backend": backend}
    if name == "selective_scan":
        return selective_scan(x, x, x[0, :2], x, x, **options)  # type: ignore[no-any-return]
    if name == "causal_conv":
        return causal_conv(x, x[0], x[0, 0], **options)
    if name == "match_tokens":
        return match_tokens(x, x, mask, mask, **options)[0]
    return mmd(x, x, mask, mask, bandwidth=1.0, **options)


in_every_operator = pytest.mark.parametrize("name", ["selective_scan", "causal_conv", "match_tokens", "mmd"])


@in_every_operator
def test_a_backend_that_cannot_serve_is_refused_by_name(name: str) -> None:
    with pytest.raises(
        BackendError,
        match=(
            rf"^{name}: backend 'numba' cannot serve this call: it runs on the CPU, the tensors are on meta"
        ),
    ):
        call(name, "numba", device="meta")
    with pytest.raises(
        BackendError,
        match=rf"^{name}: backend 'triton' cannot serve this call: it runs on CUDA and ROCm GPUs",
    ):
        call(name, "triton")


@in_every_operator
@pytest.mark.parametrize("backend", ["cuda", "numpy", ""])
def test_an_unknown_backend_is_refused_with_those_there_are(name: str, backend: str) -> None:
    with pytest.raises(
        BackendError, match=rf"^{name} has no backend '{backend}'; it has 'auto', 'torch', 'numba', 'triton'"
    ):
        call(name, backend)


@in_every_operator
@pytest.mark.filterwarnings("error")
def test_auto_says_when_it_steps_down_and_only_then(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    best = call(name, "auto")
    monkeypatch.setitem(INSTALLED, "numba", False)
    with pytest.warns(
        RuntimeWarning,
        match=rf"^{name} runs as the reference in PyTorch, which is slow: numba: numba is not installed$",
    ) as said:
        stepped_down = call(name, "auto")
    assert len(said) == 1
    assert said[0].filename == __file__  # the line of the caller, which is what Python shows once
    torch.testing.assert_close(stepped_down, best, **FLOAT32)
    call(name, "torch")
    with pytest.raises(
        BackendError, match=rf"^{name}: backend 'numba' cannot serve this call: numba is not installed$"
    ):
        call(name, "numba")


@in_every_operator
@pytest.mark.filterwarnings("error")
def test_where_no_kernel_exists_auto_is_the_reference_without_a_word(name: str) -> None:
    assert call(name, "auto", device="meta").device.type == "meta"


@pytest.mark.filterwarnings(
    "ignore:mmd runs as the reference:RuntimeWarning",
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning",
)
def test_a_forward_mode_derivative_is_that_of_the_reference() -> None:
    """PyTorch would take an operator without one for constant."""
    x, mask = normal(1, 5, 4), prefix_mask([5], 5)

    def value(x: Tensor, **options: Any) -> Tensor:
        return mmd(x, 2 * x + 1, mask, mask, bandwidth=2.0, **options)

    ones = torch.ones_like(x)
    tangents = [
        torch.func.jvp(lambda x, options=options: value(x, **options), (x,), (ones,))[1]
        for options in ({}, {"backend": "torch"})
    ]
    assert torch.equal(*tangents)
    assert tangents[0].abs() > 1e-2
    with pytest.raises(
        BackendError, match="'numba' cannot serve this call: it has no forward-mode derivative"
    ):
        torch.func.jvp(lambda x: value(x, backend="numba"), (x,), (torch.ones_like(x),))


def test_compiled_transport_never_crosses_into_another_sample() -> None:
    index, mask = torch.tensor([[3, 0], [0, 1]]), torch.ones(2, 2, dtype=torch.bool)
    compiled = torch.compile(lambda tokens: transport.transport(tokens, index, mask, 2), backend="eager")
    assert compiled(torch.ones(2, 2, 1))[1].flatten().tolist() == [0.5, 0.5]
