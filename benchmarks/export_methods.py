"""Every method as a program of ONNX: the largest difference from the network, or why there is none.

Small untrained networks on three modalities; the program is traced once, and predicts one sample, three and
seven, of unequal lengths, some of which lack a modality. Methods that predict targets of tokens have one.
Each method takes a minute.

Usage: python benchmarks/export_methods.py [METHOD ...]
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from alignmamba.contracts import ModalitySpec, Target, Task
from alignmamba.errors import AlignMambaError
from alignmamba.methods import METHODS
from alignmamba.models import TensorsIn, exported_program

SPECS = tuple(ModalitySpec(name=name, dim=dim) for name, dim in (("text", 6), ("audio", 4), ("video", 5)))
TASKS = (Task(kind="regression", label_range=(-3.0, 3.0)), Task(kind="classification", classes=("a", "b")))
WORD = Target(name="word", kind="classification", labels=("word",), classes=("a", "b"), tokens="video")
SMALL = {"d_model": 8, "depth": 1, "own_depth": 1, "hidden": 8, "components": 2, "steps": 4}


def network(name: str) -> Any:
    """A small network of a method, for a task that it takes."""
    made: Any = METHODS[name].network
    small = {option: value for option, value in SMALL.items() if option in made.config_class.model_fields}
    further = () if made.config_class.no_tokens else (WORD,)
    for task in (each.model_copy(update={"further": further}) for each in TASKS):
        try:
            return made(made.config_class.preset("default", modalities=SPECS, task=task, **small)).eval()
        except AlignMambaError as error:
            problem = error
    raise problem


def tensors(count: int) -> tuple[torch.Tensor, ...]:
    """Samples that lack a modality each where there are several."""
    generator, made = torch.Generator().manual_seed(count), []
    for number, spec in enumerate(SPECS):
        lengths = torch.randint(1, 10 + number, (count,), generator=generator)
        if count > 1:
            lengths[number] = 0
        longest = int(lengths.max())
        made += [torch.randn(count, longest, spec.dim, generator=generator)]
        made += [torch.arange(longest) < lengths[:, None]]
    return tuple(made)


def difference(name: str, path: Path) -> float:
    """Largest difference between the answers of program and network."""
    torch.manual_seed(0)
    wrapped = TensorsIn(network(name), as_predicted=True)
    inputs = [place.name for place in wrapped.inputs]
    with torch.no_grad():
        torch.onnx.export(exported_program(wrapped), (), path, dynamo=True, verbose=False, input_names=inputs)
    session, largest = onnxruntime.InferenceSession(path), 0.0
    for count in (1, 3, 7):
        given = tensors(count)
        with torch.no_grad():
            answer = wrapped(*given)
        expected = answer if isinstance(answer, tuple) else (answer,)
        fed = {name: tensor.numpy() for name, tensor in zip(inputs, given, strict=True)}
        for right, found in zip(expected, map(torch.from_numpy, session.run(None, fed)), strict=True):
            apart = (found.double() - right.double()).masked_fill(found.isnan() & right.isnan(), 0)
            largest = max(largest, float(apart.abs().nan_to_num(torch.inf).max()))
    return largest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Every method as a program of ONNX.")
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    warnings.simplefilter("ignore")
    print("| method | largest difference |\n|---|---|")
    for each in parser.parse_args().methods:
        with tempfile.TemporaryDirectory() as folder:
            try:
                said = f"{difference(each, Path(folder) / 'model.onnx'):.1e}"
            except AlignMambaError as error:
                said = str(error)
        print(f"| `{each}` | {said} |", flush=True)
