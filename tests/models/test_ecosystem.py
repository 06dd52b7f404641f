"""AlignMamba in the hands of PyTorch's own machinery: compilation, checkpointing, AMP, export, ONNX, and
several processes.
"""

import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignmamba.contracts import Batch, ModalitySpec, Sequences, Target, Task
from alignmamba.errors import ShapeError
from alignmamba.models.alignmamba import AlignMamba, AlignMambaConfig
from alignmamba.models.exportable import TensorsIn, exported_program
from alignmamba.nn.mamba import MambaLayer
from tolerances import BFLOAT16_MODEL, MODEL

MODALITIES = (
    ModalitySpec(name="text", dim=11, kind="tokens"),
    ModalitySpec(name="audio", dim=4),
    ModalitySpec(name="video", dim=6),
)
# Every pattern of presence but the empty one, in one batch, with unequal lengths; an even number of samples.
LENGTHS = {
    "text": [5, 0, 3, 0, 7, 1, 0, 4],
    "audio": [9, 12, 0, 0, 2, 0, 1, 3],
    "video": [4, 6, 5, 8, 0, 0, 0, 0],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "window, anchor marginal, landmarks": {
        "local": {"window": 1, "marginal": "anchor"},
        "alignment": {"pairs": "all", "landmarks": 4},
    },
    "not aligned, bidirectional": {"local": {"method": "none"}, "bidirectional": True},
}
SOFT = {"local": {"method": "soft"}, "anneal": {"to": 0.5}, "depth": 1}
in_variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def model(**options: Any) -> AlignMamba:
    """A small model whose training step draws nothing at random."""
    torch.manual_seed(0)
    options = {
        "d_model": 16,
        "depth": 2,
        "d_state": 4,
        "dropout": 0.0,
        "encoder": {"dropout": 0.0},
        **options,
    }
    task = Task(kind="classification", classes=("a", "b", "c"))
    return AlignMamba(AlignMambaConfig.preset("default", modalities=MODALITIES, task=task, **options))


