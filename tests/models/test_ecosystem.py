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
from alignmamba.models.exportable import TensorsIn
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
    assert len(runs) == 4  # each of two layers forward and, once more, for the backward pass


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


def lengths_of_their_own() -> tuple[dict[int, Any], ...]:
    dims = [torch.export.Dim(f"{spec.name}_time", min=2, max=512) for spec in MODALITIES]
    return tuple({1: dim} for dim in dims for _ in range(2))


# Three samples each, of other lengths than those traced; the last without any video.
OTHERS = [
    {"text": [3, 6, 2], "audio": [15, 0, 7], "video": [9, 3, 0]},
    {"text": [0, 21, 5], "audio": [4, 2, 40], "video": [0, 0, 0]},
]
TRACED = {"text": [5, 0, 3], "audio": [9, 12, 0], "video": [4, 6, 5]}


def padded(given: Batch) -> Batch:
    """With at least two steps of time, the least that the exported program takes."""
    wide = {}
    for name, s in given.modalities.items():
        more = max(0, 2 - s.mask.shape[1])
        features, mask = (
            torch.nn.functional.pad(t, pad) for t, pad in ((s.features, (0, 0, 0, more)), (s.mask, (0, more)))
        )
        wide[name] = Sequences(features=features, mask=mask)
    return replace(given, modalities=wide)


@pytest.mark.parametrize("options", [*VARIANTS.values(), SOFT], ids=[*VARIANTS, "soft"])
def test_an_exported_program_takes_other_lengths_and_missing_modalities(options: dict[str, Any]) -> None:
    built = model(**options)
    with torch.no_grad():
        run = torch.export.export(
            TensorsIn(built), tensors_of(batch(TRACED)), dynamic_shapes=(lengths_of_their_own(),)
        ).module()
        for lengths in OTHERS:
            given = padded(batch(lengths, seed=7))
            torch.testing.assert_close(run(*tensors_of(given)), built(given).prediction, **MODEL)


def written_in(page: str, section: str) -> list[str]:
    """The Python that a section of a page of the documentation shows."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL)


# What the exporter says of itself: of its own deprecated calls, and that one name of two stands for a length
# that both tensors share.
@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:# The axis name:UserWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:onnx.*")
def test_what_the_documentation_exports_gives_what_the_model_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two snippets of the documentation as they stand there, run at other lengths and without a
    modality.
    """
    pytest.importorskip(
        "onnxscript", reason="the exporter to ONNX needs onnxscript: pip install 'alignmamba[onnx]'"
    )
    runtime = pytest.importorskip("onnxruntime", reason="the exported file is checked by onnxruntime")
    monkeypatch.chdir(tmp_path)
    built = model()
    names: dict[str, Any] = {"model": built, "tensors": tensors_of(batch(TRACED))}
    snippets = written_in("index.md", "Exporting")
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, "docs/index.md", "exec"), names)
    program = torch.export.load("model.pt2").module()
    session = runtime.InferenceSession("model.onnx")
    for lengths in OTHERS:
        given = padded(batch(lengths, seed=7))
        with torch.no_grad():
            expected = built(given).prediction
            torch.testing.assert_close(program(*tensors_of(given)), expected, **MODEL)
        fed = {
            place.name: tensor.numpy()
            for place, tensor in zip(session.get_inputs(), tensors_of(given), strict=True)
        }
        torch.testing.assert_close(torch.from_numpy(session.run(None, fed)[0]), expected, **MODEL)


def test_all_targets_are_named_outputs() -> None:
    further = (
        Target(name="tone", kind="regression", labels=("tone",), modality="audio"),
        Target(name="grade", kind="ordinal", labels=("grade",), classes=("0", "1", "2")),
    )
    torch.manual_seed(0)
    task = Task(kind="classification", classes=("a", "b", "c"), further=further)
    small = {"d_model": 16, "depth": 1, "d_state": 4}
    built = AlignMamba(AlignMambaConfig.preset("default", modalities=MODALITIES, task=task, **small)).eval()
    given = batch(TRACED)
    wrapped = TensorsIn(built)
    assert wrapped.outputs == ("prediction", "tone", "grade")
    with torch.no_grad():
        program = torch.export.export(
            wrapped, tensors_of(given), dynamic_shapes=(lengths_of_their_own(),)
        ).module()
        found, expected = program(*tensors_of(given)), built(given)
    here = given.modalities["audio"].mask.any(1)
    torch.testing.assert_close(found[0], expected.prediction, **MODEL)
    torch.testing.assert_close(found[1][here], expected.further["tone"][here], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2], expected.further["grade"], **MODEL)


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
