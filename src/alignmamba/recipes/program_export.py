"""The model of a run as a program of its own: a file for `torch.export` or for ONNX runtimes."""

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from torch import Tensor

from alignmamba import __version__
from alignmamba.errors import ConfigError, brief
from alignmamba.extras import require
from alignmamba.files import replacing
from alignmamba.models.exportable import TensorsIn, exported_program
from alignmamba.recipes.finished_run import OpenedRun
from alignmamba.recipes.run_directory import check_file
from alignmamba.recipes.run_interface import interface_of

if TYPE_CHECKING:
    from onnx import ModelProto

Form = Literal["onnx", "pt2"]

DESCRIPTION: Final = "alignmamba.json"
"""Name of the description within a file: an extra file of ``.pt2``, an entry of the metadata of ONNX."""
LINEAR: Final = ("MatMul", "Gemm")
"""Operators of ONNX that are linear maps."""
_MOST_BYTES: Final = (1 << 31) - 1
"""Largest file of ONNX that is one file."""
_TRIED: Final = (1, 3)
"""Numbers of samples that a finished program is tried with."""


def export_program(
    run: str | Path | OpenedRun, out: str | Path, *, form: Form, int8: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Write the model of a finished run as a program that needs no AlignMamba.

    It takes any number of samples, and lengths of their own for every modality, from 1 on: for each modality
    a tensor NAME of features (samples, tokens, width), NAME_mask (samples, tokens), true at valid tokens,
    which come first, and, where the model reads times, NAME_times, seconds in float64, NaN where unknown. A
    mask without any valid token is a missing modality. It gives ``prediction`` and each further target by its
    name: numbers in units of the label, or probabilities of the classes; NaN where a sample has nothing to
    predict from. A target of tokens has a prediction for each token of its modality, and TARGET_mask, true at
    tokens that were read.

    Args:
        run: The run, or its directory.
        out: File to write, ``.onnx`` or ``.pt2``.
        form: ``onnx``, or ``pt2``, the format of `torch.export.save`.
        int8: Store the weights of linear maps in 8 bits, and quantise what they read as it comes; ONNX alone.
        overwrite: Replace an existing file once the new one is complete.

    Returns:
        ``out``, ``bytes``, what stands in the file as its description, and ``difference``, the largest
        difference between the file's answers and the model's on samples drawn at random.

    Raises:
        AlignMambaError: If the run cannot be exported, with the reason, or the file cannot be written.
    """
    path = Path(out)
    check_file(path, f".{form}")
    if path.exists() and not overwrite:
        raise ConfigError(f"out {path}: exists already; overwrite=True (--overwrite) replaces a file")
    if int8 and form != "onnx":
        raise ConfigError(f"int8: found the format {form}, expected onnx")
    if form == "onnx":
        require("export", "onnx")
    opened = run if isinstance(run, OpenedRun) else OpenedRun.open(run)
    wrapped = TensorsIn(opened.model.cpu(), as_predicted=True)
    if form == "onnx":
        _refuse_names_of_inputs(wrapped)
    description = _description(opened, wrapped, int8=int8)
    with _quiet():
        program = exported_program(wrapped)
        try:
            with replacing(path) as file:
                if form == "pt2":
                    torch.export.save(program, file, extra_files={DESCRIPTION: json.dumps(description)})
                    answers: Callable[..., Any] = program.module()
                else:
                    content = _onnx(program, wrapped, description, int8=int8)
                    file.write(content)
                    answers = _session(content, wrapped)
                difference = _difference(wrapped, answers)
        except OSError as error:
            raise ConfigError(f"out {path}: cannot be written: {error.strerror or error}") from error
    return {"out": str(path), "bytes": path.stat().st_size, **description, "difference": difference}


def _refuse_names_of_inputs(wrapped: TensorsIn) -> None:
    """Refuse a target with the name of an input, which ONNX does not know apart; tracing takes its time."""
    inputs = [place.name for place in wrapped.inputs]
    double = next((name for name in wrapped.outputs if name in inputs), None)
    if double is not None:
        raise ConfigError(f"export: target {double!r} has the name of an input; rename it, or export pt2")


def _description(run: OpenedRun, wrapped: TensorsIn, *, int8: bool) -> dict[str, Any]:
    inputs = [
        {"name": place.name, "modality": place.modality, "kind": place.kind} for place in wrapped.inputs
    ]
    return {
        "alignmamba": __version__,
        **interface_of(run),
        "inputs": inputs,
        "outputs": list(wrapped.outputs),
        "weights": "int8" if int8 else "float32",
    }


def _onnx(
    program: torch.export.ExportedProgram, wrapped: TensorsIn, description: dict[str, Any], *, int8: bool
) -> bytes:
    """Content of a file of ONNX."""
    inputs = [place.name for place in wrapped.inputs]
    try:
        with torch.no_grad():  # a scan that keeps states for a backward pass is refused
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                verbose=False,
                input_names=inputs,
                output_names=list(wrapped.outputs),
                dynamic_shapes=wrapped.free(),  # for the names of the dimensions
            )
    except Exception as error:  # whatever the exporter lacks has a class of its own
        raise ConfigError(
            f"export: {type(wrapped.model).__name__} with these options is refused by torch.onnx:"
            f" {brief(error)}"
        ) from error
    assert made is not None
    model = made.model_proto
    if model.ByteSize() > _MOST_BYTES:
        raise ConfigError("export: the model has more than 2 GB, the most of a file of ONNX; export pt2")
    if int8:
        model = quantised(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = DESCRIPTION, json.dumps(description)
    return model.SerializeToString()  # type: ignore[no-any-return]


def quantised(model: "ModelProto", operators: Sequence[str] = LINEAR) -> "ModelProto":
    """The same model with the weights of these operators in 8 bits, which quantises what they read as it
    comes.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(model, path, op_types_to_quantize=list(operators), weight_type=QuantType.QInt8)
        small: ModelProto = type(model).FromString(path.read_bytes())
        return small


def _session(content: bytes, wrapped: TensorsIn) -> Callable[..., Any]:
    """Run a file of ONNX as a function of tensors."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content)

    def answer(*tensors: Tensor) -> list[Tensor]:
        named = {place.name: tensor.numpy() for place, tensor in zip(wrapped.inputs, tensors, strict=True)}
        return [torch.from_numpy(said) for said in session.run(list(wrapped.outputs), named)]

    return answer


def _difference(wrapped: TensorsIn, answers: Callable[..., Any]) -> float:
    """Largest difference between a program's answers and those of the model, in samples drawn at random."""
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for count in _TRIED:
        drawn = _drawn(wrapped, count, generator)
        with torch.no_grad():
            expected, found = wrapped(*drawn), answers(*drawn)
        for said, told in zip(_listed(expected), _listed(found), strict=True):
            apart = torch.where(said.isnan() & told.isnan(), 0, said.double() - told.double())
            largest = max(largest, float(apart.abs().nan_to_num(torch.inf).max()))
    return largest


def _listed(answer: Any) -> list[Tensor]:
    return [answer] if isinstance(answer, Tensor) else list(answer)


def _drawn(wrapped: TensorsIn, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Samples of unequal lengths; in several, each of several modalities is missing from one."""
    drawn: list[Tensor] = []
    specs = wrapped.model.config.modalities
    for number, spec in enumerate(specs):
        most = min(6 + 3 * number, wrapped.model.longest.get(spec.name, 6 + 3 * number))
        lengths = torch.randint(1, most + 1, (count,), generator=generator)
        if count > 1 and len(specs) > 1:
            lengths[number % count] = 0
        mask = torch.arange(most) < lengths[:, None]
        shape = (count, most, spec.width)
        for place in wrapped.inputs:
            if place.modality != spec.name:
                continue
            if place.kind == "mask":
                drawn.append(mask)
            elif place.kind == "times":
                drawn.append(torch.arange(most, dtype=torch.float64).repeat(count, 1) / most)
            elif spec.kind == "tokens":
                drawn.append(torch.randint(0, spec.dim, shape, generator=generator))
            else:
                drawn.append(_like_training(wrapped, spec.name, torch.randn(shape, generator=generator)))
    return tuple(drawn)


def _like_training(wrapped: TensorsIn, name: str, values: Tensor) -> Tensor:
    """Standard normal values at the mean and the deviation of a modality's channels in training."""
    known = wrapped.model.standardisers[name]
    return known.get_buffer("mean") + known.get_buffer("deviation") * values


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters from reporting on themselves."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "root")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