def batch(lengths: dict[str, list[int]] = LENGTHS, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    modalities = {}
    for spec in MODALITIES:
        valid = torch.tensor(lengths[spec.name])
        shape = (len(valid), max(1, int(valid.max())), spec.width)
        integers = spec.kind == "tokens"
        features = (
            torch.randint(0, spec.dim, shape, generator=generator)
            if integers
            else torch.randn(shape, generator=generator)
        )
        modalities[spec.name] = Sequences(features=features, mask=torch.arange(shape[1]) < valid[:, None])
    return Batch(modalities=modalities, ids=tuple(f"s{row}" for row in range(len(valid))))


def loss_of(run: Any, given: Batch) -> Tensor:
    """Mean over samples, as in training: the mean over two halves is the mean of their means."""
    out = run(given)
    weight = torch.linspace(-1, 1, out.prediction.shape[1], dtype=out.prediction.dtype)
    return ((out.prediction * weight).sum(1) + out.losses["mmd"]).mean()  # type: ignore[no-any-return]


def gradients(built: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    built.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad for name, p in built.named_parameters() if p.grad is not None}


def assert_equal_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, **MODEL, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("options", [*VARIANTS.values(), SOFT], ids=[*VARIANTS, "soft"])
def test_a_step_compiled_whole_equals_eager(options: dict[str, Any]) -> None:
    torch.compiler.reset()
    built = model(**options | {"depth": 1}).train()
    compiled = torch.compile(built, fullgraph=True, backend="aot_eager")
    longer = {name: [2 * length for length in lengths] for name, lengths in LENGTHS.items()}
    # at the second size it is traced with sizes that are not known
    for lengths in (LENGTHS, longer) if not options else (LENGTHS,):
        expected = loss_of(built, batch(lengths))
        expected_gradients = gradients(built, expected)
        loss = loss_of(compiled, batch(lengths))
        torch.testing.assert_close(loss, expected, **MODEL)
        assert_equal_gradients(gradients(built, loss), expected_gradients)


@pytest.mark.skipif(
    shutil.which("g++") is None, reason="inductor compiles C++ for the CPU, and there is no g++"
)
# What inductor says of PyTorch's own modules when it is imported.
@pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning")
def test_a_layer_compiled_by_inductor_equals_eager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One layer stands for all of the model, which takes a minute: the kernels are left alone, and what is
    around them is fused.
    """
    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    layer = model().backbone.layers[0]
    x, mask = (
        torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(3)),
        torch.ones(2, 9, dtype=torch.bool),
    )
    expected = gradients(layer, layer(x, mask).square().sum())
    compiled = torch.compile(layer, fullgraph=True)
    assert_equal_gradients(gradients(layer, compiled(x, mask).square().sum()), expected)


@in_variants
def test_activation_checkpointing_gives_the_same_gradients(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = model(**options).train()
    expected = loss_of(built, batch())
    expected_gradients = gradients(built, expected)
    runs = []
    forward = MambaLayer.forward

    def checkpointed(self: MambaLayer, x: Tensor, mask: Tensor) -> Tensor:
        def run(x: Tensor) -> Tensor:
            runs.append(self)
            return forward(self, x, mask)

        return checkpoint(run, x, use_reentrant=False)  # type: ignore[no-any-return]

    monkeypatch.setattr(MambaLayer, "forward", checkpointed)
    loss = loss_of(built, batch())
    assert_equal_gradients(gradients(built, loss), expected_gradients)
    layers = [layer for layer in built.modules() if isinstance(layer, MambaLayer)]
    assert len(runs) == 2 * len(layers)  # each forward and, once more, for the backward pass


# What PyTorch says of a norm whose weights are in single precision and whose tokens are not.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@in_variants
def test_autocast_to_bfloat16_is_finite_and_near(options: dict[str, Any]) -> None:
    built = model(**options).train()
    exact = built(batch())
    with torch.autocast("cpu", torch.bfloat16):
        found = built(batch())
        loss = loss_of(built, batch())
    scale = exact.prediction.abs().max()
    torch.testing.assert_close(found.prediction.float() / scale, exact.prediction / scale, **BFLOAT16_MODEL)
    for name, gradient in gradients(built, loss).items():
        assert gradient.dtype == torch.float32, name
        assert gradient.isfinite().all(), name


# Export


def tensors_of(given: Batch) -> tuple[Tensor, ...]:
    return tuple(tensor for s in given.modalities.values() for tensor in (s.features, s.mask))


# One sample, three and seven, of other lengths than those traced; some lack a modality, or all lack one.
OTHERS = [
    {"text": [1], "audio": [15], "video": [0]},
    {"text": [0, 21, 5], "audio": [4, 2, 40], "video": [0, 0, 0]},
    {"text": [3, 6, 2, 0, 1, 9, 4], "audio": [15, 0, 7, 2, 0, 1, 3], "video": [9, 3, 0, 0, 1, 2, 30]},
]


@pytest.mark.parametrize("options", [*VARIANTS.values(), SOFT], ids=[*VARIANTS, "soft"])
def test_an_exported_program_takes_any_number_of_samples_and_lengths(options: dict[str, Any]) -> None:
    built = model(**options)
    with torch.no_grad():
        run = exported_program(TensorsIn(built)).module()
        for lengths in OTHERS:
            given = batch(lengths, seed=7)
            torch.testing.assert_close(run(*tensors_of(given)), built(given).prediction, **MODEL)


def test_a_program_does_not_depend_on_an_earlier_export_of_fixed_size() -> None:
    """PyTorch remembers the sizes of what it traced last, and took them for constants."""
    built, given, wrapped = model(), batch(OTHERS[2], seed=7), TensorsIn(model(depth=1))
    lengths = tuple({1: free[1]} for free in wrapped.free()[0])
    with torch.no_grad():
        torch.export.export(wrapped, wrapped.example(), dynamic_shapes=(lengths,))
        run = exported_program(TensorsIn(built)).module()
        torch.testing.assert_close(run(*tensors_of(given)), built(given).prediction, **MODEL)


def written_in(page: str, section: str) -> list[str]:
    """The Python that a section of a page of the documentation shows."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL)


FURTHER = (
    Target(name="tone", kind="regression", labels=("tone",), modality="audio"),
    Target(name="grade", kind="ordinal", labels=("grade",), classes=("0", "1", "2")),
    Target(name="moods", kind="multilabel", labels=("a", "b"), classes=("a", "b")),
)


def predicted(built: AlignMamba, given: Batch) -> list[Tensor]:
    """Values and probabilities, NaN without the modality of a target."""
    out = built(given)
    absent = ~given.having("audio")
    return [
        out.prediction.softmax(1),
        out.further["tone"].masked_fill(absent, torch.nan),
        out.further["grade"].softmax(1),
        out.further["moods"].sigmoid(),
    ]


# What the exporter says of itself: of its own deprecated calls, and that one name stands for one size of all
# tensors.
@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:onnx.*")
@pytest.mark.parametrize(
    ("unit", "branches"), [("seconds", False), ("spans", True)]
)  # a branch costs seconds
def test_what_the_documentation_exports_gives_all_that_the_model_gives(
    unit: str, branches: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snippets of the documentation as they stand there, run with one sample, three and seven, and
    without a modality: the prediction and further targets of every kind, and times that count.
    """
    pytest.importorskip(
        "onnxscript", reason="the exporter to ONNX needs onnxscript: pip install 'alignmamba[onnx]'"
    )
    runtime = pytest.importorskip("onnxruntime", reason="the exported file is checked by onnxruntime")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    task = Task(kind="classification", classes=("a", "b", "c"), further=FURTHER)
    options = {
        "d_model": 8,
        "depth": 1,
        "d_state": 4,
        "encoder": {"kind": "linear"},
        "encoders": {"text": {"kind": "embedding"}},
        "local": {"time_unit": unit},
        "unimodal_branches": branches,
    }
    specs = MODALITIES[:2]  # of each kind one, for each costs seconds
    built = AlignMamba(AlignMambaConfig.preset("default", modalities=specs, task=task, **options)).eval()
    names: dict[str, Any] = {"model": built}
    snippets = written_in("elsewhere.md", "In Python")
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, "docs/elsewhere.md", "exec"), names)
    program = torch.export.load("model.pt2").module()
    session = runtime.InferenceSession("model.onnx")
    inputs = [f"{spec.name}{ending}" for spec in specs for ending in ("", "_mask", "_times")]
    assert [place.name for place in session.get_inputs()] == inputs
    assert [place.shape for place in session.get_inputs()][:2] == [
        ["samples", "text_tokens", 1],
        ["samples", "text_tokens"],
    ]
    assert [place.name for place in session.get_outputs()] == ["prediction", "tone", "grade", "moods"]
    for lengths in OTHERS:
        given = timed(batch(lengths, seed=7))
        given = replace(given, modalities={spec.name: given.modalities[spec.name] for spec in specs})
        tensors = [t for s in given.modalities.values() for t in (s.features, s.mask, s.times)]
        with torch.no_grad():
            expected = predicted(built, given)
            others = predicted(built, replace(given, modalities=timed(given, 1.0).modalities))
            found = program(*tensors)
        said = session.run(None, {name: t.numpy() for name, t in zip(inputs, tensors, strict=True)})
        for one, other, right in zip(found, said, expected, strict=True):
            torch.testing.assert_close(one, right, equal_nan=True, **MODEL)
            torch.testing.assert_close(torch.from_numpy(other), right, equal_nan=True, **MODEL)
    assert not torch.allclose(others[0], expected[0])  # times do count


def timed(given: Batch, power: float = 3.0) -> Batch:
    """The batch with times that rise ever faster."""
    modalities = {}
    for name, s in given.modalities.items():
        place = torch.arange(s.mask.shape[1], dtype=torch.float64) / s.mask.shape[1]
        modalities[name] = replace(s, times=(place**power).expand(s.mask.shape))
    return replace(given, modalities=modalities)


def test_exporting_rests_dropout() -> None:
    wrapped = TensorsIn(model(dropout=0.5).train())
    assert not any(module.training for module in wrapped.modules())


def test_the_number_of_tensors_is_checked() -> None:
    with pytest.raises(
        ShapeError,
        match=r"expected features and mask of each of \['text', 'audio', 'video'\], found 5 tensors",
    ):
        TensorsIn(model())(*tensors_of(batch())[:5])


# Two processes

TWO_PROCESSES = """
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

sys.path[:0] = sys.argv[2:]
from test_ecosystem import batch, gradients, loss_of, model


def main(rank, directory):
    dist.init_process_group("gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=2)
    mine = batch().select(list(range(4 * rank, 4 * rank + 4)))

    replicated = DistributedDataParallel(model().train())
    found = gradients(replicated.module, loss_of(replicated, mine))

    sharded = model().train()
    mesh = init_device_mesh("cpu", (2,))
    for layer in sharded.backbone.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    shards = gradients(sharded, loss_of(sharded, mine))
    pieces = {name: tuple(gradient.to_local().shape) for name, gradient in shards.items()}
    whole = {name: gradient.full_tensor() for name, gradient in shards.items()}
    torch.save({"replicated": found, "sharded": whole, "pieces": pieces}, f"{directory}/gradients-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    mp.start_processes(main, args=(sys.argv[1],), nprocs=2, start_method="fork")
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="the two processes are forked, which spares two imports, on Linux alone"
)
def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    """Replicated (DDP) and sharded (FSDP2), over gloo; the second process never sees any video."""
    script = tmp_path / "two_processes.py"
    script.write_text(TWO_PROCESSES)
    tests = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, str(script), str(tmp_path), str(tests), str(tests / "models")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    built = model().train()
    expected = gradients(built, loss_of(built, batch()))
    results = [torch.load(tmp_path / f"gradients-{rank}.pt", weights_only=True) for rank in range(2)]
    for found in results:
        assert_equal_gradients(found["replicated"], expected)
        assert_equal_gradients(found["sharded"], expected)
    for name, gradient in expected.items():
        numbers = [math.prod(found["pieces"][name]) for found in results]
        assert sum(numbers) == gradient.numel()  # each process holds its part alone
