"""The selective scan against the recurrence written as a plain loop over time in float64."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from alignmamba.errors import BackendError, ShapeError
from alignmamba.ops import scan, selective_scan, selective_scan_step
from instruments import KeptBytes, LargestTensor
from tolerances import BFLOAT16, EXACT, FLOAT16, FLOAT32, FLOAT64, GRADCHECK, LONG_FLOAT32

Arguments = dict[str, Tensor]
OPTIONAL = ("D", "z", "delta_bias", "initial_state")
BACKENDS = ("torch", "numba")
in_single_precision = pytest.mark.parametrize("backend", BACKENDS)
in_either_precision = pytest.mark.parametrize(
    ("dtype", "backend"),
    [(torch.float64, "torch"), (torch.float32, "torch"), (torch.float32, "numba")],
    ids=["float64", "float32", "compiled"],
)


def draw(batch: int, time: int, channel: int, state: int, *, seed: int = 0, full: bool = True) -> Arguments:
    """Float64 arguments; with `full` the optional tensors too."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    arguments = {
        "u": normal(batch, time, channel),
        "delta": normal(batch, time, channel),
        "A": -normal(channel, state).exp(),
        "B": normal(batch, time, state),
        "C": normal(batch, time, state),
        "D": normal(channel),
        "z": normal(batch, time, channel),
        "delta_bias": normal(channel),
        "initial_state": normal(batch, channel, state),
    }
    return arguments if full else {name: tensor for name, tensor in arguments.items() if name not in OPTIONAL}


