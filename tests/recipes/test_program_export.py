"""A run as a file of ONNX, with weights in 8 bits."""

import json
from pathlib import Path

import numpy as np
import pytest

from alignmamba.contracts import Corpus, Target, Task
from alignmamba.data.archive import load_corpus
from alignmamba.data.loader import Loader, LoaderConfig
from alignmamba.errors import ConfigError
from alignmamba.methods import METHODS
from alignmamba.models.exportable import TensorsIn, exported_program
from alignmamba.recipes.finished_run import OpenedRun
from alignmamba.recipes.program_export import (
    DESCRIPTION,
    _difference,
    _onnx,
    _quiet,
    _session,
    export_program,
)
from small_run import CLASSES


@pytest.fixture(scope="module")
def loaded(corpus: Path) -> Corpus:
    return load_corpus(corpus)


# What the exporter says of its own deprecated calls, as far as it is not silenced.
@pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:onnx.*")
def test_a_file_in_8_bits_predicts_about_the_same(
    run: Path, loaded: Corpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx", reason="needs alignmamba[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="needs alignmamba[onnx]")
    opened, out = OpenedRun.open(run), tmp_path / "small.onnx"
    made = export_program(opened, out, form="onnx", int8=True)
    assert capfd.readouterr() == ("", "")
    stored = onnx.load(out)
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= {node.op_type for node in stored.graph.node}
    (described,) = [entry.value for entry in stored.metadata_props if entry.key == DESCRIPTION]
    assert json.loads(described) == {name: made[name] for name in json.loads(described)}
    assert (made["weights"], made["outputs"]) == ("int8", ["prediction"])
    assert 0 < made["difference"] < 0.1
    source = Loader(
        loaded.split("test"),
        opened.model.config.modalities,
        config=LoaderConfig(batch_size=7),
        task=opened.model.config.task,
        shuffle=False,
        seed=0,
    )
    batch = next(iter(source))
    fed = {}
    for name, sequences in batch.modalities.items():
        fed[name], fed[f"{name}_mask"] = sequences.features.numpy(), sequences.mask.numpy()
    (found,) = runtime.InferenceSession(out).run(None, fed)
    expected = opened.model(batch).prediction.softmax(1).detach().numpy()
    assert found.shape == (7, len(CLASSES))
    np.testing.assert_allclose(found, expected, atol=0.1)
    assert not np.array_equal(found, expected)
    nothing = {name: np.zeros_like(value) for name, value in fed.items()}
    (silent,) = runtime.InferenceSession(out).run(None, nothing)
    assert np.isnan(silent).all()


# As above, and what it says of one name for one size of all tensors.
@pytest.mark.filterwarnings("ignore:`torch.jit.script(_method)?` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:onnx.*")
@pytest.mark.parametrize("name", ["single-stream-transformer", "multi-stream-mamba"])
def test_streams_of_tokens_and_their_strides_are_programs(name: str) -> None:
    pytest.importorskip("onnxscript", reason="needs alignmamba[onnx]")
    word = Target(name="word", kind="ordinal", labels=("word",), classes=("a", "b", "c"), tokens="video")
    task = Task(kind="regression", further=(word,))
    options = {"d_model": 8, "depth": 1, "encoder": {"kind": "linear", "stride": 2}}
    model = METHODS[name].network.for_task({"audio": 3, "video": 2}, task, **options)
    wrapped = TensorsIn(model, as_predicted=True)
    with _quiet():
        program = exported_program(wrapped)
        content = _onnx(program, wrapped, {}, int8=False)
    assert _difference(wrapped, _session(content, wrapped)) < 1e-4


def test_an_output_of_onnx_has_no_name_of_an_input(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs alignmamba[onnx]")
    opened = OpenedRun.open(run)
    name = opened.model.config.modalities[0].name
    task = opened.model.config.task
    masks = Target(name=f"{name}_mask", kind="regression", labels=("a",))
    named = opened.model.config.model_copy(update={"task": task.model_copy(update={"further": (masks,)})})
    opened.model.config = named
    with pytest.raises(ConfigError, match=rf"^export: target '{name}_mask' has the name of an input; rename"):
        export_program(opened, tmp_path / "a.onnx", form="onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_is_no_number_is_a_difference() -> None:
    model = METHODS["late-fusion"].network.for_regression({"audio": 3}, d_model=8, depth=1)
    wrapped = TensorsIn(model, as_predicted=True)
    assert _difference(wrapped, wrapped) == 0
    assert _difference(wrapped, lambda *_: wrapped(*_) * np.nan) == np.inf


def test_a_method_that_cannot_be_a_program_says_why(run: Path, tmp_path: Path) -> None:
    opened = OpenedRun.open(run)
    opened.model.unexported = "sees into the future"
    with pytest.raises(
        ConfigError, match=r"^export: AlignMamba cannot be exported: it sees into the future$"
    ):
        export_program(opened, tmp_path / "a.pt2", form="pt2")
    assert list(tmp_path.iterdir()) == []