def loop(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *,
    delta_softplus: bool = True,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The oracle: Gu & Dao, arXiv:2312.00752, token by token, with torch's own derivatives."""
    h = torch.zeros(u.shape[0], *A.shape, dtype=u.dtype) if initial_state is None else initial_state
    gates = [None] * u.shape[1] if z is None else z.unbind(1)
    outputs = []
    for u_t, delta_t, B_t, C_t, z_t in zip(
        u.unbind(1), delta.unbind(1), B.unbind(1), C.unbind(1), gates, strict=True
    ):
        step = delta_t if delta_bias is None else delta_t + delta_bias
        step = torch.log1p(step.exp()) if delta_softplus else step
        h = (step[:, :, None] * A).exp() * h + step[:, :, None] * B_t[:, None, :] * u_t[:, :, None]
        y = (h * C_t[:, None, :]).sum(-1)
        y = y if D is None else y + D * u_t
        outputs.append(y if z_t is None else y * z_t * torch.sigmoid(z_t))
    return torch.stack(outputs, 1) if outputs else torch.zeros_like(u), h


def with_gradients(run: Any, arguments: Arguments, **options: Any) -> dict[str, Tensor]:
    """Output, final state and the gradient of every argument, for fixed and unequal weights of all
    outputs.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in arguments.items()}
    y, state = run(**leaves, **options)
    weights = torch.Generator().manual_seed(99)
    loss = sum(
        (out * torch.randn(out.shape, generator=weights, dtype=torch.float64).to(out.dtype)).sum()
        for out in (y, state)
    )
    # Without any time the loop touches no leaf: no gradient there, a zero one from the operator.
    if loss.requires_grad:
        loss.backward()
    gradients = {
        f"gradient of {name}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        for name, leaf in leaves.items()
    }
    return {"output": y.detach(), "final state": state.detach(), **gradients}


def assert_same(
    actual: dict[str, Tensor],
    expected: dict[str, Tensor],
    tolerance: dict[str, float],
    *,
    relative: bool = False,
) -> None:
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        scale = max(1.0, float(wanted.abs().max())) if relative and wanted.numel() else 1.0
        assert_close(
            actual[name].double() / scale,
            wanted / scale,
            **tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def both_outputs(**arguments: Any) -> tuple[Tensor, Tensor]:
    return selective_scan(**arguments, return_final_state=True)


@pytest.mark.parametrize("full", [True, False], ids=["all arguments", "required arguments"])
@pytest.mark.parametrize(
    ("batch", "time", "channel", "state"),
    [
        (2, 0, 3, 2),
        (0, 4, 3, 2),
        (1, 1, 1, 1),
        (2, 1, 17, 16),
        (2, 63, 5, 1),
        (3, 64, 2, 16),
        (2, 65, 17, 16),
        (1, 130, 17, 3),
        (2, 70, 3, 80),
    ],
)
def test_value_and_every_gradient_equal_the_loop(
    batch: int, time: int, channel: int, state: int, full: bool
) -> None:
    arguments = draw(batch, time, channel, state, full=full)
    assert_same(with_gradients(both_outputs, arguments), with_gradients(loop, arguments), FLOAT64)
    single = {name: tensor.float() for name, tensor in arguments.items()}
    expected = with_gradients(loop, {name: tensor.double() for name, tensor in single.items()})
    for backend in BACKENDS:
        assert_same(with_gradients(both_outputs, single, backend=backend), expected, FLOAT32, relative=True)


@pytest.mark.parametrize("optional", OPTIONAL)
def test_each_optional_argument_alone_equals_the_loop(optional: str) -> None:
    everything = draw(2, 66, 4, 3)
    arguments = {
        name: tensor for name, tensor in everything.items() if name not in OPTIONAL or name == optional
    }
    assert_same(with_gradients(both_outputs, arguments), with_gradients(loop, arguments), FLOAT64)


def test_without_softplus_the_step_size_is_taken_as_it_is() -> None:
    arguments = draw(2, 66, 4, 3)
    arguments["delta"] = arguments["delta"].abs() / 4
    arguments["delta_bias"] = arguments["delta_bias"].abs() / 4
    expected = with_gradients(loop, arguments, delta_softplus=False)
    assert_same(with_gradients(both_outputs, arguments, delta_softplus=False), expected, FLOAT64)


def test_constant_drive_without_decay_is_a_running_sum() -> None:
    ones = torch.ones(1, 200, 1, dtype=torch.float64)
    y = selective_scan(
        ones, 0.5 * ones, torch.zeros(1, 1, dtype=torch.float64), ones, ones, delta_softplus=False
    )
    assert_close(y[0, :, 0], 0.5 * torch.arange(1, 201, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("longest", [2, 64], ids=["three chunks", "one chunk"])
@pytest.mark.parametrize("full", [True, False], ids=["all arguments", "required arguments"])
def test_gradcheck(full: bool, longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_LONGEST_CHUNK", longest)
    arguments = {name: tensor.requires_grad_() for name, tensor in draw(2, 5, 3, 2, full=full).items()}
    names = list(arguments)
    assert torch.autograd.gradcheck(
        lambda *tensors: both_outputs(**dict(zip(names, tensors, strict=True))),
        tuple(arguments.values()),
        **GRADCHECK,
    )


def test_tensors_that_are_not_contiguous_give_the_same() -> None:
    arguments = draw(3, 66, 4, 3)

    def strided(tensor: Tensor) -> Tensor:
        backwards = (
            tensor.permute(*reversed(range(tensor.ndim))).contiguous().permute(*reversed(range(tensor.ndim)))
        )
        return torch.stack([backwards, torch.full_like(backwards, torch.nan)], -1)[..., 0]

    scattered = {name: strided(tensor) for name, tensor in arguments.items()}
    assert not any(tensor.is_contiguous() for tensor in scattered.values())
    expanded = {
        **arguments,
        "B": arguments["B"][:1, :1].expand(3, 66, 3),
        "z": arguments["z"][:, :, :1].expand(3, 66, 4),
    }
    assert_same(with_gradients(both_outputs, scattered), with_gradients(loop, arguments), FLOAT64)
    assert_same(with_gradients(both_outputs, expanded), with_gradients(loop, expanded), FLOAT64)


def test_gradient_passes_through_the_final_state_alone() -> None:
    gradients = []
    for run in (both_outputs, loop):
        leaves = {name: tensor.requires_grad_() for name, tensor in draw(2, 130, 3, 2).items()}
        _, state = run(**leaves)
        touched = [leaves[name] for name in ("u", "delta", "A", "B", "delta_bias", "initial_state")]
        gradients.append(torch.autograd.grad(state.pow(3).sum(), touched))
    assert_close(gradients[0], gradients[1], **FLOAT64)


@given(time=st.integers(0, 140), split=st.floats(0, 1), seed=st.integers(0, 9))
def test_a_sequence_in_two_parts_with_the_state_handed_over_equals_one_pass(
    time: int, split: float, seed: int
) -> None:
    arguments = draw(2, time, 3, 2, seed=seed)
    at = round(split * time)

    def in_two(**tensors: Tensor) -> tuple[Tensor, Tensor]:
        first = {
            name: tensor[:, :at] if name in ("u", "delta", "B", "C", "z") else tensor
            for name, tensor in tensors.items()
        }
        second = {
            name: tensor[:, at:] if name in ("u", "delta", "B", "C", "z") else tensor
            for name, tensor in tensors.items()
        }
        y_first, state = both_outputs(**first)
        y_second, state = both_outputs(**{**second, "initial_state": state})
        return torch.cat([y_first, y_second], 1), state

    assert_same(with_gradients(in_two, arguments), with_gradients(both_outputs, arguments), FLOAT64)


@pytest.mark.parametrize("full", [True, False], ids=["all arguments", "required arguments"])
def test_token_by_token_equals_the_full_pass(full: bool) -> None:
    arguments = draw(2, 67, 3, 4, full=full)
    y, final_state = both_outputs(**arguments)
    state = arguments.pop("initial_state", torch.zeros(2, 3, 4, dtype=torch.float64))
    outputs = []
    for t in range(67):
        before = state.clone()
        token = {
            name: tensor[:, t] if name in ("u", "delta", "B", "C", "z") else tensor
            for name, tensor in arguments.items()
        }
        y_t, after = selective_scan_step(**token, state=state)
        assert torch.equal(state, before), "the state given was modified"
        outputs.append(y_t)
        state = after
    assert_close(torch.stack(outputs, 1), y, **FLOAT64)
    assert_close(state, final_state, **FLOAT64)


def test_a_step_without_softplus_takes_the_step_size_as_it_is() -> None:
    arguments = draw(2, 1, 3, 4)
    expected, _ = loop(**arguments, delta_softplus=False)
    state = arguments.pop("initial_state")
    token = {
        name: tensor[:, 0] if name in ("u", "delta", "B", "C", "z") else tensor
        for name, tensor in arguments.items()
    }
    assert_close(
        selective_scan_step(**token, state=state, delta_softplus=False)[0], expected[:, 0], **FLOAT64
    )


def test_long_sequence_that_hardly_decays() -> None:
    arguments = draw(1, 4096, 3, 4)
    # times a step size of about 1e-2: a decay of 1 - 1e-5 a token, memory over all of the sequence
    arguments["A"] *= 1e-3
    arguments["delta_bias"] = arguments["delta_bias"] - 5
    expected = with_gradients(loop, arguments)
    assert_same(with_gradients(both_outputs, arguments), expected, FLOAT64, relative=True)
    single = {name: tensor.float() for name, tensor in arguments.items()}
    for backend in BACKENDS:
        assert_same(
            with_gradients(both_outputs, single, backend=backend), expected, LONG_FLOAT32, relative=True
        )


@in_single_precision
@pytest.mark.parametrize("value", [-1e4, -100.0, 30.0, 1e4, 1e30])
def test_extreme_step_sizes_stay_finite(value: float, backend: str) -> None:
    arguments = {name: tensor.float() for name, tensor in draw(2, 70, 3, 4).items()}
    arguments["delta"] = torch.full_like(arguments["delta"], value)
    for name, tensor in with_gradients(both_outputs, arguments, backend=backend).items():
        assert tensor.isfinite().all(), name


def test_no_step_keeps_the_state_and_a_huge_one_forgets_it() -> None:
    arguments = draw(2, 70, 3, 4)
    arguments["delta"] = torch.full_like(arguments["delta"], -1e4)
    assert_close(both_outputs(**arguments)[1], arguments["initial_state"], **EXACT)
    arguments["delta"] = torch.full_like(arguments["delta"], 1e4)
    forgotten = both_outputs(**{**arguments, "initial_state": 1e3 * arguments["initial_state"]})[1]
    assert_close(forgotten, both_outputs(**arguments)[1], **EXACT)


@in_single_precision
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.bfloat16, BFLOAT16), (torch.float16, FLOAT16)],
    ids=["bfloat16", "float16"],
)
def test_half_precision_comes_back_and_is_computed_in_single(
    dtype: torch.dtype, tolerance: dict[str, float], backend: str
) -> None:
    half = {name: tensor.to(dtype) for name, tensor in draw(2, 130, 5, 4).items()}
    y, state = both_outputs(**half, backend=backend)
    expected_y, expected_state = loop(**{name: tensor.double() for name, tensor in half.items()})
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    assert_close(y.double(), expected_y, **tolerance)
    assert_close(state.double(), expected_state, **FLOAT32)


@in_single_precision
def test_parameters_in_single_precision_beside_half_precision_tokens(backend: str) -> None:
    arguments = {name: tensor.float() for name, tensor in draw(2, 70, 5, 4).items()}
    tokens = {name: arguments[name].bfloat16() for name in ("u", "delta", "B", "C", "z")}
    actual = with_gradients(both_outputs, {**arguments, **tokens}, backend=backend)
    expected = with_gradients(
        loop, {name: tensor.double() for name, tensor in {**arguments, **tokens}.items()}
    )
    assert actual["output"].dtype == actual["gradient of u"].dtype == torch.bfloat16
    assert actual["gradient of A"].dtype == torch.float32
    assert_same(actual, expected, BFLOAT16, relative=True)


@in_single_precision
@pytest.mark.parametrize("backward_too", [False, True], ids=["forward", "forward and backward"])
def test_autocast_does_not_lower_the_precision(backward_too: bool, backend: str) -> None:
    arguments = {name: tensor.float() for name, tensor in draw(2, 70, 5, 4).items()}
    expected = {
        name: tensor.double()
        for name, tensor in with_gradients(both_outputs, arguments, backend=backend).items()
    }

    def under_autocast(**tensors: Any) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return both_outputs(**tensors)

    with torch.autocast("cpu", torch.bfloat16, enabled=backward_too):
        actual = with_gradients(under_autocast, arguments, backend=backend)
    assert_same(actual, expected, EXACT)


@in_either_precision
@pytest.mark.parametrize("position", [1, 63, 64, 100])
def test_a_later_token_never_changes_an_earlier_output(
    position: int, dtype: torch.dtype, backend: str
) -> None:
    arguments: dict[str, Any] = {name: tensor.to(dtype) for name, tensor in draw(2, 130, 3, 4).items()}
    expected = selective_scan(**arguments, backend=backend)
    for name in ("u", "delta", "B", "C", "z"):
        for garbage in (3.0, torch.nan, torch.inf):
            changed = {**arguments, name: arguments[name].clone()}
            changed[name][:, position:] = garbage
            actual = selective_scan(**changed, backend=backend)
            assert torch.equal(actual[:, :position], expected[:, :position]), (name, garbage)
            assert not torch.equal(actual[:, position:], expected[:, position:]), (name, garbage)


def test_sequences_of_a_batch_do_not_mix() -> None:
    arguments = draw(3, 66, 3, 4)
    y, state = both_outputs(**arguments)
    alone = {
        name: tensor[1:2] if name not in ("A", "D", "delta_bias") else tensor
        for name, tensor in arguments.items()
    }
    y_alone, state_alone = both_outputs(**alone)
    assert_close(y[1:2], y_alone, **FLOAT64)
    assert_close(state[1:2], state_alone, **FLOAT64)


@in_either_precision
def test_the_outputs_may_be_changed_in_place(dtype: torch.dtype, backend: str) -> None:
    arguments: dict[str, Any] = {
        name: tensor.to(dtype).requires_grad_() for name, tensor in draw(2, 66, 3, 4, full=False).items()
    }
    gradients = []
    for double in (lambda tensor: tensor.mul(2), lambda tensor: tensor.mul_(2)):
        y, state = both_outputs(**arguments, backend=backend)
        gradients.append(
            torch.autograd.grad(double(y).square().sum() + double(state).square().sum(), arguments["u"])
        )
    assert_close(gradients[1], gradients[0], **EXACT)


@in_either_precision
def test_training_keeps_no_more_than_the_inputs_take(
    dtype: torch.dtype, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, time, channel, state = 2, 512, 24, 32
    # the second stands for a batch so large that no chunk fits the budget
    for budget in (scan._CHUNK_BYTES, 1):
        monkeypatch.setattr(scan, "_CHUNK_BYTES", budget)
        arguments: dict[str, Any] = {
            name: tensor.to(dtype).requires_grad_()
            for name, tensor in draw(batch, time, channel, state, full=False).items()
        }
        kept = KeptBytes()
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
            y = selective_scan(**arguments, backend=backend)
        y.sum().backward()
        # u, delta before and after softplus and at most one more of that size for states; B and C.
        allowed = dtype.itemsize * (batch * time * (4 * channel + 2 * state) + channel * state)
        assert kept.total <= allowed
        assert allowed < dtype.itemsize * batch * time * channel * state / 3, (
            "the bound would let all states through"
        )


def test_states_live_one_chunk_at_a_time() -> None:
    batch, time, channel, state = 1, 1024, 16, 16
    arguments = {name: tensor.requires_grad_() for name, tensor in draw(batch, time, channel, state).items()}
    with LargestTensor() as largest:
        selective_scan(**arguments).sum().backward()
    assert largest.numel <= 64 * batch * channel * state
    assert largest.numel < batch * time * channel * state / 8


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("u", torch.zeros(2, 5)),
        ("u", torch.zeros(2, 5, 3, dtype=torch.int64)),
        ("delta", torch.zeros(2, 4, 3)),
        ("A", torch.zeros(3)),
        ("A", torch.zeros(4, 2)),
        ("A", torch.zeros(3, 2, dtype=torch.complex64)),
        ("B", torch.zeros(2, 5, 3)),
        ("C", torch.zeros(1, 5, 2)),
        ("D", torch.zeros(2)),
        ("D", torch.zeros(3, dtype=torch.int32)),
        ("z", torch.zeros(2, 5, 1)),
        ("z", torch.zeros(2, 5, 3, device="meta")),
        ("delta_bias", torch.zeros(1)),
        ("initial_state", torch.zeros(2, 2, 3)),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else f"{value.dtype} {tuple(value.shape)} {value.device}"
    ),
)
def test_a_tensor_that_does_not_fit_is_named(name: str, wrong: Tensor) -> None:
    with pytest.raises(
        ShapeError, match=rf"^{name}: expected .*found .*({re.escape(str(tuple(wrong.shape)))}|{wrong.dtype})"
    ):
        selective_scan(**{**draw(2, 5, 3, 2), name: wrong})


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(BackendError, match="'cuda9'"):
        selective_scan(**draw(1, 2, 3, 2), backend="cuda9")
    arguments = draw(1, 2, 3, 2)
    assert_close(selective_scan(**arguments, backend="torch"), selective_scan(**arguments), **FLOAT64)


def test_gate_is_silu() -> None:
    arguments = draw(1, 4, 3, 2)
    ungated = selective_scan(**{**arguments, "z": None})
    assert_close(selective_scan(**arguments), ungated * F.silu(arguments["z"]), **FLOAT64)
